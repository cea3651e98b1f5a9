// SPDX-License-Identifier: MIT
/* Decoding of parsed frames: section by section, each from a private copy of its table entry. */
#include <errno.h>
#include <string.h>

#include "calibration.h"
#include "frame.h"
#include "frame_parts.h"
#include "kernels.h"

/* `parsed` comes from the caller and may differ from what was parsed: check it again. */
static int check_parsed(const struct speckv_frame *parsed, uint64_t available,
	const struct codec_mode **mode)
{
	int rc = codec_frame_mode(&parsed->geometry, parsed->codec, mode);

	if (rc)
		return rc;
	if (parsed->sections != 2u * parsed->geometry.layers ||
		parsed->raw_bytes != speckv_geometry_bytes(&parsed->geometry) ||
		parsed->frame_bytes > speckv_frame_max_bytes(&parsed->geometry, parsed->codec) ||
		parsed->frame_bytes < speckv_frame_min_bytes(&parsed->geometry, parsed->codec))
		return -EINVAL;
	return parsed->frame_bytes <= available ? 0 : -EBADMSG;
}

/* Decode one section of a calibrated mode; `calibration` has the digest of the frame. */
static int decode_calibrated(const struct speckv_frame *parsed, const struct codec_mode *mode,
	const struct speckv_calibration *calibration, const uint8_t *frame, uint32_t index,
	const struct codec_section *section, uint8_t *raw)
{
	struct codec_calibrated by = { .calibration = calibration,
		.position = parsed->identity.first_position };

	if (!calibration_covers(calibration, parsed->codec, &parsed->geometry,
		    section->parameter - index / 2) ||
		(section->parameter & CALIBRATION_LAYER) < index / 2)
		return -EBADMSG;
	return mode->decode_calibrated(&by, &parsed->geometry, codec_tensor_of(index), section,
		frame + (uint64_t)section->offset_lines * SPECKV_FRAME_ALIGN, raw);
}

static int decode_layers(const struct speckv_frame *parsed, const struct codec_mode *mode,
	const struct speckv_calibration *calibration, const uint8_t *frame,
	unsigned int layer_first, unsigned int layer_count, uint8_t *raw, bool streamed)
{
	uint64_t section_raw = codec_section_raw_bytes(&parsed->geometry);

	for (uint32_t i = 2 * layer_first; i < 2 * (layer_first + layer_count); i++) {
		struct codec_section section;
		int rc = codec_frame_section(parsed, mode, frame, i, &section);

		if (!rc && i + 1 < 2 * (layer_first + layer_count))
			codec_fetch(frame +
					(section.offset_lines + codec_lines(section.length)) *
						SPECKV_FRAME_ALIGN,
				CODEC_FRAME_LEAD);
		if (!rc && calibration)
			rc = decode_calibrated(parsed, mode, calibration, frame, i, &section, raw);
		else if (!rc)
			rc = mode->decode(&parsed->geometry, codec_tensor_of(i), &section,
				frame + (uint64_t)section.offset_lines * SPECKV_FRAME_ALIGN, raw,
				streamed);
		if (rc)
			return rc;
		raw += section_raw;
	}
	return 0;
}

static int decode_frame(const struct speckv_frame *parsed,
	const struct speckv_calibration *calibration, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity,
	bool streamed)
{
	const struct codec_mode *mode;
	uint64_t bytes;
	int rc;

	if (!parsed || !frame || !raw)
		return -EINVAL;
	/*
	 * Limited to the layers of the block, so that an error zeroes no more than success would
	 * have written.
	 */
	bytes = codec_least(layer_count, parsed->geometry.layers) * 2 *
		codec_section_raw_bytes(&parsed->geometry);
	rc = check_parsed(parsed, available, &mode);
	if (!rc &&
		(layer_first > parsed->geometry.layers ||
			layer_count > parsed->geometry.layers - layer_first))
		rc = -EINVAL;
	if (!rc && !calibration != !mode->decode_calibrated)
		rc = -EINVAL;
	if (!rc && calibration &&
		memcmp(parsed->calibration, calibration->digest, sizeof(calibration->digest)))
		rc = -EILSEQ;
	if (!rc && bytes > raw_capacity)
		rc = -ENOSPC;
	if (!rc)
		rc = decode_layers(parsed, mode, calibration, frame, layer_first, layer_count, raw,
			streamed);
	if (rc)
		memset(raw, 0, codec_least(bytes, raw_capacity));
	return rc;
}

int codec_frame_decode(const struct speckv_frame *parsed, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity,
	bool streamed)
{
	return decode_frame(parsed, NULL, frame, available, layer_first, layer_count, raw,
		raw_capacity, streamed);
}

int speckv_frame_decode_calibrated(const struct speckv_frame *parsed,
	const struct speckv_calibration *calibration, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity)
{
	if (!calibration)
		return -EINVAL;
	return decode_frame(parsed, calibration, frame, available, layer_first, layer_count, raw,
		raw_capacity, false);
}

int speckv_frame_decode(const struct speckv_frame *parsed, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity)
{
	bool streamed = parsed &&
		codec_least(layer_count, parsed->geometry.layers) * 2 *
				codec_section_raw_bytes(&parsed->geometry) >=
			CODEC_STREAMED_BYTES;

	return codec_frame_decode(parsed, frame, available, layer_first, layer_count, raw,
		raw_capacity, streamed);
}

// SPDX-License-Identifier: MIT
/*
 * Frames: header, section table, payload. FORMAT.md is the specification. Decoding:
 * frame_decode.c.
 *
 * A frame may be in memory that other processes write. Header and table entries are therefore
 * copied once, by the copying checksum, and only the private copy is used.
 */
#include <errno.h>
#include <string.h>

#include "calibration.h"
#include "frame_parts.h"
#include "kernels.h"

#define MAGIC 0x46564b53u /* "SKVF" */
#define VERSION 1
#define HEADER_CRC_AT (SPECKV_FRAME_HEADER_BYTES - 4)
/* Table entries copied at a time: a page of them. */
#define TABLE_CHUNK 256

_Static_assert(SPECKV_SECTION_BYTES == 16, "an entry is four words");

/* Line of the first section. */
static uint64_t payload_line(uint64_t sections)
{
	return codec_lines(SPECKV_FRAME_HEADER_BYTES + SPECKV_SECTION_BYTES * sections);
}

int codec_frame_mode(const struct speckv_geometry *geometry, unsigned int codec,
	const struct codec_mode **out)
{
	if (!speckv_geometry_bytes(geometry))
		return -EINVAL;
	*out = codec_mode_find(codec);
	return *out && (*out)->supports(geometry) ? 0 : -EOPNOTSUPP;
}

uint64_t speckv_frame_max_bytes(const struct speckv_geometry *geometry, unsigned int codec)
{
	const struct codec_mode *mode;

	if (codec_frame_mode(geometry, codec, &mode))
		return 0;
	return SPECKV_FRAME_ALIGN *
		(payload_line(2ULL * geometry->layers) +
			geometry->layers *
				(codec_lines(mode->section_max(geometry, CODEC_K)) +
					codec_lines(mode->section_max(geometry, CODEC_V))));
}

uint64_t speckv_frame_min_bytes(const struct speckv_geometry *geometry, unsigned int codec)
{
	const struct codec_mode *mode;

	if (codec_frame_mode(geometry, codec, &mode))
		return 0;
	return SPECKV_FRAME_ALIGN *
		(payload_line(2ULL * geometry->layers) +
			geometry->layers *
				(codec_lines(mode->section_min(geometry, CODEC_K)) +
					codec_lines(mode->section_min(geometry, CODEC_V))));
}

static void put_identity(uint8_t *header, const struct speckv_frame_identity *identity)
{
	codec_put64(header + 24, identity->first_position);
	memcpy(header + 32, identity->pool_uuid, SPECKV_UUID_BYTES);
	codec_put64(header + 48, identity->generation);
	codec_put64(header + 56, identity->pool_address);
	memcpy(header + 64, identity->key, SPECKV_KEY_BYTES);
	codec_put32(header + 120, identity->tenant);
}

static void seal_header(uint8_t *header)
{
	codec_put32(header + HEADER_CRC_AT, speckv_crc32c(0, header, HEADER_CRC_AT));
}

static void zero_to_line(uint8_t *frame, uint64_t from)
{
	memset(frame + from, 0, codec_lines(from) * SPECKV_FRAME_ALIGN - from);
}

/* `parameter`: that of section 0, in calibrated modes. */
static int encode_frame(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_calibration *calibration, uint32_t parameter,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t raw_bytes,
	void *frame, uint64_t frame_capacity, uint64_t *frame_bytes)
{
	uint8_t header[SPECKV_FRAME_HEADER_BYTES] = { 0 };
	const struct codec_mode *mode;
	uint64_t section_raw, line;
	uint32_t table_crc = 0;
	unsigned int sections;
	uint8_t *to = frame;
	int rc;

	if (!identity || !raw || !frame || !frame_bytes || (uintptr_t)frame % SPECKV_FRAME_ALIGN)
		return -EINVAL;
	rc = codec_frame_mode(geometry, codec, &mode);
	if (rc)
		return rc;
	if (raw_bytes != speckv_geometry_bytes(geometry) ||
		!calibration != !mode->encode_calibrated)
		return -EINVAL;
	if (calibration && !calibration_covers(calibration, codec, geometry, parameter))
		return -ERANGE;
	if (frame_capacity < speckv_frame_max_bytes(geometry, codec))
		return -ENOSPC;
	sections = 2u * geometry->layers;
	section_raw = codec_section_raw_bytes(geometry);
	line = payload_line(sections);
	for (unsigned int i = 0; i < sections; i++) {
		uint8_t entry[SPECKV_SECTION_BYTES];
		struct codec_section section = { .offset_lines = (uint32_t)line };

		if (calibration) {
			struct codec_calibrated by = { .calibration = calibration,
				.position = identity->first_position };

			section.parameter = parameter + i / 2;
			rc = mode->encode_calibrated(&by, geometry, codec_tensor_of(i),
				(const uint8_t *)raw + i * section_raw,
				to + line * SPECKV_FRAME_ALIGN, &section);
		} else {
			rc = mode->encode(geometry, codec_tensor_of(i), identity->first_position,
				(const uint8_t *)raw + i * section_raw,
				to + line * SPECKV_FRAME_ALIGN, &section);
		}
		if (rc)
			return rc;
		zero_to_line(to, line * SPECKV_FRAME_ALIGN + section.length);
		line += codec_lines(section.length);
		codec_put32(entry, section.offset_lines);
		codec_put32(entry + 4, section.length);
		codec_put32(entry + 8, section.crc);
		codec_put32(entry + 12, section.parameter);
		table_crc = speckv_crc32c_copy(table_crc,
			to + SPECKV_FRAME_HEADER_BYTES + i * SPECKV_SECTION_BYTES, entry,
			sizeof(entry));
	}
	zero_to_line(to, SPECKV_FRAME_HEADER_BYTES + (uint64_t)sections * SPECKV_SECTION_BYTES);
	codec_put32(header, MAGIC);
	codec_put16(header + 4, VERSION);
	header[6] = (uint8_t)codec;
	header[7] = geometry->dtype;
	codec_put16(header + 8, geometry->layers);
	codec_put16(header + 10, geometry->kv_heads);
	codec_put16(header + 12, geometry->head_dim);
	codec_put16(header + 14, geometry->tokens);
	codec_put32(header + 16, (uint32_t)raw_bytes);
	codec_put32(header + 20, (uint32_t)(line * SPECKV_FRAME_ALIGN));
	put_identity(header, identity);
	if (calibration)
		memcpy(header + 96, calibration->digest, sizeof(calibration->digest));
	codec_put16(header + 112, (uint16_t)sections);
	codec_put32(header + 116, table_crc);
	seal_header(header);
	memcpy(to, header, sizeof(header));
	*frame_bytes = line * SPECKV_FRAME_ALIGN;
	return 0;
}

int speckv_frame_encode(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t raw_bytes,
	void *frame, uint64_t frame_capacity, uint64_t *frame_bytes)
{
	return encode_frame(geometry, codec, NULL, 0, identity, raw, raw_bytes, frame,
		frame_capacity, frame_bytes);
}

int speckv_frame_encode_calibrated(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_calibration *calibration, unsigned int layer_first,
	unsigned int head_first, const struct speckv_frame_identity *identity, const void *raw,
	uint64_t raw_bytes, void *frame, uint64_t frame_capacity, uint64_t *frame_bytes)
{
	if (!calibration)
		return -EINVAL;
	if (layer_first > CALIBRATION_LAYER || head_first > UINT16_MAX)
		return -ERANGE;
	return encode_frame(geometry, codec, calibration,
		calibration_parameter(layer_first, head_first), identity, raw, raw_bytes, frame,
		frame_capacity, frame_bytes);
}

/* Copy the header, check magic, checksum and version. */
static int copy_header(const void *frame, uint64_t available,
	uint8_t header[SPECKV_FRAME_HEADER_BYTES])
{
	uint32_t crc;

	if (!frame || available < SPECKV_FRAME_HEADER_BYTES)
		return -EBADMSG;
	codec_fetch(frame, codec_least(available, CODEC_FRAME_LEAD));
	crc = speckv_crc32c_copy(0, header, frame, HEADER_CRC_AT);
	speckv_crc32c_copy(0, header + HEADER_CRC_AT, (const uint8_t *)frame + HEADER_CRC_AT, 4);
	if (codec_get32(header) != MAGIC || codec_get32(header + HEADER_CRC_AT) != crc)
		return -EBADMSG;
	return codec_get16(header + 4) == VERSION ? 0 : -EPROTONOSUPPORT;
}

static void get_section(const uint8_t *entry, struct codec_section *section)
{
	section->offset_lines = codec_get32(entry);
	section->length = codec_get32(entry + 4);
	section->crc = codec_get32(entry + 8);
	section->parameter = codec_get32(entry + 12);
}

/* Is the section within the payload, with a length and parameter valid for its mode? */
static bool section_valid(const struct speckv_frame *parsed, const struct codec_mode *mode,
	enum codec_tensor tensor, const struct codec_section *section)
{
	const struct speckv_geometry *geometry = &parsed->geometry;

	return section->offset_lines >= payload_line(parsed->sections) &&
		section->offset_lines + codec_lines(section->length) <=
		parsed->frame_bytes / SPECKV_FRAME_ALIGN &&
		section->length >= mode->section_min(geometry, tensor) &&
		section->length <= mode->section_max(geometry, tensor) &&
		mode->parameter_valid(section->parameter);
}

/*
 * Check the whole table: checksum, and consecutive sections without gaps up to the end of the
 * frame.
 */
static int check_table(const struct speckv_frame *parsed, const struct codec_mode *mode,
	const uint8_t *frame, uint32_t table_crc)
{
	uint8_t chunk[TABLE_CHUNK * SPECKV_SECTION_BYTES];
	uint64_t line = payload_line(parsed->sections);
	uint32_t crc = 0;

	for (uint32_t first = 0; first < parsed->sections; first += TABLE_CHUNK) {
		uint32_t count = (uint32_t)codec_least(TABLE_CHUNK, parsed->sections - first);

		crc = speckv_crc32c_copy(crc, chunk,
			frame + SPECKV_FRAME_HEADER_BYTES + (uint64_t)first * SPECKV_SECTION_BYTES,
			(uint64_t)count * SPECKV_SECTION_BYTES);
		for (uint32_t i = 0; i < count; i++) {
			struct codec_section section;

			get_section(chunk + i * SPECKV_SECTION_BYTES, &section);
			if (section.offset_lines != line ||
				!section_valid(parsed, mode, codec_tensor_of(first + i), &section))
				return -EBADMSG;
			line += codec_lines(section.length);
		}
	}
	return crc == table_crc && line * SPECKV_FRAME_ALIGN == parsed->frame_bytes ? 0 : -EBADMSG;
}

int speckv_frame_parse(const void *frame, uint64_t available, struct speckv_frame *out)
{
	static const uint8_t zero[SPECKV_CALIBRATION_DIGEST_BYTES];
	uint8_t header[SPECKV_FRAME_HEADER_BYTES];
	struct speckv_frame parsed = { 0 };
	const struct codec_mode *mode;
	int rc;

	if (!out)
		return -EINVAL;
	rc = copy_header(frame, available, header);
	if (rc)
		return rc;
	parsed.codec = header[6];
	parsed.geometry.dtype = header[7];
	parsed.geometry.layers = codec_get16(header + 8);
	parsed.geometry.kv_heads = codec_get16(header + 10);
	parsed.geometry.head_dim = codec_get16(header + 12);
	parsed.geometry.tokens = codec_get16(header + 14);
	parsed.raw_bytes = codec_get32(header + 16);
	parsed.frame_bytes = codec_get32(header + 20);
	parsed.identity.first_position = codec_get64(header + 24);
	memcpy(parsed.identity.pool_uuid, header + 32, SPECKV_UUID_BYTES);
	parsed.identity.generation = codec_get64(header + 48);
	parsed.identity.pool_address = codec_get64(header + 56);
	memcpy(parsed.identity.key, header + 64, SPECKV_KEY_BYTES);
	parsed.identity.tenant = codec_get32(header + 120);
	memcpy(parsed.calibration, header + 96, SPECKV_CALIBRATION_DIGEST_BYTES);
	parsed.sections = codec_get16(header + 112);
	if (!codec_mode_find(parsed.codec))
		return -EOPNOTSUPP;
	rc = codec_frame_mode(&parsed.geometry, parsed.codec, &mode);
	if (rc)
		return rc == -EINVAL ? -EBADMSG : rc;
	if (parsed.raw_bytes != speckv_geometry_bytes(&parsed.geometry) ||
		parsed.sections != 2u * parsed.geometry.layers ||
		parsed.frame_bytes % SPECKV_FRAME_ALIGN || parsed.frame_bytes > available ||
		parsed.frame_bytes < speckv_frame_min_bytes(&parsed.geometry, parsed.codec) ||
		parsed.frame_bytes > speckv_frame_max_bytes(&parsed.geometry, parsed.codec))
		return -EBADMSG;
	/* Exactly the calibrated modes name a calibration; no flags are defined. */
	if (!memcmp(parsed.calibration, zero, sizeof(zero)) != !mode->decode_calibrated ||
		codec_get16(header + 114))
		return -EBADMSG;
	rc = check_table(&parsed, mode, frame, codec_get32(header + 116));
	if (rc)
		return rc;
	*out = parsed;
	return 0;
}

int speckv_frame_readdress(void *frame, uint64_t available,
	const struct speckv_frame_identity *identity)
{
	uint8_t header[SPECKV_FRAME_HEADER_BYTES];
	int rc;

	if (!identity)
		return -EINVAL;
	rc = copy_header(frame, available, header);
	if (rc)
		return rc;
	put_identity(header, identity);
	seal_header(header);
	memcpy(frame, header, sizeof(header));
	return 0;
}

int codec_frame_section(const struct speckv_frame *parsed, const struct codec_mode *mode,
	const uint8_t *frame, uint32_t index, struct codec_section *section)
{
	uint8_t entry[SPECKV_SECTION_BYTES];

	speckv_crc32c_copy(0, entry,
		frame + SPECKV_FRAME_HEADER_BYTES + (uint64_t)index * SPECKV_SECTION_BYTES,
		sizeof(entry));
	get_section(entry, section);
	return section_valid(parsed, mode, codec_tensor_of(index), section) ? 0 : -EBADMSG;
}

/* Padding up to the next line must be zero. */
static bool padding_zero(const uint8_t *frame, uint64_t from)
{
	uint8_t line[SPECKV_FRAME_ALIGN];
	uint64_t bytes = codec_lines(from) * SPECKV_FRAME_ALIGN - from;
	uint8_t any = 0;

	speckv_crc32c_copy(0, line, frame + from, bytes);
	for (uint64_t i = 0; i < bytes; i++)
		any |= line[i];
	return !any;
}

int speckv_frame_verify(const void *frame, uint64_t available)
{
	const struct codec_mode *mode;
	struct speckv_frame parsed;
	int rc;

	rc = speckv_frame_parse(frame, available, &parsed);
	if (rc)
		return rc;
	mode = codec_mode_find(parsed.codec);
	if (!padding_zero(frame,
		    SPECKV_FRAME_HEADER_BYTES + (uint64_t)parsed.sections * SPECKV_SECTION_BYTES))
		return -EBADMSG;
	for (uint32_t i = 0; i < parsed.sections; i++) {
		struct codec_section section;
		uint64_t at;

		rc = codec_frame_section(&parsed, mode, frame, i, &section);
		if (rc)
			return rc;
		at = (uint64_t)section.offset_lines * SPECKV_FRAME_ALIGN;
		if (speckv_crc32c(0, (const uint8_t *)frame + at, section.length) != section.crc ||
			!padding_zero(frame, at + section.length))
			return -EBADMSG;
	}
	return 0;
}

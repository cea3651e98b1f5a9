// SPDX-License-Identifier: MIT
/* Mode raw: bytes as they are. */
#include <errno.h>

#include "kernels.h"
#include "mode.h"

static bool supports(const struct speckv_geometry *geometry)
{
	(void)geometry;
	return true;
}

static bool parameter_valid(uint32_t parameter)
{
	return parameter == 0;
}

static uint64_t section_bytes(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	return codec_section_raw_bytes(geometry);
}

static int encode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	uint64_t position, const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	uint64_t bytes = section_bytes(geometry, tensor);

	(void)position;
	section->length = (uint32_t)bytes;
	section->parameter = 0;
	section->crc = ~codec_kernels()->crc_stream(~0u, out, raw, bytes);
	return 0;
}

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	const struct codec_section *section, const uint8_t *in, uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t crc = ~(streamed ? kernels->crc_stream : kernels->crc_copy)(~0u, raw, in,
		section->length);

	(void)geometry;
	(void)tensor;
	return crc == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_raw = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_bytes,
	.section_min = section_bytes,
	.encode = encode,
	.decode = decode,
};

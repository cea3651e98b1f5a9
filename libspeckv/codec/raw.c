// SPDX-License-Identifier: MIT
/* Mode raw: bytes as they are. */
#include <errno.h>

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

static int encode(const struct speckv_geometry *geometry, enum codec_tensor tensor, const uint8_t *raw, uint8_t *out,
		  struct codec_section *section)
{
	uint64_t bytes = section_bytes(geometry, tensor);

	section->length = (uint32_t)bytes;
	section->parameter = 0;
	section->crc = speckv_crc32c_copy(0, out, raw, bytes);
	return 0;
}

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor, const struct codec_section *section,
		  const uint8_t *in, uint8_t *raw)
{
	(void)geometry;
	(void)tensor;
	return speckv_crc32c_copy(0, raw, in, section->length) == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_raw = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_bytes,
	.section_min = section_bytes,
	.encode = encode,
	.decode = decode,
};

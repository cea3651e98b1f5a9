// SPDX-License-Identifier: MIT
/* Names and sizes: element types, codec modes, block shapes. */
#include <errno.h>
#include <string.h>

#include "mode.h"

/* Frames count bytes in 32 bits; half of that leaves room for the tables of every mode. */
#define RAW_BYTES_MAX ((uint64_t)1 << 31)
/* The header counts sections, two per layer, in 16 bits. */
#define LAYERS_MAX 32767

static const char *const dtype_names[] = {
	[SPECKV_DTYPE_BF16] = "bf16",
	[SPECKV_DTYPE_FP16] = "fp16",
	[SPECKV_DTYPE_FP8_E4M3] = "fp8_e4m3",
	[SPECKV_DTYPE_FP8_E5M2] = "fp8_e5m2",
};

static const char *const codec_names[] = {
	[SPECKV_CODEC_RAW] = "raw",
	[SPECKV_CODEC_INT8_DELTA_RLE] = "int8-delta-rle",
	[SPECKV_CODEC_Q4X] = "q4x",
	[SPECKV_CODEC_Q5C] = "q5c",
	[SPECKV_CODEC_E7C] = "e7c",
	[SPECKV_CODEC_LOSSLESS] = "lossless",
	[SPECKV_CODEC_Q3X] = "q3x",
	[SPECKV_CODEC_Q5X] = "q5x",
};

static const struct codec_mode *const modes[] = {
	[SPECKV_CODEC_RAW] = &codec_mode_raw,
	[SPECKV_CODEC_INT8_DELTA_RLE] = &codec_mode_int8_delta_rle,
	[SPECKV_CODEC_Q4X] = &codec_mode_q4x,
	[SPECKV_CODEC_LOSSLESS] = &codec_mode_lossless,
	[SPECKV_CODEC_Q5C] = &codec_mode_q5c,
	[SPECKV_CODEC_E7C] = &codec_mode_e7c,
	[SPECKV_CODEC_Q3X] = &codec_mode_q3x,
	[SPECKV_CODEC_Q5X] = &codec_mode_q5x,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *name_at(const char *const *names, size_t count, unsigned int value)
{
	return value < count ? names[value] : NULL;
}

static int value_of(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; name && i < count; i++)
		if (names[i] && !strcmp(names[i], name))
			return (int)i;
	return -EINVAL;
}

const char *speckv_codec_name(unsigned int codec)
{
	return name_at(codec_names, COUNT(codec_names), codec);
}

int speckv_codec_from_name(const char *name)
{
	return value_of(codec_names, COUNT(codec_names), name);
}

const char *speckv_dtype_name(unsigned int dtype)
{
	return name_at(dtype_names, COUNT(dtype_names), dtype);
}

int speckv_dtype_from_name(const char *name)
{
	return value_of(dtype_names, COUNT(dtype_names), name);
}

const struct codec_mode *codec_mode_find(unsigned int codec)
{
	return codec < COUNT(modes) ? modes[codec] : NULL;
}

uint32_t speckv_codec_modes(void)
{
	uint32_t map = 0;

	for (unsigned int codec = 0; codec < COUNT(modes); codec++)
		if (modes[codec] && modes[codec]->encode)
			map |= UINT32_C(1) << codec;
	return map;
}

uint32_t speckv_codec_calibrated_modes(void)
{
	uint32_t map = 0;

	for (unsigned int codec = 0; codec < COUNT(modes); codec++)
		if (modes[codec] && modes[codec]->encode_calibrated)
			map |= UINT32_C(1) << codec;
	return map;
}

unsigned int codec_dtype_bytes(unsigned int dtype)
{
	switch (dtype) {
	case SPECKV_DTYPE_BF16:
	case SPECKV_DTYPE_FP16:
		return 2;
	case SPECKV_DTYPE_FP8_E4M3:
	case SPECKV_DTYPE_FP8_E5M2:
		return 1;
	default:
		return 0;
	}
}

bool codec_head_dim_lossy(unsigned int head_dim)
{
	static const uint16_t allowed[] = { 64, 80, 96, 128, 192, 256 };

	for (size_t i = 0; i < COUNT(allowed); i++)
		if (allowed[i] == head_dim)
			return true;
	return false;
}

uint64_t codec_section_raw_bytes(const struct speckv_geometry *geometry)
{
	/* At most 2^48 * 2: no overflow. */
	return (uint64_t)geometry->kv_heads * geometry->tokens * geometry->head_dim *
		codec_dtype_bytes(geometry->dtype);
}

uint64_t speckv_geometry_bytes(const struct speckv_geometry *geometry)
{
	static const uint8_t zero[sizeof(geometry->reserved)];
	uint64_t section, sections;

	if (!geometry || geometry->layers > LAYERS_MAX || geometry->tokens % CODEC_GROUP_TOKENS ||
		memcmp(geometry->reserved, zero, sizeof(zero)))
		return 0;
	section = codec_section_raw_bytes(geometry);
	sections = 2 * (uint64_t)geometry->layers;
	/* Also 0 if a dimension is 0 or the type unknown. */
	if (!section || !sections || section > RAW_BYTES_MAX / sections)
		return 0;
	return section * sections;
}

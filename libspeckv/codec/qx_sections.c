// SPDX-License-Identifier: MIT
/*
 * Modes q3x, q4x and q5x: the sections of a block, a tensor of a layer each, out of groups by the kernels in use and
 * the first tokens as they are. Defined by FORMAT.md section 5.1.
 */
#include <errno.h>

#include "qx.h"
#include "kernels.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
}

/* The number of leading tokens that are stored as they are. */
static bool parameter_valid(uint32_t parameter)
{
	return parameter == 0 || parameter == QX_SINKS;
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t bytes_of(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, unsigned int sinks)
{
	return groups_of(geometry) * qx_group_bytes(geometry->head_dim, bits, tensor) +
		2ULL * geometry->kv_heads * sinks * geometry->head_dim;
}

static int encode(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, uint64_t position, const uint8_t *raw, uint8_t *out,
	struct codec_section *section)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = qx_group_bytes(geometry->head_dim, bits, tensor), state = ~0u;
	unsigned int sinks = position ? 0 : QX_SINKS,
		     groups = geometry->tokens / CODEC_GROUP_TOKENS;
	size_t group_raw = 2 * CODEC_GROUP_TOKENS * (size_t)geometry->head_dim;
	uint8_t group[QX_GROUP_MAX] __attribute__((aligned(64)));

	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		const uint8_t *values = raw + i * group_raw;
		int rc = kernels->qx_encode(values, geometry->head_dim, geometry->dtype, bits,
			tensor, i % groups ? 0 : sinks, group);

		if (rc)
			return rc;
		if (!kernels->qx_guard(values, geometry->head_dim, geometry->dtype, tensor, group))
			return -ENODATA;
		state = kernels->crc_stream(state, out, group, bytes);
		out += bytes;
	}
	for (unsigned int head = 0; head < geometry->kv_heads && sinks; head++) {
		uint32_t length = 2 * sinks * geometry->head_dim;

		state = kernels->crc_stream(state, out, raw + head * groups * group_raw, length);
		out += length;
	}
	section->length = (uint32_t)bytes_of(geometry, bits, tensor, sinks);
	section->crc = ~state;
	section->parameter = sinks;
	return 0;
}

static int decode(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, const struct codec_section *section, const uint8_t *in,
	uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = qx_group_bytes(geometry->head_dim, bits, tensor), state = ~0u;
	unsigned int groups = geometry->tokens / CODEC_GROUP_TOKENS, sinks = section->parameter;
	size_t group_raw = 2 * CODEC_GROUP_TOKENS * (size_t)geometry->head_dim;
	uint8_t group[QX_GROUP_MAX] __attribute__((aligned(64)));

	if (section->length != bytes_of(geometry, bits, tensor, sinks))
		return -EBADMSG;
	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		state = kernels->crc_copy(state, group, in, bytes);
		codec_fetch(in + bytes, bytes);
		kernels->qx_decode(group, geometry->head_dim, geometry->dtype, bits, tensor,
			raw + i * group_raw, streamed);
		in += bytes;
	}
	for (unsigned int head = 0; head < geometry->kv_heads && sinks; head++) {
		uint32_t length = 2 * sinks * geometry->head_dim;

		state = kernels->crc_copy(state, raw + head * groups * group_raw, in, length);
		in += length;
	}
	return ~state == section->crc ? 0 : -EBADMSG;
}

#define MODE(name, k_bits, v_bits)                                                                 \
	static uint64_t name##_max(const struct speckv_geometry *geometry,                         \
		enum codec_tensor tensor)                                                          \
	{                                                                                          \
		return bytes_of(geometry, tensor == CODEC_K ? (k_bits) : (v_bits), tensor,         \
			QX_SINKS);                                                                 \
	}                                                                                          \
	static uint64_t name##_min(const struct speckv_geometry *geometry,                         \
		enum codec_tensor tensor)                                                          \
	{                                                                                          \
		return bytes_of(geometry, tensor == CODEC_K ? (k_bits) : (v_bits), tensor, 0);     \
	}                                                                                          \
	static int name##_encode(const struct speckv_geometry *geometry, enum codec_tensor tensor, \
		uint64_t position, const uint8_t *raw, uint8_t *out,                               \
		struct codec_section *section)                                                     \
	{                                                                                          \
		return encode(geometry, tensor == CODEC_K ? (k_bits) : (v_bits), tensor, position, \
			raw, out, section);                                                        \
	}                                                                                          \
	static int name##_decode(const struct speckv_geometry *geometry, enum codec_tensor tensor, \
		const struct codec_section *section, const uint8_t *in, uint8_t *raw,              \
		bool streamed)                                                                     \
	{                                                                                          \
		return decode(geometry, tensor == CODEC_K ? (k_bits) : (v_bits), tensor, section,  \
			in, raw, streamed);                                                        \
	}                                                                                          \
	const struct codec_mode codec_mode_##name = {                                              \
		.supports = supports,                                                              \
		.parameter_valid = parameter_valid,                                                \
		.section_max = name##_max,                                                         \
		.section_min = name##_min,                                                         \
		.encode = name##_encode,                                                           \
		.decode = name##_decode,                                                           \
	}
MODE(q3x, 3, 3);
MODE(q4x, 4, 3);
MODE(q5x, 5, 4);

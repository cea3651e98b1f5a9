// SPDX-License-Identifier: MIT
/*
 * Modes q3x, q4x and q5x: the sections of a block, a tensor of a layer each, out of groups by the kernels in use and
 * the first tokens as they are. Defined by FORMAT.md section 5.1.
 */
#include <errno.h>

#include "qx.h"
#include "kernels.h"
#include "sinks.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
}

/* The number of leading tokens that are stored as they are. */
static bool parameter_valid(uint32_t parameter)
{
	return parameter == 0 || parameter == CODEC_SINKS;
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t bytes_of(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, unsigned int sinks)
{
	return groups_of(geometry) * qx_group_bytes(geometry->head_dim, bits, tensor) +
		sinks_bytes(geometry, sinks);
}

static int encode(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, uint64_t position, const uint8_t *raw, uint8_t *out,
	struct codec_section *section)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = qx_group_bytes(geometry->head_dim, bits, tensor);
	unsigned int sinks = sinks_at(position), groups = geometry->tokens / CODEC_GROUP_TOKENS;
	struct piece_sink sink = { out, 0, bytes_of(geometry, bits, tensor, sinks), ~0u };
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
		piece_give(&sink, group, bytes);
	}
	sinks_give(&sink, geometry, sinks, raw);
	section->length = (uint32_t)sink.used;
	section->crc = ~sink.state;
	section->parameter = sinks;
	return 0;
}

static int decode(const struct speckv_geometry *geometry, unsigned int bits,
	enum codec_tensor tensor, const struct codec_section *section, const uint8_t *in,
	uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = qx_group_bytes(geometry->head_dim, bits, tensor);
	struct piece_source source = { in, section->length, ~0u };
	size_t group_raw = 2 * CODEC_GROUP_TOKENS * (size_t)geometry->head_dim;
	uint8_t group[QX_GROUP_MAX] __attribute__((aligned(64)));

	if (section->length != bytes_of(geometry, bits, tensor, section->parameter))
		return -EBADMSG;
	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		piece_take(&source, group, bytes);
		codec_fetch(source.from, bytes);
		kernels->qx_decode(group, geometry->head_dim, geometry->dtype, bits, tensor,
			raw + i * group_raw, streamed);
	}
	sinks_take(&source, geometry, section->parameter, raw);
	return ~source.state == section->crc ? 0 : -EBADMSG;
}

#define MODE(name, k_bits, v_bits)                                                                 \
	static uint64_t name##_max(const struct speckv_geometry *geometry,                         \
		enum codec_tensor tensor)                                                          \
	{                                                                                          \
		return bytes_of(geometry, tensor == CODEC_K ? (k_bits) : (v_bits), tensor,         \
			CODEC_SINKS);                                                              \
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

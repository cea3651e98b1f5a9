// SPDX-License-Identifier: MIT
/*
 * Mode q4x: fixed rate. K is rotated by a Hadamard transform and held in 4 bits, V in 3 bits as it is; one 8-bit logarithmic scale
 * a token. FORMAT.md section 5 is the definition; the portable kernels below follow it word by word.
 */
#include <errno.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) && codec_head_dim_lossy(geometry->head_dim);
}

static bool parameter_valid(uint32_t parameter)
{
	return parameter == 0;
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t section_bytes(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	return groups_of(geometry) * q4x_group_bytes(geometry->head_dim, tensor);
}

/* ---- portable kernels --------------------------------------------------------------------------------------------- */

/* In place, unnormalised, slice by slice. */
static void rotate(int32_t *values, unsigned int head_dim, unsigned int slice)
{
	for (unsigned int half = 1; half < slice; half *= 2)
		for (unsigned int i = 0; i < head_dim; i++)
			if (!(i & half)) {
				int32_t a = values[i], b = values[i + half];

				values[i] = a + b;
				values[i + half] = a - b;
			}
}

static int32_t quantise(int32_t z, unsigned int t, unsigned int bits)
{
	int32_t limit = 1 << (bits - 1), q = (z * q4x_reciprocal[t]) >> 24;

	return q < -limit ? -limit : q >= limit ? limit - 1 : q;
}

static uint64_t squared_error(const int32_t *z, unsigned int head_dim, unsigned int t, unsigned int bits)
{
	uint64_t sum = 0;

	for (unsigned int c = 0; c < head_dim; c++) {
		int32_t e = z[c] - (2 * quantise(z[c], t, bits) + 1) * q4x_half_step[t];

		sum += (uint64_t)((int64_t)e * e);
	}
	return sum;
}

static int encode_token(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim, enum codec_tensor tensor, uint8_t *scale,
			uint8_t *codes)
{
	unsigned int bits = q4x_bits(tensor), slice_log2 = q4x_slice_log2(head_dim), t = 0, best;
	int32_t z[CODEC_HEAD_DIM_MAX], largest_z = 0;
	uint32_t largest = 0, significand;
	int exponent, unit, code;
	uint64_t least;

	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t magnitude = codec_get16(raw + 2 * c) & 0x7fff;

		if (magnitude > largest)
			largest = magnitude;
	}
	if (largest >= layout->infinity)
		return -ENODATA;
	*scale = 0;
	memset(codes, 0, q4x_token_bytes(head_dim, tensor));
	if (!largest)
		return 0;
	/* exponent: floor(log2) of the largest magnitude; values become integers with 19 bits (K), 13 bits (V) for it. */
	exponent = (int)float_split(layout, largest, &significand) - layout->bias - (int)layout->mantissa_bits;
	exponent += bit_length(significand) - 1;
	unit = exponent - (tensor == CODEC_K ? 18 : 12);
	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t word = codec_get16(raw + 2 * c);
		int field = (int)float_split(layout, word & 0x7fff, &significand);

		z[c] = float_align(significand, field - layout->bias - (int)layout->mantissa_bits - unit);
		if (word & 0x8000)
			z[c] = -z[c];
	}
	if (tensor == CODEC_K) {
		int32_t most = 0;
		int down;

		rotate(z, head_dim, 1u << slice_log2);
		for (unsigned int c = 0; c < head_dim; c++)
			most = z[c] > most ? z[c] : -z[c] > most ? -z[c] : most;
		down = bit_length((uint32_t)most) - 14; /* at least 5: no coefficient set is smaller than its values */
		for (unsigned int c = 0; c < head_dim; c++)
			z[c] = (z[c] + (1 << (down - 1))) >> down;
		unit += down - (int)slice_log2;
	}
	for (unsigned int c = 0; c < head_dim; c++)
		largest_z = z[c] > largest_z ? z[c] : -z[c] > largest_z ? -z[c] : largest_z;
	/* t counts from the table's first entry; the first one tried covers the largest coefficient. */
	t = Q4X_CLIPS;
	while (t < 12 && q4x_half_step[t] << bits < largest_z)
		t++;
	code = 8 * (31 + unit) + 1 + (int)t - Q4X_CLIPS;
	if (code > 255)
		return -ENODATA;
	if (code < 1)
		return 0;
	best = t;
	least = squared_error(z, head_dim, t, bits);
	for (unsigned int clip = 1; clip <= Q4X_CLIPS && code - (int)clip >= 1; clip++) {
		uint64_t error = squared_error(z, head_dim, t - clip, bits);

		if (error < least) {
			least = error;
			best = t - clip;
		}
	}
	*scale = (uint8_t)(code - (int)(t - best));
	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t u = (uint32_t)(quantise(z[c], best, bits) + (1 << (bits - 1)));
		unsigned int at = c * bits;

		codes[at / 8] |= (uint8_t)(u << at % 8);
		if (at % 8 + bits > 8)
			codes[at / 8 + 1] |= (uint8_t)(u >> (8 - at % 8));
	}
	return 0;
}

int codec_q4x_encode_portable(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		int rc = encode_token(float_layout(dtype), raw + 2 * t * head_dim, head_dim, tensor, group + t,
				      group + Q4X_SCALES + t * q4x_token_bytes(head_dim, tensor));

		if (rc)
			return rc;
	}
	return 0;
}

static void decode_token(const struct float_layout *layout, unsigned int scale, const uint8_t *codes, unsigned int head_dim,
			 enum codec_tensor tensor, uint8_t *raw)
{
	unsigned int bits = q4x_bits(tensor);
	int32_t v[CODEC_HEAD_DIM_MAX] = { 0 };

	if (!scale) {
		memset(raw, 0, 2 * head_dim);
		return;
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int at = c * bits;
		uint32_t u = codes[at / 8];

		if (at % 8 + bits > 8)
			u |= (uint32_t)codes[at / 8 + 1] << 8;
		u = u >> at % 8 & ((1u << bits) - 1);
		v[c] = 2 * (int32_t)u - (1 << bits) + 1;
	}
	if (tensor == CODEC_K)
		rotate(v, head_dim, 1u << q4x_slice_log2(head_dim));
	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t magnitude = (uint32_t)(v[c] < 0 ? -v[c] : v[c]);

		magnitude = float_nearest(layout, magnitude * q4x_eighths[(scale - 1) % 8], (int)(scale - 1) / 8 - 33);
		codec_put16(raw + 2 * c, (uint16_t)(magnitude | (v[c] < 0 ? 0x8000 : 0)));
	}
}

void codec_q4x_decode_portable(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw,
			       bool streamed)
{
	(void)streamed;
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		decode_token(float_layout(dtype), group[t], group + Q4X_SCALES + t * q4x_token_bytes(head_dim, tensor), head_dim, tensor,
			     raw + 2 * t * head_dim);
}

/* ---- sections ----------------------------------------------------------------------------------------------------- */

static int encode(const struct speckv_geometry *geometry, enum codec_tensor tensor, const uint8_t *raw, uint8_t *out,
		  struct codec_section *section)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = q4x_group_bytes(geometry->head_dim, tensor);
	uint8_t group[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	uint32_t state = ~0u;

	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		int rc = kernels->q4x_encode(raw, geometry->head_dim, geometry->dtype, tensor, group);

		if (rc)
			return rc;
		state = kernels->crc_stream(state, out, group, bytes);
		raw += 2 * CODEC_GROUP_TOKENS * geometry->head_dim;
		out += bytes;
	}
	section->length = (uint32_t)section_bytes(geometry, tensor);
	section->crc = ~state;
	section->parameter = 0;
	return 0;
}

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor, const struct codec_section *section,
		  const uint8_t *in, uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = q4x_group_bytes(geometry->head_dim, tensor);
	uint8_t group[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	uint32_t state = ~0u;

	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		state = kernels->crc_copy(state, group, in, bytes);
		kernels->q4x_decode(group, geometry->head_dim, geometry->dtype, tensor, raw, streamed);
		raw += 2 * CODEC_GROUP_TOKENS * geometry->head_dim;
		in += bytes;
	}
	return ~state == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_q4x = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_bytes,
	.section_min = section_bytes,
	.encode = encode,
	.decode = decode,
};

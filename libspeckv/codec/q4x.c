// SPDX-License-Identifier: MIT
/*
 * Mode q4x: fixed rate, trellis-coded. K is rotated by a Hadamard transform, less the mean of its
 * group, and quantised to 4 bits, V to 3 bits without a rotation; one 8-bit logarithmic scale per
 * token. Defined by FORMAT.md section 5; the portable kernels below follow it word by word.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
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

/* ---- portable kernels ----------------------------------------------------------------------- */

/* The exponent of a token's largest magnitude: floor(log2). */
struct extent {
	int exponent;
	bool zero;
};

static int measure(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	struct extent *extent)
{
	uint32_t largest = 0, significand;

	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t magnitude = codec_get16(raw + 2 * c) & 0x7fff;

		if (magnitude > largest)
			largest = magnitude;
	}
	if (largest >= layout->infinity)
		return -ENODATA;
	extent->zero = !largest;
	extent->exponent = (int)float_split(layout, largest, &significand) - layout->bias -
		(int)layout->mantissa_bits;
	extent->exponent += bit_length(significand) - 1;
	return 0;
}

/* Convert a token's values to integers, in units of 2^unit. */
static void align(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	int unit, int32_t *out)
{
	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t word = codec_get16(raw + 2 * c), significand;
		int field = (int)float_split(layout, word & 0x7fff, &significand);

		out[c] = float_align(significand,
			field - layout->bias - (int)layout->mantissa_bits - unit);
		if (word & 0x8000)
			out[c] = -out[c];
	}
}

static int32_t largest_of(const int32_t *values, unsigned int count)
{
	int32_t largest = 0;

	for (unsigned int i = 0; i < count; i++)
		largest = values[i] > largest  ? values[i]
			: -values[i] > largest ? -values[i]
					       : largest;
	return largest;
}

/* The fine cell of z: 8 (K) or 16 (V) per step of the union codebook, saturated to a byte. */
static int cell(int32_t z, unsigned int t, enum codec_tensor tensor)
{
	int magnitude = (z < 0 ? -z : z) * q4x_reciprocal[t] >> (tensor == CODEC_K ? 16 : 15);

	if (magnitude > Q4X_KNEE)
		magnitude = (magnitude + Q4X_KNEE) >> 1;
	if (magnitude > 127)
		magnitude = 127;
	return z < 0 ? -magnitude - 1 : magnitude;
}

/* log2 of the cells per union step; a subset's levels are four steps apart. */
static unsigned int fine_log2(enum codec_tensor tensor)
{
	return tensor == CODEC_K ? 3 : 4;
}

/*
 * Position of the cell in a subset, biased by 128: the upper bits are the index of the level, the
 * lower ones the distance from it.
 */
static unsigned int within(int cell_number, unsigned int subset, enum codec_tensor tensor)
{
	int fine = 1 << fine_log2(tensor),
	    at = cell_number + 2 * fine - (int)subset * fine - fine / 2;

	return (unsigned int)((at < -128 ? -128 : at > 127 ? 127 : at) + 128);
}

static unsigned int saturate(unsigned int metric)
{
	return metric < 255 ? metric : 255;
}

/*
 * Quantise one token's cells: the path of least squared error through the trellis, with saturating
 * metrics.
 */
static void quantise(const int *cells, unsigned int head_dim, enum codec_tensor tensor,
	uint8_t *codes)
{
	unsigned int metric[4] = { 0, 255, 255, 255 }, fine = fine_log2(tensor), state = 0;
	uint8_t older[CODEC_HEAD_DIM_MAX][4];

	for (unsigned int c = 0; c < head_dim; c++) {
		bool outer = cells[c] >= Q4X_KNEE || cells[c] < -Q4X_KNEE;
		unsigned int distance[4], next[4], least = 255;

		for (unsigned int j = 0; j < 4; j++) {
			/* Distance in sixteenths of a step, an odd number. */
			int apart = 2 * (int)(within(cells[c], j, tensor) >> (fine - 3) & 31) - 31;

			distance[j] = (unsigned int)(apart * apart) >> (outer ? 2 : 4);
		}
		/*
		 * State: 2 p(c) + p(c-1); its predecessors are those with p(c-1) as their upper
		 * bit.
		 */
		for (unsigned int s = 0; s < 4; s++) {
			unsigned int from = 2 * (s & 1), subset = (s & 1) | (s & 2);
			unsigned int first = saturate(metric[from] + distance[subset]);
			unsigned int second = saturate(metric[from + 1] + distance[subset ^ 2]);

			older[c][s] = second < first;
			next[s] = second < first ? second : first;
			least = next[s] < least ? next[s] : least;
		}
		for (unsigned int s = 0; s < 4; s++)
			metric[s] = next[s] - (c % Q4X_LEVELLING == Q4X_LEVELLING - 1 ? least : 0);
	}
	for (unsigned int s = 1; s < 4; s++)
		if (metric[s] < metric[state])
			state = s;
	for (unsigned int c = head_dim; c-- > 0;) {
		unsigned int subset = (state & 1) |
			((state & 2) ^ (unsigned int)(2 * older[c][state]));

		codes[c] = (uint8_t)((state >> 1) << (q4x_bits(tensor) - 1) |
			within(cells[c], subset, tensor) >> (fine + 2));
		state = 2 * (state & 1) | older[c][state];
	}
}

static void write_codes(const uint8_t *codes, unsigned int head_dim, unsigned int bits,
	uint8_t *out)
{
	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int at = c * bits;

		out[at / 8] |= (uint8_t)(codes[c] << at % 8);
		if (at % 8 + bits > 8)
			out[at / 8 + 1] |= (uint8_t)(codes[c] >> (8 - at % 8));
	}
}

/*
 * Encode one token of integers in units of 2^unit; `mean`, in coefficients, is NULL if the group
 * has none.
 */
static int encode_token(int32_t *z, int unit, const int32_t *mean, unsigned int head_dim,
	enum codec_tensor tensor, uint8_t *scale, uint8_t *out)
{
	int cells[CODEC_HEAD_DIM_MAX], code;
	uint8_t codes[CODEC_HEAD_DIM_MAX];
	int32_t largest;
	unsigned int t = 0;

	if (tensor == CODEC_K) {
		int down;

		q4x_rotate(z, head_dim);
		for (unsigned int c = 0; mean && c < head_dim; c++)
			z[c] -= mean[c];
		down = bit_length((uint32_t)largest_of(z, head_dim)) - 14;
		for (unsigned int c = 0; down > 0 && c < head_dim; c++)
			z[c] = (z[c] + (1 << (down - 1))) >> down;
		unit += (down > 0 ? down : 0) - (int)q4x_slice_log2(head_dim);
	}
	largest = largest_of(z, head_dim);
	while (t < Q4X_STEPS - 1 && q4x_half_step[t] * q4x_reach(tensor) < largest)
		t++;
	code = 8 * unit + (int)t + Q4X_CODE;
	if (!largest || code < 1)
		return 0;
	if (code > 255)
		return -ENODATA;
	for (unsigned int c = 0; c < head_dim; c++)
		cells[c] = cell(z[c], t, tensor);
	quantise(cells, head_dim, tensor, codes);
	write_codes(codes, head_dim, q4x_bits(tensor), out);
	*scale = (uint8_t)code;
	return 0;
}

int codec_q4x_encode_portable(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *group)
{
	const struct float_layout *layout = float_layout(dtype);
	int precision = tensor == CODEC_K ? Q4X_K_PRECISION : Q4X_V_PRECISION, most = INT_MIN,
	    least = INT_MAX;
	struct extent extents[CODEC_GROUP_TOKENS];
	int32_t values[CODEC_HEAD_DIM_MAX], mean[CODEC_HEAD_DIM_MAX] = { 0 };
	bool alike = tensor == CODEC_K;
	uint8_t *codes = group + q4x_codes_at(head_dim, tensor);

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		int rc = measure(layout, raw + 2 * t * head_dim, head_dim, &extents[t]);

		if (rc)
			return rc;
		alike = alike && !extents[t].zero;
		most = extents[t].exponent > most ? extents[t].exponent : most;
		least = extents[t].exponent < least ? extents[t].exponent : least;
	}
	memset(group, 0, q4x_group_bytes(head_dim, tensor));
	alike = alike && most - least <= Q4X_MEAN_OCTAVES;
	if (alike) {
		int32_t sums[CODEC_HEAD_DIM_MAX] = { 0 };

		for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
			align(layout, raw + 2 * t * head_dim, head_dim, most - precision, values);
			for (unsigned int c = 0; c < head_dim; c++)
				sums[c] += values[c];
		}
		alike = q4x_mean_encode(sums, head_dim, most - precision, group + Q4X_SCALES, mean);
	}
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		int unit = (alike ? most : extents[t].exponent) - precision, rc;

		if (extents[t].zero)
			continue;
		align(layout, raw + 2 * t * head_dim, head_dim, unit, values);
		rc = encode_token(values, unit, alike ? mean : NULL, head_dim, tensor, group + t,
			codes + t * q4x_token_bytes(head_dim, tensor));
		if (rc)
			return rc;
	}
	return 0;
}

/* The mean of each channel, transformed back, in half steps of its scale. */
static void read_mean(const uint8_t *part, unsigned int head_dim, int32_t *levels)
{
	for (unsigned int c = 0; c < head_dim; c++)
		levels[c] = c < q4x_means(head_dim) && part[head_dim / 2 - 1]
			? (part[c / 2] >> 4 * (c % 2) & 15) - 8
			: 0;
	q4x_rotate(levels, head_dim);
}

/* Decode a token's levels, in half steps. */
static void read_levels(const uint8_t *in, unsigned int head_dim, enum codec_tensor tensor,
	int32_t *levels)
{
	const uint8_t *positive = tensor == CODEC_K ? q4x_levels_k : q4x_levels_v;
	unsigned int bits = q4x_bits(tensor), before = 0, zero = 1u << bits;

	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int at = c * bits, path, u = in[at / 8], i;

		if (at % 8 + bits > 8)
			u |= (unsigned int)in[at / 8 + 1] << 8;
		u = u >> at % 8 & (zero - 1);
		path = u >> (bits - 1);
		/* `before`: the two previous path bits, the last one lowest. */
		i = (u & (zero / 2 - 1)) << 2 | (path << 1 ^ (before & 2)) | (before & 1);
		levels[c] = i >= zero ? positive[i - zero] : -(int32_t)positive[zero - 1 - i];
		before = before << 1 | path;
	}
}

/*
 * The binary32 number nearest to the sum of first * 2^first_exponent and second *
 * 2^second_exponent, as magnitude * 2^exponent.
 */
static uint32_t nearest_sum(int64_t first, int first_exponent, int64_t second, int second_exponent,
	bool *negative, int *exponent)
{
	uint64_t magnitude, rest;
	int64_t sum;
	int down = 0;

	/* The exponents differ by at most 31, the numbers are below 2^24. */
	*exponent = first_exponent < second_exponent ? first_exponent : second_exponent;
	sum = first * (INT64_C(1) << (first_exponent - *exponent)) +
		second * (INT64_C(1) << (second_exponent - *exponent));
	*negative = sum < 0;
	magnitude = (uint64_t)(sum < 0 ? -sum : sum);
	while (magnitude >> down >> 24)
		down++;
	if (!down)
		return (uint32_t)magnitude;
	rest = magnitude & ((UINT64_C(1) << down) - 1);
	magnitude >>= down;
	*exponent += down;
	return (uint32_t)(magnitude + (2 * rest + (magnitude & 1) > UINT64_C(1) << down));
}

void codec_q4x_decode_portable(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	const uint8_t *part = group + Q4X_SCALES, *codes = group + q4x_codes_at(head_dim, tensor);
	unsigned int mean_code = tensor == CODEC_K ? part[head_dim / 2 - 1] : 0;
	int32_t mean[CODEC_HEAD_DIM_MAX] = { 0 }, v[CODEC_HEAD_DIM_MAX];
	int mean_exponent = (int)(mean_code - (mean_code > 0)) / 8 - 32;

	(void)streamed;
	if (tensor == CODEC_K)
		read_mean(part, head_dim, mean);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS;
		t++, raw += 2 * head_dim, codes += q4x_token_bytes(head_dim, tensor)) {
		unsigned int step = group[t] - (group[t] > 0);
		int32_t mantissa = group[t] ? q4x_mantissas[step % 8] : 0;

		read_levels(codes, head_dim, tensor, v);
		if (tensor == CODEC_K)
			q4x_rotate(v, head_dim);
		for (unsigned int c = 0; c < head_dim; c++) {
			bool negative;
			int exponent;
			uint32_t magnitude = nearest_sum(v[c] * mantissa, (int)step / 8 - 32,
				mean[c] * q4x_mantissas[(mean_code - 1) % 8], mean_exponent,
				&negative, &exponent);

			magnitude = float_nearest(float_layout(dtype), magnitude, exponent);
			codec_put16(raw + 2 * c, (uint16_t)(magnitude | (negative ? 0x8000 : 0)));
		}
	}
}

/* ---- sections ------------------------------------------------------------------------------- */

static int encode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = q4x_group_bytes(geometry->head_dim, tensor);
	uint8_t group[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	uint32_t state = ~0u;

	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		int rc = kernels->q4x_encode(raw, geometry->head_dim, geometry->dtype, tensor,
			group);

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

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	const struct codec_section *section, const uint8_t *in, uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint32_t bytes = q4x_group_bytes(geometry->head_dim, tensor);
	uint8_t group[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	uint32_t state = ~0u;

	for (uint64_t i = 0; i < groups_of(geometry); i++) {
		state = kernels->crc_copy(state, group, in, bytes);
		codec_fetch(in + bytes, bytes);
		kernels->q4x_decode(group, geometry->head_dim, geometry->dtype, tensor, raw,
			streamed);
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

// SPDX-License-Identifier: MIT
/*
 * Modes q3x, q4x and q5x, of fixed rate: each token rotated by a Hadamard transform and
 * trellis-coded in 3 to 5 bits a channel under a logarithmic scale; K less the mean of its group.
 * Defined by FORMAT.md section 5; the portable kernels below follow it word by word.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "qx.h"
#include "float16.h"
#include "kernels.h"

/* ---- encoding a group ----------------------------------------------------------------------- */

/* floor(log2) of the largest magnitude of a token; INT_MIN for a zero token. -ENODATA: not finite. */
static int exponent_of(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	int *exponent)
{
	uint32_t largest = 0, significand;

	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t magnitude = codec_get16(raw + 2 * c) & 0x7fff;

		largest = magnitude > largest ? magnitude : largest;
	}
	if (largest >= layout->infinity)
		return -ENODATA;
	*exponent = (int)float_split(layout, largest, &significand) - layout->bias -
		(int)layout->mantissa_bits;
	*exponent = largest ? *exponent + bit_length(significand) - 1 : INT_MIN;
	return 0;
}

/* Convert a token's values to integers, in units of 2^unit, with some signs changed. */
static void align(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	int unit, int32_t *out)
{
	for (unsigned int c = 0; c < head_dim; c++) {
		uint32_t word = codec_get16(raw + 2 * c), significand;
		int field = (int)float_split(layout, word & 0x7fff, &significand);

		out[c] = float_align(significand,
			field - layout->bias - (int)layout->mantissa_bits - unit);
		if ((word >> 15 & 1) != (qx_negated(head_dim) >> c % 64 & 1))
			out[c] = -out[c];
	}
}

/* In place, unnormalised, slice by slice. */
static void rotate(int32_t *values, unsigned int head_dim)
{
	for (unsigned int half = 1; half < 1u << qx_slice_log2(head_dim); half *= 2)
		for (unsigned int first = 0; first < head_dim; first += 2 * half)
			for (unsigned int i = first; i < first + half; i++) {
				int32_t a = values[i], b = values[i + half];

				values[i] = a + b;
				values[i + half] = a - b;
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

/* The fine cell of z: 2^(7 - bits) per step from level to level, saturated to a byte. */
static int cell(int32_t z, unsigned int t, unsigned int bits)
{
	int magnitude =
		(int)((uint32_t)(z < 0 ? -z : z) * (uint32_t)qx_reciprocal[t] >> (bits + 12));

	if (magnitude > QX_KNEE)
		magnitude = (magnitude + QX_KNEE) >> 1;
	if (magnitude > 127)
		magnitude = 127;
	return z < 0 ? -magnitude - 1 : magnitude;
}

/*
 * Position of the cell in a subset, biased by 128: the upper bits are the index of the level, the
 * lower ones the distance from it. A subset's levels are four steps apart.
 */
static unsigned int within(int cell_number, unsigned int subset, unsigned int bits)
{
	int fine = 1 << qx_fine_log2(bits),
	    at = cell_number + 2 * fine - (int)subset * fine - fine / 2;

	return (unsigned int)((at < -128 ? -128 : at > 127 ? 127 : at) + 128);
}

/* Distance from the level, in sixteenths of a step. */
static int apart(unsigned int at, unsigned int bits)
{
	if (bits == 5)
		return 4 * (int)(at & 15) - 30;
	return 2 * (int)(at >> (4 - bits) & 31) - 31;
}

static unsigned int saturate(unsigned int metric)
{
	return metric < 255 ? metric : 255;
}

/*
 * Quantise one token's cells: the path of least squared error through the trellis, with saturating
 * metrics.
 */
static void quantise(const int *cells, unsigned int head_dim, unsigned int bits, uint8_t *codes)
{
	unsigned int metric[4] = { 0, 255, 255, 255 }, state = 0;
	uint8_t older[CODEC_HEAD_DIM_MAX][4];

	for (unsigned int c = 0; c < head_dim; c++) {
		bool outer = cells[c] >= QX_KNEE || cells[c] < -QX_KNEE;
		unsigned int distance[4], next[4], least = 255;

		for (unsigned int j = 0; j < 4; j++) {
			int e = apart(within(cells[c], j, bits), bits);

			distance[j] = (unsigned int)(e * e) >> (outer ? 2 : 4);
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
			metric[s] = next[s] - (c % QX_LEVELLING == QX_LEVELLING - 1 ? least : 0);
	}
	for (unsigned int s = 1; s < 4; s++)
		if (metric[s] < metric[state])
			state = s;
	for (unsigned int c = head_dim; c-- > 0;) {
		unsigned int subset = (state & 1) |
			((state & 2) ^ (unsigned int)(2 * older[c][state]));

		codes[c] = (uint8_t)((state >> 1) << (bits - 1) |
			within(cells[c], subset, bits) >> (qx_fine_log2(bits) + 2));
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

/* Encode one token of integers in units of 2^unit. */
static int encode_token(int32_t *z, int unit, unsigned int head_dim, unsigned int bits,
	enum codec_tensor tensor, uint8_t *scale, uint8_t *out)
{
	int cells[CODEC_HEAD_DIM_MAX], code, down;
	uint8_t codes[CODEC_HEAD_DIM_MAX];
	int32_t largest;
	unsigned int t = 0;

	rotate(z, head_dim);
	down = bit_length((uint32_t)largest_of(z, head_dim)) - qx_integer_bits(bits);
	for (unsigned int c = 0; down > 0 && c < head_dim; c++)
		z[c] = (z[c] + (1 << (down - 1))) >> down;
	unit += (down > 0 ? down : 0) - (int)qx_slice_log2(head_dim);
	largest = largest_of(z, head_dim);
	while (t < QX_STEPS - 1 && qx_half_step[t] * qx_reach(bits) < largest)
		t++;
	code = 8 * unit + (int)t + (tensor == CODEC_K ? QX_CODE_K : QX_CODE_V);
	if (!largest || code < 1)
		return 0;
	if (code > (tensor == CODEC_K ? QX_ALONE - 1 : UINT8_MAX))
		return -ENODATA;
	for (unsigned int c = 0; c < head_dim; c++)
		cells[c] = cell(z[c], t, bits);
	quantise(cells, head_dim, bits, codes);
	write_codes(codes, head_dim, bits, out);
	*scale |= (uint8_t)code;
	return 0;
}

/* Sums over the tokens of a group of K, of values or of differences from `base`. */
static void sum_tokens(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	int unit, unsigned int first, const int32_t *base, int32_t *sums)
{
	int32_t values[CODEC_HEAD_DIM_MAX];

	memset(sums, 0, head_dim * sizeof(*sums));
	for (unsigned int t = first; t < CODEC_GROUP_TOKENS; t++) {
		align(layout, raw + 2 * t * head_dim, head_dim, unit, values);
		for (unsigned int c = 0; c < head_dim; c++) {
			int32_t off = base ? values[c] - base[c] : values[c];

			sums[c] += base && off < 0 ? -off : off;
		}
	}
}

/* `top`: the exponent of the largest magnitude. */
static int encode_k(const struct float_layout *layout, const uint8_t *raw, unsigned int head_dim,
	unsigned int bits, unsigned int sinks, int top, uint8_t *group)
{
	uint8_t *codes = group + qx_codes_at(head_dim, CODEC_K);
	int32_t base[CODEC_HEAD_DIM_MAX], sums[CODEC_HEAD_DIM_MAX], weights[CODEC_HEAD_DIM_MAX],
		values[CODEC_HEAD_DIM_MAX] = { 0 }, bound;
	int unit = top - QX_PRECISION;
	struct qx_side side;

	sum_tokens(layout, raw, head_dim, unit, sinks, NULL, sums);
	qx_side_mean(sums, CODEC_GROUP_TOKENS - sinks, head_dim, unit, &side, base);
	sum_tokens(layout, raw, head_dim, unit, sinks, base, sums);
	qx_side_exponents(sums, head_dim, &side);
	bound = qx_side_weights(&side, base, head_dim, weights);
	qx_side_write(&side, head_dim, group + QX_SCALES);
	for (unsigned int t = sinks; t < CODEC_GROUP_TOKENS; t++) {
		int32_t alike = 0;
		bool alone;
		int rc;

		align(layout, raw + 2 * t * head_dim, head_dim, unit, values);
		for (unsigned int c = 0; c < head_dim; c++)
			alike += (values[c] >> 6) * weights[c];
		alone = alike < bound;
		for (unsigned int c = 0; c < head_dim; c++)
			values[c] = (values[c] - (alone ? 0 : base[c])) *
				(1 << (QX_EXPONENT_MOST - side.exponent[c]));
		group[t] = alone ? QX_ALONE : 0;
		rc = encode_token(values, unit - QX_EXPONENT_MOST, head_dim, bits, CODEC_K,
			group + t, codes + t * qx_token_bytes(head_dim, bits));
		if (rc)
			return rc;
	}
	return 0;
}

int codec_qx_encode_portable(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, unsigned int sinks, uint8_t *group)
{
	const struct float_layout *layout = float_layout(dtype);
	int exponents[CODEC_GROUP_TOKENS], top = INT_MIN;
	uint8_t *codes = group + qx_codes_at(head_dim, tensor);
	int32_t values[CODEC_HEAD_DIM_MAX] = { 0 };

	memset(group, 0, qx_group_bytes(head_dim, bits, tensor));
	for (unsigned int t = sinks; t < CODEC_GROUP_TOKENS; t++) {
		int rc = exponent_of(layout, raw + 2 * t * head_dim, head_dim, &exponents[t]);

		if (rc)
			return rc;
		top = exponents[t] > top ? exponents[t] : top;
	}
	if (tensor == CODEC_K)
		return encode_k(layout, raw, head_dim, bits, sinks, top == INT_MIN ? 0 : top,
			group);
	for (unsigned int t = sinks; t < CODEC_GROUP_TOKENS; t++) {
		int unit = exponents[t] - QX_PRECISION, rc;

		if (exponents[t] == INT_MIN)
			continue;
		align(layout, raw + 2 * t * head_dim, head_dim, unit, values);
		rc = encode_token(values, unit, head_dim, bits, CODEC_V, group + t,
			codes + t * qx_token_bytes(head_dim, bits));
		if (rc)
			return rc;
	}
	return 0;
}

/* ---- decoding a group ----------------------------------------------------------------------- */

/* Decode a token's levels, in half steps. */
static void read_levels(const uint8_t *in, unsigned int head_dim, unsigned int bits,
	int32_t *levels)
{
	unsigned int before = 0, zero = 1u << bits;

	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int at = c * bits, path, u = in[at / 8], i;

		if (at % 8 + bits > 8)
			u |= (unsigned int)in[at / 8 + 1] << 8;
		u = u >> at % 8 & (zero - 1);
		path = u >> (bits - 1);
		/* `before`: the two previous path bits, the last one lowest. */
		i = (u & (zero / 2 - 1)) << 2 | (path << 1 ^ (before & 2)) | (before & 1);
		levels[c] = i >= zero ? qx_level(bits, (int)(i - zero))
				      : -qx_level(bits, (int)(zero - 1 - i));
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

	/* Of zero the exponent says nothing: the others differ by at most 31. */
	if (!first || !second)
		first_exponent = second_exponent = first ? first_exponent : second_exponent;
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

void codec_qx_decode_portable(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	const uint8_t *codes = group + qx_codes_at(head_dim, tensor);
	struct qx_side side = { 0 };
	int32_t v[CODEC_HEAD_DIM_MAX] = { 0 };

	(void)streamed;
	if (tensor == CODEC_K)
		qx_side_read(group + QX_SCALES, head_dim, &side);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS;
		t++, raw += 2 * head_dim, codes += qx_token_bytes(head_dim, bits)) {
		unsigned int code = tensor == CODEC_K ? group[t] & (QX_ALONE - 1) : group[t];
		unsigned int step = code - (code > 0), mean_step = side.code - (side.code > 0);
		int32_t mantissa = code ? qx_mantissas[step % 8] : 0,
			mean_mantissa = side.code && !(tensor == CODEC_K && group[t] & QX_ALONE)
			? qx_mantissas[mean_step % 8]
			: 0;

		read_levels(codes, head_dim, bits, v);
		rotate(v, head_dim);
		for (unsigned int c = 0; c < head_dim; c++) {
			bool negative;
			int exponent;
			uint32_t magnitude = nearest_sum((int64_t)v[c] * mantissa,
				(int)step / 8 + qx_least_exponent(tensor) + side.exponent[c],
				side.mean[c] * mean_mantissa, (int)mean_step / 8 - 32, &negative,
				&exponent);

			negative ^= magnitude && qx_negated(head_dim) >> c % 64 & 1;
			magnitude = float_nearest(float_layout(dtype), magnitude, exponent);
			codec_put16(raw + 2 * c, (uint16_t)(magnitude | (negative ? 0x8000 : 0)));
		}
	}
}

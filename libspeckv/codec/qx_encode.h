/* SPDX-License-Identifier: MIT */
/*
 * What the vector encoders of the fixed-rate modes share. The source that includes this has defined
 * INLINE and the type `vector`, and defines the functions that are declared here.
 */
#ifndef SPECKV_CODEC_QX_ENCODE_H
#define SPECKV_CODEC_QX_ENCODE_H

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "qx.h"
#include "float16.h"
#include "kernels.h"

/*
 * Beyond these exponents a token is zero, or refused, whatever its other values. A group of K that
 * is so small still has exponents of channels: it is left to the portable kernel.
 */
#define EXPONENT_MAX 60

/* Registers per token, of 32-bit integers. */
#define WIDE_MAX (CODEC_HEAD_DIM_MAX * sizeof(int32_t) / sizeof(vector))

/*
 * Batch several tokens per step, to hide latency: within one token, every step depends on the one
 * before.
 */
#define BATCH 8

struct token {
	vector values[WIDE_MAX]; /* coefficients */
	int32_t top, bottom; /* largest and smallest value; a negative one may round differently */
	int unit; /* exponent of the values */
	bool zero, alone;
};

struct group {
	uint8_t cells[CODEC_GROUP_TOKENS][CODEC_HEAD_DIM_MAX]
		__attribute__((aligned(sizeof(vector))));
	int exponent[CODEC_GROUP_TOKENS]; /* of the largest magnitude */
	bool zero[CODEC_GROUP_TOKENS];
	/* Of K, by place before the transform: integers, token by token, ... */
	int32_t values[CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX]
		__attribute__((aligned(sizeof(vector))));
	/* ... what is subtracted of them, for tokens with and without the mean, ... */
	int32_t base[2][CODEC_HEAD_DIM_MAX] __attribute__((aligned(sizeof(vector))));
	/* ... and by how much they are shifted. */
	int32_t up[CODEC_HEAD_DIM_MAX] __attribute__((aligned(sizeof(vector))));
	/* In the order of alike(). */
	int16_t weights[CODEC_HEAD_DIM_MAX] __attribute__((aligned(sizeof(vector))));
	int32_t bound;
};

/* Place of a channel's value within its token, before the transform, and of its weight. */
INLINE unsigned int value_at(unsigned int channel, unsigned int dtype);
INLINE unsigned int weight_at(unsigned int channel, unsigned int dtype);
/* Index of a channel's cell within its token. */
INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype);
INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim);
/* Align the values of the tokens from `first` on to `unit`, and sum them, both by place. */
INLINE void sum_values(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, unsigned int first, int32_t *sums);
/* Sum the magnitudes of their differences from the base. */
INLINE void sum_spread(const struct group *group, unsigned int head_dim, unsigned int first,
	int32_t *sums);
/* The sum of a token's values, less six bits, times weights. */
INLINE int32_t alike(const struct group *group, unsigned int head_dim, unsigned int token);
/* Coefficients of a token of K, from the group's integers. */
INLINE void coefficients_k(struct token *token, const struct group *group, unsigned int head_dim,
	unsigned int dtype, unsigned int number);
/* Coefficients of a token of V. A zero token's are all 0. */
INLINE void coefficients_v(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype);
/*
 * Compute the scale code and the cells of a token from its coefficients. -ENODATA: beyond the
 * largest scale.
 */
INLINE int divide(struct token *token, unsigned int head_dim, unsigned int bits,
	enum codec_tensor tensor, uint8_t *scale, uint8_t *cells);
/* Quantise the cells of a group to codes. */
INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	unsigned int bits, uint8_t *codes);

/*
 * Measure exponents; `top` is the largest, INT_MIN if all values are zero. -ENODATA: not finite, or
 * far beyond the largest scale.
 */
INLINE int measure(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, unsigned int sinks, int *top)
{
	const struct float_layout *layout = float_layout(dtype);

	*top = INT_MIN;
	for (unsigned int t = sinks; t < CODEC_GROUP_TOKENS; t++) {
		uint32_t largest = largest_magnitude(raw + 2 * (size_t)t * head_dim, head_dim),
			 significand;
		int exponent = (int)float_split(layout, largest, &significand) - layout->bias -
			(int)layout->mantissa_bits;

		codec_fetch_token(raw, head_dim, t + CODEC_FETCH_TOKENS);
		exponent += 31 - __builtin_clz(significand | 1);
		if (largest >= layout->infinity || exponent > EXPONENT_MAX)
			return -ENODATA;
		group->exponent[t] = exponent;
		group->zero[t] = !largest || exponent < -EXPONENT_MAX;
		if (largest && exponent > *top)
			*top = exponent;
	}
	return 0;
}

/* Choose mean and exponents of a group of K, and write them. */
INLINE void take_side(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, unsigned int sinks, uint8_t *part)
{
	/* head_dim of each are used */
	int32_t sums[CODEC_HEAD_DIM_MAX] __attribute__((aligned(sizeof(vector)))),
		by_channel[CODEC_HEAD_DIM_MAX], base[CODEC_HEAD_DIM_MAX];
	struct qx_side side;

	sum_values(group, raw, head_dim, dtype, unit, sinks, sums);
	for (unsigned int c = 0; c < head_dim; c++)
		by_channel[c] = sums[value_at(c, dtype)];
	qx_side_mean(by_channel, CODEC_GROUP_TOKENS - sinks, head_dim, unit, &side, base);
	if (head_dim % 32) { /* the last places may hold no channel */
		memset(group->base, 0, sizeof(group->base));
		memset(group->up, 0, sizeof(group->up));
		memset(group->weights, 0, sizeof(group->weights));
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		group->base[0][value_at(c, dtype)] = base[c];
		group->base[1][value_at(c, dtype)] = 0;
	}
	sum_spread(group, head_dim, sinks, sums);
	for (unsigned int c = 0; c < head_dim; c++)
		by_channel[c] = sums[value_at(c, dtype)];
	qx_side_exponents(by_channel, head_dim, &side);
	group->bound = qx_side_weights(&side, base, head_dim, by_channel);
	for (unsigned int c = 0; c < head_dim; c++) {
		group->weights[weight_at(c, dtype)] = (int16_t)by_channel[c];
		group->up[value_at(c, dtype)] = QX_EXPONENT_MOST - side.exponent[c];
	}
	qx_side_write(&side, head_dim, part);
}

/* Cells and scale codes of BATCH tokens; those of a sink are 0. */
INLINE int encode_batch(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, unsigned int bits, enum codec_tensor tensor, unsigned int sinks,
	unsigned int first, int unit, uint8_t *scales)
{
	unsigned int skipped = first < sinks ? sinks - first : 0;
	struct token tokens[BATCH];
	int rc = 0;

	for (unsigned int i = 0; i < BATCH; i++) {
		struct token *token = &tokens[i];
		unsigned int t = first + i;

		codec_fetch_token(raw, head_dim, CODEC_GROUP_TOKENS + t);
		scales[t] = 0;
		token->alone = false;
		if (i < skipped) {
			memset(group->cells[t], 0, sizeof(group->cells[t]));
		} else if (tensor == CODEC_K) {
			token->unit = unit - QX_EXPONENT_MOST;
			token->alone = alike(group, head_dim, t) < group->bound;
			coefficients_k(token, group, head_dim, dtype, t);
		} else {
			token->unit = group->exponent[t] - QX_PRECISION;
			token->zero = group->zero[t];
			coefficients_v(token, raw + 2 * (size_t)t * head_dim, head_dim, dtype);
		}
	}
	for (unsigned int i = skipped; i < BATCH; i++) {
		unsigned int t = first + i;

		rc |= divide(&tokens[i], head_dim, bits, tensor, scales + t, group->cells[t]);
		if (tokens[i].alone)
			scales[t] |= QX_ALONE;
	}
	return rc ? -ENODATA : 0;
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, unsigned int sinks, uint8_t *out)
{
	uint8_t *codes = out + qx_codes_at(head_dim, tensor), order[CODEC_HEAD_DIM_MAX];
	uint8_t scale = tensor == CODEC_K ? QX_ALONE - 1 : UINT8_MAX;
	struct group group;
	int top, unit;

	if (measure(&group, raw, head_dim, dtype, sinks, &top))
		return -ENODATA;
	if (tensor == CODEC_K && top != INT_MIN && top < -EXPONENT_MAX)
		return codec_qx_encode_portable(raw, head_dim, dtype, bits, tensor, sinks, out);
	unit = (top == INT_MIN ? 0 : top) - QX_PRECISION;
	if (tensor == CODEC_K)
		take_side(&group, raw, head_dim, dtype, unit, sinks, out + QX_SCALES);
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += BATCH)
		if (encode_batch(&group, raw, head_dim, dtype, bits, tensor, sinks, first, unit,
			    out))
			return -ENODATA;
	for (unsigned int c = 0; c < head_dim; c++)
		order[c] = (uint8_t)cell_at(c, dtype);
	quantise(&group, order, head_dim, bits, codes);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		if (!(out[t] & scale)) /* zero tokens have zero codes */
			memset(codes + (size_t)t * qx_token_bytes(head_dim, bits), 0,
				qx_token_bytes(head_dim, bits));
	return 0;
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What the vector encoders of mode q4x share. The source that includes this has defined INLINE and
 * the type `vector`, and defines the functions that are declared here.
 */
#ifndef SPECKV_CODEC_Q4X_ENCODE_H
#define SPECKV_CODEC_Q4X_ENCODE_H

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

/* Beyond these exponents a token is zero, or refused, whatever its other values. */
#define EXPONENT_MAX 60

/* Registers per token, of 32-bit integers. */
#define WIDE_MAX (CODEC_HEAD_DIM_MAX * sizeof(int32_t) / sizeof(vector))

/*
 * Batch several tokens per step, to hide latency: within one token, every step depends on the one
 * before.
 */
#define BATCH 8

struct token {
	vector values[WIDE_MAX]; /* of K */
	int32_t top, bottom; /* largest and smallest value; a negative one may round differently */
	int unit; /* exponent of the values */
	bool zero;
};

struct group {
	uint8_t cells[CODEC_GROUP_TOKENS][CODEC_HEAD_DIM_MAX]
		__attribute__((aligned(sizeof(vector))));
	int exponent[CODEC_GROUP_TOKENS]; /* of the largest magnitude */
	int32_t largest[CODEC_GROUP_TOKENS]; /* the same as an integer, for V */
	bool zero[CODEC_GROUP_TOKENS];
	/* of coefficients, in the order after the transform */
	int32_t mean[CODEC_HEAD_DIM_MAX] __attribute__((aligned(sizeof(vector))));
};

/* Index of a channel's cell within its token. */
INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype, enum codec_tensor tensor);
INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim);
/* Compute the mean of a group whose tokens are all aligned to `unit`. */
INLINE bool take_mean(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, uint8_t *part);
/* Coefficients of K. A zero token's values are all set to 0. */
INLINE void coefficients(struct token *token, const struct group *group, const uint8_t *raw,
	unsigned int head_dim, unsigned int dtype);
/*
 * Compute scale and cells of a token: of K from its coefficients, of V from its values. -ENODATA:
 * beyond the largest scale.
 */
INLINE int divide(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, enum codec_tensor tensor, uint8_t *scale, uint8_t *cells);
/* Quantise the cells of a group to codes. */
INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor, uint8_t *codes);

/*
 * Measure exponents, and whether the group may have a mean. -ENODATA: not finite, or far beyond the
 * largest scale.
 */
INLINE int measure(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, bool *alike, int *top)
{
	const struct float_layout *layout = float_layout(dtype);
	int least = INT_MAX, most = INT_MIN;
	bool zeros = false;

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		uint32_t largest = largest_magnitude(raw + 2 * (size_t)t * head_dim, head_dim),
			 significand;
		int exponent = (int)float_split(layout, largest, &significand) - layout->bias -
			(int)layout->mantissa_bits;

		codec_fetch_token(raw, head_dim, t + CODEC_FETCH_TOKENS);
		group->largest[t] = (int32_t)(significand << Q4X_V_PRECISION >>
			(31 - __builtin_clz(significand | 1)));
		exponent += 31 - __builtin_clz(significand | 1);
		if (largest >= layout->infinity || exponent > EXPONENT_MAX)
			return -ENODATA;
		group->exponent[t] = exponent;
		group->zero[t] = !largest || exponent < -EXPONENT_MAX;
		zeros = zeros || group->zero[t];
		least = exponent < least ? exponent : least;
		most = exponent > most ? exponent : most;
	}
	*alike = !zeros && most - least <= Q4X_MEAN_OCTAVES;
	*top = most;
	return 0;
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *out)
{
	uint8_t *codes = out + q4x_codes_at(head_dim, tensor), order[CODEC_HEAD_DIM_MAX];
	struct token tokens[BATCH];
	struct group group;
	bool alike;
	int top;

	if (measure(&group, raw, head_dim, dtype, &alike, &top))
		return -ENODATA;
	if (tensor == CODEC_K) {
		memset(out + Q4X_SCALES, 0, q4x_mean_bytes(head_dim, tensor));
		alike = alike &&
			take_mean(&group, raw, head_dim, dtype, top - Q4X_K_PRECISION,
				out + Q4X_SCALES);
		if (!alike)
			memset(group.mean, 0, sizeof(group.mean));
	}
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += BATCH) {
		int rc = 0;

		for (unsigned int t = 0; t < BATCH; t++) {
			struct token *token = &tokens[t];

			codec_fetch_token(raw, head_dim, CODEC_GROUP_TOKENS + first + t);
			token->zero = group.zero[first + t];
			token->unit = tensor == CODEC_V
				? group.exponent[first + t] - Q4X_V_PRECISION
				: (alike ? top : group.exponent[first + t]) - Q4X_K_PRECISION;
			token->top = group.largest[first + t];
			token->bottom = -token->top;
			if (tensor == CODEC_K)
				coefficients(token, &group,
					raw + 2 * (size_t)(first + t) * head_dim, head_dim, dtype);
		}
		for (unsigned int t = 0; t < BATCH; t++)
			rc |= divide(&tokens[t], raw + 2 * (size_t)(first + t) * head_dim, head_dim,
				dtype, tensor, out + first + t, group.cells[first + t]);
		if (rc)
			return -ENODATA;
	}
	for (unsigned int c = 0; c < head_dim; c++)
		order[c] = (uint8_t)cell_at(c, dtype, tensor);
	quantise(&group, order, head_dim, tensor, codes);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		if (!out[t]) /* zero tokens have zero codes */
			memset(codes + (size_t)t * q4x_token_bytes(head_dim, tensor), 0,
				q4x_token_bytes(head_dim, tensor));
	return 0;
}

#endif

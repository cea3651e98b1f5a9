/* SPDX-License-Identifier: MIT */
/* Mode q4x: constants of FORMAT.md section 5 shared by the kernels. */
#ifndef SPECKV_CODEC_Q4X_H
#define SPECKV_CODEC_Q4X_H

#include <stdbool.h>
#include <stdint.h>

#include "mode.h"

#define Q4X_K_BITS 4
#define Q4X_V_BITS 3
#define Q4X_SCALES CODEC_GROUP_TOKENS
/*
 * Precision of the integers of a token: bits below the leading one of its largest magnitude, or of
 * the group's for K with a mean.
 */
#define Q4X_K_PRECISION 20
#define Q4X_V_PRECISION 12
/* A group has a mean only if the largest magnitudes of its tokens are within this many octaves. */
#define Q4X_MEAN_OCTAVES 5
/* In fine cells from zero: beyond this, levels are twice as far apart. */
#define Q4X_KNEE 80
/* Every so many channels the least of the four metrics is subtracted from all. */
#define Q4X_LEVELLING 4

/* 2^(i/8) * 2^10, rounded. */
static const uint16_t q4x_mantissas[8] = { 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878 };
/*
 * For t = 0..8: the half step H(t), 2^(7.5 + t/8) from the numbers above, and its reciprocal 2^18 /
 * H(t). Coefficients are scaled so that the half step is one of these. The scale code of H(t) in
 * units of 2^w is 8 w + t + Q4X_CODE.
 */
#define Q4X_STEPS 9
#define Q4X_CODE 237
static const int16_t q4x_half_step[Q4X_STEPS] = { 181, 197, 215, 235, 256, 279, 305, 332, 362 };
static const int16_t q4x_reciprocal[Q4X_STEPS] = { 1448, 1328, 1218, 1117, 1024, 939, 861, 790,
	724 };
/*
 * Levels above zero, in half steps; those below mirror them. V's levels are K's scaled to its size,
 * with the knee halfway.
 */
static const uint8_t q4x_levels_k[16] = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 22, 26, 30, 34, 38,
	42 };
static const uint8_t q4x_levels_v[8] = { 1, 3, 5, 7, 9, 12, 16, 20 };

static inline unsigned int q4x_bits(enum codec_tensor tensor)
{
	return tensor == CODEC_K ? Q4X_K_BITS : Q4X_V_BITS;
}

/* Largest magnitude in half steps: half a cell beyond the last level. */
static inline int q4x_reach(enum codec_tensor tensor)
{
	return tensor == CODEC_K ? 46 : 24;
}

/* Bytes of a token's codes, of a group's mean, and of a group: scales, mean, tokens. */
static inline uint32_t q4x_token_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return head_dim * q4x_bits(tensor) / 8;
}

static inline uint32_t q4x_mean_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return tensor == CODEC_K ? (head_dim / 2 + 63) / 64 * 64 : 0;
}

static inline uint32_t q4x_codes_at(unsigned int head_dim, enum codec_tensor tensor)
{
	return Q4X_SCALES + q4x_mean_bytes(head_dim, tensor);
}

static inline uint32_t q4x_group_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return q4x_codes_at(head_dim, tensor) +
		CODEC_GROUP_TOKENS * q4x_token_bytes(head_dim, tensor);
}

#define Q4X_MEAN_MAX (CODEC_HEAD_DIM_MAX / 2)
#define Q4X_GROUP_MAX \
	(Q4X_SCALES + Q4X_MEAN_MAX + CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX * Q4X_K_BITS / 8)

/*
 * Channels are rotated in slices of the largest power of two that divides the head size, at most
 * 128. Returns its logarithm.
 */
static inline unsigned int q4x_slice_log2(unsigned int head_dim)
{
	unsigned int log2 = (unsigned int)__builtin_ctz(head_dim);

	return log2 < 7 ? log2 : 7;
}

/* In place, unnormalised, slice by slice. */
static inline void q4x_rotate(int32_t *values, unsigned int head_dim)
{
	for (unsigned int half = 1; half < 1u << q4x_slice_log2(head_dim); half *= 2)
		for (unsigned int first = 0; first < head_dim; first += 2 * half)
			for (unsigned int i = first; i < first + half; i++) {
				int32_t a = values[i], b = values[i + half];

				values[i] = a + b;
				values[i + half] = a - b;
			}
}

/*
 * Coefficients of a group's mean that are stored; the byte of the last two holds the scale code
 * instead, and they count as zero.
 */
static inline unsigned int q4x_means(unsigned int head_dim)
{
	return head_dim - 2;
}

/*
 * Encode the mean of a group, from the sums over its tokens in units of 2^unit: writes the mean
 * part, and to `mean` what to subtract from each coefficient. false: out of range of the scale
 * codes; nothing is written.
 */
static inline bool q4x_mean_encode(const int32_t *sums, unsigned int head_dim, int unit,
	uint8_t *part, int32_t *mean)
{
	unsigned int count = q4x_means(head_dim), r = 0;
	int32_t largest = 0, step;
	int code;

	for (unsigned int c = 0; c < head_dim; c++)
		mean[c] = (sums[c] + CODEC_GROUP_TOKENS / 2) >> 6;
	q4x_rotate(mean, head_dim);
	for (unsigned int c = 0; c < count; c++) {
		int32_t magnitude = mean[c] < 0 ? -mean[c] : mean[c];

		largest = magnitude > largest ? magnitude : largest;
	}
	while (7 * q4x_mantissas[r % 8] << r / 8 < largest)
		r++;
	code = 8 * (unit + 32 - (int)q4x_slice_log2(head_dim)) + 1 + (int)r;
	if (code < 1 || code > 255)
		return false;
	step = q4x_mantissas[r % 8] << r / 8;
	mean[head_dim - 2] = mean[head_dim - 1] = 0;
	for (unsigned int c = 0; c < head_dim; c++) {
		int32_t twice = 2 * (mean[c] < 0 ? -mean[c] : mean[c]), q = 0;

		for (int k = 1; k <= 7; k++)
			q += twice >= (2 * k - 1) * step;
		mean[c] = mean[c] < 0 ? -q : q;
	}
	for (unsigned int c = 0; c < count; c += 2)
		part[c / 2] = (uint8_t)((mean[c] + 8) | (mean[c + 1] + 8) << 4);
	part[head_dim / 2 - 1] = (uint8_t)code;
	for (unsigned int c = 0; c < head_dim; c++)
		mean[c] *= step;
	return true;
}

#endif

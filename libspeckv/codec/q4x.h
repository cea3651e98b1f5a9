/* SPDX-License-Identifier: MIT */
/* Mode q4x: the numbers of FORMAT.md section 5 that the kernels share. */
#ifndef SPECKV_CODEC_Q4X_H
#define SPECKV_CODEC_Q4X_H

#include <stdbool.h>
#include <stdint.h>

#include "mode.h"

#define Q4X_K_BITS 4
#define Q4X_V_BITS 3
#define Q4X_SLICE_MAX 128
/* Candidates for the scale: the one that covers the largest magnitude, and so many eighths of an octave below. */
#define Q4X_CLIPS 4
#define Q4X_SCALES CODEC_GROUP_TOKENS

/* 2^(i/8) * 2^11, rounded. */
static const uint16_t q4x_eighths[8] = { 2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756 };
/*
 * For t = -4..8: the half step h(t), 2^(9 + t/8) from the numbers above, and its reciprocal 2^23 / h(t), rounded. Coefficients
 * are brought to a size where the wanted half step is one of these.
 */
static const int16_t q4x_half_step[13] = { 362, 395, 431, 470, 512, 558, 609, 664, 724, 790, 861, 939, 1024 };
static const int16_t q4x_reciprocal[13] = { 23173, 21237, 19463, 17848, 16384, 15033, 13774, 12633, 11586, 10618, 9743, 8934, 8192 };

static inline unsigned int q4x_bits(enum codec_tensor tensor)
{
	return tensor == CODEC_K ? Q4X_K_BITS : Q4X_V_BITS;
}

/* Bytes of one token's codes, and of a group: its scales, then its tokens. */
static inline uint32_t q4x_token_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return head_dim * q4x_bits(tensor) / 8;
}

static inline uint32_t q4x_group_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return Q4X_SCALES + CODEC_GROUP_TOKENS * q4x_token_bytes(head_dim, tensor);
}

#define Q4X_GROUP_MAX (Q4X_SCALES + CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX * Q4X_K_BITS / 8)

/* Channels are rotated in slices: the largest power of two that divides the head size, 128 at most. Returns its logarithm. */
static inline unsigned int q4x_slice_log2(unsigned int head_dim)
{
	unsigned int log2 = (unsigned int)__builtin_ctz(head_dim);

	return log2 < 7 ? log2 : 7;
}

#endif

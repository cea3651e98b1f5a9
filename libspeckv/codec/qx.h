/* SPDX-License-Identifier: MIT */
/*
 * Modes q3x, q4x, q5x, of fixed rate: constants of FORMAT.md section 5, and what all kernels share. For the
 * sources of these modes only.
 */
#ifndef SPECKV_CODEC_QX_H
#define SPECKV_CODEC_QX_H

#include <stdbool.h>
#include <stdint.h>

#include "mode.h"

#define QX_BITS_MIN 3
#define QX_BITS_MAX 5
#define QX_SCALES CODEC_GROUP_TOKENS
/* Integers have this many bits below the leading one of the largest magnitude. */
#define QX_PRECISION 17
/* In fine cells from zero: beyond this, levels are twice as far apart. */
#define QX_KNEE 80
/* Every so many channels the least of the four metrics is subtracted from all. */
#define QX_LEVELLING 4
/* A token byte of K: the scale code, and whether the mean is not added. */
#define QX_ALONE 0x80
/* A channel's field of the side part: the mean, biased, and the exponent above it. */
#define QX_FIELD_BITS 7
#define QX_MEAN_BIAS 16
#define QX_MEAN_MOST 15
#define QX_EXPONENT_SHIFT 5
#define QX_EXPONENT_MOST 3

/*
 * The encoders' guard: the largest share of a group's energy that its error may be. On
 * Qwen2.5-Coder-1.5B, SmolLM2-135M, Gemma 3 270M and a model of our own it is up to .4 of K's in
 * q3x, .1 in q4x and .03 in q5x, and up to .08 of V's.
 */
#define QX_GUARD_K 0.6
#define QX_GUARD_V 0.5

/* 2^(i/8) * 2^10, rounded. */
static const uint16_t qx_mantissas[8] = { 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878 };
/*
 * For t = 0..9: the half step H(t), 2^(7.5 + t/8) from the numbers above, and its reciprocal 2^18 /
 * H(t). Coefficients are scaled so that the half step is one of these.
 */
#define QX_STEPS 10
static const int16_t qx_half_step[QX_STEPS] = { 181, 197, 215, 235, 256, 279, 305, 332, 362, 395 };
static const int16_t qx_reciprocal[QX_STEPS] = { 1448, 1328, 1218, 1117, 1024, 939, 861, 790, 724,
	664 };
/* The scale code of H(t) in units of 2^w is 8 w + t + this. */
#define QX_CODE_K 173
#define QX_CODE_V 237

/* Exponent of the half steps of scale code 1 over the mantissas. */
static inline int qx_least_exponent(enum codec_tensor tensor)
{
	return tensor == CODEC_K ? -24 : -32;
}

/* Bits of the largest integer that is divided into cells. */
static inline int qx_integer_bits(unsigned int bits)
{
	return (int)bits + 10;
}

/* Levels above zero that are two half steps apart; the others are four apart. */
static inline int qx_inner(unsigned int bits)
{
	return 5 << (bits - 3);
}

/* Level i above zero, in half steps. */
static inline int qx_level(unsigned int bits, int i)
{
	int inner = qx_inner(bits);

	return i < inner ? 2 * i + 1 : 2 * inner + 2 + 4 * (i - inner);
}

/* The largest magnitude that is coded, in half steps: half a step beyond the last level. */
static inline int qx_reach(unsigned int bits)
{
	return qx_level(bits, (1 << bits) - 1) + 2;
}

/* log2 of the cells of a step. */
static inline unsigned int qx_fine_log2(unsigned int bits)
{
	return 7 - bits;
}

static inline uint32_t qx_token_bytes(unsigned int head_dim, unsigned int bits)
{
	return head_dim * bits / 8;
}

/* Bytes of the side part: fields, scale code of the mean, zeros up to the next line. */
static inline uint32_t qx_side_bytes(unsigned int head_dim, enum codec_tensor tensor)
{
	return tensor == CODEC_K ? (head_dim * QX_FIELD_BITS / 8 + 1 + 63) / 64 * 64 : 0;
}

static inline uint32_t qx_codes_at(unsigned int head_dim, enum codec_tensor tensor)
{
	return QX_SCALES + qx_side_bytes(head_dim, tensor);
}

static inline uint32_t qx_group_bytes(unsigned int head_dim, unsigned int bits,
	enum codec_tensor tensor)
{
	return qx_codes_at(head_dim, tensor) + CODEC_GROUP_TOKENS * qx_token_bytes(head_dim, bits);
}

#define QX_SIDE_MAX ((CODEC_HEAD_DIM_MAX * QX_FIELD_BITS / 8 + 1 + 63) / 64 * 64)
#define QX_GROUP_MAX \
	(QX_SCALES + QX_SIDE_MAX + CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX * QX_BITS_MAX / 8)

/*
 * Channels are rotated in slices of the largest power of two that divides the head size, at most
 * 128. Returns its logarithm.
 */
static inline unsigned int qx_slice_log2(unsigned int head_dim)
{
	unsigned int log2 = (unsigned int)__builtin_ctz(head_dim);

	return log2 < 7 ? log2 : 7;
}

/*
 * The signs that are changed, bit c mod 64 of channel c: where the lower half of a slice's channel
 * bits, and'ed with the upper, has an odd number of ones. On 2^6 channels this is a bent function:
 * whatever has few Walsh coefficients, such as a constant or a ramp, gets all of them alike.
 */
static inline uint64_t qx_negated(unsigned int head_dim)
{
	return qx_slice_log2(head_dim) < 6 ? UINT64_C(0x6ca06ca06ca06ca0)
					   : UINT64_C(0x963c5af066ccaa00);
}

/* What is known of the channels of a group of K. */
struct qx_side {
	int8_t mean[CODEC_HEAD_DIM_MAX]; /* in steps */
	uint8_t exponent[CODEC_HEAD_DIM_MAX];
	uint8_t code; /* of the step of the mean; 0: no mean */
};

/* Read a side part. Any bytes are valid. */
void qx_side_read(const uint8_t *part, unsigned int head_dim, struct qx_side *side);
/* Write it, up to the next line. */
void qx_side_write(const struct qx_side *side, unsigned int head_dim, uint8_t *part);
/*
 * Choose the mean from the sums over `tokens` tokens, in units of 2^unit: sets `mean` and `code`,
 * and `base` to what is subtracted of each channel.
 */
void qx_side_mean(const int32_t *sums, unsigned int tokens, unsigned int head_dim, int unit,
	struct qx_side *side, int32_t *base);
/* Choose the exponents from the sums of magnitudes of the differences from the mean. */
void qx_side_exponents(const int32_t *spread, unsigned int head_dim, struct qx_side *side);
/*
 * Whether a token is coded without the mean: the sum over its channels of (value >> 6) * weight is
 * below the bound. Weights are below 2^10.
 */
int32_t qx_side_weights(const struct qx_side *side, const int32_t *base, unsigned int head_dim,
	int32_t *weights);

#endif

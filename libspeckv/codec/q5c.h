/* SPDX-License-Identifier: MIT */
/*
 * Mode q5c: the numbers of FORMAT.md section 8 that the kernels share, and the tables of one head.
 */
#ifndef SPECKV_CODEC_Q5C_H
#define SPECKV_CODEC_Q5C_H

#include <stdint.h>

#include "mode.h"

#define Q5C_BITS_MAX 5
#define Q5C_LEVELS_MAX (1 << Q5C_BITS_MAX)
#define Q5C_SCALES CODEC_GROUP_TOKENS
/* Scale codes an encoder can make; a larger one is damage. */
#define Q5C_SCALE_MAX 224

/* Limits of a calibration: with them no sum below can leave 32 bits. */
#define Q5C_LEVEL_MAX 2047
#define Q5C_SHAPING_MAX 65535 /* sum of a row's magnitudes, 1/512 each */

/* 2^(i/8) * 2^11, rounded. */
static const uint16_t q5c_eighths[8] = { 2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756 };

/* What the calibration says of one head of one tensor of one layer. */
struct q5c_tables {
	unsigned int bits;
	int unit; /* inputs become integers, in 2^unit */
	const int16_t *mean; /* of a channel, before rotation, in units */
	const int16_t *levels; /* 2^bits, rising, 256 the standard deviation */
	/*
	 * below the diagonal, row by row: how errors of earlier channels move later ones, in 1/512
	 */
	const int16_t *shaping;
};

/* A group: its scales, then a row of 64 codes, bit plane by bit plane, for each channel. */
static inline uint32_t q5c_group_bytes(unsigned int head_dim, unsigned int bits)
{
	return Q5C_SCALES + CODEC_GROUP_TOKENS / 8 * head_dim * bits;
}

#define Q5C_GROUP_MAX (Q5C_SCALES + CODEC_GROUP_TOKENS / 8 * CODEC_HEAD_DIM_MAX * Q5C_BITS_MAX)

#endif

/* SPDX-License-Identifier: MIT */
/* Mode q5c: constants of FORMAT.md section 8 shared by the kernels, and the tables of one head. */
#ifndef SPECKV_CODEC_Q5C_H
#define SPECKV_CODEC_Q5C_H

#include <stdint.h>

#include "mode.h"

#define Q5C_BITS_MAX 5
#define Q5C_SCALES CODEC_GROUP_TOKENS
/* Largest scale code; a larger one is damage. */
#define Q5C_SCALE_MAX 224

/* Limit of a calibration that bounds all sums below to 32 bits. */
#define Q5C_SHAPING_MAX 65535 /* sum of a row's magnitudes, in 1/512 */

/* 2^(i/8) * 2^11, rounded. */
static const uint16_t q5c_eighths[8] = { 2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756 };

/* The calibration of one head of one tensor of one layer. */
struct q5c_tables {
	unsigned int bits;
	int unit; /* inputs are converted to integers, in units of 2^unit */
	const int16_t *mean; /* per channel, before rotation, in units */
	/*
	 * below the diagonal, row by row: feedback of errors of earlier channels to later ones, in
	 * 1/512
	 */
	const int16_t *shaping;
};

/*
 * A group: its scales, then for each channel a row of 64 codes in bit planes, the path bits of the
 * trellis last.
 */
static inline uint32_t q5c_group_bytes(unsigned int head_dim, unsigned int bits)
{
	return Q5C_SCALES + CODEC_GROUP_TOKENS / 8 * head_dim * bits;
}

#define Q5C_GROUP_MAX (Q5C_SCALES + CODEC_GROUP_TOKENS / 8 * CODEC_HEAD_DIM_MAX * Q5C_BITS_MAX)

#endif

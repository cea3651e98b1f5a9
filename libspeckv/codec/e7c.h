/* SPDX-License-Identifier: MIT */
/*
 * Mode e7c: the numbers of FORMAT.md section 9 that the kernels share, and the tables of one head.
 */
#ifndef SPECKV_CODEC_E7C_H
#define SPECKV_CODEC_E7C_H

#include <stdint.h>

#include "mode.h"
#include "range.h"

/* Coefficients of a token, and how large one may be. */
#define E7C_RANK_MAX CODEC_HEAD_DIM_MAX
#define E7C_LEVEL_MAX 2047
/* Beyond this an input less its mean is not transformed: the group is stored. */
#define E7C_DEVIATION_MAX 8191
/* Coefficients come in so many fractions of a step. */
#define E7C_FRACTION_BITS 8

/* Limits of a calibration: with them no sum below can leave 32 bits. */
#define E7C_COLUMN_MAX ((1 << 20) - 1) /* sum of the synthesis' magnitudes for a channel */
#define E7C_ROW_MAX ((1 << 18) - 1) /* and of the analysis' for a coefficient */
#define E7C_SHIFT_MAX 20
#define E7C_DOWN_MAX 18
#define E7C_LOW_MAX 6
#define E7C_CODERS_MAX 256

/*
 * A group: bytes of code, escapes, bytes of plain bits beyond the last ones, powers of the states;
 * or a mark, and the values.
 */
#define E7C_COUNTS_BYTES (6 + RANGE_POWERS_BYTES)
#define E7C_STORED_MARK 0xffff
#define E7C_ESCAPES_MAX(head_dim) (4u * (head_dim))
#define E7C_PLAIN_MAX (CODEC_GROUP_TOKENS * E7C_RANK_MAX * (E7C_LOW_MAX + 1) / 8 + RANGE_LAST_BYTES)

/* A stored group's bytes; a coded one has fewer. */
static inline uint32_t e7c_stored_bytes(unsigned int head_dim)
{
	return 2 + 2 * CODEC_GROUP_TOKENS * head_dim;
}

/*
 * Coefficients come in fours, so that no loop over them has an end of its own; those that are too
 * many are zero.
 */
static inline unsigned int e7c_padded(unsigned int rank)
{
	return (rank + 3) / 4 * 4;
}

/* What analysis gives for values that it does not hold; others that cannot be had are refused. */
#define E7C_TO_BE_STORED 1

/* What the calibration says of one head of one tensor of one layer. */
struct e7c_tables {
	unsigned int rank; /* coefficients */
	unsigned int stride; /* of a channel in the synthesis, padded */
	unsigned int shift; /* the synthesis comes in 2^-shift units */
	int unit; /* inputs become integers, in 2^unit */
	const int16_t *mean; /* of a channel, before rotation, in units */
	const int16_t *synthesis; /* [head_dim][stride] */
	const int16_t *analysis; /* [stride][head_dim] */
	/* of a coefficient: so many bits of the analysis are beyond fractions of a step */
	const uint8_t *down;
	/* of a coefficient: what is added, in fractions of a step, before they are cut */
	const uint8_t *rounding;
	const uint8_t *low; /* of a coefficient: bits that are plain */
	const uint8_t *which; /* of a coefficient: its table .. */
	const struct range_table *coders; /* .. among these */
};

#endif

/* SPDX-License-Identifier: MIT */
/* Mode e7c: constants of FORMAT.md section 9 shared by the kernels, and the tables of one head. */
#ifndef SPECKV_CODEC_E7C_H
#define SPECKV_CODEC_E7C_H

#include <stdint.h>

#include "mode.h"
#include "range.h"

/* Coefficients per token, and their largest magnitude. */
#define E7C_RANK_MAX CODEC_HEAD_DIM_MAX
#define E7C_LEVEL_MAX 2047
/* If an input less its mean exceeds this, the group is stored. */
#define E7C_DEVIATION_MAX 8191
/* Fractional bits of a coefficient, in steps. */
#define E7C_FRACTION_BITS 8

/* Limits of a calibration that bound all sums below to 32 bits. */
#define E7C_COLUMN_MAX ((1 << 20) - 1) /* sum of the synthesis' magnitudes per channel */
#define E7C_ROW_MAX ((1 << 18) - 1) /* sum of the analysis' magnitudes per coefficient */
#define E7C_SHIFT_MAX 20
#define E7C_DOWN_MAX 18
#define E7C_LOW_MAX 6
#define E7C_CODERS_MAX 256

/*
 * A coded group: bytes of code, escapes, bytes of plain bits beyond the last ones, powers of the
 * states. A stored group: a mark, and the values.
 */
#define E7C_COUNTS_BYTES (6 + RANGE_POWERS_BYTES)
#define E7C_STORED_MARK 0xffff
#define E7C_ESCAPES_MAX(head_dim) (4u * (head_dim))
#define E7C_PLAIN_MAX (CODEC_GROUP_TOKENS * E7C_RANK_MAX * (E7C_LOW_MAX + 1) / 8 + RANGE_LAST_BYTES)

/* Bytes of a stored group; a coded one is shorter. */
static inline uint32_t e7c_stored_bytes(unsigned int head_dim)
{
	return 2 + 2 * CODEC_GROUP_TOKENS * head_dim;
}

/* Coefficients are padded with zeros to a multiple of four, so that loops need no remainder. */
static inline unsigned int e7c_padded(unsigned int rank)
{
	return (rank + 3) / 4 * 4;
}

/* Result of the analysis if the group does not fit; values that are not finite are refused. */
#define E7C_TO_BE_STORED 1

/* The calibration of one head of one tensor of one layer. */
struct e7c_tables {
	unsigned int rank; /* coefficients */
	unsigned int stride; /* coefficients per channel in the synthesis, padded */
	unsigned int shift; /* the synthesis is in units of 2^-shift */
	int unit; /* inputs are converted to integers, in units of 2^unit */
	const int16_t *mean; /* per channel, before rotation, in units */
	const int16_t *synthesis; /* [head_dim][stride] */
	const int16_t *analysis; /* [stride][head_dim] */
	/* per coefficient: bits of the analysis below the fractions of a step */
	const uint8_t *down;
	/* per coefficient: added before the fractions are cut off */
	const uint8_t *rounding;
	const uint8_t *low; /* per coefficient: number of plain bits */
	const uint8_t *which; /* per coefficient: its table .. */
	const struct range_table *coders; /* .. in this list */
};

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Tables and state of the fixed-rate modes' encoder, for kernels that search the trellises of LANES
 * tokens in parallel, a byte each. The source that includes this has defined LANES.
 */
#ifndef SPECKV_CODEC_QX_TRELLIS_H
#define SPECKV_CODEC_QX_TRELLIS_H

#include "qx.h"

/*
 * Metrics of distances of 2 e + 1 sixteenths of a step: where levels are far apart, and elsewhere.
 */
#define FAR(e) ((int8_t)(uint8_t)((2 * (e) + 1) * (2 * (e) + 1) / 4))
#define NEAR(e) ((int8_t)((2 * (e) + 1) * (2 * (e) + 1) / 16))
/* For five bits, of distances of 4 k - 30. */
#define FAR5(k) ((int8_t)(uint8_t)((4 * (k) - 30) * (4 * (k) - 30) / 4))
#define NEAR5(k) ((int8_t)((4 * (k) - 30) * (4 * (k) - 30) / 16))
#define SIXTEEN(of)                                                                           \
	of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), \
		of(12), of(13), of(14), of(15)

/*
 * Added to a cell with saturation: the upper bits of the sum are the index in subset j, the lower
 * ones the distance.
 */
#define OFFSET(j, bits) ((192 >> (bits)) - (128 >> (bits)) * (j))

/*
 * Tables indexed by the path bits p(c-2), p(c-1), p(c), p(c+1), the first lowest: the offset of the
 * subset for channel c and c + 1, and the path's contribution to their codes, of 3 and 4 bits to
 * both together. The top bit of the index is inverted, since cells are signed.
 */
#define BIT(w, i) ((w) >> (i) & 1)
#define SUBSET(w) (2 * (BIT(w, 2) ^ BIT(w, 0)) + BIT(w, 1))
#define EVEN3(w) OFFSET(SUBSET(w), 3)
#define ODD3(w) OFFSET(SUBSET((w) >> 1), 3)
#define EVEN4(w) OFFSET(SUBSET(w), 4)
#define ODD4(w) OFFSET(SUBSET((w) >> 1), 4)
#define EVEN5(w) OFFSET(SUBSET(w), 5)
#define ODD5(w) OFFSET(SUBSET((w) >> 1), 5)
#define PATHS3(w) (0x12 | BIT(w, 2) << 2 | BIT(w, 3) << 5)
#define PATHS4(w) ((int8_t)(uint8_t)(0x44 | BIT(w, 2) << 3 | BIT(w, 3) << 7))
#define PATH5(w) (0x08 | BIT(w, 2) << 4)
#define NEXT5(w) (0x08 | BIT(w, 3) << 4)

/* State of the search for LANES tokens. */
struct trellis {
	uint8_t cells[CODEC_HEAD_DIM_MAX][LANES];
	/*
	 * For each eight channels and final state, the best path: the two path bits before, and the
	 * first six.
	 */
	uint8_t paths[CODEC_HEAD_DIM_MAX / 8][4][LANES];
	/* The path bits taken; the last entry holds the final two. */
	uint8_t taken[CODEC_HEAD_DIM_MAX / 8 + 1][LANES];
	/* Bytes of the tokens' codes. */
	uint8_t codes[CODEC_HEAD_DIM_MAX * QX_BITS_MAX / 8][LANES];
} __attribute__((aligned(LANES)));

#endif

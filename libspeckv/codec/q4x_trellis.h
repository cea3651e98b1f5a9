/* SPDX-License-Identifier: MIT */
/*
 * Tables and state of mode q4x's encoder, for kernels that search the trellises of LANES tokens in
 * parallel, a byte each. The source that includes this has defined LANES.
 */
#ifndef SPECKV_CODEC_Q4X_TRELLIS_H
#define SPECKV_CODEC_Q4X_TRELLIS_H

#include "q4x.h"

/*
 * Metrics of distances of 2 e + 1 sixteenths of a step: where levels are far apart, and elsewhere.
 */
#define FAR(e) ((int8_t)(uint8_t)((2 * (e) + 1) * (2 * (e) + 1) / 4))
#define NEAR(e) ((int8_t)((2 * (e) + 1) * (2 * (e) + 1) / 16))
#define SIXTEEN(of)                                                                           \
	of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10), of(11), \
		of(12), of(13), of(14), of(15)

/*
 * Added to a cell with saturation: the upper bits of the sum are the index in subset j, the lower
 * ones the distance.
 */
#define OFFSET(j, tensor) ((tensor) == CODEC_K ? 12 - 8 * (j) : 24 - 16 * (j))

/*
 * Tables indexed by the path bits p(c-2), p(c-1), p(c), p(c+1), the first lowest: the offset of the
 * subset for channel c and c + 1, and the path's contribution to both codes. The top bit of the
 * index is inverted, since cells are signed.
 */
#define BIT(w, i) ((w) >> (i) & 1)
#define SUBSET(w) (2 * (BIT(w, 2) ^ BIT(w, 0)) + BIT(w, 1))
#define EVEN_K(w) OFFSET(SUBSET(w), CODEC_K)
#define ODD_K(w) OFFSET(SUBSET((w) >> 1), CODEC_K)
#define EVEN_V(w) OFFSET(SUBSET(w), CODEC_V)
#define ODD_V(w) OFFSET(SUBSET((w) >> 1), CODEC_V)
#define PATHS_K(w) ((int8_t)(uint8_t)(0x44 | BIT(w, 2) << 3 | BIT(w, 3) << 7))
#define PATHS_V(w) (0x12 | BIT(w, 2) << 2 | BIT(w, 3) << 5)

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
	uint8_t codes[CODEC_HEAD_DIM_MAX / 2][LANES]; /* bytes of the tokens' codes */
} __attribute__((aligned(LANES)));

#endif

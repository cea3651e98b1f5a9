/* SPDX-License-Identifier: MIT */
/* Between the phases of the vector encoders of the fixed-rate modes: cells to codes. */
#ifndef SPECKV_CODEC_QX_CODES_H
#define SPECKV_CODEC_QX_CODES_H

#include "mode.h"

/*
 * Codes of a group from the cells of its tokens, of which `order` has the place of each channel.
 * Rows are aligned to a vector, and read up to its end beyond `head_dim`.
 */
#define CODEC_QX_CODES(isa)                                                   \
	void codec_qx_codes_##isa(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], \
		const uint8_t *order, unsigned int head_dim, unsigned int bits, uint8_t *codes)
CODEC_QX_CODES(avx2);
CODEC_QX_CODES(avx512);

#endif

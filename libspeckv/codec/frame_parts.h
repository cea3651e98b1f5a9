/* SPDX-License-Identifier: MIT */
/* What frame.c and frame_decode.c share. */
#ifndef SPECKV_CODEC_FRAME_PARTS_H
#define SPECKV_CODEC_FRAME_PARTS_H

#include "mode.h"

/* Prefetch distance while parsing. */
#define CODEC_FRAME_LEAD 2048

static inline uint64_t codec_least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline enum codec_tensor codec_tensor_of(unsigned int section)
{
	return section & 1 ? CODEC_V : CODEC_K;
}

/* Find the mode; checks that the shape is valid and supported. */
int codec_frame_mode(const struct speckv_geometry *geometry, unsigned int codec,
	const struct codec_mode **out);
/* Copy one table entry and check its bounds. */
int codec_frame_section(const struct speckv_frame *parsed, const struct codec_mode *mode,
	const uint8_t *frame, uint32_t index, struct codec_section *section);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Beyond speckv/codec.h, for callers inside the library that know what will happen to the bytes,
 * and which frame is next.
 */
#ifndef SPECKV_CODEC_FRAME_H
#define SPECKV_CODEC_FRAME_H

#include <stdbool.h>

#include <speckv/codec.h>

/* Results of this size do not stay in a core's cache anyway. */
#define CODEC_STREAMED_BYTES (UINT64_C(4) << 20)

/*
 * speckv_frame_decode(), with stores that go round the caches when `streamed`: faster by a fifth
 * where the destination is not in a cache, slower by as much where it is. speckv_frame_decode()
 * streams from CODEC_STREAMED_BYTES on; a caller that decodes many small blocks into different
 * places should stream when they are that large together.
 */
int codec_frame_decode(const struct speckv_frame *parsed, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity,
	bool streamed);

#endif

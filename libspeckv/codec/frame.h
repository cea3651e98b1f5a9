/* SPDX-License-Identifier: MIT */
/* Additions to speckv/codec.h for callers inside the library: control over streaming stores. */
#ifndef SPECKV_CODEC_FRAME_H
#define SPECKV_CODEC_FRAME_H

#include <stdbool.h>

#include <speckv/codec.h>

/* Results of this size do not stay in a core's cache. */
#define CODEC_STREAMED_BYTES (UINT64_C(4) << 20)

/*
 * speckv_frame_decode(), with streaming stores if `streamed`: a fifth faster if the destination is
 * not cached, a fifth slower if it is. speckv_frame_decode() streams from CODEC_STREAMED_BYTES on;
 * a caller that decodes many small blocks to different places should stream if their total is that
 * large.
 */
int codec_frame_decode(const struct speckv_frame *parsed, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity,
	bool streamed);

#endif

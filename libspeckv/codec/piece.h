/* SPDX-License-Identifier: MIT */
/*
 * Sections of variable length, read and written piece by piece, each through the copying checksum.
 */
#ifndef SPECKV_CODEC_PIECE_H
#define SPECKV_CODEC_PIECE_H

#include "kernels.h"

/* A section being read, once. */
struct piece_source {
	const uint8_t *from;
	uint64_t left;
	uint32_t state;
};

static inline bool piece_take(struct piece_source *source, uint8_t *to, uint64_t bytes)
{
	if (bytes > source->left)
		return false;
	source->state = codec_kernels()->crc_copy(source->state, to, source->from, bytes);
	source->from += bytes;
	source->left -= bytes;
	return true;
}

/* A section being written. */
struct piece_sink {
	uint8_t *to;
	uint64_t used, most;
	uint32_t state;
};

static inline bool piece_give(struct piece_sink *sink, const uint8_t *from, uint64_t bytes)
{
	if (bytes > sink->most - sink->used)
		return false;
	sink->state = codec_kernels()->crc_stream(sink->state, sink->to + sink->used, from, bytes);
	sink->used += bytes;
	return true;
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The leading tokens of a sequence, which a lossy mode stores as they are behind a section's groups:
 * attention sinks, whose values are unlike all others. Defined by FORMAT.md section 5.1. For the
 * sources of lossy modes only.
 */
#ifndef SPECKV_CODEC_SINKS_H
#define SPECKV_CODEC_SINKS_H

#include "piece.h"

#define CODEC_SINKS 4

static inline unsigned int sinks_at(uint64_t position)
{
	return position ? 0 : CODEC_SINKS;
}

static inline uint64_t sinks_bytes(const struct speckv_geometry *geometry, unsigned int sinks)
{
	return 2ULL * geometry->kv_heads * sinks * geometry->head_dim;
}

/* `raw`: the section's values. */
static inline bool sinks_give(struct piece_sink *sink, const struct speckv_geometry *geometry,
	unsigned int sinks, const uint8_t *raw)
{
	uint64_t head_raw = 2ULL * geometry->tokens * geometry->head_dim;

	for (unsigned int head = 0; head < geometry->kv_heads && sinks; head++)
		if (!piece_give(sink, raw + head * head_raw, 2ULL * sinks * geometry->head_dim))
			return false;
	return true;
}

static inline bool sinks_take(struct piece_source *source, const struct speckv_geometry *geometry,
	unsigned int sinks, uint8_t *raw)
{
	uint64_t head_raw = 2ULL * geometry->tokens * geometry->head_dim;

	for (unsigned int head = 0; head < geometry->kv_heads && sinks; head++)
		if (!piece_take(source, raw + head * head_raw, 2ULL * sinks * geometry->head_dim))
			return false;
	return true;
}

#endif

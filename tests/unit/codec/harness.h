/* SPDX-License-Identifier: MIT */
/* What the codec's C tests share: memory with watched ends, random shapes, doctored frames. */
#ifndef TEST_CODEC_HARNESS_H
#define TEST_CODEC_HARNESS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <speckv/codec.h>

#include "../../check.h"
#include "../../vectors/inputs.h"

/* Never NULL, on a line, exactly that long: what is behind it is the sanitizer's. */
static inline void *line_alloc(uint64_t bytes)
{
	void *at;

	if (posix_memalign(&at, 64, bytes ? bytes : 1)) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return at;
}

/*
 * Exactly that long, and a page that cannot be touched right behind it, or right before it: seen
 * without a sanitizer too.
 */
struct fenced {
	uint8_t *at, *map;
	uint64_t mapped;
};
static inline struct fenced fenced_alloc(uint64_t bytes, bool before)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE),
		 pages = (bytes + page - 1) / page * page + !bytes * page;
	struct fenced f = { .mapped = pages + page };

	f.map = mmap(NULL, f.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(f.map != MAP_FAILED && mprotect(before ? f.map : f.map + pages, page, PROT_NONE) == 0,
		"a fence");
	f.at = before ? f.map + page : f.map + pages - bytes;
	return f;
}
static inline void fenced_free(struct fenced f)
{
	munmap(f.map, f.mapped);
}

/* A small shape that every mode with 16-bit input takes. */
static inline struct speckv_geometry random_geometry(uint64_t *state)
{
	struct speckv_geometry g = { 0 };

	g.layers = (uint16_t)(1 + random_below(state, 3));
	g.kv_heads = (uint16_t)(1 + random_below(state, 3));
	g.head_dim = head_dims[random_below(state, 6)];
	g.tokens = (uint16_t)(64 * (1 + random_below(state, 2)));
	g.dtype = (uint8_t)(random_below(state, 2) ? SPECKV_DTYPE_BF16 : SPECKV_DTYPE_FP16);
	return g;
}

static inline struct speckv_frame_identity random_identity(uint64_t *state)
{
	struct speckv_frame_identity id;

	for (size_t i = 0; i < sizeof(id.key); i++)
		id.key[i] = (uint8_t)random_next(state);
	for (size_t i = 0; i < sizeof(id.pool_uuid); i++)
		id.pool_uuid[i] = (uint8_t)random_next(state);
	id.generation = random_next(state);
	id.pool_address = random_next(state);
	id.first_position = random_next(state);
	id.tenant = (uint32_t)random_next(state);
	id.reserved = 0;
	return id;
}

static inline uint32_t get32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
		(uint32_t)at[3] << 24;
}

static inline void put32(uint8_t *at, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(v >> (8 * i));
}

/* Make a doctored header or table hold together again. */
static inline void reseal(uint8_t *frame)
{
	uint32_t sections = (uint32_t)frame[112] | (uint32_t)frame[113] << 8;

	put32(frame + 116, speckv_crc32c(0, frame + 128, 16 * (uint64_t)sections));
	put32(frame + 124, speckv_crc32c(0, frame, 124));
}

#endif

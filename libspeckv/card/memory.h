/* SPDX-License-Identifier: MIT */
/* Layout of device memory: MEMORY.md. Offsets only, so that it can be mapped anywhere. */
#ifndef SPECKV_CARD_MEMORY_H
#define SPECKV_CARD_MEMORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/speckv.h>
#include <speckv/predictor.h>

#define MEMORY_MAGIC UINT64_C(0x3056454d44524143) /* "CARDMEV0" */
#define MEMORY_VERSION 0
#define MEMORY_EVENTS 256
#define MEMORY_ERRORS 256
/* per model; there are two places, so that a failed load does not replace the active model */
#define MEMORY_MODEL_BYTES (2u << 20)

/* At offset 0. */
struct memory_superblock {
	uint64_t magic;
	uint32_t version;
	uint32_t crc; /* of this structure with 0 here, up to `changing` */
	uint8_t uuid[16];
	uint64_t bytes;
	uint32_t sessions, functions;
	uint64_t stage_bytes;
	uint64_t first_page; /* end of the layout; differs between versions of the card */
	/* Updated in operation, one word at a time. */
	uint64_t changing;
	uint64_t generation; /* of the pool made last */
	uint64_t power_cycles, unsafe_power_cycles;
	uint64_t uncorrected;
	uint32_t clean; /* shut down properly */
	uint32_t model_bytes; /* 0: no model; stored last */
	uint32_t model_place;
	uint32_t reserved;
	uint8_t model_digest[32];
};

/*
 * A pool, in two copies, written one after the other: the one with the higher sequence and a valid
 * CRC counts.
 */
struct memory_pool {
	uint64_t sequence;
	struct speckv_pool_description description; /* without the counted fields */
	uint64_t reserve_bytes; /* size for which the tables were allocated */
	uint64_t table_page, table_pages; /* device pages of map and directory */
	uint32_t present;
	uint32_t crc; /* of everything before */
};

/* A session slot of a function. Cleared with the connection, and so at every start. */
struct memory_session {
	uint64_t last_ns;
	uint64_t life; /* unique number of the session */
	uint32_t steps; /* 0: unused */
	uint32_t gap; /* mean of log2 of the gaps in milliseconds, 8 fractional bits */
	uint32_t model; /* model of the state: speckv_card.predictor_number; 0: none */
	uint8_t reserved[36];
	struct speckv_predictor_state state;
};

/* Entries of the device page map. */
#define PAGE_OWNER 0xffffu /* pool number; 0: free */
#define PAGE_TABLE (1u << 16) /* holds the pool's tables */
#define PAGE_DIRTY (1u << 17) /* free, not zeroed yet */
#define PAGE_POISON (1u << 18) /* uncorrectable error: never allocated again */

/* Entries of a pool's map: device address of the page, and rights. */
#define MAP_VALID 1u
#define MAP_READ 2u
#define MAP_WRITE 4u

enum card_block_state {
	BLOCK_FREE,
	BLOCK_REST, /* a page of the block that starts at page `head` */
	BLOCK_EXCLUSIVE, /* E: a fill, unchanged since its last write-back */
	BLOCK_MODIFIED, /* M: a fill */
	BLOCK_SEALED, /* I or S: a frame, held by `holders` */
	BLOCK_DYING, /* being invalidated: its holders have been recalled */
};

/* Directory entry of one page of a pool. */
struct card_block {
	uint64_t generation;
	uint64_t holders; /* bit map of agents */
	uint64_t recalled; /* agents to which a recall was posted */
	uint64_t used_ns;
	uint32_t pages;
	uint32_t bytes; /* of the frame; of a fill: of its pages */
	uint32_t head;
	uint32_t uses;
	uint8_t state; /* stored last */
	uint8_t owner; /* agent that owns the fill */
	uint8_t recalling; /* an INVALIDATE is waiting for it */
	uint8_t reserved[13];
};

/* Progress of memory_reserve(); zero before the first call. */
struct memory_reservation {
	uint64_t run, more; /* pages requested */
	uint64_t first, start; /* first page of the run; where the search for the others begins */
	uint64_t at, found; /* pages scanned, and those of them that are backed */
	bool active;
};

struct memory_layout {
	uint64_t pools, page_map, sessions, events, errors, model, stage, first_page;
	uint64_t pages; /* device pages, from first_page on */
	uint64_t sessions_all;
};

_Static_assert(sizeof(struct card_block) == 64, "a cache line");
_Static_assert(sizeof(struct memory_session) == 832,
	"whole cache lines: 64 bytes, 512 of cells, 256 of outputs");
_Static_assert(sizeof(struct memory_pool) <= 512, "two copies in a page");

struct speckv_card;

/*
 * Recover existing contents, or format blank memory. 0, -EINVAL, -EUCLEAN, -ENOSPC (no space for
 * the backing), -ENOMEM.
 */
int memory_open(struct speckv_card *card);
struct memory_superblock *memory_superblock(const struct speckv_card *card);
struct memory_session *memory_session(const struct speckv_card *card, unsigned int function,
	uint32_t slot);
struct speckv_log_event *memory_event(const struct speckv_card *card, uint64_t sequence);
struct speckv_log_error *memory_error(const struct speckv_card *card, uint64_t sequence);
uint8_t *memory_page(const struct speckv_card *card, uint64_t page);
/* Zero free pages; may release their backing. */
void memory_zero_pages(struct speckv_card *card, uint64_t page, uint64_t count);
/* Zero a part of device memory outside of the pages; may release its backing. */
void memory_clear(struct speckv_card *card, uint64_t offset, uint64_t bytes);
/* Allocate backing for a part of device memory outside of the pages: 0, -ENOSPC. */
int memory_take(struct speckv_card *card, uint64_t offset, uint64_t bytes);
/*
 * Back a run of `run` free pages and `more` others, in bounded steps. 0: done, and taking them
 * cannot fail before the next call; -EAGAIN: call again; -ENOSPC: not enough free pages or space
 * for the backing.
 */
int memory_reserve(struct speckv_card *card, struct memory_reservation *reservation, uint64_t run,
	uint64_t more);
/* The command has ended: pages backed for it and not taken may be released. */
void memory_reserve_end(struct speckv_card *card, struct memory_reservation *reservation);
/* May free pages have backing to release? */
bool memory_gives_up(const struct speckv_card *card);
void memory_give_up(struct speckv_card *card);
/* Assign a zeroed page to `owner`; UINT64_MAX: none is free, or none can be backed. */
uint64_t memory_page_take(struct speckv_card *card, uint32_t owner);
uint64_t memory_pages_take(struct speckv_card *card, uint64_t count, uint32_t owner);
void memory_page_give(struct speckv_card *card, uint64_t page);
/* ---- memory_pools.c */
#define MEMORY_POOLS_AT 4096
#define MEMORY_POOL_STRIDE 1024 /* of both copies of a record */
#define MEMORY_POOL_COPY 512
static inline uint64_t memory_align(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}
/* Release fence: a process may be killed between two stores, which must not be reordered. */
static inline void memory_ordered(void)
{
	atomic_thread_fence(memory_order_release);
}
/* The valid copy of a pool's record; false: there is none. */
bool memory_pool_load(const struct speckv_card *card, unsigned int number, struct memory_pool *out);
/* Write a pool's record: the commit point of a change. */
void memory_pool_store(struct speckv_card *card, unsigned int number);
/* Attach map and directory from the record's tables. False: the tables are not this pool's. */
bool memory_pool_attach(struct speckv_card *card, unsigned int number);
void memory_pool_release(struct speckv_card *card, unsigned int number);
bool memory_pool_check(const struct speckv_card *card, unsigned int number);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Medium layout, version 0, as in LAYOUT.md. Everything is little-endian, offsets only, no
 * pointers. Fields that change while shared are _Atomic; all others are written once, before the
 * release-store of a state.
 */
#ifndef SPECKV_CLIENT_LAYOUT_H
#define SPECKV_CLIENT_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include <speckv/block.h>

#define LAY_VERSION 0
#define LAY_DEVICE_MAGIC 0x004d564b43455053ull /* "SPECKVM\0" */
#define LAY_POOL_MAGIC 0x0050564b43455053ull /* "SPECKVP\0" */

/* allocation unit of capacities, and the alignment devdax needs */
#define LAY_UNIT (2ull << 20)
#define LAY_POOLS 64
#define LAY_EXTENTS 9 /* [0] tables, [1..8] data; single-inode media only */
#define LAY_CLIENTS 64
#define LAY_SLOT_MANAGER (LAY_CLIENTS - 1) /* reserved for the manager of the device */
#define LAY_TENANTS 64
#define LAY_POOL_EVENTS 512
#define LAY_DEVICE_EVENTS 256
#define LAY_HINTS 512

enum lay_medium_state {
	LAY_MEDIUM_MAKING = 1,
	LAY_MEDIUM_READY = 2,
	LAY_MEDIUM_GONE = 3 /* a pool that is being removed */
};

/* ---- the device's table --------------------------------------------------------------------- */

struct lay_event {
	_Atomic uint64_t sequence; /* 0 while it is being written */
	uint64_t time_ns;
	uint32_t kind, severity, pid, reserved;
	char text[160];
	uint8_t pad[64];
};
_Static_assert(sizeof(struct lay_event) == 256, "event");

struct lay_superblock {
	uint64_t magic;
	uint32_t version;
	_Atomic uint32_t state; /* enum lay_medium_state */
	uint8_t uuid[16];
	uint64_t created_ns;
	uint64_t table_bytes; /* superblock, pool records and events */
	uint64_t medium_bytes; /* single inode: the whole medium; else table_bytes */
	uint32_t single_inode;
	uint32_t durability;
	int32_t numa_node;
	uint32_t made_file; /* the file was made by libspeckv and may be deleted by it */
	uint32_t crc; /* CRC-32C of bytes 0..crc with state as READY */
	uint32_t reserved0;
	_Atomic uint32_t manager_pid; /* information only: the lock is an OFD lock */
	uint32_t reserved1;
	char manager_command[64];
	_Atomic uint64_t next_generation; /* of pools */
	_Atomic uint64_t event_sequence;
	uint8_t pad[4096 - 168];
};
_Static_assert(sizeof(struct lay_superblock) == 4096, "superblock");

struct lay_extent {
	uint64_t offset, bytes;
};

struct lay_pool_record {
	_Atomic uint32_t state; /* 0: free; enum speckv_pool_state */
	uint32_t extents; /* single inode: how many are in use */
	uint64_t generation;
	char name[SPECKV_NAME_BYTES];
	uint8_t uuid[16];
	uint32_t uid, gid, mode, codec;
	uint64_t capacity_bytes, max_bytes, table_bytes; /* table_bytes: of the pool's own tables */
	uint64_t created_ns;
	struct lay_extent extent[LAY_EXTENTS];
	/* its digest, in modes that need one */
	uint8_t calibration[SPECKV_CALIBRATION_DIGEST_BYTES];
	uint8_t pad[512 - 304];
};
_Static_assert(sizeof(struct lay_pool_record) == 512, "pool record");

struct lay_device {
	struct lay_superblock super;
	struct lay_pool_record pools[LAY_POOLS];
	struct lay_event events[LAY_DEVICE_EVENTS];
};

/* ---- a pool's region ------------------------------------------------------------------------ */

/*
 * State flag: another process holds this manager slot's byte in the pool's lock file. The manager
 * is alive while it holds its slot's byte in the device's lock file.
 */
#define LAY_CLIENT_UNSEEN 2ull

struct lay_client {
	_Atomic uint64_t state; /* 0: free; else incarnation << 8 | 1, and LAY_CLIENT_UNSEEN */
	uint32_t pid, uid;
	_Atomic uint32_t tenant;
	uint32_t reserved0;
	uint64_t attached_ns;
	char command[64];
	_Atomic uint64_t allocated_pages; /* held by allocations (speckv_mem_alloc) */
	_Atomic uint64_t cursor; /* next-fit hint */
	/*
	 * a move in progress; the reaper of this client settles an interrupted one. Generation `to`
	 * is written last; 0: none
	 */
	_Atomic uint64_t move_from, move_from_generation, move_to, move_to_generation;
	uint8_t pad[256 - 144];
};
_Static_assert(sizeof(struct lay_client) == 256, "client");

struct lay_tenant {
	_Atomic uint32_t state; /* 0 free, 1 being named, 2 in use */
	uint32_t reserved0;
	char name[SPECKV_NAME_BYTES];
	_Atomic uint64_t used_pages, blocks;
	_Atomic uint64_t puts, hits, misses, lookup_misses, bytes_in, bytes_out, evicted;
	uint8_t pad[256 - 144];
};
_Static_assert(sizeof(struct lay_tenant) == 256, "tenant");

/* The pool's calibration, a copy of its file. Written at creation; all zero: none. */
struct lay_calibration {
	uint64_t offset, bytes; /* from the start of the region */
	/* first layer and head of the pool's blocks, in the calibration */
	uint16_t first_layer, first_head;
	uint32_t crc; /* CRC-32C of the fields before it */
};
_Static_assert(sizeof(struct lay_calibration) == 24, "calibration");

struct lay_pool {
	uint64_t magic;
	uint32_t version;
	_Atomic uint32_t state; /* enum lay_medium_state */
	uint8_t uuid[16];
	uint64_t generation;
	char name[SPECKV_NAME_BYTES];
	uint64_t created_ns;
	struct speckv_geometry geometry;
	uint64_t block_bytes;
	uint32_t codec, page_bytes;
	/* min_run: fewest pages of any run; entry of a block = head page / min_run */
	uint32_t single_tenant, min_run;
	uint64_t max_pages, max_entries, bucket_mask, seed;
	/* from the start of the region */
	uint64_t directory_offset, page_map_offset, entry_offset, data_offset;
	/* data_offset + max_pages * page_bytes */
	uint64_t region_bytes;
	uint32_t crc; /* CRC-32C of bytes 0..crc with state as READY */
	uint32_t reserved0;
	uint8_t pad0[24];
	/* changed by managers */
	_Atomic uint64_t data_pages; /* the pool's size now */
	/*
	 * incremented at each change of size, and at the end of the pool; starts at random, so that
	 * it differs between pools
	 */
	_Atomic uint64_t size_sequence;
	_Atomic uint64_t quota_pages, tenant_quota_pages;
	/* pages; 0: none. Below data_pages while a shrink is under way */
	_Atomic uint64_t claim_limit;
	_Atomic uint32_t eviction, resizes;
	uint8_t boot_id[16]; /* boot ID of the last writer; zero: not known */
	_Atomic uint64_t stats_since_ns;
	/* changed by all clients */
	_Atomic uint64_t next_run_generation __attribute__((aligned(64)));
	_Atomic uint64_t used_pages; /* a hint; the page map is the truth */
	/* runs freed so far: a failed search is repeated only after it changes */
	_Atomic uint64_t freed;
	_Atomic uint64_t event_sequence;
	_Atomic uint64_t hint_head, hint_tail;
	struct lay_calibration calibration;
	/* 1: the last client detached after flushing the tables: no recovery needed */
	_Atomic uint64_t closed;
	uint8_t pad1[4096 - 464];
};
_Static_assert(sizeof(struct lay_pool) == 4096, "pool header");

struct lay_stats {
	/* ticks of use, the unit of lay_entry.used; monotonic, not a time */
	_Atomic uint64_t use_clock;
	_Atomic uint64_t counters[SPECKV_COUNTERS];
	_Atomic uint64_t histograms[SPECKV_HISTOGRAMS][SPECKV_HIST_BUCKETS];
	uint8_t pad[8192 - 8 - 256 - 5120];
};
_Static_assert(sizeof(struct lay_stats) == 8192, "statistics page");

/* Everything before the directory, in this order. */
struct lay_pool_head {
	struct lay_pool pool;
	struct lay_client clients[LAY_CLIENTS];
	struct lay_tenant tenants[LAY_TENANTS];
	struct lay_stats stats;
	struct lay_event events[LAY_POOL_EVENTS];
	_Atomic uint64_t hints[LAY_HINTS]; /* freed runs: page << 18 | pages; 0: empty */
};

/*
 * Directory: buckets of eight slots, one cache line each. Slot: tag 12 | low 20 bits of the
 * generation | entry + 1. 0: empty.
 */
#define LAY_BUCKET_SLOTS 8
struct lay_bucket {
	_Atomic uint64_t slots[LAY_BUCKET_SLOTS];
};
_Static_assert(sizeof(struct lay_bucket) == 64, "bucket");

/* Index entry. Written by the owner of the claimed head page; `generation` last. */
struct lay_entry {
	_Atomic uint64_t generation; /* 0: unused */
	_Atomic uint64_t page; /* head page of the run */
	_Atomic uint64_t key[4];
	_Atomic uint64_t first_position;
	_Atomic uint32_t frame_bytes, raw_bytes;
	/* use_clock at the last put, get or touch; 0: evicted first */
	_Atomic uint64_t used;
	_Atomic uint32_t uses;
	_Atomic uint32_t tenant;
	/*
	 * Prefix tree. Link: (entry + 1) << 32 | low 32 bits of its generation; 0: none. Hints:
	 * validated wherever they are used.
	 */
	_Atomic uint64_t parent, first_child, next_sibling, recent_child;
	/*
	 * generation of the block whose invalidate was sent to a card and its completion lost:
	 * look-ups skip it
	 */
	_Atomic uint64_t doubtful;
	_Atomic uint64_t previous_sibling;
};
_Static_assert(sizeof(struct lay_entry) == 128, "index entry");

/*
 * Page map: one word a page. State 2 bits | value 18 | generation 44.
 *   FREE     0: free. value 1: retired (above the end of a shrunken pool)
 *   CLAIMED  value = client slot 6 | incarnation 12: held by that client, dies with it
 *   HEAD     value = pages in the run: a published block
 *   CONT     value = distance back to the head; same generation as the head
 */
#define LAY_FREE 0ull
#define LAY_CLAIMED 1ull
#define LAY_HEAD 2ull
#define LAY_CONT 3ull
#define LAY_RUN_MAX ((1u << 18) - 1)
#define LAY_GENERATION_MASK ((1ull << 44) - 1)
#define LAY_RETIRED (1ull << 44)

static inline uint64_t lay_word(uint64_t state, uint64_t value, uint64_t generation)
{
	return state << 62 | value << 44 | generation;
}
static inline unsigned int lay_state(uint64_t word)
{
	return word >> 62;
}
static inline uint32_t lay_value(uint64_t word)
{
	return (word >> 44) & LAY_RUN_MAX;
}
static inline uint64_t lay_generation(uint64_t word)
{
	return word & LAY_GENERATION_MASK;
}
static inline uint32_t lay_owner(unsigned int slot, uint64_t incarnation)
{
	return (uint32_t)(slot << 12 | (incarnation & 0xfff));
}

/*
 * OFD lock bytes, far beyond any end of file. The first two are in the device's lock file, the
 * others in the pool's.
 */
#define LAY_LOCK_MANAGER (1ll << 60)
#define LAY_LOCK_MANAGER_SLOT(record) (LAY_LOCK_MANAGER + 1 + (record))
#define LAY_LOCK_POOL(record, generation) \
	((1ll << 61) + ((long long)((generation) & 0xffffff) << 20) + (long long)(record) * 256)
#define LAY_LOCK_RESIZE(record, generation) (LAY_LOCK_POOL(record, generation) + 128)
#define LAY_LOCK_CLIENT(record, generation, slot) (LAY_LOCK_POOL(record, generation) + 1 + (slot))

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Pools on their medium: mapped pools, pages, index, counters. Independent of the encoding of
 * blocks. Media, tables and locks: device.h. For this folder, backend/, pool/ and admin/.
 */
#ifndef SPECKV_CLIENT_STORE_H
#define SPECKV_CLIENT_STORE_H

#include "device.h"

/* ---- region.c: a mapped pool ---------------------------------------------------------------- */

struct region {
	/* private copies of what does not change; shared memory is not trusted after open */
	struct lay_pool fixed;
	/* from the record: the calibration that the pool's frames name */
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	/* NULL: none, or not loaded: managers need none */
	struct speckv_calibration *calibration;
	struct speckv_device *dev;
	int record;
	int fd, lock_fd;
	/* slot of the client of this mapping; -1: none. F_OFD_GETLK does not report own locks */
	int own_slot;
	uint8_t *base;
	uint64_t mapped_bytes;
	/* single inode: extents mapped end to end from `base` */
	struct lay_extent mapped[LAY_EXTENTS];
	char path[SPECKV_PATH_BYTES];
	struct lay_pool_head *head;
	struct lay_bucket *directory;
	_Atomic uint64_t *page_map;
	struct lay_entry *entries;
	uint8_t *data; /* NULL: the bytes lie in the device */
	const struct pool_backend *backend;
	void *io; /* private to the backend */
	uint32_t page_bytes, page_shift, min_run;
	/* its file was removed or truncated: other processes do not see what is stored here */
	_Atomic uint32_t lost;
	bool writable, durable;
	_Atomic bool gone; /* found to be destroyed, or replaced by another pool */
	/* data pages mapped here: at most the header's, and at most max_pages */
	_Atomic uint64_t pages;
	_Atomic uint64_t size_sequence;
	_Atomic uint64_t looked_ns;
	_Atomic uint64_t flushes_failed, flush_event_ns;
	pthread_mutex_t remap;
	/* OFD locks do not exclude threads that share a descriptor */
	pthread_mutex_t reaping;
	struct fork_guard guard;
};
struct region_plan {
	uint64_t pages, max_pages, max_entries, buckets;
	uint64_t directory_offset, page_map_offset, entry_offset, calibration_offset, data_offset;
	uint64_t block_bytes, region_bytes, calibration_bytes;
	uint32_t page_bytes, min_run;
	uint64_t capacity_bytes, max_bytes;
};
/* region_plan.c, region_make.c, region_files.c */
int region_plan(struct speckv_ctx *ctx, const struct speckv_pool_config *config, bool single,
	struct region_plan *plan);
/* Size of its file; how much of it is allocated at creation. */
uint64_t region_file_bytes(const struct speckv_device *dev, const struct region_plan *plan);
uint64_t region_backing_bytes(const struct speckv_device *dev, const struct region_plan *plan);
/* `record`: a private copy, as shared memory may change. */
int region_make(struct speckv_device *dev, const struct lay_pool_record *record,
	const struct speckv_pool_config *config, const struct region_plan *plan);
/* Allocate what is used now, so that a later write never hits a full file system (SIGBUS). */
int region_reserve(int fd, uint64_t offset, uint64_t bytes);
uint32_t region_head_crc(const struct lay_pool *head);
/* Does this copy of a header belong to the record's pool, with consistent offsets and sizes? */
bool region_head_sane(const struct lay_pool *head, const struct lay_pool_record *record);
/* Open the pool's file, with the owner and mode of its record. */
int region_file_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, int flags);
/*
 * Is the file this record's pool, or empty? The uuid decides: a file truncated or damaged behind it
 * is still that pool.
 */
bool region_file_of(int fd, const struct lay_pool_record *record);
/*
 * Rebuild the record of a pool from its file. Text set where it is no complete pool of that name.
 */
int region_left(struct speckv_device *dev, const struct folder *pools, const char *name,
	struct lay_pool_record *record);
int region_open(struct speckv_device *dev, const char *name, bool writable, struct region *region);
/*
 * Open a pool for writing in any state, under the manager's lock, which keeps the record's state.
 */
int region_open_managed(struct speckv_device *dev, const char *name, struct region *region);
/* Does this error of region_open_managed() mean that there is no usable pool? False: unknown. */
bool region_useless(int rc);
void region_close(struct region *region);
/*
 * Remove the file of a record's pool, complete or not; 0 too where there is none. -EEXIST: the file
 * is not that pool's. `dry_run`: check only.
 */
int region_remove(struct speckv_device *dev, const struct lay_pool_record *record, bool dry_run);
/* Mark the pool as ended for every process that has it mapped. Its space may be reused next. */
void region_end(struct region *region);
/* Does the record still name this pool, neither being created nor destroyed? */
bool region_there(struct region *region);
int region_grow_backing(struct region *region, uint64_t old_pages, uint64_t new_pages,
	const struct lay_pool_record *record);
void region_release_backing(struct region *region, uint64_t from_page, uint64_t to_page);
/* Pages in use now; follows a resize by another process. */
uint64_t region_pages(struct region *region);
/*
 * Was the pool resized since this mapping last followed? Blocks found or runs claimed meanwhile may
 * have moved.
 */
static inline bool region_stale(struct region *r)
{
	return load_acquire(&r->head->pool.size_sequence) != load_relaxed(&r->size_sequence);
}
/*
 * Uses are ordered by ticks of a counter in the medium, not by a clock: independent of clock
 * changes, reboots and time namespaces. A batch takes its ticks at once, the highest for its first
 * block, which is nearest to the root of a chain.
 */
static inline uint64_t use_ticks(struct region *r, uint64_t n)
{
	return add_relaxed(&r->head->stats.use_clock, n) + n;
}
static inline uint64_t use_tick(struct region *r)
{
	return use_ticks(r, 1);
}
/*
 * Advance the counter to a tick found in an entry, while no other client is attached: the counter's
 * page may have been written back earlier than the entry's.
 */
static inline uint64_t use_seen(struct region *r, uint64_t tick)
{
	if (tick >> 63) /* not reachable by counting: damage */
		return 0;
	if (tick > load_acquire(&r->head->stats.use_clock))
		store_release(&r->head->stats.use_clock, tick);
	return tick;
}
static inline uint64_t region_entry_of(const struct region *r, uint64_t page)
{
	return page / r->min_run;
}

/* ---- a mapped pool in use by this process --------------------------------------------------- */

struct staging;
struct workers;
struct speckv_pool {
	struct region region;
	struct speckv_ctx *ctx;
	bool read_only;
	unsigned int slot;
	bool unseen; /* LAY_CLIENT_UNSEEN */
	uint64_t incarnation;
	uint32_t owner; /* lay_owner() of this client */
	struct lay_client *client;
	struct lay_tenant *tenant;
	uint32_t tenant_index;
	struct speckv_attach attach;
	/* cold paths: creation of workers and staging, parameters, reaping, list of allocations */
	pthread_mutex_t lock;
	struct speckv_mem *allocations;
	_Atomic uint32_t prefetch_depth, codec, verify, threads;
	/* time of this client's last reap and full event: at most one a second */
	_Atomic uint64_t reaped_ns, full_event_ns;
	/* time of the last check that the manager of a shrink is alive */
	_Atomic uint64_t shrink_seen_ns;
	/*
	 * `freed` and run length of the last failed search: not repeated until something is freed
	 */
	_Atomic uint64_t failed_freed, failed_run;
	/* links to candidates for the next eviction: see evict.c */
	_Atomic uint64_t evict_parent, evict_orphan;
	struct workers *_Atomic workers;
	struct staging *_Atomic staging;
};
int pool_usable(struct speckv_pool *pool, bool write);
/*
 * -ESTALE, text set, where its file was removed or truncated: region_lost(), once a call or a
 * batch.
 */
int pool_there(struct speckv_pool *pool);
/*
 * -ESTALE where its file was found lost before or during this call: stores are invisible to other
 * processes, reads may have returned empty memory.
 */
int pool_lost_text(struct speckv_pool *pool);
static inline int pool_unless_lost(struct speckv_pool *pool, int result)
{
	return __builtin_expect(load_relaxed(&pool->region.lost), 0) ? pool_lost_text(pool)
								     : result;
}

/* ---- durable.c ------------------------------------------------------------------------------ */

/*
 * Data that must survive a power loss is acknowledged only after its flush returned 0. No-ops on
 * media without that durability.
 */
int medium_flush(const struct medium *medium, const void *address, uint64_t bytes);
int region_flush(struct region *region, const void *address, uint64_t bytes);
/* Flush everything before the data, on any medium. */
int region_flush_tables(struct region *region);
int device_flush(struct speckv_device *dev); /* the table; text set */

/* ---- lost.c --------------------------------------------------------------------------------- */

/* Watch a mapping of a file while it is mapped: `lost` is set once the file no longer covers it. */
void lost_watch(void *base, uint64_t bytes, _Atomic uint32_t *lost);
void lost_forget(const void *base);
/* Was the pool's file removed or truncated? One system call, at most once a second. */
bool region_lost(struct region *region);
bool region_look(struct region *region, uint64_t now);

/* ---- clients.c: which clients of a pool live ------------------------------------------------ */

/* of 1 ms each: for a client that holds its slot's lock but has not yet set its entry */
#define CLIENT_JOIN_TRIES 200
/* 1: a live client holds the slot, or that is unknown; 0: none. */
int client_alive(struct region *region, unsigned int slot);
void client_holders(struct region *region, int except_slot, char *text, size_t bytes,
	unsigned int *count);
/* Lock byte, in the pool's lock file, of the client of a slot. */
long long client_byte(struct region *r, unsigned int slot);
/*
 * Is this slot owned by a live manager that holds no lock in the pool's lock file? `state`: of the
 * slot.
 */
bool client_unseen(struct region *r, unsigned int slot, uint64_t state);
/*
 * Undo a removal whose manager died before region_end(): the pool is active again (true). True,
 * too, where the region cannot be opened for an unrelated reason: leave the record as it is.
 */
bool removal_undone(struct speckv_device *dev, struct lay_pool_record *record);

/* ---- pages.c -------------------------------------------------------------------------------- */

/* Claim exactly these pages; false where one is not free. */
bool pages_claim_at(struct speckv_pool *pool, uint64_t page, uint32_t pages, struct run *run);
void pages_trim(struct speckv_pool *pool, struct run *run, uint32_t pages);
/* -EOWNERDEAD, or the error of the flush. The run is released on error. */
int pages_publish(struct speckv_pool *pool, const struct run *run);
void pages_release(struct region *region, uint32_t owner, const struct run *run);
/* Release a claimed run with bad memory for good: no client may claim it again. */
void pages_retire(struct speckv_pool *pool, const struct run *run);
/*
 * HEAD -> claimed by this client. True for exactly one caller; false, too, where the flush failed:
 * the block is unchanged.
 */
bool pages_unpublish(struct speckv_pool *pool, const struct run *run);
/*
 * Move a block: `from` is published, `to` is a claimed copy of it with its entry filled. from's
 * word is the commit point: where another process dropped the block before it, or this client lost
 * its claim of the copy, the copy is never published (false). Between move_begin() and move_end()
 * readers that miss the key wait, and the reaper of this client settles an interrupted move.
 */
int move_begin(struct speckv_pool *pool, const struct block_ref *from, const struct run *to);
bool pages_switch(struct speckv_pool *pool, const struct run *from, const struct run *to);
/* Flush both words. On failure both are restored: `to` is claimed, `from` is the block. */
int move_settle(struct speckv_pool *pool, const struct run *from, const struct run *to);
void move_end(struct speckv_pool *pool);
struct page_census {
	uint64_t used, free, claimed, retired, orphan, blocks, raw_bytes, stored_bytes;
	uint64_t claimed_by[LAY_CLIENTS];
};
void pages_census(struct region *region, struct page_census *census);
void pages_recount(struct region *region);
void pages_hint_push(struct region *region, uint64_t page, uint32_t pages);
/*
 * Claim a run of `n` pages below `limit` from the hints; by a scan of [from, to). False: none
 * found.
 */
bool pages_claim_hint(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit);
bool pages_claim_scan(struct speckv_pool *pool, uint64_t from, uint64_t to, uint32_t n,
	struct run *run);
/* Is a page of [mark, end), or of the run across `mark`, claimed or published? */
bool pages_claimed_above(struct region *r, uint64_t mark, uint64_t end);
/* Head of the run across `mark`, else `mark`. */
uint64_t pages_first_above(struct region *r, uint64_t mark);
/* Free the retired pages in [from, to). */
void pages_unretire(struct region *r, uint64_t from, uint64_t to);

/* ---- index.c, tree.c ------------------------------------------------------------------------ */

uint64_t key_hash(const struct region *region, const struct speckv_key *key);
bool index_find(struct region *region, const struct speckv_key *key, struct block_ref *out);
/*
 * Every published block of this key (two only while two puts of it race); `out` has room for 2 *
 * LAY_BUCKET_SLOTS.
 */
size_t index_find_all(struct region *region, const struct speckv_key *key, struct block_ref *out);
/* Is this run still published, with this generation, and not doubtful? */
bool index_current(struct region *region, const struct block_ref *found);
/*
 * An invalidate was sent to a card and its completion lost. Look-ups skip the block; it is freed
 * when evicted (first in line), when its key is dropped or put again, or by a check with repair.
 * Call index_doubt() between pages_unpublish() and pages_publish().
 */
bool index_doubtful(struct region *region, const struct block_ref *found);
void index_doubt(struct region *region, const struct block_ref *found);
/* As index_find() for many, with the cache misses overlapped. */
void index_find_many(struct region *region, const struct speckv_key *keys, size_t stride,
	size_t count, struct block_ref *out, uint8_t *present);
void index_fill(struct region *region, const struct run *run, const struct speckv_key *key,
	uint64_t first_position, uint32_t frame_bytes, uint32_t raw_bytes, uint32_t tenant,
	uint64_t used);
int index_insert(struct region *region, const struct speckv_key *key, const struct run *run);
void index_remove(struct region *region, const struct speckv_key *key, uint64_t entry,
	uint64_t generation);
/* Copy of entry `id` if it is a published block. */
bool index_entry(struct region *region, uint64_t id, struct block_ref *out, struct speckv_key *key);
void index_adopt(struct region *region, const struct block_ref *parent,
	const struct block_ref *child);
void index_inherit(struct region *region, const struct block_ref *from, const struct block_ref *to);
void index_orphan(struct region *region, const struct block_ref *child);
void index_used(struct region *region, const struct block_ref *found, bool read, uint64_t tick);
/* A link of the tree: entry, and low half of its block's generation. */
static inline uint64_t index_link(const struct block_ref *found)
{
	return (found->entry + 1) << 32 | (uint32_t)found->generation;
}
/* Does the block have a parent that is stored? The stored link to it, unvalidated. */
bool index_adopted(struct region *region, const struct block_ref *child);
uint64_t index_parent(struct region *region, const struct block_ref *child);
/* Head page of the block that a link names, if it is still published. */
bool index_link_page(struct region *region, uint64_t link, uint64_t *page);
/*
 * Head page of a stored child of the block of `entry` outside of [start, end), of `tenant` (below
 * 0: any): the least recently used of the first few.
 */
bool index_child(struct region *region, uint64_t entry, uint64_t start, uint64_t end, int tenant,
	uint64_t *page);
/*
 * The parent of these siblings (a link to the first) is gone: no prefix look-up reaches them, so
 * they are evicted first until used again. False: none is stored.
 */
bool index_abandon(struct region *region, uint64_t link);
size_t index_children(struct region *region, const struct block_ref *found, struct speckv_key *keys,
	struct block_ref *out, size_t max);

/* ---- stats.c, tenants.c --------------------------------------------------------------------- */

void count(struct speckv_pool *pool, unsigned int counter, uint64_t n);
void count_time(struct speckv_pool *pool, unsigned int histogram, uint64_t ns);
void pool_event(struct region *region, unsigned int kind, unsigned int severity, const char *format,
	...) __attribute__((format(printf, 4, 5)));
void device_event(struct speckv_device *dev, unsigned int kind, unsigned int severity,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
int tenant_find(struct region *region, const char *name);
uint32_t tenant_others(struct region *region);

/* ---- calibration.c -------------------------------------------------------------------------- */

/* Validate a calibration for such a pool, and fill in its digest. Text set. */
int calibration_judge(struct speckv_ctx *ctx, const struct speckv_pool_config *config,
	struct speckv_calibration_info *info);
/* Load the pool's calibration where its mode needs one. Text set. */
int region_calibrate(struct region *region);
/* Does this mode need a calibration? */
bool calibration_needed(unsigned int codec);
/* Private copy of the calibration file in a pool; the caller frees it. */
int calibration_copy(struct region *r, uint8_t **out, uint64_t *bytes);
/* Verify and load it. Text set. */
int calibration_load(struct region *r, const uint8_t *file, uint64_t bytes,
	struct speckv_calibration **out);

#endif

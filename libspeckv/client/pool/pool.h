/* SPDX-License-Identifier: MIT */
/*
 * Blocks of an attached pool, and its upkeep: managers, recovery, eviction. For this folder,
 * admin/.
 */
#ifndef SPECKV_CLIENT_POOL_H
#define SPECKV_CLIENT_POOL_H

#include "client/backend/backend.h"

/* ---- manage.c: one manager of a device at a time -------------------------------------------- */

/* Take the manager's lock, finish operations of a dead manager. 0, -EBUSY (held), others. */
int device_manage(struct speckv_device *dev);
/* device_manage() without finishing anything, for dry runs */
int device_inspect(struct speckv_device *dev);
/*
 * Finish operations of a dead manager, if this process may and no manager is alive. Not between
 * device_manage() and device_unmanage().
 */
bool device_settle(struct speckv_device *dev);
void device_unmanage(struct speckv_device *dev);

/* ---- size.c: the resize lock, which clients can take over ----------------------------------- */

int resize_begin(struct region *region); /* 0, or -EAGAIN: held */
void resize_end(struct region *region);
/*
 * Undo an unfinished shrink: clear its limit on claims, free its retired pages. Between
 * resize_begin() and resize_end().
 */
void resize_undo(struct region *region);
/* Called where a shrink limits claims: if its manager died, undo it. True: retry. */
bool resize_abandoned(struct speckv_pool *pool);
/*
 * The size, in pages, at which a resize from `before` ends after its manager died: the header's, or
 * `before` where there are blocks or live claims above the header's.
 */
uint64_t resize_ends_at(struct region *region, uint64_t before);
int resize_store(struct region *region, uint64_t pages); /* in the header, and flush it */

/* ---- recover.c: dead clients ---------------------------------------------------------------- */

/* Reap dead clients; returns their number. `pages_back`: pages freed. */
int clients_reap(struct speckv_pool *pool, uint64_t *pages_back);
/* Finish the move of a client that died within pages_switch(). */
void client_finish_move(struct region *region, unsigned int slot, uint64_t incarnation);
/*
 * Reap the dead client of this slot and state: finish its move, free its runs. The caller excludes
 * others from the slot. True: a client was reaped.
 */
bool client_reap(struct region *r, unsigned int slot, uint64_t state, uint64_t *back);
/* After client_reap(): index unindexed blocks, recount usage. `back`: pages freed. */
void clients_reaped(struct speckv_pool *pool, uint64_t back);
/*
 * Free every run claimed by client `slot` of this incarnation. False: some are left, as a card does
 * not answer.
 */
bool client_sweep(struct region *r, unsigned int slot, uint64_t incarnation, bool dead,
	uint64_t *back);
/*
 * Rebuild the index from page map and frame headers; no client may be attached. Data of an entry
 * beyond its frame (last use, links) is kept. -ENODEV, -EACCES: no answer from the card; the rest
 * is left as it is.
 */
int region_rebuild(struct region *region, uint64_t *kept, uint64_t *lost);
/*
 * 0 if the run holds a sound frame of this pool, with this place and generation. `deep` verifies
 * every section.
 */
int frame_sound(struct region *region, uint64_t page, uint32_t pages, uint64_t generation,
	bool deep, struct speckv_frame *frame);
/* Is the run of this head word within `pages`, with an unbroken continuation? */
bool frame_run_whole(struct region *r, uint64_t page, uint64_t word, uint64_t pages);
/* Tenant of a frame: its number, if still in use, else tenant_others(). */
uint32_t frame_tenant(struct region *r, const struct speckv_frame *frame);

/* ---- evict.c: leaves of the prefix tree, the least recently used first; room for a claim ---- */

/*
 * Claim a run of `pages`, below `below` if that is not 0. Evicts as the pool's policy says. 0,
 * -ENOSPC, -EDQUOT, -EIO.
 */
int pages_claim(struct speckv_pool *pool, uint32_t pages, struct run *run, uint64_t below);
/*
 * NONE: no candidate, or it could not be dropped. LOST: the candidate was changed by another thread
 * or process; retry. DONE.
 */
enum evicted { EVICT_NONE, EVICT_LOST, EVICT_DONE };
/*
 * Free a window of n pages below `limit` by dropping its blocks, if all were last used before tick
 * `older_than`.
 */
enum evicted pages_evict(struct speckv_pool *pool, uint32_t pages, uint64_t limit,
	uint64_t older_than);
/* Drop one block below `limit`, of this tenant (below 0: of any). */
enum evicted evict_one(struct speckv_pool *pool, uint64_t limit, int tenant);
/*
 * Mark a block without a stored parent, which no prefix look-up reaches, to be evicted first, until
 * it is used again.
 */
void evict_orphan(struct speckv_pool *pool, const struct block_ref *found);

/* ---- drop.c, read.c, blocks.c --------------------------------------------------------------- */

/* Drop a found block. True for exactly one caller. */
bool block_drop(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found);
/* Racing puts of one key may both publish. Drop all twins but the youngest. */
void settle_twins(struct speckv_pool *pool, const struct speckv_key *key);
/* Insert a published block into the index, and settle its twins. */
int block_index(struct speckv_pool *pool, const struct speckv_key *key, const struct run *run);
/* Does a look-up find this run? */
bool block_indexed(struct region *region, const struct speckv_key *key, const struct run *run);
int block_put(struct speckv_pool *pool, struct speckv_request *request, uint64_t tick);
/* Link a stored block without a parent to the parent of the request, if that is stored. */
void block_adopt(struct speckv_pool *pool, const struct speckv_request *request);
/* Totals of the gets of a batch. Every request is a hit or a miss. */
struct tally {
	uint64_t tick; /* of the next block */
	uint64_t hits, misses, bad, staged, raw, stored;
};
/* `reads`, `slot`: in which a read of `hint` may be in progress; NULL: none. */
int block_get(struct speckv_pool *pool, struct speckv_request *request,
	const struct block_ref *hint, struct reads *reads, unsigned int slot, struct tally *tally);
int block_decode(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead, void *raw, uint64_t bytes);
int batch_run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t count);
/*
 * Result of a read, after a check that the block is still that of the index: -EAGAIN: it is not;
 * -EBADMSG: bad.
 */
int read_judge(struct region *r, const struct block_ref *found, int rc);
/* Count a look-up of `n` keys that began at `began`. */
void block_count_lookups(struct speckv_pool *pool, uint64_t n, uint64_t hits, uint64_t began);

/* ---- attach.c: this process as a client ----------------------------------------------------- */

/* a manager: no tenant of its own, no events of attach and detach */
#define ATTACH_MANAGER (1u << 30)
/* do not reap dead clients: check counts them first */
#define ATTACH_KEEP_DEAD (1u << 31)
/* speckv_pool_open(), with the flags above. */
int pool_attach(struct speckv_device *dev, const char *name, const struct speckv_attach *attach,
	struct speckv_pool **out);
/*
 * Every client holds the pool's lock byte shared. An index is rebuilt, or a pool marked as closed,
 * only under the exclusive lock: no client is attached, and none can attach. Text set.
 */
int client_join(struct speckv_pool *pool, const struct speckv_attach *attach);
void client_leave(struct speckv_pool *pool);

/* ---- staging.c, workers.c ------------------------------------------------------------------- */

void staging_destroy(struct speckv_pool *pool);
/* `first`: the first read of that slot since it was filled. */
bool staging_read(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, uint64_t offset, void *raw, uint64_t bytes, bool *first);
int staging_fill(struct speckv_pool *pool, const struct speckv_key *key);
int staging_make(struct speckv_pool *pool);
void workers_destroy(struct speckv_pool *pool);
/* batch_run() of a put or a get, over the caller and up to `threads` - 1 workers. */
int workers_share(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n, unsigned int threads);
/* Queue the staging of one key; false: the queue is full. */
bool workers_prefetch(struct speckv_pool *pool, const struct speckv_key *key);

#endif

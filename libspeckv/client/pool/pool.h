/* SPDX-License-Identifier: MIT */
/*
 * Blocks in and out of an attached pool, and what keeps it sound: managers, recovery, eviction. For
 * this folder, admin/.
 */
#ifndef SPECKV_CLIENT_POOL_H
#define SPECKV_CLIENT_POOL_H

#include "client/backend/backend.h"

/* ---- manage.c: one manager of a device at a time -------------------------------------------- */

/* take the manager lock, finish what a dead manager left; 0 or -EBUSY... */
int device_manage(struct speckv_device *dev);
int device_inspect(struct speckv_device *dev); /* the lock, and nothing is finished: for dry runs */
/*
 * Finish what a dead manager left, where this process may and no manager lives. Not between
 * device_manage() and device_unmanage().
 */
bool device_settle(struct speckv_device *dev);
void device_unmanage(struct speckv_device *dev);

/* ---- size.c: the claim to a pool's size: a lock that its clients see and can take over ------ */

int resize_begin(struct region *region); /* 0, or -EAGAIN: another holds it */
void resize_end(struct region *region);
/*
 * What a shrink that did not finish leaves: its limit on claims and its retired pages. Between
 * resize_begin() and resize_end().
 */
void resize_undo(struct region *region);
/* A client was kept from claiming by a shrink: if its manager died, undo it. True: look again. */
bool resize_abandoned(struct speckv_pool *pool);
/*
 * The size, in pages, that a resize from `before` whose manager died ends at: the header's, or
 * `before` where clients hold pages above the header's.
 */
uint64_t resize_ends_at(struct region *region, uint64_t before);
int resize_store(struct region *region, uint64_t pages); /* into the header, and to the medium */

/* ---- recover.c: what the dead leave --------------------------------------------------------- */

/* Take back what dead clients held. Returns how many dead clients there were. */
int clients_reap(struct speckv_pool *pool, uint64_t *pages_back);
/* What a client that died in pages_switch() began: end it. */
void client_finish_move(struct region *region, unsigned int slot, uint64_t incarnation);
/*
 * Give back what the dead client of this slot and state held; the caller keeps others from the
 * slot. True: a client was, and is settled.
 */
bool client_reap(struct region *r, unsigned int slot, uint64_t state, uint64_t *back);
/* After client_reap(): index what the dead published, count again. `back`: pages that came back. */
void clients_reaped(struct speckv_pool *pool, uint64_t back);
/*
 * Give back every run that client `slot` of this incarnation holds. False: not all, a card does not
 * answer.
 */
bool client_sweep(struct region *r, unsigned int slot, uint64_t incarnation, bool dead,
	uint64_t *back);
/*
 * Rebuild the index from page map and frame headers; no client may be attached. What an entry knows
 * beyond its frame is kept. -ENODEV, -EACCES: the card does not answer, and nothing is known of the
 * rest, which stays as it is.
 */
int region_rebuild(struct region *region, uint64_t *kept, uint64_t *lost);
/* Is this run a sound frame of this pool in this place? `deep` verifies every section. */
int frame_sound(struct region *region, uint64_t page, uint32_t pages, uint64_t generation,
	bool deep, struct speckv_frame *frame);
/* Is the run of this head word unbroken, with sound pages behind it? */
bool frame_run_whole(struct region *r, uint64_t page, uint64_t word, uint64_t pages);
/* The tenant that is charged for a block: as its frame says, where that is a tenant still. */
uint32_t frame_tenant(struct region *r, const struct speckv_frame *frame);

/* ---- evict.c: leaves of the prefix tree, the least recently used first; room for a claim ---- */

/* Claim `pages` in a row. 0, -ENOSPC, -EDQUOT. Evicts as the pool's policy says. */
int pages_claim(struct speckv_pool *pool, uint32_t pages, struct run *run, uint64_t below);
/*
 * None may go, or the one that was to go could not; another thread or process changed what was
 * chosen first, so look again; done.
 */
enum evicted { EVICT_NONE, EVICT_LOST, EVICT_DONE };
/*
 * Make a window of n pages below `limit` by dropping its blocks, if they were all last used before
 * tick `older_than`.
 */
enum evicted pages_evict(struct speckv_pool *pool, uint32_t pages, uint64_t limit,
	uint64_t older_than);
/* Drop one block below `limit`, of this tenant (below 0: of any). */
enum evicted evict_one(struct speckv_pool *pool, uint64_t limit, int tenant);
/*
 * No prefix look-up reaches this block, whose parent is not stored: it is the first to go, until it
 * is used again.
 */
void evict_orphan(struct speckv_pool *pool, const struct block_ref *found);

/* ---- drop.c, read.c, blocks.c --------------------------------------------------------------- */

/* Drop a found block. True if this call did it. */
bool block_drop(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found);
/*
 * Two puts of one key at once may both publish. A process that sees that drops all but the
 * youngest.
 */
void settle_twins(struct speckv_pool *pool, const struct speckv_key *key);
/* Index a published block that is not, and settle its twins. */
int block_index(struct speckv_pool *pool, const struct speckv_key *key, const struct run *run);
/* Does a look-up find this very run? */
bool block_indexed(struct region *region, const struct speckv_key *key, const struct run *run);
int block_put(struct speckv_pool *pool, struct speckv_request *request, uint64_t tick);
/* Link a stored block that has no parent yet to its own, if that is stored. */
void block_adopt(struct speckv_pool *pool, const struct speckv_request *request);
/* What the gets of a batch came to. Every block wanted is a hit or a miss. */
struct tally {
	uint64_t tick; /* of the next block */
	uint64_t hits, misses, bad, staged, raw, stored;
};
/* `reads`, `slot`: where a read of the hint may be under way; NULL: none is. */
int block_get(struct speckv_pool *pool, struct speckv_request *request,
	const struct block_ref *hint, struct reads *reads, unsigned int slot, struct tally *tally);
int block_decode(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead, void *raw, uint64_t bytes);
int batch_run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t count);
/* What the result of a read says of a block that the index has. */
int read_judge(struct region *r, const struct block_ref *found, int rc);
/* Counts of a look-up of `n` keys that began then. */
void block_count_lookups(struct speckv_pool *pool, uint64_t n, uint64_t hits, uint64_t began);

/* ---- attach.c: this process as a client ----------------------------------------------------- */

/* a manager at work: no tenant of its own, nothing in the event log */
#define ATTACH_MANAGER (1u << 30)
/* leave what dead clients hold as it is: check counts it first */
#define ATTACH_KEEP_DEAD (1u << 31)
/* speckv_pool_open() with the flags above too. */
int pool_attach(struct speckv_device *dev, const char *name, const struct speckv_attach *attach,
	struct speckv_pool **out);
/*
 * Every client holds the pool's lock byte shared. Only where it is had alone, so that no client
 * lives and none comes meanwhile, is an index rebuilt, or a pool marked as closed. Text set.
 */
int client_join(struct speckv_pool *pool, const struct speckv_attach *attach);
void client_leave(struct speckv_pool *pool);

/* ---- staging.c, workers.c ------------------------------------------------------------------- */

void staging_destroy(struct speckv_pool *pool);
/* `first`: nothing was read from that slot before. */
bool staging_read(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, uint64_t offset, void *raw, uint64_t bytes, bool *first);
int staging_fill(struct speckv_pool *pool, const struct speckv_key *key);
int staging_make(struct speckv_pool *pool);
void workers_destroy(struct speckv_pool *pool);
/* batch_run() of a put or a get over the caller and as many workers as make `threads`. */
int workers_share(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n, unsigned int threads);
/* Queue the staging of one key; false when the queue is full. */
bool workers_prefetch(struct speckv_pool *pool, const struct speckv_key *key);

#endif

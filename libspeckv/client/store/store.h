/* SPDX-License-Identifier: MIT */
/*
 * A device and its pools as they lie on their medium: media, tables, locks, mapped pools, pages,
 * index, counters. Nothing here knows how a block is encoded. For this folder, backend/, pool/ and
 * admin/.
 */
#ifndef SPECKV_CLIENT_STORE_H
#define SPECKV_CLIENT_STORE_H

#include "base/base.h"
#include "operations.h"
#include "layout.h"
#include "base/fork.h"

/* ---- medium.c: what lies at a device name --------------------------------------------------- */

struct medium {
	char name[SPECKV_NAME_BYTES * 4];
	char path[SPECKV_PATH_BYTES]; /* of the superblock's inode; empty: there is nothing */
	const struct device_backend *backend;
	bool runtime; /* lies in the runtime folder */
	bool node; /* a device node (devdax) */
	int numa_node; /* -1: none */
	uint64_t node_bytes; /* size of a device node */
	bool named; /* the device has a uuid of its own, and its table that: */
	uint8_t uuid[SPECKV_UUID_BYTES];
};
/* Of host:DRAM, host:numaN, host:/path. The backend is the caller's to set. */
int medium_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
/* What lies at its path. */
int medium_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info);
/*
 * 1: made by this call; 0: what is there now is not, look again. `format`: overwrite what was found
 * and is of no use.
 */
int medium_make(struct speckv_ctx *ctx, const struct medium *medium, bool format);
uint32_t medium_super_crc(const struct lay_superblock *super);
/* Is a copy of a superblock what was written there? */
bool medium_super_sound(const struct lay_superblock *super);
/*
 * Can what lies there be overwritten as a medium of fixed size, and how large would that be? Its
 * descriptor; nothing is changed. Text set.
 */
int medium_format_check(struct speckv_ctx *ctx, const struct medium *medium, uint64_t *bytes);
/*
 * The folder of the superblock's inode, and that inode in it: a descriptor. Errors: those of
 * folder.h.
 */
int medium_folder(struct speckv_ctx *ctx, const struct medium *medium, unsigned int flags,
	struct folder *out);
int medium_open(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	int flags);
/* The folder of pools that are files of their own. */
int medium_pools(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	unsigned int flags, struct folder *out);
int medium_pool_path(const struct medium *medium, const char *pool, char path[SPECKV_PATH_BYTES]);

/* ---- space.c: room that a medium still has -------------------------------------------------- */

/* medium_room.c. Free memory or disk that the medium's file system can still give; all of it. */
uint64_t medium_available(const struct medium *medium);
uint64_t medium_total(const struct medium *medium);
/* Inodes that its file system can still give; the largest number where it counts none. */
uint64_t medium_inodes(const struct medium *medium);
bool medium_read_only(const struct medium *medium);
/* -EFBIG, text set, where this process may not make a file so long. */
int file_size_check(struct speckv_ctx *ctx, const char *path, uint64_t bytes, const char *else_do);
int medium_bind(int numa_node, void *address, uint64_t bytes);

/* ---- register.c: media that do not lie in the runtime folder are remembered there ----------- */

/* medium_find.c: media that do not lie in the runtime folder are remembered there. */
int medium_register(struct speckv_ctx *ctx, const struct medium *medium);
void medium_unregister(struct speckv_ctx *ctx, const struct medium *medium);

/* ---- table.c: a device and the records of its pools ----------------------------------------- */

struct speckv_device {
	struct speckv_ctx *ctx;
	struct medium medium;
	struct folder folder; /* that holds the table */
	int fd; /* of the mapping */
	int lock_fd; /* of the locks: an open file description of its own; the guard's */
	bool writable;
	struct lay_device *table; /* the guard's */
	_Atomic uint32_t lost; /* as a region's */
	/* private copies, as judged at open: the table may change under us */
	bool single_inode, made_file;
	uint32_t durability;
	uint64_t medium_bytes;
	uint8_t uuid[SPECKV_UUID_BYTES];
	uid_t owner; /* of the table */
	/* pools, by record, whose manager's slot a thread of this handle holds */
	_Atomic uint64_t manager_slots;
	uint32_t codec_modes; /* that the device encodes itself */
	void *managed; /* the backend's, between device_manage() and device_unmanage() */
	/*
	 * the records that the last device_manage() finished for a dead manager, or that it would,
	 * while inspected
	 */
	uint64_t settled;
	/*
	 * while inspected, of a record that the next manager finishes: 0: all; RECORD_GONE; bytes
	 * of its extents
	 */
	_Atomic uint64_t left[LAY_POOLS];
	struct fork_guard guard, locks; /* of the table; of the locks */
	pthread_mutex_t managing; /* OFD locks do not exclude threads of one descriptor */
};
/*
 * 0, -EOWNERDEAD in a forked child, -ESTALE where the device's name leads to another table (or
 * none) by now. Makes system calls.
 */
int device_usable(struct speckv_device *dev);
/*
 * The reason why a pool that is neither there nor gone cannot be used: who is at it (-EBUSY), or
 * what ends it (-EUCLEAN). Text set.
 */
int device_between(struct speckv_device *dev, const char *name);
/* Copy of the record named so; its number or -ENOENT (text set) */
/* the same, and no text: a question */
int device_look(struct speckv_device *dev, const char *name, struct lay_pool_record *copy);
int device_find(struct speckv_device *dev, const char *name, struct lay_pool_record *copy);
bool record_sane(const struct speckv_device *dev, const struct lay_pool_record *record);
/* Keep the first `bytes` of a pool's extents. */
void extents_cut(struct lay_pool_record *record, uint64_t bytes);
#define RECORD_GONE 1
/*
 * A private copy of a record, as the next manager leaves it where the device is inspected. False:
 * it is free.
 */
bool record_copy(const struct speckv_device *dev, int number, struct lay_pool_record *copy);
/* The first unit of a single inode that is not the table's. */
#define DEVICE_TABLE_END ((sizeof(struct lay_device) + LAY_UNIT - 1) & ~(LAY_UNIT - 1))
int device_extent_alloc(struct speckv_device *dev, uint64_t bytes, struct lay_extent *out);
uint64_t device_largest_free(struct speckv_device *dev, uint64_t *total_free);
/* A record's name: a private copy, as others may write the medium. */
const char *record_name(const struct lay_pool_record *record, char name[SPECKV_NAME_BYTES]);
/* 0, or -ESTALE, text set: the name in that folder leads to another table. */
int device_table_current(struct speckv_device *dev, const struct folder *in);

/* ---- lockfiles.c: the files that hold the locks of a device and of its pools ---------------- */

/* May this user manage the device, as far as files say? */
bool device_may_manage(const struct speckv_device *dev);
/*
 * Open what holds a manager's locks, for a user who may manage: a file in the folder of pools, or
 * the single inode itself. It is the guard's. Text set.
 */
int device_lock_guard(struct speckv_device *dev);
/* Take the manager's lock, in the file that others find too. -EAGAIN: held. */
int device_lock(struct speckv_device *dev);
/* ".UUID.suffix": names in the folder of pools that no pool can have. */
void pool_hidden_name(const struct lay_pool_record *record, const char *suffix, char name[48]);
/* The file of a pool's locks: for those who may read and write the pool. */
mode_t pool_lock_mode(mode_t pool_mode);
int pool_lock_make(const struct folder *pools, const struct lay_pool_record *record);
/*
 * What the file of a pool, or of its locks, may be: as writable as the record says; of any user in
 * a folder of root or of this user, as only root gives files away there, and a record follows its
 * file.
 */
struct file_rule pool_file_rule(const struct folder *pools, const char *name,
	const struct lay_pool_record *record);
/*
 * Has a file the owner and group of a record, and this mode? Give it those; they reach the medium.
 */
bool pool_file_owned(const struct stat *st, const struct lay_pool_record *record, mode_t mode);
int pool_file_own(int fd, const struct lay_pool_record *record, mode_t mode);
/* Where they lie, for texts; returns `path`. */
const char *pool_lock_path(const struct region *region, char path[SPECKV_PATH_BYTES]);
/* -ENOLCK: it is gone. Not writable: -1 where this user may not open it. */
int pool_lock_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, bool writable);
/* Is the file of locks another than the pool's file says? */
bool pool_lock_differs(const struct folder *pools, const char *name, const struct stat *file);

/* ---- region.c: a mapped pool ---------------------------------------------------------------- */

struct region {
	/* private copies of what does not change; shared memory is not trusted after open */
	struct lay_pool fixed;
	/* of the record: which calibration the pool's frames name */
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	/* NULL: none, or not loaded: managers need none */
	struct speckv_calibration *calibration;
	struct speckv_device *dev;
	int record;
	int fd, lock_fd;
	/*
	 * of the client that this mapping serves; -1: none. A lock of one's own is invisible to
	 * F_OFD_GETLK
	 */
	int own_slot;
	uint8_t *base;
	uint64_t mapped_bytes;
	struct lay_extent mapped[LAY_EXTENTS]; /* single inode: what lies end to end from `base` */
	char path[SPECKV_PATH_BYTES];
	struct lay_pool_head *head;
	struct lay_bucket *directory;
	_Atomic uint64_t *page_map;
	struct lay_entry *entries;
	uint8_t *data; /* NULL: the bytes lie in the device */
	const struct pool_backend *backend;
	void *io; /* the backend's */
	uint32_t page_bytes, page_shift, min_run;
	/* its file is gone or was cut: nothing stored here is found by others */
	_Atomic uint32_t lost;
	bool writable, durable;
	_Atomic bool gone; /* seen to be no more, or another pool */
	/* data pages that are mapped here: never above the header's, nor max_pages */
	_Atomic uint64_t pages;
	_Atomic uint64_t size_sequence;
	_Atomic uint64_t looked_ns;
	_Atomic uint64_t flushes_failed, flush_event_ns;
	pthread_mutex_t remap;
	/* threads of one descriptor do not exclude each other by its locks */
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
/* How long its file is; how much of it is backed at once. */
uint64_t region_file_bytes(const struct speckv_device *dev, const struct region_plan *plan);
uint64_t region_backing_bytes(const struct speckv_device *dev, const struct region_plan *plan);
/* `record`: a private copy: what is shared may change meanwhile. */
int region_make(struct speckv_device *dev, const struct lay_pool_record *record,
	const struct speckv_pool_config *config, const struct region_plan *plan);
/* Reserve what is used now, so that a later write can never meet a full file system (SIGBUS). */
int region_reserve(int fd, uint64_t offset, uint64_t bytes);
uint32_t region_head_crc(const struct lay_pool *head);
/*
 * Is this copy of a header one of this record's pool, with offsets and sizes that fit each other?
 */
bool region_head_sane(const struct lay_pool *head, const struct lay_pool_record *record);
/* The pool's file, owned and writable as its record says. */
int region_file_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, int flags);
/*
 * Does the file hold this record's pool, or nothing at all? What was cut short or damaged behind
 * its uuid is that pool still.
 */
bool region_file_of(int fd, const struct lay_pool_record *record);
/* The record that a pool's file says it had. Text set where it is no whole pool of that name. */
int region_left(struct speckv_device *dev, const struct folder *pools, const char *name,
	struct lay_pool_record *record);
int region_open(struct speckv_device *dev, const char *name, bool writable, struct region *region);
/*
 * Under the manager's lock, which keeps the record's state: what there is of the pool, to write it.
 */
int region_open_managed(struct speckv_device *dev, const char *name, struct region *region);
/* Does this error of it say that there is no pool to be in use? Any other: that cannot be told. */
bool region_useless(int rc);
void region_close(struct region *region);
/*
 * Remove the file of a record's pool, or what there is of it; 0 too where there is none. -EEXIST: a
 * file that is not that pool's lies there. `dry_run`: only see whether it could be.
 */
int region_remove(struct speckv_device *dev, const struct lay_pool_record *record, bool dry_run);
/* Tell who has it mapped that this pool is no more. Its data may be another pool's next. */
void region_end(struct region *region);
/* Is this still the pool of its record, and neither being made nor removed? */
bool region_there(struct region *region);
int region_grow_backing(struct region *region, uint64_t old_pages, uint64_t new_pages,
	const struct lay_pool_record *record);
void region_release_backing(struct region *region, uint64_t from_page, uint64_t to_page);
/* Pages in use now; follows a resize by another process. */
uint64_t region_pages(struct region *region);
/*
 * Was the pool resized since this mapping last followed? What was found or claimed meanwhile may
 * lie elsewhere.
 */
static inline bool region_stale(struct region *r)
{
	return load_acquire(&r->head->pool.size_sequence) != load_relaxed(&r->size_sequence);
}
/*
 * Uses are ordered by ticks of a counter in the medium, not by a time: no clock that is set, no
 * reboot and no time namespace turns them round. A batch takes its ticks at once, and its first
 * block the latest: it is the nearest to the root of a chain.
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
 * A tick that was found while no other client is attached: the counter goes on behind it, as it may
 * have been written back before.
 */
static inline uint64_t use_seen(struct region *r, uint64_t tick)
{
	if (tick >> 63) /* no pool was used that often: damage */
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
	/* cold paths: workers and staging are made, parameters, reaping, list of allocations */
	pthread_mutex_t lock;
	struct speckv_mem *allocations;
	_Atomic uint32_t prefetch_depth, codec, verify, threads;
	/* when this client last did so: no more than once a second */
	_Atomic uint64_t reaped_ns, full_event_ns;
	/* when it last looked whether a shrink's manager lives */
	_Atomic uint64_t shrink_seen_ns;
	/* the last search that found no run: not repeated until something was freed */
	_Atomic uint64_t failed_freed, failed_run;
	/* links to blocks worth a look at the next eviction: see evict.c */
	_Atomic uint64_t evict_parent, evict_orphan;
	struct workers *_Atomic workers;
	struct staging *_Atomic staging;
};
int pool_usable(struct speckv_pool *pool, bool write);
/*
 * -ESTALE, text set, where its file is gone or was cut: as region_lost(), once a call or a batch.
 */
int pool_there(struct speckv_pool *pool);
/*
 * -ESTALE where the file was seen to go before or while this call ran: what it stored no other
 * process finds, what it read may be empty memory.
 */
int pool_lost_text(struct speckv_pool *pool);
static inline int pool_unless_lost(struct speckv_pool *pool, int result)
{
	return __builtin_expect(load_relaxed(&pool->region.lost), 0) ? pool_lost_text(pool)
								     : result;
}

/* ---- durable.c ------------------------------------------------------------------------------ */

/*
 * Nothing that must survive a power loss is acknowledged before its flush returned 0. On media that
 * do not survive one they do nothing.
 */
int medium_flush(const struct medium *medium, const void *address, uint64_t bytes);
int region_flush(struct region *region, const void *address, uint64_t bytes);
/* All that stands before the data, on whatever medium. */
int region_flush_tables(struct region *region);
int device_flush(struct speckv_device *dev); /* the table; text set */

/* ---- lost.c --------------------------------------------------------------------------------- */

/*
 * Watch a mapping of a file, for as long as it is mapped: `lost` is set where the file does not
 * reach as far any more.
 */
void lost_watch(void *base, uint64_t bytes, _Atomic uint32_t *lost);
void lost_forget(const void *base);
/* Is the pool's file gone or cut? Looks, with one system call, once a second at most. */
bool region_lost(struct region *region);
bool region_look(struct region *region, uint64_t now);

/* ---- clients.c: which clients of a pool live ------------------------------------------------ */

/* of a millisecond: for a client that has its slot's lock to enter itself there */
#define CLIENT_JOIN_TRIES 200
/* 1: a live client holds the slot, or that cannot be told; 0: none does. */
int client_alive(struct region *region, unsigned int slot);
void client_holders(struct region *region, int except_slot, char *text, size_t bytes,
	unsigned int *count);
/* The byte of the pool's file of locks that shows that the client of a slot lives. */
long long client_byte(struct region *r, unsigned int slot);
/* A manager that no lock in the pool's file shows. `state`: of its slot. */
bool client_unseen(struct region *r, unsigned int slot, uint64_t state);
/*
 * A manager that removes a pool keeps new clients out, looks for those that are in, and then calls
 * region_end(). If it died before that, the pool is as it was (true). True too where that cannot be
 * told: this record is not to be finished now.
 */
bool removal_undone(struct speckv_device *dev, struct lay_pool_record *record);

/* ---- pages.c -------------------------------------------------------------------------------- */

/* Exactly this place: false where it is not free. */
bool pages_claim_at(struct speckv_pool *pool, uint64_t page, uint32_t pages, struct run *run);
void pages_trim(struct speckv_pool *pool, struct run *run, uint32_t pages);
/* Errors: -EOWNERDEAD, or what kept it from the medium. The run is not held any more then. */
int pages_publish(struct speckv_pool *pool, const struct run *run);
void pages_release(struct region *region, uint32_t owner, const struct run *run);
/* Instead of a release: memory behind a claimed run went bad, and no client may have it. */
void pages_retire(struct speckv_pool *pool, const struct run *run);
/*
 * HEAD -> claimed by this client. True for exactly one caller; false, too, where that did not reach
 * the medium: the block is as it was.
 */
bool pages_unpublish(struct speckv_pool *pool, const struct run *run);
/*
 * Move a block: `from` is published, `to` is a claimed copy of it with its entry filled. The one
 * step that decides is from's word: where another process dropped the block before it, or the copy
 * is not held any more, the copy never shows (false). Between move_begin() and move_end() readers
 * that miss the key wait for it, and a death is settled by the reaper of this client.
 */
int move_begin(struct speckv_pool *pool, const struct block_ref *from, const struct run *to);
bool pages_switch(struct speckv_pool *pool, const struct run *from, const struct run *to);
/*
 * Both words to the medium. Where that fails they are as they were before the switch: `to` is
 * claimed, `from` is the block.
 */
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
 * A run of `n` pages below `limit` out of the hints; by a scan of [from, to). False: none was free.
 */
bool pages_claim_hint(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit);
bool pages_claim_scan(struct speckv_pool *pool, uint64_t from, uint64_t to, uint32_t n,
	struct run *run);
/* Does a client hold pages in [mark, end)? */
bool pages_claimed_above(struct region *r, uint64_t mark, uint64_t end);
/* Start of the run that crosses or stands above the mark first. */
uint64_t pages_first_above(struct region *r, uint64_t mark);
/* Retired pages in [from, to) are free again. */
void pages_unretire(struct region *r, uint64_t from, uint64_t to);

/* ---- index.c, tree.c ------------------------------------------------------------------------ */

uint64_t key_hash(const struct region *region, const struct speckv_key *key);
bool index_find(struct region *region, const struct speckv_key *key, struct block_ref *out);
/*
 * Every published block of this key (two only while two puts of it race); `out` has 2 *
 * LAY_BUCKET_SLOTS places.
 */
size_t index_find_all(struct region *region, const struct speckv_key *key, struct block_ref *out);
/* Is this still the published run it was, and may it be found? */
bool index_current(struct region *region, const struct block_ref *found);
/*
 * A card was told to forget this block and its answer was lost. No look-up finds it from now on; it
 * goes when it is evicted (the first to be), when its key is dropped or put again, or when a check
 * repairs. Call index_doubt() between pages_unpublish() and pages_publish().
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
/* A link of the tree: which entry, and of which block. */
static inline uint64_t index_link(const struct block_ref *found)
{
	return (found->entry + 1) << 32 | (uint32_t)found->generation;
}
/* Is the block linked to a parent that is stored? The link to it, whatever it is worth. */
bool index_adopted(struct region *region, const struct block_ref *child);
uint64_t index_parent(struct region *region, const struct block_ref *child);
/* Head page of the block that a link names, if that is still it. */
bool index_link_page(struct region *region, uint64_t link, uint64_t *page);
/*
 * Head page of a stored child of the block of `entry` that lies outside of [start, end), and is the
 * tenant's (below 0: anyone's): of the first few the one used longest ago.
 */
bool index_child(struct region *region, uint64_t entry, uint64_t start, uint64_t end, int tenant,
	uint64_t *page);
/*
 * The block before these siblings (a link to the first) is gone: no prefix look-up reaches them,
 * and they are the first to be evicted until they are used again. False: none is stored.
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

/* Is this a calibration for such a pool? Its digest. Text set. */
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

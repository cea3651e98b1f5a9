/* SPDX-License-Identifier: MIT */
/* What the files of client/ share. Nothing here is seen outside libspeckv. */
#ifndef SPECKV_CLIENT_INTERNAL_H
#define SPECKV_CLIENT_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <speckv/speckv.h>

#include "folder.h"
#include "layout.h"
#include "transport/fork.h"

#define load(p) atomic_load_explicit((p), memory_order_acquire)
#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define store(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define sub(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_relaxed)

struct region;

/* ---- ctx.c -------------------------------------------------------------------------------------------------------- */

struct speckv_ctx {
	char runtime_dir[SPECKV_PATH_BYTES];
	bool runtime_named; /* by SPECKV_RUNTIME_DIR: this user's choice, not the library's */
};

/* Record the error text of this thread. The value is `code`: a macro, so that static analysis sees it. */
#define fail(ctx, code, ...)                               \
	__extension__({                                    \
		int fail_code_ = (code);                   \
		fail_text((ctx), __VA_ARGS__);             \
		fail_code_;                                \
	})
void fail_text(struct speckv_ctx *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t now_ns(void);          /* CLOCK_REALTIME: stamps that people read, and nothing else */
uint64_t clock_ns(void);        /* CLOCK_MONOTONIC, for intervals */
int random_bytes(void *buffer, size_t bytes);
void own_command(char command[64]); /* the program's name, without arguments: those may hold secrets, and say little */
bool name_ok(const char *name);
/* Which boot of the machine this is, as far as this process can see it: all zero where it cannot. Containers may have their own. */
void boot_id(uint8_t id[16]);
/* "1.5 GiB" into a buffer of 32; returns it. */
const char *human(char buffer[32], uint64_t bytes);

/* ---- medium.c: what lies at a device name ------------------------------------------------------------------------- */

struct medium {
	char name[SPECKV_NAME_BYTES * 4];
	char path[SPECKV_PATH_BYTES]; /* of the superblock's inode */
	bool runtime;                 /* lies in the runtime folder */
	bool node;                    /* a device node (devdax) */
	bool card;                    /* path: this machine's table of a card's pools */
	int numa_node;                /* -1: none */
	uint64_t node_bytes;          /* size of a device node */
};
int medium_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
int medium_probe(struct speckv_ctx *ctx, const struct medium *medium, struct speckv_device_info *info);
/* 1: made by this call; 0: what is there now is not, look again. `format`: overwrite what was found and is of no use. */
int medium_make(struct speckv_ctx *ctx, const struct medium *medium, bool format);
/* Is a copy of a superblock what was written there? */
bool medium_super_sound(const struct lay_superblock *super);
/* Can what lies there be overwritten as a medium of fixed size, and how large would that be? Its descriptor; nothing is changed. Text set. */
int medium_format_check(struct speckv_ctx *ctx, const struct medium *medium, uint64_t *bytes);
/* Why what was found there is not used as it is; 0 where it is ready. Text set. */
int medium_refuse(struct speckv_ctx *ctx, const struct medium *medium, const struct speckv_device_info *info);
/* The folder of the superblock's inode, and that inode in it: a descriptor. Errors: those of folder.h. */
int medium_folder(struct speckv_ctx *ctx, const struct medium *medium, unsigned int flags, struct folder *out);
int medium_open(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, int flags);
/* The folder of pools that are files of their own. */
int medium_pools(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, unsigned int flags, struct folder *out);
int medium_pool_path(const struct medium *medium, const char *pool, char path[SPECKV_PATH_BYTES]);
/* This machine's folder of emulated cards, of tables of cards, or of media at paths, in the runtime folder. */
int runtime_folder(struct speckv_ctx *ctx, const char *name, unsigned int flags, struct folder *out);

/* medium_room.c. Free memory or disk that the medium's file system can still give; all of it. */
uint64_t medium_available(const struct medium *medium);
uint64_t medium_total(const struct medium *medium);
/* Inodes that its file system can still give; the largest number where it counts none. */
uint64_t medium_inodes(const struct medium *medium);
bool medium_read_only(const struct medium *medium);
#define SPACE_WORDS 200
/* Why a file could not be made or grown, in words with both numbers; `fd`: of anything in its file system, `want`: bytes, 0 where few. */
const char *space_words(char text[SPACE_WORDS], int fd, uint64_t want, int error);
/* -EFBIG, text set, where this process may not make a file so long. */
int file_size_check(struct speckv_ctx *ctx, const char *path, uint64_t bytes, const char *else_do);
int medium_bind(int numa_node, void *address, uint64_t bytes);

/* medium_find.c: media that do not lie in the runtime folder are remembered there. */
int medium_register(struct speckv_ctx *ctx, const struct medium *medium);
void medium_unregister(struct speckv_ctx *ctx, const struct medium *medium);

/* ---- device.c ----------------------------------------------------------------------------------------------------- */

struct speckv_device {
	struct speckv_ctx *ctx;
	struct medium medium;
	struct folder folder; /* that holds the table */
	int fd;               /* of the mapping */
	int lock_fd; /* of the locks: an open file description of its own; the guard's */
	bool writable;
	struct lay_device *table; /* the guard's */
	_Atomic uint32_t lost;    /* as a region's */
	/* private copies, as judged at open: the table may change under us */
	bool single_inode, made_file;
	uint32_t durability;
	uint64_t medium_bytes;
	uint8_t uuid[SPECKV_UUID_BYTES];
	uid_t owner;                     /* of the table */
	_Atomic uint64_t manager_slots;  /* pools, by record, whose manager's slot a thread of this handle holds */
	uint32_t codec_modes;     /* of a card */
	struct card_admin *admin; /* a card's, while it is being managed */
	uint64_t settled;         /* the records that the last device_manage() finished for a dead manager, or that it would, while inspected */
	_Atomic uint64_t left[LAY_POOLS]; /* while inspected, of a record that the next manager finishes: 0: all; RECORD_GONE; bytes of its extents */
	struct fork_guard guard, locks; /* of the table; of the locks */
	pthread_mutex_t managing; /* OFD locks do not exclude threads of one descriptor */
};

/* 0, -EOWNERDEAD in a forked child, -ESTALE where the device's name leads to another table (or none) by now. Makes system calls. */
int device_usable(struct speckv_device *dev);
int device_manage(struct speckv_device *dev); /* take the manager lock, finish what a dead manager left; 0 or -EBUSY... */
int device_inspect(struct speckv_device *dev); /* the lock, and nothing is finished: for dry runs */
/* Finish what a dead manager left, where this process may and no manager lives. Not between device_manage() and device_unmanage(). */
bool device_settle(struct speckv_device *dev);
/* The reason why a pool that is neither there nor gone cannot be used: who is at it (-EBUSY), or what ends it (-EUCLEAN). Text set. */
int device_between(struct speckv_device *dev, const char *name);
void device_unmanage(struct speckv_device *dev);
/* Copy of the record named so; its number or -ENOENT (text set) */
int device_look(struct speckv_device *dev, const char *name, struct lay_pool_record *copy); /* the same, and no text: a question */
int device_find(struct speckv_device *dev, const char *name, struct lay_pool_record *copy);
bool record_sane(const struct speckv_device *dev, const struct lay_pool_record *record);
/*
 * A manager that removes a pool keeps new clients out, looks for those that are in, and then calls region_end(). If it died before that, the
 * pool is as it was (true). True too where that cannot be told: this record is not to be finished now.
 */
bool removal_undone(struct speckv_device *dev, struct lay_pool_record *record);
/* Keep the first `bytes` of a pool's extents. */
void extents_cut(struct lay_pool_record *record, uint64_t bytes);
#define RECORD_GONE 1
/* A private copy of a record, as the next manager leaves it where the device is inspected. False: it is free. */
bool record_copy(const struct speckv_device *dev, int number, struct lay_pool_record *copy);
/* The first unit of a single inode that is not the table's. */
#define DEVICE_TABLE_END ((sizeof(struct lay_device) + LAY_UNIT - 1) & ~(LAY_UNIT - 1))
int device_extent_alloc(struct speckv_device *dev, uint64_t bytes, struct lay_extent *out);
uint64_t device_largest_free(struct speckv_device *dev, uint64_t *total_free);

/* adopt.c: make records of the pools whose files are there and that no record names. */
int device_adopt(struct speckv_device *dev);
/* Remove drafts and locks of pools that no record names and no process uses; under the manager's lock. */
void pools_tidy(struct speckv_device *dev, const struct folder *pools);

/* ---- locks.c ------------------------------------------------------------------------------------------------------ */

int lock_byte(int fd, long long byte);             /* 0 or -EAGAIN... */
int lock_byte_shared(int fd, long long byte);      /* the same, with others; turns one's own lock into a shared one */
int lock_holder(int fd, long long byte, int *pid); /* 1 held by another, or not to be told; 0 free */
/* Held by another with a shared lock, for which permission to read is enough? */
bool lock_shared(int fd, long long byte);
int unlock_byte(int fd, long long byte);
/* Permissions of users who may read and not write. */
mode_t readers_only(mode_t mode);
/* May this user manage the device, as far as files say? */
bool device_may_manage(const struct speckv_device *dev);
/* Open what holds a manager's locks, for a user who may manage: a file in the folder of pools, or the single inode itself. It is the guard's. Text set. */
int device_lock_guard(struct speckv_device *dev);
/* Take the manager's lock, in the file that others find too. -EAGAIN: held. */
int device_lock(struct speckv_device *dev);
/* ".UUID.suffix": names in the folder of pools that no pool can have. */
void pool_hidden_name(const struct lay_pool_record *record, const char *suffix, char name[48]);
/* The file of a pool's locks: for those who may read and write the pool. */
mode_t pool_lock_mode(mode_t pool_mode);
int pool_lock_make(const struct folder *pools, const struct lay_pool_record *record);
/* What the file of a pool, or of its locks, may be: as writable as the record says; of any user in a folder of root or of this user, as only root
 * gives files away there, and a record follows its file. */
struct file_rule pool_file_rule(const struct folder *pools, const char *name, const struct lay_pool_record *record);
/* Has a file the owner and group of a record, and this mode? Give it those; they reach the medium. */
bool pool_file_owned(const struct stat *st, const struct lay_pool_record *record, mode_t mode);
int pool_file_own(int fd, const struct lay_pool_record *record, mode_t mode);
/* Where they lie, for texts; returns `path`. */
const char *pool_lock_path(const struct region *region, char path[SPECKV_PATH_BYTES]);
/* -ENOLCK: it is gone. Not writable: -1 where this user may not open it. */
int pool_lock_open(struct speckv_device *dev, const struct folder *pools, const struct lay_pool_record *record, bool writable);
/*
 * Make it again where it is gone, and let it and the record have the owner and mode of the pool's file. 1: done, 0: nothing to do. A client that
 * lives unseen, with locks in the file that is gone, is taken for dead: its blocks stay whole.
 */
int pool_lock_restore(struct speckv_device *dev, const char *pool);

/* ---- region.c: a mapped pool -------------------------------------------------------------------------------------- */

struct region {
	/* private copies of what does not change; shared memory is not trusted after open */
	struct lay_pool fixed;
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES]; /* of the record: which calibration the pool's frames name */
	struct speckv_calibration *calibration;          /* NULL: none, or not loaded: managers need none */
	struct speckv_device *dev;
	int record;
	int fd, lock_fd;
	int own_slot; /* of the client that this mapping serves; -1: none. A lock of one's own is invisible to F_OFD_GETLK */
	uint8_t *base;
	uint64_t mapped_bytes;
	struct lay_extent mapped[LAY_EXTENTS]; /* single inode: what lies end to end from `base` */
	char path[SPECKV_PATH_BYTES];
	struct lay_pool_head *head;
	struct lay_bucket *directory;
	_Atomic uint64_t *page_map;
	struct lay_entry *entries;
	uint8_t *data;        /* NULL: */
	struct card_io *card; /* the bytes lie in a card */
	uint32_t page_bytes, page_shift, min_run;
	bool writable, durable;
	_Atomic uint64_t pages;    /* data pages that are mapped here: never above the header's, nor max_pages */
	_Atomic bool gone;         /* seen to be no more, or another pool */
	_Atomic uint64_t size_sequence;
	_Atomic uint32_t lost; /* its file is gone or was cut: nothing stored here is found by others */
	_Atomic uint64_t looked_ns;
	_Atomic uint64_t flushes_failed, flush_event_ns;
	pthread_mutex_t remap;
	pthread_mutex_t reaping; /* threads of one descriptor do not exclude each other by its locks */
	struct fork_guard guard;
};

struct region_plan {
	uint64_t pages, max_pages, max_entries, buckets;
	uint64_t directory_offset, page_map_offset, entry_offset, calibration_offset, data_offset;
	uint64_t block_bytes, region_bytes, calibration_bytes;
	uint32_t page_bytes, min_run;
	uint64_t capacity_bytes, max_bytes;
};
int region_plan(struct speckv_ctx *ctx, const struct speckv_pool_config *config, bool single, struct region_plan *plan);
/* How long its file is; how much of it is backed at once. */
uint64_t region_file_bytes(const struct speckv_device *dev, const struct region_plan *plan);
uint64_t region_backing_bytes(const struct speckv_device *dev, const struct region_plan *plan);
/* `record`: a private copy: what is shared may change meanwhile. */
int region_make(struct speckv_device *dev, const struct lay_pool_record *record, const struct speckv_pool_config *config, const struct region_plan *plan);
/* The record that a pool's file says it had. Text set where it is no whole pool of that name. */
int region_left(struct speckv_device *dev, const struct folder *pools, const char *name, struct lay_pool_record *record);
int region_open(struct speckv_device *dev, const char *name, bool writable, struct region *region);
/* Under the manager's lock, which keeps the record's state: what there is of the pool, to write it. */
int region_open_managed(struct speckv_device *dev, const char *name, struct region *region);
/* Does this error of it say that there is no pool to be in use? Any other: that cannot be told. */
bool region_useless(int rc);
void region_close(struct region *region);
/* Remove the file of a record's pool, or what there is of it; 0 too where there is none. -EEXIST: a file that is not that pool's lies there.
 * `dry_run`: only see whether it could be. */
int region_remove(struct speckv_device *dev, const struct lay_pool_record *record, bool dry_run);
/* Tell who has it mapped that this pool is no more. Its data may be another pool's next. */
void region_end(struct region *region);
/* Is this still the pool of its record, and neither being made nor removed? */
bool region_there(struct region *region);
int region_grow_backing(struct region *region, uint64_t old_pages, uint64_t new_pages, const struct lay_pool_record *record);
void region_release_backing(struct region *region, uint64_t from_page, uint64_t to_page);
/* Pages in use now; follows a resize by another process. */
uint64_t region_pages(struct region *region);
/* Was the pool resized since this mapping last followed? What was found or claimed meanwhile may lie elsewhere. */
static inline bool region_stale(struct region *r)
{
	return load(&r->head->pool.size_sequence) != load_relaxed(&r->size_sequence);
}
/*
 * Uses are ordered by ticks of a counter in the medium, not by a time: no clock that is set, no reboot and no time namespace turns
 * them round. A batch takes its ticks at once, and its first block the latest: it is the nearest to the root of a chain.
 */
static inline uint64_t use_ticks(struct region *r, uint64_t n)
{
	return add(&r->head->stats.use_clock, n) + n;
}
static inline uint64_t use_tick(struct region *r)
{
	return use_ticks(r, 1);
}
/* A tick that was found while no other client is attached: the counter goes on behind it, as it may have been written back before. */
static inline uint64_t use_seen(struct region *r, uint64_t tick)
{
	if (tick >> 63) /* no pool was used that often: damage */
		return 0;
	if (tick > load(&r->head->stats.use_clock))
		store(&r->head->stats.use_clock, tick);
	return tick;
}
static inline uint64_t region_entry_of(const struct region *r, uint64_t page)
{
	return page / r->min_run;
}

/* ---- durable.c ------------------------------------------------------------------------------------------------------ */

/* Nothing that must survive a power loss is acknowledged before its flush returned 0. On media that do not survive one they do nothing. */
int medium_flush(const struct medium *medium, const void *address, uint64_t bytes);
int region_flush(struct region *region, const void *address, uint64_t bytes);
/* All that stands before the data, on whatever medium. */
int region_flush_tables(struct region *region);
int device_flush(struct speckv_device *dev); /* the table; text set */
/* Names made, renamed and removed in it. */
int folder_flush(const struct folder *folder);

/* ---- lost.c --------------------------------------------------------------------------------------------------------- */

/* Watch a mapping of a file, for as long as it is mapped: `lost` is set where the file does not reach as far any more. */
void lost_watch(void *base, uint64_t bytes, _Atomic uint32_t *lost);
void lost_forget(const void *base);
/* Is the pool's file gone or cut? Looks, with one system call, once a second at most. */
bool region_lost(struct region *region);
bool region_look(struct region *region, uint64_t now);

/* ---- resize.c: the claim to a pool's size, a lock of the pool's inode that its clients can see and, where its holder died, take ------ */

int resize_begin(struct region *region); /* 0, or -EAGAIN: another holds it */
void resize_end(struct region *region);
/* What a shrink that did not finish leaves: its limit on claims and its retired pages. Between resize_begin() and resize_end(). */
void resize_undo(struct region *region);
/* A client was kept from claiming by a shrink: if its manager died, undo it. True: look again. */
bool resize_abandoned(struct speckv_pool *pool);
/* The size, in pages, that a resize from `before` whose manager died ends at: the header's, or `before` where clients hold pages above the header's. */
uint64_t resize_ends_at(struct region *region, uint64_t before);
int resize_store(struct region *region, uint64_t pages); /* into the header, and to the medium */

/* ---- removal.c ------------------------------------------------------------------------------------------------------- */

/* Remove these pools, or none where one of them cannot be. While the device is managed, or inspected for a dry run. */
int pools_remove(struct speckv_device *dev, struct lay_pool_record *const *records, size_t n, bool dry_run, speckv_progress_cb progress, void *arg);

/* ---- attach.c: this process as a client ---------------------------------------------------------------------------- */

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
	pthread_mutex_t lock; /* cold paths: workers and staging are made, parameters, reaping, list of allocations */
	struct speckv_mem *allocations;
	_Atomic uint32_t prefetch_depth, codec, verify, threads;
	_Atomic uint64_t reaped_ns, full_event_ns; /* when this client last did so: no more than once a second */
	_Atomic uint64_t shrink_seen_ns;           /* when it last looked whether a shrink's manager lives */
	_Atomic uint64_t failed_freed, failed_run; /* the last search that found no run: not repeated until something was freed */
	_Atomic uint64_t evict_parent, evict_orphan; /* links to blocks worth a look at the next eviction: see evict.c */
	struct workers *_Atomic workers;
	struct staging *_Atomic staging;
};

#define ATTACH_MANAGER (1u << 30)   /* a manager at work: no tenant of its own, nothing in the event log */
#define ATTACH_KEEP_DEAD (1u << 31) /* leave what dead clients hold as it is: check counts it first */
/* speckv_pool_open() with the flags above too. */
int pool_attach(struct speckv_device *dev, const char *name, const struct speckv_attach *attach, struct speckv_pool **out);
/*
 * Every client holds the pool's lock byte shared. Only where it is had alone, so that no client lives and none comes meanwhile, is an index rebuilt,
 * or a pool marked as closed. Text set.
 */
int client_join(struct speckv_pool *pool, const struct speckv_attach *attach);
void client_leave(struct speckv_pool *pool);
/* 1: a live client holds the slot, or that cannot be told; 0: none does. */
int client_alive(struct region *region, unsigned int slot);
/* Take back what dead clients held. Returns how many dead clients there were. */
int clients_reap(struct speckv_pool *pool, uint64_t *pages_back);
/* What a client that died in pages_switch() began: end it. */
void client_finish_move(struct region *region, unsigned int slot, uint64_t incarnation);
void client_holders(struct region *region, int except_slot, char *text, size_t bytes, unsigned int *count);
int pool_usable(struct speckv_pool *pool, bool write);
/* -ESTALE, text set, where its file is gone or was cut: as region_lost(), once a call or a batch. */
int pool_there(struct speckv_pool *pool);

/* ---- pages.c ------------------------------------------------------------------------------------------------------- */

struct run {
	uint64_t page, generation;
	uint32_t pages;
};
struct found {
	uint64_t entry, generation, page;
	uint32_t pages, frame_bytes, raw_bytes, tenant;
};
/* Claim `pages` in a row. 0, -ENOSPC, -EDQUOT. Evicts as the pool's policy says. */
int pages_claim(struct speckv_pool *pool, uint32_t pages, struct run *run, uint64_t below);
/* Exactly this place: false where it is not free. */
bool pages_claim_at(struct speckv_pool *pool, uint64_t page, uint32_t pages, struct run *run);
void pages_trim(struct speckv_pool *pool, struct run *run, uint32_t pages);
/* Errors: -EOWNERDEAD, or what kept it from the medium. The run is not held any more then. */
int pages_publish(struct speckv_pool *pool, const struct run *run);
void pages_release(struct region *region, uint32_t owner, const struct run *run);
/* Instead of a release: memory behind a claimed run went bad, and no client may have it. */
void pages_retire(struct speckv_pool *pool, const struct run *run);
/* HEAD -> claimed by this client. True for exactly one caller; false, too, where that did not reach the medium: the block is as it was. */
bool pages_unpublish(struct speckv_pool *pool, const struct run *run);
/*
 * Move a block: `from` is published, `to` is a claimed copy of it with its entry filled. The one step that decides is from's word:
 * where another process dropped the block before it, or the copy is not held any more, the copy never shows (false). Between move_begin() and move_end() readers
 * that miss the key wait for it, and a death is settled by the reaper of this client.
 */
int move_begin(struct speckv_pool *pool, const struct found *from, const struct run *to);
bool pages_switch(struct speckv_pool *pool, const struct run *from, const struct run *to);
/* Both words to the medium. Where that fails they are as they were before the switch: `to` is claimed, `from` is the block. */
int move_settle(struct speckv_pool *pool, const struct run *from, const struct run *to);
void move_end(struct speckv_pool *pool);
struct page_census {
	uint64_t used, free, claimed, retired, orphan, blocks, raw_bytes, stored_bytes;
	uint64_t claimed_by[LAY_CLIENTS];
};
void pages_census(struct region *region, struct page_census *census);
void pages_recount(struct region *region);

/* ---- evict.c: leaves of the prefix tree, the least recently used first ------------------------------------------------ */

/* None may go, or the one that was to go could not; another thread or process changed what was chosen first, so look again; done. */
enum evicted { EVICT_NONE, EVICT_LOST, EVICT_DONE };
/* Make a window of n pages below `limit` by dropping its blocks, if they were all last used before tick `older_than`. */
enum evicted pages_evict(struct speckv_pool *pool, uint32_t pages, uint64_t limit, uint64_t older_than);
/* Drop one block below `limit`, of this tenant (below 0: of any). */
enum evicted evict_one(struct speckv_pool *pool, uint64_t limit, int tenant);
/* No prefix look-up reaches this block, whose parent is not stored: it is the first to go, until it is used again. */
void evict_orphan(struct speckv_pool *pool, const struct found *found);
void pages_hint_push(struct region *region, uint64_t page, uint32_t pages);

/* ---- index.c ------------------------------------------------------------------------------------------------------- */

uint64_t key_hash(const struct region *region, const struct speckv_key *key);
bool index_find(struct region *region, const struct speckv_key *key, struct found *out);
/* Every published block of this key (two only while two puts of it race); `out` has 2 * LAY_BUCKET_SLOTS places. */
size_t index_find_all(struct region *region, const struct speckv_key *key, struct found *out);
/* Is this still the published run it was, and may it be found? */
bool index_current(struct region *region, const struct found *found);
/* A card was told to forget this block and its answer was lost. No look-up finds it from now on; it goes when it is evicted (the first to
 * be), when its key is dropped or put again, or when a check repairs. Call index_doubt() between pages_unpublish() and pages_publish(). */
bool index_doubtful(struct region *region, const struct found *found);
void index_doubt(struct region *region, const struct found *found);
/* As index_find() for many, with the cache misses overlapped. */
void index_find_many(struct region *region, const struct speckv_key *keys, size_t stride, size_t count, struct found *out, uint8_t *present);
void index_fill(struct region *region, const struct run *run, const struct speckv_key *key, uint64_t first_position,
		uint32_t frame_bytes, uint32_t raw_bytes, uint32_t tenant, uint64_t used);
int index_insert(struct region *region, const struct speckv_key *key, const struct run *run);
void index_remove(struct region *region, const struct speckv_key *key, uint64_t entry, uint64_t generation);
/* Copy of entry `id` if it is a published block. */
bool index_entry(struct region *region, uint64_t id, struct found *out, struct speckv_key *key);
void index_adopt(struct region *region, const struct found *parent, const struct found *child);
void index_inherit(struct region *region, const struct found *from, const struct found *to);
void index_orphan(struct region *region, const struct found *child);
void index_used(struct region *region, const struct found *found, bool read, uint64_t tick);
/* A link of the tree: which entry, and of which block. */
static inline uint64_t index_link(const struct found *found)
{
	return (found->entry + 1) << 32 | (uint32_t)found->generation;
}
/* Is the block linked to a parent that is stored? The link to it, whatever it is worth. */
bool index_adopted(struct region *region, const struct found *child);
uint64_t index_parent(struct region *region, const struct found *child);
/* Head page of the block that a link names, if that is still it. */
bool index_link_page(struct region *region, uint64_t link, uint64_t *page);
/* Head page of a stored child of the block of `entry` that lies outside of [start, end), and is the tenant's (below 0: anyone's): of
 * the first few the one used longest ago. */
bool index_child(struct region *region, uint64_t entry, uint64_t start, uint64_t end, int tenant, uint64_t *page);
/* The block before these siblings (a link to the first) is gone: no prefix look-up reaches them, and they are the first to be evicted
 * until they are used again. False: none is stored. */
bool index_abandon(struct region *region, uint64_t link);
size_t index_children(struct region *region, const struct found *found, struct speckv_key *keys, struct found *out, size_t max);

/* ---- frames.c: frames in this pool's mode, and the calibration that it may need ------------------------------------- */

/* Is this a calibration for such a pool? Its digest. Text set. */
int calibration_judge(struct speckv_ctx *ctx, const struct speckv_pool_config *config, struct speckv_calibration_info *info);
/* Load the pool's calibration where its mode needs one. Text set. */
int region_calibrate(struct region *region);
/* Can this pool hold frames of a mode? The reason: -EOPNOTSUPP, text set. */
int frame_possible(struct region *region, unsigned int codec);
int frame_encode(struct region *region, unsigned int codec, const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, void *frame,
		 uint64_t capacity, uint64_t *frame_bytes);
/* Layers of the frame at `at`, if it is this block's frame in this place of this pool. */
int frame_decode(struct region *region, const struct speckv_key *key, const struct found *found, const void *at, uint64_t available, unsigned int first,
		 unsigned int layers, void *raw, uint64_t bytes);

/* ---- blocks.c ------------------------------------------------------------------------------------------------------ */

/* Drop a found block. True if this call did it. */
bool block_drop(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found);
/* Two puts of one key at once may both publish. A process that sees that drops all but the youngest. */
void settle_twins(struct speckv_pool *pool, const struct speckv_key *key);
/* Index a published block that is not, and settle its twins. */
int block_index(struct speckv_pool *pool, const struct speckv_key *key, const struct run *run);
/* Does a look-up find this very run? */
bool block_indexed(struct region *region, const struct speckv_key *key, const struct run *run);
int block_put(struct speckv_pool *pool, struct speckv_request *request, uint64_t tick);
/* Link a stored block that has no parent yet to its own, if that is stored. */
void block_adopt(struct speckv_pool *pool, const struct speckv_request *request);
struct card_reads;
/* What the gets of a batch came to. Every block wanted is a hit or a miss. */
struct tally {
	uint64_t tick; /* of the next block */
	uint64_t hits, misses, bad, staged, raw, stored;
};
/* `reads`, `slot`: a card's READ of the hint that may be under way. */
int block_get(struct speckv_pool *pool, struct speckv_request *request, const struct found *hint, struct card_reads *reads, unsigned int slot,
	      struct tally *tally);
int block_decode(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found, unsigned int layer_first,
		 unsigned int layer_count, bool ahead, void *raw, uint64_t bytes);
int batch_run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests, size_t count);

/* ---- card_io.c: the bytes of a pool that lies in a card. -ENODEV: it does not answer; nothing was changed ---------------- */

#define CARD_READS 16 /* commands under way in one lane */

struct lane;
struct card_reads { /* a lane of this thread's own, and what was asked for in it */
	struct region *region;
	struct lane *lane;
	unsigned int depth;
	int error; /* why there is no lane */
	struct found found[CARD_READS];
	uint16_t first[CARD_READS], count[CARD_READS];
	bool frame[CARD_READS];
};
int card_io_make(struct region *region);
void card_io_end(struct region *region, bool child);
/* Is the card there, and this pool with these rights? Text set. */
int card_io_connect(struct region *region);
/* Encode one raw block into a run that this process holds. -ENODATA: non-finite. Nothing is there when it fails. */
int card_io_write(struct region *region, const struct run *run, unsigned int codec, const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
	       uint64_t *frame_bytes);
int card_io_copy(struct region *region, const struct speckv_key *key, const struct found *from, const struct run *to, uint64_t *frame_bytes);
/* Take the block of this run away; everything in these pages. Both do nothing where the bytes are mapped. -EINPROGRESS: the card was told,
 * and whether it did so is not known. */
int card_io_invalidate(struct region *region, const struct run *run);
int card_io_clear(struct region *region, uint64_t page, uint64_t pages);
/* Layers of a block. `ahead`: of need, and -EBUSY when there is no bandwidth for that. -ENOENT: the card has no such block. */
int card_io_read(struct region *region, const struct speckv_key *key, const struct found *found, unsigned int first, unsigned int layers, bool ahead, void *raw,
	      uint64_t bytes);
/* The frame as it lies there, verified by the card. */
int card_io_frame(struct region *region, const struct speckv_key *key, uint64_t page, uint64_t generation, void *frame, uint64_t room, uint64_t *bytes);
/* Several reads at once: how many, 0 when the card does not answer. Between begin and end no other call of this thread may want a lane. */
unsigned int card_io_reads_begin(struct region *region, struct card_reads *reads);
void card_io_reads_end(struct card_reads *reads);
int card_io_read_begin(struct card_reads *reads, unsigned int slot, const struct speckv_key *key, const struct found *found, unsigned int layer_first,
		    unsigned int layer_count, bool ahead);
int card_io_read_end(struct card_reads *reads, unsigned int slot, const struct speckv_key *key, void *raw, uint64_t bytes);
bool card_io_read_under_way(const struct card_reads *reads, unsigned int slot, const struct found *found, unsigned int first, unsigned int layers);

/* ---- card_pools.c: a card's pools; between device_manage() and device_unmanage() only ------------------------------------ */

/* Connect to the admin queue and, unless to inspect only, bring this machine's table in line with the card's. */
int card_manage(struct speckv_device *dev, bool inspect);
void card_unmanage(struct speckv_device *dev);
/* The record gets the card's generation. */
int card_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config, const struct region_plan *plan, struct lay_pool_record *record);
int card_pool_delete(struct speckv_device *dev, const uint8_t uuid[16]);
int card_pool_resize(struct speckv_device *dev, const struct lay_pool_record *record, uint64_t capacity_bytes, bool dry_run);
int card_pool_owner(struct speckv_device *dev, const struct lay_pool_record *record, uint32_t uid, uint32_t gid, uint32_t mode);
/* Page map and index of a pool from the card's blocks; no other process uses it. */
int card_rebuild(struct region *region, uint16_t number, uint64_t *kept, uint64_t *lost);

/* ---- staging.c, workers.c ------------------------------------------------------------------------------------------ */

void staging_destroy(struct speckv_pool *pool);
/* `first`: nothing was read from that slot before. */
bool staging_read(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found, uint64_t offset, void *raw, uint64_t bytes, bool *first);
int staging_fill(struct speckv_pool *pool, const struct speckv_key *key);
int staging_make(struct speckv_pool *pool);
void workers_destroy(struct speckv_pool *pool);
/* batch_run() of a put or a get over the caller and as many workers as make `threads`. */
int workers_share(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests, size_t n, unsigned int threads);
/* Queue the staging of one key; false when the queue is full. */
bool workers_prefetch(struct speckv_pool *pool, const struct speckv_key *key);

/* ---- stats.c, events.c --------------------------------------------------------------------------------------------- */

void count(struct speckv_pool *pool, unsigned int counter, uint64_t n);
void count_time(struct speckv_pool *pool, unsigned int histogram, uint64_t ns);
void pool_event(struct region *region, unsigned int kind, unsigned int severity, const char *format, ...) __attribute__((format(printf, 4, 5)));
void device_event(struct speckv_device *dev, unsigned int kind, unsigned int severity, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
int tenant_find(struct region *region, const char *name);
uint32_t tenant_others(struct region *region);

/* ---- check.c ------------------------------------------------------------------------------------------------------- */

/* Rebuild the index from page map and frame headers; no client may be attached. What an entry knows beyond its frame is kept. -ENODEV, -EACCES: the
 * card does not answer, and nothing is known of the rest, which stays as it is. */
int region_rebuild(struct region *region, uint64_t *kept, uint64_t *lost);
/* Is this run a sound frame of this pool in this place? `deep` verifies every section. */
int frame_sound(struct region *region, uint64_t page, uint32_t pages, uint64_t generation, bool deep, struct speckv_frame *frame);

const char *record_name(const struct lay_pool_record *record, char name[SPECKV_NAME_BYTES]);
/* ---- to be moved to the folders' headers ---- */
#define JOIN_TRIES 200 /* of a millisecond: for a client that has its slot's lock to enter itself there */
bool pages_claim_hint(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit);
bool pages_claim_scan(struct speckv_pool *pool, uint64_t from, uint64_t to, uint32_t n, struct run *run);
bool pages_claimed_above(struct region *r, uint64_t mark, uint64_t end);
uint64_t pages_first_above(struct region *r, uint64_t mark);
void pages_unretire(struct region *r, uint64_t from, uint64_t to);
long long client_byte(struct region *r, unsigned int slot);
bool client_unseen(struct region *r, unsigned int slot, uint64_t state);
bool client_reap(struct region *r, unsigned int slot, uint64_t state, uint64_t *back);
void clients_reaped(struct speckv_pool *pool, uint64_t back);
bool client_sweep(struct region *r, unsigned int slot, uint64_t incarnation, bool dead, uint64_t *back);
bool frame_run_whole(struct region *r, uint64_t page, uint64_t word, uint64_t pages);
uint32_t frame_tenant(struct region *r, const struct speckv_frame *frame);
int read_judge(struct region *r, const struct found *found, int rc);
bool pool_lock_differs(const struct folder *pools, const char *name, const struct stat *file);
void block_count_lookups(struct speckv_pool *pool, uint64_t n, uint64_t hits, uint64_t began);
int device_table_current(struct speckv_device *dev, const struct folder *in);
bool calibration_needed(unsigned int codec);
int calibration_copy(struct region *r, uint8_t **out, uint64_t *bytes);
int calibration_load(struct region *r, const uint8_t *file, uint64_t bytes, struct speckv_calibration **out);
/* -ESTALE where the file was seen to go before or while this call ran: what it stored no other process finds, what it read may be empty memory. */
int pool_lost_text(struct speckv_pool *pool);
static inline int pool_unless_lost(struct speckv_pool *pool, int result)
{
	return __builtin_expect(load_relaxed(&pool->region.lost), 0) ? pool_lost_text(pool) : result;
}

#endif

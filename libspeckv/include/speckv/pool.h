/* SPDX-License-Identifier: MIT */
/**
 * speckv/pool.h - pools: create, describe, resize, check, destroy; statistics and events. For
 * administrators.
 */
#ifndef SPECKV_POOL_H
#define SPECKV_POOL_H

#include <speckv/device.h>

#ifdef __cplusplus
extern "C" {
#endif

enum speckv_eviction {
	/** a put that finds no room drops the least recently used of a sample */
	SPECKV_EVICT_LRU = 0,
	SPECKV_EVICT_NONE = 1, /**< a put that finds no room fails with -ENOSPC */
};

enum speckv_pool_state {
	SPECKV_POOL_ACTIVE = 1,
	/** the manager died in the middle: the next manager removes it */
	SPECKV_POOL_CREATING = 2,
	SPECKV_POOL_RESIZING = 3, /**< usable; the next manager finishes */
	SPECKV_POOL_DESTROYING = 4, /**< the next manager finishes */
	/* found when it is looked at, and not accessible: */
	SPECKV_POOL_LOST = 5, /**< its file is gone */
	SPECKV_POOL_DAMAGED = 6, /**< its file was cut short, or its header does not verify */
};

/** What an administrator chooses. Zero means the default in the comment. */
struct speckv_pool_config {
	char name[SPECKV_NAME_BYTES];
	/** data bytes; rounded up to a whole number of allocation units (2 MiB) */
	uint64_t capacity_bytes;
	/** how far resize may go later; default: 8 x capacity (single-inode media: 2 x) */
	uint64_t max_bytes;
	uint64_t quota_bytes; /**< stored bytes allowed in all; default: capacity */
	/** stored bytes allowed to one tenant (cooperative); default: no limit */
	uint64_t tenant_quota_bytes;
	/** default: 1 layer, 2 KV heads, 64 tokens, 128 channels, bf16 = 64 KiB */
	struct speckv_geometry geometry;
	uint32_t codec; /**< enum speckv_codec */
	uint32_t eviction; /**< enum speckv_eviction */
	/** power of two, 256..65536; default: block/64 rounded down to one, 1 KiB at least */
	uint32_t page_bytes;
	uint32_t uid, gid; /**< owner; (uint32_t)-1: the caller's */
	uint32_t mode; /**< permission bits; 0: 0600 */
	uint32_t single_tenant; /**< 1: short engine hashes are acceptable as keys */
	/**
	 * First layer and KV head of the pool's blocks in the calibration: not 0 where a pool holds
	 * a later part of the model.
	 */
	uint16_t first_layer, first_head;
	/**
	 * Modes that need a calibration (speckv_codec_calibrated_modes()): the bytes of its file,
	 * which the pool keeps. In a description the pointer is NULL: speckv_pool_calibration()
	 * gives the bytes.
	 */
	const void *calibration;
	uint64_t calibration_bytes;
};

enum speckv_pool_set_mask {
	SPECKV_SET_QUOTA = 1u << 0,
	SPECKV_SET_TENANT_QUOTA = 1u << 1,
	SPECKV_SET_EVICTION = 1u << 2,
	SPECKV_SET_OWNER = 1u << 3, /**< uid and gid */
	SPECKV_SET_MODE = 1u << 4,
	SPECKV_SET_DRY_RUN = 1u << 30, /**< return what the change would, and change nothing */
};

/** Where blocks are encoded and decoded. */
enum speckv_placement {
	/** by this library: host engines; cards that lack the pool's codec */
	SPECKV_PLACED_HOST = 0,
	SPECKV_PLACED_CARD = 1,
};

struct speckv_pool_info {
	struct speckv_pool_config config; /**< with the defaults filled in */
	uint8_t uuid[SPECKV_UUID_BYTES];
	char path[SPECKV_PATH_BYTES];
	uint32_t state; /**< enum speckv_pool_state */
	/** 0: no permission to look inside; the counters below are then 0 */
	uint32_t accessible;
	uint64_t block_bytes; /**< raw bytes of one block */
	/** pages held by blocks and allocations, counted from the page map now */
	uint64_t used_bytes;
	uint64_t free_bytes;
	uint64_t blocks;
	uint64_t raw_bytes; /**< what the stored blocks decode to */
	uint64_t stored_bytes; /**< what their frames take, before rounding to pages */
	uint64_t table_bytes; /**< index, page map and other tables */
	uint64_t created_ns;
	uint64_t resizes;
	uint32_t clients, tenants;
	uint32_t placement; /**< enum speckv_placement */
	uint32_t reserved;
	/** digest of the calibration; zero: none */
	uint8_t calibration[SPECKV_CALIBRATION_DIGEST_BYTES];
};

typedef int (*speckv_pool_cb)(const struct speckv_pool_info *info, void *arg);
/**
 * Progress of a long call: units done of total. Return non-zero to cancel where that is safe
 * (-ECANCELED).
 */
typedef int (*speckv_progress_cb)(uint64_t done, uint64_t total, void *arg);

/**
 * What speckv_pool_create() would make of `config` on a device of this name, the defaults filled
 * in; refused as that would be, but for a pool of that name, which the caller can look at. Nothing
 * is made. Errors: -EINVAL (name, shape, sizes, mode), those of a calibration as in
 * speckv_pool_create(), and those of speckv_device_probe().
 */
int speckv_pool_plan(struct speckv_ctx *ctx, const char *device,
	const struct speckv_pool_config *config, struct speckv_pool_config *planned);
/**
 * With a calibration and no geometry the blocks are of the calibration's layers, KV heads and head
 * size. Errors: -EEXIST, -EINVAL (name, shape; a calibration that is missing, or given for a mode
 * without one), -ENOSPC (larger than what is free: the text says how much is), -EACCES, -EBUSY
 * (another manager: pid and command), -EOPNOTSUPP (codec not in this build, calibration of a later
 * version), -EBADMSG (no calibration, or damaged), -EFBIG (calibration), -ERANGE (a shape that the
 * calibration was not made for). On failure nothing is left behind.
 */
int speckv_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	struct speckv_pool_info *info);
/** Errors: -ENOENT, -EACCES. */
int speckv_pool_info(struct speckv_device *dev, const char *name, struct speckv_pool_info *info);
/**
 * The file of a pool's calibration, verified, into `buffer`; its length into `bytes`, also with
 * -ENOSPC (buffer too small). Errors: -ENOENT (no such pool, or no calibration), -EACCES, -EBADMSG
 * (not the bytes that its digest names), -EUCLEAN (lost).
 */
int speckv_pool_calibration(struct speckv_device *dev, const char *name, void *buffer,
	uint64_t capacity, uint64_t *bytes);
int speckv_pool_foreach(struct speckv_device *dev, speckv_pool_cb cb, void *arg);

enum speckv_resize_flags {
	/** drop least recently used blocks when they do not fit the new size */
	SPECKV_RESIZE_EVICT = 1u << 0,
	SPECKV_RESIZE_DRY_RUN = 1u << 1, /**< say whether it would work, change nothing */
};
/**
 * Grow or shrink a pool in use. Shrinking first moves the frames above the new end. -EALREADY: it
 * has that size. Errors: -ENOENT, -EACCES, -ENOSPC (grow: not free on the device, or beyond
 * max_bytes; shrink: blocks do not fit and no SPECKV_RESIZE_EVICT), -EBUSY (another manager, or a
 * client's allocation lies above the new end: pid and command).
 */
int speckv_pool_resize(struct speckv_device *dev, const char *name, uint64_t capacity_bytes,
	unsigned int flags, speckv_progress_cb progress, void *arg, struct speckv_pool_info *info);
/**
 * Change the settings named in `mask`, or none where one of them is refused. -EALREADY when nothing
 * would change. Errors: -ENOENT, -EACCES, -EINVAL, -EBUSY.
 */
int speckv_pool_set(struct speckv_device *dev, const char *name, unsigned int mask,
	const struct speckv_pool_config *config, struct speckv_pool_info *info);
/**
 * Zero and remove a pool; also one whose creation or removal a dead manager left unfinished. The
 * first call of `progress` may cancel. Errors: -ENOENT, -EACCES, -EBUSY (in use, or another
 * manager: pid and command), -ECANCELED; these have changed nothing.
 */
int speckv_pool_destroy(struct speckv_device *dev, const char *name, speckv_progress_cb progress,
	void *arg);
/** What speckv_pool_destroy() would return now; nothing is changed. */
int speckv_pool_destroy_check(struct speckv_device *dev, const char *name);

enum speckv_check_flags {
	SPECKV_CHECK_DEEP = 1u << 0, /**< verify every section's CRC, not only the structure */
	/** free leaked pages, re-index lost blocks, drop bad ones */
	SPECKV_CHECK_REPAIR = 1u << 1,
};
struct speckv_check_report {
	/** allocated: held by live clients' allocations */
	uint64_t pages, pages_free, pages_used, pages_allocated;
	uint64_t pages_leaked; /**< held by clients that no longer exist, or by none */
	uint64_t blocks, blocks_verified;
	uint64_t blocks_unindexed; /**< published, not found by a look-up */
	uint64_t blocks_bad; /**< header or section does not verify */
	uint64_t index_stale; /**< index slots that point at nothing */
	uint64_t repaired;
	uint64_t clients_dead;
};
/**
 * Check a pool in use or not. Returns 0 when sound (or repaired), -EUCLEAN when it found something,
 * -ENODEV when a card went away meanwhile.
 */
int speckv_pool_check(struct speckv_device *dev, const char *name, unsigned int flags,
	speckv_progress_cb progress, void *arg, struct speckv_check_report *report);

/* ---- statistics ----------------------------------------------------------------------------- */

/**
 * Hit share, wherever it is told, is HITS / WANTED: blocks served over blocks wanted. A block that
 * a look-up found and a get then fetched is wanted once; one that a look-up missed is wanted and
 * not served; a get without a look-up counts itself. A block that was found and never fetched is
 * not wanted. A client that gets what its look-up missed, or looks up again, wants it twice.
 * Read-only attachments count nothing. Every wanted block is counted in one of HITS, MISSES and
 * LOOKUP_MISSES, whose sums the other counters are: no share of them, in total or of an interval,
 * is ever above one, whatever is counted while they are read.
 */
enum speckv_counter {
	SPECKV_COUNT_PUTS = 0, /**< blocks stored */
	SPECKV_COUNT_PUT_EXISTED, /**< puts of a key that was there: no-ops */
	SPECKV_COUNT_PUT_FAILED,
	SPECKV_COUNT_GETS, /**< blocks asked for: hits and misses */
	SPECKV_COUNT_HITS, /**< gets that were served */
	SPECKV_COUNT_MISSES, /**< gets that were not */
	/** blocks or sections that did not verify: counted as misses too */
	SPECKV_COUNT_BAD,
	SPECKV_COUNT_LOOKUPS, /**< blocks looked up: found or not */
	SPECKV_COUNT_LOOKUP_HITS, /**< found; by prefix: in the prefix that is stored */
	SPECKV_COUNT_DROPS,
	SPECKV_COUNT_EVICTIONS,
	SPECKV_COUNT_TOUCHES,
	SPECKV_COUNT_PREFETCHES, /**< blocks asked to be staged */
	SPECKV_COUNT_PREFETCHED, /**< blocks staged */
	SPECKV_COUNT_PREFETCH_USED, /**< gets served from the staging buffer */
	SPECKV_COUNT_PREFETCH_UNUSED, /**< staged blocks thrown out unread */
	SPECKV_COUNT_BYTES_IN_RAW,
	SPECKV_COUNT_BYTES_IN_STORED,
	SPECKV_COUNT_BYTES_OUT_RAW,
	SPECKV_COUNT_BYTES_OUT_STORED,
	SPECKV_COUNT_ALLOCATIONS,
	SPECKV_COUNT_RECLAIMED_PAGES, /**< pages taken back from clients that died */
	SPECKV_COUNT_LOOKUP_MISSES, /**< not found; by prefix: all from the first that is missing */
	SPECKV_COUNT_WANTED, /**< blocks that clients wanted: gets and look-up misses */
	SPECKV_COUNTERS = 32,
};
enum speckv_histogram {
	SPECKV_HIST_GET = 0, /**< nanoseconds per block */
	SPECKV_HIST_PUT = 1,
	SPECKV_HIST_LOOKUP = 2, /**< nanoseconds per batch, of every kind of look-up */
	SPECKV_HIST_STAGE = 3, /**< nanoseconds per block staged */
	SPECKV_HISTOGRAMS = 4,
};
/**
 * Log-linear buckets: bucket i < 4 holds value i; else 4 buckets per power of two. See
 * speckv_histogram_bound().
 */
#define SPECKV_HIST_BUCKETS 160

struct speckv_stats {
	uint64_t taken_ns;
	uint64_t since_ns; /**< creation, or last reset */
	uint64_t counters[SPECKV_COUNTERS];
	uint64_t histograms[SPECKV_HISTOGRAMS][SPECKV_HIST_BUCKETS];
};
/** Upper bound (inclusive) of a bucket, ns. */
uint64_t speckv_histogram_bound(unsigned int bucket);
/**
 * Value below which `share` (0..1) of the samples of a histogram lie (its bucket's upper bound); 0
 * when it is empty.
 */
uint64_t speckv_histogram_quantile(const uint64_t buckets[SPECKV_HIST_BUCKETS], double share);

int speckv_pool_stats(struct speckv_device *dev, const char *name, struct speckv_stats *stats);
int speckv_pool_stats_reset(struct speckv_device *dev, const char *name);
/** What stats_reset() would return; nothing is changed. */
int speckv_pool_stats_reset_check(struct speckv_device *dev, const char *name);

struct speckv_tenant_info {
	char name[SPECKV_NAME_BYTES];
	uint32_t index, clients; /**< clients: attached now */
	uint64_t used_bytes, blocks;
	/** as in enum speckv_counter */
	uint64_t puts, gets, hits, misses, lookup_misses, wanted, bytes_in, bytes_out,
		evicted_blocks;
};
struct speckv_client_info {
	uint32_t slot, pid, uid, tenant; /**< tenant: its index */
	char command[64];
	uint64_t attached_ns;
	uint32_t alive, reserved;
	uint64_t allocated_bytes; /**< allocations (unsealed fills) it holds */
};
typedef int (*speckv_tenant_cb)(const struct speckv_tenant_info *info, void *arg);
typedef int (*speckv_client_cb)(const struct speckv_client_info *info, void *arg);
int speckv_pool_tenants(struct speckv_device *dev, const char *name, speckv_tenant_cb cb,
	void *arg);
int speckv_pool_clients(struct speckv_device *dev, const char *name, speckv_client_cb cb,
	void *arg);

/* ---- events --------------------------------------------------------------------------------- */

enum speckv_event_kind {
	SPECKV_EVENT_DEVICE_CREATED = 1,
	SPECKV_EVENT_DEVICE_REMOVED,
	SPECKV_EVENT_POOL_CREATED,
	SPECKV_EVENT_POOL_RESIZED,
	SPECKV_EVENT_POOL_SET,
	SPECKV_EVENT_POOL_DESTROYED,
	SPECKV_EVENT_CLIENT_ATTACHED,
	SPECKV_EVENT_CLIENT_DETACHED,
	SPECKV_EVENT_CLIENT_DIED,
	SPECKV_EVENT_BAD_BLOCK,
	SPECKV_EVENT_POOL_FULL,
	SPECKV_EVENT_CHECK_REPAIRED,
	SPECKV_EVENT_RECOVERED,
	SPECKV_EVENT_WRITE_FAILED,
};
enum speckv_severity { SPECKV_INFO = 0, SPECKV_WARNING = 1, SPECKV_ERROR = 2 };
struct speckv_event {
	/** grows by one per event of one log (the device's, or one pool's); starts at 1 */
	uint64_t sequence;
	uint64_t time_ns;
	uint32_t kind, severity, pid, reserved;
	char pool[SPECKV_NAME_BYTES]; /**< empty: the device's own log */
	char text[160];
};
typedef int (*speckv_event_cb)(const struct speckv_event *event, void *arg);
/**
 * Events of one log with sequence > after, oldest first (the logs are rings: old ones are gone).
 * pool NULL: the device's.
 */
int speckv_events(struct speckv_device *dev, const char *pool, uint64_t after, speckv_event_cb cb,
	void *arg);
const char *speckv_event_kind_name(unsigned int kind);

#ifdef __cplusplus
}
#endif
#endif

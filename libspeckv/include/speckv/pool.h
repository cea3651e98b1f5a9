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
	/** a put without room evicts the least recently used block of a sample */
	SPECKV_EVICT_LRU = 0,
	SPECKV_EVICT_NONE = 1, /**< a put without room fails with -ENOSPC */
};

enum speckv_pool_state {
	SPECKV_POOL_ACTIVE = 1,
	/** interrupted by the manager's death: the next manager removes it */
	SPECKV_POOL_CREATING = 2,
	SPECKV_POOL_RESIZING = 3, /**< usable; the next manager finishes an interrupted one */
	SPECKV_POOL_DESTROYING = 4, /**< the next manager finishes an interrupted one */
	/* found by an inspection, not accessible: */
	SPECKV_POOL_LOST = 5, /**< its file is gone */
	SPECKV_POOL_DAMAGED = 6, /**< its file was truncated, or its header does not verify */
};

/** Configuration of a pool. Zero means the default in the comment. */
struct speckv_pool_config {
	char name[SPECKV_NAME_BYTES];
	/** data bytes; rounded up to a whole number of allocation units (2 MiB) */
	uint64_t capacity_bytes;
	/** limit of later resizes; default: 8 x capacity (single-inode media: 2 x) */
	uint64_t max_bytes;
	uint64_t quota_bytes; /**< stored bytes allowed in all; default: capacity */
	/** stored bytes allowed per tenant (cooperative); default: no limit */
	uint64_t tenant_quota_bytes;
	/** default: 1 layer, 2 KV heads, 64 tokens, 128 channels, bf16 = 64 KiB */
	struct speckv_geometry geometry;
	uint32_t codec; /**< enum speckv_codec */
	uint32_t eviction; /**< enum speckv_eviction */
	/** power of two, 256..65536; default: block/64 rounded down to one, at least 1 KiB */
	uint32_t page_bytes;
	uint32_t uid, gid; /**< owner; (uint32_t)-1: the caller's */
	uint32_t mode; /**< permission bits; 0: 0600 */
	uint32_t single_tenant; /**< 1: short engine hashes are acceptable as keys */
	/**
	 * First layer and KV head of the pool's blocks in the calibration; not 0 if the pool holds
	 * a later part of the model.
	 */
	uint16_t first_layer, first_head;
	/**
	 * Modes that need a calibration (speckv_codec_calibrated_modes()): the bytes of its file,
	 * which the pool stores. NULL in a description: speckv_pool_calibration() returns the
	 * bytes.
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
	/** check only: return the result of the change, change nothing */
	SPECKV_SET_DRY_RUN = 1u << 30,
};

/** Where blocks are encoded and decoded. */
enum speckv_placement {
	/** by this library: host engines, and cards without the pool's codec */
	SPECKV_PLACED_HOST = 0,
	SPECKV_PLACED_CARD = 1,
};

struct speckv_pool_info {
	struct speckv_pool_config config; /**< with the defaults filled in */
	uint8_t uuid[SPECKV_UUID_BYTES];
	char path[SPECKV_PATH_BYTES];
	uint32_t state; /**< enum speckv_pool_state */
	/** 0: no permission to read it; the counters below are then 0 */
	uint32_t accessible;
	uint64_t block_bytes; /**< raw bytes of one block */
	/** pages held by blocks and allocations, counted from the page map now */
	uint64_t used_bytes;
	uint64_t free_bytes;
	uint64_t blocks;
	uint64_t raw_bytes; /**< decoded size of the stored blocks */
	uint64_t stored_bytes; /**< size of their frames, before rounding to pages */
	uint64_t table_bytes; /**< index, page map and other tables */
	uint64_t created_ns;
	uint64_t resizes;
	/** SPECKV_COUNT_PUTS and SPECKV_COUNT_PUT_BIT_EXACT */
	uint64_t puts, puts_bit_exact;
	uint32_t clients, tenants;
	uint32_t placement; /**< enum speckv_placement */
	uint32_t reserved;
	/** digest of the calibration; zero: none */
	uint8_t calibration[SPECKV_CALIBRATION_DIGEST_BYTES];
};

typedef int (*speckv_pool_cb)(const struct speckv_pool_info *info, void *arg);
/**
 * Progress of a long call: units done of total. A non-zero result cancels it where that is safe
 * (-ECANCELED).
 */
typedef int (*speckv_progress_cb)(uint64_t done, uint64_t total, void *arg);

/**
 * Plan a creation: `planned` is the configuration that speckv_pool_create() would use on a device
 * of this name, with the defaults filled in. Errors as there, except that an existing pool of that
 * name is not an error. Nothing is created. Errors: -EINVAL (name, shape, sizes, mode), those of a
 * calibration as in speckv_pool_create(), and those of speckv_device_probe().
 */
int speckv_pool_plan(struct speckv_ctx *ctx, const char *device,
	const struct speckv_pool_config *config, struct speckv_pool_config *planned);
/**
 * Create a pool. With a calibration and no geometry, blocks have the calibration's layers, KV heads
 * and head size. Errors: -EEXIST, -EINVAL (name, shape; a calibration that is missing, or given for
 * a mode without one), -ENOSPC (with the free space in the text), -EACCES, -EBUSY (another manager:
 * pid and command), -EOPNOTSUPP (codec not in this build, calibration of a later version), -EBADMSG
 * (not a calibration, or damaged), -EFBIG (calibration), -ERANGE (a shape outside of the
 * calibration). On failure nothing is left behind.
 */
int speckv_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	struct speckv_pool_info *info);
/** Errors: -ENOENT, -EACCES. */
int speckv_pool_info(struct speckv_device *dev, const char *name, struct speckv_pool_info *info);
/**
 * Copy the file of a pool's calibration, verified, into `buffer`; its length into `bytes`, also
 * with -ENOSPC (buffer too small). Errors: -ENOENT (no such pool, or no calibration), -EACCES,
 * -EBADMSG (does not match its digest), -EUCLEAN (lost).
 */
int speckv_pool_calibration(struct speckv_device *dev, const char *name, void *buffer,
	uint64_t capacity, uint64_t *bytes);
int speckv_pool_foreach(struct speckv_device *dev, speckv_pool_cb cb, void *arg);

enum speckv_resize_flags {
	/** evict least recently used blocks that do not fit the new size */
	SPECKV_RESIZE_EVICT = 1u << 0,
	SPECKV_RESIZE_DRY_RUN = 1u << 1, /**< check only, change nothing */
};
/**
 * Grow or shrink a pool in use. Shrinking first moves the frames above the new end. -EALREADY: it
 * already has that size. Errors: -ENOENT, -EACCES, -ENOSPC (grow: no room on the device, or beyond
 * max_bytes; shrink: blocks do not fit, and no SPECKV_RESIZE_EVICT), -EBUSY (another manager, or a
 * client's allocation above the new end: pid and command).
 */
int speckv_pool_resize(struct speckv_device *dev, const char *name, uint64_t capacity_bytes,
	unsigned int flags, speckv_progress_cb progress, void *arg, struct speckv_pool_info *info);
/**
 * Change the settings in `mask`, all or none. -EALREADY: no change. Errors: -ENOENT, -EACCES,
 * -EINVAL, -EBUSY.
 */
int speckv_pool_set(struct speckv_device *dev, const char *name, unsigned int mask,
	const struct speckv_pool_config *config, struct speckv_pool_info *info);
/**
 * Zero and remove a pool, also one whose creation or removal was interrupted by its manager's
 * death. The first call of `progress` may cancel. Errors: -ENOENT, -EACCES, -EBUSY (in use, or
 * another manager: pid and command), -ECANCELED; on these nothing is changed.
 */
int speckv_pool_destroy(struct speckv_device *dev, const char *name, speckv_progress_cb progress,
	void *arg);
/** Check only: the result of speckv_pool_destroy() now; changes nothing. */
int speckv_pool_destroy_check(struct speckv_device *dev, const char *name);

enum speckv_check_flags {
	SPECKV_CHECK_DEEP = 1u << 0, /**< verify every section's CRC, not only the structure */
	/** free leaked pages, re-index lost blocks, drop bad ones */
	SPECKV_CHECK_REPAIR = 1u << 1,
};
struct speckv_check_report {
	/** allocated: by live clients' allocations */
	uint64_t pages, pages_free, pages_used, pages_allocated;
	uint64_t pages_leaked; /**< claimed by dead clients, or orphaned */
	uint64_t blocks, blocks_verified;
	uint64_t blocks_unindexed; /**< published, but not found by a look-up */
	uint64_t blocks_bad; /**< header or section does not verify */
	uint64_t index_stale; /**< index slots without a published block */
	uint64_t repaired;
	uint64_t clients_dead;
};
/**
 * Check a pool, in use or not. Returns 0 if sound (or repaired), -EUCLEAN if there are findings,
 * -ENODEV if a card disconnected meanwhile.
 */
int speckv_pool_check(struct speckv_device *dev, const char *name, unsigned int flags,
	speckv_progress_cb progress, void *arg, struct speckv_check_report *report);

/* ---- statistics ----------------------------------------------------------------------------- */

/**
 * The hit rate, wherever reported, is HITS / WANTED: blocks served over blocks wanted. A block that
 * a look-up found and a get then fetched is wanted once; one that a look-up missed is wanted and
 * not served; a get without a look-up counts itself. A block that was found and never fetched is
 * not wanted. A get after a missed look-up, or a repeated look-up, counts twice. Read-only
 * attachments count nothing. Every wanted block counts in exactly one of HITS, MISSES and
 * LOOKUP_MISSES; GETS and WANTED are sums of these: no ratio of them, in total or over an interval,
 * exceeds one, even if read during updates.
 */
enum speckv_counter {
	SPECKV_COUNT_PUTS = 0, /**< blocks stored */
	SPECKV_COUNT_PUT_EXISTED, /**< puts of an existing key: no-ops */
	SPECKV_COUNT_PUT_FAILED,
	SPECKV_COUNT_GETS, /**< blocks requested: hits and misses */
	SPECKV_COUNT_HITS, /**< gets served */
	SPECKV_COUNT_MISSES, /**< gets not served */
	/** blocks or sections that did not verify: also counted as misses */
	SPECKV_COUNT_BAD,
	SPECKV_COUNT_LOOKUPS, /**< blocks looked up, found or not */
	SPECKV_COUNT_LOOKUP_HITS, /**< found; by prefix: within the stored prefix */
	SPECKV_COUNT_DROPS,
	SPECKV_COUNT_EVICTIONS,
	SPECKV_COUNT_TOUCHES,
	SPECKV_COUNT_PREFETCHES, /**< blocks requested to be staged */
	SPECKV_COUNT_PREFETCHED, /**< blocks staged */
	SPECKV_COUNT_PREFETCH_USED, /**< gets served from the staging buffer */
	SPECKV_COUNT_PREFETCH_UNUSED, /**< staged blocks replaced unread */
	SPECKV_COUNT_BYTES_IN_RAW,
	SPECKV_COUNT_BYTES_IN_STORED,
	SPECKV_COUNT_BYTES_OUT_RAW,
	SPECKV_COUNT_BYTES_OUT_STORED,
	SPECKV_COUNT_ALLOCATIONS,
	SPECKV_COUNT_RECLAIMED_PAGES, /**< pages reclaimed from dead clients */
	SPECKV_COUNT_LOOKUP_MISSES, /**< not found; by prefix: all from the first missing one on */
	SPECKV_COUNT_WANTED, /**< gets, and look-up misses */
	/** of the puts: blocks that the codec could not hold well enough, stored bit-exact */
	SPECKV_COUNT_PUT_BIT_EXACT,
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
 * Upper bound of the bucket that holds the `share` (0..1) quantile of a histogram; 0 if it is
 * empty.
 */
uint64_t speckv_histogram_quantile(const uint64_t buckets[SPECKV_HIST_BUCKETS], double share);

int speckv_pool_stats(struct speckv_device *dev, const char *name, struct speckv_stats *stats);
int speckv_pool_stats_reset(struct speckv_device *dev, const char *name);
/** Check only: the result of speckv_pool_stats_reset(); changes nothing. */
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
	/** incremented per event of one log (the device's, or one pool's); starts at 1 */
	uint64_t sequence;
	uint64_t time_ns;
	uint32_t kind, severity, pid, reserved;
	char pool[SPECKV_NAME_BYTES]; /**< empty: the device's own log */
	char text[160];
};
typedef int (*speckv_event_cb)(const struct speckv_event *event, void *arg);
/**
 * Events of one log with sequence > after, oldest first (the logs are rings: old events are
 * overwritten). pool NULL: the device's.
 */
int speckv_events(struct speckv_device *dev, const char *pool, uint64_t after, speckv_event_cb cb,
	void *arg);
const char *speckv_event_kind_name(unsigned int kind);

#ifdef __cplusplus
}
#endif
#endif

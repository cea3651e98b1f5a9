/* SPDX-License-Identifier: MIT */
/**
 * speckv/block.h - blocks: put, get, lookup, prefetch, touch, drop; allocations. For serving
 * engines.
 *
 * All calls take batches. The synchronous ones make no system call and no heap allocation in steady
 * state. Blocks are immutable once put; a put of an existing key is a no-op. A get never returns
 * wrong bytes: every section's CRC-32C is verified; on a mismatch the get is a miss (-EBADMSG), an
 * event is logged, and the buffer is zeroed.
 */
#ifndef SPECKV_BLOCK_H
#define SPECKV_BLOCK_H

#include <speckv/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct speckv_key {
	uint8_t bytes[SPECKV_KEY_BYTES];
};

enum speckv_attach_flags {
	/** no client slot, no counters, no touch: for users with read permission only */
	SPECKV_ATTACH_READ_ONLY = 1u << 0,
};
struct speckv_attach {
	const char *tenant; /**< accounting name; NULL: "<command>-<pid>" */
	uint32_t flags;
	/**
	 * threads for asynchronous and shared calls, started at the first one; 0: 2, or `threads` -
	 * 1 if that is more
	 */
	uint32_t workers;
	/** staging buffer (tier L2) for prefetch; 0: 64 MiB, allocated at the first prefetch */
	uint64_t staging_bytes;
};
/**
 * Attach to a pool. `attach` may be NULL. Errors: -ENOENT, -EACCES, -EUSERS (all client slots
 * taken), -EBADMSG (truncated), -EUCLEAN, -EPROTONOSUPPORT, -EBUSY (being created or destroyed);
 * from loading the pool's calibration: -EBADMSG (does not match its digest), -EUCLEAN (lost).
 */
int speckv_pool_open(struct speckv_device *dev, const char *name,
	const struct speckv_attach *attach, struct speckv_pool **out);
/**
 * Detach: waits for submitted operations, frees this client's allocations. No other thread may be
 * in a call on the pool, its operations or its allocations, or begin one (base.h, Threads). NULL is
 * allowed.
 */
void speckv_pool_close(struct speckv_pool *pool);
struct speckv_ctx *speckv_pool_ctx(struct speckv_pool *pool);
/** Raw bytes of one block of this pool. */
uint64_t speckv_pool_block_bytes(const struct speckv_pool *pool);

enum speckv_request_flags {
	/** put: `parent` is the block before this one in the prefix chain */
	SPECKV_REQUEST_HAS_PARENT = 1u << 0,
	SPECKV_REQUEST_EXISTED = 1u << 8, /**< out, put: the key existed */
	SPECKV_REQUEST_STAGED = 1u << 9, /**< out, get: served from the staging buffer */
};
/**
 * One block of a batch. The library reads and writes it until the call returns or its handle
 * completes.
 */
struct speckv_request {
	struct speckv_key key;
	struct speckv_key parent;
	void *buffer; /**< put: raw bytes in; get: raw bytes out */
	/** put: block bytes exactly; get: at least the bytes of the layer range */
	uint64_t buffer_bytes;
	/**
	 * put: position of the block's first token in its sequence; calibrated modes need it to
	 * decode
	 */
	uint64_t first_position;
	uint16_t layer_first, layer_count; /**< get: layer range; count 0: all */
	uint32_t flags; /**< enum speckv_request_flags, in and out */
	/**
	 * out: 0; put: -ENOSPC, -EDQUOT, -EINVAL, -ENODATA...; get: -ENOENT (miss), -EBADMSG (does
	 * not verify)
	 */
	int32_t status;
	uint32_t reserved;
};

/**
 * Put / get a batch. Returns how many succeeded (a put that EXISTED counts), or a negative errno if
 * the batch could not start (-EINVAL, -EOWNERDEAD, -EROFS). Per-block results are in `status`. Once
 * the pool's file was removed or truncated, every status is -ESTALE, also in submitted batches, and
 * the calls below return -ESTALE.
 */
int speckv_put(struct speckv_pool *pool, struct speckv_request *requests, size_t count);
int speckv_get(struct speckv_pool *pool, struct speckv_request *requests, size_t count);
/** present[i] = 1 when keys[i] is stored, else 0. Returns how many are. */
int speckv_lookup(struct speckv_pool *pool, const struct speckv_key *keys, size_t count,
	uint8_t *present);
/** Length of the longest prefix of keys[] that is stored. */
int speckv_lookup_prefix(struct speckv_pool *pool, const struct speckv_key *keys, size_t count);
/**
 * Stage blocks, and with the parameter prefetch_depth = d, chains of up to d blocks: of each block
 * its most recent successor. Asynchronous, on the worker threads. Returns how many were accepted.
 */
int speckv_prefetch(struct speckv_pool *pool, const struct speckv_key *keys, size_t count);
/** Mark as just used. Returns how many were found. */
int speckv_touch(struct speckv_pool *pool, const struct speckv_key *keys, size_t count);
/** Drop. Returns how many were found. */
int speckv_drop(struct speckv_pool *pool, const struct speckv_key *keys, size_t count);
/** Up to `max` successors of `key` in the prefix tree, most recent first. Returns how many. */
int speckv_children(struct speckv_pool *pool, const struct speckv_key *key,
	struct speckv_key *children, size_t max);

/* ---- asynchronous --------------------------------------------------------------------------- */

enum speckv_opcode {
	SPECKV_OP_PUT = 1,
	SPECKV_OP_GET = 2,
	SPECKV_OP_DROP = 3,
	SPECKV_OP_TOUCH = 4,
	SPECKV_OP_PREFETCH = 5,
	SPECKV_OP_LOOKUP = 6
};
/**
 * Start a batch (DROP, TOUCH, PREFETCH, LOOKUP use only `key`; status 0 or -ENOENT). The requests
 * must stay valid until it completes. Errors: -EAGAIN (too many in flight: SPECKV_OPS_MAX),
 * -EINVAL.
 */
#define SPECKV_OPS_MAX 1024
int speckv_submit(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t count, struct speckv_op **out);
/** 1: complete, 0: not yet. Errors: -EOWNERDEAD. */
int speckv_op_poll(struct speckv_op *op);
/**
 * Wait at most timeout_ns (-1: forever). Returns the result of the synchronous call, or -ETIMEDOUT.
 */
int speckv_op_wait(struct speckv_op *op, int64_t timeout_ns);
/**
 * Release the handle, after waiting for its completion, except in a forked child. Call before
 * speckv_pool_close().
 */
void speckv_op_release(struct speckv_op *op);

/* ---- parameters of this attachment ---------------------------------------------------------- */

/**
 * prefetch_depth  1..16   blocks that speckv_prefetch() stages per key, along its chain (default 1)
 * codec           name    mode for puts through this attachment (default: the pool's)
 * verify          on|off  read back and verify each put before it is published (default off)
 * threads         1..64   threads that share the blocks of one put or get: the caller and workers
 *                         (default 1: the caller)
 * Errors: -EINVAL with a text that lists the accepted keys or values; -EOPNOTSUPP.
 */
int speckv_param_set(struct speckv_pool *pool, const char *key, const char *value);
/** Writes the value as text. Errors: -EINVAL, -ENOSPC (buffer too small). */
int speckv_param_get(struct speckv_pool *pool, const char *key, char *value, size_t value_bytes);

/* ---- allocations: unsealed fills ------------------------------------------------------------ */

/**
 * Allocate zeroed pool memory for this client; freed by speckv_mem_free(), at close, and when the
 * process dies. Errors: -ENOSPC, -EDQUOT, -EINVAL, -EROFS.
 */
int speckv_mem_alloc(struct speckv_pool *pool, uint64_t bytes, struct speckv_mem **out);
void speckv_mem_free(struct speckv_mem *mem);
uint64_t speckv_mem_bytes(const struct speckv_mem *mem);
/** Pool-virtual address. */
uint64_t speckv_mem_address(const struct speckv_mem *mem);
/** Pointer to a range, valid until the allocation is freed. Errors: -ERANGE. */
int speckv_mem_access(struct speckv_mem *mem, uint64_t offset, uint64_t bytes, void **pointer);
/** Prefetch a range (page-in, cache): a hint. Errors: -ERANGE. */
int speckv_mem_prefetch(struct speckv_mem *mem, uint64_t offset, uint64_t bytes);
/** Seal an allocation that holds one raw block: put it under `key`, and free the allocation. */
int speckv_mem_seal(struct speckv_mem *mem, const struct speckv_request *request);

/* ---- keys ----------------------------------------------------------------------------------- */

/**
 * Everything that makes the KV of equal tokens different. Strings may be NULL (empty); none is
 * truncated.
 */
struct speckv_key_spec {
	uint8_t model_digest[32];
	struct speckv_geometry geometry; /**< `layers` of the engine's KV-cache group */
	const char *rope; /**< RoPE kind and parameters, canonical text */
	const char *scales; /**< KV scales (fp8), canonical text */
	/** flags: 1 = single tenant: short hashes are accepted */
	uint32_t parallel_rank, parallel_size, group, flags;
	const char *tenant_secret;
	const char *cache_salt;
};
/**
 * Key of an engine's block hash. Errors: -EINVAL, -EPERM (hash under 16 bytes and not single
 * tenant).
 */
int speckv_key_derive(const struct speckv_key_spec *spec, const void *engine_hash,
	size_t hash_bytes, struct speckv_key *out);

#ifdef __cplusplus
}
#endif
#endif

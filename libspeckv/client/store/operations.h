/* SPDX-License-Identifier: MIT */
/*
 * Operations by kind of device, set when a name is parsed. Code above store/ does not test the
 * kind: capabilities are fields. Included by store.h; implemented in backend/.
 */
#ifndef SPECKV_CLIENT_OPERATIONS_H
#define SPECKV_CLIENT_OPERATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <speckv/speckv.h>

struct region;
struct medium;
struct lay_pool_record;
struct region_plan;

/* A run of pages, and the generation of its block. */
struct run {
	uint64_t page, generation;
	uint32_t pages;
};
/* A block as found in the index. */
struct block_ref {
	uint64_t entry, generation, page;
	uint32_t pages, frame_bytes, raw_bytes, tenant;
};

/* Layers [first, first + count) of a block. */
struct layers {
	unsigned int first, count;
};

#define READS_MOST 16 /* per thread, in progress at once */
/* Reads of a group of blocks, by one thread. */
struct reads {
	struct region *region;
	void *lane; /* private to the backend */
	unsigned int depth; /* slots; 0: reads_begin() failed */
	int error; /* the errno of reads_begin() */
	struct block_ref found[READS_MOST]; /* block in progress in each slot */
	struct layers layers[READS_MOST];
	bool frame[READS_MOST];
};

/*
 * Access to the bytes of a pool's blocks. Errors of every operation that reaches a device: -ENODEV
 * (no answer), -EACCES (no right to this pool any more); the state of the block is then unknown.
 * Thread-safe, except that a `struct reads` belongs to one thread.
 */
struct pool_backend {
	int (*open)(struct region *region); /* -ENOMEM; no text */
	/*
	 * `child`: in a forked child, where another thread may have been inside the backend at
	 * fork()
	 */
	void (*close)(struct region *region, bool child);
	/* A call on blocks begins: a state of the device found for an earlier one is not its own. */
	void (*begin)(struct region *region);
	/*
	 * Is the device reachable, with this pool's rights? Called before an eviction for a write.
	 * Text set.
	 */
	int (*connect)(struct region *region);
	/*
	 * Encode one block of raw bytes into a run that this process has claimed. `verify`: read
	 * back what was written, where the backend does not do so anyway. On failure the run holds
	 * no block. -ENODATA: non-finite. -EIO: it did not reach the medium. -EHWPOISON: the memory
	 * of this run went bad.
	 */
	int (*write)(struct region *region, const struct run *run, unsigned int codec,
		const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
		bool verify, uint64_t *frame_bytes);
	/*
	 * Decode layers of a block. `ahead`: prefetch; -EBUSY: no bandwidth for that. -ENOENT: no
	 * such block. Others: the block is bad.
	 */
	int (*read)(struct region *region, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers, bool ahead, void *raw,
		uint64_t bytes);
	/*
	 * Pipelined reads of a group of blocks. reads_begin() gets the whole group, with `found`
	 * valid where `present`, and returns the number of slots (0: failed, see reads->error).
	 * read_start() is optional. read_take() completes the read in the slot if it is of this
	 * block and these layers, else reads synchronously. Between begin and end this thread may
	 * only call invalidate, clear and copy: read, write and frame wait for a connection's lane.
	 */
	unsigned int (*reads_begin)(struct region *region, struct reads *reads,
		const struct block_ref *found, const uint8_t *present, size_t n);
	void (*read_start)(struct reads *reads, unsigned int slot, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers);
	int (*read_take)(struct reads *reads, unsigned int slot, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers, void *raw, uint64_t bytes);
	void (*reads_end)(struct reads *reads);
	/*
	 * The frame of a run, readable until the run is freed. `*copy`: NULL, or for the caller to
	 * free. -EBADMSG: no frame of this generation.
	 */
	int (*frame)(struct region *region, uint64_t page, uint64_t generation, uint64_t room,
		const uint8_t **at, uint8_t **copy);
	/*
	 * Copy a block to a run that this process has claimed, and rewrite its identity for the new
	 * place. -EAGAIN: the source holds another block by now.
	 */
	int (*copy)(struct region *region, const struct speckv_key *key,
		const struct block_ref *from, const struct run *to);
	/*
	 * Invalidate the block of this run. -EINPROGRESS: sent, the completion was lost. -EHWPOISON
	 * as above.
	 */
	int (*invalidate)(struct region *region, const struct run *run);
	/* Invalidate all blocks in these pages. */
	int (*clear)(struct region *region, uint64_t page, uint64_t pages);
};

/*
 * A kind of device. The pool operations are called between device_manage() and device_unmanage()
 * only.
 */
struct device_backend {
	/* subfolder of the runtime folder for the tables of such devices; NULL: none */
	const char *folder;
	/*
	 * The device stores the blocks and is authoritative for its pools. The table and the pools'
	 * tables on this machine are a cache, rebuilt where they differ.
	 */
	bool keeps_blocks;
	const struct pool_backend *pool;
	int (*probe)(struct speckv_ctx *ctx, const struct medium *medium,
		struct speckv_device_info *info);
	/*
	 * Connect and, unless `inspect`, synchronize the table with the device. unmanage() without
	 * manage() is a no-op.
	 */
	int (*manage)(struct speckv_device *dev, bool inspect);
	void (*unmanage)(struct speckv_device *dev);
	/* Memory left for data of pools, beyond the limits of the medium's files. */
	uint64_t (*room)(struct speckv_device *dev);
	/* Sets the record's generation to the device's. */
	int (*pool_create)(struct speckv_device *dev, const struct speckv_pool_config *config,
		const struct region_plan *plan, struct lay_pool_record *record);
	int (*pool_delete)(struct speckv_device *dev, const uint8_t uuid[16]);
	int (*pool_resize)(struct speckv_device *dev, const struct lay_pool_record *record,
		uint64_t capacity_bytes, bool dry_run);
	int (*pool_owner)(struct speckv_device *dev, const struct lay_pool_record *record,
		uint32_t uid, uint32_t gid, uint32_t mode);
	/*
	 * Test the memory behind its pools; `step` is called for each step. Non-destructive,
	 * allowed at any time.
	 */
	void (*selftest)(struct speckv_device *dev, speckv_selftest_cb step, void *arg);
};

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What differs from one kind of device to another: tables of operations, set when a name is parsed.
 * Above store/ nothing asks which one it is; what it can do, it says in a field. Included by
 * store.h; implemented in backend/.
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

/* Pages in a row, and the block that they are of. */
struct run {
	uint64_t page, generation;
	uint32_t pages;
};
/* A block as the index has it. */
struct block_ref {
	uint64_t entry, generation, page;
	uint32_t pages, frame_bytes, raw_bytes, tenant;
};

/* Layers [first, first + count) of a block. */
struct layers {
	unsigned int first, count;
};

#define READS_MOST 16 /* that one thread may have under way */
/* The reads of a group of blocks, by one thread. */
struct reads {
	struct region *region;
	void *lane; /* the backend's own */
	unsigned int depth; /* slots; 0: reads_begin() failed */
	int error; /* why it did */
	struct block_ref found[READS_MOST]; /* under way in each slot */
	struct layers layers[READS_MOST];
	bool frame[READS_MOST];
};

/*
 * Where the bytes of a pool's blocks lie. Errors of every operation that reaches a device: -ENODEV
 * (it does not answer), -EACCES (no right to this pool any more); nothing is known of the block
 * then. Threads: any, but a `struct reads` is of one.
 */
struct pool_backend {
	int (*open)(struct region *region); /* -ENOMEM; no text */
	/* `child`: of a fork, where another thread may have been at work */
	void (*close)(struct region *region, bool child);
	/*
	 * Can it be reached, with this pool's rights? Asked before something is evicted for a
	 * write. Text set.
	 */
	int (*connect)(struct region *region);
	/*
	 * Encode one block of raw bytes into a run that this process holds; `verify`: read back
	 * what was written, where nothing else does. Nothing is there where it fails. -ENODATA:
	 * non-finite. -EIO: it did not reach the medium. -EHWPOISON: the memory of this run went
	 * bad.
	 */
	int (*write)(struct region *region, const struct run *run, unsigned int codec,
		const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
		bool verify, uint64_t *frame_bytes);
	/*
	 * Layers of a block. `ahead`: of need; -EBUSY: no bandwidth for that. -ENOENT: there is no
	 * such block. Others: it is bad.
	 */
	int (*read)(struct region *region, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers, bool ahead, void *raw,
		uint64_t bytes);
	/*
	 * Several reads at once. reads_begin() is told the whole group, of which those `present`
	 * were found, and returns how many may be under way; read_start() may be left out.
	 * read_take() is a read() that uses what was started in the slot, if it is the same.
	 * Between begin and end no other operation of this thread may be a read or a write.
	 */
	unsigned int (*reads_begin)(struct region *region, struct reads *reads,
		const struct block_ref *found, const uint8_t *present, size_t n);
	void (*read_start)(struct reads *reads, unsigned int slot, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers);
	int (*read_take)(struct reads *reads, unsigned int slot, const struct speckv_key *key,
		const struct block_ref *found, struct layers layers, void *raw, uint64_t bytes);
	void (*reads_end)(struct reads *reads);
	/*
	 * The frame of a run: where it can be read, until it is freed. `*copy`: NULL, or for the
	 * caller to free. -EBADMSG: none of this generation.
	 */
	int (*frame)(struct region *region, uint64_t page, uint64_t generation, uint64_t room,
		const uint8_t **at, uint8_t **copy);
	/*
	 * Copy a block to a run that this process holds, under its new place. -EAGAIN: it is not
	 * that block any more.
	 */
	int (*copy)(struct region *region, const struct speckv_key *key,
		const struct block_ref *from, const struct run *to);
	/*
	 * Forget the block of this run. -EINPROGRESS: whether that was done is not known.
	 * -EHWPOISON as above.
	 */
	int (*invalidate)(struct region *region, const struct run *run);
	/* Forget all blocks in these pages. */
	int (*clear)(struct region *region, uint64_t page, uint64_t pages);
};

/*
 * A kind of device. The pool operations are called between device_manage() and device_unmanage()
 * only.
 */
struct device_backend {
	/* in the runtime folder, of what this machine keeps of such devices; NULL: none */
	const char *folder;
	/*
	 * The blocks lie in the device, which is the truth about its pools; what lies here is
	 * tables, made again from it where they do not agree.
	 */
	bool keeps_blocks;
	const struct pool_backend *pool;
	int (*probe)(struct speckv_ctx *ctx, const struct medium *medium,
		struct speckv_device_info *info);
	/*
	 * Connect and, unless to inspect only, bring the table in line with the device. unmanage()
	 * harms nothing where it was not.
	 */
	int (*manage)(struct speckv_device *dev, bool inspect);
	void (*unmanage)(struct speckv_device *dev);
	/* Memory that is left for data of pools: beyond what the medium's files are limited by. */
	uint64_t (*room)(struct speckv_device *dev);
	/* The record gets the device's generation. */
	int (*pool_create)(struct speckv_device *dev, const struct speckv_pool_config *config,
		const struct region_plan *plan, struct lay_pool_record *record);
	int (*pool_delete)(struct speckv_device *dev, const uint8_t uuid[16]);
	int (*pool_resize)(struct speckv_device *dev, const struct lay_pool_record *record,
		uint64_t capacity_bytes, bool dry_run);
	int (*pool_owner)(struct speckv_device *dev, const struct lay_pool_record *record,
		uint32_t uid, uint32_t gid, uint32_t mode);
	/*
	 * Test the memory behind its pools, a call of `step` for each. Changes nothing that is
	 * stored; any time.
	 */
	void (*selftest)(struct speckv_device *dev, speckv_selftest_cb step, void *arg);
};

#endif

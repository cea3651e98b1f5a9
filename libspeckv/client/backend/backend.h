/* SPDX-License-Identifier: MIT */
/* How the bytes of a block are written and read, in mapped memory and in a card. For this folder, pool/ and admin/. */
#ifndef SPECKV_CLIENT_BACKEND_H
#define SPECKV_CLIENT_BACKEND_H

#include "client/store/store.h"

/* ---- frames.c: frames in this pool's mode ------------------------------------------------------------------------ */

/* Can this pool hold frames of a mode? The reason: -EOPNOTSUPP, text set. */
int frame_possible(struct region *region, unsigned int codec);
int frame_encode(struct region *region, unsigned int codec, const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, void *frame,
		 uint64_t capacity, uint64_t *frame_bytes);
/* Layers of the frame at `at`, if it is this block's frame in this place of this pool. */
int frame_decode(struct region *region, const struct speckv_key *key, const struct found *found, const void *at, uint64_t available, unsigned int first,
		 unsigned int layers, void *raw, uint64_t bytes);

/* ---- card_io.c: the bytes of a pool that lies in a card. -ENODEV: it does not answer; nothing was changed -------- */

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
extern const struct pool_backend card_backend;
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

/* ---- card_pools.c: a card's pools; between device_manage() and device_unmanage() only ---------------------------- */

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

#endif

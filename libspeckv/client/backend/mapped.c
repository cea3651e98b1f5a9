// SPDX-License-Identifier: MIT
/*
 * Pool backend for blocks in mapped memory: a pool's file, or its extents of a medium of fixed
 * size.
 */
#include "backend.h"

static uint8_t *bytes_at(struct region *r, uint64_t page)
{
	return r->data + (page << r->page_shift);
}

static int mapped_open(struct region *r)
{
	return 0;
}

static void mapped_close(struct region *r, bool child)
{
}

static void mapped_begin(struct region *r)
{
}

static int mapped_write(struct region *r, const struct run *run, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, bool verify,
	uint64_t *frame_bytes)
{
	uint8_t *frame = bytes_at(r, run->page);
	int rc = frame_encode(r, codec, identity, raw, bytes, frame,
		(uint64_t)run->pages << r->page_shift, frame_bytes);

	if (!rc && verify)
		rc = speckv_frame_verify(frame, *frame_bytes);
	return rc ? rc : region_flush(r, frame, *frame_bytes);
}

static int mapped_read(struct region *r, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead, void *raw, uint64_t bytes)
{
	return frame_decode(r, key, found, bytes_at(r, found->page),
		(uint64_t)found->pages << r->page_shift, layers, raw, bytes);
}

/*
 * GCC considers a function that only prefetches free of side effects and deletes its calls: always
 * inline these two.
 */
#define PREFETCHING static inline __attribute__((always_inline))

/* Prefetch a frame's header and section table. */
PREFETCHING void prefetch_frame(struct region *r, const struct block_ref *found)
{
	const uint8_t *at = bytes_at(r, found->page);

	for (unsigned int line = 0; line < 8; line++)
		__builtin_prefetch(at + line * 64);
}

/*
 * Prefetch one line of every page of a frame, to fill the TLB: frames are scattered. Page-table
 * walks started together, well before the copy, overlap; the copy itself would wait for one after
 * the other.
 */
PREFETCHING void prefetch_pages(struct region *r, const struct block_ref *found)
{
	/* bounded so that a whole group fits the second-level TLB */
	enum { PAGE = 4096, MOST = 17 * PAGE };
	const uint8_t *at = bytes_at(r, found->page);
	uint64_t bytes = (uint64_t)found->pages << r->page_shift;

	for (uint64_t offset = 0; offset < bytes && offset < MOST; offset += PAGE)
		__builtin_prefetch(at + offset);
}

static unsigned int mapped_reads_begin(struct region *r, struct reads *reads,
	const struct block_ref *found, const uint8_t *present, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (present[i])
			prefetch_pages(r, &found[i]);
	reads->region = r;
	return reads->depth = 2; /* one decodes while the next frame's header is fetched */
}

static void mapped_read_start(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers)
{
	prefetch_frame(reads->region, found);
}

static int mapped_read_take(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, void *raw, uint64_t bytes)
{
	return mapped_read(reads->region, key, found, layers, false, raw, bytes);
}

static void mapped_reads_end(struct reads *reads)
{
}

static int mapped_frame(struct region *r, uint64_t page, uint64_t generation, uint64_t room,
	const uint8_t **at, uint8_t **copy)
{
	*at = bytes_at(r, page); /* the frame holds its generation */
	*copy = NULL;
	return 0;
}

/* Copy the frame, then write the new address into its header. */
static int mapped_copy(struct region *r, const struct speckv_key *key, const struct block_ref *from,
	const struct run *to)
{
	uint64_t room = (uint64_t)to->pages << r->page_shift;
	struct speckv_frame_identity identity;
	uint8_t *at = bytes_at(r, to->page);
	struct speckv_frame frame;
	int rc;

	memcpy(at, bytes_at(r, from->page), (uint64_t)from->pages << r->page_shift);
	rc = index_current(r, from) ? speckv_frame_parse(at, room, &frame) : -EAGAIN;
	if (!rc) {
		identity = frame.identity;
		identity.generation = to->generation;
		identity.pool_address = to->page << r->page_shift;
		rc = speckv_frame_readdress(at, room, &identity);
	}
	if (!rc)
		rc = speckv_frame_verify(at, room);
	return rc ? rc : region_flush(r, at, frame.frame_bytes);
}

/* No-op: the page map alone defines what is a block. */
static int mapped_invalidate(struct region *r, const struct run *run)
{
	return 0;
}

static int mapped_clear(struct region *r, uint64_t page, uint64_t pages)
{
	return 0;
}

static const struct pool_backend mapped_pool = {
	.open = mapped_open,
	.close = mapped_close,
	.begin = mapped_begin,
	.connect = mapped_open,
	.write = mapped_write,
	.read = mapped_read,
	.reads_begin = mapped_reads_begin,
	.read_start = mapped_read_start,
	.read_take = mapped_read_take,
	.reads_end = mapped_reads_end,
	.frame = mapped_frame,
	.copy = mapped_copy,
	.invalidate = mapped_invalidate,
	.clear = mapped_clear,
};

/* ---- its device: no state beyond the table -------------------------------------------------- */

static int mapped_manage(struct speckv_device *dev, bool inspect)
{
	return 0;
}

static void mapped_unmanage(struct speckv_device *dev)
{
}

static uint64_t mapped_room(struct speckv_device *dev)
{
	return UINT64_MAX;
}

static int mapped_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	const struct region_plan *plan, struct lay_pool_record *record)
{
	return 0;
}

static int mapped_pool_delete(struct speckv_device *dev, const uint8_t uuid[16])
{
	return 0;
}

static int mapped_pool_resize(struct speckv_device *dev, const struct lay_pool_record *record,
	uint64_t capacity_bytes, bool dry_run)
{
	return 0;
}

static int mapped_pool_owner(struct speckv_device *dev, const struct lay_pool_record *record,
	uint32_t uid, uint32_t gid, uint32_t mode)
{
	return 0;
}

const struct device_backend mapped_device = {
	.pool = &mapped_pool,
	.probe = medium_probe,
	.manage = mapped_manage,
	.unmanage = mapped_unmanage,
	.room = mapped_room,
	.pool_create = mapped_pool_create,
	.pool_delete = mapped_pool_delete,
	.pool_resize = mapped_pool_resize,
	.pool_owner = mapped_pool_owner,
	.selftest = mapped_selftest,
};

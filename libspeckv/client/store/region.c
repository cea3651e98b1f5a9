// SPDX-License-Identifier: MIT
/*
 * Mapping a pool's region, and following a resize. Its layout and creation: region_plan.c,
 * region_make.c.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

/* ---- map ------------------------------------------------------------------------------------ */

static int map_piece(struct region *r, uint64_t region_offset, uint64_t file_offset, uint64_t bytes)
{
	void *at = mmap(r->base + region_offset, bytes, PROT_READ | (r->writable ? PROT_WRITE : 0),
		MAP_SHARED | MAP_FIXED | MAP_NORESERVE, r->fd, (off_t)file_offset);

	if (at == MAP_FAILED)
		return -errno;
	/* inherited by neither this piece nor the reserved range */
	madvise(at, bytes, MADV_DONTFORK);
	return 0;
}

/*
 * Map a record's extents end to end, except where already mapped. An extent may have grown in
 * place, or have been cut by a shrink and reallocated elsewhere by a growth, since this process
 * last followed.
 */
static int map_extents(struct region *r, const struct lay_pool_record *record)
{
	uint64_t at = 0, was = 0;
	int rc = 0;

	for (unsigned int i = 0; i < LAY_EXTENTS; i++) {
		struct lay_extent from = r->mapped[i], to = { 0 };
		uint64_t have;

		if (i < record->extents && !rc)
			to = record->extent[i];
		have = was == at && from.offset == to.offset ? from.bytes : 0;
		if (to.bytes > r->fixed.region_bytes - at)
			rc = -EUCLEAN;
		else if (to.bytes > have)
			rc = map_piece(r, at + have, to.offset + have, to.bytes - have);
		if (rc)
			to.bytes = 0;
		r->mapped[i] = to; /* a cut piece is mapped again when it returns */
		was += from.bytes;
		at += to.bytes;
	}
	return rc;
}

static uint64_t mapped_bytes(const struct region *r)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < LAY_EXTENTS; i++)
		bytes += r->mapped[i].bytes;
	return bytes;
}

static int open_fds(struct speckv_device *dev, const struct lay_pool_record *record, bool writable,
	struct region *r)
{
	int flags = writable ? O_RDWR : O_RDONLY;
	struct speckv_ctx *ctx = dev->ctx;
	const char *name = record->name;
	struct stat st = { 0 };
	struct folder pools;
	int rc;

	if (dev->single_inode) {
		snprintf(r->path, sizeof(r->path), "%s", dev->medium.path);
		r->fd = medium_open(ctx, &dev->medium, &dev->folder, flags);
		r->lock_fd = r->fd < 0 ? r->fd : pool_lock_open(dev, NULL, record, writable);
		if (r->lock_fd >= 0 && !file_same(&dev->folder, dev->medium.path, dev->fd))
			return fail(ctx, -ESTALE,
				"%s was recreated since it was opened: open the device again",
				dev->medium.name);
		return r->lock_fd < 0 ? r->lock_fd : 0;
	}
	if (medium_pool_path(&dev->medium, name, r->path))
		return fail(ctx, -ENAMETOOLONG, "%s: path too long", name);
	rc = medium_pools(ctx, &dev->medium, &dev->folder, 0, &pools);
	if (!rc) {
		r->fd = region_file_open(dev, &pools, record, flags);
		r->lock_fd = r->fd < 0 ? r->fd : pool_lock_open(dev, &pools, record, writable);
		rc = r->fd < 0 ? r->fd : writable && r->lock_fd < 0 ? r->lock_fd : 0;
		if (rc == -EACCES && r->fd < 0 &&
			fstatat(pools.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			st.st_uid == record->uid && st.st_uid != geteuid())
			rc = fail(ctx, -EACCES,
				"pool %s: no %s permission: it belongs to uid %u, gid %u, mode %04o; 'speckvctl pool set %s %s --owner or --mode' changes that",
				name, writable ? "write" : "read", st.st_uid, st.st_gid,
				st.st_mode & 07777, dev->medium.name, name);
		folder_close(&pools);
	}
	return rc == -ENOENT
		? fail(ctx, -EUCLEAN,
			  "pool %s: its file %s is gone; 'speckvctl pool destroy' removes what is left",
			  name, r->path)
		: rc;
}

/* Read the header, and check it against its record and its file's size. Text set. */
static int read_head(struct region *r, const char *name, const struct lay_pool_record *record)
{
	struct speckv_ctx *ctx = r->dev->ctx;
	bool single = r->dev->single_inode;
	struct lay_pool *probe;
	uint64_t offset;
	struct stat st;

	offset = single ? record->extent[0].offset : 0;
	if (r->fd < 0 || fstat(r->fd, &st) != 0 ||
		(!r->dev->medium.node && (uint64_t)st.st_size < offset + sizeof(struct lay_pool)))
		return fail(ctx, -EBADMSG,
			"pool %s: its file %s was truncated; 'speckvctl pool destroy' removes what is left",
			name, r->path);
	probe = mmap(NULL, single ? LAY_UNIT : sizeof(*probe), PROT_READ, MAP_SHARED, r->fd,
		(off_t)offset);
	if (probe == MAP_FAILED)
		return fail(ctx, -errno, "pool %s: cannot map %s: %s", name, r->path,
			strerror(errno));
	memcpy((void *)&r->fixed, (const void *)probe, sizeof(r->fixed));
	munmap(probe, single ? LAY_UNIT : sizeof(*probe));
	if (r->fixed.magic == LAY_POOL_MAGIC && r->fixed.version != LAY_VERSION)
		return fail(ctx, -EPROTONOSUPPORT,
			"pool %s has layout version %u; this build reads version %u: use the release that made it",
			name, r->fixed.version, LAY_VERSION);
	if (r->fixed.magic != LAY_POOL_MAGIC || load_acquire(&r->fixed.state) != LAY_MEDIUM_READY ||
		!region_head_sane(&r->fixed, record))
		return fail(ctx, -EUCLEAN,
			"pool %s: its header in %s is %s; 'speckvctl pool destroy' removes it",
			name, r->path,
			r->fixed.magic == LAY_POOL_MAGIC &&
					load_acquire(&r->fixed.state) == LAY_MEDIUM_MAKING
				? "incomplete"
				: "damaged");
	r->mapped_bytes = r->dev->medium.backend->keeps_blocks ? r->fixed.data_offset
							       : r->fixed.region_bytes;
	if (!single && (uint64_t)st.st_size < r->mapped_bytes) {
		char have[32], want[32];

		return fail(ctx, -EBADMSG,
			"pool %s: its file %s was truncated (%s of %s); 'speckvctl pool destroy' removes what is left",
			name, r->path, human(have, (uint64_t)st.st_size),
			human(want, r->mapped_bytes));
	}
	return 0;
}

/* Reserve addresses for the pool's largest size, so that pointers stay valid. NULL: errno. */
static uint8_t *reserve_addresses(uint64_t bytes)
{
	uint8_t *base = mmap(NULL, bytes + LAY_UNIT, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t skip;

	if (base == MAP_FAILED)
		return NULL;
	/* aligned to the unit, as devdax requires */
	skip = (LAY_UNIT - (uintptr_t)base % LAY_UNIT) % LAY_UNIT;
	if (skip)
		munmap(base, skip);
	base += skip;
	munmap(base + bytes, LAY_UNIT - skip);
	return base;
}

static int map_all(struct region *r, const char *name, const struct lay_pool_record *record)
{
	bool single = r->dev->single_inode;
	int rc = single ? map_extents(r, record) : map_piece(r, 0, 0, r->mapped_bytes);

	if (!rc && single && mapped_bytes(r) < r->fixed.data_offset)
		rc = -EUCLEAN; /* the record does not cover the pool's tables */
	if (rc)
		return fail(r->dev->ctx, rc, "pool %s: cannot map it: %s", name, strerror(-rc));
	/* where the system allows it for shared memory */
	madvise(r->base, r->mapped_bytes, MADV_HUGEPAGE);
	return 0;
}

/* The parts of a mapped region, and its constants. */
static void find_parts(struct region *r)
{
	r->head = (struct lay_pool_head *)r->base;
	r->directory = (struct lay_bucket *)(r->base + r->fixed.directory_offset);
	r->page_map = (_Atomic uint64_t *)(r->base + r->fixed.page_map_offset);
	r->entries = (struct lay_entry *)(r->base + r->fixed.entry_offset);
	r->data = r->dev->medium.backend->keeps_blocks ? NULL : r->base + r->fixed.data_offset;
	r->page_bytes = r->fixed.page_bytes;
	r->page_shift = (uint32_t)__builtin_ctz(r->page_bytes);
	r->min_run = r->fixed.min_run;
	r->durable = r->dev->durability == SPECKV_DURABLE_POWER;
	r->backend = r->dev->medium.backend->pool;
}

static int open_once(struct speckv_device *dev, const char *name, bool writable, struct region *r)
{
	struct lay_pool_record record;
	bool guarded;
	int rc;

	memset(r, 0, sizeof(*r));
	r->dev = dev;
	r->fd = r->lock_fd = r->own_slot = -1;
	r->writable = writable;
	r->record = device_find(dev, name, &record);
	if (r->record < 0)
		return r->record;
	memcpy(r->digest, record.calibration, sizeof(r->digest));
	pthread_mutex_init(&r->remap, NULL);
	pthread_mutex_init(&r->reaping, NULL);
	fork_hold();
	rc = open_fds(dev, &record, writable, r);
	guarded = !rc;
	if (guarded)
		fork_guard_add_held(&r->guard, r->lock_fd, NULL, 0);
	fork_let();
	if (rc)
		goto bad;
	rc = read_head(r, name, &record);
	if (rc)
		goto bad;
	r->base = reserve_addresses(r->mapped_bytes);
	if (!r->base) {
		rc = fail(dev->ctx, -errno, "pool %s: no address space for it: %s", name,
			strerror(errno));
		goto bad;
	}
	rc = map_all(r, name, &record);
	if (rc)
		goto bad;
	find_parts(r);
	if (r->backend->open(r) != 0) {
		rc = fail(dev->ctx, -ENOMEM, "out of memory");
		goto bad;
	}
	store_release(&r->size_sequence, ~0ull);
	region_pages(r);
	lost_watch(r->base, r->mapped_bytes, &r->lost);
	fork_guard_map(&r->guard, r->base, r->mapped_bytes);
	return 0;
bad:
	if (r->base)
		munmap(r->base, r->mapped_bytes);
	if (guarded)
		fork_guard_release(&r->guard);
	else if (r->lock_fd >= 0)
		close(r->lock_fd);
	if (r->fd >= 0)
		close(r->fd);
	pthread_mutex_destroy(&r->remap);
	pthread_mutex_destroy(&r->reaping);
	return rc;
}

bool region_there(struct region *r)
{
	const struct lay_pool_record *record = &r->dev->table->pools[r->record];
	uint32_t state = load_acquire(&record->state);

	return (state == SPECKV_POOL_ACTIVE || state == SPECKV_POOL_RESIZING) &&
		record->generation == r->fixed.generation;
}

int region_open_managed(struct speckv_device *dev, const char *name, struct region *r)
{
	int rc = device_usable(dev);

	return rc ? rc : open_once(dev, name, true, r);
}

bool region_useless(int rc)
{
	return rc == -EUCLEAN || rc == -EBADMSG || rc == -EPROTONOSUPPORT || rc == -ENOENT;
}

int region_open(struct speckv_device *dev, const char *name, bool writable, struct region *r)
{
	struct lay_pool_record record;
	int rc, number;

	rc = device_usable(dev);
	if (rc)
		return rc;
	for (int tries = 0;; tries++) {
		rc = open_once(dev, name, writable, r);
		if ((rc != -EUCLEAN && rc != -EBADMSG && rc != -ENOLCK) || tries == 2)
			return rc;
		/* perhaps not damaged but being created or destroyed */
		number = device_find(dev, name, &record);
		if (number < 0)
			return number;
		if (load_acquire(&record.state) != SPECKV_POOL_CREATING &&
			load_acquire(&record.state) != SPECKV_POOL_DESTROYING)
			continue;
		number = device_between(dev, name);
		if (rc == -ENOLCK && number == -EUCLEAN &&
			load_acquire(&record.state) == SPECKV_POOL_DESTROYING)
			/* the missing lock file blocks the removal: return that error's text */
			return open_once(dev, name, writable, r);
		return number;
	}
}

void region_close(struct region *r)
{
	bool child = fork_guard_stale(&r->guard);

	lost_forget(r->base);
	fork_guard_release(&r->guard);
	r->backend->close(r, child);
	speckv_calibration_free(r->calibration);
	close(r->fd);
	if (child) /* another thread may have held the mutexes at fork() */
		return;
	pthread_mutex_destroy(&r->remap);
	pthread_mutex_destroy(&r->reaping);
}

/* ---- size ----------------------------------------------------------------------------------- */

static uint64_t follow(struct region *r)
{
	uint64_t sequence, pages;

	pthread_mutex_lock(&r->remap);
	sequence = load_acquire(&r->head->pool.size_sequence);
	pages = load_acquire(&r->head->pool.data_pages);
	if (load_acquire(&r->head->pool.state) != LAY_MEDIUM_READY ||
		memcmp(r->head->pool.uuid, r->fixed.uuid, sizeof(r->fixed.uuid)) != 0) {
		store_release(&r->gone, true);
		pages = 0;
	}
	if (pages > r->fixed.max_pages)
		pages = r->fixed.max_pages;
	if (r->dev->single_inode && pages) {
		struct lay_pool_record record;
		uint64_t mapped;

		memcpy((void *)&record, (const void *)&r->dev->table->pools[r->record],
			sizeof(record));
		if (record.generation == r->fixed.generation && record_sane(r->dev, &record))
			map_extents(r, &record);
		mapped = mapped_bytes(r);
		mapped = mapped > r->fixed.data_offset
			? (mapped - r->fixed.data_offset) / r->page_bytes
			: 0;
		pages = pages < mapped ? pages : mapped;
	}
	store_release(&r->pages, pages);
	store_release(&r->size_sequence, sequence);
	pthread_mutex_unlock(&r->remap);
	return pages;
}

uint64_t region_pages(struct region *r)
{
	if (__builtin_expect(load_acquire(&r->head->pool.size_sequence) !=
			    load_relaxed(&r->size_sequence),
		    0))
		return follow(r);
	return load_relaxed(&r->pages);
}

int region_grow_backing(struct region *r, uint64_t old_pages, uint64_t new_pages,
	const struct lay_pool_record *record)
{
	uint64_t first = old_pages / r->min_run, last = new_pages / r->min_run + 1;
	int rc;

	if (r->dev->single_inode) {
		rc = map_extents(r, record);
		if (!rc && mapped_bytes(r) < r->fixed.data_offset + new_pages * r->page_bytes)
			rc = -EUCLEAN; /* another writer changed the extents */
		return rc;
	}
	rc = region_reserve(r->fd, r->fixed.page_map_offset + old_pages * 8,
		(new_pages - old_pages) * 8);
	if (!rc)
		rc = region_reserve(r->fd, r->fixed.entry_offset + first * sizeof(struct lay_entry),
			(last - first) * sizeof(struct lay_entry));
	if (!rc && r->data)
		rc = region_reserve(r->fd, r->fixed.data_offset + old_pages * r->page_bytes,
			(new_pages - old_pages) * r->page_bytes);
	return rc;
}

/* Zero pages and free their memory. The mapping stays: a late reader sees zeros, never a fault. */
void region_release_backing(struct region *r, uint64_t from_page, uint64_t to_page)
{
	uint64_t offset = r->fixed.data_offset + from_page * r->page_bytes,
		 bytes = (to_page - from_page) * r->page_bytes;

	if (to_page <= from_page || !r->data)
		return;
	if (r->dev->single_inode ||
		fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			(off_t)bytes) != 0)
		memset(r->base + offset, 0, bytes);
}

int pool_usable(struct speckv_pool *pool, bool write)
{
	if (__builtin_expect(fork_guard_stale(&pool->region.guard), 0))
		return fail(pool->ctx, -EOWNERDEAD,
			"this pool was opened before fork(): open it again in the child");
	if (write && pool->read_only)
		return fail(pool->ctx, -EROFS, "this pool was opened read-only");
	if (pool->read_only) {
		/* a reader has no client slot, so the pool may be destroyed under it */
		region_pages(&pool->region);
		if (load_relaxed(&pool->region.gone))
			return fail(pool->ctx, -ESTALE,
				"pool %s was destroyed since it was opened: open it again",
				pool->region.fixed.name);
	}
	return 0;
}

int pool_lost_text(struct speckv_pool *pool)
{
	return fail(pool->ctx, -ESTALE,
		"pool %s: its file %s was removed or truncated while in use; attach again, or create it again",
		pool->region.fixed.name, pool->region.path);
}

int pool_there(struct speckv_pool *pool)
{
	return region_lost(&pool->region) ? pool_lost_text(pool) : 0;
}

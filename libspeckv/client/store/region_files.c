// SPDX-License-Identifier: MIT
/* Files of pools: validation of headers, opening, removal. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"

uint32_t region_head_crc(const struct lay_pool *pool)
{
	struct lay_pool copy;

	memcpy((void *)&copy, (const void *)pool, sizeof(copy));
	atomic_init(&copy.state, LAY_MEDIUM_READY);
	return speckv_crc32c(0, &copy, offsetof(struct lay_pool, crc));
}

bool region_head_sane(const struct lay_pool *p, const struct lay_pool_record *record)
{
	uint64_t buckets = p->bucket_mask + 1;

	/* bounds first: the sums below cannot wrap */
	if (p->max_pages >= 1ull << 48 || p->max_entries >= 1ull << 32 ||
		p->bucket_mask >= 1ull << 40 || p->directory_offset >= 1ull << 60 ||
		p->page_map_offset >= 1ull << 60 || p->entry_offset >= 1ull << 60 ||
		p->data_offset >= 1ull << 60 || !memchr(p->name, 0, sizeof(p->name)))
		return false;
	return p->crc == region_head_crc(p) && memcmp(p->uuid, record->uuid, 16) == 0 &&
		p->generation == record->generation && p->page_bytes >= 256 &&
		p->page_bytes <= 65536 && !(p->page_bytes & (p->page_bytes - 1)) && p->min_run &&
		p->max_pages && p->max_entries > p->max_pages / p->min_run &&
		!(buckets & p->bucket_mask) && p->page_map_offset % 8 == 0 &&
		p->entry_offset % 8 == 0 && p->directory_offset == sizeof(struct lay_pool_head) &&
		p->page_map_offset >= p->directory_offset + buckets * sizeof(struct lay_bucket) &&
		p->entry_offset >= p->page_map_offset + p->max_pages * 8 &&
		p->data_offset >= p->entry_offset + p->max_entries * sizeof(struct lay_entry) &&
		p->region_bytes == p->data_offset + p->max_pages * p->page_bytes &&
		p->data_offset % 4096 == 0 &&
		p->block_bytes == speckv_geometry_bytes(&p->geometry) && p->block_bytes;
}

int region_file_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, int flags)
{
	struct file_rule rule = pool_file_rule(pools, record->name, record);
	char path[SPECKV_PATH_BYTES];

	if (medium_pool_path(&dev->medium, record->name, path))
		return fail(dev->ctx, -ENAMETOOLONG, "%s: path too long", record->name);
	return file_open(dev->ctx, pools, path, flags, 0, &rule);
}

bool region_file_of(int fd, const struct lay_pool_record *record)
{
	struct stat st;
	bool same;
	void *map;

	if (fstat(fd, &st) != 0)
		return false;
	if (!st.st_size)
		return true;
	if ((uint64_t)st.st_size < offsetof(struct lay_pool, uuid) + sizeof(record->uuid))
		return false;
	map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0); /* hugetlbfs has no read() */
	if (map == MAP_FAILED)
		return false;
	same = memcmp(((const struct lay_pool *)map)->uuid, record->uuid, sizeof(record->uuid)) ==
		0;
	munmap(map, 4096);
	return same;
}

int region_remove(struct speckv_device *dev, const struct lay_pool_record *record, bool dry_run)
{
	struct folder pools;
	char draft[48], lock[48];
	int fd, rc;

	if (!memchr(record->name, 0, sizeof(record->name)) || !name_ok(record->name))
		return fail(dev->ctx, -EUCLEAN, "%s: a record with an invalid pool name",
			dev->medium.name);
	rc = medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, &pools);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	pool_hidden_name(record, "new", draft);
	pool_hidden_name(record, "lock", lock);
	if (!dry_run)
		unlinkat(pools.fd, draft, 0);
	fd = region_file_open(dev, &pools, record, O_RDONLY);
	if (fd < 0) {
		rc = fd == -ENOENT ? 0 : fd;
	} else {
		if (!region_file_of(fd, record))
			rc = fail(dev->ctx, -EEXIST,
				"%s.pools/%s is not the file of pool %s: move it away, 'mv %s.pools/%s /var/tmp/', and destroy the pool again",
				dev->medium.path, record->name, record->name, dev->medium.path,
				record->name);
		else if (!dry_run && unlinkat(pools.fd, record->name, 0) != 0 && errno != ENOENT)
			rc = fail(dev->ctx, -errno, "cannot remove %s.pools/%s: %s",
				dev->medium.path, record->name, strerror(errno));
		close(fd);
	}
	/*
	 * Unlink the file while its record exists: a file without a record has no owner in the
	 * table. Unlink the lock file last: no pool file exists without one.
	 */
	if (!rc && !dry_run &&
		(folder_flush(&pools) != 0 ||
			(unlinkat(pools.fd, lock, 0) == 0 && folder_flush(&pools) != 0)))
		rc = fail(dev->ctx, -EIO,
			"the removal of %s.pools/%s did not reach the medium; the next change of %s finishes it",
			dev->medium.path, record->name, dev->medium.name);
	folder_close(&pools);
	return rc;
}

void region_end(struct region *r)
{
	store_release(&r->head->pool.state, LAY_MEDIUM_GONE);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
}

/* Digest of the calibration in the file (the header has none). Zero where that is damaged. */
static void left_digest(struct speckv_ctx *ctx, int fd, const struct lay_pool *pool,
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES])
{
	const struct lay_calibration *place = &pool->calibration;
	struct speckv_pool_config config = { .codec = pool->codec,
		.geometry = pool->geometry,
		.first_layer = place->first_layer,
		.first_head = place->first_head,
		.calibration_bytes = place->bytes };
	struct speckv_calibration_info info;
	uint8_t *map, *copy;

	if (!place->bytes || place->offset > pool->data_offset ||
		place->bytes > pool->data_offset - place->offset ||
		place->crc != speckv_crc32c(0, place, offsetof(struct lay_calibration, crc)))
		return;
	map = mmap(NULL, pool->data_offset, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	copy = map == MAP_FAILED ? NULL : malloc(place->bytes);
	if (copy) { /* clients may write the shared bytes */
		memcpy(copy, map + place->offset, place->bytes);
		config.calibration = copy;
		if (calibration_judge(ctx, &config, &info) == 0)
			memcpy(digest, info.digest, sizeof(info.digest));
		free(copy);
	}
	if (map != MAP_FAILED)
		munmap(map, pool->data_offset);
}

int region_left(struct speckv_device *dev, const struct folder *pools, const char *name,
	struct lay_pool_record *record)
{
	struct lay_pool *map = MAP_FAILED, pool;
	struct file_rule rule = { .owner = NO_OWNER };
	char path[SPECKV_PATH_BYTES];
	struct stat st;
	uint64_t pages;
	int fd, rc = 0;

	if (medium_pool_path(&dev->medium, name, path))
		return fail(dev->ctx, -ENAMETOOLONG, "%s: path too long", name);
	if (fstatat(pools->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		/*
		 * only trusted users create files in this folder, and only root changes their owner
		 */
		rule.owner = st.st_uid;
		rule.writers = st.st_mode & (S_IWGRP | S_IWOTH);
	}
	fd = file_open(dev->ctx, pools, path, O_RDONLY, 0, &rule);
	if (fd < 0)
		return fd == -ENOENT ? fail(dev->ctx, fd, "it is gone") : fd;
	if (fstat(fd, &st) == 0 && (uint64_t)st.st_size >= sizeof(pool))
		map = mmap(NULL, sizeof(pool), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED) {
		memcpy((void *)&pool, (const void *)map, sizeof(pool));
		munmap(map, sizeof(pool));
	}
	if (map == MAP_FAILED || pool.magic != LAY_POOL_MAGIC || pool.version != LAY_VERSION ||
		load_acquire(&pool.state) != LAY_MEDIUM_READY) {
		rc = fail(dev->ctx, -EUCLEAN, "it is not a pool of layout version %d", LAY_VERSION);
		goto out;
	}
	memset((void *)record, 0, sizeof(*record));
	memcpy(record->uuid, pool.uuid, sizeof(record->uuid));
	record->generation = pool.generation;
	pages = load_acquire(&pool.data_pages);
	if (!region_head_sane(&pool, record) || strcmp(pool.name, name) != 0 ||
		!speckv_codec_name(pool.codec) || pages > pool.max_pages)
		rc = fail(dev->ctx, -EUCLEAN, "its header is damaged, or of another pool");
	else if ((uint64_t)st.st_size < pool.region_bytes)
		rc = fail(dev->ctx, -EBADMSG, "it was truncated");
	if (rc)
		goto out;
	memcpy(record->name, pool.name, sizeof(record->name));
	record->uid = st.st_uid;
	record->gid = st.st_gid;
	record->mode = st.st_mode & 0777;
	record->codec = pool.codec;
	record->capacity_bytes = pages * pool.page_bytes;
	record->max_bytes = pool.max_pages * pool.page_bytes;
	record->table_bytes = pool.page_map_offset + pages * 8 +
		(pages / pool.min_run + 1) * sizeof(struct lay_entry) + pool.calibration.bytes;
	record->created_ns = pool.created_ns;
	left_digest(dev->ctx, fd, &pool, record->calibration);
out:
	close(fd);
	return rc;
}

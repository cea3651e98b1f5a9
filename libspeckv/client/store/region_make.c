// SPDX-License-Identifier: MIT
/*
 * Creation of a pool's region: a draft file linked to its name when complete, or extents of a
 * medium of fixed size.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

int region_reserve(int fd, uint64_t offset, uint64_t bytes)
{
	int rc;

	do
		rc = fallocate(fd, 0, (off_t)offset, (off_t)bytes) == 0 ? 0 : -errno;
	while (rc == -EINTR);
	if (rc == -EOPNOTSUPP) /* posix_fallocate() writes */
		rc = !file_size_allowed(offset + bytes, NULL)
			? -EFBIG
			: -posix_fallocate(fd, (off_t)offset, (off_t)bytes);
	return rc;
}

static void head_init(struct lay_pool_head *head, const struct lay_pool_record *record,
	const struct speckv_pool_config *config, const struct region_plan *plan)
{
	struct lay_pool *pool = &head->pool;
	uint64_t sequence = 0;

	memset((void *)head, 0, sizeof(*head));
	store_release(&pool->state, LAY_MEDIUM_MAKING);
	pool->magic = LAY_POOL_MAGIC;
	pool->version = LAY_VERSION;
	memcpy(pool->uuid, record->uuid, sizeof(pool->uuid));
	pool->generation = record->generation;
	memcpy(pool->name, record->name, sizeof(pool->name));
	pool->created_ns = record->created_ns;
	pool->geometry = config->geometry;
	pool->block_bytes = plan->block_bytes;
	pool->codec = config->codec;
	pool->page_bytes = plan->page_bytes;
	pool->single_tenant = config->single_tenant;
	pool->min_run = plan->min_run;
	pool->max_pages = plan->max_pages;
	pool->max_entries = plan->max_entries;
	pool->bucket_mask = plan->buckets - 1;
	random_bytes(&pool->seed, sizeof(pool->seed));
	pool->directory_offset = plan->directory_offset;
	pool->page_map_offset = plan->page_map_offset;
	pool->entry_offset = plan->entry_offset;
	pool->data_offset = plan->data_offset;
	pool->region_bytes = plan->region_bytes;
	pool->crc = region_head_crc(pool);
	if (plan->calibration_bytes) {
		struct lay_calibration *place = &pool->calibration;

		*place = (struct lay_calibration){ .offset = plan->calibration_offset,
			.bytes = plan->calibration_bytes,
			.first_layer = config->first_layer,
			.first_head = config->first_head };
		place->crc = speckv_crc32c(0, place, offsetof(struct lay_calibration, crc));
		memcpy((uint8_t *)head + plan->calibration_offset, config->calibration,
			plan->calibration_bytes);
	}
	store_release(&pool->data_pages, plan->pages);
	store_release(&pool->quota_pages, config->quota_bytes / plan->page_bytes);
	store_release(&pool->tenant_quota_pages, config->tenant_quota_bytes / plan->page_bytes);
	store_release(&pool->eviction, config->eviction);
	boot_id(pool->boot_id);
	store_release(&pool->stats_since_ns, record->created_ns);
	store_release(&pool->next_run_generation, 1);
	random_bytes(&sequence, sizeof(sequence));
	store_release(&pool->size_sequence, sequence);
}

/* Allocate what the pool needs now. */
static int reserve_all(struct speckv_device *dev, int fd, const struct region_plan *plan)
{
	uint64_t bytes = region_file_bytes(dev, plan);
	int rc = file_extend(fd, bytes) != 0 ? -errno : 0;

	if (!rc && dev->medium.numa_node >= 0) {
		void *all = mmap(NULL, plan->region_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE,
			fd, 0);

		rc = all == MAP_FAILED
			? -errno
			: medium_bind(dev->medium.numa_node, all, plan->region_bytes);
		if (all != MAP_FAILED)
			munmap(all, plan->region_bytes);
	}
	if (!rc)
		rc = region_reserve(fd, 0, plan->page_map_offset);
	if (!rc)
		rc = region_reserve(fd, plan->page_map_offset, plan->pages * 8);
	if (!rc)
		rc = region_reserve(fd, plan->entry_offset,
			(plan->pages / plan->min_run + 1) * sizeof(struct lay_entry));
	if (!rc && plan->calibration_bytes)
		rc = region_reserve(fd, plan->calibration_offset, plan->calibration_bytes);
	if (!rc && !dev->medium.backend->keeps_blocks)
		rc = region_reserve(fd, plan->data_offset, plan->capacity_bytes);
	return rc;
}

/*
 * Link the draft to the pool's name. An existing file is replaced only if it caches the same pool
 * of the device.
 */
static int publish_file(struct speckv_device *dev, const struct folder *pools, const char *draft,
	const struct lay_pool_record *record)
{
	struct lay_pool_record cached;
	char words[SPACE_WORDS];
	int fd;

	if (linkat(pools->fd, draft, pools->fd, record->name, 0) == 0)
		return 0;
	if (errno != EEXIST) {
		fd = errno;
		return fail(dev->ctx, -fd, "cannot make %s.pools/%s: %s", dev->medium.path,
			record->name, space_words(words, pools->fd, 0, fd));
	}
	memcpy((void *)&cached, (const void *)record, sizeof(cached));
	fd = dev->medium.backend->keeps_blocks ? region_file_open(dev, pools, &cached, O_RDONLY)
					       : -EEXIST;
	if (fd >= 0) { /* the cached tables of that pool */
		bool same = region_file_of(fd, record);

		close(fd);
		if (same && unlinkat(pools->fd, record->name, 0) == 0 &&
			linkat(pools->fd, draft, pools->fd, record->name, 0) == 0)
			return 0;
	}
	return fail(dev->ctx, -EEXIST,
		"%s.pools/%s exists and is not a pool of %s: move it away, 'mv %s.pools/%s /var/tmp/', or choose another name",
		dev->medium.path, record->name, dev->medium.name, dev->medium.path, record->name);
}

static int made_flush(struct speckv_device *dev, const void *address, uint64_t bytes)
{
	return dev->durability == SPECKV_DURABLE_POWER ? medium_flush(&dev->medium, address, bytes)
						       : 0;
}

/* Write the tables to a file at `offset`, and mark the pool as ready. */
static int write_tables(struct speckv_device *dev, int fd, uint64_t offset,
	const struct lay_pool_record *record, const struct speckv_pool_config *config,
	const struct region_plan *plan)
{
	/* bytes to map */
	uint64_t tables = plan->calibration_bytes || dev->single_inode ? plan->data_offset
								       : plan->page_map_offset;
	struct lay_pool_head *head =
		mmap(NULL, tables, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	int rc;

	if (head == MAP_FAILED)
		return -errno;
	/* a medium of fixed size has old contents: clear all tables */
	if (dev->single_inode)
		memset((uint8_t *)head + sizeof(*head), 0, tables - sizeof(*head));
	head_init(head, record, config, plan);
	rc = made_flush(dev, head, tables);
	if (!rc) {
		store_release(&head->pool.state, LAY_MEDIUM_READY);
		rc = made_flush(dev, head, sizeof(head->pool));
	}
	munmap(head, tables);
	return rc;
}

static int open_draft(struct speckv_device *dev, const struct folder *pools, const char *draft,
	const struct lay_pool_record *record)
{
	char words[SPACE_WORDS];
	int fd, rc;

	fd = openat(pools->fd, draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0)
		return fd;
	rc = errno;
	return fail(dev->ctx, -rc, "cannot make %s.pools/%s: %s", dev->medium.path, record->name,
		space_words(words, pools->fd, 0, rc));
}

/* Give the draft its owner and mode, and flush it. */
static int finish_draft(int fd, const struct speckv_pool_config *config)
{
	int rc = 0;

	if ((config->uid != geteuid() || config->gid != getegid()) &&
		fchown(fd, config->uid, config->gid) != 0)
		rc = -errno;
	if (!rc && fchmod(fd, config->mode) != 0)
		rc = -errno;
	if (!rc && fsync(fd) != 0)
		rc = -errno;
	return rc;
}

static void unlink_lock(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record)
{
	char lock[48];

	if (dev->medium.backend->keeps_blocks)
		return;
	pool_hidden_name(record, "lock", lock);
	unlinkat(pools->fd, lock, 0);
}

/* Give the complete draft the pool's name, durably. Text set. */
static int publish(struct speckv_device *dev, const struct folder *pools, const char *draft,
	const struct lay_pool_record *record)
{
	int rc = publish_file(dev, pools, draft, record);

	unlinkat(pools->fd, draft, 0);
	if (!rc && folder_flush(pools) != 0) {
		unlinkat(pools->fd, record->name, 0);
		rc = fail(dev->ctx, -EIO,
			"the name of pool %s did not reach the medium: %s.pools cannot be written",
			record->name, dev->medium.path);
	}
	if (rc)
		unlink_lock(dev, pools, record);
	return rc;
}

/* Set the text of an error. `words`: of a full or read-only file system. */
static int not_made(struct speckv_device *dev, const struct lay_pool_record *record,
	const struct speckv_pool_config *config, int rc, const char *words)
{
	if (words && (rc == -ENOSPC || rc == -EROFS))
		return fail(dev->ctx, rc, "cannot make %s.pools/%s: %s", dev->medium.path,
			record->name, words);
	if (rc == -EPERM)
		return fail(dev->ctx, rc,
			"cannot give pool %s to uid %u gid %u: only root may give files away",
			record->name, config->uid, config->gid);
	return fail(dev->ctx, rc, "cannot make pool %s: %s", record->name, strerror(-rc));
}

int region_make(struct speckv_device *dev, const struct lay_pool_record *record,
	const struct speckv_pool_config *config, const struct region_plan *plan)
{
	char draft[48], words[SPACE_WORDS] = "";
	struct folder pools;
	int fd, rc;

	if (dev->single_inode) {
		rc = write_tables(dev, dev->fd, record->extent[0].offset, record, config, plan);
		return rc ? not_made(dev, record, config, rc, NULL) : 0;
	}
	rc = medium_pools(dev->ctx, &dev->medium, &dev->folder, FOLDER_MAKE, &pools);
	if (rc)
		return rc;
	pool_hidden_name(record, "new", draft);
	fd = open_draft(dev, &pools, draft, record);
	if (fd < 0) {
		folder_close(&pools);
		return fd;
	}
	rc = reserve_all(dev, fd, plan);
	if (!rc)
		rc = write_tables(dev, fd, 0, record, config, plan);
	if (!rc)
		rc = finish_draft(fd, config);
	close(fd);
	if (!rc)
		rc = pool_lock_make(&pools, record);
	if (!rc) {
		rc = publish(dev, &pools, draft, record);
		folder_close(&pools);
		return rc;
	}
	if (rc == -ENOSPC || rc == -EROFS) /* while the space is still in use */
		space_words(words, pools.fd, region_backing_bytes(dev, plan), -rc);
	unlinkat(pools.fd, draft, 0);
	unlink_lock(dev, &pools, record);
	folder_close(&pools);
	return not_made(dev, record, config, rc, words);
}

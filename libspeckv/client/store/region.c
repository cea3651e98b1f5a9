// SPDX-License-Identifier: MIT
/* A pool's region: how it is laid out, made, mapped, and follows a resize. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/* ---- plan ---------------------------------------------------------------------------------------------------------- */

int region_plan(struct speckv_ctx *ctx, const struct speckv_pool_config *config, bool single, struct region_plan *plan)
{
	uint64_t least, most, entries, min_frame = speckv_frame_min_bytes(&config->geometry, config->codec);
	char a[32], b[32];

	memset(plan, 0, sizeof(*plan));
	plan->block_bytes = speckv_geometry_bytes(&config->geometry);
	if (!((speckv_codec_modes() | speckv_codec_calibrated_modes()) & 1u << config->codec))
		return fail(ctx, -EOPNOTSUPP, "codec %s is not in this build", speckv_codec_name(config->codec) ? speckv_codec_name(config->codec) : "?");
	if (!plan->block_bytes || !min_frame)
		return fail(ctx, -EINVAL,
			    "no such block shape: layers and heads at least 1, tokens a multiple of 64, head size 64, 80, 96, 128, 192 or 256, dtype bf16, fp16 or fp8");
	plan->page_bytes = config->page_bytes;
	if (!plan->page_bytes)
		for (plan->page_bytes = 1024; plan->page_bytes < 65536 && plan->page_bytes * 2ull <= plan->block_bytes / 64;)
			plan->page_bytes *= 2;
	if (plan->page_bytes < 256 || plan->page_bytes > 65536 || (plan->page_bytes & (plan->page_bytes - 1)))
		return fail(ctx, -EINVAL, "page size %u is not a power of two from 256 to 65536", plan->page_bytes);
	if (config->capacity_bytes > 1ull << 56 || config->max_bytes > 1ull << 56)
		return fail(ctx, -EINVAL, "a pool of %s is larger than any medium", human(a, config->capacity_bytes));
	plan->capacity_bytes = round_up(config->capacity_bytes, LAY_UNIT);
	plan->max_bytes = round_up(config->max_bytes ? config->max_bytes : plan->capacity_bytes * (single ? 2 : 8), LAY_UNIT);
	most = (speckv_frame_max_bytes(&config->geometry, SPECKV_CODEC_RAW) + plan->page_bytes - 1) / plan->page_bytes;
	if (most > LAY_RUN_MAX)
		return fail(ctx, -EINVAL, "a block of %s has more than %u pages of %u bytes; use larger pages", human(a, plan->block_bytes), LAY_RUN_MAX, plan->page_bytes);
	if (!plan->capacity_bytes || plan->capacity_bytes < most * plan->page_bytes)
		return fail(ctx, -EINVAL, "a pool of %s cannot hold even one block of %s", human(a, config->capacity_bytes), human(b, plan->block_bytes));
	if (plan->max_bytes < plan->capacity_bytes)
		return fail(ctx, -EINVAL, "the largest size (%s) is below the size (%s)", human(a, plan->max_bytes), human(b, plan->capacity_bytes));
	/* Fewest pages a run may have: entries are one per so many pages, so that a block's entry needs no allocator of its own. */
	least = (min_frame + plan->page_bytes - 1) / plan->page_bytes;
	if (least < most / 16)
		least = most / 16;
	plan->min_run = least ? (uint32_t)least : 1;
	plan->pages = plan->capacity_bytes / plan->page_bytes;
	plan->max_pages = plan->max_bytes / plan->page_bytes;
	plan->max_entries = plan->max_pages / plan->min_run + 1;
	if (plan->max_entries >= 1ull << 32)
		return fail(ctx, -EINVAL, "a pool that may grow to %s would hold more than 2^32 blocks; use larger blocks", human(a, plan->max_bytes));
	entries = plan->max_entries * 2; /* at most half full */
	for (plan->buckets = 8; plan->buckets * LAY_BUCKET_SLOTS < entries;)
		plan->buckets *= 2;
	plan->directory_offset = sizeof(struct lay_pool_head);
	plan->page_map_offset = round_up(plan->directory_offset + plan->buckets * sizeof(struct lay_bucket), 4096);
	plan->entry_offset = round_up(plan->page_map_offset + plan->max_pages * 8, 4096);
	plan->calibration_offset = round_up(plan->entry_offset + plan->max_entries * sizeof(struct lay_entry), 4096);
	plan->calibration_bytes = config->calibration ? config->calibration_bytes : 0;
	plan->data_offset = round_up(plan->calibration_offset + plan->calibration_bytes, LAY_UNIT);
	plan->region_bytes = plan->data_offset + plan->max_bytes;
	return 0;
}

static uint32_t pool_crc(const struct lay_pool *pool)
{
	struct lay_pool copy;

	memcpy((void *)&copy, (const void *)pool, sizeof(copy));
	atomic_init(&copy.state, LAY_MEDIUM_READY);
	return speckv_crc32c(0, &copy, offsetof(struct lay_pool, crc));
}

/* ---- make ---------------------------------------------------------------------------------------------------------- */

/* Reserve what is used now, so that a later write can never meet a full file system (SIGBUS). */
static int reserve(int fd, uint64_t offset, uint64_t bytes)
{
	int rc;

	do
		rc = fallocate(fd, 0, (off_t)offset, (off_t)bytes) == 0 ? 0 : -errno;
	while (rc == -EINTR);
	if (rc == -EOPNOTSUPP) /* it writes */
		rc = !file_size_allowed(offset + bytes, NULL) ? -EFBIG : -posix_fallocate(fd, (off_t)offset, (off_t)bytes);
	return rc;
}

static void head_init(struct lay_pool_head *head, const struct lay_pool_record *record, const struct speckv_pool_config *config,
		      const struct region_plan *plan)
{
	struct lay_pool *pool = &head->pool;
	uint64_t sequence = 0;

	memset((void *)head, 0, sizeof(*head));
	store(&pool->state, LAY_MEDIUM_MAKING);
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
	pool->crc = pool_crc(pool);
	if (plan->calibration_bytes) {
		struct lay_calibration *place = &pool->calibration;

		*place = (struct lay_calibration){ .offset = plan->calibration_offset, .bytes = plan->calibration_bytes, .first_layer = config->first_layer,
						   .first_head = config->first_head };
		place->crc = speckv_crc32c(0, place, offsetof(struct lay_calibration, crc));
		memcpy((uint8_t *)head + plan->calibration_offset, config->calibration, plan->calibration_bytes);
	}
	store(&pool->data_pages, plan->pages);
	store(&pool->quota_pages, config->quota_bytes / plan->page_bytes);
	store(&pool->tenant_quota_pages, config->tenant_quota_bytes / plan->page_bytes);
	store(&pool->eviction, config->eviction);
	boot_id(pool->boot_id);
	store(&pool->stats_since_ns, record->created_ns);
	store(&pool->next_run_generation, 1);
	random_bytes(&sequence, sizeof(sequence));
	store(&pool->size_sequence, sequence);
}

/* ---- files of pools ------------------------------------------------------------------------------------------------- */

/* The pool's file, owned and writable as its record says. */
static int pool_file(struct speckv_device *dev, const struct folder *pools, const struct lay_pool_record *record, int flags)
{
	struct file_rule rule = pool_file_rule(pools, record->name, record);
	char path[SPECKV_PATH_BYTES];

	if (medium_pool_path(&dev->medium, record->name, path))
		return fail(dev->ctx, -ENAMETOOLONG, "%s: path too long", record->name);
	return file_open(dev->ctx, pools, path, flags, 0, &rule);
}

/* Does the file hold this record's pool, or nothing at all? What was cut short or damaged behind its uuid is that pool still. */
static bool file_of_record(int fd, const struct lay_pool_record *record)
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
	same = memcmp(((const struct lay_pool *)map)->uuid, record->uuid, sizeof(record->uuid)) == 0;
	munmap(map, 4096);
	return same;
}

int region_remove(struct speckv_device *dev, const struct lay_pool_record *record, bool dry_run)
{
	struct folder pools;
	char draft[48], lock[48];
	int fd, rc;

	if (!memchr(record->name, 0, sizeof(record->name)) || !name_ok(record->name))
		return fail(dev->ctx, -EUCLEAN, "%s: a record with a name that no pool can have", dev->medium.name);
	rc = medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, &pools);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	pool_hidden_name(record, "new", draft);
	pool_hidden_name(record, "lock", lock);
	if (!dry_run)
		unlinkat(pools.fd, draft, 0);
	fd = pool_file(dev, &pools, record, O_RDONLY);
	if (fd < 0) {
		rc = fd == -ENOENT ? 0 : fd;
	} else {
		if (!file_of_record(fd, record))
			rc = fail(dev->ctx, -EEXIST, "%s.pools/%s is not the file of pool %s: move it away, 'mv %s.pools/%s /var/tmp/', and destroy the pool again",
				  dev->medium.path, record->name, record->name, dev->medium.path, record->name);
		else if (!dry_run && unlinkat(pools.fd, record->name, 0) != 0 && errno != ENOENT)
			rc = fail(dev->ctx, -errno, "cannot remove %s.pools/%s: %s", dev->medium.path, record->name, strerror(errno));
		close(fd);
	}
	/* a file that no record names has no owner in the table: its name goes first; and its locks behind it: there is none without */
	if (!rc && !dry_run && (folder_flush(&pools) != 0 || (unlinkat(pools.fd, lock, 0) == 0 && folder_flush(&pools) != 0)))
		rc = fail(dev->ctx, -EIO, "that %s.pools/%s is removed did not reach the medium; the next change of %s finishes it", dev->medium.path, record->name,
			  dev->medium.name);
	folder_close(&pools);
	return rc;
}

void region_end(struct region *r)
{
	store(&r->head->pool.state, LAY_MEDIUM_GONE);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
}

uint64_t region_file_bytes(const struct speckv_device *dev, const struct region_plan *plan)
{
	return dev->medium.backend->keeps_blocks ? plan->data_offset : plan->region_bytes;
}

uint64_t region_backing_bytes(const struct speckv_device *dev, const struct region_plan *plan)
{
	return plan->page_map_offset + plan->pages * 8 + (plan->pages / plan->min_run + 1) * sizeof(struct lay_entry) + plan->calibration_bytes +
	       (dev->medium.backend->keeps_blocks ? 0 : plan->capacity_bytes);
}

/* Back what the pool needs now. */
static int reserve_all(struct speckv_device *dev, int fd, const struct region_plan *plan)
{
	uint64_t bytes = region_file_bytes(dev, plan);
	int rc = file_extend(fd, bytes) != 0 ? -errno : 0;

	if (!rc && dev->medium.numa_node >= 0) {
		void *all = mmap(NULL, plan->region_bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);

		rc = all == MAP_FAILED ? -errno : medium_bind(dev->medium.numa_node, all, plan->region_bytes);
		if (all != MAP_FAILED)
			munmap(all, plan->region_bytes);
	}
	if (!rc)
		rc = reserve(fd, 0, plan->page_map_offset);
	if (!rc)
		rc = reserve(fd, plan->page_map_offset, plan->pages * 8);
	if (!rc)
		rc = reserve(fd, plan->entry_offset, (plan->pages / plan->min_run + 1) * sizeof(struct lay_entry));
	if (!rc && plan->calibration_bytes)
		rc = reserve(fd, plan->calibration_offset, plan->calibration_bytes);
	if (!rc && !dev->medium.backend->keeps_blocks)
		rc = reserve(fd, plan->data_offset, plan->capacity_bytes);
	return rc;
}

/* The draft gets the pool's name, unless that is taken: by a file that is not this machine's to remove. */
static int publish_file(struct speckv_device *dev, const struct folder *pools, const char *draft, const struct lay_pool_record *record)
{
	struct lay_pool_record cached;
	char words[SPACE_WORDS];
	int fd;

	if (linkat(pools->fd, draft, pools->fd, record->name, 0) == 0)
		return 0;
	if (errno != EEXIST) {
		fd = errno;
		return fail(dev->ctx, -fd, "cannot make %s.pools/%s: %s", dev->medium.path, record->name, space_words(words, pools->fd, 0, fd));
	}
	memcpy((void *)&cached, (const void *)record, sizeof(cached));
	fd = dev->medium.backend->keeps_blocks ? pool_file(dev, pools, &cached, O_RDONLY) : -EEXIST;
	if (fd >= 0) { /* what this machine knew of that pool of the device */
		bool same = file_of_record(fd, record);

		close(fd);
		if (same && unlinkat(pools->fd, record->name, 0) == 0 && linkat(pools->fd, draft, pools->fd, record->name, 0) == 0)
			return 0;
	}
	return fail(dev->ctx, -EEXIST, "%s.pools/%s is there, and no pool of %s: move it away, 'mv %s.pools/%s /var/tmp/', or choose another name", dev->medium.path,
		    record->name, dev->medium.name, dev->medium.path, record->name);
}

static int made_flush(struct speckv_device *dev, const void *address, uint64_t bytes)
{
	return dev->durability == SPECKV_DURABLE_POWER ? medium_flush(&dev->medium, address, bytes) : 0;
}

int region_make(struct speckv_device *dev, const struct lay_pool_record *record, const struct speckv_pool_config *config, const struct region_plan *plan)
{
	uint64_t tables = plan->calibration_bytes || dev->single_inode ? plan->data_offset : plan->page_map_offset, offset = 0; /* to be mapped */
	struct folder pools = { .fd = -1 };
	struct speckv_ctx *ctx = dev->ctx;
	struct lay_pool_head *head;
	char draft[48], words[SPACE_WORDS];
	int fd = dev->fd, rc = 0;

	if (dev->single_inode) {
		offset = record->extent[0].offset;
	} else {
		rc = medium_pools(ctx, &dev->medium, &dev->folder, FOLDER_MAKE, &pools);
		if (rc)
			return rc;
		pool_hidden_name(record, "new", draft);
		fd = openat(pools.fd, draft, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd < 0) {
			rc = errno;
			rc = fail(ctx, -rc, "cannot make %s.pools/%s: %s", dev->medium.path, record->name, space_words(words, pools.fd, 0, rc));
			folder_close(&pools);
			return rc;
		}
		rc = reserve_all(dev, fd, plan);
	}
	head = rc ? MAP_FAILED : mmap(NULL, tables, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (head == MAP_FAILED) {
		if (!rc)
			rc = -errno;
	} else {
		if (dev->single_inode) /* all tables are real memory here: clear them */
			memset((uint8_t *)head + sizeof(*head), 0, tables - sizeof(*head));
		head_init(head, record, config, plan);
		rc = made_flush(dev, head, tables);
		if (!rc) {
			store(&head->pool.state, LAY_MEDIUM_READY);
			rc = made_flush(dev, head, sizeof(head->pool));
		}
		munmap(head, tables);
	}
	if (!dev->single_inode) {
		if (!rc && (config->uid != geteuid() || config->gid != getegid()) && fchown(fd, config->uid, config->gid) != 0)
			rc = -errno;
		if (!rc && fchmod(fd, config->mode) != 0)
			rc = -errno;
		if (!rc && fsync(fd) != 0)
			rc = -errno;
		close(fd);
		if (!rc)
			rc = pool_lock_make(&pools, record);
		if (rc == -ENOSPC || rc == -EROFS) /* before what was taken is given back */
			space_words(words, pools.fd, region_backing_bytes(dev, plan), -rc);
		if (!rc) {
			rc = publish_file(dev, &pools, draft, record);
			unlinkat(pools.fd, draft, 0);
			if (!rc && folder_flush(&pools) != 0) {
				unlinkat(pools.fd, record->name, 0);
				rc = fail(ctx, -EIO, "the name of pool %s did not reach the medium: %s.pools cannot be written", record->name, dev->medium.path);
			}
			if (rc && !dev->medium.backend->keeps_blocks) {
				pool_hidden_name(record, "lock", draft);
				unlinkat(pools.fd, draft, 0);
			}
			folder_close(&pools);
			return rc;
		}
		unlinkat(pools.fd, draft, 0);
		pool_hidden_name(record, "lock", draft);
		if (!dev->medium.backend->keeps_blocks)
			unlinkat(pools.fd, draft, 0);
		folder_close(&pools);
	}
	if (!dev->single_inode && (rc == -ENOSPC || rc == -EROFS))
		return fail(ctx, rc, "cannot make %s.pools/%s: %s", dev->medium.path, record->name, words);
	if (rc == -EPERM)
		return fail(ctx, rc, "cannot give pool %s to uid %u gid %u: only root may give files away", record->name, config->uid, config->gid);
	return rc ? fail(ctx, rc, "cannot make pool %s: %s", record->name, strerror(-rc)) : 0;
}

/* ---- map ----------------------------------------------------------------------------------------------------------- */

static int map_piece(struct region *r, uint64_t region_offset, uint64_t file_offset, uint64_t bytes)
{
	void *at = mmap(r->base + region_offset, bytes, PROT_READ | (r->writable ? PROT_WRITE : 0), MAP_SHARED | MAP_FIXED | MAP_NORESERVE, r->fd,
			(off_t)file_offset);

	if (at == MAP_FAILED)
		return -errno;
	madvise(at, bytes, MADV_DONTFORK); /* as the range that it is a piece of */
	return 0;
}

/*
 * Map a record's extents end to end, where they are not mapped so already. An extent may have grown in place, or have gone with a
 * shrink and come back elsewhere with a growth, while this process saw neither.
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
		r->mapped[i] = to; /* what was cut off is mapped again when it comes back */
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

static int fixed_sane(const struct lay_pool *p, const struct lay_pool_record *record)
{
	uint64_t buckets = p->bucket_mask + 1;

	/* the bounds first: what follows them cannot wrap */
	if (p->max_pages >= 1ull << 48 || p->max_entries >= 1ull << 32 || p->bucket_mask >= 1ull << 40 || p->directory_offset >= 1ull << 60 ||
	    p->page_map_offset >= 1ull << 60 || p->entry_offset >= 1ull << 60 || p->data_offset >= 1ull << 60 || !memchr(p->name, 0, sizeof(p->name)))
		return 0;
	return p->crc == pool_crc(p) && memcmp(p->uuid, record->uuid, 16) == 0 && p->generation == record->generation && p->page_bytes >= 256 &&
	       p->page_bytes <= 65536 && !(p->page_bytes & (p->page_bytes - 1)) && p->min_run && p->max_pages &&
	       p->max_entries > p->max_pages / p->min_run && !(buckets & p->bucket_mask) && p->page_map_offset % 8 == 0 && p->entry_offset % 8 == 0 &&
	       p->directory_offset == sizeof(struct lay_pool_head) && p->page_map_offset >= p->directory_offset + buckets * sizeof(struct lay_bucket) &&
	       p->entry_offset >= p->page_map_offset + p->max_pages * 8 && p->data_offset >= p->entry_offset + p->max_entries * sizeof(struct lay_entry) &&
	       p->region_bytes == p->data_offset + p->max_pages * p->page_bytes && p->data_offset % 4096 == 0 &&
	       p->block_bytes == speckv_geometry_bytes(&p->geometry) && p->block_bytes;
}

/* The calibration's digest, which the header does not repeat: of the file that the pool keeps. Zero where that is damaged. */
static void left_digest(struct speckv_ctx *ctx, int fd, const struct lay_pool *pool, uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES])
{
	const struct lay_calibration *place = &pool->calibration;
	struct speckv_pool_config config = { .codec = pool->codec, .geometry = pool->geometry, .first_layer = place->first_layer, .first_head = place->first_head,
					     .calibration_bytes = place->bytes };
	struct speckv_calibration_info info;
	uint8_t *map, *copy;

	if (!place->bytes || place->offset > pool->data_offset || place->bytes > pool->data_offset - place->offset ||
	    place->crc != speckv_crc32c(0, place, offsetof(struct lay_calibration, crc)))
		return;
	map = mmap(NULL, pool->data_offset, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
	copy = map == MAP_FAILED ? NULL : malloc(place->bytes);
	if (copy) { /* its clients may write the shared bytes */
		memcpy(copy, map + place->offset, place->bytes);
		config.calibration = copy;
		if (calibration_judge(ctx, &config, &info) == 0)
			memcpy(digest, info.digest, sizeof(info.digest));
		free(copy);
	}
	if (map != MAP_FAILED)
		munmap(map, pool->data_offset);
}

int region_left(struct speckv_device *dev, const struct folder *pools, const char *name, struct lay_pool_record *record)
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
		rule.owner = st.st_uid; /* only trusted users put files into this folder, and root gives them away */
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
	if (map == MAP_FAILED || pool.magic != LAY_POOL_MAGIC || pool.version != LAY_VERSION || load(&pool.state) != LAY_MEDIUM_READY) {
		rc = fail(dev->ctx, -EUCLEAN, "it is no pool of layout version %d", LAY_VERSION);
		goto out;
	}
	memset((void *)record, 0, sizeof(*record));
	memcpy(record->uuid, pool.uuid, sizeof(record->uuid));
	record->generation = pool.generation;
	pages = load(&pool.data_pages);
	if (!fixed_sane(&pool, record) || strcmp(pool.name, name) != 0 || !speckv_codec_name(pool.codec) || pages > pool.max_pages)
		rc = fail(dev->ctx, -EUCLEAN, "its header is damaged, or of another pool");
	else if ((uint64_t)st.st_size < pool.region_bytes)
		rc = fail(dev->ctx, -EBADMSG, "it was cut short");
	if (rc)
		goto out;
	memcpy(record->name, pool.name, sizeof(record->name));
	record->uid = st.st_uid;
	record->gid = st.st_gid;
	record->mode = st.st_mode & 0777;
	record->codec = pool.codec;
	record->capacity_bytes = pages * pool.page_bytes;
	record->max_bytes = pool.max_pages * pool.page_bytes;
	record->table_bytes = pool.page_map_offset + pages * 8 + (pages / pool.min_run + 1) * sizeof(struct lay_entry) + pool.calibration.bytes;
	record->created_ns = pool.created_ns;
	left_digest(dev->ctx, fd, &pool, record->calibration);
out:
	close(fd);
	return rc;
}

static int open_fds(struct speckv_device *dev, const struct lay_pool_record *record, bool writable, struct region *r)
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
			return fail(ctx, -ESTALE, "%s was made again since it was opened here: open the device again", dev->medium.name);
		return r->lock_fd < 0 ? r->lock_fd : 0;
	}
	if (medium_pool_path(&dev->medium, name, r->path))
		return fail(ctx, -ENAMETOOLONG, "%s: path too long", name);
	rc = medium_pools(ctx, &dev->medium, &dev->folder, 0, &pools);
	if (!rc) {
		r->fd = pool_file(dev, &pools, record, flags);
		r->lock_fd = r->fd < 0 ? r->fd : pool_lock_open(dev, &pools, record, writable);
		rc = r->fd < 0 ? r->fd : writable && r->lock_fd < 0 ? r->lock_fd : 0;
		if (rc == -EACCES && r->fd < 0 && fstatat(pools.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_uid == record->uid && st.st_uid != geteuid())
			rc = fail(ctx, -EACCES, "pool %s: no %s permission: it belongs to uid %u, gid %u, mode %04o; 'speckvctl pool set %s %s --owner or --mode' changes that",
				  name, writable ? "write" : "read", st.st_uid, st.st_gid, st.st_mode & 07777, dev->medium.name, name);
		folder_close(&pools);
	}
	return rc == -ENOENT ? fail(ctx, -EUCLEAN, "pool %s: its file %s is gone; 'speckvctl pool destroy' removes what is left", name, r->path) : rc;
}

static int open_once(struct speckv_device *dev, const char *name, bool writable, struct region *r)
{
	struct speckv_ctx *ctx = dev->ctx;
	bool single = dev->single_inode, guarded;
	struct lay_pool_record record;
	struct lay_pool *probe;
	uint64_t offset;
	struct stat st;
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
	offset = single ? record.extent[0].offset : 0;
	if (r->fd < 0 || fstat(r->fd, &st) != 0 || (!dev->medium.node && (uint64_t)st.st_size < offset + sizeof(struct lay_pool))) {
		rc = fail(ctx, -EBADMSG, "pool %s: its file %s was cut short; 'speckvctl pool destroy' removes what is left", name, r->path);
		goto bad;
	}
	probe = mmap(NULL, single ? LAY_UNIT : sizeof(*probe), PROT_READ, MAP_SHARED, r->fd, (off_t)offset);
	if (probe == MAP_FAILED) {
		rc = fail(ctx, -errno, "pool %s: cannot map %s: %s", name, r->path, strerror(errno));
		goto bad;
	}
	memcpy((void *)&r->fixed, (const void *)probe, sizeof(r->fixed));
	munmap(probe, single ? LAY_UNIT : sizeof(*probe));
	if (r->fixed.magic == LAY_POOL_MAGIC && r->fixed.version != LAY_VERSION) {
		rc = fail(ctx, -EPROTONOSUPPORT, "pool %s has layout version %u; this build reads version %u: use the release that made it", name, r->fixed.version,
			  LAY_VERSION);
		goto bad;
	}
	if (r->fixed.magic != LAY_POOL_MAGIC || load(&r->fixed.state) != LAY_MEDIUM_READY || !fixed_sane(&r->fixed, &record)) {
		rc = fail(ctx, -EUCLEAN, "pool %s: its header in %s is %s; 'speckvctl pool destroy' removes it", name, r->path,
			  r->fixed.magic == LAY_POOL_MAGIC && load(&r->fixed.state) == LAY_MEDIUM_MAKING ? "half made" : "damaged");
		goto bad;
	}
	r->mapped_bytes = dev->medium.backend->keeps_blocks ? r->fixed.data_offset : r->fixed.region_bytes;
	if (!single && (uint64_t)st.st_size < r->mapped_bytes) {
		char have[32], want[32];

		rc = fail(ctx, -EBADMSG, "pool %s: its file %s was cut short (%s of %s); 'speckvctl pool destroy' removes what is left", name, r->path,
			  human(have, (uint64_t)st.st_size), human(want, r->mapped_bytes));
		goto bad;
	}
	/* One range of addresses for all that the pool may become, so that no pointer ever moves. */
	r->base = mmap(NULL, r->mapped_bytes + LAY_UNIT, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->base == MAP_FAILED) {
		r->base = NULL;
		rc = fail(ctx, -errno, "pool %s: no address space for it: %s", name, strerror(errno));
		goto bad;
	}
	{ /* aligned to the unit, as devdax wants it */
		uint64_t skip = (LAY_UNIT - (uintptr_t)r->base % LAY_UNIT) % LAY_UNIT;

		if (skip)
			munmap(r->base, skip);
		r->base += skip;
		munmap(r->base + r->mapped_bytes, LAY_UNIT - skip);
	}
	rc = single ? map_extents(r, &record) : map_piece(r, 0, 0, r->mapped_bytes);
	if (!rc && single && mapped_bytes(r) < r->fixed.data_offset)
		rc = -EUCLEAN; /* the record lost the pool's own tables */
	if (rc) {
		rc = fail(ctx, rc, "pool %s: cannot map it: %s", name, strerror(-rc));
		goto bad;
	}
	madvise(r->base, r->mapped_bytes, MADV_HUGEPAGE); /* where the system allows it for shared memory */
	r->head = (struct lay_pool_head *)r->base;
	r->directory = (struct lay_bucket *)(r->base + r->fixed.directory_offset);
	r->page_map = (_Atomic uint64_t *)(r->base + r->fixed.page_map_offset);
	r->entries = (struct lay_entry *)(r->base + r->fixed.entry_offset);
	r->data = dev->medium.backend->keeps_blocks ? NULL : r->base + r->fixed.data_offset;
	r->page_bytes = r->fixed.page_bytes;
	r->page_shift = (uint32_t)__builtin_ctz(r->page_bytes);
	r->min_run = r->fixed.min_run;
	r->durable = dev->durability == SPECKV_DURABLE_POWER;
	r->backend = dev->medium.backend->pool;
	if (r->backend->open(r) != 0) {
		rc = fail(ctx, -ENOMEM, "out of memory");
		goto bad;
	}
	store(&r->size_sequence, ~0ull);
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
	uint32_t state = load(&record->state);

	return (state == SPECKV_POOL_ACTIVE || state == SPECKV_POOL_RESIZING) && record->generation == r->fixed.generation;
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
		/* not damaged, perhaps, nor without its locks, but on its way in or out */
		number = device_find(dev, name, &record);
		if (number < 0)
			return number;
		if (load(&record.state) != SPECKV_POOL_CREATING && load(&record.state) != SPECKV_POOL_DESTROYING)
			continue;
		number = device_between(dev, name);
		if (rc == -ENOLCK && number == -EUCLEAN && load(&record.state) == SPECKV_POOL_DESTROYING)
			return open_once(dev, name, writable, r); /* the removal cannot go on before the locks are there: the text says so */
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
	if (child) /* another thread may have held them at fork() */
		return;
	pthread_mutex_destroy(&r->remap);
	pthread_mutex_destroy(&r->reaping);
}

/* ---- size ---------------------------------------------------------------------------------------------------------- */

static uint64_t follow(struct region *r)
{
	uint64_t sequence, pages;

	pthread_mutex_lock(&r->remap);
	sequence = load(&r->head->pool.size_sequence);
	pages = load(&r->head->pool.data_pages);
	if (load(&r->head->pool.state) != LAY_MEDIUM_READY || memcmp(r->head->pool.uuid, r->fixed.uuid, sizeof(r->fixed.uuid)) != 0) {
		store(&r->gone, true);
		pages = 0;
	}
	if (pages > r->fixed.max_pages)
		pages = r->fixed.max_pages;
	if (r->dev->single_inode && pages) {
		struct lay_pool_record record;
		uint64_t mapped;

		memcpy((void *)&record, (const void *)&r->dev->table->pools[r->record], sizeof(record));
		if (record.generation == r->fixed.generation && record_sane(r->dev, &record))
			map_extents(r, &record);
		mapped = mapped_bytes(r);
		mapped = mapped > r->fixed.data_offset ? (mapped - r->fixed.data_offset) / r->page_bytes : 0;
		pages = pages < mapped ? pages : mapped;
	}
	store(&r->pages, pages);
	store(&r->size_sequence, sequence);
	pthread_mutex_unlock(&r->remap);
	return pages;
}

uint64_t region_pages(struct region *r)
{
	if (__builtin_expect(load(&r->head->pool.size_sequence) != load_relaxed(&r->size_sequence), 0))
		return follow(r);
	return load_relaxed(&r->pages);
}

int region_grow_backing(struct region *r, uint64_t old_pages, uint64_t new_pages, const struct lay_pool_record *record)
{
	uint64_t first = old_pages / r->min_run, last = new_pages / r->min_run + 1;
	int rc;

	if (r->dev->single_inode) {
		rc = map_extents(r, record);
		if (!rc && mapped_bytes(r) < r->fixed.data_offset + new_pages * r->page_bytes)
			rc = -EUCLEAN; /* another writer took some of it away */
		return rc;
	}
	rc = reserve(r->fd, r->fixed.page_map_offset + old_pages * 8, (new_pages - old_pages) * 8);
	if (!rc)
		rc = reserve(r->fd, r->fixed.entry_offset + first * sizeof(struct lay_entry), (last - first) * sizeof(struct lay_entry));
	if (!rc && r->data)
		rc = reserve(r->fd, r->fixed.data_offset + old_pages * r->page_bytes, (new_pages - old_pages) * r->page_bytes);
	return rc;
}

/* Zero pages and give their memory back. The mapping stays: a late reader sees zeros, never a fault. */
void region_release_backing(struct region *r, uint64_t from_page, uint64_t to_page)
{
	uint64_t offset = r->fixed.data_offset + from_page * r->page_bytes, bytes = (to_page - from_page) * r->page_bytes;

	if (to_page <= from_page || !r->data)
		return;
	if (r->dev->single_inode || fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes) != 0)
		memset(r->base + offset, 0, bytes);
}

int pool_usable(struct speckv_pool *pool, bool write)
{
	if (__builtin_expect(fork_guard_stale(&pool->region.guard), 0))
		return fail(pool->ctx, -EOWNERDEAD, "this pool was opened before fork(): open it again in the child");
	if (write && pool->read_only)
		return fail(pool->ctx, -EROFS, "this pool was opened read-only");
	if (pool->read_only) { /* who has a client slot keeps the pool from being removed */
		region_pages(&pool->region);
		if (load_relaxed(&pool->region.gone))
			return fail(pool->ctx, -ESTALE, "pool %s was destroyed since it was opened here: open it again", pool->region.fixed.name);
	}
	return 0;
}

int pool_lost_text(struct speckv_pool *pool)
{
	return fail(pool->ctx, -ESTALE, "pool %s: its file %s was removed or cut short while it was used; attach again, or create it again",
		    pool->region.fixed.name, pool->region.path);
}

int pool_there(struct speckv_pool *pool)
{
	return region_lost(&pool->region) ? pool_lost_text(pool) : 0;
}

// SPDX-License-Identifier: MIT
/* An open device: its table of pools, the manager lock, room for pools. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define ADOPT (1u << 30) /* an open flag of our own: the table was made just now */
#define MANAGER_PATIENCE_NS 2000000000ull

/* ---- open ---------------------------------------------------------------------------------------------------------- */

/* The table, mapped, and what is fixed of it. */
static int open_table(struct speckv_device *dev, const struct speckv_device_info *info)
{
	struct speckv_ctx *ctx = dev->ctx;
	const char *name = dev->medium.name, *path = dev->medium.path;
	struct lay_superblock super;
	struct stat st;
	int rc;

	rc = medium_folder(ctx, &dev->medium, 0, &dev->folder);
	if (rc)
		return rc;
	dev->fd = medium_open(ctx, &dev->medium, &dev->folder, O_RDWR);
	dev->writable = dev->fd >= 0;
	if (dev->fd == -EACCES || dev->fd == -EROFS)
		dev->fd = medium_open(ctx, &dev->medium, &dev->folder, O_RDONLY);
	if (dev->fd < 0)
		return dev->fd;
	if (fstat(dev->fd, &st) != 0)
		return fail(ctx, -errno, "%s: cannot look at %s: %s", name, path, strerror(errno));
	if (!dev->medium.node && (uint64_t)st.st_size < sizeof(struct lay_device))
		return fail(ctx, -EBADMSG, "%s: %s was cut short", name, path);
	dev->table = mmap(NULL, sizeof(*dev->table), PROT_READ | (dev->writable ? PROT_WRITE : 0), MAP_SHARED, dev->fd, 0);
	if (dev->table == MAP_FAILED) {
		dev->table = NULL;
		return fail(ctx, -errno, "%s: cannot map %s: %s", name, path, strerror(errno));
	}
	memcpy((void *)&super, (const void *)&dev->table->super, sizeof(super)); /* others may write it: one copy is judged and used */
	if (!medium_super_sound(&super))
		return fail(ctx, -EUCLEAN, "%s: %s was changed while it was opened: open it again", name, path);
	memcpy(dev->uuid, super.uuid, sizeof(dev->uuid));
	if (memcmp(dev->uuid, info->uuid, sizeof(dev->uuid)) != 0 || !file_same(&dev->folder, path, dev->fd))
		return fail(ctx, -ESTALE, "%s was made again while it was opened: open it again", name);
	dev->owner = st.st_uid;
	if (!dev->medium.runtime) /* what lies beside the table is its owner's */
		dev->folder.owner = st.st_uid;
	dev->single_inode = super.single_inode != 0;
	dev->made_file = super.made_file && !dev->single_inode; /* what a group may write was not made here: see medium_make() */
	if (!dev->single_inode && st.st_mode & S_IWGRP)
		return fail(ctx, -EACCES, "%s: %s can be written by its group (gid %u, mode %04o): 'chmod go-w %s' ends that", name, path, st.st_gid,
			    st.st_mode & 07777, path);
	dev->durability = super.durability;
	/* There is no command that gives a card a calibration: modes that need one are this machine's. */
	dev->codec_modes = dev->medium.card ? info->codec_modes & ~speckv_codec_calibrated_modes() : 0;
	dev->medium_bytes = super.medium_bytes;
	if (dev->medium_bytes > (dev->medium.node ? dev->medium.node_bytes : (uint64_t)st.st_size))
		dev->medium_bytes = dev->medium.node ? dev->medium.node_bytes : (uint64_t)st.st_size;
	device_lock_guard(dev); /* asked for again, and its error told, when it is needed */
	return 0;
}

int medium_refuse(struct speckv_ctx *ctx, const struct medium *medium, const struct speckv_device_info *info)
{
	if (medium->card && (!medium->path[0] || info->state == SPECKV_MEDIUM_DENIED || info->state == SPECKV_MEDIUM_OFFLINE))
		return fail(ctx, info->state == SPECKV_MEDIUM_DENIED ? -EACCES : info->state == SPECKV_MEDIUM_OFFLINE ? -ENXIO : -ENOENT, "%s", info->found);
	switch (info->state) {
	case SPECKV_MEDIUM_ABSENT:
		return fail(ctx, -ENOENT, "%s: no such device yet; 'speckvctl pool create %s NAME --size SIZE' creates it", info->name, info->name);
	case SPECKV_MEDIUM_DENIED:
		return fail(ctx, -EACCES, "%s: %s", info->name, info->found);
	case SPECKV_MEDIUM_FOREIGN:
		return fail(ctx, -EEXIST, "%s holds %s; 'speckvctl pool create' with --yes overwrites it", info->path, info->found);
	case SPECKV_MEDIUM_OTHER_VERSION:
		return fail(ctx, -EPROTONOSUPPORT, "%s holds %s; use the release that made it, or overwrite it: 'speckvctl pool create' with --yes", info->path,
			    info->found);
	case SPECKV_MEDIUM_HALF_MADE:
		return fail(ctx, -EUCLEAN, "%s holds %s; make it anew: 'speckvctl pool create' with --yes", info->path, info->found);
	case SPECKV_MEDIUM_TRUNCATED:
		return fail(ctx, -EBADMSG, "%s holds %s; restore the file, or make it anew: 'speckvctl pool create' with --yes", info->path, info->found);
	default:
		return 0;
	}
}

int speckv_device_open(struct speckv_ctx *ctx, const char *name, unsigned int flags, struct speckv_device **out)
{
	struct speckv_device_info info;
	struct speckv_device *dev;
	struct medium medium;
	bool made = false;
	int rc;

	if (!ctx || !out)
		return -EINVAL;
	*out = NULL;
	if (flags & ~(unsigned int)(SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT))
		return fail(ctx, -EINVAL, "%s: unknown open flags %#x", name ? name : "(null)", flags);
	rc = medium_parse(ctx, name, &medium);
	if (!rc)
		rc = medium_probe(ctx, &medium, &info);
	if (rc)
		return rc;
	if (medium.card && info.state != SPECKV_MEDIUM_READY) {
		if (!medium.path[0] || info.state == SPECKV_MEDIUM_DENIED || info.state == SPECKV_MEDIUM_OFFLINE)
			return medium_refuse(ctx, &medium, &info);
		rc = medium_make(ctx, &medium, info.state != SPECKV_MEDIUM_ABSENT); /* the card is the truth: this is only what we know of it */
		made = rc == 1;
		if (rc >= 0)
			rc = medium_probe(ctx, &medium, &info);
		if (rc)
			return rc;
		flags |= ADOPT;
	} else if (info.state != SPECKV_MEDIUM_READY) {
		bool absent = info.state == SPECKV_MEDIUM_ABSENT;

		if (!(flags & SPECKV_OPEN_CREATE) || info.state == SPECKV_MEDIUM_DENIED || (!absent && !(flags & SPECKV_OPEN_FORMAT)))
			return medium_refuse(ctx, &medium, &info);
		rc = medium_make(ctx, &medium, !absent);
		made = rc == 1;
		if (rc >= 0)
			rc = medium_probe(ctx, &medium, &info);
		if (!rc && info.state != SPECKV_MEDIUM_READY)
			rc = medium_refuse(ctx, &medium, &info);
		if (rc)
			return rc;
	}
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return fail(ctx, -ENOMEM, "out of memory");
	dev->ctx = ctx;
	dev->medium = medium;
	dev->fd = dev->lock_fd = dev->folder.fd = -1;
	pthread_mutex_init(&dev->managing, NULL);
	rc = open_table(dev, &info);
	if (rc)
		goto bad;
	lost_watch(dev->table, sizeof(*dev->table), &dev->lost);
	fork_guard_add(&dev->guard, -1, dev->table, sizeof(*dev->table));
	if (dev->writable)
		medium_register(ctx, &medium);
	if (flags & ADOPT) { /* its pools; only who may manage the card may look */
		rc = device_manage(dev);
		if (rc) {
			/* ours, and its pools are not known yet: the next open looks again. -EBUSY: a manager uses it */
			if (made && rc != -EBUSY && file_same(&dev->folder, medium.path, dev->fd))
				unlinkat(dev->folder.fd, path_name(medium.path), 0);
			speckv_device_close(dev);
			return rc;
		}
		device_unmanage(dev);
	}
	if (flags & SPECKV_OPEN_CREATE && !medium.card && !dev->single_inode) {
		rc = device_adopt(dev);
		if (rc) {
			speckv_device_close(dev);
			return rc;
		}
	}
	if (made && !medium.card)
		device_event(dev, SPECKV_EVENT_DEVICE_CREATED, SPECKV_INFO, "%s created at %s", medium.name, medium.path);
	*out = dev;
	return 0;
bad:
	if (dev->table)
		munmap(dev->table, sizeof(*dev->table));
	if (dev->fd >= 0)
		close(dev->fd);
	folder_close(&dev->folder);
	pthread_mutex_destroy(&dev->managing);
	free(dev);
	return rc;
}

void speckv_device_close(struct speckv_device *dev)
{
	if (!dev)
		return;
	if (!fork_guard_stale(&dev->guard)) /* another thread may have held it at fork() */
		pthread_mutex_destroy(&dev->managing);
	fork_guard_release(&dev->locks);
	lost_forget(dev->table);
	fork_guard_release(&dev->guard);
	close(dev->fd);
	folder_close(&dev->folder);
	free(dev);
}

struct speckv_ctx *speckv_device_ctx(struct speckv_device *dev)
{
	return dev->ctx;
}

/* ---- records ------------------------------------------------------------------------------------------------------- */

bool record_sane(const struct speckv_device *dev, const struct lay_pool_record *r)
{
	uint64_t medium = dev->medium_bytes;

	if (memchr(r->name, 0, sizeof(r->name)) == NULL || !name_ok(r->name) || r->extents > LAY_EXTENTS)
		return false;
	for (unsigned int i = 0; i < r->extents; i++)
		if (r->extent[i].offset % LAY_UNIT || r->extent[i].bytes % LAY_UNIT || r->extent[i].offset > medium ||
		    r->extent[i].bytes > medium - r->extent[i].offset)
			return false;
	return true;
}

/* Is what is open here still the table that the device's name leads to, by way of this folder? */
static int table_current(struct speckv_device *dev, const struct folder *in)
{
	const struct lay_superblock *super = &dev->table->super;

	if (super->magic == LAY_DEVICE_MAGIC && load(&super->state) == LAY_MEDIUM_READY && memcmp(super->uuid, dev->uuid, sizeof(dev->uuid)) == 0 &&
	    file_same(in, dev->medium.path, dev->fd))
		return 0;
	return fail(dev->ctx, -ESTALE, "%s was closed, or made again, since it was opened here: open the device again", dev->medium.name);
}

int device_usable(struct speckv_device *dev)
{
	if (fork_guard_stale(&dev->guard))
		return fail(dev->ctx, -EOWNERDEAD, "%s was opened before fork(): open it again in the child", dev->medium.name);
	return table_current(dev, &dev->folder);
}

bool record_copy(const struct speckv_device *dev, int number, struct lay_pool_record *copy)
{
	uint64_t left = load(&dev->left[number]);

	memcpy((void *)copy, (const void *)&dev->table->pools[number], sizeof(*copy));
	if (!load(&copy->state) || left == RECORD_GONE)
		return false;
	if (left)
		extents_cut(copy, left);
	return true;
}

int device_look(struct speckv_device *dev, const char *name, struct lay_pool_record *copy)
{
	for (int i = 0; name && i < LAY_POOLS; i++) {
		if (record_copy(dev, i, copy) && record_sane(dev, copy) && strcmp(copy->name, name) == 0)
			return i;
	}
	return -ENOENT;
}

int device_find(struct speckv_device *dev, const char *name, struct lay_pool_record *copy)
{
	int rc = device_usable(dev);

	if (rc)
		return rc;
	rc = device_look(dev, name, copy);
	if (rc < 0)
		rc = fail(dev->ctx, -ENOENT, "%s has no pool '%.63s'; 'speckvctl pool list %s' shows what it has", dev->medium.name, name ? name : "",
			  dev->medium.name);
	return rc;
}

void extents_cut(struct lay_pool_record *record, uint64_t bytes)
{
	uint32_t n = 0;

	for (; n < record->extents && n < LAY_EXTENTS && bytes; n++) {
		if (record->extent[n].bytes > bytes)
			record->extent[n].bytes = bytes;
		bytes -= record->extent[n].bytes;
	}
	record->extents = n;
}

/* Zero what a pool on a single inode held: its header and its data. */
static int extents_zero(struct speckv_device *dev, const struct lay_pool_record *record)
{
	struct lay_pool_record r;
	int rc = 0;

	memcpy((void *)&r, (const void *)record, sizeof(r));
	if (!record_sane(dev, &r))
		return 0;
	for (unsigned int i = 0; i < r.extents; i++) {
		uint64_t bytes = i || r.extent[i].bytes < LAY_UNIT ? r.extent[i].bytes : LAY_UNIT;
		void *map = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, dev->fd, (off_t)r.extent[i].offset) : MAP_FAILED;

		if (map == MAP_FAILED)
			continue;
		memset(map, 0, bytes);
		if (!rc && dev->durability == SPECKV_DURABLE_POWER)
			rc = medium_flush(&dev->medium, map, bytes);
		munmap(map, bytes);
	}
	return rc;
}

/* A record's name: a private copy, as others may write the medium. */
static const char *name_of(const struct lay_pool_record *record, char name[SPECKV_NAME_BYTES])
{
	memcpy(name, record->name, SPECKV_NAME_BYTES);
	name[SPECKV_NAME_BYTES - 1] = 0;
	return name;
}

bool removal_undone(struct speckv_device *dev, struct lay_pool_record *r)
{
	char name[SPECKV_NAME_BYTES];
	struct region region;
	int rc = region_open_managed(dev, name_of(r, name), &region);

	if (rc && !region_useless(rc))
		return true; /* for the next manager to see to: it says so itself where it needs the pool */
	if (rc)
		return false; /* region_end() was reached */
	region_close(&region);
	store(&r->state, SPECKV_POOL_ACTIVE);
	device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING, "pool %.63s stays: the manager that was to remove it died before it began", r->name);
	return true;
}

/* Free a record whose pool's creation or destruction did not finish. */
static void record_finish(struct speckv_device *dev, struct lay_pool_record *r)
{
	char name[SPECKV_NAME_BYTES];
	uint32_t state = load(&r->state);
	bool removed = true;

	if (state == SPECKV_POOL_DESTROYING && removal_undone(dev, r))
		return;
	if (state == SPECKV_POOL_CREATING || state == SPECKV_POOL_DESTROYING) {
		if (!dev->single_inode) /* a file there that is not this pool's stays: it is not this record's to remove */
			removed = region_remove(dev, r, false) != -EIO;
		if (dev->single_inode && state == SPECKV_POOL_DESTROYING)
			removed = extents_zero(dev, r) == 0;
		if (!removed)
			return; /* the next manager tries again */
		device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING, "finished the %s of pool %.63s, whose manager died",
			     state == SPECKV_POOL_CREATING ? "roll-back of the creation" : "removal", r->name);
		store(&r->state, 0);
	} else if (state == SPECKV_POOL_RESIZING) {
		struct region region;
		int rc = region_open_managed(dev, name_of(r, name), &region);

		if (rc && !region_useless(rc))
			return;
		/* the size in the pool's own header is the truth */
		if (!rc) {
			uint64_t before = r->capacity_bytes / region.page_bytes, pages = resize_ends_at(&region, before);
			bool done = before != pages;

			resize_begin(&region); /* where a client has it, that does the same: twice harms nothing */
			if (pages != region_pages(&region) && resize_store(&region, pages) != 0) {
				region_close(&region);
				return; /* for the next manager: nothing above the size is given back before that */
			}
			resize_undo(&region);
			r->capacity_bytes = pages * region.page_bytes;
			if (dev->single_inode)
				extents_cut(r, region.fixed.data_offset + r->capacity_bytes);
			else
				region_release_backing(&region, pages, region.fixed.max_pages);
			region_close(&region);
			device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING, "%s the resize of pool %.63s, whose manager died",
				     done ? "finished" : "undid", r->name);
		}
		store(&r->state, SPECKV_POOL_ACTIVE);
	}
}

/* What record_finish() will make of it, for a dry run. */
static void record_foresee(struct speckv_device *dev, int number)
{
	struct lay_pool_record copy;
	struct region region;
	uint32_t state;
	int rc;

	if (!record_copy(dev, number, &copy))
		return;
	state = load(&copy.state);
	copy.name[sizeof(copy.name) - 1] = 0;
	rc = state == SPECKV_POOL_CREATING ? -ENOENT : region_open_managed(dev, copy.name, &region);
	if (!rc && dev->single_inode && state == SPECKV_POOL_RESIZING)
		store(&dev->left[number], region.fixed.data_offset + resize_ends_at(&region, copy.capacity_bytes / region.page_bytes) * region.page_bytes);
	if (!rc)
		region_close(&region);
	else if (state != SPECKV_POOL_RESIZING && region_useless(rc))
		store(&dev->left[number], RECORD_GONE);
}

/* table_current(), by the whole path. */
static int still_named(struct speckv_device *dev)
{
	struct folder in;
	int rc = medium_folder(dev->ctx, &dev->medium, 0, &in);

	if (rc == -ENOENT)
		rc = fail(dev->ctx, -ESTALE, "the folder of %s is gone: open the device again", dev->medium.name);
	if (!rc)
		rc = table_current(dev, &in);
	folder_close(&in);
	return rc;
}

static int manage(struct speckv_device *dev, bool inspect)
{
	struct lay_superblock *super = &dev->table->super;
	uint64_t start = clock_ns();
	int rc;

	rc = device_usable(dev);
	if (rc)
		return rc;
	if (!dev->writable && medium_read_only(&dev->medium))
		return fail(dev->ctx, -EROFS, "%s: %s lies on a read-only file system, on which nothing can be changed", dev->medium.name, dev->medium.path);
	if (!device_may_manage(dev))
		return fail(dev->ctx, -EACCES, "%s: no permission to manage it: %s belongs to uid %u; run as 'sudo -u \\#%u'", dev->medium.name, dev->medium.path,
			    dev->owner, dev->owner);
	pthread_mutex_lock(&dev->managing);
	while ((rc = device_lock(dev)) == -EAGAIN && clock_ns() - start < MANAGER_PATIENCE_NS)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	if (rc) {
		char command[64];

		memcpy(command, super->manager_command, sizeof(command));
		command[63] = 0;
		pthread_mutex_unlock(&dev->managing);
		return rc == -EAGAIN ? fail(dev->ctx, -EBUSY, "%s is being managed by pid %u (%s); try again when it is done", dev->medium.name,
					    load(&super->manager_pid), command) :
				       rc;
	}
	rc = still_named(dev); /* the last holder of the lock may have closed the device */
	if (rc) {
		unlock_byte(dev->lock_fd, LAY_LOCK_MANAGER);
		pthread_mutex_unlock(&dev->managing);
		return rc;
	}
	own_command(super->manager_command);
	store(&super->manager_pid, (uint32_t)getpid());
	if (dev->medium.card) {
		rc = card_manage(dev, inspect);
		if (rc) {
			device_unmanage(dev);
			return rc;
		}
	}
	dev->settled = 0;
	for (int i = 0; i < LAY_POOLS; i++)
		if (load(&dev->table->pools[i].state) > SPECKV_POOL_ACTIVE) {
			if (inspect)
				record_foresee(dev, i);
			else
				record_finish(dev, &dev->table->pools[i]);
			dev->settled |= 1ull << i;
		}
	return 0;
}

int device_manage(struct speckv_device *dev)
{
	return manage(dev, false);
}

int device_inspect(struct speckv_device *dev)
{
	return manage(dev, true);
}

bool device_settle(struct speckv_device *dev)
{
	if (!device_may_manage(dev) || (dev->lock_fd >= 0 && lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, NULL)) || device_manage(dev))
		return false;
	device_unmanage(dev);
	return true;
}

int device_between(struct speckv_device *dev, const char *name)
{
	const struct lay_superblock *super = &dev->table->super;
	struct lay_pool_record record;
	char command[64];

	if (dev->lock_fd < 0) /* not for this user to see */
		return fail(dev->ctx, -EBUSY, "pool %s is being made or removed; where that was interrupted, 'speckvctl pool destroy %s %s' as uid %u finishes it", name,
			    dev->medium.name, name, dev->owner);
	if (lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, NULL)) {
		memcpy(command, super->manager_command, sizeof(command));
		command[63] = 0;
		return fail(dev->ctx, -EBUSY, "pool %s is being made or removed by pid %u (%s); try again when it is done", name, load(&super->manager_pid), command);
	}
	if (pthread_mutex_trylock(&dev->managing) != 0) /* the lock of another thread's call does not show */
		return fail(dev->ctx, -EBUSY, "pool %s is being made or removed by another thread of this process; try again when it is done", name);
	pthread_mutex_unlock(&dev->managing);
	if (device_look(dev, name, &record) < 0)
		return fail(dev->ctx, -ENOENT, "pool %s was removed just now", name);
	if (load(&record.state) == SPECKV_POOL_ACTIVE || load(&record.state) == SPECKV_POOL_RESIZING)
		return fail(dev->ctx, -EBUSY, "pool %s was made just now; try again", name);
	return fail(dev->ctx, -EUCLEAN, "pool %s: its %s was interrupted; 'speckvctl pool destroy %s %s' finishes it", name,
		    load(&record.state) == SPECKV_POOL_CREATING ? "creation" : "removal", dev->medium.name, name);
}

void device_unmanage(struct speckv_device *dev)
{
	if (dev->admin)
		card_unmanage(dev);
	for (int i = 0; i < LAY_POOLS; i++)
		store(&dev->left[i], 0);
	store(&dev->table->super.manager_pid, 0);
	device_flush(dev);
	unlock_byte(dev->lock_fd, LAY_LOCK_MANAGER);
	pthread_mutex_unlock(&dev->managing);
}

/* ---- room on a single inode: first fit between the extents of the pools -------------------------------------------- */

static int by_offset(const void *a, const void *b)
{
	const struct lay_extent *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t taken(struct speckv_device *dev, struct lay_extent list[LAY_POOLS * LAY_EXTENTS + 1])
{
	size_t n = 0;

	list[n++] = (struct lay_extent){ 0, DEVICE_TABLE_END };
	for (int i = 0; i < LAY_POOLS; i++) {
		struct lay_pool_record r;

		if (!record_copy(dev, i, &r))
			continue;
		for (unsigned int e = 0; record_sane(dev, &r) && e < r.extents; e++)
			if (r.extent[e].bytes)
				list[n++] = r.extent[e];
	}
	qsort(list, n, sizeof(*list), by_offset);
	return n;
}

static uint64_t gap_after(const struct lay_extent *list, size_t n, size_t i, uint64_t medium)
{
	uint64_t end = list[i].offset + list[i].bytes, next = i + 1 < n ? list[i + 1].offset : medium;

	return next > end ? next - end : 0;
}

int device_extent_alloc(struct speckv_device *dev, uint64_t bytes, struct lay_extent *out)
{
	struct lay_extent list[LAY_POOLS * LAY_EXTENTS + 1];
	size_t n = taken(dev, list);

	for (size_t i = 0; i < n; i++)
		if (gap_after(list, n, i, dev->medium_bytes) >= bytes) {
			*out = (struct lay_extent){ list[i].offset + list[i].bytes, bytes };
			return 0;
		}
	return -ENOSPC;
}

uint64_t device_largest_free(struct speckv_device *dev, uint64_t *total_free)
{
	struct lay_extent list[LAY_POOLS * LAY_EXTENTS + 1];
	size_t n = taken(dev, list);
	uint64_t largest = 0, total = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t gap = gap_after(list, n, i, dev->medium_bytes) & ~(LAY_UNIT - 1);

		total += gap;
		largest = gap > largest ? gap : largest;
	}
	if (total_free)
		*total_free = total;
	return largest;
}

int speckv_device_info(struct speckv_device *dev, struct speckv_device_info *info)
{
	uint64_t used = 0;
	int rc, pid;

	if (!dev || !info)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	rc = medium_probe(dev->ctx, &dev->medium, info);
	if (rc)
		return rc;
	for (int i = 0; i < LAY_POOLS; i++) {
		const struct lay_pool_record *r = &dev->table->pools[i];
		uint32_t state = load(&r->state);

		if (state) {
			used += r->table_bytes + r->capacity_bytes;
			info->pools += state != SPECKV_POOL_CREATING;
		}
	}
	if (!dev->medium.card)
		info->allocated_bytes = used;
	if (dev->single_inode) {
		uint64_t total;

		info->free_bytes = device_largest_free(dev, &total);
		info->capacity_bytes = dev->medium_bytes;
		info->allocated_bytes = info->capacity_bytes - total;
	}
	if (dev->lock_fd >= 0 && lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, &pid)) {
		info->manager_pid = load(&dev->table->super.manager_pid);
		memcpy(info->manager_command, dev->table->super.manager_command, sizeof(info->manager_command));
		info->manager_command[63] = 0;
	}
	return 0;
}

/* ---- closing for good ---------------------------------------------------------------------------------------------- */

/* The records that are to go with the device. -ENOTEMPTY: there are some, and the caller did not say so. */
static int pools_of(struct speckv_device *dev, unsigned int flags, struct lay_pool_record **records, size_t *n)
{
	*n = 0;
	for (int i = 0; i < LAY_POOLS; i++)
		if (load(&dev->table->pools[i].state) && load(&dev->left[i]) != RECORD_GONE)
			records[(*n)++] = &dev->table->pools[i];
	if (*n && !(flags & SPECKV_REMOVE_POOLS))
		return fail(dev->ctx, -ENOTEMPTY, "%s still has %zu pool%s; destroy them first, or close it with --yes to destroy them too", dev->medium.name, *n,
			    *n == 1 ? "" : "s");
	return 0;
}

/* Only where nothing is left on it. The name goes first: a death leaves no table without its magic there, and no lock beside a table that goes. */
static int erase(struct speckv_device *dev)
{
	char pools[SPECKV_PATH_BYTES + 16];
	struct folder hidden;
	int rc = 0;

	for (int i = 0; i < LAY_POOLS; i++)
		if (load(&dev->table->pools[i].state))
			return 0;
	device_event(dev, SPECKV_EVENT_DEVICE_REMOVED, SPECKV_INFO, "%s closed", dev->medium.name);
	if (dev->made_file && unlinkat(dev->folder.fd, path_name(dev->medium.path), 0) != 0)
		return fail(dev->ctx, -errno, "cannot remove %s: %s", dev->medium.path, strerror(errno));
	if (dev->made_file) {
		rc = folder_flush(&dev->folder);
		if (rc)
			fail_text(dev->ctx, "that %s is removed did not reach the medium: %s", dev->medium.path, strerror(-rc));
		if (medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, &hidden) == 0) {
			pools_tidy(dev, &hidden);
			folder_close(&hidden);
		}
		snprintf(pools, sizeof(pools), "%s.pools/.lock", path_name(dev->medium.path));
		unlinkat(dev->folder.fd, pools, 0);
		snprintf(pools, sizeof(pools), "%s.pools", path_name(dev->medium.path));
		unlinkat(dev->folder.fd, pools, AT_REMOVEDIR);
	}
	if (rc)
		return rc;
	dev->table->super.magic = 0;
	return device_flush(dev);
}

int speckv_device_remove(struct speckv_ctx *ctx, const char *name, unsigned int flags)
{
	struct lay_pool_record *records[LAY_POOLS];
	bool dry_run = flags & SPECKV_REMOVE_DRY_RUN;
	struct speckv_device *dev;
	struct medium medium;
	size_t n = 0;
	int rc;

	if (!ctx)
		return -EINVAL;
	rc = speckv_device_open(ctx, name, 0, &dev);
	if (rc || !dev)
		return rc;
	medium = dev->medium;
	rc = dry_run ? device_inspect(dev) : device_manage(dev);
	if (rc) {
		speckv_device_close(dev);
		return rc;
	}
	/* Media at a path keep their pools: closing them only forgets the path, unless they are empty or are to be emptied. */
	if (medium.runtime || flags & SPECKV_REMOVE_POOLS)
		rc = pools_of(dev, flags, records, &n);
	if (!rc && dev->made_file && faccessat(dev->folder.fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		rc = fail(ctx, -errno, "cannot remove %s: no permission to write in its folder (%s); run as its owner", medium.path, strerror(errno));
	if (!rc && n)
		rc = pools_remove(dev, records, n, dry_run, NULL, NULL);
	if (!rc && !dry_run)
		rc = erase(dev);
	device_unmanage(dev);
	speckv_device_close(dev);
	if (!rc && !dry_run && !medium.runtime)
		medium_unregister(ctx, &medium);
	return rc;
}

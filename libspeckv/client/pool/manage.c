// SPDX-License-Identifier: MIT
/* The manager's lock, and recovery of operations whose manager died. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pool.h"

#define MANAGER_PATIENCE_NS 2000000000ull

/* Zero a removed pool's header and data on a single inode. */
static int extents_zero(struct speckv_device *dev, const struct lay_pool_record *record)
{
	struct lay_pool_record r;
	int rc = 0;

	memcpy((void *)&r, (const void *)record, sizeof(r));
	if (!record_sane(dev, &r))
		return 0;
	for (unsigned int i = 0; i < r.extents; i++) {
		uint64_t bytes = i || r.extent[i].bytes < LAY_UNIT ? r.extent[i].bytes : LAY_UNIT;
		void *map = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, dev->fd,
					    (off_t)r.extent[i].offset)
				  : MAP_FAILED;

		if (map == MAP_FAILED)
			continue;
		memset(map, 0, bytes);
		if (!rc && dev->durability == SPECKV_DURABLE_POWER)
			rc = medium_flush(&dev->medium, map, bytes);
		munmap(map, bytes);
	}
	return rc;
}

/* Free a record whose pool's creation or destruction did not finish. */
static void record_finish(struct speckv_device *dev, struct lay_pool_record *r)
{
	char name[SPECKV_NAME_BYTES];
	uint32_t state = load_acquire(&r->state);
	bool removed = true;

	if (state == SPECKV_POOL_DESTROYING && removal_undone(dev, r))
		return;
	if (state == SPECKV_POOL_CREATING || state == SPECKV_POOL_DESTROYING) {
		/* a foreign file of that name stays, and the record is freed */
		if (!dev->single_inode)
			removed = region_remove(dev, r, false) != -EIO;
		if (dev->single_inode && state == SPECKV_POOL_DESTROYING)
			removed = extents_zero(dev, r) == 0;
		if (!removed)
			return; /* left to the next manager */
		device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
			"finished the %s of pool %.63s, whose manager died",
			state == SPECKV_POOL_CREATING ? "roll-back of the creation" : "removal",
			r->name);
		store_release(&r->state, 0);
	} else if (state == SPECKV_POOL_RESIZING) {
		struct region region;
		int rc = region_open_managed(dev, record_name(r, name), &region);

		if (rc && !region_useless(rc))
			return;
		/* the size in the pool's header is authoritative */
		if (!rc) {
			uint64_t before = r->capacity_bytes / region.page_bytes,
				 pages = resize_ends_at(&region, before);
			bool done = before != pages;

			/*
			 * best effort: an abandoned resize is also undone by clients, idempotently
			 */
			resize_begin(&region);
			if (pages != region_pages(&region) && resize_store(&region, pages) != 0) {
				region_close(&region);
				/*
				 * left to the next manager; nothing above the size is freed before
				 * that
				 */
				return;
			}
			pages = region_pages(&region);
			resize_undo(&region);
			r->capacity_bytes = pages * region.page_bytes;
			if (dev->single_inode)
				extents_cut(r, region.fixed.data_offset + r->capacity_bytes);
			else
				region_release_backing(&region, pages, region.fixed.max_pages);
			region_close(&region);
			device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
				"%s the resize of pool %.63s, whose manager died",
				done ? "finished" : "undid", r->name);
		}
		store_release(&r->state, SPECKV_POOL_ACTIVE);
	}
}

/* Predict record_finish(), for a dry run. */
static void record_foresee(struct speckv_device *dev, int number)
{
	struct lay_pool_record copy;
	struct region region;
	uint32_t state;
	int rc;

	if (!record_copy(dev, number, &copy))
		return;
	state = load_acquire(&copy.state);
	copy.name[sizeof(copy.name) - 1] = 0;
	rc = state == SPECKV_POOL_CREATING ? -ENOENT : region_open_managed(dev, copy.name, &region);
	if (!rc && dev->single_inode && state == SPECKV_POOL_RESIZING)
		store_release(&dev->left[number],
			region.fixed.data_offset +
				resize_ends_at(&region, copy.capacity_bytes / region.page_bytes) *
					region.page_bytes);
	if (!rc)
		region_close(&region);
	else if (state != SPECKV_POOL_RESIZING && region_useless(rc))
		store_release(&dev->left[number], RECORD_GONE);
}

/* device_table_current(), from the whole path. */
static int still_named(struct speckv_device *dev)
{
	struct folder in;
	int rc = medium_folder(dev->ctx, &dev->medium, 0, &in);

	if (rc == -ENOENT)
		rc = fail(dev->ctx, -ESTALE, "the folder of %s is gone: open the device again",
			dev->medium.name);
	if (!rc)
		rc = device_table_current(dev, &in);
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
		return fail(dev->ctx, -EROFS,
			"%s: %s is on a read-only file system, on which nothing can be changed",
			dev->medium.name, dev->medium.path);
	if (!device_may_manage(dev))
		return fail(dev->ctx, -EACCES,
			"%s: no permission to manage it: %s belongs to uid %u; run as 'sudo -u \\#%u'",
			dev->medium.name, dev->medium.path, dev->owner, dev->owner);
	pthread_mutex_lock(&dev->managing);
	while ((rc = device_lock(dev)) == -EAGAIN && clock_ns() - start < MANAGER_PATIENCE_NS)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	if (rc) {
		char command[64];

		memcpy(command, super->manager_command, sizeof(command));
		command[63] = 0;
		pthread_mutex_unlock(&dev->managing);
		return rc == -EAGAIN
			? fail(dev->ctx, -EBUSY,
				  "%s is being managed by pid %u (%s); try again when it is done",
				  dev->medium.name, load_acquire(&super->manager_pid), command)
			: rc;
	}
	rc = still_named(dev); /* the previous manager may have closed the device */
	if (rc) {
		unlock_byte(dev->lock_fd, LAY_LOCK_MANAGER);
		pthread_mutex_unlock(&dev->managing);
		return rc;
	}
	own_command(super->manager_command);
	store_release(&super->manager_pid, (uint32_t)getpid());
	rc = dev->medium.backend->manage(dev, inspect);
	if (rc) {
		device_unmanage(dev);
		return rc;
	}
	dev->settled = 0;
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) > SPECKV_POOL_ACTIVE) {
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
	if (!device_may_manage(dev) ||
		(dev->lock_fd >= 0 && lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, NULL)) ||
		device_manage(dev))
		return false;
	device_unmanage(dev);
	return true;
}

void device_unmanage(struct speckv_device *dev)
{
	dev->medium.backend->unmanage(dev);
	for (int i = 0; i < LAY_POOLS; i++)
		store_release(&dev->left[i], 0);
	store_release(&dev->table->super.manager_pid, 0);
	device_flush(dev);
	unlock_byte(dev->lock_fd, LAY_LOCK_MANAGER);
	pthread_mutex_unlock(&dev->managing);
}

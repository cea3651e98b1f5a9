// SPDX-License-Identifier: MIT
/*
 * Adoption of pools whose table is gone: a pool's header repeats its record, which is recreated
 * from it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin.h"

/* Is this a possible pool's file without a record? */
static bool left_over(struct speckv_device *dev, const char *name)
{
	struct lay_pool_record record;

	return name_ok(name) && device_look(dev, name, &record) < 0;
}

static bool known_uuid(struct speckv_device *dev, const uint8_t uuid[16])
{
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) &&
			memcmp(dev->table->pools[i].uuid, uuid, 16) == 0)
			return true;
	return false;
}

static struct lay_pool_record *free_record(struct speckv_device *dev)
{
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) == 0)
			return &dev->table->pools[i];
	return NULL;
}

/*
 * Adopt one file; between device_manage() and device_unmanage(). A file that cannot be adopted is
 * left, with an event.
 */
static int take_over(struct speckv_device *dev, const struct folder *pools, const char *name)
{
	struct lay_pool_record found, *record = free_record(dev);
	struct lay_superblock *super = &dev->table->super;
	int rc = region_left(dev, pools, name, &found);

	if (!rc && known_uuid(dev, found.uuid))
		rc = fail(dev->ctx, -EEXIST, "another pool has its uuid");
	if (!rc && !record)
		rc = fail(dev->ctx, -ENOSPC, "%s has %d pools, the maximum", dev->medium.name,
			LAY_POOLS);
	if (rc) {
		device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
			"%.63s in %s.pools was left as it is: %s", name,
			path_name(dev->medium.path), speckv_strerror(dev->ctx));
		return 0;
	}
	memcpy((void *)record, (const void *)&found, sizeof(found));
	store_release(&record->state, 0);
	if (load_acquire(&super->next_generation) <= found.generation)
		store_release(&super->next_generation, found.generation + 1);
	rc = device_flush(dev); /* the record's contents before its state */
	if (rc)
		return rc;
	store_release(&record->state, SPECKV_POOL_ACTIVE);
	device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
		"pool %.63s was taken over from its file: the table that named it is gone", name);
	return device_flush(dev);
}

/* Is this the draft or the lock file of a pool without a record? */
static bool hidden_left(struct speckv_device *dev, const char *name)
{
	uint8_t uuid[16];
	unsigned int byte;

	if (name[0] != '.' || strspn(name + 1, "0123456789abcdef") != 32 ||
		(strcmp(name + 33, ".new") != 0 && strcmp(name + 33, ".lock") != 0))
		return false;
	for (int i = 0; i < 16; i++) {
		if (sscanf(name + 1 + 2 * i, "%2x", &byte) != 1)
			return false;
		uuid[i] = (uint8_t)byte;
	}
	return !known_uuid(dev, uuid);
}

/* Does no process hold a lock in this file? */
static bool unlocked(const struct folder *pools, const char *name)
{
	struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = openat(pools->fd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	bool free = fd >= 0 && fcntl(fd, F_OFD_SETLK, &all) == 0;

	all.l_type = F_UNLCK;
	if (free)
		fcntl(fd, F_OFD_SETLK, &all);
	if (fd >= 0)
		close(fd);
	return free;
}

void pools_tidy(struct speckv_device *dev, const struct folder *pools)
{
	struct dirent **list = NULL;
	bool files = false; /* possible pools, damaged or of another version: keep all lock files */
	int n = scandirat(pools->fd, ".", &list, NULL, alphasort);

	for (int i = 0; i < n; i++)
		files = files || left_over(dev, list[i]->d_name);
	for (int i = 0; i < n; i++) {
		const char *name = list[i]->d_name;

		if (hidden_left(dev, name) &&
			(name[33 + 1] == 'n' || (!files && unlocked(pools, name))))
			unlinkat(pools->fd, name, 0);
		free(list[i]);
	}
	free(list);
}

int device_adopt(struct speckv_device *dev)
{
	struct dirent **list = NULL;
	bool managed = false, hidden = false;
	struct folder pools;
	int n, rc;

	if (!device_may_manage(dev))
		return 0;
	rc = medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, &pools);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	n = scandirat(pools.fd, ".", &list, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (!rc && left_over(dev, list[i]->d_name)) {
			if (!managed)
				rc = device_manage(dev);
			managed = managed || !rc;
			/*
			 * check again under the lock: it may be a pool created or removed meanwhile
			 */
			if (!rc && left_over(dev, list[i]->d_name))
				rc = take_over(dev, &pools, list[i]->d_name);
		}
		hidden = hidden || hidden_left(dev, list[i]->d_name);
		free(list[i]);
	}
	free(list);
	if (!rc && !managed && hidden) /* best effort: otherwise left to the next call */
		managed =
			!(dev->lock_fd >= 0 && lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, NULL)) &&
			device_manage(dev) == 0;
	if (managed) {
		pools_tidy(dev, &pools);
		device_unmanage(dev);
	}
	folder_close(&pools);
	return rc;
}

// SPDX-License-Identifier: MIT
/* The records of a device's table, and the extents of its pools on a single inode. */
#include <stdlib.h>

#include "store.h"

bool record_sane(const struct speckv_device *dev, const struct lay_pool_record *r)
{
	uint64_t medium = dev->medium_bytes;

	if (memchr(r->name, 0, sizeof(r->name)) == NULL || !name_ok(r->name) ||
		r->extents > LAY_EXTENTS)
		return false;
	for (unsigned int i = 0; i < r->extents; i++)
		if (r->extent[i].offset % LAY_UNIT || r->extent[i].bytes % LAY_UNIT ||
			r->extent[i].offset > medium ||
			r->extent[i].bytes > medium - r->extent[i].offset)
			return false;
	return true;
}

/* Does the device's name, looked up in this folder, still lead to the open table? */
int device_table_current(struct speckv_device *dev, const struct folder *in)
{
	const struct lay_superblock *super = &dev->table->super;

	if (super->magic == LAY_DEVICE_MAGIC && load_acquire(&super->state) == LAY_MEDIUM_READY &&
		memcmp(super->uuid, dev->uuid, sizeof(dev->uuid)) == 0 &&
		file_same(in, dev->medium.path, dev->fd))
		return 0;
	return fail(dev->ctx, -ESTALE,
		"%s was closed or recreated since it was opened: open the device again",
		dev->medium.name);
}

int device_usable(struct speckv_device *dev)
{
	if (fork_guard_stale(&dev->guard))
		return fail(dev->ctx, -EOWNERDEAD,
			"%s was opened before fork(): open it again in the child",
			dev->medium.name);
	return device_table_current(dev, &dev->folder);
}

bool record_copy(const struct speckv_device *dev, int number, struct lay_pool_record *copy)
{
	uint64_t left = load_acquire(&dev->left[number]);

	memcpy((void *)copy, (const void *)&dev->table->pools[number], sizeof(*copy));
	if (!load_acquire(&copy->state) || left == RECORD_GONE)
		return false;
	if (left)
		extents_cut(copy, left);
	return true;
}

int device_look(struct speckv_device *dev, const char *name, struct lay_pool_record *copy)
{
	for (int i = 0; name && i < LAY_POOLS; i++) {
		if (record_copy(dev, i, copy) && record_sane(dev, copy) &&
			strcmp(copy->name, name) == 0)
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
		rc = fail(dev->ctx, -ENOENT,
			"%s has no pool '%.63s'; 'speckvctl pool list %s' shows what it has",
			dev->medium.name, name ? name : "", dev->medium.name);
	return rc;
}

int device_between(struct speckv_device *dev, const char *name)
{
	const struct lay_superblock *super = &dev->table->super;
	struct lay_pool_record record;
	char command[64];

	if (dev->lock_fd < 0) /* this user cannot open the lock file */
		return fail(dev->ctx, -EBUSY,
			"pool %s is being made or removed; where that was interrupted, 'speckvctl pool destroy %s %s' as uid %u finishes it",
			name, dev->medium.name, name, dev->owner);
	if (lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, NULL)) {
		memcpy(command, super->manager_command, sizeof(command));
		command[63] = 0;
		return fail(dev->ctx, -EBUSY,
			"pool %s is being made or removed by pid %u (%s); try again when it is done",
			name, load_acquire(&super->manager_pid), command);
	}
	/* F_OFD_GETLK does not report a lock of this handle's other threads */
	if (pthread_mutex_trylock(&dev->managing) != 0)
		return fail(dev->ctx, -EBUSY,
			"pool %s is being made or removed by another thread of this process; try again when it is done",
			name);
	pthread_mutex_unlock(&dev->managing);
	if (device_look(dev, name, &record) < 0)
		return fail(dev->ctx, -ENOENT, "pool %s was removed just now", name);
	if (load_acquire(&record.state) == SPECKV_POOL_ACTIVE ||
		load_acquire(&record.state) == SPECKV_POOL_RESIZING)
		return fail(dev->ctx, -EBUSY, "pool %s was made just now; try again", name);
	return fail(dev->ctx, -EUCLEAN,
		"pool %s: its %s was interrupted; 'speckvctl pool destroy %s %s' finishes it", name,
		load_acquire(&record.state) == SPECKV_POOL_CREATING ? "creation" : "removal",
		dev->medium.name, name);
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

static int by_offset(const void *a, const void *b)
{
	const struct lay_extent *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static size_t list_taken(struct speckv_device *dev,
	struct lay_extent list[LAY_POOLS * LAY_EXTENTS + 1])
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
	uint64_t end = list[i].offset + list[i].bytes,
		 next = i + 1 < n ? list[i + 1].offset : medium;

	return next > end ? next - end : 0;
}

int device_extent_alloc(struct speckv_device *dev, uint64_t bytes, struct lay_extent *out)
{
	struct lay_extent list[LAY_POOLS * LAY_EXTENTS + 1];
	size_t n = list_taken(dev, list);

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
	size_t n = list_taken(dev, list);
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

const char *record_name(const struct lay_pool_record *record, char name[SPECKV_NAME_BYTES])
{
	memcpy(name, record->name, SPECKV_NAME_BYTES);
	name[SPECKV_NAME_BYTES - 1] = 0;
	return name;
}

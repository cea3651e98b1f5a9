// SPDX-License-Identifier: MIT
/*
 * Removal of one or more pools: every check for all pools precedes the first change.
 */
#include <stdlib.h>

#include "admin.h"

struct going {
	struct lay_pool_record *record;
	/* a copy: on a medium of fixed size others may write the record */
	char name[SPECKV_NAME_BYTES];
	struct region *region; /* NULL: no usable region is left */
	uint64_t pages; /* of its data, before region_end() */
	uint32_t state; /* before the removal */
};

static int check_removal(struct speckv_device *dev, struct going *going)
{
	int rc = dev->single_inode ? 0 : region_remove(dev, going->record, true);

	/* no client can have attached */
	if (rc || load_acquire(&going->record->state) == SPECKV_POOL_CREATING)
		return rc;
	going->region = malloc(sizeof(*going->region));
	if (!going->region)
		return fail(dev->ctx, -ENOMEM, "out of memory");
	rc = region_open_managed(dev, going->name, going->region);
	if (!rc)
		return 0;
	free(going->region);
	going->region = NULL;
	return region_useless(rc) ? 0 : rc;
}

static int unused(struct speckv_device *dev, const struct going *going)
{
	unsigned int users = 0;
	char holders[320];

	if (!going->region)
		return 0;
	client_holders(going->region, -1, holders, sizeof(holders), &users);
	return users ? fail(dev->ctx, -EBUSY, "pool %s is in use by %s; stop %s first", going->name,
			       holders, users == 1 ? "it" : "them")
		     : 0;
}

struct told {
	speckv_progress_cb progress;
	void *arg;
	uint64_t done, total;
};

static void zero_pool(struct region *r, uint64_t pages, struct told *told)
{
	uint64_t bytes = pages * r->page_bytes, chunk = 64ull << 20;

	for (uint64_t at = 0; at < bytes; at += chunk) {
		uint64_t n = bytes - at < chunk ? bytes - at : chunk;

		region_release_backing(r, at >> r->page_shift, (at + n) >> r->page_shift);
		told->done += n;
		if (told->progress)
			told->progress(told->done, told->total, told->arg);
	}
}

/*
 * Pools that the device refuses to delete stay; those without an answer are left to the next
 * manager. Returns how many it deleted.
 */
static size_t delete_from_device(struct speckv_device *dev, struct going *list, size_t n, int *rc)
{
	for (size_t i = 0; i < n; i++) {
		/* the device zeroes the pages before reuse */
		*rc = dev->medium.backend->pool_delete(dev, list[i].record->uuid);
		if (!*rc)
			continue;
		if (*rc == -ETIMEDOUT || *rc == -ECONNRESET || *rc == -ENODEV)
			list[i].state = SPECKV_POOL_DESTROYING;
		for (size_t stays = i; stays < n; stays++)
			store_release(&list[stays].record->state, list[stays].state);
		return i;
	}
	return n;
}

static int finish(struct speckv_device *dev, struct going *going, struct told *told)
{
	struct lay_pool_record *record = going->record;
	int rc = 0;

	if (going->region)
		zero_pool(going->region, going->pages, told);
	if (!dev->single_inode)
		rc = region_remove(dev, record, false);
	if (rc)
		return rc;
	store_release(&record->state, 0);
	rc = device_flush(dev);
	memset((uint8_t *)record + offsetof(struct lay_pool_record, extents), 0,
		sizeof(*record) - offsetof(struct lay_pool_record, extents));
	device_event(dev, SPECKV_EVENT_POOL_DESTROYED, SPECKV_INFO, "pool %s destroyed and zeroed",
		going->name);
	return rc;
}

int pools_remove(struct speckv_device *dev, struct lay_pool_record *const *records, size_t n,
	bool dry_run, speckv_progress_cb progress, void *arg)
{
	struct going *list = calloc(n ? n : 1, sizeof(*list));
	struct told told = { .progress = progress, .arg = arg };
	int rc = list ? 0 : fail(dev->ctx, -ENOMEM, "out of memory"), failed;
	size_t gone;

	for (size_t i = 0; i < n && !rc; i++) {
		list[i].record = records[i];
		/* the list is zeroed */
		memcpy(list[i].name, records[i]->name, sizeof(list[i].name) - 1);
		rc = check_removal(dev, &list[i]);
		if (!rc)
			rc = unused(dev, &list[i]);
	}
	if (rc || dry_run)
		goto out;
	/*
	 * From here on no client can attach: recheck for those that did meanwhile. A manager that
	 * dies before region_end() has removed nothing.
	 */
	for (size_t i = 0; i < n; i++) {
		list[i].state = load_acquire(&list[i].record->state);
		store_release(&list[i].record->state, SPECKV_POOL_DESTROYING);
		list[i].pages = list[i].region ? region_pages(list[i].region) : 0;
		told.total += list[i].region ? list[i].pages * list[i].region->page_bytes : 0;
	}
	for (size_t i = 0; i < n && !rc; i++)
		rc = unused(dev, &list[i]);
	if (!rc && progress && progress(0, told.total, arg))
		rc = fail(dev->ctx, -ECANCELED, "the removal was cancelled; nothing was changed");
	if (!rc)
		rc = device_flush(dev);
	if (rc) {
		for (size_t i = 0; i < n; i++)
			store_release(&list[i].record->state, list[i].state);
		goto out;
	}
	gone = delete_from_device(dev, list, n, &rc);
	for (size_t i = 0; i < gone; i++)
		if (list[i].region) {
			/* fails later opens, and stops readers without a client slot */
			region_end(list[i].region);
			failed = region_flush(list[i].region, list[i].region->head,
				sizeof(list[i].region->head->pool));
			if (failed && !rc)
				rc = fail(dev->ctx, failed,
					"pool %s: its removal did not reach the medium: %s",
					list[i].name, strerror(-failed));
		}
	for (size_t i = 0; i < gone; i++) {
		failed = finish(dev, &list[i], &told);
		rc = rc ? rc : failed;
	}
out:
	for (size_t i = 0; list && i < n; i++)
		if (list[i].region) {
			region_close(list[i].region);
			free(list[i].region);
		}
	free(list);
	return rc;
}

static int destroy(struct speckv_device *dev, const char *name, bool dry_run,
	speckv_progress_cb progress, void *arg)
{
	struct lay_pool_record copy, *record;
	int number, rc;

	if (!dev || !name)
		return -EINVAL;
	number = device_look(dev, name, &copy);
	rc = dry_run ? device_inspect(dev) : device_manage(dev);
	if (rc)
		return rc;
	if (number >= 0 && dev->settled >> number & 1 && device_look(dev, name, &copy) < 0) {
		/* removed just now by the recovery of a dead manager's work */
		device_unmanage(dev);
		return 0;
	}
	number = device_find(dev, name, &copy);
	rc = number < 0 ? number : 0;
	if (!rc) {
		record = &dev->table->pools[number];
		rc = pools_remove(dev, &record, 1, dry_run, progress, arg);
	}
	device_unmanage(dev);
	return rc;
}

int speckv_pool_destroy(struct speckv_device *dev, const char *name, speckv_progress_cb progress,
	void *arg)
{
	return destroy(dev, name, false, progress, arg);
}

int speckv_pool_destroy_check(struct speckv_device *dev, const char *name)
{
	return destroy(dev, name, true, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* Removal of a device. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin.h"

/* Records to remove with the device. -ENOTEMPTY: there are some, without SPECKV_REMOVE_POOLS. */
static int pools_of(struct speckv_device *dev, unsigned int flags, struct lay_pool_record **records,
	size_t *n)
{
	*n = 0;
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) &&
			load_acquire(&dev->left[i]) != RECORD_GONE)
			records[(*n)++] = &dev->table->pools[i];
	if (*n && !(flags & SPECKV_REMOVE_POOLS))
		return fail(dev->ctx, -ENOTEMPTY,
			"%s still has %zu pool%s; destroy them first, or close it with --yes to destroy them too",
			dev->medium.name, *n, *n == 1 ? "" : "s");
	return 0;
}

/*
 * Only without pools. The name goes first: a manager that dies in between leaves no table without
 * its magic under it, and no table without its lock file.
 */
static int erase_table(struct speckv_device *dev)
{
	char pools[SPECKV_PATH_BYTES + 16];
	struct folder hidden;
	int rc = 0;

	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state))
			return 0;
	device_event(dev, SPECKV_EVENT_DEVICE_REMOVED, SPECKV_INFO, "%s closed", dev->medium.name);
	if (dev->made_file && unlinkat(dev->folder.fd, path_name(dev->medium.path), 0) != 0)
		return fail(dev->ctx, -errno, "cannot remove %s: %s", dev->medium.path,
			strerror(errno));
	if (dev->made_file) {
		rc = folder_flush(&dev->folder);
		if (rc)
			fail_text(dev->ctx, "the removal of %s did not reach the medium: %s",
				dev->medium.path, strerror(-rc));
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
	/*
	 * A medium at a path keeps its pools: only its link is removed, unless it is empty or
	 * SPECKV_REMOVE_POOLS is given.
	 */
	if (medium.runtime || flags & SPECKV_REMOVE_POOLS)
		rc = pools_of(dev, flags, records, &n);
	if (!rc && dev->made_file && faccessat(dev->folder.fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
		rc = fail(ctx, -errno,
			"cannot remove %s: no permission to write in its folder (%s); run as its owner",
			medium.path, strerror(errno));
	if (!rc && n)
		rc = pools_remove(dev, records, n, dry_run, NULL, NULL);
	if (!rc && !dry_run)
		rc = erase_table(dev);
	device_unmanage(dev);
	speckv_device_close(dev);
	if (!rc && !dry_run && !medium.runtime)
		medium_unregister(ctx, &medium);
	return rc;
}

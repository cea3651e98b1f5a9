// SPDX-License-Identifier: MIT
/* Opening, describing and closing a device. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin.h"

#define ADOPT (1u << 30) /* internal open flag: the table was just created */

/* ---- open ----------------------------------------------------------------------------------- */

/* Map the table, and copy its constant fields. */
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
		return fail(ctx, -errno, "%s: cannot access %s: %s", name, path, strerror(errno));
	if (!dev->medium.node && (uint64_t)st.st_size < sizeof(struct lay_device))
		return fail(ctx, -EBADMSG, "%s: %s was truncated", name, path);
	dev->table = mmap(NULL, sizeof(*dev->table), PROT_READ | (dev->writable ? PROT_WRITE : 0),
		MAP_SHARED, dev->fd, 0);
	if (dev->table == MAP_FAILED) {
		dev->table = NULL;
		return fail(ctx, -errno, "%s: cannot map %s: %s", name, path, strerror(errno));
	}
	/* other processes may write it: validate and use one copy */
	memcpy((void *)&super, (const void *)&dev->table->super, sizeof(super));
	if (!medium_super_sound(&super))
		return fail(ctx, -EUCLEAN, "%s: %s was changed while it was opened: open it again",
			name, path);
	memcpy(dev->uuid, super.uuid, sizeof(dev->uuid));
	if (memcmp(dev->uuid, info->uuid, sizeof(dev->uuid)) != 0 ||
		!file_same(&dev->folder, path, dev->fd))
		return fail(ctx, -ESTALE, "%s was recreated while it was opened: open it again",
			name);
	dev->owner = st.st_uid;
	if (!dev->medium.runtime) /* trust the table's owner beside the table */
		dev->folder.owner = st.st_uid;
	dev->single_inode = super.single_inode != 0;
	/* a table that its group may write was not created by libspeckv: see medium_make() */
	dev->made_file = super.made_file && !dev->single_inode;
	if (!dev->single_inode && st.st_mode & S_IWGRP)
		return fail(ctx, -EACCES,
			"%s: %s can be written by its group (gid %u, mode %04o): 'chmod go-w %s' fixes it",
			name, path, st.st_gid, st.st_mode & 07777, path);
	dev->durability = super.durability;
	/* A device cannot be given a calibration: calibrated modes are always the host's. */
	dev->codec_modes = dev->medium.backend->keeps_blocks
		? info->codec_modes & ~speckv_codec_calibrated_modes()
		: 0;
	dev->medium_bytes = super.medium_bytes;
	if (dev->medium_bytes > (dev->medium.node ? dev->medium.node_bytes : (uint64_t)st.st_size))
		dev->medium_bytes = dev->medium.node ? dev->medium.node_bytes
						     : (uint64_t)st.st_size;
	/* on error it is retried when needed, and the error reported then */
	device_lock_guard(dev);
	return 0;
}

int medium_refuse(struct speckv_ctx *ctx, const struct medium *medium,
	const struct speckv_device_info *info)
{
	if (medium->backend->keeps_blocks &&
		(!medium->path[0] || info->state == SPECKV_MEDIUM_DENIED ||
			info->state == SPECKV_MEDIUM_OFFLINE))
		return fail(ctx,
			info->state == SPECKV_MEDIUM_DENIED	       ? -EACCES
				: info->state == SPECKV_MEDIUM_OFFLINE ? -ENXIO
								       : -ENOENT,
			"%s", info->found);
	switch (info->state) {
	case SPECKV_MEDIUM_ABSENT:
		return fail(ctx, -ENOENT,
			"%s: no such device yet; 'speckvctl pool create %s NAME --size SIZE' creates it",
			info->name, info->name);
	case SPECKV_MEDIUM_DENIED:
		return fail(ctx, -EACCES, "%s: %s", info->name, info->found);
	case SPECKV_MEDIUM_UNRECOGNIZED:
		return fail(ctx, -EEXIST,
			"%s holds %s; 'speckvctl pool create' with --yes overwrites it", info->path,
			info->found);
	case SPECKV_MEDIUM_OTHER_VERSION:
		return fail(ctx, -EPROTONOSUPPORT,
			"%s holds %s; use the release that made it, or overwrite it: 'speckvctl pool create' with --yes",
			info->path, info->found);
	case SPECKV_MEDIUM_INCOMPLETE:
		return fail(ctx, -EUCLEAN,
			"%s holds %s; create it again: 'speckvctl pool create' with --yes",
			info->path, info->found);
	case SPECKV_MEDIUM_TRUNCATED:
		return fail(ctx, -EBADMSG,
			"%s holds %s; restore the file, or create it again: 'speckvctl pool create' with --yes",
			info->path, info->found);
	default:
		return 0;
	}
}

/* Create what a device that is not ready lacks, where `flags` allow it. `made`: by this call. */
static int make_medium(struct speckv_ctx *ctx, const struct medium *medium, unsigned int *flags,
	struct speckv_device_info *info, bool *made)
{
	bool absent = info->state == SPECKV_MEDIUM_ABSENT;
	int rc;

	if (medium->backend->keeps_blocks) {
		if (!medium->path[0] || info->state == SPECKV_MEDIUM_DENIED ||
			info->state == SPECKV_MEDIUM_OFFLINE)
			return medium_refuse(ctx, medium, info);
		/* the device is authoritative: the table is only a cache */
		*flags |= ADOPT;
	} else if (!(*flags & SPECKV_OPEN_CREATE) || info->state == SPECKV_MEDIUM_DENIED ||
		(!absent && !(*flags & SPECKV_OPEN_FORMAT))) {
		return medium_refuse(ctx, medium, info);
	}
	rc = medium_make(ctx, medium, !absent);
	*made = rc == 1;
	if (rc >= 0)
		rc = device_probe(ctx, medium, info);
	if (!rc && !medium->backend->keeps_blocks && info->state != SPECKV_MEDIUM_READY)
		rc = medium_refuse(ctx, medium, info);
	return rc;
}

int speckv_device_open(struct speckv_ctx *ctx, const char *name, unsigned int flags,
	struct speckv_device **out)
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
		return fail(ctx, -EINVAL, "%s: unknown open flags %#x", name ? name : "(null)",
			flags);
	rc = device_parse(ctx, name, &medium);
	if (!rc)
		rc = device_probe(ctx, &medium, &info);
	if (!rc && info.state != SPECKV_MEDIUM_READY)
		rc = make_medium(ctx, &medium, &flags, &info, &made);
	if (rc)
		return rc;
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
	if (flags & ADOPT) { /* adopt its pools; needs the right to manage the device */
		rc = device_manage(dev);
		if (rc) {
			/*
			 * created here, and its pools not yet adopted: remove it, so that the next
			 * open retries. -EBUSY: a manager uses it
			 */
			if (made && rc != -EBUSY && file_same(&dev->folder, medium.path, dev->fd))
				unlinkat(dev->folder.fd, path_name(medium.path), 0);
			speckv_device_close(dev);
			return rc;
		}
		device_unmanage(dev);
	}
	if (flags & SPECKV_OPEN_CREATE && !medium.backend->keeps_blocks && !dev->single_inode) {
		rc = device_adopt(dev);
		if (rc) {
			speckv_device_close(dev);
			return rc;
		}
	}
	if (made && !medium.backend->keeps_blocks)
		device_event(dev, SPECKV_EVENT_DEVICE_CREATED, SPECKV_INFO, "%s created at %s",
			medium.name, medium.path);
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

/* ---- description ---------------------------------------------------------------------------- */

int speckv_device_info(struct speckv_device *dev, struct speckv_device_info *info)
{
	uint64_t used = 0;
	int rc, pid;

	if (!dev || !info)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	rc = device_probe(dev->ctx, &dev->medium, info);
	if (rc)
		return rc;
	for (int i = 0; i < LAY_POOLS; i++) {
		const struct lay_pool_record *r = &dev->table->pools[i];
		uint32_t state = load_acquire(&r->state);

		if (state) {
			used += r->table_bytes + r->capacity_bytes;
			info->pools += state != SPECKV_POOL_CREATING;
		}
	}
	if (!dev->medium.backend->keeps_blocks)
		info->allocated_bytes = used;
	if (dev->single_inode) {
		uint64_t total;

		info->free_bytes = device_largest_free(dev, &total);
		info->capacity_bytes = dev->medium_bytes;
		info->allocated_bytes = info->capacity_bytes - total;
	}
	if (dev->lock_fd >= 0 && lock_holder(dev->lock_fd, LAY_LOCK_MANAGER, &pid)) {
		info->manager_pid = load_acquire(&dev->table->super.manager_pid);
		memcpy(info->manager_command, dev->table->super.manager_command,
			sizeof(info->manager_command));
		info->manager_command[63] = 0;
	}
	return 0;
}

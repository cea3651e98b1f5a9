// SPDX-License-Identifier: MIT
/* The lock files of a device and of its pools, and their permissions. */
#include <fcntl.h>
#include <unistd.h>

#include "store.h"

/* The medium's inode holds the locks: only users with write permission may open it. */
static int lock_inode(struct speckv_device *dev, int flags)
{
	int fd = medium_open(dev->ctx, &dev->medium, &dev->folder, flags);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0 || !readers_only(st.st_mode) ||
		(flags & O_ACCMODE) == O_RDONLY)
		return fd;
	close(fd);
	return fail(dev->ctx, -EACCES,
		"%s: users who may only read %s (mode %04o) could hold its locks: 'chmod go-rw %s' fixes it",
		dev->medium.name, dev->medium.path, st.st_mode & 07777, dev->medium.path);
}

bool device_may_manage(const struct speckv_device *dev)
{
	return dev->writable && (dev->single_inode || dev->owner == 0 || dev->owner == geteuid());
}

static int device_lock_open(struct speckv_device *dev)
{
	char path[SPECKV_PATH_BYTES];
	struct folder pools;
	int rc;

	if (dev->single_inode)
		return lock_inode(dev, O_RDWR);
	rc = medium_pools(dev->ctx, &dev->medium, &dev->folder, FOLDER_MAKE, &pools);
	if (!rc)
		rc = medium_pool_path(&dev->medium, ".lock", path)
			? -ENAMETOOLONG
			: file_open(dev->ctx, &pools, path, O_RDWR | O_CREAT, 0600, &private_file);
	folder_close(&pools);
	return rc;
}

int device_lock_guard(struct speckv_device *dev)
{
	int rc;

	fork_hold();
	rc = device_may_manage(dev) ? device_lock_open(dev) : -EACCES;
	dev->lock_fd = rc < 0 ? -1 : rc;
	fork_guard_add_held(&dev->locks, dev->lock_fd, NULL, 0);
	fork_let();
	return rc < 0 ? rc : 0;
}

/* Does the name still lead to the open lock file? */
static bool lock_current(struct speckv_device *dev)
{
	struct folder pools;
	bool same;

	if (dev->single_inode)
		return true;
	if (medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, &pools) != 0)
		return false;
	same = file_same(&pools, ".lock", dev->lock_fd);
	folder_close(&pools);
	return same;
}

int device_lock(struct speckv_device *dev)
{
	for (unsigned int tries = 0; tries < 8; tries++) {
		int rc = dev->lock_fd < 0 ? -EBADF : lock_byte(dev->lock_fd, LAY_LOCK_MANAGER);

		if (rc && rc != -EBADF)
			return rc;
		if (!rc && lock_current(dev))
			return 0;
		fork_guard_release(&dev->locks);
		rc = device_lock_guard(dev);
		if (rc)
			return rc;
	}
	return -EAGAIN;
}

void pool_hidden_name(const struct lay_pool_record *record, const char *suffix, char name[48])
{
	unsigned int at = 0;

	name[at++] = '.';
	for (unsigned int i = 0; i < sizeof(record->uuid); i++)
		at += (unsigned int)snprintf(name + at, 48 - at, "%02x", record->uuid[i]);
	snprintf(name + at, 48 - at, ".%s", suffix);
}

mode_t pool_lock_mode(mode_t mode)
{
	mode_t both = 0;

	for (unsigned int shift = 0; shift <= 6; shift += 3)
		if ((mode >> shift & 6) == 6)
			both |= 6u << shift;
	return both;
}

bool pool_file_owned(const struct stat *st, const struct lay_pool_record *record, mode_t mode)
{
	return st->st_uid == record->uid && st->st_gid == record->gid &&
		(st->st_mode & 07777) == mode;
}

/*
 * Restrict to the permissions common to both modes before changing the group. Change the owner
 * last: afterwards this user may have no right to.
 */
int pool_file_own(int fd, const struct lay_pool_record *record, mode_t mode)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (pool_file_owned(&st, record, mode))
		return 0;
	st.st_mode &= 07777;
	if (st.st_gid != record->gid) {
		if ((st.st_mode & ~mode && fchmod(fd, st.st_mode & mode) != 0) ||
			fchown(fd, (uid_t)-1, record->gid) != 0)
			return -errno;
		st.st_mode &= mode;
	}
	if ((st.st_mode != mode && fchmod(fd, mode) != 0) ||
		(st.st_uid != record->uid && fchown(fd, record->uid, (gid_t)-1) != 0) ||
		fsync(fd) != 0)
		return -errno;
	return 0;
}

struct file_rule pool_file_rule(const struct folder *pools, const char *name,
	const struct lay_pool_record *record)
{
	struct file_rule rule = { .owner = record->uid,
		.writers = record->mode & (S_IWGRP | S_IWOTH) };
	struct stat st;

	if ((pools->owner == 0 || pools->owner == geteuid()) &&
		fstatat(pools->fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		rule.owner = st.st_uid;
	return rule;
}

int pool_lock_make(const struct folder *pools, const struct lay_pool_record *record)
{
	char name[48];
	int fd, rc;

	pool_hidden_name(record, "lock", name);
	fd = openat(pools->fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = pool_file_own(fd, record, pool_lock_mode(record->mode));
	close(fd);
	return rc;
}

const char *pool_lock_path(const struct region *r, char path[SPECKV_PATH_BYTES])
{
	struct lay_pool_record record;
	char name[48];

	memcpy(record.uuid, r->fixed.uuid, sizeof(record.uuid));
	pool_hidden_name(&record, "lock", name);
	if (r->dev->single_inode || medium_pool_path(&r->dev->medium, name, path))
		snprintf(path, SPECKV_PATH_BYTES, "%s", r->dev->medium.path);
	return path;
}

bool pool_lock_differs(const struct folder *pools, const char *lock, const struct stat *file)
{
	const struct lay_pool_record as = { .uid = file->st_uid, .gid = file->st_gid };
	struct stat st;

	return fstatat(pools->fd, lock, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		!pool_file_owned(&st, &as, pool_lock_mode(file->st_mode));
}

int pool_lock_open(struct speckv_device *dev, const struct folder *pools,
	const struct lay_pool_record *record, bool writable)
{
	char name[48], path[SPECKV_PATH_BYTES];
	struct file_rule rule;
	struct stat st;
	int fd;

	if (dev->single_inode)
		return lock_inode(dev, writable ? O_RDWR : O_RDONLY);
	pool_hidden_name(record, "lock", name);
	if (medium_pool_path(&dev->medium, name, path))
		return fail(dev->ctx, -ENAMETOOLONG, "%s: path too long", record->name);
	rule = pool_file_rule(pools, name, record);
	fd = file_open(dev->ctx, pools, path, writable ? O_RDWR : O_RDONLY, 0, &rule);
	/* a reader without access cannot test for liveness: every client counts as alive */
	if (!writable)
		return fd < 0 ? -1 : fd;
	if (fd == -ENOENT)
		return fail(dev->ctx, -ENOLCK,
			"pool %s: its locks, %s, are gone: stop its clients, then 'speckvctl pool check %s %s --repair' as uid %u",
			record->name, path, dev->medium.name, record->name, dev->owner);
	if (fd == -EACCES && fstatat(pools->fd, record->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		pool_lock_differs(pools, name, &st))
		return fail(dev->ctx, fd,
			"pool %s: its locks, %s, have another owner or mode than the pool: 'speckvctl pool check %s %s --repair' as uid %u fixes it",
			record->name, path, dev->medium.name, record->name, dev->owner);
	return fd;
}

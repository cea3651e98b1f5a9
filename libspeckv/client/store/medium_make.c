// SPDX-License-Identifier: MIT
/*
 * Creation of a medium: a file with the pools as files beside it, or a table in a medium of fixed
 * size.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

static int write_super(int fd, const struct medium *medium, uint64_t medium_bytes, bool single,
	bool made)
{
	struct lay_device *table;
	size_t bytes = (sizeof(*table) + LAY_UNIT - 1) & ~(LAY_UNIT - 1);
	int rc;

	if (!single || medium_bytes < bytes)
		bytes = sizeof(*table);
	table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED)
		return -errno;
	store_release(&table->super.state, LAY_MEDIUM_MAKING);
	/* MAKING reaches the medium before any other field */
	rc = medium_flush(medium, table, sizeof(table->super));
	table->super.magic = LAY_DEVICE_MAGIC;
	table->super.version = LAY_VERSION;
	memset((void *)table->pools, 0, sizeof(table->pools));
	memset((void *)table->events, 0, sizeof(table->events));
	rc = rc ? rc : random_bytes(table->super.uuid, sizeof(table->super.uuid));
	/* RFC 9562 version 4 */
	table->super.uuid[6] = (uint8_t)((table->super.uuid[6] & 0x0f) | 0x40);
	table->super.uuid[8] = (uint8_t)((table->super.uuid[8] & 0x3f) | 0x80);
	if (medium->named)
		memcpy(table->super.uuid, medium->uuid, sizeof(table->super.uuid));
	table->super.created_ns = now_ns();
	table->super.table_bytes = sizeof(*table);
	table->super.medium_bytes = medium_bytes;
	table->super.single_inode = single;
	table->super.durability = medium->runtime ? SPECKV_DURABLE_PROCESS : SPECKV_DURABLE_POWER;
	table->super.numa_node = medium->numa_node;
	table->super.made_file = made;
	store_release(&table->super.next_generation, 1);
	store_release(&table->super.event_sequence, 0);
	store_release(&table->super.manager_pid, 0);
	table->super.crc = medium_super_crc(&table->super);
	if (!rc)
		rc = medium_flush(medium, table, bytes);
	if (!rc) {
		store_release(&table->super.state, LAY_MEDIUM_READY);
		rc = medium_flush(medium, table, sizeof(table->super));
	}
	munmap(table, bytes);
	return rc;
}

/* The folder of pools, after a failure to create the table. */
static void remove_empty_pools(const struct medium *medium, const struct folder *in)
{
	char path[SPECKV_PATH_BYTES];

	if (snprintf(path, sizeof(path), "%s.pools", medium->path) < (int)sizeof(path))
		unlinkat(in->fd, path_name(path), AT_REMOVEDIR); /* fails unless empty */
}

/*
 * A draft's name: random, as processes of several PID namespaces may create the same table. No
 * other file is named so.
 */
#define DRAFT_SUFFIX ".speckv-new"

static void draft_name(const struct medium *medium, char name[256])
{
	uint32_t number = (uint32_t)gettid();

	random_bytes(&number, sizeof(number)); /* on failure the thread ID stays */
	snprintf(name, 256, ".%.200s.%u" DRAFT_SUFFIX, path_name(medium->path), number);
}

static bool is_draft(const struct medium *medium, const char *name)
{
	char begin[256];
	size_t length = (size_t)snprintf(begin, sizeof(begin), ".%.200s.", path_name(medium->path)),
	       digits;

	if (strncmp(name, begin, length) != 0)
		return false;
	digits = strspn(name + length, "0123456789");
	return digits && strcmp(name + length + digits, DRAFT_SUFFIX) == 0;
}

/* Remove drafts whose creators died: a live creator holds the lock. */
static void remove_drafts(const struct medium *medium, const struct folder *in)
{
	int fd = openat(in->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (fd >= 0 && !dir)
		close(fd);
	while (dir && (entry = readdir(dir))) {
		if (!is_draft(medium, entry->d_name))
			continue;
		fd = openat(in->fd, entry->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
			lock_byte(fd, LAY_LOCK_MANAGER) == 0) {
			if (file_same(in, entry->d_name, fd))
				unlinkat(in->fd, entry->d_name, 0);
			unlock_byte(fd, LAY_LOCK_MANAGER);
		}
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/* Create and lock a draft. Retried where remove_drafts() of another process came in between. */
static int open_draft(const struct folder *in, const char *name)
{
	for (int tries = 0; tries < 8; tries++) {
		int fd = openat(in->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
			0644);

		if (fd < 0 || (lock_byte(fd, LAY_LOCK_MANAGER) == 0 && file_same(in, name, fd)))
			return fd;
		close(fd);
		unlinkat(in->fd, name, 0);
	}
	errno = EBUSY;
	return -1;
}

/* Atomic creation: write a draft, then link it to the final name. */
static int make_file(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in)
{
	char draft[256];
	uint64_t bytes = sizeof(struct lay_device);
	char words[SPACE_WORDS];
	struct folder pools;
	struct statvfs vfs;
	bool made = false;
	int fd, rc = 0;

	rc = file_size_check(ctx, medium->path, bytes, "");
	if (!rc)
		rc = medium_pools(ctx, medium, in, FOLDER_MAKE, &pools);
	if (rc)
		return rc;
	folder_close(&pools);
	remove_drafts(medium, in);
	draft_name(medium, draft);
	fd = open_draft(in, draft);
	if (fd < 0) {
		rc = errno;
		fail_text(ctx, "cannot make %s: %s", medium->path,
			rc == EACCES
				? "no permission to write in its folder; run as its owner, or choose another path"
				: space_words(words, in->fd, bytes, rc));
		remove_empty_pools(medium, in);
		return -rc;
	}
	if (fstatvfs(fd, &vfs) == 0 && vfs.f_bsize > 65536) /* hugetlbfs: whole huge pages */
		bytes = (bytes + vfs.f_bsize - 1) / vfs.f_bsize * vfs.f_bsize;
	if (file_extend(fd, bytes) != 0 ||
		(fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP))
		rc = -errno;
	if (!rc)
		rc = write_super(fd, medium, bytes, false, true);
	if (!rc && (fchmod(fd, 0644) != 0 || fsync(fd) != 0))
		rc = -errno;
	if (!rc && linkat(in->fd, draft, in->fd, path_name(medium->path), 0) != 0) {
		rc = errno == EEXIST ? 0 : -errno; /* another process created it first */
	} else if (!rc) {
		rc = folder_flush(in);
		made = !rc;
		if (rc)
			unlinkat(in->fd, path_name(medium->path), 0);
	}
	if (rc) /* while the space is still in use */
		fail_text(ctx, "cannot make %s: %s", medium->path,
			space_words(words, in->fd, bytes, -rc));
	unlinkat(in->fd, draft, 0);
	/* explicitly: a child forked meanwhile may keep the description open */
	unlock_byte(fd, LAY_LOCK_MANAGER);
	close(fd);
	if (rc)
		remove_empty_pools(medium, in);
	return rc ? rc : made;
}

/* Check that it may be overwritten as a medium of fixed size; *bytes: its size, in whole units. */
static int format_check(struct speckv_ctx *ctx, const struct medium *medium, int fd,
	uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return fail(ctx, -errno, "%s: %s", medium->path, strerror(errno));
	*bytes = (medium->node ? medium->node_bytes : (uint64_t)st.st_size) & ~(LAY_UNIT - 1);
	if (medium->runtime) /* this was a table whose pools are files of their own */
		return fail(ctx, -EEXIST,
			"%s is not a table that this build can read: remove it with 'rm %s', and 'speckvctl pool create' takes over the pools beside it",
			medium->path, medium->path);
	if (*bytes < 2 * LAY_UNIT)
		return fail(ctx, -ENOSPC,
			"%s is too small for a medium of fixed size: it needs at least 4 MiB; use a new file name to let it grow by pool, or 'rm %s' first",
			medium->path, medium->path);
	if (!medium->node && readers_only(st.st_mode) && st.st_uid != geteuid() && geteuid() != 0)
		return fail(ctx, -EPERM,
			"cannot format %s: users who may only read it (mode %04o) could hold its locks: 'chmod go-r %s' as uid %u fixes it",
			medium->path, st.st_mode & 07777, medium->path, st.st_uid);
	if (lock_holder(fd, LAY_LOCK_MANAGER, NULL))
		return fail(ctx, -EBUSY, "cannot format %s: another manager uses it", medium->path);
	return 0;
}

int medium_format_check(struct speckv_ctx *ctx, const struct medium *medium, uint64_t *bytes)
{
	struct folder in;
	int fd, rc = medium_folder(ctx, medium, 0, &in);

	if (rc)
		return rc == -ENOENT
			? fail(ctx, rc, "cannot make %s: its folder does not exist", medium->path)
			: rc;
	fd = medium_open(ctx, medium, &in, O_RDWR);
	folder_close(&in);
	if (fd < 0)
		return fd == -ENOENT ? fail(ctx, fd, "%s is gone", medium->path) : fd;
	rc = format_check(ctx, medium, fd, bytes);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/* Does this inode hold a complete table? */
static bool is_ready(const struct medium *medium, int fd)
{
	size_t window = medium->node ? LAY_UNIT : sizeof(struct lay_superblock);
	struct lay_superblock super;
	struct stat st;
	uint64_t bytes;
	void *map;

	if (fstat(fd, &st) != 0)
		return false;
	bytes = medium->node ? medium->node_bytes : (uint64_t)st.st_size;
	/* devdax and hugetlbfs have no read() */
	map = bytes < window ? MAP_FAILED : mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return false;
	memcpy((void *)&super, map, sizeof(super));
	munmap(map, window);
	return medium_super_sound(&super) && super.medium_bytes >= sizeof(struct lay_device) &&
		super.medium_bytes <= bytes;
}

/* Overwrite a medium of fixed size, unless another process created a table in it meanwhile. */
static int format_fixed(struct speckv_ctx *ctx, const struct medium *medium, int fd)
{
	struct stat st;
	uint64_t bytes;
	int rc = format_check(ctx, medium, fd, &bytes);

	if (rc)
		return rc;
	rc = fstat(fd, &st) != 0 ? -errno : lock_byte(fd, LAY_LOCK_MANAGER);
	if (!rc && is_ready(medium, fd)) {
		unlock_byte(fd, LAY_LOCK_MANAGER);
		return 0;
	}
	if (!rc && !medium->node && readers_only(st.st_mode) &&
		fchmod(fd, st.st_mode & 0777 & ~readers_only(st.st_mode)) != 0)
		rc = -errno; /* a read-only opener could hold the locks in it */
	if (!rc && !medium->node && fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP)
		rc = -errno;
	if (!rc)
		rc = write_super(fd, medium, bytes, true, false);
	if (rc != -EAGAIN)
		/* explicitly: a child forked meanwhile may keep the description open */
		unlock_byte(fd, LAY_LOCK_MANAGER);
	return !rc ? 1
		   : fail(ctx, rc == -EAGAIN ? -EBUSY : rc, "cannot format %s: %s", medium->path,
			     rc == -EAGAIN ? "another manager uses it" : strerror(-rc));
}

/*
 * Unlink an unusable file (empty, or a table the device can rebuild), unless another process
 * replaced it.
 */
static int make_way(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in,
	int fd)
{
	int rc = -EAGAIN;

	for (int tries = 0; tries < 2000 && rc == -EAGAIN; tries++) {
		/* only the lock holder unlinks the name, and only of this inode */
		rc = lock_byte(fd, LAY_LOCK_MANAGER);
		if (rc == -EAGAIN && lock_shared(fd, LAY_LOCK_MANAGER))
			rc = 0; /* a shared lock, possible for read-only users: ignored */
		if (rc == -EAGAIN)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	if (!rc) {
		if (file_same(in, medium->path, fd) &&
			unlinkat(in->fd, path_name(medium->path), 0) != 0)
			rc = -errno;
		/* explicitly: a child forked meanwhile may keep the description open */
		unlock_byte(fd, LAY_LOCK_MANAGER);
	}
	return rc ? fail(ctx, rc == -EAGAIN ? -EBUSY : rc, "cannot make %s again: %s", medium->path,
			    rc == -EAGAIN ? "another process uses it" : strerror(-rc))
		  : 0;
}

int medium_make(struct speckv_ctx *ctx, const struct medium *medium, bool format)
{
	struct folder in;
	struct stat st;
	int fd, rc;

	rc = medium_folder(ctx, medium, FOLDER_MAKE, &in);
	if (rc == -ENOENT)
		return fail(ctx, rc, "cannot make %s: its folder does not exist", medium->path);
	if (rc)
		return rc;
	fd = medium_open(ctx, medium, &in, O_RDWR);
	if (fd >= 0 &&
		((medium->backend->keeps_blocks && format && !is_ready(medium, fd)) ||
			(fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0))) {
		rc = make_way(ctx, medium, &in, fd);
		close(fd);
		fd = rc ? rc : -ENOENT;
	}
	if (fd == -ENOENT)
		rc = make_file(ctx, medium, &in);
	else if (fd < 0)
		rc = fd;
	else /* 0 where it changed since the probe: the caller probes again */
		rc = format && !medium->backend->keeps_blocks ? format_fixed(ctx, medium, fd) : 0;
	if (fd >= 0)
		close(fd);
	folder_close(&in);
	return rc;
}

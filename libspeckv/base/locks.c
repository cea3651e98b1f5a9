// SPDX-License-Identifier: MIT
/*
 * Open-file-description locks: the kernel drops them when their holder dies. A shared lock needs
 * read permission only and blocks an exclusive one, so locks are in files that only users who may
 * write the guarded data can open.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base.h"

static int lock_call(int fd, int command, short type, long long byte, struct flock *lock)
{
	*lock = (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
	return fcntl(fd, command, lock) == 0 ? 0 : -errno;
}

static int lock_set(int fd, short type, long long byte)
{
	struct flock lock;
	int rc;

	do
		rc = lock_call(fd, F_OFD_SETLK, type, byte, &lock);
	while (rc == -EINTR);
	return rc == -EACCES ? -EAGAIN : rc;
}

int lock_byte(int fd, long long byte)
{
	return lock_set(fd, F_WRLCK, byte);
}

int lock_byte_shared(int fd, long long byte)
{
	return lock_set(fd, F_RDLCK, byte);
}

int unlock_byte(int fd, long long byte)
{
	return lock_set(fd, F_UNLCK, byte);
}

int lock_holder(int fd, long long byte, int *pid)
{
	struct flock lock;

	if (lock_call(fd, F_OFD_GETLK, F_WRLCK, byte, &lock) != 0)
		return 1; /* unknown: assume held */
	if (pid)
		*pid = lock.l_pid;
	return lock.l_type != F_UNLCK;
}

bool lock_shared(int fd, long long byte)
{
	struct flock lock;

	return lock_call(fd, F_OFD_GETLK, F_WRLCK, byte, &lock) == 0 && lock.l_type == F_RDLCK;
}

/* ---- permissions of files of locks ---------------------------------------------------------- */

mode_t readers_only(mode_t mode)
{
	return (mode & S_IRGRP && !(mode & S_IWGRP) ? S_IRGRP : 0) |
		(mode & S_IROTH && !(mode & S_IWOTH) ? S_IROTH : 0);
}

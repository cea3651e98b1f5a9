// SPDX-License-Identifier: MIT
/* Preloaded: a file system that takes its time for each piece of memory. */
#include <dlfcn.h>
#include <fcntl.h>
#include <time.h>

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
	int (*next)(int, off64_t, off64_t);

	*(void **)&next = dlsym(RTLD_NEXT, "posix_fallocate64");
	nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	return next(fd, offset, bytes);
}

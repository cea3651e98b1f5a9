/* SPDX-License-Identifier: MIT */
/* Files made longer without the signal that a limit on their size sends. */
#ifndef SPECKV_BASE_EXTEND_H
#define SPECKV_BASE_EXTEND_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

/*
 * May this process make files of so many bytes (RLIMIT_FSIZE)? The limit in `most`, which may be
 * NULL.
 */
static inline bool file_size_allowed(uint64_t bytes, uint64_t *most)
{
	struct rlimit limit;
	bool known = getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;

	if (most)
		*most = known ? limit.rlim_cur : UINT64_MAX;
	return !known || bytes <= limit.rlim_cur;
}

/* As ftruncate(): EFBIG beyond the limit, where ftruncate() would end the process by SIGXFSZ. */
static inline int file_extend(int fd, uint64_t bytes)
{
	if (file_size_allowed(bytes, NULL))
		return ftruncate(fd, (off_t)bytes);
	errno = EFBIG;
	return -1;
}

#endif

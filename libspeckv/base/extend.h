/* SPDX-License-Identifier: MIT */
/* Extending files without SIGXFSZ. */
#ifndef SPECKV_BASE_EXTEND_H
#define SPECKV_BASE_EXTEND_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <unistd.h>

/* Does RLIMIT_FSIZE allow files of this size? `most` gets the limit; may be NULL. */
static inline bool file_size_allowed(uint64_t bytes, uint64_t *most)
{
	struct rlimit limit;
	bool known = getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;

	if (most)
		*most = known ? limit.rlim_cur : UINT64_MAX;
	return !known || bytes <= limit.rlim_cur;
}

/* ftruncate(), with EFBIG in place of SIGXFSZ beyond the limit. */
static inline int file_extend(int fd, uint64_t bytes)
{
	if (file_size_allowed(bytes, NULL))
		return ftruncate(fd, (off_t)bytes);
	errno = EFBIG;
	return -1;
}

#endif

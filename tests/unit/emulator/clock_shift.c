// SPDX-License-Identifier: MIT
/*
 * Preloaded: the wall clock is as many nanoseconds away from the true one as the file named in
 * SHIFT_FILE says at any moment.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *t)
{
	static const volatile int64_t *shift;
	static int64_t none;
	long rc = syscall(SYS_clock_gettime, clock, t);
	int64_t ns;

	if (!shift) {
		const char *path = getenv("SHIFT_FILE");
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
		void *map = fd >= 0 ? mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

		shift = map == MAP_FAILED ? &none : map;
		if (fd >= 0)
			close(fd);
	}
	if (rc || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
		return (int)rc;
	ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + *shift;
	t->tv_sec = ns / 1000000000;
	t->tv_nsec = ns % 1000000000;
	return 0;
}

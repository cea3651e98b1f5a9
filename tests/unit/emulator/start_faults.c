// SPDX-License-Identifier: MIT
/*
 * Preloaded: what may happen to a card while it starts. NO_AIO: the machine has no asynchronous I/O
 * left. SWAP_FOLDER: when the card takes its lock, its folder goes to SWAP_FOLDER.away and
 * SWAP_FOLDER.other comes in its place.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

long syscall(long number, ...)
{
	long (*next)(long, ...), a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_setup && getenv("NO_AIO")) {
		errno = EAGAIN;
		return -1;
	}
	*(void **)&next = dlsym(RTLD_NEXT, "syscall");
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int flock(int fd, int operation)
{
	const char *folder = getenv("SWAP_FOLDER");
	char away[256], other[256];
	static int done;

	if (folder && !done++) {
		snprintf(away, sizeof(away), "%s.away", folder);
		snprintf(other, sizeof(other), "%s.other", folder);
		if (rename(folder, away) != 0 || rename(other, folder) != 0)
			abort();
	}
	return (int)syscall(SYS_flock, fd, operation);
}

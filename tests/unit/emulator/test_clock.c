// SPDX-License-Identifier: MIT
/*
 * test_clock SPECKV-EMU SHIM: whatever is done to the wall clock, a card serves its clients and
 * sleeps when they have nothing for it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

static void sleeps(struct io *io)
{
	const struct speckv_doorbell_page *page = io->transport->doorbells;

	HOLDS(page);
	for (int i = 0; i < 60000 && !__atomic_load_n(&page->need_wake, __ATOMIC_RELAXED); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	HOLDS(__atomic_load_n(&page->need_wake, __ATOMIC_RELAXED));
}

int main(int argc, char **argv)
{
	static const int64_t hour = 3600000000000;
	struct timespec wall;
	struct card_process card = { "", 0 };
	struct admin admin;
	uint8_t uuid[16];
	unsigned int pool;
	char shift_file[] = "/tmp/speckv-shift-XXXXXX";
	int64_t *shift;
	struct io io;
	int fd;

	HOLDS(argc == 3);
	fd = mkstemp(shift_file);
	HOLDS(fd >= 0 && ftruncate(fd, 4096) == 0);
	shift = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	HOLDS(shift != MAP_FAILED);
	clock_gettime(CLOCK_REALTIME, &wall);
	for (int start = 0; start < 2; start++) { /* right, and in 1970 */
		int64_t right = start ? -(int64_t)wall.tv_sec * 1000000000 : 0;
		const int64_t steps[] = { right, right - (start ? 0 : hour), right + hour,
			right + 1000 * hour, right };

		*shift = right;
		setenv("LD_PRELOAD", argv[2], 1);
		setenv("SHIFT_FILE", shift_file, 1);
		card_start(&card, argv[1]);
		unsetenv("LD_PRELOAD");
		admin_open(&admin, &card);
		if (!start)
			pool = admin_create_pool(&admin, "chat", 8 << 20, uuid);
		else
			pool = admin_find_pool(&admin, "chat");
		io_open(&io, &card);
		admin_grant(&admin, pool, uuid, io.function,
			SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
		for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
			uint64_t n = (uint64_t)start * 8 + i + 1;

			*shift = steps[i];
			HOLDS(io_write(&io, pool, n, n * 66 * 1024, n) == SPECKV_STATUS_OK);
			HOLDS(io_read(&io, pool, n, n * 66 * 1024, n) == SPECKV_STATUS_OK);
			sleeps(&io);
		}
		/* what was stored before the clock was set */
		HOLDS(io_read(&io, pool, 1, 66 * 1024, 1) == SPECKV_STATUS_OK);
		io_close(&io);
		admin_close(&admin);
		card_kill(&card, SIGTERM);
	}
	card_clean(&card);
	unlink(shift_file);
	printf("clocks set back, forward and to 1970: the card served, and slept\n");
	return 0;
}

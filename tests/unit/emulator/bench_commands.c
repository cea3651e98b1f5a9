// SPDX-License-Identifier: MIT
/* No-op commands a second at depth 64, the round trip of one, and 64 KiB reads, over a card process; and the kicks (system calls) they cost. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "harness.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct speckv_cmd_bare nop = { .opcode = SPECKV_IO_NOP };
	struct card_process card = { "", 0 };
	struct admin admin;
	unsigned int pool, commands = 2000000, done = 0, sent = 0, trips = 100000, reads = 20000;
	struct speckv_cqe cqe;
	uint64_t kicks, calls;
	uint8_t uuid[16];
	struct io io;
	double start;

	HOLDS(argc == 2);
	card_start(&card, argv[1]);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "bench", 32 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	kicks = io.queue.kicks;
	calls = io.transport->system_calls;
	start = now();
	while (done < commands) {
		while (sent < commands && sent - done < 64 && queue_room(&io.queue)) {
			nop.command_id = (uint16_t)(sent++ & 0x7fff);
			queue_put(&io.queue, &nop);
		}
		HOLDS(queue_ring(&io.queue) == 0);
		HOLDS(queue_wait(&io.queue, &cqe, 5000000000ull) == 0);
		done++;
		while (queue_reap(&io.queue, &cqe))
			done++;
	}
	printf("no-op, depth 64: %.0f k/s, %llu kicks, %llu system calls for %u commands\n", commands / (now() - start) / 1e3,
	       (unsigned long long)(io.queue.kicks - kicks), (unsigned long long)(io.transport->system_calls - calls), commands);
	start = now();
	for (unsigned int i = 0; i < trips; i++)
		HOLDS(queue_call(&io.queue, &nop, 5000000000ull, NULL, NULL) == 0);
	printf("round trip: %.2f us\n", (now() - start) / trips * 1e6);
	for (uint64_t n = 0; n < 100; n++)
		HOLDS(io_write(&io, pool, n, n * 66 * 1024, n + 1) == SPECKV_STATUS_OK);
	start = now();
	for (unsigned int i = 0; i < reads; i++) {
		struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ, .pool = (uint16_t)pool, .address = i % 100 * 66 * 1024ull, .capacity = BLOCK_BYTES,
						.generation = i % 100 + 1, .buffer_offset = (uint64_t)(i % 32) * BLOCK_BYTES, .key_prefix = { (uint8_t)(i % 100) } };

		HOLDS(queue_call(&io.queue, &read, 5000000000ull, NULL, NULL) == 0);
	}
	printf("64 KiB reads, one at a time: %.2f GB/s\n", reads * (double)BLOCK_BYTES / (now() - start) / 1e9);
	io_close(&io);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}

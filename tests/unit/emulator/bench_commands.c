// SPDX-License-Identifier: MIT
/*
 * No-op commands a second at depth 64 and the system calls that the client makes for them, the
 * round trip of one, and 64 KiB reads, over a card process. Client and card have cores of their own
 * where there are two.
 */
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define DEPTH 64
#define COMMANDS 2000000u /* that are wanted */
#define MOST 20000000u /* that are tried for them */
#define STRETCH 5000u /* about a millisecond */
#define TRIPS 100000u

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int earlier(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), earlier);
	return values[n / 2];
}

static void apart(pid_t card)
{
	int core = sched_getcpu();
	cpu_set_t here, elsewhere;

	CPU_ZERO(&here);
	CPU_ZERO(&elsewhere);
	CPU_SET((size_t)core, &here);
	for (int other = 0; other < sysconf(_SC_NPROCESSORS_CONF); other++)
		if (other != core)
			CPU_SET((size_t)other, &elsewhere);
	if (sched_setaffinity(card, sizeof(elsewhere), &elsewhere) == 0)
		HOLDS(sched_setaffinity(0, sizeof(here), &here) == 0);
}

/* How long a process could have run and somebody else had its core. */
static uint64_t delay_ns(pid_t process)
{
	unsigned long long delay;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)process);
	file = fopen(path, "re");
	HOLDS(file && fscanf(file, "%*u %llu", &delay) == 1);
	fclose(file);
	return delay;
}

static uint64_t taken(pid_t card)
{
	return delay_ns(getpid()) + delay_ns(card);
}

struct run {
	unsigned int commands;
	uint64_t system_calls;
	double seconds;
};

/* `commands` of them, DEPTH under way all the time but at the end. */
static struct run flood(struct io *io, unsigned int commands)
{
	static struct speckv_cmd_bare nop = { .opcode = SPECKV_IO_NOP };
	static unsigned int sent;
	uint64_t calls = io->transport->system_calls;
	unsigned int put = 0, done = 0;
	struct speckv_cqe cqe;
	double start = now();

	while (done < commands) {
		for (; put < commands && put - done < DEPTH && queue_room(&io->queue); put++) {
			nop.command_id = (uint16_t)(sent++ & 0x7fff);
			queue_put(&io->queue, &nop);
		}
		HOLDS(queue_ring(&io->queue) == 0);
		HOLDS(queue_wait(&io->queue, &cqe, 5000000000ull) == 0);
		for (done++; queue_reap(&io->queue, &cqe); done++)
			;
	}
	return (struct run){ commands, io->transport->system_calls - calls, now() - start };
}

/*
 * Where the scheduler gives somebody else a core, the side that is left waits, and a wait that is
 * long makes system calls. Stretches in which that happened are told apart.
 */
static void steady_state(struct io *io, pid_t card)
{
	struct run steady = { 0 }, other = { 0 };
	static double rates[MOST / STRETCH];
	size_t n = 0;

	flood(io, STRETCH); /* everything was touched once */
	while (steady.commands < COMMANDS && steady.commands + other.commands < MOST) {
		uint64_t before = taken(card);
		struct run run;

		flood(io, DEPTH); /* the card did not see us while we asked */
		run = flood(io, STRETCH);
		struct run *sum = taken(card) == before ? &steady : &other;

		sum->commands += run.commands;
		sum->system_calls += run.system_calls;
		if (sum == &steady)
			rates[n++] = STRETCH / run.seconds;
	}
	printf("no-op, depth %d: %.0f k/s, %" PRIu64 " system calls for %u commands", DEPTH,
		n ? median(rates, n) / 1e3 : 0, steady.system_calls, steady.commands);
	printf("; beside them %" PRIu64 " for %u while client or card was off its core\n",
		other.system_calls, other.commands);
}

static double round_trip(struct io *io)
{
	struct speckv_cmd_bare nop = { .opcode = SPECKV_IO_NOP };
	static double trips[TRIPS];

	for (unsigned int i = 0; i < TRIPS; i++) {
		double start = now();

		HOLDS(queue_call(&io->queue, &nop, 5000000000ull, NULL, NULL) == 0);
		trips[i] = now() - start;
	}
	return median(trips, TRIPS);
}

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	struct admin admin;
	unsigned int pool, reads = 20000;
	uint8_t uuid[16];
	struct io io;
	double start;

	HOLDS(argc == 2);
	card_start(&card, argv[1]);
	apart(card.pid);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "bench", 32 << 20, uuid);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	steady_state(&io, card.pid);
	printf("round trip: %.2f us\n", round_trip(&io) * 1e6);
	for (uint64_t n = 0; n < 100; n++)
		HOLDS(io_write(&io, pool, n, n * 66 * 1024, n + 1) == SPECKV_STATUS_OK);
	start = now();
	for (unsigned int i = 0; i < reads; i++) {
		struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ,
			.pool = (uint16_t)pool,
			.address = i % 100 * 66 * 1024ull,
			.capacity = BLOCK_BYTES,
			.generation = i % 100 + 1,
			.buffer_offset = (uint64_t)(i % 32) * BLOCK_BYTES,
			.key_prefix = { (uint8_t)(i % 100) } };

		HOLDS(queue_call(&io.queue, &read, 5000000000ull, NULL, NULL) == 0);
	}
	printf("64 KiB reads, one at a time: %.2f GB/s\n",
		reads * (double)BLOCK_BYTES / (now() - start) / 1e9);
	io_close(&io);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * hostile_peers SPECKV-EMU [SECONDS]: a client that behaves puts and gets blocks, alone, then
 * beside 64 peers of every kind that vfio-user allows: silent, half a header, a message without
 * end, a greeting and nothing more, maps too large, overlapping or at the end of all addresses,
 * descriptors that are not sealed, cut or full of holes, answers to memory messages late, never,
 * wrong or unasked, floods of requests, with replies and without, replies that are not read,
 * greetings of other versions and byte by byte, descriptors by the hundred, doorbells, full queues,
 * invalidations of what is held, connections that come and go. (Descriptors that do not close:
 * test_unclosed.c.)
 *
 * Nothing of the client fails, who administers the card is let in, and the card lives. Prints what
 * the client waited at the median and at the 99th percentile, alone and beside them, and the ratio,
 * which depends on how many cores there are for all.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hostile_peers.h"

#define PEERS 64
#define ROUNDS_MOST 400000u
#define PAUSE_NS 200000 /* between two puts of the client that behaves */

/* A peer only ends when something that it relies on did not hold. */
static void still_there(pid_t pid, int n)
{
	int status = 0;

	if (waitpid(pid, &status, WNOHANG) == 0)
		return;
	fprintf(stderr, "hostile peer %d of kind %d ended: %s %d\n", n, hostile_kind(n),
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	exit(1);
}

/* ---- the client that behaves ---------------------------------------------------------------- */

static int earlier(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct waited {
	double median, p99;
	unsigned int rounds;
};

static struct waited traffic(struct io *io, unsigned int pool, double seconds)
{
	static double took[ROUNDS_MOST];
	static uint64_t generation = 10;
	struct waited waited = { 0 };
	double until = hostile_now() + seconds;

	while ((hostile_now() < until || waited.rounds < 100) && waited.rounds < ROUNDS_MOST) {
		uint64_t n = generation++, address = n % 16 * 66 * 1024;
		struct speckv_cmd_range range = { .opcode = SPECKV_IO_INVALIDATE,
			.pool = (uint16_t)pool,
			.address = address,
			.bytes = 66 * 1024 };
		uint16_t status = 0;
		double start = hostile_now();

		HOLDS(queue_call(&io->queue, &range, 60000000000ull, NULL, &status) == 0 ||
			status == SPECKV_STATUS_NOT_FOUND);
		status = io_write(io, pool, n, address, n);
		if (status)
			fprintf(stderr, "put: %s\n", status_text(status));
		HOLDS(status == SPECKV_STATUS_OK);
		HOLDS(io_read(io, pool, n, address, n) == SPECKV_STATUS_OK);
		took[waited.rounds++] = hostile_now() - start;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
	qsort(took, waited.rounds, sizeof(*took), earlier);
	waited.median = took[waited.rounds / 2];
	waited.p99 = took[waited.rounds - 1 - waited.rounds / 100];
	return waited;
}

/*
 * A process that others of the machine do not take the processor from: what is measured is the
 * card. With two cores for 64 peers the scheduler alone makes 3 ms of the slowest rounds.
 */
static bool ahead(pid_t pid)
{
	return sched_setscheduler(pid, SCHED_FIFO, &(struct sched_param){ 1 }) == 0;
}

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	double seconds = argc > 2 ? atof(argv[2]) : 4;
	struct waited alone, beside;
	pid_t peers[PEERS];
	bool scheduled;
	struct admin admin, second;
	struct io io, late, filler;
	uint8_t uuid[16];
	unsigned int pool;

	HOLDS(argc >= 2);
	card_start(&card, argv[1]);
	scheduled = ahead(card.pid) && ahead(0);
	snprintf(hostile_folder, sizeof(hostile_folder), "%s", card.folder);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "good", 8 << 20, uuid);
	hostile_pool = admin_create_pool(&admin, "shared", 8 << 20, hostile_uuid);
	io_open(&filler, &card);
	admin_grant(&admin, hostile_pool, hostile_uuid, filler.function,
		SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&filler, hostile_pool, 1, 0, 1) == SPECKV_STATUS_OK);
	io_close(&filler);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	traffic(&io, pool, 0.2);
	alone = traffic(&io, pool, seconds);
	for (int n = 0; n < PEERS; n++) {
		peers[n] = fork();
		HOLDS(peers[n] >= 0);
		if (!peers[n])
			hostile_peer(n);
	}
	hostile_nap_ms(500);
	beside = traffic(&io, pool, seconds);
	/* who administers the card gets in, and so does another client */
	admin_open(&second, &card);
	HOLDS(admin_find_pool(&second, "good") == pool);
	admin_close(&second);
	io_open(&late, &card);
	admin_grant(&admin, pool, uuid, late.function, SPECKV_RIGHT_READ);
	io_close(&late);
	beside.rounds += traffic(&io, pool, seconds / 4).rounds;
	HOLDS(admin_find_pool(&admin, "good") == pool);
	for (int n = 0; n < PEERS; n++) {
		still_there(peers[n], n);
		kill(peers[n], SIGKILL);
		waitpid(peers[n], NULL, 0);
	}
	card_lives(&card);
	traffic(&io, pool, 0.1);
	io_close(&io);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	printf("alone %u rounds: median %.1f us, p99 %.1f us; beside %d hostile peers %u rounds: median %.1f us, p99 %.1f us\n",
		alone.rounds, alone.median * 1e6, alone.p99 * 1e6, PEERS, beside.rounds,
		beside.median * 1e6, beside.p99 * 1e6);
	printf("p99 ratio %.2f, failed 0 (%s)\n", beside.p99 / alone.p99,
		scheduled ? "card and client before others in the scheduler"
			  : "waits for the processor are in it: no permission to be before others");
	return 0;
}

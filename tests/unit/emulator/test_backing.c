// SPDX-License-Identifier: MIT
/*
 * test_backing SPECKV-EMU SLOW-MEMORY: while a pool is made for which memory comes slowly, a little
 * in each turn, others are answered.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "harness.h"

#define POOL_BYTES (32u << 20) /* 2.5 s at 5 ms for 64 KiB */
#define PATIENT_MS 1000

static struct card_process card = { "", 0 };
static struct admin admin;
static atomic_bool made;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void *make(void *unused)
{
	uint8_t uuid[16];

	(void)unused;
	HOLDS(admin_create_pool(&admin, "slow", POOL_BYTES, uuid));
	made = true;
	return NULL;
}

int main(int argc, char **argv)
{
	int64_t start, slowest = 0;
	struct transport *other;
	pthread_t maker;
	uint32_t value;

	HOLDS(argc == 3 && setenv("LD_PRELOAD", argv[2], 1) == 0);
	card_start(&card, argv[1]);
	admin_open(&admin, &card);
	other = card_connect(&card, "io", 1 << 20);
	start = now_ms();
	HOLDS(pthread_create(&maker, NULL, make, NULL) == 0);
	while (!made) {
		int64_t before = now_ms(), took;

		HOLDS(other->ops->read32(other, 0, &value) == 0);
		took = now_ms() - before;
		slowest = took > slowest ? took : slowest;
	}
	pthread_join(maker, NULL);
	printf("%lld ms for the pool, an answer to another within %lld ms\n",
		(long long)(now_ms() - start), (long long)slowest);
	HOLDS(now_ms() - start > 2 * PATIENT_MS); /* else it was not slow */
	HOLDS(slowest < PATIENT_MS);
	other->ops->close(other);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The two prefetch behaviours. What follows a block is the prefix tree's to say: ids are opaque. */
#define _POSIX_C_SOURCE 199309L /* nanosleep */
#include <time.h>

#include "behaviours.h"

#define HISTORY 16

static struct speckv_key keys[HISTORY];
static unsigned char *block;

/* A chain of blocks, each the parent of the next: a session's history. */
static void put_history(void)
{
	block = aligned_alloc(64, 65536);
	HOLDS(block);
	for (int i = 0; i < HISTORY; i++) {
		struct speckv_request put = { .buffer = block, .buffer_bytes = 65536 };

		memset(&keys[i], 200 + i, sizeof(keys[i]));
		memset(block, i, 65536);
		put.key = keys[i];
		if (i) {
			put.parent = keys[i - 1];
			put.flags = SPECKV_REQUEST_HAS_PARENT;
		}
		HOLDS(speckv_put(fixture.pool, &put, 1) == 1);
	}
}

static uint64_t counted(unsigned int counter)
{
	struct speckv_stats stats;

	HOLDS(speckv_pool_stats(fixture.device, "parity", &stats) == 0);
	return stats.counters[counter];
}

/* Wait until so many blocks were staged; the suite's time limit ends a wait in vain. */
static void staged(uint64_t blocks)
{
	while (counted(SPECKV_COUNT_PREFETCHED) < blocks)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	HOLDS(counted(SPECKV_COUNT_PREFETCHED) == blocks);
}

static void used(int first, int count)
{
	uint64_t before = counted(SPECKV_COUNT_PREFETCH_USED);

	for (int i = first; i < first + count; i++) {
		struct speckv_request get = {
			.key = keys[i], .buffer = block, .buffer_bytes = 65536
		};

		HOLDS(speckv_get(fixture.pool, &get, 1) == 1);
		HOLDS(get.flags & SPECKV_REQUEST_STAGED && block[0] == i && block[65535] == i);
	}
	HOLDS(counted(SPECKV_COUNT_PREFETCH_USED) == before + (uint64_t)count);
}

static void a_request_with_a_history_of_16_and_depth_4_stages_what_follows(void)
{
	put_history();
	HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", "4") == 0);
	HOLDS(speckv_prefetch(fixture.pool, &keys[2], 1) == 1);
	staged(4);
	HOLDS(counted(SPECKV_COUNT_PREFETCHES) == 4);
	used(2, 4);
	free(block);
}

static void ten_requests_of_different_ids_are_each_seen_in_the_statistics(void)
{
	put_history();
	for (int i = 0; i < 10; i++) {
		HOLDS(speckv_prefetch(fixture.pool, &keys[i], 1) == 1);
		HOLDS(counted(SPECKV_COUNT_PREFETCHES) == (uint64_t)i + 1);
	}
	staged(10);
	used(0, 10);
	free(block);
}

int main(int argc, char **argv)
{
	static const struct behaviour behaviours[] = {
		{ "a_request_with_a_history_of_16_and_depth_4_stages_what_follows",
			a_request_with_a_history_of_16_and_depth_4_stages_what_follows },
		{ "ten_requests_of_different_ids_are_each_seen_in_the_statistics",
			ten_requests_of_different_ids_are_each_seen_in_the_statistics },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

// SPDX-License-Identifier: MIT
/* A card goes, and comes back, while processes and threads have commands under way. */
#include <pthread.h>

#include <speckv/card.h>

#include "cards.h"

static _Atomic int *attached; /* of the clients in other processes */

/* Blocks put and dropped while the card dies at random instants. */
static int busy(void *arg)
{
	struct speckv_pool *mine = attach_pool(open_device("emu:card", 0), "dying", arg);
	uint64_t seed = (uintptr_t)arg;

	++*attached;
	for (unsigned int i = 0; i < 4000; i++) {
		uint64_t n = 100 + below(&seed, 200);
		struct speckv_key key = key_of(n);
		int rc;

		if (below(&seed, 4) == 0) {
			rc = speckv_drop(mine, &key, 1);
			CHECK(rc >= 0, "%d", rc);
			continue;
		}
		rc = below(&seed, 2) ? put_number(mine, n, cards_buffer)
				     : get_number(mine, n, cards_buffer);
		CHECK(rc == 0 || rc == -ENODEV || rc == -ENOENT, "%d", rc);
		if (rc == -ENODEV)
			sleep_us(20000);
	}
	speckv_pool_close(mine);
	return 0;
}

static void a_card_that_dies_under_traffic_gives_no_wrong_byte(void)
{
	pid_t child[2];
	uint64_t seed = now_nanoseconds();

	cards_begin("dying", SPECKV_CODEC_RAW);
	attached = shared_memory(sizeof(*attached));
	child[0] = spawn(busy, "one");
	child[1] = spawn(busy, "two");
	while (*attached < 2) /* a card that is not there cannot be opened */
		sleep_us(1000);
	for (int i = 0; i < 8; i++) {
		sleep_us(20000 + (long)below(&seed, 60000));
		test_card_stop(SIGKILL);
		sleep_us((long)below(&seed, 20000));
		test_card_start();
	}
	EXPECT(0, wait_child(child[0]));
	EXPECT(0, wait_child(child[1]));
	for (uint64_t n = 0; n < BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "dying", -1);
	cards_end("dying");
}

/* ---- threads of one attachment -------------------------------------------------------------- */

enum { MEMBERS = 6, TOGETHER = 24, OWN = 20, BREAKS = 10 };

static struct {
	_Atomic bool over; /* the card stays from here on */
	_Atomic uint64_t good, lost;
} crew;

/* Batches of reads that are under way together, of blocks that everybody reads. */
static void read_together(uint8_t *blocks, uint64_t *seed)
{
	struct speckv_request requests[TOGETHER];
	struct speckv_key keys[TOGETHER];
	uint8_t *want = blocks + TOGETHER * SMALL_BYTES;

	memset(requests, 0, sizeof(requests));
	for (unsigned int i = 0; i < TOGETHER; i++) {
		keys[i] = requests[i].key = key_of(below(seed, BLOCKS));
		requests[i].buffer = blocks + i * SMALL_BYTES;
		requests[i].buffer_bytes = SMALL_BYTES;
	}
	CHECK(speckv_get(cards_pool, requests, TOGETHER) >= 0, "get");
	for (unsigned int i = 0; i < TOGETHER; i++) {
		CHECK(requests[i].status == 0 || requests[i].status == -ENODEV, "%d",
			requests[i].status);
		if (requests[i].status) {
			crew.lost++;
			continue;
		}
		fill_block(&keys[i], want, SMALL_BYTES);
		CHECK(memcmp(requests[i].buffer, want, SMALL_BYTES) == 0, "wrong bytes");
		crew.good++;
	}
}

/* A card that was told to boot does so a little later. */
static int at_last(int (*call)(struct speckv_pool *pool, uint64_t n, uint8_t *buffer), uint64_t n,
	uint8_t *blocks)
{
	int rc = -ENODEV;

	for (int tries = 0; tries < 500 && rc == -ENODEV; tries++) {
		rc = call(cards_pool, n, blocks);
		if (rc == -ENODEV)
			sleep_us(20000);
	}
	return rc;
}

static void *member(void *arg)
{
	uint64_t first = 1000 * (1 + (uintptr_t)arg), seed = first;
	uint8_t *blocks = line_alloc((TOGETHER + 2) * SMALL_BYTES);
	struct speckv_key key;

	while (!crew.over) {
		uint64_t n = first + below(&seed, OWN);
		int rc;

		read_together(blocks, &seed);
		rc = put_number(cards_pool, n, blocks);
		CHECK(rc == 0 || rc == -ENODEV, "put: %d", rc);
		if (rc == 0 && below(&seed, 2)) {
			key = key_of(n);
			rc = speckv_drop(cards_pool, &key, 1);
			CHECK(rc >= 0, "drop: %d", rc);
		}
		rc = get_number(cards_pool, first + below(&seed, OWN), blocks);
		CHECK(rc == 0 || rc == -ENODEV || rc == -ENOENT, "get: %d", rc);
	}
	for (uint64_t n = first; n < first + OWN; n++)
		EXPECT(0, at_last(put_number, n, blocks));
	for (uint64_t n = first; n < first + OWN; n++)
		EXPECT(0, at_last(get_number, n, blocks));
	free(blocks);
	return NULL;
}

/*
 * The connection breaks while threads have commands under way on all of its lanes; whoever needs it
 * next makes it anew, and only once.
 */
static void a_connection_is_made_anew_under_the_traffic_of_threads(void)
{
	pthread_t threads[MEMBERS];
	uint64_t seed = now_nanoseconds(), before;

	cards_begin("crew", SPECKV_CODEC_RAW);
	for (uintptr_t i = 0; i < MEMBERS; i++)
		CHECK(pthread_create(&threads[i], NULL, member, (void *)i) == 0, "thread");
	for (int i = 0; i < BREAKS; i++) {
		before = crew.good;
		for (int waits = 0; crew.good < before + 2 * TOGETHER; waits++, sleep_us(2000))
			CHECK(waits < 20000, "nothing is read any more");
		sleep_us((long)below(&seed, 20000));
		if (i % 2) { /* its queues go, the card stays */
			cards_restart(below(&seed, 2) ? SPECKV_RESTART_ENGINE
						      : SPECKV_RESTART_CARD);
		} else {
			test_card_stop(SIGKILL);
			sleep_us((long)below(&seed, 20000));
			test_card_start();
		}
	}
	crew.over = true;
	for (int i = 0; i < MEMBERS; i++)
		CHECK(pthread_join(threads[i], NULL) == 0, "join");
	fprintf(stderr, "%llu reads, %llu of them while the card was gone\n",
		(unsigned long long)(crew.good + crew.lost), (unsigned long long)crew.lost);
	expect_sound(cards_dev, "crew", BLOCKS + MEMBERS * OWN);
	cards_end("crew");
}

void cards_under_traffic(void)
{
	a_card_that_dies_under_traffic_gives_no_wrong_byte();
	a_connection_is_made_anew_under_the_traffic_of_threads();
}

// SPDX-License-Identifier: MIT
/* A card carries a command out and its answer is lost: what is tried again loses and doubles nothing. */
#include <speckv/card.h>

#include "cards.h"

struct card_counts {
	uint64_t puts, drops; /* of pool "doubtful" */
	uint64_t outstanding; /* commands that the card has and has not answered */
};

static struct card_counts card_counts(void)
{
	struct speckv_card_health health;
	struct speckv_admin *admin;
	struct speckv_stats stats;
	uint32_t number;

	EXPECT(0, speckv_admin_open(test_ctx, "emu:card", &admin));
	EXPECT(0, speckv_admin_pool(admin, "doubtful", &number));
	EXPECT(0, speckv_admin_stats(admin, number, &stats));
	EXPECT(0, speckv_admin_health(admin, &health));
	speckv_admin_close(admin);
	return (struct card_counts){ .puts = stats.counters[SPECKV_COUNT_PUTS],
		.drops = stats.counters[SPECKV_COUNT_DROPS],
		.outstanding = health.outstanding };
}

static void *drop_seven(void *arg)
{
	struct speckv_key key = key_of(7);

	/* nobody answers: not dropped, for all that is known */
	EXPECT(0, speckv_drop(cards_pool, &key, 1));
	return arg;
}

/* The card dies with the order to drop a block: carried out and not answered, or not even begun. */
static void die_while_dropping(bool carried_out)
{
	struct card_counts before = card_counts(), now;
	pthread_t thread;

	cards_control("inject %s 0 0 1\n", carried_out ? "lost-completion" : "stuck");
	CHECK(pthread_create(&thread, NULL, drop_seven, NULL) == 0, "thread");
	do {
		sleep_us(1000);
		now = card_counts();
	} while (carried_out ? now.drops == before.drops : now.outstanding == 0);
	test_card_stop(SIGKILL);
	CHECK(pthread_join(thread, NULL) == 0, "join");
	test_card_start();
}

static void a_drop_whose_answer_is_lost_leaves_a_miss(void)
{
	enum { REPAIR, PUT, DROP, WAYS };
	struct speckv_check_report report;
	struct speckv_stats stats;
	struct speckv_key key = key_of(7);

	cards_begin("doubtful", SPECKV_CODEC_RAW);
	for (int round = 0; round < 2 * WAYS; round++) {
		die_while_dropping(round < WAYS);
		EXPECT(-ENOENT, get_number(cards_pool, 7, cards_buffer));
		expect_sound(cards_dev, "doubtful", BLOCKS - 1);
		if (round % WAYS == DROP)
			EXPECT(1, speckv_drop(cards_pool, &key, 1));
		if (round % WAYS == PUT) /* and is not told that it is there */
			EXPECT(0, put_number(cards_pool, 7, cards_buffer));
		EXPECT(0, check_pool(cards_dev, "doubtful", SPECKV_CHECK_REPAIR, &report));
		CHECK(report.repaired == (round % WAYS == REPAIR), "%llu repaired",
			(unsigned long long)report.repaired);
		EXPECT(0, put_number(cards_pool, 7, cards_buffer));
		for (uint64_t n = 0; n < BLOCKS; n++)
			EXPECT(0, get_number(cards_pool, n, cards_buffer));
		expect_sound(cards_dev, "doubtful", BLOCKS);
	}
	EXPECT(0, speckv_pool_stats(cards_dev, "doubtful", &stats));
	CHECK(stats.counters[SPECKV_COUNT_BAD] == 0, "no block was bad");
	cards_end("doubtful");
}

/*
 * A command whose first try is carried out and its answer lost, the second is lost itself, and the
 * third is told that the pages hold a block.
 */
static void lose_two_answers(void *(*of)(void *))
{
	struct card_counts before = card_counts(), now;
	pthread_t thread;

	cards_control("inject lost-completion 0 0 1\n");
	CHECK(pthread_create(&thread, NULL, of, NULL) == 0, "thread");
	do {
		sleep_us(1000);
		now = card_counts();
	} while (now.puts == before.puts);
	cards_control("inject stuck 0 0 1\n");
	cards_restart(SPECKV_RESTART_ENGINE);
	do {
		sleep_us(1000);
		now = card_counts();
	} while (now.outstanding == 0);
	cards_restart(SPECKV_RESTART_ENGINE);
	CHECK(pthread_join(thread, NULL) == 0, "join");
}

static void *put_again(void *arg)
{
	EXPECT(0, put_number(cards_pool, BLOCKS, cards_buffer));
	return arg;
}

/* The pages are cleared and the block is written once more, not taken for written. */
static void a_put_whose_answers_are_lost_is_written_again(void)
{
	cards_begin("doubtful", SPECKV_CODEC_RAW);
	lose_two_answers(put_again);
	for (uint64_t n = 0; n <= BLOCKS; n++)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "doubtful", BLOCKS + 1);
	cards_end("doubtful");
}

static void *shrink(void *arg)
{
	struct speckv_pool_info info;

	EXPECT(0,
		speckv_pool_resize(cards_dev, "doubtful", 6 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL,
			&info));
	CHECK(info.config.capacity_bytes == 6 * MIB, "it is smaller");
	return arg;
}

/* The same of the copy of a block that a shrink moves: it is not taken for bad at its old place. */
static void a_move_whose_answers_are_lost_loses_no_block(void)
{
	enum { ALL = 200 }; /* most of the pool: some lie above the new end */

	cards_begin("doubtful", SPECKV_CODEC_RAW);
	for (uint64_t n = BLOCKS; n < ALL; n++)
		EXPECT(0, put_number(cards_pool, n, cards_buffer));
	for (uint64_t n = 1; n < ALL; n += 2) {
		struct speckv_key key = key_of(n);

		EXPECT(1, speckv_drop(cards_pool, &key, 1));
	}
	lose_two_answers(shrink);
	for (uint64_t n = 0; n < ALL; n += 2)
		EXPECT(0, get_number(cards_pool, n, cards_buffer));
	expect_sound(cards_dev, "doubtful", ALL / 2);
	cards_end("doubtful");
}

void cards_answers(void)
{
	a_drop_whose_answer_is_lost_leaves_a_miss();
	a_put_whose_answers_are_lost_is_written_again();
	a_move_whose_answers_are_lost_loses_no_block();
}

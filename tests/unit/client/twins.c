// SPDX-License-Identifier: MIT
/*
 * What deaths and races may leave behind, made by hand: a block that was published and not indexed,
 * two blocks of one key, a slot written twice, a block half moved. Nothing that was stored is lost
 * by it, and nothing that was dropped comes back.
 */
#include "client/admin/admin.h"

#include "harness.h"

static struct speckv_device *dev;
static struct speckv_pool *pool;
static uint8_t *buffer;

static int die_attached(void *arg)
{
	attach_pool(open_device(MEMORY, 0), "twins", "dead");
	raise(SIGKILL);
	return 0;
}

/* A client dies and the next one takes over what it left: the index is gone through. */
static void reap(void)
{
	EXPECT(-SIGKILL, wait_child(spawn(die_attached, NULL)));
	speckv_pool_close(attach_pool(dev, "twins", "next"));
}

static void find(const struct speckv_key *key, struct block_ref *found)
{
	CHECK(index_find(&pool->region, key, found), "it is there");
}

static int present(const struct speckv_key *key)
{
	uint8_t p;

	return speckv_lookup(pool, key, 1, &p);
}

static void a_block_without_a_slot_is_indexed(void)
{
	struct speckv_key key = key_of(1);
	struct speckv_check_report report;
	struct block_ref found;

	EXPECT(0, put_number(pool, 1, buffer));
	find(&key, &found);
	index_remove(&pool->region, &key, found.entry, found.generation);
	EXPECT(0, present(&key));
	EXPECT(-EUCLEAN, check_pool(dev, "twins", 0, &report));
	CHECK(report.blocks_unindexed == 1, "check sees it");
	reap();
	EXPECT(1, present(&key));
	EXPECT(0, get_number(pool, 1, buffer));
	EXPECT(1, speckv_drop(pool, &key, 1));
	expect_sound(dev, "twins", 0);
}

static void a_hidden_twin_does_not_rise(void)
{
	struct speckv_key key = key_of(2);
	struct speckv_check_report report;
	struct block_ref found;

	EXPECT(0, put_number(pool, 2, buffer));
	find(&key, &found);
	index_remove(&pool->region, &key, found.entry, found.generation);
	EXPECT(0, put_number(pool, 2, buffer)); /* the twin: it cannot see the first */
	EXPECT(-EUCLEAN, check_pool(dev, "twins", 0, &report));
	CHECK(report.blocks_unindexed == 1, "the first is still held, and nobody can find it");
	reap();
	EXPECT(1, present(&key));
	expect_sound(dev, "twins", 1);
	EXPECT(1, speckv_drop(pool, &key, 1));
	reap();
	EXPECT(0, present(&key));
	expect_sound(dev, "twins", 0);
}

/* Whoever put the second died between its slot and a look for the first. */
static void a_twin_of_the_dead_goes(void)
{
	struct speckv_key key = key_of(9);
	struct block_ref first, all[2 * LAY_BUCKET_SLOTS];
	struct run run;

	EXPECT(0, put_number(pool, 9, buffer));
	find(&key, &first);
	run = (struct run){ first.page, first.generation, first.pages };
	index_remove(&pool->region, &key, first.entry, first.generation);
	EXPECT(0, put_number(pool, 9, buffer));
	EXPECT(0, index_insert(&pool->region, &key, &run));
	CHECK(index_find_all(&pool->region, &key, all) == 2, "two blocks");
	reap();
	expect_sound(dev, "twins", 1);
	EXPECT(0, get_number(pool, 9, buffer));
	EXPECT(1, speckv_drop(pool, &key, 1));
	expect_sound(dev, "twins", 0);
}

static void repair_settles_twins_too(void)
{
	struct speckv_key key = key_of(3);
	struct speckv_check_report report;
	struct block_ref found;

	EXPECT(0, put_number(pool, 3, buffer));
	find(&key, &found);
	index_remove(&pool->region, &key, found.entry, found.generation);
	EXPECT(0, put_number(pool, 3, buffer));
	EXPECT(0, check_pool(dev, "twins", SPECKV_CHECK_REPAIR, &report));
	CHECK(report.blocks_unindexed == 1 && report.repaired >= 1, "mended");
	expect_sound(dev, "twins", 1);
	EXPECT(0, get_number(pool, 3, buffer));
	EXPECT(1, speckv_drop(pool, &key, 1));
	EXPECT(0, present(&key));
	expect_sound(dev, "twins", 0);
}

/*
 * A reaper may index a block whose writer is about to do so: two slots, one block, and a put that
 * goes on settling twins.
 */
static void a_slot_written_twice_costs_nothing(void)
{
	struct speckv_key key = key_of(4);
	struct block_ref found, all[2 * LAY_BUCKET_SLOTS];
	struct run run;

	EXPECT(0, put_number(pool, 4, buffer));
	find(&key, &found);
	run = (struct run){ found.page, found.generation, found.pages };
	EXPECT(0, index_insert(&pool->region, &key, &run));
	CHECK(index_find_all(&pool->region, &key, all) == 2, "twice");
	settle_twins(pool, &key);
	EXPECT(1, present(&key));
	EXPECT(0, get_number(pool, 4, buffer));
	EXPECT(1, speckv_drop(pool, &key, 1));
	EXPECT(0, present(&key));
	expect_sound(dev, "twins", 0);
}

/*
 * Claim a run for block n as a resize does, its frame and entry complete, and say in the client's
 * slot that it moves.
 */
static void half_move(uint64_t n, struct block_ref *from, struct run *to)
{
	struct region *r = &pool->region;
	struct speckv_key key = key_of(n);

	EXPECT(0, put_number(pool, n, buffer));
	find(&key, from);
	EXPECT(0, pages_claim(pool, from->pages, to, 0));
	EXPECT(0, r->backend->copy(r, &key, from, to));
	index_fill(r, to, &key, 0, from->frame_bytes, from->raw_bytes, from->tenant, 0);
	move_begin(pool, from, to);
}

enum moment { BEFORE_THE_SWITCH, AFTER_A_DROP_BY_ANOTHER, IN_THE_SWITCH, AFTER_THE_SWITCH };

static int die_moving(void *arg)
{
	enum moment moment = *(const enum moment *)arg;
	struct block_ref from;
	struct run to, old;

	dev = open_device(MEMORY, 0);
	pool = attach_pool(dev, "twins", "mover");
	half_move(100 + moment, &from, &to);
	old = (struct run){ from.page, from.generation, from.pages };
	if (moment == AFTER_A_DROP_BY_ANOTHER) {
		struct speckv_pool *other = attach_pool(dev, "twins", "other");
		struct speckv_key key = key_of(100 + moment);

		EXPECT(1, speckv_drop(other, &key, 1));
		speckv_pool_close(other);
	}
	if (moment == AFTER_A_DROP_BY_ANOTHER)
		CHECK(!pages_switch(pool, &old, &to), "a dropped block is not moved");
	if (moment == IN_THE_SWITCH)
		CHECK(pages_unpublish(pool, &old), "its first half");
	if (moment == AFTER_THE_SWITCH)
		CHECK(pages_switch(pool, &old, &to), "the switch");
	raise(SIGKILL);
	return 0;
}

static void a_move_ends_as_one_block_or_none(void)
{
	for (enum moment moment = BEFORE_THE_SWITCH; moment <= AFTER_THE_SWITCH; moment++) {
		struct speckv_key key = key_of(100 + moment);
		int want = moment != AFTER_A_DROP_BY_ANOTHER;

		EXPECT(-SIGKILL, wait_child(spawn(die_moving, &moment)));
		speckv_pool_close(attach_pool(dev, "twins", "next"));
		EXPECT(want, present(&key));
		EXPECT(want ? 0 : -ENOENT, get_number(pool, 100 + moment, buffer));
		expect_sound(dev, "twins", want);
		EXPECT(want, speckv_drop(pool, &key, 1));
		reap();
		EXPECT(0, present(&key));
		expect_sound(dev, "twins", 0);
	}
}

/*
 * A mover that was taken for dead: its copy was given back, or a reaper ended the move. The block
 * is there, once.
 */
static void a_move_that_is_reaped_under_a_living_client_loses_nothing(bool ended)
{
	struct region *r = &pool->region;
	struct speckv_key key = key_of(70);
	struct block_ref from;
	struct run to, old;

	half_move(70, &from, &to);
	old = (struct run){ from.page, from.generation, from.pages };
	if (ended)
		store_release(&r->page_map[to.page], lay_word(LAY_HEAD, to.pages, to.generation));
	else
		pages_release(r, pool->owner, &to);
	CHECK(pages_switch(pool, &old, &to) == ended, "ended: %d", ended);
	if (ended) {
		EXPECT(0, block_index(pool, &key, &to));
		index_remove(r, &key, from.entry, from.generation);
		pages_release(r, pool->owner, &old);
	}
	move_end(pool);
	pages_recount(r);
	EXPECT(0, get_number(pool, 70, buffer));
	expect_sound(dev, "twins", 1);
	EXPECT(1, speckv_drop(pool, &key, 1));
	expect_sound(dev, "twins", 0);
}

/*
 * A page that was given to another block since: its old slot and entry name a generation that is
 * not there any more.
 */
static void a_look_up_takes_a_block_of_its_own_generation_only(void)
{
	struct speckv_key key = key_of(60);
	struct block_ref found;
	uint64_t word;

	EXPECT(0, put_number(pool, 60, buffer));
	find(&key, &found);
	word = load_acquire(&pool->region.page_map[found.page]);
	store_release(&pool->region.page_map[found.page],
		lay_word(LAY_HEAD, found.pages, found.generation + 1));
	CHECK(!index_find(&pool->region, &key, &found) && !present(&key), "of a later generation");
	store_release(&pool->region.page_map[found.page],
		lay_word(LAY_HEAD, found.pages, found.generation + (UINT64_C(1) << 20)));
	CHECK(!index_find(&pool->region, &key, &found), "one whose low bits are the same");
	store_release(&pool->region.page_map[found.page], word);
	EXPECT(0, get_number(pool, 60, buffer));
	EXPECT(1, speckv_drop(pool, &key, 1));
	expect_sound(dev, "twins", 0);
}

int main(void)
{
	struct speckv_pool_config config;

	test_begin(60);
	buffer = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	config = small_pool("twins", 4 * MIB);
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "twins", "tester");
	a_block_without_a_slot_is_indexed();
	a_look_up_takes_a_block_of_its_own_generation_only();
	a_hidden_twin_does_not_rise();
	a_twin_of_the_dead_goes();
	repair_settles_twins_too();
	a_slot_written_twice_costs_nothing();
	a_move_ends_as_one_block_or_none();
	a_move_that_is_reaped_under_a_living_client_loses_nothing(false);
	if (!test_on_card()) /* it would have both copies */
		a_move_that_is_reaped_under_a_living_client_loses_nothing(true);
	speckv_pool_close(pool);
	free(buffer);
	speckv_device_close(dev);
	test_end();
	return 0;
}

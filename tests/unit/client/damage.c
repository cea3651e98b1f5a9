// SPDX-License-Identifier: MIT
/*
 * What is spoilt in a medium is never read as a block; check finds each kind of it, and repair
 * mends it and nothing else.
 */
#include "client/admin/admin.h"

#include "harness.h"

#define N 60

static struct speckv_device *dev;
static struct speckv_pool *pool;
static uint8_t *buffer;
static char device_name[300];

static void fill(void)
{
	for (uint64_t i = 0; i < N; i++)
		EXPECT(0, put_number(pool, i, buffer));
}

static struct block_ref found_of(uint64_t n)
{
	struct speckv_key key = key_of(n);
	struct block_ref found;

	CHECK(index_find(&pool->region, &key, &found), "block %llu", (unsigned long long)n);
	return found;
}

static uint8_t *frame_of(uint64_t n)
{
	return pool->region.data + found_of(n).page * pool->region.page_bytes;
}

static struct speckv_check_report dirty(unsigned int flags)
{
	struct speckv_check_report report;

	EXPECT(-EUCLEAN, check_pool(dev, "pool", flags, &report));
	CHECK(strstr(speckv_strerror(test_ctx), "--repair"), "it says what to do");
	return report;
}

static struct speckv_check_report repair(unsigned int flags)
{
	struct speckv_check_report report;

	EXPECT(0, check_pool(dev, "pool", flags | SPECKV_CHECK_REPAIR, &report));
	CHECK(report.repaired > 0, "something was mended");
	return report;
}

/* All of the blocks but `gone` are there. */
static void others_are_there(uint64_t gone)
{
	for (uint64_t i = 0; i < N; i++)
		EXPECT(i == gone ? -ENOENT : 0, get_number(pool, i, buffer));
	expect_sound(dev, "pool", gone < N ? N - 1 : N);
	if (gone < N)
		EXPECT(0, put_number(pool, gone, buffer));
}

static int find_bad(const struct speckv_event *event, void *arg)
{
	*(unsigned int *)arg += event->kind == SPECKV_EVENT_BAD_BLOCK &&
		event->severity == SPECKV_ERROR;
	return 0;
}

static void a_flipped_byte_is_a_miss(uint64_t offset)
{
	struct speckv_key key = key_of(3);
	struct speckv_stats before, after;
	unsigned int events = 0, now = 0;

	EXPECT(0, speckv_pool_stats(dev, "pool", &before));
	EXPECT(0, speckv_events(dev, "pool", 0, find_bad, &events));
	frame_of(3)[offset] ^= 0x40;
	memset(buffer, 0xee, SMALL_BYTES);
	EXPECT(-EBADMSG, get_block(pool, &key, buffer, SMALL_BYTES));
	CHECK(all_bytes(buffer, SMALL_BYTES, 0), "no byte of it is handed out");
	EXPECT(-ENOENT, get_block(pool, &key, buffer, SMALL_BYTES)); /* it was dropped */
	EXPECT(0, speckv_pool_stats(dev, "pool", &after));
	EXPECT(0, speckv_events(dev, "pool", 0, find_bad, &now));
	CHECK(after.counters[SPECKV_COUNT_BAD] == before.counters[SPECKV_COUNT_BAD] + 1 &&
			after.counters[SPECKV_COUNT_MISSES] ==
				before.counters[SPECKV_COUNT_MISSES] + 2 &&
			now == events + 1,
		"counted, and told");
	others_are_there(3);
}

static void check_sees_a_bad_payload_when_deep(void)
{
	struct speckv_check_report report;

	frame_of(5)[SMALL_BYTES / 2] ^= 1;
	EXPECT(0, check_pool(dev, "pool", 0, &report));
	report = dirty(SPECKV_CHECK_DEEP);
	CHECK(report.blocks_bad == 1 && report.blocks_verified == N - 1, "bad %llu",
		(unsigned long long)report.blocks_bad);
	report = repair(SPECKV_CHECK_DEEP);
	CHECK(report.blocks_bad == 1, "bad");
	others_are_there(5);
}

static void check_sees_a_bad_header(void)
{
	frame_of(6)[8] ^= 1;
	CHECK(dirty(0).blocks_bad == 1, "bad");
	repair(0);
	others_are_there(6);
}

/* A frame that was copied to another block's place is sound in itself, and nothing. */
static void a_frame_in_the_wrong_place_is_nothing(void)
{
	struct speckv_key key = key_of(8);

	memcpy(frame_of(8), frame_of(9), (size_t)found_of(8).pages * pool->region.page_bytes);
	EXPECT(-EBADMSG, get_block(pool, &key, buffer, SMALL_BYTES));
	others_are_there(8);
}

/* Nor is one that says another run, place, pool or key, whole as it may be. */
static void a_frame_of_another_life_is_nothing(void)
{
	for (int lie = 0; lie < 4; lie++) {
		struct speckv_key key = key_of(11);
		struct block_ref found = found_of(11);
		uint64_t bytes = (uint64_t)found.pages * pool->region.page_bytes;
		uint8_t *frame = frame_of(11);
		struct speckv_frame parsed;

		EXPECT(0, speckv_frame_parse(frame, bytes, &parsed));
		parsed.identity.generation += lie == 0;
		parsed.identity.pool_address += lie == 1 ? pool->region.page_bytes : 0;
		parsed.identity.pool_uuid[0] ^= lie == 2;
		parsed.identity.key[0] ^= lie == 3;
		EXPECT(0, speckv_frame_readdress(frame, bytes, &parsed.identity));
		EXPECT(0, speckv_frame_verify(frame, bytes));
		EXPECT(-EBADMSG, get_block(pool, &key, buffer, SMALL_BYTES));
		others_are_there(11);
	}
}

static void check_sees_a_broken_run(void)
{
	struct block_ref found = found_of(10);
	uint32_t n = found.pages;

	store_release(&pool->region.page_map[found.page + 2], LAY_FREE);
	CHECK(dirty(0).blocks_bad == 1, "bad");
	repair(0);
	/*
	 * its other pages were nobody's after that: the next check finds the rest, if repair left
	 * any
	 */
	CHECK(n > 3, "%u", n);
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_REPAIR, &(struct speckv_check_report){ 0 }));
	others_are_there(10);
}

static void check_sees_pages_that_are_nobodys(void)
{
	struct speckv_check_report report;
	struct region *r = &pool->region;
	struct run run;

	/* a claim by a client that never was, and a continuation without a head */
	EXPECT(0, pages_claim(pool, 40, &run, 0));
	store_release(&r->page_map[run.page],
		lay_word(LAY_CLAIMED, lay_owner(63, 4000), run.generation));
	report = dirty(0);
	CHECK(report.pages_leaked == 40, "%llu", (unsigned long long)report.pages_leaked);
	store_release(&r->page_map[run.page], LAY_FREE);
	report = dirty(0);
	CHECK(report.pages_leaked == 39, "%llu", (unsigned long long)report.pages_leaked);
	report = repair(0);
	others_are_there(N);
	CHECK(load_acquire(&r->head->pool.used_pages) == report.pages_used,
		"the count is right again: %llu, %llu",
		(unsigned long long)load_acquire(&r->head->pool.used_pages),
		(unsigned long long)report.pages_used);
}

static void check_sees_a_lost_directory(void)
{
	struct region *r = &pool->region;
	struct speckv_check_report report;

	memset((void *)r->directory, 0, (r->fixed.bucket_mask + 1) * sizeof(struct lay_bucket));
	report = dirty(0);
	CHECK(report.blocks_unindexed == N, "%llu", (unsigned long long)report.blocks_unindexed);
	repair(0);
	others_are_there(N);
}

static void check_sees_slots_that_point_at_nothing(void)
{
	struct region *r = &pool->region;
	struct speckv_check_report report;
	unsigned int planted = 0;

	for (uint64_t b = 0; b <= r->fixed.bucket_mask && planted < 20; b += 3)
		if (!load_acquire(&r->directory[b].slots[7])) {
			store_release(&r->directory[b].slots[7],
				0x1230000000000000ull + r->fixed.max_entries + planted);
			planted++;
		}
	EXPECT(0, check_pool(dev, "pool", 0, &report)); /* they harm nobody */
	CHECK(report.index_stale == planted, "%llu of %u", (unsigned long long)report.index_stale,
		planted);
	repair(0);
	EXPECT(0, check_pool(dev, "pool", 0, &report));
	CHECK(report.index_stale == 0, "gone");
	others_are_there(N);
}

static void an_entry_that_lies_is_found_out(void)
{
	struct region *r = &pool->region;
	struct speckv_key key = key_of(12);
	struct block_ref found = found_of(12);

	/*
	 * the entry claims another key: a look-up of either finds nothing that could be taken for
	 * the block
	 */
	store_release(&r->entries[found.entry].key[0],
		load_acquire(&r->entries[found.entry].key[0]) ^ 1);
	EXPECT(-ENOENT, get_block(pool, &key, buffer, SMALL_BYTES));
	CHECK(dirty(0).blocks_unindexed == 1, "unindexed");
	repair(0);
	others_are_there(N);
}

/* A shrink over pages that are nobody's ends with an error, and says what mends it. */
static void a_shrink_over_a_leak_does_not_hang(void)
{
	struct region *r = &pool->region;
	uint64_t page = region_pages(r) - 3;
	int rc;

	while (load_acquire(&r->page_map[page]) != LAY_FREE)
		page--;
	CHECK(page * r->page_bytes >= 6 * MIB, "a free page above the mark");
	store_release(&r->page_map[page], lay_word(LAY_CONT, 2, 12345));
	rc = speckv_pool_resize(dev, "pool", 6 * MIB, 0, NULL, NULL, NULL);
	CHECK(rc == -EUCLEAN && strstr(speckv_strerror(test_ctx), "--repair"), "%d %s", rc,
		speckv_strerror(test_ctx));
	repair(0);
	EXPECT(0, speckv_pool_resize(dev, "pool", 6 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	others_are_there(N);
}

static void one_medium(enum media kind)
{
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);

	dev = open_medium(kind, device_name);
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "tester");
	fill();
	a_flipped_byte_is_a_miss(SPECKV_FRAME_HEADER_BYTES + 400);
	a_flipped_byte_is_a_miss(SMALL_BYTES);
	a_flipped_byte_is_a_miss(5);
	check_sees_a_bad_payload_when_deep();
	check_sees_a_bad_header();
	a_frame_in_the_wrong_place_is_nothing();
	a_frame_of_another_life_is_nothing();
	check_sees_a_broken_run();
	check_sees_pages_that_are_nobodys();
	check_sees_a_lost_directory();
	check_sees_slots_that_point_at_nothing();
	an_entry_that_lies_is_found_out();
	a_shrink_over_a_leak_does_not_hang();
	speckv_pool_close(pool);
	speckv_device_close(dev);
	remove_device(device_name);
}

int main(void)
{
	test_begin(120);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = 0; kind < test_media(); kind++)
		one_medium((enum media)kind);
	free(buffer);
	test_end();
	return 0;
}

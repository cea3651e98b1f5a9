// SPDX-License-Identifier: MIT
/* Resizes that are taken back, or whose manager dies: the size is one or the other, with its blocks. */
#include <stdatomic.h>

#include "resize.h"

static char device_name[300];
static uint8_t *buffer;

static struct speckv_pool *stale;
static struct run late_run;

/*
 * Where a page was retired already, a client that looked at the old end claims it: a late undo had
 * freed it for that.
 */
static int claims_late(uint64_t done, uint64_t total, void *arg)
{
	struct region *r = &stale->region;

	(void)arg;
	if (late_run.pages || done < 1024)
		return 0;
	late_run = (struct run){ .page = region_pages(r) - total + 8, .pages = 1 };
	late_run.generation = atomic_fetch_add(&r->head->pool.next_run_generation, 1);
	CHECK(load_acquire(&r->page_map[late_run.page]) == LAY_RETIRED, "it is retired");
	store_release(&r->page_map[late_run.page],
		lay_word(LAY_CLAIMED, stale->owner, late_run.generation));
	return 0;
}

static void a_claim_above_the_new_end_takes_the_size_back(void)
{
	struct speckv_device *dev = open_medium(MEDIUM_DRAM, device_name);
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);
	struct speckv_pool_info info;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	stale = attach_pool(dev, "pool", "stale");
	late_run.pages = 0;
	REFUSED(-EBUSY, "holds an allocation",
		speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, claims_late, NULL,
			NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.config.capacity_bytes == 8 * MIB &&
			region_pages(&stale->region) == 8 * MIB / info.config.page_bytes,
		"the size is as it was");
	pages_release(&stale->region, stale->owner, &late_run);
	pages_recount(&stale->region);
	EXPECT(0,
		speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, claims_late, NULL,
			NULL));
	speckv_pool_close(stale);
	expect_sound(dev, "pool", 0);
	speckv_device_close(dev);
	remove_device(device_name);
}

struct told {
	unsigned int finished, undone;
};

static int resize_told(const struct speckv_event *event, void *arg)
{
	struct told *told = arg;

	told->finished += strstr(event->text, "died was finished") ||
		strstr(event->text, "finished the resize");
	told->undone += strstr(event->text, "died was undone") ||
		strstr(event->text, "undid the resize");
	return 0;
}

/*
 * Each instant at which a manager may die in a resize: what is said of it is so, and memory that a
 * card gave up stays retired.
 */
static void what_is_said_of_a_dead_resize_is_so(bool by_client)
{
	static const struct instant {
		/* MiB; the record's size, the header's, and how far claims go */
		uint64_t record, pages, limit;
		bool finished;
	} instants[] = {
		{ 8, 8, 4, false }, /* a shrink, on its way */
		{ 8, 4, 4, true }, /* and published */
		{ 4, 4, 4, false }, /* a growth, before its size was */
		{ 4, 8, 4, true }, /* and after */
		{ 8, 8, 0, false }, /* one that had not begun */
	};
	/* without a limit no client is kept out, and none looks */
	const size_t n = sizeof(instants) / sizeof(instants[0]) - by_client;

	for (size_t i = 0; i < n; i++) {
		struct speckv_device *dev = open_medium(MEDIUM_DRAM, device_name);
		struct speckv_pool_config config = small_pool("pool", 8 * MIB),
					  lru = { .eviction = SPECKV_EVICT_LRU };
		struct lay_pool_record *record;
		struct told told = { 0 };
		struct speckv_pool *pool;
		struct region *r;

		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		pool = attach_pool(dev, "pool", "a");
		r = &pool->region;
		record = &dev->table->pools[r->record];
		store_release(&r->page_map[3], LAY_RETIRED);
		record->capacity_bytes = instants[i].record * MIB;
		store_release(&record->state, SPECKV_POOL_RESIZING);
		store_release(&r->head->pool.data_pages, instants[i].pages * MIB / r->page_bytes);
		store_release(&r->head->pool.claim_limit, instants[i].limit * MIB / r->page_bytes);
		if (instants[i].limit && instants[i].pages > instants[i].limit)
			store_release(&r->page_map[region_pages(r) - 1], LAY_RETIRED);
		atomic_fetch_add(&r->head->pool.size_sequence, 1);
		if (by_client)
			EXPECT(0, put_number(pool, 1, buffer));
		else
			EXPECT(-EALREADY,
				speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &lru, NULL));
		CHECK(load_acquire(&r->head->pool.claim_limit) == 0 &&
				load_acquire(&r->page_map[3]) == LAY_RETIRED,
			"instant %zu: limit %llu, word %llx", i,
			(unsigned long long)load_acquire(&r->head->pool.claim_limit),
			(unsigned long long)load_acquire(&r->page_map[3]));
		CHECK(load_acquire(&r->page_map[region_pages(r) - 1]) == LAY_FREE,
			"instant %zu: its end is not given back", i);
		EXPECT(0, speckv_events(dev, by_client ? "pool" : NULL, 0, resize_told, &told));
		CHECK(told.finished == instants[i].finished && told.undone == !instants[i].finished,
			"instant %zu: finished %u, undone %u", i, told.finished, told.undone);
		record->capacity_bytes = region_pages(r) * r->page_bytes;
		store_release(&record->state, SPECKV_POOL_ACTIVE);
		speckv_pool_close(pool);
		speckv_device_close(dev);
		remove_device(device_name);
	}
}

/*
 * A manager dies after it stored the smaller size and before it looked for blocks above it: the
 * size is as it was, with them.
 */
static void blocks_above_a_size_that_was_not_looked_at_stay(enum media kind)
{
	struct speckv_device *dev = open_medium(kind, device_name);
	struct speckv_pool_config config = small_pool("pool", 8 * MIB),
				  lru = { .eviction = SPECKV_EVICT_LRU };
	struct speckv_pool_info info;
	struct lay_pool_record *record;
	struct speckv_pool *pool;
	struct region *r;
	unsigned int n = 0;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	r = &pool->region;
	record = &dev->table->pools[r->record];
	for (uint64_t used = 0; used < 6 * MIB;
		used = load_acquire(&r->head->pool.used_pages) * r->page_bytes)
		EXPECT(0, put_number(pool, n++, buffer));
	store_release(&record->state, SPECKV_POOL_RESIZING);
	store_release(&r->head->pool.claim_limit, 4 * MIB / r->page_bytes);
	store_release(&r->head->pool.data_pages, 4 * MIB / r->page_bytes);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
	EXPECT(-EALREADY,
		speckv_pool_resize(dev, "pool", 8 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	EXPECT(-EALREADY, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &lru, NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.state == SPECKV_POOL_ACTIVE && info.config.capacity_bytes == 8 * MIB,
		"state %u, %llu bytes", info.state, (unsigned long long)info.config.capacity_bytes);
	for (unsigned int i = 0; i < n; i++)
		EXPECT(0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, "pool", n);
	speckv_device_close(dev);
	remove_device(device_name);
	if (kind == MEDIUM_FIXED)
		unlink(device_name + 5);
}

void resize_half_done(void)
{
	buffer = line_alloc(2 * SMALL_BYTES);
	a_claim_above_the_new_end_takes_the_size_back();
	if (!test_on_card()) {
		what_is_said_of_a_dead_resize_is_so(false);
		what_is_said_of_a_dead_resize_is_so(true);
	}
	for (int kind = 0; kind < test_media(); kind++)
		blocks_above_a_size_that_was_not_looked_at_stay((enum media)kind);
	free(buffer);
}

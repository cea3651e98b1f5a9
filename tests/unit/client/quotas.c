// SPDX-License-Identifier: MIT
/* Quotas of the pool and of a tenant, and what becomes of a put that finds no room. */
#include <pthread.h>

#include "harness.h"

static uint8_t *buffer;

static unsigned int put_many(struct speckv_pool *pool, uint64_t first, unsigned int n, int *last)
{
	unsigned int done = 0;

	*last = 0;
	for (unsigned int i = 0; i < n; i++) {
		int rc = put_number(pool, first + i, buffer);

		if (rc)
			*last = rc;
		else
			done++;
	}
	return done;
}

static unsigned int present(struct speckv_pool *pool, uint64_t first, unsigned int n)
{
	unsigned int hits = 0;

	for (unsigned int i = 0; i < n; i++)
		hits += get_number(pool, first + i, buffer) == 0;
	return hits;
}

static void a_full_pool_that_keeps_says_enospc(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("keeps", 2 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	unsigned int done, fit;
	int last;

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, &info));
	fit = (unsigned int)(info.config.capacity_bytes / info.config.page_bytes /
		((speckv_frame_max_bytes(&small_shape, 0) - 1) / info.config.page_bytes + 1));
	pool = attach_pool(dev, "keeps", "a");
	done = put_many(pool, 0, 200, &last);
	/*
	 * a client begins in the middle and comes round: what is left over at either side may cost
	 * one block
	 */
	CHECK(done + 1 >= fit && done <= fit && last == -ENOSPC, "%u of %u, %d", done, fit, last);
	CHECK(present(pool, 0, 200) == done, "all that was stored is there");
	EXPECT(1, speckv_drop(pool, &(struct speckv_key[]){ key_of(5) }[0], 1));
	CHECK(put_many(pool, 300, 2, &last) == 1 && last == -ENOSPC, "room for just one again");
	CHECK(present(pool, 300, 2) == 1, "that one");
	speckv_pool_close(pool);
	expect_sound(dev, "keeps", done);
	EXPECT(0, speckv_pool_destroy(dev, "keeps", NULL, NULL));
}

static void a_full_cache_drops_what_was_not_used(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("cache", 4 * MIB);
	struct speckv_stats stats;
	struct speckv_pool *pool;
	unsigned int done, hot = 0;
	int last;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "cache", "a");
	for (unsigned int i = 0; i < 1000; i++) {
		done = put_many(pool, i, 1, &last);
		CHECK(done == 1, "a cache always has room: %d", last);
		if (i % 20 == 19) /* the clock of last uses ticks in milliseconds */
			sleep_us(4000);
		for (unsigned int h = 0; h < 20 && h <= i && i % 20 == 0; h++)
			get_number(pool, h, buffer);
	}
	EXPECT(0, speckv_pool_stats(dev, "cache", &stats));
	hot = present(pool, 0, 20);
	done = present(pool, 0, 1000);
	CHECK(done > 110 && done <= 124, "%u blocks in 4 MiB", done);
	CHECK(stats.counters[SPECKV_COUNT_EVICTIONS] == 1000 - done, "%llu evictions, %u left",
		(unsigned long long)stats.counters[SPECKV_COUNT_EVICTIONS], done);
	CHECK(hot >= 15, "of 20 blocks in use, %u stayed; of 980 others %u", hot, done - hot);
	speckv_pool_close(pool);
	expect_sound(dev, "cache", done);
	EXPECT(0, speckv_pool_destroy(dev, "cache", NULL, NULL));
}

static void the_pools_quota_holds(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("quota", 4 * MIB),
				  more = { .quota_bytes = 2 * MIB };
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	int last;

	config.eviction = SPECKV_EVICT_NONE;
	config.quota_bytes = MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "quota", "a");
	put_many(pool, 0, 200, &last);
	CHECK(last == -EDQUOT, "%d", last);
	EXPECT(0, speckv_pool_info(dev, "quota", &info));
	CHECK(info.used_bytes <= MIB && info.used_bytes > MIB - 2 * SMALL_BYTES, "%llu",
		(unsigned long long)info.used_bytes);
	EXPECT(0, speckv_pool_set(dev, "quota", SPECKV_SET_QUOTA, &more, &info));
	put_many(pool, 200, 200, &last);
	EXPECT(0, speckv_pool_info(dev, "quota", &info));
	CHECK(last == -EDQUOT && info.used_bytes <= 2 * MIB &&
			info.used_bytes > 2 * MIB - 2 * SMALL_BYTES,
		"%llu", (unsigned long long)info.used_bytes);
	EXPECT(0,
		speckv_pool_set(dev, "quota", SPECKV_SET_EVICTION,
			&(struct speckv_pool_config){ .eviction = SPECKV_EVICT_LRU }, NULL));
	CHECK(put_many(pool, 400, 200, &last) == 200, "a cache makes room below its quota: %d",
		last);
	EXPECT(0, speckv_pool_info(dev, "quota", &info));
	CHECK(info.used_bytes <= 2 * MIB, "%llu", (unsigned long long)info.used_bytes);
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "quota", NULL, NULL));
}

/* Far from a full pool: only the quota makes room, and of the least recently used. */
static void a_quota_drops_what_was_not_used(struct speckv_device *dev, bool of_tenant)
{
	struct speckv_pool_config config = small_pool("least", 8 * MIB);
	struct speckv_pool *pool;
	unsigned int hot = 0;
	int last;

	*(of_tenant ? &config.tenant_quota_bytes : &config.quota_bytes) = 2 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "least", "a");
	for (unsigned int i = 0; i < 600; i++) {
		CHECK(put_many(pool, i, 1, &last) == 1, "a cache makes room below its quota: %d",
			last);
		if (i % 10 == 9) /* the clock of last uses ticks in milliseconds */
			sleep_us(4000);
		for (unsigned int h = 0; h < 20 && h <= i && i % 10 == 0; h++)
			get_number(pool, h, buffer);
	}
	hot = present(pool, 0, 20);
	CHECK(hot >= 15, "of 20 blocks in use, %u stayed", hot);
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "least", NULL, NULL));
}

static int find_tenant(const struct speckv_tenant_info *info, void *arg)
{
	struct speckv_tenant_info *out = arg;

	if (strcmp(info->name, out->name) == 0)
		*out = *info;
	return 0;
}

static struct speckv_tenant_info tenant(struct speckv_device *dev, const char *pool,
	const char *name)
{
	struct speckv_tenant_info info = { 0 };

	snprintf(info.name, sizeof(info.name), "%s", name);
	EXPECT(0, speckv_pool_tenants(dev, pool, find_tenant, &info));
	return info;
}

/*
 * `packed`: blocks of many sizes, those of both tenants mixed, so that hardly two of one tenant lie
 * side by side.
 */
static void a_tenants_quota_is_its_own(struct speckv_device *dev, bool packed)
{
	struct speckv_pool_config config = small_pool("shared", 8 * MIB);
	struct speckv_tenant_info a, b;
	struct speckv_pool *pool_a, *pool_b;
	unsigned int b_blocks;
	int last;

	config.tenant_quota_bytes = MIB;
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool_a = attach_pool(dev, "shared", "a");
	pool_b = attach_pool(dev, "shared", "b");
	if (packed) {
		EXPECT(0, speckv_param_set(pool_a, "codec", "int8-delta-rle"));
		EXPECT(0, speckv_param_set(pool_b, "codec", "int8-delta-rle"));
	}
	for (unsigned int i = 0; i < 300; i++)
		for (int both = 0; both < 2; both++) {
			struct speckv_key key = key_of(i + 10000u * (unsigned int)both);
			int rc;

			fill_numbers(&key, buffer, SMALL_BYTES);
			rc = put_block(both ? pool_b : pool_a, &key, buffer, SMALL_BYTES);
			CHECK(rc == 0 || rc == -EDQUOT, "%d", rc);
		}
	a = tenant(dev, "shared", "a");
	b = tenant(dev, "shared", "b");
	CHECK(a.used_bytes <= MIB && a.used_bytes > MIB - 2 * SMALL_BYTES && b.used_bytes <= MIB &&
			b.used_bytes > MIB - 2 * SMALL_BYTES,
		"%llu %llu", (unsigned long long)a.used_bytes, (unsigned long long)b.used_bytes);
	b_blocks = (unsigned int)b.blocks;
	/* with eviction, a makes room among its own blocks only */
	EXPECT(0,
		speckv_pool_set(dev, "shared", SPECKV_SET_EVICTION,
			&(struct speckv_pool_config){ .eviction = SPECKV_EVICT_LRU }, NULL));
	CHECK(put_many(pool_a, 20000, 300, &last) == 300, "%d", last);
	a = tenant(dev, "shared", "a");
	b = tenant(dev, "shared", "b");
	CHECK(a.used_bytes <= MIB && a.evicted_blocks > 200, "%llu bytes, %llu evicted",
		(unsigned long long)a.used_bytes, (unsigned long long)a.evicted_blocks);
	CHECK(b.blocks == b_blocks && b.evicted_blocks == 0, "b lost %llu",
		(unsigned long long)b.evicted_blocks);
	speckv_pool_close(pool_a);
	speckv_pool_close(pool_b);
	expect_sound(dev, "shared", (int64_t)(a.blocks + b.blocks));
	EXPECT(0, speckv_pool_destroy(dev, "shared", NULL, NULL));
}

struct putter {
	struct speckv_pool *pool;
	uint64_t first;
};

#define EACH 1500

static void *puts_many(void *arg)
{
	const struct putter *putter = arg;
	uint8_t *own = line_alloc(2 * SMALL_BYTES);
	struct speckv_key key, before = { { 0 } };

	for (uint64_t i = 0; i < EACH; i++, before = key) {
		struct speckv_request request = { .buffer = own, .buffer_bytes = SMALL_BYTES };

		request.key = key = key_of(putter->first + i);
		request.parent = before;
		request.flags = i % 16 ? SPECKV_REQUEST_HAS_PARENT : 0;
		fill_block(&key, own, SMALL_BYTES);
		EXPECT(1, speckv_put(putter->pool, &request, 1));
		EXPECT(0, request.status);
	}
	free(own);
	return NULL;
}

static int puts_from_threads(void *arg)
{
	struct putter putters[4];
	pthread_t threads[4];
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), "busy", "a");

	for (unsigned int i = 0; i < 4; i++) {
		putters[i] = (struct putter){ pool, *(const uint64_t *)arg + 100000 * i };
		CHECK(pthread_create(&threads[i], NULL, puts_many, &putters[i]) == 0, "thread");
	}
	for (unsigned int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	speckv_pool_close(pool);
	return 0;
}

/*
 * Where many threads and processes evict at once they choose the same block: those that come second
 * look for another.
 */
static void a_cache_below_its_quota_always_has_room(struct speckv_device *dev, bool of_tenant)
{
	struct speckv_pool_config config = small_pool("busy", 8 * MIB);
	static const uint64_t firsts[] = { 1000000, 2000000 };
	pid_t pids[2];

	*(of_tenant ? &config.tenant_quota_bytes : &config.quota_bytes) = 2 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	for (int i = 0; i < 2; i++)
		pids[i] = spawn(puts_from_threads, (void *)(uintptr_t)&firsts[i]);
	for (int i = 0; i < 2; i++)
		EXPECT(0, wait_child(pids[i]));
	expect_sound(dev, "busy", -1);
	EXPECT(0, speckv_pool_destroy(dev, "busy", NULL, NULL));
}

int main(void)
{
	struct speckv_device *dev;

	test_begin(60);
	buffer = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	a_full_pool_that_keeps_says_enospc(dev);
	a_full_cache_drops_what_was_not_used(dev);
	the_pools_quota_holds(dev);
	a_quota_drops_what_was_not_used(dev, false);
	a_quota_drops_what_was_not_used(dev, true);
	a_tenants_quota_is_its_own(dev, false);
	a_tenants_quota_is_its_own(dev, true);
	a_cache_below_its_quota_always_has_room(dev, false);
	a_cache_below_its_quota_always_has_room(dev, true);
	free(buffer);
	speckv_device_close(dev);
	test_end();
	return 0;
}

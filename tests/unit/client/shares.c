// SPDX-License-Identifier: MIT
/*
 * The hit share: every wanted block counts once, and no share is above one while clients are at
 * work.
 */
#include <pthread.h>

#include "harness.h"

#define N 64
#define THREADS 3

static uint8_t *buffer;
static _Atomic bool stop;

struct figures {
	struct speckv_stats stats;
	struct speckv_tenant_info tenant;
};

static int take_tenant(const struct speckv_tenant_info *info, void *arg)
{
	*(struct speckv_tenant_info *)arg = *info;
	return 0;
}

static struct figures look(struct speckv_device *dev)
{
	struct figures f = { 0 };

	EXPECT(0, speckv_pool_stats(dev, "pool", &f.stats));
	EXPECT(0, speckv_pool_tenants(dev, "pool", take_tenant, &f.tenant));
	return f;
}

static uint64_t samples(const struct figures *f, unsigned int histogram)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
		n += f->stats.histograms[histogram][i];
	return n;
}

static void expect_share(struct speckv_device *dev, uint64_t served, uint64_t wanted,
	uint64_t lookups, uint64_t timed)
{
	struct figures f = look(dev);
	const uint64_t *c = f.stats.counters;

	CHECK(c[SPECKV_COUNT_HITS] == served && c[SPECKV_COUNT_WANTED] == wanted,
		"%llu of %llu, not %llu of %llu", (unsigned long long)c[SPECKV_COUNT_HITS],
		(unsigned long long)c[SPECKV_COUNT_WANTED], (unsigned long long)served,
		(unsigned long long)wanted);
	CHECK(f.tenant.hits == served && f.tenant.wanted == wanted, "the tenant: %llu of %llu",
		(unsigned long long)f.tenant.hits, (unsigned long long)f.tenant.wanted);
	CHECK(c[SPECKV_COUNT_LOOKUPS] == lookups && samples(&f, SPECKV_HIST_LOOKUP) == timed,
		"%llu look-ups, %llu timed", (unsigned long long)c[SPECKV_COUNT_LOOKUPS],
		(unsigned long long)samples(&f, SPECKV_HIST_LOOKUP));
}

/* Ten of a hundred blocks are stored; how they are asked for is the client's. */
static void every_wanted_block_counts_once(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	static struct speckv_request requests[100];
	struct speckv_key keys[100];
	uint8_t present[100];
	struct speckv_pool *pool;
	struct speckv_op *op;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	for (unsigned int i = 0; i < 100; i++) {
		keys[i] = key_of(i);
		requests[i].key = keys[i];
	}
	for (unsigned int i = 0; i < 10; i++)
		EXPECT(0, put_number(pool, i, buffer));
	expect_share(dev, 0, 0, 0, 0);
	/* 90 are not there; those that are may never be fetched */
	EXPECT(10, speckv_lookup_prefix(pool, keys, 100));
	expect_share(dev, 0, 90, 100, 1);
	for (unsigned int i = 0; i < 10; i++)
		EXPECT(0, get_number(pool, i, buffer));
	expect_share(dev, 10, 100, 100, 1);
	EXPECT(10, speckv_lookup(pool, keys, 100, present));
	expect_share(dev, 10, 190, 200, 2);
	EXPECT(0, speckv_submit(pool, SPECKV_OP_LOOKUP, requests, 100, &op));
	EXPECT(10, speckv_op_wait(op, -1));
	speckv_op_release(op);
	expect_share(dev, 10, 280, 300, 3);
	EXPECT(-ENOENT, get_number(pool, 50, buffer)); /* without a look-up: itself */
	EXPECT(0, get_number(pool, 5, buffer));
	expect_share(dev, 11, 282, 300, 3);
	/* nothing that could be served was asked for */
	EXPECT(-EINVAL, get_block(pool, &keys[5], NULL, 0));
	expect_share(dev, 11, 282, 300, 3);
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_stats_reset(dev, "pool"));
	CHECK(look(dev).stats.counters[SPECKV_COUNT_WANTED] == 0, "reset");
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
}

static void *work(void *arg)
{
	struct speckv_pool *pool = arg;
	struct speckv_key keys[N];
	struct speckv_request requests[N];
	uint8_t *bytes = line_alloc(N * SMALL_BYTES);
	uint64_t state = (uintptr_t)&state;

	while (!stop) {
		unsigned int n = 1 + (unsigned int)below(&state, N), found;

		for (unsigned int i = 0; i < n; i++)
			requests[i] = (struct speckv_request){ .key = keys[i] = key_of(i),
				.buffer = bytes + i * SMALL_BYTES,
				.buffer_bytes = SMALL_BYTES };
		found = (unsigned int)speckv_lookup_prefix(pool, keys, n);
		speckv_prefetch(pool, keys, found);
		speckv_get(pool, requests, found);
		if (below(&state, 20) == 0)
			speckv_put(pool, requests + found, n - found);
		if (below(&state, 100) == 0)
			speckv_drop(pool, &keys[below(&state, N)], 1);
	}
	free(bytes);
	return NULL;
}

static void not_above(const char *what, const struct figures *now, const struct figures *before,
	unsigned int part, unsigned int whole)
{
	uint64_t p = now->stats.counters[part] - before->stats.counters[part],
		 w = now->stats.counters[whole] - before->stats.counters[whole];

	CHECK(p <= w, "%s: %llu of %llu", what, (unsigned long long)p, (unsigned long long)w);
}

/* In total, and from one look to the next. */
static void no_share_is_above_one(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct figures zero = { 0 }, before = { 0 };
	struct speckv_pool *pool;
	pthread_t thread[THREADS];
	unsigned int looks = 0;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	for (unsigned int i = 0; i < N; i++)
		EXPECT(0, put_number(pool, i, buffer));
	stop = false;
	for (unsigned int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&thread[i], NULL, work, pool) == 0, "thread");
	for (uint64_t end = now_nanoseconds() + 3000000000ull;
		now_nanoseconds() < end || looks < 500; looks++) {
		struct figures now = look(dev);

		not_above("hits of wanted", &now, &zero, SPECKV_COUNT_HITS, SPECKV_COUNT_WANTED);
		not_above("hits of gets", &now, &zero, SPECKV_COUNT_HITS, SPECKV_COUNT_GETS);
		not_above("found of looked up", &now, &zero, SPECKV_COUNT_LOOKUP_HITS,
			SPECKV_COUNT_LOOKUPS);
		not_above("used of hits", &now, &zero, SPECKV_COUNT_PREFETCH_USED,
			SPECKV_COUNT_HITS);
		not_above("used of asked", &now, &zero, SPECKV_COUNT_PREFETCH_USED,
			SPECKV_COUNT_PREFETCHES);
		not_above("unused of staged", &now, &zero, SPECKV_COUNT_PREFETCH_UNUSED,
			SPECKV_COUNT_PREFETCHED);
		not_above("hits of wanted, of an interval", &now, &before, SPECKV_COUNT_HITS,
			SPECKV_COUNT_WANTED);
		not_above("hits of gets, of an interval", &now, &before, SPECKV_COUNT_HITS,
			SPECKV_COUNT_GETS);
		not_above("found of looked up, of an interval", &now, &before,
			SPECKV_COUNT_LOOKUP_HITS, SPECKV_COUNT_LOOKUPS);
		CHECK(now.tenant.hits <= now.tenant.wanted &&
				now.tenant.hits - before.tenant.hits <=
					now.tenant.wanted - before.tenant.wanted,
			"a tenant: %llu of %llu", (unsigned long long)now.tenant.hits,
			(unsigned long long)now.tenant.wanted);
		before = now;
	}
	stop = true;
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	CHECK(before.stats.counters[SPECKV_COUNT_HITS] > 1000 &&
			before.stats.counters[SPECKV_COUNT_PREFETCH_USED] > 0,
		"too little was done");
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
}

int main(void)
{
	struct speckv_device *dev;

	test_begin(100);
	buffer = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	every_wanted_block_counts_once(dev);
	no_share_is_above_one(dev);
	free(buffer);
	speckv_device_close(dev);
	test_end();
	return 0;
}

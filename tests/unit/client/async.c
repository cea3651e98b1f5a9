// SPDX-License-Identifier: MIT
/* Batches with handles, the staging buffer behind prefetch, and the parameters of an attachment. */
#include <pthread.h>

#include "harness.h"

#define N 64

static uint8_t *blocks, *scratch;
static struct speckv_key keys[N];
static struct speckv_request requests[N];

static void prepare(void)
{
	for (unsigned int i = 0; i < N; i++) {
		keys[i] = key_of(i);
		requests[i] = (struct speckv_request){ .key = keys[i],
			.buffer = blocks + i * SMALL_BYTES,
			.buffer_bytes = SMALL_BYTES };
		if (i) {
			requests[i].parent = keys[i - 1];
			requests[i].flags = SPECKV_REQUEST_HAS_PARENT;
		}
	}
}

static int finish(struct speckv_op *op)
{
	int rc = speckv_op_wait(op, -1);

	EXPECT(1, speckv_op_poll(op));
	EXPECT(rc, speckv_op_wait(op, 0));
	speckv_op_release(op);
	return rc;
}

static int submitted(struct speckv_pool *pool, unsigned int opcode, size_t n)
{
	struct speckv_op *op;

	EXPECT(0, speckv_submit(pool, opcode, requests, n, &op));
	return finish(op);
}

static void each_operation(struct speckv_pool *pool)
{
	struct speckv_op *op;

	prepare();
	for (unsigned int i = 0; i < N; i++)
		fill_block(&keys[i], requests[i].buffer, SMALL_BYTES);
	EXPECT(N, submitted(pool, SPECKV_OP_PUT, N));
	memset(blocks, 0, N * SMALL_BYTES);
	prepare();
	EXPECT(N, submitted(pool, SPECKV_OP_GET, N));
	for (unsigned int i = 0; i < N; i++) {
		fill_block(&keys[i], scratch, SMALL_BYTES);
		CHECK(requests[i].status == 0 &&
				memcmp(scratch, requests[i].buffer, SMALL_BYTES) == 0,
			"block %u", i);
	}
	EXPECT(N, submitted(pool, SPECKV_OP_LOOKUP, N));
	EXPECT(N, submitted(pool, SPECKV_OP_TOUCH, N));
	EXPECT(N, submitted(pool, SPECKV_OP_PREFETCH, N));
	EXPECT(3, submitted(pool, SPECKV_OP_DROP, 3));
	EXPECT(0, submitted(pool, SPECKV_OP_DROP, 3));
	CHECK(requests[0].status == -ENOENT, "%d", requests[0].status);
	EXPECT(N - 3, submitted(pool, SPECKV_OP_LOOKUP, N));
	EXPECT(0, submitted(pool, SPECKV_OP_GET, 0));
	EXPECT(-EINVAL, speckv_submit(pool, 0, requests, 1, &op));
	EXPECT(-EINVAL, speckv_submit(pool, 7, requests, 1, &op));
	EXPECT(-EINVAL, speckv_submit(pool, SPECKV_OP_GET, NULL, 1, &op));
	EXPECT(-EINVAL, speckv_op_wait(NULL, 0));
	EXPECT(0, speckv_op_poll(NULL));
	speckv_op_release(NULL);
}

/*
 * As many as there can be in flight; one more is refused until one is given back; a wait can end
 * before the work does.
 */
static void depth_and_timeouts(struct speckv_device *dev)
{
	struct speckv_attach attach = { .tenant = "deep", .workers = 1 };
	struct speckv_op **ops = calloc(SPECKV_OPS_MAX, sizeof(struct speckv_op *)), *more;
	struct speckv_request *many = calloc(SPECKV_OPS_MAX, N * sizeof(*many));
	struct speckv_pool *pool;
	unsigned int timeouts = 0;

	EXPECT(0, speckv_pool_open(dev, "pool", &attach, &pool));
	prepare();
	for (unsigned int i = 0; i < SPECKV_OPS_MAX; i++) {
		memcpy(many + i * N, requests, sizeof(requests));
		EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, many + i * N, N, &ops[i]));
	}
	REFUSED(-EAGAIN, "1024", speckv_submit(pool, SPECKV_OP_GET, requests, 1, &more));
	for (unsigned int i = SPECKV_OPS_MAX; i-- > 0;) {
		/* the last first: at least once it is not done yet */
		int rc = speckv_op_wait(ops[i], 1000);

		CHECK(rc == -ETIMEDOUT || rc == N - 3, "%d", rc);
		timeouts += rc == -ETIMEDOUT;
		if (rc == -ETIMEDOUT)
			EXPECT(N - 3, speckv_op_wait(ops[i], 60000000000));
		speckv_op_release(ops[i]);
	}
	CHECK(timeouts > 0, "none timed out");
	for (unsigned int i = 0; i < 10; i++)
		EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, many + i * N, N, &ops[i]));
	speckv_pool_close(pool); /* waits for what is in flight */
	for (unsigned int i = 0; i < 10 * N; i++)
		CHECK(many[i].status == 0 || many[i].status == -ENOENT, "%d", many[i].status);
	free(ops);
	free(many);
}

static uint64_t counter(struct speckv_device *dev, unsigned int which)
{
	struct speckv_stats stats;

	EXPECT(0, speckv_pool_stats(dev, "pool", &stats));
	return stats.counters[which];
}

static void wait_staged(struct speckv_device *dev, uint64_t n)
{
	while (counter(dev, SPECKV_COUNT_PREFETCHED) < n)
		sleep_us(500);
}

static bool get_staged(struct speckv_pool *pool, unsigned int i)
{
	struct speckv_request request = {
		.key = keys[i], .buffer = scratch, .buffer_bytes = SMALL_BYTES
	};

	EXPECT(1, speckv_get(pool, &request, 1));
	fill_block(&keys[i], scratch + SMALL_BYTES, SMALL_BYTES);
	CHECK(memcmp(scratch, scratch + SMALL_BYTES, SMALL_BYTES) == 0, "block %u", i);
	return request.flags & SPECKV_REQUEST_STAGED;
}

/* A block is counted as staged just before it can be read. */
static bool becomes_staged(struct speckv_pool *pool, unsigned int i)
{
	for (int tries = 0; tries < 10000; tries++) {
		if (get_staged(pool, i))
			return true;
		sleep_us(500);
	}
	return false;
}

static void prefetch_stages(struct speckv_device *dev)
{
	struct speckv_attach attach = { .tenant = "stager", .staging_bytes = 64 * SMALL_BYTES };
	struct speckv_request layer = { .key = key_of(11),
		.buffer = scratch,
		.buffer_bytes = SMALL_BYTES / 2,
		.layer_first = 1,
		.layer_count = 1 };
	struct speckv_pool *pool;
	uint64_t used;

	EXPECT(0, speckv_pool_stats_reset(dev, "pool"));
	EXPECT(0, speckv_pool_open(dev, "pool", &attach, &pool));
	CHECK(!get_staged(pool, 10), "nothing is staged yet");
	EXPECT(1, speckv_prefetch(pool, &keys[10], 1));
	wait_staged(dev, 1);
	CHECK(becomes_staged(pool, 10) && !get_staged(pool, 11), "that one, and no other");
	used = counter(dev, SPECKV_COUNT_PREFETCH_USED);
	CHECK(used == 1, "%llu", (unsigned long long)used);

	/* down the chain, as far as the parameter says */
	EXPECT(0, speckv_param_set(pool, "prefetch_depth", "4"));
	EXPECT(1, speckv_prefetch(pool, &keys[20], 1));
	wait_staged(dev, 5);
	for (unsigned int i = 20; i < 24; i++)
		CHECK(becomes_staged(pool, i), "block %u", i);
	CHECK(!get_staged(pool, 24), "and no farther");

	/* a layer of a staged block */
	EXPECT(0, speckv_param_set(pool, "prefetch_depth", "1"));
	EXPECT(1, speckv_prefetch(pool, &keys[11], 1));
	wait_staged(dev, 6);
	for (int tries = 0; tries < 10000 && !(layer.flags & SPECKV_REQUEST_STAGED); tries++) {
		sleep_us(tries ? 500 : 0);
		EXPECT(1, speckv_get(pool, &layer, 1));
	}
	fill_block(&keys[11], scratch + SMALL_BYTES, SMALL_BYTES);
	CHECK(layer.flags & SPECKV_REQUEST_STAGED &&
			memcmp(scratch, scratch + SMALL_BYTES + SMALL_BYTES / 2, SMALL_BYTES / 2) ==
				0,
		"layer 1");

	/* the block is the authority: dropped is dropped, staged or not */
	EXPECT(1, speckv_drop(pool, &keys[10], 1));
	EXPECT(-ENOENT, get_block(pool, &keys[10], scratch, SMALL_BYTES));
	fill_block(&keys[10], scratch, SMALL_BYTES);
	EXPECT(0, put_block(pool, &keys[10], scratch, SMALL_BYTES));
	CHECK(!get_staged(pool, 10), "and what comes back is another block");
	/* what is not there is no error */
	EXPECT(2, speckv_prefetch(pool, (struct speckv_key[]){ key_of(999), key_of(998) }, 2));
	EXPECT(-EINVAL, speckv_prefetch(pool, NULL, 1));
	speckv_pool_close(pool);
}

static void parameters(struct speckv_pool *pool)
{
	char value[32];

	EXPECT(0, speckv_param_get(pool, "prefetch_depth", value, sizeof(value)));
	CHECK(strcmp(value, "1") == 0, "%s", value);
	EXPECT(0, speckv_param_get(pool, "codec", value, sizeof(value)));
	CHECK(strcmp(value, "raw") == 0, "%s", value);
	EXPECT(0, speckv_param_get(pool, "verify", value, sizeof(value)));
	CHECK(strcmp(value, "off") == 0, "%s", value);
	for (const char *const *bad =
			(const char *const[]){ "0", "17", "-1", "", "two", "4x", " 4", NULL };
		*bad; bad++)
		REFUSED(-EINVAL, "1 to 16", speckv_param_set(pool, "prefetch_depth", *bad));
	for (const char *const *good = (const char *const[]){ "1", "16", "7", NULL }; *good;
		good++) {
		EXPECT(0, speckv_param_set(pool, "prefetch_depth", *good));
		EXPECT(0, speckv_param_get(pool, "prefetch_depth", value, sizeof(value)));
		CHECK(strcmp(value, *good) == 0, "%s", value);
	}
	REFUSED(-EINVAL, "raw, int8-delta-rle", speckv_param_set(pool, "codec", "zip"));
	REFUSED(-EINVAL, "on or off", speckv_param_set(pool, "verify", "yes"));
	REFUSED(-EINVAL, "prefetch_depth, codec, verify, threads",
		speckv_param_set(pool, "speed", "11"));
	REFUSED(-EINVAL, "prefetch_depth, codec, verify",
		speckv_param_get(pool, "speed", value, sizeof(value)));
	EXPECT(0, speckv_param_set(pool, "codec", "int8-delta-rle"));
	EXPECT(0, speckv_param_set(pool, "verify", "on"));
	EXPECT(-ENOSPC, speckv_param_get(pool, "codec", value, 4));
	EXPECT(0, speckv_param_get(pool, "codec", value, 15));
	EXPECT(-EINVAL, speckv_param_set(pool, NULL, "1"));
	for (uint64_t i = 500; i < 510; i++) { /* both modes side by side in one pool */
		struct speckv_key key = key_of(i);

		EXPECT(0, speckv_param_set(pool, "codec", i % 2 ? "raw" : "int8-delta-rle"));
		fill_numbers(&key, scratch, SMALL_BYTES);
		EXPECT(0, put_block(pool, &key, scratch, SMALL_BYTES));
		EXPECT(0, get_block(pool, &key, scratch + SMALL_BYTES, SMALL_BYTES));
		CHECK(i % 2 == 0 || memcmp(scratch, scratch + SMALL_BYTES, SMALL_BYTES) == 0,
			"raw is exact");
	}
}

/*
 * One put and one get over several threads: the same blocks, statuses, counters and links as over
 * one.
 */
static void shared_batches(struct speckv_device *dev)
{
	struct speckv_attach attach = { .tenant = "shared", .workers = 3 };
	struct speckv_stats before, after;
	struct speckv_pool *pool;
	struct speckv_key child;
	char value[32];

	EXPECT(0, speckv_pool_open(dev, "pool", &attach, &pool));
	EXPECT(0, speckv_param_get(pool, "threads", value, sizeof(value)));
	CHECK(strcmp(value, "1") == 0, "%s", value);
	for (const char *const *bad = (const char *const[]){ "0", "65", "-1", "", "two", NULL };
		*bad; bad++)
		REFUSED(-EINVAL, "1 to 64", speckv_param_set(pool, "threads", *bad));
	for (const char *const *threads = (const char *const[]){ "64", "4", "2", "3", NULL };
		*threads; threads++) {
		uint64_t from = 10000 + (uint64_t)(*threads)[0] * 1000;
		size_t n = *threads[0] == '2' ? 3 : N;

		EXPECT(0, speckv_param_set(pool, "threads", *threads));
		EXPECT(0, speckv_pool_stats(dev, "pool", &before));
		for (size_t i = 0; i < n; i++) {
			requests[i] = (struct speckv_request){ .key = key_of(from + i),
				.buffer = blocks + i * SMALL_BYTES,
				.buffer_bytes = SMALL_BYTES };
			fill_block(&requests[i].key, requests[i].buffer, SMALL_BYTES);
			if (i) {
				requests[i].parent = requests[i - 1].key;
				requests[i].flags = SPECKV_REQUEST_HAS_PARENT;
			}
		}
		requests[1].buffer_bytes--;
		EXPECT((long long)n - 1, speckv_put(pool, requests, n));
		CHECK(requests[0].status == 0 && requests[1].status == -EINVAL &&
				requests[n - 1].status == 0,
			"each its own");
		requests[1].buffer_bytes++;
		EXPECT((long long)n, speckv_put(pool, requests, n));
		CHECK(!(requests[1].flags & SPECKV_REQUEST_EXISTED) &&
				requests[0].flags & SPECKV_REQUEST_EXISTED,
			"put anew, and there before");
		for (size_t i = 2; i + 1 < n; i++) {
			/* the whole chain but for the one that was late */
			EXPECT(1, speckv_children(pool, &requests[i].key, &child, 1));
			CHECK(memcmp(&child, &requests[i + 1].key, sizeof(child)) == 0, "link %zu",
				i);
		}
		memset(blocks, 0, n * SMALL_BYTES);
		EXPECT((long long)n, speckv_get(pool, requests, n));
		for (size_t i = 0; i < n; i++) {
			fill_block(&requests[i].key, scratch, SMALL_BYTES);
			CHECK(memcmp(scratch, requests[i].buffer, SMALL_BYTES) == 0, "block %zu",
				i);
		}
		EXPECT(0, speckv_pool_stats(dev, "pool", &after));
		CHECK(after.counters[SPECKV_COUNT_PUTS] - before.counters[SPECKV_COUNT_PUTS] == n,
			"puts");
		CHECK(after.counters[SPECKV_COUNT_GETS] - before.counters[SPECKV_COUNT_GETS] == n,
			"gets");
		CHECK(after.counters[SPECKV_COUNT_HITS] - before.counters[SPECKV_COUNT_HITS] == n,
			"hits");
		for (size_t i = 0; i < n; i++)
			EXPECT(1, speckv_drop(pool, &requests[i].key, 1));
	}
	EXPECT(0, speckv_put(pool, requests, 0));
	speckv_pool_close(pool);
}

int main(void)
{
	struct speckv_pool_config config;
	struct speckv_device *dev;
	struct speckv_pool *pool;

	test_begin(90);
	blocks = line_alloc(N * SMALL_BYTES);
	scratch = line_alloc(2 * SMALL_BYTES);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	config = small_pool("pool", 8 * MIB);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	each_operation(pool);
	depth_and_timeouts(dev);
	prefetch_stages(dev);
	parameters(pool);
	speckv_pool_close(pool);
	shared_batches(dev);
	expect_sound(dev, "pool", -1);
	speckv_device_close(dev);
	free(blocks);
	free(scratch);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Threads of one attachment, threads with attachments of their own, and processes, all at one small
 * pool and the same keys: put, get, drop, evict, prefetch, allocate, resize. Whatever is read has
 * the bytes of its key. concurrency SECONDS
 */
#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"

#define KEYS 300
#define THREADS 4
#define PROCESSES 2

struct shared {
	_Atomic uint32_t stop;
	_Atomic uint64_t puts, hits, misses, drops, failed;
};

static struct shared *shared;
static struct speckv_device *device;
static struct speckv_pool *common;

/* n requests and keys; `want` has room for a block. */
struct batch {
	struct speckv_request *requests;
	struct speckv_key *keys;
	uint8_t *want;
	unsigned int n;
};

static void put_batch(struct speckv_pool *pool, const struct batch *b)
{
	int rc;

	for (unsigned int i = 0; i < b->n; i++)
		fill_block(&b->keys[i], b->requests[i].buffer, SMALL_BYTES);
	rc = speckv_put(pool, b->requests, b->n);
	CHECK(rc >= 0, "%d", rc);
	for (unsigned int i = 0; i < b->n; i++)
		CHECK(b->requests[i].status == 0 || b->requests[i].status == -ENOSPC, "put: %d",
			b->requests[i].status);
	shared->puts += (uint64_t)rc;
	shared->failed += b->n - (uint64_t)rc;
}

static void get_batch(struct speckv_pool *pool, const struct batch *b, uint64_t *random)
{
	struct speckv_op *op;
	int rc;

	for (unsigned int i = 0; i < b->n; i++)
		b->requests[i].flags = 0;
	if (below(random, 3)) {
		rc = speckv_get(pool, b->requests, b->n);
	} else {
		rc = speckv_submit(pool, SPECKV_OP_GET, b->requests, b->n, &op);
		if (rc == 0) {
			rc = speckv_op_wait(op, -1);
			speckv_op_release(op);
		}
	}
	CHECK(rc >= 0, "%d", rc);
	for (unsigned int i = 0; i < b->n; i++) {
		if (b->requests[i].status == -ENOENT) {
			shared->misses++;
			continue;
		}
		EXPECT(0, b->requests[i].status);
		fill_block(&b->keys[i], b->want, SMALL_BYTES);
		CHECK(memcmp(b->requests[i].buffer, b->want, SMALL_BYTES) == 0, "wrong bytes");
		shared->hits++;
	}
}

static void allocate(struct speckv_pool *pool, uint64_t *random)
{
	struct speckv_mem *mem;
	void *pointer;
	int rc = speckv_mem_alloc(pool, 1 + below(random, SMALL_BYTES), &mem);

	CHECK(rc == 0 || rc == -ENOSPC, "%d", rc);
	if (rc)
		return;
	EXPECT(0, speckv_mem_access(mem, 0, speckv_mem_bytes(mem), &pointer));
	CHECK(all_bytes(pointer, speckv_mem_bytes(mem), 0), "zeroed");
	memset(pointer, 0x5a, speckv_mem_bytes(mem));
	sched_yield();
	CHECK(all_bytes(pointer, speckv_mem_bytes(mem), 0x5a), "its owner's alone");
	speckv_mem_free(mem);
}

static void hammer(struct speckv_pool *pool, uint64_t random, unsigned int batch)
{
	struct speckv_request *requests = calloc(batch, sizeof(*requests));
	struct speckv_key *keys = calloc(batch, sizeof(*keys));
	uint8_t *blocks = line_alloc(batch * SMALL_BYTES), *want = line_alloc(SMALL_BYTES),
		*present = calloc(batch, 1);
	int rc;

	while (!atomic_load(&shared->stop)) {
		unsigned int n = 1 + (unsigned int)below(&random, batch);

		for (unsigned int i = 0; i < n; i++) {
			keys[i] = key_of(below(&random, KEYS));
			requests[i] = (struct speckv_request){ .key = keys[i],
				.buffer = blocks + i * SMALL_BYTES,
				.buffer_bytes = SMALL_BYTES };
			if (below(&random, 2)) {
				requests[i].parent = key_of(below(&random, KEYS));
				requests[i].flags = SPECKV_REQUEST_HAS_PARENT;
			}
		}
		switch (below(&random, 12)) {
		case 0:
		case 1:
		case 2:
			put_batch(pool, &(struct batch){ requests, keys, want, n });
			break;
		case 3:
			rc = speckv_drop(pool, keys, n);
			CHECK(rc >= 0, "%d", rc);
			shared->drops += (uint64_t)rc;
			break;
		case 4:
			CHECK(speckv_lookup(pool, keys, n, present) >= 0 &&
					speckv_lookup_prefix(pool, keys, n) >= 0 &&
					speckv_touch(pool, keys, n) >= 0,
				"look");
			CHECK(speckv_children(pool, keys, keys, n) >= 0, "children");
			break;
		case 5:
			CHECK(speckv_prefetch(pool, keys, n) >= 0, "prefetch");
			break;
		case 6:
			allocate(pool, &random);
			break;
		default:
			get_batch(pool, &(struct batch){ requests, keys, want, n }, &random);
		}
	}
	free(requests);
	free(keys);
	free(blocks);
	free(want);
	free(present);
}

static void *shared_attachment(void *arg)
{
	hammer(common, (uintptr_t)arg * 101 + (uint64_t)getpid(), 16);
	return NULL;
}

static void *own_attachment(void *arg)
{
	uint64_t random = (uintptr_t)arg * 103 + (uint64_t)getpid();
	struct speckv_pool *pool = attach_pool(device, "pool", "own");

	EXPECT(0, speckv_param_set(pool, "prefetch_depth", "3"));
	hammer(pool, random, 4);
	speckv_pool_close(pool);
	return NULL;
}

static void *resizer(void *arg)
{
	struct speckv_device *dev = open_device(MEMORY, 0);
	uint64_t random = 5;

	while (!atomic_load(&shared->stop)) {
		int rc = speckv_pool_resize(dev, "pool", 2 * MIB * (2 + below(&random, 3)),
			SPECKV_RESIZE_EVICT, NULL, NULL, NULL);

		CHECK(rc == 0 || rc == -EALREADY || rc == -EBUSY, "resize: %d (%s)", rc,
			speckv_strerror(test_ctx));
		sleep_us(3000);
	}
	speckv_device_close(dev);
	return NULL;
}

static int process(void *arg)
{
	pthread_t threads[THREADS + 2];

	device = open_device(MEMORY, 0);
	common = attach_pool(device, "pool", "common");
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, i % 2 ? own_attachment : shared_attachment,
			      (void *)i) == 0,
			"thread");
	CHECK(pthread_create(&threads[THREADS], NULL, shared_attachment, (void *)99) == 0,
		"thread");
	CHECK(pthread_create(&threads[THREADS + 1], NULL, resizer, NULL) == 0, "thread");
	for (int i = 0; i < THREADS + 2; i++)
		pthread_join(threads[i], NULL);
	speckv_pool_close(common);
	speckv_device_close(device);
	speckv_ctx_destroy(test_ctx);
	return 0;
}

static void run(uint32_t eviction, unsigned int milliseconds)
{
	struct speckv_pool_config config = small_pool("pool", 6 * MIB);
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	pid_t children[PROCESSES];

	memset(shared, 0, sizeof(*shared));
	config.eviction = eviction;
	config.page_bytes = 1024;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	for (int i = 0; i < PROCESSES; i++)
		children[i] = spawn(process, NULL);
	sleep_us((long)milliseconds * 1000);
	atomic_store(&shared->stop, 1);
	for (int i = 0; i < PROCESSES; i++)
		EXPECT(0, wait_child(children[i]));
	fprintf(stderr, "%llu puts, %llu hits, %llu misses, %llu drops, %llu without room\n",
		(unsigned long long)shared->puts, (unsigned long long)shared->hits,
		(unsigned long long)shared->misses, (unsigned long long)shared->drops,
		(unsigned long long)shared->failed);
	CHECK(shared->puts && shared->hits && shared->misses && shared->drops,
		"all of it happened");
	expect_sound(dev, "pool", -1);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
}

int main(int argc, char **argv)
{
	unsigned int seconds = argc > 1 ? (unsigned int)atoi(argv[1]) : 4;

	test_begin(60 + 2 * seconds);
	shared = shared_memory(sizeof(*shared));
	run(SPECKV_EVICT_LRU, seconds * 500);
	run(SPECKV_EVICT_NONE, seconds * 500);
	test_end();
	return 0;
}

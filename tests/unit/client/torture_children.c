// SPDX-License-Identifier: MIT
/* What is killed at random instants: writers, of one thread or several, and a manager. */
#include <pthread.h>

#include "torture.h"

#define MIXED_THREADS 3

static int store_block(struct speckv_pool *pool, const struct speckv_key *key, uint64_t *random)
{
	struct speckv_mem *mem;
	void *pointer;
	int rc;

	if (below(random, 10))
		return put_block(pool, key, torture_known_of(key)->raw, SMALL_BYTES);
	rc = speckv_mem_alloc(pool, SMALL_BYTES, &mem);
	if (rc)
		return rc;
	EXPECT(0, speckv_mem_access(mem, 0, SMALL_BYTES, &pointer));
	CHECK(all_bytes(pointer, SMALL_BYTES, 0), "an allocation is not zero");
	memcpy(pointer, torture_known_of(key)->raw, SMALL_BYTES);
	rc = speckv_mem_seal(mem, &(struct speckv_request){ .key = *key });
	if (rc)
		speckv_mem_free(mem);
	return rc;
}

/* Thread `thread` of `threads` owns every `threads`th key of its writer. */
static void own_step(struct speckv_pool *pool, unsigned int me, unsigned int thread,
	unsigned int threads, uint64_t *random)
{
	unsigned int i = (unsigned int)below(random, OWN_KEYS / threads) * threads + thread;
	_Atomic uint8_t *belief = &torture_ledger->belief[me][i];
	struct speckv_key key = torture_own_key(me, i);
	bool kept = torture_stage->eviction == SPECKV_EVICT_NONE;
	int rc;

	switch (below(random, 4)) {
	case 0:
	case 1:
		if (atomic_load(belief) == PRESENT && kept) {
			/* a no-op */
			EXPECT(0, put_block(pool, &key, torture_known_of(&key)->raw, SMALL_BYTES));
			break;
		}
		atomic_store(belief, PUTTING);
		rc = store_block(pool, &key, random);
		CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
		atomic_store(belief, rc ? ABSENT : PRESENT);
		torture_ledger->stored += !rc;
		break;
	case 2:
		rc = torture_look(pool, &key);
		if (atomic_load(belief) == ABSENT)
			CHECK(!rc, "writer %u: a dropped block rose", me);
		else if (kept)
			CHECK(rc, "writer %u: its block %u was lost", me, i);
		break;
	default:
		if (atomic_load(belief) == ABSENT)
			break;
		atomic_store(belief, DROPPING);
		rc = speckv_drop(pool, &key, 1);
		CHECK(rc == 1 || (!kept && rc == 0), "drop: %d", rc);
		atomic_store(belief, ABSENT);
		torture_ledger->dropped++;
	}
}

static void common_step(struct speckv_pool *pool, uint64_t *random)
{
	struct speckv_key key = torture_common_key((unsigned int)below(random, COMMON_KEYS));
	int rc;

	switch (below(random, 3)) {
	case 0:
		rc = store_block(pool, &key, random);
		CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
		break;
	case 1:
		torture_look(pool, &key);
		break;
	default:
		rc = speckv_drop(pool, &key, 1);
		CHECK(rc == 0 || rc == 1, "drop: %d", rc);
	}
}

static void memory_step(struct speckv_pool *pool, uint64_t *random)
{
	uint64_t bytes = 1 + below(random, 3 * SMALL_BYTES);
	struct speckv_mem *mem;
	void *pointer;
	int rc = speckv_mem_alloc(pool, bytes, &mem);

	if (rc) {
		CHECK(rc == -ENOSPC, "alloc: %d (%s)", rc, speckv_strerror(test_ctx));
		return;
	}
	EXPECT(0, speckv_mem_access(mem, 0, bytes, &pointer));
	CHECK(all_bytes(pointer, bytes, 0), "an allocation is not zero");
	memset(pointer, 0xa5, bytes);
	if (below(random, 4) == 0)
		sleep_us((long)below(random, 300));
	CHECK(all_bytes(pointer, bytes, 0xa5), "an allocation is not its owner's alone");
	speckv_mem_free(mem);
}

/*
 * The pool that the manager makes and destroys: it is there, or not, or busy; what is there works.
 */
static void scratch_step(struct speckv_device *dev, uint64_t *random)
{
	struct speckv_pool *pool;
	struct speckv_key key = torture_common_key((unsigned int)below(random, 8));
	int rc = speckv_pool_open(dev, "scratch", NULL, &pool);

	CHECK(rc == 0 || rc == -ENOENT || rc == -EBUSY, "open: %d (%s)", rc,
		speckv_strerror(test_ctx));
	if (rc)
		return;
	rc = put_block(pool, &key, torture_known_of(&key)->raw, SMALL_BYTES);
	CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
	torture_look(pool, &key);
	speckv_pool_close(pool);
}

/*
 * A child that inherited the handles in the middle of other threads' calls: they refuse, they
 * close, and the parent's stay as they are.
 */
static void fork_step(struct speckv_device *dev, struct speckv_pool *pool, uint64_t *random)
{
	struct speckv_key key = torture_common_key((unsigned int)below(random, COMMON_KEYS));
	pid_t pid = fork();

	CHECK(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(30);
		if (get_block(pool, &key, torture_got, SMALL_BYTES) != -EOWNERDEAD)
			_exit(4);
		speckv_pool_close(pool);
		speckv_device_close(dev);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
	torture_ledger->forked++;
}

struct body {
	struct speckv_device *dev;
	struct speckv_pool *pool;
	unsigned int me, thread, threads;
};

static void *writer_thread(void *arg)
{
	struct body *b = arg;
	uint64_t random = torture_seed ^ (uint64_t)getpid() << 20 ^ (uint64_t)b->thread << 50;

	if (!torture_got)
		torture_got = line_alloc(SMALL_BYTES);
	while (atomic_load(&torture_ledger->running)) {
		switch (below(&random, 32)) {
		case 0:
			scratch_step(b->dev, &random);
			break;
		case 1:
		case 2:
			memory_step(b->pool, &random);
			break;
		case 3:
			if (torture_mixed) {
				fork_step(b->dev, b->pool, &random);
			} else {
				speckv_pool_close(b->pool);
				b->pool = attach_pool(b->dev, "pool",
					below(&random, 2) ? "writer" : "other");
			}
			break;
		case 4:
		case 5:
		case 6:
		case 7:
		case 8:
		case 9:
			common_step(b->pool, &random);
			break;
		default:
			own_step(b->pool, b->me, b->thread, b->threads, &random);
		}
		atomic_fetch_add(&torture_ledger->steps[b->me], 1);
	}
	free(torture_got);
	torture_got = NULL;
	return NULL;
}

int torture_writer(void *arg)
{
	unsigned int me = *(const unsigned int *)arg, threads = torture_mixed ? MIXED_THREADS : 1;
	struct speckv_device *dev = open_device(torture_device, 0);
	struct speckv_pool *pool = attach_pool(dev, "pool", "writer");
	pthread_t thread[MIXED_THREADS];
	struct body body[MIXED_THREADS];

	setpgid(0, 0); /* with what it forks: see kill_child() */
	alarm(sanitized() ? 240 : 60);
	for (unsigned int t = 0; t < threads; t++)
		body[t] = (struct body){ dev, pool, me, t, threads };
	for (unsigned int t = 1; t < threads; t++)
		EXPECT(0, pthread_create(&thread[t], NULL, writer_thread, &body[t]));
	writer_thread(&body[0]);
	for (unsigned int t = 1; t < threads; t++)
		pthread_join(thread[t], NULL);
	speckv_pool_close(body[0].pool);
	speckv_device_close(dev);
	speckv_ctx_destroy(test_ctx);
	return 0;
}

int torture_manager(void *arg)
{
	uint64_t random = torture_seed ^ (uint64_t)getpid() << 20;
	struct speckv_device *dev = open_device(torture_device, 0);

	alarm(sanitized() ? 240 : 60);
	while (atomic_load(&torture_ledger->running)) {
		uint64_t size = CAPACITY + 2 * MIB * below(&random, 4);
		struct speckv_pool_config config;
		int rc;

		switch (below(&random, 6)) {
		case 0:
			config = small_pool("scratch", 2 * MIB);
			config.codec = torture_stage->codec;
			rc = speckv_pool_create(dev, &config, NULL);
			CHECK(rc == 0 || rc == -EEXIST || rc == -ENOSPC || rc == -EBUSY,
				"create: %d (%s)", rc, speckv_strerror(test_ctx));
			break;
		case 1:
			rc = speckv_pool_destroy(dev, "scratch", NULL, NULL);
			CHECK(rc == 0 || rc == -ENOENT || rc == -EBUSY, "destroy: %d (%s)", rc,
				speckv_strerror(test_ctx));
			break;
		default:
			if (torture_stage->eviction == SPECKV_EVICT_LRU && below(&random, 2))
				size -= 2 * MIB;
			rc = speckv_pool_resize(dev, "pool", size,
				torture_stage->eviction == SPECKV_EVICT_LRU ? SPECKV_RESIZE_EVICT
									    : 0,
				NULL, NULL, NULL);
			CHECK(rc == 0 || rc == -EALREADY || rc == -ENOSPC || rc == -EBUSY,
				"resize: %d (%s)", rc, speckv_strerror(test_ctx));
			torture_ledger->resized += rc == 0;
		}
		atomic_fetch_add(&torture_ledger->steps[MANAGER], 1);
		sleep_us((long)below(&random, 400));
	}
	speckv_device_close(dev);
	speckv_ctx_destroy(test_ctx);
	return 0;
}

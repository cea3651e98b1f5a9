// SPDX-License-Identifier: MIT
/*
 * Writers and a manager are killed at random instants, again and again, and nothing is lost, wrong,
 * risen or leaked.
 *
 * torture KILLS [SEED [mixed]]. Every writer owns some keys and records in shared memory, before
 * and after each call, what it does to them; so the parent knows of every key of a dead writer
 * whether it must be there, must not, or may. A further set of keys is shared by all: of those only
 * the bytes are judged. The manager resizes the pool, and makes and destroys another one.
 *
 * mixed: each writer runs several threads over one pool handle, forks children that use and close
 * the handles they inherited, and the wall clock is stepped back, forward and to 1970 throughout.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "harness.h"

#define WRITERS 3
#define OWN_KEYS 72
#define COMMON_KEYS 24
#define MANAGER WRITERS
#define CHILDREN (WRITERS + 1)
#define CAPACITY (6 * MIB)
#define KILLS_PER_STAGE 25
#define MIXED_THREADS 3

enum belief { ABSENT, PRESENT, PUTTING, DROPPING };

struct ledger {
	_Atomic uint8_t belief[WRITERS][OWN_KEYS];
	_Atomic uint64_t steps[CHILDREN];
	_Atomic uint32_t running; /* 0: writers leave in good order */
	_Atomic uint64_t deaths_in_put, stored, dropped, resized, forked;
	_Atomic int64_t clock_step_s; /* added to the wall clock of every process of the test */
};

struct stage {
	const char *name;
	enum media medium;
	uint32_t codec, eviction;
};
static const struct stage stages[] = {
	{ "memory, raw, kept", MEDIUM_DRAM, SPECKV_CODEC_RAW, SPECKV_EVICT_NONE },
	{ "memory, packed, kept", MEDIUM_DRAM, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_NONE },
	{ "memory, packed, evicting", MEDIUM_DRAM, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_LRU },
	{ "one inode, raw, kept", MEDIUM_FIXED, SPECKV_CODEC_RAW, SPECKV_EVICT_NONE },
	{ "file, packed, kept", MEDIUM_FILE, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_NONE },
};

static struct ledger *ledger;
static const struct stage *stage;
static char device_name[300];
static uint64_t seed;
static bool mixed;

/* Stands before libc's: the library under test sees a wall clock that the parent steps. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	int rc = (int)syscall(SYS_clock_gettime, id, t);

	if (!rc && id == CLOCK_REALTIME && ledger)
		t->tv_sec += atomic_load(&ledger->clock_step_s);
	return rc;
}

static struct speckv_key common_key(unsigned int i)
{
	return key_of(500 + i);
}

static struct speckv_key own_key(unsigned int writer, unsigned int i)
{
	return key_of(1000 * (writer + 1) + i);
}

/*
 * What a put of each key is given and a get must yield: made once, so that the children spend their
 * lives in the library.
 */
struct known {
	struct speckv_key key;
	uint8_t raw[SMALL_BYTES], want[SMALL_BYTES];
};
#define KNOWN (WRITERS * OWN_KEYS + COMMON_KEYS)
static struct known *known;

static struct known *known_of(const struct speckv_key *key)
{
	for (unsigned int i = 0; i < KNOWN; i++)
		if (memcmp(&known[i].key, key, sizeof(*key)) == 0)
			return &known[i];
	abort();
}

static void make_known(void)
{
	uint64_t room = speckv_frame_max_bytes(&small_shape, stage->codec), bytes;
	struct speckv_frame_identity identity = { .generation = 1 };
	struct speckv_frame parsed;
	uint8_t *frame = line_alloc(room);

	for (unsigned int i = 0; i < KNOWN; i++) {
		struct known *k = &known[i];

		k->key = i < COMMON_KEYS
			? common_key(i)
			: own_key((i - COMMON_KEYS) / OWN_KEYS, (i - COMMON_KEYS) % OWN_KEYS);
		fill_numbers(&k->key, k->raw, SMALL_BYTES);
		EXPECT(0,
			speckv_frame_encode(&small_shape, stage->codec, &identity, k->raw,
				SMALL_BYTES, frame, room, &bytes));
		EXPECT(0, speckv_frame_parse(frame, bytes, &parsed));
		EXPECT(0,
			speckv_frame_decode(&parsed, frame, bytes, 0, small_shape.layers, k->want,
				SMALL_BYTES));
	}
	free(frame);
}

static _Thread_local uint8_t *got;

/* 1: there, with its bytes; 0: a miss. Anything else ends the test. */
static int look(struct speckv_pool *pool, const struct speckv_key *key)
{
	int rc;

	if (!got)
		got = line_alloc(SMALL_BYTES);
	rc = get_block(pool, key, got, SMALL_BYTES);
	if (rc == -ENOENT)
		return 0;
	EXPECT(0, rc);
	CHECK(memcmp(got, known_of(key)->want, SMALL_BYTES) == 0, "wrong bytes");
	return 1;
}

/* ---- children ------------------------------------------------------------------------------- */

static int store_block(struct speckv_pool *pool, const struct speckv_key *key, uint64_t *random)
{
	struct speckv_mem *mem;
	void *pointer;
	int rc;

	if (below(random, 10))
		return put_block(pool, key, known_of(key)->raw, SMALL_BYTES);
	rc = speckv_mem_alloc(pool, SMALL_BYTES, &mem);
	if (rc)
		return rc;
	EXPECT(0, speckv_mem_access(mem, 0, SMALL_BYTES, &pointer));
	CHECK(all_bytes(pointer, SMALL_BYTES, 0), "an allocation is not zero");
	memcpy(pointer, known_of(key)->raw, SMALL_BYTES);
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
	_Atomic uint8_t *belief = &ledger->belief[me][i];
	struct speckv_key key = own_key(me, i);
	bool kept = stage->eviction == SPECKV_EVICT_NONE;
	int rc;

	switch (below(random, 4)) {
	case 0:
	case 1:
		if (atomic_load(belief) == PRESENT && kept) {
			/* a no-op */
			EXPECT(0, put_block(pool, &key, known_of(&key)->raw, SMALL_BYTES));
			break;
		}
		atomic_store(belief, PUTTING);
		rc = store_block(pool, &key, random);
		CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
		atomic_store(belief, rc ? ABSENT : PRESENT);
		ledger->stored += !rc;
		break;
	case 2:
		rc = look(pool, &key);
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
		ledger->dropped++;
	}
}

static void common_step(struct speckv_pool *pool, uint64_t *random)
{
	struct speckv_key key = common_key((unsigned int)below(random, COMMON_KEYS));
	int rc;

	switch (below(random, 3)) {
	case 0:
		rc = store_block(pool, &key, random);
		CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
		break;
	case 1:
		look(pool, &key);
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
	struct speckv_key key = common_key((unsigned int)below(random, 8));
	int rc = speckv_pool_open(dev, "scratch", NULL, &pool);

	CHECK(rc == 0 || rc == -ENOENT || rc == -EBUSY, "open: %d (%s)", rc,
		speckv_strerror(test_ctx));
	if (rc)
		return;
	rc = put_block(pool, &key, known_of(&key)->raw, SMALL_BYTES);
	CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
	look(pool, &key);
	speckv_pool_close(pool);
}

/*
 * A child that inherited the handles in the middle of other threads' calls: they refuse, they
 * close, and the parent's stay as they are.
 */
static void fork_step(struct speckv_device *dev, struct speckv_pool *pool, uint64_t *random)
{
	struct speckv_key key = common_key((unsigned int)below(random, COMMON_KEYS));
	pid_t pid = fork();

	CHECK(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(30);
		if (get_block(pool, &key, got, SMALL_BYTES) != -EOWNERDEAD)
			_exit(4);
		speckv_pool_close(pool);
		speckv_device_close(dev);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
	ledger->forked++;
}

struct body {
	struct speckv_device *dev;
	struct speckv_pool *pool;
	unsigned int me, thread, threads;
};

static void *writer_thread(void *arg)
{
	struct body *b = arg;
	uint64_t random = seed ^ (uint64_t)getpid() << 20 ^ (uint64_t)b->thread << 50;

	if (!got)
		got = line_alloc(SMALL_BYTES);
	while (atomic_load(&ledger->running)) {
		switch (below(&random, 32)) {
		case 0:
			scratch_step(b->dev, &random);
			break;
		case 1:
		case 2:
			memory_step(b->pool, &random);
			break;
		case 3:
			if (mixed) {
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
		atomic_fetch_add(&ledger->steps[b->me], 1);
	}
	free(got);
	got = NULL;
	return NULL;
}

static int writer(void *arg)
{
	unsigned int me = *(const unsigned int *)arg, threads = mixed ? MIXED_THREADS : 1;
	struct speckv_device *dev = open_device(device_name, 0);
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

static int manager(void *arg)
{
	uint64_t random = seed ^ (uint64_t)getpid() << 20;
	struct speckv_device *dev = open_device(device_name, 0);

	alarm(sanitized() ? 240 : 60);
	while (atomic_load(&ledger->running)) {
		uint64_t size = CAPACITY + 2 * MIB * below(&random, 4);
		struct speckv_pool_config config;
		int rc;

		switch (below(&random, 6)) {
		case 0:
			config = small_pool("scratch", 2 * MIB);
			config.codec = stage->codec;
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
			if (stage->eviction == SPECKV_EVICT_LRU && below(&random, 2))
				size -= 2 * MIB;
			rc = speckv_pool_resize(dev, "pool", size,
				stage->eviction == SPECKV_EVICT_LRU ? SPECKV_RESIZE_EVICT : 0, NULL,
				NULL, NULL);
			CHECK(rc == 0 || rc == -EALREADY || rc == -ENOSPC || rc == -EBUSY,
				"resize: %d (%s)", rc, speckv_strerror(test_ctx));
			ledger->resized += rc == 0;
		}
		atomic_fetch_add(&ledger->steps[MANAGER], 1);
		sleep_us((long)below(&random, 400));
	}
	speckv_device_close(dev);
	speckv_ctx_destroy(test_ctx);
	return 0;
}

/* ---- parent --------------------------------------------------------------------------------- */

static pid_t children[CHILDREN];

static void start(unsigned int who)
{
	static unsigned int numbers[CHILDREN];

	numbers[who] = who;
	children[who] = spawn(who == MANAGER ? manager : writer, &numbers[who]);
}

/* A child that ended by itself has said why. */
static void all_alive(void)
{
	for (unsigned int who = 0; who < CHILDREN; who++)
		CHECK(!children[who] || waitpid(children[who], NULL, WNOHANG) == 0,
			"child %u ended by itself", who);
}

static void kill_child(unsigned int who)
{
	pid_t pid = children[who];
	int status;

	kill(children[who], SIGKILL);
	status = wait_child(children[who]);
	CHECK(status == -SIGKILL, "child %u ended by itself: %d", who, status);
	/*
	 * a child that it forked just before has its locks until it runs for the first time, and is
	 * this process's by now
	 */
	while (waitpid(-pid, NULL, 0) > 0)
		;
	children[who] = 0;
}

/*
 * Every key of a dead writer is where the writer was told it is; what was under way is settled now.
 */
static void verify_writer(struct speckv_pool *pool, unsigned int who)
{
	bool kept = stage->eviction == SPECKV_EVICT_NONE;

	for (unsigned int i = 0; i < OWN_KEYS; i++) {
		struct speckv_key key = own_key(who, i);
		uint8_t belief = atomic_load(&ledger->belief[who][i]);
		int there = look(pool, &key);

		if (belief == PRESENT && kept)
			CHECK(there, "stage %s: published block %u of writer %u is lost",
				stage->name, i, who);
		if (belief == ABSENT)
			CHECK(!there, "stage %s: dropped block %u of writer %u rose", stage->name,
				i, who);
		ledger->deaths_in_put += belief == PUTTING;
		atomic_store(&ledger->belief[who][i], there ? PRESENT : ABSENT);
	}
}

/* The next manager finishes what a dead one left. */
static void finish_managers(struct speckv_device *dev)
{
	struct speckv_pool_config same = { .eviction = stage->eviction };
	int rc;

	do
		rc = speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &same, NULL);
	while (rc == -EBUSY);
	EXPECT(-EALREADY, rc);
}

/* With others at work a look may catch a step half done, but not one look after the other. */
static void verify_sound_in_use(struct speckv_device *dev)
{
	struct speckv_check_report r;

	for (int tries = 0;; tries++) {
		int rc = check_pool(dev, "pool", 0, &r);

		if (!rc)
			return;
		EXPECT(-EUCLEAN, rc);
		CHECK(tries < 100, "stage %s: leaked %llu unindexed %llu bad %llu dead %llu",
			stage->name, (unsigned long long)r.pages_leaked,
			(unsigned long long)r.blocks_unindexed, (unsigned long long)r.blocks_bad,
			(unsigned long long)r.clients_dead);
		sleep_us(1000);
	}
}

static void verify_quiet(struct speckv_device *dev)
{
	struct speckv_pool *pool;
	struct speckv_pool_info info;
	uint64_t beliefs = 0;

	finish_managers(dev);
	pool = attach_pool(dev, "pool", "parent");
	for (unsigned int who = 0; who < WRITERS; who++)
		verify_writer(pool, who);
	for (unsigned int i = 0; i < COMMON_KEYS; i++) {
		struct speckv_key key = common_key(i);

		beliefs += (uint64_t)look(pool, &key);
	}
	speckv_pool_close(pool);
	for (unsigned int who = 0; who < WRITERS; who++)
		for (unsigned int i = 0; i < OWN_KEYS; i++)
			beliefs += atomic_load(&ledger->belief[who][i]) == PRESENT;
	/* no more and no fewer blocks than can be read: no page is held for nothing */
	expect_sound(dev, "pool", (int64_t)beliefs);
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.state == SPECKV_POOL_ACTIVE, "state %u", info.state);
}

/*
 * A stopped process holds nobody up: every other child goes on, and so do an open, a check and a
 * put.
 */
static void stop_one(struct speckv_device *dev, unsigned int who)
{
	uint64_t before[CHILDREN];
	struct speckv_pool *pool;
	struct speckv_check_report r;
	struct speckv_key key = common_key(0);
	int rc;

	kill(children[who], SIGSTOP);
	for (unsigned int i = 0; i < CHILDREN; i++)
		before[i] = atomic_load(&ledger->steps[i]);
	for (unsigned int i = 0; i < WRITERS; i++)
		while (i != who && children[i] && atomic_load(&ledger->steps[i]) < before[i] + 10)
			all_alive(), sleep_us(100);
	pool = attach_pool(dev, "pool", "parent");
	rc = put_block(pool, &key, known_of(&key)->raw, SMALL_BYTES);
	CHECK(rc == 0 || rc == -ENOSPC, "put: %d", rc);
	speckv_pool_close(pool);
	rc = check_pool(dev, "pool", 0, &r);
	CHECK(rc == 0 || rc == -EUCLEAN, "check: %d", rc);
	kill(children[who], SIGCONT);
}

static uint64_t now_ns_wall(void)
{
	struct timespec t;

	syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The wall clock goes back an hour, forward a day, to 1970, or right again. */
static void step_clock(uint64_t *random)
{
	const int64_t steps[] = { -3600, 86400, -(int64_t)(now_ns_wall() / 1000000000u), 0 };

	atomic_store(&ledger->clock_step_s, steps[below(random, 4)]);
}

static unsigned int run_stage(unsigned int kills, uint64_t *random)
{
	struct speckv_device *dev = open_medium(stage->medium, device_name);
	struct speckv_pool_config config = small_pool("pool", CAPACITY);
	unsigned int done = 0;

	config.codec = stage->codec;
	config.eviction = stage->eviction;
	config.page_bytes = 512;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	make_known();
	memset(ledger, 0, sizeof(*ledger));
	ledger->running = 1;
	for (unsigned int who = 0; who < CHILDREN; who++)
		start(who);
	while (done < kills) {
		unsigned int who = (unsigned int)below(random, CHILDREN);
		struct speckv_pool *pool;

		sleep_us((long)below(random, below(random, 8) ? 4000 : 30000));
		if (mixed && below(random, 4) == 0)
			step_clock(random);
		if (below(random, 12) == 0)
			stop_one(dev, (unsigned int)below(random, CHILDREN));
		if (below(random, 10) == 0) { /* all at once */
			for (who = 0; who < CHILDREN; who++)
				kill(children[who], SIGKILL);
			for (who = 0; who < CHILDREN; who++)
				kill_child(who);
			done += CHILDREN;
			verify_quiet(dev);
			for (who = 0; who < CHILDREN; who++)
				start(who);
			continue;
		}
		kill_child(who);
		done++;
		finish_managers(dev);
		pool = attach_pool(dev, "pool", "parent");
		if (who < WRITERS)
			verify_writer(pool, who);
		speckv_pool_close(pool);
		verify_sound_in_use(dev);
		start(who);
	}
	ledger->running = 0;
	for (unsigned int who = 0; who < CHILDREN; who++) {
		CHECK(wait_child(children[who]) == 0, "child %u failed", who);
		children[who] = 0;
	}
	verify_quiet(dev);
	fprintf(stderr,
		"%s: %u kills, %llu puts, %llu drops, %llu resizes, %llu forks, %llu died in a put\n",
		stage->name, done, (unsigned long long)ledger->stored,
		(unsigned long long)ledger->dropped, (unsigned long long)ledger->resized,
		(unsigned long long)ledger->forked, (unsigned long long)ledger->deaths_in_put);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(device_name);
	if (stage->medium == MEDIUM_FIXED)
		unlink(device_name + 5);
	return done;
}

int main(int argc, char **argv)
{
	unsigned int kills = argc > 1 ? (unsigned int)atoi(argv[1]) : 40, done = 0,
		     count = test_on_card() ? 3 : sizeof(stages) / sizeof(stages[0]);
	uint64_t random;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0; /* 0: another one each time */
	mixed = argc > 3 && strcmp(argv[3], "mixed") == 0;
	CHECK(argc <= 3 || mixed, "usage: torture [KILLS [SEED [mixed]]]");
	seed = seed ? seed : now_nanoseconds();
	random = seed;
	fprintf(stderr, "seed %#llx%s\n", (unsigned long long)seed,
		mixed ? ", mixed with threads, forks and clock steps" : "");
	test_begin(60 + kills);
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl");
	ledger = shared_memory(sizeof(*ledger));
	known = shared_memory(KNOWN * sizeof(*known));
	for (unsigned int i = 0; done < kills; i++) {
		unsigned int left = kills - done, share = kills / count;

		stage = &stages[i % count];
		share = share < KILLS_PER_STAGE ? share : KILLS_PER_STAGE;
		done += run_stage(left < share ? left : share ? share : 1, &random);
	}
	fprintf(stderr, "%u%s kills: nothing lost, nothing wrong, nothing risen, nothing leaked\n",
		done, mixed ? " mixed" : "");
	free(got);
	test_end();
	return 0;
}

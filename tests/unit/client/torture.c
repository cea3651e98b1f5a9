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
#include <sys/syscall.h>

#include "torture.h"

#define KILLS_PER_STAGE 25

static const struct stage stages[] = {
	{ "memory, raw, kept", MEDIUM_DRAM, SPECKV_CODEC_RAW, SPECKV_EVICT_NONE },
	{ "memory, packed, kept", MEDIUM_DRAM, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_NONE },
	{ "memory, packed, evicting", MEDIUM_DRAM, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_LRU },
	{ "one inode, raw, kept", MEDIUM_FIXED, SPECKV_CODEC_RAW, SPECKV_EVICT_NONE },
	{ "file, packed, kept", MEDIUM_FILE, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_EVICT_NONE },
};

struct ledger *torture_ledger;
const struct stage *torture_stage;
char torture_device[300];
uint64_t torture_seed;
bool torture_mixed;

/* Stands before libc's: the library under test sees a wall clock that the parent steps. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	int rc = (int)syscall(SYS_clock_gettime, id, t);

	if (!rc && id == CLOCK_REALTIME && torture_ledger)
		t->tv_sec += atomic_load(&torture_ledger->clock_step_s);
	return rc;
}

struct speckv_key torture_common_key(unsigned int i)
{
	return key_of(500 + i);
}

struct speckv_key torture_own_key(unsigned int writer, unsigned int i)
{
	return key_of(1000 * (writer + 1) + i);
}

#define KNOWN (WRITERS * OWN_KEYS + COMMON_KEYS)
static struct known *known;

struct known *torture_known_of(const struct speckv_key *key)
{
	for (unsigned int i = 0; i < KNOWN; i++)
		if (memcmp(&known[i].key, key, sizeof(*key)) == 0)
			return &known[i];
	abort();
}

static void make_known(void)
{
	uint64_t room = speckv_frame_max_bytes(&small_shape, torture_stage->codec), bytes;
	struct speckv_frame_identity identity = { .generation = 1 };
	struct speckv_frame parsed;
	uint8_t *frame = line_alloc(room);

	for (unsigned int i = 0; i < KNOWN; i++) {
		struct known *k = &known[i];

		k->key = i < COMMON_KEYS ? torture_common_key(i)
					 : torture_own_key((i - COMMON_KEYS) / OWN_KEYS,
						   (i - COMMON_KEYS) % OWN_KEYS);
		fill_numbers(&k->key, k->raw, SMALL_BYTES);
		EXPECT(0,
			speckv_frame_encode(&small_shape, torture_stage->codec, &identity, k->raw,
				SMALL_BYTES, frame, room, &bytes));
		EXPECT(0, speckv_frame_parse(frame, bytes, &parsed));
		EXPECT(0,
			speckv_frame_decode(&parsed, frame, bytes, 0, small_shape.layers, k->want,
				SMALL_BYTES));
	}
	free(frame);
}

_Thread_local uint8_t *torture_got;

int torture_look(struct speckv_pool *pool, const struct speckv_key *key)
{
	int rc;

	if (!torture_got)
		torture_got = line_alloc(SMALL_BYTES);
	rc = get_block(pool, key, torture_got, SMALL_BYTES);
	if (rc == -ENOENT)
		return 0;
	EXPECT(0, rc);
	CHECK(memcmp(torture_got, torture_known_of(key)->want, SMALL_BYTES) == 0, "wrong bytes");
	return 1;
}

static pid_t children[CHILDREN];

static void start(unsigned int who)
{
	static unsigned int numbers[CHILDREN];

	numbers[who] = who;
	children[who] = spawn(who == MANAGER ? torture_manager : torture_writer, &numbers[who]);
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
	bool kept = torture_stage->eviction == SPECKV_EVICT_NONE;

	for (unsigned int i = 0; i < OWN_KEYS; i++) {
		struct speckv_key key = torture_own_key(who, i);
		uint8_t belief = atomic_load(&torture_ledger->belief[who][i]);
		int there = torture_look(pool, &key);

		if (belief == PRESENT && kept)
			CHECK(there, "stage %s: published block %u of writer %u is lost",
				torture_stage->name, i, who);
		if (belief == ABSENT)
			CHECK(!there, "stage %s: dropped block %u of writer %u rose",
				torture_stage->name, i, who);
		torture_ledger->deaths_in_put += belief == PUTTING;
		atomic_store(&torture_ledger->belief[who][i], there ? PRESENT : ABSENT);
	}
}

/* The next manager finishes what a dead one left. */
static void finish_managers(struct speckv_device *dev)
{
	struct speckv_pool_config same = { .eviction = torture_stage->eviction };
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
			torture_stage->name, (unsigned long long)r.pages_leaked,
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
		struct speckv_key key = torture_common_key(i);

		beliefs += (uint64_t)torture_look(pool, &key);
	}
	speckv_pool_close(pool);
	for (unsigned int who = 0; who < WRITERS; who++)
		for (unsigned int i = 0; i < OWN_KEYS; i++)
			beliefs += atomic_load(&torture_ledger->belief[who][i]) == PRESENT;
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
	struct speckv_key key = torture_common_key(0);
	int rc;

	kill(children[who], SIGSTOP);
	for (unsigned int i = 0; i < CHILDREN; i++)
		before[i] = atomic_load(&torture_ledger->steps[i]);
	for (unsigned int i = 0; i < WRITERS; i++)
		while (i != who && children[i] &&
			atomic_load(&torture_ledger->steps[i]) < before[i] + 10)
			all_alive(), sleep_us(100);
	pool = attach_pool(dev, "pool", "parent");
	rc = put_block(pool, &key, torture_known_of(&key)->raw, SMALL_BYTES);
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

	atomic_store(&torture_ledger->clock_step_s, steps[below(random, 4)]);
}

static unsigned int run_stage(unsigned int kills, uint64_t *random)
{
	struct speckv_device *dev = open_medium(torture_stage->medium, torture_device);
	struct speckv_pool_config config = small_pool("pool", CAPACITY);
	unsigned int done = 0;

	config.codec = torture_stage->codec;
	config.eviction = torture_stage->eviction;
	config.page_bytes = 512;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	make_known();
	memset(torture_ledger, 0, sizeof(*torture_ledger));
	torture_ledger->running = 1;
	for (unsigned int who = 0; who < CHILDREN; who++)
		start(who);
	while (done < kills) {
		unsigned int who = (unsigned int)below(random, CHILDREN);
		struct speckv_pool *pool;

		sleep_us((long)below(random, below(random, 8) ? 4000 : 30000));
		if (torture_mixed && below(random, 4) == 0)
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
	torture_ledger->running = 0;
	for (unsigned int who = 0; who < CHILDREN; who++) {
		CHECK(wait_child(children[who]) == 0, "child %u failed", who);
		children[who] = 0;
	}
	verify_quiet(dev);
	fprintf(stderr,
		"%s: %u kills, %llu puts, %llu drops, %llu resizes, %llu forks, %llu died in a put\n",
		torture_stage->name, done, (unsigned long long)torture_ledger->stored,
		(unsigned long long)torture_ledger->dropped,
		(unsigned long long)torture_ledger->resized,
		(unsigned long long)torture_ledger->forked,
		(unsigned long long)torture_ledger->deaths_in_put);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(torture_device);
	if (torture_stage->medium == MEDIUM_FIXED)
		unlink(torture_device + 5);
	return done;
}

int main(int argc, char **argv)
{
	unsigned int kills = argc > 1 ? (unsigned int)atoi(argv[1]) : 40, done = 0,
		     count = test_on_card() ? 3 : sizeof(stages) / sizeof(stages[0]);
	uint64_t random;

	torture_seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0; /* 0: another one each time */
	torture_mixed = argc > 3 && strcmp(argv[3], "mixed") == 0;
	CHECK(argc <= 3 || torture_mixed, "usage: torture [KILLS [SEED [mixed]]]");
	torture_seed = torture_seed ? torture_seed : now_nanoseconds();
	random = torture_seed;
	fprintf(stderr, "seed %#llx%s\n", (unsigned long long)torture_seed,
		torture_mixed ? ", mixed with threads, forks and clock steps" : "");
	test_begin(60 + kills);
	CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl");
	torture_ledger = shared_memory(sizeof(*torture_ledger));
	known = shared_memory(KNOWN * sizeof(*known));
	for (unsigned int i = 0; done < kills; i++) {
		unsigned int left = kills - done, share = kills / count;

		torture_stage = &stages[i % count];
		share = share < KILLS_PER_STAGE ? share : KILLS_PER_STAGE;
		done += run_stage(left < share ? left : share ? share : 1, &random);
	}
	fprintf(stderr, "%u%s kills: nothing lost, nothing wrong, nothing risen, nothing leaked\n",
		done, torture_mixed ? " mixed" : "");
	free(torture_got);
	test_end();
	return 0;
}

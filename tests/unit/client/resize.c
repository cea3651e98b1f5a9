// SPDX-License-Identifier: MIT
/*
 * Pools grow and shrink with others at work in them: nothing that was stored is lost, nothing that
 * was dropped comes back.
 */
#include <stdatomic.h>

#include "resize.h"

#define WORKERS 2
#define OWN 40

struct shared {
	_Atomic uint32_t stop;
	/*
	 * resizes are undone under their manager: a size that is taken back hides blocks for a
	 * moment
	 */
	bool undone;
	_Atomic uint64_t rounds[WORKERS];
};
static struct shared *shared;
static char device_name[300];
static uint8_t *buffer;

/* Again, while what is above a size that is taken back may not be seen. What is lost stays away. */
static bool hidden(unsigned int *tries)
{
	if (!shared->undone || ++*tries > 5000)
		return false;
	sleep_us(1000);
	return true;
}

/*
 * Puts its blocks, reads them all at every instant of every resize, drops them, and sees that they
 * stay away.
 */
static int worker(void *arg)
{
	unsigned int me = *(const unsigned int *)arg;
	struct speckv_device *dev = open_device(device_name, 0);
	struct speckv_pool *pool = attach_pool(dev, "pool", "worker");
	uint64_t base = 1000 * (me + 1);
	struct speckv_key keys[OWN];
	uint8_t present[OWN];

	for (unsigned int i = 0; i < OWN; i++)
		keys[i] = key_of(base + i);
	while (!atomic_load(&shared->stop)) {
		for (unsigned int i = 0; i < OWN; i++)
			EXPECT(0, put_number(pool, base + i, buffer));
		for (int turn = 0; turn < 10; turn++) {
			unsigned int tries = 0;

			bool all;

			while (!(all = speckv_lookup(pool, keys, OWN, present) == OWN &&
					       speckv_lookup_prefix(pool, keys, OWN) == OWN) &&
				hidden(&tries))
				;
			CHECK(all, "blocks are not found");
			for (unsigned int i = 0; i < OWN; i++) {
				int rc;

				while ((rc = get_number(pool, base + i, buffer)) == -ENOENT &&
					hidden(&tries))
					;
				EXPECT(0, rc);
			}
		}
		for (unsigned int i = 0, tries = 0; i < OWN; i++) {
			int dropped;

			while (!(dropped = speckv_drop(pool, &keys[i], 1)) && hidden(&tries))
				;
			EXPECT(1, dropped);
		}
		for (int turn = 0; turn < 10; turn++)
			EXPECT(0, speckv_lookup(pool, keys, OWN, present));
		atomic_fetch_add(&shared->rounds[me], 1);
	}
	speckv_pool_close(pool);
	speckv_device_close(dev);
	speckv_ctx_destroy(test_ctx);
	return 0;
}

/*
 * Takes every resize for one whose manager died, and undoes it, as a client does that comes to it
 * late.
 */
static int undoes(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(device_name, 0), "pool", "late");

	(void)arg;
	while (!atomic_load(&shared->stop)) {
		if (load_acquire(&pool->region.head->pool.claim_limit))
			resize_undo(&pool->region);
		sleep_us(500);
	}
	speckv_pool_close(pool);
	return 0;
}

static void with_traffic(enum media kind, bool undone)
{
	static const unsigned int numbers[WORKERS] = { 0, 1 };
	struct speckv_device *dev = open_medium(kind, device_name);
	struct speckv_pool_config config = small_pool("pool", 16 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	pid_t workers[WORKERS], late = 0;
	int resized = 0;

	config.eviction = SPECKV_EVICT_NONE;
	config.max_bytes = 32 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	memset(shared, 0, sizeof(*shared));
	shared->undone = undone;
	for (int i = 0; i < WORKERS; i++)
		workers[i] = spawn(worker, (void *)&numbers[i]);
	if (undone)
		late = spawn(undoes, NULL);
	for (int turn = 0; turn < 40; turn++) {
		uint64_t size = turn % 2 ? 20 * MIB : 6 * MIB;
		int rc = speckv_pool_resize(dev, "pool", size, 0, NULL, NULL, &info);

		/* busy: a put was under way up there for long */
		CHECK(rc == 0 || rc == -EBUSY, "resize: %d (%s)", rc, speckv_strerror(test_ctx));
		resized += rc == 0;
		if (turn == 20 && kind == MEDIUM_FIXED) {
			/*
			 * somebody else takes what was given back: the pool comes to lie in pieces
			 */
			config = small_pool("wedge", 2 * MIB);
			config.max_bytes = 2 * MIB;
			EXPECT(0, speckv_pool_create(dev, &config, NULL));
			pool = attach_pool(dev, "wedge", "wedge");
			for (uint64_t i = 0; i < 40; i++)
				EXPECT(0, put_number(pool, i, buffer));
			speckv_pool_close(pool);
		}
		sleep_us(2000);
	}
	for (unsigned int i = 0; i < WORKERS; i++)
		while (!atomic_load(&shared->rounds[i]))
			sleep_us(1000);
	atomic_store(&shared->stop, 1);
	for (int i = 0; i < WORKERS; i++)
		EXPECT(0, wait_child(workers[i]));
	if (undone)
		EXPECT(0, wait_child(late));
	CHECK(resized > (undone ? 2 : 20), "%d of 40", resized);
	expect_sound(dev, "pool", 0);
	if (kind == MEDIUM_FIXED) {
		pool = attach_pool(dev, "wedge", "wedge");
		for (uint64_t i = 0; i < 40; i++)
			EXPECT(0, get_number(pool, i, buffer));
		speckv_pool_close(pool);
		expect_sound(dev, "wedge", 40);
	}
	speckv_device_close(dev);
	remove_device(device_name);
	if (kind == MEDIUM_FIXED)
		unlink(device_name + 5);
}

/*
 * A client that did nothing while its pool shrank, another pool took the room, and its pool grew
 * elsewhere, touches only its own.
 */
static void a_sleeper_follows_its_extents(void)
{
	struct speckv_device *dev = open_medium(MEDIUM_FIXED, device_name);
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);
	struct speckv_pool *sleeper, *wedges[2];
	uint64_t n = 0;

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	sleeper = attach_pool(dev, "pool", "sleeper");
	for (uint64_t turn = 0; turn < 2; turn++) {
		/* the piece that is given up is the first one's end, and then a later one */
		config = small_pool(turn ? "wedge1" : "wedge0", 2 * MIB);
		config.max_bytes = 2 * MIB;
		config.eviction = SPECKV_EVICT_NONE;
		EXPECT(0,
			speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL,
				NULL));
		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		wedges[turn] = attach_pool(dev, config.name, "wedge");
		for (uint64_t i = 0; i < 50; i++)
			EXPECT(0, put_number(wedges[turn], 1000 * (turn + 1) + i, buffer));
		EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
		for (n = 0; put_number(sleeper, n, buffer) == 0;)
			n++;
		CHECK(n > 200, "the pool is full: %llu", (unsigned long long)n);
		for (uint64_t i = 0; i < n; i++)
			EXPECT(0, get_number(sleeper, i, buffer));
		for (uint64_t wedge = 0; wedge <= turn; wedge++)
			for (uint64_t i = 0; i < 50; i++)
				EXPECT(0,
					get_number(wedges[wedge], 1000 * (wedge + 1) + i, buffer));
	}
	speckv_pool_close(sleeper);
	speckv_pool_close(wedges[0]);
	speckv_pool_close(wedges[1]);
	expect_sound(dev, "pool", (int64_t)n);
	expect_sound(dev, "wedge0", 50);
	expect_sound(dev, "wedge1", 50);
	speckv_device_close(dev);
	remove_device(device_name);
	unlink(device_name + 5);
}

static uint64_t stored(const char *path)
{
	struct stat st;

	CHECK(stat(path, &st) == 0, "%s", path);
	return (uint64_t)st.st_blocks * 512;
}

/* What a shrink frees goes back to the system, and reads as zeros until then. */
static void a_shrink_gives_memory_back(void)
{
	struct speckv_device *dev = open_medium(MEDIUM_DRAM, device_name);
	struct speckv_pool_config config = small_pool("pool", 16 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	uint64_t before;

	EXPECT(0, speckv_pool_create(dev, &config, &info));
	pool = attach_pool(dev, "pool", "writer");
	for (uint64_t i = 0; i < 400; i++)
		EXPECT(0, put_number(pool, i, buffer));
	before = stored(info.path);
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	CHECK(stored(info.path) + 11 * MIB <= before, "%llu KiB before, %llu after",
		(unsigned long long)before >> 10, (unsigned long long)stored(info.path) >> 10);
	speckv_pool_close(pool);
	expect_sound(dev, "pool", -1);
	speckv_device_close(dev);
	remove_device(device_name);
}

/*
 * A piece of a medium that a pool grows into was another pool's, or something wrote there: the pool
 * sees zeros.
 */
static void what_a_pool_grows_into_is_zeroed(void)
{
	struct speckv_device *dev = open_medium(MEDIUM_FIXED, device_name);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	uint8_t *trash = malloc(4 * MIB), any = 0;
	const struct lay_pool_record *record;
	const struct lay_extent *last;
	struct speckv_pool *pool;
	uint64_t at;
	int fd;

	config.max_bytes = 8 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	pool = attach_pool(dev, "pool", "looker");
	record = &dev->table->pools[pool->region.record];
	last = &record->extent[record->extents - 1];
	at = last->offset + last->bytes - 4 * MIB;
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	fd = open(device_name + 5, O_RDWR | O_CLOEXEC);
	memset(trash, 0x5a, 4 * MIB);
	CHECK(fd >= 0 && pwrite(fd, trash, 4 * MIB, (off_t)at) == (ssize_t)(4 * MIB), "write");
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	CHECK(pread(fd, trash, 4 * MIB, (off_t)at) == (ssize_t)(4 * MIB), "read");
	for (uint64_t i = 0; i < 4 * MIB; i++)
		any |= trash[i];
	CHECK(!any, "the grown pool reads what was written before");
	close(fd);
	free(trash);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	remove_device(device_name);
	unlink(device_name + 5);
}

static int count_events(const struct speckv_event *event, void *arg)
{
	*(unsigned int *)arg += event->kind == SPECKV_EVENT_POOL_RESIZED;
	return 0;
}

static int cancel(uint64_t done, uint64_t total, void *arg)
{
	return 1;
}

static void refusals(void)
{
	struct speckv_device *dev = open_medium(MEDIUM_DRAM, device_name);
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	struct speckv_mem *mem, *high = NULL;
	unsigned int events = 0, left = 0;
	char me[32];

	config.max_bytes = 16 * MIB;
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	for (uint64_t i = 0; i < 200; i++)
		EXPECT(0, put_number(pool, i, buffer));
	REFUSED(-EALREADY, "has that size already",
		speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	REFUSED(-EALREADY, "has that size already",
		speckv_pool_resize(dev, "pool", 7 * MIB + 1, 0, NULL, NULL, NULL));
	REFUSED(-ENOSPC, "16 MiB", speckv_pool_resize(dev, "pool", 18 * MIB, 0, NULL, NULL, NULL));
	REFUSED(-EINVAL, "", speckv_pool_resize(dev, "pool", 0, 0, NULL, NULL, NULL));
	REFUSED(-ENOENT, "no pool 'none'",
		speckv_pool_resize(dev, "none", 8 * MIB, 0, NULL, NULL, NULL));
	REFUSED(-ENOSPC, "--evict", speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	REFUSED(-ENOSPC, "--evict",
		speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	EXPECT(0,
		speckv_pool_resize(dev, "pool", 4 * MIB,
			SPECKV_RESIZE_DRY_RUN | SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	REFUSED(-ECANCELED, "cancelled",
		speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, cancel, NULL, NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.config.capacity_bytes == 8 * MIB && info.blocks == 200 &&
			info.state == SPECKV_POOL_ACTIVE,
		"nothing changed");
	for (uint64_t i = 0; i < 200; i++)
		EXPECT(0, get_number(pool, i, buffer));

	/*
	 * what does not fit the new size goes, the least recently used first, and the rest stays
	 * whole
	 */
	sleep_us(10000);
	for (uint64_t i = 150; i < 200; i++)
		EXPECT(0, get_number(pool, i, buffer));
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, &info));
	CHECK(info.config.capacity_bytes == 4 * MIB && info.config.quota_bytes == 4 * MIB,
		"shrunk, and the quota that was all of it too");
	for (uint64_t i = 0; i < 200; i++)
		left += get_number(pool, i, buffer) == 0;
	CHECK(left == info.blocks && left > 100, "%u left", left);
	for (uint64_t i = 150, kept = 0; i < 200; i++) {
		kept += get_number(pool, i, buffer) == 0;
		CHECK(i < 199 || kept > 35, "of 50 blocks in use %llu stayed",
			(unsigned long long)kept);
	}
	expect_sound(dev, "pool", left);
	EXPECT(0, speckv_events(dev, "pool", 0, count_events, &events));
	CHECK(events == 1, "%u", events);

	/* an allocation above the new end is named with its owner */
	EXPECT(0, speckv_pool_resize(dev, "pool", 12 * MIB, 0, NULL, NULL, NULL));
	for (int i = 0; i < 100; i++) {
		EXPECT(0, speckv_mem_alloc(pool, 32768, &mem));
		if (speckv_mem_address(mem) >= 6 * MIB && !high)
			high = mem;
	}
	CHECK(high, "one lies high up");
	snprintf(me, sizeof(me), "pid %d (", (int)getpid());
	REFUSED(-EBUSY, me,
		speckv_pool_resize(dev, "pool", 6 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.config.capacity_bytes == 12 * MIB && info.state == SPECKV_POOL_ACTIVE,
		"nothing changed");
	EXPECT(0, put_number(pool, 5000, buffer));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_resize(dev, "pool", 6 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	expect_sound(dev, "pool", -1);
	speckv_device_close(dev);
	remove_device(device_name);
}

int main(void)
{
	test_begin(150);
	shared = shared_memory(sizeof(*shared));
	buffer = line_alloc(2 * SMALL_BYTES);
	refusals();
	a_sleeper_follows_its_extents();
	if (!test_on_card()) {
		a_shrink_gives_memory_back();
		what_a_pool_grows_into_is_zeroed();
	}
	resize_half_done();
	for (int kind = 0; kind < test_media(); kind++)
		for (int undone = 0; undone < 2; undone++)
			with_traffic((enum media)kind, undone);
	free(buffer);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/* A call that is refused has changed nothing, and a dry run is refused as the call would be. */
#include "client/admin/admin.h"

#include "harness.h"

static uint8_t *buffer;

#define POOLS 4
static const char *const names[POOLS] = { "aa", "bb", "cc", "dd" };

struct state {
	uint64_t blocks[POOLS], capacity[POOLS], quota[POOLS], tenant[POOLS];
	uint32_t eviction[POOLS], mode[POOLS], uid[POOLS], count;
};

static int count_pool(const struct speckv_pool_info *info, void *arg)
{
	*(uint32_t *)arg += 1;
	return 0;
}

/* All that a refused call could have changed. */
static struct state look(struct speckv_device *dev)
{
	struct state state;

	memset(&state, 0, sizeof(state));
	EXPECT(0, speckv_pool_foreach(dev, count_pool, &state.count));
	for (int i = 0; i < POOLS; i++) {
		struct speckv_pool_info info;

		EXPECT(0, speckv_pool_info(dev, names[i], &info));
		CHECK(info.state == SPECKV_POOL_ACTIVE, "pool %s is in state %u", names[i],
			info.state);
		state.blocks[i] = info.blocks;
		state.capacity[i] = info.config.capacity_bytes;
		state.quota[i] = info.config.quota_bytes;
		state.tenant[i] = info.config.tenant_quota_bytes;
		state.eviction[i] = info.config.eviction;
		state.mode[i] = info.config.mode;
		state.uid[i] = info.config.uid;
	}
	return state;
}

static void unchanged(struct speckv_device *dev, const struct state *before)
{
	struct state now = look(dev);

	CHECK(memcmp(&now, before, sizeof(now)) == 0, "something was changed");
}

static void fill(struct speckv_device *dev)
{
	for (int i = 0; i < POOLS; i++) {
		struct speckv_pool_config config = small_pool(names[i], 4 * MIB);
		struct speckv_pool *pool;

		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		pool = attach_pool(dev, names[i], "a");
		for (uint64_t n = 0; n < 20; n++)
			EXPECT(0, put_number(pool, n, buffer));
		speckv_pool_close(pool);
	}
}

static void closing_destroys_all_or_nothing(enum media kind)
{
	char name[300];
	struct speckv_device *dev = open_medium(kind, name);
	struct state before;

	fill(dev);
	before = look(dev);
	for (int used = 0; used < POOLS; used++) { /* whichever it is that is in use */
		struct speckv_pool *pool = attach_pool(dev, names[used], "user");

		REFUSED(-EBUSY, names[used],
			speckv_device_remove(test_ctx, name,
				SPECKV_REMOVE_POOLS | SPECKV_REMOVE_DRY_RUN));
		REFUSED(-EBUSY, names[used],
			speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS));
		REFUSED(-EBUSY, names[used], speckv_pool_destroy_check(dev, names[used]));
		REFUSED(-EBUSY, names[used], speckv_pool_destroy(dev, names[used], NULL, NULL));
		unchanged(dev, &before);
		for (uint64_t n = 0; n < 20; n++)
			EXPECT(0, get_number(pool, n, buffer));
		speckv_pool_close(pool);
	}
	if (kind == MEDIUM_DRAM) {
		REFUSED(-ENOTEMPTY, "4 pools",
			speckv_device_remove(test_ctx, name, SPECKV_REMOVE_DRY_RUN));
		REFUSED(-ENOTEMPTY, "4 pools", speckv_device_remove(test_ctx, name, 0));
	}
	EXPECT(-ENOENT, speckv_pool_destroy_check(dev, "none"));
	EXPECT(0, speckv_pool_destroy_check(dev, "aa"));
	EXPECT(0,
		speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS | SPECKV_REMOVE_DRY_RUN));
	unchanged(dev, &before);
	speckv_device_close(dev);
	EXPECT(0, speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS));
	EXPECT(kind == MEDIUM_FIXED ? -EEXIST : -ENOENT,
		speckv_device_open(test_ctx, name, 0, &dev));
}

static int stop_at_once(uint64_t done, uint64_t total, void *arg)
{
	return 1;
}

static void a_cancelled_removal_changes_nothing(struct speckv_device *dev)
{
	struct state before = look(dev);

	REFUSED(-ECANCELED, "nothing was changed",
		speckv_pool_destroy(dev, "aa", stop_at_once, NULL));
	unchanged(dev, &before);
}

/* Both ways, the same answer; and after a refusal, nothing is different. */
static void set_both(struct speckv_device *dev, int expected, unsigned int mask,
	const struct speckv_pool_config *config)
{
	struct state before = look(dev);

	EXPECT(expected, speckv_pool_set(dev, "aa", mask | SPECKV_SET_DRY_RUN, config, NULL));
	unchanged(dev, &before);
	EXPECT(expected, speckv_pool_set(dev, "aa", mask, config, NULL));
	if (expected)
		unchanged(dev, &before);
}

static void settings_change_together_or_not(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .uid = (uint32_t)-1,
		.gid = (uint32_t)-1,
		.mode = 0644,
		.quota_bytes = 2 * MIB,
		.tenant_quota_bytes = MIB,
		.eviction = SPECKV_EVICT_NONE };
	const unsigned int all = SPECKV_SET_QUOTA | SPECKV_SET_TENANT_QUOTA | SPECKV_SET_EVICTION |
		SPECKV_SET_MODE;
	struct speckv_pool_config wrong;

	wrong = config;
	wrong.mode = 01777;
	set_both(dev, -EINVAL, all, &wrong);
	wrong = config;
	wrong.eviction = 7;
	set_both(dev, -EINVAL, all, &wrong);
	wrong = config;
	wrong.quota_bytes = 1;
	set_both(dev, -EINVAL, all, &wrong);
	wrong = config;
	wrong.tenant_quota_bytes = 1;
	set_both(dev, -EINVAL, all, &wrong);
	set_both(dev, 0, all, &config);
	set_both(dev, -EALREADY, all, &config);
}

/* Another user's file system rights, in a process of its own. */
static int as_a_user(void *arg)
{
	struct speckv_pool_config config = { .uid = 0, .gid = 0, .mode = 0600, .quota_bytes = MIB };
	struct speckv_device *dev;
	struct speckv_pool_config made = small_pool("own", 4 * MIB);
	struct speckv_pool_info before, after;

	CHECK(setresgid(4242, 4242, 4242) == 0 && setresuid(4242, 4242, 4242) == 0, "setresuid");
	CHECK(setenv("SPECKV_RUNTIME_DIR", arg, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &made, &before));
	REFUSED(-EPERM, "only root",
		speckv_pool_set(dev, "own",
			SPECKV_SET_QUOTA | SPECKV_SET_OWNER | SPECKV_SET_MODE | SPECKV_SET_DRY_RUN,
			&config, NULL));
	REFUSED(-EPERM, "only root",
		speckv_pool_set(dev, "own", SPECKV_SET_QUOTA | SPECKV_SET_OWNER | SPECKV_SET_MODE,
			&config, NULL));
	EXPECT(0, speckv_pool_info(dev, "own", &after));
	CHECK(memcmp(&before.config, &after.config, sizeof(before.config)) == 0,
		"something was changed");
	return 0;
}

static void an_owner_that_may_not_be_leaves_the_rest(void)
{
	char folder[300];

	if (geteuid() != 0)
		return;
	snprintf(folder, sizeof(folder), "%s/user", test_dir);
	CHECK(chmod(test_dir, 0711) == 0 && mkdir(folder, 0700) == 0 &&
			chown(folder, 4242, 4242) == 0,
		"%s", folder);
	EXPECT(0, wait_child(spawn(as_a_user, folder)));
}

static void a_shrink_that_is_refused_evicts_nothing(struct speckv_device *dev)
{
	struct speckv_pool *pool = attach_pool(dev, "bb", "holder");
	struct speckv_mem *high;
	struct state before;

	for (uint64_t n = 0; n < 200; n++)
		EXPECT(0, put_number(pool, n, buffer));
	for (;;) { /* one that lies above the new end */
		EXPECT(0, speckv_mem_alloc(pool, 2 * SMALL_BYTES, &high));
		if (speckv_mem_address(high) >= 3 * MIB)
			break;
	}
	before = look(dev);
	REFUSED(-EBUSY, "holds an allocation above the new end",
		speckv_pool_resize(dev, "bb", 2 * MIB, SPECKV_RESIZE_EVICT | SPECKV_RESIZE_DRY_RUN,
			NULL, NULL, NULL));
	REFUSED(-EBUSY, "holds an allocation above the new end",
		speckv_pool_resize(dev, "bb", 2 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	unchanged(dev, &before);
	speckv_pool_close(pool);
	before = look(dev);
	REFUSED(-ENOSPC, "--evict",
		speckv_pool_resize(dev, "bb", 2 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	REFUSED(-ENOSPC, "--evict", speckv_pool_resize(dev, "bb", 2 * MIB, 0, NULL, NULL, NULL));
	unchanged(dev, &before);
	EXPECT(0,
		speckv_pool_resize(dev, "bb", 2 * MIB, SPECKV_RESIZE_EVICT | SPECKV_RESIZE_DRY_RUN,
			NULL, NULL, NULL));
	unchanged(dev, &before);
	EXPECT(0, speckv_pool_resize(dev, "bb", 2 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
}

static void a_plan_is_refused_as_the_creation_is(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("aa", 4 * MIB), planned;
	struct state before = look(dev);

	/* to be compared with what is there */
	EXPECT(0, speckv_pool_plan(test_ctx, MEMORY, &config, &planned));
	REFUSED(-EEXIST, "already has a pool 'aa'", speckv_pool_create(dev, &config, NULL));
	config = small_pool("huge", 1ull << 40);
	EXPECT(-ENOSPC, speckv_pool_plan(test_ctx, MEMORY, &config, &planned));
	EXPECT(-ENOSPC, speckv_pool_create(dev, &config, NULL));
	config = small_pool("fits", 4 * MIB);
	EXPECT(0, speckv_pool_plan(test_ctx, MEMORY, &config, &planned));
	unchanged(dev, &before);
}

/* Both ways, the same answer. */
static void resize_both(struct speckv_device *dev, const char *name, int expected, const char *text,
	uint64_t to)
{
	for (int dry = 1; dry >= 0; dry--) {
		int rc = speckv_pool_resize(dev, name, to, dry ? SPECKV_RESIZE_DRY_RUN : 0, NULL,
			NULL, NULL);

		CHECK(rc == expected && (!rc || strstr(speckv_strerror(test_ctx), text)),
			"%s is %d, not %d (%s)", dry ? "dry run" : "run", rc, expected,
			rc ? speckv_strerror(test_ctx) : "");
	}
}

/* Takes all that is left of a pool, and dies. */
static int takes_all_and_dies(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), arg, "dead");
	struct speckv_mem *mem;

	while (speckv_mem_alloc(pool, 2 * SMALL_BYTES, &mem) == 0)
		;
	raise(SIGKILL);
	return 0;
}

/*
 * What dead clients hold is given back before a shrink looks: a dry run counts it as free, above
 * the mark and below it.
 */
static void the_dead_are_in_no_ones_way(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("graves", 4 * MIB);
	struct speckv_pool *pool;

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(-SIGKILL, wait_child(spawn(takes_all_and_dies, (void *)(uintptr_t)"graves")));
	EXPECT(0,
		speckv_pool_resize(dev, "graves", 2 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL,
			NULL));
	/* they are given back, and the pool is filled up to its end */
	pool = attach_pool(dev, "graves", "a");
	for (uint64_t n = 0; put_number(pool, n, buffer) == 0; n++)
		;
	for (uint64_t n = 0; n < 40; n++) { /* room below; the blocks that stay lie above */
		struct speckv_key key = key_of(n);

		speckv_drop(pool, &key, 1);
	}
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_resize(dev, "graves", 6 * MIB, 0, NULL, NULL, NULL));
	EXPECT(-SIGKILL, wait_child(spawn(takes_all_and_dies, (void *)(uintptr_t)"graves")));
	resize_both(dev, "graves", -ENOSPC, "--evict", 2 * MIB);
	EXPECT(-SIGKILL, wait_child(spawn(takes_all_and_dies, (void *)(uintptr_t)"graves")));
	resize_both(dev, "graves", 0, "", 4 * MIB);
	expect_sound(dev, "graves", -1);
	EXPECT(0, speckv_pool_destroy(dev, "graves", NULL, NULL));
}

/*
 * Room enough, in pieces too short for the blocks: refused before the first block moves, dry and
 * not.
 */
static void a_fragmented_pool_is_refused_before_a_block_moves(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pieces", 4 * MIB);
	struct speckv_pool_info info;
	struct run gap[512];
	struct speckv_pool *pool;
	struct block_ref found;
	uint64_t *before, pages, mark, blocks = 0, above = 0;
	unsigned int gaps = 0;

	config.max_bytes = 4 * MIB;
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pieces", "a");
	while (gaps < 512 && pages_claim(pool, 50, &gap[gaps], 0) == 0) {
		/* one block fits, and not two */
		gaps++;
		if (put_number(pool, blocks, buffer) != 0 ||
			put_number(pool, blocks + 1, buffer) != 0)
			break;
		blocks += 2;
	}
	pages = region_pages(&pool->region);
	mark = pages / 2;
	for (uint64_t n = 0; n < blocks; n++) {
		struct speckv_key key = key_of(n);

		CHECK(index_find(&pool->region, &key, &found), "block %llu", (unsigned long long)n);
		if (found.page >= mark && ++above > 24)
			EXPECT(1, speckv_drop(pool, &key, 1));
	}
	CHECK(above > 28, "%llu blocks above the mark", (unsigned long long)above);
	while (gaps)
		pages_release(&pool->region, pool->owner, &gap[--gaps]);
	EXPECT(0, speckv_pool_info(dev, "pieces", &info));
	before = calloc(pages, sizeof(*before));
	CHECK(before, "memory");
	memcpy(before, (const void *)pool->region.page_map, pages * sizeof(*before));
	resize_both(dev, "pieces", -ENOSPC, "in pieces too short for them", 2 * MIB);
	CHECK(memcmp(before, (const void *)pool->region.page_map, pages * sizeof(*before)) == 0,
		"a block was moved");
	for (uint64_t n = 0, gone = 0; n < blocks && gone < 25; n++) {
		/* with neighbours gone there is a place for each */
		struct speckv_key key = key_of(n);

		if (index_find(&pool->region, &key, &found) && found.page < mark)
			gone += (uint64_t)speckv_drop(pool, &key, 1);
	}
	resize_both(dev, "pieces", 0, "", 2 * MIB);
	speckv_pool_close(pool);
	expect_sound(dev, "pieces", -1);
	EXPECT(0, speckv_pool_destroy(dev, "pieces", NULL, NULL));
	free(before);
}

static uint32_t checksum(const char *path, uint64_t bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t *at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	uint32_t crc;

	CHECK(fd >= 0 && at != MAP_FAILED, "%s", path);
	crc = speckv_crc32c(0, at, bytes);
	munmap(at, bytes);
	close(fd);
	return crc;
}

/*
 * What would be overwritten is looked at before: a pool that cannot be on it is refused by the
 * plan, and nothing is written.
 */
static void a_plan_is_refused_before_anything_is_overwritten(void)
{
	static const struct {
		const char *what;
		uint64_t offset;
		uint32_t value;
	} kinds[] = {
		{ "foreign", 0, 0x21212121 },
		{ "of another version", offsetof(struct lay_superblock, version), 7 },
		{ "half made", offsetof(struct lay_superblock, state), LAY_MEDIUM_MAKING },
		{ "damaged", offsetof(struct lay_superblock, created_ns), 0 },
		{ "cut short", 0, 0 },
	};
	const uint64_t bytes = 24 * MIB;
	char name[300];

	snprintf(name, sizeof(name), "%s/fixed.kv", test_dir);
	unlink(name);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct speckv_pool_config config, planned;
		struct speckv_device *dev = open_medium(MEDIUM_FIXED, name);
		struct speckv_pool_info info;
		uint32_t before;
		int fd;

		speckv_device_close(dev);
		fd = open(name + 5, O_RDWR | O_CLOEXEC);
		CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "%s", name);
		if (kinds[i].offset || kinds[i].value)
			CHECK(pwrite(fd, &kinds[i].value, 4, (off_t)kinds[i].offset) == 4,
				"pwrite");
		close(fd);
		before = checksum(name + 5, bytes);
		config = small_pool("p", 2ull << 40);
		REFUSED(-ENOSPC, "free (", speckv_pool_plan(test_ctx, name, &config, &planned));
		/* there is the table, and its own tables need room too */
		config = small_pool("p", bytes - 2 * MIB);
		REFUSED(-ENOSPC, "22 MiB free",
			speckv_pool_plan(test_ctx, name, &config, &planned));
		config = small_pool("p", 4 * MIB);
		config.mode = 0660;
		REFUSED(-EOPNOTSUPP, "is one inode",
			speckv_pool_plan(test_ctx, name, &config, &planned));
		config.mode = 0600;
		config.uid = geteuid() + 1;
		REFUSED(-EOPNOTSUPP, "is one inode",
			speckv_pool_plan(test_ctx, name, &config, &planned));
		config = small_pool("p", 4 * MIB);
		EXPECT(0, speckv_pool_plan(test_ctx, name, &config, &planned));
		CHECK(checksum(name + 5, bytes) == before, "a medium that is %s was written",
			kinds[i].what);
		dev = open_device(name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
		EXPECT(0, speckv_pool_create(dev, &config, &info));
		CHECK(info.config.max_bytes == planned.max_bytes,
			"%s: planned up to %llu, made up to %llu", kinds[i].what,
			(unsigned long long)planned.max_bytes,
			(unsigned long long)info.config.max_bytes);
		config = small_pool("q", 4 * MIB);
		config.mode = 0660;
		EXPECT(-EOPNOTSUPP, speckv_pool_plan(test_ctx, name, &config, &planned));
		EXPECT(-EOPNOTSUPP, speckv_pool_create(dev, &config, NULL));
		speckv_device_close(dev);
		remove_device(name);
		CHECK(truncate(name + 5, 3 * MIB) == 0, "truncate");
		config = small_pool("p", 2 * MIB);
		REFUSED(-ENOSPC, "too small for a medium of fixed size",
			speckv_pool_plan(test_ctx, name, &config, &planned));
		REFUSED(-ENOSPC, "too small for a medium of fixed size",
			speckv_device_open(test_ctx, name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT,
				&dev));
		unlink(name + 5);
	}
}

static struct lay_pool_record *record_of(struct speckv_device *dev, const char *name)
{
	struct lay_pool_record copy;
	int number = device_look(dev, name, &copy);

	CHECK(number >= 0, "%s", name);
	return &dev->table->pools[number];
}

/*
 * What a dead manager left is finished by the next one before it begins, and reckoned with by a dry
 * run.
 */
static void a_dry_run_reckons_with_what_a_dead_manager_left(enum media kind)
{
	char name[300];
	struct speckv_device *dev;
	struct speckv_pool_config config = small_pool("half", 4 * MIB), planned;
	struct lay_pool_record *record;
	struct speckv_pool *pool;
	struct region *r;
	uint64_t mark;

	snprintf(name, sizeof(name), "%s/fixed.kv", test_dir);
	unlink(name);
	dev = open_medium(kind, name);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	/* a shrink in the middle: a limit, and retired pages above it */
	pool = attach_pool(dev, "half", "a");
	for (uint64_t n = 0; n < 20; n++)
		EXPECT(0, put_number(pool, n, buffer));
	speckv_pool_close(pool);
	pool = attach_pool(dev, "half", "a");
	r = &pool->region;
	record = record_of(dev, "half");
	/* blocks stand above it, with no room for them but in what is retired */
	mark = region_pages(r) / 8;
	for (uint64_t p = mark; p < region_pages(r); p++) {
		uint64_t none = LAY_FREE;

		atomic_compare_exchange_strong(&r->page_map[p], &none, LAY_RETIRED);
	}
	store_release(&r->head->pool.claim_limit, mark);
	speckv_pool_close(pool);
	store_release(&record->state, SPECKV_POOL_RESIZING);
	EXPECT(0,
		speckv_pool_resize(dev, "half", 2 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	CHECK(load_acquire(&record->state) == SPECKV_POOL_RESIZING, "a dry run finished it");
	EXPECT(0, speckv_pool_resize(dev, "half", 2 * MIB, 0, NULL, NULL, NULL));
	expect_sound(dev, "half", 20);
	/* a creation in the middle: no pool of the device, and its room and name are free */
	store_release(&record->state, SPECKV_POOL_CREATING);
	config = small_pool("whole", 88 * MIB);
	config.max_bytes = 88 * MIB;
	EXPECT(0, speckv_pool_plan(test_ctx, name, &config, &planned));
	if (kind != MEDIUM_FIXED) /* one of fixed size only forgets its path */
		EXPECT(0, speckv_device_remove(test_ctx, name, SPECKV_REMOVE_DRY_RUN));
	CHECK(load_acquire(&record->state) == SPECKV_POOL_CREATING, "a dry run finished it");
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_destroy(dev, "whole", NULL, NULL));
	speckv_device_close(dev);
	EXPECT(0, speckv_device_remove(test_ctx, name, 0));
}

/*
 * A dry run of a resize is no client: after another boot it rebuilds nothing, and what was closed
 * stays so.
 */
static void a_dry_run_leaves_the_bytes_of_a_pool(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("still", 4 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	uint32_t before;
	struct stat st;

	EXPECT(0, speckv_pool_create(dev, &config, &info));
	pool = attach_pool(dev, "still", "a");
	for (uint64_t n = 0; n < 20; n++)
		EXPECT(0, put_number(pool, n, buffer));
	memset(pool->region.head->pool.boot_id, 0x5a, sizeof(pool->region.head->pool.boot_id));
	speckv_pool_close(pool);
	CHECK(stat(info.path, &st) == 0, "%s", info.path);
	before = checksum(info.path, (uint64_t)st.st_size);
	EXPECT(0,
		speckv_pool_resize(dev, "still", 2 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	EXPECT(0,
		speckv_pool_resize(dev, "still", 6 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL, NULL));
	CHECK(checksum(info.path, (uint64_t)st.st_size) == before, "a dry run wrote the pool");
	EXPECT(0, speckv_pool_destroy(dev, "still", NULL, NULL));
}

int main(void)
{
	struct speckv_device *dev;

	test_begin(90);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = 0; kind < test_media() && !test_on_card(); kind++)
		closing_destroys_all_or_nothing((enum media)kind);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	fill(dev);
	a_cancelled_removal_changes_nothing(dev);
	settings_change_together_or_not(dev);
	a_shrink_that_is_refused_evicts_nothing(dev);
	a_plan_is_refused_as_the_creation_is(dev);
	the_dead_are_in_no_ones_way(dev);
	a_fragmented_pool_is_refused_before_a_block_moves(dev);
	a_dry_run_leaves_the_bytes_of_a_pool(dev);
	speckv_device_close(dev);
	if (!test_on_card()) {
		an_owner_that_may_not_be_leaves_the_rest();
		a_plan_is_refused_before_anything_is_overwritten();
		remove_device("host:DRAM");
		for (int kind = 0; kind < MEDIA; kind++)
			a_dry_run_reckons_with_what_a_dead_manager_left((enum media)kind);
	}
	free(buffer);
	test_end();
	return 0;
}

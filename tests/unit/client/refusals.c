// SPDX-License-Identifier: MIT
/* A call that is refused has changed nothing, and a dry run is refused as the call would be. */
#include "refusals.h"

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
	/* full again: how many blocks the allocations evicted is a matter of chance */
	speckv_pool_close(pool);
	pool = attach_pool(dev, "bb", "a");
	for (uint64_t n = 200; n < 400; n++)
		EXPECT(0, put_number(pool, n, buffer));
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
	refusals_dry_run(dev);
	speckv_device_close(dev);
	if (!test_on_card()) {
		an_owner_that_may_not_be_leaves_the_rest();
		refusals_on_media();
	}
	free(buffer);
	test_end();
	return 0;
}

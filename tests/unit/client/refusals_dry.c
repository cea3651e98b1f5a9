// SPDX-License-Identifier: MIT
/* Plans and dry runs write nothing, and are refused as the call would be, whatever is there. */
#include "refusals.h"

static uint8_t *buffer;

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

void refusals_dry_run(struct speckv_device *dev)
{
	buffer = line_alloc(2 * SMALL_BYTES);
	a_dry_run_leaves_the_bytes_of_a_pool(dev);
	free(buffer);
}

void refusals_on_media(void)
{
	buffer = line_alloc(2 * SMALL_BYTES);
	a_plan_is_refused_before_anything_is_overwritten();
	remove_device("host:DRAM");
	for (int kind = 0; kind < MEDIA; kind++)
		a_dry_run_reckons_with_what_a_dead_manager_left((enum media)kind);
	free(buffer);
}

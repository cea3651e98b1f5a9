// SPDX-License-Identifier: MIT
/*
 * A medium that cannot be written: every flush of every operation fails once. The operation says
 * so, what it was about is as it was, and it succeeds when the medium is well again.
 */
#include <sys/syscall.h>

#include "client/admin/admin.h"

#include "harness.h"

#define N 12

static uint8_t *buffer;
static int failing; /* which flush from here on fails; 0: none */
static bool for_long; /* it and all after it */
static unsigned int met; /* failures since they were asked for */

static bool fails(void)
{
	if (failing <= 0 || --failing > 0)
		return false;
	failing = for_long;
	met++;
	errno = EIO;
	return true;
}

/* In front of the C library's. */
int msync(void *address, size_t bytes, int flags)
{
	return fails() ? -1 : (int)syscall(SYS_msync, address, bytes, flags);
}

int fsync(int fd)
{
	return fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

static bool fail_at(int number, bool long_)
{
	failing = number;
	for_long = long_;
	met = 0;
	return true;
}

/* The medium is well again. Did one fail? */
static bool failed(void)
{
	failing = 0;
	return met != 0;
}

static int write_failed(const struct speckv_event *event, void *arg)
{
	*(unsigned int *)arg += event->kind == SPECKV_EVENT_WRITE_FAILED;
	return 0;
}

static unsigned int write_events(struct speckv_device *dev)
{
	unsigned int events = 0;

	EXPECT(0, speckv_events(dev, "pool", 0, write_failed, &events));
	return events;
}

static bool there(struct speckv_pool *pool, uint64_t n)
{
	struct speckv_key key = key_of(n);
	struct block_ref found;

	return index_find(&pool->region, &key, &found);
}

static void blocks(struct speckv_device *dev, bool long_)
{
	struct speckv_pool *pool = attach_pool(dev, "pool", NULL);
	int flushes = 0;

	for (int n = 1; fail_at(n, long_); n++) {
		int rc = put_number(pool, 500, buffer);

		if (!failed()) {
			EXPECT(0, rc);
			break;
		}
		EXPECT(-EIO, rc);
		CHECK(!there(pool, 500), "a block that was not stored is found");
		flushes = n;
	}
	CHECK(flushes >= 2, "a put flushes its payload, and then its word: %d", flushes);
	EXPECT(0, get_number(pool, 500, buffer));
	for (int n = 1; fail_at(n, long_); n++) {
		struct speckv_key key = key_of(500);
		int dropped = speckv_drop(pool, &key, 1);

		if (!failed()) {
			EXPECT(1, dropped);
			break;
		}
		CHECK(dropped <= 0, "dropped %d", dropped);
		EXPECT(0, get_number(pool, 500, buffer));
		flushes = -n;
	}
	CHECK(flushes < 0, "a drop flushes");
	CHECK(!there(pool, 500), "dropped");
	CHECK(write_events(dev) >= 1, "an event");
	speckv_pool_close(pool);
	expect_sound(dev, "pool", N);
}

/* A full pool: a put that cannot evict says why. */
static void evictions(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .eviction = SPECKV_EVICT_LRU };
	struct speckv_pool *pool;
	uint64_t i = 1000;

	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &config, NULL));
	pool = attach_pool(dev, "pool", NULL);
	for (int n = 0; n < 300; n++)
		EXPECT(0, put_number(pool, i++, buffer));
	for (int n = 1; fail_at(n, true); n++, i++) {
		int rc = put_number(pool, i, buffer);

		if (!failed()) {
			EXPECT(0, rc);
			break;
		}
		EXPECT(-EIO, rc);
		CHECK(!there(pool, i), "a block that was not stored is found");
	}
	speckv_pool_close(pool);
	expect_sound(dev, "pool", -1);
}

static void attaching(struct speckv_device *dev)
{
	int flushes = 0;

	for (int n = 1; fail_at(n, true); n++) {
		struct speckv_pool *pool = NULL;
		struct speckv_attach attach = { .tenant = "other" };
		int rc = speckv_pool_open(dev, "pool", &attach, &pool);

		if (!failed()) {
			EXPECT(0, rc);
			speckv_pool_close(pool);
			break;
		}
		EXPECT(-EIO, rc);
		flushes = n;
	}
	CHECK(flushes, "an attachment flushes that the pool is open");
	expect_sound(dev, "pool", N);
}

static void settings(struct speckv_device *dev)
{
	struct speckv_pool_config config = {
		.quota_bytes = 1 * MIB, .tenant_quota_bytes = 1 * MIB, .eviction = SPECKV_EVICT_LRU
	};
	struct speckv_pool_info before, after;

	EXPECT(0, speckv_pool_info(dev, "pool", &before));
	for (int n = 1; fail_at(n, true); n++) {
		int rc = speckv_pool_set(dev, "pool",
			SPECKV_SET_QUOTA | SPECKV_SET_TENANT_QUOTA | SPECKV_SET_EVICTION, &config,
			NULL);

		if (!failed())
			break;
		if (rc == -EALREADY || !rc) /* only the list of managers did not reach it */
			break;
		EXPECT(-EIO, rc);
		if (n > 1)
			continue;
		EXPECT(0, speckv_pool_info(dev, "pool", &after));
		CHECK(memcmp(&before.config, &after.config, sizeof(before.config)) == 0,
			"settings changed");
	}
	config = before.config;
	speckv_pool_set(dev, "pool",
		SPECKV_SET_QUOTA | SPECKV_SET_TENANT_QUOTA | SPECKV_SET_EVICTION, &config, NULL);
}

/*
 * A manager that was killed leaves a record that lets the pool's file have another mode: settings
 * that fail after it give it none.
 */
static void settings_after_a_killed_manager(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .quota_bytes = 1 * MIB };
	struct speckv_pool_info before;
	struct lay_pool_record record;
	int number = device_look(dev, "pool", &record), refused = 0;
	struct stat st;

	if (dev->single_inode)
		return;
	EXPECT(0, speckv_pool_info(dev, "pool", &before));
	for (int n = 1; n < 10; n++) {
		int rc;

		dev->table->pools[number].mode |= 0060;
		fail_at(n, false);
		rc = speckv_pool_set(dev, "pool", SPECKV_SET_QUOTA, &config, NULL);
		refused += failed() && rc == -EIO;
		CHECK(stat(before.path, &st) == 0 && (st.st_mode & 0777) == 0600,
			"flush %d: mode %o", n, st.st_mode & 0777);
		config.quota_bytes = config.quota_bytes == MIB ? 2 * MIB : MIB;
	}
	CHECK(refused >= 2, "%d refused", refused);
	config = before.config;
	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_QUOTA, &config, NULL));
}

static void resizes(struct speckv_device *dev, uint64_t to, bool long_)
{
	struct speckv_pool_info before, after;
	struct speckv_pool *pool;
	int rc, refused = 0;

	EXPECT(0, speckv_pool_info(dev, "pool", &before));
	for (int n = 1; fail_at(n, long_); n++) {
		rc = speckv_pool_resize(dev, "pool", to, 0, NULL, NULL, NULL);
		if (!failed() || !rc)
			break;
		EXPECT(-EIO, rc);
		EXPECT(0, speckv_pool_info(dev, "pool", &after));
		if (after.config.capacity_bytes == to) /* its size is stored; the table was not */
			break;
		CHECK(after.config.capacity_bytes == before.config.capacity_bytes &&
				after.config.quota_bytes == before.config.quota_bytes,
			"size changed");
		pool = attach_pool(dev, "pool", NULL);
		for (uint64_t i = 0; i < N; i++)
			EXPECT(0, get_number(pool, i, buffer));
		speckv_pool_close(pool);
		expect_sound(dev, "pool", N);
		refused++;
	}
	CHECK(refused, "a resize flushes");
	rc = speckv_pool_resize(dev, "pool", to, 0, NULL, NULL, NULL);
	CHECK(rc == 0 || rc == -EALREADY, "%d", rc);
	expect_sound(dev, "pool", N);
}

static void making_and_removing(struct speckv_device *dev, enum media kind, bool long_)
{
	struct speckv_pool_config config = small_pool("second", 2 * MIB);
	char path[SPECKV_PATH_BYTES];
	int rc, refused = 0;

	EXPECT(0, medium_pool_path(&dev->medium, "second", path));
	for (int n = 1; fail_at(n, long_); n++) {
		rc = speckv_pool_create(dev, &config, NULL);
		if (!failed() || !rc)
			break;
		EXPECT(-EIO, rc);
		EXPECT(-ENOENT, speckv_pool_info(dev, "second", &(struct speckv_pool_info){ 0 }));
		CHECK(kind == MEDIUM_FIXED || access(path, F_OK) != 0, "%s was left behind", path);
		refused++;
	}
	CHECK(refused >= 4, "a pool is made durably: %d", refused);
	expect_sound(dev, "second", 0);
	for (int n = 1; fail_at(n, long_); n++) {
		rc = speckv_pool_destroy(dev, "second", NULL, NULL);
		/* finished by the next manager, this one */
		if (!failed() || !rc || (n > 1 && rc == -ENOENT))
			break;
		EXPECT(-EIO, rc);
		if (n == 1)
			expect_sound(dev, "second", 0);
	}
	rc = speckv_pool_destroy(dev, "second", NULL, NULL);
	CHECK(rc == 0 || rc == -ENOENT, "%d", rc);
	CHECK(kind == MEDIUM_FIXED || access(path, F_OK) != 0, "%s was left behind", path);
	expect_sound(dev, "pool", N);
}

static void media_made(void)
{
	char name[300];
	struct speckv_device *dev = NULL;
	int rc, refused = 0;

	snprintf(name, sizeof(name), "host:%s/other.kv", test_dir);
	for (int n = 1; fail_at(n, true); n++) {
		rc = speckv_device_open(test_ctx, name, SPECKV_OPEN_CREATE, &dev);
		if (!failed() || !rc)
			break;
		EXPECT(-EIO, rc);
		CHECK(!dev && access(name + 5, F_OK) != 0,
			"a medium that could not be written is there");
		refused++;
	}
	CHECK(refused >= 3, "a medium is made durably: %d", refused);
	speckv_device_close(dev);
	remove_device(name);
}

static void one_medium(enum media kind, bool long_)
{
	char name[300];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct speckv_pool *pool;

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", NULL);
	for (uint64_t i = 0; i < N; i++) {
		/* below, so that a shrink has to move the others */
		EXPECT(0, put_number(pool, i + 700, buffer));
		EXPECT(0, put_number(pool, i + 800, buffer));
	}
	for (uint64_t i = 0; i < N; i++)
		EXPECT(0, put_number(pool, i, buffer));
	for (uint64_t i = 0; i < N; i++) {
		struct speckv_key keys[2] = { key_of(700 + i), key_of(800 + i) };

		EXPECT(2, speckv_drop(pool, keys, 2));
	}
	speckv_pool_close(pool);
	blocks(dev, long_);
	attaching(dev);
	settings(dev);
	settings_after_a_killed_manager(dev);
	resizes(dev, 6 * MIB, long_);
	resizes(dev, 2 * MIB, long_);
	making_and_removing(dev, kind, long_);
	evictions(dev);
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + strlen("host:"));
}

int main(void)
{
	test_begin(100);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = MEDIUM_FILE; kind <= MEDIUM_FIXED; kind++)
		for (int long_ = 0; long_ < 2; long_++)
			one_medium((enum media)kind, long_);
	media_made();
	free(buffer);
	test_end();
	return 0;
}

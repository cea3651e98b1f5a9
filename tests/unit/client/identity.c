// SPDX-License-Identifier: MIT
/* A handle acts on what it opened, and never on what has its name by now. */
#include "client/admin/admin.h"

#include "harness.h"

static uint8_t *buffer;

/* Through a handle of its own, as another process does. */
static void closed_here(const char *name)
{
	remove_device(name);
}

/* Every administrative call on a handle of a medium that was closed meanwhile. */
static void stale(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("chat", 2 * MIB);
	struct speckv_attach reader = { .flags = SPECKV_ATTACH_READ_ONLY };
	struct speckv_check_report report;
	struct speckv_device_info info;
	struct speckv_pool_info pool_info;
	struct speckv_stats stats;
	struct speckv_pool *pool;

#define STALE(call) REFUSED(-ESTALE, "open the device again", call)
	STALE(speckv_device_info(dev, &info));
	STALE(speckv_pool_create(dev, &config, NULL));
	STALE(speckv_pool_info(dev, "chat", &pool_info));
	STALE(speckv_pool_open(dev, "chat", NULL, &pool));
	STALE(speckv_pool_open(dev, "chat", &reader, &pool));
	STALE(speckv_pool_resize(dev, "chat", 4 * MIB, 0, NULL, NULL, NULL));
	STALE(speckv_pool_set(dev, "chat", SPECKV_SET_EVICTION, &config, NULL));
	STALE(speckv_pool_check(dev, "chat", SPECKV_CHECK_REPAIR, NULL, NULL, &report));
	STALE(speckv_pool_stats(dev, "chat", &stats));
	STALE(speckv_pool_stats_reset(dev, "chat"));
	STALE(speckv_pool_destroy(dev, "chat", NULL, NULL));
}

static void a_device_that_was_closed_is_not_the_next_one(enum media kind)
{
	struct speckv_device *old, *now;
	struct speckv_pool_config config = small_pool("chat", 4 * MIB);
	struct speckv_pool *pool;
	char name[300];

	old = open_medium(kind, name);
	closed_here(name);
	stale(old);
	if (kind == MEDIUM_FIXED) /* what had a size before stays, without a superblock */
		now = open_device(name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	else
		now = open_medium(kind, name);
	stale(old);
	EXPECT(0, speckv_pool_create(now, &config, NULL));
	pool = attach_pool(now, "chat", "a");
	for (uint64_t i = 0; i < 50; i++)
		EXPECT(0, put_number(pool, i, buffer));
	stale(old);
	for (uint64_t i = 0; i < 50; i++)
		EXPECT(0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	speckv_device_close(old);
	expect_sound(now, "chat", 50);
	speckv_device_close(now);
	closed_here(name);
	unlink(name + 5);
}

/* The table under the name is another one, or gone, though the device was not closed. */
static void a_table_that_was_exchanged_is_not_this_one(void)
{
	struct speckv_device *old, *now;
	char table[400], away[400];

	old = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	snprintf(table, sizeof(table), "%s/DRAM", test_dir);
	snprintf(away, sizeof(away), "%s/away", test_dir);
	CHECK(rename(table, away) == 0, "rename");
	stale(old);
	now = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	stale(old);
	speckv_device_close(now);
	CHECK(rename(away, table) == 0, "rename");
	speckv_device_close(open_device("host:DRAM", 0));
	speckv_device_close(old);
	remove_device("host:DRAM");
}

/*
 * A reader holds no slot: its pool can be destroyed, and the next one take its place in the medium.
 */
static void a_pool_that_was_destroyed_is_not_the_next_one(enum media kind)
{
	struct speckv_attach reader = { .flags = SPECKV_ATTACH_READ_ONLY };
	struct speckv_pool_config config = small_pool("chat", 4 * MIB);
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	struct speckv_key key = key_of(1);
	struct speckv_device *dev;
	struct speckv_pool *old, *pool;
	char name[300];
	uint8_t present = 9;

	dev = open_medium(kind, name);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "chat", "a");
	EXPECT(0, put_number(pool, 1, buffer));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_open(dev, "chat", &reader, &old));
	EXPECT(0, get_number(old, 1, buffer));
	EXPECT(0, speckv_pool_destroy(dev, "chat", NULL, NULL));
	for (int turn = 0; turn < 2; turn++) {
		REFUSED(-ESTALE, "destroyed", speckv_get(old, &request, 1));
		REFUSED(-ESTALE, "destroyed", speckv_lookup(old, &key, 1, &present));
		REFUSED(-ESTALE, "destroyed", speckv_lookup_prefix(old, &key, 1));
		CHECK(present == 9, "nothing was answered");
		if (turn)
			break;
		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		pool = attach_pool(dev, "chat", "b");
		EXPECT(0, put_number(pool, 1, buffer));
		speckv_pool_close(pool);
	}
	speckv_pool_close(old);
	expect_sound(dev, "chat", 1);
	speckv_device_close(dev);
	if (kind == MEDIUM_DRAM && test_on_card()) {
		dev = open_device(name, 0);
		EXPECT(0, speckv_pool_destroy(dev, "chat", NULL, NULL));
		speckv_device_close(dev);
	} else {
		closed_here(name);
	}
}

/*
 * A file that a second table would put in the place of the first one's: refused, and the first
 * one's stays.
 */
static void a_pool_of_another_record_is_not_removed(void)
{
	struct speckv_device *dev;
	struct speckv_pool_config config = small_pool("one", 2 * MIB);
	struct speckv_pool_info one, two;
	struct speckv_pool *pool;

	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, &one));
	snprintf(config.name, sizeof(config.name), "two");
	EXPECT(0, speckv_pool_create(dev, &config, &two));
	pool = attach_pool(dev, "one", "a");
	EXPECT(0, put_number(pool, 1, buffer));
	speckv_pool_close(pool);
	CHECK(unlink(two.path) == 0 && rename(one.path, two.path) == 0,
		"one lies under two's name");
	REFUSED(-EEXIST, "is not the file of pool two",
		speckv_pool_destroy(dev, "two", NULL, NULL));
	CHECK(rename(two.path, one.path) == 0, "it stayed");
	pool = attach_pool(dev, "one", "a");
	EXPECT(0, get_number(pool, 1, buffer));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "two", NULL, NULL)); /* whose own file is gone */
	speckv_device_close(dev);
	remove_device("host:DRAM");
}

/* Another card under the name of the one that was opened. */
static void another_card_is_not_the_one_that_was_opened(void)
{
	struct speckv_pool_config config = small_pool("chat", 2 * MIB);
	struct speckv_device *old = open_device("emu:card", 0);
	struct speckv_device *now;
	struct speckv_pool *pool;
	char command[700];

	EXPECT(0, speckv_pool_create(old, &config, NULL));
	pool = attach_pool(old, "chat", "a");
	EXPECT(0, put_number(pool, 1, buffer));
	test_card_stop(SIGKILL);
	snprintf(command, sizeof(command), "rm -r '%s'/emu/card", test_dir);
	CHECK(system(command) == 0, "rm");
	test_card_start();
	REFUSED(-ESTALE, "is not the card that was opened", speckv_pool_create(old, &config, NULL));
	REFUSED(-ESTALE, "is not the card that was opened",
		speckv_pool_destroy(old, "chat", NULL, NULL));
	EXPECT(-ENODEV, get_number(pool, 1, buffer)); /* gone, and not looked for on another card */
	now = open_device("emu:card", 0);
	EXPECT(0, speckv_pool_create(now, &config, NULL));
	EXPECT(-ENODEV, put_number(pool, 2, buffer));
	expect_sound(now, "chat", 0);
	speckv_pool_close(pool);
	speckv_device_close(old);
	speckv_device_close(now);
}

int main(void)
{
	test_begin(90);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = 0; kind < test_media(); kind++) {
		if (!test_on_card())
			a_device_that_was_closed_is_not_the_next_one((enum media)kind);
		a_pool_that_was_destroyed_is_not_the_next_one((enum media)kind);
	}
	if (test_on_card()) {
		another_card_is_not_the_one_that_was_opened();
	} else {
		a_table_that_was_exchanged_is_not_this_one();
		a_pool_of_another_record_is_not_removed();
	}
	free(buffer);
	test_end();
	return 0;
}

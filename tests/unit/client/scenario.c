// SPDX-License-Identifier: MIT
/*
 * The foundation's scenario in one test: a pool on host:DRAM is made in one process, filled from
 * two others at once, seen with both as tenants in a fourth; one is killed in the middle; then
 * resize, check, destroy. Nothing is lost, nothing is wrong.
 */
#include <stdatomic.h>

#include "harness.h"

#define EACH 600

struct shared {
	_Atomic uint32_t stored[2]; /* blocks that put() said are stored */
	_Atomic uint32_t go;
};
static struct shared *shared;

static int creator(void *arg)
{
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	struct speckv_pool_config config = small_pool("kv", 48 * MIB);

	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	return 0;
}

__attribute__((noreturn)) static void work_until_killed(struct speckv_pool *pool, uint8_t *buffer)
{
	uint64_t random = 1;

	for (;;) {
		struct speckv_key key = key_of(50000 + below(&random, 200));

		if (put_number(pool, 50000 + below(&random, 200), buffer) == 0)
			speckv_drop(pool, &key, 1);
	}
}

static int filler(void *arg)
{
	unsigned int me = *(const unsigned int *)arg;
	struct speckv_device *dev = open_device(MEMORY, 0);
	struct speckv_pool *pool = attach_pool(dev, "kv", me ? "right" : "left");
	uint8_t *buffer = line_alloc(SMALL_BYTES);

	while (!atomic_load(&shared->go))
		sleep_us(50);
	for (unsigned int i = 0; i < EACH; i++) {
		EXPECT(0, put_number(pool, me * 100000 + i, buffer));
		atomic_store(&shared->stored[me], i + 1);
		/* the other is to come this far too, and the onlooker to see both */
		if (i == EACH / 3)
			while (atomic_load(&shared->go) < 2)
				sleep_us(50);
	}
	if (me == 0)
		work_until_killed(pool, buffer);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	free(buffer);
	return 0;
}

static int seen(const struct speckv_tenant_info *info, void *arg)
{
	unsigned int *mask = arg;

	for (unsigned int i = 0; i < 2; i++)
		if (strcmp(info->name, i ? "right" : "left") == 0 && info->clients == 1 &&
			info->blocks > EACH / 3 && info->puts > EACH / 3 &&
			info->used_bytes >= info->blocks * SMALL_BYTES)
			*mask |= 1u << i;
	return 0;
}

static int onlooker(void *arg)
{
	struct speckv_device *dev = open_device(MEMORY, 0);
	unsigned int mask = 0;

	for (; mask != 3; sleep_us(1000)) {
		mask = 0;
		EXPECT(0, speckv_pool_tenants(dev, "kv", seen, &mask));
	}
	speckv_device_close(dev);
	return 0;
}

static void verify(struct speckv_device *dev, uint8_t *buffer)
{
	struct speckv_pool *pool = attach_pool(dev, "kv", "verifier");

	for (unsigned int me = 0; me < 2; me++)
		for (unsigned int i = 0; i < shared->stored[me]; i++)
			EXPECT(0, get_number(pool, me * 100000 + i, buffer));
	for (unsigned int i = 0; i < 200; i++) {
		int rc = get_number(pool, 50000 + i, buffer);

		CHECK(rc == 0 || rc == -ENOENT, "%d", rc);
	}
	speckv_pool_close(pool);
}

int main(void)
{
	static const unsigned int numbers[2] = { 0, 1 };
	struct speckv_pool_info info;
	struct speckv_device *dev;
	struct stat st;
	uint8_t *buffer;
	pid_t fillers[2];
	char path[SPECKV_PATH_BYTES];

	test_begin(120);
	shared = shared_memory(sizeof(*shared));
	buffer = line_alloc(2 * SMALL_BYTES);
	EXPECT(0, wait_child(spawn(creator, NULL)));
	for (int i = 0; i < 2; i++)
		fillers[i] = spawn(filler, (void *)&numbers[i]);
	atomic_store(&shared->go, 1);
	EXPECT(0, wait_child(spawn(onlooker, NULL)));
	atomic_store(&shared->go, 2);
	while (atomic_load(&shared->stored[0]) < EACH / 2)
		sleep_us(100);
	sleep_us(5000);
	kill(fillers[0], SIGKILL);
	EXPECT(-SIGKILL, wait_child(fillers[0]));

	/* resized both ways with the other one still at it */
	dev = open_device(MEMORY, 0);
	EXPECT(0, speckv_pool_resize(dev, "kv", 64 * MIB, 0, NULL, NULL, &info));
	CHECK(info.config.capacity_bytes == 64 * MIB, "grown");
	EXPECT(0, wait_child(fillers[1]));
	CHECK(shared->stored[1] == EACH, "the other went on");
	verify(dev, buffer);
	EXPECT(0, speckv_pool_resize(dev, "kv", 52 * MIB, 0, NULL, NULL, &info));
	CHECK(info.config.capacity_bytes == 52 * MIB && info.resizes == 2, "shrunk");
	verify(dev, buffer);
	expect_sound(dev, "kv", -1);
	EXPECT(0, speckv_pool_info(dev, "kv", &info));
	CHECK(info.clients == 0 && info.blocks >= shared->stored[0] + shared->stored[1],
		"%llu blocks", (unsigned long long)info.blocks);

	memcpy(path, info.path, sizeof(path));
	EXPECT(0, speckv_pool_destroy(dev, "kv", NULL, NULL));
	CHECK(stat(path, &st) != 0, "its memory is given back");
	REFUSED(-ENOENT, "no pool 'kv'", speckv_pool_info(dev, "kv", &info));
	speckv_device_close(dev);
	remove_device(MEMORY);
	free(buffer);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Allocations are zeroed, apart from each other, bounded, sealed into blocks, and end with their
 * attachment.
 */
#include "harness.h"

#define MEMS 40

static int die_holding(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), "memory", "dead");
	struct speckv_mem *mem;

	EXPECT(0, speckv_mem_alloc(pool, MIB, &mem));
	raise(SIGKILL);
	return 0;
}

/* What a hundred blocks left behind is not for an allocation to find. */
static void allocations_are_zeroed(struct speckv_pool *pool, struct speckv_mem **mems)
{
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);
	void *pointer;

	for (int i = 0; i < 100; i++)
		EXPECT(0, put_number(pool, (uint64_t)i, buffer));
	for (int i = 0; i < 100; i++)
		EXPECT(1, speckv_drop(pool, &(struct speckv_key[]){ key_of((uint64_t)i) }[0], 1));
	for (int i = 0; i < MEMS; i++) {
		uint64_t bytes = 1 + (uint64_t)i * 1777;

		EXPECT(0, speckv_mem_alloc(pool, bytes, &mems[i]));
		CHECK(speckv_mem_bytes(mems[i]) == bytes, "bytes");
		EXPECT(0, speckv_mem_access(mems[i], 0, bytes, &pointer));
		CHECK(all_bytes(pointer, bytes, 0), "zeroed");
		memset(pointer, i + 1, bytes);
	}
	free(buffer);
}

static void allocations_are_apart_and_bounded(struct speckv_pool *pool, struct speckv_mem **mems)
{
	struct speckv_mem *mem;
	void *pointer;

	for (int i = 0; i < MEMS; i++) {
		uint64_t bytes = speckv_mem_bytes(mems[i]);

		for (int j = 0; j < i; j++)
			CHECK(speckv_mem_address(mems[i]) >= speckv_mem_address(mems[j]) +
							speckv_mem_bytes(mems[j]) ||
					speckv_mem_address(mems[j]) >=
						speckv_mem_address(mems[i]) + bytes,
				"%d and %d overlap", i, j);
		EXPECT(0, speckv_mem_access(mems[i], 0, bytes, &pointer));
		CHECK(all_bytes(pointer, bytes, (uint8_t)(i + 1)), "kept");
		EXPECT(0, speckv_mem_prefetch(mems[i], 0, bytes));
		EXPECT(0, speckv_mem_access(mems[i], bytes, 0, &pointer));
		EXPECT(-ERANGE, speckv_mem_access(mems[i], 0, bytes + 1, &pointer));
		CHECK(!pointer, "no pointer on failure");
		EXPECT(-ERANGE, speckv_mem_access(mems[i], bytes + 1, 0, &pointer));
		EXPECT(-ERANGE, speckv_mem_access(mems[i], 1, UINT64_MAX, &pointer));
		EXPECT(-ERANGE, speckv_mem_prefetch(mems[i], bytes, 1));
	}
	EXPECT(-EINVAL, speckv_mem_alloc(pool, 0, &mem));
	EXPECT(-EINVAL, speckv_mem_alloc(pool, 1ull << 60, &mem));
	EXPECT(-ENOSPC, speckv_mem_alloc(pool, 4 * MIB, &mem));
}

static void a_sealed_allocation_becomes_the_block(struct speckv_pool *pool)
{
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);
	struct speckv_key key = key_of(1);
	struct speckv_mem *mem;
	void *pointer;

	EXPECT(0, speckv_mem_alloc(pool, SMALL_BYTES, &mem));
	EXPECT(0, speckv_mem_access(mem, 0, SMALL_BYTES, &pointer));
	fill_block(&key, pointer, SMALL_BYTES);
	EXPECT(0, speckv_mem_seal(mem, &(struct speckv_request){ .key = key }));
	EXPECT(0, get_number(pool, 1, buffer));
	EXPECT(0, speckv_mem_alloc(pool, SMALL_BYTES - 1, &mem));
	EXPECT(-EINVAL, speckv_mem_seal(mem, &(struct speckv_request){ .key = key }));
	speckv_mem_free(mem);
	speckv_mem_free(NULL);
	free(buffer);
}

static void allocations_of_the_dead_go_back(struct speckv_device *dev)
{
	struct speckv_check_report report;

	EXPECT(-SIGKILL, wait_child(spawn(die_holding, NULL)));
	EXPECT(-EUCLEAN, check_pool(dev, "memory", 0, &report));
	CHECK(report.clients_dead == 1 && report.pages_leaked >= MIB / 1024 &&
			report.pages_allocated == 0,
		"a dead client's megabyte");
	speckv_pool_close(attach_pool(dev, "memory", "next"));
	expect_sound(dev, "memory", 1);
}

int main(void)
{
	struct speckv_pool_config config = { 0 };
	struct speckv_mem *mems[MEMS], *mem;
	struct speckv_pool *pool, *reader;
	struct speckv_check_report report;
	struct speckv_attach attach = { .flags = SPECKV_ATTACH_READ_ONLY };
	struct speckv_device *dev;

	test_begin(60);
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	config = small_pool("memory", 4 * MIB);
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "memory", "a");
	allocations_are_zeroed(pool, mems);
	allocations_are_apart_and_bounded(pool, mems);
	for (int i = 0; i < MEMS; i += 2)
		speckv_mem_free(mems[i]);
	expect_sound(dev, "memory", 0);
	EXPECT(0, check_pool(dev, "memory", 0, &report));
	CHECK(report.pages_allocated > 0, "the others are held");
	a_sealed_allocation_becomes_the_block(pool);
	EXPECT(0, speckv_pool_open(dev, "memory", &attach, &reader));
	EXPECT(-EROFS, speckv_mem_alloc(reader, 100, &mem));
	speckv_pool_close(reader);

	speckv_pool_close(pool); /* with the odd ones not freed */
	EXPECT(0, check_pool(dev, "memory", 0, &report));
	CHECK(report.pages_allocated == 0 && report.pages_leaked == 0 && report.blocks == 1,
		"freed at close");
	allocations_of_the_dead_go_back(dev);
	speckv_device_close(dev);
	test_end();
	return 0;
}

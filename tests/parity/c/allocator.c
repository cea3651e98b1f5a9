/* SPDX-License-Identifier: MIT */
/* The four allocator behaviours. */
#include "behaviours.h"

static unsigned char *all_of(struct speckv_mem *mem)
{
	void *pointer;

	HOLDS(speckv_mem_access(mem, 0, speckv_mem_bytes(mem), &pointer) == 0);
	return pointer;
}

static uint64_t allocated(void)
{
	struct speckv_check_report report;

	HOLDS(speckv_pool_check(fixture.device, "parity", 0, NULL, NULL, &report) == 0);
	HOLDS(report.pages_leaked == 0);
	return report.pages_allocated;
}

static void one_allocation_is_given_and_taken_back(void)
{
	struct speckv_mem *mem;

	HOLDS(speckv_mem_alloc(fixture.pool, 4096, &mem) == 0);
	HOLDS(speckv_mem_bytes(mem) == 4096);
	HOLDS(speckv_mem_address(mem) + 4096 <= POOL_BYTES);
	HOLDS(allocated() >= 4); /* pages of 1 KiB */
	speckv_mem_free(mem);
	HOLDS(allocated() == 0);
	HOLDS(speckv_mem_alloc(fixture.pool, 0, &mem) == -EINVAL);
	HOLDS(speckv_mem_alloc(fixture.pool, POOL_BYTES * 2, &mem) == -ENOSPC);
}

static void ten_of_growing_size_are_distinct_and_freed_in_any_order(void)
{
	static const int order[10] = { 3, 9, 0, 6, 1, 8, 5, 2, 7, 4 };
	struct speckv_mem *mem[10];

	for (int i = 0; i < 10; i++) {
		HOLDS(speckv_mem_alloc(fixture.pool, (uint64_t)(i + 1) * 64 << 10, &mem[i]) == 0);
		memset(all_of(mem[i]), 'A' + i, speckv_mem_bytes(mem[i]));
		for (int k = 0; k < i; k++) {
			uint64_t a = speckv_mem_address(mem[i]), b = speckv_mem_address(mem[k]);

			HOLDS(a + speckv_mem_bytes(mem[i]) <= b ||
				b + speckv_mem_bytes(mem[k]) <= a);
		}
	}
	for (int round = 0; round < 10; round++) {
		/* what is left keeps its bytes while the others go */
		for (int left = round; left < 10; left++) {
			unsigned char *bytes = all_of(mem[order[left]]);

			for (uint64_t at = 0; at < speckv_mem_bytes(mem[order[left]]); at++)
				HOLDS(bytes[at] == 'A' + order[left]);
		}
		speckv_mem_free(mem[order[round]]);
	}
	HOLDS(allocated() == 0);
}

static void access_at_several_offsets_of_one_allocation(void)
{
	static const uint64_t offsets[] = { 0, 1, 4095, 4096, 65536, 500000, (1 << 20) - 64 };
	struct speckv_mem *mem;
	unsigned char *base;

	HOLDS(speckv_mem_alloc(fixture.pool, 1 << 20, &mem) == 0);
	base = all_of(mem);
	for (unsigned int i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		void *pointer;

		HOLDS(speckv_mem_access(mem, offsets[i], 64, &pointer) == 0);
		HOLDS((unsigned char *)pointer == base + offsets[i]);
		memset(pointer, (int)i + 1, 64);
		HOLDS(base[offsets[i]] == i + 1 && base[offsets[i] + 63] == i + 1);
	}
	HOLDS(base[0] == 1 && base[1] == 2 && base[64] == 2 && base[65] == 0);
	HOLDS(base[4095] == 3 && base[4096] == 4);
	speckv_mem_free(mem);
}

static uint64_t prefetches(void)
{
	struct speckv_stats stats;

	HOLDS(speckv_pool_stats(fixture.device, "parity", &stats) == 0);
	return stats.counters[SPECKV_COUNT_PREFETCHES];
}

/*
 * Ranges within it are asked for, and counted; others are refused, and are not; neither changes a
 * byte.
 */
static void prefetch_from_an_allocation(void)
{
	static const struct {
		uint64_t offset, bytes;
		int rc;
	} asked[] = {
		{ 0, 1 << 20, 0 },
		{ 4097, 8192, 0 },
		{ (1 << 20) - 1, 1, 0 },
		{ 1, 1 << 20, -ERANGE },
		{ 0, (1 << 20) + 1, -ERANGE },
		{ 1 << 20, 1, -ERANGE },
		{ UINT64_MAX, 2, -ERANGE },
		{ 2, UINT64_MAX, -ERANGE },
	};
	struct speckv_mem *mem;
	unsigned char *bytes;
	uint64_t before, done = 0;

	HOLDS(speckv_mem_alloc(fixture.pool, 1 << 20, &mem) == 0);
	bytes = all_of(mem);
	for (uint64_t i = 0; i < 1 << 20; i++)
		bytes[i] = (unsigned char)(i * 7 + (i >> 8));
	before = prefetches();
	for (unsigned int i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		HOLDS(speckv_mem_prefetch(mem, asked[i].offset, asked[i].bytes) == asked[i].rc);
		done += !asked[i].rc;
		HOLDS(prefetches() == before + done);
	}
	for (uint64_t i = 0; i < 1 << 20; i++)
		HOLDS(bytes[i] == (unsigned char)(i * 7 + (i >> 8)));
	HOLDS(speckv_mem_prefetch(NULL, 0, 1) == -EINVAL);
	speckv_mem_free(mem);
}

int main(int argc, char **argv)
{
	static const struct behaviour behaviours[] = {
		{ "one_allocation_is_given_and_taken_back",
			one_allocation_is_given_and_taken_back },
		{ "ten_of_growing_size_are_distinct_and_freed_in_any_order",
			ten_of_growing_size_are_distinct_and_freed_in_any_order },
		{ "access_at_several_offsets_of_one_allocation",
			access_at_several_offsets_of_one_allocation },
		{ "prefetch_from_an_allocation", prefetch_from_an_allocation },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

/* SPDX-License-Identifier: MIT */
/* The five C API behaviours. */
#include "behaviours.h"

static void open_and_close_twice_in_one_process(void)
{
	for (int round = 0; round < 2; round++) {
		struct speckv_device *device = NULL;
		struct speckv_pool *pool = NULL;
		struct speckv_ctx *ctx = NULL;
		struct speckv_device_info info;

		HOLDS(speckv_ctx_create(&ctx) == 0);
		HOLDS(speckv_device_open(ctx, MEMORY, 0, &device) == 0);
		HOLDS(speckv_device_info(device, &info) == 0);
		HOLDS(info.state == SPECKV_MEDIUM_READY && info.pools == 1);
		HOLDS(speckv_pool_open(device, "parity", NULL, &pool) == 0);
		HOLDS(speckv_pool_block_bytes(pool) == 65536);
		speckv_pool_close(pool);
		speckv_device_close(device);
		speckv_ctx_destroy(ctx);
	}
}

static uint64_t allocated(void)
{
	struct speckv_check_report report;

	HOLDS(speckv_pool_check(fixture.device, "parity", 0, NULL, NULL, &report) == 0);
	return report.pages_allocated;
}

static void allocate_one_mebibyte_and_free_it(void)
{
	struct speckv_mem *mem;

	HOLDS(allocated() == 0);
	HOLDS(speckv_mem_alloc(fixture.pool, 1 << 20, &mem) == 0);
	HOLDS(speckv_mem_bytes(mem) == 1 << 20);
	HOLDS(allocated() * 1024 >= 1 << 20); /* pages of block / 64 */
	speckv_mem_free(mem);
	HOLDS(allocated() == 0);
}

static void access_gives_usable_memory_with_the_right_bytes(void)
{
	struct speckv_mem *mem;
	void *first, *again;

	HOLDS(speckv_mem_alloc(fixture.pool, 1 << 20, &mem) == 0);
	HOLDS(speckv_mem_access(mem, 8192, 4096, &first) == 0);
	for (int i = 0; i < 4096; i++)
		HOLDS(((unsigned char *)first)[i] == 0); /* never another owner's bytes */
	for (int i = 0; i < 4096; i++)
		((unsigned char *)first)[i] = (unsigned char)(i * 7 + 3);
	HOLDS(speckv_mem_access(mem, 8192, 4096, &again) == 0);
	for (int i = 0; i < 4096; i++)
		HOLDS(((unsigned char *)again)[i] == (unsigned char)(i * 7 + 3));
	HOLDS(speckv_mem_access(mem, (1 << 20) - 4095, 4096, &again) == -ERANGE);
	HOLDS(speckv_mem_access(mem, UINT64_MAX, 4096, &again) == -ERANGE);
	speckv_mem_free(mem);
}

static uint64_t counter(enum speckv_counter which)
{
	struct speckv_stats stats;

	HOLDS(speckv_pool_stats(fixture.device, "parity", &stats) == 0);
	return stats.counters[which];
}

static void prefetch_stages_a_block_that_a_get_then_uses(void)
{
	unsigned char *block = malloc(65536);
	struct speckv_request request = { .buffer = block, .buffer_bytes = 65536 };
	struct speckv_op *op;

	HOLDS(block);
	memset(&request.key, 7, sizeof(request.key));
	memset(block, 42, 65536);
	HOLDS(speckv_put(fixture.pool, &request, 1) == 1);
	HOLDS(speckv_submit(fixture.pool, SPECKV_OP_PREFETCH, &request, 1, &op) == 0);
	HOLDS(speckv_op_wait(op, -1) == 1);
	speckv_op_release(op);
	/* a worker does it: the suite's time limit ends a wait in vain */
	while (counter(SPECKV_COUNT_PREFETCHED) == 0)
		;
	memset(block, 0, 65536);
	request.flags = 0;
	HOLDS(speckv_get(fixture.pool, &request, 1) == 1);
	HOLDS(request.flags & SPECKV_REQUEST_STAGED);
	HOLDS(block[0] == 42 && block[65535] == 42);
	HOLDS(counter(SPECKV_COUNT_PREFETCH_USED) == 1);
	free(block);
}

static void parameters_are_set_and_read_back(void)
{
	char value[16];

	HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", "4") == 0);
	HOLDS(speckv_param_get(fixture.pool, "prefetch_depth", value, sizeof(value)) == 0);
	HOLDS(strcmp(value, "4") == 0);
	HOLDS(speckv_param_get(fixture.pool, "prefetch_depth", value, 1) == -ENOSPC);
}

int main(int argc, char **argv)
{
	static const struct behaviour behaviours[] = {
		{ "open_and_close_twice_in_one_process", open_and_close_twice_in_one_process },
		{ "allocate_one_mebibyte_and_free_it", allocate_one_mebibyte_and_free_it },
		{ "access_gives_usable_memory_with_the_right_bytes",
			access_gives_usable_memory_with_the_right_bytes },
		{ "prefetch_stages_a_block_that_a_get_then_uses",
			prefetch_stages_a_block_that_a_get_then_uses },
		{ "parameters_are_set_and_read_back", parameters_are_set_and_read_back },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

// SPDX-License-Identifier: MIT
/* The public calls on blocks: argument checks, and distribution of batches to the workers. */

#include "pool.h"

static int check_batch(struct speckv_pool *pool, const void *items, size_t n, bool write)
{
	if (!pool)
		return -EINVAL;
	if ((n && !items) || n > INT32_MAX)
		return fail(pool->ctx, -EINVAL, "batch of %zu requests: %s", n,
			items ? "more than 2^31 - 1" : "no array");
	return pool_usable(pool, write);
}

static int run_requests(struct speckv_pool *pool, unsigned int opcode,
	struct speckv_request *requests, size_t n)
{
	unsigned int threads = load_relaxed(&pool->threads);

	return __builtin_expect(threads > 1 && n > 1, 0)
		? workers_share(pool, opcode, requests, n, threads)
		: batch_run(pool, opcode, requests, n);
}

int speckv_put(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	int rc = check_batch(pool, requests, n, true);

	return rc ? rc : run_requests(pool, SPECKV_OP_PUT, requests, n);
}

int speckv_get(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	int rc = check_batch(pool, requests, n, false);

	return rc ? rc : run_requests(pool, SPECKV_OP_GET, requests, n);
}

int speckv_lookup(struct speckv_pool *pool, const struct speckv_key *keys, size_t n,
	uint8_t *present)
{
	uint64_t began;
	int rc = check_batch(pool, keys, n, false), hits = 0;

	if (rc)
		return rc;
	if (n && !present)
		return fail(pool->ctx, -EINVAL, "lookup without an array for its results");
	rc = pool_there(pool);
	if (rc)
		return rc;
	began = clock_ns();
	index_find_many(&pool->region, keys, sizeof(*keys), n, NULL, present);
	for (size_t i = 0; i < n; i++)
		hits += present[i];
	block_count_lookups(pool, n, (uint64_t)hits, began);
	return pool_unless_lost(pool, hits);
}

int speckv_lookup_prefix(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	enum { GROUP = 32 };
	uint8_t present[GROUP];
	int rc = check_batch(pool, keys, n, false);
	size_t length = 0, looked = 0;
	uint64_t began;

	if (!rc)
		rc = pool_there(pool);
	if (rc)
		return rc;
	began = clock_ns();
	for (bool more = true; more && looked < n;) {
		size_t group = n - looked < GROUP ? n - looked : GROUP;

		index_find_many(&pool->region, keys + looked, sizeof(*keys), group, NULL, present);
		for (size_t i = 0; i < group && more; i++) {
			more = present[i];
			length += present[i];
		}
		looked += group;
	}
	/* blocks behind the first missing one do not count as hits */
	block_count_lookups(pool, n, length, began);
	return pool_unless_lost(pool, (int)length);
}

static int each_key(struct speckv_pool *pool, unsigned int opcode, const struct speckv_key *keys,
	size_t n)
{
	enum { GROUP = 16 };
	struct speckv_request requests[GROUP] = { 0 };
	int done = 0;

	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP;

		for (size_t i = 0; i < group; i++)
			requests[i].key = keys[base + i];
		done += batch_run(pool, opcode, requests, group);
	}
	return pool_unless_lost(pool, done);
}

int speckv_touch(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	int rc = check_batch(pool, keys, n, true);

	return rc ? rc : each_key(pool, SPECKV_OP_TOUCH, keys, n);
}

int speckv_drop(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	int rc = check_batch(pool, keys, n, true);

	return rc ? rc : each_key(pool, SPECKV_OP_DROP, keys, n);
}

int speckv_children(struct speckv_pool *pool, const struct speckv_key *key,
	struct speckv_key *children, size_t max)
{
	struct block_ref found;
	int rc = check_batch(pool, key, 1, false);

	if (rc)
		return rc;
	if (max && !children)
		return fail(pool->ctx, -EINVAL, "children without an array for them");
	rc = pool_there(pool);
	if (rc)
		return rc;
	return pool_unless_lost(pool,
		index_find(&pool->region, key, &found)
			? (int)index_children(&pool->region, &found, children, NULL, max)
			: 0);
}

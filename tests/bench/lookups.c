// SPDX-License-Identifier: MIT
/*
 * Batched look-ups in a pool of many blocks, half of them hits, in random order, beside a hash map
 * of this process alone.
 *
 * Usage: lookups [--keys 1048576] [--rounds 5] [--batch 256] The blocks are the smallest there are,
 * and constant, which int8-delta-rle stores in little: the index is as that of full blocks.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#ifdef HAVE_HASH_MAP
#include "hash_map_peer.h"
#endif

#define PUT_BATCH 256
#define TURN_KEYS 4096

static struct speckv_ctx *ctx;
static struct series pool_series = { .name = "speckv_lookup", .units = TURN_KEYS };

static void fill(struct speckv_pool *pool, size_t keys)
{
	static struct speckv_request requests[PUT_BATCH];
	uint64_t bytes = speckv_pool_block_bytes(pool);
	void *zeros = calloc(1, bytes);

	if (!zeros)
		give_up("no memory");
	for (size_t base = 0; base < keys; base += PUT_BATCH) {
		size_t n = keys - base < PUT_BATCH ? keys - base : PUT_BATCH;

		for (size_t i = 0; i < n; i++) {
			key_of(base + i, &requests[i].key);
			requests[i].buffer = zeros;
			requests[i].buffer_bytes = bytes;
			requests[i].flags = 0;
		}
		if (speckv_put(pool, requests, n) != (int)n)
			give_up("put: %s", speckv_strerror(ctx));
	}
	free(zeros);
}

static struct speckv_pool *open_pool(struct speckv_device *device, size_t keys)
{
	struct speckv_pool_config config = {
		.name = "bench",
		.geometry = { .layers = 1,
			.kv_heads = 1,
			.head_dim = 64,
			.tokens = 64,
			.dtype = SPECKV_DTYPE_BF16 },
		.codec = SPECKV_CODEC_INT8_DELTA_RLE,
		.eviction = SPECKV_EVICT_NONE,
		.page_bytes = 256,
		.uid = (uint32_t)-1,
		.gid = (uint32_t)-1,
	};
	struct speckv_pool *pool;

	config.capacity_bytes = 1024 * keys; /* the run of pages that such a frame takes */
	config.capacity_bytes += config.capacity_bytes / 4 + (16u << 20);
	config.max_bytes = config.capacity_bytes + (4u << 20);
	if (speckv_pool_create(device, &config, NULL) ||
		speckv_pool_open(device, "bench", NULL, &pool))
		give_up("the pool: %s", speckv_strerror(ctx));
	return pool;
}

#ifdef HAVE_HASH_MAP
static struct series map_series = { .name = "hash_map_lookup", .units = TURN_KEYS };
static struct hash_map_peer *map;

static void fill_map(size_t keys)
{
	map = hash_map_peer_create(keys);
	for (size_t i = 0; i < keys; i++) {
		struct speckv_key key;

		key_of(i, &key);
		hash_map_peer_put(map, &key, i);
	}
}

/* The same turn in the hash map, which must find the same. */
static void turn_of_map(const struct speckv_key *asked, const uint8_t *present, size_t batch,
	bool counts)
{
	static uint8_t map_present[TURN_KEYS];
	double start = now_seconds();
	size_t map_hits = 0;

	for (size_t base = 0; base < TURN_KEYS; base += batch)
		map_hits += hash_map_peer_lookup(map, asked + base, batch, map_present + base);
	if (counts)
		add_turn(&map_series, now_seconds() - start);
	if (memcmp(map_present, present, TURN_KEYS) != 0)
		give_up("pool and hash map disagree in a turn of %zu hits", map_hits);
}
#endif

/* One turn after the other through all keys, those that are not stored too: hits. */
static size_t turns(struct speckv_pool *pool, size_t keys, size_t batch,
	const struct speckv_key *asked, uint8_t *present, bool counts)
{
	size_t hits = 0;

	for (size_t turn = 0; turn < 2 * keys; turn += TURN_KEYS) {
		double start = now_seconds();

		for (size_t base = turn; base < turn + TURN_KEYS; base += batch)
			hits += (size_t)speckv_lookup(pool, asked + base, batch, present + base);
		if (counts)
			add_turn(&pool_series, now_seconds() - start);
#ifdef HAVE_HASH_MAP
		turn_of_map(asked + turn, present + turn, batch, counts);
#endif
	}
	return hits;
}

int main(int argc, char **argv)
{
	size_t keys = number(argc, argv, "--keys", 1 << 20),
	       rounds = number(argc, argv, "--rounds", 5);
	size_t batch = number(argc, argv, "--batch", 256), hits;
	struct speckv_device *device;
	struct speckv_pool *pool;
	struct speckv_key *asked;
	uint32_t *order;
	uint8_t *present;

	if (!keys || keys % TURN_KEYS || !batch || TURN_KEYS % batch || !rounds)
		give_up("usage: lookups [--keys N x %d] [--rounds N] [--batch N]", TURN_KEYS);
	stay_on_one_core();
	if (speckv_ctx_create(&ctx) ||
		speckv_device_open(ctx, "host:DRAM", SPECKV_OPEN_CREATE, &device))
		give_up("the pool: %s", ctx ? speckv_strerror(ctx) : "SPECKV_RUNTIME_DIR");
	pool = open_pool(device, keys);
	fill(pool, keys);
	order = calloc(2 * keys, sizeof(*order));
	asked = calloc(2 * keys, sizeof(*asked));
	present = calloc(2 * keys, 1);
	if (!order || !asked || !present)
		give_up("no memory");
#ifdef HAVE_HASH_MAP
	fill_map(keys);
#endif
	for (size_t round = 0; round <= rounds; round++) { /* the first one warms up */
		shuffle(order, 2 * keys, round);
		for (size_t i = 0; i < 2 * keys; i++)
			key_of(order[i], &asked[i]); /* from `keys` on: not stored */
		memset(present, 2, 2 * keys);
		hits = turns(pool, keys, batch, asked, present, round);
		for (size_t i = 0; i < 2 * keys; i++)
			if (hits != keys || present[i] != (order[i] < keys))
				give_up("look-up: %zu hits of %zu, key %u wrong", hits, keys,
					order[i]);
	}
	print_series(&pool_series);
#ifdef HAVE_HASH_MAP
	print_series(&map_series);
	hash_map_peer_destroy(map);
#endif
	speckv_pool_close(pool);
	if (speckv_pool_destroy(device, "bench", NULL, NULL))
		give_up("%s", speckv_strerror(ctx));
	speckv_device_close(device);
	if (speckv_device_remove(ctx, "host:DRAM", 0))
		give_up("%s", speckv_strerror(ctx));
	speckv_ctx_destroy(ctx);
	return 0;
}

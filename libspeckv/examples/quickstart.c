// SPDX-License-Identifier: MIT
/*
 * libspeckv in one file: a pool on host memory, puts, look-ups, gets, and errors.
 *
 *     cc quickstart.c $(pkg-config --cflags --libs speckv) -o quickstart && ./quickstart
 *
 * The pool quickstart is created on host:DRAM and removed at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/speckv.h>

enum { BLOCKS = 4 };

/* Functions return 0 (or a count), or a negative errno; the context holds the error text. */
static int must(struct speckv_ctx *ctx, int rc)
{
	if (rc < 0) {
		fprintf(stderr, "quickstart: %s\n", speckv_strerror(ctx));
		exit(1);
	}
	return rc;
}

/*
 * A key covers everything that makes the KV of equal tokens different; the engine's block hash is
 * one part.
 */
static void make_keys(const struct speckv_geometry *geometry, struct speckv_key *keys)
{
	struct speckv_key_spec spec = {
		.model_digest = { 0x5b, 0x11, 0xc4 }, /* the SHA-256 of the weights */
		.geometry = *geometry,
		.rope = "default theta=10000",
		.parallel_size = 1,
	};
	unsigned char engine_hash[32] = { 0 };

	for (int i = 0; i < BLOCKS; i++) {
		engine_hash[0] = (unsigned char)i;
		if (speckv_key_derive(&spec, engine_hash, sizeof(engine_hash), &keys[i]) != 0)
			exit(1);
	}
}

static void use_blocks(struct speckv_ctx *ctx, struct speckv_pool *pool,
	const struct speckv_key *keys)
{
	struct speckv_request requests[BLOCKS] = { 0 };
	uint64_t block_bytes = speckv_pool_block_bytes(pool);
	unsigned char *kv = malloc(BLOCKS * block_bytes);
	uint8_t present[BLOCKS];

	if (!kv)
		exit(1);
	for (int i = 0; i < BLOCKS; i++) {
		memset(kv + i * block_bytes, 'a' + i, block_bytes);
		requests[i].key = keys[i];
		requests[i].buffer = kv + i * block_bytes;
		requests[i].buffer_bytes = block_bytes;
		requests[i].first_position = (uint64_t)i * 64;
		if (i > 0) { /* link to the previous block: prefetch and eviction follow chains */
			requests[i].parent = keys[i - 1];
			requests[i].flags = SPECKV_REQUEST_HAS_PARENT;
		}
	}

	/* The last block is not stored: a miss below. */
	printf("put:    %d of %d blocks stored\n",
		must(ctx, speckv_put(pool, requests, BLOCKS - 1)), BLOCKS - 1);
	must(ctx, speckv_lookup(pool, keys, BLOCKS, present));
	printf("lookup: %d %d %d %d\n", present[0], present[1], present[2], present[3]);
	printf("prefix: %d blocks of the chain are there\n",
		must(ctx, speckv_lookup_prefix(pool, keys, BLOCKS)));

	memset(kv, 0, BLOCKS * block_bytes);
	printf("get:    %d of %d blocks found\n", must(ctx, speckv_get(pool, requests, BLOCKS)),
		BLOCKS);
	for (int i = 0; i < BLOCKS; i++) {
		if (requests[i].status == 0)
			printf("        block %d begins with '%c'\n", i, kv[i * block_bytes]);
		else if (requests[i].status == -ENOENT)
			printf("        block %d: a miss\n", i);
		else
			printf("        block %d: error %d\n", i, requests[i].status);
	}
	free(kv);
}

int main(void)
{
	struct speckv_pool_config config = { .name = "quickstart", .capacity_bytes = 16 << 20 };
	struct speckv_pool_info info;
	struct speckv_key keys[BLOCKS];
	struct speckv_device *device;
	struct speckv_pool *pool;
	struct speckv_ctx *ctx;
	int rc;

	rc = speckv_ctx_create(&ctx);
	if (rc < 0) {
		fprintf(stderr, "quickstart: %s\n", strerror(-rc));
		return 1;
	}
	printf("speckv %s, media in %s\n", speckv_version(), speckv_ctx_runtime_dir(ctx));
	must(ctx, speckv_device_open(ctx, "host:DRAM", SPECKV_OPEN_CREATE, &device));
	must(ctx, speckv_pool_create(device, &config, &info));
	printf("pool %s: %" PRIu64 " bytes, blocks of %" PRIu64 "\n", info.config.name,
		info.config.capacity_bytes, info.block_bytes);

	must(ctx, speckv_pool_open(device, "quickstart", NULL, &pool));
	make_keys(&info.config.geometry, keys);
	use_blocks(ctx, pool, keys);

	/* An error is a number, and one line of text. */
	rc = speckv_param_set(pool, "prefetch_depth", "1000");
	printf("error:  %d: %s\n", rc, speckv_strerror(ctx));

	speckv_pool_close(pool);
	must(ctx, speckv_pool_destroy(device, "quickstart", NULL, NULL));
	speckv_device_close(device);
	speckv_ctx_destroy(ctx);
	return 0;
}

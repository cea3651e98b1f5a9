// SPDX-License-Identifier: MIT
/* Put, get, look up, touch, drop, prefixes and layers, on each kind of medium. */
#include "harness.h"

#define N 100

static struct speckv_request requests[N];
static struct speckv_key keys[N];
static uint8_t *in, *out;

static void prepare(uint64_t bytes)
{
	memset(requests, 0, sizeof(requests));
	for (unsigned int i = 0; i < N; i++) {
		keys[i] = key_of(i);
		fill_block(&keys[i], in + i * bytes, bytes);
		requests[i].key = keys[i];
		requests[i].buffer = in + i * bytes;
		requests[i].buffer_bytes = bytes;
		requests[i].first_position = i * 64;
		if (i) {
			requests[i].parent = keys[i - 1];
			requests[i].flags = SPECKV_REQUEST_HAS_PARENT;
		}
	}
}

static void get_all(struct speckv_pool *pool, uint64_t bytes, unsigned int hits)
{
	memset(out, 0xee, N * bytes);
	for (unsigned int i = 0; i < N; i++) {
		requests[i].buffer = out + i * bytes;
		requests[i].flags = 0;
	}
	EXPECT(hits, speckv_get(pool, requests, N));
	for (unsigned int i = 0; i < N; i++) {
		if (requests[i].status == 0)
			CHECK(memcmp(in + i * bytes, out + i * bytes, bytes) == 0, "block %u", i);
		else
			CHECK(requests[i].status == -ENOENT && all_bytes(out + i * bytes, bytes, 0),
				"a miss leaves zeros");
	}
}

static void layers(struct speckv_pool *pool, uint64_t bytes)
{
	struct speckv_request r = { .key = keys[7],
		.buffer = out,
		.buffer_bytes = bytes / 2,
		.layer_first = 1,
		.layer_count = 1 };

	memset(out, 0xee, bytes);
	EXPECT(1, speckv_get(pool, &r, 1));
	CHECK(memcmp(out, in + 7 * bytes + bytes / 2, bytes / 2) == 0, "layer 1");
	CHECK(all_bytes(out + bytes / 2, bytes / 2, 0xee), "no byte beyond the range is touched");
	r.layer_first = 0;
	EXPECT(1, speckv_get(pool, &r, 1));
	CHECK(memcmp(out, in + 7 * bytes, bytes / 2) == 0, "layer 0");
	/* all from the first on: two layers, for which the buffer is too small */
	r.layer_count = 0;
	EXPECT(0, speckv_get(pool, &r, 1));
	CHECK(r.status == -EINVAL, "%d", r.status);
	r.layer_count = 3;
	r.buffer_bytes = 2 * bytes;
	EXPECT(0, speckv_get(pool, &r, 1));
	CHECK(r.status == -EINVAL, "%d", r.status);
	r.layer_first = 2;
	r.layer_count = 0;
	EXPECT(0, speckv_get(pool, &r, 1));
	CHECK(r.status == -EINVAL, "%d", r.status);
}

static void wrong_arguments(struct speckv_pool *pool, uint64_t bytes)
{
	struct speckv_key fresh = key_of(9999);
	uint8_t present;

	EXPECT(-EINVAL, put_block(pool, &fresh, in, bytes - 1));
	EXPECT(-EINVAL, put_block(pool, &fresh, in, bytes + 1));
	EXPECT(-EINVAL, put_block(pool, &fresh, NULL, bytes));
	EXPECT(-EINVAL, get_block(pool, &keys[0], out, bytes - 1));
	EXPECT(-EINVAL, get_block(pool, &keys[0], NULL, bytes));
	EXPECT(-EINVAL, speckv_put(pool, NULL, 1));
	EXPECT(-EINVAL, speckv_put(NULL, requests, 1));
	EXPECT(-EINVAL, speckv_lookup(pool, keys, 1, NULL));
	EXPECT(-EINVAL, speckv_children(pool, keys, NULL, 1));
	EXPECT(0, speckv_put(pool, NULL, 0));
	EXPECT(0, speckv_lookup(pool, &fresh, 1, &present));
	CHECK(!present, "nothing was stored");
}

static void prefix_tree(struct speckv_pool *pool, uint64_t bytes)
{
	struct speckv_key sons[3] = { key_of(200), key_of(201), key_of(202) }, seen[8];

	for (int i = 0; i < 3; i++) {
		struct speckv_request r = { .key = sons[i],
			.parent = keys[20],
			.flags = SPECKV_REQUEST_HAS_PARENT,
			.buffer = in,
			.buffer_bytes = bytes };

		EXPECT(1, speckv_put(pool, &r, 1));
	}
	/* most recent first; 21 was put under 20 before */
	EXPECT(4, speckv_children(pool, &keys[20], seen, 8));
	CHECK(!memcmp(&seen[0], &sons[2], 32) && !memcmp(&seen[1], &sons[1], 32) &&
			!memcmp(&seen[2], &sons[0], 32) && !memcmp(&seen[3], &keys[21], 32),
		"order");
	EXPECT(2, speckv_children(pool, &keys[20], seen, 2));
	EXPECT(1, speckv_touch(pool, &sons[0], 1));
	EXPECT(1, speckv_children(pool, &keys[20], seen, 1));
	CHECK(!memcmp(&seen[0], &sons[0], 32), "the one used last comes first");
	EXPECT(1, speckv_drop(pool, &sons[1], 1));
	EXPECT(3, speckv_children(pool, &keys[20], seen, 8));
	for (int i = 0; i < 3; i++)
		CHECK(memcmp(&seen[i], &sons[1], 32) != 0, "a dropped child is none");
	EXPECT(0, speckv_children(pool, &(struct speckv_key){ { 1 } }, seen, 8));
	EXPECT(2, speckv_drop(pool, sons, 3));
}

static void one_medium(enum media kind)
{
	char name[300];
	struct speckv_device *dev = open_medium(kind, name);
	struct speckv_pool_config config = small_pool("blocks", 4 * MIB);
	uint8_t present[N];
	struct speckv_pool *pool;
	uint64_t bytes;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "blocks", "tester");
	bytes = speckv_pool_block_bytes(pool);
	CHECK(bytes == SMALL_BYTES && bytes == speckv_geometry_bytes(&small_shape), "%llu",
		(unsigned long long)bytes);
	CHECK(speckv_pool_ctx(pool) == test_ctx && speckv_device_ctx(dev) == test_ctx, "ctx");
	prepare(bytes);
	get_all(pool, bytes, 0);
	prepare(bytes);
	EXPECT(N, speckv_put(pool, requests, N));
	for (unsigned int i = 0; i < N; i++)
		CHECK(!(requests[i].flags & SPECKV_REQUEST_EXISTED) && requests[i].status == 0,
			"new");
	get_all(pool, bytes, N);

	/* a block is what was put first: a second put of its key changes nothing, and says so */
	prepare(bytes);
	memset(out, 0x77, bytes);
	requests[3].buffer = out;
	EXPECT(N, speckv_put(pool, requests, N));
	for (unsigned int i = 0; i < N; i++)
		CHECK(requests[i].flags & SPECKV_REQUEST_EXISTED, "existed");
	prepare(bytes);
	get_all(pool, bytes, N);

	EXPECT(N, speckv_lookup(pool, keys, N, present));
	EXPECT(N, speckv_lookup_prefix(pool, keys, N));
	EXPECT(N, speckv_touch(pool, keys, N));
	layers(pool, bytes);
	wrong_arguments(pool, bytes);
	prefix_tree(pool, bytes);
	EXPECT(1, speckv_drop(pool, &keys[40], 1));
	EXPECT(0, speckv_drop(pool, &keys[40], 1));
	EXPECT(0, speckv_touch(pool, &keys[40], 1));
	EXPECT(40, speckv_lookup_prefix(pool, keys, N));
	EXPECT(0, speckv_lookup_prefix(pool, keys + 40, N - 40));
	EXPECT(N - 1, speckv_lookup(pool, keys, N, present));
	for (unsigned int i = 0; i < N; i++)
		CHECK(present[i] == (i != 40), "present[%u]", i);
	get_all(pool, bytes, N - 1);
	speckv_pool_close(pool);
	expect_sound(dev, "blocks", N - 1);

	/* and all of it is there for whoever comes next */
	speckv_device_close(dev);
	dev = open_device(name, 0);
	pool = attach_pool(dev, "blocks", "next");
	get_all(pool, bytes, N - 1);
	EXPECT(N - 1, speckv_drop(pool, keys, N));
	speckv_pool_close(pool);
	expect_sound(dev, "blocks", 0);
	speckv_device_close(dev);
	remove_device(name);
}

/*
 * int8-delta-rle cannot hold what is not finite: such a block is kept as it is, others come back as
 * their frame decodes.
 */
static void packed(void)
{
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	struct speckv_pool_config config = small_pool("packed", 4 * MIB);
	struct speckv_frame_identity identity = { .generation = 1 };
	struct speckv_key plain = key_of(1), odd = key_of(2);
	uint64_t most = speckv_frame_max_bytes(&small_shape, SPECKV_CODEC_RAW), frame_bytes,
		 exact_bytes;
	uint8_t *frame = line_alloc(most), *want = line_alloc(SMALL_BYTES);
	struct speckv_frame parsed;
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	uint16_t nan = 0x7fc0;

	config.codec = SPECKV_CODEC_INT8_DELTA_RLE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "packed", "tester");
	fill_numbers(&plain, in, SMALL_BYTES);
	EXPECT(0, put_block(pool, &plain, in, SMALL_BYTES));
	EXPECT(0,
		speckv_frame_encode(&small_shape, config.codec, &identity, in, SMALL_BYTES, frame,
			most, &frame_bytes));
	EXPECT(0, speckv_frame_parse(frame, frame_bytes, &parsed));
	EXPECT(0,
		speckv_frame_decode(&parsed, frame, frame_bytes, 0, small_shape.layers, want,
			SMALL_BYTES));
	EXPECT(0, get_block(pool, &plain, out, SMALL_BYTES));
	CHECK(memcmp(out, want, SMALL_BYTES) == 0, "what its frame decodes to");
	memcpy(in + 4242, &nan, 2);
	EXPECT(0, put_block(pool, &odd, in, SMALL_BYTES));
	EXPECT(0, get_block(pool, &odd, out, SMALL_BYTES));
	CHECK(memcmp(out, in, SMALL_BYTES) == 0, "kept bit for bit");
	EXPECT(0,
		speckv_frame_encode(&small_shape, SPECKV_CODEC_LOSSLESS, &identity, in, SMALL_BYTES,
			frame, most, &exact_bytes));
	EXPECT(0, speckv_pool_info(dev, "packed", &info));
	CHECK(info.blocks == 2 && info.raw_bytes == 2 * SMALL_BYTES, "blocks");
	CHECK(info.stored_bytes == frame_bytes + exact_bytes, "stored %llu",
		(unsigned long long)info.stored_bytes);
	CHECK(info.puts == 2 && info.puts_bit_exact == 1, "%llu of %llu",
		(unsigned long long)info.puts_bit_exact, (unsigned long long)info.puts);
	speckv_pool_close(pool);
	expect_sound(dev, "packed", 2);
	free(frame);
	free(want);
	speckv_device_close(dev);
	remove_device(MEMORY);
}

/*
 * The fixed-rate modes store a block bit-exact of which a part differs so little from a constant
 * that nothing of the difference would be left, and count it.
 */
static void guarded(void)
{
	static const enum speckv_codec modes[] = { SPECKV_CODEC_Q3X, SPECKV_CODEC_Q4X,
		SPECKV_CODEC_Q5X };
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	struct speckv_pool_config config = small_pool("guarded", 4 * MIB);
	struct speckv_key plain = key_of(1), odd = key_of(2);
	struct speckv_stats stats;
	struct speckv_pool *pool;

	for (unsigned int m = 0; m < 3; m++) {
		config.codec = modes[m];
		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		pool = attach_pool(dev, "guarded", "tester");
		for (size_t i = 0, noise = 1; i < SMALL_BYTES / 2; i++) {
			/* signed numbers from 0.5 to 2 */
			uint16_t word;

			noise = noise * 1664525 + 1013904223;
			word = (uint16_t)((noise >> 8 & 0x80ff) + 0x3f00);
			memcpy(in + 2 * i, &word, 2);
		}
		EXPECT(0, put_block(pool, &plain, in, SMALL_BYTES));
		EXPECT(0, get_block(pool, &plain, out, SMALL_BYTES));
		CHECK(memcmp(out, in, SMALL_BYTES) != 0, "coded");
		for (size_t i = 0; i < 64 * 64; i++) { /* the last group: V of the last head */
			uint16_t word = (uint16_t)(0x3f80 + i % 64);

			memcpy(in + SMALL_BYTES - 2 * 64 * 64 + 2 * i, &word, 2);
		}
		EXPECT(0, put_block(pool, &odd, in, SMALL_BYTES));
		EXPECT(0, get_block(pool, &odd, out, SMALL_BYTES));
		CHECK(memcmp(out, in, SMALL_BYTES) == 0, "kept bit for bit");
		EXPECT(0, speckv_pool_stats(dev, "guarded", &stats));
		CHECK(stats.counters[SPECKV_COUNT_PUTS] == 2 &&
				stats.counters[SPECKV_COUNT_PUT_BIT_EXACT] == 1,
			"%llu of %llu",
			(unsigned long long)stats.counters[SPECKV_COUNT_PUT_BIT_EXACT],
			(unsigned long long)stats.counters[SPECKV_COUNT_PUTS]);
		speckv_pool_close(pool);
		expect_sound(dev, "guarded", 2);
		EXPECT(0, speckv_pool_destroy(dev, "guarded", NULL, NULL));
	}
	speckv_device_close(dev);
	remove_device(MEMORY);
}

/* lossless holds every block, bit for bit, in less where there is less in it. */
static void exact(void)
{
	struct speckv_device *dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	struct speckv_pool_config config = small_pool("exact", 4 * MIB);
	struct speckv_key plain = key_of(1), odd = key_of(2);
	struct speckv_pool_info info;
	struct speckv_pool *pool;

	config.codec = SPECKV_CODEC_LOSSLESS;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "exact", "tester");
	fill_numbers(&plain, in, SMALL_BYTES);
	for (size_t i = 0; i < SMALL_BYTES; i += 512)
		/* a NaN, -0, a subnormal, -infinity */
		memcpy(in + i, "\xc1\x7f\x00\x80\x01\x80\x80\xff", 8);
	EXPECT(0, put_block(pool, &plain, in, SMALL_BYTES));
	EXPECT(0, get_block(pool, &plain, out, SMALL_BYTES));
	CHECK(memcmp(out, in, SMALL_BYTES) == 0, "every bit");
	EXPECT(0, speckv_pool_info(dev, "exact", &info));
	CHECK(info.stored_bytes < SMALL_BYTES, "stored %llu",
		(unsigned long long)info.stored_bytes);
	for (uint32_t i = 0, noise = 1; i < SMALL_BYTES; i++)
		in[i] = (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
	EXPECT(0, put_block(pool, &odd, in, SMALL_BYTES));
	EXPECT(0, get_block(pool, &odd, out, SMALL_BYTES));
	CHECK(memcmp(out, in, SMALL_BYTES) == 0, "noise too");
	speckv_pool_close(pool);
	expect_sound(dev, "exact", 2);
	speckv_device_close(dev);
	remove_device(MEMORY);
}

int main(void)
{
	test_begin(60);
	in = line_alloc(N * SMALL_BYTES);
	out = line_alloc(N * SMALL_BYTES);
	for (int kind = 0; kind < test_media(); kind++)
		one_medium((enum media)kind);
	packed();
	guarded();
	exact();
	free(in);
	free(out);
	test_end();
	return 0;
}

/* SPDX-License-Identifier: MIT */
/* The one transfer behaviour. */
#include "behaviours.h"

#define LAYERS 4
#define LAYER_BYTES (2 * 64 * 64 * 2)
#define BLOCK_BYTES (LAYERS * LAYER_BYTES)

static const struct speckv_geometry shape = {
	.layers = LAYERS, .kv_heads = 1, .head_dim = 64, .tokens = 64, .dtype = SPECKV_DTYPE_BF16
};

/* bf16 numbers between -2 and 2. */
static void fill(uint16_t *block, unsigned int seed)
{
	for (unsigned int i = 0; i < BLOCK_BYTES / 2; i++)
		block[i] = (uint16_t)(((i * 40503u + seed) >> 3 & 0x8000) |
			(0x3f00 + ((i + seed) * 2654435761u >> 20 & 0xff)));
}

/* What the compressed block must come back as: the codec's own word on it. */
static void through_codec(const uint16_t *raw, uint16_t *back)
{
	struct speckv_frame_identity identity = { .generation = 1 };
	uint64_t most = speckv_frame_max_bytes(&shape, SPECKV_CODEC_INT8_DELTA_RLE), bytes;
	void *frame = aligned_alloc(64, (most + 63) / 64 * 64);
	struct speckv_frame parsed;

	HOLDS(frame);
	HOLDS(speckv_frame_encode(&shape, SPECKV_CODEC_INT8_DELTA_RLE, &identity, raw, BLOCK_BYTES,
		      frame, most, &bytes) == 0);
	HOLDS(speckv_frame_parse(frame, bytes, &parsed) == 0);
	HOLDS(speckv_frame_decode(&parsed, frame, bytes, 0, LAYERS, back, BLOCK_BYTES) == 0);
	free(frame);
}

/* Reads of single layers, a write and a compressed write, all under way at once. */
static void a_batch_of_mixed_transfers_completes_with_the_right_data(void)
{
	struct speckv_pool_config config = {
		.name = "mixed", .capacity_bytes = 8 << 20, .geometry = shape
	};
	uint16_t *a = aligned_alloc(64, BLOCK_BYTES), *b = aligned_alloc(64, BLOCK_BYTES),
		 *c = aligned_alloc(64, BLOCK_BYTES);
	uint16_t *got = aligned_alloc(64, BLOCK_BYTES), *want = aligned_alloc(64, BLOCK_BYTES);
	struct speckv_request put = { .buffer = a, .buffer_bytes = BLOCK_BYTES }, write = put,
			      packed = put, reads[LAYERS];
	struct speckv_pool *plain, *packing;
	struct speckv_pool_info info;
	struct speckv_op *ops[3];

	HOLDS(a && b && c && got && want);
	fill(a, 1);
	fill(b, 2);
	fill(c, 3);
	HOLDS(speckv_pool_create(fixture.device, &config, &info) == 0);
	HOLDS(speckv_pool_open(fixture.device, "mixed", NULL, &plain) == 0);
	HOLDS(speckv_pool_open(fixture.device, "mixed", NULL, &packing) == 0);
	HOLDS(speckv_param_set(packing, "codec", "int8-delta-rle") == 0);
	memset(&put.key, 'a', sizeof(put.key));
	HOLDS(speckv_put(plain, &put, 1) == 1);
	memset(reads, 0, sizeof(reads));
	for (unsigned int i = 0; i < LAYERS; i++) {
		reads[i].key = put.key;
		reads[i].buffer = (uint8_t *)got + i * LAYER_BYTES;
		reads[i].buffer_bytes = LAYER_BYTES;
		reads[i].layer_first = (uint16_t)i;
		reads[i].layer_count = 1;
	}
	memset(&write.key, 'b', sizeof(write.key));
	write.buffer = b;
	memset(&packed.key, 'c', sizeof(packed.key));
	packed.buffer = c;
	HOLDS(speckv_submit(plain, SPECKV_OP_GET, reads, LAYERS, &ops[0]) == 0);
	HOLDS(speckv_submit(plain, SPECKV_OP_PUT, &write, 1, &ops[1]) == 0);
	HOLDS(speckv_submit(packing, SPECKV_OP_PUT, &packed, 1, &ops[2]) == 0);
	HOLDS(speckv_op_wait(ops[0], -1) == LAYERS && speckv_op_wait(ops[1], -1) == 1 &&
		speckv_op_wait(ops[2], -1) == 1);
	for (int i = 0; i < 3; i++)
		speckv_op_release(ops[i]);
	HOLDS(memcmp(got, a, BLOCK_BYTES) == 0);
	write.buffer = packed.buffer = got;
	HOLDS(speckv_get(plain, &write, 1) == 1);
	HOLDS(memcmp(got, b, BLOCK_BYTES) == 0);
	HOLDS(speckv_get(plain, &packed, 1) == 1);
	through_codec(c, want);
	HOLDS(memcmp(got, want, BLOCK_BYTES) == 0);
	speckv_pool_close(packing);
	speckv_pool_close(plain);
	HOLDS(speckv_pool_destroy(fixture.device, "mixed", NULL, NULL) == 0);
	free(a);
	free(b);
	free(c);
	free(got);
	free(want);
}

int main(int argc, char **argv)
{
	static const struct behaviour behaviours[] = {
		{ "a_batch_of_mixed_transfers_completes_with_the_right_data",
			a_batch_of_mixed_transfers_completes_with_the_right_data },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

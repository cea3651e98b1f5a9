// SPDX-License-Identifier: MIT
/* A card that is ready to store, and blocks of it. */
#include "rig.h"

void bench_connect(struct bench *b)
{
	struct rig *rig = b->rig;

	b->admin = rig_admin(rig, rig_function(rig, true, 2));
	EQUAL(rig_function(rig, false, 4), 1);
	b->client = rig_queue(rig, 1, 0, 4, 6);
	b->raw = rig_alloc(rig, 1, 1u << 16);
	b->identity = rig_alloc(rig, 1, 4096);
	b->out = rig_alloc(rig, 1, 1u << 17);
	b->frames = rig_alloc(rig, 1, 1u << 17);
	client_buffer(&b->client, BUFFER_RAW, b->raw, 1u << 16, SPECKV_BUFFER_CARD_READS);
	client_buffer(&b->client, BUFFER_IDENTITY, b->identity, 4096, SPECKV_BUFFER_CARD_READS);
	client_buffer(&b->client, BUFFER_OUT, b->out, 1u << 17, SPECKV_BUFFER_CARD_WRITES);
	client_buffer(&b->client, BUFFER_BOTH, b->frames, 1u << 17,
		SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
}

void bench_begin(struct bench *b, uint32_t codec)
{
	struct speckv_pool_description d = rig_pool("first", 1u << 20, codec);

	memset(b, 0, sizeof(*b));
	b->rig = rig_new();
	rig_power_on(b->rig);
	bench_connect(b);
	d.max_bytes = 2u << 20;
	EQUAL(rig_create(&b->admin, &d, &b->pool), 0);
	EQUAL(b->pool, 1);
	memcpy(b->uuid, d.uuid, 16);
	b->block_bytes = 2 * 2 * 64 * 64 * 2;
	EQUAL(rig_grant(&b->admin, 1, SPECKV_ALL_QUEUES, 1, b->uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	bench_fill(b, 7);
}

void bench_end(struct bench *b)
{
	rig_free(b->rig);
}

void bench_fill(struct bench *b, uint64_t seed)
{
	uint16_t *raw = rig_at(b->rig, 1, b->raw);

	for (uint64_t i = 0; i < b->block_bytes / 2; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		raw[i] = (uint16_t)((seed >> 63 << 15) | (0x3c00 + (seed >> 40 & 0x3ff)));
	}
}

union card_entry bench_write(struct bench *b, uint64_t address, uint64_t generation, uint8_t key)
{
	struct speckv_block_identity identity = { .generation = generation };
	union card_entry e = {
		.write = { .opcode = SPECKV_IO_WRITE,
			.pool = (uint16_t)b->pool,
			.buffer = BUFFER_RAW,
			.address = address,
			.bytes = (uint32_t)b->block_bytes,
			.capacity = 10 * BENCH_PAGE,
			.identity_buffer = BUFFER_IDENTITY,
			.codec = b->rig->card->pools[b->pool].record.description.codec & 0xff }
	};

	memset(identity.key, key, sizeof(identity.key));
	memcpy(rig_at(b->rig, 1, b->identity), &identity, sizeof(identity));
	return e;
}

union card_entry bench_read(struct bench *b, uint64_t address, uint64_t generation, uint8_t key)
{
	union card_entry e = { .read = { .opcode = SPECKV_IO_READ,
				       .pool = (uint16_t)b->pool,
				       .buffer = BUFFER_OUT,
				       .address = address,
				       .capacity = 1u << 17,
				       .generation = generation } };

	memset(e.read.key_prefix, key, sizeof(e.read.key_prefix));
	return e;
}

union card_entry bench_range(uint8_t opcode, uint64_t address, uint64_t bytes, uint64_t generation,
	uint8_t flags)
{
	union card_entry e = { .range = { .opcode = opcode,
				       .pool = 1,
				       .address = address,
				       .bytes = bytes,
				       .generation = generation,
				       .flags = flags } };

	return e;
}

uint16_t bench_put(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result)
{
	union card_entry e = bench_write(b, address, generation, key);

	return client_run(&b->client, &e, result);
}

uint16_t bench_get(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result)
{
	union card_entry e = bench_read(b, address, generation, key);

	return client_run(&b->client, &e, result);
}

// SPDX-License-Identifier: MIT
/*
 * Fuzzing the card through what a peer can reach: registers, rings, buffers, time.
 * LLVMFuzzerTestOneInput is libFuzzer's entry: build with -fsanitize=fuzzer,address. With
 * -DSTANDALONE a main of its own runs a given number of random inputs.
 *
 * The first byte: bit 0, the peer has the admin queue too. Without it nothing that the peer does
 * may touch another client's pool; with it the card's own accounts must hold.
 */
#include "models.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *at, *end;
};

static uint64_t take(struct input *in, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes && in->at < in->end; i++)
		value |= (uint64_t)*in->at++ << 8 * i;
	return value;
}

/* Mostly values that mean something. */
static uint64_t interesting(struct input *in)
{
	static const uint64_t values[] = { 0, 1, 2, 63, 64, 4096, 8192, 40960, 65535, 65536,
		1u << 20, (1u << 20) - 4096, UINT32_MAX, UINT64_MAX };
	uint8_t pick = (uint8_t)take(in, 1);

	return pick < 200 ? values[pick % (sizeof(values) / sizeof(values[0]))] : take(in, 8);
}

static union card_entry io_entry(struct bench *b, struct input *in)
{
	uint8_t kind = (uint8_t)take(in, 1), slot = kind >> 4;
	uint64_t address = (uint64_t)(slot % 8) * 10 * BENCH_PAGE, generation = 1 + slot % 3;
	union card_entry e;

	switch (kind % 12) {
	case SPECKV_IO_WRITE:
		e = bench_write(b, address, generation, 1);
		break;
	case SPECKV_IO_READ:
	case SPECKV_IO_PREFETCH:
		e = bench_read(b, address, generation, 1);
		break;
	case SPECKV_IO_COPY:
		e = (union card_entry){ .copy = { .pool = 1,
						.destination_pool = 1,
						.address = address,
						.generation = generation,
						.capacity = 40960,
						.destination_address =
							(address + 40960) % (8 * 40960),
						.destination_generation = 2 } };
		memset(e.copy.key_prefix, 1, 16);
		break;
	case SPECKV_IO_TOUCH:
		e = (union card_entry){ .touch = { .pool = 1,
						.address = address,
						.generation = generation,
						.session = slot,
						.feature_count = slot % 4 } };
		memset(e.touch.features, slot & 8 ? 100 : -100, sizeof(e.touch.features));
		break;
	case SPECKV_IO_PREDICT:
		e = (union card_entry){ .predict = { .pool = 1,
						.buffer = BUFFER_BOTH,
						.session = slot,
						.candidate_count = 5,
						.feature_count = slot & 1 ? 2 : 0,
						.depth = 1 + slot % 4,
						.flags = SPECKV_PREDICT_STAGE,
						.budget_bytes = 1u << 17 } };
		break;
	case SPECKV_IO_NOP:
	case SPECKV_IO_FLUSH:
		e = (union card_entry){ .bare = { .opcode = 0 } };
		break;
	default:
		e = (union card_entry){ .range = { .pool = 1,
						.address = address,
						.bytes = 40960,
						.generation = generation,
						.flags = (uint8_t)(take(in, 1) & 0x0c) } };
		break;
	}
	e.sqe.opcode = kind % 12;
	return e;
}

/* A model file, mostly as it should be: with its digest, in whole or in parts. */
static union card_entry model_entry(struct bench *b, struct input *in, uint64_t data)
{
	const struct speckv_card *card = b->rig->card;
	struct model_file model = model_of_rule();
	union card_entry e = { .model = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
				       .total_bytes = (uint32_t)model.length,
				       .data_address = data } };
	uint8_t how = (uint8_t)take(in, 1);

	for (unsigned int n = how & 3; n; n--)
		model.bytes[take(in, 3) % (how & 4 ? 8 + model.table : model.length)] ^=
			(uint8_t)take(in, 1);
	CHECK(card_sha256(model.bytes, model.length, e.model.digest), "digest");
	if (how & 8) {
		e.model.offset = card->model_received < model.length ? card->model_received : 0;
		e.model.data_address += e.model.offset;
	}
	e.model.data_bytes = (uint32_t)model.length - e.model.offset;
	if (how & 16 && e.model.data_bytes > 65536)
		e.model.data_bytes = 65536;
	memcpy(rig_at(b->rig, 0, data), model.bytes, model.length);
	free(model.bytes);
	if (how >= 240) {
		e = (union card_entry){ .sqe = { .opcode = SPECKV_ADMIN_LOAD_MODEL } };
		e.model.flags = SPECKV_MODEL_UNLOAD;
	}
	return e;
}

static union card_entry admin_entry(struct bench *b, struct input *in, uint64_t data)
{
	union card_entry e = { .sqe = { .opcode = (uint8_t)(take(in, 1) % 16) } };
	struct speckv_pool_description d = rig_pool(take(in, 1) & 1 ? "x" : "y", 1u << 18, 0);

	switch (e.sqe.opcode) {
	case SPECKV_ADMIN_IDENTIFY:
	case SPECKV_ADMIN_CREATE_POOL:
		e.data.data_address = data;
		e.data.data_bytes = e.sqe.opcode == SPECKV_ADMIN_IDENTIFY
			? sizeof(struct speckv_identify)
			: sizeof(d);
		memcpy(rig_at(b->rig, 0, data), &d, sizeof(d));
		break;
	case SPECKV_ADMIN_GET_LOG:
		e.log.data_address = data;
		e.log.data_bytes = (uint32_t)take(in, 2);
		e.log.log = (uint16_t)(take(in, 1) % 10);
		break;
	case SPECKV_ADMIN_GRANT:
		e.grant.pool = e.grant.function = 1;
		e.grant.queue = SPECKV_ALL_QUEUES;
		e.grant.rights = (uint32_t)take(in, 1) % 4;
		memcpy(e.grant.uuid, b->uuid, 16);
		break;
	case SPECKV_ADMIN_RESIZE_POOL:
	case SPECKV_ADMIN_DELETE_POOL:
	case SPECKV_ADMIN_SANITIZE:
		e.pool.pool = (uint16_t)(1 + take(in, 1) % 3);
		if (e.sqe.opcode == SPECKV_ADMIN_RESIZE_POOL)
			e.pool.capacity_bytes = (1 + take(in, 1) % 32) << 16;
		if (e.sqe.opcode == SPECKV_ADMIN_SANITIZE)
			e.pool.action = (uint32_t)(1 + take(in, 1) % 3);
		memcpy(e.pool.uuid, b->rig->card->pools[e.pool.pool].record.description.uuid, 16);
		break;
	case SPECKV_ADMIN_LOAD_MODEL:
		return model_entry(b, in, data);
	case SPECKV_ADMIN_FW_DOWNLOAD:
		e.firmware.data_address = data;
		e.firmware.data_bytes = (uint32_t)take(in, 2);
		e.firmware.total_bytes = (uint32_t)take(in, 3);
		e.firmware.slot = (uint16_t)(take(in, 1) % 4);
		e.firmware.data_crc32c =
			speckv_crc32c(0, rig_at(b->rig, 0, data), e.firmware.data_bytes);
		break;
	default:
		e.value.feature = (uint16_t)(take(in, 1) % 24);
		e.value.value = take(in, 1);
		break;
	}
	return e;
}

/* Change fields of an entry at random. */
static void mutate(union card_entry *e, struct input *in)
{
	for (uint8_t n = (uint8_t)take(in, 1) % 4; n; n--) {
		unsigned int at = (unsigned int)take(in, 1) % 64, bytes = 1u << take(in, 1) % 4;
		uint64_t value = interesting(in);

		if (at + bytes <= 64)
			memcpy(e->bytes + at, &value, bytes);
	}
}

static void poke(struct bench *b, struct input *in, unsigned int function)
{
	static const uint32_t places[] = { REG(CONTROL), REG(KICK), REG(INT_STATUS),
		REG(INT_ENABLE), REG(INT_TEST), REG(ADMIN_SQ_TAIL), REG(ADMIN_CQ_HEAD),
		REG(COUNTER_CONTROL), PAIR(0, BUFFER_INVALIDATE), PAIR(0, SIZE), PAIR(0, CONTROL),
		PAIR(1, CONTROL), PAIR(1, SIZE), BELL(0, SQ_TAIL), BELL(0, CQ_HEAD),
		BELL(1, SQ_TAIL), BELL(3, CQ_HEAD) };
	uint8_t pick = (uint8_t)take(in, 1);
	uint32_t at = pick < 220 ? places[pick % (sizeof(places) / sizeof(places[0]))]
				 : (uint32_t)take(in, 3);

	rig_write(b->rig, function, at, (uint32_t)interesting(in));
	rig_read(b->rig, function, (uint32_t)take(in, 3));
}

static void accounts_hold(struct speckv_card *card)
{
	uint64_t free_pages = 0, held[CARD_AGENTS] = { 0 };
	struct speckv_pace_figures pace;

	for (uint64_t i = 0; i < card->layout.pages; i++)
		free_pages += !(card->page_map[i] & (PAGE_OWNER | PAGE_POISON));
	EQUAL(card->free_pages, free_pages);
	EQUAL(card->predictor != NULL, memory_superblock(card)->model_bytes != 0);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct card_pool *pool = &card->pools[n];
		uint64_t used = 0, stored = 0;

		if (!pool->present)
			continue;
		CHECK(memory_pool_check(card, n), "pool %u", n);
		for (uint64_t i = 0; i < pool->pages; i++) {
			const struct card_block *block = &pool->blocks[i];

			used += block->state != BLOCK_FREE;
			if (block->state == BLOCK_FREE || block->state == BLOCK_REST)
				continue;
			if (block->state == BLOCK_SEALED || block->state == BLOCK_DYING)
				stored += block->bytes;
			for (unsigned int a = 0; a < CARD_AGENTS; a++)
				held[a] += block->holders >> a & 1;
		}
		speckv_pace_figures(&pool->pace, &pace);
		CHECK(pace.depth >= 1 && pace.depth <= 16 && pace.used <= pace.settled &&
				pace.settled <= 16 && pace.won <= pace.decided &&
				pace.decided <= 64 && pace.guarded <= 1,
			"figures of pool %u", n);
		EQUAL(pool->used_pages, used);
		EQUAL(pool->stored_bytes, stored);
	}
	for (unsigned int a = 0; a < CARD_AGENTS; a++) {
		EQUAL(card->agents[a].used, held[a] != 0);
		if (held[a])
			EQUAL(card->functions[card->agents[a].function]
					->pair[card->agents[a].queue]
					.held,
				held[a]);
	}
}

/* Another user: function 2 with pool 2, and a block in it. Returns that block's contents. */
static uint8_t *somebody_else(struct bench *b, struct bench *victim)
{
	struct speckv_pool_description d = rig_pool("victim", 1u << 18, SPECKV_CODEC_RAW);
	union card_entry e;
	uint8_t *copy;
	uint64_t at;

	*victim = *b;
	EQUAL(rig_function(b->rig, false, 1), 2);
	EQUAL(rig_create(&b->admin, &d, &victim->pool), 0);
	EQUAL(rig_grant(&b->admin, 2, 0, (unsigned int)victim->pool, d.uuid, 3), 0);
	victim->client = rig_queue(b->rig, 2, 0, 4, 6);
	copy = rig_at(b->rig, 2, rig_alloc(b->rig, 2, 1u << 16));
	memcpy(copy, rig_at(b->rig, 1, b->raw), b->block_bytes);
	client_buffer(&victim->client, BUFFER_RAW,
		HOST_BASE + 2 * HOST_STEP + (uint64_t)(copy - b->rig->host[2]), 1u << 16,
		SPECKV_BUFFER_CARD_READS);
	client_buffer(&victim->client, BUFFER_IDENTITY, rig_alloc(b->rig, 2, 4096), 4096,
		SPECKV_BUFFER_CARD_READS);
	client_buffer(&victim->client, BUFFER_OUT, rig_alloc(b->rig, 2, 1u << 17), 1u << 17,
		SPECKV_BUFFER_CARD_WRITES);
	e = bench_write(b, 0, 1, 1);
	at = b->rig->host_used[2] - (1u << 17) - 4096;
	memcpy(b->rig->host[2] + at, rig_at(b->rig, 1, b->identity), 64);
	e.write.pool = (uint16_t)victim->pool;
	e.write.codec = SPECKV_CODEC_RAW;
	EQUAL(client_run(&victim->client, &e, NULL), 0);
	return copy;
}

/* The next thing that the peer does. */
static void act(struct bench *b, struct input *in, bool privileged, uint64_t scratch)
{
	uint8_t what = (uint8_t)take(in, 1);
	union card_entry e;

	switch (what % 8) {
	case 0:
		poke(b, in, privileged ? (unsigned int)take(in, 1) % 2 : 1);
		break;
	case 1:
		b->rig->now += take(in, 4);
		break;
	case 2:
		if (privileged) {
			e = admin_entry(b, in, scratch);
			mutate(&e, in);
			client_submit(&b->admin, &e);
		}
		break;
	case 3:
		*(uint8_t *)(b->rig->host[1] + take(in, 3) % HOST_BYTES) = (uint8_t)take(in, 1);
		break;
	default:
		e = io_entry(b, in);
		mutate(&e, in);
		client_submit(&b->client, &e);
		break;
	}
	if (what & 0x40) {
		struct speckv_cqe cqe;

		speckv_card_run(b->rig->card, 20);
		while (client_poll(&b->client, &cqe))
			;
		while (privileged && client_poll(&b->admin, &cqe))
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct bench b, victim;
	bool privileged = take(&in, 1) & 1;
	uint64_t scratch;
	uint8_t *copy;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	b.rig->direct = size & 1;
	copy = somebody_else(&b, &victim);
	scratch = rig_alloc(b.rig, 0, 1u << 19);
	if (size & 2) {
		struct model_file model = model_of_rule();

		EQUAL(model_load(&b.admin, &model), 0);
		free(model.bytes);
	}
	b.rig->dma.outside = 0;
	while (in.at < in.end)
		act(&b, &in, privileged, scratch);
	speckv_card_run(b.rig->card, 100);
	accounts_hold(b.rig->card);
	if (!privileged) {
		union card_entry e = bench_read(&b, 0, 1, 1);
		uint8_t *out = b.rig->host[2] + b.rig->host_used[2] - (1u << 17);

		e.read.pool = (uint16_t)victim.pool;
		EQUAL(client_run(&victim.client, &e, NULL), 0);
		CHECK(!memcmp(out, copy, b.block_bytes), "another client's block is what it was");
		EQUAL(rig_read(b.rig, 0, REG(STATUS)) & 3, 1);
	}
	/* And a restart finds tables that hold. */
	rig_restart(b.rig);
	accounts_hold(b.rig->card);
	bench_end(&b);
	return 0;
}

#ifdef STANDALONE
int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 200;
	uint64_t state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	for (unsigned long i = 0; i < count; i++) {
		uint8_t data[2048];
		size_t size;

		state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
		size = 1 + (state >> 33) % sizeof(data);
		for (size_t k = 0; k < size; k++) {
			state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
			data[k] = (uint8_t)(state >> 40);
		}
		LLVMFuzzerTestOneInput(data, size);
	}
	return 0;
}
#endif

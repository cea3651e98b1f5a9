// SPDX-License-Identifier: MIT
/* Admin commands: good ones, bad ones, logs. */
#include "base/histogram.h"
#include "rig.h"

#define WRONG(member, value, expected) CLIENT_WRONG(&b.admin, member, value, expected)

static void identify_says_what_the_registers_say(void)
{
	struct bench b;
	struct speckv_identify *id;
	union card_entry good = { .data = { .opcode = SPECKV_ADMIN_IDENTIFY,
					  .data_bytes = sizeof(*id) } };

	bench_begin(&b, SPECKV_CODEC_RAW);
	good.data.data_address = rig_alloc(b.rig, 0, sizeof(*id));
	id = rig_at(b.rig, 0, good.data.data_address);
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	EQUAL(id->rtl_revision, rig_read(b.rig, 0, REG(RTL_REVISION)));
	EQUAL(id->caps, rig_read(b.rig, 0, REG(CAPS)));
	EQUAL(id->codec_modes, rig_read(b.rig, 0, REG(CODEC_MODES)));
	EQUAL(id->memory_bytes,
		rig_read(b.rig, 0, REG(MEMORY_BYTES.LO)) |
			(uint64_t)rig_read(b.rig, 0, REG(MEMORY_BYTES.HI)) << 32);
	CHECK(!memcmp(id->uuid, b.rig->config.uuid, 16) && !strcmp(id->part, b.rig->config.part),
		"identity");
	EQUAL(id->pools, 1);
	CHECK(id->memory_free_bytes <= id->memory_bytes - (1u << 20), "a pool takes memory");
	WRONG(data.data_bytes, 64, SPECKV_STATUS_INVALID);
	WRONG(data.data_address, good.data.data_address + 1, SPECKV_STATUS_INVALID);
	WRONG(data.data_address, 64, SPECKV_STATUS_DMA_ERROR);
	WRONG(data.reserved[43], 1, SPECKV_STATUS_INVALID);
	WRONG(data.buffer, 1, SPECKV_STATUS_INVALID);
	WRONG(data.flags, 0x10, SPECKV_STATUS_INVALID);
	WRONG(sqe.opcode, 0x00, SPECKV_STATUS_INVALID_OPCODE);
	WRONG(sqe.opcode, 0xff, SPECKV_STATUS_INVALID_OPCODE);
	bench_end(&b);
}

static void pools_are_described_exactly_or_refused(void)
{
	struct bench b;
	struct speckv_pool_description good, d;
	struct speckv_log_header header;
	struct speckv_pool_description all[4];
	uint64_t number;

	bench_begin(&b, SPECKV_CODEC_RAW);
	good = rig_pool("second", 1u << 19, SPECKV_CODEC_INT8_DELTA_RLE);
#define REFUSED(change, expected)                                   \
	do {                                                        \
		d = good;                                           \
		change;                                             \
		EQUAL(rig_create(&b.admin, &d, &number), expected); \
		b.rig->host_used[0] -= 4096;                        \
	} while (0)
	REFUSED(d.name[0] = 0, SPECKV_STATUS_INVALID);
	REFUSED(d.name[0] = '.', SPECKV_STATUS_INVALID);
	REFUSED(d.name[1] = '/', SPECKV_STATUS_INVALID);
	REFUSED(d.name[60] = 'x', SPECKV_STATUS_INVALID);
	REFUSED(memset(d.name, 'a', 64), SPECKV_STATUS_INVALID);
	REFUSED(memset(d.uuid, 0, 16), SPECKV_STATUS_INVALID);
	REFUSED(d.capacity_bytes = 0, SPECKV_STATUS_INVALID);
	REFUSED(d.capacity_bytes = 65536 + 4096, SPECKV_STATUS_INVALID);
	REFUSED(d.capacity_bytes = UINT64_C(1) << 40, SPECKV_STATUS_NO_MEMORY);
	REFUSED(d.max_bytes = 65536, SPECKV_STATUS_INVALID);
	REFUSED(d.max_bytes = UINT64_C(1) << 60, SPECKV_STATUS_NO_MEMORY);
	REFUSED(d.shape.layers = 0, SPECKV_STATUS_INVALID);
	REFUSED(d.shape.tokens = 63, SPECKV_STATUS_INVALID);
	REFUSED(d.shape.layers = 32767, SPECKV_STATUS_INVALID);
	REFUSED(d.shape.reserved[0] = 1, SPECKV_STATUS_INVALID);
	REFUSED(d.page_bytes = 128, SPECKV_STATUS_INVALID);
	REFUSED(d.page_bytes = 5000, SPECKV_STATUS_INVALID);
	REFUSED(d.page_bytes = 131072, SPECKV_STATUS_INVALID);
	REFUSED(d.codec = 77, SPECKV_STATUS_INVALID);
	REFUSED(d.eviction = 2, SPECKV_STATUS_INVALID);
	REFUSED(d.mode = 01000, SPECKV_STATUS_INVALID);
	REFUSED(d.pool_flags = 2, SPECKV_STATUS_INVALID);
	REFUSED(d.generation = 1, SPECKV_STATUS_INVALID);
	REFUSED(d.reserved[39] = 1, SPECKV_STATUS_INVALID);
	REFUSED(memcpy(d.uuid, b.uuid, 16), SPECKV_STATUS_POOL_EXISTS);
	REFUSED(strcpy(d.name, "first"), SPECKV_STATUS_POOL_EXISTS);
	REFUSED((void)0, 0);
	EQUAL(number, 2);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_POOLS, 0, 0, all, sizeof(all), &header), 0);
	EQUAL(header.entries, 2);
	EQUAL(header.entry_bytes, sizeof(all[0]));
	EQUAL(all[1].pool, 2);
	CHECK(all[1].generation > all[0].generation && all[1].state == SPECKV_POOL_ACTIVE,
		"generations grow");
	CHECK(!strcmp(all[1].name, "second"), "name");
	EQUAL(rig_log(&b.admin, SPECKV_LOG_POOLS, 0, 1, all, sizeof(all), &header), 0);
	EQUAL(header.entries, 1);
	bench_end(&b);
}

static union card_entry pool_entry(const struct bench *b, uint8_t opcode)
{
	union card_entry e = { .pool = { .opcode = opcode, .pool = 1 } };

	memcpy(e.pool.uuid, b->uuid, 16);
	return e;
}

static void resize_moves_no_frame_and_loses_none(void)
{
	struct bench b;
	union card_entry good;
	uint64_t free_before, last = (1u << 20) - 10 * BENCH_PAGE, result;

	bench_begin(&b, SPECKV_CODEC_RAW);
	free_before = b.rig->card->free_pages;
	good = pool_entry(&b, SPECKV_ADMIN_RESIZE_POOL);
	good.pool.capacity_bytes = 2u << 20;
	WRONG(pool.uuid[0], 'x', SPECKV_STATUS_NO_POOL);
	WRONG(pool.pool, 2, SPECKV_STATUS_NO_POOL);
	WRONG(pool.pool, 999, SPECKV_STATUS_NO_POOL);
	WRONG(pool.capacity_bytes, 1u << 20, SPECKV_STATUS_UNCHANGED);
	WRONG(pool.capacity_bytes, 100, SPECKV_STATUS_INVALID);
	WRONG(pool.capacity_bytes, 3u << 20, SPECKV_STATUS_NO_MEMORY);
	WRONG(pool.reserved[27], 1, SPECKV_STATUS_INVALID);
	WRONG(pool.action, 1, SPECKV_STATUS_INVALID);
	WRONG(pool.flags, SPECKV_POOL_DRY_RUN, 0);
	EQUAL(b.rig->card->free_pages, free_before);
	EQUAL(bench_put(&b, 1u << 20, 1, 1, NULL), SPECKV_STATUS_TRANSLATION_FAULT);
	EQUAL(client_run(&b.admin, &good, &result), 0);
	EQUAL(result, 2u << 20);
	EQUAL(bench_put(&b, (1u << 20), 1, 1, NULL), 0);
	EQUAL(bench_put(&b, last - last % BENCH_PAGE, 1, 2, NULL), 0);
	good.pool.capacity_bytes = 1u << 20;
	EQUAL(client_run(&b.admin, &good, NULL), SPECKV_STATUS_BUSY);
	EQUAL(bench_get(&b, 1u << 20, 1, 1, NULL), 0);
	{
		union card_entry e = { .range = { .opcode = SPECKV_IO_INVALIDATE,
					       .pool = 1,
					       .address = 1u << 20,
					       .bytes = 10 * BENCH_PAGE } };

		EQUAL(client_run(&b.client, &e, NULL), 0);
	}
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	EQUAL(b.rig->card->free_pages, free_before);
	EQUAL(bench_get(&b, 1u << 20, 1, 1, NULL), SPECKV_STATUS_TRANSLATION_FAULT);
	EQUAL(bench_get(&b, last - last % BENCH_PAGE, 1, 2, NULL), 0);
	bench_end(&b);
}

static bool memory_has(const struct rig *rig, const void *what, size_t bytes)
{
	return memmem(rig->memory + rig->card->layout.first_page,
		rig->card->layout.pages * SPECKV_CARD_PAGE_BYTES, what, bytes);
}

static void deleted_pools_leave_nothing_behind(void)
{
	struct bench b;
	union card_entry good;
	struct speckv_cqe cqe;
	uint8_t needle[64];
	uint64_t free_before, number;
	struct speckv_pool_description d = rig_pool("again", 1u << 20, 0);

	bench_begin(&b, SPECKV_CODEC_RAW);
	memcpy(needle, (uint8_t *)rig_at(b.rig, 1, b.raw) + 1000, 64);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	CHECK(memory_has(b.rig, needle, sizeof(needle)), "raw bytes are there");
	free_before = b.rig->card->free_pages;
	good = pool_entry(&b, SPECKV_ADMIN_DELETE_POOL);
	WRONG(pool.uuid[3], 0, SPECKV_STATUS_NO_POOL);
	WRONG(pool.capacity_bytes, 1, SPECKV_STATUS_INVALID);
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	CHECK(!memory_has(b.rig, needle, sizeof(needle)), "zeroed before anybody else gets it");
	CHECK(b.rig->card->free_pages > free_before + 15, "pages are free again");
	EQUAL(client_run(&b.admin, &good, NULL), SPECKV_STATUS_NO_POOL);
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&b.client, &cqe), "a notice");
	EQUAL(cqe.status, SPECKV_NOTICE_REVOKED);
	EQUAL(cqe.result, 1);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_DENIED);
	/* The number is another pool's now; rights to the old one say nothing about it. */
	EQUAL(rig_create(&b.admin, &d, &number), 0);
	EQUAL(number, 1);
	EQUAL(rig_grant(&b.admin, 1, 0, 1, b.uuid, SPECKV_RIGHT_READ), SPECKV_STATUS_NO_POOL);
	EQUAL(rig_grant(&b.admin, 1, 0, 1, d.uuid, SPECKV_RIGHT_READ), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
	bench_end(&b);
}

static void sanitize_zeroes_what_it_says(void)
{
	struct bench b;
	union card_entry good;
	uint8_t needle[64];
	uint64_t bytes;

	bench_begin(&b, SPECKV_CODEC_RAW);
	memcpy(needle, (uint8_t *)rig_at(b.rig, 1, b.raw) + 1000, 64);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	good = pool_entry(&b, SPECKV_ADMIN_SANITIZE);
	good.pool.action = SPECKV_SANITIZE_POOL;
	WRONG(pool.action, 9, SPECKV_STATUS_INVALID);
	WRONG(pool.uuid[0], 0, SPECKV_STATUS_NO_POOL);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	EQUAL(client_run(&b.admin, &good, &bytes), 0);
	EQUAL(bytes, 1u << 20);
	CHECK(!memory_has(b.rig, needle, sizeof(needle)), "zeroed");
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(bench_put(&b, 0, 2, 1, NULL), 0);
	good.pool.action = SPECKV_SANITIZE_ALL;
	good.pool.pool = 0;
	EQUAL(client_run(&b.admin, &good, NULL), SPECKV_STATUS_INVALID);
	memcpy(good.pool.uuid, b.rig->config.uuid, 16);
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	CHECK(!memory_has(b.rig, needle, sizeof(needle)), "zeroed");
	EQUAL(bench_get(&b, 0, 2, 1, NULL), SPECKV_STATUS_DENIED);
	EQUAL(b.rig->card->free_pages, b.rig->card->layout.pages);
	bench_end(&b);
}

static bool staged_has(struct rig *rig, const void *needle, uint64_t bytes)
{
	const struct speckv_card *card = rig->card;

	return memmem(rig->memory + card->layout.stage, card->config.stage_bytes, needle, bytes) !=
		NULL;
}

/* Decode a block, or `layers` of it from the first on, into staging memory. */
static uint16_t stage(struct bench *b, uint64_t address, uint64_t generation, uint16_t layers)
{
	union card_entry e = bench_read(b, address, generation, 1);

	e.read.opcode = SPECKV_IO_PREFETCH;
	e.read.flags = SPECKV_READ_STAGE;
	e.read.buffer = 0;
	e.read.capacity = 0;
	e.read.layer_count = layers;
	return client_run(&b->client, &e, NULL);
}

static void staging_memory_keeps_nothing_that_is_no_longer_staged(void)
{
	union card_entry sanitize = { .pool = { .opcode = SPECKV_ADMIN_SANITIZE,
					      .action = SPECKV_SANITIZE_FREE } },
			 delete;
	union card_entry reset = { .value = { .opcode = SPECKV_ADMIN_RESET,
					   .value = SPECKV_RESET_CARD } };
	uint8_t head[64], tail[64];
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	delete = pool_entry(&b, SPECKV_ADMIN_DELETE_POOL);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	memcpy(head, (uint8_t *)rig_at(b.rig, 1, b.out) + 1000, 64);
	memcpy(tail, (uint8_t *)rig_at(b.rig, 1, b.out) + b.block_bytes - 1000, 64);
	/* A restart, as after a kill: nothing knows what was staged before. */
	EQUAL(stage(&b, 0, 1, 0), 0);
	CHECK(staged_has(b.rig, head, 64) && staged_has(b.rig, tail, 64), "staged");
	rig_restart(b.rig);
	CHECK(!staged_has(b.rig, head, 64) && !staged_has(b.rig, tail, 64), "a start clears it");
	bench_connect(&b);
	memcpy(b.rig->memory + b.rig->card->layout.stage + b.rig->card->config.stage_bytes - 64,
		tail, 64);
	EQUAL(client_run(&b.admin, &sanitize, NULL), 0);
	CHECK(!staged_has(b.rig, tail, 64), "SANITIZE clears it whole");
	/* A reset of the card. */
	EQUAL(rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, 1, b.uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	EQUAL(stage(&b, 0, 1, 0), 0);
	CHECK(staged_has(b.rig, head, 64), "staged");
	EQUAL(client_run(&b.admin, &reset, NULL), 0);
	CHECK(!staged_has(b.rig, head, 64), "a reset clears it");
	bench_end(&b);
	/* Half of it is written over by another block, and then its pool goes. */
	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	b.rig->config.stage_bytes = SPECKV_CARD_PAGE_BYTES; /* two blocks */
	b.rig->config.format_memory = true;
	rig_restart(b.rig);
	bench_connect(&b);
	{
		struct speckv_pool_description d =
			rig_pool("first", 1u << 20, SPECKV_CODEC_INT8_DELTA_RLE);

		EQUAL(rig_create(&b.admin, &d, &b.pool), 0);
		EQUAL(rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, 1, b.uuid,
			      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
			0);
	}
	for (uint64_t i = 0; i < 3; i++) {
		bench_fill(&b, 7 + i);
		EQUAL(bench_put(&b, i * 10 * BENCH_PAGE, 1 + i, 1, NULL), 0);
	}
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	memcpy(head, (uint8_t *)rig_at(b.rig, 1, b.out) + 1000, 64);
	memcpy(tail, (uint8_t *)rig_at(b.rig, 1, b.out) + b.block_bytes - 1000, 64);
	EQUAL(stage(&b, 0, 1, 0), 0);
	EQUAL(stage(&b, 10 * BENCH_PAGE, 2, 0), 0);
	CHECK(staged_has(b.rig, head, 64) && staged_has(b.rig, tail, 64), "staged");
	EQUAL(stage(&b, 20 * BENCH_PAGE, 3, 1), 0);
	CHECK(!staged_has(b.rig, head, 64) && !staged_has(b.rig, tail, 64),
		"the rest of it goes, too");
	delete = pool_entry(&b, SPECKV_ADMIN_DELETE_POOL);
	EQUAL(client_run(&b.admin, &delete, NULL), 0);
	CHECK(card_zero(b.rig->memory + b.rig->card->layout.stage, b.rig->card->config.stage_bytes),
		"and all of it with the pool");
	bench_end(&b);
}

static void features_have_bounds(void)
{
	struct bench b;
	union card_entry good = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
					  .feature = SPECKV_FEATURE_PREFETCH_DEPTH,
					  .value = 4 } };
	union card_entry get = { .value = { .opcode = SPECKV_ADMIN_GET_FEATURE,
					 .feature = SPECKV_FEATURE_PREFETCH_DEPTH } };
	uint64_t value;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	EQUAL(client_run(&b.admin, &get, &value), 0);
	EQUAL(value, 4);
	WRONG(value.value, 17, SPECKV_STATUS_INVALID);
	WRONG(value.feature, 0x00, SPECKV_STATUS_NO_FEATURE);
	WRONG(value.feature, 0x08, SPECKV_STATUS_NO_FEATURE);
	WRONG(value.feature, 0x17, SPECKV_STATUS_NO_FEATURE);
	WRONG(value.pool, 1, SPECKV_STATUS_INVALID);
	WRONG(value.feature, SPECKV_FEATURE_POOL_MODE, SPECKV_STATUS_NO_POOL);
	WRONG(value.reserved[0], 1, SPECKV_STATUS_INVALID);
	good.value.feature = SPECKV_FEATURE_THROTTLE_MILLICELSIUS;
	WRONG(value.value, 105000, SPECKV_STATUS_INVALID);
	good.value.value = 40000;
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	CHECK(rig_read(b.rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__THROTTLED_bm,
		"45 degrees are too many now");
	/* Saved ones come back after a power cycle, others do not. */
	good.value.feature = SPECKV_FEATURE_RECALL_TIMEOUT_MS;
	good.value.value = 77;
	good.value.flags = SPECKV_FEATURE_SAVE;
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	rig_restart(b.rig);
	EQUAL(card_feature(b.rig->card, SPECKV_FEATURE_RECALL_TIMEOUT_MS), 77);
	EQUAL(card_feature(b.rig->card, SPECKV_FEATURE_PREFETCH_DEPTH), 0);
	EQUAL(card_feature(b.rig->card, SPECKV_FEATURE_THROTTLE_MILLICELSIUS), 85000);
	bench_end(&b);
}

static void pool_features_are_kept_with_the_pool(void)
{
	static const struct {
		uint16_t feature;
		uint64_t value, bad;
	} all[] = {
		{ SPECKV_FEATURE_POOL_QUOTA_BYTES, 1u << 19, 0 },
		{ SPECKV_FEATURE_POOL_GUARANTEED_BYTES_PER_SECOND, 123456, 0 },
		{ SPECKV_FEATURE_POOL_BURST_BYTES_PER_SECOND, UINT64_C(1) << 33, 0 },
		{ SPECKV_FEATURE_POOL_EVICTION, SPECKV_EVICT_NONE, 2 },
		{ SPECKV_FEATURE_POOL_OWNER, UINT64_C(1000) << 32 | 1001, 0 },
		{ SPECKV_FEATURE_POOL_MODE, 0640, 01777 },
	};
	struct bench b;
	uint64_t value;

	bench_begin(&b, SPECKV_CODEC_RAW);
	for (int restarted = 0; restarted < 2; restarted++) {
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
			union card_entry e = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
						       .pool = 1,
						       .feature = all[i].feature,
						       .value = all[i].value } };

			if (!restarted)
				EQUAL(client_run(&b.admin, &e, NULL), 0);
			e.value.value = all[i].bad;
			if (!restarted && all[i].bad)
				EQUAL(client_run(&b.admin, &e, NULL), SPECKV_STATUS_INVALID);
			e.value.opcode = SPECKV_ADMIN_GET_FEATURE;
			e.value.value = 0;
			EQUAL(client_run(&b.admin, &e, &value), 0);
			EQUAL(value, all[i].value);
			e.value.pool = 2;
			EQUAL(client_run(&b.admin, &e, NULL), SPECKV_STATUS_NO_POOL);
		}
		if (!restarted) {
			rig_restart(b.rig);
			bench_connect(&b);
		}
	}
	bench_end(&b);
}

static void self_test_passes_and_finds_damage(void)
{
	struct bench b;
	union card_entry good = { .value = { .opcode = SPECKV_ADMIN_SELF_TEST, .value = 0x3f } };
	struct speckv_log_header header;
	struct speckv_log_test tests[8];
	uint64_t failed;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.admin, &good, &failed), 0);
	rig_log(&b.admin, SPECKV_LOG_SELF_TEST, 0, 0, tests, sizeof(tests), &header);
	EQUAL(header.entries, SPECKV_TESTS);
	for (unsigned int i = 0; i < SPECKV_TESTS; i++)
		CHECK(!tests[i].status, "%s", tests[i].text);
	EQUAL(failed, 0);
	WRONG(value.value, 0, SPECKV_STATUS_INVALID);
	WRONG(value.value, 0x40, SPECKV_STATUS_INVALID);
	b.rig->card->pools[1].map[3] = b.rig->card->pools[1].map[3] + (UINT64_C(1) << 40);
	EQUAL(client_run(&b.admin, &good, &failed), 0);
	EQUAL(failed, SPECKV_TEST_TRANSLATION);
	bench_end(&b);
}

static void resets_do_what_they_say(void)
{
	struct bench b;
	union card_entry good = { .value = { .opcode = SPECKV_ADMIN_RESET,
					  .value = SPECKV_RESET_ENGINE } };
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	uint32_t count;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	WRONG(value.value, 9, SPECKV_STATUS_INVALID);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_STUCK, 0, 0, 1);
	client_submit(&b.client, &nop);
	speckv_card_run(b.rig->card, 10);
	CHECK(!client_poll(&b.client, &cqe), "stuck");
	count = rig_read(b.rig, 1, REG(RESET_COUNT));
	EQUAL(client_run(&b.admin, &good, NULL), 0);
	CHECK(client_poll(&b.client, &cqe), "aborted");
	EQUAL(cqe.status, SPECKV_STATUS_ABORTED);
	EQUAL(rig_read(b.rig, 1, PAIR(0, STATUS)), QUEUE_DISABLED);
	EQUAL(rig_read(b.rig, 1, REG(RESET_COUNT)), count + 1);
	good.value.value = SPECKV_RESET_CARD;
	EQUAL(client_run(&b.admin, &good, NULL), 0); /* completed before the card is gone */
	CHECK(speckv_card_rebooted(b.rig->card), "rebooted");
	CHECK(!speckv_card_rebooted(b.rig->card), "once");
	EQUAL(rig_read(b.rig, 0, REG(STATUS)), 0);
	b.admin = rig_admin(b.rig, 0);
	rig_write(b.rig, 1, REG(CONTROL), 1);
	b.client = rig_queue(b.rig, 1, 0, 4, 6);
	client_buffer(&b.client, BUFFER_OUT, b.out, 1u << 17, SPECKV_BUFFER_CARD_WRITES);
	EQUAL(rig_grant(&b.admin, 1, 0, 1, b.uuid, SPECKV_RIGHT_READ), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	bench_end(&b);
}

static void buckets_lie_within_their_bounds(void)
{
	uint64_t state = 5;

	for (int i = 0; i < 100000; i++) {
		uint64_t ns;
		unsigned int bucket;

		state = state * UINT64_C(6364136223846793005) + 1;
		ns = state >> (state >> 58) >> 22;
		bucket = histogram_bucket(ns);
		CHECK(ns <= speckv_histogram_bound(bucket), "%llu in %u", (unsigned long long)ns,
			bucket);
		CHECK(!bucket || ns > speckv_histogram_bound(bucket - 1), "%llu in %u",
			(unsigned long long)ns, bucket);
	}
}

int main(void)
{
	identify_says_what_the_registers_say();
	pools_are_described_exactly_or_refused();
	resize_moves_no_frame_and_loses_none();
	deleted_pools_leave_nothing_behind();
	sanitize_zeroes_what_it_says();
	staging_memory_keeps_nothing_that_is_no_longer_staged();
	features_have_bounds();
	pool_features_are_kept_with_the_pool();
	self_test_passes_and_finds_damage();
	resets_do_what_they_say();
	buckets_lie_within_their_bounds();
	return 0;
}

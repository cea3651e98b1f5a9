// SPDX-License-Identifier: MIT
/* I/O commands: good ones, bad ones, and what is left behind. Holds: test_holds.c. */
#include "rig.h"

static void what_was_written_is_read(uint32_t codec, bool direct)
{
	struct bench b;
	uint64_t stored, bytes, layer;
	uint8_t *out, *raw;

	bench_begin(&b, codec);
	b.rig->direct = direct;
	out = rig_at(b.rig, 1, b.out);
	raw = rig_at(b.rig, 1, b.raw);
	EQUAL(bench_put(&b, RUN, 5, 1, &stored), 0);
	EQUAL(bench_get(&b, RUN, 5, 1, &bytes), 0);
	EQUAL(bytes, b.block_bytes);
	if (codec == SPECKV_CODEC_RAW)
		CHECK(!memcmp(out, raw, bytes), "the same bytes");
	/* Layer ranges are parts of the whole. */
	layer = b.block_bytes / 2;
	{
		uint8_t *whole = malloc(bytes);
		union card_entry e = bench_read(&b, RUN, 5, 1);

		memcpy(whole, out, bytes);
		for (uint16_t l = 0; l < 2; l++) {
			memset(out, 0xee, bytes);
			e.read.layer_first = l;
			e.read.layer_count = 1;
			EQUAL(client_run(&b.client, &e, &bytes), 0);
			EQUAL(bytes, layer);
			CHECK(!memcmp(out, whole + l * layer, layer), "layer %u", l);
			EQUAL(out[layer], 0xee);
		}
		/* The frame itself decodes to the same, in the library. */
		e.read.layer_first = e.read.layer_count = 0;
		e.read.flags = SPECKV_READ_FRAME;
		EQUAL(client_run(&b.client, &e, &bytes), 0);
		EQUAL(bytes, stored);
		{
			struct speckv_frame frame;
			uint8_t *again = malloc(b.block_bytes);

			EQUAL(speckv_frame_parse(out, bytes, &frame), 0);
			EQUAL(frame.identity.pool_address, RUN);
			EQUAL(frame.identity.generation, 5);
			EQUAL(speckv_frame_decode(&frame, out, bytes, 0, 2, again, b.block_bytes),
				0);
			CHECK(!memcmp(again, whole, b.block_bytes),
				"card and library decode the same");
			free(again);
		}
		free(whole);
	}
	bench_end(&b);
}

#define WRONG(member, value, expected) CLIENT_WRONG(&b.client, member, value, expected)

static void bad_writes_publish_nothing(void)
{
	union card_entry good;
	struct bench b;
	struct speckv_block_identity *identity;
	uint16_t *raw;

	bench_begin(&b, SPECKV_CODEC_RAW);
	good = bench_write(&b, 0, 1, 1);
	WRONG(write.opcode, 0x40, SPECKV_STATUS_INVALID_OPCODE);
	WRONG(write.flags, 0x80, SPECKV_STATUS_INVALID);
	WRONG(write.flags, SPECKV_WRITE_FRAME | SPECKV_WRITE_FILL, SPECKV_STATUS_INVALID);
	WRONG(write.pool, 0, SPECKV_STATUS_INVALID);
	WRONG(write.pool, 65, SPECKV_STATUS_INVALID);
	WRONG(write.pool, 2, SPECKV_STATUS_DENIED);
	WRONG(write.reserved0, 1, SPECKV_STATUS_INVALID);
	WRONG(write.reserved1[19], 1, SPECKV_STATUS_INVALID);
	WRONG(write.address, 8, SPECKV_STATUS_INVALID);
	WRONG(write.address, 1u << 20, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(write.address, UINT64_C(1) << 52, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(write.address, (1u << 20) - BENCH_PAGE, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(write.buffer_offset, 4, SPECKV_STATUS_INVALID);
	WRONG(write.buffer_offset, 1u << 16, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.buffer_offset, UINT64_MAX - 63, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.buffer, 7, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.buffer, 900, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.buffer, BUFFER_OUT, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.bytes, good.write.bytes - 64, SPECKV_STATUS_INVALID);
	WRONG(write.bytes, 0, SPECKV_STATUS_INVALID);
	WRONG(write.capacity, BENCH_PAGE, SPECKV_STATUS_NO_ROOM);
	WRONG(write.identity_offset, 1, SPECKV_STATUS_INVALID);
	WRONG(write.identity_offset, 4096, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.identity_buffer, BUFFER_OUT, SPECKV_STATUS_BAD_BUFFER);
	WRONG(write.codec, SPECKV_CODEC_E7C, SPECKV_STATUS_NO_CODEC);
	WRONG(write.codec, 200, SPECKV_STATUS_NO_CODEC);
	identity = rig_at(b.rig, 1, b.identity);
	identity->reserved[11] = 1;
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_INVALID);
	identity->reserved[11] = 0;
	/* Values that the codec cannot hold. */
	raw = rig_at(b.rig, 1, b.raw);
	raw[b.block_bytes / 2 - 1] = 0x7f80;
	WRONG(write.codec, SPECKV_CODEC_INT8_DELTA_RLE, SPECKV_STATUS_NONFINITE);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	EQUAL(client_run(&b.client, &good, NULL), 0); /* raw holds them */
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_SEALED);
	good.write.address = BENCH_PAGE;
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_SEALED);
	EQUAL(b.rig->card->pools[1].count, 1);
	bench_end(&b);
}

static void bad_reads_return_nothing(void)
{
	union card_entry good;
	struct bench b;
	uint8_t *out;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	EQUAL(bench_put(&b, 0, 3, 9, NULL), 0);
	out = rig_at(b.rig, 1, b.out);
	memset(out, 0x5c, 1u << 17);
	good = bench_read(&b, 0, 3, 9);
	WRONG(read.flags, SPECKV_READ_STAGE, SPECKV_STATUS_INVALID);
	WRONG(read.reserved, 1, SPECKV_STATUS_INVALID);
	WRONG(read.deadline_us, 1, SPECKV_STATUS_INVALID);
	WRONG(read.generation, 2, SPECKV_STATUS_NOT_FOUND);
	WRONG(read.key_prefix[15], 0, SPECKV_STATUS_NOT_FOUND);
	WRONG(read.address, BENCH_PAGE, SPECKV_STATUS_NOT_FOUND);
	WRONG(read.address, 64, SPECKV_STATUS_INVALID);
	WRONG(read.address, 1u << 20, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(read.layer_first, 2, SPECKV_STATUS_INVALID);
	WRONG(read.layer_first, 1, SPECKV_STATUS_INVALID);
	WRONG(read.layer_count, 3, SPECKV_STATUS_INVALID);
	WRONG(read.capacity, (uint32_t)b.block_bytes - 1, SPECKV_STATUS_BAD_BUFFER);
	WRONG(read.buffer, BUFFER_RAW, SPECKV_STATUS_BAD_BUFFER);
	WRONG(read.buffer_offset, 32, SPECKV_STATUS_INVALID);
	WRONG(read.buffer_offset, (1u << 17) - 64, SPECKV_STATUS_BAD_BUFFER);
	for (unsigned int i = 0; i < 1u << 17; i++)
		EQUAL(out[i], 0x5c);
	EQUAL(client_run(&b.client, &good, NULL), 0);
	bench_end(&b);
}

/*
 * Every byte of a stored frame, changed: an error, or (only where no checksum looks) the same data.
 * Never others.
 */
static void a_changed_frame_is_never_wrong_data(void)
{
	struct bench b;
	uint64_t stored;
	uint8_t *at, *out, *good;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	EQUAL(bench_put(&b, 0, 3, 9, &stored), 0);
	out = rig_at(b.rig, 1, b.out);
	good = malloc(b.block_bytes);
	EQUAL(bench_get(&b, 0, 3, 9, NULL), 0);
	memcpy(good, out, b.block_bytes);
	at = b.rig->memory + (b.rig->card->pools[1].map[0] & ~UINT64_C(0xffff));
	for (uint64_t i = 0; i < stored; i += i < 256 ? 1 : 97) {
		uint16_t status;

		at[i] ^= 0x10;
		status = bench_get(&b, 0, 3, 9, NULL);
		CHECK(status == SPECKV_STATUS_CORRUPT ||
				(!status && !memcmp(out, good, b.block_bytes)),
			"byte %llu: 0x%x", (unsigned long long)i, status);
		at[i] ^= 0x10;
	}
	EQUAL(bench_get(&b, 0, 3, 9, NULL), 0);
	free(good);
	bench_end(&b);
}

static void frames_of_the_host_are_checked(void)
{
	struct bench b;
	struct speckv_frame_identity id = { .generation = 4, .pool_address = RUN };
	union card_entry good;
	struct speckv_geometry g;
	uint64_t bytes;
	uint8_t *frame, *raw;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	memcpy(&g, &b.rig->card->pools[1].record.description.shape, sizeof(g));
	memset(id.key, 3, sizeof(id.key));
	memcpy(id.pool_uuid, b.uuid, 16);
	frame = rig_at(b.rig, 1, b.frames);
	raw = rig_at(b.rig, 1, b.raw);
	EQUAL(speckv_frame_encode(&g, 1, &id, raw, b.block_bytes, frame, 1u << 17, &bytes), 0);
	good = bench_write(&b, RUN, 4, 3);
	good.write.flags = SPECKV_WRITE_FRAME;
	good.write.buffer = BUFFER_BOTH;
	good.write.bytes = (uint32_t)bytes;
	WRONG(write.codec, 0, SPECKV_STATUS_INVALID);
	WRONG(write.bytes, (uint32_t)bytes - 64, SPECKV_STATUS_CORRUPT);
	WRONG(write.bytes, (uint32_t)bytes + 64, SPECKV_STATUS_INVALID);
	WRONG(write.address, 0, SPECKV_STATUS_INVALID); /* it says that it lies elsewhere */
	WRONG(write.capacity, BENCH_PAGE, SPECKV_STATUS_NO_ROOM);
	frame[bytes / 2] ^= 1;
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_CORRUPT);
	frame[bytes / 2] ^= 1;
	((struct speckv_block_identity *)rig_at(b.rig, 1, b.identity))->key[0] ^= 1;
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_INVALID);
	((struct speckv_block_identity *)rig_at(b.rig, 1, b.identity))->key[0] ^= 1;
	EQUAL(b.rig->card->pools[1].count, 0);
	EQUAL(client_run(&b.client, &good, NULL), 0);
	EQUAL(bench_get(&b, RUN, 4, 3, NULL), 0);
	bench_end(&b);
}

static void copies_say_where_they_lie(void)
{
	struct speckv_pool_description d = rig_pool("second", 1u << 19, SPECKV_CODEC_RAW),
				       other = rig_pool("third", 1u << 19, 0);
	union card_entry good = { .copy = { .opcode = SPECKV_IO_COPY,
					  .pool = 1,
					  .destination_pool = 2,
					  .generation = 3,
					  .destination_address = RUN,
					  .destination_generation = 8,
					  .capacity = RUN } };
	struct bench b;
	uint64_t second, stored;

	bench_begin(&b, SPECKV_CODEC_RAW);
	other.shape.layers = 1;
	EQUAL(rig_create(&b.admin, &d, &second), 0);
	EQUAL(rig_create(&b.admin, &other, NULL), 0);
	memset(good.copy.key_prefix, 5, 16);
	EQUAL(bench_put(&b, 0, 3, 5, &stored), 0);
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_DENIED);
	EQUAL(rig_grant(&b.admin, 1, 0, 2, d.uuid, SPECKV_RIGHT_READ), 0);
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_DENIED);
	EQUAL(rig_grant(&b.admin, 1, 0, 2, d.uuid, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE), 0);
	EQUAL(rig_grant(&b.admin, 1, 0, 3, other.uuid, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE), 0);
	WRONG(copy.destination_pool, 3, SPECKV_STATUS_INVALID);
	WRONG(copy.key_prefix[0], 0, SPECKV_STATUS_NOT_FOUND);
	WRONG(copy.generation, 4, SPECKV_STATUS_NOT_FOUND);
	WRONG(copy.capacity, BENCH_PAGE, SPECKV_STATUS_NO_ROOM);
	WRONG(copy.destination_address, 1u << 19, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(copy.destination_address, 7, SPECKV_STATUS_INVALID);
	WRONG(copy.reserved, 1, SPECKV_STATUS_INVALID);
	EQUAL(client_run(&b.client, &good, &second), 0);
	EQUAL(second, stored);
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_SEALED);
	b.pool = 2;
	EQUAL(bench_get(&b, RUN, 8, 5, NULL), 0);
	CHECK(!memcmp(rig_at(b.rig, 1, b.out), rig_at(b.rig, 1, b.raw), b.block_bytes),
		"the same block");
	EQUAL(bench_get(&b, RUN, 3, 5, NULL), SPECKV_STATUS_NOT_FOUND);
	b.pool = 1;
	EQUAL(bench_get(&b, 0, 3, 5, NULL), 0);
	bench_end(&b);
}

static void prefetched_blocks_are_used_or_counted(void)
{
	struct bench b;
	union card_entry good;
	uint64_t staged;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	good = bench_read(&b, 0, 1, 1);
	good.read.opcode = SPECKV_IO_PREFETCH;
	good.read.flags = SPECKV_READ_STAGE;
	good.read.buffer = 0;
	good.read.capacity = 0;
	WRONG(read.buffer, BUFFER_OUT, SPECKV_STATUS_INVALID);
	WRONG(read.generation, 9, SPECKV_STATUS_NOT_FOUND);
	EQUAL(client_run(&b.client, &good, &staged), 0);
	EQUAL(staged, b.block_bytes);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	EQUAL(b.rig->card->counters[COUNT_PREFETCHES], 1);
	EQUAL(b.rig->card->counters[COUNT_PREFETCH_USED], 1);
	{
		union card_entry e = bench_range(SPECKV_IO_INVALIDATE, 0, RUN, 1, 0);

		EQUAL(client_run(&b.client, &e, NULL), 0);
		/* the same place and generation: what was staged must not come back */
		EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
		EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
		EQUAL(b.rig->card->counters[COUNT_PREFETCH_USED], 1);
		EQUAL(client_run(&b.client, &good, NULL), 0);
		EQUAL(client_run(&b.client, &e, NULL), 0);
		EQUAL(b.rig->card->counters[COUNT_PREFETCH_UNUSED], 1);
	}
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	speckv_card_set_temperature(b.rig->card, 90000);
	EQUAL(client_run(&b.client, &good, &staged), 0);
	EQUAL(staged, 0); /* a hot card does not speculate */
	speckv_card_set_temperature(b.rig->card, 50000);
	/* Into a buffer, as READ. */
	good = bench_read(&b, 0, 1, 1);
	good.read.opcode = SPECKV_IO_PREFETCH;
	EQUAL(client_run(&b.client, &good, &staged), 0);
	EQUAL(staged, b.block_bytes);
	bench_end(&b);
}

static void candidates_are_scored_by_recency(void)
{
	struct bench b;
	struct speckv_candidate *c;
	union card_entry touch,
		good = { .predict = { .opcode = SPECKV_IO_PREDICT,
				 .pool = 1,
				 .buffer = BUFFER_BOTH,
				 .session = 2,
				 .candidate_count = 4,
				 .depth = 2 } };
	uint64_t issued;

	bench_begin(&b, SPECKV_CODEC_RAW);
	for (unsigned int i = 0; i < 3; i++) {
		EQUAL(bench_put(&b, i * RUN, i + 1, (uint8_t)i, NULL), 0);
		b.rig->now += 5000000000;
	}
	touch = (union card_entry){ .touch = { .opcode = SPECKV_IO_TOUCH,
					    .pool = 1,
					    .address = RUN,
					    .generation = 2,
					    .session = 2,
					    .feature_count = 2 } };
	EQUAL(client_run(&b.client, &touch, NULL), 0);
	touch.touch.generation = 1;
	EQUAL(client_run(&b.client, &touch, NULL), SPECKV_STATUS_NOT_FOUND);
	touch.touch.generation = 2;
	touch.touch.session = 16;
	EQUAL(client_run(&b.client, &touch, NULL), SPECKV_STATUS_INVALID);
	touch.touch.session = SPECKV_NO_SESSION;
	EQUAL(client_run(&b.client, &touch, NULL), SPECKV_STATUS_INVALID);
	b.rig->now += 1000000000;
	c = rig_at(b.rig, 1, b.frames);
	for (unsigned int i = 0; i < 4; i++)
		c[i] = (struct speckv_candidate){
			.tag = 100 + i, .address = i * RUN, .generation = i + 1
		};
	EQUAL(client_run(&b.client, &good, &issued), 0);
	EQUAL(issued, 0);
	CHECK((int32_t)c[1].score > (int32_t)c[2].score &&
			(int32_t)c[2].score > (int32_t)c[0].score,
		"recency");
	EQUAL((int32_t)c[3].score, INT32_MIN); /* nothing there */
	EQUAL(c[1].tag, 101);
	good.predict.flags = SPECKV_PREDICT_STAGE;
	good.predict.depth = 1;
	good.predict.budget_bytes = (uint32_t)(3 * b.block_bytes);
	EQUAL(client_run(&b.client, &good, &issued), 0);
	EQUAL(issued, 1);
	good.predict.depth = 3;
	good.predict.budget_bytes = (uint32_t)(2 * b.block_bytes + 1);
	EQUAL(client_run(&b.client, &good, &issued), 0);
	EQUAL(issued, 2);
	EQUAL(bench_get(&b, RUN, 2, 1, NULL), 0);
	EQUAL(bench_get(&b, 2 * RUN, 3, 2, NULL), 0);
	EQUAL(b.rig->card->counters[COUNT_PREFETCH_USED], 2);
	WRONG(predict.candidate_count, 0, SPECKV_STATUS_INVALID);
	WRONG(predict.candidate_count, 65, SPECKV_STATUS_INVALID);
	WRONG(predict.depth, 0, SPECKV_STATUS_INVALID);
	WRONG(predict.depth, 17, SPECKV_STATUS_INVALID);
	WRONG(predict.feature_count, 33, SPECKV_STATUS_INVALID);
	WRONG(predict.buffer, BUFFER_RAW, SPECKV_STATUS_BAD_BUFFER);
	WRONG(predict.candidates_offset, 8, SPECKV_STATUS_INVALID);
	WRONG(predict.session, 400, SPECKV_STATUS_INVALID);
	bench_end(&b);
}

static void quota_and_bandwidth_are_kept(void)
{
	struct bench b;
	union card_entry set = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
					 .pool = 1,
					 .feature = SPECKV_FEATURE_POOL_QUOTA_BYTES,
					 .value = 40000 } };
	uint64_t before;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.admin, &set, NULL), 0);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_put(&b, RUN, 1, 2, NULL), SPECKV_STATUS_QUOTA);
	EQUAL(bench_get(&b, RUN, 1, 2, NULL), SPECKV_STATUS_NOT_FOUND);
	set.value.feature = SPECKV_FEATURE_POOL_BURST_BYTES_PER_SECOND;
	set.value.value = b.block_bytes; /* one block a second */
	EQUAL(client_run(&b.admin, &set, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	before = b.rig->now;
	EQUAL(bench_get(&b, 0, 1, 1, NULL), CARD_WAIT);
	CHECK(speckv_card_next_ns(b.rig->card) > before + 900000000, "a second");
	b.rig->now = speckv_card_next_ns(b.rig->card);
	speckv_card_run(b.rig->card, 10);
	{
		struct speckv_cqe cqe;

		CHECK(client_poll(&b.client, &cqe), "now");
		EQUAL(cqe.status, 0);
	}
	bench_end(&b);
}

int main(void)
{
	for (uint32_t codec = 0; codec < 2; codec++) {
		what_was_written_is_read(codec, false);
		what_was_written_is_read(codec, true);
	}
	bad_writes_publish_nothing();
	bad_reads_return_nothing();
	a_changed_frame_is_never_wrong_data();
	frames_of_the_host_are_checked();
	copies_say_where_they_lie();
	prefetched_blocks_are_used_or_counted();
	candidates_are_scored_by_recency();
	quota_and_bandwidth_are_kept();
	return 0;
}

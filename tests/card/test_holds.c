// SPDX-License-Identifier: MIT
/* ACQUIRE, fills, WRITEBACK, INVALIDATE: who holds a block, and how it is recalled. */
#include "rig.h"

#define WRONG(member, value, expected) CLIENT_WRONG(&b.client, member, value, expected)

static void invalidated_blocks_are_gone_and_their_pages_free(void)
{
	struct bench b;
	union card_entry e, good = bench_range(SPECKV_IO_INVALIDATE, 0, 2 * RUN, 0, 0);

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.client, &good, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_put(&b, RUN, 2, 2, NULL), 0);
	WRONG(range.bytes, 0, SPECKV_STATUS_INVALID);
	WRONG(range.bytes, 100, SPECKV_STATUS_INVALID);
	WRONG(range.bytes, BENCH_PAGE, SPECKV_STATUS_INVALID); /* a part of a block */
	WRONG(range.address, BENCH_PAGE, SPECKV_STATUS_INVALID);
	WRONG(range.generation, 1, SPECKV_STATUS_NOT_FOUND);
	WRONG(range.bytes, 2u << 20, SPECKV_STATUS_TRANSLATION_FAULT);
	WRONG(range.reserved[0], 1, SPECKV_STATUS_INVALID);
	WRONG(range.buffer, 1, SPECKV_STATUS_INVALID);
	EQUAL(b.rig->card->pools[1].count, 2);
	e = bench_range(SPECKV_IO_INVALIDATE, 0, RUN, 1, 0);
	EQUAL(client_run(&b.client, &e, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(bench_get(&b, RUN, 2, 2, NULL), 0);
	CHECK(card_zero(b.rig->memory + (b.rig->card->pools[1].map[0] & ~UINT64_C(0xffff)), 128),
		"no header is left");
	EQUAL(client_run(&b.client, &good, NULL), 0);
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	EQUAL(b.rig->card->pools[1].stored_bytes, 0);
	EQUAL(bench_put(&b, 0, 3, 3, NULL), 0);
	bench_end(&b);
}

/* Page `at` of what lies at b->frames, for the fill at RUN. */
static union card_entry frame_page(uint64_t at, uint64_t bytes)
{
	return (union card_entry){ .write = { .opcode = SPECKV_IO_WRITE,
					   .flags = SPECKV_WRITE_FILL,
					   .pool = 1,
					   .buffer = BUFFER_BOTH,
					   .address = RUN + at,
					   .buffer_offset = at,
					   .capacity = BENCH_PAGE,
					   .bytes = bytes - at < BENCH_PAGE ? (uint32_t)(bytes - at)
									    : BENCH_PAGE } };
}

static void write_frame(struct bench *b, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += BENCH_PAGE) {
		union card_entry e = frame_page(at, bytes);

		EQUAL(client_run(&b->client, &e, NULL), 0);
	}
}

/* The frame of the raw block, at b->frames; how long it is. */
static uint64_t encode_frame(struct bench *b)
{
	struct speckv_frame_identity id = { .generation = 6, .pool_address = RUN };
	struct speckv_geometry g;
	uint64_t bytes;

	memcpy(&g, &b->rig->card->pools[1].record.description.shape, sizeof(g));
	memset(id.key, 3, sizeof(id.key));
	memcpy(id.pool_uuid, b->uuid, 16);
	EQUAL(speckv_frame_encode(&g, 0, &id, rig_at(b->rig, 1, b->raw), b->block_bytes,
		      rig_at(b->rig, 1, b->frames), 1u << 17, &bytes),
		0);
	return bytes;
}

/* One that is recalled meanwhile goes when its owner has sealed it and given it up. */
static void fills_are_recalled_meanwhile(struct bench *b, struct client second, uint64_t bytes)
{
	union card_entry acquire = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, RUN, RUN, 6, 0);
	union card_entry seal = bench_range(SPECKV_IO_WRITEBACK, RUN, RUN, 6,
				 SPECKV_WRITEBACK_SEAL | SPECKV_WRITEBACK_RELEASE),
			 drop = bench_range(SPECKV_IO_INVALIDATE, RUN, RUN, 6, 0);
	struct speckv_cqe cqe;

	EQUAL(client_run(&b->client, &acquire, NULL), 0);
	write_frame(b, bytes);
	client_submit(&second, &drop);
	speckv_card_run(b->rig->card, 10);
	CHECK(client_poll(&b->client, &cqe) && cqe.status == SPECKV_NOTICE_RECALL, "the notice");
	EQUAL(client_run(&b->client, &seal, NULL), 0);
	speckv_card_run(b->rig->card, 10);
	CHECK(client_poll(&second, &cqe) && !cqe.status, "gone");
	EQUAL(b->rig->card->pools[1].used_pages, 0);
	/*
	 * The requester ends first. A holder that acquires the block again is sent the next recall
	 * as well.
	 */
	EQUAL(client_run(&b->client, &acquire, NULL), 0);
	write_frame(b, bytes);
	client_submit(&second, &drop);
	speckv_card_run(b->rig->card, 10);
	CHECK(client_poll(&b->client, &cqe) && cqe.status == SPECKV_NOTICE_RECALL, "the notice");
	rig_write(b->rig, 1, PAIR(1, CONTROL), 0);
	EQUAL(client_run(&b->client, &seal, NULL), 0);
	acquire = bench_range(SPECKV_IO_ACQUIRE_SHARED, RUN, RUN, 6, 0);
	EQUAL(client_run(&b->client, &acquire, NULL), 0);
	second = rig_queue(b->rig, 1, 1, 4, 6);
	client_submit(&second, &drop);
	speckv_card_run(b->rig->card, 10);
	CHECK(client_poll(&b->client, &cqe) && cqe.status == SPECKV_NOTICE_RECALL, "told again");
}

static void fills_are_sealed_as_frames(void)
{
	struct bench b;
	struct client second;
	union card_entry acquire = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, RUN, RUN, 6, 0);
	union card_entry seal = bench_range(SPECKV_IO_WRITEBACK, RUN, RUN, 6,
				 SPECKV_WRITEBACK_SEAL),
			 e;
	uint64_t bytes, result;

	bench_begin(&b, SPECKV_CODEC_RAW);
	second = rig_queue(b.rig, 1, 1, 4, 6);
	client_buffer(&second, BUFFER_BOTH, b.frames, 1u << 17,
		SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
	EQUAL(client_run(&b.client, &seal, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(client_run(&b.client, &acquire, NULL), 0);
	EQUAL(client_run(&b.client, &acquire, NULL), 0);
	EQUAL(client_run(&second, &acquire, NULL), SPECKV_STATUS_CONFLICT);
	EQUAL(client_run(&second, &seal, NULL), SPECKV_STATUS_CONFLICT);
	e = bench_range(SPECKV_IO_ACQUIRE_SHARED, RUN, RUN, 6, 0);
	EQUAL(client_run(&second, &e, NULL), SPECKV_STATUS_CONFLICT);
	EQUAL(client_run(&b.client, &seal, NULL), SPECKV_STATUS_CORRUPT); /* nothing in it yet */
	bytes = encode_frame(&b);
	for (uint64_t at = 0; at < bytes; at += BENCH_PAGE) {
		e = frame_page(at, bytes);
		if (!at)
			EQUAL(client_run(&second, &e, NULL), SPECKV_STATUS_CONFLICT);
		EQUAL(client_run(&b.client, &e, NULL), 0);
	}
	e.write.address = 3 * RUN;
	EQUAL(client_run(&b.client, &e, NULL), SPECKV_STATUS_NOT_FOUND);
	e.write.address = 2 * RUN - BENCH_PAGE;
	e.write.bytes = e.write.capacity = 2 * BENCH_PAGE;
	EQUAL(client_run(&b.client, &e, NULL), SPECKV_STATUS_NO_ROOM);
	/* not before it is sealed */
	EQUAL(bench_get(&b, RUN, 6, 3, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(client_run(&b.client, &seal, &result), 0);
	EQUAL(result, bytes);
	EQUAL(bench_get(&b, RUN, 6, 3, NULL), 0);
	EQUAL(client_run(&b.client, &seal, NULL), SPECKV_STATUS_SEALED);
	EQUAL(client_run(&b.client, &acquire, NULL), SPECKV_STATUS_SEALED);
	/* The page at the end that the frame does not need is free. */
	EQUAL(b.rig->card->pools[1].used_pages, (bytes + BENCH_PAGE - 1) / BENCH_PAGE);
	/* A fill that is given up leaves nothing. */
	acquire = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, 3 * RUN, RUN, 9, 0);
	EQUAL(client_run(&b.client, &acquire, NULL), 0);
	e = bench_range(SPECKV_IO_WRITEBACK, 3 * RUN, RUN, 9, SPECKV_WRITEBACK_RELEASE);
	EQUAL(client_run(&b.client, &e, NULL), 0);
	EQUAL(b.rig->card->pools[1].used_pages, (bytes + BENCH_PAGE - 1) / BENCH_PAGE);
	e = bench_range(SPECKV_IO_INVALIDATE, RUN, RUN - BENCH_PAGE, 6, 0);
	EQUAL(client_run(&b.client, &e, NULL), 0);
	fills_are_recalled_meanwhile(&b, second, bytes);
	bench_end(&b);
}

/* Recalls: a holder answers, or is fenced. */
static void holders_are_recalled(bool answers)
{
	struct bench b;
	struct client holder;
	struct speckv_cqe cqe;
	union card_entry share = bench_range(SPECKV_IO_ACQUIRE_SHARED, RUN, RUN, 6, 0),
			 drop = bench_range(SPECKV_IO_INVALIDATE, RUN, RUN, 6, 0);
	union card_entry answer =
		bench_range(SPECKV_IO_WRITEBACK, RUN, RUN, 6, SPECKV_WRITEBACK_RELEASE);
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };

	bench_begin(&b, SPECKV_CODEC_RAW);
	holder = rig_queue(b.rig, 1, 1, 4, 6);
	EQUAL(bench_put(&b, RUN, 6, 3, NULL), 0);
	EQUAL(client_run(&holder, &share, NULL), 0);
	EQUAL(client_run(&b.client, &drop, NULL), CARD_WAIT);
	CHECK(client_poll(&holder, &cqe), "a notice");
	EQUAL(cqe.command_id, SPECKV_EVENT_COMMAND_ID);
	EQUAL(cqe.status, SPECKV_NOTICE_RECALL);
	EQUAL(cqe.result, RUN | UINT64_C(1) << 48);
	EQUAL(bench_get(&(struct bench){ .rig = b.rig, .client = holder, .pool = 1 }, RUN, 6, 3,
		      NULL),
		SPECKV_STATUS_NOT_FOUND);
	holder.sq_tail = (holder.sq_tail + 1) % holder.sq_entries;
	holder.cq_head++;
	holder.next_id++;
	CHECK(!client_poll(&b.client, &cqe), "not before the holder answered");
	if (answers) {
		EQUAL(client_run(&holder, &answer, NULL), 0);
		speckv_card_run(b.rig->card, 10);
	} else {
		CHECK(speckv_card_next_ns(b.rig->card) > b.rig->now, "a deadline");
		b.rig->now = speckv_card_next_ns(b.rig->card);
		speckv_card_run(b.rig->card, 10);
		EQUAL(rig_read(b.rig, 1, PAIR(1, STATUS)),
			QUEUE_FENCED | SPECKV_STATUS_FENCED << 16);
		client_submit(&holder, &nop);
		EQUAL(speckv_card_run(b.rig->card, 10), 0);
		CHECK(rig_read(b.rig, 1, REG(INT_STATUS)) & SPECKV_REGS__INT_STATUS__QUEUE_PAIR_bm,
			"told");
	}
	CHECK(client_poll(&b.client, &cqe), "done");
	EQUAL(cqe.status, 0);
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	EQUAL(bench_put(&b, RUN, 7, 3, NULL), 0);
	for (int i = 0; i < CARD_AGENTS; i++)
		CHECK(!b.rig->card->agents[i].used, "nobody holds anything");
	bench_end(&b);
}

/*
 * What a queue pair holds itself is no obstacle to it; what it writes back is clean until it writes
 * again.
 */
static void own_holds_are_given_up_silently(void)
{
	union card_entry share = bench_range(SPECKV_IO_ACQUIRE_SHARED, RUN, RUN, 6, 0),
			 fill = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, 3 * RUN, RUN, 7, 0);
	union card_entry back = bench_range(SPECKV_IO_WRITEBACK, 3 * RUN, RUN, 7, 0),
			 drop = bench_range(SPECKV_IO_INVALIDATE, 0, 5 * RUN, 0, 0);
	union card_entry e = { .write = { .opcode = SPECKV_IO_WRITE,
				       .flags = SPECKV_WRITE_FILL,
				       .pool = 1,
				       .buffer = BUFFER_RAW,
				       .address = 3 * RUN + BENCH_PAGE,
				       .bytes = 100,
				       .capacity = 100 } };
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, RUN, 6, 3, NULL), 0);
	EQUAL(client_run(&b.client, &share, NULL), 0);
	EQUAL(client_run(&b.client, &fill, NULL), 0);
	EQUAL(client_run(&b.client, &e, NULL), 0);
	EQUAL(b.rig->card->pools[1].blocks[30].state, BLOCK_MODIFIED);
	EQUAL(client_run(&b.client, &back, NULL), 0);
	EQUAL(b.rig->card->pools[1].blocks[30].state, BLOCK_EXCLUSIVE);
	EQUAL(b.rig->card->functions[1]->pair[0].held, 2);
	EQUAL(client_run(&b.client, &drop, NULL), 0);
	EQUAL(b.rig->card->functions[1]->pair[0].held, 0);
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	bench_end(&b);
}

/* A recall of a fill: its owner gets a notice, and the owner's answer drops the fill. */
static void fills_of_others_are_recalled(void)
{
	union card_entry fill = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, RUN, RUN, 6, 0),
			 drop = bench_range(SPECKV_IO_INVALIDATE, RUN, RUN, 6, 0);
	union card_entry give = bench_range(SPECKV_IO_WRITEBACK, RUN, RUN, 6,
				 SPECKV_WRITEBACK_RELEASE),
			 nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	struct client owner;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	owner = rig_queue(b.rig, 1, 1, 1, 2);
	EQUAL(client_run(&owner, &fill, NULL), 0);
	/* Its completion ring is full: the notice waits for room, and is not lost. */
	for (int i = 0; i < 3; i++) {
		client_submit(&owner, &nop);
		speckv_card_run(b.rig->card, 1);
	}
	EQUAL(client_run(&b.client, &drop, NULL), CARD_WAIT);
	for (int i = 0; i < 3; i++) {
		CHECK(client_poll(&owner, &cqe), "no-op %d", i);
		EQUAL(cqe.status, 0);
	}
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&owner, &cqe) && cqe.status == SPECKV_NOTICE_RECALL, "the notice");
	EQUAL(client_run(&owner, &give, NULL), 0);
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&b.client, &cqe) && !cqe.status, "done");
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	bench_end(&b);
}

int main(void)
{
	invalidated_blocks_are_gone_and_their_pages_free();
	fills_are_sealed_as_frames();
	holders_are_recalled(true);
	holders_are_recalled(false);
	own_holds_are_given_up_silently();
	fills_of_others_are_recalled();
	return 0;
}

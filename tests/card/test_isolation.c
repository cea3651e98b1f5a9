// SPDX-License-Identifier: MIT
/*
 * Functions that try to reach what is not theirs, and peers that change things while they are
 * looked at.
 */
#include "rig.h"

/* A second client that knows everything of the first: pool number, addresses, generation, key. */
static struct client stranger(struct bench *b)
{
	struct client c;

	EQUAL(rig_function(b->rig, false, 2), 2);
	c = rig_queue(b->rig, 2, 0, 4, 6);
	client_buffer(&c, BUFFER_RAW, rig_alloc(b->rig, 2, 1u << 16), 1u << 16,
		SPECKV_BUFFER_CARD_READS);
	client_buffer(&c, BUFFER_IDENTITY, rig_alloc(b->rig, 2, 4096), 4096,
		SPECKV_BUFFER_CARD_READS);
	client_buffer(&c, BUFFER_OUT, rig_alloc(b->rig, 2, 1u << 17), 1u << 17,
		SPECKV_BUFFER_CARD_WRITES);
	client_buffer(&c, BUFFER_BOTH, rig_alloc(b->rig, 2, 1u << 17), 1u << 17,
		SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
	return c;
}

static void a_pool_is_closed_to_who_has_no_grant(void)
{
	struct bench b;
	struct client c;
	uint64_t used;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	c = stranger(&b);
	used = b.rig->card->pools[1].used_pages;
	for (unsigned int opcode = SPECKV_IO_WRITE; opcode <= SPECKV_IO_PREDICT; opcode++) {
		union card_entry e = bench_read(&b, 0, 1, 1);
		uint16_t status;

		if (opcode == SPECKV_IO_FLUSH)
			continue;
		switch (opcode) {
		case SPECKV_IO_WRITE:
			e = bench_write(&b, RUN, 1, 2);
			break;
		case SPECKV_IO_COPY:
			e = (union card_entry){ .copy = { .pool = 1,
							.destination_pool = 1,
							.generation = 1,
							.destination_address = RUN,
							.capacity = RUN } };
			break;
		case SPECKV_IO_TOUCH:
			e = (union card_entry){ .touch = { .pool = 1,
							.generation = 1,
							.session = SPECKV_NO_SESSION } };
			break;
		case SPECKV_IO_PREDICT:
			e = (union card_entry){ .predict = { .pool = 1,
							.buffer = BUFFER_BOTH,
							.candidate_count = 1,
							.depth = 1,
							.session = 0 } };
			break;
		case SPECKV_IO_READ:
		case SPECKV_IO_PREFETCH:
			break;
		default:
			e = (union card_entry){
				.range = { .pool = 1, .bytes = RUN, .generation = 1 }
			};
			break;
		}
		e.sqe.opcode = (uint8_t)opcode;
		status = client_run(&c, &e, NULL);
		CHECK(status == SPECKV_STATUS_DENIED, "opcode %u: 0x%x", opcode, status);
		/* Whether a pool exists is not said either. */
		e.sqe.pool = 63;
		if (opcode == SPECKV_IO_COPY)
			e.copy.destination_pool = 63;
		EQUAL(client_run(&c, &e, NULL), SPECKV_STATUS_DENIED);
	}
	EQUAL(b.rig->card->pools[1].used_pages, used);
	EQUAL(b.rig->dma.outside, 0);
	bench_end(&b);
}

static void rights_are_what_was_granted(void)
{
	struct bench b;
	struct client c, other;
	union card_entry read, write,
		drop = { .range = { .opcode = SPECKV_IO_INVALIDATE,
				 .pool = 1,
				 .bytes = RUN,
				 .generation = 1 } };
	union card_entry share = { .range = { .opcode = SPECKV_IO_ACQUIRE_SHARED,
					   .pool = 1,
					   .bytes = RUN,
					   .generation = 1 } };
	union card_entry give = { .range = { .opcode = SPECKV_IO_WRITEBACK,
					  .pool = 1,
					  .bytes = RUN,
					  .generation = 1,
					  .flags = SPECKV_WRITEBACK_RELEASE } };

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	c = stranger(&b);
	other = rig_queue(b.rig, 2, 1, 4, 6);
	client_buffer(&other, BUFFER_OUT, rig_alloc(b.rig, 2, 1u << 17), 1u << 17,
		SPECKV_BUFFER_CARD_WRITES);
	EQUAL(rig_grant(&b.admin, 2, 0, 1, b.uuid, SPECKV_RIGHT_READ), 0);
	read = bench_read(&b, 0, 1, 1);
	EQUAL(client_run(&c, &read, NULL), 0);
	/* granted to the other queue pair only */
	EQUAL(client_run(&other, &read, NULL), SPECKV_STATUS_DENIED);
	write = bench_write(&b, RUN, 1, 1);
	EQUAL(client_run(&c, &write, NULL), SPECKV_STATUS_DENIED);
	EQUAL(client_run(&c, &drop, NULL), SPECKV_STATUS_DENIED);
	EQUAL(client_run(&c, &share, NULL), 0);
	EQUAL(client_run(&c, &give, NULL), 0); /* who may read can answer a recall */
	/* Taken back while a command is on its way. */
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_SLOW, 0, 1000000, 1);
	EQUAL(client_run(&c, &read, NULL), CARD_WAIT);
	EQUAL(rig_grant(&b.admin, 2, 0, 1, b.uuid, 0), 0);
	{
		struct speckv_cqe cqe;

		CHECK(client_poll(&c, &cqe), "ended");
		EQUAL(cqe.status, SPECKV_STATUS_DENIED);
		speckv_card_run(b.rig->card, 10);
		CHECK(client_poll(&c, &cqe), "told");
		EQUAL(cqe.status, SPECKV_NOTICE_REVOKED);
	}
	EQUAL(client_run(&c, &read, NULL), SPECKV_STATUS_DENIED);
	bench_end(&b);
}

static void only_the_administrator_administers(void)
{
	struct bench b;
	struct client c;

	bench_begin(&b, SPECKV_CODEC_RAW);
	c = stranger(&b);
	/* No admin registers, no admin queue. */
	rig_write(b.rig, 2, REG(ADMIN_SQ_BASE.LO), (uint32_t)c.sq);
	rig_write(b.rig, 2, REG(ADMIN_SIZE), 4 | 4 << 8);
	EQUAL(rig_read(b.rig, 2, REG(ADMIN_SQ_BASE.LO)), 0);
	EQUAL(rig_read(b.rig, 2, REG(ADMIN_SIZE)), 0);
	rig_write(b.rig, 2, REG(ADMIN_SQ_TAIL), 1);
	speckv_card_run(b.rig->card, 10);
	/* Admin opcodes on an I/O queue are I/O opcodes, or none. */
	for (unsigned int opcode = SPECKV_ADMIN_SET_FEATURE; opcode <= SPECKV_ADMIN_GRANT;
		opcode++) {
		union card_entry e = { .grant = { .opcode = (uint8_t)opcode,
					       .pool = 1,
					       .function = 2,
					       .queue = 0,
					       .rights = 3 } };

		memcpy(e.grant.uuid, b.uuid, 16);
		EQUAL(client_run(&c, &e, NULL), SPECKV_STATUS_INVALID_OPCODE);
	}
	EQUAL(b.rig->card->functions[2]->pair[0].grant[1].rights, 0);
	EQUAL(rig_read(b.rig, 0, REG(STATUS)), 1);
	bench_end(&b);
}

static void buffers_are_a_functions_own(void)
{
	struct bench b;
	struct client c;
	union card_entry read;
	uint8_t before[64], *out;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	c = stranger(&b);
	EQUAL(rig_grant(&b.admin, 2, 0, 1, b.uuid, SPECKV_RIGHT_READ), 0);
	/*
	 * A table entry that names the first client's memory: the bus refuses, since the function
	 * is another.
	 */
	client_buffer(&c, 5, b.out, 1u << 17, SPECKV_BUFFER_CARD_WRITES);
	out = rig_at(b.rig, 1, b.out);
	memcpy(before, out, sizeof(before));
	read = bench_read(&b, 0, 1, 1);
	read.read.buffer = 5;
	EQUAL(client_run(&c, &read, NULL), SPECKV_STATUS_DMA_ERROR);
	CHECK(!memcmp(before, out, sizeof(before)), "untouched");
	CHECK(b.rig->dma.outside, "and the attempt was seen");
	/* The command failed, the queue pair goes on. */
	read.read.buffer = BUFFER_OUT;
	EQUAL(client_run(&c, &read, NULL), 0);
	bench_end(&b);
}

static void a_removed_function_leaves_nothing(void)
{
	struct bench b;
	struct client c;
	union card_entry fill = { .range = { .opcode = SPECKV_IO_ACQUIRE_EXCLUSIVE,
					  .pool = 1,
					  .address = RUN,
					  .bytes = RUN,
					  .generation = 2 } };
	union card_entry read;
	uint64_t dma;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	c = stranger(&b);
	EQUAL(rig_grant(&b.admin, 2, 0, 1, b.uuid, 3), 0);
	EQUAL(client_run(&c, &fill, NULL), 0);
	EQUAL(bench_put(&b, RUN, 2, 1, NULL), SPECKV_STATUS_CONFLICT);
	read = bench_read(&b, 0, 1, 1);
	client_submit(&c, &read);
	speckv_card_function_remove(b.rig->card, 2);
	dma = b.rig->dma_count;
	speckv_card_run(b.rig->card, 100);
	EQUAL(b.rig->dma_count, dma);
	EQUAL(bench_put(&b, RUN, 2, 1, NULL), 0);
	/* The next one with this number inherits nothing. */
	c = stranger(&b);
	EQUAL(client_run(&c, &read, NULL), SPECKV_STATUS_DENIED);
	bench_end(&b);
}

static void who_does_not_consume_stops_alone(void)
{
	struct bench b;
	struct client c;
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	unsigned int seen = 0;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(rig_function(b.rig, false, 1), 2);
	c = rig_queue(b.rig, 2, 0, 2, 3);
	for (unsigned int i = 0; i < 20; i++) {
		client_submit(&c, &nop);
		if (i % 3 == 2)
			speckv_card_run(b.rig->card, 100);
	}
	/* Seven places, never one more: nothing is written over what was not consumed. */
	EQUAL(b.rig->card->functions[2]->pair[0].cq_tail, 7);
	for (unsigned int i = 0; i < 100; i++)
		EQUAL(bench_put(&b, i % 10 * RUN, 1, 1, NULL), i < 10 ? 0 : SPECKV_STATUS_SEALED);
	while (client_poll(&c, &cqe)) {
		EQUAL(cqe.status, 0);
		seen++;
		speckv_card_run(b.rig->card, 100);
	}
	CHECK(seen > 7, "%u", seen);
	EQUAL(c.rig->card->functions[2]->pair[0].state, QUEUE_ENABLED);
	bench_end(&b);
}

/* ---- a peer that changes things in flight --------------------------------------------------- */

static uint64_t watch, watch_bytes;

static void scribble(struct rig *rig, unsigned int function, uint64_t address, uint64_t bytes,
	bool write)
{
	if (write || function != 1 || address + bytes <= watch || address >= watch + watch_bytes)
		return;
	for (uint64_t i = 0; i < watch_bytes; i++)
		*(uint8_t *)rig_at(rig, 1, watch + i) = (uint8_t)rig_random(rig);
}

static void entries_are_copied_once(void)
{
	struct bench b;

	for (int round = 0; round < 200; round++) {
		bench_begin(&b, SPECKV_CODEC_RAW);
		b.rig->random = (uint64_t)round * 7 + 1;
		b.rig->direct = round & 1;
		/* As soon as the card has looked at the entry, all of the ring is noise. */
		watch = b.client.sq;
		watch_bytes = 16 * 64;
		b.rig->peer = scribble;
		EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
		b.rig->peer = NULL;
		EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
		CHECK(!memcmp(rig_at(b.rig, 1, b.out), rig_at(b.rig, 1, b.raw), b.block_bytes),
			"what was meant");
		/* The identity and the buffer table likewise. */
		watch = round & 2 ? b.identity : b.client.table;
		watch_bytes = round & 2 ? 64 : 256;
		b.rig->peer = scribble;
		EQUAL(bench_put(&b, RUN, 1, 2, NULL), 0);
		b.rig->peer = NULL;
		EQUAL(bench_get(&b, RUN, 1, 2, NULL), 0);
		EQUAL(b.rig->dma.outside, 0);
		bench_end(&b);
	}
}

/* Values that change while they are encoded: whatever was stored, it verifies. */
static void changing_values_make_frames_that_verify(void)
{
	struct bench b;

	for (int round = 0; round < 50; round++) {
		uint16_t status;

		bench_begin(&b, round % 3 ? SPECKV_CODEC_INT8_DELTA_RLE : SPECKV_CODEC_RAW);
		b.rig->random = (uint64_t)round;
		watch = b.raw;
		watch_bytes = b.block_bytes;
		b.rig->peer = scribble;
		status = bench_put(&b, 0, 1, 1, NULL);
		b.rig->peer = NULL;
		EQUAL(status, 0);
		EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
		bench_end(&b);
	}
}

static void command_ids_are_unique_in_flight(void)
{
	struct bench b;
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	uint16_t id;

	bench_begin(&b, SPECKV_CODEC_RAW);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_STUCK, 0, 0, 1);
	id = client_submit(&b.client, &nop);
	b.client.next_id = id;
	client_submit(&b.client, &nop);
	b.client.next_id = SPECKV_EVENT_COMMAND_ID;
	client_submit(&b.client, &nop);
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&b.client, &cqe), "second");
	EQUAL(cqe.status, SPECKV_STATUS_COMMAND_ID_IN_USE);
	CHECK(client_poll(&b.client, &cqe), "third");
	EQUAL(cqe.status, SPECKV_STATUS_INVALID);
	/* A fence waits for the one that hangs, and so does everything behind it. */
	b.client.next_id = 100;
	nop.bare.flags = SPECKV_CMD_FENCE;
	client_submit(&b.client, &nop);
	nop.bare.flags = 0;
	client_submit(&b.client, &nop);
	speckv_card_run(b.rig->card, 10);
	CHECK(!client_poll(&b.client, &cqe), "waits");
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_UNSTICK, 0, 0, 0);
	for (uint16_t expected = 0; expected < 3; expected++) {
		speckv_card_run(b.rig->card, 10);
		CHECK(client_poll(&b.client, &cqe), "goes on");
		EQUAL(cqe.command_id, expected ? 99 + expected : id);
	}
	bench_end(&b);
}

int main(void)
{
	a_pool_is_closed_to_who_has_no_grant();
	rights_are_what_was_granted();
	only_the_administrator_administers();
	buffers_are_a_functions_own();
	a_removed_function_leaves_nothing();
	who_does_not_consume_stops_alone();
	entries_are_copied_once();
	changing_values_make_frames_that_verify();
	command_ids_are_unique_in_flight();
	return 0;
}

// SPDX-License-Identifier: MIT
/* BAR0: identification, side effects, doorbells, enable, reset. */
#include "rig.h"

static void identification_is_constant_and_read_only(void)
{
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(rig_read(b.rig, 0, REG(MAGIC)), SPECKV_MAGIC);
	EQUAL(rig_read(b.rig, 0, REG(RTL_REVISION)), 0x100);
	EQUAL(rig_read(b.rig, 1, REG(FUNCTION)), 1);
	EQUAL(rig_read(b.rig, 1, REG(LIMIT_QUEUES)), 4 | 1 << 16);
	EQUAL(rig_read(b.rig, 0, REG(CAPS)) & (SPECKV_CAP_ADMIN | SPECKV_CAP_ENGINE),
		SPECKV_CAP_ADMIN | SPECKV_CAP_ENGINE);
	EQUAL(rig_read(b.rig, 1, REG(CAPS)) & SPECKV_CAP_ADMIN, 0);
	EQUAL(rig_read(b.rig, 0, REG(UUID[1])), (uint32_t)('-' | 'u' << 8 | 'u' << 16 | 'i' << 24));
	for (uint32_t at = 0; at < REG(CONTROL); at += 4) {
		uint32_t before = rig_read(b.rig, 0, at);

		rig_write(b.rig, 0, at, ~before);
		EQUAL(rig_read(b.rig, 0, at), before);
	}
	/* Where nothing is: zero, and no effect. */
	EQUAL(rig_read(b.rig, 0, 0x3ffc), 0);
	EQUAL(rig_read(b.rig, 0, 2), 0);
	EQUAL(rig_read(b.rig, 0, SPECKV_CARD_BAR0_BYTES), 0);
	EQUAL(rig_read(b.rig, 5, REG(MAGIC)), 0);
	rig_write(b.rig, 5, REG(CONTROL), 1);
	rig_write(b.rig, 0, 0x20000, 1);
	bench_end(&b);
}

static void interrupt_status_is_cleared_by_ones_and_masked_by_enable(void)
{
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	rig_write(b.rig, 1, REG(INT_STATUS), 0x7f);
	EQUAL(rig_read(b.rig, 1, REG(INT_STATUS)), 0);
	memset(b.rig->interrupts, 0, sizeof(b.rig->interrupts));
	rig_write(b.rig, 1, REG(INT_TEST), 0xffffff05);
	EQUAL(rig_read(b.rig, 1, REG(INT_STATUS)), 0x05);
	EQUAL(b.rig->interrupts[1][0], 0);
	rig_write(b.rig, 1, REG(INT_ENABLE), 0xffffffff);
	EQUAL(rig_read(b.rig, 1, REG(INT_ENABLE)), 0x7f);
	EQUAL(b.rig->interrupts[1][0], 1); /* enabling what is pending raises it */
	rig_write(b.rig, 1, REG(INT_TEST), 0x04);
	EQUAL(b.rig->interrupts[1][0], 1); /* set already */
	rig_write(b.rig, 1, REG(INT_STATUS), 0x04);
	EQUAL(rig_read(b.rig, 1, REG(INT_STATUS)), 0x01);
	rig_write(b.rig, 1, REG(INT_TEST), 0x04);
	EQUAL(b.rig->interrupts[1][0], 2);
	EQUAL(b.rig->interrupts[0][0], 0);
	EQUAL(rig_read(b.rig, 1, REG(INT_TEST)), 0);
	bench_end(&b);
}

static void ready_follows_enable(void)
{
	struct bench b;
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	rig_write(b.rig, 1, REG(CONTROL), 0);
	EQUAL(rig_read(b.rig, 1, REG(STATUS)), 0);
	EQUAL(rig_read(b.rig, 1, PAIR(0, STATUS)), QUEUE_DISABLED);
	EQUAL(rig_read(b.rig, 1, BELL(0, SQ_TAIL)), 0);
	client_submit(&b.client, &nop);
	EQUAL(speckv_card_run(b.rig->card, 100), 0);
	/* A pair that is enabled before the function is ready does not run. */
	rig_write(b.rig, 1, PAIR(0, CONTROL), 1);
	EQUAL(rig_read(b.rig, 1, PAIR(0, STATUS)), QUEUE_FAILED | SPECKV_STATUS_NOT_READY << 16);
	rig_write(b.rig, 1, PAIR(0, CONTROL), 0);
	rig_write(b.rig, 1, REG(CONTROL), 1);
	b.client = rig_queue(b.rig, 1, 0, 4, 6);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	bench_end(&b);
}

static void reset_takes_queue_pairs_and_rights_and_leaves_pools(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct bench b;
	uint32_t count;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	count = rig_read(b.rig, 1, REG(RESET_COUNT));
	rig_write(b.rig, 1, REG(SCRATCH.LO), 77);
	EQUAL(rig_read(b.rig, 1, REG(SCRATCH.LO)), 77);
	client_submit(&b.client, &nop);
	rig_write(b.rig, 1, REG(CONTROL), 1u << 31);
	b.rig->dma.outside = b.rig->dma_count = 0;
	speckv_card_run(b.rig->card, 100);
	EQUAL(b.rig->dma_count, 0); /* no DMA after a reset */
	EQUAL(rig_read(b.rig, 1, REG(RESET_COUNT)), count + 1);
	EQUAL(rig_read(b.rig, 1, REG(SCRATCH.LO)), 0);
	EQUAL(rig_read(b.rig, 1, PAIR(0, SQ_BASE.HI)), 0);
	rig_write(b.rig, 1, REG(CONTROL), 1);
	b.client = rig_queue(b.rig, 1, 0, 4, 6);
	client_buffer(&b.client, BUFFER_OUT, b.out, 1u << 17, SPECKV_BUFFER_CARD_WRITES);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_DENIED);
	EQUAL(rig_grant(&b.admin, 1, 0, 1, b.uuid, SPECKV_RIGHT_READ), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	bench_end(&b);
}

static void wrong_admin_queue_is_fatal_until_reset(void)
{
	struct rig *rig = rig_new();
	struct client admin;
	union card_entry e = { .value = { .opcode = SPECKV_ADMIN_GET_FEATURE,
				       .feature = SPECKV_FEATURE_RECALL_TIMEOUT_MS } };
	uint64_t result;

	rig_power_on(rig);
	rig_function(rig, true, 1);
	rig_write(rig, 0, REG(ADMIN_SIZE), 4 | 3 << 8); /* fewer completions than submissions */
	rig_write(rig, 0, REG(CONTROL), 1);
	EQUAL(rig_read(rig, 0, REG(STATUS)) & 3, SPECKV_REGS__STATUS__FATAL_bm);
	EQUAL(rig_read(rig, 0, REG(FATAL_CAUSE)), SPECKV_FATAL_ADMIN_QUEUE);
	rig_write(rig, 0, REG(CONTROL), 1u << 31);
	admin = rig_admin(rig, 0);
	EQUAL(client_run(&admin, &e, &result), 0);
	EQUAL(result, 1000);
	rig_write(rig, 0, REG(ADMIN_SQ_TAIL), 16);
	EQUAL(rig_read(rig, 0, REG(FATAL_CAUSE)), SPECKV_FATAL_ADMIN_DOORBELL);
	EQUAL(speckv_card_run(rig->card, 10), 0);
	rig_write(rig, 0, REG(CONTROL), 1u << 31);
	admin = rig_admin(rig, 0);
	EQUAL(client_run(&admin, &e, &result), 0);
	rig_free(rig);
}

static void wrong_queue_pairs_fail_alone(void)
{
	static const struct {
		uint32_t size, sq, table, count;
	} wrong[] = {
		{ 0 | 4 << 8, 0, 0, 1 },
		{ 4 | 4 << 8, 0, 0, 1 },
		{ 13 | 14 << 8, 0, 0, 1 },
		{ 4 | 5 << 8, 64, 0, 1 },
		{ 4 | 5 << 8, 0, 8, 1 },
		{ 4 | 5 << 8, 0, 0, 1025 },
	};
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		rig_write(b.rig, 1, PAIR(1, SQ_BASE.LO), wrong[i].sq);
		rig_write(b.rig, 1, PAIR(1, BUFFER_TABLE.LO), wrong[i].table);
		rig_write(b.rig, 1, PAIR(1, BUFFER_COUNT), wrong[i].count);
		rig_write(b.rig, 1, PAIR(1, SIZE), wrong[i].size);
		rig_write(b.rig, 1, PAIR(1, CONTROL), 1);
		EQUAL(rig_read(b.rig, 1, PAIR(1, STATUS)),
			QUEUE_FAILED | SPECKV_STATUS_INVALID << 16);
		CHECK(rig_read(b.rig, 1, REG(INT_STATUS)) & SPECKV_REGS__INT_STATUS__QUEUE_PAIR_bm,
			"told");
		rig_write(b.rig, 1, PAIR(1, CONTROL), 0);
		EQUAL(rig_read(b.rig, 1, PAIR(1, STATUS)), QUEUE_DISABLED);
	}
	/* A tail beyond the ring stops this pair. */
	rig_write(b.rig, 1, BELL(0, SQ_TAIL), 16);
	speckv_card_run(b.rig->card, 10);
	EQUAL(rig_read(b.rig, 1, PAIR(0, STATUS)), QUEUE_FAILED | SPECKV_STATUS_INVALID << 16);
	b.client = rig_queue(b.rig, 1, 2, 4, 6);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	/* Pairs and doorbells that do not exist. */
	rig_write(b.rig, 1, PAIR(4, SIZE), 1);
	EQUAL(rig_read(b.rig, 1, PAIR(4, SIZE)), 0);
	rig_write(b.rig, 1, BELL(4, SQ_TAIL), 1);
	EQUAL(rig_read(b.rig, 1, BELL(4, SQ_TAIL)), 0);
	bench_end(&b);
}

static void counters_hold_still_between_snapshots(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct bench b;
	uint32_t before;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(rig_read(b.rig, 1, REG(COUNT_COMMANDS.LO)), 0);
	rig_write(b.rig, 1, REG(COUNTER_CONTROL), 1);
	before = rig_read(b.rig, 1, REG(COUNT_COMMANDS.LO));
	EQUAL(before, 1);
	CHECK(rig_read(b.rig, 1, REG(COUNT_CYCLES.LO)), "cycles");
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(rig_read(b.rig, 1, REG(COUNT_COMMANDS.LO)), before);
	rig_write(b.rig, 0, REG(COUNTER_CONTROL), 1);
	EQUAL(rig_read(b.rig, 0, REG(COUNT_COMMANDS.LO)), 2);
	/* Another client's work is not shown to a client. */
	EQUAL(rig_function(b.rig, false, 1), 2);
	rig_write(b.rig, 2, REG(COUNTER_CONTROL), 1);
	EQUAL(rig_read(b.rig, 2, REG(COUNT_COMMANDS.LO)), 0);
	bench_end(&b);
}

/* FLUSH and a shutdown reach the medium, and say when they do not. */
static void what_is_to_be_durable_is_synced(void)
{
	struct bench b;
	union card_entry flush = { .bare = { .opcode = SPECKV_IO_FLUSH } };
	unsigned int before;

	bench_begin(&b, SPECKV_CODEC_RAW);
	before = (unsigned int)b.rig->syncs;
	EQUAL(client_run(&b.client, &flush, NULL), 0);
	EQUAL(b.rig->syncs, before + 1);
	b.rig->sync_fails = true;
	EQUAL(client_run(&b.client, &flush, NULL), SPECKV_STATUS_INTERNAL);
	rig_write(b.rig, 0, REG(CONTROL), 3);
	CHECK(rig_read(b.rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__FATAL_bm,
		"a shutdown that is not durable is none");
	EQUAL(memory_superblock(b.rig->card)->clean, 0);
	bench_end(&b);
}

static void shutdown_is_the_administrators(void)
{
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	rig_write(b.rig, 1, REG(CONTROL), 3);
	EQUAL(rig_read(b.rig, 1, REG(STATUS)), 1);
	rig_write(b.rig, 0, REG(CONTROL), 3);
	EQUAL(rig_read(b.rig, 0, REG(STATUS)), 2 << 4);
	EQUAL(rig_read(b.rig, 1, REG(STATUS)), 0);
	CHECK(b.rig->syncs, "tables were written back");
	rig_restart(b.rig);
	EQUAL(memory_superblock(b.rig->card)->power_cycles, 2);
	EQUAL(memory_superblock(b.rig->card)->unsafe_power_cycles, 0);
	rig_restart(b.rig);
	EQUAL(memory_superblock(b.rig->card)->unsafe_power_cycles, 1);
	bench_end(&b);
}

static void shared_doorbells_sleep_and_wake(void)
{
	struct rig *rig = rig_new();
	struct speckv_doorbell_page *page = aligned_alloc(4096, 4096);
	struct speckv_card_function_config config = { .queue_pairs = 1, .doorbells = page };
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct client c;
	struct speckv_cqe cqe;

	memset(page, 0, 4096);
	rig_power_on(rig);
	EQUAL(speckv_card_function_add(rig->card, &config), 0);
	CHECK(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_SHARED_DOORBELL, "caps");
	rig_write(rig, 0, REG(CONTROL), 1);
	c = rig_queue(rig, 0, 0, 4, 6);
	CHECK(speckv_card_sleep(rig->card), "nothing to do");
	EQUAL(page->need_wake, 1);
	EQUAL(rig_read(rig, 0, REG(DOORBELLS) + 0x800), 1);
	client_submit(&c, &nop);
	EQUAL(page->slot[0].sq_tail, 1);
	rig_write(rig, 0, REG(KICK), 0);
	EQUAL(page->need_wake, 0);
	CHECK(!speckv_card_sleep(rig->card), "a tail has moved");
	EQUAL(page->need_wake, 0);
	EQUAL(speckv_card_run(rig->card, 10), 1);
	CHECK(client_poll(&c, &cqe), "completed");
	CHECK(speckv_card_sleep(rig->card), "nothing to do");
	speckv_card_function_remove(rig->card, 0);
	free(page);
	speckv_card_run(rig->card, 10);
	rig_free(rig);
}

int main(void)
{
	identification_is_constant_and_read_only();
	interrupt_status_is_cleared_by_ones_and_masked_by_enable();
	ready_follows_enable();
	reset_takes_queue_pairs_and_rights_and_leaves_pools();
	wrong_admin_queue_is_fatal_until_reset();
	wrong_queue_pairs_fail_alone();
	counters_hold_still_between_snapshots();
	what_is_to_be_durable_is_synced();
	shutdown_is_the_administrators();
	shared_doorbells_sleep_and_wake();
	return 0;
}

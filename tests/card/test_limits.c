// SPDX-License-Identifier: MIT
/* What one function may not do to the others. */
#include <sys/mman.h>

#include "rig.h"

/* And a queue pair of another function, 2. */
static struct client bench_with_another(struct bench *b, uint32_t codec)
{
	bench_begin(b, codec);
	EQUAL(rig_function(b->rig, false, 1), 2);
	return rig_queue(b->rig, 2, 0, 4, 5);
}

/* ---- host memory that comes later ----------------------------------------------------------- */

static int (*read_at_once)(void *arg, unsigned int function, uint64_t address, void *to,
	uint64_t bytes);
static struct {
	uint64_t address, bytes;
} known[64]; /* what the command under way has been given, in order */
static unsigned int known_count, ended;
static bool asked;

/* Each piece is on its way when it is asked for first. */
static int read_later(void *arg, unsigned int function, uint64_t address, void *to, uint64_t bytes)
{
	if (function != 1)
		return read_at_once(arg, function, address, to, bytes);
	for (unsigned int i = 0; i < known_count; i++)
		if (known[i].address == address && known[i].bytes == bytes)
			return read_at_once(arg, function, address, to, bytes);
	CHECK(known_count < 64, "a command asks for the same again");
	known[known_count].address = address;
	known[known_count++].bytes = bytes;
	asked = true;
	return -EAGAIN;
}

static void read_end(void *arg, unsigned int function)
{
	EQUAL(function, 1);
	known_count = 0;
	ended++;
}

static uint16_t run_with_answers(struct bench *b, const union card_entry *entry)
{
	struct speckv_cqe cqe;

	client_submit(&b->client, entry);
	for (unsigned int i = 0; i < 100; i++) {
		speckv_card_run(b->rig->card, 1000);
		if (client_poll(&b->client, &cqe))
			return cqe.status;
		CHECK(asked, "it waits for nothing");
		CHECK(speckv_card_sleep(b->rig->card), "nothing to do but to wait");
		speckv_card_wake(b->rig->card);
		asked = false;
		speckv_card_dma_answered(b->rig->card, 1);
	}
	return CARD_WAIT;
}

static void a_command_that_waits_for_host_memory_blocks_no_other_function(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } }, entry;
	struct speckv_log_header header;
	struct speckv_log_health health;
	struct speckv_cqe cqe;
	struct client other;
	struct bench b;

	other = bench_with_another(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	read_at_once = b.rig->ops.dma_read;
	b.rig->card->ops.dma_read = read_later;
	b.rig->card->ops.dma_end = read_end;
	known_count = ended = 0;
	client_submit(&b.client, &nop);
	for (int i = 0; i < 10; i++)
		speckv_card_run(b.rig->card, 1000);
	CHECK(!client_poll(&b.client, &cqe), "its entry has not come");
	EQUAL(client_run(&other, &nop, NULL), 0);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	speckv_card_dma_answered(b.rig->card, 1);
	speckv_card_run(b.rig->card, 1000);
	CHECK(client_poll(&b.client, &cqe) && !cqe.status, "now it has");
	/* late answers for entry, buffer table, identity and data change nothing of a command */
	bench_fill(&b, 1);
	entry = bench_write(&b, 0, 1, 1);
	EQUAL(run_with_answers(&b, &entry), 0);
	entry = bench_read(&b, 0, 1, 1);
	EQUAL(run_with_answers(&b, &entry), 0);
	EQUAL(b.rig->card->pools[1].count, 1);
	EQUAL(known_count, 0);
	CHECK(ended >= 3, "what was read for a command is forgotten with it");
	/* a reset in the middle forgets it, too */
	client_submit(&b.client, &nop);
	speckv_card_run(b.rig->card, 1000);
	CHECK(known_count, "under way");
	rig_write(b.rig, 1, REG(CONTROL), 1u << 31);
	EQUAL(known_count, 0);
	EQUAL(client_run(&other, &nop, NULL), 0);
	bench_end(&b);
}

static void a_function_that_is_held_or_failed_rests(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	struct client other;
	struct bench b;

	other = bench_with_another(&b, SPECKV_CODEC_RAW);
	speckv_card_hold(b.rig->card, 1, true);
	client_submit(&b.client, &nop);
	EQUAL(client_run(&other, &nop, NULL), 0);
	CHECK(!client_poll(&b.client, &cqe), "held");
	CHECK(speckv_card_sleep(b.rig->card), "and no work");
	speckv_card_wake(b.rig->card);
	speckv_card_hold(b.rig->card, 1, false);
	speckv_card_run(b.rig->card, 1000);
	CHECK(client_poll(&b.client, &cqe), "on it goes");
	speckv_card_dma_failed(b.rig->card, 1);
	EQUAL(b.rig->card->functions[1]->pair[0].status, SPECKV_STATUS_DMA_ERROR);
	EQUAL(client_run(&other, &nop, NULL), 0);
	bench_end(&b);
}

static void who_used_little_comes_first(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct speckv_cqe cqe;
	struct client other;
	struct bench b;

	other = bench_with_another(&b, SPECKV_CODEC_RAW);
	for (int turn = 0; turn < 20; turn++) {
		for (int i = 0; i < 6; i++)
			client_submit(&b.client, &nop);
		speckv_card_run(b.rig->card, 3);
		while (client_poll(&b.client, &cqe))
			;
		client_submit(&other, &nop);
		speckv_card_run(b.rig->card, 1);
		CHECK(client_poll(&other, &cqe), "turn %d: behind those of the other", turn);
		while (speckv_card_run(b.rig->card, 1000))
			while (client_poll(&b.client, &cqe))
				;
	}
	CHECK(speckv_card_spent(b.rig->card, 1) > speckv_card_spent(b.rig->card, 2),
		"time is kept");
	bench_end(&b);
}

/* ---- commands that wait --------------------------------------------------------------------- */

static uint64_t translations(const struct bench *b)
{
	return b->rig->card->counters[COUNT_TLB_HITS] + b->rig->card->counters[COUNT_TLB_MISSES];
}

#define APART SPECKV_CARD_PAGE_BYTES /* a block in a translation page of its own */

static void an_invalidation_that_waits_is_looked_at_when_a_holder_gives_up(void)
{
	union card_entry share = bench_range(SPECKV_IO_ACQUIRE_SHARED, 0, 10 * BENCH_PAGE, 1, 0),
			 all = bench_range(SPECKV_IO_INVALIDATE, 0, 1u << 20, 0, 0);
	union card_entry give =
		bench_range(SPECKV_IO_WRITEBACK, 0, 10 * BENCH_PAGE, 1, SPECKV_WRITEBACK_RELEASE);
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct client holders[2];
	struct speckv_cqe cqe;
	struct bench b;
	uint64_t before;

	bench_begin(&b, SPECKV_CODEC_RAW);
	holders[0] = rig_queue(b.rig, 1, 1, 4, 5);
	holders[1] = rig_queue(b.rig, 1, 2, 1, 2);
	for (uint64_t i = 0; i < 8; i++)
		EQUAL(bench_put(&b, i * APART, 1 + i, 1, NULL), 0);
	for (unsigned int h = 0; h < 2; h++) {
		share.range.address = h ? 5 * APART : 0;
		share.range.generation = h ? 6 : 1;
		EQUAL(client_run(&holders[h], &share, NULL), 0);
	}
	for (int i = 0; i < 3; i++) { /* the second one's ring is full: it cannot be told now */
		client_submit(&holders[1], &nop);
		speckv_card_run(b.rig->card, 1);
	}
	client_submit(&b.client, &all);
	speckv_card_run(b.rig->card, 1000);
	before = translations(&b);
	for (int i = 0; i < 50; i++)
		speckv_card_run(b.rig->card, 1000);
	EQUAL(translations(&b), before);
	EQUAL(b.rig->card->pools[1].count, 2); /* the others went at once */
	CHECK(client_poll(&holders[0], &cqe) && cqe.status == SPECKV_NOTICE_RECALL &&
			(cqe.result & 0xffffffffffff) == 0,
		"the first is told");
	CHECK(speckv_card_next_ns(b.rig->card) <= b.rig->now + 2000000,
		"there is one to be told yet, with every millisecond");
	for (int i = 0; i < 3; i++)
		CHECK(client_poll(&holders[1], &cqe) && !cqe.status, "no-op %d", i);
	speckv_card_run(b.rig->card, 1000);
	CHECK(client_poll(&holders[1], &cqe) && cqe.status == SPECKV_NOTICE_RECALL &&
			(cqe.result & 0xffffffffffff) == 5 * APART,
		"now that it has room");
	EQUAL(b.rig->card->functions[1]->pair[2].untold, 0);
	CHECK(speckv_card_next_ns(b.rig->card) > b.rig->now + 2000000, "nothing to do but to wait");
	EQUAL(client_run(&holders[0], &give, NULL), 0);
	speckv_card_run(b.rig->card, 1000);
	EQUAL(b.rig->card->pools[1].count, 1);
	CHECK(!client_poll(&b.client, &cqe), "one holds on");
	give.range.address = 5 * APART;
	give.range.generation = 6;
	EQUAL(client_run(&holders[1], &give, NULL), 0);
	speckv_card_run(b.rig->card, 1000);
	CHECK(client_poll(&b.client, &cqe) && !cqe.status, "done, and not only at the deadline");
	EQUAL(b.rig->card->pools[1].used_pages, 0);
	bench_end(&b);
}

static void a_large_range_is_invalidated_a_little_at_a_time(void)
{
	struct speckv_pool_description d = rig_pool("fine", 4u << 20, SPECKV_CODEC_RAW);
	union card_entry fill = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE, 0, 256, 1, 0),
			 give = bench_range(SPECKV_IO_WRITEBACK, 0, 256, 1,
				 SPECKV_WRITEBACK_RELEASE);
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } }, all;
	unsigned int turns = 0;
	struct speckv_cqe cqe;
	struct client other;
	struct bench b;

	other = bench_with_another(&b, SPECKV_CODEC_RAW);
	d.page_bytes = 256;
	EQUAL(rig_create(&b.admin, &d, &b.pool), 0);
	EQUAL(rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, (unsigned int)b.pool, d.uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	for (uint64_t at = 0; at < d.capacity_bytes; at += 1u << 18)
		EQUAL(bench_put(&b, at, 1, 1, NULL), 0);
	all = bench_range(SPECKV_IO_INVALIDATE, 0, d.capacity_bytes, 1, 0);
	all.range.pool = (uint16_t)b.pool;
	/* What is wrong at its end is found before anything is changed. */
	EQUAL(bench_put(&b, d.capacity_bytes - (1u << 16), 2, 1, NULL), 0);
	EQUAL(client_run(&b.client, &all, NULL), SPECKV_STATUS_NOT_FOUND);
	EQUAL(b.rig->card->pools[b.pool].count, 17);
	all.range.generation = 0;
	client_submit(&b.client, &all);
	for (;; turns++) {
		uint64_t before = translations(&b);

		CHECK(turns < 100, "it goes on");
		speckv_card_run(b.rig->card, 1000);
		CHECK(translations(&b) - before <= 16, "%llu pages in a turn",
			(unsigned long long)(translations(&b) - before));
		if (client_poll(&b.client, &cqe))
			break;
		EQUAL(speckv_card_next_ns(b.rig->card), 0); /* a card does not sleep over it */
		EQUAL(client_run(&other, &nop, NULL), 0);
	}
	EQUAL(cqe.status, 0);
	CHECK(turns > 2, "%u turns", turns);
	EQUAL(b.rig->card->pools[b.pool].used_pages, 0);
	/*
	 * A held block in front makes the command wait: the steps after its release are bounded as
	 * well.
	 */
	EQUAL(rig_grant(&b.admin, 2, SPECKV_ALL_QUEUES, (unsigned int)b.pool, d.uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	fill.range.pool = give.range.pool = (uint16_t)b.pool;
	EQUAL(client_run(&other, &fill, NULL), 0);
	EQUAL(client_run(&b.client, &all, NULL), CARD_WAIT);
	CHECK(client_poll(&other, &cqe) && cqe.status == SPECKV_NOTICE_RECALL, "told");
	EQUAL(client_run(&other, &give, NULL), 0);
	for (turns = 0; !client_poll(&b.client, &cqe); turns++) {
		CHECK(turns < 100, "it goes on");
		EQUAL(speckv_card_next_ns(b.rig->card), 0);
		speckv_card_run(b.rig->card, 1000);
	}
	EQUAL(cqe.status, 0);
	CHECK(turns > 2, "%u turns", turns);
	/* Many blocks in it: fewer pages in a turn. */
	for (uint64_t at = 0; at < 1u << 18; at += d.page_bytes) {
		fill.range.address = at;
		EQUAL(client_run(&b.client, &fill, NULL), 0);
	}
	client_submit(&b.client, &all);
	while (!client_poll(&b.client, &cqe)) {
		uint64_t before = b.rig->card->pools[b.pool].used_pages;

		speckv_card_run(b.rig->card, 1000);
		CHECK(before - b.rig->card->pools[b.pool].used_pages <= 128,
			"pages that went in a turn");
	}
	EQUAL(cqe.status, 0);
	EQUAL(b.rig->card->pools[b.pool].used_pages, 0);
	bench_end(&b);
}

/*
 * What a queue pair holds is found where it lies, however large its pool is: most of the directory
 * is not even there.
 */
static void what_is_held_is_given_up_without_a_look_at_the_rest(void)
{
	struct speckv_pool_description d = rig_pool("fine", 4u << 20, SPECKV_CODEC_RAW);
	union card_entry fill = bench_range(SPECKV_IO_ACQUIRE_EXCLUSIVE,
		d.capacity_bytes - (1u << 16), 1u << 16, 1, 0);
	struct card_pool *pool;
	struct client other;
	struct bench b;
	uint8_t *rest;
	uint64_t bytes;

	other = bench_with_another(&b, SPECKV_CODEC_RAW);
	d.page_bytes = 256;
	EQUAL(rig_create(&b.admin, &d, &b.pool), 0);
	EQUAL(rig_grant(&b.admin, 2, SPECKV_ALL_QUEUES, (unsigned int)b.pool, d.uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	fill.range.pool = (uint16_t)b.pool;
	EQUAL(client_run(&other, &fill, NULL), 0);
	pool = &b.rig->card->pools[b.pool];
	rest = (uint8_t *)(((uintptr_t)pool->blocks + 4095) / 4096 * 4096);
	bytes = (pool->pages - 1024) * sizeof(*pool->blocks) / 4096 * 4096;
	CHECK(mprotect(rest, bytes, PROT_NONE) == 0, "mprotect");
	rig_write(b.rig, other.function, PAIR(other.queue, CONTROL), 0);
	CHECK(mprotect(rest, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect");
	EQUAL(pool->used_pages, 0);
	bench_end(&b);
}

static void an_answer_from_host_memory_runs_the_command_that_asked(void)
{
	struct speckv_cqe cqe;
	unsigned int done = 0;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
	/*
	 * All are in flight, held up by the pool's bandwidth, when they begin to read what is not
	 * at hand.
	 */
	b.rig->card->pools[1].record.description.burst_bytes_per_second = 1u << 20;
	for (uint64_t i = 0; i < 10; i++) {
		union card_entry entry = bench_write(&b, i * APART, 1, 1);

		client_submit(&b.client, &entry);
	}
	for (int i = 0; i < 3; i++)
		speckv_card_run(b.rig->card, 1000);
	EQUAL(b.rig->card->functions[1]->pair[0].waits, 9);
	b.rig->now += 20 * (b.block_bytes * 1000000000 >> 20);
	read_at_once = b.rig->ops.dma_read;
	b.rig->card->ops.dma_read = read_later;
	b.rig->card->ops.dma_end = read_end;
	known_count = 0;
	for (unsigned int turn = 0; turn < 200 && done < 10; turn++) {
		uint64_t before;

		for (int i = 0; i < 3; i++) /* none waits for another turn to begin */
			speckv_card_run(b.rig->card, 1000);
		before = translations(&b);
		for (int i = 0; i < 10; i++)
			speckv_card_run(b.rig->card, 1000);
		EQUAL(translations(&b), before);
		speckv_card_dma_answered(b.rig->card, 1);
		speckv_card_run(b.rig->card, 1000);
		CHECK(translations(&b) - before <= 3, "turn %u: %llu translations", turn,
			(unsigned long long)(translations(&b) - before));
		while (client_poll(&b.client, &cqe)) {
			EQUAL(cqe.status, 0);
			done++;
		}
	}
	EQUAL(done, 10);
	bench_end(&b);
}

static void commands_that_wait_for_bandwidth_do_not_read_the_clock(void)
{
	struct speckv_cqe cqe;
	union card_entry read;
	uint64_t before;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	b.rig->card->pools[1].record.description.burst_bytes_per_second = 1u << 20;
	read = bench_read(&b, 0, 1, 1);
	for (int i = 0; i < 12; i++)
		client_submit(&b.client, &read);
	for (int i = 0; i < 3; i++)
		speckv_card_run(b.rig->card, 1000);
	EQUAL(b.rig->card->functions[1]->pair[0].waits, 11);
	before = b.rig->now; /* each look at the clock is 10 ns there */
	speckv_card_run(b.rig->card, 1000);
	CHECK(b.rig->now - before <= 30, "%llu looks at the clock",
		(unsigned long long)(b.rig->now - before) / 10);
	b.rig->now += 20 * (b.block_bytes * 1000000000 >> 20);
	before = 0;
	speckv_card_run(b.rig->card, 1000);
	while (client_poll(&b.client, &cqe)) {
		EQUAL(cqe.status, 0);
		before++;
	}
	EQUAL(before, 12);
	bench_end(&b);
}

int main(void)
{
	a_command_that_waits_for_host_memory_blocks_no_other_function();
	a_function_that_is_held_or_failed_rests();
	who_used_little_comes_first();
	an_invalidation_that_waits_is_looked_at_when_a_holder_gives_up();
	a_large_range_is_invalidated_a_little_at_a_time();
	what_is_held_is_given_up_without_a_look_at_the_rest();
	an_answer_from_host_memory_runs_the_command_that_asked();
	commands_that_wait_for_bandwidth_do_not_read_the_clock();
	return 0;
}

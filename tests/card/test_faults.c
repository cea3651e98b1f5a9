// SPDX-License-Identifier: MIT
/* DMA that fails at every point, injected faults, and processes killed at any moment. */
#include "rig.h"

/* Tables, directory and counts say the same. */
static void accounts_hold(struct speckv_card *card)
{
	uint64_t free_pages = 0;

	for (uint64_t i = 0; i < card->layout.pages; i++)
		free_pages += !(card->page_map[i] & (PAGE_OWNER | PAGE_POISON));
	EQUAL(card->free_pages, free_pages);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct card_pool *pool = &card->pools[n];
		uint64_t used = 0, stored = 0, count = 0;

		if (!pool->present)
			continue;
		CHECK(memory_pool_check(card, n), "pool %u", n);
		for (uint64_t i = 0; i < pool->pages; i++) {
			const struct card_block *block = &pool->blocks[i];

			used += block->state != BLOCK_FREE;
			if (block->state == BLOCK_SEALED || block->state == BLOCK_DYING) {
				stored += block->bytes;
				count++;
			}
		}
		EQUAL(pool->used_pages, used);
		EQUAL(pool->stored_bytes, stored);
		EQUAL(pool->count, count);
	}
}

/* A bit of everything. Returns false when something failed. */
static bool scenario(struct bench *b)
{
	union card_entry e,
		copy = { .copy = { .opcode = SPECKV_IO_COPY,
				 .pool = 1,
				 .destination_pool = 1,
				 .generation = 1,
				 .destination_address = 2 * RUN,
				 .destination_generation = 3,
				 .capacity = RUN } };
	union card_entry predict = { .predict = { .opcode = SPECKV_IO_PREDICT,
					     .pool = 1,
					     .buffer = BUFFER_BOTH,
					     .session = 1,
					     .candidate_count = 3,
					     .depth = 1,
					     .flags = SPECKV_PREDICT_STAGE,
					     .budget_bytes = 1u << 20 } };
	struct speckv_candidate *c = rig_at(b->rig, 1, b->frames);
	struct speckv_log_header header;
	struct speckv_log_event events[16];
	bool good = true;

	memset(copy.copy.key_prefix, 1, 16);
	good &= !bench_put(b, 0, 1, 1, NULL);
	good &= !bench_put(b, RUN, 2, 2, NULL);
	good &= !bench_get(b, 0, 1, 1, NULL);
	good &= !client_run(&b->client, &copy, NULL);
	for (unsigned int i = 0; i < 3; i++)
		c[i] = (struct speckv_candidate){ .address = i * RUN, .generation = i + 1 };
	good &= !client_run(&b->client, &predict, NULL);
	good &= !bench_get(b, 2 * RUN, 3, 1, NULL);
	e = (union card_entry){ .range = {
					.opcode = SPECKV_IO_INVALIDATE, .pool = 1, .bytes = RUN } };
	good &= !client_run(&b->client, &e, NULL);
	good &= !rig_log(&b->admin, SPECKV_LOG_EVENTS, 0, 0, events, sizeof(events), &header);
	return good;
}

static void reconnect(struct bench *b)
{
	for (unsigned int f = 0; f < 2; f++)
		speckv_card_function_remove(b->rig->card, f);
	bench_connect(b);
	bench_fill(b, 7);
	EQUAL(rig_grant(&b->admin, 1, SPECKV_ALL_QUEUES, 1, b->uuid, 3), 0);
}

static void dma_fails_at_every_point(bool dead, bool direct)
{
	bool finished = false;
	unsigned int points = 0;

	for (uint64_t at = 0; !finished; at++) {
		struct bench b;
		union card_entry all = {
			.range = { .opcode = SPECKV_IO_INVALIDATE, .pool = 1, .bytes = 4 * RUN }
		};

		bench_begin(&b, at & 1 ? SPECKV_CODEC_RAW : SPECKV_CODEC_INT8_DELTA_RLE);
		b.rig->direct = direct;
		b.rig->dma_count = 0;
		b.rig->dma_fail_at = at;
		b.rig->dma_dead = dead;
		/*
		 * Completions that cannot be written do not arrive: the helpers see that as
		 * waiting.
		 */
		finished = scenario(&b) && b.rig->dma_count <= at;
		b.rig->dma_fail_at = UINT64_MAX;
		b.rig->dma_dead = false;
		accounts_hold(b.rig->card);
		reconnect(&b);
		client_run(&b.client, &all, NULL);
		CHECK(scenario(&b), "works again after DMA %llu failed", (unsigned long long)at);
		accounts_hold(b.rig->card);
		bench_end(&b);
		points++;
	}
	CHECK(points > 30, "%u points", points);
}

static void interrupts_get_lost_and_come_twice(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(b.rig->interrupts[1][1], 1);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_LOST_INTERRUPT, 0, 0, 1);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(b.rig->interrupts[1][1], 1);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_DUPLICATE_INTERRUPT, 0, 0, 1);
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(b.rig->interrupts[1][1], 3);
	nop.bare.flags = SPECKV_CMD_QUIET;
	EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(b.rig->interrupts[1][1], 3);
	bench_end(&b);
}

static void interrupts_are_gathered(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	union card_entry set = { .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
					 .feature = SPECKV_FEATURE_INTERRUPT_COALESCING,
					 .value = 4 | 100 << 16 } };
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(client_run(&b.admin, &set, NULL), 0);
	memset(b.rig->interrupts, 0, sizeof(b.rig->interrupts));
	for (int i = 0; i < 6; i++)
		EQUAL(client_run(&b.client, &nop, NULL), 0);
	EQUAL(b.rig->interrupts[1][1], 1);
	CHECK(speckv_card_next_ns(b.rig->card) != UINT64_MAX, "the rest is due");
	b.rig->now = speckv_card_next_ns(b.rig->card);
	speckv_card_run(b.rig->card, 10);
	EQUAL(b.rig->interrupts[1][1], 2);
	bench_end(&b);
}

static void poisoned_pages_fail_and_are_retired(void)
{
	struct bench b;
	union card_entry drop = { .pool = { .opcode = SPECKV_ADMIN_DELETE_POOL, .pool = 1 } };
	uint64_t all;

	bench_begin(&b, SPECKV_CODEC_RAW);
	all = b.rig->card->layout.pages;
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_put(&b, 1u << 19, 1, 2, NULL), 0);
	EQUAL(speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_POISON, 1, 100, 1), 0);
	EQUAL(speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_POISON, 9, 100, 1), -ENOENT);
	EQUAL(speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_POISON, 1, 1u << 30, 1), -ENOENT);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_POISONED);
	EQUAL(bench_get(&b, 1u << 19, 1, 2, NULL), 0);
	EQUAL(rig_read(b.rig, 0, REG(HEALTH_UNCORRECTED)), 1);
	memcpy(drop.pool.uuid, b.uuid, 16);
	EQUAL(client_run(&b.admin, &drop, NULL), 0);
	EQUAL(b.rig->card->free_pages, all - 1);
	rig_restart(b.rig);
	EQUAL(b.rig->card->free_pages, all - 1);
	EQUAL(b.rig->card->poisoned_pages, 1);
	bench_end(&b);
}

static uint32_t outstanding(struct bench *b)
{
	struct speckv_log_header header;
	struct speckv_log_health health = { 0 };

	EQUAL(rig_log(&b->admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	return health.outstanding;
}

static void slow_commands_are_overtaken(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	struct bench b;
	struct speckv_cqe cqe;
	uint16_t slow, fast;

	bench_begin(&b, SPECKV_CODEC_RAW);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_SLOW, 0, 5000000, 1);
	slow = client_submit(&b.client, &nop);
	fast = client_submit(&b.client, &nop);
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&b.client, &cqe), "one");
	EQUAL(cqe.command_id, fast);
	CHECK(!client_poll(&b.client, &cqe), "not yet");
	EQUAL(speckv_card_in_flight(b.rig->card, 1), 1);
	b.rig->now = speckv_card_next_ns(b.rig->card);
	speckv_card_run(b.rig->card, 10);
	CHECK(client_poll(&b.client, &cqe), "now");
	EQUAL(cqe.command_id, slow);
	/*
	 * One that is stuck ends when its queue pair is disabled, and keeps its buffer busy until
	 * then.
	 */
	{
		union card_entry read = bench_read(&b, 0, 1, 1);

		speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_STUCK, 0, 0, 1);
		client_submit(&b.client, &read);
		EQUAL(outstanding(&b), 1);
		speckv_card_run(b.rig->card, 10);
		EQUAL(outstanding(&b), 1);
		rig_write(b.rig, 1, PAIR(0, BUFFER_INVALIDATE), BUFFER_OUT | 1u << 31);
		EQUAL(rig_read(b.rig, 1, PAIR(0, BUFFER_INVALIDATE)), BUFFER_OUT | 1u << 31);
		rig_write(b.rig, 1, PAIR(0, BUFFER_INVALIDATE), BUFFER_RAW | 1u << 31);
		EQUAL(rig_read(b.rig, 1, PAIR(0, BUFFER_INVALIDATE)), BUFFER_RAW);
		rig_write(b.rig, 1, PAIR(0, CONTROL), 0);
		CHECK(client_poll(&b.client, &cqe), "aborted");
		EQUAL(cqe.status, SPECKV_STATUS_ABORTED);
		EQUAL(rig_read(b.rig, 1, PAIR(0, STATUS)), QUEUE_DISABLED);
		EQUAL(outstanding(&b), 0);
	}
	bench_end(&b);
}

static void a_command_whose_completion_is_lost_was_carried_out(void)
{
	union card_entry range = {
		.range = { .opcode = SPECKV_IO_INVALIDATE, .pool = 1, .bytes = RUN, .generation = 1 }
	};
	struct bench b;
	struct speckv_cqe cqe;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_LOST_COMPLETION, 0, 0, 1);
	client_submit(&b.client, &range);
	speckv_card_run(b.rig->card, 10);
	CHECK(!client_poll(&b.client, &cqe), "no answer");
	EQUAL(outstanding(&b), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
	bench_end(&b);
}

static void heat_slows_and_then_stops_the_card(void)
{
	union card_entry nop = { .bare = { .opcode = SPECKV_IO_NOP } };
	union card_entry reset = { .value = { .opcode = SPECKV_ADMIN_RESET,
					   .value = SPECKV_RESET_CARD } };
	union card_entry forget = { .value = { .opcode = SPECKV_ADMIN_RESET,
					    .value = SPECKV_RESET_COUNTERS } };
	struct bench b;
	struct speckv_log_header header;
	struct speckv_log_health health;
	struct speckv_log_event events[16];

	bench_begin(&b, SPECKV_CODEC_RAW);
	speckv_card_set_temperature(b.rig->card, 86000);
	EQUAL(rig_read(b.rig, 0, REG(STATUS)), 1 | SPECKV_REGS__STATUS__THROTTLED_bm);
	EQUAL(rig_read(b.rig, 0, REG(HEALTH_TEMPERATURE)), 86000);
	b.rig->now += 1000000;
	EQUAL(rig_log(&b.admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	CHECK(health.throttled_ns >= 1000000 && health.state == SPECKV_HEALTH_THROTTLED, "health");
	speckv_card_set_temperature(b.rig->card, 106000);
	EQUAL(rig_read(b.rig, 1, REG(FATAL_CAUSE)), SPECKV_FATAL_THERMAL);
	EQUAL(client_run(&b.client, &nop, NULL), CARD_WAIT);
	/*
	 * who administers it can ask why, and nothing else, until it is reset, which helps when the
	 * cause is gone
	 */
	rig_write(b.rig, 0, REG(CONTROL), 1u << 31);
	EQUAL(rig_read(b.rig, 0, REG(FATAL_CAUSE)), SPECKV_FATAL_THERMAL);
	b.admin = rig_admin(b.rig, 0);
	EQUAL(rig_read(b.rig, 0, REG(STATUS)),
		1 | SPECKV_REGS__STATUS__FATAL_bm | SPECKV_REGS__STATUS__THROTTLED_bm);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	CHECK(health.state & SPECKV_HEALTH_FATAL && health.temperature_millicelsius == 106000,
		"why");
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, sizeof(events), &header), 0);
	CHECK(strcmp(events[header.entries - 1].text,
		      "the card stopped: too hot, 106 C (it stops at 105 C)") == 0,
		"an event says so");
	EQUAL(client_run(&b.admin, &forget, NULL), SPECKV_STATUS_NOT_READY);
	EQUAL(client_run(&b.admin, &reset, NULL), SPECKV_STATUS_NOT_READY); /* still too hot */
	speckv_card_set_temperature(b.rig->card, 50000);
	rig_write(b.rig, 1, REG(CONTROL), 1u << 31);
	/* a client cannot start the card again */
	EQUAL(rig_read(b.rig, 0, REG(FATAL_CAUSE)), SPECKV_FATAL_THERMAL);
	EQUAL(client_run(&b.admin, &reset, NULL), 0);
	EQUAL(rig_read(b.rig, 0, REG(FATAL_CAUSE)), 0);
	b.admin = rig_admin(b.rig, 0);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	EQUAL(health.state, 0);
	bench_end(&b);
}

/* ---- killed at any moment ------------------------------------------------------------------- */

static uint8_t *image;
static uint64_t image_at;

static void take_image(struct rig *rig, unsigned int function, uint64_t address, uint64_t bytes,
	bool write)
{
	if (rig->dma_count == image_at)
		memcpy(image, rig->memory, rig->config.memory_bytes);
}

static void what_was_completed_outlives_the_card(void)
{
	struct speckv_pool_description second = rig_pool("second", 1u << 19, SPECKV_CODEC_RAW);
	bool reached = true;

	image = aligned_alloc(4096, 16u << 20);
	for (image_at = 1; reached; image_at += 3) {
		struct bench b;
		union card_entry e;
		uint64_t done[4] = { 0 };
		union card_entry resize = { .pool = { .opcode = SPECKV_ADMIN_RESIZE_POOL,
						    .pool = 1,
						    .capacity_bytes = 2u << 20 } };

		bench_begin(&b, SPECKV_CODEC_INT8_DELTA_RLE);
		EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
		memcpy(resize.pool.uuid, b.uuid, 16);
		b.rig->dma_count = 0;
		b.rig->peer = take_image;
		EQUAL(bench_put(&b, RUN, 2, 2, NULL), 0);
		done[0] = b.rig->dma_count;
		e = (union card_entry){ .range = { .opcode = SPECKV_IO_ACQUIRE_EXCLUSIVE,
						.pool = 1,
						.address = 3 * RUN,
						.bytes = RUN,
						.generation = 9 } };
		EQUAL(client_run(&b.client, &e, NULL), 0);
		EQUAL(client_run(&b.admin, &resize, NULL), 0);
		done[1] = b.rig->dma_count;
		EQUAL(rig_create(&b.admin, &second, NULL), 0);
		done[2] = b.rig->dma_count;
		e = (union card_entry){
			.range = { .opcode = SPECKV_IO_INVALIDATE, .pool = 1, .bytes = RUN }
		};
		EQUAL(client_run(&b.client, &e, NULL), 0);
		done[3] = b.rig->dma_count;
		b.rig->peer = NULL;
		reached = image_at < b.rig->dma_count;
		if (reached) {
			/* The image is what a process that was killed there leaves behind. */
			memcpy(b.rig->memory, image, b.rig->config.memory_bytes);
			rig_restart(b.rig);
			accounts_hold(b.rig->card);
			bench_connect(&b);
			bench_fill(&b, 7);
			EQUAL(rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, 1, b.uuid, 3), 0);
			if (image_at < done[2])
				EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
			if (image_at > done[3])
				EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
			if (image_at > done[0])
				EQUAL(bench_get(&b, RUN, 2, 2, NULL), 0);
			if (image_at > done[1])
				EQUAL(b.rig->card->pools[1].record.description.capacity_bytes,
					2u << 20);
			if (image_at > done[2])
				CHECK(b.rig->card->pools[2].present, "the second pool");
			/* The fill is lost, its pages are free. */
			EQUAL(bench_put(&b, 3 * RUN, 10, 3, NULL), 0);
			EQUAL(bench_get(&b, 3 * RUN, 10, 3, NULL), 0);
			accounts_hold(b.rig->card);
		}
		bench_end(&b);
	}
	free(image);
}

/*
 * Device memory with any bytes changed: the card starts or says -EUCLEAN, and keeps to its memory.
 */
static void damaged_memory_fails_its_own_commands_only(void)
{
	struct bench b;
	uint8_t *saved;
	unsigned int started = 0;

	bench_begin(&b, SPECKV_CODEC_RAW);
	for (unsigned int i = 0; i < 6; i++)
		EQUAL(bench_put(&b, i * RUN, i, 1, NULL), 0);
	saved = malloc(b.rig->config.memory_bytes);
	memcpy(saved, b.rig->memory, b.rig->config.memory_bytes);
	for (int round = 0; round < 300; round++) {
		const struct memory_layout *l = &b.rig->card->layout;
		uint64_t tables = l->first_page +
			(b.rig->card->pools[1].record.table_page) * SPECKV_CARD_PAGE_BYTES;
		uint64_t where[] = { 0, l->pools, l->page_map, l->events, tables, tables + 4096,
			l->first_page };
		uint64_t at = where[round % 7] + rig_below(b.rig, round & 1 ? 4096 : 256);
		struct speckv_card *card = NULL;
		int rc;

		speckv_card_destroy(b.rig->card);
		memcpy(b.rig->memory, saved, b.rig->config.memory_bytes);
		for (uint64_t i = 0; i < 1 + rig_below(b.rig, 8); i++)
			b.rig->memory[at + i] = (uint8_t)rig_random(b.rig);
		rc = speckv_card_create(&b.rig->ops, b.rig, &b.rig->config, &card);
		CHECK(!rc || rc == -EUCLEAN, "%d", rc);
		if (rc) {
			b.rig->config.format_memory = true;
			EQUAL(speckv_card_create(&b.rig->ops, b.rig, &b.rig->config, &card), 0);
			b.rig->config.format_memory = false;
		}
		b.rig->card = card;
		memset(b.rig->host_used, 0, sizeof(b.rig->host_used));
		bench_connect(&b);
		bench_fill(&b, 7);
		started += !rc;
		if (card->pools[1].present &&
			!rig_grant(&b.admin, 1, SPECKV_ALL_QUEUES, 1, b.uuid, 3))
			for (unsigned int i = 0; i < 6; i++) {
				uint16_t status = bench_get(&b, i * RUN, i, 1, NULL);

				CHECK(status ||
						!memcmp(rig_at(b.rig, 1, b.out),
							rig_at(b.rig, 1, b.raw), b.block_bytes),
					"never wrong bytes");
			}
		/* `where` needs the tables' place again. */
		if (!card->pools[1].present) {
			speckv_card_destroy(card);
			memcpy(b.rig->memory, saved, b.rig->config.memory_bytes);
			rig_power_on(b.rig);
		}
	}
	CHECK(started > 100, "%u", started);
	free(saved);
	bench_end(&b);
}

static void another_cards_memory_is_not_taken(void)
{
	struct bench b;
	struct speckv_card *card;

	bench_begin(&b, SPECKV_CODEC_RAW);
	speckv_card_destroy(b.rig->card);
	b.rig->card = NULL;
	b.rig->config.uuid[0] ^= 1;
	EQUAL(speckv_card_create(&b.rig->ops, b.rig, &b.rig->config, &card), -EUCLEAN);
	b.rig->config.uuid[0] ^= 1;
	rig_power_on(b.rig);
	CHECK(b.rig->card->pools[1].present, "still there");
	bench_end(&b);
}

int main(void)
{
	dma_fails_at_every_point(false, false);
	dma_fails_at_every_point(true, true);
	interrupts_get_lost_and_come_twice();
	interrupts_are_gathered();
	poisoned_pages_fail_and_are_retired();
	slow_commands_are_overtaken();
	a_command_whose_completion_is_lost_was_carried_out();
	heat_slows_and_then_stops_the_card();
	what_was_completed_outlives_the_card();
	damaged_memory_fails_its_own_commands_only();
	another_cards_memory_is_not_taken();
	return 0;
}

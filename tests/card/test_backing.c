// SPDX-License-Identifier: MIT
/* Memory of the card that is not there, or comes slowly: a pool is made of what is backed. */
#include "rig.h"

static void create_begins(struct client *admin, const struct speckv_pool_description *d)
{
	uint64_t data = rig_alloc(admin->rig, admin->function, sizeof(*d));
	struct speckv_cmd_data create = {
		.opcode = SPECKV_ADMIN_CREATE_POOL, .data_address = data, .data_bytes = sizeof(*d)
	};

	memcpy(rig_at(admin->rig, admin->function, data), d, sizeof(*d));
	client_submit(admin, &create);
	speckv_card_run(admin->rig->card, 1000);
}

/* ---- memory that comes slowly --------------------------------------------------------------- */

static struct rig *slow;
static unsigned int slow_pages;

/* A page that takes long. */
static int take_slowly(void *arg, uint64_t offset, uint64_t bytes)
{
	(void)arg;
	(void)offset;
	slow_pages += bytes == SPECKV_CARD_PAGE_BYTES;
	slow->now += 20000;
	return 0;
}

/* In turns of about as long as one step takes, whether it completes something or not. */
static void the_time_of_a_command_that_goes_on_counts_and_ends_the_turn(void)
{
	struct speckv_pool_description pools[2] = { rig_pool("second", 3u << 20, SPECKV_CODEC_RAW),
		rig_pool("third", 3u << 20, SPECKV_CODEC_RAW) };
	struct speckv_cqe cqe;
	unsigned int done = 0;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	slow = b.rig;
	memset(b.rig->card->backed, 0, b.rig->card->layout.pages / 8);
	b.rig->card->ops.memory_take = take_slowly;
	create_begins(&b.admin, &pools[0]);
	create_begins(&b.admin, &pools[1]);
	for (unsigned int turn = 0; turn < 100 && done < 2; turn++) {
		uint64_t spent = speckv_card_spent(b.rig->card, 0), before = b.rig->now;

		slow_pages = 0;
		speckv_card_run(b.rig->card, 1000);
		CHECK(slow_pages <= 8, "turn %u: %u pages", turn, slow_pages);
		CHECK(slow_pages < 8 || speckv_card_spent(b.rig->card, 0) >= spent / 2 + 8 * 20000,
			"%llu ns of %llu were counted",
			(unsigned long long)(speckv_card_spent(b.rig->card, 0) - spent),
			(unsigned long long)(b.rig->now - before));
		while (client_poll(&b.admin, &cqe)) {
			EQUAL(cqe.status, 0);
			done++;
		}
	}
	EQUAL(done, 2);
	bench_end(&b);
}

/* ---- memory that is not there --------------------------------------------------------------- */

#define UNIT 4096u
static uint64_t left; /* bytes that there are */
static bool taken[(16u << 20) / UNIT];

static int take(void *arg, uint64_t offset, uint64_t bytes)
{
	for (uint64_t at = offset / UNIT; at < (offset + bytes + UNIT - 1) / UNIT; at++) {
		if (taken[at])
			continue;
		if (left < UNIT)
			return -ENOSPC;
		left -= UNIT;
		taken[at] = true;
	}
	return 0;
}

static int give(void *arg, uint64_t offset, uint64_t bytes)
{
	struct rig *rig = arg;

	memset(rig->memory + offset, 0, bytes);
	for (uint64_t at = offset / UNIT; at < (offset + bytes) / UNIT; at++) {
		left += taken[at] ? UNIT : 0;
		taken[at] = false;
	}
	return 0;
}

/* Until nothing is left to give up. */
static void settle(struct rig *rig)
{
	for (int i = 0; i < 10000 && !speckv_card_next_ns(rig->card); i++)
		speckv_card_run(rig->card, 1);
}

/* Pages that belong to no pool and are backed. */
static unsigned int backed_in_vain(const struct rig *rig)
{
	const struct speckv_card *card = rig->card;
	unsigned int n = 0;

	for (uint64_t page = 0; page < card->layout.pages; page++)
		n += !(card->page_map[page] & PAGE_OWNER) &&
			taken[(card->layout.first_page + page * SPECKV_CARD_PAGE_BYTES) / UNIT];
	return n;
}

/*
 * What is given up under way (SANITIZE does that) is found missing at the end, and not
 * looked for at each step.
 */
static void what_is_given_up_under_way_is_found_missing(struct bench *b,
	const struct speckv_pool_description *second)
{
	struct card_command *command;
	struct speckv_cqe cqe;

	bench_connect(b);
	create_begins(&b->admin, second);
	speckv_card_run(b->rig->card, 1000);
	command = &b->rig->card->functions[0]->admin_queue.waiting[0];
	EQUAL(command->reservation.found, 16);
	for (uint64_t page = 0; page < b->rig->card->layout.pages; page++)
		if (!(b->rig->card->page_map[page] & PAGE_OWNER))
			memory_zero_pages(b->rig->card, page, 1);
	EQUAL(backed_in_vain(b->rig), 0);
	speckv_card_run(b->rig->card, 1000);
	EQUAL(command->reservation.found, 24);
	EQUAL(backed_in_vain(b->rig), 8);
	for (int i = 0; i < 100 && !client_poll(&b->admin, &cqe); i++)
		speckv_card_run(b->rig->card, 1000);
	EQUAL(cqe.status, 0);
	for (uint64_t page = 0; page < b->rig->card->layout.pages; page++)
		CHECK(!(b->rig->card->page_map[page] & PAGE_OWNER) ||
				taken[(b->rig->card->layout.first_page +
					      page * SPECKV_CARD_PAGE_BYTES) /
					UNIT],
			"page %llu of a pool is not backed", (unsigned long long)page);
}

static void memory_for_a_pool_that_is_not_made_is_given_up(void)
{
	struct speckv_pool_description second = rig_pool("second", 4u << 20, SPECKV_CODEC_RAW),
				       third = rig_pool("third", 4u << 20, SPECKV_CODEC_RAW);
	union card_entry resize = { .pool = { .opcode = SPECKV_ADMIN_RESIZE_POOL,
					    .pool = 1,
					    .capacity_bytes = 1u << 21 } };
	struct card_command *command;
	struct client another;
	unsigned int before;
	struct speckv_cqe cqe;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	memcpy(resize.pool.uuid, b.uuid, 16);
	b.rig->ops.memory_take = b.rig->card->ops.memory_take = take;
	b.rig->ops.memory_zero = b.rig->card->ops.memory_zero = give;
	memset(taken, 0, sizeof(taken));
	left = 64u << 20;
	rig_restart(b.rig);
	bench_connect(&b);
	settle(b.rig);
	EQUAL(backed_in_vain(b.rig), 0);
	/* A step continues from the last one. */
	create_begins(&b.admin, &second);
	command = &b.rig->card->functions[0]->admin_queue.waiting[0];
	for (unsigned int step = 1; step <= 4; step++) {
		EQUAL(command->reservation.found, 8 * step);
		CHECK(command->reservation.at >= 8 * step, "at %llu",
			(unsigned long long)command->reservation.at);
		EQUAL(backed_in_vain(b.rig), 8 * step);
		speckv_card_run(b.rig->card, 1000);
	}
	/* Its client ends; another client's command continues with its reservation. */
	EQUAL(rig_function(b.rig, true, 0), 2);
	another = rig_admin(b.rig, 2);
	create_begins(&another, &third);
	rig_write(b.rig, 0, REG(CONTROL), 1u << 31);
	before = backed_in_vain(b.rig);
	speckv_card_run(b.rig->card, 1000);
	CHECK(backed_in_vain(b.rig) >= before, "nothing is taken from under it");
	for (int i = 0; i < 100 && !client_poll(&another, &cqe); i++)
		speckv_card_run(b.rig->card, 1000);
	EQUAL(cqe.status, 0);
	EQUAL(b.rig->card->reserving, 0);
	settle(b.rig);
	EQUAL(backed_in_vain(b.rig), 0);
	/* The growth of a pool. */
	client_submit(&another, &resize);
	speckv_card_run(b.rig->card, 1000);
	CHECK(backed_in_vain(b.rig) >= 8, "begun");
	speckv_card_function_remove(b.rig->card, 2);
	settle(b.rig);
	EQUAL(backed_in_vain(b.rig), 0);
	/* The process itself ends. */
	b.admin = rig_admin(b.rig, 0);
	create_begins(&b.admin, &second);
	CHECK(backed_in_vain(b.rig) >= 8, "begun");
	rig_restart(b.rig);
	settle(b.rig);
	EQUAL(backed_in_vain(b.rig), 0);
	what_is_given_up_under_way_is_found_missing(&b, &second);
	bench_end(&b);
}

static void a_pool_is_made_of_memory_that_is_there(void)
{
	struct speckv_pool_description second = rig_pool("second", 4u << 20, SPECKV_CODEC_RAW);
	union card_entry resize = { .pool = { .opcode = SPECKV_ADMIN_RESIZE_POOL,
					    .pool = 1,
					    .capacity_bytes = 1u << 21 } };
	uint64_t number, free_pages;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	memcpy(resize.pool.uuid, b.uuid, 16);
	b.rig->card->ops.memory_take = take;
	b.rig->card->ops.memory_zero = give;
	free_pages = b.rig->card->free_pages;
	left = 2u << 20; /* less than it is asked for, though the card has as many pages */
	EQUAL(rig_create(&b.admin, &second, &number), SPECKV_STATUS_NO_MEMORY);
	settle(b.rig);
	EQUAL(left, 2u << 20); /* what was taken in vain was given up */
	EQUAL(b.rig->card->free_pages, free_pages);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	left = 5u << 20;
	EQUAL(rig_create(&b.admin, &second, &number), 0);
	CHECK(left < 1u << 20, "and now it is backed, with its tables: %llu left",
		(unsigned long long)left);
	left = 0;
	EQUAL(client_run(&b.admin, &resize, NULL), SPECKV_STATUS_NO_MEMORY);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	bench_end(&b);
}

static void a_card_does_not_start_without_memory_for_its_tables(void)
{
	struct rig *rig = rig_new();

	rig->ops.memory_take = take;
	memset(taken, 0, sizeof(taken));
	left = 4096;
	EQUAL(speckv_card_create(&rig->ops, rig, &rig->config, &rig->card), -ENOSPC);
	left = 64u << 20;
	rig_power_on(rig);
	rig_free(rig);
}

/* Blank memory is clean when the card is there: nothing is left to do, and nothing of another's. */
static void blank_memory_is_clean_at_once(void)
{
	struct rig *rig = rig_new();

	rig->ops.memory_take = take;
	rig->ops.memory_zero = give;
	memset(taken, 0, sizeof(taken));
	left = 64u << 20;
	memset(rig->memory + (15u << 20), 0x5a, 1u << 20);
	rig_power_on(rig);
	EQUAL(speckv_card_next_ns(rig->card), UINT64_MAX);
	for (uint64_t page = 0; page < rig->card->layout.pages; page++)
		CHECK(!(rig->card->page_map[page] & PAGE_DIRTY), "page %llu is dirty",
			(unsigned long long)page);
	for (uint64_t at = 15u << 20; at < 16u << 20; at++)
		CHECK(!rig->memory[at], "byte %llu is left", (unsigned long long)at);
	rig_free(rig);
}

int main(void)
{
	the_time_of_a_command_that_goes_on_counts_and_ends_the_turn();
	a_pool_is_made_of_memory_that_is_there();
	memory_for_a_pool_that_is_not_made_is_given_up();
	a_card_does_not_start_without_memory_for_its_tables();
	blank_memory_is_clean_at_once();
	return 0;
}

// SPDX-License-Identifier: MIT
/* GET_LOG: what is entered, what was lost, and how much of it one function or user may enter. */
#include "rig.h"

static void logs_page_through_and_say_what_was_lost(void)
{
	struct bench b;
	struct speckv_log_header header;
	struct speckv_log_error *errors = calloc(300, sizeof(*errors));
	struct speckv_log_counters counters;
	struct speckv_log_health health;
	struct speckv_log_event events[8];
	struct speckv_log_grant grants[8];

	bench_begin(&b, SPECKV_CODEC_RAW);
	for (unsigned int i = 0; i < 300; i++) {
		EQUAL(bench_get(&b, i % 20 * BENCH_PAGE, 1, 1, NULL), SPECKV_STATUS_NOT_FOUND);
		b.rig->now += UINT64_C(1000000000); /* slowly enough for each to be entered */
	}
	EQUAL(rig_log(&b.admin, SPECKV_LOG_ERRORS, 0, 0, errors, 300 * sizeof(*errors), &header),
		0);
	EQUAL(header.entries, 256);
	EQUAL(header.lost, 44);
	EQUAL(header.last, 300);
	EQUAL(errors[0].sequence, 45);
	EQUAL(errors[0].status, SPECKV_STATUS_NOT_FOUND);
	EQUAL(errors[0].pool, 1);
	EQUAL(errors[0].function, 1);
	EQUAL(errors[0].opcode, SPECKV_IO_READ);
	EQUAL(errors[0].address, 44 % 20 * BENCH_PAGE);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_ERRORS, 0, 298, errors, 300 * sizeof(*errors), &header),
		0);
	EQUAL(header.entries, 2);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_ERRORS, 0, 60, errors, 3 * sizeof(*errors) + 1, &header),
		0);
	EQUAL(header.entries, 3);
	EQUAL(errors[2].sequence, 63);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), 0);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_COUNTERS, 1, 0, &counters, sizeof(counters), &header),
		0);
	EQUAL(counters.counters[SPECKV_COUNT_PUTS], 1);
	EQUAL(counters.counters[SPECKV_COUNT_GETS], 301);
	EQUAL(counters.counters[SPECKV_COUNT_HITS], 1);
	EQUAL(counters.counters[SPECKV_COUNT_MISSES], 300);
	EQUAL(counters.counters[SPECKV_COUNT_BYTES_OUT_RAW], b.block_bytes);
	{
		uint64_t gets = 0;

		for (int i = 0; i < SPECKV_HIST_BUCKETS; i++)
			gets += counters.histograms[SPECKV_HIST_GET][i];
		EQUAL(gets, 1);
	}
	EQUAL(rig_log(&b.admin, SPECKV_LOG_COUNTERS, 2, 0, &counters, sizeof(counters), &header),
		SPECKV_STATUS_NO_POOL);
	EQUAL(rig_log(&b.admin, 0x77, 0, 0, &counters, 0, &header), SPECKV_STATUS_NO_LOG);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header), 0);
	EQUAL(health.state, 0);
	EQUAL(health.temperature_millicelsius, 45000);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, sizeof(events), &header), 0);
	EQUAL(header.entries, 2);
	EQUAL(events[0].kind, SPECKV_CARD_BOOTED);
	EQUAL(events[1].kind, SPECKV_CARD_POOL_CREATED);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_GRANTS, 0, 0, grants, sizeof(grants), &header), 0);
	EQUAL(header.entries, 1);
	EQUAL(grants[0].queue, SPECKV_ALL_QUEUES);
	free(errors);
	bench_end(&b);
}

/* Events of this kind, and with this in their text. */
static unsigned int entered(const struct speckv_log_event *events, uint32_t count, uint16_t kind,
	const char *text)
{
	unsigned int n = 0;

	for (uint32_t i = 0; i < count; i++)
		n += events[i].kind == kind && (!text || strstr(events[i].text, text));
	return n;
}

static void one_function_cannot_push_the_others_out_of_the_logs(void)
{
	struct speckv_log_event *events = calloc(300, sizeof(*events));
	struct speckv_log_error *errors = calloc(300, sizeof(*errors));
	struct speckv_log_header header;
	unsigned int corrupt = 0;
	bool created = false;
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	/* its frame, wherever it lies: the payload's first bytes */
	for (uint64_t i = 0; i < b.rig->config.memory_bytes - 8; i += 64)
		if (!memcmp(b.rig->memory + i, rig_at(b.rig, 1, b.raw), 64))
			b.rig->memory[i] ^= 1;
	for (unsigned int i = 0; i < 1000; i++)
		EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_CORRUPT);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, 300 * sizeof(*events), &header),
		0);
	EQUAL(header.lost, 0);
	for (uint32_t i = 0; i < header.entries; i++) {
		corrupt += events[i].kind == SPECKV_CARD_CORRUPT;
		created |= events[i].kind == SPECKV_CARD_POOL_CREATED;
	}
	CHECK(created && corrupt && corrupt <= 8, "%u events of one function", corrupt);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_ERRORS, 0, 0, errors, 300 * sizeof(*errors), &header),
		0);
	CHECK(header.lost == 0 && header.entries <= 64, "%u errors of one function",
		header.entries);
	b.rig->now += UINT64_C(60000000000);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_CORRUPT);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, 300 * sizeof(*events), &header),
		0);
	CHECK(strstr(events[header.entries - 1].text, "left out"), "what was left out is told: %s",
		events[header.entries - 1].text);
	/* Nor by reads of a page whose memory failed. */
	b.rig->now += UINT64_C(600000000000);
	EQUAL(speckv_card_inject(b.rig->card, SPECKV_CARD_FAULT_POISON, 1, 0, 1), 0);
	for (unsigned int i = 0; i < 300; i++)
		EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_POISONED);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, 300 * sizeof(*events), &header),
		0);
	EQUAL(header.lost, 0);
	EQUAL(entered(events, header.entries, SPECKV_CARD_POOL_CREATED, NULL), 1);
	/* one of the page, eight of its reads */
	EQUAL(entered(events, header.entries, SPECKV_CARD_POISONED, NULL), 1 + 8);
	free(events);
	free(errors);
	bench_end(&b);
}

/*
 * The functions of one user share what it may enter, and also many users leave room for those of
 * another one.
 */
static void a_user_has_room_in_the_logs_whatever_the_others_do(void)
{
	struct speckv_log_event *events = calloc(300, sizeof(*events));
	struct speckv_log_header header;
	unsigned int hostile[4];
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	b.rig->user = 1001;
	for (unsigned int i = 0; i < 4; i++)
		hostile[i] = rig_function(b.rig, false, 1);
	for (unsigned int n = 0; n < 400; n++) {
		if (n % 100 == 99) { /* nor does another connection help */
			speckv_card_function_remove(b.rig->card, hostile[n % 4]);
			hostile[n % 4] = rig_function(b.rig, false, 1);
		}
		card_event_by(b.rig->card->functions[hostile[n % 4]], SPECKV_CARD_CORRUPT,
			SPECKV_ERROR, 1, n, "of one user");
	}
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, 300 * sizeof(*events), &header),
		0);
	EQUAL(entered(events, header.entries, SPECKV_CARD_CORRUPT, "of one user"), 8);
	speckv_card_function_remove(b.rig->card, hostile[3]);
	for (b.rig->user = 2000; b.rig->user < 2040; b.rig->user++) {
		unsigned int function = rig_function(b.rig, false, 1);

		for (unsigned int n = 0; n < 20; n++)
			card_event_by(b.rig->card->functions[function], SPECKV_CARD_CORRUPT,
				SPECKV_ERROR, 1, n, "of many users");
		speckv_card_function_remove(b.rig->card, function);
	}
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	memset(memory_page(b.rig->card,
		       (b.rig->card->pools[1].map[0] - b.rig->card->layout.first_page) /
			       SPECKV_CARD_PAGE_BYTES) +
			5000,
		0x55, 100);
	EQUAL(bench_get(&b, 0, 1, 1, NULL), SPECKV_STATUS_CORRUPT);
	EQUAL(rig_log(&b.admin, SPECKV_LOG_EVENTS, 0, 0, events, 300 * sizeof(*events), &header),
		0);
	EQUAL(header.lost, 0);
	EQUAL(entered(events, header.entries, SPECKV_CARD_CORRUPT, "does not verify"), 1);
	EQUAL(entered(events, header.entries, SPECKV_CARD_POOL_CREATED, NULL), 1);
	CHECK(entered(events, header.entries, SPECKV_CARD_CORRUPT, "of many users") <= 64 + 2 * 40,
		"few enough for the ring");
	free(events);
	bench_end(&b);
}

int main(void)
{
	logs_page_through_and_say_what_was_lost();
	one_function_cannot_push_the_others_out_of_the_logs();
	a_user_has_room_in_the_logs_whatever_the_others_do();
	return 0;
}

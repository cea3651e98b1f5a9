// SPDX-License-Identifier: MIT
/*
 * Events, errors, counters, latencies. Events and errors are rings in device memory and survive a
 * restart.
 */
#include <stdarg.h>
#include <stdio.h>

#include "base/histogram.h"
#include "card/internal.h"

/*
 * Rate limits on log entries caused by I/O functions, as token buckets: per user, and for all users
 * together.
 */
struct rule {
	uint32_t burst;
	uint32_t assured; /* guaranteed to a user whatever the others use */
	uint64_t each_ns;
};
static const struct rule event_rule = { 8, 2, UINT64_C(30000000000) },
			 all_events_rule = { 64, 0, UINT64_C(10000000000) };
static const struct rule error_rule = { 64, 1, UINT64_C(1000000000) },
			 all_errors_rule = { 192, 0, UINT64_C(250000000) };

static bool has_room(struct card_allowance *a, const struct rule *rule, uint64_t now)
{
	uint64_t back = (now - a->since_ns) / rule->each_ns;

	a->used = back < a->used ? a->used - (uint32_t)back : 0;
	a->since_ns = a->used ? a->since_ns + back * rule->each_ns : now;
	return a->used < rule->burst;
}

/*
 * The rings keep 256 entries. The limit per user keeps one user from evicting the others' entries,
 * the guaranteed share keeps it from using up the common limit.
 */
static bool allowed(const struct speckv_card *card, struct card_allowance *own,
	const struct rule *own_rule, struct card_allowance *all, const struct rule *all_rule)
{
	uint64_t now = card_now(card);
	bool one = has_room(own, own_rule, now), any = has_room(all, all_rule, now),
	     yes = one && (any || own->used < own_rule->assured);

	own->left_out += !yes;
	own->used += yes;
	all->used += yes && any;
	return yes;
}

/*
 * Find a user by number, or reuse the slot of the one disconnected longest: there are as many slots
 * as functions.
 */
struct card_user *card_user(struct speckv_card *card, uint32_t number)
{
	struct card_user *user = NULL;

	for (unsigned int i = 0; i < CARD_FUNCTIONS; i++) {
		struct card_user *other = &card->users[i];
		bool connected = false;

		if (other->known && other->number == number)
			return other;
		for (unsigned int f = 0; f < card->functions_max; f++)
			connected |= card->functions[f] && card->functions[f]->user == other;
		if (!connected &&
			(!user || !other->known || (user->known && other->gone_ns < user->gone_ns)))
			user = other;
	}
	*user = (struct card_user){ .known = true, .number = number };
	return user;
}

const char *card_size(char text[CARD_SIZE_TEXT], uint64_t bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB" };
	unsigned int unit = 0;
	uint64_t one = 1;

	while (unit + 1 < sizeof(units) / sizeof(units[0]) && bytes / one >= 1024) {
		one *= 1024;
		unit++;
	}
	if (bytes % one)
		snprintf(text, CARD_SIZE_TEXT, "%.1f %s", (double)bytes / (double)one, units[unit]);
	else
		snprintf(text, CARD_SIZE_TEXT, "%llu %s", (unsigned long long)(bytes / one),
			units[unit]);
	return text;
}

/* `user`: whose quota is charged, or NULL. */
__attribute__((format(printf, 3, 0))) static void enter(struct speckv_card *card,
	struct card_user *user, const char *format, va_list list, struct speckv_log_event *event)
{
	struct speckv_log_event *to = memory_event(card, card->event_sequence + 1);
	int n;

	if (user && !allowed(card, &user->events, &event_rule, &card->all_events, &all_events_rule))
		return;
	event->sequence = card->event_sequence + 1;
	event->time_ns = card_wall(card);
	n = vsnprintf(event->text, sizeof(event->text), format, list);
	if (user && user->events.left_out && n > 0 && (size_t)n < sizeof(event->text))
		snprintf(event->text + n, sizeof(event->text) - (size_t)n,
			" (%u more events of user %u left out)", user->events.left_out,
			user->number);
	if (user)
		user->events.left_out = 0;
	to->sequence = 0;
	atomic_thread_fence(memory_order_release);
	memcpy((uint8_t *)to + sizeof(to->sequence), (uint8_t *)event + sizeof(event->sequence),
		sizeof(*event) - sizeof(event->sequence));
	atomic_thread_fence(memory_order_release);
	to->sequence = event->sequence;
	card->event_sequence = event->sequence;
	card_notify_admins(card, SPECKV_REGS__INT_STATUS__EVENT_LOG_bm);
	/* Notify the queue pairs with a right to the pool. */
	for (unsigned int f = 0; event->pool && f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];

		for (unsigned int q = 0; function && q < function->pairs; q++)
			if (function->grant[event->pool].rights |
				function->pair[q].grant[event->pool].rights)
				function->pair[q].events = event->sequence;
	}
}

void card_event(struct speckv_card *card, uint16_t kind, uint16_t severity, unsigned int function,
	unsigned int pool, uint64_t value, const char *format, ...)
{
	struct speckv_log_event event = { .kind = kind,
		.severity = severity,
		.function = (uint16_t)function,
		.pool = (uint16_t)pool,
		.value = value };
	va_list list;

	va_start(list, format);
	enter(card, NULL, format, list, &event);
	va_end(list);
}

void card_event_by(struct card_function *function, uint16_t kind, uint16_t severity,
	unsigned int pool, uint64_t value, const char *format, ...)
{
	struct speckv_log_event event = { .kind = kind,
		.severity = severity,
		.function = function->index,
		.pool = (uint16_t)pool,
		.value = value };
	va_list list;

	va_start(list, format);
	enter(function->card, function->user, format, list, &event);
	va_end(list);
}

void card_error(struct card_context *context, uint16_t status)
{
	struct speckv_card *card = context->card;
	const struct card_command *command = context->command;
	struct speckv_log_error error = { .sequence = card->error_sequence + 1,
		.time_ns = card_wall(card),
		.function = context->function->index,
		.queue = context->queue->index,
		.command_id = command->entry.sqe.command_id,
		.status = status,
		.opcode = command->entry.sqe.opcode,
		.pool = command->entry.sqe.pool,
		.field = status == SPECKV_STATUS_INVALID && command->field != CARD_NO_FIELD
			? command->field
			: 0,
		.address = command->address };

	if (!context->function->admin &&
		!allowed(card, &context->function->user->errors, &error_rule, &card->all_errors,
			&all_errors_rule))
		return;
	card->error_sequence = error.sequence;
	*memory_error(card, error.sequence) = error;
}

/* Find the newest sequence numbers of the rings. */
void card_logs_recover(struct speckv_card *card)
{
	for (uint64_t i = 0; i < MEMORY_EVENTS; i++) {
		uint64_t sequence = memory_event(card, i)->sequence;

		if (sequence % MEMORY_EVENTS == i && sequence > card->event_sequence)
			card->event_sequence = sequence;
	}
	for (uint64_t i = 0; i < MEMORY_ERRORS; i++) {
		uint64_t sequence = memory_error(card, i)->sequence;

		if (sequence % MEMORY_ERRORS == i && sequence > card->error_sequence)
			card->error_sequence = sequence;
	}
}

/*
 * Sequence numbers continue, so that readers polling by sequence miss no entry and see none twice.
 */
void card_logs_clear(struct speckv_card *card)
{
	memset(memory_event(card, 0), 0, MEMORY_EVENTS * sizeof(struct speckv_log_event));
	memset(memory_error(card, 0), 0, MEMORY_ERRORS * sizeof(struct speckv_log_error));
}

/* ---- counting ------------------------------------------------------------------------------- */

void card_count(struct card_context *context, enum card_counter counter, uint64_t n)
{
	context->function->counters[counter] += n;
	context->card->counters[counter] += n;
}

void card_tally(struct speckv_card *card, struct card_pool *pool, unsigned int counter, uint64_t n)
{
	card->statistics.counters[counter] += n;
	if (pool)
		pool->statistics.counters[counter] += n;
}

void card_latency(struct speckv_card *card, struct card_pool *pool, unsigned int histogram,
	uint64_t ns)
{
	card->statistics.histograms[histogram][histogram_bucket(ns)]++;
	pool->statistics.histograms[histogram][histogram_bucket(ns)]++;
}

void card_statistics_clear(struct speckv_card *card, struct card_statistics *statistics)
{
	memset(statistics, 0, sizeof(*statistics));
	statistics->since_ns = card_wall(card);
}

void card_statistics_reset(struct speckv_card *card)
{
	card_statistics_clear(card, &card->statistics);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		card_statistics_clear(card, &card->pools[n].statistics);
	memset(card->counters, 0, sizeof(card->counters));
	for (unsigned int f = 0; f < card->functions_max; f++)
		if (card->functions[f])
			memset(card->functions[f]->counters, 0,
				sizeof(card->functions[f]->counters));
}

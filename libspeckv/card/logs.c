// SPDX-License-Identifier: MIT
/* Events, errors, counters, latencies, and GET_LOG. Events and errors are rings in device memory and outlive a restart. */
#include <stdarg.h>
#include <stdio.h>

#include "card/internal.h"

/* Entries of a log that I/O functions may cause at once, and how soon there is room for one more: those of one user, and of all together. */
struct rule {
	uint32_t burst;
	uint32_t assured; /* that a user may cause whatever the others did */
	uint64_t each_ns;
};
static const struct rule event_rule = { 8, 2, UINT64_C(30000000000) }, all_events_rule = { 64, 0, UINT64_C(10000000000) };
static const struct rule error_rule = { 64, 1, UINT64_C(1000000000) }, all_errors_rule = { 192, 0, UINT64_C(250000000) };

static bool has_room(struct card_allowance *a, const struct rule *rule, uint64_t now)
{
	uint64_t back = (now - a->since_ns) / rule->each_ns;

	a->used = back < a->used ? a->used - (uint32_t)back : 0;
	a->since_ns = a->used ? a->since_ns + back * rule->each_ns : now;
	return a->used < rule->burst;
}

/*
 * The rings keep 256 entries: a user that can cause as many as it likes would push out those of the others, and one that can use up what
 * all have together would keep the others' from being entered.
 */
static bool allowed(const struct speckv_card *card, struct card_allowance *own, const struct rule *own_rule, struct card_allowance *all,
		    const struct rule *all_rule)
{
	uint64_t now = card_now(card);
	bool one = has_room(own, own_rule, now), any = has_room(all, all_rule, now), yes = one && (any || own->used < own_rule->assured);

	own->left_out += !yes;
	own->used += yes;
	all->used += yes && any;
	return yes;
}

/* Of this number, or the one that nothing was heard of for the longest time: there are as many as functions. */
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
		if (!connected && (!user || !other->known || (user->known && other->gone_ns < user->gone_ns)))
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
		snprintf(text, CARD_SIZE_TEXT, "%llu %s", (unsigned long long)(bytes / one), units[unit]);
	return text;
}

/* `user`: NULL, or the one to whose share it counts. */
__attribute__((format(printf, 3, 0))) static void enter(struct speckv_card *card, struct card_user *user, const char *format, va_list list,
							  struct speckv_log_event *event)
{
	struct speckv_log_event *to = memory_event(card, card->event_sequence + 1);
	int n;

	if (user && !allowed(card, &user->events, &event_rule, &card->all_events, &all_events_rule))
		return;
	event->sequence = card->event_sequence + 1;
	event->time_ns = card_wall(card);
	n = vsnprintf(event->text, sizeof(event->text), format, list);
	if (user && user->events.left_out && n > 0 && (size_t)n < sizeof(event->text))
		snprintf(event->text + n, sizeof(event->text) - (size_t)n, " (%u more events of user %u left out)", user->events.left_out,
			 user->number);
	if (user)
		user->events.left_out = 0;
	to->sequence = 0;
	atomic_thread_fence(memory_order_release);
	memcpy((uint8_t *)to + sizeof(to->sequence), (uint8_t *)event + sizeof(event->sequence), sizeof(*event) - sizeof(event->sequence));
	atomic_thread_fence(memory_order_release);
	to->sequence = event->sequence;
	card->event_sequence = event->sequence;
	card_notify_admins(card, SPECKV_REGS__INT_STATUS__EVENT_LOG_bm);
	/* Who uses the pool hears that there is something to ask about. */
	for (unsigned int f = 0; event->pool && f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];

		for (unsigned int q = 0; function && q < function->pairs; q++)
			if (function->grant[event->pool].rights | function->pair[q].grant[event->pool].rights)
				function->pair[q].events = event->sequence;
	}
}

void card_event(struct speckv_card *card, uint16_t kind, uint16_t severity, unsigned int function, unsigned int pool, uint64_t value,
		const char *format, ...)
{
	struct speckv_log_event event = { .kind = kind, .severity = severity, .function = (uint16_t)function, .pool = (uint16_t)pool,
					  .value = value };
	va_list list;

	va_start(list, format);
	enter(card, NULL, format, list, &event);
	va_end(list);
}

void card_event_by(struct card_function *function, uint16_t kind, uint16_t severity, unsigned int pool, uint64_t value, const char *format, ...)
{
	struct speckv_log_event event = { .kind = kind, .severity = severity, .function = function->index, .pool = (uint16_t)pool,
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
	struct speckv_log_error error = { .sequence = card->error_sequence + 1, .time_ns = card_wall(card),
					  .function = context->function->index, .queue = context->queue->index,
					  .command_id = command->entry.sqe.command_id, .status = status,
					  .opcode = command->entry.sqe.opcode, .pool = command->entry.sqe.pool,
					  .field = status == SPECKV_STATUS_INVALID && command->field != CARD_NO_FIELD ? command->field : 0,
					  .address = command->address };

	if (!context->function->admin && !allowed(card, &context->function->user->errors, &error_rule, &card->all_errors, &all_errors_rule))
		return;
	card->error_sequence = error.sequence;
	*memory_error(card, error.sequence) = error;
}

/* Where the rings end. */
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

/* Sequences go on: who asks for what came after something must not be shown it again. */
void card_logs_clear(struct speckv_card *card)
{
	memset(memory_event(card, 0), 0, MEMORY_EVENTS * sizeof(struct speckv_log_event));
	memset(memory_error(card, 0), 0, MEMORY_ERRORS * sizeof(struct speckv_log_error));
}

/* ---- counting ----------------------------------------------------------------------------------------------- */

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

/* Buckets of speckv/pool.h. */
unsigned int card_bucket(uint64_t ns)
{
	unsigned int log, bucket;

	if (ns < 4)
		return (unsigned int)ns;
	log = 63u - (unsigned int)__builtin_clzll(ns);
	bucket = 4 * (log - 1) + (unsigned int)(ns >> (log - 2) & 3);
	return bucket < SPECKV_HIST_BUCKETS ? bucket : SPECKV_HIST_BUCKETS - 1;
}

void card_latency(struct speckv_card *card, struct card_pool *pool, unsigned int histogram, uint64_t ns)
{
	card->statistics.histograms[histogram][card_bucket(ns)]++;
	pool->statistics.histograms[histogram][card_bucket(ns)]++;
}

static void statistics_clear(struct speckv_card *card, struct card_statistics *statistics)
{
	memset(statistics, 0, sizeof(*statistics));
	statistics->since_ns = card_wall(card);
}

void card_statistics_reset(struct speckv_card *card)
{
	statistics_clear(card, &card->statistics);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		statistics_clear(card, &card->pools[n].statistics);
	memset(card->counters, 0, sizeof(card->counters));
	for (unsigned int f = 0; f < card->functions_max; f++)
		if (card->functions[f])
			memset(card->functions[f]->counters, 0, sizeof(card->functions[f]->counters));
}

/* ---- GET_LOG ------------------------------------------------------------------------------------------------ */

/* Entries on their way to the host: those after `after`, as many as there is room for. */
struct writer {
	struct card_context *context;
	struct speckv_log_header header;
	uint64_t after, room, seen;
	uint16_t status;
};

static void emit(struct writer *w, const void *entry)
{
	const struct speckv_cmd_log *command = &w->context->entry->log;
	uint64_t at = sizeof(w->header) + (uint64_t)w->header.entries * w->header.entry_bytes;

	if (w->status || at + w->header.entry_bytes > w->room)
		return;
	w->status = card_data_write(w->context, command->data_address + at, entry, w->header.entry_bytes);
	w->header.entries++;
}

/* In logs without sequences `after` says how many to skip. */
static void emit_counted(struct writer *w, const void *entry)
{
	w->header.last++;
	if (w->seen++ >= w->after)
		emit(w, entry);
}

static void log_health(struct writer *w)
{
	const struct speckv_card *card = w->context->card;
	const struct memory_superblock *super = memory_superblock(card);
	struct speckv_log_health health = { 0 };
	uint64_t now = card_now(card);

	health.temperature_millicelsius = (uint32_t)card->temperature;
	health.throttle_millicelsius = (uint32_t)card_feature(card, SPECKV_FEATURE_THROTTLE_MILLICELSIUS);
	health.trip_millicelsius = (uint32_t)card->config.trip_millicelsius;
	if (card->throttled)
		health.state |= SPECKV_HEALTH_THROTTLED;
	if (card->temperature >= card->config.trip_millicelsius)
		health.state |= SPECKV_HEALTH_TRIPPED;
	if (card->poisoned_pages)
		health.state |= SPECKV_HEALTH_MEMORY;
	if (card->flash.fell_back)
		health.state |= SPECKV_HEALTH_FELL_BACK;
	if (card->fatal)
		health.state |= SPECKV_HEALTH_FATAL;
	health.uptime_ns = now - card->boot_ns;
	health.power_cycles = super->power_cycles;
	health.unsafe_power_cycles = super->unsafe_power_cycles;
	health.corrected_errors = card->corrected;
	health.uncorrected_errors = card->uncorrected;
	health.throttled_ns = card->throttled_ns + (card->throttled ? now - card->throttled_since_ns : 0);
	health.poisoned_pages = card->poisoned_pages;
	for (int i = 0; i < 2; i++)
		if (card->flash.record.slot[i].erases > health.flash_erases)
			health.flash_erases = card->flash.record.slot[i].erases;
	health.outstanding = card_outstanding(w->context->card);
	emit_counted(w, &health);
}

static void log_rings(struct writer *w, bool events)
{
	const struct speckv_card *card = w->context->card;
	uint64_t last = events ? card->event_sequence : card->error_sequence, keep = events ? MEMORY_EVENTS : MEMORY_ERRORS;
	uint64_t from = w->after + 1;

	w->header.last = last;
	if (w->after >= last)
		return;
	if (last > keep && from + keep <= last) {
		w->header.lost = (uint32_t)(last - keep + 1 - from);
		from = last - keep + 1;
	}
	for (uint64_t i = from; i <= last; i++) {
		const void *entry = events ? (const void *)memory_event(card, i) : (const void *)memory_error(card, i);
		uint64_t sequence;

		memcpy(&sequence, entry, sizeof(sequence));
		if (sequence == i)
			emit(w, entry);
	}
}

static void log_pools(struct writer *w)
{
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct speckv_pool_description description;

		if (!w->context->card->pools[n].present)
			continue;
		card_pool_describe(&w->context->card->pools[n], &description);
		emit_counted(w, &description);
	}
}

static void log_grants(struct writer *w)
{
	const struct speckv_card *card = w->context->card;

	for (unsigned int f = 0; f < card->functions_max; f++) {
		const struct card_function *function = card->functions[f];

		for (unsigned int q = 0; function && q <= function->pairs; q++) {
			const struct card_rights *grants = q ? function->pair[q - 1].grant : function->grant;

			for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
				struct speckv_log_grant grant = { .function = function->index, .pool = (uint16_t)n,
								  .queue = q ? (uint16_t)(q - 1) : SPECKV_ALL_QUEUES,
								  .rights = grants[n].rights, .granted = grants[n].granted };

				if (grant.rights)
					emit_counted(w, &grant);
			}
		}
	}
}

static uint16_t log_counters(struct writer *w)
{
	struct speckv_card *card = w->context->card;
	const struct speckv_cmd_log *command = &w->context->entry->log;
	struct card_statistics *statistics = &card->statistics;
	struct speckv_log_counters out;

	if (command->pool) {
		if (command->pool > SPECKV_CARD_POOLS || !card->pools[command->pool].present)
			return SPECKV_STATUS_NO_POOL;
		statistics = &card->pools[command->pool].statistics;
	}
	out.taken_ns = card_wall(card);
	out.since_ns = statistics->since_ns;
	memcpy(out.counters, statistics->counters, sizeof(out.counters));
	memcpy(out.histograms, statistics->histograms, sizeof(out.histograms));
	emit_counted(w, &out);
	if (!w->status && w->header.entries && command->flags & SPECKV_LOG_CLEAR)
		statistics_clear(card, statistics);
	return SPECKV_STATUS_OK;
}

static uint16_t log_blocks(struct writer *w)
{
	const struct speckv_cmd_log *command = &w->context->entry->log;
	struct speckv_card *card = w->context->card;
	uint32_t page_bytes;
	struct card_pool *pool;

	if (!command->pool || command->pool > SPECKV_CARD_POOLS || !card->pools[command->pool].present)
		return SPECKV_STATUS_NO_POOL;
	pool = &card->pools[command->pool];
	page_bytes = pool->record.description.page_bytes;
	for (uint64_t at = w->after / page_bytes + (w->after % page_bytes != 0); at < pool->pages; at++) {
		const struct card_block *block = &pool->blocks[at];
		struct speckv_log_block entry = { .address = at * page_bytes, .generation = block->generation, .used_ns = block->used_ns,
						  .bytes = block->bytes, .uses = block->uses };
		struct speckv_frame parsed;
		struct card_block *found;
		const uint8_t *frame;
		uint32_t before = w->header.entries;

		if (block->state != BLOCK_SEALED || card_frame_find(w->context, pool, entry.address, entry.generation, NULL, &found, &frame, &parsed))
			continue; /* one that does not verify is none; the event log has it */
		entry.first_position = parsed.identity.first_position;
		memcpy(entry.key, parsed.identity.key, sizeof(entry.key));
		emit(w, &entry);
		if (w->status)
			break;
		if (w->header.entries == before) {
			w->header.last = entry.address;
			break;
		}
	}
	return SPECKV_STATUS_OK;
}

static uint32_t entry_bytes(uint16_t log)
{
	switch (log) {
	case SPECKV_LOG_HEALTH:
		return sizeof(struct speckv_log_health);
	case SPECKV_LOG_ERRORS:
		return sizeof(struct speckv_log_error);
	case SPECKV_LOG_EVENTS:
		return sizeof(struct speckv_log_event);
	case SPECKV_LOG_POOLS:
		return sizeof(struct speckv_pool_description);
	case SPECKV_LOG_FLASH:
		return sizeof(struct speckv_log_slot);
	case SPECKV_LOG_SELF_TEST:
		return sizeof(struct speckv_log_test);
	case SPECKV_LOG_GRANTS:
		return sizeof(struct speckv_log_grant);
	case SPECKV_LOG_COUNTERS:
		return sizeof(struct speckv_log_counters);
	case SPECKV_LOG_BLOCKS:
		return sizeof(struct speckv_log_block);
	default:
		return 0;
	}
}

static uint16_t collect(struct writer *w, uint16_t log)
{
	const struct speckv_card *card = w->context->card;

	switch (log) {
	case SPECKV_LOG_HEALTH:
		log_health(w);
		break;
	case SPECKV_LOG_ERRORS:
	case SPECKV_LOG_EVENTS:
		log_rings(w, log == SPECKV_LOG_EVENTS);
		break;
	case SPECKV_LOG_POOLS:
		log_pools(w);
		break;
	case SPECKV_LOG_FLASH:
		for (unsigned int slot = SPECKV_SLOT_GOLDEN; card->config.flash && slot <= SPECKV_SLOT_B; slot++) {
			struct speckv_log_slot entry;

			card_flash_log(card, slot, &entry);
			emit_counted(w, &entry);
		}
		break;
	case SPECKV_LOG_SELF_TEST:
		for (unsigned int i = 0; i < card->tests_run; i++) {
			struct speckv_log_test entry = { .test = card->tests[i].test, .status = card->tests[i].status,
							 .elapsed_ns = card->tests[i].elapsed_ns };

			memcpy(entry.text, card->tests[i].text, sizeof(entry.text));
			emit_counted(w, &entry);
		}
		break;
	case SPECKV_LOG_GRANTS:
		log_grants(w);
		break;
	case SPECKV_LOG_BLOCKS:
		return log_blocks(w);
	default:
		return log_counters(w);
	}
	return SPECKV_STATUS_OK;
}

uint16_t card_get_log(struct card_context *context)
{
	const struct speckv_cmd_log *command = &context->entry->log;
	bool counters = command->log == SPECKV_LOG_COUNTERS;
	struct writer w = { .context = context, .after = command->after, .room = command->data_bytes };
	uint16_t status;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | SPECKV_LOG_CLEAR) ||
	    (command->flags & SPECKV_LOG_CLEAR && !counters))
		return CARD_INVALID(context, log.flags);
	if (CARD_RESERVED(context, log.buffer))
		return CARD_INVALID(context, log.buffer);
	if (CARD_RESERVED(context, log.reserved0))
		return CARD_INVALID(context, log.reserved0);
	if (CARD_RESERVED(context, log.reserved1))
		return CARD_INVALID(context, log.reserved1);
	if (command->pool && !counters && command->log != SPECKV_LOG_BLOCKS)
		return CARD_INVALID(context, log.pool);
	if (command->data_address % 64)
		return CARD_INVALID(context, log.data_address);
	if (command->data_bytes < sizeof(w.header))
		return CARD_INVALID(context, log.data_bytes);
	w.header.log = command->log;
	w.header.entry_bytes = entry_bytes(command->log);
	w.header.time_ns = card_wall(context->card);
	if (!w.header.entry_bytes)
		return SPECKV_STATUS_NO_LOG;
	status = collect(&w, command->log);
	if (!status)
		status = w.status;
	if (!status)
		status = card_data_write(context, command->data_address, &w.header, sizeof(w.header));
	context->command->result = sizeof(w.header) + (uint64_t)w.header.entries * w.header.entry_bytes;
	return status;
}

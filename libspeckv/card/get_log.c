// SPDX-License-Identifier: MIT
/* GET_LOG: copy entries of a log to the host. */
#include <stdio.h>

#include "base/log_entries.h"
#include "card/internal.h"

/* Emits the entries that come after `after`, as many as fit. */
struct writer {
	struct card_context *context;
	struct speckv_log_header header;
	uint64_t after, room, seen;
	uint16_t status;
};

static void emit_entry(struct writer *w, const void *entry)
{
	const struct speckv_cmd_log *command = &w->context->entry->log;
	uint64_t at = sizeof(w->header) + (uint64_t)w->header.entries * w->header.entry_bytes;

	if (w->status || at + w->header.entry_bytes > w->room)
		return;
	w->status = card_data_write(w->context, command->data_address + at, entry,
		w->header.entry_bytes);
	w->header.entries++;
}

/* Logs without sequence numbers: `after` is the number of entries to skip. */
static void emit_counted(struct writer *w, const void *entry)
{
	w->header.last++;
	if (w->seen++ >= w->after)
		emit_entry(w, entry);
}

static void log_health(struct writer *w)
{
	const struct speckv_card *card = w->context->card;
	const struct memory_superblock *super = memory_superblock(card);
	struct speckv_log_health health = { 0 };
	uint64_t now = card_now(card);

	health.temperature_millicelsius = (uint32_t)card->temperature;
	health.throttle_millicelsius =
		(uint32_t)card_feature(card, SPECKV_FEATURE_THROTTLE_MILLICELSIUS);
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
	health.throttled_ns =
		card->throttled_ns + (card->throttled ? now - card->throttled_since_ns : 0);
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
	uint64_t last = events ? card->event_sequence : card->error_sequence,
		 keep = events ? MEMORY_EVENTS : MEMORY_ERRORS;
	uint64_t from = w->after + 1;

	w->header.last = last;
	if (w->after >= last)
		return;
	if (last > keep && from + keep <= last) {
		w->header.lost = (uint32_t)(last - keep + 1 - from);
		from = last - keep + 1;
	}
	for (uint64_t i = from; i <= last; i++) {
		const void *entry = events ? (const void *)memory_event(card, i)
					   : (const void *)memory_error(card, i);
		uint64_t sequence;

		memcpy(&sequence, entry, sizeof(sequence));
		if (sequence == i)
			emit_entry(w, entry);
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
			const struct card_rights *grants = q ? function->pair[q - 1].grant
							     : function->grant;

			for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
				struct speckv_log_grant grant = { .function = function->index,
					.pool = (uint16_t)n,
					.queue = q ? (uint16_t)(q - 1) : SPECKV_ALL_QUEUES,
					.rights = grants[n].rights,
					.granted = grants[n].granted };

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
		card_statistics_clear(card, statistics);
	return SPECKV_STATUS_OK;
}

static uint16_t log_blocks(struct writer *w)
{
	const struct speckv_cmd_log *command = &w->context->entry->log;
	struct speckv_card *card = w->context->card;
	uint32_t page_bytes;
	struct card_pool *pool;

	if (!command->pool || command->pool > SPECKV_CARD_POOLS ||
		!card->pools[command->pool].present)
		return SPECKV_STATUS_NO_POOL;
	pool = &card->pools[command->pool];
	page_bytes = pool->record.description.page_bytes;
	for (uint64_t at = w->after / page_bytes + (w->after % page_bytes != 0); at < pool->pages;
		at++) {
		const struct card_block *block = &pool->blocks[at];
		struct speckv_log_block entry = { .address = at * page_bytes,
			.generation = block->generation,
			.used_ns = block->used_ns,
			.bytes = block->bytes,
			.uses = block->uses };
		struct speckv_frame parsed;
		struct card_block *found;
		const uint8_t *frame;
		uint32_t before = w->header.entries;

		if (block->state != BLOCK_SEALED ||
			card_frame_find(w->context, pool, entry.address, entry.generation, NULL,
				&found, &frame, &parsed))
			/* skip frames that do not verify; the lookup has logged an event */
			continue;
		entry.first_position = parsed.identity.first_position;
		memcpy(entry.key, parsed.identity.key, sizeof(entry.key));
		emit_entry(w, &entry);
		if (w->status)
			break;
		if (w->header.entries == before) {
			w->header.last = entry.address;
			break;
		}
	}
	return SPECKV_STATUS_OK;
}

static void flash_entry(const struct speckv_card *card, unsigned int slot,
	struct speckv_log_slot *out)
{
	const struct flash_slot *entry;
	struct flash_download download;
	uint64_t received;

	memset(out, 0, sizeof(*out));
	out->slot = (uint16_t)slot;
	if (slot == SPECKV_SLOT_GOLDEN) {
		out->state = SPECKV_SLOT_STATE_GOOD;
		out->rtl_revision = card->config.golden_revision;
		out->security_version = card->config.golden_security_version;
		snprintf(out->version, sizeof(out->version), "%u.%u.%u", out->rtl_revision >> 16,
			out->rtl_revision >> 8 & 0xff, out->rtl_revision & 0xff);
		return;
	}
	entry = &card->flash.record.slot[slot - SPECKV_SLOT_A];
	out->state = entry->state;
	out->rtl_revision = entry->revision;
	out->build_id = entry->build_id;
	out->bytes = entry->bitstream_bytes;
	out->committed_ns = entry->committed_ns;
	out->security_version = entry->security_version;
	out->status = entry->status;
	out->boots = entry->boots;
	memcpy(out->digest, entry->digest, sizeof(out->digest));
	memcpy(out->key_digest, entry->key_digest, sizeof(out->key_digest));
	memcpy(out->version, entry->version, sizeof(out->version));
	if (entry->state == SPECKV_SLOT_STATE_WRITING &&
		flash_progress(card, slot, &download, &received)) {
		out->received_bytes = card->flash.receiving == slot ? card->flash.received
								    : received;
		if (out->received_bytes == download.bundle_bytes)
			out->state = SPECKV_SLOT_STATE_WRITTEN;
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
		for (unsigned int slot = SPECKV_SLOT_GOLDEN;
			card->config.flash && slot <= SPECKV_SLOT_B; slot++) {
			struct speckv_log_slot entry;

			flash_entry(card, slot, &entry);
			emit_counted(w, &entry);
		}
		break;
	case SPECKV_LOG_SELF_TEST:
		for (unsigned int i = 0; i < card->tests_run; i++) {
			struct speckv_log_test entry = { .test = card->tests[i].test,
				.status = card->tests[i].status,
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
	struct writer w = {
		.context = context, .after = command->after, .room = command->data_bytes
	};
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
	w.header.entry_bytes = speckv_log_entry_bytes(command->log);
	w.header.time_ns = card_wall(context->card);
	if (!w.header.entry_bytes)
		return SPECKV_STATUS_NO_LOG;
	status = collect(&w, command->log);
	if (!status)
		status = w.status;
	if (!status)
		status = card_data_write(context, command->data_address, &w.header,
			sizeof(w.header));
	context->command->result =
		sizeof(w.header) + (uint64_t)w.header.entries * w.header.entry_bytes;
	return status;
}

// SPDX-License-Identifier: MIT
/*
 * SET_FEATURE and GET_FEATURE. Card features are saved in flash on request, pool features always,
 * with the pool.
 */
#include "card/internal.h"

#define FIRST CARD_FEATURE_FIRST
#define LAST CARD_FEATURE_LAST

static bool card_value_valid(const struct speckv_card *card, unsigned int feature, uint64_t value)
{
	switch (feature) {
	case SPECKV_FEATURE_THROTTLE_MILLICELSIUS:
		return (int64_t)value < card->config.trip_millicelsius && (int64_t)value >= 0;
	case SPECKV_FEATURE_INTERRUPT_COALESCING:
	case SPECKV_FEATURE_SCRUB_SECONDS:
		return value <= UINT32_MAX;
	case SPECKV_FEATURE_PREFETCH_BYTES_PER_SECOND:
		return value <= INT64_MAX;
	case SPECKV_FEATURE_PREFETCH_DEPTH:
		return value <= 16;
	case SPECKV_FEATURE_RECALL_TIMEOUT_MS:
		return value && value <= 600000;
	default:
		return value <= 1000000;
	}
}

/* Re-evaluate throttling against a new limit. */
static void applied(struct speckv_card *card, unsigned int feature)
{
	if (feature == SPECKV_FEATURE_THROTTLE_MILLICELSIUS)
		speckv_card_set_temperature(card, card->temperature);
}

static uint16_t set_card(struct card_context *context)
{
	const struct speckv_cmd_value *command = &context->entry->value;
	struct speckv_card *card = context->card;
	unsigned int i = command->feature - FIRST;
	int64_t old;

	if (command->pool)
		return CARD_INVALID(context, value.pool);
	if (!card_value_valid(card, command->feature, command->value))
		return CARD_INVALID(context, value.value);
	old = card->features[i];
	card->features[i] = (int64_t)command->value;
	if (command->flags & SPECKV_FEATURE_SAVE) {
		struct flash_record record = card->flash.record;

		record.features[i] = (int64_t)command->value;
		record.features_saved |= 1u << i;
		if (!card->config.flash || flash_store(card, &record)) {
			card->features[i] = old;
			return SPECKV_STATUS_FW_FLASH;
		}
	}
	applied(card, command->feature);
	return SPECKV_STATUS_OK;
}

static uint64_t get_pool(const struct speckv_pool_description *d, unsigned int feature)
{
	switch (feature) {
	case SPECKV_FEATURE_POOL_QUOTA_BYTES:
		return d->quota_bytes;
	case SPECKV_FEATURE_POOL_GUARANTEED_BYTES_PER_SECOND:
		return d->guaranteed_bytes_per_second;
	case SPECKV_FEATURE_POOL_BURST_BYTES_PER_SECOND:
		return d->burst_bytes_per_second;
	case SPECKV_FEATURE_POOL_EVICTION:
		return d->eviction;
	case SPECKV_FEATURE_POOL_OWNER:
		return d->uid | (uint64_t)d->gid << 32;
	default:
		return d->mode;
	}
}

/* SPECKV_FEATURE_POOL_PREFETCH */
static uint64_t get_prefetch(const struct speckv_card *card, const struct card_pool *pool)
{
	struct speckv_pace_figures f;

	speckv_pace_figures(&pool->pace, &f);
	return card_depth(card, pool) | (uint64_t)f.guarded << 8 | (uint64_t)f.settled << 16 |
		(uint64_t)f.used << 24 | (uint64_t)f.decided << 32 | (uint64_t)f.won << 40 |
		(uint64_t)(f.engaged & 0xffff) << 48;
}

static uint16_t set_pool(struct card_context *context)
{
	const struct speckv_cmd_value *command = &context->entry->value;
	struct speckv_card *card = context->card;
	struct speckv_pool_description *d;
	struct card_pool *pool;

	if (!command->pool || command->pool > SPECKV_CARD_POOLS ||
		!card->pools[command->pool].present)
		return SPECKV_STATUS_NO_POOL;
	pool = &card->pools[command->pool];
	d = &pool->record.description;
	switch (command->feature) {
	case SPECKV_FEATURE_POOL_QUOTA_BYTES:
		d->quota_bytes = command->value;
		break;
	case SPECKV_FEATURE_POOL_GUARANTEED_BYTES_PER_SECOND:
		d->guaranteed_bytes_per_second = command->value;
		break;
	case SPECKV_FEATURE_POOL_BURST_BYTES_PER_SECOND:
		d->burst_bytes_per_second = command->value;
		pool->free_ns = 0;
		break;
	case SPECKV_FEATURE_POOL_EVICTION:
		if (command->value > SPECKV_EVICT_NONE)
			return CARD_INVALID(context, value.value);
		d->eviction = (uint32_t)command->value;
		break;
	case SPECKV_FEATURE_POOL_OWNER:
		d->uid = (uint32_t)command->value;
		d->gid = (uint32_t)(command->value >> 32);
		break;
	default:
		if (command->value > 0777)
			return CARD_INVALID(context, value.value);
		d->mode = (uint32_t)command->value;
		break;
	}
	memory_pool_store(card, command->pool);
	return SPECKV_STATUS_OK;
}

static uint16_t check_feature(struct card_context *context, uint8_t flags)
{
	const struct speckv_cmd_value *command = &context->entry->value;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | flags))
		return CARD_INVALID(context, value.flags);
	if (CARD_RESERVED(context, value.reserved))
		return CARD_INVALID(context, value.reserved);
	if (!(command->feature >= FIRST && command->feature <= LAST) &&
		!(command->feature >= SPECKV_FEATURE_POOL_QUOTA_BYTES &&
			command->feature <= SPECKV_FEATURE_POOL_PREFETCH))
		return SPECKV_STATUS_NO_FEATURE;
	return SPECKV_STATUS_OK;
}

uint16_t card_set_feature(struct card_context *context)
{
	uint16_t status = check_feature(context, SPECKV_FEATURE_SAVE);

	if (status)
		return status;
	if (context->entry->value.feature == SPECKV_FEATURE_POOL_PREFETCH)
		return CARD_INVALID(context, value.feature); /* read only */
	return context->entry->value.feature <= LAST ? set_card(context) : set_pool(context);
}

uint16_t card_get_feature(struct card_context *context)
{
	const struct speckv_cmd_value *command = &context->entry->value;
	struct speckv_card *card = context->card;
	uint16_t status = check_feature(context, 0);

	if (status)
		return status;
	if (CARD_RESERVED(context, value.value))
		return CARD_INVALID(context, value.value);
	if (command->feature <= LAST) {
		if (command->pool)
			return CARD_INVALID(context, value.pool);
		context->command->result = card_feature(card, command->feature);
		return SPECKV_STATUS_OK;
	}
	if (!command->pool || command->pool > SPECKV_CARD_POOLS ||
		!card->pools[command->pool].present)
		return SPECKV_STATUS_NO_POOL;
	context->command->result = command->feature == SPECKV_FEATURE_POOL_PREFETCH
		? get_prefetch(card, &card->pools[command->pool])
		: get_pool(&card->pools[command->pool].record.description, command->feature);
	return SPECKV_STATUS_OK;
}

// SPDX-License-Identifier: MIT
/*
 * Staging memory: a ring of decoded blocks in device memory. An entry overwritten before use counts
 * as an unused prefetch. Memory outside of the entries is zero: nothing of a dropped block outlives
 * its pool.
 */
#include "card/internal.h"

#define BURST_NS 10000000 /* a prefetch that would have to wait longer is dropped */

static void settle(struct speckv_card *card, const struct card_stage *stage, bool used)
{
	if (stage->predicted && card->pools[stage->pool].present)
		speckv_pace_settle(&card->pools[stage->pool].pace, used);
}

/*
 * Drop an entry and zero its bytes, except those before `until`, which are about to be overwritten.
 */
static void drop_stage(struct speckv_card *card, struct card_stage *stage, uint64_t until)
{
	uint64_t from = stage->at < until ? until : stage->at, end = stage->at + stage->bytes;

	if (from < end)
		memset(card->memory + card->layout.stage + from, 0, end - from);
	if (!stage->used) {
		settle(card, stage, false);
		card->counters[COUNT_PREFETCH_UNUSED]++;
		card_tally(card,
			card->pools[stage->pool].present ? &card->pools[stage->pool] : NULL,
			SPECKV_COUNT_PREFETCH_UNUSED, 1);
	}
	stage->pool = 0;
}

const struct card_stage *card_stage_find(struct speckv_card *card, unsigned int pool,
	uint64_t address, uint64_t generation, uint16_t layer_first, uint16_t layer_count)
{
	for (unsigned int i = 0; i < CARD_STAGES; i++) {
		const struct card_stage *stage = &card->stages[i];

		if (stage->pool == pool && stage->address == address &&
			stage->generation == generation && stage->layer_first <= layer_first &&
			layer_first + layer_count <= stage->layer_first + stage->layer_count)
			return stage;
	}
	return NULL;
}

const uint8_t *card_stage_use(struct card_context *context, const struct card_stage *stage)
{
	struct speckv_card *card = context->card;

	if (!stage->used) {
		settle(card, stage, true);
		card_count(context, COUNT_PREFETCH_USED, 1);
	}
	card->stages[stage - card->stages].used = true;
	return card->memory + card->layout.stage + stage->at;
}

#define STAGE_STEP (1u << 20) /* backing is allocated in steps of this */

/* Reserve `bytes` in the ring; NULL: too large, or no backing. */
uint8_t *card_stage_begin(struct speckv_card *card, uint64_t bytes)
{
	if (bytes > card->config.stage_bytes)
		return NULL;
	bytes = (bytes + 63) / 64 * 64;
	if (card->stage_next + bytes > card->config.stage_bytes)
		card->stage_next = 0;
	if (card->stage_next + bytes > card->stage_backed) {
		uint64_t end =
			(card->stage_next + bytes + STAGE_STEP - 1) / STAGE_STEP * STAGE_STEP;

		end = end < card->config.stage_bytes ? end : card->config.stage_bytes;
		if (memory_take(card, card->layout.stage + card->stage_backed,
			    end - card->stage_backed))
			return NULL;
		card->stage_backed = end;
	}
	for (unsigned int i = 0; i < CARD_STAGES; i++) {
		struct card_stage *stage = &card->stages[i];

		if (stage->pool && stage->at < card->stage_next + bytes &&
			card->stage_next < stage->at + stage->bytes)
			drop_stage(card, stage, card->stage_next + bytes);
	}
	return card->memory + card->layout.stage + card->stage_next;
}

void card_stage_end(struct card_context *context, unsigned int pool, uint64_t address,
	uint64_t generation, uint16_t layer_first, uint16_t layer_count, uint64_t bytes)
{
	struct speckv_card *card = context->card;
	struct card_stage *stage = &card->stages[0];

	for (unsigned int i = 0; i < CARD_STAGES && stage->pool; i++)
		if (!card->stages[i].pool || card->stages[i].used_ns < stage->used_ns)
			stage = &card->stages[i];
	if (stage->pool)
		drop_stage(card, stage, 0);
	*stage = (struct card_stage){ .pool = (uint16_t)pool,
		.address = address,
		.generation = generation,
		.layer_first = layer_first,
		.layer_count = layer_count,
		.at = card->stage_next,
		.bytes = (bytes + 63) / 64 * 64,
		.used_ns = card_now(card),
		.predicted = context->entry->sqe.opcode == SPECKV_IO_PREDICT };
	card->stage_next += stage->bytes;
}

/* Drop the staged copies of a range. */
void card_stage_drop(struct speckv_card *card, unsigned int pool, uint64_t address, uint64_t bytes)
{
	for (unsigned int i = 0; i < CARD_STAGES; i++) {
		struct card_stage *stage = &card->stages[i];

		if (stage->pool != pool || stage->address < address ||
			stage->address - address >= bytes)
			continue;
		drop_stage(card, stage, 0);
	}
}

/* Clear all of it, including what an earlier, killed process staged. */
void card_stage_clear(struct speckv_card *card)
{
	memory_clear(card, card->layout.stage, card->config.stage_bytes);
	memset(card->stages, 0, sizeof(card->stages));
	card->stage_next = card->stage_backed = 0;
}

/* Throttle prefetches: by their rate limit, and by temperature. */
bool card_stage_budget(struct speckv_card *card, uint64_t bytes)
{
	uint64_t rate = card_feature(card, SPECKV_FEATURE_PREFETCH_BYTES_PER_SECOND),
		 now = card_now(card);

	if (card->throttled)
		return false;
	if (!rate)
		return true;
	if (card->prefetch_free_ns < now)
		card->prefetch_free_ns = now;
	if (card->prefetch_free_ns > now + BURST_NS)
		return false;
	card->prefetch_free_ns += bytes * 1000000000 / rate;
	return true;
}

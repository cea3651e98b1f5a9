// SPDX-License-Identifier: MIT
/* INVALIDATE: recall the holders of a block, fence those that do not answer, then free it. */
#include "card/directory.h"

/* Post a recall to one holder. False: its completion ring has no room. */
static bool recall_from(struct card_function *function, struct card_queue *queue,
	struct card_pool *pool, struct card_block *block)
{
	uint64_t where = card_block_address(pool, block) | (uint64_t)pool->number << 48;

	if (!card_notice(function, queue, SPECKV_NOTICE_RECALL, where))
		return false;
	block->recalled |= UINT64_C(1) << queue->agent;
	function->counters[COUNT_RECALLS]++;
	function->card->counters[COUNT_RECALLS]++;
	return true;
}

/* Post a recall to every holder. card_recall_again() retries queues without room. */
static void recall(struct speckv_card *card, struct card_pool *pool, struct card_block *block)
{
	for (unsigned int agent = 0; agent < CARD_AGENTS; agent++) {
		uint64_t bit = UINT64_C(1) << agent;
		struct card_queue *queue;

		if (!(block->holders & bit) || (block->recalled & bit))
			continue;
		queue = card_agent_queue(card, agent);
		if (!queue ||
			recall_from(card->functions[card->agents[agent].function], queue, pool,
				block))
			continue;
		queue->untold |= UINT64_C(1) << (pool->number - 1);
		queue->untold_at = queue->untold_ns = 0;
	}
}

#define RECALL_STEP 1024 /* pages scanned per turn */

void card_recall_again(struct card_function *function, struct card_queue *queue)
{
	struct card_pool *pool = &function->card->pools[1 + __builtin_ctzll(queue->untold)];
	uint64_t bit = queue->agent < CARD_AGENTS ? UINT64_C(1) << queue->agent : 0;

	for (unsigned int n = 0; pool->present && bit && queue->untold_at < pool->pages;
		n++, queue->untold_at++) {
		struct card_block *block = &pool->blocks[queue->untold_at];
		bool untold = block->recalling && block->holders & bit && !(block->recalled & bit);

		if (n == RECALL_STEP)
			return;
		if (untold && block->state != BLOCK_FREE && block->state != BLOCK_REST &&
			!recall_from(function, queue, pool, block))
			return;
	}
	queue->untold &= queue->untold - 1;
	queue->untold_at = 0;
}

enum { INVALIDATE_CHECK, INVALIDATE_RECALL, INVALIDATE_WAIT };
#define INVALIDATE_STEP 4096 /* pages of a range scanned per turn; */
#define INVALIDATE_BLOCK 32 /* a block that is recalled or freed counts as this many */

/* End of this turn's scan, as a page of the range. */
static uint64_t invalidate_end(const struct card_command *command, uint64_t count)
{
	return command->cursor + INVALIDATE_STEP < count ? command->cursor + INVALIDATE_STEP
							 : count;
}

/* Validate the whole range before anything is changed. */
static uint16_t invalidate_check(struct card_context *context, struct card_pool *pool,
	uint64_t first, uint64_t count)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	struct card_command *command = context->command;
	uint64_t end = invalidate_end(command, count);
	uint8_t *unused;
	uint16_t status = card_map(context, pool, (first + command->cursor) * card_page_bytes(pool),
		(end - command->cursor) * card_page_bytes(pool), &unused);

	if (status)
		return status;
	if (!command->cursor && pool->blocks[first].state == BLOCK_REST)
		return CARD_INVALID(context, range.address);
	for (; command->cursor < end; command->cursor++) {
		struct card_block *block = &pool->blocks[first + command->cursor];

		if (block->state == BLOCK_FREE || block->state == BLOCK_REST)
			continue;
		if (range->generation && block->generation != range->generation)
			return card_at(context, card_block_address(pool, block),
				SPECKV_STATUS_NOT_FOUND);
		if (command->cursor + block->pages > count)
			return CARD_INVALID(context, range.bytes);
		command->any = true;
	}
	if (end < count)
		return CARD_WAIT;
	return command->any ? SPECKV_STATUS_OK
			    : card_at(context, range->address, SPECKV_STATUS_NOT_FOUND);
}

/* Invalidate one block: true when it is free. */
static bool invalidate_block(struct card_context *context, struct card_pool *pool,
	struct card_block *block, bool first_look, bool late)
{
	struct speckv_card *card = context->card;
	bool mine = card_block_held(context, block);

	if (!first_look && !block->recalling)
		return true; /* freed and reused since */
	if (card_block_is_fill(block) && mine) {
		card_block_free(card, pool, block);
		return true;
	}
	if (mine) {
		block->holders &= ~(UINT64_C(1) << context->queue->agent);
		card_agent_let_go(card, context->queue->agent);
	}
	if (late)
		for (unsigned int agent = 0; agent < CARD_AGENTS; agent++)
			if (block->holders >> agent & 1)
				card_queue_fence(card, agent);
	if (block->state == BLOCK_FREE)
		return true; /* a fill of the fenced agent */
	if (!block->holders) {
		card_block_free(card, pool, block);
		return true;
	}
	if (block->state == BLOCK_SEALED) {
		card_block_set_state(block, BLOCK_DYING);
		card_stage_drop(card, pool->number, card_block_address(pool, block),
			(uint64_t)block->pages * card_page_bytes(pool));
	}
	block->recalling = 1;
	recall(card, pool, block);
	return false;
}

/* Free blocks without other holders; post recalls for the rest. */
static uint16_t invalidate_recall(struct card_context *context, struct card_pool *pool,
	uint64_t first, uint64_t count)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	struct card_command *command = context->command;

	for (uint64_t looked = 0; command->cursor < count && looked < INVALIDATE_STEP;
		command->cursor++, looked++) {
		struct card_block *block = &pool->blocks[first + command->cursor];

		if (block->state == BLOCK_FREE || block->state == BLOCK_REST)
			continue;
		looked += INVALIDATE_BLOCK;
		/* Reused since the check. */
		if ((range->generation && block->generation != range->generation) ||
			command->cursor + block->pages > count)
			continue;
		if (!invalidate_block(context, pool, block, true, false) &&
			command->held == UINT64_MAX)
			command->held = command->cursor;
	}
	return command->cursor < count ? CARD_WAIT : SPECKV_STATUS_OK;
}

/* Wait for the recalled blocks in order. Past the deadline, fence the remaining holders. */
static uint16_t invalidate_wait(struct card_context *context, struct card_pool *pool,
	uint64_t first, uint64_t count)
{
	struct card_command *command = context->command;
	bool late = card_now(context->card) >= command->deadline_ns;

	command->ready_ns = 0;
	for (uint64_t looked = 0; command->held < count; command->held++, looked++) {
		struct card_block *block = &pool->blocks[first + command->held];

		if (looked >= INVALIDATE_STEP)
			return CARD_WAIT;
		if (block->state == BLOCK_FREE || block->state == BLOCK_REST)
			continue;
		looked += INVALIDATE_BLOCK;
		if (invalidate_block(context, pool, block, false, late))
			continue;
		command->ready_ns = command->deadline_ns;
		command->event = &pool->released;
		command->seen = pool->released;
		return CARD_WAIT;
	}
	return SPECKV_STATUS_OK;
}

/* Work in bounded steps and resume at the cursor: a range may be a whole pool. */
uint16_t card_invalidate(struct card_context *context)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	struct card_command *command = context->command;
	uint64_t first, count;
	struct card_pool *pool;
	uint16_t status = card_range_begin(context, SPECKV_RIGHT_WRITE, 0, &pool);

	if (status)
		return status;
	first = range->address / card_page_bytes(pool);
	count = range->bytes / card_page_bytes(pool);
	if (command->phase == INVALIDATE_CHECK) {
		status = invalidate_check(context, pool, first, count);
		if (status)
			return status;
		command->phase = INVALIDATE_RECALL;
		command->cursor = 0;
		command->held = UINT64_MAX;
	}
	/* The pool may have shrunk since; the part cut off held no blocks. */
	count = first >= pool->pages	      ? 0
		: count < pool->pages - first ? count
					      : pool->pages - first;
	if (command->phase == INVALIDATE_RECALL) {
		status = invalidate_recall(context, pool, first, count);
		if (status)
			return status;
		command->phase = INVALIDATE_WAIT;
		command->deadline_ns = card_now(context->card) +
			card_feature(context->card, SPECKV_FEATURE_RECALL_TIMEOUT_MS) * 1000000;
	}
	status = invalidate_wait(context, pool, first, count);
	if (!status)
		card_tally(context->card, pool, SPECKV_COUNT_DROPS, 1);
	return status;
}

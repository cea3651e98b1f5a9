/* SPDX-License-Identifier: MIT */
/* Blocks of a pool and their holders: shared by directory.c and invalidate.c. */
#ifndef SPECKV_CARD_DIRECTORY_H
#define SPECKV_CARD_DIRECTORY_H

#include "card/internal.h"

static inline uint32_t card_page_bytes(const struct card_pool *pool)
{
	return pool->record.description.page_bytes;
}

static inline uint64_t card_block_address(const struct card_pool *pool,
	const struct card_block *block)
{
	return (uint64_t)(block - pool->blocks) * card_page_bytes(pool);
}

static inline bool card_block_is_fill(const struct card_block *block)
{
	return block->state == BLOCK_EXCLUSIVE || block->state == BLOCK_MODIFIED;
}

static inline void card_block_set_state(struct card_block *block, enum card_block_state state)
{
	atomic_thread_fence(memory_order_release);
	*(volatile uint8_t *)&block->state = (uint8_t)state;
	atomic_thread_fence(memory_order_release);
}

/* Does this queue pair hold the block? */
static inline bool card_block_held(const struct card_context *context,
	const struct card_block *block)
{
	return context->queue->agent < CARD_AGENTS && (block->holders >> context->queue->agent & 1);
}

static inline struct card_queue *card_agent_queue(struct speckv_card *card, unsigned int agent)
{
	struct card_function *function = card->functions[card->agents[agent].function];

	return card->agents[agent].used && function ? &function->pair[card->agents[agent].queue]
						    : NULL;
}

/* Drop one hold of an agent; the last one frees its agent slot. */
void card_agent_let_go(struct speckv_card *card, unsigned int agent);
/* Check pool, rights, and that the range is whole pages. */
uint16_t card_range_begin(struct card_context *context, uint32_t right, uint8_t flags,
	struct card_pool **pool);

#endif

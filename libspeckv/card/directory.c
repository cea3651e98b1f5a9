// SPDX-License-Identifier: MIT
/*
 * The directory: the state of every page of a pool, and the queue pairs (agents) that hold each
 * block. A fill is E or M and has one owner; sealing makes it S; an invalidation recalls the
 * holders and fences those that do not answer.
 */
#include "card/directory.h"

/* The block that starts at this address; NULL: beyond the pool, or not on a page boundary. */
struct card_block *card_block_at(struct card_pool *pool, uint64_t address)
{
	if (address % card_page_bytes(pool) || address / card_page_bytes(pool) >= pool->pages)
		return NULL;
	return &pool->blocks[address / card_page_bytes(pool)];
}

/* Look up a sealed block. */
uint16_t card_block_find(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, struct card_block **out)
{
	uint8_t *unused;
	uint16_t status = card_map(context, pool, address, 1, &unused);

	if (status)
		return status;
	*out = card_block_at(pool, address);
	if (!*out || (*out)->state != BLOCK_SEALED || (*out)->generation != generation)
		return card_at(context, address, SPECKV_STATUS_NOT_FOUND);
	return SPECKV_STATUS_OK;
}

/* Is the range free? `address` is on a page boundary, and the range is within the pool. */
bool card_run_free(const struct card_pool *pool, uint64_t address, uint64_t bytes, uint16_t *status)
{
	uint64_t first = address / card_page_bytes(pool),
		 count = (bytes + card_page_bytes(pool) - 1) / card_page_bytes(pool);

	for (uint64_t i = first; i < first + count; i++) {
		const struct card_block *block = &pool->blocks[i];

		if (block->state == BLOCK_FREE)
			continue;
		if (block->state == BLOCK_REST)
			block = &pool->blocks[block->head];
		*status = block->state == BLOCK_SEALED ? SPECKV_STATUS_SEALED
						       : SPECKV_STATUS_CONFLICT;
		return false;
	}
	return true;
}

static void block_fill(struct speckv_card *card, struct card_pool *pool, uint64_t address,
	uint64_t generation, uint64_t bytes, enum card_block_state state, uint8_t owner)
{
	uint32_t head = (uint32_t)(address / card_page_bytes(pool)),
		 count = (uint32_t)((bytes + card_page_bytes(pool) - 1) / card_page_bytes(pool));
	struct card_block *block = &pool->blocks[head];

	for (uint32_t i = 1; i < count; i++) {
		pool->blocks[head + i].head = head;
		card_block_set_state(&pool->blocks[head + i], BLOCK_REST);
	}
	block->generation = generation;
	block->holders = 0;
	block->recalled = 0;
	block->used_ns = card_now(card);
	block->pages = count;
	block->bytes = (uint32_t)bytes;
	block->head = head;
	block->uses = 0;
	block->owner = owner;
	block->recalling = 0;
	card_block_set_state(block, state);
	pool->used_pages += count;
	if (state == BLOCK_SEALED) {
		pool->stored_bytes += bytes;
		pool->count++;
	}
}

void card_block_publish(struct speckv_card *card, struct card_pool *pool, uint64_t address,
	uint64_t generation, uint64_t bytes)
{
	block_fill(card, pool, address, generation, bytes, BLOCK_SEALED, CARD_AGENTS);
}

void card_agent_let_go(struct speckv_card *card, unsigned int agent)
{
	struct card_queue *queue = card_agent_queue(card, agent);

	if (!queue || --queue->held)
		return;
	card->agents[agent].used = false;
	queue->agent = CARD_AGENTS;
}

/* Drop one holder. An INVALIDATE that waits for the block re-checks when `released` changes. */
static void release(struct speckv_card *card, struct card_pool *pool, struct card_block *block,
	unsigned int agent)
{
	block->holders &= ~(UINT64_C(1) << agent);
	card_agent_let_go(card, agent);
	pool->released += block->recalling;
	if (block->state == BLOCK_DYING && !block->holders)
		card_block_free(card, pool, block);
}

static void release_all(struct speckv_card *card, struct card_block *block)
{
	for (unsigned int agent = 0; agent < CARD_AGENTS; agent++)
		if (block->holders >> agent & 1)
			card_agent_let_go(card, agent);
	block->holders = 0;
	block->recalled = 0;
}

void card_block_free(struct speckv_card *card, struct card_pool *pool, struct card_block *block)
{
	uint64_t address = card_block_address(pool, block),
		 entry = pool->map[address / SPECKV_CARD_PAGE_BYTES];
	uint32_t head = (uint32_t)(block - pool->blocks), count = block->pages;
	bool frame = block->state == BLOCK_SEALED || block->state == BLOCK_DYING;

	/*
	 * Zero the header, so that the rest no longer parses as a frame. It lies in one page: pages
	 * have at least 256 bytes.
	 */
	if (entry & MAP_VALID)
		memset(card->memory + (entry & ~(uint64_t)(SPECKV_CARD_PAGE_BYTES - 1)) +
				address % SPECKV_CARD_PAGE_BYTES,
			0, SPECKV_FRAME_HEADER_BYTES);
	card_stage_drop(card, pool->number, address, (uint64_t)count * card_page_bytes(pool));
	release_all(card, block);
	pool->released += block->recalling;
	card_block_set_state(block, BLOCK_FREE);
	for (uint32_t i = 1; i < count; i++)
		card_block_set_state(&pool->blocks[head + i], BLOCK_FREE);
	pool->used_pages -= count;
	if (frame) {
		pool->stored_bytes -= block->bytes;
		pool->count--;
	}
}

/* pages per entry of `holding`, the bit map of agents that may hold one of them */
#define HOLD_STEP 64

static void drop_some(struct speckv_card *card, struct card_queue *queue, struct card_pool *pool,
	uint64_t first)
{
	for (uint64_t i = first; i < first + HOLD_STEP && i < pool->pages && queue->held; i++) {
		struct card_block *block = &pool->blocks[i];
		unsigned int agent = queue->agent;

		if (block->state == BLOCK_FREE || block->state == BLOCK_REST ||
			!(block->holders >> agent & 1))
			continue;
		if (card_block_is_fill(block))
			card_block_free(card, pool, block);
		else
			release(card, pool, block, agent);
	}
}

/*
 * Drop all holds of a queue pair in one pool (0: all pools). Scans only the parts of the pool in
 * which it may hold a block.
 */
void card_agent_drop(struct speckv_card *card, struct card_queue *queue, unsigned int only)
{
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS && queue->held; n++) {
		struct card_pool *pool = &card->pools[n];

		if (!pool->present || !pool->holding || (only && only != n))
			continue;
		for (uint64_t i = 0; i * HOLD_STEP < pool->pages && queue->held; i++) {
			uint64_t bit = UINT64_C(1) << queue->agent;

			if (!(pool->holding[i] & bit))
				continue;
			pool->holding[i] &= ~bit;
			drop_some(card, queue, pool, i * HOLD_STEP);
		}
	}
}

/*
 * After a start: no block has holders, fills are lost, and a page holds a frame only if its header
 * verifies.
 */
void card_directory_recover(struct speckv_card *card, struct card_pool *pool)
{
	uint64_t i = 0;

	pool->used_pages = pool->stored_bytes = pool->count = 0;
	while (i < pool->pages) {
		struct card_block *block = &pool->blocks[i];
		uint64_t address = i * card_page_bytes(pool),
			 entry = pool->map[address / SPECKV_CARD_PAGE_BYTES];
		const uint8_t *at = card->memory +
			(entry & ~(uint64_t)(SPECKV_CARD_PAGE_BYTES - 1)) +
			address % SPECKV_CARD_PAGE_BYTES;
		bool good = block->state == BLOCK_SEALED && block->pages &&
			block->pages <= pool->pages - i &&
			block->bytes <= (uint64_t)block->pages * card_page_bytes(pool) &&
			block->bytes >= SPECKV_FRAME_HEADER_BYTES && (entry & MAP_VALID);

		/* Parsing is cheap if header and section table lie in one page, the usual case. */
		if (good &&
			address % SPECKV_CARD_PAGE_BYTES + block->bytes <= SPECKV_CARD_PAGE_BYTES) {
			struct speckv_frame frame;

			good = !speckv_frame_parse(at, block->bytes, &frame) &&
				frame.identity.generation == block->generation &&
				frame.identity.pool_address == address &&
				!memcmp(frame.identity.pool_uuid, pool->record.description.uuid,
					16);
		}
		block->holders = block->recalled = 0;
		block->recalling = 0;
		if (!good) {
			/*
			 * A fill, or a block whose invalidation was interrupted: its rest pages
			 * follow and are orphans.
			 */
			if (block->state != BLOCK_FREE && block->state != BLOCK_REST &&
				(entry & MAP_VALID))
				memset(card->memory + (at - card->memory), 0,
					SPECKV_FRAME_HEADER_BYTES);
			block->state = BLOCK_FREE;
			i++;
			continue;
		}
		block->head = (uint32_t)i;
		for (uint32_t k = 1; k < block->pages; k++) {
			pool->blocks[i + k].state = BLOCK_REST;
			pool->blocks[i + k].head = (uint32_t)i;
		}
		pool->used_pages += block->pages;
		pool->stored_bytes += block->bytes;
		pool->count++;
		i += block->pages;
	}
}

/* ---- commands ------------------------------------------------------------------------------- */

static uint16_t hold_block(struct card_context *context, struct card_pool *pool,
	struct card_block *block)
{
	struct speckv_card *card = context->card;
	struct card_queue *queue = context->queue;
	unsigned int agent = queue->agent;

	if (!pool->holding)
		pool->holding =
			calloc(pool->record.reserve_bytes / card_page_bytes(pool) / HOLD_STEP + 1,
				sizeof(*pool->holding));
	if (!pool->holding)
		return SPECKV_STATUS_NO_MEMORY;
	if (agent >= CARD_AGENTS) {
		for (agent = 0; agent < CARD_AGENTS && card->agents[agent].used; agent++)
			;
		if (agent == CARD_AGENTS)
			return SPECKV_STATUS_NO_SLOT;
		card->agents[agent].used = true;
		card->agents[agent].function = context->function->index;
		card->agents[agent].queue = queue->index;
		queue->agent = (uint16_t)agent;
	}
	if (!(block->holders >> agent & 1)) {
		queue->held++;
		block->recalled &= ~(UINT64_C(1) << agent); /* of an earlier hold */
	}
	block->holders |= UINT64_C(1) << agent;
	pool->holding[(block - pool->blocks) / HOLD_STEP] |= UINT64_C(1) << agent;
	return SPECKV_STATUS_OK;
}

uint16_t card_range_begin(struct card_context *context, uint32_t right, uint8_t flags,
	struct card_pool **pool)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	uint16_t status;

	if (range->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | flags))
		return CARD_INVALID(context, range.flags);
	if (CARD_RESERVED(context, range.buffer))
		return CARD_INVALID(context, range.buffer);
	if (CARD_RESERVED(context, range.reserved))
		return CARD_INVALID(context, range.reserved);
	status = card_pool_find(context, range->pool, right, pool);
	if (status)
		return status;
	if (range->address % card_page_bytes(*pool))
		return CARD_INVALID(context, range.address);
	if (!range->bytes || range->bytes % card_page_bytes(*pool))
		return CARD_INVALID(context, range.bytes);
	return SPECKV_STATUS_OK;
}

/* As card_range_begin(), and the whole range is mapped. */
static uint16_t range_check(struct card_context *context, uint32_t right, uint8_t flags,
	struct card_pool **pool)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	uint16_t status = card_range_begin(context, right, flags, pool);
	uint8_t *unused;

	return status ? status : card_map(context, *pool, range->address, range->bytes, &unused);
}

static uint16_t acquire_shared(struct card_context *context)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	struct card_block *block;
	struct card_pool *pool;
	uint16_t status = range_check(context, SPECKV_RIGHT_READ, 0, &pool);

	if (status)
		return status;
	block = card_block_at(pool, range->address);
	if (card_block_is_fill(block) && block->generation == range->generation &&
		!card_block_held(context, block))
		return card_at(context, range->address, SPECKV_STATUS_CONFLICT);
	/*
	 * Look up by start address: a client may know only the page run, not the frame's length in
	 * it.
	 */
	status = card_block_find(context, pool, range->address, range->generation, &block);
	return status ? status : hold_block(context, pool, block);
}

static uint16_t acquire_exclusive(struct card_context *context)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	struct card_block *block;
	struct card_pool *pool;
	uint16_t status = range_check(context, SPECKV_RIGHT_WRITE, 0, &pool);

	if (status)
		return status;
	if (range->bytes > UINT32_MAX)
		return CARD_INVALID(context, range.bytes);
	block = card_block_at(pool, range->address);
	if (card_block_is_fill(block) && card_block_held(context, block) &&
		block->generation == range->generation &&
		range->bytes / card_page_bytes(pool) == block->pages)
		return SPECKV_STATUS_OK;
	if (!card_run_free(pool, range->address, range->bytes, &status))
		return card_at(context, range->address, status);
	block_fill(context->card, pool, range->address, range->generation, range->bytes,
		BLOCK_EXCLUSIVE, CARD_AGENTS);
	status = hold_block(context, pool, block);
	if (status)
		card_block_free(context->card, pool, block);
	else
		block->owner = (uint8_t)context->queue->agent;
	return status;
}

uint16_t card_acquire(struct card_context *context)
{
	return context->entry->sqe.opcode == SPECKV_IO_ACQUIRE_SHARED ? acquire_shared(context)
								      : acquire_exclusive(context);
}

/* Seal a fill: publish it if it contains a frame whose identity names this place. */
static uint16_t seal_block(struct card_context *context, struct card_pool *pool,
	struct card_block *block)
{
	struct speckv_card *card = context->card;
	uint64_t address = card_block_address(pool, block),
		 capacity = (uint64_t)block->pages * card_page_bytes(pool);
	uint64_t bytes = capacity < pool->frame_bytes ? capacity : pool->frame_bytes,
		 quota = pool->record.description.quota_bytes;
	uint16_t status = card_memory_read(context, pool, address, card->frame_scratch, bytes);
	struct speckv_frame frame;
	uint32_t keep;
	int rc;

	if (status)
		return status;
	rc = speckv_frame_verify(card->frame_scratch, bytes);
	if (rc == -EOPNOTSUPP || rc == -EPROTONOSUPPORT)
		return card_at(context, address, SPECKV_STATUS_NO_CODEC);
	if (rc || speckv_frame_parse(card->frame_scratch, bytes, &frame))
		return card_at(context, address, SPECKV_STATUS_CORRUPT);
	if (frame.identity.generation != block->generation ||
		frame.identity.pool_address != address ||
		memcmp(frame.identity.pool_uuid, pool->record.description.uuid, 16) ||
		memcmp(&frame.geometry, &pool->record.description.shape, sizeof(frame.geometry)))
		return card_at(context, address, SPECKV_STATUS_CORRUPT);
	if (quota && pool->stored_bytes + frame.frame_bytes > quota)
		return SPECKV_STATUS_QUOTA;
	keep = (uint32_t)((frame.frame_bytes + card_page_bytes(pool) - 1) / card_page_bytes(pool));
	for (uint32_t i = block->pages; i-- > keep;)
		card_block_set_state(block + i, BLOCK_FREE);
	pool->used_pages -= block->pages - keep;
	block->pages = keep;
	block->bytes = (uint32_t)frame.frame_bytes;
	card_block_set_state(block, BLOCK_SEALED);
	pool->stored_bytes += block->bytes;
	pool->count++;
	context->command->result = block->bytes;
	card_tally(card, pool, SPECKV_COUNT_PUTS, 1);
	return SPECKV_STATUS_OK;
}

uint16_t card_writeback(struct card_context *context)
{
	const struct speckv_cmd_range *range = &context->entry->range;
	bool sealing = range->flags & SPECKV_WRITEBACK_SEAL,
	     releasing = range->flags & SPECKV_WRITEBACK_RELEASE;
	struct card_block *block;
	struct card_pool *pool;
	/* RELEASE needs only the right to read: a reader must be able to answer a recall. */
	uint16_t status = range_check(context,
		releasing && !sealing ? SPECKV_RIGHT_READ : SPECKV_RIGHT_WRITE,
		SPECKV_WRITEBACK_SEAL | SPECKV_WRITEBACK_RELEASE, &pool);

	if (status == SPECKV_STATUS_DENIED && releasing && !sealing)
		status = range_check(context, SPECKV_RIGHT_WRITE, SPECKV_WRITEBACK_RELEASE, &pool);
	if (status)
		return status;
	block = card_block_at(pool, range->address);
	if (block->state == BLOCK_FREE || block->state == BLOCK_REST ||
		block->generation != range->generation)
		return card_at(context, range->address, SPECKV_STATUS_NOT_FOUND);
	if (card_block_is_fill(block)) {
		if (!card_block_held(context, block))
			return card_at(context, range->address, SPECKV_STATUS_CONFLICT);
		if (sealing) {
			status = seal_block(context, pool, block);
			if (status)
				return status;
		} else if (releasing) {
			card_block_free(context->card, pool, block);
			return SPECKV_STATUS_OK;
		} else {
			card_block_set_state(block, BLOCK_EXCLUSIVE);
		}
	} else if (sealing) {
		return card_at(context, range->address, SPECKV_STATUS_SEALED);
	}
	if (releasing && card_block_held(context, block))
		release(context->card, pool, block, context->queue->agent);
	return SPECKV_STATUS_OK;
}

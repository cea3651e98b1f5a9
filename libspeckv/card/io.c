// SPDX-License-Identifier: MIT
/* I/O commands: dispatch, rights, latencies. */
#include "card/internal.h"

static uint16_t check_bare(struct card_context *context)
{
	const struct speckv_cmd_bare *command = &context->entry->bare;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, bare.flags);
	if (CARD_RESERVED(context, bare.pool))
		return CARD_INVALID(context, bare.pool);
	if (CARD_RESERVED(context, bare.buffer))
		return CARD_INVALID(context, bare.buffer);
	if (CARD_RESERVED(context, bare.reserved))
		return CARD_INVALID(context, bare.reserved);
	if (command->opcode == SPECKV_IO_FLUSH && context->card->ops.memory_sync &&
		context->card->ops.memory_sync(context->card->arg))
		return SPECKV_STATUS_INTERNAL;
	return SPECKV_STATUS_OK;
}

static uint16_t dispatch(struct card_context *context)
{
	switch (context->entry->sqe.opcode) {
	case SPECKV_IO_NOP:
	case SPECKV_IO_FLUSH:
		return check_bare(context);
	case SPECKV_IO_WRITE:
		return card_write(context);
	case SPECKV_IO_READ:
		return card_read(context);
	case SPECKV_IO_COPY:
		return card_copy(context);
	case SPECKV_IO_PREFETCH:
		return card_prefetch(context);
	case SPECKV_IO_INVALIDATE:
		return card_invalidate(context);
	case SPECKV_IO_ACQUIRE_SHARED:
	case SPECKV_IO_ACQUIRE_EXCLUSIVE:
		return card_acquire(context);
	case SPECKV_IO_WRITEBACK:
		return card_writeback(context);
	case SPECKV_IO_TOUCH:
		return card_touch(context);
	case SPECKV_IO_PREDICT:
		return card_predict(context);
	default:
		return SPECKV_STATUS_INVALID_OPCODE;
	}
}

static int histogram(uint8_t opcode)
{
	switch (opcode) {
	case SPECKV_IO_READ:
		return SPECKV_HIST_GET;
	case SPECKV_IO_WRITE:
		return SPECKV_HIST_PUT;
	case SPECKV_IO_TOUCH:
	case SPECKV_IO_PREDICT:
		return SPECKV_HIST_LOOKUP;
	case SPECKV_IO_PREFETCH:
		return SPECKV_HIST_STAGE;
	default:
		return -1;
	}
}

static void tally_failure(struct card_context *context, struct card_pool *pool, uint16_t status)
{
	switch (context->entry->sqe.opcode) {
	case SPECKV_IO_WRITE:
		card_tally(context->card, pool, SPECKV_COUNT_PUT_FAILED, 1);
		break;
	case SPECKV_IO_READ:
		card_tally(context->card, pool, SPECKV_COUNT_GETS, 1);
		card_tally(context->card, pool, SPECKV_COUNT_MISSES, 1);
		if (status == SPECKV_STATUS_CORRUPT)
			card_tally(context->card, pool, SPECKV_COUNT_BAD, 1);
		break;
	default:
		break;
	}
}

uint16_t card_io(struct card_context *context)
{
	uint16_t status = dispatch(context);
	struct card_pool *pool;

	if (status == CARD_WAIT || !context->entry->sqe.pool ||
		card_pool_find(context, context->entry->sqe.pool, 0, &pool))
		return status;
	/* Without a right to the pool, do not touch its statistics. */
	if (status == SPECKV_STATUS_DENIED)
		return status;
	if (status)
		tally_failure(context, pool, status);
	else if (histogram(context->entry->sqe.opcode) >= 0)
		card_latency(context->card, pool,
			(unsigned int)histogram(context->entry->sqe.opcode),
			card_now(context->card) - context->command->start_ns);
	return status;
}

// SPDX-License-Identifier: MIT
/*
 * Queue pairs: enabling, disabling, completions, aborting commands in flight. Execution of
 * commands: run.c.
 */
#include "card/internal.h"

struct speckv_doorbell *card_doorbell(struct card_function *function,
	const struct card_queue *queue)
{
	return &function->doorbells[queue->index / SPECKV_DOORBELL_SLOTS]
			.slot[queue->index % SPECKV_DOORBELL_SLOTS];
}

static uint32_t load_doorbell(const __le32 *at)
{
	return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

uint32_t card_queue_tail(struct card_function *function, const struct card_queue *queue)
{
	return card_queue_is_admin(queue) ? function->admin_tail
					  : load_doorbell(&card_doorbell(function, queue)->sq_tail);
}

static uint32_t head_of(struct card_function *function, const struct card_queue *queue)
{
	return card_queue_is_admin(queue) ? function->admin_head
					  : load_doorbell(&card_doorbell(function, queue)->cq_head);
}

/* Release the reservations of commands in flight before those are dropped. */
static void unreserve(struct speckv_card *card, struct card_queue *queue)
{
	for (unsigned int i = 0; i < queue->waits; i++)
		memory_reserve_end(card, &queue->waiting[i].reservation);
}

void card_queue_fail(struct card_function *function, struct card_queue *queue, uint16_t status)
{
	if (card_queue_is_admin(queue)) {
		unreserve(function->card, queue);
		card_fatal(function->card, function, SPECKV_FATAL_ADMIN_QUEUE);
		return;
	}
	if (queue->state == QUEUE_FENCED || queue->state == QUEUE_DISABLED)
		return;
	queue->waits = 0;
	queue->state = QUEUE_FAILED;
	queue->status = status;
	card_dma_end(function, queue, 0, true);
	card_agent_drop(function->card, queue, 0);
	card_notify(function, SPECKV_REGS__INT_STATUS__QUEUE_PAIR_bm);
}

uint32_t card_queue_room(struct card_function *function, struct card_queue *queue)
{
	uint32_t head = head_of(function, queue), mask = queue->cq_entries - 1;
	/* Upper bound of the entries in use: from the last head to cq_tail. */
	uint32_t used = (queue->cq_tail - head) & mask;

	if (head > mask) {
		card_queue_fail(function, queue, SPECKV_STATUS_INVALID);
		return 0;
	}
	return mask - used;
}

void card_queue_signal(struct card_function *function, struct card_queue *queue)
{
	queue->unsignalled = 0;
	card_interrupt(function, queue->vector);
}

static void signal_completion(struct card_function *function, struct card_queue *queue)
{
	uint64_t rule = card_feature(function->card, SPECKV_FEATURE_INTERRUPT_COALESCING);

	if (card_queue_is_admin(queue)) {
		card_notify(function, SPECKV_REGS__INT_STATUS__ADMIN_bm);
		return;
	}
	if (!queue->interrupt)
		return;
	if (!queue->unsignalled++)
		queue->first_unsignalled_ns = card_now(function->card);
	if (queue->unsignalled >= (rule & 0xffff))
		card_queue_signal(function, queue);
}

static bool post_completion(struct card_function *function, struct card_queue *queue, uint16_t id,
	uint16_t status, uint64_t result, bool quiet)
{
	struct speckv_card *card = function->card;
	uint64_t at = queue->cq_base + (uint64_t)queue->cq_tail * SPECKV_CQE_BYTES;
	struct speckv_cqe cqe = { .result = result,
		.sq_head = (uint16_t)queue->sq_head,
		.command_id = id,
		.status = status };

	if (card->ops.dma_write(card->arg, function->index, at, &cqe,
		    offsetof(struct speckv_cqe, phase)) ||
		card->ops.dma_publish(card->arg, function->index,
			at + offsetof(struct speckv_cqe, phase), queue->phase)) {
		card_queue_fail(function, queue, SPECKV_STATUS_DMA_ERROR);
		return false;
	}
	queue->cq_tail = (queue->cq_tail + 1) & (queue->cq_entries - 1);
	if (!queue->cq_tail)
		queue->phase ^= 1;
	if (!quiet)
		signal_completion(function, queue);
	return true;
}

bool card_notice(struct card_function *function, struct card_queue *queue, uint16_t notice,
	uint64_t result)
{
	/* One entry is reserved for every command in flight. */
	if (queue->state != QUEUE_ENABLED || card_queue_room(function, queue) <= queue->waits)
		return false;
	return post_completion(function, queue, SPECKV_EVENT_COMMAND_ID, notice, result, false);
}

void card_command_end(struct card_context *context, uint16_t status)
{
	struct card_command *command = context->command;
	struct card_function *function = context->function;
	struct card_queue *queue = context->queue;

	card_dma_end(function, queue, command->entry.sqe.command_id, false);
	memory_reserve_end(context->card, &command->reservation);
	if (status)
		card_error(context, status);
	if (!card_queue_is_admin(queue)) {
		card_count(context, COUNT_COMMANDS, 1);
		if (status)
			card_count(context, COUNT_FAILED, 1);
		if (!status && context->card->fault.unanswered) {
			context->card->fault.unanswered--;
			return;
		}
	}
	post_completion(function, queue, command->entry.sqe.command_id, status,
		status ? 0 : command->result, command->entry.sqe.flags & SPECKV_CMD_QUIET);
}

/* ---- enabling and disabling ----------------------------------------------------------------- */

static uint16_t enable_check(const struct card_function *function, const struct card_queue *queue)
{
	const struct speckv_card *card = function->card;
	uint32_t sq = queue->size & 0xf, cq = queue->size >> 8 & 0xf;
	bool admin = card_queue_is_admin(queue);

	if (!function->ready && !admin)
		return SPECKV_STATUS_NOT_READY;
	if (!card->engine && !admin)
		return SPECKV_STATUS_NO_ENGINE;
	if (sq < 1 || sq > (admin ? CARD_ADMIN_LOG2 : CARD_IO_LOG2) || (admin ? cq < sq : cq <= sq))
		return SPECKV_STATUS_INVALID;
	if ((queue->sq_lo | queue->cq_lo) & 4095 || queue->table_lo & 63 ||
		queue->buffer_count > card->config.buffers_max)
		return SPECKV_STATUS_INVALID;
	return SPECKV_STATUS_OK;
}

void card_queue_enable(struct card_function *function, struct card_queue *queue)
{
	uint16_t status = enable_check(function, queue);

	queue->state = QUEUE_FAILED;
	queue->status = status;
	if (!status) {
		free(queue->buffer);
		queue->buffers = card_queue_is_admin(queue) ? 0 : queue->buffer_count;
		queue->buffer = queue->buffers ? calloc(queue->buffers, sizeof(*queue->buffer))
					       : NULL;
		if (!queue->waiting)
			queue->waiting = calloc(CARD_IN_FLIGHT, sizeof(*queue->waiting));
		if (!queue->waiting || (queue->buffers && !queue->buffer))
			queue->status = status = SPECKV_STATUS_NO_MEMORY;
	}
	if (status) {
		card_queue_fail(function, queue, status);
		return;
	}
	queue->sq_base = (uint64_t)queue->sq_hi << 32 | queue->sq_lo;
	queue->cq_base = (uint64_t)queue->cq_hi << 32 | queue->cq_lo;
	queue->table = (uint64_t)queue->table_hi << 32 | queue->table_lo;
	queue->sq_entries = 1u << (queue->size & 0xf);
	queue->cq_entries = 1u << (queue->size >> 8 & 0xf);
	queue->vector = queue->size >> 16 & 0x7ff;
	queue->interrupt = queue->size >> 31;
	queue->sq_head = queue->cq_tail = 0;
	queue->phase = 1;
	queue->waits = queue->unsignalled = 0;
	queue->revoked = queue->untold = queue->events = 0;
	queue->asked = 0;
	queue->state = QUEUE_ENABLED;
}

static void doorbells_zero(struct card_function *function, struct card_queue *queue)
{
	struct speckv_doorbell *doorbell;

	if (card_queue_is_admin(queue)) {
		function->admin_tail = function->admin_head = 0;
		return;
	}
	doorbell = card_doorbell(function, queue);
	__atomic_store_n(&doorbell->sq_tail, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&doorbell->cq_head, 0, __ATOMIC_RELEASE);
}

/*
 * End commands in flight with ABORTED if `complete`, silently otherwise, and reset the doorbells
 * for the next user of the pair.
 */
void card_queue_disable(struct card_function *function, struct card_queue *queue, bool complete)
{
	struct card_context context = {
		.card = function->card, .function = function, .queue = queue
	};

	if (queue->state == QUEUE_ENABLED && complete) {
		queue->state = QUEUE_DRAINING;
		for (unsigned int i = 0; i < queue->waits && queue->state == QUEUE_DRAINING; i++) {
			context.command = &queue->waiting[i];
			context.entry = &context.command->entry;
			card_command_end(&context, SPECKV_STATUS_ABORTED);
		}
		if (queue->unsignalled)
			card_queue_signal(function, queue);
	}
	unreserve(function->card, queue);
	queue->waits = 0;
	card_dma_end(function, queue, 0, true);
	card_agent_drop(function->card, queue, 0);
	doorbells_zero(function, queue);
	free(queue->buffer);
	queue->buffer = NULL;
	queue->buffers = 0;
	queue->revoked = queue->untold = queue->events = 0;
	queue->state = QUEUE_DISABLED;
	queue->status = 0;
}

/* Fence an agent that did not answer a recall: it runs no commands until it is disabled. */
void card_queue_fence(struct speckv_card *card, unsigned int agent)
{
	struct card_function *function = card->functions[card->agents[agent].function];
	struct card_queue *queue;
	struct card_context context;

	if (!card->agents[agent].used || !function)
		return;
	queue = &function->pair[card->agents[agent].queue];
	context = (struct card_context){ .card = card, .function = function, .queue = queue };
	for (unsigned int i = 0; i < queue->waits && queue->state == QUEUE_ENABLED; i++) {
		context.command = &queue->waiting[i];
		context.entry = &context.command->entry;
		card_command_end(&context, SPECKV_STATUS_FENCED);
	}
	queue->waits = 0;
	card_dma_end(function, queue, 0, true);
	queue->state = QUEUE_FENCED;
	queue->status = SPECKV_STATUS_FENCED;
	card_agent_drop(card, queue, 0);
	memset(queue->grant, 0, sizeof(queue->grant));
	card_event_by(function, SPECKV_CARD_FENCED, SPECKV_WARNING, 0, queue->index,
		"queue pair %u of function %u did not answer a recall", queue->index,
		function->index);
	card_notify(function, SPECKV_REGS__INT_STATUS__QUEUE_PAIR_bm);
}

bool card_buffer_busy(const struct card_queue *queue, uint16_t index)
{
	for (unsigned int i = 0; i < queue->waits; i++) {
		const union card_entry *entry = &queue->waiting[i].entry;

		switch (entry->sqe.opcode) {
		case SPECKV_IO_WRITE:
			if (entry->write.buffer == index || entry->write.identity_buffer == index)
				return true;
			break;
		case SPECKV_IO_READ:
		case SPECKV_IO_PREFETCH:
		case SPECKV_IO_PREDICT:
			if (entry->sqe.buffer == index)
				return true;
			break;
		default:
			break;
		}
	}
	return false;
}

void card_queue_remove(struct card_queue *queue, unsigned int i)
{
	queue->waits--;
	memmove(&queue->waiting[i], &queue->waiting[i + 1],
		(queue->waits - i) * sizeof(*queue->waiting));
}

/* Abort the waiting commands of one queue pair that name this pool. */
static void abort_in_queue(struct card_function *function, struct card_queue *queue,
	unsigned int pool, uint16_t status)
{
	struct card_context context = {
		.card = function->card, .function = function, .queue = queue
	};

	for (unsigned int i = 0; i < queue->waits && queue->state == QUEUE_ENABLED;) {
		struct card_command *command = &queue->waiting[i];

		if (command->entry.sqe.pool != pool &&
			!(command->entry.sqe.opcode == SPECKV_IO_COPY &&
				command->entry.copy.destination_pool == pool)) {
			i++;
			continue;
		}
		context.command = command;
		context.entry = &command->entry;
		card_command_end(&context, status);
		if (i < queue->waits)
			card_queue_remove(queue, i);
	}
}

/* Rights to a pool were reduced: abort its commands and drop its holds. */
void card_revoke(struct card_function *function, struct card_queue *queue, unsigned int pool)
{
	if (queue->state != QUEUE_ENABLED)
		return;
	abort_in_queue(function, queue, pool, SPECKV_STATUS_DENIED);
	card_agent_drop(function->card, queue, pool);
	if (!(function->grant[pool].rights | queue->grant[pool].rights))
		queue->revoked |= UINT64_C(1) << (pool - 1);
}

void card_abort_pool(struct speckv_card *card, unsigned int pool, uint16_t status)
{
	for (unsigned int f = 0; f < card->functions_max; f++)
		for (unsigned int q = 0; card->functions[f] && q < card->functions[f]->pairs; q++)
			abort_in_queue(card->functions[f], &card->functions[f]->pair[q], pool,
				status);
}

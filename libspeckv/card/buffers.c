// SPDX-License-Identifier: MIT
/*
 * Registered buffers: the only place that translates index and offset to bus addresses. A table
 * entry is copied at its first use and cached until card_buffer_forget().
 */
#include "card/internal.h"

int card_dma_read(struct card_function *function, struct card_queue *queue, uint16_t id,
	uint64_t address, void *to, uint64_t bytes)
{
	struct speckv_card *card = function->card;
	int rc;

	if (function->transfer && function->transfer != card_transfer(queue, id))
		return -EAGAIN;
	rc = card->ops.dma_read(card->arg, function->index, address, to, bytes);
	if (rc == -EAGAIN)
		function->transfer = card_transfer(queue, id);
	return rc;
}

void card_dma_end(struct card_function *function, const struct card_queue *queue, uint16_t id,
	bool all)
{
	struct speckv_card *card = function->card;

	if (!function->transfer ||
		(all ? (uint16_t)(function->transfer >> 16) != queue->index
		     : function->transfer != card_transfer(queue, id)))
		return;
	function->transfer = 0;
	if (card->ops.dma_end)
		card->ops.dma_end(card->arg, function->index);
}

/* Read host memory for a command, or return CARD_WAIT. */
static uint16_t host_read(struct card_context *context, uint64_t at, uint64_t address, void *to,
	uint64_t bytes)
{
	int rc = card_dma_read(context->function, context->queue, context->entry->sqe.command_id,
		address, to, bytes);

	if (rc != -EAGAIN)
		return rc ? card_at(context, at, SPECKV_STATUS_DMA_ERROR) : SPECKV_STATUS_OK;
	context->command->asked = context->function->answers;
	return CARD_WAIT;
}

void card_buffer_forget(struct card_queue *queue, uint16_t index)
{
	if (index < queue->buffers && queue->buffer)
		queue->buffer[index].known = false;
}

static uint16_t bad_buffer(struct card_context *context, uint64_t offset)
{
	return card_at(context, offset, SPECKV_STATUS_BAD_BUFFER);
}

uint16_t card_buffer_find(struct card_context *context, uint16_t index, uint64_t offset,
	uint64_t bytes, uint32_t rights, uint64_t *address)
{
	struct card_queue *queue = context->queue;
	struct card_buffer *buffer;

	if (index >= queue->buffers)
		return bad_buffer(context, offset);
	buffer = &queue->buffer[index];
	if (!buffer->known) {
		struct speckv_buffer_entry entry;

		uint16_t status = host_read(context, queue->table,
			queue->table + index * sizeof(entry), &entry, sizeof(entry));

		if (status)
			return status;
		buffer->entry = entry;
		/*
		 * Do not cache an unused or invalid entry: it may be filled in later without an
		 * invalidation.
		 */
		buffer->known = entry.flags &&
			!(entry.flags &
				~(SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES |
					SPECKV_BUFFER_PEER)) &&
			entry.address % 4096 == 0 && entry.bytes <= UINT64_MAX - entry.address &&
			!entry.reserved0 && !entry.reserved1;
		if (!buffer->known)
			return bad_buffer(context, offset);
	}
	if ((buffer->entry.flags & rights) != rights || offset > buffer->entry.bytes ||
		bytes > buffer->entry.bytes - offset)
		return bad_buffer(context, offset);
	*address = buffer->entry.address + offset;
	return SPECKV_STATUS_OK;
}

uint16_t card_buffer_read(struct card_context *context, uint16_t index, uint64_t offset, void *to,
	uint64_t bytes)
{
	uint64_t address;
	uint16_t status =
		card_buffer_find(context, index, offset, bytes, SPECKV_BUFFER_CARD_READS, &address);

	return status ? status : card_data_read(context, address, to, bytes);
}

uint16_t card_buffer_write(struct card_context *context, uint16_t index, uint64_t offset,
	const void *from, uint64_t bytes)
{
	uint64_t address;
	uint16_t status = card_buffer_find(context, index, offset, bytes, SPECKV_BUFFER_CARD_WRITES,
		&address);

	return status ? status : card_data_write(context, address, from, bytes);
}

/*
 * Direct pointer to a buffer. NULL with status OK: not mapped, use card_buffer_read() and
 * card_buffer_write().
 */
uint8_t *card_buffer_direct(struct card_context *context, uint16_t index, uint64_t offset,
	uint64_t bytes, bool write, uint16_t *status)
{
	struct speckv_card *card = context->card;
	uint64_t address;

	*status = card_buffer_find(context, index, offset, bytes,
		write ? SPECKV_BUFFER_CARD_WRITES : SPECKV_BUFFER_CARD_READS, &address);
	if (*status || !card->ops.dma_direct)
		return NULL;
	return card->ops.dma_direct(card->arg, context->function->index, address, bytes, write);
}

uint16_t card_data_read(struct card_context *context, uint64_t address, void *to, uint64_t bytes)
{
	return host_read(context, address, address, to, bytes);
}

uint16_t card_data_write(struct card_context *context, uint64_t address, const void *from,
	uint64_t bytes)
{
	if (context->card->ops.dma_write(context->card->arg, context->function->index, address,
		    from, bytes))
		return card_at(context, address, SPECKV_STATUS_DMA_ERROR);
	return SPECKV_STATUS_OK;
}

// SPDX-License-Identifier: MIT
/* Registered buffers: index and offset become bus addresses here, and nowhere else. Table entries are copied once and kept. */
#include "card/internal.h"

void card_buffer_forget(struct card_queue *queue, uint16_t index)
{
	if (index < queue->buffers && queue->buffer)
		queue->buffer[index].known = false;
}

static uint16_t bad(struct card_context *context, uint64_t offset)
{
	return card_at(context, offset, SPECKV_STATUS_BAD_BUFFER);
}

uint16_t card_buffer_find(struct card_context *context, uint16_t index, uint64_t offset, uint64_t bytes, uint32_t rights, uint64_t *address)
{
	struct card_queue *queue = context->queue;
	struct speckv_card *card = context->card;
	struct card_buffer *buffer;

	if (index >= queue->buffers)
		return bad(context, offset);
	buffer = &queue->buffer[index];
	if (!buffer->known) {
		struct speckv_buffer_entry entry;

		if (card->ops.dma_read(card->arg, context->function->index, queue->table + index * sizeof(entry), &entry, sizeof(entry)))
			return card_at(context, queue->table, SPECKV_STATUS_DMA_ERROR);
		buffer->entry = entry;
		/* An entry that is not in use, or not right, is looked at again: it may be filled in later without an invalidation. */
		buffer->known = entry.flags && !(entry.flags & ~(SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES | SPECKV_BUFFER_PEER)) &&
				entry.address % 4096 == 0 && entry.bytes <= UINT64_MAX - entry.address && !entry.reserved0 && !entry.reserved1;
		if (!buffer->known)
			return bad(context, offset);
	}
	if ((buffer->entry.flags & rights) != rights || offset > buffer->entry.bytes || bytes > buffer->entry.bytes - offset)
		return bad(context, offset);
	*address = buffer->entry.address + offset;
	return SPECKV_STATUS_OK;
}

uint16_t card_buffer_read(struct card_context *context, uint16_t index, uint64_t offset, void *to, uint64_t bytes)
{
	uint64_t address;
	uint16_t status = card_buffer_find(context, index, offset, bytes, SPECKV_BUFFER_CARD_READS, &address);

	return status ? status : card_data_read(context, address, to, bytes);
}

uint16_t card_buffer_write(struct card_context *context, uint16_t index, uint64_t offset, const void *from, uint64_t bytes)
{
	uint64_t address;
	uint16_t status = card_buffer_find(context, index, offset, bytes, SPECKV_BUFFER_CARD_WRITES, &address);

	return status ? status : card_data_write(context, address, from, bytes);
}

/* The buffer itself, where it can be reached; NULL and status OK: go through card_buffer_read() and card_buffer_write(). */
uint8_t *card_buffer_direct(struct card_context *context, uint16_t index, uint64_t offset, uint64_t bytes, bool write, uint16_t *status)
{
	struct speckv_card *card = context->card;
	uint64_t address;

	*status = card_buffer_find(context, index, offset, bytes, write ? SPECKV_BUFFER_CARD_WRITES : SPECKV_BUFFER_CARD_READS, &address);
	if (*status || !card->ops.dma_direct)
		return NULL;
	return card->ops.dma_direct(card->arg, context->function->index, address, bytes, write);
}

uint16_t card_data_read(struct card_context *context, uint64_t address, void *to, uint64_t bytes)
{
	if (context->card->ops.dma_read(context->card->arg, context->function->index, address, to, bytes))
		return card_at(context, address, SPECKV_STATUS_DMA_ERROR);
	return SPECKV_STATUS_OK;
}

uint16_t card_data_write(struct card_context *context, uint64_t address, const void *from, uint64_t bytes)
{
	if (context->card->ops.dma_write(context->card->arg, context->function->index, address, from, bytes))
		return card_at(context, address, SPECKV_STATUS_DMA_ERROR);
	return SPECKV_STATUS_OK;
}

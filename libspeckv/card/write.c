// SPDX-License-Identifier: MIT
/* WRITE and COPY: a frame is published only when it is complete and in place. */
#include "card/internal.h"

static uint16_t from_errno(int rc)
{
	switch (rc) {
	case 0:
		return SPECKV_STATUS_OK;
	case -ENODATA:
		return SPECKV_STATUS_NONFINITE;
	case -EOPNOTSUPP:
	case -EPROTONOSUPPORT:
		return SPECKV_STATUS_NO_CODEC;
	case -EBADMSG:
		return SPECKV_STATUS_CORRUPT;
	case -ENOSPC:
		return SPECKV_STATUS_NO_ROOM;
	default:
		return SPECKV_STATUS_INTERNAL;
	}
}

/* Check a frame's length against capacity and quota. */
static uint16_t admit_write(struct card_context *context, const struct card_pool *pool,
	uint64_t frame_bytes, uint64_t capacity)
{
	uint64_t quota = pool->record.description.quota_bytes;

	if (frame_bytes > capacity)
		return SPECKV_STATUS_NO_ROOM;
	if (quota && pool->stored_bytes + frame_bytes > quota)
		return SPECKV_STATUS_QUOTA;
	return SPECKV_STATUS_OK;
}

static void publish(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, uint64_t raw, uint64_t frame_bytes)
{
	struct speckv_card *card = context->card;

	card_block_publish(card, pool, address, generation, frame_bytes);
	context->command->result = frame_bytes;
	card_count(context, COUNT_IN_RAW, raw);
	card_count(context, COUNT_IN_STORED, frame_bytes);
	card_tally(card, pool, SPECKV_COUNT_PUTS, 1);
	card_tally(card, pool, SPECKV_COUNT_BYTES_IN_RAW, raw);
	card_tally(card, pool, SPECKV_COUNT_BYTES_IN_STORED, frame_bytes);
}

/* Check that a page run is mapped and free: `bytes` from the start of a page. */
static uint16_t run_check(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t bytes, uint8_t **contiguous)
{
	uint16_t status = card_map(context, pool, address, bytes, contiguous);

	if (!status && !card_run_free(pool, address, bytes, &status))
		return card_at(context, address, status);
	return status;
}

static uint16_t read_identity(struct card_context *context, const struct card_pool *pool,
	struct speckv_frame_identity *identity)
{
	const struct speckv_cmd_write *write = &context->entry->write;
	struct speckv_block_identity said;
	uint16_t status;

	if (write->identity_offset % 64)
		return CARD_INVALID(context, write.identity_offset);
	status = card_buffer_read(context, write->identity_buffer, write->identity_offset, &said,
		sizeof(said));
	if (status)
		return status;
	if (!card_zero(said.reserved, sizeof(said.reserved)))
		return CARD_INVALID(context, write.identity_offset);
	memcpy(identity->key, said.key, sizeof(identity->key));
	memcpy(identity->pool_uuid, pool->record.description.uuid, sizeof(identity->pool_uuid));
	identity->generation = said.generation;
	identity->first_position = said.first_position;
	identity->pool_address = write->address;
	identity->tenant = said.tenant;
	identity->reserved = 0;
	return SPECKV_STATUS_OK;
}

static uint16_t write_raw(struct card_context *context, struct card_pool *pool)
{
	const struct speckv_cmd_write *write = &context->entry->write;
	struct speckv_card *card = context->card;
	struct speckv_frame_identity identity;
	struct speckv_geometry geometry;
	uint8_t *contiguous, *to;
	const uint8_t *raw;
	uint64_t most, frame_bytes;
	uint16_t status;

	if (write->bytes != pool->block_bytes)
		return CARD_INVALID(context, write.bytes);
	memcpy(&geometry, &pool->record.description.shape, sizeof(geometry));
	most = write->codec < 32 && card->config.codec_modes >> write->codec & 1
		? speckv_frame_max_bytes(&geometry, write->codec)
		: 0;
	if (!most)
		return SPECKV_STATUS_NO_CODEC;
	if (speckv_frame_min_bytes(&geometry, write->codec) > write->capacity)
		return card_at(context, write->address, SPECKV_STATUS_NO_ROOM);
	status = run_check(context, pool, write->address, write->capacity, &contiguous);
	if (!status)
		status = read_identity(context, pool, &identity);
	if (status)
		return status;
	/* Encoders read values more than once: all modes but raw get a private copy. */
	raw = card_buffer_direct(context, write->buffer, write->buffer_offset, write->bytes, false,
		&status);
	if (!status && (!raw || write->codec != SPECKV_CODEC_RAW)) {
		status = card_buffer_read(context, write->buffer, write->buffer_offset,
			card->raw_scratch, write->bytes);
		raw = card->raw_scratch;
	}
	if (status)
		return status;
	to = contiguous && most <= write->capacity ? contiguous : card->frame_scratch;
	status = from_errno(speckv_frame_encode(&geometry, write->codec, &identity, raw,
		write->bytes, to, to == contiguous ? write->capacity : card->frame_scratch_bytes,
		&frame_bytes));
	if (!status)
		status = admit_write(context, pool, frame_bytes, write->capacity);
	if (!status && to != contiguous)
		status = card_memory_write(context, pool, write->address, to, frame_bytes);
	if (status) {
		if (contiguous && to == contiguous)
			memset(contiguous, 0, SPECKV_FRAME_HEADER_BYTES);
		return card_at(context, write->address, status);
	}
	publish(context, pool, write->address, identity.generation, write->bytes, frame_bytes);
	return SPECKV_STATUS_OK;
}

/* Store a frame encoded by the host: copied once, then the copy is verified. */
static uint16_t write_frame(struct card_context *context, struct card_pool *pool)
{
	const struct speckv_cmd_write *write = &context->entry->write;
	struct speckv_card *card = context->card;
	struct speckv_frame_identity identity;
	struct speckv_frame frame;
	uint8_t *unused;
	uint16_t status;

	if (write->bytes < SPECKV_FRAME_HEADER_BYTES || write->bytes > pool->frame_bytes)
		return CARD_INVALID(context, write.bytes);
	status = run_check(context, pool, write->address, write->capacity, &unused);
	if (!status)
		status = read_identity(context, pool, &identity);
	if (!status)
		status = card_buffer_read(context, write->buffer, write->buffer_offset,
			card->frame_scratch, write->bytes);
	if (!status)
		status = from_errno(speckv_frame_verify(card->frame_scratch, write->bytes));
	if (!status)
		status = from_errno(speckv_frame_parse(card->frame_scratch, write->bytes, &frame));
	if (status)
		return card_at(context, write->address, status);
	if (frame.codec != write->codec)
		return CARD_INVALID(context, write.codec);
	if (frame.frame_bytes != write->bytes)
		return CARD_INVALID(context, write.bytes);
	if (memcmp(&frame.identity, &identity, sizeof(identity)))
		return CARD_INVALID(context, write.identity_offset);
	if (memcmp(&frame.geometry, &pool->record.description.shape, sizeof(frame.geometry)))
		return CARD_INVALID(context, write.buffer);
	status = admit_write(context, pool, frame.frame_bytes, write->capacity);
	if (!status)
		status = card_memory_write(context, pool, write->address, card->frame_scratch,
			frame.frame_bytes);
	if (status)
		return card_at(context, write->address, status);
	publish(context, pool, write->address, identity.generation, frame.frame_bytes,
		frame.frame_bytes);
	return SPECKV_STATUS_OK;
}

/* Write into a fill held by this queue pair. */
static uint16_t write_fill(struct card_context *context, struct card_pool *pool)
{
	const struct speckv_cmd_write *write = &context->entry->write;
	struct speckv_card *card = context->card;
	uint32_t page = pool->record.description.page_bytes;
	uint64_t done = 0, start;
	struct card_block *block;
	uint8_t *direct;
	uint16_t status;

	if (CARD_RESERVED(context, write.identity_offset))
		return CARD_INVALID(context, write.identity_offset);
	if (CARD_RESERVED(context, write.identity_buffer))
		return CARD_INVALID(context, write.identity_buffer);
	if (CARD_RESERVED(context, write.codec))
		return CARD_INVALID(context, write.codec);
	if (!write->bytes || write->bytes > card->config.transfer_bytes)
		return CARD_INVALID(context, write.bytes);
	if (write->bytes > write->capacity)
		return card_at(context, write->address, SPECKV_STATUS_NO_ROOM);
	status = card_map(context, pool, write->address, write->bytes, &direct);
	if (status)
		return status;
	block = card_block_at(pool, write->address);
	if (block->state == BLOCK_REST)
		block = &pool->blocks[block->head];
	start = (uint64_t)(block - pool->blocks) * page;
	if (block->state != BLOCK_EXCLUSIVE && block->state != BLOCK_MODIFIED)
		return card_at(context, write->address,
			block->state == BLOCK_FREE ? SPECKV_STATUS_NOT_FOUND
						   : SPECKV_STATUS_SEALED);
	if (context->queue->agent >= CARD_AGENTS || !(block->holders >> context->queue->agent & 1))
		return card_at(context, write->address, SPECKV_STATUS_CONFLICT);
	if (write->address + write->bytes > start + (uint64_t)block->pages * page)
		return card_at(context, write->address, SPECKV_STATUS_NO_ROOM);
	block->state = BLOCK_MODIFIED;
	while (!status && done < write->bytes) {
		uint64_t n = write->bytes - done < card->raw_scratch_bytes
			? write->bytes - done
			: card->raw_scratch_bytes;

		status = card_buffer_read(context, write->buffer, write->buffer_offset + done,
			card->raw_scratch, n);
		if (!status)
			status = card_memory_write(context, pool, write->address + done,
				card->raw_scratch, n);
		done += n;
	}
	if (!status) {
		context->command->result = write->bytes;
		card_count(context, COUNT_IN_RAW, write->bytes);
		card_count(context, COUNT_IN_STORED, write->bytes);
	}
	return status;
}

uint16_t card_write(struct card_context *context)
{
	const struct speckv_cmd_write *write = &context->entry->write;
	struct card_pool *pool;
	uint16_t status;

	if (write->flags &
			~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | SPECKV_WRITE_FRAME |
				SPECKV_WRITE_FILL) ||
		(write->flags & SPECKV_WRITE_FRAME && write->flags & SPECKV_WRITE_FILL))
		return CARD_INVALID(context, write.flags);
	if (CARD_RESERVED(context, write.reserved0))
		return CARD_INVALID(context, write.reserved0);
	if (CARD_RESERVED(context, write.reserved1))
		return CARD_INVALID(context, write.reserved1);
	status = card_pool_find(context, write->pool, SPECKV_RIGHT_WRITE, &pool);
	if (status)
		return status;
	if (write->address % pool->record.description.page_bytes)
		return CARD_INVALID(context, write.address);
	if (write->buffer_offset % 64)
		return CARD_INVALID(context, write.buffer_offset);
	status = card_bandwidth(context, pool, write->bytes);
	if (status)
		return status;
	if (write->flags & SPECKV_WRITE_FILL)
		return write_fill(context, pool);
	return write->flags & SPECKV_WRITE_FRAME ? write_frame(context, pool)
						 : write_raw(context, pool);
}

uint16_t card_copy(struct card_context *context)
{
	const struct speckv_cmd_copy *copy = &context->entry->copy;
	struct speckv_card *card = context->card;
	struct card_pool *from, *to;
	struct speckv_frame parsed;
	struct card_block *block;
	const uint8_t *frame;
	uint8_t *unused;
	uint16_t status;

	if (copy->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, copy.flags);
	if (CARD_RESERVED(context, copy.reserved))
		return CARD_INVALID(context, copy.reserved);
	status = card_pool_find(context, copy->pool, SPECKV_RIGHT_READ, &from);
	if (!status)
		status = card_pool_find(context, copy->destination_pool, SPECKV_RIGHT_WRITE, &to);
	if (status)
		return status;
	if (copy->address % from->record.description.page_bytes)
		return CARD_INVALID(context, copy.address);
	if (copy->destination_address % to->record.description.page_bytes)
		return CARD_INVALID(context, copy.destination_address);
	if (memcmp(&from->record.description.shape, &to->record.description.shape,
		    sizeof(struct speckv_shape)))
		return CARD_INVALID(context, copy.destination_pool);
	status = card_frame_find(context, from, copy->address, copy->generation, copy->key_prefix,
		&block, &frame, &parsed);
	if (!status)
		status = card_bandwidth(context, to, parsed.frame_bytes);
	if (!status)
		status = run_check(context, to, copy->destination_address, copy->capacity, &unused);
	if (status)
		return status;
	if (frame != card->frame_scratch)
		memcpy(card->frame_scratch, frame, parsed.frame_bytes);
	if (speckv_frame_verify(card->frame_scratch, parsed.frame_bytes))
		return card_frame_damaged(context, from, copy->address);
	memcpy(parsed.identity.pool_uuid, to->record.description.uuid, 16);
	parsed.identity.generation = copy->destination_generation;
	parsed.identity.pool_address = copy->destination_address;
	status = from_errno(speckv_frame_readdress(card->frame_scratch, parsed.frame_bytes,
		&parsed.identity));
	if (!status)
		status = admit_write(context, to, parsed.frame_bytes, copy->capacity);
	if (!status)
		status = card_memory_write(context, to, copy->destination_address,
			card->frame_scratch, parsed.frame_bytes);
	if (status)
		return card_at(context, copy->destination_address, status);
	publish(context, to, copy->destination_address, copy->destination_generation,
		parsed.frame_bytes, parsed.frame_bytes);
	return SPECKV_STATUS_OK;
}

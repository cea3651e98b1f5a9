// SPDX-License-Identifier: MIT
/*
 * READ and PREFETCH: find a frame, verify it, decode layers of it. The codec owns the frame format.
 */
#include "card/internal.h"
#include "codec/frame.h"

uint16_t card_frame_damaged(struct card_context *context, struct card_pool *pool, uint64_t address)
{
	card_event_by(context->function, SPECKV_CARD_CORRUPT, SPECKV_ERROR, pool->number, address,
		"frame at %llu does not verify", (unsigned long long)address);
	return card_at(context, address, SPECKV_STATUS_CORRUPT);
}

uint16_t card_frame_find(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, const uint8_t *key_prefix, struct card_block **block,
	const uint8_t **frame, struct speckv_frame *parsed)
{
	struct speckv_card *card = context->card;
	uint8_t *contiguous;
	uint16_t status;
	int rc;

	status = card_block_find(context, pool, address, generation, block);
	if (status)
		return status;
	status = card_map(context, pool, address, (*block)->bytes, &contiguous);
	if (!status && !contiguous) {
		status = card_memory_read(context, pool, address, card->frame_scratch,
			(*block)->bytes);
		contiguous = card->frame_scratch;
	}
	if (status)
		return status;
	rc = speckv_frame_parse(contiguous, (*block)->bytes, parsed);
	if (rc)
		return card_frame_damaged(context, pool, address);
	if (parsed->identity.generation != generation || parsed->identity.pool_address != address ||
		memcmp(parsed->identity.pool_uuid, pool->record.description.uuid, 16) ||
		(key_prefix && memcmp(parsed->identity.key, key_prefix, 16)))
		return card_at(context, address, SPECKV_STATUS_NOT_FOUND);
	*frame = contiguous;
	return SPECKV_STATUS_OK;
}

static uint64_t layers_bytes(const struct card_pool *pool, uint16_t count)
{
	return pool->block_bytes / pool->record.description.shape.layers * count;
}

/*
 * `to_host`: the destination is peer memory. Use streaming stores: the peer's core read these lines
 * last, and a cached store would first transfer each line from it, which costs more than the
 * decoding.
 */
static uint16_t decode(struct card_context *context, struct card_pool *pool, uint64_t address,
	const struct speckv_frame *parsed, const uint8_t *frame, uint16_t first, uint16_t count,
	uint8_t *to, uint64_t capacity, bool to_host)
{
	int rc;

	if (!(context->card->config.codec_modes >> parsed->codec & 1))
		return card_at(context, address, SPECKV_STATUS_NO_CODEC);
	rc = codec_frame_decode(parsed, frame, parsed->frame_bytes, first, count, to, capacity,
		to_host);
	if (rc == -EBADMSG)
		return card_frame_damaged(context, pool, address);
	return rc ? SPECKV_STATUS_INTERNAL : SPECKV_STATUS_OK;
}

/* Apply the pool's bandwidth limit: CARD_WAIT until the command may start. */
uint16_t card_bandwidth(struct card_context *context, struct card_pool *pool, uint64_t bytes)
{
	uint64_t rate = pool->record.description.burst_bytes_per_second,
		 now = card_now(context->card);

	if (!rate)
		return SPECKV_STATUS_OK;
	if (!context->command->throttled) {
		uint64_t from = pool->free_ns > now ? pool->free_ns : now;

		context->command->throttled = true;
		pool->free_ns = from + bytes * 1000000000 / rate;
		if (from > now) {
			context->command->ready_ns = from;
			return CARD_WAIT;
		}
	}
	return SPECKV_STATUS_OK;
}

struct layers {
	uint16_t first, count;
};

static uint16_t check_read(struct card_context *context, uint8_t flags, struct card_pool **pool,
	struct layers *layers)
{
	const struct speckv_cmd_read *read = &context->entry->read;
	uint16_t status, all;

	if (read->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | flags))
		return CARD_INVALID(context, read.flags);
	if (CARD_RESERVED(context, read.reserved))
		return CARD_INVALID(context, read.reserved);
	if (read->opcode == SPECKV_IO_READ && CARD_RESERVED(context, read.deadline_us))
		return CARD_INVALID(context, read.deadline_us);
	status = card_pool_find(context, read->pool, SPECKV_RIGHT_READ, pool);
	if (status)
		return status;
	if (read->address % (*pool)->record.description.page_bytes)
		return CARD_INVALID(context, read.address);
	if (read->buffer_offset % 64)
		return CARD_INVALID(context, read.buffer_offset);
	all = (*pool)->record.description.shape.layers;
	if (read->layer_first >= all)
		return CARD_INVALID(context, read.layer_first);
	if (read->layer_count > all - read->layer_first ||
		(!read->layer_count && read->layer_first))
		return CARD_INVALID(context, read.layer_count);
	layers->first = read->layer_first;
	layers->count = read->layer_count ? read->layer_count : all;
	return card_bandwidth(context, *pool, layers_bytes(*pool, layers->count));
}

static void account(struct card_context *context, struct card_pool *pool, struct card_block *block,
	uint64_t raw, uint64_t stored)
{
	block->used_ns = card_now(context->card);
	block->uses++;
	card_count(context, COUNT_OUT_RAW, raw);
	card_count(context, COUNT_OUT_STORED, stored);
	card_tally(context->card, pool, SPECKV_COUNT_GETS, 1);
	card_tally(context->card, pool, SPECKV_COUNT_HITS, 1);
	card_tally(context->card, pool, SPECKV_COUNT_BYTES_OUT_RAW, raw);
	card_tally(context->card, pool, SPECKV_COUNT_BYTES_OUT_STORED, stored);
}

/* Return the encoded frame, verified. */
static uint16_t read_frame(struct card_context *context, struct card_pool *pool)
{
	const struct speckv_cmd_read *read = &context->entry->read;
	struct speckv_frame parsed;
	struct card_block *block;
	const uint8_t *frame;
	uint16_t status;

	if (read->layer_count)
		return CARD_INVALID(context, read.layer_count);
	status = card_frame_find(context, pool, read->address, read->generation, read->key_prefix,
		&block, &frame, &parsed);
	if (status)
		return status;
	if (parsed.frame_bytes > read->capacity)
		return card_at(context, read->buffer_offset, SPECKV_STATUS_BAD_BUFFER);
	if (speckv_frame_verify(frame, parsed.frame_bytes))
		return card_frame_damaged(context, pool, read->address);
	status = card_buffer_write(context, read->buffer, read->buffer_offset, frame,
		parsed.frame_bytes);
	if (status)
		return status;
	context->command->result = parsed.frame_bytes;
	account(context, pool, block, parsed.frame_bytes, parsed.frame_bytes);
	return SPECKV_STATUS_OK;
}

/* Decode layers into the command's buffer, from staging memory on a hit. */
static uint16_t read_layers(struct card_context *context, struct card_pool *pool,
	const struct layers *layers)
{
	const struct speckv_cmd_read *read = &context->entry->read;
	struct speckv_card *card = context->card;
	uint64_t bytes = layers_bytes(pool, layers->count);
	const struct card_stage *stage;
	struct speckv_frame parsed;
	struct card_block *block;
	const uint8_t *frame;
	uint16_t status;
	uint8_t *to;

	status = card_frame_find(context, pool, read->address, read->generation, read->key_prefix,
		&block, &frame, &parsed);
	if (status)
		return status;
	if (bytes > read->capacity)
		return card_at(context, read->buffer_offset, SPECKV_STATUS_BAD_BUFFER);
	to = card_buffer_direct(context, read->buffer, read->buffer_offset, bytes, true, &status);
	if (status)
		return status;
	stage = card_stage_find(card, pool->number, read->address, read->generation, layers->first,
		layers->count);
	if (stage) {
		status = card_buffer_write(context, read->buffer, read->buffer_offset,
			card_stage_use(context, stage) +
				layers_bytes(pool, layers->first - stage->layer_first),
			bytes);
		if (!status)
			card_tally(card, pool, SPECKV_COUNT_PREFETCH_USED, 1);
	} else if (to) {
		status = decode(context, pool, read->address, &parsed, frame, layers->first,
			layers->count, to, bytes, true);
	} else {
		status = decode(context, pool, read->address, &parsed, frame, layers->first,
			layers->count, card->raw_scratch, bytes, false);
		if (!status)
			status = card_buffer_write(context, read->buffer, read->buffer_offset,
				card->raw_scratch, bytes);
	}
	if (status)
		return status;
	context->command->result = bytes;
	account(context, pool, block, bytes, parsed.frame_bytes);
	return SPECKV_STATUS_OK;
}

uint16_t card_read(struct card_context *context)
{
	struct card_pool *pool;
	struct layers layers;
	uint16_t status = check_read(context, SPECKV_READ_FRAME, &pool, &layers);

	if (status)
		return status;
	return context->entry->read.flags & SPECKV_READ_FRAME ? read_frame(context, pool)
							      : read_layers(context, pool, &layers);
}

uint16_t card_stage_frame(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, const uint8_t *key_prefix, uint16_t layer_first, uint16_t layer_count,
	uint64_t *staged)
{
	struct speckv_card *card = context->card;
	uint64_t bytes = layers_bytes(pool, layer_count);
	struct speckv_frame parsed;
	struct card_block *block;
	const uint8_t *frame;
	uint16_t status;
	uint8_t *to;

	*staged = 0;
	status = card_frame_find(context, pool, address, generation, key_prefix, &block, &frame,
		&parsed);
	if (status)
		return status;
	card_tally(card, pool, SPECKV_COUNT_PREFETCHES, 1);
	if (!card_stage_budget(card, bytes))
		return SPECKV_STATUS_OK;
	if (card_stage_find(card, pool->number, address, generation, layer_first, layer_count)) {
		*staged = bytes;
		return SPECKV_STATUS_OK;
	}
	to = card_stage_begin(card, bytes);
	if (!to)
		return SPECKV_STATUS_OK;
	status = decode(context, pool, address, &parsed, frame, layer_first, layer_count, to, bytes,
		false);
	if (status) {
		memset(to, 0, bytes);
		return status;
	}
	card_stage_end(context, pool->number, address, generation, layer_first, layer_count, bytes);
	card_count(context, COUNT_PREFETCHES, 1);
	if (block->used_ns > context->command->start_ns)
		card_count(context, COUNT_PREFETCH_LATE, 1);
	card_tally(card, pool, SPECKV_COUNT_PREFETCHED, 1);
	*staged = bytes;
	return SPECKV_STATUS_OK;
}

uint16_t card_prefetch(struct card_context *context)
{
	const struct speckv_cmd_read *read = &context->entry->read;
	uint64_t bytes, deadline = (uint64_t)read->deadline_us * 1000;
	struct card_pool *pool;
	struct layers layers;
	uint16_t status = check_read(context, SPECKV_READ_STAGE, &pool, &layers);

	if (status)
		return status;
	if (deadline && card_now(context->card) > context->command->start_ns + deadline)
		return SPECKV_STATUS_OK; /* result 0: past the deadline */
	bytes = layers_bytes(pool, layers.count);
	if (read->flags & SPECKV_READ_STAGE) {
		if (read->buffer)
			return CARD_INVALID(context, read.buffer);
		if (read->buffer_offset)
			return CARD_INVALID(context, read.buffer_offset);
		if (read->capacity)
			return CARD_INVALID(context, read.capacity);
		return card_stage_frame(context, pool, read->address, read->generation,
			read->key_prefix, layers.first, layers.count, &context->command->result);
	}
	if (!card_stage_budget(context->card, bytes))
		return SPECKV_STATUS_OK;
	card_count(context, COUNT_PREFETCHES, 1);
	return read_layers(context, pool, &layers);
}

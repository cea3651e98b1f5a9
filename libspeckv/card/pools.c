// SPDX-License-Identifier: MIT
/*
 * Pools: create, resize, delete, sanitize. The record is written last when a pool grows, first when
 * it shrinks.
 */
#include "card/internal.h"

static bool name_valid(const char name[64])
{
	size_t length = strnlen(name, 64);

	if (!length || length == 64 || name[0] == '.' || !card_zero(name + length, 64 - length))
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			    c == '.' || c == '_' || c == '-'))
			return false;
	}
	return true;
}

/* Find a pool by number and uuid: the number alone may have been reused. */
uint16_t card_pool_by_uuid(struct card_context *context, unsigned int number, const uint8_t *uuid,
	struct card_pool **out)
{
	struct card_pool *pool;

	if (!number || number > SPECKV_CARD_POOLS)
		return SPECKV_STATUS_NO_POOL;
	pool = &context->card->pools[number];
	if (!pool->present || memcmp(pool->record.description.uuid, uuid, 16))
		return SPECKV_STATUS_NO_POOL;
	*out = pool;
	return SPECKV_STATUS_OK;
}

void card_pool_describe(const struct card_pool *pool, struct speckv_pool_description *out)
{
	*out = pool->record.description;
	out->pool = pool->number;
	out->used_bytes = pool->used_pages * out->page_bytes;
	out->stored_bytes = pool->stored_bytes;
	out->blocks = pool->count;
	out->raw_bytes = pool->count * pool->block_bytes;
}

/* Scratch memory only grows, so that an existing pool can always be served. */
int card_scratch(struct speckv_card *card, uint64_t frame_bytes, uint64_t raw_bytes)
{
	uint8_t **at[] = { &card->frame_scratch, &card->raw_scratch };
	uint64_t *have[] = { &card->frame_scratch_bytes, &card->raw_scratch_bytes };
	uint64_t want[] = { (frame_bytes + 63) / 64 * 64, (raw_bytes + 63) / 64 * 64 };

	for (int i = 0; i < 2; i++) {
		uint8_t *grown;

		if (want[i] <= *have[i])
			continue;
		grown = aligned_alloc(64, want[i]);
		if (!grown)
			return -ENOMEM;
		memset(grown, 0, want[i]);
		free(*at[i]);
		*at[i] = grown;
		*have[i] = want[i];
	}
	return 0;
}

/* Fields derived from the description. */
int card_pool_prepare(struct speckv_card *card, struct card_pool *pool)
{
	struct speckv_geometry geometry;

	memcpy(&geometry, &pool->record.description.shape, sizeof(geometry));
	pool->block_bytes = speckv_geometry_bytes(&geometry);
	pool->frame_bytes = 0;
	for (unsigned int codec = 0; codec < 32; codec++) {
		uint64_t most = speckv_frame_max_bytes(&geometry, codec);

		if (most > pool->frame_bytes)
			pool->frame_bytes = most;
	}
	if (!pool->block_bytes || !pool->frame_bytes)
		return -EINVAL;
	memset(&pool->statistics, 0, sizeof(pool->statistics));
	memset(&pool->pace, 0, sizeof(pool->pace));
	memset(&pool->rival, 0, sizeof(pool->rival));
	pool->statistics.since_ns = card_wall(card);
	pool->free_ns = 0;
	pool->used_pages = pool->stored_bytes = pool->count = 0;
	return card_scratch(card, pool->frame_bytes, pool->block_bytes);
}

#define DESCRIPTION_AT(member) ((uint32_t)offsetof(struct speckv_pool_description, member))

/* Offset of the first invalid member, or CARD_NO_FIELD. */
static uint32_t description_check(const struct speckv_card *card,
	const struct speckv_pool_description *d)
{
	struct speckv_geometry geometry;
	uint64_t raw;

	memcpy(&geometry, &d->shape, sizeof(geometry));
	raw = card_zero(d->shape.reserved, sizeof(d->shape.reserved))
		? speckv_geometry_bytes(&geometry)
		: 0;
	if (!name_valid(d->name))
		return DESCRIPTION_AT(name);
	if (card_zero(d->uuid, sizeof(d->uuid)))
		return DESCRIPTION_AT(uuid);
	if (!d->capacity_bytes || d->capacity_bytes % SPECKV_CARD_PAGE_BYTES)
		return DESCRIPTION_AT(capacity_bytes);
	if (d->max_bytes % SPECKV_CARD_PAGE_BYTES ||
		(d->max_bytes && d->max_bytes < d->capacity_bytes))
		return DESCRIPTION_AT(max_bytes);
	if (!raw || raw > card->config.transfer_bytes)
		return DESCRIPTION_AT(shape);
	if (d->page_bytes < 256 || d->page_bytes > SPECKV_CARD_PAGE_BYTES ||
		d->page_bytes & (d->page_bytes - 1))
		return DESCRIPTION_AT(page_bytes);
	if (!speckv_codec_name(d->codec))
		return DESCRIPTION_AT(codec);
	if (d->eviction > SPECKV_EVICT_NONE)
		return DESCRIPTION_AT(eviction);
	if (d->mode > 0777)
		return DESCRIPTION_AT(mode);
	if (d->pool_flags & ~SPECKV_POOL_FLAG_SINGLE_TENANT)
		return DESCRIPTION_AT(pool_flags);
	if (d->pool || d->state || d->generation || d->created_ns || d->used_bytes ||
		d->stored_bytes || d->raw_bytes || d->blocks)
		return DESCRIPTION_AT(pool);
	if (!card_zero(d->reserved, sizeof(d->reserved)))
		return DESCRIPTION_AT(reserved);
	return CARD_NO_FIELD;
}

/* Map device pages to [from, to) of the pool. On failure, free those already taken. */
static bool map_pages(struct speckv_card *card, struct card_pool *pool, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to; i++) {
		uint64_t page = memory_page_take(card, pool->number);

		if (page == UINT64_MAX) {
			while (i-- > from) {
				page = (pool->map[i] - card->layout.first_page) /
					SPECKV_CARD_PAGE_BYTES;
				pool->map[i] = 0;
				memory_page_give(card, page);
			}
			return false;
		}
		pool->map[i] = (card->layout.first_page + page * SPECKV_CARD_PAGE_BYTES) |
			MAP_VALID | MAP_READ | MAP_WRITE;
	}
	return true;
}

static uint16_t make_pool(struct card_context *context, struct card_pool *pool,
	const struct speckv_pool_description *d)
{
	struct speckv_card *card = context->card;
	struct memory_superblock *super = memory_superblock(card);
	struct memory_pool *r = &pool->record;
	uint64_t pages = d->capacity_bytes / SPECKV_CARD_PAGE_BYTES, table;
	bool mapped;

	r->description = *d;
	r->reserve_bytes = d->max_bytes > d->capacity_bytes ? d->max_bytes : d->capacity_bytes;
	if (r->reserve_bytes > card->config.memory_bytes)
		return SPECKV_STATUS_NO_MEMORY;
	table = (r->reserve_bytes / SPECKV_CARD_PAGE_BYTES * sizeof(uint64_t) + 4095) / 4096 *
			4096 +
		r->reserve_bytes / d->page_bytes * sizeof(struct card_block);
	r->table_pages = (table + SPECKV_CARD_PAGE_BYTES - 1) / SPECKV_CARD_PAGE_BYTES;
	switch (memory_reserve(card, &context->command->reservation, r->table_pages, pages)) {
	case -EAGAIN:
		return CARD_WAIT; /* yield: backing many pages takes a while */
	case 0:
		break;
	default:
		return SPECKV_STATUS_NO_MEMORY;
	}
	if (card_pool_prepare(card, pool))
		return SPECKV_STATUS_NO_MEMORY;
	r->table_page = memory_pages_take(card, r->table_pages, pool->number | PAGE_TABLE);
	if (r->table_page == UINT64_MAX)
		return SPECKV_STATUS_NO_MEMORY;
	mapped = memory_pool_attach(card, pool->number) && map_pages(card, pool, 0, pages);
	if (!mapped) {
		for (uint64_t i = 0; i < r->table_pages; i++)
			memory_page_give(card, r->table_page + i);
		pool->map = NULL;
		return SPECKV_STATUS_NO_MEMORY;
	}
	r->description.generation = ++super->generation;
	r->description.state = SPECKV_POOL_ACTIVE;
	r->description.created_ns = card_wall(card);
	r->present = 1;
	memory_pool_store(card, pool->number);
	pool->present = true;
	return SPECKV_STATUS_OK;
}

uint16_t card_create_pool(struct card_context *context)
{
	const struct speckv_cmd_data *command = &context->entry->data;
	struct speckv_card *card = context->card;
	struct speckv_pool_description d;
	struct card_pool *pool = NULL;
	char size[CARD_SIZE_TEXT];
	uint32_t field;
	uint16_t status;

	if (!card->engine)
		return SPECKV_STATUS_NO_ENGINE;
	if (command->pool)
		return CARD_INVALID(context, data.pool);
	if (command->data_bytes != sizeof(d))
		return CARD_INVALID(context, data.data_bytes);
	status = card_data_read(context, command->data_address, &d, sizeof(d));
	if (status)
		return status;
	field = description_check(card, &d);
	if (field != CARD_NO_FIELD)
		return card_at(context, field, CARD_INVALID(context, data.data_address));
	for (unsigned int n = SPECKV_CARD_POOLS; n; n--) {
		struct card_pool *other = &card->pools[n];

		if (!other->present)
			pool = other;
		else if (!memcmp(other->record.description.uuid, d.uuid, 16) ||
			!strcmp(other->record.description.name, d.name))
			return SPECKV_STATUS_POOL_EXISTS;
	}
	if (!pool)
		return SPECKV_STATUS_NO_SLOT;
	status = make_pool(context, pool, &d);
	if (status)
		return status;
	context->command->result = pool->number;
	card_event(card, SPECKV_CARD_POOL_CREATED, SPECKV_INFO, context->function->index,
		pool->number, d.capacity_bytes, "pool %s created with %s", d.name,
		card_size(size, d.capacity_bytes));
	return SPECKV_STATUS_OK;
}

static uint16_t pool_command(struct card_context *context, uint8_t flags, struct card_pool **pool)
{
	const struct speckv_cmd_pool *command = &context->entry->pool;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | flags))
		return CARD_INVALID(context, pool.flags);
	if (CARD_RESERVED(context, pool.buffer))
		return CARD_INVALID(context, pool.buffer);
	if (CARD_RESERVED(context, pool.reserved))
		return CARD_INVALID(context, pool.reserved);
	if (command->opcode != SPECKV_ADMIN_RESIZE_POOL &&
		CARD_RESERVED(context, pool.capacity_bytes))
		return CARD_INVALID(context, pool.capacity_bytes);
	if (command->opcode != SPECKV_ADMIN_SANITIZE && CARD_RESERVED(context, pool.action))
		return CARD_INVALID(context, pool.action);
	if (!context->card->engine)
		return SPECKV_STATUS_NO_ENGINE;
	return pool ? card_pool_by_uuid(context, command->pool, command->uuid, pool)
		    : SPECKV_STATUS_OK;
}

static uint16_t grow_pool(struct card_context *context, struct card_pool *pool, uint64_t from,
	uint64_t to, bool dry)
{
	struct speckv_card *card = context->card;
	int rc;

	if (to - from > card->free_pages)
		return SPECKV_STATUS_NO_MEMORY;
	if (dry)
		return SPECKV_STATUS_OK;
	rc = memory_reserve(card, &context->command->reservation, 0, to - from);
	if (rc)
		return rc == -EAGAIN ? CARD_WAIT : SPECKV_STATUS_NO_MEMORY;
	if (!map_pages(card, pool, from, to))
		return SPECKV_STATUS_NO_MEMORY;
	pool->record.description.capacity_bytes = to * SPECKV_CARD_PAGE_BYTES;
	memory_pool_store(card, pool->number);
	return SPECKV_STATUS_OK;
}

static uint16_t shrink(struct card_context *context, struct card_pool *pool, uint64_t from,
	uint64_t to, bool dry)
{
	struct speckv_card *card = context->card;
	uint64_t first = to * SPECKV_CARD_PAGE_BYTES / pool->record.description.page_bytes;

	for (uint64_t i = first; i < pool->pages; i++)
		if (pool->blocks[i].state != BLOCK_FREE)
			return card_at(context, i * pool->record.description.page_bytes,
				SPECKV_STATUS_BUSY);
	if (dry)
		return SPECKV_STATUS_OK;
	pool->record.description.capacity_bytes = to * SPECKV_CARD_PAGE_BYTES;
	memory_pool_store(card, pool->number);
	card_tlb_flush(card, pool->number);
	for (uint64_t i = to; i < from; i++) {
		uint64_t page = (pool->map[i] - card->layout.first_page) / SPECKV_CARD_PAGE_BYTES;

		pool->map[i] = 0;
		memory_page_give(card, page);
	}
	return SPECKV_STATUS_OK;
}

uint16_t card_resize_pool(struct card_context *context)
{
	const struct speckv_cmd_pool *command = &context->entry->pool;
	struct speckv_card *card = context->card;
	bool dry = command->flags & SPECKV_POOL_DRY_RUN;
	uint64_t bytes = command->capacity_bytes, old;
	char before[CARD_SIZE_TEXT], after[CARD_SIZE_TEXT];
	struct card_pool *pool;
	uint16_t status = pool_command(context, SPECKV_POOL_DRY_RUN, &pool);

	if (status)
		return status;
	if (!bytes || bytes % SPECKV_CARD_PAGE_BYTES)
		return CARD_INVALID(context, pool.capacity_bytes);
	old = pool->record.description.capacity_bytes;
	context->command->result = bytes;
	if (bytes == old)
		return SPECKV_STATUS_UNCHANGED;
	if (bytes > pool->record.reserve_bytes)
		return SPECKV_STATUS_NO_MEMORY;
	if (bytes > old)
		status = grow_pool(context, pool, old / SPECKV_CARD_PAGE_BYTES,
			bytes / SPECKV_CARD_PAGE_BYTES, dry);
	else
		status = shrink(context, pool, old / SPECKV_CARD_PAGE_BYTES,
			bytes / SPECKV_CARD_PAGE_BYTES, dry);
	if (status || dry)
		return status;
	pool->pages = bytes / pool->record.description.page_bytes;
	card_event(card, SPECKV_CARD_POOL_RESIZED, SPECKV_INFO, context->function->index,
		pool->number, bytes, "pool %s resized from %s to %s", pool->record.description.name,
		card_size(before, old), card_size(after, bytes));
	return SPECKV_STATUS_OK;
}

static void remove_pool(struct speckv_card *card, struct card_pool *pool)
{
	card_grants_drop(card, pool->number);
	card_stage_drop(card, pool->number, 0, UINT64_MAX);
	memory_pool_release(card, pool->number);
}

uint16_t card_delete_pool(struct card_context *context)
{
	char name[64];
	struct card_pool *pool;
	uint16_t status = pool_command(context, 0, &pool), number;

	if (status)
		return status;
	memcpy(name, pool->record.description.name, sizeof(name));
	number = pool->number;
	remove_pool(context->card, pool);
	card_event(context->card, SPECKV_CARD_POOL_DELETED, SPECKV_INFO, context->function->index,
		number, 0, "pool %s deleted", name);
	return SPECKV_STATUS_OK;
}

static uint64_t zero_free(struct speckv_card *card)
{
	uint64_t zeroed = 0;

	for (uint64_t page = 0; page < card->layout.pages; page++) {
		if (card->page_map[page] & PAGE_OWNER)
			continue;
		memory_zero_pages(card, page, 1);
		card->page_map[page] &= ~PAGE_DIRTY;
		zeroed += SPECKV_CARD_PAGE_BYTES;
	}
	card_stage_clear(card);
	return zeroed + card->config.stage_bytes;
}

static uint64_t zero_pool(struct speckv_card *card, struct card_pool *pool)
{
	uint64_t pages = pool->record.description.capacity_bytes / SPECKV_CARD_PAGE_BYTES;

	card_abort_pool(card, pool->number, SPECKV_STATUS_ABORTED);
	card_stage_drop(card, pool->number, 0, UINT64_MAX);
	for (uint64_t i = 0; i < pool->pages; i++)
		if (pool->blocks[i].state != BLOCK_FREE && pool->blocks[i].state != BLOCK_REST)
			card_block_free(card, pool, &pool->blocks[i]);
	for (uint64_t i = 0; i < pages; i++)
		if (pool->map[i] & MAP_VALID) /* stays mapped and backed */
			memset(memory_page(card,
				       (pool->map[i] - card->layout.first_page) /
					       SPECKV_CARD_PAGE_BYTES),
				0, SPECKV_CARD_PAGE_BYTES);
	return pages * SPECKV_CARD_PAGE_BYTES;
}

uint16_t card_sanitize(struct card_context *context)
{
	const struct speckv_cmd_pool *command = &context->entry->pool;
	struct speckv_card *card = context->card;
	char size[CARD_SIZE_TEXT];
	struct card_pool *pool;
	uint16_t status = pool_command(context, 0, NULL);

	if (status)
		return status;
	switch (command->action) {
	case SPECKV_SANITIZE_FREE:
		if (CARD_RESERVED(context, pool.pool))
			return CARD_INVALID(context, pool.pool);
		context->command->result = zero_free(card);
		break;
	case SPECKV_SANITIZE_POOL:
		status = card_pool_by_uuid(context, command->pool, command->uuid, &pool);
		if (status)
			return status;
		context->command->result = zero_pool(card, pool);
		break;
	case SPECKV_SANITIZE_ALL:
		if (CARD_RESERVED(context, pool.pool))
			return CARD_INVALID(context, pool.pool);
		if (memcmp(command->uuid, card->config.uuid, 16))
			return CARD_INVALID(context, pool.uuid);
		for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
			if (card->pools[n].present)
				remove_pool(card, &card->pools[n]);
		card_model_unload(card);
		memory_clear(card, card->layout.model, 2 * MEMORY_MODEL_BYTES);
		for (unsigned int f = 0; f < card->functions_max; f++)
			card_sessions_forget(card, f);
		card_logs_clear(card);
		card_statistics_reset(card);
		context->command->result = zero_free(card);
		break;
	default:
		return CARD_INVALID(context, pool.action);
	}
	card_event(card, SPECKV_CARD_SANITIZED, SPECKV_WARNING, context->function->index,
		command->pool, context->command->result, "%s zeroed",
		card_size(size, context->command->result));
	return SPECKV_STATUS_OK;
}

/* ---- driver-side calls ---------------------------------------------------------------------- */

bool speckv_card_pool(const struct speckv_card *card, const uint8_t uuid[16],
	struct speckv_pool_description *out)
{
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		if (card->pools[n].present &&
			!memcmp(card->pools[n].record.description.uuid, uuid, 16)) {
			card_pool_describe(&card->pools[n], out);
			return true;
		}
	return false;
}

// SPDX-License-Identifier: MIT
/* Records and tables of pools in device memory. */
#include "card/internal.h"

static struct memory_pool *pool_copy(const struct speckv_card *card, unsigned int number,
	unsigned int copy)
{
	return (struct memory_pool *)(void *)(card->memory + card->layout.pools +
		(number - 1) * MEMORY_POOL_STRIDE + copy * MEMORY_POOL_COPY);
}

static uint32_t pool_crc(const struct memory_pool *record)
{
	return speckv_crc32c(0, record, offsetof(struct memory_pool, crc));
}

bool memory_pool_load(const struct speckv_card *card, unsigned int number, struct memory_pool *out)
{
	bool found = false;

	memset(out, 0, sizeof(*out));
	for (unsigned int copy = 0; copy < 2; copy++) {
		struct memory_pool *record = pool_copy(card, number, copy);

		if (record->crc != pool_crc(record) || (found && record->sequence <= out->sequence))
			continue;
		*out = *record;
		found = true;
	}
	return found;
}

void memory_pool_store(struct speckv_card *card, unsigned int number)
{
	struct memory_pool *record = &card->pools[number].record, *to;

	record->sequence++;
	record->crc = pool_crc(record);
	to = pool_copy(card, number, record->sequence % 2);
	to->crc = ~record->crc;
	memory_ordered();
	*to = *record;
	memory_ordered();
}

static uint64_t map_bytes(const struct memory_pool *record)
{
	return memory_align(record->reserve_bytes / SPECKV_CARD_PAGE_BYTES * sizeof(uint64_t),
		4096);
}

bool memory_pool_attach(struct speckv_card *card, unsigned int number)
{
	struct card_pool *pool = &card->pools[number];
	struct memory_pool *r = &pool->record;
	uint64_t need;

	if (!r->description.page_bytes || r->description.capacity_bytes > r->reserve_bytes ||
		r->reserve_bytes > card->config.memory_bytes)
		return false;
	need = map_bytes(r) +
		r->reserve_bytes / r->description.page_bytes * sizeof(struct card_block);
	if (r->table_page > card->layout.pages ||
		r->table_pages > card->layout.pages - r->table_page ||
		need > r->table_pages * SPECKV_CARD_PAGE_BYTES)
		return false;
	for (uint64_t i = 0; i < r->table_pages; i++)
		if ((card->page_map[r->table_page + i] & (PAGE_OWNER | PAGE_TABLE)) !=
			(number | PAGE_TABLE))
			return false;
	pool->map = (uint64_t *)(void *)memory_page(card, r->table_page);
	pool->blocks =
		(struct card_block *)(void *)(memory_page(card, r->table_page) + map_bytes(r));
	pool->pages = r->description.capacity_bytes / r->description.page_bytes;
	return true;
}

/* Free everything that the page map assigns to the pool, whatever its tables contain. */
void memory_pool_release(struct speckv_card *card, unsigned int number)
{
	struct card_pool *pool = &card->pools[number];

	pool->record.present = 0;
	memory_pool_store(card, number);
	for (uint64_t page = 0; page < card->layout.pages; page++)
		if ((card->page_map[page] & PAGE_OWNER) == number)
			memory_page_give(card, page);
	memset(&pool->record.description, 0, sizeof(pool->record.description));
	pool->present = false;
	pool->map = NULL;
	pool->blocks = NULL;
	free(pool->holding);
	pool->holding = NULL;
	card_tlb_flush(card, number);
}

/*
 * Check that every mapped page is this pool's own data page, and none is mapped beyond the
 * capacity.
 */
bool memory_pool_check(const struct speckv_card *card, unsigned int number)
{
	const struct card_pool *pool = &card->pools[number];
	uint64_t mapped = pool->record.description.capacity_bytes / SPECKV_CARD_PAGE_BYTES;
	uint64_t all = pool->record.reserve_bytes / SPECKV_CARD_PAGE_BYTES;

	for (uint64_t i = 0; i < all; i++) {
		uint64_t page = (pool->map[i] - card->layout.first_page) / SPECKV_CARD_PAGE_BYTES;

		if (i >= mapped ? pool->map[i] != 0
				: !(pool->map[i] & MAP_VALID) || page >= card->layout.pages ||
					(card->page_map[page] & (PAGE_OWNER | PAGE_TABLE)) !=
						number)
			return false;
	}
	return true;
}

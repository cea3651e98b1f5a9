// SPDX-License-Identifier: MIT
/*
 * Pool-virtual addresses: bounds, page map, a small TLB, poisoned pages. A fault names pool and
 * address and fails its command only.
 */
#include "card/internal.h"

/*
 * Look up a pool to which this queue pair has the right. Without it, the status does not reveal
 * whether the pool exists.
 */
uint16_t card_pool_find(struct card_context *context, unsigned int number, uint32_t right,
	struct card_pool **out)
{
	uint32_t rights;

	if (!number || number > SPECKV_CARD_POOLS)
		return CARD_INVALID(context, sqe.pool);
	rights = context->function->grant[number].rights | context->queue->grant[number].rights;
	if ((rights & right) != right)
		return SPECKV_STATUS_DENIED;
	if (!context->card->pools[number].present)
		return SPECKV_STATUS_NO_POOL;
	*out = &context->card->pools[number];
	return SPECKV_STATUS_OK;
}

/* Map entry of a page of the pool; 0: none. */
static uint64_t translate(struct card_context *context, struct card_pool *pool, uint64_t page)
{
	struct speckv_card *card = context->card;
	unsigned int slot = (unsigned int)(page * 7 + pool->number) % CARD_TLB;
	uint64_t entry, device;

	if (card->tlb[slot].pool == pool->number && card->tlb[slot].page == page) {
		card_count(context, COUNT_TLB_HITS, 1);
		return card->tlb[slot].entry;
	}
	card_count(context, COUNT_TLB_MISSES, 1);
	entry = pool->map[page];
	device = (entry - card->layout.first_page) / SPECKV_CARD_PAGE_BYTES;
	/* The page map is authoritative: a corrupt entry cannot reach another pool's page. */
	if (!(entry & MAP_VALID) || device >= card->layout.pages ||
		(card->page_map[device] & (PAGE_OWNER | PAGE_TABLE)) != pool->number)
		return 0;
	card->tlb[slot].pool = pool->number;
	card->tlb[slot].page = page;
	card->tlb[slot].entry = entry;
	return entry;
}

static uint16_t map_fault(struct card_context *context, uint64_t address)
{
	card_count(context, COUNT_FAULTS, 1);
	card_notify(context->function, SPECKV_REGS__INT_STATUS__FAULT_bm);
	card_notify_admins(context->card, SPECKV_REGS__INT_STATUS__FAULT_bm);
	return card_at(context, address, SPECKV_STATUS_TRANSLATION_FAULT);
}

/* Translate and check `address`; the bytes of its page from there on. */
static uint16_t page_at(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint8_t **out)
{
	struct speckv_card *card = context->card;
	uint64_t entry = translate(context, pool, address / SPECKV_CARD_PAGE_BYTES);
	uint64_t device = (entry - card->layout.first_page) / SPECKV_CARD_PAGE_BYTES;

	if (!entry)
		return map_fault(context, address);
	if (card->page_map[device] & PAGE_POISON) {
		card_event_by(context->function, SPECKV_CARD_POISONED, SPECKV_ERROR, pool->number,
			address, "uncorrectable memory error at %llu", (unsigned long long)address);
		return card_at(context, address, SPECKV_STATUS_POISONED);
	}
	*out = memory_page(card, device) + address % SPECKV_CARD_PAGE_BYTES;
	return SPECKV_STATUS_OK;
}

static uint16_t bounds(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t bytes)
{
	uint64_t capacity = pool->record.description.capacity_bytes;

	if (address > capacity || bytes > capacity - address)
		return map_fault(context, address > capacity ? address : capacity);
	return SPECKV_STATUS_OK;
}

uint16_t card_map(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t bytes, uint8_t **contiguous)
{
	uint16_t status = bounds(context, pool, address, bytes);
	uint8_t *expected = NULL, *at;

	*contiguous = NULL;
	for (uint64_t done = 0; !status && done < bytes;) {
		uint64_t in_page =
			SPECKV_CARD_PAGE_BYTES - (address + done) % SPECKV_CARD_PAGE_BYTES;

		status = page_at(context, pool, address + done, &at);
		if (status)
			break;
		if (!done)
			*contiguous = at;
		else if (at != expected)
			*contiguous = NULL;
		expected = at + in_page;
		done += in_page;
	}
	if (status)
		*contiguous = NULL;
	return status;
}

static uint16_t transfer(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint8_t *host, uint64_t bytes, bool write)
{
	uint16_t status = bounds(context, pool, address, bytes);

	while (!status && bytes) {
		uint64_t n = SPECKV_CARD_PAGE_BYTES - address % SPECKV_CARD_PAGE_BYTES;
		uint8_t *at;

		if (n > bytes)
			n = bytes;
		status = page_at(context, pool, address, &at);
		if (status)
			break;
		if (write)
			memcpy(at, host, n);
		else
			memcpy(host, at, n);
		address += n;
		host += n;
		bytes -= n;
	}
	return status;
}

uint16_t card_memory_read(struct card_context *context, struct card_pool *pool, uint64_t address,
	void *to, uint64_t bytes)
{
	return transfer(context, pool, address, to, bytes, false);
}

uint16_t card_memory_write(struct card_context *context, struct card_pool *pool, uint64_t address,
	const void *from, uint64_t bytes)
{
	return transfer(context, pool, address, (uint8_t *)(uintptr_t)from, bytes, true);
}

// SPDX-License-Identifier: MIT
/*
 * Device memory: superblock, pool records, page map, allocation. The persistent state is here and
 * in flash. A process may be killed between any two stores: a structure is written before the
 * pointer to it.
 */
#include "card/internal.h"

#define BACKED_UNIT 4096 /* granularity of backing */
#define RESERVE_STEP 8 /* pages backed per turn */
#define GIVE_UP_STEP 16 /* pages released per turn */
#define GIVE_UP_LOOKS 4096 /* pages scanned per turn */

static bool lay_out(struct speckv_card *card)
{
	struct memory_layout *l = &card->layout;
	uint64_t bytes = card->config.memory_bytes, at;

	l->sessions_all = (uint64_t)card->config.sessions * card->functions_max;
	l->pools = MEMORY_POOLS_AT;
	l->page_map = l->pools + (uint64_t)SPECKV_CARD_POOLS * MEMORY_POOL_STRIDE;
	at = l->page_map + memory_align(bytes / SPECKV_CARD_PAGE_BYTES * sizeof(uint32_t), 4096);
	l->sessions = at;
	at += memory_align(l->sessions_all * sizeof(struct memory_session), 4096);
	l->events = at;
	at += MEMORY_EVENTS * sizeof(struct speckv_log_event);
	l->errors = at;
	at += MEMORY_ERRORS * sizeof(struct speckv_log_error);
	l->model = at;
	at += 2 * MEMORY_MODEL_BYTES;
	l->stage = memory_align(at, SPECKV_CARD_PAGE_BYTES);
	l->first_page = memory_align(l->stage + card->config.stage_bytes, SPECKV_CARD_PAGE_BYTES);
	if (l->first_page + SPECKV_CARD_PAGE_BYTES > bytes)
		return false;
	l->pages = (bytes - l->first_page) / SPECKV_CARD_PAGE_BYTES;
	card->page_map = (uint32_t *)(void *)(card->memory + l->page_map);
	return true;
}

struct memory_superblock *memory_superblock(const struct speckv_card *card)
{
	return (struct memory_superblock *)(void *)card->memory;
}

struct memory_session *memory_session(const struct speckv_card *card, unsigned int function,
	uint32_t slot)
{
	struct memory_session *all =
		(struct memory_session *)(void *)(card->memory + card->layout.sessions);

	return &all[(uint64_t)function * card->config.sessions + slot];
}

struct speckv_log_event *memory_event(const struct speckv_card *card, uint64_t sequence)
{
	return (struct speckv_log_event *)(void *)(card->memory + card->layout.events) +
		sequence % MEMORY_EVENTS;
}

struct speckv_log_error *memory_error(const struct speckv_card *card, uint64_t sequence)
{
	return (struct speckv_log_error *)(void *)(card->memory + card->layout.errors) +
		sequence % MEMORY_ERRORS;
}

uint8_t *memory_page(const struct speckv_card *card, uint64_t page)
{
	return card->memory + card->layout.first_page + page * SPECKV_CARD_PAGE_BYTES;
}

static bool backed(const struct speckv_card *card, uint64_t page)
{
	return card->backed[page / 8] >> page % 8 & 1;
}

static void set_backed(struct speckv_card *card, uint64_t page, bool is)
{
	card->backed[page / 8] = (uint8_t)((card->backed[page / 8] & ~(1u << page % 8)) |
		(unsigned int)is << page % 8);
}

int memory_take(struct speckv_card *card, uint64_t offset, uint64_t bytes)
{
	return card->ops.memory_take && bytes ? card->ops.memory_take(card->arg, offset, bytes) : 0;
}

static bool page_back(struct speckv_card *card, uint64_t page)
{
	if (!backed(card, page) &&
		memory_take(card, card->layout.first_page + page * SPECKV_CARD_PAGE_BYTES,
			SPECKV_CARD_PAGE_BYTES))
		return false;
	set_backed(card, page, true);
	return true;
}

void memory_zero_pages(struct speckv_card *card, uint64_t page, uint64_t count)
{
	uint64_t offset = card->layout.first_page + page * SPECKV_CARD_PAGE_BYTES,
		 bytes = count * SPECKV_CARD_PAGE_BYTES;
	bool gone = card->ops.memory_zero && card->ops.memory_zero(card->arg, offset, bytes) == 0;

	for (uint64_t i = 0; i < count; i++)
		if (gone)
			set_backed(card, page + i, false);
		else if (page_back(card, page + i)) /* otherwise there is nothing to zero */
			memset(memory_page(card, page + i), 0, SPECKV_CARD_PAGE_BYTES);
}

void memory_clear(struct speckv_card *card, uint64_t offset, uint64_t bytes)
{
	if (bytes && card->ops.memory_zero && !card->ops.memory_zero(card->arg, offset, bytes))
		return;
	for (uint64_t end = offset + bytes, n; offset < end; offset += n) {
		n = BACKED_UNIT - offset % BACKED_UNIT;
		n = n < end - offset ? n : end - offset;
		/* otherwise there is no backing, and nothing to zero */
		if (!memory_take(card, offset, n))
			memset(card->memory + offset, 0, n);
	}
}

static bool page_free(uint32_t entry)
{
	return !(entry & (PAGE_OWNER | PAGE_POISON));
}

/* Zero a dirty page and back it. */
static bool page_ready(struct speckv_card *card, uint64_t page)
{
	if (card->page_map[page] & PAGE_DIRTY) {
		memory_zero_pages(card, page, 1);
		memory_ordered();
		card->page_map[page] &= ~PAGE_DIRTY;
	}
	return page_back(card, page);
}

static bool page_assign(struct speckv_card *card, uint64_t page, uint32_t owner)
{
	if (!page_ready(card, page))
		return false;
	memory_ordered();
	card->page_map[page] = owner;
	card->free_pages--;
	return true;
}

static uint64_t run_find(const struct speckv_card *card, uint64_t count)
{
	uint64_t run = 0;

	for (uint64_t page = 0; page < card->layout.pages; page++) {
		run = page_free(card->page_map[page]) ? run + 1 : 0;
		if (run == count)
			return page + 1 - count;
	}
	return UINT64_MAX;
}

static bool pass_begin(struct speckv_card *card, struct memory_reservation *r)
{
	r->first = r->run ? run_find(card, r->run) : 0;
	r->start = card->next_page % card->layout.pages;
	r->at = r->found = 0;
	return r->first != UINT64_MAX;
}

int memory_reserve(struct speckv_card *card, struct memory_reservation *r, uint64_t run,
	uint64_t more)
{
	/* this call scans the whole reservation */
	bool whole = !r->active || r->run != run || r->more != more;
	unsigned int made = 0;

	card->reserving += !r->active;
	r->active = true;
	r->run = run;
	r->more = more;
	if (run + more > card->free_pages || (whole && !pass_begin(card, r)))
		return -ENOSPC;
	for (;;) {
		for (; r->at < run + card->layout.pages && r->found < run + more; r->at++) {
			uint64_t page = r->at < run ? r->first + r->at
						    : (r->start + r->at - run) % card->layout.pages;

			if (!page_free(card->page_map[page]) ||
				(r->at >= run && page >= r->first && page < r->first + run))
				continue;
			if (!backed(card, page) || card->page_map[page] & PAGE_DIRTY) {
				if (made++ == RESERVE_STEP)
					return -EAGAIN;
				if (!page_ready(card, page))
					return -ENOSPC;
			}
			r->found++;
		}
		if (whole)
			return r->found == run + more ? 0 : -ENOSPC;
		/*
		 * Others ran in between and may have taken or released some of the pages: scan all
		 * of it once more.
		 */
		whole = true;
		if (!pass_begin(card, r))
			return -ENOSPC;
	}
}

void memory_reserve_end(struct speckv_card *card, struct memory_reservation *r)
{
	if (!r->active)
		return;
	r->active = false;
	card->reserving--;
	card->give_up_at = 0;
}

bool memory_gives_up(const struct speckv_card *card)
{
	return card->ops.memory_zero && !card->reserving && card->give_up_at < card->layout.pages;
}

static bool to_give_up(const struct speckv_card *card, uint64_t page)
{
	return page_free(card->page_map[page]) && (card->give_up_all || backed(card, page));
}

void memory_give_up(struct speckv_card *card)
{
	uint64_t first = card->give_up_at, end = first + GIVE_UP_LOOKS, n = 0;

	end = end < card->layout.pages ? end : card->layout.pages;
	while (first < end && !to_give_up(card, first))
		first++;
	while (n < GIVE_UP_STEP && first + n < end && to_give_up(card, first + n))
		n++;
	card->give_up_at = first + n;
	if (n &&
		card->ops.memory_zero(card->arg,
			card->layout.first_page + first * SPECKV_CARD_PAGE_BYTES,
			n * SPECKV_CARD_PAGE_BYTES))
		card->give_up_at = card->layout.pages; /* backing cannot be released here */
	else
		for (uint64_t page = first; page < first + n; page++) {
			set_backed(card, page, false);
			card->page_map[page] &= ~PAGE_DIRTY;
		}
	card->give_up_all = card->give_up_all && card->give_up_at < card->layout.pages;
}

uint64_t memory_page_take(struct speckv_card *card, uint32_t owner)
{
	for (uint64_t i = 0; i < card->layout.pages; i++) {
		uint64_t page = (card->next_page + i) % card->layout.pages;

		if (!page_free(card->page_map[page]))
			continue;
		if (!page_assign(card, page, owner))
			break;
		card->next_page = page + 1;
		return page;
	}
	return UINT64_MAX;
}

uint64_t memory_pages_take(struct speckv_card *card, uint64_t count, uint32_t owner)
{
	uint64_t first = run_find(card, count);

	for (uint64_t i = 0; first != UINT64_MAX && i < count; i++) {
		if (page_assign(card, first + i, owner))
			continue;
		while (i--)
			memory_page_give(card, first + i);
		return UINT64_MAX;
	}
	return first;
}

void memory_page_give(struct speckv_card *card, uint64_t page)
{
	uint32_t poison = card->page_map[page] & PAGE_POISON;

	card->page_map[page] = PAGE_DIRTY | poison;
	memory_ordered();
	memory_zero_pages(card, page, 1);
	memory_ordered();
	card->page_map[page] = poison;
	if (!poison)
		card->free_pages++;
}

/* Finish an interrupted resize: clear the map beyond the capacity. */
static void pool_finish(struct speckv_card *card, unsigned int number)
{
	struct card_pool *pool = &card->pools[number];
	uint64_t mapped = pool->record.description.capacity_bytes / SPECKV_CARD_PAGE_BYTES;

	for (uint64_t i = mapped; i < pool->record.reserve_bytes / SPECKV_CARD_PAGE_BYTES; i++)
		pool->map[i] = 0;
	pool->present = true;
}

/* Free pages that carry a pool's number but are in no table: an assignment was interrupted. */
static void pages_sweep(struct speckv_card *card)
{
	/* Mark the pages in tables with a bit that no other code uses, then scan the rest. */
	const uint32_t known = 1u << 31;

	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct card_pool *pool = &card->pools[n];

		if (!pool->present)
			continue;
		for (uint64_t i = 0; i < pool->record.table_pages; i++)
			card->page_map[pool->record.table_page + i] |= known;
		for (uint64_t i = 0;
			i < pool->record.description.capacity_bytes / SPECKV_CARD_PAGE_BYTES; i++) {
			uint64_t page =
				(pool->map[i] - card->layout.first_page) / SPECKV_CARD_PAGE_BYTES;

			if (pool->map[i] && page < card->layout.pages &&
				(card->page_map[page] & (PAGE_OWNER | PAGE_TABLE)) == n)
				card->page_map[page] |= known;
			else
				pool->map[i] = 0;
		}
	}
	card->free_pages = 0;
	card->poisoned_pages = 0;
	for (uint64_t page = 0; page < card->layout.pages; page++) {
		uint32_t *entry = &card->page_map[page];

		if (*entry & known)
			*entry &= ~known;
		else if (*entry & PAGE_OWNER)
			memory_page_give(card, page);
		else if (page_free(*entry))
			card->free_pages++;
		if (*entry & PAGE_POISON)
			card->poisoned_pages++;
	}
}

static void recover(struct speckv_card *card)
{
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct card_pool *pool = &card->pools[n];

		pool->number = (uint16_t)n;
		if (!memory_pool_load(card, n, &pool->record) || !pool->record.present)
			continue;
		if (!memory_pool_attach(card, n))
			memory_pool_release(card, n);
		else
			pool_finish(card, n);
	}
	pages_sweep(card);
}

/* Back all pages owned by pools, including holes left by an earlier version of the card. */
static int back_owned(struct speckv_card *card)
{
	for (uint64_t page = 0; page < card->layout.pages; page++)
		if (card->page_map[page] & PAGE_OWNER && !page_back(card, page))
			return -ENOSPC;
	return 0;
}

static uint32_t superblock_crc(const struct memory_superblock *super)
{
	struct memory_superblock fixed = *super;

	fixed.crc = 0;
	return speckv_crc32c(0, &fixed, offsetof(struct memory_superblock, changing));
}

static void superblock_fill(const struct speckv_card *card, struct memory_superblock *super)
{
	super->magic = MEMORY_MAGIC;
	super->version = MEMORY_VERSION;
	memcpy(super->uuid, card->config.uuid, sizeof(super->uuid));
	super->bytes = card->config.memory_bytes;
	super->sessions = card->config.sessions;
	super->functions = card->functions_max;
	super->stage_bytes = card->config.stage_bytes;
	super->first_page = card->layout.first_page;
	super->crc = superblock_crc(super);
}

/* Release the backing of all pages, which leaves zeros. False: not possible here. */
static bool pages_give_up(struct speckv_card *card)
{
	return card->ops.memory_zero &&
		!card->ops.memory_zero(card->arg, card->layout.first_page,
			card->layout.pages * SPECKV_CARD_PAGE_BYTES);
}

static void memory_format(struct speckv_card *card, bool clean)
{
	struct memory_superblock *super = memory_superblock(card);

	memset(super, 0, 4096);
	memory_ordered();
	/* Sessions are cleared when a connection begins; unused ones need no backing. */
	memset(card->memory + 4096, 0, card->layout.sessions - 4096);
	memset(card->memory + card->layout.events, 0, card->layout.model - card->layout.events);
	for (uint64_t page = 0; page < card->layout.pages; page++)
		card->page_map[page] = clean ? 0 : PAGE_DIRTY;
	memset(card->pools, 0, sizeof(card->pools));
	memory_ordered();
	superblock_fill(card, super);
}

int memory_open(struct speckv_card *card)
{
	struct memory_superblock *super = memory_superblock(card), wanted = { 0 };
	bool blank, clean = false;

	if (!lay_out(card))
		return -EINVAL;
	card->backed = calloc(1, card->layout.pages / 8 + 1);
	if (!card->backed)
		return -ENOMEM;
	/*
	 * Back the tables before reading them: a read of a hole would allocate it, too. The rest is
	 * backed on first use.
	 */
	if (memory_take(card, 0, card->layout.sessions) ||
		memory_take(card, card->layout.events, card->layout.model - card->layout.events))
		return -ENOSPC;
	blank = card_zero(card->memory, 4096);
	superblock_fill(card, &wanted);
	if (card->config.format_memory || blank) {
		/* new memory holds nothing, and this takes no time */
		clean = blank && pages_give_up(card);
		memory_format(card, clean);
	} else if (super->crc != superblock_crc(super) || super->crc != wanted.crc) {
		return -EUCLEAN;
	} else if (!super->clean) {
		super->unsafe_power_cycles++;
	}
	super->clean = 0;
	super->power_cycles++;
	card->uncorrected = super->uncorrected;
	for (unsigned int f = 0; f < card->functions_max; f++)
		card->places[f].sessions = true; /* of an earlier run */
	if (back_owned(card))
		return -ENOSPC;
	/* backing left by an earlier process for a pool that it did not finish creating */
	card->give_up_all = !clean;
	card->give_up_at = clean ? card->layout.pages : 0;
	recover(card);
	return 0;
}

void card_tlb_flush(struct speckv_card *card, unsigned int pool)
{
	for (unsigned int i = 0; i < CARD_TLB; i++)
		if (card->tlb[i].pool == pool)
			card->tlb[i].pool = 0;
}

// SPDX-License-Identifier: MIT
/*
 * Page runs without locks. The page map is authoritative: one word a page, changed only by
 * compare-and-swap against the exact word seen. No word but FREE ever repeats (generations), so a
 * late or repeated step of a stalled process fails harmlessly. (Exception: a drop restores the same
 * HEAD when a card did not answer. A process that saw the word in between may wrongly clear or keep
 * a slot or twin; a put of the key or a check repairs either.)
 *
 * A run is claimed head first, then page by page, and freed from its tail, the head last: whenever
 * its owner dies, the run is the head and an unbroken continuation behind it, which any other
 * process can free.
 */
#include "store.h"

static bool swap_word(_Atomic uint64_t *word, uint64_t expected, uint64_t desired)
{
	return atomic_compare_exchange_strong_explicit(word, &expected, desired,
		memory_order_acq_rel, memory_order_acquire);
}

/* Free pages [head + first, head + end) of a run, tail first. */
static void release_tail(struct region *r, uint64_t head, uint64_t generation, uint32_t first,
	uint32_t end)
{
	for (uint32_t i = end; i-- > first;)
		swap_word(&r->page_map[head + i], lay_word(LAY_CONT, i, generation), LAY_FREE);
}

void pages_hint_push(struct region *r, uint64_t page, uint32_t pages)
{
	uint64_t at = add_relaxed(&r->head->pool.hint_head, 1) % LAY_HINTS;

	store_release(&r->head->hints[at], page << 18 | pages);
}

static void run_freed(struct region *r, uint64_t page, uint32_t pages)
{
	sub_relaxed(&r->head->pool.used_pages, pages);
	pages_hint_push(r, page, pages);
	atomic_fetch_add(&r->head->pool.freed, 1);
}

/*
 * Claim exactly [page, page + n); on failure nothing is claimed and *blocked is the first page that
 * was not free.
 */
static bool try_claim(struct speckv_pool *pool, uint64_t page, uint32_t n, struct run *run,
	uint64_t *blocked)
{
	struct region *r = &pool->region;
	uint64_t generation;

	*blocked = page;
	if (load_relaxed(&r->page_map[page]) != LAY_FREE)
		return false;
	do
		generation = add_relaxed(&r->head->pool.next_run_generation, 1) &
			LAY_GENERATION_MASK;
	while (!generation);
	if (!swap_word(&r->page_map[page], LAY_FREE,
		    lay_word(LAY_CLAIMED, pool->owner, generation)))
		return false;
	for (uint32_t i = 1; i < n; i++)
		if (!swap_word(&r->page_map[page + i], LAY_FREE,
			    lay_word(LAY_CONT, i, generation))) {
			*blocked = page + i;
			release_tail(r, page, generation, 1, i);
			swap_word(&r->page_map[page],
				lay_word(LAY_CLAIMED, pool->owner, generation), LAY_FREE);
			/* searches that failed on these pages may be repeated */
			atomic_fetch_add(&r->head->pool.freed, 1);
			return false;
		}
	*run = (struct run){ .page = page, .generation = generation, .pages = n };
	add_relaxed(&r->head->pool.used_pages, n);
	/*
	 * claim before writing any byte: readers of the old contents re-read the map after their
	 * copy
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return true;
}

bool pages_claim_hint(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t newest = load_acquire(&r->head->pool.hint_head), blocked;

	for (unsigned int i = 1; i <= 16; i++) {
		_Atomic uint64_t *cell = &r->head->hints[(newest - i) % LAY_HINTS];
		uint64_t hint = load_acquire(cell), page = hint >> 18;
		uint32_t pages = hint & LAY_RUN_MAX;

		if (!hint || pages < n || page >= limit || n > limit - page ||
			!swap_word(cell, hint, 0))
			continue;
		if (!try_claim(pool, page, n, run, &blocked))
			continue;
		if (pages > n)
			pages_hint_push(r, page + n, pages - n);
		return true;
	}
	return false;
}

bool pages_claim_scan(struct speckv_pool *pool, uint64_t from, uint64_t to, uint32_t n,
	struct run *run)
{
	struct region *r = &pool->region;
	uint64_t page = from, blocked;

	while (page < to && n <= to - page) {
		uint64_t word = load_relaxed(&r->page_map[page]);

		if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			page += lay_value(word);
		} else if (word != LAY_FREE) {
			page++;
		} else {
			uint32_t free_run = 1;

			while (free_run < n &&
				load_relaxed(&r->page_map[page + free_run]) == LAY_FREE)
				free_run++;
			if (free_run < n) {
				page += free_run;
				continue;
			}
			if (try_claim(pool, page, n, run, &blocked)) {
				store_relaxed(&pool->client->cursor, page + n);
				return true;
			}
			page = blocked + 1;
		}
	}
	return false;
}

/* ---- room for a claim ----------------------------------------------------------------------- */

bool pages_claim_at(struct speckv_pool *pool, uint64_t page, uint32_t n, struct run *run)
{
	uint64_t blocked;

	return try_claim(pool, page, n, run, &blocked);
}

/* ---- after the claim ------------------------------------------------------------------------ */

void pages_trim(struct speckv_pool *pool, struct run *run, uint32_t pages)
{
	struct region *r = &pool->region;

	if (pages < r->min_run)
		pages = r->min_run;
	if (pages >= run->pages)
		return;
	release_tail(r, run->page, run->generation, pages, run->pages);
	if (load_relaxed(&pool->client->cursor) == run->page + run->pages) {
		/* continue at the end of the frame: no gap, no hint */
		store_relaxed(&pool->client->cursor, run->page + pages);
		sub_relaxed(&r->head->pool.used_pages, run->pages - pages);
		atomic_fetch_add(&r->head->pool.freed, 1);
	} else {
		run_freed(r, run->page + pages, run->pages - pages);
	}
	run->pages = pages;
}

int pages_publish(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;
	int rc;

	/* order the payload, streaming stores included, before the publishing store */
	atomic_thread_fence(memory_order_seq_cst);
	if (!swap_word(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation),
		    lay_word(LAY_HEAD, run->pages, run->generation)))
		return -EOWNERDEAD;
	rc = region_flush(r, (const void *)&r->page_map[run->page], run->pages * 8ull);
	if (rc &&
		swap_word(&r->page_map[run->page], lay_word(LAY_HEAD, run->pages, run->generation),
			lay_word(LAY_CLAIMED, pool->owner, run->generation)))
		pages_release(r, pool->owner, run);
	return rc;
}

bool pages_unpublish(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;

	if (!swap_word(&r->page_map[run->page], lay_word(LAY_HEAD, run->pages, run->generation),
		    lay_word(LAY_CLAIMED, pool->owner, run->generation)))
		return false;
	if (!region_flush(r, (const void *)&r->page_map[run->page], 8))
		return true;
	swap_word(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation),
		lay_word(LAY_HEAD, run->pages, run->generation));
	return false;
}

int move_begin(struct speckv_pool *pool, const struct block_ref *from, const struct run *to)
{
	struct region *r = &pool->region;
	struct lay_client *client = pool->client;

	store_release(&client->move_from, from->page);
	store_release(&client->move_from_generation, from->generation);
	store_release(&client->move_to, to->page);
	store_release(&client->move_to_generation, to->generation);
	/*
	 * settling an interrupted move needs both: the move record, and the claim of the copy's
	 * whole run
	 */
	return region_flush(r, client, sizeof(*client)) ||
			region_flush(r, (const void *)&r->page_map[to->page], to->pages * 8ull)
		? -EIO
		: 0;
}

int move_settle(struct speckv_pool *pool, const struct run *from, const struct run *to)
{
	struct region *r = &pool->region;

	if (!region_flush(r, (const void *)&r->page_map[to->page], to->pages * 8ull) &&
		!region_flush(r, (const void *)&r->page_map[from->page], 8))
		return 0;
	if (!swap_word(&r->page_map[to->page], lay_word(LAY_HEAD, to->pages, to->generation),
		    lay_word(LAY_CLAIMED, pool->owner, to->generation)))
		return 0; /* dropped meanwhile: nothing to restore */
	swap_word(&r->page_map[from->page], lay_word(LAY_CLAIMED, pool->owner, from->generation),
		lay_word(LAY_HEAD, from->pages, from->generation));
	return -EIO;
}

void move_end(struct speckv_pool *pool)
{
	store_release(&pool->client->move_to_generation, 0);
}

bool pages_switch(struct speckv_pool *pool, const struct run *from, const struct run *to)
{
	struct region *r = &pool->region;

	atomic_thread_fence(memory_order_seq_cst);
	if (!swap_word(&r->page_map[from->page], lay_word(LAY_HEAD, from->pages, from->generation),
		    lay_word(LAY_CLAIMED, pool->owner, from->generation)))
		return false;
	/* flushed in move_settle(): readers that miss wait meanwhile */
	if (swap_word(&r->page_map[to->page], lay_word(LAY_CLAIMED, pool->owner, to->generation),
		    lay_word(LAY_HEAD, to->pages, to->generation)) ||
		load_acquire(&r->page_map[to->page]) ==
			lay_word(LAY_HEAD, to->pages, to->generation))
		return true;
	swap_word(&r->page_map[from->page], lay_word(LAY_CLAIMED, pool->owner, from->generation),
		lay_word(LAY_HEAD, from->pages, from->generation));
	return false; /* this client was reaped and its copy released */
}

void pages_release(struct region *r, uint32_t owner, const struct run *run)
{
	release_tail(r, run->page, run->generation, 1, run->pages);
	if (swap_word(&r->page_map[run->page], lay_word(LAY_CLAIMED, owner, run->generation),
		    LAY_FREE))
		run_freed(r, run->page, run->pages);
}

void pages_retire(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;
	char size[32];

	for (uint32_t i = run->pages; --i > 0;)
		swap_word(&r->page_map[run->page + i], lay_word(LAY_CONT, i, run->generation),
			LAY_RETIRED);
	if (swap_word(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation),
		    LAY_RETIRED))
		sub_relaxed(&r->head->pool.used_pages, run->pages);
	pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR,
		"memory of the card went bad: %s at page %llu retired",
		human(size, (uint64_t)run->pages * r->page_bytes), (unsigned long long)run->page);
}

/* ---- counting ------------------------------------------------------------------------------- */

void pages_census(struct region *r, struct page_census *census)
{
	uint64_t pages = region_pages(r);

	memset(census, 0, sizeof(*census));
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&r->page_map[p]), run = 1;

		switch (lay_state(word)) {
		case LAY_FREE:
			if (word == LAY_FREE)
				census->free++;
			else
				census->retired++;
			break;
		case LAY_HEAD: {
			struct lay_entry *entry = &r->entries[region_entry_of(r, p)];

			run = lay_value(word);
			if (!run || run > pages - p)
				run = 1;
			census->used += run;
			census->blocks++;
			census->raw_bytes += r->fixed.block_bytes;
			if (load_acquire(&entry->generation) == lay_generation(word))
				census->stored_bytes += load_relaxed(&entry->frame_bytes);
			break;
		}
		case LAY_CLAIMED:
			while (p + run < pages &&
				load_acquire(&r->page_map[p + run]) ==
					lay_word(LAY_CONT, run, lay_generation(word)))
				run++;
			census->claimed += run;
			census->claimed_by[lay_value(word) >> 12] += run;
			break;
		default:
			/*
			 * its run was trimmed, freed or moved during the scan, or leaked: check.c
			 * distinguishes
			 */
			census->orphan++;
		}
		p += run;
	}
}

/* Recount usage from the page map, after clients died between a swap and its count. */
void pages_recount(struct region *r)
{
	uint64_t used[LAY_TENANTS] = { 0 }, blocks[LAY_TENANTS] = { 0 }, all = 0,
		 pages = region_pages(r);

	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&r->page_map[p]), run = 1;

		if (lay_state(word) == LAY_HEAD && lay_value(word) &&
			lay_value(word) <= pages - p) {
			uint32_t tenant = load_relaxed(&r->entries[region_entry_of(r, p)].tenant);

			run = lay_value(word);
			if (tenant < LAY_TENANTS) {
				used[tenant] += run;
				blocks[tenant]++;
			}
		}
		all += word != LAY_FREE && word != LAY_RETIRED ? run : 0;
		p += run;
	}
	store_release(&r->head->pool.used_pages, all);
	for (int t = 0; t < LAY_TENANTS; t++)
		if (load_acquire(&r->head->tenants[t].state) == 2) {
			store_release(&r->head->tenants[t].used_pages, used[t]);
			store_release(&r->head->tenants[t].blocks, blocks[t]);
		}
}

uint64_t pages_first_above(struct region *r, uint64_t mark)
{
	uint64_t word = load_acquire(&r->page_map[mark]);

	return lay_state(word) == LAY_CONT && lay_value(word) <= mark ? mark - lay_value(word)
								      : mark;
}

void pages_unretire(struct region *r, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p++) {
		uint64_t retired = LAY_RETIRED;

		atomic_compare_exchange_strong(&r->page_map[p], &retired, LAY_FREE);
	}
}

bool pages_claimed_above(struct region *r, uint64_t mark, uint64_t end)
{
	for (uint64_t p = pages_first_above(r, mark); p < end; p++) {
		uint64_t word = load_acquire(&r->page_map[p]);

		if (word != LAY_FREE && word != LAY_RETIRED)
			return true;
	}
	return false;
}

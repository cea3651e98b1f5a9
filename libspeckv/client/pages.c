// SPDX-License-Identifier: MIT
/*
 * Page runs without locks. The page map is the truth: one word a page, changed only by compare-and-swap against the exact
 * word seen, and no word but FREE ever repeats (generations), so a late or repeated step of a stalled process fails instead
 * of doing harm. (The HEAD that a drop puts back because a card did not answer does repeat: a slot or twin that another process
 * judged by the word in between may go, or stay, once too often; a put of the key or a check mends either.)
 *
 * A run is claimed head first, then page by page; it is given back from its tail, the head last: whatever the instant its
 * owner dies, the run is "head and the unbroken continuation behind it", which any other process can give back.
 */
#include "internal.h"

#define EVICT_TRIES 64
#define QUOTA_TRIES 4096
#define LOST_TRIES 8 /* in a row */

static bool swap(_Atomic uint64_t *word, uint64_t expected, uint64_t desired)
{
	return atomic_compare_exchange_strong_explicit(word, &expected, desired, memory_order_acq_rel, memory_order_acquire);
}

/* Give pages [from, from + n) of a run back, tail first. */
static void release_tail(struct region *r, uint64_t head, uint64_t generation, uint32_t first, uint32_t end)
{
	for (uint32_t i = end; i-- > first;)
		swap(&r->page_map[head + i], lay_word(LAY_CONT, i, generation), LAY_FREE);
}

void hint_push(struct region *r, uint64_t page, uint32_t pages)
{
	uint64_t at = add(&r->head->pool.hint_head, 1) % LAY_HINTS;

	store(&r->head->hints[at], page << 18 | pages);
}

static void freed(struct region *r, uint64_t page, uint32_t pages)
{
	sub(&r->head->pool.used_pages, pages);
	hint_push(r, page, pages);
	atomic_fetch_add(&r->head->pool.freed, 1);
}

/* Claim exactly [page, page + n); on failure nothing is held and *blocked is the first page that was not free. */
static bool try_claim(struct speckv_pool *pool, uint64_t page, uint32_t n, struct run *run, uint64_t *blocked)
{
	struct region *r = &pool->region;
	uint64_t generation;

	*blocked = page;
	if (load_relaxed(&r->page_map[page]) != LAY_FREE)
		return false;
	do
		generation = add(&r->head->pool.next_run_generation, 1) & LAY_GENERATION_MASK;
	while (!generation);
	if (!swap(&r->page_map[page], LAY_FREE, lay_word(LAY_CLAIMED, pool->owner, generation)))
		return false;
	for (uint32_t i = 1; i < n; i++)
		if (!swap(&r->page_map[page + i], LAY_FREE, lay_word(LAY_CONT, i, generation))) {
			*blocked = page + i;
			release_tail(r, page, generation, 1, i);
			swap(&r->page_map[page], lay_word(LAY_CLAIMED, pool->owner, generation), LAY_FREE);
			atomic_fetch_add(&r->head->pool.freed, 1); /* searches that saw these pages taken may look again */
			return false;
		}
	*run = (struct run){ .page = page, .generation = generation, .pages = n };
	add(&r->head->pool.used_pages, n);
	/* the run is ours before its bytes change: readers of what was here re-read the map after they copied */
	atomic_thread_fence(memory_order_seq_cst);
	return true;
}

static bool claim_hint(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t newest = load(&r->head->pool.hint_head), blocked;

	for (unsigned int i = 1; i <= 16; i++) {
		_Atomic uint64_t *cell = &r->head->hints[(newest - i) % LAY_HINTS];
		uint64_t hint = load(cell), page = hint >> 18;
		uint32_t pages = hint & LAY_RUN_MAX;

		if (!hint || pages < n || page >= limit || n > limit - page || !swap(cell, hint, 0))
			continue;
		if (!try_claim(pool, page, n, run, &blocked))
			continue;
		if (pages > n)
			hint_push(r, page + n, pages - n);
		return true;
	}
	return false;
}

static bool claim_scan(struct speckv_pool *pool, uint64_t from, uint64_t to, uint32_t n, struct run *run)
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

			while (free_run < n && load_relaxed(&r->page_map[page + free_run]) == LAY_FREE)
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

/* Counts are made after the fact, each by its own process: one that is taken off before it is put on shows as below nothing. */
static bool beyond(_Atomic uint64_t *used, uint32_t n, uint64_t quota)
{
	uint64_t now = load_relaxed(used);

	return (int64_t)now > 0 && now + n > quota;
}

static bool claim_somewhere(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t cursor, freed_before = load(&r->head->pool.freed);

	if (n > limit)
		return false;
	if (claim_hint(pool, n, run, limit))
		return true;
	/* a cache that counts as full evicts without a search; one that keeps its blocks makes sure */
	if (load_relaxed(&r->head->pool.eviction) == SPECKV_EVICT_LRU && limit == load_relaxed(&r->pages) && beyond(&r->head->pool.used_pages, n, limit))
		return false;
	if (load(&pool->failed_freed) == freed_before && load(&pool->failed_run) <= n)
		return false;
	cursor = load_relaxed(&pool->client->cursor);
	if (cursor >= limit)
		cursor = 0;
	if (claim_scan(pool, cursor, limit, n, run) || claim_scan(pool, 0, cursor + n < limit ? cursor + n : limit, n, run))
		return true;
	store(&pool->failed_run, n);
	store(&pool->failed_freed, freed_before);
	return false;
}

/* ---- room for a claim -------------------------------------------------------------------------------------------------- */

/* Is there room below the quota, made if the policy allows it? */
static bool make_way(struct speckv_pool *pool, _Atomic uint64_t *used, uint32_t n, uint64_t quota, uint64_t limit, int tenant)
{
	bool evict = load_relaxed(&pool->region.head->pool.eviction) == SPECKV_EVICT_LRU;

	if (n > quota)
		return false;
	for (unsigned int tries = 0, lost = 0; beyond(used, n, quota); tries++) {
		enum evicted result = evict && tries < QUOTA_TRIES ? evict_one(pool, limit, tenant) : EVICT_NONE;

		lost = result == EVICT_LOST ? lost + 1 : 0;
		if (result == EVICT_NONE || lost > LOST_TRIES)
			return false;
	}
	return true;
}

static bool within_quotas(struct speckv_pool *pool, uint32_t n, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t quota = load_relaxed(&r->head->pool.quota_pages), tenant_quota = load_relaxed(&r->head->pool.tenant_quota_pages);

	return (!tenant_quota || make_way(pool, &pool->tenant->used_pages, n, tenant_quota, limit, (int)pool->tenant_index)) &&
	       (!quota || quota >= limit || make_way(pool, &r->head->pool.used_pages, n, quota, limit, -1));
}

/* A full cache evicts at every put: looking for the dead costs system calls, and is done once a second. */
static bool reap_due(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->reaped_ns), now = clock_ns();

	return now - last > 1000000000u && atomic_compare_exchange_strong(&pool->reaped_ns, &last, now);
}

static uint64_t claim_limit(struct speckv_pool *pool, uint64_t below)
{
	struct region *r = &pool->region;
	uint64_t limit = region_pages(r), shrinking = load_relaxed(&r->head->pool.claim_limit);

	if (shrinking && !below && resize_abandoned(pool)) {
		limit = region_pages(r);
		shrinking = load(&r->head->pool.claim_limit);
	}
	if (shrinking && shrinking < limit)
		limit = shrinking;
	return below && below < limit ? below : limit;
}

static int claim(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t below)
{
	struct region *r = &pool->region;
	uint64_t limit = claim_limit(pool, below);
	bool lru = load_relaxed(&r->head->pool.eviction) == SPECKV_EVICT_LRU && !below, reaped = false;

	if (n < r->min_run)
		n = r->min_run;
	if (n > LAY_RUN_MAX)
		return -EINVAL;
	if (!below && !within_quotas(pool, n, limit)) {
		if (!reap_due(pool))
			return -EDQUOT;
		clients_reap(pool, NULL); /* the dead count too, and so does what they miscounted */
		pages_recount(r);
		if (!within_quotas(pool, n, limit))
			return -EDQUOT;
	}
	for (unsigned int tries = 0; tries <= EVICT_TRIES; tries++) {
		if (claim_somewhere(pool, n, run, limit)) {
			if (__builtin_expect(!region_stale(r), 1))
				return 0;
			/* resized since we looked: on a single inode these pages may lie elsewhere by now */
			pages_release(r, pool->owner, run);
			limit = claim_limit(pool, below);
			continue;
		}
		if (!reaped && (!lru || reap_due(pool))) { /* clients that died may hold what is missing */
			reaped = true;
			if (clients_reap(pool, NULL) > 0)
				continue;
		}
		if (!lru && n <= limit && tries < 3 && load(&pool->failed_freed) != load(&r->head->pool.freed))
			continue; /* something was given back while we looked */
		if (!lru || n > limit)
			break;
		if (pages_evict(pool, n, limit, ~0ull) == EVICT_NONE && tries > 8)
			break;
	}
	return -ENOSPC;
}

int pages_claim(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t below)
{
	uint64_t failed = load_relaxed(&pool->region.flushes_failed);
	int rc = claim(pool, n, run, below);

	/* full, perhaps, only because no block could be evicted */
	return (rc == -ENOSPC || rc == -EDQUOT) && load_relaxed(&pool->region.flushes_failed) != failed ? -EIO : rc;
}

bool pages_claim_at(struct speckv_pool *pool, uint64_t page, uint32_t n, struct run *run)
{
	uint64_t blocked;

	return try_claim(pool, page, n, run, &blocked);
}

/* ---- after the claim ----------------------------------------------------------------------------------------------- */

void pages_trim(struct speckv_pool *pool, struct run *run, uint32_t pages)
{
	struct region *r = &pool->region;

	if (pages < r->min_run)
		pages = r->min_run;
	if (pages >= run->pages)
		return;
	release_tail(r, run->page, run->generation, pages, run->pages);
	if (load_relaxed(&pool->client->cursor) == run->page + run->pages) { /* go on where the frame ends: no gap, no hint */
		store_relaxed(&pool->client->cursor, run->page + pages);
		sub(&r->head->pool.used_pages, run->pages - pages);
		atomic_fetch_add(&r->head->pool.freed, 1);
	} else {
		freed(r, run->page + pages, run->pages - pages);
	}
	run->pages = pages;
}

int pages_publish(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;
	int rc;

	atomic_thread_fence(memory_order_seq_cst); /* streaming stores of the payload, too, before the one store that publishes it */
	if (!swap(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation), lay_word(LAY_HEAD, run->pages, run->generation)))
		return -EOWNERDEAD;
	rc = region_flush(r, (const void *)&r->page_map[run->page], run->pages * 8ull);
	if (rc && swap(&r->page_map[run->page], lay_word(LAY_HEAD, run->pages, run->generation), lay_word(LAY_CLAIMED, pool->owner, run->generation)))
		pages_release(r, pool->owner, run);
	return rc;
}

bool pages_unpublish(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;

	if (!swap(&r->page_map[run->page], lay_word(LAY_HEAD, run->pages, run->generation), lay_word(LAY_CLAIMED, pool->owner, run->generation)))
		return false;
	if (!region_flush(r, (const void *)&r->page_map[run->page], 8))
		return true;
	swap(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation), lay_word(LAY_HEAD, run->pages, run->generation));
	return false;
}

int move_begin(struct speckv_pool *pool, const struct found *from, const struct run *to)
{
	struct region *r = &pool->region;
	struct lay_client *client = pool->client;

	store(&client->move_from, from->page);
	store(&client->move_from_generation, from->generation);
	store(&client->move_to, to->page);
	store(&client->move_to_generation, to->generation);
	/* what settles a death in the middle needs both: the note, and the claim of the copy's whole run */
	return region_flush(r, client, sizeof(*client)) || region_flush(r, (const void *)&r->page_map[to->page], to->pages * 8ull) ? -EIO : 0;
}

int move_settle(struct speckv_pool *pool, const struct run *from, const struct run *to)
{
	struct region *r = &pool->region;

	if (!region_flush(r, (const void *)&r->page_map[to->page], to->pages * 8ull) && !region_flush(r, (const void *)&r->page_map[from->page], 8))
		return 0;
	if (!swap(&r->page_map[to->page], lay_word(LAY_HEAD, to->pages, to->generation), lay_word(LAY_CLAIMED, pool->owner, to->generation)))
		return 0; /* dropped meanwhile: there is nothing to keep */
	swap(&r->page_map[from->page], lay_word(LAY_CLAIMED, pool->owner, from->generation), lay_word(LAY_HEAD, from->pages, from->generation));
	return -EIO;
}

void move_end(struct speckv_pool *pool)
{
	store(&pool->client->move_to_generation, 0);
}

bool pages_switch(struct speckv_pool *pool, const struct run *from, const struct run *to)
{
	struct region *r = &pool->region;

	atomic_thread_fence(memory_order_seq_cst);
	if (!swap(&r->page_map[from->page], lay_word(LAY_HEAD, from->pages, from->generation), lay_word(LAY_CLAIMED, pool->owner, from->generation)))
		return false;
	/* flushed in move_settle(): readers wait meanwhile */
	if (swap(&r->page_map[to->page], lay_word(LAY_CLAIMED, pool->owner, to->generation), lay_word(LAY_HEAD, to->pages, to->generation)) ||
	    load(&r->page_map[to->page]) == lay_word(LAY_HEAD, to->pages, to->generation))
		return true;
	swap(&r->page_map[from->page], lay_word(LAY_CLAIMED, pool->owner, from->generation), lay_word(LAY_HEAD, from->pages, from->generation));
	return false; /* this process was taken for dead, and its copy given back */
}

void pages_release(struct region *r, uint32_t owner, const struct run *run)
{
	release_tail(r, run->page, run->generation, 1, run->pages);
	if (swap(&r->page_map[run->page], lay_word(LAY_CLAIMED, owner, run->generation), LAY_FREE))
		freed(r, run->page, run->pages);
}

void pages_retire(struct speckv_pool *pool, const struct run *run)
{
	struct region *r = &pool->region;
	char size[32];

	for (uint32_t i = run->pages; --i > 0;)
		swap(&r->page_map[run->page + i], lay_word(LAY_CONT, i, run->generation), LAY_RETIRED);
	if (swap(&r->page_map[run->page], lay_word(LAY_CLAIMED, pool->owner, run->generation), LAY_RETIRED))
		sub(&r->head->pool.used_pages, run->pages);
	pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR, "memory of the card went bad: %s at page %llu are not used any more",
		   human(size, (uint64_t)run->pages * r->page_bytes), (unsigned long long)run->page);
}

/* ---- counting ------------------------------------------------------------------------------------------------------ */

void pages_census(struct region *r, struct page_census *census)
{
	uint64_t pages = region_pages(r);

	memset(census, 0, sizeof(*census));
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&r->page_map[p]), run = 1;

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
			if (load(&entry->generation) == lay_generation(word))
				census->stored_bytes += load_relaxed(&entry->frame_bytes);
			break;
		}
		case LAY_CLAIMED:
			while (p + run < pages && load(&r->page_map[p + run]) == lay_word(LAY_CONT, run, lay_generation(word)))
				run++;
			census->claimed += run;
			census->claimed_by[lay_value(word) >> 12] += run;
			break;
		default:
			/* its run was trimmed, freed or moved while we looked, or it is a leak: check.c tells them apart */
			census->orphan++;
		}
		p += run;
	}
}

/* Bring the hints back in line with the page map, after clients died between a swap and its count. */
void pages_recount(struct region *r)
{
	uint64_t used[LAY_TENANTS] = { 0 }, blocks[LAY_TENANTS] = { 0 }, all = 0, pages = region_pages(r);

	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&r->page_map[p]), run = 1;

		if (lay_state(word) == LAY_HEAD && lay_value(word) && lay_value(word) <= pages - p) {
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
	store(&r->head->pool.used_pages, all);
	for (int t = 0; t < LAY_TENANTS; t++)
		if (load(&r->head->tenants[t].state) == 2) {
			store(&r->head->tenants[t].used_pages, used[t]);
			store(&r->head->tenants[t].blocks, blocks[t]);
		}
}

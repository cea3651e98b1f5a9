// SPDX-License-Identifier: MIT
/*
 * Choice of blocks to evict: the least recently used leaf of the prefix tree, from a sample. A
 * block with stored children is kept, as no prefix look-up reaches them without it; the end of its
 * chain is evicted in its place.
 *
 * Random places are sampled, the oldest first (approximated LRU, as in Redis). A sample with
 * children is followed down to a leaf, which is judged by its own last use. Two links lead to
 * leaves without a search: to the parent of the last block evicted, now perhaps a leaf, and to the
 * last block put without its parent, unreachable by prefix. All links are hints. If none leads to a
 * leaf, the oldest sample is evicted, and its children are followed first the next time.
 */
#include "pool.h"

#define EVICT_TRIES 64
#define QUOTA_TRIES 4096
#define LOST_TRIES 8 /* in a row */

#define DRAWS 32 /* places drawn for one sample */
#define SAMPLES 16
#define DESCENTS 2 /* chains followed for one eviction */
#define STEPS 1024 /* blocks looked at in them */
#define WINDOW_STEPS 4096

#define NO_PAGE UINT64_MAX

/* Whole blocks and free pages in a row. used: the latest use of any, at least 1. */
struct window {
	uint64_t start, end, used;
};

struct search {
	struct region *r;
	uint32_t n;
	uint64_t limit;
	int tenant; /* below 0: any */
	unsigned int descents, steps;
	bool found, cut;
	struct window best; /* of those without a child outside */
	struct window worst; /* oldest window with a child outside: the last resort */
};

static uint64_t next_random(void)
{
	static _Thread_local uint64_t state;

	if (!state)
		state = clock_ns() ^ (uintptr_t)&state << 20 ^ 0x9e3779b97f4a7c15ull;
	state ^= state << 13; /* xorshift64 (Marsaglia 2003) */
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/*
 * The window that starts at or before `page`, holds n pages and does not end before `reach`. The
 * block at `unreachable` counts as unused.
 */
static bool window_at(struct region *r, uint64_t page, uint32_t n, uint64_t reach, uint64_t limit,
	uint64_t unreachable, struct window *window)
{
	uint64_t word = load_acquire(&r->page_map[page]), at;
	unsigned int steps = 0;

	if (lay_state(word) == LAY_CONT) {
		if (lay_value(word) > page)
			return false;
		page -= lay_value(word);
	}
	window->start = page;
	window->used = 1;
	for (at = page; at < page + n || at < reach; steps++) {
		word = at < limit && steps < WINDOW_STEPS ? load_acquire(&r->page_map[at])
							  : LAY_RETIRED;
		if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			uint64_t used = load_relaxed(&r->entries[region_entry_of(r, at)].used);

			if (at != unreachable && used > window->used)
				window->used = used;
			at += lay_value(word);
		} else if (word == LAY_FREE) {
			at++;
		} else {
			return false;
		}
	}
	window->end = at;
	return at <= limit;
}

/* Find a block of the window with a child outside of it. */
static bool leaves_child(const struct search *s, const struct window *window, uint64_t *page)
{
	struct region *r = s->r;
	uint64_t child;

	for (uint64_t at = window->start; at < window->end;) {
		uint64_t word = load_relaxed(&r->page_map[at]);

		if (lay_state(word) != LAY_HEAD || !lay_value(word)) {
			at++;
			continue;
		}
		if (index_child(r, region_entry_of(r, at), window->start, window->end, -1,
			    &child)) {
			*page = at;
			return true;
		}
		at += lay_value(word);
	}
	return false;
}

static void consider(struct search *s, const struct window *window)
{
	uint64_t page;

	if (leaves_child(s, window, &page)) {
		if (!s->cut || window->used < s->worst.used)
			s->worst = *window;
		s->cut = true;
	} else if (!s->found || window->used < s->best.used) {
		s->best = *window;
		s->found = true;
	}
}

/*
 * Consider the windows that begin and end with the block at `page`: the blocks beside the end of a
 * chain are mostly its predecessors.
 */
static void consider_around(struct search *s, uint64_t page, bool unreachable)
{
	uint64_t word = load_acquire(&s->r->page_map[page]), end = page + lay_value(word),
		 unused = unreachable ? page : NO_PAGE;
	struct window window;

	if (lay_state(word) != LAY_HEAD || !lay_value(word) || end > s->limit)
		return;
	if (window_at(s->r, page, s->n, end, s->limit, unused, &window))
		consider(s, &window);
	if (end - page < s->n && end >= s->n &&
		window_at(s->r, end - s->n, s->n, end, s->limit, unused, &window))
		consider(s, &window);
}

/* Follow a chain from the block at `page` to a leaf, through blocks of the tenant. */
static void descend(struct search *s, uint64_t page, bool unreachable)
{
	uint64_t child;

	while (s->steps &&
		index_child(s->r, region_entry_of(s->r, page), 0, 0, s->tenant, &child) &&
		child < s->limit) {
		page = child;
		s->steps--;
	}
	consider_around(s, page, unreachable);
}

static void add_sample(struct window *samples, size_t *count, const struct window *window)
{
	size_t at = (*count)++;

	for (; at && samples[at - 1].used > window->used; at--)
		samples[at] = samples[at - 1];
	samples[at] = *window;
}

/* Is this page part of a block of the tenant (below 0: of any)? */
static bool block_around(const struct search *s, uint64_t page)
{
	struct region *r = s->r;
	uint64_t word = load_relaxed(&r->page_map[page]);

	if (lay_state(word) == LAY_CONT && lay_value(word) <= page) {
		page -= lay_value(word);
		word = load_relaxed(&r->page_map[page]);
	}
	return lay_state(word) == LAY_HEAD && lay_value(word) &&
		(s->tenant < 0 ||
			load_relaxed(&r->entries[region_entry_of(r, page)].tenant) ==
				(uint32_t)s->tenant);
}

/*
 * A window at a random place. `block`: of one block of the tenant. Drawn again rather than searched
 * for, as a search would favour blocks behind free pages; the search from the last place is for a
 * tenant with very few blocks.
 */
static bool take_sample(const struct search *s, bool block, uint64_t *budget, struct window *window)
{
	struct region *r = s->r;
	uint64_t page = next_random() % s->limit;

	if (!block)
		return window_at(r, page, s->n, 0, s->limit, NO_PAGE, window);
	for (unsigned int draws = 1; draws < DRAWS && !block_around(s, page); draws++)
		page = next_random() % s->limit;
	for (; *budget; --*budget) {
		uint64_t word = load_relaxed(&r->page_map[page]);

		if (block_around(s, page))
			return window_at(r, page, 1, 0, s->limit, NO_PAGE, window);
		page += lay_state(word) == LAY_HEAD && lay_value(word) ? lay_value(word) : 1;
		if (page >= s->limit)
			page = 0;
	}
	return false;
}

/* Choose one block (n is 1) or a window of n pages; the result is s->best. */
static bool choose(struct speckv_pool *pool, struct search *s, bool block)
{
	_Atomic uint64_t *hints[] = { &pool->evict_orphan, &pool->evict_parent };
	struct region *r = s->r;
	struct window samples[SAMPLES];
	uint64_t budget = 2 * s->limit, page;
	size_t count = 0;

	if (!s->limit)
		return false;
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t link = load_relaxed(hints[i]);
		struct lay_entry *e;

		if (!link)
			continue;
		if (!index_link_page(r, link, &page) || page >= s->limit) {
			store_relaxed(hints[i], 0);
			continue;
		}
		e = &r->entries[region_entry_of(r, page)];
		if (s->tenant >= 0 && load_relaxed(&e->tenant) != (uint32_t)s->tenant)
			continue;
		if (!load_relaxed(&e->used))
			descend(s, page, true);
		else
			consider_around(s, page, false);
	}
	if (s->found && s->best.used == 1)
		return true;
	for (unsigned int i = 0; i < SAMPLES; i++) {
		struct window window;

		if (take_sample(s, block, &budget, &window))
			add_sample(samples, &count, &window);
	}
	for (size_t i = 0; i < count && !(s->found && s->best.used <= samples[i].used); i++) {
		if (!leaves_child(s, &samples[i], &page)) {
			s->best = samples[i];
			s->found = true;
		} else if (s->descents) {
			s->descents--;
			descend(s, page, samples[i].used == 1);
		}
	}
	if (!s->found && (s->cut || count)) {
		s->best = s->cut ? s->worst : samples[0];
		s->found = true;
	}
	return s->found;
}

static enum evicted evict_run(struct speckv_pool *pool, uint64_t page)
{
	struct region *r = &pool->region;
	struct speckv_key key;
	struct block_ref found;
	uint64_t parent, children;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page)
		return EVICT_LOST;
	parent = index_parent(r, &found);
	children = load_relaxed(&r->entries[found.entry].first_child);
	if (!block_drop(pool, &key, &found))
		return load_acquire(&r->page_map[page]) ==
				lay_word(LAY_HEAD, found.pages, found.generation)
			? EVICT_NONE
			: EVICT_LOST;
	if (parent)
		store_relaxed(&pool->evict_parent, parent);
	if (children && index_abandon(r, children))
		store_relaxed(&pool->evict_orphan, children);
	count(pool, SPECKV_COUNT_EVICTIONS, 1);
	if (found.tenant < LAY_TENANTS)
		add_relaxed(&r->head->tenants[found.tenant].evicted, 1);
	return EVICT_DONE;
}

void evict_orphan(struct speckv_pool *pool, const struct block_ref *found)
{
	store_relaxed(&pool->region.entries[found->entry].used, 0);
	store_relaxed(&pool->evict_orphan, index_link(found));
}

enum evicted pages_evict(struct speckv_pool *pool, uint32_t n, uint64_t limit, uint64_t older_than)
{
	struct region *r = &pool->region;
	struct search search = {
		.r = r, .n = n, .limit = limit, .tenant = -1, .descents = DESCENTS, .steps = STEPS
	};
	const struct window *best = &search.best;
	bool dropped = false, free = true, lost = false;

	if (!choose(pool, &search, false) || best->used >= older_than)
		return EVICT_NONE;
	for (uint64_t at = best->start; at < best->end;) {
		uint64_t word = load_acquire(&r->page_map[at]);
		enum evicted result;

		if (lay_state(word) != LAY_HEAD || !lay_value(word)) {
			at++;
			continue;
		}
		free = false;
		result = evict_run(pool, at);
		dropped |= result == EVICT_DONE;
		lost |= result == EVICT_LOST;
		at += lay_value(word);
	}
	/* hint: the whole window as one run */
	if ((dropped || free) && best->end - best->start <= LAY_RUN_MAX)
		pages_hint_push(r, best->start, (uint32_t)(best->end - best->start));
	return dropped || free ? EVICT_DONE : lost ? EVICT_LOST : EVICT_NONE;
}

enum evicted evict_one(struct speckv_pool *pool, uint64_t limit, int tenant)
{
	struct search search = { .r = &pool->region,
		.n = 1,
		.limit = limit,
		.tenant = tenant,
		.descents = DESCENTS,
		.steps = STEPS };

	return choose(pool, &search, true) ? evict_run(pool, search.best.start) : EVICT_NONE;
}

/*
 * Counters are updated after the page map, by several processes: a subtraction may come before its
 * addition, and the count go below zero.
 */
static bool beyond(_Atomic uint64_t *used, uint32_t n, uint64_t quota)
{
	uint64_t now = load_relaxed(used);

	return (int64_t)now > 0 && now + n > quota;
}

static bool claim_somewhere(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t cursor, freed_before = load_acquire(&r->head->pool.freed);

	if (n > limit)
		return false;
	if (pages_claim_hint(pool, n, run, limit))
		return true;
	/* full by count: with LRU evict without a search; without eviction, search */
	if (load_relaxed(&r->head->pool.eviction) == SPECKV_EVICT_LRU &&
		limit == load_relaxed(&r->pages) && beyond(&r->head->pool.used_pages, n, limit))
		return false;
	if (load_acquire(&pool->failed_freed) == freed_before &&
		load_acquire(&pool->failed_run) <= n)
		return false;
	cursor = load_relaxed(&pool->client->cursor);
	if (cursor >= limit)
		cursor = 0;
	if (pages_claim_scan(pool, cursor, limit, n, run) ||
		pages_claim_scan(pool, 0, cursor + n < limit ? cursor + n : limit, n, run))
		return true;
	store_release(&pool->failed_run, n);
	store_release(&pool->failed_freed, freed_before);
	return false;
}

/* Make room below the quota, by eviction where the policy allows it. False: none. */
static bool make_way(struct speckv_pool *pool, _Atomic uint64_t *used, uint32_t n, uint64_t quota,
	uint64_t limit, int tenant)
{
	bool evict = load_relaxed(&pool->region.head->pool.eviction) == SPECKV_EVICT_LRU;

	if (n > quota)
		return false;
	for (unsigned int tries = 0, lost = 0; beyond(used, n, quota); tries++) {
		enum evicted result = evict && tries < QUOTA_TRIES ? evict_one(pool, limit, tenant)
								   : EVICT_NONE;

		lost = result == EVICT_LOST ? lost + 1 : 0;
		if (result == EVICT_NONE || lost > LOST_TRIES)
			return false;
	}
	return true;
}

static bool within_quotas(struct speckv_pool *pool, uint32_t n, uint64_t limit)
{
	struct region *r = &pool->region;
	uint64_t quota = load_relaxed(&r->head->pool.quota_pages),
		 tenant_quota = load_relaxed(&r->head->pool.tenant_quota_pages);

	return (!tenant_quota ||
		       make_way(pool, &pool->tenant->used_pages, n, tenant_quota, limit,
			       (int)pool->tenant_index)) &&
		(!quota || quota >= limit ||
			make_way(pool, &r->head->pool.used_pages, n, quota, limit, -1));
}

/*
 * A full cache evicts at every put, and a check for dead clients makes system calls: at most once a
 * second.
 */
static bool reap_due(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->reaped_ns), now = clock_ns();

	return now - last > 1000000000u &&
		atomic_compare_exchange_strong(&pool->reaped_ns, &last, now);
}

static uint64_t claim_limit(struct speckv_pool *pool, uint64_t below)
{
	struct region *r = &pool->region;
	uint64_t limit = region_pages(r), shrinking = load_relaxed(&r->head->pool.claim_limit);

	if (shrinking && !below && resize_abandoned(pool)) {
		limit = region_pages(r);
		shrinking = load_acquire(&r->head->pool.claim_limit);
	}
	if (shrinking && shrinking < limit)
		limit = shrinking;
	return below && below < limit ? below : limit;
}

static int claim_run(struct speckv_pool *pool, uint32_t n, struct run *run, uint64_t below)
{
	struct region *r = &pool->region;
	uint64_t limit = claim_limit(pool, below);
	bool lru = load_relaxed(&r->head->pool.eviction) == SPECKV_EVICT_LRU && !below,
	     reaped = false;

	if (n < r->min_run)
		n = r->min_run;
	if (n > LAY_RUN_MAX)
		return -EINVAL;
	if (!below && !within_quotas(pool, n, limit)) {
		if (!reap_due(pool))
			return -EDQUOT;
		/* dead clients' pages count too, and their counts may be off */
		clients_reap(pool, NULL);
		pages_recount(r);
		if (!within_quotas(pool, n, limit))
			return -EDQUOT;
	}
	for (unsigned int tries = 0; tries <= EVICT_TRIES; tries++) {
		if (claim_somewhere(pool, n, run, limit)) {
			if (__builtin_expect(!region_stale(r), 1))
				return 0;
			/* resized meanwhile: on a single inode these pages may have moved */
			pages_release(r, pool->owner, run);
			limit = claim_limit(pool, below);
			continue;
		}
		if (!reaped && (!lru || reap_due(pool))) {
			/* dead clients may hold pages */
			reaped = true;
			if (clients_reap(pool, NULL) > 0)
				continue;
		}
		if (!lru && n <= limit && tries < 3 &&
			load_acquire(&pool->failed_freed) != load_acquire(&r->head->pool.freed))
			continue; /* something was freed meanwhile */
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
	int rc = claim_run(pool, n, run, below);

	/* perhaps full only because an eviction could not be flushed */
	return (rc == -ENOSPC || rc == -EDQUOT) &&
			load_relaxed(&pool->region.flushes_failed) != failed
		? -EIO
		: rc;
}

// SPDX-License-Identifier: MIT
/*
 * Planning a shrink: wait for claims above the new end, then find a place below it for each block.
 */
#include <stdlib.h>

#include "resize.h"

int busy_above(struct job *job, uint64_t word)
{
	struct region *r = &job->pool->region;
	struct lay_client *client = &r->head->clients[lay_value(word) >> 12];
	char command[64];

	memcpy(command, client->command, sizeof(command));
	command[63] = 0;
	return fail(job->dev->ctx, -EBUSY,
		"pool %s cannot shrink: pid %u (%s) holds an allocation above the new end; try again when it is freed",
		job->name, client->pid, command);
}

/* In a dry run: does this run belong to a dead client? (A real run reaps those first.) */
static bool dead_claim(struct job *job, uint64_t word)
{
	struct region *r = &job->pool->region;
	unsigned int slot = lay_value(word) >> 12;
	uint64_t state;

	if (!job->dry_run || lay_state(word) != LAY_CLAIMED)
		return false;
	state = load_acquire(&r->head->clients[slot].state);
	return state & 1 && lay_owner(slot, state >> 8) == lay_value(word) &&
		!client_alive(r, slot);
}

/* Pages from this one on that are free, or will be before the first block moves. */
static uint64_t free_from(struct job *job, uint64_t page, uint64_t end)
{
	struct region *r = &job->pool->region;
	uint64_t word = load_acquire(&r->page_map[page]),
		 limit = load_acquire(&r->head->pool.claim_limit), n = 1;

	if (word == LAY_FREE || (word == LAY_RETIRED && job->undone && limit && page >= limit))
		return 1;
	if (!dead_claim(job, word))
		return 0;
	while (page + n < end &&
		load_acquire(&r->page_map[page + n]) == lay_word(LAY_CONT, n, lay_generation(word)))
		n++;
	return n;
}

/* The first page that must be emptied. */
static uint64_t first_to_move(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t first = pages_first_above(r, job->to);

	return dead_claim(job, load_acquire(&r->page_map[first])) ? job->to : first;
}

int claims_end(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t patience = clock_ns() + PATIENCE_NS, word;

	for (;; nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL)) {
		word = 0;
		for (uint64_t p = pages_first_above(r, job->to); p < job->from && !word; p++) {
			word = load_acquire(&r->page_map[p]);
			if (lay_state(word) != LAY_CLAIMED || dead_claim(job, word))
				word = 0;
		}
		if (!word)
			return 0;
		if (!job->dry_run)
			clients_reap(job->pool, NULL);
		if (clock_ns() > patience)
			return busy_above(job, word);
	}
}

/*
 * Free runs, by length, for a best-fit search: lists per length, and a two-level bitmap of those in
 * use. Lengths above LAY_RUN_MAX count as that.
 */
struct gaps {
	uint64_t *page, *pages;
	uint32_t *next, head[LAY_RUN_MAX + 1];
	uint64_t filled[(LAY_RUN_MAX + 64) / 64], summary[(LAY_RUN_MAX / 64 + 64) / 64];
};

static void gap_put(struct gaps *g, uint32_t gap)
{
	uint32_t length = g->pages[gap] < LAY_RUN_MAX ? (uint32_t)g->pages[gap] : LAY_RUN_MAX;

	g->next[gap] = g->head[length];
	g->head[length] = gap + 1;
	g->filled[length / 64] |= 1ull << length % 64;
	g->summary[length / 4096] |= 1ull << length / 64 % 64;
}

static struct gaps *gaps_free(struct gaps *g)
{
	if (g) {
		free(g->page);
		free(g->pages);
		free(g->next);
	}
	free(g);
	return NULL;
}

/* First set bit at or after `from` in n words; SIZE_MAX: none. */
static size_t bit_from(const uint64_t *words, size_t n, size_t from)
{
	for (size_t w = from / 64; w < n; w++) {
		uint64_t word = words[w] & (w == from / 64 ? ~0ull << from % 64 : ~0ull);

		if (word)
			return w * 64 + (size_t)__builtin_ctzll(word);
	}
	return SIZE_MAX;
}

/* Take pages from the shortest gap that fits. False: none. */
static bool gap_take(struct gaps *g, uint32_t pages, uint64_t *page)
{
	size_t words = sizeof(g->filled) / 8, length = bit_from(g->filled, pages / 64 + 1, pages),
	       word;
	uint32_t gap;

	if (length == SIZE_MAX) {
		word = bit_from(g->summary, sizeof(g->summary) / 8, pages / 64 + 1);
		length = word == SIZE_MAX ? SIZE_MAX : bit_from(g->filled, words, word * 64);
	}
	if (length == SIZE_MAX || !g->page)
		return false;
	gap = g->head[length] - 1;
	g->head[length] = g->next[gap];
	if (!g->head[length]) {
		g->filled[length / 64] &= ~(1ull << length % 64);
		if (!g->filled[length / 64])
			g->summary[length / 4096] &= ~(1ull << length / 64 % 64);
	}
	*page = g->page[gap];
	g->page[gap] += pages;
	g->pages[gap] -= pages;
	if (g->pages[gap])
		gap_put(g, gap);
	return true;
}

static int longest_first(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->pages != y->pages ? (x->pages < y->pages) - (x->pages > y->pages)
				    : (x->page > y->page) - (x->page < y->page);
}

/* Grow an array for one more element. */
static bool room_for_one(void *array, size_t n, size_t *room, size_t size)
{
	void *more;

	if (n < *room)
		return true;
	more = realloc(*(void **)array, (*room ? *room * 2 : 1024) * size);
	if (!more)
		return false;
	*room = *room ? *room * 2 : 1024;
	*(void **)array = more;
	return true;
}

/* Collect the free runs below `end`. */
static struct gaps *gaps_below(struct job *job, uint64_t end, uint64_t *free_pages)
{
	struct gaps *g = calloc(1, sizeof(*g));
	size_t room = 0, room_too = 0, n = 0;
	bool open = false, ok = g != NULL;

	*free_pages = 0;
	for (uint64_t p = 0, run; p < end && ok; p += run ? run : 1) {
		run = free_from(job, p, end);
		*free_pages += run;
		if (run && open) {
			g->pages[n - 1] += run;
		} else if (run) {
			ok = n < UINT32_MAX - 1 &&
				room_for_one(&g->page, n, &room, sizeof(*g->page)) &&
				room_for_one(&g->pages, n, &room_too, sizeof(*g->pages));
			if (ok) {
				g->page[n] = p;
				g->pages[n++] = run;
			}
		}
		open = run != 0;
	}
	if (ok)
		g->next = calloc(n + 1, sizeof(*g->next));
	for (uint32_t i = 0; ok && g->next && i < n; i++)
		gap_put(g, i);
	if (ok && g->next)
		return g;
	return gaps_free(g);
}

int places_below(struct job *job, struct place **places, size_t *n)
{
	struct region *r = &job->pool->region;
	uint64_t first = first_to_move(job), room, need = 0;
	struct gaps *gaps = NULL;
	size_t space = 0;
	char a[32], b[32];
	bool all = true;

	*places = NULL;
	*n = 0;
	if (job->evict)
		return 0;
	gaps = gaps_below(job, first, &room);
	for (uint64_t p = first; p < job->from && gaps;) {
		uint64_t word = load_acquire(&r->page_map[p]);
		uint32_t pages = lay_state(word) == LAY_HEAD ? lay_value(word) : 0;

		if (pages && !room_for_one(places, *n, &space, sizeof(**places)))
			gaps = gaps_free(gaps);
		else if (pages)
			(*places)[(*n)++] = (struct place){ .page = p, .pages = pages };
		need += pages;
		p += pages ? pages : 1;
	}
	if (!gaps)
		return fail(job->dev->ctx, -ENOMEM, "out of memory");
	if (*n)
		qsort(*places, *n, sizeof(**places), longest_first);
	for (size_t i = 0; i < *n && all; i++)
		all = gap_take(gaps, (*places)[i].pages, &(*places)[i].to);
	gaps_free(gaps);
	if (all)
		return 0;
	if (need > room)
		return fail(job->dev->ctx, -ENOSPC,
			"pool %s holds more than %s of blocks; drop some, or evict the least recently used: --evict",
			job->name, human(a, job->to * r->page_bytes));
	return fail(job->dev->ctx, -ENOSPC,
		"pool %s holds more blocks than fit below %s, where %s are free in pieces too short for them; drop some, or evict the least recently used: --evict",
		job->name, human(a, job->to * r->page_bytes), human(b, room * r->page_bytes));
}

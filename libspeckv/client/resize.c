// SPDX-License-Identifier: MIT
/*
 * Resizing a pool in use. Growing adds backing, then publishes the new end. Shrinking retires the free pages above the new
 * end (so that no client can claim them), moves or drops the blocks there, publishes the new end, and gives the memory back.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define PATIENCE_NS 2000000000ull /* without getting on */
#define PUBLISH_TRIES 100

struct job {
	struct speckv_device *dev;
	struct speckv_pool *pool;
	const char *name;
	uint64_t from, to; /* pages */
	bool evict, dry_run;
	bool undone; /* a dead manager left a shrink, which is undone before this one begins: dry runs reckon with it */
	bool held; /* the claim to the size */
	speckv_progress_cb progress;
	void *arg;
};

/* Where a run goes in a shrink. */
struct place {
	uint64_t page, to;
	uint32_t pages;
};

/* The copy's header says where it lies. -EAGAIN: it is not that block any more. */
static int copy_mapped(struct region *r, const struct found *found, const struct run *run)
{
	uint64_t room = (uint64_t)run->pages << r->page_shift;
	uint8_t *to = r->data + (run->page << r->page_shift);
	struct speckv_frame_identity identity;
	struct speckv_frame frame;
	int rc;

	memcpy(to, r->data + (found->page << r->page_shift), (uint64_t)found->pages << r->page_shift);
	rc = index_current(r, found) ? speckv_frame_parse(to, room, &frame) : -EAGAIN;
	if (!rc) {
		identity = frame.identity;
		identity.generation = run->generation;
		identity.pool_address = run->page << r->page_shift;
		rc = speckv_frame_readdress(to, room, &identity);
	}
	if (!rc)
		rc = speckv_frame_verify(to, room);
	if (!rc)
		rc = region_flush(r, to, frame.frame_bytes);
	return rc;
}

static int copy_in_card(struct region *r, const struct speckv_key *key, const struct found *found, const struct run *run)
{
	uint64_t bytes;
	int rc = card_io_copy(r, key, found, run, &bytes);

	return rc && rc != -ENODEV && rc != -EACCES && !index_current(r, found) ? -EAGAIN : rc;
}

static int not_written(struct job *job, const struct run *copy)
{
	struct region *r = &job->pool->region;

	pages_release(r, job->pool->owner, copy);
	return fail(job->dev->ctx, -EIO, "pool %s: %s cannot be written; its size is as it was", job->name, r->path);
}

/* Copy a block to a run below the new end, under its own key, and switch over. `place`: where it is to go, if that is still free. */
static int move_block(struct job *job, uint64_t page, const struct place *place)
{
	struct region *r = &job->pool->region;
	struct found found, moved;
	struct speckv_key key;
	struct run run, old;
	uint64_t failed = load(&r->flushes_failed);
	int rc;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page)
		return -EAGAIN;
	if (index_doubtful(r, &found)) {
		if (!block_drop(job->pool, &key, &found) && index_entry(r, found.entry, &moved, &key) && moved.generation == found.generation)
			return fail(job->dev->ctx, -ENODEV, "pool %s: %s does not answer", job->name, job->dev->medium.name);
		return -EAGAIN;
	}
	if (!place)
		rc = pages_claim(job->pool, found.pages, &run, job->to);
	else
		rc = found.pages <= place->pages && pages_claim_at(job->pool, place->to, found.pages, &run) ? 0 : -ENOSPC;
	if (rc)
		return rc;
	rc = r->card ? copy_in_card(r, &key, &found, &run) : copy_mapped(r, &found, &run);
	if (rc == -ENODEV || rc == -EACCES) {
		pages_release(r, job->pool->owner, &run);
		return fail(job->dev->ctx, rc, "pool %s: %s does not answer", job->name, job->dev->medium.name);
	}
	if (rc && load(&r->flushes_failed) != failed)
		return not_written(job, &run);
	if (rc) {
		pages_release(r, job->pool->owner, &run);
		if (rc != -EAGAIN) { /* it was bad where it was */
			pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR, "the block at page %llu does not verify; dropped instead of moved", (unsigned long long)page);
			block_drop(job->pool, &key, &found);
		}
		return -EAGAIN;
	}
	index_fill(r, &run, &key, load(&r->entries[found.entry].first_position), found.frame_bytes, found.raw_bytes, found.tenant,
		   load(&r->entries[found.entry].used));
	old = (struct run){ found.page, found.generation, found.pages };
	moved = (struct found){ region_entry_of(r, run.page), run.generation, run.page, run.pages, found.frame_bytes, found.raw_bytes, found.tenant };
	if (move_begin(job->pool, &found, &run)) {
		move_end(job->pool);
		store(&r->entries[moved.entry].generation, 0);
		return not_written(job, &run);
	}
	if (!pages_switch(job->pool, &old, &run)) { /* dropped meanwhile: it must not come back */
		uint64_t generation = run.generation;

		move_end(job->pool);
		atomic_compare_exchange_strong(&r->entries[moved.entry].generation, &generation, 0);
		card_io_invalidate(r, &run);
		pages_release(r, job->pool->owner, &run);
		return -EAGAIN;
	}
	rc = block_index(job->pool, &key, &run);
	if (!rc)
		index_inherit(r, &found, &moved);
	if (move_settle(job->pool, &old, &run)) {
		index_inherit(r, &moved, &found);
		move_end(job->pool);
		index_orphan(r, &moved);
		index_remove(r, &key, moved.entry, moved.generation);
		store(&r->entries[moved.entry].generation, 0);
		return not_written(job, &run);
	}
	move_end(job->pool);
	index_orphan(r, &found);
	index_remove(r, &key, found.entry, found.generation);
	store(&r->entries[found.entry].generation, 0);
	card_io_invalidate(r, &old); /* what it misses goes when the tail is cleared */
	pages_release(r, job->pool->owner, &old);
	if (rc)
		block_drop(job->pool, &key, &moved);
	return rc;
}

static int drop_block(struct job *job, uint64_t page)
{
	struct region *r = &job->pool->region;
	struct speckv_key key;
	struct found found;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page)
		return -EAGAIN;
	count(job->pool, SPECKV_COUNT_EVICTIONS, block_drop(job->pool, &key, &found));
	return 0;
}

/* Start of the run that crosses or stands above the mark first. */
static uint64_t first_above(struct region *r, uint64_t mark)
{
	uint64_t word = load(&r->page_map[mark]);

	return lay_state(word) == LAY_CONT && lay_value(word) <= mark ? mark - lay_value(word) : mark;
}

static void unretire(struct region *r, uint64_t from, uint64_t to)
{
	for (uint64_t p = from; p < to; p++) {
		uint64_t retired = LAY_RETIRED;

		atomic_compare_exchange_strong(&r->page_map[p], &retired, LAY_FREE);
	}
}

/* ---- the claim to a pool's size ------------------------------------------------------------------------------------ */

static long long resize_byte(const struct region *r)
{
	return LAY_LOCK_RESIZE(r->dev->single_inode ? r->record : 0, r->fixed.generation);
}

int resize_begin(struct region *r)
{
	return lock_byte(r->lock_fd, resize_byte(r));
}

void resize_end(struct region *r)
{
	unlock_byte(r->lock_fd, resize_byte(r));
}

void resize_undo(struct region *r)
{
	uint64_t limit = load(&r->head->pool.claim_limit);

	if (limit) /* below it stand the pages of a card whose memory went bad */
		unretire(r, limit, region_pages(r));
	store(&r->head->pool.claim_limit, 0);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
	atomic_fetch_add(&r->head->pool.freed, 1);
}

/* Did the resize that died reach the size that it was for? The record has the old one until the end. */
static bool resized(struct region *r)
{
	const struct lay_pool_record *record = &r->dev->table->pools[r->record];

	return record->capacity_bytes != region_pages(r) << r->page_shift;
}

/* It costs a system call: ten times a second at most, and only while a shrink is under way. */
bool resize_abandoned(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->shrink_seen_ns), now = clock_ns();
	struct region *r = &pool->region;
	bool undone = false;

	if (now - last < 100000000u || !atomic_compare_exchange_strong(&pool->shrink_seen_ns, &last, now))
		return false;
	pthread_mutex_lock(&r->reaping); /* threads of one descriptor do not exclude each other by its locks */
	if (!client_alive(r, LAY_SLOT_MANAGER) && resize_begin(r) == 0) {
		undone = load(&r->head->pool.claim_limit) != 0;
		if (undone) {
			resize_undo(r);
			pool_event(r, SPECKV_EVENT_RECOVERED, SPECKV_WARNING, "a resize whose manager died was %s",
				   resized(r) ? "finished" : "undone; the pool's size is as it was");
		}
		resize_end(r);
	}
	pthread_mutex_unlock(&r->reaping);
	return undone;
}

static int busy_above(struct job *job, uint64_t word)
{
	struct region *r = &job->pool->region;
	struct lay_client *client = &r->head->clients[lay_value(word) >> 12];
	char command[64];

	memcpy(command, client->command, sizeof(command));
	command[63] = 0;
	return fail(job->dev->ctx, -EBUSY, "pool %s cannot shrink: pid %u (%s) holds an allocation above the new end; try again when it is freed", job->name, client->pid,
		    command);
}

/* One pass over what stands above the mark. Returns how many pages are not retired yet, or an error. */
static int64_t empty_once(struct job *job, uint64_t *busy_word)
{
	struct region *r = &job->pool->region;
	uint64_t left = 0, told = 0;
	char a[32];

	*busy_word = 0;
	if (!job->held) /* who held it may have gone, and a client that has it takes this resize for abandoned */
		job->held = resize_begin(r) == 0;
	if (load(&r->head->pool.claim_limit) != job->to)
		store(&r->head->pool.claim_limit, job->to);
	for (uint64_t p = first_above(r, job->to); p < job->from;) {
		uint64_t word = load(&r->page_map[p]), seen = word;
		uint32_t n = 1;
		int rc;

		if (job->progress && p >= told) { /* before the first block goes, and then every so often */
			told = p + 1024;
			if (job->progress(p > job->to ? p - job->to : 0, job->from - job->to, job->arg))
				return fail(job->dev->ctx, -ECANCELED, "resize of pool %s was cancelled; its size is as it was", job->name);
		}
		if (word == LAY_FREE) {
			if (p >= job->to)
				left += !atomic_compare_exchange_strong(&r->page_map[p], &seen, LAY_RETIRED);
		} else if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			n = lay_value(word);
			rc = move_block(job, p, NULL);
			if (rc == -ENOSPC && job->evict) {
				/* keep the more recently used of the two */
				if (pages_evict(job->pool, n, job->to, load_relaxed(&r->entries[region_entry_of(r, p)].used)) == EVICT_DONE)
					rc = move_block(job, p, NULL);
				if (rc == -ENOSPC)
					rc = drop_block(job, p);
			}
			if (rc == -ENOSPC)
				return fail(job->dev->ctx, -ENOSPC, "pool %s holds more than %s of blocks; drop some, or let the least recently used go: --evict", job->name,
					    human(a, job->to * r->page_bytes));
			if (rc && rc != -EAGAIN)
				return rc;
			left += n; /* looked at again, and retired, in the next pass */
		} else if (word != LAY_RETIRED) {
			if (lay_state(word) == LAY_CLAIMED)
				*busy_word = word;
			left++;
		}
		p += n;
	}
	return (int64_t)left;
}

/* ---- before the first block moves ---------------------------------------------------------------------------------- */

/* Is this a run of a client that died? The run itself first gives its pages back where the pool is attached, and not in a dry run. */
static bool dead_claim(struct job *job, uint64_t word)
{
	struct region *r = &job->pool->region;
	unsigned int slot = lay_value(word) >> 12;
	uint64_t state;

	if (!job->dry_run || lay_state(word) != LAY_CLAIMED)
		return false;
	state = load(&r->head->clients[slot].state);
	return state & 1 && lay_owner(slot, state >> 8) == lay_value(word) && !client_alive(r, slot);
}

/* How many pages from this one on are free, or will be before the first block moves. */
static uint64_t free_from(struct job *job, uint64_t page, uint64_t end)
{
	struct region *r = &job->pool->region;
	uint64_t word = load(&r->page_map[page]), limit = load(&r->head->pool.claim_limit), n = 1;

	if (word == LAY_FREE || (word == LAY_RETIRED && job->undone && limit && page >= limit))
		return 1;
	if (!dead_claim(job, word))
		return 0;
	while (page + n < end && load(&r->page_map[page + n]) == lay_word(LAY_CONT, n, lay_generation(word)))
		n++;
	return n;
}

/* The first page that has to be empty. */
static uint64_t first_to_move(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t first = first_above(r, job->to);

	return dead_claim(job, load(&r->page_map[first])) ? job->to : first;
}

/* Pages above the mark that clients hold: puts under way end by themselves, allocations do not. 0, or -EBUSY. */
static int claims_end(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t patience = clock_ns() + PATIENCE_NS, word;

	for (;; nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL)) {
		word = 0;
		for (uint64_t p = first_above(r, job->to); p < job->from && !word; p++) {
			word = load(&r->page_map[p]);
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

/* Free runs by their length: which is the shortest that is long enough? Those above the longest run of a block count as that long. */
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

/* The first set bit at or after `from` of so many words; SIZE_MAX: none. */
static size_t bit_from(const uint64_t *words, size_t n, size_t from)
{
	for (size_t w = from / 64; w < n; w++) {
		uint64_t word = words[w] & (w == from / 64 ? ~0ull << from % 64 : ~0ull);

		if (word)
			return w * 64 + (size_t)__builtin_ctzll(word);
	}
	return SIZE_MAX;
}

/* Take the place of a run out of the shortest gap that has room for it. False: there is none. */
static bool gap_take(struct gaps *g, uint32_t pages, uint64_t *page)
{
	size_t words = sizeof(g->filled) / 8, length = bit_from(g->filled, pages / 64 + 1, pages), word;
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

	return x->pages != y->pages ? (x->pages < y->pages) - (x->pages > y->pages) : (x->page > y->page) - (x->page < y->page);
}

/* Grow an array for one more. */
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

/* The free runs below a page. */
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
			ok = n < UINT32_MAX - 1 && room_for_one(&g->page, n, &room, sizeof(*g->page)) && room_for_one(&g->pages, n, &room_too, sizeof(*g->pages));
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

/*
 * A place below the mark for each block above it: the longest first, each in the shortest free run that holds it. A shrink that does not evict
 * needs all of them, and follows them, so that one that is refused has moved nothing. 0, -ENOSPC or -ENOMEM, text set.
 */
static int fits(struct job *job, struct place **places, size_t *n)
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
		uint64_t word = load(&r->page_map[p]);
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
		return fail(job->dev->ctx, -ENOSPC, "pool %s holds more than %s of blocks; drop some, or let the least recently used go: --evict", job->name,
			    human(a, job->to * r->page_bytes));
	return fail(job->dev->ctx, -ENOSPC,
		    "pool %s holds more blocks than fit below %s, where %s are free in pieces too short for them; drop some, or let the least recently used go: --evict",
		    job->name, human(a, job->to * r->page_bytes), human(b, room * r->page_bytes));
}

/* Move what has a place. What changed meanwhile is left to empty_once(). */
static int follow_places(struct job *job, const struct place *places, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		if (job->progress && i % 1024 == 0 && job->progress(0, job->from - job->to, job->arg))
			return fail(job->dev->ctx, -ECANCELED, "resize of pool %s was cancelled; its size is as it was", job->name);
		rc = move_block(job, places[i].page, &places[i]);
		rc = rc == -EAGAIN || rc == -ENOSPC ? 0 : rc;
	}
	return rc;
}

static int shrink(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t patience = clock_ns() + PATIENCE_NS, word;
	int64_t left, least = INT64_MAX;
	struct place *places = NULL;
	size_t n = 0;
	int rc;

	store(&r->head->pool.claim_limit, job->to); /* no client claims above it any more */
	rc = claims_end(job); /* before the first block is moved or evicted */
	if (!rc)
		rc = fits(job, &places, &n);
	if (!rc)
		rc = follow_places(job, places, n);
	free(places);
	for (left = rc; !rc;) {
		left = empty_once(job, &word);
		if (left <= 0)
			break;
		clients_reap(job->pool, NULL);
		if (left < least) {
			least = left;
			patience = clock_ns() + PATIENCE_NS;
		} else if (clock_ns() > patience) {
			left = word ? busy_above(job, word) :
				      fail(job->dev->ctx, -EUCLEAN, "pool %s cannot shrink: %lld pages above the new end are leaked; 'speckvctl pool check %s %s --repair' mends that",
					   job->name, (long long)left, job->dev->medium.name, job->name);
			break;
		}
		nanosleep(&(struct timespec){ .tv_nsec = word ? 5000000 : 1000000 }, NULL);
	}
	if (left < 0) {
		resize_undo(r);
		return (int)left;
	}
	return 0;
}

/* Does a client hold pages above the new end, after all? */
static bool claimed_above(struct job *job)
{
	struct region *r = &job->pool->region;

	for (uint64_t p = first_above(r, job->to); p < job->from; p++) {
		uint64_t word = load(&r->page_map[p]);

		if (word != LAY_FREE && word != LAY_RETIRED)
			return true;
	}
	return false;
}

/*
 * No client claims above the smaller of both sizes until the new one has reached the medium. -EAGAIN, the size as it was: one that had the old limit did
 * so where a late undo of an earlier resize had freed a retired page. Those that claim from now on see that the size changed, and give it back.
 */
static int publish_size(struct job *job, uint64_t pages)
{
	struct region *r = &job->pool->region;
	struct lay_pool *pool = &r->head->pool;
	int rc;

	store(&pool->claim_limit, job->from < job->to ? job->from : job->to);
	store(&pool->data_pages, pages);
	atomic_fetch_add(&pool->size_sequence, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (pages < job->from && claimed_above(job)) {
		store(&pool->data_pages, job->from);
		atomic_fetch_add(&pool->size_sequence, 1);
		return -EAGAIN;
	}
	rc = region_flush(r, r->head, sizeof(r->head->pool));
	if (rc) {
		store(&pool->data_pages, job->from);
		atomic_fetch_add(&pool->size_sequence, 1);
		region_flush(r, r->head, sizeof(r->head->pool));
		fail_text(job->dev->ctx, "pool %s: %s cannot be written: %s; its size is as it was", job->name, r->path, strerror(-rc));
		resize_undo(r);
		return rc;
	}
	store(&pool->claim_limit, 0);
	atomic_fetch_add(&pool->size_sequence, 1);
	atomic_fetch_add(&pool->freed, 1); /* failed searches may succeed now */
	return rc;
}

/* A record that others may write meanwhile: a private copy, checked. */
static int copy_record(struct job *job, struct lay_pool_record *copy)
{
	if (record_copy(job->dev, job->pool->region.record, copy) && record_sane(job->dev, copy) && (!job->dev->single_inode || copy->extents >= 1))
		return 0;
	return fail(job->dev->ctx, -EUCLEAN, "pool %s: its record in the table of %s is damaged", job->name, job->dev->medium.name);
}

/* What a growth that came to nothing had taken. */
static void shrink_back(struct job *job, struct lay_pool_record *record, const struct lay_pool_record *old)
{
	if (job->dev->single_inode) {
		memcpy(record->extent, old->extent, sizeof(record->extent));
		record->extents = old->extents;
	} else {
		region_release_backing(&job->pool->region, job->from, job->to);
	}
}

/* `old`: a checked copy of the record. */
static int add_extent(struct job *job, struct lay_pool_record *record, const struct lay_pool_record *old, uint64_t bytes)
{
	uint32_t last = old->extents - 1;
	struct lay_extent extent;
	uint64_t end = old->extent[last].offset + old->extent[last].bytes, free_bytes = device_largest_free(job->dev, NULL);
	char a[32], b[32];

	if (device_extent_alloc(job->dev, bytes, &extent) != 0)
		return fail(job->dev->ctx, -ENOSPC, "pool %s needs %s more in one piece, and %s has %s", job->name, human(a, bytes), job->dev->medium.name,
			    human(b, free_bytes));
	if (extent.offset == end) {
		if (!job->dry_run)
			record->extent[last].bytes = old->extent[last].bytes + bytes;
		return 0;
	}
	if (old->extents == LAY_EXTENTS)
		return fail(job->dev->ctx, -ENOSPC, "pool %s is in %d pieces already, as many as it can be", job->name, LAY_EXTENTS - 1);
	if (job->dry_run)
		return 0;
	record->extent[last + 1] = extent;
	atomic_thread_fence(memory_order_seq_cst); /* a death in between must not leave an extent that is counted and not set */
	record->extents = last + 2;
	return 0;
}

/* Is there room for it? On a single inode its extent is entered in the record. */
static int make_room(struct job *job, struct lay_pool_record *record, const struct lay_pool_record *old)
{
	struct region *r = &job->pool->region;
	uint64_t bytes = (job->to - job->from) * r->page_bytes, room;
	char a[32], b[32];

	if (r->card)
		return card_pool_resize(job->dev, record, job->to * r->page_bytes, job->dry_run);
	if (job->dev->single_inode)
		return add_extent(job, record, old, bytes);
	room = medium_available(&job->dev->medium);
	return bytes + bytes / 64 > room ? fail(job->dev->ctx, -ENOSPC, "pool %s needs %s more, and %s (%s) has %s free (%llu bytes)", job->name, human(a, bytes),
						job->dev->medium.name, r->path, human(b, room), (unsigned long long)room) :
					   0;
}

static int room_to_grow(struct job *job, struct lay_pool_record *record)
{
	struct lay_pool_record old;
	int rc = copy_record(job, &old);

	return rc ? rc : make_room(job, record, &old);
}

static int grow(struct job *job, struct lay_pool_record *record)
{
	struct region *r = &job->pool->region;
	struct lay_pool_record old, grown;
	char a[32], words[SPACE_WORDS];
	int rc;

	rc = copy_record(job, &old);
	if (!rc)
		rc = make_room(job, record, &old);
	if (rc)
		return rc;
	rc = copy_record(job, &grown);
	if (!rc)
		rc = region_grow_backing(r, job->from, job->to, &grown);
	if (rc) {
		space_words(words, r->fd, (job->to - job->from) * r->page_bytes, -rc);
		shrink_back(job, record, &old);
		return fail(job->dev->ctx, rc, "pool %s (%s) cannot grow to %s: %s", job->name, r->path, human(a, job->to * r->page_bytes), words);
	}
	if (job->dev->single_inode) /* it may have been another pool's */
		memset(r->data + job->from * r->page_bytes, 0, (job->to - job->from) * r->page_bytes);
	unretire(r, job->from, job->to);
	rc = device_flush(job->dev); /* the extents before the size that needs them */
	if (!rc)
		rc = publish_size(job, job->to);
	if (rc)
		shrink_back(job, record, &old);
	return rc;
}

/*
 * The claim to the size: a client may hold it for the moment that undoing a dead manager's shrink takes. No other manager resizes, so one that keeps it
 * keeps no resize out: what it undoes late is done again, and publish_size() makes sure.
 */
static int begin(struct job *job)
{
	uint64_t patience = clock_ns() + PATIENCE_NS;
	int rc;

	while ((rc = resize_begin(&job->pool->region)) == -EAGAIN && clock_ns() < patience)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	job->held = rc == 0;
	return rc && rc != -EAGAIN ? fail(job->dev->ctx, rc, "pool %s: cannot lock its size: %s", job->name, strerror(-rc)) : 0;
}

static int shrink_and_publish(struct job *job)
{
	struct region *r = &job->pool->region;
	int rc = -EAGAIN;

	for (int tries = 0; rc == -EAGAIN && tries < PUBLISH_TRIES; tries++) {
		rc = shrink(job);
		if (rc)
			return rc;
		rc = publish_size(job, job->to);
	}
	if (rc == -EAGAIN) {
		resize_undo(r);
		return fail(job->dev->ctx, -EBUSY, "pool %s cannot shrink: its clients go on claiming pages above the new end; try again", job->name);
	}
	return rc;
}

/* A dry run maps the pool as the run does, and is no client: nothing is rebuilt, marked or entered. */
static int look_at(struct job *job)
{
	int rc;

	job->pool = calloc(1, sizeof(*job->pool));
	if (!job->pool)
		return fail(job->dev->ctx, -ENOMEM, "out of memory");
	job->pool->ctx = job->dev->ctx;
	rc = region_open_managed(job->dev, job->name, &job->pool->region);
	if (rc)
		free(job->pool);
	else
		job->undone = load(&job->dev->table->pools[job->pool->region.record].state) == SPECKV_POOL_RESIZING;
	return rc;
}

static int would_fit(struct job *job)
{
	struct place *places = NULL;
	size_t n;
	int rc = claims_end(job);

	if (!rc)
		rc = fits(job, &places, &n);
	free(places);
	return rc;
}

int speckv_pool_resize(struct speckv_device *dev, const char *name, uint64_t capacity_bytes, unsigned int flags, speckv_progress_cb progress, void *arg,
		       struct speckv_pool_info *info)
{
	struct speckv_attach attach = { .flags = ATTACH_MANAGER };
	struct job job = { .dev = dev, .name = name, .evict = flags & SPECKV_RESIZE_EVICT, .progress = progress, .arg = arg };
	struct lay_pool_record *record;
	uint64_t capacity, block_pages;
	char a[32], b[32];
	int rc;

	if (!dev || !name)
		return -EINVAL;
	job.dry_run = flags & SPECKV_RESIZE_DRY_RUN;
	if (!capacity_bytes || capacity_bytes > 1ull << 56)
		return fail(dev->ctx, -EINVAL, "pool %s cannot be of %llu bytes", name, (unsigned long long)capacity_bytes);
	capacity = (capacity_bytes + LAY_UNIT - 1) / LAY_UNIT * LAY_UNIT;
	rc = job.dry_run ? device_inspect(dev) : device_manage(dev);
	if (rc)
		return rc;
	rc = job.dry_run ? look_at(&job) : pool_attach(dev, name, &attach, &job.pool);
	if (rc) {
		device_unmanage(dev);
		return rc;
	}
	record = &dev->table->pools[job.pool->region.record];
	job.from = region_pages(&job.pool->region);
	job.to = capacity >> job.pool->region.page_shift;
	block_pages = (speckv_frame_max_bytes(&job.pool->region.fixed.geometry, SPECKV_CODEC_RAW) + job.pool->region.page_bytes - 1) >>
		      job.pool->region.page_shift;
	if (job.to == job.from)
		rc = fail(dev->ctx, -EALREADY, "pool %s has that size already (%s)", name, human(a, capacity));
	else if (job.to > job.pool->region.fixed.max_pages)
		rc = fail(dev->ctx, -ENOSPC, "pool %s can grow to %s at most (--max-size at creation), not to %s", name,
			  human(a, job.pool->region.fixed.max_pages * job.pool->region.page_bytes), human(b, capacity));
	else if (job.to < block_pages)
		rc = fail(dev->ctx, -EINVAL, "a pool of %s cannot hold even one block", human(a, capacity));
	else if (job.dry_run)
		rc = job.to > job.from ? room_to_grow(&job, record) : would_fit(&job);
	else if ((rc = begin(&job)) == 0) {
		uint64_t quota = load(&job.pool->region.head->pool.quota_pages);

		store(&record->state, SPECKV_POOL_RESIZING);
		rc = device_flush(dev);
		/* a quota that was the whole pool stays so, and is never seen below a size that grew */
		if (!rc && job.to > job.from && quota == job.from)
			store(&job.pool->region.head->pool.quota_pages, job.to);
		if (!rc)
			rc = job.to > job.from ? grow(&job, record) : shrink_and_publish(&job);
		if (rc)
			store(&job.pool->region.head->pool.quota_pages, quota);
		if (!rc && job.to < job.from) {
			region_release_backing(&job.pool->region, job.to, job.from);
			if (job.pool->region.card) { /* where it cannot now, the next manager makes the card follow */
				card_io_clear(&job.pool->region, job.to, job.from - job.to);
				card_pool_resize(dev, record, capacity, false);
			}
			if (dev->single_inode)
				extents_cut(record, job.pool->region.fixed.data_offset + capacity);
		}
		if (!rc) {
			if (quota == job.from || quota > job.to)
				store(&job.pool->region.head->pool.quota_pages, job.to);
			record->capacity_bytes = capacity;
			add(&job.pool->region.head->pool.resizes, 1);
			pool_event(&job.pool->region, SPECKV_EVENT_POOL_RESIZED, SPECKV_INFO, "resized from %s to %s", human(a, job.from << job.pool->region.page_shift),
				   human(b, capacity));
		}
		if (!rc) /* where this fails the next manager ends it at the size in the pool's header */
			rc = device_flush(dev);
		store(&record->state, SPECKV_POOL_ACTIVE); /* reaches the medium later: a size that is there cannot be half told */
		if (job.held)
			resize_end(&job.pool->region);
	}
	if (job.dry_run) {
		region_close(&job.pool->region);
		free(job.pool);
	} else {
		speckv_pool_close(job.pool);
	}
	device_unmanage(dev);
	return !rc && info ? speckv_pool_info(dev, name, info) : rc;
}

// SPDX-License-Identifier: MIT
/* Check, repair and rebuild: what can be told from the page map and the frames alone. */
#include <stdlib.h>

#include "internal.h"

static int frame_from_card(struct region *r, uint64_t page, uint64_t generation, uint64_t room, uint8_t **out)
{
	struct speckv_key key;
	struct found found;
	uint64_t bytes;
	int rc;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page || found.generation != generation)
		return -EBADMSG;
	*out = calloc(1, room);
	if (!*out)
		return -ENOMEM;
	rc = card_io_frame(r, &key, page, generation, *out, room, &bytes);
	return rc == -ENODEV || rc == -EACCES ? rc : rc ? -EBADMSG : 0;
}

int frame_sound(struct region *r, uint64_t page, uint32_t pages, uint64_t generation, bool deep, struct speckv_frame *frame)
{
	const uint8_t *at = r->data + (page << r->page_shift);
	uint64_t available = (uint64_t)pages << r->page_shift;
	uint8_t *copy = NULL;
	int rc = 0;

	if (r->card) { /* it verified every section of what it gives */
		rc = frame_from_card(r, page, generation, available, &copy);
		at = copy;
	}
	if (!rc)
		rc = speckv_frame_parse(at, available, frame);

	if (!rc && (memcmp(frame->identity.pool_uuid, r->fixed.uuid, 16) != 0 || frame->identity.generation != generation ||
		    frame->identity.pool_address != page << r->page_shift ||
		    memcmp(&frame->geometry, &r->fixed.geometry, offsetof(struct speckv_geometry, reserved)) != 0))
		rc = -EBADMSG; /* a frame's bytes inside a payload, or one that was moved here */
	if (!rc && deep)
		rc = speckv_frame_verify(at, available);
	free(copy);
	return rc;
}

/* ---- rebuild --------------------------------------------------------------------------------------------------------- */

static void forget_index(struct region *r)
{
	memset((void *)r->directory, 0, (r->fixed.bucket_mask + 1) * sizeof(struct lay_bucket));
	for (unsigned int i = 0; i < LAY_HINTS; i++)
		store(&r->head->hints[i], 0);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		store(&r->head->clients[slot].allocated_pages, 0);
		client_finish_move(r, slot, load(&r->head->clients[slot].state) >> 8);
		store(&r->head->clients[slot].state, load(&r->head->clients[slot].state) & ~0xffull);
	}
	for (unsigned int i = 0; i < LAY_TENANTS; i++) {
		uint32_t naming = 1;

		atomic_compare_exchange_strong(&r->head->tenants[i].state, &naming, 0);
	}
}

/* Length of the run that the map shows at a head: its word, and the unbroken continuation behind it. */
static bool run_whole(struct region *r, uint64_t page, uint64_t word, uint64_t pages)
{
	uint32_t n = lay_value(word);

	if (!n || n > pages - page)
		return false;
	for (uint32_t i = 1; i < n; i++)
		if (load(&r->page_map[page + i]) != lay_word(LAY_CONT, i, lay_generation(word)))
			return false;
	return true;
}

/* The tenant that is charged for a block: as its frame says, where that is a tenant still. */
static uint32_t tenant_of(struct region *r, const struct speckv_frame *frame)
{
	uint32_t number = frame->identity.tenant - 1; /* 0, not said: beyond the table */

	return number < LAY_TENANTS && load(&r->head->tenants[number].state) == 2 ? number : tenant_others(r);
}

/* The entry of a sound frame. What it says of this very block beyond the frame (last use, links) stays. */
static void entry_restore(struct region *r, const struct run *run, const struct speckv_key *key, const struct speckv_frame *frame)
{
	struct lay_entry *entry = &r->entries[region_entry_of(r, run->page)];
	uint32_t tenant = tenant_of(r, frame);
	uint64_t w[4];
	bool same = load(&entry->generation) == run->generation && load_relaxed(&entry->page) == run->page;

	memcpy(w, key->bytes, sizeof(w));
	for (int i = 0; i < 4; i++)
		same &= load_relaxed(&entry->key[i]) == w[i];
	if (!same) {
		index_fill(r, run, key, frame->identity.first_position, (uint32_t)frame->frame_bytes, (uint32_t)frame->raw_bytes, tenant,
			   use_tick(r));
		return;
	}
	store_relaxed(&entry->first_position, frame->identity.first_position);
	store_relaxed(&entry->frame_bytes, (uint32_t)frame->frame_bytes);
	store_relaxed(&entry->raw_bytes, (uint32_t)frame->raw_bytes);
	store_relaxed(&entry->tenant, tenant);
	store_relaxed(&entry->used, use_seen(r, load_relaxed(&entry->used)));
}

int region_rebuild(struct region *r, uint64_t *kept, uint64_t *lost)
{
	uint64_t pages = region_pages(r), highest = load(&r->head->pool.next_run_generation);
	int rc;

	*kept = *lost = 0;
	forget_index(r);
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&r->page_map[p]);
		struct speckv_frame frame;
		struct found found;

		if (lay_generation(word) >= highest && lay_state(word) != LAY_FREE)
			highest = lay_generation(word) + 1;
		if (lay_state(word) != LAY_HEAD) {
			if (word != LAY_FREE)
				store(&r->page_map[p], LAY_FREE);
			p++;
			continue;
		}
		rc = run_whole(r, p, word, pages) ? frame_sound(r, p, lay_value(word), lay_generation(word), false, &frame) : -EBADMSG;
		if (rc == -ENODEV || rc == -EACCES)
			return rc;
		if (!rc && frame.frame_bytes <= (uint64_t)lay_value(word) << r->page_shift && lay_value(word) >= r->min_run) {
			struct run run = { .page = p, .generation = lay_generation(word), .pages = lay_value(word) };
			struct speckv_key key;

			memcpy(key.bytes, frame.identity.key, sizeof(key.bytes));
			entry_restore(r, &run, &key, &frame);
			if (!index_find(r, &key, &found) && index_insert(r, &key, &run) == 0) {
				++*kept;
				p += run.pages;
				continue;
			}
		}
		++*lost;
		store(&r->entries[region_entry_of(r, p)].generation, 0);
		store(&r->page_map[p++], LAY_FREE); /* its continuation follows as "not a head" */
	}
	store(&r->head->pool.next_run_generation, highest);
	pages_recount(r);
	return 0;
}

/* ---- check ----------------------------------------------------------------------------------------------------------- */

struct check {
	struct speckv_pool *pool;
	struct speckv_check_report *report;
	bool deep, repair;
	unsigned int waits; /* for clients between publishing a block and indexing it */
};

#define WAITS 200

/* Found by a look-up, or not a block any more, now or when the client that is putting it has gone on. */
static bool indexed_soon(struct check *c, const struct speckv_key *key, const struct run *run, uint64_t word)
{
	struct region *r = &c->pool->region;

	for (;; c->waits++) {
		if (block_indexed(r, key, run) || load(&r->page_map[run->page]) != word)
			return true;
		if (c->waits >= WAITS)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/* Told to a card to be forgotten, there or not: no look-up finds it, and its pages are not lost. */
static bool check_doubtful(struct check *c, uint64_t page)
{
	struct region *r = &c->pool->region;
	struct found found;
	struct speckv_key key;

	if (!r->card || !index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page || !index_doubtful(r, &found))
		return false;
	c->report->repaired += c->repair && block_drop(c->pool, &key, &found);
	return true;
}

/* -ENODEV, -EACCES: the card does not answer, and nothing is known of the block. */
static int check_block(struct check *c, uint64_t page, uint64_t word)
{
	struct region *r = &c->pool->region;
	struct run run = { .page = page, .generation = lay_generation(word), .pages = lay_value(word) };
	struct found found;
	struct speckv_frame frame;
	struct speckv_key key;
	bool known;
	int rc;

	if (check_doubtful(c, page))
		return 0;
	c->report->blocks++;
	rc = run_whole(r, page, word, region_pages(r)) ? frame_sound(r, page, run.pages, run.generation, c->deep, &frame) : -EBADMSG;
	known = !rc && index_entry(r, region_entry_of(r, page), &found, &key) && found.page == page;
	if (!rc && known && memcmp(key.bytes, frame.identity.key, sizeof(key.bytes)) != 0)
		known = false;
	if (rc == -ENODEV || rc == -EACCES)
		return rc;
	if (load(&r->page_map[page]) != word || (rc && check_doubtful(c, page))) { /* it went, or was replaced, while we looked */
		c->report->blocks--;
		return 0;
	}
	if (!rc) {
		c->report->blocks_verified += c->deep;
		if (known && indexed_soon(c, &key, &run, word))
			return 0;
		memcpy(key.bytes, frame.identity.key, sizeof(key.bytes));
		if (load(&r->page_map[page]) != word)
			return 0;
		c->report->blocks_unindexed++;
		if (!c->repair)
			return 0;
		if (!known) { /* the entry is written by the holder of the head page */
			if (!pages_unpublish(c->pool, &run))
				return 0;
			index_fill(r, &run, &key, frame.identity.first_position, (uint32_t)frame.frame_bytes, (uint32_t)frame.raw_bytes, tenant_of(r, &frame),
				   use_tick(r));
			if (pages_publish(c->pool, &run))
				return 0;
		}
		c->report->repaired += block_index(c->pool, &key, &run) == 0;
		return 0;
	}
	c->report->blocks_bad++;
	pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR, "check: the block at page %llu does not verify%s", (unsigned long long)page,
		   c->repair ? "; dropped" : "");
	if (c->repair && pages_unpublish(c->pool, &run)) {
		if (index_entry(r, region_entry_of(r, page), &found, &key))
			index_remove(r, &key, found.entry, found.generation);
		pages_release(r, c->pool->owner, &run);
		c->report->repaired++;
	}
	return 0;
}

/* A claim by a client that is not attached (any more): a leak, unless it goes away while we look. */
static uint64_t check_claim(struct check *c, uint64_t page, uint64_t word, uint64_t pages)
{
	struct region *r = &c->pool->region;
	unsigned int slot = lay_value(word) >> 12;
	uint64_t state = load(&r->head->clients[slot].state);
	struct run run = { .page = page, .generation = lay_generation(word), .pages = 1 };

	while (page + run.pages < pages && load(&r->page_map[page + run.pages]) == lay_word(LAY_CONT, run.pages, run.generation))
		run.pages++;
	if (state & 1 && (state >> 8 & 0xfff) == (lay_value(word) & 0xfff) && client_alive(r, slot)) {
		c->report->pages_allocated += run.pages;
		return run.pages;
	}
	if (load(&r->page_map[page]) != word)
		return 1;
	c->report->pages_leaked += run.pages;
	if (c->repair) {
		pages_release(r, lay_value(word), &run);
		c->report->repaired++;
	}
	return run.pages;
}

static void check_orphan(struct check *c, uint64_t page, uint64_t word)
{
	struct region *r = &c->pool->region;
	uint32_t back = lay_value(word);
	uint64_t head = back <= page ? load(&r->page_map[page - back]) : 0;
	uint64_t expected = word;

	/* it belongs to a run that was being claimed, trimmed or freed as we passed */
	if (head && lay_generation(head) == lay_generation(word) && lay_state(head) != LAY_CONT && (lay_state(head) != LAY_HEAD || lay_value(head) > back))
		return;
	if (load(&r->page_map[page]) != word)
		return;
	c->report->pages_leaked++;
	if (c->repair)
		c->report->repaired += atomic_compare_exchange_strong(&r->page_map[page], &expected, LAY_FREE);
}

static void check_directory(struct check *c)
{
	struct region *r = &c->pool->region;

	for (uint64_t b = 0; b <= r->fixed.bucket_mask; b++)
		for (int i = 0; i < LAY_BUCKET_SLOTS; i++) {
			_Atomic uint64_t *slot = &r->directory[b].slots[i];
			uint64_t word = load(slot);
			struct found found;
			struct speckv_key key;

			if (!word || index_entry(r, (uint32_t)word - 1ull, &found, &key) || load(slot) != word)
				continue;
			c->report->index_stale++;
			if (c->repair)
				c->report->repaired += atomic_compare_exchange_strong(slot, &word, 0);
		}
}

int speckv_pool_check(struct speckv_device *dev, const char *name, unsigned int flags, speckv_progress_cb progress, void *arg,
		      struct speckv_check_report *report)
{
	/* One that only looks is no client: it maps the pool to read it, and leaves it as it is. */
	struct speckv_attach attach = { .flags = ATTACH_MANAGER | (flags & SPECKV_CHECK_REPAIR ? ATTACH_KEEP_DEAD : SPECKV_ATTACH_READ_ONLY) };
	struct check c = { .report = report, .deep = flags & SPECKV_CHECK_DEEP, .repair = flags & SPECKV_CHECK_REPAIR };
	uint64_t pages, told = 0;
	unsigned int dead = 0;
	int rc;

	if (!dev || !report)
		return -EINVAL;
	memset(report, 0, sizeof(*report));
	rc = c.repair ? pool_lock_restore(dev, name) : 0;
	if (rc < 0)
		return rc;
	report->repaired = (uint64_t)rc;
	rc = pool_attach(dev, name, &attach, &c.pool);
	if (rc)
		return rc;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		dead += load(&c.pool->region.head->clients[slot].state) & 1 && !client_alive(&c.pool->region, slot);
	report->clients_dead = dead;
	if (c.repair && dead) {
		uint64_t back;

		clients_reap(c.pool, &back);
		report->repaired += dead;
	}
	pages = region_pages(&c.pool->region);
	report->pages = pages;
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&c.pool->region.page_map[p]), step = 1;

		if (progress && p >= told) {
			told = p + pages / 200 + 1;
			if (progress(p, pages, arg)) {
				speckv_pool_close(c.pool);
				return fail(dev->ctx, -ECANCELED, "check of pool %s was cancelled", name);
			}
		}
		switch (lay_state(word)) {
		case LAY_FREE:
			report->pages_free++;
			break;
		case LAY_HEAD:
			rc = check_block(&c, p, word);
			if (rc) {
				speckv_pool_close(c.pool);
				return fail(dev->ctx, rc, "pool %s: %s went away during the check; check it again when it is back", name, dev->medium.name);
			}
			step = lay_value(word) && lay_value(word) <= pages - p ? lay_value(word) : 1;
			report->pages_used += step;
			break;
		case LAY_CLAIMED:
			step = check_claim(&c, p, word, pages);
			break;
		default:
			check_orphan(&c, p, word);
		}
		p += step;
	}
	check_directory(&c);
	if (progress)
		progress(pages, pages, arg);
	if (c.repair && report->repaired) {
		pages_recount(&c.pool->region);
		pool_event(&c.pool->region, SPECKV_EVENT_CHECK_REPAIRED, SPECKV_INFO, "check repaired %llu things", (unsigned long long)report->repaired);
	}
	speckv_pool_close(c.pool);
	if (report->blocks_bad || report->blocks_unindexed || report->pages_leaked)
		return c.repair ? 0 : fail(dev->ctx, -EUCLEAN,
					   "pool %s: %llu bad blocks, %llu blocks not in the index, %llu leaked pages; 'speckvctl pool check %s %s --repair' mends it",
					   name, (unsigned long long)report->blocks_bad, (unsigned long long)report->blocks_unindexed,
					   (unsigned long long)report->pages_leaked, dev->medium.name, name);
	return 0;
}

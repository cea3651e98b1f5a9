// SPDX-License-Identifier: MIT
/*
 * Reaping of dead clients, and rebuild of the index from page map and frames.
 */
#include <stdlib.h>

#include "pool.h"

int frame_sound(struct region *r, uint64_t page, uint32_t pages, uint64_t generation, bool deep,
	struct speckv_frame *frame)
{
	uint64_t available = (uint64_t)pages << r->page_shift;
	const uint8_t *at;
	uint8_t *copy;
	int rc = r->backend->frame(r, page, generation, available, &at, &copy);

	if (!rc)
		rc = speckv_frame_parse(at, available, frame);
	if (!rc &&
		(memcmp(frame->identity.pool_uuid, r->fixed.uuid, 16) != 0 ||
			frame->identity.generation != generation ||
			frame->identity.pool_address != page << r->page_shift ||
			memcmp(&frame->geometry, &r->fixed.geometry,
				offsetof(struct speckv_geometry, reserved)) != 0))
		rc = -EBADMSG; /* a frame's bytes within a payload, or a frame copied here */
	if (!rc && deep)
		rc = speckv_frame_verify(at, available);
	free(copy);
	return rc;
}

static void forget_index(struct region *r)
{
	memset((void *)r->directory, 0, (r->fixed.bucket_mask + 1) * sizeof(struct lay_bucket));
	for (unsigned int i = 0; i < LAY_HINTS; i++)
		store_release(&r->head->hints[i], 0);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		store_release(&r->head->clients[slot].allocated_pages, 0);
		client_finish_move(r, slot, load_acquire(&r->head->clients[slot].state) >> 8);
		store_release(&r->head->clients[slot].state,
			load_acquire(&r->head->clients[slot].state) & ~0xffull);
	}
	for (unsigned int i = 0; i < LAY_TENANTS; i++) {
		uint32_t naming = 1;

		atomic_compare_exchange_strong(&r->head->tenants[i].state, &naming, 0);
	}
}

bool frame_run_whole(struct region *r, uint64_t page, uint64_t word, uint64_t pages)
{
	uint32_t n = lay_value(word);

	if (!n || n > pages - page)
		return false;
	for (uint32_t i = 1; i < n; i++)
		if (load_acquire(&r->page_map[page + i]) !=
			lay_word(LAY_CONT, i, lay_generation(word)))
			return false;
	return true;
}

uint32_t frame_tenant(struct region *r, const struct speckv_frame *frame)
{
	uint32_t number = frame->identity.tenant - 1; /* 0, not given, wraps to beyond the table */

	return number < LAY_TENANTS && load_acquire(&r->head->tenants[number].state) == 2
		? number
		: tenant_others(r);
}

/*
 * Restore the entry of a sound frame. If it is of this very block, its last use and links are kept.
 */
static void entry_restore(struct region *r, const struct run *run, const struct speckv_key *key,
	const struct speckv_frame *frame)
{
	struct lay_entry *entry = &r->entries[region_entry_of(r, run->page)];
	uint32_t tenant = frame_tenant(r, frame);
	uint64_t w[4];
	bool same = load_acquire(&entry->generation) == run->generation &&
		load_relaxed(&entry->page) == run->page;

	memcpy(w, key->bytes, sizeof(w));
	for (int i = 0; i < 4; i++)
		same &= load_relaxed(&entry->key[i]) == w[i];
	if (!same) {
		index_fill(r, run, key, frame->identity.first_position,
			(uint32_t)frame->frame_bytes, (uint32_t)frame->raw_bytes, tenant,
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
	uint64_t pages = region_pages(r),
		 highest = load_acquire(&r->head->pool.next_run_generation);
	int rc;

	*kept = *lost = 0;
	forget_index(r);
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&r->page_map[p]);
		struct speckv_frame frame;
		struct block_ref found;

		if (lay_generation(word) >= highest && lay_state(word) != LAY_FREE)
			highest = lay_generation(word) + 1;
		if (lay_state(word) != LAY_HEAD) {
			if (word != LAY_FREE)
				store_release(&r->page_map[p], LAY_FREE);
			p++;
			continue;
		}
		rc = frame_run_whole(r, p, word, pages)
			? frame_sound(r, p, lay_value(word), lay_generation(word), false, &frame)
			: -EBADMSG;
		if (rc == -ENODEV || rc == -EACCES)
			return rc;
		if (!rc && frame.frame_bytes <= (uint64_t)lay_value(word) << r->page_shift &&
			lay_value(word) >= r->min_run) {
			struct run run = { .page = p,
				.generation = lay_generation(word),
				.pages = lay_value(word) };
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
		store_release(&r->entries[region_entry_of(r, p)].generation, 0);
		/* its continuation is freed by the next iterations */
		store_release(&r->page_map[p++], LAY_FREE);
	}
	store_release(&r->head->pool.next_run_generation, highest);
	pages_recount(r);
	return 0;
}

bool client_sweep(struct region *r, unsigned int slot, uint64_t incarnation, bool dead,
	uint64_t *back)
{
	uint32_t owner = lay_owner(slot, incarnation);
	uint64_t pages = region_pages(r);
	bool all = true;

	*back = 0;
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&r->page_map[p]);
		struct run run = { .page = p, .generation = lay_generation(word), .pages = 1 };

		if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			p += lay_value(word);
			continue;
		}
		if (lay_state(word) == LAY_CLAIMED && lay_value(word) == owner) {
			while (p + run.pages < pages &&
				load_acquire(&r->page_map[p + run.pages]) ==
					lay_word(LAY_CONT, run.pages, run.generation))
				run.pages++;
			/*
			 * a block being dropped may still be on the card, and a rebuild would
			 * restore it
			 */
			if (dead && r->backend->clear(r, run.page, run.pages) != 0) {
				all = false;
			} else {
				pages_release(r, owner, &run);
				*back += run.pages;
			}
		}
		p += run.pages;
	}
	return all;
}

void client_finish_move(struct region *r, unsigned int slot, uint64_t incarnation)
{
	struct lay_client *client = &r->head->clients[slot];
	uint32_t owner = lay_owner(slot, incarnation);
	uint64_t pages = region_pages(r), from = load_acquire(&client->move_from),
		 to = load_acquire(&client->move_to),
		 generation = load_acquire(&client->move_to_generation);
	uint64_t word = lay_word(LAY_CLAIMED, owner, generation);
	uint32_t n = 1;

	if (generation && generation <= LAY_GENERATION_MASK && to < pages && from < pages &&
		load_acquire(&r->page_map[from]) ==
			lay_word(LAY_CLAIMED, owner,
				load_acquire(&client->move_from_generation) &
					LAY_GENERATION_MASK)) {
		while (to + n < pages && n < LAY_RUN_MAX &&
			load_acquire(&r->page_map[to + n]) == lay_word(LAY_CONT, n, generation))
			n++;
		atomic_compare_exchange_strong(&r->page_map[to], &word,
			lay_word(LAY_HEAD, n, generation));
	}
	/* only if no new client of the slot has set it */
	atomic_compare_exchange_strong(&client->move_to_generation, &generation, 0);
}

/* Index blocks that a dead client published but did not index, and settle its twins. */
static void reindex(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	uint64_t pages = region_pages(r);

	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&r->page_map[p]);
		struct run run = {
			.page = p, .generation = lay_generation(word), .pages = lay_value(word)
		};
		struct block_ref found;
		struct speckv_key key;

		if (lay_state(word) != LAY_HEAD || !lay_value(word)) {
			p++;
			continue;
		}
		if (index_entry(r, region_entry_of(r, p), &found, &key) && found.page == p &&
			found.generation == run.generation) {
			if (block_indexed(r, &key, &run))
				settle_twins(pool, &key);
			else
				block_index(pool, &key, &run);
		}
		p += lay_value(word);
	}
}

bool client_reap(struct region *r, unsigned int slot, uint64_t state, uint64_t *back)
{
	struct lay_client *client = &r->head->clients[slot];
	uint64_t got;
	char command[64], size[32];
	uint32_t tenant;

	if (!(state & 1))
		return false;
	client_finish_move(r, slot, state >> 8);
	if (!client_sweep(r, slot, state >> 8, true, &got))
		return false; /* the next reaper tries again */
	*back += got;
	tenant = load_acquire(&client->tenant);
	memcpy(command, client->command, sizeof(command));
	command[63] = 0;
	pool_event(r, SPECKV_EVENT_CLIENT_DIED, SPECKV_WARNING,
		"pid %u (%s) died, tenant %.40s; %s reclaimed", client->pid, command,
		tenant < LAY_TENANTS ? r->head->tenants[tenant].name : "?",
		human(size, got * r->page_bytes));
	store_release(&client->allocated_pages, 0);
	atomic_compare_exchange_strong(&client->state, &state, state & ~0xffull);
	return true;
}

void clients_reaped(struct speckv_pool *pool, uint64_t back)
{
	reindex(pool);
	pages_recount(&pool->region);
	add_relaxed(&pool->region.head->stats.counters[SPECKV_COUNT_RECLAIMED_PAGES], back);
}

int clients_reap(struct speckv_pool *pool, uint64_t *pages_back)
{
	struct region *r = &pool->region;
	uint64_t back = 0, state;
	int dead = 0;

	pthread_mutex_lock(&r->reaping);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		if (!(load_acquire(&r->head->clients[slot].state) & 1) || client_alive(r, slot))
			continue;
		/* the slot's lock keeps other processes from reaping or taking it */
		if (lock_byte(r->lock_fd, client_byte(r, slot)) != 0)
			continue;
		state = load_acquire(&r->head->clients[slot].state);
		/* the next manager may have taken the slot before this lock, or just after */
		if (!client_unseen(r, slot, state))
			dead += client_reap(r, slot, state, &back);
		unlock_byte(r->lock_fd, client_byte(r, slot));
	}
	if (dead)
		clients_reaped(pool, back);
	pthread_mutex_unlock(&r->reaping);
	if (pages_back)
		*pages_back = back;
	return dead;
}

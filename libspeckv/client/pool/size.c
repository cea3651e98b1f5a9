// SPDX-License-Identifier: MIT
/* A pool's size: the claim to it, and what a resize whose manager died left. */

#include "pool.h"

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
	uint64_t limit = load_acquire(&r->head->pool.claim_limit);

	if (limit) /* below it stand the pages of a card whose memory went bad */
		pages_unretire(r, limit, region_pages(r));
	store_release(&r->head->pool.claim_limit, 0);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
	atomic_fetch_add(&r->head->pool.freed, 1);
}

/*
 * Did the resize that died reach the size that it was for? The record has the old one until the
 * end.
 */
static bool resized(struct region *r)
{
	const struct lay_pool_record *record = &r->dev->table->pools[r->record];

	return record->capacity_bytes != region_pages(r) << r->page_shift;
}

int resize_store(struct region *r, uint64_t pages)
{
	store_release(&r->head->pool.data_pages, pages);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
	return region_flush(r, r->head, sizeof(r->head->pool));
}

/*
 * A block, or a claim that may become one. What was moved or dropped leaves neither, but pages that
 * a loss of power may have kept as they were.
 */
static bool block_above(struct region *r, uint64_t mark, uint64_t end)
{
	for (uint64_t p = pages_first_above(r, mark); p < end; p++) {
		uint64_t word = load_acquire(&r->page_map[p]);

		if ((lay_state(word) == LAY_HEAD && lay_value(word)) ||
			(lay_state(word) == LAY_CLAIMED && client_alive(r, lay_value(word) >> 12)))
			return true;
	}
	return false;
}

uint64_t resize_ends_at(struct region *r, uint64_t before)
{
	uint64_t pages = region_pages(r);

	return before > pages && before <= r->fixed.max_pages && block_above(r, pages, before)
		? before
		: pages;
}

/* It costs a system call: ten times a second at most, and only while a shrink is under way. */
bool resize_abandoned(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->shrink_seen_ns), now = clock_ns();
	struct region *r = &pool->region;
	bool undone = false;

	if (now - last < 100000000u ||
		!atomic_compare_exchange_strong(&pool->shrink_seen_ns, &last, now))
		return false;
	/* threads of one descriptor do not exclude each other by its locks */
	pthread_mutex_lock(&r->reaping);
	if (!client_alive(r, LAY_SLOT_MANAGER) && resize_begin(r) == 0) {
		undone = load_acquire(&r->head->pool.claim_limit) != 0;
		if (undone) {
			resize_undo(r);
			pool_event(r, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
				"a resize whose manager died was %s",
				resized(r) ? "finished" : "undone; the pool's size is as it was");
		}
		resize_end(r);
	}
	pthread_mutex_unlock(&r->reaping);
	return undone;
}

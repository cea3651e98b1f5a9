// SPDX-License-Identifier: MIT
/* A pool's size: the resize lock, and recovery of a resize whose manager died. */

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

	if (limit) /* not below the limit: pages retired for bad memory of a card are there */
		pages_unretire(r, limit, region_pages(r));
	store_release(&r->head->pool.claim_limit, 0);
	atomic_fetch_add(&r->head->pool.size_sequence, 1);
	atomic_fetch_add(&r->head->pool.freed, 1);
}

/* Did the interrupted resize store its new size? The record has the old one until the end. */
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
 * Is there a block, or a live claim that may become one? A moved or dropped block leaves neither,
 * but its pages may be unchanged after a power loss.
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

/* At most ten times a second, and only during a shrink: makes system calls. */
bool resize_abandoned(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->shrink_seen_ns), now = clock_ns();
	struct region *r = &pool->region;
	bool undone = false;

	if (now - last < 100000000u ||
		!atomic_compare_exchange_strong(&pool->shrink_seen_ns, &last, now))
		return false;
	/* OFD locks do not exclude threads that share a descriptor */
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

// SPDX-License-Identifier: MIT
/* Moving a block below the new end of a shrink, or dropping it. */
#include "resize.h"

static int not_written(struct job *job, const struct run *copy)
{
	struct region *r = &job->pool->region;

	pages_release(r, job->pool->owner, copy);
	return fail(job->dev->ctx, -EIO, "pool %s: %s cannot be written; its size is unchanged",
		job->name, r->path);
}

/*
 * Copy the block to the claimed run, which is released on error. `failed`: failed flushes before.
 * -EAGAIN: another block by now, or bad and dropped.
 */
static int copy_block(struct job *job, const struct speckv_key *key, const struct block_ref *found,
	const struct run *run, uint64_t failed)
{
	struct region *r = &job->pool->region;
	int rc = r->backend->copy(r, key, found, run);

	if (rc == -ENODEV || rc == -EACCES) {
		pages_release(r, job->pool->owner, run);
		return fail(job->dev->ctx, rc, "pool %s: %s does not answer", job->name,
			job->dev->medium.name);
	}
	if (rc && load_acquire(&r->flushes_failed) != failed)
		return not_written(job, run);
	if (rc) {
		pages_release(r, job->pool->owner, run);
		if (rc != -EAGAIN) { /* bad at its old place */
			pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR,
				"the block at page %llu does not verify; dropped instead of moved",
				(unsigned long long)found->page);
			block_drop(job->pool, key, found);
		}
		return -EAGAIN;
	}
	return 0;
}

int move_block(struct job *job, uint64_t page, const struct place *place)
{
	struct region *r = &job->pool->region;
	struct block_ref found, moved;
	struct speckv_key key;
	struct run run, old;
	uint64_t failed = load_acquire(&r->flushes_failed);
	int rc;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page)
		return -EAGAIN;
	if (index_doubtful(r, &found)) {
		if (!block_drop(job->pool, &key, &found) &&
			index_entry(r, found.entry, &moved, &key) &&
			moved.generation == found.generation)
			return fail(job->dev->ctx, -ENODEV, "pool %s: %s does not answer",
				job->name, job->dev->medium.name);
		return -EAGAIN;
	}
	if (!place)
		rc = pages_claim(job->pool, found.pages, &run, job->to);
	else
		rc = found.pages <= place->pages &&
				pages_claim_at(job->pool, place->to, found.pages, &run)
			? 0
			: -ENOSPC;
	if (rc)
		return rc;
	rc = copy_block(job, &key, &found, &run, failed);
	if (rc)
		return rc;
	index_fill(r, &run, &key, load_acquire(&r->entries[found.entry].first_position),
		found.frame_bytes, found.raw_bytes, found.tenant,
		load_acquire(&r->entries[found.entry].used));
	old = (struct run){ found.page, found.generation, found.pages };
	moved = (struct block_ref){ region_entry_of(r, run.page), run.generation, run.page,
		run.pages, found.frame_bytes, found.raw_bytes, found.tenant };
	if (move_begin(job->pool, &found, &run)) {
		move_end(job->pool);
		store_release(&r->entries[moved.entry].generation, 0);
		return not_written(job, &run);
	}
	if (!pages_switch(job->pool, &old, &run)) { /* dropped meanwhile: release the copy */
		uint64_t generation = run.generation;

		move_end(job->pool);
		atomic_compare_exchange_strong(&r->entries[moved.entry].generation, &generation, 0);
		r->backend->invalidate(r, &run);
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
		store_release(&r->entries[moved.entry].generation, 0);
		return not_written(job, &run);
	}
	move_end(job->pool);
	index_orphan(r, &found);
	index_remove(r, &key, found.entry, found.generation);
	store_release(&r->entries[found.entry].generation, 0);
	r->backend->invalidate(r, &old); /* best effort: clearing the tail covers the rest */
	pages_release(r, job->pool->owner, &old);
	if (rc)
		block_drop(job->pool, &key, &moved);
	return rc;
}

int drop_block(struct job *job, uint64_t page)
{
	struct region *r = &job->pool->region;
	struct speckv_key key;
	struct block_ref found;

	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page)
		return -EAGAIN;
	count(job->pool, SPECKV_COUNT_EVICTIONS, block_drop(job->pool, &key, &found));
	return 0;
}

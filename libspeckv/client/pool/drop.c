// SPDX-License-Identifier: MIT
/* Blocks leave the index, enter it, and are settled where two puts raced. */

#include "pool.h"

bool block_drop(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found)
{
	struct region *r = &pool->region;
	struct run run = {
		.page = found->page, .generation = found->generation, .pages = found->pages
	};
	int rc;

	/* from here on the block is gone, whatever happens to us */
	if (!pages_unpublish(pool, &run))
		return false;
	rc = r->backend->invalidate(r, &run);
	if (rc && rc != -EHWPOISON) {
		/* a device that does not answer would bring it back some day: it stays */
		if (rc == -EINPROGRESS)
			index_doubt(r, found);
		/* another process took its slot for a stale one meanwhile */
		if (!pages_publish(pool, &run) && !block_indexed(r, key, &run))
			index_insert(r, key, &run);
		return false;
	}
	index_orphan(r, found);
	index_remove(r, key, found->entry, found->generation);
	store_release(&r->entries[found->entry].generation, 0);
	if (found->tenant < LAY_TENANTS) {
		sub_relaxed(&r->head->tenants[found->tenant].used_pages, found->pages);
		sub_relaxed(&r->head->tenants[found->tenant].blocks, 1);
	}
	if (rc)
		pages_retire(pool, &run);
	else
		pages_release(r, pool->owner, &run);
	return true;
}

/*
 * The youngest that may be found stays: a copy that a resize makes is younger than what it
 * replaces, so that no two that settle at once, nor one that settles and one that moves, can each
 * drop what the other keeps.
 */
void settle_twins(struct speckv_pool *pool, const struct speckv_key *key)
{
	struct block_ref all[2 * LAY_BUCKET_SLOTS];
	size_t n = index_find_all(&pool->region, key, all);
	uint64_t youngest = 0;

	for (size_t i = 0; i < n; i++)
		if (!index_doubtful(&pool->region, &all[i]) && all[i].generation > youngest)
			youngest = all[i].generation;
	for (size_t i = 0; i < n; i++)
		if (all[i].generation != youngest) /* one run may stand in two slots */
			block_drop(pool, key, &all[i]);
}

bool block_indexed(struct region *r, const struct speckv_key *key, const struct run *run)
{
	struct block_ref all[2 * LAY_BUCKET_SLOTS];
	size_t n = index_find_all(r, key, all);

	for (size_t i = 0; i < n; i++)
		if (all[i].page == run->page && all[i].generation == run->generation)
			return true;
	return false;
}

int block_index(struct speckv_pool *pool, const struct speckv_key *key, const struct run *run)
{
	int rc = index_insert(&pool->region, key, run);

	if (!rc)
		settle_twins(pool, key);
	return rc;
}

// SPDX-License-Identifier: MIT
/* Dropping blocks, indexing them, and settling twins of racing puts. */

#include "pool.h"

bool block_drop(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found)
{
	struct region *r = &pool->region;
	struct run run = {
		.page = found->page, .generation = found->generation, .pages = found->pages
	};
	int rc;

	/* commit point: the block is gone even if this process dies */
	if (!pages_unpublish(pool, &run))
		return false;
	rc = r->backend->invalidate(r, &run);
	if (rc && rc != -EHWPOISON) {
		/* not invalidated: a rebuild from the card could restore it, so publish it again */
		if (rc == -EINPROGRESS)
			index_doubt(r, found);
		/* its slot may have been cleared as stale meanwhile */
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
 * Keep the youngest twin that is not doubtful. The copy of a move is younger than its source, so
 * concurrent settlers and movers agree, and never drop all twins.
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
		if (all[i].generation != youngest) /* one run may be in two slots */
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

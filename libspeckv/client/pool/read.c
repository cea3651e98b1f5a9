// SPDX-License-Identifier: MIT
/* A block is decoded, and was that block all the while. */

#include "pool.h"

int read_judge(struct region *r, const struct block_ref *found, int rc)
{
	if (rc == -ENODEV || rc == -EACCES || rc == -EBUSY)
		return rc; /* the block may be as sound as ever */
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc ? -EBADMSG : 0;
}

/*
 * Decode a found block and make sure that it was the block all the while. -EAGAIN: it is no longer.
 */
int block_decode(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead, void *raw, uint64_t bytes)
{
	struct region *r = &pool->region;

	return read_judge(r, found, r->backend->read(r, key, found, layers, ahead, raw, bytes));
}

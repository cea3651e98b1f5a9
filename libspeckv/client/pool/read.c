// SPDX-License-Identifier: MIT
/* Decoding of blocks, validated against the index afterwards. */

#include "pool.h"

/* What a read's result means, once the block is known to be there still, or to be another. */
int read_judge(struct region *r, const struct block_ref *found, int rc)
{
	if (rc == -ENODEV || rc == -EACCES || rc == -EBUSY)
		return rc; /* about the access, not the contents of the block */
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc ? -EBADMSG : 0;
}

/* Decode a found block, then check that it was not replaced meanwhile. -EAGAIN: it was. */
int block_decode(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead, void *raw, uint64_t bytes)
{
	struct region *r = &pool->region;

	return read_judge(r, found, r->backend->read(r, key, found, layers, ahead, raw, bytes));
}

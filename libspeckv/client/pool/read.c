// SPDX-License-Identifier: MIT
/* A block is decoded, and was that block all the while. */

#include "pool.h"

/* What a card's answer says of a block that the index has. */
int read_judge(struct region *r, const struct found *found, int rc)
{
	if (rc == -ENODEV || rc == -EACCES || rc == -EBUSY)
		return rc; /* the block may be as sound as ever */
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc ? -EBADMSG : 0;
}

/* Decode a found block and make sure that it was the block all the while. -EAGAIN: it is no longer. */
int block_decode(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found, unsigned int layer_first, unsigned int layer_count,
		 bool ahead, void *raw, uint64_t bytes)
{
	struct region *r = &pool->region;
	const uint8_t *at = r->data + (found->page << r->page_shift);
	uint64_t available = (uint64_t)found->pages << r->page_shift;
	int rc;

	if (r->card)
		return read_judge(r, found, card_io_read(r, key, found, layer_first, layer_count, ahead, raw, bytes));
	rc = frame_decode(r, key, found, at, available, layer_first, layer_count, raw, bytes);
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc;
}

// SPDX-License-Identifier: MIT
/* Blocks of one pool: put, get, look up, touch, drop. See LAYOUT.md for the order of a put and what a death in the middle leaves. */
#include "internal.h"

#define READ_TRIES 4
#define PUT_TRIES 8

bool block_drop(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found)
{
	struct region *r = &pool->region;
	struct run run = { .page = found->page, .generation = found->generation, .pages = found->pages };
	int rc;

	if (!pages_unpublish(pool, &run)) /* from here on the block is gone, whatever happens to us */
		return false;
	rc = card_io_invalidate(r, &run);
	if (rc && rc != -EIO) { /* a card that does not answer would bring it back some day: it stays */
		if (rc == -EINPROGRESS)
			index_doubt(r, found);
		if (!pages_publish(pool, &run) && !block_indexed(r, key, &run)) /* another process took its slot for a stale one meanwhile */
			index_insert(r, key, &run);
		return false;
	}
	index_orphan(r, found);
	index_remove(r, key, found->entry, found->generation);
	store(&r->entries[found->entry].generation, 0);
	if (found->tenant < LAY_TENANTS) {
		sub(&r->head->tenants[found->tenant].used_pages, found->pages);
		sub(&r->head->tenants[found->tenant].blocks, 1);
	}
	if (rc)
		pages_retire(pool, &run);
	else
		pages_release(r, pool->owner, &run);
	return true;
}

/* ---- put ----------------------------------------------------------------------------------------------------------- */

static int encode(struct speckv_pool *pool, unsigned int codec, const struct speckv_request *request, struct run *run, uint64_t *frame_bytes)
{
	struct region *r = &pool->region;
	const struct lay_pool *fixed = &r->fixed;
	uint64_t most = speckv_frame_max_bytes(&fixed->geometry, codec);
	struct speckv_frame_identity identity = { .first_position = request->first_position, .tenant = pool->tenant_index + 1 };
	uint8_t *frame;
	int rc;

	if (r->card) { /* before something is evicted for it */
		rc = card_io_connect(r);
		if (rc)
			return rc;
	}
	rc = pages_claim(pool, (uint32_t)((most + r->page_bytes - 1) >> r->page_shift), run, 0);
	if (rc)
		return rc;
	memcpy(identity.key, request->key.bytes, sizeof(identity.key));
	memcpy(identity.pool_uuid, fixed->uuid, sizeof(identity.pool_uuid));
	identity.generation = run->generation;
	identity.pool_address = run->page << r->page_shift;
	if (r->card) { /* it verifies what it reads back, and says the true length */
		rc = card_io_write(r, run, codec, &identity, request->buffer, request->buffer_bytes, frame_bytes);
	} else {
		frame = r->data + (run->page << r->page_shift);
		rc = frame_encode(r, codec, &identity, request->buffer, request->buffer_bytes, frame, (uint64_t)run->pages << r->page_shift, frame_bytes);
		if (!rc && load_relaxed(&pool->verify))
			rc = speckv_frame_verify(frame, *frame_bytes);
		if (!rc)
			rc = region_flush(r, frame, *frame_bytes);
	}
	if (rc == -EIO && r->card) {
		pages_retire(pool, run);
		return rc;
	}
	if (rc) {
		pages_release(r, pool->owner, run);
		return rc;
	}
	pages_trim(pool, run, (uint32_t)((*frame_bytes + r->page_bytes - 1) >> r->page_shift));
	return 0;
}

/*
 * The youngest that may be found stays: a copy that a resize makes is younger than what it replaces, so that no two that settle at once, nor one that
 * settles and one that moves, can each drop what the other keeps.
 */
void settle_twins(struct speckv_pool *pool, const struct speckv_key *key)
{
	struct found all[2 * LAY_BUCKET_SLOTS];
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
	struct found all[2 * LAY_BUCKET_SLOTS];
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

static void adopt(struct speckv_pool *pool, const struct speckv_request *request, const struct found *found)
{
	struct found parent;

	if (!(request->flags & SPECKV_REQUEST_HAS_PARENT))
		return;
	if (!index_find(&pool->region, &request->parent, &parent))
		evict_orphan(pool, found);
	else if (parent.entry != found->entry)
		index_adopt(&pool->region, &parent, found);
}

void block_adopt(struct speckv_pool *pool, const struct speckv_request *request)
{
	struct found found;

	if (index_find(&pool->region, &request->key, &found) && !index_adopted(&pool->region, &found)) {
		index_used(&pool->region, &found, false, use_tick(&pool->region));
		adopt(pool, request, &found);
	}
}

int block_put(struct speckv_pool *pool, struct speckv_request *request, uint64_t tick)
{
	struct region *r = &pool->region;
	struct lay_tenant *tenant = pool->tenant;
	unsigned int codec = load_relaxed(&pool->codec);
	uint64_t frame_bytes, raw = r->fixed.block_bytes;
	struct found found;
	struct run run;
	int rc, tries = 0;

	request->flags &= ~(uint32_t)(SPECKV_REQUEST_EXISTED | SPECKV_REQUEST_STAGED);
	if (!request->buffer || request->buffer_bytes != raw)
		return -EINVAL;
	if (index_find(r, &request->key, &found)) {
		request->flags |= SPECKV_REQUEST_EXISTED;
		index_used(r, &found, false, tick);
		if (request->flags & SPECKV_REQUEST_HAS_PARENT && !index_adopted(r, &found)) /* its parent was evicted, and is back */
			adopt(pool, request, &found);
		count(pool, SPECKV_COUNT_PUT_EXISTED, 1);
		return 0;
	}
	do
		rc = encode(pool, codec, request, &run, &frame_bytes);
	while (rc == -EIO && r->card && ++tries < PUT_TRIES); /* elsewhere, where a card's memory went bad */
	if (rc == -ENODATA) /* a non-finite value: this block is kept as it is */
		rc = encode(pool, SPECKV_CODEC_RAW, request, &run, &frame_bytes);
	if (rc)
		return rc;
	index_fill(r, &run, &request->key, request->first_position, (uint32_t)frame_bytes, (uint32_t)raw, pool->tenant_index, tick);
	rc = pages_publish(pool, &run);
	if (rc) {
		index_remove(r, &request->key, region_entry_of(r, run.page), run.generation);
		return rc;
	}
	found = (struct found){ region_entry_of(r, run.page), run.generation, run.page, run.pages, (uint32_t)frame_bytes, (uint32_t)raw, pool->tenant_index };
	add(&tenant->used_pages, run.pages);
	add(&tenant->blocks, 1);
	rc = block_index(pool, &request->key, &run);
	if (rc) { /* sixteen live blocks share both buckets: cannot happen with a seeded hash at half load, but is not a leak if it does */
		block_drop(pool, &request->key, &found);
		return rc;
	}
	adopt(pool, request, &found);
	count(pool, SPECKV_COUNT_PUTS, 1);
	count(pool, SPECKV_COUNT_BYTES_IN_RAW, raw);
	count(pool, SPECKV_COUNT_BYTES_IN_STORED, frame_bytes);
	add(&tenant->puts, 1);
	add(&tenant->bytes_in, raw);
	return 0;
}

/* ---- get ----------------------------------------------------------------------------------------------------------- */

/* What a card's answer says of a block that the index has. */
static int card_judged(struct region *r, const struct found *found, int rc)
{
	if (rc == -ENODEV || rc == -EACCES || rc == -EBUSY)
		return rc; /* the block may be as sound as ever */
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc ? -EBADMSG : 0;
}

/* The answer to a READ that was sent ahead, in a lane of this thread; or a READ now, in the same lane. */
static int card_fetch(struct card_reads *reads, unsigned int slot, const struct speckv_key *key, const struct found *found, unsigned int first,
		      unsigned int layers, void *raw, uint64_t bytes)
{
	struct region *r = reads->region;
	int rc = 0;

	if (!card_io_read_under_way(reads, slot, found, first, layers)) {
		card_io_read_end(reads, slot, key, raw, bytes); /* whatever it is: the slot is wanted */
		rc = card_io_read_begin(reads, slot, key, found, first, layers, false);
	}
	return card_judged(r, found, rc ? rc : card_io_read_end(reads, slot, key, raw, bytes));
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
		return card_judged(r, found, card_io_read(r, key, found, layer_first, layer_count, ahead, raw, bytes));
	rc = frame_decode(r, key, found, at, available, layer_first, layer_count, raw, bytes);
	if (!index_current(r, found) || (rc && region_stale(r)))
		return -EAGAIN;
	return rc;
}

static void bad_block(struct speckv_pool *pool, const struct speckv_key *key, const struct found *found)
{
	if (pool->read_only)
		return;
	pool_event(&pool->region, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR,
		   "block %02x%02x%02x%02x%02x%02x%02x%02x at page %llu does not verify; dropped, counted as a miss", key->bytes[0], key->bytes[1], key->bytes[2],
		   key->bytes[3], key->bytes[4], key->bytes[5], key->bytes[6], key->bytes[7], (unsigned long long)found->page);
	block_drop(pool, key, found);
}

int block_get(struct speckv_pool *pool, struct speckv_request *request, const struct found *hint, struct card_reads *reads, unsigned int slot,
	      struct tally *tally)
{
	struct region *r = &pool->region;
	const struct speckv_geometry *geometry = &r->fixed.geometry;
	unsigned int layers = request->layer_count ? request->layer_count : (unsigned int)geometry->layers - request->layer_first;
	uint64_t per_layer = r->fixed.block_bytes / geometry->layers, bytes = per_layer * layers, tick = tally->tick--;
	struct found found;
	bool first = false;
	int rc = -EAGAIN;

	request->flags &= ~(uint32_t)(SPECKV_REQUEST_EXISTED | SPECKV_REQUEST_STAGED);
	if (request->layer_first >= geometry->layers || layers > (unsigned int)geometry->layers - request->layer_first || !request->buffer ||
	    request->buffer_bytes < bytes)
		return -EINVAL;
	for (int tries = 0; tries < READ_TRIES && rc == -EAGAIN; tries++) {
		if (hint && !tries) {
			found = *hint;
		} else if (!index_find(r, &request->key, &found)) {
			rc = -ENOENT;
			break;
		}
		if (staging_read(pool, &request->key, &found, per_layer * request->layer_first, request->buffer, bytes, &first)) {
			request->flags |= SPECKV_REQUEST_STAGED;
			rc = index_current(r, &found) ? 0 : -EAGAIN;
		} else if (reads) {
			rc = card_fetch(reads, slot, &request->key, &found, request->layer_first, layers, request->buffer, bytes);
		} else {
			rc = block_decode(pool, &request->key, &found, request->layer_first, layers, false, request->buffer, bytes);
		}
	}
	if (rc == -EAGAIN)
		rc = -ENOENT; /* it moves faster than we can read it: a miss */
	if (rc) {
		memset(request->buffer, 0, bytes);
		tally->misses++;
		if (rc == -ENODEV || rc == -EACCES)
			return rc; /* the card does not answer: nothing is known of the block */
		if (rc != -ENOENT) {
			tally->bad++;
			bad_block(pool, &request->key, &found);
			rc = -EBADMSG;
		}
		return rc;
	}
	tally->hits++;
	tally->staged += first;
	tally->raw += bytes;
	tally->stored += found.frame_bytes;
	if (!pool->read_only)
		index_used(r, &found, true, tick);
	return 0;
}

/* What is a part of another count comes after it: a reader that reads the part first sees no share above one. */
static void count_gets(struct speckv_pool *pool, const struct tally *tally)
{
	count(pool, SPECKV_COUNT_HITS, tally->hits);
	count(pool, SPECKV_COUNT_MISSES, tally->misses);
	count(pool, SPECKV_COUNT_BAD, tally->bad);
	count(pool, SPECKV_COUNT_PREFETCH_USED, tally->staged);
	count(pool, SPECKV_COUNT_BYTES_OUT_RAW, tally->raw);
	count(pool, SPECKV_COUNT_BYTES_OUT_STORED, tally->stored);
	if (pool->read_only)
		return;
	if (tally->hits) {
		add(&pool->tenant->hits, tally->hits);
		add(&pool->tenant->bytes_out, tally->raw);
	}
	if (tally->misses)
		add(&pool->tenant->misses, tally->misses);
}

/* Blocks that a look-up was for: those found are wanted when they are fetched, the others now. */
static void count_lookups(struct speckv_pool *pool, uint64_t n, uint64_t hits, uint64_t began)
{
	if (pool->read_only)
		return;
	count(pool, SPECKV_COUNT_LOOKUP_HITS, hits);
	count(pool, SPECKV_COUNT_LOOKUP_MISSES, n - hits);
	if (n > hits)
		add(&pool->tenant->lookup_misses, n - hits);
	count_time(pool, SPECKV_HIST_LOOKUP, clock_ns() - began);
}

/* ---- batches ------------------------------------------------------------------------------------------------------- */

static int one(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *request, uint64_t tick)
{
	struct region *r = &pool->region;
	struct found found;

	switch (opcode) {
	case SPECKV_OP_TOUCH:
		if (!index_find(r, &request->key, &found))
			return -ENOENT;
		index_used(r, &found, false, tick);
		return 0;
	case SPECKV_OP_DROP: {
		struct found all[2 * LAY_BUCKET_SLOTS];
		size_t n = index_find_all(r, &request->key, all);
		uint64_t failed = load_relaxed(&r->flushes_failed);
		int rc = -ENOENT;

		for (size_t i = 0; i < n; i++) /* those first that a drop before left in doubt */
			if (index_doubtful(r, &all[i]) && block_drop(pool, &request->key, &all[i]))
				rc = 0;
		for (int tries = 0; tries < 2 * LAY_BUCKET_SLOTS && index_find(r, &request->key, &found); tries++) {
			if (block_drop(pool, &request->key, &found))
				rc = 0; /* and look for a twin */
			else if (load_relaxed(&r->flushes_failed) != failed)
				return -EIO; /* it would be there again after a power loss, and so it stays */
		}
		return rc;
	}
	case SPECKV_OP_PREFETCH:
		return staging_fill(pool, &request->key);
	default:
		return -EINVAL;
	}
}

static bool full_event_due(struct speckv_pool *pool)
{
	uint64_t last = load_relaxed(&pool->full_event_ns), now = clock_ns();

	return (!last || now - last > 1000000000u) && atomic_compare_exchange_strong(&pool->full_event_ns, &last, now);
}

static int run_puts(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	uint64_t tick = use_ticks(&pool->region, n);
	int done = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t start = clock_ns();

		requests[i].status = block_put(pool, &requests[i], tick--);
		if (requests[i].status == 0) {
			done++;
			if (!(requests[i].flags & SPECKV_REQUEST_EXISTED))
				count_time(pool, SPECKV_HIST_PUT, clock_ns() - start);
			continue;
		}
		count(pool, SPECKV_COUNT_PUT_FAILED, 1);
		if (requests[i].status == -ENOSPC && full_event_due(pool))
			pool_event(&pool->region, SPECKV_EVENT_POOL_FULL, SPECKV_WARNING, "no room for a block: the pool is full");
	}
	return done;
}

/* GCC takes a function that only asks for memory without effect, and drops calls of it: this and the next are inlined always. */
#define ASKING static inline __attribute__((always_inline))

/* The first lines of the next frame: its header and section table would otherwise be waited for. */
ASKING void prefetch_frame(struct region *r, const struct found *found)
{
	const uint8_t *at = r->data + (found->page << r->page_shift);

	for (unsigned int line = 0; line < 8; line++)
		__builtin_prefetch(at + line * 64);
}

/*
 * Ask for a line of every page of a frame, for the sake of the translation: frames lie scattered, and walks of the page table
 * that start together, well before the copy, overlap, where the copy itself would wait for one after the other.
 */
ASKING void prefetch_pages(struct region *r, const struct found *found)
{
	enum { PAGE = 4096, MOST = 17 * PAGE }; /* of a whole group no more than the second-level TLBs hold */
	const uint8_t *at = r->data + (found->page << r->page_shift);
	uint64_t bytes = (uint64_t)found->pages << r->page_shift;

	for (uint64_t offset = 0; offset < bytes && offset < MOST; offset += PAGE)
		__builtin_prefetch(at + offset);
}

static bool layers_asked(struct speckv_pool *pool, const struct speckv_request *request, unsigned int *layers)
{
	unsigned int all = pool->region.fixed.geometry.layers;

	*layers = request->layer_count ? request->layer_count : all - request->layer_first;
	return request->layer_first < all && *layers <= all - request->layer_first;
}

/* From a card: as many reads under way as a lane holds, so that it decodes the next ones while one is copied out. */
static int run_card_gets(struct speckv_pool *pool, struct speckv_request *requests, size_t n, uint64_t tick)
{
	enum { GROUP = 32 };
	struct found found[GROUP];
	uint8_t present[GROUP];
	struct card_reads reads;
	int done = 0;

	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP, sent = 0;
		struct tally tally = { .tick = tick - base };
		unsigned int depth, layers;
		uint64_t start, end;

		index_find_many(&pool->region, &requests[base].key, sizeof(*requests), group, found, present);
		depth = card_io_reads_begin(&pool->region, &reads);
		start = clock_ns();
		for (size_t i = 0; i < group; i++, start = end) {
			struct speckv_request *request = &requests[base + i];

			for (; depth && sent < group && sent < i + depth; sent++)
				if (present[sent] && layers_asked(pool, &requests[base + sent], &layers))
					card_io_read_begin(&reads, (unsigned int)(sent % depth), &requests[base + sent].key, &found[sent],
							requests[base + sent].layer_first, layers, false);
			request->status = block_get(pool, request, present[i] ? &found[i] : NULL, depth ? &reads : NULL, depth ? (unsigned int)(i % depth) : 0,
						    &tally);
			if (request->status == -ENODEV && depth) { /* once more, over a new connection */
				card_io_reads_end(&reads);
				tally.misses--;
				request->status = block_get(pool, request, NULL, NULL, 0, &tally);
				tally.tick++;
				depth = card_io_reads_begin(&pool->region, &reads);
				sent = i + 1;
			}
			end = clock_ns();
			if (request->status == 0) {
				done++;
				count_time(pool, SPECKV_HIST_GET, end - start);
			}
		}
		card_io_reads_end(&reads);
		count_gets(pool, &tally);
	}
	return done;
}

static int run_gets(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	enum { GROUP = 32 };
	struct found found[GROUP];
	uint64_t tick = pool->read_only ? 0 : use_ticks(&pool->region, n);
	uint8_t present[GROUP];
	int done = 0;

	if (pool->region.card)
		return run_card_gets(pool, requests, n, tick);
	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP;
		struct tally tally = { .tick = tick - base };
		uint64_t start, end;

		index_find_many(&pool->region, &requests[base].key, sizeof(*requests), group, found, present);
		for (size_t i = 0; i < group; i++)
			if (present[i])
				prefetch_pages(&pool->region, &found[i]);
		start = clock_ns();
		for (size_t i = 0; i < group; i++, start = end) {
			struct speckv_request *request = &requests[base + i];

			if (i + 1 < group && present[i + 1])
				prefetch_frame(&pool->region, &found[i + 1]);
			request->status = block_get(pool, request, present[i] ? &found[i] : NULL, NULL, 0, &tally);
			end = clock_ns();
			if (request->status == 0) {
				done++;
				count_time(pool, SPECKV_HIST_GET, end - start);
			}
		}
		count_gets(pool, &tally);
	}
	return done;
}

static int run_lookups(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	enum { GROUP = 32 };
	uint64_t began = clock_ns();
	uint8_t present[GROUP];
	int done = 0;

	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP;

		index_find_many(&pool->region, &requests[base].key, sizeof(*requests), group, NULL, present);
		for (size_t i = 0; i < group; i++) {
			requests[base + i].status = present[i] ? 0 : -ENOENT;
			done += present[i];
		}
	}
	count_lookups(pool, n, (uint64_t)done, began);
	return done;
}

static int batch(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests, size_t n)
{
	uint64_t tick;
	int done = 0;

	if (opcode == SPECKV_OP_PUT)
		return run_puts(pool, requests, n);
	if (opcode == SPECKV_OP_GET)
		return run_gets(pool, requests, n);
	if (opcode == SPECKV_OP_LOOKUP)
		return run_lookups(pool, requests, n);
	tick = opcode == SPECKV_OP_TOUCH ? use_ticks(&pool->region, n) : 0;
	for (size_t i = 0; i < n; i++) {
		requests[i].status = one(pool, opcode, &requests[i], tick--);
		done += requests[i].status == 0;
	}
	if (opcode == SPECKV_OP_DROP)
		count(pool, SPECKV_COUNT_DROPS, (uint64_t)done);
	if (opcode == SPECKV_OP_TOUCH)
		count(pool, SPECKV_COUNT_TOUCHES, (uint64_t)done);
	return done;
}

static int lost_text(struct speckv_pool *pool)
{
	return fail(pool->ctx, -ESTALE, "pool %s: its file %s was removed or cut short while it was used; attach again, or create it again",
		    pool->region.fixed.name, pool->region.path);
}

/* -ESTALE where the file was seen to go before or while this call ran: what it stored no other process finds, what it read may be empty memory. */
static inline int unless_lost(struct speckv_pool *pool, int result)
{
	return __builtin_expect(load_relaxed(&pool->region.lost), 0) ? lost_text(pool) : result;
}

int pool_there(struct speckv_pool *pool)
{
	return region_lost(&pool->region) ? lost_text(pool) : 0;
}

int batch_run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests, size_t n)
{
	int done = region_lost(&pool->region) ? 0 : batch(pool, opcode, requests, n);

	if (unless_lost(pool, 0) == 0)
		return done;
	for (size_t i = 0; i < n; i++)
		requests[i].status = -ESTALE;
	return 0;
}

int pool_usable(struct speckv_pool *pool, bool write)
{
	if (__builtin_expect(fork_guard_stale(&pool->region.guard), 0))
		return fail(pool->ctx, -EOWNERDEAD, "this pool was opened before fork(): open it again in the child");
	if (write && pool->read_only)
		return fail(pool->ctx, -EROFS, "this pool was opened read-only");
	if (pool->read_only) { /* who has a client slot keeps the pool from being removed */
		region_pages(&pool->region);
		if (load_relaxed(&pool->region.gone))
			return fail(pool->ctx, -ESTALE, "pool %s was destroyed since it was opened here: open it again", pool->region.fixed.name);
	}
	return 0;
}

static int start(struct speckv_pool *pool, const void *items, size_t n, bool write)
{
	if (!pool)
		return -EINVAL;
	if ((n && !items) || n > INT32_MAX)
		return fail(pool->ctx, -EINVAL, "a batch of %zu without its %s", n, items ? "limit of 2^31 - 1" : "array");
	return pool_usable(pool, write);
}

static int run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests, size_t n)
{
	unsigned int threads = load_relaxed(&pool->threads);

	return __builtin_expect(threads > 1 && n > 1, 0) ? workers_share(pool, opcode, requests, n, threads) : batch_run(pool, opcode, requests, n);
}

int speckv_put(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	int rc = start(pool, requests, n, true);

	return rc ? rc : run(pool, SPECKV_OP_PUT, requests, n);
}

int speckv_get(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	int rc = start(pool, requests, n, false);

	return rc ? rc : run(pool, SPECKV_OP_GET, requests, n);
}

int speckv_lookup(struct speckv_pool *pool, const struct speckv_key *keys, size_t n, uint8_t *present)
{
	uint64_t began;
	int rc = start(pool, keys, n, false), hits = 0;

	if (rc)
		return rc;
	if (n && !present)
		return fail(pool->ctx, -EINVAL, "lookup without an array for its results");
	rc = pool_there(pool);
	if (rc)
		return rc;
	began = clock_ns();
	index_find_many(&pool->region, keys, sizeof(*keys), n, NULL, present);
	for (size_t i = 0; i < n; i++)
		hits += present[i];
	count_lookups(pool, n, (uint64_t)hits, began);
	return unless_lost(pool, hits);
}

int speckv_lookup_prefix(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	enum { GROUP = 32 };
	uint8_t present[GROUP];
	int rc = start(pool, keys, n, false);
	size_t length = 0, looked = 0;
	uint64_t began;

	if (!rc)
		rc = pool_there(pool);
	if (rc)
		return rc;
	began = clock_ns();
	for (bool more = true; more && looked < n;) {
		size_t group = n - looked < GROUP ? n - looked : GROUP;

		index_find_many(&pool->region, keys + looked, sizeof(*keys), group, NULL, present);
		for (size_t i = 0; i < group && more; i++) {
			more = present[i];
			length += present[i];
		}
		looked += group;
	}
	count_lookups(pool, n, length, began); /* behind the first that is missing none is of use */
	return unless_lost(pool, (int)length);
}

static int each(struct speckv_pool *pool, unsigned int opcode, const struct speckv_key *keys, size_t n)
{
	enum { GROUP = 16 };
	struct speckv_request requests[GROUP] = { 0 };
	int done = 0;

	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP;

		for (size_t i = 0; i < group; i++)
			requests[i].key = keys[base + i];
		done += batch_run(pool, opcode, requests, group);
	}
	return unless_lost(pool, done);
}

int speckv_touch(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	int rc = start(pool, keys, n, true);

	return rc ? rc : each(pool, SPECKV_OP_TOUCH, keys, n);
}

int speckv_drop(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	int rc = start(pool, keys, n, true);

	return rc ? rc : each(pool, SPECKV_OP_DROP, keys, n);
}

int speckv_children(struct speckv_pool *pool, const struct speckv_key *key, struct speckv_key *children, size_t max)
{
	struct found found;
	int rc = start(pool, key, 1, false);

	if (rc)
		return rc;
	if (max && !children)
		return fail(pool->ctx, -EINVAL, "children without an array for them");
	rc = pool_there(pool);
	if (rc)
		return rc;
	return unless_lost(pool, index_find(&pool->region, key, &found) ? (int)index_children(&pool->region, &found, children, NULL, max) : 0);
}

// SPDX-License-Identifier: MIT
/*
 * Batches on blocks of one pool: put, get, look up, touch, drop. LAYOUT.md has the order of a put,
 * and the recovery of each step.
 */
#include "pool.h"

#define READ_TRIES 4
#define PUT_TRIES 8

/* ---- put ------------------------------------------------------------------------------------ */

static int encode(struct speckv_pool *pool, unsigned int codec,
	const struct speckv_request *request, struct run *run, uint64_t *frame_bytes)
{
	struct region *r = &pool->region;
	const struct lay_pool *fixed = &r->fixed;
	uint64_t most = speckv_frame_max_bytes(&fixed->geometry, codec);
	struct speckv_frame_identity identity = { .first_position = request->first_position,
		.tenant = pool->tenant_index + 1 };
	int rc = r->backend->connect(r); /* before any eviction */

	if (rc)
		return rc;
	rc = pages_claim(pool, (uint32_t)((most + r->page_bytes - 1) >> r->page_shift), run, 0);
	if (rc)
		return rc;
	memcpy(identity.key, request->key.bytes, sizeof(identity.key));
	memcpy(identity.pool_uuid, fixed->uuid, sizeof(identity.pool_uuid));
	identity.generation = run->generation;
	identity.pool_address = run->page << r->page_shift;
	rc = r->backend->write(r, run, codec, &identity, request->buffer, request->buffer_bytes,
		load_relaxed(&pool->verify), frame_bytes);
	if (rc == -EHWPOISON) {
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

static void adopt(struct speckv_pool *pool, const struct speckv_request *request,
	const struct block_ref *found)
{
	struct block_ref parent;

	if (!(request->flags & SPECKV_REQUEST_HAS_PARENT))
		return;
	if (!index_find(&pool->region, &request->parent, &parent))
		evict_orphan(pool, found);
	else if (parent.entry != found->entry)
		index_adopt(&pool->region, &parent, found);
}

void block_adopt(struct speckv_pool *pool, const struct speckv_request *request)
{
	struct block_ref found;

	if (index_find(&pool->region, &request->key, &found) &&
		!index_adopted(&pool->region, &found)) {
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
	struct block_ref found;
	struct run run;
	int rc, tries = 0;
	bool exact;

	request->flags &= ~(uint32_t)(SPECKV_REQUEST_EXISTED | SPECKV_REQUEST_STAGED);
	if (!request->buffer || request->buffer_bytes != raw)
		return -EINVAL;
	if (index_find(r, &request->key, &found)) {
		request->flags |= SPECKV_REQUEST_EXISTED;
		index_used(r, &found, false, tick);
		/* its parent was evicted and put again */
		if (request->flags & SPECKV_REQUEST_HAS_PARENT && !index_adopted(r, &found))
			adopt(pool, request, &found);
		count(pool, SPECKV_COUNT_PUT_EXISTED, 1);
		return 0;
	}
	do
		rc = encode(pool, codec, request, &run, &frame_bytes);
	while (rc == -EHWPOISON && ++tries < PUT_TRIES); /* retry on other pages after bad memory */
	exact = rc == -ENODATA;
	if (exact) /* values that the codec cannot hold well enough */
		rc = encode(pool, SPECKV_CODEC_LOSSLESS, request, &run, &frame_bytes);
	if (rc == -EOPNOTSUPP)
		rc = encode(pool, SPECKV_CODEC_RAW, request, &run, &frame_bytes);
	if (rc)
		return rc == -EHWPOISON ? -EIO : rc;
	index_fill(r, &run, &request->key, request->first_position, (uint32_t)frame_bytes,
		(uint32_t)raw, pool->tenant_index, tick);
	rc = pages_publish(pool, &run);
	if (rc) {
		index_remove(r, &request->key, region_entry_of(r, run.page), run.generation);
		return rc;
	}
	found = (struct block_ref){ region_entry_of(r, run.page), run.generation, run.page,
		run.pages, (uint32_t)frame_bytes, (uint32_t)raw, pool->tenant_index };
	add_relaxed(&tenant->used_pages, run.pages);
	add_relaxed(&tenant->blocks, 1);
	rc = block_index(pool, &request->key, &run);
	if (rc) {
		/*
		 * sixteen live blocks in both buckets: not expected with a seeded hash at half
		 * load; dropped, not leaked
		 */
		block_drop(pool, &request->key, &found);
		return rc;
	}
	adopt(pool, request, &found);
	count(pool, SPECKV_COUNT_PUTS, 1);
	if (exact)
		count(pool, SPECKV_COUNT_PUT_BIT_EXACT, 1);
	count(pool, SPECKV_COUNT_BYTES_IN_RAW, raw);
	count(pool, SPECKV_COUNT_BYTES_IN_STORED, frame_bytes);
	add_relaxed(&tenant->puts, 1);
	add_relaxed(&tenant->bytes_in, raw);
	return 0;
}

/* ---- get ------------------------------------------------------------------------------------ */

/* The layers of a request; false: out of range. */
static bool layers_of(const struct speckv_pool *pool, const struct speckv_request *request,
	struct layers *layers)
{
	unsigned int all = pool->region.fixed.geometry.layers;

	layers->first = request->layer_first;
	layers->count = request->layer_count ? request->layer_count : all - request->layer_first;
	return request->layer_first < all && layers->count <= all - request->layer_first;
}

static void bad_block(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found)
{
	if (pool->read_only)
		return;
	pool_event(&pool->region, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR,
		"block %02x%02x%02x%02x%02x%02x%02x%02x at page %llu does not verify; dropped, counted as a miss",
		key->bytes[0], key->bytes[1], key->bytes[2], key->bytes[3], key->bytes[4],
		key->bytes[5], key->bytes[6], key->bytes[7], (unsigned long long)found->page);
	block_drop(pool, key, found);
}

int block_get(struct speckv_pool *pool, struct speckv_request *request,
	const struct block_ref *hint, struct reads *reads, unsigned int slot, struct tally *tally)
{
	struct region *r = &pool->region;
	const struct speckv_geometry *geometry = &r->fixed.geometry;
	struct layers layers;
	bool sane = layers_of(pool, request, &layers);
	uint64_t per_layer = r->fixed.block_bytes / geometry->layers,
		 bytes = per_layer * layers.count, tick = tally->tick--;
	struct block_ref found;
	bool first = false;
	int rc = -EAGAIN;

	request->flags &= ~(uint32_t)(SPECKV_REQUEST_EXISTED | SPECKV_REQUEST_STAGED);
	if (!sane || !request->buffer || request->buffer_bytes < bytes)
		return -EINVAL;
	for (int tries = 0; tries < READ_TRIES && rc == -EAGAIN; tries++) {
		if (hint && !tries) {
			found = *hint;
		} else if (!index_find(r, &request->key, &found)) {
			rc = -ENOENT;
			break;
		}
		if (staging_read(pool, &request->key, &found, per_layer * layers.first,
			    request->buffer, bytes, &first)) {
			request->flags |= SPECKV_REQUEST_STAGED;
			rc = index_current(r, &found) ? 0 : -EAGAIN;
		} else if (reads) {
			rc = read_judge(r, &found,
				r->backend->read_take(reads, slot, &request->key, &found, layers,
					request->buffer, bytes));
		} else {
			rc = block_decode(pool, &request->key, &found, layers, false,
				request->buffer, bytes);
		}
	}
	if (rc == -EAGAIN)
		rc = -ENOENT; /* moved READ_TRIES times during the read: a miss */
	if (rc) {
		memset(request->buffer, 0, bytes);
		tally->misses++;
		if (rc == -ENODEV || rc == -EACCES)
			return rc; /* no answer from the device: the block's state is unknown */
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

/*
 * Count a total before its parts: a reader that loads the part first never sees a ratio above one.
 */
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
		add_relaxed(&pool->tenant->hits, tally->hits);
		add_relaxed(&pool->tenant->bytes_out, tally->raw);
	}
	if (tally->misses)
		add_relaxed(&pool->tenant->misses, tally->misses);
}

/* Count the keys of a look-up. Hits count for the tenant when they are fetched, misses here. */
void block_count_lookups(struct speckv_pool *pool, uint64_t n, uint64_t hits, uint64_t began)
{
	if (pool->read_only)
		return;
	count(pool, SPECKV_COUNT_LOOKUP_HITS, hits);
	count(pool, SPECKV_COUNT_LOOKUP_MISSES, n - hits);
	if (n > hits)
		add_relaxed(&pool->tenant->lookup_misses, n - hits);
	count_time(pool, SPECKV_HIST_LOOKUP, clock_ns() - began);
}

/* ---- batches -------------------------------------------------------------------------------- */

static int run_request(struct speckv_pool *pool, unsigned int opcode,
	struct speckv_request *request, uint64_t tick)
{
	struct region *r = &pool->region;
	struct block_ref found;

	switch (opcode) {
	case SPECKV_OP_TOUCH:
		if (!index_find(r, &request->key, &found))
			return -ENOENT;
		index_used(r, &found, false, tick);
		return 0;
	case SPECKV_OP_DROP: {
		struct block_ref all[2 * LAY_BUCKET_SLOTS];
		size_t n = index_find_all(r, &request->key, all);
		uint64_t failed = load_relaxed(&r->flushes_failed);
		int rc = -ENOENT;

		for (size_t i = 0; i < n; i++) /* first those left doubtful by an earlier drop */
			if (index_doubtful(r, &all[i]) && block_drop(pool, &request->key, &all[i]))
				rc = 0;
		for (int tries = 0;
			tries < 2 * LAY_BUCKET_SLOTS && index_find(r, &request->key, &found);
			tries++) {
			if (block_drop(pool, &request->key, &found))
				rc = 0; /* repeat: the key may have a twin */
			else if (load_relaxed(&r->flushes_failed) != failed)
				/* not flushed, so restored: it would return after a power loss */
				return -EIO;
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

	return (!last || now - last > 1000000000u) &&
		atomic_compare_exchange_strong(&pool->full_event_ns, &last, now);
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
			pool_event(&pool->region, SPECKV_EVENT_POOL_FULL, SPECKV_WARNING,
				"no room for a block: the pool is full");
	}
	return done;
}

/*
 * Keep as many reads in progress as the backend allows: later ones are read or prefetched while one
 * is decoded.
 */
static int run_gets(struct speckv_pool *pool, struct speckv_request *requests, size_t n)
{
	enum { GROUP = 32 };
	const struct pool_backend *backend = pool->region.backend;
	uint64_t tick = pool->read_only ? 0 : use_ticks(&pool->region, n);
	struct block_ref found[GROUP];
	uint8_t present[GROUP];
	struct reads reads;
	int done = 0;

	for (size_t base = 0; base < n; base += GROUP) {
		size_t group = n - base < GROUP ? n - base : GROUP, sent = 0;
		struct tally tally = { .tick = tick - base };
		struct layers layers;
		uint64_t start, end;
		unsigned int depth;

		index_find_many(&pool->region, &requests[base].key, sizeof(*requests), group, found,
			present);
		depth = backend->reads_begin(&pool->region, &reads, found, present, group);
		start = clock_ns();
		for (size_t i = 0; i < group; i++, start = end) {
			struct speckv_request *request = &requests[base + i];

			for (; depth && sent < group && sent < i + depth; sent++)
				if (present[sent] &&
					layers_of(pool, &requests[base + sent], &layers))
					backend->read_start(&reads, (unsigned int)(sent % depth),
						&requests[base + sent].key, &found[sent], layers);
			request->status = block_get(pool, request, present[i] ? &found[i] : NULL,
				depth ? &reads : NULL, depth ? (unsigned int)(i % depth) : 0,
				&tally);
			if (request->status == -ENODEV && depth) {
				/* retry over a new connection */
				backend->reads_end(&reads);
				tally.misses--;
				request->status = block_get(pool, request, NULL, NULL, 0, &tally);
				tally.tick++;
				depth = backend->reads_begin(&pool->region, &reads, found + i + 1,
					present + i + 1, group - i - 1);
				sent = i + 1;
			}
			end = clock_ns();
			if (request->status == 0) {
				done++;
				count_time(pool, SPECKV_HIST_GET, end - start);
			}
		}
		if (depth)
			backend->reads_end(&reads);
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

		index_find_many(&pool->region, &requests[base].key, sizeof(*requests), group, NULL,
			present);
		for (size_t i = 0; i < group; i++) {
			requests[base + i].status = present[i] ? 0 : -ENOENT;
			done += present[i];
		}
	}
	block_count_lookups(pool, n, (uint64_t)done, began);
	return done;
}

static int run_group(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n)
{
	uint64_t tick;
	int done = 0;

	pool->region.backend->begin(&pool->region);
	if (opcode == SPECKV_OP_PUT)
		return run_puts(pool, requests, n);
	if (opcode == SPECKV_OP_GET)
		return run_gets(pool, requests, n);
	if (opcode == SPECKV_OP_LOOKUP)
		return run_lookups(pool, requests, n);
	tick = opcode == SPECKV_OP_TOUCH ? use_ticks(&pool->region, n) : 0;
	for (size_t i = 0; i < n; i++) {
		requests[i].status = run_request(pool, opcode, &requests[i], tick--);
		done += requests[i].status == 0;
	}
	if (opcode == SPECKV_OP_DROP)
		count(pool, SPECKV_COUNT_DROPS, (uint64_t)done);
	if (opcode == SPECKV_OP_TOUCH)
		count(pool, SPECKV_COUNT_TOUCHES, (uint64_t)done);
	return done;
}

int batch_run(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n)
{
	int done = region_lost(&pool->region) ? 0 : run_group(pool, opcode, requests, n);

	if (pool_unless_lost(pool, 0) == 0)
		return done;
	for (size_t i = 0; i < n; i++)
		requests[i].status = -ESTALE;
	return 0;
}

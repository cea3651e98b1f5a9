// SPDX-License-Identifier: MIT
/*
 * Resizing a pool in use. Growing adds backing, then publishes the new end. Shrinking retires the
 * free pages above the new end (no client can claim them), moves or drops the blocks there,
 * publishes the new end, and frees the memory. Places for blocks: resize_places.c; the move of one:
 * resize_move.c.
 */
#include <stdlib.h>

#include "resize.h"

#define PUBLISH_TRIES 100

/* ---- shrinking ------------------------------------------------------------------------------ */

/* One pass over the pages above the mark. Returns how many are not yet retired, or an error. */
static int64_t empty_once(struct job *job, uint64_t *busy_word)
{
	struct region *r = &job->pool->region;
	uint64_t left = 0, told = 0;
	char a[32];

	*busy_word = 0;
	/*
	 * retry: a client that holds the resize lock considers this resize abandoned and undoes it
	 */
	if (!job->held)
		job->held = resize_begin(r) == 0;
	if (load_acquire(&r->head->pool.claim_limit) != job->to)
		store_release(&r->head->pool.claim_limit, job->to);
	for (uint64_t p = pages_first_above(r, job->to); p < job->from;) {
		uint64_t word = load_acquire(&r->page_map[p]), seen = word;
		uint32_t n = 1;
		int rc;

		if (job->progress && p >= told) {
			/* before the first block is moved, then every 1,024 pages */
			told = p + 1024;
			if (job->progress(p > job->to ? p - job->to : 0, job->from - job->to,
				    job->arg))
				return fail(job->dev->ctx, -ECANCELED,
					"resize of pool %s was cancelled; its size is unchanged",
					job->name);
		}
		if (word == LAY_FREE) {
			if (p >= job->to)
				left += !atomic_compare_exchange_strong(&r->page_map[p], &seen,
					LAY_RETIRED);
		} else if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			n = lay_value(word);
			rc = move_block(job, p, NULL);
			if (rc == -ENOSPC && job->evict) {
				/* evict the less recently used of the two */
				if (pages_evict(job->pool, n, job->to,
					    load_relaxed(&r->entries[region_entry_of(r, p)].used)) ==
					EVICT_DONE)
					rc = move_block(job, p, NULL);
				if (rc == -ENOSPC)
					rc = drop_block(job, p);
			}
			if (rc == -ENOSPC)
				return fail(job->dev->ctx, -ENOSPC,
					"pool %s holds more than %s of blocks; drop some, or evict the least recently used: --evict",
					job->name, human(a, job->to * r->page_bytes));
			if (rc && rc != -EAGAIN)
				return rc;
			left += n; /* retired in the next pass */
		} else if (word != LAY_RETIRED) {
			if (lay_state(word) == LAY_CLAIMED)
				*busy_word = word;
			left++;
		}
		p += n;
	}
	return (int64_t)left;
}

/* Move blocks to their planned places. empty_once() handles any that changed meanwhile. */
static int follow_places(struct job *job, const struct place *places, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++) {
		if (job->progress && i % 1024 == 0 &&
			job->progress(0, job->from - job->to, job->arg))
			return fail(job->dev->ctx, -ECANCELED,
				"resize of pool %s was cancelled; its size is unchanged",
				job->name);
		rc = move_block(job, places[i].page, &places[i]);
		rc = rc == -EAGAIN || rc == -ENOSPC ? 0 : rc;
	}
	return rc;
}

static int shrink(struct job *job)
{
	struct region *r = &job->pool->region;
	uint64_t patience = clock_ns() + PATIENCE_NS, word;
	int64_t left, least = INT64_MAX;
	struct place *places = NULL;
	size_t n = 0;
	int rc;

	store_release(&r->head->pool.claim_limit, job->to); /* no client claims above it any more */
	rc = claims_end(job); /* before the first block is moved or evicted */
	if (!rc)
		rc = places_below(job, &places, &n);
	if (!rc)
		rc = follow_places(job, places, n);
	free(places);
	for (left = rc; !rc;) {
		left = empty_once(job, &word);
		if (left <= 0)
			break;
		clients_reap(job->pool, NULL);
		if (left < least) {
			least = left;
			patience = clock_ns() + PATIENCE_NS;
		} else if (clock_ns() > patience) {
			left = word
				? busy_above(job, word)
				: fail(job->dev->ctx, -EUCLEAN,
					  "pool %s cannot shrink: %lld pages above the new end are leaked; 'speckvctl pool check %s %s --repair' fixes it",
					  job->name, (long long)left, job->dev->medium.name,
					  job->name);
			break;
		}
		nanosleep(&(struct timespec){ .tv_nsec = word ? 5000000 : 1000000 }, NULL);
	}
	if (left < 0) {
		resize_undo(r);
		return (int)left;
	}
	return 0;
}

/*
 * Clients claim below the smaller of both sizes until the new one is on the medium. -EAGAIN, the
 * size unchanged: a client with the old limit claimed a page that a late undo of an earlier resize
 * had freed. Later claims detect the change of size and release their run.
 */
static int publish_size(struct job *job, uint64_t pages)
{
	struct region *r = &job->pool->region;
	struct lay_pool *pool = &r->head->pool;
	int rc;

	store_release(&pool->claim_limit, job->from < job->to ? job->from : job->to);
	store_release(&pool->data_pages, pages);
	atomic_fetch_add(&pool->size_sequence, 1);
	atomic_thread_fence(memory_order_seq_cst);
	if (pages < job->from && pages_claimed_above(r, pages, job->from)) {
		/* the smaller size may have been written back already */
		rc = resize_store(r, job->from);
		if (!rc)
			return -EAGAIN;
	} else {
		rc = region_flush(r, r->head, sizeof(r->head->pool));
		if (rc)
			resize_store(r, job->from);
	}
	if (rc) {
		fail_text(job->dev->ctx, "pool %s: %s cannot be written: %s; its size is unchanged",
			job->name, r->path, strerror(-rc));
		resize_undo(r);
		return rc;
	}
	store_release(&pool->claim_limit, 0);
	atomic_fetch_add(&pool->size_sequence, 1);
	atomic_fetch_add(&pool->freed, 1); /* failed searches may be repeated */
	return rc;
}

/* Private, checked copy of a record that others may write. */
static int copy_record(struct job *job, struct lay_pool_record *copy)
{
	if (record_copy(job->dev, job->pool->region.record, copy) && record_sane(job->dev, copy) &&
		(!job->dev->single_inode || copy->extents >= 1))
		return 0;
	return fail(job->dev->ctx, -EUCLEAN, "pool %s: its record in the table of %s is damaged",
		job->name, job->dev->medium.name);
}

/* Free what a failed growth had allocated. */
static void shrink_back(struct job *job, struct lay_pool_record *record,
	const struct lay_pool_record *old)
{
	if (job->dev->single_inode) {
		memcpy(record->extent, old->extent, sizeof(record->extent));
		record->extents = old->extents;
	} else {
		region_release_backing(&job->pool->region, job->from, job->to);
	}
}

/* `old`: a checked copy of the record. */
static int add_extent(struct job *job, struct lay_pool_record *record,
	const struct lay_pool_record *old, uint64_t bytes)
{
	uint32_t last = old->extents - 1;
	struct lay_extent extent;
	uint64_t end = old->extent[last].offset + old->extent[last].bytes,
		 free_bytes = device_largest_free(job->dev, NULL);
	char a[32], b[32];

	if (device_extent_alloc(job->dev, bytes, &extent) != 0)
		return fail(job->dev->ctx, -ENOSPC,
			"pool %s needs %s more in one piece, and %s has %s", job->name,
			human(a, bytes), job->dev->medium.name, human(b, free_bytes));
	if (extent.offset == end) {
		if (!job->dry_run)
			record->extent[last].bytes = old->extent[last].bytes + bytes;
		return 0;
	}
	if (old->extents == LAY_EXTENTS)
		return fail(job->dev->ctx, -ENOSPC, "pool %s is in %d pieces already, the maximum",
			job->name, LAY_EXTENTS - 1);
	if (job->dry_run)
		return 0;
	record->extent[last + 1] = extent;
	/* the extent before its count */
	atomic_thread_fence(memory_order_seq_cst);
	record->extents = last + 2;
	return 0;
}

/* Check for room. On a single inode, add the extent to the record. */
static int make_room(struct job *job, struct lay_pool_record *record,
	const struct lay_pool_record *old)
{
	struct region *r = &job->pool->region;
	uint64_t bytes = (job->to - job->from) * r->page_bytes, room;
	char a[32], b[32];
	int rc = job->dev->medium.backend->pool_resize(job->dev, record, job->to * r->page_bytes,
		job->dry_run);

	if (rc || !r->data) /* no data here: the tables have room for the largest size */
		return rc;
	if (job->dev->single_inode)
		return add_extent(job, record, old, bytes);
	room = medium_available(&job->dev->medium);
	return bytes + bytes / 64 > room
		? fail(job->dev->ctx, -ENOSPC,
			  "pool %s needs %s more, and %s (%s) has %s free (%llu bytes)", job->name,
			  human(a, bytes), job->dev->medium.name, r->path, human(b, room),
			  (unsigned long long)room)
		: 0;
}

static int room_to_grow(struct job *job, struct lay_pool_record *record)
{
	struct lay_pool_record old;
	int rc = copy_record(job, &old);

	return rc ? rc : make_room(job, record, &old);
}

static int grow_pool(struct job *job, struct lay_pool_record *record)
{
	struct region *r = &job->pool->region;
	struct lay_pool_record old, grown;
	char a[32], words[SPACE_WORDS];
	int rc;

	rc = copy_record(job, &old);
	if (!rc)
		rc = make_room(job, record, &old);
	if (rc)
		return rc;
	rc = copy_record(job, &grown);
	if (!rc)
		rc = region_grow_backing(r, job->from, job->to, &grown);
	if (rc) {
		space_words(words, r->fd, (job->to - job->from) * r->page_bytes, -rc);
		shrink_back(job, record, &old);
		return fail(job->dev->ctx, rc, "pool %s (%s) cannot grow to %s: %s", job->name,
			r->path, human(a, job->to * r->page_bytes), words);
	}
	if (job->dev->single_inode) /* may hold another pool's old data */
		memset(r->data + job->from * r->page_bytes, 0,
			(job->to - job->from) * r->page_bytes);
	pages_unretire(r, job->from, job->to);
	rc = device_flush(job->dev); /* the extents before the size that needs them */
	if (!rc)
		rc = publish_size(job, job->to);
	if (rc)
		shrink_back(job, record, &old);
	return rc;
}

/*
 * Take the resize lock. A client may hold it while it undoes a dead manager's shrink. The manager's
 * lock already excludes other resizes, so after PATIENCE_NS go on without it: a late undo is
 * redone, and publish_size() rechecks.
 */
static int begin_resize(struct job *job)
{
	uint64_t patience = clock_ns() + PATIENCE_NS;
	int rc;

	while ((rc = resize_begin(&job->pool->region)) == -EAGAIN && clock_ns() < patience)
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	job->held = rc == 0;
	return rc && rc != -EAGAIN ? fail(job->dev->ctx, rc, "pool %s: cannot lock its size: %s",
					     job->name, strerror(-rc))
				   : 0;
}

static int shrink_and_publish(struct job *job)
{
	struct region *r = &job->pool->region;
	int rc = -EAGAIN;

	for (int tries = 0; rc == -EAGAIN && tries < PUBLISH_TRIES; tries++) {
		rc = shrink(job);
		if (rc)
			return rc;
		rc = publish_size(job, job->to);
	}
	if (rc == -EAGAIN) {
		resize_undo(r);
		return fail(job->dev->ctx, -EBUSY,
			"pool %s cannot shrink: its clients keep claiming pages above the new end; try again",
			job->name);
	}
	return rc;
}

/* A dry run maps the pool without becoming a client: no rebuild, no mark, no slot. */
static int look_at(struct job *job)
{
	int rc;

	job->pool = calloc(1, sizeof(*job->pool));
	if (!job->pool)
		return fail(job->dev->ctx, -ENOMEM, "out of memory");
	job->pool->ctx = job->dev->ctx;
	rc = region_open_managed(job->dev, job->name, &job->pool->region);
	if (rc)
		free(job->pool);
	else
		job->undone =
			load_acquire(&job->dev->table->pools[job->pool->region.record].state) ==
			SPECKV_POOL_RESIZING;
	return rc;
}

static int would_fit(struct job *job)
{
	struct place *places = NULL;
	size_t n;
	int rc = claims_end(job);

	if (!rc)
		rc = places_below(job, &places, &n);
	free(places);
	return rc;
}

/* Is the new size another, within the limit, and enough for a block? Text set. */
static int size_check(struct job *job, uint64_t capacity)
{
	const struct region *r = &job->pool->region;
	uint64_t block_pages = (speckv_frame_max_bytes(&r->fixed.geometry, SPECKV_CODEC_RAW) +
				       r->page_bytes - 1) >>
		r->page_shift;
	char a[32], b[32];

	if (job->to == job->from)
		return fail(job->dev->ctx, -EALREADY, "pool %s has that size already (%s)",
			job->name, human(a, capacity));
	if (job->to > r->fixed.max_pages)
		return fail(job->dev->ctx, -ENOSPC,
			"pool %s can grow to %s at most (--max-size at creation), not to %s",
			job->name, human(a, r->fixed.max_pages * r->page_bytes),
			human(b, capacity));
	if (job->to < block_pages)
		return fail(job->dev->ctx, -EINVAL, "a pool of %s cannot hold even one block",
			human(a, capacity));
	return 0;
}

static int resize(struct job *job, struct lay_pool_record *record, uint64_t capacity)
{
	struct region *r = &job->pool->region;
	uint64_t quota;
	char a[32], b[32];
	int rc = begin_resize(job);

	if (rc)
		return rc;
	quota = load_acquire(&r->head->pool.quota_pages);
	store_release(&record->state, SPECKV_POOL_RESIZING);
	rc = device_flush(job->dev);
	/* a quota of the whole pool follows its size, and is never below it during a growth */
	if (!rc && job->to > job->from && quota == job->from)
		store_release(&r->head->pool.quota_pages, job->to);
	if (!rc)
		rc = job->to > job->from ? grow_pool(job, record) : shrink_and_publish(job);
	if (rc)
		store_release(&r->head->pool.quota_pages, quota);
	if (!rc && job->to < job->from) {
		region_release_backing(r, job->to, job->from);
		/* on failure the next manager resizes on the device */
		r->backend->clear(r, job->to, job->from - job->to);
		job->dev->medium.backend->pool_resize(job->dev, record, capacity, false);
		if (job->dev->single_inode)
			extents_cut(record, r->fixed.data_offset + capacity);
	}
	if (!rc) {
		if (quota == job->from || quota > job->to)
			store_release(&r->head->pool.quota_pages, job->to);
		record->capacity_bytes = capacity;
		add_relaxed(&r->head->pool.resizes, 1);
		pool_event(r, SPECKV_EVENT_POOL_RESIZED, SPECKV_INFO, "resized from %s to %s",
			human(a, job->from << r->page_shift), human(b, capacity));
	}
	/* if this fails the next manager takes the size from the pool's header */
	if (!rc)
		rc = device_flush(job->dev);
	/* not flushed: only the new size can be on the medium by now */
	store_release(&record->state, SPECKV_POOL_ACTIVE);
	if (job->held)
		resize_end(r);
	return rc;
}

int speckv_pool_resize(struct speckv_device *dev, const char *name, uint64_t capacity_bytes,
	unsigned int flags, speckv_progress_cb progress, void *arg, struct speckv_pool_info *info)
{
	struct speckv_attach attach = { .flags = ATTACH_MANAGER };
	struct job job = { .dev = dev,
		.name = name,
		.evict = flags & SPECKV_RESIZE_EVICT,
		.progress = progress,
		.arg = arg };
	struct lay_pool_record *record;
	uint64_t capacity;
	int rc;

	if (!dev || !name)
		return -EINVAL;
	job.dry_run = flags & SPECKV_RESIZE_DRY_RUN;
	if (!capacity_bytes || capacity_bytes > 1ull << 56)
		return fail(dev->ctx, -EINVAL, "pool %s cannot have a size of %llu bytes", name,
			(unsigned long long)capacity_bytes);
	capacity = (capacity_bytes + LAY_UNIT - 1) / LAY_UNIT * LAY_UNIT;
	rc = job.dry_run ? device_inspect(dev) : device_manage(dev);
	if (rc)
		return rc;
	rc = job.dry_run ? look_at(&job) : pool_attach(dev, name, &attach, &job.pool);
	if (rc) {
		device_unmanage(dev);
		return rc;
	}
	record = &dev->table->pools[job.pool->region.record];
	job.from = job.undone ? resize_ends_at(&job.pool->region,
					record->capacity_bytes >> job.pool->region.page_shift)
			      : region_pages(&job.pool->region);
	job.to = capacity >> job.pool->region.page_shift;
	rc = size_check(&job, capacity);
	if (!rc && job.dry_run)
		rc = job.to > job.from ? room_to_grow(&job, record) : would_fit(&job);
	else if (!rc)
		rc = resize(&job, record, capacity);
	if (job.dry_run) {
		region_close(&job.pool->region);
		free(job.pool);
	} else {
		speckv_pool_close(job.pool);
	}
	device_unmanage(dev);
	return !rc && info ? speckv_pool_info(dev, name, info) : rc;
}

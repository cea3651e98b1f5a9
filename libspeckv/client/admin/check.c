// SPDX-License-Identifier: MIT
/*
 * Check and repair of a pool, from the page map and the frames, and of its lock file.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "admin.h"

/* ---- check ---------------------------------------------------------------------------------- */

struct check {
	struct speckv_pool *pool;
	struct speckv_check_report *report;
	bool deep, repair;
	unsigned int waits; /* for clients that have published a block and not yet indexed it */
};

#define WAITS 200

/* Does a look-up find the block, or is it gone? Waits for a client that is still indexing it. */
static bool indexed_soon(struct check *c, const struct speckv_key *key, const struct run *run,
	uint64_t word)
{
	struct region *r = &c->pool->region;

	for (;; c->waits++) {
		if (block_indexed(r, key, run) || load_acquire(&r->page_map[run->page]) != word)
			return true;
		if (c->waits >= WAITS)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

/* Is the block doubtful (its invalidate sent, the completion lost)? A repair drops it. */
static bool check_doubtful(struct check *c, uint64_t page)
{
	struct region *r = &c->pool->region;
	struct block_ref found;
	struct speckv_key key;

	if (r->data || !index_entry(r, region_entry_of(r, page), &found, &key) ||
		found.page != page || !index_doubtful(r, &found))
		return false;
	c->report->repaired += c->repair && block_drop(c->pool, &key, &found);
	return true;
}

/* -ENODEV, -EACCES: no answer from the device; the block's state is unknown. */
static int check_block(struct check *c, uint64_t page, uint64_t word)
{
	struct region *r = &c->pool->region;
	struct run run = {
		.page = page, .generation = lay_generation(word), .pages = lay_value(word)
	};
	struct block_ref found;
	struct speckv_frame frame;
	struct speckv_key key;
	bool known;
	int rc;

	if (check_doubtful(c, page))
		return 0;
	c->report->blocks++;
	rc = frame_run_whole(r, page, word, region_pages(r))
		? frame_sound(r, page, run.pages, run.generation, c->deep, &frame)
		: -EBADMSG;
	known = !rc && index_entry(r, region_entry_of(r, page), &found, &key) && found.page == page;
	if (!rc && known && memcmp(key.bytes, frame.identity.key, sizeof(key.bytes)) != 0)
		known = false;
	if (rc == -ENODEV || rc == -EACCES)
		return rc;
	if (load_acquire(&r->page_map[page]) != word || (rc && check_doubtful(c, page))) {
		/* gone or replaced meanwhile */
		c->report->blocks--;
		return 0;
	}
	if (!rc) {
		c->report->blocks_verified += c->deep;
		if (known && indexed_soon(c, &key, &run, word))
			return 0;
		memcpy(key.bytes, frame.identity.key, sizeof(key.bytes));
		if (load_acquire(&r->page_map[page]) != word)
			return 0;
		c->report->blocks_unindexed++;
		if (!c->repair)
			return 0;
		if (!known) { /* only the owner of the head page may write the entry: claim it */
			if (!pages_unpublish(c->pool, &run))
				return 0;
			index_fill(r, &run, &key, frame.identity.first_position,
				(uint32_t)frame.frame_bytes, (uint32_t)frame.raw_bytes,
				frame_tenant(r, &frame), use_tick(r));
			if (pages_publish(c->pool, &run))
				return 0;
		}
		c->report->repaired += block_index(c->pool, &key, &run) == 0;
		return 0;
	}
	c->report->blocks_bad++;
	pool_event(r, SPECKV_EVENT_BAD_BLOCK, SPECKV_ERROR,
		"check: the block at page %llu does not verify%s", (unsigned long long)page,
		c->repair ? "; dropped" : "");
	if (c->repair && pages_unpublish(c->pool, &run)) {
		if (index_entry(r, region_entry_of(r, page), &found, &key))
			index_remove(r, &key, found.entry, found.generation);
		pages_release(r, c->pool->owner, &run);
		c->report->repaired++;
	}
	return 0;
}

/* A claim by a client that is not attached: a leak, unless it disappears during the check. */
static uint64_t check_claim(struct check *c, uint64_t page, uint64_t word, uint64_t pages)
{
	struct region *r = &c->pool->region;
	unsigned int slot = lay_value(word) >> 12;
	uint64_t state = load_acquire(&r->head->clients[slot].state);
	struct run run = { .page = page, .generation = lay_generation(word), .pages = 1 };

	while (page + run.pages < pages &&
		load_acquire(&r->page_map[page + run.pages]) ==
			lay_word(LAY_CONT, run.pages, run.generation))
		run.pages++;
	if (state & 1 && (state >> 8 & 0xfff) == (lay_value(word) & 0xfff) &&
		client_alive(r, slot)) {
		c->report->pages_allocated += run.pages;
		return run.pages;
	}
	if (load_acquire(&r->page_map[page]) != word)
		return 1;
	c->report->pages_leaked += run.pages;
	if (c->repair) {
		pages_release(r, lay_value(word), &run);
		c->report->repaired++;
	}
	return run.pages;
}

static void check_orphan(struct check *c, uint64_t page, uint64_t word)
{
	struct region *r = &c->pool->region;
	uint32_t back = lay_value(word);
	uint64_t head = back <= page ? load_acquire(&r->page_map[page - back]) : 0;
	uint64_t expected = word;

	/* part of a run claimed, trimmed or freed meanwhile */
	if (head && lay_generation(head) == lay_generation(word) && lay_state(head) != LAY_CONT &&
		(lay_state(head) != LAY_HEAD || lay_value(head) > back))
		return;
	if (load_acquire(&r->page_map[page]) != word)
		return;
	c->report->pages_leaked++;
	if (c->repair)
		c->report->repaired +=
			atomic_compare_exchange_strong(&r->page_map[page], &expected, LAY_FREE);
}

static void check_directory(struct check *c)
{
	struct region *r = &c->pool->region;

	for (uint64_t b = 0; b <= r->fixed.bucket_mask; b++)
		for (int i = 0; i < LAY_BUCKET_SLOTS; i++) {
			_Atomic uint64_t *slot = &r->directory[b].slots[i];
			uint64_t word = load_acquire(slot);
			struct block_ref found;
			struct speckv_key key;

			if (!word || index_entry(r, (uint32_t)word - 1ull, &found, &key) ||
				load_acquire(slot) != word)
				continue;
			c->report->index_stale++;
			if (c->repair)
				c->report->repaired +=
					atomic_compare_exchange_strong(slot, &word, 0);
		}
}

/* Check every page. -ECANCELED, or as check_block(); no text. */
static int check_pages(struct check *c, uint64_t pages, speckv_progress_cb progress, void *arg)
{
	struct speckv_check_report *report = c->report;
	uint64_t told = 0;
	int rc;

	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load_acquire(&c->pool->region.page_map[p]), step = 1;

		if (progress && p >= told) {
			told = p + pages / 200 + 1;
			if (progress(p, pages, arg))
				return -ECANCELED;
		}
		switch (lay_state(word)) {
		case LAY_FREE:
			report->pages_free++;
			break;
		case LAY_HEAD:
			rc = check_block(c, p, word);
			if (rc)
				return rc;
			step = lay_value(word) && lay_value(word) <= pages - p ? lay_value(word)
									       : 1;
			report->pages_used += step;
			break;
		case LAY_CLAIMED:
			step = check_claim(c, p, word, pages);
			break;
		default:
			check_orphan(c, p, word);
		}
		p += step;
	}
	return 0;
}

int speckv_pool_check(struct speckv_device *dev, const char *name, unsigned int flags,
	speckv_progress_cb progress, void *arg, struct speckv_check_report *report)
{
	/* without repair it is no client: a read-only mapping */
	struct speckv_attach attach = { .flags = ATTACH_MANAGER |
			(flags & SPECKV_CHECK_REPAIR ? ATTACH_KEEP_DEAD
						     : SPECKV_ATTACH_READ_ONLY) };
	struct check c = { .report = report,
		.deep = flags & SPECKV_CHECK_DEEP,
		.repair = flags & SPECKV_CHECK_REPAIR };
	unsigned int dead = 0;
	uint64_t pages;
	int rc;

	if (!dev || !report)
		return -EINVAL;
	memset(report, 0, sizeof(*report));
	rc = c.repair ? pool_lock_restore(dev, name) : 0;
	if (rc < 0)
		return rc;
	report->repaired = (uint64_t)rc;
	rc = pool_attach(dev, name, &attach, &c.pool);
	if (rc)
		return rc;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		dead += load_acquire(&c.pool->region.head->clients[slot].state) & 1 &&
			!client_alive(&c.pool->region, slot);
	report->clients_dead = dead;
	if (c.repair && dead) {
		uint64_t back;

		clients_reap(c.pool, &back);
		report->repaired += dead;
	}
	pages = region_pages(&c.pool->region);
	report->pages = pages;
	rc = check_pages(&c, pages, progress, arg);
	if (rc) {
		speckv_pool_close(c.pool);
		return rc == -ECANCELED
			? fail(dev->ctx, rc, "check of pool %s was cancelled", name)
			: fail(dev->ctx, rc,
				  "pool %s: %s went away during the check; check it again when it is back",
				  name, dev->medium.name);
	}
	check_directory(&c);
	if (progress)
		progress(pages, pages, arg);
	if (c.repair && report->repaired) {
		pages_recount(&c.pool->region);
		pool_event(&c.pool->region, SPECKV_EVENT_CHECK_REPAIRED, SPECKV_INFO,
			"check repaired %llu things", (unsigned long long)report->repaired);
	}
	speckv_pool_close(c.pool);
	if (report->blocks_bad || report->blocks_unindexed || report->pages_leaked)
		return c.repair
			? 0
			: fail(dev->ctx, -EUCLEAN,
				  "pool %s: %llu bad blocks, %llu blocks not in the index, %llu leaked pages; 'speckvctl pool check %s %s --repair' fixes it",
				  name, (unsigned long long)report->blocks_bad,
				  (unsigned long long)report->blocks_unindexed,
				  (unsigned long long)report->pages_leaked, dev->medium.name, name);
	return 0;
}

/*
 * Does the lock file or the record need repair? The pool's file is authoritative: a manager that
 * changed its owner may have died before the others. A file with more write permission than its
 * record is left alone.
 */
static bool lock_wrong(struct speckv_device *dev, const char *pool, struct lay_pool_record *record,
	struct folder *pools)
{
	char name[48];
	struct stat st;

	*pools = (struct folder){ .fd = -1 };
	if (device_look(dev, pool, record) < 0 ||
		medium_pools(dev->ctx, &dev->medium, &dev->folder, 0, pools) != 0 ||
		fstatat(pools->fd, record->name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		!S_ISREG(st.st_mode) || st.st_mode & ~record->mode & (S_IWGRP | S_IWOTH))
		return false;
	pool_hidden_name(record, "lock", name);
	if (faccessat(pools->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
		!pool_lock_differs(pools, name, &st) &&
		pool_file_owned(&st, record, (mode_t)record->mode))
		return false;
	record->uid = st.st_uid;
	record->gid = st.st_gid;
	record->mode = st.st_mode & 0777;
	return true;
}

int pool_lock_restore(struct speckv_device *dev, const char *pool)
{
	struct lay_pool_record record, *kept;
	struct folder pools;
	bool settle = false, wrong;
	int rc;

	if (dev->single_inode || !device_may_manage(dev))
		return 0;
	wrong = lock_wrong(dev, pool, &record, &pools);
	folder_close(&pools);
	rc = wrong ? device_manage(dev) : 0;
	if (rc || !wrong)
		return rc;
	wrong = lock_wrong(dev, pool, &record, &pools); /* again, under the manager's lock */
	if (wrong) {
		kept = &dev->table->pools[device_look(dev, pool, &(struct lay_pool_record){ 0 })];
		/* recovery of a dead manager's work needed the locks */
		settle = load_acquire(&kept->state) > SPECKV_POOL_ACTIVE;
		rc = pool_lock_make(&pools, &record);
		if (!rc)
			rc = folder_flush(&pools);
		if (rc)
			fail(dev->ctx, rc, "pool %s: cannot make its locks: %s", pool,
				strerror(-rc));
	}
	if (wrong && !rc) {
		kept->uid = record.uid;
		kept->gid = record.gid;
		kept->mode = record.mode;
	}
	folder_close(&pools);
	device_unmanage(dev);
	if (!rc && settle)
		device_settle(dev);
	return rc ? rc : wrong;
}

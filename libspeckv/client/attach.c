// SPDX-License-Identifier: MIT
/*
 * This process as a client of a pool. A client is a slot in the pool's client table and an OFD lock on that slot's byte: the
 * kernel drops the lock when the process dies, so "does the holder live" needs no pid, no clock and no heartbeat.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define JOIN_TRIES 200 /* of a millisecond: for a client that has its slot's lock to enter itself there */

static long long slot_byte(struct region *r, unsigned int slot)
{
	return LAY_LOCK_CLIENT(r->dev->single_inode ? r->record : 0, r->fixed.generation, slot);
}

/* A manager that no lock in the pool's file shows: its other lock is not for every user to see. */
static bool unseen_alive(struct region *r, unsigned int slot, uint64_t state)
{
	struct speckv_device *dev = r->dev;

	return slot == LAY_SLOT_MANAGER && state & LAY_CLIENT_UNSEEN &&
	       (dev->lock_fd < 0 || load(&dev->manager_slots) >> r->record & 1 || lock_holder(dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record), NULL));
}

int client_alive(struct region *r, unsigned int slot)
{
	return (int)slot == r->own_slot || lock_holder(r->lock_fd, slot_byte(r, slot), NULL) || unseen_alive(r, slot, load(&r->head->clients[slot].state));
}

/* Give back every run that client `slot` of this incarnation holds. False: not all, a card does not answer. */
static bool sweep(struct region *r, unsigned int slot, uint64_t incarnation, bool dead, uint64_t *back)
{
	uint32_t owner = lay_owner(slot, incarnation);
	uint64_t pages = region_pages(r);
	bool all = true;

	*back = 0;
	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&r->page_map[p]);
		struct run run = { .page = p, .generation = lay_generation(word), .pages = 1 };

		if (lay_state(word) == LAY_HEAD && lay_value(word)) {
			p += lay_value(word);
			continue;
		}
		if (lay_state(word) == LAY_CLAIMED && lay_value(word) == owner) {
			while (p + run.pages < pages && load(&r->page_map[p + run.pages]) == lay_word(LAY_CONT, run.pages, run.generation))
				run.pages++;
			/* a block that was being dropped may still lie there, and would rise from a card when its index is made again */
			if (dead && card_io_clear(r, run.page, run.pages) != 0) {
				all = false;
			} else {
				pages_release(r, owner, &run);
				*back += run.pages;
			}
		}
		p += run.pages;
	}
	return all;
}

void client_finish_move(struct region *r, unsigned int slot, uint64_t incarnation)
{
	struct lay_client *client = &r->head->clients[slot];
	uint32_t owner = lay_owner(slot, incarnation);
	uint64_t pages = region_pages(r), from = load(&client->move_from), to = load(&client->move_to), generation = load(&client->move_to_generation);
	uint64_t word = lay_word(LAY_CLAIMED, owner, generation);
	uint32_t n = 1;

	if (generation && generation <= LAY_GENERATION_MASK && to < pages && from < pages &&
	    load(&r->page_map[from]) == lay_word(LAY_CLAIMED, owner, load(&client->move_from_generation) & LAY_GENERATION_MASK)) {
		while (to + n < pages && n < LAY_RUN_MAX && load(&r->page_map[to + n]) == lay_word(LAY_CONT, n, generation))
			n++;
		atomic_compare_exchange_strong(&r->page_map[to], &word, lay_word(LAY_HEAD, n, generation));
	}
	atomic_compare_exchange_strong(&client->move_to_generation, &generation, 0); /* and not that of a client that came since */
}

/* Blocks that a client published and did not live to index, and twins that it did not live to settle. */
static void reindex(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	uint64_t pages = region_pages(r);

	for (uint64_t p = 0; p < pages;) {
		uint64_t word = load(&r->page_map[p]);
		struct run run = { .page = p, .generation = lay_generation(word), .pages = lay_value(word) };
		struct found found;
		struct speckv_key key;

		if (lay_state(word) != LAY_HEAD || !lay_value(word)) {
			p++;
			continue;
		}
		if (index_entry(r, region_entry_of(r, p), &found, &key) && found.page == p && found.generation == run.generation) {
			if (block_indexed(r, &key, &run))
				settle_twins(pool, &key);
			else
				block_index(pool, &key, &run);
		}
		p += lay_value(word);
	}
}

/* Give back what the dead client of this slot and state held; the caller keeps others from the slot. True: a client was, and is settled. */
static bool slot_reap(struct region *r, unsigned int slot, uint64_t state, uint64_t *back)
{
	struct lay_client *client = &r->head->clients[slot];
	uint64_t got;
	char command[64], size[32];
	uint32_t tenant;

	if (!(state & 1))
		return false;
	client_finish_move(r, slot, state >> 8);
	if (!sweep(r, slot, state >> 8, true, &got))
		return false; /* the next who looks may reach the card */
	*back += got;
	tenant = load(&client->tenant);
	memcpy(command, client->command, sizeof(command));
	command[63] = 0;
	pool_event(r, SPECKV_EVENT_CLIENT_DIED, SPECKV_WARNING, "pid %u (%s) died, tenant %.40s; %s taken back", client->pid, command,
		   tenant < LAY_TENANTS ? r->head->tenants[tenant].name : "?", human(size, got * r->page_bytes));
	store(&client->allocated_pages, 0);
	atomic_compare_exchange_strong(&client->state, &state, state & ~0xffull);
	return true;
}

/* After slot_reap(). */
static void reaped(struct speckv_pool *pool, uint64_t back)
{
	reindex(pool);
	pages_recount(&pool->region);
	add(&pool->region.head->stats.counters[SPECKV_COUNT_RECLAIMED_PAGES], back);
}

int clients_reap(struct speckv_pool *pool, uint64_t *pages_back)
{
	struct region *r = &pool->region;
	uint64_t back = 0, state;
	int dead = 0;

	pthread_mutex_lock(&r->reaping);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		if (!(load(&r->head->clients[slot].state) & 1) || client_alive(r, slot))
			continue;
		/* the slot's own lock keeps other processes from reaping it, or taking it, at the same time */
		if (lock_byte(r->lock_fd, slot_byte(r, slot)) != 0)
			continue;
		state = load(&r->head->clients[slot].state);
		if (!unseen_alive(r, slot, state)) /* the next manager may have come before this process had the lock, or just after */
			dead += slot_reap(r, slot, state, &back);
		unlock_byte(r->lock_fd, slot_byte(r, slot));
	}
	if (dead)
		reaped(pool, back);
	pthread_mutex_unlock(&r->reaping);
	if (pages_back)
		*pages_back = back;
	return dead;
}

/*
 * Is a client attached through this slot? client_join() takes the slot's lock, sees that the pool is not being removed, and only then enters
 * itself: a lock without an entry is waited for until it is one or the other. A process that was stopped in between counts as attached.
 */
static bool slot_taken(struct region *r, unsigned int slot)
{
	const struct lay_client *client = &r->head->clients[slot];

	for (unsigned int tries = 0; tries < JOIN_TRIES; tries++) {
		if (!client_alive(r, slot))
			return false;
		if (load(&client->state) & 1)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return true;
}

void client_holders(struct region *r, int except, char *text, size_t bytes, unsigned int *count)
{
	size_t at = 0;

	*count = 0;
	text[0] = 0;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		struct lay_client *client = &r->head->clients[slot];
		char command[64];

		if ((int)slot == except || !slot_taken(r, slot))
			continue;
		++*count;
		memcpy(command, client->command, sizeof(command));
		command[63] = 0;
		if (at + 1 >= bytes)
			continue;
		if (load(&client->state) & 1)
			at += (size_t)snprintf(text + at, bytes - at, "%spid %u (%s)", *count > 1 ? ", " : "", client->pid, command);
		else
			at += (size_t)snprintf(text + at, bytes - at, "%sa client that is attaching", *count > 1 ? ", " : "");
	}
}

/* ---- clients that are attached ----------------------------------------------------------------------------------- */

#define ENTER_PATIENCE_NS 60000000000ull

static long long pool_byte(struct region *r)
{
	return LAY_LOCK_POOL(r->dev->single_inode ? r->record : 0, r->fixed.generation);
}

static bool known(const uint8_t boot[16])
{
	static const uint8_t unknown[16];

	return memcmp(boot, unknown, sizeof(unknown)) != 0;
}

static bool same_boot(struct region *r, const uint8_t boot[16])
{
	return known(boot) && memcmp(boot, r->head->pool.boot_id, sizeof(r->head->pool.boot_id)) == 0;
}

/* Alone with a pool of another boot, or of one that cannot be told. After a crash its tables may be any mixture of old and new. */
static int settle(struct speckv_pool *pool, const uint8_t boot[16])
{
	struct region *r = &pool->region;
	bool rebooted = known(boot) && known(r->head->pool.boot_id), closed = load(&r->head->pool.closed) == 1;
	uint64_t kept = 0, lost = 0;
	int rc = closed ? 0 : region_rebuild(r, &kept, &lost);

	for (unsigned int slot = 0; slot < LAY_CLIENTS && closed; slot++) /* that the slots were left may not have reached the medium */
		store(&r->head->clients[slot].state, load(&r->head->clients[slot].state) & ~0xffull);

	if (rc)
		return fail(pool->ctx, rc, "pool %s: %s went away while its index was rebuilt; try again when it is back", r->fixed.name, r->dev->medium.name);
	memcpy(r->head->pool.boot_id, boot, sizeof(r->head->pool.boot_id));
	rc = region_flush(r, r->head, sizeof(*r->head));
	if (!rc && !closed)
		pool_event(r, SPECKV_EVENT_RECOVERED, SPECKV_INFO, "index rebuilt %s: %llu blocks kept, %llu unfinished ones dropped",
			   rebooted ? "after a reboot" : "after a crash, of a client or of the machine", (unsigned long long)kept, (unsigned long long)lost);
	return rc;
}

/* Hold the pool's byte: alone, where it has to be settled and no other client is attached; else with others. */
static int enter(struct speckv_pool *pool, const uint8_t boot[16], bool *alone)
{
	struct region *r = &pool->region;
	uint64_t start = clock_ns();
	char path[SPECKV_PATH_BYTES];
	int rc;

	for (;;) {
		*alone = !same_boot(r, boot) && lock_byte(r->lock_fd, pool_byte(r)) == 0;
		if (*alone && same_boot(r, boot)) /* another process settled it before this one had the byte, and may have died since */
			*alone = false;
		rc = *alone ? 0 : lock_byte_shared(r->lock_fd, pool_byte(r));
		if (rc != -EAGAIN || clock_ns() - start >= ENTER_PATIENCE_NS)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL); /* another process has it alone: it rebuilds it, or closes it */
	}
	if (rc == -EAGAIN)
		return fail(pool->ctx, -EBUSY,
			    "pool %s is being rebuilt or closed by another process, or one keeps its lock: 'fuser -v %s' lists those that have it open; "
			    "try again when that one is done, or stop it",
			    r->fixed.name, pool_lock_path(r, path));
	return rc ? fail(pool->ctx, rc, "pool %s: cannot lock it: %s", r->fixed.name, strerror(-rc)) : 0;
}

/* In, with a slot's lock held: from here on a manager that would remove the pool sees this client. */
static int entered(struct speckv_pool *pool, const uint8_t boot[16], bool alone)
{
	struct region *r = &pool->region;
	struct lay_pool *head = &r->head->pool;
	int rc = alone && !same_boot(r, boot) ? settle(pool, boot) : 0;

	if (!rc && alone)
		rc = lock_byte_shared(r->lock_fd, pool_byte(r));
	if (rc)
		return rc;
	/* Clients live, and say that they run in another boot: containers. Whether the next crash is one of the machine, no id will tell. */
	if (!same_boot(r, boot) && known(boot) && known(head->boot_id))
		memset(head->boot_id, 0, sizeof(head->boot_id));
	if (load(&head->closed)) {
		store(&head->closed, 0);
		rc = region_flush(r, head, sizeof(*head));
	}
	return rc ? fail(pool->ctx, rc, "pool %s: %s cannot be written: %s", r->fixed.name, r->path, strerror(-rc)) : 0;
}

/* The last client that leaves marks the pool as closed, with its slot still held. */
static void close_behind(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	bool others = false;

	if (lock_byte(r->lock_fd, pool_byte(r)) != 0 || !region_there(r))
		return;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) /* no client is attached: those are dead, and what they hold is not given back */
		others |= slot != pool->slot && load(&r->head->clients[slot].state) & 1;
	if (!others && region_flush_tables(r) == 0) {
		store(&r->head->pool.closed, 1);
		region_flush(r, &r->head->pool, sizeof(r->head->pool));
	}
}

/* ---- joining -------------------------------------------------------------------------------------------------------- */

/* The name to charge: as the caller said, or of this program and process. */
static int tenant_name(struct speckv_pool *pool, const struct speckv_attach *attach, const char *command, char name[SPECKV_NAME_BYTES])
{
	const char *base = command;
	char plain[40];
	size_t n = 0;

	if (attach && attach->tenant) {
		if (!name_ok(attach->tenant))
			return fail(pool->ctx, -EINVAL, "tenant name '%.64s': use 1 to 63 letters, digits, '.', '_' or '-', not beginning with '.' or '-'", attach->tenant);
		snprintf(name, SPECKV_NAME_BYTES, "%s", attach->tenant);
		return 0;
	}
	for (const char *c = command; *c && *c != ' '; c++)
		if (*c == '/')
			base = c + 1;
	for (; *base && *base != ' ' && n + 1 < sizeof(plain); base++)
		plain[n++] = (*base >= 'a' && *base <= 'z') || (*base >= 'A' && *base <= 'Z') || (*base >= '0' && *base <= '9') ? *base : '_';
	plain[n] = 0;
	snprintf(name, SPECKV_NAME_BYTES, "%s-%d", n ? plain : "client", (int)getpid());
	return 0;
}

/* A manager that removes the pool sees our slot's lock, or we see it: nothing is written to what is gone. */
static int slot_check(struct speckv_pool *pool)
{
	if (region_there(&pool->region))
		return 0;
	return device_between(pool->region.dev, pool->region.fixed.name);
}

/* The byte that shows to clients that the manager lives. One that reaps a dead manager has it meanwhile; one may hold it for good. */
static bool manager_shows(struct region *r)
{
	for (unsigned int tries = 0; tries < JOIN_TRIES; tries++) {
		if (lock_byte(r->lock_fd, slot_byte(r, LAY_SLOT_MANAGER)) == 0)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return false;
}

/*
 * The slot that is kept for managers: its lock lies with the manager's, where no user of the pool can hold it. A lock on its byte in the
 * pool's file shows to others that it lives; where that cannot be had the slot says so, and clients leave it alone. -EAGAIN: another manager has it.
 */
static int manager_slot_take(struct speckv_pool *pool, bool alone)
{
	struct region *r = &pool->region;
	uint64_t bit = 1ull << r->record, back = 0;
	int rc;

	if (r->dev->lock_fd < 0 || atomic_fetch_or(&r->dev->manager_slots, bit) & bit) /* threads of one descriptor share its locks */
		return -EAGAIN;
	rc = lock_byte(r->dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record));
	if (!rc) {
		pool->unseen = !manager_shows(r);
		rc = slot_check(pool);
		if (!rc && !alone && slot_reap(r, LAY_SLOT_MANAGER, load(&r->head->clients[LAY_SLOT_MANAGER].state), &back))
			reaped(pool, back);
		if (rc)
			unlock_byte(r->lock_fd, slot_byte(r, LAY_SLOT_MANAGER));
		if (rc)
			unlock_byte(r->dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record));
	}
	if (rc) {
		atomic_fetch_and(&r->dev->manager_slots, ~bit);
		return rc;
	}
	pool->slot = LAY_SLOT_MANAGER;
	r->own_slot = LAY_SLOT_MANAGER;
	return 0;
}

/* Lock a free slot, and write nothing yet. Alone, no slot is in use. */
static int slot_take(struct speckv_pool *pool, bool alone, bool manager)
{
	struct region *r = &pool->region;
	unsigned int start = (unsigned int)getpid() % LAY_SLOT_MANAGER;
	int rc = manager ? manager_slot_take(pool, alone) : -EAGAIN;

	if (rc != -EAGAIN)
		return rc;
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < LAY_SLOT_MANAGER; i++) {
			unsigned int slot = (start + i) % LAY_SLOT_MANAGER;
			struct lay_client *client = &r->head->clients[slot];

			if ((!alone && load(&client->state) & 1) || lock_byte(r->lock_fd, slot_byte(r, slot)) != 0)
				continue;
			rc = slot_check(pool);
			if (rc || (!alone && load(&client->state) & 1)) { /* its holder died between our two looks */
				unlock_byte(r->lock_fd, slot_byte(r, slot));
				if (rc)
					return rc;
				continue;
			}
			pool->slot = slot;
			r->own_slot = (int)slot;
			return 0;
		}
		clients_reap(pool, NULL);
	}
	return fail(pool->ctx, -EUSERS, "pool %s has %d clients, as many as it can; close one ('speckvctl pool show' lists them)", r->fixed.name,
		    LAY_SLOT_MANAGER);
}

static void slot_give(struct speckv_pool *pool)
{
	struct region *r = &pool->region;

	r->own_slot = -1;
	unlock_byte(r->lock_fd, slot_byte(r, pool->slot));
	if (pool->slot == LAY_SLOT_MANAGER) {
		unlock_byte(r->dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record));
		atomic_fetch_and(&r->dev->manager_slots, ~(1ull << r->record));
	}
	unlock_byte(r->lock_fd, pool_byte(r));
}

int client_join(struct speckv_pool *pool, const struct speckv_attach *attach)
{
	bool manager = attach && attach->flags & ATTACH_MANAGER, alone;
	struct region *r = &pool->region;
	char name[SPECKV_NAME_BYTES], command[64];
	struct lay_client *client;
	uint8_t boot[16];
	int tenant, rc;

	own_command(command);
	rc = tenant_name(pool, attach, command, name);
	if (rc)
		return rc;
	boot_id(boot);
	rc = enter(pool, boot, &alone);
	if (rc)
		return rc;
	rc = slot_take(pool, alone, manager);
	if (rc) {
		unlock_byte(r->lock_fd, pool_byte(r));
		return rc;
	}
	rc = entered(pool, boot, alone);
	tenant = rc || manager ? LAY_TENANTS - 1 : tenant_find(r, name);
	if (rc || tenant < 0) {
		slot_give(pool);
		return rc ? rc : fail(pool->ctx, tenant, "pool %s: %s cannot be written: %s", r->fixed.name, r->path, strerror(-tenant));
	}
	client = &r->head->clients[pool->slot];
	pool->incarnation = ((load(&client->state) >> 8) + 1) & 0xffffffffffull;
	pool->owner = lay_owner(pool->slot, pool->incarnation);
	pool->client = client;
	pool->tenant_index = (uint32_t)tenant;
	pool->tenant = &r->head->tenants[tenant];
	client->pid = (uint32_t)getpid();
	client->uid = geteuid();
	client->attached_ns = now_ns();
	memcpy(client->command, command, sizeof(client->command));
	store(&client->tenant, (uint32_t)tenant);
	store(&client->allocated_pages, 0);
	store(&client->move_to_generation, 0);
	/* clients begin far from each other */
	store(&client->cursor, region_pages(r) / LAY_CLIENTS * ((pool->slot * 37u) % LAY_CLIENTS));
	store(&client->state, pool->incarnation << 8 | 1 | (pool->unseen ? LAY_CLIENT_UNSEEN : 0));
	if (!manager)
		pool_event(r, SPECKV_EVENT_CLIENT_ATTACHED, SPECKV_INFO, "pid %d (%s) attached, tenant %s", (int)getpid(), command, name);
	return 0;
}

void client_leave(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	uint64_t back;

	sweep(r, pool->slot, pool->incarnation, false, &back);
	if (!(pool->attach.flags & ATTACH_MANAGER))
		pool_event(r, SPECKV_EVENT_CLIENT_DETACHED, SPECKV_INFO, "pid %d (%.63s) detached, tenant %.63s", (int)getpid(), pool->client->command,
			   pool->tenant->name);
	close_behind(pool);
	store(&pool->client->state, pool->incarnation << 8);
	slot_give(pool);
}

int speckv_pool_open(struct speckv_device *dev, const char *name, const struct speckv_attach *attach, struct speckv_pool **out)
{
	if (!dev || !out)
		return -EINVAL;
	*out = NULL;
	if (attach && attach->flags & ~(uint32_t)SPECKV_ATTACH_READ_ONLY)
		return fail(dev->ctx, -EINVAL, "pool %s: unknown attach flags %#x", name ? name : "(null)", attach->flags);
	return pool_attach(dev, name, attach, out);
}

static int attach_once(struct speckv_device *dev, const char *name, const struct speckv_attach *attach, struct speckv_pool **out)
{
	bool read_only = attach && attach->flags & SPECKV_ATTACH_READ_ONLY;
	struct speckv_pool *pool;
	int rc;

	if (!dev || !out)
		return -EINVAL;
	*out = NULL;
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return fail(dev->ctx, -ENOMEM, "out of memory");
	pool->ctx = dev->ctx;
	pool->read_only = read_only;
	rc = region_open(dev, name, !read_only, &pool->region);
	if (rc) {
		free(pool);
		return rc;
	}
	pthread_mutex_init(&pool->lock, NULL);
	if (attach)
		pool->attach = *attach;
	pool->attach.tenant = NULL;
	store(&pool->prefetch_depth, 1);
	store(&pool->threads, 1);
	store(&pool->failed_freed, ~0ull);
	store(&pool->codec, pool->region.fixed.codec);
	if (!attach || !(attach->flags & ATTACH_MANAGER)) /* managers move blocks and check them, and need not read them */
		rc = region_calibrate(&pool->region);
	if (!rc && read_only && !region_there(&pool->region))
		rc = device_between(dev, name);
	if (!rc && !read_only)
		rc = client_join(pool, attach);
	if (!rc && !read_only && (!attach || !(attach->flags & ATTACH_KEEP_DEAD)))
		clients_reap(pool, NULL);
	if (rc) {
		region_close(&pool->region);
		pthread_mutex_destroy(&pool->lock);
		free(pool);
		return rc;
	}
	*out = pool;
	return 0;
}

int pool_attach(struct speckv_device *dev, const char *name, const struct speckv_attach *attach, struct speckv_pool **out)
{
	struct lay_pool_record record;
	int rc = attach_once(dev, name, attach, out);

	/* what a manager that died left in between is settled by the first client that comes, where it may */
	if (rc == -EUCLEAN && !(attach && attach->flags & ATTACH_MANAGER) && device_look(dev, name, &record) >= 0 &&
	    (load(&record.state) == SPECKV_POOL_CREATING || load(&record.state) == SPECKV_POOL_DESTROYING)) {
		if (device_settle(dev))
			return attach_once(dev, name, attach, out);
		rc = device_between(dev, name);
	}
	return rc;
}

void speckv_pool_close(struct speckv_pool *pool)
{
	if (!pool)
		return;
	workers_destroy(pool);
	if (!fork_guard_stale(&pool->region.guard)) {
		staging_destroy(pool);
		while (pool->allocations)
			speckv_mem_free(pool->allocations);
		if (!pool->read_only)
			client_leave(pool);
		pthread_mutex_destroy(&pool->lock);
	}
	region_close(&pool->region);
	free(pool);
}

struct speckv_ctx *speckv_pool_ctx(struct speckv_pool *pool)
{
	return pool->ctx;
}

uint64_t speckv_pool_block_bytes(const struct speckv_pool *pool)
{
	return pool->region.fixed.block_bytes;
}

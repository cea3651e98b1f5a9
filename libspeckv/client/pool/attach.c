// SPDX-License-Identifier: MIT
/*
 * This process as a client of a pool: a slot in the pool's client table, and an OFD lock on that
 * slot's byte. The kernel drops the lock when the process dies, so liveness needs no pid, no clock
 * and no heartbeat.
 */
#include <stdlib.h>
#include <unistd.h>

#include "pool.h"

/* ---- clients that are attached -------------------------------------------------------------- */

#define ENTER_PATIENCE_NS 60000000000ull

static long long pool_byte(struct region *r)
{
	return LAY_LOCK_POOL(r->dev->single_inode ? r->record : 0, r->fixed.generation);
}

static bool boot_known(const uint8_t boot[16])
{
	static const uint8_t unknown[16];

	return memcmp(boot, unknown, sizeof(unknown)) != 0;
}

static bool same_boot(struct region *r, const uint8_t boot[16])
{
	return boot_known(boot) &&
		memcmp(boot, r->head->pool.boot_id, sizeof(r->head->pool.boot_id)) == 0;
}

/*
 * No other client is attached, and the pool was last written in another boot, or an unknown one.
 * After a crash its tables may be any mixture of old and new.
 */
static int settle(struct speckv_pool *pool, const uint8_t boot[16])
{
	struct region *r = &pool->region;
	bool rebooted = boot_known(boot) && boot_known(r->head->pool.boot_id),
	     closed = load_acquire(&r->head->pool.closed) == 1;
	uint64_t kept = 0, lost = 0;
	int rc = closed ? 0 : region_rebuild(r, &kept, &lost);

	/* the detach of a client may not have reached the medium */
	for (unsigned int slot = 0; slot < LAY_CLIENTS && closed; slot++)
		store_release(&r->head->clients[slot].state,
			load_acquire(&r->head->clients[slot].state) & ~0xffull);

	if (rc)
		return fail(pool->ctx, rc,
			"pool %s: %s went away while its index was rebuilt; try again when it is back",
			r->fixed.name, r->dev->medium.name);
	memcpy(r->head->pool.boot_id, boot, sizeof(r->head->pool.boot_id));
	rc = region_flush(r, r->head, sizeof(*r->head));
	if (!rc && !closed)
		pool_event(r, SPECKV_EVENT_RECOVERED, SPECKV_INFO,
			"index rebuilt %s: %llu blocks kept, %llu unfinished ones dropped",
			rebooted ? "after a reboot"
				 : "after a crash, of a client or of the machine",
			(unsigned long long)kept, (unsigned long long)lost);
	return rc;
}

/*
 * Lock the pool's byte: exclusively, where recovery may be needed and no client is attached; else
 * shared.
 */
static int enter_pool(struct speckv_pool *pool, const uint8_t boot[16], bool *alone)
{
	struct region *r = &pool->region;
	uint64_t start = clock_ns();
	char path[SPECKV_PATH_BYTES];
	int rc;

	for (;;) {
		*alone = !same_boot(r, boot) && lock_byte(r->lock_fd, pool_byte(r)) == 0;
		/* recovered by another process before this one had the lock */
		if (*alone && same_boot(r, boot))
			*alone = false;
		rc = *alone ? 0 : lock_byte_shared(r->lock_fd, pool_byte(r));
		if (rc != -EAGAIN || clock_ns() - start >= ENTER_PATIENCE_NS)
			break;
		/* locked exclusively by another process: it rebuilds or closes the pool */
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	if (rc == -EAGAIN)
		return fail(pool->ctx, -EBUSY,
			"pool %s is being rebuilt or closed by another process, or one keeps its lock: 'fuser -v %s' lists those that have it open; "
			"try again when that one is done, or stop it",
			r->fixed.name, pool_lock_path(r, path));
	return rc ? fail(pool->ctx, rc, "pool %s: cannot lock it: %s", r->fixed.name, strerror(-rc))
		  : 0;
}

/*
 * After locking a slot: a manager about to remove the pool now finds this client. Recover the pool
 * if alone, downgrade the lock, clear `closed`.
 */
static int entered(struct speckv_pool *pool, const uint8_t boot[16], bool alone)
{
	struct region *r = &pool->region;
	struct lay_pool *head = &r->head->pool;
	int rc = alone && !same_boot(r, boot) ? settle(pool, boot) : 0;

	if (!rc && alone)
		rc = lock_byte_shared(r->lock_fd, pool_byte(r));
	if (rc)
		return rc;
	/*
	 * Clients of different boot IDs are attached: containers. No boot ID can now tell whether
	 * the machine crashed.
	 */
	if (!same_boot(r, boot) && boot_known(boot) && boot_known(head->boot_id))
		memset(head->boot_id, 0, sizeof(head->boot_id));
	if (load_acquire(&head->closed)) {
		store_release(&head->closed, 0);
		rc = region_flush(r, head, sizeof(*head));
	}
	return rc ? fail(pool->ctx, rc, "pool %s: %s cannot be written: %s", r->fixed.name, r->path,
			    strerror(-rc))
		  : 0;
}

/* The last client to detach marks the pool as closed, before it releases its slot. */
static void close_behind(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	bool others = false;

	if (lock_byte(r->lock_fd, pool_byte(r)) != 0 || !region_there(r))
		return;
	/* no other client is attached: slots in use are of dead clients, not yet reaped */
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		others |= slot != pool->slot && load_acquire(&r->head->clients[slot].state) & 1;
	if (!others && region_flush_tables(r) == 0) {
		store_release(&r->head->pool.closed, 1);
		region_flush(r, &r->head->pool, sizeof(r->head->pool));
	}
}

/* ---- joining -------------------------------------------------------------------------------- */

/* Name of the tenant: the caller's, else of this program and process. */
static int tenant_name(struct speckv_pool *pool, const struct speckv_attach *attach,
	const char *command, char name[SPECKV_NAME_BYTES])
{
	const char *base = command;
	char plain[40];
	size_t n = 0;

	if (attach && attach->tenant) {
		if (!name_ok(attach->tenant))
			return fail(pool->ctx, -EINVAL,
				"tenant name '%.64s': use 1 to 63 letters, digits, '.', '_' or '-', not beginning with '.' or '-'",
				attach->tenant);
		snprintf(name, SPECKV_NAME_BYTES, "%s", attach->tenant);
		return 0;
	}
	for (const char *c = command; *c && *c != ' '; c++)
		if (*c == '/')
			base = c + 1;
	for (; *base && *base != ' ' && n + 1 < sizeof(plain); base++)
		plain[n++] = (*base >= 'a' && *base <= 'z') || (*base >= 'A' && *base <= 'Z') ||
				(*base >= '0' && *base <= '9')
			? *base
			: '_';
	plain[n] = 0;
	snprintf(name, SPECKV_NAME_BYTES, "%s-%d", n ? plain : "client", (int)getpid());
	return 0;
}

/*
 * After locking a slot: either a manager that removes the pool finds the lock, or this check finds
 * the removal. No write happens to a removed pool.
 */
static int slot_check(struct speckv_pool *pool)
{
	if (region_there(&pool->region))
		return 0;
	return device_between(pool->region.dev, pool->region.fixed.name);
}

/*
 * Lock the manager slot's byte in the pool's lock file, by which clients test for its liveness. A
 * client that reaps a dead manager holds it for a moment; a hostile one may hold it forever.
 */
static bool manager_shows(struct region *r)
{
	for (unsigned int tries = 0; tries < CLIENT_JOIN_TRIES; tries++) {
		if (lock_byte(r->lock_fd, client_byte(r, LAY_SLOT_MANAGER)) == 0)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return false;
}

/*
 * Take the slot reserved for managers. Its lock is in the device's lock file, where users of the
 * pool cannot hold it. Its byte in the pool's lock file shows clients that it is alive; if that is
 * not available the slot's state says so (LAY_CLIENT_UNSEEN), and clients do not reap it. -EAGAIN:
 * in use by another manager.
 */
static int manager_slot_take(struct speckv_pool *pool, bool alone)
{
	struct region *r = &pool->region;
	uint64_t bit = 1ull << r->record, back = 0;
	int rc;

	/* OFD locks do not exclude threads that share a descriptor */
	if (r->dev->lock_fd < 0 || atomic_fetch_or(&r->dev->manager_slots, bit) & bit)
		return -EAGAIN;
	rc = lock_byte(r->dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record));
	if (!rc) {
		pool->unseen = !manager_shows(r);
		rc = slot_check(pool);
		if (!rc && !alone &&
			client_reap(r, LAY_SLOT_MANAGER,
				load_acquire(&r->head->clients[LAY_SLOT_MANAGER].state), &back))
			clients_reaped(pool, back);
		if (rc)
			unlock_byte(r->lock_fd, client_byte(r, LAY_SLOT_MANAGER));
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

/* Lock a free slot, without writing to it. `alone`: every slot is free. */
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

			if ((!alone && load_acquire(&client->state) & 1) ||
				lock_byte(r->lock_fd, client_byte(r, slot)) != 0)
				continue;
			rc = slot_check(pool);
			if (rc || (!alone && load_acquire(&client->state) & 1)) {
				/* its owner died between the two checks */
				unlock_byte(r->lock_fd, client_byte(r, slot));
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
	return fail(pool->ctx, -EUSERS,
		"pool %s has %d clients, the maximum; close one ('speckvctl pool show' lists them)",
		r->fixed.name, LAY_SLOT_MANAGER);
}

static void slot_give(struct speckv_pool *pool)
{
	struct region *r = &pool->region;

	r->own_slot = -1;
	unlock_byte(r->lock_fd, client_byte(r, pool->slot));
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
	rc = enter_pool(pool, boot, &alone);
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
		return rc ? rc
			  : fail(pool->ctx, tenant, "pool %s: %s cannot be written: %s",
				    r->fixed.name, r->path, strerror(-tenant));
	}
	client = &r->head->clients[pool->slot];
	pool->incarnation = ((load_acquire(&client->state) >> 8) + 1) & 0xffffffffffull;
	pool->owner = lay_owner(pool->slot, pool->incarnation);
	pool->client = client;
	pool->tenant_index = (uint32_t)tenant;
	pool->tenant = &r->head->tenants[tenant];
	client->pid = (uint32_t)getpid();
	client->uid = geteuid();
	client->attached_ns = now_ns();
	memcpy(client->command, command, sizeof(client->command));
	store_release(&client->tenant, (uint32_t)tenant);
	store_release(&client->allocated_pages, 0);
	store_release(&client->move_to_generation, 0);
	/* spread the clients over the pool */
	store_release(&client->cursor,
		region_pages(r) / LAY_CLIENTS * ((pool->slot * 37u) % LAY_CLIENTS));
	store_release(&client->state,
		pool->incarnation << 8 | 1 | (pool->unseen ? LAY_CLIENT_UNSEEN : 0));
	if (!manager)
		pool_event(r, SPECKV_EVENT_CLIENT_ATTACHED, SPECKV_INFO,
			"pid %d (%s) attached, tenant %s", (int)getpid(), command, name);
	return 0;
}

void client_leave(struct speckv_pool *pool)
{
	struct region *r = &pool->region;
	uint64_t back;

	client_sweep(r, pool->slot, pool->incarnation, false, &back);
	if (!(pool->attach.flags & ATTACH_MANAGER))
		pool_event(r, SPECKV_EVENT_CLIENT_DETACHED, SPECKV_INFO,
			"pid %d (%.63s) detached, tenant %.63s", (int)getpid(),
			pool->client->command, pool->tenant->name);
	close_behind(pool);
	store_release(&pool->client->state, pool->incarnation << 8);
	slot_give(pool);
}

int speckv_pool_open(struct speckv_device *dev, const char *name,
	const struct speckv_attach *attach, struct speckv_pool **out)
{
	if (!dev || !out)
		return -EINVAL;
	*out = NULL;
	if (attach && attach->flags & ~(uint32_t)SPECKV_ATTACH_READ_ONLY)
		return fail(dev->ctx, -EINVAL, "pool %s: unknown attach flags %#x",
			name ? name : "(null)", attach->flags);
	return pool_attach(dev, name, attach, out);
}

static int attach_once(struct speckv_device *dev, const char *name,
	const struct speckv_attach *attach, struct speckv_pool **out)
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
	store_release(&pool->prefetch_depth, 1);
	store_release(&pool->threads, 1);
	store_release(&pool->failed_freed, ~0ull);
	store_release(&pool->codec, pool->region.fixed.codec);
	/* managers move and verify frames without decoding them */
	if (!attach || !(attach->flags & ATTACH_MANAGER))
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

int pool_attach(struct speckv_device *dev, const char *name, const struct speckv_attach *attach,
	struct speckv_pool **out)
{
	struct lay_pool_record record;
	int rc = attach_once(dev, name, attach, out);

	/* an unfinished creation or removal by a dead manager: settle it here, if permitted */
	if (rc == -EUCLEAN && !(attach && attach->flags & ATTACH_MANAGER) &&
		device_look(dev, name, &record) >= 0 &&
		(load_acquire(&record.state) == SPECKV_POOL_CREATING ||
			load_acquire(&record.state) == SPECKV_POOL_DESTROYING)) {
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

// SPDX-License-Identifier: MIT
/* One manager at a time; dead ones are finished; and what fork() does to handles and locks. */
#include <dirent.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "client/admin/admin.h"

#include "harness.h"

static _Atomic uint32_t *flag;
static uint8_t *buffer;

static int hold_on(uint64_t done, uint64_t total, void *arg)
{
	if (atomic_load(flag) == 0)
		atomic_store(flag, 1);
	while (atomic_load(flag) != 2)
		sleep_us(100);
	return 0;
}

static int slow_manager(void *arg)
{
	struct speckv_device *dev = open_device(MEMORY, 0);

	EXPECT(0,
		speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_EVICT, hold_on, NULL, NULL));
	return 0;
}

static void two_managers_at_once(struct speckv_device *dev)
{
	struct speckv_device_info info;
	char who[64];
	pid_t pid;

	atomic_store(flag, 0);
	pid = spawn(slow_manager, NULL);
	while (atomic_load(flag) != 1)
		sleep_us(100);
	EXPECT(0, speckv_device_info(dev, &info));
	CHECK(info.manager_pid == (uint32_t)pid && strstr(info.manager_command, "managers"),
		"pid %u %s", info.manager_pid, info.manager_command);
	snprintf(who, sizeof(who), "is being managed by pid %d (", (int)pid);
	REFUSED(-EBUSY, who, speckv_pool_destroy(dev, "pool", NULL, NULL)); /* after a while */
	atomic_store(flag, 2);
	/* waits for its turn */
	EXPECT(-EALREADY, speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, wait_child(pid));
	EXPECT(0, speckv_device_info(dev, &info));
	CHECK(info.manager_pid == 0, "nobody");
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
}

static int recovered(const struct speckv_event *event, void *arg)
{
	*(unsigned int *)arg += event->kind == SPECKV_EVENT_RECOVERED;
	return 0;
}

/*
 * A manager dies in the middle of a shrink; the next one puts things right, and the pool is whole.
 */
static void a_dead_manager_is_finished(struct speckv_device *dev)
{
	struct speckv_pool_config same = { .eviction = SPECKV_EVICT_LRU };
	struct speckv_pool *pool = attach_pool(dev, "pool", "a");
	struct speckv_pool_info info;
	unsigned int before = 0, after = 0;
	pid_t pid;

	EXPECT(0, speckv_events(dev, NULL, 0, recovered, &before));
	atomic_store(flag, 0);
	pid = spawn(slow_manager, NULL);
	while (atomic_load(flag) != 1)
		sleep_us(100);
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.state == SPECKV_POOL_RESIZING, "state %u", info.state);
	for (int i = 0; put_number(pool, 800, buffer) == -ENOSPC ||
		load_acquire(&pool->region.head->pool.claim_limit);
		i++) {
		struct speckv_key key = key_of(800);

		CHECK(i < 2000, "no client ends what keeps them from half the pool");
		speckv_drop(pool, &key, 1);
		sleep_us(1000);
	}
	EXPECT(0, put_number(pool, 900, buffer)); /* usable as it is */
	EXPECT(0, get_number(pool, 900, buffer));
	EXPECT(-EALREADY, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &same, NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.state == SPECKV_POOL_ACTIVE && info.config.capacity_bytes == 8 * MIB,
		"as it was");
	CHECK(info.used_bytes + info.free_bytes == 8 * MIB, "and all of it: %llu + %llu",
		(unsigned long long)info.used_bytes, (unsigned long long)info.free_bytes);
	EXPECT(0, speckv_events(dev, NULL, 0, recovered, &after));
	CHECK(after == before + 1, "and said so");
	speckv_pool_close(pool);
	speckv_pool_close(attach_pool(dev, "pool", "next")); /* gives back what the manager held */
	expect_sound(dev, "pool", -1);
}

/*
 * Records that managers left in the middle: a pool half made and one half removed are gone with the
 * next manager.
 */
static void half_done_pools_go(enum media kind)
{
	struct speckv_pool_config config = small_pool("half", 4 * MIB);
	struct speckv_check_report report;
	struct speckv_pool_info info;
	struct speckv_device *dev;
	struct speckv_pool *pool;
	char name[300];
	struct stat st;

	dev = open_medium(kind, name);
	for (uint32_t state = SPECKV_POOL_CREATING; state <= SPECKV_POOL_DESTROYING; state += 2) {
		struct lay_pool_record *record = NULL;
		uint64_t offset;
		uint8_t *data;
		int fd;

		EXPECT(0, speckv_pool_create(dev, &config, &info));
		pool = attach_pool(dev, "half", "a");
		for (uint64_t i = 0; i < 100; i++)
			EXPECT(0, put_number(pool, i, buffer));
		speckv_pool_close(pool);
		for (int i = 0; i < LAY_POOLS; i++)
			if (load_acquire(&dev->table->pools[i].state) &&
				strcmp(dev->table->pools[i].name, "half") == 0)
				record = &dev->table->pools[i];
		CHECK(record, "record");
		offset = record->extent[1].offset;
		if (state == SPECKV_POOL_DESTROYING) {
			/* its manager died before it saw who was in: it stays, used or not */
			pool = attach_pool(dev, "half", "a");
			store_release(&record->state, state);
			REFUSED(-EBUSY, "in use by", speckv_pool_destroy(dev, "half", NULL, NULL));
			for (uint64_t i = 0; i < 100; i++)
				EXPECT(0, get_number(pool, i, buffer));
			speckv_pool_close(pool);
			store_release(&record->state, state);
			pool = attach_pool(dev, "half", "a");
			for (uint64_t i = 0; i < 100; i++)
				EXPECT(0, get_number(pool, i, buffer));
			region_end(&pool->region); /* from here on it had begun */
			speckv_pool_close(pool);
		}
		store_release(&record->state, state);
		REFUSED(-EUCLEAN, "was interrupted; 'speckvctl pool destroy",
			check_pool(dev, "half", 0, &report));
		EXPECT(0, speckv_pool_destroy_check(dev, "half"));
		CHECK(load_acquire(&record->state) == state, "looking changes nothing");
		/*
		 * the first client that comes ends it, and so does the command that the error names
		 */
		if (kind == MEDIUM_FILE)
			REFUSED(-ENOENT, "has no pool", speckv_pool_open(dev, "half", NULL, &pool));
		else
			EXPECT(0, speckv_pool_destroy(dev, "half", NULL, NULL));
		EXPECT(-ENOENT, speckv_pool_destroy(dev, "half", NULL, NULL));
		EXPECT(-ENOENT, speckv_pool_info(dev, "half", &info));
		if (kind != MEDIUM_FIXED) {
			CHECK(stat(info.path, &st) != 0, "its file too");
			continue;
		}
		fd = open(name + 5, O_RDONLY | O_CLOEXEC);
		data = mmap(NULL, 4 * MIB, PROT_READ, MAP_SHARED, fd, (off_t)offset);
		CHECK(fd >= 0 && data != MAP_FAILED, "map");
		if (state == SPECKV_POOL_DESTROYING)
			CHECK(all_bytes(data, 4 * MIB, 0), "what it held is zeroed");
		munmap(data, 4 * MIB);
		close(fd);
	}
	speckv_device_close(dev);
	if (kind != MEDIUM_DRAM)
		remove_device(name);
}

/*
 * A client holds its slot's lock before it is entered there: a manager that looks in between must
 * not take the pool for unused.
 */
static void who_is_attaching_is_seen(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("joining", 2 * MIB);
	struct speckv_pool *pool;
	uint64_t entered;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "joining", "a");
	EXPECT(0, put_number(pool, 1, buffer));
	entered = load_acquire(&pool->client->state);
	store_release(&pool->client->state, entered & ~1ull);
	REFUSED(-EBUSY, "a client that is attaching",
		speckv_pool_destroy(dev, "joining", NULL, NULL));
	store_release(&pool->client->state, entered);
	EXPECT(0, get_number(pool, 1, buffer));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "joining", NULL, NULL));
}

static int none(const struct speckv_pool_info *info, void *arg)
{
	return 1;
}
static int no_tenant(const struct speckv_tenant_info *info, void *arg)
{
	return 1;
}
static int no_client(const struct speckv_client_info *info, void *arg)
{
	return 1;
}
static int no_event(const struct speckv_event *event, void *arg)
{
	return 1;
}

/* In the child every call on the parent's handles is refused; the parent's go on. */
static void handles_end_at_fork(struct speckv_device *dev)
{
	struct speckv_pool *pool = attach_pool(dev, "pool", "parent");
	struct speckv_pool_config config = small_pool("new", 2 * MIB);
	struct speckv_request request = {
		.key = key_of(1), .buffer = buffer, .buffer_bytes = SMALL_BYTES
	};
	struct speckv_key key = key_of(1);
	struct speckv_check_report report;
	struct speckv_device_info info;
	struct speckv_pool_info pool_info;
	struct speckv_stats stats;
	struct speckv_op *op, *done;
	struct speckv_mem *mem, *more;
	struct speckv_pool *other;
	char value[32];
	uint8_t present;
	void *pointer;
	pid_t pid;

	EXPECT(0, put_number(pool, 1, buffer));
	EXPECT(0, speckv_mem_alloc(pool, 1000, &mem));
	EXPECT(0, speckv_submit(pool, SPECKV_OP_GET, &request, 1, &done));
	EXPECT(1, speckv_op_wait(done, -1));
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
#define GONE(call) REFUSED(-EOWNERDEAD, "fork", call)
		GONE(speckv_put(pool, &request, 1));
		GONE(speckv_get(pool, &request, 1));
		GONE(speckv_lookup(pool, &key, 1, &present));
		GONE(speckv_lookup_prefix(pool, &key, 1));
		GONE(speckv_prefetch(pool, &key, 1));
		GONE(speckv_touch(pool, &key, 1));
		GONE(speckv_drop(pool, &key, 1));
		GONE(speckv_children(pool, &key, &key, 1));
		GONE(speckv_submit(pool, SPECKV_OP_GET, &request, 1, &op));
		GONE(speckv_param_set(pool, "verify", "on"));
		GONE(speckv_param_get(pool, "verify", value, sizeof(value)));
		GONE(speckv_mem_alloc(pool, 100, &more));
		GONE(speckv_mem_access(mem, 0, 1, &pointer));
		GONE(speckv_mem_prefetch(mem, 0, 1));
		GONE(speckv_mem_seal(mem, &request));
		GONE(speckv_pool_open(dev, "pool", NULL, &other));
		GONE(speckv_pool_create(dev, &config, NULL));
		GONE(speckv_pool_info(dev, "pool", &pool_info));
		GONE(speckv_pool_foreach(dev, none, NULL));
		GONE(speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
		GONE(speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &config, NULL));
		GONE(speckv_pool_check(dev, "pool", 0, NULL, NULL, &report));
		GONE(speckv_pool_destroy(dev, "pool", NULL, NULL));
		GONE(speckv_pool_stats(dev, "pool", &stats));
		GONE(speckv_pool_stats_reset(dev, "pool"));
		GONE(speckv_pool_tenants(dev, "pool", no_tenant, NULL));
		GONE(speckv_pool_clients(dev, "pool", no_client, NULL));
		GONE(speckv_events(dev, NULL, 0, no_event, NULL));
		GONE(speckv_events(dev, "pool", 0, no_event, NULL));
		GONE(speckv_device_info(dev, &info));
		GONE(speckv_device_selftest(dev, NULL, NULL));
		speckv_op_release(done);
		speckv_mem_free(mem);
		speckv_pool_close(pool); /* closing is allowed, and takes nothing from the parent */
		speckv_device_close(dev);
		other = attach_pool(open_device(MEMORY, 0), "pool", "child");
		EXPECT(0, get_number(other, 1, buffer));
		speckv_pool_close(other);
		_exit(0);
	}
	EXPECT(0, wait_child(pid));
	EXPECT(0, get_number(pool, 1, buffer));
	EXPECT(0, speckv_mem_access(mem, 0, 1000, &pointer));
	CHECK(all_bytes(pointer, 1000, 0), "the allocation is the parent's still");
	EXPECT(0, check_pool(dev, "pool", 0, &report));
	CHECK(report.clients_dead == 0, "and it lives");
	speckv_op_release(done);
	speckv_pool_close(pool);
}

static int has_child_that_lives_on(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), "pool", "gone");
	struct speckv_mem *mem;

	EXPECT(0, speckv_mem_alloc(pool, 100000, &mem));
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, 0);
		atomic_store(flag, (uint32_t)getpid());
		for (;;)
			pause();
	}
	while (!atomic_load(flag))
		sleep_us(100);
	raise(SIGKILL);
	return 0;
}

/* Locks die with the process that took them, though a forked child of it lives on. */
static void locks_die_with_their_process(struct speckv_device *dev)
{
	struct speckv_check_report report;
	pid_t child;

	atomic_store(flag, 0);
	EXPECT(-SIGKILL, wait_child(spawn(has_child_that_lives_on, NULL)));
	child = (pid_t)atomic_load(flag);
	CHECK(kill(child, 0) == 0, "the child lives");
	EXPECT(-EUCLEAN, check_pool(dev, "pool", 0, &report));
	CHECK(report.clients_dead == 1 && report.pages_leaked > 0 && report.pages_allocated == 0,
		"and its parent is known to be dead");
	speckv_pool_close(attach_pool(dev, "pool", "next"));
	expect_sound(dev, "pool", -1);
	kill(child, SIGKILL);
}

static int reaps(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(MEMORY, 0), "pool", "other");

	(void)arg;
	return clients_reap(pool, NULL);
}

static int manages(void *arg)
{
	struct speckv_attach attach = { .flags = ATTACH_MANAGER };
	struct speckv_device *dev = open_device(MEMORY, 0);
	struct speckv_pool *pool;
	struct run run;

	(void)arg;
	EXPECT(0, pool_attach(dev, "pool", &attach, &pool));
	EXPECT(0, pages_claim(pool, 4, &run, 0));
	raise(SIGKILL);
	return 0;
}

/*
 * The byte of the manager's slot is a client's while that reaps a dead manager: the next manager is
 * not taken for dead when it is given back.
 */
static void a_manager_is_not_taken_for_dead(struct speckv_device *dev)
{
	struct speckv_attach attach = { .flags = ATTACH_MANAGER };
	struct speckv_pool *client = attach_pool(dev, "pool", "reaper"), *manager;
	struct region *r = &client->region;
	const long long byte = LAY_LOCK_CLIENT(dev->single_inode ? r->record : 0,
		r->fixed.generation, LAY_SLOT_MANAGER);
	struct run run;

	EXPECT(0, lock_byte(r->lock_fd, byte));
	EXPECT(0, pool_attach(dev, "pool", &attach, &manager));
	EXPECT(0, pages_claim(manager, 4, &run, 0));
	EXPECT(0, unlock_byte(r->lock_fd, byte));
	EXPECT(0, clients_reap(client, NULL));
	EXPECT(0, wait_child(spawn(reaps, NULL)));
	CHECK(load_acquire(&r->page_map[run.page]) ==
			lay_word(LAY_CLAIMED, manager->owner, run.generation),
		"its run was given back");
	pages_release(&manager->region, manager->owner, &run);
	speckv_pool_close(manager);
	EXPECT(0, lock_byte(r->lock_fd, byte)); /* and one that died is */
	EXPECT(-SIGKILL, wait_child(spawn(manages, NULL)));
	EXPECT(0, unlock_byte(r->lock_fd, byte));
	EXPECT(1, clients_reap(client, NULL));
	speckv_pool_close(client);
	expect_sound(dev, "pool", -1);
}

/*
 * In front of the C library's: what another process does just after a client has the byte of the
 * manager's slot, or before a manager has its lock.
 */
static void (*after_lock)(void), (*before_format)(void);
static long long after_byte;
static struct speckv_device *managed;
static struct speckv_pool *manager_pool;

int fcntl(int fd, int command, ...)
{
	const struct flock *lock;
	va_list list;
	void *arg;
	int rc;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	lock = arg;
	if (before_format && command == F_OFD_SETLK && lock->l_type == F_WRLCK &&
		lock->l_start == LAY_LOCK_MANAGER) {
		void (*once)(void) = before_format;

		before_format = NULL;
		once();
	}
	rc = (int)syscall(SYS_fcntl, fd, command, arg);
	if (after_lock && !rc && command == F_OFD_SETLK && lock->l_type == F_WRLCK &&
		lock->l_start == after_byte) {
		void (*once)(void) = after_lock;

		after_lock = NULL;
		once();
	}
	return rc;
}

static void the_next_manager_comes(void)
{
	struct speckv_attach attach = { .flags = ATTACH_MANAGER };

	EXPECT(0, pool_attach(managed, "pool", &attach, &manager_pool));
}

/*
 * A reaper stalls between finding the manager dead and reaping it, past the next manager's
 * patience.
 */
static void a_late_reaper_leaves_the_next_manager(struct speckv_device *dev)
{
	struct speckv_pool *client = attach_pool(dev, "pool", "late");
	struct region *r = &client->region;
	struct run run;

	managed = open_device(MEMORY, 0);
	EXPECT(-SIGKILL, wait_child(spawn(manages, NULL)));
	manager_pool = NULL;
	after_byte = LAY_LOCK_CLIENT(dev->single_inode ? r->record : 0, r->fixed.generation,
		LAY_SLOT_MANAGER);
	after_lock = the_next_manager_comes;
	EXPECT(0, clients_reap(client, NULL));
	CHECK(manager_pool && manager_pool->slot == LAY_SLOT_MANAGER, "no manager came between");
	CHECK(load_acquire(&r->head->clients[LAY_SLOT_MANAGER].state) & 1,
		"a manager that lives was taken for dead");
	EXPECT(0, pages_claim(manager_pool, 4, &run, 0));
	EXPECT(0, clients_reap(client, NULL));
	CHECK(load_acquire(&r->page_map[run.page]) ==
			lay_word(LAY_CLAIMED, manager_pool->owner, run.generation),
		"its run was given back");
	pages_release(&manager_pool->region, manager_pool->owner, &run);
	speckv_pool_close(manager_pool);
	speckv_device_close(managed);
	speckv_pool_close(client);
	expect_sound(dev, "pool", -1);
}

static int sit(void *arg)
{
	attach_pool(open_device(MEMORY, 0), "pool", "sitter");
	atomic_fetch_add(flag, 1);
	for (;;)
		pause();
	return 0;
}

/* A share of the client slots is the manager's. */
static void managed_with_all_slots_taken(struct speckv_device *dev)
{
	struct speckv_pool_config none = { .eviction = SPECKV_EVICT_NONE },
				  lru = { .eviction = SPECKV_EVICT_LRU };
	struct speckv_check_report report;
	struct speckv_pool_info info;
	struct speckv_device_info device;
	struct speckv_stats stats;

	EXPECT(0, speckv_device_info(dev, &device));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.clients == LAY_SLOT_MANAGER, "%u", info.clients);
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_DEEP, &report));
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_REPAIR, &report));
	EXPECT(0,
		speckv_pool_resize(dev, "pool", info.config.capacity_bytes / 2, SPECKV_RESIZE_EVICT,
			NULL, NULL, NULL));
	EXPECT(0, speckv_pool_resize(dev, "pool", info.config.capacity_bytes, 0, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &none, NULL));
	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_EVICTION, &lru, NULL));
	EXPECT(0, speckv_pool_stats(dev, "pool", &stats));
	REFUSED(-EBUSY, "in use by", speckv_pool_destroy(dev, "pool", NULL, NULL));
}

/* All slots taken by others is said; those of the dead are taken over. */
static void client_slots_come_back(struct speckv_device *dev)
{
	pid_t pids[LAY_SLOT_MANAGER];
	struct speckv_pool *pool;

	for (int turn = 0; turn < 2; turn++) {
		atomic_store(flag, 0);
		for (int i = 0; i < LAY_SLOT_MANAGER; i++)
			pids[i] = spawn(sit, NULL);
		while (atomic_load(flag) != LAY_SLOT_MANAGER)
			sleep_us(1000);
		REFUSED(-EUSERS, "63 clients", speckv_pool_open(dev, "pool", NULL, &pool));
		managed_with_all_slots_taken(dev);
		for (int i = 0; i < LAY_SLOT_MANAGER; i++)
			kill(pids[i], SIGKILL);
		for (int i = 0; i < LAY_SLOT_MANAGER; i++)
			EXPECT(-SIGKILL, wait_child(pids[i]));
	}
	speckv_pool_close(attach_pool(dev, "pool", "next"));
	expect_sound(dev, "pool", -1);
}

/* In front of the C library's: what another process does just before a call. */
static void (*before_mkdir)(void), (*before_unlock)(void), (*before_link)(void);
static struct speckv_device *other;
static char other_name[300];

int mkdirat(int fd, const char *path, mode_t mode)
{
	void (*once)(void) = before_mkdir;

	before_mkdir = NULL;
	if (once)
		once();
	return (int)syscall(SYS_mkdirat, fd, path, mode);
}

int linkat(int from, const char *path, int to, const char *name, int flags)
{
	void (*once)(void) = before_link;

	before_link = NULL;
	if (once)
		once();
	return (int)syscall(SYS_linkat, from, path, to, name, flags);
}

int unlinkat(int fd, const char *path, int flags)
{
	const char *end = strstr(path, "/.lock");
	void (*once)(void) = end && !end[6] ? before_unlock : NULL;

	if (once) {
		before_unlock = NULL;
		once();
	}
	return (int)syscall(SYS_unlinkat, fd, path, flags);
}

static void another_opens(void)
{
	other = open_device(other_name, SPECKV_OPEN_CREATE);
}

/* The pool that another process makes on what it opened meanwhile is there for all. */
static void the_other_goes_on(void)
{
	struct speckv_pool_config config = small_pool("theirs", 2 * MIB);
	struct speckv_pool_info info;
	struct speckv_device *dev;

	CHECK(other, "no call was in between");
	EXPECT(0, speckv_pool_create(other, &config, NULL));
	dev = open_device(other_name, 0);
	EXPECT(0, speckv_pool_info(dev, "theirs", &info));
	speckv_device_close(dev);
	speckv_device_close(other);
	other = NULL;
	remove_device(other_name);
}

/*
 * A process that opens a device while it is closed gets another one, or a refusal, and never a
 * table that goes under a lock of its own.
 */
static void closing_takes_the_table_before_its_lock(void)
{
	struct stat st;
	char path[320];

	snprintf(other_name, sizeof(other_name), "host:%s/closing.kv", test_dir);
	speckv_device_close(open_device(other_name, SPECKV_OPEN_CREATE));
	before_unlock = another_opens;
	remove_device(other_name);
	the_other_goes_on();
	/*
	 * one that died in between leaves a lock without a table: nothing to the next, whose end
	 * takes it along
	 */
	speckv_device_close(open_device(other_name, SPECKV_OPEN_CREATE));
	CHECK(unlink(other_name + 5) == 0, "unlink");
	other = open_device(other_name, SPECKV_OPEN_CREATE);
	the_other_goes_on();
	snprintf(path, sizeof(path), "%s.pools", other_name + 5);
	CHECK(stat(path, &st) != 0, "%s was left behind", path);
}

/* What another process made after this one saw nothing there is used, and not taken away. */
static void two_first_opens_make_one_table(void)
{
	struct speckv_device *dev;

	snprintf(other_name, sizeof(other_name), "%s", MEMORY);
	before_mkdir = another_opens;
	dev = open_device(other_name, SPECKV_OPEN_CREATE);
	CHECK(other && memcmp(dev->uuid, other->uuid, sizeof(dev->uuid)) == 0 &&
			device_usable(other) == 0,
		"two tables of one device");
	speckv_device_close(dev);
	the_other_goes_on();
}

static void another_formats(void)
{
	struct speckv_pool_config config = small_pool("theirs", 4 * MIB);
	struct speckv_pool *pool;

	other = open_device(other_name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	EXPECT(0, speckv_pool_create(other, &config, NULL));
	pool = attach_pool(other, "theirs", "other");
	EXPECT(0, put_number(pool, 1, buffer));
	speckv_pool_close(pool);
}

/*
 * What another process made of a medium, after this one found something else there, is not
 * overwritten.
 */
static void two_that_format_make_one_table(void)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	int fd;

	snprintf(other_name, sizeof(other_name), "host:%s/both.kv", test_dir);
	fd = open(other_name + 5, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 16 * MIB) == 0, "%s", other_name);
	close(fd);
	other = NULL;
	before_format = another_formats;
	dev = open_device(other_name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	CHECK(other && memcmp(dev->uuid, other->uuid, sizeof(dev->uuid)) == 0,
		"two tables of one medium");
	pool = attach_pool(dev, "theirs", "this");
	EXPECT(0, get_number(pool, 1, buffer));
	speckv_pool_close(pool);
	speckv_device_close(other);
	other = NULL;
	speckv_device_close(dev);
	EXPECT(0, speckv_device_remove(test_ctx, other_name, SPECKV_REMOVE_POOLS));
	unlink(other_name + 5);
}

static unsigned int drafts(void)
{
	unsigned int n = 0;
	struct dirent *entry;
	DIR *dir = opendir(test_dir);

	while (dir && (entry = readdir(dir)))
		n += strstr(entry->d_name, "draft.kv.") && strstr(entry->d_name, "new");
	if (dir)
		closedir(dir);
	return n;
}

static void dies(void)
{
	if (drafts())
		raise(SIGKILL);
	before_link = dies;
}

static void waits(void)
{
	atomic_store(flag, 1);
	while (atomic_load(flag) != 2)
		sleep_us(100);
}

static int makes_a_device(void *arg)
{
	char name[300];

	before_link = (void (*)(void))(uintptr_t)arg;
	snprintf(name, sizeof(name), "host:%s/draft.kv", test_dir);
	speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
	return 0;
}

/*
 * A table appears by a link to a draft. The drafts of the dead go with the next that makes it,
 * those of the living stay.
 */
static void drafts_of_the_dead_are_removed(void)
{
	char name[300];
	pid_t pid;

	snprintf(name, sizeof(name), "host:%s/draft.kv", test_dir);
	EXPECT(-SIGKILL, wait_child(spawn(makes_a_device, (void *)(uintptr_t)dies)));
	CHECK(drafts() == 1 && access(name + 5, F_OK) != 0, "it died with a draft");
	atomic_store(flag, 0);
	pid = spawn(makes_a_device, (void *)(uintptr_t)waits);
	while (atomic_load(flag) != 1)
		sleep_us(100);
	CHECK(drafts() == 1, "%u drafts: that of the dead is gone, that of the living is there",
		drafts());
	speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
	CHECK(drafts() == 1, "a draft of a living process was removed");
	atomic_store(flag, 2);
	EXPECT(0, wait_child(pid));
	CHECK(drafts() == 0, "%u drafts", drafts());
	remove_device(name);
}

static pid_t shown_tid;

/* In front of the C library's: in PID namespaces of their own, processes have the same numbers. */
pid_t gettid(void)
{
	return shown_tid ? shown_tid : (pid_t)syscall(SYS_gettid);
}

/* Containers that make a table in one folder at once: each has a draft of its own. */
static void drafts_of_two_containers_are_apart(void)
{
	char name[300];
	pid_t pid;

	snprintf(name, sizeof(name), "host:%s/draft.kv", test_dir);
	atomic_store(flag, 0);
	shown_tid = 1;
	pid = spawn(makes_a_device, (void *)(uintptr_t)waits);
	while (atomic_load(flag) != 1)
		sleep_us(100);
	speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
	CHECK(drafts() == 1, "%u drafts: that of the other is there", drafts());
	atomic_store(flag, 2);
	EXPECT(0, wait_child(pid));
	shown_tid = 0;
	CHECK(drafts() == 0, "%u drafts", drafts());
	remove_device(name);
}

/*
 * Drafts and locks of pools beside a table that is lost: they go with the next creation, or the end
 * of the device, unless a process is in.
 */
static void hidden_files_of_no_pool_are_removed(void)
{
	static const char *const hidden[] = { ".00112233445566778899aabbccddeeff.new",
		".00112233445566778899aabbccddeeff.lock" };
	char name[300], path[400];
	struct flock lock = {
		.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 1ll << 61, .l_len = 1
	};
	struct speckv_device *dev;
	struct stat st;
	int fd = -1;

	snprintf(name, sizeof(name), "host:%s/hidden.kv", test_dir);
	for (int held = 0; held < 3; held++) {
		/* not; by a client; and then until the device is closed */
		speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
		CHECK(unlink(name + 5) == 0, "unlink");
		for (int i = 0; i < 2; i++) {
			snprintf(path, sizeof(path), "%s.pools/%s", name + 5, hidden[i]);
			fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
			CHECK(fd >= 0, "%s", path);
			if (held && i)
				CHECK(fcntl(fd, F_OFD_SETLK, &lock) == 0, "lock");
			else
				close(fd);
		}
		dev = open_device(name, SPECKV_OPEN_CREATE);
		CHECK((stat(path, &st) == 0) == (held != 0), "%s, held %d", path, held);
		snprintf(path, sizeof(path), "%s.pools/%s", name + 5, hidden[0]);
		CHECK(stat(path, &st) != 0, "%s", path);
		speckv_device_close(dev);
		if (held)
			close(fd);
		remove_device(name);
		snprintf(path, sizeof(path), "%s.pools", name + 5);
		CHECK(stat(path, &st) != 0, "%s was left behind", path);
	}
}

/* They can wait: a device is open while a manager is at work beside them. */
static void hidden_files_keep_no_device_shut(void)
{
	char name[300], path[400];
	struct speckv_device *busy;
	struct stat st;
	int fd;

	snprintf(name, sizeof(name), "host:%s/hidden.kv", test_dir);
	busy = open_device(name, SPECKV_OPEN_CREATE);
	snprintf(path, sizeof(path), "%s.pools/.00112233445566778899aabbccddeeff.new", name + 5);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0, "%s", path);
	close(fd);
	EXPECT(0, device_manage(busy));
	speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
	device_unmanage(busy);
	speckv_device_close(busy);
	speckv_device_close(open_device(name, SPECKV_OPEN_CREATE));
	CHECK(stat(path, &st) != 0, "%s", path);
	remove_device(name);
}

int main(void)
{
	struct speckv_pool_config config;
	struct speckv_device *dev;
	struct speckv_pool *pool;

	test_begin(90);
	flag = shared_memory(sizeof(*flag));
	buffer = line_alloc(2 * SMALL_BYTES);
	two_first_opens_make_one_table();
	if (!test_on_card())
		closing_takes_the_table_before_its_lock();
	two_that_format_make_one_table();
	drafts_of_the_dead_are_removed();
	drafts_of_two_containers_are_apart();
	hidden_files_of_no_pool_are_removed();
	hidden_files_keep_no_device_shut();
	dev = open_device(MEMORY, SPECKV_OPEN_CREATE);
	config = small_pool("pool", 8 * MIB);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "pool", "a");
	for (uint64_t i = 0; i < 200; i++)
		EXPECT(0, put_number(pool, i, buffer));
	speckv_pool_close(pool);
	two_managers_at_once(dev);
	who_is_attaching_is_seen(dev);
	a_manager_is_not_taken_for_dead(dev);
	a_late_reaper_leaves_the_next_manager(dev);
	a_dead_manager_is_finished(dev);
	for (int kind = 0; kind < test_media(); kind++)
		half_done_pools_go((enum media)kind);
	handles_end_at_fork(dev);
	locks_die_with_their_process(dev);
	/* it has fewer functions than a pool has slots: its own limit is the emulator's to keep */
	if (!test_on_card())
		client_slots_come_back(dev);
	speckv_device_close(dev);
	free(buffer);
	test_end();
	return 0;
}

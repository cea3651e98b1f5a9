// SPDX-License-Identifier: MIT
/* One manager at a time, and dead ones are finished. */
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "managers.h"

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
void (*managers_before_format)(void);
static void (*after_lock)(void);
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
	if (managers_before_format && command == F_OFD_SETLK && lock->l_type == F_WRLCK &&
		lock->l_start == LAY_LOCK_MANAGER) {
		void (*once)(void) = managers_before_format;

		managers_before_format = NULL;
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

int main(void)
{
	struct speckv_pool_config config;
	struct speckv_device *dev;
	struct speckv_pool *pool;

	test_begin(90);
	flag = shared_memory(sizeof(*flag));
	buffer = line_alloc(2 * SMALL_BYTES);
	managers_make_devices();
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
	managers_fork(dev);
	/* it has fewer functions than a pool has slots: its own limit is the emulator's to keep */
	if (!test_on_card())
		client_slots_come_back(dev);
	speckv_device_close(dev);
	free(buffer);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/* What another user can hold, of locks and of slots, stops no manager. */
#include "trust.h"

static _Atomic uint32_t *ready;

/*
 * A user who may read everything that a mode lets be read, and holds every byte of it that can be
 * held.
 */
static int holds_all_it_can(void *arg)
{
	static const char *const names[] = { "DRAM", "DRAM.pools/passwd", "DRAM.pools/.lock",
		"DRAM.pools", "." };
	unsigned int held = 0;
	char command[800];

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0, "setuid");
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* which ended with the user */
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct flock all = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
		int fd = open(in(runtime, names[i]), O_RDONLY | O_CLOEXEC);

		held += fd >= 0 && fcntl(fd, F_OFD_SETLK, &all) == 0;
	}
	snprintf(command, sizeof(command),
		"test -z \"$(find '%s'/DRAM.pools -name '.*.lock' -readable)\"", runtime);
	CHECK(held >= 2 && system(command) == 0, "%u held, and no file of locks may be read", held);
	atomic_store(ready, 1);
	for (;;)
		pause();
	return 0;
}

static void locks_of_readers_stop_no_one(void)
{
	struct speckv_pool_config lru = { .eviction = SPECKV_EVICT_NONE };
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);
	struct speckv_check_report report;
	struct speckv_device *dev;
	struct speckv_pool *pool;
	pid_t pid, client;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	config.mode = 0644; /* for all to read */
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	atomic_store(ready, 0);
	pid = spawn(holds_all_it_can, NULL);
	while (!atomic_load(ready))
		sleep_us(1000);
	client = fork(); /* dies in its slot: seen at once, whatever others hold */
	CHECK(client >= 0, "fork");
	if (!client) {
		pool = attach_pool(open_device("host:DRAM", 0), "passwd", "dies");
		EXPECT(0, put_number(pool, 1, buffer));
		raise(SIGKILL);
	}
	EXPECT(-SIGKILL, wait_child(client));
	EXPECT(0, check_pool(dev, "passwd", 0, &report));
	CHECK(report.clients_dead == 1, "%llu dead", (unsigned long long)report.clients_dead);
	pool = attach_pool(dev, "passwd", "a");
	EXPECT(0, put_number(pool, 2, buffer));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_EVICTION, &lru, NULL));
	EXPECT(0, speckv_pool_resize(dev, "passwd", 4 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_REPAIR, &report));
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	remove_device("host:DRAM");
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	free(buffer);
}

static int holds_the_table(void *arg)
{
	struct flock all = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	int fd;

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(STRANGER) == 0 && setuid(STRANGER) == 0, "setuid");
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* which ended with the user */
	fd = open(in(runtime, "DRAM"), O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &all) == 0, "lock");
	atomic_store(ready, 1);
	for (;;)
		pause();
	return 0;
}

/* A file that is of no use is replaced, also while a user who may read it holds its locks. */
static void a_table_of_no_use_is_replaced_under_its_readers(void)
{
	int fd;
	pid_t pid;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	fd = open(in(runtime, "DRAM"), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	CHECK(fd >= 0 && fchmod(fd, 0644) == 0, "an empty file");
	close(fd);
	atomic_store(ready, 0);
	pid = spawn(holds_the_table, NULL);
	while (!atomic_load(ready))
		sleep_us(1000);
	speckv_device_close(open_device("host:DRAM", SPECKV_OPEN_CREATE));
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	remove_device("host:DRAM");
}

/* The owner of a pool, who may not open its locks, learns what mends that. */
static int is_named_the_repair(void *arg)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(5000) == 0 && setuid(4242) == 0, "setuid");
	dev = open_device("host:DRAM", 0);
	REFUSED(-EACCES, "pool check host:DRAM passwd --repair' as uid 0",
		speckv_pool_open(dev, "passwd", NULL, &pool));
	speckv_device_close(dev);
	return 0;
}

static void locks_of_a_pool_are_for_those_who_may_write_it(void)
{
	struct speckv_pool_config set = { .uid = 4242, .gid = 5000, .mode = 0640 };
	struct speckv_check_report report;
	struct speckv_pool_info info;
	char path[900] = "", command[800];
	struct speckv_device *dev;
	struct speckv_pool *pool;
	struct stat st;
	FILE *found;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	config.mode = 0660;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, &info));
	snprintf(command, sizeof(command), "ls -A '%s'/DRAM.pools | grep '^[.].*[.]lock$'",
		runtime);
	found = popen(command, "r");
	CHECK(found, "popen");
	snprintf(path, sizeof(path), "%s/DRAM.pools/", runtime);
	CHECK(fgets(path + strlen(path), 200, found), "its file of locks");
	path[strcspn(path, "\n")] = 0;
	pclose(found);
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0660 && st.st_uid == 0, "mode %o",
		st.st_mode);
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 && st.st_uid == 4242 &&
			st.st_gid == 5000,
		"mode %o", st.st_mode);

	/* a file of locks that is gone is not made again by the way: who lives could not be seen */
	CHECK(unlink(path) == 0, "unlink");
	REFUSED(-ENOLCK, "pool check host:DRAM passwd --repair",
		speckv_pool_open(dev, "passwd", NULL, &pool));
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_REPAIR, &report));
	CHECK(report.repaired == 1 && stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 &&
			st.st_uid == 4242,
		"made again by a repair");
	CHECK(chmod(path, 0400) == 0 && chown(path, 0, 0) == 0,
		"as a repair leaves it that was killed");
	EXPECT(0, wait_child(spawn(is_named_the_repair, NULL)));
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_REPAIR, &report));
	CHECK(report.repaired == 1 && stat(path, &st) == 0 && (st.st_mode & 0777) == 0600 &&
			st.st_uid == 4242 && st.st_gid == 5000,
		"mended by a repair");
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_REPAIR, &report));
	CHECK(report.repaired == 0, "once");
	speckv_pool_close(attach_pool(dev, "passwd", "a"));
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	CHECK(stat(path, &st) != 0, "and goes with its pool");
	speckv_device_close(dev);
}

/* All pools of a medium of fixed size lie in one inode, and so do their locks. */
static void a_fixed_medium_is_not_for_readers(void)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	char name[800];
	struct stat st;
	int fd;

	fresh();
	snprintf(name, sizeof(name), "host:%s/fixed.kv", test_dir);
	fd = open(name + 5, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	CHECK(fd >= 0 && fchmod(fd, 0644) == 0 && ftruncate(fd, 32 * MIB) == 0, "file");
	close(fd);
	dev = open_device(name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	CHECK(stat(name + 5, &st) == 0 && (st.st_mode & 0777) == 0600, "mode %o", st.st_mode);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	CHECK(chmod(name + 5, 0644) == 0, "chmod");
	dev = open_device(name, 0);
	REFUSED(-EACCES, "chmod go-r", speckv_pool_open(dev, "passwd", NULL, &pool));
	REFUSED(-EACCES, "chmod go-r", speckv_pool_destroy(dev, "passwd", NULL, NULL));
	CHECK(chmod(name + 5, 0600) == 0, "chmod");
	speckv_pool_close(attach_pool(dev, "passwd", "a"));
	speckv_device_close(dev);
	remove_device(name);
}

/*
 * A user of the pool holds all that a user can: all slots, marked and locked, and the claim to the
 * size. The manager's work goes on.
 */
static int takes_every_slot(void *arg)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	struct region *r;

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(4242) == 0 && setuid(4242) == 0, "setuid");
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* which ended with the user */
	dev = open_device("host:DRAM", 0);
	pool = attach_pool(dev, "passwd", "greedy");
	r = &pool->region;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		store_release(&r->head->clients[slot].state,
			load_acquire(&r->head->clients[slot].state) | 1);
		if (slot != pool->slot)
			EXPECT(0,
				lock_byte(r->lock_fd,
					LAY_LOCK_CLIENT(0, r->fixed.generation, slot)));
	}
	EXPECT(0, lock_byte(r->lock_fd, LAY_LOCK_RESIZE(0, r->fixed.generation)));
	atomic_store(ready, 1);
	for (;;)
		pause();
	return 0;
}

static void a_share_of_the_slots_is_the_managers(void)
{
	struct speckv_pool_config lru = { .eviction = SPECKV_EVICT_LRU };
	struct region region;
	struct speckv_check_report report;
	struct speckv_device *dev;
	struct speckv_pool *pool;
	pid_t pid;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	config.uid = config.gid = 4242;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	atomic_store(ready, 0);
	pid = spawn(takes_every_slot, NULL);
	while (!atomic_load(ready))
		sleep_us(1000);
	REFUSED(-EUSERS, "63 clients", speckv_pool_open(dev, "passwd", NULL, &pool));
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_DEEP, &report));
	EXPECT(0, check_pool(dev, "passwd", SPECKV_CHECK_REPAIR, &report));
	EXPECT(0, speckv_pool_resize(dev, "passwd", 4 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0,
		speckv_pool_resize(dev, "passwd", 2 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_resize(dev, "passwd", 4 * MIB, 0, NULL, NULL, NULL));
	/* and one that died in a resize is finished */
	EXPECT(0, region_open(dev, "passwd", true, &region));
	store_release(&region.head->pool.claim_limit, 2 * MIB / region.page_bytes);
	store_release(&record_of(dev, "passwd")->state, SPECKV_POOL_RESIZING);
	EXPECT(-EALREADY, speckv_pool_set(dev, "passwd", SPECKV_SET_EVICTION, &lru, NULL));
	CHECK(load_acquire(&region.head->pool.claim_limit) == 0,
		"clients are kept from half of it");
	region_close(&region);
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	speckv_pool_close(attach_pool(dev, "passwd", "a"));
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	speckv_device_close(dev);
}

int main(void)
{
	begin_as_root(100);
	ready = shared_memory(sizeof(*ready));
	locks_of_readers_stop_no_one();
	a_table_of_no_use_is_replaced_under_its_readers();
	locks_of_a_pool_are_for_those_who_may_write_it();
	a_fixed_medium_is_not_for_readers();
	a_share_of_the_slots_is_the_managers();
	test_end();
	return 0;
}

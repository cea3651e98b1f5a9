// SPDX-License-Identifier: MIT
/*
 * When an index is rebuilt, and what a rebuild keeps. Containers have boot ids of their own, and
 * some cannot read any: nothing is rebuilt under a living client, nor where the last one closed the
 * pool; a check that does not repair changes no byte.
 */
#include <stdarg.h>
#include <sys/syscall.h>

#include "client/admin/admin.h"

#include "harness.h"

#define N 24

static uint8_t *buffer;
static const char *boot; /* what this process reads as its boot id; NULL: the machine's */

#define BOOT_A "11111111-2222-3333-4444-555555555555\n"
#define BOOT_B "66666666-7777-8888-9999-aaaaaaaaaaaa\n"
#define HIDDEN ""

/* In front of the C library's: a container's view of one file. */
FILE *fopen(const char *path, const char *mode)
{
	int fd;

	if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		return *boot ? fmemopen((void *)(uintptr_t)boot, strlen(boot), "r") : NULL;
	fd = open(path,
		strchr(mode, 'w') ? O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC : O_RDONLY | O_CLOEXEC,
		0666);
	return fd < 0 ? NULL : fdopen(fd, strchr(mode, 'w') ? "w" : "r");
}

/* once, when this process is about to try for the pool alone */
static void (*before_the_lock)(void);
static pid_t shown_pid;
static bool hasty; /* time flies */

/* In front of the C library's: minutes pass while a lock is waited for. */
int clock_gettime(clockid_t id, struct timespec *t)
{
	static time_t ahead;
	int rc = (int)syscall(SYS_clock_gettime, id, t);

	if (id == CLOCK_MONOTONIC)
		t->tv_sec += hasty ? ahead += 10 : ahead;
	return rc;
}

/* In front of the C library's: another process comes between a look and a lock. */
int fcntl(int fd, int command, ...)
{
	void (*hook)(void) = before_the_lock;
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	if (hook && command == F_OFD_SETLK && ((struct flock *)arg)->l_type == F_WRLCK) {
		before_the_lock = NULL;
		hook();
	}
	return (int)syscall(SYS_fcntl, fd, command, arg);
}

/* The same: clients choose their slots by it. */
pid_t getpid(void)
{
	return shown_pid ? shown_pid : (pid_t)syscall(SYS_getpid);
}

struct visit {
	const char *name, *boot, *tenant;
	unsigned int puts; /* of blocks from `first` on */
	uint64_t first;
	bool killed;
};

static int visit(void *arg)
{
	const struct visit *v = arg;
	struct speckv_device *dev;
	struct speckv_pool *pool;

	boot = v->boot;
	dev = open_device(v->name, 0);
	pool = attach_pool(dev, "pool", v->tenant);
	for (uint64_t i = 0; i < v->puts; i++)
		EXPECT(0, put_number(pool, v->first + i, buffer));
	if (v->killed)
		raise(SIGKILL);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	return 0;
}

static void visited(const char *name, const char *as, const char *tenant, uint64_t first,
	unsigned int puts, bool killed)
{
	struct visit v = { name, as, tenant, puts, first, killed };

	EXPECT(killed ? -SIGKILL : 0, wait_child(spawn(visit, &v)));
}

struct rebuilds {
	unsigned int reboots, crashes;
};

static int rebuilt(const struct speckv_event *event, void *arg)
{
	struct rebuilds *seen = arg;

	seen->reboots += strstr(event->text, "rebuilt after a reboot") != NULL;
	seen->crashes += strstr(event->text, "rebuilt after a crash") != NULL;
	return 0;
}

static struct rebuilds rebuilds(struct speckv_device *dev)
{
	struct rebuilds seen = { 0 };

	EXPECT(0, speckv_events(dev, "pool", 0, rebuilt, &seen));
	return seen;
}

struct charged {
	const char *name;
	uint64_t blocks;
};

static int charged_one(const struct speckv_tenant_info *tenant, void *arg)
{
	struct charged *c = arg;

	if (strcmp(tenant->name, c->name) == 0)
		c->blocks += tenant->blocks;
	return 0;
}

static uint64_t charged(struct speckv_device *dev, const char *name)
{
	struct charged c = { .name = name };

	EXPECT(0, speckv_pool_tenants(dev, "pool", charged_one, &c));
	return c.blocks;
}

static struct speckv_device *fresh(enum media kind, char name[300])
{
	struct speckv_device *dev;
	struct speckv_pool_config config = small_pool("pool", 8 * MIB);

	boot = BOOT_A;
	dev = open_medium(kind, name);
	config.eviction = SPECKV_EVICT_NONE;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	return dev;
}

static void ended(struct speckv_device *dev, const char *name)
{
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + strlen("host:")); /* a file of fixed size stays */
}

/* A client lives, others of all boots come and go: it loses nothing, its allocation is its own. */
static void under_a_living_client(enum media kind)
{
	static const char *const boots[] = { BOOT_B, HIDDEN, BOOT_A, BOOT_B };
	char name[300];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_pool *pool = attach_pool(dev, "pool", "lives");
	struct speckv_mem *mem;
	struct rebuilds seen;
	void *bytes;

	EXPECT(0, speckv_mem_alloc(pool, 100000, &mem));
	EXPECT(0, speckv_mem_access(mem, 0, 100000, &bytes));
	memset(bytes, 0x5a, 100000);
	for (uint64_t i = 0; i < N; i++) {
		EXPECT(0, put_number(pool, i, buffer));
		visited(name, boots[i % 4], "comes", 1000 + i, 1, i % 3 == 0);
	}
	for (uint64_t i = 0; i < N; i++) {
		EXPECT(0, get_number(pool, i, buffer));
		EXPECT(0, get_number(pool, 1000 + i, buffer));
	}
	CHECK(all_bytes(bytes, 100000, 0x5a), "the allocation was given to others");
	seen = rebuilds(dev);
	CHECK(!seen.reboots && !seen.crashes, "rebuilt %u and %u times under a living client",
		seen.reboots, seen.crashes);
	speckv_mem_free(mem);
	speckv_pool_close(pool);
	expect_sound(dev, "pool", 2 * N);
	ended(dev, name);
}

/* Containers that take turns, each of which closes what it opened: there is nothing to rebuild. */
static void in_turns(enum media kind)
{
	static const char *const boots[] = { BOOT_A, BOOT_B, HIDDEN };
	char name[300];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_pool *pool;
	struct rebuilds seen;

	for (uint64_t i = 0; i < N; i++)
		visited(name, boots[i % 3], "turns", i, 1, false);
	seen = rebuilds(dev);
	CHECK(!seen.reboots && !seen.crashes, "rebuilt %u and %u times", seen.reboots,
		seen.crashes);
	pool = attach_pool(dev, "pool", "turns");
	for (uint64_t i = 0; i < N; i++)
		EXPECT(0, get_number(pool, i, buffer));
	speckv_pool_close(pool);
	ended(dev, name);
}

/*
 * The machine went down with a client in it: the index is rebuilt once, and each block is charged
 * to whom it was.
 */
static void after_a_reboot(enum media kind, const char *as)
{
	char name[300];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_pool_config config = { .tenant_quota_bytes = 1 * MIB };
	struct speckv_pool *pool;
	struct rebuilds seen;
	struct block_ref found;
	struct speckv_key key = key_of(3);
	uint64_t used;
	int rc = 0;

	EXPECT(0, speckv_pool_set(dev, "pool", SPECKV_SET_TENANT_QUOTA, &config, NULL));
	visited(name, BOOT_A, "alice", 0, N, false);
	pool = attach_pool(dev, "pool", "lives");
	for (int i = 0; i < 5; i++)
		EXPECT(0, get_number(pool, 3, buffer));
	CHECK(index_find(&pool->region, &key, &found), "3");
	used = load_acquire(&pool->region.entries[found.entry].used);
	visited(name, BOOT_A, "bob", 100, 5, true);
	/* it had not reached the medium */
	memset((void *)pool->region.directory, 0,
		(pool->region.fixed.bucket_mask + 1) * sizeof(struct lay_bucket));
	for (unsigned int i = 0; i < LAY_TENANTS; i++) {
		store_release(&pool->region.head->tenants[i].blocks, 0);
		store_release(&pool->region.head->tenants[i].used_pages, 0);
	}
	store_release(&pool->region.head->stats.use_clock, 1); /* nor had this */
	/* all of it went down: its locks are gone, its slot says that it is in */
	close(pool->region.lock_fd);
	pool->region.lock_fd = open(pool->region.path, O_RDWR | O_CLOEXEC);
	pool->region.guard.fd = pool->region.lock_fd;
	visited(name, as, "carol", 0, 0, false);
	seen = rebuilds(dev);
	CHECK(seen.reboots == (strcmp(as, HIDDEN) != 0) &&
			seen.crashes == (strcmp(as, HIDDEN) == 0),
		"rebuilt %u and %u times", seen.reboots, seen.crashes);
	CHECK(charged(dev, "alice") == N && charged(dev, "bob") == 5 && charged(dev, "carol") == 0,
		"charged: alice %llu, bob %llu, carol %llu",
		(unsigned long long)charged(dev, "alice"), (unsigned long long)charged(dev, "bob"),
		(unsigned long long)charged(dev, "carol"));
	CHECK(index_find(&pool->region, &key, &found), "3");
	CHECK(load_acquire(&pool->region.entries[found.entry].used) == used &&
			load_acquire(&pool->region.entries[found.entry].uses) == 5,
		"its last use was forgotten");
	CHECK(load_acquire(&pool->region.head->stats.use_clock) >= used,
		"what is used from now on would be older");
	speckv_pool_close(pool);
	pool = attach_pool(dev, "pool", "alice");
	for (uint64_t i = 0; i < 100 && !rc; i++)
		rc = put_number(pool, 200 + i, buffer);
	EXPECT(-EDQUOT, rc);
	CHECK(charged(dev, "alice") < 80, "the quota counts what she had");
	speckv_pool_close(pool);
	expect_sound(dev, "pool", -1);
	ended(dev, name);
}

static _Atomic int *holds;

static int keeps_the_lock(void *arg)
{
	struct speckv_device *dev = open_device(arg, 0);
	struct region region;

	boot = BOOT_A;
	EXPECT(0, region_open(dev, "pool", true, &region));
	EXPECT(0,
		lock_byte(region.lock_fd,
			LAY_LOCK_POOL(dev->single_inode ? region.record : 0,
				region.fixed.generation)));
	store_release(holds, 1);
	for (;;)
		pause();
}

/*
 * A process that keeps the pool's lock can keep others out: who that is, the refusal helps to find.
 */
static void who_keeps_a_pool_shut_can_be_found(enum media kind)
{
	char name[300], path[SPECKV_PATH_BYTES], find[SPECKV_PATH_BYTES + 16];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_pool *pool = attach_pool(dev, "pool", "a");
	pid_t pid;

	snprintf(find, sizeof(find), "'fuser -v %s'", pool_lock_path(&pool->region, path));
	CHECK(access(path, F_OK) == 0, "%s", path);
	speckv_pool_close(pool);
	store_release(holds, 0);
	pid = spawn(keeps_the_lock, name);
	while (!load_acquire(holds))
		sleep_us(1000);
	hasty = true;
	REFUSED(-EBUSY, find, speckv_pool_open(dev, "pool", NULL, &pool));
	hasty = false;
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	speckv_pool_close(attach_pool(dev, "pool", "a"));
	ended(dev, name);
}

static const char *between;

static int settles_and_dies(void *arg)
{
	struct speckv_pool *pool = attach_pool(open_device(arg, 0), "pool", "between");
	struct speckv_mem *mem;

	EXPECT(0, put_number(pool, 300, buffer));
	EXPECT(0, speckv_mem_alloc(pool, 100000, &mem));
	raise(SIGKILL);
	return 0;
}

static void another_comes_between(void)
{
	EXPECT(-SIGKILL, wait_child(spawn(settles_and_dies, (void *)(uintptr_t)between)));
}

/*
 * A process that found the pool unsettled, and had its lock only after another had settled it,
 * joined and died: that one's slot is reaped, not taken.
 */
static void settled_by_one_that_died(enum media kind)
{
	char name[300];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_pool *pool;

	visited(name, BOOT_A, "alice", 0, N, true);
	boot = BOOT_B;
	between = name;
	shown_pid = 7;
	before_the_lock = another_comes_between;
	pool = attach_pool(dev, "pool", "next");
	shown_pid = 0;
	CHECK(!before_the_lock, "nothing came between");
	for (uint64_t i = 0; i < N; i++)
		EXPECT(0, get_number(pool, i, buffer));
	EXPECT(0, get_number(pool, 300, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, "pool", N + 1);
	ended(dev, name);
}

static uint64_t hash_file(const char *path, const struct stat *st, uint64_t hash)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t words[512];
	ssize_t got;

	CHECK(fd >= 0, "%s", path);
	hash ^= (uint64_t)st->st_size;
	while ((got = read(fd, words, sizeof(words))) > 0)
		for (ssize_t i = 0; i < got / 8; i++)
			hash = (hash ^ words[i]) * 0x100000001b3ull;
	close(fd);
	return hash;
}

static uint64_t tree_hash;

static int hash_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	for (const char *c = path; *c; c++)
		tree_hash = (tree_hash ^ (uint8_t)*c) * 0x100000001b3ull;
	if (kind == FTW_F)
		tree_hash = hash_file(path, st, tree_hash);
	return 0;
}

static uint64_t hash_all(void)
{
	tree_hash = 0xcbf29ce484222325ull;
	CHECK(nftw(test_dir, hash_one, 16, FTW_PHYS) == 0, "nftw");
	return tree_hash;
}

/*
 * With all that a check can find, and from another boot: not a byte changes until it is told to
 * repair.
 */
static void a_check_changes_nothing(enum media kind)
{
	static const char *const boots[] = { BOOT_A, BOOT_B, HIDDEN };
	char name[300];
	struct speckv_device *dev = fresh(kind, name);
	struct speckv_check_report report;
	struct region region;
	uint64_t before;

	visited(name, BOOT_A, "dies", 0, N, true);
	EXPECT(0, region_open(dev, "pool", true, &region));
	for (uint64_t p = 0, bad = 0; p < region_pages(&region) && bad < 2; p++)
		if (lay_state(load_acquire(&region.page_map[p])) == LAY_HEAD) {
			memset(region.data + p * region.page_bytes, (int)(0xff * bad), 64);
			bad++;
		}
	/* a leak */
	store_release(&region.page_map[region_pages(&region) - 1], lay_word(LAY_CLAIMED, 77, 99));
	memset((void *)region.directory, 0x11, 4096);
	region_close(&region);
	speckv_device_close(dev);
	before = hash_all();
	for (int i = 0; i < 3; i++) {
		boot = boots[i];
		dev = open_device(name, 0);
		EXPECT(-EUCLEAN, check_pool(dev, "pool", SPECKV_CHECK_DEEP, &report));
		CHECK(report.blocks_bad == 2 && report.pages_leaked && report.clients_dead == 1 &&
				!report.repaired,
			"bad %llu leaked %llu dead %llu", (unsigned long long)report.blocks_bad,
			(unsigned long long)report.pages_leaked,
			(unsigned long long)report.clients_dead);
		speckv_device_close(dev);
		CHECK(hash_all() == before, "a check without repair changed the medium");
	}
	dev = open_device(name, 0);
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_DEEP | SPECKV_CHECK_REPAIR, &report));
	CHECK(hash_all() != before, "repaired");
	expect_sound(dev, "pool", N - 2);
	ended(dev, name);
}

int main(void)
{
	test_begin(100);
	buffer = line_alloc(2 * SMALL_BYTES);
	holds = shared_memory(sizeof(*holds));
	for (int kind = 0; kind < test_media(); kind++) {
		under_a_living_client((enum media)kind);
		in_turns((enum media)kind);
		after_a_reboot((enum media)kind, BOOT_B);
		after_a_reboot((enum media)kind, HIDDEN);
		settled_by_one_that_died((enum media)kind);
		who_keeps_a_pool_shut_can_be_found((enum media)kind);
		a_check_changes_nothing((enum media)kind);
	}
	free(buffer);
	test_end();
	return 0;
}

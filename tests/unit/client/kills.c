// SPDX-License-Identifier: MIT
/*
 * A manager is killed before each system call that it makes, in every operation it has: clients go
 * on within a bounded number of calls.
 */
#include <sys/ptrace.h>

#include "client/admin/admin.h"

#include "harness.h"

#define BLOCKS 40
/* calls, a millisecond apart, after which what a dead manager left must not be met any more */
#define BOUND 1000

static uint8_t *buffer;
static char medium[300];

static int create(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("new", 2 * MIB);

	return speckv_pool_create(dev, &config, NULL);
}

static int destroy(struct speckv_device *dev)
{
	return speckv_pool_destroy(dev, "pool", NULL, NULL);
}

static int grow(struct speckv_device *dev)
{
	return speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL);
}

static int shrink(struct speckv_device *dev)
{
	return speckv_pool_resize(dev, "pool", 2 * MIB, 0, NULL, NULL, NULL);
}

static int shrink_hard(struct speckv_device *dev)
{
	return speckv_pool_resize(dev, "pool", 2 * MIB, SPECKV_RESIZE_EVICT, NULL, NULL, NULL);
}

static int set(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .uid = (uint32_t)-1,
		.gid = (uint32_t)-1,
		.quota_bytes = 3 * MIB,
		.eviction = SPECKV_EVICT_NONE };

	return speckv_pool_set(dev, "pool", SPECKV_SET_QUOTA | SPECKV_SET_EVICTION, &config, NULL);
}

#define USER 4242

static int give(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .uid = USER, .gid = USER, .mode = 0660 };

	return speckv_pool_set(dev, "pool", SPECKV_SET_OWNER | SPECKV_SET_MODE, &config, NULL);
}

static int take_back(struct speckv_device *dev)
{
	struct speckv_pool_config config = { .uid = 0, .gid = 0, .mode = 0600 };

	return speckv_pool_set(dev, "pool", SPECKV_SET_OWNER | SPECKV_SET_MODE, &config, NULL);
}

static int repair(struct speckv_device *dev)
{
	struct speckv_check_report report;

	return check_pool(dev, "pool", SPECKV_CHECK_REPAIR, &report);
}

static int close_all(struct speckv_device *dev)
{
	(void)dev;
	return speckv_device_remove(test_ctx, medium, SPECKV_REMOVE_POOLS);
}

enum { KEEPS = 1, LOSES = 2, ENDS = 4 }; /* its blocks; blocks, some; the pool, perhaps */
/*
 * begins with a pool of a user, or one whose file of locks is gone; is about owners: every call
 * counts
 */
enum { GIVEN = 8, UNLOCKED = 16, ROOT = 32 };
static const struct operation {
	const char *name;
	int (*run)(struct speckv_device *dev);
	uint64_t blocks; /* in the pool before */
	unsigned int leaves;
} operations[] = {
	{ "create", create, BLOCKS, KEEPS },
	{ "destroy", destroy, BLOCKS, ENDS },
	{ "grow", grow, BLOCKS, KEEPS },
	{ "shrink", shrink, BLOCKS, KEEPS },
	{ "shrink and evict", shrink_hard, 200, LOSES },
	{ "set", set, BLOCKS, KEEPS },
	{ "close", close_all, BLOCKS, ENDS },
	{ "give", give, BLOCKS, KEEPS | ROOT },
	{ "take back", take_back, BLOCKS, KEEPS | GIVEN | ROOT },
	{ "repair", repair, BLOCKS, KEEPS | GIVEN | UNLOCKED | ROOT },
};

static const struct operation *operation;

static int manager(void *arg)
{
	struct speckv_device *dev = open_device(medium, 0);

	(void)arg;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
		return 77;
	raise(SIGSTOP);
	EXPECT(0, operation->run(dev));
	return 0;
}

/* Run the operation until just before its system call `number`. False: it has fewer. */
static bool killed_before(unsigned int number)
{
	pid_t pid = spawn(manager, NULL);
	int status = 0;

	CHECK(waitpid(pid, &status, 0) == pid, "waitpid");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		fprintf(stderr, "this user may not trace: left out\n");
		exit(77);
	}
	CHECK(WIFSTOPPED(status), "status %#x", status);
	CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD) == 0,
		"ptrace");
	for (unsigned int stops = 0; stops < 2 * number + 1; stops++) {
		/* at entry and at exit of each */
		CHECK(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 &&
				waitpid(pid, &status, 0) == pid,
			"ptrace");
		if (WIFEXITED(status)) {
			CHECK(WEXITSTATUS(status) == 0, "%s failed", operation->name);
			return false;
		}
		CHECK(WIFSTOPPED(status), "status %#x", status);
	}
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	return true;
}

static const char *lock_path(struct speckv_device *dev)
{
	static char path[SPECKV_PATH_BYTES];
	struct lay_pool_record record;
	char lock[48];

	CHECK(device_look(dev, "pool", &record) >= 0, "record");
	pool_hidden_name(&record, "lock", lock);
	EXPECT(0, medium_pool_path(&dev->medium, lock, path));
	return path;
}

static void prepare(uint64_t blocks)
{
	struct speckv_device *dev = open_device(medium, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	struct speckv_pool_config config = small_pool("pool", 4 * MIB);
	struct speckv_pool *pool;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	if (operation->leaves & GIVEN)
		EXPECT(0, give(dev));
	pool = attach_pool(dev, "pool", "a");
	for (uint64_t n = 0; n < blocks; n++)
		EXPECT(0, put_number(pool, n, buffer));
	speckv_pool_close(pool);
	if (operation->leaves & UNLOCKED)
		CHECK(unlink(lock_path(dev)) == 0, "unlink");
	speckv_device_close(dev);
}

static bool owned(const char *path, uint32_t uid, mode_t mode)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_uid == uid && st.st_gid == uid &&
		(st.st_mode & 07777) == mode;
}

/*
 * Root reads the pool whatever the owner is by now, and the same call again has file, locks and
 * record agree.
 */
static void owner_is_settled(struct speckv_device *dev, unsigned int at)
{
	uint32_t uid = operation->run == take_back ? 0 : USER;
	mode_t mode = uid ? 0660 : 0600;
	char path[SPECKV_PATH_BYTES];
	struct speckv_pool_info info;
	int rc;

	EXPECT(0, medium_pool_path(&dev->medium, "pool", path));
	if (!(operation->leaves & UNLOCKED))
		speckv_pool_close(attach_pool(dev, "pool", "a"));
	rc = operation->run(dev);
	CHECK(rc == 0 || rc == -EALREADY, "%s, killed before call %u: again says %d (%s)",
		operation->name, at, rc, speckv_strerror(test_ctx));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.config.uid == uid && info.config.gid == uid && info.config.mode == mode,
		"%s, killed before call %u: uid %u, mode %o", operation->name, at, info.config.uid,
		info.config.mode);
	CHECK(owned(path, uid, mode) && owned(lock_path(dev), uid, mode),
		"%s, killed before call %u: file and locks differ", operation->name, at);
}

/* What a client finds that comes next, no manager before it. False: the pool is gone. */
static bool client_goes_on(struct speckv_device *dev, unsigned int at)
{
	struct speckv_pool *pool;
	uint64_t found = 0;
	int rc = speckv_pool_open(dev, "pool", NULL, &pool);

	if (rc == -ENOENT && operation->leaves & ENDS)
		return false;
	CHECK(rc == 0, "%s, killed before call %u: attach says %d (%s)", operation->name, at, rc,
		speckv_strerror(test_ctx));
	for (uint64_t n = 0; n < operation->blocks; n++)
		found += get_number(pool, n, buffer) == 0;
	CHECK(operation->leaves & LOSES || found == operation->blocks,
		"%s, killed before call %u: %llu blocks of %llu", operation->name, at,
		(unsigned long long)found, (unsigned long long)operation->blocks);
	for (int calls = 0; load_acquire(&pool->region.head->pool.claim_limit); calls++) {
		struct speckv_key key = key_of(1000);

		CHECK(calls < BOUND, "%s, killed before call %u: clients are kept from claiming",
			operation->name, at);
		put_number(pool, 1000, buffer);
		speckv_drop(pool, &key, 1);
		sleep_us(1000);
	}
	for (uint64_t n = 1000; n < 1040; n++)
		EXPECT(0, put_number(pool, n, buffer));
	for (uint64_t n = 1000; n < 1040; n++) {
		int got = get_number(pool, n, buffer);

		/* evicted, at worst */
		CHECK(got == 0 || got == -ENOENT, "%s, killed before call %u: get says %d",
			operation->name, at, got);
	}
	speckv_pool_close(pool);
	return true;
}

static void manager_goes_on(struct speckv_device *dev, bool there)
{
	struct speckv_pool_config config = small_pool("other", 2 * MIB);
	struct speckv_pool_info info;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_destroy(dev, "other", NULL, NULL));
	EXPECT(there ? 0 : -ENOENT, speckv_pool_info(dev, "pool", &info));
	CHECK(!there ||
			(info.state == SPECKV_POOL_ACTIVE &&
				info.used_bytes + info.free_bytes == info.config.capacity_bytes),
		"state %u, %llu + %llu of %llu", info.state, (unsigned long long)info.used_bytes,
		(unsigned long long)info.free_bytes,
		(unsigned long long)info.config.capacity_bytes);
	if (there)
		expect_sound(dev, "pool", -1);
}

static void killed_everywhere(unsigned int step)
{
	for (unsigned int number = 0;; number += step) {
		struct speckv_device *dev;
		bool died, there;
		int rc;

		prepare(operation->blocks);
		died = killed_before(number);
		rc = speckv_device_open(test_ctx, medium, 0, &dev);
		if (rc) {
			CHECK(operation->run == close_all && (rc == -ENOENT || rc == -EEXIST),
				"%s, killed before call %u: open says %d (%s)", operation->name,
				number, rc, speckv_strerror(test_ctx));
		} else {
			if (operation->leaves & ROOT)
				owner_is_settled(dev, number);
			there = client_goes_on(dev, number);
			manager_goes_on(dev, there);
			speckv_device_close(dev);
			remove_device(medium);
		}
		if (!died) {
			printf("%s: %u places\n", operation->name, number / step);
			return;
		}
	}
}

int main(int argc, char **argv)
{
	unsigned int step = argc > 1 ? (unsigned int)atoi(argv[1]) : 1;

	test_begin(400);
	buffer = line_alloc(2 * SMALL_BYTES);
	for (int kind = 0; kind < MEDIA; kind++) {
		speckv_device_close(open_medium((enum media)kind, medium));
		remove_device(medium);
		for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
			operation = &operations[i];
			if (operation->leaves & ROOT && (kind == MEDIUM_FIXED || geteuid() != 0))
				continue;
			killed_everywhere(operation->leaves & ROOT ? 1
					: sanitized()		   ? 7 * step
								   : step);
		}
	}
	free(buffer);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Devices that are made and closed while others make, open or close them: one table each, no name
 * that leads nowhere, and nothing left behind.
 */
#include <dirent.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "managers.h"

static _Atomic uint32_t *flag;
static uint8_t *buffer;

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
	managers_before_format = another_formats;
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

void managers_make_devices(void)
{
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
	free(buffer);
}

// SPDX-License-Identifier: MIT
/*
 * What another user made or can change is refused, with the command that mends it, and nothing is
 * made, removed or written through it; what another user can hold stops no manager. Needs root: the
 * other user is uid 65534, or 4242 where it has a pool.
 */
#include <grp.h>
#include <linux/capability.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "client/admin/admin.h"

#include "harness.h"

#define STRANGER 65534
#define SKIPPED 77

static char runtime[300], victim[300];
static struct speckv_pool_config config;

static void fresh(void)
{
	empty_test_dir();
	snprintf(runtime, sizeof(runtime), "%s/runtime", test_dir);
	snprintf(victim, sizeof(victim), "%s/victim", test_dir);
	CHECK(mkdir(runtime, 0755) == 0 && mkdir(victim, 0755) == 0, "mkdir");
	CHECK(setenv("SPECKV_RUNTIME_DIR", runtime, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	config = small_pool("passwd", 2 * MIB);
}

static void write_file(const char *path, mode_t mode, uid_t owner)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, "precious", 8) == 8 && fchmod(fd, mode) == 0 &&
			fchown(fd, owner, owner) == 0,
		"%s", path);
	close(fd);
}

static bool is_precious(const char *path)
{
	char text[16] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	bool same = fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 8 && read(fd, text, 8) == 8 &&
		memcmp(text, "precious", 8) == 0;

	if (fd >= 0)
		close(fd);
	return same;
}

static const char *in(const char *folder, const char *name)
{
	static char paths[4][1000];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static struct lay_pool_record *record_of(struct speckv_device *dev, const char *name)
{
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&dev->table->pools[i].state) &&
			strcmp(dev->table->pools[i].name, name) == 0)
			return &dev->table->pools[i];
	CHECK(false, "no record %s", name);
	return NULL;
}

/* Every way into a device is refused with this error and text. */
static void shut(const char *name, int error, const char *text)
{
	struct speckv_device_info info;
	struct speckv_device *dev;

	for (unsigned int flags = 0; flags < 4; flags++) {
		REFUSED(error, text, speckv_device_open(test_ctx, name, flags, &dev));
		CHECK(!dev, "no handle");
	}
	REFUSED(error, text, speckv_device_remove(test_ctx, name, SPECKV_REMOVE_POOLS));
	EXPECT(0, speckv_device_probe(test_ctx, name, &info));
	CHECK(info.state == SPECKV_MEDIUM_DENIED && strstr(info.found, text), "state %u: %s",
		info.state, info.found);
}

static int ignore_device(const struct speckv_device_info *info, void *arg)
{
	(void)info;
	++*(unsigned int *)arg;
	return 0;
}

static void the_runtime_folder_is_of_this_user_or_root(void)
{
	unsigned int devices = 0;
	char link_path[700];
	struct stat st;

	fresh();
	CHECK(chown(runtime, STRANGER, STRANGER) == 0, "chown");
	shut("host:DRAM", -EACCES, "export SPECKV_RUNTIME_DIR=");
	shut("host:numa0", -EACCES, "belongs to uid 65534");
	REFUSED(-EACCES, "belongs to uid 65534",
		speckv_device_foreach(test_ctx, ignore_device, &devices));
	CHECK(devices == 0 && stat(in(runtime, "DRAM"), &st) != 0,
		"nothing was made or listed there");
	CHECK(chown(runtime, 0, 0) == 0 && chmod(runtime, 0775) == 0, "chmod");
	shut("host:DRAM", -EACCES, "chmod go-w");
	CHECK(chmod(runtime, 01777) == 0, "chmod");
	shut("host:DRAM", -EACCES, "is writable by all users");
	CHECK(chmod(runtime, 0755) == 0, "chmod");

	/* a link of another user leads nowhere, one of root does, wherever it stands in the path */
	CHECK(rename(runtime, in(test_dir, "real")) == 0 && symlink("real", runtime) == 0 &&
			lchown(runtime, STRANGER, STRANGER) == 0,
		"link");
	shut("host:DRAM", -EACCES, "symbolic link that uid 65534 made");
	CHECK(lchown(runtime, 0, 0) == 0, "lchown");
	speckv_device_close(open_device("host:DRAM", SPECKV_OPEN_CREATE));
	CHECK(stat(in(test_dir, "real/DRAM"), &st) == 0, "made behind the link");
	snprintf(link_path, sizeof(link_path), "%s/loop", test_dir);
	CHECK(symlink("loop", link_path) == 0, "link");
	snprintf(link_path, sizeof(link_path), "host:%s/loop/medium", test_dir);
	shut(link_path, -EACCES, "more than 40 symbolic links");

	/* where any user can exchange folders, the owner of what lies there now says nothing */
	CHECK(unlink(runtime) == 0 && rename(in(test_dir, "real"), runtime) == 0 &&
			chmod(test_dir, 0777) == 0,
		"as it was");
	shut("host:DRAM", -EACCES, "chmod +t");
	CHECK(chmod(test_dir, 01777) == 0, "chmod");
	speckv_device_close(open_device("host:DRAM", 0));
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
}

static void tables_are_of_this_user_or_root(void)
{
	const char *table;
	struct stat st;

	fresh();
	table = in(runtime, "DRAM");
	speckv_device_close(open_device("host:DRAM", SPECKV_OPEN_CREATE));
	CHECK(chown(table, STRANGER, STRANGER) == 0, "chown");
	shut("host:DRAM", -EACCES, "rm -r");
	CHECK(chown(table, 0, 0) == 0 && chmod(table, 0664) == 0, "chmod");
	shut("host:DRAM", -EACCES, "chmod go-w");
	CHECK(chmod(table, 0644) == 0 && rename(table, in(victim, "DRAM")) == 0 &&
			symlink(in(victim, "DRAM"), table) == 0,
		"link");
	shut("host:DRAM", -EACCES, "is a symbolic link");
	CHECK(unlink(table) == 0 && mkfifo(table, 0644) == 0, "mkfifo");
	shut("host:DRAM", -EACCES, "is a FIFO"); /* and nothing waits for its other end */
	CHECK(unlink(table) == 0 && mkdir(table, 0755) == 0, "mkdir");
	shut("host:DRAM", -EACCES, "is a folder");
	CHECK(rmdir(table) == 0, "rmdir");

	CHECK(chown(in(runtime, "DRAM.pools"), STRANGER, STRANGER) == 0, "mkdir");
	{
		struct speckv_device *dev;

		REFUSED(-EACCES, "DRAM.pools belongs to uid 65534",
			speckv_device_open(test_ctx, "host:DRAM", SPECKV_OPEN_CREATE, &dev));
		CHECK(stat(table, &st) != 0, "no table without a folder for its pools");
	}
	CHECK(chown(in(runtime, "DRAM.pools"), 0, 0) == 0, "chown");
}

/*
 * A record of a pool whose manager died, and a folder of pools that leads elsewhere: nothing there
 * is touched.
 */
static void the_folder_of_pools_leads_nowhere_else(void)
{
	static const uint32_t states[] = { SPECKV_POOL_CREATING, SPECKV_POOL_DESTROYING,
		SPECKV_POOL_RESIZING, SPECKV_POOL_ACTIVE };
	struct speckv_pool_config other = small_pool("other", 2 * MIB);
	char pools[700], away[700];
	struct stat st;

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct speckv_device *dev;
		struct speckv_pool *pool;

		fresh();
		snprintf(pools, sizeof(pools), "%s/DRAM.pools", runtime);
		snprintf(away, sizeof(away), "%s/away", test_dir);
		dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
		EXPECT(0, speckv_pool_create(dev, &config, NULL));
		write_file(in(victim, "passwd"), 0644, 0);
		CHECK(rename(pools, away) == 0 && symlink(victim, pools) == 0, "link");
		store_release(&record_of(dev, "passwd")->state, states[i]);
		REFUSED(-EACCES, "is a symbolic link", speckv_pool_create(dev, &other, NULL));
		CHECK(speckv_pool_open(dev, "passwd", NULL, &pool) < 0, "not opened");
		speckv_pool_destroy(dev, "passwd", NULL, NULL);
		CHECK(is_precious(in(victim, "passwd")) && stat(in(victim, "other"), &st) != 0,
			"state %u: nothing behind the link was touched", states[i]);

		/* a folder of this very user, with another file under the pool's name */
		CHECK(unlink(pools) == 0 && rename(victim, pools) == 0, "swap");
		speckv_pool_destroy(dev, "passwd", NULL, NULL);
		CHECK(is_precious(in(pools, "passwd")), "state %u: not a pool, and not removed",
			states[i]);
		speckv_device_close(dev);
	}
}

static void records_with_paths_for_names_are_passed_over(void)
{
	static const char *const names[] = { "../../victim/passwd", "/etc/passwd", "..", ".", "a/b",
		".lock" };
	struct speckv_device *dev;
	struct stat st;

	fresh();
	write_file(in(victim, "passwd"), 0644, 0);
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (uint32_t state = SPECKV_POOL_CREATING; state <= SPECKV_POOL_DESTROYING;
			state++) {
			struct lay_pool_record *record = &dev->table->pools[9];
			struct speckv_pool_config good = small_pool("good", 2 * MIB);
			struct speckv_pool_info info;

			memset((void *)record, 0, sizeof(*record));
			snprintf(record->name, sizeof(record->name), "%s", names[i]);
			store_release(&record->state, state);
			CHECK(speckv_pool_info(dev, names[i], &info) == -ENOENT, "%s is no pool",
				names[i]);
			CHECK(speckv_pool_destroy(dev, names[i], NULL, NULL) == -ENOENT,
				"%s is no pool", names[i]);
			/* a manager finishes what it finds */
			EXPECT(0, speckv_pool_create(dev, &good, NULL));
			EXPECT(0, speckv_pool_destroy(dev, "good", NULL, NULL));
			CHECK(is_precious(in(victim, "passwd")) && stat("/etc/passwd", &st) == 0,
				"nothing outside was removed");
			store_release(&record->state, 0);
		}
	speckv_device_close(dev);
}

/*
 * What lies under a pool's name is opened only if it is a file of the pool's owner, and removed
 * only if it is that pool.
 */
static void pool_files_are_looked_at(void)
{
	struct speckv_pool_config given = { .uid = 4242, .gid = 4242 };
	struct speckv_device *dev;
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	char path[SPECKV_PATH_BYTES], kept[700];
	struct stat st;

	fresh();
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, &info));
	snprintf(path, sizeof(path), "%s", info.path);
	snprintf(kept, sizeof(kept), "%s/kept", victim);
	/* in root's folder that was root: a set that was killed has done as much */
	CHECK(chown(path, STRANGER, STRANGER) == 0, "chown");
	speckv_pool_close(attach_pool(dev, "passwd", "root"));
	CHECK(chown(path, 0, 0) == 0 && chmod(path, 0666) == 0, "chmod");
	REFUSED(-EACCES, "chmod go-w", speckv_pool_open(dev, "passwd", NULL, &pool));
	CHECK(chmod(path, 0600) == 0 && rename(path, kept) == 0 && mkfifo(path, 0600) == 0,
		"mkfifo");
	REFUSED(-EACCES, "is a FIFO", speckv_pool_open(dev, "passwd", NULL, &pool));
	REFUSED(-EACCES, "is a FIFO", speckv_pool_destroy(dev, "passwd", NULL, NULL));
	CHECK(unlink(path) == 0 && symlink(kept, path) == 0, "link");
	REFUSED(-EACCES, "is a symbolic link", speckv_pool_open(dev, "passwd", NULL, &pool));
	CHECK(unlink(path) == 0, "unlink");
	write_file(path, 0600, 0);
	REFUSED(-EEXIST, "is not the file of pool passwd",
		speckv_pool_destroy(dev, "passwd", NULL, NULL));
	CHECK(is_precious(path), "and stays");
	CHECK(rename(kept, path) == 0, "as it was");

	/* what root gave to a user is that user's, for root too */
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER, &given, NULL));
	CHECK(stat(path, &st) == 0 && st.st_uid == 4242, "given");
	speckv_pool_close(attach_pool(dev, "passwd", "root"));
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	CHECK(stat(path, &st) != 0, "gone");

	/* a file that no record names is never taken for a left-over */
	write_file(path, 0600, 0);
	REFUSED(-EEXIST, "mv ", speckv_pool_create(dev, &config, NULL));
	CHECK(is_precious(path), "and stays");
	CHECK(unlink(path) == 0, "unlink");
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
}

static void media_at_paths_are_of_this_user_or_root(void)
{
	struct speckv_device *dev;
	char name[800], media[700];
	struct stat st;

	fresh();
	snprintf(name, sizeof(name), "host:%s/shared/medium", test_dir);
	CHECK(mkdir(in(test_dir, "shared"), 0755) == 0 && chmod(in(test_dir, "shared"), 01777) == 0,
		"mkdir");
	write_file(name + 5, 0644, STRANGER);
	shut(name, -EACCES, "belongs to uid 65534");
	CHECK(is_precious(name + 5) && unlink(name + 5) == 0, "not touched");
	write_file(name + 5, 0646, 0);
	shut(name, -EACCES, "chmod go-w");
	CHECK(unlink(name + 5) == 0 && symlink(in(victim, "new"), name + 5) == 0, "link");
	shut(name, -EACCES, "is a symbolic link");
	CHECK(stat(in(victim, "new"), &st) != 0 && unlink(name + 5) == 0,
		"nothing was made behind it");
	write_file(in(victim, "mine"), 0644, 0);
	CHECK(link(in(victim, "mine"), name + 5) == 0, "link");
	shut(name, -EACCES, "has 2 names");
	CHECK(is_precious(in(victim, "mine")) && unlink(name + 5) == 0, "not touched");
	CHECK(mkdir(in(test_dir, "shared/medium.pools"), 0777) == 0 &&
			chown(in(test_dir, "shared/medium.pools"), STRANGER, STRANGER) == 0,
		"mkdir");
	REFUSED(-EACCES, "medium.pools belongs to uid 65534",
		speckv_device_open(test_ctx, name, SPECKV_OPEN_CREATE, &dev));
	CHECK(rmdir(in(test_dir, "shared/medium.pools")) == 0, "rmdir");

	/*
	 * the list of media at paths is in the runtime folder, and nothing is written where that is
	 * another user's
	 */
	snprintf(media, sizeof(media), "%s/media", runtime);
	CHECK(mkdir(media, 0755) == 0 && chown(media, STRANGER, STRANGER) == 0, "mkdir");
	dev = open_device(name, SPECKV_OPEN_CREATE);
	CHECK(rmdir(media) == 0, "nothing was written into it");
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	CHECK(chmod(in(test_dir, "shared"), 0777) == 0, "chmod");
	shut(name, -EACCES, "chmod +t");
	CHECK(chmod(in(test_dir, "shared"), 01777) == 0, "chmod");
	remove_device(name);
	CHECK(stat(name + 5, &st) != 0 && stat(in(test_dir, "shared/medium.pools"), &st) != 0,
		"removed by its owner");
}

static int listen_at(void *arg)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", (const char *)arg);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
	CHECK(setgid(STRANGER) == 0 && setuid(STRANGER) == 0 && listen(fd, 8) == 0, "listen");
	for (;;)
		pause();
	return 0;
}

static void cards_are_of_this_user_or_root(void)
{
	char answer[64], socket_path[700];
	struct speckv_admin *admin;
	const char *emu;
	struct stat st;
	pid_t pid;

	fresh();
	emu = in(runtime, "emu");
	CHECK(mkdir(emu, 0755) == 0 && mkdir(in(emu, "card"), 0755) == 0 &&
			chown(in(emu, "card"), STRANGER, STRANGER) == 0,
		"mkdir");
	REFUSED(-EACCES, "belongs to uid 65534", speckv_admin_open(test_ctx, "emu:card", &admin));
	REFUSED(-EACCES, "belongs to uid 65534",
		speckv_emu_control(test_ctx, "emu:card", "stop", answer, sizeof(answer)));
	CHECK(chown(in(emu, "card"), 0, 0) == 0 && chown(emu, STRANGER, STRANGER) == 0, "chown");
	REFUSED(-EACCES, "belongs to uid 65534", speckv_admin_open(test_ctx, "emu:card", &admin));
	CHECK(chown(emu, 0, 0) == 0, "chown");

	/* a folder that is right, and another user's process behind its socket */
	snprintf(socket_path, sizeof(socket_path), "%s/card/control", in(runtime, "emu"));
	pid = spawn(listen_at, socket_path);
	while (stat(socket_path, &st) != 0)
		sleep_us(1000);
	for (int rc = -ENXIO; rc != -EACCES; sleep_us(1000)) {
		rc = speckv_emu_control(test_ctx, "emu:card", "status", answer, sizeof(answer));
		CHECK(rc == -ENXIO || rc == -EACCES, "%d", rc); /* until it listens */
	}
	CHECK(strstr(speckv_strerror(test_ctx), "another user's process"), "%s",
		speckv_strerror(test_ctx));
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
}

/* Users with no right but to read, and those of a group. */
static int as_member(void *arg)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	uint8_t *buffer = line_alloc(2 * SMALL_BYTES);

	(void)arg;
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0 && setgid(4343) == 0 && setuid(4343) == 0,
		"setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	dev = open_device("host:DRAM", 0);
	EXPECT(0, speckv_pool_open(dev, "passwd", NULL, &pool));
	EXPECT(0, put_number(pool, 1, buffer));
	EXPECT(0, get_number(pool, 1, buffer));
	speckv_pool_close(pool);
	REFUSED(-EACCES, "permission", speckv_pool_destroy(dev, "passwd", NULL, NULL));
	REFUSED(-EACCES, "permission",
		speckv_pool_create(dev,
			&(struct speckv_pool_config){ .name = "mine",
				.capacity_bytes = 2 * MIB,
				.geometry = small_shape },
			NULL));
	speckv_device_close(dev);
	return 0;
}

static int as_owner(void *arg)
{
	struct speckv_pool_config shared = small_pool("passwd", 2 * MIB);
	struct speckv_device *dev;

	(void)arg;
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0 && setgid(5000) == 0 && setuid(4242) == 0,
		"setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	shared.mode = 0660;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &shared, NULL));
	speckv_device_close(dev);
	return 0;
}

static int as_other(void *arg)
{
	struct speckv_device *dev;

	(void)arg;
	CHECK(setgroups(0, NULL) == 0 && setgid(4444) == 0 && setuid(4444) == 0, "setuid");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	REFUSED(-EACCES, "belongs to uid 4242", speckv_device_open(test_ctx, "host:DRAM", 0, &dev));
	return 0;
}

static void a_group_may_share_and_root_is_in_none(void)
{
	struct speckv_device *dev;

	fresh();
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	config.gid = 5000;
	config.mode = 0660;
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE); /* root's folder, a group's pool */
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	EXPECT(0, wait_child(spawn(as_member, NULL)));

	fresh(); /* a user's folder, shared with a group of that user's */
	CHECK(chown(runtime, 4242, 5000) == 0, "chown");
	EXPECT(0, wait_child(spawn(as_owner, NULL)));
	EXPECT(0, wait_child(spawn(as_member, NULL)));
	EXPECT(0, wait_child(spawn(as_other, NULL)));
	/* root shares nothing, whatever its groups */
	CHECK(setgroups(1, &(gid_t){ 5000 }) == 0, "setgroups");
	REFUSED(-EACCES, "belongs to uid 4242", speckv_device_open(test_ctx, "host:DRAM", 0, &dev));
	CHECK(setgroups(0, NULL) == 0, "setgroups");
}

/* ---- locks ---------------------------------------------------------------------------------- */

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

/*
 * In front of the C library's: what files that change hands let be done on the way, and by which
 * group.
 */
static const struct owned {
	gid_t gid;
	mode_t mode;
} *steps; /* before and after */
static unsigned int changes;

static void look_at_step(int fd)
{
	struct stat st;

	if (!steps || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	changes++;
	for (unsigned int i = 0; i < 2; i++)
		st.st_mode &= steps[i].gid == st.st_gid ? ~(steps[i].mode & 070) : ~0u;
	CHECK(!(st.st_mode & 070), "group %u gets %o", st.st_gid, st.st_mode & 070);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
	int rc = (int)syscall(SYS_fchown, fd, uid, gid);

	look_at_step(fd);
	return rc;
}

int fchmod(int fd, mode_t mode)
{
	int rc = (int)syscall(SYS_fchmod, fd, mode);

	look_at_step(fd);
	return rc;
}

/* May give files away, and then not change them. */
static int gives_as_owner(void *arg)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	struct speckv_pool_config set = { .uid = 4242, .gid = 5000, .mode = 0660 };

	(void)arg;
	CHECK(syscall(SYS_capget, &header, caps) == 0, "capget");
	caps[0].effective &= ~(1u << CAP_FOWNER);
	CHECK(syscall(SYS_capset, &header, caps) == 0, "capset");
	EXPECT(0,
		speckv_pool_set(open_device("host:DRAM", 0), "passwd",
			SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	return 0;
}

/*
 * A pool that is given away with another mode: at no instant may the old group do what the new one
 * shall, or the other way round.
 */
static void a_pool_that_changes_hands_is_for_no_one_between(void)
{
	static const struct owned made[] = { { 0, 0600 }, { 5000, 0660 } },
				  back[] = { { 5000, 0660 }, { 0, 0600 } },
				  wide[] = { { 5000, 0600 }, { 0, 0660 } };
	struct speckv_pool_config set = { .uid = 0, .gid = 0, .mode = 0600 };
	struct speckv_device *dev;

	fresh();
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	config.uid = 4242;
	config.gid = 5000;
	config.mode = 0660;
	steps = made;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	steps = back;
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	steps = NULL;
	set = (struct speckv_pool_config){ .uid = 4242, .gid = 5000, .mode = 0600 };
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER, &set, NULL));
	set = (struct speckv_pool_config){ .uid = 0, .gid = 0, .mode = 0660 };
	steps = wide;
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_OWNER | SPECKV_SET_MODE, &set, NULL));
	steps = NULL;
	set = (struct speckv_pool_config){ .uid = 0, .gid = 0, .mode = 0600 };
	EXPECT(0, speckv_pool_set(dev, "passwd", SPECKV_SET_MODE, &set, NULL));
	EXPECT(0, wait_child(spawn(gives_as_owner, NULL)));
	CHECK(changes >= 10, "%u steps were looked at", changes);
	EXPECT(0, speckv_pool_destroy(dev, "passwd", NULL, NULL));
	speckv_device_close(dev);
	remove_device("host:DRAM");
}

/* In front of the C library's: what another writer of the table does while it is flushed. */
static struct lay_pool_record *shortened;

int msync(void *address, size_t bytes, int flags)
{
	if (shortened && load_acquire(&shortened->state) == SPECKV_POOL_RESIZING) {
		shortened->extent[1].bytes -= LAY_UNIT;
		shortened = NULL;
	}
	return (int)syscall(SYS_msync, address, bytes, flags);
}

/* The same, just before a new pool gets its uuid. */
static struct lay_pool_record *occupied;

ssize_t getrandom(void *buffer, size_t bytes, unsigned int flags)
{
	if (occupied) {
		memcpy(occupied->name, "wide", sizeof("wide"));
		occupied->extent[0] = (struct lay_extent){ LAY_UNIT, 94 * MIB };
		occupied->extents = 1;
		store_release(&occupied->state, SPECKV_POOL_ACTIVE);
		occupied = NULL;
	}
	return syscall(SYS_getrandom, buffer, bytes, flags);
}

/*
 * Room for a pool that the table says is gone, after it was looked for: no pool is made, least of
 * all in the place of the table.
 */
static void a_table_that_fills_under_a_creation_refuses_it(void)
{
	char name[300];
	struct lay_pool_record *last;
	struct speckv_device *dev;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 4 * MIB);
	last = occupied = &dev->table->pools[LAY_POOLS - 1];
	REFUSED(-ENOSPC, "pool pool needs", speckv_pool_create(dev, &config, NULL));
	CHECK(!occupied && dev->table->super.magic == LAY_DEVICE_MAGIC,
		"the table was overwritten");
	store_release(&last->state, 0);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + 5);
}

/*
 * What a pool grows into is zeroed as far as the table says that it is there, which is less by now.
 */
static void a_table_that_shrinks_under_a_growth_refuses_it(void)
{
	char name[300];
	struct speckv_pool_info info;
	struct speckv_device *dev;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 4 * MIB);
	config.max_bytes = 16 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	shortened = record_of(dev, "pool");
	REFUSED(-EUCLEAN, "cannot grow",
		speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, NULL));
	CHECK(!shortened, "nothing came between");
	record_of(dev, "pool")->extent[1].bytes = 4 * MIB;
	EXPECT(0, speckv_pool_resize(dev, "pool", 8 * MIB, 0, NULL, NULL, &info));
	CHECK(info.config.capacity_bytes == 8 * MIB, "%llu bytes",
		(unsigned long long)info.config.capacity_bytes);
	expect_sound(dev, "pool", 0);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);
	remove_device(name);
	unlink(name + 5);
}

static void folders_and_files_for_programs(void)
{
	char file[700];
	int folder, fd;

	fresh();
	folder = speckv_folder_open(test_ctx, in(runtime, "emu"), SPECKV_FOLDER_MAKE);
	CHECK(folder >= 0, "%s", speckv_strerror(test_ctx));
	snprintf(file, sizeof(file), "%s/emu/file", runtime);
	fd = speckv_file_open(test_ctx, folder, file, O_WRONLY | O_CREAT | O_EXCL, 0600);
	CHECK(fd >= 0 && fcntl(fd, F_GETFD) & FD_CLOEXEC, "%s", speckv_strerror(test_ctx));
	close(fd);
	REFUSED(-EEXIST, "is there already",
		speckv_file_open(test_ctx, folder, file, O_WRONLY | O_CREAT | O_EXCL, 0600));
	REFUSED(-ENOENT, "is not there", speckv_file_open(test_ctx, folder, "none", O_RDONLY, 0));
	CHECK(chown(file, STRANGER, STRANGER) == 0, "chown");
	REFUSED(-EACCES, "belongs to uid 65534",
		speckv_file_open(test_ctx, folder, file, O_RDONLY, 0));
	close(folder);
	CHECK(symlink("emu", in(runtime, "link")) == 0, "link");
	folder = speckv_folder_open(test_ctx, in(runtime, "link"), 0);
	CHECK(folder >= 0 && close(folder) == 0, "a link of this user's");
	REFUSED(-EACCES, "is a symbolic link",
		speckv_folder_open(test_ctx, in(runtime, "link"), SPECKV_FOLDER_PLAIN));
	REFUSED(-ENOENT, "no folder", speckv_folder_open(test_ctx, in(runtime, "none"), 0));
	REFUSED(-EINVAL, "absolute", speckv_folder_open(test_ctx, "relative", 0));
	REFUSED(-ENOTDIR, "is a file", speckv_folder_open(test_ctx, file, 0));
	EXPECT(-EINVAL, speckv_folder_open(test_ctx, NULL, 0));
	EXPECT(-ENOTDIR, speckv_file_open(test_ctx, -1, file, O_RDONLY, 0));
}

static int turns_its_extents(void *arg)
{
	struct lay_pool_record *record = ((struct lay_device *)arg)->pools;
	_Atomic uint32_t *extents;

	while (!load_acquire(&record->state))
		record++;
	extents = (_Atomic uint32_t *)&record->extents;
	for (uint32_t n = 0;; n++)
		store_release(extents, n % 3 == 0 ? 2 : n % 3 == 1 ? 0 : 4000000);
	return 0;
}

/*
 * What a writer of a medium of fixed size sets in its table, before it is opened or while it is
 * used, is checked in a copy.
 */
static void a_writer_of_a_table_directs_no_manager(void)
{
	char name[300];
	struct speckv_device *dev;
	struct lay_superblock super;
	struct lay_device *table;
	int fd;
	pid_t pid;

	fresh();
	dev = open_medium(MEDIUM_FIXED, name);
	config = small_pool("pool", 2 * MIB);
	config.max_bytes = 8 * MIB;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	fd = open(name + 5, O_RDWR | O_CLOEXEC);
	table = mmap(NULL, sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(fd >= 0 && table != MAP_FAILED, "%s", name);
	pid = spawn(turns_its_extents, table);
	for (int i = 0; i < 4000; i++) {
		int rc = speckv_pool_resize(dev, "pool", 4 * MIB, SPECKV_RESIZE_DRY_RUN, NULL, NULL,
			NULL);

		CHECK(rc == 0 || rc == -ENOENT || rc == -EUCLEAN || rc == -ENOSPC || rc == -EBUSY ||
				rc == -EBADMSG,
			"%d (%s)", rc, speckv_strerror(test_ctx));
	}
	kill(pid, SIGKILL);
	EXPECT(-SIGKILL, wait_child(pid));
	for (int i = 0; i < LAY_POOLS; i++)
		if (load_acquire(&table->pools[i].state))
			table->pools[i].extents = 2;
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	expect_sound(dev, "pool", -1);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	speckv_device_close(dev);

	/* "made by the library, and its to remove": also with a checksum that is right */
	memcpy((void *)&super, (const void *)&table->super, sizeof(super));
	super.made_file = 1;
	atomic_init(&super.state, LAY_MEDIUM_READY);
	super.crc = speckv_crc32c(0, &super, offsetof(struct lay_superblock, crc));
	memcpy((void *)&table->super, (const void *)&super, sizeof(super));
	remove_device(name);
	CHECK(access(name + 5, F_OK) == 0, "a manager was led to remove %s", name + 5);
	munmap(table, sizeof(*table));
	close(fd);
	unlink(name + 5);
}

int main(void)
{
	if (geteuid() != 0) {
		fprintf(stderr, "not root: another user's files cannot be made\n");
		return SKIPPED;
	}
	test_begin(100);
	ready = shared_memory(sizeof(*ready));
	the_runtime_folder_is_of_this_user_or_root();
	tables_are_of_this_user_or_root();
	the_folder_of_pools_leads_nowhere_else();
	records_with_paths_for_names_are_passed_over();
	pool_files_are_looked_at();
	media_at_paths_are_of_this_user_or_root();
	cards_are_of_this_user_or_root();
	a_group_may_share_and_root_is_in_none();
	locks_of_readers_stop_no_one();
	a_table_of_no_use_is_replaced_under_its_readers();
	locks_of_a_pool_are_for_those_who_may_write_it();
	a_fixed_medium_is_not_for_readers();
	a_share_of_the_slots_is_the_managers();
	a_pool_that_changes_hands_is_for_no_one_between();
	a_writer_of_a_table_directs_no_manager();
	a_table_that_shrinks_under_a_growth_refuses_it();
	a_table_that_fills_under_a_creation_refuses_it();
	folders_and_files_for_programs();
	test_end();
	return 0;
}

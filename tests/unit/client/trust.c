// SPDX-License-Identifier: MIT
/*
 * What another user made or can change is refused, with the command that mends it, and nothing is
 * made, removed or written through it.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "trust.h"

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

	snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", (const char *)arg);
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
	REFUSED(-EEXIST, "exists already",
		speckv_file_open(test_ctx, folder, file, O_WRONLY | O_CREAT | O_EXCL, 0600));
	REFUSED(-ENOENT, "does not exist", speckv_file_open(test_ctx, folder, "none", O_RDONLY, 0));
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

int main(void)
{
	begin_as_root(100);
	the_runtime_folder_is_of_this_user_or_root();
	tables_are_of_this_user_or_root();
	the_folder_of_pools_leads_nowhere_else();
	records_with_paths_for_names_are_passed_over();
	pool_files_are_looked_at();
	media_at_paths_are_of_this_user_or_root();
	cards_are_of_this_user_or_root();
	folders_and_files_for_programs();
	test_end();
	return 0;
}

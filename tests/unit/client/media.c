// SPDX-License-Identifier: MIT
/*
 * A medium that is unrecognized, incomplete, of another version, damaged or cut short is refused,
 * with what it is, and not touched.
 */
#include "client/admin/admin.h"

#include <speckv/card.h>

#include "harness.h"

static char name[300];

static void write_at(const char *path, uint64_t offset, const void *data, size_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && pwrite(fd, data, bytes, (off_t)offset) == (ssize_t)bytes, "%s", path);
	close(fd);
}

static uint32_t checksum(const char *path)
{
	struct stat st;
	uint32_t crc;
	void *map;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0, "%s", path);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED, "mmap");
	crc = speckv_crc32c(0, map, (uint64_t)st.st_size);
	munmap(map, (size_t)st.st_size);
	close(fd);
	return crc;
}

static void refused(int error, uint32_t state, const char *text)
{
	struct speckv_device_info info;
	struct speckv_device *dev;
	uint32_t before = checksum(name + 5);

	EXPECT(0, speckv_device_probe(test_ctx, name, &info));
	CHECK(info.state == state && strstr(info.found, text), "state %u: %s", info.state,
		info.found);
	for (unsigned int flags = 0; flags < 3; flags++) {
		/* none, CREATE, FORMAT alone: no leave to overwrite */
		REFUSED(error, text, speckv_device_open(test_ctx, name, flags, &dev));
		CHECK(!dev && checksum(name + 5) == before, "not touched");
	}
}

static void formatted(void)
{
	struct speckv_device *dev = open_device(name, SPECKV_OPEN_CREATE | SPECKV_OPEN_FORMAT);
	struct speckv_device_info info;

	EXPECT(0, speckv_device_info(dev, &info));
	CHECK(info.state == SPECKV_MEDIUM_READY && info.pools == 0, "made anew");
	speckv_device_close(dev);
}

static void a_fixed_medium(void)
{
	struct lay_superblock super;
	const char *path = name + 5;
	uint64_t magic = 0x4242424242424242ull, zero = 0;
	uint32_t version = 7, state = LAY_MEDIUM_MAKING;
	int fd;

	snprintf(name, sizeof(name), "host:%s/fixed.kv", test_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0 && ftruncate(fd, 16 * MIB) == 0, "file");
	close(fd);
	refused(-EEXIST, SPECKV_MEDIUM_UNRECOGNIZED, "are zero, 16 MiB");
	write_at(path, 1080, "\x53\xef", 2);
	refused(-EEXIST, SPECKV_MEDIUM_UNRECOGNIZED, "an ext2/3/4 file system");
	write_at(path, 0, &magic, 8);
	write_at(path, 1080, "\0\0", 2);
	refused(-EEXIST, SPECKV_MEDIUM_UNRECOGNIZED, "unknown data");
	formatted();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(pread(fd, &super, sizeof(super), 0) == (ssize_t)sizeof(super), "read");
	close(fd);

	write_at(path, offsetof(struct lay_superblock, version), &version, 4);
	refused(-EPROTONOSUPPORT, SPECKV_MEDIUM_OTHER_VERSION, "layout version 7");
	write_at(path, 0, &super, sizeof(super));
	write_at(path, offsetof(struct lay_superblock, state), &state, 4);
	refused(-EUCLEAN, SPECKV_MEDIUM_INCOMPLETE, "not finished");
	write_at(path, 0, &super, sizeof(super));
	write_at(path, offsetof(struct lay_superblock, created_ns), &zero, 8);
	refused(-EUCLEAN, SPECKV_MEDIUM_INCOMPLETE, "checksum");
	write_at(path, 0, &super, sizeof(super));
	CHECK(truncate(path, 5 * MIB) == 0, "cut");
	refused(-EBADMSG, SPECKV_MEDIUM_TRUNCATED, "format, truncated to 5 MiB of 16 MiB");
	CHECK(truncate(path, 1000) == 0, "cut");
	refused(-EBADMSG, SPECKV_MEDIUM_TRUNCATED, "truncated to 1000 bytes");
	CHECK(truncate(path, 16 * MIB) == 0, "whole again");
	remove_device(name);
	unlink(path);
}

/* Leaves the pool destroyed. */
static void a_pool_that_is_damaged(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pool", 2 * MIB);
	struct speckv_pool_info info;
	struct speckv_pool *pool;
	struct lay_pool saved;
	char path[SPECKV_PATH_BYTES];
	uint32_t version = 9, state = LAY_MEDIUM_MAKING;
	uint64_t huge = 1ull << 62;
	struct stat st;
	int fd;

	EXPECT(0, speckv_pool_create(dev, &config, &info));
	memcpy(path, info.path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && pread(fd, &saved, sizeof(saved), 0) == (ssize_t)sizeof(saved) &&
			fstat(fd, &st) == 0,
		"read");
	close(fd);

	write_at(path, offsetof(struct lay_pool, version), &version, 4);
	REFUSED(-EPROTONOSUPPORT, "version 9", speckv_pool_open(dev, "pool", NULL, &pool));
	write_at(path, 0, &saved, sizeof(saved));
	write_at(path, offsetof(struct lay_pool, state), &state, 4);
	REFUSED(-EUCLEAN, "incomplete", speckv_pool_open(dev, "pool", NULL, &pool));
	write_at(path, 0, &saved, sizeof(saved));
	write_at(path, offsetof(struct lay_pool, page_map_offset), &huge, 8);
	REFUSED(-EUCLEAN, "damaged", speckv_pool_open(dev, "pool", NULL, &pool));
	write_at(path, 0, &saved, sizeof(saved));
	CHECK(truncate(path, st.st_size - 4096) == 0, "cut");
	REFUSED(-EBADMSG, "truncated", speckv_pool_open(dev, "pool", NULL, &pool));
	CHECK(truncate(path, 100) == 0, "cut");
	REFUSED(-EBADMSG, "truncated", speckv_pool_open(dev, "pool", NULL, &pool));
	/* still described, as far as the record goes */
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(!info.accessible && info.config.capacity_bytes == 2 * MIB, "described");
	CHECK(unlink(path) == 0, "unlink");
	REFUSED(-EUCLEAN, "is gone", speckv_pool_open(dev, "pool", NULL, &pool));
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL)); /* and can be removed */
}

/* Larger than what is free, names that are none, names that are taken. */
static void pools_that_cannot_be(struct speckv_device *dev)
{
	struct speckv_pool_config config = small_pool("pool", 2 * MIB);
	struct speckv_pool_info info;

	config.capacity_bytes = 1ull << 40;
	REFUSED(-ENOSPC, "free (", speckv_pool_create(dev, &config, NULL));
	config = small_pool("pool", 2 * MIB);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	REFUSED(-EEXIST, "already has a pool 'pool'", speckv_pool_create(dev, &config, NULL));
	for (const char *const *bad = (const char *const[]){ "a/b", ".hidden", "-x", "", "sp ace",
		     "new\nline", NULL };
		*bad; bad++) {
		config = small_pool(*bad, 2 * MIB);
		REFUSED(-EINVAL, "pool name", speckv_pool_create(dev, &config, NULL));
	}
	memset(config.name, 'x', sizeof(config.name));
	REFUSED(-EINVAL, "pool name", speckv_pool_create(dev, &config, NULL));
	config = small_pool("other", 2 * MIB);
	config.geometry.tokens = 63;
	REFUSED(-EINVAL, "multiple of 64", speckv_pool_create(dev, &config, NULL));
	config = small_pool("other", 2 * MIB);
	config.codec = SPECKV_CODEC_E7C;
	REFUSED(-EINVAL, "needs a calibration", speckv_pool_create(dev, &config, NULL));
	config.codec = 77;
	REFUSED(-EINVAL, "does not exist", speckv_pool_create(dev, &config, NULL));
	config = small_pool("other", 2 * MIB);
	config.page_bytes = 1000;
	REFUSED(-EINVAL, "power of two", speckv_pool_create(dev, &config, NULL));
	config = small_pool("other", 2 * MIB);
	config.quota_bytes = 100;
	REFUSED(-EINVAL, "below one block", speckv_pool_create(dev, &config, NULL));
	config = small_pool("other", 2 * MIB);
	config.mode = 0066;
	REFUSED(-EINVAL, "mode 0066", speckv_pool_create(dev, &config, NULL));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	REFUSED(-ENOENT, "no pool 'other'", speckv_pool_info(dev, "other", &info));
}

static void devices_that_cannot_be(void)
{
	struct speckv_device *dev;

	REFUSED(-EINVAL, "", speckv_device_open(test_ctx, name, 8, &dev));
	REFUSED(-EINVAL, "", speckv_device_open(test_ctx, "host:relative", 0, &dev));
	REFUSED(-EINVAL, "folder", speckv_device_open(test_ctx, "host:/tmp/", 0, &dev));
	REFUSED(-EOPNOTSUPP, "folder", speckv_device_open(test_ctx, "host:/tmp", 0, &dev));
	REFUSED(-ENODEV, "no NUMA node 900", speckv_device_open(test_ctx, "host:numa900", 0, &dev));
	REFUSED(-ENODEV, "no such node",
		speckv_device_open(test_ctx, "host:/dev/dax99.9", 0, &dev));
	REFUSED(-EOPNOTSUPP, "devdax", speckv_device_open(test_ctx, "host:/dev/null", 0, &dev));
	REFUSED(-EOPNOTSUPP, "this build supports",
		speckv_device_open(test_ctx, "sata:0", 0, &dev));
}

static void pools_of_files(void)
{
	struct speckv_device *dev;
	struct stat st;

	snprintf(name, sizeof(name), "host:%s/new.kv", test_dir);
	REFUSED(-ENOENT, "speckvctl pool create", speckv_device_open(test_ctx, name, 0, &dev));
	dev = open_device(name, SPECKV_OPEN_CREATE);
	a_pool_that_is_damaged(dev);
	pools_that_cannot_be(dev);
	speckv_device_close(dev);
	devices_that_cannot_be();
	remove_device(name);
	CHECK(stat(name + 5, &st) != 0, "a file that the library made goes with its device");
}

/* Whatever the process's mask for new files. */
static void a_pools_file_has_the_mode_that_was_asked_for(void)
{
	static const uint32_t modes[] = { 0600, 0640, 0660, 0666 };
	mode_t mask = umask(0);
	struct speckv_device *dev;

	snprintf(name, sizeof(name), "host:%s/modes.kv", test_dir);
	dev = open_device(name, SPECKV_OPEN_CREATE);
	for (unsigned int i = 0; i < 8; i++) {
		struct speckv_pool_config config = small_pool("pool", 2 * MIB);
		struct speckv_pool_info info;
		struct stat st;

		config.mode = modes[i / 2];
		umask(i % 2 ? 077 : 0);
		EXPECT(0, speckv_pool_create(dev, &config, &info));
		CHECK(stat(info.path, &st) == 0 && (st.st_mode & 07777) == modes[i / 2],
			"%s: mode %04o, not %04o", info.path, st.st_mode & 07777, modes[i / 2]);
		EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
	}
	umask(mask);
	speckv_device_close(dev);
	remove_device(name);
}

struct list {
	unsigned int n;
	char names[4][300];
};

static int collect(const struct speckv_device_info *info, void *arg)
{
	struct list *list = arg;

	CHECK(list->n < 4, "too many");
	snprintf(list->names[list->n++], sizeof(list->names[0]), "%s", info->name);
	return 0;
}

static void devices_are_found_again(void)
{
	char names[MEDIA][300];
	struct list list = { 0 };
	struct speckv_device *dev;
	struct speckv_pool_config config = small_pool("pool", 2 * MIB);

	for (int kind = 0; kind < MEDIA; kind++)
		speckv_device_close(open_medium((enum media)kind, names[kind]));
	EXPECT(0, speckv_device_foreach(test_ctx, collect, &list));
	CHECK(list.n == MEDIA, "%u", list.n);
	dev = open_device("host:DRAM", 0);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	speckv_device_close(dev);
	REFUSED(-ENOTEMPTY, "1 pool;", speckv_device_remove(test_ctx, "host:DRAM", 0));
	for (int kind = 0; kind < MEDIA; kind++)
		remove_device(names[kind]);
	list.n = 0;
	EXPECT(0, speckv_device_foreach(test_ctx, collect, &list));
	CHECK(list.n == 0, "forgotten");
	REFUSED(-ENOENT, "", speckv_device_remove(test_ctx, "host:DRAM", 0));
}

static void no_permission_is_said(void)
{
	struct speckv_device *dev;
	struct speckv_pool *pool;
	struct speckv_pool_config config = small_pool("private", 2 * MIB), set = { .mode = 0640 };
	struct speckv_attach reader = { .flags = SPECKV_ATTACH_READ_ONLY };
	pid_t pid;

	if (geteuid() != 0) {
		fprintf(stderr, "not root: other users' permissions are not tried\n");
		return;
	}
	CHECK(chmod(test_dir, 0755) == 0, "chmod");
	dev = open_device("host:DRAM", SPECKV_OPEN_CREATE);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	for (int may_read = 0; may_read < 2; may_read++) {
		pid = fork();
		CHECK(pid >= 0, "fork");
		if (!pid) {
			struct speckv_device *own;
			struct speckv_pool_info info;

			CHECK(setgid(4242) == 0 && setuid(4242) == 0, "setuid");
			EXPECT(0, speckv_device_open(test_ctx, "host:DRAM", 0, &own));
			REFUSED(-EACCES, "no write permission",
				speckv_pool_open(own, "private", NULL, &pool));
			if (may_read)
				EXPECT(0, speckv_pool_open(own, "private", &reader, &pool));
			else
				REFUSED(-EACCES, "no read permission",
					speckv_pool_open(own, "private", &reader, &pool));
			EXPECT(0, speckv_pool_info(own, "private", &info));
			CHECK(info.accessible == (uint32_t)may_read, "accessible");
			REFUSED(-EACCES, "permission",
				speckv_pool_destroy(own, "private", NULL, NULL));
			REFUSED(-EACCES, "permission",
				speckv_pool_resize(own, "private", 4 * MIB, 0, NULL, NULL, NULL));
			_exit(0);
		}
		EXPECT(0, wait_child(pid));
		set.gid = 4242;
		set.uid = (uint32_t)-1;
		if (!may_read)
			EXPECT(0,
				speckv_pool_set(dev, "private", SPECKV_SET_MODE | SPECKV_SET_OWNER,
					&set, NULL));
	}
	speckv_device_close(dev);
	remove_device("host:DRAM");
}

static void names_of_cards_are_told_apart(void)
{
	EXPECT(1, speckv_device_is_card("emu:card0"));
	EXPECT(0, speckv_device_is_card("host:DRAM"));
	EXPECT(0, speckv_device_is_card("emu"));
	EXPECT(0, speckv_device_is_card(NULL));
}

int main(void)
{
	test_begin(60);
	names_of_cards_are_told_apart();
	a_fixed_medium();
	pools_of_files();
	a_pools_file_has_the_mode_that_was_asked_for();
	devices_are_found_again();
	no_permission_is_said();
	test_end();
	return 0;
}

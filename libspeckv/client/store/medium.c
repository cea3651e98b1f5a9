// SPDX-License-Identifier: MIT
/* What lies at a device name: parse it, look at it, make it. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "store.h"
#include "base/extend.h"

static bool read_u64(const char *path, uint64_t *value)
{
	FILE *file = fopen(path, "re");
	unsigned long long v = 0;
	bool ok = file && fscanf(file, "%llu", &v) == 1;

	if (file)
		fclose(file);
	*value = v;
	return ok;
}

/* A device node's size and NUMA node, from sysfs. */
static int node_size(struct speckv_ctx *ctx, struct medium *medium, const struct stat *st)
{
	char path[128];
	uint64_t node;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/size", major(st->st_rdev), minor(st->st_rdev));
	if (!S_ISCHR(st->st_mode) || !read_u64(path, &medium->node_bytes))
		return fail(ctx, -EOPNOTSUPP, "%s is not a devdax node; use a /dev/dax* node, a file, host:DRAM or host:numaN", medium->path);
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/target_node", major(st->st_rdev), minor(st->st_rdev));
	if (read_u64(path, &node) && node <= INT_MAX)
		medium->numa_node = (int)node;
	return 0;
}

int medium_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium)
{
	const char *rest;
	struct stat st;
	unsigned int node;
	char tail;

	memset(medium, 0, sizeof(*medium));
	medium->numa_node = -1;
	if (!name || strncmp(name, "host:", 5) != 0)
		return fail(ctx, -EOPNOTSUPP, "%s: this build knows the devices emu:NAME, host:DRAM, host:numaN, host:/path and host:/dev/daxX.Y",
			    name ? name : "(null)");
	if (strlen(name) >= sizeof(medium->name))
		return fail(ctx, -EINVAL, "device name longer than %zu bytes", sizeof(medium->name) - 1);
	for (const char *c = name; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return fail(ctx, -EINVAL, "device name holds a control character");
	snprintf(medium->name, sizeof(medium->name), "%s", name);
	rest = name + 5;
	if (strcmp(rest, "DRAM") == 0) {
		medium->runtime = true;
		snprintf(medium->path, sizeof(medium->path), "%.*s/DRAM", SPECKV_PATH_BYTES - 16, ctx->runtime_dir);
		return 0;
	}
	if (sscanf(rest, "numa%u%c", &node, &tail) == 1 && node < 1024) {
		char path[96];

		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u", node);
		if (access(path, F_OK) != 0)
			return fail(ctx, -ENODEV, "host:numa%u: this machine has no NUMA node %u; 'speckvctl device list' shows what it has", node, node);
		medium->runtime = true;
		medium->numa_node = (int)node;
		snprintf(medium->path, sizeof(medium->path), "%.*s/numa%u", SPECKV_PATH_BYTES - 16, ctx->runtime_dir, node);
		return 0;
	}
	if (*rest != '/')
		return fail(ctx, -EINVAL, "%s: after 'host:' comes DRAM, numaN, or an absolute path", name);
	if (rest[strlen(rest) - 1] == '/')
		return fail(ctx, -EINVAL, "%s: names a folder; a medium is a file or a /dev/dax* node", name);
	snprintf(medium->path, sizeof(medium->path), "%s", rest);
	if (lstat(rest, &st) != 0) /* what it is; whose it is, and whether it is trusted, is seen where it is opened */
		return errno == EACCES ? fail(ctx, -EACCES, "%s: no permission to look at it; run as a user who may search its folder", name) :
		       strncmp(rest, "/dev/", 5) == 0 && strncmp(rest, "/dev/shm/", 9) != 0 ?
					 fail(ctx, -ENODEV, "%s: no such node; 'speckvctl device list' shows what this machine has", name) :
					 0;
	if (S_ISREG(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return fail(ctx, -EOPNOTSUPP, "%s is a folder; name a file in it", rest);
	if (S_ISLNK(st.st_mode))
		return 0;
	medium->node = true;
	return node_size(ctx, medium, &st);
}

/* ---- looking ------------------------------------------------------------------------------------------------------ */

/* Name what people may have there. Offsets and magics: the formats' own documents. */
static void describe(const uint8_t *bytes, size_t got, uint64_t size, char *text, size_t text_bytes)
{
	static const struct {
		size_t offset, length;
		const char *magic, *what;
	} known[] = {
		{ 1080, 2, "\x53\xef", "an ext2/3/4 file system" },
		{ 0, 4, "XFSB", "an XFS file system" },
		{ 65600, 8, "_BHRfS_M", "a Btrfs file system" },
		{ 0, 6, "LUKS\xba\xbe", "a LUKS encrypted volume" },
		{ 536, 8, "LVM2 001", "an LVM physical volume" },
		{ 512, 8, "EFI PART", "a GPT partition table" },
		{ 510, 2, "\x55\xaa", "an MBR partition table or FAT boot sector" },
		{ 4086, 10, "SWAPSPACE2", "swap space" },
		{ 0, 2, "\x1f\x8b", "gzip data" },
		{ 0, 6, "\xfd" "7zXZ\0", "xz data" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "zstd data" },
		{ 0, 4, "\x7f" "ELF", "an ELF file" },
		{ 0, 15, "SQLite format 3", "an SQLite database" },
		{ 0, 4, "PK\x03\x04", "a zip archive" },
		{ 0, 4, "QFI\xfb", "a qcow2 disk image" },
		{ 257, 5, "ustar", "a tar archive" },
	};
	char hex[3 * 16 + 1] = "", size_text[32];
	size_t zero = 0, printable = 0, look = got < 512 ? got : 512;

	human(size_text, size);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].offset + known[i].length <= got && memcmp(bytes + known[i].offset, known[i].magic, known[i].length) == 0) {
			snprintf(text, text_bytes, "%s, %s", known[i].what, size_text);
			return;
		}
	while (zero < got && !bytes[zero])
		zero++;
	if (zero == got) {
		char looked[32];

		snprintf(text, text_bytes, "no superblock; its first %s are zero, %s in all", human(looked, got), size_text);
		return;
	}
	for (size_t i = 0; i < look; i++)
		printable += (bytes[i] >= 0x20 && bytes[i] < 0x7f) || bytes[i] == '\n' || bytes[i] == '\t' || bytes[i] == '\r';
	if (printable == look) {
		snprintf(text, text_bytes, "text, %s", size_text);
		return;
	}
	for (size_t i = 0; i < 16 && i < got; i++)
		snprintf(hex + 3 * i, 4, "%02x ", bytes[i]);
	snprintf(text, text_bytes, "unknown data, %s, beginning %s", size_text, hex);
}

static uint32_t super_crc(const struct lay_superblock *super)
{
	struct lay_superblock copy;

	memcpy((void *)&copy, (const void *)super, sizeof(copy));
	atomic_init(&copy.state, LAY_MEDIUM_READY);
	return speckv_crc32c(0, &copy, offsetof(struct lay_superblock, crc));
}

bool medium_super_sound(const struct lay_superblock *super)
{
	return super->magic == LAY_DEVICE_MAGIC && super->version == LAY_VERSION && load(&super->state) == LAY_MEDIUM_READY && super->crc == super_crc(super);
}

static void judge(const struct lay_superblock *super, uint64_t size, struct speckv_device_info *info)
{
	char have[32], want[32];
	uint32_t state = load(&super->state);

	info->layout_version = super->version;
	if (super->version != LAY_VERSION) {
		info->state = SPECKV_MEDIUM_OTHER_VERSION;
		snprintf(info->found, sizeof(info->found), "SpecKV format, layout version %u; this build reads version %u", super->version, LAY_VERSION);
	} else if (state == LAY_MEDIUM_MAKING) {
		info->state = SPECKV_MEDIUM_HALF_MADE;
		snprintf(info->found, sizeof(info->found), "SpecKV format, creation not finished");
	} else if (state != LAY_MEDIUM_READY || super->crc != super_crc(super)) {
		info->state = SPECKV_MEDIUM_HALF_MADE;
		snprintf(info->found, sizeof(info->found), "a speckv superblock that is damaged (its checksum does not match)");
	} else if (size < super->medium_bytes || super->medium_bytes < sizeof(struct lay_device)) {
		info->state = SPECKV_MEDIUM_TRUNCATED;
		snprintf(info->found, sizeof(info->found), "SpecKV format, %s of %s are left", human(have, size), human(want, super->medium_bytes));
	} else {
		info->state = SPECKV_MEDIUM_READY;
		snprintf(info->found, sizeof(info->found), "SpecKV format, layout version %u", super->version);
	}
	memcpy(info->uuid, super->uuid, sizeof(info->uuid));
	info->single_inode = super->single_inode;
	info->durability = super->durability;
	info->numa_node = super->numa_node;
	info->created_ns = super->created_ns;
	info->manager_pid = 0;
}

/* Its superblock's inode cannot be opened, or is not trusted: why, and whose it is. */
static void probe_denied(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, int rc, struct speckv_device_info *info)
{
	struct stat st;

	if (in->fd >= 0 && fstatat(in->fd, path_name(medium->path), &st, AT_SYMLINK_NOFOLLOW) == 0) {
		info->uid = st.st_uid;
		info->gid = st.st_gid;
		info->mode = st.st_mode & 07777;
	}
	info->state = rc == -ENOENT ? SPECKV_MEDIUM_ABSENT : SPECKV_MEDIUM_DENIED;
	snprintf(info->found, sizeof(info->found), "%s", rc == -ENOENT ? "nothing yet" : speckv_strerror(ctx));
}

int medium_probe(struct speckv_ctx *ctx, const struct medium *medium, struct speckv_device_info *info)
{
	const size_t look = 128 << 10;
	struct folder in = { .fd = -1 };
	uint8_t *bytes;
	struct stat st;
	uint64_t size;
	ssize_t got;
	int fd, rc;

	memset(info, 0, sizeof(*info));
	snprintf(info->name, sizeof(info->name), "%s", medium->name);
	snprintf(info->path, sizeof(info->path), "%s", medium->path);
	info->numa_node = medium->numa_node;
	info->codec_modes = speckv_codec_modes();
	info->uid = info->gid = (uint32_t)-1;
	info->durability = medium->runtime ? SPECKV_DURABLE_PROCESS : SPECKV_DURABLE_POWER;
	if (!medium->path[0])
		return 0;
	info->capacity_bytes = medium_total(medium);
	info->free_bytes = medium_available(medium);
	rc = medium_folder(ctx, medium, 0, &in);
	fd = rc ? rc : medium_open(ctx, medium, &in, O_RDONLY);
	if (fd < 0) {
		probe_denied(ctx, medium, &in, fd, info);
		folder_close(&in);
		return 0;
	}
	folder_close(&in);
	bytes = calloc(1, look);
	if (!bytes || fstat(fd, &st) != 0) {
		free(bytes);
		close(fd);
		return fail(ctx, -ENOMEM, "%s: out of memory", medium->path);
	}
	info->uid = st.st_uid;
	info->gid = st.st_gid;
	info->mode = st.st_mode & 07777;
	size = medium->node ? medium->node_bytes : (uint64_t)st.st_size;
	if (medium->node) { /* devdax has no read(), only mmap() */
		size_t window = size < LAY_UNIT ? (size_t)size : LAY_UNIT;
		void *map = mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0);

		got = map == MAP_FAILED ? -1 : (ssize_t)(window < look ? window : look);
		if (got > 0)
			memcpy(bytes, map, (size_t)got);
		if (map != MAP_FAILED)
			munmap(map, window);
	} else {
		got = pread(fd, bytes, look, 0);
		if (got < 0) { /* hugetlbfs has no read() either */
			void *map = mmap(NULL, look, PROT_READ, MAP_SHARED, fd, 0);

			got = map == MAP_FAILED ? -1 : (ssize_t)look;
			if (got > 0)
				memcpy(bytes, map, look);
			if (map != MAP_FAILED)
				munmap(map, look);
		}
	}
	close(fd);
	if (got < 0) {
		info->state = SPECKV_MEDIUM_DENIED;
		snprintf(info->found, sizeof(info->found), "cannot be read: %s", strerror(errno));
	} else if (got == 0) {
		info->state = SPECKV_MEDIUM_ABSENT;
		snprintf(info->found, sizeof(info->found), "an empty file");
	} else if ((size_t)got >= sizeof(uint64_t) && memcmp(bytes, &(uint64_t){ LAY_DEVICE_MAGIC }, sizeof(uint64_t)) == 0) {
		if ((size_t)got >= sizeof(struct lay_superblock)) {
			judge((const struct lay_superblock *)bytes, size, info);
		} else {
			info->state = SPECKV_MEDIUM_TRUNCATED;
			snprintf(info->found, sizeof(info->found), "SpecKV format, %zd bytes are left", got);
		}
	} else {
		info->state = SPECKV_MEDIUM_FOREIGN;
		describe(bytes, (size_t)got, size, info->found, sizeof(info->found));
	}
	free(bytes);
	return 0;
}

/* ---- making ------------------------------------------------------------------------------------------------------- */

int medium_folder(struct speckv_ctx *ctx, const struct medium *medium, unsigned int flags, struct folder *out)
{
	return medium->runtime ? runtime_folder(ctx, medium->backend->folder, flags, out) : folder_holding(ctx, medium->path, out);
}

int medium_open(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, int flags)
{
	/* a medium of fixed size may be shared with those of its group; its pools are */
	struct file_rule rule = { .owner = NO_OWNER, .writers = medium->runtime ? 0 : S_IWGRP, .group = !medium->runtime, .node = medium->node };

	return file_open(ctx, in, medium->path, flags, 0, &rule);
}

int medium_pools(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, unsigned int flags, struct folder *out)
{
	char path[SPECKV_PATH_BYTES];

	*out = (struct folder){ .fd = -1, .owner = NO_OWNER };
	if (snprintf(path, sizeof(path), "%s.pools", medium->path) >= (int)sizeof(path))
		return fail(ctx, -ENAMETOOLONG, "%s: path too long", medium->path);
	return folder_enter(ctx, in, path, flags, out);
}

int medium_pool_path(const struct medium *medium, const char *pool, char path[SPECKV_PATH_BYTES])
{
	return snprintf(path, SPECKV_PATH_BYTES, "%s.pools/%s", medium->path, pool) < SPECKV_PATH_BYTES ? 0 : -ENAMETOOLONG;
}

static int write_super(int fd, const struct medium *medium, uint64_t medium_bytes, bool single, bool made)
{
	struct lay_device *table;
	size_t bytes = (sizeof(*table) + LAY_UNIT - 1) & ~(LAY_UNIT - 1);
	int rc;

	if (!single || medium_bytes < bytes)
		bytes = sizeof(*table);
	table = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (table == MAP_FAILED)
		return -errno;
	store(&table->super.state, LAY_MEDIUM_MAKING);
	rc = medium_flush(medium, table, sizeof(table->super)); /* from here on it is not what it was */
	table->super.magic = LAY_DEVICE_MAGIC;
	table->super.version = LAY_VERSION;
	memset((void *)table->pools, 0, sizeof(table->pools));
	memset((void *)table->events, 0, sizeof(table->events));
	rc = rc ? rc : random_bytes(table->super.uuid, sizeof(table->super.uuid));
	table->super.uuid[6] = (uint8_t)((table->super.uuid[6] & 0x0f) | 0x40); /* RFC 9562 version 4 */
	table->super.uuid[8] = (uint8_t)((table->super.uuid[8] & 0x3f) | 0x80);
	if (medium->named)
		memcpy(table->super.uuid, medium->uuid, sizeof(table->super.uuid));
	table->super.created_ns = now_ns();
	table->super.table_bytes = sizeof(*table);
	table->super.medium_bytes = medium_bytes;
	table->super.single_inode = single;
	table->super.durability = medium->runtime ? SPECKV_DURABLE_PROCESS : SPECKV_DURABLE_POWER;
	table->super.numa_node = medium->numa_node;
	table->super.made_file = made;
	store(&table->super.next_generation, 1);
	store(&table->super.event_sequence, 0);
	store(&table->super.manager_pid, 0);
	table->super.crc = super_crc(&table->super);
	if (!rc)
		rc = medium_flush(medium, table, bytes);
	if (!rc) {
		store(&table->super.state, LAY_MEDIUM_READY);
		rc = medium_flush(medium, table, sizeof(table->super));
	}
	munmap(table, bytes);
	return rc;
}

/* The folder of pools of a table that could not be made. */
static void remove_empty_pools(const struct medium *medium, const struct folder *in)
{
	char path[SPECKV_PATH_BYTES];

	if (snprintf(path, sizeof(path), "%s.pools", medium->path) < (int)sizeof(path))
		unlinkat(in->fd, path_name(path), AT_REMOVEDIR); /* an empty one only */
}

/* A draft's name: by chance, as others may make the same table, from PID namespaces of their own too. Nothing else has such a name. */
#define DRAFT_SUFFIX ".speckv-new"

static void draft_name(const struct medium *medium, char name[256])
{
	uint32_t number = (uint32_t)gettid();

	random_bytes(&number, sizeof(number)); /* where there are none the thread's number does */
	snprintf(name, 256, ".%.200s.%u" DRAFT_SUFFIX, path_name(medium->path), number);
}

static bool is_draft(const struct medium *medium, const char *name)
{
	char begin[256];
	size_t length = (size_t)snprintf(begin, sizeof(begin), ".%.200s.", path_name(medium->path)), digits;

	if (strncmp(name, begin, length) != 0)
		return false;
	digits = strspn(name + length, "0123456789");
	return digits && strcmp(name + length + digits, DRAFT_SUFFIX) == 0;
}

/* Drafts whose makers died: the lock of a living one is held. */
static void remove_drafts(const struct medium *medium, const struct folder *in)
{
	int fd = openat(in->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (fd >= 0 && !dir)
		close(fd);
	while (dir && (entry = readdir(dir))) {
		if (!is_draft(medium, entry->d_name))
			continue;
		fd = openat(in->fd, entry->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && lock_byte(fd, LAY_LOCK_MANAGER) == 0) {
			if (file_same(in, entry->d_name, fd))
				unlinkat(in->fd, entry->d_name, 0);
			unlock_byte(fd, LAY_LOCK_MANAGER);
		}
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/* A new draft, locked: another process that looks for those of the dead may come between the two. */
static int open_draft(const struct folder *in, const char *name)
{
	for (int tries = 0; tries < 8; tries++) {
		int fd = openat(in->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);

		if (fd < 0 || (lock_byte(fd, LAY_LOCK_MANAGER) == 0 && file_same(in, name, fd)))
			return fd;
		close(fd);
		unlinkat(in->fd, name, 0);
	}
	errno = EBUSY;
	return -1;
}

/* A new file appears whole or not at all: made under a private name, then linked. */
static int make_file(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in)
{
	char draft[256];
	uint64_t bytes = sizeof(struct lay_device);
	char words[SPACE_WORDS];
	struct folder pools;
	struct statvfs vfs;
	bool made = false;
	int fd, rc = 0;

	rc = file_size_check(ctx, medium->path, bytes, "");
	if (!rc)
		rc = medium_pools(ctx, medium, in, FOLDER_MAKE, &pools);
	if (rc)
		return rc;
	folder_close(&pools);
	remove_drafts(medium, in);
	draft_name(medium, draft);
	fd = open_draft(in, draft);
	if (fd < 0) {
		rc = errno;
		fail_text(ctx, "cannot make %s: %s", medium->path,
			  rc == EACCES ? "no permission to write in its folder; run as its owner, or choose another path" : space_words(words, in->fd, bytes, rc));
		remove_empty_pools(medium, in);
		return -rc;
	}
	if (fstatvfs(fd, &vfs) == 0 && vfs.f_bsize > 65536) /* hugetlbfs: whole huge pages */
		bytes = (bytes + vfs.f_bsize - 1) / vfs.f_bsize * vfs.f_bsize;
	if (file_extend(fd, bytes) != 0 || (fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP))
		rc = -errno;
	if (!rc)
		rc = write_super(fd, medium, bytes, false, true);
	if (!rc && (fchmod(fd, 0644) != 0 || fsync(fd) != 0))
		rc = -errno;
	if (!rc && linkat(in->fd, draft, in->fd, path_name(medium->path), 0) != 0) {
		rc = errno == EEXIST ? 0 : -errno; /* another process was first */
	} else if (!rc) {
		rc = folder_flush(in);
		made = !rc;
		if (rc)
			unlinkat(in->fd, path_name(medium->path), 0);
	}
	if (rc) /* before what was taken is given back */
		fail_text(ctx, "cannot make %s: %s", medium->path, space_words(words, in->fd, bytes, -rc));
	unlinkat(in->fd, draft, 0);
	unlock_byte(fd, LAY_LOCK_MANAGER); /* and not at the last close: another thread may have forked meanwhile */
	close(fd);
	if (rc)
		remove_empty_pools(medium, in);
	return rc ? rc : made;
}

/* May it be overwritten as a medium of fixed size? Its bytes then, in whole units. */
static int format_check(struct speckv_ctx *ctx, const struct medium *medium, int fd, uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return fail(ctx, -errno, "%s: %s", medium->path, strerror(errno));
	*bytes = (medium->node ? medium->node_bytes : (uint64_t)st.st_size) & ~(LAY_UNIT - 1);
	if (medium->runtime) /* what is here was a table of pools that are files of their own */
		return fail(ctx, -EEXIST, "%s is no table that this build can read: remove it with 'rm %s', and 'speckvctl pool create' takes over the pools beside it", medium->path, medium->path);
	if (*bytes < 2 * LAY_UNIT)
		return fail(ctx, -ENOSPC, "%s is too small for a medium of fixed size: it needs at least 4 MiB; use a new file name to let it grow by pool, or 'rm %s' first",
			    medium->path, medium->path);
	if (!medium->node && readers_only(st.st_mode) && st.st_uid != geteuid() && geteuid() != 0)
		return fail(ctx, -EPERM, "cannot format %s: users who may only read it (mode %04o) could hold its locks: 'chmod go-r %s' as uid %u ends that",
			    medium->path, st.st_mode & 07777, medium->path, st.st_uid);
	if (lock_holder(fd, LAY_LOCK_MANAGER, NULL))
		return fail(ctx, -EBUSY, "cannot format %s: another manager uses it", medium->path);
	return 0;
}

int medium_format_check(struct speckv_ctx *ctx, const struct medium *medium, uint64_t *bytes)
{
	struct folder in;
	int fd, rc = medium_folder(ctx, medium, 0, &in);

	if (rc)
		return rc == -ENOENT ? fail(ctx, rc, "cannot make %s: its folder is not there", medium->path) : rc;
	fd = medium_open(ctx, medium, &in, O_RDWR);
	folder_close(&in);
	if (fd < 0)
		return fd == -ENOENT ? fail(ctx, fd, "%s is gone", medium->path) : fd;
	rc = format_check(ctx, medium, fd, bytes);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

/* Is what lies in this inode a whole table? */
static bool is_ready(const struct medium *medium, int fd)
{
	size_t window = medium->node ? LAY_UNIT : sizeof(struct lay_superblock);
	struct lay_superblock super;
	struct stat st;
	uint64_t bytes;
	void *map;

	if (fstat(fd, &st) != 0)
		return false;
	bytes = medium->node ? medium->node_bytes : (uint64_t)st.st_size;
	map = bytes < window ? MAP_FAILED : mmap(NULL, window, PROT_READ, MAP_SHARED, fd, 0); /* devdax and hugetlbfs have no read() */
	if (map == MAP_FAILED)
		return false;
	memcpy((void *)&super, map, sizeof(super));
	munmap(map, window);
	return medium_super_sound(&super) && super.medium_bytes >= sizeof(struct lay_device) && super.medium_bytes <= bytes;
}

/* Overwrite a medium of fixed size, unless another process made a table of it meanwhile. */
static int format_fixed(struct speckv_ctx *ctx, const struct medium *medium, int fd)
{
	struct stat st;
	uint64_t bytes;
	int rc = format_check(ctx, medium, fd, &bytes);

	if (rc)
		return rc;
	rc = fstat(fd, &st) != 0 ? -errno : lock_byte(fd, LAY_LOCK_MANAGER);
	if (!rc && is_ready(medium, fd)) {
		unlock_byte(fd, LAY_LOCK_MANAGER);
		return 0;
	}
	if (!rc && !medium->node && readers_only(st.st_mode) && fchmod(fd, st.st_mode & 0777 & ~readers_only(st.st_mode)) != 0)
		rc = -errno; /* its locks lie in it: see locks.c */
	if (!rc && !medium->node && fallocate(fd, 0, 0, (off_t)bytes) != 0 && errno != EOPNOTSUPP)
		rc = -errno;
	if (!rc)
		rc = write_super(fd, medium, bytes, true, false);
	if (rc != -EAGAIN)
		unlock_byte(fd, LAY_LOCK_MANAGER); /* and not at the last close: another thread may have forked meanwhile */
	return !rc ? 1 : fail(ctx, rc == -EAGAIN ? -EBUSY : rc, "cannot format %s: %s", medium->path, rc == -EAGAIN ? "another manager uses it" : strerror(-rc));
}

/* Take away a file that is of no use (empty, or a table that the device makes again), unless another process did so and made one that is. */
static int make_way(struct speckv_ctx *ctx, const struct medium *medium, const struct folder *in, int fd)
{
	int rc = -EAGAIN;

	for (int tries = 0; tries < 2000 && rc == -EAGAIN; tries++) {
		rc = lock_byte(fd, LAY_LOCK_MANAGER); /* who has it may unlink the name, while it leads here */
		if (rc == -EAGAIN && lock_shared(fd, LAY_LOCK_MANAGER))
			rc = 0; /* of a user who may only read it: that keeps none from it */
		if (rc == -EAGAIN)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	if (!rc) {
		if (file_same(in, medium->path, fd) && unlinkat(in->fd, path_name(medium->path), 0) != 0)
			rc = -errno;
		unlock_byte(fd, LAY_LOCK_MANAGER); /* and not at the last close: another thread may have forked meanwhile */
	}
	return rc ? fail(ctx, rc == -EAGAIN ? -EBUSY : rc, "cannot make %s again: %s", medium->path, rc == -EAGAIN ? "another process uses it" : strerror(-rc)) : 0;
}

int medium_make(struct speckv_ctx *ctx, const struct medium *medium, bool format)
{
	struct folder in;
	struct stat st;
	int fd, rc;

	rc = medium_folder(ctx, medium, FOLDER_MAKE, &in);
	if (rc == -ENOENT)
		return fail(ctx, rc, "cannot make %s: its folder is not there", medium->path);
	if (rc)
		return rc;
	fd = medium_open(ctx, medium, &in, O_RDWR);
	if (fd >= 0 && ((medium->backend->keeps_blocks && format && !is_ready(medium, fd)) || (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0))) {
		rc = make_way(ctx, medium, &in, fd);
		close(fd);
		fd = rc ? rc : -ENOENT;
	}
	if (fd == -ENOENT)
		rc = make_file(ctx, medium, &in);
	else if (fd < 0)
		rc = fd;
	else /* not what was found: the caller looks again */
		rc = format && !medium->backend->keeps_blocks ? format_fixed(ctx, medium, fd) : 0;
	if (fd >= 0)
		close(fd);
	folder_close(&in);
	return rc;
}

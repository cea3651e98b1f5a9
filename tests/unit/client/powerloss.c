// SPDX-License-Identifier: MIT
/*
 * Power loss, replayed. A run of operations on a medium is recorded: what was stored between
 * flushes, what each flush covered, which names came and went. From the record states are made that
 * the medium may be in when the power goes: any mixture, down to eight bytes, of what was stored
 * since a flush covered it, any of the names that no flush of their folder covered. In each of them
 * another boot finds what was acknowledged, and nothing else.
 */
#include <dirent.h>
#include <sys/syscall.h>

#include "client/admin/admin.h"

#include "harness.h"

#define SECTOR 512
#define FILES 64
#define NAMES 256
#define BLOCKS 64 /* numbers of blocks in one pool */

#define TEXT(out, ...) \
	CHECK((size_t)snprintf(out, sizeof(out), __VA_ARGS__) < sizeof(out), "a path is too long")

/* ---- the record ----------------------------------------------------------------------------- */

struct version {
	uint32_t sector;
	uint8_t bytes[SECTOR];
};

/*
 * One file, told by its inode. `seen`: as it was at the last look; `safe`: what no power loss takes
 * away.
 */
struct file {
	ino_t inode;
	uint64_t seen_bytes, safe_bytes, capacity;
	uint8_t *seen, *safe;
	struct version *pending; /* since a flush covered their sector, oldest first */
	size_t pendings, room;
};

/* A name in one of the folders: a file, a symbolic link, or a folder. */
struct name {
	char path[200]; /* below the root */
	int file; /* -1: none */
	char target[200];
	mode_t mode;
	bool now, safe; /* is there, and is surely there */
	bool met;
};

static char root[300]; /* what is recorded */
static bool recording;
static struct file files[FILES];
static int file_count;
static struct name names[NAMES];
static int name_count;

static struct file *file_of(ino_t inode)
{
	for (int i = 0; i < file_count; i++)
		if (files[i].inode == inode)
			return &files[i];
	CHECK(file_count < FILES, "too many files");
	files[file_count] = (struct file){ .inode = inode };
	return &files[file_count++];
}

static void file_room(struct file *f, uint64_t bytes)
{
	if (bytes <= f->capacity)
		return;
	f->seen = realloc(f->seen, bytes);
	f->safe = realloc(f->safe, bytes);
	CHECK(f->seen && f->safe, "memory");
	memset(f->seen + f->capacity, 0, bytes - f->capacity);
	memset(f->safe + f->capacity, 0, bytes - f->capacity);
	f->capacity = bytes;
}

/* What was stored since the last look. */
static void look_at_file(struct file *f, int fd, uint64_t bytes)
{
	static uint8_t chunk[1 << 20];

	file_room(f, (bytes + SECTOR - 1) / SECTOR * SECTOR);
	f->seen_bytes = bytes;
	for (uint64_t at = 0; at < bytes; at += sizeof(chunk)) {
		ssize_t got = pread(fd, chunk, sizeof(chunk), (off_t)at);

		CHECK(got > 0, "pread");
		memset(chunk + got, 0, sizeof(chunk) - (size_t)got);
		for (uint64_t s = 0; s < (uint64_t)got; s += SECTOR) {
			if (memcmp(chunk + s, f->seen + at + s, SECTOR) == 0)
				continue;
			if (f->pendings == f->room) {
				f->room = f->room ? 2 * f->room : 256;
				f->pending = realloc(f->pending, f->room * sizeof(*f->pending));
				CHECK(f->pending, "memory");
			}
			f->pending[f->pendings].sector = (uint32_t)((at + s) / SECTOR);
			memcpy(f->pending[f->pendings++].bytes, chunk + s, SECTOR);
			memcpy(f->seen + at + s, chunk + s, SECTOR);
		}
	}
}

static void look_at_name(const char *path)
{
	char full[600];
	struct stat st;
	int i = 0;

	TEXT(full, "%s/%s", root, path);
	if (lstat(full, &st) != 0)
		return;
	while (i < name_count &&
		(strcmp(names[i].path, path) != 0 ||
			(S_ISREG(st.st_mode) && files[names[i].file].inode != st.st_ino)))
		i++;
	if (i == name_count) {
		CHECK(name_count < NAMES, "too many names");
		names[name_count++] = (struct name){ .mode = st.st_mode, .file = -1 };
		TEXT(names[i].path, "%s", path);
	}
	names[i].met = names[i].now = true;
	names[i].mode = st.st_mode;
	if (S_ISREG(st.st_mode)) {
		int fd = open(full, O_RDONLY | O_CLOEXEC);
		struct file *f = file_of(st.st_ino);

		CHECK(fd >= 0, "%s", full);
		names[i].file = (int)(f - files);
		look_at_file(f, fd, (uint64_t)st.st_size);
		close(fd);
	} else if (S_ISLNK(st.st_mode)) {
		ssize_t got = readlink(full, names[i].target, sizeof(names[i].target) - 1);

		names[i].target[got > 0 ? got : 0] = 0;
	}
}

static void look_below(const char *folder)
{
	char full[600], path[520];
	struct dirent *entry;
	DIR *dir;

	TEXT(full, "%s/%s", root, folder);
	dir = opendir(full);
	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			struct stat st;

			TEXT(path, "%s%s%s", folder, *folder ? "/" : "", entry->d_name);
			look_at_name(path);
			TEXT(full, "%s/%s", root, path);
			if (lstat(full, &st) == 0 && S_ISDIR(st.st_mode))
				look_below(path);
		}
	closedir(dir);
}

static void look(void)
{
	for (int i = 0; i < name_count; i++)
		names[i].met = false;
	look_below("");
	for (int i = 0; i < name_count; i++)
		names[i].now = names[i].met;
}

/* ---- what must be there --------------------------------------------------------------------- */

#define ABSENT 1u
#define PRESENT 2u

/* What another boot may find: both bits while an operation is under way. */
static struct {
	char name[300];
	uint8_t medium, registered;
	struct {
		const char *name;
		uint8_t there;
		uint64_t size, size_before;
		uint8_t block[BLOCKS];
		bool evicts;
	} pool[2];
} model;

/* ---- states --------------------------------------------------------------------------------- */

static uint64_t seed = 20261201;
static unsigned int samples, states;

/*
 * How what is pending is mixed into a state: none of it, all of it, or by chance in pieces of so
 * many bytes.
 */
enum mixture { NOTHING, EVERYTHING, CHANCE };

static void put_piece(uint8_t *image, const struct version *v, uint64_t bytes, enum mixture mixture,
	uint64_t granule, uint64_t *state)
{
	uint64_t at = (uint64_t)v->sector * SECTOR;

	for (uint64_t i = 0; i < SECTOR && at + i < bytes; i += granule)
		if (mixture == EVERYTHING || below(state, 2))
			memcpy(image + at + i, v->bytes + i,
				bytes - at - i < granule ? bytes - at - i : granule);
}

static void write_state_file(const char *path, const struct file *f, mode_t mode,
	enum mixture mixture, uint64_t *state)
{
	static const uint64_t granules[] = { 8, 8, 64, SECTOR, 4096 };
	static const uint8_t zero[4096];
	uint64_t granule = granules[below(state, 5)], page = ~0ull, bytes = f->safe_bytes;
	bool taken = false;
	uint8_t *image;
	int fd;

	if (mixture == EVERYTHING || (mixture == CHANCE && below(state, 2)))
		bytes = f->seen_bytes;
	image = calloc(1, bytes + SECTOR);
	CHECK(image, "memory");
	if (f->safe) /* nothing is flushed yet: all zero */
		memcpy(image, f->safe, bytes < f->capacity ? bytes : f->capacity);
	for (size_t i = 0; i < f->pendings && mixture != NOTHING; i++) {
		const struct version *v = &f->pending[i];

		if (granule <= SECTOR) {
			put_piece(image, v, bytes, mixture, granule, state);
			continue;
		}
		if (v->sector / 8 != page) { /* whole pages, as they were at one look */
			page = v->sector / 8;
			taken = mixture == EVERYTHING || below(state, 2);
		}
		if (taken)
			put_piece(image, v, bytes, EVERYTHING, SECTOR, state);
	}
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode & 0777);
	CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0, "%s", path);
	for (uint64_t at = 0; at < bytes; at += 4096) {
		uint64_t n = bytes - at < 4096 ? bytes - at : 4096;

		if (memcmp(image + at, zero, n) != 0)
			CHECK(pwrite(fd, image + at, n, (off_t)at) == (ssize_t)n, "pwrite");
	}
	close(fd);
	free(image);
}

/* The names of this state, and what lies under them. */
static void make_state(const char *to, enum mixture mixture, uint64_t *state)
{
	char path[600];
	bool there[NAMES];

	for (int i = 0; i < name_count; i++)
		there[i] = mixture == NOTHING					 ? names[i].safe
			: mixture == EVERYTHING || names[i].safe == names[i].now ? names[i].now
										 : below(state, 2);
	for (int i = 0; i < name_count; i++) {
		/* folders come first: they were met before what is in them */
		TEXT(path, "%s/%s", to, names[i].path);
		if (!there[i])
			continue;
		if (S_ISDIR(names[i].mode))
			CHECK(mkdir(path, 0700) == 0 || errno == EEXIST || errno == ENOENT, "%s",
				path);
		else if (S_ISLNK(names[i].mode))
			CHECK(symlink(names[i].target, path) == 0 || errno == ENOENT, "%s", path);
		else if (access(path, F_OK) != 0) {
			char *slash = strrchr(path, '/');

			*slash = 0;
			if (access(path, F_OK) == 0) { /* else its folder is gone, and so is it */
				*slash = '/';
				write_state_file(path, &files[names[i].file], names[i].mode,
					mixture, state);
			}
		}
	}
}

/* ---- another boot --------------------------------------------------------------------------- */

#define BOOT_A "11111111-2222-3333-4444-555555555555\n"
#define BOOT_B "66666666-7777-8888-9999-aaaaaaaaaaaa\n"

static const char *boot = BOOT_A;
static uint8_t *buffer;

/* In front of the C library's: which boot this is. */
FILE *fopen(const char *path, const char *mode)
{
	int fd;

	if (strcmp(path, "/proc/sys/kernel/random/boot_id") == 0)
		return fmemopen((void *)(uintptr_t)boot, strlen(boot), "r");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? NULL : fdopen(fd, "r");
}

static void verify_pool(struct speckv_device *dev, int p)
{
	const char *name = model.pool[p].name;
	struct speckv_pool_info info;
	struct lay_pool_record record;
	struct speckv_pool *pool;
	char path[SPECKV_PATH_BYTES];
	int rc = device_look(dev, name, &record);
	uint64_t i;

	EXPECT(0, medium_pool_path(&dev->medium, name, path));
	if (rc < 0) {
		CHECK(model.pool[p].there & ABSENT, "pool %s is lost", name);
		CHECK(access(path, F_OK) != 0, "pool %s is gone, and its file is still there",
			name);
		return;
	}
	CHECK(model.pool[p].there & PRESENT, "pool %s has risen", name);
	EXPECT(0, speckv_pool_info(dev, name, &info));
	CHECK(info.accessible && info.state == SPECKV_POOL_ACTIVE, "pool %s is in state %u: %s",
		name, info.state, speckv_strerror(test_ctx));
	CHECK(info.config.capacity_bytes == model.pool[p].size ||
			info.config.capacity_bytes == model.pool[p].size_before,
		"pool %s has %llu bytes", name, (unsigned long long)info.config.capacity_bytes);
	CHECK(record.capacity_bytes == info.config.capacity_bytes, "the table says %llu",
		(unsigned long long)record.capacity_bytes);
	pool = attach_pool(dev, name, "after");
	for (i = 0; i < BLOCKS; i++) {
		rc = get_number(pool, (uint64_t)p * 1000 + i, buffer);
		CHECK(rc == 0 || rc == -ENOENT, "block %llu: %d", (unsigned long long)i, rc);
		CHECK(rc != 0 || model.pool[p].block[i] & PRESENT, "block %llu has risen",
			(unsigned long long)i);
		CHECK(rc == 0 || model.pool[p].block[i] & ABSENT || model.pool[p].evicts,
			"block %llu is lost", (unsigned long long)i);
	}
	speckv_pool_close(pool);
	expect_sound(dev, name, -1);
	pool = attach_pool(dev, name, "after");
	for (i = 0; i < 3; i++) /* and it goes on */
		EXPECT(0, put_number(pool, 5000 + i, buffer));
	for (i = 0; i < 3; i++)
		EXPECT(0, get_number(pool, 5000 + i, buffer));
	speckv_pool_close(pool);
	expect_sound(dev, name, -1);
}

static void verify(const char *at)
{
	char name[400], path[400];
	struct speckv_device_info info;
	struct speckv_device *dev;
	unsigned int links = 0, pools = 0, left = 0;
	struct dirent *entry;
	DIR *dir;

	/* the list of media at a path: as long as it names this one */
	TEXT(path, "%s/run/media", at);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		links += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	CHECK(links || model.registered & ABSENT, "the medium is not on the list any more");
	CHECK(!links || model.registered & PRESENT, "the medium is on the list again");
	TEXT(name, "host:%s/%s", at, model.name);
	EXPECT(0, speckv_device_probe(test_ctx, name, &info));
	if (info.state == SPECKV_MEDIUM_ABSENT) {
		CHECK(model.medium & ABSENT, "the medium is lost");
		return;
	}
	CHECK(info.state == SPECKV_MEDIUM_READY, "the medium is %s", info.found);
	CHECK(model.medium & PRESENT, "the medium has risen");
	dev = open_device(name, 0);
	EXPECT(0, device_manage(dev)); /* the next manager finishes what it finds */
	device_unmanage(dev);
	for (int p = 0; p < 2; p++)
		verify_pool(dev, p);
	for (int i = 0; i < LAY_POOLS; i++)
		pools += load_acquire(&dev->table->pools[i].state) != 0;
	TEXT(path, "%s/%s.pools", at, model.name);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		left += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			strcmp(entry->d_name, ".lock") != 0;
	if (dir)
		closedir(dir);
	CHECK(dev->single_inode || left == 2 * pools,
		"%u files of %u pools: each has one, and one for its locks", left, pools);
	speckv_device_close(dev);
}

struct sample {
	enum mixture mixture;
	uint64_t state;
};

static int one_state(void *arg)
{
	struct sample *s = arg;
	char at[400], run[420];

	recording = false;
	alarm(60);
	TEXT(at, "%s/state", test_dir);
	CHECK(mkdir(at, 0700) == 0, "mkdir");
	make_state(at, s->mixture, &s->state);
	TEXT(run, "%s/state-run", test_dir);
	CHECK(setenv("SPECKV_RUNTIME_DIR", run, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	boot = BOOT_B;
	verify(at);
	return 0;
}

static void try_state(const char *when, enum mixture mixture)
{
	struct sample s = { mixture, chance(&seed) };
	uint64_t number = s.state;
	char at[400];
	int rc = wait_child(spawn(one_state, &s));

	CHECK(rc == 0, "state %u, %s, mixture %d of seed %llu: %d", states, when, mixture,
		(unsigned long long)number, rc);
	TEXT(at, "%s/state", test_dir);
	nftw(at, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(at);
	TEXT(at, "%s/state-run", test_dir);
	nftw(at, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(at);
	states++;
}

/* The power goes here. */
static void crash(const char *when)
{
	size_t pending = 0;

	recording = false;
	for (int i = 0; i < file_count; i++)
		pending += files[i].pendings + (files[i].seen_bytes != files[i].safe_bytes);
	for (int i = 0; i < name_count; i++)
		pending += names[i].now != names[i].safe;
	try_state(when, NOTHING);
	if (pending)
		try_state(when, EVERYTHING);
	for (unsigned int i = 0; i < samples && pending; i++)
		try_state(when, CHANCE);
	recording = true;
}

/* ---- flushes, in front of the C library's --------------------------------------------------- */

static void make_safe(struct file *f, uint64_t from, uint64_t to)
{
	size_t kept = 0;

	f->safe_bytes = f->seen_bytes;
	for (size_t i = 0; i < f->pendings; i++) {
		uint64_t at = (uint64_t)f->pending[i].sector * SECTOR;

		if (at >= from && at < to)
			memcpy(f->safe + at, f->pending[i].bytes, SECTOR);
		else
			f->pending[kept++] = f->pending[i];
	}
	f->pendings = kept;
}

/* File and offset that lie at an address. */
static bool mapped_at(const void *address, ino_t *inode, uint64_t *offset)
{
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	FILE *maps = fd < 0 ? NULL : fdopen(fd, "r");
	char line[800];
	bool found = false;

	CHECK(maps, "maps");
	while (!found && fgets(line, sizeof(line), maps)) {
		unsigned long long start, end, at, number;

		if (sscanf(line, "%llx-%llx %*s %llx %*s %llu", &start, &end, &at, &number) != 4)
			continue;
		if ((uintptr_t)address >= start && (uintptr_t)address < end) {
			*inode = (ino_t)number;
			*offset = at + (uintptr_t)address - start;
			found = true;
		}
	}
	fclose(maps);
	return found;
}

/*
 * What a flush covers is safe once the call succeeded: one that the kernel refuses (of an O_PATH
 * descriptor) makes nothing safe.
 */
int msync(void *address, size_t bytes, int flags)
{
	uint64_t offset;
	ino_t inode;
	bool recorded = recording && mapped_at(address, &inode, &offset);
	int rc;

	if (recorded) {
		look();
		crash("before a flush");
	}
	rc = (int)syscall(SYS_msync, address, bytes, flags);
	if (recorded && rc == 0)
		make_safe(file_of(inode), offset, offset + (bytes + 4095) / 4096 * 4096);
	return rc;
}

int fsync(int fd)
{
	struct stat st, at;
	char path[600];
	int rc;

	if (recording) {
		look();
		crash("before a file or folder is flushed");
	}
	rc = (int)syscall(SYS_fsync, fd);
	if (!recording || rc != 0 || fstat(fd, &st) != 0)
		return rc;
	if (S_ISREG(st.st_mode))
		make_safe(file_of(st.st_ino), 0, ~0ull);
	for (int i = 0; i < name_count && S_ISDIR(st.st_mode); i++) {
		TEXT(path, "%s/%s", root, names[i].path);
		*strrchr(path, '/') = 0;
		if (stat(path, &at) == 0 && at.st_ino == st.st_ino)
			names[i].safe = names[i].now;
	}
	return rc;
}

/* ---- what is done --------------------------------------------------------------------------- */

static struct speckv_device *dev;
static struct speckv_pool *pool;

static void acknowledged(const char *what)
{
	look();
	crash(what);
}

static void put_blocks(unsigned int first, unsigned int n)
{
	for (unsigned int i = first; i < first + n; i++) {
		model.pool[0].block[i] |= PRESENT;
		EXPECT(0, put_number(pool, i, buffer));
		model.pool[0].block[i] = PRESENT;
	}
	acknowledged("after puts");
}

static void drop_block(unsigned int i)
{
	struct speckv_key key = key_of(i);

	model.pool[0].block[i] |= ABSENT;
	EXPECT(1, speckv_drop(pool, &key, 1));
	model.pool[0].block[i] = ABSENT;
	acknowledged("after a drop");
}

static void make_pool(int p, const char *name, uint64_t bytes)
{
	struct speckv_pool_config config = small_pool(name, bytes);

	config.max_bytes = 8 * MIB;
	config.eviction = SPECKV_EVICT_NONE;
	model.pool[p].there |= PRESENT;
	model.pool[p].size = model.pool[p].size_before = bytes;
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	model.pool[p].there = PRESENT;
	acknowledged("after a pool is made");
}

static void resize_pool(uint64_t bytes)
{
	model.pool[0].size = bytes;
	EXPECT(0, speckv_pool_resize(dev, "first", bytes, 0, NULL, NULL, NULL));
	model.pool[0].size_before = bytes;
	acknowledged("after a resize");
}

static void destroy_pool(int p)
{
	model.pool[p].there |= ABSENT;
	for (int i = 0; i < BLOCKS; i++)
		model.pool[p].block[i] |= ABSENT;
	EXPECT(0, speckv_pool_destroy(dev, model.pool[p].name, NULL, NULL));
	model.pool[p].there = ABSENT;
	memset(model.pool[p].block, ABSENT, BLOCKS);
	acknowledged("after a pool is destroyed");
}

static void begin(const char *name)
{
	memset(&model, 0, sizeof(model));
	TEXT(model.name, "%s", name);
	model.medium = model.registered = ABSENT;
	model.pool[0].name = "first";
	model.pool[1].name = "second";
	for (int p = 0; p < 2; p++) {
		model.pool[p].there = ABSENT;
		memset(model.pool[p].block, ABSENT, BLOCKS);
	}
	for (int i = 0; i < file_count; i++) {
		free(files[i].seen);
		free(files[i].safe);
		free(files[i].pending);
	}
	file_count = name_count = 0;
}

static void one_medium(const char *leaf, bool fixed)
{
	unsigned int flags = SPECKV_OPEN_CREATE | (fixed ? SPECKV_OPEN_FORMAT : 0);
	char name[400], path[400];

	begin(leaf);
	TEXT(root, "%s/record", test_dir);
	CHECK(mkdir(root, 0700) == 0, "mkdir");
	TEXT(path, "%s/run", root);
	CHECK(mkdir(path, 0755) == 0, "mkdir");
	TEXT(name, "host:%s/%s", root, leaf);
	if (fixed) {
		int fd = open(name + 5, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		CHECK(fd >= 0 && ftruncate(fd, 20 * MIB) == 0, "%s", name);
		close(fd);
		/*
		 * formatting what somebody gave leaves no more promise than that it is refused when
		 * half done
		 */
		dev = open_device(name, flags);
	}
	look();
	for (int i = 0; i < file_count; i++)
		make_safe(&files[i], 0, ~0ull);
	for (int i = 0; i < name_count; i++)
		names[i].safe = names[i].now;
	recording = true;
	model.medium |= PRESENT;
	model.registered |= PRESENT;
	if (!fixed)
		dev = open_device(name, flags);
	else
		model.medium = PRESENT;
	model.medium = model.registered = PRESENT;
	acknowledged("after the medium is made");
	make_pool(0, "first", 4 * MIB);
	pool = attach_pool(dev, "first", "tenant");
	put_blocks(0, 5);
	drop_block(2);
	put_blocks(10, 3);
	put_blocks(2, 1);
	drop_block(10);
	make_pool(1, "second", 2 * MIB);
	resize_pool(6 * MIB);
	put_blocks(20, 3);
	for (unsigned int i = 0; i < 5; i++)
		drop_block(i);
	resize_pool(2 * MIB);
	put_blocks(30, 3);
	speckv_pool_close(pool);
	acknowledged("after the pool is closed");
	destroy_pool(1);
	pool = attach_pool(dev, "first", "another");
	put_blocks(40, 2);
	make_pool(1, "second", 2 * MIB);
	destroy_pool(1);
	speckv_pool_close(pool);
	destroy_pool(0);
	speckv_device_close(dev);
	if (!fixed) { /* closed for good: its name does not come back, nor leads to half of it */
		model.medium |= ABSENT;
		model.registered |= ABSENT;
		EXPECT(0, speckv_device_remove(test_ctx, name, 0));
		model.medium = ABSENT;
		acknowledged("after the medium is closed");
	}
	recording = false;
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(root);
}

int main(int argc, char **argv)
{
	char run[300];

	samples = argc > 1 ? (unsigned int)strtoul(argv[1], NULL, 10) : 4;
	test_begin(3000);
	/* the list of media lies on the medium that the power takes away, too */
	TEXT(run, "%s/record/run", test_dir);
	CHECK(setenv("SPECKV_RUNTIME_DIR", run, 1) == 0, "setenv");
	speckv_ctx_destroy(test_ctx);
	EXPECT(0, speckv_ctx_create(&test_ctx));
	buffer = line_alloc(2 * SMALL_BYTES);
	one_medium("medium.kv", false);
	one_medium("fixed.kv", true);
	free(buffer);
	printf("%u power-loss states: nothing lost, nothing risen, nothing leaked\n", states);
	test_end();
	return 0;
}

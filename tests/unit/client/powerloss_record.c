// SPDX-License-Identifier: MIT
/*
 * The record of a medium on its way to a power loss: what was stored between flushes, what each
 * flush covered, which names came and went; and the states that are made from it.
 */
#include <dirent.h>
#include <sys/syscall.h>

#include "powerloss.h"

#define SECTOR 512
#define FILES 64
#define NAMES 256

/* ---- the record ----------------------------------------------------------------------------- */

struct version {
	uint32_t sector;
	uint8_t bytes[SECTOR];
};

/*
 * One file, identified by its inode. `seen`: as it was at the last look; `safe`: what no power loss
 * takes away.
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

char powerloss_root[300];
bool powerloss_recording;
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

	TEXT(full, "%s/%s", powerloss_root, path);
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

	TEXT(full, "%s/%s", powerloss_root, folder);
	dir = opendir(full);
	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
			struct stat st;

			TEXT(path, "%s%s%s", folder, *folder ? "/" : "", entry->d_name);
			look_at_name(path);
			TEXT(full, "%s/%s", powerloss_root, path);
			if (lstat(full, &st) == 0 && S_ISDIR(st.st_mode))
				look_below(path);
		}
	closedir(dir);
}

void powerloss_look(void)
{
	for (int i = 0; i < name_count; i++)
		names[i].met = false;
	look_below("");
	for (int i = 0; i < name_count; i++)
		names[i].now = names[i].met;
}

size_t powerloss_pending(void)
{
	size_t pending = 0;

	for (int i = 0; i < file_count; i++)
		pending += files[i].pendings + (files[i].seen_bytes != files[i].safe_bytes);
	for (int i = 0; i < name_count; i++)
		pending += names[i].now != names[i].safe;
	return pending;
}

void powerloss_forget(void)
{
	for (int i = 0; i < file_count; i++) {
		free(files[i].seen);
		free(files[i].safe);
		free(files[i].pending);
	}
	file_count = name_count = 0;
}

/* ---- states ---------------------------------------------------------------------------------- */

static void put_piece(uint8_t *image, const struct version *v, uint64_t bytes,
	enum powerloss_mixture mixture, uint64_t granule, uint64_t *state)
{
	uint64_t at = (uint64_t)v->sector * SECTOR;

	for (uint64_t i = 0; i < SECTOR && at + i < bytes; i += granule)
		if (mixture == EVERYTHING || below(state, 2))
			memcpy(image + at + i, v->bytes + i,
				bytes - at - i < granule ? bytes - at - i : granule);
}

static void write_state_file(const char *path, const struct file *f, mode_t mode,
	enum powerloss_mixture mixture, uint64_t *state)
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
void powerloss_make_state(const char *to, enum powerloss_mixture mixture, uint64_t *state)
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

/* File and offset that lie at an address, and how much of that mapping follows. */
static bool mapped_at(const uint8_t *address, ino_t *inode, uint64_t *offset, uint64_t *left)
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
			*left = end - (uintptr_t)address;
			found = true;
		}
	}
	fclose(maps);
	return found;
}

/*
 * What a flush covers is safe once the call succeeded: one that the kernel refuses (of an O_PATH
 * descriptor) makes nothing safe. A pool's extents follow each other in memory and not in the file:
 * a flush may cover the end of one and the start of the next.
 */
int msync(void *address, size_t bytes, int flags)
{
	const uint8_t *at = address, *end = at + (bytes + 4095) / 4096 * 4096;
	uint64_t offset, left;
	ino_t inode;
	bool recorded = powerloss_recording && mapped_at(at, &inode, &offset, &left);
	int rc;

	if (recorded) {
		powerloss_look();
		powerloss_crash("before a flush");
	}
	rc = (int)syscall(SYS_msync, address, bytes, flags);
	for (; recorded && rc == 0 && at < end; at += left) {
		CHECK(mapped_at(at, &inode, &offset, &left), "flushed and not mapped");
		left = left < (uint64_t)(end - at) ? left : (uint64_t)(end - at);
		make_safe(file_of(inode), offset, offset + left);
	}
	return rc;
}

int fsync(int fd)
{
	struct stat st, at;
	char path[600];
	int rc;

	if (powerloss_recording) {
		powerloss_look();
		powerloss_crash("before a file or folder is flushed");
	}
	rc = (int)syscall(SYS_fsync, fd);
	if (!powerloss_recording || rc != 0 || fstat(fd, &st) != 0)
		return rc;
	if (S_ISREG(st.st_mode))
		make_safe(file_of(st.st_ino), 0, ~0ull);
	for (int i = 0; i < name_count && S_ISDIR(st.st_mode); i++) {
		TEXT(path, "%s/%s", powerloss_root, names[i].path);
		*strrchr(path, '/') = 0;
		if (stat(path, &at) == 0 && at.st_ino == st.st_ino)
			names[i].safe = names[i].now;
	}
	return rc;
}

void powerloss_keep(void)
{
	for (int i = 0; i < file_count; i++)
		make_safe(&files[i], 0, ~0ull);
	for (int i = 0; i < name_count; i++)
		names[i].safe = names[i].now;
}

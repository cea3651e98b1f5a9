// SPDX-License-Identifier: MIT
/*
 * The card's state: the files `memory`, `flash` and `uuid` of its folder. A start that fails
 * removes those that it made.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "emulator.h"
#include "guard.h"

#define FLASH_DRAFT "flash.new"
#define UUID_DRAFT "uuid.new"

/* Files created by this start, removed if it fails. */
static struct {
	int folder_fd;
	const char *names[8];
	unsigned int count;
} made_here = { .folder_fd = -1 };

void emu_made(const char *name)
{
	made_here.names[made_here.count++] = name;
}

void emu_state_begin(int folder_fd)
{
	made_here.folder_fd = folder_fd;
}

void emu_state_keep(void)
{
	made_here.count = 0;
}

static void unmake(void)
{
	while (made_here.folder_fd >= 0 && made_here.count)
		unlinkat(made_here.folder_fd, made_here.names[--made_here.count], 0);
}

void emu_die(const char *what, const char *path, int error)
{
	struct statvfs room;
	bool no_inode = error == ENOSPC && fstatvfs(made_here.folder_fd, &room) == 0 &&
		!room.f_favail && room.f_files;

	unmake();
	fprintf(stderr, "speckv-emu: %s %s: %s", what, path, strerror(error));
	if (no_inode)
		fprintf(stderr, " (its file system has no inode left)");
	fprintf(stderr, "\n");
	exit(1);
}

void emu_no_room(const char *path, uint64_t bytes)
{
	struct statvfs room = { 0 };

	unmake();
	statvfs(path, &room);
	fprintf(stderr,
		"speckv-emu: no room for %s: up to %" PRIu64
		" bytes are wanted now, its file system has %" PRIu64
		" left; free some, or use another folder\n",
		path, bytes, (uint64_t)room.f_bavail * room.f_frsize);
	exit(1);
}

static int allocate(int fd, uint64_t bytes)
{
	int rc;

	do
		rc = posix_fallocate(fd, 0, (off_t)bytes);
	while (rc == EINTR);
	return rc;
}

/* Open a file of the folder by descriptor: the folder's path may have changed. */
static int open_in(int folder_fd, const char *name, int flags)
{
	return openat(folder_fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static uint8_t *map_state(const char *path, int fd, uint64_t bytes)
{
	uint8_t *map = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
			     : MAP_FAILED;

	if (map == MAP_FAILED)
		emu_die("cannot map", path, errno);
	return map;
}

/* Validate a state file, which is created if missing or empty. False: it exists with this size. */
static bool state_is_new(const char *path, int fd, uint64_t bytes)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		emu_die("cannot open", path, errno);
	if (!S_ISREG(st.st_mode))
		emu_die("no file is", path, EINVAL);
	if (st.st_size == 0)
		return true;
	if ((uint64_t)st.st_size != bytes) {
		unmake();
		fprintf(stderr,
			"speckv-emu: %s has %lld bytes, not %" PRIu64
			": start with the size that the card was made with\n",
			path, (long long)st.st_size, bytes);
		exit(1);
	}
	return false;
}

static void size_state(const char *path, int fd, uint64_t bytes)
{
	if (ftruncate(fd, (off_t)bytes) != 0)
		emu_die(errno == EFBIG
				? "the largest file that may be written (ulimit -f) is smaller than"
				: "cannot make",
			path, errno);
}

/* Rename a complete draft to its final name, durably. */
static void keep_file(const char *folder, int folder_fd, int fd, const char *draft,
	const char *name)
{
	if (fd < 0 || folder_fd < 0 || fsync(fd) != 0 ||
		renameat(folder_fd, draft, folder_fd, name) != 0)
		emu_die("cannot write to", folder, errno);
	emu_made(name);
	if (fsync(folder_fd) != 0 && errno != EINVAL)
		emu_die("cannot write to", folder, errno);
}

static int open_draft(const char *folder, int folder_fd, const char *draft)
{
	int fd;

	unlinkat(folder_fd, draft, 0); /* left by a killed start */
	fd = open_in(folder_fd, draft, O_RDWR | O_CREAT | O_EXCL);
	if (fd < 0)
		emu_die("cannot make a file in", folder, errno);
	emu_made(draft);
	return fd;
}

void emu_state_memory(struct emulator *e, const char *folder, int folder_fd)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/memory", folder);
	e->memory_fd = open_in(folder_fd, "memory", O_RDWR | O_CREAT);
	if (e->memory_fd < 0)
		emu_die("cannot open", path, errno);
	if (state_is_new(path, e->memory_fd, e->config.memory_bytes)) {
		emu_made("memory");
		size_state(path, e->memory_fd, e->config.memory_bytes);
	}
	e->memory = map_state(path, e->memory_fd, e->config.memory_bytes);
}

void emu_state_flash(struct emulator *e, const char *folder, int folder_fd,
	const struct speckv_card_key *keys, unsigned int key_count)
{
	uint64_t bytes = e->config.flash_bytes;
	char path[4096];
	bool made;

	snprintf(path, sizeof(path), "%s/flash", folder);
	e->flash_fd = open_in(folder_fd, "flash", O_RDWR);
	if (e->flash_fd < 0 && errno != ENOENT)
		emu_die("cannot open", path, errno);
	made = e->flash_fd < 0 || state_is_new(path, e->flash_fd, bytes);
	if (made) {
		if (e->flash_fd >= 0)
			close(e->flash_fd);
		e->flash_fd = open_draft(folder, folder_fd, FLASH_DRAFT);
		size_state(path, e->flash_fd, bytes);
	}
	if (allocate(e->flash_fd, bytes) != 0)
		emu_no_room(folder, bytes);
	e->flash = map_state(path, e->flash_fd, bytes);
	if (!guard_add(e->flash, bytes, &e->flash_error, true))
		emu_die("cannot watch the flash in", folder, EUSERS);
	if (!made)
		return;
	if (speckv_card_flash_provision(&emu_card_ops, e, bytes, keys, key_count) != 0)
		emu_die("cannot provision the flash in", folder, EIO);
	keep_file(folder, folder_fd, e->flash_fd, FLASH_DRAFT, "flash");
}

void emu_state_uuid(const char *folder, int folder_fd, uint8_t uuid[16])
{
	char text[64] = "";
	unsigned int at = 0, byte;
	int n, fd = open_in(folder_fd, "uuid", O_RDONLY);

	if (fd < 0 && errno != ENOENT)
		emu_die("cannot read the uuid in", folder, errno);
	if (fd >= 0) {
		if (read(fd, text, sizeof(text) - 1) < 0)
			emu_die("cannot read the uuid in", folder, errno);
		close(fd);
		for (unsigned int i = 0; i < 16; i++) {
			at += text[at] == '-';
			if (sscanf(text + at, "%2x%n", &byte, &n) != 1 || n != 2) {
				unmake();
				fprintf(stderr, "speckv-emu: %s/uuid holds no uuid\n", folder);
				exit(1);
			}
			uuid[i] = (uint8_t)byte;
			at += 2;
		}
		return;
	}
	if (getrandom(uuid, 16, 0) != 16)
		emu_die("no random bytes for the uuid in", folder, errno);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562 version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	for (unsigned int i = 0; i < 16; i++)
		at += (unsigned int)snprintf(text + at, sizeof(text) - at, "%s%02x",
			i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	text[at++] = '\n';
	fd = open_draft(folder, folder_fd, UUID_DRAFT);
	if (write(fd, text, at) != (ssize_t)at || fchmod(fd, 0644) != 0)
		emu_die("cannot write the uuid in", folder, errno);
	keep_file(folder, folder_fd, fd, UUID_DRAFT, "uuid");
	close(fd);
}

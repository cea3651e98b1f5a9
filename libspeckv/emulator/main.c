// SPDX-License-Identifier: MIT
/*
 * speckv-emu: a card as a process. Its persistent state is in two files of the state folder,
 * `memory` and `flash`; it may be killed at any instant and restarted. Sockets in the same folder:
 * `admin` (privileged), `io`, `control` (commands to the emulator itself).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "emulator.h"
#include "guard.h"

#define BATCH 256 /* commands between polls of the sockets */
#define SOCKETS_NS 50000u /* between polls of the sockets while commands complete */
#define LOOKS 64 /* idle rounds between polls of the sockets */
/* and between reads of the clock; a command may progress in an idle round, but none completes */
#define CLOCKS 8
/* upper bound on polling without a command before the card sleeps, unless its feature is longer */
#define PATIENCE_NS 2000000u
#define SLOT_BYTES (8u << 20)
#define FLASH_DRAFT "flash.new"
#define UUID_DRAFT "uuid.new"
#define FATAL_MEMORY 1 /* of register FATAL_CAUSE */

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static uint64_t read_clock(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Not settable, and counts while the machine is suspended. */
uint64_t emu_now_ns(void *arg)
{
	(void)arg;
	return read_clock(CLOCK_BOOTTIME);
}

uint64_t emu_wall_ns(void *arg)
{
	(void)arg;
	return read_clock(CLOCK_REALTIME);
}

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

/* No space in a file system: report how much is needed and how much is free. */
__attribute__((noreturn)) static void no_room(const char *path, uint64_t bytes)
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

static int card_take(int fd, uint64_t bytes)
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
static void keep(const char *folder, int folder_fd, int fd, const char *draft, const char *name)
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

static void open_memory(struct emulator *e, const char *folder, int folder_fd)
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

/*
 * `flash` appears with its keys already in it. Its space is reserved, also if an existing file is
 * sparse.
 */
static void open_flash(struct emulator *e, const char *folder, int folder_fd,
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
	if (card_take(e->flash_fd, bytes) != 0)
		no_room(folder, bytes);
	e->flash = map_state(path, e->flash_fd, bytes);
	if (!guard_add(e->flash, bytes, &e->flash_error, true))
		emu_die("cannot watch the flash in", folder, EUSERS);
	if (!made)
		return;
	if (speckv_card_flash_provision(&emu_card_ops, e, bytes, keys, key_count) != 0)
		emu_die("cannot provision the flash in", folder, EIO);
	keep(folder, folder_fd, e->flash_fd, FLASH_DRAFT, "flash");
}

/*
 * The card's uuid, as text in a file beside its memory, for users who may not connect to the card.
 * Created once.
 */
static void card_uuid(const char *folder, int folder_fd, uint8_t uuid[16])
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
	keep(folder, folder_fd, fd, UUID_DRAFT, "uuid");
	close(fd);
}

static int sleep_ms(struct emulator *e)
{
	uint64_t next = e->engine->ops->next_ns(e->engine), now = emu_now_ns(e);
	int64_t peers = emu_peers_deadline_ms(e), left = 1000;

	if (next != UINT64_MAX)
		left = next <= now ? 0 : (int64_t)((next - now) / 1000000) + 1;
	if (peers != INT64_MAX) {
		peers -= (int64_t)(read_clock(CLOCK_MONOTONIC) / 1000000);
		left = peers < left ? peers : left;
	}
	return left < 0 ? 0 : left < 1000 ? (int)left : 1000;
}

static bool is_time_to_look(unsigned int idle, uint64_t served)
{
	return idle % LOOKS == 0 || (idle % CLOCKS == 0 && emu_now_ns(NULL) - served > SOCKETS_NS);
}

/*
 * Waking a sleeping card costs its clients a system call. It polls doorbells for at least its
 * configured time before it sleeps, and longer after a short sleep: that client was preempted
 * rather than idle.
 */
static void loop(struct emulator *e)
{
	uint64_t idle_since = emu_now_ns(e), served = 0, patience = 0, waited = 0;
	unsigned int idle = 0;

	while (!e->stop && !interrupted) {
		uint64_t poll_ns = e->engine->ops->poll_ns(e->engine);

		if (e->engine->ops->run(e->engine, BATCH)) {
			if (waited) /* woken by a doorbell */
				patience = waited >= PATIENCE_NS   ? patience / 2
					: 2 * waited < PATIENCE_NS ? 2 * waited
								   : PATIENCE_NS;
			waited = idle = 0;
			idle_since = emu_now_ns(e);
			if (idle_since - served > SOCKETS_NS) {
				/* polling the sockets costs as much as a command or two */
				emu_peers_serve(e, 0);
				served = idle_since;
			}
		} else if (is_time_to_look(++idle, served)) {
			uint64_t now = emu_now_ns(e),
				 enough = poll_ns > patience ? poll_ns : patience;

			waited = 0;
			emu_peers_serve(e, 0);
			served = now;
			if (poll_ns && now - idle_since > enough &&
				e->engine->ops->sleep(e->engine)) {
				emu_peers_serve(e, sleep_ms(e));
				e->engine->ops->wake(e->engine);
				waited = emu_now_ns(e) - idle_since;
				idle_since += waited;
				idle = 0;
			} else {
				/* the client may need this core for its next command */
				sched_yield();
			}
		}
		if (e->memory_error) {
			/* writes to it are lost: stop the card until the process is restarted */
			e->engine->ops->inject(e->engine, SPECKV_CARD_FAULT_FATAL, 0, FATAL_MEMORY,
				1);
			e->memory_told = true;
		}
		if (e->engine->ops->rebooted(e->engine))
			for (unsigned int i = 0; i < EMU_FUNCTIONS; i++)
				if (e->functions[i])
					emu_function_identify(e->functions[i]);
	}
}

static uint64_t parse_bytes(const char *text, const char *option)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);

	switch (*end) {
	case 'G':
		value <<= 10; /* fall through */
	case 'M':
		value <<= 10; /* fall through */
	case 'K':
		value <<= 10;
		end++;
		break;
	default:
		break;
	}
	if (*text < '0' || *text > '9' || *end || !value || value > 1ull << 44) {
		fprintf(stderr, "speckv-emu: %s wants a size such as 512M, not '%s'\n", option,
			text);
		exit(2);
	}
	return value;
}

/* A public key that this card trusts: 32 raw bytes in hexadecimal. */
static void parse_key(const char *text, struct speckv_card_key *key)
{
	for (unsigned int i = 0; i < 32; i++) {
		unsigned int byte;
		char pair[3] = { text[2 * i], text[2 * i] ? text[2 * i + 1] : 0, 0 };

		if (strspn(pair, "0123456789abcdefABCDEF") != 2 ||
			sscanf(pair, "%2x", &byte) != 1) {
			fprintf(stderr, "speckv-emu: --key wants 64 hexadecimal digits\n");
			exit(2);
		}
		key->key[i] = (uint8_t)byte;
	}
	if (text[64]) {
		fprintf(stderr, "speckv-emu: --key wants 64 hexadecimal digits\n");
		exit(2);
	}
}

static void usage(int status)
{
	fprintf(status ? stderr : stdout,
		"usage: speckv-emu --dir FOLDER [--name NAME] [--memory 1G] [--factory] [--power-cycle] [--key HEX]...\n"
		"An emulated CXL-SpecKV card. Its memory and flash are files in FOLDER, its sockets are FOLDER/admin and FOLDER/io (vfio-user).\n"
		"--factory: the golden image has no engine; --power-cycle: a new image boots when the process is started again; --key: a public\n"
		"key, 64 hexadecimal digits, whose owner may sign bundles; written when the card is made.\n"
		"'speckvctl emu start' runs it for you.\n");
	exit(status);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "dir", 1, NULL, 'd' }, { "name", 1, NULL, 'n' },
		{ "memory", 1, NULL, 'm' }, { "factory", 0, NULL, 'f' }, { "key", 1, NULL, 'k' },
		{ "help", 0, NULL, 'h' }, { "power-cycle", 0, NULL, 'p' }, { NULL, 0, NULL, 0 } };
	static struct emulator e = { .memory_fd = -1, .flash_fd = -1 };
	struct speckv_card_key keys[SPECKV_CARD_KEYS] = { 0 };
	unsigned int key_count = 0;
	const char *folder = NULL;
	int option, folder_fd, lock_fd, rc;
	struct stat owner;

	snprintf(e.name, sizeof(e.name), "emu");
	e.config.memory_bytes = 1ull << 30;
	e.config.golden_engine = true;
	while ((option = getopt_long(argc, argv, "d:n:m:fk:hp", options, NULL)) >= 0)
		switch (option) {
		case 'd':
			folder = optarg;
			break;
		case 'n':
			if (strlen(optarg) >= sizeof(e.name) ||
				strspn(optarg,
					"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
					strlen(optarg)) {
				fprintf(stderr,
					"speckv-emu: --name wants letters, digits, '.', '_' and '-'\n");
				return 2;
			}
			snprintf(e.name, sizeof(e.name), "%s", optarg);
			break;
		case 'm':
			e.config.memory_bytes = parse_bytes(optarg, "--memory");
			break;
		case 'f':
			e.config.golden_engine = false;
			break;
		case 'p':
			e.config.activation = SPECKV_ACTIVATION_NEEDS_POWER_CYCLE;
			break;
		case 'k':
			if (key_count == SPECKV_CARD_KEYS) {
				fprintf(stderr, "speckv-emu: a card has %d key slots\n",
					SPECKV_CARD_KEYS);
				return 2;
			}
			parse_key(optarg, &keys[key_count++]);
			break;
		case 'h':
			usage(0);
			break;
		default:
			usage(2);
		}
	if (!folder || optind != argc)
		usage(2);
	if (mkdir(folder, 0700) != 0 && errno != EEXIST)
		emu_die("cannot make", folder, errno);
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0)
		emu_die("cannot open", folder, errno);
	if (fstat(folder_fd, &owner) != 0 || (owner.st_uid != 0 && owner.st_uid != geteuid()) ||
		owner.st_mode & (S_IWGRP | S_IWOTH)) {
		fprintf(stderr,
			"speckv-emu: %s belongs to uid %u, mode %04o: other users can change it; use a folder of your own\n",
			folder, (unsigned int)owner.st_uid, (unsigned int)owner.st_mode & 07777);
		return 1;
	}
	/* permission to open it is permission to hold it */
	lock_fd = openat(folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock_fd < 0)
		emu_die("cannot open the lock in", folder, errno);
	for (int tries = 0; flock(lock_fd, LOCK_EX | LOCK_NB) != 0; tries++) {
		if (tries < 10) {
			/* another process may hold it briefly, to probe for a running card */
			nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
			continue;
		}
		fprintf(stderr, "speckv-emu: a card runs in %s already\n", folder);
		return 1;
	}
	/* also visible to users without access to `lock`; advisory: failure is ignored */
	flock(folder_fd, LOCK_EX | LOCK_NB);
	made_here.folder_fd = folder_fd;
	guard_begin();
	signal(SIGXFSZ, SIG_IGN); /* the failing call returns an error */
	open_memory(&e, folder, folder_fd);
	e.config.flash_slot_bytes = SLOT_BYTES;
	e.config.flash_bytes = speckv_card_flash_bytes(SLOT_BYTES);
	open_flash(&e, folder, folder_fd, keys, key_count);
	if (!guard_add(e.memory, e.config.memory_bytes, &e.memory_error, true))
		emu_die("cannot watch the memory in", folder, EUSERS);
	e.config.memory = e.memory;
	card_uuid(folder, folder_fd, e.config.uuid);
	e.config.functions_max = EMU_FUNCTIONS;
	e.config.queue_pairs_max = EMU_FUNCTIONS * EMU_QUEUE_PAIRS;
	e.config.flash = e.flash;
	snprintf(e.config.model, sizeof(e.config.model), "speckv-emu");
	snprintf(e.config.serial, sizeof(e.config.serial), "%.31s", e.name);
	/* the part named by the bundles in bitstreams/ */
	snprintf(e.config.part, sizeof(e.config.part), "LFE5U-85F-6BG381C");
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	rc = emu_engine_model(&emu_card_ops, &e, &e.config, &e.engine);
	if (rc == -ENOSPC) {
		struct stat st;

		no_room(folder,
			e.memory_fd >= 0 && fstat(e.memory_fd, &st) == 0
				? e.config.memory_bytes - (uint64_t)st.st_blocks * 512
				: e.config.memory_bytes);
	}
	if (rc)
		emu_die("the card does not start from the state in", folder, -rc);
	emu_peers_begin(&e, folder, folder_fd);
	made_here.count = 0; /* started: keep the files */
	e.started_ns = emu_wall_ns(&e);
	printf("ready\n");
	fflush(stdout);
	loop(&e);
	emu_peers_end(&e);
	e.engine->ops->close(e.engine);
	flock(folder_fd, LOCK_UN);
	/* before exit, which may wait for a peer's file to be closed */
	flock(lock_fd, LOCK_UN);
	return 0;
}

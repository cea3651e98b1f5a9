// SPDX-License-Identifier: MIT
/*
 * speckv-emu: a card as a process. Everything it has to keep lies in two files, `memory` and `flash`, of its state folder; it may be killed at
 * any instant and started again. Sockets in the same folder: `admin` (privileged), `io`, `control` (the emulator's own commands).
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

#define BATCH 256          /* commands between two looks at the sockets */
#define SOCKETS_NS 50000u  /* between two looks at the sockets while there are commands */
#define LOOKS 64           /* idle rounds between two looks at the sockets */
#define PATIENCE_NS 2000000u /* most time without a command before the card sleeps, unless its setting says more */
#define SLOT_BYTES (8u << 20)
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

/* Nobody can set it, and it goes on while the machine sleeps. */
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

void emu_die(const char *what, const char *path, int error)
{
	struct statvfs room;

	fprintf(stderr, "speckv-emu: %s %s: %s", what, path, strerror(error));
	if (error == ENOSPC && statvfs(path, &room) == 0 && !room.f_favail && room.f_files)
		fprintf(stderr, " (its file system has no inode left)");
	fprintf(stderr, "\n");
	exit(1);
}

/* A file system has no room: say how much is wanted of it, and how much it has. */
__attribute__((noreturn)) static void no_room(const char *path, uint64_t bytes)
{
	struct statvfs room = { 0 };

	statvfs(path, &room);
	fprintf(stderr, "speckv-emu: no room for %s: up to %" PRIu64 " bytes are wanted now, its file system has %" PRIu64 " left; free some, or use another folder\n",
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

/* Open or make a state file of exactly this size. */
static uint8_t *state_file(const char *folder, const char *name, uint64_t bytes, int *fd, bool *made)
{
	char path[4096];
	struct stat st;
	uint8_t *map;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*fd < 0 || !bytes || fstat(*fd, &st) != 0)
		emu_die("cannot open", path, errno);
	*made = st.st_size == 0;
	if (*made && ftruncate(*fd, (off_t)bytes) != 0) {
		int error = errno;

		unlink(path); /* nothing is in it */
		emu_die(error == EFBIG ? "the largest file that may be written (ulimit -f) is smaller than" : "cannot make", path, error);
	}
	if (!*made && (uint64_t)st.st_size != bytes) {
		fprintf(stderr, "speckv-emu: %s has %lld bytes, not %" PRIu64 ": start with the size that the card was made with\n", path, (long long)st.st_size, bytes);
		exit(1);
	}
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (map == MAP_FAILED)
		emu_die("cannot map", path, errno);
	return map;
}

/* The card's uuid, text in a file beside its memory, so that whoever has no right to talk to the card can tell which it is. Made once. */
static void card_uuid(const char *folder, uint8_t uuid[16])
{
	char path[4096], temporary[4096 + 8], text[64] = "";
	unsigned int at = 0, byte;
	FILE *file;
	int n;

	snprintf(path, sizeof(path), "%s/uuid", folder);
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	file = fopen(path, "re");
	if (file) {
		if (!fgets(text, sizeof(text), file))
			text[0] = 0;
		fclose(file);
		for (unsigned int i = 0; i < 16; i++) {
			at += text[at] == '-';
			if (sscanf(text + at, "%2x%n", &byte, &n) != 1 || n != 2) {
				fprintf(stderr, "speckv-emu: %s holds no uuid\n", path);
				exit(1);
			}
			uuid[i] = (uint8_t)byte;
			at += 2;
		}
		return;
	}
	if (getrandom(uuid, 16, 0) != 16)
		emu_die("no random bytes for", path, errno);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562 version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	for (unsigned int i = 0; i < 16; i++)
		at += (unsigned int)snprintf(text + at, sizeof(text) - at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	file = fopen(temporary, "we");
	if (!file || fprintf(file, "%s\n", text) < 0 || fclose(file) != 0 || chmod(temporary, 0644) != 0 || rename(temporary, path) != 0)
		emu_die("cannot write", path, errno);
}

static int sleep_ms(struct emulator *e)
{
	uint64_t next = speckv_card_next_ns(e->card), now = emu_now_ns(e);
	int64_t peers = emu_peers_deadline_ms(e), left = 1000;

	if (next != UINT64_MAX)
		left = next <= now ? 0 : (int64_t)((next - now) / 1000000) + 1;
	if (peers != INT64_MAX) {
		peers -= (int64_t)(read_clock(CLOCK_MONOTONIC) / 1000000);
		left = peers < left ? peers : left;
	}
	return left < 0 ? 0 : left < 1000 ? (int)left : 1000;
}

/*
 * A card that sleeps costs its clients a system call to wake it. It looks at doorbells for as long as its setting says before it sleeps,
 * and longer after a sleep that turned out short: a client that was off its core for a moment, and not one that had no more to ask.
 */
static void loop(struct emulator *e)
{
	uint64_t idle_since = emu_now_ns(e), served = 0, patience = 0, waited = 0;
	unsigned int idle = 0;

	while (!e->stop && !interrupted) {
		uint64_t poll_ns = speckv_card_poll_ns(e->card);

		if (speckv_card_run(e->card, BATCH)) {
			if (waited) /* a doorbell ended the sleep */
				patience = waited >= PATIENCE_NS ? patience / 2 : 2 * waited < PATIENCE_NS ? 2 * waited : PATIENCE_NS;
			waited = idle = 0;
			idle_since = emu_now_ns(e);
			if (idle_since - served > SOCKETS_NS) { /* looking at the sockets costs as much as a command or two */
				emu_peers_serve(e, 0);
				served = idle_since;
			}
		} else if (++idle % LOOKS == 0) {
			uint64_t now = emu_now_ns(e), enough = poll_ns > patience ? poll_ns : patience;

			waited = 0;
			emu_peers_serve(e, 0);
			if (poll_ns && now - idle_since > enough && speckv_card_sleep(e->card)) {
				emu_peers_serve(e, sleep_ms(e));
				speckv_card_wake(e->card);
				waited = emu_now_ns(e) - idle_since;
				idle_since += waited;
				idle = 0;
			} else {
				sched_yield(); /* the next command's client may want this very core */
			}
		}
		if (e->memory_error) /* what was written there is lost: nothing more is, until the process is started again */
			speckv_card_inject(e->card, SPECKV_CARD_FAULT_FATAL, 0, FATAL_MEMORY, 1);
		if (speckv_card_rebooted(e->card))
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
		fprintf(stderr, "speckv-emu: %s wants a size such as 512M, not '%s'\n", option, text);
		exit(2);
	}
	return value;
}

/* The public key that this card trusts: 32 raw bytes, as hexadecimal digits. */
static void parse_key(const char *text, struct speckv_card_key *key)
{
	for (unsigned int i = 0; i < 32; i++) {
		unsigned int byte;
		char pair[3] = { text[2 * i], text[2 * i] ? text[2 * i + 1] : 0, 0 };

		if (strspn(pair, "0123456789abcdefABCDEF") != 2 || sscanf(pair, "%2x", &byte) != 1) {
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
	static const struct option options[] = { { "dir", 1, NULL, 'd' },     { "name", 1, NULL, 'n' }, { "memory", 1, NULL, 'm' },
						 { "factory", 0, NULL, 'f' }, { "key", 1, NULL, 'k' },	{ "help", 0, NULL, 'h' },
						 { "power-cycle", 0, NULL, 'p' }, { NULL, 0, NULL, 0 } };
	static struct emulator e = { .memory_fd = -1, .flash_fd = -1 };
	struct speckv_card_key keys[SPECKV_CARD_KEYS] = { 0 };
	unsigned int key_count = 0;
	const char *folder = NULL;
	bool made, flash_made;
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
			if (strlen(optarg) >= sizeof(e.name) || strspn(optarg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(optarg)) {
				fprintf(stderr, "speckv-emu: --name wants letters, digits, '.', '_' and '-'\n");
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
				fprintf(stderr, "speckv-emu: a card has %d key slots\n", SPECKV_CARD_KEYS);
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
	if (fstat(folder_fd, &owner) != 0 || (owner.st_uid != 0 && owner.st_uid != geteuid()) || owner.st_mode & (S_IWGRP | S_IWOTH)) {
		fprintf(stderr, "speckv-emu: %s belongs to uid %u, mode %04o: other users can change it; use a folder of your own\n", folder, (unsigned int)owner.st_uid,
			(unsigned int)owner.st_mode & 07777);
		return 1;
	}
	lock_fd = openat(folder_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* who may open it may hold it */
	if (lock_fd < 0)
		emu_die("cannot open the lock in", folder, errno);
	for (int tries = 0; flock(lock_fd, LOCK_EX | LOCK_NB) != 0; tries++) {
		if (tries < 10) { /* somebody may just be looking whether a card runs here */
			nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
			continue;
		}
		fprintf(stderr, "speckv-emu: a card runs in %s already\n", folder);
		return 1;
	}
	flock(folder_fd, LOCK_EX | LOCK_NB); /* shows to those who may not open the lock that it runs; another's there decides nothing */
	guard_begin();
	signal(SIGXFSZ, SIG_IGN); /* an error of the call is enough */
	e.memory = state_file(folder, "memory", e.config.memory_bytes, &e.memory_fd, &made);
	e.config.flash_slot_bytes = SLOT_BYTES;
	e.config.flash_bytes = speckv_card_flash_bytes(SLOT_BYTES);
	e.flash = state_file(folder, "flash", e.config.flash_bytes, &e.flash_fd, &flash_made);
	if (flash_made && card_take(e.flash_fd, e.config.flash_bytes) != 0) {
		unlinkat(folder_fd, "flash", 0);
		if (made)
			unlinkat(folder_fd, "memory", 0);
		no_room(folder, e.config.flash_bytes);
	}
	if (flash_made && speckv_card_flash_provision(&emu_card_ops, &e, e.config.flash_bytes, keys, key_count) != 0)
		emu_die("cannot provision the flash in", folder, EIO);
	if (!guard_add(e.memory, e.config.memory_bytes, &e.memory_error, true))
		emu_die("cannot watch the memory in", folder, EUSERS);
	e.config.memory = e.memory;
	card_uuid(folder, e.config.uuid);
	e.config.functions_max = EMU_FUNCTIONS;
	e.config.queue_pairs_max = EMU_FUNCTIONS * EMU_QUEUE_PAIRS;
	e.config.flash = e.flash;
	snprintf(e.config.model, sizeof(e.config.model), "speckv-emu");
	snprintf(e.config.serial, sizeof(e.config.serial), "%.31s", e.name);
	snprintf(e.config.part, sizeof(e.config.part), "LFE5U-85F-6BG381C"); /* what the bundles of bitstreams/ are for */
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	rc = speckv_card_create(&emu_card_ops, &e, &e.config, &e.card);
	if (rc == -ENOSPC) {
		struct stat st;

		no_room(folder, e.memory_fd >= 0 && fstat(e.memory_fd, &st) == 0 ? e.config.memory_bytes - (uint64_t)st.st_blocks * 512 : e.config.memory_bytes);
	}
	if (rc)
		emu_die("the card does not start from the state in", folder, -rc);
	emu_peers_begin(&e, folder, folder_fd);
	e.started_ns = emu_wall_ns(&e);
	printf("ready\n");
	fflush(stdout);
	loop(&e);
	emu_peers_end(&e);
	speckv_card_destroy(e.card);
	flock(lock_fd, LOCK_UN); /* before the process ends: that may wait for a peer's file to be closed */
	return 0;
}

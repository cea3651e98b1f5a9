// SPDX-License-Identifier: MIT
/*
 * speckv-emu: a card as a process: options and main loop. It may be killed at any instant and
 * restarted. Sockets in its folder: `admin` (privileged), `io`, `control` (commands to the emulator
 * itself).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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
static void serve_loop(struct emulator *e)
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
				served = emu_now_ns(e);
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

struct options {
	const char *folder;
	struct speckv_card_key keys[SPECKV_CARD_KEYS];
	unsigned int key_count;
};

static void parse_options(int argc, char **argv, struct emulator *e, struct options *o)
{
	static const struct option options[] = { { "dir", 1, NULL, 'd' }, { "name", 1, NULL, 'n' },
		{ "memory", 1, NULL, 'm' }, { "factory", 0, NULL, 'f' }, { "key", 1, NULL, 'k' },
		{ "help", 0, NULL, 'h' }, { "power-cycle", 0, NULL, 'p' }, { NULL, 0, NULL, 0 } };
	int option;

	snprintf(e->name, sizeof(e->name), "emu");
	e->config.memory_bytes = 1ull << 30;
	e->config.golden_engine = true;
	while ((option = getopt_long(argc, argv, "d:n:m:fk:hp", options, NULL)) >= 0)
		switch (option) {
		case 'd':
			o->folder = optarg;
			break;
		case 'n':
			if (strlen(optarg) >= sizeof(e->name) ||
				strspn(optarg,
					"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") !=
					strlen(optarg)) {
				fprintf(stderr,
					"speckv-emu: --name wants letters, digits, '.', '_' and '-'\n");
				exit(2);
			}
			snprintf(e->name, sizeof(e->name), "%s", optarg);
			break;
		case 'm':
			e->config.memory_bytes = parse_bytes(optarg, "--memory");
			break;
		case 'f':
			e->config.golden_engine = false;
			break;
		case 'p':
			e->config.activation = SPECKV_ACTIVATION_NEEDS_POWER_CYCLE;
			break;
		case 'k':
			if (o->key_count == SPECKV_CARD_KEYS) {
				fprintf(stderr, "speckv-emu: a card has %d key slots\n",
					SPECKV_CARD_KEYS);
				exit(2);
			}
			parse_key(optarg, &o->keys[o->key_count++]);
			break;
		case 'h':
			usage(0);
			break;
		default:
			usage(2);
		}
	if (!o->folder || optind != argc)
		usage(2);
}

static int open_folder(const char *folder)
{
	struct stat owner;
	int folder_fd;

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
		exit(1);
	}
	return folder_fd;
}

static int lock_folder(const char *folder, int folder_fd)
{
	int lock_fd;

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
		exit(1);
	}
	/* also visible to users without access to `lock`; advisory: failure is ignored */
	flock(folder_fd, LOCK_EX | LOCK_NB);
	return lock_fd;
}

/* Open the card's state, and describe the card. */
static void configure(struct emulator *e, const struct options *o, int folder_fd)
{
	emu_state_memory(e, o->folder, folder_fd);
	e->config.flash_slot_bytes = SLOT_BYTES;
	e->config.flash_bytes = speckv_card_flash_bytes(SLOT_BYTES);
	emu_state_flash(e, o->folder, folder_fd, o->keys, o->key_count);
	if (!guard_add(e->memory, e->config.memory_bytes, &e->memory_error, true))
		emu_die("cannot watch the memory in", o->folder, EUSERS);
	e->config.memory = e->memory;
	emu_state_uuid(o->folder, folder_fd, e->config.uuid);
	e->config.functions_max = EMU_FUNCTIONS;
	e->config.queue_pairs_max = EMU_FUNCTIONS * EMU_QUEUE_PAIRS;
	e->config.flash = e->flash;
	snprintf(e->config.model, sizeof(e->config.model), "speckv-emu");
	snprintf(e->config.serial, sizeof(e->config.serial), "%.31s", e->name);
	/* the part named by the bundles in bitstreams/ */
	snprintf(e->config.part, sizeof(e->config.part), "LFE5U-85F-6BG381C");
}

static void start_card(struct emulator *e, const char *folder)
{
	int rc;

	rc = emu_engine_model(&emu_card_ops, e, &e->config, &e->engine);
	if (rc == -ENOSPC) {
		struct stat st;

		emu_no_room(folder,
			e->memory_fd >= 0 && fstat(e->memory_fd, &st) == 0
				? e->config.memory_bytes - (uint64_t)st.st_blocks * 512
				: e->config.memory_bytes);
	}
	if (rc || !e->engine)
		emu_die("the card does not start from the state in", folder, rc ? -rc : EIO);
}

int main(int argc, char **argv)
{
	static struct emulator e = { .memory_fd = -1, .flash_fd = -1 };
	struct options o = { 0 };
	int folder_fd, lock_fd;

	parse_options(argc, argv, &e, &o);
	folder_fd = open_folder(o.folder);
	lock_fd = lock_folder(o.folder, folder_fd);
	emu_state_begin(folder_fd);
	guard_begin();
	signal(SIGXFSZ, SIG_IGN); /* the failing call returns an error */
	configure(&e, &o, folder_fd);
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	start_card(&e, o.folder);
	emu_peers_begin(&e, o.folder, folder_fd);
	emu_state_keep();
	e.started_ns = emu_wall_ns(&e);
	printf("ready\n");
	fflush(stdout);
	serve_loop(&e);
	emu_peers_end(&e);
	e.engine->ops->close(e.engine);
	flock(folder_fd, LOCK_UN);
	/* before exit, which may wait for a peer's file to be closed */
	flock(lock_fd, LOCK_UN);
	return 0;
}

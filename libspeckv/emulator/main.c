// SPDX-License-Identifier: MIT
/*
 * speckv-emu: a card as a process. Everything it has to keep lies in two files, `memory` and `flash`, of its state folder; it may be killed at
 * any instant and started again. Sockets in the same folder: `admin` (privileged), `io`, `control` (the emulator's own commands).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "emulator.h"

#define BATCH 256          /* commands between two looks at the sockets */
#define SOCKETS_NS 50000u  /* between two looks at the sockets while there are commands */
#define LOOKS 64           /* idle rounds between two looks at the sockets */
#define PATIENCE_NS 2000000u /* most time without a command before the card sleeps, unless its setting says more */
#define SLOT_BYTES (8u << 20)

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

uint64_t emu_now_ns(void *arg)
{
	static uint64_t last; /* never goes back, whatever the wall clock does */
	struct timespec t;
	uint64_t now;

	(void)arg;
	clock_gettime(CLOCK_REALTIME, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	last = now > last ? now : last;
	return last;
}

static void die(const char *what, const char *path, int error)
{
	fprintf(stderr, "speckv-emu: %s %s: %s\n", what, path, strerror(error));
	exit(1);
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
		die("cannot open", path, errno);
	*made = st.st_size == 0;
	if (*made && ftruncate(*fd, (off_t)bytes) != 0)
		die("cannot make", path, errno);
	if (!*made && (uint64_t)st.st_size != bytes) {
		fprintf(stderr, "speckv-emu: %s has %lld bytes, not %" PRIu64 ": start with the size that the card was made with\n", path, (long long)st.st_size, bytes);
		exit(1);
	}
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (map == MAP_FAILED)
		die("cannot map", path, errno);
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
		die("no random bytes for", path, errno);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 9562 version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
	for (unsigned int i = 0; i < 16; i++)
		at += (unsigned int)snprintf(text + at, sizeof(text) - at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	file = fopen(temporary, "we");
	if (!file || fprintf(file, "%s\n", text) < 0 || fclose(file) != 0 || chmod(temporary, 0644) != 0 || rename(temporary, path) != 0)
		die("cannot write", path, errno);
}

static int listener(const char *folder, int folder_fd, const char *name, mode_t mode)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* an address holds 107 bytes of path: a longer one goes through the folder's descriptor */
	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder, name) >= (int)sizeof(address.sun_path))
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder_fd, name);
	unlinkat(folder_fd, name, 0); /* ours: the folder's lock is held */
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || fchmodat(folder_fd, name, mode, 0) != 0 || listen(fd, 16) != 0)
		die("cannot listen at", name, errno);
	return fd;
}

static void accept_function(struct emulator *e, int listening, bool admin)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned int slot = 0;

	if (fd < 0)
		return;
	while (slot < EMU_FUNCTIONS && e->functions[slot])
		slot++;
	if (slot == EMU_FUNCTIONS)
		close(fd);
	else
		e->functions[slot] = emu_function_open(e, fd, admin);
}

static void accept_control(struct emulator *e)
{
	int fd = accept4(e->listeners[2], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned int i = 0; fd >= 0 && i < EMU_CONTROLS; i++)
		if (e->controls[i] < 0) {
			e->controls[i] = fd;
			return;
		}
	if (fd >= 0)
		close(fd);
}

/* One line in, one line out; what does not come in one piece is not one of our commands. */
static void serve_control(struct emulator *e, unsigned int slot)
{
	char line[256], answer[EMU_ANSWER_BYTES];
	ssize_t n = recv(e->controls[slot], line, sizeof(line) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 1 && line[n - 1] == '\n') {
		line[n - 1] = 0;
		emu_control(e, line, answer, sizeof(answer));
		if (send(e->controls[slot], answer, strlen(answer), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			return;
	}
	close(e->controls[slot]);
	e->controls[slot] = -1;
}

static void serve(struct emulator *e, int timeout_ms)
{
	struct pollfd fds[3 + EMU_FUNCTIONS + EMU_CONTROLS];

	for (unsigned int i = 0; i < 3; i++)
		fds[i] = (struct pollfd){ e->listeners[i], POLLIN, 0 };
	for (unsigned int i = 0; i < EMU_FUNCTIONS; i++)
		fds[3 + i] = e->functions[i] ? (struct pollfd){ vu_fd(e->functions[i]->connection), vu_events(e->functions[i]->connection), 0 } :
					       (struct pollfd){ -1, 0, 0 };
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		fds[3 + EMU_FUNCTIONS + i] = (struct pollfd){ e->controls[i], POLLIN, 0 };
	if (poll(fds, sizeof(fds) / sizeof(fds[0]), timeout_ms) <= 0)
		return;
	for (unsigned int i = 0; i < EMU_FUNCTIONS; i++)
		if (fds[3 + i].revents && vu_serve(e->functions[i]->connection) != 0) {
			emu_function_close(e->functions[i]);
			e->functions[i] = NULL;
		}
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		if (fds[3 + EMU_FUNCTIONS + i].revents)
			serve_control(e, i);
	for (unsigned int i = 0; i < 2; i++)
		if (fds[i].revents)
			accept_function(e, e->listeners[i], i == 0);
	if (fds[2].revents)
		accept_control(e);
}

static int sleep_ms(struct emulator *e)
{
	uint64_t next = speckv_card_next_ns(e->card), now = emu_now_ns(e);

	if (next == UINT64_MAX)
		return 1000;
	return next <= now ? 0 : (int)((next - now) / 1000000 < 1000 ? (next - now) / 1000000 + 1 : 1000);
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
				serve(e, 0);
				served = idle_since;
			}
		} else if (++idle % LOOKS == 0) {
			uint64_t now = emu_now_ns(e), enough = poll_ns > patience ? poll_ns : patience;

			waited = 0;
			serve(e, 0);
			if (poll_ns && now - idle_since > enough && speckv_card_sleep(e->card)) {
				serve(e, sleep_ms(e));
				speckv_card_wake(e->card);
				waited = emu_now_ns(e) - idle_since;
				idle_since += waited;
				idle = 0;
			} else {
				sched_yield(); /* the next command's client may want this very core */
			}
		}
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
	int option, folder_fd, rc;

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
		die("cannot make", folder, errno);
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0)
		die("cannot open", folder, errno);
	for (int tries = 0; flock(folder_fd, LOCK_EX | LOCK_NB) != 0; tries++) {
		if (tries < 10) { /* somebody may just be looking whether a card runs here */
			nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
			continue;
		}
		fprintf(stderr, "speckv-emu: a card runs in %s already\n", folder);
		return 1;
	}
	e.memory = state_file(folder, "memory", e.config.memory_bytes, &e.memory_fd, &made);
	e.config.flash_slot_bytes = SLOT_BYTES;
	e.config.flash_bytes = speckv_card_flash_bytes(SLOT_BYTES);
	e.flash = state_file(folder, "flash", e.config.flash_bytes, &e.flash_fd, &flash_made);
	if (flash_made && speckv_card_flash_provision(&emu_card_ops, &e, e.config.flash_bytes, keys, key_count) != 0)
		die("cannot provision the flash in", folder, EIO);
	e.config.memory = e.memory;
	card_uuid(folder, e.config.uuid);
	e.config.functions_max = EMU_FUNCTIONS;
	e.config.queue_pairs_max = EMU_FUNCTIONS * EMU_QUEUE_PAIRS;
	e.config.flash = e.flash;
	snprintf(e.config.model, sizeof(e.config.model), "speckv-emu");
	snprintf(e.config.serial, sizeof(e.config.serial), "%.31s", e.name);
	snprintf(e.config.part, sizeof(e.config.part), "LFE5U-85F-6BG381C"); /* what the bundles of bitstreams/ are for */
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		e.controls[i] = -1;
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGTERM, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	sigaction(SIGINT, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	rc = speckv_card_create(&emu_card_ops, &e, &e.config, &e.card);
	if (rc)
		die("the card does not start from the state in", folder, -rc);
	e.listeners[0] = listener(folder, folder_fd, "admin", 0600);
	e.listeners[1] = listener(folder, folder_fd, "io", 0660);
	e.listeners[2] = listener(folder, folder_fd, "control", 0600);
	e.started_ns = emu_now_ns(&e);
	printf("ready\n");
	fflush(stdout);
	loop(&e);
	for (unsigned int i = 0; i < EMU_FUNCTIONS; i++)
		if (e.functions[i])
			emu_function_close(e.functions[i]);
	speckv_card_destroy(e.card);
	return 0;
}

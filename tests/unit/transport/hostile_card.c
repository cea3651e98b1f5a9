// SPDX-License-Identifier: MIT
/*
 * A card that does not keep to the protocol, at every message of a connection: the client gets an
 * error that says so, in bounded time, and no descriptor stays behind. Each case is a process of
 * its own, in which a thread plays the card.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <speckv_regs.h>

#include "../../check.h"
#include "transport/transport.h"

#define HANG_S 40 /* what takes longer than this never ends */
#define PATIENT_MS 15000 /* the client waits 10 s for an answer */
#define ARENA_BYTES (1u << 20)
#define REGISTERS 0x10000u
#define MOST_BYTES 4096

enum {
	VERSION = 1,
	DMA_MAP = 2,
	GET_REGION = 5,
	REGION_READ = 9,
	REGION_WRITE = 10,
	DMA_READ = 11
};
enum { REPLY = 1, ERROR = 0x20 };
/*
 * The messages of a connection, in their order: those of opening it, a register that is read and
 * one that is written.
 */
enum stage { GREETING, IDENTITY, REGION, ARENA, READ, WRITE, STAGES };
enum fault {
	NONE,
	TOO_LONG, /* a length beyond every bound */
	LONGER, /* an answer longer than what was asked for */
	HEADLESS, /* a length below that of a header */
	EMPTY, /* an answer without a body */
	OTHER_ID, /* replies to nothing before the right one */
	OTHER_COMMAND, /* a reply to another command with the right id */
	REQUESTS, /* requests of the card before the answer */
	DESCRIPTORS, /* descriptors that were not asked for, with the answer and before it */
	REFUSED, /* an error */
	NO_ERROR, /* an error that is none */
	ODD_ERROR, /* an error that is no errno */
	LONG_ERROR, /* an error with more than was asked for behind it */
	HALF, /* half of a header, and the end */
	END, /* the end */
	SILENCE,
	STRAY_REPLIES, /* replies to nothing, without end */
	STRAY_REQUESTS, /* requests, without end */
	COMPLETIONS, /* completions of commands that were never given, without end */
};

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

static const char *const fault_names[] = { "none", "too long", "longer", "headless", "empty",
	"other id", "other command", "requests", "descriptors", "refused", "no error", "odd error",
	"long error", "half", "end", "silence", "stray replies", "stray requests", "completions" };

static char folder[] = "/tmp/speckv-hostile-card-XXXXXX";
static char path[100];
static enum fault fault;
static enum stage where;
static int listener = -1;
static uint32_t registers[REGISTERS / 4];
static uint8_t *arena;
static uint32_t completions;

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);

/* A card that sends without end is always faster than its client. */
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
	return __real_recvmsg(fd, message,
		fault == STRAY_REPLIES || fault == STRAY_REQUESTS ? flags & ~MSG_DONTWAIT : flags);
}

/* ---- the card ------------------------------------------------------------------------------- */

/* False: the client is gone. */
static bool put(int fd, const void *data, size_t bytes, unsigned int descriptors)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, bytes };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (descriptors) {
		struct cmsghdr *rights;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
		rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
		for (unsigned int i = 0; i < descriptors; i++)
			memcpy(CMSG_DATA(rights) + i * sizeof(int), &listener, sizeof(listener));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)bytes;
}

static bool reply(int fd, const struct header *to, const void *body, size_t bytes,
	unsigned int descriptors)
{
	uint8_t message[sizeof(struct header) + MOST_BYTES] = { 0 };
	struct header h = { to->id, to->command, (uint32_t)(sizeof(h) + bytes), to->flags | REPLY,
		to->error };

	memcpy(message, &h, sizeof(h));
	if (bytes)
		memcpy(message + sizeof(h), body, bytes);
	return put(fd, message, sizeof(h) + bytes, descriptors);
}

static bool request(int fd, unsigned int descriptors)
{
	struct {
		struct header h;
		uint64_t address, bytes;
	} message = { { 0x8001, DMA_READ, sizeof(message), 0, 0 }, 4096, 4096 };

	return put(fd, &message, sizeof(message), descriptors);
}

/* Without end, or until the client is gone. */
static void flood(int fd, const struct header *to)
{
	uint8_t many[256 * sizeof(struct header)], waste[4096];

	for (size_t i = 0; i < 256; i++) {
		struct header h = { (uint16_t)(to->id + 1), DMA_READ, sizeof(h),
			fault == STRAY_REPLIES ? REPLY : 0, 0 };

		memcpy(many + i * sizeof(h), &h, sizeof(h));
	}
	while (put(fd, many, sizeof(many), 0))
		while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
			;
}

/* False: nothing more comes of this connection. */
static bool answer_wrongly(int fd, const struct header *h, const uint8_t *body, size_t bytes)
{
	static const uint8_t much[MOST_BYTES];
	struct header wrong = *h;

	switch (fault) {
	case TOO_LONG:
	case HEADLESS:
		wrong.id++; /* whatever it answers */
		wrong.bytes = fault == HEADLESS ? 8 : (1u << 20) + 1;
		wrong.flags = REPLY;
		return put(fd, &wrong, sizeof(wrong), 0);
	case LONGER:
		return reply(fd, h, much, sizeof(much), 0);
	case EMPTY:
		return reply(fd, h, NULL, 0, 0);
	case OTHER_ID:
		wrong.id++;
		return reply(fd, &wrong, much, 3000, 0) && reply(fd, &wrong, NULL, 0, 0) &&
			reply(fd, h, body, bytes, 0);
	case OTHER_COMMAND:
		wrong.command = DMA_READ;
		return reply(fd, &wrong, much, 16, 0) && reply(fd, h, body, bytes, 0);
	case REQUESTS:
		return request(fd, 0) && request(fd, 0) && reply(fd, h, body, bytes, 0);
	case DESCRIPTORS:
		return request(fd, 8) && reply(fd, h, body, bytes, 8);
	case REFUSED:
	case NO_ERROR:
	case ODD_ERROR:
	case LONG_ERROR:
		wrong.flags = ERROR;
		wrong.error = fault == NO_ERROR ? 0 : fault == ODD_ERROR ? UINT32_MAX : EBUSY;
		return reply(fd, &wrong, much, fault == LONG_ERROR ? sizeof(much) : 0, 0);
	case HALF:
		put(fd, h, sizeof(*h) / 2, 0);
		return false;
	case SILENCE:
		while (recv(fd, &wrong, 1, 0) > 0)
			;
		return false;
	case STRAY_REPLIES:
	case STRAY_REQUESTS:
		flood(fd, h);
		return false;
	default:
		return false;
	}
}

/*
 * A completion with an id that no command has, in the next place of the ring, as soon as the one
 * before was taken.
 */
static void complete(void)
{
	uint32_t entries = 1u << (registers[offsetof(speckv_regs_t, ADMIN_SIZE) / 4] >> 8 & 0xff);
	/* the arena begins at a multiple of 4 GiB */
	uint32_t at = registers[offsetof(speckv_regs_t, ADMIN_CQ_BASE) / 4];
	struct speckv_cqe *entry =
		(struct speckv_cqe *)(void *)(arena + at) + completions % entries;

	entry->command_id = 0x7ffe;
	atomic_store_explicit((_Atomic uint16_t *)&entry->phase, !(completions++ / entries & 1),
		memory_order_release);
}

static void write_register(uint32_t offset, uint32_t value)
{
	if (offset < REGISTERS)
		registers[offset / 4] = value;
	if (fault == COMPLETIONS &&
		(offset == offsetof(speckv_regs_t, ADMIN_SQ_TAIL) ||
			offset == offsetof(speckv_regs_t, ADMIN_CQ_HEAD)))
		complete();
}

/* What a card says: bytes of `body`. */
static size_t answer_rightly(const struct header *h, const uint8_t *in, int fd, uint8_t *body)
{
	uint64_t offset, bytes = 0x20000;
	uint32_t region, value = SPECKV_PCI_VENDOR_ID | (uint32_t)SPECKV_PCI_DEVICE_ID_CARD << 16;

	memcpy(&offset, in, sizeof(offset));
	memcpy(&region, in + 8, sizeof(region));
	memset(body, 0, MOST_BYTES);
	switch (h->command) {
	case VERSION:
		return 4;
	case GET_REGION:
		memcpy(body + 16, &bytes, sizeof(bytes));
		return 32;
	case DMA_MAP:
		arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		return 0;
	case REGION_WRITE:
		memcpy(&value, in + 16, sizeof(value));
		write_register((uint32_t)offset, value);
		memcpy(body, in, 16);
		return 16;
	default: /* a read: of the configuration space, or of a register, ready and not resetting */
		if (region == 0)
			value = offset == offsetof(speckv_regs_t, STATUS)
				? SPECKV_REGS__STATUS__READY_bm
				: registers[offset % REGISTERS / 4];
		memcpy(body, in, 16);
		memcpy(body + 16, &value, sizeof(value));
		return 16 + sizeof(value);
	}
}

/* The next message but answers, and the descriptor that came with it. */
static bool get(int fd, struct header *h, uint8_t *body, int *sent)
{
	do {
		char control[CMSG_SPACE(sizeof(int))];
		struct iovec iov = { h, sizeof(*h) };
		struct msghdr message = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control) };
		struct cmsghdr *rights;

		if (recvmsg(fd, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*h) ||
			h->bytes > MOST_BYTES)
			return false;
		rights = CMSG_FIRSTHDR(&message);
		if (rights)
			memcpy(sent, CMSG_DATA(rights), sizeof(*sent));
		if (h->bytes > sizeof(*h) &&
			recv(fd, body, h->bytes - sizeof(*h), MSG_WAITALL) !=
				(ssize_t)(h->bytes - sizeof(*h)))
			return false;
	} while ((h->flags & 0xf) == REPLY);
	return true;
}

static void *play(void *unused)
{
	static uint8_t in[MOST_BYTES], body[MOST_BYTES];
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), sent = -1;
	struct header h;
	bool more = fd >= 0;

	(void)unused;
	for (unsigned int n = 0; more && get(fd, &h, in, &sent); n++) {
		size_t bytes = answer_rightly(&h, in, sent, body);

		if (sent >= 0)
			close(sent);
		sent = -1;
		more = fault && fault != COMPLETIONS && n == where
			? answer_wrongly(fd, &h, body, bytes)
			: reply(fd, &h, body, bytes, 0);
	}
	if (fd >= 0)
		close(fd);
	return NULL;
}

/* ---- the client ----------------------------------------------------------------------------- */

/* What the call at which it happens says, and what those after it say. */
static void expected(int *at, int *after)
{
	bool asks = where != ARENA && where != WRITE; /* for something that an empty answer lacks */

	*at = *after = 0;
	switch (fault) {
	case TOO_LONG:
	case LONGER:
	case HEADLESS:
	case LONG_ERROR:
		*at = *after = -EPROTO;
		break;
	case EMPTY:
		*at = *after = asks ? -EPROTO : 0;
		break;
	case REFUSED:
		*at = where == GREETING ? -EPROTO : -EBUSY;
		break;
	case NO_ERROR:
	case ODD_ERROR:
		*at = where == GREETING ? -EPROTO : -EIO;
		break;
	case HALF:
	case END:
		*at = *after = -ECONNRESET;
		break;
	case SILENCE:
	case STRAY_REPLIES:
	case STRAY_REQUESTS:
		*at = *after = -ETIMEDOUT;
		break;
	default:
		break;
	}
}

static bool says(const char *what, int is, int want)
{
	if (is != want)
		fprintf(stderr, "%s at message %d: %s says %d, not %d\n", fault_names[fault], where,
			what, is, want);
	return is == want;
}

static unsigned int descriptors(void)
{
	DIR *list = opendir("/proc/self/fd");
	unsigned int count = 0;

	HOLDS(list);
	while (readdir(list))
		count++;
	closedir(list);
	return count;
}

/* A command whose own completion never comes. */
static void no_completion(struct transport *t)
{
	struct speckv_sqe entry = { .opcode = 1 };
	struct queue queue;
	uint16_t status;

	HOLDS(queue_open_admin(&queue, t, 2) == 0);
	HOLDS(says("a command", queue_call(&queue, &entry, 500000000, NULL, &status), -ETIMEDOUT));
	HOLDS(completions > 8);
}

static void client(void)
{
	struct transport_place place = { -1, path, geteuid() };
	unsigned int before = descriptors(); /* and one for the card's end of the connection */
	int at, after, rc;
	struct transport *t;
	pthread_t card;
	uint32_t value;
	int64_t start;

	expected(&at, &after);
	HOLDS(pthread_create(&card, NULL, play, NULL) == 0);
	start = now_ms();
	rc = transport_open_vfio_user(place, ARENA_BYTES, &t);
	HOLDS(says("opening", rc, where <= ARENA ? at : 0) && !rc == (t != NULL));
	if (t) {
		HOLDS(says("a read", t->ops->read32(t, 0, &value), where == READ ? at : 0));
		HOLDS(says("a write", t->ops->write32(t, 0x40, 7),
			where == WRITE		? at
				: where == READ ? after
						: 0));
		HOLDS(says("the next read", t->ops->read32(t, 0x40, &value),
			where >= READ ? after : 0));
		HOLDS(where >= READ || value == 7);
		HOLDS(fault != END ||
			says("asking whether it is there", t->ops->alive(t), -ECONNRESET));
		if (fault == COMPLETIONS)
			no_completion(t);
		t->ops->close(t);
	}
	HOLDS(now_ms() - start < PATIENT_MS);
	pthread_join(card, NULL);
	HOLDS(descriptors() == before);
}

static pid_t begin(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	pid_t child = fork();

	HOLDS(child >= 0);
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(HANG_S);
	snprintf(path, sizeof(path), "%s/%d-%d", folder, fault, where);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	HOLDS(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
		listen(listener, 1) == 0);
	client();
	unlink(path);
	_exit(0);
}

static bool ended(pid_t child)
{
	int status;

	HOLDS(waitpid(child, &status, 0) == child);
	if (status)
		fprintf(stderr, "%s at message %d: %s %d\n", fault_names[fault], where,
			WIFSIGNALED(status) ? "ended by signal" : "status",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return !status;
}

int main(void)
{
	pid_t slow[8];
	bool good = true;
	unsigned int n = 0;

	HOLDS(mkdtemp(folder));
	/* Those that take as long as the client waits, side by side. */
	for (fault = SILENCE; fault <= STRAY_REQUESTS; fault++)
		for (where = GREETING; where <= READ; where += READ - GREETING)
			slow[n++] = begin();
	for (fault = NONE; fault < SILENCE; fault++)
		for (where = GREETING; where < STAGES; where++)
			good &= ended(begin());
	fault = COMPLETIONS;
	where = GREETING;
	good &= ended(begin());
	n = 0;
	for (fault = SILENCE; fault <= STRAY_REQUESTS; fault++)
		for (where = GREETING; where <= READ; where += READ - GREETING)
			good &= ended(slow[n++]);
	rmdir(folder);
	return good ? 0 : 1;
}

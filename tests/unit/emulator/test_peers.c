// SPDX-License-Identifier: MIT
/*
 * What a vfio-user peer may lend, and how long it may take: what is mapped of it, what is refused,
 * and when its connection ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <speckv_regs.h>

#include "harness.h"

#define MAPS 256 /* as the greeting says */
#define HANG_MS 60000 /* an end that does not come within this does not come */
#define STILL_MS 6000 /* longer than a peer may take for anything */
#define SLOW_MS 300 /* long, and well within what a peer may take */
#define REGION_BAR0 0

enum { VERSION = 1, DMA_MAP = 2, GET_INFO = 4, REGION_READ = 9, REGION_WRITE = 10, DMA_READ = 11 };

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

static struct card_process card = { "", 0 };

static int dial(bool greet)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct {
		struct header header;
		uint16_t major, minor;
	} hello = { { 1, VERSION, sizeof(hello), 0, 0 }, 0, 1 };
	uint8_t answer[512];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/io", card.folder);
	HOLDS(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	if (greet) {
		HOLDS(send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello));
		HOLDS(recv(fd, answer, sizeof(answer), 0) > (ssize_t)sizeof(struct header));
	}
	return fd;
}

/* One DMA_MAP, with a descriptor or without: the error that the card answers. */
static int map(int fd, uint64_t address, uint64_t bytes, int memory, uint64_t offset)
{
	struct {
		struct header header;
		uint32_t argsz, flags;
		uint64_t offset, address, bytes;
	} message = { { 2, DMA_MAP, sizeof(message), 0, 0 }, 32, 3, offset, address, bytes };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr out = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct header answer;

	if (memory >= 0) {
		struct cmsghdr *rights;

		out.msg_control = control;
		out.msg_controllen = sizeof(control);
		rights = CMSG_FIRSTHDR(&out);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &memory, sizeof(memory));
	}
	HOLDS(sendmsg(fd, &out, MSG_NOSIGNAL) == sizeof(message));
	HOLDS(recv(fd, &answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
	return (int)answer.error;
}

static int memory_of(const char *name, uint64_t bytes, int seals)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	HOLDS(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 &&
		(!seals || fcntl(fd, F_ADD_SEALS, seals) == 0));
	return fd;
}

static bool is_mapped(const char *name)
{
	char path[64], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)card.pid);
	maps = fopen(path, "re");
	HOLDS(maps);
	while (fgets(line, sizeof(line), maps))
		found = found || strstr(line, name);
	fclose(maps);
	return found;
}

static void only_memory_that_cannot_shrink_is_mapped(void)
{
	int fd = dial(true), sealed = memory_of("lent-sealed", 1 << 20, F_SEAL_SHRINK),
	    open = memory_of("lent-open", 1 << 20, 0);
	int grown = memory_of("lent-grow", 1 << 20, F_SEAL_GROW);

	HOLDS(map(fd, 0, 1 << 20, sealed, 0) == 0 && is_mapped("lent-sealed"));
	HOLDS(map(fd, 1 << 20, 1 << 20, open, 0) == 0 && !is_mapped("lent-open"));
	HOLDS(map(fd, 2 << 20, 1 << 20, grown, 0) == 0 && !is_mapped("lent-grow"));
	close(fd);
	close(sealed);
	close(open);
	close(grown);
}

static void a_map_beyond_the_end_of_its_file_is_not_made(void)
{
	int fd = dial(true), memory = memory_of("lent-short", 1 << 20, F_SEAL_SHRINK);

	HOLDS(map(fd, 0, 2 << 20, memory, 0) == 0 && !is_mapped("lent-short"));
	HOLDS(map(fd, 4 << 20, 1 << 20, memory, 4096) == 0 && !is_mapped("lent-short"));
	HOLDS(map(fd, 8 << 20, 4096, memory, UINT64_C(1) << 40) == 0 && !is_mapped("lent-short"));
	close(fd);
	close(memory);
}

static void more_memory_than_there_is_in_all_is_refused(void)
{
	int fd = dial(true), memory = memory_of("lent-huge", UINT64_C(1) << 44, F_SEAL_SHRINK);

	HOLDS(map(fd, 0, UINT64_C(1) << 44, memory, 0) == EDQUOT && !is_mapped("lent-huge"));
	HOLDS(map(fd, 0, 1 << 20, memory, 0) == 0 && is_mapped("lent-huge"));
	close(fd);
	close(memory);
}

static void maps_are_apart_and_few(void)
{
	int fd = dial(true);

	for (uint64_t i = 0; i < MAPS; i++) {
		HOLDS(map(fd, i << 20, 1 << 20, -1, 0) == 0);
		if (i == 9) {
			HOLDS(map(fd, 9 << 20, 1 << 20, -1, 0) == EEXIST);
			HOLDS(map(fd, (10 << 20) - 4096, 1 << 20, -1, 0) == EEXIST);
			HOLDS(map(fd, 0, UINT64_C(1) << 40, -1, 0) == EEXIST);
		}
	}
	HOLDS(map(fd, (uint64_t)MAPS << 20, 1 << 20, -1, 0) == ENOSPC);
	close(fd);
}

static void ends(int fd, const char *what)
{
	struct pollfd wait = { .fd = fd, .events = POLLRDHUP };

	if (poll(&wait, 1, HANG_MS) != 1) {
		fprintf(stderr, "the card waits for a peer that %s\n", what);
		exit(1);
	}
	close(fd);
}

static void a_peer_that_never_greets_is_given_up(void)
{
	ends(dial(false), "never greets");
}

static void half_a_message_is_not_waited_for(void)
{
	struct header header = { 3, REGION_READ, 64, 0, 0 };
	int fd = dial(true);

	HOLDS(send(fd, &header, 9, MSG_NOSIGNAL) == 9);
	ends(fd, "never ends its message");
}

static void unread_replies_end_the_connection(void)
{
	struct {
		struct header header;
		uint64_t offset;
		uint32_t region, bytes;
	} read = { { 4, REGION_READ, sizeof(read), 0, 0 }, 0, REGION_BAR0, 4096 };
	int fd = dial(true);

	/* more than a socket holds, and not so much that the card stops to read requests */
	for (int i = 0; i < 100; i++)
		HOLDS(send(fd, &read, sizeof(read), MSG_NOSIGNAL) == sizeof(read));
	ends(fd, "does not read");
}

static void write32(int fd, uint64_t offset, uint32_t value)
{
	struct {
		struct header header;
		uint64_t offset;
		uint32_t region, bytes, value;
	} write = { { 5, REGION_WRITE, sizeof(struct header) + 20, 0, 0 }, offset, REGION_BAR0, 4,
		value };
	struct header answer;
	uint8_t rest[16];

	HOLDS(send(fd, &write, sizeof(struct header) + 20, MSG_NOSIGNAL) ==
		(ssize_t)sizeof(struct header) + 20);
	HOLDS(recv(fd, &answer, sizeof(answer), MSG_WAITALL) == sizeof(answer) && !answer.error);
	HOLDS(recv(fd, rest, sizeof(rest), MSG_WAITALL) == sizeof(rest));
}

#define PAIR(field) \
	(offsetof(speckv_regs_t, QUEUES) + offsetof(speckv_regs__QUEUES__PAIRx__stride40_t, field))

/* Its memory is reached by message: the card asks for the entry of a queue, and hears nothing. */
static int asked_by_message(void)
{
	int fd = dial(true);

	HOLDS(map(fd, 0, 1 << 20, -1, 0) == 0);
	write32(fd, offsetof(speckv_regs_t, CONTROL), SPECKV_REGS__CONTROL__ENABLE_bm);
	write32(fd, PAIR(SQ_BASE), 0x1000);
	write32(fd, PAIR(CQ_BASE), 0x2000);
	write32(fd, PAIR(BUFFER_TABLE), 0x3000);
	write32(fd, PAIR(BUFFER_COUNT), 1);
	write32(fd, PAIR(SIZE), 4 | 5 << 8);
	write32(fd, PAIR(CONTROL), 1);
	write32(fd, offsetof(speckv_regs_t, DOORBELLS), 1);
	return fd;
}

static void a_peer_that_does_not_answer_is_given_up(void)
{
	ends(asked_by_message(), "does not answer");
}

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* The next message of the card, with its body. */
static struct header next(int fd, uint8_t *body, size_t room)
{
	struct header header;

	HOLDS(recv(fd, &header, sizeof(header), MSG_WAITALL) == sizeof(header));
	HOLDS(header.bytes >= sizeof(header) && header.bytes - sizeof(header) <= room);
	HOLDS(header.bytes == sizeof(header) ||
		recv(fd, body, header.bytes - sizeof(header), MSG_WAITALL) ==
			(ssize_t)(header.bytes - sizeof(header)));
	return header;
}

/* The card answers a request; what it asks of the peer's memory before is answered with zeros. */
static void answer_until_served(int fd, unsigned int *asked)
{
	struct header request = { 6, GET_INFO, sizeof(request), 0, 0 }, header;
	uint8_t body[16 + 65536];

	HOLDS(send(fd, &request, sizeof(request), MSG_NOSIGNAL) == sizeof(request));
	while (header = next(fd, body, sizeof(body)), !(header.flags & 1)) {
		uint64_t bytes;

		memcpy(&bytes, body + 8, sizeof(bytes));
		HOLDS(bytes <= sizeof(body) - 16);
		header.bytes =
			(uint32_t)(sizeof(header) + 16 + (header.command == DMA_READ ? bytes : 0));
		header.flags = 1;
		memset(body + 16, 0, sizeof(body) - 16);
		HOLDS(send(fd, &header, sizeof(header), MSG_NOSIGNAL) == sizeof(header));
		HOLDS(send(fd, body, header.bytes - sizeof(header), MSG_NOSIGNAL) ==
			(ssize_t)(header.bytes - sizeof(header)));
		*asked += 1;
	}
	HOLDS(header.id == 6 && header.command == GET_INFO && !(header.flags & 0x20));
}

/*
 * Each step takes a while, and none as long as it may: greeting, the second half of a message, a
 * reply that waits, an answer.
 */
static void a_slow_peer_within_its_times_is_kept(void)
{
	struct {
		struct header header;
		uint16_t major, minor;
	} hello = { { 1, VERSION, sizeof(hello), 0, 0 }, 0, 1 };
	struct {
		struct header header;
		uint64_t offset;
		uint32_t region, bytes;
	} read = { { 4, REGION_READ, sizeof(read), 0, 0 }, 0, REGION_BAR0, 4096 };
	uint8_t body[sizeof(hello) + 4096];
	unsigned int asked = 0;
	int fd = dial(false);

	nap_ms(SLOW_MS);
	HOLDS(send(fd, &hello, 9, MSG_NOSIGNAL) == 9);
	nap_ms(SLOW_MS);
	HOLDS(send(fd, (uint8_t *)&hello + 9, sizeof(hello) - 9, MSG_NOSIGNAL) ==
		(ssize_t)sizeof(hello) - 9);
	HOLDS(next(fd, body, sizeof(body)).command == VERSION);
	HOLDS(send(fd, &read, 20, MSG_NOSIGNAL) == 20);
	nap_ms(SLOW_MS);
	HOLDS(send(fd, (uint8_t *)&read + 20, sizeof(read) - 20, MSG_NOSIGNAL) ==
		(ssize_t)sizeof(read) - 20);
	for (int i = 0; i < 100; i++)
		HOLDS(send(fd, &read, sizeof(read), MSG_NOSIGNAL) == sizeof(read));
	nap_ms(SLOW_MS);
	for (int i = 0; i < 101; i++)
		HOLDS(next(fd, body, sizeof(body)).bytes == sizeof(struct header) + 16 + 4096);
	answer_until_served(fd, &asked);
	close(fd);
	fd = asked_by_message();
	nap_ms(SLOW_MS);
	while (!asked)
		answer_until_served(fd, &asked);
	answer_until_served(fd, &asked);
	close(fd);
}

/* The whole machine stood still; the peer answers after that. */
static void a_card_that_stood_still_gives_its_peers_their_time(void)
{
	int asked_fd = asked_by_message(), other = dial(true), silent = dial(false),
	    line = dial(false);
	unsigned int asked = 0, none = 0;
	struct {
		struct header header;
		uint16_t major, minor;
	} hello = { { 1, VERSION, sizeof(hello), 0, 0 }, 0, 1 };
	uint8_t body[512];

	nap_ms(SLOW_MS); /* it is asked by now */
	HOLDS(kill(card.pid, SIGSTOP) == 0);
	nap_ms(STILL_MS);
	HOLDS(kill(card.pid, SIGCONT) == 0);
	for (int i = 0; i < 10; i++) { /* the card has looked at its clocks since */
		answer_until_served(other, &none);
		nap_ms(20);
	}
	while (!asked)
		answer_until_served(asked_fd, &asked);
	HOLDS(send(line, &hello, sizeof(hello), MSG_NOSIGNAL) == sizeof(hello));
	HOLDS(next(line, body, sizeof(body)).command == VERSION);
	ends(silent, "never greets, after a pause of the card");
	close(asked_fd);
	close(other);
	close(line);
}

int main(int argc, char **argv)
{
	HOLDS(argc == 2);
	card_start(&card, argv[1]);
	only_memory_that_cannot_shrink_is_mapped();
	a_map_beyond_the_end_of_its_file_is_not_made();
	more_memory_than_there_is_in_all_is_refused();
	maps_are_apart_and_few();
	a_peer_that_never_greets_is_given_up();
	half_a_message_is_not_waited_for();
	unread_replies_end_the_connection();
	a_peer_that_does_not_answer_is_given_up();
	a_slow_peer_within_its_times_is_kept();
	a_card_that_stood_still_gives_its_peers_their_time();
	card_lives(&card);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	return 0;
}

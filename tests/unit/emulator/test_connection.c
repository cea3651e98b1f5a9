// SPDX-License-Identifier: MIT
/*
 * One vfio-user connection, by itself: what is announced, refused and held back, and how long a
 * turn takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "emulator/vfio_user.h"

#include "harness.h"

#define HANG_S 60 /* what takes longer than this never ends */
#define REGION_BYTES 131072u
#define COMMAND_BYTES (16u << 20) /* most that one command of a card writes */

enum { VERSION = 1, DMA_MAP = 2, SET_IRQS = 8, REGION_READ = 9 };
enum { REPLY = 1, NO_REPLY = 0x10, ERROR = 0x20 };

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

struct access {
	struct header header;
	uint64_t offset;
	uint32_t region, bytes;
};

static struct {
	unsigned int reads;
	int64_t busy_ns; /* that a read takes */
} device;

static bool no_asynchronous_io;
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

long __wrap_syscall(long number, ...)
{
	long a[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_io_setup && no_asynchronous_io) {
		errno = EAGAIN;
		return -1;
	}
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int region_read(void *unused, unsigned int region, uint64_t offset, void *data,
	uint32_t bytes)
{
	int64_t until = now_ns() + device.busy_ns;

	(void)unused, (void)region, (void)offset;
	device.reads++;
	memset(data, 0x5a, bytes);
	while (now_ns() < until)
		;
	return 0;
}

static int region_write(void *unused, unsigned int region, uint64_t offset, const void *data,
	uint32_t bytes)
{
	(void)unused, (void)region, (void)offset, (void)data, (void)bytes;
	return 0;
}

static void region_info(void *unused, unsigned int region, struct vu_region *info)
{
	(void)unused;
	*info = (struct vu_region){ .bytes = region ? 0 : REGION_BYTES, .fd = -1 };
}

static void nothing(void *unused)
{
	(void)unused;
}

static void dma_unmapped(void *unused, uint64_t address, uint64_t bytes)
{
	(void)unused, (void)address, (void)bytes;
}

static int fine(void *unused)
{
	(void)unused;
	return 0;
}

static const struct vu_ops ops = { region_read, region_write, region_info, dma_unmapped, fine, fine,
	nothing, nothing };

struct both {
	struct vu_connection *card;
	struct vu_user user;
	int peer;
};

/* A reply to the peer, with its body. */
static struct header reply(struct both *b, void *body, size_t room)
{
	struct header header;
	ssize_t n = recv(b->peer, &header, sizeof(header), MSG_DONTWAIT);

	HOLDS(n == sizeof(header) && header.bytes - sizeof(header) <= room);
	n = recv(b->peer, body, header.bytes - sizeof(header), MSG_DONTWAIT);
	HOLDS(header.bytes == sizeof(header) || n == (ssize_t)(header.bytes - sizeof(header)));
	return header;
}

static void open_both(struct both *b)
{
	int ends[2];

	memset(b, 0, sizeof(*b));
	memset(&device, 0, sizeof(device));
	HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	b->user.uid = 1000;
	b->peer = ends[0];
	b->card = vu_open(ends[1], &ops, NULL, 4, &b->user);
	HOLDS(b->card);
}

static void hello(struct both *b, uint16_t major)
{
	struct {
		struct header header;
		uint16_t major, minor;
	} message = { { 1, VERSION, sizeof(message), 0, 0 }, major, 0 };

	HOLDS(send(b->peer, &message, sizeof(message), 0) == sizeof(message));
}

static void greet(struct both *b, char *said, size_t room)
{
	struct header header;

	open_both(b);
	hello(b, 0);
	HOLDS(vu_serve(b->card, 1) == 0);
	header = reply(b, said, room);
	HOLDS(header.command == VERSION && header.flags == REPLY && vu_greeted(b->card));
}

static void close_both(struct both *b)
{
	vu_close(b->card);
	close(b->peer);
	HOLDS(!b->user.mapped_bytes && !b->user.out_bytes);
}

static uint32_t map(struct both *b, uint64_t address, uint64_t bytes, int memory, uint64_t offset)
{
	struct {
		struct header header;
		uint32_t argsz, flags;
		uint64_t offset, address, bytes;
	} message = { { 2, DMA_MAP, sizeof(message), 0, 0 }, 32, 3, offset, address, bytes };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr out = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&out);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &memory, sizeof(memory));
	if (memory < 0)
		out.msg_controllen = 0;
	HOLDS(sendmsg(b->peer, &out, 0) == sizeof(message));
	HOLDS(vu_serve(b->card, 1) == 0);
	return reply(b, NULL, 0).error;
}

static void another_major_version_ends_the_connection(void)
{
	struct both b;

	open_both(&b);
	hello(&b, 1);
	HOLDS(vu_serve(b.card, 1) < 0 && vu_error(b.card));
	HOLDS(reply(&b, NULL, 0).error == EINVAL && !vu_greeted(b.card));
	close_both(&b);
}

static void no_more_is_transferred_than_was_announced(void)
{
	struct access read = { { 3, REGION_READ, sizeof(read), 0, 0 }, 0, 0, 0 };
	uint8_t body[16 + 65536];
	const char *most;
	char said[512];
	struct both b;

	greet(&b, said, sizeof(said));
	most = strstr(said + 4, "\"max_data_xfer_size\":");
	HOLDS(most && sscanf(most, "\"max_data_xfer_size\":%u", &read.bytes) == 1 &&
		read.bytes >= 4096 && read.bytes <= 65536);
	HOLDS(send(b.peer, &read, sizeof(read), 0) == sizeof(read) && vu_serve(b.card, 1) == 0);
	HOLDS(reply(&b, body, sizeof(body)).bytes == sizeof(struct header) + 16 + read.bytes &&
		device.reads == 1);
	read.bytes++;
	HOLDS(send(b.peer, &read, sizeof(read), 0) == sizeof(read) && vu_serve(b.card, 1) == 0);
	HOLDS(reply(&b, body, sizeof(body)).error == EINVAL && device.reads == 1);
	close_both(&b);
}

/*
 * Requests that take long and want no reply: after some tens of microseconds it is another
 * connection's turn.
 */
static void a_turn_ends_however_many_requests_there_are(void)
{
	struct access read = { { 3, REGION_READ, sizeof(read), NO_REPLY, 0 }, 0, 0, 4096 };
	char said[512];
	struct both b;

	greet(&b, said, sizeof(said));
	for (int i = 0; i < 16; i++)
		HOLDS(send(b.peer, &read, sizeof(read), 0) == sizeof(read));
	device.busy_ns = 200000;
	for (unsigned int turn = 1; turn <= 16; turn++) {
		HOLDS(vu_serve(b.card, 16) == 0);
		/* the first receipt brings at least two; then it depends on its time how many */
		HOLDS(device.reads == turn && (turn > 1 || vu_pending(b.card)));
	}
	HOLDS(!vu_pending(b.card));
	close_both(&b);
}

/* Each write of a peer costs a receipt time, however short: a new peer is not read at length. */
static void a_first_receipt_is_short(void)
{
	struct access read = { { 3, REGION_READ, sizeof(read), NO_REPLY, 0 }, 0, 0, 4096 };
	char said[512];
	struct both b;
	int left = 0;

	greet(&b, said, sizeof(said));
	for (unsigned int i = 0; i < 8 * sizeof(read); i++)
		HOLDS(send(b.peer, (char *)&read + i % sizeof(read), 1, 0) == 1);
	HOLDS(vu_serve(b.card, 16) == 0 && ioctl(vu_fd(b.card), FIONREAD, &left) == 0);
	HOLDS(left >= 128);
	for (int i = 0; i < 16 && left; i++)
		HOLDS(vu_serve(b.card, 16) == 0 && ioctl(vu_fd(b.card), FIONREAD, &left) == 0);
	HOLDS(!left);
	close_both(&b);
}

/* Everything that was sent to the peer is taken. */
static unsigned int take_all(struct both *b, uint16_t *ids, unsigned int count)
{
	static uint8_t data[16 + 4096];

	do {
		struct header header;

		HOLDS(vu_flush(b->card) == 0);
		while (recv(b->peer, &header, sizeof(header), MSG_DONTWAIT | MSG_PEEK) ==
			sizeof(header)) {
			size_t have = 0;

			HOLDS(header.bytes <= sizeof(header) + sizeof(data));
			recv(b->peer, &header, sizeof(header), 0);
			while (have < header.bytes - sizeof(header)) {
				ssize_t n = recv(b->peer, data,
					header.bytes - sizeof(header) - have, MSG_DONTWAIT);

				have += n > 0 ? (size_t)n : 0;
				HOLDS(vu_flush(b->card) == 0);
			}
			ids[count++] = header.id;
		}
	} while (vu_events(b->card) & POLLOUT);
	return count;
}

/* A peer that answers late, and does answer, is asked for no more meanwhile, and kept. */
static void messages_that_wait_for_answers_hold_the_device(void)
{
	static uint8_t data[COMMAND_BYTES];
	static uint16_t ids[32768];
	unsigned int count = 0, answered = 0;
	char said[512];
	struct both b;

	greet(&b, said, sizeof(said));
	HOLDS(map(&b, 0, 1 << 30, -1, 0) == 0);
	HOLDS(vu_dma_write(b.card, 0, data, sizeof(data)) == 0);
	count = take_all(&b, ids, count);
	HOLDS(!vu_full(b.card) && !vu_held(b.card)); /* one command may always be under way */
	HOLDS(vu_dma_write(b.card, 0, data, 64) == 0);
	count = take_all(&b, ids, count);
	HOLDS(!vu_full(b.card) && vu_held(b.card));
	HOLDS(vu_dma_write(b.card, 0, data, sizeof(data)) == 0); /* one that had begun already */
	count = take_all(&b, ids, count);
	HOLDS(count == 2 * sizeof(data) / 4096 + 1 && !vu_error(b.card));
	while (answered < count) {
		struct header header = { ids[answered], 12, sizeof(header), REPLY, 0 };

		if (send(b.peer, &header, sizeof(header), 0) == sizeof(header))
			answered++;
		HOLDS(vu_serve(b.card, 64) == 0); /* it is held, and heard */
	}
	while (vu_pending(b.card))
		HOLDS(vu_serve(b.card, 64) == 0);
	HOLDS(vu_serve(b.card, 64) == 0 && !vu_held(b.card) && vu_deadline_ms(b.card) == INT64_MAX);
	close_both(&b);
}

/* The kernel maps a huge page whole, and takes no part of it away again. */
static void a_part_of_a_huge_page_is_not_mapped(void)
{
	const uint64_t huge = 2u << 20;
	int memory = memfd_create("lent-huge-page",
		MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | 21u << 26);
	char said[512];
	struct both b;

	if (memory < 0 || ftruncate(memory, 2 * huge) != 0 ||
		fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
		printf("no huge pages of 2 MiB here: not tried\n");
		return;
	}
	greet(&b, said, sizeof(said));
	HOLDS(map(&b, 0, 4096, memory, 0) == 0 && !vu_dma_pointer(b.card, 0, 1, true) &&
		!b.user.mapped_bytes);
	HOLDS(map(&b, huge, huge, memory, 4096) == 0 && !vu_dma_pointer(b.card, huge, 1, true) &&
		!b.user.mapped_bytes);
	HOLDS(map(&b, 4 * huge, huge + 4096, memory, 0) == 0 &&
		!vu_dma_pointer(b.card, 4 * huge, 1, true) && !b.user.mapped_bytes);
	if (map(&b, 8 * huge, huge, memory, huge) == 0) /* where the machine has one to give */
		HOLDS(vu_dma_pointer(b.card, 8 * huge, huge, true) && b.user.mapped_bytes == huge);
	close_both(&b);
	close(memory);
}

/* What this process was late is not counted against the peer. */
static void a_delay_of_ours_moves_what_the_peer_may_take(void)
{
	int64_t deadline;
	struct both b;

	open_both(&b);
	deadline = vu_deadline_ms(b.card);
	HOLDS(deadline < INT64_MAX);
	vu_delay(b.card, 5000);
	HOLDS(vu_deadline_ms(b.card) == deadline + 5000);
	HOLDS(vu_expire(b.card, deadline + 4999) == 0);
	HOLDS(vu_expire(b.card, deadline + 5000) == -ETIMEDOUT);
	close_both(&b);
}

static void arm(struct both *b, int fd)
{
	struct {
		struct header header;
		uint32_t set[5];
	} message = { { 4, SET_IRQS, sizeof(message), 0, 0 }, { 20, 4 | 0x20, VU_MSIX, 0, 1 } };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr out = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&out);

	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
	HOLDS(sendmsg(b->peer, &out, 0) == sizeof(message) && vu_serve(b->card, 1) == 0);
	HOLDS(reply(b, NULL, 0).error == 0);
}

/*
 * Its counter is full, and its sender makes it block again: with and without what the kernel needs
 * to count it up.
 */
static void an_interrupt_waits_for_nothing(void)
{
	uint64_t most = 0xfffffffffffffffe, count;
	int full = eventfd(0, EFD_CLOEXEC);
	char said[512];
	struct both b;

	HOLDS(full >= 0 && write(full, &most, sizeof(most)) == sizeof(most));
	greet(&b, said, sizeof(said));
	arm(&b, full);
	HOLDS(fcntl(full, F_SETFL, 0) == 0);
	no_asynchronous_io = true;
	HOLDS(vu_begin() == -EAGAIN);
	no_asynchronous_io = false;
	vu_interrupt(b.card, 0);
	HOLDS(vu_begin() == 0);
	for (int i = 0; i < 100; i++)
		vu_interrupt(b.card, 0);
	HOLDS(read(full, &count, sizeof(count)) == sizeof(count) && count >= most);
	vu_interrupt(b.card, 0);
	HOLDS(read(full, &count, sizeof(count)) == sizeof(count) && count == 1);
	close_both(&b);
	close(full);
}

int main(void)
{
	alarm(HANG_S);
	an_interrupt_waits_for_nothing();
	another_major_version_ends_the_connection();
	no_more_is_transferred_than_was_announced();
	a_turn_ends_however_many_requests_there_are();
	a_first_receipt_is_short();
	messages_that_wait_for_answers_hold_the_device();
	a_part_of_a_huge_page_is_not_mapped();
	a_delay_of_ours_moves_what_the_peer_may_take();
	return 0;
}

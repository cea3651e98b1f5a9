// SPDX-License-Identifier: MIT
/*
 * hostile_peers SPECKV-EMU [SECONDS]: a client that behaves puts and gets blocks, alone, then
 * beside 64 peers of every kind that vfio-user allows: silent, half a header, a message without
 * end, a greeting and nothing more, maps too large, overlapping or at the end of all addresses,
 * descriptors that are not sealed, cut or full of holes, answers to memory messages late, never,
 * wrong or unasked, floods of requests, with replies and without, replies that are not read,
 * greetings of other versions and byte by byte, descriptors by the hundred, doorbells, full queues,
 * invalidations of what is held, connections that come and go. (Descriptors that do not close:
 * test_unclosed.c.)
 *
 * Nothing of the client fails, who administers the card is let in, and the card lives. Prints what
 * the client waited at the median and at the 99th percentile, alone and beside them, and the ratio,
 * which depends on how many cores there are for all.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <speckv_regs.h>

#include "harness.h"

#define PEERS 64
#define ROUNDS_MOST 400000u
#define PAUSE_NS 200000 /* between two puts of the client that behaves */

enum {
	VERSION = 1,
	DMA_MAP,
	DMA_UNMAP,
	GET_INFO,
	GET_REGION,
	GET_REGION_FDS,
	GET_IRQ,
	SET_IRQS,
	REGION_READ,
	REGION_WRITE,
	DMA_READ,
	DMA_WRITE,
	RESET,
	DIRTY_PAGES
};

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};

struct dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, bytes;
};

static char folder[128];
static unsigned int hostile_pool;
static uint8_t hostile_uuid[16];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

/* ---- a peer's tools: every call may fail, for the card may have hung up --------------------- */

static int dial(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 1 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%.20s", folder, name);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	nap_ms(5);
	return -1;
}

static bool send_fds(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes,
	const int *fds, unsigned int count)
{
	static uint16_t id;
	char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
	struct header header = { (uint16_t)(id++ & 0x7fff), (uint16_t)command,
		(uint32_t)(sizeof(header) + bytes), flags, 0 };
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)(uintptr_t)body, bytes } };
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2 };

	if (count) {
		struct cmsghdr *rights;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		rights = CMSG_FIRSTHDR(&message);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + bytes);
}

static bool send_one(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes)
{
	return send_fds(fd, command, flags, body, bytes, NULL, 0);
}

static bool receive(int fd, struct header *header, uint8_t *body, size_t room)
{
	size_t want;

	if (recv(fd, header, sizeof(*header), MSG_WAITALL) != sizeof(*header) ||
		header->bytes < sizeof(*header))
		return false;
	for (want = header->bytes - sizeof(*header); want;) {
		uint8_t waste[4096];
		size_t n = room		       ? (want < room ? want : room)
			: want < sizeof(waste) ? want
					       : sizeof(waste);
		ssize_t got = recv(fd, room ? body : waste, n, MSG_WAITALL);

		if (got <= 0)
			return false;
		want -= (size_t)got;
		if (room) {
			body += got;
			room -= (size_t)got;
		}
	}
	return true;
}

/* The reply to a request; messages of the card's own that come before it are left unanswered. */
static bool ask(int fd, unsigned int command, const void *body, size_t bytes, const int *fds,
	unsigned int count)
{
	struct header header;

	if (!send_fds(fd, command, 0, body, bytes, fds, count))
		return false;
	do
		if (!receive(fd, &header, NULL, 0))
			return false;
	while ((header.flags & 15) != 1);
	return !(header.flags & 0x20);
}

static int greeted(void)
{
	static const char hello[] = "\0\0\0\0{}";
	int fd = dial("io");

	if (fd >= 0 && !ask(fd, VERSION, hello, sizeof(hello), NULL, 0)) {
		close(fd);
		fd = -1;
		nap_ms(20);
	}
	return fd;
}

static int memory(off_t bytes, bool sealed)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	HOLDS(fd >= 0 && ftruncate(fd, bytes) == 0);
	if (sealed)
		HOLDS(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	return fd;
}

static bool map(int fd, uint64_t address, uint64_t bytes, int memory_fd)
{
	struct dma_map body = { sizeof(body), 3, 0, address, bytes };

	return ask(fd, DMA_MAP, &body, sizeof(body), &memory_fd, memory_fd >= 0 ? 1 : 0);
}

static bool write32(int fd, uint64_t offset, uint32_t value, uint32_t flags)
{
	struct {
		uint64_t offset;
		uint32_t region, bytes, value;
	} __attribute__((packed)) body = { offset, 0, 4, value };

	return flags ? send_one(fd, REGION_WRITE, flags, &body, sizeof(body))
		     : ask(fd, REGION_WRITE, &body, sizeof(body), NULL, 0);
}

/* Queue pairs whose rings lie at `base`; `entries` of the submission ring are said to be there. */
static bool queues(int fd, unsigned int pairs, uint64_t base, uint32_t entries)
{
	bool good = write32(fd, offsetof(speckv_regs_t, CONTROL), 1, 0);

	for (unsigned int q = 0; good && q < pairs; q++) {
		uint64_t at = offsetof(speckv_regs_t, QUEUES) +
			q * sizeof(speckv_regs__QUEUES__PAIRx__stride40_t),
			 ring = base + q * 0x40000;
		const uint32_t set[][2] = { { 0x00, (uint32_t)ring },
			{ 0x04, (uint32_t)(ring >> 32) }, { 0x08, (uint32_t)ring + 0x20000 },
			{ 0x0c, (uint32_t)(ring >> 32) }, { 0x20, 10 | 11 << 8 } };

		for (unsigned int i = 0; good && i < sizeof(set) / sizeof(set[0]); i++)
			good = write32(fd, at + set[i][0], set[i][1], 0);
		good = good && write32(fd, at + 0x24, 1, 0) &&
			write32(fd, offsetof(speckv_regs_t, DOORBELLS) + q * 64, entries, 0x10);
	}
	return good && write32(fd, offsetof(speckv_regs_t, KICK), 0, 0x10);
}

static void drain(int fd)
{
	uint8_t waste[65536];

	while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
}

/* ---- kinds: each call is one life of a peer ------------------------------------------------- */

static void silent(int n)
{
	int fd = dial("io");

	nap_ms(200 + n);
	close(fd);
}

static void half_a_header(int n)
{
	int fd = dial("io");

	send(fd, "\1\0\1\0\20", 5, MSG_NOSIGNAL);
	nap_ms(200 + n);
	close(fd);
}

static void a_message_without_end(int n)
{
	int fd = greeted();
	struct header header = { 1, REGION_WRITE, 1u << 20, 0, 0 };

	send(fd, &header, sizeof(header), MSG_NOSIGNAL);
	for (int i = 0; i < 20 && fd >= 0; i++) {
		send(fd, "x", 1, MSG_NOSIGNAL);
		nap_ms(20);
	}
	close(fd);
}

static void greets_only(int n)
{
	int fd = greeted();

	nap_ms(400);
	close(fd);
}

static void lengths_that_lie(int n)
{
	static const uint32_t lengths[] = { 0, 15, 17, 0xffffffff, 1u << 20, (1u << 20) + 4096 };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct header header = { 1, GET_INFO, lengths[i], 0, 0 };
		int fd = i & 1 ? greeted() : dial("io");

		send(fd, &header, sizeof(header), MSG_NOSIGNAL);
		nap_ms(2);
		close(fd);
	}
}

static void huge_maps(int n)
{
	int fd = greeted(), memory_fd = memory(1ll << 46, true);

	for (uint64_t at = 1u << 20, bytes = 1ull << 46; bytes >= 4096 && fd >= 0; at += bytes)
		if (!map(fd, at, bytes, memory_fd))
			bytes >>= 1;
	nap_ms(50);
	close(fd);
	close(memory_fd);
}

static void overlapping_and_wrapping_maps(int n)
{
	int fd = greeted(), memory_fd = memory(1 << 20, true);

	if (fd >= 0) {
		HOLDS(!map(fd, 0xfffffffffffff000ull, 0x2000, memory_fd)); /* past the end */
		if (map(fd, 0xfffffffffffff000ull, 0x1000, memory_fd)) /* up to the end */
			HOLDS(!map(fd, 0xfffffffffffff800ull, 0x400, memory_fd));
		map(fd, 0x10000, 0x10000, memory_fd);
		map(fd, 0x18000, 0x10000, memory_fd);
		map(fd, 0, 0, memory_fd);
		map(fd, 0x100000, 1ull << 62, -1);
	}
	close(fd);
	close(memory_fd);
}

static void many_maps(int n)
{
	int fd = greeted(), memory_fd = memory(1 << 20, true);

	for (uint64_t i = 0; i < 300 && fd >= 0; i++)
		map(fd, i << 24, 4096, i & 1 ? memory_fd : -1);
	close(fd);
	close(memory_fd);
}

/*
 * Not sealed, and cut when the card has it; or sealed, and its pages taken out again and again
 * while the card works there.
 */
static void memory_that_goes_away(int n)
{
	int fd = greeted(), memory_fd = memory(16 << 20, n & 1);

	if (fd >= 0 && map(fd, 0x100000, 16 << 20, memory_fd) && queues(fd, 4, 0x100000, 900))
		for (int i = 0; i < 50; i++) {
			if (n & 1)
				fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					16 << 20);
			else if (ftruncate(memory_fd, i & 1 ? 16 << 20 : 0) != 0)
				break;
			drain(fd);
			nap_ms(2);
		}
	close(fd);
	close(memory_fd);
}

/* Rings are read by message; each answer is late, wrong, or never comes. */
static void answers_to_memory_messages(int n)
{
	int fd = greeted();
	uint8_t body[16 + 65536];
	struct header header;

	if (fd >= 0 && map(fd, 0x100000, 1 << 24, -1) && queues(fd, 16, 0x100000, 900))
		for (int i = 0; i < 60 && receive(fd, &header, body, sizeof(body)); i++) {
			uint64_t bytes = 0;

			if (header.flags & 15)
				continue;
			memcpy(&bytes, body + 8, sizeof(bytes));
			header.flags = n % 4 == 2 ? 0x21 : 1;
			header.error = n % 4 == 2 ? EIO : 0;
			header.bytes = (uint32_t)(sizeof(header) + 16 +
				(header.command == DMA_READ && n % 4 != 3 ? bytes % 65536 : 0));
			memset(body + 16, i, sizeof(body) - 16);
			if (n % 4 == 1) /* never */
				continue;
			nap_ms(n % 4 ? 1 : 30);
			if (send(fd, &header, sizeof(header), MSG_NOSIGNAL | MSG_MORE) < 0 ||
				send(fd, body, header.bytes - sizeof(header), MSG_NOSIGNAL) < 0)
				break;
		}
	close(fd);
}

static void answers_to_nothing(int n)
{
	int fd = greeted();
	uint8_t body[4112] = { 0 };

	for (unsigned int i = 0; i < 2000 && fd >= 0; i++) {
		struct header header = { (uint16_t)(0x8000 | i), DMA_READ + (i & 1),
			sizeof(header) + sizeof(body), 1 | (i & 2 ? 0x20 : 0), 5 };

		if (send(fd, &header, sizeof(header), MSG_NOSIGNAL) < 0 ||
			send(fd, body, sizeof(body), MSG_NOSIGNAL) < 0)
			break;
	}
	close(fd);
}

/* Requests as fast as they go; what comes back is thrown away, or left. */
static void flood(int n)
{
	static const uint16_t commands[] = { REGION_READ, DIRTY_PAGES, 99, GET_INFO, REGION_WRITE,
		SET_IRQS, RESET, GET_REGION };
	int fd = greeted();
	struct {
		uint64_t offset;
		uint32_t region, bytes;
		uint8_t data[16];
	} body = { 0, 7, 64, { 0 } };
	uint8_t batch[64 * (sizeof(struct header) + 32)];
	size_t at = 0;
	double until = now() + 0.4;

	for (unsigned int i = 0; i < 64; i++) {
		struct header header = { (uint16_t)i, commands[(unsigned int)n % 8],
			(uint32_t)(sizeof(header) + sizeof(body)), 0, 0 };

		memcpy(batch + at, &header, sizeof(header));
		memcpy(batch + at + sizeof(header), &body, sizeof(body));
		at += sizeof(header) + sizeof(body);
	}
	while (fd >= 0 && now() < until && send(fd, batch, at, MSG_NOSIGNAL) > 0)
		if (n & 8)
			drain(fd);
	if (!(n & 8))
		nap_ms(300);
	close(fd);
}

static void descriptors(int n)
{
	int fd = greeted(), fds[253];
	uint32_t irqs[5] = { 20, 4 | 0x20, 2, 0, 16 };

	for (unsigned int i = 0; i < 253; i++)
		fds[i] = eventfd(0xfffffffe, 0);
	for (unsigned int i = 0; i < 60 && fd >= 0; i++)
		if (!send_fds(fd, i & 1 ? SET_IRQS : GET_INFO, 0, irqs, sizeof(irqs), fds,
			    i % 3 ? 253 : 16))
			break;
	for (unsigned int i = 0; i < 253; i++)
		close(fds[i]);
	close(fd);
}

/* Interrupts over a counter that is full and blocks, which sender and card share. */
static void interrupts_that_block(int n)
{
	int fd = greeted(), full = eventfd(0, 0);
	uint64_t most = 0xfffffffffffffffe;
	uint32_t set[5] = { 20, 4 | 0x20, 2, 0, 1 }, test[5] = { 20, 1 | 0x20, 2, 0, 1 };

	HOLDS(write(full, &most, sizeof(most)) == sizeof(most));
	if (fd >= 0 && ask(fd, SET_IRQS, set, sizeof(set), &full, 1))
		for (int i = 0; i < 20; i++) {
			fcntl(full, F_SETFL, 0);
			if (!ask(fd, SET_IRQS, test, sizeof(test), NULL, 0))
				break;
		}
	close(fd);
	close(full);
}

static void doorbells(int n)
{
	int fd = greeted(), memory_fd = memory(16 << 20, true);
	double until = now() + 0.3;

	if (fd >= 0 && map(fd, 0x100000, 16 << 20, memory_fd) && queues(fd, 16, 0x100000, 1))
		for (uint32_t i = 0; now() < until; i++)
			if (!write32(fd, offsetof(speckv_regs_t, DOORBELLS) + i % 32 * 32, i % 2048,
				    0x10) ||
				(i % 64 == 0 &&
					!write32(fd, offsetof(speckv_regs_t, KICK), 0, 0x10)))
				break;
	close(fd);
	close(memory_fd);
}

/* A user with rights to the pool that the hostile ones share. */
static bool tenant(struct io *io)
{
	struct card_process card = { "", 0 };
	struct speckv_ioc_pool open = { .size = sizeof(open),
		.flags = SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE };

	snprintf(card.folder, sizeof(card.folder), "%s", folder);
	if (!io_try(io, &card)) {
		nap_ms(20);
		return false;
	}
	memcpy(open.uuid, hostile_uuid, sizeof(open.uuid));
	HOLDS(io->transport->ops->driver(io->transport, SPECKV_IOC_POOL_OPEN, &open,
		      sizeof(open)) == 0);
	return true;
}

/* Its queues are never empty. */
static void full_queues(int n)
{
	struct io io;
	struct speckv_cqe done;
	double until = now() + 1;

	if (!tenant(&io))
		return;
	for (uint16_t id = 0; now() < until;) {
		struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ,
			.pool = (uint16_t)hostile_pool,
			.address = 0,
			.buffer_offset = 1 << 20,
			.capacity = BLOCK_BYTES,
			.generation = 1 };
		uint64_t number = 1;

		memcpy(read.key_prefix, &number, sizeof(number));
		while (queue_room(&io.queue)) {
			read.command_id = id++ % 1024;
			queue_put(&io.queue, &read);
		}
		queue_ring(&io.queue);
		while (queue_reap(&io.queue, &done))
			;
		sched_yield();
	}
	io.transport->ops->close(io.transport);
}

/*
 * Blocks that one holds and does not give up, and many invalidations of all of them, which wait for
 * that.
 */
static void invalidations_that_wait(int n)
{
	const uint64_t first = 8 + (uint64_t)n % 16, address = first * 66 * 1024;
	struct speckv_cmd_range hold = { .opcode = SPECKV_IO_ACQUIRE_SHARED,
		.pool = (uint16_t)hostile_pool,
		.address = address,
		.bytes = 66 * 1024,
		.generation = (uint64_t)n + 1 };
	struct speckv_cmd_range all = { .opcode = SPECKV_IO_INVALIDATE,
		.pool = (uint16_t)hostile_pool,
		.address = 8 * 66 * 1024,
		.bytes = 6u << 20 };
	struct speckv_cqe done;
	struct io holder, other;
	double until = now() + 1;

	if (!tenant(&holder))
		return;
	if (io_write(&holder, hostile_pool, first, address, (uint64_t)n + 1) == SPECKV_STATUS_OK)
		queue_call(&holder.queue, &hold, 5000000000ull, NULL, NULL);
	if (tenant(&other)) {
		for (uint16_t id = 0; now() < until;) {
			while (queue_room(&other.queue)) {
				all.command_id = id++ % 1024;
				queue_put(&other.queue, &all);
			}
			queue_ring(&other.queue);
			while (queue_reap(&other.queue, &done))
				;
			nap_ms(1);
		}
		other.transport->ops->close(other.transport);
	}
	holder.transport->ops->close(holder.transport);
}

static void comes_and_goes(int n)
{
	double until = now() + 0.3;

	while (now() < until) {
		int fd = n & 1 ? greeted() : dial("io");

		if (fd >= 0)
			close(fd);
	}
}

static void idle_control(int n)
{
	int fd = dial("control");

	nap_ms(300);
	close(fd);
}

/* Versions that do not exist, as many as go into the socket. */
static void greetings_of_another_version(int n)
{
	double until = now() + 0.3;

	while (now() < until) {
		int fd = dial("io");

		for (int i = 0; i < 1000 && fd >= 0; i++)
			if (!send_one(fd, VERSION, n & 1 ? 0x10 : 0, "\1\0\0\0", 4))
				break;
		close(fd);
	}
}

/* A greeting that is always about to end. */
static void greetings_byte_by_byte(int n)
{
	int fd = dial("io");
	struct header header = { 1, VERSION, 4096, 0, 0 };
	double until = now() + 0.4;

	send(fd, &header, sizeof(header), MSG_NOSIGNAL);
	for (int i = 0; i < 4000 && now() < until && fd >= 0; i++)
		if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
			break;
	close(fd);
}

/* Little to send, much to do, nothing to read. */
static void work_without_replies(int n)
{
	int fd = greeted(), fds[16];
	uint32_t irqs[5] = { 20, 4 | 0x20, 2, 0, 16 }, trigger[5] = { 20, 1 | 0x20, 2, 0, 16 };
	struct {
		uint64_t offset;
		uint32_t region, bytes;
	} read = { 0, 0, n & 2 ? 131072 : 4096 };
	double until = now() + 0.4;

	for (unsigned int i = 0; i < 16; i++)
		fds[i] = eventfd(0, 0);
	if (fd >= 0 && ask(fd, SET_IRQS, irqs, sizeof(irqs), fds, 16))
		while (now() < until)
			if (!(n & 1 ? send_one(fd, SET_IRQS, 0x10, trigger, sizeof(trigger))
				    : send_one(fd, REGION_READ, 0x10, &read, sizeof(read))))
				break;
	for (unsigned int i = 0; i < 16; i++)
		close(fds[i]);
	close(fd);
}

static void (*const kinds[])(int) = {
	silent,
	half_a_header,
	a_message_without_end,
	greets_only,
	lengths_that_lie,
	huge_maps,
	overlapping_and_wrapping_maps,
	many_maps,
	memory_that_goes_away,
	memory_that_goes_away,
	answers_to_memory_messages,
	answers_to_memory_messages,
	answers_to_memory_messages,
	answers_to_memory_messages,
	answers_to_nothing,
	flood,
	flood,
	flood,
	flood,
	flood,
	descriptors,
	interrupts_that_block,
	doorbells,
	full_queues,
	comes_and_goes,
	comes_and_goes,
	idle_control,
	silent,
	greets_only,
	full_queues,
	greetings_of_another_version,
	greetings_byte_by_byte,
	work_without_replies,
	work_without_replies,
	work_without_replies,
	invalidations_that_wait,
};

static void peer(int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
	/* it is the card that they are hostile to, not the scheduler */
	setpriority(PRIO_PROCESS, 0, 15);
	signal(SIGPIPE, SIG_IGN);
	for (int life = 0;; life++)
		kinds[n % (int)(sizeof(kinds) / sizeof(kinds[0]))](n + life);
}

/* A peer only ends when something that it relies on did not hold. */
static void still_there(pid_t pid, int n)
{
	int status = 0;

	if (waitpid(pid, &status, WNOHANG) == 0)
		return;
	fprintf(stderr, "hostile peer %d of kind %d ended: %s %d\n", n,
		n % (int)(sizeof(kinds) / sizeof(kinds[0])),
		WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	exit(1);
}

/* ---- the client that behaves ---------------------------------------------------------------- */

static int earlier(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct waited {
	double median, p99;
	unsigned int rounds;
};

static struct waited traffic(struct io *io, unsigned int pool, double seconds)
{
	static double took[ROUNDS_MOST];
	static uint64_t generation = 10;
	struct waited waited = { 0 };
	double until = now() + seconds;

	while ((now() < until || waited.rounds < 100) && waited.rounds < ROUNDS_MOST) {
		uint64_t n = generation++, address = n % 16 * 66 * 1024;
		struct speckv_cmd_range range = { .opcode = SPECKV_IO_INVALIDATE,
			.pool = (uint16_t)pool,
			.address = address,
			.bytes = 66 * 1024 };
		uint16_t status = 0;
		double start = now();

		HOLDS(queue_call(&io->queue, &range, 60000000000ull, NULL, &status) == 0 ||
			status == SPECKV_STATUS_NOT_FOUND);
		status = io_write(io, pool, n, address, n);
		if (status)
			fprintf(stderr, "put: %s\n", status_text(status));
		HOLDS(status == SPECKV_STATUS_OK);
		HOLDS(io_read(io, pool, n, address, n) == SPECKV_STATUS_OK);
		took[waited.rounds++] = now() - start;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
	qsort(took, waited.rounds, sizeof(*took), earlier);
	waited.median = took[waited.rounds / 2];
	waited.p99 = took[waited.rounds - 1 - waited.rounds / 100];
	return waited;
}

/*
 * A process that others of the machine do not take the processor from: what is measured is the
 * card. With two cores for 64 peers the scheduler alone makes 3 ms of the slowest rounds.
 */
static bool ahead(pid_t pid)
{
	return sched_setscheduler(pid, SCHED_FIFO, &(struct sched_param){ 1 }) == 0;
}

int main(int argc, char **argv)
{
	struct card_process card = { "", 0 };
	double seconds = argc > 2 ? atof(argv[2]) : 4;
	struct waited alone, beside;
	pid_t peers[PEERS];
	bool scheduled;
	struct admin admin, second;
	struct io io, late, filler;
	uint8_t uuid[16];
	unsigned int pool;

	HOLDS(argc >= 2);
	card_start(&card, argv[1]);
	scheduled = ahead(card.pid) && ahead(0);
	snprintf(folder, sizeof(folder), "%s", card.folder);
	admin_open(&admin, &card);
	pool = admin_create_pool(&admin, "good", 8 << 20, uuid);
	hostile_pool = admin_create_pool(&admin, "shared", 8 << 20, hostile_uuid);
	io_open(&filler, &card);
	admin_grant(&admin, hostile_pool, hostile_uuid, filler.function,
		SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	HOLDS(io_write(&filler, hostile_pool, 1, 0, 1) == SPECKV_STATUS_OK);
	io_close(&filler);
	io_open(&io, &card);
	admin_grant(&admin, pool, uuid, io.function, SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE);
	traffic(&io, pool, 0.2);
	alone = traffic(&io, pool, seconds);
	for (int n = 0; n < PEERS; n++) {
		peers[n] = fork();
		HOLDS(peers[n] >= 0);
		if (!peers[n])
			peer(n);
	}
	nap_ms(500);
	beside = traffic(&io, pool, seconds);
	/* who administers the card gets in, and so does another client */
	admin_open(&second, &card);
	HOLDS(admin_find_pool(&second, "good") == pool);
	admin_close(&second);
	io_open(&late, &card);
	admin_grant(&admin, pool, uuid, late.function, SPECKV_RIGHT_READ);
	io_close(&late);
	beside.rounds += traffic(&io, pool, seconds / 4).rounds;
	HOLDS(admin_find_pool(&admin, "good") == pool);
	for (int n = 0; n < PEERS; n++) {
		still_there(peers[n], n);
		kill(peers[n], SIGKILL);
		waitpid(peers[n], NULL, 0);
	}
	card_lives(&card);
	traffic(&io, pool, 0.1);
	io_close(&io);
	admin_close(&admin);
	card_kill(&card, SIGTERM);
	card_clean(&card);
	printf("alone %u rounds: median %.1f us, p99 %.1f us; beside %d hostile peers %u rounds: median %.1f us, p99 %.1f us\n",
		alone.rounds, alone.median * 1e6, alone.p99 * 1e6, PEERS, beside.rounds,
		beside.median * 1e6, beside.p99 * 1e6);
	printf("p99 ratio %.2f, failed 0 (%s)\n", beside.p99 / alone.p99,
		scheduled ? "card and client before others in the scheduler"
			  : "waits for the processor are in it: no permission to be before others");
	return 0;
}

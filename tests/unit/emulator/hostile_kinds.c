// SPDX-License-Identifier: MIT
/* The kinds of hostile peers: each call is one life of a peer. */
#include "hostile_peers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <speckv_regs.h>

char hostile_folder[128];
unsigned int hostile_pool;
uint8_t hostile_uuid[16];

static void silent(int n)
{
	int fd = hostile_dial("io");

	hostile_nap_ms(200 + n);
	close(fd);
}

static void half_a_header(int n)
{
	int fd = hostile_dial("io");

	send(fd, "\1\0\1\0\20", 5, MSG_NOSIGNAL);
	hostile_nap_ms(200 + n);
	close(fd);
}

static void a_message_without_end(int n)
{
	int fd = hostile_greeted();
	struct hostile_header header = { 1, REGION_WRITE, 1u << 20, 0, 0 };

	send(fd, &header, sizeof(header), MSG_NOSIGNAL);
	for (int i = 0; i < 20 && fd >= 0; i++) {
		send(fd, "x", 1, MSG_NOSIGNAL);
		hostile_nap_ms(20);
	}
	close(fd);
}

static void greets_only(int n)
{
	int fd = hostile_greeted();

	hostile_nap_ms(400);
	close(fd);
}

static void lengths_that_lie(int n)
{
	static const uint32_t lengths[] = { 0, 15, 17, 0xffffffff, 1u << 20, (1u << 20) + 4096 };

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct hostile_header header = { 1, GET_INFO, lengths[i], 0, 0 };
		int fd = i & 1 ? hostile_greeted() : hostile_dial("io");

		send(fd, &header, sizeof(header), MSG_NOSIGNAL);
		hostile_nap_ms(2);
		close(fd);
	}
}

static void huge_maps(int n)
{
	int fd = hostile_greeted(), memory_fd = hostile_memory(1ll << 46, true);

	for (uint64_t at = 1u << 20, bytes = 1ull << 46; bytes >= 4096 && fd >= 0; at += bytes)
		if (!hostile_map(fd, at, bytes, memory_fd))
			bytes >>= 1;
	hostile_nap_ms(50);
	close(fd);
	close(memory_fd);
}

static void overlapping_and_wrapping_maps(int n)
{
	int fd = hostile_greeted(), memory_fd = hostile_memory(1 << 20, true);

	if (fd >= 0) {
		HOLDS(!hostile_map(fd, 0xfffffffffffff000ull, 0x2000,
			memory_fd)); /* past the end */
		if (hostile_map(fd, 0xfffffffffffff000ull, 0x1000, memory_fd)) /* up to the end */
			HOLDS(!hostile_map(fd, 0xfffffffffffff800ull, 0x400, memory_fd));
		hostile_map(fd, 0x10000, 0x10000, memory_fd);
		hostile_map(fd, 0x18000, 0x10000, memory_fd);
		hostile_map(fd, 0, 0, memory_fd);
		hostile_map(fd, 0x100000, 1ull << 62, -1);
	}
	close(fd);
	close(memory_fd);
}

static void many_maps(int n)
{
	int fd = hostile_greeted(), memory_fd = hostile_memory(1 << 20, true);

	for (uint64_t i = 0; i < 300 && fd >= 0; i++)
		hostile_map(fd, i << 24, 4096, i & 1 ? memory_fd : -1);
	close(fd);
	close(memory_fd);
}

/*
 * Not sealed, and cut when the card has it; or sealed, and its pages taken out again and again
 * while the card works there.
 */
static void memory_that_goes_away(int n)
{
	int fd = hostile_greeted(), memory_fd = hostile_memory(16 << 20, n & 1);

	if (fd >= 0 && hostile_map(fd, 0x100000, 16 << 20, memory_fd) &&
		hostile_queues(fd, 4, 0x100000, 900))
		for (int i = 0; i < 50; i++) {
			if (n & 1)
				fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
					16 << 20);
			else if (ftruncate(memory_fd, i & 1 ? 16 << 20 : 0) != 0)
				break;
			hostile_drain(fd);
			hostile_nap_ms(2);
		}
	close(fd);
	close(memory_fd);
}

/* Rings are read by message; each answer is late, wrong, or never comes. */
static void answers_to_memory_messages(int n)
{
	int fd = hostile_greeted();
	uint8_t body[16 + 65536];
	struct hostile_header header;

	if (fd >= 0 && hostile_map(fd, 0x100000, 1 << 24, -1) &&
		hostile_queues(fd, 16, 0x100000, 900))
		for (int i = 0; i < 60 && hostile_receive(fd, &header, body, sizeof(body)); i++) {
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
			hostile_nap_ms(n % 4 ? 1 : 30);
			if (send(fd, &header, sizeof(header), MSG_NOSIGNAL | MSG_MORE) < 0 ||
				send(fd, body, header.bytes - sizeof(header), MSG_NOSIGNAL) < 0)
				break;
		}
	close(fd);
}

static void answers_to_nothing(int n)
{
	int fd = hostile_greeted();
	uint8_t body[4112] = { 0 };

	for (unsigned int i = 0; i < 2000 && fd >= 0; i++) {
		struct hostile_header header = { (uint16_t)(0x8000 | i), DMA_READ + (i & 1),
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
	int fd = hostile_greeted();
	struct {
		uint64_t offset;
		uint32_t region, bytes;
		uint8_t data[16];
	} body = { 0, 7, 64, { 0 } };
	uint8_t batch[64 * (sizeof(struct hostile_header) + 32)];
	size_t at = 0;
	double until = hostile_now() + 0.4;

	for (unsigned int i = 0; i < 64; i++) {
		struct hostile_header header = { (uint16_t)i, commands[(unsigned int)n % 8],
			(uint32_t)(sizeof(header) + sizeof(body)), 0, 0 };

		memcpy(batch + at, &header, sizeof(header));
		memcpy(batch + at + sizeof(header), &body, sizeof(body));
		at += sizeof(header) + sizeof(body);
	}
	while (fd >= 0 && hostile_now() < until && send(fd, batch, at, MSG_NOSIGNAL) > 0)
		if (n & 8)
			hostile_drain(fd);
	if (!(n & 8))
		hostile_nap_ms(300);
	close(fd);
}

static void descriptors(int n)
{
	int fd = hostile_greeted(), fds[253];
	uint32_t irqs[5] = { 20, 4 | 0x20, 2, 0, 16 };

	for (unsigned int i = 0; i < 253; i++)
		fds[i] = eventfd(0xfffffffe, 0);
	for (unsigned int i = 0; i < 60 && fd >= 0; i++)
		if (!hostile_send_fds(fd, i & 1 ? SET_IRQS : GET_INFO, 0, irqs, sizeof(irqs), fds,
			    i % 3 ? 253 : 16))
			break;
	for (unsigned int i = 0; i < 253; i++)
		close(fds[i]);
	close(fd);
}

/* Interrupts over a counter that is full and blocks, which sender and card share. */
static void interrupts_that_block(int n)
{
	int fd = hostile_greeted(), full = eventfd(0, 0);
	uint64_t most = 0xfffffffffffffffe;
	uint32_t set[5] = { 20, 4 | 0x20, 2, 0, 1 }, test[5] = { 20, 1 | 0x20, 2, 0, 1 };

	HOLDS(write(full, &most, sizeof(most)) == sizeof(most));
	if (fd >= 0 && hostile_ask(fd, SET_IRQS, set, sizeof(set), &full, 1))
		for (int i = 0; i < 20; i++) {
			fcntl(full, F_SETFL, 0);
			if (!hostile_ask(fd, SET_IRQS, test, sizeof(test), NULL, 0))
				break;
		}
	close(fd);
	close(full);
}

static void doorbells(int n)
{
	int fd = hostile_greeted(), memory_fd = hostile_memory(16 << 20, true);
	double until = hostile_now() + 0.3;

	if (fd >= 0 && hostile_map(fd, 0x100000, 16 << 20, memory_fd) &&
		hostile_queues(fd, 16, 0x100000, 1))
		for (uint32_t i = 0; hostile_now() < until; i++)
			if (!hostile_write32(fd, offsetof(speckv_regs_t, DOORBELLS) + i % 32 * 32,
				    i % 2048, 0x10) ||
				(i % 64 == 0 &&
					!hostile_write32(fd, offsetof(speckv_regs_t, KICK), 0,
						0x10)))
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

	snprintf(card.folder, sizeof(card.folder), "%s", hostile_folder);
	if (!io_try(io, &card)) {
		hostile_nap_ms(20);
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
	double until = hostile_now() + 1;

	if (!tenant(&io))
		return;
	for (uint16_t id = 0; hostile_now() < until;) {
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
	double until = hostile_now() + 1;

	if (!tenant(&holder))
		return;
	if (io_write(&holder, hostile_pool, first, address, (uint64_t)n + 1) == SPECKV_STATUS_OK)
		queue_call(&holder.queue, &hold, 5000000000ull, NULL, NULL);
	if (tenant(&other)) {
		for (uint16_t id = 0; hostile_now() < until;) {
			while (queue_room(&other.queue)) {
				all.command_id = id++ % 1024;
				queue_put(&other.queue, &all);
			}
			queue_ring(&other.queue);
			while (queue_reap(&other.queue, &done))
				;
			hostile_nap_ms(1);
		}
		other.transport->ops->close(other.transport);
	}
	holder.transport->ops->close(holder.transport);
}

static void comes_and_goes(int n)
{
	double until = hostile_now() + 0.3;

	while (hostile_now() < until) {
		int fd = n & 1 ? hostile_greeted() : hostile_dial("io");

		if (fd >= 0)
			close(fd);
	}
}

static void idle_control(int n)
{
	int fd = hostile_dial("control");

	hostile_nap_ms(300);
	close(fd);
}

/* Versions that do not exist, as many as go into the socket. */
static void greetings_of_another_version(int n)
{
	double until = hostile_now() + 0.3;

	while (hostile_now() < until) {
		int fd = hostile_dial("io");

		for (int i = 0; i < 1000 && fd >= 0; i++)
			if (!hostile_send(fd, VERSION, n & 1 ? 0x10 : 0, "\1\0\0\0", 4))
				break;
		close(fd);
	}
}

/* A greeting that is always about to end. */
static void greetings_byte_by_byte(int n)
{
	int fd = hostile_dial("io");
	struct hostile_header header = { 1, VERSION, 4096, 0, 0 };
	double until = hostile_now() + 0.4;

	send(fd, &header, sizeof(header), MSG_NOSIGNAL);
	for (int i = 0; i < 4000 && hostile_now() < until && fd >= 0; i++)
		if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
			break;
	close(fd);
}

/* Little to send, much to do, nothing to read. */
static void work_without_replies(int n)
{
	int fd = hostile_greeted(), fds[16];
	uint32_t irqs[5] = { 20, 4 | 0x20, 2, 0, 16 }, trigger[5] = { 20, 1 | 0x20, 2, 0, 16 };
	struct {
		uint64_t offset;
		uint32_t region, bytes;
	} read = { 0, 0, n & 2 ? 131072 : 4096 };
	double until = hostile_now() + 0.4;

	for (unsigned int i = 0; i < 16; i++)
		fds[i] = eventfd(0, 0);
	if (fd >= 0 && hostile_ask(fd, SET_IRQS, irqs, sizeof(irqs), fds, 16))
		while (hostile_now() < until)
			if (!(n & 1 ? hostile_send(fd, SET_IRQS, 0x10, trigger, sizeof(trigger))
				    : hostile_send(fd, REGION_READ, 0x10, &read, sizeof(read))))
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

int hostile_kind(int n)
{
	return n % (int)(sizeof(kinds) / sizeof(kinds[0]));
}

void hostile_peer(int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){ 0 });
	/* it is the card that they are hostile to, not the scheduler */
	setpriority(PRIO_PROCESS, 0, 15);
	signal(SIGPIPE, SIG_IGN);
	for (int life = 0;; life++)
		kinds[hostile_kind(n)](n + life);
}

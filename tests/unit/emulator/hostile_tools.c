// SPDX-License-Identifier: MIT
/* A hostile peer's side of vfio-user. */
#include "hostile_peers.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <speckv_regs.h>

struct dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, bytes;
};

double hostile_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void hostile_nap_ms(long ms)
{
	nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

int hostile_dial(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 1 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%.80s/%.20s", hostile_folder, name);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	hostile_nap_ms(5);
	return -1;
}

bool hostile_send_fds(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes,
	const int *fds, unsigned int count)
{
	static uint16_t id;
	char control[CMSG_SPACE(253 * sizeof(int))] = { 0 };
	struct hostile_header header = { (uint16_t)(id++ & 0x7fff), (uint16_t)command,
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

bool hostile_send(int fd, unsigned int command, uint32_t flags, const void *body, size_t bytes)
{
	return hostile_send_fds(fd, command, flags, body, bytes, NULL, 0);
}

bool hostile_receive(int fd, struct hostile_header *header, uint8_t *body, size_t room)
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

bool hostile_ask(int fd, unsigned int command, const void *body, size_t bytes, const int *fds,
	unsigned int count)
{
	struct hostile_header header;

	if (!hostile_send_fds(fd, command, 0, body, bytes, fds, count))
		return false;
	do
		if (!hostile_receive(fd, &header, NULL, 0))
			return false;
	while ((header.flags & 15) != 1);
	return !(header.flags & 0x20);
}

int hostile_greeted(void)
{
	static const char hello[] = "\0\0\0\0{}";
	int fd = hostile_dial("io");

	if (fd >= 0 && !hostile_ask(fd, VERSION, hello, sizeof(hello), NULL, 0)) {
		close(fd);
		fd = -1;
		hostile_nap_ms(20);
	}
	return fd;
}

int hostile_memory(off_t bytes, bool sealed)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	HOLDS(fd >= 0 && ftruncate(fd, bytes) == 0);
	if (sealed)
		HOLDS(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	return fd;
}

bool hostile_map(int fd, uint64_t address, uint64_t bytes, int memory_fd)
{
	struct dma_map body = { sizeof(body), 3, 0, address, bytes };

	return hostile_ask(fd, DMA_MAP, &body, sizeof(body), &memory_fd, memory_fd >= 0 ? 1 : 0);
}

bool hostile_write32(int fd, uint64_t offset, uint32_t value, uint32_t flags)
{
	struct {
		uint64_t offset;
		uint32_t region, bytes, value;
	} __attribute__((packed)) body = { offset, 0, 4, value };

	return flags ? hostile_send(fd, REGION_WRITE, flags, &body, sizeof(body))
		     : hostile_ask(fd, REGION_WRITE, &body, sizeof(body), NULL, 0);
}

bool hostile_queues(int fd, unsigned int pairs, uint64_t base, uint32_t entries)
{
	bool good = hostile_write32(fd, offsetof(speckv_regs_t, CONTROL), 1, 0);

	for (unsigned int q = 0; good && q < pairs; q++) {
		uint64_t at = offsetof(speckv_regs_t, QUEUES) +
			q * sizeof(speckv_regs__QUEUES__PAIRx__stride40_t),
			 ring = base + q * 0x40000;
		const uint32_t set[][2] = { { 0x00, (uint32_t)ring },
			{ 0x04, (uint32_t)(ring >> 32) }, { 0x08, (uint32_t)ring + 0x20000 },
			{ 0x0c, (uint32_t)(ring >> 32) }, { 0x20, 10 | 11 << 8 } };

		for (unsigned int i = 0; good && i < sizeof(set) / sizeof(set[0]); i++)
			good = hostile_write32(fd, at + set[i][0], set[i][1], 0);
		good = good && hostile_write32(fd, at + 0x24, 1, 0) &&
			hostile_write32(fd, offsetof(speckv_regs_t, DOORBELLS) + q * 64, entries,
				0x10);
	}
	return good && hostile_write32(fd, offsetof(speckv_regs_t, KICK), 0, 0x10);
}

void hostile_drain(int fd)
{
	uint8_t waste[65536];

	while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
}

// SPDX-License-Identifier: MIT
#include "vfio_user.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { VERSION = 1, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION, GET_REGION_FDS, GET_IRQ, SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET };

#define TYPE_MASK 0xfu
#define REPLY 1u
#define NO_REPLY 0x10u
#define ERROR 0x20u
#define MESSAGE_BYTES (VU_TRANSFER_BYTES + 64)
#define FDS 16                 /* of one message */
#define OUT_BYTES (8u << 20)   /* replies that may wait for a peer that does not read */
#define DMA_TIMEOUT_MS 500

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};
_Static_assert(sizeof(struct header) == 16, "vfio-user header");

struct mapping {
	uint64_t address, bytes;
	uint8_t *memory; /* NULL: by message */
	bool read, write;
};

struct vu_connection {
	int fd;
	const struct vu_ops *ops;
	void *device;
	unsigned int vectors;
	bool greeted;
	int error; /* why it is over */
	uint16_t next_id;
	struct mapping maps[VU_DMA_MAPS];
	unsigned int map_count;
	int irq[VU_VECTORS];
	/* in */
	uint8_t *in;
	size_t in_bytes;
	int fds[FDS];
	unsigned int fd_count;
	bool with_fds;  /* the message being handled came with them */
	size_t fd_end; /* bytes of `in` up to here had come when the descriptors did: they belong to the message that ends it */
	/* out: bytes [out_first, out_first + out_bytes) of a growing buffer; descriptors go with the message they belong to */
	uint8_t *out;
	size_t out_first, out_bytes, out_capacity;
	/* the reply that a DMA message waits for */
	bool waiting;
	uint16_t wait_id;
	uint8_t *wait_body;
	size_t wait_bytes;
	int wait_result; /* 1: still waiting */
	/* messages that came while waiting are handled after it */
	unsigned int depth;
};

struct vu_connection *vu_open(int fd, const struct vu_ops *ops, void *device, unsigned int vectors)
{
	struct vu_connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->in = malloc(MESSAGE_BYTES);
	if (!c->in) {
		free(c);
		return NULL;
	}
	c->fd = fd;
	c->ops = ops;
	c->device = device;
	c->vectors = vectors < VU_VECTORS ? vectors : VU_VECTORS;
	for (unsigned int i = 0; i < VU_VECTORS; i++)
		c->irq[i] = -1;
	return c;
}

static void close_fds(struct vu_connection *c)
{
	for (unsigned int i = 0; i < c->fd_count; i++)
		if (c->fds[i] >= 0)
			close(c->fds[i]);
	c->fd_count = 0;
}

void vu_close(struct vu_connection *c)
{
	if (!c)
		return;
	close_fds(c);
	for (unsigned int i = 0; i < c->map_count; i++)
		if (c->maps[i].memory)
			munmap(c->maps[i].memory, c->maps[i].bytes);
	for (unsigned int i = 0; i < VU_VECTORS; i++)
		if (c->irq[i] >= 0)
			close(c->irq[i]);
	close(c->fd);
	free(c->in);
	free(c->out);
	free(c);
}

int vu_fd(const struct vu_connection *c)
{
	return c->fd;
}

short vu_events(const struct vu_connection *c)
{
	return (short)(POLLIN | (c->out_bytes ? POLLOUT : 0));
}

static int over(struct vu_connection *c, int error)
{
	if (!c->error)
		c->error = error;
	return c->error;
}

/* ---- out --------------------------------------------------------------------------------------------------------- */

static int flush(struct vu_connection *c)
{
	while (c->out_bytes) {
		ssize_t n = send(c->fd, c->out + c->out_first, c->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : over(c, -ECONNRESET);
		c->out_first += (size_t)n;
		c->out_bytes -= (size_t)n;
	}
	c->out_first = 0;
	return 0;
}

static int queue(struct vu_connection *c, const void *data, size_t bytes)
{
	if (c->out_first + c->out_bytes + bytes > c->out_capacity) {
		size_t want = c->out_bytes + bytes;
		uint8_t *grown;

		if (want > OUT_BYTES)
			return over(c, -ENOBUFS); /* it asks and does not read */
		if (c->out_bytes)
			memmove(c->out, c->out + c->out_first, c->out_bytes);
		c->out_first = 0;
		if (want > c->out_capacity) {
			grown = realloc(c->out, want + 65536);
			if (!grown)
				return over(c, -ENOMEM);
			c->out = grown;
			c->out_capacity = want + 65536;
		}
	}
	memcpy(c->out + c->out_first + c->out_bytes, data, bytes);
	c->out_bytes += bytes;
	return 0;
}

/* A message, with at most one descriptor. */
static int post(struct vu_connection *c, const struct header *header, const void *body, size_t bytes, int fd)
{
	if (fd >= 0) { /* a descriptor rides on bytes of its own message: everything before must be out */
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec iov[2] = { { (void *)(uintptr_t)header, sizeof(*header) }, { (void *)(uintptr_t)body, bytes } };
		struct msghdr message = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control) };
		struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		ssize_t n;

		if (flush(c) || c->out_bytes)
			return over(c, -ENOBUFS);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
		n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		return n == (ssize_t)(sizeof(*header) + bytes) ? 0 : over(c, -ECONNRESET);
	}
	if (queue(c, header, sizeof(*header)) || (bytes && queue(c, body, bytes)))
		return c->error;
	return flush(c);
}

static int reply_with(struct vu_connection *c, const struct header *to, const void *body, size_t bytes, int fd)
{
	struct header header = { to->id, to->command, (uint32_t)(sizeof(header) + bytes), REPLY, 0 };

	return to->flags & NO_REPLY ? 0 : post(c, &header, body, bytes, fd);
}

static int reply(struct vu_connection *c, const struct header *to, const void *body, size_t bytes)
{
	return reply_with(c, to, body, bytes, -1);
}

static int refuse(struct vu_connection *c, const struct header *to, int error)
{
	struct header header = { to->id, to->command, sizeof(header), REPLY | ERROR, (uint32_t)-error };

	return to->flags & NO_REPLY ? 0 : post(c, &header, NULL, 0, -1);
}

/* ---- memory of the peer ---------------------------------------------------------------------------------------------- */

static struct mapping *mapping_at(struct vu_connection *c, uint64_t address)
{
	for (unsigned int i = 0; i < c->map_count; i++)
		if (address >= c->maps[i].address && address - c->maps[i].address < c->maps[i].bytes)
			return &c->maps[i];
	return NULL;
}

void *vu_dma_pointer(struct vu_connection *c, uint64_t address, uint64_t bytes, bool write)
{
	struct mapping *m = mapping_at(c, address);

	if (!m || !m->memory || bytes > m->bytes - (address - m->address) || (write ? !m->write : !m->read))
		return NULL;
	return m->memory + (address - m->address);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int receive(struct vu_connection *c);
static int handle_all(struct vu_connection *c, bool replies_only);

/* Ask the peer, and wait for its answer; other messages of this peer stay where they are until then. */
static int ask(struct vu_connection *c, unsigned int command, const void *body, size_t bytes, void *answer, size_t answer_bytes)
{
	struct header header = { (uint16_t)(0x8000u | (c->next_id++ & 0x7fffu)), (uint16_t)command, (uint32_t)(sizeof(header) + bytes), 0, 0 };
	int64_t until = now_ms() + DMA_TIMEOUT_MS;

	if (c->error || c->waiting)
		return c->error ? c->error : -EBUSY;
	if (post(c, &header, body, bytes, -1))
		return c->error;
	c->waiting = true;
	c->wait_id = header.id;
	c->wait_body = answer;
	c->wait_bytes = answer_bytes;
	c->wait_result = 1;
	while (c->wait_result == 1 && !c->error) {
		struct pollfd poll_fd = { c->fd, vu_events(c), 0 };
		int64_t left = until - now_ms();

		if (handle_all(c, true) || c->wait_result != 1)
			break;
		if (left <= 0 || poll(&poll_fd, 1, (int)left) == 0) {
			over(c, -ETIMEDOUT);
			break;
		}
		if (poll_fd.revents & POLLOUT)
			flush(c);
		receive(c);
	}
	c->waiting = false;
	return c->error ? c->error : c->wait_result;
}

static int transfer(struct vu_connection *c, uint64_t address, uint8_t *data, uint64_t bytes, bool write)
{
	while (bytes) {
		struct mapping *m = mapping_at(c, address);
		uint64_t n, chunk = 4096;
		int rc;

		if (!m || (write ? !m->write : !m->read))
			return -EFAULT;
		n = m->bytes - (address - m->address);
		n = n < bytes ? n : bytes;
		if (m->memory) {
			if (write)
				memcpy(m->memory + (address - m->address), data, n);
			else
				memcpy(data, m->memory + (address - m->address), n);
		} else {
			uint8_t message[16 + 4096];

			n = n < chunk ? n : chunk;
			memcpy(message, &address, 8);
			memcpy(message + 8, &n, 8);
			if (write) {
				memcpy(message + 16, data, n);
				rc = ask(c, DMA_WRITE, message, 16 + n, NULL, 0);
			} else {
				uint8_t answer[16 + 4096];

				rc = ask(c, DMA_READ, message, 16, answer, 16 + n);
				if (!rc)
					memcpy(data, answer + 16, n);
			}
			if (rc)
				return rc;
		}
		address += n;
		data += n;
		bytes -= n;
	}
	return 0;
}

int vu_dma_read(struct vu_connection *c, uint64_t address, void *data, uint64_t bytes)
{
	return transfer(c, address, data, bytes, false);
}

int vu_dma_write(struct vu_connection *c, uint64_t address, const void *data, uint64_t bytes)
{
	return transfer(c, address, (uint8_t *)(uintptr_t)data, bytes, true);
}

void vu_interrupt(struct vu_connection *c, unsigned int vector)
{
	uint64_t one = 1;

	if (vector < c->vectors && c->irq[vector] >= 0 && write(c->irq[vector], &one, sizeof(one)) < 0) {
		/* a full counter is a signal as well; anything else is the peer's loss */
	}
}

/* ---- messages -------------------------------------------------------------------------------------------------------- */

struct dma_map {
	uint32_t argsz, flags;
	uint64_t offset, address, bytes;
};

/* Memory that its owner can cut under us is not mapped: it is read and written by message. */
static bool sealed(int fd, uint64_t offset, uint64_t bytes)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	return seals >= 0 && seals & F_SEAL_SHRINK && fstat(fd, &st) == 0 && st.st_size >= 0 && offset <= (uint64_t)st.st_size &&
	       bytes <= (uint64_t)st.st_size - offset;
}

static int dma_map(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	struct dma_map map;
	struct mapping *m;

	if (bytes < sizeof(map))
		return refuse(c, h, -EINVAL);
	memcpy(&map, body, sizeof(map));
	if (map.argsz < sizeof(map) || map.flags & ~3u || !map.flags || !map.bytes || map.address + map.bytes - 1 < map.address || map.bytes > 1ull << 46 ||
	    map.offset > 1ull << 62)
		return refuse(c, h, -EINVAL);
	if (c->map_count == VU_DMA_MAPS)
		return refuse(c, h, -ENOSPC);
	for (unsigned int i = 0; i < c->map_count; i++)
		if (map.address < c->maps[i].address + c->maps[i].bytes && c->maps[i].address < map.address + map.bytes)
			return refuse(c, h, -EEXIST);
	m = &c->maps[c->map_count];
	*m = (struct mapping){ .address = map.address, .bytes = map.bytes, .read = map.flags & 1, .write = map.flags & 2 };
	if (c->with_fds && sealed(c->fds[0], map.offset, map.bytes)) {
		m->memory = mmap(NULL, map.bytes, (m->read ? PROT_READ : 0) | (m->write ? PROT_WRITE : 0), MAP_SHARED, c->fds[0], (off_t)map.offset);
		if (m->memory == MAP_FAILED)
			return refuse(c, h, -errno);
	}
	c->map_count++;
	return reply(c, h, NULL, 0);
}

static int dma_unmap(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	struct {
		uint32_t argsz, flags;
		uint64_t address, bytes;
	} unmap;

	if (bytes < sizeof(unmap))
		return refuse(c, h, -EINVAL);
	memcpy(&unmap, body, sizeof(unmap));
	for (unsigned int i = 0; i < c->map_count; i++) {
		struct mapping *m = &c->maps[i];

		if (m->address != unmap.address || m->bytes != unmap.bytes)
			continue;
		c->ops->dma_unmapped(c->device, m->address, m->bytes);
		if (m->memory)
			munmap(m->memory, m->bytes);
		*m = c->maps[--c->map_count];
		return reply(c, h, &unmap, sizeof(unmap));
	}
	return refuse(c, h, -ENOENT);
}

static int get_region(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	struct {
		uint32_t argsz, flags, index, cap_offset;
		uint64_t bytes, offset;
		uint16_t cap_id, cap_version; /* VFIO_REGION_INFO_CAP_SPARSE_MMAP */
		uint32_t cap_next, areas, reserved;
		uint64_t area_offset, area_bytes;
	} info;
	struct vu_region region = { .fd = -1 };
	uint32_t index, room;

	if (bytes < 32)
		return refuse(c, h, -EINVAL);
	memcpy(&room, body, 4);
	memcpy(&index, body + 8, 4);
	if (index >= VU_REGIONS)
		return refuse(c, h, -EINVAL);
	memset(&info, 0, sizeof(info));
	c->ops->region_info(c->device, index, &region);
	info.argsz = 32;
	info.index = index;
	info.bytes = region.bytes;
	if (region.bytes)
		info.flags = 1u | (region.writable ? 2u : 0) | (region.fd >= 0 ? 4u : 0);
	if (region.fd >= 0 && region.mmap_bytes) { /* only a part may be mapped */
		info.flags |= 8u;
		info.argsz = sizeof(info);
		if (room >= sizeof(info)) {
			info.cap_offset = 32;
			info.cap_id = 1;
			info.cap_version = 1;
			info.areas = 1;
			info.area_offset = region.mmap_offset;
			info.area_bytes = region.mmap_bytes;
		}
	}
	return reply_with(c, h, &info, info.cap_offset ? sizeof(info) : 32, region.fd);
}

static int set_irqs(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	struct {
		uint32_t argsz, flags, index, start, count;
	} set;
	unsigned int given_fds;

	if (bytes < sizeof(set))
		return refuse(c, h, -EINVAL);
	memcpy(&set, body, sizeof(set));
	if (set.index >= VU_IRQ_TYPES)
		return refuse(c, h, -EINVAL);
	if (set.index != VU_MSIX || !(set.flags & 0x20)) /* only MSI-X is there, and only triggers can be set */
		return set.count ? refuse(c, h, -EINVAL) : reply(c, h, NULL, 0);
	if (set.start > c->vectors || set.count > c->vectors - set.start)
		return refuse(c, h, -EINVAL);
	if (set.flags & 1 && set.count == 0) { /* all off */
		for (unsigned int i = 0; i < VU_VECTORS; i++)
			if (c->irq[i] >= 0) {
				close(c->irq[i]);
				c->irq[i] = -1;
			}
		return reply(c, h, NULL, 0);
	}
	if (set.flags & 1) { /* a test: trigger them */
		for (uint32_t i = 0; i < set.count; i++)
			vu_interrupt(c, set.start + i);
		return reply(c, h, NULL, 0);
	}
	given_fds = c->with_fds ? c->fd_count : 0;
	if (!(set.flags & 4) || given_fds > set.count)
		return refuse(c, h, -EINVAL);
	for (uint32_t i = 0; i < set.count; i++) {
		unsigned int vector = set.start + i;
		bool given = i < given_fds;

		/* a descriptor that could block us is not taken */
		if (given && fcntl(c->fds[i], F_SETFL, O_NONBLOCK) != 0)
			return refuse(c, h, -errno);
		if (c->irq[vector] >= 0)
			close(c->irq[vector]);
		c->irq[vector] = given ? c->fds[i] : -1;
		if (given)
			c->fds[i] = -1;
	}
	return reply(c, h, NULL, 0);
}

struct access {
	uint64_t offset;
	uint32_t region, bytes;
};

static int region_access(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	struct vu_region region = { .fd = -1 };
	struct access access;
	uint8_t *answer;
	int rc;

	if (bytes < sizeof(access))
		return refuse(c, h, -EINVAL);
	memcpy(&access, body, sizeof(access));
	if (access.region >= VU_REGIONS || access.bytes > VU_TRANSFER_BYTES || (h->command == REGION_WRITE && bytes - sizeof(access) < access.bytes))
		return refuse(c, h, -EINVAL);
	c->ops->region_info(c->device, access.region, &region);
	if (access.offset > region.bytes || access.bytes > region.bytes - access.offset)
		return refuse(c, h, -EINVAL);
	if (h->command == REGION_WRITE) {
		/* the data is the message's own, and the reply goes first: QEMU answers no DMA while it waits for one */
		rc = reply(c, h, &access, sizeof(access));
		if (!rc && access.bytes)
			c->ops->region_write(c->device, access.region, access.offset, body + sizeof(access), access.bytes);
		return rc;
	}
	answer = malloc(sizeof(access) + access.bytes);
	if (!answer)
		return refuse(c, h, -ENOMEM);
	memcpy(answer, &access, sizeof(access));
	memset(answer + sizeof(access), 0, access.bytes);
	rc = c->ops->region_read(c->device, access.region, access.offset, answer + sizeof(access), access.bytes);
	rc = rc ? refuse(c, h, rc) : reply(c, h, answer, sizeof(access) + access.bytes);
	free(answer);
	return rc;
}

static int version(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	static const char capabilities[] = "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"pgsizes\":4096,\"max_dma_maps\":256}}";
	uint8_t answer[4 + sizeof(capabilities)] = { 0 };
	uint16_t major;

	if (bytes < 4)
		return over(c, -EPROTO);
	memcpy(&major, body, 2);
	if (major != 0)
		return refuse(c, h, -EINVAL);
	c->greeted = true;
	memcpy(answer + 4, capabilities, sizeof(capabilities));
	return reply(c, h, answer, sizeof(answer));
}

static int get_irq(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	uint32_t info[4] = { 16, 0, 0, 0 };

	if (bytes < 16)
		return refuse(c, h, -EINVAL);
	memcpy(&info[2], body + 8, 4);
	if (info[2] >= VU_IRQ_TYPES)
		return refuse(c, h, -EINVAL);
	info[1] = info[2] == VU_MSIX ? 1 : 0; /* eventfd */
	info[3] = info[2] == VU_MSIX ? c->vectors : 0;
	return reply(c, h, info, sizeof(info));
}

static int handle(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	static const uint32_t info[4] = { 16, 1 | 2, VU_REGIONS, VU_IRQ_TYPES }; /* reset, PCI */

	if (!c->greeted && h->command != VERSION)
		return over(c, -EPROTO);
	switch (h->command) {
	case VERSION:
		return version(c, h, body, bytes);
	case DMA_MAP:
		return dma_map(c, h, body, bytes);
	case DMA_UNMAP:
		return dma_unmap(c, h, body, bytes);
	case GET_INFO:
		return reply(c, h, info, sizeof(info));
	case GET_REGION:
		return get_region(c, h, body, bytes);
	case GET_IRQ:
		return get_irq(c, h, body, bytes);
	case SET_IRQS:
		return set_irqs(c, h, body, bytes);
	case REGION_READ:
	case REGION_WRITE:
		return region_access(c, h, body, bytes);
	case RESET: {
		int rc = c->ops->reset(c->device);

		return rc ? refuse(c, h, rc) : reply(c, h, NULL, 0);
	}
	default:
		return refuse(c, h, -EOPNOTSUPP);
	}
}

static void answered(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes)
{
	if (!c->waiting || h->id != c->wait_id) /* late, or never asked for */
		return;
	if (h->flags & ERROR || bytes < c->wait_bytes) {
		c->wait_result = -EFAULT;
		return;
	}
	if (c->wait_bytes)
		memcpy(c->wait_body, body, c->wait_bytes);
	c->wait_result = 0;
}

/* ---- in -------------------------------------------------------------------------------------------------------------- */

static int receive(struct vu_connection *c)
{
	char control[CMSG_SPACE(FDS * sizeof(int))];
	struct iovec iov = { c->in + c->in_bytes, MESSAGE_BYTES - c->in_bytes };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n;

	if (c->error || !iov.iov_len)
		return c->error;
	n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : over(c, -ECONNRESET);
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
		size_t count = at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS ? (at->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof(fd));
			if (c->fd_count < FDS)
				c->fds[c->fd_count++] = fd;
			else
				close(fd);
		}
	}
	if (n == 0)
		return over(c, -ECONNRESET);
	if (message.msg_flags & MSG_CTRUNC)
		return over(c, -EPROTO);
	c->in_bytes += (size_t)n;
	if (c->fd_count)
		c->fd_end = c->in_bytes;
	return 0;
}

/* Take a message out of the middle of what came in. */
static void consume(struct vu_connection *c, size_t at, size_t bytes)
{
	c->in_bytes -= bytes;
	memmove(c->in + at, c->in + at + bytes, c->in_bytes - at);
	c->fd_end = c->fd_end > bytes ? c->fd_end - bytes : 0;
}

/* Handle the whole messages that are there. replies_only: a DMA message waits; take its answer out, leave requests in their order. */
static int handle_all(struct vu_connection *c, bool replies_only)
{
	size_t at = 0;

	while (!c->error && c->in_bytes - at >= sizeof(struct header)) {
		struct header h;
		size_t body;

		memcpy(&h, c->in + at, sizeof(h));
		if (h.bytes < sizeof(h) || h.bytes > MESSAGE_BYTES)
			return over(c, -EPROTO);
		if (c->in_bytes - at < h.bytes)
			break;
		body = h.bytes - sizeof(h);
		if ((h.flags & TYPE_MASK) == REPLY) {
			answered(c, &h, c->in + at + sizeof(h), body);
		} else if (replies_only) {
			at += h.bytes;
			continue;
		} else {
			uint8_t *copy = malloc(body ? body : 1); /* a request may make us receive more into `in` */

			if (!copy)
				return over(c, -ENOMEM);
			memcpy(copy, c->in + at + sizeof(h), body);
			c->with_fds = c->fd_count && c->fd_end <= at + h.bytes; /* sent with this message, not a later one */
			consume(c, at, h.bytes);
			handle(c, &h, copy, body);
			if (c->with_fds)
				close_fds(c);
			c->with_fds = false;
			free(copy);
			continue;
		}
		consume(c, at, h.bytes);
		if (replies_only && c->wait_result != 1)
			break;
	}
	return c->error;
}

int vu_serve(struct vu_connection *c)
{
	if (flush(c) == 0 && receive(c) == 0)
		handle_all(c, false);
	return c->error;
}

// SPDX-License-Identifier: MIT
/* One vfio-user connection: messages in and out, and the memory of the peer. What requests mean is in vfio_user_requests.c. */
#include "vfio_user_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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

int vu_over(struct vu_connection *c, int error)
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
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : vu_over(c, -ECONNRESET);
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
			return vu_over(c, -ENOBUFS); /* it asks and does not read */
		if (c->out_bytes)
			memmove(c->out, c->out + c->out_first, c->out_bytes);
		c->out_first = 0;
		if (want > c->out_capacity) {
			grown = realloc(c->out, want + 65536);
			if (!grown)
				return vu_over(c, -ENOMEM);
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
			return vu_over(c, -ENOBUFS);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
		n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		return n == (ssize_t)(sizeof(*header) + bytes) ? 0 : vu_over(c, -ECONNRESET);
	}
	if (queue(c, header, sizeof(*header)) || (bytes && queue(c, body, bytes)))
		return c->error;
	return flush(c);
}

int vu_reply_with(struct vu_connection *c, const struct header *to, const void *body, size_t bytes, int fd)
{
	struct header header = { to->id, to->command, (uint32_t)(sizeof(header) + bytes), REPLY, 0 };

	return to->flags & NO_REPLY ? 0 : post(c, &header, body, bytes, fd);
}

int vu_reply(struct vu_connection *c, const struct header *to, const void *body, size_t bytes)
{
	return vu_reply_with(c, to, body, bytes, -1);
}

int vu_refuse(struct vu_connection *c, const struct header *to, int error)
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
			vu_over(c, -ETIMEDOUT);
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

/* ---- in -------------------------------------------------------------------------------------------------------------- */

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
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : vu_over(c, -ECONNRESET);
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
		return vu_over(c, -ECONNRESET);
	if (message.msg_flags & MSG_CTRUNC)
		return vu_over(c, -EPROTO);
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
			return vu_over(c, -EPROTO);
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
				return vu_over(c, -ENOMEM);
			memcpy(copy, c->in + at + sizeof(h), body);
			c->with_fds = c->fd_count && c->fd_end <= at + h.bytes; /* sent with this message, not a later one */
			consume(c, at, h.bytes);
			vu_handle(c, &h, copy, body);
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

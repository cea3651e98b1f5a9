// SPDX-License-Identifier: MIT
/*
 * One vfio-user connection: sending and receiving messages. Request handling: vfio_user_requests.c.
 * DMA: vfio_user_dma.c.
 */
#include "vfio_user_internal.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t vu_now_ms(void)
{
	return now_ns() / 1000000;
}

struct vu_connection *vu_open(int fd, const struct vu_ops *ops, void *device, unsigned int vectors,
	struct vu_user *user)
{
	struct vu_connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->in = malloc(IN_BYTES);
	if (!c->in) {
		free(c);
		return NULL;
	}
	c->fd = fd;
	c->ops = ops;
	c->device = device;
	c->user = user;
	c->vectors = vectors < VU_VECTORS ? vectors : VU_VECTORS;
	c->opened_ms = vu_now_ms();
	c->window = WINDOW_FIRST;
	for (unsigned int i = 0; i < VU_VECTORS; i++)
		c->irq[i] = -1;
	return c;
}

static void give_back(struct vu_connection *c, const int *fds, unsigned int n)
{
	int64_t now;

	if (!n)
		return;
	now = vu_now_ms();
	if (now - c->released_ms > SENDER_MS) {
		c->released = 0;
		c->released_ms = now;
	}
	c->released += n;
	vu_release_all(fds, n, c->user->uid);
}

static void close_fds(struct vu_connection *c)
{
	int fds[FDS];
	unsigned int n = 0;

	for (unsigned int i = 0; i < c->fd_count; i++)
		if (c->fds[i] >= 0)
			fds[n++] = c->fds[i];
	c->fd_count = 0;
	give_back(c, fds, n);
}

void vu_close(struct vu_connection *c)
{
	if (!c)
		return;
	close_fds(c);
	while (c->map_count)
		vu_unmap(c, &c->maps[c->map_count - 1]);
	for (unsigned int i = 0; i < VU_VECTORS; i++)
		if (c->irq[i] >= 0)
			vu_release(c->irq[i], c->user->uid, false);
	shutdown(c->fd, SHUT_RDWR); /* EOF reaches the peer at once */
	/* closes the descriptors in flight on it, too */
	vu_release(c->fd, c->user->uid, true);
	c->user->out_bytes -= c->out_capacity;
	free(c->in);
	free(c->out);
	free(c->reads);
	free(c->read_data);
	free(c->pieces);
	free(c);
}

int vu_fd(const struct vu_connection *c)
{
	return c->fd;
}

bool vu_greeted(const struct vu_connection *c)
{
	return c->greeted;
}

int vu_error(const struct vu_connection *c)
{
	return c->error;
}

int *vu_error_at(struct vu_connection *c)
{
	return &c->error;
}

bool vu_full(const struct vu_connection *c)
{
	return c->out_bytes > OUT_PAUSE;
}

bool vu_held(const struct vu_connection *c)
{
	return vu_full(c) || c->in_flight > PIECES_PAUSE;
}

/* Stop receiving while output or the closing of descriptors is backed up. */
static bool closed_to(const struct vu_connection *c)
{
	if (vu_full(c))
		return true;
	return vu_release_waiting() &&
		vu_release_full(c->user->uid,
			c->released > FDS && vu_now_ms() - c->released_ms < SENDER_MS);
}

short vu_events(const struct vu_connection *c)
{
	return (short)((closed_to(c) ? 0 : POLLIN) | (c->out_bytes ? POLLOUT : 0));
}

int vu_over(struct vu_connection *c, int error)
{
	if (!c->error)
		c->error = error;
	return c->error;
}

/* ---- time ----------------------------------------------------------------------------------- */

static void sooner(int64_t *first, bool is, int64_t since, int64_t patience)
{
	if (is && since + patience < *first)
		*first = since + patience;
}

int64_t vu_deadline_ms(const struct vu_connection *c)
{
	int64_t first = INT64_MAX;

	sooner(&first, !c->greeted, c->opened_ms, GREETING_MS);
	sooner(&first, c->in_bytes, c->part_ms, MESSAGE_MS);
	sooner(&first, c->out_bytes, c->out_ms, UNREAD_MS);
	sooner(&first, c->in_flight, c->asked_ms, DMA_TIMEOUT_MS);
	return first;
}

int vu_expire(struct vu_connection *c, int64_t now)
{
	if (vu_release_stuck(c->user->uid))
		return vu_over(c, -ENOBUFS);
	return vu_deadline_ms(c) <= now ? vu_over(c, -ETIMEDOUT) : c->error;
}

void vu_delay(struct vu_connection *c, int64_t ms)
{
	c->opened_ms += ms;
	c->part_ms += ms;
	c->out_ms += ms;
	c->asked_ms += ms;
}

/* ---- out ------------------------------------------------------------------------------------ */

int vu_flush(struct vu_connection *c)
{
	while (c->out_bytes && !c->error) {
		ssize_t n = send(c->fd, c->out + c->out_first, c->out_bytes,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0
								       : vu_over(c, -ECONNRESET);
		c->out_first += (size_t)n;
		c->out_bytes -= (size_t)n;
		c->out_ms = vu_now_ms();
	}
	c->out_first = 0;
	if (c->out_capacity > OUT_PAUSE && !c->out_bytes) { /* do not keep the buffer of a burst */
		c->user->out_bytes -= c->out_capacity;
		c->out_capacity = 0;
		free(c->out);
		c->out = NULL;
	}
	return c->error;
}

static int queue_reply(struct vu_connection *c, const void *data, size_t bytes)
{
	if (c->out_first + c->out_bytes + bytes > c->out_capacity) {
		size_t want = c->out_bytes + bytes, room = want + want / 2 + 4096;
		uint8_t *grown;

		if (c->out_bytes)
			memmove(c->out, c->out + c->out_first, c->out_bytes);
		c->out_first = 0;
		if (want > c->out_capacity) {
			if (want > OUT_BYTES ||
				c->user->out_bytes + room - c->out_capacity >
					vu_limits.user_out_bytes)
				/* the peer sends requests and does not read replies */
				return vu_over(c, -ENOBUFS);
			grown = realloc(c->out, room);
			if (!grown)
				return vu_over(c, -ENOMEM);
			c->user->out_bytes += room - c->out_capacity;
			c->out = grown;
			c->out_capacity = room;
		}
	}
	if (!c->out_bytes)
		c->out_ms = vu_now_ms();
	memcpy(c->out + c->out_first + c->out_bytes, data, bytes);
	c->out_bytes += bytes;
	return 0;
}

/* Queue a message, with at most one descriptor. Sent at the end of a turn, with all others. */
int vu_post(struct vu_connection *c, const struct vfu_header *header, const void *body,
	size_t bytes, int fd)
{
	if (c->error)
		return c->error;
	if (fd >= 0) {
		/*
		 * a descriptor must be sent with bytes of its own message: flush everything before
		 */
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec iov[2] = { { (void *)(uintptr_t)header, sizeof(*header) },
			{ (void *)(uintptr_t)body, bytes } };
		struct msghdr message = { .msg_iov = iov,
			.msg_iovlen = 2,
			.msg_control = control,
			.msg_controllen = sizeof(control) };
		struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
		ssize_t n;

		if (vu_flush(c) || c->out_bytes)
			return vu_over(c, -ENOBUFS);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
		n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		return n == (ssize_t)(sizeof(*header) + bytes) ? 0 : vu_over(c, -ECONNRESET);
	}
	if (queue_reply(c, header, sizeof(*header)) || (bytes && queue_reply(c, body, bytes)))
		return c->error;
	return 0;
}

int vu_reply_with(struct vu_connection *c, const struct vfu_header *to, const void *body,
	size_t bytes, int fd)
{
	struct vfu_header header = { to->id, to->command, (uint32_t)(sizeof(header) + bytes),
		VFU_REPLY, 0 };

	return to->flags & VFU_NO_REPLY ? 0 : vu_post(c, &header, body, bytes, fd);
}

int vu_reply(struct vu_connection *c, const struct vfu_header *to, const void *body, size_t bytes)
{
	return vu_reply_with(c, to, body, bytes, -1);
}

int vu_refuse(struct vu_connection *c, const struct vfu_header *to, int error)
{
	struct vfu_header header = { to->id, to->command, sizeof(header), VFU_REPLY | VFU_ERROR,
		(uint32_t)-error };

	return to->flags & VFU_NO_REPLY ? 0 : vu_post(c, &header, NULL, 0, -1);
}

static aio_context_t signals;
static int signal_file = -1;

int vu_begin(void)
{
	if (syscall(SYS_io_setup, 8, &signals) != 0)
		return -errno;
	signal_file = memfd_create("speckv-signal", MFD_CLOEXEC);
	return signal_file < 0 || ftruncate(signal_file, 1) != 0 ? -errno : 0;
}

/*
 * Signal an eventfd through the completion of an AIO read (IOCB_FLAG_RESFD): a write() would block
 * when the peer, which shares the file status flags, has cleared O_NONBLOCK and filled the counter.
 * Other files are not signalled.
 */
static void signal_by_kernel(int fd)
{
	struct io_event done[2];
	char byte;
	struct iocb read = { .aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)signal_file,
		.aio_buf = (uintptr_t)&byte,
		.aio_nbytes = 1,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd };
	struct iocb *list[1] = { &read };

	syscall(SYS_io_submit, signals, 1, list);
	syscall(SYS_io_getevents, signals, 0, 2, done, NULL);
}

void vu_interrupt(struct vu_connection *c, unsigned int vector)
{
	if (vector < c->vectors && c->irq[vector] >= 0)
		signal_by_kernel(c->irq[vector]);
}

/* ---- in ------------------------------------------------------------------------------------- */

/*
 * The kernel frees each write of the peer separately: 500 bytes sent one by one take some 200 us to
 * receive, as many in one write 1 us. So the limit starts low, doubles after a fast receipt, and is
 * low again after a slow one.
 */
static void resize_window(struct vu_connection *c, int64_t took_ns)
{
	if (took_ns > RECEIVE_NS)
		c->window = WINDOW_FIRST;
	else if (c->window < RECEIVE_BYTES)
		c->window *= 2;
}

static int receive(struct vu_connection *c)
{
	char control[CMSG_SPACE(SENT_FDS * sizeof(int))];
	struct iovec iov;
	struct msghdr message = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	int extra[SENT_FDS];
	unsigned int extras = 0;
	size_t room, sent = 0;
	int64_t start;
	ssize_t n;

	if (c->in_first && (!c->in_bytes || IN_BYTES - c->in_first - c->in_bytes < RECEIVE_BYTES)) {
		memmove(c->in, c->in + c->in_first, c->in_bytes);
		c->fd_end = c->fd_end > c->in_first ? c->fd_end - c->in_first : 0;
		c->in_first = 0;
	}
	room = IN_BYTES - c->in_first - c->in_bytes;
	iov = (struct iovec){ c->in + c->in_first + c->in_bytes,
		room < c->window ? room : c->window };
	if (c->error || !room)
		return c->error;
	start = now_ns();
	n = recvmsg(c->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR
			? 0
			: vu_over(c, -ECONNRESET);
	resize_window(c, now_ns() - start);
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
		size_t count = at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS
			? (at->cmsg_len - CMSG_LEN(0)) / sizeof(int)
			: 0;

		sent += count;
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof(fd));
			if (c->fd_count < FDS && c->greeted)
				c->fds[c->fd_count++] = fd;
			else if (extras < SENT_FDS)
				extra[extras++] = fd;
		}
	}
	give_back(c, extra, extras);
	if (n == 0)
		return vu_over(c, -ECONNRESET);
	if (message.msg_flags & MSG_CTRUNC || sent > FDS)
		return vu_over(c, -EPROTO);
	if (!c->in_bytes)
		c->part_ms = vu_now_ms();
	c->in_bytes += (size_t)n;
	if (c->fd_count)
		c->fd_end = c->in_first + c->in_bytes;
	return 0;
}

/* Read the header of the next message. True: the message is complete. */
static bool message_complete(struct vu_connection *c, struct vfu_header *h)
{
	if (c->error || c->in_bytes < sizeof(*h))
		return false;
	memcpy(h, c->in + c->in_first, sizeof(*h));
	if (h->bytes < sizeof(*h) || h->bytes > (c->greeted ? MESSAGE_BYTES : GREETING_BYTES)) {
		vu_over(c, -EPROTO);
		return false;
	}
	return c->in_bytes >= h->bytes;
}

bool vu_pending(const struct vu_connection *c)
{
	uint32_t bytes;

	if (c->in_bytes < sizeof(struct vfu_header) || vu_full(c))
		return false;
	memcpy(&bytes, c->in + c->in_first + offsetof(struct vfu_header, bytes), sizeof(bytes));
	return c->in_bytes >= bytes;
}

int vu_serve(struct vu_connection *c, unsigned int messages)
{
	int64_t until = now_ns() + SLICE_NS;
	struct vfu_header h;

	if (vu_flush(c) == 0 && !closed_to(c) && !vu_pending(c))
		receive(c);
	for (bool more = true; more && messages && !vu_full(c) && message_complete(c, &h);
		messages--, more = now_ns() < until) {
		const uint8_t *body = c->in + c->in_first + sizeof(h);

		c->in_first += h.bytes;
		c->in_bytes -= h.bytes;
		c->part_ms = c->in_bytes ? vu_now_ms() : 0;
		if ((h.flags & VFU_TYPE_MASK) == VFU_REPLY) {
			vu_answered(c, &h, body, h.bytes - sizeof(h));
			continue;
		}
		/* received with this message, not a later one */
		c->with_fds = c->fd_count && c->fd_end <= c->in_first;
		vu_handle(c, &h, body, h.bytes - sizeof(h));
		if (c->with_fds)
			close_fds(c);
		c->with_fds = false;
	}
	return vu_flush(c);
}

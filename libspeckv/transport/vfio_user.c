// SPDX-License-Identifier: MIT
/*
 * vfio-user client: connect to an emulated card's socket, map its doorbells, share an arena of
 * memory with it. Registers are messages. Rings and data are shared memory; a doorbell is too, where
 * its page is mapped, and a message is sent only to wake a card that sleeps. A card that does not
 * answer a message within ANSWER_MS is considered dead.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/extend.h"
#include "base/fork.h"
#include "transport.h"
#include "vfio_user_wire.h"

#define ANSWER_MS 10000
#define ARENA_ADDRESS 0x100000000ull
#define BAR0_BYTES 0x20000u
#define DOORBELLS 0x10000u
#define ACCESS_BYTES 512 /* most data of one region access */

struct vfio_user {
	struct transport transport;
	int fd; /* owned by `connection` */
	struct fork_guard connection, memory;
	pthread_mutex_t asking; /* one message and its reply at a time */
	uint16_t next_id;
	_Atomic int broken; /* errno that ended the connection */
};

static int broken(struct vfio_user *v, int error)
{
	if (!v->broken)
		v->broken = error;
	return v->broken;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int wait_for(struct vfio_user *v, short events, int64_t until)
{
	struct pollfd fd = { v->fd, events, 0 };
	int64_t left = until - now_ms();

	if (left <= 0 || poll(&fd, 1, (int)left) == 0)
		return broken(v, -ETIMEDOUT);
	return 0;
}

static int send_all(struct vfio_user *v, const void *data, size_t bytes, int fd, int64_t until)
{
	const uint8_t *from = data;

	while (bytes) {
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec iov = { (void *)(uintptr_t)from, bytes };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (fd >= 0) {
			struct cmsghdr *rights;

			message.msg_control = control;
			message.msg_controllen = sizeof(control);
			rights = CMSG_FIRSTHDR(&message);
			rights->cmsg_level = SOL_SOCKET;
			rights->cmsg_type = SCM_RIGHTS;
			rights->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
		}
		n = sendmsg(v->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			if (wait_for(v, POLLOUT, until))
				return v->broken;
			continue;
		}
		if (n <= 0)
			return broken(v, -ECONNRESET);
		from += n;
		bytes -= (size_t)n;
		fd = -1;
	}
	return 0;
}

static int receive_all(struct vfio_user *v, void *data, size_t bytes, int *fd, int64_t until)
{
	uint8_t *to = data;

	while (bytes) {
		char control[CMSG_SPACE(4 * sizeof(int))];
		struct iovec iov = { to, bytes };
		struct msghdr message = { .msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(v->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			if (wait_for(v, POLLIN, until))
				return v->broken;
			continue;
		}
		if (n <= 0)
			return broken(v, -ECONNRESET);
		for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at;
			at = CMSG_NXTHDR(&message, at)) {
			size_t count = at->cmsg_level == SOL_SOCKET && at->cmsg_type == SCM_RIGHTS
				? (at->cmsg_len - CMSG_LEN(0)) / sizeof(int)
				: 0;

			for (size_t i = 0; i < count; i++) {
				int got;

				memcpy(&got, CMSG_DATA(at) + i * sizeof(int), sizeof(got));
				if (fd && *fd < 0)
					*fd = got;
				else
					close(got);
			}
		}
		to += n;
		bytes -= (size_t)n;
	}
	return 0;
}

/* Send a message and wait for its reply, of at most `answer_bytes`; *got: bytes received. */
static int ask_locked(struct vfio_user *v, uint16_t command, const void *body, size_t bytes,
	int send_fd, void *answer, size_t answer_bytes, size_t *got, int *fd)
{
	struct vfu_header h = { v->next_id++, command, (uint32_t)(sizeof(h) + bytes), 0, 0 }, r;
	int64_t until = now_ms() + ANSWER_MS;
	uint8_t message[sizeof(h) + 16 + ACCESS_BYTES];
	size_t left;

	if (v->broken)
		return v->broken;
	if (bytes > sizeof(message) - sizeof(h))
		return -EINVAL;
	memcpy(message, &h, sizeof(h));
	memcpy(message + sizeof(h), body, bytes);
	if (send_all(v, message, sizeof(h) + bytes, send_fd, until))
		return v->broken;
	for (;;) {
		if (receive_all(v, &r, sizeof(r), fd, until))
			return v->broken;
		if (r.bytes < sizeof(r) || r.bytes > 1u << 20)
			return broken(v, -EPROTO);
		left = r.bytes - sizeof(r);
		if ((r.flags & 0xf) == VFU_REPLY && r.id == h.id && r.command == command)
			break;
		/* a request of the card: all of its memory is mapped, so reject any */
		for (size_t n; left; left -= n) {
			uint8_t waste[4096];

			n = left < sizeof(waste) ? left : sizeof(waste);
			if (receive_all(v, waste, n, NULL, until))
				return v->broken;
		}
		if ((r.flags & 0xf) == 0) {
			struct vfu_header no = { r.id, r.command, sizeof(no), VFU_REPLY | VFU_ERROR,
				EFAULT };

			if (send_all(v, &no, sizeof(no), -1, until))
				return v->broken;
		}
		if (now_ms() >= until) /* bound the wait: requests might never end */
			return broken(v, -ETIMEDOUT);
	}
	if (left > answer_bytes)
		return broken(v, -EPROTO);
	if (got)
		*got = left;
	if (left && receive_all(v, answer, left, fd, until))
		return v->broken;
	return r.flags & VFU_ERROR ? -(int)(r.error && r.error < 4096 ? r.error : EIO) : 0;
}

static int exchange(struct vfio_user *v, uint16_t command, const void *body, size_t bytes,
	int send_fd, void *answer, size_t answer_bytes, size_t *got, int *fd)
{
	int rc;

	if (fork_guard_stale(&v->connection))
		return -EOWNERDEAD;
	pthread_mutex_lock(&v->asking);
	v->transport.system_calls += 2; /* at least: one send, one receive */
	rc = ask_locked(v, command, body, bytes, send_fd, answer, answer_bytes, got, fd);
	pthread_mutex_unlock(&v->asking);
	return rc;
}

static int region_read(struct vfio_user *v, uint32_t region, uint64_t offset, void *data,
	uint32_t bytes)
{
	struct vfu_access access = { offset, region, bytes };
	uint8_t answer[sizeof(access) + ACCESS_BYTES] = { 0 };
	size_t got = 0;
	int rc = exchange(v, VFU_REGION_READ, &access, sizeof(access), -1, answer,
		sizeof(access) + bytes, &got, NULL);

	if (!rc && got != sizeof(access) + bytes)
		rc = broken(v, -EPROTO);
	if (!rc)
		memcpy(data, answer + sizeof(access), bytes);
	return rc;
}

static int region_write(struct vfio_user *v, uint32_t region, uint64_t offset, const void *data,
	uint32_t bytes)
{
	struct vfu_access access = { offset, region, bytes };
	uint8_t body[sizeof(access) + ACCESS_BYTES], answer[sizeof(access)];

	memcpy(body, &access, sizeof(access));
	memcpy(body + sizeof(access), data, bytes);
	return exchange(v, VFU_REGION_WRITE, body, sizeof(access) + bytes, -1, answer,
		sizeof(answer), NULL, NULL);
}

static int read32(struct transport *t, uint32_t offset, uint32_t *value)
{
	return region_read((struct vfio_user *)t, 0, offset, value, sizeof(*value));
}

static int write32(struct transport *t, uint32_t offset, uint32_t value)
{
	struct vfio_user *v = (struct vfio_user *)t;

	return region_write(v, 0, offset, &value, sizeof(value));
}

static int post32(struct transport *t, uint32_t offset, uint32_t value)
{
	struct vfio_user *v = (struct vfio_user *)t;
	struct vfu_access access = { offset, 0, sizeof(value) };
	struct vfu_header h = { 0, VFU_REGION_WRITE, sizeof(h) + sizeof(access) + sizeof(value),
		VFU_NO_REPLY, 0 };
	uint8_t message[sizeof(h) + sizeof(access) + sizeof(value)];
	int rc;

	if (fork_guard_stale(&v->connection))
		return -EOWNERDEAD;
	memcpy(message, &h, sizeof(h));
	memcpy(message + sizeof(h), &access, sizeof(access));
	memcpy(message + sizeof(h) + sizeof(access), &value, sizeof(value));
	pthread_mutex_lock(&v->asking);
	v->transport.system_calls++;
	rc = v->broken ? v->broken
		       : send_all(v, message, sizeof(message), -1, now_ms() + ANSWER_MS);
	pthread_mutex_unlock(&v->asking);
	return rc;
}

static int read_config(struct transport *t, uint32_t offset, void *data, uint32_t bytes)
{
	return bytes > ACCESS_BYTES
		? -EINVAL
		: region_read((struct vfio_user *)t, VFU_CONFIG_REGION, offset, data, bytes);
}

static int driver(struct transport *t, uint32_t request, void *argument, size_t bytes)
{
	struct vfio_user *v = (struct vfio_user *)t;
	struct speckv_driver_call call = { .request = request };
	uint8_t data[SPECKV_DRIVER_BYTES];
	int rc;

	if (bytes > sizeof(data) - sizeof(call))
		return -EINVAL;
	memcpy(data, &call, sizeof(call));
	memcpy(data + sizeof(call), argument, bytes);
	rc = region_write(v, SPECKV_DRIVER_REGION, 0, data, (uint32_t)(sizeof(call) + bytes));
	if (!rc)
		rc = region_read(v, SPECKV_DRIVER_REGION, 0, data,
			(uint32_t)(sizeof(call) + bytes));
	if (rc)
		return rc;
	memcpy(&call, data, sizeof(call));
	if (call.request != request || call.error > 4095)
		return broken(v, -EPROTO);
	memcpy(argument, data + sizeof(call), bytes);
	return -(int)call.error;
}

static int alive(struct transport *t)
{
	struct vfio_user *v = (struct vfio_user *)t;
	struct pollfd fd = { v->fd, POLLIN | POLLRDHUP, 0 };

	if (fork_guard_stale(&v->connection))
		return -EOWNERDEAD;
	if (!v->broken && poll(&fd, 1, 0) > 0 && fd.revents & (POLLRDHUP | POLLHUP | POLLERR))
		broken(v, -ECONNRESET);
	return v->broken;
}

static void close_vfio_user(struct transport *t)
{
	struct vfio_user *v = (struct vfio_user *)t;

	if (t->doorbells)
		munmap(t->doorbells, BAR0_BYTES - DOORBELLS);
	if (!fork_guard_stale(&v->connection)) /* another thread may have held it at fork() */
		pthread_mutex_destroy(&v->asking);
	if (t->arena)
		fork_guard_release(&v->memory);
	fork_guard_release(&v->connection);
	free(v);
}

static const struct transport_ops ops = { .read32 = read32,
	.write32 = write32,
	.post32 = post32,
	.read_config = read_config,
	.driver = driver,
	.alive = alive,
	.close = close_vfio_user };

static int negotiate(struct vfio_user *v)
{
	static const char hello[] = "\0\0\0\0{\"capabilities\":{\"max_msg_fds\":4}}";
	uint8_t answer[512] = { 0 };
	uint16_t major;
	size_t got = 0;
	int rc = exchange(v, VFU_VERSION, hello, sizeof(hello), -1, answer, sizeof(answer), &got,
		NULL);

	if (rc)
		return rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -EUSERS ? rc : -EPROTO;
	memcpy(&major, answer, sizeof(major));
	return got < 4 || major != 0 ? -EPROTO : 0;
}

static int map_doorbells(struct vfio_user *v)
{
	struct vfu_region_info request = { .argsz = 64 }, info; /* of BAR0 */
	uint8_t answer[128] = { 0 };
	size_t got = 0;
	int fd = -1,
	    rc = exchange(v, VFU_GET_REGION, &request, sizeof(request), -1, answer, sizeof(answer),
		    &got, &fd);
	void *map;

	memcpy(&info, answer, sizeof(info));
	if (!rc && (got < sizeof(info) || info.bytes != BAR0_BYTES))
		rc = -EPROTO; /* a device, but not a card of this register map */
	if (!rc && fd >= 0) {
		int seals = fcntl(fd, F_GET_SEALS);

		/* map only memory that cannot shrink */
		if (seals >= 0 && seals & F_SEAL_SHRINK &&
			lseek(fd, 0, SEEK_END) >= (off_t)BAR0_BYTES) {
			map = mmap(NULL, BAR0_BYTES - DOORBELLS, PROT_READ | PROT_WRITE, MAP_SHARED,
				fd, DOORBELLS);
			if (map != MAP_FAILED)
				v->transport.doorbells = map;
		}
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

static int give_arena(struct vfio_user *v, size_t bytes)
{
	struct vfu_dma_map map = {
		.argsz = sizeof(map), .flags = 3, .address = ARENA_ADDRESS, .bytes = bytes
	};
	int fd = memfd_create("speckv-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc = 0;
	void *at;

	if (fd < 0 || file_extend(fd, bytes) != 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		rc = -errno;
	if (!rc) {
		at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (at == MAP_FAILED) {
			rc = -errno;
		} else {
			fork_guard_add(&v->memory, -1, at, bytes);
			v->transport.arena = at;
			v->transport.arena_bytes = bytes;
			v->transport.arena_address = ARENA_ADDRESS;
			rc = exchange(v, VFU_DMA_MAP, &map, sizeof(map), fd, NULL, 0, NULL, NULL);
		}
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Was the listener a process of a trusted user? */
static int peer_trusted(int fd, uid_t owner)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t bytes = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
		return -errno;
	return peer.uid == 0 || peer.uid == geteuid() || peer.uid == owner ? 0 : -EKEYREJECTED;
}

int transport_dial(int fd, struct transport_place place)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = ANSWER_MS / 1000 };
	const char *name = strrchr(place.path, '/');
	int folder = place.folder, n, rc = 0;

	name = name ? name + 1 : place.path;
	if (folder < 0 && strlen(place.path) >= sizeof(address.sun_path)) {
		char *path = strndup(place.path, (size_t)(name - place.path));

		folder = path ? open(path, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
		rc = folder < 0 ? -errno : 0;
		free(path);
	}
	if (folder >= 0 && access("/proc/self/fd", X_OK) == 0)
		n = snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s",
			folder, name);
	else
		n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", place.path);
	if (n >= (int)sizeof(address.sun_path))
		rc = -ENAMETOOLONG;
	/* connect() blocks when the card does not accept */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!rc && connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (!rc)
		rc = peer_trusted(fd, place.owner);
	if (folder >= 0 && folder != place.folder)
		close(folder);
	return rc;
}

int transport_open_vfio_user(struct transport_place place, size_t arena_bytes,
	struct transport **out)
{
	struct vfio_user *v = calloc(1, sizeof(*v));
	uint32_t id = 0;
	int rc = 0;

	*out = NULL;
	if (!v)
		return -ENOMEM;
	v->transport.ops = &ops;
	pthread_mutex_init(&v->asking, NULL);
	fork_hold();
	v->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	rc = v->fd < 0 ? -errno : 0;
	fork_guard_add_held(&v->connection, v->fd, NULL, 0);
	fork_let();
	if (!rc)
		rc = transport_dial(v->fd, place);
	if (!rc)
		rc = negotiate(v);
	if (!rc)
		rc = region_read(v, VFU_CONFIG_REGION, 0, &id, sizeof(id));
	if (!rc) {
		v->transport.vendor = (uint16_t)id;
		v->transport.device = (uint16_t)(id >> 16);
		if (v->transport.vendor != SPECKV_PCI_VENDOR_ID ||
			(v->transport.device != SPECKV_PCI_DEVICE_ID_CARD &&
				v->transport.device != SPECKV_PCI_DEVICE_ID_FACTORY))
			rc = -EPROTO;
	}
	if (!rc)
		rc = map_doorbells(v);
	if (!rc)
		rc = give_arena(v, arena_bytes);
	if (rc) {
		close_vfio_user(&v->transport);
		return rc;
	}
	*out = &v->transport;
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Connections and their scheduling. Nothing here waits for a peer. A turn ends after some tens of
 * microseconds; peers with the least recent time come first. Resources are limited per user, and a
 * part of each is reserved for administrators.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "emulator.h"

#define TURN_NS 10000u
#define MESSAGES 16 /* per peer and turn */
#define ACCEPTS 1 /* per socket and turn */
#define GREETINGS 1 /* peers served before their greeting, per turn */
#define EVENTS 64 /* per turn */
#define LOOK_MS 20 /* between checks for expired peers */
/* a longer gap between turns, or oversleep: this process was not running */
#define LATE_MS 20
/* idle time after which a function without a queue pair may be ended to make room */
#define IDLE_MS 1000
#define CONTROL_MS 5000 /* a control connection silent for so long is closed */
#define USER_OUT (128ull << 20)

enum kind { LISTENER, PEER, CONTROL };

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void epoll_watch(const struct emulator *e, int operation, int fd, enum kind kind,
	unsigned int index, short events)
{
	struct epoll_event event = { .events = (events & POLLIN ? EPOLLIN : 0) |
			(events & POLLOUT ? EPOLLOUT : 0),
		.data.u64 = (uint64_t)kind << 32 | index };

	epoll_ctl(e->epoll, operation, fd, &event);
}

/*
 * Bind through the folder's descriptor: its path may have changed, or exceed the 107 bytes of an
 * address.
 */
static int listener(const char *folder, int folder_fd, const char *name, mode_t mode)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder_fd,
		name);
	unlinkat(folder_fd, name, 0); /* stale: the folder's lock is held */
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		emu_die("cannot make a socket in", folder, errno);
	emu_made(name);
	if (fchmodat(folder_fd, name, mode, 0) != 0 || listen(fd, 1024) != 0)
		emu_die("cannot listen in", folder, errno);
	return fd;
}

void emu_peers_begin(struct emulator *e, const char *folder, int folder_fd)
{
	uint64_t ram = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	struct rlimit files;
	int rc;

	/*
	 * mapped memory of a peer needs backing: a request for several times the machine's RAM is
	 * bogus
	 */
	vu_limits.connection_mapped_bytes = 2 * ram;
	vu_limits.user_mapped_bytes = 4 * ram;
	vu_limits.user_out_bytes = USER_OUT;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		/* each peer may need some dozens of descriptors */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	rc = vu_begin();
	if (rc == -EAGAIN)
		emu_die("interrupts need asynchronous I/O, and fs.aio-nr has reached fs.aio-max-nr: raise it with "
			"'sysctl fs.aio-max-nr=1048576' for the card in",
			folder, -rc);
	if (rc)
		emu_die("interrupts need asynchronous I/O (io_setup), which cannot be had for",
			folder, -rc);
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		e->controls[i].fd = -1;
	e->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll < 0)
		emu_die("cannot wait for peers of", folder, errno);
	e->listeners[0] = listener(folder, folder_fd, "admin", 0600);
	e->listeners[1] = listener(folder, folder_fd, "io", 0660);
	e->listeners[2] = listener(folder, folder_fd, "control", 0600);
	for (unsigned int i = 0; i < 3; i++)
		epoll_watch(e, EPOLL_CTL_ADD, e->listeners[i], LISTENER, i, POLLIN);
}

/* ---- admission ------------------------------------------------------------------------------ */

/* Root and the card's owner: they could kill the process anyway. */
static bool trusted(uint32_t uid)
{
	return uid == 0 || uid == geteuid();
}

static struct vu_user *user_of(struct emulator *e, uint32_t uid)
{
	struct vu_user *free_one = NULL;

	for (unsigned int i = 0; i < EMU_PEERS; i++) {
		if (e->users[i].connections && e->users[i].uid == uid)
			return &e->users[i];
		if (!e->users[i].connections && !free_one)
			free_one = &e->users[i];
	}
	if (free_one)
		*free_one = (struct vu_user){ .uid = uid };
	return free_one;
}

static void end_peer(struct emulator *e, unsigned int slot)
{
	struct emu_function *f = e->peers[slot];
	struct vu_user *user = f->user;

	e->peers[slot] = NULL;
	epoll_ctl(e->epoll, EPOLL_CTL_DEL, vu_fd(f->connection), NULL);
	emu_function_close(f);
	user->connections--;
}

/*
 * Count connections before their greeting, of this user (NULL: all), and find the oldest; -1: none.
 */
static unsigned int ungreeted(const struct emulator *e, const struct vu_user *user, int *oldest)
{
	unsigned int count = 0;

	*oldest = -1;
	for (unsigned int i = 0; i < EMU_PEERS; i++) {
		const struct emu_function *f = e->peers[i];

		if (!f || f->number >= 0 || (user && f->user != user))
			continue;
		count++;
		if (*oldest < 0 || f->opened < e->peers[*oldest]->opened)
			*oldest = (int)i;
	}
	return count;
}

/* End one idle function, of this user or of any: no queue pair, and silent for IDLE_MS. */
static bool end_idle(struct emulator *e, const struct vu_user *user)
{
	int64_t before = now_ms() - IDLE_MS;

	for (unsigned int i = 0; i < EMU_PEERS; i++) {
		const struct emu_function *f = e->peers[i];

		if (f && f->number >= 0 && (!user || f->user == user) && f->heard_ms < before &&
			!e->engine->ops->in_use(e->engine, (unsigned int)f->number)) {
			end_peer(e, i);
			return true;
		}
	}
	return false;
}

int emu_peers_admit(struct emulator *e, const struct emu_function *f)
{
	for (;;) {
		unsigned int all = 0, io = 0, strangers = 0, own = 0;

		for (unsigned int i = 0; i < EMU_FUNCTIONS; i++) {
			const struct emu_function *other = e->functions[i];

			all += other != NULL;
			io += other && !other->admin;
			strangers += other && !other->admin && !trusted(other->uid);
			own += other && !other->admin && other->uid == f->uid;
		}
		if (f->admin ? all < EMU_FUNCTIONS
			     : io < EMU_IO_FUNCTIONS &&
					(trusted(f->uid) ||
						(own < EMU_USER && strangers < EMU_STRANGERS)))
			return 0;
		if (!end_idle(e, !f->admin && !trusted(f->uid) ? f->user : NULL))
			return -EUSERS;
	}
}

static bool accept_peer(struct emulator *e, int listening, bool admin)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t bytes = sizeof(peer);
	struct emu_function *f;
	struct vu_user *user;
	unsigned int slot = 0;
	int oldest, fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if ((errno == EMFILE || errno == ENFILE) && ungreeted(e, NULL, &oldest))
			end_peer(e, (unsigned int)oldest);
		return false;
	}
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes);
	user = user_of(e, peer.uid);
	if (user && ungreeted(e, user, &oldest) >= EMU_UNGREETED)
		end_peer(e, (unsigned int)oldest);
	while (slot < EMU_PEERS && e->peers[slot])
		slot++;
	if (slot == EMU_PEERS && ungreeted(e, NULL, &oldest)) {
		slot = (unsigned int)oldest;
		end_peer(e, slot);
		user = user_of(e, peer.uid); /* ended, it may have freed a user slot */
	}
	if (slot == EMU_PEERS || !user || vu_release_stuck(peer.uid)) {
		vu_release(fd, peer.uid, true);
		return true;
	}
	f = emu_function_open(e, fd, admin, user);
	if (!f)
		return true;
	user->connections++;
	f->opened = e->opened++;
	f->heard_ms = now_ms();
	f->ready = f->unheard = true;
	f->events = POLLIN;
	e->peers[slot] = f;
	epoll_watch(e, EPOLL_CTL_ADD, fd, PEER, slot, f->events);
	return true;
}

/* ---- commands to the emulator itself -------------------------------------------------------- */

static void close_control(struct emulator *e, unsigned int slot)
{
	/* only the card's owner and root can connect to it */
	vu_release(e->controls[slot].fd, geteuid(), true);
	e->controls[slot].fd = -1;
}

/* A new connection always gets a slot: the one silent longest is closed. */
static bool accept_control(struct emulator *e)
{
	int fd = accept4(e->listeners[2], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	unsigned int slot = 0;

	if (fd < 0)
		return false;
	for (unsigned int i = 0; i < EMU_CONTROLS && e->controls[slot].fd >= 0; i++)
		if (e->controls[i].fd < 0 || e->controls[i].heard_ms < e->controls[slot].heard_ms)
			slot = i;
	if (e->controls[slot].fd >= 0)
		close_control(e, slot);
	e->controls[slot] = (struct emu_line){ fd, now_ms() };
	epoll_watch(e, EPOLL_CTL_ADD, fd, CONTROL, slot, POLLIN);
	return true;
}

/* One line in, one line out. A command that does not arrive in one piece is rejected. */
static void serve_control(struct emulator *e, unsigned int slot)
{
	char line[256], answer[EMU_ANSWER_BYTES];
	ssize_t n = recv(e->controls[slot].fd, line, sizeof(line) - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 1 && line[n - 1] == '\n') {
		line[n - 1] = 0;
		e->controls[slot].heard_ms = now_ms();
		emu_control(e, line, answer, sizeof(answer));
		if (send(e->controls[slot].fd, answer, strlen(answer),
			    MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
			return;
	}
	close_control(e, slot);
}

/* ---- scheduling ----------------------------------------------------------------------------- */

/* After a turn: close a failed connection, flush its output, update its poll events and hold. */
static void settle(struct emulator *e, unsigned int slot)
{
	struct emu_function *f = e->peers[slot];
	short events = vu_events(f->connection);

	if (events != f->events && events & POLLOUT) {
		/* posted since the last poll: the socket most likely has room */
		vu_flush(f->connection);
		events = vu_events(f->connection);
		/* poll does not report data that is already buffered */
		f->ready |= vu_pending(f->connection);
	}
	if (vu_error(f->connection)) {
		end_peer(e, slot);
		return;
	}
	if (events != f->events) {
		f->events = events;
		epoll_watch(e, EPOLL_CTL_MOD, vu_fd(f->connection), PEER, slot, events);
	}
	if (f->number >= 0 && vu_held(f->connection) != f->held) {
		f->held = !f->held;
		e->engine->ops->hold(e->engine, (unsigned int)f->number, f->held);
	}
}

static uint64_t time_spent(const struct emulator *e, const struct emu_function *f)
{
	return e->engine->ops->spent(e->engine, (unsigned int)f->number);
}

static void serve_peer(struct emu_function *f)
{
	vu_serve(f->connection, MESSAGES);
	f->ready = vu_pending(f->connection);
	f->unheard = false;
	f->heard_ms = now_ms();
}

/*
 * Serve a few connections before their greeting, round-robin: they have no function to charge the
 * time to.
 */
static void serve_ungreeted(struct emulator *e)
{
	unsigned int first = e->greet_next;

	for (unsigned int i = 0, served = 0; i < EMU_PEERS && served < GREETINGS; i++) {
		unsigned int slot = (first + i) % EMU_PEERS;
		struct emu_function *f = e->peers[slot];

		if (!f || !f->ready || f->number >= 0)
			continue;
		serve_peer(f);
		served++;
		e->greet_next = (slot + 1) % EMU_PEERS;
	}
}

static void serve_ready(struct emulator *e)
{
	uint64_t start = emu_now_ns(e), now = start;
	unsigned int ready[EMU_PEERS], count = 0;

	for (unsigned int i = 0; i < EMU_PEERS; i++) {
		unsigned int at = count;

		if (!e->peers[i] || !e->peers[i]->ready || e->peers[i]->number < 0)
			continue;
		for (count++;
			at && time_spent(e, e->peers[ready[at - 1]]) > time_spent(e, e->peers[i]);
			at--)
			ready[at] = ready[at - 1];
		ready[at] = i;
	}
	for (unsigned int i = 0; i < count && now - start < TURN_NS; i++) {
		struct emu_function *f = e->peers[ready[i]];
		uint64_t then = now;

		serve_peer(f);
		now = emu_now_ns(e);
		e->engine->ops->spend(e->engine, (unsigned int)f->number, now - then);
	}
	serve_ungreeted(e);
}

static void look_at_clocks(struct emulator *e)
{
	int64_t now = now_ms();

	if (now < e->look_ms)
		return;
	e->look_ms = now + LOOK_MS;
	vu_release_look(now);
	for (unsigned int i = 0; e->late_ms && i < EMU_PEERS; i++)
		if (e->peers[i])
			vu_delay(e->peers[i]->connection, e->late_ms);
	for (unsigned int i = 0; e->late_ms && i < EMU_CONTROLS; i++)
		e->controls[i].heard_ms += e->late_ms;
	e->late_ms = 0;
	for (unsigned int i = 0; i < EMU_PEERS; i++)
		if (e->peers[i] && !e->peers[i]->unheard)
			vu_expire(e->peers[i]->connection, now);
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		if (e->controls[i].fd >= 0 && e->controls[i].heard_ms + CONTROL_MS < now)
			close_control(e, i);
}

int64_t emu_peers_deadline_ms(const struct emulator *e)
{
	int64_t first = INT64_MAX;

	for (unsigned int i = 0; i < EMU_PEERS; i++) {
		int64_t when = e->peers[i] ? vu_deadline_ms(e->peers[i]->connection) : INT64_MAX;

		if (e->peers[i] && e->peers[i]->ready)
			return 0;
		first = when < first ? when : first;
	}
	for (unsigned int i = 0; i < EMU_CONTROLS; i++)
		if (e->controls[i].fd >= 0 && e->controls[i].heard_ms + CONTROL_MS < first)
			first = e->controls[i].heard_ms + CONTROL_MS;
	if (vu_release_waiting() && e->look_ms < first)
		return e->look_ms;
	return first == INT64_MAX ? first : first + 1;
}

/* Time in which this process was stopped, or had no CPU, is not charged to the peers. */
static int wait_for_events(struct emulator *e, struct epoll_event *events, int timeout_ms)
{
	int64_t before = now_ms(), busy = before - e->served_ms, slept;
	int n = epoll_wait(e->epoll, events, EVENTS, timeout_ms);

	slept = now_ms() - before - timeout_ms;
	if (e->served_ms && busy > LATE_MS)
		e->late_ms += busy;
	if (slept > LATE_MS)
		e->late_ms += slept;
	return n;
}

void emu_peers_serve(struct emulator *e, int timeout_ms)
{
	bool listening[3] = { false, false, false };
	struct epoll_event events[EVENTS];
	int n = wait_for_events(e, events, timeout_ms);

	for (int i = 0; i < n; i++) {
		unsigned int index = (unsigned int)events[i].data.u64;

		switch ((enum kind)(events[i].data.u64 >> 32)) {
		case LISTENER:
			listening[index] = true;
			break;
		case PEER:
			if (e->peers[index])
				e->peers[index]->ready = e->peers[index]->unheard = true;
			break;
		case CONTROL:
			if (e->controls[index].fd >= 0)
				serve_control(e, index);
			break;
		}
	}
	serve_ready(e);
	/* after existing peers: a new one may take the place of an idle one */
	for (unsigned int i = 0; i < ACCEPTS && listening[2] && accept_control(e); i++)
		;
	for (unsigned int l = 0; l < 2; l++)
		for (unsigned int i = 0;
			i < ACCEPTS && listening[l] && accept_peer(e, e->listeners[l], l == 0); i++)
			;
	look_at_clocks(e);
	for (unsigned int i = 0; i < EMU_PEERS; i++)
		if (e->peers[i])
			settle(e, i);
	vu_release_turn();
	e->served_ms = now_ms();
}

void emu_peers_end(struct emulator *e)
{
	for (unsigned int i = 0; i < EMU_PEERS; i++)
		if (e->peers[i])
			end_peer(e, i);
}

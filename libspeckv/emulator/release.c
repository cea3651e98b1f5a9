// SPDX-License-Identifier: MIT
/*
 * Closing descriptors received from a peer. The peer controls how long close() takes (FUSE, a
 * lingering socket), so threads do it. Each user has three lanes: descriptors it sent, its sockets,
 * and its sockets without descriptors in flight; a lane does not delay another. A lane starts with
 * one thread; if none of its descriptors was closed between two checks, its thread limit doubles,
 * up to LANE_THREADS.
 *
 * The card's thread never waits for the lock: what it cannot hand over now it hands over in its
 * next turn, and it polls atomic counters. Only this thread creates, links and frees lanes.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user.h"

#define LANE_THREADS 64
/* above this, stop receiving from those of the user's connections that sent descriptors */
#define LANE_WAITING 64
#define LANE_FULL 128 /* above this, stop receiving from all of them */
#define HANDED 64 /* hand over at this count, otherwise at the end of a turn */
#define STUCK_MS 1000 /* lane full and nothing closed for so long: the user's connections end */
#define THREADS 1024 /* on lanes of users other than root and the card's owner */
#define FIRST_THREADS 2048 /* the same, for the first thread of a lane */
#define IDLE 8 /* idle threads kept */
/* a longer gap between checks: this process was not running */
#define GAP_MS 200
#define STACK_BYTES 65536u
#define READS 16 /* limit on reads of unreceived data before a socket is closed with it */

enum kind { DESCRIPTORS, SOCKETS, EMPTY_SOCKETS };

struct item {
	struct item *next;
	int fd;
};

struct lane {
	/* list for the threads, under the lock; list of all lanes, of the card's thread */
	struct lane *next, *next_made;
	uint32_t uid;
	enum kind kind;
	bool linked;
	_Atomic bool moved; /* a descriptor was closed since the last check */
	_Atomic unsigned int waiting; /* handed over, not started */
	_Atomic unsigned int busy, most; /* threads on it: current and limit */
	struct item *first, **end; /* under the lock */
	struct item *kept; /* not handed over yet; card's thread only */
	unsigned int kept_count;
	int64_t moved_ms;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct lane *lanes; /* under the lock */
static unsigned int threads, idle, busy_for_strangers; /* under the lock */
static struct lane *made;
static unsigned int all_kept;
static _Atomic unsigned int all_waiting;
static int64_t look_ms;

static bool stranger(const struct lane *l)
{
	return l->uid != 0 && l->uid != geteuid();
}

/* How many more threads may work on this lane. */
static unsigned int wanted(const struct lane *l)
{
	unsigned int n = l->most > l->busy ? l->most - l->busy : 0;

	n = n < l->waiting ? n : l->waiting;
	return stranger(l) && busy_for_strangers >= (l->busy ? THREADS : FIRST_THREADS) ? 0 : n;
}

static struct lane *pick_lane(void)
{
	struct lane *best = NULL;

	for (struct lane *l = lanes; l; l = l->next)
		if (wanted(l) && (!best || l->busy < best->busy))
			best = l;
	return best;
}

static void *closer(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	for (;;) {
		struct lane *l = pick_lane();
		struct item *item;

		if (!l && idle > IDLE)
			break;
		if (!l) {
			pthread_cond_wait(&more, &lock);
			continue;
		}
		item = l->first;
		l->first = item->next;
		if (!l->first)
			l->end = &l->first;
		l->busy++;
		l->waiting--;
		all_waiting--;
		busy_for_strangers += stranger(l);
		idle--;
		pthread_mutex_unlock(&lock);
		setsockopt(item->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 0, 0 },
			sizeof(struct linger));
		close(item->fd);
		free(item);
		sched_yield(); /* under a real-time policy nothing else would let a client run */
		pthread_mutex_lock(&lock);
		idle++;
		busy_for_strangers -= stranger(l);
		l->moved = true;
		l->busy--;
	}
	idle--;
	threads--;
	pthread_mutex_unlock(&lock);
	return NULL;
}

/*
 * Under the lock: start threads for the descriptors that can be closed now. A failure is retried at
 * the next check.
 */
static void begin_threads(void)
{
	unsigned int needed = 0, strangers = 0, first = 0,
		     most = busy_for_strangers < THREADS ? THREADS - busy_for_strangers : 0;
	pthread_attr_t attributes;
	sigset_t all, before;

	for (struct lane *l = lanes; l; l = l->next) {
		*(stranger(l) ? &strangers : &needed) += wanted(l);
		first += stranger(l) && !l->busy && wanted(l);
	}
	most = most > first ? most : first;
	needed += strangers < most ? strangers : most;
	for (unsigned int i = 0; i < needed && i < idle; i++)
		pthread_cond_signal(&more);
	if (needed <= idle)
		return;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* only the main thread handles signals */
	for (pthread_t thread;
		idle < needed && pthread_create(&thread, &attributes, closer, NULL) == 0; threads++)
		idle++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
}

static struct lane *find_lane(uint32_t uid, enum kind kind)
{
	struct lane *l = made;

	while (l && (l->uid != uid || l->kind != kind))
		l = l->next_made;
	return l;
}

static unsigned int waiting(const struct lane *l)
{
	return l ? l->waiting + l->kept_count : 0;
}

void vu_release_turn(void)
{
	if (!all_kept || pthread_mutex_trylock(&lock) != 0)
		return;
	for (struct lane *l = made; l; l = l->next_made) {
		if (!l->linked) {
			l->end = &l->first;
			l->next = lanes;
			lanes = l;
			l->linked = true;
		}
		all_kept -= l->kept_count;
		all_waiting += l->kept_count;
		l->waiting += l->kept_count;
		l->kept_count = 0;
		for (struct item *item; (item = l->kept);) {
			l->kept = item->next;
			item->next = NULL;
			*l->end = item;
			l->end = &item->next;
		}
	}
	begin_threads();
	pthread_mutex_unlock(&lock);
}

static void release(const int *fds, unsigned int n, uint32_t uid, enum kind kind)
{
	struct lane *l = find_lane(uid, kind);

	if (n && !l && (l = calloc(1, sizeof(*l)))) {
		l->uid = uid;
		l->kind = kind;
		l->most = 1;
		l->moved = true;
		l->next_made = made;
		made = l;
	}
	for (unsigned int i = 0; l && i < n; i++) {
		struct item *item = malloc(sizeof(*item));

		if (!item)
			break; /* leaked: without memory, that is better than blocking here */
		*item = (struct item){ .next = l->kept, .fd = fds[i] };
		l->kept = item;
		l->kept_count++;
		all_kept++;
	}
	if (all_kept >= HANDED)
		vu_release_turn();
}

void vu_release_all(const int *fds, unsigned int n, uint32_t uid)
{
	release(fds, n, uid, DESCRIPTORS);
}

/*
 * Is a socket free of descriptors in flight? If `read`, drain other data first. Out-of-band data
 * may carry descriptors and is not read.
 */
static bool is_empty(int fd, bool read)
{
	static char waste[65536];
	int left = 1;

	if (shutdown(fd, SHUT_RDWR) != 0) /* otherwise nothing more can be added */
		return false;
	for (unsigned int i = 0; read && i < READS; i++) {
		struct iovec iov = { waste, sizeof(waste) };
		struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n = recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);

		if (n <= 0 || message.msg_flags & MSG_CTRUNC ||
			recv(fd, waste, (size_t)n, MSG_DONTWAIT) != n)
			break;
	}
	return ioctl(fd, FIONREAD, &left) == 0 && !left;
}

void vu_release(int fd, uint32_t uid, bool socket)
{
	enum kind kind = DESCRIPTORS;

	if (socket) /* a socket whose close() blocks delays only sockets of its kind */
		kind = is_empty(fd, waiting(find_lane(uid, SOCKETS)) > LANE_WAITING) ? EMPTY_SOCKETS
										     : SOCKETS;
	release(&fd, 1, uid, kind);
}

bool vu_release_waiting(void)
{
	return all_kept || all_waiting;
}

bool vu_release_full(uint32_t uid, bool sender)
{
	return vu_release_waiting() &&
		waiting(find_lane(uid, DESCRIPTORS)) > (sender ? LANE_WAITING : LANE_FULL);
}

bool vu_release_stuck(uint32_t uid)
{
	const struct lane *l = vu_release_waiting() ? find_lane(uid, DESCRIPTORS) : NULL;

	return l && waiting(l) > LANE_WAITING && l->busy == LANE_THREADS && !l->moved &&
		look_ms - l->moved_ms > STUCK_MS;
}

/* Under the lock. */
static void forget_the_empty(void)
{
	for (struct lane **at = &made; *at;) {
		struct lane *l = *at, **linked = &lanes;

		if (!l->linked || waiting(l) || l->busy) {
			at = &l->next_made;
			continue;
		}
		while (*linked && *linked != l)
			linked = &(*linked)->next;
		if (*linked)
			*linked = l->next;
		*at = l->next_made;
		free(l);
	}
}

void vu_release_look(int64_t now_ms)
{
	int64_t gap;

	if (!made)
		return;
	gap = now_ms - look_ms > GAP_MS ? now_ms - look_ms : 0;
	look_ms = now_ms;
	for (struct lane *l = made; l; l = l->next_made) {
		bool moved = atomic_exchange(&l->moved, false);

		l->moved_ms = moved ? now_ms : l->moved_ms + gap;
		if (!moved && l->waiting && l->most < LANE_THREADS)
			l->most *= 2;
	}
	vu_release_turn();
	if (pthread_mutex_trylock(&lock) != 0)
		return;
	forget_the_empty();
	begin_threads();
	pthread_mutex_unlock(&lock);
}

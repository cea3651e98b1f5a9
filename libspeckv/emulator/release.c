// SPDX-License-Identifier: MIT
/*
 * Closing descriptors that came from a peer. How long close() takes is the peer's choice (a file system in user space, a socket
 * that lingers): threads wait for that. Each user has two lanes, one for the descriptors that it sent and one for its sockets;
 * none holds up another. One thread works on a lane; where none of its descriptors was closed between two looks, twice as many
 * do, up to LANE_THREADS.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user.h"

#define LANE_THREADS 64
#define LANE_WAITING 64    /* with more than this nothing is taken from the user any more */
#define STUCK_MS 1000      /* and with none of them closed for so long the user is done with */
#define THREADS 1024       /* on lanes of users other than root and the card's owner */
#define IDLE 8             /* threads that are kept when there is nothing to close */
#define GAP_MS 200         /* more than this between two looks: it was this process that did not run */
#define STACK_BYTES 65536u

struct item {
	struct item *next;
	int fd;
};

struct lane {
	struct lane *next;
	uint32_t uid;
	bool sockets;
	bool moved;           /* one was closed since the last look */
	unsigned int waiting; /* not begun */
	unsigned int busy, most; /* threads on it, now and at most */
	int64_t moved_ms;
	struct item *first, **end;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct lane *lanes;
static unsigned int threads, idle, busy_for_strangers;
static unsigned int all_waiting; /* atomic: looked at without the lock */
static int64_t look_ms;

static bool stranger(const struct lane *l)
{
	return l->uid != 0 && l->uid != geteuid();
}

/* So many threads more may work on this lane. */
static unsigned int wanted(const struct lane *l)
{
	unsigned int n = l->most - l->busy < l->waiting ? l->most - l->busy : l->waiting;

	return stranger(l) && busy_for_strangers >= THREADS ? 0 : n;
}

static struct lane *pick(void)
{
	struct lane *best = NULL;

	for (struct lane *l = lanes; l; l = l->next)
		if (wanted(l) && (!best || l->busy < best->busy))
			best = l;
	return best;
}

static void forget_if_empty(struct lane *gone)
{
	struct lane **at = &lanes;

	if (gone->waiting || gone->busy)
		return;
	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	free(gone);
}

static void *closer(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	for (;;) {
		struct lane *l = pick();
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
		l->waiting--;
		__atomic_sub_fetch(&all_waiting, 1, __ATOMIC_RELAXED);
		l->busy++;
		busy_for_strangers += stranger(l);
		idle--;
		pthread_mutex_unlock(&lock);
		close(item->fd);
		free(item);
		pthread_mutex_lock(&lock);
		idle++;
		busy_for_strangers -= stranger(l);
		l->busy--;
		l->moved = true;
		forget_if_empty(l);
	}
	idle--;
	threads--;
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* With the lock: enough threads for what can be closed now. Those that cannot be had are tried for again at the next look. */
static void begin_threads(void)
{
	unsigned int needed = 0, strangers = 0;
	pthread_attr_t attributes;
	sigset_t all, before;

	for (struct lane *l = lanes; l; l = l->next)
		*(stranger(l) ? &strangers : &needed) += wanted(l);
	needed += strangers < THREADS - busy_for_strangers ? strangers : THREADS - busy_for_strangers;
	if (idle)
		pthread_cond_broadcast(&more);
	if (needed <= idle)
		return;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
	for (pthread_t thread; idle < needed && pthread_create(&thread, &attributes, closer, NULL) == 0; threads++)
		idle++;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
}

static struct lane *find(uint32_t uid, bool sockets)
{
	struct lane *l = lanes;

	while (l && (l->uid != uid || l->sockets != sockets))
		l = l->next;
	return l;
}

void vu_release(int fd, uint32_t uid, bool socket)
{
	struct linger none = { 0, 0 };
	struct item *item = malloc(sizeof(*item));
	struct lane *l;

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	pthread_mutex_lock(&lock);
	l = find(uid, socket);
	if (!l && item) {
		l = calloc(1, sizeof(*l));
		if (l) {
			*l = (struct lane){ .next = lanes, .uid = uid, .sockets = socket, .most = 1, .moved = true, .end = &l->first };
			lanes = l;
		}
	}
	if (l && item) {
		*item = (struct item){ .fd = fd };
		*l->end = item;
		l->end = &item->next;
		l->waiting++;
		__atomic_add_fetch(&all_waiting, 1, __ATOMIC_RELAXED);
		begin_threads();
		item = NULL;
	} /* else it stays open: no memory is a lesser harm than waiting here */
	pthread_mutex_unlock(&lock);
	free(item);
}

bool vu_release_waiting(void)
{
	return __atomic_load_n(&all_waiting, __ATOMIC_RELAXED);
}

bool vu_release_full(uint32_t uid)
{
	const struct lane *l;
	bool full;

	if (!vu_release_waiting())
		return false;
	pthread_mutex_lock(&lock);
	l = find(uid, false);
	full = l && l->waiting > LANE_WAITING;
	pthread_mutex_unlock(&lock);
	return full;
}

bool vu_release_stuck(uint32_t uid)
{
	const struct lane *l;
	bool stuck;

	if (!vu_release_waiting())
		return false;
	pthread_mutex_lock(&lock);
	l = find(uid, false);
	stuck = l && l->waiting > LANE_WAITING && l->busy == LANE_THREADS && !l->moved && look_ms - l->moved_ms > STUCK_MS;
	pthread_mutex_unlock(&lock);
	return stuck;
}

void vu_release_look(int64_t now_ms)
{
	int64_t gap;

	if (!vu_release_waiting())
		return;
	pthread_mutex_lock(&lock);
	gap = now_ms - look_ms > GAP_MS ? now_ms - look_ms : 0;
	look_ms = now_ms;
	for (struct lane *l = lanes; l; l = l->next) {
		if (l->moved)
			l->moved_ms = now_ms;
		else
			l->moved_ms += gap;
		if (!l->moved && l->waiting && l->most < LANE_THREADS)
			l->most *= 2;
		l->moved = false;
	}
	begin_threads();
	pthread_mutex_unlock(&lock);
}

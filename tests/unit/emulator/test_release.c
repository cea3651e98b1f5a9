// SPDX-License-Identifier: MIT
/*
 * Descriptors whose close() does not return: what else is closed, and when their user is said to be
 * stuck.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "emulator/vfio_user.h"

#include "harness.h"

#define HANG_S 60 /* what takes longer than this never ends */
#define FDS 8192
#define STUCK 200 /* more than the threads of one user, and than may wait besides */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool stuck[FDS], gone[FDS];

int __real_close(int fd);
int __wrap_close(int fd);

/* A file whose close() returns when let_go() says so. */
int __wrap_close(int fd)
{
	int rc;

	pthread_mutex_lock(&lock);
	while (stuck[fd])
		pthread_cond_wait(&changed, &lock);
	rc = __real_close(fd);
	gone[fd] = true;
	pthread_mutex_unlock(&lock);
	return rc;
}

static int descriptor(bool is_stuck)
{
	int fd = dup(STDERR_FILENO);

	HOLDS(fd >= 0 && fd < FDS);
	pthread_mutex_lock(&lock);
	stuck[fd] = is_stuck;
	gone[fd] = false;
	pthread_mutex_unlock(&lock);
	return fd;
}

static void let_go(const int *fds, unsigned int count)
{
	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < count; i++)
		stuck[fds[i]] = false;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static bool is_gone(int fd)
{
	bool is;

	pthread_mutex_lock(&lock);
	is = gone[fd];
	pthread_mutex_unlock(&lock);
	return is;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* As the card's loop does it. */
static void look(void)
{
	vu_release_look(now_ms());
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
}

static void all_are_closed(const int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		while (!is_gone(fds[i])) /* alarm() ends it */
			look();
}

static void release(int *fds, unsigned int count, uint32_t uid, bool socket, bool is_stuck)
{
	for (unsigned int i = 0; i < count; i++) {
		fds[i] = descriptor(is_stuck);
		vu_release(fds[i], uid, socket);
	}
	vu_release_turn();
}

static void one_that_does_not_close_holds_up_no_other(void)
{
	int bad, own[20], others[20], sockets[20];

	release(&bad, 1, 1000, false, true);
	release(own, 20, 1000, false, false);
	release(others, 20, 1001, false, false);
	release(sockets, 20, 1000, true, false);
	all_are_closed(own, 20);
	all_are_closed(others, 20);
	all_are_closed(sockets, 20);
	HOLDS(!is_gone(bad) && !vu_release_full(1000, true) && !vu_release_stuck(1000));
	let_go(&bad, 1);
	all_are_closed(&bad, 1);
}

static void a_peer_that_sends_none_is_read_longer(void)
{
	int bad[100];

	release(bad, 100, 1000, false, true);
	HOLDS(vu_release_full(1000, true) && !vu_release_full(1000, false));
	let_go(bad, 100);
	all_are_closed(bad, 100);
}

static void a_user_whose_descriptors_do_not_close_is_stuck_and_alone(void)
{
	int bad[STUCK], others[100], sockets[20], own[20];

	release(bad, STUCK, 1000, false, true);
	HOLDS(vu_release_full(1000, true) && vu_release_full(1000, false) &&
		!vu_release_stuck(1000));
	while (!vu_release_stuck(1000)) { /* alarm() ends it */
		look();
		HOLDS(vu_release_full(1000, true) && !vu_release_full(1001, true) &&
			!vu_release_stuck(1001));
	}
	release(others, 100, 1001, false, false);
	release(sockets, 20, 1000, true, false);
	release(own, 20, geteuid(), false, false);
	all_are_closed(others, 100);
	all_are_closed(sockets, 20);
	all_are_closed(own, 20);
	HOLDS(vu_release_stuck(1000) && !vu_release_stuck(1001));
	let_go(bad, STUCK);
	all_are_closed(bad, STUCK);
	while (vu_release_waiting())
		look();
	HOLDS(!vu_release_full(1000, true) && !vu_release_stuck(1000));
}

/* A burst that is closed as fast as it goes is no fault. */
static void many_that_close_leave_their_user_alone(void)
{
	int fds[2000];

	for (int round = 0; round < 5; round++) {
		release(fds, 2000, 1000, false, false);
		while (vu_release_waiting()) {
			HOLDS(!vu_release_stuck(1000));
			look();
		}
		all_are_closed(fds, 2000);
	}
}

static unsigned int thread_count(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	unsigned int count = 0;
	char line[256];

	HOLDS(status);
	while (fgets(line, sizeof(line), status))
		sscanf(line, "Threads: %u", &count);
	fclose(status);
	return count;
}

static void many_users_leave_each_other_a_thread(void)
{
	static int bad[40][100];
	int own[20];
	unsigned int threads;

	for (uint32_t u = 0; u < 40; u++)
		release(bad[u], 100, 2000 + u, false, true);
	for (int i = 0; i < 20; i++)
		look();
	threads = thread_count();
	HOLDS(threads > 1000 && threads < 1100);
	release(own, 20, geteuid(), false, false);
	all_are_closed(own, 20);
	release(own, 20, 3000, false, false); /* one more of them */
	all_are_closed(own, 20);
	for (uint32_t u = 0; u < 40; u++)
		let_go(bad[u], 100);
	for (uint32_t u = 0; u < 40; u++)
		all_are_closed(bad[u], 100);
	release(own, 20, 3000, false, false);
	all_are_closed(own, 20);
	while (thread_count() > 20) /* what is not needed any more is not kept */
		look();
}

int main(void)
{
	struct rlimit files;

	alarm(HANG_S);
	HOLDS(getrlimit(RLIMIT_NOFILE, &files) == 0);
	files.rlim_cur = files.rlim_max < FDS ? files.rlim_max : FDS;
	HOLDS(setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur >= 4200);
	one_that_does_not_close_holds_up_no_other();
	a_peer_that_sends_none_is_read_longer();
	a_user_whose_descriptors_do_not_close_is_stuck_and_alone();
	many_that_close_leave_their_user_alone();
	many_users_leave_each_other_a_thread();
	return 0;
}

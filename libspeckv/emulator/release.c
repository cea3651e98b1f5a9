// SPDX-License-Identifier: MIT
/*
 * Closing descriptors that came from a peer. close() of the last one of a file runs whatever that kind of file does at its end, which may
 * take as long as the peer likes (a socket that lingers, a file system in user space): threads of their own wait for that.
 */
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vfio_user.h"

#define THREADS 8
#define EACH 64 /* that wait before one more thread is begun */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static int *waiting;
static unsigned int count, room, threads;

static void *closer(void *unused)
{
	(void)unused;
	pthread_mutex_lock(&lock);
	for (;;) {
		int fd;

		while (!count)
			pthread_cond_wait(&more, &lock);
		fd = waiting[--count];
		pthread_mutex_unlock(&lock);
		close(fd);
		pthread_mutex_lock(&lock);
	}
	return NULL;
}

static bool begin_thread(void)
{
	pthread_t thread;
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
	rc = pthread_create(&thread, NULL, closer, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		return false;
	pthread_detach(thread);
	threads++;
	return true;
}

void vu_release(int fd)
{
	struct linger none = { 0, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	pthread_mutex_lock(&lock);
	if (count == room) {
		int *grown = realloc(waiting, (room + 256) * sizeof(*grown));

		if (grown) {
			waiting = grown;
			room += 256;
		}
	}
	if (count < room && ((threads && (threads == THREADS || count < threads * EACH)) || begin_thread() || threads)) {
		waiting[count++] = fd;
		fd = -1;
		pthread_cond_signal(&more);
	}
	pthread_mutex_unlock(&lock);
	if (fd >= 0)
		close(fd);
}

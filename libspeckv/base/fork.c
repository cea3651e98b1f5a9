// SPDX-License-Identifier: MIT
/* Handling of guarded descriptors and mappings at fork(). */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fork.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fork_guard *list;
static _Atomic unsigned int forks;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void)
{
	pthread_mutex_lock(&lock);
}

static void parent(void)
{
	pthread_mutex_unlock(&lock);
}

/*
 * MADV_DONTFORK left a hole in the child: map zero pages there, so that accesses do not fault. The
 * range is still free, as this handler runs before fork() returns. If no mapping succeeds, it stays
 * a hole.
 */
static void guard_fill(struct fork_guard *guard)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
	void *at = mmap(guard->map, guard->map_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (at == MAP_FAILED) /* strict overcommit counts writable mappings */
		at = mmap(guard->map, guard->map_bytes, PROT_READ, flags, -1, 0);
	if (at == guard->map)
		return;
	if (at != MAP_FAILED)
		munmap(at, guard->map_bytes);
	guard->map = NULL;
}

static void child(void)
{
	for (struct fork_guard *g = list; g; g = g->next) {
		if (g->fd >= 0)
			close(g->fd);
		g->fd = -1;
		if (g->map)
			guard_fill(g);
	}
	list = NULL;
	atomic_fetch_add(&forks, 1);
	pthread_mutex_unlock(&lock);
}

static void handlers_install(void)
{
	pthread_atfork(prepare, parent, child);
}

void fork_hold(void)
{
	pthread_once(&once, handlers_install);
	pthread_mutex_lock(&lock);
}

void fork_let(void)
{
	pthread_mutex_unlock(&lock);
}

void fork_guard_add_held(struct fork_guard *guard, int fd, void *map, size_t map_bytes)
{
	if (map)
		madvise(map, map_bytes, MADV_DONTFORK);
	*guard = (struct fork_guard){ .next = list, .fd = fd, .map = map, .map_bytes = map_bytes };
	guard->forks = atomic_load_explicit(&forks, memory_order_relaxed);
	list = guard;
}

void fork_guard_add(struct fork_guard *guard, int fd, void *map, size_t map_bytes)
{
	fork_hold();
	fork_guard_add_held(guard, fd, map, map_bytes);
	fork_let();
}

void fork_guard_map(struct fork_guard *guard, void *map, size_t map_bytes)
{
	fork_hold();
	madvise(map, map_bytes, MADV_DONTFORK);
	guard->map = map;
	guard->map_bytes = map_bytes;
	fork_let();
}

void fork_guard_release(struct fork_guard *guard)
{
	pthread_mutex_lock(&lock);
	for (struct fork_guard **g = &list; *g; g = &(*g)->next)
		if (*g == guard) {
			*g = guard->next;
			break;
		}
	if (guard->fd >= 0) /* with fork() excluded: the child would inherit it unguarded */
		close(guard->fd);
	pthread_mutex_unlock(&lock);
	if (guard->map)
		munmap(guard->map, guard->map_bytes);
}

bool fork_guard_stale(const struct fork_guard *guard)
{
	return guard->forks != atomic_load_explicit(&forks, memory_order_relaxed);
}

// SPDX-License-Identifier: MIT
/*
 * Files that are removed or truncated while mapped (a clean-up of /dev/shm, logind's RemoveIPC). A
 * removed file is detected by fstat(), at most once a second while the pool is used. An access
 * beyond a truncated file's end raises SIGBUS: the handler replaces the whole mapping by anonymous
 * memory, so that the running call finds nothing and returns, and every later call fails with
 * -ESTALE.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "store.h"

#define SPANS 1024 /* watched mappings of a process; any more are not watched */
#define LOOK_EVERY_NS 1000000000ull

static struct span {
	_Atomic uintptr_t base; /* 0: free; 1: being set */
	size_t bytes;
	_Atomic uint32_t *lost;
} spans[SPANS];
static struct sigaction before;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Signal context: atomic loads and stores, mmap() and madvise() only. */
static void handle(int number, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	int saved = errno;

	for (int i = 0; i < SPANS; i++) {
		uintptr_t base = load_acquire(&spans[i].base);

		if (base <= 1 || at < base || at - base >= spans[i].bytes)
			continue;
		store_release(spans[i].lost, 1);
		if (mmap((void *)base, spans[i].bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			    0) == MAP_FAILED)
			break;
		madvise((void *)base, spans[i].bytes, MADV_DONTFORK);
		errno = saved;
		return;
	}
	/* not a watched mapping: chain to the previous handler */
	if (before.sa_flags & SA_SIGINFO && before.sa_sigaction)
		before.sa_sigaction(number, info, context);
	else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
		before.sa_handler(number);
	else
		signal(SIGBUS, SIG_DFL); /* the access is repeated */
	errno = saved;
}

/*
 * The mappings are not inherited (MADV_DONTFORK): a child may map other memory at their addresses.
 */
static void forget_all(void)
{
	for (int i = 0; i < SPANS; i++)
		store_release(&spans[i].base, 0);
}

static void install(void)
{
	struct sigaction action = { .sa_sigaction = handle,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK };

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, &before);
	pthread_atfork(NULL, NULL, forget_all);
}

void lost_watch(void *base, uint64_t bytes, _Atomic uint32_t *lost)
{
	pthread_once(&once, install);
	for (int i = 0; i < SPANS; i++) {
		uintptr_t none = 0;

		if (!atomic_compare_exchange_strong(&spans[i].base, &none, 1))
			continue;
		spans[i].bytes = bytes;
		spans[i].lost = lost;
		store_release(&spans[i].base, (uintptr_t)base);
		return;
	}
}

void lost_forget(const void *base)
{
	for (int i = 0; i < SPANS; i++)
		if (load_acquire(&spans[i].base) == (uintptr_t)base)
			store_release(&spans[i].base, 0);
}

bool region_look(struct region *r, uint64_t now)
{
	struct stat st;

	store_relaxed(&r->looked_ns, now);
	if (fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode) &&
		(!st.st_nlink ||
			(uint64_t)st.st_size <
				(r->dev->single_inode ? r->dev->medium_bytes : r->mapped_bytes)))
		store_release(&r->lost, 1);
	return load_acquire(&r->lost) != 0;
}

bool region_lost(struct region *r)
{
	struct timespec t;
	uint64_t now;

	if (__builtin_expect(load_relaxed(&r->lost), 0))
		return true;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t); /* no system call */
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return __builtin_expect(now - load_relaxed(&r->looked_ns) > LOOK_EVERY_NS, 0) &&
		region_look(r, now);
}

// SPDX-License-Identifier: MIT
/* SIGBUS handler for mappings whose backing can vanish. */
#include "guard.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define WATCHED 32768
#define PAGE_BYTES 4096u

static struct watched {
	uint8_t *at; /* NULL: free */
	size_t bytes;
	int *error;
	bool page;
} watched[WATCHED];
static unsigned int used, next_free; /* all watched mappings are below `used` */

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;

	(void)context;
	for (unsigned int i = 0; i < used; i++) {
		const struct watched *w = &watched[i];
		size_t bytes = w->page ? PAGE_BYTES : w->bytes;

		if (!w->at || at < w->at || at >= w->at + w->bytes)
			continue;
		at = w->page ? (uint8_t *)((uintptr_t)at & ~(uintptr_t)(PAGE_BYTES - 1)) : w->at;
		if (mmap(at, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			    0) == MAP_FAILED)
			break;
		*w->error = -EFAULT;
		return;
	}
	/* not watched: the instruction faults again and ends the process */
	signal(number, SIG_DFL);
}

void guard_begin(void)
{
	sigaction(SIGBUS,
		&(struct sigaction){
			.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER },
		NULL);
}

bool guard_add(void *at, size_t bytes, int *error, bool page)
{
	unsigned int i = next_free;

	while (i < WATCHED && watched[i].at)
		i++;
	if (i >= WATCHED)
		return false;
	watched[i] = (struct watched){ at, bytes, error, page };
	next_free = i + 1;
	used = i + 1 > used ? i + 1 : used;
	return true;
}

void guard_remove(const void *at)
{
	for (unsigned int i = 0; i < used; i++)
		if (watched[i].at == at) {
			watched[i].at = NULL;
			next_free = i < next_free ? i : next_free;
			while (used && !watched[used - 1].at)
				used--;
			return;
		}
}

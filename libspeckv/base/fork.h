/* SPDX-License-Identifier: MIT */
/*
 * What of a handle must not reach a forked child: descriptors whose locks or connections would
 * outlive the parent, and shared mappings.
 */
#ifndef SPECKV_BASE_FORK_H
#define SPECKV_BASE_FORK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A handle ends at fork(). In the child its descriptor is closed, and private zero pages stand
 * where its mapping was, so that a pointer into it is no fault, and the range belongs to nothing
 * else until the handle is closed. Threads: any; a guard belongs to one handle.
 */
struct fork_guard {
	struct fork_guard *next;
	int fd; /* -1: none */
	void *map; /* NULL: none */
	size_t map_bytes;
	unsigned int forks;
};

/* From now on `fd` (or -1) and the mapping (or NULL) are the guard's. */
void fork_guard_add(struct fork_guard *guard, int fd, void *map, size_t map_bytes);
/* Memory that goes with a guard that has none yet. */
void fork_guard_map(struct fork_guard *guard, void *map, size_t map_bytes);
/*
 * Keep fork() out: between both a descriptor is opened and made a guard's, so that no child has it
 * that the guard does not know. Short, and not twice by one thread.
 */
void fork_hold(void);
void fork_guard_add_held(struct fork_guard *guard, int fd, void *map, size_t map_bytes);
void fork_let(void);
/* Close the descriptor and unmap the memory, in the parent or in a child. */
void fork_guard_release(struct fork_guard *guard);
/* Was fork() called since fork_guard_add(), and is this the child? */
bool fork_guard_stale(const struct fork_guard *guard);

#endif

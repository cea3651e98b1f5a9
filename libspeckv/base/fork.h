/* SPDX-License-Identifier: MIT */
/*
 * Parts of a handle that a forked child must not inherit: descriptors whose locks or connections
 * would outlive the parent, and shared mappings.
 */
#ifndef SPECKV_BASE_FORK_H
#define SPECKV_BASE_FORK_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A handle ends at fork(). In the child its descriptor is closed, and private zero pages replace
 * its mapping: reads of it do not fault, nor do writes, unless strict overcommit leaves no room for
 * writable pages; the range stays reserved until the handle is closed. Threads: any; a guard
 * belongs to one handle.
 */
struct fork_guard {
	struct fork_guard *next;
	int fd; /* -1: none */
	void *map; /* NULL: none */
	size_t map_bytes;
	unsigned int forks;
};

/* The guard takes ownership of `fd` (or -1) and the mapping (or NULL). */
void fork_guard_add(struct fork_guard *guard, int fd, void *map, size_t map_bytes);
/* Add a mapping to a guard without one. */
void fork_guard_map(struct fork_guard *guard, void *map, size_t map_bytes);
/*
 * Exclude fork() while a descriptor is opened and handed to a guard, so that no child inherits it
 * unguarded. Short; not recursive.
 */
void fork_hold(void);
void fork_guard_add_held(struct fork_guard *guard, int fd, void *map, size_t map_bytes);
void fork_let(void);
/* Close the descriptor and unmap the memory, in the parent or in a child. */
void fork_guard_release(struct fork_guard *guard);
/* Is this a child forked since fork_guard_add()? */
bool fork_guard_stale(const struct fork_guard *guard);

#endif

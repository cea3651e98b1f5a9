/* SPDX-License-Identifier: MIT */
/*
 * Memory that may be gone when it is touched (SIGBUS): a peer's file whose pages cannot be had, the
 * card's own on a full file system. In its place comes memory that is private to this process, and
 * its owner hears of it; the process goes on.
 */
#ifndef SPECKV_EMULATOR_GUARD_H
#define SPECKV_EMULATOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Once, before the first guard_add(). */
void guard_begin(void);
/*
 * Watch a mapping; *error becomes -EFAULT when it had to be replaced: all of it, or the page alone.
 * False: there are as many as can be watched.
 */
bool guard_add(void *at, size_t bytes, int *error, bool page);
void guard_remove(const void *at);

#endif

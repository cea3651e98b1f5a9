/* SPDX-License-Identifier: MIT */
/*
 * Mappings whose backing can vanish (SIGBUS on access): a peer's file that was truncated or
 * punched, the card's own on a full file system. Private memory replaces the mapping, an error is
 * recorded for its owner, and the process continues.
 */
#ifndef SPECKV_EMULATOR_GUARD_H
#define SPECKV_EMULATOR_GUARD_H

#include <stdbool.h>
#include <stddef.h>

/* Once, before the first guard_add(). */
void guard_begin(void);
/*
 * Watch a mapping; *error becomes -EFAULT when it was replaced: as a whole, or only the `page`.
 * False: too many mappings.
 */
bool guard_add(void *at, size_t bytes, int *error, bool page);
void guard_remove(const void *at);

#endif

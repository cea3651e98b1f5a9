/* SPDX-License-Identifier: MIT */
/*
 * Common to the host library: the context, error texts, clocks, atomic accesses, byte locks.
 */
#ifndef SPECKV_BASE_BASE_H
#define SPECKV_BASE_BASE_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <speckv/speckv.h>
#include "folder.h"

#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define sub_relaxed(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_relaxed)

/* ---- ctx.c ---------------------------------------------------------------------------------- */

struct speckv_ctx {
	char runtime_dir[SPECKV_PATH_BYTES];
	bool runtime_named; /* set by SPECKV_RUNTIME_DIR, not by default */
};
/*
 * Set this thread's error text; evaluates to `code`. A macro, so that static analysis sees the
 * value.
 */
#define fail(ctx, code, ...)                   \
	__extension__({                        \
		int fail_code_ = (code);       \
		fail_text((ctx), __VA_ARGS__); \
		fail_code_;                    \
	})
void fail_text(struct speckv_ctx *ctx, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
uint64_t now_ns(void); /* CLOCK_REALTIME, for time stamps only */
uint64_t clock_ns(void); /* CLOCK_MONOTONIC, for intervals */
int random_bytes(void *buffer, size_t bytes);
/* the program's name, without arguments, which may hold secrets */
void own_command(char command[64]);
bool name_ok(const char *name);
/* ID of the current boot; all zero if it cannot be read. Containers may have their own. */
void boot_id(uint8_t id[16]);
/* "1.5 GiB" into a buffer of 32; returns it. */
const char *human(char buffer[32], uint64_t bytes);

/* ---- locks.c -------------------------------------------------------------------------------- */

int lock_byte(int fd, long long byte); /* 0, -EAGAIN (held), others */
/* shared; downgrades an exclusive lock of this description */
int lock_byte_shared(int fd, long long byte);
/* 1: held by another, or unknown; 0: free */
int lock_holder(int fd, long long byte, int *pid);
/* Is the lock held shared by another? Read permission is enough for that. */
bool lock_shared(int fd, long long byte);
int unlock_byte(int fd, long long byte);
/* Read permissions of the classes of users without write permission. */
mode_t readers_only(mode_t mode);

#endif

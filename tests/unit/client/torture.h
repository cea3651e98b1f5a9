/* SPDX-License-Identifier: MIT */
/* What the children that are killed and their parent, which judges them, know of each other. */
#ifndef TEST_CLIENT_TORTURE_H
#define TEST_CLIENT_TORTURE_H

#include <stdatomic.h>

#include "harness.h"

#define WRITERS 3
#define OWN_KEYS 72
#define COMMON_KEYS 24
#define MANAGER WRITERS
#define CHILDREN (WRITERS + 1)
#define CAPACITY (6 * MIB)

enum belief { ABSENT, PRESENT, PUTTING, DROPPING };

struct ledger {
	_Atomic uint8_t belief[WRITERS][OWN_KEYS];
	_Atomic uint64_t steps[CHILDREN];
	_Atomic uint32_t running; /* 0: writers leave in good order */
	_Atomic uint64_t deaths_in_put, stored, dropped, resized, forked;
	_Atomic int64_t clock_step_s; /* added to the wall clock of every process of the test */
};

struct stage {
	const char *name;
	enum media medium;
	uint32_t codec, eviction;
};

/*
 * What a put of each key is given and a get must yield: made once, so that the children spend their
 * lives in the library.
 */
struct known {
	struct speckv_key key;
	uint8_t raw[SMALL_BYTES], want[SMALL_BYTES];
};

extern struct ledger *torture_ledger;
extern const struct stage *torture_stage;
extern char torture_device[300];
extern uint64_t torture_seed;
extern bool torture_mixed;
extern _Thread_local uint8_t *torture_got; /* a block */

struct speckv_key torture_common_key(unsigned int i);
struct speckv_key torture_own_key(unsigned int writer, unsigned int i);
struct known *torture_known_of(const struct speckv_key *key);
/* 1: there, with its bytes; 0: a miss. Anything else ends the test. */
int torture_look(struct speckv_pool *pool, const struct speckv_key *key);

/* The children; a writer's argument is its number. */
int torture_writer(void *arg);
int torture_manager(void *arg);

#endif

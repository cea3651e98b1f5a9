/* SPDX-License-Identifier: MIT */
/* The record that powerloss_record.c keeps, and the tests of powerloss.c make states from. */
#ifndef TEST_CLIENT_POWERLOSS_H
#define TEST_CLIENT_POWERLOSS_H

#include "harness.h"

#define TEXT(out, ...) \
	CHECK((size_t)snprintf(out, sizeof(out), __VA_ARGS__) < sizeof(out), "a path is too long")

/*
 * How what is pending is mixed into a state: none of it, all of it, or each piece of a file by
 * chance, in a size drawn for the file from granules[] in powerloss_record.c.
 */
enum powerloss_mixture { NOTHING, EVERYTHING, CHANCE };

extern char powerloss_root[300]; /* what is recorded */
extern bool powerloss_recording;

/* What was stored, and which names came and went, since the last look. */
void powerloss_look(void);
/* What a power loss may take away. */
size_t powerloss_pending(void);
/* None of what is there now. */
void powerloss_keep(void);
/* A new record. */
void powerloss_forget(void);
/* The names of a state, and what lies under them. */
void powerloss_make_state(const char *to, enum powerloss_mixture mixture, uint64_t *state);

/* Called where the power may go; powerloss.c's. */
void powerloss_crash(const char *when);

#endif

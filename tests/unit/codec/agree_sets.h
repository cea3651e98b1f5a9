/* SPDX-License-Identifier: MIT */
/* What the comparisons of one mode share: the sets of kernels, where they are, and room. */
#ifndef TEST_CODEC_AGREE_SETS_H
#define TEST_CODEC_AGREE_SETS_H

#include "agree.h"
#include "calibrated.h"

enum mode { FIXED, Q5C, E7C, MODES };

struct tally {
	uint64_t groups, refused, any_bytes;
	uint64_t means, alone, stored, escaped; /* two of the fixed-rate modes, two of e7c */
};

struct worker {
	uint64_t groups, seed;
	struct tally modes[MODES];
	uint64_t kinds[AGREE_KINDS];
	pid_t process;
	bool done;
};

/* filled with before each call: what one set leaves out is not to be had from the set before */
#define STALE 0xee

/* Neighbours in the table share functions: each is tried once. */
#define FOR_EACH_SET(k, field)                                      \
	for (unsigned int k = 1; k < agree_set_count; k++)          \
		if (agree_sets[k]->field != agree_sets[0]->field && \
			agree_sets[k]->field != agree_sets[k - 1]->field)

/* the portable one, then what this processor has, slowest first */
extern const struct codec_kernels *agree_sets[8];
extern unsigned int agree_set_count;
extern const struct worker *agree_who;
extern enum mode agree_mode;
extern uint64_t agree_group;

extern uint64_t agree_words[TOKENS * MOST / 4 + 8];
extern uint8_t agree_decoded[2 * TOKENS * MOST], agree_expected[2 * TOKENS * MOST];

void agree_hold(bool same, unsigned int k, const char *what, const struct group_shape *s);
void agree_any_bytes(uint64_t *seed, uint8_t *to, uint32_t bytes);
unsigned int agree_any_head_dim(uint64_t how);

/* One group of a mode, by every set. */
void agree_q5c(uint64_t *seed, struct tally *tally, uint64_t *kinds);
void agree_e7c(uint64_t *seed, struct tally *tally, uint64_t *kinds);

#endif

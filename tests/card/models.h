/* SPDX-License-Identifier: MIT */
/*
 * Model files as train-prefetcher writes them, made here: of random numbers, and one whose answer
 * is known beforehand; and a card that is asked with one.
 */
#ifndef TEST_CARD_MODELS_H
#define TEST_CARD_MODELS_H

#include "rig.h"

struct model_file {
	uint8_t *bytes; /* malloc */
	uint64_t length;
	uint64_t table; /* length of its JSON, which begins at 8 */
};

/* Every number follows from the seed; tests/unit/predictor/card_scores.py makes the same. */
struct model_file model_random(uint64_t seed, unsigned int features, unsigned int bins);
/*
 * Two features, of which the second is not looked at; nothing is remembered. A session whose last
 * first feature was 100 comes back within 10 seconds almost surely, one of -100 almost surely not
 * within 1000. Window 30 seconds.
 */
struct model_file model_of_rule(void);
#define MODEL_SOON 100 /* such a first feature */
#define MODEL_NEVER (-100)
/* Put it into host memory of the admin function and load it. */
uint16_t model_load(struct client *admin, const struct model_file *model);
uint16_t model_unload(struct client *admin);

/* A bench with a block at 0, of generation 1, and this model, if it is not NULL. */
struct bench model_bench(const struct model_file *model);
uint16_t model_touch(struct bench *b, uint64_t address, uint32_t session, const int8_t *features,
	unsigned int count);
union card_entry model_ask(uint32_t session, unsigned int candidates);
/* The score of the block at 0 for a session. */
int32_t model_score(struct bench *b, uint32_t session, const int8_t *features, unsigned int count,
	uint8_t flags);
/* One of the figures of SPECKV_FEATURE_POOL_PREFETCH, each a byte that begins at: */
enum {
	MODEL_DEPTH = 0,
	MODEL_GUARDED = 8,
	MODEL_SETTLED = 16,
	MODEL_USED = 24,
	MODEL_DECIDED = 32,
	MODEL_WON = 40,
	MODEL_ENGAGED = 48
};
uint64_t model_figure(struct bench *b, unsigned int shift);

#endif

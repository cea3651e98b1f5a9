/* SPDX-License-Identifier: MIT */
/*
 * Model files as train-prefetcher writes them, made here: of random numbers, and one whose answer
 * is known beforehand.
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
/* Put it into host memory of the admin function and load it. */
uint16_t model_load(struct client *admin, const struct model_file *model);
uint16_t model_unload(struct client *admin);

#endif

/* SPDX-License-Identifier: MIT */
/* State of a simulation: shared by sim.c and sim_cache.c. */
#ifndef SPECKV_PREDICTOR_SIM_H
#define SPECKV_PREDICTOR_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "predictor/simulation.h"

#define SIM_CHILDREN 4

struct sim_block {
	uint64_t sequence; /* of its last touch or arrival; breaks ties */
	uint64_t ready_ns; /* arrival time of a prefetched block */
	uint64_t weight_ms; /* time at which `weight` was computed */
	uint64_t weight; /* accesses, decayed, in units of 2^-16 */
	uint32_t score;
	uint32_t owner; /* last request that touched it */
	uint32_t children; /* distinct successors */
	uint32_t recent[SIM_CHILDREN]; /* the most recent of these */
	uint32_t slot; /* in `cached` */
	bool in, seen;
	/* prefetched and not used since; counted as issued */
	bool fetched, counted;
};

struct sim_entry {
	uint64_t sequence;
	uint32_t score;
	uint32_t block;
};

struct sim_candidate {
	uint32_t score;
	uint32_t request;
};

struct sim {
	const struct speckv_trace *trace;
	const struct speckv_sim_config *config;
	struct speckv_sim_event *events;
	uint64_t capacity;
	struct speckv_sim_result *result;
	struct sim_block *blocks;
	/* Entries whose block has changed are stale, and are dropped when they reach the top. */
	struct sim_entry *heap;
	uint64_t entries, room;
	uint32_t *cached, cached_count;
	uint8_t *done; /* [request] has a continuation */
	uint32_t *missing; /* [request] number of its blocks missing from the cache */
	/* requests without a continuation, in order; others are removed lazily */
	uint32_t *live, live_count;
	uint32_t *scores; /* [request] score at tick `stamps` */
	uint64_t *stamps;
	struct sim_candidate *candidates;
	uint32_t *queue, queued;
	uint64_t sequence, ticks;
	uint64_t channel_ns; /* when the channel is free */
};

void sim_tell(struct sim *sim, uint32_t action, uint32_t node, uint64_t now, uint64_t ready);
/* Rebuild the heap from the cache's contents. */
void sim_cache_rebuild(struct sim *sim);
/* The next victim; the cache is not empty. */
uint32_t sim_cache_victim(struct sim *sim);
void sim_cache_put(struct sim *sim, uint32_t node, uint32_t score);
void sim_cache_evict(struct sim *sim, uint64_t now);

#endif

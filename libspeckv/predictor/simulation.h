/* SPDX-License-Identifier: MIT */
/*
 * The simulator that predictors are evaluated with: in the Python binding and in tests, not in the
 * library. Integers only: the result is the same everywhere. Threads: any.
 */
#ifndef SPECKV_PREDICTOR_SIMULATION_H
#define SPECKV_PREDICTOR_SIMULATION_H

#include <stdint.h>

#include <speckv/predictor.h>

/** Eviction policy, and prefetch policy. */
enum speckv_sim_policy {
	SPECKV_SIM_LRU = 0, /**< evict the least recently used block */
	/** evict the block with the lowest score; among equals, the least recently used */
	SPECKV_SIM_SCORE = 1,
};
enum speckv_sim_prefetch {
	SPECKV_SIM_FETCH_NONE = 0,
	SPECKV_SIM_FETCH_SCORE = 1, /**< blocks of the sessions with the highest scores */
	/** blocks that last followed the last block of each request, up to 16 deep */
	SPECKV_SIM_FETCH_CHILD = 2,
};
enum speckv_sim_action {
	SPECKV_SIM_DEMAND = 0,
	SPECKV_SIM_PREFETCH = 1,
	SPECKV_SIM_EVICT = 2,
};

struct speckv_sim_config {
	/** of the GPU's cache; the pool behind it holds every block ever seen */
	uint32_t capacity_blocks;
	uint32_t policy; /**< enum speckv_sim_policy */
	uint32_t prefetch; /**< enum speckv_sim_prefetch */
	uint32_t curve; /**< enum speckv_curve */
	/** edges of a curve, at most SPECKV_PREDICTOR_BINS_MAX + 1; 0 if no score is needed */
	uint32_t edges;
	uint32_t window_ms; /**< prediction window of a score */
	uint64_t tick_ns; /**< interval of score updates and prefetches */
	uint64_t transfer_ns; /**< of one prefetched block, sequentially; 0: no limit */
	uint64_t count_from_ns; /**< earlier activity is not counted */
	const uint32_t *edges_ms; /**< [edges] */
	/** [requests][edges]: the curve of each request, from its time on */
	const uint32_t *values;
};

/** Counts from count_from_ns on. issued = useful + late + unused. */
struct speckv_sim_result {
	uint64_t requests;
	uint64_t requests_whole; /**< all their stored blocks, at least one, were hits */
	uint64_t demanded; /**< stored blocks that requests needed */
	uint64_t hits; /**< of these, in the GPU's cache in time */
	uint64_t issued; /**< blocks prefetched */
	/** of these, needed after their arrival and before their eviction */
	uint64_t useful;
	uint64_t late; /**< of these, needed before their arrival: not hits */
	/** of these, evicted or left at the end without being needed */
	uint64_t unused;
	uint64_t chain_steps; /**< stored blocks that follow a stored block of their request */
	uint64_t chain_top1; /**< of these, the successor seen last */
	uint64_t chain_top4; /**< of these, one of the four different successors seen last */
	uint64_t events; /**< events, from the beginning of the trace on */
};

struct speckv_sim_event {
	uint64_t time_ns;
	uint64_t ready_ns; /**< arrival of a prefetched block; else time_ns */
	uint32_t node;
	uint32_t score; /**< of the block at that time; 0 if not scored */
	uint32_t action; /**< enum speckv_sim_action */
	uint32_t reserved;
};

/**
 * Replay a trace against a cache of `capacity_blocks`. Every request demands its stored blocks,
 * then inserts all its blocks, then blocks (its own, too) are evicted until the rest fits. Only
 * demands, prefetches and evictions are events. At most `capacity` events are written to `events`
 * (NULL if 0). A block's score is its last request's, 0 once another request continued that one;
 * blocks with three or more successors have at least the score of their own recent rate (half-life
 * 300 s). Errors: -EINVAL (NULL, an index or time out of range, an invalid setting), -ENOMEM.
 */
int speckv_sim_run(const struct speckv_trace *trace, const struct speckv_sim_config *config,
	struct speckv_sim_event *events, uint64_t capacity, struct speckv_sim_result *result);

#endif

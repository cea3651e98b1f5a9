// SPDX-License-Identifier: MIT
/*
 * Trace-driven simulation of a GPU's cache in front of a pool that holds every block. Integers
 * only: the result is the same everywhere.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "predictor/curve.h"
#include "predictor/sim.h"
#include "predictor/tree.h"

#define NONE SPECKV_NO_REQUEST
#define ONE ((uint32_t)SPECKV_PREDICTOR_ONE)
#define MS 1000000ull
#define HALF_LIFE_MS 300000
#define CHILD_DEPTH 16
#define QUEUE_MAX 4096
#define TICKS_MAX (1u << 27)

static bool counts(const struct sim *sim, uint64_t now)
{
	return now >= sim->config->count_from_ns;
}

void sim_tell(struct sim *sim, uint32_t action, uint32_t node, uint64_t now, uint64_t ready)
{
	uint64_t at = sim->result->events++;

	if (at < sim->capacity)
		sim->events[at] = (struct speckv_sim_event){ .time_ns = now,
			.ready_ns = ready,
			.node = node,
			.score = sim->blocks[node].score,
			.action = action };
}

/* ---- scores --------------------------------------------------------------------------------- */

static uint32_t request_score(const struct sim *sim, uint32_t request, uint64_t now)
{
	const struct speckv_sim_config *config = sim->config;

	if (request == NONE || sim->done[request])
		return 0;
	return speckv_curve_score((enum speckv_curve)config->curve, config->edges_ms,
		config->values + (uint64_t)request * config->edges, config->edges,
		(now - sim->trace->time_ns[request]) / MS, config->window_ms);
}

static uint64_t decayed(const struct sim_block *block, uint64_t now_ms)
{
	return block->weight * predictor_half(((now_ms - block->weight_ms) << 16) / HALF_LIFE_MS) >>
		16;
}

/* The probability that a shared block is needed within the window, at its own recent rate. */
static uint32_t shared_score(const struct sim *sim, const struct sim_block *block, uint64_t now)
{
	if (block->children < PREDICTOR_SHARED)
		return 0;
	/* rate x window / ln 2 = weight / half-life x window: as a power of two. */
	return ONE -
		(predictor_half(decayed(block, now / MS) * sim->config->window_ms / HALF_LIFE_MS)
			<< 14);
}

static uint32_t block_score(const struct sim *sim, const struct sim_block *block,
	uint32_t owner_score, uint64_t now)
{
	uint32_t shared = shared_score(sim, block, now);

	return owner_score > shared ? owner_score : shared;
}

/* ---- fetching ahead ------------------------------------------------------------------------- */

static void fetch_block(struct sim *sim, uint32_t node, uint32_t score, uint64_t now)
{
	struct sim_block *block = &sim->blocks[node];

	if (sim->channel_ns < now)
		sim->channel_ns = now;
	sim->channel_ns += sim->config->transfer_ns;
	sim_cache_put(sim, node, score);
	block->ready_ns = sim->channel_ns;
	block->fetched = true;
	block->counted = counts(sim, now);
	sim->result->issued += block->counted;
	sim_tell(sim, SPECKV_SIM_PREFETCH, node, now, block->ready_ns);
}

static bool channel_full(const struct sim *sim, uint64_t now)
{
	return sim->channel_ns >= now + sim->config->tick_ns;
}

static int by_score(const void *a, const void *b)
{
	const struct sim_candidate *x = a, *y = b;

	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x->request < y->request ? 1 : -1; /* the later one first */
}

/* Sessions worth prefetching, best first. */
static uint32_t rank_requests(struct sim *sim, uint64_t now)
{
	uint32_t kept = 0, ranked = 0;

	for (uint32_t i = 0; i < sim->live_count; i++) {
		uint32_t request = sim->live[i], score;

		if (sim->done[request])
			continue;
		sim->live[kept++] = request;
		if (sim->config->policy == SPECKV_SIM_SCORE && !sim->missing[request])
			continue;
		score = request_score(sim, request, now);
		if (score > SPECKV_PREDICTOR_WORTH)
			sim->candidates[ranked++] = (struct sim_candidate){ score, request };
	}
	sim->live_count = kept;
	qsort(sim->candidates, ranked, sizeof(*sim->candidates), by_score);
	return ranked;
}

static void fetch_by_score(struct sim *sim, uint64_t now)
{
	const struct speckv_trace *trace = sim->trace;
	bool scored = sim->config->policy == SPECKV_SIM_SCORE;
	uint32_t ranked = rank_requests(sim, now);
	uint64_t considered = 0;

	for (uint32_t i = 0; i < ranked; i++) {
		uint32_t request = sim->candidates[i].request, score = sim->candidates[i].score;

		/*
		 * If the cache has no scores, nothing else keeps a session from evicting the blocks
		 * of a better one.
		 */
		considered += trace->first[request + 1] - trace->first[request];
		if (!scored && considered > sim->config->capacity_blocks)
			return;
		for (uint64_t k = trace->first[request]; k < trace->first[request + 1]; k++) {
			const struct sim_block *block = &sim->blocks[trace->nodes[k]];

			if (block->in || block->owner != request)
				continue;
			if (channel_full(sim, now))
				return;
			if (sim->cached_count >= sim->config->capacity_blocks) {
				uint64_t least = sim->blocks[sim_cache_victim(sim)].score;

				if (scored && least * 11 / 10 + ONE / 1000000 >= score)
					return;
				sim_cache_evict(sim, now);
			}
			fetch_block(sim, trace->nodes[k], scored ? score : 0, now);
		}
	}
}

static void queue_children(struct sim *sim, uint32_t node)
{
	for (int depth = 0; depth < CHILD_DEPTH && sim->queued < QUEUE_MAX; depth++) {
		if (!sim->blocks[node].children)
			return;
		node = sim->blocks[node].recent[0];
		sim->queue[sim->queued++] = node;
	}
}

static void fetch_children(struct sim *sim, uint64_t now)
{
	for (uint32_t i = 0; i < sim->queued; i++) {
		if (sim->blocks[sim->queue[i]].in)
			continue;
		if (channel_full(sim, now))
			break;
		if (sim->cached_count >= sim->config->capacity_blocks)
			sim_cache_evict(sim, now);
		fetch_block(sim, sim->queue[i], 0, now);
	}
	sim->queued = 0;
}

static void score_tick(struct sim *sim, uint64_t now)
{
	const struct speckv_sim_config *config = sim->config;

	sim->ticks++;
	if (config->policy == SPECKV_SIM_SCORE) {
		for (uint32_t i = 0; i < sim->cached_count; i++) {
			struct sim_block *block = &sim->blocks[sim->cached[i]];

			if (sim->stamps[block->owner] != sim->ticks) {
				sim->stamps[block->owner] = sim->ticks;
				sim->scores[block->owner] = request_score(sim, block->owner, now);
			}
			block->score = block_score(sim, block, sim->scores[block->owner], now);
		}
		sim_cache_rebuild(sim);
	}
	if (!config->transfer_ns)
		return;
	if (config->prefetch == SPECKV_SIM_FETCH_SCORE)
		fetch_by_score(sim, now);
	else if (config->prefetch == SPECKV_SIM_FETCH_CHILD)
		fetch_children(sim, now);
}

/* ---- requests ------------------------------------------------------------------------------- */

static void demand(struct sim *sim, uint32_t request, uint64_t now)
{
	const uint32_t *chain = sim->trace->nodes + sim->trace->first[request];
	uint32_t stored = sim->trace->stored[request], hits = 0;
	struct speckv_sim_result *result = sim->result;

	for (uint32_t k = 0; k < stored; k++) {
		struct sim_block *block = &sim->blocks[chain[k]];

		sim_tell(sim, SPECKV_SIM_DEMAND, chain[k], now, now);
		if (!block->in)
			continue;
		if (block->fetched && block->ready_ns > now) {
			result->late += block->counted;
		} else {
			hits++;
			if (block->fetched)
				result->useful += block->counted;
		}
		block->fetched = false;
	}
	if (counts(sim, now)) {
		result->requests++;
		result->demanded += stored;
		result->hits += hits;
		result->requests_whole += stored && hits == stored;
	}
}

/* Score the chain predictor on this step, then train it. */
static void follow(struct sim *sim, uint32_t node, uint32_t next, bool was_stored, uint64_t now)
{
	struct sim_block *block = &sim->blocks[node];
	uint32_t known = block->children < SIM_CHILDREN ? block->children : SIM_CHILDREN, at = 0;

	while (at < known && block->recent[at] != next)
		at++;
	if (was_stored && counts(sim, now)) {
		sim->result->chain_steps++;
		sim->result->chain_top1 += at == 0 && known;
		sim->result->chain_top4 += at < known;
	}
	if (!sim->blocks[next].seen) {
		sim->blocks[next].seen = true;
		block->children++;
	}
	if (at == SIM_CHILDREN)
		at--;
	memmove(block->recent + 1, block->recent, at * sizeof(block->recent[0]));
	block->recent[0] = next;
}

static void arrive(struct sim *sim, uint32_t request, uint64_t now)
{
	const struct speckv_trace *trace = sim->trace;
	const uint32_t *chain = trace->nodes + trace->first[request];
	uint32_t length = (uint32_t)(trace->first[request + 1] - trace->first[request]);
	bool scored = sim->config->policy == SPECKV_SIM_SCORE;
	uint32_t own;

	demand(sim, request, now);
	if (trace->parent[request] != NONE)
		sim->done[trace->parent[request]] = 1;
	sim->live[sim->live_count++] = request;
	if (length)
		sim->blocks[chain[0]].seen = true;
	for (uint32_t k = 1; k < length; k++)
		follow(sim, chain[k - 1], chain[k], k < trace->stored[request], now);

	own = scored ? request_score(sim, request, now) : 0;
	/* From the end, so that the prefix, which other requests may share, is the most recent. */
	for (uint32_t k = length; k > 0; k--) {
		struct sim_block *block = &sim->blocks[chain[k - 1]];

		if (!block->in) {
			if (block->owner != NONE)
				sim->missing[block->owner]--;
			sim->missing[request]++;
		}
		block->owner = request;
		if (scored) {
			block->weight = decayed(block, now / MS) + 0x10000;
			block->weight_ms = now / MS;
		}
		sim_cache_put(sim, chain[k - 1], scored ? block_score(sim, block, own, now) : 0);
	}
	while (sim->cached_count > sim->config->capacity_blocks)
		sim_cache_evict(sim, now);
	if (length && sim->config->prefetch == SPECKV_SIM_FETCH_CHILD)
		queue_children(sim, chain[length - 1]);
}

/* ---- the run -------------------------------------------------------------------------------- */

static bool trace_valid(const struct speckv_trace *trace)
{
	if (!trace->first || trace->first[0])
		return false;
	if (trace->requests && (!trace->time_ns || !trace->stored || !trace->parent))
		return false;
	for (uint32_t i = 0; i < trace->requests; i++) {
		if (trace->first[i + 1] < trace->first[i] ||
			trace->first[i + 1] - trace->first[i] > UINT32_MAX ||
			trace->stored[i] > trace->first[i + 1] - trace->first[i] ||
			(trace->parent[i] != NONE && trace->parent[i] >= i) ||
			(i && trace->time_ns[i] < trace->time_ns[i - 1]))
			return false;
	}
	if (trace->first[trace->requests] && !trace->nodes)
		return false;
	for (uint64_t k = 0; k < trace->first[trace->requests]; k++)
		if (trace->nodes[k] >= trace->blocks)
			return false;
	/* 2^62 ns are 146 years. */
	return !trace->requests || trace->time_ns[trace->requests - 1] < (uint64_t)1 << 62;
}

static bool config_valid(const struct speckv_trace *trace, const struct speckv_sim_config *config)
{
	bool scored = config->policy == SPECKV_SIM_SCORE ||
		config->prefetch == SPECKV_SIM_FETCH_SCORE;

	if (!config->capacity_blocks || config->capacity_blocks > (uint32_t)INT32_MAX ||
		config->policy > SPECKV_SIM_SCORE || config->prefetch > SPECKV_SIM_FETCH_CHILD ||
		config->curve > SPECKV_CURVE_SCORE || config->tick_ns < MS ||
		config->tick_ns > (uint64_t)1 << 62 || config->transfer_ns > (uint64_t)1 << 40)
		return false;
	if (trace->requests && trace->time_ns[trace->requests - 1] / config->tick_ns > TICKS_MAX)
		return false;
	if (!scored)
		return true;
	if (!config->edges_ms || !config->values || config->edges < 2 ||
		config->edges > SPECKV_PREDICTOR_BINS_MAX + 1 || config->edges_ms[0] ||
		!config->window_ms)
		return false;
	for (uint32_t i = 1; i < config->edges; i++)
		if (config->edges_ms[i] <= config->edges_ms[i - 1])
			return false;
	for (uint64_t i = 0; i < (uint64_t)trace->requests * config->edges; i++)
		if (config->values[i] > ONE)
			return false;
	return true;
}

static int sim_alloc(struct sim *sim)
{
	uint64_t blocks = (uint64_t)sim->trace->blocks + 1,
		 requests = (uint64_t)sim->trace->requests + 1;
	uint64_t kept = blocks, longest = 0;

	for (uint32_t i = 0; i < sim->trace->requests; i++)
		if (sim->trace->first[i + 1] - sim->trace->first[i] > longest)
			longest = sim->trace->first[i + 1] - sim->trace->first[i];
	/* All blocks of a request are in the cache for a moment, before others are evicted. */
	if (sim->config->capacity_blocks + longest < kept)
		kept = sim->config->capacity_blocks + longest;
	sim->room = 4 * (kept + 1) + 1024;
	sim->blocks = calloc(blocks, sizeof(*sim->blocks));
	sim->heap = malloc(sim->room * sizeof(*sim->heap));
	sim->cached = malloc((kept + 1) * sizeof(*sim->cached));
	sim->done = calloc(requests, 1);
	sim->missing = calloc(requests, sizeof(*sim->missing));
	sim->live = malloc(requests * sizeof(*sim->live));
	sim->scores = malloc(requests * sizeof(*sim->scores));
	sim->stamps = calloc(requests, sizeof(*sim->stamps));
	sim->candidates = malloc(requests * sizeof(*sim->candidates));
	sim->queue = malloc(QUEUE_MAX * sizeof(*sim->queue));
	if (!sim->blocks || !sim->heap || !sim->cached || !sim->done || !sim->missing ||
		!sim->live || !sim->scores || !sim->stamps || !sim->candidates || !sim->queue)
		return -ENOMEM;
	for (uint64_t i = 0; i < blocks; i++)
		sim->blocks[i].owner = NONE;
	return 0;
}

int speckv_sim_run(const struct speckv_trace *trace, const struct speckv_sim_config *config,
	struct speckv_sim_event *events, uint64_t capacity, struct speckv_sim_result *result)
{
	struct sim sim = { .trace = trace,
		.config = config,
		.events = events,
		.capacity = capacity,
		.result = result };
	uint64_t next_tick = 0;
	int rc;

	if (!trace || !config || !result || (capacity && !events) || !trace_valid(trace) ||
		!config_valid(trace, config))
		return -EINVAL;
	memset(result, 0, sizeof(*result));
	rc = sim_alloc(&sim);
	for (uint32_t i = 0; !rc && i < trace->requests; i++) {
		for (; next_tick <= trace->time_ns[i]; next_tick += config->tick_ns)
			score_tick(&sim, next_tick);
		arrive(&sim, i, trace->time_ns[i]);
	}
	for (uint32_t i = 0; !rc && i < sim.cached_count; i++)
		if (sim.blocks[sim.cached[i]].fetched && sim.blocks[sim.cached[i]].counted)
			result->unused++;
	free(sim.blocks);
	free(sim.heap);
	free(sim.cached);
	free(sim.done);
	free(sim.missing);
	free(sim.live);
	free(sim.scores);
	free(sim.stamps);
	free(sim.candidates);
	free(sim.queue);
	return rc;
}

/* SPDX-License-Identifier: MIT */
/**
 * speckv/predictor.h - which idle session comes back, and when: quantised inference, and the
 * simulator that judges it.
 *
 * All arithmetic is in integers: every machine computes the same. Stateless but for handles; a
 * model may be used by several threads at once. Shares and probabilities are 30-bit fixed point:
 * SPECKV_PREDICTOR_ONE is 1.
 */
#ifndef SPECKV_PREDICTOR_H
#define SPECKV_PREDICTOR_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECKV_PREDICTOR_VERSION 0
#define SPECKV_PREDICTOR_LAYERS 2
#define SPECKV_PREDICTOR_HIDDEN 128
#define SPECKV_PREDICTOR_FEATURES_MAX 64
#define SPECKV_PREDICTOR_BINS_MAX 64
#define SPECKV_PREDICTOR_HEADER_BYTES 64
#define SPECKV_PREDICTOR_ONE (1 << 30)
/** how far a score looks ahead, where a model does not say it */
#define SPECKV_PREDICTOR_WINDOW_MS 30000
#define SPECKV_PREDICTOR_WORTH 107374 /**< ONE / 10000: a smaller score is not worth a prefetch */
#define SPECKV_NO_REQUEST 0xffffffff

/** A loaded model. */
struct speckv_predictor;

/** What is remembered of one session between its turns. All zero: nothing yet. */
struct speckv_predictor_state {
	int16_t c[SPECKV_PREDICTOR_LAYERS][SPECKV_PREDICTOR_HIDDEN]; /**< units of 2^-11 */
	int8_t h[SPECKV_PREDICTOR_LAYERS][SPECKV_PREDICTOR_HIDDEN]; /**< units of 1/127 */
};

/**
 * Load a model from its flat form, which is copied. Little-endian; nothing may follow:
 *
 *   header of 64 bytes: "SPECKVP\0", u32 version, u32 bytes in all, u16 features, u16 layers, u16
 *   hidden, u16 bins, zeros,
 *                       and at byte 60 the CRC-32C of everything else (bytes 0..59, then 64..)
 *   u32 edges_ms[bins + 1]          the first 0, rising for each layer, N inputs (features, then
 *   128) and 512 rows (input, forget, cell, output gate of 128 units):
 *     i8 input[512][N], i8 recurrent[512][128], i32 input_scale[512], i32 recurrent_scale[512], i32
 *     bias[512]
 *   i8 head[bins][128], i32 head_scale[bins], i32 head_bias[bins]
 *
 * A row's sum in units of 2^-12 is ((input . x) * input_scale + (recurrent . h) * recurrent_scale +
 * 2^15 >> 16) + bias, where >> rounds down. Scales are 0 to 2^24, biases within 2^20. Edges are at
 * most 2^31 ms. Errors: -EBADMSG (cut short, longer, damaged, or a value out of its range),
 * -EPROTONOSUPPORT (another version), -EOPNOTSUPP (another shape), -EINVAL (NULL), -ENOMEM.
 */
int speckv_predictor_load(const void *bytes, size_t n, struct speckv_predictor **out);
/**
 * Load a model file, as train-prefetcher writes it, from memory; it is copied. Safetensors whose
 * tensors are exactly edges_ms (U32), layers.0 and layers.1 .input .recurrent (I8) .input_scale
 * .recurrent_scale .bias (I32), head (I8), head_scale and head_bias (I32), of the shapes above,
 * with no byte shared or left over; metadata: "format" "speckv-return-model", "version" "0" and
 * "window_ms" (1 to 2^31); other metadata is not looked at. Errors: those of
 * speckv_predictor_load(), -EFBIG (more than 128 MiB).
 */
int speckv_predictor_parse(const void *file, size_t n, struct speckv_predictor **out);
/** Free a model. NULL is allowed. */
void speckv_predictor_destroy(struct speckv_predictor *model);
/**
 * Inputs of one step, bins of its answer; and the bins' edges (bins + 1 of them, valid as long as
 * the model).
 */
uint32_t speckv_predictor_features(const struct speckv_predictor *model);
uint32_t speckv_predictor_bins(const struct speckv_predictor *model);
const uint32_t *speckv_predictor_edges_ms(const struct speckv_predictor *model);
/** How far ahead the model's scores look: what its file says, else SPECKV_PREDICTOR_WINDOW_MS. */
uint32_t speckv_predictor_window_ms(const struct speckv_predictor *model);

/**
 * One turn of one session: `features` in, `survival` out: at each edge the share of such sessions
 * that have not come back by then; survival[0] is 1, and it never rises. `before` is the state
 * after the session's last turn, NULL at its first; `after` may be the same; `survival` may be
 * NULL. Allocates nothing. Errors: -EINVAL (NULL).
 */
int speckv_predictor_step(const struct speckv_predictor *model,
	const struct speckv_predictor_state *before, const int8_t *features,
	struct speckv_predictor_state *after, uint32_t *survival);
/** The survival that the step to this state answered. Allocates nothing. Errors: -EINVAL (NULL). */
int speckv_predictor_curve(const struct speckv_predictor *model,
	const struct speckv_predictor_state *state, uint32_t *survival);

/** What a curve says. */
enum speckv_curve {
	/** share that has not come back at that age: the score is the chance for the window */
	SPECKV_CURVE_SURVIVAL = 0,
	SPECKV_CURVE_SCORE = 1, /**< the score itself, by age */
};

/**
 * The score at an age: the value of a curve given at `n` edges and joined by straight lines, or the
 * chance that a session that has been idle for `age_ms` comes back within `window_ms`. Beyond the
 * last edge a score is that of the edge; survival falls as 10^8 / (10^8 + ms beyond it). n is at
 * least 2; the edges rise from 0.
 */
uint32_t speckv_curve_score(enum speckv_curve kind, const uint32_t *edges_ms,
	const uint32_t *values, uint32_t n, uint64_t age_ms, uint32_t window_ms);

/* ---- how far ahead, and whether at all ------------------------------------------------------ */

#define SPECKV_PACE_DEPTH_MAX 16
#define SPECKV_PACE_OPEN 64 /**< contests that wait for an answer; the oldest gives way */

/**
 * What became of the last prefetches and predictions of one pool: how many blocks ahead are worth
 * fetching, and whether the model does worse than recency, so that it is to be left aside. All
 * zero: nothing yet, and depth 4. It belongs to the caller, with the lock around it; the same calls
 * give the same answers. Look at it through the functions.
 */
struct speckv_pace {
	uint64_t outcomes; /**< bit 0 the last: it was used */
	uint64_t contests; /**< bit 0 the last: the model was right */
	uint64_t open;
	uint64_t by_model[SPECKV_PACE_OPEN];
	uint64_t by_recency[SPECKV_PACE_OPEN];
	uint32_t settled;
	uint32_t since_move;
	uint32_t depth;
	uint32_t decided;
	uint32_t next;
	uint32_t guarded;
	uint32_t engaged;
	uint32_t reserved;
};

struct speckv_pace_figures {
	uint32_t depth; /**< blocks ahead, 1 to 16 */
	uint32_t guarded; /**< 1: recency instead of the model */
	uint32_t engaged; /**< how many times the guard took over */
	uint32_t settled; /**< prefetches that `used` is out of, at most 16 */
	uint32_t used;
	uint32_t decided; /**< contests that `won` is out of, at most 64 */
	uint32_t won; /**< by the model */
};

/**
 * What became of a prefetch that the model asked for: used, or thrown out unread. One that came too
 * late is neither. Of the last 16, at every eighth: with 12 used or more the depth grows by 1, with
 * less than 8 it is halved.
 */
void speckv_pace_settle(struct speckv_pace *pace, int used);
/** Blocks ahead that are worth fetching now: 1 to SPECKV_PACE_DEPTH_MAX. */
uint32_t speckv_pace_depth(const struct speckv_pace *pace);
/**
 * The model and recency disagree about who comes back first (session, block: any number that is
 * never given to another). It does not matter whose word was followed. A pair that waits for its
 * answer is not entered again.
 */
void speckv_pace_contest(struct speckv_pace *pace, uint64_t model, uint64_t recency);
/**
 * This one came back: its contests are decided. Once 64 are, of the last 64: with less than 24 won
 * by the model the guard takes over, with 32 or more it lets go again.
 */
void speckv_pace_came(struct speckv_pace *pace, uint64_t id);
void speckv_pace_figures(const struct speckv_pace *pace, struct speckv_pace_figures *out);

/* ---- the simulator -------------------------------------------------------------------------- */

/** Who makes room, and what is fetched ahead. */
enum speckv_sim_policy {
	SPECKV_SIM_LRU = 0, /**< the least recently used block goes */
	/** the block with the least score goes; of equals, the least recently used */
	SPECKV_SIM_SCORE = 1,
};
enum speckv_sim_prefetch {
	SPECKV_SIM_FETCH_NONE = 0,
	SPECKV_SIM_FETCH_SCORE = 1, /**< blocks of the sessions with the best scores */
	/** what followed last time on the last block of each request, up to 16 blocks deep */
	SPECKV_SIM_FETCH_CHILD = 2,
};
enum speckv_sim_action {
	SPECKV_SIM_DEMAND = 0,
	SPECKV_SIM_PREFETCH = 1,
	SPECKV_SIM_EVICT = 2,
};

/**
 * A trace as the prefix tree sees it, the caller's arrays. Request i needs nodes[first[i]] ..
 * nodes[first[i + 1] - 1], of which the leading stored[i] were seen before; it continues request
 * parent[i], or none (SPECKV_NO_REQUEST).
 */
struct speckv_trace {
	uint32_t requests;
	uint32_t blocks; /**< distinct nodes: 0 .. blocks - 1 */
	const uint64_t *time_ns; /**< never falling */
	const uint64_t *first; /**< requests + 1 of them, from 0 */
	const uint32_t *nodes;
	const uint32_t *stored;
	const uint32_t *parent;
};

/**
 * Build the prefix tree of opaque block ids: fills `nodes` (one for each id: equal exactly where
 * the whole chain up to there is equal), `stored`, `parent` and `*blocks`. A request continues the
 * last one that touched the last stored block of its chain, unless that block has three different
 * successors or more: a prompt that sessions share is the turn of none. Errors: -EINVAL (NULL,
 * `first` falls or does not begin with 0), -E2BIG (2^31 ids or more), -ENOMEM.
 */
int speckv_trace_link(uint32_t requests, const uint64_t *first, const uint64_t *ids,
	uint32_t *nodes, uint32_t *stored, uint32_t *parent, uint32_t *blocks);

struct speckv_sim_config {
	/** of the GPU's cache; every block ever seen is in the pool behind it */
	uint32_t capacity_blocks;
	uint32_t policy; /**< enum speckv_sim_policy */
	uint32_t prefetch; /**< enum speckv_sim_prefetch */
	uint32_t curve; /**< enum speckv_curve */
	/** edges of a curve, at most SPECKV_PREDICTOR_BINS_MAX + 1; 0 where no score is needed */
	uint32_t edges;
	uint32_t window_ms; /**< a score looks this far ahead */
	uint64_t tick_ns; /**< scores are renewed, and prefetches issued, this often */
	uint64_t transfer_ns; /**< of one prefetched block, one after the other; 0: no budget */
	uint64_t count_from_ns; /**< what happens earlier is not counted */
	const uint32_t *edges_ms; /**< [edges] */
	/** [requests][edges]: the curve of each request, from its own time on */
	const uint32_t *values;
};

/** Counts from count_from_ns on. issued = useful + late + unused. */
struct speckv_sim_result {
	uint64_t requests;
	uint64_t requests_whole; /**< all their stored blocks, at least one, were hits */
	uint64_t demanded; /**< stored blocks that requests needed */
	uint64_t hits; /**< of these, in the GPU's cache in time */
	uint64_t issued; /**< blocks prefetched */
	/** of these, needed after they had arrived and before they went */
	uint64_t useful;
	uint64_t late; /**< of these, needed before they had arrived: no hits */
	/** of these, evicted, or left at the end, without having been needed */
	uint64_t unused;
	uint64_t chain_steps; /**< stored blocks that follow a stored block of their request */
	uint64_t chain_top1; /**< of these, the successor seen last */
	uint64_t chain_top4; /**< of these, one of the four different successors seen last */
	uint64_t events; /**< that happened, from the beginning of the trace on */
};

struct speckv_sim_event {
	uint64_t time_ns;
	uint64_t ready_ns; /**< when a prefetched block has arrived; else time_ns */
	uint32_t node;
	uint32_t score; /**< of the block then; 0 where nothing is scored */
	uint32_t action; /**< enum speckv_sim_action */
	uint32_t reserved;
};

/**
 * Play a trace against a cache of `capacity_blocks`. Every request demands its stored blocks, then
 * all its blocks are in the cache, then blocks go (its own too) until the rest fits. Only demands,
 * prefetches and evictions are events. At most `capacity` events are written to `events` (NULL when
 * 0). A block's score is its last request's, 0 once another request continued that one; blocks with
 * three successors or more have at least the score of their own recent rate (half-life 300 s).
 * Errors: -EINVAL (NULL, an index or time out of place, a setting out of its range), -ENOMEM.
 */
int speckv_sim_run(const struct speckv_trace *trace, const struct speckv_sim_config *config,
	struct speckv_sim_event *events, uint64_t capacity, struct speckv_sim_result *result);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/**
 * speckv/predictor.h - prediction of session returns: quantised inference, its guard, and traces as
 * prefix trees.
 *
 * All arithmetic is integer: results are identical on every machine. Stateless but for handles; a
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
/** prediction window of a model that does not define one */
#define SPECKV_PREDICTOR_WINDOW_MS 30000
#define SPECKV_PREDICTOR_WORTH 107374 /**< ONE / 10000: a lower score is not worth a prefetch */
#define SPECKV_NO_REQUEST 0xffffffff

/** A loaded model. */
struct speckv_predictor;

/** State of one session between its turns. All zero: initial. */
struct speckv_predictor_state {
	int16_t c[SPECKV_PREDICTOR_LAYERS][SPECKV_PREDICTOR_HIDDEN]; /**< units of 2^-11 */
	int8_t h[SPECKV_PREDICTOR_LAYERS][SPECKV_PREDICTOR_HIDDEN]; /**< units of 1/127 */
};

/**
 * Load a model from its flat form, which is copied. Little-endian, without trailing bytes:
 *
 *   header of 64 bytes: "SPECKVP\0", u32 version, u32 bytes in all, u16 features, u16 layers,
 *                       u16 hidden, u16 bins, zeros, and at byte 60 the CRC-32C of everything else
 *                       (bytes 0..59, then 64..)
 *   u32 edges_ms[bins + 1]          the first 0, rising
 *   for each layer, N inputs (features, then 128) and 512 rows (input, forget, cell, output gate
 *   of 128 units):
 *     i8 input[512][N], i8 recurrent[512][128], i32 input_scale[512], i32 recurrent_scale[512],
 *     i32 bias[512]
 *   i8 head[bins][128], i32 head_scale[bins], i32 head_bias[bins]
 *
 * A row's sum in units of 2^-12 is ((input . x) * input_scale + (recurrent . h) * recurrent_scale +
 * 2^15 >> 16) + bias, where >> rounds down. Scales are 0 to 2^24, biases within 2^20. Edges are at
 * most 2^31 ms. Errors: -EBADMSG (truncated, longer, damaged, or a value out of its range),
 * -EPROTONOSUPPORT (another version), -EOPNOTSUPP (another shape), -EINVAL (NULL), -ENOMEM.
 */
int speckv_predictor_load(const void *bytes, size_t n, struct speckv_predictor **out);
/**
 * Load a model file, as written by train-prefetcher, from memory; it is copied. Safetensors whose
 * tensors are exactly edges_ms (U32), layers.0 and layers.1 .input .recurrent (I8) .input_scale
 * .recurrent_scale .bias (I32), head (I8), head_scale and head_bias (I32), of the shapes above,
 * without overlaps or gaps; metadata: "format" "speckv-return-model", "version" "0" and "window_ms"
 * (1 to 2^31); other metadata is ignored. Errors: those of speckv_predictor_load(), -EFBIG (more
 * than 128 MiB).
 */
int speckv_predictor_parse(const void *file, size_t n, struct speckv_predictor **out);
/** Free a model. NULL is allowed. */
void speckv_predictor_destroy(struct speckv_predictor *model);
/**
 * Number of inputs of one step, and of bins of its output; the bins' edges (bins + 1 of them, valid
 * as long as the model).
 */
uint32_t speckv_predictor_features(const struct speckv_predictor *model);
uint32_t speckv_predictor_bins(const struct speckv_predictor *model);
const uint32_t *speckv_predictor_edges_ms(const struct speckv_predictor *model);
/** Prediction window of the model's scores: its file's, else SPECKV_PREDICTOR_WINDOW_MS. */
uint32_t speckv_predictor_window_ms(const struct speckv_predictor *model);

/**
 * One turn of one session: `features` in, `survival` out: at each edge the share of such sessions
 * not yet returned; survival[0] is 1, and it never rises. `before` is the state after the session's
 * last turn, NULL at its first; `after` may be the same; `survival` may be NULL. Allocates nothing.
 * Errors: -EINVAL (NULL).
 */
int speckv_predictor_step(const struct speckv_predictor *model,
	const struct speckv_predictor_state *before, const int8_t *features,
	struct speckv_predictor_state *after, uint32_t *survival);
/**
 * The survival curve of the step that led to this state. Allocates nothing. Errors: -EINVAL (NULL).
 */
int speckv_predictor_curve(const struct speckv_predictor *model,
	const struct speckv_predictor_state *state, uint32_t *survival);

/** Meaning of a curve. */
enum speckv_curve {
	/** share not yet returned at that age: the score is the probability for the window */
	SPECKV_CURVE_SURVIVAL = 0,
	SPECKV_CURVE_SCORE = 1, /**< the score itself, by age */
};

/**
 * The score at an age: the value of a curve given at `n` edges and interpolated linearly, or the
 * probability that a session idle for `age_ms` returns within `window_ms`. Beyond the last edge a
 * score is that of the edge; survival falls as 10^8 / (10^8 + ms beyond it). n is at least 2; the
 * edges rise from 0.
 */
uint32_t speckv_curve_score(enum speckv_curve kind, const uint32_t *edges_ms,
	const uint32_t *values, uint32_t n, uint64_t age_ms, uint32_t window_ms);

/* ---- how far ahead, and whether at all ------------------------------------------------------ */

#define SPECKV_PACE_DEPTH_MAX 16
#define SPECKV_PACE_OPEN 64 /**< undecided contests; the oldest is dropped */

/**
 * Adaptive control of one pool's prefetching, from the outcomes of recent prefetches and
 * predictions: the depth, and a guard that replaces the model by recency while the model does
 * worse. All zero: initial state, depth 4. The caller owns it and locks around it; deterministic.
 * Access it through the functions.
 */
struct speckv_pace {
	uint64_t outcomes; /**< bit 0 is the last: used */
	uint64_t contests; /**< bit 0 is the last: won by the model */
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
	uint32_t guarded; /**< 1: recency in place of the model */
	uint32_t engaged; /**< times the guard was engaged */
	uint32_t settled; /**< prefetches counted in `used`, at most 16 */
	uint32_t used;
	uint32_t decided; /**< contests counted in `won`, at most 64 */
	uint32_t won; /**< by the model */
};

/**
 * Record the outcome of a prefetch by the model: used, or evicted unread. A late one is neither. At
 * every eighth, over the last 16: with 12 or more used the depth grows by 1, with less than 8 it is
 * halved.
 */
void speckv_pace_settle(struct speckv_pace *pace, int used);
/** Current prefetch depth in blocks: 1 to SPECKV_PACE_DEPTH_MAX. */
uint32_t speckv_pace_depth(const struct speckv_pace *pace);
/**
 * Record a contest: model and recency disagree about which returns first (session or block; IDs are
 * never reused). It does not matter which prediction was followed. A pair already open is not added
 * again.
 */
void speckv_pace_contest(struct speckv_pace *pace, uint64_t model, uint64_t recency);
/**
 * A session or block returned: decide its contests. From 64 on, over the last 64: the guard engages
 * with less than 24 won by the model, and releases with 32 or more.
 */
void speckv_pace_came(struct speckv_pace *pace, uint64_t id);
void speckv_pace_figures(const struct speckv_pace *pace, struct speckv_pace_figures *out);

/* ---- traces ---------------------------------------------------------------------------------- */

/**
 * A trace as a prefix tree, in the caller's arrays. Request i needs nodes[first[i]] ..
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
 * Build the prefix tree of opaque block ids: fills `nodes` (one for each id: equal exactly if the
 * whole chain up to there is equal), `stored`, `parent` and `*blocks`. A request continues the last
 * one that touched the last stored block of its chain, unless that block has three or more
 * different successors: a prompt shared by sessions belongs to none. Errors: -EINVAL (NULL, `first`
 * falls or does not begin with 0), -E2BIG (2^31 ids or more), -ENOMEM.
 */
int speckv_trace_link(uint32_t requests, const uint64_t *first, const uint64_t *ids,
	uint32_t *nodes, uint32_t *stored, uint32_t *parent, uint32_t *blocks);

#ifdef __cplusplus
}
#endif
#endif

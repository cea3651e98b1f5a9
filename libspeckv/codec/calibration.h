/* SPDX-License-Identifier: MIT */
/* A calibration in memory: validated at load time, read-only afterwards. */
#ifndef SPECKV_CODEC_CALIBRATION_H
#define SPECKV_CODEC_CALIBRATION_H

#include <stdbool.h>

#include "e7c.h"
#include "mode.h"
#include "q5c.h"
#include "rotary.h"
#include "safetensors.h"
#include "sinks.h"

/* Tables of mode q5c: of layer l, tensor x, head h at ((l * 2 + x) * kv_heads + h). */
struct calibration_q5c {
	uint8_t *bits;
	int8_t *unit;
	int16_t *mean; /* [head_dim] */
	int16_t *shaping; /* [head_dim * (head_dim - 1) / 2] */
};

/* Of mode e7c, in the same order. */
struct calibration_e7c {
	uint16_t *rank;
	int8_t *unit;
	uint8_t *shift;
	int16_t *mean; /* [head_dim] */
	int16_t *synthesis; /* [head_dim][stride] */
	int16_t *analysis; /* [stride][head_dim] */
	uint8_t *down, *rounding, *low, *which; /* [stride] */
	struct range_table *coders;
	unsigned int stride;
};

struct speckv_calibration {
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	unsigned int layers, kv_heads, head_dim;
	enum rotary_kind rotary;
	/* positions to phases of each pair, in 2^-64 turns; NULL without an embedding */
	uint64_t *turns;
	struct rotary_steps *steps; /* of each pair */
	struct calibration_q5c q5c;
	struct calibration_e7c e7c;
	bool has_q5c, has_e7c;
};

/*
 * A section's parameter in calibrated modes: its first layer and first head in the calibration, and
 * whether its leading tokens are stored as they are.
 */
#define CALIBRATION_SINKS 0x8000u
#define CALIBRATION_LAYER 0x7fffu

static inline uint32_t calibration_parameter(unsigned int layer, unsigned int head)
{
	return layer | head << 16;
}

static inline unsigned int calibration_sinks(uint32_t parameter)
{
	return parameter & CALIBRATION_SINKS ? CODEC_SINKS : 0;
}

/*
 * Does the calibration have the mode, and the layer and all heads of a section with this parameter?
 */
bool calibration_covers(const struct speckv_calibration *calibration, unsigned int codec,
	const struct speckv_geometry *geometry, uint32_t parameter);

void calibration_q5c_tables(const struct speckv_calibration *calibration, uint32_t parameter,
	enum codec_tensor tensor, unsigned int head, struct q5c_tables *out);
void calibration_e7c_tables(const struct speckv_calibration *calibration, uint32_t parameter,
	enum codec_tensor tensor, unsigned int head, struct e7c_tables *out);
/* False: K has no rotation to undo. */
bool calibration_rotation(const struct speckv_calibration *calibration, uint64_t position,
	struct rotary_rotation *out);

/* Caches one rotation: blocks of 64 tokens compute theirs once for all heads. */
struct calibration_turn {
	struct rotary_rotation rotation;
	uint64_t position;
	bool known;
};

/*
 * The rotation of group number `group` of a block's tensor; NULL: none. Initialise turn->known to
 * false.
 */
const struct rotary_rotation *calibration_turn(const struct codec_calibrated *by,
	enum codec_tensor tensor, unsigned int group, struct calibration_turn *turn);

/* ---- loading: shared by calibration.c and calibration_e7c.c --------------------------------- */

enum calibration_q5c_tensor { Q5C_BITS, Q5C_UNIT, Q5C_MEAN, Q5C_SHAPING, Q5C_TENSORS };
enum calibration_e7c_tensor {
	E7C_RANK,
	E7C_UNIT,
	E7C_SHIFT,
	E7C_MEAN,
	E7C_SYNTHESIS,
	E7C_ANALYSIS,
	E7C_DOWN,
	E7C_ROUNDING,
	E7C_LOW,
	E7C_TABLE,
	E7C_FREQUENCIES,
	E7C_TENSORS
};

/* A tensor of a calibration: name and type wanted, shape and data found. */
struct tensor {
	const char *name, *dtype;
	uint64_t shape[SAFETENSORS_DIMENSIONS];
	const uint8_t *data;
	unsigned int dimensions;
	bool found;
};

/* Does the tensor exist, with this shape? */
bool calibration_shape_is(const struct tensor *t, unsigned int dimensions, const uint64_t *shape);
/* Copy its first rows of 16-bit numbers; NULL: out of memory. */
int16_t *calibration_words(const struct tensor *t, uint64_t rows, uint64_t row_words);
bool calibration_mean_valid(const int16_t *mean, unsigned int head_dim);
/*
 * Needs layers, heads and head size. -EBADMSG, -ENOMEM; partial results are freed with the
 * calibration.
 */
int calibration_load_e7c(struct speckv_calibration *c, const struct tensor *wanted);
void calibration_free_e7c(struct calibration_e7c *tables);

#endif

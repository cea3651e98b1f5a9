/* SPDX-License-Identifier: MIT */
/* A calibration in memory: checked when it was loaded, constant afterwards. */
#ifndef SPECKV_CODEC_CALIBRATION_H
#define SPECKV_CODEC_CALIBRATION_H

#include <stdbool.h>

#include "mode.h"
#include "q5c.h"
#include "rotary.h"

/* Tables of mode q5c: of layer l, tensor x, head h at ((l * 2 + x) * kv_heads + h). */
struct calibration_q5c {
	uint8_t *bits;
	int8_t *unit;
	int16_t *mean;	  /* [head_dim] */
	int16_t *levels;  /* [Q5C_LEVELS_MAX] */
	int16_t *shaping; /* [head_dim * (head_dim - 1) / 2] */
};

struct speckv_calibration {
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	unsigned int layers, kv_heads, head_dim;
	enum rotary_kind rotary;
	uint64_t *turns; /* of each pair a position, in 2^-64 turns; NULL without an embedding */
	struct rotary_steps *steps; /* of each pair */
	struct calibration_q5c q5c;
	bool has_q5c;
};

/* A section's parameter in calibrated modes: which layer and which head of the calibration come first. */
static inline uint32_t calibration_parameter(unsigned int layer, unsigned int head)
{
	return layer | head << 16;
}

/* Do the heads of a section with this parameter lie in the calibration, and does it hold the mode? */
bool calibration_covers(const struct speckv_calibration *calibration, unsigned int codec, const struct speckv_geometry *geometry,
			uint32_t parameter);

void calibration_q5c_tables(const struct speckv_calibration *calibration, uint32_t parameter, enum codec_tensor tensor, unsigned int head,
			    struct q5c_tables *out);
/* False: K is stored as it is. */
bool calibration_rotation(const struct speckv_calibration *calibration, uint64_t position, struct rotary_rotation *out);

#endif

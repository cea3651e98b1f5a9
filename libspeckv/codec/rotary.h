/* SPDX-License-Identifier: MIT */
/*
 * Rotary position embedding in integers: the sine table shared by all modes that undo the rotation
 * of K.
 */
#ifndef SPECKV_CODEC_ROTARY_H
#define SPECKV_CODEC_ROTARY_H

#include <stdint.h>

#include "mode.h"

#define ROTARY_PAIRS_MAX (CODEC_HEAD_DIM_MAX / 2)

/* Pairing of channels. */
enum rotary_kind {
	ROTARY_NONE = 0,
	ROTARY_HALVES = 1, /* i and i + head_dim / 2 */
	ROTARY_NEIGHBOURS = 2, /* 2i and 2i + 1 */
};

/* Cosine and sine of one angle, times 32767. */
struct rotary_angle {
	int16_t cosine, sine;
};

/* Angles of a pair within a group: cosine and sine by token. */
struct rotary_steps {
	int16_t cosine[CODEC_GROUP_TOKENS], sine[CODEC_GROUP_TOKENS];
};

/*
 * The rotary embedding of one group of tokens: the angles of each pair. Passed as NULL for tensors
 * without one.
 */
struct rotary_rotation {
	struct rotary_steps pairs[ROTARY_PAIRS_MAX];
	enum rotary_kind kind;
};

/* Cosine and sine of `phase`, in 2^-64 turns. */
struct rotary_angle rotary_angle(uint64_t phase);

#endif

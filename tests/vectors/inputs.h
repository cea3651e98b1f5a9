/* SPDX-License-Identifier: MIT */
/*
 * Inputs of the golden vectors, and of the codec's tests: blocks made from a seed in integer
 * arithmetic, the same everywhere. The vectors depend on every line of this.
 */
#ifndef SPECKV_VECTOR_INPUTS_H
#define SPECKV_VECTOR_INPUTS_H

#include <stdint.h>

#include <speckv/base.h>

/* splitmix64 */
static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static inline uint32_t random_below(uint64_t *state, uint32_t bound)
{
	return (uint32_t)(random_next(state) % bound);
}

static const uint16_t head_dims[] = { 64, 80, 96, 128, 192, 256 };

/* What the finite 16-bit floats of a block look like. */
enum style {
	STYLE_BITS, /* any bit pattern */
	STYLE_SMOOTH, /* magnitudes around 1: incompressible, no clear outlier */
	STYLE_CONSTANT, /* one positive value */
	STYLE_TINY, /* mostly subnormal */
	STYLE_OUTLIER, /* tiny, with the largest finite value here and there */
	STYLE_ZERO, /* zeros of both signs */
	/*
	 * each run of 64 values within a few octaves, anywhere from 2^-27 (2^-14 in fp16) to 2^6
	 */
	STYLE_WIDE,
	STYLE_MIXED, /* for each run of 64 values one of smooth, tiny, zero, wide */
	/*
	 * each channel within two octaves, at a level of its own among eleven; now and then a
	 * subnormal
	 */
	STYLE_CHANNELS,
	STYLES
};

static inline void random_values(uint64_t *state, const struct speckv_geometry *g, enum style style,
	uint16_t *values, uint64_t count)
{
	uint16_t infinity = g->dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00;
	uint16_t one = g->dtype == SPECKV_DTYPE_BF16 ? 0x3f80 : 0x3c00;
	uint16_t held = (uint16_t)random_below(state, infinity);

	static const enum style mix[] = { STYLE_SMOOTH, STYLE_TINY, STYLE_ZERO, STYLE_WIDE };
	unsigned int mantissa = g->dtype == SPECKV_DTYPE_BF16 ? 7 : 10, top = 0;
	enum style now = style;

	for (uint64_t i = 0; i < count; i++) {
		uint16_t sign = (uint16_t)(random_below(state, 2) << 15), magnitude = 0;

		if (style == STYLE_MIXED && i % 64 == 0)
			now = mix[random_below(state, 4)];
		if (now == STYLE_WIDE && i % 64 == 0)
			top = ((one >> mantissa) + 5 -
				      random_below(state, g->dtype == SPECKV_DTYPE_BF16 ? 30 : 19))
				<< mantissa;
		switch (now) {
		case STYLE_BITS:
			magnitude = (uint16_t)random_below(state, infinity);
			break;
		case STYLE_SMOOTH:
			magnitude = (uint16_t)(one - 0x200 + random_below(state, 0x300));
			break;
		case STYLE_CONSTANT:
			magnitude = held;
			sign = 0;
			break;
		case STYLE_TINY:
			magnitude = (uint16_t)random_below(state, 0x90);
			break;
		case STYLE_OUTLIER:
			magnitude = random_below(state, 97) ? (uint16_t)random_below(state, 0x100)
							    : (uint16_t)(infinity - 1);
			break;
		case STYLE_WIDE:
			magnitude = (uint16_t)(top - random_below(state, 3u << mantissa));
			magnitude = magnitude & 0x8000 ? 0 : magnitude;
			break;
		case STYLE_CHANNELS:
			magnitude = (uint16_t)(one - ((i % g->head_dim * 5 % 11) << mantissa) +
				random_below(state, 2u << mantissa));
			magnitude = random_below(state, 150) ? magnitude
							     : (uint16_t)random_below(state, 0x40);
			break;
		default:
			break;
		}
		values[i] = sign | magnitude;
	}
}

#endif

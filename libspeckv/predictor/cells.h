/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of speckv/predictor.h apart from the matrix products, all within 32 bits but for
 * one product, so that compilers vectorise it. Included by every variant.
 */
#ifndef SPECKV_PREDICTOR_CELLS_H
#define SPECKV_PREDICTOR_CELLS_H

#include <stdint.h>

#include <speckv/predictor.h>

#include "predictor/sigmoid.h"

#define CELLS SPECKV_PREDICTOR_HIDDEN
#define SIGMOID_END (16 << 12) /* the logistic function is flat beyond */

/* A sum in units of 2^-12. It fits: two products of 2^21 x 2^24 at most, and a bias of 2^20. */
static inline int32_t scaled_sum(int64_t sum, int32_t bias)
{
	/* >> of a negative number rounds down in every supported compiler */
	return (int32_t)((sum + (1 << 15)) >> 16) + bias;
}

/*
 * The logistic function of x in units of 2^-12, in units of 2^-24: a table of 16 entries a unit,
 * interpolated linearly.
 */
static inline int32_t sigmoid24(int32_t x)
{
	int32_t below = x > 0 ? -x : x, low, high, value;
	uint32_t at, part;

	below = below < -SIGMOID_END ? -SIGMOID_END : below;
	at = (uint32_t)(below + SIGMOID_END);
	part = at & 255;
	at >>= 8;
	low = (int32_t)sigmoid_table[at];
	high = (int32_t)sigmoid_table[at + (at < 256)];
	value = low + (((high - low) * (int32_t)part + 128) >> 8);
	return x > 0 ? (1 << 24) - value : value;
}

/* Sigmoid and tanh of x in units of 2^-12, in units of 2^-15. */
static inline int32_t sigmoid15(int32_t x)
{
	return (sigmoid24(x) + 256) >> 9;
}

static inline int32_t tanh15(int32_t x)
{
	return 2 * sigmoid15(2 * x) - (1 << 15);
}

static inline void cells_gates(const int32_t *input, const int32_t *input_scale,
	const int32_t *recurrent, const int32_t *recurrent_scale, const int32_t *bias,
	int32_t *gates)
{
	for (uint32_t row = 0; row < 4 * CELLS; row++) {
		int64_t sum = (int64_t)input[row] * input_scale[row] +
			(int64_t)recurrent[row] * recurrent_scale[row];
		int32_t gate = scaled_sum(sum, bias[row]);

		/* Clamped: the functions are flat beyond, and twice the value still fits. */
		gate = gate > SIGMOID_END ? SIGMOID_END : gate;
		gates[row] = gate < -SIGMOID_END ? -SIGMOID_END : gate;
	}
}

static inline void cells_step(const int32_t *gates, int16_t *cell, int8_t *hidden)
{
	for (uint32_t unit = 0; unit < CELLS; unit++) {
		int32_t in = sigmoid15(gates[unit]), forget = sigmoid15(gates[CELLS + unit]);
		int32_t candidate = tanh15(gates[2 * CELLS + unit]);
		/* (16 forget cell + in candidate + 2^18) / 2^19, rounded down in two steps. */
		int32_t c = (forget * cell[unit] + ((in * candidate + (1 << 18)) >> 4)) >> 15;

		c = c > INT16_MAX ? INT16_MAX : c;
		cell[unit] = (int16_t)(c < INT16_MIN ? INT16_MIN : c);
	}
	for (uint32_t unit = 0; unit < CELLS; unit++) {
		int32_t product = sigmoid15(gates[3 * CELLS + unit]) * tanh15(2 * cell[unit]);

		/*
		 * (127 product + 2^29) / 2^30, rounded down in two steps: product = 2^7 high + low.
		 */
		hidden[unit] = (int8_t)((127 * (product >> 7) + (127 * (product & 127) >> 7) +
						(1 << 22)) >>
			23);
	}
}

#endif

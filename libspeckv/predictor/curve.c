// SPDX-License-Identifier: MIT
/* Scores by age, read off a curve. */
#include <speckv/predictor.h>

#include "predictor/curve.h"

#define TAIL_MS 100000000 /* beyond the last edge: about one return in 28 hours */
#define AGE_MAX_MS ((uint64_t)1 << 32)

static uint32_t value_at(enum speckv_curve kind, const uint32_t *edges, const uint32_t *values,
	uint32_t n, uint64_t age)
{
	uint32_t low = 0, high = n - 1;

	if (age >= edges[n - 1]) {
		if (kind == SPECKV_CURVE_SCORE)
			return values[n - 1];
		return (uint32_t)((uint64_t)values[n - 1] * TAIL_MS /
			(TAIL_MS + age - edges[n - 1]));
	}
	while (high - low > 1) {
		uint32_t middle = (low + high) / 2;

		if (edges[middle] <= age)
			low = middle;
		else
			high = middle;
	}
	return (uint32_t)(values[low] +
		((int64_t)values[high] - values[low]) * (int64_t)(age - edges[low]) /
			(int64_t)(edges[high] - edges[low]));
}

uint32_t speckv_curve_score(enum speckv_curve kind, const uint32_t *edges_ms,
	const uint32_t *values, uint32_t n, uint64_t age_ms, uint32_t window_ms)
{
	uint64_t now, then;

	if (age_ms > AGE_MAX_MS)
		age_ms = AGE_MAX_MS;
	now = value_at(kind, edges_ms, values, n, age_ms);
	if (kind == SPECKV_CURVE_SCORE)
		return (uint32_t)now;
	if (!now)
		return 0;
	then = value_at(kind, edges_ms, values, n, age_ms + window_ms);
	if (then > now)
		then = now;
	return (uint32_t)(SPECKV_PREDICTOR_ONE - then * SPECKV_PREDICTOR_ONE / now);
}

uint32_t predictor_half(uint64_t halves)
{
	uint64_t part = halves & 0xffff;

	if (halves >> 16 >= 17)
		return 0;
	/* 1 - 0.6719 x + 0.1719 x^2 for 2^-x: exact at both ends, within 0.3% between. */
	return (uint32_t)((0x10000 - (part * (44033 - (part * 11265 >> 16)) >> 16)) >>
		(halves >> 16));
}

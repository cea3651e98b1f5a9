// SPDX-License-Identifier: MIT
/*
 * The rotary embedding of a group of tokens, compiled for every instruction set. Defined by
 * FORMAT.md 7.2.
 */
#include "kernels.h"
#include "rows.h"

void NAME(codec_rotary_turn_, CODEC_ISA)(const struct rotary_angle *bases,
	const struct rotary_steps *steps, unsigned int pairs, struct rotary_rotation *out)
{
	for (unsigned int pair = 0; pair < pairs; pair++) {
		const int16_t *cosine = steps[pair].cosine, *sine = steps[pair].sine;
		int32_t c = bases[pair].cosine, s = bases[pair].sine;

		for (unsigned int t = 0; t < TOKENS; t++) {
			out->pairs[pair].cosine[t] =
				(int16_t)((c * cosine[t] - s * sine[t] + 16384) >> 15);
			out->pairs[pair].sine[t] =
				(int16_t)((s * cosine[t] + c * sine[t] + 16384) >> 15);
		}
	}
}

// SPDX-License-Identifier: MIT
/*
 * Mode q5c: the kernels of one group, 64 tokens of one head. FORMAT.md section 8 is the definition.
 *
 * Compiled once for every instruction set (CODEC_ISA), see rows.h: row by row with a token in each
 * lane, so that compilers vectorise it.
 */
#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"
#include "qx.h"
#include "q5c.h"
#include "rows.h"

/* 2^(8 + t/8), rounded, t = 0..47: the candidate steps. */
#define STEPS 48
static const int16_t sizes[STEPS] = { 256, 279, 304, 332, 362, 395, 431, 470, 512, 558, 609, 664,
	724, 790, 861, 939, 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878, 2048, 2233, 2435, 2656,
	2896, 3158, 3444, 3756, 4096, 4467, 4871, 5312, 5793, 6317, 6889, 7512, 8192, 8933, 9742,
	10624, 11585, 12634, 13777, 15024 };
/* 2^22 / sizes, rounded. */
static const int16_t reciprocals[STEPS] = { 16384, 15033, 13797, 12633, 11586, 10618, 9732, 8924,
	8192, 7517, 6887, 6317, 5793, 5309, 4871, 4467, 4096, 3755, 3444, 3158, 2897, 2656, 2436,
	2233, 2048, 1878, 1723, 1579, 1448, 1328, 1218, 1117, 1024, 939, 861, 790, 724, 664, 609,
	558, 512, 470, 431, 395, 362, 332, 304, 279 };

/* Transform across rows, which are channels. */
static void hadamard(row_t *rows, unsigned int head_dim)
{
	unsigned int slice = 1u << qx_slice_log2(head_dim);

	for (unsigned int half = 1; half < slice; half *= 2)
		for (unsigned int i = 0; i < head_dim; i++)
			if (!(i & half))
				for (unsigned int t = 0; t < TOKENS; t++) {
					int32_t a = rows[i][t], b = rows[i + half][t];

					rows[i][t] = a + b;
					rows[i + half][t] = a - b;
				}
}

/* ---- encode --------------------------------------------------------------------------------- */

/*
 * Normalise each token so that its largest coefficient has 13 bits and a sign; `down` is the shift.
 * All-zero tokens: down = INT32_MIN.
 */
static void normalise(row_t *rows, unsigned int head_dim, int32_t *down)
{
	row_t most = { 0 }, left, right, half;

	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t magnitude = rows[c][t] < 0 ? -rows[c][t] : rows[c][t];

			most[t] = magnitude > most[t] ? magnitude : most[t];
		}
	for (unsigned int t = 0; t < TOKENS; t++) {
		int32_t by = most[t] ? 32 - __builtin_clz((uint32_t)most[t]) - 13 : 0;

		down[t] = most[t] ? by : INT32_MIN;
		left[t] = by < 0 ? -by : 0;
		right[t] = by > 0 ? by : 0;
		half[t] = by > 0 ? 1 << (by - 1) : 0;
	}
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++)
			rows[c][t] = ((int32_t)((uint32_t)rows[c][t] << left[t]) + half[t]) >>
				right[t];
}

/* Levels and thresholds in ascending order; a value adds the rise of every threshold below it. */
struct ladder {
	int32_t least, threshold[Q5C_LEVELS_MAX], rise[Q5C_LEVELS_MAX];
	unsigned int rungs;
};

static void ladder_of(const struct q5c_tables *tables, struct ladder *ladder)
{
	ladder->rungs = (1u << tables->bits) - 1;
	ladder->least = tables->levels[0];
	for (unsigned int i = 0; i < ladder->rungs; i++) {
		ladder->threshold[i] = (tables->levels[i] + tables->levels[i + 1] + 1) >> 1;
		ladder->rise[i] = tables->levels[i + 1] - tables->levels[i];
	}
}

/* The nearest level of each value and, if wanted, its code. */
static void quantise(const struct ladder *ladder, const int32_t *values, const int32_t *reciprocal,
	int32_t *level, int32_t *code)
{
	row_t n;

	for (unsigned int t = 0; t < TOKENS; t++) {
		n[t] = (values[t] * reciprocal[t] + 8192) >> 14;
		level[t] = ladder->least;
	}
	if (code)
		memset(code, 0, sizeof(row_t));
	for (unsigned int i = 0; i < ladder->rungs; i++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t above = -(n[t] >= ladder->threshold[i]);

			level[t] += above & ladder->rise[i];
			if (code)
				code[t] -= above;
		}
}

/*
 * Choose the step of each token: of five around its root mean square, the one with the least
 * squared error.
 */
static void choose_steps(row_t *rows, unsigned int head_dim, const struct ladder *ladder,
	int32_t *chosen)
{
	uint64_t least[TOKENS] = { 0 }, energy[TOKENS] = { 0 };
	row_t first;

	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++)
			energy[t] += (uint32_t)(rows[c][t] * rows[c][t]);
	for (unsigned int t = 0; t < TOKENS; t++) {
		int32_t at = 0;

		while (at < STEPS - 2 &&
			(uint64_t)((uint32_t)sizes[at] * (uint32_t)sizes[at]) * head_dim <
				energy[t])
			at++;
		first[t] = at + 1;
	}
	for (int32_t candidate = 0; candidate < 5; candidate++) {
		uint64_t error[TOKENS] = { 0 };
		row_t step, reciprocal, level;

		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t at = first[t] > candidate ? first[t] - candidate : 0;

			step[t] = sizes[at];
			reciprocal[t] = reciprocals[at];
		}
		for (unsigned int c = 0; c < head_dim; c++) {
			quantise(ladder, rows[c], reciprocal, level, NULL);
			for (unsigned int t = 0; t < TOKENS; t++) {
				int32_t e = limit(rows[c][t] - ((level[t] * step[t] + 128) >> 8),
					32767);

				error[t] += (uint32_t)(e * e);
			}
		}
		for (unsigned int t = 0; t < TOKENS; t++)
			if (!candidate || error[t] < least[t]) {
				least[t] = error[t];
				chosen[t] = first[t] > candidate ? first[t] - candidate : 0;
			}
	}
}

/*
 * Quantise channel by channel with error feedback: each channel's target is corrected for the
 * errors of earlier channels, so that the total error has little effect on attention. Decoding does
 * not depend on it.
 */
static void shape_rows(row_t *rows, unsigned int head_dim, const struct q5c_tables *tables,
	const struct ladder *ladder, const int32_t *chosen, uint8_t *planes)
{
	row16_t errors[CODEC_HEAD_DIM_MAX];
	const int16_t *weights = tables->shaping;
	row_t step, reciprocal;

	for (unsigned int t = 0; t < TOKENS; t++) {
		step[t] = sizes[chosen[t]];
		reciprocal[t] = reciprocals[chosen[t]];
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		row_t target = { 0 }, level, code;

		for (unsigned int before = 0; before < c; before++)
			for (unsigned int t = 0; t < TOKENS; t++)
				target[t] += weights[before] * errors[before][t];
		weights += c;
		for (unsigned int t = 0; t < TOKENS; t++)
			target[t] = limit(rows[c][t] + ((target[t] + 256) >> 9), 16383);
		quantise(ladder, target, reciprocal, level, code);
		for (unsigned int t = 0; t < TOKENS; t++)
			errors[c][t] =
				(int16_t)limit(rows[c][t] - ((level[t] * step[t] + 128) >> 8),
					16383);
		for (unsigned int bit = 0; bit < tables->bits; bit++) {
			uint64_t plane = 0;

			for (unsigned int t = 0; t < TOKENS; t++)
				plane |= (uint64_t)(code[t] >> bit & 1) << t;
			codec_put64(planes, plane);
			planes += 8;
		}
	}
}

int NAME(codec_q5c_encode_, CODEC_ISA)(const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, const struct q5c_tables *tables, const struct rotary_rotation *rotation,
	uint8_t *group)
{
	int32_t slice_log2 = (int32_t)qx_slice_log2(head_dim);
	row_t rows[CODEC_HEAD_DIM_MAX], down, chosen;
	struct ladder ladder;

	if (!rows_load(raw, head_dim, dtype, tables->unit, tables->mean, rotation, rows))
		return -ENODATA;
	hadamard(rows, head_dim);
	normalise(rows, head_dim, down);
	ladder_of(tables, &ladder);
	choose_steps(rows, head_dim, &ladder, chosen);
	for (unsigned int t = 0; t < TOKENS; t++)
		group[t] = down[t] == INT32_MIN
			? 0
			: (uint8_t)(1 + chosen[t] + 8 * (down[t] - slice_log2 + 19));
	shape_rows(rows, head_dim, tables, &ladder, chosen, group + Q5C_SCALES);
	return 0;
}

/* ---- decode --------------------------------------------------------------------------------- */

/* Look up the level of each token's code. */
static void look_up(const int16_t *levels, const uint8_t *planes, unsigned int bits, int32_t *row)
{
#if defined(__AVX512BW__)
	__m512i code = _mm512_setzero_si512(), table = _mm512_loadu_si512(levels);

	for (unsigned int bit = 0; bit < bits; bit++)
		code = _mm512_or_si512(code,
			_mm512_maskz_set1_epi8(codec_get64(planes + 8 * bit), (char)(1 << bit)));
	for (unsigned int half = 0; half < 2; half++) {
		__m512i wide = _mm512_cvtepu8_epi16(half ? _mm512_extracti64x4_epi64(code, 1)
							 : _mm512_castsi512_si256(code));

		wide = _mm512_permutexvar_epi16(wide, table);
		_mm512_store_si512(row + 32 * half,
			_mm512_cvtepi16_epi32(_mm512_castsi512_si256(wide)));
		_mm512_store_si512(row + 32 * half + 16,
			_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(wide, 1)));
	}
#else
	uint64_t plane[Q5C_BITS_MAX] = { 0 };

	for (unsigned int bit = 0; bit < bits; bit++)
		plane[bit] = codec_get64(planes + 8 * bit);
	for (unsigned int t = 0; t < TOKENS; t++) {
		unsigned int code = 0;

		for (unsigned int bit = 0; bit < Q5C_BITS_MAX; bit++)
			code |= (unsigned int)(plane[bit] >> t & 1) << bit;
		row[t] = levels[code];
	}
#endif
}

bool NAME(codec_q5c_decode_, CODEC_ISA)(const uint8_t *group, unsigned int head_dim,
	unsigned int dtype, const struct q5c_tables *tables, const struct rotary_rotation *rotation,
	uint8_t *raw)
{
	row_t rows[CODEC_HEAD_DIM_MAX], mantissa, shift, half;
	uint8_t largest = 0;

	for (unsigned int t = 0; t < TOKENS; t++) {
		unsigned int scale = group[t];

		largest = scale > largest ? (uint8_t)scale : largest;
		mantissa[t] = scale ? q5c_eighths[(scale - 1) % 8] : 0;
		shift[t] = scale && scale <= Q5C_SCALE_MAX ? 30 - (int32_t)(scale - 1) / 8 : 30;
		half[t] = 1 << (shift[t] - 1);
	}
	if (largest > Q5C_SCALE_MAX)
		return false;
	for (unsigned int c = 0; c < head_dim; c++)
		look_up(tables->levels, group + Q5C_SCALES + 8 * tables->bits * c, tables->bits,
			rows[c]);
	hadamard(rows, head_dim);
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t y = limit((rows[c][t] * mantissa[t] + half[t]) >> shift[t], 32767);

			rows[c][t] = limit(y + tables->mean[c], 32767);
		}
	rows_store(rows, head_dim, dtype, tables->unit, rotation, raw);
	return true;
}

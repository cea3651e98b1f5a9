/* SPDX-License-Identifier: MIT */
/*
 * Calibrated modes: a group, 64 tokens of one head, as rows of integers, a channel a row and a token a lane, from values and back.
 * FORMAT.md 8.2 and 8.3 are the definition.
 *
 * For sources that are compiled once for every instruction set (CODEC_ISA): all arithmetic is on integers, and loops are left to the
 * compiler, so that no variant can differ.
 */
#ifndef SPECKV_CODEC_ROWS_H
#define SPECKV_CODEC_ROWS_H

#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "float16.h"
#include "rotary.h"

#define TOKENS CODEC_GROUP_TOKENS
#define NAME_OF(stem, isa) stem##isa
#define NAME(stem, isa) NAME_OF(stem, isa)

typedef int32_t row_t[TOKENS] __attribute__((aligned(64)));
typedef int16_t row16_t[TOKENS] __attribute__((aligned(64)));

static inline int32_t limit(int32_t value, int32_t most)
{
	return value > most ? most : value < -most ? -most : value;
}

static inline void pair_of(enum rotary_kind kind, unsigned int head_dim, unsigned int pair, unsigned int *first, unsigned int *second)
{
	*first = kind == ROTARY_HALVES ? pair : 2 * pair;
	*second = kind == ROTARY_HALVES ? pair + head_dim / 2 : 2 * pair + 1;
}

static inline float power_of_two(int exponent)
{
	uint32_t bits = (uint32_t)(exponent + 127) << 23;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static inline float to_binary32(unsigned int dtype, uint16_t word)
{
	uint32_t bits = (uint32_t)word << 16, significand, field;
	float value;

	if (dtype == SPECKV_DTYPE_BF16) {
		memcpy(&value, &bits, sizeof(value));
		return value;
	}
	if ((word & 0x7fff) >= float_fp16.infinity)
		return INFINITY;
	field = float_split(&float_fp16, word & 0x7fff, &significand);
	value = (float)significand * power_of_two((int)field - float_fp16.bias - (int)float_fp16.mantissa_bits);
	return word & 0x8000 ? -value : value;
}

/* Inputs as integers; false where one is not finite or too large. Every operation on binary32 here is exact but the one rounding. */
static inline bool rows_of(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, int unit, row_t *rows)
{
	const float scale = power_of_two(-unit), magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, ties to even */
	bool good = true;

	for (unsigned int t = 0; t < TOKENS; t++)
		for (unsigned int c = 0; c < head_dim; c++) {
			float x = to_binary32(dtype, codec_get16(raw + 2 * (t * head_dim + c))) * scale;
			bool inside = x > -16384.0f && x < 16384.0f; /* a NaN is not */
			int32_t q = (int32_t)(((inside ? x : 0.0f) + magic) - magic);

			good &= inside && q <= CODEC_INPUT_MAX && q >= -CODEC_INPUT_MAX;
			rows[c][t] = q;
		}
	return good;
}

static inline void unrotate(row_t *rows, unsigned int head_dim, const struct rotary_rotation *rotation)
{
	for (unsigned int pair = 0; pair < head_dim / 2; pair++) {
		const int16_t *cosine = rotation->pairs[pair].cosine, *sine = rotation->pairs[pair].sine;
		unsigned int first, second;

		pair_of(rotation->kind, head_dim, pair, &first, &second);
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t a = rows[first][t], b = rows[second][t];

			rows[first][t] = (a * cosine[t] + b * sine[t] + 16384) >> 15;
			rows[second][t] = (b * cosine[t] - a * sine[t] + 16384) >> 15;
		}
	}
}

/* Inputs in units, K with its rotation taken off, less the mean; false where one is not finite or too large. */
static inline bool rows_load(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, int unit, const int16_t *mean,
			     const struct rotary_rotation *rotation, row_t *rows)
{
	if (!rows_of(raw, head_dim, dtype, unit, rows))
		return false;
	if (rotation)
		unrotate(rows, head_dim, rotation);
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++)
			rows[c][t] -= mean[c];
	return true;
}

/* A row of 64 results, in 2^(unit - 8), as bits of the type. */
static inline void to_words(const int32_t *row, unsigned int dtype, int unit, uint16_t *words)
{
	if (dtype == SPECKV_DTYPE_BF16) {
		float scale = power_of_two(unit - 8);

		/* Below 2^24: exact in binary32, and never subnormal. */
		for (unsigned int t = 0; t < TOKENS; t++) {
			float value = (float)row[t] * scale;
			uint32_t bits;

			memcpy(&bits, &value, sizeof(bits));
			words[t] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
		}
		return;
	}
	for (unsigned int t = 0; t < TOKENS; t++) {
		uint32_t magnitude = (uint32_t)(row[t] < 0 ? -row[t] : row[t]);

		words[t] = (uint16_t)(float_nearest(&float_fp16, magnitude, unit - 8) | (row[t] < 0 ? 0x8000 : 0));
	}
}

/* Eight by eight words: columns of `from` become rows of `to`; rows are so many words apart. */
static inline void transpose(const uint16_t *from, unsigned int from_wide, uint8_t *to, unsigned int to_wide)
{
#if defined(__SSE2__)
	__m128i row[8], half[8];

	for (unsigned int i = 0; i < 8; i++)
		row[i] = _mm_load_si128((const __m128i *)(const void *)(from + i * from_wide));
	for (unsigned int i = 0; i < 4; i++) {
		half[2 * i] = _mm_unpacklo_epi16(row[i], row[i + 4]);
		half[2 * i + 1] = _mm_unpackhi_epi16(row[i], row[i + 4]);
	}
	for (unsigned int i = 0; i < 4; i++) {
		row[2 * i] = _mm_unpacklo_epi16(half[i], half[i + 4]);
		row[2 * i + 1] = _mm_unpackhi_epi16(half[i], half[i + 4]);
	}
	for (unsigned int i = 0; i < 4; i++) {
		_mm_storeu_si128((__m128i *)(void *)(to + 4 * i * to_wide), _mm_unpacklo_epi16(row[i], row[i + 4]));
		_mm_storeu_si128((__m128i *)(void *)(to + (4 * i + 2) * to_wide), _mm_unpackhi_epi16(row[i], row[i + 4]));
	}
#else
	for (unsigned int t = 0; t < 8; t++)
		for (unsigned int c = 0; c < 8; c++)
			codec_put16(to + 2 * (t * to_wide + c), from[c * from_wide + t]);
#endif
}

/* What lies on pairs of rows goes back to its angle; everything comes out in 1/256 units. */
static inline void rotate(row_t *rows, unsigned int head_dim, const struct rotary_rotation *rotation)
{
	for (unsigned int pair = 0; pair < head_dim / 2; pair++) {
		const int16_t *cosine = rotation->pairs[pair].cosine, *sine = rotation->pairs[pair].sine;
		unsigned int first, second;

		pair_of(rotation->kind, head_dim, pair, &first, &second);
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t a = rows[first][t], b = rows[second][t];

			rows[first][t] = (a * cosine[t] - b * sine[t] + 64) >> 7;
			rows[second][t] = (b * cosine[t] + a * sine[t] + 64) >> 7;
		}
	}
}

/* Values in units, of at most 16 bits: K turned to where it was, everything as words of the type, token by token. */
static inline void rows_store(row_t *rows, unsigned int head_dim, unsigned int dtype, int unit, const struct rotary_rotation *rotation, uint8_t *raw)
{
	uint16_t words[CODEC_HEAD_DIM_MAX][TOKENS] __attribute__((aligned(64)));

	if (rotation)
		rotate(rows, head_dim, rotation);
	else
		for (unsigned int c = 0; c < head_dim; c++)
			for (unsigned int t = 0; t < TOKENS; t++)
				rows[c][t] *= 256;
	for (unsigned int c = 0; c < head_dim; c++)
		to_words(rows[c], dtype, unit, words[c]);
	for (unsigned int t = 0; t < TOKENS; t += 8)
		for (unsigned int c = 0; c < head_dim; c += 8)
			transpose(&words[c][t], TOKENS, raw + 2 * (t * head_dim + c), head_dim);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Calibrated modes: conversion of a group, 64 tokens of one head, between values and rows of
 * integers, a channel a row and a token a lane. Defined by FORMAT.md 8.2 and 8.3.
 *
 * For sources that are compiled once for every instruction set (CODEC_ISA): arithmetic is on
 * integers, or on binary32 where that is exact except for one defined rounding, so that variants
 * cannot differ; most loops are left to the compiler.
 */
#ifndef SPECKV_CODEC_ROWS_H
#define SPECKV_CODEC_ROWS_H

#include <endian.h>
#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "float16.h"
#include "kernels.h"
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

static inline void pair_of(enum rotary_kind kind, unsigned int head_dim, unsigned int pair,
	unsigned int *first, unsigned int *second)
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

/*
 * Convert a channel's little-endian words to binary32, exactly; infinities and NaNs are preserved.
 */
static inline void to_floats(const uint16_t *words, unsigned int dtype, float *values)
{
	if (dtype == SPECKV_DTYPE_BF16) {
		for (unsigned int t = 0; t < TOKENS; t++) {
			uint32_t bits = (uint32_t)le16toh(words[t]) << 16;

			memcpy(values + t, &bits, sizeof(bits));
		}
		return;
	}
#if defined(__F16C__)
	for (unsigned int t = 0; t < TOKENS; t += 8)
		_mm256_storeu_ps(values + t,
			_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(words +
				t))));
#else
	for (unsigned int t = 0; t < TOKENS; t++) {
		uint32_t word = le16toh(words[t]), significand,
			 field = float_split(&float_fp16, word & 0x7fff, &significand);
		float value = (float)significand *
			power_of_two((int)field - float_fp16.bias - (int)float_fp16.mantissa_bits);

		value = (word & 0x7fff) >= float_fp16.infinity ? INFINITY : value;
		values[t] = word & 0x8000 ? -value : value;
	}
#endif
}

/* Transpose eight by eight words: columns of `from` become rows of `to`; strides are in words. */
static inline void transpose(const void *from, unsigned int from_wide, void *to,
	unsigned int to_wide)
{
	const char *in = from;
	char *out = to;
#if defined(__SSE2__)
	__m128i row[8], half[8];

	for (unsigned int i = 0; i < 8; i++)
		row[i] = _mm_loadu_si128((const __m128i *)(const void *)(in + 2 * i * from_wide));
	for (unsigned int i = 0; i < 4; i++) {
		half[2 * i] = _mm_unpacklo_epi16(row[i], row[i + 4]);
		half[2 * i + 1] = _mm_unpackhi_epi16(row[i], row[i + 4]);
	}
	for (unsigned int i = 0; i < 4; i++) {
		row[2 * i] = _mm_unpacklo_epi16(half[i], half[i + 4]);
		row[2 * i + 1] = _mm_unpackhi_epi16(half[i], half[i + 4]);
	}
	for (unsigned int i = 0; i < 4; i++) {
		_mm_storeu_si128((__m128i *)(void *)(out + 4 * i * to_wide),
			_mm_unpacklo_epi16(row[i], row[i + 4]));
		_mm_storeu_si128((__m128i *)(void *)(out + (4 * i + 2) * to_wide),
			_mm_unpackhi_epi16(row[i], row[i + 4]));
	}
#else
	for (unsigned int t = 0; t < 8; t++)
		for (unsigned int c = 0; c < 8; c++)
			memcpy(out + 2 * (t * to_wide + c), in + 2 * (c * from_wide + t), 2);
#endif
}

/*
 * Convert a channel's words to integers; `outside` becomes negative for a token that is not finite
 * or too large. binary32 is exact but for the one rounding.
 */
static inline void row_of(const uint16_t *words, unsigned int dtype, int unit, int32_t *row,
	int32_t *outside)
{
	/* 1.5 * 2^23: adding it rounds to an integer, ties to even */
	const float scale = power_of_two(-unit), magic = 12582912.0f;
	float values[TOKENS];

	to_floats(words, dtype, values);
	for (unsigned int t = 0; t < TOKENS; t++) {
		float x = values[t] * scale;
		uint32_t bits;
		int32_t inside, q;

		memcpy(&bits, &x, sizeof(bits));
		/* 16384; infinities and NaNs compare larger */
		inside = -((int32_t)(bits & 0x7fffffff) < 0x46800000);
		bits &= (uint32_t)inside;
		memcpy(&x, &bits, sizeof(x));
		q = (int32_t)(x + magic - magic);
		row[t] = q;
		outside[t] |= ~inside | (CODEC_INPUT_MAX - q) | (CODEC_INPUT_MAX + q);
	}
}

/* Convert inputs to integers; false: one behind the sinks is not finite or too large. */
static inline bool rows_of(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, int unit,
	unsigned int sinks, row_t *rows)
{
	uint16_t words[8][TOKENS] __attribute__((aligned(64)));
	row_t outside = { 0 };
	int32_t any = 0;

	for (unsigned int c = 0; c < head_dim; c += 8) {
		/* Prefetch as much of the next group, which mostly follows in memory. */
		codec_fetch(raw + 2 * TOKENS * (size_t)(head_dim + c), 2 * TOKENS * 8);
		for (unsigned int t = 0; t < TOKENS; t += 8)
			transpose(raw + 2 * (t * head_dim + c), head_dim, &words[0][t], TOKENS);
		for (unsigned int i = 0; i < 8; i++)
			row_of(words[i], dtype, unit, rows[c + i], outside);
	}
	for (unsigned int t = sinks; t < TOKENS; t++)
		any |= outside[t];
	return any >= 0;
}

static inline void unrotate(row_t *rows, unsigned int head_dim,
	const struct rotary_rotation *rotation)
{
	for (unsigned int pair = 0; pair < head_dim / 2; pair++) {
		const int16_t *cosine = rotation->pairs[pair].cosine,
			      *sine = rotation->pairs[pair].sine;
		unsigned int first, second;

		pair_of(rotation->kind, head_dim, pair, &first, &second);
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t a = rows[first][t], b = rows[second][t];

			rows[first][t] = (a * cosine[t] + b * sine[t] + 16384) >> 15;
			rows[second][t] = (b * cosine[t] - a * sine[t] + 16384) >> 15;
		}
	}
}

/*
 * Load inputs in units, with the rotation of K undone, less the mean; the first `sinks` tokens,
 * whatever they hold, as zeros. False: another is not finite or too large.
 */
static inline bool rows_load(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	int unit, const int16_t *mean, const struct rotary_rotation *rotation, unsigned int sinks,
	row_t *rows)
{
	if (!rows_of(raw, head_dim, dtype, unit, sinks, rows))
		return false;
	if (rotation)
		unrotate(rows, head_dim, rotation);
	for (unsigned int c = 0; c < head_dim; c++) {
		for (unsigned int t = 0; t < TOKENS; t++)
			rows[c][t] -= mean[c];
		for (unsigned int t = 0; t < sinks; t++)
			rows[c][t] = 0;
	}
	return true;
}

/*
 * Convert a row of 64 results, in 2^(unit - 8), to words of the type. They are below 2^24: exact in
 * binary32, and never subnormal there.
 */
static inline void to_words(const int32_t *row, unsigned int dtype, int unit, uint16_t *words)
{
	const float scale = power_of_two(unit - 8);

	if (dtype == SPECKV_DTYPE_BF16) {
		for (unsigned int t = 0; t < TOKENS; t++) {
			float value = (float)row[t] * scale;
			uint32_t bits;

			memcpy(&bits, &value, sizeof(bits));
			words[t] = htole16((uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
		}
		return;
	}
#if defined(__F16C__)
	for (unsigned int t = 0; t < TOKENS; t += 8) {
		const __m128i most = _mm_set1_epi16((short)(float_fp16.infinity - 1)),
			      sign = _mm_set1_epi16((short)0x8000);
		__m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_loadu_si256(
						     (const __m256i *)(const void *)(row + t))),
			_mm256_set1_ps(scale));
		__m128i word =
			_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);

		word = _mm_or_si128(_mm_min_epi16(_mm_andnot_si128(sign, word), most),
			_mm_and_si128(word, sign));
		_mm_storeu_si128((__m128i *)(void *)(words + t), word);
	}
#else
	for (unsigned int t = 0; t < TOKENS; t++) {
		uint32_t magnitude = (uint32_t)(row[t] < 0 ? -row[t] : row[t]);

		words[t] = htole16((uint16_t)(float_nearest(&float_fp16, magnitude, unit - 8) |
			(row[t] < 0 ? 0x8000 : 0)));
	}
#endif
}

/* Rotate pairs of rows back by their angles; results are in 1/256 units. */
static inline void rotate(row_t *rows, unsigned int head_dim,
	const struct rotary_rotation *rotation)
{
	for (unsigned int pair = 0; pair < head_dim / 2; pair++) {
		const int16_t *cosine = rotation->pairs[pair].cosine,
			      *sine = rotation->pairs[pair].sine;
		unsigned int first, second;

		pair_of(rotation->kind, head_dim, pair, &first, &second);
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t a = rows[first][t], b = rows[second][t];

			rows[first][t] = (a * cosine[t] - b * sine[t] + 64) >> 7;
			rows[second][t] = (b * cosine[t] + a * sine[t] + 64) >> 7;
		}
	}
}

/*
 * Store values in units, of at most 16 bits: rotate K, convert to words of the type, token by
 * token.
 */
static inline void rows_store(row_t *rows, unsigned int head_dim, unsigned int dtype, int unit,
	const struct rotary_rotation *rotation, uint8_t *raw)
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

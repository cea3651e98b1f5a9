// SPDX-License-Identifier: MIT
/*
 * Mode lossless with AVX-512 (VBMI, VNNI). Defined by FORMAT.md section 6; lossless.c is the
 * reference.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "lossless.h"

#define INLINE static inline __attribute__((always_inline))

/* Positions of the plain bits of 32 elements: two bytes each, and the left shift to the top. */
struct places {
	__m512i bytes, up;
};

INLINE struct places find_places(unsigned int plain)
{
	uint16_t pairs[32], up[32];

	for (unsigned int j = 0; j < 32; j++) {
		pairs[j] = (uint16_t)((plain * j / 8) | (plain * j / 8 + 1) << 8);
		up[j] = (uint16_t)(16 - plain - plain * j % 8);
	}
	return (struct places){ _mm512_loadu_si512(pairs), _mm512_loadu_si512(up) };
}

/* 32 elements in 16-bit lanes. */
INLINE __m512i put_together(const uint8_t *symbols, const uint8_t *plain, const uint16_t *base,
	unsigned int bits, unsigned int element_bits, const struct places *places)
{
	__m512i fields =
		_mm512_sllv_epi16(_mm512_permutexvar_epi8(places->bytes, _mm512_loadu_si512(plain)),
			places->up);
	__m512i low = _mm512_srli_epi16(_mm512_slli_epi16(fields, 1), 17 - bits);
	__m512i value =
		_mm512_add_epi16(_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)symbols)),
			_mm512_loadu_si512(base));

	low = _mm512_or_si512(low, _mm512_slli_epi16(value, bits - 1));
	if (element_bits == 8)
		fields = _mm512_srli_epi16(fields, 8);
	/* The sign from `fields`, the bits below it from `low`. */
	return _mm512_ternarylogic_epi64(_mm512_set1_epi16((short)(1u << (element_bits - 1))),
		fields, low, 0xca);
}

INLINE void merge(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
	const uint16_t *base, unsigned int head_dim, struct lossless_layout layout, uint8_t *raw,
	bool streamed)
{
	const struct places places = find_places(layout.plain);
	unsigned int channel = 0;

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 64) {
		uint64_t escaped = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(symbols + first),
			_mm512_set1_epi8(RANGE_ESCAPE));
		uint8_t *to = raw + (size_t)first * layout.bytes;
		__m512i half[2];

		for (unsigned int i = 0; i < 2; i++)
			half[i] = put_together(symbols + first + 32 * i,
				plain + (size_t)(first / 8 + 4 * i) * layout.plain,
				base + channel + 32 * i, layout.plain, 8 * layout.bytes, &places);
		if (layout.bytes == 1)
			half[0] = _mm512_inserti64x4(
				_mm512_castsi256_si512(_mm512_cvtepi16_epi8(half[0])),
				_mm512_cvtepi16_epi8(half[1]), 1);
		if (__builtin_expect(escaped != 0, 0)) {
			uint8_t here[128] __attribute__((aligned(64)));

			_mm512_store_si512(here, half[0]);
			_mm512_store_si512(here + 64, half[1]);
			escapes = lossless_patch(here, escaped, escapes, layout);
			half[0] = _mm512_load_si512(here);
			half[1] = _mm512_load_si512(here + 64);
		}
		for (unsigned int i = 0; i < layout.bytes; i++)
			if (streamed)
				_mm512_stream_si512((__m512i *)(void *)(to + 64 * (size_t)i),
					half[i]);
			else
				_mm512_storeu_si512(to + 64 * (size_t)i, half[i]);
		channel = (channel + 64) % head_dim;
	}
	if (streamed)
		_mm_sfence();
}

void codec_lossless_merge_avx512(const uint8_t *symbols, const uint8_t *plain,
	const uint8_t *escapes, const uint16_t *base, unsigned int head_dim, unsigned int dtype,
	uint8_t *raw, bool streamed)
{
	streamed = streamed && (uintptr_t)raw % 64 == 0;
	switch (dtype) {
	case SPECKV_DTYPE_BF16:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 2, 7 },
			raw, streamed);
		break;
	case SPECKV_DTYPE_FP16:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 2, 10 },
			raw, streamed);
		break;
	case SPECKV_DTYPE_FP8_E4M3:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 1, 3 },
			raw, streamed);
		break;
	default:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 1, 2 },
			raw, streamed);
		break;
	}
}

/* ---- encode --------------------------------------------------------------------------------- */

/* Split 32 words: symbols, and the plain bits of each four as one number in a 64-bit lane. */
INLINE uint32_t split_words(__m512i words, __m512i base, __m512i names, unsigned int bits,
	uint8_t *symbols, uint64_t *fours, uint16_t *values)
{
	const unsigned int low = bits - 1;
	const __m512i mask = _mm512_set1_epi16((short)((1u << (16 - bits)) - 1)),
		      escape = _mm512_set1_epi16(RANGE_ESCAPE);
	__m512i value = _mm512_and_si512(_mm512_srli_epi16(words, low), mask), symbol, field;

	_mm512_storeu_si512(values, value);
	symbol = _mm512_and_si512(_mm512_sub_epi16(value, base), mask);
	symbol = _mm512_mask_mov_epi16(_mm512_permutexvar_epi16(symbol, names),
		_mm512_cmpgt_epu16_mask(symbol, escape), escape);
	_mm256_storeu_si256((__m256i *)(void *)symbols, _mm512_cvtepi16_epi8(symbol));
	field = _mm512_or_si512(_mm512_slli_epi16(_mm512_srli_epi16(words, 15), low),
		_mm512_and_si512(words, _mm512_set1_epi16((short)((1u << low) - 1))));
	field = _mm512_madd_epi16(field, _mm512_set1_epi32((int)(1u << bits << 16 | 1)));
	field = _mm512_or_si512(_mm512_and_si512(field, _mm512_set1_epi64(0xffffffff)),
		_mm512_slli_epi64(_mm512_srli_epi64(field, 32), 2 * bits));
	_mm512_storeu_si512(fours, field);
	return _mm512_cmpeq_epi16_mask(symbol, escape);
}

INLINE uint32_t split(const uint8_t *raw, const struct range_table *table, const uint16_t *base,
	unsigned int head_dim, unsigned int bits, uint8_t *symbols, uint8_t *plain,
	uint8_t *escapes)
{
	uint32_t taken = 0, most = LOSSLESS_ESCAPES_MAX(head_dim);
	unsigned int channel = 0;
	uint16_t names[32];

	/* A symbol of frequency 0 is escaped, too. */
	for (unsigned int s = 0; s < RANGE_SYMBOLS; s++)
		names[s] = (uint16_t)(table->frequency[s] ? s : RANGE_ESCAPE);
	names[RANGE_ESCAPE] = RANGE_ESCAPE;
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 32) {
		uint64_t fours[8];
		uint16_t values[32];
		uint32_t escaped = split_words(_mm512_loadu_si512(raw + 2 * (size_t)first),
			_mm512_loadu_si512(base + channel), _mm512_loadu_si512(names), bits,
			symbols + first, fours, values);

		/* Whole words are stored; the next store overwrites the excess. */
		if (4 * bits % 8 == 0)
			for (unsigned int i = 0; i < 8; i++, plain += bits / 2)
				memcpy(plain, &fours[i], 8);
		else
			for (unsigned int i = 0; i < 8; i += 2, plain += bits) {
				uint64_t eight = fours[i] | fours[i + 1] << 4 * bits;

				memcpy(plain, &eight, 8);
			}
		for (; escaped; escaped &= escaped - 1, taken++)
			if (taken < most)
				codec_put16(escapes + 2 * (size_t)taken,
					values[__builtin_ctz(escaped)]);
		channel = (channel + 32) % head_dim;
	}
	return taken;
}

uint32_t codec_lossless_split_avx512(const uint8_t *raw, const struct range_table *table,
	const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *symbols,
	uint8_t *plain, uint8_t *escapes)
{
	if (dtype == SPECKV_DTYPE_BF16)
		return split(raw, table, base, head_dim, 7, symbols, plain, escapes);
	if (dtype == SPECKV_DTYPE_FP16)
		return split(raw, table, base, head_dim, 10, symbols, plain, escapes);
	return codec_lossless_split_portable(raw, table, base, head_dim, dtype, symbols, plain,
		escapes);
}

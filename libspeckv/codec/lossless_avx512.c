// SPDX-License-Identifier: MIT
/* Mode lossless with AVX-512 (VBMI, VNNI); FORMAT.md section 6 is the definition, lossless.c the reference. */
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "lossless.h"

#define INLINE static inline __attribute__((always_inline))

/*
 * Four registers of 16 states. The bytes of a 32-bit lane are four neighbouring elements, one of each register, so that one look-up
 * finds 64 symbols, in their order. A state's step is one multiply-add: (state >> 8) * frequency + 1 * -start, on top of its low byte.
 */
bool codec_lossless_symbols_avx512(const struct lossless_table *table, const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states,
				   uint8_t *symbols)
{
	const __m512i entries[2] = { _mm512_loadu_si512(table->entry), _mm512_loadu_si512(table->entry + 16) };
	const __m512i names[4] = { _mm512_loadu_si512(table->symbol), _mm512_loadu_si512(table->symbol + 64),
				   _mm512_loadu_si512(table->symbol + 128), _mm512_loadu_si512(table->symbol + 192) };
	const __m512i one = _mm512_set1_epi32(0x10000), low = _mm512_set1_epi32(255), least = _mm512_set1_epi32(LOSSLESS_STATE_MIN);
	const uint8_t *end = code + bytes;
	__m512i x[4];

	for (int j = 0; j < 4; j++)
		x[j] = _mm512_loadu_si512(states + 16 * j);
	for (unsigned int run = 0; run < runs; run++) {
		__m512i slots = _mm512_mask_mov_epi8(x[0], 0x2222222222222222u, _mm512_slli_epi32(x[1], 8)), found;

		if (code > end)
			return false;
		slots = _mm512_mask_mov_epi8(slots, 0x4444444444444444u, _mm512_slli_epi32(x[2], 16));
		slots = _mm512_mask_mov_epi8(slots, 0x8888888888888888u, _mm512_slli_epi32(x[3], 24));
		found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(slots), _mm512_permutex2var_epi8(names[0], slots, names[1]),
					       _mm512_permutex2var_epi8(names[2], slots, names[3]));
		_mm512_storeu_si512(symbols + 64 * run, found);
#pragma GCC unroll 4
		for (int j = 0; j < 4; j++) {
			__m512i entry = _mm512_permutex2var_epi32(entries[0], _mm512_srli_epi32(found, 8 * (unsigned int)j), entries[1]);
			__m512i high = _mm512_or_si512(_mm512_srli_epi32(x[j], 8), one);
			__mmask16 small;
			__m512i next;

			x[j] = _mm512_dpwssd_epi32(_mm512_and_si512(x[j], low), high, entry);
			small = _mm512_cmplt_epu32_mask(x[j], least);
			next = _mm512_maskz_expand_epi32(small, _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code)));
			x[j] = _mm512_or_si512(_mm512_mask_slli_epi32(x[j], small, x[j], 8), next);
			code += __builtin_popcount(small);
		}
	}
	for (int j = 0; j < 4; j++)
		_mm512_storeu_si512(states + 16 * j, x[j]);
	return code == end;
}

/* Where the plain bits of 32 elements are: two bytes each, and how far up to shift them. */
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
INLINE __m512i put_together(const uint8_t *symbols, const uint8_t *plain, const uint16_t *base, unsigned int bits, unsigned int element_bits,
			    const struct places *places)
{
	__m512i fields = _mm512_sllv_epi16(_mm512_permutexvar_epi8(places->bytes, _mm512_loadu_si512(plain)), places->up);
	__m512i low = _mm512_srli_epi16(_mm512_slli_epi16(fields, 1), 17 - bits);
	__m512i value = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)symbols)), _mm512_loadu_si512(base));

	low = _mm512_or_si512(low, _mm512_slli_epi16(value, bits - 1));
	if (element_bits == 8)
		fields = _mm512_srli_epi16(fields, 8);
	/* Of fields the sign, of the others what is below it. */
	return _mm512_ternarylogic_epi64(_mm512_set1_epi16((short)(1u << (element_bits - 1))), fields, low, 0xca);
}

INLINE void merge(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes, const uint16_t *base, unsigned int head_dim,
		  struct lossless_layout layout, uint8_t *raw, bool streamed)
{
	const struct places places = find_places(layout.plain);
	unsigned int channel = 0;

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 64) {
		uint64_t escaped = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(symbols + first), _mm512_set1_epi8(LOSSLESS_ESCAPE));
		uint8_t *to = raw + (size_t)first * layout.bytes;
		__m512i half[2];

		for (unsigned int i = 0; i < 2; i++)
			half[i] = put_together(symbols + first + 32 * i, plain + (size_t)(first / 8 + 4 * i) * layout.plain, base + channel + 32 * i,
					       layout.plain, 8 * layout.bytes, &places);
		if (layout.bytes == 1)
			half[0] = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(half[0])), _mm512_cvtepi16_epi8(half[1]), 1);
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
				_mm512_stream_si512((__m512i *)(void *)(to + 64 * (size_t)i), half[i]);
			else
				_mm512_storeu_si512(to + 64 * (size_t)i, half[i]);
		channel = (channel + 64) % head_dim;
	}
	if (streamed)
		_mm_sfence();
}

void codec_lossless_merge_avx512(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes, const uint16_t *base, unsigned int head_dim,
				 unsigned int dtype, uint8_t *raw, bool streamed)
{
	streamed = streamed && (uintptr_t)raw % 64 == 0;
	switch (dtype) {
	case SPECKV_DTYPE_BF16:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 2, 7 }, raw, streamed);
		break;
	case SPECKV_DTYPE_FP16:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 2, 10 }, raw, streamed);
		break;
	case SPECKV_DTYPE_FP8_E4M3:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 1, 3 }, raw, streamed);
		break;
	default:
		merge(symbols, plain, escapes, base, head_dim, (struct lossless_layout){ 1, 2 }, raw, streamed);
		break;
	}
}

/* ---- encode ------------------------------------------------------------------------------------------------------- */

/* 32 words apart: symbols, and the plain bits of each four as one number in a 64-bit lane. */
INLINE uint32_t split_words(__m512i words, __m512i base, __m512i names, unsigned int bits, uint8_t *symbols, uint64_t *fours, uint16_t *values)
{
	const unsigned int low = bits - 1;
	const __m512i mask = _mm512_set1_epi16((short)((1u << (16 - bits)) - 1)), escape = _mm512_set1_epi16(LOSSLESS_ESCAPE);
	__m512i value = _mm512_and_si512(_mm512_srli_epi16(words, low), mask), symbol, field;

	_mm512_storeu_si512(values, value);
	symbol = _mm512_and_si512(_mm512_sub_epi16(value, base), mask);
	symbol = _mm512_mask_mov_epi16(_mm512_permutexvar_epi16(symbol, names), _mm512_cmpgt_epu16_mask(symbol, escape), escape);
	_mm256_storeu_si256((__m256i *)(void *)symbols, _mm512_cvtepi16_epi8(symbol));
	field = _mm512_or_si512(_mm512_slli_epi16(_mm512_srli_epi16(words, 15), low), _mm512_and_si512(words, _mm512_set1_epi16((short)((1u << low) - 1))));
	field = _mm512_madd_epi16(field, _mm512_set1_epi32((int)(1u << bits << 16 | 1)));
	field = _mm512_or_si512(_mm512_and_si512(field, _mm512_set1_epi64(0xffffffff)), _mm512_slli_epi64(_mm512_srli_epi64(field, 32), 2 * bits));
	_mm512_storeu_si512(fours, field);
	return _mm512_cmpeq_epi16_mask(symbol, escape);
}

INLINE uint32_t split(const uint8_t *raw, const struct lossless_table *table, const uint16_t *base, unsigned int head_dim, unsigned int bits,
		      uint8_t *symbols, uint8_t *plain, uint8_t *escapes)
{
	uint32_t taken = 0, most = LOSSLESS_ESCAPES_MAX(head_dim);
	unsigned int channel = 0;
	uint16_t names[32];

	/* A symbol without a share is an escape too. */
	for (unsigned int s = 0; s < LOSSLESS_SYMBOLS; s++)
		names[s] = (uint16_t)(table->frequency[s] ? s : LOSSLESS_ESCAPE);
	names[LOSSLESS_ESCAPE] = LOSSLESS_ESCAPE;
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 32) {
		uint64_t fours[8];
		uint16_t values[32];
		uint32_t escaped = split_words(_mm512_loadu_si512(raw + 2 * (size_t)first), _mm512_loadu_si512(base + channel),
					       _mm512_loadu_si512(names), bits, symbols + first, fours, values);

		/* Whole words are stored; what is too much of one the next one overwrites. */
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
				codec_put16(escapes + 2 * (size_t)taken, values[__builtin_ctz(escaped)]);
		channel = (channel + 32) % head_dim;
	}
	return taken;
}

uint32_t codec_lossless_split_avx512(const uint8_t *raw, const struct lossless_table *table, const uint16_t *base, unsigned int head_dim,
				     unsigned int dtype, uint8_t *symbols, uint8_t *plain, uint8_t *escapes)
{
	if (dtype == SPECKV_DTYPE_BF16)
		return split(raw, table, base, head_dim, 7, symbols, plain, escapes);
	if (dtype == SPECKV_DTYPE_FP16)
		return split(raw, table, base, head_dim, 10, symbols, plain, escapes);
	return codec_lossless_split_portable(raw, table, base, head_dim, dtype, symbols, plain, escapes);
}

/* The quotient by a frequency is that of floats, which is off by one at most, put right by its remainder. */
uint32_t codec_lossless_code_avx512(const struct lossless_table *table, const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end)
{
	uint32_t frequency[LOSSLESS_SYMBOLS], start[LOSSLESS_SYMBOLS];
	float share[LOSSLESS_SYMBOLS];
	__m512i f[2], s[2], x[4];
	const uint8_t *from = end;
	__m512 r[2];

	for (unsigned int i = 0; i < LOSSLESS_SYMBOLS; i++) {
		frequency[i] = table->frequency[i];
		start[i] = table->start[i];
		share[i] = frequency[i] ? 1 / (float)frequency[i] : 0;
	}
	for (int i = 0; i < 2; i++) {
		f[i] = _mm512_loadu_si512(frequency + 16 * i);
		s[i] = _mm512_loadu_si512(start + 16 * i);
		r[i] = _mm512_loadu_ps(share + 16 * i);
	}
	for (int j = 0; j < 4; j++)
		x[j] = _mm512_loadu_si512(states + 16 * j);
	for (unsigned int run = runs; run-- > 0;) {
		__m512i all = _mm512_loadu_si512(symbols + 64 * run);

#pragma GCC unroll 4
		for (int j = 3; j >= 0; j--) {
			__m512i symbol = _mm512_srli_epi32(all, 8 * (unsigned int)j), by = _mm512_permutex2var_epi32(f[0], symbol, f[1]), q, rest;
			__mmask16 large = _mm512_cmpge_epu32_mask(x[j], _mm512_slli_epi32(by, 15)), off;
			unsigned int bytes = (unsigned int)__builtin_popcount(large);

			end -= bytes;
			_mm_mask_storeu_epi8(end, (__mmask16)((1u << bytes) - 1), _mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(large, x[j])));
			x[j] = _mm512_mask_srli_epi32(x[j], large, x[j], 8);
			q = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(x[j]), _mm512_permutex2var_ps(r[0], symbol, r[1])));
			rest = _mm512_sub_epi32(x[j], _mm512_mullo_epi32(q, by));
			off = _mm512_movepi32_mask(rest);
			q = _mm512_mask_sub_epi32(q, off, q, _mm512_set1_epi32(1));
			rest = _mm512_mask_add_epi32(rest, off, rest, by);
			off = _mm512_cmpge_epi32_mask(rest, by);
			q = _mm512_mask_add_epi32(q, off, q, _mm512_set1_epi32(1));
			rest = _mm512_mask_sub_epi32(rest, off, rest, by);
			x[j] = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, 8), rest), _mm512_permutex2var_epi32(s[0], symbol, s[1]));
		}
	}
	for (int j = 0; j < 4; j++)
		_mm512_storeu_si512(states + 16 * j, x[j]);
	return (uint32_t)(from - end);
}

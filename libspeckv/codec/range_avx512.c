// SPDX-License-Identifier: MIT
/*
 * Range coding with AVX-512 (VBMI, VNNI). Defined by FORMAT.md section 6.3; range.c is the
 * reference.
 */
#include <immintrin.h>

#include "kernels.h"
#include "range.h"

#define INLINE static inline __attribute__((always_inline))

/*
 * Four registers of 16 states. The bytes of a 32-bit lane are four neighbouring elements, one per
 * register, so that one look-up finds 64 symbols in order. A state's step is one multiply-add:
 * (state >> 8) * frequency + 1 * -start, added to its low byte.
 */
INLINE bool find_symbols(const struct range_table *tables, const uint8_t *which,
	const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states, uint8_t *symbols)
{
	const __m512i one = _mm512_set1_epi32(0x10000), low = _mm512_set1_epi32(255),
		      least = _mm512_set1_epi32(RANGE_STATE_MIN);
	const uint8_t *end = code + bytes;
	__m512i x[4];

	for (int j = 0; j < 4; j++)
		x[j] = _mm512_loadu_si512(states + 16 * j);
	for (unsigned int run = 0; run < runs; run++) {
		const struct range_table *table = which ? tables + which[run] : tables;
		const __m512i entries[2] = { _mm512_loadu_si512(table->entry),
			_mm512_loadu_si512(table->entry + 16) };
		const __m512i names[4] = { _mm512_loadu_si512(table->symbol),
			_mm512_loadu_si512(table->symbol + 64),
			_mm512_loadu_si512(table->symbol + 128),
			_mm512_loadu_si512(table->symbol + 192) };
		__m512i slots = _mm512_mask_mov_epi8(x[0], 0x2222222222222222u,
				_mm512_slli_epi32(x[1], 8)),
			found;

		if (code > end)
			return false;
		slots = _mm512_mask_mov_epi8(slots, 0x4444444444444444u,
			_mm512_slli_epi32(x[2], 16));
		slots = _mm512_mask_mov_epi8(slots, 0x8888888888888888u,
			_mm512_slli_epi32(x[3], 24));
		found = _mm512_mask_blend_epi8(_mm512_movepi8_mask(slots),
			_mm512_permutex2var_epi8(names[0], slots, names[1]),
			_mm512_permutex2var_epi8(names[2], slots, names[3]));
		_mm512_storeu_si512(symbols + 64 * run, found);
#pragma GCC unroll 4
		for (int j = 0; j < 4; j++) {
			__m512i entry = _mm512_permutex2var_epi32(entries[0],
				_mm512_srli_epi32(found, 8 * (unsigned int)j), entries[1]);
			__m512i high = _mm512_or_si512(_mm512_srli_epi32(x[j], 8), one);
			__mmask16 small;
			__m512i next;

			x[j] = _mm512_dpwssd_epi32(_mm512_and_si512(x[j], low), high, entry);
			small = _mm512_cmplt_epu32_mask(x[j], least);
			next = _mm512_maskz_expand_epi32(small,
				_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)code)));
			x[j] = _mm512_or_si512(_mm512_mask_slli_epi32(x[j], small, x[j], 8), next);
			code += __builtin_popcount(small);
		}
	}
	for (int j = 0; j < 4; j++)
		_mm512_storeu_si512(states + 16 * j, x[j]);
	return code == end;
}

/* A single table stays in registers. */
bool codec_range_symbols_avx512(const struct range_table *tables, const uint8_t *which,
	const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states, uint8_t *symbols)
{
	return which ? find_symbols(tables, which, code, bytes, runs, states, symbols)
		     : find_symbols(tables, NULL, code, bytes, runs, states, symbols);
}

/* A table in the encoder's form. */
struct shares {
	__m512i frequency[2], start[2];
	__m512 reciprocal[2];
};

INLINE void load_shares(const struct range_table *table, struct shares *to)
{
	for (int i = 0; i < 2; i++) {
		to->frequency[i] = _mm512_cvtepu8_epi32(_mm_loadu_si128(
			(const __m128i *)(const void *)(table->frequency + 16 * i)));
		to->start[i] = _mm512_cvtepu8_epi32(
			_mm_loadu_si128((const __m128i *)(const void *)(table->start + 16 * i)));
		to->reciprocal[i] =
			_mm512_div_ps(_mm512_set1_ps(1), _mm512_cvtepi32_ps(to->frequency[i]));
	}
}

/* Division by a frequency in floating point: off by at most one, and corrected by the remainder. */
INLINE uint32_t make_code(const struct range_table *tables, const uint8_t *which,
	const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end)
{
	const uint8_t *from = end;
	struct shares shares;
	__m512i x[4];

	load_shares(tables, &shares);
	for (int j = 0; j < 4; j++)
		x[j] = _mm512_loadu_si512(states + 16 * j);
	for (unsigned int run = runs; run-- > 0;) {
		__m512i all = _mm512_loadu_si512(symbols + 64 * run);

		if (which)
			load_shares(tables + which[run], &shares);
#pragma GCC unroll 4
		for (int j = 3; j >= 0; j--) {
			__m512i symbol = _mm512_srli_epi32(all, 8 * (unsigned int)j),
				by = _mm512_permutex2var_epi32(shares.frequency[0], symbol,
					shares.frequency[1]),
				q, rest;
			__mmask16 large = _mm512_cmpge_epu32_mask(x[j], _mm512_slli_epi32(by, 15)),
				  off;
			unsigned int bytes = (unsigned int)__builtin_popcount(large);

			end -= bytes;
			_mm_mask_storeu_epi8(end, (__mmask16)((1u << bytes) - 1),
				_mm512_cvtepi32_epi8(_mm512_maskz_compress_epi32(large, x[j])));
			x[j] = _mm512_mask_srli_epi32(x[j], large, x[j], 8);
			q = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(x[j]),
				_mm512_permutex2var_ps(shares.reciprocal[0], symbol,
					shares.reciprocal[1])));
			rest = _mm512_sub_epi32(x[j], _mm512_mullo_epi32(q, by));
			off = _mm512_movepi32_mask(rest);
			q = _mm512_mask_sub_epi32(q, off, q, _mm512_set1_epi32(1));
			rest = _mm512_mask_add_epi32(rest, off, rest, by);
			off = _mm512_cmpge_epi32_mask(rest, by);
			q = _mm512_mask_add_epi32(q, off, q, _mm512_set1_epi32(1));
			rest = _mm512_mask_sub_epi32(rest, off, rest, by);
			x[j] = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, 8), rest),
				_mm512_permutex2var_epi32(shares.start[0], symbol,
					shares.start[1]));
		}
	}
	for (int j = 0; j < 4; j++)
		_mm512_storeu_si512(states + 16 * j, x[j]);
	return (uint32_t)(from - end);
}

uint32_t codec_range_code_avx512(const struct range_table *tables, const uint8_t *which,
	const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end)
{
	return which ? make_code(tables, which, symbols, runs, states, end)
		     : make_code(tables, NULL, symbols, runs, states, end);
}

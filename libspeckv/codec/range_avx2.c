// SPDX-License-Identifier: MIT
/*
 * Range coding with AVX2, after range_avx512.c. Defined by FORMAT.md section 6.3; range.c is the
 * reference.
 */
#include <immintrin.h>

#include "kernels.h"
#include "range.h"

#define INLINE static inline __attribute__((always_inline))

/* For each mask of lanes that consume a byte: the index of the byte of each lane; 0x80: none. */
struct spread {
	uint8_t of[256][8];
};

static const struct spread *spread(void)
{
#define NTH(m, i) ((m) >> (i) & 1 ? (uint8_t)__builtin_popcount((m) & ((1u << (i)) - 1)) : 0x80)
#define ROW(m) \
	{ NTH(m, 0), NTH(m, 1), NTH(m, 2), NTH(m, 3), NTH(m, 4), NTH(m, 5), NTH(m, 6), NTH(m, 7) }
#define ROWS4(m) ROW(m), ROW((m) + 1), ROW((m) + 2), ROW((m) + 3)
#define ROWS16(m) ROWS4(m), ROWS4((m) + 4), ROWS4((m) + 8), ROWS4((m) + 12)
#define ROWS64(m) ROWS16(m), ROWS16((m) + 16), ROWS16((m) + 32), ROWS16((m) + 48)
	static const struct spread table = { { ROWS64(0u), ROWS64(64u), ROWS64(128u),
		ROWS64(192u) } };

	return &table;
}

/* Eight registers of eight states; register 2 j + h holds states 16 j + 8 h and on. */
bool codec_range_symbols_avx2(const struct range_table *tables, const uint8_t *which,
	const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states, uint8_t *symbols)
{
	const __m256i one = _mm256_set1_epi32(0x10000), low = _mm256_set1_epi32(255),
		      words = _mm256_set1_epi32(0x00ff00ff);
	const __m256i least = _mm256_set1_epi32(RANGE_STATE_MIN);
	const struct spread *rows = spread();
	const uint8_t *end = code + bytes;
	__m256i x[8];

	for (int i = 0; i < 8; i++)
		x[i] = _mm256_loadu_si256((const __m256i *)(states + 8 * i));
	for (unsigned int run = 0; run < runs; run++) {
		const struct range_table *table = which ? tables + which[run] : tables;
		__m256i found[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

		if (code > end)
			return false;
#pragma GCC unroll 8
		for (int i = 0; i < 8; i++) {
			__m256i slot = _mm256_i32gather_epi32((const int *)table->slot,
				_mm256_and_si256(x[i], low), 4);
			__m256i high = _mm256_or_si256(_mm256_srli_epi32(x[i], 8), one), small,
				next;
			__m256i symbol = _mm256_and_si256(_mm256_srli_epi32(slot, 8), low);
			unsigned int set;

			found[i % 2] = _mm256_or_si256(found[i % 2],
				_mm256_slli_epi32(symbol, 8 * (i / 2)));
			x[i] = _mm256_madd_epi16(high, _mm256_and_si256(slot, words));
			small = _mm256_cmpgt_epi32(least, x[i]);
			set = (unsigned int)_mm256_movemask_ps(_mm256_castsi256_ps(small));
			next = _mm256_cvtepu8_epi32(
				_mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)code),
					_mm_loadl_epi64((const __m128i *)rows->of[set])));
			x[i] = _mm256_or_si256(_mm256_sllv_epi32(x[i],
						       _mm256_and_si256(small,
							       _mm256_set1_epi32(8))),
				next);
			code += __builtin_popcount(set);
		}
		_mm256_storeu_si256((__m256i *)(symbols + 64 * run), found[0]);
		_mm256_storeu_si256((__m256i *)(symbols + 64 * run + 32), found[1]);
	}
	for (int i = 0; i < 8; i++)
		_mm256_storeu_si256((__m256i *)(states + 8 * i), x[i]);
	return code == end;
}

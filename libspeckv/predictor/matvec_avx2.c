/* SPDX-License-Identifier: MIT */
#include <immintrin.h>

#include "predictor/kernels.h"

static inline __m256i widen(const int8_t *p)
{
	return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}

/* Four rows at once, so that each part of the vector is widened once for all of them. */
void predictor_matvec_avx2(const int8_t *weights, uint32_t rows, uint32_t columns, const int8_t *vector, int32_t *sums)
{
	for (uint32_t row = 0; row < rows; row += 4, weights += 4 * (size_t)columns) {
		__m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;

		for (uint32_t i = 0; i < columns; i += 16) {
			__m256i v = widen(vector + i);

			a = _mm256_add_epi32(a, _mm256_madd_epi16(v, widen(weights + i)));
			b = _mm256_add_epi32(b, _mm256_madd_epi16(v, widen(weights + columns + i)));
			c = _mm256_add_epi32(c, _mm256_madd_epi16(v, widen(weights + 2 * columns + i)));
			d = _mm256_add_epi32(d, _mm256_madd_epi16(v, widen(weights + 3 * columns + i)));
		}
		__m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
		__m128i four = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));

		_mm_storeu_si128((__m128i *)(sums + row), four);
	}
}

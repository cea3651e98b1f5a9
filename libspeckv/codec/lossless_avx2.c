// SPDX-License-Identifier: MIT
/* Mode lossless with AVX2; FORMAT.md section 6 is the definition, lossless.c the reference, lossless_avx512.c the model. */
#include <immintrin.h>

#include "kernels.h"
#include "lossless.h"

#define INLINE static inline __attribute__((always_inline))

/* For each set of lanes that take a byte, in order: which one; 0x80 for none. */
struct spread {
	uint8_t of[256][8];
};

static const struct spread *spread(void)
{
#define NTH(m, i) ((m) >> (i) & 1 ? (uint8_t)__builtin_popcount((m) & ((1u << (i)) - 1)) : 0x80)
#define ROW(m) { NTH(m, 0), NTH(m, 1), NTH(m, 2), NTH(m, 3), NTH(m, 4), NTH(m, 5), NTH(m, 6), NTH(m, 7) }
#define ROWS4(m) ROW(m), ROW((m) + 1), ROW((m) + 2), ROW((m) + 3)
#define ROWS16(m) ROWS4(m), ROWS4((m) + 4), ROWS4((m) + 8), ROWS4((m) + 12)
#define ROWS64(m) ROWS16(m), ROWS16((m) + 16), ROWS16((m) + 32), ROWS16((m) + 48)
	static const struct spread table = { { ROWS64(0u), ROWS64(64u), ROWS64(128u), ROWS64(192u) } };

	return &table;
}

/* Eight registers of eight states; register 2 j + h holds states 16 j + 8 h and on. */
bool codec_lossless_symbols_avx2(const struct lossless_table *table, const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states,
				 uint8_t *symbols)
{
	const __m256i one = _mm256_set1_epi32(0x10000), low = _mm256_set1_epi32(255), words = _mm256_set1_epi32(0x00ff00ff);
	const __m256i least = _mm256_set1_epi32(LOSSLESS_STATE_MIN);
	const struct spread *rows = spread();
	const uint8_t *end = code + bytes;
	__m256i x[8];

	for (int i = 0; i < 8; i++)
		x[i] = _mm256_loadu_si256((const __m256i *)(states + 8 * i));
	for (unsigned int run = 0; run < runs; run++) {
		__m256i found[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

		if (code > end)
			return false;
#pragma GCC unroll 8
		for (int i = 0; i < 8; i++) {
			__m256i slot = _mm256_i32gather_epi32((const int *)table->slot, _mm256_and_si256(x[i], low), 4);
			__m256i high = _mm256_or_si256(_mm256_srli_epi32(x[i], 8), one), small, next;
			__m256i symbol = _mm256_and_si256(_mm256_srli_epi32(slot, 8), low);
			unsigned int set;

			found[i % 2] = _mm256_or_si256(found[i % 2], _mm256_slli_epi32(symbol, 8 * (i / 2)));
			x[i] = _mm256_madd_epi16(high, _mm256_and_si256(slot, words));
			small = _mm256_cmpgt_epi32(least, x[i]);
			set = (unsigned int)_mm256_movemask_ps(_mm256_castsi256_ps(small));
			next = _mm256_cvtepu8_epi32(_mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)code), _mm_loadl_epi64((const __m128i *)rows->of[set])));
			x[i] = _mm256_or_si256(_mm256_sllv_epi32(x[i], _mm256_and_si256(small, _mm256_set1_epi32(8))), next);
			code += __builtin_popcount(set);
		}
		_mm256_storeu_si256((__m256i *)(symbols + 64 * run), found[0]);
		_mm256_storeu_si256((__m256i *)(symbols + 64 * run + 32), found[1]);
	}
	for (int i = 0; i < 8; i++)
		_mm256_storeu_si256((__m256i *)(states + 8 * i), x[i]);
	return code == end;
}

/* Where the plain bits of eight elements are: two bytes each, and what to multiply them by so that they come to the top. */
struct places {
	__m256i bytes, up;
};

INLINE struct places find_places(unsigned int plain)
{
	uint8_t pairs[16];
	uint16_t up[8];

	for (unsigned int j = 0; j < 8; j++) {
		pairs[2 * j] = (uint8_t)(plain * j / 8);
		pairs[2 * j + 1] = (uint8_t)(plain * j / 8 + 1);
		up[j] = (uint16_t)(1u << (16 - plain - plain * j % 8));
	}
	return (struct places){ _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)pairs)),
				_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)up)) };
}

/* 16 elements in 16-bit lanes. */
INLINE __m256i put_together(const uint8_t *symbols, const uint8_t *plain, const uint16_t *base, unsigned int bits, unsigned int element_bits,
			    const struct places *places)
{
	const __m256i sign = _mm256_set1_epi16((short)(1u << (element_bits - 1)));
	__m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)plain)),
					       _mm_loadu_si128((const __m128i *)(plain + bits)), 1);
	__m256i fields = _mm256_mullo_epi16(_mm256_shuffle_epi8(both, places->bytes), places->up);
	__m256i low = _mm256_srli_epi16(_mm256_slli_epi16(fields, 1), 17 - (int)bits);
	__m256i value = _mm256_add_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)symbols)), _mm256_loadu_si256((const __m256i *)base));

	low = _mm256_or_si256(low, _mm256_slli_epi16(value, (int)bits - 1));
	if (element_bits == 8) {
		fields = _mm256_srli_epi16(fields, 8);
		low = _mm256_and_si256(low, _mm256_set1_epi16(0x7f));
	}
	return _mm256_or_si256(_mm256_andnot_si256(sign, low), _mm256_and_si256(sign, fields));
}

INLINE void merge(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes, const uint16_t *base, unsigned int head_dim,
		  struct lossless_layout layout, uint8_t *raw, bool streamed)
{
	const struct places places = find_places(layout.plain);
	unsigned int channel = 0;

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 64) {
		const __m256i escape = _mm256_set1_epi8(LOSSLESS_ESCAPE);
		__m256i low = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(symbols + first)), escape), quarter[4];
		__m256i high = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(symbols + first + 32)), escape);
		uint64_t escaped = (uint32_t)_mm256_movemask_epi8(low) | (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
		uint8_t *to = raw + (size_t)first * layout.bytes;

		for (unsigned int i = 0; i < 4; i++)
			quarter[i] = put_together(symbols + first + 16 * i, plain + (size_t)(first / 8 + 2 * i) * layout.plain,
						  base + channel + 16 * i, layout.plain, 8 * layout.bytes, &places);
		if (layout.bytes == 1)
			for (unsigned int i = 0; i < 2; i++)
				quarter[i] = _mm256_permute4x64_epi64(_mm256_packus_epi16(quarter[2 * i], quarter[2 * i + 1]), 0xd8);
		if (__builtin_expect(escaped != 0, 0)) {
			uint8_t here[128] __attribute__((aligned(64)));

			for (unsigned int i = 0; i < 4; i++)
				_mm256_store_si256((__m256i *)(void *)(here + 32 * i), quarter[i]);
			escapes = lossless_patch(here, escaped, escapes, layout);
			for (unsigned int i = 0; i < 4; i++)
				quarter[i] = _mm256_load_si256((const __m256i *)(const void *)(here + 32 * i));
		}
		for (unsigned int i = 0; i < 2 * layout.bytes; i++)
			if (streamed)
				_mm256_stream_si256((__m256i *)(void *)(to + 32 * (size_t)i), quarter[i]);
			else
				_mm256_storeu_si256((__m256i *)(void *)(to + 32 * (size_t)i), quarter[i]);
		channel = (channel + 64) % head_dim;
	}
	if (streamed)
		_mm_sfence();
}

void codec_lossless_merge_avx2(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes, const uint16_t *base, unsigned int head_dim,
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

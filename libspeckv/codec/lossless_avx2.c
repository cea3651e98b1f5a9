// SPDX-License-Identifier: MIT
/*
 * Mode lossless with AVX2, after lossless_avx512.c. Defined by FORMAT.md section 6; lossless.c is
 * the reference.
 */
#include <immintrin.h>

#include "kernels.h"
#include "lossless.h"

#define INLINE static inline __attribute__((always_inline))

/*
 * Positions of the plain bits of eight elements: two bytes each, and the factor that shifts them to
 * the top.
 */
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
	return (struct places){
		_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)pairs)),
		_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)up))
	};
}

/* 16 elements in 16-bit lanes. */
INLINE __m256i put_together(const uint8_t *symbols, const uint8_t *plain, const uint16_t *base,
	unsigned int bits, unsigned int element_bits, const struct places *places)
{
	const __m256i sign = _mm256_set1_epi16((short)(1u << (element_bits - 1)));
	__m256i both = _mm256_inserti128_si256(
		_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)plain)),
		_mm_loadu_si128((const __m128i *)(plain + bits)), 1);
	__m256i fields = _mm256_mullo_epi16(_mm256_shuffle_epi8(both, places->bytes), places->up);
	__m256i low = _mm256_srli_epi16(_mm256_slli_epi16(fields, 1), 17 - (int)bits);
	__m256i value =
		_mm256_add_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)symbols)),
			_mm256_loadu_si256((const __m256i *)base));

	low = _mm256_or_si256(low, _mm256_slli_epi16(value, (int)bits - 1));
	if (element_bits == 8) {
		fields = _mm256_srli_epi16(fields, 8);
		low = _mm256_and_si256(low, _mm256_set1_epi16(0x7f));
	}
	return _mm256_or_si256(_mm256_andnot_si256(sign, low), _mm256_and_si256(sign, fields));
}

INLINE void merge(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
	const uint16_t *base, unsigned int head_dim, struct lossless_layout layout, uint8_t *raw,
	bool streamed)
{
	const struct places places = find_places(layout.plain);
	unsigned int channel = 0;

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS * head_dim; first += 64) {
		const __m256i escape = _mm256_set1_epi8(RANGE_ESCAPE);
		__m256i low = _mm256_cmpeq_epi8(
				_mm256_loadu_si256((const __m256i *)(symbols + first)), escape),
			quarter[4];
		__m256i high = _mm256_cmpeq_epi8(
			_mm256_loadu_si256((const __m256i *)(symbols + first + 32)), escape);
		uint64_t escaped = (uint32_t)_mm256_movemask_epi8(low) |
			(uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
		uint8_t *to = raw + (size_t)first * layout.bytes;

		for (unsigned int i = 0; i < 4; i++)
			quarter[i] = put_together(symbols + first + 16 * i,
				plain + (size_t)(first / 8 + 2 * i) * layout.plain,
				base + channel + 16 * i, layout.plain, 8 * layout.bytes, &places);
		if (layout.bytes == 1)
			for (unsigned int i = 0; i < 2; i++)
				quarter[i] =
					_mm256_permute4x64_epi64(_mm256_packus_epi16(quarter[2 * i],
									 quarter[2 * i + 1]),
						0xd8);
		if (__builtin_expect(escaped != 0, 0)) {
			uint8_t here[128] __attribute__((aligned(64)));

			for (unsigned int i = 0; i < 4; i++)
				_mm256_store_si256((__m256i *)(void *)(here + 32 * i), quarter[i]);
			escapes = lossless_patch(here, escaped, escapes, layout);
			for (unsigned int i = 0; i < 4; i++)
				quarter[i] =
					_mm256_load_si256((const __m256i *)(const void *)(here +
						32 * i));
		}
		for (unsigned int i = 0; i < 2 * layout.bytes; i++)
			if (streamed)
				_mm256_stream_si256((__m256i *)(void *)(to + 32 * (size_t)i),
					quarter[i]);
			else
				_mm256_storeu_si256((__m256i *)(void *)(to + 32 * (size_t)i),
					quarter[i]);
		channel = (channel + 64) % head_dim;
	}
	if (streamed)
		_mm_sfence();
}

void codec_lossless_merge_avx2(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
	const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
	bool streamed)
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

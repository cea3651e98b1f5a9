/* SPDX-License-Identifier: MIT */
/* Shared by the AVX2 encoder and decoder of the fixed-rate modes. */
#ifndef SPECKV_CODEC_QX_AVX2_H
#define SPECKV_CODEC_QX_AVX2_H

#include <immintrin.h>

#include "kernels.h"
#include "qx.h"

#define INLINE static inline __attribute__((always_inline))

/* Set rounding to nearest, ties to even: the thread may use another mode. Returns the old MXCSR. */
INLINE unsigned int round_to_nearest(void)
{
	unsigned int before = _mm_getcsr();

	_mm_setcsr(before & ~(unsigned int)_MM_ROUND_MASK);
	return before;
}

/*
 * The sign bits that are changed, of eight of the 16 channels from `channel` on: in bf16 the even
 * ones, then the odd ones, in fp16 in order.
 */
INLINE __m256i negated_bits(unsigned int head_dim, unsigned int channel, unsigned int second,
	unsigned int dtype)
{
	const __m256i shifts = dtype == SPECKV_DTYPE_BF16
		? _mm256_setr_epi32(31, 29, 27, 25, 23, 21, 19, 17)
		: _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
	uint32_t bits = (uint32_t)(qx_negated(head_dim) >> channel % 64) & 0xffff;

	bits >>= second * (dtype == SPECKV_DTYPE_BF16 ? 1 : 8);
	return _mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32((int)bits), shifts),
		_mm256_set1_epi32(INT32_MIN));
}

/* Dispatch on constant head sizes, so that registers are allocated and loops unrolled for each. */
#define FOR_HEAD_SIZE(head_dim, call, ...)      \
	do {                                    \
		switch (head_dim) {             \
		case 64:                        \
			call(64, __VA_ARGS__);  \
			break;                  \
		case 80:                        \
			call(80, __VA_ARGS__);  \
			break;                  \
		case 96:                        \
			call(96, __VA_ARGS__);  \
			break;                  \
		case 128:                       \
			call(128, __VA_ARGS__); \
			break;                  \
		case 192:                       \
			call(192, __VA_ARGS__); \
			break;                  \
		default:                        \
			call(256, __VA_ARGS__); \
			break;                  \
		}                               \
	} while (0)

#endif

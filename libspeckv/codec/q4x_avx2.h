/* SPDX-License-Identifier: MIT */
/* Shared by the AVX2 encoder and decoder of mode q4x. */
#ifndef SPECKV_CODEC_Q4X_AVX2_H
#define SPECKV_CODEC_Q4X_AVX2_H

#include <immintrin.h>

#include "kernels.h"
#include "q4x.h"

#define INLINE static inline __attribute__((always_inline))

/* Set rounding to nearest, ties to even: the thread may use another mode. Returns the old MXCSR. */
INLINE unsigned int round_to_nearest(void)
{
	unsigned int before = _mm_getcsr();

	_mm_setcsr(before & ~(unsigned int)_MM_ROUND_MASK);
	return before;
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

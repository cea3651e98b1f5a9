// SPDX-License-Identifier: MIT
/*
 * Mode q4x with AVX-512 (VBMI); FORMAT.md section 5 is the definition, q4x.c the reference.
 *
 * Floating point appears only where it is exact or where its rounding is the one that the format asks for: binary32 products of integers
 * below 2^23 with powers of two, conversions that round to nearest, ties to even, whatever the thread's mode.
 */
#include <errno.h>
#include <immintrin.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

/* Built twice: a second time for processors that round to bf16 themselves. */
#ifdef CODEC_NATIVE_BF16
#define DECODE codec_q4x_decode_avx512bf16
#else
#define DECODE codec_q4x_decode_avx512
#endif

#define INLINE static inline __attribute__((always_inline))

/* ---- decode ------------------------------------------------------------------------------------------------------- */

/* Half steps of a group's 64 tokens as floats; 0 for scale code 0. */
INLINE void half_steps(const uint8_t *scales, float *out)
{
	const __m512 eighths = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)q4x_eighths))));

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 16) {
		__m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(scales + t)));
		__mmask16 some = _mm512_test_epi32_mask(code, code);
		__m512i step = _mm512_sub_epi32(code, _mm512_set1_epi32(1));
		/* 2^(step / 8 - 33), made as the bits of a float */
		__m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_srli_epi32(step, 3), _mm512_set1_epi32(127 - 33)), 23);

		_mm512_storeu_ps(out + t, _mm512_maskz_mul_ps(some, _mm512_permutexvar_ps(step, eighths), _mm512_castsi512_ps(power)));
	}
}

enum target { TARGET_BF16, TARGET_FP16, TARGET_FP16_LIMITED };

/* 32 floats to 16 bits each: to nearest, ties to even. LIMITED where some may lie beyond the largest finite number. */
INLINE __m512i to_floats(enum target target, __m512 low, __m512 high)
{
	if (target == TARGET_BF16) {
#ifdef CODEC_NATIVE_BF16
		return (__m512i)_mm512_cvtne2ps_pbh(high, low);
#else
		static const uint16_t upper_halves[32] = { 1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
							   33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63 };
		const __m512i below_half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
		__m512i a = _mm512_castps_si512(low), b = _mm512_castps_si512(high);

		a = _mm512_add_epi32(_mm512_add_epi32(a, below_half), _mm512_and_si512(_mm512_srli_epi32(a, 16), one));
		b = _mm512_add_epi32(_mm512_add_epi32(b, below_half), _mm512_and_si512(_mm512_srli_epi32(b, 16), one));
		return _mm512_permutex2var_epi16(a, _mm512_loadu_si512(upper_halves), b);
#endif
	}
	if (target == TARGET_FP16_LIMITED) {
		const __m512 most = _mm512_set1_ps(65504), least = _mm512_set1_ps(-65504);

		low = _mm512_max_ps(_mm512_min_ps(low, most), least);
		high = _mm512_max_ps(_mm512_min_ps(high, most), least);
	}
	return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)),
				  _mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), 1);
}

/* value * scale, exact; plus zero, so that a scale of 0 gives +0 whatever the sign. */
INLINE __m512 scaled(__m512 value, __m512 scale)
{
	return _mm512_fmadd_round_ps(value, scale, _mm512_setzero_ps(), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

INLINE void put(uint8_t *to, __m512i value, bool streamed)
{
	if (streamed)
		_mm512_stream_si512((__m512i *)(void *)to, value);
	else
		_mm512_storeu_si512(to, value);
}

/*
 * The transform of 128 channels in 4-bit codes, 64 bytes, as slices of 2^slice_log2. Results are sums of codes, doubled, each off by a
 * constant of its channel; in natural order, 32 channels a register.
 *
 * Butterflies of channel bits 0, 2, 3, 4 are done in unsigned bytes: where a difference is due, a - b + most, most being the largest value
 * so far, so that 15 becomes 30, 60, 120, 240. Bit 1, the neighbouring bytes, comes with the widening to 16 bits, bits 5 and 6 by
 * exchanging 16-byte lanes. The constants follow from putting zero codes through the same.
 */
struct sums {
	__m512i at[4];
};

INLINE __m512i butterfly8(__m512i x, __m512i partner, __mmask64 upper, int most)
{
	return _mm512_add_epi8(partner, _mm512_mask_sub_epi8(x, upper, _mm512_set1_epi8((char)most), x));
}

INLINE __m512i spread8(__m512i x, unsigned int slice_log2)
{
	/* byte index bits 1, 2, 3 are channel bits 2, 3, 4 */
	const __m512i swap2 = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));

	x = butterfly8(x, _mm512_shuffle_epi8(x, swap2), 0xccccccccccccccccu, 30);
	x = butterfly8(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB), 0xf0f0f0f0f0f0f0f0u, 60);
	if (slice_log2 > 4)
		x = butterfly8(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC), 0xff00ff00ff00ff00u, 120);
	return x;
}

INLINE struct sums transform(__m512i codes, unsigned int slice_log2)
{
	const __m512i nibble = _mm512_set1_epi8(15), plus = _mm512_set1_epi16(0x0202), minus = _mm512_set1_epi16((short)0xfe02);
	__m512i even = _mm512_and_si512(codes, nibble), odd = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
	/* channel bit 0; 15 - odd is odd ^ 15 */
	__m512i s = spread8(_mm512_add_epi8(even, odd), slice_log2);
	__m512i d = spread8(_mm512_add_epi8(even, _mm512_xor_si512(odd, nibble)), slice_log2);
	/* [channel bit 0][channel bit 1], words: channel bits 2 to 4, lanes: 5, 6 */
	__m512i r[2][2] = { { _mm512_maddubs_epi16(s, plus), _mm512_maddubs_epi16(s, minus) },
			    { _mm512_maddubs_epi16(d, plus), _mm512_maddubs_epi16(d, minus) } };
	struct sums out;

#pragma GCC unroll 2
	for (int i = 0; i < 2; i++) {
		/* Lanes, by number: x holds 0 and 1 of both registers, y 2 and 3. */
		__m512i x = _mm512_shuffle_i64x2(r[i][0], r[i][1], 0x44), y = _mm512_shuffle_i64x2(r[i][0], r[i][1], 0xee);
		__m512i p = x, q = y;

		if (slice_log2 > 6) {
			p = _mm512_add_epi16(x, y);
			q = _mm512_sub_epi16(x, y);
		}
		x = _mm512_shuffle_i64x2(p, q, 0x88);
		y = _mm512_shuffle_i64x2(p, q, 0xdd);
		r[i][0] = x;
		r[i][1] = y;
		if (slice_log2 > 5) {
			r[i][0] = _mm512_add_epi16(x, y);
			r[i][1] = _mm512_sub_epi16(x, y);
		}
	}
	/* Now [channel bit 0][channel bit 5], lanes: bit 0 is channel bit 1, bit 1 is channel bit 6. */
	{
		static const uint16_t order[2][32] = {
			{ 0, 32, 8, 40, 1, 33, 9, 41, 2, 34, 10, 42, 3, 35, 11, 43, 4, 36, 12, 44, 5, 37, 13, 45, 6, 38, 14, 46, 7, 39, 15, 47 },
			{ 16, 48, 24, 56, 17, 49, 25, 57, 18, 50, 26, 58, 19, 51, 27, 59, 20, 52, 28, 60, 21, 53, 29, 61, 22, 54, 30, 62, 23, 55, 31, 63 },
		};
		const __m512i low = _mm512_loadu_si512(order[0]), high = _mm512_loadu_si512(order[1]);

		out.at[0] = _mm512_permutex2var_epi16(r[0][0], low, r[1][0]);
		out.at[1] = _mm512_permutex2var_epi16(r[0][1], low, r[1][1]);
		out.at[2] = _mm512_permutex2var_epi16(r[0][0], high, r[1][0]);
		out.at[3] = _mm512_permutex2var_epi16(r[0][1], high, r[1][1]);
	}
	return out;
}

/* Channels run on over the tokens of a group: 128 at a time, 16 of which are always of one token. */
INLINE void decode_k(const uint8_t *group, unsigned int head_dim, unsigned int slice_log2, enum target target, uint8_t *raw, bool streamed)
{
	struct sums zero = transform(_mm512_setzero_si512(), slice_log2);
	/* Sums of 2u - 15: of zero codes -15 times the slice in its first channel, 0 elsewhere. */
	unsigned int first = 0;
	float scale[CODEC_GROUP_TOKENS];

	half_steps(group, scale);
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		int16_t wanted[32];

		for (unsigned int c = 0; c < 32; c++)
			wanted[c] = (int16_t)((32 * (unsigned int)i + c) % (1u << slice_log2) ? 0 : -15 * (1 << slice_log2));
		zero.at[i] = _mm512_sub_epi16(_mm512_loadu_si512(wanted), zero.at[i]);
	}
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++) {
		struct sums sums = transform(_mm512_loadu_si512(group + Q4X_SCALES + 64 * chunk), slice_log2);

#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i v = _mm512_add_epi16(sums.at[i], zero.at[i]);
			float low = scale[(first + 32 * i) / head_dim], high = scale[(first + 32 * i + 16) / head_dim];
			__m512 a = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)));
			__m512 b = _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1)));

			a = scaled(a, _mm512_set1_ps(low));
			b = scaled(b, _mm512_set1_ps(high));
			put(raw + 2 * (first + 32 * i), to_floats(target, a, b), streamed);
		}
		first += 128;
	}
}

/* V: eight values a token, looked up by 3-bit codes. */
INLINE void decode_v(const uint8_t *group, unsigned int head_dim, enum target target, uint8_t *raw, bool streamed)
{
	const __m512 levels = _mm512_setr_ps(-7, -5, -3, -1, 1, 3, 5, 7, -7, -5, -3, -1, 1, 3, 5, 7);
	/* 32 codes, 12 bytes, to 16-bit lanes: quadword j takes the two bytes that hold codes 4j .. 4j+3; upper bits are left as they fall. */
	__m512i take[4], shift = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 3, 0, 6, 0, 9, 0, 4, 0, 7, 0, 10, 0, 13, 0));
	uint16_t values[CODEC_GROUP_TOKENS][8];
	float scale[CODEC_GROUP_TOKENS];
	unsigned int first = 0;

	half_steps(group, scale);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 4) {
		__m512 a = _mm512_insertf32x8(_mm512_set1_ps(scale[t]), _mm256_set1_ps(scale[t + 1]), 1);
		__m512 b = _mm512_insertf32x8(_mm512_set1_ps(scale[t + 2]), _mm256_set1_ps(scale[t + 3]), 1);

		_mm512_storeu_si512(values[t], to_floats(target, scaled(levels, a), scaled(levels, b)));
	}
	for (unsigned int i = 0; i < 4; i++) {
		uint8_t bytes[64];

		for (unsigned int k = 0; k < 64; k++)
			bytes[k] = (uint8_t)(12 * i + 3 * (k / 8) / 2 + (k % 8 & 1));
		take[i] = _mm512_loadu_si512(bytes);
	}
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++) {
		__m512i codes = _mm512_maskz_loadu_epi8(0xffffffffffffu, group + Q4X_SCALES + 48 * chunk);

#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i at = _mm512_multishift_epi64_epi8(shift, _mm512_permutexvar_epi8(take[i], codes)), table;
			unsigned int token = (first + 32 * i) / head_dim;

			table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)values[token]));
			if (head_dim % 32) { /* the upper 16 channels may be the next token's */
				unsigned int next = (first + 32 * i + 16) / head_dim;

				table = _mm512_inserti32x4(table, _mm_loadu_si128((const __m128i *)values[next]), 1);
				at = _mm512_and_si512(at, _mm512_set1_epi16(7));
				at = _mm512_mask_add_epi16(at, 0xffff0000u, at, _mm512_set1_epi16(8));
			}
			/* The table repeats every eight entries: bits above the code do not matter. */
			put(raw + 2 * (first + 32 * i), _mm512_permutexvar_epi16(at, table), streamed);
		}
		first += 128;
	}
}

INLINE void decode_head(const uint8_t *group, unsigned int head_dim, unsigned int slice_log2, enum target target, enum codec_tensor tensor,
			uint8_t *raw, bool streamed)
{
	if (tensor == CODEC_V)
		decode_v(group, head_dim, target, raw, streamed);
	else
		decode_k(group, head_dim, slice_log2, target, raw, streamed);
}

INLINE void decode_to(const uint8_t *group, unsigned int head_dim, enum target target, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	switch (head_dim) {
	case 64:
		decode_head(group, 64, 6, target, tensor, raw, streamed);
		break;
	case 80:
		decode_head(group, 80, 4, target, tensor, raw, streamed);
		break;
	case 96:
		decode_head(group, 96, 5, target, tensor, raw, streamed);
		break;
	case 128:
		decode_head(group, 128, 7, target, tensor, raw, streamed);
		break;
	case 192:
		decode_head(group, 192, 6, target, tensor, raw, streamed);
		break;
	default:
		decode_head(group, 256, 7, target, tensor, raw, streamed);
		break;
	}
}

INLINE void decode(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	/* 15 * 128 half steps of this scale code and below are finite in fp16, and 7 more so. */
	const __m512i safe = _mm512_set1_epi8((char)217);

	if (dtype == SPECKV_DTYPE_BF16)
		decode_to(group, head_dim, TARGET_BF16, tensor, raw, streamed);
	else if (_mm512_cmpgt_epu8_mask(_mm512_loadu_si512(group), safe))
		decode_to(group, head_dim, TARGET_FP16_LIMITED, tensor, raw, streamed);
	else
		decode_to(group, head_dim, TARGET_FP16, tensor, raw, streamed);
}

void DECODE(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (!streamed || (uintptr_t)raw % 64) {
		decode(group, head_dim, dtype, tensor, raw, false);
		return;
	}
	decode(group, head_dim, dtype, tensor, raw, true);
	_mm_sfence();
}

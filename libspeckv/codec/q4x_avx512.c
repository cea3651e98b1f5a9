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
#define ENCODE codec_q4x_encode_avx512bf16
#else
#define DECODE codec_q4x_decode_avx512
#define ENCODE codec_q4x_encode_avx512
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

/* ---- encode ------------------------------------------------------------------------------------------------------- */

/* Largest exponents beyond these are refused or are zero tokens whatever the rest; within, powers of two are exact floats. */
#define EXPONENT_MAX 60

/* A token: registers of 16 integers, then of 32 coefficients. */
#define WIDE_MAX (CODEC_HEAD_DIM_MAX / 16)
#define NARROW_MAX (CODEC_HEAD_DIM_MAX / 32)

INLINE __mmask32 narrow_mask(unsigned int head_dim, unsigned int i)
{
	return 32 * (i + 1) <= head_dim ? 0xffffffffu : 0xffffu;
}

INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim)
{
	const __m512i magnitude = _mm512_set1_epi16(0x7fff);
	__m512i most = _mm512_setzero_si512();
	__m256i half;
	__m128i quarter;

#pragma GCC unroll 8
	for (unsigned int i = 0; i < (head_dim + 31) / 32; i++) {
		__m512i words = _mm512_maskz_loadu_epi16(narrow_mask(head_dim, i), raw + 64 * i);

		most = _mm512_max_epu16(most, _mm512_and_si512(words, magnitude));
	}
	half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
	quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
	/* There is an instruction for the least word. */
	quarter = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi32(-1)));
	return ~(uint32_t)_mm_cvtsi128_si32(quarter) & 0xffff;
}

INLINE __m512i butterfly32(__m512i x, __m512i partner, __mmask16 upper)
{
	return _mm512_mask_sub_epi32(_mm512_add_epi32(x, partner), upper, partner, x);
}

INLINE void rotate(__m512i *values, unsigned int head_dim, unsigned int slice_log2)
{
#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		__m512i x = values[i];

		x = butterfly32(x, _mm512_shuffle_epi32(x, _MM_PERM_CDAB), 0xaaaa);
		x = butterfly32(x, _mm512_shuffle_epi32(x, _MM_PERM_BADC), 0xcccc);
		x = butterfly32(x, _mm512_shuffle_i64x2(x, x, 0xb1), 0xf0f0);
		values[i] = butterfly32(x, _mm512_shuffle_i64x2(x, x, 0x4e), 0xff00);
	}
#pragma GCC unroll 3
	for (unsigned int level = 0; level < 3; level++) {
		unsigned int half = 1u << level;

#pragma GCC unroll 16
		for (unsigned int i = 0; i < head_dim / 16; i++)
			if (level + 4 < slice_log2 && !(i & half)) {
				__m512i a = values[i], b = values[i + half];

				values[i] = _mm512_add_epi32(a, b);
				values[i + half] = _mm512_sub_epi32(a, b);
			}
	}
}

INLINE __m512i quantise(__m512i z, unsigned int t, unsigned int bits)
{
	__m512i q = _mm512_srai_epi16(_mm512_mulhi_epi16(z, _mm512_set1_epi16(q4x_reciprocal[t])), 8);

	q = _mm512_max_epi16(q, _mm512_set1_epi16((int16_t)-(1 << (bits - 1))));
	return _mm512_min_epi16(q, _mm512_set1_epi16((int16_t)((1 << (bits - 1)) - 1)));
}

/*
 * The number (2q + 1) * H(t) for q = 0 .. 31, limited as q is: with a magnitude instead of a signed coefficient the error is the same, since
 * levels are symmetric and a coefficient between two of them is as far from either.
 */
#define LEVEL(h, q, limit) ((int16_t)((2 * ((q) < (limit) ? (q) : (limit)) + 1) * (h)))
#define LEVELS4(h, q, limit) LEVEL(h, q, limit), LEVEL(h, (q) + 1, limit), LEVEL(h, (q) + 2, limit), LEVEL(h, (q) + 3, limit)
#define LEVELS(h, limit)                                                                                                         \
	{                                                                                                                        \
		LEVELS4(h, 0, limit), LEVELS4(h, 4, limit), LEVELS4(h, 8, limit), LEVELS4(h, 12, limit), LEVELS4(h, 16, limit),  \
			LEVELS4(h, 20, limit), LEVELS4(h, 24, limit), LEVELS4(h, 28, limit)                                      \
	}
#define LEVEL_TABLE(limit)                                                                                                       \
	{                                                                                                                        \
		LEVELS(362, limit), LEVELS(395, limit), LEVELS(431, limit), LEVELS(470, limit), LEVELS(512, limit),              \
			LEVELS(558, limit), LEVELS(609, limit), LEVELS(664, limit), LEVELS(724, limit), LEVELS(790, limit),      \
			LEVELS(861, limit), LEVELS(939, limit), LEVELS(1024, limit)                                              \
	}
static const int16_t levels_k[13][32] __attribute__((aligned(64))) = LEVEL_TABLE(7);
static const int16_t levels_v[13][32] __attribute__((aligned(64))) = LEVEL_TABLE(3);

/* Eight 64-bit parts of the sum of squares. */
INLINE __m512i squared_error(const __m512i *magnitude, unsigned int head_dim, unsigned int t, enum codec_tensor tensor)
{
	const __m512i levels = _mm512_load_si512(tensor == CODEC_K ? levels_k[t] : levels_v[t]), by = _mm512_set1_epi16(q4x_reciprocal[t]);
	__m512i sum = _mm512_setzero_si512();

#pragma GCC unroll 8
	for (unsigned int i = 0; i < (head_dim + 31) / 32; i++) {
		__m512i q = _mm512_srli_epi16(_mm512_mulhi_epi16(magnitude[i], by), 8);
		__m512i e = _mm512_maskz_sub_epi16(narrow_mask(head_dim, i), magnitude[i], _mm512_permutexvar_epi16(q, levels));

		sum = _mm512_dpwssd_epi32(sum, e, e);
	}
	/* Each of the 16 sums fits 31 bits, all together need not. */
	return _mm512_add_epi64(_mm512_and_si512(sum, _mm512_set1_epi64(0xffffffff)), _mm512_srli_epi64(sum, 32));
}

/* Sums of pairs of registers, side by side in each 16-byte lane. */
INLINE __m512i side_by_side(__m512i a, __m512i b)
{
	return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* How many eighths of an octave below t the least error is; of equal ones the fewest. At most `clips`, which is Q4X_CLIPS or less. */
INLINE unsigned int best_clip(const __m512i *z, unsigned int head_dim, unsigned int t, unsigned int clips, enum codec_tensor tensor)
{
	__m512i magnitude[NARROW_MAX], pair[3], low, high, keys;
	__m256i four;
	__m128i two;

#pragma GCC unroll 8
	for (unsigned int i = 0; i < (head_dim + 31) / 32; i++)
		magnitude[i] = _mm512_abs_epi16(z[i]);
	pair[0] = side_by_side(squared_error(magnitude, head_dim, t, tensor), squared_error(magnitude, head_dim, t - 1, tensor));
	pair[1] = side_by_side(squared_error(magnitude, head_dim, t - 2, tensor), squared_error(magnitude, head_dim, t - 3, tensor));
	pair[2] = squared_error(magnitude, head_dim, t - 4, tensor);
	pair[2] = side_by_side(pair[2], pair[2]);
	low = _mm512_add_epi64(_mm512_shuffle_i64x2(pair[0], pair[1], 0x44), _mm512_shuffle_i64x2(pair[0], pair[1], 0xee));
	low = _mm512_add_epi64(low, _mm512_shuffle_i64x2(low, low, 0xb1));
	high = _mm512_add_epi64(pair[2], _mm512_shuffle_i64x2(pair[2], pair[2], 0x4e));
	high = _mm512_add_epi64(high, _mm512_shuffle_i64x2(high, high, 0xb1));
	/* Lanes: 0 1 0 1 2 3 2 3; the second 0 1 makes way for 4. Error and number in one, so that the least key is the answer. */
	keys = _mm512_mask_mov_epi64(low, 0x0c, high);
	keys = _mm512_or_si512(_mm512_slli_epi64(keys, 3), _mm512_setr_epi64(0, 1, 4, 4, 2, 3, 2, 3));
	keys = _mm512_mask_mov_epi64(_mm512_set1_epi64(-1), _mm512_cmple_epi64_mask(_mm512_and_si512(keys, _mm512_set1_epi64(7)),
										    _mm512_set1_epi64(clips)), keys);
	four = _mm256_min_epu64(_mm512_castsi512_si256(keys), _mm512_extracti64x4_epi64(keys, 1));
	two = _mm_min_epu64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
	two = _mm_min_epu64(two, _mm_unpackhi_epi64(two, two));
	return (unsigned int)_mm_cvtsi128_si32(two) & 7;
}

/* 64 codes, one a byte, to 4 or 3 bits each. */
INLINE void pack_codes(__m512i u, unsigned int count, unsigned int bits, uint8_t *to)
{
	if (bits == 4) {
		__m256i bytes = _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(u, _mm512_set1_epi16(0x1001)));

		_mm256_mask_storeu_epi8(to, count == 64 ? 0xffffffffu : (1u << count / 2) - 1, bytes);
	} else {
		const __m512i three = _mm512_castsi256_si512(_mm256_setr_epi8(0, 1, 2, 8, 9, 10, 16, 17, 18, 24, 25, 26, 32, 33, 34, 40, 41, 42, 48,
									      49, 50, 56, 57, 58, 0, 0, 0, 0, 0, 0, 0, 0));
		__m512i x = _mm512_maddubs_epi16(u, _mm512_set1_epi16(0x0801));

		x = _mm512_madd_epi16(x, _mm512_set1_epi32(0x00400001));
		x = _mm512_permutexvar_epi8(three, _mm512_or_si512(x, _mm512_srli_epi64(x, 20)));
		_mm256_mask_storeu_epi8(to, (1u << count * 3 / 8) - 1, _mm512_castsi512_si256(x));
	}
}

/*
 * Tokens go through each step several at a time: within one, every step waits for the result of the one before.
 */
#define BATCH 8

struct token {
	__m512i values[WIDE_MAX]; /* integers, then coefficients */
	__m512i z[NARROW_MAX];
	int32_t top, bottom;      /* of the coefficients; bottom is what -top may be */
	int unit;
	unsigned int step;        /* t, from the table's first entry */
	int code;                 /* scale code of that; 0: a zero token */
};

/* -ENODATA: not finite, or far beyond the largest scale. */
INLINE int integers(struct token *token, const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor)
{
	const struct float_layout *layout = float_layout(dtype);
	uint32_t largest = largest_magnitude(raw, head_dim), significand;
	int exponent = (int)float_split(layout, largest, &significand) - layout->bias - (int)layout->mantissa_bits;
	int length = 32 - __builtin_clz(significand | 1);
	__m512 power;

	exponent += length - 1;
	if (largest >= layout->infinity || exponent > EXPONENT_MAX)
		return -ENODATA;
	token->code = significand && exponent >= -EXPONENT_MAX;
	token->unit = exponent - (tensor == CODEC_K ? 18 : 12);
	/* A zero token's values are all made 0. */
	power = _mm512_castsi512_ps(_mm512_set1_epi32(token->code ? (127 - token->unit) << 23 : 0));
#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		__m256i words = _mm256_loadu_si256((const __m256i *)(raw + 32 * i));
		__m512 x = dtype == SPECKV_DTYPE_BF16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16)) :
							_mm512_cvtph_ps(words);

		token->values[i] = _mm512_cvt_roundps_epi32(_mm512_mul_ps(x, power), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	}
	token->top = (int32_t)(significand << (13 - length));
	token->bottom = -token->top;
	return 0;
}

INLINE void coefficients(struct token *token, unsigned int head_dim, unsigned int slice_log2)
{
	__m512i values[WIDE_MAX], most, least;

#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++)
		values[i] = token->values[i];
	rotate(values, head_dim, slice_log2);
	most = least = values[0];
#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		most = _mm512_max_epi32(most, values[i]);
		least = _mm512_min_epi32(least, values[i]);
		token->values[i] = values[i];
	}
	token->top = _mm512_reduce_max_epi32(most);
	token->bottom = _mm512_reduce_min_epi32(least);
}

/* Coefficients of K to 15 bits, all to 16-bit lanes, and the first step to try. -ENODATA: beyond the largest scale. */
INLINE int shorten(struct token *token, unsigned int head_dim, unsigned int slice_log2, enum codec_tensor tensor)
{
	static const uint16_t even_words[32] = { 0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
						 32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62 };
	const __m512i even = _mm512_loadu_si512(even_words);
	int down = 32 - __builtin_clz((uint32_t)(token->top > -token->bottom ? token->top : -token->bottom) | 1) - 14;
	__m512i half = _mm512_setzero_si512();
	__m128i count = _mm_setzero_si128();
	int32_t largest;
	__m256i steps;

	if (tensor == CODEC_K && token->code) {
		half = _mm512_set1_epi32(1 << (down - 1));
		count = _mm_cvtsi32_si128(down);
		token->unit += down - (int)slice_log2;
		token->top = (token->top + (1 << (down - 1))) >> down;
		token->bottom = (token->bottom + (1 << (down - 1))) >> down;
	}
	largest = token->top > -token->bottom ? token->top : -token->bottom;
#pragma GCC unroll 8
	for (unsigned int i = 0; i < (head_dim + 31) / 32; i++) {
		__m512i a = token->values[2 * i], b = 2 * i + 1 < head_dim / 16 ? token->values[2 * i + 1] : _mm512_setzero_si512();

		if (tensor == CODEC_K) {
			a = _mm512_sra_epi32(_mm512_add_epi32(a, half), count);
			b = _mm512_sra_epi32(_mm512_add_epi32(b, half), count);
		}
		token->z[i] = _mm512_permutex2var_epi16(a, even, b);
	}
	/* How many of the half steps from t = 0 on are too small. */
	steps = _mm256_slli_epi16(_mm256_maskz_loadu_epi16(0x1fff, q4x_half_step), q4x_bits(tensor));
	token->step = Q4X_CLIPS + (unsigned int)__builtin_popcount(_mm256_cmplt_epi16_mask(steps, _mm256_set1_epi16((int16_t)largest)) & 0x0ff0u);
	if (token->code) {
		token->code = 8 * (31 + token->unit) + 1 + (int)token->step - Q4X_CLIPS;
		if (token->code > 255)
			return -ENODATA;
	}
	return 0;
}

INLINE void choose(struct token *token, unsigned int head_dim, enum codec_tensor tensor)
{
	unsigned int clips = token->code > Q4X_CLIPS ? Q4X_CLIPS : token->code > 0 ? (unsigned int)token->code - 1 : 0;
	unsigned int clip = best_clip(token->z, head_dim, token->step, clips, tensor);

	token->step -= clip;
	token->code = token->code > 0 ? token->code - (int)clip : 0;
}

INLINE void write_codes(const struct token *token, unsigned int head_dim, unsigned int bits, uint8_t *to)
{
	/* Zero tokens have zero codes. */
	const __mmask32 some = token->code ? 0xffffffffu : 0;
	const __m512i middle = _mm512_set1_epi16((int16_t)(1 << (bits - 1)));

#pragma GCC unroll 4
	for (unsigned int i = 0; i < (head_dim + 31) / 32; i += 2) {
		__m512i low = _mm512_maskz_add_epi16(some, quantise(token->z[i], token->step, bits), middle), high = _mm512_setzero_si512();

		if (i + 1 < (head_dim + 31) / 32)
			high = _mm512_maskz_add_epi16(some, quantise(token->z[i + 1], token->step, bits), middle);
		pack_codes(_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi16_epi8(low)), _mm512_cvtepi16_epi8(high), 1),
			   head_dim - 32 * i < 64 ? head_dim - 32 * i : 64, bits, to + 4 * i * bits);
	}
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int slice_log2, unsigned int dtype, enum codec_tensor tensor,
			 uint8_t *group)
{
	struct token tokens[BATCH];

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += BATCH) {
		int rc = 0;

		for (unsigned int t = 0; t < BATCH; t++)
			rc |= integers(&tokens[t], raw + 2 * (first + t) * head_dim, head_dim, dtype, tensor);
		if (rc)
			return -ENODATA;
		for (unsigned int t = 0; t < BATCH && tensor == CODEC_K; t++)
			coefficients(&tokens[t], head_dim, slice_log2);
		for (unsigned int t = 0; t < BATCH; t++)
			rc |= shorten(&tokens[t], head_dim, slice_log2, tensor);
		if (rc)
			return -ENODATA;
		for (unsigned int t = 0; t < BATCH; t++)
			choose(&tokens[t], head_dim, tensor);
		for (unsigned int t = 0; t < BATCH; t++) {
			group[first + t] = (uint8_t)tokens[t].code;
			write_codes(&tokens[t], head_dim, q4x_bits(tensor), group + Q4X_SCALES + (first + t) * q4x_token_bytes(head_dim, tensor));
		}
	}
	return 0;
}

INLINE int encode_head(const uint8_t *raw, unsigned int head_dim, unsigned int slice_log2, unsigned int dtype, enum codec_tensor tensor,
		       uint8_t *group)
{
	if (dtype == SPECKV_DTYPE_BF16)
		return tensor == CODEC_K ? encode_tokens(raw, head_dim, slice_log2, SPECKV_DTYPE_BF16, CODEC_K, group) :
					   encode_tokens(raw, head_dim, slice_log2, SPECKV_DTYPE_BF16, CODEC_V, group);
	return tensor == CODEC_K ? encode_tokens(raw, head_dim, slice_log2, SPECKV_DTYPE_FP16, CODEC_K, group) :
				   encode_tokens(raw, head_dim, slice_log2, SPECKV_DTYPE_FP16, CODEC_V, group);
}

int ENCODE(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	switch (head_dim) {
	case 64:
		return encode_head(raw, 64, 6, dtype, tensor, group);
	case 80:
		return encode_head(raw, 80, 4, dtype, tensor, group);
	case 96:
		return encode_head(raw, 96, 5, dtype, tensor, group);
	case 128:
		return encode_head(raw, 128, 7, dtype, tensor, group);
	case 192:
		return encode_head(raw, 192, 6, dtype, tensor, group);
	default:
		return encode_head(raw, 256, 7, dtype, tensor, group);
	}
}

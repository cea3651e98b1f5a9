// SPDX-License-Identifier: MIT
/*
 * Decoding of mode q4x with AVX-512 (VBMI). Defined by FORMAT.md section 5; q4x.c is the reference.
 * See q4x_decode_avx2.c, too.
 *
 * Floating point is used only where it is exact, or where the format defines the rounding; the
 * thread's rounding mode has no effect.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "q4x.h"

/* Built twice: the second time for CPUs with native bf16 rounding. */
#ifdef CODEC_NATIVE_BF16
#define DECODE codec_q4x_decode_avx512bf16
#else
#define DECODE codec_q4x_decode_avx512
#endif

#define INLINE static inline __attribute__((always_inline))

INLINE void put(uint8_t *to, __m512i value, bool streamed)
{
	if (streamed)
		_mm512_stream_si512((__m512i *)(void *)to, value);
	else
		_mm512_storeu_si512(to, value);
}

/* Half steps of a group's 64 tokens as floats; 0 for scale code 0. */
INLINE void half_steps(const uint8_t *scales, float *out)
{
	const __m512 eighths = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(
		_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)q4x_mantissas))));

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 16) {
		__m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(scales + t)));
		__mmask16 some = _mm512_test_epi32_mask(code, code);
		__m512i step = _mm512_sub_epi32(code, _mm512_set1_epi32(1));
		/* 2^(step / 8 - 32), built from its bits */
		__m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_srli_epi32(step, 3),
							  _mm512_set1_epi32(127 - 32)),
			23);

		_mm512_storeu_ps(out + t,
			_mm512_maskz_mul_ps(some, _mm512_permutexvar_ps(step, eighths),
				_mm512_castsi512_ps(power)));
	}
}

/* value * scale + more, rounded once. A scale of 0 gives `more`, or +0. */
INLINE __m512 scaled(__m512 value, __m512 scale, __m512 more)
{
	return _mm512_fmadd_round_ps(value, scale, more,
		_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Round 32 floats to 16 bits each: nearest, ties to even. */
INLINE __m512i to_floats(unsigned int dtype, __m512 low, __m512 high)
{
	const __m512 most = _mm512_set1_ps(65504), least = _mm512_set1_ps(-65504);

	if (dtype == SPECKV_DTYPE_BF16) {
#ifdef CODEC_NATIVE_BF16
		return (__m512i)_mm512_cvtne2ps_pbh(high, low);
#else
		static const uint16_t upper_halves[32] = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21,
			23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59,
			61, 63 };
		const __m512i below_half = _mm512_set1_epi32(0x7fff), one = _mm512_set1_epi32(1);
		__m512i a = _mm512_castps_si512(low), b = _mm512_castps_si512(high);

		a = _mm512_add_epi32(_mm512_add_epi32(a, below_half),
			_mm512_and_si512(_mm512_srli_epi32(a, 16), one));
		b = _mm512_add_epi32(_mm512_add_epi32(b, below_half),
			_mm512_and_si512(_mm512_srli_epi32(b, 16), one));
		return _mm512_permutex2var_epi16(a, _mm512_loadu_si512(upper_halves), b);
#endif
	}
	low = _mm512_max_ps(_mm512_min_ps(low, most), least);
	high = _mm512_max_ps(_mm512_min_ps(high, most), least);
	return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(low,
					  _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)),
		_mm512_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), 1);
}

/* ---- K -------------------------------------------------------------------------------------- */

/* Butterflies between registers whose numbers differ in one bit; none unless `wanted`. */
INLINE void between(__m512i *r, unsigned int bit, bool wanted)
{
#pragma GCC unroll 4
	for (unsigned int i = 0; i < 4; i++)
		if (wanted && !(i & bit)) {
			__m512i a = r[i], b = r[i + bit];

			r[i] = _mm512_add_epi16(a, b);
			r[i + bit] = _mm512_sub_epi16(a, b);
		}
}

/* Swap one bit of the register number with one bit of the position within registers. */
#define EXCHANGE(r, bit, low, high)                                     \
	do {                                                            \
		for (unsigned int i = 0; i < 4; i++)                    \
			if (!(i & (bit))) {                             \
				__m512i a = (r)[i], b = (r)[i + (bit)]; \
                                                                        \
				(r)[i] = low;                           \
				(r)[i + (bit)] = high;                  \
			}                                               \
	} while (0)

/* The 32 channels of 128 in register i of transform(). */
#define PIECE(i) ((i) >> 1 | ((i) & 1) << 1)

/*
 * The transform of 128 channels in slices of 2^slice_log2, from bytes of the even and of the odd
 * channels, all with `bias` added. In natural order within a register; the first two channels of a
 * slice are too large by `bias` times the slice's size.
 *
 * Each channel bit in turn becomes a bit of the register number, where butterflies need no shuffle.
 * Register bits 2, 1 are channel bits 0, 1 at first, words are 3, 4, 2, lanes 5, 6; at the end they
 * are 5, 6 and 0, 1, 2 and 3, 4.
 */
INLINE void transform(__m512i even, __m512i odd, int bias, unsigned int slice_log2, __m512i *r)
{
	const __m512i plus = _mm512_set1_epi8(1), minus = _mm512_set1_epi16((short)0xff01);
	const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3,
		6, 7, 10, 11, 14, 15));
	/*
	 * Channel bit 0: sums have twice the bias, and it is added to differences. Then bit 1,
	 * whose differences cancel it.
	 */
	__m512i s = _mm512_shuffle_epi8(_mm512_add_epi8(even, odd), order);
	__m512i d = _mm512_add_epi8(_mm512_sub_epi8(even, odd), _mm512_set1_epi8((char)(2 * bias)));

	d = _mm512_shuffle_epi8(d, order);
	r[0] = _mm512_maddubs_epi16(s, plus);
	r[1] = _mm512_maddubs_epi16(s, minus);
	r[2] = _mm512_maddubs_epi16(d, plus);
	r[3] = _mm512_maddubs_epi16(d, minus);
	EXCHANGE(r, 2, _mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
	between(r, 2, true); /* channel bit 2 */
	EXCHANGE(r, 1, _mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
	between(r, 1, slice_log2 > 4);
	EXCHANGE(r, 2, _mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
	between(r, 2, true); /* channel bit 3 */
	EXCHANGE(r, 2, _mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
	between(r, 2, slice_log2 > 5);
	EXCHANGE(r, 1, _mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
	between(r, 1, slice_log2 > 6);
}

/* The bias left in register i of transform(). */
INLINE __m512i excess(int bias, unsigned int slice_log2, unsigned int i)
{
	const __mmask32 low = 32 * PIECE(i) % (1u << slice_log2) == 0 ? 3 : 0,
			high = slice_log2 < 5 ? 3 << 16 : 0;

	return _mm512_maskz_set1_epi16(low | high, (short)(bias << slice_log2));
}

/*
 * Levels of K, biased to be unsigned, indexed by 16 p(c-1) + 8 (p(c) xor p(c-2)) + m(c); repeated,
 * since the index has one more, arbitrary bit.
 */
#define BIAS 42
#define LEVEL(i) ((int8_t)(BIAS + (i)))
#define LEVELS                                                                                   \
	LEVEL(-42), LEVEL(-26), LEVEL(-15), LEVEL(-7), LEVEL(1), LEVEL(9), LEVEL(17), LEVEL(30), \
		LEVEL(-34), LEVEL(-19), LEVEL(-11), LEVEL(-3), LEVEL(5), LEVEL(13), LEVEL(22),   \
		LEVEL(38), LEVEL(-38), LEVEL(-22), LEVEL(-13), LEVEL(-5), LEVEL(3), LEVEL(11),   \
		LEVEL(19), LEVEL(34), LEVEL(-30), LEVEL(-17), LEVEL(-9), LEVEL(-1), LEVEL(7),    \
		LEVEL(15), LEVEL(26), LEVEL(42)
static const int8_t levels[64] __attribute__((aligned(64))) = { LEVELS, LEVELS };

/* Bits of `yes` where the mask is set, of `no` elsewhere. */
#define SELECT(mask, yes, no) _mm512_ternarylogic_epi64(mask, yes, no, 0xca)

/*
 * Decode biased levels of 128 channels from 64 bytes and the preceding one; `keep` is clear where a
 * token starts.
 */
INLINE void read_levels(const uint8_t *codes, uint64_t keep, __m512i *even, __m512i *odd)
{
	const __m512i nibble = _mm512_set1_epi8(15), path = _mm512_set1_epi8((char)0x88),
		      table = _mm512_load_si512(levels);
	__m512i x = _mm512_loadu_si512(codes), before = _mm512_maskz_loadu_epi8(keep, codes - 1);
	__m512i number = _mm512_xor_si512(x, _mm512_and_si512(before, path));

	/* p(c-1) moves above the nibble: for an even channel from the preceding byte. */
	*even = _mm512_permutexvar_epi8(SELECT(nibble, number, _mm512_srli_epi16(before, 3)),
		table);
	*odd = _mm512_permutexvar_epi8(SELECT(nibble, _mm512_srli_epi16(number, 4),
					       _mm512_slli_epi16(x, 1)),
		table);
}

/* Decode the mean of each channel of a group. */
INLINE void read_mean(const uint8_t *group, unsigned int head_dim, float *mean)
{
	const __m512i nibble = _mm512_set1_epi8(15);
	unsigned int code = group[Q4X_SCALES + head_dim / 2 - 1],
		     slice_log2 = q4x_slice_log2(head_dim);
	uint8_t part[Q4X_MEAN_MAX] __attribute__((aligned(64)));
	uint32_t bits = (uint32_t)(127 - 32 + (int)(code - 1) / 8) << 23;
	float by = code ? (float)q4x_mantissas[(code - 1) % 8] : 0, power;

	memcpy(&power, &bits, sizeof(power));
	memcpy(part, group + Q4X_SCALES, q4x_mean_bytes(head_dim, CODEC_K));
	part[head_dim / 2 - 1] = 0x88;
	for (unsigned int c = 0; c < head_dim; c += 128) {
		__m512i x = _mm512_load_si512(part + c / 2), sums[4];

		transform(_mm512_and_si512(x, nibble),
			_mm512_and_si512(_mm512_srli_epi16(x, 4), nibble), 8, slice_log2, sums);
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i v = _mm512_sub_epi16(sums[i], excess(8, slice_log2, i));
			__m512 low =
				_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)));
			__m512 high = _mm512_cvtepi32_ps(
				_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1)));
			unsigned int at = c + 32 * PIECE(i);

			if (at < head_dim)
				_mm512_storeu_ps(mean + at,
					scaled(low, _mm512_set1_ps(by * power),
						_mm512_setzero_ps()));
			if (at + 16 < head_dim)
				_mm512_storeu_ps(mean + at + 16,
					scaled(high, _mm512_set1_ps(by * power),
						_mm512_setzero_ps()));
		}
	}
}

/* Chunks of 128 channels may span tokens; 16 channels at a time belong to one token. */
INLINE void decode_k(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
	bool streamed)
{
	unsigned int slice_log2 = q4x_slice_log2(head_dim), first = 0, next = 0;
	const uint8_t *codes = group + q4x_codes_at(head_dim, CODEC_K);
	float scale[CODEC_GROUP_TOKENS], mean[CODEC_HEAD_DIM_MAX];

	half_steps(group, scale);
	read_mean(group, head_dim, mean);
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++, first += 128) {
		__m512i even, odd, sums[4];
		uint64_t starts = 0;

		/* `next`: the next byte of this chunk at which a token starts */
		for (; next < 64; next += head_dim / 2)
			starts |= UINT64_C(1) << next;
		next -= 64;
		read_levels(codes + 64 * chunk, ~starts, &even, &odd);
		transform(even, odd, BIAS, slice_log2, sums);
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i v = _mm512_sub_epi16(sums[i], excess(BIAS, slice_log2, i));
			unsigned int at = first + 32 * PIECE(i);
			__m512 low =
				_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v)));
			__m512 high = _mm512_cvtepi32_ps(
				_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1)));

			low = scaled(low, _mm512_set1_ps(scale[at / head_dim]),
				_mm512_loadu_ps(mean + at % head_dim));
			high = scaled(high, _mm512_set1_ps(scale[(at + 16) / head_dim]),
				_mm512_loadu_ps(mean + (at + 16) % head_dim));
			put(raw + 2 * (size_t)at, to_floats(dtype, low, high), streamed);
		}
	}
}

/* ---- V -------------------------------------------------------------------------------------- */

/* 16 values per token, indexed by 8 (p(c) xor p(c-2)) + 2 m(c) + p(c-1). */
INLINE void decode_v(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
	bool streamed)
{
	const __m512 every =
		_mm512_setr_ps(-20, -16, -7, -5, 1, 3, 9, 12, -12, -9, -3, -1, 5, 7, 16, 20);
	/*
	 * 32 codes, 12 bytes and the preceding one: quadword j takes the three bytes with p(c-2),
	 * m(c-1), p(c-1), m(c), p(c) of channels 4j .. 4j+3, and each word its seven bits of them;
	 * higher bits are arbitrary.
	 */
	const __m512i shift = _mm512_broadcast_i32x4(_mm_setr_epi8(4, 0, 7, 0, 10, 0, 13, 0, 0, 0,
		3, 0, 6, 0, 9, 0));
	/*
	 * Mask the previous codes where a token starts: at the first or the 17th of 32 channels, or
	 * both.
	 */
	uint16_t clear[4][32], values[CODEC_GROUP_TOKENS][16] __attribute__((aligned(64)));
	const uint8_t *codes = group + q4x_codes_at(head_dim, CODEC_V);
	__m512i take[4];
	float scale[CODEC_GROUP_TOKENS];
	unsigned int first = 0;

	half_steps(group, scale);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 2) {
		__m512 a = scaled(every, _mm512_set1_ps(scale[t]), _mm512_setzero_ps());
		__m512 b = scaled(every, _mm512_set1_ps(scale[t + 1]), _mm512_setzero_ps());

		_mm512_store_si512(values[t], to_floats(dtype, a, b));
	}
	for (unsigned int i = 0; i < 4; i++) {
		uint8_t bytes[64];

		for (unsigned int k = 0; k < 64; k++)
			bytes[k] = (uint8_t)(12 * i + (12 * (k / 8) + 4) / 8 +
				(k % 8 < 2 ? k % 8 : 2));
		take[i] = _mm512_loadu_si512(bytes);
		for (unsigned int k = 0; k < 32; k++)
			clear[i][k] = i >> k / 16 & 1 && k % 16 < 2 ? (k % 16 ? 0xfffe : 0xfff0)
								    : 0xffff;
	}
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++) {
		__m512i x = _mm512_maskz_loadu_epi8(0x1ffffffffffff, codes + 48 * chunk - 1);

#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++, first += 32) {
			__m512i at = _mm512_multishift_epi64_epi8(shift,
					_mm512_permutexvar_epi8(take[i], x)),
				table;
			unsigned int start = (first % head_dim == 0) |
				((first + 16) % head_dim == 0) << 1;

			at = _mm512_and_si512(at, _mm512_loadu_si512(clear[start]));
			/* p(c) xor p(c-2); the number is in bits 3 to 6 */
			at = _mm512_srli_epi16(_mm512_xor_si512(at, _mm512_slli_epi16(at, 6)), 3);
			table = _mm512_broadcast_i64x4(_mm256_load_si256(
				(const __m256i *)(const void *)values[first / head_dim]));
			if (head_dim % 32) {
				/* the upper 16 channels may belong to the next token */
				table = _mm512_inserti64x4(table,
					_mm256_load_si256((const __m256i *)(const void *)
							values[(first + 16) / head_dim]),
					1);
				at = _mm512_and_si512(at, _mm512_set1_epi16(15));
				at = _mm512_mask_add_epi16(at, 0xffff0000u, at,
					_mm512_set1_epi16(16));
			}
			/*
			 * The table repeats after 16 entries: higher bits of the index do not
			 * matter.
			 */
			put(raw + 2 * (size_t)first, _mm512_permutexvar_epi16(at, table), streamed);
		}
	}
}

INLINE void decode_head(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (tensor == CODEC_V && dtype == SPECKV_DTYPE_BF16)
		decode_v(group, head_dim, SPECKV_DTYPE_BF16, raw, streamed);
	else if (tensor == CODEC_V)
		decode_v(group, head_dim, SPECKV_DTYPE_FP16, raw, streamed);
	else if (dtype == SPECKV_DTYPE_BF16)
		decode_k(group, head_dim, SPECKV_DTYPE_BF16, raw, streamed);
	else
		decode_k(group, head_dim, SPECKV_DTYPE_FP16, raw, streamed);
}

INLINE void decode(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	switch (head_dim) {
	case 64:
		decode_head(group, 64, dtype, tensor, raw, streamed);
		break;
	case 80:
		decode_head(group, 80, dtype, tensor, raw, streamed);
		break;
	case 96:
		decode_head(group, 96, dtype, tensor, raw, streamed);
		break;
	case 128:
		decode_head(group, 128, dtype, tensor, raw, streamed);
		break;
	case 192:
		decode_head(group, 192, dtype, tensor, raw, streamed);
		break;
	default:
		decode_head(group, 256, dtype, tensor, raw, streamed);
		break;
	}
}

void DECODE(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (!streamed || (uintptr_t)raw % 64) {
		decode(group, head_dim, dtype, tensor, raw, false);
		return;
	}
	decode(group, head_dim, dtype, tensor, raw, true);
	_mm_sfence();
}

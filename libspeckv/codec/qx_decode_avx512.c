// SPDX-License-Identifier: MIT
/*
 * Decoding of the fixed-rate modes with AVX-512 (VBMI). Defined by FORMAT.md section 5; qx.c is the
 * reference.
 *
 * Floating point is used only where it is exact, or where the format defines the rounding; the
 * thread's rounding mode has no effect.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels.h"
#include "qx.h"

/* Built twice: the second time for CPUs with native bf16 rounding. */
#ifdef CODEC_NATIVE_BF16
#define DECODE codec_qx_decode_avx512bf16
#else
#define DECODE codec_qx_decode_avx512
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
INLINE void half_steps(const uint8_t *scales, enum codec_tensor tensor, float *out)
{
	const __m512i kept = _mm512_set1_epi32(tensor == CODEC_K ? QX_ALONE - 1 : UINT8_MAX);
	const __m512 eighths = _mm512_cvtepi32_ps(_mm512_broadcast_i64x4(
		_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)qx_mantissas))));

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 16) {
		__m512i code = _mm512_and_si512(kept,
			_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(scales + t))));
		__mmask16 some = _mm512_test_epi32_mask(code, code);
		__m512i step = _mm512_sub_epi32(code, _mm512_set1_epi32(1));
		/* the power of two, built from its bits */
		__m512i power = _mm512_slli_epi32(_mm512_add_epi32(_mm512_srli_epi32(step, 3),
							  _mm512_set1_epi32(127 +
								  qx_least_exponent(tensor))),
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

/* ---- transform ------------------------------------------------------------------------------ */

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
 * The same from levels too large for sums of bytes; the bias is gone at once. Register bits 2, 1 are
 * channel bits 0, 4 at first, words are 1, 2, 3.
 */
INLINE void transform_wide(__m512i even, __m512i odd, int bias, unsigned int slice_log2, __m512i *r)
{
	static const uint16_t natural[32] = { 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25,
		29, 2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31 };
	const __m512i plus = _mm512_set1_epi8(1), minus = _mm512_set1_epi16((short)0xff01);
	const __m512i twice = _mm512_set1_epi16((short)(2 * bias));
	__m512i low = _mm512_unpacklo_epi8(even, odd), high = _mm512_unpackhi_epi8(even, odd);

	r[0] = _mm512_sub_epi16(_mm512_maddubs_epi16(low, plus), twice);
	r[1] = _mm512_sub_epi16(_mm512_maddubs_epi16(high, plus), twice);
	r[2] = _mm512_maddubs_epi16(low, minus);
	r[3] = _mm512_maddubs_epi16(high, minus);
	between(r, 1, slice_log2 > 4);
	EXCHANGE(r, 2, _mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
	between(r, 2, true); /* channel bit 3 */
	EXCHANGE(r, 1, _mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
	between(r, 1, true); /* channel bit 2 */
	EXCHANGE(r, 2, _mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b));
	between(r, 2, true); /* channel bit 1 */
	EXCHANGE(r, 2, _mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
	between(r, 2, slice_log2 > 5);
	EXCHANGE(r, 1, _mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
	between(r, 1, slice_log2 > 6);
#pragma GCC unroll 4
	for (unsigned int i = 0; i < 4; i++)
		r[i] = _mm512_permutexvar_epi16(_mm512_loadu_si512(natural), r[i]);
}

/* ---- levels --------------------------------------------------------------------------------- */

/* The largest level, added to make all unsigned. */
#define BIAS(bits) (((bits) == 3) ? 20 : ((bits) == 4) ? 42 : 86)

/* Bits of `yes` where the mask is set, of `no` elsewhere. */
#define SELECT(mask, yes, no) _mm512_ternarylogic_epi64(mask, yes, no, 0xca)
/* value xor (shifted and mask) */
#define TOGGLE(value, shifted, mask) _mm512_ternarylogic_epi64(value, shifted, mask, 0x78)

/*
 * Biased levels by index: of 4 bits by 16 p(c-1) + 8 (p(c) xor p(c-2)) + m(c), of 3 and 5 by
 * 2^b (p(c) xor p(c-2)) + 2 m(c) + p(c-1). Tables repeat, since indices have further bits.
 */
#define TABLE_3 0, 4, 13, 15, 21, 23, 29, 32, 8, 11, 17, 19, 25, 27, 36, 40
#define TABLE_4                                                                                  \
	0, 16, 27, 35, 43, 51, 59, 72, 8, 23, 31, 39, 47, 55, 64, 80, 4, 20, 29, 37, 45, 53, 61, \
		76, 12, 25, 33, 41, 49, 57, 68, 84
#define TABLE_5                                                                                  \
	0, 4, 16, 20, 32, 36, 47, 49, 55, 57, 63, 65, 71, 73, 79, 81, 87, 89, 95, 97, 103, 105,  \
		111, 113, 119, 121, 128, 132, 144, 148, 160, 164, 8, 12, 24, 28, 40, 44, 51, 53, \
		59, 61, 67, 69, 75, 77, 83, 85, 91, 93, 99, 101, 107, 109, 115, 117, 123, 125,   \
		136, 140, 152, 156, 168, 172
static const uint8_t levels_3[64]
	__attribute__((aligned(64))) = { TABLE_3, TABLE_3, TABLE_3, TABLE_3 };
static const uint8_t levels_4[64] __attribute__((aligned(64))) = { TABLE_4, TABLE_4 };
static const uint8_t levels_5[64] __attribute__((aligned(64))) = { TABLE_5 };
/*
 * Biased levels of 128 channels from 16 * bits bytes and the one before; `starts`: bytes of the even
 * channels at which a token starts, whose path bits before count as 0.
 */
INLINE void read_levels_3(const uint8_t *codes, uint64_t starts, __m512i table, __m512i *even,
	__m512i *odd)
{
	/* From the byte before: qword j has the bytes 6j .. 6j + 7, channels 16j .. 16j + 15. A
	 * channel's byte is p(c-2), two bits, p(c-1), m(c), p(c) and one bit. */
	static const uint8_t take[64] __attribute__((aligned(64))) = { 0, 1, 2, 3, 4, 5, 6, 7, 6, 7,
		8, 9, 10, 11, 12, 13, 12, 13, 14, 15, 16, 17, 18, 19, 18, 19, 20, 21, 22, 23, 24,
		25, 24, 25, 26, 27, 28, 29, 30, 31, 30, 31, 32, 33, 34, 35, 36, 37, 36, 37, 38, 39,
		40, 41, 42, 43, 42, 43, 44, 45, 46, 47, 48, 49 };
	const __m512i even_shift = _mm512_set1_epi64(0x2e28221c16100a04),
		      odd_shift = _mm512_set1_epi64(0x312b251f19130d07),
		      toggled = _mm512_set1_epi8(0x40);
	__m512i x = _mm512_maskz_loadu_epi8(0x1ffffffffffff, codes - 1), first, e, o;

	x = _mm512_permutexvar_epi8(_mm512_load_si512(take), x);
	e = _mm512_multishift_epi64_epi8(even_shift, x);
	o = _mm512_multishift_epi64_epi8(odd_shift, x);
	first = _mm512_movm_epi8(starts);
	e = _mm512_andnot_si512(_mm512_and_si512(first, _mm512_set1_epi8(9)), e);
	o = _mm512_andnot_si512(_mm512_and_si512(first, _mm512_set1_epi8(1)), o);
	e = TOGGLE(e, _mm512_slli_epi16(e, 6), toggled);
	o = TOGGLE(o, _mm512_slli_epi16(o, 6), toggled);
	*even = _mm512_permutexvar_epi8(_mm512_srli_epi16(e, 3), table);
	*odd = _mm512_permutexvar_epi8(_mm512_srli_epi16(o, 3), table);
}

INLINE void read_levels_4(const uint8_t *codes, uint64_t starts, __m512i table, __m512i *even,
	__m512i *odd)
{
	const __m512i nibble = _mm512_set1_epi8(15), path = _mm512_set1_epi8((char)0x88);
	__m512i x = _mm512_loadu_si512(codes), before = _mm512_maskz_loadu_epi8(~starts, codes - 1);
	__m512i number = _mm512_xor_si512(x, _mm512_and_si512(before, path));

	/* p(c-1) moves above the nibble: for an even channel from the preceding byte. */
	*even = _mm512_permutexvar_epi8(SELECT(nibble, number, _mm512_srli_epi16(before, 3)),
		table);
	*odd = _mm512_permutexvar_epi8(SELECT(nibble, _mm512_srli_epi16(number, 4),
					       _mm512_slli_epi16(x, 1)),
		table);
}

INLINE void read_levels_5(const uint8_t *codes, uint64_t starts, __m512i table, __m512i *even,
	__m512i *odd)
{
	/* From the byte before: qword j has the bytes 10j .. 10j + 7 for channels 16j .. 16j + 7,
	 * and those 5 further on for the next eight. */
	static const uint8_t take[64] __attribute__((aligned(64))) = { 0, 1, 2, 3, 4, 5, 6, 7, 10,
		11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33, 34, 35,
		36, 37, 40, 41, 42, 43, 44, 45, 46, 47, 50, 51, 52, 53, 54, 55, 56, 57, 60, 61, 62,
		63, 64, 65, 66, 67, 70, 71, 72, 73, 74, 75, 76, 77 };
	const __m512i even_shift = _mm512_set1_epi64(0x251b1107251b1107),
		      odd_shift = _mm512_set1_epi64(0x2a20160c2a20160c),
		      path_shift = _mm512_set1_epi64(0x20160c0220160c02),
		      toggled = _mm512_set1_epi8(0x20);
	const __mmask64 further = 0xf0f0f0f0f0f0f0f0;
	__m512i x = _mm512_loadu_si512(codes - 1), y = _mm512_maskz_loadu_epi8(0x1ffff, codes + 63),
		at = _mm512_load_si512(take), a, b, first, e, o, path;

	a = _mm512_permutex2var_epi8(x, at, y);
	b = _mm512_permutex2var_epi8(x, _mm512_add_epi8(at, _mm512_set1_epi8(5)), y);
	a = _mm512_mask_blend_epi8(0, a, b);
	/* p(c-1), m(c), p(c) and two bits; p(c-2) of the even ones, and seven bits */
	e = _mm512_mask_blend_epi8(further, _mm512_multishift_epi64_epi8(even_shift, a),
		_mm512_multishift_epi64_epi8(even_shift, b));
	o = _mm512_mask_blend_epi8(further, _mm512_multishift_epi64_epi8(odd_shift, a),
		_mm512_multishift_epi64_epi8(odd_shift, b));
	path = _mm512_mask_blend_epi8(further, _mm512_multishift_epi64_epi8(path_shift, a),
		_mm512_multishift_epi64_epi8(path_shift, b));
	first = _mm512_and_si512(_mm512_movm_epi8(starts), _mm512_set1_epi8(1));
	e = _mm512_andnot_si512(first, e);
	path = _mm512_andnot_si512(first, path);
	o = TOGGLE(o, _mm512_slli_epi16(e, 5), toggled);
	e = TOGGLE(e, _mm512_slli_epi16(path, 5), toggled);
	*even = _mm512_permutexvar_epi8(e, table);
	*odd = _mm512_permutexvar_epi8(o, table);
}

/* ---- groups --------------------------------------------------------------------------------- */

/* What channels are multiplied by, and what K's add. */
struct channels {
	float mean[2][CODEC_HEAD_DIM_MAX]; /* the second: zeros, of tokens coded alone */
	float factor[CODEC_HEAD_DIM_MAX];
};

INLINE void read_channels(const uint8_t *group, unsigned int head_dim, enum codec_tensor tensor,
	struct channels *channels)
{
	struct qx_side side;
	float step = 0;

	if (tensor == CODEC_K)
		qx_side_read(group + QX_SCALES, head_dim, &side);
	if (tensor == CODEC_K && side.code) {
		uint32_t bits = (uint32_t)(127 - 32 + (side.code - 1) / 8) << 23;

		memcpy(&step, &bits, sizeof(step));
		step *= qx_mantissas[(side.code - 1) % 8];
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		float sign = qx_negated(head_dim) >> c % 64 & 1 ? -1.0f : 1.0f;

		channels->factor[c] = sign;
		if (tensor == CODEC_V)
			continue;
		channels->factor[c] *= (float)(1 << side.exponent[c]);
		channels->mean[0][c] = (float)side.mean[c] * (sign * step) + 0.0f; /* never -0 */
		channels->mean[1][c] = 0;
	}
}

/* Chunks of 128 channels may span tokens; 16 channels at a time belong to one token. */
INLINE void decode_tokens(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	const __m512i table = _mm512_load_si512(bits == 3 ? levels_3
			: bits == 4			  ? levels_4
							  : levels_5);
	const int bias = bits == 5 ? 0 : BIAS(bits);
	unsigned int slice_log2 = qx_slice_log2(head_dim), first = 0, next = 0;
	const uint8_t *codes = group + qx_codes_at(head_dim, tensor);
	float scale[CODEC_GROUP_TOKENS];
	struct channels channels;

	half_steps(group, tensor, scale);
	read_channels(group, head_dim, tensor, &channels);
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++, first += 128) {
		__m512i even, odd, sums[4];
		uint64_t starts = 0;

		/* `next`: the next even channel of this chunk at which a token starts */
		for (; next < 64; next += head_dim / 2)
			starts |= UINT64_C(1) << next;
		next -= 64;
		if (bits == 3)
			read_levels_3(codes + 48 * chunk, starts, table, &even, &odd);
		else if (bits == 4)
			read_levels_4(codes + 64 * chunk, starts, table, &even, &odd);
		else
			read_levels_5(codes + 80 * chunk, starts, table, &even, &odd);
		if (bits == 5)
			transform_wide(even, odd, BIAS(bits), slice_log2, sums);
		else
			transform(even, odd, BIAS(bits), slice_log2, sums);
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i v = _mm512_sub_epi16(sums[i], excess(bias, slice_log2, i));
			unsigned int at = first + 32 * PIECE(i);
			__m512 x[2] = { _mm512_cvtepi32_ps(
						_mm512_cvtepi16_epi32(_mm512_castsi512_si256(v))),
				_mm512_cvtepi32_ps(
					_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(v, 1))) };

#pragma GCC unroll 2
			for (unsigned int half = 0; half < 2; half++) {
				unsigned int token = (at + 16 * half) / head_dim,
					     channel = (at + 16 * half) % head_dim;
				__m512 by = _mm512_mul_ps(_mm512_set1_ps(scale[token]),
					_mm512_loadu_ps(channels.factor + channel));
				__m512 more = _mm512_setzero_ps();

				if (tensor == CODEC_K)
					more = _mm512_loadu_ps(channels.mean[group[token] >> 7] +
						channel);
				x[half] = scaled(x[half], by, more);
			}
			put(raw + 2 * (size_t)at, to_floats(dtype, x[0], x[1]), streamed);
		}
	}
}

INLINE void decode_bits(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (bits == 3)
		decode_tokens(group, head_dim, dtype, 3, tensor, raw, streamed);
	else if (bits == 4)
		decode_tokens(group, head_dim, dtype, 4, tensor, raw, streamed);
	else
		decode_tokens(group, head_dim, dtype, 5, tensor, raw, streamed);
}

INLINE void decode_head(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (tensor == CODEC_V && dtype == SPECKV_DTYPE_BF16)
		decode_bits(group, head_dim, SPECKV_DTYPE_BF16, bits, CODEC_V, raw, streamed);
	else if (tensor == CODEC_V)
		decode_bits(group, head_dim, SPECKV_DTYPE_FP16, bits, CODEC_V, raw, streamed);
	else if (dtype == SPECKV_DTYPE_BF16)
		decode_bits(group, head_dim, SPECKV_DTYPE_BF16, bits, CODEC_K, raw, streamed);
	else
		decode_bits(group, head_dim, SPECKV_DTYPE_FP16, bits, CODEC_K, raw, streamed);
}

/* `streamed` is no constant: a branch at each store, always taken the same way, costs less than
 * twice the code. */
void DECODE(const uint8_t *group, unsigned int head_dim, unsigned int dtype, unsigned int bits,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	streamed = streamed && !((uintptr_t)raw % 64);
	switch (head_dim) {
	case 64:
		decode_head(group, 64, dtype, bits, tensor, raw, streamed);
		break;
	case 80:
		decode_head(group, 80, dtype, bits, tensor, raw, streamed);
		break;
	case 96:
		decode_head(group, 96, dtype, bits, tensor, raw, streamed);
		break;
	case 128:
		decode_head(group, 128, dtype, bits, tensor, raw, streamed);
		break;
	case 192:
		decode_head(group, 192, dtype, bits, tensor, raw, streamed);
		break;
	default:
		decode_head(group, 256, dtype, bits, tensor, raw, streamed);
		break;
	}
	if (streamed)
		_mm_sfence();
}

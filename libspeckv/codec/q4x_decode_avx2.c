// SPDX-License-Identifier: MIT
/*
 * Decoding of mode q4x with AVX2 (FMA, F16C). Defined by FORMAT.md section 5; q4x.c is the
 * reference.
 *
 * Floating point is used only where it is exact, or where the format defines the rounding: products
 * of integers below 2^24 and powers of two, and the one sum that is rounded to binary32.
 */
#include <string.h>

#include "q4x_avx2.h"

INLINE void put(uint8_t *to, __m256i value, bool streamed)
{
	if (streamed)
		_mm256_stream_si256((__m256i *)(void *)to, value);
	else
		_mm256_storeu_si256((__m256i *)(void *)to, value);
}

/* Half steps of a group's tokens; 0 for scale code 0. */
INLINE void half_steps(const uint8_t *scales, float *out)
{
	const __m256 eighths = _mm256_cvtepi32_ps(
		_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)q4x_mantissas)));

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 8) {
		__m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(scales + t)));
		__m256i step = _mm256_sub_epi32(code, _mm256_set1_epi32(1));
		/* 2^(step / 8 - 32), built from its bits */
		__m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_srai_epi32(step, 3),
							  _mm256_set1_epi32(127 - 32)),
			23);
		__m256 half_step = _mm256_mul_ps(_mm256_permutevar8x32_ps(eighths, step),
			_mm256_castsi256_ps(power));

		half_step = _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(code,
						     _mm256_setzero_si256())),
			half_step);
		_mm256_storeu_ps(out + t, half_step);
	}
}

/* Round the 32-bit lanes of both to bf16, nearest, ties to even: `even` to the even words. */
INLINE __m256i round_bf16(__m256 even, __m256 odd)
{
	__m256i a = _mm256_castps_si256(even), b = _mm256_castps_si256(odd);
	__m256i high = _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa),
		low = _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa);
	/*
	 * low + 0x7fff, plus one for an odd number, overflows if it rounds up: computed as an
	 * average, half of that, which keeps the carry
	 */
	__m256i most = _mm256_or_si256(_mm256_and_si256(high, _mm256_set1_epi16(1)),
		_mm256_set1_epi16(0x7ffe));

	return _mm256_add_epi16(high, _mm256_srli_epi16(_mm256_avg_epu16(low, most), 15));
}

INLINE __m128i round_fp16(__m256 value)
{
	value = _mm256_max_ps(_mm256_min_ps(value, _mm256_set1_ps(65504)), _mm256_set1_ps(-65504));
	return _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
}

/*
 * 16 integers times the half step, plus the mean: in bf16 even channels before odd ones, in fp16 in
 * order. A scale of 0 gives the mean, or +0.
 */
INLINE __m256i scaled(__m256i v, float half_step, const float *mean, unsigned int dtype)
{
	const __m256 by = _mm256_set1_ps(half_step), first = _mm256_loadu_ps(mean),
		     second = _mm256_loadu_ps(mean + 8);
	__m256 a, b;

	if (dtype == SPECKV_DTYPE_BF16) {
		a = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(v, _mm256_set1_epi32(1))),
			by, first);
		b = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_srai_epi32(v, 16)), by, second);
		return round_bf16(a, b);
	}
	a = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(v))),
		by, first);
	b = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(v,
				    1))),
		by, second);
	return _mm256_inserti128_si256(_mm256_castsi128_si256(round_fp16(a)), round_fp16(b), 1);
}

/* ---- K -------------------------------------------------------------------------------------- */

/* Levels of K are biased to be unsigned. */
#define BIAS 42
#define LEVEL(i) ((int8_t)(BIAS + (i)))
/* Indexed by 8 (p(c) xor p(c-2)) + m(c), for p(c-1) = 0, then for p(c-1) = 1. */
static const int8_t levels[2][16] = {
	{ LEVEL(-42), LEVEL(-26), LEVEL(-15), LEVEL(-7), LEVEL(1), LEVEL(9), LEVEL(17), LEVEL(30),
		LEVEL(-34), LEVEL(-19), LEVEL(-11), LEVEL(-3), LEVEL(5), LEVEL(13), LEVEL(22),
		LEVEL(38) },
	{ LEVEL(-38), LEVEL(-22), LEVEL(-13), LEVEL(-5), LEVEL(3), LEVEL(11), LEVEL(19), LEVEL(34),
		LEVEL(-30), LEVEL(-17), LEVEL(-9), LEVEL(-1), LEVEL(7), LEVEL(15), LEVEL(26),
		LEVEL(42) },
};

INLINE __m256i pick(__m256i number, __m256i path)
{
	const __m256i zero =
		_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels[0]));
	const __m256i one =
		_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)levels[1]));

	return _mm256_blendv_epi8(_mm256_shuffle_epi8(zero, number),
		_mm256_shuffle_epi8(one, number), path);
}

/* Butterflies between registers whose numbers differ in one bit; none unless `wanted`. */
INLINE void between(__m256i *r, unsigned int bit, bool wanted)
{
	for (unsigned int i = 0; i < 8 && wanted; i++)
		if (!(i & bit)) {
			__m256i a = r[i], b = r[i + bit];

			r[i] = _mm256_add_epi16(a, b);
			r[i + bit] = _mm256_sub_epi16(a, b);
		}
}

/* Swap one bit of the register number with one bit of the position within registers. */
#define EXCHANGE(r, bit, low, high)                                     \
	do {                                                            \
		for (unsigned int i = 0; i < 8; i++)                    \
			if (!(i & (bit))) {                             \
				__m256i a = (r)[i], b = (r)[i + (bit)]; \
                                                                        \
				(r)[i] = low;                           \
				(r)[i + (bit)] = high;                  \
			}                                               \
	} while (0)

/*
 * The transform of 128 channels in slices of 2^slice_log2, from bytes of the even and of the odd
 * channels, all with `bias` added. In natural order, 16 channels a register; but the first two
 * channels of a slice are too large by `bias` times the slice's size.
 *
 * Each channel bit in turn becomes a bit of the register number, where butterflies need no shuffle.
 * Register bits 4, 2, 1 are channel bits 6, 0, 1 at first, words are 3, 4, 2, lanes 5; at the end
 * they are 6, 5, 4 and 0, 1, 2, 3.
 */
INLINE void transform(const __m256i *even, const __m256i *odd, int bias, unsigned int slice_log2,
	__m256i *r)
{
	const __m256i plus = _mm256_set1_epi8(1), minus = _mm256_set1_epi16((short)0xff01);
	const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2,
		3, 6, 7, 10, 11, 14, 15));

	for (unsigned int half = 0; half < 2; half++) {
		/*
		 * Channel bit 0: sums have twice the bias, and it is added to differences. Then bit
		 * 1, whose differences cancel it.
		 */
		__m256i s = _mm256_add_epi8(even[half], odd[half]);
		__m256i d = _mm256_add_epi8(_mm256_sub_epi8(even[half], odd[half]),
			_mm256_set1_epi8((char)(2 * bias)));

		s = _mm256_shuffle_epi8(s, order);
		d = _mm256_shuffle_epi8(d, order);
		r[4 * half] = _mm256_maddubs_epi16(s, plus);
		r[4 * half + 1] = _mm256_maddubs_epi16(s, minus);
		r[4 * half + 2] = _mm256_maddubs_epi16(d, plus);
		r[4 * half + 3] = _mm256_maddubs_epi16(d, minus);
	}
	between(r, 4, slice_log2 > 6);
	EXCHANGE(r, 2, _mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b));
	between(r, 2, true); /* channel bit 2 */
	EXCHANGE(r, 1, _mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
	between(r, 1, slice_log2 > 4);
	EXCHANGE(r, 2, _mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
	between(r, 2, true); /* channel bit 3 */
	EXCHANGE(r, 2, _mm256_permute2x128_si256(a, b, 0x20),
		_mm256_permute2x128_si256(a, b, 0x31));
	between(r, 2, slice_log2 > 5);
}

INLINE __m256i excess(int bias, unsigned int slice_log2)
{
	const short by = (short)(bias << slice_log2);

	return _mm256_setr_epi16(by, by, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

/*
 * Decode biased levels of 128 channels from 64 bytes and the preceding one; `keep` is zero where a
 * token starts.
 */
INLINE void read_levels(const uint8_t *codes, const uint8_t *keep, __m256i *even, __m256i *odd)
{
	const __m256i path = _mm256_set1_epi8((char)0x88), nibble = _mm256_set1_epi8(15);

	for (unsigned int half = 0; half < 2; half++) {
		__m256i x = _mm256_loadu_si256((const __m256i *)(codes + 32 * half));
		__m256i before = _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(codes +
							  32 * half - 1)),
			_mm256_loadu_si256((const __m256i *)(keep + 32 * half)));
		__m256i number = _mm256_xor_si256(x, _mm256_and_si256(before, path));

		even[half] = pick(_mm256_and_si256(number, nibble), before);
		odd[half] = pick(_mm256_and_si256(_mm256_srli_epi16(number, 4), nibble),
			_mm256_slli_epi16(x, 4));
	}
}

/* Decode the mean of each channel of a group, in the order of scaled(). */
INLINE void read_mean(const uint8_t *group, unsigned int head_dim, unsigned int dtype, float *mean)
{
	const __m256i nibble = _mm256_set1_epi8(15);
	unsigned int code = group[Q4X_SCALES + head_dim / 2 - 1],
		     slice_log2 = q4x_slice_log2(head_dim);
	uint8_t part[Q4X_MEAN_MAX] __attribute__((aligned(32)));
	uint32_t bits = (uint32_t)(127 - 32 + (int)(code - 1) / 8) << 23;
	float by = code ? (float)q4x_mantissas[(code - 1) % 8] : 0, power;

	memcpy(&power, &bits, sizeof(power));
	memcpy(part, group + Q4X_SCALES, q4x_mean_bytes(head_dim, CODEC_K));
	part[head_dim / 2 - 1] = 0x88;
	for (unsigned int c = 0; c < head_dim; c += 128) {
		__m256i even[2], odd[2], sums[8];

		for (unsigned int half = 0; half < 2; half++) {
			__m256i x = _mm256_load_si256((const __m256i *)(part + c / 2 + 32 * half));

			even[half] = _mm256_and_si256(x, nibble);
			odd[half] = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
		}
		transform(even, odd, 8, slice_log2, sums);
		for (unsigned int i = 0; i < 8 && c + 16 * i < head_dim; i++) {
			__m256i v = sums[i], a, b;

			if (16 * i % (1u << slice_log2) == 0)
				v = _mm256_sub_epi16(v, excess(8, slice_log2));
			a = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
			b = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
			if (dtype == SPECKV_DTYPE_BF16) {
				a = _mm256_madd_epi16(v, _mm256_set1_epi32(1));
				b = _mm256_srai_epi32(v, 16);
			}
			/* adding zero turns -0 into +0: no mean */
			_mm256_storeu_ps(mean + c + 16 * i,
				_mm256_fmadd_ps(_mm256_cvtepi32_ps(a), _mm256_set1_ps(by * power),
					_mm256_setzero_ps()));
			_mm256_storeu_ps(mean + c + 16 * i + 8,
				_mm256_fmadd_ps(_mm256_cvtepi32_ps(b), _mm256_set1_ps(by * power),
					_mm256_setzero_ps()));
		}
	}
}

/* Chunks of 128 channels may span tokens; 16 channels at a time belong to one token. */
INLINE void decode_k(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
	bool streamed)
{
	unsigned int slice_log2 = q4x_slice_log2(head_dim), first = 0, at = 0;
	/* Token starts repeat in the chunks after so many bytes. */
	unsigned int period = head_dim % 128 == 0 ? head_dim / 2
		: head_dim == 64		  ? 64
		: head_dim == 80		  ? 320
						  : 192;
	const uint8_t *codes = group + q4x_codes_at(head_dim, CODEC_K);
	float scale[CODEC_GROUP_TOKENS], mean[CODEC_HEAD_DIM_MAX];
	uint8_t keep[320];

	half_steps(group, scale);
	read_mean(group, head_dim, dtype, mean);
	memset(keep, 0xff, period);
	for (unsigned int i = 0; i < period; i += head_dim / 2)
		keep[i] = 0;
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++) {
		__m256i even[2], odd[2], sums[8];

		read_levels(codes + 64 * chunk, keep + at, even, odd);
		transform(even, odd, BIAS, slice_log2, sums);
		at = at + 64 == period ? 0 : at + 64;
#pragma GCC unroll 8
		for (unsigned int i = 0; i < 8; i++, first += 16) {
			__m256i v = sums[i];

			if (16 * i % (1u << slice_log2) == 0)
				v = _mm256_sub_epi16(v, excess(BIAS, slice_log2));
			put(raw + 2 * (size_t)first,
				scaled(v, scale[first / head_dim], mean + first % head_dim, dtype),
				streamed);
		}
	}
}

/* ---- V -------------------------------------------------------------------------------------- */

/* Table of the 16 values of a token, indexed bytewise by 8 (p(c) xor p(c-2)) + 2 m + p(c-1). */
struct values {
	__m256i low, high;
};

INLINE struct values value_table(float half_step, unsigned int dtype)
{
	const __m256 by = _mm256_set1_ps(half_step), zero = _mm256_setzero_ps();
	/*
	 * Halves of the table: numbers 0 to 3 and 8 to 11, then 4 to 7 and 12 to 15; packing by
	 * lanes restores the order.
	 */
	__m256 a = _mm256_setr_ps(-20, -16, -7, -5, -12, -9, -3, -1),
	       b = _mm256_setr_ps(1, 3, 9, 12, 5, 7, 16, 20);
	const __m256i split = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14,
		1, 3, 5, 7, 9, 11, 13, 15));
	/* The order of bf16, whose rounding interleaves both halves. */
	const __m256i woven = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14,
		1, 5, 9, 13, 3, 7, 11, 15));
	__m256i words;

	/* adding zero: a scale of 0 gives +0, whatever the sign */
	a = _mm256_fmadd_ps(a, by, zero);
	b = _mm256_fmadd_ps(b, by, zero);
	if (dtype == SPECKV_DTYPE_BF16) {
		words = _mm256_shuffle_epi8(round_bf16(a, b), woven);
	} else {
		__m128i first = round_fp16(a), second = round_fp16(b);

		words = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi64(first,
							second)),
			_mm_unpackhi_epi64(first, second), 1);
		words = _mm256_shuffle_epi8(words, split);
	}
	return (struct values){ _mm256_permute4x64_epi64(words, 0x88),
		_mm256_permute4x64_epi64(words, 0xdd) };
}

/*
 * Table indices of 16 channels whose codes begin at `codes`; the preceding byte belongs to the
 * token, unless it starts here.
 */
INLINE __m256i numbers(const uint8_t *codes, bool start)
{
	/*
	 * Each word gets the two bytes with p(c-2), m(c-1), p(c-1), m(c), p(c), seven bits that are
	 * then shifted to its top; byte 0 is the preceding one, which is masked at the start of a
	 * token.
	 */
	const __m256i take = _mm256_setr_epi8(0, 1, 0, 1, 1, 2, 1, 2, 2, 3, 2, 3, 2, 3, 3, 4, 3, 4,
		3, 4, 4, 5, 4, 5, 5, 6, 5, 6, 5, 6, 6, 7);
	const __m256i take_start = _mm256_setr_epi8(-1, 1, -1, 1, 1, 2, 1, 2, 2, 3, 2, 3, 2, 3, 3,
		4, 3, 4, 3, 4, 4, 5, 4, 5, 5, 6, 5, 6, 5, 6, 6, 7);
	const __m256i up = _mm256_broadcastsi128_si256(_mm_setr_epi16(1 << 5, 1 << 2, 1 << 7,
		1 << 4, 1 << 9, 1 << 6, 1 << 3, 1 << 8));
	/*
	 * The load reads past these codes: into the next token or, at the end, into the slack of
	 * the group's buffer for V.
	 */
	__m256i x = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(codes - 1)));

	x = _mm256_mullo_epi16(_mm256_shuffle_epi8(x, start ? take_start : take), up);
	/* p(c) xor p(c-2) */
	x = _mm256_xor_si256(x,
		_mm256_and_si256(_mm256_slli_epi16(x, 6), _mm256_set1_epi16((short)0x8000)));
	return _mm256_srli_epi16(x, 12);
}

INLINE void decode_v(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
	bool streamed)
{
	const uint8_t *codes = group + q4x_codes_at(head_dim, CODEC_V);
	float scale[CODEC_GROUP_TOKENS];

	half_steps(group, scale);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		struct values values = value_table(scale[t], dtype);

		for (unsigned int c = 0; c < head_dim; c += 32, codes += 12, raw += 64) {
			__m256i a = numbers(codes, c == 0), b = a, low, high;

			if (c + 16 < head_dim)
				b = numbers(codes + 6, false);
			/*
			 * Interleave the first and second 16 in runs of eight bytes, as unpacking
			 * expects.
			 */
			a = _mm256_packus_epi16(a, b);
			low = _mm256_shuffle_epi8(values.low, a);
			high = _mm256_shuffle_epi8(values.high, a);
			put(raw, _mm256_unpacklo_epi8(low, high), streamed);
			if (c + 16 < head_dim)
				put(raw + 32, _mm256_unpackhi_epi8(low, high), streamed);
		}
		if (head_dim % 32) {
			codes -= 6;
			raw -= 32;
		}
	}
}

INLINE void decode_head(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (tensor == CODEC_K)
		decode_k(group, head_dim, dtype, raw, streamed);
	else
		decode_v(group, head_dim, dtype, raw, streamed);
}

#define DECODE(size, dtype, tensor) decode_head(group, size, dtype, tensor, raw, streamed)

void codec_q4x_decode_avx2(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	unsigned int mode = round_to_nearest();

	streamed = streamed && (uintptr_t)raw % 64 == 0;
	if (tensor == CODEC_K && dtype == SPECKV_DTYPE_BF16)
		FOR_HEAD_SIZE(head_dim, DECODE, SPECKV_DTYPE_BF16, CODEC_K);
	else if (tensor == CODEC_K)
		FOR_HEAD_SIZE(head_dim, DECODE, SPECKV_DTYPE_FP16, CODEC_K);
	else if (dtype == SPECKV_DTYPE_BF16)
		FOR_HEAD_SIZE(head_dim, DECODE, SPECKV_DTYPE_BF16, CODEC_V);
	else
		FOR_HEAD_SIZE(head_dim, DECODE, SPECKV_DTYPE_FP16, CODEC_V);
	if (streamed)
		_mm_sfence();
	_mm_setcsr(mode);
}

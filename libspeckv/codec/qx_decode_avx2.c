// SPDX-License-Identifier: MIT
/*
 * Decoding of the fixed-rate modes with AVX2 (FMA, F16C). Defined by FORMAT.md section 5; qx.c
 * is the reference.
 *
 * Floating point is used only where it is exact, or where the format defines the rounding: products
 * with powers of two, and a fused multiplication and addition that is rounded once to binary32.
 */
#include <string.h>

#include "qx_avx2.h"

INLINE __m256i load(const void *from)
{
	return _mm256_loadu_si256((const __m256i *)from);
}

/* Two halves of a register, `apart` bytes from each other. */
INLINE __m256i load_halves(const uint8_t *from, unsigned int apart)
{
	return _mm256_inserti128_si256(
		_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)from)),
		_mm_loadu_si128((const __m128i *)(const void *)(from + apart)), 1);
}

INLINE void put(uint8_t *to, __m256i value, bool streamed)
{
	if (streamed)
		_mm256_stream_si256((__m256i *)(void *)to, value);
	else
		_mm256_storeu_si256((__m256i *)(void *)to, value);
}

/* ---- scales and means ----------------------------------------------------------------------- */

/* Half steps of eight scale codes; 0 for code 0. */
INLINE __m256 half_steps(__m256i code, int least_exponent)
{
	const __m256 eighths = _mm256_cvtepi32_ps(
		_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)qx_mantissas)));
	__m256i step = _mm256_sub_epi32(code, _mm256_set1_epi32(1));
	/* a power of two, built from its bits */
	__m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_srai_epi32(step, 3),
						  _mm256_set1_epi32(127 + least_exponent)),
		23);
	__m256 half_step =
		_mm256_mul_ps(_mm256_permutevar8x32_ps(eighths, step), _mm256_castsi256_ps(power));

	return _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(code,
					_mm256_setzero_si256())),
		half_step);
}

/* What values of a group are made of, besides their levels. */
struct scaling {
	float token[CODEC_GROUP_TOKENS]; /* half steps */
	/* In the order of scaled(): of K the mean, then zeros, for tokens without it ... */
	float mean[2][CODEC_HEAD_DIM_MAX];
	float channel[CODEC_HEAD_DIM_MAX]; /* ... and 2^e, with the channel's sign */
};

INLINE void read_scaling(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, struct scaling *scaling)
{
	const __m256i codes = _mm256_set1_epi32(tensor == CODEC_K ? QX_ALONE - 1 : 0xff);
	const __m128i order = dtype == SPECKV_DTYPE_BF16
		? _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)
		: _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	struct qx_side side;
	__m256 step;

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 8) {
		__m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(group + t)));

		_mm256_storeu_ps(scaling->token + t,
			half_steps(_mm256_and_si256(code, codes), qx_least_exponent(tensor)));
	}
	if (tensor == CODEC_V) {
		for (unsigned int c = 0; c < head_dim; c += 8)
			_mm256_storeu_si256((__m256i *)(void *)(scaling->channel + c),
				_mm256_xor_si256(_mm256_castps_si256(_mm256_set1_ps(1)),
					negated_bits(head_dim, c / 16 * 16, c / 8 % 2, dtype)));
		return;
	}
	qx_side_read(group + QX_SCALES, head_dim, &side);
	step = half_steps(_mm256_set1_epi32(side.code), qx_least_exponent(CODEC_V));
	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m128i mean =
			_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(side.mean + c)), order);
		__m128i exponent =
			_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(side.exponent + c)),
				order);

		for (unsigned int i = 0; i < 16; i += 8) {
			__m256i signs = negated_bits(head_dim, c, i / 8, dtype);
			__m256i power =
				_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtepu8_epi32(exponent),
							  _mm256_set1_epi32(127)),
					23);

			/* adding zero turns -0 into +0: no mean */
			_mm256_storeu_ps(scaling->mean[0] + c + i,
				_mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(mean)),
					_mm256_xor_ps(step, _mm256_castsi256_ps(signs)),
					_mm256_setzero_ps()));
			_mm256_storeu_ps(scaling->mean[1] + c + i, _mm256_setzero_ps());
			_mm256_storeu_si256((__m256i *)(void *)(scaling->channel + c + i),
				_mm256_xor_si256(power, signs));
			mean = _mm_unpackhi_epi64(mean, mean);
			exponent = _mm_unpackhi_epi64(exponent, exponent);
		}
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
 * 16 integers, from channel c on, scaled, plus the mean: in bf16 even channels before odd ones, in
 * fp16 in order. A scale of 0 gives the mean, or +0.
 */
INLINE __m256i scaled(__m256i v, const struct scaling *scaling, unsigned int c, unsigned int token,
	const float *mean, unsigned int dtype, enum codec_tensor tensor)
{
	__m256 by[2] = { _mm256_set1_ps(scaling->token[token]),
		_mm256_set1_ps(scaling->token[token]) },
	       plus[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
	__m256i a, b;

	for (unsigned int i = 0; i < 2; i++) {
		by[i] = _mm256_mul_ps(by[i], _mm256_loadu_ps(scaling->channel + c + 8 * i));
		if (tensor == CODEC_K)
			plus[i] = _mm256_loadu_ps(mean + c + 8 * i);
	}
	if (dtype == SPECKV_DTYPE_BF16) {
		a = _mm256_madd_epi16(v, _mm256_set1_epi32(1));
		b = _mm256_srai_epi32(v, 16);
		return round_bf16(_mm256_fmadd_ps(_mm256_cvtepi32_ps(a), by[0], plus[0]),
			_mm256_fmadd_ps(_mm256_cvtepi32_ps(b), by[1], plus[1]));
	}
	a = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
	b = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1));
	return _mm256_inserti128_si256(_mm256_castsi128_si256(round_fp16(_mm256_fmadd_ps(
					       _mm256_cvtepi32_ps(a), by[0], plus[0]))),
		round_fp16(_mm256_fmadd_ps(_mm256_cvtepi32_ps(b), by[1], plus[1])), 1);
}

/* ---- levels --------------------------------------------------------------------------------- */

/* Levels are biased to be unsigned. */
#define BIAS(bits) ((bits) == 3 ? 20 : (bits) == 4 ? 42 : 86)
#define LEVEL3(i) ((int8_t)(BIAS(3) + (i)))
#define LEVEL4(i) ((int8_t)(BIAS(4) + (i)))
/* Indexed by 8 p(c-1) + 4 (p(c) xor p(c-2)) + m(c). */
static const int8_t levels3[16] = { LEVEL3(-20), LEVEL3(-7), LEVEL3(1), LEVEL3(9), LEVEL3(-12),
	LEVEL3(-3), LEVEL3(5), LEVEL3(16), LEVEL3(-16), LEVEL3(-5), LEVEL3(3), LEVEL3(12),
	LEVEL3(-9), LEVEL3(-1), LEVEL3(7), LEVEL3(20) };
/* Indexed by 8 (p(c) xor p(c-2)) + m(c), for p(c-1) = 0, then for p(c-1) = 1. */
static const int8_t levels4[2][16] = {
	{ LEVEL4(-42), LEVEL4(-26), LEVEL4(-15), LEVEL4(-7), LEVEL4(1), LEVEL4(9), LEVEL4(17),
		LEVEL4(30), LEVEL4(-34), LEVEL4(-19), LEVEL4(-11), LEVEL4(-3), LEVEL4(5),
		LEVEL4(13), LEVEL4(22), LEVEL4(38) },
	{ LEVEL4(-38), LEVEL4(-22), LEVEL4(-13), LEVEL4(-5), LEVEL4(3), LEVEL4(11), LEVEL4(19),
		LEVEL4(34), LEVEL4(-30), LEVEL4(-17), LEVEL4(-9), LEVEL4(-1), LEVEL4(7), LEVEL4(15),
		LEVEL4(26), LEVEL4(42) },
};

INLINE __m256i table(const int8_t *from)
{
	return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)from));
}

/* Each byte of x moved up by one, behind the last one of `before`. */
INLINE __m256i preceding(__m256i x, __m256i before)
{
	return _mm256_alignr_epi8(x, _mm256_permute2x128_si256(before, x, 0x21), 15);
}

/* The latest codes, from chunk to chunk: of 5 bits even and odd channels', otherwise pairs. */
struct latest {
	__m256i even, odd;
};

/*
 * Biased levels of 64 channels, from their codes; `keep` is zero where a token starts. Bytes before
 * the codes are read, never any behind them.
 */
INLINE void levels_of_3(const uint8_t *codes, __m256i keep, struct latest *latest, __m256i *even,
	__m256i *odd)
{
	/* Two pairs of six bits are in the first word of four bytes, the others in the second. */
	const __m256i take = _mm256_broadcastsi128_si256(_mm_setr_epi8(4, 5, 5, 6, 7, 8, 8, 9, 10,
		11, 11, 12, 13, 14, 14, 15));
	const __m256i path = _mm256_set1_epi8(8), number = _mm256_set1_epi8(7);
	__m256i x = _mm256_mullo_epi16(_mm256_shuffle_epi8(load_halves(codes - 4, 12), take),
		_mm256_set1_epi32(1 << 16 | 1 << 4));
	__m256i before;

	x = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi16(0x3f)),
		_mm256_and_si256(_mm256_srli_epi16(x, 2), _mm256_set1_epi16(0x3f00)));
	before = _mm256_and_si256(preceding(x, latest->even), keep);
	latest->even = x;
	/* p(c-1) */
	*even = _mm256_and_si256(_mm256_srli_epi16(before, 2), path);
	*odd = _mm256_and_si256(_mm256_add_epi8(x, x), path);
	x = _mm256_xor_si256(x, _mm256_and_si256(before, _mm256_set1_epi8(0x24)));
	*even = _mm256_or_si256(*even, _mm256_and_si256(x, number));
	*odd = _mm256_or_si256(*odd, _mm256_and_si256(_mm256_srli_epi16(x, 3), number));
	*even = _mm256_shuffle_epi8(table(levels3), *even);
	*odd = _mm256_shuffle_epi8(table(levels3), *odd);
}

INLINE __m256i pick4(__m256i number, __m256i path)
{
	return _mm256_blendv_epi8(_mm256_shuffle_epi8(table(levels4[0]), number),
		_mm256_shuffle_epi8(table(levels4[1]), number), path);
}

INLINE void levels_of_4(const uint8_t *codes, __m256i keep, __m256i *even, __m256i *odd)
{
	const __m256i nibble = _mm256_set1_epi8(15);
	__m256i x = load(codes), before = _mm256_and_si256(load(codes - 1), keep);
	__m256i number =
		_mm256_xor_si256(x, _mm256_and_si256(before, _mm256_set1_epi8((char)0x88)));

	*even = pick4(_mm256_and_si256(number, nibble), before);
	*odd = pick4(_mm256_and_si256(_mm256_srli_epi16(number, 4), nibble),
		_mm256_slli_epi16(x, 4));
}

/* From codes, those two channels before and the ones between. */
INLINE __m256i levels5(__m256i x, __m256i second, __m256i first)
{
	const __m256i path = _mm256_set1_epi8(16);
	const __m256i eightfold = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 16, 24, 32, 40,
		48, 56, 64, 72, 80, 88, 96, 104, 112, 120));
	/* p(c) xor p(c-2) and p(c-1), to bits 2 and 1 */
	__m256i p = _mm256_and_si256(_mm256_xor_si256(x, second), path);

	p = _mm256_add_epi8(_mm256_add_epi8(p, p), _mm256_and_si256(first, path));
	x = _mm256_add_epi8(_mm256_shuffle_epi8(eightfold, x), _mm256_srli_epi16(p, 3));
	/* Twice the number of the level: two half steps a level, and as many beyond both knees. */
	p = _mm256_add_epi8(x, _mm256_subs_epu8(x, _mm256_set1_epi8(103)));
	return _mm256_add_epi8(p,
		_mm256_subs_epi8(_mm256_set1_epi8(23), _mm256_subs_epu8(_mm256_set1_epi8(23), x)));
}

INLINE void levels_of_5(const uint8_t *codes, __m256i keep, struct latest *latest, __m256i *even,
	__m256i *odd)
{
	/* Each word gets the two bytes with a pair's ten bits, which are shifted to its top. */
	const __m256i take = _mm256_broadcastsi128_si256(_mm_setr_epi8(6, 7, 7, 8, 8, 9, 9, 10, 11,
		12, 12, 13, 13, 14, 14, 15));
	const __m256i up = _mm256_set1_epi64x(1LL << 48 | 1LL << 34 | 1LL << 20 | 1LL << 6);
	const __m256i five = _mm256_set1_epi16(31);
	__m256i a = _mm256_mullo_epi16(_mm256_shuffle_epi8(load_halves(codes - 6, 20), take), up);
	__m256i b = _mm256_mullo_epi16(_mm256_shuffle_epi8(load_halves(codes + 4, 20), take), up);
	__m256i e = _mm256_packus_epi16(_mm256_and_si256(_mm256_srli_epi16(a, 6), five),
		_mm256_and_si256(_mm256_srli_epi16(b, 6), five));
	__m256i o = _mm256_packus_epi16(_mm256_srli_epi16(a, 11), _mm256_srli_epi16(b, 11));
	__m256i e_before = _mm256_and_si256(preceding(e, latest->even), keep);
	__m256i o_before = _mm256_and_si256(preceding(o, latest->odd), keep);

	latest->even = e;
	latest->odd = o;
	*even = levels5(e, e_before, o_before);
	*odd = levels5(o, o_before, e);
}

INLINE void levels_of(const uint8_t *codes, const uint8_t *keep, unsigned int bits,
	struct latest *latest, __m256i *even, __m256i *odd)
{
	if (bits == 3)
		levels_of_3(codes, load(keep), latest, even, odd);
	else if (bits == 4)
		levels_of_4(codes, load(keep), even, odd);
	else
		levels_of_5(codes, load(keep), latest, even, odd);
}

/* ---- the transform -------------------------------------------------------------------------- */

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
 * Channel bits 0 and 1, from bytes to words: of 64 channels to registers 0 to 3, whose number has
 * these bits as 2 and 1. Words are then channel bits 3, 4, 2 and lanes 5.
 */
INLINE void first_stages(__m256i even, __m256i odd, unsigned int bits, __m256i *r)
{
	const __m256i plus = _mm256_set1_epi8(1), minus = _mm256_set1_epi16((short)0xff01);
	const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2,
		3, 6, 7, 10, 11, 14, 15));
	const __m256i wide = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 2, 6, 10, 14, 1,
		5, 9, 13, 3, 7, 11, 15));
	__m256i s, d;

	if (bits == 5) { /* sums may exceed a byte */
		even = _mm256_shuffle_epi8(even, wide);
		odd = _mm256_shuffle_epi8(odd, wide);
		s = _mm256_unpacklo_epi8(even, odd);
		d = _mm256_unpackhi_epi8(even, odd);
		even = _mm256_maddubs_epi16(s, plus);
		odd = _mm256_maddubs_epi16(d, plus);
		r[0] = _mm256_add_epi16(even, odd);
		r[1] = _mm256_sub_epi16(even, odd);
		even = _mm256_maddubs_epi16(s, minus);
		odd = _mm256_maddubs_epi16(d, minus);
		r[2] = _mm256_add_epi16(even, odd);
		r[3] = _mm256_sub_epi16(even, odd);
		return;
	}
	/* Sums have twice the bias, and it is added to differences, whose differences cancel it. */
	s = _mm256_shuffle_epi8(_mm256_add_epi8(even, odd), order);
	d = _mm256_shuffle_epi8(_mm256_add_epi8(_mm256_sub_epi8(even, odd),
					_mm256_set1_epi8((char)(2 * BIAS(bits)))),
		order);
	r[0] = _mm256_maddubs_epi16(s, plus);
	r[1] = _mm256_maddubs_epi16(s, minus);
	r[2] = _mm256_maddubs_epi16(d, plus);
	r[3] = _mm256_maddubs_epi16(d, minus);
}

/*
 * The transform of 128 channels in slices of 2^slice_log2, from bytes of the even and of the odd
 * channels, all biased. In natural order, 16 channels a register.
 *
 * Each channel bit in turn becomes a bit of the register number, where butterflies need no shuffle.
 * Register bits 4, 2, 1 are channel bits 6, 0, 1 at first, words are 3, 4, 2, lanes 5; at the end
 * they are 6, 5, 4 and 0, 1, 2, 3.
 */
INLINE void transform(const __m256i *even, const __m256i *odd, unsigned int bits,
	unsigned int slice_log2, __m256i *r)
{
	/* Two channels of a slice that the bias has made too large; it cancels in the others. */
	const short by = (short)(BIAS(bits) << slice_log2), other = bits == 5 ? 0 : by;
	const __m256i excess =
		_mm256_setr_epi16(by, other, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

	first_stages(even[0], odd[0], bits, r);
	first_stages(even[1], odd[1], bits, r + 4);
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
	for (unsigned int i = 0; i < 8; i++)
		if (16 * i % (1u << slice_log2) == 0)
			r[i] = _mm256_sub_epi16(r[i], excess);
}

/* ---- groups --------------------------------------------------------------------------------- */

/* Chunks of 128 channels may span tokens; 16 channels at a time belong to one token. */
INLINE void decode(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	/* Token starts repeat in the chunks after so many pairs of channels. */
	unsigned int period = head_dim % 128 == 0 ? head_dim / 2
		: head_dim == 64		  ? 64
		: head_dim == 80		  ? 320
						  : 192;
	const uint8_t *codes = group + qx_codes_at(head_dim, tensor);
	struct latest latest = { _mm256_setzero_si256(), _mm256_setzero_si256() };
	unsigned int token = 0, c = 0, at = 0;
	struct scaling scaling;
	uint8_t keep[320];

	read_scaling(group, head_dim, dtype, tensor, &scaling);
	memset(keep, 0xff, period);
	for (unsigned int i = 0; i < period; i += head_dim / 2)
		keep[i] = 0;
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++, codes += 16 * (size_t)bits) {
		__m256i even[2], odd[2], sums[8];

		levels_of(codes, keep + at, bits, &latest, even, odd);
		levels_of(codes + 8 * (size_t)bits, keep + at + 32, bits, &latest, even + 1,
			odd + 1);
		transform(even, odd, bits, qx_slice_log2(head_dim), sums);
		at = at + 64 == period ? 0 : at + 64;
#pragma GCC unroll 8
		for (unsigned int i = 0; i < 8; i++, raw += 32) {
			const float *mean =
				scaling.mean[tensor == CODEC_K && group[token] & QX_ALONE];

			put(raw, scaled(sums[i], &scaling, c, token, mean, dtype, tensor),
				streamed);
			c += 16;
			if (c == head_dim) {
				c = 0;
				token++;
			}
		}
	}
}

#define DECODE(size, dtype, bits, tensor) decode(group, size, dtype, bits, tensor, raw, streamed)
#define FOR_BITS(bits, dtype, tensor)                                      \
	do {                                                               \
		if ((bits) == 3)                                           \
			FOR_HEAD_SIZE(head_dim, DECODE, dtype, 3, tensor); \
		else if ((bits) == 4)                                      \
			FOR_HEAD_SIZE(head_dim, DECODE, dtype, 4, tensor); \
		else                                                       \
			FOR_HEAD_SIZE(head_dim, DECODE, dtype, 5, tensor); \
	} while (0)

CODEC_QX_DECODE(avx2)
{
	unsigned int mode = round_to_nearest();

	streamed = streamed && (uintptr_t)raw % 64 == 0;
	if (tensor == CODEC_K && dtype == SPECKV_DTYPE_BF16)
		FOR_BITS(bits, SPECKV_DTYPE_BF16, CODEC_K);
	else if (tensor == CODEC_K)
		FOR_BITS(bits, SPECKV_DTYPE_FP16, CODEC_K);
	else if (dtype == SPECKV_DTYPE_BF16)
		FOR_BITS(bits, SPECKV_DTYPE_BF16, CODEC_V);
	else
		FOR_BITS(bits, SPECKV_DTYPE_FP16, CODEC_V);
	if (streamed)
		_mm_sfence();
	_mm_setcsr(mode);
}

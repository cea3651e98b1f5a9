// SPDX-License-Identifier: MIT
/*
 * Encoding of mode q4x with AVX-512 (VBMI). Defined by FORMAT.md section 5; q4x.c is the reference.
 * The method is that of q4x_encode_avx2.c; see there for comments missing here.
 */
#include <immintrin.h>

#include "q4x_codes.h"

#define INLINE static inline __attribute__((always_inline))
typedef __m512i vector;

#include "q4x_encode.h"

/*
 * Blocks of 32 channels, two registers of 32-bit integers each; for a head size of 80 the last one
 * is half empty.
 */
#define BLOCKS(head_dim) (((head_dim) + 31) / 32)

/*
 * Order of channels during encoding. In bf16 channel bit 0 is the register of a block and bits 1 to
 * 4 the lane; in fp16 bit 4 and bits 0 to 3. Call these bits r and a, b, c, d. After the transform
 * d is the register, lanes are b, r, a, c; packing to bytes gives 64 channels the order b, r, d,
 * channel bit 5, a, c (K) or, without the transform, a, b, r, channel bit 5, c, d (V).
 */
struct places {
	uint8_t r, a, b, c, d; /* bit numbers */
};

INLINE struct places places(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? (struct places){ 0, 1, 2, 3, 4 }
					  : (struct places){ 4, 0, 1, 2, 3 };
}

INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype, enum codec_tensor tensor)
{
	struct places p = places(dtype);
	unsigned int r = channel >> p.r & 1, a = channel >> p.a & 1, b = channel >> p.b & 1,
		     c = channel >> p.c & 1, d = channel >> p.d & 1;
	unsigned int high = channel >> 5 & 1;

	return channel / 64 * 64 +
		(tensor == CODEC_K ? b | r << 1 | d << 2 | high << 3 | a << 4 | c << 5
				   : a | b << 1 | r << 2 | high << 3 | c << 4 | d << 5);
}

/* Index of its coefficient after the transform. */
INLINE unsigned int coefficient_at(unsigned int channel, unsigned int dtype)
{
	struct places p = places(dtype);

	return channel / 32 * 32 +
		((channel >> p.d & 1) << 4 | (channel >> p.b & 1) | (channel >> p.r & 1) << 1 |
			(channel >> p.a & 1) << 2 | (channel >> p.c & 1) << 3);
}

/* Mask of the words of a block that belong to the token. */
INLINE __mmask32 words_of(unsigned int head_dim, unsigned int block)
{
	return 32 * (block + 1) <= head_dim ? 0xffffffffu : 0xffffu;
}

INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim)
{
	const __m512i magnitude = _mm512_set1_epi16(0x7fff);
	__m512i most = _mm512_setzero_si512();
	__m256i half;
	__m128i quarter;

#pragma GCC unroll 8
	for (unsigned int i = 0; i < BLOCKS(head_dim); i++) {
		__m512i words = _mm512_maskz_loadu_epi16(words_of(head_dim, i), raw + 64 * i);

		most = _mm512_max_epu16(most, _mm512_and_si512(words, magnitude));
	}
	half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
	quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
	/* phminposuw finds the least word, so search the complement. */
	quarter = _mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi32(-1)));
	return ~(uint32_t)_mm_cvtsi128_si32(quarter) & 0xffff;
}

INLINE __m512i integers(__m512 x, __m512 power)
{
	return _mm512_cvt_roundps_epi32(_mm512_mul_ps(x, power),
		_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Scale a block by a power of two and round to integers. */
INLINE void align(const uint8_t *raw, __mmask32 there, unsigned int dtype, __m512 power,
	__m512i *out)
{
	__m512i words = _mm512_maskz_loadu_epi16(there, raw);

	if (dtype == SPECKV_DTYPE_BF16) {
		out[0] = integers(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), power);
		out[1] = integers(_mm512_castsi512_ps(_mm512_and_si512(words,
					  _mm512_set1_epi32((int)0xffff0000))),
			power);
	} else {
		out[0] = integers(_mm512_cvtph_ps(_mm512_castsi512_si256(words)), power);
		out[1] = integers(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1)), power);
	}
}

/* 2^exponent, built from its bits. */
INLINE __m512 power_of_two(int exponent)
{
	return _mm512_castsi512_ps(_mm512_set1_epi32((127 + exponent) << 23));
}

/*
 * A butterfly on the bit that selects the register, after the exchange given by `low` and `high`.
 */
INLINE void butterfly(__m512i *a, __m512i *b, __m512i low, __m512i high, bool wanted)
{
	*a = wanted ? _mm512_add_epi32(low, high) : low;
	*b = wanted ? _mm512_sub_epi32(low, high) : high;
}

INLINE void rotate(__m512i *values, unsigned int head_dim, unsigned int dtype)
{
	const unsigned int slice_log2 = q4x_slice_log2(head_dim);
	const struct places p = places(dtype);

#pragma GCC unroll 8
	for (unsigned int i = 0; i < BLOCKS(head_dim); i++) {
		__m512i a = values[2 * i], b = values[2 * i + 1];

		butterfly(&a, &b, a, b, p.r < slice_log2);
		butterfly(&a, &b, _mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b),
			p.b < slice_log2);
		butterfly(&a, &b, _mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b),
			p.a < slice_log2);
		butterfly(&a, &b, _mm512_shuffle_i64x2(a, b, 0x88),
			_mm512_shuffle_i64x2(a, b, 0xdd), p.c < slice_log2);
		butterfly(&a, &b, _mm512_shuffle_i64x2(a, b, 0x88),
			_mm512_shuffle_i64x2(a, b, 0xdd), p.d < slice_log2);
		values[2 * i] = a;
		values[2 * i + 1] = b;
	}
#pragma GCC unroll 2
	for (unsigned int level = 5; level < 7; level++) {
		const unsigned int half = 1u << (level - 4);

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 2 * BLOCKS(head_dim); i++)
			if (level < slice_log2 && !(i & half))
				butterfly(&values[i], &values[i + half], values[i],
					values[i + half], true);
	}
}

INLINE bool take_mean(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, uint8_t *part)
{
	const __m512 power = power_of_two(-unit);
	/* head_dim of them are used */
	int32_t sums[CODEC_HEAD_DIM_MAX + 16] = { 0 }, mean[CODEC_HEAD_DIM_MAX] = { 0 };

	for (unsigned int i = 0; i < BLOCKS(head_dim); i++) {
		__m512i sum[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };
		int32_t lanes[32];

		for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
			__m512i values[2];

			align(raw + 2 * ((size_t)t * head_dim + 32 * i), words_of(head_dim, i),
				dtype, power, values);
			sum[0] = _mm512_add_epi32(sum[0], values[0]);
			sum[1] = _mm512_add_epi32(sum[1], values[1]);
		}
		_mm512_storeu_si512(lanes, sum[0]);
		_mm512_storeu_si512(lanes + 16, sum[1]);
		for (unsigned int k = 0; k < 32; k++)
			sums[32 * i + k] = dtype == SPECKV_DTYPE_BF16 ? lanes[k % 2 * 16 + k / 2]
								      : lanes[k];
	}
	if (!q4x_mean_encode(sums, head_dim, unit, part, mean))
		return false;
	memset(group->mean, 0, sizeof(group->mean));
	for (unsigned int c = 0; c < head_dim; c++)
		group->mean[coefficient_at(c, dtype)] = mean[c];
	return true;
}

INLINE void coefficients(struct token *token, const struct group *group, const uint8_t *raw,
	unsigned int head_dim, unsigned int dtype)
{
	const __m512 power = token->zero ? _mm512_setzero_ps() : power_of_two(-token->unit);
	__m512i values[WIDE_MAX], most = _mm512_setzero_si512(), least = most;

#pragma GCC unroll 8
	for (unsigned int i = 0; i < BLOCKS(head_dim); i++)
		align(raw + 64 * (size_t)i, words_of(head_dim, i), dtype, power, values + 2 * i);
	rotate(values, head_dim, dtype);
#pragma GCC unroll 16
	for (unsigned int i = 0; i < 2 * BLOCKS(head_dim); i++) {
		__m512i value =
			_mm512_sub_epi32(values[i], _mm512_load_si512(group->mean + 16 * i));

		most = _mm512_max_epi32(most, value);
		least = _mm512_min_epi32(least, value);
		token->values[i] = value;
	}
	token->top = _mm512_reduce_max_epi32(most);
	token->bottom = _mm512_reduce_min_epi32(least);
}

/*
 * Cells of 32 coefficients: magnitudes scaled and companded, mirrored by the sign; packing
 * saturates words to bytes.
 */
INLINE __m512i cells32(__m512i z, __m512i by)
{
	const __m512i knee = _mm512_set1_epi16(Q4X_KNEE);
	__m512i a = _mm512_mulhi_epi16(_mm512_abs_epi16(z), by);

	a = _mm512_min_epi16(a, _mm512_srli_epi16(_mm512_add_epi16(a, knee), 1));
	return _mm512_xor_si512(a, _mm512_srai_epi16(z, 15));
}

INLINE int divide(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, enum codec_tensor tensor, uint8_t *scale, uint8_t *cells)
{
	const __m512 power = token->zero ? _mm512_setzero_ps() : power_of_two(-token->unit);
	int32_t largest = token->top > -token->bottom ? token->top : -token->bottom;
	int down = tensor == CODEC_K ? 32 - __builtin_clz((uint32_t)largest | 1) - 14 : 0, code;
	__m512i half = _mm512_setzero_si512(), by, words[WIDE_MAX / 2];
	__m128i count = _mm_setzero_si128(), steps;
	unsigned int t;

	if (down > 0) {
		int32_t top = (token->top + (1 << (down - 1))) >> down,
			bottom = (token->bottom + (1 << (down - 1))) >> down;

		half = _mm512_set1_epi32(1 << (down - 1));
		count = _mm_cvtsi32_si128(down);
		largest = top > -bottom ? top : -bottom;
		token->unit += down;
	}
	if (tensor == CODEC_K)
		token->unit -= (int)q4x_slice_log2(head_dim);
#pragma GCC unroll 8
	for (unsigned int i = 0; i < BLOCKS(head_dim); i++) {
		__m512i pair[2];

		if (tensor == CODEC_K) {
			pair[0] = _mm512_sra_epi32(_mm512_add_epi32(token->values[2 * i], half),
				count);
			pair[1] = _mm512_sra_epi32(_mm512_add_epi32(token->values[2 * i + 1], half),
				count);
		} else {
			align(raw + 64 * (size_t)i, words_of(head_dim, i), dtype, power, pair);
		}
		words[i] = _mm512_packs_epi32(pair[0], pair[1]);
	}
	/* Count the half steps that are too small; the ninth never is. */
	steps = _mm_mullo_epi16(_mm_loadu_si128((const __m128i *)q4x_half_step),
		_mm_set1_epi16((int16_t)q4x_reach(tensor)));
	t = (unsigned int)__builtin_popcount(_mm_cmpgt_epi16_mask(_mm_set1_epi16((int16_t)largest),
		steps));
	code = 8 * token->unit + (int)t + Q4X_CODE;
	if (token->zero || !largest || code < 1)
		code = 0;
	if (code > 255)
		return -ENODATA;
	*scale = (uint8_t)code;
	by = _mm512_set1_epi16((int16_t)(q4x_reciprocal[t] << (tensor == CODEC_V)));
#pragma GCC unroll 4
	for (unsigned int i = 0; i < BLOCKS(head_dim); i += 2) {
		__m512i a = cells32(words[i], by),
			b = i + 1 < BLOCKS(head_dim) ? cells32(words[i + 1], by) : a;

		_mm512_store_si512(cells + 32 * i, _mm512_packs_epi16(a, b));
	}
	return 0;
}

INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor, uint8_t *codes)
{
	codec_q4x_codes_avx512(group->cells, order, head_dim, tensor, codes);
}

INLINE int encode_head(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *group)
{
	if (dtype == SPECKV_DTYPE_BF16)
		return tensor == CODEC_K
			? encode_tokens(raw, head_dim, SPECKV_DTYPE_BF16, CODEC_K, group)
			: encode_tokens(raw, head_dim, SPECKV_DTYPE_BF16, CODEC_V, group);
	return tensor == CODEC_K ? encode_tokens(raw, head_dim, SPECKV_DTYPE_FP16, CODEC_K, group)
				 : encode_tokens(raw, head_dim, SPECKV_DTYPE_FP16, CODEC_V, group);
}

int codec_q4x_encode_avx512(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *group)
{
	switch (head_dim) {
	case 64:
		return encode_head(raw, 64, dtype, tensor, group);
	case 80:
		return encode_head(raw, 80, dtype, tensor, group);
	case 96:
		return encode_head(raw, 96, dtype, tensor, group);
	case 128:
		return encode_head(raw, 128, dtype, tensor, group);
	case 192:
		return encode_head(raw, 192, dtype, tensor, group);
	default:
		return encode_head(raw, 256, dtype, tensor, group);
	}
}

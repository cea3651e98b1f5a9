// SPDX-License-Identifier: MIT
/*
 * Encoding of the fixed-rate modes with AVX-512 (VBMI). Defined by FORMAT.md section 5; qx.c is the
 * reference. The method is that of qx_encode_avx2.c; see there for comments missing here.
 */
#include <immintrin.h>

#include "qx_codes.h"

#define INLINE static inline __attribute__((always_inline))
typedef __m512i vector;

#include "qx_encode.h"

/*
 * Blocks of 32 channels, two registers of 32-bit integers each; for a head size of 80 the last one
 * is half empty.
 */
#define BLOCKS(head_dim) (((head_dim) + 31) / 32)
/* Values of a token of K in the group. */
#define WIDE(head_dim) (32 * BLOCKS(head_dim))

/*
 * Order of channels during encoding. In bf16 channel bit 0 is the register of a block and bits 1 to
 * 4 the lane; in fp16 bit 4 and bits 0 to 3. Call these bits r and a, b, c, d. After the transform
 * d is the register, lanes are b, r, a, c; packing to bytes gives 64 channels the order b, r, d,
 * channel bit 5, a, c.
 */
struct places {
	uint8_t r, a, b, c, d; /* bit numbers */
};

INLINE struct places places(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? (struct places){ 0, 1, 2, 3, 4 }
					  : (struct places){ 4, 0, 1, 2, 3 };
}

INLINE unsigned int value_at(unsigned int channel, unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16
		? channel / 32 * 32 + (channel & 1) * 16 + (channel & 31) / 2
		: channel;
}

INLINE unsigned int weight_at(unsigned int channel, unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16
		? channel
		: channel / 32 * 32 + (channel & 15) * 2 + (channel >> 4 & 1);
}

INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype)
{
	struct places p = places(dtype);
	unsigned int r = channel >> p.r & 1, a = channel >> p.a & 1, b = channel >> p.b & 1,
		     c = channel >> p.c & 1, d = channel >> p.d & 1;

	return channel / 64 * 64 +
		(b | r << 1 | d << 2 | (channel >> 5 & 1) << 3 | a << 4 | c << 5);
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

INLINE __m512i integers(__m512 x, __m512 power, __mmask16 negated)
{
	power = _mm512_mask_sub_ps(power, negated, _mm512_setzero_ps(), power);
	return _mm512_cvt_roundps_epi32(_mm512_mul_ps(x, power),
		_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Every other bit of 32. */
INLINE __mmask16 even_bits(uint32_t x)
{
	x &= 0x55555555;
	x = (x | x >> 1) & 0x33333333;
	x = (x | x >> 2) & 0x0f0f0f0f;
	x = (x | x >> 4) & 0x00ff00ff;
	return (__mmask16)(x | x >> 8);
}

/* Scale block number `i` of a token by a power of two, change signs and round to integers. */
INLINE void align(const uint8_t *raw, unsigned int head_dim, unsigned int i, unsigned int dtype,
	__m512 power, __m512i *out)
{
	uint32_t negated = (uint32_t)(qx_negated(head_dim) >> i % 2 * 32);
	__m512i words = _mm512_maskz_loadu_epi16(words_of(head_dim, i), raw);

	if (dtype == SPECKV_DTYPE_BF16) {
		out[0] = integers(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), power,
			even_bits(negated));
		out[1] = integers(_mm512_castsi512_ps(_mm512_and_si512(words,
					  _mm512_set1_epi32((int)0xffff0000))),
			power, even_bits(negated >> 1));
	} else {
		out[0] = integers(_mm512_cvtph_ps(_mm512_castsi512_si256(words)), power,
			(__mmask16)negated);
		out[1] = integers(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1)), power,
			(__mmask16)(negated >> 16));
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
	const unsigned int slice_log2 = qx_slice_log2(head_dim);
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

INLINE void sum_values(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, unsigned int first, int32_t *sums)
{
	const __m512 power = power_of_two(-unit);

	for (unsigned int i = 0; i < BLOCKS(head_dim); i++) {
		__m512i sum[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };

		for (unsigned int t = first; t < CODEC_GROUP_TOKENS; t++) {
			__m512i values[2];
			int32_t *to = group->values + WIDE(head_dim) * t + 32 * i;

			align(raw + 2 * ((size_t)t * head_dim + 32 * i), head_dim, i, dtype, power,
				values);
			_mm512_store_si512(to, values[0]);
			_mm512_store_si512(to + 16, values[1]);
			sum[0] = _mm512_add_epi32(sum[0], values[0]);
			sum[1] = _mm512_add_epi32(sum[1], values[1]);
		}
		_mm512_store_si512(sums + 32 * i, sum[0]);
		_mm512_store_si512(sums + 32 * i + 16, sum[1]);
	}
}

INLINE void sum_spread(const struct group *group, unsigned int head_dim, unsigned int first,
	int32_t *sums)
{
	for (unsigned int c = 0; c < WIDE(head_dim); c += 32) {
		__m512i base[2] = { _mm512_load_si512(group->base[0] + c),
			_mm512_load_si512(group->base[0] + c + 16) };
		__m512i sum[2] = { _mm512_setzero_si512(), _mm512_setzero_si512() };

		for (unsigned int t = first; t < CODEC_GROUP_TOKENS; t++)
			for (unsigned int i = 0; i < 2; i++) {
				__m512i off = _mm512_load_si512(group->values + WIDE(head_dim) * t +
					c + 16 * i);

				off = _mm512_abs_epi32(_mm512_sub_epi32(off, base[i]));
				sum[i] = _mm512_add_epi32(sum[i], off);
			}
		_mm512_store_si512(sums + c, sum[0]);
		_mm512_store_si512(sums + c + 16, sum[1]);
	}
}

INLINE int32_t alike(const struct group *group, unsigned int head_dim, unsigned int token)
{
	const int32_t *values = group->values + WIDE(head_dim) * token;
	__m512i sum = _mm512_setzero_si512();

	/* Less six bits, values are words. */
#pragma GCC unroll 8
	for (unsigned int c = 0; c < WIDE(head_dim); c += 32) {
		__m512i a = _mm512_srli_epi32(_mm512_load_si512(values + c), 6);
		__m512i b = _mm512_slli_epi32(_mm512_load_si512(values + c + 16), 10);

		sum = _mm512_add_epi32(sum,
			_mm512_madd_epi16(_mm512_mask_blend_epi16(0xaaaaaaaa, a, b),
				_mm512_load_si512(group->weights + c)));
	}
	return _mm512_reduce_add_epi32(sum);
}

/* Transform a token's values, and find the largest and the smallest. */
INLINE void transform(struct token *token, __m512i *values, unsigned int head_dim,
	unsigned int dtype)
{
	__m512i most = _mm512_setzero_si512(), least = most;

	rotate(values, head_dim, dtype);
#pragma GCC unroll 16
	for (unsigned int i = 0; i < 2 * BLOCKS(head_dim); i++) {
		most = _mm512_max_epi32(most, values[i]);
		least = _mm512_min_epi32(least, values[i]);
		token->values[i] = values[i];
	}
	token->top = _mm512_reduce_max_epi32(most);
	token->bottom = _mm512_reduce_min_epi32(least);
}

INLINE void coefficients_k(struct token *token, const struct group *group, unsigned int head_dim,
	unsigned int dtype, unsigned int number)
{
	const int32_t *from = group->values + WIDE(head_dim) * number,
		      *base = group->base[token->alone];
	__m512i values[WIDE_MAX];

#pragma GCC unroll 16
	for (unsigned int i = 0; i < 2 * BLOCKS(head_dim); i++)
		values[i] = _mm512_sllv_epi32(_mm512_sub_epi32(_mm512_load_si512(from + 16 * i),
						      _mm512_load_si512(base + 16 * i)),
			_mm512_load_si512(group->up + 16 * i));
	transform(token, values, head_dim, dtype);
}

INLINE void coefficients_v(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype)
{
	const __m512 power = token->zero ? _mm512_setzero_ps() : power_of_two(-token->unit);
	__m512i values[WIDE_MAX];

#pragma GCC unroll 8
	for (unsigned int i = 0; i < BLOCKS(head_dim); i++)
		align(raw + 64 * (size_t)i, head_dim, i, dtype, power, values + 2 * i);
	transform(token, values, head_dim, dtype);
}

/* How coefficients become cells. */
struct divisor {
	__m512i half, by;
	__m128i down, down_after;
};

/*
 * Cells of 32 coefficients: magnitudes scaled and companded, mirrored by the sign; packing
 * saturates words to bytes. Magnitudes may be 2^15.
 */
INLINE __m512i cells32(const __m512i *values, const struct divisor *divisor)
{
	const __m512i knee = _mm512_set1_epi16(QX_KNEE);
	__m512i a = _mm512_sra_epi32(_mm512_add_epi32(values[0], divisor->half), divisor->down),
		b = _mm512_sra_epi32(_mm512_add_epi32(values[1], divisor->half), divisor->down),
		sign = _mm512_srai_epi16(_mm512_packs_epi32(a, b), 15);

	a = _mm512_packus_epi32(_mm512_abs_epi32(a), _mm512_abs_epi32(b));
	a = _mm512_srl_epi16(_mm512_mulhi_epu16(a, divisor->by), divisor->down_after);
	a = _mm512_min_epi16(a, _mm512_srli_epi16(_mm512_add_epi16(a, knee), 1));
	return _mm512_xor_si512(a, sign);
}

/* The number of half steps too small for `largest`; the last one never is. */
INLINE unsigned int steps_below(int32_t largest, unsigned int bits)
{
	const __m256i reach = _mm256_set1_epi16((int16_t)qx_reach(bits));
	__m256i steps =
		_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)qx_half_step));

	steps = _mm256_inserti128_si256(steps, _mm_cvtsi32_si128(qx_half_step[8]), 1);
	return (unsigned int)__builtin_popcount(0x1ff &
		_mm256_cmplt_epu16_mask(_mm256_mullo_epi16(steps, reach),
			_mm256_set1_epi16((int16_t)largest)));
}

INLINE int divide(struct token *token, unsigned int head_dim, unsigned int bits,
	enum codec_tensor tensor, uint8_t *scale, uint8_t *cells)
{
	int32_t largest = token->top > -token->bottom ? token->top : -token->bottom;
	int down = 32 - __builtin_clz((uint32_t)largest | 1) - qx_integer_bits(bits), code;
	struct divisor divisor = { _mm512_setzero_si512(), _mm512_setzero_si512(),
		_mm_setzero_si128(), _mm_cvtsi32_si128(bits == 5) };
	unsigned int t;

	if (down > 0) {
		int32_t top = (token->top + (1 << (down - 1))) >> down,
			bottom = (token->bottom + (1 << (down - 1))) >> down;

		divisor.half = _mm512_set1_epi32(1 << (down - 1));
		divisor.down = _mm_cvtsi32_si128(down);
		largest = top > -bottom ? top : -bottom;
		token->unit += down;
	}
	t = steps_below(largest, bits);
	code = 8 * (token->unit - (int)qx_slice_log2(head_dim)) + (int)t +
		(tensor == CODEC_K ? QX_CODE_K : QX_CODE_V);
	if (!largest || code < 1)
		code = 0;
	if (code > (tensor == CODEC_K ? QX_ALONE - 1 : UINT8_MAX))
		return -ENODATA;
	*scale = (uint8_t)code;
	divisor.by = _mm512_set1_epi16((int16_t)(qx_reciprocal[t] << (bits == 3)));
#pragma GCC unroll 4
	for (unsigned int i = 0; i < BLOCKS(head_dim); i += 2) {
		__m512i a = cells32(token->values + 2 * i, &divisor),
			b = i + 1 < BLOCKS(head_dim) ? cells32(token->values + 2 * i + 2, &divisor)
						     : a;

		_mm512_store_si512(cells + 32 * i, _mm512_packs_epi16(a, b));
	}
	return 0;
}

INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	unsigned int bits, uint8_t *codes)
{
	codec_qx_codes_avx512(group->cells, order, head_dim, bits, codes);
}

INLINE int encode_head(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	unsigned int bits, enum codec_tensor tensor, unsigned int sinks, uint8_t *group)
{
	if (dtype == SPECKV_DTYPE_BF16)
		return tensor == CODEC_K ? encode_tokens(raw, head_dim, SPECKV_DTYPE_BF16, bits,
						   CODEC_K, sinks, group)
					 : encode_tokens(raw, head_dim, SPECKV_DTYPE_BF16, bits,
						   CODEC_V, sinks, group);
	return tensor == CODEC_K
		? encode_tokens(raw, head_dim, SPECKV_DTYPE_FP16, bits, CODEC_K, sinks, group)
		: encode_tokens(raw, head_dim, SPECKV_DTYPE_FP16, bits, CODEC_V, sinks, group);
}

CODEC_QX_ENCODE(avx512)
{
	switch (head_dim) {
	case 64:
		return encode_head(raw, 64, dtype, bits, tensor, sinks, group);
	case 80:
		return encode_head(raw, 80, dtype, bits, tensor, sinks, group);
	case 96:
		return encode_head(raw, 96, dtype, bits, tensor, sinks, group);
	case 128:
		return encode_head(raw, 128, dtype, bits, tensor, sinks, group);
	case 192:
		return encode_head(raw, 192, dtype, bits, tensor, sinks, group);
	default:
		return encode_head(raw, 256, dtype, bits, tensor, sinks, group);
	}
}

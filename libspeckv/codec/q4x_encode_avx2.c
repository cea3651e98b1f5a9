// SPDX-License-Identifier: MIT
/*
 * Encoding of mode q4x with AVX2 (F16C). Defined by FORMAT.md section 5; q4x.c is the reference.
 *
 * In two phases. Token by token, values are converted to coefficients and these to cells, a byte
 * each. The second phase, cells to codes, is in q4x_codes_avx2.c.
 */
#include "q4x_avx2.h"
#include "q4x_codes.h"

typedef __m256i vector;

#include "q4x_encode.h"

/*
 * Order of channels during encoding. 16 values are two registers of 32-bit integers: in bf16 even
 * and odd channels, so that channel bit 0 is the register and bits 1, 2, 3 the lane; in fp16 the
 * two halves, by bit 3 and bits 0, 1, 2. Call these bits r and a, b, c. After the transform c is
 * the register, lanes are b, r, a; packing to bytes gives 32 channels the order b, r, c, channel
 * bit 4, a (K) or, without the transform, a, b, r, channel bit 4, c (V).
 */
struct places {
	uint8_t r, a, b, c; /* bit numbers */
};

INLINE struct places places(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? (struct places){ 0, 1, 2, 3 }
					  : (struct places){ 3, 0, 1, 2 };
}

INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype, enum codec_tensor tensor)
{
	struct places p = places(dtype);
	unsigned int r = channel >> p.r & 1, a = channel >> p.a & 1, b = channel >> p.b & 1,
		     c = channel >> p.c & 1, high = channel >> 4 & 1;

	return channel / 32 * 32 +
		(tensor == CODEC_K ? b | r << 1 | c << 2 | high << 3 | a << 4
				   : a | b << 1 | r << 2 | high << 3 | c << 4);
}

/* Index of its coefficient after the transform. */
INLINE unsigned int coefficient_at(unsigned int channel, unsigned int dtype)
{
	struct places p = places(dtype);

	return channel / 16 * 16 +
		((channel >> p.c & 1) << 3 | (channel >> p.b & 1) | (channel >> p.r & 1) << 1 |
			(channel >> p.a & 1) << 2);
}

INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim)
{
	__m256i most = _mm256_setzero_si256();
	__m128i half;

	for (unsigned int c = 0; c < head_dim; c += 16)
		most = _mm256_max_epu16(most,
			_mm256_and_si256(_mm256_loadu_si256((const __m256i *)(raw + 2 * c)),
				_mm256_set1_epi16(0x7fff)));
	half = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
	/* phminposuw finds the least word, so search the complement. */
	half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi32(-1)));
	return ~(uint32_t)_mm_cvtsi128_si32(half) & 0xffff;
}

/* Scale 16 values by a power of two and round to integers. */
INLINE void align(const uint8_t *raw, unsigned int dtype, __m256 power, __m256i *out)
{
	__m256i words = _mm256_loadu_si256((const __m256i *)raw);
	__m256 a, b;

	if (dtype == SPECKV_DTYPE_BF16) {
		a = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
		b = _mm256_castsi256_ps(_mm256_and_si256(words,
			_mm256_set1_epi32((int)0xffff0000)));
	} else {
		a = _mm256_cvtph_ps(_mm256_castsi256_si128(words));
		b = _mm256_cvtph_ps(_mm256_extracti128_si256(words, 1));
	}
	out[0] = _mm256_cvtps_epi32(_mm256_mul_ps(a, power));
	out[1] = _mm256_cvtps_epi32(_mm256_mul_ps(b, power));
}

/* 2^exponent, built from its bits. */
INLINE __m256 power_of_two(int exponent)
{
	return _mm256_castsi256_ps(_mm256_set1_epi32((127 + exponent) << 23));
}

/*
 * A butterfly on one lane bit of two registers, given its halves; the register takes the place of
 * the lane bit.
 */
INLINE void exchange(__m256i *a, __m256i *b, __m256i low, __m256i high)
{
	*a = _mm256_add_epi32(low, high);
	*b = _mm256_sub_epi32(low, high);
}

/* Registers transformed in one block: half of the 16 available, or fewer for a smaller slice. */
INLINE unsigned int block_size(unsigned int head_dim)
{
	return q4x_slice_log2(head_dim) < 6 ? (1u << q4x_slice_log2(head_dim)) / 8 : 8;
}

/* All but the last level of a slice of 128 channels. */
INLINE void rotate_block(__m256i *values, unsigned int count)
{
	for (unsigned int half = 1; half < count; half *= 2)
		for (unsigned int i = 0; i < count; i++)
			if (!(i & half)) {
				__m256i a = values[i], b = values[i + half];

				values[i] = _mm256_add_epi32(a, b);
				values[i + half] = _mm256_sub_epi32(a, b);
			}
	for (unsigned int i = 0; i < count; i += 2) {
		__m256i a = values[i], b = values[i + 1];

		exchange(&a, &b, _mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
		exchange(&a, &b, _mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
		exchange(&a, &b, _mm256_permute2x128_si256(a, b, 0x20),
			_mm256_permute2x128_si256(a, b, 0x31));
		values[i] = a;
		values[i + 1] = b;
	}
}

INLINE int32_t largest_of(__m256i x)
{
	__m128i half = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));

	half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
	half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
	return _mm_cvtsi128_si32(half);
}

INLINE bool take_mean(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, uint8_t *part)
{
	const __m256 power = power_of_two(-unit);
	/* head_dim of them are used */
	int32_t sums[CODEC_HEAD_DIM_MAX] = { 0 }, mean[CODEC_HEAD_DIM_MAX] = { 0 };

	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i sum[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };
		int32_t lanes[16];

		for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
			__m256i values[2];

			align(raw + 2 * ((size_t)t * head_dim + c), dtype, power, values);
			sum[0] = _mm256_add_epi32(sum[0], values[0]);
			sum[1] = _mm256_add_epi32(sum[1], values[1]);
		}
		_mm256_storeu_si256((__m256i *)lanes, sum[0]);
		_mm256_storeu_si256((__m256i *)(lanes + 8), sum[1]);
		for (unsigned int i = 0; i < 16; i++)
			sums[c + i] = dtype == SPECKV_DTYPE_BF16 ? lanes[i % 2 * 8 + i / 2]
								 : lanes[i];
	}
	if (!q4x_mean_encode(sums, head_dim, unit, part, mean))
		return false;
	for (unsigned int c = 0; c < head_dim; c++)
		group->mean[coefficient_at(c, dtype)] = mean[c];
	return true;
}

/* Store one register of coefficients, less the mean. */
INLINE void put(struct token *token, const struct group *group, unsigned int i, __m256i value,
	__m256i *most, __m256i *least)
{
	value = _mm256_sub_epi32(value, _mm256_load_si256((const __m256i *)(group->mean + 8 * i)));
	*most = _mm256_max_epi32(*most, value);
	*least = _mm256_min_epi32(*least, value);
	token->values[i] = value;
}

INLINE void coefficients(struct token *token, const struct group *group, const uint8_t *raw,
	unsigned int head_dim, unsigned int dtype)
{
	const unsigned int size = block_size(head_dim),
			   span = q4x_slice_log2(head_dim) > 6 ? 16 : size;
	const __m256 power = token->zero ? _mm256_setzero_ps() : power_of_two(-token->unit);
	__m256i most = _mm256_setzero_si256(), least = most;

	for (unsigned int first = 0; first < head_dim / 8; first += span) {
		__m256i values[16];

		for (unsigned int block = 0; block < span; block += size) {
			for (unsigned int i = 0; i < size; i += 2)
				align(raw + 16 * (size_t)(first + block + i), dtype, power,
					values + block + i);
			rotate_block(values + block, size);
		}
		for (unsigned int i = 0; i < size; i++)
			if (span > size) {
				put(token, group, first + i,
					_mm256_add_epi32(values[i], values[size + i]), &most,
					&least);
				put(token, group, first + size + i,
					_mm256_sub_epi32(values[i], values[size + i]), &most,
					&least);
			} else {
				put(token, group, first + i, values[i], &most, &least);
			}
	}
	token->top = largest_of(most);
	token->bottom = -largest_of(_mm256_sub_epi32(_mm256_setzero_si256(), least));
}

/*
 * Cells of 16 coefficients: magnitudes scaled and companded, mirrored by the sign; packing
 * saturates words to bytes.
 */
INLINE __m256i cells16(__m256i z, __m256i by)
{
	const __m256i knee = _mm256_set1_epi16(Q4X_KNEE);
	__m256i a = _mm256_mulhi_epi16(_mm256_abs_epi16(z), by);

	a = _mm256_min_epi16(a, _mm256_srli_epi16(_mm256_add_epi16(a, knee), 1));
	return _mm256_xor_si256(a, _mm256_srai_epi16(z, 15));
}

INLINE int divide(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, enum codec_tensor tensor, uint8_t *scale, uint8_t *cells)
{
	const __m256 power = token->zero ? _mm256_setzero_ps() : power_of_two(-token->unit);
	int32_t largest = token->top > -token->bottom ? token->top : -token->bottom;
	int down = tensor == CODEC_K ? 32 - __builtin_clz((uint32_t)largest | 1) - 14 : 0, code;
	__m256i half = _mm256_setzero_si256(), by, words[WIDE_MAX / 2];
	__m128i count = _mm_setzero_si128(), steps;
	unsigned int t;

	if (down > 0) {
		int32_t top = (token->top + (1 << (down - 1))) >> down,
			bottom = (token->bottom + (1 << (down - 1))) >> down;

		half = _mm256_set1_epi32(1 << (down - 1));
		count = _mm_cvtsi32_si128(down);
		largest = top > -bottom ? top : -bottom;
		token->unit += down;
	}
	if (tensor == CODEC_K)
		token->unit -= (int)q4x_slice_log2(head_dim);
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		__m256i pair[2];

		if (tensor == CODEC_K) {
			pair[0] = _mm256_sra_epi32(_mm256_add_epi32(token->values[2 * i], half),
				count);
			pair[1] = _mm256_sra_epi32(_mm256_add_epi32(token->values[2 * i + 1], half),
				count);
		} else {
			align(raw + 32 * (size_t)i, dtype, power, pair);
		}
		words[i] = _mm256_packs_epi32(pair[0], pair[1]);
	}
	/* Count the half steps that are too small; the ninth never is. */
	steps = _mm_mullo_epi16(_mm_loadu_si128((const __m128i *)q4x_half_step),
		_mm_set1_epi16((int16_t)q4x_reach(tensor)));
	steps = _mm_cmpgt_epi16(_mm_set1_epi16((int16_t)largest), steps);
	t = (unsigned int)__builtin_popcount((unsigned int)_mm_movemask_epi8(steps)) / 2;
	code = 8 * token->unit + (int)t + Q4X_CODE;
	if (token->zero || !largest || code < 1)
		code = 0;
	if (code > 255)
		return -ENODATA;
	*scale = (uint8_t)code;
	by = _mm256_set1_epi16((int16_t)(q4x_reciprocal[t] << (tensor == CODEC_V)));
	for (unsigned int i = 0; i < head_dim / 16; i += 2) {
		__m256i a = cells16(words[i], by),
			b = i + 1 < head_dim / 16 ? cells16(words[i + 1], by) : a;

		_mm256_store_si256((__m256i *)(cells + 16 * i), _mm256_packs_epi16(a, b));
	}
	return 0;
}

INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor, uint8_t *codes)
{
	codec_q4x_codes_avx2(group->cells, order, head_dim, tensor, codes);
}

INLINE int encode(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *group)
{
	unsigned int mode = round_to_nearest();
	int rc = encode_tokens(raw, head_dim, dtype, tensor, group);

	_mm_setcsr(mode);
	return rc;
}

#define ENCODE(size, dtype, tensor) return encode(raw, size, dtype, tensor, group)

int codec_q4x_encode_avx2(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *group)
{
	if (tensor == CODEC_K && dtype == SPECKV_DTYPE_BF16)
		FOR_HEAD_SIZE(head_dim, ENCODE, SPECKV_DTYPE_BF16, CODEC_K);
	else if (tensor == CODEC_K)
		FOR_HEAD_SIZE(head_dim, ENCODE, SPECKV_DTYPE_FP16, CODEC_K);
	else if (dtype == SPECKV_DTYPE_BF16)
		FOR_HEAD_SIZE(head_dim, ENCODE, SPECKV_DTYPE_BF16, CODEC_V);
	else
		FOR_HEAD_SIZE(head_dim, ENCODE, SPECKV_DTYPE_FP16, CODEC_V);
}

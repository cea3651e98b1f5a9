// SPDX-License-Identifier: MIT
/*
 * Encoding of the fixed-rate modes with AVX2 (F16C). Defined by FORMAT.md section 5; qx.c is the
 * reference.
 *
 * In two phases. Token by token, values are converted to coefficients and these to cells, a byte
 * each. The second phase, cells to codes, is in qx_codes_avx2.c.
 */
#include "qx_avx2.h"
#include "qx_codes.h"

typedef __m256i vector;

#include "qx_encode.h"

/*
 * Order of channels during encoding. 16 values are two registers of 32-bit integers: in bf16 even
 * and odd channels, so that channel bit 0 is the register and bits 1, 2, 3 the lane; in fp16 the
 * two halves, by bit 3 and bits 0, 1, 2. Call these bits r and a, b, c. After the transform c is
 * the register, lanes are b, r, a; packing to bytes gives 32 channels the order b, r, c, channel
 * bit 4, a.
 */
struct places {
	uint8_t r, a, b, c; /* bit numbers */
};

INLINE struct places places(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? (struct places){ 0, 1, 2, 3 }
					  : (struct places){ 3, 0, 1, 2 };
}

INLINE unsigned int cell_at(unsigned int channel, unsigned int dtype)
{
	struct places p = places(dtype);
	unsigned int r = channel >> p.r & 1, a = channel >> p.a & 1, b = channel >> p.b & 1,
		     c = channel >> p.c & 1, high = channel >> 4 & 1;

	return channel / 32 * 32 + (b | r << 1 | c << 2 | high << 3 | a << 4);
}

INLINE unsigned int value_at(unsigned int channel, unsigned int dtype)
{
	struct places p = places(dtype);
	unsigned int r = channel >> p.r & 1, a = channel >> p.a & 1, b = channel >> p.b & 1,
		     c = channel >> p.c & 1;

	return channel / 16 * 16 + (a | b << 1 | c << 2 | r << 3);
}

/* The two registers interleaved. */
INLINE unsigned int weight_at(unsigned int channel, unsigned int dtype)
{
	unsigned int at = value_at(channel, dtype);

	return at / 16 * 16 + (at % 8 * 2 | (at >> 3 & 1));
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

/* Scale 16 values, from `channel` on, by a power of two, change signs and round to integers. */
INLINE void align(const uint8_t *raw, unsigned int head_dim, unsigned int channel,
	unsigned int dtype, __m256 power, __m256i *out)
{
	__m256 first = _mm256_xor_ps(power,
		       _mm256_castsi256_ps(negated_bits(head_dim, channel, 0, dtype))),
	       second = _mm256_xor_ps(power,
		       _mm256_castsi256_ps(negated_bits(head_dim, channel, 1, dtype)));
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
	out[0] = _mm256_cvtps_epi32(_mm256_mul_ps(a, first));
	out[1] = _mm256_cvtps_epi32(_mm256_mul_ps(b, second));
}

/* 2^exponent, built from its bits. */
INLINE __m256 power_of_two(int exponent)
{
	return _mm256_castsi256_ps(_mm256_set1_epi32((127 + exponent) << 23));
}

INLINE __m256i load(const void *from)
{
	return _mm256_load_si256((const __m256i *)from);
}

INLINE void store(void *to, __m256i value)
{
	_mm256_store_si256((__m256i *)to, value);
}

/* Registers of sums that are kept while a column of tokens is read: one line of values. */
#define COLUMN(head_dim) ((head_dim) % 32 ? 2 : 4)

INLINE void sum_values(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, int unit, unsigned int first, int32_t *sums)
{
	const __m256 power = power_of_two(-unit);

	for (unsigned int c = 0; c < head_dim; c += 8 * COLUMN(head_dim)) {
		__m256i sum[4] = { _mm256_setzero_si256(), _mm256_setzero_si256(),
			_mm256_setzero_si256(), _mm256_setzero_si256() };

		for (unsigned int t = first; t < CODEC_GROUP_TOKENS; t++)
			for (unsigned int i = 0; i < COLUMN(head_dim); i += 2) {
				size_t at = (size_t)t * head_dim + c + 8 * i;
				__m256i values[2];

				align(raw + 2 * at, head_dim, c + 8 * i, dtype, power, values);
				store(group->values + at, values[0]);
				store(group->values + at + 8, values[1]);
				sum[i] = _mm256_add_epi32(sum[i], values[0]);
				sum[i + 1] = _mm256_add_epi32(sum[i + 1], values[1]);
			}
		for (unsigned int i = 0; i < COLUMN(head_dim); i++)
			store(sums + c + 8 * i, sum[i]);
	}
}

INLINE void sum_spread(const struct group *group, unsigned int head_dim, unsigned int first,
	int32_t *sums)
{
	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i base[2] = { load(group->base[0] + c), load(group->base[0] + c + 8) },
			sum[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

		for (unsigned int t = first; t < CODEC_GROUP_TOKENS; t++)
			for (unsigned int i = 0; i < 2; i++) {
				__m256i off =
					load(group->values + (size_t)t * head_dim + c + 8 * i);

				off = _mm256_abs_epi32(_mm256_sub_epi32(off, base[i]));
				sum[i] = _mm256_add_epi32(sum[i], off);
			}
		store(sums + c, sum[0]);
		store(sums + c + 8, sum[1]);
	}
}

INLINE int32_t sum_of(__m256i x)
{
	__m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));

	half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
	half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
	return _mm_cvtsi128_si32(half);
}

INLINE int32_t alike(const struct group *group, unsigned int head_dim, unsigned int token)
{
	const int32_t *values = group->values + (size_t)token * head_dim;
	__m256i sum = _mm256_setzero_si256();

	/* Less six bits, values are words. */
	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i a = _mm256_srli_epi32(load(values + c), 6),
			b = _mm256_slli_epi32(load(values + c + 8), 10);

		sum = _mm256_add_epi32(sum,
			_mm256_madd_epi16(_mm256_blend_epi16(a, b, 0xaa),
				load(group->weights + c)));
	}
	return sum_of(sum);
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
	return qx_slice_log2(head_dim) < 6 ? (1u << qx_slice_log2(head_dim)) / 8 : 8;
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

/* Largest and smallest of a token's coefficients. */
struct extremes {
	__m256i most, least;
};

INLINE void put(struct token *token, unsigned int i, __m256i value, struct extremes *extremes)
{
	extremes->most = _mm256_max_epi32(extremes->most, value);
	extremes->least = _mm256_min_epi32(extremes->least, value);
	token->values[i] = value;
}

/* The integers of 16 channels that are transformed. */
INLINE void take_k(const struct group *group, const int32_t *values, bool alone, unsigned int c,
	__m256i *out)
{
	for (unsigned int i = 0; i < 2; i++, c += 8)
		out[i] = _mm256_sllv_epi32(_mm256_sub_epi32(load(values + c),
						   load(group->base[alone] + c)),
			load(group->up + c));
}

/* Of K with a group, otherwise of V. */
INLINE void coefficients(struct token *token, const struct group *group, const int32_t *integers,
	const uint8_t *raw, unsigned int head_dim, unsigned int dtype)
{
	const unsigned int size = block_size(head_dim),
			   span = qx_slice_log2(head_dim) > 6 ? 16 : size;
	const __m256 power = !group && !token->zero ? power_of_two(-token->unit)
						    : _mm256_setzero_ps();
	struct extremes extremes = { _mm256_setzero_si256(), _mm256_setzero_si256() };

	for (unsigned int first = 0; first < head_dim / 8; first += span) {
		__m256i values[16];

		for (unsigned int block = 0; block < span; block += size) {
			for (unsigned int i = 0; i < size; i += 2)
				if (group)
					take_k(group, integers, token->alone,
						8 * (first + block + i), values + block + i);
				else
					align(raw + 16 * (size_t)(first + block + i), head_dim,
						8 * (first + block + i), dtype, power,
						values + block + i);
			rotate_block(values + block, size);
		}
		for (unsigned int i = 0; i < size; i++)
			if (span > size) {
				put(token, first + i, _mm256_add_epi32(values[i], values[size + i]),
					&extremes);
				put(token, first + size + i,
					_mm256_sub_epi32(values[i], values[size + i]), &extremes);
			} else {
				put(token, first + i, values[i], &extremes);
			}
	}
	token->top = largest_of(extremes.most);
	token->bottom = -largest_of(_mm256_sub_epi32(_mm256_setzero_si256(), extremes.least));
}

INLINE void coefficients_k(struct token *token, const struct group *group, unsigned int head_dim,
	unsigned int dtype, unsigned int number)
{
	(void)dtype;
	coefficients(token, group, group->values + (size_t)number * head_dim, NULL, head_dim, 0);
}

INLINE void coefficients_v(struct token *token, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype)
{
	coefficients(token, NULL, NULL, raw, head_dim, dtype);
}

/* How coefficients become cells. */
struct divisor {
	__m256i half, by;
	__m128i down, down_after;
};

/*
 * Cells of 16 coefficients: magnitudes scaled and companded, mirrored by the sign; packing
 * saturates words to bytes. Magnitudes may be 2^15.
 */
INLINE __m256i cells16(const __m256i *values, const struct divisor *divisor)
{
	const __m256i knee = _mm256_set1_epi16(QX_KNEE);
	__m256i a = _mm256_sra_epi32(_mm256_add_epi32(values[0], divisor->half), divisor->down),
		b = _mm256_sra_epi32(_mm256_add_epi32(values[1], divisor->half), divisor->down),
		sign = _mm256_srai_epi16(_mm256_packs_epi32(a, b), 15);

	a = _mm256_packus_epi32(_mm256_abs_epi32(a), _mm256_abs_epi32(b));
	a = _mm256_srl_epi16(_mm256_mulhi_epu16(a, divisor->by), divisor->down_after);
	a = _mm256_min_epi16(a, _mm256_srli_epi16(_mm256_add_epi16(a, knee), 1));
	return _mm256_xor_si256(a, sign);
}

/* The number of the least half step by which no coefficient is beyond the last cell. */
INLINE unsigned int step_for(int32_t largest, unsigned int bits)
{
	__m128i steps = _mm_mullo_epi16(_mm_loadu_si128((const __m128i *)qx_half_step),
		_mm_set1_epi16((int16_t)qx_reach(bits)));

	/* Count those that are too small; the tenth never is. */
	largest = largest < INT16_MAX ? largest : INT16_MAX;
	steps = _mm_cmpgt_epi16(_mm_set1_epi16((int16_t)largest), steps);
	return (unsigned int)__builtin_popcount((unsigned int)_mm_movemask_epi8(steps)) / 2 +
		(largest > qx_half_step[8] * qx_reach(bits));
}

INLINE int divide(struct token *token, unsigned int head_dim, unsigned int bits,
	enum codec_tensor tensor, uint8_t *scale, uint8_t *cells)
{
	int32_t largest = token->top > -token->bottom ? token->top : -token->bottom;
	int down = 32 - __builtin_clz((uint32_t)largest | 1) - qx_integer_bits(bits), code;
	struct divisor divisor = { _mm256_setzero_si256(), _mm256_setzero_si256(),
		_mm_setzero_si128(), _mm_cvtsi32_si128(bits == 5) };
	unsigned int t;

	if (down > 0) {
		int32_t top = (token->top + (1 << (down - 1))) >> down,
			bottom = (token->bottom + (1 << (down - 1))) >> down;

		divisor.half = _mm256_set1_epi32(1 << (down - 1));
		divisor.down = _mm_cvtsi32_si128(down);
		largest = top > -bottom ? top : -bottom;
		token->unit += down;
	}
	t = step_for(largest, bits);
	code = 8 * (token->unit - (int)qx_slice_log2(head_dim)) + (int)t +
		(tensor == CODEC_K ? QX_CODE_K : QX_CODE_V);
	if (!largest || code < 1)
		code = 0;
	if (code > (tensor == CODEC_K ? QX_ALONE - 1 : UINT8_MAX))
		return -ENODATA;
	*scale = (uint8_t)code;
	divisor.by = _mm256_set1_epi16((int16_t)(qx_reciprocal[t] << (bits == 3)));
	for (unsigned int i = 0; i < head_dim / 8; i += 4) {
		__m256i a = cells16(token->values + i, &divisor), b = a;

		if (i + 2 < head_dim / 8)
			b = cells16(token->values + i + 2, &divisor);
		store(cells + 8 * i, _mm256_packs_epi16(a, b));
	}
	return 0;
}

INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	unsigned int bits, uint8_t *codes)
{
	codec_qx_codes_avx2(group->cells, order, head_dim, bits, codes);
}

INLINE int encode(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, unsigned int bits,
	enum codec_tensor tensor, unsigned int sinks, uint8_t *group)
{
	unsigned int mode = round_to_nearest();
	int rc = encode_tokens(raw, head_dim, dtype, bits, tensor, sinks, group);

	_mm_setcsr(mode);
	return rc;
}

/* The rate is not a constant: little depends on it before the trellis. */
#define ENCODE(size, dtype, tensor) return encode(raw, size, dtype, bits, tensor, sinks, group)

CODEC_QX_ENCODE(avx2)
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

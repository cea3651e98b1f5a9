// SPDX-License-Identifier: MIT
/*
 * Mode q4x with AVX2 (and F16C); FORMAT.md section 5 is the definition, q4x.c the reference, q4x_avx512.c says where floats are exact.
 */
#include <errno.h>
#include <immintrin.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

#define INLINE static inline __attribute__((always_inline))

/* Beyond these a token is zero, or refused, whatever the rest. */
#define EXPONENT_MAX 60

/* The thread's mode may round otherwise; ours is to nearest, ties to even. */
INLINE unsigned int round_to_nearest(void)
{
	unsigned int before = _mm_getcsr();

	_mm_setcsr(before & ~(unsigned int)_MM_ROUND_MASK);
	return before;
}

/* ---- encode ------------------------------------------------------------------------------------------------------- */

INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim)
{
	__m256i most = _mm256_setzero_si256();
	__m128i half;

	for (unsigned int c = 0; c < head_dim; c += 16)
		most = _mm256_max_epu16(most, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(raw + 2 * c)), _mm256_set1_epi16(0x7fff)));
	half = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
	half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi32(-1)));
	return ~(uint32_t)_mm_cvtsi128_si32(half) & 0xffff;
}

#define WIDE_MAX (CODEC_HEAD_DIM_MAX / 8)
#define NARROW_MAX (CODEC_HEAD_DIM_MAX / 16)

/* A butterfly of one lane bit with two registers at once, whose halves are given: which of the two takes the bit's place. */
INLINE void exchange(__m256i *a, __m256i *b, __m256i low, __m256i high)
{
	*a = _mm256_add_epi32(low, high);
	*b = _mm256_sub_epi32(low, high);
}

/*
 * Channel bits 3 and up register by register, in natural order; then bits 1, 0, 2, each of which changes places. In the end the registers
 * of a pair differ in channel bit 2, their lanes' bits 0, 1, 2 are channel bits 1, 3, 0.
 */
INLINE void rotate32(__m256i *values, unsigned int head_dim, unsigned int slice)
{
	for (unsigned int half = 1; 8 * half < slice; half *= 2)
		for (unsigned int i = 0; i < head_dim / 8; i++)
			if (!(i & half)) {
				__m256i a = values[i], b = values[i + half];

				values[i] = _mm256_add_epi32(a, b);
				values[i + half] = _mm256_sub_epi32(a, b);
			}
	for (unsigned int i = 0; i < head_dim / 8; i += 2) {
		__m256i a = values[i], b = values[i + 1];

		exchange(&a, &b, _mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
		exchange(&a, &b, _mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
		exchange(&a, &b, _mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
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

INLINE __m256i quantise(__m256i z, unsigned int t, unsigned int bits)
{
	__m256i q = _mm256_srai_epi16(_mm256_mulhi_epi16(z, _mm256_set1_epi16(q4x_reciprocal[t])), 8);

	q = _mm256_max_epi16(q, _mm256_set1_epi16((int16_t)-(1 << (bits - 1))));
	return _mm256_min_epi16(q, _mm256_set1_epi16((int16_t)((1 << (bits - 1)) - 1)));
}

/* Sum of squared errors in four parts; of magnitudes, for levels are symmetric, and a coefficient between two is as far from either. */
INLINE __m256i squared_error(const __m256i *magnitude, unsigned int head_dim, unsigned int t, unsigned int bits)
{
	const __m256i half = _mm256_set1_epi16(q4x_half_step[t]), by = _mm256_set1_epi16(q4x_reciprocal[t]);
	const __m256i one = _mm256_set1_epi16(1), most = _mm256_set1_epi16((int16_t)((1 << bits) - 1));
	__m256i sum = _mm256_setzero_si256();

#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		/* 2q + 1 */
		__m256i level = _mm256_or_si256(_mm256_srli_epi16(_mm256_mulhi_epi16(magnitude[i], by), 7), one);
		__m256i e = _mm256_sub_epi16(magnitude[i], _mm256_mullo_epi16(_mm256_min_epi16(level, most), half));

		sum = _mm256_add_epi32(sum, _mm256_madd_epi16(e, e));
	}
	/* Each of the eight sums fits 31 bits, all together need not. */
	return _mm256_add_epi64(_mm256_and_si256(sum, _mm256_set1_epi64x(0xffffffff)), _mm256_srli_epi64(sum, 32));
}

/* How many eighths of an octave below t the least error is; of equal ones the fewest. At most `clips`, which is Q4X_CLIPS or less. */
INLINE unsigned int best_clip(const __m256i *z, unsigned int head_dim, unsigned int t, unsigned int clips, unsigned int bits)
{
	__m256i magnitude[NARROW_MAX], sums[Q4X_CLIPS + 1], first, second;
	uint64_t keys[Q4X_CLIPS + 1], least;
	__m128i last;

#pragma GCC unroll 16
	for (unsigned int i = 0; i < head_dim / 16; i++)
		magnitude[i] = _mm256_abs_epi16(z[i]);
#pragma GCC unroll 5
	for (unsigned int clip = 0; clip <= Q4X_CLIPS; clip++)
		sums[clip] = squared_error(magnitude, head_dim, t - clip, bits);
	first = _mm256_add_epi64(_mm256_unpacklo_epi64(sums[0], sums[1]), _mm256_unpackhi_epi64(sums[0], sums[1]));
	second = _mm256_add_epi64(_mm256_unpacklo_epi64(sums[2], sums[3]), _mm256_unpackhi_epi64(sums[2], sums[3]));
	first = _mm256_add_epi64(_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31));
	_mm256_storeu_si256((__m256i *)keys, first);
	last = _mm_add_epi64(_mm256_castsi256_si128(sums[4]), _mm256_extracti128_si256(sums[4], 1));
	keys[4] = (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(last, _mm_unpackhi_epi64(last, last)));
	/* Error and number in one, so that the least is the answer; without branches, which would go either way. */
	least = keys[0] << 3;
#pragma GCC unroll 4
	for (unsigned int clip = 1; clip <= Q4X_CLIPS; clip++) {
		uint64_t key = (keys[clip] << 3 | clip) | -(uint64_t)(clip > clips);

		least ^= (least ^ key) & -(uint64_t)(key < least);
	}
	return (unsigned int)least & 7;
}

/*
 * Tokens go through each step several at a time: within one, every step waits for the result of the one before.
 */
#define BATCH 8

struct token {
	__m256i values[WIDE_MAX]; /* integers, then coefficients */
	__m256i z[NARROW_MAX];    /* K: words in the order that rotate32() leaves, lanes by channel bit 0 */
	int32_t top, bottom;      /* of the coefficients; bottom is what -top may be */
	int unit;
	unsigned int step; /* t, from the table's first entry */
	int code;          /* scale code of that; 0: a zero token */
};

/* -ENODATA: not finite, or far beyond the largest scale. */
INLINE int integers(struct token *token, const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor)
{
	const struct float_layout *layout = float_layout(dtype);
	uint32_t largest = largest_magnitude(raw, head_dim), significand;
	int exponent = (int)float_split(layout, largest, &significand) - layout->bias - (int)layout->mantissa_bits;
	int length = 32 - __builtin_clz(significand | 1);
	__m256 power;

	exponent += length - 1;
	if (largest >= layout->infinity || exponent > EXPONENT_MAX)
		return -ENODATA;
	token->code = significand && exponent >= -EXPONENT_MAX;
	token->unit = exponent - (tensor == CODEC_K ? 18 : 12);
	/* A zero token's values are all made 0. */
	power = _mm256_castsi256_ps(_mm256_set1_epi32(token->code ? (127 - token->unit) << 23 : 0));
	for (unsigned int i = 0; i < head_dim / 8; i++) {
		__m128i words = _mm_loadu_si128((const __m128i *)(raw + 16 * i));
		__m256 x = dtype == SPECKV_DTYPE_BF16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16)) :
							_mm256_cvtph_ps(words);

		token->values[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x, power));
	}
	token->top = (int32_t)(significand << (13 - length));
	token->bottom = -token->top;
	return 0;
}

INLINE void coefficients(struct token *token, unsigned int head_dim)
{
	__m256i values[WIDE_MAX], most, least;

	for (unsigned int i = 0; i < head_dim / 8; i++)
		values[i] = token->values[i];
	rotate32(values, head_dim, 1u << q4x_slice_log2(head_dim));
	most = least = values[0];
	for (unsigned int i = 0; i < head_dim / 8; i++) {
		most = _mm256_max_epi32(most, values[i]);
		least = _mm256_min_epi32(least, values[i]);
		token->values[i] = values[i];
	}
	token->top = largest_of(most);
	token->bottom = -largest_of(_mm256_sub_epi32(_mm256_setzero_si256(), least));
}

/* Coefficients of K to 15 bits, all to 16-bit lanes, and the first step to try. -ENODATA: beyond the largest scale. */
INLINE int shorten(struct token *token, unsigned int head_dim, enum codec_tensor tensor)
{
	int down = 32 - __builtin_clz((uint32_t)(token->top > -token->bottom ? token->top : -token->bottom) | 1) - 14;
	__m256i half = _mm256_setzero_si256(), steps;
	__m128i count = _mm_setzero_si128();
	int32_t largest;

	if (tensor == CODEC_K && token->code) {
		half = _mm256_set1_epi32(1 << (down - 1));
		count = _mm_cvtsi32_si128(down);
		token->unit += down - (int)q4x_slice_log2(head_dim);
		token->top = (token->top + (1 << (down - 1))) >> down;
		token->bottom = (token->bottom + (1 << (down - 1))) >> down;
	}
	largest = token->top > -token->bottom ? token->top : -token->bottom;
	for (unsigned int i = 0; i < head_dim / 16; i++) {
		__m256i a = token->values[2 * i], b = token->values[2 * i + 1];

		if (tensor == CODEC_K) {
			a = _mm256_sra_epi32(_mm256_add_epi32(a, half), count);
			b = _mm256_sra_epi32(_mm256_add_epi32(b, half), count);
			token->z[i] = _mm256_packs_epi32(a, b);
		} else {
			token->z[i] = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
		}
	}
	/* How many of the half steps from t = 0 on are too small; the ninth never is. */
	steps = _mm256_castsi128_si256(_mm_slli_epi16(_mm_loadu_si128((const __m128i *)(q4x_half_step + Q4X_CLIPS)), (int)q4x_bits(tensor)));
	steps = _mm256_cmpgt_epi16(_mm256_set1_epi16((int16_t)largest), steps);
	token->step = Q4X_CLIPS + (unsigned int)__builtin_popcount((unsigned int)_mm256_movemask_epi8(steps) & 0xffff) / 2;
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
	unsigned int clip = best_clip(token->z, head_dim, token->step, clips, q4x_bits(tensor));

	token->step -= clip;
	token->code = token->code > 0 ? token->code - (int)clip : 0;
}

/* K: 32 channels, 16 bytes, at a time; where head sizes leave 16, their 8 bytes once more. */
INLINE void write_k(const struct token *token, unsigned int head_dim, uint8_t *to)
{
	const __m256i middle = _mm256_set1_epi16(8);
	/* Of each eight bytes, index bits 0, 1, 2 are channel bits 1, 3, 2. */
	const __m128i natural = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);

	for (unsigned int i = 0; i < head_dim / 16; i += 2) {
		__m128i bytes[2];

		for (unsigned int k = 0; k < 2; k++) {
			__m256i u = _mm256_add_epi16(quantise(token->z[i + k < head_dim / 16 ? i + k : i], token->step, 4), middle);

			bytes[k] = _mm_or_si128(_mm256_castsi256_si128(u), _mm_slli_epi16(_mm256_extracti128_si256(u, 1), 4));
		}
		bytes[0] = _mm_shuffle_epi8(_mm_packus_epi16(bytes[0], bytes[1]), natural);
		if (i + 1 < head_dim / 16)
			_mm_storeu_si128((__m128i *)(to + 8 * i), bytes[0]);
		else
			_mm_storel_epi64((__m128i *)(to + 8 * i), bytes[0]);
	}
}

/* V: 16 channels, six bytes, at a time. */
INLINE void write_v(const struct token *token, unsigned int head_dim, uint8_t *to)
{
	const __m256i middle = _mm256_set1_epi16(4);
	const __m256i three = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));

	for (unsigned int i = 0; i < head_dim / 16; i++, to += 6) {
		__m256i u = _mm256_add_epi16(quantise(token->z[i], token->step, 3), middle);
		uint64_t low, high;

		/* Pairs of codes in 32-bit lanes, four in 64-bit lanes, eight in 128-bit lanes. */
		u = _mm256_madd_epi16(u, _mm256_set1_epi32(8 << 16 | 1));
		u = _mm256_or_si256(u, _mm256_srli_epi64(u, 26));
		u = _mm256_or_si256(_mm256_and_si256(u, _mm256_set1_epi64x(0xfff)), _mm256_slli_epi64(_mm256_srli_si256(u, 8), 12));
		u = _mm256_shuffle_epi8(u, three);
		low = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(u));
		high = (uint64_t)_mm_cvtsi128_si64(_mm256_extracti128_si256(u, 1));
		low |= high << 24;
		memcpy(to, &low, 6);
	}
}

INLINE int encode_batches(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	struct token tokens[BATCH];

	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += BATCH) {
		int rc = 0;

		for (unsigned int t = 0; t < BATCH; t++)
			rc |= integers(&tokens[t], raw + 2 * (size_t)(first + t) * head_dim, head_dim, dtype, tensor);
		if (rc)
			return -ENODATA;
		for (unsigned int t = 0; t < BATCH && tensor == CODEC_K; t++)
			coefficients(&tokens[t], head_dim);
		for (unsigned int t = 0; t < BATCH; t++)
			rc |= shorten(&tokens[t], head_dim, tensor);
		if (rc)
			return -ENODATA;
		for (unsigned int t = 0; t < BATCH; t++)
			choose(&tokens[t], head_dim, tensor);
		for (unsigned int t = 0; t < BATCH; t++) {
			uint8_t *to = group + Q4X_SCALES + (size_t)(first + t) * q4x_token_bytes(head_dim, tensor);

			group[first + t] = (uint8_t)tokens[t].code;
			if (!tokens[t].code) /* zero tokens have zero codes */
				memset(to, 0, q4x_token_bytes(head_dim, tensor));
			else if (tensor == CODEC_K)
				write_k(&tokens[t], head_dim, to);
			else
				write_v(&tokens[t], head_dim, to);
		}
	}
	return 0;
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	unsigned int mode = round_to_nearest();
	int rc = encode_batches(raw, head_dim, dtype, tensor, group);

	_mm_setcsr(mode);
	return rc;
}

/* Constant head sizes: registers and loops are laid out for each. */
#define FOR_HEAD_SIZE(head_dim, call, ...)         \
	do {                                       \
		switch (head_dim) {                \
		case 64:                           \
			call(64, __VA_ARGS__);     \
			break;                     \
		case 80:                           \
			call(80, __VA_ARGS__);     \
			break;                     \
		case 96:                           \
			call(96, __VA_ARGS__);     \
			break;                     \
		case 128:                          \
			call(128, __VA_ARGS__);    \
			break;                     \
		case 192:                          \
			call(192, __VA_ARGS__);    \
			break;                     \
		default:                           \
			call(256, __VA_ARGS__);    \
			break;                     \
		}                                  \
	} while (0)

#define ENCODE(size, dtype, tensor) return encode_tokens(raw, size, dtype, tensor, group)

int codec_q4x_encode_avx2(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
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

/* ---- decode ------------------------------------------------------------------------------------------------------- */

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
	const __m256 eighths = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)q4x_eighths)));

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t += 8) {
		__m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(scales + t)));
		__m256i step = _mm256_sub_epi32(code, _mm256_set1_epi32(1));
		__m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_srai_epi32(step, 3), _mm256_set1_epi32(127 - 33)), 23);
		__m256 half_step = _mm256_mul_ps(_mm256_permutevar8x32_ps(eighths, step), _mm256_castsi256_ps(power));

		half_step = _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(code, _mm256_setzero_si256())), half_step);
		_mm256_storeu_ps(out + t, half_step);
	}
}

/* The upper halves of 32-bit lanes become the numbers nearest to the whole, ties to even; the lower ones are left as they fall. */
INLINE __m256i round_bf16(__m256 value)
{
	__m256i bits = _mm256_castps_si256(value), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

	return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}

INLINE __m128i round_fp16(__m256 value)
{
	value = _mm256_max_ps(_mm256_min_ps(value, _mm256_set1_ps(65504)), _mm256_set1_ps(-65504));
	return _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
}

/* 16 integers times the half step, which is exact, rounded. */
INLINE __m256i scaled(__m256i v, float half_step, unsigned int dtype)
{
	const __m256 by = _mm256_set1_ps(half_step);
	__m256 a, b;

	if (dtype == SPECKV_DTYPE_BF16) { /* even channels, odd channels */
		a = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(v, _mm256_set1_epi32(1))), by);
		b = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srai_epi32(v, 16)), by);
		return _mm256_blend_epi16(_mm256_srli_epi32(round_bf16(a), 16), round_bf16(b), 0xaa);
	}
	a = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(v))), by);
	b = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(v, 1))), by);
	return _mm256_inserti128_si256(_mm256_castsi128_si256(round_fp16(a)), round_fp16(b), 1);
}

/*
 * The transform of 128 channels in 4-bit codes, 64 bytes, as slices of 2^slice_log2; in natural order, 16 channels a register. Butterflies of
 * channel bits 0, 2, 3, 4 are done in signed bytes, on u - 8: sums of 16 are -128 at least. Results are of 2u - 16 and lack what the
 * ones would give: the slice's size, in its first channel.
 */
struct sums {
	__m256i at[8];
};

INLINE __m256i spread8(__m256i x, unsigned int slice_log2)
{
	/* byte index bits 1, 2, 3 are channel bits 2, 3, 4 */
	const __m256i swap2 = _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
	const __m256i odd2 = _mm256_set1_epi32((int)0xffff0101), odd3 = _mm256_set1_epi64x((long long)0xffffffff01010101);
	const __m256i odd4 = _mm256_broadcastsi128_si256(_mm_setr_epi32(0x01010101, 0x01010101, -1, -1));

	x = _mm256_add_epi8(_mm256_shuffle_epi8(x, swap2), _mm256_sign_epi8(x, odd2));
	x = _mm256_add_epi8(_mm256_shuffle_epi32(x, 0xb1), _mm256_sign_epi8(x, odd3));
	if (slice_log2 > 4)
		x = _mm256_add_epi8(_mm256_shuffle_epi32(x, 0x4e), _mm256_sign_epi8(x, odd4));
	return x;
}

INLINE struct sums transform(const uint8_t *codes, unsigned int slice_log2)
{
	const __m256i nibble = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
	__m256i r[2][2][2]; /* [channel bit 6][channel bit 0][channel bit 1]; words: bits 2 to 4, lanes: 5 */
	struct sums out;

	for (int half = 0; half < 2; half++) {
		__m256i x = _mm256_loadu_si256((const __m256i *)(codes + 32 * half));
		__m256i even = _mm256_and_si256(x, nibble), odd = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble), s[2];

		even = _mm256_sub_epi8(even, eight);
		odd = _mm256_sub_epi8(odd, eight);
		s[0] = spread8(_mm256_add_epi8(even, odd), slice_log2);
		s[1] = spread8(_mm256_sub_epi8(even, odd), slice_log2);
		for (int i = 0; i < 2; i++) {
			/* Twice the sum of neighbouring bytes; four times the first less that. */
			r[half][i][0] = _mm256_maddubs_epi16(_mm256_set1_epi8(2), s[i]);
			r[half][i][1] = _mm256_sub_epi16(_mm256_maddubs_epi16(_mm256_set1_epi16(4), s[i]), r[half][i][0]);
		}
	}
	for (int i = 0; i < 4 && slice_log2 > 6; i++) {
		__m256i a = r[0][i / 2][i % 2], b = r[1][i / 2][i % 2];

		r[0][i / 2][i % 2] = _mm256_add_epi16(a, b);
		r[1][i / 2][i % 2] = _mm256_sub_epi16(a, b);
	}
	for (int half = 0; half < 2; half++)
		for (int high = 0; high < 2; high++) { /* channel bit 4 */
			__m256i pair[2], x, y;

			for (int bit1 = 0; bit1 < 2; bit1++)
				pair[bit1] = high ? _mm256_unpackhi_epi16(r[half][0][bit1], r[half][1][bit1]) :
						    _mm256_unpacklo_epi16(r[half][0][bit1], r[half][1][bit1]);
			/* Channel bits 0 to 2 in a lane, 3 in the register, 5 by lane: then 3 by lane, 5 in the register. */
			x = _mm256_unpacklo_epi32(pair[0], pair[1]);
			y = _mm256_unpackhi_epi32(pair[0], pair[1]);
			pair[0] = _mm256_permute2x128_si256(x, y, 0x20);
			pair[1] = _mm256_permute2x128_si256(x, y, 0x31);
			out.at[4 * half + high] = slice_log2 > 5 ? _mm256_add_epi16(pair[0], pair[1]) : pair[0];
			out.at[4 * half + 2 + high] = slice_log2 > 5 ? _mm256_sub_epi16(pair[0], pair[1]) : pair[1];
		}
	return out;
}

/* Channels run on over the tokens of a group: 128 at a time, 16 of which are always of one token. */
INLINE void decode_k(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw, bool streamed)
{
	unsigned int slice_log2 = q4x_slice_log2(head_dim), first = 0;
	const __m256i ones = _mm256_setr_epi32(1 << slice_log2, 0, 0, 0, 0, 0, 0, 0);
	float scale[CODEC_GROUP_TOKENS];

	half_steps(group, scale);
	for (unsigned int chunk = 0; chunk < head_dim / 2; chunk++) {
		struct sums sums = transform(group + Q4X_SCALES + 64 * chunk, slice_log2);

#pragma GCC unroll 8
		for (unsigned int i = 0; i < 8; i++, first += 16) {
			unsigned int token = first / head_dim;
			__m256i v = sums.at[i];

			if (16 * i % (1u << slice_log2) == 0)
				v = _mm256_add_epi16(v, ones);
			/* A scale of 0 is +0, whatever the sign. */
			v = _mm256_and_si256(v, _mm256_set1_epi8(group[token] ? -1 : 0));
			put(raw + 2 * (size_t)first, scaled(v, scale[token], dtype), streamed);
		}
	}
}

/* V: eight values a token, looked up by 3-bit codes. */
INLINE void decode_v(const uint8_t *group, unsigned int head_dim, unsigned int dtype, uint8_t *raw, bool streamed)
{
	const __m256 levels = _mm256_setr_ps(-7, -5, -3, -1, 1, 3, 5, 7);
	/* Eight codes, three bytes, a lane: to each 16-bit lane the two bytes that hold its code, which then moves to the top. */
	const __m256i take = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 2, 3, 2, 3, 3, 4, 3, 4, 3, 4, 4, 5, 4, 5, 4, 5, 5, 6, 5, 6);
	const __m256i up = _mm256_broadcastsi128_si256(
		_mm_setr_epi16(1 << 13, 1 << 10, 1 << 7, 1 << 12, 1 << 9, 1 << 6, 1 << 11, 1 << 8));
	const __m256i top = _mm256_set1_epi16((short)0xe000), twice = _mm256_set1_epi16(0x1010), both = _mm256_set1_epi16(0x0100);
	const uint8_t *codes = group + Q4X_SCALES;
	float scale[CODEC_GROUP_TOKENS];

	half_steps(group, scale);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		/* plus zero: a scale of 0 is +0, whatever the sign */
		__m256 value = _mm256_add_ps(_mm256_mul_ps(levels, _mm256_set1_ps(scale[t])), _mm256_setzero_ps());
		__m128i values;
		__m256i table;

		if (dtype == SPECKV_DTYPE_BF16) {
			table = _mm256_srli_epi32(round_bf16(value), 16);
			values = _mm_packus_epi32(_mm256_castsi256_si128(table), _mm256_extracti128_si256(table, 1));
		} else {
			values = round_fp16(value);
		}
		table = _mm256_broadcastsi128_si256(values);
		for (unsigned int c = 0; c < head_dim; c += 16, codes += 6, raw += 32) {
			/* What is loaded too much is another token's, or, at the end, behind what the group's buffer holds for V. */
			__m256i x = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)codes));

			x = _mm256_and_si256(_mm256_mullo_epi16(_mm256_shuffle_epi8(x, take), up), top);
			/* 2u in the lower byte, 2u + 1 in the upper */
			put(raw, _mm256_shuffle_epi8(table, _mm256_or_si256(_mm256_mulhi_epu16(x, twice), both)), streamed);
		}
	}
}

INLINE void decode_head(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	if (tensor == CODEC_K)
		decode_k(group, head_dim, dtype, raw, streamed);
	else
		decode_v(group, head_dim, dtype, raw, streamed);
}

#define DECODE(size, dtype, tensor) decode_head(group, size, dtype, tensor, raw, streamed)

void codec_q4x_decode_avx2(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
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

// SPDX-License-Identifier: MIT
/*
 * Encoding of mode q4x with AVX-512 (VBMI). Defined by FORMAT.md section 5; q4x.c is the reference.
 * The method is that of q4x_encode_avx2.c, with all 64 trellises of a group at once; see there for
 * comments missing here.
 */
#include <errno.h>
#include <immintrin.h>
#include <limits.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x_trellis.h"

#define INLINE static inline __attribute__((always_inline))

/* Beyond these exponents a token is zero, or refused, whatever its other values. */
#define EXPONENT_MAX 60

/*
 * Blocks of 32 channels, two registers of 32-bit integers each; for a head size of 80 the last one
 * is half empty. And bytes of a token's cells.
 */
#define BLOCKS(head_dim) (((head_dim) + 31) / 32)
#define WIDE_MAX (CODEC_HEAD_DIM_MAX / 16)
#define CELLS(head_dim) (((head_dim) + 63) / 64 * 64)

/* ---- cells ---------------------------------------------------------------------------------- */

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

/* Index of a channel's cell within its token. */
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

/*
 * Batch several tokens per step, to hide latency: within one token, every step depends on the one
 * before.
 */
#define BATCH 8

struct token {
	__m512i values[WIDE_MAX]; /* of K */
	int32_t top, bottom; /* largest and smallest value; a negative one may round differently */
	int unit; /* exponent of the values */
	bool zero;
};

struct group {
	uint8_t cells[CODEC_GROUP_TOKENS][CODEC_HEAD_DIM_MAX] __attribute__((aligned(64)));
	int exponent[CODEC_GROUP_TOKENS]; /* of the largest magnitude */
	int32_t largest[CODEC_GROUP_TOKENS]; /* the same as an integer, for V */
	bool zero[CODEC_GROUP_TOKENS];
	/* of coefficients, in the order after the transform */
	int32_t mean[CODEC_HEAD_DIM_MAX] __attribute__((aligned(64)));
};

/*
 * Measure exponents, and whether the group may have a mean. -ENODATA: not finite, or far beyond the
 * largest scale.
 */
INLINE int measure(struct group *group, const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, bool *alike, int *top)
{
	const struct float_layout *layout = float_layout(dtype);
	int least = INT_MAX, most = INT_MIN;
	bool zeros = false;

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		uint32_t largest = largest_magnitude(raw + 2 * (size_t)t * head_dim, head_dim),
			 significand;
		int exponent = (int)float_split(layout, largest, &significand) - layout->bias -
			(int)layout->mantissa_bits;

		codec_fetch_token(raw, head_dim, t + CODEC_FETCH_TOKENS);
		group->largest[t] = (int32_t)(significand << Q4X_V_PRECISION >>
			(31 - __builtin_clz(significand | 1)));
		exponent += 31 - __builtin_clz(significand | 1);
		if (largest >= layout->infinity || exponent > EXPONENT_MAX)
			return -ENODATA;
		group->exponent[t] = exponent;
		group->zero[t] = !largest || exponent < -EXPONENT_MAX;
		zeros = zeros || group->zero[t];
		least = exponent < least ? exponent : least;
		most = exponent > most ? exponent : most;
	}
	*alike = !zeros && most - least <= Q4X_MEAN_OCTAVES;
	*top = most;
	return 0;
}

/* Compute the mean of a group whose tokens are all aligned to `unit`. */
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

/* Coefficients of K. A zero token's values are all set to 0. */
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

/*
 * Compute scale and cells of a token: of K from its coefficients, of V from its values. -ENODATA:
 * beyond the largest scale.
 */
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

/* ---- codes ---------------------------------------------------------------------------------- */

#define LANES CODEC_GROUP_TOKENS

/* State of the search for a group. */
struct trellis {
	uint8_t cells[CODEC_HEAD_DIM_MAX][LANES];
	uint8_t paths[CODEC_HEAD_DIM_MAX / 8][4][LANES];
	uint8_t taken[CODEC_HEAD_DIM_MAX / 8 + 1][LANES];
	uint8_t codes[CODEC_HEAD_DIM_MAX / 2][LANES];
} __attribute__((aligned(64)));

INLINE __m512i load(const uint8_t *from)
{
	return _mm512_load_si512(from);
}

INLINE void store(uint8_t *to, __m512i value)
{
	_mm512_store_si512(to, value);
}

/* Transpose 16 by 16 bytes in each of four lanes. */
INLINE void turn(__m512i *x)
{
#pragma GCC unroll 4
	for (unsigned int round = 0; round < 4; round++) {
		__m512i y[16];

#pragma GCC unroll 8
		for (unsigned int i = 0; i < 8; i++) {
			y[2 * i] = _mm512_unpacklo_epi8(x[i], x[i + 8]);
			y[2 * i + 1] = _mm512_unpackhi_epi8(x[i], x[i + 8]);
		}
#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			x[i] = y[i];
	}
}

/*
 * Indexed by the position of a cell in a subset, 16 below its level and 16 above it: the metric of
 * the distance, then the metric beyond the knee.
 */
#define BELOW(of)                                                                                 \
	of(15), of(14), of(13), of(12), of(11), of(10), of(9), of(8), of(7), of(6), of(5), of(4), \
		of(3), of(2), of(1), of(0)
static const int8_t metrics[64]
	__attribute__((aligned(64))) = { BELOW(NEAR), SIXTEEN(NEAR), BELOW(FAR), SIXTEEN(FAR) };

INLINE void search(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor)
{
	const __m512i table = _mm512_load_si512(metrics), place = _mm512_set1_epi8(31);
	__m512i metric[4] = { _mm512_setzero_si512(), _mm512_set1_epi8(-1), _mm512_set1_epi8(-1),
		_mm512_set1_epi8(-1) },
		path[4], a, b;
	__mmask64 high, low;

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		for (unsigned int s = 0; s < 4; s++)
			path[s] = _mm512_set1_epi8((char)s);
#pragma GCC unroll 8
		for (unsigned int k = 0; k < 8; k++) {
			__m512i cell = load(trellis->cells[order[8 * chunk + k]]), distance[4],
				next[4], way[4];
			/* The top bit is set if the cell is beyond the knee. */
			__m512i outer =
				_mm512_subs_epu8(_mm512_add_epi8(cell, _mm512_set1_epi8(Q4X_KNEE)),
					_mm512_set1_epi8(2 * Q4X_KNEE - 128));

			outer = _mm512_srli_epi16(outer, 2);
#pragma GCC unroll 4
			for (int j = 0; j < 4; j++) {
				__m512i at = _mm512_adds_epi8(cell,
					_mm512_set1_epi8((char)OFFSET(j, tensor)));

				at = tensor == CODEC_K ? at : _mm512_srli_epi16(at, 1);
				/*
				 * bits of `outer` where `place` is clear; the upper two do not
				 * matter
				 */
				distance[j] = _mm512_permutexvar_epi8(
					_mm512_ternarylogic_epi64(place, at, outer, 0xca), table);
			}
#pragma GCC unroll 4
			for (unsigned int s = 0; s < 4; s++) {
				unsigned int from = 2 * (s & 1), j = (s & 1) | (s & 2);
				__m512i one = _mm512_adds_epu8(metric[from], distance[j]);
				__m512i two = _mm512_adds_epu8(metric[from + 1], distance[j ^ 2]);

				next[s] = _mm512_min_epu8(one, two);
				way[s] = _mm512_mask_blend_epi8(_mm512_cmplt_epu8_mask(two, one),
					path[from], path[from + 1]);
				if (s >= 2 && k < 6)
					way[s] = _mm512_or_si512(way[s],
						_mm512_set1_epi8((char)(4 << k)));
			}
			a = _mm512_min_epu8(_mm512_min_epu8(next[0], next[1]),
				_mm512_min_epu8(next[2], next[3]));
			for (unsigned int s = 0; s < 4; s++) {
				metric[s] = k % Q4X_LEVELLING == Q4X_LEVELLING - 1
					? _mm512_sub_epi8(next[s], a)
					: next[s];
				path[s] = way[s];
			}
		}
		for (unsigned int s = 0; s < 4; s++)
			store(trellis->paths[chunk][s], path[s]);
	}
	/* Bits of the final state; ties go to the lowest state. */
	a = _mm512_min_epu8(metric[0], metric[1]);
	b = _mm512_min_epu8(metric[2], metric[3]);
	high = _mm512_cmplt_epu8_mask(b, a);
	low = (_mm512_cmplt_epu8_mask(metric[1], metric[0]) & ~high) |
		(_mm512_cmplt_epu8_mask(metric[3], metric[2]) & high);
	store(trellis->taken[head_dim / 8],
		_mm512_or_si512(_mm512_maskz_set1_epi8(high, 2), _mm512_maskz_set1_epi8(low, 1)));
	for (unsigned int chunk = head_dim / 8; chunk-- > 0;) {
		a = _mm512_mask_blend_epi8(low, load(trellis->paths[chunk][0]),
			load(trellis->paths[chunk][1]));
		b = _mm512_mask_blend_epi8(low, load(trellis->paths[chunk][2]),
			load(trellis->paths[chunk][3]));
		a = _mm512_mask_blend_epi8(high, a, b);
		store(trellis->taken[chunk], a);
		high = _mm512_test_epi8_mask(a, _mm512_set1_epi8(2));
		low = _mm512_test_epi8_mask(a, _mm512_set1_epi8(1));
	}
}

INLINE void name(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor)
{
	const __m128i even_k = _mm_setr_epi8(SIXTEEN(EVEN_K)),
		      even_v = _mm_setr_epi8(SIXTEEN(EVEN_V));
	const __m128i odd_k = _mm_setr_epi8(SIXTEEN(ODD_K)), odd_v = _mm_setr_epi8(SIXTEEN(ODD_V));
	const __m128i paths_k = _mm_setr_epi8(SIXTEEN(PATHS_K)),
		      paths_v = _mm_setr_epi8(SIXTEEN(PATHS_V));
	const __m512i even = _mm512_broadcast_i32x4(tensor == CODEC_K ? even_k : even_v);
	const __m512i odd = _mm512_broadcast_i32x4(tensor == CODEC_K ? odd_k : odd_v);
	const __m512i paths = _mm512_broadcast_i32x4(tensor == CODEC_K ? paths_k : paths_v);
	const __m512i nibble = _mm512_set1_epi8(15), three = _mm512_set1_epi8(3);

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		__m512i taken = load(trellis->taken[chunk]),
			after = load(trellis->taken[chunk + 1]), window[4], pair[4];

		window[0] = _mm512_and_si512(taken, nibble);
		window[1] = _mm512_and_si512(_mm512_srli_epi16(taken, 2), nibble);
		window[2] = _mm512_and_si512(_mm512_srli_epi16(taken, 4), nibble);
		window[3] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(taken, 6), three),
			_mm512_slli_epi16(_mm512_and_si512(after, three), 2));
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i a = load(trellis->cells[order[8 * chunk + 2 * i]]),
				b = load(trellis->cells[order[8 * chunk + 2 * i + 1]]);

			a = _mm512_adds_epi8(a, _mm512_shuffle_epi8(even, window[i]));
			b = _mm512_adds_epi8(b, _mm512_shuffle_epi8(odd, window[i]));
			if (tensor == CODEC_K) {
				a = _mm512_and_si512(_mm512_srli_epi16(a, 5), _mm512_set1_epi8(7));
				b = _mm512_and_si512(_mm512_srli_epi16(b, 1),
					_mm512_set1_epi8(7 << 4));
			} else {
				a = _mm512_and_si512(_mm512_srli_epi16(a, 6), three);
				b = _mm512_and_si512(_mm512_srli_epi16(b, 3),
					_mm512_set1_epi8(3 << 3));
			}
			pair[i] = _mm512_xor_si512(_mm512_or_si512(a, b),
				_mm512_shuffle_epi8(paths, window[i]));
			if (tensor == CODEC_K)
				store(trellis->codes[4 * chunk + i], pair[i]);
		}
		if (tensor == CODEC_V) { /* six bits each: three bytes */
			__m512i first = _mm512_and_si512(_mm512_slli_epi16(pair[1], 6),
				_mm512_set1_epi8((char)0xc0));
			__m512i second = _mm512_and_si512(_mm512_slli_epi16(pair[2], 4),
				_mm512_set1_epi8((char)0xf0));

			store(trellis->codes[3 * chunk], _mm512_or_si512(pair[0], first));
			store(trellis->codes[3 * chunk + 1],
				_mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(pair[1], 2),
							nibble),
					second));
			store(trellis->codes[3 * chunk + 2],
				_mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(pair[2], 4),
							three),
					_mm512_slli_epi16(pair[3], 2)));
		}
	}
}

/* Quantise the cells of a group to codes. */
INLINE void quantise(const struct group *group, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor, uint8_t *codes)
{
	unsigned int bytes = q4x_token_bytes(head_dim, tensor);
	struct trellis trellis;

	for (unsigned int c = 0; c < CELLS(head_dim); c += 16) {
		__m512i x[16];

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++) {
			const uint8_t *from = group->cells[i] + c;

			x[i] = _mm512_castsi128_si512(
				_mm_load_si128((const __m128i *)(const void *)from));
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(group->cells[0]) * 16)),
				1);
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(group->cells[0]) * 32)),
				2);
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(group->cells[0]) * 48)),
				3);
		}
		turn(x);
#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			store(trellis.cells[c + i], x[i]);
	}
	search(&trellis, order, head_dim, tensor);
	name(&trellis, order, head_dim, tensor);
	/* implied by the head sizes; for the compiler */
	if (bytes < 16 || bytes > CODEC_HEAD_DIM_MAX / 2)
		__builtin_unreachable();
	for (unsigned int block = 0; block < (bytes + 15) / 16; block++) {
		/* The last 16 may overlap the previous ones. */
		unsigned int first = 16 * block + 16 <= bytes ? 16 * block : bytes - 16;
		__m512i x[16];

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			x[i] = load(trellis.codes[first + i]);
		turn(x);
#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++) {
			uint8_t *to = codes + i * bytes + first;

			_mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(x[i]));
			_mm_storeu_si128((__m128i *)(void *)(to + 16 * bytes),
				_mm512_extracti32x4_epi32(x[i], 1));
			_mm_storeu_si128((__m128i *)(void *)(to + 32 * bytes),
				_mm512_extracti32x4_epi32(x[i], 2));
			_mm_storeu_si128((__m128i *)(void *)(to + 48 * bytes),
				_mm512_extracti32x4_epi32(x[i], 3));
		}
	}
}

/*
 * One copy per tensor instead of per head size: nothing depends on a constant size, and compilers
 * took minutes for 24 copies.
 */
static __attribute__((noinline)) void quantise_k(const struct group *group, const uint8_t *order,
	unsigned int head_dim, uint8_t *codes)
{
	quantise(group, order, head_dim, CODEC_K, codes);
}

static __attribute__((noinline)) void quantise_v(const struct group *group, const uint8_t *order,
	unsigned int head_dim, uint8_t *codes)
{
	quantise(group, order, head_dim, CODEC_V, codes);
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, uint8_t *out)
{
	uint8_t *codes = out + q4x_codes_at(head_dim, tensor), order[CODEC_HEAD_DIM_MAX];
	struct token tokens[BATCH];
	struct group group;
	bool alike;
	int top;

	if (measure(&group, raw, head_dim, dtype, &alike, &top))
		return -ENODATA;
	if (tensor == CODEC_K) {
		memset(out + Q4X_SCALES, 0, q4x_mean_bytes(head_dim, tensor));
		alike = alike &&
			take_mean(&group, raw, head_dim, dtype, top - Q4X_K_PRECISION,
				out + Q4X_SCALES);
		if (!alike)
			memset(group.mean, 0, sizeof(group.mean));
	}
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += BATCH) {
		int rc = 0;

		for (unsigned int t = 0; t < BATCH; t++) {
			struct token *token = &tokens[t];

			codec_fetch_token(raw, head_dim, CODEC_GROUP_TOKENS + first + t);
			token->zero = group.zero[first + t];
			token->unit = tensor == CODEC_V
				? group.exponent[first + t] - Q4X_V_PRECISION
				: (alike ? top : group.exponent[first + t]) - Q4X_K_PRECISION;
			token->top = group.largest[first + t];
			token->bottom = -token->top;
			if (tensor == CODEC_K)
				coefficients(token, &group,
					raw + 2 * (size_t)(first + t) * head_dim, head_dim, dtype);
		}
		for (unsigned int t = 0; t < BATCH; t++)
			rc |= divide(&tokens[t], raw + 2 * (size_t)(first + t) * head_dim, head_dim,
				dtype, tensor, out + first + t, group.cells[first + t]);
		if (rc)
			return -ENODATA;
	}
	for (unsigned int c = 0; c < head_dim; c++)
		order[c] = (uint8_t)cell_at(c, dtype, tensor);
	(tensor == CODEC_K ? quantise_k : quantise_v)(&group, order, head_dim, codes);
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		if (!out[t]) /* zero tokens have zero codes */
			memset(codes + (size_t)t * q4x_token_bytes(head_dim, tensor), 0,
				q4x_token_bytes(head_dim, tensor));
	return 0;
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

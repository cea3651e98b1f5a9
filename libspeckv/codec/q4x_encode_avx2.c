// SPDX-License-Identifier: MIT
/*
 * Encoding of mode q4x with AVX2 (F16C). Defined by FORMAT.md section 5; q4x.c is the reference.
 *
 * In two phases. Token by token, values are converted to coefficients and these to cells, a byte
 * each. After a transposition a register holds one channel of 32 tokens, and 32 trellises are
 * searched at once, channel by channel; the resulting codes are transposed back.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "float16.h"
#include "q4x_avx2.h"
#include "q4x_trellis.h"

/* Beyond these exponents a token is zero, or refused, whatever its other values. */
#define EXPONENT_MAX 60

/*
 * Registers per token, of 32-bit and of 16-bit integers; and bytes of a token's cells, in whole
 * registers.
 */
#define WIDE_MAX (CODEC_HEAD_DIM_MAX / 8)
#define CELLS(head_dim) (((head_dim) + 31) / 32 * 32)

/* ---- cells ---------------------------------------------------------------------------------- */

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

/* Index of a channel's cell within its token. */
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

/*
 * Batch several tokens per step, to hide latency: within one token, every step depends on the one
 * before.
 */
#define BATCH 8

struct token {
	__m256i values[WIDE_MAX]; /* of K */
	int32_t top, bottom; /* largest and smallest value; a negative one may round differently */
	int unit; /* exponent of the values */
	bool zero;
};

struct group {
	uint8_t cells[CODEC_GROUP_TOKENS][CODEC_HEAD_DIM_MAX] __attribute__((aligned(32)));
	int exponent[CODEC_GROUP_TOKENS]; /* of the largest magnitude */
	int32_t largest[CODEC_GROUP_TOKENS]; /* the same as an integer, for V */
	bool zero[CODEC_GROUP_TOKENS];
	/* of coefficients, in the order after the transform */
	int32_t mean[CODEC_HEAD_DIM_MAX] __attribute__((aligned(32)));
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

/* Coefficients of K. A zero token's values are all set to 0. */
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

/*
 * Compute scale and cells of a token: of K from its coefficients, of V from its values. -ENODATA:
 * beyond the largest scale.
 */
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

/* ---- codes ---------------------------------------------------------------------------------- */

/*
 * Transpose 16 by 16 bytes in each lane: four rounds, each interleaving rows that are eight apart.
 */
INLINE void turn(__m256i *x)
{
	for (unsigned int round = 0; round < 4; round++) {
		__m256i y[16];

		for (unsigned int i = 0; i < 8; i++) {
			y[2 * i] = _mm256_unpacklo_epi8(x[i], x[i + 8]);
			y[2 * i + 1] = _mm256_unpackhi_epi8(x[i], x[i + 8]);
		}
		for (unsigned int i = 0; i < 16; i++)
			x[i] = y[i];
	}
}

#define LANES 32

/* State of the search for 32 tokens. */
struct trellis {
	uint8_t cells[CODEC_HEAD_DIM_MAX][LANES];
	/*
	 * For each eight channels and final state, the best path: the two path bits before, and the
	 * first six.
	 */
	uint8_t paths[CODEC_HEAD_DIM_MAX / 8][4][LANES];
	/* The path bits taken; the last entry holds the final two. */
	uint8_t taken[CODEC_HEAD_DIM_MAX / 8 + 1][LANES];
	uint8_t codes[CODEC_HEAD_DIM_MAX / 2][LANES]; /* bytes of the tokens' codes */
} __attribute__((aligned(32)));

INLINE __m256i load(const uint8_t *from)
{
	return _mm256_load_si256((const __m256i *)(const void *)from);
}

INLINE void store(uint8_t *to, __m256i value)
{
	_mm256_store_si256((__m256i *)(void *)to, value);
}

/* Viterbi search, eight channels at a time: metrics and paths advance by one channel per step. */
INLINE void search(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	enum codec_tensor tensor)
{
	const __m256i far = _mm256_broadcastsi128_si256(_mm_setr_epi8(SIXTEEN(FAR)));
	const __m256i near = _mm256_broadcastsi128_si256(_mm_setr_epi8(SIXTEEN(NEAR)));
	__m256i metric[4] = { _mm256_setzero_si256(), _mm256_set1_epi8(-1), _mm256_set1_epi8(-1),
		_mm256_set1_epi8(-1) },
		path[4], high, low, a, b;

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		for (unsigned int s = 0; s < 4; s++)
			path[s] = _mm256_set1_epi8((char)s);
#pragma GCC unroll 8
		for (unsigned int k = 0; k < 8; k++) {
			__m256i cell = load(trellis->cells[order[8 * chunk + k]]), distance[4],
				next[4], way[4];
			/* The top bit is set if the cell is beyond the knee. */
			__m256i outer =
				_mm256_subs_epu8(_mm256_add_epi8(cell, _mm256_set1_epi8(Q4X_KNEE)),
					_mm256_set1_epi8(2 * Q4X_KNEE - 128));

			for (int j = 0; j < 4; j++) {
				__m256i at = _mm256_adds_epi8(cell,
					_mm256_set1_epi8((char)OFFSET(j, tensor)));

				at = _mm256_and_si256(tensor == CODEC_K ? at
									: _mm256_srli_epi16(at, 1),
					_mm256_set1_epi8(31));
				/*
				 * 16 and above is e beyond the level, 15 and below as far before it
				 */
				at = _mm256_or_si256(_mm256_subs_epu8(at, _mm256_set1_epi8(16)),
					_mm256_subs_epu8(_mm256_set1_epi8(15), at));
				distance[j] = _mm256_blendv_epi8(_mm256_shuffle_epi8(near, at),
					_mm256_shuffle_epi8(far, at), outer);
			}
			for (unsigned int s = 0; s < 4; s++) {
				unsigned int from = 2 * (s & 1), j = (s & 1) | (s & 2);
				__m256i one = _mm256_adds_epu8(metric[from], distance[j]);
				__m256i two = _mm256_adds_epu8(metric[from + 1], distance[j ^ 2]);

				next[s] = _mm256_min_epu8(one, two);
				way[s] = _mm256_blendv_epi8(path[from + 1], path[from],
					_mm256_cmpeq_epi8(next[s], one));
				if (s >= 2 && k < 6)
					way[s] = _mm256_or_si256(way[s],
						_mm256_set1_epi8((char)(4 << k)));
			}
			a = _mm256_setzero_si256();
			if (k % Q4X_LEVELLING == Q4X_LEVELLING - 1)
				a = _mm256_min_epu8(_mm256_min_epu8(next[0], next[1]),
					_mm256_min_epu8(next[2], next[3]));
			for (unsigned int s = 0; s < 4; s++) {
				metric[s] = k % Q4X_LEVELLING == Q4X_LEVELLING - 1
					? _mm256_sub_epi8(next[s], a)
					: next[s];
				path[s] = way[s];
			}
		}
		for (unsigned int s = 0; s < 4; s++)
			store(trellis->paths[chunk][s], path[s]);
	}
	/* Bits of the final state, in the top bits of bytes; ties go to the lowest state. */
	a = _mm256_min_epu8(metric[0], metric[1]);
	b = _mm256_min_epu8(metric[2], metric[3]);
	high = _mm256_xor_si256(_mm256_cmpeq_epi8(_mm256_min_epu8(a, b), a), _mm256_set1_epi8(-1));
	low = _mm256_blendv_epi8(_mm256_cmpeq_epi8(a, metric[0]), _mm256_cmpeq_epi8(b, metric[2]),
		high);
	low = _mm256_xor_si256(low, _mm256_set1_epi8(-1));
	store(trellis->taken[head_dim / 8],
		_mm256_or_si256(_mm256_and_si256(high, _mm256_set1_epi8(2)),
			_mm256_and_si256(low, _mm256_set1_epi8(1))));
	for (unsigned int chunk = head_dim / 8; chunk-- > 0;) {
		a = _mm256_blendv_epi8(load(trellis->paths[chunk][0]),
			load(trellis->paths[chunk][1]), low);
		b = _mm256_blendv_epi8(load(trellis->paths[chunk][2]),
			load(trellis->paths[chunk][3]), low);
		a = _mm256_blendv_epi8(a, b, high);
		store(trellis->taken[chunk], a);
		high = _mm256_slli_epi16(a, 6);
		low = _mm256_slli_epi16(a, 7);
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
	const __m256i even = _mm256_broadcastsi128_si256(tensor == CODEC_K ? even_k : even_v);
	const __m256i odd = _mm256_broadcastsi128_si256(tensor == CODEC_K ? odd_k : odd_v);
	const __m256i paths = _mm256_broadcastsi128_si256(tensor == CODEC_K ? paths_k : paths_v);
	const __m256i nibble = _mm256_set1_epi8(15), three = _mm256_set1_epi8(3);

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		__m256i taken = load(trellis->taken[chunk]),
			after = load(trellis->taken[chunk + 1]), window[4], pair[4];

		window[0] = _mm256_and_si256(taken, nibble);
		window[1] = _mm256_and_si256(_mm256_srli_epi16(taken, 2), nibble);
		window[2] = _mm256_and_si256(_mm256_srli_epi16(taken, 4), nibble);
		window[3] = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(taken, 6), three),
			_mm256_slli_epi16(_mm256_and_si256(after, three), 2));
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m256i a = load(trellis->cells[order[8 * chunk + 2 * i]]),
				b = load(trellis->cells[order[8 * chunk + 2 * i + 1]]);

			a = _mm256_adds_epi8(a, _mm256_shuffle_epi8(even, window[i]));
			b = _mm256_adds_epi8(b, _mm256_shuffle_epi8(odd, window[i]));
			if (tensor == CODEC_K) {
				a = _mm256_and_si256(_mm256_srli_epi16(a, 5), _mm256_set1_epi8(7));
				b = _mm256_and_si256(_mm256_srli_epi16(b, 1),
					_mm256_set1_epi8(7 << 4));
			} else {
				a = _mm256_and_si256(_mm256_srli_epi16(a, 6), three);
				b = _mm256_and_si256(_mm256_srli_epi16(b, 3),
					_mm256_set1_epi8(3 << 3));
			}
			pair[i] = _mm256_xor_si256(_mm256_or_si256(a, b),
				_mm256_shuffle_epi8(paths, window[i]));
			if (tensor == CODEC_K)
				store(trellis->codes[4 * chunk + i], pair[i]);
		}
		if (tensor == CODEC_V) { /* six bits each: three bytes */
			__m256i first = _mm256_and_si256(_mm256_slli_epi16(pair[1], 6),
				_mm256_set1_epi8((char)0xc0));
			__m256i second = _mm256_and_si256(_mm256_slli_epi16(pair[2], 4),
				_mm256_set1_epi8((char)0xf0));

			store(trellis->codes[3 * chunk], _mm256_or_si256(pair[0], first));
			store(trellis->codes[3 * chunk + 1],
				_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(pair[1], 2),
							nibble),
					second));
			store(trellis->codes[3 * chunk + 2],
				_mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(pair[2], 4),
							three),
					_mm256_slli_epi16(pair[3], 2)));
		}
	}
}

/* Quantise the cells of 32 tokens to codes. */
INLINE void quantise(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], const uint8_t *order,
	unsigned int head_dim, enum codec_tensor tensor, uint8_t *codes)
{
	unsigned int bytes = q4x_token_bytes(head_dim, tensor);
	struct trellis trellis;

	for (unsigned int c = 0; c < CELLS(head_dim); c += 16) {
		__m256i x[16];

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			x[i] = _mm256_inserti128_si256(
				_mm256_castsi128_si256(_mm_load_si128(
					(const __m128i *)(const void *)(cells[i] + c))),
				_mm_load_si128((const __m128i *)(const void *)(cells[i + 16] + c)),
				1);
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
		__m256i x[16];

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			x[i] = load(trellis.codes[first + i]);
		turn(x);
#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++) {
			_mm_storeu_si128((__m128i *)(void *)(codes + i * bytes + first),
				_mm256_castsi256_si128(x[i]));
			_mm_storeu_si128((__m128i *)(void *)(codes + (i + 16) * bytes + first),
				_mm256_extracti128_si256(x[i], 1));
		}
	}
}

/*
 * One copy per tensor instead of per head size: nothing depends on a constant size, and compilers
 * took minutes for 24 copies.
 */
static __attribute__((noinline)) void quantise_k(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX],
	const uint8_t *order, unsigned int head_dim, uint8_t *codes)
{
	quantise(cells, order, head_dim, CODEC_K, codes);
}

static __attribute__((noinline)) void quantise_v(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX],
	const uint8_t *order, unsigned int head_dim, uint8_t *codes)
{
	quantise(cells, order, head_dim, CODEC_V, codes);
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
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += LANES)
		(tensor == CODEC_K ? quantise_k : quantise_v)(
			(const uint8_t (*)[CODEC_HEAD_DIM_MAX])group.cells + first, order, head_dim,
			codes + (size_t)first * q4x_token_bytes(head_dim, tensor));
	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		if (!out[t]) /* zero tokens have zero codes */
			memset(codes + (size_t)t * q4x_token_bytes(head_dim, tensor), 0,
				q4x_token_bytes(head_dim, tensor));
	return 0;
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

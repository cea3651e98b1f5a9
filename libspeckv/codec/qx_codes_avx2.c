// SPDX-License-Identifier: MIT
/*
 * Codes of the fixed-rate modes with AVX2, from cells. After a transposition a register holds one channel of 32
 * tokens, and 32 trellises are searched at once, channel by channel; the resulting codes are
 * transposed back.
 */
#include "qx_avx2.h"
#include "qx_codes.h"

#define LANES 32

#include "qx_trellis.h"

/* Bytes of a token's cells, in whole registers. */
#define CELLS(head_dim) (((head_dim) + 31) / 32 * 32)

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

INLINE __m256i load(const uint8_t *from)
{
	return _mm256_load_si256((const __m256i *)(const void *)from);
}

INLINE void store(uint8_t *to, __m256i value)
{
	_mm256_store_si256((__m256i *)(void *)to, value);
}

/* Metrics by distance, for both spacings of levels. */
struct metrics {
	__m256i far, near;
};

INLINE struct metrics metrics_for(unsigned int bits)
{
	const __m128i far = _mm_setr_epi8(SIXTEEN(FAR)), near = _mm_setr_epi8(SIXTEEN(NEAR));
	const __m128i far5 = _mm_setr_epi8(SIXTEEN(FAR5)), near5 = _mm_setr_epi8(SIXTEEN(NEAR5));

	return (struct metrics){ _mm256_broadcastsi128_si256(bits == 5 ? far5 : far),
		_mm256_broadcastsi128_si256(bits == 5 ? near5 : near) };
}

/* Metrics of the four subsets. */
INLINE void distances(__m256i cell, const struct metrics *metrics, unsigned int bits,
	__m256i *distance)
{
	/* The top bit is set if the cell is beyond the knee. */
	__m256i outer = _mm256_subs_epu8(_mm256_add_epi8(cell, _mm256_set1_epi8(QX_KNEE)),
		_mm256_set1_epi8(2 * QX_KNEE - 128));

	for (int j = 0; j < 4; j++) {
		__m256i at = _mm256_adds_epi8(cell, _mm256_set1_epi8((char)OFFSET(j, bits)));

		if (bits == 5) {
			at = _mm256_and_si256(at, _mm256_set1_epi8(15));
		} else {
			at = _mm256_and_si256(bits == 4 ? at : _mm256_srli_epi16(at, 1),
				_mm256_set1_epi8(31));
			/* 16 and above is e beyond the level, 15 and below as far before it */
			at = _mm256_or_si256(_mm256_subs_epu8(at, _mm256_set1_epi8(16)),
				_mm256_subs_epu8(_mm256_set1_epi8(15), at));
		}
		distance[j] = _mm256_blendv_epi8(_mm256_shuffle_epi8(metrics->near, at),
			_mm256_shuffle_epi8(metrics->far, at), outer);
	}
}

/* Viterbi search, eight channels at a time: metrics and paths advance by one channel per step. */
INLINE void search(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	unsigned int bits)
{
	const struct metrics metrics = metrics_for(bits);
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
			distances(cell, &metrics, bits, distance);
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
			if (k % QX_LEVELLING == QX_LEVELLING - 1)
				a = _mm256_min_epu8(_mm256_min_epu8(next[0], next[1]),
					_mm256_min_epu8(next[2], next[3]));
			for (unsigned int s = 0; s < 4; s++) {
				metric[s] = k % QX_LEVELLING == QX_LEVELLING - 1
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

/* Tables by path bits. */
struct names {
	__m256i even, odd, paths, next;
};

INLINE struct names names_for(unsigned int bits)
{
	const __m128i even3 = _mm_setr_epi8(SIXTEEN(EVEN3)), odd3 = _mm_setr_epi8(SIXTEEN(ODD3)),
		      even4 = _mm_setr_epi8(SIXTEEN(EVEN4)), odd4 = _mm_setr_epi8(SIXTEEN(ODD4)),
		      even5 = _mm_setr_epi8(SIXTEEN(EVEN5)), odd5 = _mm_setr_epi8(SIXTEEN(ODD5)),
		      paths3 = _mm_setr_epi8(SIXTEEN(PATHS3)),
		      paths4 = _mm_setr_epi8(SIXTEEN(PATHS4)),
		      path5 = _mm_setr_epi8(SIXTEEN(PATH5)), next5 = _mm_setr_epi8(SIXTEEN(NEXT5));

	return (struct names){
		_mm256_broadcastsi128_si256(bits == 3 ? even3
				: bits == 4	      ? even4
						      : even5),
		_mm256_broadcastsi128_si256(bits == 3 ? odd3
				: bits == 4	      ? odd4
						      : odd5),
		_mm256_broadcastsi128_si256(bits == 3 ? paths3
				: bits == 4	      ? paths4
						      : path5),
		_mm256_broadcastsi128_si256(next5),
	};
}

/* Shifts of bytes, of which only `mask` is kept. */
INLINE __m256i left(__m256i x, int by, int mask)
{
	return _mm256_and_si256(_mm256_slli_epi16(x, by), _mm256_set1_epi8((char)mask));
}

INLINE __m256i right(__m256i x, int by, int mask)
{
	return _mm256_and_si256(_mm256_srli_epi16(x, by), _mm256_set1_epi8((char)mask));
}

/* Eight codes of three bits, as four pairs, are three bytes. */
INLINE void write3(const __m256i *pair, uint8_t (*codes)[LANES])
{
	store(codes[0], _mm256_or_si256(pair[0], left(pair[1], 6, 0xc0)));
	store(codes[1], _mm256_or_si256(right(pair[1], 2, 15), left(pair[2], 4, 0xf0)));
	store(codes[2], _mm256_or_si256(right(pair[2], 4, 3), _mm256_slli_epi16(pair[3], 2)));
}

/* Eight codes of five bits are five bytes. */
INLINE void write5(const __m256i *u, uint8_t (*codes)[LANES])
{
	store(codes[0], _mm256_or_si256(u[0], left(u[1], 5, 0xe0)));
	store(codes[1],
		_mm256_or_si256(_mm256_or_si256(right(u[1], 3, 3), _mm256_slli_epi16(u[2], 2)),
			left(u[3], 7, 0x80)));
	store(codes[2], _mm256_or_si256(right(u[3], 1, 15), left(u[4], 4, 0xf0)));
	store(codes[3],
		_mm256_or_si256(_mm256_or_si256(right(u[4], 4, 1), _mm256_slli_epi16(u[5], 1)),
			left(u[6], 6, 0xc0)));
	store(codes[4], _mm256_or_si256(right(u[6], 2, 7), _mm256_slli_epi16(u[7], 3)));
}

INLINE void name(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	unsigned int bits)
{
	const __m256i nibble = _mm256_set1_epi8(15);
	const struct names names = names_for(bits);

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		__m256i taken = load(trellis->taken[chunk]),
			after = load(trellis->taken[chunk + 1]), window[4], u[8];

		window[0] = _mm256_and_si256(taken, nibble);
		window[1] = right(taken, 2, 15);
		window[2] = right(taken, 4, 15);
		window[3] = _mm256_or_si256(right(taken, 6, 3), left(after, 2, 12));
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m256i a = load(trellis->cells[order[8 * chunk + 2 * i]]),
				b = load(trellis->cells[order[8 * chunk + 2 * i + 1]]),
				path = _mm256_shuffle_epi8(names.paths, window[i]);

			a = _mm256_adds_epi8(a, _mm256_shuffle_epi8(names.even, window[i]));
			b = _mm256_adds_epi8(b, _mm256_shuffle_epi8(names.odd, window[i]));
			if (bits == 3) {
				a = _mm256_or_si256(right(a, 6, 3), right(b, 3, 3 << 3));
				u[i] = _mm256_xor_si256(a, path);
			} else if (bits == 4) {
				a = _mm256_or_si256(right(a, 5, 7), right(b, 1, 7 << 4));
				store(trellis->codes[4 * chunk + i], _mm256_xor_si256(a, path));
			} else {
				u[2 * i] = _mm256_xor_si256(right(a, 4, 15), path);
				u[2 * i + 1] = _mm256_xor_si256(right(b, 4, 15),
					_mm256_shuffle_epi8(names.next, window[i]));
			}
		}
		if (bits == 3)
			write3(u, trellis->codes + 3 * chunk);
		else if (bits == 5)
			write5(u, trellis->codes + 5 * chunk);
	}
}

/* Quantise the cells of 32 tokens to codes. */
INLINE void quantise(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], const uint8_t *order,
	unsigned int head_dim, unsigned int bits, uint8_t *codes)
{
	unsigned int bytes = qx_token_bytes(head_dim, bits);
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
	search(&trellis, order, head_dim, bits);
	name(&trellis, order, head_dim, bits);
	/* implied by the head sizes; for the compiler */
	if (bytes < 16 || bytes > CODEC_HEAD_DIM_MAX * QX_BITS_MAX / 8)
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
 * One copy per rate instead of per head size: nothing depends on a constant size, and compilers
 * took minutes for a copy of each.
 */
#define QUANTISE(bits)                                                            \
	static __attribute__((noinline)) void quantise##bits(                     \
		const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], const uint8_t *order, \
		unsigned int head_dim, uint8_t *codes)                            \
	{                                                                         \
		quantise(cells, order, head_dim, bits, codes);                    \
	}
QUANTISE(3)
QUANTISE(4)
QUANTISE(5)

CODEC_QX_CODES(avx2)
{
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += LANES)
		(bits == 3 ? quantise3
				: bits == 4 ? quantise4
					    : quantise5)(cells + first, order, head_dim,
			codes + (size_t)first * qx_token_bytes(head_dim, bits));
}

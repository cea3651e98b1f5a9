// SPDX-License-Identifier: MIT
/*
 * Codes of mode q4x with AVX2, from cells. After a transposition a register holds one channel of 32
 * tokens, and 32 trellises are searched at once, channel by channel; the resulting codes are
 * transposed back.
 */
#include "q4x_avx2.h"
#include "q4x_codes.h"

#define LANES 32

#include "q4x_trellis.h"

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

CODEC_Q4X_CODES(avx2)
{
	for (unsigned int first = 0; first < CODEC_GROUP_TOKENS; first += LANES)
		(tensor == CODEC_K ? quantise_k : quantise_v)(cells + first, order, head_dim,
			codes + (size_t)first * q4x_token_bytes(head_dim, tensor));
}

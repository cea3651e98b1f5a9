// SPDX-License-Identifier: MIT
/*
 * Codes of the fixed-rate modes with AVX-512 (VBMI). The method is that of qx_codes_avx2.c, with
 * all 64 trellises of a group at once; see there for comments missing here.
 */
#include <immintrin.h>

#include "kernels.h"
#include "qx_codes.h"

#define INLINE static inline __attribute__((always_inline))
#define LANES CODEC_GROUP_TOKENS

#include "qx_trellis.h"

#define CELLS(head_dim) (((head_dim) + 63) / 64 * 64)

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
/* Of 5 bits, eight below and eight above; the fifth bit of the position is the level's. */
static const int8_t metrics5[64] __attribute__((aligned(64))) = { SIXTEEN(NEAR5), SIXTEEN(NEAR5),
	SIXTEEN(FAR5), SIXTEEN(FAR5) };

INLINE void search(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	unsigned int bits)
{
	const __m512i table = _mm512_load_si512(bits == 5 ? metrics5 : metrics),
		      place = _mm512_set1_epi8(31);
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
				_mm512_subs_epu8(_mm512_add_epi8(cell, _mm512_set1_epi8(QX_KNEE)),
					_mm512_set1_epi8(2 * QX_KNEE - 128));

			outer = _mm512_srli_epi16(outer, 2);
#pragma GCC unroll 4
			for (int j = 0; j < 4; j++) {
				__m512i at = _mm512_adds_epi8(cell,
					_mm512_set1_epi8((char)OFFSET(j, (int)bits)));

				at = bits == 3 ? _mm512_srli_epi16(at, 1) : at;
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
				metric[s] = k % QX_LEVELLING == QX_LEVELLING - 1
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

/* The path bits p(c-2) .. p(c+1) of the channels c = 0, 2, 4, 6 of eight. */
INLINE void windows(const struct trellis *trellis, unsigned int chunk, __m512i *window)
{
	const __m512i nibble = _mm512_set1_epi8(15), three = _mm512_set1_epi8(3);
	__m512i taken = load(trellis->taken[chunk]), after = load(trellis->taken[chunk + 1]);

	window[0] = _mm512_and_si512(taken, nibble);
	window[1] = _mm512_and_si512(_mm512_srli_epi16(taken, 2), nibble);
	window[2] = _mm512_and_si512(_mm512_srli_epi16(taken, 4), nibble);
	window[3] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(taken, 6), three),
		_mm512_slli_epi16(_mm512_and_si512(after, three), 2));
}

INLINE void name(struct trellis *trellis, const uint8_t *order, unsigned int head_dim,
	unsigned int bits)
{
	const __m128i even_4 = _mm_setr_epi8(SIXTEEN(EVEN4)),
		      even_3 = _mm_setr_epi8(SIXTEEN(EVEN3));
	const __m128i odd_4 = _mm_setr_epi8(SIXTEEN(ODD4)), odd_3 = _mm_setr_epi8(SIXTEEN(ODD3));
	const __m128i paths_4 = _mm_setr_epi8(SIXTEEN(PATHS4)),
		      paths_3 = _mm_setr_epi8(SIXTEEN(PATHS3));
	const __m512i even = _mm512_broadcast_i32x4(bits == 4 ? even_4 : even_3);
	const __m512i odd = _mm512_broadcast_i32x4(bits == 4 ? odd_4 : odd_3);
	const __m512i paths = _mm512_broadcast_i32x4(bits == 4 ? paths_4 : paths_3);
	const __m512i nibble = _mm512_set1_epi8(15), three = _mm512_set1_epi8(3);

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		__m512i window[4], pair[4];

		windows(trellis, chunk, window);
#pragma GCC unroll 4
		for (unsigned int i = 0; i < 4; i++) {
			__m512i a = load(trellis->cells[order[8 * chunk + 2 * i]]),
				b = load(trellis->cells[order[8 * chunk + 2 * i + 1]]);

			a = _mm512_adds_epi8(a, _mm512_shuffle_epi8(even, window[i]));
			b = _mm512_adds_epi8(b, _mm512_shuffle_epi8(odd, window[i]));
			if (bits == 4) {
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
			if (bits == 4)
				store(trellis->codes[4 * chunk + i], pair[i]);
		}
		if (bits == 3) { /* six bits each: three bytes */
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

/* Bits of x, shifted within bytes. */
INLINE __m512i left(__m512i x, unsigned int by)
{
	return _mm512_and_si512(_mm512_slli_epi16(x, by), _mm512_set1_epi8((char)(0xff << by)));
}

INLINE __m512i right(__m512i x, unsigned int by)
{
	return _mm512_and_si512(_mm512_srli_epi16(x, by), _mm512_set1_epi8((char)(0xff >> by)));
}

INLINE void name_5(struct trellis *trellis, const uint8_t *order, unsigned int head_dim)
{
	const __m512i even = _mm512_broadcast_i32x4(_mm_setr_epi8(SIXTEEN(EVEN5)));
	const __m512i odd = _mm512_broadcast_i32x4(_mm_setr_epi8(SIXTEEN(ODD5)));
	const __m512i path = _mm512_broadcast_i32x4(_mm_setr_epi8(SIXTEEN(PATH5)));
	const __m512i next = _mm512_broadcast_i32x4(_mm_setr_epi8(SIXTEEN(NEXT5)));
	const __m512i nibble = _mm512_set1_epi8(15);

	for (unsigned int chunk = 0; chunk < head_dim / 8; chunk++) {
		__m512i window[4], u[8];

		windows(trellis, chunk, window);
#pragma GCC unroll 8
		for (unsigned int i = 0; i < 8; i++) {
			__m512i a = load(trellis->cells[order[8 * chunk + i]]);

			a = _mm512_adds_epi8(a,
				_mm512_shuffle_epi8(i % 2 ? odd : even, window[i / 2]));
			a = _mm512_and_si512(_mm512_srli_epi16(a, 4), nibble);
			u[i] = _mm512_xor_si512(a,
				_mm512_shuffle_epi8(i % 2 ? next : path, window[i / 2]));
		}
		store(trellis->codes[5 * chunk], _mm512_or_si512(u[0], left(u[1], 5)));
		store(trellis->codes[5 * chunk + 1],
			_mm512_or_si512(_mm512_or_si512(right(u[1], 3), left(u[2], 2)),
				left(u[3], 7)));
		store(trellis->codes[5 * chunk + 2],
			_mm512_or_si512(right(u[3], 1), left(u[4], 4)));
		store(trellis->codes[5 * chunk + 3],
			_mm512_or_si512(_mm512_or_si512(right(u[4], 4), left(u[5], 1)),
				left(u[6], 6)));
		store(trellis->codes[5 * chunk + 4],
			_mm512_or_si512(right(u[6], 2), left(u[7], 3)));
	}
}

/* Quantise the cells of a group to codes. */
INLINE void quantise(const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], const uint8_t *order,
	unsigned int head_dim, unsigned int bits, uint8_t *codes)
{
	unsigned int bytes = qx_token_bytes(head_dim, bits);
	struct trellis trellis;

	for (unsigned int c = 0; c < CELLS(head_dim); c += 16) {
		__m512i x[16];

#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++) {
			const uint8_t *from = cells[i] + c;

			x[i] = _mm512_castsi128_si512(
				_mm_load_si128((const __m128i *)(const void *)from));
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(cells[0]) * 16)),
				1);
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(cells[0]) * 32)),
				2);
			x[i] = _mm512_inserti32x4(x[i],
				_mm_load_si128((const __m128i *)(const void *)(from +
					sizeof(cells[0]) * 48)),
				3);
		}
		turn(x);
#pragma GCC unroll 16
		for (unsigned int i = 0; i < 16; i++)
			store(trellis.cells[c + i], x[i]);
	}
	search(&trellis, order, head_dim, bits);
	if (bits == 5)
		name_5(&trellis, order, head_dim);
	else
		name(&trellis, order, head_dim, bits);
	/* implied by the head sizes; for the compiler */
	if (bytes < 16 || bytes > CODEC_HEAD_DIM_MAX * QX_BITS_MAX / 8)
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
 * One copy per width instead of per head size: nothing depends on a constant size, and compilers
 * took minutes for so many copies.
 */
#define CODES_OF(width)                                                           \
	static __attribute__((noinline)) void codes_##width(                      \
		const uint8_t (*cells)[CODEC_HEAD_DIM_MAX], const uint8_t *order, \
		unsigned int head_dim, uint8_t *codes)                            \
	{                                                                         \
		quantise(cells, order, head_dim, width, codes);                   \
	}
CODES_OF(3)
CODES_OF(4)
CODES_OF(5)

CODEC_QX_CODES(avx512)
{
	(bits == 3 ? codes_3 : bits == 4 ? codes_4 : codes_5)(cells, order, head_dim, codes);
}

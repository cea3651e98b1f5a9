// SPDX-License-Identifier: MIT
/*
 * CRC-32C by folding: four 64-byte accumulators, each multiplied forward over the next 256 bytes with VPCLMULQDQ.
 *
 * A 16-byte lane is the polynomial low * x^64 + high, bits reflected. Moving it forward by D bits takes low * x^(D+64) +
 * high * x^D; the carry-less product of reflected values stands one bit low and the 32-bit constants stand in the low half
 * of a quadword, hence x^(D+64-33) and x^(D-33) mod P, reflected.
 */
#include <immintrin.h>

#include "kernels.h"

#define FOLD(low, high) _mm512_set_epi64(high, low, high, low, high, low, high, low)
#define FOLD_2048 FOLD(0xdcb17aa4, 0xb9e02b86)
#define FOLD_1024 FOLD(0x6992cea2, 0x0d3b6092)
#define FOLD_512 FOLD(0x740eef02, 0x9e4addf8)
/* Lanes 0..2 of one register forward onto lane 3: by 384, 256 and 128 bits. */
#define FOLD_LANES _mm512_set_epi64(0, 0, 0x493c7d27, 0xf20c0dfe, 0xba4fc28e, 0x3da6d0cb, 0xddc0152b, 0x1c291d04)

/* Source and destination lie apart; a page of lead hides most of the latency of memory. */
#define PREFETCH_BYTES 1024

static inline __attribute__((always_inline)) __m512i load(const uint8_t *from)
{
	__m512i value = _mm512_loadu_si512(from);

	__asm__ volatile("" : "+v"(value)); /* loaded once: see CODEC_LOADED_ONCE */
	return value;
}

static inline __attribute__((always_inline)) __m512i fold(__m512i value, __m512i by, __m512i next)
{
	return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(value, by, 0x00), _mm512_clmulepi64_epi128(value, by, 0x11), next, 0x96);
}

static inline __attribute__((always_inline)) CODEC_RACING uint32_t tail(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes)
{
	uint64_t wide = state;

	for (; bytes >= 8; bytes -= 8) {
		uint64_t word = (uint64_t)_mm_cvtsi128_si64(_mm_loadl_epi64((const __m128i *)from));

		CODEC_LOADED_ONCE(word);
		if (to) {
			_mm_storel_epi64((__m128i *)to, _mm_cvtsi64_si128((long long)word));
			to += 8;
		}
		wide = _mm_crc32_u64(wide, word);
		from += 8;
	}
	state = (uint32_t)wide;
	for (; bytes; bytes--) {
		uint32_t byte = *from++;

		CODEC_LOADED_ONCE(byte);
		if (to)
			*to++ = (uint8_t)byte;
		state = _mm_crc32_u8(state, (uint8_t)byte);
	}
	return state;
}

static inline __attribute__((always_inline)) void put(uint8_t *to, size_t at, __m512i value)
{
	if (to)
		_mm512_storeu_si512(to + at, value);
}

static inline __attribute__((always_inline)) CODEC_RACING uint32_t run(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes)
{
	__m512i a, next;
	__m128i last;
	size_t at;

	if (bytes < 64)
		return tail(state, to, from, bytes);
	a = load(from);
	put(to, 0, a);
	a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
	at = 64;
	if (bytes >= 512) {
		__m512i b = load(from + 64), c = load(from + 128), d = load(from + 192);

		put(to, 64, b);
		put(to, 128, c);
		put(to, 192, d);
		for (at = 256; bytes - at >= 256; at += 256) {
			__m512i w = load(from + at), x = load(from + at + 64), y = load(from + at + 128), z = load(from + at + 192);

			_mm_prefetch((const char *)from + at + PREFETCH_BYTES, _MM_HINT_T0);
			_mm_prefetch((const char *)from + at + PREFETCH_BYTES + 64, _MM_HINT_T0);
			_mm_prefetch((const char *)from + at + PREFETCH_BYTES + 128, _MM_HINT_T0);
			_mm_prefetch((const char *)from + at + PREFETCH_BYTES + 192, _MM_HINT_T0);
			put(to, at, w);
			put(to, at + 64, x);
			put(to, at + 128, y);
			put(to, at + 192, z);
			a = fold(a, FOLD_2048, w);
			b = fold(b, FOLD_2048, x);
			c = fold(c, FOLD_2048, y);
			d = fold(d, FOLD_2048, z);
		}
		b = fold(a, FOLD_512, b);
		d = fold(c, FOLD_512, d);
		a = fold(b, FOLD_1024, d);
	}
	for (; bytes - at >= 64; at += 64) {
		next = load(from + at);
		put(to, at, next);
		a = fold(a, FOLD_512, next);
	}
	/* The last lane keeps its place: lane 3 alone of `a`, lanes 0..2 carried onto it. */
	next = fold(a, FOLD_LANES, _mm512_maskz_mov_epi64(0xc0, a));
	last = _mm_xor_si128(_mm_xor_si128(_mm512_extracti32x4_epi32(next, 0), _mm512_extracti32x4_epi32(next, 1)),
			     _mm_xor_si128(_mm512_extracti32x4_epi32(next, 2), _mm512_extracti32x4_epi32(next, 3)));
	state = (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last)), (uint64_t)_mm_extract_epi64(last, 1));
	return tail(state, to ? to + at : NULL, from + at, bytes - at);
}

CODEC_RACING uint32_t codec_crc_avx512(uint32_t state, const void *data, size_t bytes)
{
	return run(state, NULL, data, bytes);
}

CODEC_RACING uint32_t codec_crc_copy_avx512(uint32_t state, void *destination, const void *source, size_t bytes)
{
	return run(state, destination, source, bytes);
}

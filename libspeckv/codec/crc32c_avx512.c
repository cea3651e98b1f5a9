// SPDX-License-Identifier: MIT
/*
 * CRC-32C by folding: four 64-byte accumulators, each multiplied forward over the next 256 bytes with VPCLMULQDQ.
 *
 * A 16-byte lane is the polynomial low * x^64 + high, bits reflected. Moving it forward by D bits takes low * x^(D+64) +
 * high * x^D; the carry-less product of reflected values stands one bit low and the 32-bit constants stand in the low half
 * of a quadword, hence x^(D+64-33) and x^(D-33) mod P, reflected.
 */
#include <immintrin.h>
#include <stdbool.h>

#include "kernels.h"

#define FOLD(low, high) _mm512_set_epi64(high, low, high, low, high, low, high, low)
#define FOLD_2048 FOLD(0xdcb17aa4, 0xb9e02b86)
#define FOLD_1024 FOLD(0x6992cea2, 0x0d3b6092)
#define FOLD_512 FOLD(0x740eef02, 0x9e4addf8)
/* Lanes 0..2 of one register forward onto lane 3: by 384, 256 and 128 bits. */
#define FOLD_LANES _mm512_set_epi64(0, 0, 0x493c7d27, 0xf20c0dfe, 0xba4fc28e, 0x3da6d0cb, 0xddc0152b, 0x1c291d04)

/*
 * How far ahead of the fold the source is fetched: the processor's own prefetchers stop at the end of a page. Nothing behind
 * the end of the source is asked for, so that random blocks cost no more bandwidth than they have bytes. Measured best of
 * 0.5 to 16 KiB.
 */
#define LEAD 4096

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

static inline __attribute__((always_inline)) CODEC_RACING uint32_t tail(uint32_t state, bool copy, uint8_t *to, const uint8_t *from, size_t bytes)
{
	uint64_t wide = state;

	for (; bytes >= 8; bytes -= 8) {
		uint64_t word = (uint64_t)_mm_cvtsi128_si64(_mm_loadl_epi64((const __m128i *)from));

		CODEC_LOADED_ONCE(word);
		if (copy) {
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
		if (copy)
			*to++ = (uint8_t)byte;
		state = _mm_crc32_u8(state, (uint8_t)byte);
	}
	return state;
}

enum stores { STORES_NONE, STORES_CACHED, STORES_STREAMED };

static inline __attribute__((always_inline)) void put(enum stores stores, uint8_t *to, size_t at, __m512i value)
{
	if (stores == STORES_CACHED)
		_mm512_storeu_si512(to + at, value);
	else if (stores == STORES_STREAMED)
		_mm512_stream_si512((__m512i *)(void *)(to + at), value);
}

struct lanes {
	__m512i a, b, c, d;
};

static inline __attribute__((always_inline)) CODEC_RACING struct lanes step(struct lanes lanes, enum stores stores, uint8_t *to,
									     const uint8_t *from)
{
	__m512i w = load(from), x = load(from + 64), y = load(from + 128), z = load(from + 192);

	put(stores, to, 0, w);
	put(stores, to, 64, x);
	put(stores, to, 128, y);
	put(stores, to, 192, z);
	lanes.a = fold(lanes.a, FOLD_2048, w);
	lanes.b = fold(lanes.b, FOLD_2048, x);
	lanes.c = fold(lanes.c, FOLD_2048, y);
	lanes.d = fold(lanes.d, FOLD_2048, z);
	return lanes;
}

static inline __attribute__((always_inline)) void fetch(const uint8_t *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		_mm_prefetch((const char *)from + at, _MM_HINT_T0);
}

/* STORES_STREAMED: `to` is on a line. */
static inline __attribute__((always_inline)) CODEC_RACING uint32_t run(uint32_t state, enum stores stores, uint8_t *to, const uint8_t *from,
									size_t bytes)
{
	__m512i sum, next;
	__m128i last;
	size_t at;

	if (bytes < 64)
		return tail(state, stores != STORES_NONE, to, from, bytes);
	fetch(from, bytes < LEAD ? bytes : LEAD);
	sum = load(from);
	put(stores, to, 0, sum);
	sum = _mm512_xor_si512(sum, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
	at = 64;
	if (bytes >= 512) {
		struct lanes lanes = { sum, load(from + 64), load(from + 128), load(from + 192) };

		put(stores, to, 64, lanes.b);
		put(stores, to, 128, lanes.c);
		put(stores, to, 192, lanes.d);
		for (at = 256; bytes - at >= LEAD + 256; at += 256) {
			fetch(from + at + LEAD, 256);
			lanes = step(lanes, stores, stores == STORES_NONE ? NULL : to + at, from + at);
		}
		for (; bytes - at >= 256; at += 256)
			lanes = step(lanes, stores, stores == STORES_NONE ? NULL : to + at, from + at);
		lanes.b = fold(lanes.a, FOLD_512, lanes.b);
		lanes.d = fold(lanes.c, FOLD_512, lanes.d);
		sum = fold(lanes.b, FOLD_1024, lanes.d);
	}
	for (; bytes - at >= 64; at += 64) {
		next = load(from + at);
		put(stores, to, at, next);
		sum = fold(sum, FOLD_512, next);
	}
	if (stores == STORES_STREAMED)
		_mm_sfence(); /* what is published afterwards is published after these */
	/* Lanes 0 to 2 carried onto lane 3, which keeps its place. */
	next = fold(sum, FOLD_LANES, _mm512_maskz_mov_epi64(0xc0, sum));
	last = _mm_xor_si128(_mm_xor_si128(_mm512_extracti32x4_epi32(next, 0), _mm512_extracti32x4_epi32(next, 1)),
			     _mm_xor_si128(_mm512_extracti32x4_epi32(next, 2), _mm512_extracti32x4_epi32(next, 3)));
	state = (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last)), (uint64_t)_mm_extract_epi64(last, 1));
	return tail(state, stores != STORES_NONE, stores == STORES_NONE ? NULL : to + at, from + at, bytes - at);
}

CODEC_RACING uint32_t codec_crc_avx512(uint32_t state, const void *data, size_t bytes)
{
	return run(state, STORES_NONE, NULL, data, bytes);
}

CODEC_RACING uint32_t codec_crc_copy_avx512(uint32_t state, void *destination, const void *source, size_t bytes)
{
	return run(state, STORES_CACHED, destination, source, bytes);
}

CODEC_RACING uint32_t codec_crc_stream_avx512(uint32_t state, void *destination, const void *source, size_t bytes)
{
	/* Short ones are read back soon, and the fence would cost more than it saves. */
	if (bytes < 4096 || (uintptr_t)destination % 64)
		return run(state, STORES_CACHED, destination, source, bytes);
	return run(state, STORES_STREAMED, destination, source, bytes);
}

// SPDX-License-Identifier: MIT
/*
 * CRC-32C by folding: four 64-byte accumulators, each multiplied forward over the next 256 bytes
 * with VPCLMULQDQ.
 *
 * A 16-byte lane is the polynomial low * x^64 + high, bits reflected. Moving it forward by D bits
 * takes low * x^(D+64) + high * x^D; the carry-less product of reflected values stands one bit low
 * and the 32-bit constants stand in the low half of a quadword, hence x^(D+64-33) and x^(D-33) mod
 * P, reflected.
 *
 * Compiled twice: an accumulator is one register of AVX-512, or two of AVX2.
 */
#include <immintrin.h>
#include <stdbool.h>

#include "kernels.h"

/* Factors of the low and the high half of a lane that move it by so many bits. */
#define FOLD_2048 0xdcb17aa4, 0xb9e02b86
#define FOLD_1024 0x6992cea2, 0x0d3b6092
#define FOLD_512 0x740eef02, 0x9e4addf8
#define FOLD_384 0x1c291d04, 0xddc0152b
#define FOLD_256 0x3da6d0cb, 0xba4fc28e
#define FOLD_128 0xf20c0dfe, 0x493c7d27

/*
 * Prefetch distance: hardware prefetchers stop at page boundaries. Nothing past the end of the
 * source is fetched, so that small random blocks do not waste bandwidth. Measured best of 0.5 to 16
 * KiB.
 */
#define LEAD 4096

#define INLINE static inline __attribute__((always_inline))

enum stores { STORES_NONE, STORES_CACHED, STORES_STREAMED };

/* ---- 64 bytes ------------------------------------------------------------------------------- */

#if CODEC_FOLD_BYTES == 64
#define NAMED(kernel) kernel##_avx512

typedef __m512i wide;

INLINE wide load(const uint8_t *from)
{
	__m512i value = _mm512_loadu_si512(from);

	__asm__ volatile("" : "+v"(value)); /* loaded once: see CODEC_LOADED_ONCE */
	return value;
}

INLINE void put(enum stores stores, uint8_t *to, size_t at, wide value)
{
	if (stores == STORES_CACHED)
		_mm512_storeu_si512(to + at, value);
	else if (stores == STORES_STREAMED)
		_mm512_stream_si512((__m512i *)(void *)(to + at), value);
}

INLINE wide begin(wide first, uint32_t state)
{
	return _mm512_xor_si512(first, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
}

INLINE wide fold_by(wide value, __m512i by, wide next)
{
	return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(value, by, 0x00),
		_mm512_clmulepi64_epi128(value, by, 0x11), next, 0x96);
}

INLINE wide fold(wide value, long long low, long long high, wide next)
{
	return fold_by(value, _mm512_set_epi64(high, low, high, low, high, low, high, low), next);
}

/* Fold lanes 0 to 2 onto lane 3, which stays in place. */
INLINE __m128i join(wide sum)
{
	static const long long by[8] = { FOLD_384, FOLD_256, FOLD_128, 0, 0 };
	__m512i moved = fold_by(sum, _mm512_loadu_si512(by), _mm512_maskz_mov_epi64(0xc0, sum));
	__m256i half = _mm256_xor_si256(_mm512_castsi512_si256(moved),
		_mm512_extracti64x4_epi64(moved, 1));

	return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
#else
#define NAMED(kernel) kernel##_vpclmul

typedef struct {
	__m256i low, high;
} wide;

INLINE wide load(const uint8_t *from)
{
	wide value = { _mm256_loadu_si256((const __m256i *)(const void *)from),
		_mm256_loadu_si256((const __m256i *)(const void *)(from + 32)) };

	/* loaded once: see CODEC_LOADED_ONCE */
	__asm__ volatile("" : "+x"(value.low), "+x"(value.high));
	return value;
}

INLINE void put(enum stores stores, uint8_t *to, size_t at, wide value)
{
	if (stores == STORES_CACHED) {
		_mm256_storeu_si256((__m256i *)(void *)(to + at), value.low);
		_mm256_storeu_si256((__m256i *)(void *)(to + at + 32), value.high);
	} else if (stores == STORES_STREAMED) {
		_mm256_stream_si256((__m256i *)(void *)(to + at), value.low);
		_mm256_stream_si256((__m256i *)(void *)(to + at + 32), value.high);
	}
}

INLINE wide begin(wide first, uint32_t state)
{
	first.low =
		_mm256_xor_si256(first.low, _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)state)));
	return first;
}

INLINE __m256i fold_by(__m256i value, __m256i by, __m256i next)
{
	return _mm256_xor_si256(_mm256_xor_si256(_mm256_clmulepi64_epi128(value, by, 0x00),
					_mm256_clmulepi64_epi128(value, by, 0x11)),
		next);
}

INLINE wide fold(wide value, long long low, long long high, wide next)
{
	__m256i by = _mm256_set_epi64x(high, low, high, low);

	return (wide){ fold_by(value.low, by, next.low), fold_by(value.high, by, next.high) };
}

/* Fold lanes 0 to 2 onto lane 3, which stays in place. */
INLINE __m128i join(wide sum)
{
	static const long long by[8] = { FOLD_384, FOLD_256, FOLD_128, 0, 0 };
	__m256i kept = _mm256_blend_epi32(_mm256_setzero_si256(), sum.high, 0xf0);
	__m256i half =
		fold_by(sum.low, _mm256_loadu_si256((const __m256i *)(const void *)by), kept);

	half = fold_by(sum.high, _mm256_loadu_si256((const __m256i *)(const void *)(by + 4)), half);
	return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
#endif

/* ---- any number of bytes -------------------------------------------------------------------- */

INLINE CODEC_RACING uint32_t tail(uint32_t state, bool copy, uint8_t *to, const uint8_t *from,
	size_t bytes)
{
	uint64_t state64 = state;

	for (; bytes >= 8; bytes -= 8) {
		uint64_t word = (uint64_t)_mm_cvtsi128_si64(_mm_loadl_epi64((const __m128i *)from));

		CODEC_LOADED_ONCE(word);
		if (copy) {
			_mm_storel_epi64((__m128i *)to, _mm_cvtsi64_si128((long long)word));
			to += 8;
		}
		state64 = _mm_crc32_u64(state64, word);
		from += 8;
	}
	state = (uint32_t)state64;
	for (; bytes; bytes--) {
		uint32_t byte = *from++;

		CODEC_LOADED_ONCE(byte);
		if (copy)
			*to++ = (uint8_t)byte;
		state = _mm_crc32_u8(state, (uint8_t)byte);
	}
	return state;
}

struct lanes {
	wide a, b, c, d;
};

INLINE CODEC_RACING wide step_at(size_t at, wide sum, enum stores stores, uint8_t *to,
	const uint8_t *from)
{
	wide next = load(from + at);

	put(stores, to, at, next);
	return fold(sum, FOLD_2048, next);
}

INLINE CODEC_RACING struct lanes step(struct lanes lanes, enum stores stores, uint8_t *to,
	const uint8_t *from)
{
	lanes.a = step_at(0, lanes.a, stores, to, from);
	lanes.b = step_at(64, lanes.b, stores, to, from);
	lanes.c = step_at(128, lanes.c, stores, to, from);
	lanes.d = step_at(192, lanes.d, stores, to, from);
	return lanes;
}

INLINE void fetch(const uint8_t *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		_mm_prefetch((const char *)from + at, _MM_HINT_T0);
}

/* STORES_STREAMED: `to` is aligned to a cache line. */
INLINE CODEC_RACING uint32_t run(uint32_t state, enum stores stores, uint8_t *to,
	const uint8_t *from, size_t bytes)
{
	wide sum, next;
	__m128i last;
	size_t at;

	if (bytes < 64)
		return tail(state, stores != STORES_NONE, to, from, bytes);
	fetch(from, bytes < LEAD ? bytes : LEAD);
	sum = load(from);
	put(stores, to, 0, sum);
	sum = begin(sum, state);
	at = 64;
	if (bytes >= 512) {
		struct lanes lanes = { sum, load(from + 64), load(from + 128), load(from + 192) };

		put(stores, to, 64, lanes.b);
		put(stores, to, 128, lanes.c);
		put(stores, to, 192, lanes.d);
		for (at = 256; bytes - at >= LEAD + 256; at += 256) {
			fetch(from + at + LEAD, 256);
			lanes = step(lanes, stores, stores == STORES_NONE ? NULL : to + at,
				from + at);
		}
		for (; bytes - at >= 256; at += 256)
			lanes = step(lanes, stores, stores == STORES_NONE ? NULL : to + at,
				from + at);
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
		_mm_sfence(); /* order the streamed stores before later ones */
	last = join(sum);
	state = (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last)),
		(uint64_t)_mm_extract_epi64(last, 1));
	return tail(state, stores != STORES_NONE, stores == STORES_NONE ? NULL : to + at, from + at,
		bytes - at);
}

CODEC_RACING uint32_t NAMED(codec_crc)(uint32_t state, const void *data, size_t bytes)
{
	return run(state, STORES_NONE, NULL, data, bytes);
}

CODEC_RACING uint32_t NAMED(codec_crc_copy)(uint32_t state, void *destination, const void *source,
	size_t bytes)
{
	return run(state, STORES_CACHED, destination, source, bytes);
}

CODEC_RACING uint32_t NAMED(codec_crc_stream)(uint32_t state, void *destination, const void *source,
	size_t bytes)
{
	/* Small copies are read back soon, and the fence would cost more than it saves. */
	if (bytes < 4096 || (uintptr_t)destination % 64)
		return run(state, STORES_CACHED, destination, source, bytes);
	return run(state, STORES_STREAMED, destination, source, bytes);
}

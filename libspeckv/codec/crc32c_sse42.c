// SPDX-License-Identifier: MIT
/*
 * CRC-32C with the crc32 instruction: three interleaved streams hide its latency, a carry-less
 * multiply joins them.
 *
 * Joining: the register after A then B is register(A) * x^(8 * bytes of B) + register(B). Of two
 * reflected 32-bit values the carry-less product stands one bit low, and crc32 of it multiplies by
 * x^32: the constant is x^(8n - 33) mod P, reflected.
 */
#include <nmmintrin.h>
#include <stdbool.h>
#include <wmmintrin.h>

#include "kernels.h"

/*
 * Prefetch distance and the lengths of the three streams; nothing past the end of the source is
 * fetched.
 */
#define LEAD 6144
#define LONG_STREAM 1024
#define SHIFT_1024 0x170076fau
#define SHIFT_2048 0xa51b6135u
#define SHORT_STREAM 128
#define SHIFT_128 0x0d3b6092u
#define SHIFT_256 0xb9e02b86u

typedef uint64_t __attribute__((may_alias, aligned(1))) unaligned_u64;

enum stores { STORES_NONE, STORES_CACHED, STORES_STREAMED };

static inline __attribute__((always_inline)) uint32_t crc_shift(uint32_t state, uint32_t by)
{
	__m128i product =
		_mm_clmulepi64_si128(_mm_cvtsi32_si128((int)state), _mm_cvtsi32_si128((int)by), 0);

	return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static inline __attribute__((always_inline)) CODEC_RACING uint64_t crc_step(uint64_t state,
	bool copy, uint8_t *to, const uint8_t *from)
{
	uint64_t word = *(const unaligned_u64 *)from;

	CODEC_LOADED_ONCE(word);
	if (copy)
		*(unaligned_u64 *)to = word;
	return _mm_crc32_u64(state, word);
}

/* As step(), for 16 bytes, with a streaming store; `to` is aligned to 16. */
static inline __attribute__((always_inline)) CODEC_RACING uint64_t step_past(uint64_t state,
	uint8_t *to, const uint8_t *from)
{
	__m128i words = _mm_loadu_si128((const __m128i *)(const void *)from);

	__asm__ volatile("" : "+x"(words)); /* loaded once: see CODEC_LOADED_ONCE */
	_mm_stream_si128((__m128i *)(void *)to, words);
	return _mm_crc32_u64(_mm_crc32_u64(state, (uint64_t)_mm_cvtsi128_si64(words)),
		(uint64_t)_mm_extract_epi64(words, 1));
}

/* Three streams of n bytes; prefetches LEAD bytes ahead, up to `end`. */
static inline __attribute__((always_inline)) CODEC_RACING uint32_t streams(uint32_t state,
	enum stores stores, uint8_t *to, const uint8_t *from, size_t n, uint32_t shift_one,
	uint32_t shift_two, const uint8_t *end)
{
	bool copy = stores == STORES_CACHED;
	uint64_t a = state, b = 0, c = 0;

	if ((size_t)(end - from) > LEAD) {
		size_t ahead = (size_t)(end - from) - LEAD;

		for (size_t i = 0; i < 3 * n && i < ahead; i += 64)
			_mm_prefetch((const char *)from + LEAD + i, _MM_HINT_T0);
	}
	for (size_t i = 0; stores == STORES_STREAMED && i < n; i += 16) {
		a = step_past(a, to + i, from + i);
		b = step_past(b, to + n + i, from + n + i);
		c = step_past(c, to + 2 * n + i, from + 2 * n + i);
	}
	for (size_t i = 0; stores != STORES_STREAMED && i < n; i += 8) {
		a = crc_step(a, copy, copy ? to + i : NULL, from + i);
		b = crc_step(b, copy, copy ? to + n + i : NULL, from + n + i);
		c = crc_step(c, copy, copy ? to + 2 * n + i : NULL, from + 2 * n + i);
	}
	return crc_shift((uint32_t)a, shift_two) ^ crc_shift((uint32_t)b, shift_one) ^ (uint32_t)c;
}

/* STORES_STREAMED: `to` is aligned to a cache line. */
static inline __attribute__((always_inline)) CODEC_RACING uint32_t crc_run(uint32_t state,
	enum stores stores, uint8_t *to, const uint8_t *from, size_t bytes)
{
	bool copy = stores != STORES_NONE;
	const uint8_t *end = from + bytes;
	uint64_t wide;

	for (size_t i = 0; i < LEAD && i < bytes; i += 64)
		_mm_prefetch((const char *)from + i, _MM_HINT_T0);
	for (; bytes >= 3 * LONG_STREAM; bytes -= 3 * LONG_STREAM) {
		state = streams(state, stores, to, from, LONG_STREAM, SHIFT_1024, SHIFT_2048, end);
		from += 3 * LONG_STREAM;
		if (copy)
			to += 3 * LONG_STREAM;
	}
	for (; bytes >= 3 * SHORT_STREAM; bytes -= 3 * SHORT_STREAM) {
		state = streams(state, stores, to, from, SHORT_STREAM, SHIFT_128, SHIFT_256, end);
		from += 3 * SHORT_STREAM;
		if (copy)
			to += 3 * SHORT_STREAM;
	}
	if (stores == STORES_STREAMED)
		_mm_sfence(); /* order the streamed stores before later ones */
	wide = state;
	for (; bytes >= 8; bytes -= 8) {
		wide = crc_step(wide, copy, to, from);
		from += 8;
		if (copy)
			to += 8;
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

CODEC_RACING uint32_t codec_crc_sse42(uint32_t state, const void *data, size_t bytes)
{
	return crc_run(state, STORES_NONE, NULL, data, bytes);
}

CODEC_RACING uint32_t codec_crc_copy_sse42(uint32_t state, void *destination, const void *source,
	size_t bytes)
{
	return crc_run(state, STORES_CACHED, destination, source, bytes);
}

CODEC_RACING uint32_t codec_crc_stream_sse42(uint32_t state, void *destination, const void *source,
	size_t bytes)
{
	/* Small copies are read back soon, and the fence would cost more than it saves. */
	if (bytes < 4096 || (uintptr_t)destination % 64)
		return crc_run(state, STORES_CACHED, destination, source, bytes);
	return crc_run(state, STORES_STREAMED, destination, source, bytes);
}

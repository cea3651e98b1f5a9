// SPDX-License-Identifier: MIT
/* CRC-32C: the public calls and the portable kernels (slicing by 16). */
#include <pthread.h>
#include <stdbool.h>

#include <speckv/codec.h>

#include "kernels.h"

#define POLYNOMIAL 0x82f63b78u
#define SLICES 16

typedef uint64_t __attribute__((may_alias, aligned(1))) unaligned_u64;

static uint32_t table[SLICES][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

/* table[s][b]: the register after byte b and s zero bytes, from zero. */
static void table_make(void)
{
	for (unsigned int b = 0; b < 256; b++) {
		uint32_t state = b;

		for (int bit = 0; bit < 8; bit++)
			state = (state >> 1) ^ (state & 1 ? POLYNOMIAL : 0);
		table[0][b] = state;
	}
	for (unsigned int s = 1; s < SLICES; s++)
		for (unsigned int b = 0; b < 256; b++)
			table[s][b] = (table[s - 1][b] >> 8) ^ table[0][table[s - 1][b] & 0xff];
}

static inline __attribute__((always_inline)) uint64_t little(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	return __builtin_bswap64(word);
#else
	return word;
#endif
}

/* Eight bytes through tables first + 7 .. first. */
static inline __attribute__((always_inline)) uint32_t slice(uint64_t word, unsigned int first)
{
	return table[first + 7][word & 0xff] ^ table[first + 6][word >> 8 & 0xff] ^
		table[first + 5][word >> 16 & 0xff] ^ table[first + 4][word >> 24 & 0xff] ^
		table[first + 3][word >> 32 & 0xff] ^ table[first + 2][word >> 40 & 0xff] ^
		table[first + 1][word >> 48 & 0xff] ^ table[first][word >> 56];
}

static inline __attribute__((always_inline)) CODEC_RACING uint32_t crc_run(uint32_t state,
	bool copy, uint8_t *to, const uint8_t *from, size_t bytes)
{
	pthread_once(&table_once, table_make);
	for (; bytes >= 16; bytes -= 16, from += 16) {
		uint64_t low = ((const unaligned_u64 *)from)[0],
			 high = ((const unaligned_u64 *)from)[1];

		CODEC_LOADED_ONCE(low);
		CODEC_LOADED_ONCE(high);
		if (copy) {
			((unaligned_u64 *)to)[0] = low;
			((unaligned_u64 *)to)[1] = high;
			to += 16;
		}
		state = slice(little(low) ^ state, 8) ^ slice(little(high), 0);
	}
	for (; bytes; bytes--) {
		uint32_t byte = *from++;

		CODEC_LOADED_ONCE(byte);
		if (copy)
			*to++ = (uint8_t)byte;
		state = (state >> 8) ^ table[0][(state ^ byte) & 0xff];
	}
	return state;
}

CODEC_RACING uint32_t codec_crc_portable(uint32_t state, const void *data, size_t bytes)
{
	return crc_run(state, false, NULL, data, bytes);
}

CODEC_RACING uint32_t codec_crc_copy_portable(uint32_t state, void *destination, const void *source,
	size_t bytes)
{
	return crc_run(state, true, destination, source, bytes);
}

uint32_t speckv_crc32c(uint32_t crc, const void *data, uint64_t bytes)
{
	return ~codec_kernels()->crc(~crc, data, bytes);
}

uint32_t speckv_crc32c_copy(uint32_t crc, void *destination, const void *source, uint64_t bytes)
{
	return ~codec_kernels()->crc_copy(~crc, destination, source, bytes);
}

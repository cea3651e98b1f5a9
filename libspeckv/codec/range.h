/* SPDX-License-Identifier: MIT */
/* Range coding, shared by all entropy-coded modes: constants of FORMAT.md section 6.3. */
#ifndef SPECKV_CODEC_RANGE_H
#define SPECKV_CODEC_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "mode.h"

#define RANGE_STATES 64
#define RANGE_SYMBOLS 32
#define RANGE_ESCAPE 31
/* Coder states are from this to 256 times this. */
#define RANGE_STATE_MIN (1u << 15)
/* In a group: three bits for the power of two of each state, then the bits below it. */
#define RANGE_POWERS_BYTES (3 * RANGE_STATES / 8)
#define RANGE_STATES_MAX (22 * RANGE_STATES / 8)
/* The last plain bits of a group: 15 in the initial state of each encoder. */
#define RANGE_LAST_BITS 15
#define RANGE_LAST_BYTES (RANGE_STATES * RANGE_LAST_BITS / 8)
/* Vector loads may begin at the last byte. */
#define RANGE_SLACK 64

/* The element of coder `k` among 64: four neighbours are the bytes of one 32-bit lane. */
static inline unsigned int range_element(unsigned int k)
{
	return 4 * (k % 16) + k / 16;
}

/* Frequencies, out of 256, in the forms used for look-ups by decoders and encoders. */
struct range_table {
	uint32_t slot[256]; /* frequency | symbol << 8 | (slot - start) << 16 */
	uint32_t entry[RANGE_SYMBOLS]; /* frequency | (-start mod 2^16) << 16 */
	uint64_t reciprocal[RANGE_SYMBOLS]; /* of the frequency, in 2^-32: floor + 1 */
	uint8_t symbol[256];
	uint8_t frequency[RANGE_SYMBOLS], start[RANGE_SYMBOLS];
	uint32_t held; /* bit map of symbols with a frequency above 0 */
};

/* false: the frequencies do not sum to 256. */
bool codec_range_table(const uint8_t *frequency, struct range_table *table);

/* Read `count` bits, at most 25, from bit `at`; reads up to three bytes beyond. */
static inline uint32_t range_get_bits(const uint8_t *string, uint32_t at, unsigned int count)
{
	return codec_get32(string + at / 8) >> at % 8 & ((1u << count) - 1);
}

/* Write bits to a string that is zero from there on; touches the same three bytes. */
static inline void range_put_bits(uint8_t *string, uint32_t at, uint32_t bits)
{
	codec_put32(string + at / 8, codec_get32(string + at / 8) | bits << at % 8);
}

/* Bytes of 64 states, from their powers; here and below, up to three bytes beyond are read. */
static inline uint32_t range_states_bytes(const uint8_t *powers)
{
	uint32_t bits = 0;

	for (unsigned int k = 0; k < RANGE_STATES; k++)
		bits += 15 + range_get_bits(powers, 3 * k, 3);
	return (bits + 7) / 8;
}

static inline void range_read_states(const uint8_t *powers, const uint8_t *from, uint32_t *states)
{
	uint32_t at = 0;

	for (unsigned int k = 0; k < RANGE_STATES; k++) {
		unsigned int bits = 15 + range_get_bits(powers, 3 * k, 3);

		states[k] = 1u << bits | range_get_bits(from, at, bits);
		at += bits;
	}
}

/* Both destinations are zeroed, with three bytes of slack. Returns the bytes of the states. */
static inline uint32_t range_write_states(const uint32_t *states, uint8_t *powers, uint8_t *to)
{
	uint32_t at = 0;

	for (unsigned int k = 0; k < RANGE_STATES; k++) {
		uint32_t bits = 31u - (uint32_t)__builtin_clz(states[k]);

		range_put_bits(powers, 3 * k, bits - 15);
		range_put_bits(to, at, states[k] - (1u << bits));
		at += bits;
	}
	return (at + 7) / 8;
}

/* The last plain bits are the initial states of the encoder .. */
static inline void range_begin(const uint8_t *last, uint32_t *states)
{
	for (unsigned int k = 0; k < RANGE_STATES; k++)
		states[k] = RANGE_STATE_MIN +
			range_get_bits(last, RANGE_LAST_BITS * k, RANGE_LAST_BITS);
}

/*
 * .. and the final states of the decoder. `last` is zeroed, with three bytes of slack. false:
 * invalid final states.
 */
static inline bool range_end(const uint32_t *states, uint8_t *last)
{
	for (unsigned int k = 0; k < RANGE_STATES; k++) {
		if (states[k] >= RANGE_STATE_MIN << 1)
			return false;
		range_put_bits(last, RANGE_LAST_BITS * k, states[k] - RANGE_STATE_MIN);
	}
	return true;
}

#endif

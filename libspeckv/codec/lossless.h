/* SPDX-License-Identifier: MIT */
/* Mode lossless: constants of FORMAT.md section 6 shared by the kernels. */
#ifndef SPECKV_CODEC_LOSSLESS_H
#define SPECKV_CODEC_LOSSLESS_H

#include <stdbool.h>
#include <stdint.h>

#include "mode.h"
#include "range.h"

#define LOSSLESS_ELEMENTS_MAX (CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX)

/* Values of a section's parameter. */
enum lossless_form { LOSSLESS_STORED = 0, LOSSLESS_CODED = 1, LOSSLESS_SHIFTED = 2 };

/* Frequencies and origin. */
#define LOSSLESS_HEADER_BYTES (RANGE_SYMBOLS + 2)
/* Before a group: bytes of code, number of escapes, powers of the states. */
#define LOSSLESS_COUNTS_BYTES (4 + RANGE_POWERS_BYTES)
/* A group has at most 4 a channel. */
#define LOSSLESS_ESCAPES_MAX(head_dim) (4u * (head_dim))
#define LOSSLESS_PLAIN_MAX (LOSSLESS_ELEMENTS_MAX * 10 / 8)
#define LOSSLESS_RECORD_MAX                                                                        \
	(RANGE_STATES_MAX + LOSSLESS_ELEMENTS_MAX + 2 * LOSSLESS_ESCAPES_MAX(CODEC_HEAD_DIM_MAX) + \
		LOSSLESS_PLAIN_MAX)

/* Split of an element: the sign and the mantissa below its top bit are plain, the rest is coded. */
struct lossless_layout {
	unsigned int bytes; /* of an element */
	unsigned int plain; /* plain bits: as many as the mantissa has */
};

static inline struct lossless_layout lossless_layout(unsigned int dtype)
{
	switch (dtype) {
	case SPECKV_DTYPE_BF16:
		return (struct lossless_layout){ 2, 7 };
	case SPECKV_DTYPE_FP16:
		return (struct lossless_layout){ 2, 10 };
	case SPECKV_DTYPE_FP8_E4M3:
		return (struct lossless_layout){ 1, 3 };
	default:
		return (struct lossless_layout){ 1, 2 };
	}
}

static inline uint32_t lossless_plain_bytes(unsigned int head_dim, unsigned int plain)
{
	return CODEC_GROUP_TOKENS * head_dim * plain / 8;
}

/* Mask of coded values: exponent and top bit of the mantissa. */
static inline uint32_t lossless_value_mask(struct lossless_layout layout)
{
	return (1u << (8 * layout.bytes - layout.plain)) - 1;
}

/*
 * Base value of every channel: the section's origin plus the head's offsets, in octaves. `offsets`
 * NULL: none.
 */
void codec_lossless_base(uint16_t origin, const uint8_t *offsets, unsigned int head_dim,
	uint16_t *base);
int codec_lossless_encode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	uint64_t position, const uint8_t *raw, uint8_t *out, struct codec_section *section);

/*
 * Replace the values of escaped elements, those of 64 in `set`, after the merge. Returns the
 * position of the next escapes.
 */
static inline const uint8_t *lossless_patch(uint8_t *elements, uint64_t set, const uint8_t *escapes,
	struct lossless_layout layout)
{
	unsigned int low = layout.plain - 1;
	uint32_t mask = lossless_value_mask(layout);

	for (; set; set &= set - 1, escapes += 2) {
		unsigned int e = (unsigned int)__builtin_ctzll(set);
		uint32_t value = (codec_get16(escapes) & mask) << low;

		if (layout.bytes == 1)
			elements[e] = (uint8_t)((elements[e] & ~(mask << low)) | value);
		else
			codec_put16(elements + 2 * (size_t)e,
				(uint16_t)((codec_get16(elements + 2 * (size_t)e) & ~(mask << low)) |
					value));
	}
	return escapes;
}

#endif

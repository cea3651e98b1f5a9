/* SPDX-License-Identifier: MIT */
/* How 16-bit floats are put together, for modes that take them apart in integer arithmetic. */
#ifndef SPECKV_CODEC_FLOAT16_H
#define SPECKV_CODEC_FLOAT16_H

#include <speckv/base.h>

struct float_layout {
	unsigned int mantissa_bits;
	int bias;
	uint16_t infinity; /* its bits; magnitudes from here on are not finite */
};

static const struct float_layout float_bf16 = { 7, 127, 0x7f80 }, float_fp16 = { 10, 15, 0x7c00 };

static inline const struct float_layout *float_layout(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? &float_bf16 : &float_fp16;
}

/* Magnitude bits -> significand and exponent field: value = *significand * 2^(field - bias - mantissa_bits). */
static inline uint32_t float_split(const struct float_layout *layout, uint32_t magnitude, uint32_t *significand)
{
	uint32_t field = magnitude >> layout->mantissa_bits;

	*significand = magnitude & ((1u << layout->mantissa_bits) - 1);
	if (!field)
		return 1;
	*significand |= 1u << layout->mantissa_bits;
	return field;
}

#endif

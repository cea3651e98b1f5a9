/* SPDX-License-Identifier: MIT */
/* Layouts of 16-bit floats, for modes that process them in integer arithmetic. */
#ifndef SPECKV_CODEC_FLOAT16_H
#define SPECKV_CODEC_FLOAT16_H

#include <speckv/base.h>

struct float_layout {
	unsigned int mantissa_bits;
	int bias;
	uint16_t infinity; /* bit pattern; larger magnitudes are NaN */
};

static const struct float_layout float_bf16 = { 7, 127, 0x7f80 }, float_fp16 = { 10, 15, 0x7c00 };

static inline const struct float_layout *float_layout(unsigned int dtype)
{
	return dtype == SPECKV_DTYPE_BF16 ? &float_bf16 : &float_fp16;
}

/*
 * Magnitude bits -> significand and exponent field: value = *significand * 2^(field - bias -
 * mantissa_bits).
 */
static inline uint32_t float_split(const struct float_layout *layout, uint32_t magnitude,
	uint32_t *significand)
{
	uint32_t field = magnitude >> layout->mantissa_bits;

	*significand = magnitude & ((1u << layout->mantissa_bits) - 1);
	if (!field)
		return 1;
	*significand |= 1u << layout->mantissa_bits;
	return field;
}

static inline int bit_length(uint32_t value)
{
	return value ? 32 - __builtin_clz(value) : 0;
}

/* magnitude * 2^(shift), to nearest, ties to even */
static inline int32_t float_align(uint32_t magnitude, int shift)
{
	uint32_t quotient, rest, half;

	if (shift >= 0)
		return (int32_t)(magnitude << shift);
	if (shift < -30)
		return 0;
	quotient = magnitude >> -shift;
	rest = magnitude - (quotient << -shift);
	half = 1u << (-shift - 1);
	return (int32_t)(quotient + (rest > half || (rest == half && (quotient & 1))));
}

/*
 * Bits of the number nearest to magnitude * 2^exponent, ties to even; overflow saturates to the
 * largest finite number.
 */
static inline uint32_t float_nearest(const struct float_layout *layout, uint32_t magnitude,
	int exponent)
{
	int least = 1 - layout->bias - (int)layout->mantissa_bits,
	    down = bit_length(magnitude) - 1 - (int)layout->mantissa_bits;
	uint32_t bits;

	if (!magnitude)
		return 0;
	if (exponent + down < least) /* subnormal */
		down = least - exponent;
	/* The implicit bit, and a carry of the rounding, add to the exponent field. */
	bits = (uint32_t)float_align(magnitude, -down) +
		((uint32_t)(exponent + down - least) << layout->mantissa_bits);
	return bits < layout->infinity ? bits : layout->infinity - 1u;
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Fixed-rate modes: the guard of a group. Compares the error that its scale codes let expect with
 * the energy of its signal, and refuses it where the error is too large a share (FORMAT.md 5.6).
 *
 * Of V the signal is what differs from the mean over tokens. Of K that says nothing: K may be a
 * large constant that the rotary embedding turns, and attention sees what is left of it when it is
 * turned back. So its signal is what two tokens before do not tell of a channel. A constant c that
 * turns by w a token obeys x(t) + x(t-2) = 2 cos(w) x(t-1), whatever its phase. Per channel the
 * factor a of least squares is found; what is left of x(t) + x(t-2) - a x(t-1), over 2 + a^2, is
 * the energy of what is new in each token.
 *
 * Judged are the last tokens of a group: they hold no sinks, and half of them are enough.
 *
 * Compiled once for every instruction set (CODEC_ISA), without contraction of multiplications and
 * additions: every channel's numbers are the same in all of them.
 */
#include <endian.h>

#include "kernels.h"
#include "qx.h"
#include "rows.h"

#define JUDGED 32
#define FIRST (CODEC_GROUP_TOKENS - JUDGED)
#define LANES 8
#define STRIPE (2 * LANES)
#define BITS_OF_ONE 0x3f800000
#define INLINE static inline __attribute__((always_inline))

/* Operations are on whole vectors, in a fixed order: compilers may not change any sum. */
typedef uint32_t bits_t __attribute__((vector_size(4 * LANES)));
typedef float floats_t __attribute__((vector_size(4 * LANES)));

/*
 * Mean squared error of a coefficient in squares of the half step, whatever the width: 1.39 to 1.82
 * were measured on Gaussian and on heavy-tailed values. test_qx_guard.c holds decisions to the error
 * that decoding makes.
 */
#define NOISE 1.5f

/* Widen a stripe to binary32, even channels and odd ones apart. Exact for all finite numbers. */
INLINE void widen(const uint8_t *raw, unsigned int dtype, floats_t *out)
{
	bits_t pairs, one, other;

	memcpy(&pairs, raw, sizeof(pairs));
	if (BYTE_ORDER == BIG_ENDIAN)
		pairs = pairs >> 24 | (pairs >> 8 & 0xff00) | (pairs & 0xff00) << 8 | pairs << 24;
	if (dtype == SPECKV_DTYPE_BF16) {
		one = pairs << 16;
		other = pairs & 0xffff0000;
		out[0] = (floats_t)one;
		out[1] = (floats_t)other;
	} else { /* a float of the same bits, moved up, is smaller by 2^(127 - 15) */
		one = (pairs & 0x7fff) << 13 | (pairs & 0x8000) << 16;
		other = (pairs & 0x7fff0000) >> 3 | (pairs & 0x80000000);
		out[0] = (floats_t)one * 0x1p112f;
		out[1] = (floats_t)other * 0x1p112f;
	}
}

static double sum_of(const floats_t *lanes)
{
	double sum = 0;

	for (unsigned int i = 0; i < LANES; i++)
		sum += (double)(*lanes)[i];
	return sum;
}

INLINE void add_positive(floats_t *sum, floats_t x)
{
	*sum += (floats_t)((bits_t)x & (bits_t)(x > 0));
}

/* Energy of K over the judged tokens. */
INLINE double energy_of_k(const uint8_t *raw, unsigned int head_dim, unsigned int dtype)
{
	floats_t energy = { 0 };

	for (unsigned int c = 0; c < head_dim; c += STRIPE) {
		const uint8_t *at = raw + 2 * (FIRST * head_dim + c);
		floats_t x[2], before[2], last[2], both[2] = { 0 }, cross[2] = { 0 },
						   middle[2] = { 0 };

		widen(at, dtype, before);
		widen(at + 2 * head_dim, dtype, last);
		for (unsigned int t = 2; t < JUDGED; t++) {
			widen(at + 2 * t * head_dim, dtype, x);
			for (unsigned int i = 0; i < 2; i++) {
				floats_t ends = x[i] + before[i];

				both[i] += ends * ends;
				cross[i] += ends * last[i];
				middle[i] += last[i] * last[i];
				before[i] = last[i];
				last[i] = x[i];
			}
		}
		for (unsigned int i = 0; i < 2; i++) {
			/* the cross is 0 where the middle is: any divisor but 0 will do */
			bits_t none = (bits_t)(middle[i] == 0) & BITS_OF_ONE;
			floats_t a = cross[i] / (floats_t)((bits_t)middle[i] | none);

			add_positive(&energy, (both[i] - a * cross[i]) / (2 + a * a));
		}
	}
	return sum_of(&energy) * JUDGED / (JUDGED - 2);
}

INLINE double energy_of_v(const uint8_t *raw, unsigned int head_dim, unsigned int dtype)
{
	floats_t energy = { 0 };

	for (unsigned int c = 0; c < head_dim; c += STRIPE) {
		const uint8_t *at = raw + 2 * (FIRST * head_dim + c);
		floats_t x[2], sums[2] = { 0 }, squares[2] = { 0 };

		for (unsigned int t = 0; t < JUDGED; t++) {
			widen(at + 2 * t * head_dim, dtype, x);
			for (unsigned int i = 0; i < 2; i++) {
				sums[i] += x[i];
				squares[i] += x[i] * x[i];
			}
		}
		for (unsigned int i = 0; i < 2; i++)
			add_positive(&energy, squares[i] - sums[i] * sums[i] / JUDGED);
	}
	return sum_of(&energy);
}

static bool is_zero(const uint8_t *raw, unsigned int head_dim)
{
	uint32_t any = 0;

	for (unsigned int c = 0; c < head_dim; c++)
		any |= codec_get16(raw + 2 * c) & 0x7fff;
	return !any;
}

/*
 * Sum over the judged tokens of the squared half steps. A token that is too small for a scale code
 * has the error of the least one.
 */
static double squared_steps(const uint8_t *raw, unsigned int head_dim, const uint8_t *group,
	enum codec_tensor tensor)
{
	double sum = 0;

	for (unsigned int t = FIRST; t < CODEC_GROUP_TOKENS; t++) {
		unsigned int code = tensor == CODEC_K ? group[t] & (QX_ALONE - 1) : group[t];
		uint64_t mantissa, power;
		double unit;

		if (!code) {
			if (is_zero(raw + 2 * t * head_dim, head_dim))
				continue;
			code = 1;
		}
		mantissa = qx_mantissas[(code - 1) % 8];
		/* 4^exponent in the bits of binary64 */
		power = (uint64_t)(1023 + 2 * ((int)((code - 1) / 8) + qx_least_exponent(tensor)))
			<< 52;
		memcpy(&unit, &power, sizeof(unit));
		sum += (double)(mantissa * mantissa) * unit;
	}
	return sum;
}

bool NAME(codec_qx_guard_, CODEC_ISA)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
	enum codec_tensor tensor, const uint8_t *group)
{
	double energy, spread = head_dim, error;
	struct qx_side side;

	if (tensor == CODEC_K) {
		qx_side_read(group + QX_SCALES, head_dim, &side);
		spread = 0;
		for (unsigned int c = 0; c < head_dim; c++)
			spread += 1u << 2 * side.exponent[c];
		energy = QX_GUARD_K *
			(dtype == SPECKV_DTYPE_BF16
					? energy_of_k(raw, head_dim, SPECKV_DTYPE_BF16)
					: energy_of_k(raw, head_dim, SPECKV_DTYPE_FP16));
	} else {
		energy = QX_GUARD_V *
			(dtype == SPECKV_DTYPE_BF16
					? energy_of_v(raw, head_dim, SPECKV_DTYPE_BF16)
					: energy_of_v(raw, head_dim, SPECKV_DTYPE_FP16));
	}
	/* A channel has the noise of all coefficients of its slice. */
	error = NOISE * squared_steps(raw, head_dim, group, tensor) * spread *
		(double)(1u << qx_slice_log2(head_dim));
	return error <= energy;
}

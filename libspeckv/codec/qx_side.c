// SPDX-License-Identifier: MIT
/*
 * Fixed-rate modes: what is stored of the channels of a group of K, its mean and the exponents of
 * channels that stand out. Shared by all kernels. FORMAT.md 5.4.
 */
#include <string.h>

#include "qx.h"
#include "float16.h"

/* Of the logarithms of spreads, in eighths: smaller ones count as this much below the largest. */
#define SPREAD_RANGE 64

void qx_side_read(const uint8_t *part, unsigned int head_dim, struct qx_side *side)
{
	/* Eight fields are seven bytes: spread 56 bits over 64 in three steps. */
	for (unsigned int c = 0; c < head_dim; c += 8, part += QX_FIELD_BITS) {
		uint64_t x = codec_get32(part) | (uint64_t)codec_get16(part + 4) << 32 |
			(uint64_t)part[6] << 48;

		x = (x & UINT64_C(0x0fffffff)) | (x & UINT64_C(0xfffffff0000000)) << 4;
		x = (x & UINT64_C(0x00003fff00003fff)) | (x & UINT64_C(0x0fffc0000fffc000)) << 2;
		x = (x & UINT64_C(0x007f007f007f007f)) | (x & UINT64_C(0x3f803f803f803f80)) << 1;
		for (unsigned int i = 0; i < 8; i++) {
			unsigned int field = (unsigned int)(x >> 8 * i) & 0x7f;

			side->mean[c + i] = (int8_t)((int)(field & 31) - QX_MEAN_BIAS);
			side->exponent[c + i] = (uint8_t)(field >> QX_EXPONENT_SHIFT);
		}
	}
	side->code = *part;
}

void qx_side_write(const struct qx_side *side, unsigned int head_dim, uint8_t *part)
{
	memset(part, 0, qx_side_bytes(head_dim, CODEC_K));
	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int at = c * QX_FIELD_BITS,
			     field = (unsigned int)(side->mean[c] + QX_MEAN_BIAS) |
			(unsigned int)side->exponent[c] << QX_EXPONENT_SHIFT;

		part[at / 8] |= (uint8_t)(field << at % 8);
		if (at % 8 > 1)
			part[at / 8 + 1] |= (uint8_t)(field >> (8 - at % 8));
	}
	part[head_dim * QX_FIELD_BITS / 8] = side->code;
}

static int32_t step_of(unsigned int r)
{
	return qx_mantissas[r % 8] << r / 8;
}

void qx_side_mean(const int32_t *sums, unsigned int tokens, unsigned int head_dim, int unit,
	struct qx_side *side, int32_t *base)
{
	int32_t largest = 0, step, n = (int32_t)tokens;
	unsigned int r = 0;
	bool any = false;
	int code;

	for (unsigned int c = 0; c < head_dim; c++) {
		int32_t twice = 2 * sums[c] + n, rounded = twice / (2 * n);

		base[c] = rounded - (twice < 0 && rounded * 2 * n != twice);
		largest = base[c] > largest ? base[c] : -base[c] > largest ? -base[c] : largest;
	}
	while (QX_MEAN_MOST * step_of(r) < largest)
		r++;
	step = step_of(r);
	code = 8 * (unit + 32) + 1 + (int)r;
	for (unsigned int c = 0; c < head_dim; c++) {
		int32_t magnitude = base[c] < 0 ? -base[c] : base[c],
			q = (2 * magnitude + step) / (2 * step);

		side->mean[c] = (int8_t)(base[c] < 0 ? -q : q);
		any = any || q;
	}
	side->code = any && code >= 1 && code <= 255 ? (uint8_t)code : 0;
	for (unsigned int c = 0; c < head_dim; c++) {
		side->mean[c] = side->code ? side->mean[c] : 0;
		base[c] = side->mean[c] * step;
	}
}

/* log2 in eighths, linear between powers of two; 0 for numbers below 4. */
static int eighths_of(uint32_t value)
{
	int octave;

	value >>= 2;
	if (!value)
		return 0;
	octave = bit_length(value) - 1;
	return 8 * octave + (int)((octave < 3 ? value << (3 - octave) : value >> (octave - 3)) & 7);
}

void qx_side_exponents(const int32_t *spread, unsigned int head_dim, struct qx_side *side)
{
	int eighths[CODEC_HEAD_DIM_MAX], most = 0, total = 0, dim = (int)head_dim;

	for (unsigned int c = 0; c < head_dim; c++) {
		eighths[c] = eighths_of((uint32_t)spread[c]);
		most = eighths[c] > most ? eighths[c] : most;
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		eighths[c] = eighths[c] > most - SPREAD_RANGE ? eighths[c] : most - SPREAD_RANGE;
		total += eighths[c];
	}
	for (unsigned int c = 0; c < head_dim; c++) {
		int above = dim * eighths[c] - total, exponent = 0;

		for (int k = 1; k <= QX_EXPONENT_MOST; k++)
			exponent += above >= 8 * dim * (k + 1);
		side->exponent[c] = (uint8_t)exponent;
	}
}

int32_t qx_side_weights(const struct qx_side *side, const int32_t *base, unsigned int head_dim,
	int32_t *weights)
{
	int64_t squares = 0;

	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int up = 2u * (unsigned int)(QX_EXPONENT_MOST - side->exponent[c]);

		weights[c] = side->mean[c] * (1 << up);
		squares += (int64_t)base[c] * weights[c];
	}
	/* |x - b|^2 > |x|^2 as 2 x.b < b.b; values lose six bits and one more is the factor */
	return (int32_t)(squares / 128);
}

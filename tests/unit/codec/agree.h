/* SPDX-License-Identifier: MIT */
/*
 * Groups by the million: 64 tokens of one head, made four values a word, a kind for each token or
 * one for all.
 */
#ifndef TEST_CODEC_AGREE_H
#define TEST_CODEC_AGREE_H

#include "harness.h"
#include "codec/mode.h"

#define AGREE_KINDS 8
#define EACH UINT64_C(0x0001000100010001)

/*
 * Exponents mostly lie in `span` from `first` on: what a mode can hold, or all would be zeros and
 * refusals.
 */
struct group_shape {
	unsigned int dtype, head_dim, first, span;
};

/*
 * One token: head_dim 16-bit values, four a word. `alike` is NULL or how all tokens of the group
 * are made, but for the octave.
 */
static inline void make_token(uint64_t *seed, const struct group_shape *s, const uint64_t *alike,
	uint64_t *words, uint64_t *kinds)
{
	unsigned int mantissa = s->dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
		     exponents = s->dtype == SPECKV_DTYPE_BF16 ? 255 : 31, head_dim = s->head_dim;
	uint64_t how = alike ? *alike + (random_next(seed) & 3) * 256 : random_next(seed),
		 fraction = EACH * ((1u << mantissa) - 1), sign = EACH * 0x8000;
	uint64_t exponent = s->first + (how >> 8 & 0xff) % s->span, open = 0, mask, kind = how & 7;

	if ((how >> 16 & 0xfff) == 0)
		exponent = (how >> 24) % exponents;
	kinds[kind]++;
	switch (kind) {
	case 0: /* one octave */
		mask = fraction | sign;
		break;
	case 1: /* octaves below it: bits of the exponent that may fall */
		mask = fraction | sign;
		open = exponent & how >> 32 & 15;
		break;
	case 2: /* few bits: sums that cancel, ties */
		mask = sign | EACH * ((how >> 32 & 3) << (mantissa - 2));
		break;
	case 3: /* one value, one sign, or zeros of both signs */
		mask = how >> 33 & 1 ? sign : 0;
		exponent = how >> 34 & 7 ? exponent : 0;
		break;
	case 4: /* subnormals */
		mask = (fraction & EACH * (how >> 32 & 0x3ff)) | sign;
		exponent = 0;
		break;
	case 5: /* a narrow band just below a power of two */
		mask = EACH * (how >> 32 & 7) | sign;
		break;
	default:
		mask = fraction | sign;
		break;
	}
	for (unsigned int i = 0; i < head_dim / 4; i++) {
		uint64_t word = random_next(seed) & (mask | EACH * (open << mantissa));

		if (kind == 5)
			word |= fraction & ~(EACH * 7);
		words[i] = word | EACH * ((exponent & ~open) << mantissa);
	}
	if (kind >= 6) { /* outliers: one, or some, up or down by octaves */
		unsigned int outliers = kind == 6 ? 1 : 1 + (how >> 40 & 7);

		while (outliers--) {
			uint16_t *at = (uint16_t *)(void *)words + random_below(seed, head_dim);
			unsigned int other = s->first + random_below(seed, s->span);

			*at = (uint16_t)((*at & 0x8000) | other << mantissa |
				(*at & ((1u << mantissa) - 1)));
		}
	}
	if ((how >> 48) % 5000 == 1) /* not finite: the group is refused */
		((uint16_t *)(void *)words)[random_below(seed, head_dim)] |=
			(uint16_t)(exponents << mantissa);
}

/* A group, of CODEC_GROUP_TOKENS * head_dim / 4 words. */
static inline void make_group(uint64_t *seed, const struct group_shape *s, uint64_t *words,
	uint64_t *kinds)
{
	uint64_t how = random_next(seed), alike = random_next(seed) & ~UINT64_C(0xffff000000000000);
	uint16_t *values = (uint16_t *)(void *)words;

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++)
		make_token(seed, s, how & 1 ? &alike : NULL, words + t * s->head_dim / 4, kinds);
	/* some channels the same in all tokens, or of one sign */
	for (unsigned int c = 0; c < s->head_dim && (how & 3) == 3; c++)
		for (unsigned int t = 0, what = random_below(seed, 8);
			t < CODEC_GROUP_TOKENS && what < 2; t++) {
			uint16_t *at = values + t * s->head_dim + c;

			*at = what ? (uint16_t)(*at & 0x7fff) : values[c];
		}
}

#endif

// SPDX-License-Identifier: MIT
/*
 * Groups of q3x, q4x and q5x: the portable kernels held to FORMAT.md section 5 (qx_spec.c)
 * over groups of every kind and any bytes; every other set of kernels held to the portable one; and
 * the error they are to make.
 *
 * Usage: test_codec_qx [groups, default 648]
 */
#include <math.h>

#include "qx_spec.h"

#define GROUPS 648

/* Numbers with a bell's distribution, out of twelve even ones. */
static double bell(uint64_t *seed)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += random_below(seed, 1 << 20) / 1048576.0;
	return sum;
}

enum kind {
	KIND_STYLE, /* of random_values() */
	KIND_BELL,
	KIND_OFFSETS, /* channels far off zero */
	KIND_ALONE, /* and tokens far from the others */
	KIND_OUTLIERS, /* channels that stand out */
	KIND_SHARES, /* any share of the channels stands out, by more than is counted */
	KIND_ZERO_TOKENS, /* with and without a mean */
	KIND_ZERO,
	KIND_SUBNORMAL,
	KIND_LARGE, /* about as large as scale codes go */
	KIND_SMALL, /* about as small */
	KIND_NOT_FINITE, /* one number */
	KIND_FAR_CHANNEL, /* a mean too large for a scale code */
	KIND_FIRST, /* a first token above the others */
	KIND_WALSH, /* a token is in one coefficient; ties */
	KIND_ALMOST, /* coefficients that round up to a power of two */
	KIND_CONSTANT, /* all as large as can be, a few tokens of the other sign */
	KINDS
};

/* What a value is made of: scale * token * (offset + factor * bell). */
struct recipe {
	double scale, token[TOKENS], offset[MOST], factor[MOST];
};

static double power(uint64_t *seed, int least, int most)
{
	return ldexp(1, least + (int)random_below(seed, (uint32_t)(most - least + 1)));
}

static void choose_recipe(uint64_t *seed, enum kind kind, struct recipe *r)
{
	double apart = random_below(seed, 2) ? 30 : 3;
	bool outliers = kind == KIND_OUTLIERS ||
		((kind == KIND_OFFSETS || kind == KIND_ALONE) && random_below(seed, 2));
	unsigned int share = 1 + random_below(seed, 64);

	r->scale = power(seed, -3, 1);
	for (unsigned int c = 0; c < MOST; c++) {
		r->factor[c] = kind == KIND_ALMOST	      ? 0
			: outliers && !random_below(seed, 12) ? power(seed, 1, 7)
							      : 1;
		r->offset[c] = kind == KIND_OFFSETS || kind == KIND_ALONE ? apart * bell(seed) : 0;
		if (kind == KIND_SHARES && random_below(seed, 64) < share)
			r->factor[c] = 2048;
		if (kind == KIND_ZERO_TOKENS && r->scale < 1)
			r->offset[c] = 5;
		if (kind == KIND_CONSTANT) {
			r->factor[c] = 0;
			r->offset[c] = 1;
		}
	}
	for (unsigned int t = 0; t < TOKENS; t++) {
		r->token[t] = 1;
		if (kind == KIND_ALONE && !random_below(seed, 6))
			r->token[t] = random_below(seed, 2) ? -1 : random_below(seed, 200) / 100.0;
		if (kind == KIND_ZERO_TOKENS && !random_below(seed, 4))
			r->token[t] = 0;
		if (kind == KIND_CONSTANT && !random_below(seed, 8))
			r->token[t] = -1;
	}
	if (kind == KIND_FIRST) {
		r->token[0] = power(seed, 1, 12);
		r->scale = power(seed, -7, -5);
	}
	if (kind == KIND_LARGE)
		r->scale = power(seed, 3, 13);
	if (kind == KIND_SMALL)
		r->scale = power(seed, -30, -8);
	if (kind == KIND_ZERO)
		r->scale = 0;
	if (kind == KIND_CONSTANT)
		r->scale = random_below(seed, 2) ? 2 - 1 / 1024.0 : power(seed, -20, 12);
	if (kind == KIND_FAR_CHANNEL)
		r->offset[random_below(seed, 64)] = 60000 / r->scale;
}

/*
 * The largest coefficient of a token is its two numbers' sum, just below a power of two. Tokens
 * cancel each other in pairs, and each channel that has any has both numbers: no mean, and one
 * exponent.
 */
static double almost(const struct qx_shape *s, unsigned int t, unsigned int c)
{
	double step = ldexp(1, s->dtype == SPECKV_DTYPE_BF16 ? -7 : -10);
	unsigned int at = t / 4 % 16 * 2 + t / 2 % 2;
	double x = c == at ? 2 - step : c == (at ^ 1) ? step - ldexp(1, -15) : 0;

	return t % 2 ? -x : x;
}

static void make_group(uint64_t *seed, const struct qx_shape *s, enum kind kind, uint16_t *raw)
{
	static const uint16_t special[2][3] = { { 0x7f80, 0xff80, 0x7fc1 },
		{ 0x7c00, 0xfc00, 0x7c01 } };
	struct speckv_geometry g = { .head_dim = (uint16_t)s->head_dim,
		.dtype = (uint8_t)s->dtype };
	uint16_t most = s->dtype == SPECKV_DTYPE_BF16 ? 0x80 : 0x400;
	unsigned int hd = s->head_dim;
	struct recipe r;

	if (kind == KIND_STYLE) {
		random_values(seed, &g, (enum style)random_below(seed, STYLES), raw, TOKENS * hd);
		return;
	}
	choose_recipe(seed, kind, &r);
	for (unsigned int i = 0; i < TOKENS * hd; i++) {
		unsigned int t = i / hd, c = i % hd;
		double x = r.offset[c] + (r.factor[c] > 0 ? r.factor[c] * bell(seed) : 0);

		if (kind == KIND_WALSH)
			x = __builtin_parity(t & c) ? -1 : 1;
		if (kind == KIND_ALMOST)
			x = almost(s, t, c);
		raw[i] = qx_spec_number(s->dtype, r.scale * r.token[t] * x);
		if (kind == KIND_SUBNORMAL)
			raw[i] = (uint16_t)(random_below(seed, 2) << 15 | random_below(seed, most));
		if (kind == KIND_ZERO)
			raw[i] = (uint16_t)(random_below(seed, 2) << 15);
	}
	if (kind == KIND_NOT_FINITE)
		raw[random_below(seed, 2) ? random_below(seed, 4 * hd)
					  : random_below(seed, TOKENS * hd)] =
			special[s->dtype - 1][random_below(seed, 3)];
}

/* Combination number i of the 72, with leading tokens left out or not. */
static struct qx_shape shape_of(uint64_t *seed, unsigned long i)
{
	return (struct qx_shape){
		.tensor = i % 2 ? CODEC_K : CODEC_V,
		.dtype = i / 2 % 2 ? SPECKV_DTYPE_BF16 : SPECKV_DTYPE_FP16,
		.bits = 3 + (unsigned int)(i / 4 % 3),
		.head_dim = head_dims[i / 12 % 6],
		.sinks = random_below(seed, 2) * 4,
	};
}

static const char *described(const struct qx_shape *s, int kind)
{
	static char text[100];

	snprintf(text, sizeof(text), "%s %s head %u, %u bits, %u left out, kind %d",
		s->tensor == CODEC_K ? "K" : "V", speckv_dtype_name((enum speckv_dtype)s->dtype),
		s->head_dim, s->bits, s->sinks, kind);
	return text;
}

static void decoded_by_the_specification(const struct qx_shape *s, int kind, const uint8_t *group)
{
	static uint16_t out[TOKENS * MOST] __attribute__((aligned(64))), expected[TOKENS * MOST];

	codec_qx_decode_portable(group, s->head_dim, s->dtype, s->bits, s->tensor, (uint8_t *)out,
		false);
	qx_spec_decode(s, group, expected);
	for (unsigned int i = 0; i < TOKENS * s->head_dim; i++)
		CHECK(out[i] == expected[i],
			"%s: token %u of scale %02x, channel %u: %04x, expected %04x",
			described(s, kind), i / s->head_dim, group[i / s->head_dim],
			i % s->head_dim, out[i], expected[i]);
}

static void any_bytes(uint64_t *seed, uint8_t *group)
{
	/* One in four has fields and codes of ones, or of zeros. */
	uint8_t set = random_below(seed, 8) ? 0 : 0xff, clear = random_below(seed, 8) ? 0xff : 0;

	for (unsigned int k = 0; k < QX_GROUP_MAX; k++)
		group[k] = (uint8_t)((random_next(seed) | (k < TOKENS ? 0 : set)) &
			(k < TOKENS ? 0xff : clear));
}

static void held_to_the_specification(uint64_t *seed, unsigned long groups, struct qx_seen *seen)
{
	static uint16_t raw[TOKENS * MOST];
	uint8_t *group = line_alloc(QX_GROUP_MAX), *expected = line_alloc(QX_GROUP_MAX);

	for (unsigned long i = 0; i < groups; i++) {
		struct qx_shape s = shape_of(seed, i);
		enum kind kind = (enum kind)((i + i / 72) % KINDS);
		uint32_t bytes = qx_spec_bytes(&s);
		int rc, rc_expected;

		CHECK(bytes == qx_group_bytes(s.head_dim, s.bits, s.tensor), "%u bytes", bytes);
		make_group(seed, &s, kind, raw);
		memset(group, 0xaa, QX_GROUP_MAX);
		rc = codec_qx_encode_portable((uint8_t *)raw, s.head_dim, s.dtype, s.bits, s.tensor,
			s.sinks, group);
		rc_expected = qx_spec_encode(&s, raw, expected, seen);
		CHECK(rc == rc_expected, "%s: %d, expected %d", described(&s, kind), rc,
			rc_expected);
		for (uint32_t k = 0; !rc && k < bytes; k++)
			CHECK(group[k] == expected[k], "%s: byte %u is %02x, expected %02x",
				described(&s, kind), k, group[k], expected[k]);
		for (uint32_t k = bytes; k < QX_GROUP_MAX; k++)
			CHECK(group[k] == 0xaa, "%s: nothing beyond the group",
				described(&s, kind));
		if (!rc)
			decoded_by_the_specification(&s, kind, group);
		any_bytes(seed, group);
		decoded_by_the_specification(&s, -1, group);
	}
	free(group);
	free(expected);
}

/* The cases that must have been among the groups, each often enough. */
static void all_were_seen(const struct qx_seen *seen, bool enough)
{
	const struct {
		const char *name;
		unsigned long seen, least;
	} cases[] = {
		{ "groups", seen->groups, 400 },
		{ "refused: not finite", seen->not_finite, 15 },
		{ "refused: too large", seen->too_large, 15 },
		{ "not finite where left out", seen->sunk, 4 },
		{ "0 left out", seen->sinks[0], 150 },
		{ "4 left out", seen->sinks[4], 150 },
		{ "groups of zeros", seen->zero_groups, 15 },
		{ "tokens of zeros", seen->zero_tokens, 1000 },
		{ "groups with subnormals", seen->subnormal, 30 },
		{ "groups of K with an exponent below -60", seen->lowest, 5 },
		{ "coefficients of 32768", seen->clamped, 100 },
		{ "means", seen->means, 100 },
		{ "means too small", seen->means_too_low, 4 },
		{ "means too large", seen->means_too_high, 4 },
		{ "channels of exponent 0", seen->exponents[0], 10000 },
		{ "channels of exponent 1", seen->exponents[1], 100 },
		{ "channels of exponent 2", seen->exponents[2], 20 },
		{ "channels of exponent 3", seen->exponents[3], 20 },
		{ "channels without spread", seen->still, 100 },
		{ "channels eight octaves below", seen->raised, 20 },
		{ "tokens alone", seen->alone, 100 },
		{ "tokens of zeros alone", seen->alone_zero, 10 },
		{ "tokens below the least scale", seen->faint, 100 },
		{ "tokens not shifted", seen->unshifted, 100 },
		{ "tokens of step 0", seen->steps[0], 20 },
		{ "tokens of step 9", seen->steps[9], 20 },
		{ "cells beyond the knee", seen->beyond_knee, 100 },
		{ "last cells", seen->last_cell, 500 },
		{ "metrics at their limit", seen->full, 1000 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		printf("%s: %lu\n", cases[i].name, cases[i].seen);
	for (size_t i = 0; enough && i < sizeof(cases) / sizeof(cases[0]); i++)
		CHECK(cases[i].seen >= cases[i].least, "%s: %lu, expected %lu", cases[i].name,
			cases[i].seen, cases[i].least);
}

/* A group of every scale code, 64 from `first` on, with random fields and codes. */
static void every_scale(const struct codec_kernels *kernels)
{
	uint8_t *group = line_alloc(QX_GROUP_MAX);
	uint16_t *out = line_alloc(TOKENS * MOST * 2), *expected = line_alloc(TOKENS * MOST * 2);
	uint64_t seed = 5;

	for (unsigned long i = 0; i < 4 * 72; i++) {
		struct qx_shape s = shape_of(&seed, i / 4);

		any_bytes(&seed, group);
		for (unsigned int t = 0; t < TOKENS; t++)
			group[t] = (uint8_t)(i % 4 * TOKENS + t);
		kernels->qx_decode(group, s.head_dim, s.dtype, s.bits, s.tensor, (uint8_t *)out,
			true);
		codec_qx_decode_portable(group, s.head_dim, s.dtype, s.bits, s.tensor,
			(uint8_t *)expected, false);
		CHECK(!memcmp(out, expected, 2ul * TOKENS * s.head_dim), "%s: %s scales from %lu",
			kernels->name, described(&s, -1), i % 4 * TOKENS);
	}
	free(group);
	free(out);
	free(expected);
}

static void against_the_portable_kernels(uint64_t *seed, const struct codec_kernels *kernels,
	unsigned long groups)
{
	uint8_t *space = line_alloc(TOKENS * MOST * 2 + 128), *mine = line_alloc(QX_GROUP_MAX),
		*decoded = line_alloc(TOKENS * MOST * 2 + 128),
		*reference = line_alloc(QX_GROUP_MAX);
	uint16_t *expected = line_alloc(TOKENS * MOST * 2);
	unsigned long refused = 0;

	for (unsigned long i = 0; i < groups; i++) {
		struct qx_shape s = shape_of(seed, i);
		enum kind kind = (enum kind)random_below(seed, KINDS);
		uint32_t offset = 2 * random_below(seed, 32), size = 2 * TOKENS * s.head_dim;
		uint8_t *out = decoded + (i % 3 ? offset : 0);
		int rc, rc_reference;

		make_group(seed, &s, kind, (uint16_t *)(void *)(space + offset));
		memset(mine, 0xaa, QX_GROUP_MAX);
		memset(reference, 0xaa, QX_GROUP_MAX);
		rc = kernels->qx_encode(space + offset, s.head_dim, s.dtype, s.bits, s.tensor,
			s.sinks, mine);
		rc_reference = codec_qx_encode_portable(space + offset, s.head_dim, s.dtype, s.bits,
			s.tensor, s.sinks, reference);
		CHECK(rc == rc_reference, "%s: %s: %d, expected %d", kernels->name,
			described(&s, kind), rc, rc_reference);
		refused += !!rc;
		for (uint32_t k = 0; !rc && k < QX_GROUP_MAX; k++)
			CHECK(mine[k] == reference[k], "%s: %s: byte %u is %02x, expected %02x",
				kernels->name, described(&s, kind), k, mine[k], reference[k]);
		if (rc || i % 4 == 3)
			any_bytes(seed, reference);
		memset(decoded, 0xbb, TOKENS * MOST * 2 + 128);
		kernels->qx_decode(reference, s.head_dim, s.dtype, s.bits, s.tensor, out,
			random_below(seed, 2));
		codec_qx_decode_portable(reference, s.head_dim, s.dtype, s.bits, s.tensor,
			(uint8_t *)expected, false);
		for (uint32_t k = 0; k < size / 2; k++) {
			uint16_t word;

			memcpy(&word, out + 2 * k, 2);
			CHECK(word == expected[k], "%s: %s: value %u is %04x, expected %04x",
				kernels->name, described(&s, kind), k, word, expected[k]);
		}
		CHECK(out[size] == 0xbb, "%s: nothing beyond the group", kernels->name);
	}
	printf("%s: %lu groups, %lu refused\n", kernels->name, groups, refused);
	free(space);
	free(mine);
	free(decoded);
	free(reference);
	free(expected);
}

/*
 * Squared error of `groups` groups of 128 channels but for their first four tokens, as a share of
 * the variance, which is 1. Each channel lies `offset` off zero, up or down, and the first token
 * is `first` times as large.
 */
static double share_of_variance(const struct qx_shape *s, double offset, double first)
{
	enum { CHANNELS = 128, GROUPS_MEASURED = 20 };
	static uint16_t raw[TOKENS * CHANNELS], out[TOKENS * CHANNELS] __attribute__((aligned(64)));
	uint8_t *group = line_alloc(QX_GROUP_MAX);
	double error = 0;
	uint64_t seed = 7;

	for (int g = 0; g < GROUPS_MEASURED; g++) {
		uint64_t signs[2] = { random_next(&seed), random_next(&seed) };

		for (unsigned int i = 0; i < TOKENS * CHANNELS; i++)
			raw[i] = qx_spec_number(s->dtype,
				(i < CHANNELS ? first : 1) *
					(bell(&seed) +
						(signs[i % CHANNELS / 64] >> i % 64 & 1
								? offset
								: -offset)));
		CHECK(!codec_qx_encode_portable((uint8_t *)raw, CHANNELS, s->dtype, s->bits,
			      s->tensor, s->sinks, group),
			"plain numbers");
		codec_qx_decode_portable(group, CHANNELS, s->dtype, s->bits, s->tensor,
			(uint8_t *)out, false);
		for (unsigned int i = 4 * CHANNELS; i < TOKENS * CHANNELS; i++) {
			double off =
				qx_spec_value(s->dtype, raw[i]) - qx_spec_value(s->dtype, out[i]);

			error += off * off;
		}
	}
	free(group);
	return error / GROUPS_MEASURED / ((TOKENS - 4) * CHANNELS);
}

/* What the family is for. Bounds are a little above what was measured. */
static void little_error(void)
{
	static const double bounds[3][3] = { { 0.0274, 0.0280, 0.0360 },
		{ 0.00675, 0.00687, 0.00885 }, { 0.00171, 0.00174, 0.00226 } };

	for (unsigned int bits = 3; bits <= 5; bits++) {
		struct qx_shape k = { SPECKV_DTYPE_FP16, 128, bits, 0, CODEC_K }, v = k, sunk;
		double of_k, of_v, off, calm, upset;

		v.tensor = CODEC_V;
		sunk = k;
		sunk.sinks = 4;
		of_k = share_of_variance(&k, 0, 1);
		of_v = share_of_variance(&v, 0, 1);
		off = share_of_variance(&k, 30, 1);
		calm = share_of_variance(&sunk, 0, 1);
		upset = share_of_variance(&sunk, 0, 4000);
		printf("%u bits, squared error by variance: K %.6f, V %.6f, K whose channels lie thirty "
		       "deviations off %.6f; K without its first tokens %.6f, with a huge one %.6f\n",
			bits, of_k, of_v, off, calm, upset);
		CHECK(of_k < bounds[bits - 3][0], "K, %u bits: %g", bits, of_k);
		CHECK(of_v < bounds[bits - 3][1], "V, %u bits: %g", bits, of_v);
		CHECK(off < bounds[bits - 3][2], "K off zero, %u bits: %g", bits, off);
		CHECK(upset <= calm, "%u bits: %g, %g without it", bits, upset, calm);
		v.sinks = 4;
		calm = share_of_variance(&v, 0, 1);
		upset = share_of_variance(&v, 0, 4000);
		CHECK(upset <= calm, "V, %u bits: %g, %g without it", bits, upset, calm);
	}
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : GROUPS;
	struct qx_seen seen = { 0 };
	const struct codec_kernels *kernels;
	uint64_t seed = 31;
	int usable;

	little_error();
	held_to_the_specification(&seed, groups, &seen);
	all_were_seen(&seen, groups >= GROUPS);
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++) {
		if (!usable || kernels->qx_decode == codec_qx_decode_portable)
			continue;
		every_scale(kernels);
		against_the_portable_kernels(&seed, kernels, groups / 4);
	}
	return 0;
}

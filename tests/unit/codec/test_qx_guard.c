// SPDX-License-Identifier: MIT
/*
 * The guard of q3x, q4x and q5x: groups are refused where the error that decoding makes is beyond
 * the bound, and only there; every set of kernels decides as the portable one.
 *
 * Usage: test_codec_qx_guard [groups, default 1000]
 */
#include <math.h>

#include "qx_spec.h"

#define GROUPS 1000
/* The guard knows the error by its scale alone. */
#define DOUBT 1.5

/* A group of a signal with deviation `signal` on channels of size `size` that turn. */
struct recipe {
	double size, signal, turn; /* most of radians a token */
	bool heavy; /* tails */
	bool uneven; /* one channel in eight has most of the signal */
	int silent; /* 0 or 1: all even or all odd channels are constant */
	double offset[MOST], phase[MOST], rate[MOST], factor[MOST];
};

static double bell(uint64_t *seed)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += random_below(seed, 1 << 20) / 1048576.0;
	return sum;
}

static double even(uint64_t *seed)
{
	return random_below(seed, 1 << 20) / 1048576.0;
}

static void fill(uint64_t *seed, const struct qx_shape *s, struct recipe *r, double *exact,
	uint16_t *raw)
{
	for (unsigned int c = 0; c < s->head_dim; c++) {
		r->offset[c] = r->size * bell(seed);
		r->phase[c] = 6.2832 * even(seed);
		r->rate[c] = r->turn * even(seed);
		r->factor[c] = (int)(c % 2) == r->silent      ? 0
			: r->uneven && !random_below(seed, 8) ? 40
							      : 1;
	}
	for (unsigned int i = 0; i < TOKENS * s->head_dim; i++) {
		unsigned int t = i / s->head_dim, c = i % s->head_dim;
		double x = bell(seed);

		exact[i] = r->signal * r->factor[c] * (r->heavy ? x * x * x / 3.3 : x);
		raw[i] = qx_spec_number(s->dtype,
			exact[i] + r->offset[c] * cos(r->phase[c] + r->rate[c] * t));
	}
}

static void encode(const struct qx_shape *s, const uint16_t *raw, uint8_t *group)
{
	CHECK(!codec_qx_encode_portable((const uint8_t *)raw, s->head_dim, s->dtype, s->bits,
		      s->tensor, s->sinks, group),
		"encoded");
}

/* Squared error by squared signal, over the tokens that are judged. */
static double share(const struct qx_shape *s, const double *exact, const uint16_t *raw,
	const uint8_t *group)
{
	static uint16_t out[TOKENS * MOST] __attribute__((aligned(64)));
	double error = 0, energy = 0;

	codec_qx_decode_portable(group, s->head_dim, s->dtype, s->bits, s->tensor, (uint8_t *)out,
		false);
	for (unsigned int i = TOKENS / 2 * s->head_dim; i < TOKENS * s->head_dim; i++) {
		double off = qx_spec_value(s->dtype, raw[i]) - qx_spec_value(s->dtype, out[i]);

		error += off * off;
		energy += exact[i] * exact[i];
	}
	return error / energy;
}

static struct qx_shape shape_of(uint64_t *seed)
{
	static const uint16_t sizes[] = { 64, 80, 96, 128, 192, 256 };

	return (struct qx_shape){ .tensor = random_below(seed, 2) ? CODEC_K : CODEC_V,
		.dtype = SPECKV_DTYPE_FP16,
		.bits = 3 + random_below(seed, 3),
		.head_dim = sizes[random_below(seed, 6)] };
}

/*
 * Constants up to hundreds of times the signal: K that turn slowly or fast, V that stand. The
 * signal is what attention sees; the error of a constant that turns fast is as large as itself.
 */
static void refused_by_their_error(uint64_t *seed, unsigned long groups)
{
	static double exact[TOKENS * MOST];
	static uint16_t raw[TOKENS * MOST];
	uint8_t *group = line_alloc(QX_GROUP_MAX);
	unsigned long verdicts[2][3][2] = { 0 };

	for (unsigned long i = 0; i < groups; i++) {
		struct qx_shape s = shape_of(seed);
		bool k = s.tensor == CODEC_K;
		double bound = k ? QX_GUARD_K : QX_GUARD_V, found;
		struct recipe r = { .size = 1,
			.heavy = random_below(seed, 3) == 0,
			.uneven = random_below(seed, 3) == 0,
			.silent = (int)random_below(seed, 6) };
		int side;
		bool kept;

		r.signal = ldexp(1 + even(seed), -(int)random_below(seed, r.uneven ? 14 : 10));
		/* bf16 adds an error of its own to smaller signals */
		if (r.signal > 0.12 && random_below(seed, 2))
			s.dtype = SPECKV_DTYPE_BF16;
		r.turn = !k ? 0 : random_below(seed, 2) ? 1 : 0.002;
		fill(seed, &s, &r, exact, raw);
		encode(&s, raw, group);
		kept = codec_qx_guard_portable((uint8_t *)raw, s.head_dim, s.dtype, s.tensor,
			group);
		found = share(&s, exact, raw, group);
		side = found < bound / DOUBT ? 0 : found > bound * DOUBT ? 2 : 1;
		verdicts[k][side][kept]++;
		CHECK(side == 1 || kept == (side == 0),
			"%s, head %u, %u bits, turns by %g: error of %g of the signal is %s",
			k ? "K" : "V", s.head_dim, s.bits, r.turn, found,
			kept ? "kept" : "refused");
	}
	for (int k = 0; k < 2; k++) {
		printf("%s: %lu kept, %lu refused, near the bound %lu and %lu\n", k ? "K" : "V",
			verdicts[k][0][1], verdicts[k][2][0], verdicts[k][1][1], verdicts[k][1][0]);
		CHECK(verdicts[k][0][1] >= groups / 20 && verdicts[k][2][0] >= groups / 20,
			"enough on both sides");
	}
	free(group);
}

/* A constant that turns in one channel of eight, which encoders reduce: its error is larger there. */
static void refused_by_reduced_channels(uint64_t *seed, unsigned long groups)
{
	static double exact[TOKENS * MOST];
	static uint16_t raw[TOKENS * MOST];
	uint8_t *group = line_alloc(QX_GROUP_MAX);
	unsigned long seen = 0;

	for (unsigned long i = 0; i < groups; i++) {
		struct qx_shape s = shape_of(seed);
		struct recipe r = { .silent = 2 };
		double found;

		s.tensor = CODEC_K;
		r.signal = ldexp(1 + even(seed), -(int)random_below(seed, 12));
		fill(seed, &s, &r, exact, raw);
		for (unsigned int at = 0; at < TOKENS * s.head_dim; at++)
			if (at % s.head_dim % 8 == 0)
				raw[at] = qx_spec_number(s.dtype,
					exact[at] + 16 * cos(1.1 * at + at / s.head_dim));
		encode(&s, raw, group);
		found = share(&s, exact, raw, group);
		if (found < QX_GUARD_K * DOUBT || found > 3)
			continue;
		seen++;
		CHECK(!codec_qx_guard_portable((uint8_t *)raw, s.head_dim, s.dtype, s.tensor,
			      group),
			"head %u, %u bits: error of %g of the signal is kept", s.head_dim, s.bits,
			found);
	}
	printf("reduced channels: %lu beyond the bound\n", seen);
	CHECK(seen >= groups / 50, "enough of them");
	free(group);
}

static bool kept(const struct qx_shape *s, const uint16_t *raw)
{
	uint8_t *group = line_alloc(QX_GROUP_MAX);
	bool verdict;

	encode(s, raw, group);
	verdict = codec_qx_guard_portable((const uint8_t *)raw, s->head_dim, s->dtype, s->tensor,
		group);
	free(group);
	return verdict;
}

/* Zeros have no error; values below the least scale are lost, and are refused. */
static void nothing_and_too_little(void)
{
	static uint16_t raw[TOKENS * MOST];

	for (int k = 0; k < 2; k++) {
		struct qx_shape s = { .tensor = k ? CODEC_K : CODEC_V,
			.dtype = SPECKV_DTYPE_BF16,
			.bits = 4,
			.head_dim = 128 };

		memset(raw, 0, sizeof(raw));
		CHECK(kept(&s, raw), "zeros");
		for (unsigned int i = 0; i < TOKENS * 128; i++)
			raw[i] = qx_spec_number(s.dtype, i * 37 % 101 & 1 ? 1e-9 : -1e-9);
		CHECK(!kept(&s, raw), "values that decode to zeros");
	}
}

/* Signals about as large as the bound, so that a difference of the last bit would show. */
static void decided_alike(uint64_t *seed, const struct codec_kernels *kernels, unsigned long groups)
{
	static double exact[TOKENS * MOST];
	uint8_t *space = line_alloc(TOKENS * MOST * 2 + 64), *group = line_alloc(QX_GROUP_MAX);
	unsigned long found[2] = { 0 };

	for (unsigned long i = 0; i < groups; i++) {
		struct qx_shape s = shape_of(seed);
		struct recipe r = { .size = 1, .turn = s.tensor == CODEC_K, .silent = 2 };
		uint16_t *raw = (uint16_t *)(void *)(space + 2 * random_below(seed, 32));
		bool expected;

		s.dtype = random_below(seed, 2) ? SPECKV_DTYPE_FP16 : SPECKV_DTYPE_BF16;
		r.signal = ldexp(0.8 + 1.2 * even(seed), -(int)s.bits);
		fill(seed, &s, &r, exact, raw);
		encode(&s, raw, group);
		expected = codec_qx_guard_portable((uint8_t *)raw, s.head_dim, s.dtype, s.tensor,
			group);
		CHECK(kernels->qx_guard((uint8_t *)raw, s.head_dim, s.dtype, s.tensor, group) ==
				expected,
			"%s: a group is %s", kernels->name, expected ? "refused" : "kept");
		found[expected]++;
	}
	printf("%s: %lu refused, %lu kept\n", kernels->name, found[0], found[1]);
	CHECK(found[0] >= groups / 8 && found[1] >= groups / 8, "enough of both");
	free(space);
	free(group);
}

/* A block of whose groups one is refused is refused, whatever the mode. */
static void a_block_is_refused_whole(void)
{
	struct speckv_geometry g = { .layers = 1,
		.kv_heads = 2,
		.head_dim = 128,
		.tokens = 128,
		.dtype = SPECKV_DTYPE_FP16 };
	static const enum speckv_codec modes[] = { SPECKV_CODEC_Q3X, SPECKV_CODEC_Q4X,
		SPECKV_CODEC_Q5X };
	size_t values = 2 * 2 * 128 * 128;
	uint16_t *raw = line_alloc(2 * values);
	uint64_t seed = 11;

	for (int bad = 0; bad < 2; bad++)
		for (unsigned int m = 0; m < 3; m++) {
			struct speckv_frame_identity identity = { .first_position = 128 };
			uint64_t room = speckv_frame_max_bytes(&g, modes[m]), bytes;
			uint8_t *frame = line_alloc(room);
			int rc;

			for (size_t i = 0; i < values; i++)
				raw[i] = qx_spec_number(g.dtype, bell(&seed));
			/* the last group of V: a constant, and next to no signal */
			for (size_t i = values - 64 * 128; bad && i < values; i++)
				raw[i] = qx_spec_number(g.dtype,
					(i % 128 * 7 % 11) - 5.0 + 0.004 * bell(&seed));
			rc = speckv_frame_encode(&g, modes[m], &identity, raw, 2 * values, frame,
				room, &bytes);
			CHECK(rc == (bad ? -ENODATA : 0), "mode %u, %s: %d", m,
				bad ? "bad" : "good", rc);
			free(frame);
		}
	free(raw);
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : GROUPS;
	const struct codec_kernels *kernels;
	uint64_t seed = 17;
	int usable;

	refused_by_their_error(&seed, groups);
	refused_by_reduced_channels(&seed, groups);
	nothing_and_too_little();
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		if (usable && kernels->qx_guard != codec_qx_guard_portable)
			decided_alike(&seed, kernels, groups);
	a_block_is_refused_whole();
	return 0;
}

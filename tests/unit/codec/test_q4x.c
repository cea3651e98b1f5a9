// SPDX-License-Identifier: MIT
/*
 * q4x: the portable kernels held to FORMAT.md by arithmetic of the test's own (doubles, long sums, no transform by halves); every other
 * set of kernels held to the portable one, over random and adversarial groups and any bytes.
 *
 * Usage: test_codec_q4x [groups for each comparison, default 150]
 */
#include <math.h>

#include "check.h"
#include "codec/kernels.h"
#include "codec/q4x.h"

enum { TOKENS = 64, MOST = 256 };

static const double eighths[8] = { 2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756 };

static double value(unsigned int dtype, uint16_t bits)
{
	int mantissa = dtype == SPECKV_DTYPE_BF16 ? 7 : 10, bias = dtype == SPECKV_DTYPE_BF16 ? 127 : 15;
	int exponent = (bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
	double magnitude = exponent ? ldexp(fraction + (1 << mantissa), exponent - bias - mantissa) : ldexp(fraction, 1 - bias - mantissa);

	return bits & 0x8000 ? -magnitude : magnitude;
}

static void hadamard(const double *in, double *out, unsigned int head_dim)
{
	unsigned int n = 128;

	while (head_dim % n)
		n /= 2;
	for (unsigned int s = 0; s < head_dim; s += n)
		for (unsigned int j = 0; j < n; j++) {
			out[s + j] = 0;
			for (unsigned int i = 0; i < n; i++)
				out[s + j] += __builtin_parity(i & j) ? -in[s + i] : in[s + i];
		}
}

/* Section 5.4, one token. Returns 0 when refused, else 1 with scale code and codes. */
static int expected_token(unsigned int dtype, const uint16_t *raw, unsigned int head_dim, int is_k, unsigned int *scale, unsigned int *u)
{
	int bits = is_k ? 4 : 3, e, w, t0, best_t = 0, log2n = 7, tokens_zero;
	double a = 0, z[MOST], y[MOST], largest = 0, best = INFINITY;

	while (head_dim % (1u << log2n))
		log2n--;
	for (unsigned int c = 0; c < head_dim; c++) {
		if ((raw[c] & 0x7fff) >= (dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00))
			return 0;
		a = fmax(a, fabs(value(dtype, raw[c])));
		u[c] = 0;
	}
	*scale = 0;
	if (a == 0)
		return 1;
	e = ilogb(a);
	w = e - (is_k ? 18 : 12);
	for (unsigned int c = 0; c < head_dim; c++)
		z[c] = nearbyint(ldexp(value(dtype, raw[c]), -w));
	if (is_k) {
		int d;

		hadamard(z, y, head_dim);
		for (unsigned int c = 0; c < head_dim; c++)
			largest = fmax(largest, fabs(y[c]));
		d = ilogb(largest) + 1 - 14;
		CHECK(d >= 5, "d %d", d);
		for (unsigned int c = 0; c < head_dim; c++)
			z[c] = floor((y[c] + ldexp(1, d - 1)) / ldexp(1, d));
		w += d - log2n;
	}
	largest = 0;
	for (unsigned int c = 0; c < head_dim; c++)
		largest = fmax(largest, fabs(z[c]));
	for (t0 = 0; floor(ldexp(eighths[t0 & 7], (t0 >> 3) - 2) + 0.5) * (1 << bits) < largest; t0++)
		CHECK(t0 < 8, "largest %g", largest);
	if (8 * (31 + w) + 1 + t0 > 255)
		return 0;
	tokens_zero = 8 * (31 + w) + 1 + t0 < 1;
	for (int t = t0; t >= t0 - 4 && 8 * (31 + w) + 1 + t >= 1; t--) {
		double h = floor(ldexp(eighths[(t + 8) & 7], (t + 8) / 8 - 3) + 0.5), r = floor(ldexp(1, 23) / h + 0.5), sum = 0;
		unsigned int now[MOST];

		for (unsigned int c = 0; c < head_dim; c++) {
			double q = floor(z[c] * r / ldexp(1, 24));

			q = fmin(fmax(q, -(1 << (bits - 1))), (1 << (bits - 1)) - 1);
			sum += (z[c] - (2 * q + 1) * h) * (z[c] - (2 * q + 1) * h);
			now[c] = (unsigned int)((int)q + (1 << (bits - 1)));
		}
		if (sum < best) {
			best = sum;
			best_t = t;
			memcpy(u, now, head_dim * sizeof(*u));
		}
	}
	if (!tokens_zero)
		*scale = (unsigned int)(8 * (31 + w) + 1 + best_t);
	return 1;
}

static unsigned int code_at(const uint8_t *codes, unsigned int c, unsigned int bits)
{
	unsigned int u = 0;

	for (unsigned int i = 0; i < bits; i++)
		u |= (unsigned int)(codes[(c * bits + i) / 8] >> ((c * bits + i) % 8) & 1) << i;
	return u;
}

/* Is `bits` the number of the type nearest to `exact` (a double holds it)? */
static int nearest(unsigned int dtype, uint16_t bits, double exact)
{
	uint16_t magnitude = bits & 0x7fff, last = dtype == SPECKV_DTYPE_BF16 ? 0x7f7f : 0x7bff;
	double target = fabs(exact), off = fabs(value(dtype, magnitude) - target);

	if (target == 0)
		return bits == 0;
	if (!(bits & 0x8000) != (exact > 0))
		return 0;
	if (magnitude > 0) {
		double below = fabs(value(dtype, (uint16_t)(magnitude - 1)) - target);

		if (below < off || (below == off && magnitude & 1))
			return 0;
	}
	if (magnitude < last) {
		double above = fabs(value(dtype, (uint16_t)(magnitude + 1)) - target);

		if (above < off || (above == off && magnitude & 1))
			return 0;
	}
	return magnitude <= last;
}

static void against_the_specification(uint64_t *seed)
{
	struct speckv_geometry g = random_geometry(seed);
	enum codec_tensor tensor = random_below(seed, 2) ? CODEC_K : CODEC_V;
	enum style style = (enum style)random_below(seed, STYLES);
	unsigned int bits = tensor == CODEC_K ? 4 : 3, hd = g.head_dim, u[MOST], scale;
	uint16_t raw[TOKENS * MOST], out[TOKENS * MOST];
	uint8_t group[Q4X_GROUP_MAX];
	int rc, refused = 0;

	random_values(seed, &g, style, raw, TOKENS * hd);
	rc = codec_q4x_encode_portable((uint8_t *)raw, hd, g.dtype, tensor, group);
	for (unsigned int t = 0; t < TOKENS; t++) {
		if (!expected_token(g.dtype, raw + t * hd, hd, tensor == CODEC_K, &scale, u)) {
			refused = 1;
			break;
		}
		if (rc)
			continue;
		CHECK(group[t] == scale, "style %d head %u token %u: scale %u, expected %u", style, hd, t, group[t], scale);
		for (unsigned int c = 0; c < hd; c++)
			CHECK(code_at(group + 64 + t * hd * bits / 8, c, bits) == u[c], "style %d head %u token %u channel %u", style, hd, t, c);
	}
	CHECK(rc == (refused ? -ENODATA : 0), "style %d: %d", style, rc);
	if (rc) /* any bytes are a group */
		for (size_t i = 0; i < sizeof(group); i++)
			group[i] = (uint8_t)random_next(seed);
	codec_q4x_decode_portable(group, hd, g.dtype, tensor, (uint8_t *)out, false);
	for (unsigned int t = 0; t < TOKENS; t++) {
		double levels[MOST], v[MOST];

		for (unsigned int c = 0; c < hd; c++)
			levels[c] = 2.0 * code_at(group + 64 + t * hd * bits / 8, c, bits) - (1 << bits) + 1;
		memcpy(v, levels, hd * sizeof(v[0]));
		if (tensor == CODEC_K)
			hadamard(levels, v, hd);
		for (unsigned int c = 0; c < hd; c++) {
			double h = group[t] ? ldexp(eighths[(group[t] - 1) % 8], (group[t] - 1) / 8 - 33) : 0;

			CHECK(nearest(g.dtype, out[t * hd + c], v[c] * h), "scale %u v %g: %04x", group[t], v[c], out[t * hd + c]);
		}
	}
}

/* Special values sprinkled over a style: what rounding, alignment and clipping find hardest. */
static void adversarial(uint64_t *seed, const struct speckv_geometry *g, uint16_t *raw)
{
	static const uint16_t special[2][8] = { { 0x0000, 0x8000, 0x0001, 0x807f, 0x3f80, 0x4480, 0xbfff, 0x2f01 },
						{ 0x0000, 0x8000, 0x0001, 0x83ff, 0x3c00, 0x6400, 0xbfff, 0x1001 } };
	enum style style = (enum style)random_below(seed, STYLES);

	random_values(seed, g, style, raw, TOKENS * g->head_dim);
	for (uint32_t k = random_below(seed, 3) ? 0 : random_below(seed, 200); k; k--) {
		uint16_t *at = raw + random_below(seed, TOKENS * (uint32_t)g->head_dim);

		*at = special[g->dtype - 1][random_below(seed, 8)];
	}
	if (!random_below(seed, 3)) /* one outlier in each token */
		for (unsigned int t = 0; t < TOKENS; t++)
			raw[t * g->head_dim + random_below(seed, g->head_dim)] ^= 0x0400;
	if (!random_below(seed, 5)) /* one channel far off */
		for (unsigned int t = 0, c = random_below(seed, g->head_dim); t < TOKENS; t++)
			raw[t * g->head_dim + c] = g->dtype == SPECKV_DTYPE_BF16 ? 0x4200 : 0x5000;
	if (!random_below(seed, 40))
		raw[random_below(seed, TOKENS * (uint32_t)g->head_dim)] = (uint16_t)(g->dtype == SPECKV_DTYPE_BF16 ? 0xff80 : 0x7c00);
}

static void against_the_portable_kernels(uint64_t *seed, const struct codec_kernels *kernels, unsigned long groups)
{
	uint8_t *space = line_alloc(TOKENS * MOST * 2 + 128), *mine = line_alloc(Q4X_GROUP_MAX), *reference = line_alloc(Q4X_GROUP_MAX);
	uint16_t *decoded = line_alloc(TOKENS * MOST * 2 + 128), *expected = line_alloc(TOKENS * MOST * 2);
	unsigned long refused = 0;

	for (unsigned long i = 0; i < groups; i++) {
		struct speckv_geometry g = random_geometry(seed);
		enum codec_tensor tensor = i & 1 ? CODEC_K : CODEC_V;
		uint32_t bytes = q4x_group_bytes(g.head_dim, tensor), offset = 2 * random_below(seed, 32);
		uint16_t *raw = (uint16_t *)(void *)(space + offset);
		uint8_t *out = (uint8_t *)decoded + (i % 3 ? offset : 0);
		bool streamed = random_below(seed, 2);
		int rc, rc_reference;

		adversarial(seed, &g, raw);
		memset(mine, 0xaa, Q4X_GROUP_MAX);
		memset(reference, 0xaa, Q4X_GROUP_MAX);
		rc = kernels->q4x_encode((uint8_t *)raw, g.head_dim, g.dtype, tensor, mine);
		rc_reference = codec_q4x_encode_portable((uint8_t *)raw, g.head_dim, g.dtype, tensor, reference);
		CHECK(rc == rc_reference, "%s: %d, expected %d", kernels->name, rc, rc_reference);
		refused += !!rc;
		for (uint32_t k = 0; !rc && k < Q4X_GROUP_MAX; k++)
			CHECK(mine[k] == reference[k], "%s %s %s head %u group %lu: byte %u of %u is %02x, expected %02x", kernels->name,
			      tensor == CODEC_K ? "K" : "V", speckv_dtype_name(g.dtype), g.head_dim, i, k, bytes, mine[k], reference[k]);
		if (rc || i % 4 == 3)
			for (uint32_t k = 0; k < bytes; k++)
				reference[k] = (uint8_t)random_next(seed);
		memset(decoded, 0xbb, TOKENS * MOST * 2 + 128);
		kernels->q4x_decode(reference, g.head_dim, g.dtype, tensor, out, streamed);
		codec_q4x_decode_portable(reference, g.head_dim, g.dtype, tensor, (uint8_t *)expected, false);
		for (uint32_t k = 0; k < TOKENS * g.head_dim; k++) {
			uint16_t word;

			memcpy(&word, out + 2 * k, 2);
			CHECK(word == expected[k], "%s %s %s head %u token %u channel %u: %04x, expected %04x", kernels->name,
			      tensor == CODEC_K ? "K" : "V", speckv_dtype_name(g.dtype), g.head_dim, k / g.head_dim, k % g.head_dim, word,
			      expected[k]);
		}
		CHECK(out[2 * TOKENS * g.head_dim] == 0xbb, "%s: nothing beyond the group", kernels->name);
	}
	printf("%s: %lu groups, %lu refused\n", kernels->name, groups, refused);
	free(space);
	free(mine);
	free(reference);
	free(decoded);
	free(expected);
}

/* Every scale code with every level: V shows each value of the table, K each sum. */
static void every_scale(const struct codec_kernels *kernels)
{
	uint8_t *group = line_alloc(Q4X_GROUP_MAX);
	uint16_t *out = line_alloc(TOKENS * MOST * 2), *expected = line_alloc(TOKENS * MOST * 2);

	for (int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++)
		for (int h = 0; h < 6; h++)
			for (int first = 0; first < 256; first += TOKENS)
				for (int tensor = CODEC_K; tensor <= CODEC_V; tensor++) {
					uint64_t seed = (uint64_t)first;
					uint32_t bytes = q4x_group_bytes(head_dims[h], (enum codec_tensor)tensor);

					for (uint32_t k = 0; k < bytes; k++)
						group[k] = k < TOKENS ? (uint8_t)(first + (int)k) : (uint8_t)(random_next(&seed) | (first & 64 ? 0xff : 0));
					kernels->q4x_decode(group, head_dims[h], (unsigned int)dtype, (enum codec_tensor)tensor, (uint8_t *)out, true);
					codec_q4x_decode_portable(group, head_dims[h], (unsigned int)dtype, (enum codec_tensor)tensor,
								  (uint8_t *)expected, false);
					CHECK(!memcmp(out, expected, 2u * TOKENS * head_dims[h]), "%s dtype %d head %u scales from %d", kernels->name,
					      dtype, head_dims[h], first);
				}
	free(group);
	free(out);
	free(expected);
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : 150;
	const struct codec_kernels *kernels;
	uint64_t seed = 31;
	int usable;

	for (int i = 0; i < 150; i++)
		against_the_specification(&seed);
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++) {
		if (!usable || kernels->q4x_decode == codec_q4x_decode_portable)
			continue;
		every_scale(kernels);
		against_the_portable_kernels(&seed, kernels, groups);
	}
	return 0;
}

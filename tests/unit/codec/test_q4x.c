// SPDX-License-Identifier: MIT
/*
 * q4x: the portable kernels held to FORMAT.md by arithmetic of the test's own (doubles, long sums,
 * no transform by halves, whole paths); every other set of kernels held to the portable one, over
 * random and adversarial groups and any bytes.
 *
 * Usage: test_codec_q4x [groups for each comparison, default 150]
 */
#include <math.h>

#include "check.h"
#include "codec/kernels.h"
#include "codec/q4x.h"

enum { TOKENS = 64, MOST = 256 };

static const double eighths[8] = { 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878 };
static const double levels_k[16] = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 22, 26, 30, 34, 38, 42 },
		    levels_v[8] = { 1, 3, 5, 7, 9, 12, 16, 20 };

static double value(unsigned int dtype, uint16_t bits)
{
	int mantissa = dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
	    bias = dtype == SPECKV_DTYPE_BF16 ? 127 : 15;
	int exponent = (bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
	double magnitude = exponent ? ldexp(fraction + (1 << mantissa), exponent - bias - mantissa)
				    : ldexp(fraction, 1 - bias - mantissa);

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

static unsigned int log2_slice(unsigned int head_dim)
{
	unsigned int log2n = 7;

	while (head_dim % (1u << log2n))
		log2n--;
	return log2n;
}

/*
 * Section 5.5: the best of all paths by their sums, which are kept whole and only lowered when the
 * section says so.
 */
static void expected_codes(const double *z, unsigned int t, unsigned int head_dim, int is_k,
	unsigned int *u)
{
	static const int reciprocal[9] = { 1448, 1328, 1218, 1117, 1024, 939, 861, 790, 724 };
	int fine = is_k ? 8 : 16, sums[4] = { 0, 255, 255, 255 }, place[MOST][4], last = 0;
	unsigned char paths[4][MOST] = { { 0 } }, longer[4][MOST];

	for (unsigned int c = 0; c < head_dim; c++) {
		double a = floor(fabs(z[c]) * reciprocal[t] / (is_k ? 65536 : 32768));
		int f, distance[4], next[4], least;

		a = fmin(a > 80 ? floor((a + 80) / 2) : a, 127);
		f = (int)(z[c] < 0 ? -1 - a : a);
		for (int j = 0; j < 4; j++) {
			int k = f + 2 * fine - fine * j - fine / 2, e;

			k = (k < -128 ? -128 : k > 127 ? 127 : k) + 128;
			e = 2 * (k / (fine / 8) % 32) - 31;
			place[c][j] = k / (4 * fine);
			distance[j] = e * e / (f >= 80 || f < -80 ? 4 : 16);
		}
		for (int p = 0; p < 2; p++)
			for (int before = 0; before < 2; before++) {
				int sum[2];

				for (int older = 0; older < 2; older++)
					sum[older] = (int)fmin(255,
						sums[2 * before + older] +
							distance[2 * (p ^ older) + before]);
				next[2 * p + before] = sum[1] < sum[0] ? sum[1] : sum[0];
				memcpy(longer[2 * p + before],
					paths[2 * before + (sum[1] < sum[0])], sizeof(longer[0]));
				longer[2 * p + before][c] = (unsigned char)p;
			}
		memcpy(paths, longer, sizeof(paths));
		least = (int)fmin(fmin(next[0], next[1]), fmin(next[2], next[3]));
		for (int s = 0; s < 4; s++)
			sums[s] = next[s] - (c % 4 == 3 ? least : 0);
	}
	for (int s = 1; s < 4; s++)
		last = sums[s] < sums[last] ? s : last;
	for (unsigned int c = 0; c < head_dim; c++) {
		unsigned int p = paths[last][c], before = c > 0 ? paths[last][c - 1] : 0,
			     older = c > 1 ? paths[last][c - 2] : 0;

		u[c] = p * (is_k ? 8 : 4) + (unsigned int)place[c][2 * (p ^ older) + before];
	}
}

/* The number of a step that covers `most` eighths of it, or of g(r). */
static double mean_step(unsigned int r)
{
	return ldexp(eighths[r % 8], (int)(r / 8));
}

/*
 * What a group of K takes off its coefficients; 1 if it has a mean, whose scale code and q are
 * given.
 */
static int expected_mean(unsigned int dtype, const uint16_t *raw, unsigned int head_dim,
	const double *largest, int *exponent, unsigned int *code, int *q, double *mean)
{
	int least = INT32_MAX, most = INT32_MIN, w;
	double sums[MOST] = { 0 }, y[MOST], top = 0;
	unsigned int r = 0;

	for (unsigned int t = 0; t < TOKENS; t++) {
		if (largest[t] == 0)
			return 0;
		least = ilogb(largest[t]) < least ? ilogb(largest[t]) : least;
		most = ilogb(largest[t]) > most ? ilogb(largest[t]) : most;
	}
	if (most - least > 5)
		return 0;
	for (unsigned int i = 0; i < TOKENS * head_dim; i++)
		sums[i % head_dim] += nearbyint(ldexp(value(dtype, raw[i]), 20 - most));
	for (unsigned int c = 0; c < head_dim; c++)
		sums[c] = floor((sums[c] + 32) / 64);
	hadamard(sums, y, head_dim);
	for (unsigned int c = 0; c < head_dim - 2; c++)
		top = fmax(top, fabs(y[c]));
	while (7 * mean_step(r) < top)
		r++;
	w = 8 * (most + 12 - (int)log2_slice(head_dim)) + 1 + (int)r;
	if (w < 1 || w > 255)
		return 0;
	for (unsigned int c = 0; c < head_dim; c++) {
		q[c] = c < head_dim - 2
			? (int)fmin(7, floor(fabs(y[c]) / mean_step(r) + 0.5)) * (y[c] < 0 ? -1 : 1)
			: 0;
		mean[c] = q[c] * mean_step(r);
	}
	*code = (unsigned int)w;
	*exponent = most;
	return 1;
}

/*
 * Section 5.4, one token. Returns 0 when refused, else 1 with scale code and codes. `mean` is NULL
 * where there is none.
 */
static int expected_token(unsigned int dtype, const uint16_t *raw, unsigned int head_dim, int is_k,
	int e, const double *mean, unsigned int *scale, unsigned int *u)
{
	double z[MOST], y[MOST], largest = 0;
	int w = e - (is_k ? 20 : 12);
	unsigned int t = 0;

	memset(u, 0, head_dim * sizeof(*u));
	*scale = 0;
	for (unsigned int c = 0; c < head_dim; c++)
		z[c] = nearbyint(ldexp(value(dtype, raw[c]), -w));
	if (is_k) {
		int d;

		hadamard(z, y, head_dim);
		for (unsigned int c = 0; c < head_dim; c++) {
			y[c] -= mean ? mean[c] : 0;
			largest = fmax(largest, fabs(y[c]));
		}
		d = largest > 0 ? ilogb(largest) + 1 - 14 : 0;
		d = d > 0 ? d : 0;
		for (unsigned int c = 0; c < head_dim; c++)
			z[c] = d ? floor((y[c] + ldexp(1, d - 1)) / ldexp(1, d)) : y[c];
		w += d - (int)log2_slice(head_dim);
	}
	largest = 0;
	for (unsigned int c = 0; c < head_dim; c++)
		largest = fmax(largest, fabs(z[c]));
	while (floor(ldexp(eighths[(t + 4) % 8], (int)(t + 4) / 8 - 3) + 0.5) * (is_k ? 46 : 24) <
		largest)
		CHECK(++t < 9, "largest %g", largest);
	if (largest == 0 || 8 * w + (int)t + 237 < 1)
		return 1;
	*scale = (unsigned int)(8 * w + (int)t + 237);
	expected_codes(z, t, head_dim, is_k, u);
	return *scale <= 255;
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

static double level(unsigned int i, int is_k)
{
	unsigned int half = is_k ? 16 : 8;
	const double *positive = is_k ? levels_k : levels_v;

	return i >= half ? positive[i - half] : -positive[half - 1 - i];
}

/* Section 5.3 held to any group. */
static void decoded_by_the_specification(const uint8_t *group, unsigned int dtype, unsigned int hd,
	enum codec_tensor tensor)
{
	int is_k = tensor == CODEC_K;
	unsigned int bits = is_k ? 4 : 3, part = is_k ? (hd / 2 + 63) / 64 * 64 : 0,
		     mean_code = is_k ? group[64 + hd / 2 - 1] : 0;
	double q[MOST] = { 0 }, mean[MOST] = { 0 };
	uint16_t out[TOKENS * MOST];

	for (unsigned int c = 0; mean_code && c < hd - 2; c++)
		q[c] = code_at(group + 64, c, 4) - 8.0;
	hadamard(q, mean, hd);
	codec_q4x_decode_portable(group, hd, dtype, tensor, (uint8_t *)out, false);
	for (unsigned int t = 0; t < TOKENS; t++) {
		const uint8_t *codes = group + 64 + part + t * hd * bits / 8;
		double levels[MOST], v[MOST];
		unsigned int p[MOST + 2] = { 0 };

		for (unsigned int c = 0; c < hd; c++) {
			unsigned int u = code_at(codes, c, bits);

			p[c + 2] = u >> (bits - 1);
			levels[c] = level(4 * (u & ((1u << (bits - 1)) - 1)) +
					2 * (p[c + 2] ^ p[c]) + p[c + 1],
				is_k);
		}
		memcpy(v, levels, hd * sizeof(v[0]));
		if (is_k)
			hadamard(levels, v, hd);
		for (unsigned int c = 0; c < hd; c++) {
			double h = group[t]
				? ldexp(eighths[(group[t] - 1) % 8], (group[t] - 1) / 8 - 32)
				: 0;
			double g = mean_code
				? ldexp(eighths[(mean_code - 1) % 8], (int)(mean_code - 1) / 8 - 32)
				: 0;
			/* Both products and their sum are exact in a double. */
			float x = (float)(v[c] * h + mean[c] * g);

			CHECK(nearest(dtype, out[t * hd + c], (double)x), "scale %u v %g: %04x",
				group[t], v[c], out[t * hd + c]);
		}
	}
}

static void against_the_specification(uint64_t *seed)
{
	struct speckv_geometry g = random_geometry(seed);
	enum codec_tensor tensor = random_below(seed, 2) ? CODEC_K : CODEC_V;
	enum style style = (enum style)random_below(seed, STYLES);
	unsigned int bits = tensor == CODEC_K ? 4 : 3, hd = g.head_dim, u[MOST], scale,
		     mean_code = 0, part;
	double largest[TOKENS] = { 0 }, mean[MOST];
	int rc, refused = 0, has_mean, exponent = 0, q[MOST];
	uint16_t raw[TOKENS * MOST];
	uint8_t group[Q4X_GROUP_MAX];

	random_values(seed, &g, style, raw, TOKENS * hd);
	if (random_below(seed, 2)) /* channels of their own: a mean that pays */
		for (unsigned int i = 0; i < TOKENS * hd; i++)
			raw[i] = (uint16_t)(raw[i] & ~0x4000) | (i % hd % 3 ? 0 : 0x2000);
	rc = codec_q4x_encode_portable((uint8_t *)raw, hd, g.dtype, tensor, group);
	for (unsigned int i = 0; i < TOKENS * hd; i++) {
		refused |= (raw[i] & 0x7fff) >= (g.dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00);
		largest[i / hd] = fmax(largest[i / hd], fabs(value(g.dtype, raw[i])));
	}
	has_mean = !refused && tensor == CODEC_K &&
		expected_mean(g.dtype, raw, hd, largest, &exponent, &mean_code, q, mean);
	part = tensor == CODEC_K ? (hd / 2 + 63) / 64 * 64 : 0;
	for (unsigned int k = 0; !rc && k < part; k++) {
		unsigned int wanted = k < hd / 2 - 1 && has_mean
			? (unsigned int)(q[2 * k] + 8) | (unsigned int)(q[2 * k + 1] + 8) << 4
			: k == hd / 2 - 1 ? mean_code
					  : 0;

		CHECK(group[64 + k] == wanted, "style %d head %u mean byte %u: %02x, expected %02x",
			style, hd, k, group[64 + k], wanted);
	}
	for (unsigned int t = 0; t < TOKENS && !refused; t++) {
		int own = largest[t] > 0 ? ilogb(largest[t]) : 0;

		if (!expected_token(g.dtype, raw + t * hd, hd, tensor == CODEC_K,
			    has_mean ? exponent : own, has_mean ? mean : NULL, &scale, u)) {
			refused = 1;
			break;
		}
		if (rc)
			continue;
		CHECK(group[t] == scale, "style %d head %u token %u: scale %u, expected %u", style,
			hd, t, group[t], scale);
		for (unsigned int c = 0; c < hd; c++)
			CHECK(code_at(group + 64 + part + t * hd * bits / 8, c, bits) == u[c],
				"style %d head %u token %u channel %u", style, hd, t, c);
	}
	CHECK(rc == (refused ? -ENODATA : 0), "style %d: %d", style, rc);
	if (!rc)
		decoded_by_the_specification(group, g.dtype, hd, tensor);
	for (size_t i = 0; i < sizeof(group); i++) /* any bytes are a group */
		group[i] = (uint8_t)random_next(seed);
	decoded_by_the_specification(group, g.dtype, hd, tensor);
}

/* Numbers with a bell's distribution, out of twelve even ones. */
static double bell(uint64_t *seed)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += random_below(seed, 1 << 20) / 1048576.0;
	return sum;
}

static uint16_t bf16(double x)
{
	float single = (float)x;
	uint32_t word;

	memcpy(&word, &single, 4);
	return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

/*
 * Squared error of `groups` groups, as a share of the variance, which is 1; each channel lies
 * `offset` off zero, up or down.
 */
static double share_of_variance(uint64_t *seed, enum codec_tensor tensor, double offset, int groups)
{
	enum { CHANNELS = 128 };
	static uint16_t raw[TOKENS * CHANNELS], out[TOKENS * CHANNELS];
	uint8_t group[Q4X_GROUP_MAX];
	double error = 0;

	for (int g = 0; g < groups; g++) {
		uint64_t signs[2] = { random_next(seed), random_next(seed) };

		for (unsigned int i = 0; i < TOKENS * CHANNELS; i++)
			raw[i] = bf16(bell(seed) +
				(signs[i % CHANNELS / 64] >> i % 64 & 1 ? offset : -offset));
		CHECK(!codec_q4x_encode_portable((uint8_t *)raw, CHANNELS, SPECKV_DTYPE_BF16,
			      tensor, group),
			"plain numbers");
		codec_q4x_decode_portable(group, CHANNELS, SPECKV_DTYPE_BF16, tensor,
			(uint8_t *)out, false);
		for (unsigned int i = 0; i < TOKENS * CHANNELS; i++) {
			double off =
				value(SPECKV_DTYPE_BF16, raw[i]) - value(SPECKV_DTYPE_BF16, out[i]);

			error += off * off;
		}
	}
	return error / groups / (TOKENS * CHANNELS);
}

/*
 * What the mode is for: less error than any quantiser of one number at a time makes with so many
 * levels and a scale a token.
 */
static void little_error(void)
{
	uint64_t seed = 7;
	double k = share_of_variance(&seed, CODEC_K, 0, 40),
	       v = share_of_variance(&seed, CODEC_V, 0, 40);
	double off = share_of_variance(&seed, CODEC_K, 4, 40);

	printf("squared error by variance: K %.5f, V %.5f; K whose channels lie four deviations off %.5f\n",
		k, v, off);
	CHECK(k < 0.0066, "K %g", k);
	CHECK(v < 0.0256, "V %g", v);
	/* Of a variance of 17 in all: without the mean it would be about that many times more. */
	CHECK(off < 0.03, "K %g", off);
}

/* Special values sprinkled over a style: what rounding, alignment and clipping find hardest. */
static void adversarial(uint64_t *seed, const struct speckv_geometry *g, uint16_t *raw)
{
	static const uint16_t special[2][8] = { { 0x0000, 0x8000, 0x0001, 0x807f, 0x3f80, 0x4480,
							0xbfff, 0x2f01 },
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
		raw[random_below(seed, TOKENS * (uint32_t)g->head_dim)] =
			(uint16_t)(g->dtype == SPECKV_DTYPE_BF16 ? 0xff80 : 0x7c00);
}

static void against_the_portable_kernels(uint64_t *seed, const struct codec_kernels *kernels,
	unsigned long groups)
{
	uint8_t *space = line_alloc(TOKENS * MOST * 2 + 128), *mine = line_alloc(Q4X_GROUP_MAX),
		*reference = line_alloc(Q4X_GROUP_MAX);
	uint16_t *decoded = line_alloc(TOKENS * MOST * 2 + 128),
		 *expected = line_alloc(TOKENS * MOST * 2);
	unsigned long refused = 0;

	for (unsigned long i = 0; i < groups; i++) {
		struct speckv_geometry g = random_geometry(seed);
		enum codec_tensor tensor = i & 1 ? CODEC_K : CODEC_V;
		uint32_t bytes = q4x_group_bytes(g.head_dim, tensor),
			 offset = 2 * random_below(seed, 32);
		uint16_t *raw = (uint16_t *)(void *)(space + offset);
		uint8_t *out = (uint8_t *)decoded + (i % 3 ? offset : 0);
		bool streamed = random_below(seed, 2);
		int rc, rc_reference;

		adversarial(seed, &g, raw);
		memset(mine, 0xaa, Q4X_GROUP_MAX);
		memset(reference, 0xaa, Q4X_GROUP_MAX);
		rc = kernels->q4x_encode((uint8_t *)raw, g.head_dim, g.dtype, tensor, mine);
		rc_reference = codec_q4x_encode_portable((uint8_t *)raw, g.head_dim, g.dtype,
			tensor, reference);
		CHECK(rc == rc_reference, "%s: %d, expected %d", kernels->name, rc, rc_reference);
		refused += !!rc;
		for (uint32_t k = 0; !rc && k < Q4X_GROUP_MAX; k++)
			CHECK(mine[k] == reference[k],
				"%s %s %s head %u group %lu: byte %u of %u is %02x, expected %02x",
				kernels->name, tensor == CODEC_K ? "K" : "V",
				speckv_dtype_name(g.dtype), g.head_dim, i, k, bytes, mine[k],
				reference[k]);
		if (rc || i % 4 == 3)
			for (uint32_t k = 0; k < bytes; k++)
				reference[k] = (uint8_t)random_next(seed);
		memset(decoded, 0xbb, TOKENS * MOST * 2 + 128);
		kernels->q4x_decode(reference, g.head_dim, g.dtype, tensor, out, streamed);
		codec_q4x_decode_portable(reference, g.head_dim, g.dtype, tensor,
			(uint8_t *)expected, false);
		for (uint32_t k = 0; k < TOKENS * g.head_dim; k++) {
			uint16_t word;

			memcpy(&word, out + 2 * k, 2);
			CHECK(word == expected[k],
				"%s %s %s head %u token %u channel %u: %04x, expected %04x",
				kernels->name, tensor == CODEC_K ? "K" : "V",
				speckv_dtype_name(g.dtype), g.head_dim, k / g.head_dim,
				k % g.head_dim, word, expected[k]);
		}
		CHECK(out[2 * TOKENS * g.head_dim] == 0xbb, "%s: nothing beyond the group",
			kernels->name);
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
					uint32_t bytes = q4x_group_bytes(head_dims[h],
						(enum codec_tensor)tensor);

					for (uint32_t k = 0; k < bytes; k++)
						group[k] = k < TOKENS
							? (uint8_t)(first + (int)k)
							: (uint8_t)(random_next(&seed) |
								  (first & 64 ? 0xff : 0));
					kernels->q4x_decode(group, head_dims[h],
						(unsigned int)dtype, (enum codec_tensor)tensor,
						(uint8_t *)out, true);
					codec_q4x_decode_portable(group, head_dims[h],
						(unsigned int)dtype, (enum codec_tensor)tensor,
						(uint8_t *)expected, false);
					CHECK(!memcmp(out, expected, 2u * TOKENS * head_dims[h]),
						"%s %s dtype %d head %u scales from %d",
						kernels->name, tensor == CODEC_K ? "K" : "V", dtype,
						head_dims[h], first);
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

	little_error();
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

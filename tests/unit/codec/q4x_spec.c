// SPDX-License-Identifier: MIT
/*
 * q4x: the portable kernels held to FORMAT.md by arithmetic of the test's own: doubles, long sums,
 * no transform by halves, whole paths.
 */
#include <math.h>

#include "q4x_spec.h"

static const double eighths[8] = { 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878 };
static const double levels_k[16] = { 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 22, 26, 30, 34, 38, 42 },
		    levels_v[8] = { 1, 3, 5, 7, 9, 12, 16, 20 };

double q4x_spec_value(unsigned int dtype, uint16_t bits)
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
		sums[i % head_dim] += nearbyint(ldexp(q4x_spec_value(dtype, raw[i]), 20 - most));
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
		z[c] = nearbyint(ldexp(q4x_spec_value(dtype, raw[c]), -w));
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
	double target = fabs(exact), off = fabs(q4x_spec_value(dtype, magnitude) - target);

	if (target == 0)
		return bits == 0;
	if (!(bits & 0x8000) != (exact > 0))
		return 0;
	if (magnitude > 0) {
		double below = fabs(q4x_spec_value(dtype, (uint16_t)(magnitude - 1)) - target);

		if (below < off || (below == off && magnitude & 1))
			return 0;
	}
	if (magnitude < last) {
		double above = fabs(q4x_spec_value(dtype, (uint16_t)(magnitude + 1)) - target);

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

void q4x_spec_group(uint64_t *seed)
{
	struct speckv_geometry g = random_geometry(seed);
	enum codec_tensor tensor = random_below(seed, 2) ? CODEC_K : CODEC_V;
	enum style style = (enum style)random_below(seed, STYLES);
	unsigned int bits = tensor == CODEC_K ? 4 : 3, hd = g.head_dim, u[MOST], scale,
		     mean_code = 0, part;
	double largest[TOKENS] = { 0 }, mean[MOST];
	int rc, refused = 0, has_mean, exponent = 0, q[MOST];
	uint16_t raw[TOKENS * MOST] = { 0 };
	uint8_t group[Q4X_GROUP_MAX];

	random_values(seed, &g, style, raw, TOKENS * hd);
	if (random_below(seed, 2)) /* channels of their own: a mean that pays */
		for (unsigned int i = 0; i < TOKENS * hd; i++)
			raw[i] = (uint16_t)(raw[i] & ~0x4000) | (i % hd % 3 ? 0 : 0x2000);
	rc = codec_q4x_encode_portable((uint8_t *)raw, hd, g.dtype, tensor, group);
	for (unsigned int i = 0; i < TOKENS * hd; i++) {
		refused |= (raw[i] & 0x7fff) >= (g.dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00);
		largest[i / hd] = fmax(largest[i / hd], fabs(q4x_spec_value(g.dtype, raw[i])));
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

// SPDX-License-Identifier: MIT
/*
 * FORMAT.md section 5 step by step, by arithmetic of the test's own: doubles that hold every number
 * exactly, long sums, the transform by its definition, whole paths.
 */
#include <math.h>

#include "qx_spec.h"

static const double eighths[8] = { 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878 };
static const double half_steps[10] = { 181, 197, 215, 235, 256, 279, 305, 332, 362, 395 };
static const double reciprocals[10] = { 1448, 1328, 1218, 1117, 1024, 939, 861, 790, 724, 664 };

double qx_spec_value(unsigned int dtype, uint16_t bits)
{
	int mantissa = dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
	    bias = dtype == SPECKV_DTYPE_BF16 ? 127 : 15;
	int exponent = (bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
	double magnitude = exponent ? ldexp(fraction + (1 << mantissa), exponent - bias - mantissa)
				    : ldexp(fraction, 1 - bias - mantissa);

	return bits & 0x8000 ? -magnitude : magnitude;
}

static bool finite_number(unsigned int dtype, uint16_t bits)
{
	return (bits & 0x7fff) < (dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00);
}

uint16_t qx_spec_number(unsigned int dtype, double x)
{
	uint16_t low = 0, high = dtype == SPECKV_DTYPE_BF16 ? 0x7f7f : 0x7bff,
		 sign = x < 0 ? 0x8000 : 0;
	double target = fabs(x), below, above;

	if (target >= qx_spec_value(dtype, high))
		return sign | high;
	while (high - low > 1) {
		uint16_t middle = (uint16_t)((low + high) / 2);

		if (qx_spec_value(dtype, middle) <= target)
			low = middle;
		else
			high = middle;
	}
	below = target - qx_spec_value(dtype, low);
	above = qx_spec_value(dtype, high) - target;
	return sign | (below < above || (below == above && low % 2 == 0) ? low : high);
}

static unsigned int log2_slice(unsigned int head_dim)
{
	unsigned int log2n = 7;

	while (head_dim % (1u << log2n))
		log2n--;
	return log2n;
}

/* The sign that a channel changes. */
static int sign(unsigned int c, unsigned int head_dim)
{
	unsigned int r = log2_slice(head_dim) / 2, i = c % (1u << log2_slice(head_dim)), ones = 0;

	for (unsigned int bit = 0; bit < r; bit++)
		ones += i >> bit & i >> (bit + r) & 1;
	return ones % 2 ? -1 : 1;
}

static void hadamard(const double *in, double *out, unsigned int head_dim)
{
	unsigned int n = 1u << log2_slice(head_dim);

	for (unsigned int s = 0; s < head_dim; s += n)
		for (unsigned int j = 0; j < n; j++) {
			out[s + j] = 0;
			for (unsigned int i = 0; i < n; i++)
				out[s + j] += __builtin_parity(i & j) ? -in[s + i] : in[s + i];
		}
}

/* Field `index` of a bit string. */
static unsigned int field_at(const uint8_t *string, unsigned int index, unsigned int bits)
{
	unsigned int field = 0;

	for (unsigned int i = 0; i < bits; i++) {
		unsigned int at = index * bits + i;

		field |= (unsigned int)(string[at / 8] >> at % 8 & 1) << i;
	}
	return field;
}

static void put_field(uint8_t *string, unsigned int index, unsigned int bits, unsigned int field)
{
	for (unsigned int i = 0; i < bits; i++) {
		unsigned int at = index * bits + i;

		string[at / 8] |= (uint8_t)((field >> i & 1) << at % 8);
	}
}

static uint32_t side_bytes(const struct qx_shape *s)
{
	return s->tensor == CODEC_K ? (7 * s->head_dim / 8 + 1 + 63) / 64 * 64 : 0;
}

static uint8_t *codes_of(const struct qx_shape *s, const uint8_t *group, unsigned int token)
{
	return (uint8_t *)group + 64 + side_bytes(s) + token * s->head_dim * s->bits / 8;
}

uint32_t qx_spec_bytes(const struct qx_shape *s)
{
	return 64 + side_bytes(s) + 8 * s->head_dim * s->bits;
}

/* The numbers M[i mod 8] * 2^(i div 8) of sections 2 and 4.3. */
static double eighth(unsigned int i)
{
	return ldexp(eighths[i % 8], (int)(i / 8));
}

/* Section 3.1: level i. */
static double level(unsigned int i, unsigned int bits)
{
	unsigned int half = 1u << bits, inner = 5u << bits >> 3, k;

	if (i < half)
		return -level(2 * half - 1 - i, bits);
	k = i - half;
	return k < inner ? 2 * k + 1 : 2 * inner + 2 + 4 * (k - inner);
}

void qx_spec_decode(const struct qx_shape *s, const uint8_t *group, uint16_t *raw)
{
	unsigned int hd = s->head_dim, is_k = s->tensor == CODEC_K, top = s->bits - 1,
		     mean_code = is_k ? group[64 + 7 * hd / 8] : 0;
	double g = mean_code ? ldexp(eighth(mean_code - 1), -32) : 0, q[MOST] = { 0 };
	int e[MOST] = { 0 };

	for (unsigned int c = 0; is_k && c < hd; c++) {
		q[c] = (double)field_at(group + 64, c, 7) - 16;
		e[c] = (int)(field_at(group + 64, c, 7) >> 5);
		q[c] -= 32 * e[c];
	}
	for (unsigned int t = 0; t < TOKENS; t++) {
		unsigned int scale = is_k ? group[t] & 0x7f : group[t], p[MOST + 2] = { 0 };
		double h = scale ? ldexp(eighth(scale - 1), is_k ? -24 : -32) : 0, l[MOST], v[MOST];
		bool alone = is_k && group[t] & 0x80;

		for (unsigned int c = 0; c < hd; c++) {
			unsigned int u = field_at(codes_of(s, group, t), c, s->bits);

			p[c + 2] = u >> top;
			l[c] = level(4 * (u % (1u << top)) + 2 * (p[c + 2] ^ p[c]) + p[c + 1],
				s->bits);
		}
		hadamard(l, v, hd);
		for (unsigned int c = 0; c < hd; c++) {
			/* A double holds both products and their sum. */
			float x = (float)(ldexp(v[c] * h, e[c]) + (alone ? 0 : q[c] * g));

			raw[t * hd + c] =
				qx_spec_number(s->dtype, x == 0 ? 0 : sign(c, hd) * (double)x);
		}
	}
}

/* Step 8 of section 4: the cell of each z, and what each subset makes of it. */
static int cell(const struct qx_shape *s, double z, unsigned int t, struct qx_seen *seen)
{
	double a = floor(fabs(z) * reciprocals[t] / ldexp(1, (int)s->bits + 12));

	seen->beyond_knee += a > 80;
	a = fmin(a > 80 ? floor((a + 80) / 2) : a, 127);
	seen->last_cell += a == 127;
	return (int)(z < 0 ? -1 - a : a);
}

static int subset_metric(const struct qx_shape *s, int f, int j, unsigned int *m)
{
	int fine = 1 << (7 - s->bits), k = f + 2 * fine - fine * j - fine / 2, e;

	k = (k < -128 ? -128 : k > 127 ? 127 : k) + 128;
	*m = (unsigned int)(k / (4 * fine));
	e = s->bits == 5 ? 4 * (k % 16) - 30 : 2 * (k / (fine / 8) % 32) - 31;
	return e * e / (f >= 80 || f < -80 ? 4 : 16);
}

/* FORMAT.md 5.5: the best path, kept whole beside each of the four sums. */
static void best_codes(const struct qx_shape *s, const double *z, unsigned int t, uint8_t *codes,
	struct qx_seen *seen)
{
	int sums[4] = { 0, 255, 255, 255 }, next[4], least, last = 0;
	unsigned char paths[4][MOST] = { { 0 } }, longer[4][MOST];
	unsigned int m[MOST][4], hd = s->head_dim;

	for (unsigned int c = 0; c < hd; c++) {
		int f = cell(s, z[c], t, seen), d[4];

		for (int j = 0; j < 4; j++)
			d[j] = subset_metric(s, f, j, &m[c][j]);
		for (int state = 0; state < 4; state++) {
			int p = state / 2, before = state % 2, sum[2], older;

			for (older = 0; older < 2; older++) {
				sum[older] = sums[2 * before + older] + d[2 * (p ^ older) + before];
				seen->full += c > 1 && sum[older] > 255;
				sum[older] = sum[older] > 255 ? 255 : sum[older];
			}
			older = sum[1] < sum[0];
			next[state] = sum[older];
			memcpy(longer[state], paths[2 * before + older], c);
			longer[state][c] = (unsigned char)p;
		}
		for (int state = 0; state < 4; state++)
			memcpy(paths[state], longer[state], c + 1);
		least = next[0];
		for (int state = 1; state < 4; state++)
			least = next[state] < least ? next[state] : least;
		for (int state = 0; state < 4; state++)
			sums[state] = next[state] - (c % 4 == 3 ? least : 0);
	}
	for (int state = 1; state < 4; state++)
		last = sums[state] < sums[last] ? state : last;
	for (unsigned int c = 0; c < hd; c++) {
		unsigned int p = paths[last][c], before = c > 0 ? paths[last][c - 1] : 0,
			     older = c > 1 ? paths[last][c - 2] : 0;

		put_field(codes, c, s->bits, (p << (s->bits - 1)) + m[c][2 * (p ^ older) + before]);
	}
}

struct side {
	double q[MOST], base[MOST];
	int e[MOST];
	unsigned int code;
};

/* Step 3: x are the numbers of the tokens that count. */
static void find_mean(const struct qx_shape *s, const double *x, int top, struct side *side,
	struct qx_seen *seen)
{
	double n = TOKENS - s->sinks, a[MOST], most = 0, g;
	int code, any = 0;
	unsigned int r = 0;

	for (unsigned int c = 0; c < s->head_dim; c++) {
		double sum = 0;

		for (unsigned int t = s->sinks; t < TOKENS; t++)
			sum += x[t * s->head_dim + c];
		a[c] = floor((2 * sum + n) / (2 * n));
		most = fmax(most, fabs(a[c]));
	}
	while (15 * eighth(r) < most)
		r++;
	g = eighth(r);
	code = 8 * (top + 15) + 1 + (int)r;
	for (unsigned int c = 0; c < s->head_dim; c++) {
		side->q[c] = copysign(floor((2 * fabs(a[c]) + g) / (2 * g)), a[c]);
		any |= side->q[c] != 0;
	}
	seen->means += any && code >= 1 && code <= 255;
	seen->means_too_low += any && code < 1;
	seen->means_too_high += any && code > 255;
	any &= code >= 1 && code <= 255;
	side->code = any ? (unsigned int)code : 0;
	for (unsigned int c = 0; c < s->head_dim; c++) {
		side->q[c] = any ? side->q[c] : 0;
		side->base[c] = side->q[c] * g;
	}
}

/* Step 4. */
static void find_exponents(const struct qx_shape *s, const double *x, struct side *side,
	struct qx_seen *seen)
{
	long logs[MOST], most = 0, sum = 0, hd = s->head_dim;

	for (long c = 0; c < hd; c++) {
		double spread = 0, quarter;
		int k;

		for (unsigned int t = s->sinks; t < TOKENS; t++)
			spread += fabs(x[t * s->head_dim + (unsigned int)c] - side->base[c]);
		seen->still += spread < 4;
		logs[c] = 0;
		if (spread >= 4) {
			quarter = floor(spread / 4);
			k = ilogb(quarter);
			logs[c] = 8 * k + (long)floor(8 * (ldexp(quarter, -k) - 1));
		}
		most = logs[c] > most ? logs[c] : most;
	}
	for (long c = 0; c < hd; c++) {
		seen->raised += logs[c] < most - 64;
		logs[c] = logs[c] < most - 64 ? most - 64 : logs[c];
		sum += logs[c];
	}
	for (long c = 0; c < hd; c++) {
		side->e[c] = 0;
		for (int k = 1; k <= 3; k++)
			side->e[c] += hd * logs[c] - sum >= 8 * hd * (k + 1);
		seen->exponents[side->e[c]]++;
	}
}

/* Step 5. */
static bool is_alone(const struct qx_shape *s, const double *x, const struct side *side)
{
	double sum = 0, bound = 0;

	for (unsigned int c = 0; c < s->head_dim; c++) {
		double weight = side->q[c] * ldexp(1, 2 * (3 - side->e[c]));

		sum += floor(x[c] / 64) * weight;
		bound += side->base[c] * weight;
	}
	return sum < floor(bound / 128);
}

/* Steps 5 to 8 for one token. false: refused. */
static bool encode_token(const struct qx_shape *s, const double *x, int exponent,
	const struct side *side, uint8_t *byte, uint8_t *codes, struct qx_seen *seen)
{
	bool is_k = s->tensor == CODEC_K, alone = is_k && is_alone(s, x, side), zero = true;
	int w = exponent - (is_k ? 20 : 17), bits = (int)s->bits, d, code;
	double y[MOST], z[MOST], largest = 0, reach = 11 << (bits - 2);
	unsigned int t = 0;

	for (unsigned int c = 0; c < s->head_dim; c++) {
		zero &= x[c] == 0;
		y[c] = is_k ? ldexp(x[c] - (alone ? 0 : side->base[c]), 3 - side->e[c]) : x[c];
	}
	*byte = alone ? 0x80 : 0;
	seen->alone += alone;
	seen->alone_zero += alone && zero;
	seen->zero_tokens += zero;
	hadamard(y, z, s->head_dim);
	for (unsigned int c = 0; c < s->head_dim; c++)
		largest = fmax(largest, fabs(z[c]));
	if (largest == 0)
		return true;
	d = ilogb(largest) + 1 - (bits + 10);
	d = d > 0 ? d : 0;
	w += d - (int)log2_slice(s->head_dim);
	largest = 0;
	for (unsigned int c = 0; c < s->head_dim; c++) {
		z[c] = d ? floor((z[c] + ldexp(1, d - 1)) / ldexp(1, d)) : z[c];
		seen->clamped += fabs(z[c]) > 32767;
		largest = fmax(largest, fabs(z[c]));
	}
	while (reach * half_steps[t] < largest)
		CHECK(++t < 10, "largest %g", largest);
	code = 8 * w + (int)t + (is_k ? 173 : 237);
	seen->unshifted += !d;
	seen->steps[t]++;
	seen->faint += code < 1;
	if (code < 1)
		return true;
	if (code > (is_k ? 127 : 255))
		return false;
	*byte |= (uint8_t)code;
	best_codes(s, z, t, codes, seen);
	return true;
}

/* Step 1: the exponents of the tokens; false: refused. */
static bool find_tops(const struct qx_shape *s, const uint16_t *raw, int *tops,
	struct qx_seen *seen)
{
	double largest[TOKENS] = { 0 }, most = 0, least = INFINITY;
	bool sunk = false, lowest = false;

	for (unsigned int i = 0; i < TOKENS * s->head_dim; i++) {
		double magnitude = fabs(qx_spec_value(s->dtype, raw[i]));
		unsigned int t = i / s->head_dim;

		if (t < s->sinks) {
			sunk |= !finite_number(s->dtype, raw[i]);
			continue;
		}
		if (!finite_number(s->dtype, raw[i]))
			return false;
		largest[t] = fmax(largest[t], magnitude);
		most = fmax(most, magnitude);
		least = magnitude > 0 ? fmin(least, magnitude) : least;
	}
	for (unsigned int t = 0; t < TOKENS; t++) {
		double of = s->tensor == CODEC_K ? most : largest[t];

		tops[t] = of > 0 ? ilogb(of) : 0;
		lowest |= of > 0 && s->tensor == CODEC_K && tops[t] < -60;
	}
	seen->lowest += lowest;
	seen->sunk += sunk;
	seen->zero_groups += most == 0;
	seen->subnormal += least < ldexp(1, s->dtype == SPECKV_DTYPE_BF16 ? -126 : -14);
	return true;
}

int qx_spec_encode(const struct qx_shape *s, const uint16_t *raw, uint8_t *group,
	struct qx_seen *seen)
{
	struct qx_seen mine = *seen;
	struct side side = { .code = 0 };
	double x[TOKENS * MOST];
	unsigned int hd = s->head_dim;
	int tops[TOKENS];

	memset(group, 0, qx_spec_bytes(s));
	if (!find_tops(s, raw, tops, &mine)) {
		seen->not_finite++;
		return -ENODATA;
	}
	for (unsigned int i = s->sinks * hd; i < TOKENS * hd; i++) /* step 2 */
		x[i] = sign(i % hd, hd) *
			nearbyint(ldexp(qx_spec_value(s->dtype, raw[i]), 17 - tops[i / hd]));
	if (s->tensor == CODEC_K) {
		find_mean(s, x, tops[0], &side, &mine);
		find_exponents(s, x, &side, &mine);
		for (unsigned int c = 0; c < hd; c++)
			put_field(group + 64, c, 7,
				(unsigned int)((int)side.q[c] + 16 + 32 * side.e[c]));
		group[64 + 7 * hd / 8] = (uint8_t)side.code;
	}
	for (unsigned int t = s->sinks; t < TOKENS; t++)
		if (!encode_token(s, x + t * hd, tops[t], &side, group + t, codes_of(s, group, t),
			    &mine)) {
			seen->too_large++;
			return -ENODATA;
		}
	mine.groups++;
	mine.sinks[s->sinks]++;
	*seen = mine;
	return 0;
}

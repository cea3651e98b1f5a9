// SPDX-License-Identifier: MIT
/*
 * int8-delta-rle, held to FORMAT.md by arithmetic of the test's own: exact fractions in doubles and
 * 64-bit integers.
 */
#include <math.h>

#include "harness.h"

static double value(const struct speckv_geometry *g, uint16_t bits)
{
	int mantissa = g->dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
	    bias = g->dtype == SPECKV_DTYPE_BF16 ? 127 : 15;
	int exponent = (bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
	double magnitude = exponent ? ldexp(fraction + (1 << mantissa), exponent - bias - mantissa)
				    : ldexp(fraction, 1 - bias - mantissa);

	return bits & 0x8000 ? -magnitude : magnitude;
}

/*
 * Is `bits` the nearest number of its type to target * a / 127 (all exact in doubles: 8 + 11 bits)?
 * Ties to even.
 */
static int nearest(const struct speckv_geometry *g, uint16_t bits, int q, double a)
{
	double target = fabs(q * a), here = 127 * fabs(value(g, bits)), step = fabs(here - target);
	uint16_t magnitude = bits & 0x7fff;

	if (magnitude) {
		double below = fabs(127 * value(g, (uint16_t)(magnitude - 1)) - target);

		if (below < step || (below == step && (magnitude & 1)))
			return 0;
	}
	if (magnitude + 1 < (g->dtype == SPECKV_DTYPE_BF16 ? 0x7f80 : 0x7c00)) {
		double above = fabs(127 * value(g, (uint16_t)(magnitude + 1)) - target);

		if (above < step || (above == step && (magnitude & 1)))
			return 0;
	}
	return magnitude == 0 ? !(bits & 0x8000) : !(bits & 0x8000) == (q > 0);
}

static void one(uint64_t *seed, enum style style)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed);
	uint64_t bytes = speckv_geometry_bytes(&g),
		 most = speckv_frame_max_bytes(&g, SPECKV_CODEC_INT8_DELTA_RLE), length;
	uint16_t *raw = line_alloc(bytes), *out = line_alloc(bytes);
	uint8_t *frame = line_alloc(most);
	struct speckv_frame parsed;

	random_values(seed, &g, style, raw, bytes / 2);
	CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_INT8_DELTA_RLE, &id, raw, bytes, frame, most,
		      &length),
		"encode");
	CHECK(!speckv_frame_parse(frame, length, &parsed), "parse");
	CHECK(!speckv_frame_decode(&parsed, frame, length, 0, g.layers, out, bytes), "decode");
	for (uint64_t row = 0; row < bytes / 2; row += g.head_dim) {
		double a = 0;

		for (unsigned int c = 0; c < g.head_dim; c++)
			a = fmax(a, fabs(value(&g, raw[row + c])));
		for (unsigned int c = 0; c < g.head_dim; c++) {
			double x = value(&g, raw[row + c]);
			/*
			 * 127 x / a: within 2^-53 of the true quotient, which is a tie or 2^-12 off
			 * one.
			 */
			int q = a > 0 ? (int)nearbyint(127 * x / a) : 0;

			CHECK(nearest(&g, out[row + c], q, a), "x %04x a %g q %d: %04x",
				raw[row + c], a, q, out[row + c]);
		}
	}
	if (style == STYLE_ZERO)
		/*
		 * The encoder's fixed choice of runs may end a group with two literals: a byte more
		 * than the least, a line a section.
		 */
		CHECK(length <= speckv_frame_min_bytes(&g, SPECKV_CODEC_INT8_DELTA_RLE) +
					128u * g.layers,
			"zeros: next to nothing");
	if (style == STYLE_SMOOTH)
		CHECK(get32(frame + 128 + 12) == 0 && length == most, "noise is stored");
	if (style == STYLE_CONSTANT)
		CHECK(get32(frame + 128 + 12) == 1 && length < most, "constants run");
	free(raw);
	free(out);
	free(frame);
}

/* A section written by hand from the specification, with codes the encoder would not choose. */
static void by_hand(void)
{
	struct speckv_geometry g = { 1, 1, 64, 64, SPECKV_DTYPE_BF16, { 0 } };
	struct speckv_frame_identity id = { .generation = 1 };
	uint64_t bytes = speckv_geometry_bytes(&g),
		 most = speckv_frame_max_bytes(&g, SPECKV_CODEC_INT8_DELTA_RLE), length;
	uint16_t *raw = line_alloc(bytes), *out = line_alloc(bytes);
	uint8_t *frame = line_alloc(most), *at;
	struct speckv_frame parsed;
	unsigned int used;

	memset(raw, 0, bytes);
	CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_INT8_DELTA_RLE, &id, raw, bytes, frame, most,
		      &length),
		"zeros");
	/*
	 * K: 64 scales and ceil(4096 / 130) codes of 2 bytes. First difference 127, scale of the
	 * first token 1.0.
	 */
	at = frame + 192;
	CHECK(get32(frame + 128) == 3 && get32(frame + 132) == 128 + 64,
		"sections start behind header and table");
	CHECK(at[128] == 255 && at[129] == 0, "a run of 130 zeros");
	at[0] = 0x80;
	at[1] = 0x3f;
	at[2] = 0x00;
	at[3] = 0x40; /* 2.0: the difference stands, so token 1 is 127/127 of 2 */
	at[129] = 127; /* the first 130 differences: tokens 0 and 1 and two channels of token 2 */
	put32(frame + 136, speckv_crc32c(0, at, 192));
	reseal(frame);
	CHECK(!speckv_frame_parse(frame, length, &parsed) && !speckv_frame_verify(frame, length),
		"still a frame");
	/* Token 1: 127 + 127 wraps to -2; token 2 has scale 0, whatever its codes. */
	CHECK(!speckv_frame_decode(&parsed, frame, length, 0, 1, out, bytes), "decode");
	for (int c = 0; c < 64; c++) {
		CHECK(out[c] == 0x3f80, "127/127 of 1.0 is 1.0");
		CHECK(nearest(&g, out[64 + c], -2, 2.0) && out[64 + c] == 0xbd01,
			"-2/127 of 2.0: %04x", out[64 + c]);
		CHECK(out[128 + c] == 0, "scale 0");
	}
	/* -128 is no code: 127 then one more. */
	at[128] = 127;
	for (used = 0; used < 63; used++)
		at[129 + used] = used ? 0 : 128;
	put32(frame + 136, speckv_crc32c(0, at, 192));
	reseal(frame);
	CHECK(!speckv_frame_parse(frame, length, &parsed), "parse");
	CHECK(speckv_frame_decode(&parsed, frame, length, 0, 1, out, bytes) == -EBADMSG && !out[0],
		"-128, refused and zeroed");
	free(raw);
	free(out);
	free(frame);
}

int main(void)
{
	uint64_t seed = 77;

	for (int style = 0; style < STYLES; style++)
		for (int i = 0; i < 12; i++)
			one(&seed, (enum style)style);
	by_hand();
	return 0;
}

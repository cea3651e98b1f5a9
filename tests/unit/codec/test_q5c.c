// SPDX-License-Identifier: MIT
/* Mode q5c: every kernel against the portable one, and frames with their calibration. */
#include <math.h>

#include "calibrated.h"

/*
 * Values that the units of the calibration can hold, of every kind: near each other, far apart, at
 * the limit, with zeros.
 */
static void fill(uint64_t *seed, const struct speckv_geometry *g, uint16_t *words, uint64_t count,
	int unit)
{
	unsigned int mantissa = g->dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
		     bias = g->dtype == SPECKV_DTYPE_BF16 ? 127 : 15;
	unsigned int top = (bias + 14 + (unsigned int)unit) << mantissa; /* 2^14 units: too much */
	unsigned int kind = 0;

	for (uint64_t i = 0; i < count; i++) {
		uint16_t magnitude = 0;

		if (i % 64 == 0)
			kind = random_below(seed, 6);
		switch (kind) {
		case 0:
			magnitude = (uint16_t)(top - 1 - random_below(seed, 4u << mantissa));
			break;
		case 1:
			magnitude = (uint16_t)(random_below(seed, 9) ? random_below(seed, 0x200)
								     : top - 1);
			break;
		case 2:
			break;
		case 3:
			magnitude = (uint16_t)(top - (5u << mantissa) -
				random_below(seed, 1u << mantissa));
			break;
		case 4:
			magnitude = (uint16_t)(top - (9u << mantissa));
			break;
		default:
			magnitude = (uint16_t)random_below(seed, top);
			break;
		}
		words[i] = (uint16_t)(magnitude | random_below(seed, 2) << 15);
	}
}

static void kernels_agree(uint64_t *seed, unsigned long groups)
{
	const struct codec_kernels *portable, *kernels;
	struct rotary_rotation rotation;
	int usable;

	portable = codec_kernels_variant(0, &usable);
	for (unsigned long n = 0; n < groups; n++) {
		struct speckv_geometry g = { 1, 1, head_dims[random_below(seed, 6)], 64,
			(uint8_t)(1 + random_below(seed, 2)), { 0 } };
		struct calibration_shape shape = { 1, 1, g.head_dim, 1 + random_below(seed, 5),
			rotaries[random_below(seed, 3)], 0 };
		uint64_t bytes = speckv_geometry_bytes(&g) / 2;
		uint8_t *raw = line_alloc(bytes),
			*out[2] = { line_alloc(bytes), line_alloc(bytes) },
			group[2][Q5C_GROUP_MAX] = { 0 };
		struct speckv_calibration *calibration;
		struct calibration_file file;
		struct q5c_tables tables;
		bool rotated, taken[2];
		uint32_t length;
		int rc[2];

		shape.unit = g.dtype == SPECKV_DTYPE_BF16 ? (int)random_below(seed, 90) - 60
							  : (int)random_below(seed, 22) - 20;
		shape.unit = shape.unit > 37 ? 37 : shape.unit;
		file = random_calibration(seed, &shape);
		calibration = loaded(&file);
		calibration_q5c_tables(calibration, 0, (enum codec_tensor)(n & 1), 0, &tables);
		rotated = calibration_rotation(calibration, random_next(seed), &rotation);
		length = q5c_group_bytes(g.head_dim, tables.bits);
		for (int round = 0; round < 4; round++) {
			unsigned int sinks = round & 1 ? CODEC_SINKS : 0;

			fill(seed, &g, (uint16_t *)(void *)raw, bytes / 2,
				g.dtype == SPECKV_DTYPE_FP16 && tables.unit > 1 ? 1 : tables.unit);
			if (round == 3)
				random_values(seed, &g, (enum style)random_below(seed, STYLES),
					(uint16_t *)(void *)raw, bytes / 2);
			rc[0] = portable->q5c_encode(raw, g.head_dim, g.dtype, &tables,
				rotated ? &rotation : NULL, sinks, group[0]);
			CHECK(!rc[0] || rc[0] == -ENODATA, "%d", rc[0]);
			/* any codes, any valid scales, now and then one that is none */
			if (rc[0] || round == 2)
				for (uint32_t i = 0; i < length; i++)
					group[0][i] = (uint8_t)(i < 64
							? random_below(seed,
								  round == 2 &&
										  !random_below(
											  seed, 40)
									  ? 256
									  : 225)
							: random_next(seed));
			taken[0] = portable->q5c_decode(group[0], g.head_dim, g.dtype, &tables,
				rotated ? &rotation : NULL, out[0]);
			for (unsigned int i = 1; (kernels = codec_kernels_variant(i, &usable));
				i++) {
				if (!usable)
					continue;
				rc[1] = kernels->q5c_encode(raw, g.head_dim, g.dtype, &tables,
					rotated ? &rotation : NULL, sinks, group[1]);
				CHECK(rc[0] == rc[1], "%s: %d, not %d", kernels->name, rc[1],
					rc[0]);
				CHECK(rc[0] || round == 2 || !memcmp(group[0], group[1], length),
					"%s encodes otherwise: head size %u, %u bits",
					kernels->name, g.head_dim, tables.bits);
				taken[1] = kernels->q5c_decode(group[0], g.head_dim, g.dtype,
					&tables, rotated ? &rotation : NULL, out[1]);
				CHECK(taken[0] == taken[1] &&
						(!taken[0] || !memcmp(out[0], out[1], bytes)),
					"%s decodes otherwise: head size %u, %u bits",
					kernels->name, g.head_dim, tables.bits);
			}
		}
		speckv_calibration_free(calibration);
		free(file.bytes);
		free(raw);
		free(out[0]);
		free(out[1]);
	}
}

static double number(const struct speckv_geometry *g, uint16_t word)
{
	uint32_t bits = (uint32_t)word << 16;
	float value;

	if (g->dtype == SPECKV_DTYPE_BF16) {
		memcpy(&value, &bits, 4);
		return (double)value;
	}
	bits = word & 0x7fff;
	return (word & 0x8000 ? -1 : 1) *
		(bits >> 10 ? ldexp(1024 + (bits & 1023), (int)(bits >> 10) - 25)
			    : ldexp(bits, -24));
}

struct scene {
	struct speckv_geometry geometry;
	struct calibration_file file;
	struct speckv_calibration *calibration;
	struct speckv_frame_identity id;
	uint64_t bytes, most, length;
	uint8_t *raw, *frame, *out;
};

/* Two layers and two heads of a calibration of four and three, at a far position. */
static struct scene make_scene(uint64_t *seed, unsigned int head_dim, uint8_t dtype,
	unsigned int bits, const char *rotary)
{
	struct calibration_shape shape = { 4, 3, head_dim, bits, rotary, -9 };
	struct scene s = { .geometry = { 2, 2, (uint16_t)head_dim, 128, dtype, { 0 } },
		.id = random_identity(seed) };

	s.file = random_calibration(seed, &shape);
	s.calibration = loaded(&s.file);
	s.bytes = speckv_geometry_bytes(&s.geometry);
	s.most = speckv_frame_max_bytes(&s.geometry, SPECKV_CODEC_Q5C);
	s.raw = line_alloc(s.bytes);
	s.out = line_alloc(s.bytes);
	s.frame = line_alloc(s.most);
	random_values(seed, &s.geometry, STYLE_SMOOTH, (uint16_t *)(void *)s.raw, s.bytes / 2);
	CHECK(!speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, s.calibration, 1, 1,
		      &s.id, s.raw, s.bytes, s.frame, s.most, &s.length),
		"encode");
	return s;
}

static void drop(struct scene *s)
{
	speckv_calibration_free(s->calibration);
	free(s->file.bytes);
	free(s->raw);
	free(s->frame);
	free(s->out);
}

static int decode(struct scene *s)
{
	struct speckv_frame parsed;
	int rc = speckv_frame_parse(s->frame, s->length, &parsed);

	memset(s->out, 0xee, s->bytes);
	return rc ? rc
		  : speckv_frame_decode_calibrated(&parsed, s->calibration, s->frame, s->length, 0,
			    parsed.geometry.layers, s->out, s->bytes);
}

/*
 * The error is that of the quantiser: the rotary embedding comes off and goes on again, and the
 * mean too.
 */
static void values_come_back(uint64_t *seed)
{
	for (int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++)
		for (int h = 0; h < 6; h++)
			for (int r = 0; r < 3; r++) {
				struct scene s = make_scene(seed, head_dims[h], (uint8_t)dtype, 5,
					rotaries[r]);
				const uint16_t *in = (uint16_t *)(void *)s.raw,
					       *out = (uint16_t *)(void *)s.out;
				double error = 0, energy = 0;

				CHECK(!decode(&s), "decode");
				for (uint64_t i = 0; i < s.bytes / 2; i++) {
					double x = number(&s.geometry, in[i]),
					       y = number(&s.geometry, out[i]);

					error += (x - y) * (x - y);
					energy += x * x;
				}
				/*
				 * Random levels and shaping are no good ones, but five bits are
				 * five bits.
				 */
				CHECK(error < 0.3 * energy, "%u %s: %g", head_dims[h], rotaries[r],
					error / energy);
				drop(&s);
			}
}

static void zeroed(const struct scene *s)
{
	for (uint64_t i = 0; i < s->bytes; i++)
		CHECK(!s->out[i], "byte %llu", (unsigned long long)i);
}

static void frames_need_their_calibration(uint64_t *seed)
{
	struct scene s = make_scene(seed, 64, SPECKV_DTYPE_BF16, 0, "halves"),
		     other = make_scene(seed, 64, SPECKV_DTYPE_BF16, 0, "halves");
	struct speckv_calibration *own = s.calibration;
	uint64_t length, size = s.length;
	struct speckv_frame parsed;
	uint8_t *entry;

	CHECK(!speckv_frame_parse(s.frame, size, &parsed) &&
			!memcmp(parsed.calibration, own->digest, sizeof(parsed.calibration)),
		"digest");
	CHECK(!speckv_frame_verify(s.frame, size), "verify");
	CHECK(speckv_frame_decode(&parsed, s.frame, size, 0, 2, s.out, s.bytes) == -EINVAL, "none");
	zeroed(&s);
	s.calibration = other.calibration;
	CHECK(decode(&s) == -EILSEQ, "another");
	zeroed(&s);
	s.calibration = own;
	/* One layer alone is what it is in the whole. */
	CHECK(!decode(&s), "whole");
	CHECK(!speckv_frame_decode_calibrated(&parsed, own, s.frame, size, 1, 1, other.out,
		      s.bytes) &&
			!memcmp(other.out, s.out + s.bytes / 2, s.bytes / 2),
		"layer 1");
	/* Not this mode, not these layers, not these heads, not this head size. */
	CHECK(speckv_frame_encode(&s.geometry, SPECKV_CODEC_Q5C, &s.id, s.raw, s.bytes, s.frame,
		      s.most, &length) == -EINVAL,
		"none");
	CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_RAW, own, 0, 0, &s.id, s.raw,
		      s.bytes, other.frame, s.most, &length) == -EINVAL,
		"raw");
	CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, own, 3, 0, &s.id, s.raw,
		      s.bytes, s.frame, s.most, &length) == -ERANGE,
		"layer");
	CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, own, 0, 2, &s.id, s.raw,
		      s.bytes, s.frame, s.most, &length) == -ERANGE,
		"head");
	CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, own, 65536, 0, &s.id,
		      s.raw, s.bytes, s.frame, s.most, &length) == -ERANGE,
		"far");
	/* A frame that names layers which its calibration does not have, every checksum right. */
	for (uint32_t parameter = 0; parameter < 0x50005;
		parameter += parameter % 7 == 6 ? 0x10000 - 6 : 1) {
		uint8_t *bad = line_alloc(size);

		CHECK(!speckv_frame_parse(s.frame, size, &parsed), "parse");
		memcpy(bad, s.frame, size);
		entry = bad + 128;
		for (uint32_t i = 0; i < 4; i++)
			put32(entry + 16 * i + 12, parameter + i / 2);
		reseal(bad);
		if (!speckv_frame_parse(bad, size, &parsed))
			speckv_frame_decode_calibrated(&parsed, own, bad, size, 0, 2, s.out,
				s.bytes);
		put32(entry + 12, parameter + 0x40000);
		reseal(bad);
		CHECK(!speckv_frame_parse(bad, size, &parsed) &&
				speckv_frame_decode_calibrated(&parsed, own, bad, size, 0, 2, s.out,
					s.bytes) == -EBADMSG,
			"parameter %x", parameter + 0x40000);
		zeroed(&s);
		free(bad);
	}
	/* A digest of zeros is none. */
	CHECK(!speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, own, 1, 1, &s.id,
		      s.raw, s.bytes, s.frame, s.most, &length),
		"again");
	memset(s.frame + 96, 0, 16);
	reseal(s.frame);
	CHECK(speckv_frame_parse(s.frame, size, &parsed) == -EBADMSG, "no digest");
	drop(&s);
	drop(&other);
}

static void values_it_cannot_hold_are_refused(uint64_t *seed)
{
	/* infinities, a NaN, the largest, 64: 2^15 units */
	static const uint16_t bad[] = { 0x7f80, 0xff80, 0x7fc1, 0x7f7f, 0x4280 };
	struct scene s = make_scene(seed, 128, SPECKV_DTYPE_BF16, 2, "halves");
	uint64_t length;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t at = random_below(seed, (uint32_t)s.bytes / 2);
		uint16_t *words = (uint16_t *)(void *)s.raw, kept = words[at];

		words[at] = bad[i];
		CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, s.calibration,
			      0, 0, &s.id, s.raw, s.bytes, s.frame, s.most, &length) == -ENODATA,
			"%04x", bad[i]);
		words[at] = kept;
	}
	drop(&s);
}

static void mutated_frames_do_no_harm(uint64_t *seed)
{
	struct scene s = make_scene(seed, 80, SPECKV_DTYPE_FP16, 0, "neighbours");
	uint8_t *whole = line_alloc(s.bytes), *good = line_alloc(s.length);

	CHECK(!decode(&s), "decode");
	memcpy(whole, s.out, s.bytes);
	memcpy(good, s.frame, s.length);
	for (int i = 0; i < 3000; i++) {
		uint64_t at = i & 1 ? random_below(seed, 192)
				    : random_below(seed, (uint32_t)s.length);
		int rc;

		memcpy(s.frame, good, s.length);
		s.frame[at] ^= (uint8_t)(1 + random_below(seed, 255));
		if (i & 2) {
			for (uint32_t k = 0; k < 4; k++) {
				uint8_t *entry = s.frame + 128 + 16 * k;
				uint64_t from = 64 * (uint64_t)get32(entry),
					 bytes = get32(entry + 4);

				if (from <= s.length && bytes <= s.length - from)
					put32(entry + 8, speckv_crc32c(0, s.frame + from, bytes));
			}
			/*
			 * The table is sealed by the count in the header, as far as there are
			 * bytes.
			 */
			if (((uint64_t)s.frame[112] | (uint64_t)s.frame[113] << 8) * 16 + 128 <=
				s.length)
				reseal(s.frame);
		}
		rc = decode(&s);
		if (!(i & 2) && !rc)
			CHECK(!memcmp(s.out, whole, s.bytes), "byte %llu", (unsigned long long)at);
	}
	free(whole);
	free(good);
	drop(&s);
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : 150;
	uint64_t seed = 5;

	kernels_agree(&seed, groups);
	/* The same, however many those were. */
	seed = 5;
	values_come_back(&seed);
	heads_share(&seed, SPECKV_CODEC_Q5C, random_calibration);
	frames_need_their_calibration(&seed);
	values_it_cannot_hold_are_refused(&seed);
	mutated_frames_do_no_harm(&seed);
	printf("%lu groups\n", 4 * groups);
	return 0;
}

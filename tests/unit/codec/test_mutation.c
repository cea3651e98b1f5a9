// SPDX-License-Identifier: MIT
/*
 * Damaged frames: bits flipped, bytes replaced, ends cut, fields doctored and sealed again. Named
 * errors, zeroed output, no crash.
 */
#include "harness.h"

static uint8_t *copy_exactly(const uint8_t *frame, uint64_t bytes)
{
	uint8_t *copy = line_alloc(bytes);

	memcpy(copy, frame, bytes);
	return copy;
}

static int allowed(int rc)
{
	return rc == -EBADMSG || rc == -EPROTONOSUPPORT || rc == -EOPNOTSUPP;
}

/* Parse, verify and decode what may be anything; returns whether all of it was accepted. */
static int attempt(const uint8_t *frame, uint64_t bytes, uint8_t **out, uint64_t *out_bytes)
{
	struct speckv_frame parsed;
	int rc = speckv_frame_parse(frame, bytes, &parsed),
	    verified = speckv_frame_verify(frame, bytes);

	*out = NULL;
	if (rc) {
		CHECK(allowed(rc) && verified == rc, "parse %d, verify %d", rc, verified);
		return 0;
	}
	if (parsed.raw_bytes > 64u << 20) /* the frame cannot hold that */
		return 0;
	*out_bytes = parsed.raw_bytes;
	*out = line_alloc(parsed.raw_bytes);
	memset(*out, 0xee, parsed.raw_bytes);
	rc = speckv_frame_decode(&parsed, frame, bytes, 0, parsed.geometry.layers, *out,
		parsed.raw_bytes);
	if (rc) {
		CHECK(rc == -EBADMSG, "decode %d", rc);
		for (uint64_t i = 0; i < parsed.raw_bytes; i++)
			CHECK(!(*out)[i], "output is zeroed");
	}
	return !rc;
}

/* A frame that is sound, and what it decodes to. */
struct sound {
	unsigned int layers;
	uint64_t bytes, length;
	uint8_t *frame, *whole;
};

static void flip_bits(uint64_t *seed, const struct sound *s)
{
	uint64_t out_bytes = 0;
	uint8_t *out;

	for (int i = 0; i < 400; i++) {
		/* Half of the flips in header and table. */
		uint64_t at = i & 1 ? random_below(seed, 128 + 32u * s->layers)
				    : random_below(seed, (uint32_t)s->length);
		uint8_t *bad = copy_exactly(s->frame, s->length);
		int taken;

		bad[at] ^= (uint8_t)(1u << random_below(seed, 8));
		taken = attempt(bad, s->length, &out, &out_bytes);
		if (taken) /* padding: no harm, but not a perfect frame */
			CHECK(out_bytes == s->bytes && !memcmp(out, s->whole, s->bytes) &&
					speckv_frame_verify(bad, s->length) == -EBADMSG,
				"byte %llu", (unsigned long long)at);
		free(out);
		free(bad);
	}
}

/* Cut anywhere: the sanitizer watches the end. */
static void cut_short(uint64_t *seed, const struct sound *s)
{
	uint64_t out_bytes = 0;
	uint8_t *out;

	for (int i = 0; i < 200; i++) {
		uint64_t cut = i < 160 ? (uint64_t)i : random_below(seed, (uint32_t)s->length);
		uint8_t *bad = copy_exactly(s->frame, cut);

		CHECK(!attempt(bad, cut, &out, &out_bytes) && !out, "cut to %llu",
			(unsigned long long)cut);
		free(bad);
	}
}

/* A field doctored and the checksums made right again: a forger's frame. */
static void forge_fields(uint64_t *seed, const struct sound *s)
{
	uint64_t out_bytes = 0;
	uint8_t *out;

	for (int i = 0; i < 600; i++) {
		uint8_t *bad = copy_exactly(s->frame, s->length);
		uint64_t at = 4 + random_below(seed, 124 + 32u * s->layers);
		int width = 1 << random_below(seed, 3);

		for (int k = 0; k < width && at + (uint64_t)k < s->length; k++)
			bad[at + (uint64_t)k] = (uint8_t)(random_below(seed, 3)
					? random_next(seed)
					: random_below(seed, 2) * 255);
		/* The table is sealed by the count in the header, as far as there are bytes. */
		if (((uint64_t)bad[112] | (uint64_t)bad[113] << 8) * 16 + 128 <= s->length)
			reseal(bad);
		attempt(bad, s->length, &out, &out_bytes);
		free(out);
		free(bad);
	}
}

/* Sections of any bytes under a right checksum: decoders take them or refuse them. */
static void fill_sections(uint64_t *seed, const struct sound *s)
{
	uint64_t out_bytes = 0;
	uint8_t *out;

	for (int i = 0; i < 200; i++) {
		uint8_t *bad = copy_exactly(s->frame, s->length);

		for (uint32_t k = 0; k < 2u * s->layers; k++) {
			uint8_t *entry = bad + 128 + 16 * k, *section = bad + 64ull * get32(entry);
			uint32_t bytes_here = get32(entry + 4), flips = random_below(seed, 20);

			for (; flips; flips--)
				section[random_below(seed, bytes_here)] =
					(uint8_t)random_next(seed);
			if (!random_below(seed, 4))
				put32(entry + 12, random_below(seed, 3));
			put32(entry + 8, speckv_crc32c(0, section, bytes_here));
		}
		reseal(bad);
		if (attempt(bad, s->length, &out, &out_bytes))
			CHECK(!speckv_frame_verify(bad, s->length), "checksums are right");
		free(out);
		free(bad);
	}
}

static void mutate(uint64_t *seed, unsigned int codec)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed);
	uint64_t bytes, most, length, out_bytes = 0;
	uint8_t *raw, *frame, *whole;
	struct sound sound;

	g.layers = (uint16_t)(1 + random_below(seed, 2));
	g.kv_heads = 1;
	g.tokens = 64;
	bytes = speckv_geometry_bytes(&g);
	most = speckv_frame_max_bytes(&g, codec);
	raw = line_alloc(bytes);
	frame = line_alloc(most);
	random_values(seed, &g, random_below(seed, 2) ? STYLE_SMOOTH : STYLE_CHANNELS,
		(uint16_t *)(void *)raw, bytes / 2);
	CHECK(!speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most, &length), "encode");
	CHECK(attempt(frame, length, &whole, &out_bytes) && out_bytes == bytes, "sound");
	sound = (struct sound){ g.layers, bytes, length, frame, whole };
	flip_bits(seed, &sound);
	cut_short(seed, &sound);
	forge_fields(seed, &sound);
	fill_sections(seed, &sound);
	free(raw);
	free(frame);
	free(whole);
}

static void versions_and_modes(void)
{
	struct speckv_geometry g = { 1, 1, 64, 64, SPECKV_DTYPE_FP16, { 0 } };
	struct speckv_frame_identity id = { .generation = 9 };
	uint64_t bytes = speckv_geometry_bytes(&g), most = speckv_frame_max_bytes(&g, 0), length;
	uint8_t *raw = line_alloc(bytes), *frame = line_alloc(most), *bad;
	struct speckv_frame parsed = { 0 };
	static const struct {
		int at;
		uint8_t value;
		int error;
	} cases[] = {
		{ 0, 'X', -EBADMSG },
		{ 4, 0, -EPROTONOSUPPORT }, /* an earlier draft */
		{ 4, 2, -EPROTONOSUPPORT },
		{ 5, 255, -EPROTONOSUPPORT },
		{ 6, 8, -EOPNOTSUPP },
		{ 6, 200, -EOPNOTSUPP },
		{ 7, 0, -EBADMSG },
		{ 7, 9, -EBADMSG },
		{ 8, 2, -EBADMSG },
		{ 10, 0, -EBADMSG },
		{ 14, 63, -EBADMSG },
		{ 16, 1, -EBADMSG },
		{ 20, 1, -EBADMSG },
		{ 23, 255, -EBADMSG },
		{ 96, 1, -EBADMSG },
		{ 112, 3, -EBADMSG },
		{ 114, 1, -EBADMSG },
		{ 128, 4, -EBADMSG },
		{ 128, 2, -EBADMSG },
		{ 131, 255, -EBADMSG },
		{ 132, 1, -EBADMSG },
		{ 140, 1, -EBADMSG },
		{ 144, 7, -EBADMSG },
	};

	memset(raw, 1, bytes);
	CHECK(!speckv_frame_encode(&g, 0, &id, raw, bytes, frame, most, &length), "encode");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bad = copy_exactly(frame, length);
		bad[cases[i].at] = cases[i].value;
		reseal(bad);
		CHECK(speckv_frame_parse(bad, length, &parsed) == cases[i].error, "byte %d = %u",
			cases[i].at, cases[i].value);
		CHECK(!parsed.frame_bytes, "nothing is handed out");
		free(bad);
	}
	CHECK(speckv_frame_parse(NULL, 0, &parsed) == -EBADMSG &&
			speckv_frame_parse(frame, length, NULL) == -EINVAL,
		"no frame, no result");
	free(raw);
	free(frame);
}

int main(void)
{
	uint64_t seed = 4711;

	versions_and_modes();
	for (unsigned int codec = 0; codec < 8; codec++)
		for (int i = 0; i < 6 && speckv_codec_modes() >> codec & 1; i++)
			mutate(&seed, codec);
	return 0;
}

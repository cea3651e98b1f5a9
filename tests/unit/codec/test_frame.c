// SPDX-License-Identifier: MIT
/* Frames: round trips over random shapes, layer ranges, identity, limits, refusals. */
#include "harness.h"

static void raw_round_trip(uint64_t *seed)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed), other = random_identity(seed);
	struct speckv_frame parsed;
	uint64_t bytes, most, length = 0;
	uint8_t *raw, *frame, *out;

	g.dtype = (uint8_t)(1 + random_below(seed, 4));
	g.head_dim = (uint16_t)(1 + random_below(seed, 300)); /* raw takes any */
	bytes = speckv_geometry_bytes(&g);
	most = speckv_frame_max_bytes(&g, SPECKV_CODEC_RAW);
	CHECK(bytes && most == speckv_frame_min_bytes(&g, SPECKV_CODEC_RAW), "raw has one size");
	raw = line_alloc(bytes);
	out = line_alloc(bytes);
	frame = line_alloc(most);
	for (uint64_t i = 0; i < bytes; i++)
		raw[i] = (uint8_t)random_next(seed);
	CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_RAW, &id, raw, bytes, frame, most, &length) &&
			length == most,
		"encode");
	CHECK(!speckv_frame_parse(frame, most, &parsed), "parse");
	CHECK(!memcmp(&parsed.geometry, &g, sizeof(g)) &&
			!memcmp(&parsed.identity, &id, sizeof(id)),
		"the header says what was put in");
	CHECK(parsed.codec == SPECKV_CODEC_RAW && parsed.sections == 2u * g.layers &&
			parsed.raw_bytes == bytes && parsed.frame_bytes == most,
		"sizes");
	CHECK(!speckv_frame_verify(frame, most), "verify");
	memset(out, 0xee, bytes);
	CHECK(!speckv_frame_decode(&parsed, frame, most, 0, g.layers, out, bytes) &&
			!memcmp(raw, out, bytes),
		"decode");

	/* Every range alone. */
	for (unsigned int first = 0; first <= g.layers; first++)
		for (unsigned int count = 0; first + count <= g.layers; count++) {
			uint64_t at = bytes / g.layers * first, part = bytes / g.layers * count;

			memset(out, 0xee, bytes);
			CHECK(!speckv_frame_decode(&parsed, frame, most, first, count, out, part),
				"layers %u + %u", first, count);
			CHECK(!memcmp(out, raw + at, part), "layers %u + %u", first, count);
			CHECK(part == bytes || out[part] == 0xee, "nothing beyond the range");
			if (part) {
				CHECK(speckv_frame_decode(&parsed, frame, most, first, count, out,
					      part - 1) == -ENOSPC,
					"one byte short");
				for (uint64_t i = 0; i < part - 1; i++)
					CHECK(!out[i], "zeroed after an error");
			}
		}
	CHECK(speckv_frame_decode(&parsed, frame, most, g.layers, 1, out, bytes) == -EINVAL,
		"past the last layer");
	CHECK(speckv_frame_decode(&parsed, frame, most, ~0u, 2, out, bytes) == -EINVAL,
		"a range that wraps");
	CHECK(speckv_frame_decode(&parsed, frame, most - 1, 0, 1, out, bytes) == -EBADMSG,
		"cut short after parsing");

	/* Another place, same payload. */
	memcpy(out, frame + 128, bytes < most - 128 ? bytes : most - 128);
	CHECK(!speckv_frame_readdress(frame, most, &other) &&
			!speckv_frame_parse(frame, most, &parsed),
		"readdress");
	CHECK(!memcmp(&parsed.identity, &other, sizeof(other)), "new identity");
	CHECK(!memcmp(out, frame + 128, bytes < most - 128 ? bytes : most - 128) &&
			!speckv_frame_verify(frame, most),
		"payload as it was");
	CHECK(speckv_frame_readdress(frame, 127, &other) == -EBADMSG &&
			speckv_frame_readdress(frame, most, NULL) == -EINVAL,
		"refusals");
	frame[20] ^= 1;
	CHECK(speckv_frame_readdress(frame, most, &other) == -EBADMSG,
		"a damaged header is not blessed");
	free(raw);
	free(out);
	free(frame);
}

/* Modes with loss: bounded sizes, repeatable bytes, every range equal to its part of the whole. */
/* The first tokens of a sequence come back as they were, whatever they were; the same later not. */
static void first_tokens(uint64_t *seed, unsigned int codec)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed);
	uint64_t bytes = speckv_geometry_bytes(&g), most = speckv_frame_max_bytes(&g, codec),
		 length, later;
	unsigned int token = 2u * g.head_dim, heads = 2u * g.layers * g.kv_heads;
	uint8_t *raw = line_alloc(bytes), *out = line_alloc(bytes), *frame = line_alloc(most);
	struct speckv_frame parsed;

	random_values(seed, &g, STYLE_SMOOTH, (uint16_t *)(void *)raw, bytes / 2);
	CHECK(!speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most, &later), "later");
	for (unsigned int head = 0; head < heads; head++)
		for (unsigned int i = 0; i < 4 * token; i++)
			raw[(uint64_t)head * g.tokens * token + i] = (uint8_t)random_next(seed);
	CHECK(speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most, &length) == -ENODATA ||
			length == later,
		"any bits, further on");
	id.first_position = 0;
	CHECK(!speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most, &length) &&
			length == later + 4ull * token * heads,
		"%s: %llu bytes instead of %llu", speckv_codec_name(codec),
		(unsigned long long)length, (unsigned long long)later);
	CHECK(!speckv_frame_verify(frame, length) && !speckv_frame_parse(frame, length, &parsed) &&
			!speckv_frame_decode(&parsed, frame, length, 0, g.layers, out, bytes),
		"decode");
	for (unsigned int head = 0; head < heads; head++) {
		uint64_t at = (uint64_t)head * g.tokens * token;

		CHECK(!memcmp(raw + at, out + at, 4 * token), "%s: head %u",
			speckv_codec_name(codec), head);
		CHECK(memcmp(raw + at + 4 * token, out + at + 4 * token, token),
			"the next is coded");
	}
	free(raw);
	free(out);
	free(frame);
}

static void lossy_round_trip(uint64_t *seed, unsigned int codec)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed);
	uint64_t bytes = speckv_geometry_bytes(&g), most = speckv_frame_max_bytes(&g, codec),
		 length = 0, again = 0;
	struct speckv_frame parsed;
	uint8_t *raw = line_alloc(bytes), *frame = line_alloc(most), *twin = line_alloc(most),
		*out = line_alloc(bytes), *part;
	uint64_t layer = bytes / g.layers;
	unsigned int first = random_below(seed, g.layers);
	int rc;

	random_values(seed, &g, (enum style)random_below(seed, STYLES), (uint16_t *)(void *)raw,
		bytes / 2);
	memset(frame, 0x5a, most);
	memset(twin, 0xa5, most);
	rc = speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most, &length);
	if (rc == -ENODATA) /* beyond the mode's range: the caller stores the block raw */
		goto out;
	CHECK(!rc && length <= most && length >= speckv_frame_min_bytes(&g, codec),
		"%s: %d, %llu bytes", speckv_codec_name(codec), rc, (unsigned long long)length);
	CHECK(!speckv_frame_encode(&g, codec, &id, raw, bytes, twin, most, &again) &&
			again == length && !memcmp(frame, twin, length),
		"%s: the same bytes twice, padding included", speckv_codec_name(codec));
	CHECK(!speckv_frame_parse(frame, length, &parsed) && parsed.codec == codec &&
			parsed.frame_bytes == length,
		"parse");
	CHECK(!speckv_frame_verify(frame, length), "verify");
	CHECK(!speckv_frame_decode(&parsed, frame, length, 0, g.layers, out, bytes), "decode");
	part = line_alloc(layer);
	CHECK(!speckv_frame_decode(&parsed, frame, length, first, 1, part, layer) &&
			!memcmp(part, out + first * layer, layer),
		"one layer");
	free(part);
	if (codec == SPECKV_CODEC_LOSSLESS)
		CHECK(!memcmp(raw, out, bytes), "lossless");
out:
	free(raw);
	free(frame);
	free(twin);
	free(out);
}

static void refusals(void)
{
	struct speckv_geometry g = { 2, 2, 128, 64, SPECKV_DTYPE_BF16, { 0 } }, bad;
	struct speckv_frame_identity id = { .generation = 1 };
	uint64_t bytes = speckv_geometry_bytes(&g), most = speckv_frame_max_bytes(&g, 0), length;
	uint16_t *raw = line_alloc(bytes);
	uint8_t *frame = line_alloc(most + 64);

	memset(raw, 0, bytes);
	CHECK(bytes == 2 * 2 * 2 * 128 * 64 * 2, "block bytes");
	CHECK(speckv_frame_encode(&g, 0, &id, raw, bytes, frame + 8, most, &length) == -EINVAL,
		"not on a line");
	CHECK(speckv_frame_encode(&g, 0, &id, raw, bytes, frame, most - 1, &length) == -ENOSPC,
		"one byte short");
	CHECK(speckv_frame_encode(&g, 0, &id, raw, bytes - 1, frame, most, &length) == -EINVAL,
		"another size of block");
	CHECK(speckv_frame_encode(&g, 99, &id, raw, bytes, frame, most, &length) == -EOPNOTSUPP,
		"unknown mode");
	CHECK(speckv_frame_max_bytes(&g, 99) == 0 && speckv_frame_min_bytes(&g, 99) == 0,
		"unknown mode");
#define BAD(field, value)                                                                    \
	do {                                                                                 \
		bad = g;                                                                     \
		bad.field = value;                                                           \
		CHECK(!speckv_geometry_bytes(&bad), #field);                                 \
		CHECK(!speckv_frame_max_bytes(&bad, 0), #field);                             \
		CHECK(speckv_frame_encode(&bad, 0, &id, raw, bytes, frame, most, &length) == \
				-EINVAL,                                                     \
			#field);                                                             \
	} while (0)
	BAD(layers, 0);
	BAD(layers, 40000);
	BAD(kv_heads, 0);
	BAD(head_dim, 0);
	BAD(tokens, 0);
	BAD(tokens, 65);
	BAD(dtype, 0);
	BAD(dtype, 5);
	BAD(reserved[6], 1);
	bad = (struct speckv_geometry){ 32767, 65535, 65535, 65472, SPECKV_DTYPE_FP16, { 0 } };
	CHECK(!speckv_geometry_bytes(&bad), "larger than a frame can be");
	CHECK(!speckv_geometry_bytes(NULL), "NULL");

	/* Values and types that modes with loss cannot hold, but for the first tokens of all. */
	id.first_position = 64;
	for (unsigned int codec = 1; codec < 8; codec++) {
		if (!(speckv_codec_modes() >> codec & 1) || codec == SPECKV_CODEC_LOSSLESS)
			continue;
		for (int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++) {
			static const uint16_t none[2][4] = { { 0x7f80, 0xff80, 0x7fc0, 0xff81 },
				{ 0x7c00, 0xfc00, 0x7e00, 0xfc01 } };

			g.dtype = (uint8_t)dtype;
			for (int i = 0; i < 4; i++)
				for (uint64_t at = 0; at < bytes / 2; at += 1 + bytes / 2 / 7) {
					raw[at] = none[dtype - 1][i];
					CHECK(speckv_frame_encode(&g, codec, &id, raw, bytes, frame,
						      most, &length) == -ENODATA,
						"%s: %04x", speckv_codec_name(codec), raw[at]);
					raw[at] = 0;
				}
			CHECK(!speckv_frame_encode(&g, codec, &id, raw, bytes, frame, most,
				      &length),
				"zeros");
		}
		bad = g;
		bad.dtype = SPECKV_DTYPE_FP8_E4M3;
		CHECK(!speckv_frame_max_bytes(&bad, codec), "%s takes no fp8",
			speckv_codec_name(codec));
		CHECK(speckv_frame_encode(&bad, codec, &id, raw, bytes / 2, frame, most, &length) ==
				-EOPNOTSUPP,
			"no fp8");
		bad = g;
		bad.head_dim = 72;
		CHECK(!speckv_frame_max_bytes(&bad, codec), "%s: head size 72",
			speckv_codec_name(codec));
	}
	free(raw);
	free(frame);
}

static void names(void)
{
	for (unsigned int i = 0; i < 10; i++) {
		const char *codec = speckv_codec_name(i), *dtype = speckv_dtype_name(i);

		CHECK(!codec == (i > 7) && (!codec || speckv_codec_from_name(codec) == (int)i),
			"codec %u", i);
		CHECK(!dtype == (i < 1 || i > 4) &&
				(!dtype || speckv_dtype_from_name(dtype) == (int)i),
			"dtype %u", i);
	}
	CHECK(speckv_codec_from_name("zip") == -EINVAL && speckv_codec_from_name(NULL) == -EINVAL,
		"unknown");
	CHECK(speckv_dtype_from_name("fp4") == -EINVAL && speckv_dtype_from_name("") == -EINVAL,
		"unknown");
	CHECK((speckv_codec_modes() & 3) == 3, "raw and int8-delta-rle are always there");
}

int main(void)
{
	uint64_t seed = 1;

	names();
	refusals();
	for (int i = 0; i < 60; i++)
		raw_round_trip(&seed);
	for (unsigned int codec = 1; codec < 8; codec++)
		for (int i = 0; i < 60 && speckv_codec_modes() >> codec & 1; i++)
			lossy_round_trip(&seed, codec);
	for (int i = 0; i < 20; i++) {
		first_tokens(&seed, SPECKV_CODEC_Q3X);
		first_tokens(&seed, SPECKV_CODEC_Q4X);
		first_tokens(&seed, SPECKV_CODEC_Q5X);
	}
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * lossless: every bit pattern comes back, in every dtype, shape and layer range, never in more
 * bytes than raw takes; every set of kernels gives what the portable one gives, on groups of its
 * own making and on any bytes; what is no section is refused.
 */
#include "harness.h"
#include "codec/frame.h"
#include "codec/kernels.h"
#include "codec/lossless.h"

static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };

/*
 * What is hard: all patterns, NaN with payloads, infinities, zeros of both signs, subnormals, in a
 * sea of ordinary values or alone.
 */
static void fill(uint64_t *seed, const struct speckv_geometry *g, uint8_t *raw, uint64_t bytes)
{
	static const uint16_t special[2][10] = {
		{ 0x7f80, 0xff80, 0x7fc1, 0xffff, 0x0000, 0x8000, 0x0001, 0x807f, 0x7f7f, 0x3f80 },
		{ 0x7c00, 0xfc00, 0x7e01, 0xffff, 0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff, 0x3c00 }
	};
	uint32_t what = random_below(seed, 10), often = 1 + random_below(seed, 400);

	if (what == 0) {
		for (uint64_t i = 0; i < bytes; i++)
			raw[i] = (uint8_t)random_next(seed);
		return;
	}
	random_values(seed, g, (enum style)random_below(seed, STYLES), (uint16_t *)(void *)raw,
		bytes / 2);
	if (what == 1) /* fp8: each byte near the middle of its range */
		for (uint64_t i = 0; i < bytes; i++)
			raw[i] = (uint8_t)((raw[i] & 0x80) |
				(0x30 + random_below(seed, 1 + often % 32)));
	if (what < 5)
		for (uint64_t i = random_below(seed, often); i < bytes / 2;
			i += 1 + random_below(seed, 2 * often))
			((uint16_t *)(void *)raw)[i] =
				special[g->dtype != SPECKV_DTYPE_BF16][random_below(seed, 10)];
}

static void round_trip(uint64_t *seed, unsigned long *stored, unsigned long *sections)
{
	struct speckv_geometry g = random_geometry(seed);
	struct speckv_frame_identity id = random_identity(seed);
	uint64_t bytes, most, length, first_length = 0, offset = 2 * random_below(seed, 32);
	uint8_t *raw, *frame, *first = NULL, *out;

	g.dtype = (uint8_t)(1 + random_below(seed, 4));
	g.tokens = (uint16_t)(64 * (1 + random_below(seed, 4)));
	bytes = speckv_geometry_bytes(&g);
	most = speckv_frame_max_bytes(&g, SPECKV_CODEC_LOSSLESS);
	CHECK(most == speckv_frame_max_bytes(&g, SPECKV_CODEC_RAW), "never more than raw");
	raw = (uint8_t *)line_alloc(bytes + 64) + offset;
	out = (uint8_t *)line_alloc(bytes + 64) + (random_below(seed, 2) ? 0 : offset);
	for (unsigned int l = 0; l < g.layers; l++)
		fill(seed, &g, raw + bytes / g.layers * l, bytes / g.layers);
	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
		struct speckv_frame parsed;
		unsigned int layer = random_below(seed, g.layers);

		if (speckv_isa_force(isas[i]))
			continue;
		frame = line_alloc(most);
		CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_LOSSLESS, &id, raw, bytes, frame, most,
			      &length) &&
				length <= most,
			"encode");
		if (!first) {
			first = frame;
			first_length = length;
			for (uint32_t s = 0; s < 2u * g.layers; s++)
				*stored += !get32(frame + 128 + 16 * s + 12);
			*sections += 2u * g.layers;
		}
		CHECK(length == first_length && !memcmp(frame, first, length),
			"%s: not the frame of the portable kernels", isas[i]);
		CHECK(!speckv_frame_parse(frame, length, &parsed) &&
				!speckv_frame_verify(frame, length),
			"parse, verify");
		for (int streamed = 0; streamed < 2; streamed++) {
			out[bytes] = 0xbb;
			memset(out, 0xee, bytes);
			CHECK(!codec_frame_decode(&parsed, frame, length, 0, g.layers, out, bytes,
				      streamed),
				"%s: decode", isas[i]);
			CHECK(!memcmp(out, raw, bytes), "%s %s head %u: not every bit", isas[i],
				speckv_dtype_name(g.dtype), g.head_dim);
			CHECK(out[bytes] == 0xbb, "nothing beyond");
		}
		CHECK(!speckv_frame_decode(&parsed, frame, length, layer, 1, out, bytes) &&
				!memcmp(out, raw + bytes / g.layers * layer, bytes / g.layers),
			"a layer alone");
		if (frame != first)
			free(frame);
	}
	free(first);
	free((void *)((uintptr_t)raw & ~(uintptr_t)63));
	free((void *)((uintptr_t)out & ~(uintptr_t)63));
}

/*
 * All 2^16 patterns in one section, whatever it is coded as; and one of each in a sea of another.
 */
static void every_pattern(void)
{
	struct speckv_geometry g = { 1, 1, 256, 256, SPECKV_DTYPE_BF16, { 0 } };
	struct speckv_frame_identity id = { .generation = 1 };
	uint64_t bytes = speckv_geometry_bytes(&g),
		 most = speckv_frame_max_bytes(&g, SPECKV_CODEC_LOSSLESS), length;
	uint16_t *raw = line_alloc(bytes), *out = line_alloc(bytes);
	uint8_t *frame = line_alloc(most);
	struct speckv_frame parsed;

	for (unsigned int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP8_E5M2; dtype++)
		for (int sparse = 0; sparse < 2; sparse++) {
			uint64_t all;

			g.dtype = (uint8_t)dtype;
			all = speckv_geometry_bytes(&g);
			for (uint32_t i = 0; i < all / 2; i++)
				raw[i] = sparse && i % 97
					? 0x3f3f
					: (uint16_t)(sparse ? i / 97 * 0x9e37 : i);
			CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_LOSSLESS, &id, raw, all, frame,
				      most, &length),
				"encode");
			CHECK(dtype > SPECKV_DTYPE_FP16 ||
					!sparse == (get32(frame + 140) == LOSSLESS_STORED),
				"dtype %u: form %u", dtype, get32(frame + 140));
			CHECK(!speckv_frame_parse(frame, length, &parsed) &&
					!speckv_frame_decode(&parsed, frame, length, 0, 1, out,
						all),
				"decode");
			CHECK(!memcmp(raw, out, all), "dtype %u", dtype);
		}
	free(raw);
	free(out);
	free(frame);
}

static void any_table(uint64_t *seed, struct range_table *table)
{
	uint8_t frequency[RANGE_SYMBOLS] = { 0 };
	unsigned int left = 256;

	while (left) {
		unsigned int s = random_below(seed, RANGE_SYMBOLS),
			     share = 1 +
			random_below(seed, random_below(seed, 2) ? left : 1 + left / 8);

		share = frequency[s] + share > 255 ? 255u - frequency[s] : share;
		frequency[s] = (uint8_t)(frequency[s] + share);
		left -= share;
	}
	CHECK(codec_range_table(frequency, table), "256");
}

/* Any symbols, any plain bits, any values escaped. */
static void merges_agree(uint64_t *seed, const struct codec_kernels *kernels, const uint16_t *base,
	unsigned int hd, unsigned int dtype)
{
	unsigned int n = CODEC_GROUP_TOKENS * hd;
	uint8_t *symbols = line_alloc(n), *plain = line_alloc(LOSSLESS_PLAIN_MAX + RANGE_SLACK),
		*escaped = line_alloc(2 * n), *raw = line_alloc(2 * n), *back = line_alloc(2 * n);

	for (unsigned int i = 0; i < n; i++) {
		symbols[i] = (uint8_t)random_below(seed, random_below(seed, 90) ? 31 : 32);
		escaped[2 * i] = (uint8_t)random_next(seed);
		escaped[2 * i + 1] = (uint8_t)random_next(seed);
	}
	for (unsigned int i = 0; i < LOSSLESS_PLAIN_MAX; i++)
		plain[i] = (uint8_t)random_next(seed);
	codec_lossless_merge_portable(symbols, plain, escaped, base, hd, dtype, raw, false);
	kernels->lossless_merge(symbols, plain, escaped, base, hd, dtype, back,
		random_below(seed, 2));
	CHECK(!memcmp(raw, back, (size_t)n * codec_dtype_bytes(dtype)),
		"%s: merge, dtype %u, head %u", kernels->name, dtype, hd);
	free(symbols);
	free(plain);
	free(escaped);
	free(raw);
	free(back);
}

/*
 * Kernels beside the portable ones: any symbols, any plain bits; code of any bytes, of the right
 * and the wrong length.
 */
static void kernels_agree(uint64_t *seed, const struct codec_kernels *kernels)
{
	static const uint8_t dtypes[] = { SPECKV_DTYPE_BF16, SPECKV_DTYPE_FP16,
		SPECKV_DTYPE_FP8_E4M3, SPECKV_DTYPE_FP8_E5M2 };
	unsigned int hd = head_dims[random_below(seed, 6)], dtype = dtypes[random_below(seed, 4)],
		     n = CODEC_GROUP_TOKENS * hd;
	uint32_t states[3][RANGE_STATES], escapes, code_bytes, cut;
	uint8_t offsets[CODEC_HEAD_DIM_MAX / 2];
	uint8_t *symbols = line_alloc(n), *again = line_alloc(n),
		*plain = line_alloc(LOSSLESS_PLAIN_MAX + RANGE_SLACK);
	uint8_t *plain_too = line_alloc(LOSSLESS_PLAIN_MAX + RANGE_SLACK),
		*code = line_alloc(n + RANGE_SLACK);
	uint8_t *escaped = line_alloc(2 * n), *escaped_too = line_alloc(2 * n),
		*raw = line_alloc(2 * n), *back = line_alloc(2 * n);
	uint16_t base[CODEC_HEAD_DIM_MAX + RANGE_STATES];
	struct range_table table;
	bool good;

	any_table(seed, &table);
	for (unsigned int i = 0; i < sizeof(offsets); i++)
		offsets[i] = (uint8_t)random_next(seed);
	codec_lossless_base((uint16_t)random_next(seed), offsets, hd, base);
	for (unsigned int i = 0; i < 2 * n; i++)
		raw[i] = (uint8_t)random_next(seed);

	/* split: symbols, plain bits and the escapes there is room for */
	escapes = codec_lossless_split_portable(raw, &table, base, hd, dtype, symbols, plain,
		escaped);
	CHECK(kernels->lossless_split(raw, &table, base, hd, dtype, again, plain_too,
		      escaped_too) == escapes,
		"%s: escapes", kernels->name);
	CHECK(!memcmp(symbols, again, n) &&
			!memcmp(plain, plain_too,
				lossless_plain_bytes(hd, lossless_layout(dtype).plain)),
		"%s: split", kernels->name);
	CHECK(!memcmp(escaped, escaped_too,
		      2 * (escapes < LOSSLESS_ESCAPES_MAX(hd) ? escapes : LOSSLESS_ESCAPES_MAX(hd))),
		"%s: escaped values", kernels->name);

	/* code: symbols as they would be, by their frequencies */
	for (unsigned int i = 0; i < n; i++)
		symbols[i] = table.symbol[random_below(seed, 256)];
	for (unsigned int k = 0; k < RANGE_STATES; k++)
		states[0][k] = states[1][k] = RANGE_STATE_MIN + random_below(seed, RANGE_STATE_MIN);
	memcpy(states[2], states[0], sizeof(states[0]));
	code_bytes = codec_range_code_portable(&table, NULL, symbols, hd, states[0], code + n);
	CHECK(kernels->range_code(&table, NULL, symbols, hd, states[1], back + n) == code_bytes,
		"%s: code", kernels->name);
	CHECK(!memcmp(states[0], states[1], sizeof(states[0])) &&
			!memcmp(code + n - code_bytes, back + n - code_bytes, code_bytes),
		"%s: code", kernels->name);
	CHECK(kernels->range_symbols(&table, NULL, code + n - code_bytes, code_bytes, hd, states[0],
		      again) &&
			!memcmp(symbols, again, n) &&
			!memcmp(states[0], states[2], sizeof(states[0])),
		"%s: symbols", kernels->name);

	/* any bytes, which end where they happen to */
	for (unsigned int i = 0; i < n + RANGE_SLACK; i++)
		code[i] = (uint8_t)random_next(seed);
	cut = random_below(seed, 2) ? code_bytes : random_below(seed, n);
	memcpy(states[0], states[1], sizeof(states[0]));
	memset(symbols, 0xee, n);
	memset(again, 0xee, n);
	good = codec_range_symbols_portable(&table, NULL, code, cut, hd, states[0], symbols);
	CHECK(kernels->range_symbols(&table, NULL, code, cut, hd, states[1], again) == good,
		"%s: the end of the code", kernels->name);
	CHECK(!memcmp(symbols, again, n), "%s: symbols of any bytes", kernels->name);
	merges_agree(seed, kernels, base, hd, dtype);
	free(symbols);
	free(again);
	free(plain);
	free(plain_too);
	free(code);
	free(escaped);
	free(escaped_too);
	free(raw);
	free(back);
}

/* Each way in which a section can be none, under right checksums. */
static void refusals(void)
{
	struct speckv_geometry g = { 1, 1, 64, 64, SPECKV_DTYPE_BF16, { 0 } };
	struct speckv_frame_identity id = { .generation = 1 };
	uint64_t bytes = speckv_geometry_bytes(&g),
		 most = speckv_frame_max_bytes(&g, SPECKV_CODEC_LOSSLESS), length, seed = 3;
	uint8_t *raw = line_alloc(bytes), *out = line_alloc(bytes), *frame = line_alloc(most),
		*bad = line_alloc(most), *section, *group;
	struct speckv_frame parsed;
	static const struct {
		int at; /* in the section; from 34 on: in the first group */
		int add;
	} cases[] = { { 0, 1 }, { 31, -1 }, { 34, 1 }, { 34, -1 }, { 35, 64 }, { 36, 1 },
		{ 37, 16 }, { 38, 1 }, { 45, 8 }, { 62, 1 }, { 200, 1 } };

	random_values(&seed, &g, STYLE_SMOOTH, (uint16_t *)(void *)raw, bytes / 2);
	CHECK(!speckv_frame_encode(&g, SPECKV_CODEC_LOSSLESS, &id, raw, bytes, frame, most,
		      &length) &&
			get32(frame + 140) == LOSSLESS_CODED,
		"coded");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t k = 0; k < sizeof(isas) / sizeof(isas[0]); k++) {
			if (speckv_isa_force(isas[k]))
				continue;
			memcpy(bad, frame, length);
			section = bad + 64ull * get32(bad + 128);
			group = section + cases[i].at;
			*group = (uint8_t)(*group + cases[i].add);
			put32(bad + 136, speckv_crc32c(0, section, get32(bad + 132)));
			reseal(bad);
			CHECK(!speckv_frame_verify(bad, length) &&
					!speckv_frame_parse(bad, length, &parsed),
				"sealed");
			memset(out, 0xee, bytes);
			CHECK(speckv_frame_decode(&parsed, bad, length, 0, 1, out, bytes) ==
					-EBADMSG,
				"%s: byte %d", isas[k], cases[i].at);
			for (uint64_t b = 0; b < bytes; b++)
				CHECK(!out[b], "zeroed");
		}
	/* A stored section of another length than the tensor's. */
	memcpy(bad, frame, length);
	put32(bad + 140, LOSSLESS_STORED);
	reseal(bad);
	CHECK(!speckv_frame_parse(bad, length, &parsed) &&
			speckv_frame_decode(&parsed, bad, length, 0, 1, out, bytes) == -EBADMSG,
		"stored, but short");
	put32(bad + 140, 3);
	reseal(bad);
	CHECK(speckv_frame_parse(bad, length, &parsed) == -EBADMSG, "no such form");
	free(raw);
	free(out);
	free(frame);
	free(bad);
}

int main(int argc, char **argv)
{
	unsigned long times = argc > 1 ? strtoul(argv[1], NULL, 10) : 120, stored = 0, sections = 0;
	const struct codec_kernels *kernels;
	uint64_t seed = 77;
	int usable;

	every_pattern();
	for (unsigned long i = 0; i < times; i++)
		round_trip(&seed, &stored, &sections);
	CHECK(stored > sections / 10 && stored < sections * 9 / 10,
		"%lu of %lu stored: both ways are to be tried", stored, sections);
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		for (unsigned long k = 0; usable && k < times; k++)
			kernels_agree(&seed, kernels);
	refusals();
	printf("%lu blocks, %lu of %lu sections stored\n", times, stored, sections);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Mode e7c: every kernel against the portable one, frames with their calibration, and groups that
 * are stored.
 */
#include "calibrated.h"

/*
 * Values that the units of the calibration can hold, of every kind: near each other, far apart, at
 * the limits, with zeros.
 */
static void fill(uint64_t *seed, const struct speckv_geometry *g, uint16_t *words, uint64_t count,
	int unit)
{
	unsigned int mantissa = g->dtype == SPECKV_DTYPE_BF16 ? 7 : 10,
		     bias = g->dtype == SPECKV_DTYPE_BF16 ? 127 : 15, kind = 0;
	unsigned int top = (bias + 14 + (unsigned int)unit) << mantissa; /* 2^14 units: too much */
	bool wide = !random_below(seed, 4);

	for (uint64_t i = 0; i < count; i++) {
		uint16_t magnitude = 0;

		if (i % 64 == 0)
			kind = random_below(seed, 6);
		switch (kind) {
		case 0: /* beyond what is transformed */
			magnitude = (uint16_t)(top - 1 - (wide ? 0 : 2u << mantissa) -
				random_below(seed, 4u << mantissa));
			break;
		case 1: /* one among small ones */
			magnitude = (uint16_t)(random_below(seed, 9)
					? random_below(seed, 0x200)
					: top - (wide ? 1 : 2u << mantissa));
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
			magnitude = (uint16_t)random_below(seed, top - (2u << mantissa));
			break;
		}
		words[i] = (uint16_t)(magnitude | random_below(seed, 2) << 15);
	}
}

/*
 * The largest matrices that a calibration may have: no loader would take them, but sums must hold.
 */
static void extremes(uint64_t *seed, const struct e7c_tables *tables, unsigned int head_dim,
	int16_t *synthesis, int16_t *analysis)
{
	int32_t most = E7C_COLUMN_MAX / (int32_t)tables->rank,
		row = E7C_ROW_MAX / (int32_t)head_dim;
	bool same = random_below(seed, 2);

	most = most > 32767 ? 32767 : most;
	memset(synthesis, 0, 2 * (size_t)head_dim * tables->stride);
	memset(analysis, 0, 2 * (size_t)head_dim * tables->stride);
	for (unsigned int i = 0; i < tables->rank; i++)
		for (unsigned int c = 0; c < head_dim; c++) {
			synthesis[c * tables->stride + i] =
				(int16_t)(!same && random_below(seed, 2) ? -most : most);
			analysis[i * head_dim + c] =
				(int16_t)(!same && random_below(seed, 2) ? -row : row);
		}
}

static void make(const struct codec_kernels *k, const uint8_t *raw, const struct speckv_geometry *g,
	const struct e7c_tables *tables, const struct rotary_rotation *rotation, unsigned int sinks,
	struct made *m)
{
	m->rc = k->e7c_analyse(raw, g->head_dim, g->dtype, tables, rotation, sinks, m->levels);
}

/* Reading back: the code, and what lies beside it, damaged now and then. */
static void read_back(uint64_t *seed, const struct codec_kernels *portable,
	const struct codec_kernels *kernels, const struct made *m, const struct e7c_tables *tables,
	bool damage)
{
	static uint8_t code[MOST * TOKENS + RANGE_SLACK], plain[E7C_PLAIN_MAX + RANGE_SLACK],
		symbols[2][MOST * TOKENS] __attribute__((aligned(64)));
	static int16_t levels[2][MOST * TOKENS] __attribute__((aligned(64)));
	uint32_t states[2][RANGE_STATES], plain_bytes = m->plain_bytes;
	uint8_t escaped[2 * E7C_ESCAPES_MAX(MOST)];
	bool good[2];

	memcpy(code, m->code + sizeof(m->code) - m->code_bytes, m->code_bytes);
	memcpy(plain, m->plain, plain_bytes);
	memset(plain + plain_bytes, 0, RANGE_SLACK);
	memcpy(escaped, m->escaped, sizeof(escaped));
	memcpy(states[0], m->states, sizeof(m->states));
	if (damage)
		switch (random_below(seed, 4)) {
		case 0:
			if (m->code_bytes)
				code[random_below(seed, m->code_bytes)] ^=
					(uint8_t)(1 + random_below(seed, 255));
			break;
		case 1:
			plain[random_below(seed, plain_bytes)] ^=
				(uint8_t)(1 + random_below(seed, 255));
			break;
		case 2:
			plain_bytes = RANGE_LAST_BYTES + random_below(seed, plain_bytes);
			plain_bytes = plain_bytes > m->plain_bytes ? m->plain_bytes : plain_bytes;
			break;
		default:
			escaped[random_below(seed, sizeof(escaped))] ^=
				(uint8_t)(1 + random_below(seed, 255));
			break;
		}
	memcpy(states[1], states[0], sizeof(states[0]));
	good[0] = portable->range_symbols(tables->coders, tables->which, code, m->code_bytes,
		tables->rank, states[0], symbols[0]);
	good[1] = kernels->range_symbols(tables->coders, tables->which, code, m->code_bytes,
		tables->rank, states[1], symbols[1]);
	CHECK(good[0] == good[1] &&
			(!good[0] ||
				(!memcmp(states[0], states[1], sizeof(states[0])) &&
					!memcmp(symbols[0], symbols[1],
						(size_t)tables->rank * TOKENS))),
		"%s finds other symbols", kernels->name);
	if (!good[0]) {
		CHECK(damage, "%s: good code is not taken", kernels->name);
		return;
	}
	uint32_t seen = 0;
	for (unsigned int e = 0; e < tables->rank * TOKENS; e++)
		seen += symbols[0][e] == RANGE_ESCAPE;
	if (seen != m->escapes)
		return;
	good[0] = portable->e7c_join(symbols[0], plain, plain_bytes, escaped, tables, levels[0]);
	good[1] = kernels->e7c_join(symbols[0], plain, plain_bytes, escaped, tables, levels[1]);
	CHECK(good[0] == good[1] &&
			(!good[0] ||
				!memcmp(levels[0], levels[1], 2 * (size_t)tables->rank * TOKENS)),
		"%s joins otherwise", kernels->name);
	CHECK(damage ||
			(good[0] &&
				!memcmp(levels[0], m->levels, 2 * (size_t)tables->rank * TOKENS)),
		"%s: levels do not come back", kernels->name);
}

struct tally {
	unsigned long groups, stored, refused, escaped, packed;
};

/* A group analysed by each set of kernels; `reference` is the portable one's. */
static void analyse_alike(const uint8_t *raw, const struct speckv_geometry *g,
	const struct e7c_tables *tables, const struct rotary_rotation *rotation, unsigned int sinks,
	struct made *reference)
{
	static struct made mine;
	const struct codec_kernels *kernels;
	int usable;

	make(codec_kernels_variant(0, &usable), raw, g, tables, rotation, sinks, reference);
	for (unsigned int i = 1; (kernels = codec_kernels_variant(i, &usable)); i++) {
		if (!usable)
			continue;
		make(kernels, raw, g, tables, rotation, sinks, &mine);
		CHECK(mine.rc == reference->rc, "%s: %d, not %d", kernels->name, mine.rc,
			reference->rc);
		CHECK(mine.rc ||
				!memcmp(mine.levels, reference->levels,
					2 * (size_t)tables->rank * TOKENS),
			"%s analyses otherwise: head size %u", kernels->name, g->head_dim);
	}
}

/* The reference's levels packed, restored and read back by each set of kernels. */
static void pack_alike(uint64_t *seed, const struct speckv_geometry *g,
	const struct e7c_tables *tables, const struct rotary_rotation *rotation,
	struct made *reference, struct tally *tally)
{
	static uint8_t out[2][2 * TOKENS * MOST] __attribute__((aligned(64)));
	static struct made mine;
	const struct codec_kernels *portable, *kernels;
	uint64_t bytes = speckv_geometry_bytes(g) / 2;
	int usable;

	portable = codec_kernels_variant(0, &usable);
	memcpy(mine.levels, reference->levels, sizeof(mine.levels));
	pack(portable, g->head_dim, tables, reference);
	portable->e7c_restore(reference->levels, g->head_dim, g->dtype, tables, rotation, out[0]);
	tally->escaped += reference->escapes > 0;
	for (unsigned int i = 1; (kernels = codec_kernels_variant(i, &usable)); i++) {
		if (!usable)
			continue;
		pack(kernels, g->head_dim, tables, &mine);
		same_packing(kernels->name, reference, &mine, tables->rank, g->head_dim);
		kernels->e7c_restore(reference->levels, g->head_dim, g->dtype, tables, rotation,
			out[1]);
		CHECK(!memcmp(out[0], out[1], bytes),
			"%s restores otherwise: head size %u, rank %u", kernels->name, g->head_dim,
			tables->rank);
		if (reference->escapes <= E7C_ESCAPES_MAX(g->head_dim))
			for (int damage = 0; damage < 3; damage++, tally->packed++)
				read_back(seed, portable, kernels, reference, tables, damage);
	}
}

static void kernels_agree(uint64_t *seed, unsigned long groups, struct tally *tally)
{
	static int16_t synthesis[MOST * MOST], analysis[MOST * MOST];
	static uint8_t raw[2 * TOKENS * MOST] __attribute__((aligned(64)));
	static struct made reference;
	struct rotary_rotation rotation;

	for (unsigned long n = 0; n < groups; n++) {
		struct speckv_geometry g = { 1, 1, head_dims[random_below(seed, 6)], 64,
			(uint8_t)(1 + random_below(seed, 2)), { 0 } };
		struct calibration_shape shape = { 1, 1, g.head_dim,
			1 + random_below(seed, g.head_dim), rotaries[random_below(seed, 3)], 0 };
		uint64_t bytes = speckv_geometry_bytes(&g) / 2;
		struct speckv_calibration *calibration;
		struct calibration_file file;
		struct e7c_tables tables;
		const struct rotary_rotation *turn;

		shape.unit = g.dtype == SPECKV_DTYPE_BF16 ? (int)random_below(seed, 90) - 60
							  : (int)random_below(seed, 22) - 20;
		shape.unit = shape.unit > 37 ? 37 : shape.unit;
		file = random_e7c_calibration(seed, &shape);
		calibration = loaded(&file);
		calibration_e7c_tables(calibration, 0, (enum codec_tensor)(n & 1), 0, &tables);
		turn = calibration_rotation(calibration, random_next(seed), &rotation) ? &rotation
										       : NULL;
		for (int round = 0; round < 6; round++) {
			fill(seed, &g, (uint16_t *)(void *)raw, bytes / 2,
				g.dtype == SPECKV_DTYPE_FP16 && tables.unit > 1 ? 1 : tables.unit);
			if (round == 3)
				random_values(seed, &g, (enum style)random_below(seed, STYLES),
					(uint16_t *)(void *)raw, bytes / 2);
			if (round == 4) {
				extremes(seed, &tables, g.head_dim, synthesis, analysis);
				tables.synthesis = synthesis;
				tables.analysis = analysis;
			}
			analyse_alike(raw, &g, &tables, turn, round & 1 ? CODEC_SINKS : 0,
				&reference);
			tally->groups++;
			tally->stored += reference.rc == E7C_TO_BE_STORED;
			tally->refused += reference.rc == -ENODATA;
			if (reference.rc || round == 2 || round == 5)
				any_levels(seed, &tables, reference.levels);
			if (round == 5) /* the largest, of one sign or both */
				for (unsigned int e = 0; e < tables.rank * TOKENS; e++)
					reference.levels[e] =
						(int16_t)(e % TOKENS < 32 || random_below(seed, 2)
								? E7C_LEVEL_MAX
								: -E7C_LEVEL_MAX);
			pack_alike(seed, &g, &tables, turn, &reference, tally);
		}
		speckv_calibration_free(calibration);
		free(file.bytes);
	}
}

struct scene {
	struct speckv_geometry geometry;
	struct calibration_file file;
	struct speckv_calibration *calibration;
	struct speckv_frame_identity id;
	uint64_t bytes, most, length;
	uint8_t *raw, *frame, *out;
};

static int encode(struct scene *s)
{
	return speckv_frame_encode_calibrated(&s->geometry, SPECKV_CODEC_E7C, s->calibration, 1, 1,
		&s->id, s->raw, s->bytes, s->frame, s->most, &s->length);
}

/* Two layers and two heads of a calibration of four and three, at a far position. */
static struct scene make_scene(uint64_t *seed, unsigned int head_dim, uint8_t dtype,
	unsigned int rank, const char *rotary, enum style style)
{
	struct calibration_shape shape = { 4, 3, head_dim, rank, rotary, -9 };
	struct scene s = { .geometry = { 2, 2, (uint16_t)head_dim, 128, dtype, { 0 } },
		.id = random_identity(seed) };

	s.file = random_e7c_calibration(seed, &shape);
	s.calibration = loaded(&s.file);
	s.bytes = speckv_geometry_bytes(&s.geometry);
	s.most = speckv_frame_max_bytes(&s.geometry, SPECKV_CODEC_E7C);
	s.raw = line_alloc(s.bytes);
	s.out = line_alloc(s.bytes);
	s.frame = line_alloc(s.most);
	random_values(seed, &s.geometry, style, (uint16_t *)(void *)s.raw, s.bytes / 2);
	CHECK(!encode(&s), "encode");
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

static double bf16(uint16_t word)
{
	uint32_t bits = (uint32_t)word << 16;
	float value;

	memcpy(&value, &bits, 4);
	return (double)value;
}

/*
 * With all coefficients the error is that of the quantiser: the rotary embedding comes off and goes
 * on again, and the mean too.
 */
static void values_come_back(uint64_t *seed)
{
	for (int h = 0; h < 6; h++)
		for (int r = 0; r < 3; r++) {
			struct scene s = make_scene(seed, head_dims[h], SPECKV_DTYPE_BF16,
				head_dims[h], rotaries[r], STYLE_SMOOTH);
			const uint16_t *in = (uint16_t *)(void *)s.raw,
				       *out = (uint16_t *)(void *)s.out;
			double error = 0, energy = 0;

			CHECK(!decode(&s) && !speckv_frame_verify(s.frame, s.length), "decode");
			for (uint64_t i = 0; i < s.bytes / 2; i++) {
				error +=
					(bf16(in[i]) - bf16(out[i])) * (bf16(in[i]) - bf16(out[i]));
				energy += bf16(in[i]) * bf16(in[i]);
			}
			CHECK(error < 0.5 * energy, "%u %s: %g", head_dims[h], rotaries[r],
				error / energy);
			drop(&s);
		}
}

/* One value far out: its group, and no other, is stored and comes back to the bit. */
static void outliers_are_stored(uint64_t *seed)
{
	struct scene s = make_scene(seed, 64, SPECKV_DTYPE_BF16, 20, "halves", STYLE_CHANNELS);
	uint16_t *words = (uint16_t *)(void *)s.raw;
	uint64_t group = 64 * 64, at = 5 * group + 77, length = s.length;

	words[at] = 0x4248; /* 50: 12800 units of this head */
	CHECK(!encode(&s) && s.length > length + 6000 && s.length < length + 8300, "%llu, was %llu",
		(unsigned long long)s.length, (unsigned long long)length);
	CHECK(!decode(&s) && !memcmp(s.raw + 2 * 5 * group, s.out + 2 * 5 * group, 2 * group),
		"bits");
	CHECK(memcmp(s.raw + 2 * 4 * group, s.out + 2 * 4 * group, 2 * group) != 0,
		"the one before is not");
	words[at] = 0x4280; /* 64: too much */
	CHECK(encode(&s) == -ENODATA, "refused");
	words[at] = 0x7fc0;
	CHECK(encode(&s) == -ENODATA, "refused");
	drop(&s);
}

static void modes_need_their_tables(uint64_t *seed)
{
	struct scene s = make_scene(seed, 64, SPECKV_DTYPE_FP16, 0, "halves", STYLE_CHANNELS),
		     other = make_scene(seed, 64, SPECKV_DTYPE_FP16, 0, "halves", STYLE_CHANNELS);
	struct speckv_calibration *own = s.calibration;
	struct speckv_calibration_info info;
	uint64_t length;

	CHECK(!speckv_calibration_describe(own, &info) && info.codecs == 1u << SPECKV_CODEC_E7C &&
			info.head_dim == 64,
		"describe");
	CHECK(speckv_frame_encode_calibrated(&s.geometry, SPECKV_CODEC_Q5C, own, 1, 1, &s.id, s.raw,
		      s.bytes, s.frame, s.most, &length) == -ERANGE,
		"q5c");
	s.calibration = other.calibration;
	CHECK(decode(&s) == -EILSEQ, "another");
	for (uint64_t i = 0; i < s.bytes; i++)
		CHECK(!s.out[i], "zeroed");
	s.calibration = own;
	drop(&s);
	drop(&other);
}

static void damaged_frames_do_no_harm(uint64_t *seed, unsigned int count)
{
	struct scene s = make_scene(seed, 80, SPECKV_DTYPE_BF16, 0, "neighbours", STYLE_CHANNELS);
	uint8_t *good = line_alloc(s.length), *whole = line_alloc(s.bytes);

	CHECK(!decode(&s), "decode");
	memcpy(whole, s.out, s.bytes);
	memcpy(good, s.frame, s.length);
	for (unsigned int i = 0; i < count; i++) {
		uint32_t section = random_below(seed, 4);
		uint8_t *entry = s.frame + 128 + 16 * section;
		int rc;

		memcpy(s.frame, good, s.length);
		/*
		 * Mostly in front of a section's first group, which says how the rest is to be
		 * read.
		 */
		for (uint32_t flips = 1 + random_below(seed, 3); flips; flips--)
			s.frame[64ull * get32(entry) +
				random_below(seed, i % 4 ? 40 : get32(entry + 4))] ^=
				(uint8_t)(1u << random_below(seed, 8));
		rc = decode(&s);
		CHECK(rc == -EBADMSG || !memcmp(s.out, whole, s.bytes), "%d", rc);
		/* The same under a right checksum. */
		put32(entry + 8,
			speckv_crc32c(0, s.frame + 64ull * get32(entry), get32(entry + 4)));
		reseal(s.frame);
		rc = decode(&s);
		CHECK(!rc || rc == -EBADMSG, "%d", rc);
		if (rc)
			for (uint64_t k = 0; k < s.bytes; k++)
				CHECK(!s.out[k], "zeroed");
	}
	free(good);
	free(whole);
	drop(&s);
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : 120;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 7;
	const struct codec_kernels *one;
	struct tally tally = { 0 };
	int usable;

	kernels_agree(&seed, groups, &tally);
	/* The same, however many those were. */
	seed = 5;
	values_come_back(&seed);
	heads_share(&seed, SPECKV_CODEC_E7C, random_e7c_calibration);
	outliers_are_stored(&seed);
	modes_need_their_tables(&seed);
	damaged_frames_do_no_harm(&seed, 2000);
	printf("%lu groups, %lu stored, %lu refused, %lu with escapes, %lu packed; portable beside",
		tally.groups, tally.stored, tally.refused, tally.escaped, tally.packed);
	for (unsigned int i = 1; (one = codec_kernels_variant(i, &usable)); i++)
		if (usable)
			printf(" %s", one->name);
	printf("\n");
	return 0;
}

// SPDX-License-Identifier: MIT
/* Groups of the calibrated modes, q5c and e7c, by every set of kernels beside the portable one. */
#include "agree_sets.h"

/* A calibration of one head, as one mode sees it, at some position. */
struct head {
	struct speckv_calibration *calibration;
	unsigned int dtype;
	struct rotary_rotation rotation;
	bool rotated;
};

enum { HEADS = 12, HEAD_GROUPS = 512 }; /* of each mode, and for how many groups one is kept */

/*
 * As much as a loader takes of means, and of weights in a row: no sum may leave its 32 bits, nor any
 * limit be missed.
 */
static void q5c_to_limits(uint64_t *seed, struct speckv_calibration *c)
{
	bool one_sign = random_next(seed) & 1;
	int16_t *weight = c->q5c.shaping;

	for (unsigned int i = 0; i < 2 * c->head_dim; i++)
		c->q5c.mean[i] =
			(int16_t)(random_below(seed, 2) ? CODEC_INPUT_MAX : -CODEC_INPUT_MAX);
	for (unsigned int tensor = 0; tensor < 2; tensor++)
		for (int row = 1; row < (int)c->head_dim; row++)
			for (int before = 0; before < row; before++) {
				int size = row < 3 ? 32767 / row : Q5C_SHAPING_MAX / row;

				*weight++ = (int16_t)(!one_sign && random_below(seed, 2) ? -size
											 : size);
			}
}

/*
 * Steps and shifts of every size; with them matrices of the largest sums, which no loader takes for
 * each other's inverse.
 */
static void e7c_to_limits(uint64_t *seed, struct speckv_calibration *c)
{
	struct calibration_e7c *e = &c->e7c;
	bool one_sign = random_next(seed) & 1, matrices = random_below(seed, 3);
	unsigned int least = random_below(seed, 2) ? 8 : 1;

	for (unsigned int tensor = 0; tensor < 2; tensor++) {
		int column = E7C_COLUMN_MAX / e->rank[tensor], row = E7C_ROW_MAX / (int)c->head_dim;

		column = column > 32767 ? 32767 : column;
		e->shift[tensor] = (uint8_t)(1 + random_below(seed, E7C_SHIFT_MAX));
		for (unsigned int i = 0; i < e->rank[tensor]; i++) {
			e->down[tensor * e->stride + i] =
				(uint8_t)(least + random_below(seed, E7C_DOWN_MAX + 1 - least));
			for (unsigned int channel = 0; matrices && channel < c->head_dim;
				channel++) {
				bool down = !one_sign && random_below(seed, 2),
				     up = one_sign || random_below(seed, 2);

				e->synthesis[(tensor * c->head_dim + channel) * e->stride + i] =
					(int16_t)(down ? -column : column);
				e->analysis[(tensor * e->stride + i) * c->head_dim + channel] =
					(int16_t)(up ? row : -row);
			}
		}
	}
}

/* One of some heads with calibrations; the oldest makes room for another now and then. */
static struct head *any_head(uint64_t *seed)
{
	static struct head heads[MODES][HEADS];
	static uint64_t taken[MODES];
	uint64_t count = taken[agree_mode]++, how = random_next(seed);
	bool first = count < HEADS, fresh = first || count % HEAD_GROUPS == 0;
	struct head *h = &heads[agree_mode][first ? count
			: fresh			  ? count / HEAD_GROUPS % HEADS
						  : how % HEADS];
	struct calibration_shape shape = { 1, 1, agree_any_head_dim(how >> 8), 0,
		rotaries[(how >> 24) % 3], 0 };
	struct calibration_file file;

	if (!fresh)
		return h;
	speckv_calibration_free(h->calibration);
	h->dtype = how >> 32 & 1 ? SPECKV_DTYPE_BF16 : SPECKV_DTYPE_FP16;
	shape.unit = h->dtype == SPECKV_DTYPE_BF16 ? (int)random_below(seed, 90) - 60
						   : (int)random_below(seed, 22) - 20;
	shape.unit = shape.unit > 37 ? 37 : shape.unit;
	shape.bits = 1 + random_below(seed, agree_mode == Q5C ? Q5C_BITS_MAX : shape.head_dim);
	file = agree_mode == Q5C ? random_calibration(seed, &shape)
				 : random_e7c_calibration(seed, &shape);
	h->calibration = loaded(&file);
	if (!random_below(seed, 8))
		(agree_mode == Q5C ? q5c_to_limits : e7c_to_limits)(seed, h->calibration);
	h->rotated = calibration_rotation(h->calibration, random_next(seed), &h->rotation);
	free(file.bytes);
	return h;
}

/*
 * Values below 2^14 units, which is too much, or where `calm` is true two octaves below that; the
 * rest is up to outliers.
 */
static struct group_shape shape_of(const struct head *h, int unit, bool calm)
{
	int bias = h->dtype == SPECKV_DTYPE_BF16 ? 127 : 15, span = 15,
	    last = bias + 13 + unit - (calm ? 2 : 0), most = 2 * bias;

	last = last > most ? most : last;
	span = last < span ? last + 1 : span;
	return (struct group_shape){ h->dtype, h->calibration->head_dim,
		(unsigned int)(last + 1 - span), (unsigned int)span };
}

/* The angles of another position. */
static const struct rotary_rotation *turned(uint64_t *seed, struct head *h,
	const struct group_shape *s)
{
	static struct rotary_rotation mine;
	struct rotary_angle bases[ROTARY_PAIRS_MAX];
	unsigned int pairs = s->head_dim / 2;

	if (!h->rotated)
		return NULL;
	if (random_next(seed) & 15)
		return &h->rotation;
	for (unsigned int p = 0; p < pairs; p++)
		bases[p] = rotary_angle(random_next(seed));
	agree_sets[0]->rotary_turn(bases, h->calibration->steps, pairs, &h->rotation);
	FOR_EACH_SET(k, rotary_turn)
	{
		memset(&mine, STALE, sizeof(mine));
		agree_sets[k]->rotary_turn(bases, h->calibration->steps, pairs, &mine);
		agree_hold(!memcmp(mine.pairs, h->rotation.pairs, pairs * sizeof(mine.pairs[0])), k,
			"angles", s);
	}
	return &h->rotation;
}

void agree_q5c(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static uint8_t reference[Q5C_GROUP_MAX] __attribute__((aligned(64))),
		mine[Q5C_GROUP_MAX] __attribute__((aligned(64)));
	struct head *h = any_head(seed);
	uint64_t how = random_next(seed);
	const struct rotary_rotation *rotation;
	const uint8_t *raw = (uint8_t *)agree_words;
	unsigned int sinks = how >> 10 & 7 ? 0 : CODEC_SINKS;
	struct q5c_tables tables;
	struct group_shape s;
	uint32_t bytes;
	bool taken;
	int rc;

	calibration_q5c_tables(h->calibration, 0, how & 1 ? CODEC_K : CODEC_V, 0, &tables);
	s = shape_of(h, tables.unit, how & 2);
	rotation = turned(seed, h, &s);
	bytes = q5c_group_bytes(s.head_dim, tables.bits);
	make_group(seed, &s, agree_words, kinds);
	rc = agree_sets[0]->q5c_encode(raw, s.head_dim, s.dtype, &tables, rotation, sinks,
		reference);
	FOR_EACH_SET(k, q5c_encode)
	{
		memset(mine, STALE, bytes);
		agree_hold(agree_sets[k]->q5c_encode(raw, s.head_dim, s.dtype, &tables, rotation,
				   sinks, mine) == rc,
			k, "status", &s);
		agree_hold(rc || !memcmp(mine, reference, bytes), k, "codes", &s);
	}
	tally->refused += !!rc;
	if (rc || !(how >> 2 & 7)) {
		/* any codes, and any scales that there are but for one now and then */
		tally->any_bytes++;
		agree_any_bytes(seed, reference, bytes);
		for (uint32_t i = 0; i < Q5C_SCALES && how >> 5 & 31; i++)
			reference[i] = (uint8_t)(reference[i] % (Q5C_SCALE_MAX + 1));
	}
	taken = agree_sets[0]->q5c_decode(reference, s.head_dim, s.dtype, &tables, rotation,
		agree_expected);
	FOR_EACH_SET(k, q5c_decode)
	{
		memset(agree_decoded, STALE, 2u * TOKENS * s.head_dim);
		agree_hold(agree_sets[k]->q5c_decode(reference, s.head_dim, s.dtype, &tables,
				   rotation, agree_decoded) == taken,
			k, "status of decoding", &s);
		agree_hold(!taken ||
				!memcmp(agree_decoded, agree_expected, 2u * TOKENS * s.head_dim),
			k, "values", &s);
	}
}

/* A group's code, read back by each set. */
static void read_back_e7c(const struct made *m, const struct e7c_tables *tables,
	const struct group_shape *s)
{
	static uint8_t code[MOST * TOKENS + RANGE_SLACK], plain[E7C_PLAIN_MAX + RANGE_SLACK],
		symbols[MOST * TOKENS] __attribute__((aligned(64)));
	static int16_t levels[MOST * TOKENS] __attribute__((aligned(64)));
	uint32_t states[RANGE_STATES], last[RANGE_STATES];

	range_begin(m->plain + m->plain_bytes - RANGE_LAST_BYTES, last);
	memcpy(code, m->code + sizeof(m->code) - m->code_bytes, m->code_bytes);
	memcpy(plain, m->plain, m->plain_bytes);
	for (unsigned int k = 0; k < agree_set_count; k++) {
		memcpy(states, m->states, sizeof(states));
		memset(symbols, STALE, (size_t)tables->rank * TOKENS);
		memset(levels, STALE, 2 * (size_t)tables->rank * TOKENS);
		if (!k ||
			(agree_sets[k]->range_symbols != agree_sets[0]->range_symbols &&
				agree_sets[k]->range_symbols != agree_sets[k - 1]->range_symbols))
			agree_hold(agree_sets[k]->range_symbols(tables->coders, tables->which, code,
					   m->code_bytes, tables->rank, states, symbols) &&
					!memcmp(states, last, sizeof(last)) &&
					!memcmp(symbols, m->symbols, (size_t)tables->rank * TOKENS),
				k, "symbols that come back", s);
		if (!k ||
			(agree_sets[k]->e7c_join != agree_sets[0]->e7c_join &&
				agree_sets[k]->e7c_join != agree_sets[k - 1]->e7c_join))
			agree_hold(agree_sets[k]->e7c_join(m->symbols, plain, m->plain_bytes,
					   m->escaped, tables, levels) &&
					!memcmp(levels, m->levels,
						2 * (size_t)tables->rank * TOKENS),
				k, "levels that come back", s);
	}
}

void agree_e7c(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static struct made reference, mine;
	char where[96];
	struct head *h = any_head(seed);
	uint64_t how = random_next(seed);
	const struct rotary_rotation *rotation;
	const uint8_t *raw = (uint8_t *)agree_words;
	unsigned int sinks = how >> 10 & 7 ? 0 : CODEC_SINKS;
	struct e7c_tables tables;
	struct group_shape s;
	size_t bytes;
	int rc;

	calibration_e7c_tables(h->calibration, 0, how & 1 ? CODEC_K : CODEC_V, 0, &tables);
	s = shape_of(h, tables.unit, how & 6);
	rotation = turned(seed, h, &s);
	bytes = 2 * (size_t)tables.rank * TOKENS;
	make_group(seed, &s, agree_words, kinds);
	rc = agree_sets[0]->e7c_analyse(raw, s.head_dim, s.dtype, &tables, rotation, sinks,
		reference.levels);
	FOR_EACH_SET(k, e7c_analyse)
	{
		memset(mine.levels, STALE, bytes);
		agree_hold(agree_sets[k]->e7c_analyse(raw, s.head_dim, s.dtype, &tables, rotation,
				   sinks, mine.levels) == rc,
			k, "status", &s);
		agree_hold(rc || !memcmp(mine.levels, reference.levels, bytes), k, "levels", &s);
	}
	tally->stored += rc == E7C_TO_BE_STORED;
	tally->refused += rc && rc != E7C_TO_BE_STORED;
	if (rc || !(how >> 3 & 7)) {
		tally->any_bytes++;
		any_levels(seed, &tables, reference.levels);
	}
	pack(agree_sets[0], s.head_dim, &tables, &reference);
	for (unsigned int k = 1; k < agree_set_count; k++)
		if (agree_sets[k]->e7c_part != agree_sets[k - 1]->e7c_part ||
			agree_sets[k]->range_code != agree_sets[k - 1]->range_code) {
			memset(&mine, STALE, sizeof(mine));
			memcpy(mine.levels, reference.levels, bytes);
			pack(agree_sets[k], s.head_dim, &tables, &mine);
			snprintf(where, sizeof(where), "%s: group %llu of a worker with seed %llu",
				agree_sets[k]->name, (unsigned long long)agree_group,
				(unsigned long long)agree_who->seed);
			same_packing(where, &reference, &mine, tables.rank, s.head_dim);
		}
	tally->escaped += reference.escapes > 0;
	if (reference.escapes <= E7C_ESCAPES_MAX(s.head_dim))
		read_back_e7c(&reference, &tables, &s);
	agree_sets[0]->e7c_restore(reference.levels, s.head_dim, s.dtype, &tables, rotation,
		agree_expected);
	FOR_EACH_SET(k, e7c_restore)
	{
		memset(agree_decoded, STALE, 2u * TOKENS * s.head_dim);
		agree_sets[k]->e7c_restore(reference.levels, s.head_dim, s.dtype, &tables, rotation,
			agree_decoded);
		agree_hold(!memcmp(agree_decoded, agree_expected, 2u * TOKENS * s.head_dim), k,
			"values", &s);
	}
}

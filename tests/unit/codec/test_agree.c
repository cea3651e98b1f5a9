// SPDX-License-Identifier: MIT
/*
 * Every set of kernels gives, to the bit, what the portable reference gives: the same groups, the
 * same refusals, the same values. Half of the groups are q4x's, a quarter each q5c's and e7c's.
 *
 * Usage: test_codec_agree [GROUPS [SEED [WORKERS [MODE]]]]      groups of 64 tokens; workers:
 * processes, 0 for one on each core; of one mode only
 *
 * Groups are made by words (agree.h), so that 100 million are a matter of hours: values over the
 * whole range of exponents or a slice of it, constants, single outliers, subnormals, zeros of both
 * signs, values on the borders of rounding and of the scale range, now and then one that is not
 * finite. Decoders also get groups of any bytes. Most heads have 64 channels, which are tried
 * soonest.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agree.h"
#include "calibrated.h"
#include "codec/q4x.h"

enum mode { Q4X, Q5C, E7C, MODES };

static const char *const names[MODES] = { "q4x", "q5c", "e7c" };

struct tally {
	uint64_t groups, refused, any_bytes;
	uint64_t means, stored, escaped; /* of q4x; of e7c */
};

struct worker {
	uint64_t groups, seed;
	struct tally modes[MODES];
	uint64_t kinds[AGREE_KINDS];
	pid_t process;
	bool done;
};

/* A calibration of one head, as one mode sees it, at some position. */
struct head {
	struct speckv_calibration *calibration;
	unsigned int dtype;
	struct rotary_rotation rotation;
	bool rotated;
};

/* filled with before each call: what one set leaves out is not to be had from the set before */
#define STALE 0xee

enum { HEADS = 12, HEAD_GROUPS = 512 }; /* of each mode, and for how many groups one is kept */

/* the portable one, then what this processor has, slowest first */
static const struct codec_kernels *sets[8];
static unsigned int set_count;
static const struct worker *who;
static enum mode mode, only = MODES;
static uint64_t group;

/* Neighbours in the table share functions: each is tried once. */
#define FOR_EACH_SET(k, field)                       \
	for (unsigned int k = 1; k < set_count; k++) \
		if (sets[k]->field != sets[0]->field && sets[k]->field != sets[k - 1]->field)

static void hold(bool same, unsigned int k, const char *what, const struct group_shape *s)
{
	CHECK(same, "%s: %s of %s, %s, head size %u: group %llu of a worker with seed %llu",
		sets[k]->name, what, names[mode], speckv_dtype_name(s->dtype), s->head_dim,
		(unsigned long long)group, (unsigned long long)who->seed);
}

static void any_bytes(uint64_t *seed, uint8_t *to, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t noise = random_next(seed);

		memcpy(to + i, &noise, 8);
	}
}

static unsigned int any_head_dim(uint64_t how)
{
	return head_dims[how & 3 ? 0 : (how >> 2 & 0xff) % 6];
}

static uint64_t words[TOKENS * MOST / 4 + 8] __attribute__((aligned(64)));
static uint8_t decoded[2 * TOKENS * MOST] __attribute__((aligned(64))),
	expected[2 * TOKENS * MOST] __attribute__((aligned(64)));

static void compare_q4x(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static uint8_t reference[Q4X_GROUP_MAX] __attribute__((aligned(64))),
		mine[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	uint64_t how = random_next(seed);
	enum codec_tensor tensor = how & 1 ? CODEC_K : CODEC_V;
	/* Scales reach from about 2^-22 to 2^12.75. */
	struct group_shape s = how & 2
		? (struct group_shape){ SPECKV_DTYPE_BF16, any_head_dim(how >> 2), 127 - 26, 38 }
		: (struct group_shape){ SPECKV_DTYPE_FP16, any_head_dim(how >> 2), 0, 27 };
	uint32_t bytes = q4x_group_bytes(s.head_dim, tensor);
	const uint8_t *raw = (uint8_t *)words;
	int rc;

	make_group(seed, &s, words, kinds);
	rc = sets[0]->q4x_encode(raw, s.head_dim, s.dtype, tensor, reference);
	FOR_EACH_SET(k, q4x_encode)
	{
		memset(mine, STALE, bytes);
		hold(sets[k]->q4x_encode(raw, s.head_dim, s.dtype, tensor, mine) == rc, k, "status",
			&s);
		hold(rc || !memcmp(mine, reference, bytes), k, "codes", &s);
	}
	tally->refused += !!rc;
	tally->means += !rc && tensor == CODEC_K && reference[Q4X_SCALES + s.head_dim / 2 - 1];
	if (rc || !(how >> 13 & 7)) {
		tally->any_bytes++;
		any_bytes(seed, reference, bytes);
	}
	sets[0]->q4x_decode(reference, s.head_dim, s.dtype, tensor, expected, false);
	FOR_EACH_SET(k, q4x_decode)
	{
		memset(decoded, STALE, 2u * TOKENS * s.head_dim);
		sets[k]->q4x_decode(reference, s.head_dim, s.dtype, tensor, decoded, how >> 16 & 1);
		hold(!memcmp(decoded, expected, 2u * TOKENS * s.head_dim), k, "values", &s);
	}
}

/*
 * As much as a loader takes of means and levels, and of weights in a row: no sum may leave its 32
 * bits, nor any limit be missed.
 */
static void q5c_to_limits(uint64_t *seed, struct speckv_calibration *c)
{
	bool one_sign = random_next(seed) & 1;
	int16_t *weight = c->q5c.shaping;

	for (unsigned int i = 0; i < 2 * c->head_dim; i++)
		c->q5c.mean[i] =
			(int16_t)(random_below(seed, 2) ? CODEC_INPUT_MAX : -CODEC_INPUT_MAX);
	for (unsigned int tensor = 0; tensor < 2; tensor++) {
		int most = (1 << c->q5c.bits[tensor]) - 1;

		for (int i = 0; i <= most; i++)
			c->q5c.levels[(int)tensor * Q5C_LEVELS_MAX + i] = (int16_t)(one_sign
					? Q5C_LEVEL_MAX - most + i
					: i * 2 * Q5C_LEVEL_MAX / most - Q5C_LEVEL_MAX);
		for (int row = 1; row < (int)c->head_dim; row++)
			for (int before = 0; before < row; before++) {
				int size = row < 3 ? 32767 / row : Q5C_SHAPING_MAX / row;

				*weight++ = (int16_t)(!one_sign && random_below(seed, 2) ? -size
											 : size);
			}
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
	uint64_t count = taken[mode]++, how = random_next(seed);
	bool first = count < HEADS, fresh = first || count % HEAD_GROUPS == 0;
	struct head *h = &heads[mode][first ? count
			: fresh		    ? count / HEAD_GROUPS % HEADS
					    : how % HEADS];
	struct calibration_shape shape = { 1, 1, any_head_dim(how >> 8), 0,
		rotaries[(how >> 24) % 3], 0 };
	struct calibration_file file;

	if (!fresh)
		return h;
	speckv_calibration_free(h->calibration);
	h->dtype = how >> 32 & 1 ? SPECKV_DTYPE_BF16 : SPECKV_DTYPE_FP16;
	shape.unit = h->dtype == SPECKV_DTYPE_BF16 ? (int)random_below(seed, 90) - 60
						   : (int)random_below(seed, 22) - 20;
	shape.unit = shape.unit > 37 ? 37 : shape.unit;
	shape.bits = 1 + random_below(seed, mode == Q5C ? Q5C_BITS_MAX : shape.head_dim);
	file = mode == Q5C ? random_calibration(seed, &shape)
			   : random_e7c_calibration(seed, &shape);
	h->calibration = loaded(&file);
	if (!random_below(seed, 8))
		(mode == Q5C ? q5c_to_limits : e7c_to_limits)(seed, h->calibration);
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
	sets[0]->rotary_turn(bases, h->calibration->steps, pairs, &h->rotation);
	FOR_EACH_SET(k, rotary_turn)
	{
		memset(&mine, STALE, sizeof(mine));
		sets[k]->rotary_turn(bases, h->calibration->steps, pairs, &mine);
		hold(!memcmp(mine.pairs, h->rotation.pairs, pairs * sizeof(mine.pairs[0])), k,
			"angles", s);
	}
	return &h->rotation;
}

static void compare_q5c(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static uint8_t reference[Q5C_GROUP_MAX] __attribute__((aligned(64))),
		mine[Q5C_GROUP_MAX] __attribute__((aligned(64)));
	struct head *h = any_head(seed);
	uint64_t how = random_next(seed);
	const struct rotary_rotation *rotation;
	const uint8_t *raw = (uint8_t *)words;
	struct q5c_tables tables;
	struct group_shape s;
	uint32_t bytes;
	bool taken;
	int rc;

	calibration_q5c_tables(h->calibration, 0, how & 1 ? CODEC_K : CODEC_V, 0, &tables);
	s = shape_of(h, tables.unit, how & 2);
	rotation = turned(seed, h, &s);
	bytes = q5c_group_bytes(s.head_dim, tables.bits);
	make_group(seed, &s, words, kinds);
	rc = sets[0]->q5c_encode(raw, s.head_dim, s.dtype, &tables, rotation, reference);
	FOR_EACH_SET(k, q5c_encode)
	{
		memset(mine, STALE, bytes);
		hold(sets[k]->q5c_encode(raw, s.head_dim, s.dtype, &tables, rotation, mine) == rc,
			k, "status", &s);
		hold(rc || !memcmp(mine, reference, bytes), k, "codes", &s);
	}
	tally->refused += !!rc;
	if (rc || !(how >> 2 & 7)) {
		/* any codes, and any scales that there are but for one now and then */
		tally->any_bytes++;
		any_bytes(seed, reference, bytes);
		for (uint32_t i = 0; i < Q5C_SCALES && how >> 5 & 31; i++)
			reference[i] = (uint8_t)(reference[i] % (Q5C_SCALE_MAX + 1));
	}
	taken = sets[0]->q5c_decode(reference, s.head_dim, s.dtype, &tables, rotation, expected);
	FOR_EACH_SET(k, q5c_decode)
	{
		memset(decoded, STALE, 2u * TOKENS * s.head_dim);
		hold(sets[k]->q5c_decode(reference, s.head_dim, s.dtype, &tables, rotation,
			     decoded) == taken,
			k, "status of decoding", &s);
		hold(!taken || !memcmp(decoded, expected, 2u * TOKENS * s.head_dim), k, "values",
			&s);
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
	for (unsigned int k = 0; k < set_count; k++) {
		memcpy(states, m->states, sizeof(states));
		memset(symbols, STALE, (size_t)tables->rank * TOKENS);
		memset(levels, STALE, 2 * (size_t)tables->rank * TOKENS);
		if (!k ||
			(sets[k]->range_symbols != sets[0]->range_symbols &&
				sets[k]->range_symbols != sets[k - 1]->range_symbols))
			hold(sets[k]->range_symbols(tables->coders, tables->which, code,
				     m->code_bytes, tables->rank, states, symbols) &&
					!memcmp(states, last, sizeof(last)) &&
					!memcmp(symbols, m->symbols, (size_t)tables->rank * TOKENS),
				k, "symbols that come back", s);
		if (!k ||
			(sets[k]->e7c_join != sets[0]->e7c_join &&
				sets[k]->e7c_join != sets[k - 1]->e7c_join))
			hold(sets[k]->e7c_join(m->symbols, plain, m->plain_bytes, m->escaped,
				     tables, levels) &&
					!memcmp(levels, m->levels,
						2 * (size_t)tables->rank * TOKENS),
				k, "levels that come back", s);
	}
}

static void compare_e7c(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static struct made reference, mine;
	char where[96];
	struct head *h = any_head(seed);
	uint64_t how = random_next(seed);
	const struct rotary_rotation *rotation;
	const uint8_t *raw = (uint8_t *)words;
	struct e7c_tables tables;
	struct group_shape s;
	size_t bytes;
	int rc;

	calibration_e7c_tables(h->calibration, 0, how & 1 ? CODEC_K : CODEC_V, 0, &tables);
	s = shape_of(h, tables.unit, how & 6);
	rotation = turned(seed, h, &s);
	bytes = 2 * (size_t)tables.rank * TOKENS;
	make_group(seed, &s, words, kinds);
	rc = sets[0]->e7c_analyse(raw, s.head_dim, s.dtype, &tables, rotation, reference.levels);
	FOR_EACH_SET(k, e7c_analyse)
	{
		memset(mine.levels, STALE, bytes);
		hold(sets[k]->e7c_analyse(raw, s.head_dim, s.dtype, &tables, rotation,
			     mine.levels) == rc,
			k, "status", &s);
		hold(rc || !memcmp(mine.levels, reference.levels, bytes), k, "levels", &s);
	}
	tally->stored += rc == E7C_TO_BE_STORED;
	tally->refused += rc && rc != E7C_TO_BE_STORED;
	if (rc || !(how >> 3 & 7)) {
		tally->any_bytes++;
		any_levels(seed, &tables, reference.levels);
	}
	pack(sets[0], s.head_dim, &tables, &reference);
	for (unsigned int k = 1; k < set_count; k++)
		if (sets[k]->e7c_part != sets[k - 1]->e7c_part ||
			sets[k]->range_code != sets[k - 1]->range_code) {
			memset(&mine, STALE, sizeof(mine));
			memcpy(mine.levels, reference.levels, bytes);
			pack(sets[k], s.head_dim, &tables, &mine);
			snprintf(where, sizeof(where), "%s: group %llu of a worker with seed %llu",
				sets[k]->name, (unsigned long long)group,
				(unsigned long long)who->seed);
			same_packing(where, &reference, &mine, tables.rank, s.head_dim);
		}
	tally->escaped += reference.escapes > 0;
	if (reference.escapes <= E7C_ESCAPES_MAX(s.head_dim))
		read_back_e7c(&reference, &tables, &s);
	sets[0]->e7c_restore(reference.levels, s.head_dim, s.dtype, &tables, rotation, expected);
	FOR_EACH_SET(k, e7c_restore)
	{
		memset(decoded, STALE, 2u * TOKENS * s.head_dim);
		sets[k]->e7c_restore(reference.levels, s.head_dim, s.dtype, &tables, rotation,
			decoded);
		hold(!memcmp(decoded, expected, 2u * TOKENS * s.head_dim), k, "values", &s);
	}
}

static void work(struct worker *w)
{
	static void (*const compare[MODES])(uint64_t *, struct tally *, uint64_t *) = { compare_q4x,
		compare_q5c, compare_e7c };
	uint64_t seed = w->seed;

	who = w;
	for (group = 0; group < w->groups; group++) {
		mode = only != MODES ? only : group & 1 ? Q4X : group & 2 ? Q5C : E7C;
		compare[mode](&seed, &w->modes[mode], w->kinds);
		w->modes[mode].groups++;
	}
	w->done = true;
}

static uint64_t done(const struct worker *workers, unsigned int count)
{
	uint64_t groups = 0;

	for (unsigned int i = 0; i < count; i++)
		for (int m = 0; m < MODES; m++)
			groups += ((const volatile struct tally *)&workers[i].modes[m])->groups;
	return groups;
}

/* The first that fails ends the others: they may have hours to go. */
static void start(struct worker *workers, unsigned int count)
{
	uint64_t said = 0;
	int status = 0;

	fflush(stdout);
	for (unsigned int i = 0; i < count; i++) {
		pid_t child = fork();

		CHECK(child >= 0, "fork");
		if (!child) {
			work(&workers[i]);
			_exit(0);
		}
		workers[i].process = child;
	}
	for (unsigned int left = count; left;) {
		pid_t child = waitpid(-1, &status, WNOHANG);

		CHECK(child >= 0, "waitpid");
		left -= child > 0;
		if (child > 0 && status)
			for (unsigned int i = 0; i < count; i++)
				if (!workers[i].done && workers[i].process != child)
					kill(workers[i].process, SIGTERM);
		CHECK(child <= 0 || !status, "process %d: status %d", (int)child, status);
		if (!child)
			usleep(20000);
		if (done(workers, count) / 10000000 > said) {
			said = done(workers, count) / 10000000;
			printf("%llu million groups\n", (unsigned long long)(10 * said));
			fflush(stdout);
		}
	}
}

static void report(const struct worker *workers, unsigned int count)
{
	for (int m = 0; m < MODES; m++) {
		struct tally sum = { 0 };

		for (unsigned int i = 0; i < count; i++) {
			const struct tally *t = &workers[i].modes[m];

			sum.groups += t->groups;
			sum.refused += t->refused;
			sum.any_bytes += t->any_bytes;
			sum.means += t->means;
			sum.stored += t->stored;
			sum.escaped += t->escaped;
		}
		printf("%s: %llu groups, %llu tokens, equal in every bit; %llu refused alike, %llu decoded from any bytes or levels",
			names[m], (unsigned long long)sum.groups,
			(unsigned long long)(sum.groups * TOKENS), (unsigned long long)sum.refused,
			(unsigned long long)sum.any_bytes);
		if (m == Q4X)
			printf(", %llu with a mean", (unsigned long long)sum.means);
		if (m == E7C)
			printf(", %llu to be stored, %llu with escapes",
				(unsigned long long)sum.stored, (unsigned long long)sum.escaped);
		printf("\n");
		if (sum.groups < 500)
			continue;
		CHECK(sum.refused + sum.stored < sum.groups / 2, "%s: too few are compared",
			names[m]);
		CHECK(sum.any_bytes < sum.groups * 5 / 8, "%s: too few are their own", names[m]);
		CHECK(m != Q4X || sum.means > sum.groups / 10, "too few groups have a mean");
		CHECK(m != E7C || (sum.stored > sum.groups / 50 && sum.escaped > sum.groups / 10),
			"too few groups are stored or have escapes");
	}
	printf("tokens by kind");
	for (int kind = 0; kind < AGREE_KINDS; kind++) {
		uint64_t sum = 0;

		for (unsigned int i = 0; i < count; i++)
			sum += workers[i].kinds[kind];
		printf(" %llu", (unsigned long long)sum);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	uint64_t groups = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000,
		 seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 2026;
	unsigned int count = argc > 3 ? (unsigned int)strtoul(argv[3], NULL, 10) : 1;
	const struct codec_kernels *one;
	struct worker *workers;
	int usable;

	count = count ? count : (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	if (argc > 4) {
		for (only = 0; only < MODES && strcmp(names[only], argv[4]);)
			only++;
		CHECK(only < MODES, "no mode %s here", argv[4]);
	}
	printf("seed %llu, %u processes; beside the portable reference", (unsigned long long)seed,
		count);
	for (unsigned int i = 0; (one = codec_kernels_variant(i, &usable)); i++)
		if (usable) {
			CHECK(set_count < sizeof(sets) / sizeof(sets[0]), "room");
			sets[set_count++] = one;
			printf(i ? " %s" : "", one->name);
		}
	printf("\n");
	workers = mmap(NULL, count * sizeof(*workers), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(workers != MAP_FAILED, "memory");
	for (unsigned int i = 0; i < count; i++) {
		workers[i].groups = groups / count + (i < groups % count);
		workers[i].seed = i ? random_next(&seed) : seed;
	}
	if (count == 1)
		work(workers); /* in a debugger, say */
	else
		start(workers, count);
	for (unsigned int i = 0; i < count; i++)
		CHECK(workers[i].done, "process %u, seed %llu, ended in group %llu", i,
			(unsigned long long)workers[i].seed,
			(unsigned long long)done(&workers[i], 1));
	report(workers, count);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Every set of kernels gives, to the bit, what the portable reference gives: the same groups, the
 * same refusals, the same values. Half of the groups are the fixed-rate modes', a quarter each q5c's and e7c's.
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

#include "agree_sets.h"
#include "codec/qx.h"

static const char *const names[MODES] = { "fixed-rate", "q5c", "e7c" };

const struct codec_kernels *agree_sets[8];
unsigned int agree_set_count;
const struct worker *agree_who;
enum mode agree_mode;
static enum mode only = MODES;
uint64_t agree_group;

void agree_hold(bool same, unsigned int k, const char *what, const struct group_shape *s)
{
	CHECK(same, "%s: %s of %s, %s, head size %u: group %llu of a worker with seed %llu",
		agree_sets[k]->name, what, names[agree_mode], speckv_dtype_name(s->dtype),
		s->head_dim, (unsigned long long)agree_group, (unsigned long long)agree_who->seed);
}

void agree_any_bytes(uint64_t *seed, uint8_t *to, uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i += 8) {
		uint64_t noise = random_next(seed);

		memcpy(to + i, &noise, 8);
	}
}

unsigned int agree_any_head_dim(uint64_t how)
{
	return head_dims[how & 3 ? 0 : (how >> 2 & 0xff) % 6];
}

uint64_t agree_words[TOKENS * MOST / 4 + 8] __attribute__((aligned(64)));
uint8_t agree_decoded[2 * TOKENS * MOST] __attribute__((aligned(64))),
	agree_expected[2 * TOKENS * MOST] __attribute__((aligned(64)));

static void compare_fixed(uint64_t *seed, struct tally *tally, uint64_t *kinds)
{
	static uint8_t reference[QX_GROUP_MAX] __attribute__((aligned(64))),
		mine[QX_GROUP_MAX] __attribute__((aligned(64)));
	uint64_t how = random_next(seed);
	enum codec_tensor tensor = how & 1 ? CODEC_K : CODEC_V;
	unsigned int bits = 3 + (unsigned int)(how >> 24) % 3, sinks = how >> 32 & 3 ? 0 : 4;
	/* Scales of V reach from about 2^-22 to 2^12.75, of K from 2^-10 to 2^6. */
	struct group_shape s = how & 2
		? (struct group_shape){ SPECKV_DTYPE_BF16, agree_any_head_dim(how >> 2),
			  tensor == CODEC_K ? 127 - 17 : 127 - 26, tensor == CODEC_K ? 26 : 38 }
		: (struct group_shape){ SPECKV_DTYPE_FP16, agree_any_head_dim(how >> 2), 0,
			  tensor == CODEC_K ? 24 : 27 };
	uint32_t bytes = qx_group_bytes(s.head_dim, bits, tensor);
	const uint8_t *raw = (uint8_t *)agree_words;
	int rc;

	make_group(seed, &s, agree_words, kinds);
	rc = agree_sets[0]->qx_encode(raw, s.head_dim, s.dtype, bits, tensor, sinks, reference);
	FOR_EACH_SET(k, qx_encode)
	{
		memset(mine, STALE, bytes);
		agree_hold(agree_sets[k]->qx_encode(raw, s.head_dim, s.dtype, bits, tensor, sinks,
				   mine) == rc,
			k, "status", &s);
		agree_hold(rc || !memcmp(mine, reference, bytes), k, "codes", &s);
	}
	tally->refused += !!rc;
	tally->means += !rc && tensor == CODEC_K &&
		reference[QX_SCALES + s.head_dim * QX_FIELD_BITS / 8];
	for (unsigned int t = 0; !rc && tensor == CODEC_K && t < TOKENS; t++)
		tally->alone += reference[t] & QX_ALONE && reference[t] & ~QX_ALONE;
	if (rc || !(how >> 13 & 7)) {
		tally->any_bytes++;
		agree_any_bytes(seed, reference, bytes);
	}
	agree_sets[0]->qx_decode(reference, s.head_dim, s.dtype, bits, tensor, agree_expected,
		false);
	FOR_EACH_SET(k, qx_decode)
	{
		memset(agree_decoded, STALE, 2u * TOKENS * s.head_dim);
		agree_sets[k]->qx_decode(reference, s.head_dim, s.dtype, bits, tensor,
			agree_decoded, how >> 16 & 1);
		agree_hold(!memcmp(agree_decoded, agree_expected, 2u * TOKENS * s.head_dim), k,
			"values", &s);
	}
}

static void work(struct worker *w)
{
	static void (*const compare[MODES])(uint64_t *, struct tally *,
		uint64_t *) = { compare_fixed, agree_q5c, agree_e7c };
	uint64_t seed = w->seed;

	agree_who = w;
	for (agree_group = 0; agree_group < w->groups; agree_group++) {
		agree_mode = only != MODES ? only
			: agree_group & 1  ? FIXED
			: agree_group & 2  ? Q5C
					   : E7C;
		compare[agree_mode](&seed, &w->modes[agree_mode], w->kinds);
		w->modes[agree_mode].groups++;
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
			sum.alone += t->alone;
			sum.stored += t->stored;
			sum.escaped += t->escaped;
		}
		printf("%s: %llu groups, %llu tokens, equal in every bit; %llu refused alike, %llu decoded from any bytes or levels",
			names[m], (unsigned long long)sum.groups,
			(unsigned long long)(sum.groups * TOKENS), (unsigned long long)sum.refused,
			(unsigned long long)sum.any_bytes);
		if (m == FIXED)
			printf(", %llu with a mean, %llu tokens without it",
				(unsigned long long)sum.means, (unsigned long long)sum.alone);
		if (m == E7C)
			printf(", %llu to be stored, %llu with escapes",
				(unsigned long long)sum.stored, (unsigned long long)sum.escaped);
		printf("\n");
		if (sum.groups < 500)
			continue;
		CHECK(sum.refused + sum.stored < sum.groups / 2, "%s: too few are compared",
			names[m]);
		CHECK(sum.any_bytes < sum.groups * 5 / 8, "%s: too few are their own", names[m]);
		CHECK(m != FIXED || (sum.means > sum.groups / 10 && sum.alone > sum.groups / 10),
			"too few groups have a mean, or tokens without it");
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
			CHECK(agree_set_count < sizeof(agree_sets) / sizeof(agree_sets[0]), "room");
			agree_sets[agree_set_count++] = one;
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

// SPDX-License-Identifier: MIT
/*
 * The fuzzer of guided.h: keeps inputs that reach what none before did, or more often, and goes on
 * from them.
 *
 * Usage: fuzz_NAME RUNS [SECONDS [SEED]]     stops at whichever comes first; 0: no limit of that
 * kind
 *        fuzz_NAME FILE ...                  runs each file once
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../vectors/inputs.h"
#include "guided.h"

#define EDGES (1u << 16)
#define INPUTS_MAX 8192
#define INPUT_MAX (1u << 17)

struct input {
	uint8_t *data;
	size_t size;
};

static uint8_t hits[EDGES], seen[EDGES]; /* of this input; classes of counts, a bit each, of all */
static uint32_t touched[EDGES], touches;
static uint64_t steps, interrupt_at = UINT64_MAX, seed;
static uintptr_t before;
static void (*interrupt)(void *context);
static void *interrupt_context;
static struct input inputs[INPUTS_MAX];
static unsigned int count;
static uint8_t current[INPUT_MAX];
static size_t current_size;

void __sanitizer_cov_trace_pc(void);

void __sanitizer_cov_trace_pc(void)
{
	uintptr_t here = (uintptr_t)__builtin_return_address(0) * UINT64_C(0x9e3779b97f4a7c15) >>
		40;
	uint32_t edge = (uint32_t)(here ^ before) % EDGES;

	before = here >> 1;
	if (!hits[edge])
		touched[touches++] = edge;
	hits[edge] = (uint8_t)(hits[edge] + (hits[edge] < 255));
	if (++steps == interrupt_at) {
		interrupt_at = UINT64_MAX;
		interrupt(interrupt_context);
	}
}

uint64_t guided_steps(void)
{
	return steps;
}

void guided_interrupt(uint64_t after, void (*then)(void *context), void *context)
{
	interrupt = then;
	interrupt_context = context;
	interrupt_at = steps + 1 + after;
}

/* Once, twice, thrice, to 7, 15, 31, 127, and more: as afl does. */
static uint8_t class_of(uint8_t n)
{
	return n < 4	  ? (uint8_t)(1u << (n - 1))
		: n < 8	  ? 8
		: n < 16  ? 16
		: n < 32  ? 32
		: n < 128 ? 64
			  : 128;
}

/* Runs the current input; whether it did something new. */
static bool run(void)
{
	bool fresh = false;

	steps = 0;
	before = 0;
	interrupt_at = UINT64_MAX;
	LLVMFuzzerTestOneInput(current, current_size);
	while (touches) {
		uint32_t edge = touched[--touches];
		uint8_t class = class_of(hits[edge]);

		fresh = fresh || !(seen[edge] & class);
		seen[edge] |= class;
		hits[edge] = 0;
	}
	return fresh;
}

static void keep(void)
{
	struct input *to = &inputs[count < INPUTS_MAX ? count++ : random_below(&seed, INPUTS_MAX)];

	free(to->data);
	to->data = malloc(current_size ? current_size : 1);
	if (!to->data)
		abort();
	memcpy(to->data, current, current_size);
	to->size = current_size;
}

static void add(const uint8_t *data, size_t size)
{
	if (size > INPUT_MAX)
		abort();
	memcpy(current, data, size);
	current_size = size;
	run();
	keep();
}

/* Mostly near the front, where headers are. */
static size_t somewhere(void)
{
	uint32_t most = (uint32_t)current_size, near = random_below(&seed, 3);

	if (near < 2 && most > 256)
		most = near ? 256 : 4096 < most ? 4096 : most;
	return random_below(&seed, most);
}

static void change(void)
{
	static const uint8_t odd[] = { 0, 1, 2, 3, 4, 31, 32, 63, 64, 127, 128, 192, 254, 255 };
	size_t at, from, length;

	if (!current_size)
		return;
	at = somewhere();
	from = somewhere();
	length = 1 + random_below(&seed, random_below(&seed, 4) ? 8 : 300);
	switch (random_below(&seed, 9)) {
	case 0:
		current[at] ^= (uint8_t)(1u << random_below(&seed, 8));
		break;
	case 1:
		current[at] = (uint8_t)random_next(&seed);
		break;
	case 2:
		current[at] = odd[random_below(&seed, sizeof(odd))];
		break;
	case 3:
		current[at] = (uint8_t)(current[at] + 1 + random_below(&seed, 16));
		break;
	case 4:
		current[at] = (uint8_t)(current[at] - 1 - random_below(&seed, 16));
		break;
	case 5: /* a few bytes the same, or of noise */
		for (uint8_t to = random_below(&seed, 2) ? odd[random_below(&seed, sizeof(odd))]
							 : 0;
			length && at < current_size; length--)
			current[at++] = to ? to : (uint8_t)random_next(&seed);
		break;
	case 6: /* a piece from elsewhere in it */
		for (; length && at < current_size && from < current_size; length--)
			current[at++] = current[from++];
		break;
	case 7: { /* a piece of another one, at the same place */
		const struct input *other = &inputs[random_below(&seed, count)];

		for (; length && at < current_size && at < other->size; length--, at++)
			current[at] = other->data[at];
		break;
	}
	default: /* rarely: another length */
		if (!random_below(&seed, 8))
			current_size = 1 + random_below(&seed, (uint32_t)current_size);
	}
}

static double processor_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* So that a crash can be looked at. */
static void save(void)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "crash-%ld", (long)getpid());
	file = fopen(path, "wb");
	if (!file)
		return;
	fwrite(current, 1, current_size, file);
	fclose(file);
	fprintf(stderr, "the input is in %s\n", path);
}

static void died(int number)
{
	save();
	signal(number, SIG_DFL);
	raise(number);
}

static void report(unsigned long runs)
{
	unsigned int edges = 0;

	for (unsigned int i = 0; i < EDGES; i++)
		edges += !!seen[i];
	printf("%lu runs, %.0f CPU seconds, %u edges, %u inputs kept\n", runs, processor_seconds(),
		edges, count);
	fflush(stdout);
}

static int run_file(const char *path)
{
	FILE *file = fopen(path, "rb");

	if (!file) {
		perror(path);
		return 1;
	}
	current_size = fread(current, 1, sizeof(current), file);
	fclose(file);
	run();
	return 0;
}

int main(int argc, char **argv)
{
	char *end = NULL;
	unsigned long most = argc > 1 ? strtoul(argv[1], &end, 10) : 0, runs = 0, next = 1u << 20;
	double seconds = argc > 2 ? strtod(argv[2], NULL) : 0;

	if (argc < 2) {
		fprintf(stderr, "usage: %s RUNS [SECONDS [SEED]] | FILE ...\n", argv[0]);
		return 2;
	}
	if (*end) {
		for (int i = 1; i < argc; i++)
			if (run_file(argv[i]))
				return 1;
		return 0;
	}
	seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
	printf("seed %llu\n", (unsigned long long)seed);
	atexit(save); /* of a failed check */
	signal(SIGABRT, died);
#ifndef __SANITIZE_ADDRESS__ /* which says more about it */
	signal(SIGSEGV, died);
#endif
	guided_seeds(add);
	while ((!most || runs < most) && (!seconds || runs % 64 || processor_seconds() < seconds)) {
		/* The newest ones have been tried least. */
		const struct input *from = &inputs[random_below(&seed, 3)
				? random_below(&seed, count)
				: count - 1 - random_below(&seed, count / 8 + 1)];

		memcpy(current, from->data, from->size);
		current_size = from->size;
		for (uint32_t changes = 1u << random_below(&seed, 5); changes; changes--)
			change();
		if (run())
			keep();
		if (++runs == next) {
			report(runs);
			next *= 2;
		}
	}
	report(runs);
	fflush(stdout);
	_exit(0); /* nothing failed: nothing to save */
}

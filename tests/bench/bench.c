// SPDX-License-Identifier: MIT
#include "bench.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

double now_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int stay_on_one_core(void)
{
	int core = sched_getcpu();
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)core, &set);
	if (core < 0 || sched_setaffinity(0, sizeof(set), &set))
		give_up("cannot stay on one core");
	return core;
}

uint64_t scramble(uint64_t x) /* SplitMix64 */
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

void shuffle(uint32_t *order, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (size_t i = n; i > 1; i--) {
		size_t j = scramble(seed + i) % i;
		uint32_t swap = order[i - 1];

		order[i - 1] = order[j];
		order[j] = swap;
	}
}

void key_of(uint64_t number, struct speckv_key *key)
{
	for (uint64_t i = 0; i < SPECKV_KEY_BYTES / 8; i++) {
		uint64_t word = scramble(number * 4 + i);

		memcpy(key->bytes + 8 * i, &word, 8);
	}
}

void *map_memory(int fd, size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		give_up("no %zu bytes of memory", bytes);
	madvise(at, bytes, MADV_HUGEPAGE);
	memset(at, 1, bytes);
	return at;
}

void add_turn(struct series *series, double seconds)
{
	if (series->turns == series->room) {
		size_t room = series->room ? 2 * series->room : 1024;
		double *more = realloc(series->seconds, room * sizeof(*more));

		if (!more)
			give_up("no memory");
		series->seconds = more;
		series->room = room;
	}
	series->seconds[series->turns++] = seconds;
}

void print_series(const struct series *series)
{
	printf("{\"series\": \"%s\", \"units\": %llu, \"seconds\": [", series->name,
		(unsigned long long)series->units);
	for (size_t i = 0; i < series->turns; i++)
		printf("%s%.8f", i ? ", " : "", series->seconds[i]);
	printf("]}\n");
}

const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return argv[i + 1];
	return otherwise;
}

size_t number(int argc, char **argv, const char *name, size_t otherwise)
{
	const char *text = option(argc, argv, name, NULL);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

void give_up(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

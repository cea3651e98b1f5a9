/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark programs share: a clock, one core, random orders, and one JSON line a series.
 * The programs only measure; medians, ratios and words are run.py's.
 */
#ifndef SPECKV_TESTS_BENCH_H
#define SPECKV_TESTS_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include <speckv/block.h>

/*
 * One thing measured: seconds of each turn, every turn for the same `units` (bytes, keys) of work.
 * Turns last about a millisecond and peers alternate, so that the median leaves out those in which
 * something else had the core.
 */
struct series {
	const char *name;
	uint64_t units;
	size_t turns, room;
	double *seconds;
};

double now_seconds(void);
/* Stay on the core we are on, so that a round is not spread over two caches. Returns the core. */
int stay_on_one_core(void);
/* Numbers that look random and are the same in every run. */
uint64_t scramble(uint64_t x);
/* 0..n-1 in an order that depends on `seed`. */
void shuffle(uint32_t *order, size_t n, uint64_t seed);
/* A 32-byte key: a SHA-256 is as even as this. */
void key_of(uint64_t number, struct speckv_key *key);
/* Private (fd -1) or shared memory, faulted in, with huge pages where the system gives them. */
void *map_memory(int fd, size_t bytes);
void add_turn(struct series *series, double seconds);
void print_series(const struct series *series);
/* "--name value" from the command line, or `otherwise`. */
const char *option(int argc, char **argv, const char *name, const char *otherwise);
size_t number(int argc, char **argv, const char *name, size_t otherwise);
/* Say what failed and leave: a benchmark that goes on after an error measures nothing. */
__attribute__((noreturn, format(printf, 1, 2))) void give_up(const char *format, ...);

#endif

// SPDX-License-Identifier: MIT
/*
 * How long one step of the prefetcher takes, for each instruction set that this machine has.
 *
 * Usage: predictor_step [--steps 20000] [--sessions 256] Prints one line an instruction set: the
 * median, the 99th percentile and the fastest of all steps, in microseconds. Every step is another
 * session's turn, as on a card; the arithmetic takes the same time whatever the numbers are, so
 * they are random.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>
#include <speckv/predictor.h>

#include "bench.h"

#define FEATURES 14
#define BINS 22
#define ROWS (4 * SPECKV_PREDICTOR_HIDDEN)

static uint64_t drawn;

static void put_bytes(uint8_t **at, size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(*at)++ = (uint8_t)(scramble(drawn++) % 255 - 127);
}

static void put_words(uint8_t **at, size_t n, uint32_t below)
{
	for (size_t i = 0; i < n; i++, *at += 4) {
		uint32_t value = (uint32_t)(scramble(drawn++) % below);

		memcpy(*at, &value, 4);
	}
}

static struct speckv_predictor *load(void)
{
	static uint8_t flat[1u << 20];
	const uint16_t shape[] = { FEATURES, SPECKV_PREDICTOR_LAYERS, SPECKV_PREDICTOR_HIDDEN,
		BINS };
	uint8_t *at = flat + SPECKV_PREDICTOR_HEADER_BYTES;
	struct speckv_predictor *model;
	uint32_t word;

	memset(flat, 0, sizeof(flat));
	drawn = 1;
	for (uint32_t edge = 0; edge <= BINS; edge++, at += 4) {
		word = edge * 1000;
		memcpy(at, &word, 4);
	}
	for (unsigned int layer = 0; layer < SPECKV_PREDICTOR_LAYERS; layer++) {
		put_bytes(&at,
			(size_t)ROWS *
				((layer ? SPECKV_PREDICTOR_HIDDEN : FEATURES) +
					SPECKV_PREDICTOR_HIDDEN));
		put_words(&at, 2 * (size_t)ROWS, 1u << 16);
		put_words(&at, ROWS, 4096);
	}
	put_bytes(&at, (size_t)BINS * SPECKV_PREDICTOR_HIDDEN);
	put_words(&at, BINS, 1u << 16);
	put_words(&at, BINS, 4096);
	memcpy(flat, "SPECKVP", 8);
	word = SPECKV_PREDICTOR_VERSION;
	memcpy(flat + 8, &word, 4);
	word = (uint32_t)(at - flat);
	memcpy(flat + 12, &word, 4);
	memcpy(flat + 16, shape, sizeof(shape));
	word = speckv_crc32c(speckv_crc32c(0, flat, 60), flat + 64, (size_t)(at - flat) - 64);
	memcpy(flat + 60, &word, 4);
	if (speckv_predictor_load(flat, (size_t)(at - flat), &model))
		give_up("cannot load the model");
	return model;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static const char *const sets[] = { "portable", "sse42", "avx2", "avx512" };
	size_t steps = number(argc, argv, "steps", 20000),
	       sessions = number(argc, argv, "sessions", 256);
	struct speckv_predictor_state *states = calloc(sessions, sizeof(*states));
	double *us = calloc(steps, sizeof(*us));
	uint32_t survival[SPECKV_PREDICTOR_BINS_MAX + 1];

	if (!steps || !sessions || !states || !us)
		give_up("no steps, no sessions or no memory");
	stay_on_one_core();
	for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++) {
		struct speckv_predictor *model;

		if (speckv_isa_force(sets[s])) {
			printf("%-10s this machine does not have it\n", sets[s]);
			continue;
		}
		model = load();
		for (size_t i = 0; i < steps; i++) {
			struct speckv_predictor_state *state = &states[scramble(i) % sessions];
			int8_t features[FEATURES];
			double start;

			for (size_t f = 0; f < FEATURES; f++)
				features[f] = (int8_t)(scramble(i * FEATURES + f) % 255 - 127);
			start = now_seconds();
			speckv_predictor_step(model, state, features, state, survival);
			us[i] = 1e6 * (now_seconds() - start);
		}
		qsort(us, steps, sizeof(*us), by_size);
		printf("%-10s p50 %6.2f us   p99 %6.2f us   min %6.2f us\n", sets[s], us[steps / 2],
			us[steps * 99 / 100], us[0]);
		speckv_predictor_destroy(model);
	}
	free(us);
	free(states);
	return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Models and traces that somebody else made: refused or played, in buffers that end where they are
 * said to.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include "predictor/kernels.h"
#include "predictor/sigmoid.h"
#include "predictor/simulation.h"

#include "../../check.h"

static uint64_t state = 1;

static uint64_t next(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return state >> 33 ^ state << 7;
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(next() % n);
}

static void *of(size_t n)
{
	void *p = malloc(n ? n : 1);

	HOLDS(p);
	return p;
}

static void put32(uint8_t *p, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(value >> 8 * i);
}

static void seal(uint8_t *flat, size_t n)
{
	put32(flat + 60, speckv_crc32c(speckv_crc32c(0, flat, 60), flat + 64, n - 64));
}

static uint8_t *make_model(uint32_t features, uint32_t bins, size_t *bytes)
{
	size_t n = 64 + 4 * (size_t)(bins + 1) + (size_t)bins * (128 + 8) +
		512 * ((size_t)features + 128 + 12) + 512 * (128 + 128 + 12);
	uint8_t *flat = of(n), *at = flat + 64;

	memset(flat, 0, 64);
	memcpy(flat, "SPECKVP", 8);
	put32(flat + 12, (uint32_t)n);
	flat[16] = (uint8_t)features;
	flat[18] = 2;
	flat[20] = 128;
	flat[22] = (uint8_t)bins;
	for (uint32_t i = 0; i <= bins; i++, at += 4)
		put32(at, i * 1000);
	for (; at < flat + n; at++)
		*at = (uint8_t)next();
	/* Scales and biases: small, whatever is beside them. */
	at = flat + 64 + 4 * (size_t)(bins + 1);
	for (int layer = 0; layer < 2; layer++) {
		at += 512 * ((layer ? 128 : (size_t)features) + 128);
		for (int i = 0; i < 3 * 512; i++, at += 4)
			put32(at, below(1 << 18));
	}
	at += (size_t)bins * 128;
	for (uint32_t i = 0; i < 2 * bins; i++, at += 4)
		put32(at, below(1 << 18));
	HOLDS(at == flat + n);
	seal(flat, n);
	*bytes = n;
	return flat;
}

static void run_model(const struct speckv_predictor *model)
{
	uint32_t features = speckv_predictor_features(model), bins = speckv_predictor_bins(model);
	struct speckv_predictor_state session = { 0 };
	int8_t *input = of(features);
	uint32_t *survival = of((bins + 1) * sizeof(*survival));

	for (int turn = 0; turn < 3; turn++) {
		for (uint32_t i = 0; i < features; i++)
			input[i] = (int8_t)next();
		HOLDS(!speckv_predictor_step(model, turn ? &session : NULL, input, &session,
			survival));
		for (uint32_t i = 1; i <= bins; i++)
			HOLDS(survival[i] <= survival[i - 1] &&
				survival[0] == SPECKV_PREDICTOR_ONE);
	}
	free(survival);
	free(input);
}

/* With a checksum that fits: the numbers are all that stands between a model and the arithmetic. */
static void models(void)
{
	size_t n;
	uint8_t *flat = make_model(1 + below(64), 1 + below(64), &n);
	struct speckv_predictor *model;
	uint32_t changes = below(4);

	for (uint32_t i = 0; i < changes; i++)
		flat[below(2) ? below(64 + 4 * 64) % n : below((uint32_t)n)] = (uint8_t)next();
	seal(flat, n);
	if (!speckv_predictor_load(flat, n, &model)) {
		run_model(model);
		speckv_predictor_destroy(model);
	} else {
		HOLDS(changes);
	}
	free(flat);
}

/* Whatever numbers stand in a trace, it is refused, or played and counted. */
static void traces(void)
{
	uint32_t requests = below(20), blocks = 1 + below(12), edges = 2 + below(4), total = 0;
	uint64_t *first = of((requests + 1) * sizeof(*first)),
		 *times = of(requests * sizeof(*times)), now = 0;
	uint32_t *stored = of(requests * sizeof(*stored)), *parent = of(requests * sizeof(*parent));
	uint32_t *edge = of(edges * sizeof(*edge)),
		 *values = of((size_t)requests * edges * sizeof(*values)), *nodes;
	struct speckv_sim_event *events = of(64 * sizeof(*events));
	struct speckv_sim_result result;

	for (uint32_t i = 0; i < requests; i++) {
		uint32_t length = below(6);

		first[i] = total;
		total += length;
		stored[i] = length ? below(length + 1) : 0;
		parent[i] = i && below(2) ? below(i) : SPECKV_NO_REQUEST;
		times[i] = now += below(4000) * 1000000ull;
	}
	first[requests] = total;
	nodes = of(total * sizeof(*nodes));
	for (uint32_t k = 0; k < total; k++)
		nodes[k] = below(blocks);
	for (uint32_t i = 0; i < edges; i++)
		edge[i] = i * (1 + below(1000)) * 16 + i;
	for (uint32_t i = 0; i < requests * edges; i++)
		values[i] = below(SPECKV_PREDICTOR_ONE + 1u);
	if (!below(4) && requests)
		stored[below(requests)] = (uint32_t)next();
	if (!below(4) && requests)
		parent[below(requests)] = (uint32_t)next();
	if (!below(4) && total)
		nodes[below(total)] = below(2 * blocks);
	if (!below(6) && requests)
		first[1 + below(requests)] -= 1;
	if (first[requests] == total || first[requests] + 1 == total) {
		struct speckv_trace trace = { requests, blocks, times, first, nodes, stored,
			parent };
		struct speckv_sim_config config = { .capacity_blocks = 1 + below(8),
			.policy = below(3) ? below(2) : below(3),
			.prefetch = below(4),
			.curve = below(2),
			.edges = edges,
			.window_ms = 1 + below(60000),
			.tick_ns = 1000000 + below(1u << 30),
			.transfer_ns = below(2) * next() % 2000000000,
			.edges_ms = edge,
			.values = values };
		int rc = speckv_sim_run(&trace, &config, events, 64, &result);

		HOLDS(!rc || rc == -EINVAL);
		HOLDS(rc || result.issued == result.useful + result.late + result.unused);
	}
	free(first);
	free(times);
	free(stored);
	free(parent);
	free(edge);
	free(values);
	free(nodes);
	free(events);
}

/* ---- kernels -------------------------------------------------------------------------------- */

#define UNITS SPECKV_PREDICTOR_HIDDEN

/* As speckv/predictor.h says it, with room for everything. */
static int64_t plain_sigmoid15(int64_t x)
{
	int64_t at = 65536 -
		(x > 65536 ? 65536
				: x < -65536 ? 65536
				: x > 0	     ? x
					     : -x),
		value = sigmoid_table[at >> 8];

	if (at & 255)
		value += ((sigmoid_table[(at >> 8) + 1] - value) * (at & 255) + 128) >> 8;
	return ((x > 0 ? (1 << 24) - value : value) + 256) >> 9;
}

static int64_t plain_tanh15(int64_t x)
{
	return 2 * plain_sigmoid15(2 * x) - (1 << 15);
}

static void plain_cells(const int64_t *gates, int16_t *cell, int8_t *hidden)
{
	for (int unit = 0; unit < UNITS; unit++) {
		int64_t in = plain_sigmoid15(gates[unit]),
			forget = plain_sigmoid15(gates[UNITS + unit]);
		int64_t c = (forget * cell[unit] * 16 + in * plain_tanh15(gates[2 * UNITS + unit]) +
				    (1 << 18)) >>
			19;

		cell[unit] = (int16_t)(c > INT16_MAX ? INT16_MAX : c < INT16_MIN ? INT16_MIN : c);
		hidden[unit] = (int8_t)((plain_sigmoid15(gates[3 * UNITS + unit]) *
							plain_tanh15(2 * cell[unit]) * 127 +
						(1 << 29)) >>
			30);
	}
}

/* What a whole byte can be; every fourth time only its ends. */
static void draw_bytes(int8_t *to, size_t n)
{
	bool ends = !below(4);

	for (size_t i = 0; i < n; i++)
		to[i] = (int8_t)(ends ? (next() & 1 ? 127 : -128) : (int)next());
}

/* Every variant computes what the words of the header say, at the ends of every range too. */
static void kernels(const struct predictor_kernels *k)
{
	uint32_t rows = PREDICTOR_ROWS * (1 + below(3)),
		 columns = PREDICTOR_COLUMNS * (1 + below(4));
	int8_t *weights = of((size_t)rows * columns), *vector = of(columns), hidden[UNITS],
	       expected_hidden[UNITS];
	int32_t *sums = of(rows * sizeof(*sums)), *offsets = of(rows * sizeof(*offsets));
	void *packed = aligned_alloc(64, (size_t)rows * columns * k->weight_bytes);
	int32_t a[4 * UNITS], b[4 * UNITS], scale_a[4 * UNITS], scale_b[4 * UNITS], bias[4 * UNITS],
		gates[4 * UNITS];
	int16_t cell[UNITS], expected_cell[UNITS];
	int64_t plain[4 * UNITS];
	uint32_t most = 1 + below(1 << 21), scale = 1 + below(1 << below(25));

	HOLDS(packed);
	draw_bytes(weights, (size_t)rows * columns);
	draw_bytes(vector, columns);
	k->pack(weights, rows, columns, packed, offsets);
	k->matvec(packed, offsets, rows, columns, vector, sums);
	for (uint32_t row = 0; row < rows; row++) {
		int64_t sum = 0;

		for (uint32_t i = 0; i < columns; i++)
			sum += (int64_t)weights[row * columns + i] * vector[i];
		HOLDS(sum == sums[row]);
	}

	for (int i = 0; i < 4 * UNITS; i++) {
		a[i] = (int32_t)below(2 * most + 1) - (int32_t)most;
		b[i] = (int32_t)below(2 * most + 1) - (int32_t)most;
		scale_a[i] = below(8) ? (int32_t)below(scale + 1) : 1 << 24;
		scale_b[i] = below(8) ? (int32_t)below(scale + 1) : 1 << 24;
		bias[i] = below(8) ? (int32_t)below(65536) - 32768
				   : (next() & 1 ? 1 << 20 : -(1 << 20));
		if (!below(16))
			a[i] = b[i] = next() & 1 ? 1 << 21 : -(1 << 21);
		plain[i] = (((int64_t)a[i] * scale_a[i] + (int64_t)b[i] * scale_b[i] + (1 << 15)) >>
				   16) +
			bias[i];
	}
	for (int i = 0; i < UNITS; i++)
		cell[i] = expected_cell[i] = (int16_t)(below(8) ? (int)next()
				: next() & 1			? INT16_MAX
								: INT16_MIN);
	k->gates(a, scale_a, b, scale_b, bias, gates);
	k->cells(gates, cell, hidden);
	plain_cells(plain, expected_cell, expected_hidden);
	HOLDS(!memcmp(cell, expected_cell, sizeof(cell)));
	HOLDS(!memcmp(hidden, expected_hidden, sizeof(hidden)));
	free(weights);
	free(vector);
	free(sums);
	free(offsets);
	free(packed);
}

static void every_variant(void)
{
	kernels(&predictor_kernels_portable);
#if defined(__x86_64__)
	if (!speckv_isa_force("sse42"))
		kernels(&predictor_kernels_sse42);
	if (!speckv_isa_force("avx2"))
		kernels(&predictor_kernels_avx2);
	if (!speckv_isa_force("avx512"))
		kernels(&predictor_kernels_avx512);
	HOLDS(!speckv_isa_force("auto"));
#endif
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 100;

	for (long i = 0; i < rounds; i++) {
		if (i % 10 == 0)
			models();
		for (int k = 0; k < 20; k++)
			traces();
		every_variant();
	}
	HOLDS(speckv_predictor_load(NULL, 0, NULL) == -EINVAL);
	speckv_predictor_destroy(NULL);
	return 0;
}

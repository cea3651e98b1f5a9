// SPDX-License-Identifier: MIT
/* Portable C that compilers vectorise: built once for each PREDICTOR_ISA. */
#include "predictor/cells.h"
#include "predictor/kernels.h"

/* Widened to 16 bits: every SIMD set multiplies and adds pairs of them in one instruction. */
static void pack(const int8_t *weights, uint32_t rows, uint32_t columns, void *to, int32_t *offsets)
{
	int16_t *out = to;

	for (uint32_t i = 0; i < rows * columns; i++)
		out[i] = weights[i];
	for (uint32_t row = 0; row < rows; row++)
		offsets[row] = 0;
}

static inline __attribute__((always_inline)) void multiply(const int16_t *weights, uint32_t rows,
	uint32_t columns, const int16_t *vector, int32_t *sums)
{
	for (uint32_t row = 0; row < rows; row++, weights += columns) {
		int32_t sum = 0;

		for (uint32_t i = 0; i < columns; i++)
			sum += (int32_t)weights[i] * vector[i];
		sums[row] = sum;
	}
}

static void matvec(const void *weights, const int32_t *offsets, uint32_t rows, uint32_t columns,
	const int8_t *vector, int32_t *sums)
{
	int16_t wide[SPECKV_PREDICTOR_HIDDEN];

	for (uint32_t i = 0; i < columns; i++)
		wide[i] = vector[i];
	/* A constant length saves a third of the time. */
	if (columns == SPECKV_PREDICTOR_HIDDEN)
		multiply(weights, rows, SPECKV_PREDICTOR_HIDDEN, wide, sums);
	else if (columns == PREDICTOR_COLUMNS)
		multiply(weights, rows, PREDICTOR_COLUMNS, wide, sums);
	else
		multiply(weights, rows, columns, wide, sums);
}

static void gates(const int32_t *input, const int32_t *input_scale, const int32_t *recurrent,
	const int32_t *recurrent_scale, const int32_t *bias, int32_t *out)
{
	cells_gates(input, input_scale, recurrent, recurrent_scale, bias, out);
}

static void cells(const int32_t *in, int16_t *cell, int8_t *hidden)
{
	cells_step(in, cell, hidden);
}

#define NAME_(isa) predictor_kernels_##isa
#define NAME(isa) NAME_(isa)
#define TEXT_(isa) #isa
#define TEXT(isa) TEXT_(isa)

const struct predictor_kernels NAME(PREDICTOR_ISA) = {
	.isa = TEXT(PREDICTOR_ISA),
	.weight_bytes = sizeof(int16_t),
	.pack = pack,
	.matvec = matvec,
	.gates = gates,
	.cells = cells,
};

// SPDX-License-Identifier: MIT
/*
 * AVX-512 with VNNI: four products of bytes and their sum in each of 16 lanes, one row a lane: no
 * horizontal sums.
 */
#include <immintrin.h>

#include "predictor/cells.h"
#include "predictor/kernels.h"

#define LANES 16
#define QUAD 4 /* columns per lane */

/*
 * Layout: for each 64 rows, for each 4 columns: 64 rows x 4 bytes. The instruction needs one
 * unsigned operand: it gets the vector plus 128, and `offsets` corrects for that.
 */
static void pack(const int8_t *weights, uint32_t rows, uint32_t columns, void *to, int32_t *offsets)
{
	int8_t *out = to;

	for (uint32_t block = 0; block < rows; block += PREDICTOR_ROWS)
		for (uint32_t column = 0; column < columns; column += QUAD)
			for (uint32_t row = block; row < block + PREDICTOR_ROWS; row++)
				for (uint32_t i = 0; i < QUAD; i++)
					*out++ = weights[(size_t)row * columns + column + i];
	for (uint32_t row = 0; row < rows; row++) {
		offsets[row] = 0;
		for (uint32_t i = 0; i < columns; i++)
			offsets[row] += 128 * weights[(size_t)row * columns + i];
	}
}

static void matvec(const void *weights, const int32_t *offsets, uint32_t rows, uint32_t columns,
	const int8_t *vector, int32_t *sums)
{
	const int8_t *w = weights;
	uint32_t quads[SPECKV_PREDICTOR_HIDDEN / QUAD];

	for (uint32_t i = 0; i < columns; i += QUAD) {
		__builtin_memcpy(&quads[i / QUAD], vector + i, QUAD);
		quads[i / QUAD] ^= 0x80808080;
	}
	for (uint32_t row = 0; row < rows; row += PREDICTOR_ROWS) {
		__m512i even[4], odd[4];

		for (int k = 0; k < 4; k++) {
			even[k] = _mm512_setzero_si512();
			odd[k] = _mm512_setzero_si512();
		}
		for (uint32_t q = 0; q < columns / QUAD; q += 2, w += 2 * PREDICTOR_ROWS * QUAD) {
			__m512i first = _mm512_set1_epi32((int)quads[q]),
				second = _mm512_set1_epi32((int)quads[q + 1]);

			for (int k = 0; k < 4; k++) {
				even[k] = _mm512_dpbusd_epi32(even[k], first,
					_mm512_load_si512(w + k * LANES * QUAD));
				odd[k] = _mm512_dpbusd_epi32(odd[k], second,
					_mm512_load_si512(w + (k + 4) * LANES * QUAD));
			}
		}
		for (int k = 0; k < 4; k++) {
			__m512i offset = _mm512_loadu_si512(offsets + row + k * LANES);

			_mm512_storeu_si512(sums + row + k * LANES,
				_mm512_sub_epi32(_mm512_add_epi32(even[k], odd[k]), offset));
		}
	}
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

const struct predictor_kernels predictor_kernels_avx512 = {
	.isa = "avx512",
	.weight_bytes = 1,
	.pack = pack,
	.matvec = matvec,
	.gates = gates,
	.cells = cells,
};

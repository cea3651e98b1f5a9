/* SPDX-License-Identifier: MIT */
#include "predictor/kernels.h"

void predictor_matvec_portable(const int8_t *weights, uint32_t rows, uint32_t columns, const int8_t *vector,
			       int32_t *sums)
{
	for (uint32_t row = 0; row < rows; row++, weights += columns) {
		int32_t sum = 0;

		for (uint32_t i = 0; i < columns; i++)
			sum += (int16_t)weights[i] * (int16_t)vector[i];
		sums[row] = sum;
	}
}

/* SPDX-License-Identifier: MIT */
#ifndef SPECKV_PREDICTOR_KERNELS_H
#define SPECKV_PREDICTOR_KERNELS_H

#include <stdint.h>

/* Columns are padded with zeros to a multiple of this, rows to a multiple of 4. */
#define PREDICTOR_COLUMNS 32

/* sums[r] = weights[r] . vector, exact in 32 bits for every shape that a model may have. */
typedef void predictor_matvec(const int8_t *weights, uint32_t rows, uint32_t columns, const int8_t *vector,
			      int32_t *sums);

predictor_matvec predictor_matvec_portable;
predictor_matvec predictor_matvec_avx2;

#endif

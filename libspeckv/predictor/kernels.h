/* SPDX-License-Identifier: MIT */
/* One step of the network, by instruction set. For lstm.c. */
#ifndef SPECKV_PREDICTOR_KERNELS_H
#define SPECKV_PREDICTOR_KERNELS_H

#include <stdint.h>

#include <speckv/predictor.h>

/* Columns are padded with zeros to a multiple of the first, rows of the second. */
#define PREDICTOR_COLUMNS 32
#define PREDICTOR_ROWS 64

/* The hot loops of a step, for one instruction set. All variants agree bit for bit. */
struct predictor_kernels {
	const char *isa;
	uint32_t weight_bytes;
	/*
	 * Convert weights from row-major order to the layout of matvec: rows x columns x
	 * weight_bytes, aligned to 64; offsets [rows].
	 */
	void (*pack)(const int8_t *weights, uint32_t rows, uint32_t columns, void *to,
		int32_t *offsets);
	/*
	 * sums[r] = weights[r] . vector, exact in 32 bits for every shape that a model may have;
	 * columns at most 128.
	 */
	void (*matvec)(const void *weights, const int32_t *offsets, uint32_t rows, uint32_t columns,
		const int8_t *vector, int32_t *sums);
	/* Compute the four gates of every unit from the sums of a layer. */
	void (*gates)(const int32_t *input, const int32_t *input_scale, const int32_t *recurrent,
		const int32_t *recurrent_scale, const int32_t *bias, int32_t *gates);
	/* Update cells and outputs from the gates. */
	void (*cells)(const int32_t *gates, int16_t *cell, int8_t *hidden);
};

extern const struct predictor_kernels predictor_kernels_portable;
extern const struct predictor_kernels predictor_kernels_sse42;
extern const struct predictor_kernels predictor_kernels_avx2;
extern const struct predictor_kernels predictor_kernels_avx512;

#endif

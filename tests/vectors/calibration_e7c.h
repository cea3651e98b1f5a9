/* SPDX-License-Identifier: MIT */
/*
 * A valid calibration of mode e7c made from a seed, as bytes, for tests and golden vectors, which
 * depend on every line of this.
 */
#ifndef SPECKV_VECTOR_CALIBRATION_E7C_H
#define SPECKV_VECTOR_CALIBRATION_E7C_H

#include "calibration.h"

/* In all files, so that matrices are each other's inverse. */
#define E7C_VECTOR_SHIFT 6
#define E7C_VECTOR_DOWN 12

/* One tensor; `dims` ends with a zero. */
struct calibration_tensor {
	const char *name, *type;
	uint64_t dims[6];
	unsigned int width;
	uint8_t *data;
};

static inline uint64_t calibration_tensor_bytes(const struct calibration_tensor *t)
{
	uint64_t bytes = t->width;

	for (unsigned int i = 0; t->dims[i]; i++)
		bytes *= t->dims[i];
	return bytes;
}

/* The file with these tensors, whose data are then freed. */
static inline struct calibration_file calibration_of(const char *rotary,
	struct calibration_tensor *tensors, unsigned int count)
{
	struct calibration_file file = { 0 };
	char table[4096];
	uint64_t at = 0;
	int used;

	used = snprintf(table, sizeof(table),
		"{\"__metadata__\":{\"format\":\"speckv-calibration\",\"version\":\"1\",\"rotary\":\"%s\"}",
		rotary);
	for (unsigned int i = 0; i < count; i++) {
		uint64_t bytes = calibration_tensor_bytes(&tensors[i]);

		used += snprintf(table + used, sizeof(table) - (size_t)used,
			",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensors[i].name, tensors[i].type);
		for (unsigned int d = 0; tensors[i].dims[d]; d++)
			used += snprintf(table + used, sizeof(table) - (size_t)used, "%s%llu",
				d ? "," : "", (unsigned long long)tensors[i].dims[d]);
		used += snprintf(table + used, sizeof(table) - (size_t)used,
			"],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
			(unsigned long long)(at + bytes));
		at += bytes;
	}
	used += snprintf(table + used, sizeof(table) - (size_t)used, "}");
	file.table = (uint64_t)used;
	file.length = 8 + file.table + at;
	file.bytes = malloc(file.length);
	if (!file.bytes)
		abort();
	calibration_put(file.bytes, file.table, 8);
	memcpy(file.bytes + 8, table, file.table);
	at = 8 + file.table;
	for (unsigned int i = 0; i < count; i++) {
		uint64_t bytes = calibration_tensor_bytes(&tensors[i]);

		memcpy(file.bytes + at, tensors[i].data, bytes);
		free(tensors[i].data);
		at += bytes;
	}
	return file;
}

/* Shares of 256 that fall by about `part` of 16 from symbol to symbol; small ones are none. */
static inline void random_frequencies(uint64_t *state, unsigned int part, uint8_t *to)
{
	unsigned int left = 256 - 1;

	memset(to, 0, 32);
	to[31] = 1;
	for (unsigned int s = 0; s < 31 && left; s++) {
		unsigned int share = left * (16 - part) / 16 + random_below(state, 2);

		share = share > left ? left : share;
		to[s] = (uint8_t)share;
		left -= share;
	}
	to[31] = (uint8_t)(to[31] + left);
}

/*
 * Rows are those of a Hadamard transform, each with a step of its own, and a little noise: neither
 * orthogonal nor quite an inverse.
 */
static inline void random_matrices(uint64_t *state, unsigned int head_dim, unsigned int most,
	uint8_t *synthesis, uint8_t *analysis)
{
	unsigned int slice = head_dim & -head_dim, slices;

	slice = slice > 128 ? 128 : slice;
	slices = head_dim / slice;
	for (unsigned int i = 0; i < most; i++) {
		unsigned int step = 600 + random_below(state, 3000),
			     back = (1u << (8 + E7C_VECTOR_SHIFT + E7C_VECTOR_DOWN)) /
			(slice * step);

		for (unsigned int c = 0; c < head_dim; c++) {
			int sign = c / slice != i % slices			 ? 0
				: __builtin_popcount(i / slices & c % slice) & 1 ? -1
										 : 1;
			int w = sign * (int)step + (int)random_below(state, 7) - 3,
			    a = sign * (int)back + (int)random_below(state, 3) - 1;

			calibration_put(synthesis + 2 * (i * head_dim + c), (uint64_t)(int64_t)w,
				2);
			calibration_put(analysis + 2 * (i * head_dim + c), (uint64_t)(int64_t)a, 2);
		}
	}
}

/* Free the bytes. shape->bits: coefficients of every head; 0: from few to all in turn. */
static inline struct calibration_file random_e7c_calibration(uint64_t *state,
	const struct calibration_shape *shape)
{
	uint64_t l = shape->layers, h = shape->kv_heads, d = shape->head_dim, heads = l * 2 * h,
		 most = shape->bits ? shape->bits : d;
	uint64_t coders = 1 + random_below(state, 6);
	struct calibration_tensor tensors[] = {
		{ "rotary.turns", "U64", { d / 2 }, 8, NULL },
		{ "e7c.synthesis", "I16", { l, 2, h, most, d }, 2, NULL },
		{ "e7c.analysis", "I16", { l, 2, h, most, d }, 2, NULL },
		{ "e7c.mean", "I16", { l, 2, h, d }, 2, NULL },
		{ "e7c.rank", "I16", { l, 2, h }, 2, NULL },
		{ "e7c.unit", "I8", { l, 2, h }, 1, NULL },
		{ "e7c.shift", "U8", { l, 2, h }, 1, NULL },
		{ "e7c.down", "U8", { l, 2, h, most }, 1, NULL },
		{ "e7c.rounding", "U8", { l, 2, h, most }, 1, NULL },
		{ "e7c.low", "U8", { l, 2, h, most }, 1, NULL },
		{ "e7c.table", "U8", { l, 2, h, most }, 1, NULL },
		{ "e7c.frequencies", "U8", { coders, 32 }, 1, NULL },
	};
	unsigned int first = strcmp(shape->rotary, "none") ? 0 : 1,
		     count = sizeof(tensors) / sizeof(tensors[0]);

	for (unsigned int i = first; i < count; i++) {
		tensors[i].data = calloc(1, calibration_tensor_bytes(&tensors[i]));
		if (!tensors[i].data)
			abort();
	}
	for (unsigned int i = 0; !first && i < d / 2; i++)
		calibration_put(tensors[0].data + 8 * (size_t)i,
			i ? random_next(state) >> i % 40 : UINT64_C(0x28be60db9391054a), 8);
	for (uint64_t i = 0; i < heads * d; i++)
		calibration_put(tensors[3].data + 2 * i, (uint64_t)random_below(state, 600) - 300,
			2);
	for (uint64_t head = 0; head < heads; head++) {
		uint64_t at = head * most;

		random_matrices(state, (unsigned int)d, (unsigned int)most,
			tensors[1].data + 2 * at * d, tensors[2].data + 2 * at * d);
		calibration_put(tensors[4].data + 2 * head,
			shape->bits ? most : 1 + (head * 37 + d - 9) % d, 2);
		tensors[5].data[head] = (uint8_t)(shape->unit + (int)(head % 3));
		tensors[6].data[head] = E7C_VECTOR_SHIFT;
		for (uint64_t i = at; i < at + most; i++) {
			tensors[7].data[i] = E7C_VECTOR_DOWN;
			tensors[8].data[i] = (uint8_t)(random_below(state, 4)
					? 80 + random_below(state, 48)
					: random_below(state, 256));
			tensors[9].data[i] =
				(uint8_t)(random_below(state, 8) ? 0 : random_below(state, 7));
			tensors[10].data[i] = (uint8_t)random_below(state, (uint32_t)coders);
		}
	}
	for (uint64_t i = 0; i < coders; i++)
		random_frequencies(state, 8 + random_below(state, 7), tensors[11].data + 32 * i);
	return calibration_of(shape->rotary, tensors + first, count - first);
}

#endif

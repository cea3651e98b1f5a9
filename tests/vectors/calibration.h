/* SPDX-License-Identifier: MIT */
/*
 * A valid calibration file made from a seed, as bytes, for tests and golden vectors, which depend
 * on every line of this.
 */
#ifndef SPECKV_VECTOR_CALIBRATION_H
#define SPECKV_VECTOR_CALIBRATION_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inputs.h"

struct calibration_shape {
	/* bits: of every head; 0: all widths in turn */
	unsigned int layers, kv_heads, head_dim, bits;
	const char *rotary; /* "none", "halves", "neighbours" */
	int unit; /* of the first head; the others near it */
};

struct calibration_file {
	uint8_t *bytes;
	uint64_t length, table; /* of the file, and of its JSON table behind the first 8 bytes */
};

static inline void calibration_put(uint8_t *at, uint64_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

/* Free the bytes. */
static inline struct calibration_file random_calibration(uint64_t *state,
	const struct calibration_shape *shape)
{
	uint64_t heads = (uint64_t)shape->layers * 2 * shape->kv_heads,
		 triangle = (uint64_t)shape->head_dim * (shape->head_dim - 1) / 2;
	uint64_t turns = strcmp(shape->rotary, "none") ? 4ull * shape->head_dim : 0, at = 0, size;
	uint64_t lengths[5] = { turns, 2 * heads * shape->head_dim, 2 * heads * triangle, heads,
		heads };
	struct calibration_file file = { 0 };
	char table[2048];
	uint8_t *to;
	int used;

	used = snprintf(table, sizeof(table),
		"{\"__metadata__\":{\"format\":\"speckv-calibration\",\"version\":\"1\",\"rotary\":\"%s\"}",
		shape->rotary);
	for (int i = turns ? 0 : 1; i < 5; i++) {
		static const char *const names[] = { "rotary.turns", "q5c.mean", "q5c.shaping",
			"q5c.bits", "q5c.unit" };
		static const char *const types[] = { "U64", "I16", "I16", "U8", "I8" };
		const uint64_t last[5] = { 0, shape->head_dim, triangle, 0, 0 };

		used += snprintf(table + used, sizeof(table) - (size_t)used,
			",\"%s\":{\"dtype\":\"%s\",\"shape\":[", names[i], types[i]);
		if (!i)
			used += snprintf(table + used, sizeof(table) - (size_t)used, "%u",
				shape->head_dim / 2);
		else
			used += snprintf(table + used, sizeof(table) - (size_t)used, "%u,2,%u",
				shape->layers, shape->kv_heads);
		if (last[i])
			used += snprintf(table + used, sizeof(table) - (size_t)used, ",%llu",
				(unsigned long long)last[i]);
		used += snprintf(table + used, sizeof(table) - (size_t)used,
			"],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
			(unsigned long long)(at + lengths[i]));
		at += lengths[i];
	}
	used += snprintf(table + used, sizeof(table) - (size_t)used, "}");
	file.table = (uint64_t)used;
	file.length = 8 + file.table + at;
	file.bytes = malloc(file.length);
	if (!file.bytes)
		abort();
	calibration_put(file.bytes, file.table, 8);
	memcpy(file.bytes + 8, table, file.table);
	to = file.bytes + 8 + file.table;
	for (unsigned int i = 0; i < turns / 8; i++, to += 8)
		calibration_put(to, i ? random_next(state) >> i % 40 : UINT64_C(0x28be60db9391054a),
			8);
	for (uint64_t i = 0; i < heads * shape->head_dim; i++, to += 2)
		calibration_put(to, (uint64_t)random_below(state, 1200) - 600, 2);
	for (uint64_t head = 0; head < heads; head++)
		for (unsigned int row = 1; row < shape->head_dim; row++)
			for (unsigned int c = 0; c < row; c++, to += 2)
				calibration_put(to, (uint64_t)random_below(state, 49) - 24, 2);
	for (uint64_t head = 0; head < heads; head++)
		*to++ = (uint8_t)(shape->bits ? shape->bits : 1 + head % 5);
	for (uint64_t head = 0; head < heads; head++)
		*to++ = (uint8_t)(shape->unit + (int)(head % 3));
	size = (uint64_t)(to - file.bytes);
	if (size != file.length)
		abort();
	return file;
}

#endif

// SPDX-License-Identifier: MIT
/*
 * The tables of mode e7c in a calibration file, validated number by number. Defined by FORMAT.md
 * 7.1 and 9.1.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "calibration.h"

void calibration_free_e7c(struct calibration_e7c *tables)
{
	free(tables->rank);
	free(tables->unit);
	free(tables->shift);
	free(tables->mean);
	free(tables->synthesis);
	free(tables->analysis);
	free(tables->down);
	free(tables->rounding);
	free(tables->low);
	free(tables->which);
	free(tables->coders);
}

static struct e7c_tables tables_of(const struct speckv_calibration *c, uint64_t head)
{
	const struct calibration_e7c *e = &c->e7c;
	uint64_t at = head * e->stride;

	return (struct e7c_tables){
		.rank = e->rank[head],
		.stride = e->stride,
		.shift = e->shift[head],
		.unit = e->unit[head],
		.mean = e->mean + head * c->head_dim,
		.synthesis = e->synthesis + at * c->head_dim,
		.analysis = e->analysis + at * c->head_dim,
		.down = e->down + at,
		.rounding = e->rounding + at,
		.low = e->low + at,
		.which = e->which + at,
		.coders = e->coders,
	};
}

static int load_coders(struct calibration_e7c *to, const struct tensor *frequencies)
{
	to->coders = calloc(frequencies->shape[0], sizeof(*to->coders));
	if (!to->coders)
		return -ENOMEM;
	/* Every table can code an escape, and so any level. */
	for (uint64_t i = 0; i < frequencies->shape[0]; i++)
		if (!codec_range_table(frequencies->data + i * RANGE_SYMBOLS, &to->coders[i]) ||
			!to->coders[i].frequency[RANGE_ESCAPE])
			return -EBADMSG;
	return 0;
}

static int32_t magnitude(int32_t x)
{
	return x < 0 ? -x : x;
}

/* Bound all sums of the codec to 32 bits. */
static bool sums_valid(const struct e7c_tables *t, unsigned int head_dim)
{
	for (unsigned int c = 0; c < head_dim; c++) {
		int32_t sum = 0;

		for (unsigned int i = 0; i < t->rank; i++)
			sum += magnitude(t->synthesis[c * t->stride + i]);
		if (sum > E7C_COLUMN_MAX)
			return false;
	}
	for (unsigned int i = 0; i < t->rank; i++) {
		int32_t sum = 0;

		for (unsigned int c = 0; c < head_dim; c++)
			sum += magnitude(t->analysis[i * head_dim + c]);
		if (sum > E7C_ROW_MAX)
			return false;
	}
	return true;
}

/*
 * Does the analysis invert the synthesis? Tried with a level of 1 or -1 in every coefficient, in
 * nine sign patterns that distinguish any two coefficients: each must be within half a step.
 */
static bool inverse_valid(const struct e7c_tables *t, unsigned int head_dim)
{
	for (unsigned int pattern = 0; pattern < 256; pattern = pattern ? 2 * pattern : 1) {
		int32_t token[CODEC_HEAD_DIM_MAX];

		for (unsigned int c = 0; c < head_dim; c++) {
			token[c] = 0;
			for (unsigned int i = 0; i < t->rank; i++)
				token[c] += i & pattern ? -t->synthesis[c * t->stride + i]
							: t->synthesis[c * t->stride + i];
		}
		for (unsigned int i = 0; i < t->rank; i++) {
			int64_t found = 0,
				step = INT64_C(1) << (E7C_FRACTION_BITS + t->shift + t->down[i]),
				wanted = i & pattern ? -step : step;

			for (unsigned int c = 0; c < head_dim; c++)
				found += (int64_t)t->analysis[i * head_dim + c] * token[c];
			if (found - wanted > step / 2 || wanted - found > step / 2)
				return false;
		}
	}
	return true;
}

static bool coefficients_valid(const struct e7c_tables *t, uint64_t coders)
{
	for (unsigned int i = 0; i < t->rank; i++)
		if (t->down[i] < 1 || t->down[i] > E7C_DOWN_MAX || t->low[i] > E7C_LOW_MAX ||
			t->which[i] >= coders)
			return false;
	return true;
}

/* Copy the coefficients in use of a head; the file has `most`. */
static void copy_coefficients(struct calibration_e7c *to, const struct tensor *wanted,
	uint64_t head, uint64_t most, unsigned int head_dim)
{
	const uint8_t *synthesis = wanted[E7C_SYNTHESIS].data + 2 * head * most * head_dim;
	const uint8_t *analysis = wanted[E7C_ANALYSIS].data + 2 * head * most * head_dim;
	uint64_t at = head * to->stride;

	for (unsigned int i = 0; i < to->rank[head]; i++) {
		to->down[at + i] = wanted[E7C_DOWN].data[head * most + i];
		to->rounding[at + i] = wanted[E7C_ROUNDING].data[head * most + i];
		to->low[at + i] = wanted[E7C_LOW].data[head * most + i];
		to->which[at + i] = wanted[E7C_TABLE].data[head * most + i];
		for (unsigned int c = 0; c < head_dim; c++) {
			uint64_t from = 2 * ((uint64_t)i * head_dim + c);

			to->analysis[at * head_dim + (uint64_t)i * head_dim + c] =
				(int16_t)codec_get16(analysis + from);
			to->synthesis[at * head_dim + (uint64_t)c * to->stride + i] =
				(int16_t)codec_get16(synthesis + from);
		}
	}
}

int calibration_load_e7c(struct speckv_calibration *c, const struct tensor *wanted)
{
	uint64_t heads = (uint64_t)c->layers * 2 * c->kv_heads, most = wanted[E7C_TABLE].shape[3],
		 all;
	const uint64_t mean[4] = { c->layers, 2, c->kv_heads, c->head_dim },
		       matrix[5] = { c->layers, 2, c->kv_heads, most, c->head_dim };
	struct calibration_e7c *to = &c->e7c;
	int rc;

	for (int i = E7C_RANK; i <= E7C_SHIFT; i++)
		if (!calibration_shape_is(&wanted[i], 3, mean))
			return -EBADMSG;
	for (int i = E7C_DOWN; i <= E7C_TABLE; i++)
		if (!calibration_shape_is(&wanted[i], 4, matrix))
			return -EBADMSG;
	if (!calibration_shape_is(&wanted[E7C_MEAN], 4, mean) ||
		!calibration_shape_is(&wanted[E7C_SYNTHESIS], 5, matrix) ||
		!calibration_shape_is(&wanted[E7C_ANALYSIS], 5, matrix) || most > c->head_dim ||
		!wanted[E7C_FREQUENCIES].found || wanted[E7C_FREQUENCIES].dimensions != 2 ||
		wanted[E7C_FREQUENCIES].shape[0] > E7C_CODERS_MAX ||
		wanted[E7C_FREQUENCIES].shape[1] != RANGE_SYMBOLS)
		return -EBADMSG;
	to->stride = e7c_padded((unsigned int)most);
	all = heads * to->stride;
	to->rank = malloc(heads * sizeof(*to->rank));
	to->unit = malloc(heads);
	to->shift = malloc(heads);
	to->mean = calibration_words(&wanted[E7C_MEAN], heads, c->head_dim);
	to->synthesis = calloc(all * c->head_dim, sizeof(*to->synthesis));
	to->analysis = calloc(all * c->head_dim, sizeof(*to->analysis));
	to->down = calloc(all, 1);
	to->rounding = calloc(all, 1);
	to->low = calloc(all, 1);
	to->which = calloc(all, 1);
	if (!to->rank || !to->unit || !to->shift || !to->mean || !to->synthesis || !to->analysis ||
		!to->down || !to->rounding || !to->low || !to->which)
		return -ENOMEM;
	rc = load_coders(to, &wanted[E7C_FREQUENCIES]);
	if (rc)
		return rc;
	memcpy(to->unit, wanted[E7C_UNIT].data, heads);
	memcpy(to->shift, wanted[E7C_SHIFT].data, heads);
	for (uint64_t head = 0; head < heads; head++) {
		struct e7c_tables t;

		to->rank[head] = codec_get16(wanted[E7C_RANK].data + 2 * head);
		if (to->rank[head] < 1 || to->rank[head] > most ||
			to->unit[head] < CODEC_UNIT_MIN || to->unit[head] > CODEC_UNIT_MAX ||
			to->shift[head] < 1 || to->shift[head] > E7C_SHIFT_MAX ||
			!calibration_mean_valid(to->mean + head * c->head_dim, c->head_dim))
			return -EBADMSG;
		copy_coefficients(to, wanted, head, most, c->head_dim);
		t = tables_of(c, head);
		if (!coefficients_valid(&t, wanted[E7C_FREQUENCIES].shape[0]) ||
			!sums_valid(&t, c->head_dim) || !inverse_valid(&t, c->head_dim))
			return -EBADMSG;
	}
	return 0;
}

void calibration_e7c_tables(const struct speckv_calibration *calibration, uint32_t parameter,
	enum codec_tensor tensor, unsigned int head, struct e7c_tables *out)
{
	*out = tables_of(calibration,
		((parameter & CALIBRATION_LAYER) * 2 + (uint64_t)tensor) * calibration->kv_heads +
			(parameter >> 16) + head);
}

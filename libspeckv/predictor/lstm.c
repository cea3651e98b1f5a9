// SPDX-License-Identifier: MIT
/* One step of a quantised LSTM with a survival head, bit-exact as speckv/predictor.h defines it. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>
#include <speckv/predictor.h>

#include "predictor/cells.h"
#include "predictor/kernels.h"
#include "predictor/model.h"

#define LAYERS SPECKV_PREDICTOR_LAYERS
#define HIDDEN SPECKV_PREDICTOR_HIDDEN
#define ROWS (4 * HIDDEN)
#define CRC_OFFSET 60
#define SCALE_MAX (1 << 24)
#define BIAS_MAX (1 << 20)
#define EDGE_MAX 0x80000000u

/* Rows of weights, and the scales that convert their sums to units of 2^-12. */
struct rows {
	uint32_t rows; /* padded, as are the columns */
	uint32_t columns;
	void *weights; /* packed by the kernels */
	int32_t offsets[ROWS];
	int32_t scale[ROWS];
};

struct layer {
	struct rows input;
	struct rows recurrent;
	int32_t bias[ROWS];
};

struct speckv_predictor {
	uint32_t features;
	uint32_t bins;
	uint32_t window_ms;
	uint32_t edges_ms[SPECKV_PREDICTOR_BINS_MAX + 1];
	struct layer layers[LAYERS];
	struct rows head;
	int32_t head_bias[SPECKV_PREDICTOR_BINS_MAX];
	const struct predictor_kernels *kernels;
};

/* ---- loading -------------------------------------------------------------------------------- */

/* Remaining bytes; the total length was checked before. */
struct cursor {
	const uint8_t *at;
	bool bad;
};

static uint32_t le16(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p)
{
	return le16(p) | le16(p + 2) << 16;
}

static uint32_t round_up(uint32_t n, uint32_t to)
{
	return (n + to - 1) / to * to;
}

static int32_t take_i32(struct cursor *in, int32_t low, int32_t high)
{
	int32_t value = (int32_t)le32(in->at);

	in->at += 4;
	if (value < low || value > high)
		in->bad = true;
	return value;
}

static int take_weights(struct cursor *in, const struct predictor_kernels *kernels,
	struct rows *out, uint32_t rows, uint32_t columns)
{
	int8_t *padded;

	out->rows = round_up(rows, PREDICTOR_ROWS);
	out->columns = round_up(columns, PREDICTOR_COLUMNS);
	out->weights = aligned_alloc(64, (size_t)out->rows * out->columns * kernels->weight_bytes);
	padded = calloc(out->rows, out->columns);
	if (!out->weights || !padded) {
		free(padded);
		return -ENOMEM;
	}
	for (uint32_t r = 0; r < rows; r++, in->at += columns)
		memcpy(padded + (size_t)r * out->columns, in->at, columns);
	kernels->pack(padded, out->rows, out->columns, out->weights, out->offsets);
	free(padded);
	return 0;
}

static void take_i32s(struct cursor *in, int32_t *out, uint32_t n, int32_t low, int32_t high)
{
	for (uint32_t i = 0; i < n; i++)
		out[i] = take_i32(in, low, high);
}

static uint64_t expected_bytes(uint32_t features, uint32_t bins)
{
	uint64_t bytes = SPECKV_PREDICTOR_HEADER_BYTES + 4 * (uint64_t)(bins + 1) +
		(uint64_t)bins * (HIDDEN + 8);

	for (uint32_t layer = 0; layer < LAYERS; layer++)
		bytes += (uint64_t)ROWS * ((layer ? HIDDEN : features) + HIDDEN + 12);
	return bytes;
}

static int take_all(struct speckv_predictor *model, struct cursor *in)
{
	int rc;

	for (uint32_t i = 0; i <= model->bins; i++, in->at += 4) {
		model->edges_ms[i] = le32(in->at);
		if (i ? model->edges_ms[i] <= model->edges_ms[i - 1] : model->edges_ms[i] != 0)
			in->bad = true;
		if (model->edges_ms[i] > EDGE_MAX)
			in->bad = true;
	}
	for (uint32_t l = 0; l < LAYERS; l++) {
		struct layer *layer = &model->layers[l];

		rc = take_weights(in, model->kernels, &layer->input, ROWS,
			l ? HIDDEN : model->features);
		if (!rc)
			rc = take_weights(in, model->kernels, &layer->recurrent, ROWS, HIDDEN);
		if (rc)
			return rc;
		take_i32s(in, layer->input.scale, ROWS, 0, SCALE_MAX);
		take_i32s(in, layer->recurrent.scale, ROWS, 0, SCALE_MAX);
		take_i32s(in, layer->bias, ROWS, -BIAS_MAX, BIAS_MAX);
	}
	rc = take_weights(in, model->kernels, &model->head, model->bins, HIDDEN);
	if (rc)
		return rc;
	take_i32s(in, model->head.scale, model->bins, 0, SCALE_MAX);
	take_i32s(in, model->head_bias, model->bins, -BIAS_MAX, BIAS_MAX);
	return in->bad ? -EBADMSG : 0;
}

static const struct predictor_kernels *best_kernels(void)
{
#if defined(__x86_64__)
	static const struct predictor_kernels *const variants[] = {
		&predictor_kernels_sse42,
		&predictor_kernels_avx2,
		&predictor_kernels_avx512,
	};
	/* shared with the codec, so that speckv_isa_force() applies to both */
	const char *isa = speckv_isa_name();

	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
		if (!strcmp(variants[i]->isa, isa))
			return variants[i];
#endif
	return &predictor_kernels_portable;
}

int speckv_predictor_load(const void *bytes, size_t n, struct speckv_predictor **out)
{
	const uint8_t *header = bytes;
	struct speckv_predictor *model;
	uint32_t features, bins;
	struct cursor in;
	int rc;

	if (!bytes || !out)
		return -EINVAL;
	if (n < SPECKV_PREDICTOR_HEADER_BYTES || memcmp(header, "SPECKVP", 8))
		return -EBADMSG;
	if (le32(header + 8) != SPECKV_PREDICTOR_VERSION)
		return -EPROTONOSUPPORT;
	if (le32(header + 12) != n)
		return -EBADMSG;
	if (speckv_crc32c(speckv_crc32c(0, header, CRC_OFFSET),
		    header + SPECKV_PREDICTOR_HEADER_BYTES,
		    n - SPECKV_PREDICTOR_HEADER_BYTES) != le32(header + CRC_OFFSET))
		return -EBADMSG;
	for (uint32_t i = 24; i < CRC_OFFSET; i++)
		if (header[i])
			return -EBADMSG;
	features = le16(header + 16);
	bins = le16(header + 22);
	if (le16(header + 18) != LAYERS || le16(header + 20) != HIDDEN || features < 1 ||
		bins < 1 || features > SPECKV_PREDICTOR_FEATURES_MAX ||
		bins > SPECKV_PREDICTOR_BINS_MAX)
		return -EOPNOTSUPP;
	if (expected_bytes(features, bins) != n)
		return -EBADMSG;

	model = calloc(1, sizeof(*model));
	if (!model)
		return -ENOMEM;
	model->features = features;
	model->bins = bins;
	model->window_ms = SPECKV_PREDICTOR_WINDOW_MS;
	model->kernels = best_kernels();
	in = (struct cursor){ .at = header + SPECKV_PREDICTOR_HEADER_BYTES };
	rc = take_all(model, &in);
	if (rc) {
		speckv_predictor_destroy(model);
		return rc;
	}
	*out = model;
	return 0;
}

void speckv_predictor_destroy(struct speckv_predictor *model)
{
	if (!model)
		return;
	for (uint32_t l = 0; l < LAYERS; l++) {
		free(model->layers[l].input.weights);
		free(model->layers[l].recurrent.weights);
	}
	free(model->head.weights);
	free(model);
}

uint32_t speckv_predictor_features(const struct speckv_predictor *model)
{
	return model->features;
}

uint32_t speckv_predictor_bins(const struct speckv_predictor *model)
{
	return model->bins;
}

const uint32_t *speckv_predictor_edges_ms(const struct speckv_predictor *model)
{
	return model->edges_ms;
}

uint32_t speckv_predictor_window_ms(const struct speckv_predictor *model)
{
	return model->window_ms;
}

void predictor_set_window(struct speckv_predictor *model, uint32_t window_ms)
{
	model->window_ms = window_ms;
}

/* ---- arithmetic ----------------------------------------------------------------------------- */

static void multiply(const struct speckv_predictor *model, const struct rows *rows,
	const int8_t *vector, int32_t *sums)
{
	model->kernels->matvec(rows->weights, rows->offsets, rows->rows, rows->columns, vector,
		sums);
}

static void step_layer(const struct speckv_predictor *model, const struct layer *layer,
	const int8_t *input, int16_t *cell, int8_t *hidden)
{
	int32_t from_input[ROWS], from_hidden[ROWS], gates[ROWS];

	multiply(model, &layer->input, input, from_input);
	multiply(model, &layer->recurrent, hidden, from_hidden);
	model->kernels->gates(from_input, layer->input.scale, from_hidden, layer->recurrent.scale,
		layer->bias, gates);
	model->kernels->cells(gates, cell, hidden);
}

int speckv_predictor_curve(const struct speckv_predictor *model,
	const struct speckv_predictor_state *state, uint32_t *survival)
{
	int32_t sums[SPECKV_PREDICTOR_BINS_MAX];
	uint64_t left = SPECKV_PREDICTOR_ONE;

	if (!model || !state || !survival)
		return -EINVAL;
	multiply(model, &model->head, state->h[LAYERS - 1], sums);
	survival[0] = (uint32_t)left;
	for (uint32_t bin = 0; bin < model->bins; bin++) {
		int32_t logit = scaled_sum((int64_t)sums[bin] * model->head.scale[bin],
			model->head_bias[bin]);
		uint64_t stays = (1 << 24) - (uint32_t)sigmoid24(logit);

		left = (left * stays + (1 << 23)) >> 24;
		survival[bin + 1] = (uint32_t)left;
	}
	return 0;
}

int speckv_predictor_step(const struct speckv_predictor *model,
	const struct speckv_predictor_state *before, const int8_t *features,
	struct speckv_predictor_state *after, uint32_t *survival)
{
	int8_t input[SPECKV_PREDICTOR_FEATURES_MAX] = { 0 };

	if (!model || !features || !after)
		return -EINVAL;
	if (!before)
		memset(after, 0, sizeof(*after));
	else if (before != after)
		*after = *before;
	memcpy(input, features, model->features);
	for (uint32_t l = 0; l < LAYERS; l++)
		step_layer(model, &model->layers[l], l ? after->h[l - 1] : input, after->c[l],
			after->h[l]);
	return survival ? speckv_predictor_curve(model, after, survival) : 0;
}

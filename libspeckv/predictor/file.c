// SPDX-License-Identifier: MIT
/*
 * Model files: safetensors as written by train-prefetcher, converted to the flat form that lstm.c
 * loads. Everything is validated before use.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>
#include <speckv/predictor.h>

#include "codec/safetensors.h"
#include "predictor/model.h"

/* a header of the format's maximum size, and room for any model */
#define FILE_MOST (UINT64_C(128) << 20)
#define ROWS (4 * SPECKV_PREDICTOR_HIDDEN)
#define HIDDEN SPECKV_PREDICTOR_HIDDEN
#define FEATURES 0xfffe /* placeholders: dimensions that the file chooses */
#define BINS 0xffff
#define EDGES 0xfffd /* one more than the bins */

struct wanted {
	const char *name, *dtype;
	uint32_t shape[2]; /* 0: no second dimension */
};

/* In the order of the flat form. */
static const struct wanted tensors[] = {
	{ "edges_ms", "U32", { EDGES } },
	{ "layers.0.input", "I8", { ROWS, FEATURES } },
	{ "layers.0.recurrent", "I8", { ROWS, HIDDEN } },
	{ "layers.0.input_scale", "I32", { ROWS } },
	{ "layers.0.recurrent_scale", "I32", { ROWS } },
	{ "layers.0.bias", "I32", { ROWS } },
	{ "layers.1.input", "I8", { ROWS, HIDDEN } },
	{ "layers.1.recurrent", "I8", { ROWS, HIDDEN } },
	{ "layers.1.input_scale", "I32", { ROWS } },
	{ "layers.1.recurrent_scale", "I32", { ROWS } },
	{ "layers.1.bias", "I32", { ROWS } },
	{ "head", "I8", { BINS, HIDDEN } },
	{ "head_scale", "I32", { BINS } },
	{ "head_bias", "I32", { BINS } },
};

#define TENSORS (sizeof(tensors) / sizeof(tensors[0]))

/* ---- validation ----------------------------------------------------------------------------- */

static uint64_t dimension(uint32_t wanted, uint64_t features, uint64_t bins)
{
	switch (wanted) {
	case FEATURES:
		return features;
	case BINS:
		return bins;
	case EDGES:
		return bins + 1;
	default:
		return wanted;
	}
}

/* Check that exactly these tensors exist, with their types and shapes. */
static int check_tensors(const struct safetensors *file, const struct safetensors_tensor **found,
	uint64_t *features, uint64_t *bins)
{
	for (size_t i = 0; i < TENSORS; i++) {
		found[i] = safetensors_find(file, tensors[i].name);
		if (!found[i] || strcmp(found[i]->dtype, tensors[i].dtype) != 0 ||
			found[i]->dimensions != (tensors[i].shape[1] ? 2u : 1u))
			return -EOPNOTSUPP;
	}
	*features = found[1]->shape[1];
	*bins = found[11]->shape[0];
	if (file->count != TENSORS || *features > SPECKV_PREDICTOR_FEATURES_MAX ||
		*bins > SPECKV_PREDICTOR_BINS_MAX)
		return -EOPNOTSUPP;
	for (size_t i = 0; i < TENSORS; i++)
		for (unsigned int d = 0; d < found[i]->dimensions; d++)
			if (found[i]->shape[d] != dimension(tensors[i].shape[d], *features, *bins))
				return -EOPNOTSUPP;
	return 0;
}

static int check_metadata(const struct safetensors *file, uint32_t *window_ms)
{
	struct text window = safetensors_about(file, "window_ms");
	uint64_t value = 0;

	if (!text_is(safetensors_about(file, "format"), "speckv-return-model"))
		return -EOPNOTSUPP;
	if (!text_is(safetensors_about(file, "version"), "0"))
		return -EPROTONOSUPPORT;
	if (!window.at || !window.length || window.length > 10)
		return -EBADMSG;
	for (size_t i = 0; i < window.length; i++) {
		if (window.at[i] < '0' || window.at[i] > '9')
			return -EBADMSG;
		value = value * 10 + (uint64_t)(window.at[i] - '0');
	}
	if (!value || value > (uint64_t)1 << 31)
		return -EBADMSG;
	*window_ms = (uint32_t)value;
	return 0;
}

static void put16(uint8_t *at, uint64_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint64_t value)
{
	put16(at, value);
	put16(at + 2, value >> 16);
}

static int load_flat(const struct safetensors *file, const struct safetensors_tensor *const *found,
	uint64_t features, uint64_t bins, struct speckv_predictor **out)
{
	size_t n = SPECKV_PREDICTOR_HEADER_BYTES + (size_t)file->data_bytes,
	       at = SPECKV_PREDICTOR_HEADER_BYTES;
	uint8_t *flat = calloc(1, n);
	uint32_t crc;
	int rc;

	if (!flat)
		return -ENOMEM;
	for (size_t i = 0; i < TENSORS; i++) {
		size_t bytes = (size_t)(found[i]->end - found[i]->begin);

		memcpy(flat + at, file->data + found[i]->begin, bytes);
		at += bytes;
	}
	memcpy(flat, "SPECKVP", 8);
	put32(flat + 8, SPECKV_PREDICTOR_VERSION);
	put32(flat + 12, n);
	put16(flat + 16, features);
	put16(flat + 18, SPECKV_PREDICTOR_LAYERS);
	put16(flat + 20, HIDDEN);
	put16(flat + 22, bins);
	crc = speckv_crc32c(0, flat, 60);
	put32(flat + 60, speckv_crc32c(crc, flat + 64, n - 64));
	rc = speckv_predictor_load(flat, n, out);
	free(flat);
	return rc;
}

int speckv_predictor_parse(const void *file, size_t n, struct speckv_predictor **out)
{
	const struct safetensors_tensor *found[TENSORS];
	struct safetensors table;
	uint64_t features, bins;
	uint32_t window_ms;
	int rc;

	if (!file || !out)
		return -EINVAL;
	if (n > FILE_MOST)
		return -EFBIG;
	rc = safetensors_open(file, n, &table);
	if (!rc)
		rc = check_metadata(&table, &window_ms);
	if (!rc)
		rc = check_tensors(&table, found, &features, &bins);
	if (!rc)
		rc = load_flat(&table, found, features, bins, out);
	safetensors_close(&table);
	if (!rc)
		predictor_set_window(*out, window_ms);
	return rc;
}

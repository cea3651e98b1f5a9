// SPDX-License-Identifier: MIT
/*
 * Calibration files: safetensors, read once, validated number by number and copied into tables of
 * known size. Defined by FORMAT.md section 7. The file is untrusted, and no reference to it is
 * kept.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "calibration.h"
#include "kernels.h"

#define FILE_MOST (UINT64_C(1) << 30)
#define LAYERS_MOST 32767
#define HEADS_MOST 65535

/* ---- tables --------------------------------------------------------------------------------- */

/* Index of each mode's first tensor in the list of all tensors. */
enum { TURNS = 0, Q5C = 1, E7C = Q5C + Q5C_TENSORS, TENSORS = E7C + E7C_TENSORS };

bool calibration_shape_is(const struct tensor *t, unsigned int dimensions, const uint64_t *shape)
{
	return t->found && t->dimensions == dimensions &&
		!memcmp(t->shape, shape, dimensions * sizeof(shape[0]));
}

int16_t *calibration_words(const struct tensor *t, uint64_t rows, uint64_t row_words)
{
	int16_t *out = reallocarray(NULL, rows, row_words * sizeof(*out)); /* checks the product */
	uint64_t at = 0;

	for (uint64_t row = 0; out && row < rows; row++)
		for (uint64_t i = 0; i < row_words; i++, at++)
			out[at] = (int16_t)codec_get16(t->data + 2 * at);
	return out;
}

bool calibration_mean_valid(const int16_t *mean, unsigned int head_dim)
{
	for (unsigned int c = 0; c < head_dim; c++)
		if (mean[c] > CODEC_INPUT_MAX || mean[c] < -CODEC_INPUT_MAX)
			return false;
	return true;
}

static bool shaping_valid(const int16_t *shaping, unsigned int head_dim)
{
	for (unsigned int row = 1; row < head_dim; row++) {
		uint32_t sum = 0;

		for (unsigned int c = 0; c < row; c++, shaping++)
			sum += (uint32_t)(*shaping < 0 ? -*shaping : *shaping);
		if (sum > Q5C_SHAPING_MAX)
			return false;
	}
	return true;
}

static int load_q5c(struct speckv_calibration *c, const struct tensor *wanted)
{
	uint64_t heads = (uint64_t)c->layers * 2 * c->kv_heads;
	uint64_t triangle = (uint64_t)c->head_dim * (c->head_dim - 1) / 2;

	const uint64_t mean[4] = { c->layers, 2, c->kv_heads, c->head_dim },
		       shaping[4] = { c->layers, 2, c->kv_heads, triangle };

	if (!calibration_shape_is(&wanted[Q5C_BITS], 3, mean) ||
		!calibration_shape_is(&wanted[Q5C_UNIT], 3, mean) ||
		!calibration_shape_is(&wanted[Q5C_MEAN], 4, mean) ||
		!calibration_shape_is(&wanted[Q5C_SHAPING], 4, shaping))
		return -EBADMSG;
	c->q5c.bits = malloc(heads);
	c->q5c.unit = malloc(heads);
	c->q5c.mean = calibration_words(&wanted[Q5C_MEAN], heads, c->head_dim);
	c->q5c.shaping = calibration_words(&wanted[Q5C_SHAPING], heads, triangle);
	if (!c->q5c.bits || !c->q5c.unit || !c->q5c.mean || !c->q5c.shaping)
		return -ENOMEM;
	memcpy(c->q5c.bits, wanted[Q5C_BITS].data, heads);
	memcpy(c->q5c.unit, wanted[Q5C_UNIT].data, heads);
	for (uint64_t i = 0; i < heads; i++)
		if (c->q5c.bits[i] < 1 || c->q5c.bits[i] > Q5C_BITS_MAX ||
			c->q5c.unit[i] < CODEC_UNIT_MIN || c->q5c.unit[i] > CODEC_UNIT_MAX ||
			!calibration_mean_valid(c->q5c.mean + i * c->head_dim, c->head_dim) ||
			!shaping_valid(c->q5c.shaping + i * triangle, c->head_dim))
			return -EBADMSG;
	return 0;
}

static int load_rotary(struct speckv_calibration *c, struct text kind, const struct tensor *turns)
{
	unsigned int pairs = c->head_dim / 2;

	if (text_is(kind, "none")) {
		c->rotary = ROTARY_NONE;
		return turns->found ? -EBADMSG : 0;
	}
	if (text_is(kind, "halves"))
		c->rotary = ROTARY_HALVES;
	else if (text_is(kind, "neighbours"))
		c->rotary = ROTARY_NEIGHBOURS;
	else
		return -EOPNOTSUPP;
	if (!turns->found || turns->dimensions != 1 || turns->shape[0] != pairs)
		return -EBADMSG;
	c->turns = malloc(pairs * sizeof(*c->turns));
	c->steps = malloc(pairs * sizeof(*c->steps));
	if (!c->turns || !c->steps)
		return -ENOMEM;
	for (unsigned int pair = 0; pair < pairs; pair++) {
		c->turns[pair] = codec_get64(turns->data + 8 * pair);
		for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
			struct rotary_angle angle = rotary_angle(t * c->turns[pair]);

			c->steps[pair].cosine[t] = angle.cosine;
			c->steps[pair].sine[t] = angle.sine;
		}
	}
	return 0;
}

static bool any_found(const struct tensor *wanted, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (wanted[i].found)
			return true;
	return false;
}

/*
 * Match the file against `wanted`, which ends with a NULL name: a calibration has no other tensors,
 * and no empty ones.
 */
static int collect(const struct safetensors *file, struct tensor *wanted)
{
	size_t found = 0;

	for (struct tensor *to = wanted; to->name; to++) {
		const struct safetensors_tensor *t = safetensors_find(file, to->name);

		if (!t)
			continue;
		if (strcmp(t->dtype, to->dtype) != 0 || t->dimensions > SAFETENSORS_DIMENSIONS ||
			!t->elements)
			return -EBADMSG;
		memcpy(to->shape, t->shape, sizeof(to->shape));
		to->dimensions = (unsigned int)t->dimensions;
		to->data = file->data + t->begin;
		to->found = true;
		found++;
	}
	return found == file->count ? 0 : -EBADMSG;
}

static int load_tables(const struct safetensors *file, struct speckv_calibration *c)
{
	struct tensor wanted[TENSORS + 1] = {
		[TURNS] = { .name = "rotary.turns", .dtype = "U64" },
		[Q5C + Q5C_BITS] = { .name = "q5c.bits", .dtype = "U8" },
		[Q5C + Q5C_UNIT] = { .name = "q5c.unit", .dtype = "I8" },
		[Q5C + Q5C_MEAN] = { .name = "q5c.mean", .dtype = "I16" },
		[Q5C + Q5C_SHAPING] = { .name = "q5c.shaping", .dtype = "I16" },
		[E7C + E7C_RANK] = { .name = "e7c.rank", .dtype = "I16" },
		[E7C + E7C_UNIT] = { .name = "e7c.unit", .dtype = "I8" },
		[E7C + E7C_SHIFT] = { .name = "e7c.shift", .dtype = "U8" },
		[E7C + E7C_MEAN] = { .name = "e7c.mean", .dtype = "I16" },
		[E7C + E7C_SYNTHESIS] = { .name = "e7c.synthesis", .dtype = "I16" },
		[E7C + E7C_ANALYSIS] = { .name = "e7c.analysis", .dtype = "I16" },
		[E7C + E7C_DOWN] = { .name = "e7c.down", .dtype = "U8" },
		[E7C + E7C_ROUNDING] = { .name = "e7c.rounding", .dtype = "U8" },
		[E7C + E7C_LOW] = { .name = "e7c.low", .dtype = "U8" },
		[E7C + E7C_TABLE] = { .name = "e7c.table", .dtype = "U8" },
		[E7C + E7C_FREQUENCIES] = { .name = "e7c.frequencies", .dtype = "U8" },
	};
	const struct tensor *mean;
	int rc = collect(file, wanted);

	if (rc || !text_is(safetensors_about(file, "format"), "speckv-calibration"))
		return -EBADMSG;
	if (!text_is(safetensors_about(file, "version"), "1"))
		return -EOPNOTSUPP;
	c->has_q5c = any_found(wanted + Q5C, Q5C_TENSORS);
	c->has_e7c = any_found(wanted + E7C, E7C_TENSORS);
	/*
	 * The shape of a mode's mean gives layers, heads and head size; the other tensors are
	 * checked against it.
	 */
	mean = &wanted[c->has_q5c ? (int)Q5C + Q5C_MEAN : (int)E7C + E7C_MEAN];
	if (!mean->found || mean->dimensions != 4 || mean->shape[0] > LAYERS_MOST ||
		mean->shape[1] != 2 || mean->shape[2] > HEADS_MOST ||
		mean->shape[3] > CODEC_HEAD_DIM_MAX ||
		!codec_head_dim_lossy((unsigned int)mean->shape[3]))
		return -EBADMSG;
	c->layers = (unsigned int)mean->shape[0];
	c->kv_heads = (unsigned int)mean->shape[2];
	c->head_dim = (unsigned int)mean->shape[3];
	rc = load_rotary(c, safetensors_about(file, "rotary"), &wanted[TURNS]);
	if (!rc && c->has_q5c)
		rc = load_q5c(c, wanted + Q5C);
	if (!rc && c->has_e7c)
		rc = calibration_load_e7c(c, wanted + E7C);
	return rc;
}

static int load_file(const uint8_t *file, uint64_t bytes, struct speckv_calibration *c)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	struct safetensors table;
	int rc = safetensors_open(file, bytes, &table);

	if (!rc)
		rc = load_tables(&table, c);
	safetensors_close(&table);
	if (rc)
		return rc;
	if (EVP_Digest(file, bytes, digest, NULL, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	memcpy(c->digest, digest, sizeof(c->digest));
	return 0;
}

int speckv_calibration_load(const void *file, uint64_t bytes, struct speckv_calibration **out)
{
	struct speckv_calibration *c;
	int rc;

	if (!file || !out)
		return -EINVAL;
	if (bytes > FILE_MOST)
		return -EFBIG;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	rc = load_file(file, bytes, c);
	if (rc) {
		speckv_calibration_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

void speckv_calibration_free(struct speckv_calibration *calibration)
{
	if (!calibration)
		return;
	free(calibration->turns);
	free(calibration->steps);
	free(calibration->q5c.bits);
	free(calibration->q5c.unit);
	free(calibration->q5c.mean);
	free(calibration->q5c.shaping);
	calibration_free_e7c(&calibration->e7c);
	free(calibration);
}

int speckv_calibration_describe(const struct speckv_calibration *calibration,
	struct speckv_calibration_info *out)
{
	if (!calibration || !out)
		return -EINVAL;
	*out = (struct speckv_calibration_info){
		.codecs = (calibration->has_q5c ? UINT32_C(1) << SPECKV_CODEC_Q5C : 0) |
			(calibration->has_e7c ? UINT32_C(1) << SPECKV_CODEC_E7C : 0),
		.layers = calibration->layers,
		.kv_heads = calibration->kv_heads,
		.head_dim = calibration->head_dim,
	};
	memcpy(out->digest, calibration->digest, sizeof(out->digest));
	return 0;
}

bool calibration_covers(const struct speckv_calibration *calibration, unsigned int codec,
	const struct speckv_geometry *geometry, uint32_t parameter)
{
	uint32_t layer = parameter & CALIBRATION_LAYER, head = parameter >> 16;

	return ((codec == SPECKV_CODEC_Q5C && calibration->has_q5c) ||
		       (codec == SPECKV_CODEC_E7C && calibration->has_e7c)) &&
		geometry->head_dim == calibration->head_dim &&
		layer + geometry->layers <= calibration->layers &&
		head + geometry->kv_heads <= calibration->kv_heads;
}

void calibration_q5c_tables(const struct speckv_calibration *calibration, uint32_t parameter,
	enum codec_tensor tensor, unsigned int head, struct q5c_tables *out)
{
	uint64_t head_dim = calibration->head_dim;
	uint64_t at =
		((parameter & CALIBRATION_LAYER) * 2 + (uint64_t)tensor) * calibration->kv_heads +
		(parameter >> 16) + head;

	out->bits = calibration->q5c.bits[at];
	out->unit = calibration->q5c.unit[at];
	out->mean = calibration->q5c.mean + at * head_dim;
	out->shaping = calibration->q5c.shaping + at * (head_dim * (head_dim - 1) / 2);
}

bool calibration_rotation(const struct speckv_calibration *calibration, uint64_t position,
	struct rotary_rotation *out)
{
	struct rotary_angle bases[ROTARY_PAIRS_MAX];

	if (calibration->rotary == ROTARY_NONE)
		return false;
	out->kind = calibration->rotary;
	for (unsigned int pair = 0; pair < calibration->head_dim / 2; pair++)
		bases[pair] = rotary_angle(position * calibration->turns[pair]);
	codec_kernels()->rotary_turn(bases, calibration->steps, calibration->head_dim / 2, out);
	return true;
}

const struct rotary_rotation *calibration_turn(const struct codec_calibrated *by,
	enum codec_tensor tensor, unsigned int group, struct calibration_turn *turn)
{
	uint64_t position = by->position + (uint64_t)group * CODEC_GROUP_TOKENS;

	if (tensor != CODEC_K)
		return NULL;
	if (!turn->known || turn->position != position) {
		turn->known = calibration_rotation(by->calibration, position, &turn->rotation);
		turn->position = position;
	}
	return turn->known ? &turn->rotation : NULL;
}

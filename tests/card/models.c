// SPDX-License-Identifier: MIT
#include "models.h"

#define HIDDEN SPECKV_PREDICTOR_HIDDEN
#define ROWS (4 * HIDDEN)
#define TENSORS 14

/* In the order of speckv/predictor.h. */
static const char *const names[TENSORS] = {
	"edges_ms",
	"layers.0.input",
	"layers.0.recurrent",
	"layers.0.input_scale",
	"layers.0.recurrent_scale",
	"layers.0.bias",
	"layers.1.input",
	"layers.1.recurrent",
	"layers.1.input_scale",
	"layers.1.recurrent_scale",
	"layers.1.bias",
	"head",
	"head_scale",
	"head_bias",
};
enum tensor {
	EDGES,
	INPUT,
	RECURRENT,
	INPUT_SCALE,
	RECURRENT_SCALE,
	BIAS,
	HEAD = 11,
	HEAD_SCALE,
	HEAD_BIAS
};
#define LAYER_1 5

struct draft {
	struct model_file file;
	unsigned int features, bins;
	uint8_t *tensor[TENSORS];
	unsigned int rows[TENSORS], columns[TENSORS], width[TENSORS];
};

static void shape(struct draft *d, unsigned int i, unsigned int rows, unsigned int columns,
	unsigned int width)
{
	d->rows[i] = rows;
	d->columns[i] = columns;
	d->width[i] = width;
}

/* A whole file of zeros. */
static struct draft draft(unsigned int features, unsigned int bins, unsigned int window_ms)
{
	struct draft d = { .features = features, .bins = bins };
	char table[4096];
	uint64_t at = 0;
	int n = snprintf(table, sizeof(table),
		"{\"__metadata__\":{\"format\":\"speckv-return-model\",\"version\":\"0\",\"window_ms\":\"%u\",\"note\":\"a \\\"test\\\"\"}",
		window_ms);

	shape(&d, EDGES, bins + 1, 1, 4);
	for (unsigned int l = 0; l < 2; l++) {
		shape(&d, INPUT + l * LAYER_1, ROWS, l ? HIDDEN : features, 1);
		shape(&d, RECURRENT + l * LAYER_1, ROWS, HIDDEN, 1);
		for (unsigned int i = INPUT_SCALE; i <= BIAS; i++)
			shape(&d, i + l * LAYER_1, ROWS, 1, 4);
	}
	shape(&d, HEAD, bins, HIDDEN, 1);
	shape(&d, HEAD_SCALE, bins, 1, 4);
	shape(&d, HEAD_BIAS, bins, 1, 4);
	for (unsigned int i = 0; i < TENSORS; i++) {
		uint64_t bytes = (uint64_t)d.rows[i] * d.columns[i] * d.width[i];
		bool vector = d.width[i] == 4;

		n += snprintf(table + n, sizeof(table) - (size_t)n,
			",\"%s\":{\"dtype\":\"%s\",\"shape\":[%u%s", names[i],
			i == EDGES	 ? "U32"
				: vector ? "I32"
					 : "I8",
			d.rows[i], vector ? "]" : ",");
		if (!vector)
			n += snprintf(table + n, sizeof(table) - (size_t)n, "%u]", d.columns[i]);
		n += snprintf(table + n, sizeof(table) - (size_t)n,
			",\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
			(unsigned long long)(at + bytes));
		at += bytes;
	}
	n += snprintf(table + n, sizeof(table) - (size_t)n, "}");
	while (n % 8)
		table[n++] = ' ';
	d.file.table = (uint64_t)n;
	d.file.length = 8 + (uint64_t)n + at;
	d.file.bytes = calloc(1, d.file.length);
	CHECK(d.file.bytes, "memory");
	memcpy(d.file.bytes, &d.file.table, 8);
	memcpy(d.file.bytes + 8, table, (size_t)n);
	at = 8 + (uint64_t)n;
	for (unsigned int i = 0; i < TENSORS; i++) {
		d.tensor[i] = d.file.bytes + at;
		at += (uint64_t)d.rows[i] * d.columns[i] * d.width[i];
	}
	return d;
}

static void put(struct draft *d, unsigned int tensor, unsigned int row, unsigned int column,
	int32_t value)
{
	uint64_t at = (uint64_t)row * d->columns[tensor] + column;

	if (d->width[tensor] == 1)
		((int8_t *)d->tensor[tensor])[at] = (int8_t)value;
	else
		memcpy(d->tensor[tensor] + 4 * at, &value, 4);
}

/* The i-th number of a seed. */
static uint64_t number(uint64_t seed, uint64_t i)
{
	uint64_t z = seed + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

struct model_file model_random(uint64_t seed, unsigned int features, unsigned int bins)
{
	struct draft d = draft(features, bins, 1 + (unsigned int)(number(seed, 0) % 60000));
	uint64_t next = 1;
	int32_t edge = 0;

	for (unsigned int i = 0; i < TENSORS; i++) {
		for (unsigned int row = 0; row < d.rows[i]; row++) {
			for (unsigned int column = 0; column < d.columns[i]; column++) {
				uint64_t n = number(seed, next++);
				unsigned int inputs = i == INPUT_SCALE ? features : HIDDEN;

				if (i == EDGES)
					put(&d, i, row, 0,
						row ? edge += 1 + (int32_t)(n % 100000) : 0);
				else if (d.width[i] == 1)
					put(&d, i, row, column, (int8_t)n);
				else if (i == BIAS || i == BIAS + LAYER_1 || i == HEAD_BIAS)
					put(&d, i, row, 0,
						(int32_t)(n % 16384) -
							(i == HEAD_BIAS ? 16384 : 8192));
				else
					put(&d, i, row, 0, (int32_t)(n % ((1u << 22) / inputs)));
			}
		}
	}
	return d.file;
}

/*
 * Unit 0 of both layers carries the sign of the first feature on; the rest is silent. Numbers: x
 * 2^-12 is what a gate sees.
 */
struct model_file model_of_rule(void)
{
	struct draft d = draft(2, 2, 30000);

	put(&d, EDGES, 1, 0, 10000);
	put(&d, EDGES, 2, 0, 1000000);
	for (unsigned int l = 0; l < 2; l++) {
		put(&d, INPUT + l * LAYER_1, 2 * HIDDEN, 0, 127);
		/* +-100 * 127: about +-4 */
		put(&d, INPUT_SCALE + l * LAYER_1, 2 * HIDDEN, 0, 85000);
		put(&d, BIAS + l * LAYER_1, 0, 0, 8 << 12); /* take it in, */
		put(&d, BIAS + l * LAYER_1, HIDDEN, 0, -(8 << 12)); /* forget what was, */
		put(&d, BIAS + l * LAYER_1, 3 * HIDDEN, 0, 8 << 12); /* tell it */
	}
	put(&d, HEAD, 0, 0, 127);
	put(&d, HEAD_SCALE, 0, 0, 130000); /* +-97 * 127: about +-6 */
	put(&d, HEAD_BIAS, 1, 0, -(6 << 12));
	return d.file;
}

uint16_t model_load(struct client *admin, const struct model_file *model)
{
	uint64_t used = admin->rig->host_used[admin->function],
		 at = rig_alloc(admin->rig, admin->function, model->length);
	union card_entry e = { .model = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
				       .data_address = at,
				       .data_bytes = (uint32_t)model->length,
				       .total_bytes = (uint32_t)model->length } };
	uint16_t status;

	memcpy(rig_at(admin->rig, admin->function, at), model->bytes, model->length);
	CHECK(card_sha256(model->bytes, model->length, e.model.digest), "digest");
	status = client_run(admin, &e, NULL);
	admin->rig->host_used[admin->function] = used;
	return status;
}

uint16_t model_unload(struct client *admin)
{
	union card_entry e = { .model = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
				       .flags = SPECKV_MODEL_UNLOAD } };

	return client_run(admin, &e, NULL);
}

/* ---- a card with a model -------------------------------------------------------------------- */

uint16_t model_touch(struct bench *b, uint64_t address, uint32_t session, const int8_t *features,
	unsigned int count)
{
	union card_entry e = { .touch = { .opcode = SPECKV_IO_TOUCH,
				       .pool = 1,
				       .address = address,
				       .generation = 1,
				       .session = session,
				       .feature_count = (uint8_t)count } };

	memcpy(e.touch.features, features, count);
	return client_run(&b->client, &e, NULL);
}

union card_entry model_ask(uint32_t session, unsigned int candidates)
{
	return (union card_entry){ .predict = { .opcode = SPECKV_IO_PREDICT,
					   .pool = 1,
					   .buffer = BUFFER_BOTH,
					   .session = session,
					   .candidate_count = (uint8_t)candidates,
					   .depth = 16 } };
}

int32_t model_score(struct bench *b, uint32_t session, const int8_t *features, unsigned int count,
	uint8_t flags)
{
	struct speckv_candidate *c = rig_at(b->rig, 1, b->frames);
	union card_entry e = model_ask(session, 1);

	c[0] = (struct speckv_candidate){ .generation = 1 };
	e.predict.flags = flags;
	e.predict.feature_count = (uint8_t)count;
	if (count)
		memcpy(e.predict.features, features, count);
	EQUAL(client_run(&b->client, &e, NULL), 0);
	return (int32_t)c[0].score;
}

uint64_t model_figure(struct bench *b, unsigned int shift)
{
	union card_entry e = { .value = { .opcode = SPECKV_ADMIN_GET_FEATURE,
				       .pool = 1,
				       .feature = SPECKV_FEATURE_POOL_PREFETCH } };
	uint64_t value;

	EQUAL(client_run(&b->admin, &e, &value), 0);
	return value >> shift & 0xff;
}

struct bench model_bench(const struct model_file *model)
{
	struct bench b;

	bench_begin(&b, SPECKV_CODEC_RAW);
	EQUAL(bench_put(&b, 0, 1, 1, NULL), 0);
	if (model)
		EQUAL(model_load(&b.admin, model), 0);
	return b;
}

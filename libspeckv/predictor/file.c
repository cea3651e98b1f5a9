/* SPDX-License-Identifier: MIT */
/*
 * A model file: safetensors, as train-prefetcher writes it, to the flat form that lstm.c loads. The table is JSON of
 * which only what such files have is understood: nothing is believed before it was compared with the file's length.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>
#include <speckv/predictor.h>

#include "predictor/model.h"

#define TABLE_MOST (1u << 20)
#define NUMBER_MOST ((uint64_t)1 << 32)
#define ROWS (4 * SPECKV_PREDICTOR_HIDDEN)
#define HIDDEN SPECKV_PREDICTOR_HIDDEN
#define FEATURES 0xfffe /* a dimension that the file chooses, and so are the bins */
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

struct found {
	bool there;
	uint64_t begin, end;
	uint64_t shape[2];
	unsigned int dimensions;
	bool dtype_right;
};

struct text {
	const char *at;
	size_t length;
};

struct scan {
	const char *at, *end;
	struct found found[TENSORS];
	struct text format, version, window;
	int rc; /* the first thing that is wrong */
};

static void wrong(struct scan *s, int rc)
{
	if (!s->rc)
		s->rc = rc;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static char peek(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : 0;
}

static bool take(struct scan *s, char c)
{
	if (s->rc || peek(s) != c)
		return false;
	s->at++;
	return true;
}

static void expect(struct scan *s, char c)
{
	if (!take(s, c))
		wrong(s, -EBADMSG);
}

/* A string as it is written: escapes are passed over, so that a name with one is no name of ours. */
static struct text string(struct scan *s)
{
	struct text text;

	expect(s, '"');
	text.at = s->at;
	while (!s->rc && s->at < s->end && *s->at != '"') {
		if ((unsigned char)*s->at < 0x20 || (*s->at == '\\' && s->end - s->at < 2))
			wrong(s, -EBADMSG);
		else
			s->at += *s->at == '\\' ? 2 : 1;
	}
	text.length = (size_t)(s->at - text.at);
	expect(s, '"');
	return s->rc ? (struct text){ "", 0 } : text;
}

static uint64_t number(struct scan *s)
{
	uint64_t value = 0;
	bool any = false;

	peek(s);
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && value < NUMBER_MOST) {
		value = value * 10 + (uint64_t)(*s->at++ - '0');
		any = true;
	}
	if (!any || value >= NUMBER_MOST)
		wrong(s, -EBADMSG);
	return value;
}

static bool is(struct text text, const char *what)
{
	return text.length == strlen(what) && !memcmp(text.at, what, text.length);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

/* {"dtype": "I8", "shape": [128, 64], "data_offsets": [0, 8192]} */
static void scan_tensor(struct scan *s, struct found *found, const char *dtype)
{
	bool offsets = false;

	expect(s, '{');
	do {
		struct text key = string(s);

		expect(s, ':');
		if (is(key, "dtype")) {
			found->dtype_right = is(string(s), dtype);
		} else if (is(key, "shape")) {
			found->dimensions = 0;
			expect(s, '[');
			do {
				uint64_t n = number(s);

				if (found->dimensions < 2)
					found->shape[found->dimensions] = n;
				found->dimensions++;
			} while (found->dimensions <= 2 && take(s, ','));
			expect(s, ']');
		} else if (is(key, "data_offsets")) {
			expect(s, '[');
			found->begin = number(s);
			expect(s, ',');
			found->end = number(s);
			expect(s, ']');
			offsets = true;
		} else {
			wrong(s, -EBADMSG);
		}
	} while (take(s, ','));
	expect(s, '}');
	if (!offsets)
		wrong(s, -EBADMSG);
}

/* {"__metadata__": {"name": "text"}}: all values are strings. */
static void scan_metadata(struct scan *s)
{
	expect(s, '{');
	if (take(s, '}'))
		return;
	do {
		struct text name = string(s), value;

		expect(s, ':');
		value = string(s);
		if (is(name, "format"))
			s->format = value;
		else if (is(name, "version"))
			s->version = value;
		else if (is(name, "window_ms"))
			s->window = value;
	} while (take(s, ','));
	expect(s, '}');
}

static void scan_table(struct scan *s)
{
	expect(s, '{');
	do {
		struct text name = string(s);
		size_t i = 0;

		expect(s, ':');
		if (is(name, "__metadata__")) {
			scan_metadata(s);
			continue;
		}
		while (i < TENSORS && !is(name, tensors[i].name))
			i++;
		if (i == TENSORS) {
			wrong(s, -EOPNOTSUPP); /* a tensor of some other kind of model */
		} else if (s->found[i].there) {
			wrong(s, -EBADMSG);
		} else {
			s->found[i].there = true;
			scan_tensor(s, &s->found[i], tensors[i].dtype);
		}
	} while (take(s, ','));
	expect(s, '}');
	if (peek(s) || s->at != s->end)
		wrong(s, -EBADMSG);
}

/* ---- what it says ------------------------------------------------------------------------------------------------ */

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

/* Every tensor is there, of its type and shape, as long as that says, and no two share a byte or leave one over. */
static int check_tensors(const struct scan *s, uint64_t data_bytes, uint64_t *features, uint64_t *bins)
{
	uint64_t covered = 0;

	*features = s->found[1].shape[1];
	*bins = s->found[11].shape[0];
	for (size_t i = 0; i < TENSORS; i++) {
		const struct found *found = &s->found[i];
		const struct wanted *wanted = &tensors[i];
		uint64_t bytes = strcmp(wanted->dtype, "I8") ? 4 : 1;

		if (!found->there || !found->dtype_right || found->dimensions != (wanted->shape[1] ? 2u : 1u))
			return -EOPNOTSUPP;
		for (unsigned int d = 0; d < found->dimensions; d++) {
			if (found->shape[d] != dimension(wanted->shape[d], *features, *bins))
				return -EOPNOTSUPP;
			bytes *= found->shape[d];
		}
		if (*features > SPECKV_PREDICTOR_FEATURES_MAX || *bins > SPECKV_PREDICTOR_BINS_MAX)
			return -EOPNOTSUPP;
		if (found->end < found->begin || found->end > data_bytes || found->end - found->begin != bytes)
			return -EBADMSG;
		for (size_t k = 0; k < i; k++)
			if (found->begin < s->found[k].end && s->found[k].begin < found->end)
				return -EBADMSG;
		covered += bytes;
	}
	return covered == data_bytes ? 0 : -EBADMSG;
}

static int check_metadata(const struct scan *s, uint32_t *window_ms)
{
	uint64_t value = 0;

	if (!s->format.at || !is(s->format, "speckv-return-model"))
		return -EOPNOTSUPP;
	if (!s->version.at || !is(s->version, "0"))
		return -EPROTONOSUPPORT;
	if (!s->window.at || !s->window.length || s->window.length > 10)
		return -EBADMSG;
	for (size_t i = 0; i < s->window.length; i++) {
		if (s->window.at[i] < '0' || s->window.at[i] > '9')
			return -EBADMSG;
		value = value * 10 + (uint64_t)(s->window.at[i] - '0');
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

static int load_flat(const struct scan *s, const uint8_t *data, uint64_t data_bytes, uint64_t features, uint64_t bins,
		     struct speckv_predictor **out)
{
	size_t n = SPECKV_PREDICTOR_HEADER_BYTES + (size_t)data_bytes, at = SPECKV_PREDICTOR_HEADER_BYTES;
	uint8_t *flat = calloc(1, n);
	uint32_t crc;
	int rc;

	if (!flat)
		return -ENOMEM;
	for (size_t i = 0; i < TENSORS; i++) {
		size_t bytes = (size_t)(s->found[i].end - s->found[i].begin);

		memcpy(flat + at, data + s->found[i].begin, bytes);
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
	const uint8_t *bytes = file;
	uint64_t table = 0, data_bytes, features, bins;
	struct scan s = { .rc = 0 };
	uint32_t window_ms;
	int rc;

	if (!file || !out)
		return -EINVAL;
	if (n < 10)
		return -EBADMSG;
	for (int i = 7; i >= 0; i--)
		table = table << 8 | bytes[i];
	if (table > n - 8 || table > TABLE_MOST)
		return -EBADMSG;
	s.at = (const char *)bytes + 8;
	s.end = s.at + table;
	data_bytes = n - 8 - table;
	scan_table(&s);
	rc = s.rc;
	if (!rc)
		rc = check_metadata(&s, &window_ms);
	if (!rc)
		rc = check_tensors(&s, data_bytes, &features, &bins);
	if (!rc)
		rc = load_flat(&s, bytes + 8 + table, data_bytes, features, bins, out);
	if (!rc)
		predictor_set_window(*out, window_ms);
	return rc;
}

// SPDX-License-Identifier: MIT
/* Reading the table of a safetensors file, byte by byte, within bounds: nothing of the file is trusted. */
#include <errno.h>

#include "mode.h"
#include "safetensors.h"

#define TABLE_MOST (UINT64_C(1) << 20)

struct scan {
	const char *at, *end;
	const uint8_t *data;
	uint64_t data_bytes, covered;
	struct tensor *wanted;
	struct safetensors_about *about;
	bool bad;
};

static char peek(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : 0;
}

static bool take(struct scan *s, char c)
{
	if (s->bad || peek(s) != c)
		return false;
	s->at++;
	return true;
}

static void expect(struct scan *s, char c)
{
	if (!take(s, c))
		s->bad = true;
}

/* Escapes stay as they are: no name or value that matters has one. */
static struct text string(struct scan *s)
{
	struct text out = { .at = "" };

	expect(s, '"');
	if (s->bad)
		return out;
	out.at = s->at;
	while (s->at < s->end && *s->at != '"') {
		if ((unsigned char)*s->at < 0x20 || (*s->at == '\\' && s->end - s->at < 2)) {
			s->bad = true;
			return out;
		}
		s->at += *s->at == '\\' ? 2 : 1;
	}
	out.length = (size_t)(s->at - out.at);
	expect(s, '"');
	return out;
}

static uint64_t number(struct scan *s)
{
	uint64_t value = 0;
	bool any = false;

	peek(s);
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && value <= SAFETENSORS_FILE_MOST) {
		value = value * 10 + (uint64_t)(*s->at++ - '0');
		any = true;
	}
	if (!any || value > SAFETENSORS_FILE_MOST)
		s->bad = true;
	return value;
}

static struct tensor *tensor_named(struct scan *s, struct text name)
{
	for (struct tensor *t = s->wanted; t->name; t++)
		if (text_is(name, t->name))
			return t;
	return NULL;
}

static unsigned int dtype_bytes(struct text name)
{
	static const struct {
		const char *name;
		unsigned int bytes;
	} known[] = { { "U8", 1 }, { "I8", 1 }, { "I16", 2 }, { "U64", 8 } };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (text_is(name, known[i].name))
			return known[i].bytes;
	return 0;
}

/* {"dtype": "I16", "shape": [8, 2, 2, 128], "data_offsets": [0, 8192]}; the tensor must be a wanted one, and come once. */
static void tensor(struct scan *s, struct tensor *out)
{
	uint64_t elements = 1, begin = 0, end = 0;
	bool offsets = false, shape = false;
	unsigned int size = 0;

	if (!out || out->found) {
		s->bad = true;
		return;
	}
	expect(s, '{');
	do {
		struct text key = string(s);

		expect(s, ':');
		if (text_is(key, "dtype") && !size) {
			struct text value = string(s);

			size = dtype_bytes(value);
			if (!text_is(value, out->dtype))
				s->bad = true;
		} else if (text_is(key, "shape") && !shape) {
			shape = true;
			expect(s, '[');
			for (out->dimensions = 0; !s->bad && (out->dimensions ? take(s, ',') : peek(s) != ']'); out->dimensions++) {
				if (out->dimensions == SAFETENSORS_DIMENSIONS) {
					s->bad = true;
					break;
				}
				out->shape[out->dimensions] = number(s);
				/* Factors and product stay below 2^31 and 2^62. */
				elements *= out->shape[out->dimensions];
				if (!elements || elements > SAFETENSORS_FILE_MOST)
					s->bad = true;
			}
			expect(s, ']');
		} else if (text_is(key, "data_offsets") && !offsets) {
			offsets = true;
			expect(s, '[');
			begin = number(s);
			expect(s, ',');
			end = number(s);
			expect(s, ']');
		} else {
			s->bad = true;
		}
	} while (!s->bad && take(s, ','));
	expect(s, '}');
	if (s->bad || !size || !shape || !offsets || end < begin || end > s->data_bytes || end - begin != elements * size) {
		s->bad = true;
		return;
	}
	s->covered += end - begin;
	out->data = s->data + begin;
	out->found = true;
}

/* {"format": "text", ...}: all values are strings; those that say how the file was made are for people. */
static void metadata(struct scan *s)
{
	expect(s, '{');
	if (take(s, '}'))
		return;
	do {
		struct text key = string(s), value;

		expect(s, ':');
		value = string(s);
		if (text_is(key, "format"))
			s->about->format = value;
		else if (text_is(key, "version"))
			s->about->version = value;
		else if (text_is(key, "rotary"))
			s->about->rotary = value;
	} while (!s->bad && take(s, ','));
	expect(s, '}');
}

int safetensors_scan(const uint8_t *file, uint64_t bytes, struct tensor *wanted, struct safetensors_about *about)
{
	struct scan s = { .wanted = wanted, .about = about };
	uint64_t table;

	if (bytes < 10)
		return -EBADMSG;
	table = codec_get64(file);
	if (table > bytes - 8 || table > TABLE_MOST)
		return -EBADMSG;
	s.at = (const char *)file + 8;
	s.end = s.at + table;
	s.data = file + 8 + table;
	s.data_bytes = bytes - 8 - table;
	expect(&s, '{');
	do {
		struct text name = string(&s);

		expect(&s, ':');
		if (s.bad)
			break;
		if (text_is(name, "__metadata__"))
			metadata(&s);
		else
			tensor(&s, tensor_named(&s, name));
	} while (take(&s, ','));
	expect(&s, '}');
	/* Tensors that fill the data exactly and are all different do not overlap unless they leave a gap elsewhere. */
	return s.bad || peek(&s) || s.at != s.end || s.covered != s.data_bytes ? -EBADMSG : 0;
}

// SPDX-License-Identifier: MIT
/* Parser of the header of a safetensors file, bounded by the file: nothing in it is trusted. */
#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "mode.h"
#include "safetensors.h"

#define DEPTH_MOST 127 /* of nested arrays and objects */
#define METADATA "__metadata__"

struct scan {
	const char *at, *end;
	struct safetensors *out;
	size_t tensor_room, entry_room;
	size_t strings_used, strings_room;
	unsigned int depth;
	bool metadata_seen;
	int rc; /* the first error */
};

static void wrong(struct scan *s)
{
	if (!s->rc)
		s->rc = -EBADMSG;
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static bool utf8_valid(const uint8_t *at, const uint8_t *end)
{
	while (at < end) {
		unsigned int more = *at < 0x80 ? 0
			: *at < 0xc2	       ? 9
			: *at < 0xe0	       ? 1
			: *at < 0xf0	       ? 2
			: *at < 0xf5	       ? 3
					       : 9;
		uint32_t code = more == 1 ? *at & 0x1fu : more == 2 ? *at & 0xfu : *at & 7u;

		if (more > (size_t)(end - at) - 1)
			return false;
		for (unsigned int i = 1; i <= more; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return false;
			code = code << 6 | (at[i] & 0x3fu);
		}
		if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
			(more == 3 && (code < 0x10000 || code > 0x10ffff)))
			return false;
		at += more + 1;
	}
	return true;
}

/* Skip white space; 0 at the end. */
static char peek(struct scan *s)
{
	while (s->at < s->end &&
		(*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : 0;
}

static bool take(struct scan *s, char c)
{
	if (s->rc || peek(s) != c || s->at == s->end)
		return false;
	s->at++;
	return true;
}

static void expect(struct scan *s, char c)
{
	if (!take(s, c))
		wrong(s);
}

static void enter(struct scan *s, char c)
{
	expect(s, c);
	if (++s->depth > DEPTH_MOST)
		wrong(s);
}

static void leave(struct scan *s, char c)
{
	expect(s, c);
	s->depth--;
}

static uint32_t hex4(struct scan *s)
{
	uint32_t value = 0;

	if (s->end - s->at < 4) {
		wrong(s);
		return 0;
	}
	for (int i = 0; i < 4; i++) {
		char c = *s->at++, low = (char)(c | 0x20);

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint32_t)(c - '0');
		else if (low >= 'a' && low <= 'f')
			value = value << 4 | (uint32_t)(low - 'a' + 10);
		else
			wrong(s);
	}
	return value;
}

static size_t put_utf8(char *to, uint32_t code)
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 0x3f));
		to[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 0x3f));
	to[2] = (char)(0x80 | (code >> 6 & 0x3f));
	to[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/* Parse an escape, after the backslash. Surrogates come in pairs, the high one first. */
static uint32_t escape(struct scan *s)
{
	static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	char c = s->at < s->end ? *s->at++ : 0;
	const char *known = c ? strchr(plain, c) : NULL;
	uint32_t code;

	if (known)
		return (uint32_t)meant[known - plain];
	if (c != 'u') {
		wrong(s);
		return 0;
	}
	code = hex4(s);
	if (code >= 0xd800 && code < 0xdc00) {
		uint32_t low = 0;

		if (s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
			s->at += 2;
			low = hex4(s);
		}
		if (low < 0xdc00 || low > 0xdfff)
			wrong(s);
		return 0x10000 + ((code - 0xd800) << 10 | (low & 0x3ff));
	}
	if (code >= 0xdc00 && code < 0xe000)
		wrong(s);
	return code;
}

/*
 * Decode a string with escapes, which is never longer than its encoding. `s->at`: its first
 * backslash.
 */
static struct text unescape(struct scan *s, const char *first)
{
	struct text out;
	char *to;

	if (!s->out->strings) {
		s->strings_room = (size_t)(s->end - first);
		s->out->strings = malloc(s->strings_room);
		if (!s->out->strings) {
			s->rc = -ENOMEM;
			return (struct text){ 0 };
		}
	}
	to = s->out->strings + s->strings_used;
	memcpy(to, first, (size_t)(s->at - first));
	out = (struct text){ .at = to, .length = (size_t)(s->at - first) };
	while (!s->rc && s->at < s->end && *s->at != '"') {
		char c = *s->at++;

		if ((unsigned char)c < 0x20)
			wrong(s);
		else if (c == '\\')
			out.length += put_utf8(to + out.length, escape(s));
		else
			to[out.length++] = c;
	}
	s->strings_used += out.length;
	return out;
}

static struct text string(struct scan *s)
{
	struct text out;

	expect(s, '"');
	if (s->rc)
		return (struct text){ 0 };
	out.at = s->at;
	while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
		s->at++;
	if (s->at < s->end && *s->at == '\\')
		out = unescape(s, out.at);
	else
		out.length = (size_t)(s->at - out.at);
	if (s->rc || s->at == s->end || *s->at != '"')
		wrong(s);
	else
		s->at++;
	return out;
}

static bool digit(const struct scan *s)
{
	return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* An integer of the format: no sign, no leading zero, no fraction. */
static uint64_t integer(struct scan *s)
{
	uint64_t value = 0;

	peek(s);
	if (!digit(s) ||
		(*s->at == '0' && s->end - s->at > 1 && s->at[1] >= '0' && s->at[1] <= '9'))
		wrong(s);
	for (; !s->rc && digit(s); s->at++)
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*s->at - '0'), &value))
			wrong(s);
	if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E'))
		wrong(s);
	return value;
}

/*
 * Skip a number in an ignored member. One beyond a double's range is an error, as in the reference.
 */
static void number(struct scan *s)
{
	uint64_t significand = 0;
	int64_t exponent = 0, written = 0;
	bool negative = false;
	double value;

	if (*s->at == '-')
		s->at++;
	if (!digit(s) ||
		(*s->at == '0' && s->end - s->at > 1 && s->at[1] >= '0' && s->at[1] <= '9'))
		wrong(s);
	for (; digit(s); s->at++)
		if (exponent || significand > (UINT64_MAX - (uint64_t)(*s->at - '0')) / 10)
			exponent++;
		else
			significand = significand * 10 + (uint64_t)(*s->at - '0');
	if (s->at < s->end && *s->at == '.') {
		bool full = exponent;

		s->at++;
		if (!digit(s))
			wrong(s);
		for (; digit(s); s->at++) {
			full = full || significand > (UINT64_MAX - (uint64_t)(*s->at - '0')) / 10;
			if (!full) {
				significand = significand * 10 + (uint64_t)(*s->at - '0');
				exponent--;
			}
		}
	}
	if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
		s->at++;
		if (s->at < s->end && (*s->at == '-' || *s->at == '+'))
			negative = *s->at++ == '-';
		if (!digit(s))
			wrong(s);
		for (; digit(s); s->at++)
			written = written > 1000000000 ? written : written * 10 + (*s->at - '0');
	}
	exponent += negative ? -written : written;
	value = (double)significand;
	if (exponent > 308 && significand)
		wrong(s);
	for (; significand && exponent > 0 && exponent <= 308; exponent--)
		value *= 10;
	if (value > DBL_MAX)
		wrong(s);
}

static void word(struct scan *s, const char *what)
{
	size_t n = strlen(what);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, what, n) != 0)
		wrong(s);
	else
		s->at += n;
}

/* Skip the value of an ignored member. */
static void skip(struct scan *s)
{
	unsigned int outer = s->depth;
	uint8_t objects[DEPTH_MOST + 1]; /* for each open container: is it an object? */

	do {
		char c = peek(s);

		if (c == '{' || c == '[') {
			enter(s, c);
			if (s->rc)
				return;
			objects[s->depth] = c == '{';
			if (peek(s) != (c == '{' ? '}' : ']')) {
				if (c == '{') {
					string(s);
					expect(s, ':');
				}
				continue;
			}
		} else if (c == '"') {
			string(s);
		} else if (c == 't') {
			word(s, "true");
		} else if (c == 'f') {
			word(s, "false");
		} else if (c == 'n') {
			word(s, "null");
		} else if (c) {
			number(s);
		} else {
			wrong(s);
		}
		/*
		 * After a value: the next one of this container, or the end of this and perhaps of
		 * outer ones.
		 */
		while (!s->rc && s->depth > outer && !take(s, ','))
			leave(s, objects[s->depth] ? '}' : ']');
		if (!s->rc && s->depth > outer && objects[s->depth]) {
			string(s);
			expect(s, ':');
		}
	} while (!s->rc && s->depth > outer);
}

/* ---- the header ----------------------------------------------------------------------------- */

static void *grown(struct scan *s, void *list, size_t count, size_t *room, size_t bytes)
{
	size_t more = *room ? *room * 2 : 16;
	void *now;

	if (count < *room)
		return list;
	now = reallocarray(list, more, bytes);
	if (!now) {
		s->rc = -ENOMEM;
		return list;
	}
	*room = more;
	return now;
}

static void dtype(struct scan *s, struct safetensors_tensor *out)
{
	static const struct {
		const char *name;
		uint32_t bits;
	} known[] = {
		{ "BOOL", 8 },
		{ "F4", 4 },
		{ "F6_E2M3", 6 },
		{ "F6_E3M2", 6 },
		{ "U8", 8 },
		{ "I8", 8 },
		{ "F8_E5M2", 8 },
		{ "F8_E4M3", 8 },
		{ "F8_E8M0", 8 },
		{ "F8_E4M3FNUZ", 8 },
		{ "F8_E5M2FNUZ", 8 },
		{ "I16", 16 },
		{ "U16", 16 },
		{ "F16", 16 },
		{ "BF16", 16 },
		{ "I32", 32 },
		{ "U32", 32 },
		{ "F32", 32 },
		{ "C64", 64 },
		{ "F64", 64 },
		{ "I64", 64 },
		{ "U64", 64 },
	};
	bool wrapped = peek(s) == '{'; /* {"U8": null}, which the reference accepts for "U8" */
	struct text name;

	if (wrapped)
		enter(s, '{');
	name = string(s);
	if (wrapped) {
		expect(s, ':');
		peek(s);
		word(s, "null");
		leave(s, '}');
	}
	for (size_t i = 0; !s->rc && i < sizeof(known) / sizeof(known[0]); i++)
		if (text_is(name, known[i].name)) {
			out->dtype = known[i].name;
			out->bits = known[i].bits;
		}
	if (!out->bits)
		wrong(s);
}

static void shape(struct scan *s, struct safetensors_tensor *out)
{
	uint64_t elements = 1;

	enter(s, '[');
	while (!s->rc && (out->dimensions ? take(s, ',') : peek(s) != ']')) {
		uint64_t n = integer(s);

		if (out->dimensions < SAFETENSORS_DIMENSIONS)
			out->shape[out->dimensions] = n;
		out->dimensions++;
		out->overflow = out->overflow || __builtin_mul_overflow(elements, n, &elements);
	}
	leave(s, ']');
	out->elements = elements;
}

static void offsets(struct scan *s, struct safetensors_tensor *out)
{
	enter(s, '[');
	out->begin = integer(s);
	expect(s, ',');
	out->end = integer(s);
	leave(s, ']');
}

/*
 * {"dtype": "I16", "shape": [8, 2], "data_offsets": [0, 32]}; or the three as an array, which the
 * reference accepts, too.
 */
static void tensor(struct scan *s, struct safetensors_tensor *out)
{
	bool has_shape = false, has_offsets = false;

	if (peek(s) == '[') {
		enter(s, '[');
		dtype(s, out);
		expect(s, ',');
		shape(s, out);
		expect(s, ',');
		offsets(s, out);
		leave(s, ']');
		return;
	}
	enter(s, '{');
	if (peek(s) != '}')
		do {
			struct text key = string(s);

			expect(s, ':');
			if (text_is(key, "dtype")) {
				if (out->bits)
					wrong(s);
				dtype(s, out);
			} else if (text_is(key, "shape")) {
				if (has_shape)
					wrong(s);
				has_shape = true;
				shape(s, out);
			} else if (text_is(key, "data_offsets")) {
				if (has_offsets)
					wrong(s);
				has_offsets = true;
				offsets(s, out);
			} else {
				skip(s);
			}
		} while (take(s, ','));
	leave(s, '}');
	if (!out->bits || !has_shape || !has_offsets)
		wrong(s);
}

/* {"format": "text", ...}: all values are strings. */
static void metadata(struct scan *s)
{
	struct safetensors *out = s->out;

	if (s->metadata_seen)
		wrong(s);
	s->metadata_seen = true;
	if (peek(s) == 'n') {
		word(s, "null");
		return;
	}
	enter(s, '{');
	if (peek(s) != '}')
		do {
			struct safetensors_entry entry = { .key = string(s) };

			expect(s, ':');
			entry.value = string(s);
			out->metadata = grown(s, out->metadata, out->entries, &s->entry_room,
				sizeof(entry));
			if (!s->rc)
				out->metadata[out->entries++] = entry;
		} while (take(s, ','));
	leave(s, '}');
}

static void header(struct scan *s)
{
	struct safetensors *out = s->out;

	enter(s, '{');
	if (peek(s) != '}')
		do {
			struct safetensors_tensor one = { .name = string(s) };

			expect(s, ':');
			if (text_is(one.name, METADATA)) {
				metadata(s);
				continue;
			}
			tensor(s, &one);
			out->tensors =
				grown(s, out->tensors, out->count, &s->tensor_room, sizeof(one));
			if (!s->rc)
				out->tensors[out->count++] = one;
		} while (take(s, ','));
	leave(s, '}');
	if (peek(s) || s->at != s->end)
		wrong(s);
}

/* ---- validation ----------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;
	size_t shorter = x->name.length < y->name.length ? x->name.length : y->name.length;
	int order = memcmp(x->name.at, y->name.at, shorter);

	if (order || x->name.length != y->name.length)
		return order ? order : x->name.length < y->name.length ? -1 : 1;
	return x->place < y->place ? -1 : 1;
}

static int by_offset(const void *a, const void *b)
{
	const struct safetensors_tensor *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end;
}

/* Of duplicate names the last one counts. */
static void drop_repeated(struct safetensors *out)
{
	size_t kept = 0;

	for (size_t i = 0; i < out->count; i++)
		out->tensors[i].place = i;
	qsort(out->tensors, out->count, sizeof(*out->tensors), by_name);
	for (size_t i = 0; i < out->count; i++) {
		const struct text *name = &out->tensors[i].name,
				  *next = i + 1 < out->count ? &out->tensors[i + 1].name : NULL;

		if (!next || next->length != name->length ||
			memcmp(next->at, name->at, name->length) != 0)
			out->tensors[kept++] = out->tensors[i];
	}
	out->count = kept;
}

/*
 * Check that every tensor's length follows from type and shape, and that tensors are contiguous up
 * to the end of the file.
 */
static int check(struct safetensors *out)
{
	uint64_t at = 0;

	if (out->count) {
		drop_repeated(out);
		qsort(out->tensors, out->count, sizeof(*out->tensors), by_offset);
	}
	for (size_t i = 0; i < out->count; i++) {
		const struct safetensors_tensor *t = &out->tensors[i];
		uint64_t bits;

		if (t->begin != at || t->end < t->begin || t->overflow ||
			__builtin_mul_overflow(t->elements, t->bits, &bits) || bits % 8 ||
			bits / 8 != t->end - t->begin)
			return -EBADMSG;
		at = t->end;
	}
	return at == out->data_bytes ? 0 : -EBADMSG;
}

int safetensors_open(const uint8_t *file, uint64_t bytes, struct safetensors *out)
{
	struct scan s = { .out = out };
	uint64_t length;

	*out = (struct safetensors){ 0 };
	if (bytes < 8)
		return -EBADMSG;
	length = codec_get64(file);
	if (length > SAFETENSORS_HEADER_MOST || length > bytes - 8 ||
		!utf8_valid(file + 8, file + 8 + length))
		return -EBADMSG;
	s.at = (const char *)file + 8;
	s.end = s.at + length;
	out->data = file + 8 + length;
	out->data_bytes = bytes - 8 - length;
	header(&s);
	return s.rc ? s.rc : check(out);
}

void safetensors_close(struct safetensors *file)
{
	free(file->tensors);
	free(file->metadata);
	free(file->strings);
	*file = (struct safetensors){ 0 };
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
	for (size_t i = 0; i < file->count; i++)
		if (text_is(file->tensors[i].name, name))
			return &file->tensors[i];
	return NULL;
}

struct text safetensors_about(const struct safetensors *file, const char *key)
{
	for (size_t i = file->entries; i-- > 0;)
		if (text_is(file->metadata[i].key, key))
			return file->metadata[i].value;
	return (struct text){ 0 };
}

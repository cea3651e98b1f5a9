// SPDX-License-Identifier: MIT
/* Parser of the header of a safetensors file, bounded by the file: nothing in it is trusted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mode.h"
#include "safetensors.h"

#define METADATA "__metadata__"

struct header {
	struct json_scan json;
	struct safetensors *out;
	size_t tensor_room, entry_room;
	bool metadata_seen;
};

static void *grow_list(struct json_scan *s, void *list, size_t count, size_t *room, size_t bytes)
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

static void read_dtype(struct json_scan *s, struct safetensors_tensor *out)
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
	bool wrapped = json_peek(s) == '{'; /* {"U8": null}, which the reference accepts for "U8" */
	struct text name;

	if (wrapped)
		json_enter(s, '{');
	name = json_string(s);
	if (wrapped) {
		json_expect(s, ':');
		json_peek(s);
		json_word(s, "null");
		json_leave(s, '}');
	}
	for (size_t i = 0; !s->rc && i < sizeof(known) / sizeof(known[0]); i++)
		if (text_is(name, known[i].name)) {
			out->dtype = known[i].name;
			out->bits = known[i].bits;
		}
	if (!out->bits)
		json_wrong(s);
}

static void read_shape(struct json_scan *s, struct safetensors_tensor *out)
{
	uint64_t elements = 1;

	json_enter(s, '[');
	while (!s->rc && (out->dimensions ? json_take(s, ',') : json_peek(s) != ']')) {
		uint64_t n = json_integer(s);

		if (out->dimensions < SAFETENSORS_DIMENSIONS)
			out->shape[out->dimensions] = n;
		out->dimensions++;
		out->overflow = out->overflow || __builtin_mul_overflow(elements, n, &elements);
	}
	json_leave(s, ']');
	out->elements = elements;
}

static void offsets(struct json_scan *s, struct safetensors_tensor *out)
{
	json_enter(s, '[');
	out->begin = json_integer(s);
	json_expect(s, ',');
	out->end = json_integer(s);
	json_leave(s, ']');
}

/*
 * {"dtype": "I16", "shape": [8, 2], "data_offsets": [0, 32]}; or the three as an array, which the
 * reference accepts, too.
 */
static void tensor(struct json_scan *s, struct safetensors_tensor *out)
{
	bool has_shape = false, has_offsets = false;

	if (json_peek(s) == '[') {
		json_enter(s, '[');
		read_dtype(s, out);
		json_expect(s, ',');
		read_shape(s, out);
		json_expect(s, ',');
		offsets(s, out);
		json_leave(s, ']');
		return;
	}
	json_enter(s, '{');
	if (json_peek(s) != '}')
		do {
			struct text key = json_string(s);

			json_expect(s, ':');
			if (text_is(key, "dtype")) {
				if (out->bits)
					json_wrong(s);
				read_dtype(s, out);
			} else if (text_is(key, "shape")) {
				if (has_shape)
					json_wrong(s);
				has_shape = true;
				read_shape(s, out);
			} else if (text_is(key, "data_offsets")) {
				if (has_offsets)
					json_wrong(s);
				has_offsets = true;
				offsets(s, out);
			} else {
				json_skip(s);
			}
		} while (json_take(s, ','));
	json_leave(s, '}');
	if (!out->bits || !has_shape || !has_offsets)
		json_wrong(s);
}

/* {"format": "text", ...}: all values are strings. */
static void metadata(struct header *h)
{
	struct safetensors *out = h->out;
	struct json_scan *s = &h->json;

	if (h->metadata_seen)
		json_wrong(s);
	h->metadata_seen = true;
	if (json_peek(s) == 'n') {
		json_word(s, "null");
		return;
	}
	json_enter(s, '{');
	if (json_peek(s) != '}')
		do {
			struct safetensors_entry entry = { .key = json_string(s) };

			json_expect(s, ':');
			entry.value = json_string(s);
			out->metadata = grow_list(s, out->metadata, out->entries, &h->entry_room,
				sizeof(entry));
			if (!s->rc)
				out->metadata[out->entries++] = entry;
		} while (json_take(s, ','));
	json_leave(s, '}');
}

static void read_header(struct header *h)
{
	struct safetensors *out = h->out;
	struct json_scan *s = &h->json;

	json_enter(s, '{');
	if (json_peek(s) != '}')
		do {
			struct safetensors_tensor one = { .name = json_string(s) };

			json_expect(s, ':');
			if (text_is(one.name, METADATA)) {
				metadata(h);
				continue;
			}
			tensor(s, &one);
			out->tensors = grow_list(s, out->tensors, out->count, &h->tensor_room,
				sizeof(one));
			if (!s->rc)
				out->tensors[out->count++] = one;
		} while (json_take(s, ','));
	json_leave(s, '}');
	if (json_peek(s) || s->at != s->end)
		json_wrong(s);
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
static int check_tensors(struct safetensors *out)
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
	struct header h = { .out = out };
	uint64_t length;

	*out = (struct safetensors){ 0 };
	if (bytes < 8)
		return -EBADMSG;
	length = codec_get64(file);
	if (length > SAFETENSORS_HEADER_MOST || length > bytes - 8 ||
		!json_utf8_valid(file + 8, file + 8 + length))
		return -EBADMSG;
	h.json.at = (const char *)file + 8;
	h.json.end = h.json.at + length;
	out->data = file + 8 + length;
	out->data_bytes = bytes - 8 - length;
	read_header(&h);
	out->strings = h.json.strings;
	return h.json.rc ? h.json.rc : check_tensors(out);
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

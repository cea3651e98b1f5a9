// SPDX-License-Identifier: MIT
/* The manifest of a bundle, read by the table that writes it. */
#include <errno.h>
#include <string.h>

#include "bundle/manifest.h"
#include "bundle/text.h"

enum kind { INTEGER, TEXT, HEX };

/* Sorted by name, as RFC 8785 demands. The table is the manifest's whole grammar. */
static const struct field {
	const char *name;
	enum kind kind;
	size_t offset;
	size_t bytes;
	uint64_t max;
} fields[] = {
#define MANIFEST struct speckv_bundle_manifest
#define FIELD(name, kind, max) \
	{ #name, kind, offsetof(MANIFEST, name), sizeof(((MANIFEST *)0)->name), max }
	FIELD(bitstream_bytes, INTEGER, SPECKV_BUNDLE_BITSTREAM_BYTES_MAX),
	FIELD(bitstream_sha256, HEX, 0),
	FIELD(build_id, HEX, 0),
	FIELD(clock_hz, INTEGER, 1000000000000),
	FIELD(configuration, TEXT, 0),
	FIELD(fmax_hz, INTEGER, 1000000000000),
	FIELD(map_major, INTEGER, UINT16_MAX),
	FIELD(map_minor, INTEGER, UINT16_MAX),
	FIELD(name, TEXT, 0),
	FIELD(part, TEXT, 0),
	FIELD(rtl_major, INTEGER, UINT16_MAX),
	FIELD(rtl_minor, INTEGER, UINT8_MAX),
	FIELD(rtl_patch, INTEGER, UINT8_MAX),
	FIELD(security_version, INTEGER, UINT32_MAX),
	FIELD(tools, TEXT, 0),
#undef FIELD
#undef MANIFEST
};

#define FIELDS (sizeof(fields) / sizeof(fields[0]))

static uint64_t get_number(const struct field *f, const uint8_t *at)
{
	uint32_t narrow;
	uint64_t wide;

	if (f->bytes == sizeof(narrow)) {
		memcpy(&narrow, at, sizeof(narrow));
		return narrow;
	}
	memcpy(&wide, at, sizeof(wide));
	return wide;
}

static void set_number(const struct field *f, uint8_t *at, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;

	if (f->bytes == sizeof(narrow))
		memcpy(at, &narrow, sizeof(narrow));
	else
		memcpy(at, &value, sizeof(value));
}

static void put_member(struct bundle_writer *w, const struct field *f, const uint8_t *at)
{
	size_t n;

	bundle_put_text(w, "\"");
	bundle_put_text(w, f->name);
	bundle_put_text(w, "\":");
	switch (f->kind) {
	case INTEGER:
		w->bad = w->bad || get_number(f, at) > f->max;
		bundle_put_integer(w, get_number(f, at));
		return;
	case HEX:
		bundle_put_text(w, "\"");
		bundle_put_hex(w, at, f->bytes);
		break;
	case TEXT:
		n = strnlen((const char *)at, f->bytes);
		w->bad = w->bad || n == 0 || n == f->bytes;
		for (size_t i = 0; i < n; i++)
			w->bad = w->bad || !bundle_plain(at[i]);
		bundle_put_text(w, "\"");
		bundle_put(w, (const char *)at, n < f->bytes ? n : 0);
		break;
	}
	bundle_put_text(w, "\"");
}

size_t bundle_write_manifest(const struct speckv_bundle_manifest *manifest, uint8_t *out,
	size_t capacity)
{
	struct bundle_writer w = { (char *)out, (char *)out + capacity,
		manifest->bitstream_bytes == 0 };

	for (size_t i = 0; i < FIELDS; i++) {
		bundle_put_text(&w, i ? "," : "{");
		put_member(&w, &fields[i], (const uint8_t *)manifest + fields[i].offset);
	}
	bundle_put_text(&w, "}");
	return w.bad ? 0 : (size_t)(w.at - (char *)out);
}

int bundle_read_manifest(const uint8_t *payload, size_t n, struct speckv_bundle_manifest *out)
{
	struct bundle_reader r = { payload, payload + n, false };

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *f = &fields[i];
		uint8_t *at = (uint8_t *)out + f->offset;

		bundle_expect(&r, i ? ",\"" : "{\"");
		bundle_expect(&r, f->name);
		bundle_expect(&r, "\":");
		if (f->kind == INTEGER) {
			set_number(f, at, bundle_read_integer(&r, f->max));
		} else if (f->kind == TEXT) {
			bundle_read_text(&r, (char *)at, f->bytes);
		} else {
			bundle_expect(&r, "\"");
			bundle_read_hex(&r, at, f->bytes);
			bundle_expect(&r, "\"");
		}
	}
	bundle_expect(&r, "}");
	return r.bad || r.at != r.end || out->bitstream_bytes == 0 ? -EBADMSG : 0;
}

// SPDX-License-Identifier: MIT
/*
 * Bundles: bitstreams/FORMAT.md in C.
 *
 * Every part of a bundle has exactly one encoding, so that any changed byte is detected: header and
 * envelope are compared with literals, the manifest is read by the table that writes it, unused
 * bits of base64 are zero.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "bundle/bundle.h"

#define VERSION 0u
#define PAYLOAD_BYTES_MAX 1024u
#define SIGNATURE_BYTES 64u
#define PAYLOAD_TYPE "application/vnd.speckv.bundle.v0+json"

static const char magic[8] = { 'S', 'P', 'K', 'V', 'B', 'N', 'D', 'L' };

/* ---- text: read and written by the same rules ----------------------------------------------- */

struct reader {
	const uint8_t *at;
	const uint8_t *end;
	bool bad;
};

struct writer {
	char *at;
	char *end;
	bool bad;
};

static void expect(struct reader *r, const char *literal)
{
	size_t n = strlen(literal);

	if (r->bad || (size_t)(r->end - r->at) < n || memcmp(r->at, literal, n) != 0) {
		r->bad = true;
		return;
	}
	r->at += n;
}

static bool next_is(const struct reader *r, char c)
{
	return !r->bad && r->at < r->end && *r->at == (uint8_t)c;
}

static void put(struct writer *w, const char *text, size_t n)
{
	if (w->bad || (size_t)(w->end - w->at) < n) {
		w->bad = true;
		return;
	}
	memcpy(w->at, text, n);
	w->at += n;
}

static void put_text(struct writer *w, const char *text)
{
	put(w, text, strlen(text));
}

static void put_integer(struct writer *w, uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	put_text(w, digits);
}

static uint64_t read_integer(struct reader *r, uint64_t max)
{
	uint64_t value = 0;
	const uint8_t *first = r->at;

	while (!r->bad && r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		uint64_t digit = (uint64_t)(*r->at - '0');

		if (value > (max - digit) / 10) {
			r->bad = true;
			return 0;
		}
		value = 10 * value + digit;
		r->at++;
	}
	if (r->at == first || (*first == '0' && r->at - first > 1))
		r->bad = true;
	return value;
}

static const char hex_digits[] = "0123456789abcdef";

static void put_hex(struct writer *w, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put(w, &hex_digits[bytes[i] >> 4], 1);
		put(w, &hex_digits[bytes[i] & 15], 1);
	}
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void read_hex(struct reader *r, uint8_t *out, size_t n)
{
	if (r->bad || (size_t)(r->end - r->at) / 2 < n) {
		r->bad = true;
		return;
	}
	for (size_t i = 0; i < n; i++, r->at += 2) {
		int high = hex_value(r->at[0]), low = hex_value(r->at[1]);

		if (high < 0 || low < 0) {
			r->bad = true;
			return;
		}
		out[i] = (uint8_t)(high << 4 | low);
	}
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(struct writer *w, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i += 3) {
		size_t have = n - i < 3 ? n - i : 3;
		uint32_t bits = (uint32_t)bytes[i] << 16;

		bits |= have > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
		bits |= have > 2 ? bytes[i + 2] : 0;
		for (size_t k = 0; k < 4; k++)
			put(w, k <= have ? &base64_digits[bits >> (18 - 6 * k) & 63] : "=", 1);
	}
}

/* Read up to the closing quote, which is not consumed. */
static size_t read_base64(struct reader *r, uint8_t *out, size_t capacity)
{
	size_t n = 0;

	while (!r->bad && !next_is(r, '"')) {
		uint32_t bits = 0;
		size_t have = 3;

		if (r->end - r->at < 4) {
			r->bad = true;
			return 0;
		}
		if (r->at[3] == '=')
			have = r->at[2] == '=' ? 1 : 2;
		for (size_t k = 0; k <= have; k++) {
			const char *digit = r->at[k] ? strchr(base64_digits, r->at[k]) : NULL;

			if (!digit) {
				r->bad = true;
				return 0;
			}
			bits |= (uint32_t)(digit - base64_digits) << (18 - 6 * k);
		}
		r->at += 4;
		/* Padding only at the end, and unused bits zero: one encoding for each value. */
		if ((have < 3 && (!next_is(r, '"') || bits & ((1u << (24 - 8 * have)) - 1))) ||
			have > capacity - n) {
			r->bad = true;
			return 0;
		}
		for (size_t k = 0; k < have; k++)
			out[n++] = (uint8_t)(bits >> (16 - 8 * k));
	}
	return n;
}

/* ---- manifest ------------------------------------------------------------------------------- */

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

static bool plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

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

static void read_text(struct reader *r, char *out, size_t capacity)
{
	size_t n = 0;

	expect(r, "\"");
	while (!r->bad && r->at < r->end && plain(*r->at) && n < capacity - 1)
		out[n++] = (char)*r->at++;
	out[n] = '\0';
	r->bad = r->bad || n == 0;
	expect(r, "\"");
}

static void put_member(struct writer *w, const struct field *f, const uint8_t *at)
{
	size_t n;

	put_text(w, "\"");
	put_text(w, f->name);
	put_text(w, "\":");
	switch (f->kind) {
	case INTEGER:
		w->bad = w->bad || get_number(f, at) > f->max;
		put_integer(w, get_number(f, at));
		return;
	case HEX:
		put_text(w, "\"");
		put_hex(w, at, f->bytes);
		break;
	case TEXT:
		n = strnlen((const char *)at, f->bytes);
		w->bad = w->bad || n == 0 || n == f->bytes;
		for (size_t i = 0; i < n; i++)
			w->bad = w->bad || !plain(at[i]);
		put_text(w, "\"");
		put(w, (const char *)at, n < f->bytes ? n : 0);
		break;
	}
	put_text(w, "\"");
}

/* Write the unique encoding of a manifest; 0: a field does not fit. */
static size_t write_manifest(const struct speckv_bundle_manifest *manifest, uint8_t *out,
	size_t capacity)
{
	struct writer w = { (char *)out, (char *)out + capacity, manifest->bitstream_bytes == 0 };

	for (size_t i = 0; i < FIELDS; i++) {
		put_text(&w, i ? "," : "{");
		put_member(&w, &fields[i], (const uint8_t *)manifest + fields[i].offset);
	}
	put_text(&w, "}");
	return w.bad ? 0 : (size_t)(w.at - (char *)out);
}

static int read_manifest(const uint8_t *payload, size_t n, struct speckv_bundle_manifest *out)
{
	struct reader r = { payload, payload + n, false };

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *f = &fields[i];
		uint8_t *at = (uint8_t *)out + f->offset;

		expect(&r, i ? ",\"" : "{\"");
		expect(&r, f->name);
		expect(&r, "\":");
		if (f->kind == INTEGER) {
			set_number(f, at, read_integer(&r, f->max));
		} else if (f->kind == TEXT) {
			read_text(&r, (char *)at, f->bytes);
		} else {
			expect(&r, "\"");
			read_hex(&r, at, f->bytes);
			expect(&r, "\"");
		}
	}
	expect(&r, "}");
	return r.bad || r.at != r.end || out->bitstream_bytes == 0 ? -EBADMSG : 0;
}

/* ---- envelope ------------------------------------------------------------------------------- */

struct envelope {
	uint8_t payload[PAYLOAD_BYTES_MAX];
	size_t payload_bytes;
	bool is_signed;
	uint8_t key_id[SPECKV_BUNDLE_DIGEST_BYTES];
	uint8_t signature[SIGNATURE_BYTES];
};

static int read_envelope(const uint8_t *bytes, size_t n, struct envelope *out)
{
	struct reader r = { bytes, bytes + n, n > SPECKV_BUNDLE_ENVELOPE_BYTES_MAX };

	memset(out, 0, sizeof(*out));
	expect(&r, "{\"payload\":\"");
	out->payload_bytes = read_base64(&r, out->payload, sizeof(out->payload));
	expect(&r, "\",\"payloadType\":\"" PAYLOAD_TYPE "\",\"signatures\":[");
	if (next_is(&r, '{')) {
		out->is_signed = true;
		expect(&r, "{\"keyid\":\"");
		read_hex(&r, out->key_id, sizeof(out->key_id));
		expect(&r, "\",\"sig\":\"");
		if (read_base64(&r, out->signature, sizeof(out->signature)) !=
			sizeof(out->signature))
			r.bad = true;
		expect(&r, "\"}");
	}
	expect(&r, "]}");
	return r.bad || r.at != r.end ? -EBADMSG : 0;
}

static size_t write_envelope(const struct envelope *envelope, uint8_t *out, size_t capacity)
{
	struct writer w = { (char *)out, (char *)out + capacity, false };

	put_text(&w, "{\"payload\":\"");
	put_base64(&w, envelope->payload, envelope->payload_bytes);
	put_text(&w, "\",\"payloadType\":\"" PAYLOAD_TYPE "\",\"signatures\":[");
	if (envelope->is_signed) {
		put_text(&w, "{\"keyid\":\"");
		put_hex(&w, envelope->key_id, sizeof(envelope->key_id));
		put_text(&w, "\",\"sig\":\"");
		put_base64(&w, envelope->signature, sizeof(envelope->signature));
		put_text(&w, "\"}");
	}
	put_text(&w, "]}");
	return w.bad ? 0 : (size_t)(w.at - (char *)out);
}

#define PAE_BYTES_MAX (PAYLOAD_BYTES_MAX + 64)

/* The signed bytes: DSSE's pre-authentication encoding of type and payload. */
static size_t write_pae(const struct envelope *envelope, uint8_t *out)
{
	struct writer w = { (char *)out, (char *)out + PAE_BYTES_MAX, false };

	put_text(&w, "DSSEv1 ");
	put_integer(&w, strlen(PAYLOAD_TYPE));
	put_text(&w, " " PAYLOAD_TYPE " ");
	put_integer(&w, envelope->payload_bytes);
	put_text(&w, " ");
	put(&w, (const char *)envelope->payload, envelope->payload_bytes);
	return (size_t)(w.at - (char *)out);
}

static int sha256(const void *data, size_t n, uint8_t digest[SPECKV_BUNDLE_DIGEST_BYTES])
{
	return EVP_Digest(data, n, digest, NULL, EVP_sha256(), NULL) == 1 ? 0 : -ENOMEM;
}

static int verify_signature(const struct envelope *envelope, const uint8_t *public_key)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key,
		SPECKV_BUNDLE_KEY_BYTES);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t pae[PAE_BYTES_MAX];
	size_t n = write_pae(envelope, pae);
	int rc = -ENOMEM;

	if (key && context && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1)
		rc = EVP_DigestVerify(context, envelope->signature, SIGNATURE_BYTES, pae, n) == 1
			? 0
			: -EBADMSG;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return rc;
}

static int authenticate(const struct envelope *envelope, const struct speckv_bundle_keys *keys)
{
	if (!envelope->is_signed)
		return -ENOKEY;
	for (uint32_t i = 0; i < keys->count; i++) {
		const uint8_t *public_key = keys->public_keys + (size_t)i * SPECKV_BUNDLE_KEY_BYTES;
		uint8_t id[SPECKV_BUNDLE_DIGEST_BYTES];
		int rc = sha256(public_key, SPECKV_BUNDLE_KEY_BYTES, id);

		if (rc)
			return rc;
		if (memcmp(id, envelope->key_id, sizeof(id)) == 0)
			return verify_signature(envelope, public_key);
	}
	return -EKEYREJECTED;
}

int speckv_envelope_verify(const void *bytes, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out)
{
	struct speckv_bundle_manifest manifest;
	struct envelope envelope;
	int rc;

	if (!bytes || !keys || (keys->count && !keys->public_keys))
		return -EINVAL;
	rc = read_envelope(bytes, n, &envelope);
	if (!rc)
		rc = authenticate(&envelope, keys);
	if (!rc)
		rc = read_manifest(envelope.payload, envelope.payload_bytes, &manifest);
	if (rc)
		return rc;
	if (keys->part && strcmp(keys->part, manifest.part) != 0)
		return -EXDEV;
	if (manifest.security_version < keys->security_version)
		return -ESTALE;
	if (out)
		*out = manifest;
	return 0;
}

/* ---- container ------------------------------------------------------------------------------ */

static uint64_t get_le(const uint8_t *at, size_t n)
{
	uint64_t value = 0;

	while (n--)
		value = value << 8 | at[n];
	return value;
}

static void put_le(uint8_t *at, size_t n, uint64_t value)
{
	for (size_t i = 0; i < n; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

static bool all_zero(const uint8_t *at, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= at[i];
	return !any;
}

int speckv_bundle_envelope(const void *bytes, size_t n, const uint8_t **envelope,
	size_t *envelope_bytes)
{
	const uint8_t *at = bytes;
	uint64_t length, bitstream_bytes;

	if (n < SPECKV_BUNDLE_BITSTREAM_OFFSET || memcmp(at, magic, sizeof(magic)) != 0)
		return -EBADMSG;
	if (get_le(at + 8, 4) != VERSION)
		return -EPROTONOSUPPORT;
	length = get_le(at + 12, 4);
	bitstream_bytes = get_le(at + 16, 8);
	if (length > SPECKV_BUNDLE_ENVELOPE_BYTES_MAX ||
		bitstream_bytes > SPECKV_BUNDLE_BITSTREAM_BYTES_MAX ||
		bitstream_bytes != n - SPECKV_BUNDLE_BITSTREAM_OFFSET)
		return -EBADMSG;
	if (!all_zero(at + 24, SPECKV_BUNDLE_ENVELOPE_OFFSET - 24))
		return -EBADMSG;
	at += SPECKV_BUNDLE_ENVELOPE_OFFSET;
	if (!all_zero(at + length, SPECKV_BUNDLE_ENVELOPE_BYTES_MAX - length))
		return -EBADMSG;
	*envelope = at;
	*envelope_bytes = length;
	return 0;
}

static int verify_bitstream(const uint8_t *bytes, size_t n,
	const struct speckv_bundle_manifest *manifest)
{
	uint8_t digest[SPECKV_BUNDLE_DIGEST_BYTES];
	int rc;

	if (manifest->bitstream_bytes != n - SPECKV_BUNDLE_BITSTREAM_OFFSET)
		return -EBADMSG;
	rc = sha256(bytes + SPECKV_BUNDLE_BITSTREAM_OFFSET, manifest->bitstream_bytes, digest);
	if (rc)
		return rc;
	return memcmp(digest, manifest->bitstream_sha256, sizeof(digest)) == 0 ? 0 : -EILSEQ;
}

int speckv_bundle_verify(const void *bytes, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out)
{
	struct speckv_bundle_manifest manifest;
	const uint8_t *envelope;
	size_t envelope_bytes;
	int rc;

	if (!bytes || !keys)
		return -EINVAL;
	rc = speckv_bundle_envelope(bytes, n, &envelope, &envelope_bytes);
	if (!rc)
		rc = speckv_envelope_verify(envelope, envelope_bytes, keys, &manifest);
	if (!rc)
		rc = verify_bitstream(bytes, n, &manifest);
	if (!rc && out)
		*out = manifest;
	return rc;
}

static int read_bundle(const uint8_t *bytes, size_t n, struct envelope *envelope,
	struct speckv_bundle_manifest *manifest, size_t *envelope_bytes)
{
	const uint8_t *at;
	int rc = speckv_bundle_envelope(bytes, n, &at, envelope_bytes);

	if (!rc)
		rc = read_envelope(at, *envelope_bytes, envelope);
	if (!rc)
		rc = read_manifest(envelope->payload, envelope->payload_bytes, manifest);
	return rc ? rc : verify_bitstream(bytes, n, manifest);
}

int speckv_bundle_inspect(const void *bytes, size_t n, struct speckv_bundle *out)
{
	struct envelope envelope;
	size_t envelope_bytes = 0;
	int rc;

	if (!bytes || !out)
		return -EINVAL;
	memset(out, 0, sizeof(*out));
	rc = read_bundle(bytes, n, &envelope, &out->manifest, &envelope_bytes);
	if (rc) {
		memset(out, 0, sizeof(*out));
		return rc;
	}
	out->envelope_bytes = envelope_bytes;
	out->is_signed = envelope.is_signed;
	memcpy(out->key_id, envelope.key_id, sizeof(out->key_id));
	return 0;
}

/* Write header, envelope and padding in front of a bitstream that is already in place. */
static int write_front(const struct envelope *envelope, uint8_t *bytes, uint64_t bitstream_bytes)
{
	size_t n;

	memset(bytes, 0, SPECKV_BUNDLE_BITSTREAM_OFFSET);
	n = write_envelope(envelope, bytes + SPECKV_BUNDLE_ENVELOPE_OFFSET,
		SPECKV_BUNDLE_ENVELOPE_BYTES_MAX);
	if (!n)
		return -EINVAL;
	memcpy(bytes, magic, sizeof(magic));
	put_le(bytes + 8, 4, VERSION);
	put_le(bytes + 12, 4, n);
	put_le(bytes + 16, 8, bitstream_bytes);
	return 0;
}

int speckv_bundle_build(const struct speckv_bundle_manifest *manifest, const void *bitstream,
	size_t bitstream_bytes, void *out, size_t capacity)
{
	struct speckv_bundle_manifest filled;
	struct envelope envelope = { .is_signed = false };
	int rc;

	if (!manifest || !bitstream || !out || !bitstream_bytes)
		return -EINVAL;
	if (bitstream_bytes > SPECKV_BUNDLE_BITSTREAM_BYTES_MAX)
		return -EFBIG;
	if (capacity < SPECKV_BUNDLE_BITSTREAM_OFFSET + bitstream_bytes)
		return -ENOSPC;
	filled = *manifest;
	filled.bitstream_bytes = bitstream_bytes;
	rc = sha256(bitstream, bitstream_bytes, filled.bitstream_sha256);
	if (rc)
		return rc;
	envelope.payload_bytes =
		write_manifest(&filled, envelope.payload, sizeof(envelope.payload));
	if (!envelope.payload_bytes)
		return -EINVAL;
	memmove((uint8_t *)out + SPECKV_BUNDLE_BITSTREAM_OFFSET, bitstream, bitstream_bytes);
	return write_front(&envelope, out, bitstream_bytes);
}

int speckv_bundle_sign(void *bytes, size_t n, const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES])
{
	struct speckv_bundle_manifest manifest;
	struct envelope envelope;
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES], pae[PAE_BYTES_MAX];
	size_t length = SIGNATURE_BYTES, envelope_bytes;
	EVP_MD_CTX *context;
	EVP_PKEY *key;
	int rc;

	if (!bytes || !secret_key)
		return -EINVAL;
	rc = read_bundle(bytes, n, &envelope, &manifest, &envelope_bytes);
	if (!rc)
		rc = speckv_bundle_key_public(secret_key, public_key);
	if (!rc)
		rc = sha256(public_key, sizeof(public_key), envelope.key_id);
	if (rc)
		return rc;
	envelope.is_signed = true;
	key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret_key,
		SPECKV_BUNDLE_KEY_BYTES);
	context = EVP_MD_CTX_new();
	if (!key || !context || EVP_DigestSignInit(context, NULL, NULL, NULL, key) != 1 ||
		EVP_DigestSign(context, envelope.signature, &length, pae,
			write_pae(&envelope, pae)) != 1)
		rc = -ENOMEM;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(key);
	return rc ? rc : write_front(&envelope, bytes, manifest.bitstream_bytes);
}

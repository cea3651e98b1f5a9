// SPDX-License-Identifier: MIT
/*
 * Bundles: bitstreams/FORMAT.md in C.
 *
 * Every part of a bundle has exactly one encoding, so that any changed byte is detected: header and
 * envelope are compared with literals, the manifest is read by the table that writes it (fields[] in
 * manifest.c), unused bits of base64 are zero.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "bundle/bundle.h"
#include "bundle/manifest.h"
#include "bundle/text.h"

#define VERSION 0u
#define PAYLOAD_BYTES_MAX 1024u
#define SIGNATURE_BYTES 64u
#define PAYLOAD_TYPE "application/vnd.speckv.bundle.v0+json"

static const char magic[8] = { 'S', 'P', 'K', 'V', 'B', 'N', 'D', 'L' };

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
	struct bundle_reader r = { bytes, bytes + n, n > SPECKV_BUNDLE_ENVELOPE_BYTES_MAX };

	memset(out, 0, sizeof(*out));
	bundle_expect(&r, "{\"payload\":\"");
	out->payload_bytes = bundle_read_base64(&r, out->payload, sizeof(out->payload));
	bundle_expect(&r, "\",\"payloadType\":\"" PAYLOAD_TYPE "\",\"signatures\":[");
	if (bundle_next_is(&r, '{')) {
		out->is_signed = true;
		bundle_expect(&r, "{\"keyid\":\"");
		bundle_read_hex(&r, out->key_id, sizeof(out->key_id));
		bundle_expect(&r, "\",\"sig\":\"");
		if (bundle_read_base64(&r, out->signature, sizeof(out->signature)) !=
			sizeof(out->signature))
			r.bad = true;
		bundle_expect(&r, "\"}");
	}
	bundle_expect(&r, "]}");
	return r.bad || r.at != r.end ? -EBADMSG : 0;
}

static size_t write_envelope(const struct envelope *envelope, uint8_t *out, size_t capacity)
{
	struct bundle_writer w = { (char *)out, (char *)out + capacity, false };

	bundle_put_text(&w, "{\"payload\":\"");
	bundle_put_base64(&w, envelope->payload, envelope->payload_bytes);
	bundle_put_text(&w, "\",\"payloadType\":\"" PAYLOAD_TYPE "\",\"signatures\":[");
	if (envelope->is_signed) {
		bundle_put_text(&w, "{\"keyid\":\"");
		bundle_put_hex(&w, envelope->key_id, sizeof(envelope->key_id));
		bundle_put_text(&w, "\",\"sig\":\"");
		bundle_put_base64(&w, envelope->signature, sizeof(envelope->signature));
		bundle_put_text(&w, "\"}");
	}
	bundle_put_text(&w, "]}");
	return w.bad ? 0 : (size_t)(w.at - (char *)out);
}

#define PAE_BYTES_MAX (PAYLOAD_BYTES_MAX + 64)

/* The signed bytes: DSSE's pre-authentication encoding of type and payload. */
static size_t write_pae(const struct envelope *envelope, uint8_t *out)
{
	struct bundle_writer w = { (char *)out, (char *)out + PAE_BYTES_MAX, false };

	bundle_put_text(&w, "DSSEv1 ");
	bundle_put_integer(&w, strlen(PAYLOAD_TYPE));
	bundle_put_text(&w, " " PAYLOAD_TYPE " ");
	bundle_put_integer(&w, envelope->payload_bytes);
	bundle_put_text(&w, " ");
	bundle_put(&w, (const char *)envelope->payload, envelope->payload_bytes);
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
		rc = bundle_read_manifest(envelope.payload, envelope.payload_bytes, &manifest);
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
		rc = bundle_read_manifest(envelope->payload, envelope->payload_bytes, manifest);
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
		bundle_write_manifest(&filled, envelope.payload, sizeof(envelope.payload));
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

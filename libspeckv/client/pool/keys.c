// SPDX-License-Identifier: MIT
/*
 * Derivation of block keys: SHA-256 over length-prefixed fields, so that no two different
 * specifications share an encoding.
 */
#include <openssl/evp.h>

#include "base/base.h"

#define KEY_TAG "speckv block key, version 0"

static bool hash_field(EVP_MD_CTX *md, const void *data, size_t bytes)
{
	uint8_t length[8];

	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)((uint64_t)bytes >> (8 * i));
	return EVP_DigestUpdate(md, length, sizeof(length)) == 1 &&
		EVP_DigestUpdate(md, data, bytes) == 1;
}

static bool number(EVP_MD_CTX *md, uint64_t value)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	return hash_field(md, bytes, sizeof(bytes));
}

static bool hash_text(EVP_MD_CTX *md, const char *s)
{
	return hash_field(md, s ? s : "", s ? strlen(s) : 0);
}

int speckv_key_derive(const struct speckv_key_spec *spec, const void *engine_hash,
	size_t hash_bytes, struct speckv_key *out)
{
	const struct speckv_geometry *g;
	unsigned int bytes = 0;
	EVP_MD_CTX *md;
	bool ok;

	if (!spec || !engine_hash || !hash_bytes || !out || hash_bytes > 1 << 20)
		return -EINVAL;
	if (hash_bytes < 16 && !(spec->flags & 1))
		return -EPERM;
	md = EVP_MD_CTX_new();
	if (!md)
		return -ENOMEM;
	g = &spec->geometry;
	ok = EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 && hash_text(md, KEY_TAG) &&
		hash_field(md, spec->model_digest, sizeof(spec->model_digest)) &&
		number(md, g->layers) && number(md, g->kv_heads) && number(md, g->head_dim) &&
		number(md, g->tokens) && number(md, g->dtype) && hash_text(md, spec->rope) &&
		hash_text(md, spec->scales) && number(md, spec->parallel_rank) &&
		number(md, spec->parallel_size) && number(md, spec->group) &&
		hash_text(md, spec->tenant_secret) && hash_text(md, spec->cache_salt) &&
		hash_field(md, engine_hash, hash_bytes) &&
		EVP_DigestFinal_ex(md, out->bytes, &bytes) == 1 && bytes == sizeof(out->bytes);
	EVP_MD_CTX_free(md);
	return ok ? 0 : -EIO;
}

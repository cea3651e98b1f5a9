// SPDX-License-Identifier: MIT
/*
 * Signing keys of bundles: generation, key ids, PEM. For the host; a card has only public keys in
 * slots.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <speckv/bundle.h>

static EVP_PKEY *from_secret(const uint8_t *secret_key)
{
	return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, secret_key,
		SPECKV_BUNDLE_KEY_BYTES);
}

int speckv_bundle_key_generate(uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES])
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	size_t n = SPECKV_BUNDLE_KEY_BYTES;
	int rc = key && EVP_PKEY_get_raw_private_key(key, secret_key, &n) == 1 ? 0 : -ENOMEM;

	EVP_PKEY_free(key);
	return rc;
}

int speckv_bundle_key_public(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES])
{
	EVP_PKEY *key = from_secret(secret_key);
	size_t n = SPECKV_BUNDLE_KEY_BYTES;
	int rc = key && EVP_PKEY_get_raw_public_key(key, public_key, &n) == 1 ? 0 : -ENOMEM;

	EVP_PKEY_free(key);
	return rc;
}

int speckv_bundle_key_id(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t id[SPECKV_BUNDLE_DIGEST_BYTES])
{
	return EVP_Digest(public_key, SPECKV_BUNDLE_KEY_BYTES, id, NULL, EVP_sha256(), NULL) == 1
		? 0
		: -ENOMEM;
}

static int write_pem(EVP_PKEY *key, bool secret, char *pem, size_t capacity)
{
	BIO *bio = BIO_new(secret ? BIO_s_secmem() : BIO_s_mem());
	char *text;
	long n;
	int rc = -ENOMEM;

	if (key && bio &&
		(secret ? PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)
			: PEM_write_bio_PUBKEY(bio, key)) == 1) {
		n = BIO_get_mem_data(bio, &text);
		rc = n < 0 || (size_t)n >= capacity ? -ENOSPC : 0;
		if (!rc) {
			memcpy(pem, text, (size_t)n);
			pem[n] = '\0';
		}
	}
	BIO_free(bio);
	EVP_PKEY_free(key);
	return rc;
}

int speckv_bundle_secret_to_pem(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity)
{
	return write_pem(from_secret(secret_key), true, pem, capacity);
}

int speckv_bundle_public_to_pem(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity)
{
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key,
		SPECKV_BUNDLE_KEY_BYTES);

	return write_pem(key, false, pem, capacity);
}

/* Replaces libcrypto's callback, which would prompt at the terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *asked)
{
	*(bool *)asked = true;
	return -1;
}

static int read_pem(const char *pem, size_t n, bool secret, uint8_t out[SPECKV_BUNDLE_KEY_BYTES])
{
	size_t length = SPECKV_BUNDLE_KEY_BYTES;
	bool encrypted = false;
	EVP_PKEY *key;
	BIO *bio;
	int rc = 0;

	if (!pem || !out || n > 1 << 16)
		return -EINVAL;
	bio = BIO_new_mem_buf(pem, (int)n);
	if (!bio)
		return -ENOMEM;
	key = (secret ? PEM_read_bio_PrivateKey : PEM_read_bio_PUBKEY)(bio, NULL, no_passphrase,
		&encrypted);
	if (!key)
		rc = encrypted ? -EACCES : -EBADMSG;
	else if (EVP_PKEY_get_base_id(key) != EVP_PKEY_ED25519)
		rc = -EOPNOTSUPP;
	else if ((secret ? EVP_PKEY_get_raw_private_key : EVP_PKEY_get_raw_public_key)(key, out,
			 &length) != 1)
		rc = -EBADMSG;
	EVP_PKEY_free(key);
	BIO_free(bio);
	ERR_clear_error();
	return rc;
}

int speckv_bundle_secret_from_pem(const char *pem, size_t n,
	uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES])
{
	return read_pem(pem, n, true, secret_key);
}

int speckv_bundle_public_from_pem(const char *pem, size_t n,
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES])
{
	return read_pem(pem, n, false, public_key);
}

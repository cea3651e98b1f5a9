// SPDX-License-Identifier: MIT
/*
 * Bundles: what is built and signed verifies, each refusal has its own error, and every change of a
 * byte is refused.
 */
#include "bundle/bundle.h"

#include "sample.h"

#define BITSTREAM 3000u
#define TOTAL (FRONT + BITSTREAM)

static uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES];
static struct speckv_bundle_keys trusted;

static int verify(const void *bytes, size_t n)
{
	uint8_t *copy = copy_of(bytes, n);
	struct speckv_bundle_manifest out;
	int rc;

	memset(&out, 0x5a, sizeof(out));
	rc = speckv_bundle_verify(copy, n, &trusted, &out);
	if (rc)
		for (size_t i = 0; i < sizeof(out); i++)
			CHECK(((uint8_t *)&out)[i] == 0x5a,
				"the manifest of a refused bundle was handed out");
	free(copy);
	return rc;
}

static void a_signed_bundle_verifies_and_says_what_was_put_in(void)
{
	struct speckv_bundle_manifest out, wanted = example();
	uint8_t *bundle = signed_bundle(BITSTREAM), id[SPECKV_BUNDLE_DIGEST_BYTES];
	struct speckv_bundle seen;

	CHECK(!speckv_bundle_verify(bundle, TOTAL, &trusted, &out), "verify");
	wanted.bitstream_bytes = BITSTREAM;
	memcpy(wanted.bitstream_sha256, out.bitstream_sha256, sizeof(wanted.bitstream_sha256));
	CHECK(!memcmp(&wanted, &out, sizeof(out)), "the manifest came back otherwise");
	CHECK(!speckv_bundle_inspect(bundle, TOTAL, &seen), "inspect");
	CHECK(!memcmp(&wanted, &seen.manifest, sizeof(wanted)), "inspect says otherwise");
	speckv_bundle_key_id(public_key, id);
	CHECK(seen.is_signed && !memcmp(id, seen.key_id, sizeof(id)), "the key is named");
	free(bundle);
}

static void the_same_input_gives_the_same_bytes(void)
{
	uint8_t *one = signed_bundle(BITSTREAM), *two = signed_bundle(BITSTREAM);

	CHECK(!memcmp(one, two, TOTAL), "two builds differ");
	CHECK(!speckv_bundle_sign(two, TOTAL, foreign) && memcmp(one, two, TOTAL),
		"another key, another signature");
	CHECK(!speckv_bundle_sign(two, TOTAL, secret) && !memcmp(one, two, TOTAL),
		"signing again is the same");
	free(one);
	free(two);
}

static void each_refusal_has_its_own_error(void)
{
	struct speckv_bundle_manifest m = example();
	struct speckv_bundle_keys keys = trusted;
	uint8_t *bundle = signed_bundle(BITSTREAM), *other = copy_of(bundle, TOTAL);
	static uint8_t bitstream[BITSTREAM];

	CHECK(verify(bundle, TOTAL) == 0, "the good one");

	other[0] ^= 1;
	CHECK(verify(other, TOTAL) == -EBADMSG, "not a bundle");
	memcpy(other, bundle, TOTAL);
	other[8] = 1;
	CHECK(verify(other, TOTAL) == -EPROTONOSUPPORT, "another version");
	CHECK(verify(bundle, TOTAL - 1) == -EBADMSG, "truncated");

	memcpy(other, bundle, TOTAL);
	other[TOTAL - 1] ^= 0x80;
	CHECK(verify(other, TOTAL) == -EILSEQ, "another bitstream");

	CHECK(!speckv_bundle_build(&m, bitstream, BITSTREAM, other, TOTAL), "build");
	CHECK(verify(other, TOTAL) == -ENOKEY, "unsigned");
	CHECK(!speckv_bundle_sign(other, TOTAL, foreign), "sign");
	CHECK(verify(other, TOTAL) == -EKEYREJECTED, "a foreign key");

	/* A signature of the trusted key, of another manifest. */
	m.rtl_patch++;
	CHECK(!speckv_bundle_build(&m, bundle + FRONT, BITSTREAM, other, TOTAL), "build");
	CHECK(!speckv_bundle_sign(other, TOTAL, secret), "sign");
	{
		const uint8_t *envelope;
		size_t length, tail = 64 + 88 + 50;

		CHECK(!speckv_bundle_envelope(bundle, TOTAL, &envelope, &length), "envelope");
		memcpy(other + 64 + length - tail, envelope + length - tail, tail);
		CHECK(verify(other, TOTAL) == -EBADMSG, "a signature of something else");
	}

	keys.part = "LFE5U-45F-6BG381C";
	CHECK(speckv_bundle_verify(bundle, TOTAL, &keys, NULL) == -EXDEV, "another part");
	keys.part = "LFE5U-85F-6BG381C";
	CHECK(speckv_bundle_verify(bundle, TOTAL, &keys, NULL) == 0, "this part");
	keys.security_version = 7;
	CHECK(speckv_bundle_verify(bundle, TOTAL, &keys, NULL) == -ESTALE, "a downgrade");
	keys.security_version = 6;
	CHECK(speckv_bundle_verify(bundle, TOTAL, &keys, NULL) == 0, "the same security version");
	keys.count = 0;
	CHECK(speckv_bundle_verify(bundle, TOTAL, &keys, NULL) == -EKEYREJECTED,
		"no key is trusted");
	CHECK(speckv_bundle_verify(NULL, 0, &keys, NULL) == -EINVAL, "no bytes");
	CHECK(speckv_bundle_verify(bundle, TOTAL, NULL, NULL) == -EINVAL, "no keys");
	free(bundle);
	free(other);
}

static void the_right_key_is_found_among_many(void)
{
	uint8_t *bundle = signed_bundle(1), keys[20][SPECKV_BUNDLE_KEY_BYTES];
	struct speckv_bundle_keys many = { .public_keys = keys[0], .count = 20 };
	uint64_t state = 1;

	for (unsigned int i = 0; i < 20; i++)
		for (unsigned int k = 0; k < SPECKV_BUNDLE_KEY_BYTES; k++)
			keys[i][k] = (uint8_t)random_next(&state);
	CHECK(speckv_bundle_verify(bundle, FRONT + 1, &many, NULL) == -EKEYREJECTED,
		"not among them");
	memcpy(keys[19], public_key, sizeof(public_key));
	CHECK(!speckv_bundle_verify(bundle, FRONT + 1, &many, NULL), "the last of them");
	free(bundle);
}

static void every_bit_of_a_bundle_matters(void)
{
	uint8_t *bundle = signed_bundle(64);

	for (size_t bit = 0; bit < 8 * (FRONT + 64); bit++) {
		bundle[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(verify(bundle, FRONT + 64) != 0, "bit %zu of byte %zu changed nothing",
			bit % 8, bit / 8);
		bundle[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CHECK(verify(bundle, FRONT + 64) == 0, "and back");
	free(bundle);
}

static void every_length_but_its_own_is_refused(void)
{
	uint8_t *bundle = signed_bundle(64), *longer = copy_of(bundle, FRONT + 64);

	for (size_t n = 0; n < FRONT + 64; n++)
		CHECK(verify(bundle, n) == -EBADMSG, "%zu bytes of it", n);
	longer = realloc(longer, FRONT + 80);
	CHECK(longer, "out of memory");
	memset(longer + FRONT + 64, 0, 16);
	for (size_t n = FRONT + 65; n <= FRONT + 80; n++)
		CHECK(verify(longer, n) == -EBADMSG, "%zu bytes", n);
	free(bundle);
	free(longer);
}

static void random_mutations_are_refused(void)
{
	uint8_t *bundle = signed_bundle(BITSTREAM);
	uint64_t state = 2026;

	for (unsigned int i = 0; i < 20000; i++) {
		size_t n = TOTAL, changes = 1 + random_next(&state) % 8;
		uint8_t *bad = copy_of(bundle, TOTAL);

		for (size_t k = 0; k < changes; k++) {
			/* Half of them where the text is. */
			size_t at = random_next(&state) % (random_next(&state) & 1 ? 1200 : TOTAL);

			bad[at] = (uint8_t)random_next(&state);
		}
		if (random_next(&state) % 8 == 0)
			n = random_next(&state) % TOTAL;
		if (n == TOTAL && !memcmp(bad, bundle, TOTAL))
			bad[random_next(&state) % TOTAL] ^= 1;
		CHECK(verify(bad, n) < 0, "mutation %u was accepted", i);
		free(bad);
	}
	free(bundle);
}

static void a_manifest_that_does_not_fit_is_not_written(void)
{
	struct speckv_bundle_manifest m;
	static uint8_t out[FRONT + 4];

#define REFUSED(change)                                                                \
	do {                                                                           \
		m = example();                                                         \
		change;                                                                \
		CHECK(speckv_bundle_build(&m, "bits", 4, out, sizeof(out)) == -EINVAL, \
			"written: " #change);                                          \
	} while (0)

	REFUSED(m.name[0] = '\0');
	REFUSED(m.part[3] = '"');
	REFUSED(m.part[3] = '\\');
	REFUSED(m.part[3] = '\n');
	REFUSED(m.part[3] = '\x7f');
	REFUSED(m.configuration[0] = (char)0xc3);
	REFUSED(memset(m.tools, 'x', sizeof(m.tools)));
	REFUSED(m.map_major = 65536);
	REFUSED(m.map_minor = 65536);
	REFUSED(m.rtl_major = 65536);
	REFUSED(m.rtl_minor = 256);
	REFUSED(m.rtl_patch = 256);
	REFUSED(m.clock_hz = 1000000000001);
	REFUSED(m.fmax_hz = UINT64_MAX);
	m = example();
	CHECK(speckv_bundle_build(&m, "bits", 0, out, sizeof(out)) == -EINVAL,
		"an empty bitstream");
	CHECK(speckv_bundle_build(&m, "bits", 4, out, sizeof(out) - 1) == -ENOSPC, "no room");
	CHECK(speckv_bundle_build(&m, "bits", SPECKV_BUNDLE_BITSTREAM_BYTES_MAX + 1ul, out,
		      sizeof(out)) == -EFBIG,
		"too big");
	CHECK(!speckv_bundle_build(&m, "bits", 4, out, sizeof(out)), "the example itself");
}

static void the_longest_manifest_fits(void)
{
	struct speckv_bundle_manifest m = example(), back;
	uint8_t out[FRONT + 4];

	memset(m.name, 'n', sizeof(m.name) - 1);
	memset(m.configuration, 'c', sizeof(m.configuration) - 1);
	memset(m.part, 'p', sizeof(m.part) - 1);
	memset(m.tools, 't', sizeof(m.tools) - 1);
	m.map_major = m.map_minor = m.rtl_major = 65535;
	m.rtl_minor = m.rtl_patch = 255;
	m.security_version = UINT32_MAX;
	m.clock_hz = m.fmax_hz = 1000000000000;
	CHECK(!speckv_bundle_build(&m, "bits", 4, out, sizeof(out)), "build");
	CHECK(!speckv_bundle_sign(out, sizeof(out), secret), "sign");
	CHECK(!speckv_bundle_verify(out, sizeof(out), &trusted, &back), "verify");
	CHECK(!memcmp(m.tools, back.tools, sizeof(m.tools)) && back.security_version == UINT32_MAX,
		"as it was");
}

static void a_damaged_bundle_is_not_signed(void)
{
	uint8_t *bundle = signed_bundle(BITSTREAM), *before;

	bundle[FRONT] ^= 1;
	before = copy_of(bundle, TOTAL);
	CHECK(speckv_bundle_sign(bundle, TOTAL, secret) == -EILSEQ, "signed");
	CHECK(!memcmp(before, bundle, TOTAL), "and nothing was changed");
	free(before);
	free(bundle);
}

static void keys_survive_pem_and_others_are_named(void)
{
	uint8_t made[SPECKV_BUNDLE_KEY_BYTES], again[SPECKV_BUNDLE_KEY_BYTES],
		half[SPECKV_BUNDLE_KEY_BYTES];
	char pem[SPECKV_BUNDLE_PEM_BYTES];
	/* Made by `openssl genpkey`: a P-256 key, and an Ed25519 key with a passphrase. */
	static const char ec[] =
		"-----BEGIN PRIVATE KEY-----\n"
		"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgtnBhDWZUY9TaYPeF\n"
		"lLebrBPqbzkUSbx/yHi1fRn6N2ShRANCAAQnaXGcifxDVi51+iPjWA++Tbbs29hO\n"
		"cueJpgtk4ZLxf4N5XEQGR/C+0dRxE5xGfxhIqb9Re936iE6YWNaRTzbb\n"
		"-----END PRIVATE KEY-----\n";
	static const char encrypted[] =
		"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
		"MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAj6QXSktBGC1gICCAAw\n"
		"DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEBp2NUPg1YaN89vlSowJlSkEQBb8\n"
		"CL0myNXo5KVl+6WcWa/Fs8gJ2mC6Y8TgxR3LF1KXxIcxvyiYjOww+VEMTh76QvWm\n"
		"ZZ4eoOIhEACWiWC7J3Q=\n"
		"-----END ENCRYPTED PRIVATE KEY-----\n";

	for (int i = 0; i < 50; i++) {
		CHECK(!speckv_bundle_key_generate(made), "generate");
		CHECK(!speckv_bundle_secret_to_pem(made, pem, sizeof(pem)), "to PEM");
		CHECK(!strncmp(pem, "-----BEGIN PRIVATE KEY-----\n", 28), "PKCS#8: %s", pem);
		CHECK(!speckv_bundle_secret_from_pem(pem, strlen(pem), again) &&
				!memcmp(made, again, 32),
			"from PEM");
		CHECK(speckv_bundle_public_from_pem(pem, strlen(pem), again) == -EBADMSG,
			"a secret key is no public one");
		CHECK(!speckv_bundle_key_public(made, half), "public half");
		CHECK(!speckv_bundle_public_to_pem(half, pem, sizeof(pem)), "to PEM");
		CHECK(!strncmp(pem, "-----BEGIN PUBLIC KEY-----\n", 27), "SubjectPublicKeyInfo: %s",
			pem);
		CHECK(!speckv_bundle_public_from_pem(pem, strlen(pem), again) &&
				!memcmp(half, again, 32),
			"from PEM");
		CHECK(speckv_bundle_secret_from_pem(pem, strlen(pem), again) == -EBADMSG,
			"a public key is no secret one");
		CHECK(speckv_bundle_public_to_pem(half, pem, 20) == -ENOSPC, "no room");
		for (size_t n = 0; n < strlen(pem) - 30; n++)
			CHECK(speckv_bundle_public_from_pem(pem, n, again) == -EBADMSG,
				"%zu characters of it", n);
	}
	CHECK(speckv_bundle_secret_from_pem(ec, sizeof(ec) - 1, again) == -EOPNOTSUPP,
		"a key of another kind");
	CHECK(speckv_bundle_secret_from_pem(encrypted, sizeof(encrypted) - 1, again) == -EACCES,
		"no passphrase");
}

int main(void)
{
	CHECK(!speckv_bundle_key_public(secret, public_key), "public key");
	trusted.public_keys = public_key;
	trusted.count = 1;
	a_signed_bundle_verifies_and_says_what_was_put_in();
	the_same_input_gives_the_same_bytes();
	each_refusal_has_its_own_error();
	the_right_key_is_found_among_many();
	every_bit_of_a_bundle_matters();
	every_length_but_its_own_is_refused();
	random_mutations_are_refused();
	a_manifest_that_does_not_fit_is_not_written();
	the_longest_manifest_fits();
	a_damaged_bundle_is_not_signed();
	keys_survive_pem_and_others_are_named();
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Fuzzing the reader of bundles. LLVMFuzzerTestOneInput is libFuzzer's entry: build with
 * -fsanitize=fuzzer,address. With -DSTANDALONE a main of its own runs it: over files named on the
 * command line, or over a number of inputs made by mutation.
 *
 * The first byte of an input says what the rest is: a whole bundle, an envelope, or a manifest that
 * the trusted key signs, so that the fuzzer gets behind the frame and behind the signature. What is
 * accepted must be what the writer writes.
 */
#include "bundle/bundle.c"

#include "sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bundle(const uint8_t *bytes, size_t n)
{
	static uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES];
	struct speckv_bundle_keys keys = { .public_keys = public_key, .count = 1 };
	struct speckv_bundle_manifest manifest;
	struct speckv_bundle seen;
	uint8_t *again;
	int verified, inspected;

	if (all_zero(public_key, sizeof(public_key)))
		CHECK(!speckv_bundle_key_public(secret, public_key), "public key");
	verified = speckv_bundle_verify(bytes, n, &keys, &manifest);
	inspected = speckv_bundle_inspect(bytes, n, &seen);
	CHECK(verified || !inspected, "verified, and damaged: %d", inspected);
	if (inspected)
		return;
	again = copy_of(bytes, n);
	memset(again, 0xa5, FRONT);
	CHECK(!speckv_bundle_build(&seen.manifest, bytes + FRONT, n - FRONT, again, n),
		"a manifest that was read is written");
	if (!verified)
		CHECK(!speckv_bundle_sign(again, n, secret), "sign");
	if (!verified || !seen.is_signed)
		CHECK(!memcmp(again, bytes, n), "another encoding was accepted");
	free(again);
}

static void envelope(const uint8_t *text, size_t n)
{
	uint8_t whole[FRONT + 4] = { 0 };
	struct envelope read;
	size_t length;

	if (!read_envelope(text, n, &read)) {
		length = write_envelope(&read, whole, sizeof(whole));
		CHECK(length == n && !memcmp(whole, text, n),
			"another encoding of an envelope was accepted");
		memset(whole, 0, sizeof(whole));
	}
	if (n > SPECKV_BUNDLE_ENVELOPE_BYTES_MAX)
		return;
	memcpy(whole, magic, sizeof(magic));
	put_le(whole + 12, 4, n);
	put_le(whole + 16, 8, 4);
	memcpy(whole + SPECKV_BUNDLE_ENVELOPE_OFFSET, text, n);
	bundle(whole, sizeof(whole));
}

static void manifest(const uint8_t *text, size_t n)
{
	struct speckv_bundle_manifest read;
	struct envelope signing = { .payload_bytes = n, .is_signed = true };
	uint8_t out[SPECKV_BUNDLE_ENVELOPE_BYTES_MAX];

	if (n > PAYLOAD_BYTES_MAX)
		return;
	if (!bundle_read_manifest(text, n, &read)) {
		CHECK(bundle_write_manifest(&read, out, sizeof(out)) == n, "another length");
		CHECK(!memcmp(out, text, n), "another encoding of a manifest was accepted");
	}
	memcpy(signing.payload, text, n);
	envelope(out, write_envelope(&signing, out, sizeof(out)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size < 1)
		return 0;
	copy = copy_of(data + 1, size - 1);
	if (data[0] % 3 == 0)
		bundle(copy, size - 1);
	else if (data[0] % 3 == 1)
		envelope(copy, size - 1);
	else
		manifest(copy, size - 1);
	free(copy);
	return 0;
}

#ifdef STANDALONE
static void mutations(unsigned long count)
{
	static const char *const words[] = { "\"", "}", "{", "]", ",", ":", "0", "00", "-1", "=",
		"==", "1e9", "\\u0041", "  ", "18446744073709551616", "4294967296", "null", "[]",
		"\"name\":\"x\"," };
	uint8_t *whole = signed_bundle(40), input[1 + FRONT + 40 + 64];
	struct envelope parts;
	const uint8_t *text;
	uint64_t state = 7;
	size_t length;

	CHECK(!speckv_bundle_envelope(whole, FRONT + 40, &text, &length), "envelope");
	CHECK(!read_envelope(text, length, &parts), "parts");
	for (unsigned long done = 0; done < count; done++) {
		const uint8_t *sources[] = { whole, text, parts.payload };
		size_t sizes[] = { FRONT + 40, length, parts.payload_bytes };
		unsigned int which = (unsigned int)(random_next(&state) % 3);
		size_t n = sizes[which], changes = random_next(&state) % 5;

		input[0] = (uint8_t)which;
		memcpy(input + 1, sources[which], n);
		for (size_t k = 0; k < changes && n; k++) {
			size_t at = random_next(&state) %
				(which == 0 && random_next(&state) & 1 ? 64 : n);

			if (random_next(&state) % 3 == 0) { /* a word is put in */
				const char *word = words[random_next(&state) %
					(sizeof(words) / sizeof(words[0]))];

				memmove(input + 1 + at + strlen(word), input + 1 + at, n - at);
				memcpy(input + 1 + at, word, strlen(word));
				n += strlen(word);
				if (n > FRONT + 40)
					n = FRONT + 40;
			} else if (random_next(&state) & 1) { /* a byte is taken out */
				memmove(input + 1 + at, input + 2 + at, n - at - 1);
				n--;
			} else {
				input[1 + at] = (uint8_t)(random_next(&state) & 1
						? random_next(&state)
						: input[1 + at] ^ 1u);
			}
		}
		LLVMFuzzerTestOneInput(input, 1 + n);
	}
	free(whole);
	printf("%lu inputs\n", count);
}

int main(int argc, char **argv)
{
	char *end;
	unsigned long count = argc == 2 ? strtoul(argv[1], &end, 10) : 0;

	if (argc == 2 && !*end && count) {
		mutations(count);
		return 0;
	}
	for (int i = 1; i < argc; i++) {
		static uint8_t input[1 << 20];
		FILE *file = fopen(argv[i], "rb");
		size_t size;

		if (!file) {
			perror(argv[i]);
			return 1;
		}
		size = fread(input, 1, sizeof(input), file);
		fclose(file);
		LLVMFuzzerTestOneInput(input, size);
	}
	return 0;
}
#endif

/* SPDX-License-Identifier: MIT */
/* What the C tests of bundles share: random numbers, a manifest and a signed bundle. */
#ifndef TEST_BUNDLES_SAMPLE_H
#define TEST_BUNDLES_SAMPLE_H

#include <errno.h>
#include <string.h>

#include <speckv/bundle.h>

#include "../../check.h"

#define FRONT SPECKV_BUNDLE_BITSTREAM_OFFSET

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* Exactly that long, so that the sanitizer watches both ends. */
static inline uint8_t *copy_of(const void *bytes, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	CHECK(copy, "out of memory");
	if (n)
		memcpy(copy, bytes, n);
	return copy;
}

static const uint8_t secret[SPECKV_BUNDLE_KEY_BYTES] = "the key of these tests, 32 bytes";
static const uint8_t foreign[SPECKV_BUNDLE_KEY_BYTES] = "a key that nobody here trusts...";

static inline struct speckv_bundle_manifest example(void)
{
	struct speckv_bundle_manifest m = {
		.name = "speckv",
		.configuration = "regs-only",
		.part = "LFE5U-85F-6BG381C",
		.tools = "one; two 1.0",
		.build_id = { 1, 2, 3, 4, 5, 6, 7, 0xff },
		.clock_hz = 25000000,
		.fmax_hz = 71230000,
		.map_major = 1,
		.map_minor = 2,
		.rtl_major = 3,
		.rtl_minor = 4,
		.rtl_patch = 5,
		.security_version = 6,
	};
	return m;
}

/* A signed bundle of n bytes of bitstream, FRONT + n long. */
static inline uint8_t *signed_bundle(size_t n)
{
	struct speckv_bundle_manifest m = example();
	uint8_t *bitstream = malloc(n), *bundle = malloc(FRONT + n);

	CHECK(bitstream && bundle, "out of memory");
	for (size_t i = 0; i < n; i++)
		bitstream[i] = (uint8_t)(i * 7 + i / 251);
	CHECK(!speckv_bundle_build(&m, bitstream, n, bundle, FRONT + n), "build");
	CHECK(!speckv_bundle_sign(bundle, FRONT + n, secret), "sign");
	free(bitstream);
	return bundle;
}

#endif

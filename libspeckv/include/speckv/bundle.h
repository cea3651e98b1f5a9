/* SPDX-License-Identifier: MIT */
/**
 * speckv/bundle.h - signed bitstreams: build, inspect, sign, verify, and their keys. Format:
 * bitstreams/FORMAT.md.
 *
 * Stateless and thread-safe; no file is opened and nothing is kept. Sizes are in bytes. What is
 * read is bounded before it is used, and a verifier interprets nothing before its signature was
 * verified. Bytes handed in must not change during a call.
 */
#ifndef SPECKV_BUNDLE_H
#define SPECKV_BUNDLE_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** header, envelope and zeros come before it */
#define SPECKV_BUNDLE_BITSTREAM_OFFSET 4096
#define SPECKV_BUNDLE_ENVELOPE_OFFSET 64
#define SPECKV_BUNDLE_ENVELOPE_BYTES_MAX 4032
#define SPECKV_BUNDLE_BITSTREAM_BYTES_MAX (256 << 20)
#define SPECKV_BUNDLE_TEXT_BYTES 32
#define SPECKV_BUNDLE_TOOLS_BYTES 128
/** an Ed25519 key, secret (its seed) or public */
#define SPECKV_BUNDLE_KEY_BYTES 32
#define SPECKV_BUNDLE_DIGEST_BYTES 32
/** always enough for a key in PEM, NUL included */
#define SPECKV_BUNDLE_PEM_BYTES 256

/**
 * What a bundle says of its bitstream. Texts are 1 to size - 1 characters of printable ASCII
 * without '"' and '\'.
 */
struct speckv_bundle_manifest {
	char name[SPECKV_BUNDLE_TEXT_BYTES]; /**< "speckv" */
	char configuration[SPECKV_BUNDLE_TEXT_BYTES]; /**< "regs-only" */
	/** FPGA part, as the card's IDENTIFY names it */
	char part[SPECKV_BUNDLE_TEXT_BYTES];
	char tools[SPECKV_BUNDLE_TOOLS_BYTES]; /**< what it was built with, for people */
	uint8_t bitstream_sha256[SPECKV_BUNDLE_DIGEST_BYTES];
	/** BUILD_ID of the register map, lowest byte first */
	uint8_t build_id[8];
	uint64_t bitstream_bytes;
	uint64_t clock_hz; /**< clock that timing was checked for */
	/** fastest clock that the tools say it holds */
	uint64_t fmax_hz;
	uint32_t map_major; /**< register map: MAP_VERSION */
	uint32_t map_minor;
	uint32_t rtl_major; /**< logic: RTL_REVISION */
	uint32_t rtl_minor;
	uint32_t rtl_patch;
	uint32_t security_version;
};

/** What a verifier insists on. Everything in it is the caller's. */
struct speckv_bundle_keys {
	const uint8_t *public_keys; /**< `count` keys of SPECKV_BUNDLE_KEY_BYTES that may sign */
	uint32_t count;
	uint32_t security_version; /**< lowest that is accepted */
	const char *part; /**< the only part that is accepted; NULL: any */
};

/** A bundle as it is, not verified. */
struct speckv_bundle {
	struct speckv_bundle_manifest manifest;
	uint64_t envelope_bytes;
	uint32_t is_signed;
	/** of the key that is said to have signed; else zero */
	uint8_t key_id[SPECKV_BUNDLE_DIGEST_BYTES];
};

/**
 * Verify a whole bundle: form, signature by one of the keys, manifest, part, security version,
 * bitstream, in this order. `out` (may be NULL) is filled only on success. Errors:
 *   -EBADMSG         no bundle, cut short, damaged, or a signature that is not that key's
 *   -EPROTONOSUPPORT another version of the format
 *   -ENOKEY          not signed
 *   -EKEYREJECTED    signed by a key that is not among the keys
 *   -EXDEV           for another part
 *   -ESTALE          security version below the one in `keys`
 *   -EILSEQ          the bitstream is not the one that was signed
 *   -EINVAL          NULL where none is allowed;  -ENOMEM
 */
int speckv_bundle_verify(const void *bytes, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out);

/**
 * Read a bundle without asking who signed it; the bitstream is held against its digest. For people
 * to look at: nothing here was proven. Errors: -EBADMSG, -EPROTONOSUPPORT, -EILSEQ, -EINVAL,
 * -ENOMEM as above.
 */
int speckv_bundle_inspect(const void *bytes, size_t n, struct speckv_bundle *out);

/**
 * Write an unsigned bundle of SPECKV_BUNDLE_BITSTREAM_OFFSET + `bitstream_bytes` into `out`. The
 * manifest's own bitstream_bytes and bitstream_sha256 are not read: they are those of the
 * bitstream. Errors: -EINVAL (a field of the manifest, an empty bitstream), -EFBIG
 * (SPECKV_BUNDLE_BITSTREAM_BYTES_MAX), -ENOSPC (capacity), -ENOMEM.
 */
int speckv_bundle_build(const struct speckv_bundle_manifest *manifest, const void *bitstream,
	size_t bitstream_bytes, void *out, size_t capacity);

/**
 * Sign a bundle in place; a signature that it has is replaced. Errors: those of
 * speckv_bundle_inspect().
 */
int speckv_bundle_sign(void *bytes, size_t n, const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);

/** Make a key pair's secret half. Errors: -ENOMEM (or the system has no randomness). */
int speckv_bundle_key_generate(uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);
/** The public half. Errors: -ENOMEM. */
int speckv_bundle_key_public(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES]);
/** The name of a public key: its SHA-256. Errors: -ENOMEM. */
int speckv_bundle_key_id(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t id[SPECKV_BUNDLE_DIGEST_BYTES]);

/**
 * Write a key as PEM (PKCS#8, SubjectPublicKeyInfo), with a NUL. Errors: -ENOSPC (capacity),
 * -ENOMEM.
 */
int speckv_bundle_secret_to_pem(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity);
int speckv_bundle_public_to_pem(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity);
/**
 * Read a key. Errors: -EBADMSG (none there), -EOPNOTSUPP (of another kind), -EACCES (encrypted),
 * -EINVAL, -ENOMEM.
 */
int speckv_bundle_secret_from_pem(const char *pem, size_t n,
	uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);
int speckv_bundle_public_from_pem(const char *pem, size_t n,
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES]);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/**
 * speckv/bundle.h - signed bitstreams: build, inspect, sign, verify, and their keys. Format:
 * bitstreams/FORMAT.md.
 *
 * Stateless and thread-safe; no file is opened. Sizes are in bytes. All input is bounds-checked
 * before use, and a verifier interprets nothing before the signature has verified. Input bytes must
 * not change during a call.
 */
#ifndef SPECKV_BUNDLE_H
#define SPECKV_BUNDLE_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** preceded by header, envelope and zeros */
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
 * Description of a bitstream in its bundle. Texts are 1 to size - 1 characters of printable ASCII
 * without '"' and '\'.
 */
struct speckv_bundle_manifest {
	char name[SPECKV_BUNDLE_TEXT_BYTES]; /**< "speckv" */
	char configuration[SPECKV_BUNDLE_TEXT_BYTES]; /**< "regs-only" */
	/** FPGA part, as in the card's IDENTIFY */
	char part[SPECKV_BUNDLE_TEXT_BYTES];
	char tools[SPECKV_BUNDLE_TOOLS_BYTES]; /**< tools of the build, informational */
	uint8_t bitstream_sha256[SPECKV_BUNDLE_DIGEST_BYTES];
	/** BUILD_ID of the register map, lowest byte first */
	uint8_t build_id[8];
	uint64_t bitstream_bytes;
	uint64_t clock_hz; /**< clock of the timing check */
	/** fastest clock that the tools report */
	uint64_t fmax_hz;
	uint32_t map_major; /**< register map: MAP_VERSION */
	uint32_t map_minor;
	uint32_t rtl_major; /**< logic: RTL_REVISION */
	uint32_t rtl_minor;
	uint32_t rtl_patch;
	uint32_t security_version;
};

/** A verifier's policy. The caller owns all of it. */
struct speckv_bundle_keys {
	const uint8_t *public_keys; /**< `count` keys of SPECKV_BUNDLE_KEY_BYTES that may sign */
	uint32_t count;
	uint32_t security_version; /**< lowest that is accepted */
	const char *part; /**< the only accepted part; NULL: any */
};

/** A bundle, not verified. */
struct speckv_bundle {
	struct speckv_bundle_manifest manifest;
	uint64_t envelope_bytes;
	uint32_t is_signed;
	/** of the claimed signing key; else zero */
	uint8_t key_id[SPECKV_BUNDLE_DIGEST_BYTES];
};

/**
 * Verify a whole bundle: form, signature by one of the keys, manifest, part, security version,
 * bitstream, in this order. `out` (may be NULL) is filled only on success. Errors:
 *   -EBADMSG         not a bundle, truncated, damaged, or an invalid signature of that key
 *   -EPROTONOSUPPORT another version of the format
 *   -ENOKEY          not signed
 *   -EKEYREJECTED    signed by a key that is not among the keys
 *   -EXDEV           for another part
 *   -ESTALE          security version below the one in `keys`
 *   -EILSEQ          the bitstream does not match the signed digest
 *   -EINVAL          NULL where none is allowed;  -ENOMEM
 */
int speckv_bundle_verify(const void *bytes, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out);

/**
 * Parse a bundle without verifying its signature; the bitstream is checked against its digest. For
 * display only: nothing is authenticated. Errors: -EBADMSG, -EPROTONOSUPPORT, -EILSEQ, -EINVAL,
 * -ENOMEM as above.
 */
int speckv_bundle_inspect(const void *bytes, size_t n, struct speckv_bundle *out);

/**
 * Write an unsigned bundle of SPECKV_BUNDLE_BITSTREAM_OFFSET + `bitstream_bytes` into `out`. The
 * manifest's bitstream_bytes and bitstream_sha256 are ignored, and computed from the bitstream.
 * Errors: -EINVAL (a field of the manifest, an empty bitstream), -EFBIG
 * (SPECKV_BUNDLE_BITSTREAM_BYTES_MAX), -ENOSPC (capacity), -ENOMEM.
 */
int speckv_bundle_build(const struct speckv_bundle_manifest *manifest, const void *bitstream,
	size_t bitstream_bytes, void *out, size_t capacity);

/** Sign a bundle in place, replacing any signature. Errors: those of speckv_bundle_inspect(). */
int speckv_bundle_sign(void *bytes, size_t n, const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);

/** Generate a secret key. Errors: -ENOMEM (or the system has no randomness). */
int speckv_bundle_key_generate(uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);
/** The public key of a secret key. Errors: -ENOMEM. */
int speckv_bundle_key_public(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES]);
/** ID of a public key: its SHA-256. Errors: -ENOMEM. */
int speckv_bundle_key_id(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES],
	uint8_t id[SPECKV_BUNDLE_DIGEST_BYTES]);

/**
 * Write a key as PEM (PKCS#8, SubjectPublicKeyInfo), NUL-terminated. Errors: -ENOSPC (capacity),
 * -ENOMEM.
 */
int speckv_bundle_secret_to_pem(const uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity);
int speckv_bundle_public_to_pem(const uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES], char *pem,
	size_t capacity);
/**
 * Parse a key in PEM. Errors: -EBADMSG (none found), -EOPNOTSUPP (of another kind), -EACCES
 * (encrypted), -EINVAL, -ENOMEM.
 */
int speckv_bundle_secret_from_pem(const char *pem, size_t n,
	uint8_t secret_key[SPECKV_BUNDLE_KEY_BYTES]);
int speckv_bundle_public_from_pem(const char *pem, size_t n,
	uint8_t public_key[SPECKV_BUNDLE_KEY_BYTES]);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/*
 * Card-side additions to speckv/bundle.h: verify an envelope before, or apart from, its bitstream.
 */
#ifndef SPECKV_BUNDLE_BUNDLE_H
#define SPECKV_BUNDLE_BUNDLE_H

#include <speckv/bundle.h>

/*
 * Verify an envelope alone: form, signature, manifest, part, security version; errors as
 * speckv_bundle_verify(). The caller must check the bitstream against out->bitstream_bytes and
 * out->bitstream_sha256.
 */
int speckv_envelope_verify(const void *envelope, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out);

/* Locate the envelope of a bundle: checks the header and the padding, not the envelope. */
int speckv_bundle_envelope(const void *bytes, size_t n, const uint8_t **envelope,
	size_t *envelope_bytes);

#endif

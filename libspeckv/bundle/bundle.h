/* SPDX-License-Identifier: MIT */
/*
 * What a card needs of a bundle beyond speckv/bundle.h: the way to judge an envelope while the
 * bitstream is somewhere else, or still on its way.
 */
#ifndef SPECKV_BUNDLE_BUNDLE_H
#define SPECKV_BUNDLE_BUNDLE_H

#include <speckv/bundle.h>

/*
 * Verify an envelope alone: form, signature, manifest, part, security version; errors as
 * speckv_bundle_verify(). The caller still has to hold the bitstream against out->bitstream_bytes
 * and out->bitstream_sha256.
 */
int speckv_envelope_verify(const void *envelope, size_t n, const struct speckv_bundle_keys *keys,
	struct speckv_bundle_manifest *out);

/*
 * Where the envelope of a bundle is: the form of header and envelope's surroundings is checked, the
 * envelope is not.
 */
int speckv_bundle_envelope(const void *bytes, size_t n, const uint8_t **envelope,
	size_t *envelope_bytes);

#endif

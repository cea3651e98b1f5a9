/* SPDX-License-Identifier: MIT */
/* The manifest of a bundle, in its only encoding. */
#ifndef SPECKV_BUNDLE_MANIFEST_H
#define SPECKV_BUNDLE_MANIFEST_H

#include <speckv/bundle.h>

/* Write the unique encoding of a manifest; 0: a field does not fit. */
size_t bundle_write_manifest(const struct speckv_bundle_manifest *manifest, uint8_t *out,
	size_t capacity);
/* -EBADMSG: not that encoding. */
int bundle_read_manifest(const uint8_t *payload, size_t n, struct speckv_bundle_manifest *out);

#endif

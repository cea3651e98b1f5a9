/* SPDX-License-Identifier: MIT */
/*
 * The backends (tables of store/operations.h), and frames as all of them hold them. For this
 * folder, pool/ and admin/.
 */
#ifndef SPECKV_CLIENT_BACKEND_H
#define SPECKV_CLIENT_BACKEND_H

#include "client/store/store.h"

/* ---- frames.c: frames in this pool's mode --------------------------------------------------- */

/* Can this pool hold frames of a mode? The reason: -EOPNOTSUPP, text set. */
int frame_possible(struct region *region, unsigned int codec);
int frame_encode(struct region *region, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, void *frame,
	uint64_t capacity, uint64_t *frame_bytes);
/* Layers of the frame at `at`, if it is this block's frame in this place of this pool. */
int frame_decode(struct region *region, const struct speckv_key *key, const struct block_ref *found,
	const void *at, uint64_t available, struct layers layers, void *raw, uint64_t bytes);

/* ---- mapped.c, card_device.c, devices.c ----------------------------------------------------- */

extern const struct device_backend mapped_device, card_device;
/* What lies at a device name, with its backend. Text set. */
int device_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
int device_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info);

/* ---- selftest.c ----------------------------------------------------------------------------- */

/* Tell a step that began at `start` and ends now; returns what `step` does. */
int selftest_step(speckv_selftest_cb step, void *arg, const char *name, uint64_t start, int result,
	const char *detail);
void mapped_selftest(struct speckv_device *dev, speckv_selftest_cb step, void *arg);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The backends (tables of store/operations.h), and the frames common to all. For this folder, pool/
 * and admin/.
 */
#ifndef SPECKV_CLIENT_BACKEND_H
#define SPECKV_CLIENT_BACKEND_H

#include "client/store/store.h"

/* ---- frames.c: frames in this pool's mode --------------------------------------------------- */

/* -EOPNOTSUPP, text set: this pool cannot hold frames of that mode. */
int frame_possible(struct region *region, unsigned int codec);
int frame_encode(struct region *region, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, void *frame,
	uint64_t capacity, uint64_t *frame_bytes);
/*
 * Decode layers of the frame at `at`, if it is the frame of this block at this place of this pool.
 */
int frame_decode(struct region *region, const struct speckv_key *key, const struct block_ref *found,
	const void *at, uint64_t available, struct layers layers, void *raw, uint64_t bytes);

/* ---- mapped.c, card_device.c, devices.c ----------------------------------------------------- */

extern const struct device_backend mapped_device, card_device;
/* Parse a device name and set its backend. Text set. */
int device_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
int device_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info);

/* ---- selftest.c ----------------------------------------------------------------------------- */

/* Report a step that ran from `start` until now; returns the result of `step`. */
int selftest_step(speckv_selftest_cb step, void *arg, const char *name, uint64_t start, int result,
	const char *detail);
void mapped_selftest(struct speckv_device *dev, speckv_selftest_cb step, void *arg);

#endif

/* SPDX-License-Identifier: MIT */
/* Administration of devices and pools. For this folder only. */
#ifndef SPECKV_CLIENT_ADMIN_H
#define SPECKV_CLIENT_ADMIN_H

#include "client/pool/pool.h"

/* ---- device.c ------------------------------------------------------------------------------- */

/* The error for a medium in this state; 0 if it is ready. Text set. */
int medium_refuse(struct speckv_ctx *ctx, const struct medium *medium,
	const struct speckv_device_info *info);

/* ---- adopt.c: pools with a file and without a record ---------------------------------------- */

/* Create records for pools that have a file and no record. */
int device_adopt(struct speckv_device *dev);
/*
 * Remove drafts and lock files of pools without a record that no process uses; under the manager's
 * lock.
 */
void pools_tidy(struct speckv_device *dev, const struct folder *pools);

/* ---- check.c -------------------------------------------------------------------------------- */

/*
 * Recreate a missing lock file, and give it and the record the owner and mode of the pool's file.
 * 1: done, 0: nothing to do. A live client with locks in the lost file then counts as dead; its
 * published blocks stay sound.
 */
int pool_lock_restore(struct speckv_device *dev, const char *pool);

/* ---- removal.c ------------------------------------------------------------------------------ */

/*
 * Remove these pools: all, or none where one cannot be removed. Between device_manage() and
 * device_unmanage(), or device_inspect() for a dry run.
 */
int pools_remove(struct speckv_device *dev, struct lay_pool_record *const *records, size_t n,
	bool dry_run, speckv_progress_cb progress, void *arg);

#endif

/* SPDX-License-Identifier: MIT */
/* What administers devices and pools. For this folder only. */
#ifndef SPECKV_CLIENT_ADMIN_H
#define SPECKV_CLIENT_ADMIN_H

#include "client/pool/pool.h"

/* ---- device.c ------------------------------------------------------------------------------- */

/* Why what was found there is not used as it is; 0 where it is ready. Text set. */
int medium_refuse(struct speckv_ctx *ctx, const struct medium *medium,
	const struct speckv_device_info *info);

/* ---- adopt.c: records of pools whose files are there and that no record names --------------- */

/* adopt.c: make records of the pools whose files are there and that no record names. */
int device_adopt(struct speckv_device *dev);
/*
 * Remove drafts and locks of pools that no record names and no process uses; under the manager's
 * lock.
 */
void pools_tidy(struct speckv_device *dev, const struct folder *pools);

/* ---- check.c -------------------------------------------------------------------------------- */

/*
 * Make it again where it is gone, and let it and the record have the owner and mode of the pool's
 * file. 1: done, 0: nothing to do. A client that lives unseen, with locks in the file that is gone,
 * is taken for dead: its blocks stay whole.
 */
int pool_lock_restore(struct speckv_device *dev, const char *pool);

/* ---- removal.c ------------------------------------------------------------------------------ */

/*
 * Remove these pools, or none where one of them cannot be. While the device is managed, or
 * inspected for a dry run.
 */
int pools_remove(struct speckv_device *dev, struct lay_pool_record *const *records, size_t n,
	bool dry_run, speckv_progress_cb progress, void *arg);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The operations on a card, between card_device.c, card_pools.c and card_blocks.c; see store/operations.h.
 */
#ifndef SPECKV_CLIENT_CARDS_H
#define SPECKV_CLIENT_CARDS_H

#include "backend.h"

extern const struct pool_backend card_pool;

int card_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium);
int card_manage(struct speckv_device *dev, bool inspect);
void card_unmanage(struct speckv_device *dev);
int card_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	const struct region_plan *plan, struct lay_pool_record *record);
int card_pool_delete(struct speckv_device *dev, const uint8_t uuid[16]);
int card_pool_resize(struct speckv_device *dev, const struct lay_pool_record *record,
	uint64_t capacity_bytes, bool dry_run);
int card_pool_owner(struct speckv_device *dev, const struct lay_pool_record *record, uint32_t uid,
	uint32_t gid, uint32_t mode);

#endif

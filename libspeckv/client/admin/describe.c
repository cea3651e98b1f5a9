// SPDX-License-Identifier: MIT
/* Description of pools. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin.h"

static void describe_region(struct region *r, struct speckv_pool_info *info)
{
	const struct lay_pool *pool = &r->head->pool;
	struct page_census census;

	pages_census(r, &census);
	info->accessible = 1;
	info->config.geometry = r->fixed.geometry;
	info->config.page_bytes = r->page_bytes;
	info->config.single_tenant = r->fixed.single_tenant;
	info->config.first_layer = r->fixed.calibration.first_layer;
	info->config.first_head = r->fixed.calibration.first_head;
	info->config.calibration_bytes = r->fixed.calibration.bytes;
	info->config.max_bytes = r->fixed.max_pages * r->page_bytes;
	info->config.capacity_bytes = region_pages(r) * r->page_bytes;
	info->config.quota_bytes = load_acquire(&pool->quota_pages) * r->page_bytes;
	info->config.tenant_quota_bytes = load_acquire(&pool->tenant_quota_pages) * r->page_bytes;
	info->config.eviction = load_acquire(&pool->eviction);
	info->block_bytes = r->fixed.block_bytes;
	info->used_bytes = (census.used + census.claimed + census.orphan) * r->page_bytes;
	info->free_bytes = census.free * r->page_bytes;
	info->blocks = census.blocks;
	info->raw_bytes = census.raw_bytes;
	info->stored_bytes = census.stored_bytes;
	info->resizes = load_acquire(&pool->resizes);
	/* the part before its total */
	info->puts_bit_exact = load_acquire(&r->head->stats.counters[SPECKV_COUNT_PUT_BIT_EXACT]);
	info->puts = load_acquire(&r->head->stats.counters[SPECKV_COUNT_PUTS]);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		info->clients += load_acquire(&r->head->clients[slot].state) & 1 &&
			client_alive(r, slot);
	for (unsigned int i = 0; i < LAY_TENANTS; i++)
		info->tenants += load_acquire(&r->head->tenants[i].state) == 2;
}

static void describe_record(struct speckv_device *dev, const struct lay_pool_record *record,
	struct speckv_pool_info *info)
{
	struct region region;
	int rc;

	memset(info, 0, sizeof(*info));
	memcpy(info->config.name, record->name, sizeof(info->config.name));
	info->config.capacity_bytes = record->capacity_bytes;
	info->config.max_bytes = record->max_bytes;
	info->config.codec = record->codec;
	info->config.uid = record->uid;
	info->config.gid = record->gid;
	info->config.mode = record->mode;
	memcpy(info->uuid, record->uuid, sizeof(info->uuid));
	memcpy(info->calibration, record->calibration, sizeof(info->calibration));
	info->state = load_acquire(&record->state);
	info->table_bytes = record->table_bytes;
	info->created_ns = record->created_ns;
	info->placement = record->codec < 32 && dev->codec_modes >> record->codec & 1
		? SPECKV_PLACED_CARD
		: SPECKV_PLACED_HOST;
	if (dev->single_inode) {
		struct stat st;

		snprintf(info->path, sizeof(info->path), "%s", dev->medium.path);
		if (fstat(dev->fd, &st) == 0) {
			info->config.uid = st.st_uid;
			info->config.gid = st.st_gid;
			info->config.mode = st.st_mode & 0777;
		}
	} else {
		medium_pool_path(&dev->medium, record->name, info->path);
	}
	rc = region_open(dev, record->name, false, &region);
	if (!rc) {
		describe_region(&region, info);
		region_close(&region);
	} else if (rc == -EUCLEAN || rc == -EBADMSG) {
		info->state = !dev->single_inode && access(info->path, F_OK) != 0 && errno == ENOENT
			? SPECKV_POOL_LOST
			: SPECKV_POOL_DAMAGED;
	}
}

int speckv_pool_info(struct speckv_device *dev, const char *name, struct speckv_pool_info *info)
{
	struct lay_pool_record record;
	int number;

	if (!dev || !name || !info)
		return -EINVAL;
	number = device_find(dev, name, &record);
	if (number < 0)
		return number;
	describe_record(dev, &record, info);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct lay_pool_record *x = a, *y = b;

	return strcmp(x->name, y->name);
}

int speckv_pool_foreach(struct speckv_device *dev, speckv_pool_cb cb, void *arg)
{
	struct lay_pool_record *list;
	struct speckv_pool_info *info;
	size_t n = 0;
	int rc;

	if (!dev || !cb)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	list = calloc(LAY_POOLS, sizeof(*list));
	info = calloc(1, sizeof(*info));
	if (!list || !info)
		rc = fail(dev->ctx, -ENOMEM, "out of memory");
	for (int i = 0; i < LAY_POOLS && !rc; i++)
		if (load_acquire(&dev->table->pools[i].state)) {
			memcpy((void *)&list[n], (const void *)&dev->table->pools[i],
				sizeof(list[n]));
			list[n].name[sizeof(list[n].name) - 1] = 0;
			n++;
		}
	if (!rc)
		qsort(list, n, sizeof(*list), by_name);
	for (size_t i = 0; i < n && !rc; i++) {
		describe_record(dev, &list[i], info);
		rc = cb(info, arg);
	}
	free(list);
	free(info);
	return rc;
}

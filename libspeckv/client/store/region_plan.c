// SPDX-License-Identifier: MIT
/* Layout of a pool's region. */
#include "store.h"

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

int region_plan(struct speckv_ctx *ctx, const struct speckv_pool_config *config, bool single,
	struct region_plan *plan)
{
	uint64_t least, most, entries,
		min_frame = speckv_frame_min_bytes(&config->geometry, config->codec);
	char a[32], b[32];

	memset(plan, 0, sizeof(*plan));
	plan->block_bytes = speckv_geometry_bytes(&config->geometry);
	if (!((speckv_codec_modes() | speckv_codec_calibrated_modes()) & 1u << config->codec))
		return fail(ctx, -EOPNOTSUPP, "codec %s is not in this build",
			speckv_codec_name(config->codec) ? speckv_codec_name(config->codec) : "?");
	if (!plan->block_bytes || !min_frame)
		return fail(ctx, -EINVAL,
			"no such block shape: layers and heads at least 1, tokens a multiple of 64, head size 64, 80, 96, 128, 192 or 256, dtype bf16, fp16 or fp8");
	plan->page_bytes = config->page_bytes;
	if (!plan->page_bytes)
		for (plan->page_bytes = 1024; plan->page_bytes < 65536 &&
			plan->page_bytes * 2ull <= plan->block_bytes / 64;)
			plan->page_bytes *= 2;
	if (plan->page_bytes < 256 || plan->page_bytes > 65536 ||
		(plan->page_bytes & (plan->page_bytes - 1)))
		return fail(ctx, -EINVAL, "page size %u is not a power of two from 256 to 65536",
			plan->page_bytes);
	if (config->capacity_bytes > 1ull << 56 || config->max_bytes > 1ull << 56)
		return fail(ctx, -EINVAL, "a pool of %s is larger than any medium",
			human(a, config->capacity_bytes));
	plan->capacity_bytes = round_up(config->capacity_bytes, LAY_UNIT);
	plan->max_bytes = round_up(config->max_bytes ? config->max_bytes
						     : plan->capacity_bytes * (single ? 2 : 8),
		LAY_UNIT);
	most = (speckv_frame_max_bytes(&config->geometry, SPECKV_CODEC_RAW) + plan->page_bytes -
		       1) /
		plan->page_bytes;
	if (most > LAY_RUN_MAX)
		return fail(ctx, -EINVAL,
			"a block of %s has more than %u pages of %u bytes; use larger pages",
			human(a, plan->block_bytes), LAY_RUN_MAX, plan->page_bytes);
	if (!plan->capacity_bytes || plan->capacity_bytes < most * plan->page_bytes)
		return fail(ctx, -EINVAL, "a pool of %s cannot hold even one block of %s",
			human(a, config->capacity_bytes), human(b, plan->block_bytes));
	if (plan->max_bytes < plan->capacity_bytes)
		return fail(ctx, -EINVAL, "the largest size (%s) is below the size (%s)",
			human(a, plan->max_bytes), human(b, plan->capacity_bytes));
	/*
	 * Fewest pages of a run: one index entry per that many pages, so that entries need no
	 * allocator.
	 */
	least = (min_frame + plan->page_bytes - 1) / plan->page_bytes;
	if (least < most / 16)
		least = most / 16;
	plan->min_run = least ? (uint32_t)least : 1;
	plan->pages = plan->capacity_bytes / plan->page_bytes;
	plan->max_pages = plan->max_bytes / plan->page_bytes;
	plan->max_entries = plan->max_pages / plan->min_run + 1;
	if (plan->max_entries >= 1ull << 32)
		return fail(ctx, -EINVAL,
			"a pool that may grow to %s would hold more than 2^32 blocks; use larger blocks",
			human(a, plan->max_bytes));
	entries = plan->max_entries * 2; /* at most half full */
	for (plan->buckets = 8; plan->buckets * LAY_BUCKET_SLOTS < entries;)
		plan->buckets *= 2;
	plan->directory_offset = sizeof(struct lay_pool_head);
	plan->page_map_offset =
		round_up(plan->directory_offset + plan->buckets * sizeof(struct lay_bucket), 4096);
	plan->entry_offset = round_up(plan->page_map_offset + plan->max_pages * 8, 4096);
	plan->calibration_offset =
		round_up(plan->entry_offset + plan->max_entries * sizeof(struct lay_entry), 4096);
	plan->calibration_bytes = config->calibration ? config->calibration_bytes : 0;
	plan->data_offset = round_up(plan->calibration_offset + plan->calibration_bytes, LAY_UNIT);
	plan->region_bytes = plan->data_offset + plan->max_bytes;
	return 0;
}

uint64_t region_file_bytes(const struct speckv_device *dev, const struct region_plan *plan)
{
	return dev->medium.backend->keeps_blocks ? plan->data_offset : plan->region_bytes;
}

uint64_t region_backing_bytes(const struct speckv_device *dev, const struct region_plan *plan)
{
	return plan->page_map_offset + plan->pages * 8 +
		(plan->pages / plan->min_run + 1) * sizeof(struct lay_entry) +
		plan->calibration_bytes +
		(dev->medium.backend->keeps_blocks ? 0 : plan->capacity_bytes);
}

// SPDX-License-Identifier: MIT
/* Planning and creation of pools. The rest: describe.c, settings.c, resize.c, removal.c. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin.h"

static const struct speckv_geometry default_geometry = {
	.layers = 1, .kv_heads = 2, .head_dim = 128, .tokens = 64, .dtype = SPECKV_DTYPE_BF16
};

static bool geometry_unset(const struct speckv_geometry *g)
{
	return !g->layers && !g->kv_heads && !g->head_dim && !g->tokens && !g->dtype;
}

/* Fill in the defaults and validate. */
static int config_check(struct speckv_device *dev, const struct speckv_pool_config *in,
	struct speckv_pool_config *out, struct region_plan *plan,
	struct speckv_calibration_info *calibration)
{
	struct speckv_ctx *ctx = dev->ctx;
	bool single = dev->single_inode;
	char a[32], b[32];
	int rc;

	*out = *in;
	if (!memchr(in->name, 0, sizeof(in->name)) || !name_ok(in->name))
		return fail(ctx, -EINVAL,
			"pool name '%.63s': use 1 to 63 letters, digits, '.', '_' or '-', not beginning with '.' or '-'",
			in->name);
	if (!speckv_codec_name(in->codec))
		return fail(ctx, -EINVAL, "codec %u does not exist", in->codec);
	rc = calibration_judge(ctx, in, calibration);
	if (rc)
		return rc;
	if (geometry_unset(&in->geometry)) {
		out->geometry = default_geometry;
		if (in->calibration) {
			/*
			 * by default all layers and heads of the calibration, from the first ones
			 * on
			 */
			if (in->first_layer >= calibration->layers ||
				in->first_head >= calibration->kv_heads)
				return fail(ctx, -ERANGE,
					"the calibration is of a model with %u layers and %u KV heads; there is none from layer %u, head %u on",
					calibration->layers, calibration->kv_heads, in->first_layer,
					in->first_head);
			out->geometry.layers = (uint16_t)(calibration->layers - in->first_layer);
			out->geometry.kv_heads = (uint16_t)(calibration->kv_heads - in->first_head);
			out->geometry.head_dim = (uint16_t)calibration->head_dim;
		}
	}
	if (in->eviction > SPECKV_EVICT_NONE)
		return fail(ctx, -EINVAL, "eviction policy %u does not exist; use lru or none",
			in->eviction);
	if (out->uid == (uint32_t)-1)
		out->uid = geteuid();
	if (out->gid == (uint32_t)-1)
		out->gid = getegid();
	if (!out->mode)
		out->mode = 0600;
	if (out->mode & ~0777u || (out->mode & 0600) != 0600)
		return fail(ctx, -EINVAL,
			"mode %04o: give the owner read and write, and nothing beyond 0777",
			out->mode);
	if (single && (out->uid != geteuid() || out->gid != getegid() || out->mode != 0600)) {
		struct stat st;

		if (fstat(dev->fd, &st) == 0 &&
			(out->uid != st.st_uid || out->gid != st.st_gid || out->mode != 0600))
			return fail(ctx, -EOPNOTSUPP,
				"%s is one inode: all its pools share its owner and mode; use 'chown' and 'chmod' on %s",
				dev->medium.name, dev->medium.path);
	}
	rc = region_plan(ctx, out, single || dev->medium.backend->keeps_blocks, plan);
	if (rc)
		return rc;
	out->capacity_bytes = plan->capacity_bytes;
	out->max_bytes = plan->max_bytes;
	out->page_bytes = plan->page_bytes;
	if (!out->quota_bytes)
		out->quota_bytes = out->capacity_bytes;
	if (out->quota_bytes > out->max_bytes)
		return fail(ctx, -EINVAL, "quota %s is above the largest size %s",
			human(a, out->quota_bytes), human(b, out->max_bytes));
	if (out->quota_bytes < plan->block_bytes)
		return fail(ctx, -EINVAL, "quota %s is below one block of %s",
			human(a, out->quota_bytes), human(b, plan->block_bytes));
	if (out->tenant_quota_bytes && out->tenant_quota_bytes < plan->block_bytes)
		return fail(ctx, -EINVAL, "tenant quota %s is below one block of %s",
			human(a, out->tenant_quota_bytes), human(b, plan->block_bytes));
	out->quota_bytes -= out->quota_bytes % plan->page_bytes; /* stored as pages */
	out->tenant_quota_bytes -= out->tenant_quota_bytes % plan->page_bytes;
	return 0;
}

/*
 * Inodes that a new pool needs at its peak: draft, lock file, and the link, which tmpfs counts too.
 */
#define POOL_INODES 3
/* The same, of a new table: folder of pools, table, lock file. */
#define TABLE_INODES 3

static int no_room(struct speckv_device *dev, const char *name, uint64_t want, uint64_t have)
{
	bool file = !dev->single_inode && !dev->medium.backend->keeps_blocks;
	char a[32], b[32];

	return fail(dev->ctx, -ENOSPC,
		"pool %s needs %s with its tables, and %s (%s%s) has %s free (%llu bytes); ask for less, or shrink another pool",
		name, human(a, want), dev->medium.name, dev->medium.path, file ? ".pools" : "",
		human(b, have), (unsigned long long)have);
}

/* Can this process create the files of such a pool in that file system, with `inodes` others? */
static int files_check(struct speckv_device *dev, const char *name, const struct region_plan *plan,
	uint64_t inodes)
{
	uint64_t need = region_backing_bytes(dev, plan), room = medium_available(&dev->medium),
		 left = medium_inodes(&dev->medium);
	char path[SPECKV_PATH_BYTES + 80];
	int rc;

	snprintf(path, sizeof(path), "%s.pools/%s", dev->medium.path, name);
	if (!dev->medium.backend->keeps_blocks &&
		faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return fail(dev->ctx, -EEXIST,
			"%s exists and is not a pool of %s: 'speckvctl pool check %s %s --repair' takes it over if it is intact; or move it away, 'mv %s /var/tmp/', or choose another name",
			path, dev->medium.name, dev->medium.name, name, path);
	if (medium_read_only(&dev->medium))
		return fail(dev->ctx, -EROFS, "cannot make %s: it is on a read-only file system",
			path);
	rc = file_size_check(dev->ctx, path, region_file_bytes(dev, plan),
		", or give a smaller --max-size");
	if (rc)
		return rc;
	inodes += POOL_INODES;
	if (left < inodes)
		return fail(dev->ctx, -ENOSPC,
			"cannot make %s: it needs %llu inodes, and its file system has %llu left: remove files there, or give it more ('mount -o remount,nr_inodes=')",
			path, (unsigned long long)inodes, (unsigned long long)left);
	return need > room ? no_room(dev, name, need, room) : 0;
}

/* Check a creation on a managed or inspected device; the number of the record for it. */
static int create_check(struct speckv_device *dev, const struct speckv_pool_config *full,
	const struct region_plan *plan, bool inspect)
{
	struct lay_pool_record other;
	int number = -1, rc;
	uint64_t room;

	if (device_look(dev, full->name, &other) >= 0 && inspect)
		/* the caller compares the existing pool with the plan */
		return 0;
	if (device_look(dev, full->name, &other) >= 0)
		return fail(dev->ctx, -EEXIST,
			"%s already has a pool '%s'; choose another name, or destroy it first",
			dev->medium.name, full->name);
	for (int i = LAY_POOLS; i-- > 0;)
		if (load_acquire(&dev->table->pools[i].state) == 0 ||
			load_acquire(&dev->left[i]) == RECORD_GONE)
			number = i;
	if (number < 0)
		return fail(dev->ctx, -ENOSPC, "%s has %d pools, the maximum", dev->medium.name,
			LAY_POOLS);
	if (dev->single_inode) {
		struct lay_extent extent;

		rc = device_extent_alloc(dev, plan->data_offset + plan->capacity_bytes, &extent);
		return rc ? no_room(dev, full->name, plan->data_offset + plan->capacity_bytes,
				    device_largest_free(dev, NULL))
			  : number;
	}
	rc = files_check(dev, full->name, plan, 0);
	if (rc)
		return rc;
	room = dev->medium.backend->room(dev);
	return plan->capacity_bytes > room ? no_room(dev, full->name, plan->capacity_bytes, room)
					   : number;
}

/* Plan on an existing device. */
static int plan_on(struct speckv_ctx *ctx, const char *device,
	const struct speckv_pool_config *config, struct speckv_pool_config *planned)
{
	struct speckv_calibration_info calibration;
	struct region_plan plan;
	struct speckv_device *dev;
	int rc = speckv_device_open(ctx, device, 0, &dev);

	if (rc)
		return rc;
	rc = config_check(dev, config, planned, &plan, &calibration);
	if (!rc)
		rc = device_inspect(dev);
	if (!rc) {
		rc = create_check(dev, planned, &plan, true);
		device_unmanage(dev);
	}
	speckv_device_close(dev);
	return rc < 0 ? rc : 0;
}

/*
 * Plan on a medium that would be formatted: the plan is checked first, as formatting cannot be
 * undone.
 */
static int plan_over(struct speckv_device *dev, const struct speckv_pool_config *config,
	struct speckv_pool_config *planned)
{
	struct speckv_calibration_info calibration;
	struct region_plan plan;
	uint64_t room, need;
	int rc;

	dev->fd = medium_format_check(dev->ctx, &dev->medium, &room);
	if (dev->fd < 0)
		return dev->fd;
	dev->single_inode = true;
	rc = config_check(dev, config, planned, &plan, &calibration);
	close(dev->fd);
	if (rc)
		return rc;
	need = plan.data_offset + plan.capacity_bytes;
	room -= DEVICE_TABLE_END;
	return need > room ? no_room(dev, planned->name, need, room) : 0;
}

int speckv_pool_plan(struct speckv_ctx *ctx, const char *device,
	const struct speckv_pool_config *config, struct speckv_pool_config *planned)
{
	struct speckv_device dev = { .ctx = ctx, .fd = -1 };
	struct speckv_calibration_info calibration;
	struct speckv_device_info info;
	struct region_plan plan;
	int rc;

	if (!ctx || !config || !planned)
		return -EINVAL;
	rc = device_parse(ctx, device, &dev.medium);
	if (!rc)
		rc = device_probe(ctx, &dev.medium, &info);
	if (rc)
		return rc;
	if (info.state == SPECKV_MEDIUM_READY)
		return plan_on(ctx, device, config, planned);
	if (info.state == SPECKV_MEDIUM_DENIED || info.state == SPECKV_MEDIUM_OFFLINE ||
		!dev.medium.path[0])
		return medium_refuse(ctx, &dev.medium, &info);
	if (info.state != SPECKV_MEDIUM_ABSENT && !dev.medium.backend->keeps_blocks)
		return plan_over(&dev, config, planned);
	rc = config_check(&dev, config, planned, &plan, &calibration);
	if (!rc)
		rc = file_size_check(ctx, dev.medium.path, sizeof(struct lay_device), "");
	if (!rc)
		rc = files_check(&dev, planned->name, &plan,
			TABLE_INODES + (dev.medium.runtime && access(ctx->runtime_dir, F_OK) != 0));
	if (!rc && dev.medium.backend->keeps_blocks && plan.capacity_bytes > info.free_bytes)
		rc = no_room(&dev, planned->name, plan.capacity_bytes, info.free_bytes);
	return rc;
}

/* Undo a creation whose record could not be flushed. */
static void unmake(struct speckv_device *dev, const struct lay_pool_record *record)
{
	dev->medium.backend->pool_delete(dev, record->uuid);
	if (!dev->single_inode)
		region_remove(dev, record, false);
}

/* The record of a new pool, without its place. */
static void record_init(struct speckv_device *dev, const struct speckv_pool_config *full,
	const struct speckv_calibration_info *calibration, struct lay_pool_record *made)
{
	memset((void *)made, 0, sizeof(*made));
	memcpy(made->name, full->name, sizeof(made->name));
	random_bytes(made->uuid, sizeof(made->uuid));
	made->uuid[6] = (uint8_t)((made->uuid[6] & 0x0f) | 0x40);
	made->uuid[8] = (uint8_t)((made->uuid[8] & 0x3f) | 0x80);
	made->generation = atomic_fetch_add(&dev->table->super.next_generation, 1);
	made->uid = full->uid;
	made->gid = full->gid;
	made->mode = full->mode;
	made->codec = full->codec;
	made->capacity_bytes = full->capacity_bytes;
	made->max_bytes = full->max_bytes;
	made->created_ns = now_ns();
	memcpy(made->calibration, calibration->digest, sizeof(made->calibration));
}

static int record_place(struct speckv_device *dev, const struct speckv_pool_config *full,
	const struct region_plan *plan, struct lay_pool_record *made)
{
	int rc;

	if (dev->single_inode) {
		made->table_bytes = plan->data_offset;
		rc = device_extent_alloc(dev, plan->data_offset + plan->capacity_bytes,
			&made->extent[0]);
		if (rc) /* taken by another writer of the table since the check */
			return no_room(dev, full->name, plan->data_offset + plan->capacity_bytes,
				device_largest_free(dev, NULL));
		made->extent[1] = (struct lay_extent){ made->extent[0].offset + plan->data_offset,
			plan->capacity_bytes };
		made->extent[0].bytes = plan->data_offset;
		made->extents = 2;
	} else {
		made->table_bytes = region_backing_bytes(dev, plan) -
			(dev->medium.backend->keeps_blocks ? 0 : plan->capacity_bytes);
	}
	return 0;
}

int speckv_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	struct speckv_pool_info *info)
{
	struct speckv_calibration_info calibration;
	struct speckv_pool_config full;
	/* shared, and private: other processes may write the medium */
	struct lay_pool_record *record, made;
	struct region_plan plan;
	int number, rc;

	if (!dev || !config)
		return -EINVAL;
	rc = device_usable(dev);
	if (!rc)
		rc = config_check(dev, config, &full, &plan, &calibration);
	if (!rc)
		rc = device_manage(dev);
	if (rc)
		return rc;
	number = rc = create_check(dev, &full, &plan, false);
	if (rc < 0)
		goto out;
	record_init(dev, &full, &calibration, &made);
	rc = record_place(dev, &full, &plan, &made);
	if (rc)
		goto out;
	record = &dev->table->pools[number];
	memcpy((void *)record, (const void *)&made, sizeof(made));
	rc = device_flush(dev); /* the record's contents before its state */
	if (!rc) {
		store_release(&record->state, SPECKV_POOL_CREATING);
		rc = device_flush(dev);
	}
	if (!rc)
		rc = dev->medium.backend->pool_create(dev, &full, &plan, &made);
	if (!rc) {
		/* assigned by a device that keeps its pools */
		record->generation = made.generation;
		rc = region_make(dev, &made, &full, &plan);
		if (rc)
			dev->medium.backend->pool_delete(dev, made.uuid);
	}
	if (!rc) {
		store_release(&record->state, SPECKV_POOL_ACTIVE);
		rc = device_flush(dev);
		if (rc)
			unmake(dev, &made);
	}
	if (rc)
		store_release(&record->state, 0);
	else {
		char size[32];

		device_event(dev, SPECKV_EVENT_POOL_CREATED, SPECKV_INFO,
			"pool %s created: %s, codec %s", full.name,
			human(size, full.capacity_bytes), speckv_codec_name(full.codec));
	}
out:
	device_unmanage(dev);
	return !rc && info ? speckv_pool_info(dev, full.name, info) : rc;
}

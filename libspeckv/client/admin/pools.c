// SPDX-License-Identifier: MIT
/* Pools as administrators see them: create, describe, set. Resizing is in resize.c, destroying in removal.c. */
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "admin.h"

static const struct speckv_geometry default_geometry = { .layers = 1, .kv_heads = 2, .head_dim = 128, .tokens = 64, .dtype = SPECKV_DTYPE_BF16 };

static bool geometry_unset(const struct speckv_geometry *g)
{
	return !g->layers && !g->kv_heads && !g->head_dim && !g->tokens && !g->dtype;
}

/* Fill in the defaults and refuse what cannot be. */
static int config_check(struct speckv_device *dev, const struct speckv_pool_config *in, struct speckv_pool_config *out, struct region_plan *plan,
			struct speckv_calibration_info *calibration)
{
	struct speckv_ctx *ctx = dev->ctx;
	bool single = dev->single_inode;
	char a[32], b[32];
	int rc;

	*out = *in;
	if (!memchr(in->name, 0, sizeof(in->name)) || !name_ok(in->name))
		return fail(ctx, -EINVAL, "pool name '%.63s': use 1 to 63 letters, digits, '.', '_' or '-', not beginning with '.' or '-'", in->name);
	if (in->codec > SPECKV_CODEC_LOSSLESS || !speckv_codec_name(in->codec))
		return fail(ctx, -EINVAL, "codec %u does not exist", in->codec);
	rc = calibration_judge(ctx, in, calibration);
	if (rc)
		return rc;
	if (geometry_unset(&in->geometry)) {
		out->geometry = default_geometry;
		if (in->calibration) { /* blocks of all that it was made for, or of the rest of it */
			if (in->first_layer >= calibration->layers || in->first_head >= calibration->kv_heads)
				return fail(ctx, -ERANGE, "the calibration is of a model with %u layers and %u KV heads; there is none from layer %u, head %u on",
					    calibration->layers, calibration->kv_heads, in->first_layer, in->first_head);
			out->geometry.layers = (uint16_t)(calibration->layers - in->first_layer);
			out->geometry.kv_heads = (uint16_t)(calibration->kv_heads - in->first_head);
			out->geometry.head_dim = (uint16_t)calibration->head_dim;
		}
	}
	if (in->eviction > SPECKV_EVICT_NONE)
		return fail(ctx, -EINVAL, "eviction policy %u does not exist; use lru or none", in->eviction);
	if (out->uid == (uint32_t)-1)
		out->uid = geteuid();
	if (out->gid == (uint32_t)-1)
		out->gid = getegid();
	if (!out->mode)
		out->mode = 0600;
	if (out->mode & ~0777u || (out->mode & 0600) != 0600)
		return fail(ctx, -EINVAL, "mode %04o: give the owner read and write, and nothing beyond 0777", out->mode);
	if (single && (out->uid != geteuid() || out->gid != getegid() || out->mode != 0600)) {
		struct stat st;

		if (fstat(dev->fd, &st) == 0 && (out->uid != st.st_uid || out->gid != st.st_gid || out->mode != 0600))
			return fail(ctx, -EOPNOTSUPP, "%s is one inode: all its pools share its owner and mode; use 'chown' and 'chmod' on %s", dev->medium.name,
				    dev->medium.path);
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
		return fail(ctx, -EINVAL, "quota %s is above the largest size %s", human(a, out->quota_bytes), human(b, out->max_bytes));
	if (out->quota_bytes < plan->block_bytes)
		return fail(ctx, -EINVAL, "quota %s is below one block of %s", human(a, out->quota_bytes), human(b, plan->block_bytes));
	if (out->tenant_quota_bytes && out->tenant_quota_bytes < plan->block_bytes)
		return fail(ctx, -EINVAL, "tenant quota %s is below one block of %s", human(a, out->tenant_quota_bytes), human(b, plan->block_bytes));
	out->quota_bytes -= out->quota_bytes % plan->page_bytes; /* kept in pages */
	out->tenant_quota_bytes -= out->tenant_quota_bytes % plan->page_bytes;
	return 0;
}

/* Names for what a new pool needs for a moment: its draft, its file of locks, and its link, which tmpfs counts too. */
#define POOL_INODES 3
/* And a new table: folder of pools, table, file of locks. */
#define TABLE_INODES 3

static int no_room(struct speckv_device *dev, const char *name, uint64_t want, uint64_t have)
{
	bool file = !dev->single_inode && !dev->medium.backend->keeps_blocks;
	char a[32], b[32];

	return fail(dev->ctx, -ENOSPC, "pool %s needs %s with its tables, and %s (%s%s) has %s free (%llu bytes); ask for less, or shrink another pool", name,
		    human(a, want), dev->medium.name, dev->medium.path, file ? ".pools" : "", human(b, have), (unsigned long long)have);
}

/* Can the files of such a pool be made, by this process and in that file system? Beside `inodes` for other files. */
static int files_check(struct speckv_device *dev, const char *name, const struct region_plan *plan, uint64_t inodes)
{
	uint64_t need = region_backing_bytes(dev, plan), room = medium_available(&dev->medium), left = medium_inodes(&dev->medium);
	char path[SPECKV_PATH_BYTES + 80];
	int rc;

	snprintf(path, sizeof(path), "%s.pools/%s", dev->medium.path, name);
	if (!dev->medium.backend->keeps_blocks && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return fail(dev->ctx, -EEXIST, "%s is there, and no pool of %s: 'speckvctl pool check %s %s --repair' takes it over where it is whole; or move it away, 'mv %s /var/tmp/', or choose another name",
			    path, dev->medium.name, dev->medium.name, name, path);
	if (medium_read_only(&dev->medium))
		return fail(dev->ctx, -EROFS, "cannot make %s: it lies on a read-only file system", path);
	rc = file_size_check(dev->ctx, path, region_file_bytes(dev, plan), ", or give a smaller --max-size");
	if (rc)
		return rc;
	inodes += POOL_INODES;
	if (left < inodes)
		return fail(dev->ctx, -ENOSPC, "cannot make %s: it needs %llu inodes, and its file system has %llu left: remove files there, or give it more ('mount -o remount,nr_inodes=')",
			    path, (unsigned long long)inodes, (unsigned long long)left);
	return need > room ? no_room(dev, name, need, room) : 0;
}

/* What create() needs of a device that is managed, or inspected; the number of the record that it would take. */
static int create_check(struct speckv_device *dev, const struct speckv_pool_config *full, const struct region_plan *plan, bool inspect)
{
	struct lay_pool_record other;
	int number = -1, rc;
	uint64_t room;

	if (device_look(dev, full->name, &other) >= 0 && inspect)
		return 0; /* the caller sees what is there, and needs what was planned to compare it */
	if (device_look(dev, full->name, &other) >= 0)
		return fail(dev->ctx, -EEXIST, "%s already has a pool '%s'; choose another name, or destroy it first", dev->medium.name, full->name);
	for (int i = LAY_POOLS; i-- > 0;)
		if (load(&dev->table->pools[i].state) == 0 || load(&dev->left[i]) == RECORD_GONE)
			number = i;
	if (number < 0)
		return fail(dev->ctx, -ENOSPC, "%s has %d pools, as many as it can", dev->medium.name, LAY_POOLS);
	if (dev->single_inode) {
		struct lay_extent extent;

		rc = device_extent_alloc(dev, plan->data_offset + plan->capacity_bytes, &extent);
		return rc ? no_room(dev, full->name, plan->data_offset + plan->capacity_bytes, device_largest_free(dev, NULL)) : number;
	}
	rc = files_check(dev, full->name, plan, 0);
	if (rc)
		return rc;
	room = dev->medium.backend->room(dev);
	return plan->capacity_bytes > room ? no_room(dev, full->name, plan->capacity_bytes, room) : number;
}

/* A device that is there. */
static int plan_on(struct speckv_ctx *ctx, const char *device, const struct speckv_pool_config *config, struct speckv_pool_config *planned)
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

/* What will be overwritten as a medium of fixed size: judged before that, as nothing brings back what was there. */
static int plan_over(struct speckv_device *dev, const struct speckv_pool_config *config, struct speckv_pool_config *planned)
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

int speckv_pool_plan(struct speckv_ctx *ctx, const char *device, const struct speckv_pool_config *config, struct speckv_pool_config *planned)
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
	if (info.state == SPECKV_MEDIUM_DENIED || info.state == SPECKV_MEDIUM_OFFLINE || !dev.medium.path[0])
		return medium_refuse(ctx, &dev.medium, &info);
	if (info.state != SPECKV_MEDIUM_ABSENT && !dev.medium.backend->keeps_blocks)
		return plan_over(&dev, config, planned);
	rc = config_check(&dev, config, planned, &plan, &calibration);
	if (!rc)
		rc = file_size_check(ctx, dev.medium.path, sizeof(struct lay_device), "");
	if (!rc)
		rc = files_check(&dev, planned->name, &plan, TABLE_INODES + (dev.medium.runtime && access(ctx->runtime_dir, F_OK) != 0));
	if (!rc && dev.medium.backend->keeps_blocks && plan.capacity_bytes > info.free_bytes)
		rc = no_room(&dev, planned->name, plan.capacity_bytes, info.free_bytes);
	return rc;
}

/* A pool that was made and whose record did not reach the medium. */
static void unmake(struct speckv_device *dev, const struct lay_pool_record *record)
{
	dev->medium.backend->pool_delete(dev, record->uuid);
	if (!dev->single_inode)
		region_remove(dev, record, false);
}

int speckv_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config, struct speckv_pool_info *info)
{
	struct speckv_calibration_info calibration;
	struct speckv_pool_config full;
	struct lay_pool_record *record, made; /* shared, and ours: others may write the medium */
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
	memset((void *)&made, 0, sizeof(made));
	memcpy(made.name, full.name, sizeof(made.name));
	random_bytes(made.uuid, sizeof(made.uuid));
	made.uuid[6] = (uint8_t)((made.uuid[6] & 0x0f) | 0x40);
	made.uuid[8] = (uint8_t)((made.uuid[8] & 0x3f) | 0x80);
	made.generation = atomic_fetch_add(&dev->table->super.next_generation, 1);
	made.uid = full.uid;
	made.gid = full.gid;
	made.mode = full.mode;
	made.codec = full.codec;
	made.capacity_bytes = full.capacity_bytes;
	made.max_bytes = full.max_bytes;
	made.created_ns = now_ns();
	memcpy(made.calibration, calibration.digest, sizeof(made.calibration));
	if (dev->single_inode) {
		made.table_bytes = plan.data_offset;
		rc = device_extent_alloc(dev, plan.data_offset + plan.capacity_bytes, &made.extent[0]);
		if (rc) { /* there was room: another writer of the table took it */
			rc = no_room(dev, full.name, plan.data_offset + plan.capacity_bytes, device_largest_free(dev, NULL));
			goto out;
		}
		made.extent[1] = (struct lay_extent){ made.extent[0].offset + plan.data_offset, plan.capacity_bytes };
		made.extent[0].bytes = plan.data_offset;
		made.extents = 2;
	} else {
		made.table_bytes = region_backing_bytes(dev, &plan) - (dev->medium.backend->keeps_blocks ? 0 : plan.capacity_bytes);
	}
	record = &dev->table->pools[number];
	memcpy((void *)record, (const void *)&made, sizeof(made));
	rc = device_flush(dev); /* what it is, and then that it is */
	if (!rc) {
		store(&record->state, SPECKV_POOL_CREATING);
		rc = device_flush(dev);
	}
	if (!rc)
		rc = dev->medium.backend->pool_create(dev, &full, &plan, &made);
	if (!rc) {
		record->generation = made.generation; /* a device that keeps its pools has its own */
		rc = region_make(dev, &made, &full, &plan);
		if (rc)
			dev->medium.backend->pool_delete(dev, made.uuid);
	}
	if (!rc) {
		store(&record->state, SPECKV_POOL_ACTIVE);
		rc = device_flush(dev);
		if (rc)
			unmake(dev, &made);
	}
	if (rc)
		store(&record->state, 0);
	else {
		char size[32];

		device_event(dev, SPECKV_EVENT_POOL_CREATED, SPECKV_INFO, "pool %s created: %s, codec %s", full.name, human(size, full.capacity_bytes),
			     speckv_codec_name(full.codec));
	}
out:
	device_unmanage(dev);
	return !rc && info ? speckv_pool_info(dev, full.name, info) : rc;
}

/* ---- describing ------------------------------------------------------------------------------------------------------ */

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
	info->config.quota_bytes = load(&pool->quota_pages) * r->page_bytes;
	info->config.tenant_quota_bytes = load(&pool->tenant_quota_pages) * r->page_bytes;
	info->config.eviction = load(&pool->eviction);
	info->block_bytes = r->fixed.block_bytes;
	info->used_bytes = (census.used + census.claimed + census.orphan) * r->page_bytes;
	info->free_bytes = census.free * r->page_bytes;
	info->blocks = census.blocks;
	info->raw_bytes = census.raw_bytes;
	info->stored_bytes = census.stored_bytes;
	info->resizes = load(&pool->resizes);
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		info->clients += load(&r->head->clients[slot].state) & 1 && client_alive(r, slot);
	for (unsigned int i = 0; i < LAY_TENANTS; i++)
		info->tenants += load(&r->head->tenants[i].state) == 2;
}

static void describe_record(struct speckv_device *dev, const struct lay_pool_record *record, struct speckv_pool_info *info)
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
	info->state = load(&record->state);
	info->table_bytes = record->table_bytes;
	info->created_ns = record->created_ns;
	info->placement = record->codec < 32 && dev->codec_modes >> record->codec & 1 ? SPECKV_PLACED_CARD : SPECKV_PLACED_HOST;
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
		info->state = !dev->single_inode && access(info->path, F_OK) != 0 && errno == ENOENT ? SPECKV_POOL_LOST : SPECKV_POOL_DAMAGED;
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
		if (load(&dev->table->pools[i].state)) {
			memcpy((void *)&list[n], (const void *)&dev->table->pools[i], sizeof(list[n]));
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

/* ---- changing -------------------------------------------------------------------------------------------------------- */

/* May this user give the pool's file away, or change its mode? As the kernel judges it. */
static int may_own(struct speckv_device *dev, const struct lay_pool_record *record, struct region *r, uint32_t uid, uint32_t gid, uint32_t mode)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = { 0 };
	gid_t groups[256];
	bool mine, member;
	struct stat st;
	int n;

	if (fstat(r->fd, &st) != 0)
		return fail(dev->ctx, -errno, "pool %s: cannot look at %s: %s", record->name, r->path, strerror(errno));
	if (syscall(SYS_capget, &header, caps) != 0)
		memset(caps, 0, sizeof(caps));
	mine = st.st_uid == geteuid();
	n = getgroups(sizeof(groups) / sizeof(groups[0]), groups);
	member = gid == getegid();
	for (int i = 0; i < n; i++)
		member = member || groups[i] == gid;
	if ((uid != st.st_uid || gid != st.st_gid) && !(caps[0].effective >> CAP_CHOWN & 1) && !(mine && uid == st.st_uid && member))
		return fail(dev->ctx, -EPERM, "cannot give pool %s to uid %u gid %u: only root may give files away", record->name, uid, gid);
	if (mode != (st.st_mode & 07777) && !mine && !(caps[0].effective >> CAP_FOWNER & 1))
		return fail(dev->ctx, -EPERM, "cannot change the mode of pool %s: it belongs to uid %u", record->name, st.st_uid);
	return 0;
}

/* Do the record, the pool's file and its locks have this owner and mode? */
static bool owned_so(const struct region *r, const struct lay_pool_record *record, const struct lay_pool_record *wanted)
{
	struct stat file, lock;

	if (wanted->uid != record->uid || wanted->gid != record->gid || wanted->mode != record->mode)
		return false;
	return r->dev->single_inode ||
	       (fstat(r->fd, &file) == 0 && pool_file_owned(&file, wanted, (mode_t)wanted->mode) && fstat(r->lock_fd, &lock) == 0 &&
		pool_file_owned(&lock, wanted, pool_lock_mode(wanted->mode)));
}

/* A record with the owner and mode that its pool's file has: a manager that died may have got no further. */
static int as_its_file(struct speckv_device *dev, const struct lay_pool_record *record, const struct region *r, struct lay_pool_record *copy)
{
	struct stat st;

	memcpy((void *)copy, (const void *)record, sizeof(*copy));
	if (dev->single_inode)
		return 0;
	if (fstat(r->fd, &st) != 0)
		return fail(dev->ctx, -errno, "pool %s: cannot look at %s: %s", record->name, r->path, strerror(errno));
	copy->uid = st.st_uid;
	copy->gid = st.st_gid;
	copy->mode = st.st_mode & 0777;
	return 0;
}

/* Owner and mode that are wanted, judged; nothing is changed. */
static int check_owner(struct speckv_device *dev, const struct lay_pool_record *record, struct region *r, unsigned int mask, const struct speckv_pool_config *config,
		       struct lay_pool_record *wanted)
{
	if (as_its_file(dev, record, r, wanted) || (wanted->mode & 0600) != 0600)
		memcpy((void *)wanted, (const void *)record, sizeof(*wanted));
	if (mask & SPECKV_SET_OWNER && config->uid != (uint32_t)-1)
		wanted->uid = config->uid;
	if (mask & SPECKV_SET_OWNER && config->gid != (uint32_t)-1)
		wanted->gid = config->gid;
	if (mask & SPECKV_SET_MODE)
		wanted->mode = config->mode;
	if (owned_so(r, record, wanted))
		return 0;
	if (dev->single_inode)
		return fail(dev->ctx, -EOPNOTSUPP, "%s is one inode: all its pools share its owner and mode; use 'chown' and 'chmod' on %s", dev->medium.name,
			    dev->medium.path);
	if (wanted->mode & ~0777u || (wanted->mode & 0600) != 0600)
		return fail(dev->ctx, -EINVAL, "mode %04o: give the owner read and write, and nothing beyond 0777", wanted->mode);
	return may_own(dev, record, r, wanted->uid, wanted->gid, wanted->mode);
}

/*
 * What fails in the middle is taken back. A death leaves file, locks and record apart: the record lets the file have either mode meanwhile, and
 * the same call again, or a repair, ends it.
 */
static int set_owner(struct speckv_device *dev, struct lay_pool_record *record, struct region *r, const struct lay_pool_record *wanted)
{
	struct lay_pool_record before;
	int rc;

	if (owned_so(r, record, wanted))
		return 0;
	rc = as_its_file(dev, record, r, &before);
	if (rc)
		return rc;
	rc = dev->medium.backend->pool_owner(dev, record, wanted->uid, wanted->gid, wanted->mode);
	if (rc) {
		dev->medium.backend->pool_owner(dev, record, before.uid, before.gid, before.mode);
		return rc;
	}
	record->mode |= wanted->mode;
	rc = device_flush(dev);
	if (!rc) {
		rc = pool_file_own(r->lock_fd, wanted, pool_lock_mode(wanted->mode));
		rc = rc ? rc : pool_file_own(r->fd, wanted, (mode_t)wanted->mode);
		if (rc)
			fail(dev->ctx, rc, "pool %s: cannot give %s to uid %u, gid %u, mode %04o: %s", record->name, r->path, wanted->uid,
			     wanted->gid, wanted->mode, strerror(-rc));
	}
	if (rc) {
		if (pool_file_own(r->fd, &before, (mode_t)before.mode) || pool_file_own(r->lock_fd, &before, pool_lock_mode(before.mode)))
			pool_event(r, SPECKV_EVENT_POOL_SET, SPECKV_WARNING, "owner or mode were changed in part, and could not be set back");
		dev->medium.backend->pool_owner(dev, record, before.uid, before.gid, before.mode);
	}
	record->uid = rc ? before.uid : wanted->uid;
	record->gid = rc ? before.gid : wanted->gid;
	record->mode = rc ? before.mode : wanted->mode;
	return rc;
}

/* What is wanted of the header, judged; nothing is changed. */
struct limits {
	uint64_t quota, tenant;
	uint32_t eviction;
};
static int check_limits(struct speckv_device *dev, struct region *r, unsigned int mask, const struct speckv_pool_config *config, struct limits *wanted)
{
	struct lay_pool *pool = &r->head->pool;
	uint64_t quota = config->quota_bytes / r->page_bytes, tenant = config->tenant_quota_bytes / r->page_bytes;
	char a[32], b[32];

	if (mask & SPECKV_SET_QUOTA) {
		if (!config->quota_bytes)
			quota = region_pages(r);
		if (config->quota_bytes && config->quota_bytes < r->fixed.block_bytes)
			return fail(dev->ctx, -EINVAL, "quota %s is below one block of %s", human(a, config->quota_bytes), human(b, r->fixed.block_bytes));
		if (quota > r->fixed.max_pages)
			return fail(dev->ctx, -EINVAL, "quota %s is above the largest size %s", human(a, config->quota_bytes), human(b, r->fixed.max_pages * r->page_bytes));
	}
	if (mask & SPECKV_SET_TENANT_QUOTA && config->tenant_quota_bytes && config->tenant_quota_bytes < r->fixed.block_bytes)
		return fail(dev->ctx, -EINVAL, "tenant quota %s is below one block of %s", human(a, config->tenant_quota_bytes), human(b, r->fixed.block_bytes));
	if (mask & SPECKV_SET_EVICTION && config->eviction > SPECKV_EVICT_NONE)
		return fail(dev->ctx, -EINVAL, "eviction policy %u does not exist; use lru or none", config->eviction);
	wanted->quota = mask & SPECKV_SET_QUOTA ? quota : load(&pool->quota_pages);
	wanted->tenant = mask & SPECKV_SET_TENANT_QUOTA ? tenant : load(&pool->tenant_quota_pages);
	wanted->eviction = mask & SPECKV_SET_EVICTION ? config->eviction : load(&pool->eviction);
	return 0;
}

/* What was asked for, as it is now. */
static void set_event(struct region *r, unsigned int mask)
{
	const struct lay_pool_record *record = &r->dev->table->pools[r->record];
	struct lay_pool *pool = &r->head->pool;
	uint64_t tenant = load(&pool->tenant_quota_pages);
	char text[160] = "", size[32];
	size_t at = 0;

	if (mask & SPECKV_SET_QUOTA)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", quota %s", human(size, load(&pool->quota_pages) * r->page_bytes));
	if (mask & SPECKV_SET_TENANT_QUOTA)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", tenant quota %s", tenant ? human(size, tenant * r->page_bytes) : "none");
	if (mask & SPECKV_SET_EVICTION)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", eviction %s", load(&pool->eviction) == SPECKV_EVICT_LRU ? "lru" : "none");
	if (mask & SPECKV_SET_OWNER)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", uid %u, gid %u", record->uid, record->gid);
	if (mask & SPECKV_SET_MODE)
		snprintf(text + at, sizeof(text) - at, ", mode %04o", record->mode);
	pool_event(r, SPECKV_EVENT_POOL_SET, SPECKV_INFO, "settings changed: %s", text + 2);
}

static void store_limits(struct lay_pool *pool, const struct limits *limits)
{
	store(&pool->quota_pages, limits->quota);
	store(&pool->tenant_quota_pages, limits->tenant);
	store(&pool->eviction, limits->eviction);
}

/* What was judged, all of it or nothing. */
static int set_all(struct speckv_device *dev, struct lay_pool_record *record, struct region *r, const struct lay_pool_record *wanted, const struct limits *limits)
{
	struct lay_pool *pool = &r->head->pool;
	const struct limits before = { load(&pool->quota_pages), load(&pool->tenant_quota_pages), load(&pool->eviction) };
	struct lay_pool_record owner;
	int rc;

	rc = as_its_file(dev, record, r, &owner);
	if (!rc)
		rc = set_owner(dev, record, r, wanted);
	if (rc)
		return rc;
	store_limits(pool, limits);
	rc = region_flush(r, r->head, sizeof(*pool));
	if (!rc)
		return 0;
	store_limits(pool, &before);
	region_flush(r, r->head, sizeof(*pool));
	set_owner(dev, record, r, &owner);
	return fail(dev->ctx, rc, "pool %s: %s cannot be written: %s; its settings are as they were", r->fixed.name, r->path, strerror(-rc));
}

int speckv_pool_set(struct speckv_device *dev, const char *name, unsigned int mask, const struct speckv_pool_config *config, struct speckv_pool_info *info)
{
	struct lay_pool_record *record, wanted;
	struct limits limits;
	struct lay_pool *pool;
	struct region region;
	int rc;

	if (!dev || !config || !name)
		return -EINVAL;
	rc = mask & SPECKV_SET_DRY_RUN ? device_inspect(dev) : device_manage(dev);
	if (rc)
		return rc;
	rc = region_open(dev, name, true, &region);
	if (rc) {
		device_unmanage(dev);
		return rc;
	}
	record = &dev->table->pools[region.record];
	pool = &region.head->pool;
	rc = check_limits(dev, &region, mask, config, &limits);
	if (!rc)
		rc = check_owner(dev, record, &region, mask, config, &wanted);
	if (!rc && owned_so(&region, record, &wanted) && limits.quota == load(&pool->quota_pages) &&
	    limits.tenant == load(&pool->tenant_quota_pages) && limits.eviction == load(&pool->eviction))
		rc = fail(dev->ctx, -EALREADY, "pool %s has these settings already", name);
	if (!rc && !(mask & SPECKV_SET_DRY_RUN))
		rc = set_all(dev, record, &region, &wanted, &limits);
	if (!rc && !(mask & SPECKV_SET_DRY_RUN)) {
		set_event(&region, mask);
		rc = device_flush(dev);
	}
	region_close(&region);
	device_unmanage(dev);
	return !rc && info ? speckv_pool_info(dev, name, info) : rc;
}

// SPDX-License-Identifier: MIT
/* Changes of a pool's owner, mode and limits. */
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "admin.h"

/* May this user change the file's owner or mode? By the kernel's rules. */
static int may_own(struct speckv_device *dev, const struct lay_pool_record *record,
	struct region *r, uint32_t uid, uint32_t gid, uint32_t mode)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2] = { 0 };
	gid_t groups[256];
	bool mine, member;
	struct stat st;
	int n;

	if (fstat(r->fd, &st) != 0)
		return fail(dev->ctx, -errno, "pool %s: cannot access %s: %s", record->name,
			r->path, strerror(errno));
	if (syscall(SYS_capget, &header, caps) != 0)
		memset(caps, 0, sizeof(caps));
	mine = st.st_uid == geteuid();
	n = getgroups(sizeof(groups) / sizeof(groups[0]), groups);
	member = gid == getegid();
	for (int i = 0; i < n; i++)
		member = member || groups[i] == gid;
	if ((uid != st.st_uid || gid != st.st_gid) && !(caps[0].effective >> CAP_CHOWN & 1) &&
		!(mine && uid == st.st_uid && member))
		return fail(dev->ctx, -EPERM,
			"cannot give pool %s to uid %u gid %u: only root may give files away",
			record->name, uid, gid);
	if (mode != (st.st_mode & 07777) && !mine && !(caps[0].effective >> CAP_FOWNER & 1))
		return fail(dev->ctx, -EPERM,
			"cannot change the mode of pool %s: it belongs to uid %u", record->name,
			st.st_uid);
	return 0;
}

/* Do the record, the pool's file and its lock file have this owner and mode? */
static bool owned_so(const struct region *r, const struct lay_pool_record *record,
	const struct lay_pool_record *wanted)
{
	struct stat file, lock;

	if (wanted->uid != record->uid || wanted->gid != record->gid ||
		wanted->mode != record->mode)
		return false;
	return r->dev->single_inode ||
		(fstat(r->fd, &file) == 0 && pool_file_owned(&file, wanted, (mode_t)wanted->mode) &&
			fstat(r->lock_fd, &lock) == 0 &&
			pool_file_owned(&lock, wanted, pool_lock_mode(wanted->mode)));
}

/*
 * Copy of a record, with the owner and mode of its pool's file: a manager may have died between the
 * two changes.
 */
static int as_its_file(struct speckv_device *dev, const struct lay_pool_record *record,
	const struct region *r, struct lay_pool_record *copy)
{
	struct stat st;

	memcpy((void *)copy, (const void *)record, sizeof(*copy));
	if (dev->single_inode)
		return 0;
	if (fstat(r->fd, &st) != 0)
		return fail(dev->ctx, -errno, "pool %s: cannot access %s: %s", record->name,
			r->path, strerror(errno));
	copy->uid = st.st_uid;
	copy->gid = st.st_gid;
	copy->mode = st.st_mode & 0777;
	return 0;
}

/* Compute and check the wanted owner and mode; changes nothing. */
static int check_owner(struct speckv_device *dev, const struct lay_pool_record *record,
	struct region *r, unsigned int mask, const struct speckv_pool_config *config,
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
		return fail(dev->ctx, -EOPNOTSUPP,
			"%s is one inode: all its pools share its owner and mode; use 'chown' and 'chmod' on %s",
			dev->medium.name, dev->medium.path);
	if (wanted->mode & ~0777u || (wanted->mode & 0600) != 0600)
		return fail(dev->ctx, -EINVAL,
			"mode %04o: give the owner read and write, and nothing beyond 0777",
			wanted->mode);
	return may_own(dev, record, r, wanted->uid, wanted->gid, wanted->mode);
}

/*
 * Undone on failure. A death in between leaves file, lock file and record different: the record
 * permits either mode meanwhile, and the same call again, or a repair, completes it.
 */
static int set_owner(struct speckv_device *dev, struct lay_pool_record *record, struct region *r,
	const struct lay_pool_record *wanted)
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
			fail(dev->ctx, rc,
				"pool %s: cannot give %s to uid %u, gid %u, mode %04o: %s",
				record->name, r->path, wanted->uid, wanted->gid, wanted->mode,
				strerror(-rc));
	}
	if (rc) {
		if (pool_file_own(r->fd, &before, (mode_t)before.mode) ||
			pool_file_own(r->lock_fd, &before, pool_lock_mode(before.mode)))
			pool_event(r, SPECKV_EVENT_POOL_SET, SPECKV_WARNING,
				"owner or mode were changed in part, and could not be restored");
		dev->medium.backend->pool_owner(dev, record, before.uid, before.gid, before.mode);
	}
	record->uid = rc ? before.uid : wanted->uid;
	record->gid = rc ? before.gid : wanted->gid;
	record->mode = rc ? before.mode : wanted->mode;
	return rc;
}

/* Wanted limits in the header. */
struct limits {
	uint64_t quota, tenant;
	uint32_t eviction;
};

static int check_limits(struct speckv_device *dev, struct region *r, unsigned int mask,
	const struct speckv_pool_config *config, struct limits *wanted)
{
	struct lay_pool *pool = &r->head->pool;
	uint64_t quota = config->quota_bytes / r->page_bytes,
		 tenant = config->tenant_quota_bytes / r->page_bytes;
	char a[32], b[32];

	if (mask & SPECKV_SET_QUOTA) {
		if (!config->quota_bytes)
			quota = region_pages(r);
		if (config->quota_bytes && config->quota_bytes < r->fixed.block_bytes)
			return fail(dev->ctx, -EINVAL, "quota %s is below one block of %s",
				human(a, config->quota_bytes), human(b, r->fixed.block_bytes));
		if (quota > r->fixed.max_pages)
			return fail(dev->ctx, -EINVAL, "quota %s is above the largest size %s",
				human(a, config->quota_bytes),
				human(b, r->fixed.max_pages * r->page_bytes));
	}
	if (mask & SPECKV_SET_TENANT_QUOTA && config->tenant_quota_bytes &&
		config->tenant_quota_bytes < r->fixed.block_bytes)
		return fail(dev->ctx, -EINVAL, "tenant quota %s is below one block of %s",
			human(a, config->tenant_quota_bytes), human(b, r->fixed.block_bytes));
	if (mask & SPECKV_SET_EVICTION && config->eviction > SPECKV_EVICT_NONE)
		return fail(dev->ctx, -EINVAL, "eviction policy %u does not exist; use lru or none",
			config->eviction);
	wanted->quota = mask & SPECKV_SET_QUOTA ? quota : load_acquire(&pool->quota_pages);
	wanted->tenant = mask & SPECKV_SET_TENANT_QUOTA ? tenant
							: load_acquire(&pool->tenant_quota_pages);
	wanted->eviction = mask & SPECKV_SET_EVICTION ? config->eviction
						      : load_acquire(&pool->eviction);
	return 0;
}

/* Log the changed settings with their new values. */
static void set_event(struct region *r, unsigned int mask)
{
	const struct lay_pool_record *record = &r->dev->table->pools[r->record];
	struct lay_pool *pool = &r->head->pool;
	uint64_t tenant = load_acquire(&pool->tenant_quota_pages);
	char text[160] = "", size[32];
	size_t at = 0;

	if (mask & SPECKV_SET_QUOTA)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", quota %s",
			human(size, load_acquire(&pool->quota_pages) * r->page_bytes));
	if (mask & SPECKV_SET_TENANT_QUOTA)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", tenant quota %s",
			tenant ? human(size, tenant * r->page_bytes) : "none");
	if (mask & SPECKV_SET_EVICTION)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", eviction %s",
			load_acquire(&pool->eviction) == SPECKV_EVICT_LRU ? "lru" : "none");
	if (mask & SPECKV_SET_OWNER)
		at += (size_t)snprintf(text + at, sizeof(text) - at, ", uid %u, gid %u",
			record->uid, record->gid);
	if (mask & SPECKV_SET_MODE)
		snprintf(text + at, sizeof(text) - at, ", mode %04o", record->mode);
	pool_event(r, SPECKV_EVENT_POOL_SET, SPECKV_INFO, "settings changed: %s", text + 2);
}

static void store_limits(struct lay_pool *pool, const struct limits *limits)
{
	store_release(&pool->quota_pages, limits->quota);
	store_release(&pool->tenant_quota_pages, limits->tenant);
	store_release(&pool->eviction, limits->eviction);
}

/* Apply the checked settings, all or none. */
static int set_all(struct speckv_device *dev, struct lay_pool_record *record, struct region *r,
	const struct lay_pool_record *wanted, const struct limits *limits)
{
	struct lay_pool *pool = &r->head->pool;
	const struct limits before = { load_acquire(&pool->quota_pages),
		load_acquire(&pool->tenant_quota_pages), load_acquire(&pool->eviction) };
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
	return fail(dev->ctx, rc, "pool %s: %s cannot be written: %s; its settings are unchanged",
		r->fixed.name, r->path, strerror(-rc));
}

int speckv_pool_set(struct speckv_device *dev, const char *name, unsigned int mask,
	const struct speckv_pool_config *config, struct speckv_pool_info *info)
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
	if (!rc && owned_so(&region, record, &wanted) &&
		limits.quota == load_acquire(&pool->quota_pages) &&
		limits.tenant == load_acquire(&pool->tenant_quota_pages) &&
		limits.eviction == load_acquire(&pool->eviction))
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

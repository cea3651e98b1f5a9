// SPDX-License-Identifier: MIT
/*
 * Pools of a card. The card is authoritative for its pools and their blocks. This machine's copy in
 * the runtime folder (a table of pools, and each pool's index) is rebuilt from the card wherever
 * they differ.
 */
#include <stdlib.h>
#include <unistd.h>

#include "client/card/card.h"
#include "cards.h"

struct listing {
	struct speckv_pool_description pools[LAY_POOLS];
	unsigned int count;
};

static int list_one(const struct speckv_log_header *header, const void *entry, void *arg)
{
	struct listing *list = arg;
	struct speckv_pool_description *pool = &list->pools[list->count];

	(void)header;
	memcpy(pool, entry, sizeof(*pool));
	list->count += list->count < LAY_POOLS && memchr(pool->name, 0, sizeof(pool->name)) &&
		name_ok(pool->name);
	return list->count == LAY_POOLS;
}

static int list_pools(struct speckv_device *dev, struct listing *list)
{
	int rc;

	list->count = 0;
	rc = card_log(dev->managed, SPECKV_LOG_POOLS, 0, 0, list_one, list);
	return rc > 0 ? 0 : rc;
}

static struct speckv_pool_description *listed(struct listing *list, const uint8_t uuid[16])
{
	for (unsigned int i = 0; i < list->count; i++)
		if (memcmp(list->pools[i].uuid, uuid, 16) == 0)
			return &list->pools[i];
	return NULL;
}

/*
 * Send RESIZE_POOL or DELETE_POOL for the pool with this uuid. -ENOENT: the card has no such pool.
 */
static int pool_command(struct speckv_device *dev, uint8_t opcode, uint8_t flags,
	const uint8_t uuid[16], uint64_t capacity_bytes)
{
	struct speckv_cmd_pool command = {
		.opcode = opcode, .flags = flags, .capacity_bytes = capacity_bytes
	};
	struct listing *list = malloc(sizeof(*list));
	struct speckv_pool_description *pool;
	int rc = list ? list_pools(dev, list) : -ENOMEM;

	if (!rc) {
		pool = listed(list, uuid);
		command.pool = pool ? pool->pool : 0;
		memcpy(command.uuid, uuid, sizeof(command.uuid));
		rc = !pool ? -ENOENT
			   : card_admin_call(dev->managed, &command, NULL, 0, NULL, 0,
				     60000000000ull, NULL);
	}
	free(list);
	return rc;
}

int card_pool_delete(struct speckv_device *dev, const uint8_t uuid[16])
{
	int rc = pool_command(dev, SPECKV_ADMIN_DELETE_POOL, 0, uuid, 0);

	return rc == -ENOENT ? 0 : rc;
}

/*
 * Text for a card's refusal of a pool of `bytes`, `more` of them new: out of card memory, or of
 * host memory behind an emulated card.
 */
static int card_full(struct speckv_device *dev, const char *name, uint64_t bytes, uint64_t more)
{
	struct medium behind = dev->medium;
	struct speckv_identify identity;
	char size[32], room[32];
	struct folder folder;

	if (card_identify(dev->managed, &identity) != 0)
		return -ENOSPC;
	if (more > identity.memory_free_bytes ||
		transport_folder(dev->ctx, dev->medium.name, behind.path, &folder) != 0)
		return fail(dev->ctx, -ENOSPC,
			"pool %s needs %s and its tables, and %s has %s free (%llu bytes); ask for less, or shrink another pool",
			name, human(size, bytes), dev->medium.name,
			human(room, identity.memory_free_bytes),
			(unsigned long long)identity.memory_free_bytes);
	folder_close(&folder);
	return fail(dev->ctx, -ENOSPC,
		"pool %s needs %s, and %s, which holds the memory of %s, has %s free: make room there, or ask for less",
		name, human(size, bytes), behind.path, dev->medium.name,
		human(room, medium_available(&behind)));
}

int card_pool_resize(struct speckv_device *dev, const struct lay_pool_record *record,
	uint64_t capacity_bytes, bool dry_run)
{
	int rc = pool_command(dev, SPECKV_ADMIN_RESIZE_POOL, dry_run ? SPECKV_POOL_DRY_RUN : 0,
		record->uuid, capacity_bytes);

	if (rc == -ENOSPC)
		return card_full(dev, record->name, capacity_bytes,
			capacity_bytes > record->capacity_bytes
				? capacity_bytes - record->capacity_bytes
				: 0);
	return rc == -EALREADY ? 0 : rc;
}

static int set_feature(struct speckv_device *dev, uint16_t pool, uint16_t feature, uint64_t value)
{
	struct speckv_cmd_value command = {
		.opcode = SPECKV_ADMIN_SET_FEATURE, .pool = pool, .feature = feature, .value = value
	};
	int rc = card_admin_call(dev->managed, &command, NULL, 0, NULL, 0, 0, NULL);

	return rc == -EALREADY ? 0 : rc;
}

int card_pool_owner(struct speckv_device *dev, const struct lay_pool_record *record, uint32_t uid,
	uint32_t gid, uint32_t mode)
{
	struct listing *list = malloc(sizeof(*list));
	struct speckv_pool_description *pool = NULL;
	int rc = list ? list_pools(dev, list) : -ENOMEM;

	if (!rc)
		pool = listed(list, record->uuid);
	if (!rc && !pool)
		rc = fail(dev->ctx, -ENOENT, "%s has no pool %s any more", dev->medium.name,
			record->name);
	if (!rc && (pool->uid != uid || pool->gid != gid))
		rc = set_feature(dev, pool->pool, SPECKV_FEATURE_POOL_OWNER,
			(uint64_t)gid << 32 | uid);
	if (!rc && pool->mode != mode)
		rc = set_feature(dev, pool->pool, SPECKV_FEATURE_POOL_MODE, mode);
	free(list);
	return rc;
}

int card_pool_create(struct speckv_device *dev, const struct speckv_pool_config *config,
	const struct region_plan *plan, struct lay_pool_record *record)
{
	struct speckv_cmd_data command = { .opcode = SPECKV_ADMIN_CREATE_POOL };
	struct speckv_pool_description d = { .capacity_bytes = plan->capacity_bytes,
		.max_bytes = plan->max_bytes,
		.page_bytes = plan->page_bytes,
		.codec = config->codec,
		.eviction = config->eviction,
		.uid = config->uid,
		.gid = config->gid,
		.mode = config->mode,
		.pool_flags = config->single_tenant ? SPECKV_POOL_FLAG_SINGLE_TENANT : 0 };
	struct listing *list = malloc(sizeof(*list));
	struct speckv_pool_description *made;
	int rc;

	if (!list)
		return fail(dev->ctx, -ENOMEM, "out of memory");
	memcpy(d.name, record->name, sizeof(d.name));
	memcpy(d.uuid, record->uuid, sizeof(d.uuid));
	memcpy(&d.shape, &config->geometry, sizeof(d.shape));
	rc = card_admin_call(dev->managed, &command, &d, sizeof(d), NULL, 0, 60000000000ull, NULL);
	if (rc == -ENOSPC)
		rc = card_full(dev, record->name, plan->capacity_bytes, plan->capacity_bytes);
	if (!rc)
		rc = list_pools(dev, list);
	made = rc ? NULL : listed(list, d.uuid);
	if (!rc && !made)
		rc = fail(dev->ctx, -EIO, "%s created pool %s but does not list it",
			dev->medium.name, record->name);
	if (made) {
		record->generation = made->generation;
		record->created_ns = made->created_ns;
	}
	free(list);
	return rc;
}

/* ---- the index from the card's blocks ------------------------------------------------------- */

/* Index a block of the card, if the pages of its run are free. */
static bool enter_block(struct region *r, const struct speckv_log_block *block, uint32_t tenant)
{
	uint64_t page = block->address >> r->page_shift, pages = region_pages(r),
		 need = ((uint64_t)block->bytes + r->page_bytes - 1) >> r->page_shift;
	struct run run = { .page = page,
		.generation = block->generation,
		.pages = (uint32_t)(need < r->min_run ? r->min_run : need) };
	struct speckv_key key;
	struct block_ref found;

	if (block->address & (r->page_bytes - 1) || page >= pages || need > LAY_RUN_MAX ||
		run.pages > pages - page || !run.generation || run.generation > LAY_GENERATION_MASK)
		return false;
	for (uint32_t i = 0; i < run.pages; i++)
		if (load_acquire(&r->page_map[page + i]) != LAY_FREE)
			return false;
	memcpy(key.bytes, block->key, sizeof(key.bytes));
	if (index_find(r, &key, &found))
		return false; /* duplicate key: keep one block */
	index_fill(r, &run, &key, block->first_position, block->bytes,
		(uint32_t)r->fixed.block_bytes, tenant,
		/* the card's order of uses; the pool's continues from it */
		use_seen(r, block->used_ns));
	for (uint32_t i = run.pages; --i > 0;)
		store_release(&r->page_map[page + i], lay_word(LAY_CONT, i, run.generation));
	store_release(&r->page_map[page], lay_word(LAY_HEAD, run.pages, run.generation));
	if (index_insert(r, &key, &run) == 0)
		return true;
	for (uint32_t i = 0; i < run.pages; i++)
		store_release(&r->page_map[page + i], LAY_FREE);
	return false;
}

static int card_rebuild(struct region *r, uint16_t number, uint64_t *kept, uint64_t *lost)
{
	struct speckv_device *dev = r->dev;
	uint64_t after = 0, highest = load_acquire(&r->head->pool.next_run_generation);
	uint8_t *page = malloc(CARD_DATA_BYTES);
	uint32_t tenant = (uint32_t)tenant_find(r, "recovered");
	int rc = page ? 0 : fail(dev->ctx, -ENOMEM, "out of memory");

	*kept = *lost = 0;
	for (uint64_t p = 0; p < region_pages(r); p++)
		store_release(&r->page_map[p], LAY_FREE);
	while (!rc) {
		struct speckv_cmd_log command = { .opcode = SPECKV_ADMIN_GET_LOG,
			.log = SPECKV_LOG_BLOCKS,
			.pool = number,
			.after = after };
		struct speckv_log_header header;

		rc = card_admin_call(dev->managed, &command, NULL, 0, page, CARD_DATA_BYTES,
			60000000000ull, NULL);
		if (rc)
			break;
		memcpy(&header, page, sizeof(header));
		if (header.entries &&
			(header.entry_bytes < sizeof(struct speckv_log_block) ||
				header.entries >
					(CARD_DATA_BYTES - sizeof(header)) / header.entry_bytes)) {
			rc = fail(dev->ctx, -EBADMSG, "%s: malformed log page", dev->medium.name);
			break;
		}
		for (uint32_t i = 0; i < header.entries; i++) {
			struct speckv_log_block block;

			memcpy(&block, page + sizeof(header) + (size_t)i * header.entry_bytes,
				sizeof(block));
			if (enter_block(r, &block, tenant))
				++*kept;
			else
				++*lost;
			if (block.generation >= highest && block.generation < LAY_GENERATION_MASK)
				highest = block.generation + 1;
		}
		if (header.last <= after)
			break;
		after = header.last;
	}
	store_release(&r->head->pool.next_run_generation, highest);
	pages_recount(r);
	free(page);
	return rc;
}

/*
 * Create the record and the tables of a pool that only the card has: created by another machine, or
 * before the last reboot.
 */
static int adopt_pool(struct speckv_device *dev, const struct speckv_pool_description *d)
{
	struct speckv_pool_config config = { .capacity_bytes = d->capacity_bytes,
		.max_bytes = d->max_bytes,
		.quota_bytes = d->quota_bytes,
		.codec = d->codec,
		.eviction = d->eviction,
		.page_bytes = d->page_bytes,
		.uid = d->uid,
		.gid = d->gid,
		.mode = d->mode,
		.single_tenant = d->pool_flags & SPECKV_POOL_FLAG_SINGLE_TENANT };
	struct lay_pool_record *record = NULL;
	uint64_t kept = 0, lost = 0;
	struct region_plan plan;
	struct region region;
	int number = -1, rc;

	for (int i = LAY_POOLS; i-- > 0;)
		if (load_acquire(&dev->table->pools[i].state) == 0)
			number = i;
	if (number < 0)
		return fail(dev->ctx, -ENOSPC, "%s has more pools than this machine's table holds",
			dev->medium.name);
	record = &dev->table->pools[number];
	memcpy(&config.geometry, &d->shape, sizeof(config.geometry));
	memcpy(config.name, d->name, sizeof(config.name));
	config.quota_bytes = config.quota_bytes ? config.quota_bytes : config.capacity_bytes;
	config.max_bytes = config.max_bytes ? config.max_bytes : config.capacity_bytes;
	rc = region_plan(dev->ctx, &config, true, &plan);
	if (!rc && (plan.capacity_bytes != d->capacity_bytes || plan.max_bytes != config.max_bytes))
		rc = fail(dev->ctx, -EOPNOTSUPP,
			"pool %s of %s has a size that this build does not support", d->name,
			dev->medium.name);
	if (rc)
		return rc;
	memset((void *)record, 0, sizeof(*record));
	memcpy(record->name, d->name, sizeof(record->name));
	memcpy(record->uuid, d->uuid, sizeof(record->uuid));
	record->generation = d->generation;
	record->uid = d->uid;
	record->gid = d->gid;
	record->mode = d->mode;
	record->codec = d->codec;
	record->capacity_bytes = d->capacity_bytes;
	record->max_bytes = plan.max_bytes;
	record->created_ns = d->created_ns;
	record->table_bytes = plan.data_offset;
	rc = region_make(dev, record, &config, &plan);
	if (rc)
		return rc;
	/* region_open() needs it ACTIVE; others wait for the manager's lock, or get a miss */
	store_release(&record->state, SPECKV_POOL_ACTIVE);
	rc = region_open(dev, record->name, true, &region);
	if (!rc) {
		rc = card_rebuild(&region, d->pool, &kept, &lost);
		region_close(&region);
	}
	if (!rc && (kept || lost))
		device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_INFO,
			"pool %.40s taken over from the card: %llu blocks, %llu unusable",
			record->name, (unsigned long long)kept, (unsigned long long)lost);
	return rc;
}

static void forget(struct speckv_device *dev, struct lay_pool_record *record)
{
	store_release(&record->state, SPECKV_POOL_DESTROYING);
	region_remove(dev, record, false);
	device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
		"pool %.63s is no longer on the card: removed from this machine's table",
		record->name);
	store_release(&record->state, 0);
}

int card_manage(struct speckv_device *dev, bool inspect)
{
	struct listing *list;
	struct card_admin *admin;
	int rc = card_admin_open(dev->ctx, dev->medium.name, &admin);

	dev->managed = rc ? NULL : admin;
	if (rc || inspect)
		return rc;
	if (memcmp(card_identity(admin)->uuid, dev->uuid, sizeof(dev->uuid)) != 0) {
		rc = fail(dev->ctx, -ESTALE,
			"%s is not the card that was opened: open the device again",
			dev->medium.name);
		card_unmanage(dev);
		return rc;
	}
	list = malloc(sizeof(*list));
	rc = list ? list_pools(dev, list) : fail(dev->ctx, -ENOMEM, "out of memory");
	for (int i = 0; i < LAY_POOLS && !rc; i++) {
		struct lay_pool_record *record = &dev->table->pools[i];
		uint32_t state = load_acquire(&record->state);
		struct speckv_pool_description *pool = state ? listed(list, record->uuid) : NULL;

		if (!state)
			continue;
		if (pool && state == SPECKV_POOL_DESTROYING && removal_undone(dev, record)) {
			pool->pool = 0;
			continue;
		}
		if (pool && (state == SPECKV_POOL_CREATING || state == SPECKV_POOL_DESTROYING)) {
			/* its manager died: delete it on the card; admin/device.c finishes the record */
			rc = card_pool_delete(dev, record->uuid);
			pool->pool = 0;
		} else if (!pool && state == SPECKV_POOL_DESTROYING) {
			/* its manager died after the card had deleted it */
			forget(dev, record);
		} else if (state == SPECKV_POOL_ACTIVE &&
			(!pool || (pool->generation != record->generation))) {
			forget(dev, record);
		} else if (pool) {
			if (state == SPECKV_POOL_ACTIVE &&
				pool->capacity_bytes != record->capacity_bytes)
				card_pool_resize(dev, record, record->capacity_bytes, false);
			pool->pool = 0; /* known */
		}
	}
	for (unsigned int i = 0; !rc && i < list->count; i++)
		if (list->pools[i].pool)
			rc = adopt_pool(dev, &list->pools[i]);
	free(list);
	if (rc)
		card_unmanage(dev);
	return rc;
}

void card_unmanage(struct speckv_device *dev)
{
	if (dev->managed)
		card_admin_close(dev->managed);
	dev->managed = NULL;
}

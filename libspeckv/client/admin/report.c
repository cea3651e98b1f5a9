// SPDX-License-Identifier: MIT
/* Reports of a pool and a device: events, statistics, tenants, clients, the calibration. */
#include <stdlib.h>

#include "admin.h"

static int tell_events(const struct lay_event *ring, unsigned int slots, uint64_t newest,
	uint64_t after, const char *pool, speckv_event_cb cb, void *arg)
{
	uint64_t first = newest > slots ? newest - slots + 1 : 1;
	uint64_t number = first > after ? first : after + 1;
	int rc = 0;

	if (after >= newest)
		return 0;
	for (uint64_t left = newest - number + 1; left-- && !rc; number++) {
		const struct lay_event *e = &ring[number % slots];
		struct speckv_event out;

		memset(&out, 0, sizeof(out));
		out.sequence = load_acquire(&e->sequence);
		out.time_ns = e->time_ns;
		out.kind = e->kind;
		out.severity = e->severity;
		out.pid = e->pid;
		snprintf(out.pool, sizeof(out.pool), "%s", pool ? pool : "");
		memcpy(out.text, e->text, sizeof(out.text) - 1);
		atomic_thread_fence(memory_order_acquire);
		if (out.sequence == number && load_relaxed(&e->sequence) == number)
			rc = cb(&out, arg);
	}
	return rc;
}

int speckv_events(struct speckv_device *dev, const char *pool, uint64_t after, speckv_event_cb cb,
	void *arg)
{
	struct region region;
	int rc;

	if (!dev || !cb)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	if (!pool)
		return tell_events(dev->table->events, LAY_DEVICE_EVENTS,
			load_acquire(&dev->table->super.event_sequence), after, NULL, cb, arg);
	rc = region_open(dev, pool, false, &region);
	if (rc)
		return rc;
	rc = tell_events(region.head->events, LAY_POOL_EVENTS,
		load_acquire(&region.head->pool.event_sequence), after, pool, cb, arg);
	region_close(&region);
	return rc;
}

const char *speckv_event_kind_name(unsigned int kind)
{
	static const char *const names[] = {
		[SPECKV_EVENT_DEVICE_CREATED] = "device-created",
		[SPECKV_EVENT_DEVICE_REMOVED] = "device-removed",
		[SPECKV_EVENT_POOL_CREATED] = "pool-created",
		[SPECKV_EVENT_POOL_RESIZED] = "pool-resized",
		[SPECKV_EVENT_POOL_SET] = "pool-set",
		[SPECKV_EVENT_POOL_DESTROYED] = "pool-destroyed",
		[SPECKV_EVENT_CLIENT_ATTACHED] = "client-attached",
		[SPECKV_EVENT_CLIENT_DETACHED] = "client-detached",
		[SPECKV_EVENT_CLIENT_DIED] = "client-died",
		[SPECKV_EVENT_BAD_BLOCK] = "bad-block",
		[SPECKV_EVENT_POOL_FULL] = "pool-full",
		[SPECKV_EVENT_CHECK_REPAIRED] = "check-repaired",
		[SPECKV_EVENT_RECOVERED] = "recovered",
		[SPECKV_EVENT_WRITE_FAILED] = "write-failed",
	};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : NULL;
}

/* Sums are computed, not stored: always consistent with their parts. */
static void add_up(uint64_t counters[SPECKV_COUNTERS])
{
	counters[SPECKV_COUNT_GETS] = counters[SPECKV_COUNT_HITS] + counters[SPECKV_COUNT_MISSES];
	counters[SPECKV_COUNT_LOOKUPS] =
		counters[SPECKV_COUNT_LOOKUP_HITS] + counters[SPECKV_COUNT_LOOKUP_MISSES];
	counters[SPECKV_COUNT_WANTED] =
		counters[SPECKV_COUNT_GETS] + counters[SPECKV_COUNT_LOOKUP_MISSES];
}

int speckv_pool_stats(struct speckv_device *dev, const char *name, struct speckv_stats *stats)
{
	struct region region;
	int rc;

	if (!dev || !stats)
		return -EINVAL;
	rc = region_open(dev, name, false, &region);
	if (rc)
		return rc;
	memset(stats, 0, sizeof(*stats));
	stats->taken_ns = now_ns();
	stats->since_ns = load_acquire(&region.head->pool.stats_since_ns);
	/* downwards: parts before their totals (LOOKUP_MISSES has none) */
	for (unsigned int i = SPECKV_COUNTERS; i-- > 0;)
		stats->counters[i] = load_acquire(&region.head->stats.counters[i]);
	add_up(stats->counters);
	for (unsigned int h = 0; h < SPECKV_HISTOGRAMS; h++)
		for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
			stats->histograms[h][i] =
				load_relaxed(&region.head->stats.histograms[h][i]);
	region_close(&region);
	return 0;
}

int speckv_pool_stats_reset(struct speckv_device *dev, const char *name)
{
	struct region region;
	int rc;

	if (!dev)
		return -EINVAL;
	rc = region_open(dev, name, true, &region);
	if (rc)
		return rc;
	for (unsigned int i = 0; i < SPECKV_COUNTERS; i++)
		store_release(&region.head->stats.counters[i], 0);
	for (unsigned int h = 0; h < SPECKV_HISTOGRAMS; h++)
		for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
			store_release(&region.head->stats.histograms[h][i], 0);
	store_release(&region.head->pool.stats_since_ns, now_ns());
	region_close(&region);
	return 0;
}

int speckv_pool_stats_reset_check(struct speckv_device *dev, const char *name)
{
	struct region region;
	int rc;

	if (!dev)
		return -EINVAL;
	rc = region_open(dev, name, true, &region);
	if (!rc)
		region_close(&region);
	return rc;
}

static uint32_t clients_of(struct region *r, uint32_t tenant)
{
	uint32_t n = 0;

	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		n += load_acquire(&r->head->clients[slot].state) & 1 &&
			load_acquire(&r->head->clients[slot].tenant) == tenant &&
			client_alive(r, slot);
	return n;
}

int speckv_pool_tenants(struct speckv_device *dev, const char *name, speckv_tenant_cb cb, void *arg)
{
	struct region region;
	int rc;

	if (!dev || !cb)
		return -EINVAL;
	rc = region_open(dev, name, false, &region);
	if (rc)
		return rc;
	for (uint32_t i = 0; i < LAY_TENANTS && !rc; i++) {
		struct lay_tenant *t = &region.head->tenants[i];
		struct speckv_tenant_info info;

		if (load_acquire(&t->state) != 2)
			continue;
		memset(&info, 0, sizeof(info));
		memcpy(info.name, t->name, sizeof(info.name) - 1);
		info.index = i;
		info.clients = clients_of(&region, i);
		info.used_bytes = load_relaxed(&t->used_pages) * region.page_bytes;
		info.blocks = load_relaxed(&t->blocks);
		info.puts = load_relaxed(&t->puts);
		info.hits = load_relaxed(&t->hits);
		info.misses = load_relaxed(&t->misses);
		info.lookup_misses = load_relaxed(&t->lookup_misses);
		info.gets = info.hits + info.misses;
		info.wanted = info.gets + info.lookup_misses;
		info.bytes_in = load_relaxed(&t->bytes_in);
		info.bytes_out = load_relaxed(&t->bytes_out);
		info.evicted_blocks = load_relaxed(&t->evicted);
		rc = cb(&info, arg);
	}
	region_close(&region);
	return rc;
}

int speckv_pool_clients(struct speckv_device *dev, const char *name, speckv_client_cb cb, void *arg)
{
	struct region region;
	int rc;

	if (!dev || !cb)
		return -EINVAL;
	rc = region_open(dev, name, false, &region);
	if (rc)
		return rc;
	for (uint32_t slot = 0; slot < LAY_CLIENTS && !rc; slot++) {
		struct lay_client *c = &region.head->clients[slot];
		struct speckv_client_info info;

		if (!(load_acquire(&c->state) & 1))
			continue;
		memset(&info, 0, sizeof(info));
		info.slot = slot;
		info.pid = c->pid;
		info.uid = c->uid;
		info.tenant = load_acquire(&c->tenant);
		memcpy(info.command, c->command, sizeof(info.command) - 1);
		info.attached_ns = c->attached_ns;
		info.alive = (uint32_t)client_alive(&region, slot);
		info.allocated_bytes = load_relaxed(&c->allocated_pages) * region.page_bytes;
		rc = cb(&info, arg);
	}
	region_close(&region);
	return rc;
}

int speckv_pool_calibration(struct speckv_device *dev, const char *name, void *buffer,
	uint64_t capacity, uint64_t *bytes)
{
	struct speckv_calibration *calibration = NULL;
	struct region region;
	uint8_t *file = NULL;
	int rc;

	if (!dev || !name || !bytes || (capacity && !buffer))
		return -EINVAL;
	*bytes = 0;
	rc = region_open(dev, name, false, &region);
	if (rc)
		return rc;
	if (!calibration_needed(region.fixed.codec))
		rc = fail(dev->ctx, -ENOENT, "pool %s has no calibration: its codec %s needs none",
			name, speckv_codec_name(region.fixed.codec));
	if (!rc)
		rc = calibration_copy(&region, &file, bytes);
	if (!rc && *bytes > capacity)
		rc = fail(dev->ctx, -ENOSPC, "the calibration of pool %s has %llu bytes", name,
			(unsigned long long)*bytes);
	if (!rc)
		rc = calibration_load(&region, file, *bytes, &calibration);
	if (!rc)
		memcpy(buffer, file, *bytes);
	speckv_calibration_free(calibration);
	free(file);
	region_close(&region);
	return rc;
}

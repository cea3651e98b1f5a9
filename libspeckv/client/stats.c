// SPDX-License-Identifier: MIT
/* Counters, latency histograms, tenants and events: all in the medium, so that they outlive every process. */
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

void count(struct speckv_pool *pool, unsigned int counter, uint64_t n)
{
	if (n && !pool->read_only)
		atomic_fetch_add_explicit(&pool->region.head->stats.counters[counter], n, memory_order_release);
}

/* Log-linear: four buckets to a power of two, as HdrHistogram with two significant bits. */
static unsigned int bucket_of(uint64_t ns)
{
	unsigned int top, bucket;

	if (ns < 4)
		return (unsigned int)ns;
	top = 63u - (unsigned int)__builtin_clzll(ns);
	bucket = (top - 1) * 4 + (unsigned int)(ns >> (top - 2) & 3);
	return bucket < SPECKV_HIST_BUCKETS ? bucket : SPECKV_HIST_BUCKETS - 1;
}

uint64_t speckv_histogram_bound(unsigned int bucket)
{
	unsigned int top = bucket / 4 + 1;

	if (bucket < 4)
		return bucket;
	if (bucket >= SPECKV_HIST_BUCKETS - 1)
		return UINT64_MAX;
	return (4ull + bucket % 4 + 1) * (1ull << (top - 2)) - 1;
}

uint64_t speckv_histogram_quantile(const uint64_t buckets[SPECKV_HIST_BUCKETS], double share)
{
	uint64_t total = 0, seen = 0, rank;

	for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
		total += buckets[i];
	if (!total)
		return 0;
	share = share < 0 ? 0 : share > 1 ? 1 : share;
	rank = (uint64_t)(share * (double)total);
	rank = rank < total ? rank : total - 1;
	for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++) {
		seen += buckets[i];
		if (seen > rank)
			return speckv_histogram_bound(i);
	}
	return UINT64_MAX;
}

void count_time(struct speckv_pool *pool, unsigned int histogram, uint64_t ns)
{
	if (!pool->read_only)
		add(&pool->region.head->stats.histograms[histogram][bucket_of(ns)], 1);
}

/* ---- tenants -------------------------------------------------------------------------------------------------------- */

static bool tenant_idle(struct region *r, uint32_t index)
{
	if (load(&r->head->tenants[index].blocks) || load(&r->head->tenants[index].used_pages))
		return false;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		if (load(&r->head->clients[slot].state) & 1 && load(&r->head->clients[slot].tenant) == index)
			return false;
	return true;
}

/* The last one: of blocks whose tenant is not known, and of new tenants when the table is full of tenants with blocks. */
uint32_t tenant_others(struct region *r)
{
	struct lay_tenant *others = &r->head->tenants[LAY_TENANTS - 1];

	if (load(&others->state) != 2) {
		snprintf(others->name, sizeof(others->name), "others");
		store(&others->state, 2);
	}
	return LAY_TENANTS - 1;
}

/* Index of the tenant of that name, made if need be. Negative: its name did not reach the medium. */
int tenant_find(struct region *r, const char *name)
{
	struct lay_tenant *tenants = r->head->tenants;
	int rc;

	for (int i = 0; i < LAY_TENANTS; i++)
		if (load(&tenants[i].state) == 2 && strncmp(tenants[i].name, name, sizeof(tenants[i].name)) == 0)
			return i;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < LAY_TENANTS - 1; i++) {
			uint32_t state = pass ? 2 : 0;

			if (load(&tenants[i].state) != state || (pass && !tenant_idle(r, (uint32_t)i)) ||
			    !atomic_compare_exchange_strong(&tenants[i].state, &state, 1))
				continue;
			memset((uint8_t *)&tenants[i] + offsetof(struct lay_tenant, name), 0, sizeof(tenants[i]) - offsetof(struct lay_tenant, name));
			snprintf(tenants[i].name, sizeof(tenants[i].name), "%s", name);
			store(&tenants[i].state, 2);
			rc = region_flush(r, &tenants[i], sizeof(tenants[i])); /* frames will say its number */
			return rc ? rc : i;
		}
	return (int)tenant_others(r);
}

/* ---- events: rings whose slots carry their own sequence number ------------------------------------------------------- */

static void log_event(struct lay_event *ring, unsigned int slots, _Atomic uint64_t *sequence, unsigned int kind, unsigned int severity, const char *format,
		      va_list args)
{
	uint64_t number = atomic_fetch_add(sequence, 1) + 1;
	struct lay_event *e = &ring[number % slots];
	char text[160];

	vsnprintf(text, sizeof(text), format, args);
	store(&e->sequence, 0);
	atomic_thread_fence(memory_order_seq_cst);
	e->time_ns = now_ns();
	e->kind = kind;
	e->severity = severity;
	e->pid = (uint32_t)getpid();
	memset(e->text, 0, sizeof(e->text));
	memcpy(e->text, text, strnlen(text, sizeof(text) - 1));
	store(&e->sequence, number);
}

void pool_event(struct region *r, unsigned int kind, unsigned int severity, const char *format, ...)
{
	va_list args;

	if (!r->writable)
		return;
	va_start(args, format);
	log_event(r->head->events, LAY_POOL_EVENTS, &r->head->pool.event_sequence, kind, severity, format, args);
	va_end(args);
}

void device_event(struct speckv_device *dev, unsigned int kind, unsigned int severity, const char *format, ...)
{
	va_list args;

	if (!dev->writable)
		return;
	va_start(args, format);
	log_event(dev->table->events, LAY_DEVICE_EVENTS, &dev->table->super.event_sequence, kind, severity, format, args);
	va_end(args);
}

static int tell_events(const struct lay_event *ring, unsigned int slots, uint64_t newest, uint64_t after, const char *pool, speckv_event_cb cb, void *arg)
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
		out.sequence = load(&e->sequence);
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

int speckv_events(struct speckv_device *dev, const char *pool, uint64_t after, speckv_event_cb cb, void *arg)
{
	struct region region;
	int rc;

	if (!dev || !cb)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	if (!pool)
		return tell_events(dev->table->events, LAY_DEVICE_EVENTS, load(&dev->table->super.event_sequence), after, NULL, cb, arg);
	rc = region_open(dev, pool, false, &region);
	if (rc)
		return rc;
	rc = tell_events(region.head->events, LAY_POOL_EVENTS, load(&region.head->pool.event_sequence), after, pool, cb, arg);
	region_close(&region);
	return rc;
}

const char *speckv_event_kind_name(unsigned int kind)
{
	static const char *const names[] = {
		[SPECKV_EVENT_DEVICE_CREATED] = "device-created",     [SPECKV_EVENT_DEVICE_REMOVED] = "device-removed",
		[SPECKV_EVENT_POOL_CREATED] = "pool-created",	      [SPECKV_EVENT_POOL_RESIZED] = "pool-resized",
		[SPECKV_EVENT_POOL_SET] = "pool-set",		      [SPECKV_EVENT_POOL_DESTROYED] = "pool-destroyed",
		[SPECKV_EVENT_CLIENT_ATTACHED] = "client-attached",   [SPECKV_EVENT_CLIENT_DETACHED] = "client-detached",
		[SPECKV_EVENT_CLIENT_DIED] = "client-died",	      [SPECKV_EVENT_BAD_BLOCK] = "bad-block",
		[SPECKV_EVENT_POOL_FULL] = "pool-full",		      [SPECKV_EVENT_CHECK_REPAIRED] = "check-repaired",
		[SPECKV_EVENT_RECOVERED] = "recovered",		      [SPECKV_EVENT_WRITE_FAILED] = "write-failed",
	};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : NULL;
}

/* ---- what administrators read ---------------------------------------------------------------------------------------- */

/* Sums are not stored beside their parts: they cannot disagree with them. */
static void add_up(uint64_t counters[SPECKV_COUNTERS])
{
	counters[SPECKV_COUNT_GETS] = counters[SPECKV_COUNT_HITS] + counters[SPECKV_COUNT_MISSES];
	counters[SPECKV_COUNT_LOOKUPS] = counters[SPECKV_COUNT_LOOKUP_HITS] + counters[SPECKV_COUNT_LOOKUP_MISSES];
	counters[SPECKV_COUNT_WANTED] = counters[SPECKV_COUNT_GETS] + counters[SPECKV_COUNT_LOOKUP_MISSES];
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
	stats->since_ns = load(&region.head->pool.stats_since_ns);
	for (unsigned int i = SPECKV_COUNTERS; i-- > 0;) /* backwards: parts before what they are parts of (LOOKUP_MISSES is of no other) */
		stats->counters[i] = load(&region.head->stats.counters[i]);
	add_up(stats->counters);
	for (unsigned int h = 0; h < SPECKV_HISTOGRAMS; h++)
		for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
			stats->histograms[h][i] = load_relaxed(&region.head->stats.histograms[h][i]);
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
		store(&region.head->stats.counters[i], 0);
	for (unsigned int h = 0; h < SPECKV_HISTOGRAMS; h++)
		for (unsigned int i = 0; i < SPECKV_HIST_BUCKETS; i++)
			store(&region.head->stats.histograms[h][i], 0);
	store(&region.head->pool.stats_since_ns, now_ns());
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
		n += load(&r->head->clients[slot].state) & 1 && load(&r->head->clients[slot].tenant) == tenant && client_alive(r, slot);
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

		if (load(&t->state) != 2)
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

		if (!(load(&c->state) & 1))
			continue;
		memset(&info, 0, sizeof(info));
		info.slot = slot;
		info.pid = c->pid;
		info.uid = c->uid;
		info.tenant = load(&c->tenant);
		memcpy(info.command, c->command, sizeof(info.command) - 1);
		info.attached_ns = c->attached_ns;
		info.alive = (uint32_t)client_alive(&region, slot);
		info.allocated_bytes = load_relaxed(&c->allocated_pages) * region.page_bytes;
		rc = cb(&info, arg);
	}
	region_close(&region);
	return rc;
}

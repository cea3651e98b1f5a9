// SPDX-License-Identifier: MIT
/*
 * Counters, latency histograms and events: in the medium, so that they outlive processes.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "store.h"
#include "base/histogram.h"

void count(struct speckv_pool *pool, unsigned int counter, uint64_t n)
{
	if (n && !pool->read_only)
		atomic_fetch_add_explicit(&pool->region.head->stats.counters[counter], n,
			memory_order_release);
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
		add_relaxed(&pool->region.head->stats.histograms[histogram][histogram_bucket(ns)],
			1);
}

/* ---- events: rings whose slots carry their own sequence number ------------------------------ */

static void log_event(struct lay_event *ring, unsigned int slots, _Atomic uint64_t *sequence,
	unsigned int kind, unsigned int severity, const char *format, va_list args)
{
	uint64_t number = atomic_fetch_add(sequence, 1) + 1;
	struct lay_event *e = &ring[number % slots];
	char text[160];

	vsnprintf(text, sizeof(text), format, args);
	store_release(&e->sequence, 0);
	atomic_thread_fence(memory_order_seq_cst);
	e->time_ns = now_ns();
	e->kind = kind;
	e->severity = severity;
	e->pid = (uint32_t)getpid();
	memset(e->text, 0, sizeof(e->text));
	memcpy(e->text, text, strnlen(text, sizeof(text) - 1));
	store_release(&e->sequence, number);
}

void pool_event(struct region *r, unsigned int kind, unsigned int severity, const char *format, ...)
{
	va_list args;

	if (!r->writable)
		return;
	va_start(args, format);
	log_event(r->head->events, LAY_POOL_EVENTS, &r->head->pool.event_sequence, kind, severity,
		format, args);
	va_end(args);
}

void device_event(struct speckv_device *dev, unsigned int kind, unsigned int severity,
	const char *format, ...)
{
	va_list args;

	if (!dev->writable)
		return;
	va_start(args, format);
	log_event(dev->table->events, LAY_DEVICE_EVENTS, &dev->table->super.event_sequence, kind,
		severity, format, args);
	va_end(args);
}

// SPDX-License-Identifier: MIT
/* Flushes for durability over a power loss. */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store.h"

#define EVENT_EVERY_NS 1000000000u

int medium_flush(const struct medium *medium, const void *address, uint64_t bytes)
{
	uintptr_t start = (uintptr_t)address, end = start + bytes;

#if defined(__x86_64__)
	if (medium->node) {
		/*
		 * persistent memory: cache lines out, then a fence (Intel SDM, CLFLUSHOPT; every
		 * devdax machine has it)
		 */
		for (uintptr_t line = start & ~63ull; line < end; line += 64)
			__asm__ volatile(".byte 0x66; clflush %0" : "+m"(*(volatile char *)line));
		__asm__ volatile("sfence" ::: "memory");
		return 0;
	}
#endif
	start &= ~4095ull;
	return msync((void *)start, end - start, MS_SYNC) == 0 ? 0 : -errno;
}

int region_flush(struct region *r, const void *address, uint64_t bytes)
{
	uint64_t before, now, last;
	int rc;

	if (!r->durable)
		return 0;
	before = load_acquire(&r->flushes_failed);
	rc = medium_flush(&r->dev->medium, address, bytes);
	/*
	 * The kernel reports a write-back error to only one of the threads that wait for a page:
	 * fail them all.
	 */
	if (!rc && __builtin_expect(load_acquire(&r->flushes_failed) == before, 1))
		return 0;
	if (rc)
		atomic_fetch_add(&r->flushes_failed, 1);
	rc = rc ? rc : -EIO;
	now = clock_ns();
	last = load_acquire(&r->flush_event_ns);
	if ((!last || now - last > EVENT_EVERY_NS) &&
		atomic_compare_exchange_strong(&r->flush_event_ns, &last, now))
		pool_event(r, SPECKV_EVENT_WRITE_FAILED, SPECKV_ERROR,
			"the medium could not be written: %s; what was not stored was not acknowledged",
			strerror(-rc));
	return rc;
}

int region_flush_tables(struct region *r)
{
	return medium_flush(&r->dev->medium, r->base, r->fixed.data_offset);
}

int device_flush(struct speckv_device *dev)
{
	int rc;

	if (dev->durability != SPECKV_DURABLE_POWER)
		return 0;
	rc = medium_flush(&dev->medium, dev->table, sizeof(*dev->table));
	return rc ? fail(dev->ctx, rc, "%s: %s cannot be written: %s", dev->medium.name,
			    dev->medium.path, strerror(-rc))
		  : 0;
}

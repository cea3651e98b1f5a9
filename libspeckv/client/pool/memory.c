// SPDX-License-Identifier: MIT
/*
 * Allocations: page runs that stay claimed by this client until freed or sealed, or until the
 * client dies.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "pool.h"

struct speckv_mem {
	struct speckv_pool *pool;
	struct run run;
	uint64_t bytes;
	uint8_t *shadow; /* pools of a card: local memory, written to the card by a seal */
	struct speckv_mem *next;
};

int speckv_mem_alloc(struct speckv_pool *pool, uint64_t bytes, struct speckv_mem **out)
{
	struct speckv_mem *mem;
	uint64_t pages;
	int rc;

	if (!pool || !out)
		return -EINVAL;
	*out = NULL;
	rc = pool_usable(pool, true);
	if (!rc)
		rc = pool_there(pool);
	if (rc)
		return rc;
	pages = bytes / pool->region.page_bytes + (bytes % pool->region.page_bytes != 0);
	if (!bytes || pages > LAY_RUN_MAX)
		return fail(pool->ctx, -EINVAL, "allocation size must be 1 to %llu bytes",
			(unsigned long long)LAY_RUN_MAX * pool->region.page_bytes);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return fail(pool->ctx, -ENOMEM, "out of memory");
	rc = pages_claim(pool, (uint32_t)pages, &mem->run, 0);
	if (rc) {
		char text[32];

		free(mem);
		return fail(pool->ctx, rc, "no %s in one piece for an allocation (%s)",
			human(text, bytes),
			rc == -EDQUOT ? "a quota is reached" : "the pool is full");
	}
	mem->pool = pool;
	mem->bytes = bytes;
	if (!pool->region.data) {
		mem->shadow = mmap(NULL, (uint64_t)mem->run.pages * pool->region.page_bytes,
			PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (mem->shadow == MAP_FAILED) {
			pages_release(&pool->region, pool->owner, &mem->run);
			free(mem);
			return fail(pool->ctx, -ENOMEM, "out of memory");
		}
	} else {
		memset(pool->region.data + mem->run.page * pool->region.page_bytes, 0,
			(uint64_t)mem->run.pages * pool->region.page_bytes);
	}
	add_relaxed(&pool->client->allocated_pages, mem->run.pages);
	count(pool, SPECKV_COUNT_ALLOCATIONS, 1);
	pthread_mutex_lock(&pool->lock);
	mem->next = pool->allocations;
	pool->allocations = mem;
	pthread_mutex_unlock(&pool->lock);
	*out = mem;
	return 0;
}

void speckv_mem_free(struct speckv_mem *mem)
{
	struct speckv_pool *pool;

	if (!mem)
		return;
	pool = mem->pool;
	if (mem->shadow)
		munmap(mem->shadow, (uint64_t)mem->run.pages * pool->region.page_bytes);
	if (!fork_guard_stale(&pool->region.guard)) {
		/*
		 * not in a forked child: another thread may have held the lock or been changing the
		 * list at fork()
		 */
		pthread_mutex_lock(&pool->lock);
		for (struct speckv_mem **at = &pool->allocations; *at; at = &(*at)->next)
			if (*at == mem) {
				*at = mem->next;
				break;
			}
		pthread_mutex_unlock(&pool->lock);
		sub_relaxed(&pool->client->allocated_pages, mem->run.pages);
		pages_release(&pool->region, pool->owner, &mem->run);
	}
	free(mem);
}

uint64_t speckv_mem_bytes(const struct speckv_mem *mem)
{
	return mem->bytes;
}

uint64_t speckv_mem_address(const struct speckv_mem *mem)
{
	return mem->run.page * mem->pool->region.page_bytes;
}

static uint8_t *bytes_of(struct speckv_mem *mem)
{
	return mem->shadow ? mem->shadow : mem->pool->region.data + speckv_mem_address(mem);
}

static int mem_range(struct speckv_mem *mem, uint64_t offset, uint64_t bytes)
{
	int rc = pool_usable(mem->pool, true);

	if (!rc)
		rc = pool_there(mem->pool);
	if (rc)
		return rc;
	if (offset > mem->bytes || bytes > mem->bytes - offset)
		return fail(mem->pool->ctx, -ERANGE,
			"%llu bytes at %llu are beyond an allocation of %llu",
			(unsigned long long)bytes, (unsigned long long)offset,
			(unsigned long long)mem->bytes);
	return 0;
}

int speckv_mem_access(struct speckv_mem *mem, uint64_t offset, uint64_t bytes, void **pointer)
{
	int rc;

	if (!mem || !pointer)
		return -EINVAL;
	*pointer = NULL;
	rc = mem_range(mem, offset, bytes);
	if (!rc)
		*pointer = bytes_of(mem) + offset;
	return rc;
}

int speckv_mem_prefetch(struct speckv_mem *mem, uint64_t offset, uint64_t bytes)
{
	uintptr_t start, end;
	int rc;

	if (!mem)
		return -EINVAL;
	rc = mem_range(mem, offset, bytes);
	if (rc)
		return rc;
	start = (uintptr_t)(bytes_of(mem) + offset);
	end = start + bytes;
	madvise((void *)(start & ~4095ul), end - (start & ~4095ul), MADV_WILLNEED);
	for (uintptr_t line = start; line < end && line < start + (1 << 20); line += 64)
		__builtin_prefetch((const void *)line);
	count(mem->pool, SPECKV_COUNT_PREFETCHES, 1);
	return 0;
}

int speckv_mem_seal(struct speckv_mem *mem, const struct speckv_request *request)
{
	struct speckv_request put;
	int rc;

	if (!mem || !request)
		return -EINVAL;
	rc = pool_usable(mem->pool, true);
	if (rc)
		return rc;
	if (mem->bytes != mem->pool->region.fixed.block_bytes)
		return fail(mem->pool->ctx, -EINVAL,
			"an allocation of %llu bytes is not one block of %llu",
			(unsigned long long)mem->bytes,
			(unsigned long long)mem->pool->region.fixed.block_bytes);
	put = *request;
	put.buffer = bytes_of(mem);
	put.buffer_bytes = mem->bytes;
	rc = batch_run(mem->pool, SPECKV_OP_PUT, &put, 1);
	if (rc != 1)
		return fail(mem->pool->ctx, put.status, "the block could not be stored: %s",
			strerror(-put.status));
	speckv_mem_free(mem);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Tier L2: decoded blocks of this process, staged ahead of a get. A slot holds one block; each
 * block maps to one set of WAYS slots. A slot's sequence is odd while it is filled; a reader
 * copies, then re-checks the sequence. The pool's block stays authoritative: the caller re-checks
 * the page map after a staged read.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "pool.h"

#define WAYS 4
#define STAGING_BYTES (64ull << 20)

struct slot {
	_Atomic uint64_t sequence; /* odd: being filled */
	_Atomic uint64_t entry, generation;
	_Atomic uint64_t key[4]; /* compared too: a hostile writer may repeat a generation */
	_Atomic uint64_t used; /* reads since it was filled */
	_Atomic uint64_t age;
};

struct staging {
	uint64_t sets, bytes;
	struct slot *slots;
	uint8_t *data;
	_Atomic uint64_t clock;
};

static bool slot_holds(const struct slot *slot, const struct speckv_key *key,
	const struct block_ref *found)
{
	uint64_t w[4];
	bool same = load_acquire(&slot->generation) == found->generation &&
		load_acquire(&slot->entry) == found->entry;

	memcpy(w, key->bytes, sizeof(w));
	for (int i = 0; i < 4; i++)
		same &= load_relaxed(&slot->key[i]) == w[i];
	return same;
}

static struct slot *set_of(struct staging *s, const struct block_ref *found)
{
	return &s->slots[(found->entry * 0x9e3779b97f4a7c15ull >> 32) % s->sets * WAYS];
}

int staging_make(struct speckv_pool *pool)
{
	struct staging *s = NULL;
	uint64_t block = pool->region.fixed.block_bytes,
		 bytes = pool->attach.staging_bytes ? pool->attach.staging_bytes : STAGING_BYTES;
	int rc = 0;

	if (atomic_load(&pool->staging))
		return 0;
	pthread_mutex_lock(&pool->lock);
	if (!atomic_load(&pool->staging)) {
		s = calloc(1, sizeof(*s));
		if (s) {
			s->sets = bytes / block / WAYS ? bytes / block / WAYS : 1;
			s->bytes = s->sets * WAYS * block;
			s->slots = calloc(s->sets * WAYS, sizeof(*s->slots));
			s->data = mmap(NULL, s->bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		}
		if (!s || !s->slots || s->data == MAP_FAILED) {
			if (s)
				free(s->slots);
			free(s);
			rc = fail(pool->ctx, -ENOMEM,
				"no memory for a staging buffer of %llu bytes",
				(unsigned long long)bytes);
		} else {
			madvise(s->data, s->bytes, MADV_HUGEPAGE);
			atomic_store(&pool->staging, s);
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return rc;
}

void staging_destroy(struct speckv_pool *pool)
{
	struct staging *s = atomic_exchange(&pool->staging, NULL);

	if (!s)
		return;
	for (uint64_t i = 0; i < s->sets * WAYS; i++)
		if (load_acquire(&s->slots[i].generation) && !load_acquire(&s->slots[i].used))
			count(pool, SPECKV_COUNT_PREFETCH_UNUSED, 1);
	munmap(s->data, s->bytes);
	free(s->slots);
	free(s);
}

static uint8_t *slot_data(struct speckv_pool *pool, struct staging *s, const struct slot *slot)
{
	return s->data + (uint64_t)(slot - s->slots) * pool->region.fixed.block_bytes;
}

/* Read side of a sequence lock: the caller detects a concurrent change by the sequence. */
__attribute__((no_sanitize("thread"))) static void racing_copy(uint8_t *to, const uint8_t *from,
	uint64_t bytes)
{
	(void)speckv_crc32c_copy(0, to, from, bytes);
}

bool staging_read(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found, uint64_t offset, void *raw, uint64_t bytes, bool *first)
{
	struct staging *s = load_acquire(&pool->staging);
	struct slot *set;

	if (!s)
		return false;
	set = set_of(s, found);
	for (int i = 0; i < WAYS; i++) {
		struct slot *slot = &set[i];
		uint64_t sequence = load_acquire(&slot->sequence);

		if (sequence & 1 || !slot_holds(slot, key, found))
			continue;
		racing_copy(raw, slot_data(pool, s, slot) + offset, bytes);
		atomic_thread_fence(memory_order_acquire);
		if (load_acquire(&slot->sequence) != sequence)
			return false;
		*first = atomic_fetch_add(&slot->used, 1) == 0;
		return true;
	}
	return false;
}

static bool staged(struct staging *s, const struct speckv_key *key, const struct block_ref *found)
{
	struct slot *set = set_of(s, found);

	for (int i = 0; i < WAYS; i++)
		if (slot_holds(&set[i], key, found))
			return true;
	return false;
}

static int stage_block(struct speckv_pool *pool, const struct speckv_key *key,
	const struct block_ref *found)
{
	struct staging *s = load_acquire(&pool->staging);
	struct slot *set = set_of(s, found), *slot = NULL;
	uint64_t start = clock_ns(), sequence, w[4];
	int rc;

	if (staged(s, key, found))
		return 0;
	for (int i = 0; i < WAYS; i++) /* an empty slot, else one that was read, else the oldest */
		if (!slot || !load_acquire(&set[i].generation) ||
			(load_acquire(&slot->generation) &&
				((load_acquire(&set[i].used) != 0) >
						(load_acquire(&slot->used) != 0) ||
					((load_acquire(&set[i].used) != 0) ==
							(load_acquire(&slot->used) != 0) &&
						load_acquire(&set[i].age) <
							load_acquire(&slot->age)))))
			slot = &set[i];
	sequence = load_acquire(&slot->sequence);
	if (sequence & 1 ||
		!atomic_compare_exchange_strong(&slot->sequence, &sequence, sequence + 1))
		return -EAGAIN; /* another worker fills it */
	if (load_acquire(&slot->generation) && !load_acquire(&slot->used))
		count(pool, SPECKV_COUNT_PREFETCH_UNUSED, 1);
	store_release(&slot->generation, 0);
	atomic_thread_fence(memory_order_seq_cst);
	rc = block_decode(pool, key, found,
		(struct layers){ 0, pool->region.fixed.geometry.layers }, true,
		slot_data(pool, s, slot), pool->region.fixed.block_bytes);
	if (!rc) {
		store_release(&slot->used, 0);
		store_release(&slot->age, add_relaxed(&s->clock, 1));
		memcpy(w, key->bytes, sizeof(w));
		for (int i = 0; i < 4; i++)
			store_relaxed(&slot->key[i], w[i]);
		store_release(&slot->entry, found->entry);
		store_release(&slot->generation, found->generation);
		count(pool, SPECKV_COUNT_PREFETCHED, 1);
		count_time(pool, SPECKV_HIST_STAGE, clock_ns() - start);
	}
	store_release(&slot->sequence, sequence + 2);
	return rc;
}

/* Stage one block and its chain, prefetch_depth blocks in all: of each the most recent child. */
int staging_fill(struct speckv_pool *pool, const struct speckv_key *key)
{
	uint32_t depth = load_relaxed(&pool->prefetch_depth);
	struct speckv_key at = *key;
	struct block_ref found;
	int rc;

	if (!index_find(&pool->region, key, &found))
		return -ENOENT;
	rc = staging_make(pool);
	for (uint32_t i = 0; i < depth && !rc; i++) {
		struct block_ref child;

		if (i)
			count(pool, SPECKV_COUNT_PREFETCHES, 1);
		rc = stage_block(pool, &at, &found);
		if (rc || i + 1 == depth || !index_children(&pool->region, &found, &at, &child, 1))
			break;
		found = child;
	}
	return rc;
}

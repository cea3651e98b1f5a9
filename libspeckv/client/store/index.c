// SPDX-License-Identifier: MIT
/*
 * The block index: a hash directory of cache-line buckets over entries. A block's entry number
 * follows from its head page (head page / min_run): entries need no allocator and belong to the
 * owner of the head page. Readers take no lock: they read the entry, then the page map, and use the
 * entry only if the map still shows the generation they started from.
 *
 * Two-choice hashing: Azar, Broder, Karlin, Upfal, "Balanced Allocations", 1994. Reader validation:
 * a sequence lock whose sequence is the page map's generation (Boehm, "Can seqlocks get along with
 * programming language memory models?", 2012).
 */
#include <sched.h>

#include "store.h"

#define MOVE_STEPS 1000

static uint64_t hash_mix(uint64_t x)
{
	x ^= x >> 32; /* Degski/Mulvey finaliser */
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

uint64_t key_hash(const struct region *r, const struct speckv_key *key)
{
	uint64_t w[4], h = r->fixed.seed;

	memcpy(w, key->bytes, sizeof(w));
	for (int i = 0; i < 4; i++)
		h = hash_mix(h ^ w[i]) + 0x9e3779b97f4a7c15ull;
	return h;
}

static struct lay_bucket *first_bucket(const struct region *r, uint64_t hash)
{
	return &r->directory[hash & r->fixed.bucket_mask];
}

static struct lay_bucket *second_bucket(const struct region *r, uint64_t hash)
{
	uint64_t other = hash_mix(hash) & r->fixed.bucket_mask;

	if (other == (hash & r->fixed.bucket_mask))
		other = (other + 1) & r->fixed.bucket_mask;
	return &r->directory[other];
}

static uint64_t slot_tag(uint64_t hash)
{
	return hash >> 52 << 52;
}

static uint64_t slot_word(uint64_t hash, uint64_t entry, uint64_t generation)
{
	return slot_tag(hash) | (generation & 0xfffff) << 32 | (entry + 1);
}

/* Read entry `id` for generation `want` (0: any). True if it is a published block of this pool. */
static bool entry_read(struct region *r, uint64_t id, uint64_t want, bool low20,
	const uint64_t *key, struct block_ref *out, uint64_t key_out[4])
{
	struct lay_entry *e;
	uint64_t generation, page, word;

	if (id >= r->fixed.max_entries)
		return false;
	e = &r->entries[id];
	generation = load_acquire(&e->generation);
	if (!generation || (want && (low20 ? (generation & 0xfffff) != want : generation != want)))
		return false;
	for (int i = 0; i < 4; i++) {
		uint64_t w = load_relaxed(&e->key[i]);

		if (key && w != key[i])
			return false;
		if (key_out)
			key_out[i] = w;
	}
	page = load_relaxed(&e->page);
	out->entry = id;
	out->generation = generation;
	out->page = page;
	out->frame_bytes = load_relaxed(&e->frame_bytes);
	out->raw_bytes = load_relaxed(&e->raw_bytes);
	out->tenant = load_relaxed(&e->tenant);
	if (page >= load_relaxed(&r->pages) || page / r->min_run != id)
		return false;
	atomic_thread_fence(memory_order_acquire);
	word = load_acquire(&r->page_map[page]);
	out->pages = lay_value(word);
	return lay_state(word) == LAY_HEAD && lay_generation(word) == generation && out->pages &&
		out->pages <= load_relaxed(&r->pages) - page;
}

bool index_current(struct region *r, const struct block_ref *found)
{
	atomic_thread_fence(memory_order_acquire);
	return load_acquire(&r->page_map[found->page]) ==
		lay_word(LAY_HEAD, found->pages, found->generation) &&
		!index_doubtful(r, found);
}

bool index_doubtful(struct region *r, const struct block_ref *found)
{
	return load_relaxed(&r->entries[found->entry].doubtful) == found->generation;
}

void index_doubt(struct region *r, const struct block_ref *found)
{
	store_relaxed(&r->entries[found->entry].used, 0); /* evicted first */
	store_release(&r->entries[found->entry].doubtful, found->generation);
}

/*
 * Matches in one bucket, at most `max`. The low 20 bits of a generation may be zero: entry_read()
 * then accepts any generation, and only the key is compared.
 */
static size_t bucket_find(struct region *r, struct lay_bucket *bucket, uint64_t hash,
	const uint64_t key[4], struct block_ref *out, size_t max)
{
	size_t n = 0;

	for (int i = 0; i < LAY_BUCKET_SLOTS && n < max; i++) {
		uint64_t word = load_acquire(&bucket->slots[i]);

		if (word && slot_tag(word) == slot_tag(hash) && (uint32_t)word)
			n += entry_read(r, (uint32_t)word - 1, word >> 32 & 0xfffff, true, key,
				&out[n], NULL);
	}
	return n;
}

static size_t find_all_hashed(struct region *r, uint64_t hash, const uint64_t w[4],
	struct block_ref *out)
{
	size_t n = bucket_find(r, first_bucket(r, hash), hash, w, out, LAY_BUCKET_SLOTS);

	return n + bucket_find(r, second_bucket(r, hash), hash, w, out + n, LAY_BUCKET_SLOTS);
}

size_t index_find_all(struct region *r, const struct speckv_key *key, struct block_ref *out)
{
	uint64_t w[4];

	memcpy(w, key->bytes, sizeof(w));
	return find_all_hashed(r, key_hash(r, key), w, out);
}

/* Find a block of this key that is not doubtful. */
static bool find_beside(struct region *r, uint64_t hash, const uint64_t w[4], struct block_ref *out)
{
	struct block_ref all[2 * LAY_BUCKET_SLOTS];
	size_t n = find_all_hashed(r, hash, w, all);

	for (size_t i = 0; i < n; i++)
		if (!index_doubtful(r, &all[i])) {
			*out = all[i];
			return true;
		}
	return false;
}

static bool find_once(struct region *r, uint64_t hash, const uint64_t w[4], struct block_ref *out)
{
	if (!bucket_find(r, first_bucket(r, hash), hash, w, out, 1) &&
		!bucket_find(r, second_bucket(r, hash), hash, w, out, 1))
		return false;
	return __builtin_expect(!index_doubtful(r, out), 1) || find_beside(r, hash, w, out);
}

/* Is a move of this key in progress? */
static bool moving(struct region *r, const uint64_t w[4])
{
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		struct lay_client *client = &r->head->clients[slot];
		uint64_t generation = load_acquire(&client->move_to_generation),
			 page = load_relaxed(&client->move_to);
		struct lay_entry *e;
		int i = 0;

		if (!generation || page >= load_relaxed(&r->pages))
			continue;
		e = &r->entries[region_entry_of(r, page)];
		while (i < 4 && load_relaxed(&e->key[i]) == w[i])
			i++;
		if (i == 4)
			return true;
	}
	return false;
}

static bool find_hashed(struct region *r, uint64_t hash, const struct speckv_key *key,
	struct block_ref *out)
{
	uint64_t w[4], shrinking = load_relaxed(&r->head->pool.claim_limit);

	memcpy(w, key->bytes, sizeof(w));
	if (__builtin_expect(find_once(r, hash, w, out), 1))
		return true;
	atomic_thread_fence(memory_order_acquire);
	if (__builtin_expect(!shrinking && !load_relaxed(&r->head->pool.claim_limit) &&
			    !region_stale(r),
		    1))
		return false;
	/* transient miss: a move has written one of its two words */
	for (int i = 0; i < MOVE_STEPS && moving(r, w); i++)
		sched_yield();
	return find_once(r, hash, w, out);
}

bool index_find(struct region *r, const struct speckv_key *key, struct block_ref *out)
{
	region_pages(r);
	return find_hashed(r, key_hash(r, key), key, out);
}

/*
 * Prefetch the entries that match a key's tag; with `words`, the page-map words of those entries.
 */
static void prefetch_matches(struct region *r, uint64_t hash, bool words)
{
	struct lay_bucket *buckets[2] = { first_bucket(r, hash), second_bucket(r, hash) };

	for (int b = 0; b < 2; b++)
		for (int s = 0; s < LAY_BUCKET_SLOTS; s++) {
			uint64_t word = load_relaxed(&buckets[b]->slots[s]),
				 id = (uint32_t)word - 1ull, page;

			if (!word || slot_tag(word) != slot_tag(hash) || id >= r->fixed.max_entries)
				continue;
			if (!words) {
				__builtin_prefetch(&r->entries[id]);
				__builtin_prefetch((const uint8_t *)&r->entries[id] + 64);
				continue;
			}
			page = load_relaxed(&r->entries[id].page);
			if (page < r->fixed.max_pages)
				__builtin_prefetch((const void *)&r->page_map[page]);
		}
}

void index_find_many(struct region *r, const struct speckv_key *keys, size_t stride, size_t count,
	struct block_ref *out, uint8_t *present)
{
	enum { GROUP = 16 };
	uint64_t hash[GROUP];

	region_pages(r);
	for (size_t base = 0; base < count; base += GROUP) {
		size_t n = count - base < GROUP ? count - base : GROUP;

		for (size_t i = 0; i < n; i++) {
			hash[i] = key_hash(r,
				(const struct speckv_key *)((const uint8_t *)keys +
					(base + i) * stride));
			__builtin_prefetch(first_bucket(r, hash[i]));
			__builtin_prefetch(second_bucket(r, hash[i]));
		}
		for (size_t i = 0; i < n; i++)
			prefetch_matches(r, hash[i], false);
		for (size_t i = 0; i < n; i++)
			prefetch_matches(r, hash[i], true);
		for (size_t i = 0; i < n; i++) {
			struct block_ref found;
			const struct speckv_key *key =
				(const struct speckv_key *)((const uint8_t *)keys +
					(base + i) * stride);

			present[base + i] =
				find_hashed(r, hash[i], key, out ? &out[base + i] : &found);
		}
	}
}

bool index_entry(struct region *r, uint64_t id, struct block_ref *out, struct speckv_key *key)
{
	uint64_t w[4];

	if (!entry_read(r, id, 0, false, NULL, out, w))
		return false;
	memcpy(key->bytes, w, sizeof(w));
	return true;
}

/* ---- changing ------------------------------------------------------------------------------- */

void index_fill(struct region *r, const struct run *run, const struct speckv_key *key,
	uint64_t first_position, uint32_t frame_bytes, uint32_t raw_bytes, uint32_t tenant,
	uint64_t used)
{
	struct lay_entry *e = &r->entries[region_entry_of(r, run->page)];
	uint64_t w[4];

	memcpy(w, key->bytes, sizeof(w));
	store_relaxed(&e->generation, 0);
	atomic_thread_fence(memory_order_seq_cst);
	store_relaxed(&e->page, run->page);
	for (int i = 0; i < 4; i++)
		store_relaxed(&e->key[i], w[i]);
	store_relaxed(&e->first_position, first_position);
	store_relaxed(&e->frame_bytes, frame_bytes);
	store_relaxed(&e->raw_bytes, raw_bytes);
	store_relaxed(&e->used, used);
	store_relaxed(&e->uses, 0);
	store_relaxed(&e->tenant, tenant);
	store_relaxed(&e->parent, 0);
	store_relaxed(&e->first_child, 0);
	store_relaxed(&e->next_sibling, 0);
	store_relaxed(&e->recent_child, 0);
	store_relaxed(&e->previous_sibling, 0);
	store_release(&e->generation, run->generation);
}

/*
 * A slot without a published block may be cleared by any client: the word holds the generation, so
 * a reused entry is not affected.
 */
static bool slot_stale(struct region *r, uint64_t word)
{
	struct block_ref found;

	return !entry_read(r, (uint32_t)word - 1ull, word >> 32 & 0xfffff, true, NULL, &found,
		NULL);
}

int index_insert(struct region *r, const struct speckv_key *key, const struct run *run)
{
	uint64_t hash = key_hash(r, key),
		 word = slot_word(hash, region_entry_of(r, run->page), run->generation);
	struct lay_bucket *buckets[2] = { first_bucket(r, hash), second_bucket(r, hash) };
	unsigned int room[2] = { 0, 0 };

	for (int b = 0; b < 2; b++)
		for (int i = 0; i < LAY_BUCKET_SLOTS; i++)
			room[b] += load_relaxed(&buckets[b]->slots[i]) == 0;
	if (room[1] > room[0]) {
		struct lay_bucket *swap = buckets[0];

		buckets[0] = buckets[1];
		buckets[1] = swap;
	}
	for (int pass = 0; pass < 2; pass++)
		for (int b = 0; b < 2; b++)
			for (int i = 0; i < LAY_BUCKET_SLOTS; i++) {
				_Atomic uint64_t *slot = &buckets[b]->slots[i];
				uint64_t seen = load_acquire(slot);

				if (seen && !(pass && slot_stale(r, seen)))
					continue;
				if (atomic_compare_exchange_strong(slot, &seen, word))
					return 0;
			}
	return -ENOSPC;
}

void index_remove(struct region *r, const struct speckv_key *key, uint64_t entry,
	uint64_t generation)
{
	uint64_t hash = key_hash(r, key), word = slot_word(hash, entry, generation);
	struct lay_bucket *buckets[2] = { first_bucket(r, hash), second_bucket(r, hash) };

	for (int b = 0; b < 2; b++)
		for (int i = 0; i < LAY_BUCKET_SLOTS; i++) {
			uint64_t seen = word;

			if (load_relaxed(&buckets[b]->slots[i]) == word)
				atomic_compare_exchange_strong(&buckets[b]->slots[i], &seen, 0);
		}
}

void index_used(struct region *r, const struct block_ref *found, bool read, uint64_t tick)
{
	struct lay_entry *e = &r->entries[found->entry];
	uint64_t link = (found->entry + 1) << 32 | (uint32_t)found->generation,
		 parent = load_relaxed(&e->parent);

	store_relaxed(&e->used, tick);
	if (read)
		add_relaxed(&e->uses, 1);
	if (parent) {
		uint64_t id = (parent >> 32) - 1;

		if (id < r->fixed.max_entries &&
			(uint32_t)load_relaxed(&r->entries[id].generation) == (uint32_t)parent &&
			load_relaxed(&r->entries[id].recent_child) != link)
			store_relaxed(&r->entries[id].recent_child, link);
	}
}

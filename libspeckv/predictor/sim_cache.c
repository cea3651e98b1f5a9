// SPDX-License-Identifier: MIT
/* The simulated cache: a heap with the next victim on top. */
#include "predictor/sim.h"

static bool goes_before(const struct sim_entry *a, const struct sim_entry *b)
{
	return a->score != b->score ? a->score < b->score : a->sequence < b->sequence;
}

static void sift_down(struct sim_entry *heap, uint64_t n, uint64_t at)
{
	struct sim_entry moving = heap[at];

	for (;;) {
		uint64_t child = 2 * at + 1;

		if (child >= n)
			break;
		if (child + 1 < n && goes_before(&heap[child + 1], &heap[child]))
			child++;
		if (!goes_before(&heap[child], &moving))
			break;
		heap[at] = heap[child];
		at = child;
	}
	heap[at] = moving;
}

void sim_cache_rebuild(struct sim *sim)
{
	for (uint32_t i = 0; i < sim->cached_count; i++) {
		const struct sim_block *block = &sim->blocks[sim->cached[i]];

		sim->heap[i] = (struct sim_entry){ block->sequence, block->score, sim->cached[i] };
	}
	sim->entries = sim->cached_count;
	for (uint64_t i = sim->entries / 2; i > 0; i--)
		sift_down(sim->heap, sim->entries, i - 1);
}

static void heap_push(struct sim *sim, uint32_t node)
{
	const struct sim_block *block = &sim->blocks[node];
	struct sim_entry entry = { block->sequence, block->score, node };
	uint64_t at;

	if (sim->entries == sim->room) {
		/* includes this block: the heap has room for more than twice the cache */
		sim_cache_rebuild(sim);
		return;
	}
	at = sim->entries++;
	while (at && goes_before(&entry, &sim->heap[(at - 1) / 2])) {
		sim->heap[at] = sim->heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	sim->heap[at] = entry;
}

uint32_t sim_cache_victim(struct sim *sim)
{
	for (;;) {
		const struct sim_entry *top = &sim->heap[0];
		const struct sim_block *block = &sim->blocks[top->block];

		if (block->in && block->sequence == top->sequence && block->score == top->score)
			return top->block;
		sim->heap[0] = sim->heap[--sim->entries];
		sift_down(sim->heap, sim->entries, 0);
	}
}

void sim_cache_put(struct sim *sim, uint32_t node, uint32_t score)
{
	struct sim_block *block = &sim->blocks[node];

	block->sequence = ++sim->sequence;
	block->score = score;
	if (!block->in) {
		block->in = true;
		block->slot = sim->cached_count;
		sim->cached[sim->cached_count++] = node;
		if (block->owner != SPECKV_NO_REQUEST)
			sim->missing[block->owner]--;
	}
	heap_push(sim, node);
}

void sim_cache_evict(struct sim *sim, uint64_t now)
{
	uint32_t node = sim_cache_victim(sim);
	struct sim_block *block = &sim->blocks[node];
	uint32_t last = sim->cached[--sim->cached_count];

	sim_tell(sim, SPECKV_SIM_EVICT, node, now, now);
	sim->cached[block->slot] = last;
	sim->blocks[last].slot = block->slot;
	block->in = false;
	if (block->fetched && block->counted)
		sim->result->unused++;
	block->fetched = false;
	if (block->owner != SPECKV_NO_REQUEST)
		sim->missing[block->owner]++;
}

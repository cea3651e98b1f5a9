// SPDX-License-Identifier: MIT
/* Maps opaque block ids to the nodes of a prefix tree, and requests to the turns of sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/predictor.h>

#include "predictor/tree.h"

#define IDS_MAX ((uint64_t)1 << 31)
#define EMPTY 0xffffffffu

/* Open addressing on (parent node, id); a slot holds the node, whose key is in the arrays. */
struct table {
	uint32_t *slots;
	uint64_t mask;
	uint32_t *above; /* [node] its parent, EMPTY at the root */
	uint64_t *ids; /* [node] */
	uint32_t nodes;
};

static uint64_t hash_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint32_t find_or_add(struct table *table, uint32_t above, uint64_t id)
{
	uint64_t at = hash_mix(hash_mix(id) + above) & table->mask;

	for (;; at = (at + 1) & table->mask) {
		uint32_t node = table->slots[at];

		if (node == EMPTY)
			break;
		if (table->ids[node] == id && table->above[node] == above)
			return node;
	}
	table->slots[at] = table->nodes;
	table->above[table->nodes] = above;
	table->ids[table->nodes] = id;
	return table->nodes++;
}

int speckv_trace_link(uint32_t requests, const uint64_t *first, const uint64_t *ids,
	uint32_t *nodes, uint32_t *stored, uint32_t *parent, uint32_t *blocks)
{
	struct table table = { .mask = 1023 };
	uint32_t *last = NULL, *children = NULL;
	uint64_t total;
	int rc = -ENOMEM;

	if (!first || !blocks || first[0] || (requests && (!stored || !parent)))
		return -EINVAL;
	for (uint32_t i = 0; i < requests; i++)
		if (first[i + 1] < first[i])
			return -EINVAL;
	total = first[requests];
	if (total >= IDS_MAX)
		return -E2BIG;
	if (total && (!ids || !nodes))
		return -EINVAL;
	while (table.mask < 2 * total)
		table.mask = 2 * table.mask + 1;
	table.slots = malloc((table.mask + 1) * sizeof(*table.slots));
	table.above = malloc((total + 1) * sizeof(*table.above));
	table.ids = malloc((total + 1) * sizeof(*table.ids));
	last = malloc((total + 1) * sizeof(*last));
	children = calloc(total + 1, sizeof(*children));
	if (!table.slots || !table.above || !table.ids || !last || !children)
		goto out;
	memset(table.slots, 0xff, (table.mask + 1) * sizeof(*table.slots));

	for (uint32_t i = 0; i < requests; i++) {
		uint32_t known = table.nodes, above = EMPTY;
		const uint32_t *chain = nodes + first[i];
		uint32_t length = (uint32_t)(first[i + 1] - first[i]);

		stored[i] = 0;
		for (uint32_t k = 0; k < length; k++) {
			above = find_or_add(&table, above, ids[first[i] + k]);
			nodes[first[i] + k] = above;
			if (above < known)
				stored[i] = k + 1;
		}
		parent[i] = SPECKV_NO_REQUEST;
		if (stored[i] && children[chain[stored[i] - 1]] < PREDICTOR_SHARED)
			parent[i] = last[chain[stored[i] - 1]];
		if (stored[i] && stored[i] < length)
			children[chain[stored[i] - 1]]++;
		for (uint32_t k = 0; k < length; k++) {
			if (k > stored[i])
				children[chain[k - 1]]++;
			last[chain[k]] = i;
		}
	}
	*blocks = table.nodes;
	rc = 0;
out:
	free(table.slots);
	free(table.above);
	free(table.ids);
	free(last);
	free(children);
	return rc;
}

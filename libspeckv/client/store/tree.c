// SPDX-License-Identifier: MIT
/*
 * The prefix tree: links between index entries. They are hints, validated at every use: a race may
 * lose a link, never invent a block.
 */
#include "store.h"

#define CHILD_STEPS 256
#define CHILDREN_COMPARED 8

static struct lay_entry *link_entry(struct region *r, uint64_t link)
{
	uint64_t id = (link >> 32) - 1;

	if (!link || id >= r->fixed.max_entries ||
		(uint32_t)load_acquire(&r->entries[id].generation) != (uint32_t)link)
		return NULL;
	return &r->entries[id];
}

void index_adopt(struct region *r, const struct block_ref *parent, const struct block_ref *child)
{
	struct lay_entry *p = &r->entries[parent->entry], *c = &r->entries[child->entry], *sibling;
	uint64_t first = load_acquire(&p->first_child), link = index_link(child);

	store_release(&c->parent, index_link(parent));
	store_relaxed(&p->recent_child, link);
	store_release(&c->previous_sibling, 0);
	do {
		if (first == link)
			return;
		store_release(&c->next_sibling, first);
	} while (!atomic_compare_exchange_weak(&p->first_child, &first, link));
	sibling = link_entry(r, first);
	if (sibling)
		store_release(&sibling->previous_sibling, link);
}

bool index_adopted(struct region *r, const struct block_ref *child)
{
	return link_entry(r, load_acquire(&r->entries[child->entry].parent)) != NULL;
}

uint64_t index_parent(struct region *r, const struct block_ref *child)
{
	return load_acquire(&r->entries[child->entry].parent);
}

bool index_link_page(struct region *r, uint64_t link, uint64_t *page)
{
	struct lay_entry *e = link_entry(r, link);
	uint64_t word;

	if (!e)
		return false;
	*page = load_relaxed(&e->page);
	if (*page >= load_relaxed(&r->pages) || region_entry_of(r, *page) != (link >> 32) - 1)
		return false;
	word = load_acquire(&r->page_map[*page]);
	return lay_state(word) == LAY_HEAD && lay_value(word) &&
		(uint32_t)lay_generation(word) == (uint32_t)link;
}

bool index_child(struct region *r, uint64_t entry, uint64_t start, uint64_t end, int tenant,
	uint64_t *page)
{
	struct lay_entry *e = &r->entries[entry];
	uint64_t link = load_acquire(&e->first_child), oldest = 0, at;
	bool there = false;

	if (!link || load_relaxed(&e->doubtful) == load_relaxed(&e->generation))
		return false;
	for (int i = 0; i < CHILDREN_COMPARED && link; i++) {
		struct lay_entry *child = link_entry(r, link);
		uint64_t used;

		if (!child)
			break;
		used = load_relaxed(&child->used);
		if (index_link_page(r, link, &at) && (at < start || at >= end) &&
			(tenant < 0 || load_relaxed(&child->tenant) == (uint32_t)tenant) &&
			(!there || used < oldest)) {
			there = true;
			oldest = used;
			*page = at;
		}
		link = load_acquire(&child->next_sibling);
	}
	return there;
}

bool index_abandon(struct region *r, uint64_t link)
{
	bool any = false;

	for (int i = 0; i < CHILD_STEPS && link; i++) {
		struct lay_entry *child = link_entry(r, link);

		if (!child)
			break;
		store_relaxed(&child->used, 0);
		any = true;
		link = load_acquire(&child->next_sibling);
	}
	return any;
}

/* `to` is a copy of `from` at another place: replace it in the tree. */
void index_inherit(struct region *r, const struct block_ref *from, const struct block_ref *to)
{
	struct lay_entry *old = &r->entries[from->entry], *new = &r->entries[to->entry];
	uint64_t parent = load_acquire(&old->parent), link = load_acquire(&old->first_child);
	struct block_ref above;
	struct speckv_key key;

	store_release(&new->first_child, link);
	store_release(&new->recent_child, load_acquire(&old->recent_child));
	for (int i = 0; i < CHILD_STEPS && link; i++) {
		struct lay_entry *child = link_entry(r, link);

		if (!child)
			break;
		store_release(&child->parent, index_link(to));
		link = load_acquire(&child->next_sibling);
	}
	if (index_entry(r, (parent >> 32) - 1, &above, &key) &&
		(uint32_t)above.generation == (uint32_t)parent)
		index_adopt(r, &above, to);
}

void index_orphan(struct region *r, const struct block_ref *child)
{
	struct lay_entry *c = &r->entries[child->entry],
			 *p = link_entry(r, load_acquire(&c->parent)),
			 *before = link_entry(r, load_acquire(&c->previous_sibling));
	uint64_t link = index_link(child), next = load_acquire(&c->next_sibling), expected = link;
	struct lay_entry *after = link_entry(r, next);
	_Atomic uint64_t *at;

	if (!p)
		return;
	if (after)
		store_release(&after->previous_sibling, load_acquire(&c->previous_sibling));
	if (before && atomic_compare_exchange_strong(&before->next_sibling, &expected, next))
		return;
	at = &p->first_child;
	for (int i = 0; i < CHILD_STEPS; i++) {
		struct lay_entry *sibling;

		expected = link;
		if (load_acquire(at) == link) {
			atomic_compare_exchange_strong(at, &expected, next);
			return;
		}
		sibling = link_entry(r, load_acquire(at));
		if (!sibling)
			return;
		at = &sibling->next_sibling;
	}
}

static bool child_read(struct region *r, uint64_t link, struct block_ref *out,
	struct speckv_key *key)
{
	struct speckv_key unused;

	return link && index_entry(r, (link >> 32) - 1, out, key ? key : &unused) &&
		(uint32_t)out->generation == (uint32_t)link && !index_doubtful(r, out);
}

size_t index_children(struct region *r, const struct block_ref *found, struct speckv_key *keys,
	struct block_ref *out, size_t max)
{
	struct lay_entry *e = &r->entries[found->entry];
	uint64_t recent = load_acquire(&e->recent_child), link = load_acquire(&e->first_child);
	struct block_ref child;
	size_t n = 0;

	if (n < max && child_read(r, recent, &child, keys ? &keys[n] : NULL)) {
		if (out)
			out[n] = child;
		n++;
	} else {
		recent = 0;
	}
	for (int i = 0; i < CHILD_STEPS && link && n < max; i++) {
		struct lay_entry *c = link_entry(r, link);

		if (!c)
			break;
		if (link != recent && child_read(r, link, &child, keys ? &keys[n] : NULL)) {
			if (out)
				out[n] = child;
			n++;
		}
		link = load_acquire(&c->next_sibling);
	}
	return n;
}

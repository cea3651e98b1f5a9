// SPDX-License-Identifier: MIT
/* The tenants of a pool, by name. */
#include <stddef.h>

#include "store.h"

static bool tenant_idle(struct region *r, uint32_t index)
{
	if (load_acquire(&r->head->tenants[index].blocks) ||
		load_acquire(&r->head->tenants[index].used_pages))
		return false;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++)
		if (load_acquire(&r->head->clients[slot].state) & 1 &&
			load_acquire(&r->head->clients[slot].tenant) == index)
			return false;
	return true;
}

/* The last slot: for blocks of unknown tenant, and for new tenants when no slot is idle. */
uint32_t tenant_others(struct region *r)
{
	struct lay_tenant *others = &r->head->tenants[LAY_TENANTS - 1];

	if (load_acquire(&others->state) != 2) {
		snprintf(others->name, sizeof(others->name), "others");
		store_release(&others->state, 2);
	}
	return LAY_TENANTS - 1;
}

/* Index of the tenant of that name, created if needed. Negative: the flush failed. */
int tenant_find(struct region *r, const char *name)
{
	struct lay_tenant *tenants = r->head->tenants;
	int rc;

	for (int i = 0; i < LAY_TENANTS; i++)
		if (load_acquire(&tenants[i].state) == 2 &&
			strncmp(tenants[i].name, name, sizeof(tenants[i].name)) == 0)
			return i;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < LAY_TENANTS - 1; i++) {
			uint32_t state = pass ? 2 : 0;

			if (load_acquire(&tenants[i].state) != state ||
				(pass && !tenant_idle(r, (uint32_t)i)) ||
				!atomic_compare_exchange_strong(&tenants[i].state, &state, 1))
				continue;
			memset((uint8_t *)&tenants[i] + offsetof(struct lay_tenant, name), 0,
				sizeof(tenants[i]) - offsetof(struct lay_tenant, name));
			snprintf(tenants[i].name, sizeof(tenants[i].name), "%s", name);
			store_release(&tenants[i].state, 2);
			/* frames store its number */
			rc = region_flush(r, &tenants[i], sizeof(tenants[i]));
			return rc ? rc : i;
		}
	return (int)tenant_others(r);
}

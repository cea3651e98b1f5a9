// SPDX-License-Identifier: MIT
/* Liveness of a pool's clients. */

#include "store.h"

long long client_byte(struct region *r, unsigned int slot)
{
	return LAY_LOCK_CLIENT(r->dev->single_inode ? r->record : 0, r->fixed.generation, slot);
}

/* Its lock is in the device's lock file; -1, not readable for this user: alive. */
bool client_unseen(struct region *r, unsigned int slot, uint64_t state)
{
	struct speckv_device *dev = r->dev;

	return slot == LAY_SLOT_MANAGER && state & LAY_CLIENT_UNSEEN &&
		(dev->lock_fd < 0 || load_acquire(&dev->manager_slots) >> r->record & 1 ||
			lock_holder(dev->lock_fd, LAY_LOCK_MANAGER_SLOT(r->record), NULL));
}

int client_alive(struct region *r, unsigned int slot)
{
	return (int)slot == r->own_slot || lock_holder(r->lock_fd, client_byte(r, slot), NULL) ||
		client_unseen(r, slot, load_acquire(&r->head->clients[slot].state));
}

/*
 * Is a client attached through this slot? client_join() takes the slot's lock, checks that the pool
 * is not being removed, then sets its entry: wait until a locked slot has an entry or is unlocked.
 * A process that stopped in between counts as attached.
 */
static bool slot_taken(struct region *r, unsigned int slot)
{
	const struct lay_client *client = &r->head->clients[slot];

	for (unsigned int tries = 0; tries < CLIENT_JOIN_TRIES; tries++) {
		if (!client_alive(r, slot))
			return false;
		if (load_acquire(&client->state) & 1)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return true;
}

void client_holders(struct region *r, int except, char *text, size_t bytes, unsigned int *count)
{
	size_t at = 0;

	*count = 0;
	text[0] = 0;
	for (unsigned int slot = 0; slot < LAY_CLIENTS; slot++) {
		struct lay_client *client = &r->head->clients[slot];
		char command[64];

		if ((int)slot == except || !slot_taken(r, slot))
			continue;
		++*count;
		memcpy(command, client->command, sizeof(command));
		command[63] = 0;
		if (at + 1 >= bytes)
			continue;
		if (load_acquire(&client->state) & 1)
			at += (size_t)snprintf(text + at, bytes - at, "%spid %u (%s)",
				*count > 1 ? ", " : "", client->pid, command);
		else
			at += (size_t)snprintf(text + at, bytes - at,
				"%sa client that is attaching", *count > 1 ? ", " : "");
	}
}

bool removal_undone(struct speckv_device *dev, struct lay_pool_record *r)
{
	char name[SPECKV_NAME_BYTES];
	struct region region;
	int rc = region_open_managed(dev, record_name(r, name), &region);

	if (rc && !region_useless(rc))
		/* left to the next manager that needs the pool, which reports the error */
		return true;
	if (rc)
		return false; /* region_end() was called */
	region_close(&region);
	store_release(&r->state, SPECKV_POOL_ACTIVE);
	device_event(dev, SPECKV_EVENT_RECOVERED, SPECKV_WARNING,
		"pool %.63s kept: the manager removing it died before it started", r->name);
	return true;
}

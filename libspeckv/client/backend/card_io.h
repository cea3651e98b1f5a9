/* SPDX-License-Identifier: MIT */
/* A connection to a card for one pool, between card_io.c and card.c. */
#ifndef SPECKV_CLIENT_CARD_IO_H
#define SPECKV_CLIENT_CARD_IO_H

#include "client/card/card.h"
#include "backend.h"

#define CARD_LANES 4

struct lane {
	pthread_mutex_t lock;
	struct queue queue; /* .transport NULL: not open */
	uint8_t *data; /* READS_MOST slots */
	struct speckv_block_identity *identities;
	uint16_t next;
	struct slot {
		uint16_t id, status;
		bool busy, done;
		uint64_t result;
	} slots[READS_MOST];
};

struct card_io {
	struct region *region;
	pthread_rwlock_t use; /* reading: the connection is used. Writing: it is made or ended */
	pthread_mutex_t opening;
	struct transport *transport;
	_Atomic bool broken;
	uint64_t tried_ns;
	int error; /* of the last try */
	uint16_t pool;
	uint32_t modes;
	uint64_t slot_bytes;
	unsigned int depth;
	_Atomic unsigned int turn;
	struct lane lanes[CARD_LANES];
};

int card_io_open(struct region *region);
void card_io_close(struct region *region, bool child);
/* A connection that stands, held for reading. */
int card_io_enter(struct card_io *io);
/* The same and a lane of it. `nested`: this thread may hold another. */
int lane_enter(struct card_io *io, bool nested, struct lane **out);
void lane_leave(struct card_io *io, struct lane *lane);
int lane_submit(struct lane *lane, unsigned int slot, void *entry);
/*
 * Wait for the answer to a slot's command. -ENODEV: there will be none. -EHWPOISON: memory went
 * bad. Others: the status's.
 */
int lane_collect(struct card_io *io, struct lane *lane, unsigned int slot);
/* Submit and collect. */
int lane_call(struct card_io *io, struct lane *lane, unsigned int slot, void *entry,
	uint64_t *result);

#endif

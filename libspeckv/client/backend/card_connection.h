/* SPDX-License-Identifier: MIT */
/* Connection to a card for one pool, between card_connection.c and card_blocks.c. */
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
	pthread_rwlock_t use; /* read-locked: in use. Write-locked: being opened or closed */
	pthread_mutex_t opening;
	struct transport *transport;
	_Atomic bool broken;
	_Atomic uint64_t calls; /* that began */
	uint64_t tried_calls, tried_ns; /* of the last try: at its begin, at its end */
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
void card_io_begin(struct region *region);
/* Return with a working connection, `use` held for reading. */
int card_io_enter(struct card_io *io);
/* card_io_enter(), and lock a lane. `nested`: this thread may hold another lane. */
int lane_enter(struct card_io *io, bool nested, struct lane **out);
void lane_leave(struct card_io *io, struct lane *lane);
int lane_submit(struct lane *lane, unsigned int slot, void *entry);
/*
 * Wait for the completion of a slot's command. -ENODEV: none, or one that says nothing of the
 * block. -EHWPOISON: memory went bad. Others: the errno of the status.
 */
int lane_collect(struct card_io *io, struct lane *lane, unsigned int slot);
/* Submit and collect. */
int lane_call(struct card_io *io, struct lane *lane, unsigned int slot, void *entry,
	uint64_t *result);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Access to a card: registers, memory shared with the card, and queue pairs over them. Independent
 * of pools. vfio_user.c: an emulated card's socket. queue.c: rings and doorbells, common to all
 * transports.
 *
 * Threads: one at a time on each queue; callers lock. Queues of one transport may be used by
 * different threads at the same time, once it is open.
 */
#ifndef SPECKV_TRANSPORT_TRANSPORT_H
#define SPECKV_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <linux/speckv.h> /* the uapi */

struct transport;

struct transport_ops {
	int (*read32)(struct transport *transport, uint32_t offset, uint32_t *value);
	int (*write32)(struct transport *transport, uint32_t offset, uint32_t value);
	/*
	 * A driver call: SPECKV_IOC_INFO, POOL_OPEN, POOL_CLOSE with their structures. Negative
	 * errno.
	 */
	int (*driver)(struct transport *transport, uint32_t request, void *argument, size_t bytes);
	/*
	 * Posted write: returns without waiting for the reply. For registers whose effect is
	 * polled.
	 */
	int (*post32)(struct transport *transport, uint32_t offset, uint32_t value);
	int (*read_config)(struct transport *transport, uint32_t offset, void *data,
		uint32_t bytes);
	/* 0 while the peer is connected, else a negative errno. May make a system call. */
	int (*alive)(struct transport *transport);
	void (*close)(struct transport *transport);
};

struct transport {
	const struct transport_ops *ops;
	/* shared with the card; NULL: doorbells are register writes */
	struct speckv_doorbell_page *doorbells;
	/* Memory shared with the card; allocated from its start and never freed. */
	uint8_t *arena;
	uint64_t arena_address; /* in the card's address space */
	size_t arena_bytes, arena_taken;
	/* since the open, by messages and by long waits */
	_Atomic uint64_t system_calls;
	uint16_t vendor, device; /* PCI identification */
};

/*
 * Place of a socket: its folder's descriptor (-1: use the path), its whole path, and the user
 * trusted as its listener, besides root and this user.
 */
struct transport_place {
	int folder;
	const char *path;
	uid_t owner;
};
/*
 * Connect to an emulated card's socket, with an arena of this size. Errors: those of
 * transport_dial(), -EPROTO (not a card), -ETIMEDOUT (does not answer), -ENOMEM.
 */
int transport_open_vfio_user(struct transport_place place, size_t arena_bytes,
	struct transport **out);
/*
 * Connect a stream socket through its folder's descriptor: the path may lead elsewhere by now, and
 * sun_path holds only 107 bytes. 0, or a negative errno: -ENOENT, -EACCES, -ECONNREFUSED,
 * -ETIMEDOUT (does not accept), -EKEYREJECTED (another user's process).
 */
int transport_dial(int fd, struct transport_place place);
/* Allocate zeroed memory from the arena, aligned to `align` (a power of two). NULL: used up. */
void *transport_take(struct transport *transport, size_t bytes, size_t align);
static inline uint64_t transport_address(const struct transport *transport, const void *pointer)
{
	return transport->arena_address + (uint64_t)((const uint8_t *)pointer - transport->arena);
}

/* The PCI Express link: megatransfers a second and lanes, current and maximum. 0: not reported. */
struct transport_link {
	uint32_t speed, lanes, speed_most, lanes_most;
};
/* Errors: those of read_config(). All zero for a function without the capability. */
int transport_link(struct transport *transport, struct transport_link *out);

/* ---- queue pairs ---------------------------------------------------------------------------- */

#define QUEUE_ADMIN 0xffffu

struct queue {
	struct transport *transport;
	unsigned int number; /* QUEUE_ADMIN, or its number within the function */
	struct speckv_sqe *sq;
	struct speckv_cqe *cq;
	struct speckv_buffer_entry *buffers;
	uint32_t sq_mask, cq_mask, buffer_count;
	uint32_t sq_tail, sq_head, cq_head; /* free-running */
	uint32_t cq_rung; /* the last head written to the doorbell */
	uint64_t kicks; /* doorbells that found the card asleep, a system call each */
	/* polls before the first system call of a wait: see queue_wait() */
	unsigned int spins;
};

/*
 * Program and enable the admin queue (of a privileged function), and wait until the card is ready.
 */
int queue_open_admin(struct queue *queue, struct transport *transport, unsigned int sq_log2);
/* Program and enable I/O queue pair `number`, polled, with a buffer table of `buffers` entries. */
int queue_open_io(struct queue *queue, struct transport *transport, unsigned int number,
	unsigned int sq_log2, unsigned int buffers);
/* Add a part of the arena to the buffer table. */
int queue_register(struct queue *queue, unsigned int index, void *pointer, uint64_t bytes,
	uint32_t flags);
/*
 * Is the pair still enabled? 0, -ECANCELED (reset), -EIO (the card stopped on a fatal error), or
 * the error of the register read. Makes system calls.
 */
int queue_check(struct queue *queue);
void queue_close(struct queue *queue);
/* Free entries of the submission ring. */
static inline unsigned int queue_room(const struct queue *queue)
{
	return queue->sq_mask - (queue->sq_tail - queue->sq_head);
}
/*
 * Put an entry in the ring, after a check of queue_room(); queue_ring() submits all that were put.
 */
void queue_put(struct queue *queue, const void *entry);
int queue_ring(struct queue *queue);
/* Take one completion. False: none. */
bool queue_reap(struct queue *queue, struct speckv_cqe *out);
/* Wait for one completion. Errors: -ETIMEDOUT, and those of alive(). */
int queue_wait(struct queue *queue, struct speckv_cqe *out, uint64_t timeout_ns);
/*
 * Execute one command: put, ring, wait. Returns 0 and the result, or the errno of the completion's
 * status, negative.
 */
int queue_call(struct queue *queue, const void *entry, uint64_t timeout_ns, uint64_t *result,
	uint16_t *status);
/* errno, negative, of a status code; 0 for SPECKV_STATUS_OK. */
int status_errno(uint16_t status);
/* "checksum did not verify", ... */
const char *status_text(uint16_t status);

#endif

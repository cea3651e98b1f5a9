/* SPDX-License-Identifier: MIT */
/*
 * How software reaches a card: registers, memory that the card can reach, and queue pairs over
 * them. A transport knows no pools. vfio_user.c: an emulated card's socket. queue.c: rings and
 * doorbells, the same over every transport.
 *
 * Threads: one at a time on each queue; callers lock. Queues of one transport may be used by
 * threads at the same time, once it is open.
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
	 * A call that the driver answers: SPECKV_IOC_INFO, POOL_OPEN, POOL_CLOSE with their
	 * structures. Negative errno.
	 */
	int (*driver)(struct transport *transport, uint32_t request, void *argument, size_t bytes);
	/*
	 * Posted write: returns without waiting for the reply. For registers whose effect is
	 * polled.
	 */
	int (*post32)(struct transport *transport, uint32_t offset, uint32_t value);
	int (*read_config)(struct transport *transport, uint32_t offset, void *data,
		uint32_t bytes);
	/* 0 while the other side is there, else a negative errno. May make a system call. */
	int (*alive)(struct transport *transport);
	void (*close)(struct transport *transport);
};

struct transport {
	const struct transport_ops *ops;
	/* shared with the card; NULL: doorbells are register writes */
	struct speckv_doorbell_page *doorbells;
	/* Memory that both sides reach; parts are taken from its start and never given back. */
	uint8_t *arena;
	uint64_t arena_address; /* as the card names it */
	size_t arena_bytes, arena_taken;
	/* made since it was opened, by messages and by waits that were long */
	_Atomic uint64_t system_calls;
	uint16_t vendor, device; /* PCI identification */
};

/*
 * Where a socket is: its folder's descriptor (-1: only the path is known), its whole path, and the
 * user whose process listens there, who is trusted beside root and this user.
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
 * Connect a stream socket, through its folder's descriptor: a path may lead elsewhere by now, and
 * an address holds 107 bytes of one. 0, or a negative errno: -ENOENT, -EACCES, -ECONNREFUSED,
 * -ETIMEDOUT (does not accept), -EKEYREJECTED (another user's process).
 */
int transport_dial(int fd, struct transport_place place);
/*
 * Take memory from the arena, zero, as no part is given twice, aligned to `align` (a power of two).
 * NULL: used up.
 */
void *transport_take(struct transport *transport, size_t bytes, size_t align);
static inline uint64_t transport_address(const struct transport *transport, const void *pointer)
{
	return transport->arena_address + (uint64_t)((const uint8_t *)pointer - transport->arena);
}

/*
 * The PCI Express link: megatransfers a second and lanes, as trained and at most. 0 where the other
 * side does not say.
 */
struct transport_link {
	uint32_t speed, lanes, speed_most, lanes_most;
};
/*
 * Errors: what read_config() says. A function that has no such capability has no such link: all
 * zero.
 */
int transport_link(struct transport *transport, struct transport_link *out);

/* ---- queue pairs ---------------------------------------------------------------------------- */

#define QUEUE_ADMIN 0xffffu

struct queue {
	struct transport *transport;
	unsigned int number; /* QUEUE_ADMIN, or of the function */
	struct speckv_sqe *sq;
	struct speckv_cqe *cq;
	struct speckv_buffer_entry *buffers;
	uint32_t sq_mask, cq_mask, buffer_count;
	uint32_t sq_tail, sq_head, cq_head; /* free-running */
	uint32_t cq_rung; /* the head that the card was told */
	uint64_t kicks; /* how often the card slept: each cost a system call */
	/* how long a wait looks before it makes a system call: see queue_wait() */
	unsigned int spins;
};

/*
 * Program and enable the admin queue (the function must be a privileged one), and wait until the
 * card is ready.
 */
int queue_open_admin(struct queue *queue, struct transport *transport, unsigned int sq_log2);
/* Program and enable I/O queue pair `number`, polled, with a buffer table of `buffers` entries. */
int queue_open_io(struct queue *queue, struct transport *transport, unsigned int number,
	unsigned int sq_log2, unsigned int buffers);
/* Enter a part of the arena in the buffer table. */
int queue_register(struct queue *queue, unsigned int index, void *pointer, uint64_t bytes,
	uint32_t flags);
/*
 * Is the pair still enabled? 0, -ECANCELED after a reset, -EIO: the card stopped on a fatal error,
 * or why it cannot be told. Makes system calls.
 */
int queue_check(struct queue *queue);
void queue_close(struct queue *queue);
/* Entries that may be filled now. */
static inline unsigned int queue_room(const struct queue *queue)
{
	return queue->sq_mask - (queue->sq_tail - queue->sq_head);
}
/*
 * Put an entry in the ring; queue_ring() tells the card of all that were put. The caller has looked
 * at queue_room().
 */
void queue_put(struct queue *queue, const void *entry);
int queue_ring(struct queue *queue);
/* One completion, if there is one: true. */
bool queue_reap(struct queue *queue, struct speckv_cqe *out);
/* Wait for one completion. Errors: -ETIMEDOUT, and what alive() says. */
int queue_wait(struct queue *queue, struct speckv_cqe *out, uint64_t timeout_ns);
/*
 * One command, alone: put, ring, wait. Returns 0 and the result, or the errno of the completion's
 * status, negative.
 */
int queue_call(struct queue *queue, const void *entry, uint64_t timeout_ns, uint64_t *result,
	uint16_t *status);
/* errno, negative, of a status code; 0 for SPECKV_STATUS_OK. */
int status_errno(uint16_t status);
/* "checksum did not verify", ... */
const char *status_text(uint16_t status);

#endif

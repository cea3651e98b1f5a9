/* SPDX-License-Identifier: MIT */
/*
 * vfio-user, the device's side of one connection: messages in, replies out, DMA by mapping or by
 * message. Independent of the card. Protocol: QEMU docs/interop/vfio-user.rst, version 0.0 as
 * implemented by QEMU 11.
 *
 * One thread drives all connections, and nothing here waits for a peer. Reads of unmapped memory
 * are sent as messages, and the device retries when the data has arrived (-EAGAIN); writes are
 * posted. A peer that exceeds vu_limits, or a timeout for its greeting, the rest of a message, an
 * answer, or reading its output, is disconnected.
 */
#ifndef SPECKV_EMULATOR_VFIO_USER_H
#define SPECKV_EMULATOR_VFIO_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VU_REGIONS 10 /* BAR0..5, ROM, configuration space, VGA, one of the device's own */
#define VU_IRQ_TYPES 5 /* INTx, MSI, MSI-X, ERR, REQ */
#define VU_MSIX 2
#define VU_VECTORS 32
#define VU_DMA_MAPS 256
#define VU_SMALL_BYTES (1ull << 30) /* that each connection may map in any case */
/* most bytes of one region access or DMA message, as the greeting says */
#define VU_TRANSFER_BYTES 4096u

struct vu_region {
	uint64_t bytes; /* 0: not there */
	int fd; /* for the peer to map; -1: accesses are messages */
	uint64_t mmap_offset, mmap_bytes; /* the mappable part; 0, 0: all of it */
	bool writable;
};

struct vu_ops {
	/*
	 * Access a region; 0 or a negative errno. `bytes` is at most VU_TRANSFER_BYTES, and within
	 * the region.
	 */
	int (*region_read)(void *device, unsigned int region, uint64_t offset, void *data,
		uint32_t bytes);
	int (*region_write)(void *device, unsigned int region, uint64_t offset, const void *data,
		uint32_t bytes);
	/* Describe a region. */
	void (*region_info)(void *device, unsigned int region, struct vu_region *info);
	/* A mapping is about to be removed: stop using it. */
	void (*dma_unmapped)(void *device, uint64_t address, uint64_t bytes);
	int (*reset)(void *device);
	/* The greeting is complete: 0, or the reason to reject the peer. */
	int (*greeted)(void *device);
	/*
	 * A read of vu_dma_read() completed or failed; a posted write of vu_dma_write() was
	 * refused.
	 */
	void (*dma_answered)(void *device);
	void (*dma_failed)(void *device);
};

struct vu_connection;

/* Resources held by all connections of one user. */
struct vu_user {
	uint32_t uid;
	unsigned int connections;
	uint64_t mapped_bytes, out_bytes;
};

/*
 * Set up interrupts, once, before the first connection. 0, or a negative errno (-EAGAIN:
 * fs.aio-max-nr is used up).
 */
int vu_begin(void);

/* Set once, before the first connection. */
struct vu_limits {
	uint64_t connection_mapped_bytes, user_mapped_bytes, user_out_bytes;
};
extern struct vu_limits vu_limits;

/*
 * Serve an accepted, non-blocking stream socket, which the connection owns. NULL: out of memory;
 * the caller still owns the socket.
 */
struct vu_connection *vu_open(int fd, const struct vu_ops *ops, void *device, unsigned int vectors,
	struct vu_user *user);
void vu_close(struct vu_connection *connection);
int vu_fd(const struct vu_connection *connection);
bool vu_greeted(const struct vu_connection *connection);
/*
 * Events to poll for: POLLIN unless input is paused for backed-up output or descriptors to be
 * closed; POLLOUT while there is output.
 */
short vu_events(const struct vu_connection *connection);
/*
 * Receive, and handle at most `messages`, for some tens of microseconds. 0, or a negative errno:
 * the connection has ended (-ECONNRESET: closed by the peer; -EPROTO: protocol error; -ENOBUFS: a
 * limit of the connection or its user; -ETIMEDOUT).
 */
int vu_serve(struct vu_connection *connection, unsigned int messages);
/* A received message was not handled yet: poll does not report it. */
bool vu_pending(const struct vu_connection *connection);
/* Too much output is queued to start anything new for this peer. */
bool vu_full(const struct vu_connection *connection);
/* vu_full(), or too many DMA messages unanswered to start a command that sends more. */
bool vu_held(const struct vu_connection *connection);
int vu_flush(struct vu_connection *connection);
int vu_error(const struct vu_connection *connection);
/* Where a signal handler records an error of the connection. */
int *vu_error_at(struct vu_connection *connection);
/*
 * Deadline of the peer on CLOCK_MONOTONIC; INT64_MAX: none. vu_expire() ends the connection past
 * it, or when descriptors of its user cannot be closed.
 */
int64_t vu_deadline_ms(const struct vu_connection *connection);
int vu_expire(struct vu_connection *connection, int64_t now_ms);
/* This process was late: extend the peer's deadlines. */
void vu_delay(struct vu_connection *connection, int64_t ms);
/*
 * Close a descriptor sent by a peer of this user, or its socket, in a thread: a blocking close()
 * delays only descriptors of the same user.
 */
void vu_release(int fd, uint32_t uid, bool socket);
void vu_release_all(const int *fds, unsigned int n, uint32_t uid);
/* End of a turn: hand the released descriptors to the closing threads. */
void vu_release_turn(void);
/* Descriptors are still open: call vu_release_look() every few dozen milliseconds. */
bool vu_release_waiting(void);
void vu_release_look(int64_t now_ms);
/*
 * Full: too many of a user's descriptors wait to be closed to receive more, from connections that
 * sent many or from all. Stuck: none of them could be closed for long.
 */
bool vu_release_full(uint32_t uid, bool sender);
bool vu_release_stuck(uint32_t uid);

/*
 * Copy between the peer's memory and ours. 0, -EFAULT (not mapped, or access denied), -EAGAIN
 * (vu_dma_read() only: retry the same reads after dma_answered(), until vu_dma_end()), or the error
 * of the connection.
 */
int vu_dma_read(struct vu_connection *connection, uint64_t address, void *data, uint64_t bytes);
void vu_dma_end(struct vu_connection *connection);
int vu_dma_write(struct vu_connection *connection, uint64_t address, const void *data,
	uint64_t bytes);
/* Local address of peer memory within one mapping, or NULL. Valid until dma_unmapped(). */
void *vu_dma_pointer(struct vu_connection *connection, uint64_t address, uint64_t bytes,
	bool write);
/* Signal an MSI-X vector; no effect if it is not armed. */
void vu_interrupt(struct vu_connection *connection, unsigned int vector);

#endif

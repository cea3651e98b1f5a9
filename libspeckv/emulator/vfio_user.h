/* SPDX-License-Identifier: MIT */
/*
 * vfio-user, the device's side of one connection: messages in, replies out, DMA by mapping or by
 * message. Knows nothing of cards. Protocol: QEMU docs/interop/vfio-user.rst, version 0.0 as QEMU
 * 11 speaks it.
 *
 * One thread drives all connections, and nothing here waits for a peer. What a device reads of
 * memory that is not mapped is asked for by message, and the device asks again when it is there
 * (-EAGAIN); what it writes is posted. A peer that takes too long for its greeting, for the rest of
 * a message, for an answer or for what waits for it to read, and one that takes more than
 * vu_limits, is disconnected.
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
#define VU_SMALL_BYTES (1ull << 30) /* that each connection may have mapped */
/* most bytes of one region access or DMA message, as the greeting says */
#define VU_TRANSFER_BYTES 4096u

struct vu_region {
	uint64_t bytes; /* 0: not there */
	int fd; /* to be mapped by the peer; -1: accesses are messages */
	uint64_t mmap_offset, mmap_bytes; /* the part that may be mapped: 0, 0: all of it */
	bool writable;
};

struct vu_ops {
	/*
	 * Bytes of a region; 0 or a negative errno. `bytes` is at most VU_TRANSFER_BYTES, and
	 * within the region.
	 */
	int (*region_read)(void *device, unsigned int region, uint64_t offset, void *data,
		uint32_t bytes);
	int (*region_write)(void *device, unsigned int region, uint64_t offset, const void *data,
		uint32_t bytes);
	/* Tell a region's shape. */
	void (*region_info)(void *device, unsigned int region, struct vu_region *info);
	/* A mapping is about to go: stop using it. */
	void (*dma_unmapped)(void *device, uint64_t address, uint64_t bytes);
	int (*reset)(void *device);
	/* The peer has said what it speaks: 0, or why it may not come in. */
	int (*greeted)(void *device);
	/*
	 * What vu_dma_read() asked for has come, or will not; what vu_dma_write() posted was
	 * refused.
	 */
	void (*dma_answered)(void *device);
	void (*dma_failed)(void *device);
};

struct vu_connection;

/* What the connections of one user hold together. */
struct vu_user {
	uint32_t uid;
	unsigned int connections;
	uint64_t mapped_bytes, out_bytes;
};

/*
 * Once, before the first connection: what interrupts need. 0, or a negative errno (-EAGAIN:
 * fs.aio-max-nr is used up).
 */
int vu_begin(void);

/* Set once, before the first connection. */
struct vu_limits {
	uint64_t connection_mapped_bytes, user_mapped_bytes, user_out_bytes;
};
extern struct vu_limits vu_limits;

/*
 * Serve an accepted, non-blocking stream socket, which the connection owns from now on. NULL: out
 * of memory; the socket is still the caller's.
 */
struct vu_connection *vu_open(int fd, const struct vu_ops *ops, void *device, unsigned int vectors,
	struct vu_user *user);
void vu_close(struct vu_connection *connection);
int vu_fd(const struct vu_connection *connection);
bool vu_greeted(const struct vu_connection *connection);
/*
 * Events to poll for: POLLIN unless replies wait that the peer should read first, or its user's
 * descriptors to be closed; POLLOUT while any reply waits.
 */
short vu_events(const struct vu_connection *connection);
/*
 * Read, and handle at most so many messages, for some tens of microseconds. 0, or a negative errno:
 * the connection is over (-ECONNRESET: the peer went; -EPROTO: it broke the rules; -ENOBUFS: it, or
 * its user, takes too much; -ETIMEDOUT: it takes too long).
 */
int vu_serve(struct vu_connection *connection, unsigned int messages);
/* A message is there that was not handled yet: no event will tell. */
bool vu_pending(const struct vu_connection *connection);
/* So much waits for the peer to read that nothing should be begun for it. */
bool vu_full(const struct vu_connection *connection);
/*
 * That, or so many messages to its memory are unanswered that no command should be begun that makes
 * more of them.
 */
bool vu_held(const struct vu_connection *connection);
int vu_flush(struct vu_connection *connection);
int vu_error(const struct vu_connection *connection);
/* Where to say that the connection is over, from a signal handler. */
int *vu_error_at(struct vu_connection *connection);
/*
 * On CLOCK_MONOTONIC: when the peer has taken too long; INT64_MAX: it has nothing to do.
 * vu_expire() ends the connection then, or when descriptors of its user cannot be closed.
 */
int64_t vu_deadline_ms(const struct vu_connection *connection);
int vu_expire(struct vu_connection *connection, int64_t now_ms);
/* We were late ourselves: what the peer may take is so much longer. */
void vu_delay(struct vu_connection *connection, int64_t ms);
/*
 * Close a descriptor that a peer of this user sent, or its socket: it holds up nothing but more of
 * the same user's.
 */
void vu_release(int fd, uint32_t uid, bool socket);
void vu_release_all(const int *fds, unsigned int n, uint32_t uid);
/* The end of a turn: what was released in it is handed to the threads that close. */
void vu_release_turn(void);
/* Some were not closed yet: vu_release_look() is to be called every few dozen milliseconds. */
bool vu_release_waiting(void);
void vu_release_look(int64_t now_ms);
/*
 * So many of a user's descriptors wait to be closed that no more are taken, from connections that
 * sent many or from all; and none of them could be closed for long.
 */
bool vu_release_full(uint32_t uid, bool sender);
bool vu_release_stuck(uint32_t uid);

/*
 * Copy between the peer's memory and ours. 0, -EFAULT (not mapped, or not for that), -EAGAIN
 * (vu_dma_read() only: when dma_answered() was called, the same reads find it, until vu_dma_end()),
 * or why the connection is over.
 */
int vu_dma_read(struct vu_connection *connection, uint64_t address, void *data, uint64_t bytes);
void vu_dma_end(struct vu_connection *connection);
int vu_dma_write(struct vu_connection *connection, uint64_t address, const void *data,
	uint64_t bytes);
/* Address here of peer memory that is mapped whole, or NULL. Valid until dma_unmapped(). */
void *vu_dma_pointer(struct vu_connection *connection, uint64_t address, uint64_t bytes,
	bool write);
/* Signal an MSI-X vector; nothing when it is not armed. */
void vu_interrupt(struct vu_connection *connection, unsigned int vector);

#endif

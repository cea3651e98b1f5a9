/* SPDX-License-Identifier: MIT */
/*
 * vfio-user, the device's side of one connection: messages in, replies out, DMA by mapping or by message. Knows nothing
 * of cards. Protocol: QEMU docs/interop/vfio-user.rst, version 0.0 as QEMU 11 speaks it.
 *
 * One thread drives all connections; nothing here blocks except a DMA by message, which waits at most `dma_timeout_ms` for
 * its peer, once: a peer that lets it run out is disconnected.
 */
#ifndef SPECKV_EMULATOR_VFIO_USER_H
#define SPECKV_EMULATOR_VFIO_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VU_REGIONS 10     /* BAR0..5, ROM, configuration space, VGA, one of the device's own */
#define VU_CONFIG_REGION 7
#define VU_IRQ_TYPES 5    /* INTx, MSI, MSI-X, ERR, REQ */
#define VU_MSIX 2
#define VU_VECTORS 32
#define VU_DMA_MAPS 256
#define VU_TRANSFER_BYTES (1u << 20) /* most bytes of one region access or DMA message */

struct vu_region {
	uint64_t bytes; /* 0: not there */
	int fd;         /* to be mapped by the peer; -1: accesses are messages */
	uint64_t mmap_offset, mmap_bytes; /* the part that may be mapped: 0, 0: all of it */
	bool writable;
};

struct vu_ops {
	/* Bytes of a region; 0 or a negative errno. `bytes` is at most VU_TRANSFER_BYTES, and within the region. */
	int (*region_read)(void *device, unsigned int region, uint64_t offset, void *data, uint32_t bytes);
	int (*region_write)(void *device, unsigned int region, uint64_t offset, const void *data, uint32_t bytes);
	/* Tell a region's shape. */
	void (*region_info)(void *device, unsigned int region, struct vu_region *info);
	/* A mapping is about to go: stop using it. */
	void (*dma_unmapped)(void *device, uint64_t address, uint64_t bytes);
	int (*reset)(void *device);
};

struct vu_connection;

/* Serve an accepted, non-blocking stream socket, which the connection owns from now on. NULL: out of memory. */
struct vu_connection *vu_open(int fd, const struct vu_ops *ops, void *device, unsigned int vectors);
void vu_close(struct vu_connection *connection);
int vu_fd(const struct vu_connection *connection);
/* Events to poll for: POLLIN, and POLLOUT while replies wait. */
short vu_events(const struct vu_connection *connection);
/* Read and handle what is there. 0, or a negative errno: the connection is over (-ECONNRESET: the peer went; -EPROTO: it broke the rules). */
int vu_serve(struct vu_connection *connection);

/* Copy between the peer's memory and ours. 0, -EFAULT (not mapped, or not for that), -ETIMEDOUT, -ECONNRESET. */
int vu_dma_read(struct vu_connection *connection, uint64_t address, void *data, uint64_t bytes);
int vu_dma_write(struct vu_connection *connection, uint64_t address, const void *data, uint64_t bytes);
/* Address here of peer memory that is mapped whole, or NULL. Valid until dma_unmapped(). */
void *vu_dma_pointer(struct vu_connection *connection, uint64_t address, uint64_t bytes, bool write);
/* Signal an MSI-X vector; nothing when it is not armed. */
void vu_interrupt(struct vu_connection *connection, unsigned int vector);

#endif

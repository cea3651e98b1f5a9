/* SPDX-License-Identifier: MIT */
/*
 * Shared by the sources of a vfio-user connection: vfio_user.c transfers messages,
 * vfio_user_requests.c handles requests, vfio_user_dma.c accesses the peer's memory.
 */
#ifndef SPECKV_EMULATOR_VFIO_USER_INTERNAL_H
#define SPECKV_EMULATOR_VFIO_USER_INTERNAL_H

#include "guard.h"
#include "transport/vfio_user_wire.h"
#include "vfio_user.h"

#define MESSAGE_BYTES (VU_TRANSFER_BYTES + 64)
#define SLICE_NS 20000u /* per connection and turn */
#define FDS 16 /* per message */
/* window in which a peer with more than FDS descriptors closed counts as one that sends many */
#define SENDER_MS 1000
/* the kernel's maximum (SCM_MAX_FD): none is left for it to close */
#define SENT_FDS 253
#define RECEIVE_BYTES (8u << 10)
#define WINDOW_FIRST 64u /* limit of a first receipt, and of one after one longer than RECEIVE_NS */
#define RECEIVE_NS 15000
#define IN_BYTES (MESSAGE_BYTES + RECEIVE_BYTES)
#define GREETING_BYTES 4096 /* limit for messages before the greeting */
/* output queue: the most that one command of a card writes, and replies */
#define OUT_BYTES (24u << 20)
#define OUT_PAUSE (256u << 10) /* above this, start nothing new for the peer */
#define DMA_PIECE VU_TRANSFER_BYTES /* bytes of one message to the peer's memory */
#define PIECES 16384 /* DMA messages in flight */
/* above this, start no command; the rest is reserved for running ones */
#define PIECES_PAUSE 4096
#define READS 4096 /* per command */
#define READ_BYTES (32u << 20) /* per command */
/*
 * Timeouts of a peer: for its greeting, the rest of a message, reading some of its output,
 * answering a message.
 */
#define GREETING_MS 2000
#define MESSAGE_MS 5000
#define UNREAD_MS 5000
#define DMA_TIMEOUT_MS 2000

struct mapping {
	uint64_t address, bytes;
	uint8_t *memory; /* NULL: access by message */
	bool read, write;
};

enum piece_kind { PIECE_FREE, PIECE_READ, PIECE_WRITE, PIECE_DROPPED };

/* A DMA message in flight. */
struct piece {
	uint8_t kind;
	uint32_t read, bytes;
	uint64_t at; /* offset of its bytes in read_data */
};

/* A read requested by a command, contiguous in the peer's address space. */
struct read {
	uint64_t address, bytes, at, missing;
	bool failed;
};

struct vu_connection {
	int fd;
	const struct vu_ops *ops;
	void *device;
	struct vu_user *user;
	unsigned int vectors;
	bool greeted;
	int error; /* the reason it ended */
	int64_t opened_ms;
	struct mapping maps[VU_DMA_MAPS];
	unsigned int map_count;
	uint64_t mapped_bytes;
	int irq[VU_VECTORS];
	/* in: bytes [in_first, in_first + in_bytes) */
	uint8_t *in;
	size_t in_first, in_bytes, window; /* window: limit of the next receipt */
	unsigned int released; /* descriptors of the peer closed, since released_ms */
	int64_t released_ms;
	int64_t part_ms; /* time at which a partial message arrived */
	int fds[FDS];
	unsigned int fd_count;
	bool with_fds; /* `fds` belong to the message being handled */
	/*
	 * bytes of `in` received when the descriptors were: they belong to the message that ends it
	 */
	size_t fd_end;
	/*
	 * out: bytes [out_first, out_first + out_bytes) of a growing buffer; a descriptor is sent
	 * with its own message
	 */
	uint8_t *out;
	size_t out_first, out_bytes, out_capacity;
	int64_t out_ms; /* time of the last progress */
	/* DMA messages in flight, and the reads of the current command */
	struct piece *pieces;
	unsigned int next_piece, in_flight, in_flight_reads;
	int64_t asked_ms; /* time of the last answer, or of the first request waiting for one */
	struct read *reads;
	unsigned int read_count, read_next;
	uint8_t *read_data;
	uint64_t read_bytes;
};

/* End the connection: the first reason stays. All of these return 0, or that reason. */
int vu_over(struct vu_connection *c, int error);
/*
 * Answer a request unless its sender set no-reply: with a body and a descriptor (-1: none), or with
 * an error.
 */
int vu_reply_with(struct vu_connection *c, const struct vfu_header *to, const void *body,
	size_t bytes, int fd);
int vu_reply(struct vu_connection *c, const struct vfu_header *to, const void *body, size_t bytes);
int vu_refuse(struct vu_connection *c, const struct vfu_header *to, int error);
/* Send a message with a descriptor (-1: none). */
int vu_post(struct vu_connection *c, const struct vfu_header *header, const void *body,
	size_t bytes, int fd);
int64_t vu_now_ms(void);
/* Handle an answer to a message of vu_dma_read() or vu_dma_write(). */
void vu_answered(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes);
void vu_unmap(struct vu_connection *c, struct mapping *m);
/*
 * Handle a complete request of the peer. Its descriptors are taken out of c->fds or closed
 * afterwards.
 */
int vu_handle(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes);

#endif

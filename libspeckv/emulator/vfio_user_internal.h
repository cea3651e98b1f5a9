/* SPDX-License-Identifier: MIT */
/*
 * What the two halves of a vfio-user connection share: vfio_user.c carries messages,
 * vfio_user_requests.c answers them.
 */
#ifndef SPECKV_EMULATOR_VFIO_USER_INTERNAL_H
#define SPECKV_EMULATOR_VFIO_USER_INTERNAL_H

#include "guard.h"
#include "transport/vfio_user_wire.h"
#include "vfio_user.h"

#define MESSAGE_BYTES (VU_TRANSFER_BYTES + 64)
#define SLICE_NS 20000u /* of one connection, before it is another's turn */
#define FDS 16 /* of one message */
/* of which a peer that had more than FDS descriptors closed counts as one that sends many */
#define SENDER_MS 1000
/* as many as the kernel takes along (SCM_MAX_FD): none is left for it to close */
#define SENT_FDS 253
#define RECEIVE_BYTES (64u << 10)
#define IN_BYTES (MESSAGE_BYTES + RECEIVE_BYTES)
#define GREETING_BYTES 4096 /* a message before the greeting */
/* messages that may wait for a peer: what one command of a card writes at most, and replies */
#define OUT_BYTES (24u << 20)
#define OUT_PAUSE (256u << 10) /* with more than this nothing new is begun for it */
#define DMA_PIECE VU_TRANSFER_BYTES /* bytes of one message to the peer's memory */
#define PIECES 16384 /* such messages under way */
/* with more than this no command is begun; the rest is for those that have begun */
#define PIECES_PAUSE 4096
#define READS 4096 /* of one command */
#define READ_BYTES (32u << 20) /* of one command */
/*
 * How long a peer may take: to greet, to end a message that it began, to read some of what waits
 * for it, to answer a message.
 */
#define GREETING_MS 2000
#define MESSAGE_MS 5000
#define UNREAD_MS 5000
#define DMA_TIMEOUT_MS 2000

struct mapping {
	uint64_t address, bytes;
	uint8_t *memory; /* NULL: by message */
	bool read, write;
};

enum piece_kind { PIECE_FREE, PIECE_READ, PIECE_WRITE, PIECE_DROPPED };

/* A message to the peer's memory that was not answered yet. */
struct piece {
	uint8_t kind;
	uint32_t read, bytes;
	uint64_t at; /* where its bytes go, in read_data */
};

/* Memory of the peer that a command asked for, in one piece of its own address space. */
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
	int error; /* why it is over */
	int64_t opened_ms;
	struct mapping maps[VU_DMA_MAPS];
	unsigned int map_count;
	uint64_t mapped_bytes;
	int irq[VU_VECTORS];
	/* in: bytes [in_first, in_first + in_bytes) */
	uint8_t *in;
	size_t in_first, in_bytes;
	unsigned int released; /* descriptors of the peer's, since released_ms */
	int64_t released_ms;
	int64_t part_ms; /* since when a part of a message has been there */
	int fds[FDS];
	unsigned int fd_count;
	bool with_fds; /* the message being handled came with them */
	/*
	 * bytes of `in` up to here had come when the descriptors did: they belong to the message
	 * that ends it
	 */
	size_t fd_end;
	/*
	 * out: bytes [out_first, out_first + out_bytes) of a growing buffer; descriptors go with
	 * the message they belong to
	 */
	uint8_t *out;
	size_t out_first, out_bytes, out_capacity;
	int64_t out_ms; /* when some of it was taken last */
	/* messages to the peer's memory, and what the command that reads it has of it */
	struct piece *pieces;
	unsigned int next_piece, in_flight, in_flight_reads;
	int64_t asked_ms; /* when the peer answered last, or had to begin to */
	struct read *reads;
	unsigned int read_count, read_next;
	uint8_t *read_data;
	uint64_t read_bytes;
};

/* The connection is over: the first reason stays. All of these return 0, or that reason. */
int vu_over(struct vu_connection *c, int error);
/*
 * Answer a request, unless its sender wants none: with a body, and a descriptor to go with it (-1:
 * none); or with an error.
 */
int vu_reply_with(struct vu_connection *c, const struct vfu_header *to, const void *body,
	size_t bytes, int fd);
int vu_reply(struct vu_connection *c, const struct vfu_header *to, const void *body, size_t bytes);
int vu_refuse(struct vu_connection *c, const struct vfu_header *to, int error);
/* A message, with a descriptor to go with it (-1: none). */
int vu_post(struct vu_connection *c, const struct vfu_header *header, const void *body,
	size_t bytes, int fd);
int64_t vu_now_ms(void);
/* An answer to a message of vu_dma_read() or vu_dma_write(). */
void vu_answered(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes);
void vu_unmap(struct vu_connection *c, struct mapping *m);
/*
 * A request of the peer, whole. Descriptors that came with it are taken out of c->fds or closed
 * afterwards.
 */
int vu_handle(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes);

#endif

/* SPDX-License-Identifier: MIT */
/* What the two halves of a vfio-user connection share: vfio_user.c carries messages, vfio_user_requests.c answers them. */
#ifndef SPECKV_EMULATOR_VFIO_USER_INTERNAL_H
#define SPECKV_EMULATOR_VFIO_USER_INTERNAL_H

#include "vfio_user.h"

enum { VERSION = 1, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION, GET_REGION_FDS, GET_IRQ, SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET };

#define TYPE_MASK 0xfu
#define REPLY 1u
#define NO_REPLY 0x10u
#define ERROR 0x20u
#define MESSAGE_BYTES (VU_TRANSFER_BYTES + 64)
#define FDS 16                 /* of one message */
#define OUT_BYTES (8u << 20)   /* replies that may wait for a peer that does not read */
#define DMA_TIMEOUT_MS 500

struct header {
	uint16_t id, command;
	uint32_t bytes, flags, error;
};
_Static_assert(sizeof(struct header) == 16, "vfio-user header");

struct mapping {
	uint64_t address, bytes;
	uint8_t *memory; /* NULL: by message */
	bool read, write;
};

struct vu_connection {
	int fd;
	const struct vu_ops *ops;
	void *device;
	unsigned int vectors;
	bool greeted;
	int error; /* why it is over */
	uint16_t next_id;
	struct mapping maps[VU_DMA_MAPS];
	unsigned int map_count;
	int irq[VU_VECTORS];
	/* in */
	uint8_t *in;
	size_t in_bytes;
	int fds[FDS];
	unsigned int fd_count;
	bool with_fds;  /* the message being handled came with them */
	size_t fd_end; /* bytes of `in` up to here had come when the descriptors did: they belong to the message that ends it */
	/* out: bytes [out_first, out_first + out_bytes) of a growing buffer; descriptors go with the message they belong to */
	uint8_t *out;
	size_t out_first, out_bytes, out_capacity;
	/* the reply that a DMA message waits for */
	bool waiting;
	uint16_t wait_id;
	uint8_t *wait_body;
	size_t wait_bytes;
	int wait_result; /* 1: still waiting; other messages that come meanwhile are handled after it */
};

/* The connection is over: the first reason stays. All of these return 0, or that reason. */
int vu_over(struct vu_connection *c, int error);
/* Answer a request, unless its sender wants none: with a body, and a descriptor to go with it (-1: none); or with an error. */
int vu_reply_with(struct vu_connection *c, const struct header *to, const void *body, size_t bytes, int fd);
int vu_reply(struct vu_connection *c, const struct header *to, const void *body, size_t bytes);
int vu_refuse(struct vu_connection *c, const struct header *to, int error);
/* A request of the peer, whole. Descriptors that came with it are taken out of c->fds or closed afterwards. */
int vu_handle(struct vu_connection *c, const struct header *h, const uint8_t *body, size_t bytes);

#endif

// SPDX-License-Identifier: MIT
/*
 * The memory of a peer: mapped if its owner cannot truncate it, otherwise accessed by asynchronous
 * messages.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guard.h"
#include "vfio_user_internal.h"

static struct mapping *mapping_at(struct vu_connection *c, uint64_t address)
{
	for (unsigned int i = 0; i < c->map_count; i++)
		if (address >= c->maps[i].address &&
			address - c->maps[i].address < c->maps[i].bytes)
			return &c->maps[i];
	return NULL;
}

void vu_unmap(struct vu_connection *c, struct mapping *m)
{
	if (m->memory) {
		guard_remove(m->memory);
		if (munmap(m->memory, m->bytes) == 0) {
			/* otherwise it is still mapped, and still counts */
			c->user->mapped_bytes -= m->bytes;
			c->mapped_bytes -= m->bytes;
		}
	}
	*m = c->maps[--c->map_count];
}

void *vu_dma_pointer(struct vu_connection *c, uint64_t address, uint64_t bytes, bool write)
{
	struct mapping *m = mapping_at(c, address);

	if (!m || !m->memory || bytes > m->bytes - (address - m->address) ||
		(write ? !m->write : !m->read))
		return NULL;
	return m->memory + (address - m->address);
}

/* Allocate a slot for the answer to one of our messages; its index is the message's id. */
static struct piece *piece_take(struct vu_connection *c, uint16_t *id)
{
	if (!c->pieces)
		c->pieces = calloc(PIECES, sizeof(*c->pieces));
	if (!c->pieces) {
		vu_over(c, -ENOMEM);
		return NULL;
	}
	for (unsigned int i = 0; c->in_flight < PIECES && i < PIECES; i++) {
		unsigned int at = c->next_piece++ % PIECES;

		if (c->pieces[at].kind != PIECE_FREE)
			continue;
		if (!c->in_flight++)
			c->asked_ms = vu_now_ms();
		*id = (uint16_t)(0x8000u | at);
		return &c->pieces[at];
	}
	vu_over(c, -ENOBUFS);
	return NULL;
}

/* Send one DMA message to the peer; asynchronous. */
static int send_request(struct vu_connection *c, unsigned int command, uint64_t address,
	const uint8_t *data, uint64_t bytes, uint32_t read, uint64_t at)
{
	uint8_t body[16 + DMA_PIECE];
	struct vfu_header header = { .command = (uint16_t)command };
	struct piece *piece = piece_take(c, &header.id);
	size_t size = 16;

	if (!piece)
		return c->error;
	c->in_flight_reads += !data;
	*piece = (struct piece){ .kind = data ? PIECE_WRITE : PIECE_READ,
		.read = read,
		.bytes = (uint32_t)bytes,
		.at = at };
	memcpy(body, &address, 8);
	memcpy(body + 8, &bytes, 8);
	if (data) {
		memcpy(body + 16, data, bytes);
		size += bytes;
	}
	header.bytes = (uint32_t)(sizeof(header) + size);
	return vu_post(c, &header, body, size, -1);
}

/*
 * Find a read of the current command, complete or pending. A restarted command repeats its reads in
 * the same order.
 */
static struct read *read_find(struct vu_connection *c, uint64_t address, uint64_t bytes)
{
	for (unsigned int i = 0; i < c->read_count; i++) {
		struct read *r = &c->reads[(c->read_next + i) % c->read_count];

		if (r->address == address && r->bytes == bytes) {
			c->read_next = (c->read_next + i + 1) % c->read_count;
			return r;
		}
	}
	return NULL;
}

static int read_begin(struct vu_connection *c, uint64_t address, uint64_t bytes)
{
	uint64_t at = c->read_bytes;
	struct read *reads;
	uint8_t *data;

	if (bytes > READ_BYTES - c->read_bytes || c->read_count == READS)
		return -EFAULT;
	reads = realloc(c->reads, (c->read_count + 1) * sizeof(*reads));
	if (!reads)
		return vu_over(c, -ENOMEM);
	c->reads = reads;
	data = realloc(c->read_data, c->read_bytes + bytes);
	if (!data)
		return vu_over(c, -ENOMEM);
	c->read_data = data;
	c->read_bytes += bytes;
	c->reads[c->read_count] = (struct read){ .address = address,
		.bytes = bytes,
		.at = at,
		.missing = (bytes + DMA_PIECE - 1) / DMA_PIECE };
	for (uint64_t n = 0; n < bytes; n += DMA_PIECE)
		if (send_request(c, VFU_DMA_READ, address + n, NULL,
			    bytes - n < DMA_PIECE ? bytes - n : DMA_PIECE, c->read_count, at + n))
			return c->error;
	c->read_count++;
	return 0;
}

int vu_dma_read(struct vu_connection *c, uint64_t address, void *to, uint64_t bytes)
{
	uint8_t *data = to;
	bool wait = false;

	while (bytes) {
		struct mapping *m = mapping_at(c, address);
		struct read *r;
		uint64_t n;
		int rc;

		if (c->error || !m || !m->read)
			return -EFAULT;
		n = m->bytes - (address - m->address);
		n = n < bytes ? n : bytes;
		if (m->memory) {
			memcpy(data, m->memory + (address - m->address), n);
		} else {
			r = read_find(c, address, n);
			if (!r) {
				rc = read_begin(c, address, n);
				if (rc)
					return rc;
				wait = true;
			} else if (r->failed) {
				return -EFAULT;
			} else if (r->missing) {
				wait = true;
			} else {
				memcpy(data, c->read_data + r->at, n);
			}
		}
		address += n;
		data += n;
		bytes -= n;
	}
	return wait ? -EAGAIN : 0;
}

void vu_dma_end(struct vu_connection *c)
{
	for (unsigned int i = 0; c->in_flight_reads && i < PIECES; i++)
		if (c->pieces[i].kind == PIECE_READ) {
			c->pieces[i].kind = PIECE_DROPPED;
			c->in_flight_reads--;
		}
	free(c->reads);
	free(c->read_data);
	c->reads = NULL;
	c->read_data = NULL;
	c->read_bytes = 0;
	c->read_count = c->read_next = 0;
}

int vu_dma_write(struct vu_connection *c, uint64_t address, const void *from, uint64_t bytes)
{
	for (uint64_t done = 0; done < bytes;) {
		const uint8_t *data = (const uint8_t *)from + done;
		struct mapping *m = mapping_at(c, address);
		uint64_t n;

		if (c->error || !m || !m->write)
			return -EFAULT;
		n = m->bytes - (address - m->address);
		n = n < bytes - done ? n : bytes - done;
		if (m->memory) {
			memcpy(m->memory + (address - m->address), data, n);
		} else {
			n = n < DMA_PIECE ? n : DMA_PIECE;
			if (send_request(c, VFU_DMA_WRITE, address, data, n, 0, 0))
				return c->error;
		}
		address += n;
		done += n;
	}
	return 0;
}

/* Handle an answer to one of our messages; ignore an unsolicited one. */
void vu_answered(struct vu_connection *c, const struct vfu_header *h, const uint8_t *body,
	size_t bytes)
{
	struct piece *piece = c->pieces && h->id & 0x8000 ? &c->pieces[(h->id & 0x7fff) % PIECES]
							  : NULL;
	struct piece was;

	if (!piece || piece->kind == PIECE_FREE)
		return;
	was = *piece;
	piece->kind = PIECE_FREE;
	c->in_flight--;
	c->asked_ms = vu_now_ms();
	if (was.kind == PIECE_WRITE && h->flags & VFU_ERROR)
		c->ops->dma_failed(c->device);
	if (was.kind != PIECE_READ)
		return;
	c->in_flight_reads--;
	if (h->flags & VFU_ERROR || bytes < 16 + (size_t)was.bytes)
		c->reads[was.read].failed = true;
	else
		memcpy(c->read_data + was.at, body + 16, was.bytes);
	if (!--c->reads[was.read].missing)
		c->ops->dma_answered(c->device);
}

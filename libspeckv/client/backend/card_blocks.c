// SPDX-License-Identifier: MIT
/*
 * Pool backend for blocks in a card's memory. A block left by a client that died before publishing
 * it is invalidated by the next owner of its pages.
 */
#include <stdlib.h>

#include "card_connection.h"

#define TRIES 3 /* of a command that the card may lose */

/*
 * memcpy() of a whole block is one string instruction, nine times slower on some processors where
 * the destination's page offset is slightly above the source's. Slots are page-aligned; malloc()
 * returns 16 bytes behind a page.
 */
static void copy_block(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	enum { LINE = 64 };
	uint64_t at = 0;

	for (; bytes - at >= LINE; at += LINE) {
		memcpy(to + at, from + at, LINE);
		__asm__ volatile("" ::: "memory"); /* keep the compiler from merging the calls */
	}
	memcpy(to + at, from + at, bytes - at);
}

/* `lost`: set where the card may have executed the command although no completion arrived. */
static int invalidate(struct region *r, uint64_t page, uint64_t pages, uint64_t generation,
	bool *lost)
{
	struct card_io *io = r->io;
	struct speckv_cmd_range range = { .opcode = SPECKV_IO_INVALIDATE,
		.address = page << r->page_shift,
		.bytes = pages << r->page_shift,
		.generation = generation };
	struct lane *lane;
	int rc = -ENODEV;

	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		rc = lane_enter(io, true, &lane);
		if (rc)
			return rc;
		range.pool = io->pool;
		rc = lane_call(io, lane, 0, &range, NULL);
		*lost |= rc == -ENODEV;
		lane_leave(io, lane);
	}
	return rc == -ENOENT ? 0 : rc; /* already absent: success */
}

static int card_invalidate(struct region *r, const struct run *run)
{
	bool lost = false;
	int rc = invalidate(r, run->page, run->pages, run->generation, &lost);

	return lost && (rc == -ENODEV || rc == -EACCES) ? -EINPROGRESS : rc;
}

static int card_clear(struct region *r, uint64_t page, uint64_t pages)
{
	bool lost = false; /* the next user of these pages clears them again */

	return pages ? invalidate(r, page, pages, 0, &lost) : 0;
}

static int card_connect(struct region *r)
{
	struct card_io *io = r->io;
	int rc = card_io_enter(io);

	if (!rc)
		pthread_rwlock_unlock(&io->use);
	return rc;
}

/* The pages hold a block: of a client that died, or of a try whose completion was lost. */
static bool occupied(int rc)
{
	return rc == -EROFS || rc == -EBUSY;
}

static int write_once(struct region *r, const struct run *run, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
	uint64_t *frame_bytes)
{
	struct card_io *io = r->io;
	struct speckv_cmd_write write = { .opcode = SPECKV_IO_WRITE,
		.address = run->page << r->page_shift,
		.bytes = (uint32_t)bytes,
		.capacity = (uint32_t)((uint64_t)run->pages << r->page_shift),
		.identity_buffer = 1,
		.codec = (uint8_t)codec };
	struct lane *lane;
	int rc = lane_enter(io, false, &lane);

	if (rc)
		return rc;
	write.pool = io->pool;
	if (io->modes >> codec & 1) {
		copy_block(lane->data, raw, bytes);
	} else { /* mode not supported by the card: it stores the frame encoded here */
		rc = frame_encode(r, codec, identity, raw, bytes, lane->data, io->slot_bytes,
			frame_bytes);
		write.flags = SPECKV_WRITE_FRAME;
		write.bytes = (uint32_t)*frame_bytes;
	}
	memset(lane->identities, 0, sizeof(*lane->identities));
	memcpy(lane->identities->key, identity->key, sizeof(lane->identities->key));
	lane->identities->generation = identity->generation;
	lane->identities->first_position = identity->first_position;
	lane->identities->tenant = identity->tenant;
	if (!rc)
		rc = lane_call(io, lane, 0, &write, frame_bytes);
	lane_leave(io, lane);
	return rc;
}

/* `verify` is not needed: the card always reads back and verifies. */
static int card_write(struct region *r, const struct run *run, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes, bool verify,
	uint64_t *frame_bytes)
{
	int rc = -ENODEV;

	for (int tries = 0; tries < TRIES && rc == -ENODEV; tries++) {
		rc = write_once(r, run, codec, identity, raw, bytes, frame_bytes);
		if (occupied(rc)) {
			rc = card_clear(r, run->page, run->pages);
			if (!rc)
				rc = write_once(r, run, codec, identity, raw, bytes, frame_bytes);
		}
	}
	if (!rc && (!*frame_bytes || *frame_bytes > (uint64_t)run->pages << r->page_shift))
		rc = -EBADMSG; /* no valid size of a stored frame */
	return rc;
}

static int copy_once(struct card_io *io, struct speckv_cmd_copy *copy)
{
	struct lane *lane;
	int rc = lane_enter(io, true, &lane);

	if (rc)
		return rc;
	copy->pool = copy->destination_pool = io->pool;
	rc = lane_call(io, lane, 0, copy, NULL);
	lane_leave(io, lane);
	return rc;
}

static int card_copy(struct region *r, const struct speckv_key *key, const struct block_ref *from,
	const struct run *to)
{
	struct card_io *io = r->io;
	struct speckv_cmd_copy copy = { .opcode = SPECKV_IO_COPY,
		.address = from->page << r->page_shift,
		.destination_address = to->page << r->page_shift,
		.generation = from->generation,
		.destination_generation = to->generation,
		.capacity = (uint32_t)((uint64_t)to->pages << r->page_shift) };
	int rc = -ENODEV;

	memcpy(copy.key_prefix, key->bytes, sizeof(copy.key_prefix));
	for (int tries = 0; tries < TRIES && rc == -ENODEV; tries++) {
		rc = copy_once(io, &copy);
		if (occupied(rc)) {
			rc = card_clear(r, to->page, to->pages);
			if (!rc)
				rc = copy_once(io, &copy);
		}
	}
	return rc && rc != -ENODEV && rc != -EACCES && !index_current(r, from) ? -EAGAIN : rc;
}

/* ---- reads, several under way --------------------------------------------------------------- */

static unsigned int card_reads_begin(struct region *r, struct reads *reads,
	const struct block_ref *found, const uint8_t *present, size_t n)
{
	struct card_io *io = r->io;
	struct lane *lane;

	*reads = (struct reads){ .region = r };
	reads->error = lane_enter(io, false, &lane);
	if (reads->error)
		return 0;
	reads->lane = lane;
	return reads->depth = io->depth;
}

static void card_reads_end(struct reads *reads)
{
	struct lane *lane = reads->lane;

	if (!lane)
		return;
	for (unsigned int i = 0; i < READS_MOST; i++)
		if (lane->slots[i].busy)
			/* the next user of the lane reuses the buffer */
			lane_collect(reads->region->io, lane, i);
	lane_leave(reads->region->io, lane);
	reads->lane = NULL;
}

static int start_read(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, bool ahead)
{
	struct region *r = reads->region;
	struct card_io *io = r->io;
	struct speckv_cmd_read read = { .opcode = ahead ? SPECKV_IO_PREFETCH : SPECKV_IO_READ,
		.pool = io->pool,
		.address = found->page << r->page_shift,
		.buffer_offset = slot * io->slot_bytes,
		.capacity = (uint32_t)io->slot_bytes,
		.generation = found->generation };

	if (!reads->lane || load_acquire(&io->broken))
		return -ENODEV;
	memcpy(read.key_prefix, key->bytes, sizeof(read.key_prefix));
	reads->frame[slot] = !(io->modes >> r->fixed.codec & 1);
	if (reads->frame[slot]) { /* mode not supported by the card: decode here */
		read.opcode = SPECKV_IO_READ;
		read.flags = SPECKV_READ_FRAME;
	} else {
		read.layer_first = (uint16_t)layers.first;
		read.layer_count = (uint16_t)layers.count;
	}
	reads->found[slot] = *found;
	reads->layers[slot] = layers;
	if (lane_submit(reads->lane, slot, &read)) {
		store_release(&io->broken, true);
		return -ENODEV;
	}
	return 0;
}

static void card_read_start(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers)
{
	/* on failure read_take() submits again and returns the error */
	start_read(reads, slot, key, found, layers, false);
}

static int finish_read(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	void *raw, uint64_t bytes)
{
	struct region *r = reads->region;
	struct lane *lane = reads->lane;
	struct card_io *io = r->io;
	const uint8_t *data;
	uint64_t got;
	int rc;

	if (!lane || !lane->slots[slot].busy)
		return -ENODEV;
	rc = lane_collect(io, lane, slot);
	if (rc)
		return rc;
	data = lane->data + slot * io->slot_bytes;
	got = lane->slots[slot].result;
	if (reads->frame[slot])
		return got > io->slot_bytes ? -EBADMSG
					    : frame_decode(r, key, &reads->found[slot], data, got,
						      reads->layers[slot], raw, bytes);
	if (got != bytes)
		return got ? -EBADMSG : -EBUSY; /* a prefetch rejected for lack of bandwidth */
	copy_block(raw, data, bytes);
	return 0;
}

static bool under_way(const struct reads *reads, unsigned int slot, const struct block_ref *found,
	struct layers layers)
{
	const struct lane *lane = reads->lane;

	return lane && lane->slots[slot].busy && reads->found[slot].page == found->page &&
		reads->found[slot].generation == found->generation &&
		reads->layers[slot].first == layers.first &&
		reads->layers[slot].count == layers.count;
}

static int card_read_take(struct reads *reads, unsigned int slot, const struct speckv_key *key,
	const struct block_ref *found, struct layers layers, void *raw, uint64_t bytes)
{
	int rc = 0;

	if (!under_way(reads, slot, found, layers)) {
		/* drain the slot: another read is in it */
		finish_read(reads, slot, key, raw, bytes);
		rc = start_read(reads, slot, key, found, layers, false);
	}
	return rc ? rc : finish_read(reads, slot, key, raw, bytes);
}

static int card_read(struct region *r, const struct speckv_key *key, const struct block_ref *found,
	struct layers layers, bool ahead, void *raw, uint64_t bytes)
{
	struct reads reads;
	int rc = -ENODEV;

	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		if (!card_reads_begin(r, &reads, NULL, NULL, 0))
			return reads.error;
		rc = start_read(&reads, 0, key, found, layers, ahead);
		if (!rc)
			rc = finish_read(&reads, 0, key, raw, bytes);
		card_reads_end(&reads);
	}
	return rc;
}

static int read_frame(struct region *r, const struct speckv_key *key, uint64_t page,
	uint64_t generation, void *frame, uint64_t room, uint64_t *bytes)
{
	struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ,
		.flags = SPECKV_READ_FRAME,
		.address = page << r->page_shift,
		.generation = generation };
	struct card_io *io = r->io;
	struct lane *lane;
	int rc = -ENODEV;

	memcpy(read.key_prefix, key->bytes, sizeof(read.key_prefix));
	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		rc = lane_enter(io, false, &lane);
		if (rc)
			return rc;
		read.pool = io->pool;
		read.capacity = (uint32_t)io->slot_bytes;
		rc = lane_call(io, lane, 0, &read, bytes);
		if (!rc && (*bytes > io->slot_bytes || *bytes > room))
			rc = -EBADMSG;
		if (!rc)
			memcpy(frame, lane->data, *bytes);
		lane_leave(io, lane);
	}
	return rc;
}

/* The card verifies every section of a frame that it returns. */
static int card_frame(struct region *r, uint64_t page, uint64_t generation, uint64_t room,
	const uint8_t **at, uint8_t **copy)
{
	struct speckv_key key;
	struct block_ref found;
	uint64_t bytes;
	int rc;

	*copy = NULL;
	if (!index_entry(r, region_entry_of(r, page), &found, &key) || found.page != page ||
		found.generation != generation)
		return -EBADMSG;
	*at = *copy = calloc(1, room);
	if (!*copy)
		return -ENOMEM;
	rc = read_frame(r, &key, page, generation, *copy, room, &bytes);
	return rc == -ENODEV || rc == -EACCES ? rc : rc ? -EBADMSG : 0;
}

const struct pool_backend card_pool = {
	.open = card_io_open,
	.close = card_io_close,
	.begin = card_io_begin,
	.connect = card_connect,
	.write = card_write,
	.read = card_read,
	.reads_begin = card_reads_begin,
	.read_start = card_read_start,
	.read_take = card_read_take,
	.reads_end = card_reads_end,
	.frame = card_frame,
	.copy = card_copy,
	.invalidate = card_invalidate,
	.clear = card_clear,
};

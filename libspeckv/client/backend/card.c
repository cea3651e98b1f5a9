// SPDX-License-Identifier: MIT
/*
 * This process as a function of a card, for one pool: what a mapping is to a host engine's pool. A connection is made when it is first
 * needed and anew when it broke. It has a few lanes, each a queue pair with buffers of its own, so that threads do not wait for each other;
 * the last lane is for commands that are given while a lane is held. What the card holds where it should hold nothing (a write whose
 * client died) is taken away by whoever owns these pages now.
 */
#include <stdlib.h>

#include "client/card/card.h"
#include "backend.h"

#define LANES 4
#define NESTED (LANES - 1)
#define ARENA_MOST (64ull << 20)
#define LANE_LOG2 6
#define RINGS_BYTES (64u << 10) /* of one lane: rings, buffer table, identities */
#define PATIENCE_NS 10000000000ull
#define SLICE_NS 20000000ull
#define RETRY_NS 100000000ull
#define SETTLE_TRIES 200 /* of a millisecond: for other threads to leave a connection that broke */

struct lane {
	pthread_mutex_t lock;
	struct queue queue; /* .transport NULL: not open */
	uint8_t *data;      /* CARD_READS slots */
	struct speckv_block_identity *identities;
	uint16_t next;
	struct slot {
		uint16_t id, status;
		bool busy, done;
		uint64_t result;
	} slots[CARD_READS];
};

struct card_io {
	struct region *region;
	pthread_rwlock_t use; /* reading: the connection is used. Writing: it is made or ended */
	pthread_mutex_t opening;
	struct transport *transport;
	_Atomic bool broken;
	uint64_t tried_ns;
	int error; /* of the last try */
	uint16_t pool;
	uint32_t modes;
	uint64_t slot_bytes;
	unsigned int depth;
	_Atomic unsigned int turn;
	struct lane lanes[LANES];
};

static int open_io(struct region *r)
{
	struct card_io *io = calloc(1, sizeof(*io));

	if (!io)
		return -ENOMEM;
	io->region = r;
	pthread_rwlock_init(&io->use, NULL);
	pthread_mutex_init(&io->opening, NULL);
	for (unsigned int i = 0; i < LANES; i++)
		pthread_mutex_init(&io->lanes[i].lock, NULL);
	r->card = io;
	return 0;
}

/* Nobody uses it. */
static void disconnect(struct card_io *io)
{
	if (io->transport)
		io->transport->ops->close(io->transport);
	io->transport = NULL;
	for (unsigned int i = 0; i < LANES; i++) {
		struct lane *lane = &io->lanes[i];

		lane->queue.transport = NULL;
		memset(lane->slots, 0, sizeof(lane->slots));
	}
}

/* In a forked child another thread may have been anywhere in here: the guards have closed what is shared, and the rest is left alone. */
static void close_io(struct region *r, bool child)
{
	struct card_io *io = r->card;

	if (!io)
		return;
	if (!child) {
		disconnect(io);
		for (unsigned int i = 0; i < LANES; i++)
			pthread_mutex_destroy(&io->lanes[i].lock);
		pthread_mutex_destroy(&io->opening);
		pthread_rwlock_destroy(&io->use);
	}
	free(io);
	r->card = NULL;
}

const struct pool_backend card_backend = { .open = open_io, .close = close_io };

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

static int granted(struct card_io *io)
{
	struct region *r = io->region;
	struct speckv_ioc_pool call = { .size = sizeof(call), .flags = SPECKV_RIGHT_READ | (r->writable ? SPECKV_RIGHT_WRITE : 0) };
	struct speckv_ioc_info info = { .size = sizeof(info) };
	int rc;

	memcpy(call.uuid, r->fixed.uuid, sizeof(call.uuid));
	rc = io->transport->ops->driver(io->transport, SPECKV_IOC_INFO, &info, sizeof(info));
	if (!rc && memcmp(info.uuid, r->dev->uuid, sizeof(info.uuid)) != 0) /* another card of that name */
		rc = -ESTALE;
	if (!rc)
		rc = io->transport->ops->driver(io->transport, SPECKV_IOC_POOL_OPEN, &call, sizeof(call));
	if (rc)
		return rc;
	if (call.generation != r->fixed.generation || call.page_bytes != r->page_bytes)
		return -ESTALE;
	io->pool = (uint16_t)call.pool;
	io->modes = info.codec_modes & ~speckv_codec_calibrated_modes(); /* it cannot be given a calibration */
	return 0;
}

static int connect_card(struct card_io *io)
{
	struct region *r = io->region;
	uint64_t most = speckv_frame_max_bytes(&r->fixed.geometry, SPECKV_CODEC_RAW), other = speckv_frame_max_bytes(&r->fixed.geometry, r->fixed.codec);
	uint64_t depth;
	int rc;

	if (io->tried_ns && clock_ns() - io->tried_ns < RETRY_NS && io->error)
		return io->error;
	disconnect(io);
	store(&io->broken, false);
	io->slot_bytes = ((most > other ? most : other) + 4095) & ~4095ull;
	depth = ARENA_MOST / LANES / io->slot_bytes;
	io->depth = depth > CARD_READS ? CARD_READS : depth < 2 ? 2 : (unsigned int)depth;
	io->tried_ns = clock_ns();
	rc = card_dial(r->dev->ctx, r->dev->medium.name, "io", LANES * (io->depth * io->slot_bytes + RINGS_BYTES), &io->transport);
	if (rc) {
		io->transport = NULL;
		io->error = rc == -EACCES ? rc : -ENODEV;
		return io->error;
	}
	rc = card_stopped(r->dev->ctx, r->dev->medium.name, io->transport);
	if (rc) {
		disconnect(io);
		return io->error = -ENODEV;
	}
	rc = granted(io);
	if (rc == -EACCES)
		fail(r->dev->ctx, rc, "pool %s: the card gives this user no such right to it; 'speckvctl pool set %s %s --owner or --mode' changes that", r->fixed.name,
		     r->dev->medium.name, r->fixed.name);
	else if (rc)
		fail(r->dev->ctx, rc, "pool %s: %s has no such pool (any more); 'speckvctl pool list %s' shows what it has", r->fixed.name, r->dev->medium.name,
		     r->dev->medium.name);
	if (rc)
		disconnect(io);
	io->error = !rc || rc == -EACCES ? rc : -ENODEV;
	return io->error;
}

static int open_lane(struct card_io *io, struct lane *lane)
{
	struct transport *t = io->transport;
	unsigned int number = (unsigned int)(lane - io->lanes);
	int rc;

	if (lane->queue.transport)
		return 0;
	pthread_mutex_lock(&io->opening);
	rc = queue_open_io(&lane->queue, t, number, LANE_LOG2, 2);
	lane->identities = rc ? NULL : transport_take(t, CARD_READS * sizeof(*lane->identities), 4096);
	lane->data = rc ? NULL : transport_take(t, io->depth * io->slot_bytes, 4096);
	if (!rc && (!lane->identities || !lane->data))
		rc = -ENOMEM;
	if (!rc)
		rc = queue_register(&lane->queue, 0, lane->data, io->depth * io->slot_bytes, SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
	if (!rc)
		rc = queue_register(&lane->queue, 1, lane->identities, 4096, SPECKV_BUFFER_CARD_READS);
	if (rc)
		lane->queue.transport = NULL;
	pthread_mutex_unlock(&io->opening);
	return rc;
}

/* A connection that stands, held for reading. */
static int enter(struct card_io *io)
{
	for (unsigned int tries = 0;; tries++) {
		int rc = 0;

		pthread_rwlock_rdlock(&io->use);
		if (__builtin_expect(io->transport && !load(&io->broken), 1))
			return 0;
		pthread_rwlock_unlock(&io->use);
		if (tries == SETTLE_TRIES)
			return -ENODEV; /* somebody still waits in it, perhaps this thread */
		if (pthread_rwlock_trywrlock(&io->use) != 0) {
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			continue;
		}
		if (!io->transport || load(&io->broken))
			rc = connect_card(io);
		pthread_rwlock_unlock(&io->use);
		if (rc)
			return rc;
	}
}

static int lane_enter(struct card_io *io, bool nested, struct lane **out)
{
	unsigned int first;
	struct lane *lane = NULL;
	int rc = enter(io);

	if (rc)
		return rc;
	if (nested) {
		lane = &io->lanes[NESTED];
		pthread_mutex_lock(&lane->lock);
	} else {
		for (unsigned int i = 0; i < NESTED && !lane; i++)
			if (pthread_mutex_trylock(&io->lanes[i].lock) == 0)
				lane = &io->lanes[i];
		if (!lane) {
			first = add(&io->turn, 1) % NESTED;
			lane = &io->lanes[first];
			pthread_mutex_lock(&lane->lock);
		}
	}
	rc = load(&io->broken) ? -ENODEV : open_lane(io, lane);
	if (rc) {
		store(&io->broken, true);
		pthread_mutex_unlock(&lane->lock);
		pthread_rwlock_unlock(&io->use);
		return -ENODEV;
	}
	*out = lane;
	return 0;
}

static void lane_leave(struct card_io *io, struct lane *lane)
{
	pthread_mutex_unlock(&lane->lock);
	pthread_rwlock_unlock(&io->use);
}

/*
 * memcpy() of a whole block is one string instruction, and that is nine times slower on some processors where the destination stands a
 * little further into its page than the source does into its own: a slot starts at a page, what malloc() gives 16 bytes behind one.
 */
static void copy_block(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
	enum { LINE = 64 };
	uint64_t at = 0;

	for (; bytes - at >= LINE; at += LINE) {
		memcpy(to + at, from + at, LINE);
		__asm__ volatile("" ::: "memory"); /* or the compiler makes one memcpy() of it */
	}
	memcpy(to + at, from + at, bytes - at);
}

/* ---- commands -------------------------------------------------------------------------------------------------------- */

static int submit(struct lane *lane, unsigned int slot, void *entry)
{
	struct speckv_sqe *sqe = entry;
	struct slot *s = &lane->slots[slot];

	*s = (struct slot){ .id = (uint16_t)(lane->next++ % 2047u * CARD_READS + slot), .busy = true };
	sqe->command_id = s->id;
	queue_put(&lane->queue, sqe);
	return queue_ring(&lane->queue);
}

/* Called first where a wait was for nothing: is there time left for more of them? */
static bool patient(uint64_t *until)
{
	uint64_t now = clock_ns();

	*until = *until ? *until : now + PATIENCE_NS;
	return now < *until;
}

/* Wait for the answer to a slot's command. -ENODEV: there will be none. */
static int collect(struct card_io *io, struct lane *lane, unsigned int slot)
{
	uint64_t until = 0;

	while (!lane->slots[slot].done) {
		struct speckv_cqe done;
		struct slot *s;
		int rc = queue_wait(&lane->queue, &done, SLICE_NS);

		if (rc == -ETIMEDOUT) {
			rc = queue_check(&lane->queue);
			if (!rc && patient(&until) && !load(&io->broken))
				continue;
			rc = -ENODEV;
		}
		if (rc) {
			store(&io->broken, true);
			return -ENODEV;
		}
		s = &lane->slots[done.command_id % CARD_READS];
		if (done.command_id == SPECKV_EVENT_COMMAND_ID || !s->busy || s->done || s->id != done.command_id) {
			if (patient(&until))
				continue;
			store(&io->broken, true); /* there may be no end of them */
			return -ENODEV;
		}
		s->status = done.status;
		s->result = done.result;
		s->done = true;
	}
	lane->slots[slot].busy = false;
	switch (lane->slots[slot].status) {
	/* Neither of these says anything of the block: whoever takes them for a bad one drops what is sound. */
	case SPECKV_STATUS_DENIED: /* the rights of a function go with a reset of the card */
	case SPECKV_STATUS_ABORTED:
	case SPECKV_STATUS_NOT_READY:
	case SPECKV_STATUS_NO_POOL:
	case SPECKV_STATUS_NO_ENGINE:
	case SPECKV_STATUS_FENCED:
		store(&io->broken, true);
		return -ENODEV;
	case SPECKV_STATUS_DMA_ERROR:
	case SPECKV_STATUS_INTERNAL:
	case SPECKV_STATUS_TIMEOUT:
		return -ENODEV;
	default:
		return status_errno(lane->slots[slot].status);
	}
}

static int call(struct card_io *io, struct lane *lane, unsigned int slot, void *entry, uint64_t *result)
{
	int rc = submit(lane, slot, entry);

	if (rc) {
		store(&io->broken, true);
		return -ENODEV;
	}
	rc = collect(io, lane, slot);
	if (!rc && result)
		*result = lane->slots[slot].result;
	return rc;
}

/* `lost`: set when the card may have done it although the answer says otherwise. */
static int invalidate(struct region *r, uint64_t page, uint64_t pages, uint64_t generation, bool *lost)
{
	struct card_io *io = r->card;
	struct speckv_cmd_range range = { .opcode = SPECKV_IO_INVALIDATE, .address = page << r->page_shift, .bytes = pages << r->page_shift,
					  .generation = generation };
	struct lane *lane;
	int rc = -ENODEV;

	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		rc = lane_enter(io, true, &lane);
		if (rc)
			return rc;
		range.pool = io->pool;
		rc = call(io, lane, 0, &range, NULL);
		*lost |= rc == -ENODEV;
		lane_leave(io, lane);
	}
	return rc == -ENOENT ? 0 : rc; /* it has no such block: as it shall be */
}

int card_io_invalidate(struct region *r, const struct run *run)
{
	bool lost = false;
	int rc = r->card ? invalidate(r, run->page, run->pages, run->generation, &lost) : 0;

	return lost && (rc == -ENODEV || rc == -EACCES) ? -EINPROGRESS : rc;
}

int card_io_clear(struct region *r, uint64_t page, uint64_t pages)
{
	bool lost = false; /* asked again by whoever needs these pages */

	return r->card && pages ? invalidate(r, page, pages, 0, &lost) : 0;
}

int card_io_connect(struct region *r)
{
	int rc = enter(r->card);

	if (!rc)
		pthread_rwlock_unlock(&r->card->use);
	return rc;
}

/* One try. */
static int write_once(struct region *r, const struct run *run, unsigned int codec, const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
		      uint64_t *frame_bytes)
{
	struct card_io *io = r->card;
	struct speckv_cmd_write write = { .opcode = SPECKV_IO_WRITE, .address = run->page << r->page_shift, .bytes = (uint32_t)bytes,
					  .capacity = (uint32_t)((uint64_t)run->pages << r->page_shift), .identity_buffer = 1, .codec = (uint8_t)codec };
	struct lane *lane;
	int rc = lane_enter(io, false, &lane);

	if (rc)
		return rc;
	write.pool = io->pool;
	if (io->modes >> codec & 1) {
		copy_block(lane->data, raw, bytes);
	} else { /* the card lacks this mode: it keeps what the host encodes */
		rc = frame_encode(r, codec, identity, raw, bytes, lane->data, io->slot_bytes, frame_bytes);
		write.flags = SPECKV_WRITE_FRAME;
		write.bytes = (uint32_t)*frame_bytes;
	}
	memset(lane->identities, 0, sizeof(*lane->identities));
	memcpy(lane->identities->key, identity->key, sizeof(lane->identities->key));
	lane->identities->generation = identity->generation;
	lane->identities->first_position = identity->first_position;
	lane->identities->tenant = identity->tenant;
	if (!rc)
		rc = call(io, lane, 0, &write, frame_bytes);
	lane_leave(io, lane);
	return rc;
}

int card_io_write(struct region *r, const struct run *run, unsigned int codec, const struct speckv_frame_identity *identity, const void *raw, uint64_t bytes,
	       uint64_t *frame_bytes)
{
	int rc = -ENODEV;

	for (int tries = 0; tries < 3; tries++) {
		rc = write_once(r, run, codec, identity, raw, bytes, frame_bytes);
		if (rc == -EROFS || rc == -EBUSY) { /* left by a client that died, or by a try whose answer was lost */
			rc = card_io_clear(r, run->page, run->pages);
			if (!rc)
				continue;
		}
		if (rc != -ENODEV)
			break;
	}
	if (!rc && (!*frame_bytes || *frame_bytes > (uint64_t)run->pages << r->page_shift))
		rc = -EBADMSG; /* no card says that of a frame that it stored */
	return rc;
}

int card_io_copy(struct region *r, const struct speckv_key *key, const struct found *from, const struct run *to, uint64_t *frame_bytes)
{
	struct card_io *io = r->card;
	struct speckv_cmd_copy copy = { .opcode = SPECKV_IO_COPY, .address = from->page << r->page_shift, .destination_address = to->page << r->page_shift,
					.generation = from->generation, .destination_generation = to->generation,
					.capacity = (uint32_t)((uint64_t)to->pages << r->page_shift) };
	struct lane *lane;
	int rc = -ENODEV;

	memcpy(copy.key_prefix, key->bytes, sizeof(copy.key_prefix));
	for (int tries = 0; tries < 3; tries++) {
		rc = lane_enter(io, true, &lane);
		if (rc)
			break;
		copy.pool = copy.destination_pool = io->pool;
		rc = call(io, lane, 0, &copy, frame_bytes);
		lane_leave(io, lane);
		if (rc == -EROFS || rc == -EBUSY) {
			rc = card_io_clear(r, to->page, to->pages);
			if (!rc)
				continue;
		}
		if (rc != -ENODEV)
			break;
	}
	return rc;
}

/* ---- reads, several under way ----------------------------------------------------------------------------------------- */

unsigned int card_io_reads_begin(struct region *r, struct card_reads *reads)
{
	struct lane *lane;

	memset(reads, 0, sizeof(*reads));
	reads->region = r;
	reads->error = lane_enter(r->card, false, &lane);
	if (reads->error)
		return 0;
	reads->lane = lane;
	return reads->depth = r->card->depth;
}

void card_io_reads_end(struct card_reads *reads)
{
	struct lane *lane = reads->lane;

	if (!lane)
		return;
	for (unsigned int i = 0; i < CARD_READS; i++)
		if (lane->slots[i].busy)
			collect(reads->region->card, lane, i); /* its buffer is the next one's */
	lane_leave(reads->region->card, lane);
	reads->lane = NULL;
}

int card_io_read_begin(struct card_reads *reads, unsigned int slot, const struct speckv_key *key, const struct found *found, unsigned int layer_first,
		    unsigned int layer_count, bool ahead)
{
	struct region *r = reads->region;
	struct card_io *io = r->card;
	struct speckv_cmd_read read = { .opcode = ahead ? SPECKV_IO_PREFETCH : SPECKV_IO_READ, .pool = io->pool, .address = found->page << r->page_shift,
					.buffer_offset = slot * io->slot_bytes, .capacity = (uint32_t)io->slot_bytes, .generation = found->generation };

	if (!reads->lane || load(&io->broken))
		return -ENODEV;
	memcpy(read.key_prefix, key->bytes, sizeof(read.key_prefix));
	reads->frame[slot] = !(io->modes >> r->fixed.codec & 1);
	if (reads->frame[slot]) { /* what the card cannot decode, we can */
		read.opcode = SPECKV_IO_READ;
		read.flags = SPECKV_READ_FRAME;
	} else {
		read.layer_first = (uint16_t)layer_first;
		read.layer_count = (uint16_t)layer_count;
	}
	reads->found[slot] = *found;
	reads->first[slot] = (uint16_t)layer_first;
	reads->count[slot] = (uint16_t)layer_count;
	if (submit(reads->lane, slot, &read)) {
		store(&io->broken, true);
		return -ENODEV;
	}
	return 0;
}

int card_io_read_end(struct card_reads *reads, unsigned int slot, const struct speckv_key *key, void *raw, uint64_t bytes)
{
	struct region *r = reads->region;
	struct lane *lane = reads->lane;
	const uint8_t *data;
	uint64_t got;
	int rc;

	if (!lane || !lane->slots[slot].busy)
		return -ENODEV;
	rc = collect(r->card, lane, slot);
	if (rc)
		return rc;
	data = lane->data + slot * r->card->slot_bytes;
	got = lane->slots[slot].result;
	if (reads->frame[slot])
		return got > r->card->slot_bytes ? -EBADMSG :
						   frame_decode(r, key, &reads->found[slot], data, got, reads->first[slot], reads->count[slot], raw, bytes);
	if (got != bytes)
		return got ? -EBADMSG : -EBUSY; /* a prefetch that there was no bandwidth for */
	copy_block(raw, data, bytes);
	return 0;
}

bool card_io_read_under_way(const struct card_reads *reads, unsigned int slot, const struct found *found, unsigned int first, unsigned int layers)
{
	const struct lane *lane = reads->lane;

	return lane && lane->slots[slot].busy && reads->found[slot].page == found->page && reads->found[slot].generation == found->generation &&
	       reads->first[slot] == first && reads->count[slot] == layers;
}

int card_io_read(struct region *r, const struct speckv_key *key, const struct found *found, unsigned int first, unsigned int layers, bool ahead, void *raw,
	      uint64_t bytes)
{
	struct card_reads reads;
	int rc = -ENODEV;

	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		if (!card_io_reads_begin(r, &reads))
			return reads.error;
		rc = card_io_read_begin(&reads, 0, key, found, first, layers, ahead);
		if (!rc)
			rc = card_io_read_end(&reads, 0, key, raw, bytes);
		card_io_reads_end(&reads);
	}
	return rc;
}

int card_io_frame(struct region *r, const struct speckv_key *key, uint64_t page, uint64_t generation, void *frame, uint64_t room, uint64_t *bytes)
{
	struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ, .flags = SPECKV_READ_FRAME, .address = page << r->page_shift, .generation = generation };
	struct card_io *io = r->card;
	struct lane *lane;
	int rc = -ENODEV;

	memcpy(read.key_prefix, key->bytes, sizeof(read.key_prefix));
	for (int tries = 0; tries < 2 && rc == -ENODEV; tries++) {
		rc = lane_enter(io, false, &lane);
		if (rc)
			return rc;
		read.pool = io->pool;
		read.capacity = (uint32_t)io->slot_bytes;
		rc = call(io, lane, 0, &read, bytes);
		if (!rc && (*bytes > io->slot_bytes || *bytes > room))
			rc = -EBADMSG;
		if (!rc)
			memcpy(frame, lane->data, *bytes);
		lane_leave(io, lane);
	}
	return rc;
}

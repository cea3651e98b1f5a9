// SPDX-License-Identifier: MIT
/*
 * Connection to a card, for one pool of this process. Opened at first use and again after a
 * failure. Each lane is a queue pair with its own buffers, so that threads do not wait for each
 * other. The last lane is for commands issued while the thread holds another lane.
 */
#include <stdlib.h>

#include "card_connection.h"

#define NESTED (CARD_LANES - 1)
#define ARENA_MOST (64ull << 20)
#define LANE_LOG2 6
#define RINGS_BYTES (64u << 10) /* of one lane: rings, buffer table, identities */
#define PATIENCE_NS 10000000000ull
#define SLICE_NS 20000000ull
#define RETRY_NS 100000000ull
#define SETTLE_TRIES 200 /* of 1 ms: for other threads to leave a broken connection */

int card_io_open(struct region *r)
{
	struct card_io *io = calloc(1, sizeof(*io));

	if (!io)
		return -ENOMEM;
	io->region = r;
	pthread_rwlock_init(&io->use, NULL);
	pthread_mutex_init(&io->opening, NULL);
	for (unsigned int i = 0; i < CARD_LANES; i++)
		pthread_mutex_init(&io->lanes[i].lock, NULL);
	r->io = io;
	return 0;
}

/* The caller holds `use` for writing, or is the last user. */
static void disconnect(struct card_io *io)
{
	if (io->transport)
		io->transport->ops->close(io->transport);
	io->transport = NULL;
	for (unsigned int i = 0; i < CARD_LANES; i++) {
		struct lane *lane = &io->lanes[i];

		lane->queue.transport = NULL;
		memset(lane->slots, 0, sizeof(lane->slots));
	}
}

/*
 * In a forked child another thread may have held any lock at fork(): the guards have closed what is
 * shared, and the locks are left alone.
 */
void card_io_close(struct region *r, bool child)
{
	struct card_io *io = r->io;

	if (!io)
		return;
	if (!child) {
		disconnect(io);
		for (unsigned int i = 0; i < CARD_LANES; i++)
			pthread_mutex_destroy(&io->lanes[i].lock);
		pthread_mutex_destroy(&io->opening);
		pthread_rwlock_destroy(&io->use);
	}
	free(io);
	r->io = NULL;
}

/* ---- connecting ----------------------------------------------------------------------------- */

static int granted(struct card_io *io)
{
	struct region *r = io->region;
	struct speckv_ioc_pool call = { .size = sizeof(call),
		.flags = SPECKV_RIGHT_READ | (r->writable ? SPECKV_RIGHT_WRITE : 0) };
	struct speckv_ioc_info info = { .size = sizeof(info) };
	int rc;

	memcpy(call.uuid, r->fixed.uuid, sizeof(call.uuid));
	rc = io->transport->ops->driver(io->transport, SPECKV_IOC_INFO, &info, sizeof(info));
	/* another card of that name */
	if (!rc && memcmp(info.uuid, r->dev->uuid, sizeof(info.uuid)) != 0)
		rc = -ESTALE;
	if (!rc)
		rc = io->transport->ops->driver(io->transport, SPECKV_IOC_POOL_OPEN, &call,
			sizeof(call));
	if (rc)
		return rc;
	if (call.generation != r->fixed.generation || call.page_bytes != r->page_bytes)
		return -ESTALE;
	io->pool = (uint16_t)call.pool;
	/* a card cannot be given a calibration */
	io->modes = info.codec_modes & ~speckv_codec_calibrated_modes();
	return 0;
}

static int try_connect(struct card_io *io)
{
	struct region *r = io->region;
	uint64_t most = speckv_frame_max_bytes(&r->fixed.geometry, SPECKV_CODEC_RAW),
		 other = speckv_frame_max_bytes(&r->fixed.geometry, r->fixed.codec);
	uint64_t depth;
	int rc;

	disconnect(io);
	store_release(&io->broken, false);
	io->slot_bytes = ((most > other ? most : other) + 4095) & ~4095ull;
	depth = ARENA_MOST / CARD_LANES / io->slot_bytes;
	io->depth = depth > READS_MOST ? READS_MOST : depth < 2 ? 2 : (unsigned int)depth;
	rc = card_dial(r->dev->ctx, r->dev->medium.name, TRANSPORT_IO,
		CARD_LANES * (io->depth * io->slot_bytes + RINGS_BYTES), &io->transport);
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
		fail(r->dev->ctx, rc,
			"pool %s: the card grants this user no such access to it; 'speckvctl pool set %s %s --owner or --mode' changes that",
			r->fixed.name, r->dev->medium.name, r->fixed.name);
	else if (rc)
		fail(r->dev->ctx, rc,
			"pool %s: %s has no such pool (any more); 'speckvctl pool list %s' shows what it has",
			r->fixed.name, r->dev->medium.name, r->dev->medium.name);
	if (rc)
		disconnect(io);
	io->error = !rc || rc == -EACCES ? rc : -ENODEV;
	return io->error;
}

void card_io_begin(struct region *r)
{
	struct card_io *io = r->io;

	add_relaxed(&io->calls, 1);
}

/*
 * An error stands for RETRY_NS in the call that met it. A call that begins later, if only during
 * the try, tries anew: a reset, a start or a change of rights may have ended the cause.
 */
static int connect_card(struct card_io *io)
{
	uint64_t calls = load_acquire(&io->calls);
	int rc;

	if (io->error && io->tried_calls == calls && clock_ns() - io->tried_ns < RETRY_NS)
		return io->error;
	rc = try_connect(io);
	io->tried_calls = calls;
	io->tried_ns = clock_ns();
	return rc;
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
	lane->identities = rc ? NULL
			      : transport_take(t, READS_MOST * sizeof(*lane->identities), 4096);
	lane->data = rc ? NULL : transport_take(t, io->depth * io->slot_bytes, 4096);
	if (!rc && (!lane->identities || !lane->data))
		rc = -ENOMEM;
	if (!rc)
		rc = queue_register(&lane->queue, 0, lane->data, io->depth * io->slot_bytes,
			SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
	if (!rc)
		rc = queue_register(&lane->queue, 1, lane->identities, 4096,
			SPECKV_BUFFER_CARD_READS);
	if (rc)
		lane->queue.transport = NULL;
	pthread_mutex_unlock(&io->opening);
	return rc;
}

int card_io_enter(struct card_io *io)
{
	for (unsigned int tries = 0;; tries++) {
		int rc = 0;

		pthread_rwlock_rdlock(&io->use);
		if (__builtin_expect(io->transport && !load_acquire(&io->broken), 1))
			return 0;
		pthread_rwlock_unlock(&io->use);
		if (tries == SETTLE_TRIES)
			/* a thread, perhaps this one, still uses the broken connection */
			return -ENODEV;
		if (pthread_rwlock_trywrlock(&io->use) != 0) {
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
			continue;
		}
		if (!io->transport || load_acquire(&io->broken))
			rc = connect_card(io);
		pthread_rwlock_unlock(&io->use);
		if (rc)
			return rc;
	}
}

int lane_enter(struct card_io *io, bool nested, struct lane **out)
{
	unsigned int first;
	struct lane *lane = NULL;
	int rc = card_io_enter(io);

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
			first = add_relaxed(&io->turn, 1) % NESTED;
			lane = &io->lanes[first];
			pthread_mutex_lock(&lane->lock);
		}
	}
	rc = load_acquire(&io->broken) ? -ENODEV : open_lane(io, lane);
	if (rc) {
		store_release(&io->broken, true);
		pthread_mutex_unlock(&lane->lock);
		pthread_rwlock_unlock(&io->use);
		return -ENODEV;
	}
	*out = lane;
	return 0;
}

void lane_leave(struct card_io *io, struct lane *lane)
{
	pthread_mutex_unlock(&lane->lock);
	pthread_rwlock_unlock(&io->use);
}

/* ---- commands ------------------------------------------------------------------------------- */

int lane_submit(struct lane *lane, unsigned int slot, void *entry)
{
	struct speckv_sqe *sqe = entry;
	struct slot *s = &lane->slots[slot];

	*s = (struct slot){ .id = (uint16_t)(lane->next++ % 2047u * READS_MOST + slot),
		.busy = true };
	sqe->command_id = s->id;
	queue_put(&lane->queue, sqe);
	return queue_ring(&lane->queue);
}

/*
 * Called after each wait without result: the first call sets the deadline. False once it has
 * passed.
 */
static bool patient(uint64_t *until)
{
	uint64_t now = clock_ns();

	*until = *until ? *until : now + PATIENCE_NS;
	return now < *until;
}

int lane_collect(struct card_io *io, struct lane *lane, unsigned int slot)
{
	uint64_t until = 0;
	int rc;

	while (!lane->slots[slot].done) {
		struct speckv_cqe done;
		struct slot *s;

		rc = queue_wait(&lane->queue, &done, SLICE_NS);

		if (rc == -ETIMEDOUT) {
			rc = queue_check(&lane->queue);
			if (!rc && patient(&until) && !load_acquire(&io->broken))
				continue;
			rc = -ENODEV;
		}
		if (rc) {
			store_release(&io->broken, true);
			return -ENODEV;
		}
		s = &lane->slots[done.command_id % READS_MOST];
		if (done.command_id == SPECKV_EVENT_COMMAND_ID || !s->busy || s->done ||
			s->id != done.command_id) {
			if (patient(&until))
				continue;
			/* unmatched completions might never end */
			store_release(&io->broken, true);
			return -ENODEV;
		}
		s->status = done.status;
		s->result = done.result;
		s->done = true;
	}
	lane->slots[slot].busy = false;
	switch (lane->slots[slot].status) {
	/*
	 * The status says nothing of the block: reported as a bad one, a sound block would be
	 * dropped.
	 */
	case SPECKV_STATUS_DENIED: /* a reset of the card revokes a function's rights */
	case SPECKV_STATUS_ABORTED:
	case SPECKV_STATUS_NOT_READY:
	case SPECKV_STATUS_NO_POOL:
	case SPECKV_STATUS_NO_ENGINE:
	case SPECKV_STATUS_FENCED:
		store_release(&io->broken, true);
		return -ENODEV;
	case SPECKV_STATUS_DMA_ERROR:
	case SPECKV_STATUS_INTERNAL:
	case SPECKV_STATUS_TIMEOUT:
		return -ENODEV;
	default:
		rc = status_errno(lane->slots[slot].status);
		/* uncorrectable memory error, or a status unknown to this build */
		return rc == -EIO ? -EHWPOISON : rc;
	}
}

int lane_call(struct card_io *io, struct lane *lane, unsigned int slot, void *entry,
	uint64_t *result)
{
	int rc = lane_submit(lane, slot, entry);

	if (rc) {
		store_release(&io->broken, true);
		return -ENODEV;
	}
	rc = lane_collect(io, lane, slot);
	if (!rc && result)
		*result = lane->slots[slot].result;
	return rc;
}

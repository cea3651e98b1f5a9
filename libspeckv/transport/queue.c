// SPDX-License-Identifier: MIT
/*
 * Queue pairs: rings, doorbells, completions. The protocol is in kmod/include/uapi/linux/speckv.h.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <speckv_regs.h>
#include "transport.h"

/*
 * Polls of a completion ring before the first system call (clock, liveness of the peer): minimum
 * and maximum. Adaptive: a wait that ends while polling raises the number by 1/64, up to some
 * milliseconds, for which a hypervisor may deschedule the card; one that does not halves it, as
 * polling keeps the card from running where both share a core.
 */
#define SPINS_LEAST 2048u
#define SPINS_MOST 131072u

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

void *transport_take(struct transport *t, size_t bytes, size_t align)
{
	size_t at = (t->arena_taken + align - 1) & ~(align - 1);

	if (at > t->arena_bytes || bytes > t->arena_bytes - at)
		return NULL;
	t->arena_taken = at + bytes;
	return t->arena + at;
}

static int write64(struct transport *t, uint32_t offset, uint64_t value)
{
	int rc = t->ops->write32(t, offset, (uint32_t)value);

	return rc ? rc : t->ops->write32(t, offset + 4, (uint32_t)(value >> 32));
}

/*
 * The card stopped: for an I/O function it never becomes ready. An admin function can still query
 * the cause.
 */
static bool stopped(uint32_t status)
{
	return status & SPECKV_REGS__STATUS__FATAL_bm && !(status & SPECKV_REGS__STATUS__READY_bm);
}

/* Wait until a register's masked bits have a value. -EIO: the card stopped on a fatal error. */
static int wait_register(struct transport *t, uint32_t offset, uint32_t mask, uint32_t want,
	uint64_t timeout_ns)
{
	uint64_t until = now_ns() + timeout_ns;
	uint32_t value;
	int rc;

	do {
		rc = t->ops->read32(t, offset, &value);
		if (rc)
			return rc;
		if ((value & mask) == want)
			return 0;
		if (offset == offsetof(speckv_regs_t, STATUS) &&
			mask == SPECKV_REGS__STATUS__READY_bm && stopped(value))
			return -EIO;
		nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	} while (now_ns() < until);
	return -ETIMEDOUT;
}

static int take_rings(struct queue *q, unsigned int sq_log2)
{
	q->sq_mask = (1u << sq_log2) - 1;
	q->cq_mask = (2u << sq_log2) - 1;
	q->sq = transport_take(q->transport, sizeof(*q->sq) << sq_log2, 4096);
	q->cq = transport_take(q->transport, sizeof(*q->cq) << (sq_log2 + 1), 4096);
	return q->sq && q->cq ? 0 : -ENOMEM;
}

int queue_open_admin(struct queue *q, struct transport *t, unsigned int sq_log2)
{
	int rc;

	*q = (struct queue){ .transport = t, .number = QUEUE_ADMIN, .spins = SPINS_LEAST };
	rc = take_rings(q, sq_log2);
	if (!rc) /* reset: discard the state of an earlier user */
		rc = t->ops->write32(t, offsetof(speckv_regs_t, CONTROL),
			SPECKV_REGS__CONTROL__RESET_bm);
	if (!rc)
		rc = wait_register(t, offsetof(speckv_regs_t, STATUS),
			SPECKV_REGS__STATUS__RESETTING_bm, 0, 5000000000u);
	if (!rc)
		rc = write64(t, offsetof(speckv_regs_t, ADMIN_SQ_BASE),
			transport_address(t, q->sq));
	if (!rc)
		rc = write64(t, offsetof(speckv_regs_t, ADMIN_CQ_BASE),
			transport_address(t, q->cq));
	if (!rc)
		rc = t->ops->write32(t, offsetof(speckv_regs_t, ADMIN_SIZE),
			sq_log2 | (sq_log2 + 1) << 8);
	if (!rc)
		rc = t->ops->write32(t, offsetof(speckv_regs_t, CONTROL),
			SPECKV_REGS__CONTROL__ENABLE_bm);
	return rc ? rc
		  : wait_register(t, offsetof(speckv_regs_t, STATUS), SPECKV_REGS__STATUS__READY_bm,
			    SPECKV_REGS__STATUS__READY_bm, 5000000000u);
}

static uint32_t pair_register(unsigned int number, size_t offset)
{
	return (uint32_t)(offsetof(speckv_regs_t, QUEUES) +
		number * sizeof(speckv_regs__QUEUES__PAIRx__stride40_t) + offset);
}

#define PAIR(q, field) \
	pair_register((q)->number, offsetof(speckv_regs__QUEUES__PAIRx__stride40_t, field))

int queue_open_io(struct queue *q, struct transport *t, unsigned int number, unsigned int sq_log2,
	unsigned int buffers)
{
	uint32_t value;
	int rc;

	*q = (struct queue){
		.transport = t, .number = number, .buffer_count = buffers, .spins = SPINS_LEAST
	};
	rc = take_rings(q, sq_log2);
	q->buffers = transport_take(t, buffers * sizeof(*q->buffers), 64);
	if (!rc && !q->buffers)
		rc = -ENOMEM;
	if (!rc)
		rc = t->ops->read32(t, offsetof(speckv_regs_t, CONTROL), &value);
	if (!rc && !(value & SPECKV_REGS__CONTROL__ENABLE_bm))
		rc = t->ops->write32(t, offsetof(speckv_regs_t, CONTROL),
			SPECKV_REGS__CONTROL__ENABLE_bm);
	if (!rc)
		rc = wait_register(t, offsetof(speckv_regs_t, STATUS),
			SPECKV_REGS__STATUS__READY_bm, SPECKV_REGS__STATUS__READY_bm, 5000000000u);
	if (!rc)
		rc = write64(t, PAIR(q, SQ_BASE), transport_address(t, q->sq));
	if (!rc)
		rc = write64(t, PAIR(q, CQ_BASE), transport_address(t, q->cq));
	if (!rc)
		rc = write64(t, PAIR(q, BUFFER_TABLE), transport_address(t, q->buffers));
	if (!rc)
		rc = t->ops->write32(t, PAIR(q, BUFFER_COUNT), buffers);
	if (!rc)
		/* vector 0, polled */
		rc = t->ops->write32(t, PAIR(q, SIZE), sq_log2 | (sq_log2 + 1) << 8);
	if (!rc)
		rc = t->ops->write32(t, PAIR(q, CONTROL), 1);
	return rc ? rc : wait_register(t, PAIR(q, STATUS), 7, 1, 5000000000u);
}

int queue_register(struct queue *q, unsigned int index, void *pointer, uint64_t bytes,
	uint32_t flags)
{
	struct speckv_buffer_entry entry = {
		.address = transport_address(q->transport, pointer), .bytes = bytes, .flags = flags
	};
	int rc;

	if (index >= q->buffer_count)
		return -EINVAL;
	q->buffers[index] = entry;
	atomic_thread_fence(memory_order_seq_cst);
	rc = q->transport->ops->write32(q->transport, PAIR(q, BUFFER_INVALIDATE), 1u << 31 | index);
	return rc
		? rc
		: wait_register(q->transport, PAIR(q, BUFFER_INVALIDATE), 1u << 31, 0, 5000000000u);
}

int queue_check(struct queue *q)
{
	uint32_t status = 0, pair = 1;
	int rc = q->number == QUEUE_ADMIN
		? 0
		: q->transport->ops->read32(q->transport, PAIR(q, STATUS), &pair);

	if (!rc && (pair & 7) != 1)
		return -ECANCELED;
	rc = rc ? rc
		: q->transport->ops->read32(q->transport, offsetof(speckv_regs_t, STATUS), &status);
	return !rc && stopped(status) ? -EIO : rc;
}

void queue_close(struct queue *q)
{
	if (!q->transport || q->number == QUEUE_ADMIN)
		return;
	if (q->transport->ops->write32(q->transport, PAIR(q, CONTROL), 0) == 0)
		wait_register(q->transport, PAIR(q, STATUS), 7, 0, 1000000000u);
}

/* ---- traffic -------------------------------------------------------------------------------- */

void queue_put(struct queue *q, const void *entry)
{
	memcpy(&q->sq[q->sq_tail++ & q->sq_mask], entry, sizeof(*q->sq));
}

static struct speckv_doorbell_page *page_of(const struct queue *q)
{
	return q->number == QUEUE_ADMIN || !q->transport->doorbells
		? NULL
		: &q->transport->doorbells[q->number / SPECKV_DOORBELL_SLOTS];
}

/*
 * Ring a doorbell: in shared memory, with a kick only if the card sleeps, or by a register write.
 */
static int ring_doorbell(struct queue *q, bool completion, uint32_t value)
{
	struct speckv_doorbell_page *page = page_of(q);
	struct transport *t = q->transport;
	_Atomic uint32_t *bell;

	if (q->number == QUEUE_ADMIN)
		return t->ops->write32(t,
			completion ? offsetof(speckv_regs_t, ADMIN_CQ_HEAD)
				   : offsetof(speckv_regs_t, ADMIN_SQ_TAIL),
			value);
	if (!page) {
		uint32_t offset = (uint32_t)(offsetof(speckv_regs_t, DOORBELLS) +
			q->number / SPECKV_DOORBELL_SLOTS * 4096u +
			q->number % SPECKV_DOORBELL_SLOTS * sizeof(struct speckv_doorbell));

		return t->ops->write32(t, offset + (completion ? 4 : 0), value);
	}
	bell = (_Atomic uint32_t *)(completion
			? &page->slot[q->number % SPECKV_DOORBELL_SLOTS].cq_head
			: &page->slot[q->number % SPECKV_DOORBELL_SLOTS].sq_tail);
	atomic_store_explicit(bell, value, memory_order_release);
	if (completion)
		return 0; /* frees completion slots: a sleeping card needs none */
	atomic_thread_fence(memory_order_seq_cst);
	if (__builtin_expect(atomic_load_explicit((_Atomic uint32_t *)&page->need_wake,
				     memory_order_relaxed) == 0,
		    1))
		return 0;
	q->kicks++;
	return t->ops->post32(t, offsetof(speckv_regs_t, KICK), q->number / SPECKV_DOORBELL_SLOTS);
}

int queue_ring(struct queue *q)
{
	return ring_doorbell(q, false, q->sq_tail & q->sq_mask);
}

bool queue_reap(struct queue *q, struct speckv_cqe *out)
{
	struct speckv_cqe *slot = &q->cq[q->cq_head & q->cq_mask];
	/* the phase is 1 in the first round */
	uint16_t want = !((q->cq_head / (q->cq_mask + 1)) & 1);
	uint16_t phase =
		atomic_load_explicit((_Atomic uint16_t *)&slot->phase, memory_order_acquire);
	uint32_t consumed;

	if ((phase & 1) != want)
		return false;
	*out = *slot;
	q->cq_head++;
	/* advance at most to our tail: the card's sq_head is not trusted */
	consumed = ((uint32_t)out->sq_head - q->sq_head) & q->sq_mask;
	if (consumed <= q->sq_tail - q->sq_head)
		q->sq_head += consumed;
	if (q->cq_head - q->cq_rung > q->cq_mask / 4 || q->number == QUEUE_ADMIN) {
		q->cq_rung = q->cq_head;
		ring_doorbell(q, true, q->cq_head & q->cq_mask);
	}
	return true;
}

int queue_wait(struct queue *q, struct speckv_cqe *out, uint64_t timeout_ns)
{
	uint64_t start = 0, now;
	int rc;

	for (unsigned int spins = q->spins;; spins = SPINS_LEAST) {
		for (unsigned int i = 0; i < spins; i++) {
			if (queue_reap(q, out)) {
				if (!start && q->spins < SPINS_MOST)
					q->spins += q->spins / 64;
				return 0;
			}
			cpu_relax();
		}
		rc = q->transport->ops->alive(q->transport);
		if (rc)
			return queue_reap(q, out) ? 0 : rc;
		now = now_ns();
		if (!start) {
			start = now;
			if (q->spins > SPINS_LEAST)
				q->spins /= 2;
		}
		if (now - start > timeout_ns)
			return -ETIMEDOUT;
		q->transport->system_calls += 2; /* alive() and now_ns() */
		sched_yield(); /* the card may be a process on this core */
		if (now - start > 2000000) { /* after 2 ms, sleep between polls */
			q->transport->system_calls++;
			nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
		}
	}
}

int queue_call(struct queue *q, const void *entry, uint64_t timeout_ns, uint64_t *result,
	uint16_t *status)
{
	uint64_t start = now_ns(), spent = 0;
	struct speckv_cqe done;
	struct speckv_sqe sqe;
	int rc;

	memcpy(&sqe, entry, sizeof(sqe));
	sqe.command_id = (uint16_t)(q->sq_tail & 0x7fff);
	queue_put(q, &sqe);
	for (rc = queue_ring(q); !rc; spent = now_ns() - start) {
		rc = spent > timeout_ns ? -ETIMEDOUT : queue_wait(q, &done, timeout_ns - spent);
		/* skip events, and completions of abandoned commands */
		if (!rc && done.command_id == sqe.command_id)
			break;
	}
	if (rc)
		return rc;
	if (result)
		*result = done.result;
	if (status)
		*status = done.status;
	return status_errno(done.status);
}

/* ---- status codes, with their errno in the uapi header -------------------------------------- */

static const struct {
	uint16_t status;
	int error;
	const char *text;
} table[] = {
	{ SPECKV_STATUS_INVALID_OPCODE, EOPNOTSUPP, "the card does not support this command" },
	{ SPECKV_STATUS_INVALID, EINVAL, "invalid field" },
	{ SPECKV_STATUS_COMMAND_ID_IN_USE, EEXIST, "command id in use" },
	{ SPECKV_STATUS_ABORTED, ECANCELED, "the command was aborted by a reset" },
	{ SPECKV_STATUS_INTERNAL, EIO, "internal error of the card" },
	{ SPECKV_STATUS_BUSY, EBUSY, "busy" },
	{ SPECKV_STATUS_DENIED, EACCES, "no grant, or access not granted" },
	{ SPECKV_STATUS_NOT_READY, EAGAIN, "the card is not ready" },
	{ SPECKV_STATUS_TIMEOUT, ETIMEDOUT, "timeout in the card" },
	{ SPECKV_STATUS_NO_ENGINE, EOPNOTSUPP,
		"the card has its factory image and no engine: flash it" },
	{ SPECKV_STATUS_BAD_BUFFER, EFAULT, "buffer index, bounds or direction" },
	{ SPECKV_STATUS_DMA_ERROR, EFAULT, "the bus refused the transfer" },
	{ SPECKV_STATUS_TRANSLATION_FAULT, ERANGE, "address beyond the pool, or not mapped" },
	{ SPECKV_STATUS_NO_ROOM, ENOSPC, "the frame is longer than its page run" },
	{ SPECKV_STATUS_NOT_FOUND, ENOENT, "no frame of this identity there" },
	{ SPECKV_STATUS_CORRUPT, EBADMSG, "a checksum did not verify" },
	{ SPECKV_STATUS_NONFINITE, ENODATA, "the codec cannot hold these values" },
	{ SPECKV_STATUS_NO_CODEC, EOPNOTSUPP, "the card lacks this codec mode" },
	{ SPECKV_STATUS_CONFLICT, EBUSY, "another agent holds it exclusively" },
	{ SPECKV_STATUS_SEALED, EROFS, "the block is sealed" },
	{ SPECKV_STATUS_POISONED, EIO, "uncorrectable memory error" },
	{ SPECKV_STATUS_FENCED, EOWNERDEAD, "this queue pair was fenced" },
	{ SPECKV_STATUS_QUOTA, EDQUOT, "quota" },
	{ SPECKV_STATUS_NO_MODEL, ENODATA, "no prefetcher is loaded" },
	{ SPECKV_STATUS_NO_POOL, ENOENT, "no such pool" },
	{ SPECKV_STATUS_POOL_EXISTS, EEXIST, "the pool exists" },
	{ SPECKV_STATUS_NO_MEMORY, ENOSPC, "not enough device memory" },
	{ SPECKV_STATUS_NO_SLOT, EUSERS, "pools, grants or queue pairs are used up" },
	{ SPECKV_STATUS_UNCHANGED, EALREADY, "nothing to do" },
	{ SPECKV_STATUS_NO_LOG, EINVAL, "no such log" },
	{ SPECKV_STATUS_NO_FEATURE, EINVAL, "no such feature" },
	{ SPECKV_STATUS_BAD_MODEL, EILSEQ, "model of another shape, digest or format" },
	{ SPECKV_STATUS_TEST_FAILED, EIO, "a self-test failed" },
	{ SPECKV_STATUS_FW_OFFSET, EINVAL, "pieces out of order" },
	{ SPECKV_STATUS_FW_PART, EINVAL, "the bundle is for another card" },
	{ SPECKV_STATUS_FW_DIGEST, EBADMSG, "the bitstream does not match its digest" },
	{ SPECKV_STATUS_FW_SIGNATURE, EBADMSG, "the signature does not verify" },
	{ SPECKV_STATUS_FW_KEY, EPERM, "signed by a key that the card does not trust" },
	{ SPECKV_STATUS_FW_DOWNGRADE, EPERM, "security version below the card's" },
	{ SPECKV_STATUS_FW_SLOT, EBUSY, "the slot is running, or holds no committed image" },
	{ SPECKV_STATUS_FW_FLASH, EIO, "flash erase or write failed" },
};

int status_errno(uint16_t status)
{
	if (status == SPECKV_STATUS_OK)
		return 0;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return -table[i].error;
	return -EIO; /* from a newer card */
}

const char *status_text(uint16_t status)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].status == status)
			return table[i].text;
	return status == SPECKV_STATUS_OK ? "done" : "unknown error";
}

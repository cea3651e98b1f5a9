// SPDX-License-Identifier: MIT
/*
 * Asynchronous batches: threads over one queue of operations from a fixed table, and one bounded
 * queue of prefetches. Idle threads wait on a condition, signalled only when one waits.
 */
#include <stdlib.h>

#include "pool.h"

#define PREFETCH_QUEUE 4096
#define DEFAULT_WORKERS 2
#define MOST_WORKERS 64

struct speckv_op {
	struct workers *workers;
	struct speckv_op *next;
	unsigned int opcode;
	struct speckv_request *requests;
	size_t count;
	int result;
	_Atomic bool complete;
	bool taken;
};

struct workers {
	struct speckv_pool *pool;
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	struct speckv_op ops[SPECKV_OPS_MAX];
	struct speckv_op *free, *head, *tail;
	struct speckv_key prefetch[PREFETCH_QUEUE]; /* ring: first, queued */
	uint32_t prefetch_first, prefetch_queued;
	unsigned int threads, asleep, waiting;
	bool stop;
	pthread_t thread[MOST_WORKERS];
};

static void complete(struct workers *w, struct speckv_op *op, int result)
{
	op->result = result;
	store_release(&op->complete, true);
	if (w->waiting)
		pthread_cond_broadcast(&w->done);
}

static void *worker_main(void *arg)
{
	struct workers *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		struct speckv_op *op = w->head;

		if (op) {
			int result;

			w->head = op->next;
			pthread_mutex_unlock(&w->lock);
			result = batch_run(w->pool, op->opcode, op->requests, op->count);
			pthread_mutex_lock(&w->lock);
			complete(w, op, result);
		} else if (w->stop) {
			break;
		} else if (w->prefetch_queued) {
			struct speckv_key key = w->prefetch[w->prefetch_first];

			w->prefetch_first = (w->prefetch_first + 1) % PREFETCH_QUEUE;
			w->prefetch_queued--;
			pthread_mutex_unlock(&w->lock);
			staging_fill(w->pool, &key);
			pthread_mutex_lock(&w->lock);
		} else {
			w->asleep++;
			pthread_cond_wait(&w->work, &w->lock);
			w->asleep--;
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static struct workers *workers_get(struct speckv_pool *pool)
{
	struct workers *w = load_acquire(&pool->workers);
	unsigned int others = load_acquire(&pool->threads) - 1,
		     n = pool->attach.workers ? pool->attach.workers
		: others > DEFAULT_WORKERS    ? others
					      : DEFAULT_WORKERS;
	pthread_condattr_t monotonic;

	if (w)
		return w;
	pthread_mutex_lock(&pool->lock);
	w = load_acquire(&pool->workers);
	if (!w && (w = calloc(1, sizeof(*w)))) {
		w->pool = pool;
		pthread_mutex_init(&w->lock, NULL);
		pthread_condattr_init(&monotonic);
		pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
		pthread_cond_init(&w->work, NULL);
		pthread_cond_init(&w->done, &monotonic);
		pthread_condattr_destroy(&monotonic);
		for (int i = SPECKV_OPS_MAX; i-- > 0;) {
			w->ops[i].workers = w;
			w->ops[i].next = w->free;
			w->free = &w->ops[i];
		}
		n = n < MOST_WORKERS ? n : MOST_WORKERS;
		while (w->threads < n &&
			pthread_create(&w->thread[w->threads], NULL, worker_main, w) == 0)
			w->threads++;
		if (!w->threads) {
			pthread_cond_destroy(&w->work);
			pthread_cond_destroy(&w->done);
			pthread_mutex_destroy(&w->lock);
			free(w);
			w = NULL;
		}
		store_release(&pool->workers, w);
	}
	pthread_mutex_unlock(&pool->lock);
	return w;
}

void workers_destroy(struct speckv_pool *pool)
{
	struct workers *w = load_acquire(&pool->workers);

	if (!w)
		return;
	if (fork_guard_stale(&pool->region.guard)) {
		/* its threads exist in the parent only, and one may have held the lock at fork() */
		free(w);
		return;
	}
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	w->prefetch_queued = 0;
	pthread_cond_broadcast(&w->work);
	pthread_mutex_unlock(&w->lock);
	for (unsigned int i = 0; i < w->threads; i++)
		pthread_join(w->thread[i], NULL);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->done);
	store_release(&pool->workers, NULL);
	free(w);
}

bool workers_prefetch(struct speckv_pool *pool, const struct speckv_key *key)
{
	struct workers *w = workers_get(pool);
	bool room;

	if (!w)
		return false;
	pthread_mutex_lock(&w->lock);
	room = w->prefetch_queued < PREFETCH_QUEUE && !w->stop;
	if (room) {
		/* counted before it can be staged and used: ratios to it never exceed one */
		count(pool, SPECKV_COUNT_PREFETCHES, 1);
		w->prefetch[(w->prefetch_first + w->prefetch_queued++) % PREFETCH_QUEUE] = *key;
		if (w->asleep)
			pthread_cond_signal(&w->work);
	}
	pthread_mutex_unlock(&w->lock);
	return room;
}

int speckv_prefetch(struct speckv_pool *pool, const struct speckv_key *keys, size_t n)
{
	int rc, accepted = 0;

	if (!pool || (n && !keys) || n > INT32_MAX)
		return -EINVAL;
	rc = pool_usable(pool, true);
	if (!rc)
		rc = pool_there(pool);
	if (rc)
		return rc;
	for (size_t i = 0; i < n && workers_prefetch(pool, &keys[i]); i++)
		accepted++;
	return accepted;
}

int speckv_submit(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n, struct speckv_op **out)
{
	struct speckv_op *op;
	struct workers *w;
	int rc;

	if (!pool || !out)
		return -EINVAL;
	*out = NULL;
	if ((n && !requests) || n > INT32_MAX || opcode < SPECKV_OP_PUT ||
		opcode > SPECKV_OP_LOOKUP)
		return fail(pool->ctx, -EINVAL, "submit: invalid operation %u or request count %zu",
			opcode, n);
	rc = pool_usable(pool, opcode != SPECKV_OP_GET && opcode != SPECKV_OP_LOOKUP);
	if (rc)
		return rc;
	w = workers_get(pool);
	if (!w)
		return fail(pool->ctx, -ENOMEM, "no worker thread could be started");
	pthread_mutex_lock(&w->lock);
	op = w->free;
	if (!op) {
		pthread_mutex_unlock(&w->lock);
		return fail(pool->ctx, -EAGAIN,
			"%d batches are in flight, the maximum; wait for one", SPECKV_OPS_MAX);
	}
	w->free = op->next;
	op->next = NULL;
	op->opcode = opcode;
	op->requests = requests;
	op->count = n;
	op->taken = true;
	store_release(&op->complete, false);
	if (w->head)
		w->tail->next = op;
	else
		w->head = op;
	w->tail = op;
	if (w->asleep)
		pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->lock);
	*out = op;
	return 0;
}

int workers_share(struct speckv_pool *pool, unsigned int opcode, struct speckv_request *requests,
	size_t n, unsigned int threads)
{
	struct workers *w = workers_get(pool);
	unsigned int parts = !w ? 1 : threads > w->threads + 1 ? w->threads + 1 : threads;
	struct speckv_op *ops[MOST_WORKERS];
	size_t begin[MOST_WORKERS + 1];
	int done, got;

	parts = parts > n ? (unsigned int)n : parts > MOST_WORKERS ? MOST_WORKERS : parts;
	if (parts < 2)
		return batch_run(pool, opcode, requests, n);
	for (unsigned int i = 0; i <= parts; i++)
		begin[i] = n / parts * i + (i < n % parts ? i : n % parts);
	for (unsigned int i = 1; i < parts; i++)
		if (speckv_submit(pool, opcode, requests + begin[i], begin[i + 1] - begin[i],
			    &ops[i]) != 0)
			ops[i] = NULL;
	done = batch_run(pool, opcode, requests, begin[1]);
	for (unsigned int i = 1; i < parts; i++) {
		got = ops[i]
			? speckv_op_wait(ops[i], -1)
			: batch_run(pool, opcode, requests + begin[i], begin[i + 1] - begin[i]);
		speckv_op_release(ops[i]);
		done += got > 0 ? got : 0;
	}
	/*
	 * link the first block of each part: its parent may have been put later, by another thread
	 */
	for (unsigned int i = 1; i < parts && opcode == SPECKV_OP_PUT; i++)
		if (requests[begin[i]].status == 0 &&
			!(requests[begin[i]].flags & SPECKV_REQUEST_EXISTED))
			block_adopt(pool, &requests[begin[i]]);
	return done;
}

/*
 * Not in a forked child: another thread may have held the lock at fork(), and an incomplete
 * operation never completes.
 */
static bool usable(const struct speckv_op *op)
{
	struct speckv_pool *pool = op->workers->pool;

	return !fork_guard_stale(&pool->region.guard) ||
		fail(pool->ctx, 0,
			"the operation was started before fork(): start it again in the child");
}

int speckv_op_poll(struct speckv_op *op)
{
	if (!op)
		return 0;
	return usable(op) ? load_acquire(&op->complete) : -EOWNERDEAD;
}

int speckv_op_wait(struct speckv_op *op, int64_t timeout_ns)
{
	struct workers *w;
	struct timespec until;
	int rc = 0;

	if (!op)
		return -EINVAL;
	if (!usable(op))
		return -EOWNERDEAD;
	if (load_acquire(&op->complete))
		return op->result;
	w = op->workers;
	clock_gettime(CLOCK_MONOTONIC, &until);
	if (timeout_ns > 0) {
		uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)timeout_ns % 1000000000u;

		until.tv_sec += timeout_ns / 1000000000 + (int64_t)(ns / 1000000000u);
		until.tv_nsec = (long)(ns % 1000000000u);
	}
	pthread_mutex_lock(&w->lock);
	w->waiting++;
	while (!load_acquire(&op->complete) && !rc)
		rc = timeout_ns < 0 ? pthread_cond_wait(&w->done, &w->lock)
				    : pthread_cond_timedwait(&w->done, &w->lock, &until);
	w->waiting--;
	pthread_mutex_unlock(&w->lock);
	return load_acquire(&op->complete) ? op->result : -ETIMEDOUT;
}

void speckv_op_release(struct speckv_op *op)
{
	struct workers *w;

	if (!op || speckv_op_wait(op, -1) == -EOWNERDEAD)
		return;
	w = op->workers;
	pthread_mutex_lock(&w->lock);
	if (op->taken) {
		op->taken = false;
		op->next = w->free;
		w->free = op;
	}
	pthread_mutex_unlock(&w->lock);
}

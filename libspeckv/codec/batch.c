// SPDX-License-Identifier: MIT
/*
 * Encode or decode many frames with several threads. Frames differ in cost, so each thread takes
 * the next one when it is idle.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "frame.h"

#define THREADS_MAX 64

struct shared {
	const struct speckv_frame_batch *batch;
	struct speckv_frame_job *jobs;
	uint64_t count;
	void (*run)(const struct speckv_frame_batch *batch, struct speckv_frame_job *job,
		bool streamed);
	bool streamed;
	_Atomic uint64_t next, failed;
};

static void encode_one(const struct speckv_frame_batch *batch, struct speckv_frame_job *job,
	bool streamed)
{
	(void)streamed;
	job->status = batch->calibration
		? speckv_frame_encode_calibrated(&batch->geometry, batch->codec, batch->calibration,
			  batch->layer_first, batch->head_first, &job->identity, job->raw,
			  job->raw_bytes, job->frame, job->frame_capacity, &job->frame_bytes)
		: speckv_frame_encode(&batch->geometry, batch->codec, &job->identity, job->raw,
			  job->raw_bytes, job->frame, job->frame_capacity, &job->frame_bytes);
}

/* The frame names its own mode; its shape must be the batch's. */
static int decode_frame(const struct speckv_frame_batch *batch, struct speckv_frame_job *job,
	bool streamed)
{
	static const uint8_t none[SPECKV_CALIBRATION_DIGEST_BYTES];
	struct speckv_frame parsed;
	int rc = speckv_frame_parse(job->frame, job->frame_capacity, &parsed);

	if (rc)
		return rc;
	if (memcmp(&parsed.geometry, &batch->geometry, sizeof(parsed.geometry)) != 0)
		return -EINVAL;
	job->identity = parsed.identity;
	job->frame_bytes = parsed.frame_bytes;
	/* Blocks that the mode could not represent were stored raw, without a calibration. */
	if (batch->calibration && memcmp(parsed.calibration, none, sizeof(none)) != 0)
		return speckv_frame_decode_calibrated(&parsed, batch->calibration, job->frame,
			job->frame_capacity, 0, parsed.geometry.layers, job->raw, job->raw_bytes);
	return codec_frame_decode(&parsed, job->frame, job->frame_capacity, 0,
		parsed.geometry.layers, job->raw, job->raw_bytes, streamed);
}

static void decode_one(const struct speckv_frame_batch *batch, struct speckv_frame_job *job,
	bool streamed)
{
	job->status = job->raw && job->frame ? decode_frame(batch, job, streamed) : -EINVAL;
	/* Errors before decoding do not write to `raw`. */
	if (job->status && job->raw)
		memset(job->raw, 0, job->raw_bytes);
}

static void *thread_main(void *argument)
{
	struct shared *shared = argument;

	for (;;) {
		uint64_t i = atomic_fetch_add_explicit(&shared->next, 1, memory_order_relaxed);

		if (i >= shared->count)
			return NULL;
		shared->run(shared->batch, &shared->jobs[i], shared->streamed);
		if (shared->jobs[i].status)
			atomic_fetch_add_explicit(&shared->failed, 1, memory_order_relaxed);
	}
}

/* Number of CPUs in this process's affinity mask. */
static unsigned int processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned int)CPU_COUNT(&set);
}

static int64_t run_jobs(struct shared *shared)
{
	unsigned int threads = shared->batch->threads ? shared->batch->threads : processors(),
		     started = 0;
	pthread_t thread[THREADS_MAX];

	threads = threads < THREADS_MAX ? threads : THREADS_MAX;
	/* The caller is one of the threads; a failed pthread_create() only means fewer. */
	while (started + 1 < threads && started + 1 < shared->count &&
		!pthread_create(&thread[started], NULL, thread_main, shared))
		started++;
	thread_main(shared);
	while (started)
		pthread_join(thread[--started], NULL);
	return (int64_t)shared->failed;
}

static bool batch_valid(const struct speckv_frame_batch *batch, const struct speckv_frame_job *jobs,
	uint64_t count)
{
	return batch && (jobs || !count) && speckv_geometry_bytes(&batch->geometry) &&
		!batch->reserved;
}

int64_t speckv_frame_encode_batch(const struct speckv_frame_batch *batch,
	struct speckv_frame_job *jobs, uint64_t count)
{
	struct shared shared = { .batch = batch, .jobs = jobs, .count = count, .run = encode_one };

	return batch_valid(batch, jobs, count) ? run_jobs(&shared) : -EINVAL;
}

int64_t speckv_frame_decode_batch(const struct speckv_frame_batch *batch,
	struct speckv_frame_job *jobs, uint64_t count)
{
	struct shared shared = { .batch = batch, .jobs = jobs, .count = count, .run = decode_one };

	if (!batch_valid(batch, jobs, count))
		return -EINVAL;
	shared.streamed = count * speckv_geometry_bytes(&batch->geometry) >= CODEC_STREAMED_BYTES;
	return run_jobs(&shared);
}

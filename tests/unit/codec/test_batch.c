// SPDX-License-Identifier: MIT
/*
 * Batches: whatever the number of threads, each job gives what a single call gives; one that fails
 * leaves the others alone.
 */
#include "harness.h"

enum { JOBS = 23 };

struct work {
	struct speckv_frame_batch batch;
	struct speckv_frame_job jobs[JOBS];
	uint8_t *expected[JOBS], *frames[JOBS];
	uint64_t bytes, most, lengths[JOBS];
};

static void prepare(struct work *w, uint64_t *seed, unsigned int codec)
{
	memset(w, 0, sizeof(*w));
	w->batch.geometry = (struct speckv_geometry){ 2, 1, 64, 64, SPECKV_DTYPE_BF16, { 0 } };
	w->batch.codec = codec;
	w->bytes = speckv_geometry_bytes(&w->batch.geometry);
	w->most = speckv_frame_max_bytes(&w->batch.geometry, codec);
	for (int i = 0; i < JOBS; i++) {
		struct speckv_frame_job *job = &w->jobs[i];
		struct speckv_frame parsed;

		job->identity = random_identity(seed);
		job->raw = line_alloc(w->bytes);
		job->raw_bytes = w->bytes;
		job->frame = line_alloc(w->most);
		job->frame_capacity = w->most;
		w->frames[i] = line_alloc(w->most);
		w->expected[i] = line_alloc(w->bytes);
		random_values(seed, &w->batch.geometry, STYLE_SMOOTH, job->raw, w->bytes / 2);
		CHECK(!speckv_frame_encode(&w->batch.geometry, codec, &job->identity, job->raw,
			      w->bytes, w->frames[i], w->most, &w->lengths[i]),
			"encode");
		CHECK(!speckv_frame_parse(w->frames[i], w->most, &parsed) &&
				!speckv_frame_decode(&parsed, w->frames[i], w->most, 0, 2,
					w->expected[i], w->bytes),
			"decode");
	}
}

static void release(struct work *w)
{
	for (int i = 0; i < JOBS; i++) {
		free(w->jobs[i].raw);
		free(w->jobs[i].frame);
		free(w->frames[i]);
		free(w->expected[i]);
	}
}

static void batches(unsigned int codec)
{
	uint64_t seed = 8 + codec;
	struct work w;

	prepare(&w, &seed, codec);
	for (unsigned int threads = 0; threads < 6; threads++) {
		struct speckv_frame_identity other = { .generation = 5 };

		w.batch.threads = threads;
		for (int i = 0; i < JOBS; i++)
			memset(w.jobs[i].frame, 0xee, w.most);
		CHECK(speckv_frame_encode_batch(&w.batch, w.jobs, JOBS) == 0, "encode, %u threads",
			threads);
		for (int i = 0; i < JOBS; i++) {
			CHECK(!w.jobs[i].status && w.jobs[i].frame_bytes == w.lengths[i] &&
					!memcmp(w.jobs[i].frame, w.frames[i], w.lengths[i]),
				"%s: job %d, %u threads", speckv_codec_name(codec), i, threads);
			w.jobs[i].identity = other;
			w.jobs[i].frame_bytes = 0;
			memset(w.jobs[i].raw, 0xee, w.bytes);
		}
		((uint8_t *)w.jobs[3].frame)[200] ^= 1; /* damage one, */
		w.jobs[7].raw_bytes -= 1; /* give another too little room */
		CHECK(speckv_frame_decode_batch(&w.batch, w.jobs, JOBS) == 2, "decode, %u threads",
			threads);
		for (int i = 0; i < JOBS; i++) {
			int error = i == 3 ? -EBADMSG : i == 7 ? -ENOSPC : 0;

			CHECK(w.jobs[i].status == error, "job %d: %d", i, w.jobs[i].status);
			for (uint64_t k = 0; error && k < w.jobs[i].raw_bytes; k++)
				CHECK(!((uint8_t *)w.jobs[i].raw)[k], "zeroed");
			CHECK(error ||
					(w.jobs[i].identity.generation != 5 &&
						w.jobs[i].frame_bytes == w.lengths[i] &&
						!memcmp(w.jobs[i].raw, w.expected[i], w.bytes)),
				"%s: job %d, %u threads", speckv_codec_name(codec), i, threads);
		}
		w.jobs[7].raw_bytes += 1;
		/* Inputs once more: lossy modes gave others. */
		seed = 8 + codec;
		for (int i = 0; i < JOBS; i++) {
			w.jobs[i].identity = random_identity(&seed);
			random_values(&seed, &w.batch.geometry, STYLE_SMOOTH, w.jobs[i].raw,
				w.bytes / 2);
		}
	}
	w.batch.geometry.tokens = 128;
	CHECK(speckv_frame_decode_batch(&w.batch, w.jobs, 1) == 1 && w.jobs[0].status == -EINVAL,
		"a frame of another shape");
	w.batch.geometry.tokens = 65;
	CHECK(speckv_frame_decode_batch(&w.batch, w.jobs, 1) == -EINVAL &&
			speckv_frame_encode_batch(&w.batch, w.jobs, 1) == -EINVAL,
		"no shape");
	w.batch.geometry.tokens = 64;
	CHECK(speckv_frame_encode_batch(NULL, w.jobs, 1) == -EINVAL &&
			speckv_frame_encode_batch(&w.batch, NULL, 1) == -EINVAL,
		"NULL");
	CHECK(speckv_frame_encode_batch(&w.batch, NULL, 0) == 0 &&
			speckv_frame_decode_batch(&w.batch, NULL, 0) == 0,
		"nothing to do");
	w.batch.reserved = 1;
	CHECK(speckv_frame_encode_batch(&w.batch, w.jobs, 1) == -EINVAL, "reserved");
	release(&w);
}

int main(void)
{
	batches(SPECKV_CODEC_RAW);
	batches(SPECKV_CODEC_Q4X);
	batches(SPECKV_CODEC_LOSSLESS);
	return 0;
}

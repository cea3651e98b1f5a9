// SPDX-License-Identifier: MIT
/*
 * How fast checksummed copies, frame encodes and decodes are beside memcpy, in the same run, on one
 * core: memory to memory, random block order.
 *
 * Usage: codec_copy [--mib 256, of working set] [--block-kib 64] [--rounds 7] Prints one line a
 * peer: median GB/s and the share of memcpy's. Source and destination are working sets of that size
 * each; rounds interleave the peers, so that drift of the machine hits all of them alike. Seconds
 * are the thread's own: what else the machine runs takes its share of the memory, but not of the
 * time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#ifdef HAVE_ISAL
#include <isa-l/crc.h>
#endif

#include <speckv/codec.h>

#include "../vectors/calibration_e7c.h"
#include "bench.h"

struct work {
	uint8_t *source, *destination;
	size_t block, blocks;
	uint32_t *from, *to; /* random orders */
	uint8_t *frames; /* the source blocks as raw frames */
	uint8_t *small; /* and as q4x frames */
	uint8_t *exact; /* and as lossless frames */
	uint8_t *learned; /* and as e7c frames */
	struct speckv_calibration *calibration;
	size_t frame_stride, small_stride, learned_stride;
	struct speckv_frame_job *jobs;
	struct speckv_geometry shape;
	struct speckv_frame_identity identity;
};

static volatile uint32_t sink;

static void run_memcpy(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		memcpy(w->destination + w->to[i] * w->block, w->source + w->from[i] * w->block,
			w->block);
}

static void run_memcpy_reused(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		memcpy(w->destination, w->source + w->from[i] * w->block, w->block);
}

static void run_crc(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		sink += speckv_crc32c(0, w->source + w->from[i] * w->block, w->block);
}

#ifdef HAVE_ISAL
static void run_isal_crc(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		sink += crc32_iscsi(w->source + w->from[i] * w->block, (int)w->block, 0);
}
#endif

static void run_copy(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		sink += speckv_crc32c_copy(0, w->destination + w->to[i] * w->block,
			w->source + w->from[i] * w->block, w->block);
}

static void run_copy_reused(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++)
		sink += speckv_crc32c_copy(0, w->destination, w->source + w->from[i] * w->block,
			w->block);
}

static void run_decode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		const uint8_t *frame = w->frames + w->from[i] * w->frame_stride;
		struct speckv_frame parsed;

		if (speckv_frame_parse(frame, w->frame_stride, &parsed) ||
			speckv_frame_decode(&parsed, frame, w->frame_stride, 0, 1,
				w->destination + w->to[i] * w->block, w->block))
			abort();
	}
}

static void run_decode_reused(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		const uint8_t *frame = w->frames + w->from[i] * w->frame_stride;
		struct speckv_frame parsed;

		if (speckv_frame_parse(frame, w->frame_stride, &parsed) ||
			speckv_frame_decode(&parsed, frame, w->frame_stride, 0, 1, w->destination,
				w->block))
			abort();
	}
}

static void run_encode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		uint64_t length;

		if (speckv_frame_encode(&w->shape, SPECKV_CODEC_RAW, &w->identity,
			    w->source + w->from[i] * w->block, w->block,
			    w->frames + w->from[i] * w->frame_stride, w->frame_stride, &length))
			abort();
	}
}

static void run_q4x_encode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		uint64_t length;

		if (speckv_frame_encode(&w->shape, SPECKV_CODEC_Q4X, &w->identity,
			    w->source + w->from[i] * w->block, w->block,
			    w->small + w->from[i] * w->small_stride, w->small_stride, &length))
			abort();
	}
}

static void q4x_decode(struct work *w, int spread)
{
	for (size_t i = 0; i < w->blocks; i++) {
		const uint8_t *frame = w->small + w->from[i] * w->small_stride;
		struct speckv_frame parsed;

		if (speckv_frame_parse(frame, w->small_stride, &parsed) ||
			speckv_frame_decode(&parsed, frame, w->small_stride, 0, 1,
				w->destination + (spread ? w->to[i] * w->block : 0), w->block))
			abort();
	}
}

static void run_q4x_decode(struct work *w)
{
	q4x_decode(w, 1);
}

static void run_q4x_decode_reused(struct work *w)
{
	q4x_decode(w, 0);
}

/* As a get of many blocks does: together they are large, and are stored round the caches. */
static void run_q4x_batch(struct work *w)
{
	struct speckv_frame_batch batch = { .geometry = w->shape, .threads = 1 };

	for (size_t i = 0; i < w->blocks; i++) {
		w->jobs[i].raw = w->destination + w->to[i] * w->block;
		w->jobs[i].raw_bytes = w->block;
		w->jobs[i].frame = w->small + w->from[i] * w->small_stride;
		w->jobs[i].frame_capacity = w->small_stride;
	}
	if (speckv_frame_decode_batch(&batch, w->jobs, w->blocks))
		abort();
}

static void run_lossless_encode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		uint64_t length;

		if (speckv_frame_encode(&w->shape, SPECKV_CODEC_LOSSLESS, &w->identity,
			    w->source + w->from[i] * w->block, w->block,
			    w->exact + w->from[i] * w->frame_stride, w->frame_stride, &length))
			abort();
	}
}

static void run_lossless_decode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		const uint8_t *frame = w->exact + w->from[i] * w->frame_stride;
		struct speckv_frame parsed;

		if (speckv_frame_parse(frame, w->frame_stride, &parsed) ||
			speckv_frame_decode(&parsed, frame, w->frame_stride, 0, 1,
				w->destination + w->to[i] * w->block, w->block))
			abort();
	}
}

static void run_e7c_encode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		uint64_t length;

		if (speckv_frame_encode_calibrated(&w->shape, SPECKV_CODEC_E7C, w->calibration, 0,
			    0, &w->identity, w->source + w->from[i] * w->block, w->block,
			    w->learned + w->from[i] * w->learned_stride, w->learned_stride,
			    &length))
			abort();
	}
}

static void run_e7c_decode(struct work *w)
{
	for (size_t i = 0; i < w->blocks; i++) {
		const uint8_t *frame = w->learned + w->from[i] * w->learned_stride;
		struct speckv_frame parsed;

		if (speckv_frame_parse(frame, w->learned_stride, &parsed) ||
			speckv_frame_decode_calibrated(&parsed, w->calibration, frame,
				w->learned_stride, 0, 1, w->destination + w->to[i] * w->block,
				w->block))
			abort();
	}
}

struct peer {
	const char *name, *isa;
	void (*run)(struct work *w);
	int base; /* index of the memcpy it is measured against */
};

static const struct peer peers[] = {
	{ "memcpy", "auto", run_memcpy, 0 },
	{ "memcpy, one destination", "auto", run_memcpy_reused, 1 },
	{ "crc32c", "auto", run_crc, 0 },
#ifdef HAVE_ISAL
	{ "crc32c, ISA-L's", "auto", run_isal_crc, 0 },
#endif
	{ "crc32c_copy", "auto", run_copy, 0 },
	{ "crc32c_copy, one destination", "auto", run_copy_reused, 1 },
	{ "raw frame: parse, decode", "auto", run_decode, 0 },
	{ "raw frame, one destination", "auto", run_decode_reused, 1 },
	{ "raw frame: encode", "auto", run_encode, 0 },
	{ "q4x frame: encode", "auto", run_q4x_encode, 0 },
	{ "q4x frame: parse, decode", "auto", run_q4x_decode, 0 },
	{ "q4x frame, one destination", "auto", run_q4x_decode_reused, 1 },
	{ "q4x frames: batch, streamed", "auto", run_q4x_batch, 0 },
	{ "q4x frame: encode avx2", "avx2", run_q4x_encode, 0 },
	{ "q4x frame: decode avx2", "avx2", run_q4x_decode, 0 },
	{ "q4x frames: batch avx2", "avx2", run_q4x_batch, 0 },
	{ "lossless frame: encode", "auto", run_lossless_encode, 0 },
	{ "lossless frame: parse, decode", "auto", run_lossless_decode, 0 },
	{ "lossless frame: decode avx2", "avx2", run_lossless_decode, 0 },
	{ "lossless: decode portable", "portable", run_lossless_decode, 0 },
	{ "e7c frame: encode", "auto", run_e7c_encode, 0 },
	{ "e7c frame: parse, decode", "auto", run_e7c_decode, 0 },
	{ "e7c frame: decode avx2", "avx2", run_e7c_decode, 0 },
	{ "crc32c_copy avx512", "avx512", run_copy, 0 },
	{ "crc32c_copy sse42", "sse42", run_copy, 0 },
	{ "crc32c_copy portable", "portable", run_copy, 0 },
};

#define PEERS (sizeof(peers) / sizeof(peers[0]))

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void *map(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return at;
}

/* bf16 numbers with a bell's distribution: how they lie matters to mode lossless. */
static void fill(uint16_t *to, size_t count)
{
	uint64_t state = 1;

	for (size_t i = 0; i < count; i++) {
		float sum = 0;
		uint32_t bits;

		state = state * 6364136223846793005u + 1442695040888963407u;
		for (int k = 0; k < 4; k++)
			sum += (float)(state >> 16 * k & 0xffff) / 65536 - 0.5f;
		memcpy(&bits, &sum, sizeof(bits));
		to[i] = (uint16_t)(bits >> 16);
	}
}

/* Tables for such numbers: three in four coefficients are coded, and none are stored. */
static struct speckv_calibration *calibration(void)
{
	struct calibration_shape learned = { 1, 1, 128, 96, "halves", -8 };
	struct speckv_calibration *loaded = NULL;
	uint64_t seed = 3;
	struct calibration_file file = random_e7c_calibration(&seed, &learned);

	if (speckv_calibration_load(file.bytes, file.length, &loaded))
		give_up("its calibration does not load");
	free(file.bytes);
	return loaded;
}

static double own_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint32_t *order(size_t n, uint64_t seed)
{
	uint32_t *p = calloc(n, sizeof(*p));

	if (!p)
		give_up("no memory");
	shuffle(p, n, seed);
	return p;
}

int main(int argc, char **argv)
{
	size_t bytes = number(argc, argv, "--mib", 256) << 20,
	       rounds = number(argc, argv, "--rounds", 7);
	struct work w = { .block = number(argc, argv, "--block-kib", 64) << 10 };
	struct speckv_geometry shape = {
		.layers = 1, .kv_heads = 1, .head_dim = 128, .dtype = SPECKV_DTYPE_BF16
	};
	double *seconds;

	shape.tokens = (uint16_t)(w.block / (2 * 128 * 2));
	if (!rounds || !w.block || speckv_geometry_bytes(&shape) != w.block || bytes < w.block)
		give_up("usage: codec_copy [--mib N] [--block-kib N: a multiple of 32] [--rounds N]");
	w.shape = shape;
	w.identity.generation = 1;
	w.blocks = bytes / w.block;
	w.frame_stride = speckv_frame_max_bytes(&shape, SPECKV_CODEC_RAW);
	w.source = map(bytes);
	w.destination = map(bytes);
	w.frames = map(w.blocks * w.frame_stride);
	fill((uint16_t *)(void *)w.source, bytes / 2);
	memset(w.destination, 1, bytes);
	w.from = order(w.blocks, 1);
	w.small_stride = speckv_frame_max_bytes(&shape, SPECKV_CODEC_Q4X);
	w.small = map(w.blocks * w.small_stride);
	w.exact = map(w.blocks * w.frame_stride);
	w.learned_stride = speckv_frame_max_bytes(&shape, SPECKV_CODEC_E7C);
	w.learned = map(w.blocks * w.learned_stride);
	w.calibration = calibration();
	w.jobs = calloc(w.blocks, sizeof(*w.jobs));
	if (!w.jobs)
		give_up("no memory");
	run_encode(&w);
	run_q4x_encode(&w);
	run_lossless_encode(&w);
	run_e7c_encode(&w);
	w.to = order(w.blocks, 2);
	seconds = calloc(PEERS * rounds, sizeof(*seconds));
	if (!seconds)
		give_up("no memory");
	for (size_t round = 0; round < rounds; round++)
		for (size_t p = 0; p < PEERS; p++) {
			double start;

			if (speckv_isa_force(peers[p].isa))
				continue;
			start = own_seconds();
			peers[p].run(&w);
			seconds[p * rounds + round] = own_seconds() - start;
		}
	speckv_isa_force("auto");
	printf("%zu MiB each way, %zu KiB blocks in random order, one core, best kernels: %s\n",
		bytes >> 20, w.block >> 10, speckv_isa_name());
	for (size_t p = 0; p < PEERS; p++)
		qsort(seconds + p * rounds, rounds, sizeof(*seconds), ascending);
	for (size_t p = 0; p < PEERS; p++) {
		double median = seconds[p * rounds + rounds / 2],
		       base = seconds[(size_t)peers[p].base * rounds + rounds / 2];

		if (median > 0)
			printf("%-30s %7.2f GB/s  %5.2f of memcpy\n", peers[p].name,
				(double)(w.blocks * w.block) / median / 1e9, base / median);
		else
			printf("%-30s not on this CPU\n", peers[p].name);
	}
	return 0;
}

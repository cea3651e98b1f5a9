/* SPDX-License-Identifier: MIT */
/* The three parameter behaviours. */
#define _POSIX_C_SOURCE 199309L /* nanosleep */
#include <time.h>

#include "behaviours.h"

static const char *read_back(const char *key)
{
	static char value[64];

	HOLDS(speckv_param_get(fixture.pool, key, value, sizeof(value)) == 0);
	return value;
}

static uint64_t counted(unsigned int counter)
{
	struct speckv_stats stats;

	HOLDS(speckv_pool_stats(fixture.device, "parity", &stats) == 0);
	return stats.counters[counter];
}

/* A chain of 20 blocks, each the parent of the next; the key of the first one. */
static struct speckv_key put_chain(int number)
{
	struct speckv_request put = { .buffer = calloc(1, 65536), .buffer_bytes = 65536 };
	struct speckv_key first;

	HOLDS(put.buffer);
	for (int i = 0; i < 20; i++) {
		put.parent = put.key;
		memset(&put.key, number * 20 + i + 1, sizeof(put.key));
		put.flags = i ? SPECKV_REQUEST_HAS_PARENT : 0;
		if (!i)
			first = put.key;
		HOLDS(speckv_put(fixture.pool, &put, 1) == 1);
	}
	free(put.buffer);
	return first;
}

/* And followed: as many blocks of a chain are asked for as the depth says. */
static void every_prefetch_depth_is_accepted_and_read_back(void)
{
	static const char *const depths[] = { "1", "2", "4", "8", "16" };
	static const char *const wrong[] = { "0", "17", "-1", "", "4x", "four" };

	for (int i = 0; i < 5; i++) {
		struct speckv_key key = put_chain(i);
		uint64_t before = counted(SPECKV_COUNT_PREFETCHES);

		HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", depths[i]) == 0);
		HOLDS(strcmp(read_back("prefetch_depth"), depths[i]) == 0);
		HOLDS(speckv_prefetch(fixture.pool, &key, 1) == 1);
		before += strtoul(depths[i], NULL, 10);
		/* the suite's time limit ends a wait in vain */
		while (counted(SPECKV_COUNT_PREFETCHED) < before)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		HOLDS(counted(SPECKV_COUNT_PREFETCHES) == before &&
			counted(SPECKV_COUNT_PREFETCHED) == before);
	}
	for (int i = 0; i < 6; i++) {
		HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", wrong[i]) == -EINVAL);
		HOLDS(strcmp(read_back("prefetch_depth"), "16") == 0);
	}
}

static float number(uint16_t bf16)
{
	uint32_t bits = (uint32_t)bf16 << 16;
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/*
 * bf16 numbers as a KV cache has them: channels of their own size and middle, tokens that differ.
 */
static void fill(uint16_t *numbers)
{
	uint32_t state = 12345;

	for (int i = 0; i < 32768; i++) {
		float value;
		uint32_t bits;

		state = state * 1664525 + 1013904223;
		value = (float)(i % 128) / 64 - 1 + (float)(int32_t)state / 4294967296.0f;
		memcpy(&bits, &value, sizeof(bits));
		numbers[i] = (uint16_t)(bits >> 16);
	}
}

/* The square of the error that a scheme makes, as a part of the square of the numbers. */
static double loss(const uint16_t *numbers, const uint16_t *back)
{
	double lost = 0, whole = 0;

	for (int i = 0; i < 32768; i++) {
		double error = (double)number(numbers[i]) - (double)number(back[i]);

		lost += error * error;
		whole += (double)number(numbers[i]) * (double)number(numbers[i]);
	}
	return lost / whole;
}

/*
 * Raw, int8 and ours: what the build has is stored by, in the bytes and with the error of that
 * scheme; what it has not is refused.
 */
static void every_compression_scheme_is_accepted_and_read_back(void)
{
	uint16_t *numbers = malloc(65536), *back = malloc(65536);
	uint32_t modes = speckv_codec_modes();

	HOLDS(numbers && back);
	HOLDS(modes & 1u << SPECKV_CODEC_RAW && modes & 1u << SPECKV_CODEC_INT8_DELTA_RLE);
	fill(numbers);
	for (unsigned int codec = 0; codec < 32; codec++) {
		struct speckv_request request = { .buffer = numbers, .buffer_bytes = 65536 };
		const char *name = speckv_codec_name(codec);
		uint64_t stored = counted(SPECKV_COUNT_BYTES_IN_STORED);

		if (!name)
			continue;
		if (!(modes & 1u << codec)) {
			HOLDS(speckv_param_set(fixture.pool, "codec", name) < 0);
			continue;
		}
		HOLDS(speckv_param_set(fixture.pool, "codec", name) == 0);
		HOLDS(strcmp(read_back("codec"), name) == 0);
		memset(&request.key, 100 + (int)codec, sizeof(request.key));
		HOLDS(speckv_put(fixture.pool, &request, 1) == 1);
		request.buffer = back;
		memset(back, 0xff, 65536);
		HOLDS(speckv_get(fixture.pool, &request, 1) == 1);
		stored = counted(SPECKV_COUNT_BYTES_IN_STORED) - stored;
		if (codec == SPECKV_CODEC_RAW || !strcmp(name, "lossless"))
			HOLDS(!memcmp(numbers, back, 65536));
		else
			/* a fifth, at most */
			HOLDS(loss(numbers, back) > 0 && loss(numbers, back) < 0.04);
		if (codec == SPECKV_CODEC_RAW)
			HOLDS(stored >= 65536);
		else
			HOLDS(stored < 60000 && stored > 8192);
	}
	free(numbers);
	free(back);
}

static void an_unknown_key_is_refused_with_the_known_ones_named(void)
{
	char value[64];

	HOLDS(speckv_param_set(fixture.pool, "no_such_parameter", "1") == -EINVAL);
	HOLDS(strstr(speckv_strerror(fixture.ctx), "prefetch_depth"));
	HOLDS(strstr(speckv_strerror(fixture.ctx), "codec"));
	HOLDS(speckv_param_get(fixture.pool, "no_such_parameter", value, sizeof(value)) == -EINVAL);
}

int main(int argc, char **argv)
{
	static const struct behaviour behaviours[] = {
		{ "every_prefetch_depth_is_accepted_and_read_back",
			every_prefetch_depth_is_accepted_and_read_back },
		{ "every_compression_scheme_is_accepted_and_read_back",
			every_compression_scheme_is_accepted_and_read_back },
		{ "an_unknown_key_is_refused_with_the_known_ones_named",
			an_unknown_key_is_refused_with_the_known_ones_named },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

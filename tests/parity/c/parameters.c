/* SPDX-License-Identifier: MIT */
/* The three parameter behaviours. */
#include "behaviours.h"

static const char *read_back(const char *key)
{
	static char value[64];

	HOLDS(speckv_param_get(fixture.pool, key, value, sizeof(value)) == 0);
	return value;
}

static void every_prefetch_depth_is_accepted_and_read_back(void)
{
	static const char *const depths[] = { "1", "2", "4", "8", "16" };
	static const char *const wrong[] = { "0", "17", "-1", "", "4x", "four" };

	for (int i = 0; i < 5; i++) {
		HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", depths[i]) == 0);
		HOLDS(strcmp(read_back("prefetch_depth"), depths[i]) == 0);
	}
	for (int i = 0; i < 6; i++) {
		HOLDS(speckv_param_set(fixture.pool, "prefetch_depth", wrong[i]) == -EINVAL);
		HOLDS(strcmp(read_back("prefetch_depth"), "16") == 0);
	}
}

/* Raw fp16, int8 with and without run lengths, and ours: what the build has is stored by, what it has not is refused. */
static void every_compression_scheme_is_accepted_and_read_back(void)
{
	uint32_t modes = speckv_codec_modes();
	unsigned char *block = calloc(1, 65536);
	struct speckv_request request = { .buffer = block, .buffer_bytes = 65536 };

	HOLDS(block);
	HOLDS(modes & 1u << SPECKV_CODEC_RAW && modes & 1u << SPECKV_CODEC_INT8_DELTA_RLE);
	for (unsigned int codec = 0; codec < 32; codec++) {
		const char *name = speckv_codec_name(codec);

		if (!name)
			continue;
		if (!(modes & 1u << codec)) {
			HOLDS(speckv_param_set(fixture.pool, "codec", name) < 0);
			continue;
		}
		HOLDS(speckv_param_set(fixture.pool, "codec", name) == 0);
		HOLDS(strcmp(read_back("codec"), name) == 0);
		memset(&request.key, 100 + (int)codec, sizeof(request.key));
		request.flags = 0;
		HOLDS(speckv_put(fixture.pool, &request, 1) == 1);
		HOLDS(speckv_get(fixture.pool, &request, 1) == 1);
		for (int i = 0; i < 65536; i++)
			HOLDS(block[i] == 0); /* zeros are what every scheme keeps exactly */
	}
	free(block);
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
		{ "every_prefetch_depth_is_accepted_and_read_back", every_prefetch_depth_is_accepted_and_read_back },
		{ "every_compression_scheme_is_accepted_and_read_back",
		  every_compression_scheme_is_accepted_and_read_back },
		{ "an_unknown_key_is_refused_with_the_known_ones_named",
		  an_unknown_key_is_refused_with_the_known_ones_named },
	};

	return show(behaviours, sizeof(behaviours) / sizeof(behaviours[0]), argc, argv);
}

// SPDX-License-Identifier: MIT
/*
 * q4x: the portable kernels held to FORMAT.md (q4x_spec.c); every other set of kernels held to the
 * portable one, over random and adversarial groups and any bytes.
 *
 * Usage: test_codec_q4x [groups for each comparison, default 150]
 */
#include "q4x_spec.h"

/* Numbers with a bell's distribution, out of twelve even ones. */
static double bell(uint64_t *seed)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += random_below(seed, 1 << 20) / 1048576.0;
	return sum;
}

static uint16_t bf16(double x)
{
	float single = (float)x;
	uint32_t word;

	memcpy(&word, &single, 4);
	return (uint16_t)((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

/*
 * Squared error of `groups` groups, as a share of the variance, which is 1; each channel lies
 * `offset` off zero, up or down.
 */
static double share_of_variance(uint64_t *seed, enum codec_tensor tensor, double offset, int groups)
{
	enum { CHANNELS = 128 };
	static uint16_t raw[TOKENS * CHANNELS], out[TOKENS * CHANNELS];
	uint8_t group[Q4X_GROUP_MAX];
	double error = 0;

	for (int g = 0; g < groups; g++) {
		uint64_t signs[2] = { random_next(seed), random_next(seed) };

		for (unsigned int i = 0; i < TOKENS * CHANNELS; i++)
			raw[i] = bf16(bell(seed) +
				(signs[i % CHANNELS / 64] >> i % 64 & 1 ? offset : -offset));
		CHECK(!codec_q4x_encode_portable((uint8_t *)raw, CHANNELS, SPECKV_DTYPE_BF16,
			      tensor, group),
			"plain numbers");
		codec_q4x_decode_portable(group, CHANNELS, SPECKV_DTYPE_BF16, tensor,
			(uint8_t *)out, false);
		for (unsigned int i = 0; i < TOKENS * CHANNELS; i++) {
			double off = q4x_spec_value(SPECKV_DTYPE_BF16, raw[i]) -
				q4x_spec_value(SPECKV_DTYPE_BF16, out[i]);

			error += off * off;
		}
	}
	return error / groups / (TOKENS * CHANNELS);
}

/*
 * What the mode is for: less error than any quantiser of one number at a time makes with so many
 * levels and a scale a token.
 */
static void little_error(void)
{
	uint64_t seed = 7;
	double k = share_of_variance(&seed, CODEC_K, 0, 40),
	       v = share_of_variance(&seed, CODEC_V, 0, 40);
	double off = share_of_variance(&seed, CODEC_K, 4, 40);

	printf("squared error by variance: K %.5f, V %.5f; K whose channels lie four deviations off %.5f\n",
		k, v, off);
	CHECK(k < 0.0066, "K %g", k);
	CHECK(v < 0.0256, "V %g", v);
	/* Of a variance of 17 in all: without the mean it would be about that many times more. */
	CHECK(off < 0.03, "K %g", off);
}

/* Special values sprinkled over a style: what rounding, alignment and clipping find hardest. */
static void adversarial(uint64_t *seed, const struct speckv_geometry *g, uint16_t *raw)
{
	static const uint16_t special[2][8] = { { 0x0000, 0x8000, 0x0001, 0x807f, 0x3f80, 0x4480,
							0xbfff, 0x2f01 },
		{ 0x0000, 0x8000, 0x0001, 0x83ff, 0x3c00, 0x6400, 0xbfff, 0x1001 } };
	enum style style = (enum style)random_below(seed, STYLES);

	random_values(seed, g, style, raw, TOKENS * g->head_dim);
	for (uint32_t k = random_below(seed, 3) ? 0 : random_below(seed, 200); k; k--) {
		uint16_t *at = raw + random_below(seed, TOKENS * (uint32_t)g->head_dim);

		*at = special[g->dtype - 1][random_below(seed, 8)];
	}
	if (!random_below(seed, 3)) /* one outlier in each token */
		for (unsigned int t = 0; t < TOKENS; t++)
			raw[t * g->head_dim + random_below(seed, g->head_dim)] ^= 0x0400;
	if (!random_below(seed, 5)) /* one channel far off */
		for (unsigned int t = 0, c = random_below(seed, g->head_dim); t < TOKENS; t++)
			raw[t * g->head_dim + c] = g->dtype == SPECKV_DTYPE_BF16 ? 0x4200 : 0x5000;
	if (!random_below(seed, 40))
		raw[random_below(seed, TOKENS * (uint32_t)g->head_dim)] =
			(uint16_t)(g->dtype == SPECKV_DTYPE_BF16 ? 0xff80 : 0x7c00);
}

static void against_the_portable_kernels(uint64_t *seed, const struct codec_kernels *kernels,
	unsigned long groups)
{
	uint8_t *space = line_alloc(TOKENS * MOST * 2 + 128), *mine = line_alloc(Q4X_GROUP_MAX),
		*reference = line_alloc(Q4X_GROUP_MAX);
	uint16_t *decoded = line_alloc(TOKENS * MOST * 2 + 128),
		 *expected = line_alloc(TOKENS * MOST * 2);
	unsigned long refused = 0;

	for (unsigned long i = 0; i < groups; i++) {
		struct speckv_geometry g = random_geometry(seed);
		enum codec_tensor tensor = i & 1 ? CODEC_K : CODEC_V;
		uint32_t bytes = q4x_group_bytes(g.head_dim, tensor),
			 offset = 2 * random_below(seed, 32);
		uint16_t *raw = (uint16_t *)(void *)(space + offset);
		uint8_t *out = (uint8_t *)decoded + (i % 3 ? offset : 0);
		bool streamed = random_below(seed, 2);
		int rc, rc_reference;

		adversarial(seed, &g, raw);
		memset(mine, 0xaa, Q4X_GROUP_MAX);
		memset(reference, 0xaa, Q4X_GROUP_MAX);
		rc = kernels->q4x_encode((uint8_t *)raw, g.head_dim, g.dtype, tensor, mine);
		rc_reference = codec_q4x_encode_portable((uint8_t *)raw, g.head_dim, g.dtype,
			tensor, reference);
		CHECK(rc == rc_reference, "%s: %d, expected %d", kernels->name, rc, rc_reference);
		refused += !!rc;
		for (uint32_t k = 0; !rc && k < Q4X_GROUP_MAX; k++)
			CHECK(mine[k] == reference[k],
				"%s %s %s head %u group %lu: byte %u of %u is %02x, expected %02x",
				kernels->name, tensor == CODEC_K ? "K" : "V",
				speckv_dtype_name(g.dtype), g.head_dim, i, k, bytes, mine[k],
				reference[k]);
		if (rc || i % 4 == 3)
			for (uint32_t k = 0; k < bytes; k++)
				reference[k] = (uint8_t)random_next(seed);
		memset(decoded, 0xbb, TOKENS * MOST * 2 + 128);
		kernels->q4x_decode(reference, g.head_dim, g.dtype, tensor, out, streamed);
		codec_q4x_decode_portable(reference, g.head_dim, g.dtype, tensor,
			(uint8_t *)expected, false);
		for (uint32_t k = 0; k < TOKENS * g.head_dim; k++) {
			uint16_t word;

			memcpy(&word, out + 2 * k, 2);
			CHECK(word == expected[k],
				"%s %s %s head %u token %u channel %u: %04x, expected %04x",
				kernels->name, tensor == CODEC_K ? "K" : "V",
				speckv_dtype_name(g.dtype), g.head_dim, k / g.head_dim,
				k % g.head_dim, word, expected[k]);
		}
		CHECK(out[2 * TOKENS * g.head_dim] == 0xbb, "%s: nothing beyond the group",
			kernels->name);
	}
	printf("%s: %lu groups, %lu refused\n", kernels->name, groups, refused);
	free(space);
	free(mine);
	free(reference);
	free(decoded);
	free(expected);
}

/* Every scale code with every level: V shows each value of the table, K each sum. */
static void every_scale(const struct codec_kernels *kernels)
{
	uint8_t *group = line_alloc(Q4X_GROUP_MAX);
	uint16_t *out = line_alloc(TOKENS * MOST * 2), *expected = line_alloc(TOKENS * MOST * 2);

	for (int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++)
		for (int h = 0; h < 6; h++)
			for (int first = 0; first < 256; first += TOKENS)
				for (int tensor = CODEC_K; tensor <= CODEC_V; tensor++) {
					uint64_t seed = (uint64_t)first;
					uint32_t bytes = q4x_group_bytes(head_dims[h],
						(enum codec_tensor)tensor);

					for (uint32_t k = 0; k < bytes; k++)
						group[k] = k < TOKENS
							? (uint8_t)(first + (int)k)
							: (uint8_t)(random_next(&seed) |
								  (first & 64 ? 0xff : 0));
					kernels->q4x_decode(group, head_dims[h],
						(unsigned int)dtype, (enum codec_tensor)tensor,
						(uint8_t *)out, true);
					codec_q4x_decode_portable(group, head_dims[h],
						(unsigned int)dtype, (enum codec_tensor)tensor,
						(uint8_t *)expected, false);
					CHECK(!memcmp(out, expected, 2u * TOKENS * head_dims[h]),
						"%s %s dtype %d head %u scales from %d",
						kernels->name, tensor == CODEC_K ? "K" : "V", dtype,
						head_dims[h], first);
				}
	free(group);
	free(out);
	free(expected);
}

int main(int argc, char **argv)
{
	unsigned long groups = argc > 1 ? strtoul(argv[1], NULL, 10) : 150;
	const struct codec_kernels *kernels;
	uint64_t seed = 31;
	int usable;

	little_error();
	for (int i = 0; i < 150; i++)
		q4x_spec_group(&seed);
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++) {
		if (!usable || kernels->q4x_decode == codec_q4x_decode_portable)
			continue;
		every_scale(kernels);
		against_the_portable_kernels(&seed, kernels, groups);
	}
	return 0;
}

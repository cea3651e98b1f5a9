// SPDX-License-Identifier: MIT
/*
 * q4x: every set of kernels gives, to the bit, what the portable reference gives: the same groups, the same refusals, the same values.
 *
 * Usage: test_codec_agree [GROUPS [SEED]]      groups of 64 tokens; each token of a head has a scale of its own
 *
 * Groups are made by words, a kind for each token or one for all, so that 100 million are a matter of an hour: values over the whole range of
 * exponents or a slice of it, constants, single outliers, subnormals, zeros of both signs, values on the borders of rounding and of the
 * scale range, now and then one that is not finite. Decoders also get groups of any bytes.
 */
#include "check.h"
#include "codec/kernels.h"
#include "codec/q4x.h"

enum { TOKENS = CODEC_GROUP_TOKENS, MOST = CODEC_HEAD_DIM_MAX, WORDS = TOKENS * MOST / 4 };

#define EACH UINT64_C(0x0001000100010001)

struct tally {
	uint64_t groups, tokens, refused, any_bytes, means;
	uint64_t kinds[8];
};

/* One token: head_dim 16-bit values, four a word. `alike` is NULL or how all tokens of the group are made, but for the octave. */
static void make_token(uint64_t *seed, unsigned int dtype, unsigned int head_dim, const uint64_t *alike, uint64_t *words, struct tally *tally)
{
	unsigned int mantissa = dtype == SPECKV_DTYPE_BF16 ? 7 : 10, exponents = dtype == SPECKV_DTYPE_BF16 ? 255 : 31;
	/* Scales reach from about 2^-22 to 2^12.75: most exponents lie there, or all would be zeros and refusals. */
	unsigned int first = dtype == SPECKV_DTYPE_BF16 ? 127 - 26 : 0, span = dtype == SPECKV_DTYPE_BF16 ? 38 : 27;
	uint64_t how = alike ? *alike + (random_next(seed) & 3) * 256 : random_next(seed), fraction = EACH * ((1u << mantissa) - 1), sign = EACH * 0x8000;
	uint64_t exponent = first + (how >> 8 & 0xff) % span, open = 0, mask, kind = how & 7;

	if ((how >> 16 & 0xfff) == 0)
		exponent = (how >> 24) % exponents;
	tally->kinds[kind]++;
	switch (kind) {
	case 0: /* one octave */
		mask = fraction | sign;
		break;
	case 1: /* octaves below it: bits of the exponent that may fall */
		mask = fraction | sign;
		open = exponent & how >> 32 & 15;
		break;
	case 2: /* few bits: sums that cancel, ties */
		mask = sign | EACH * ((how >> 32 & 3) << (mantissa - 2));
		break;
	case 3: /* one value, one sign, or zeros of both signs */
		mask = how >> 33 & 1 ? sign : 0;
		exponent = how >> 34 & 7 ? exponent : 0;
		break;
	case 4: /* subnormals */
		mask = (fraction & EACH * (how >> 32 & 0x3ff)) | sign;
		exponent = 0;
		break;
	case 5: /* a narrow band just below a power of two */
		mask = EACH * (how >> 32 & 7) | sign;
		break;
	default:
		mask = fraction | sign;
		break;
	}
	for (unsigned int i = 0; i < head_dim / 4; i++) {
		uint64_t word = random_next(seed) & (mask | EACH * (open << mantissa));

		if (kind == 5)
			word |= fraction & ~(EACH * 7);
		words[i] = word | EACH * ((exponent & ~open) << mantissa);
	}
	if (kind >= 6) { /* outliers: one, or some, up or down by octaves */
		unsigned int outliers = kind == 6 ? 1 : 1 + (how >> 40 & 7);

		while (outliers--) {
			uint16_t *at = (uint16_t *)(void *)words + random_below(seed, head_dim);
			unsigned int other = first + random_below(seed, span);

			*at = (uint16_t)((*at & 0x8000) | other << mantissa | (*at & ((1u << mantissa) - 1)));
		}
	}
	if ((how >> 48) % 5000 == 1) /* not finite: the group is refused */
		((uint16_t *)(void *)words)[random_below(seed, head_dim)] |= (uint16_t)(exponents << mantissa);
}

static void same(const char *what, const struct codec_kernels *kernels, const void *mine, const void *reference, size_t bytes, unsigned int head_dim,
		 unsigned int dtype, enum codec_tensor tensor, uint64_t group)
{
	CHECK(!memcmp(mine, reference, bytes), "%s: %s of %s, %s, head size %u, group %llu", kernels->name, what, tensor == CODEC_K ? "K" : "V",
	      speckv_dtype_name(dtype), head_dim, (unsigned long long)group);
}

static void compare(uint64_t *seed, const struct codec_kernels *const *kernels, struct tally *tally)
{
	static uint64_t words[WORDS + 8] __attribute__((aligned(64)));
	static uint8_t reference[Q4X_GROUP_MAX] __attribute__((aligned(64))), mine[Q4X_GROUP_MAX] __attribute__((aligned(64)));
	static uint8_t decoded[2 * TOKENS * MOST] __attribute__((aligned(64))), expected[2 * TOKENS * MOST] __attribute__((aligned(64)));
	uint64_t how = random_next(seed), alike = random_next(seed) & ~UINT64_C(0xffff000000000000);
	enum codec_tensor tensor = how & 1 ? CODEC_K : CODEC_V;
	unsigned int dtype = how & 2 ? SPECKV_DTYPE_BF16 : SPECKV_DTYPE_FP16, head_dim = head_dims[(how >> 2 & 0xff) % 6];
	uint32_t bytes = q4x_group_bytes(head_dim, tensor);
	const uint8_t *raw = (uint8_t *)words;
	int rc;

	for (unsigned int t = 0; t < TOKENS; t++)
		make_token(seed, dtype, head_dim, how >> 14 & 1 ? &alike : NULL, words + t * head_dim / 4, tally);
	for (unsigned int c = 0; c < head_dim && (how >> 14 & 3) == 3; c++) /* some channels the same in all tokens, or of one sign */
		for (unsigned int t = 0, what = random_below(seed, 8); t < TOKENS && what < 2; t++) {
			uint16_t *at = (uint16_t *)(void *)words + t * head_dim + c;

			*at = what ? (uint16_t)(*at & 0x7fff) : *((uint16_t *)(void *)words + c);
		}
	rc = codec_q4x_encode_portable(raw, head_dim, dtype, tensor, reference);
	for (unsigned int k = 0; kernels[k]; k++) {
		int got = kernels[k]->q4x_encode(raw, head_dim, dtype, tensor, mine);

		CHECK(got == rc, "%s: %d, expected %d, group %llu", kernels[k]->name, got, rc, (unsigned long long)tally->groups);
		if (!rc)
			same("codes", kernels[k], mine, reference, bytes, head_dim, dtype, tensor, tally->groups);
	}
	tally->groups++;
	tally->tokens += TOKENS;
	tally->refused += !!rc;
	tally->means += !rc && tensor == CODEC_K && reference[Q4X_SCALES + head_dim / 2 - 1];
	if (rc || !(how >> 10 & 7)) {
		tally->any_bytes++;
		for (uint32_t i = 0; i < bytes; i += 8) {
			uint64_t noise = random_next(seed);

			memcpy(reference + i, &noise, 8);
		}
	}
	codec_q4x_decode_portable(reference, head_dim, dtype, tensor, expected, false);
	for (unsigned int k = 0; kernels[k]; k++) {
		kernels[k]->q4x_decode(reference, head_dim, dtype, tensor, decoded, how >> 13 & 1);
		same("values", kernels[k], decoded, expected, 2u * TOKENS * head_dim, head_dim, dtype, tensor, tally->groups - 1);
	}
}

int main(int argc, char **argv)
{
	uint64_t groups = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000, seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 2026;
	const struct codec_kernels *kernels[8] = { NULL }, *one;
	struct tally tally = { 0 };
	unsigned int sets = 0;
	int usable;

	for (unsigned int i = 0; (one = codec_kernels_variant(i, &usable)); i++)
		if (usable && one->q4x_decode != codec_q4x_decode_portable)
			kernels[sets++] = one;
	printf("seed %llu; the portable reference beside", (unsigned long long)seed);
	for (unsigned int k = 0; k < sets; k++)
		printf(" %s", kernels[k]->name);
	printf("\n");
	while (tally.groups < groups) {
		compare(&seed, kernels, &tally);
		if (tally.groups % 1000000 == 0) {
			printf("%llu groups\n", (unsigned long long)tally.groups);
			fflush(stdout);
		}
	}
	CHECK(tally.refused < tally.groups / 2, "%llu of %llu refused: too few are compared", (unsigned long long)tally.refused,
	      (unsigned long long)tally.groups);
	printf("%llu groups, %llu tokens, equal in every bit; %llu groups refused alike, %llu with a mean, %llu decoded from any bytes; tokens by kind",
	       (unsigned long long)tally.groups, (unsigned long long)tally.tokens, (unsigned long long)tally.refused, (unsigned long long)tally.means,
	       (unsigned long long)tally.any_bytes);
	CHECK(tally.means > tally.groups / 10, "too few groups have a mean");
	for (int i = 0; i < 8; i++)
		printf(" %llu", (unsigned long long)tally.kinds[i]);
	printf("\n");
	return 0;
}

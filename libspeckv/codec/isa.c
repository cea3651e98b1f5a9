// SPDX-License-Identifier: MIT
/*
 * Kernel selection: the best variant for the CPU, unless SPECKV_ISA or speckv_isa_force() overrides
 * it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include "kernels.h"

struct variant {
	struct codec_kernels kernels;
	uint32_t needs; /* CODEC_CPU_*: the instruction sets its files are compiled for */
};

/* Cover every flag in the lists of meson.build. */
#define SSE42 (CODEC_CPU_SSE42 | CODEC_CPU_PCLMUL)
#define AVX2                                                                        \
	(SSE42 | CODEC_CPU_AVX2 | CODEC_CPU_FMA | CODEC_CPU_F16C | CODEC_CPU_BMI2 | \
		CODEC_CPU_POPCNT)
/* the level of Zen 3, and of Intel's processors without AVX-512 */
#define VPCLMUL (AVX2 | CODEC_CPU_VPCLMULQDQ)
/* The level of Ice Lake and Zen 4: earlier AVX-512 CPUs lack VPCLMULQDQ and VBMI. */
#define AVX512                                                                   \
	(VPCLMUL | CODEC_CPU_AVX512F | CODEC_CPU_AVX512BW | CODEC_CPU_AVX512DQ | \
		CODEC_CPU_AVX512VL | CODEC_CPU_AVX512CD | CODEC_CPU_AVX512VBMI | \
		CODEC_CPU_AVX512VNNI)
#define AVX512BF16 (AVX512 | CODEC_CPU_AVX512BF16)

static uint32_t cpu_features(void)
{
	uint32_t has = 0;

#if defined(__x86_64__)
#define HAS(feature, name) has |= __builtin_cpu_supports(name) ? CODEC_CPU_##feature : 0
	__builtin_cpu_init();
	HAS(SSE42, "sse4.2");
	HAS(PCLMUL, "pclmul");
	HAS(AVX2, "avx2");
	HAS(FMA, "fma");
	HAS(F16C, "f16c");
	HAS(BMI2, "bmi2");
	HAS(POPCNT, "popcnt");
	HAS(VPCLMULQDQ, "vpclmulqdq");
	HAS(AVX512F, "avx512f");
	HAS(AVX512BW, "avx512bw");
	HAS(AVX512DQ, "avx512dq");
	HAS(AVX512VL, "avx512vl");
	HAS(AVX512CD, "avx512cd");
	HAS(AVX512VBMI, "avx512vbmi");
	HAS(AVX512VNNI, "avx512vnni");
	HAS(AVX512BF16, "avx512bf16");
#undef HAS
#endif
	return has;
}

#define CRC(isa)                                                  \
	.crc = codec_crc_##isa, .crc_copy = codec_crc_copy_##isa, \
	.crc_stream = codec_crc_stream_##isa
#define CALIBRATED(isa)                                                               \
	.rotary_turn = codec_rotary_turn_##isa, .q5c_encode = codec_q5c_encode_##isa, \
	.q5c_decode = codec_q5c_decode_##isa, .e7c_restore = codec_e7c_restore_##isa, \
	.e7c_analyse = codec_e7c_analyse_##isa, .e7c_join = codec_e7c_join_##isa,     \
	.e7c_part = codec_e7c_part_##isa
#define QX(decode, encode)                                                            \
	.qx_encode = codec_qx_encode_##encode, .qx_decode = codec_qx_decode_##decode, \
	.qx_guard = codec_qx_guard_##encode

#define LOSSLESS(decode, encode)                         \
	.range_symbols = codec_range_symbols_##decode,   \
	.lossless_merge = codec_lossless_merge_##decode, \
	.lossless_split = codec_lossless_split_##encode, .range_code = codec_range_code_##encode

/* Ordered from slowest to fastest. */
static const struct variant variants[] = {
	{ { "portable", .crc = codec_crc_portable, .crc_copy = codec_crc_copy_portable,
		  .crc_stream = codec_crc_copy_portable, QX(portable, portable),
		  CALIBRATED(portable), LOSSLESS(portable, portable) },
		0 },
#if defined(__x86_64__)
	{ { "sse42", CRC(sse42), QX(portable, portable), CALIBRATED(portable),
		  LOSSLESS(portable, portable) },
		SSE42 },
	{ { "avx2", CRC(sse42), QX(avx2, avx2), CALIBRATED(avx2), LOSSLESS(avx2, portable) },
		AVX2 },
	{ { "avx2", CRC(vpclmul), QX(avx2, avx2), CALIBRATED(avx2), LOSSLESS(avx2, portable) },
		VPCLMUL },
	{ { "avx512", CRC(avx512), QX(avx512, avx512), CALIBRATED(avx512),
		  LOSSLESS(avx512, avx512) },
		AVX512 },
	{ { "avx512", CRC(avx512), QX(avx512bf16, avx512), CALIBRATED(avx512),
		  LOSSLESS(avx512, avx512) },
		AVX512BF16 },
#endif
};

#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* NULL until the first call. Concurrent first calls choose the same table. */
static _Atomic(const struct codec_kernels *) current;

static bool usable(const struct variant *variant, uint32_t features)
{
	return !(variant->needs & ~features);
}

static const struct codec_kernels *best(uint32_t features)
{
	size_t i = VARIANTS;

	while (--i > 0)
		if (usable(&variants[i], features))
			break;
	return &variants[i].kernels;
}

int codec_kernels_choose(uint32_t features, const char *name, const struct codec_kernels **out)
{
	if (!strcmp(name, "auto")) {
		*out = best(features);
		return 0;
	}
	/* A name may have several tables; the fastest is last. */
	for (size_t i = VARIANTS; i > 0; i--)
		if (!strcmp(name, variants[i - 1].kernels.name) &&
			usable(&variants[i - 1], features)) {
			*out = &variants[i - 1].kernels;
			return 0;
		}
	/* A known name, but not supported by this CPU. */
	if (!strcmp(name, "sse42") || !strcmp(name, "avx2") || !strcmp(name, "avx512"))
		return -EOPNOTSUPP;
	return -EINVAL;
}

const struct codec_kernels *codec_kernels(void)
{
	const struct codec_kernels *kernels = atomic_load_explicit(&current, memory_order_acquire);
	const struct codec_kernels *none = NULL;
	const char *wanted;

	if (__builtin_expect(kernels != NULL, 1))
		return kernels;
	/*
	 * An unsupported name means "auto": callers could not handle an error here, and
	 * speckv_isa_name() reports the choice.
	 */
	wanted = getenv("SPECKV_ISA");
	if (!wanted || codec_kernels_choose(cpu_features(), wanted, &kernels))
		kernels = best(cpu_features());
	/* A concurrent speckv_isa_force() wins. */
	if (atomic_compare_exchange_strong(&current, &none, kernels))
		return kernels;
	return none;
}

const struct codec_kernels *codec_kernels_variant(unsigned int index, int *here)
{
	if (index >= VARIANTS)
		return NULL;
	*here = usable(&variants[index], cpu_features());
	return &variants[index].kernels;
}

int speckv_isa_force(const char *name)
{
	const struct codec_kernels *kernels;
	int rc;

	if (!name)
		return -EINVAL;
	rc = codec_kernels_choose(cpu_features(), name, &kernels);
	if (rc)
		return rc;
	atomic_store_explicit(&current, kernels, memory_order_release);
	return 0;
}

const char *speckv_isa_name(void)
{
	return codec_kernels()->name;
}

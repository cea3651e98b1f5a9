// SPDX-License-Identifier: MIT
/* Which kernels run: the best that the CPU has, unless SPECKV_ISA or speckv_isa_force() says otherwise. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include "kernels.h"

struct variant {
	struct codec_kernels kernels;
	bool (*usable)(void);
};

static bool portable_usable(void)
{
	return true;
}

#if defined(__x86_64__)
static bool sse42_usable(void)
{
	return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

static bool avx2_usable(void)
{
	return sse42_usable() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
}

/* The level of Zen 3, and of Intel's processors without AVX-512. */
static bool vpclmul_usable(void)
{
	return avx2_usable() && __builtin_cpu_supports("vpclmulqdq");
}

/* The level of Ice Lake and Zen 4: earlier AVX-512 parts lack the carry-less multiply and the byte permutes. */
static bool avx512_usable(void)
{
	return vpclmul_usable() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

static bool avx512bf16_usable(void)
{
	return avx512_usable() && __builtin_cpu_supports("avx512bf16");
}
#endif

#define CRC(isa) .crc = codec_crc_##isa, .crc_copy = codec_crc_copy_##isa, .crc_stream = codec_crc_stream_##isa
#define CALIBRATED(isa)                                                                                              \
	.rotary_turn = codec_rotary_turn_##isa, .q5c_encode = codec_q5c_encode_##isa, .q5c_decode = codec_q5c_decode_##isa, \
	.e7c_restore = codec_e7c_restore_##isa, .e7c_analyse = codec_e7c_analyse_##isa, .e7c_join = codec_e7c_join_##isa,   \
	.e7c_part = codec_e7c_part_##isa
#define Q4X(decode, encode) .q4x_encode = codec_q4x_encode_##encode, .q4x_decode = codec_q4x_decode_##decode

#define LOSSLESS(decode, encode)                                                                                    \
	.range_symbols = codec_range_symbols_##decode, .lossless_merge = codec_lossless_merge_##decode,         \
	.lossless_split = codec_lossless_split_##encode, .range_code = codec_range_code_##encode

/* Slowest first. */
static const struct variant variants[] = {
	{ { "portable", .crc = codec_crc_portable, .crc_copy = codec_crc_copy_portable, .crc_stream = codec_crc_copy_portable,
	    Q4X(portable, portable), CALIBRATED(portable), LOSSLESS(portable, portable) }, portable_usable },
#if defined(__x86_64__)
	{ { "sse42", CRC(sse42), Q4X(portable, portable), CALIBRATED(portable), LOSSLESS(portable, portable) }, sse42_usable },
	{ { "avx2", CRC(sse42), Q4X(avx2, avx2), CALIBRATED(avx2), LOSSLESS(avx2, portable) }, avx2_usable },
	{ { "avx2", CRC(vpclmul), Q4X(avx2, avx2), CALIBRATED(avx2), LOSSLESS(avx2, portable) }, vpclmul_usable },
	{ { "avx512", CRC(avx512), Q4X(avx512, avx512), CALIBRATED(avx512), LOSSLESS(avx512, avx512) }, avx512_usable },
	{ { "avx512", CRC(avx512), Q4X(avx512bf16, avx512), CALIBRATED(avx512), LOSSLESS(avx512, avx512) }, avx512bf16_usable },
#endif
};

#define VARIANTS (sizeof(variants) / sizeof(variants[0]))

/* NULL until the first call. Racing first calls choose the same. */
static _Atomic(const struct codec_kernels *) current;

static const struct codec_kernels *best(void)
{
	size_t i = VARIANTS;

#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	while (--i > 0)
		if (variants[i].usable())
			break;
	return &variants[i].kernels;
}

static int choose(const char *name, const struct codec_kernels **out)
{
	if (!strcmp(name, "auto")) {
		*out = best();
		return 0;
	}
#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	/* A name may have several tables; the best comes last. */
	for (size_t i = VARIANTS; i > 0; i--)
		if (!strcmp(name, variants[i - 1].kernels.name) && variants[i - 1].usable()) {
			*out = &variants[i - 1].kernels;
			return 0;
		}
	/* Known, not for this CPU. */
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
	/* A name that cannot be had here counts as "auto": there is nobody to tell, and speckv_isa_name() shows it. */
	wanted = getenv("SPECKV_ISA");
	if (!wanted || choose(wanted, &kernels))
		kernels = best();
	/* A speckv_isa_force() in between wins. */
	if (atomic_compare_exchange_strong(&current, &none, kernels))
		return kernels;
	return none;
}

const struct codec_kernels *codec_kernels_variant(unsigned int index, int *usable)
{
	if (index >= VARIANTS)
		return NULL;
#if defined(__x86_64__)
	__builtin_cpu_init();
#endif
	*usable = variants[index].usable();
	return &variants[index].kernels;
}

int speckv_isa_force(const char *name)
{
	const struct codec_kernels *kernels;
	int rc;

	if (!name)
		return -EINVAL;
	rc = choose(name, &kernels);
	if (rc)
		return rc;
	atomic_store_explicit(&current, kernels, memory_order_release);
	return 0;
}

const char *speckv_isa_name(void)
{
	return codec_kernels()->name;
}

// SPDX-License-Identifier: MIT
/*
 * Which kernels a CPU gets: none that were compiled for what it lacks; and what SPECKV_ISA changes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <speckv/codec.h>

#include "codec/kernels.h"
#include "harness.h"

#define ALL 0xffffu

/* The flags that libspeckv/codec/meson.build compiles each level with, in the words of CPUs. */
#define SSE42 (CODEC_CPU_SSE42 | CODEC_CPU_PCLMUL)
#define AVX2                                                                          \
	(SSE42 | CODEC_CPU_AVX2 | CODEC_CPU_FMA | CODEC_CPU_F16C | CODEC_CPU_POPCNT | \
		CODEC_CPU_BMI2)
#define AVX512                                                                  \
	(AVX2 | CODEC_CPU_VPCLMULQDQ | CODEC_CPU_AVX512F | CODEC_CPU_AVX512BW | \
		CODEC_CPU_AVX512DQ | CODEC_CPU_AVX512VL | CODEC_CPU_AVX512CD |  \
		CODEC_CPU_AVX512VBMI | CODEC_CPU_AVX512VNNI)

static const struct {
	const char *name;
	uint32_t needs;
} levels[] = { { "portable", 0 }, { "sse42", SSE42 }, { "avx2", AVX2 }, { "avx512", AVX512 } };

#define LEVELS (sizeof(levels) / sizeof(levels[0]))

#if defined(__x86_64__)
/* With everything, with everything but one, and with what a level needs alone. */
static void a_cpu_gets_the_best_that_it_can_run(void)
{
	for (int missing = -1; missing < 16; missing++) {
		uint32_t features = missing < 0 ? ALL : ALL & ~(1u << missing);
		const struct codec_kernels *kernels;
		size_t best = 0;

		for (size_t i = 0; i < LEVELS; i++) {
			bool runs = !(levels[i].needs & ~features);
			int rc = codec_kernels_choose(features, levels[i].name, &kernels);

			CHECK(rc == (runs ? 0 : -EOPNOTSUPP), "%s without feature %d: %d",
				levels[i].name, missing, rc);
			if (runs) {
				CHECK(!strcmp(kernels->name, levels[i].name), "%s by its name",
					levels[i].name);
				best = i;
			}
		}
		CHECK(codec_kernels_choose(features, "auto", &kernels) == 0 &&
				!strcmp(kernels->name, levels[best].name),
			"without feature %d the best is %s, not %s", missing, levels[best].name,
			kernels->name);
	}
	for (size_t i = 0; i < LEVELS; i++) {
		const struct codec_kernels *kernels;

		codec_kernels_choose(levels[i].needs, "auto", &kernels);
		CHECK(!strcmp(kernels->name, levels[i].name), "a CPU of level %s gets %s",
			levels[i].name, kernels->name);
	}
}

/*
 * bfloat16 in the processor, and the wide carry-less multiply, are parts of a level that only some
 * of its CPUs have.
 */
static void parts_of_a_level_are_left_out_where_the_cpu_lacks_them(void)
{
	const struct codec_kernels *with, *without;

	CHECK(!codec_kernels_choose(ALL, "avx512", &with) &&
			!codec_kernels_choose(ALL & ~CODEC_CPU_AVX512BF16, "avx512", &without),
		"both");
	CHECK(with->qx_decode != without->qx_decode && with->crc == without->crc,
		"avx512 without bfloat16");
	CHECK(!codec_kernels_choose(AVX2 | CODEC_CPU_VPCLMULQDQ, "avx2", &with) &&
			!codec_kernels_choose(AVX2, "avx2", &without),
		"both");
	CHECK(with->crc != without->crc && with->qx_decode == without->qx_decode,
		"avx2 without the wide carry-less multiply");
}
#else
static void a_cpu_gets_the_best_that_it_can_run(void)
{
}
static void parts_of_a_level_are_left_out_where_the_cpu_lacks_them(void)
{
}
#endif

static void names_that_are_none_are_refused(void)
{
	const struct codec_kernels *kernels;

	CHECK(codec_kernels_choose(ALL, "vax", &kernels) == -EINVAL &&
			codec_kernels_choose(ALL, "", &kernels) == -EINVAL,
		"unknown");
	CHECK(codec_kernels_choose(0, "avx512", &kernels) == -EOPNOTSUPP, "known, and not here");
}

/* In a process of its own: the choice is made once. */
static int chosen(const char *wanted, const char *expected)
{
	pid_t child = fork();
	int status;

	if (!child) {
		if (wanted)
			setenv("SPECKV_ISA", wanted, 1);
		else
			unsetenv("SPECKV_ISA");
		_exit(strcmp(speckv_isa_name(), expected) ? 1 : 0);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* A name may have several tables, for CPUs with more and less: one that runs here is enough. */
static bool runs_here(const char *name)
{
	const struct codec_kernels *kernels;
	int usable;

	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		if (usable && !strcmp(kernels->name, name))
			return true;
	return false;
}

static void the_environment_chooses_what_this_cpu_runs(void)
{
	const struct codec_kernels *kernels;
	const char *best = "portable";
	int usable;

	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		best = usable ? kernels->name : best;
	CHECK(!chosen(NULL, best) && !chosen("auto", best) && !chosen("vax", best) &&
			!chosen("", best),
		"the best is %s", best);
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		CHECK(!chosen(kernels->name, runs_here(kernels->name) ? kernels->name : best),
			"SPECKV_ISA=%s", kernels->name);
}

int main(void)
{
	names_that_are_none_are_refused();
	the_environment_chooses_what_this_cpu_runs();
	a_cpu_gets_the_best_that_it_can_run();
	parts_of_a_level_are_left_out_where_the_cpu_lacks_them();
	return 0;
}

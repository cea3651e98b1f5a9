/* SPDX-License-Identifier: MIT */
/*
 * A small coverage-guided fuzzer: the harness gives LLVMFuzzerTestOneInput() (libFuzzer's entry, so
 * that it works as well) and seeds; guided.c gives main(). What is to be guided by is built with
 * -fsanitize-coverage=trace-pc, which GCC and Clang have.
 *
 * Why not libFuzzer: it needs Clang, 100 MB more for every CI machine, and could not do what
 * guided_interrupt() does.
 */
#ifndef TEST_CODEC_GUIDED_H
#define TEST_CODEC_GUIDED_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Calls `add` for each input to start from. */
void guided_seeds(void (*add)(const uint8_t *data, size_t size));

/* Steps (traced blocks) since the input began. */
uint64_t guided_steps(void);
/*
 * Call `then(context)` in the middle of the traced code, `steps` steps from now: another process
 * writes shared memory whenever it likes.
 */
void guided_interrupt(uint64_t steps, void (*then)(void *context), void *context);

#endif

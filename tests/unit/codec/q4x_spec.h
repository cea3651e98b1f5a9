/* SPDX-License-Identifier: MIT */
/* q4x by FORMAT.md, with arithmetic of the test's own. */
#ifndef TEST_CODEC_Q4X_SPEC_H
#define TEST_CODEC_Q4X_SPEC_H

#include "harness.h"
#include "codec/kernels.h"
#include "codec/q4x.h"

enum { TOKENS = 64, MOST = 256 };

double q4x_spec_value(unsigned int dtype, uint16_t bits);

/* The portable kernels on a random group, and on any bytes. */
void q4x_spec_group(uint64_t *seed);

#endif

/* SPDX-License-Identifier: MIT */
/* The groups of the fixed-rate family by FORMAT.md section 5, with arithmetic of the test's own. */
#ifndef TEST_CODEC_QX_SPEC_H
#define TEST_CODEC_QX_SPEC_H

#include "harness.h"
#include "codec/kernels.h"
#include "codec/qx.h"

enum { TOKENS = 64, MOST = 256 };

struct qx_shape {
	unsigned int dtype, head_dim, bits, sinks;
	enum codec_tensor tensor;
};

/* What groups were like. A refused group counts in one of the first two only. */
struct qx_seen {
	unsigned long not_finite, too_large, groups;
	unsigned long sunk; /* not finite in tokens left out */
	unsigned long sinks[5], zero_groups, zero_tokens, subnormal;
	unsigned long lowest, clamped; /* G below -60; coefficients of 32768 */
	unsigned long means, means_too_low, means_too_high;
	unsigned long exponents[4]; /* channels */
	unsigned long still, raised; /* T below 4; L raised to L1 - 64 */
	unsigned long alone, alone_zero; /* tokens */
	unsigned long faint, unshifted, steps[10]; /* scale code below 1; d of 0; each t */
	unsigned long beyond_knee, last_cell, full; /* cells; metrics that met the limit */
};

/* The value of a number that is finite, and the number nearest to a value. */
double qx_spec_value(unsigned int dtype, uint16_t bits);
uint16_t qx_spec_number(unsigned int dtype, double x);

uint32_t qx_spec_bytes(const struct qx_shape *shape);
/* 0 or -ENODATA, as the kernels. */
int qx_spec_encode(const struct qx_shape *shape, const uint16_t *raw, uint8_t *group,
	struct qx_seen *seen);
void qx_spec_decode(const struct qx_shape *shape, const uint8_t *group, uint16_t *raw);

#endif

/* SPDX-License-Identifier: MIT */
/* Decay of scores. For this folder. */
#ifndef SPECKV_PREDICTOR_CURVE_H
#define SPECKV_PREDICTOR_CURVE_H

#include <stdint.h>

/* 2^-x, both in units of 2^-16. */
uint32_t predictor_half(uint64_t halves);

#endif

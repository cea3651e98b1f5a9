/* SPDX-License-Identifier: MIT */
/* Buckets of latency histograms, for pools and for the card model; bounds: <speckv/pool.h>. */
#ifndef SPECKV_BASE_HISTOGRAM_H
#define SPECKV_BASE_HISTOGRAM_H

#include <speckv/pool.h>

/* Log-linear: four buckets to a power of two, as HdrHistogram with two significant bits. */
static inline unsigned int histogram_bucket(uint64_t ns)
{
	unsigned int top, bucket;

	if (ns < 4)
		return (unsigned int)ns;
	top = 63u - (unsigned int)__builtin_clzll(ns);
	bucket = (top - 1) * 4 + (unsigned int)(ns >> (top - 2) & 3);
	return bucket < SPECKV_HIST_BUCKETS ? bucket : SPECKV_HIST_BUCKETS - 1;
}

#endif

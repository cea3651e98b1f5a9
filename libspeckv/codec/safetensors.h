/* SPDX-License-Identifier: MIT */
/*
 * The only parser of safetensors files: exactly as strict as the format's reference implementation
 * (a test compares their verdicts on mutated files). The loaders of calibrations and models
 * validate the tensors themselves.
 */
#ifndef SPECKV_CODEC_SAFETENSORS_H
#define SPECKV_CODEC_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

#define SAFETENSORS_HEADER_MOST UINT64_C(100000000)
#define SAFETENSORS_DIMENSIONS 5

struct safetensors_tensor {
	struct text name;
	const char *dtype; /* "BF16" */
	uint64_t shape[SAFETENSORS_DIMENSIONS]; /* the first dimensions */
	uint64_t dimensions; /* number of dimensions in the file */
	/* offsets in the data; their distance is checked against dtype and shape */
	uint64_t begin, end;
	uint64_t elements; /* the product of all dimensions */
	size_t place; /* index among the members of the header */
	uint32_t bits; /* of an element */
	bool overflow; /* the product exceeds 64 bits: not in a valid file */
};

struct safetensors_entry {
	struct text key, value;
};

/* A valid file. Pointers are into the file, or owned by this structure. */
struct safetensors {
	const uint8_t *data;
	uint64_t data_bytes;
	/* in the order of their data, which they fill without gaps */
	struct safetensors_tensor *tensors;
	size_t count;
	/* in the order of the file; of duplicate keys the last one counts */
	struct safetensors_entry *metadata;
	size_t entries;
	char *strings; /* decoded strings */
};

/*
 * Parse the header of a complete file and validate it. `out` is valid until the file changes; close
 * it with safetensors_close(), also after an error. Memory: at most 20 times the header, so 2 GB
 * for the largest: a tensor's entry takes 19 bytes of the header at least and 112 in a list with
 * room for up to twice as many, of which the old and the new copy exist while it grows. Errors:
 * -EBADMSG (invalid file), -ENOMEM.
 */
int safetensors_open(const uint8_t *file, uint64_t bytes, struct safetensors *out);
void safetensors_close(struct safetensors *file);
/* NULL: no tensor of this name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);
/* The value of this key in `__metadata__`. */
struct text safetensors_about(const struct safetensors *file, const char *key);

#endif

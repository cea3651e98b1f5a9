/* SPDX-License-Identifier: MIT */
/*
 * The one reader of safetensors files: as strict as the format's reference reader, no stricter (a
 * test holds both to the same verdict on mutated files). What a calibration or a model wants of the
 * tensors is looked at by their own readers.
 */
#ifndef SPECKV_CODEC_SAFETENSORS_H
#define SPECKV_CODEC_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_HEADER_MOST UINT64_C(100000000)
#define SAFETENSORS_DIMENSIONS 5

/* UTF-8 without its escapes; not terminated. NULL: there is none. */
struct text {
	const char *at;
	size_t length;
};

struct safetensors_tensor {
	struct text name;
	const char *dtype; /* "BF16" */
	uint64_t shape[SAFETENSORS_DIMENSIONS]; /* the first ones */
	uint64_t dimensions; /* all of them */
	uint64_t begin, end; /* offsets in the data: the bytes that dtype and shape ask for */
	uint64_t elements; /* the product of all */
	size_t place; /* among the members of the header */
	uint32_t bits; /* of an element */
	bool overflow; /* the product has more than 64 bits: not in a sound file */
};

struct safetensors_entry {
	struct text key, value;
};

/* A sound file. All pointers are into the file, or owned by this. */
struct safetensors {
	const uint8_t *data;
	uint64_t data_bytes;
	/* in the order of their data, which they fill without holes */
	struct safetensors_tensor *tensors;
	size_t count;
	/* in the order of the file; of a key that comes twice the last one counts */
	struct safetensors_entry *metadata;
	size_t entries;
	char *strings; /* those that had escapes */
};

/*
 * Reads the header of a whole file and checks all that the format asks for. `out` is valid until
 * the file changes, and closed by safetensors_close(), also after an error. Memory: at most 20
 * times the header, so 2 GB for the largest: a tensor's entry takes 19 bytes of the header at least
 * and 112 in a list that has room for up to twice as many, and holds both its old and its new place
 * while it grows. Errors: -EBADMSG (not a sound file), -ENOMEM.
 */
int safetensors_open(const uint8_t *file, uint64_t bytes, struct safetensors *out);
void safetensors_close(struct safetensors *file);
/* NULL: no tensor of this name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);
/* What `__metadata__` says under this key. */
struct text safetensors_about(const struct safetensors *file, const char *key);

static inline bool text_is(struct text text, const char *what)
{
	return text.at && text.length == __builtin_strlen(what) &&
		!__builtin_memcmp(text.at, what, text.length);
}

#endif

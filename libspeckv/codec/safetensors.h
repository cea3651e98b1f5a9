/* SPDX-License-Identifier: MIT */
/* The table of a calibration's safetensors file: which tensors there are, and where. FORMAT.md 7.1 is the definition. */
#ifndef SPECKV_CODEC_SAFETENSORS_H
#define SPECKV_CODEC_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAFETENSORS_FILE_MOST (UINT64_C(1) << 30)
#define SAFETENSORS_DIMENSIONS 5

/* A piece of the file; escapes stay as they are. */
struct text {
	const char *at;
	size_t length;
};

/* One that is looked for by name, of a type; what is found is its shape and its bytes, as many as those ask for. */
struct tensor {
	const char *name, *dtype;
	uint64_t shape[SAFETENSORS_DIMENSIONS];
	const uint8_t *data;
	unsigned int dimensions;
	bool found;
};

/* What `__metadata__` says that matters. */
struct safetensors_about {
	struct text format, version, rotary;
};

/*
 * Looks through a file for the tensors in `wanted`, which a nameless one ends. -EBADMSG: not such a file, or it has others, or they do not
 * fill it.
 */
int safetensors_scan(const uint8_t *file, uint64_t bytes, struct tensor *wanted, struct safetensors_about *about);

static inline bool text_is(struct text text, const char *what)
{
	return text.length == __builtin_strlen(what) && !__builtin_memcmp(text.at, what, text.length);
}

#endif

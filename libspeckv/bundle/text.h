/* SPDX-License-Identifier: MIT */
/*
 * Text of bundles, read and written by the same rules. After the first error `bad` is set, and
 * nothing more is read or written.
 */
#ifndef SPECKV_BUNDLE_TEXT_H
#define SPECKV_BUNDLE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bundle_reader {
	const uint8_t *at;
	const uint8_t *end;
	bool bad;
};

struct bundle_writer {
	char *at;
	char *end;
	bool bad;
};

void bundle_expect(struct bundle_reader *r, const char *literal);
bool bundle_next_is(const struct bundle_reader *r, char c);
void bundle_put(struct bundle_writer *w, const char *text, size_t n);
void bundle_put_text(struct bundle_writer *w, const char *text);
/* May this character be in a string? */
bool bundle_plain(uint8_t c);
/* Read a string, with its quotes; not empty. */
void bundle_read_text(struct bundle_reader *r, char *out, size_t capacity);
void bundle_put_integer(struct bundle_writer *w, uint64_t value);
uint64_t bundle_read_integer(struct bundle_reader *r, uint64_t max);
void bundle_put_hex(struct bundle_writer *w, const uint8_t *bytes, size_t n);
void bundle_read_hex(struct bundle_reader *r, uint8_t *out, size_t n);
void bundle_put_base64(struct bundle_writer *w, const uint8_t *bytes, size_t n);
/* Read up to the closing quote, which is not consumed. */
size_t bundle_read_base64(struct bundle_reader *r, uint8_t *out, size_t capacity);

#endif

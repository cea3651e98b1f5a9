/* SPDX-License-Identifier: MIT */
/*
 * Scanner of JSON text, for parsers that know what comes next: they peek, take and expect. After
 * the first error `rc` is set, and the caller stops.
 */
#ifndef SPECKV_CODEC_JSON_H
#define SPECKV_CODEC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MOST 127 /* of nested arrays and objects */

/* UTF-8 with its escapes decoded; not terminated. NULL: absent. */
struct text {
	const char *at;
	size_t length;
};

/* Begin with `at` and `end`, of valid UTF-8, and zeros. */
struct json_scan {
	const char *at, *end;
	char *strings; /* decoded strings; the caller frees them */
	size_t strings_used;
	unsigned int depth;
	int rc; /* the first error: -EBADMSG, -ENOMEM */
};

bool json_utf8_valid(const uint8_t *at, const uint8_t *end);
/* Set -EBADMSG, unless there was an error before. */
void json_wrong(struct json_scan *s);
/* Skip white space; 0 at the end. */
char json_peek(struct json_scan *s);
bool json_take(struct json_scan *s, char c);
void json_expect(struct json_scan *s, char c);
/* Begin and end an array or an object. */
void json_enter(struct json_scan *s, char c);
void json_leave(struct json_scan *s, char c);
struct text json_string(struct json_scan *s);
/* An integer without sign, leading zero or fraction. */
uint64_t json_integer(struct json_scan *s);
void json_word(struct json_scan *s, const char *what);
/* Skip the value of an ignored member. */
void json_skip(struct json_scan *s);

static inline bool text_is(struct text text, const char *what)
{
	return text.at && text.length == __builtin_strlen(what) &&
		!__builtin_memcmp(text.at, what, text.length);
}

#endif

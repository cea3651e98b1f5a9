// SPDX-License-Identifier: MIT
/* Scanner of JSON text, bounded by its end and in its depth: nothing in it is trusted. */
#include <errno.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

void json_wrong(struct json_scan *s)
{
	if (!s->rc)
		s->rc = -EBADMSG;
}

bool json_utf8_valid(const uint8_t *at, const uint8_t *end)
{
	while (at < end) {
		unsigned int more = *at < 0x80 ? 0
			: *at < 0xc2	       ? 9
			: *at < 0xe0	       ? 1
			: *at < 0xf0	       ? 2
			: *at < 0xf5	       ? 3
					       : 9;
		uint32_t code = more == 1 ? *at & 0x1fu : more == 2 ? *at & 0xfu : *at & 7u;

		if (more > (size_t)(end - at) - 1)
			return false;
		for (unsigned int i = 1; i <= more; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return false;
			code = code << 6 | (at[i] & 0x3fu);
		}
		if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
			(more == 3 && (code < 0x10000 || code > 0x10ffff)))
			return false;
		at += more + 1;
	}
	return true;
}

char json_peek(struct json_scan *s)
{
	while (s->at < s->end &&
		(*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : 0;
}

bool json_take(struct json_scan *s, char c)
{
	if (s->rc || json_peek(s) != c || s->at == s->end)
		return false;
	s->at++;
	return true;
}

void json_expect(struct json_scan *s, char c)
{
	if (!json_take(s, c))
		json_wrong(s);
}

void json_enter(struct json_scan *s, char c)
{
	json_expect(s, c);
	if (++s->depth > JSON_DEPTH_MOST)
		json_wrong(s);
}

void json_leave(struct json_scan *s, char c)
{
	json_expect(s, c);
	s->depth--;
}

static uint32_t hex4(struct json_scan *s)
{
	uint32_t value = 0;

	if (s->end - s->at < 4) {
		json_wrong(s);
		return 0;
	}
	for (int i = 0; i < 4; i++) {
		char c = *s->at++, low = (char)(c | 0x20);

		if (c >= '0' && c <= '9')
			value = value << 4 | (uint32_t)(c - '0');
		else if (low >= 'a' && low <= 'f')
			value = value << 4 | (uint32_t)(low - 'a' + 10);
		else
			json_wrong(s);
	}
	return value;
}

static size_t put_utf8(char *to, uint32_t code)
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 0x3f));
		to[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 0x3f));
	to[2] = (char)(0x80 | (code >> 6 & 0x3f));
	to[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

/* Parse an escape, after the backslash. Surrogates come in pairs, the high one first. */
static uint32_t escape(struct json_scan *s)
{
	static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	char c = s->at < s->end ? *s->at++ : 0;
	const char *known = c ? strchr(plain, c) : NULL;
	uint32_t code;

	if (known)
		return (uint32_t)meant[known - plain];
	if (c != 'u') {
		json_wrong(s);
		return 0;
	}
	code = hex4(s);
	if (code >= 0xd800 && code < 0xdc00) {
		uint32_t low = 0;

		if (s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
			s->at += 2;
			low = hex4(s);
		}
		if (low < 0xdc00 || low > 0xdfff)
			json_wrong(s);
		return 0x10000 + ((code - 0xd800) << 10 | (low & 0x3ff));
	}
	if (code >= 0xdc00 && code < 0xe000)
		json_wrong(s);
	return code;
}

/*
 * Decode a string with escapes, which is never longer than its encoding. `s->at`: its first
 * backslash.
 */
static struct text unescape(struct json_scan *s, const char *first)
{
	struct text out;
	char *to;

	if (!s->strings) {
		s->strings = malloc((size_t)(s->end - first));
		if (!s->strings) {
			s->rc = -ENOMEM;
			return (struct text){ 0 };
		}
	}
	to = s->strings + s->strings_used;
	memcpy(to, first, (size_t)(s->at - first));
	out = (struct text){ .at = to, .length = (size_t)(s->at - first) };
	while (!s->rc && s->at < s->end && *s->at != '"') {
		char c = *s->at++;

		if ((unsigned char)c < 0x20)
			json_wrong(s);
		else if (c == '\\')
			out.length += put_utf8(to + out.length, escape(s));
		else
			to[out.length++] = c;
	}
	s->strings_used += out.length;
	return out;
}

struct text json_string(struct json_scan *s)
{
	struct text out;

	json_expect(s, '"');
	if (s->rc)
		return (struct text){ 0 };
	out.at = s->at;
	while (s->at < s->end && *s->at != '"' && *s->at != '\\' && (unsigned char)*s->at >= 0x20)
		s->at++;
	if (s->at < s->end && *s->at == '\\')
		out = unescape(s, out.at);
	else
		out.length = (size_t)(s->at - out.at);
	if (s->rc || s->at == s->end || *s->at != '"')
		json_wrong(s);
	else
		s->at++;
	return out;
}

static bool digit(const struct json_scan *s)
{
	return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

uint64_t json_integer(struct json_scan *s)
{
	uint64_t value = 0;

	json_peek(s);
	if (!digit(s) ||
		(*s->at == '0' && s->end - s->at > 1 && s->at[1] >= '0' && s->at[1] <= '9'))
		json_wrong(s);
	for (; !s->rc && digit(s); s->at++)
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*s->at - '0'), &value))
			json_wrong(s);
	if (s->at < s->end && (*s->at == '.' || *s->at == 'e' || *s->at == 'E'))
		json_wrong(s);
	return value;
}

/*
 * Skip a number in an ignored member. One beyond a double's range is an error, as in the reference.
 */
static void number(struct json_scan *s)
{
	uint64_t significand = 0;
	int64_t exponent = 0, written = 0;
	bool negative = false;
	double value;

	if (*s->at == '-')
		s->at++;
	if (!digit(s) ||
		(*s->at == '0' && s->end - s->at > 1 && s->at[1] >= '0' && s->at[1] <= '9'))
		json_wrong(s);
	for (; digit(s); s->at++)
		if (exponent || significand > (UINT64_MAX - (uint64_t)(*s->at - '0')) / 10)
			exponent++;
		else
			significand = significand * 10 + (uint64_t)(*s->at - '0');
	if (s->at < s->end && *s->at == '.') {
		bool full = exponent;

		s->at++;
		if (!digit(s))
			json_wrong(s);
		for (; digit(s); s->at++) {
			full = full || significand > (UINT64_MAX - (uint64_t)(*s->at - '0')) / 10;
			if (!full) {
				significand = significand * 10 + (uint64_t)(*s->at - '0');
				exponent--;
			}
		}
	}
	if (s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
		s->at++;
		if (s->at < s->end && (*s->at == '-' || *s->at == '+'))
			negative = *s->at++ == '-';
		if (!digit(s))
			json_wrong(s);
		for (; digit(s); s->at++)
			written = written > 1000000000 ? written : written * 10 + (*s->at - '0');
	}
	exponent += negative ? -written : written;
	value = (double)significand;
	if (exponent > 308 && significand)
		json_wrong(s);
	for (; significand && exponent > 0 && exponent <= 308; exponent--)
		value *= 10;
	if (value > DBL_MAX)
		json_wrong(s);
}

void json_word(struct json_scan *s, const char *what)
{
	size_t n = strlen(what);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, what, n) != 0)
		json_wrong(s);
	else
		s->at += n;
}

void json_skip(struct json_scan *s)
{
	unsigned int outer = s->depth;
	uint8_t objects[JSON_DEPTH_MOST + 1]; /* for each open container: is it an object? */

	do {
		char c = json_peek(s);

		if (c == '{' || c == '[') {
			json_enter(s, c);
			if (s->rc)
				return;
			objects[s->depth] = c == '{';
			if (json_peek(s) != (c == '{' ? '}' : ']')) {
				if (c == '{') {
					json_string(s);
					json_expect(s, ':');
				}
				continue;
			}
		} else if (c == '"') {
			json_string(s);
		} else if (c == 't') {
			json_word(s, "true");
		} else if (c == 'f') {
			json_word(s, "false");
		} else if (c == 'n') {
			json_word(s, "null");
		} else if (c) {
			number(s);
		} else {
			json_wrong(s);
		}
		/*
		 * After a value: the next one of this container, or the end of this and perhaps of
		 * outer ones.
		 */
		while (!s->rc && s->depth > outer && !json_take(s, ','))
			json_leave(s, objects[s->depth] ? '}' : ']');
		if (!s->rc && s->depth > outer && objects[s->depth]) {
			json_string(s);
			json_expect(s, ':');
		}
	} while (!s->rc && s->depth > outer);
}

// SPDX-License-Identifier: MIT
/* Text of bundles: literals, integers, hexadecimal, base64, strings. */
#include <stdio.h>
#include <string.h>

#include "bundle/text.h"

void bundle_expect(struct bundle_reader *r, const char *literal)
{
	size_t n = strlen(literal);

	if (r->bad || (size_t)(r->end - r->at) < n || memcmp(r->at, literal, n) != 0) {
		r->bad = true;
		return;
	}
	r->at += n;
}

bool bundle_next_is(const struct bundle_reader *r, char c)
{
	return !r->bad && r->at < r->end && *r->at == (uint8_t)c;
}

void bundle_put(struct bundle_writer *w, const char *text, size_t n)
{
	if (w->bad || (size_t)(w->end - w->at) < n) {
		w->bad = true;
		return;
	}
	memcpy(w->at, text, n);
	w->at += n;
}

void bundle_put_text(struct bundle_writer *w, const char *text)
{
	bundle_put(w, text, strlen(text));
}

void bundle_put_integer(struct bundle_writer *w, uint64_t value)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
	bundle_put_text(w, digits);
}

uint64_t bundle_read_integer(struct bundle_reader *r, uint64_t max)
{
	uint64_t value = 0;
	const uint8_t *first = r->at;

	while (!r->bad && r->at < r->end && *r->at >= '0' && *r->at <= '9') {
		uint64_t digit = (uint64_t)(*r->at - '0');

		if (value > (max - digit) / 10) {
			r->bad = true;
			return 0;
		}
		value = 10 * value + digit;
		r->at++;
	}
	if (r->at == first || (*first == '0' && r->at - first > 1))
		r->bad = true;
	return value;
}

static const char hex_digits[] = "0123456789abcdef";

void bundle_put_hex(struct bundle_writer *w, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bundle_put(w, &hex_digits[bytes[i] >> 4], 1);
		bundle_put(w, &hex_digits[bytes[i] & 15], 1);
	}
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void bundle_read_hex(struct bundle_reader *r, uint8_t *out, size_t n)
{
	if (r->bad || (size_t)(r->end - r->at) / 2 < n) {
		r->bad = true;
		return;
	}
	for (size_t i = 0; i < n; i++, r->at += 2) {
		int high = hex_value(r->at[0]), low = hex_value(r->at[1]);

		if (high < 0 || low < 0) {
			r->bad = true;
			return;
		}
		out[i] = (uint8_t)(high << 4 | low);
	}
}

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void bundle_put_base64(struct bundle_writer *w, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i += 3) {
		size_t have = n - i < 3 ? n - i : 3;
		uint32_t bits = (uint32_t)bytes[i] << 16;

		bits |= have > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
		bits |= have > 2 ? bytes[i + 2] : 0;
		for (size_t k = 0; k < 4; k++)
			bundle_put(w, k <= have ? &base64_digits[bits >> (18 - 6 * k) & 63] : "=",
				1);
	}
}

size_t bundle_read_base64(struct bundle_reader *r, uint8_t *out, size_t capacity)
{
	size_t n = 0;

	while (!r->bad && !bundle_next_is(r, '"')) {
		uint32_t bits = 0;
		size_t have = 3;

		if (r->end - r->at < 4) {
			r->bad = true;
			return 0;
		}
		if (r->at[3] == '=')
			have = r->at[2] == '=' ? 1 : 2;
		for (size_t k = 0; k <= have; k++) {
			const char *digit = r->at[k] ? strchr(base64_digits, r->at[k]) : NULL;

			if (!digit) {
				r->bad = true;
				return 0;
			}
			bits |= (uint32_t)(digit - base64_digits) << (18 - 6 * k);
		}
		r->at += 4;
		/* Padding only at the end, and unused bits zero: one encoding for each value. */
		if ((have < 3 &&
			    (!bundle_next_is(r, '"') || bits & ((1u << (24 - 8 * have)) - 1))) ||
			have > capacity - n) {
			r->bad = true;
			return 0;
		}
		for (size_t k = 0; k < have; k++)
			out[n++] = (uint8_t)(bits >> (16 - 8 * k));
	}
	return n;
}

bool bundle_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

void bundle_read_text(struct bundle_reader *r, char *out, size_t capacity)
{
	size_t n = 0;

	bundle_expect(r, "\"");
	while (!r->bad && r->at < r->end && bundle_plain(*r->at) && n < capacity - 1)
		out[n++] = (char)*r->at++;
	out[n] = '\0';
	r->bad = r->bad || n == 0;
	bundle_expect(r, "\"");
}

// SPDX-License-Identifier: MIT
/*
 * Mode int8-delta-rle: the reference paper's Algorithm 2. Each token of a head is scaled to int8 by
 * its largest magnitude; successive tokens are subtracted channel by channel; runs of equal
 * differences are run-length coded.
 *
 * Kept for comparison: differences of real KV rarely repeat. Defined by FORMAT.md section 4.
 */
#include <errno.h>
#include <string.h>

#include "float16.h"
#include "mode.h"

#define Q_MAX 127u
#define SCALES_BYTES (2 * CODEC_GROUP_TOKENS)
#define GROUP_MAX (CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX)

/* Run-length code: 0..127 announce 1..128 literals, 128..255 a run of 3..130. */
#define LITERALS_MAX 128
#define RUN_MIN 3
#define RUN_MAX 130

enum form { FORM_STORED = 0, FORM_RUNS = 1 };

static const struct float_layout *layout_of(const struct speckv_geometry *geometry)
{
	return float_layout(geometry->dtype);
}

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
}

static bool parameter_valid(uint32_t parameter)
{
	return parameter == FORM_STORED || parameter == FORM_RUNS;
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t section_max(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	return groups_of(geometry) *
		(SCALES_BYTES + CODEC_GROUP_TOKENS * (uint64_t)geometry->head_dim);
}

static uint64_t section_min(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	return groups_of(geometry) *
		(SCALES_BYTES +
			2 *
				((CODEC_GROUP_TOKENS * (uint64_t)geometry->head_dim + RUN_MAX - 1) /
					RUN_MAX));
}

static uint32_t round_quotient(uint32_t numerator, uint32_t denominator)
{
	uint32_t quotient = numerator / denominator;
	uint32_t twice = 2 * (numerator % denominator);

	return quotient + (twice > denominator || (twice == denominator && (quotient & 1)));
}

/* Nearest integer to Q_MAX * magnitude / largest, ties to even. largest is not 0. */
static uint32_t quantise(const struct float_layout *layout, uint32_t magnitude, uint32_t largest)
{
	uint32_t significand, divisor;
	uint32_t exponent = float_split(layout, magnitude, &significand);
	uint32_t down = float_split(layout, largest, &divisor) - exponent;

	/*
	 * Q_MAX * 2^11 is less than half of 2^7 << 20: such a value rounds to 0, and smaller shifts
	 * do not overflow.
	 */
	return down >= 20 ? 0 : round_quotient(Q_MAX * significand, divisor << down);
}

/* Magnitude bits of the float nearest to q * largest / Q_MAX, ties to even. */
static uint32_t scale_back(const struct float_layout *layout, uint32_t q, uint32_t largest)
{
	uint32_t significand;
	uint32_t exponent = float_split(layout, largest, &significand);
	uint32_t numerator = q * significand;

	/* Normalise to the type's significant bits, or to the smallest exponent. */
	while (exponent > 1 && numerator &&
		2 * numerator < (Q_MAX << (layout->mantissa_bits + 1))) {
		numerator *= 2;
		exponent--;
	}
	if (!numerator)
		return 0;
	/* The implicit bit adds one to the exponent field, a carry of the rounding another. */
	return ((exponent - 1) << layout->mantissa_bits) + round_quotient(numerator, Q_MAX);
}

/* Compute scales and wrapped differences of one group: 64 tokens of one head. */
static int group_differences(const struct float_layout *layout, unsigned int head_dim,
	const uint8_t *raw, uint8_t *scales, uint8_t *differences)
{
	uint8_t before[CODEC_HEAD_DIM_MAX] = { 0 };

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		uint32_t largest = 0;

		for (unsigned int c = 0; c < head_dim; c++) {
			uint32_t magnitude = codec_get16(raw + 2 * c) & 0x7fff;

			if (magnitude > largest)
				largest = magnitude;
		}
		if (largest >= layout->infinity)
			return -ENODATA;
		codec_put16(scales + 2 * t, (uint16_t)largest);
		for (unsigned int c = 0; c < head_dim; c++) {
			uint32_t bits = codec_get16(raw + 2 * c);
			uint32_t q = largest ? quantise(layout, bits & 0x7fff, largest) : 0;
			uint8_t now = (uint8_t)(bits & 0x8000 ? -q : q);

			*differences++ = (uint8_t)(now - before[c]);
			before[c] = now;
		}
		raw += 2 * head_dim;
	}
	return 0;
}

static size_t run_at(const uint8_t *at, const uint8_t *end)
{
	size_t run = 1;

	if ((size_t)(end - at) > RUN_MAX)
		end = at + RUN_MAX;
	while (at + run < end && at[run] == at[0])
		run++;
	return run;
}

/*
 * Emit runs where possible, otherwise literals up to the next run. Returns the bytes written: at
 * most 129/128 of the input, plus one.
 */
static size_t shorten(const uint8_t *from, size_t bytes, uint8_t *to)
{
	const uint8_t *end = from + bytes;
	uint8_t *start = to;

	while (from < end) {
		size_t run = run_at(from, end), literals = 0;

		if (run >= RUN_MIN) {
			*to++ = (uint8_t)(128 + run - RUN_MIN);
			*to++ = *from;
			from += run;
			continue;
		}
		do
			literals++;
		while (from + literals < end && literals < LITERALS_MAX &&
			run_at(from + literals, end) < RUN_MIN);
		*to++ = (uint8_t)(literals - 1);
		memcpy(to, from, literals);
		to += literals;
		from += literals;
	}
	return (size_t)(to - start);
}

/* Returns 1 if FORM_RUNS is not shorter than FORM_STORED. */
static int encode_form(const struct speckv_geometry *geometry, enum form form, const uint8_t *raw,
	uint8_t *out, struct codec_section *section)
{
	const struct float_layout *layout = layout_of(geometry);
	size_t group_bytes = (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
	uint8_t differences[GROUP_MAX],
		packed[SCALES_BYTES + GROUP_MAX + GROUP_MAX / LITERALS_MAX + 1];
	uint64_t limit = section_max(geometry, CODEC_K), length = 0;
	uint32_t crc = 0;

	for (uint64_t group = 0; group < groups_of(geometry); group++, raw += 2 * group_bytes) {
		size_t bytes = SCALES_BYTES + group_bytes;
		int rc = group_differences(layout, geometry->head_dim, raw, packed,
			form == FORM_RUNS ? differences : packed + SCALES_BYTES);

		if (rc)
			return rc;
		if (form == FORM_RUNS) {
			bytes = SCALES_BYTES +
				shorten(differences, group_bytes, packed + SCALES_BYTES);
			if (length + bytes >= limit)
				return 1;
		}
		crc = speckv_crc32c_copy(crc, out + length, packed, bytes);
		length += bytes;
	}
	section->length = (uint32_t)length;
	section->crc = crc;
	section->parameter = form;
	return 0;
}

static int encode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	uint64_t position, const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	int rc;

	(void)position;
	(void)tensor;
	rc = encode_form(geometry, FORM_RUNS, raw, out, section);
	return rc == 1 ? encode_form(geometry, FORM_STORED, raw, out, section) : rc;
}

/* A section as a stream: bytes are copied and checksummed once, then read from the copy. */
struct stream {
	const uint8_t *from;
	uint64_t left; /* bytes not copied yet */
	uint32_t crc;
	size_t at, have;
	uint8_t window[4096];
};

static bool stream_read(struct stream *stream, uint8_t *to, size_t bytes)
{
	while (bytes) {
		size_t now = stream->have - stream->at;

		if (!now) {
			now = stream->left < sizeof(stream->window) ? (size_t)stream->left
								    : sizeof(stream->window);
			if (!now)
				return false;
			stream->crc =
				speckv_crc32c_copy(stream->crc, stream->window, stream->from, now);
			stream->from += now;
			stream->left -= now;
			stream->at = 0;
			stream->have = now;
		}
		if (now > bytes)
			now = bytes;
		memcpy(to, stream->window + stream->at, now);
		stream->at += now;
		to += now;
		bytes -= now;
	}
	return true;
}

/* Expand to exactly `bytes` differences; a code for more is invalid. */
static bool lengthen(struct stream *stream, uint8_t *to, size_t bytes)
{
	while (bytes) {
		uint8_t control, value;
		size_t count;

		if (!stream_read(stream, &control, 1))
			return false;
		count = control < 128 ? (size_t)control + 1 : (size_t)control - 128 + RUN_MIN;
		if (count > bytes)
			return false;
		if (control < 128) {
			if (!stream_read(stream, to, count))
				return false;
		} else {
			if (!stream_read(stream, &value, 1))
				return false;
			memset(to, value, count);
		}
		to += count;
		bytes -= count;
	}
	return true;
}

static bool group_values(const struct float_layout *layout, unsigned int head_dim,
	const uint8_t *scales, const uint8_t *differences, uint8_t *raw)
{
	uint8_t now[CODEC_HEAD_DIM_MAX] = { 0 };

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		uint32_t largest = codec_get16(scales + 2 * t);

		if (largest >= layout->infinity) /* also catches a sign bit */
			return false;
		for (unsigned int c = 0; c < head_dim; c++) {
			uint32_t bits;
			int q;

			now[c] = (uint8_t)(now[c] + *differences++);
			q = (int8_t)now[c];
			if (q < -(int)Q_MAX)
				return false;
			bits = scale_back(layout, (uint32_t)(q < 0 ? -q : q), largest);
			codec_put16(raw, (uint16_t)(q < 0 && bits ? bits | 0x8000 : bits));
			raw += 2;
		}
	}
	return true;
}

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	const struct codec_section *section, const uint8_t *in, uint8_t *raw, bool streamed)
{
	const struct float_layout *layout = layout_of(geometry);
	size_t group_bytes = (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
	uint8_t scales[SCALES_BYTES], differences[GROUP_MAX] = { 0 };
	struct stream stream = { .from = in, .left = section->length };

	(void)tensor;
	(void)streamed;
	for (uint64_t group = 0; group < groups_of(geometry); group++, raw += 2 * group_bytes) {
		if (!stream_read(&stream, scales, sizeof(scales)))
			return -EBADMSG;
		if (section->parameter == FORM_RUNS
				? !lengthen(&stream, differences, group_bytes)
				: !stream_read(&stream, differences, group_bytes))
			return -EBADMSG;
		if (!group_values(layout, geometry->head_dim, scales, differences, raw))
			return -EBADMSG;
	}
	if (stream.left || stream.at != stream.have || stream.crc != section->crc)
		return -EBADMSG;
	return 0;
}

const struct codec_mode codec_mode_int8_delta_rle = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_max,
	.section_min = section_min,
	.encode = encode,
	.decode = decode,
};

// SPDX-License-Identifier: MIT
/*
 * Mode lossless. Exponents and the top bit of the mantissa are range-coded with 64 interleaved
 * states by their frequencies in the section; signs and the rest of the mantissa are nearly
 * incompressible and stay plain. A section that does not shrink is stored. Defined by FORMAT.md
 * section 6; the portable kernels follow it word by word.
 */
#include <errno.h>
#include <string.h>

#include "kernels.h"
#include "lossless.h"
#include "piece.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return codec_head_dim_lossy(geometry->head_dim);
}

static bool parameter_valid(uint32_t parameter)
{
	return parameter == LOSSLESS_STORED || parameter == LOSSLESS_CODED ||
		parameter == LOSSLESS_SHIFTED;
}

static uint64_t section_max(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	return codec_section_raw_bytes(geometry);
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t section_min(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	uint32_t plain =
		lossless_plain_bytes(geometry->head_dim, lossless_layout(geometry->dtype).plain);

	(void)tensor;
	/*
	 * The smallest states take as many bytes as the plain bits that they hold. Less than the
	 * raw bytes for every dtype and head size.
	 */
	return LOSSLESS_HEADER_BYTES + groups_of(geometry) * (LOSSLESS_COUNTS_BYTES + plain);
}

/* ---- tables --------------------------------------------------------------------------------- */

/*
 * Base value of every channel: the section's origin plus the head's offsets, in octaves. `offsets`
 * NULL: none.
 */
void codec_lossless_base(uint16_t origin, const uint8_t *offsets, unsigned int head_dim,
	uint16_t *base)
{
	/* Runs of 64 elements may begin in any channel: repeat the first ones after the end. */
	for (unsigned int i = 0; i < head_dim + RANGE_STATES; i++) {
		unsigned int c = i % head_dim;

		base[i] = (uint16_t)(origin +
			(offsets ? 2 * (offsets[c / 2] >> 4 * (c % 2) & 15) : 0));
	}
}

/* ---- portable kernels ----------------------------------------------------------------------- */

/* Inlined for each dtype, so that shifts are by constants. */
#define INLINE static inline __attribute__((always_inline))

#define FOR_LAYOUT(dtype, call)                                    \
	do {                                                       \
		switch (dtype) {                                   \
		case SPECKV_DTYPE_BF16:                            \
			call(((struct lossless_layout){ 2, 7 }));  \
			break;                                     \
		case SPECKV_DTYPE_FP16:                            \
			call(((struct lossless_layout){ 2, 10 })); \
			break;                                     \
		case SPECKV_DTYPE_FP8_E4M3:                        \
			call(((struct lossless_layout){ 1, 3 }));  \
			break;                                     \
		default:                                           \
			call(((struct lossless_layout){ 1, 2 }));  \
			break;                                     \
		}                                                  \
	} while (0)

INLINE void merge(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
	const uint16_t *base, unsigned int head_dim, struct lossless_layout layout, uint8_t *raw)
{
	uint32_t low = layout.plain - 1, mask = lossless_value_mask(layout);

	for (unsigned int t = 0, e = 0; t < CODEC_GROUP_TOKENS; t++)
		for (unsigned int c = 0; c < head_dim; c++, e++) {
			uint32_t bits = range_get_bits(plain, e * layout.plain, layout.plain),
				 value = (uint32_t)base[c] + symbols[e], word;

			if (__builtin_expect(symbols[e] == RANGE_ESCAPE, 0)) {
				value = codec_get16(escapes);
				escapes += 2;
			}
			word = bits >> low << (8 * layout.bytes - 1) | (value & mask) << low |
				(bits & ((1u << low) - 1));
			if (layout.bytes == 1)
				raw[e] = (uint8_t)word;
			else
				codec_put16(raw + 2 * (size_t)e, (uint16_t)word);
		}
}

#define MERGE(layout) merge(symbols, plain, escapes, base, head_dim, layout, raw)

void codec_lossless_merge_portable(const uint8_t *symbols, const uint8_t *plain,
	const uint8_t *escapes, const uint16_t *base, unsigned int head_dim, unsigned int dtype,
	uint8_t *raw, bool streamed)
{
	(void)streamed;
	FOR_LAYOUT(dtype, MERGE);
}

INLINE uint32_t split(const uint8_t *raw, const struct range_table *table, const uint16_t *base,
	unsigned int head_dim, struct lossless_layout layout, uint8_t *symbols, uint8_t *plain,
	uint8_t *escapes)
{
	uint32_t low = layout.plain - 1, mask = lossless_value_mask(layout), taken = 0,
		 most = LOSSLESS_ESCAPES_MAX(head_dim);
	unsigned int filled = 0;
	uint64_t string = 0;

	for (unsigned int t = 0, e = 0; t < CODEC_GROUP_TOKENS; t++)
		for (unsigned int c = 0; c < head_dim; c++, e++) {
			uint32_t word = layout.bytes == 1 ? raw[e]
							  : codec_get16(raw + 2 * (size_t)e);
			uint32_t value = word >> low & mask, symbol = (value - base[c]) & mask;

			/*
			 * Whole bytes are flushed after at most eight elements (8 * 7 bits) or four
			 * (4 * 10).
			 */
			string |= (uint64_t)(word >> (8 * layout.bytes - 1) << low |
					  (word & ((1u << low) - 1)))
				<< filled;
			filled += layout.plain;
			if (e % 4 == 3 && filled % 8 == 0) {
				for (; filled; filled -= 8, string >>= 8)
					*plain++ = (uint8_t)string;
			}
			if (__builtin_expect(symbol >= RANGE_ESCAPE ||
					    !table->frequency[symbol & 31],
				    0)) {
				symbol = RANGE_ESCAPE;
				if (taken < most)
					codec_put16(escapes + 2 * (size_t)taken, (uint16_t)value);
				taken++;
			}
			symbols[e] = (uint8_t)symbol;
		}
	return taken;
}

#define SPLIT(layout) return split(raw, table, base, head_dim, layout, symbols, plain, escapes)

uint32_t codec_lossless_split_portable(const uint8_t *raw, const struct range_table *table,
	const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *symbols,
	uint8_t *plain, uint8_t *escapes)
{
	FOR_LAYOUT(dtype, SPLIT);
}

/* ---- decoding ------------------------------------------------------------------------------- */

static bool decode_group(struct piece_source *source, const struct range_table *table,
	const uint16_t *base, const struct speckv_geometry *geometry, uint8_t *raw, bool streamed)
{
	const struct codec_kernels *kernels = codec_kernels();
	unsigned int head_dim = geometry->head_dim;
	uint32_t plain_bytes =
			 lossless_plain_bytes(head_dim, lossless_layout(geometry->dtype).plain),
		 states[RANGE_STATES], code, escapes;
	uint32_t state_bytes, seen = 0;
	uint8_t record[LOSSLESS_RECORD_MAX + RANGE_SLACK],
		symbols[LOSSLESS_ELEMENTS_MAX] __attribute__((aligned(64))),
		counts[LOSSLESS_COUNTS_BYTES + 3] = { 0 }, *at, *last;

	if (!piece_take(source, counts, LOSSLESS_COUNTS_BYTES))
		return false;
	code = codec_get16(counts);
	escapes = codec_get16(counts + 2);
	if (code > CODEC_GROUP_TOKENS * head_dim || escapes > LOSSLESS_ESCAPES_MAX(head_dim))
		return false;
	state_bytes = range_states_bytes(counts + 4);
	if (!piece_take(source, record,
		    state_bytes + code + 2 * escapes + plain_bytes - RANGE_LAST_BYTES))
		return false;
	at = record + state_bytes;
	range_read_states(counts + 4, record, states);
	if (!kernels->range_symbols(table, NULL, at, code, head_dim, states, symbols))
		return false;
	for (unsigned int e = 0; e < CODEC_GROUP_TOKENS * head_dim; e++)
		seen += symbols[e] == RANGE_ESCAPE;
	if (seen != escapes)
		return false;
	at += code + 2 * escapes;
	last = at + plain_bytes - RANGE_LAST_BYTES;
	memset(last, 0, RANGE_LAST_BYTES + RANGE_SLACK);
	if (!range_end(states, last))
		return false;
	kernels->lossless_merge(symbols, at, at - 2 * escapes, base, head_dim, geometry->dtype, raw,
		streamed);
	return true;
}

static int decode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	const struct codec_section *section, const uint8_t *in, uint8_t *raw, bool streamed)
{
	struct piece_source source = { in, section->length, ~0u };
	uint64_t group_raw = (uint64_t)CODEC_GROUP_TOKENS * geometry->head_dim *
		codec_dtype_bytes(geometry->dtype);
	uint8_t header[LOSSLESS_HEADER_BYTES], offsets[CODEC_HEAD_DIM_MAX / 2];
	uint16_t base[CODEC_HEAD_DIM_MAX + RANGE_STATES];
	struct range_table table;

	(void)tensor;
	if (section->parameter == LOSSLESS_STORED) {
		const struct codec_kernels *kernels = codec_kernels();

		if (section->length != codec_section_raw_bytes(geometry))
			return -EBADMSG;
		source.state = (streamed ? kernels->crc_stream : kernels->crc_copy)(~0u, raw, in,
			section->length);
		return ~source.state == section->crc ? 0 : -EBADMSG;
	}
	if (!piece_take(&source, header, sizeof(header)) || !codec_range_table(header, &table))
		return -EBADMSG;
	for (unsigned int head = 0; head < geometry->kv_heads; head++) {
		if (section->parameter == LOSSLESS_SHIFTED &&
			!piece_take(&source, offsets, geometry->head_dim / 2))
			return -EBADMSG;
		codec_lossless_base(codec_get16(header + RANGE_SYMBOLS),
			section->parameter == LOSSLESS_SHIFTED ? offsets : NULL, geometry->head_dim,
			base);
		for (unsigned int t = 0; t < geometry->tokens;
			t += CODEC_GROUP_TOKENS, raw += group_raw)
			if (!decode_group(&source, &table, base, geometry, raw, streamed))
				return -EBADMSG;
	}
	return !source.left && ~source.state == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_lossless = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_max,
	.section_min = section_min,
	.encode = codec_lossless_encode,
	.decode = decode,
};

// SPDX-License-Identifier: MIT
/*
 * Mode lossless, choices of the encoder: frequencies, origin, offsets of channels, and whether to
 * code a section at all.
 */
#include <endian.h>
#include <string.h>

#include "kernels.h"
#include "lossless.h"
#include "piece.h"

/* An offset is one of 16 octaves. */
#define OFFSET_MAX 15
#define VALUES 512
/* Bias that keeps values less twice the offset from being negative. */
#define VALUES_LEAST (2 * OFFSET_MAX)
#define PLACES (VALUES_LEAST + VALUES)
/* Bytes to prefetch ahead at most: they stay in the cache of the second level. */
#define AHEAD_MOST (256u << 10)
#define WINDOW RANGE_ESCAPE
/* Cost of an escape in addition to its symbol. */
#define ESCAPE_BITS 16

/*
 * Values by the offset of their channel, from which follow the histograms of both forms. Four
 * neighbours count separately: equal ones would serialise on the same counter. Rows are zeroed when
 * an offset first occurs.
 */
struct counts {
	uint32_t of[(OFFSET_MAX + 1) * VALUES][4];
	uint32_t seen; /* bit map of offsets */
};

struct plan {
	uint8_t frequency[RANGE_SYMBOLS];
	uint16_t origin;
	uint64_t cost; /* in 1/256 bit */
};

struct shape {
	struct lossless_layout layout;
	unsigned int heads, tokens, head_dim;
	size_t token_bytes, ahead;
};

static inline __attribute__((always_inline)) void add(const uint8_t *token, unsigned int head_dim,
	unsigned int bytes, unsigned int plain, const uint16_t *to, uint16_t *sums)
{
	const uint16_t mask =
		(uint16_t)lossless_value_mask((struct lossless_layout){ bytes, plain });

	for (unsigned int c = 0; c < head_dim; c++) {
		uint16_t word = token[c];

		if (bytes == 2) {
			memcpy(&word, token + 2 * (size_t)c, sizeof(word));
			word = le16toh(word);
		}
		sums[c] = (uint16_t)(to[c] + (word >> (plain - 1) & mask));
	}
}

/* Add the values of a token to 16-bit numbers, one a channel; shifts are by constants. */
static void add_values(const struct shape *shape, const uint8_t *token, const uint16_t *to,
	uint16_t *sums)
{
	switch (shape->layout.plain) {
	case 7:
		add(token, shape->head_dim, 2, 7, to, sums);
		break;
	case 10:
		add(token, shape->head_dim, 2, 10, to, sums);
		break;
	case 3:
		add(token, shape->head_dim, 1, 3, to, sums);
		break;
	default:
		add(token, shape->head_dim, 1, 2, to, sums);
		break;
	}
}

/* Mean octave of each channel of a head, rounded to nearest. */
static void mean_octaves(const struct shape *shape, const uint8_t *raw, uint32_t *octaves)
{
	uint32_t all[CODEC_HEAD_DIM_MAX] = { 0 };
	unsigned int tokens = 0;

	do {
		uint16_t sums[CODEC_HEAD_DIM_MAX] = { 0 };

		/* Of 64 tokens: below 2^15. */
		for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++, raw += shape->token_bytes)
			add_values(shape, raw, sums, sums);
		for (unsigned int c = 0; c < shape->head_dim; c++)
			all[c] += sums[c];
		tokens += CODEC_GROUP_TOKENS;
	} while (tokens < shape->tokens);
	for (unsigned int c = 0; c < shape->head_dim; c++)
		octaves[c] = (all[c] + tokens) / (2 * tokens);
}

static uint8_t offset_of(uint32_t octave, uint32_t lowest)
{
	uint32_t above = octave > lowest ? octave - lowest : 0;

	return (uint8_t)(above < OFFSET_MAX ? above : OFFSET_MAX);
}

/* Offsets of a head's channels above the lowest mean of the section, two a byte. */
static void make_offsets(const struct shape *shape, const uint8_t *raw, uint32_t lowest,
	uint8_t *offsets)
{
	uint32_t octaves[CODEC_HEAD_DIM_MAX] = { 0 };

	mean_octaves(shape, raw, octaves);
	for (unsigned int c = 0; c < shape->head_dim; c += 2)
		offsets[c / 2] = (uint8_t)(offset_of(octaves[c], lowest) |
			offset_of(octaves[c + 1], lowest) << 4);
}

static inline unsigned int offset_at(const uint8_t *offsets, unsigned int c)
{
	return offsets[c / 2] >> 4 * (c % 2) & 15;
}

static void count_head(const struct shape *shape, const uint8_t *raw, const uint8_t *offsets,
	struct counts *counts)
{
	uint16_t rows[CODEC_HEAD_DIM_MAX], places[CODEC_HEAD_DIM_MAX];

	for (unsigned int c = 0; c < shape->head_dim; c++) {
		unsigned int offset = offset_at(offsets, c);

		rows[c] = (uint16_t)(offset * VALUES);
		if (!(counts->seen >> offset & 1))
			memset(counts->of[rows[c]], 0, VALUES * sizeof(counts->of[0]));
		counts->seen |= 1u << offset;
	}
	for (unsigned int t = 0; t < shape->tokens; t++, raw += shape->token_bytes) {
		/* Prefetch the next section, which mostly follows in memory. */
		codec_fetch(raw + shape->ahead, shape->token_bytes);
		add_values(shape, raw, rows, places);
		for (unsigned int c = 0; c < shape->head_dim; c += 4) {
			counts->of[places[c]][0]++;
			counts->of[places[c + 1]][1]++;
			counts->of[places[c + 2]][2]++;
			counts->of[places[c + 3]][3]++;
		}
	}
}

/* 256 * log2(256 / frequency), rounded up. */
static uint32_t symbol_cost(uint32_t frequency)
{
	uint32_t above = 31u - (uint32_t)__builtin_clz(frequency), log2 = above;
	uint64_t x = (uint64_t)frequency << (31 - above);

	for (int bit = 0; bit < 8; bit++) {
		x = x * x >> 31;
		log2 = 2 * log2 + (uint32_t)(x >> 32);
		x >>= x >> 32;
	}
	return 256 * 8 - log2;
}

/*
 * Frequencies out of 256 for each symbol that occurs, near optimal: rounded, at least 1, then
 * adjusted one by one where it costs least. Symbols with a share below 1/2048 are escaped.
 */
static void make_frequencies(const uint64_t *count, uint64_t all, uint8_t *frequency)
{
	uint64_t kept[RANGE_SYMBOLS] = { 0 };
	uint32_t share[RANGE_SYMBOLS] = { 0 }, sum = 0;

	kept[RANGE_ESCAPE] = all;
	for (unsigned int s = 0; s < RANGE_ESCAPE; s++)
		if (count[s] * 2048 >= all) {
			kept[s] = count[s];
			kept[RANGE_ESCAPE] -= count[s];
		}
	for (unsigned int s = 0; s < RANGE_SYMBOLS; s++) {
		if (kept[s] || s == RANGE_ESCAPE) {
			share[s] = (uint32_t)((kept[s] * 256 + all / 2) / all);
			share[s] += !share[s];
		}
		sum += share[s];
	}
	while (sum != 256) {
		unsigned int best = RANGE_SYMBOLS;
		bool fewer = sum > 256;

		for (unsigned int s = 0; s < RANGE_SYMBOLS; s++) {
			if (share[s] <= fewer)
				continue;
			/*
			 * Loss of the last unit, gain of the next one: about count / (share -+
			 * 1/2).
			 */
			if (best == RANGE_SYMBOLS ||
				(fewer ? kept[s] * (2 * share[best] - 1) <
							kept[best] * (2 * share[s] - 1)
				       : kept[s] * (2 * share[best] + 1) >
							kept[best] * (2 * share[s] + 1)))
				best = s;
		}
		share[best] += fewer ? -1u : 1u;
		sum += fewer ? -1u : 1u;
	}
	for (unsigned int s = 0; s < RANGE_SYMBOLS; s++)
		frequency[s] = (uint8_t)share[s];
}

/* Find the best window of 31 values, its frequencies, and the cost of coding by them. */
static void make_plan(const uint32_t *counts, struct plan *plan)
{
	uint64_t count[PLACES], window = 0, most = 0, all = 0;
	unsigned int first = 0;

	for (unsigned int v = 0; v < PLACES; v++) {
		count[v] = counts[v];
		all += count[v];
		window += count[v];
		if (v >= WINDOW)
			window -= count[v - WINDOW];
		if (v + 1 >= WINDOW && window > most) {
			most = window;
			first = v + 1 - WINDOW;
		}
	}
	plan->origin = (uint16_t)(first - VALUES_LEAST);
	make_frequencies(count + first, all, plan->frequency);
	plan->cost = all * (symbol_cost(plan->frequency[RANGE_ESCAPE]) + 256 * ESCAPE_BITS);
	for (unsigned int s = 0; s < RANGE_ESCAPE; s++)
		if (plan->frequency[s]) {
			plan->cost += count[first + s] * symbol_cost(plan->frequency[s]);
			plan->cost -= count[first + s] *
				(symbol_cost(plan->frequency[RANGE_ESCAPE]) + 256 * ESCAPE_BITS);
		}
}

/* Returns the form, with the plan and offset base that its header needs. */
static enum lossless_form choose(const struct shape *shape, const uint8_t *raw, struct plan *plan,
	uint32_t *lowest)
{
	size_t head_bytes = shape->tokens * shape->token_bytes;
	uint32_t as_is[PLACES] = { 0 }, shifted[PLACES] = { 0 };
	struct counts counts;
	struct plan other;

	counts.seen = 0;
	*lowest = UINT32_MAX;
	for (unsigned int head = 0; head < shape->heads; head++) {
		uint32_t octaves[CODEC_HEAD_DIM_MAX];

		mean_octaves(shape, raw + head * head_bytes, octaves);
		for (unsigned int c = 0; c < shape->head_dim; c++)
			*lowest = octaves[c] < *lowest ? octaves[c] : *lowest;
	}
	for (unsigned int head = 0; head < shape->heads; head++) {
		uint8_t offsets[CODEC_HEAD_DIM_MAX / 2];

		make_offsets(shape, raw + head * head_bytes, *lowest, offsets);
		count_head(shape, raw + head * head_bytes, offsets, &counts);
	}
	for (unsigned int f = 0; f <= OFFSET_MAX; f++)
		for (unsigned int v = 0; v < VALUES && counts.seen >> f & 1; v++) {
			const uint32_t *of = counts.of[f * VALUES + v];
			uint32_t count = of[0] + of[1] + of[2] + of[3];

			as_is[VALUES_LEAST + v] += count;
			shifted[VALUES_LEAST - 2 * f + v] += count;
		}
	make_plan(as_is, plan);
	make_plan(shifted, &other);
	if (other.cost + (uint64_t)shape->heads * shape->head_dim * 4 * 256 >= plan->cost)
		return LOSSLESS_CODED;
	*plan = other;
	return LOSSLESS_SHIFTED;
}

/* false: coding the group is not worth it. */
static bool encode_group(struct piece_sink *sink, const struct range_table *table,
	const uint16_t *base, const struct speckv_geometry *geometry, const uint8_t *raw)
{
	const struct codec_kernels *kernels = codec_kernels();
	unsigned int head_dim = geometry->head_dim;
	uint32_t plain_bytes =
			 lossless_plain_bytes(head_dim, lossless_layout(geometry->dtype).plain),
		 states[RANGE_STATES], escapes, code;
	uint8_t symbols[LOSSLESS_ELEMENTS_MAX] __attribute__((aligned(64))),
		codes[LOSSLESS_ELEMENTS_MAX];
	uint8_t plain[LOSSLESS_PLAIN_MAX + RANGE_SLACK],
		escaped[2 * LOSSLESS_ESCAPES_MAX(CODEC_HEAD_DIM_MAX)];
	uint8_t record[LOSSLESS_COUNTS_BYTES + LOSSLESS_RECORD_MAX], *at = record;

	memset(record, 0, LOSSLESS_COUNTS_BYTES + RANGE_STATES_MAX + 3);
	escapes = kernels->lossless_split(raw, table, base, head_dim, geometry->dtype, symbols,
		plain, escaped);
	if (escapes > LOSSLESS_ESCAPES_MAX(head_dim))
		return false;
	plain_bytes -= RANGE_LAST_BYTES;
	range_begin(plain + plain_bytes, states);
	code = kernels->range_code(table, NULL, symbols, head_dim, states, codes + sizeof(codes));
	codec_put16(at, (uint16_t)code);
	codec_put16(at + 2, (uint16_t)escapes);
	at += LOSSLESS_COUNTS_BYTES +
		range_write_states(states, at + 4, at + LOSSLESS_COUNTS_BYTES);
	memcpy(at, codes + sizeof(codes) - code, code);
	memcpy(at + code, escaped, 2 * escapes);
	memcpy(at + code + 2 * escapes, plain, plain_bytes);
	return piece_give(sink, record, (uint64_t)(at - record) + code + 2 * escapes + plain_bytes);
}

static bool encode_coded(const struct speckv_geometry *geometry, const uint8_t *raw,
	struct piece_sink *sink, enum lossless_form *form)
{
	const struct shape shape = { lossless_layout(geometry->dtype), geometry->kv_heads,
		geometry->tokens, geometry->head_dim,
		(size_t)geometry->head_dim * lossless_layout(geometry->dtype).bytes,
		codec_section_raw_bytes(geometry) < AHEAD_MOST ? codec_section_raw_bytes(geometry)
							       : AHEAD_MOST };
	size_t head_bytes = shape.tokens * shape.token_bytes,
	       group_bytes = CODEC_GROUP_TOKENS * shape.token_bytes;
	uint8_t header[LOSSLESS_HEADER_BYTES], offsets[CODEC_HEAD_DIM_MAX / 2];
	uint16_t base[CODEC_HEAD_DIM_MAX + RANGE_STATES];
	struct range_table table;
	struct plan plan;
	uint32_t lowest;

	*form = choose(&shape, raw, &plan, &lowest);
	if (plan.cost / (8 * 256) +
			shape.heads *
				(uint64_t)lossless_plain_bytes(shape.head_dim, shape.layout.plain) *
				(shape.tokens / CODEC_GROUP_TOKENS) >
		sink->most)
		return false;
	memcpy(header, plan.frequency, sizeof(plan.frequency));
	codec_put16(header + RANGE_SYMBOLS, plan.origin);
	if (!codec_range_table(header, &table) || !piece_give(sink, header, sizeof(header)))
		return false;
	for (unsigned int head = 0; head < shape.heads; head++) {
		if (*form == LOSSLESS_SHIFTED) {
			make_offsets(&shape, raw + head * head_bytes, lowest, offsets);
			if (!piece_give(sink, offsets, shape.head_dim / 2))
				return false;
		}
		codec_lossless_base(plan.origin, *form == LOSSLESS_SHIFTED ? offsets : NULL,
			shape.head_dim, base);
		for (size_t at = 0; at < head_bytes; at += group_bytes)
			if (!encode_group(sink, &table, base, geometry,
				    raw + head * head_bytes + at))
				return false;
	}
	return true;
}

int codec_lossless_encode(const struct speckv_geometry *geometry, enum codec_tensor tensor,
	uint64_t position, const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	uint64_t raw_bytes = codec_section_raw_bytes(geometry);
	struct piece_sink sink = { out, 0, raw_bytes - 1, ~0u };
	enum lossless_form form;

	(void)position;
	(void)tensor;
	if (!encode_coded(geometry, raw, &sink, &form)) {
		sink.used = raw_bytes;
		sink.state = codec_kernels()->crc_stream(~0u, out, raw, raw_bytes);
		form = LOSSLESS_STORED;
	}
	section->length = (uint32_t)sink.used;
	section->crc = ~sink.state;
	section->parameter = form;
	return 0;
}

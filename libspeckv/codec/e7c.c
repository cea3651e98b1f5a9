// SPDX-License-Identifier: MIT
/*
 * Mode e7c: calibrated, entropy-coded. Values minus a static mean (K: with the rotary embedding
 * undone) are transformed by a matrix of the calibration for each head, quantised, and coded by
 * static tables. Groups that do not fit are stored. Defined by FORMAT.md section 9.
 */
#include <errno.h>
#include <string.h>

#include "calibration.h"
#include "e7c.h"
#include "kernels.h"
#include "piece.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
}

/* Any layer and head: only the calibration knows their number. */
static bool parameter_valid(uint32_t parameter)
{
	(void)parameter;
	return true;
}

static uint64_t groups_of(const struct speckv_geometry *geometry)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS);
}

static uint64_t section_max(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	return groups_of(geometry) * e7c_stored_bytes(geometry->head_dim) +
		sinks_bytes(geometry, CODEC_SINKS);
}

static uint64_t section_min(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	(void)tensor;
	/* The smallest states take as many bytes as the plain bits that they hold. */
	return groups_of(geometry) * (E7C_COUNTS_BYTES + RANGE_LAST_BYTES);
}

/* ---- encoding ------------------------------------------------------------------------------- */

/* false: the group is stored instead. */
static bool give_coded(struct piece_sink *sink, const struct e7c_tables *tables,
	unsigned int head_dim, const int16_t *levels)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint8_t symbols[CODEC_GROUP_TOKENS * E7C_RANK_MAX] __attribute__((aligned(64))),
		codes[CODEC_GROUP_TOKENS * E7C_RANK_MAX];
	uint8_t plain[E7C_PLAIN_MAX + 8], escaped[2 * E7C_ESCAPES_MAX(CODEC_HEAD_DIM_MAX)];
	uint8_t front[E7C_COUNTS_BYTES + RANGE_STATES_MAX + 3] = { 0 };
	uint32_t states[RANGE_STATES], escapes, plain_bytes, front_bytes, code;

	escapes =
		kernels->e7c_part(levels, head_dim, tables, symbols, plain, &plain_bytes, escaped);
	if (escapes > E7C_ESCAPES_MAX(head_dim))
		return false;
	plain_bytes -= RANGE_LAST_BYTES;
	range_begin(plain + plain_bytes, states);
	code = kernels->range_code(tables->coders, tables->which, symbols, tables->rank, states,
		codes + sizeof(codes));
	codec_put16(front, (uint16_t)code);
	codec_put16(front + 2, (uint16_t)escapes);
	codec_put16(front + 4, (uint16_t)plain_bytes);
	front_bytes =
		E7C_COUNTS_BYTES + range_write_states(states, front + 6, front + E7C_COUNTS_BYTES);
	return front_bytes + code + 2 * escapes + plain_bytes < e7c_stored_bytes(head_dim) &&
		piece_give(sink, front, front_bytes) &&
		piece_give(sink, codes + sizeof(codes) - code, code) &&
		piece_give(sink, escaped, 2 * (uint64_t)escapes) &&
		piece_give(sink, plain, plain_bytes);
}

static int encode_group(struct piece_sink *sink, const struct e7c_tables *tables,
	const struct rotary_rotation *rotation, const struct speckv_geometry *geometry,
	unsigned int sinks, const uint8_t *raw)
{
	int16_t levels[E7C_RANK_MAX * CODEC_GROUP_TOKENS] __attribute__((aligned(64)));
	int rc = codec_kernels()->e7c_analyse(raw, geometry->head_dim, geometry->dtype, tables,
		rotation, sinks, levels);
	static const uint8_t mark[2] = { 0xff, 0xff };

	if (rc < 0 || (!rc && give_coded(sink, tables, geometry->head_dim, levels)))
		return rc;
	return piece_give(sink, mark, 2) &&
			piece_give(sink, raw, e7c_stored_bytes(geometry->head_dim) - 2)
		? 0
		: -ENODATA;
}

static int encode(const struct codec_calibrated *by, const struct speckv_geometry *geometry,
	enum codec_tensor tensor, const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	struct piece_sink sink = { out, 0, section_max(geometry, tensor), ~0u };
	unsigned int sinks = sinks_at(by->position);
	const uint8_t *values = raw;
	struct calibration_turn turn;

	turn.known = false;
	for (unsigned int head = 0; head < geometry->kv_heads; head++) {
		struct e7c_tables tables;

		calibration_e7c_tables(by->calibration, section->parameter, tensor, head, &tables);
		for (unsigned int i = 0; i < geometry->tokens / CODEC_GROUP_TOKENS; i++) {
			const struct rotary_rotation *rotation =
				calibration_turn(by, tensor, i, &turn);
			int rc = encode_group(&sink, &tables, rotation, geometry, i ? 0 : sinks,
				values);

			if (rc)
				return rc;
			values += 2 * (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
		}
	}
	if (!sinks_give(&sink, geometry, sinks, raw))
		return -ENODATA;
	section->parameter |= sinks ? CALIBRATION_SINKS : 0;
	section->length = (uint32_t)sink.used;
	section->crc = ~sink.state;
	return 0;
}

/* ---- decoding ------------------------------------------------------------------------------- */

/* Decode the levels of a group; `code` is its first count, the others are not read yet. */
static bool take_coded(struct piece_source *source, uint32_t code, const struct e7c_tables *tables,
	unsigned int head_dim, int16_t *levels)
{
	const struct codec_kernels *kernels = codec_kernels();
	uint8_t symbols[CODEC_GROUP_TOKENS * E7C_RANK_MAX] __attribute__((aligned(64))),
		counts[E7C_COUNTS_BYTES - 2 + 3] = { 0 }, *at, *last;
	uint8_t record[2 * CODEC_GROUP_TOKENS * CODEC_HEAD_DIM_MAX + RANGE_LAST_BYTES + RANGE_SLACK];
	uint32_t states[RANGE_STATES], escapes, plain_bytes, state_bytes, bytes, seen = 0;

	if (code > CODEC_GROUP_TOKENS * tables->rank ||
		!piece_take(source, counts, E7C_COUNTS_BYTES - 2))
		return false;
	escapes = codec_get16(counts);
	plain_bytes = codec_get16(counts + 2);
	state_bytes = range_states_bytes(counts + 4);
	bytes = state_bytes + code + 2 * escapes + plain_bytes;
	if (escapes > E7C_ESCAPES_MAX(head_dim) ||
		E7C_COUNTS_BYTES + bytes >= e7c_stored_bytes(head_dim) ||
		!piece_take(source, record, bytes))
		return false;
	last = record + bytes;
	memset(last, 0, RANGE_LAST_BYTES + RANGE_SLACK);
	range_read_states(counts + 4, record, states);
	at = record + state_bytes;
	if (!kernels->range_symbols(tables->coders, tables->which, at, code, tables->rank, states,
		    symbols))
		return false;
	for (unsigned int e = 0; e < CODEC_GROUP_TOKENS * tables->rank; e++)
		seen += symbols[e] == RANGE_ESCAPE;
	if (seen != escapes || !range_end(states, last))
		return false;
	at += code;
	return kernels->e7c_join(symbols, at + 2 * escapes, plain_bytes + RANGE_LAST_BYTES, at,
		tables, levels);
}

static bool decode_group(struct piece_source *source, const struct e7c_tables *tables,
	const struct rotary_rotation *rotation, const struct speckv_geometry *geometry,
	uint8_t *raw)
{
	int16_t levels[E7C_RANK_MAX * CODEC_GROUP_TOKENS] __attribute__((aligned(64)));
	uint8_t first[2];

	if (!piece_take(source, first, 2))
		return false;
	if (codec_get16(first) == E7C_STORED_MARK)
		return piece_take(source, raw, e7c_stored_bytes(geometry->head_dim) - 2);
	if (!take_coded(source, codec_get16(first), tables, geometry->head_dim, levels))
		return false;
	codec_kernels()->e7c_restore(levels, geometry->head_dim, geometry->dtype, tables, rotation,
		raw);
	return true;
}

static int decode(const struct codec_calibrated *by, const struct speckv_geometry *geometry,
	enum codec_tensor tensor, const struct codec_section *section, const uint8_t *in,
	uint8_t *raw)
{
	struct piece_source source = { in, section->length, ~0u };
	struct calibration_turn turn;
	uint8_t *values = raw;

	turn.known = false;
	for (unsigned int head = 0; head < geometry->kv_heads; head++) {
		struct e7c_tables tables;

		calibration_e7c_tables(by->calibration, section->parameter, tensor, head, &tables);
		for (unsigned int i = 0; i < geometry->tokens / CODEC_GROUP_TOKENS; i++) {
			const struct rotary_rotation *rotation =
				calibration_turn(by, tensor, i, &turn);

			if (!decode_group(&source, &tables, rotation, geometry, values))
				return -EBADMSG;
			values += 2 * (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
		}
	}
	if (!sinks_take(&source, geometry, calibration_sinks(section->parameter), raw))
		return -EBADMSG;
	return !source.left && ~source.state == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_e7c = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_max,
	.section_min = section_min,
	.encode_calibrated = encode,
	.decode_calibrated = decode,
};

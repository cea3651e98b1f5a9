// SPDX-License-Identifier: MIT
/*
 * Mode q5c: fixed rate, calibrated. Values minus a static mean (K: with the rotary embedding
 * undone) are rotated by a Hadamard transform and quantised by a trellis code to 1 to 5 bits a channel,
 * a width that the calibration gives for each head. Defined by FORMAT.md section 8.
 */
#include <errno.h>

#include "calibration.h"
#include "kernels.h"
#include "piece.h"
#include "q5c.h"

static bool supports(const struct speckv_geometry *geometry)
{
	return (geometry->dtype == SPECKV_DTYPE_BF16 || geometry->dtype == SPECKV_DTYPE_FP16) &&
		codec_head_dim_lossy(geometry->head_dim);
}

/* Any layer and head: only the calibration knows their number. */
static bool parameter_valid(uint32_t parameter)
{
	return true;
}

static uint64_t section_bytes(const struct speckv_geometry *geometry, unsigned int bits)
{
	return (uint64_t)geometry->kv_heads * (geometry->tokens / CODEC_GROUP_TOKENS) *
		q5c_group_bytes(geometry->head_dim, bits);
}

static uint64_t section_max(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	return section_bytes(geometry, Q5C_BITS_MAX) + sinks_bytes(geometry, CODEC_SINKS);
}

static uint64_t section_min(const struct speckv_geometry *geometry, enum codec_tensor tensor)
{
	return section_bytes(geometry, 1);
}

static int encode(const struct codec_calibrated *by, const struct speckv_geometry *geometry,
	enum codec_tensor tensor, const uint8_t *raw, uint8_t *out, struct codec_section *section)
{
	const struct codec_kernels *kernels = codec_kernels();
	unsigned int groups = geometry->tokens / CODEC_GROUP_TOKENS, sinks = sinks_at(by->position);
	struct piece_sink sink = { out, 0, section_max(geometry, tensor), ~0u };
	uint8_t group[Q5C_GROUP_MAX] __attribute__((aligned(64)));
	const uint8_t *values = raw;
	struct calibration_turn turn;

	turn.known = false;
	for (unsigned int head = 0; head < geometry->kv_heads; head++) {
		struct q5c_tables tables;

		calibration_q5c_tables(by->calibration, section->parameter, tensor, head, &tables);
		for (unsigned int i = 0; i < groups; i++) {
			const struct rotary_rotation *rotation =
				calibration_turn(by, tensor, i, &turn);
			int rc = kernels->q5c_encode(values, geometry->head_dim, geometry->dtype,
				&tables, rotation, i ? 0 : sinks, group);

			if (rc)
				return rc;
			piece_give(&sink, group, q5c_group_bytes(geometry->head_dim, tables.bits));
			values += 2 * (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
		}
	}
	sinks_give(&sink, geometry, sinks, raw);
	section->parameter |= sinks ? CALIBRATION_SINKS : 0;
	section->length = (uint32_t)sink.used;
	section->crc = ~sink.state;
	return 0;
}

static int decode(const struct codec_calibrated *by, const struct speckv_geometry *geometry,
	enum codec_tensor tensor, const struct codec_section *section, const uint8_t *in,
	uint8_t *raw)
{
	const struct codec_kernels *kernels = codec_kernels();
	unsigned int groups = geometry->tokens / CODEC_GROUP_TOKENS;
	struct piece_source source = { in, section->length, ~0u };
	uint8_t group[Q5C_GROUP_MAX] __attribute__((aligned(64)));
	struct calibration_turn turn;
	uint8_t *values = raw;

	turn.known = false;
	for (unsigned int head = 0; head < geometry->kv_heads; head++) {
		struct q5c_tables tables;

		calibration_q5c_tables(by->calibration, section->parameter, tensor, head, &tables);
		for (unsigned int i = 0; i < groups; i++) {
			const struct rotary_rotation *rotation =
				calibration_turn(by, tensor, i, &turn);

			if (!piece_take(&source, group,
				    q5c_group_bytes(geometry->head_dim, tables.bits)) ||
				!kernels->q5c_decode(group, geometry->head_dim, geometry->dtype,
					&tables, rotation, values))
				return -EBADMSG;
			values += 2 * (size_t)CODEC_GROUP_TOKENS * geometry->head_dim;
		}
	}
	if (!sinks_take(&source, geometry, calibration_sinks(section->parameter), raw))
		return -EBADMSG;
	return !source.left && ~source.state == section->crc ? 0 : -EBADMSG;
}

const struct codec_mode codec_mode_q5c = {
	.supports = supports,
	.parameter_valid = parameter_valid,
	.section_max = section_max,
	.section_min = section_min,
	.encode_calibrated = encode,
	.decode_calibrated = decode,
};

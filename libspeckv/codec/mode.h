/* SPDX-License-Identifier: MIT */
/*
 * Interface of a codec mode to the frame: bounds on a section's length, encoding and decoding.
 *
 * A section is one tensor (K or V) of one layer: [kv_heads][tokens][head_dim]. Sections are read
 * from memory that may change concurrently, so a mode reads each byte once, by the copying
 * checksum, and works on its private copy.
 */
#ifndef SPECKV_CODEC_MODE_H
#define SPECKV_CODEC_MODE_H

#include <stdbool.h>
#include <stdint.h>

#include <speckv/codec.h>

#define CODEC_GROUP_TOKENS 64
#define CODEC_HEAD_DIM_MAX 256 /* of the lossy modes; raw has no limit */

enum codec_tensor { CODEC_K = 0, CODEC_V = 1 };

/* An entry of the section table, in host order. */
struct codec_section {
	uint32_t offset_lines, length, crc, parameter;
};

/*
 * Calibrated modes work on integers up to this magnitude, in units of 2^unit given by the
 * calibration; so do means.
 */
#define CODEC_INPUT_MAX 16383
#define CODEC_UNIT_MIN (-60)
#define CODEC_UNIT_MAX 40

/* Inputs of calibrated modes in addition to the shape. */
struct codec_calibrated {
	const struct speckv_calibration *calibration;
	uint64_t position; /* of the block's first token */
};

struct codec_mode {
	/* Does this mode support tensors of this (valid) shape and type? */
	bool (*supports)(const struct speckv_geometry *geometry);
	bool (*parameter_valid)(uint32_t parameter);
	uint64_t (*section_max)(const struct speckv_geometry *geometry, enum codec_tensor tensor);
	uint64_t (*section_min)(const struct speckv_geometry *geometry, enum codec_tensor tensor);
	/*
	 * `out` has room for section_max; sets length, crc and parameter. `position`: of the
	 * block's first token. -ENODATA: a value that this mode cannot represent.
	 */
	int (*encode)(const struct speckv_geometry *geometry, enum codec_tensor tensor,
		uint64_t position, const uint8_t *raw, uint8_t *out, struct codec_section *section);
	/*
	 * `in` has section->length readable bytes, between section_min and section_max; `streamed`
	 * as in frame.h. -EBADMSG.
	 */
	int (*decode)(const struct speckv_geometry *geometry, enum codec_tensor tensor,
		const struct codec_section *section, const uint8_t *in, uint8_t *raw,
		bool streamed);
	/*
	 * Calibrated modes have these instead. section->parameter is set, and its layer and heads
	 * are in the calibration.
	 */
	int (*encode_calibrated)(const struct codec_calibrated *by,
		const struct speckv_geometry *geometry, enum codec_tensor tensor,
		const uint8_t *raw, uint8_t *out, struct codec_section *section);
	int (*decode_calibrated)(const struct codec_calibrated *by,
		const struct speckv_geometry *geometry, enum codec_tensor tensor,
		const struct codec_section *section, const uint8_t *in, uint8_t *raw);
};

extern const struct codec_mode codec_mode_raw;
extern const struct codec_mode codec_mode_int8_delta_rle;
extern const struct codec_mode codec_mode_q3x;
extern const struct codec_mode codec_mode_q4x;
extern const struct codec_mode codec_mode_q5x;
extern const struct codec_mode codec_mode_lossless;
extern const struct codec_mode codec_mode_q5c;
extern const struct codec_mode codec_mode_e7c;

/* NULL: not in this build. */
const struct codec_mode *codec_mode_find(unsigned int codec);
/* Bytes of an element, 0 if the type is unknown. */
unsigned int codec_dtype_bytes(unsigned int dtype);
/* Raw bytes of one section of a valid shape. */
uint64_t codec_section_raw_bytes(const struct speckv_geometry *geometry);
/* Head sizes of the lossy modes. */
bool codec_head_dim_lossy(unsigned int head_dim);

static inline uint64_t codec_lines(uint64_t bytes)
{
	return (bytes + SPECKV_FRAME_ALIGN - 1) / SPECKV_FRAME_ALIGN;
}

static inline uint32_t codec_get32(const uint8_t *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 |
		(uint32_t)at[3] << 24;
}

static inline uint16_t codec_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static inline uint64_t codec_get64(const uint8_t *at)
{
	return codec_get32(at) | (uint64_t)codec_get32(at + 4) << 32;
}

static inline void codec_put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static inline void codec_put32(uint8_t *at, uint32_t value)
{
	codec_put16(at, (uint16_t)value);
	codec_put16(at + 2, (uint16_t)(value >> 16));
}

static inline void codec_put64(uint8_t *at, uint64_t value)
{
	codec_put32(at, (uint32_t)value);
	codec_put32(at + 4, (uint32_t)(value >> 32));
}

#endif

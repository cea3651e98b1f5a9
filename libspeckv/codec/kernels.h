/* SPDX-License-Identifier: MIT */
/*
 * Inner loops with variants per instruction set, and the table for their dispatch.
 *
 * Every kernel has one portable reference. A variant gives the same bytes for every input; the
 * tests compare each one that the machine supports with the reference.
 *
 * Sources of the checksum kernels may be shared memory that another process writes concurrently.
 * Such a kernel loads each source byte exactly once, so that the checksum always matches the bytes
 * stored; the caller compares it.
 */
#ifndef SPECKV_CODEC_KERNELS_H
#define SPECKV_CODEC_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mode.h"

struct e7c_tables;
struct q5c_tables;
struct range_table;
struct rotary_angle;
struct rotary_rotation;
struct rotary_steps;

/*
 * Readers race with writers by design and validate by checksum afterwards: exclude these loops from
 * the thread sanitizer.
 */
#define CODEC_RACING __attribute__((no_sanitize("thread")))

/*
 * Makes a loaded value opaque: otherwise the compiler may load the same source byte again for its
 * second use.
 */
#define CODEC_LOADED_ONCE(value) __asm__ volatile("" : "+r"(value))

struct codec_kernels {
	const char *name;
	/* Update a CRC-32C register; no inversion before or after. */
	uint32_t (*crc)(uint32_t state, const void *data, size_t bytes);
	/* The same, and store the checksummed bytes. */
	uint32_t (*crc_copy)(uint32_t state, void *destination, const void *source, size_t bytes);
	/*
	 * crc_copy to memory that is not read again soon (a frame): may use streaming stores.
	 * Ordered before later stores.
	 */
	uint32_t (*crc_stream)(uint32_t state, void *destination, const void *source, size_t bytes);
	/*
	 * Fixed-rate modes: one group, 64 tokens of one head in 3 to 5 bits a channel, to or from a
	 * private buffer aligned to a line, with arbitrary contents. The first `sinks` tokens are
	 * left out: their places hold zeros. Encoding returns -ENODATA for values that cannot be
	 * represented. `streamed`: streaming stores, if `raw` is aligned to a line.
	 */
	int (*qx_encode)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		unsigned int bits, enum codec_tensor tensor, unsigned int sinks, uint8_t *group);
	/* Whether the error of a group as it was encoded is a small enough share of its energy. */
	bool (*qx_guard)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		enum codec_tensor tensor, const uint8_t *group);
	void (*qx_decode)(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
		unsigned int bits, enum codec_tensor tensor, uint8_t *raw, bool streamed);
	/*
	 * Range decoding: symbols of `runs` times 64 elements from `bytes` of code, with
	 * RANGE_SLACK readable bytes after it; updates `states`. A run uses tables[which[run]], or
	 * the only table if `which` is NULL. false: decoding does not end exactly at the end of the
	 * code. range_code encodes, and returns the bytes of code written below `end`.
	 */
	bool (*range_symbols)(const struct range_table *tables, const uint8_t *which,
		const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states,
		uint8_t *symbols);
	uint32_t (*range_code)(const struct range_table *tables, const uint8_t *which,
		const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end);
	/*
	 * Mode lossless: assemble the elements of one group from symbols, plain bits (with slack)
	 * and escapes, one for each escape symbol.
	 */
	void (*lossless_merge)(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
		const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
		bool streamed);
	/*
	 * Split a group. Returns the number of escapes; those beyond LOSSLESS_ESCAPES_MAX are not
	 * written. `plain` has slack.
	 */
	uint32_t (*lossless_split)(const uint8_t *raw, const struct range_table *table,
		const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *symbols,
		uint8_t *plain, uint8_t *escapes);
	/* Rotation of a group, from the angles of its first token and the steps within it. */
	void (*rotary_turn)(const struct rotary_angle *bases, const struct rotary_steps *steps,
		unsigned int pairs, struct rotary_rotation *out);
	/*
	 * Mode q5c: as the fixed-rate ones, with the tables of the head; `rotation` NULL: none. The
	 * first `sinks` tokens are coded as the mean.
	 * Decoding returns false for an invalid scale.
	 */
	int (*q5c_encode)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		const struct q5c_tables *tables, const struct rotary_rotation *rotation,
		unsigned int sinks, uint8_t *group);
	bool (*q5c_decode)(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
		const struct q5c_tables *tables, const struct rotary_rotation *rotation,
		uint8_t *raw);
	/*
	 * Mode e7c, likewise: values from levels, `rank` rows of 64 tokens aligned to lines; and
	 * levels from values, -ENODATA as above, E7C_TO_BE_STORED if they do not fit.
	 */
	void (*e7c_restore)(const int16_t *levels, unsigned int head_dim, unsigned int dtype,
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,
		uint8_t *raw);
	int (*e7c_analyse)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,
		unsigned int sinks, int16_t *levels);
	/*
	 * Levels from symbols, plain bits (with slack) and one escape for each escape symbol; false
	 * if they do not match.
	 */
	bool (*e7c_join)(const uint8_t *symbols, const uint8_t *plain, uint32_t plain_bytes,
		const uint8_t *escapes, const struct e7c_tables *tables, int16_t *levels);
	/* The inverse, as lossless_split. `plain` has eight bytes of slack. */
	uint32_t (*e7c_part)(const int16_t *levels, unsigned int head_dim,
		const struct e7c_tables *tables, uint8_t *symbols, uint8_t *plain,
		uint32_t *plain_bytes, uint8_t *escapes);
};

/*
 * Prefetch a range: a hint that never faults. always_inline: GCC treats a function that only
 * prefetches as free of side effects, and drops calls of it.
 */
static inline __attribute__((always_inline)) void codec_fetch(const void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)from + at, 0, 3);
}

/*
 * Prefetch one token of 16-bit values: encoders prefetch a little ahead and, while they work, a few
 * lines at a time of the next group, which mostly follows in memory.
 */
#define CODEC_FETCH_TOKENS 16
static inline __attribute__((always_inline)) void codec_fetch_token(const uint8_t *raw,
	unsigned int head_dim, unsigned int token)
{
	codec_fetch(raw + 2 * (size_t)token * head_dim, 2 * (size_t)head_dim);
}

/* The active table; chosen at the first call. */
const struct codec_kernels *codec_kernels(void);
/* CPU features that kernels need. */
enum codec_cpu {
	CODEC_CPU_SSE42 = 1 << 0,
	CODEC_CPU_PCLMUL = 1 << 1,
	CODEC_CPU_AVX2 = 1 << 2,
	CODEC_CPU_FMA = 1 << 3,
	CODEC_CPU_F16C = 1 << 4,
	CODEC_CPU_BMI2 = 1 << 5,
	CODEC_CPU_POPCNT = 1 << 6,
	CODEC_CPU_VPCLMULQDQ = 1 << 7,
	CODEC_CPU_AVX512F = 1 << 8,
	CODEC_CPU_AVX512BW = 1 << 9,
	CODEC_CPU_AVX512DQ = 1 << 10,
	CODEC_CPU_AVX512VL = 1 << 11,
	CODEC_CPU_AVX512CD = 1 << 12,
	CODEC_CPU_AVX512VBMI = 1 << 13,
	CODEC_CPU_AVX512VNNI = 1 << 14,
	CODEC_CPU_AVX512BF16 = 1 << 15,
};
/*
 * The table of this name ("auto": the best) for a CPU with these features. -EOPNOTSUPP: not
 * supported, -EINVAL: no such name.
 */
int codec_kernels_choose(uint32_t features, const char *name, const struct codec_kernels **out);
/*
 * Table number `index`, slowest first, NULL past the end. `usable`: supported by this CPU. For
 * tests.
 */
const struct codec_kernels *codec_kernels_variant(unsigned int index, int *usable);

uint32_t codec_crc_portable(uint32_t state, const void *data, size_t bytes);
uint32_t codec_crc_copy_portable(uint32_t state, void *destination, const void *source,
	size_t bytes);

#define CODEC_QX_ENCODE(isa)                                                                     \
	int codec_qx_encode_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, \
		unsigned int bits, enum codec_tensor tensor, unsigned int sinks, uint8_t *group)
#define CODEC_QX_DECODE(isa)                                                                   \
	void codec_qx_decode_##isa(const uint8_t *group, unsigned int head_dim,                \
		unsigned int dtype, unsigned int bits, enum codec_tensor tensor, uint8_t *raw, \
		bool streamed)
#define CODEC_QX_GUARD(isa)                                                                      \
	bool codec_qx_guard_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, \
		enum codec_tensor tensor, const uint8_t *group)
CODEC_QX_ENCODE(portable);
CODEC_QX_DECODE(portable);
CODEC_QX_GUARD(portable);

#define CODEC_RANGE_DECODE(isa)                                                                \
	bool codec_range_symbols_##isa(const struct range_table *tables, const uint8_t *which, \
		const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states,      \
		uint8_t *symbols)
#define CODEC_RANGE_ENCODE(isa)                                                                 \
	uint32_t codec_range_code_##isa(const struct range_table *tables, const uint8_t *which, \
		const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end)
#define CODEC_LOSSLESS_DECODE(isa)                                                    \
	void codec_lossless_merge_##isa(const uint8_t *symbols, const uint8_t *plain, \
		const uint8_t *escapes, const uint16_t *base, unsigned int head_dim,  \
		unsigned int dtype, uint8_t *raw, bool streamed)
#define CODEC_LOSSLESS_ENCODE(isa)                                                                 \
	uint32_t codec_lossless_split_##isa(const uint8_t *raw, const struct range_table *table,   \
		const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *symbols, \
		uint8_t *plain, uint8_t *escapes)
CODEC_RANGE_DECODE(portable);
CODEC_RANGE_ENCODE(portable);
CODEC_LOSSLESS_DECODE(portable);
CODEC_LOSSLESS_ENCODE(portable);
/* The calibrated modes. */
#define CODEC_CALIBRATED_KERNELS(isa)                                                              \
	void codec_rotary_turn_##isa(const struct rotary_angle *bases,                             \
		const struct rotary_steps *steps, unsigned int pairs,                              \
		struct rotary_rotation *out);                                                      \
	int codec_q5c_encode_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,  \
		const struct q5c_tables *tables, const struct rotary_rotation *rotation,           \
		unsigned int sinks, uint8_t *group);                                               \
	bool codec_q5c_decode_##isa(const uint8_t *group, unsigned int head_dim,                   \
		unsigned int dtype, const struct q5c_tables *tables,                               \
		const struct rotary_rotation *rotation, uint8_t *raw);                             \
	void codec_e7c_restore_##isa(const int16_t *levels, unsigned int head_dim,                 \
		unsigned int dtype, const struct e7c_tables *tables,                               \
		const struct rotary_rotation *rotation, uint8_t *raw);                             \
	int codec_e7c_analyse_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, \
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,           \
		unsigned int sinks, int16_t *levels);                                              \
	bool codec_e7c_join_##isa(const uint8_t *symbols, const uint8_t *plain,                    \
		uint32_t plain_bytes, const uint8_t *escapes, const struct e7c_tables *tables,     \
		int16_t *levels);                                                                  \
	uint32_t codec_e7c_part_##isa(const int16_t *levels, unsigned int head_dim,                \
		const struct e7c_tables *tables, uint8_t *symbols, uint8_t *plain,                 \
		uint32_t *plain_bytes, uint8_t *escapes)
CODEC_CALIBRATED_KERNELS(portable);

#if defined(__x86_64__)
#define CODEC_CRC(isa)                                                                         \
	uint32_t codec_crc_##isa(uint32_t state, const void *data, size_t bytes);              \
	uint32_t codec_crc_copy_##isa(uint32_t state, void *destination, const void *source,   \
		size_t bytes);                                                                 \
	uint32_t codec_crc_stream_##isa(uint32_t state, void *destination, const void *source, \
		size_t bytes)
CODEC_CRC(sse42);
CODEC_CRC(vpclmul);
CODEC_CRC(avx512);
CODEC_QX_ENCODE(avx2);
CODEC_QX_GUARD(avx2);
CODEC_QX_ENCODE(avx512);
CODEC_QX_GUARD(avx512);
CODEC_QX_DECODE(avx2);
CODEC_QX_DECODE(avx512);
CODEC_QX_DECODE(avx512bf16);
CODEC_RANGE_DECODE(avx2);
CODEC_RANGE_DECODE(avx512);
CODEC_RANGE_ENCODE(avx512);
CODEC_LOSSLESS_DECODE(avx2);
CODEC_LOSSLESS_DECODE(avx512);
CODEC_LOSSLESS_ENCODE(avx512);
CODEC_CALIBRATED_KERNELS(avx2);
CODEC_CALIBRATED_KERNELS(avx512);
#endif

#endif

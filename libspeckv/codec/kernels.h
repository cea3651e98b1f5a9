/* SPDX-License-Identifier: MIT */
/*
 * The inner loops that have a variant for some instruction set, and the table they are called
 * through.
 *
 * Every kernel has one portable reference. A variant gives the same bytes for every input; the
 * tests hold each one to the reference on the machine they run on.
 *
 * Sources of the checksum kernels may be shared memory that another process writes at the same
 * moment. Such a kernel loads each source byte exactly once, so that the checksum is always that of
 * the bytes it stored; the caller decides by it.
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
 * Readers race with writers by design and decide by the checksum afterwards: keep the thread
 * sanitizer out of these loops.
 */
#define CODEC_RACING __attribute__((no_sanitize("thread")))

/*
 * Makes a loaded value opaque: without it the compiler may load the same source byte again for its
 * second use.
 */
#define CODEC_LOADED_ONCE(value) __asm__ volatile("" : "+r"(value))

struct codec_kernels {
	const char *name;
	/* CRC-32C register before -> after; neither inverted on the way in nor on the way out. */
	uint32_t (*crc)(uint32_t state, const void *data, size_t bytes);
	/* The same, storing what was checksummed. */
	uint32_t (*crc_copy)(uint32_t state, void *destination, const void *source, size_t bytes);
	/*
	 * crc_copy to memory that is not read again soon (a frame): may go round the caches.
	 * Ordered before later stores.
	 */
	uint32_t (*crc_stream)(uint32_t state, void *destination, const void *source, size_t bytes);
	/*
	 * Mode q4x: one group, 64 tokens of one head, to or from a private buffer on a line, any
	 * bytes in it. Encoding gives -ENODATA for values the mode cannot hold. `streamed`: round
	 * the caches where `raw` is on a line.
	 */
	int (*q4x_encode)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		enum codec_tensor tensor, uint8_t *group);
	void (*q4x_decode)(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
		enum codec_tensor tensor, uint8_t *raw, bool streamed);
	/*
	 * Range coding: symbols of `runs` times 64 elements from `bytes` of code, with RANGE_SLACK
	 * readable behind; states in and out. A run's table is tables[which[run]], or the only one
	 * where `which` is NULL. false: the code does not end there. And the reverse, which returns
	 * the bytes of code that it wrote up to `end`.
	 */
	bool (*range_symbols)(const struct range_table *tables, const uint8_t *which,
		const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states,
		uint8_t *symbols);
	uint32_t (*range_code)(const struct range_table *tables, const uint8_t *which,
		const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end);
	/*
	 * Mode lossless: one group, in the pieces that lossless.c says. Elements from symbols,
	 * plain bits (with slack) and escapes, of which there are as many as symbols call for.
	 */
	void (*lossless_merge)(const uint8_t *symbols, const uint8_t *plain, const uint8_t *escapes,
		const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *raw,
		bool streamed);
	/*
	 * The reverse. Returns how many escapes there are; more than LOSSLESS_ESCAPES_MAX are not
	 * written. `plain` has slack.
	 */
	uint32_t (*lossless_split)(const uint8_t *raw, const struct range_table *table,
		const uint16_t *base, unsigned int head_dim, unsigned int dtype, uint8_t *symbols,
		uint8_t *plain, uint8_t *escapes);
	/* The rotation of a group from the angles of its first token and those within it. */
	void (*rotary_turn)(const struct rotary_angle *bases, const struct rotary_steps *steps,
		unsigned int pairs, struct rotary_rotation *out);
	/*
	 * Mode q5c: as q4x, by the tables of the head; `rotation` is NULL where there is none.
	 * Decoding: false where a scale is none.
	 */
	int (*q5c_encode)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		const struct q5c_tables *tables, const struct rotary_rotation *rotation,
		uint8_t *group);
	bool (*q5c_decode)(const uint8_t *group, unsigned int head_dim, unsigned int dtype,
		const struct q5c_tables *tables, const struct rotary_rotation *rotation,
		uint8_t *raw);
	/*
	 * Mode e7c, in the same way: the levels of each coefficient, `rank` rows of 64 tokens on
	 * lines, to values; and from values, -ENODATA as above, E7C_TO_BE_STORED where the group
	 * has none.
	 */
	void (*e7c_restore)(const int16_t *levels, unsigned int head_dim, unsigned int dtype,
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,
		uint8_t *raw);
	int (*e7c_analyse)(const uint8_t *raw, unsigned int head_dim, unsigned int dtype,
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,
		int16_t *levels);
	/*
	 * Levels from symbols, plain bits (with slack) and as many escapes as symbols call for;
	 * false where those do not fit.
	 */
	bool (*e7c_join)(const uint8_t *symbols, const uint8_t *plain, uint32_t plain_bytes,
		const uint8_t *escapes, const struct e7c_tables *tables, int16_t *levels);
	/* The reverse, as lossless_split. `plain` has eight bytes more. */
	uint32_t (*e7c_part)(const int16_t *levels, unsigned int head_dim,
		const struct e7c_tables *tables, uint8_t *symbols, uint8_t *plain,
		uint32_t *plain_bytes, uint8_t *escapes);
};

/*
 * Ask for memory that will be read soon: a hint, never a fault. Inlined always: GCC takes a
 * function that only asks for one without effect, and drops calls of it.
 */
static inline __attribute__((always_inline)) void codec_fetch(const void *from, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)from + at, 0, 3);
}

/*
 * Of a token's 16-bit values: encoders ask a little before they look at them, and for the next
 * group, which mostly lies behind this one, while they are at work, few lines at a time.
 */
#define CODEC_FETCH_TOKENS 16
static inline __attribute__((always_inline)) void codec_fetch_token(const uint8_t *raw,
	unsigned int head_dim, unsigned int token)
{
	codec_fetch(raw + 2 * (size_t)token * head_dim, 2 * (size_t)head_dim);
}

/* The table in force; chosen at the first call. */
const struct codec_kernels *codec_kernels(void);
/* What a CPU may have that some kernels need. */
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
 * The table of this name ("auto": the best) that a CPU with these features can run. -EOPNOTSUPP:
 * none of them, -EINVAL: no such name.
 */
int codec_kernels_choose(uint32_t features, const char *name, const struct codec_kernels **out);
/*
 * Table number `index`, slowest first, NULL past the end. `usable` says whether this CPU runs it.
 * For tests.
 */
const struct codec_kernels *codec_kernels_variant(unsigned int index, int *usable);

uint32_t codec_crc_portable(uint32_t state, const void *data, size_t bytes);
uint32_t codec_crc_copy_portable(uint32_t state, void *destination, const void *source,
	size_t bytes);

#define CODEC_Q4X_ENCODE(isa)                                                                     \
	int codec_q4x_encode_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, \
		enum codec_tensor tensor, uint8_t *group)
#define CODEC_Q4X_DECODE(isa)                                                    \
	void codec_q4x_decode_##isa(const uint8_t *group, unsigned int head_dim, \
		unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
CODEC_Q4X_ENCODE(portable);
CODEC_Q4X_DECODE(portable);

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
		uint8_t *group);                                                                   \
	bool codec_q5c_decode_##isa(const uint8_t *group, unsigned int head_dim,                   \
		unsigned int dtype, const struct q5c_tables *tables,                               \
		const struct rotary_rotation *rotation, uint8_t *raw);                             \
	void codec_e7c_restore_##isa(const int16_t *levels, unsigned int head_dim,                 \
		unsigned int dtype, const struct e7c_tables *tables,                               \
		const struct rotary_rotation *rotation, uint8_t *raw);                             \
	int codec_e7c_analyse_##isa(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, \
		const struct e7c_tables *tables, const struct rotary_rotation *rotation,           \
		int16_t *levels);                                                                  \
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
CODEC_Q4X_ENCODE(avx2);
CODEC_Q4X_ENCODE(avx512);
CODEC_Q4X_DECODE(avx2);
CODEC_Q4X_DECODE(avx512);
CODEC_Q4X_DECODE(avx512bf16);
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

// SPDX-License-Identifier: MIT
/*
 * Mode e7c: the kernels of one group, 64 tokens of one head. FORMAT.md section 9 is the definition.
 *
 * Compiled once for every instruction set (CODEC_ISA), see rows.h. The hot parts, matrix products
 * and signs, have intrinsics for each; the rest is vectorised by the compiler.
 */
#include <errno.h>

#include "e7c.h"
#include "kernels.h"
#include "rows.h"

/* Two rows of 16-bit numbers: the operand of one multiply-add. */
#define PAIR (2 * TOKENS)

/* Bytes of the planes of low plain bits, which precede the signs. */
static inline uint32_t planes_bytes(const struct e7c_tables *tables)
{
	uint32_t bytes = 0;

	for (unsigned int i = 0; i < tables->rank; i++)
		bytes += 8u * tables->low[i];
	return bytes;
}

/* ---- masks of 64 tokens --------------------------------------------------------------------- */

/* Mask of negative numbers. */
static inline uint64_t negative(const int16_t *row)
{
	uint64_t mask = 0;

#if defined(__SSE2__)
	for (unsigned int t = 0; t < TOKENS; t += 16) {
		const __m128i *at = (const __m128i *)(const void *)(row + t);
		__m128i both = _mm_packs_epi16(_mm_load_si128(at), _mm_load_si128(at + 1));

		mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(both) << t;
	}
#else
	for (unsigned int t = 0; t < TOKENS; t++)
		mask |= (uint64_t)(row[t] < 0) << t;
#endif
	return mask;
}

/* Mask of numbers with this bit set. */
static inline uint64_t with_bit(const int16_t *row, unsigned int bit)
{
	row16_t up;

	for (unsigned int t = 0; t < TOKENS; t++)
		up[t] = (int16_t)((uint16_t)row[t] << (15 - bit));
	return negative(up);
}

/* Deposit the lowest bits of `from` at the set bits of `to` (pdep). */
static inline uint64_t deposit(uint64_t from, uint64_t to)
{
#if defined(__BMI2__)
	return _pdep_u64(from, to);
#else
	uint64_t out = 0;

	for (; to; to &= to - 1, from >>= 1)
		out |= (to & -to) & -(from & 1);
	return out;
#endif
}

/* The inverse: gather the bits of `from` at the set bits of `to` (pext). */
static inline uint64_t extract(uint64_t from, uint64_t to)
{
#if defined(__BMI2__)
	return _pext_u64(from, to);
#else
	uint64_t out = 0;

	for (unsigned int at = 0; to; to &= to - 1, at++)
		out |= (uint64_t)!!(from & to & -to) << at;
	return out;
#endif
}

/* Write `number` where `mask` is set, 0 elsewhere. */
static inline void spread(uint64_t mask, int16_t number, int16_t *row)
{
#if defined(__AVX512BW__)
	_mm512_store_si512(row, _mm512_maskz_set1_epi16((__mmask32)mask, number));
	_mm512_store_si512(row + 32, _mm512_maskz_set1_epi16((__mmask32)(mask >> 32), number));
#elif defined(__AVX2__)
	const __m256i bits = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048,
		4096, 8192, 16384, (short)0x8000);

	for (unsigned int t = 0; t < TOKENS; t += 16) {
		__m256i here = _mm256_and_si256(_mm256_set1_epi16((short)(mask >> t)), bits);

		_mm256_store_si256((__m256i *)(void *)(row + t),
			_mm256_and_si256(_mm256_cmpeq_epi16(here, bits),
				_mm256_set1_epi16(number)));
	}
#else
	for (unsigned int t = 0; t < TOKENS; t++)
		row[t] = (int16_t)(number & -(int16_t)(mask >> t & 1));
#endif
}

/* ---- the product ---------------------------------------------------------------------------- */

/* Lay out two rows for product(): interleaved by token for multiply-adds, otherwise consecutive. */
static inline void couple(const int16_t *first, const int16_t *second, int16_t *out)
{
#if defined(__AVX2__)
	for (unsigned int t = 0; t < TOKENS; t++) {
		out[2 * t] = first[t];
		out[2 * t + 1] = second[t];
	}
#else
	memcpy(out, first, TOKENS * sizeof(*out));
	memcpy(out + TOKENS, second, TOKENS * sizeof(*out));
#endif
}

#if defined(__AVX2__)
/* Two adjacent matrix elements, for broadcasting. */
static inline int load_pair(const int16_t *at)
{
	int both;

	memcpy(&both, at, sizeof(both));
	return both;
}
#endif

/*
 * out(o) = the sum over i of matrix(o, i) * in(i); `outs` is a multiple of 4. No sum exceeds 32
 * bits.
 */
static void product(const int16_t *matrix, unsigned int stride, unsigned int outs,
	const int16_t *in, unsigned int pairs, row_t *out)
{
#if defined(__AVX512VNNI__)
	for (unsigned int o = 0; o < outs; o += 4) {
		const int16_t *row = matrix + (size_t)o * stride;
		__m512i sum[4][4];

		for (unsigned int j = 0; j < 4; j++)
			for (unsigned int k = 0; k < 4; k++)
				sum[j][k] = _mm512_setzero_si512();
		for (unsigned int p = 0; p < pairs; p++) {
			__m512i tokens[4];

#pragma GCC unroll 4
			for (unsigned int k = 0; k < 4; k++)
				tokens[k] =
					_mm512_load_si512(in + (size_t)p * PAIR + 32 * (size_t)k);
#pragma GCC unroll 4
			for (unsigned int j = 0; j < 4; j++) {
				__m512i by = _mm512_set1_epi32(load_pair(row + (size_t)j * stride +
					2 * (size_t)p));

#pragma GCC unroll 4
				for (unsigned int k = 0; k < 4; k++)
					sum[j][k] = _mm512_dpwssd_epi32(sum[j][k], tokens[k], by);
			}
		}
		for (unsigned int j = 0; j < 4; j++)
			for (unsigned int k = 0; k < 4; k++)
				_mm512_store_si512(out[o + j] + 16 * k, sum[j][k]);
	}
#elif defined(__AVX2__)
	for (unsigned int o = 0; o < outs; o += 2)
		for (unsigned int half = 0; half < TOKENS; half += 32) {
			const int16_t *row = matrix + (size_t)o * stride;
			__m256i sum[2][4];

			for (unsigned int j = 0; j < 2; j++)
				for (unsigned int k = 0; k < 4; k++)
					sum[j][k] = _mm256_setzero_si256();
			for (unsigned int p = 0; p < pairs; p++) {
				__m256i by[2] = {
					_mm256_set1_epi32(load_pair(row + 2 * (size_t)p)),
					_mm256_set1_epi32(load_pair(row + stride + 2 * (size_t)p))
				};

#pragma GCC unroll 4
				for (unsigned int k = 0; k < 4; k++) {
					__m256i tokens = _mm256_load_si256((
						const __m256i *)(const void *)(in +
						(size_t)p * PAIR + 2 * (size_t)(half + 8 * k)));

					sum[0][k] = _mm256_add_epi32(sum[0][k],
						_mm256_madd_epi16(tokens, by[0]));
					sum[1][k] = _mm256_add_epi32(sum[1][k],
						_mm256_madd_epi16(tokens, by[1]));
				}
			}
			for (unsigned int j = 0; j < 2; j++)
				for (unsigned int k = 0; k < 4; k++)
					_mm256_store_si256((__m256i *)(void *)(out[o + j] + half +
								   8 * k),
						sum[j][k]);
		}
#else
	for (unsigned int o = 0; o < outs; o++) {
		const int16_t *row = matrix + (size_t)o * stride;
		row_t sum = { 0 };

		for (unsigned int i = 0; i < 2 * pairs; i++) {
			const int16_t *tokens = in + (size_t)i * TOKENS, by = row[i];

			for (unsigned int t = 0; t < TOKENS; t++)
				sum[t] += by * tokens[t];
		}
		memcpy(out[o], sum, sizeof(sum));
	}
#endif
}

/* ---- encode --------------------------------------------------------------------------------- */

static inline int32_t greatest(const int32_t *row)
{
	int32_t most = row[0];

	for (unsigned int t = 1; t < TOKENS; t++)
		most = row[t] > most ? row[t] : most;
	return most;
}

int NAME(codec_e7c_analyse_, CODEC_ISA)(const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, const struct e7c_tables *tables, const struct rotary_rotation *rotation,
	unsigned int sinks, int16_t *levels)
{
	int16_t pairs[CODEC_HEAD_DIM_MAX / 2 * PAIR] __attribute__((aligned(64)));
	row_t rows[CODEC_HEAD_DIM_MAX];
	row_t most = { 0 }, largest = { 0 };

	if (!rows_load(raw, head_dim, dtype, tables->unit, tables->mean, rotation, sinks, rows))
		return -ENODATA;
	for (unsigned int c = 0; c < head_dim; c += 2) {
		row16_t two_rows[2];

		for (unsigned int i = 0; i < 2; i++)
			for (unsigned int t = 0; t < TOKENS; t++) {
				int32_t x = rows[c + i][t], magnitude = x < 0 ? -x : x;

				most[t] = magnitude > most[t] ? magnitude : most[t];
				two_rows[i][t] = (int16_t)x;
			}
		couple(two_rows[0], two_rows[1], pairs + (size_t)c / 2 * PAIR);
	}
	if (greatest(most) > E7C_DEVIATION_MAX)
		return E7C_TO_BE_STORED;
	product(tables->analysis, head_dim, e7c_padded(tables->rank), pairs, head_dim / 2, rows);
	for (unsigned int i = 0; i < tables->rank; i++, levels += TOKENS) {
		int32_t down = tables->down[i], half = 1 << (down - 1),
			rounding = tables->rounding[i];

		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t y = (rows[i][t] + half) >> down,
				magnitude = ((y < 0 ? -y : y) + rounding) >> E7C_FRACTION_BITS;

			largest[t] = magnitude > largest[t] ? magnitude : largest[t];
			levels[t] = (int16_t)(y < 0 ? -magnitude : magnitude);
		}
	}
	return greatest(largest) > E7C_LEVEL_MAX ? E7C_TO_BE_STORED : 0;
}

uint32_t NAME(codec_e7c_part_, CODEC_ISA)(const int16_t *levels, unsigned int head_dim,
	const struct e7c_tables *tables, uint8_t *symbols, uint8_t *plain, uint32_t *plain_bytes,
	uint8_t *escapes)
{
	uint8_t *planes = plain, *signs = plain + planes_bytes(tables);
	unsigned int filled = 0;
	uint64_t string = 0;
	uint32_t taken = 0;

	for (unsigned int i = 0; i < tables->rank; i++, symbols += TOKENS, levels += TOKENS) {
		uint32_t held = tables->coders[tables->which[i]].held;
		unsigned int low = tables->low[i], count;
		row16_t magnitude, minus, over;
		uint64_t set, its, escaped;

		for (unsigned int t = 0; t < TOKENS; t++) {
			magnitude[t] = (int16_t)(levels[t] < 0 ? -levels[t] : levels[t]);
			minus[t] = (int16_t)-magnitude[t];
		}
		for (unsigned int k = 0; k < low; k++, planes += 8)
			codec_put64(planes, with_bit(magnitude, k));
		for (unsigned int t = 0; t < TOKENS; t++) {
			uint32_t high = (uint32_t)magnitude[t] >> low,
				 symbol = high < RANGE_ESCAPE ? high : RANGE_ESCAPE;

			symbol = held >> symbol & 1 ? symbol : RANGE_ESCAPE;
			symbols[t] = (uint8_t)symbol;
			over[t] = (int16_t)(RANGE_ESCAPE - 1 - (int32_t)symbol);
		}
		for (escaped = negative(over); __builtin_expect(escaped != 0, 0);
			escaped &= escaped - 1, taken++)
			if (taken < E7C_ESCAPES_MAX(head_dim))
				codec_put16(escapes + 2 * (size_t)taken,
					(uint16_t)(magnitude[__builtin_ctzll(escaped)] >> low));
		set = negative(minus);
		its = extract(negative(levels), set);
		count = (unsigned int)__builtin_popcountll(set);
		/* Flush full words. */
		string |= its << filled;
		if (filled + count >= 64) {
			codec_put64(signs, string);
			signs += 8;
			string = filled ? its >> (64 - filled) : 0;
			filled -= 64;
		}
		filled += count;
	}
	codec_put64(signs, string);
	signs += (filled + 7) / 8;
	for (; signs < plain + RANGE_LAST_BYTES; signs++)
		*signs = 0;
	*plain_bytes = (uint32_t)(signs - plain);
	return taken;
}

/* ---- decode --------------------------------------------------------------------------------- */

bool NAME(codec_e7c_join_, CODEC_ISA)(const uint8_t *symbols, const uint8_t *plain,
	uint32_t plain_bytes, const uint8_t *escapes, const struct e7c_tables *tables,
	int16_t *levels)
{
	uint32_t signs = planes_bytes(tables), at = 0, bytes;
	const uint8_t *planes = plain;

	if (signs > plain_bytes)
		return false;
	for (unsigned int i = 0; i < tables->rank; i++, symbols += TOKENS, levels += TOKENS) {
		unsigned int low = tables->low[i], place = at % 8;
		uint64_t escaped, set, minus;
		row16_t magnitude, bits;

		for (unsigned int t = 0; t < TOKENS; t++) {
			magnitude[t] = symbols[t];
			bits[t] = (int16_t)(RANGE_ESCAPE - 1 - symbols[t]);
		}
		escaped = negative(bits);
		for (; __builtin_expect(escaped != 0, 0); escaped &= escaped - 1, escapes += 2) {
			uint32_t high = codec_get16(escapes);

			if (high > (uint32_t)E7C_LEVEL_MAX >> low)
				return false;
			magnitude[__builtin_ctzll(escaped)] = (int16_t)high;
		}
		for (unsigned int t = 0; low && t < TOKENS; t++)
			magnitude[t] = (int16_t)(magnitude[t] << low);
		for (unsigned int k = 0; k < low; k++, planes += 8) {
			spread(codec_get64(planes), (int16_t)(1 << k), bits);
			for (unsigned int t = 0; t < TOKENS; t++)
				magnitude[t] |= bits[t];
		}
		/* A row has up to 64 signs, in up to 9 bytes. */
		if (signs + at / 8 > plain_bytes)
			return false;
		for (unsigned int t = 0; t < TOKENS; t++)
			bits[t] = (int16_t)-magnitude[t];
		set = negative(bits);
		minus = codec_get64(plain + signs + at / 8) >> place;
		if (place)
			minus |= (uint64_t)plain[signs + at / 8 + 8] << (64 - place);
		spread(deposit(minus, set), -1, bits);
		for (unsigned int t = 0; t < TOKENS; t++)
			levels[t] = (int16_t)((magnitude[t] ^ bits[t]) - bits[t]);
		at += (uint32_t)__builtin_popcountll(set);
	}
	bytes = signs + (at + 7) / 8;
	return plain_bytes == (bytes > RANGE_LAST_BYTES ? bytes : RANGE_LAST_BYTES);
}

void NAME(codec_e7c_restore_, CODEC_ISA)(const int16_t *levels, unsigned int head_dim,
	unsigned int dtype, const struct e7c_tables *tables, const struct rotary_rotation *rotation,
	uint8_t *raw)
{
	static const row16_t zero;
	unsigned int count = (tables->rank + 1) / 2;
	int32_t half = 1 << (tables->shift - 1);
	int16_t pairs[E7C_RANK_MAX / 2 * PAIR] __attribute__((aligned(64)));
	row_t rows[CODEC_HEAD_DIM_MAX];

	for (unsigned int p = 0; p < count; p++)
		couple(levels + (size_t)p * PAIR,
			2 * p + 1 < tables->rank ? levels + (size_t)p * PAIR + TOKENS : zero,
			pairs + (size_t)p * PAIR);
	product(tables->synthesis, tables->stride, head_dim, pairs, count, rows);
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++)
			rows[c][t] = limit(((rows[c][t] + half) >> tables->shift) + tables->mean[c],
				32767);
	rows_store(rows, head_dim, dtype, tables->unit, rotation, raw);
}

// SPDX-License-Identifier: MIT
/*
 * Mode q4x with AVX2 (and F16C); FORMAT.md section 5 is the definition, q4x.c the reference, q4x_avx512.c says where floats are exact.
 */
#include <errno.h>
#include <immintrin.h>
#include <string.h>

#include "float16.h"
#include "kernels.h"
#include "q4x.h"

#define INLINE static inline __attribute__((always_inline))

/* Beyond these a token is zero, or refused, whatever the rest. */
#define EXPONENT_MAX 60

/* The thread's mode may round otherwise; ours is to nearest, ties to even. */
INLINE unsigned int round_to_nearest(void)
{
	unsigned int before = _mm_getcsr();

	_mm_setcsr(before & ~(unsigned int)_MM_ROUND_MASK);
	return before;
}

/* ---- encode ------------------------------------------------------------------------------------------------------- */

INLINE uint32_t largest_magnitude(const uint8_t *raw, unsigned int head_dim)
{
	__m256i most = _mm256_setzero_si256();
	__m128i half;

	for (unsigned int c = 0; c < head_dim; c += 16)
		most = _mm256_max_epu16(most, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(raw + 2 * c)), _mm256_set1_epi16(0x7fff)));
	half = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
	half = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi32(-1)));
	return ~(uint32_t)_mm_cvtsi128_si32(half) & 0xffff;
}

/* In place: eight channels within a register, then registers with each other. */
INLINE void rotate32(int32_t *values, unsigned int head_dim, unsigned int slice)
{
	const __m256i odd1 = _mm256_setr_epi32(1, -1, 1, -1, 1, -1, 1, -1), odd2 = _mm256_setr_epi32(1, 1, -1, -1, 1, 1, -1, -1);
	const __m256i odd4 = _mm256_setr_epi32(1, 1, 1, 1, -1, -1, -1, -1);

	for (unsigned int c = 0; c < head_dim; c += 8) {
		__m256i x = _mm256_load_si256((const __m256i *)(values + c));

		x = _mm256_add_epi32(_mm256_shuffle_epi32(x, 0xb1), _mm256_sign_epi32(x, odd1));
		x = _mm256_add_epi32(_mm256_shuffle_epi32(x, 0x4e), _mm256_sign_epi32(x, odd2));
		x = _mm256_add_epi32(_mm256_permute4x64_epi64(x, 0x4e), _mm256_sign_epi32(x, odd4));
		_mm256_store_si256((__m256i *)(values + c), x);
	}
	for (unsigned int half = 8; half < slice; half *= 2)
		for (unsigned int from = 0; from < head_dim; from += 2 * half)
			for (unsigned int c = from; c < from + half; c += 8) {
				__m256i a = _mm256_load_si256((const __m256i *)(values + c));
				__m256i b = _mm256_load_si256((const __m256i *)(values + c + half));

				_mm256_store_si256((__m256i *)(values + c), _mm256_add_epi32(a, b));
				_mm256_store_si256((__m256i *)(values + c + half), _mm256_sub_epi32(a, b));
			}
}

INLINE void extremes(const int32_t *values, unsigned int head_dim, int32_t *top, int32_t *bottom)
{
	__m256i most = _mm256_load_si256((const __m256i *)values), least = most;
	int32_t high[8], low[8];

	for (unsigned int c = 8; c < head_dim; c += 8) {
		__m256i x = _mm256_load_si256((const __m256i *)(values + c));

		most = _mm256_max_epi32(most, x);
		least = _mm256_min_epi32(least, x);
	}
	_mm256_storeu_si256((__m256i *)high, most);
	_mm256_storeu_si256((__m256i *)low, least);
	*top = high[0];
	*bottom = low[0];
	for (int i = 1; i < 8; i++) {
		*top = high[i] > *top ? high[i] : *top;
		*bottom = low[i] < *bottom ? low[i] : *bottom;
	}
}

INLINE __m256i quantise(__m256i z, unsigned int t, unsigned int bits)
{
	__m256i q = _mm256_srai_epi16(_mm256_mulhi_epi16(z, _mm256_set1_epi16(q4x_reciprocal[t])), 8);

	q = _mm256_max_epi16(q, _mm256_set1_epi16((int16_t)-(1 << (bits - 1))));
	return _mm256_min_epi16(q, _mm256_set1_epi16((int16_t)((1 << (bits - 1)) - 1)));
}

INLINE uint64_t squared_error(const int16_t *z, unsigned int head_dim, unsigned int t, unsigned int bits)
{
	const __m256i half = _mm256_set1_epi16(q4x_half_step[t]), step = _mm256_set1_epi16((int16_t)(2 * q4x_half_step[t]));
	__m256i sum = _mm256_setzero_si256();
	uint64_t parts[4];

	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i x = _mm256_load_si256((const __m256i *)(z + c));
		__m256i e = _mm256_sub_epi16(_mm256_sub_epi16(x, _mm256_mullo_epi16(quantise(x, t, bits), step)), half);

		sum = _mm256_add_epi32(sum, _mm256_madd_epi16(e, e));
	}
	/* Each of the eight sums fits 31 bits, all together need not. */
	sum = _mm256_add_epi64(_mm256_and_si256(sum, _mm256_set1_epi64x(0xffffffff)), _mm256_srli_epi64(sum, 32));
	_mm256_storeu_si256((__m256i *)parts, sum);
	return parts[0] + parts[1] + parts[2] + parts[3];
}

INLINE void write_codes(const int16_t *z, unsigned int head_dim, unsigned int t, unsigned int bits, uint8_t *to)
{
	const __m256i middle = _mm256_set1_epi16((int16_t)(1 << (bits - 1)));

	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i u = _mm256_add_epi16(quantise(_mm256_load_si256((const __m256i *)(z + c)), t, bits), middle);
		/* Pairs of codes in 32-bit lanes, then four in 64-bit lanes. */
		__m256i x = _mm256_madd_epi16(u, _mm256_set1_epi32((1 << (16 + bits)) | 1));
		uint64_t lanes[4], all;

		x = _mm256_or_si256(x, _mm256_srli_epi64(x, 32 - 2 * (int)bits));
		_mm256_storeu_si256((__m256i *)lanes, x);
		for (int i = 0; i < 4; i++)
			lanes[i] &= (1u << 4 * bits) - 1;
		all = lanes[0] | lanes[1] << 4 * bits | lanes[2] << 8 * bits | lanes[3] << 12 * bits;
		memcpy(to, &all, 2 * bits);
		to += 2 * bits;
	}
}

INLINE int encode_token(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *scale, uint8_t *codes)
{
	const struct float_layout *layout = float_layout(dtype);
	unsigned int bits = q4x_bits(tensor), slice_log2 = q4x_slice_log2(head_dim), t = Q4X_CLIPS, best;
	uint32_t largest = largest_magnitude(raw, head_dim), significand;
	int32_t values[CODEC_HEAD_DIM_MAX] __attribute__((aligned(32))), top, bottom;
	int16_t z[CODEC_HEAD_DIM_MAX] __attribute__((aligned(32)));
	int exponent, unit, code, length;
	uint64_t least;
	__m256 power;

	if (largest >= layout->infinity)
		return -ENODATA;
	*scale = 0;
	memset(codes, 0, q4x_token_bytes(head_dim, tensor));
	exponent = (int)float_split(layout, largest, &significand) - layout->bias - (int)layout->mantissa_bits;
	length = 32 - __builtin_clz(significand | 1);
	exponent += length - 1;
	if (!significand || exponent < -EXPONENT_MAX)
		return 0;
	if (exponent > EXPONENT_MAX)
		return -ENODATA;
	unit = exponent - (tensor == CODEC_K ? 18 : 12);
	power = _mm256_castsi256_ps(_mm256_set1_epi32((127 - unit) << 23));
	for (unsigned int c = 0; c < head_dim; c += 8) {
		__m128i words = _mm_loadu_si128((const __m128i *)(raw + 2 * c));
		__m256 x = dtype == SPECKV_DTYPE_BF16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16)) :
							_mm256_cvtph_ps(words);

		_mm256_store_si256((__m256i *)(values + c), _mm256_cvtps_epi32(_mm256_mul_ps(x, power)));
	}
	top = (int32_t)(significand << (13 - length));
	bottom = -top;
	if (tensor == CODEC_K) {
		int32_t half;
		int down;

		rotate32(values, head_dim, 1u << slice_log2);
		extremes(values, head_dim, &top, &bottom);
		down = 32 - __builtin_clz((uint32_t)(top > -bottom ? top : -bottom) | 1) - 14;
		half = 1 << (down - 1);
		for (unsigned int c = 0; c < head_dim; c += 8) {
			__m256i x = _mm256_add_epi32(_mm256_load_si256((const __m256i *)(values + c)), _mm256_set1_epi32(half));

			_mm256_store_si256((__m256i *)(values + c), _mm256_sra_epi32(x, _mm_cvtsi32_si128(down)));
		}
		top = (top + half) >> down;
		bottom = (bottom + half) >> down;
		unit += down - (int)slice_log2;
	}
	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i x = _mm256_packs_epi32(_mm256_load_si256((const __m256i *)(values + c)), _mm256_load_si256((const __m256i *)(values + c + 8)));

		_mm256_store_si256((__m256i *)(z + c), _mm256_permute4x64_epi64(x, 0xd8));
	}
	top = top > -bottom ? top : -bottom;
	while (t < 12 && q4x_half_step[t] << bits < top)
		t++;
	code = 8 * (31 + unit) + 1 + (int)t - Q4X_CLIPS;
	if (code > 255)
		return -ENODATA;
	if (code < 1)
		return 0;
	best = t;
	least = squared_error(z, head_dim, t, bits);
	for (unsigned int clip = 1; clip <= Q4X_CLIPS && code - (int)clip >= 1; clip++) {
		uint64_t error = squared_error(z, head_dim, t - clip, bits);

		best = error < least ? t - clip : best;
		least = error < least ? error : least;
	}
	*scale = (uint8_t)(code - (int)(t - best));
	write_codes(z, head_dim, best, bits, codes);
	return 0;
}

INLINE int encode_tokens(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	unsigned int mode = round_to_nearest();
	int rc = 0;

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS && !rc; t++)
		rc = encode_token(raw + 2 * t * head_dim, head_dim, dtype, tensor, group + t,
				  group + Q4X_SCALES + t * q4x_token_bytes(head_dim, tensor));
	_mm_setcsr(mode);
	return rc;
}

/* Constant head sizes: registers and loops are laid out for each. */
#define FOR_HEAD_SIZE(head_dim, call, ...)         \
	do {                                       \
		switch (head_dim) {                \
		case 64:                           \
			call(64, __VA_ARGS__);     \
			break;                     \
		case 80:                           \
			call(80, __VA_ARGS__);     \
			break;                     \
		case 96:                           \
			call(96, __VA_ARGS__);     \
			break;                     \
		case 128:                          \
			call(128, __VA_ARGS__);    \
			break;                     \
		case 192:                          \
			call(192, __VA_ARGS__);    \
			break;                     \
		default:                           \
			call(256, __VA_ARGS__);    \
			break;                     \
		}                                  \
	} while (0)

#define ENCODE(size, tensor) return encode_tokens(raw, size, dtype, tensor, group)

int codec_q4x_encode_avx2(const uint8_t *raw, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *group)
{
	if (tensor == CODEC_K)
		FOR_HEAD_SIZE(head_dim, ENCODE, CODEC_K);
	else
		FOR_HEAD_SIZE(head_dim, ENCODE, CODEC_V);
}

/* ---- decode ------------------------------------------------------------------------------------------------------- */

/* 16 codes, 2 * bits bytes, to levels 2u - 2^b + 1 in 16-bit lanes. */
INLINE __m256i levels(const uint8_t *codes, unsigned int bits)
{
	uint64_t all;
	__m256i x;

	/* Whole loads: six bytes put together in memory would be waited for. */
	if (bits == 4) {
		memcpy(&all, codes, 8);
	} else {
		uint32_t low;
		uint16_t high;

		memcpy(&low, codes, 4);
		memcpy(&high, codes + 4, 2);
		all = low | (uint64_t)high << 32;
	}
	if (bits == 4) {
		__m128i bytes = _mm_cvtsi64_si128((long long)all), mask = _mm_set1_epi8(15);

		bytes = _mm_unpacklo_epi8(_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
		x = _mm256_cvtepu8_epi16(bytes);
	} else {
		/* Each 32-bit lane gets the two codes from bit 6i on. */
		__m256i low = _mm256_srlv_epi32(_mm256_set1_epi32((int)all), _mm256_setr_epi32(0, 6, 12, 18, 0, 0, 0, 0));
		__m256i high = _mm256_srlv_epi32(_mm256_set1_epi32((int)(all >> 24)), _mm256_setr_epi32(0, 0, 0, 0, 0, 6, 12, 18));

		x = _mm256_blend_epi32(low, high, 0xf0);
		x = _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi32(7)),
				    _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x38)), 13));
	}
	return _mm256_sub_epi16(_mm256_add_epi16(x, x), _mm256_set1_epi16((int16_t)((1 << bits) - 1)));
}

INLINE void rotate16(int16_t *values, unsigned int head_dim, unsigned int slice)
{
	const __m256i odd1 = _mm256_set1_epi32((int)0xffff0001), odd2 = _mm256_set1_epi64x((long long)0xffffffff00010001);
	const __m256i odd4 = _mm256_broadcastsi128_si256(_mm_setr_epi16(1, 1, 1, 1, -1, -1, -1, -1));
	const __m256i odd8 = _mm256_setr_epi16(1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1);
	const __m256i swap1 = _mm256_broadcastsi128_si256(_mm_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));

	for (unsigned int c = 0; c < head_dim; c += 16) {
		__m256i x = _mm256_load_si256((const __m256i *)(values + c));

		x = _mm256_add_epi16(_mm256_shuffle_epi8(x, swap1), _mm256_sign_epi16(x, odd1));
		x = _mm256_add_epi16(_mm256_shuffle_epi32(x, 0xb1), _mm256_sign_epi16(x, odd2));
		x = _mm256_add_epi16(_mm256_shuffle_epi32(x, 0x4e), _mm256_sign_epi16(x, odd4));
		x = _mm256_add_epi16(_mm256_permute4x64_epi64(x, 0x4e), _mm256_sign_epi16(x, odd8));
		_mm256_store_si256((__m256i *)(values + c), x);
	}
	for (unsigned int half = 16; half < slice; half *= 2)
		for (unsigned int from = 0; from < head_dim; from += 2 * half)
			for (unsigned int c = from; c < from + half; c += 16) {
				__m256i a = _mm256_load_si256((const __m256i *)(values + c));
				__m256i b = _mm256_load_si256((const __m256i *)(values + c + half));

				_mm256_store_si256((__m256i *)(values + c), _mm256_add_epi16(a, b));
				_mm256_store_si256((__m256i *)(values + c + half), _mm256_sub_epi16(a, b));
			}
}

/* Eight integers times the scale, exact; plus zero, so that a scale of 0 gives +0. */
INLINE __m256 scaled(__m128i values, __m256 scale)
{
	return _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(values)), scale), _mm256_setzero_ps());
}

INLINE __m256i round_bf16(__m256 value)
{
	__m256i bits = _mm256_castps_si256(value), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));

	return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
}

INLINE __m128i round_fp16(__m256 value)
{
	value = _mm256_max_ps(_mm256_min_ps(value, _mm256_set1_ps(65504)), _mm256_set1_ps(-65504));
	return _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
}

INLINE void decode_tokens(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw)
{
	unsigned int bits = q4x_bits(tensor), mode = round_to_nearest();

	for (unsigned int t = 0; t < CODEC_GROUP_TOKENS; t++) {
		const uint8_t *codes = group + Q4X_SCALES + t * q4x_token_bytes(head_dim, tensor);
		int16_t v[CODEC_HEAD_DIM_MAX] __attribute__((aligned(32)));
		unsigned int code = group[t];
		__m256 scale = _mm256_setzero_ps();

		if (code) {
			__m256i power = _mm256_set1_epi32((int)((code - 1) / 8 + 127 - 33) << 23);

			scale = _mm256_mul_ps(_mm256_castsi256_ps(power), _mm256_set1_ps((float)q4x_eighths[(code - 1) % 8]));
		}
		for (unsigned int c = 0; c < head_dim; c += 16)
			_mm256_store_si256((__m256i *)(v + c), levels(codes + c * bits / 8, bits));
		if (tensor == CODEC_K)
			rotate16(v, head_dim, 1u << q4x_slice_log2(head_dim));
		for (unsigned int c = 0; c < head_dim; c += 16) {
			__m256 a = scaled(_mm_load_si128((const __m128i *)(v + c)), scale);
			__m256 b = scaled(_mm_load_si128((const __m128i *)(v + c + 8)), scale);
			__m256i out;

			if (dtype == SPECKV_DTYPE_BF16)
				out = _mm256_permute4x64_epi64(_mm256_packus_epi32(round_bf16(a), round_bf16(b)), 0xd8);
			else
				out = _mm256_inserti128_si256(_mm256_castsi128_si256(round_fp16(a)), round_fp16(b), 1);
			_mm256_storeu_si256((__m256i *)raw, out);
			raw += 32;
		}
	}
	_mm_setcsr(mode);
}

#define DECODE(size, tensor) decode_tokens(group, size, dtype, tensor, raw)

void codec_q4x_decode_avx2(const uint8_t *group, unsigned int head_dim, unsigned int dtype, enum codec_tensor tensor, uint8_t *raw, bool streamed)
{
	(void)streamed;
	if (tensor == CODEC_K)
		FOR_HEAD_SIZE(head_dim, DECODE, CODEC_K);
	else
		FOR_HEAD_SIZE(head_dim, DECODE, CODEC_V);
}

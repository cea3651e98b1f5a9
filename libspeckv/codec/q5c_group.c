// SPDX-License-Identifier: MIT
/*
 * Mode q5c: the kernels of one group, 64 tokens of one head. FORMAT.md section 8 is the definition.
 *
 * Compiled once for every instruction set (CODEC_ISA), see rows.h: row by row with a token in each
 * lane, so that compilers vectorise it.
 */
#include <errno.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"
#include "qx.h"
#include "q5c.h"
#include "rows.h"

/* 2^(8 + t/8), rounded, t = 0..47: the candidate steps. */
#define STEPS 48
static const int16_t sizes[STEPS] = { 256, 279, 304, 332, 362, 395, 431, 470, 512, 558, 609, 664,
	724, 790, 861, 939, 1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878, 2048, 2233, 2435, 2656,
	2896, 3158, 3444, 3756, 4096, 4467, 4871, 5312, 5793, 6317, 6889, 7512, 8192, 8933, 9742,
	10624, 11585, 12634, 13777, 15024 };
/* 2^22 / sizes, rounded. */
static const int16_t reciprocals[STEPS] = { 16384, 15033, 13797, 12633, 11586, 10618, 9732, 8924,
	8192, 7517, 6887, 6317, 5793, 5309, 4871, 4467, 4096, 3755, 3444, 3158, 2897, 2656, 2436,
	2233, 2048, 1878, 1723, 1579, 1448, 1328, 1218, 1117, 1024, 939, 861, 790, 724, 664, 609,
	558, 512, 470, 431, 395, 362, 332, 304, 279 };

/*
 * Levels above zero at each width; below it they are the same, negative. 256 is one standard
 * deviation. They are the centroids of what a search of this trellis assigns to each level, of a
 * normal distribution, found by repeating search and centroids (Marcellin and Fischer, "Trellis
 * coded quantization of memoryless and Gauss-Markov sources", IEEE Transactions on Communications
 * 38, 1990): errors of -4.97, -10.5, -16.1, -21.9 and -27.7 dB.
 */
static const int16_t halves[Q5C_BITS_MAX + 1][1 << Q5C_BITS_MAX] = {
	{ 0 },
	{ 100, 305 },
	{ 46, 162, 275, 479 },
	{ 28, 90, 149, 216, 285, 368, 477, 652 },
	{ 15, 47, 77, 110, 141, 175, 209, 245, 282, 323, 367, 417, 477, 551, 650, 802 },
	{ 8, 25, 41, 58, 74, 92, 108, 125, 142, 160, 177, 195, 212, 231, 249, 269, 289, 310, 331,
		353, 376, 401, 428, 456, 488, 523, 562, 608, 661, 725, 810, 938 },
};
#define LEVELS_MAX (2 << Q5C_BITS_MAX)

/*
 * All levels of a width, ascending, twice as many as codes: level i is in subset i mod 4, and a path
 * through the trellis gives the subset of every channel.
 */
static void levels_of(unsigned int bits, int16_t *levels)
{
	int half = 1 << bits;

	memset(levels, 0, LEVELS_MAX * sizeof(*levels));
	for (int i = 0; i < half; i++) {
		levels[half + i] = halves[bits][i];
		levels[half - 1 - i] = (int16_t)-halves[bits][i];
	}
}

/* Transform across rows, which are channels. */
static void hadamard(row_t *rows, unsigned int head_dim)
{
	unsigned int slice = 1u << qx_slice_log2(head_dim);

	for (unsigned int half = 1; half < slice; half *= 2)
		for (unsigned int i = 0; i < head_dim; i++)
			if (!(i & half))
				for (unsigned int t = 0; t < TOKENS; t++) {
					int32_t a = rows[i][t], b = rows[i + half][t];

					rows[i][t] = a + b;
					rows[i + half][t] = a - b;
				}
}

/* ---- encode --------------------------------------------------------------------------------- */

/*
 * Normalise each token so that its largest coefficient has 13 bits and a sign; `down` is the shift.
 * All-zero tokens: down = INT32_MIN.
 */
static void normalise(row_t *rows, unsigned int head_dim, int32_t *down)
{
	row_t most = { 0 }, left, right, half;

	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t magnitude = rows[c][t] < 0 ? -rows[c][t] : rows[c][t];

			most[t] = magnitude > most[t] ? magnitude : most[t];
		}
	for (unsigned int t = 0; t < TOKENS; t++) {
		int32_t by = most[t] ? 32 - __builtin_clz((uint32_t)most[t]) - 13 : 0;

		down[t] = most[t] ? by : INT32_MIN;
		left[t] = by < 0 ? -by : 0;
		right[t] = by > 0 ? by : 0;
		half[t] = by > 0 ? 1 << (by - 1) : 0;
	}
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++)
			rows[c][t] = ((int32_t)((uint32_t)rows[c][t] << left[t]) + half[t]) >>
				right[t];
}

/*
 * The step of a token: the least for which its root mean square, and its largest magnitude, are not
 * too many steps. Found on normal, Laplacian and real values; finer steps lose more in the tails
 * than they gain elsewhere.
 */
static const uint16_t spreads[Q5C_BITS_MAX + 1] = { 0, 14, 13, 10, 9, 10 }; /* in 1/8, squared */
static const uint16_t reaches[Q5C_BITS_MAX + 1] = { 0, 1013, 795, 743, 805, 927 }; /* in 1/256 */

static void choose_steps(row_t *rows, unsigned int head_dim, unsigned int bits, int32_t *chosen)
{
	uint64_t energy[TOKENS] = { 0 };
	row_t most = { 0 };

	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t magnitude = rows[c][t] < 0 ? -rows[c][t] : rows[c][t];

			energy[t] += (uint32_t)(magnitude * magnitude);
			most[t] = magnitude > most[t] ? magnitude : most[t];
		}
	for (unsigned int t = 0; t < TOKENS; t++) {
		int32_t at = 0;

		while (at < STEPS - 1 &&
			((uint64_t)((uint32_t)sizes[at] * (uint32_t)sizes[at]) * head_dim *
						spreads[bits] <
					8 * energy[t] ||
				sizes[at] * reaches[bits] < 256 * most[t]))
			at++;
		chosen[t] = at;
	}
}

/*
 * The search: for some tokens at a time, the best path of codes to each state of the trellis, which
 * is the last two path bits, the newer one lower. A path carries the errors that it has made, and
 * they correct its targets (error feedback): each channel's target makes up for the errors of
 * earlier channels, so that the total error has little effect on attention. Decoding does not
 * depend on it.
 */
#define LANES 16
#define STATES 4
#define RUNGS_MAX (1 << (Q5C_BITS_MAX - 1))

typedef int32_t lanes_t[LANES] __attribute__((aligned(64)));
typedef int16_t lanes16_t[LANES] __attribute__((aligned(32)));

/* A subset's levels: a value adds the rise of every threshold that it reaches. */
struct ladder {
	int16_t least, threshold[RUNGS_MAX], rise[RUNGS_MAX];
};

struct search {
	/* of each state's path: errors of two channels side by side */
	int16_t errors[CODEC_HEAD_DIM_MAX / 2][STATES][LANES][2] __attribute__((aligned(64)));
	/* of the best path to each state: its code less the path bit, FROM_UPPER */
	uint8_t from[CODEC_HEAD_DIM_MAX][STATES][LANES] __attribute__((aligned(64)));
	lanes_t cost[STATES];
	struct ladder ladders[4];
	unsigned int rungs;
};

/* The path came from the state whose older path bit was 1. */
#define FROM_UPPER 0x80

static void ladders_of(unsigned int bits, struct search *search)
{
	int16_t levels[LEVELS_MAX];

	levels_of(bits, levels);
	search->rungs = (1u << (bits - 1)) - 1;
	for (unsigned int j = 0; j < 4; j++) {
		struct ladder *ladder = &search->ladders[j];

		ladder->least = levels[j];
		for (unsigned int i = 0; i < search->rungs; i++) {
			int below = levels[4 * i + j], above = levels[4 * i + 4 + j];

			ladder->threshold[i] = (int16_t)((below + above + 1) >> 1);
			ladder->rise[i] = (int16_t)(above - below);
		}
	}
}

/* What a state's errors so far add to the target of channel `channel`, in 1/512. */
static void feed_back(const struct search *search, unsigned int state, const int16_t *weights,
	unsigned int channel, int32_t *sum)
{
	unsigned int pairs = (channel + 1) / 2;

#if defined(__AVX512BW__)
	__m512i total = _mm512_setzero_si512();

	for (unsigned int i = 0; i < pairs; i++) {
		int both;

		memcpy(&both, weights + 2 * (size_t)i, sizeof(both));
		total = _mm512_add_epi32(total,
			_mm512_madd_epi16(_mm512_load_si512(search->errors[i][state]),
				_mm512_set1_epi32(both)));
	}
	_mm512_store_si512(sum, total);
#elif defined(__AVX2__)
	__m256i total[2] = { _mm256_setzero_si256(), _mm256_setzero_si256() };

	for (unsigned int i = 0; i < pairs; i++) {
		const __m256i *errors = (const __m256i *)(const void *)search->errors[i][state];
		__m256i by;
		int both;

		memcpy(&both, weights + 2 * (size_t)i, sizeof(both));
		by = _mm256_set1_epi32(both);
		for (unsigned int half = 0; half < 2; half++)
			total[half] = _mm256_add_epi32(total[half],
				_mm256_madd_epi16(_mm256_load_si256(errors + half), by));
	}
	for (unsigned int half = 0; half < 2; half++)
		_mm256_store_si256((__m256i *)(void *)sum + half, total[half]);
#else
	memset(sum, 0, sizeof(lanes_t));
	for (unsigned int i = 0; i < pairs; i++)
		for (unsigned int t = 0; t < LANES; t++)
			sum[t] += weights[2 * i] * search->errors[i][state][t][0] +
				weights[2 * i + 1] * search->errors[i][state][t][1];
#endif
}

/* A continuation of a state's path by one code. */
struct branch {
	lanes_t cost;
	lanes16_t error, code;
};

/* By the nearest level of a subset. */
static void extend(const struct search *search, unsigned int state, unsigned int subset,
	const int32_t *values, const int32_t *targets, const int32_t *step,
	const int32_t *reciprocal, struct branch *branch)
{
	const struct ladder *ladder = &search->ladders[subset];
	lanes16_t n, level;

	for (unsigned int t = 0; t < LANES; t++) {
		n[t] = (int16_t)((targets[t] * reciprocal[t] + 8192) >> 14);
		level[t] = ladder->least;
		branch->code[t] = 0;
	}
	for (unsigned int i = 0; i < search->rungs; i++)
		for (unsigned int t = 0; t < LANES; t++) {
			int16_t above = (int16_t)-(n[t] >= ladder->threshold[i]);

			level[t] = (int16_t)(level[t] + (above & ladder->rise[i]));
			branch->code[t] = (int16_t)(branch->code[t] - above);
		}
	for (unsigned int t = 0; t < LANES; t++) {
		int32_t found = (level[t] * step[t] + 128) >> 8,
			miss = limit(targets[t] - found, 16383);

		branch->error[t] = (int16_t)limit(values[t] - found, 16383);
		branch->cost[t] = search->cost[state][t] + miss * miss;
	}
}

/* Every state takes the better of the two paths that lead to it; ties to the lower one. */
static void choose_paths(struct search *search, unsigned int channel,
	struct branch branches[STATES][2])
{
	lanes_t upper[STATES];
	lanes16_t error[STATES];
	lanes_t least;

	for (unsigned int state = 0; state < STATES; state++) {
		const struct branch *low = &branches[state >> 1][state & 1],
				    *high = &branches[state >> 1 | 2][state & 1];

		for (unsigned int t = 0; t < LANES; t++) {
			int32_t mask = -(high->cost[t] < low->cost[t]);

			upper[state][t] = mask;
			search->cost[state][t] = mask ? high->cost[t] : low->cost[t];
			error[state][t] = mask ? high->error[t] : low->error[t];
			search->from[channel][state][t] =
				(uint8_t)(mask ? high->code[t] | FROM_UPPER : low->code[t]);
		}
	}
	for (unsigned int t = 0; t < LANES; t++) {
		least[t] = search->cost[0][t];
		for (unsigned int state = 1; state < STATES; state++)
			least[t] = search->cost[state][t] < least[t] ? search->cost[state][t]
								     : least[t];
	}
	for (unsigned int state = 0; state < STATES; state++)
		for (unsigned int t = 0; t < LANES; t++)
			search->cost[state][t] -= least[t];
	for (unsigned int i = 0; i < (channel + 1) / 2; i++) {
		lanes_t old[STATES], *errors = (lanes_t *)(void *)search->errors[i];

		memcpy(old, errors, sizeof(old));
		for (unsigned int state = 0; state < STATES; state++)
			for (unsigned int t = 0; t < LANES; t++)
				errors[state][t] = upper[state][t] ? old[state >> 1 | 2][t]
								   : old[state >> 1][t];
	}
	for (unsigned int state = 0; state < STATES; state++)
		for (unsigned int t = 0; t < LANES; t++) {
			search->errors[channel / 2][state][t][channel % 2] = error[state][t];
			if (channel % 2 == 0)
				search->errors[channel / 2][state][t][1] = 0;
		}
}

/* Put the bits of the best path's codes of LANES tokens, of which the first is `first`. */
static void trace_back(const struct search *search, unsigned int head_dim, unsigned int bits,
	unsigned int first, uint64_t (*planes)[Q5C_BITS_MAX])
{
	uint8_t state[LANES] = { 0 };

	for (unsigned int t = 0; t < LANES; t++)
		for (unsigned int other = 1; other < STATES; other++)
			if (search->cost[other][t] < search->cost[state[t]][t])
				state[t] = (uint8_t)other;
	for (unsigned int c = head_dim; c-- > 0;) {
		uint8_t code[LANES] __attribute__((aligned(16)));

		for (unsigned int t = 0; t < LANES; t++) {
			uint8_t odd = state[t] & 1, one = state[t] & 2,
				low = odd ? search->from[c][1][t] : search->from[c][0][t],
				high = odd ? search->from[c][3][t] : search->from[c][2][t],
				from = one ? high : low;

			code[t] = (uint8_t)((from & (FROM_UPPER - 1)) | odd << (bits - 1));
			state[t] = (uint8_t)(state[t] >> 1 | (from & FROM_UPPER ? 2 : 0));
		}
		for (unsigned int bit = 0; bit < bits; bit++) {
			uint64_t plane = 0;

#if defined(__SSE2__)
			plane = (uint32_t)_mm_movemask_epi8(
				_mm_sll_epi16(_mm_load_si128((const __m128i *)(const void *)code),
					_mm_cvtsi32_si128(7 - (int)bit)));
#else
			for (unsigned int t = 0; t < LANES; t++)
				plane |= (uint64_t)(code[t] >> bit & 1) << t;
#endif
			planes[c][bit] |= plane << first;
		}
	}
}

static void search_codes(row_t *rows, unsigned int head_dim, const struct q5c_tables *tables,
	const int32_t *chosen, uint8_t *out)
{
	uint64_t planes[CODEC_HEAD_DIM_MAX][Q5C_BITS_MAX];
	struct search search;

	memset(planes, 0, head_dim * sizeof(planes[0]));
	ladders_of(tables->bits, &search);
	for (unsigned int first = 0; first < TOKENS; first += LANES) {
		const int16_t *shaping = tables->shaping;
		lanes_t step, reciprocal;

		for (unsigned int t = 0; t < LANES; t++) {
			step[t] = sizes[chosen[first + t]];
			reciprocal[t] = reciprocals[chosen[first + t]];
			/* Both path bits before the first channel are 0. */
			for (unsigned int state = 0; state < STATES; state++)
				search.cost[state][t] = state ? 1 << 30 : 0;
		}
		for (unsigned int c = 0; c < head_dim; shaping += c, c++) {
			int16_t weights[CODEC_HEAD_DIM_MAX + 1];
			struct branch branches[STATES][2];

			memcpy(weights, shaping, c * sizeof(*weights));
			weights[c] = 0;
			for (unsigned int state = 0; state < STATES; state++) {
				const int32_t *values = rows[c] + first;
				lanes_t target;

				feed_back(&search, state, weights, c, target);
				for (unsigned int t = 0; t < LANES; t++)
					target[t] =
						limit(values[t] + ((target[t] + 256) >> 9), 16383);
				for (unsigned int bit = 0; bit < 2; bit++)
					extend(&search, state, 2 * (bit ^ state >> 1) + (state & 1),
						values, target, step, reciprocal,
						&branches[state][bit]);
			}
			choose_paths(&search, c, branches);
		}
		trace_back(&search, head_dim, tables->bits, first, planes);
	}
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int bit = 0; bit < tables->bits; bit++, out += 8)
			codec_put64(out, planes[c][bit]);
}

int NAME(codec_q5c_encode_, CODEC_ISA)(const uint8_t *raw, unsigned int head_dim,
	unsigned int dtype, const struct q5c_tables *tables, const struct rotary_rotation *rotation,
	unsigned int sinks, uint8_t *group)
{
	int32_t slice_log2 = (int32_t)qx_slice_log2(head_dim);
	row_t rows[CODEC_HEAD_DIM_MAX], down, chosen;

	if (!rows_load(raw, head_dim, dtype, tables->unit, tables->mean, rotation, sinks, rows))
		return -ENODATA;
	hadamard(rows, head_dim);
	normalise(rows, head_dim, down);
	choose_steps(rows, head_dim, tables->bits, chosen);
	for (unsigned int t = 0; t < TOKENS; t++)
		group[t] = down[t] == INT32_MIN
			? 0
			: (uint8_t)(1 + chosen[t] + 8 * (down[t] - slice_log2 + 19));
	search_codes(rows, head_dim, tables, chosen, group + Q5C_SCALES);
	return 0;
}

/* ---- decode --------------------------------------------------------------------------------- */

/* Look up the level of each token, whose index has these bit planes. */
static void look_up(const int16_t *levels, const uint64_t *planes, int32_t *row)
{
#if defined(__AVX512BW__)
	__m512i index = _mm512_setzero_si512(), low = _mm512_loadu_si512(levels),
		high = _mm512_loadu_si512(levels + 32);

	for (unsigned int bit = 0; bit <= Q5C_BITS_MAX; bit++)
		index = _mm512_or_si512(index,
			_mm512_maskz_set1_epi8(planes[bit], (char)(1 << bit)));
	for (unsigned int half = 0; half < 2; half++) {
		__m512i wide = _mm512_cvtepu8_epi16(half ? _mm512_extracti64x4_epi64(index, 1)
							 : _mm512_castsi512_si256(index));

		wide = _mm512_permutex2var_epi16(low, wide, high);
		_mm512_store_si512(row + 32 * half,
			_mm512_cvtepi16_epi32(_mm512_castsi512_si256(wide)));
		_mm512_store_si512(row + 32 * half + 16,
			_mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(wide, 1)));
	}
#else
	for (unsigned int t = 0; t < TOKENS; t++) {
		unsigned int index = 0;

		for (unsigned int bit = 0; bit <= Q5C_BITS_MAX; bit++)
			index |= (unsigned int)(planes[bit] >> t & 1) << bit;
		row[t] = levels[index];
	}
#endif
}

bool NAME(codec_q5c_decode_, CODEC_ISA)(const uint8_t *group, unsigned int head_dim,
	unsigned int dtype, const struct q5c_tables *tables, const struct rotary_rotation *rotation,
	uint8_t *raw)
{
	row_t rows[CODEC_HEAD_DIM_MAX], mantissa, shift, half;
	uint64_t path[2] = { 0 }; /* path bits of the channel before, and of the one before it */
	int16_t levels[LEVELS_MAX];
	uint8_t largest = 0;

	for (unsigned int t = 0; t < TOKENS; t++) {
		unsigned int scale = group[t];

		largest = scale > largest ? (uint8_t)scale : largest;
		mantissa[t] = scale ? q5c_eighths[(scale - 1) % 8] : 0;
		shift[t] = scale && scale <= Q5C_SCALE_MAX ? 30 - (int32_t)(scale - 1) / 8 : 30;
		half[t] = 1 << (shift[t] - 1);
	}
	if (largest > Q5C_SCALE_MAX)
		return false;
	levels_of(tables->bits, levels);
	group += Q5C_SCALES;
	for (unsigned int c = 0; c < head_dim; c++) {
		uint64_t planes[Q5C_BITS_MAX + 1] = { path[0] }, taken;

		for (unsigned int bit = 0; bit + 1 < tables->bits; bit++, group += 8)
			planes[2 + bit] = codec_get64(group);
		taken = codec_get64(group);
		group += 8;
		planes[1] = taken ^ path[1];
		path[1] = path[0];
		path[0] = taken;
		look_up(levels, planes, rows[c]);
	}
	hadamard(rows, head_dim);
	for (unsigned int c = 0; c < head_dim; c++)
		for (unsigned int t = 0; t < TOKENS; t++) {
			int32_t y = limit((rows[c][t] * mantissa[t] + half[t]) >> shift[t], 32767);

			rows[c][t] = limit(y + tables->mean[c], 32767);
		}
	rows_store(rows, head_dim, dtype, tables->unit, rotation, raw);
	return true;
}

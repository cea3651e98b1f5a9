// SPDX-License-Identifier: MIT
/*
 * Range coding with 64 interleaved states and static tables. Defined by FORMAT.md section 6.3; the
 * portable kernels follow it word by word.
 */
#include "kernels.h"
#include "range.h"

/* false: the frequencies do not sum to 256. */
bool codec_range_table(const uint8_t *frequency, struct range_table *table)
{
	unsigned int start = 0;

	table->held = 0;
	for (unsigned int s = 0; s < RANGE_SYMBOLS; s++) {
		table->frequency[s] = frequency[s];
		table->reciprocal[s] = frequency[s] ? (UINT64_C(1) << 32) / frequency[s] + 1 : 0;
		table->start[s] = (uint8_t)start;
		table->held |= (uint32_t)!!frequency[s] << s;
		table->entry[s] = frequency[s] | (uint32_t)(uint16_t)-start << 16;
		for (unsigned int i = 0; i < frequency[s] && start + i < 256; i++) {
			table->symbol[start + i] = (uint8_t)s;
			table->slot[start + i] = frequency[s] | s << 8 | i << 16;
		}
		start += frequency[s];
	}
	return start == 256;
}

bool codec_range_symbols_portable(const struct range_table *tables, const uint8_t *which,
	const uint8_t *code, uint32_t bytes, unsigned int runs, uint32_t *states, uint8_t *symbols)
{
	uint32_t at = 0;

	for (unsigned int run = 0; run < runs; run++, symbols += RANGE_STATES) {
		const struct range_table *table = which ? tables + which[run] : tables;

		if (at > bytes)
			return false;
		for (unsigned int k = 0; k < RANGE_STATES; k++) {
			uint32_t state = states[k], slot = table->slot[state % 256];
			/* Branchless: whether a byte is consumed is unpredictable. */
			uint32_t small;

			symbols[range_element(k)] = (uint8_t)(slot >> 8);
			state = (slot & 255) * (state >> 8) + (slot >> 16);
			small = state < RANGE_STATE_MIN;
			states[k] = state << 8 * small | (code[at] & -small);
			at += small;
		}
	}
	return at == bytes;
}

/*
 * The decoder's steps in reverse, from the last one. Returns the bytes of code, which end at `end`.
 */
uint32_t codec_range_code_portable(const struct range_table *tables, const uint8_t *which,
	const uint8_t *symbols, unsigned int runs, uint32_t *states, uint8_t *end)
{
	const uint8_t *from = end;

	for (unsigned int run = runs; run-- > 0;) {
		const struct range_table *table = which ? tables + which[run] : tables;

		for (unsigned int k = RANGE_STATES; k-- > 0;) {
			unsigned int s = symbols[run * RANGE_STATES + range_element(k)];
			uint32_t state = states[k], frequency = table->frequency[s],
				 large = state >= frequency * RANGE_STATE_MIN;

			/* Always written, kept only if due. */
			end[-1] = (uint8_t)state;
			end -= large;
			state >>= 8 * large;
			/* state / frequency: exact for states below 2^23 */
			states[k] = state +
				(uint32_t)(state * table->reciprocal[s] >> 32) * (256 - frequency) +
				table->start[s];
		}
	}
	return (uint32_t)(from - end);
}

/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the calibrated modes share: a calibration in memory, and what kernels make of
 * e7c's levels.
 */
#ifndef TEST_CODEC_CALIBRATED_H
#define TEST_CODEC_CALIBRATED_H

#include "../../vectors/calibration_e7c.h"
#include "harness.h"
#include "codec/calibration.h"
#include "codec/kernels.h"

enum { TOKENS = CODEC_GROUP_TOKENS, MOST = CODEC_HEAD_DIM_MAX };

static const char *const rotaries[] = { "none", "halves", "neighbours" };

static inline struct speckv_calibration *loaded(const struct calibration_file *file)
{
	struct speckv_calibration *calibration = NULL;
	int rc = speckv_calibration_load(file->bytes, file->length, &calibration);

	CHECK(!rc && calibration, "load: %d", rc);
	return calibration;
}

/* What one set of kernels makes of a group. */
struct made {
	int rc;
	uint32_t escapes, plain_bytes, code_bytes;
	int16_t levels[MOST * TOKENS] __attribute__((aligned(64)));
	uint8_t symbols[MOST * TOKENS], plain[E7C_PLAIN_MAX + 8],
		escaped[2 * E7C_ESCAPES_MAX(MOST)], code[MOST * TOKENS];
	uint32_t states[RANGE_STATES];
};

static inline void pack(const struct codec_kernels *k, unsigned int head_dim,
	const struct e7c_tables *tables, struct made *m)
{
	m->escapes = k->e7c_part(m->levels, head_dim, tables, m->symbols, m->plain, &m->plain_bytes,
		m->escaped);
	range_begin(m->plain + m->plain_bytes - RANGE_LAST_BYTES, m->states);
	m->code_bytes = k->range_code(tables->coders, tables->which, m->symbols, tables->rank,
		m->states, m->code + sizeof(m->code));
}

static inline void same_packing(const char *name, const struct made *a, const struct made *b,
	unsigned int rank, unsigned int head_dim)
{
	uint32_t listed = a->escapes < E7C_ESCAPES_MAX(head_dim) ? a->escapes
								 : E7C_ESCAPES_MAX(head_dim);

	CHECK(a->escapes == b->escapes && a->plain_bytes == b->plain_bytes,
		"%s: %u and %u, not %u and %u", name, b->escapes, b->plain_bytes, a->escapes,
		a->plain_bytes);
	CHECK(!memcmp(a->symbols, b->symbols, (size_t)rank * TOKENS), "%s: symbols", name);
	CHECK(!memcmp(a->plain, b->plain, a->plain_bytes), "%s: plain bits", name);
	CHECK(!memcmp(a->escaped, b->escaped, 2 * listed), "%s: escapes", name);
	CHECK(a->code_bytes == b->code_bytes && !memcmp(a->states, b->states, sizeof(a->states)) &&
			!memcmp(a->code + sizeof(a->code) - a->code_bytes,
				b->code + sizeof(b->code) - b->code_bytes, a->code_bytes),
		"%s: code", name);
}

static inline void any_levels(uint64_t *seed, const struct e7c_tables *tables, int16_t *levels)
{
	for (unsigned int i = 0; i < tables->rank; i++) {
		uint32_t bound = 1u +
			(random_below(seed, 4) ? random_below(seed, 4) : random_below(seed, 2048));

		for (unsigned int t = 0; t < TOKENS; t++) {
			int16_t x = (int16_t)random_below(seed, bound);

			levels[i * TOKENS + t] = (int16_t)(random_below(seed, 2) ? -x : x);
		}
	}
}

/*
 * A block of two heads comes back as blocks of each of them alone do: what heads share is theirs.
 * Either has one group of K and one of V.
 */
static inline void heads_share(uint64_t *seed, unsigned int codec,
	struct calibration_file (*make)(uint64_t *, const struct calibration_shape *))
{
	enum { GROUP = 2 * TOKENS * 64 };
	static uint8_t raw[4 * GROUP], out[4 * GROUP], one[2 * GROUP], one_out[2 * GROUP];

	for (int r = 0; r < 3; r++) {
		struct calibration_shape shape = { 1, 2, 64, 0, rotaries[r], -9 };
		struct speckv_geometry both = { 1, 2, 64, TOKENS, SPECKV_DTYPE_BF16, { 0 } },
				       alone = { 1, 1, 64, TOKENS, SPECKV_DTYPE_BF16, { 0 } };
		struct calibration_file file = make(seed, &shape);
		struct speckv_calibration *calibration = loaded(&file);
		struct speckv_frame_identity id = random_identity(seed);
		uint64_t most = speckv_frame_max_bytes(&both, codec), length;
		uint8_t *frame = line_alloc(most);
		struct speckv_frame parsed;

		random_values(seed, &both, STYLE_CHANNELS, (uint16_t *)(void *)raw,
			sizeof(raw) / 2);
		CHECK(!speckv_frame_encode_calibrated(&both, codec, calibration, 0, 0, &id, raw,
			      sizeof(raw), frame, most, &length) &&
				!speckv_frame_parse(frame, length, &parsed) &&
				!speckv_frame_decode_calibrated(&parsed, calibration, frame, length,
					0, 1, out, sizeof(out)),
			"both heads");
		for (unsigned int head = 0; head < 2; head++) {
			for (unsigned int tensor = 0; tensor < 2; tensor++)
				memcpy(one + tensor * GROUP, raw + (2 * tensor + head) * GROUP,
					GROUP);
			CHECK(!speckv_frame_encode_calibrated(&alone, codec, calibration, 0, head,
				      &id, one, sizeof(one), frame, most, &length) &&
					!speckv_frame_parse(frame, length, &parsed) &&
					!speckv_frame_decode_calibrated(&parsed, calibration, frame,
						length, 0, 1, one_out, sizeof(one_out)),
				"head %u", head);
			for (unsigned int tensor = 0; tensor < 2; tensor++)
				CHECK(!memcmp(one_out + tensor * GROUP,
					      out + (2 * tensor + head) * GROUP, GROUP),
					"%s: head %u, tensor %u", rotaries[r], head, tensor);
		}
		speckv_calibration_free(calibration);
		free(file.bytes);
		free(frame);
	}
}

#endif

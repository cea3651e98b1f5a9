// SPDX-License-Identifier: MIT
/*
 * Fuzzing the frame reader and every decoder, with headers that change under the reader. Guided by
 * guided.c, or by libFuzzer.
 *
 * The first bytes of an input say how the rest, a frame, is treated:
 *   0     bit 0: make the checksums right first, so that the fuzzer gets behind them; bits 1, 2:
 *   kernels; bit 3: read some layers only 1, 2  after so many steps of the reader (0: never) .. 3,
 *   4  .. the byte at this place of the frame .. 5     .. changes by this
 */
#include "harness.h"
#include "guided.h"

enum { CONTROL = 6 };

struct edit {
	uint8_t *at;
	uint8_t by;
};

static void apply(void *context)
{
	const struct edit *edit = context;

	*edit->at ^= edit->by;
}

static void seal(uint8_t *frame, size_t size)
{
	uint64_t sections = (uint64_t)frame[112] | (uint64_t)frame[113] << 8;

	for (uint64_t s = 0; s < sections && 128 + 16 * (s + 1) <= size; s++) {
		uint8_t *entry = frame + 128 + 16 * s;
		uint64_t at = 64 * (uint64_t)get32(entry), length = get32(entry + 4);

		if (at <= size && length <= size - at)
			put32(entry + 8, speckv_crc32c(0, frame + at, length));
	}
	if (128 + 16 * sections <= size)
		reseal(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };
	struct speckv_frame parsed;
	struct edit edit;
	uint64_t begun, work = 0;
	uint8_t *frame;

	if (size < CONTROL)
		return 0;
	if (speckv_isa_force(isas[data[0] >> 1 & 3]))
		speckv_isa_force("auto");
	frame = line_alloc(size - CONTROL);
	memcpy(frame, data + CONTROL, size - CONTROL);
	size -= CONTROL;
	if (data[0] & 1 && size >= 128)
		seal(frame, size);
	if ((data[1] || data[2]) && size) {
		edit.at = frame + (data[3] | (size_t)data[4] << 8) % size;
		edit.by = data[5];
		guided_interrupt(data[1] | (uint64_t)data[2] << 8, apply, &edit);
	}
	begun = guided_steps();
	speckv_frame_verify(frame, size);
	if (!speckv_frame_parse(frame, size, &parsed) && parsed.raw_bytes <= 16u << 20) {
		unsigned int layer = data[0] & 8 ? data[5] % parsed.geometry.layers : 0,
			     layers = data[0] & 8 ? 1 : parsed.geometry.layers;
		uint64_t bytes = parsed.raw_bytes / parsed.geometry.layers * layers;
		uint8_t *out = line_alloc(bytes);

		memset(out, 0xee, bytes);
		if (speckv_frame_decode(&parsed, frame, size, layer, layers, out, bytes))
			for (uint64_t i = 0; i < bytes; i++)
				CHECK(!out[i], "zeroed after an error");
		free(out);
		work = parsed.raw_bytes;
	}
	work = guided_steps() - begun > 100000 + 100 * (size + work);
	CHECK(!work, "%llu steps for %zu bytes", (unsigned long long)(guided_steps() - begun),
		size);
	guided_interrupt(UINT64_MAX - guided_steps() - 2, apply, NULL);
	free(frame);
	return 0;
}

void guided_seeds(void (*add)(const uint8_t *data, size_t size))
{
	uint64_t seed = 99;

	for (unsigned int codec = 0; codec < 8; codec++)
		for (int i = 0; i < 24 && speckv_codec_modes() >> codec & 1; i++) {
			struct speckv_geometry g = random_geometry(&seed);
			struct speckv_frame_identity id = random_identity(&seed);
			uint64_t bytes, most, length;
			uint8_t *raw, *input;

			/*
			 * Small, so that changes meet something: other shapes come of themselves.
			 */
			g.kv_heads = g.layers = 1;
			g.tokens = 64;
			if (i % 4) {
				g.head_dim = 64;
				g.kv_heads = (uint16_t)(1 + i % 2);
				g.layers = (uint16_t)(1 + i % 3 / 2);
			}
			if (codec == SPECKV_CODEC_RAW || codec == SPECKV_CODEC_LOSSLESS)
				g.dtype = (uint8_t)(1 + i % 4);
			bytes = speckv_geometry_bytes(&g);
			most = speckv_frame_max_bytes(&g, codec);
			if (!most)
				continue;
			raw = line_alloc(bytes);
			input = line_alloc(64 + most);
			memset(input, 0, 64);
			random_values(&seed, &g, (enum style)(i % STYLES), (uint16_t *)(void *)raw,
				bytes / 2);
			if (!speckv_frame_encode(&g, codec, &id, raw, bytes, input + 64, most,
				    &length)) {
				input[64 - CONTROL] = (uint8_t)(1 | (i & 3) << 1);
				if (i % 3 == 0) {
					input[64 - CONTROL + 1] = (uint8_t)random_next(&seed);
					input[64 - CONTROL + 3] = (uint8_t)random_next(&seed);
					input[64 - CONTROL + 5] = (uint8_t)random_next(&seed);
				}
				add(input + 64 - CONTROL, CONTROL + length);
			}
			free(raw);
			free(input);
		}
}

// SPDX-License-Identifier: MIT
/*
 * Fuzzing the loader of calibrations, and the reader of frames that need one. Guided by guided.c,
 * or by libFuzzer.
 *
 * The first bytes of an input say how the rest is treated:
 *   0     bit 0: a frame, else a calibration; bits 1, 2: kernels; bit 3: a byte of the frame
 *   changes in the middle 1, 2  after so many steps of the reader .. 3     .. the byte at this
 *   place changes, by this as well
 */
#include "../../vectors/calibration_e7c.h"
#include "harness.h"
#include "guided.h"

enum { CONTROL = 4 };

/* Of head size 64, two layers, two heads: all widths, and from few coefficients to all. */
static const struct calibration_shape shape = { 2, 2, 64, 0, "halves", -9 };

static struct calibration_file file_for(unsigned int codec, uint64_t *seed,
	const struct calibration_shape *its)
{
	return codec == SPECKV_CODEC_E7C ? random_e7c_calibration(seed, its)
					 : random_calibration(seed, its);
}

static const struct speckv_calibration *own(unsigned int codec)
{
	static struct speckv_calibration *both[2];
	struct speckv_calibration **calibration = &both[codec == SPECKV_CODEC_E7C];
	uint64_t seed = 4;

	if (!*calibration) {
		struct calibration_file file = file_for(codec, &seed, &shape);

		CHECK(!speckv_calibration_load(file.bytes, file.length, calibration), "load");
		free(file.bytes);
	}
	return *calibration;
}

static void apply(void *context)
{
	uint8_t *at = context;

	*at ^= *at ? *at : 1;
}

static void seal(uint8_t *frame, size_t size)
{
	uint64_t sections = (uint64_t)frame[112] | (uint64_t)frame[113] << 8;
	struct speckv_calibration_info info;

	speckv_calibration_describe(own(frame[6]), &info);
	memcpy(frame + 96, info.digest, sizeof(info.digest));
	for (uint64_t s = 0; s < sections && 128 + 16 * (s + 1) <= size; s++) {
		uint8_t *entry = frame + 128 + 16 * s;
		uint64_t at = 64 * (uint64_t)get32(entry), length = get32(entry + 4);

		if (at <= size && length <= size - at)
			put32(entry + 8, speckv_crc32c(0, frame + at, length));
	}
	if (128 + 16 * sections <= size)
		reseal(frame);
}

static void frame_in(const uint8_t *control, uint8_t *frame, size_t size)
{
	struct speckv_frame parsed;

	if (size >= 128)
		seal(frame, size);
	if (control[0] & 8 && size)
		guided_interrupt(1 + (control[1] | (uint64_t)control[2] << 8), apply,
			frame + control[3] % size);
	if (!speckv_frame_parse(frame, size, &parsed) && parsed.raw_bytes <= 1u << 20) {
		uint8_t *out = line_alloc(parsed.raw_bytes);

		memset(out, 0xee, parsed.raw_bytes);
		if (speckv_frame_decode_calibrated(&parsed, own(parsed.codec), frame, size, 0,
			    parsed.geometry.layers, out, parsed.raw_bytes))
			for (uint64_t i = 0; i < parsed.raw_bytes; i++)
				CHECK(!out[i], "zeroed after an error");
		free(out);
	}
	guided_interrupt(UINT64_MAX - guided_steps() - 2, apply, NULL);
}

/* A calibration that loads must carry any block. */
static void calibration_in(uint8_t *file, size_t size)
{
	struct speckv_geometry g = { 1, 1, 0, 64, SPECKV_DTYPE_BF16, { 0 } };
	struct speckv_frame_identity id = { .first_position = size * UINT64_C(0x123456789abcdef) };
	struct speckv_calibration *calibration = NULL;
	struct speckv_calibration_info info;
	uint64_t seed = size, bytes;
	struct speckv_frame parsed;
	uint8_t *raw;

	if (speckv_calibration_load(file, size, &calibration)) {
		CHECK(!calibration, "nothing after an error");
		return;
	}
	CHECK(!speckv_calibration_describe(calibration, &info), "describe");
	g.head_dim = (uint16_t)info.head_dim;
	bytes = speckv_geometry_bytes(&g);
	raw = line_alloc(bytes);
	random_values(&seed, &g, STYLE_CHANNELS, (uint16_t *)(void *)raw, bytes / 2);
	for (unsigned int codec = SPECKV_CODEC_Q5C; codec <= SPECKV_CODEC_E7C; codec++) {
		uint64_t most = speckv_frame_max_bytes(&g, codec), length;
		uint8_t *frame = line_alloc(most);

		if (info.codecs >> codec & 1 &&
			!speckv_frame_encode_calibrated(&g, codec, calibration, info.layers - 1,
				info.kv_heads - 1, &id, raw, bytes, frame, most, &length))
			CHECK(!speckv_frame_parse(frame, length, &parsed) &&
					!speckv_frame_decode_calibrated(&parsed, calibration, frame,
						length, 0, 1, raw, bytes),
				"decodes what it encodes");
		free(frame);
	}
	free(raw);
	speckv_calibration_free(calibration);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };
	uint64_t begun, steps;
	uint8_t *copy;

	if (size < CONTROL)
		return 0;
	if (speckv_isa_force(isas[data[0] >> 1 & 3]))
		speckv_isa_force("auto");
	own(SPECKV_CODEC_Q5C);
	own(SPECKV_CODEC_E7C);
	size -= CONTROL;
	copy = line_alloc(size);
	memcpy(copy, data + CONTROL, size);
	begun = guided_steps();
	if (data[0] & 1)
		frame_in(data, copy, size);
	else
		calibration_in(copy, size);
	steps = guided_steps() - begun;
	CHECK(steps < 2000000 + 200 * size, "%llu steps for %zu bytes", (unsigned long long)steps,
		size);
	free(copy);
	return 0;
}

void guided_seeds(void (*add)(const uint8_t *data, size_t size))
{
	struct calibration_shape small = { 1, 1, 64, 2, "none", -9 };
	uint64_t seed = 5;

	for (unsigned int i = 0; i < 24; i++) {
		unsigned int codec = i < 12 ? SPECKV_CODEC_Q5C : SPECKV_CODEC_E7C;
		struct speckv_geometry g = { (uint16_t)(1 + i % 2), (uint16_t)(1 + i / 2 % 2), 64,
			64, (uint8_t)(1 + i % 2), { 0 } };
		struct speckv_frame_identity id = random_identity(&seed);
		uint64_t bytes = speckv_geometry_bytes(&g),
			 most = speckv_frame_max_bytes(&g, codec), length;
		uint8_t *raw = line_alloc(bytes), *input = line_alloc(64 + most);

		memset(input, 0, 64);
		random_values(&seed, &g,
			i % 3 == 2	? STYLE_SMOOTH
				: i % 3 ? STYLE_CHANNELS
					: STYLE_TINY,
			(uint16_t *)(void *)raw, bytes / 2);
		CHECK(!speckv_frame_encode_calibrated(&g, codec, own(codec), 0, 0, &id, raw, bytes,
			      input + 64, most, &length),
			"seed");
		input[64 - CONTROL] = (uint8_t)(1 | (i & 3) << 1 | (i % 3 ? 0 : 8));
		input[64 - CONTROL + 1] = (uint8_t)random_next(&seed);
		add(input + 64 - CONTROL, CONTROL + length);
		free(raw);
		free(input);
	}
	for (unsigned int i = 0; i < 12; i++) {
		struct calibration_file file;
		uint8_t *input;

		small.bits = i < 6 ? i % 3 : 1 + i % 3 * 3;
		small.rotary = i % 2 ? "neighbours" : "none";
		file = file_for(i < 6 ? SPECKV_CODEC_Q5C : SPECKV_CODEC_E7C, &seed, &small);
		input = line_alloc(CONTROL + file.length);
		memset(input, 0, CONTROL);
		memcpy(input + CONTROL, file.bytes, file.length);
		add(input, CONTROL + file.length);
		free(input);
		free(file.bytes);
	}
}

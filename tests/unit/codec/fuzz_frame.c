// SPDX-License-Identifier: MIT
/*
 * Fuzzing the frame reader. LLVMFuzzerTestOneInput is libFuzzer's entry: build with -fsanitize=fuzzer,address. With -DSTANDALONE a main of
 * its own runs it: over files named on the command line, or over a given number of frames made by mutation.
 *
 * The first byte of an input says how the rest is treated: bit 0 makes the checksums right before reading, so that the fuzzer gets
 * behind them; bits 1 and 2 pick the kernels.
 */
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };
	struct speckv_frame parsed;
	uint8_t *frame, *out;

	if (size < 1)
		return 0;
	if (speckv_isa_force(isas[data[0] >> 1 & 3]))
		speckv_isa_force("auto");
	frame = line_alloc(size - 1);
	memcpy(frame, data + 1, size - 1);
	size--;
	if ((data[0] & 1) && size >= 128) {
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
	speckv_frame_verify(frame, size);
	if (!speckv_frame_parse(frame, size, &parsed) && parsed.raw_bytes <= 16u << 20) {
		out = line_alloc(parsed.raw_bytes);
		if (speckv_frame_decode(&parsed, frame, size, 0, parsed.geometry.layers, out, parsed.raw_bytes))
			for (uint64_t i = 0; i < parsed.raw_bytes; i++)
				CHECK(!out[i], "zeroed after an error");
		free(out);
	}
	free(frame);
	return 0;
}

#ifdef STANDALONE
static void mutations(unsigned long count)
{
	uint64_t seed = 99;
	unsigned long done = 0;

	while (done < count) {
		struct speckv_geometry g = random_geometry(&seed);
		struct speckv_frame_identity id = random_identity(&seed);
		unsigned int codec = random_below(&seed, 8);
		uint64_t bytes, most, length;
		uint8_t *raw, *input;

		if (!(speckv_codec_modes() >> codec & 1))
			continue;
		g.kv_heads = 1;
		g.layers = 1;
		bytes = speckv_geometry_bytes(&g);
		most = speckv_frame_max_bytes(&g, codec);
		raw = line_alloc(bytes);
		input = line_alloc(64 + most);
		random_values(&seed, &g, (enum style)random_below(&seed, STYLES), (uint16_t *)(void *)raw, bytes / 2);
		if (!speckv_frame_encode(&g, codec, &id, raw, bytes, input + 64, most, &length)) {
			for (int i = 0; i < 50 && done < count; i++, done++) {
				uint8_t *copy = line_alloc(length + 1);
				uint32_t changes = random_below(&seed, 6);

				memcpy(copy + 1, input + 64, length);
				copy[0] = (uint8_t)random_next(&seed);
				for (uint32_t k = 0; k < changes; k++) {
					uint32_t at = random_below(&seed, random_below(&seed, 2) ? 192 : (uint32_t)length);

					copy[1 + at] = (uint8_t)random_next(&seed);
				}
				LLVMFuzzerTestOneInput(copy, 1 + (random_below(&seed, 8) ? length : random_below(&seed, (uint32_t)length)));
				free(copy);
			}
		}
		free(raw);
		free(input);
	}
	printf("%lu frames\n", done);
}

int main(int argc, char **argv)
{
	char *end;
	unsigned long count = argc == 2 ? strtoul(argv[1], &end, 10) : 0;

	if (argc == 2 && !*end && count) {
		mutations(count);
		return 0;
	}
	for (int i = 1; i < argc; i++) {
		static uint8_t input[1 << 22];
		FILE *file = fopen(argv[i], "rb");
		size_t size;

		if (!file) {
			perror(argv[i]);
			return 1;
		}
		size = fread(input, 1, sizeof(input), file);
		fclose(file);
		LLVMFuzzerTestOneInput(input, size);
	}
	return 0;
}
#endif

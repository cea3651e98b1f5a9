// SPDX-License-Identifier: MIT
/*
 * Golden frames of calibrated modes: generate FOLDER writes them, check FOLDER compares this build
 * with them. See README.md.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include "calibration_e7c.h"
#include "inputs.h"

static const char *const style_names[] = { "bits", "smooth", "constant", "tiny", "outlier", "zero",
	"wide", "mixed", "channels" };
static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };
static const char *const rotaries[] = { "none", "halves", "neighbours" };

/* What is in the folder, or is to be. */
struct folder {
	const char *path, *isa;
	FILE *index; /* when generating */
	char *expected; /* when checking */
	unsigned int vectors, files;
};

static void *need(void *at)
{
	if (!at) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return at;
}

static int file(const struct folder *f, const char *name, const char *suffix, const uint8_t *bytes,
	uint64_t length)
{
	uint8_t *found = need(malloc(length + 1));
	char path[4096];
	FILE *stream;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/%s.%s", f->path, name, suffix);
	stream = fopen(path, f->index ? "wb" : "rb");
	if (!stream || (f->index && fwrite(bytes, 1, length, stream) != length)) {
		perror(path);
		rc = 1;
	} else if (!f->index &&
		(fread(found, 1, length + 1, stream) != length || memcmp(found, bytes, length))) {
		fprintf(stderr, "%s: not what %s kernels make\n", path, f->isa);
		rc = 1;
	}
	if (stream && fclose(stream))
		rc = 1;
	free(found);
	return rc;
}

/* `bits`: widths in q5c, coefficients in e7c. */
static int vector(struct folder *f, unsigned int codec, struct speckv_geometry g, enum style style,
	int rotary, unsigned int bits, bool stored)
{
	struct speckv_frame_identity id = { .generation = 7,
		.pool_address = 0x4000,
		.first_position = bits < 16 && bits % 4 == 1 ? 0 : UINT64_C(1234567) + g.head_dim };
	struct calibration_shape shape = { g.layers + 1u, 2u * g.kv_heads - 1, g.head_dim, bits,
		rotaries[rotary], g.dtype == SPECKV_DTYPE_BF16 ? -9 : -11 };
	uint64_t bytes = speckv_geometry_bytes(&g), most = speckv_frame_max_bytes(&g, codec),
		 length;
	uint64_t seed = 1000003 * (uint64_t)g.dtype + 10007 * (uint64_t)g.head_dim +
		101 * (uint64_t)style + 11 * (uint64_t)rotary + bits;
	uint8_t *raw = need(aligned_alloc(64, bytes)), *out = need(aligned_alloc(64, bytes)),
		*frame = need(aligned_alloc(64, most));
	struct speckv_calibration *calibration = NULL;
	struct calibration_file made;
	struct speckv_frame parsed;
	char name[96], line[512];
	int used, rc = 0;

	snprintf(name, sizeof(name), "%s-%s-h%u-%s-%s-%u", speckv_codec_name(codec),
		speckv_dtype_name(g.dtype), g.head_dim, rotaries[rotary], style_names[style], bits);
	used = snprintf(line, sizeof(line), "%s %s %s %u %u %u %u %s %llu ", name,
		speckv_codec_name(codec), speckv_dtype_name(g.dtype), g.layers, g.kv_heads,
		g.head_dim, g.tokens, style_names[style], (unsigned long long)seed);
	made = codec == SPECKV_CODEC_Q5C ? random_calibration(&seed, &shape)
					 : random_e7c_calibration(&seed, &shape);
	random_values(&seed, &g, style, (uint16_t *)(void *)raw, bytes / 2);
	if (speckv_calibration_load(made.bytes, made.length, &calibration)) {
		fprintf(stderr, "%s: its calibration does not load\n", name);
		exit(1);
	}
	used += snprintf(line + used, sizeof(line) - (size_t)used, "%08x %08x ",
		speckv_crc32c(0, made.bytes, made.length), speckv_crc32c(0, raw, bytes));
	rc = speckv_frame_encode_calibrated(&g, codec, calibration, 1, g.kv_heads - 1u, &id, raw,
		bytes, frame, most, &length);
	if (rc == -ENODATA) {
		snprintf(line + used, sizeof(line) - (size_t)used, "nodata\n");
		rc = 0;
	} else if (rc || speckv_frame_verify(frame, length) ||
		speckv_frame_parse(frame, length, &parsed) ||
		speckv_frame_decode_calibrated(&parsed, calibration, frame, length, 0, g.layers,
			out, bytes)) {
		fprintf(stderr, "%s: cannot be encoded and decoded\n", name);
		exit(1);
	} else {
		snprintf(line + used, sizeof(line) - (size_t)used, "%llu %08x %08x\n",
			(unsigned long long)length, speckv_crc32c(0, frame, length),
			speckv_crc32c(0, out, bytes));
		if (stored) {
			rc = file(f, name, "frame", frame, length) ||
				file(f, name, "safetensors", made.bytes, made.length);
			f->files += 2;
		}
	}
	if (f->index)
		fputs(line, f->index);
	else if (!strstr(f->expected, line)) {
		fprintf(stderr, "%s kernels: not in index.txt: %s", f->isa, line);
		rc = 1;
	}
	f->vectors++;
	speckv_calibration_free(calibration);
	free(made.bytes);
	free(raw);
	free(out);
	free(frame);
	return rc;
}

/*
 * Every dtype, head size, rotary embedding; every width alone, and all in turn with two layers and
 * heads (bits 0). A calibration has a layer, and with two heads a head, before the frame's.
 */
static int each_q5c(struct folder *f)
{
	static const enum style styles[] = { STYLE_SMOOTH, STYLE_CHANNELS, STYLE_TINY, STYLE_ZERO,
		STYLE_CONSTANT };
	int rc = 0;

	for (unsigned int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++)
		for (int h = 0; h < 6; h++)
			for (int rotary = 0; rotary < 3; rotary++) {
				struct speckv_geometry g = { 2, 2, head_dims[h], 128,
					(uint8_t)dtype, { 0 } };

				rc |= vector(f, SPECKV_CODEC_Q5C, g, STYLE_SMOOTH, rotary, 0,
					false);
				g.layers = g.kv_heads = 1;
				g.tokens = 64;
				for (unsigned int bits = 1; bits <= 5; bits++)
					rc |= vector(f, SPECKV_CODEC_Q5C, g,
						styles[(bits + (unsigned int)h) % 5], rotary, bits,
						(h == 0 && rotary == 1 && dtype == 1 &&
							bits == 5) ||
							(h == 1 && rotary == 2 && dtype == 2 &&
								bits == 4) ||
							(h == 0 && !rotary && dtype == 1 &&
								bits == 1));
			}
	return rc;
}

/* The same of mode e7c: few, some, most and all coefficients, and all of that in turn. */
static int each_e7c(struct folder *f)
{
	static const enum style styles[] = { STYLE_SMOOTH, STYLE_CHANNELS, STYLE_TINY,
		STYLE_CONSTANT, STYLE_ZERO };
	int rc = 0;

	for (unsigned int dtype = SPECKV_DTYPE_BF16; dtype <= SPECKV_DTYPE_FP16; dtype++)
		for (int h = 0; h < 6; h++)
			for (int rotary = 0; rotary < 3; rotary++) {
				struct speckv_geometry g = { 2, 2, head_dims[h], 128,
					(uint8_t)dtype, { 0 } };

				rc |= vector(f, SPECKV_CODEC_E7C, g, STYLE_CHANNELS, rotary, 0,
					false);
				g.layers = g.kv_heads = 1;
				g.tokens = 64;
				for (unsigned int part = 1; part <= 4; part++)
					rc |= vector(f, SPECKV_CODEC_E7C, g,
						styles[(part + (unsigned int)h) % 5], rotary,
						part < 4 ? g.head_dim * part / 4 - 3 : g.head_dim,
						h == 0 && part < 3 &&
							(dtype == 1 ? rotary == (part == 1)
								    : rotary == 2 && part == 1));
			}
	return rc;
}

static int each(struct folder *f)
{
	return each_q5c(f) | each_e7c(f);
}

static int generate(const char *path)
{
	struct folder f = { .path = path, .isa = speckv_isa_name() };
	char name[4096];
	int rc;

	snprintf(name, sizeof(name), "%s/index.txt", path);
	f.index = fopen(name, "w");
	if (!f.index) {
		perror(name);
		return 1;
	}
	rc = each(&f);
	return fclose(f.index) || rc;
}

static int check(const char *path)
{
	static char index[1 << 18];
	unsigned int lines = 0;
	char name[4096];
	FILE *stream;

	snprintf(name, sizeof(name), "%s/index.txt", path);
	stream = fopen(name, "r");
	if (!stream) {
		perror(name);
		return 1;
	}
	index[fread(index, 1, sizeof(index) - 1, stream)] = 0;
	fclose(stream);
	for (const char *at = index; *at; at++)
		lines += *at == '\n';
	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
		struct folder f = { .path = path, .isa = isas[i], .expected = index };

		if (speckv_isa_force(isas[i]))
			continue;
		if (each(&f))
			return 1;
		if (f.vectors != lines) {
			fprintf(stderr, "%s: %u lines, %u vectors\n", name, lines, f.vectors);
			return 1;
		}
		printf("%s: %u vectors, %u stored files\n", isas[i], f.vectors, f.files);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "generate"))
		return generate(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "check"))
		return check(argv[2]);
	fprintf(stderr, "usage: %s generate|check FOLDER\n", argv[0]);
	return 2;
}

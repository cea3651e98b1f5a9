// SPDX-License-Identifier: MIT
/*
 * Golden frames: generate FOLDER writes them, check FOLDER compares this build with them. README.md
 * says what is in the folder.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include "inputs.h"

static const char *const style_names[] = { "bits", "smooth", "constant", "tiny", "outlier", "zero",
	"wide", "mixed", "channels" };
static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };

struct vector {
	char name[96];
	unsigned int codec;
	struct speckv_geometry geometry;
	enum style style;
	uint64_t seed;
	bool stored;
};

struct made {
	uint64_t raw_bytes, frame_bytes;
	uint8_t *raw, *frame, *decoded;
	int refused;
};

static void *need(void *at)
{
	if (!at) {
		fprintf(stderr, "out of memory\n");
		exit(1);
	}
	return at;
}

/*
 * Key 0, 1, 2, ...; the other fields recognisable in a dump. Blocks of mixed values begin their
 * sequence.
 */
static struct speckv_frame_identity identity(enum style style)
{
	struct speckv_frame_identity id = { .generation = 0x0102030405060708,
		.pool_address = 0x1112131415161700,
		.first_position = style == STYLE_MIXED ? 0 : 4096 };

	for (int i = 0; i < SPECKV_KEY_BYTES; i++)
		id.key[i] = (uint8_t)i;
	for (int i = 0; i < SPECKV_UUID_BYTES; i++)
		id.pool_uuid[i] = (uint8_t)(0xa0 + i);
	return id;
}

static void make(const struct vector *v, struct made *m)
{
	struct speckv_frame_identity id = identity(v->style);
	uint64_t most = speckv_frame_max_bytes(&v->geometry, v->codec), seed = v->seed;
	struct speckv_frame parsed;

	m->raw_bytes = speckv_geometry_bytes(&v->geometry);
	m->raw = need(aligned_alloc(64, m->raw_bytes));
	m->frame = need(aligned_alloc(64, most));
	m->decoded = need(aligned_alloc(64, m->raw_bytes));
	random_values(&seed, &v->geometry, v->style, (uint16_t *)(void *)m->raw, m->raw_bytes / 2);
	memset(m->frame, 0xee, most);
	m->refused = speckv_frame_encode(&v->geometry, v->codec, &id, m->raw, m->raw_bytes,
		m->frame, most, &m->frame_bytes);
	if (m->refused)
		return;
	if (speckv_frame_parse(m->frame, m->frame_bytes, &parsed) ||
		speckv_frame_decode(&parsed, m->frame, m->frame_bytes, 0, v->geometry.layers,
			m->decoded, m->raw_bytes)) {
		fprintf(stderr, "%s: does not decode\n", v->name);
		exit(1);
	}
}

static void drop(struct made *m)
{
	free(m->raw);
	free(m->frame);
	free(m->decoded);
}

static void describe(const struct vector *v, const struct made *m, char *line, size_t size)
{
	const struct speckv_geometry *g = &v->geometry;
	int used = snprintf(line, size, "%s %s %s %u %u %u %u %s %llu %08x ", v->name,
		speckv_codec_name(v->codec), speckv_dtype_name(g->dtype), g->layers, g->kv_heads,
		g->head_dim, g->tokens, style_names[v->style], (unsigned long long)v->seed,
		speckv_crc32c(0, m->raw, m->raw_bytes));

	if (m->refused == -ENODATA)
		snprintf(line + used, size - (size_t)used, "nodata");
	else if (m->refused)
		snprintf(line + used, size - (size_t)used, "error %d", m->refused);
	else
		snprintf(line + used, size - (size_t)used, "%llu %08x %08x",
			(unsigned long long)m->frame_bytes,
			speckv_crc32c(0, m->frame, m->frame_bytes),
			speckv_crc32c(0, m->decoded, m->raw_bytes));
}

typedef int (*visitor)(const struct vector *v, void *arg);

static int visit(unsigned int codec, struct speckv_geometry g, enum style style, bool stored,
	visitor see, void *arg)
{
	struct vector v = { .codec = codec, .geometry = g, .style = style, .stored = stored };

	v.seed = 1000003 * (uint64_t)codec + 10007 * (uint64_t)g.dtype +
		101 * (uint64_t)g.head_dim + (uint64_t)style;
	snprintf(v.name, sizeof(v.name), "%s-%s-h%u-%s%s", speckv_codec_name(codec),
		speckv_dtype_name(g.dtype), g.head_dim, style_names[style],
		g.layers > 1 ? "-layers" : "");
	return see(&v, arg);
}

/* Every mode of this build, and within it every dtype, head size and style. */
static int each(visitor see, void *arg)
{
	int rc = 0;

	for (unsigned int codec = 0; codec < 8 && !rc; codec++) {
		unsigned int types = codec && codec != SPECKV_CODEC_LOSSLESS
			? SPECKV_DTYPE_FP16
			: SPECKV_DTYPE_FP8_E5M2;

		if (!(speckv_codec_modes() >> codec & 1))
			continue;
		for (unsigned int dtype = SPECKV_DTYPE_BF16; dtype <= types && !rc; dtype++)
			for (int h = 0; h < 6 && !rc; h++)
				for (int style = 0; style < STYLES && !rc; style++) {
					struct speckv_geometry g = { 1, 1, head_dims[h], 64,
						(uint8_t)dtype, { 0 } };
					bool mixed = style == STYLE_MIXED,
					     stored = mixed &&
						(h == 0 || (codec && h == 1 && dtype == 1));

					if (!codec && !mixed) /* bytes are bytes */
						continue;
					/* groups with a mean */
					if ((codec == SPECKV_CODEC_Q3X ||
						    codec == SPECKV_CODEC_Q4X ||
						    codec == SPECKV_CODEC_Q5X) &&
						style == STYLE_CHANNELS)
						stored = h == 0 || (h == 1 && dtype == 1);
					if (codec == SPECKV_CODEC_LOSSLESS) /* its three forms */
						stored = h == 0 &&
							(mixed ||
								(dtype <= SPECKV_DTYPE_FP16 &&
									(style == STYLE_OUTLIER ||
										style ==
											STYLE_CHANNELS)));
					rc = visit(codec, g, (enum style)style, stored, see, arg);
					g.layers = 2;
					g.kv_heads = 3;
					g.tokens = 128;
					if (!rc && h == 3 && mixed)
						rc = visit(codec, g, (enum style)style, false, see,
							arg);
				}
	}
	return rc;
}

struct output {
	const char *folder;
	FILE *index;
};

static int write_one(const struct vector *v, void *arg)
{
	struct output *out = arg;
	struct made m = { 0 };
	char line[512], path[4096];

	make(v, &m);
	describe(v, &m, line, sizeof(line));
	fprintf(out->index, "%s\n", line);
	if (v->stored && !m.refused) {
		FILE *file;

		snprintf(path, sizeof(path), "%s/%s.frame", out->folder, v->name);
		file = fopen(path, "wb");
		if (!file || fwrite(m.frame, 1, m.frame_bytes, file) != m.frame_bytes ||
			fclose(file)) {
			perror(path);
			return 1;
		}
	}
	drop(&m);
	return 0;
}

static int generate(const char *folder)
{
	struct output out = { .folder = folder };
	char path[4096];
	int rc;

	snprintf(path, sizeof(path), "%s/index.txt", folder);
	out.index = fopen(path, "w");
	if (!out.index) {
		perror(path);
		return 1;
	}
	rc = each(write_one, &out);
	return fclose(out.index) || rc;
}

struct comparison {
	const char *folder, *isa;
	char *index;
	unsigned int vectors, files;
};

static int check_file(const struct vector *v, const struct made *m, struct comparison *c)
{
	uint8_t *bytes = need(aligned_alloc(64, (m->frame_bytes + 64) / 64 * 64)),
		*out = need(malloc(m->raw_bytes));
	struct speckv_frame parsed;
	char path[4096];
	FILE *file;
	int rc = 1;

	snprintf(path, sizeof(path), "%s/%s.frame", c->folder, v->name);
	file = fopen(path, "rb");
	if (!file)
		perror(path);
	else if (fread(bytes, 1, m->frame_bytes + 1, file) != m->frame_bytes ||
		memcmp(bytes, m->frame, m->frame_bytes))
		fprintf(stderr, "%s: not the frame that %s kernels make\n", path, c->isa);
	else if (speckv_frame_parse(bytes, m->frame_bytes, &parsed) ||
		speckv_frame_verify(bytes, m->frame_bytes) ||
		speckv_frame_decode(&parsed, bytes, m->frame_bytes, 0, v->geometry.layers, out,
			m->raw_bytes) ||
		memcmp(out, m->decoded, m->raw_bytes))
		fprintf(stderr, "%s: does not decode to what it should\n", path);
	else
		rc = 0;
	if (file)
		fclose(file);
	free(bytes);
	free(out);
	c->files++;
	return rc;
}

static int check_one(const struct vector *v, void *arg)
{
	struct comparison *c = arg;
	struct made m = { 0 };
	char line[512];
	int rc = 0;

	make(v, &m);
	describe(v, &m, line, sizeof(line) - 1);
	strcat(line, "\n");
	if (!strstr(c->index, line)) {
		fprintf(stderr, "%s kernels: not in index.txt: %s", c->isa, line);
		rc = 1;
	} else if (v->stored && !m.refused) {
		rc = check_file(v, &m, c);
	}
	c->vectors++;
	drop(&m);
	return rc;
}

static int check(const char *folder)
{
	static char index[1 << 18];
	unsigned int lines = 0;
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/index.txt", folder);
	file = fopen(path, "r");
	if (!file) {
		perror(path);
		return 1;
	}
	index[fread(index, 1, sizeof(index) - 1, file)] = 0;
	fclose(file);
	for (const char *at = index; *at; at++)
		lines += *at == '\n';
	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
		struct comparison c = { .folder = folder, .isa = isas[i], .index = index };

		if (speckv_isa_force(isas[i]))
			continue;
		if (each(check_one, &c))
			return 1;
		if (c.vectors != lines) {
			fprintf(stderr,
				"%s: %u lines, %u vectors: a mode is missing here or there\n", path,
				lines, c.vectors);
			return 1;
		}
		printf("%s: %u vectors, %u stored frames\n", isas[i], c.vectors, c.files);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "generate"))
		return generate(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "check"))
		return check(argv[2]);
	fprintf(stderr, "usage: vectors generate|check FOLDER\n");
	return 2;
}

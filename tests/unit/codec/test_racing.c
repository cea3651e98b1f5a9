// SPDX-License-Identifier: MIT
/*
 * A frame that changes while it is read. A second thread keeps writing into it, sometimes leaving
 * it sound; the reader must get an error and zeros, or bytes of a state whose checksum held. The
 * writer here only ever swaps between two sound payloads, byte by byte, and between sound and
 * doctored headers, so that any accepted block must be one of the two.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "harness.h"

struct scene {
	struct speckv_geometry geometry;
	uint8_t *frame, *frames[2], *decoded[2];
	uint64_t bytes, length;
	_Atomic int stop;
};

/* Bytes are written by hand so that neither compiler nor sanitizer makes more of them. */
static __attribute__((no_sanitize("thread"))) void write_byte(uint8_t *at, uint8_t value)
{
	*(volatile uint8_t *)at = value;
}

static __attribute__((no_sanitize("thread"))) void *writer(void *argument)
{
	struct scene *scene = argument;
	uint64_t seed = 5;

	while (!atomic_load(&scene->stop)) {
		uint64_t at = random_below(&seed, 4) ? random_below(&seed, (uint32_t)scene->length)
						     : random_below(&seed, 256);
		uint32_t what = random_below(&seed, 8);

		if (what == 0) { /* whole, one of the two */
			const uint8_t *from = scene->frames[random_below(&seed, 2)];

			for (uint64_t i = 0; i < scene->length; i++)
				write_byte(scene->frame + i, from[i]);
		} else if (what < 4) { /* one byte of the other one */
			write_byte(scene->frame + at, scene->frames[what & 1][at]);
		} else { /* noise, and back */
			write_byte(scene->frame + at, (uint8_t)random_next(&seed));
			write_byte(scene->frame + at, scene->frames[what & 1][at]);
		}
	}
	return NULL;
}

static void race(unsigned int codec, const char *isa)
{
	struct scene scene = { .geometry = { 1, 1, 64, 64, SPECKV_DTYPE_BF16, { 0 } } };
	struct speckv_frame_identity id = { .generation = 1 };
	uint64_t seed = 9, most = speckv_frame_max_bytes(&scene.geometry, codec), length[2];
	unsigned int accepted = 0, refused = 0;
	pthread_t thread;
	uint8_t *out;

	CHECK(!speckv_isa_force(isa), "%s", isa);
	scene.bytes = speckv_geometry_bytes(&scene.geometry);
	out = line_alloc(scene.bytes);
	for (int i = 0; i < 2; i++) {
		uint8_t *raw = line_alloc(scene.bytes);
		struct speckv_frame parsed;

		random_values(&seed, &scene.geometry, STYLE_SMOOTH, (uint16_t *)(void *)raw,
			scene.bytes / 2);
		scene.frames[i] = line_alloc(most);
		scene.decoded[i] = line_alloc(scene.bytes);
		CHECK(!speckv_frame_encode(&scene.geometry, codec, &id, raw, scene.bytes,
			      scene.frames[i], most, &length[i]),
			"encode");
		CHECK(!speckv_frame_parse(scene.frames[i], length[i], &parsed), "parse");
		CHECK(!speckv_frame_decode(&parsed, scene.frames[i], length[i], 0, 1,
			      scene.decoded[i], scene.bytes),
			"decode");
		free(raw);
	}
	scene.length = length[0] < length[1] ? length[0] : length[1];
	scene.frame = line_alloc(most);
	memcpy(scene.frame, scene.frames[0], length[0]);
	CHECK(!pthread_create(&thread, NULL, writer, &scene), "thread");
	for (int i = 0; i < 3000; i++) {
		struct speckv_frame parsed;
		int rc = speckv_frame_parse(scene.frame, scene.length, &parsed);

		if (!rc) {
			memset(out, 0xee, scene.bytes);
			rc = speckv_frame_decode(&parsed, scene.frame, scene.length, 0, 1, out,
				scene.bytes);
			if (rc)
				for (uint64_t k = 0; k < scene.bytes; k++)
					CHECK(!out[k], "zeroed");
			else /* K and V are sections of their own, and each is one of the two */
				for (uint64_t half = 0; half < scene.bytes; half += scene.bytes / 2)
					CHECK(!memcmp(out + half, scene.decoded[0] + half,
						      scene.bytes / 2) ||
							!memcmp(out + half, scene.decoded[1] + half,
								scene.bytes / 2),
						"%s: accepted bytes that nobody wrote",
						speckv_codec_name(codec));
		}
		CHECK(!rc || rc == -EBADMSG || rc == -EPROTONOSUPPORT || rc == -EOPNOTSUPP, "%d",
			rc);
		rc ? refused++ : accepted++;
		speckv_frame_verify(scene.frame, scene.length);
	}
	atomic_store(&scene.stop, 1);
	pthread_join(thread, NULL);
	printf("%s, %s: %u accepted, %u refused\n", speckv_codec_name(codec), isa, accepted,
		refused);
	for (int i = 0; i < 2; i++) {
		free(scene.frames[i]);
		free(scene.decoded[i]);
	}
	free(scene.frame);
	free(out);
}

int main(void)
{
	static const char *const isas[] = { "portable", "sse42", "avx2", "avx512" };

	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++)
		for (unsigned int codec = 0; codec < 8; codec++)
			if (speckv_isa_force(isas[i]) == 0 && speckv_codec_modes() >> codec & 1)
				race(codec, isas[i]);
	return 0;
}

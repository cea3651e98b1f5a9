// SPDX-License-Identifier: MIT
/*
 * Self-test: the codecs and checksums of this build, and the medium. Non-destructive.
 */
#include <stdlib.h>

#include "admin.h"

struct selftest {
	struct speckv_device *dev;
	speckv_selftest_cb cb;
	void *arg;
	int first_error;
	bool stop;
};

static int step_done(const struct speckv_selftest_step *step, void *arg)
{
	struct selftest *t = arg;

	if (step->result && !t->first_error)
		t->first_error = fail(t->dev->ctx, step->result, "self-test of %s: %s: %s",
			t->dev->medium.name, step->name, step->detail);
	if (t->cb && t->cb(step, t->arg))
		t->stop = true;
	return t->stop;
}

static void report(struct selftest *t, const char *name, uint64_t start, int result,
	const char *detail)
{
	selftest_step(step_done, t, name, start, result, detail);
}

static void test_superblock(struct selftest *t)
{
	struct speckv_device_info info;
	uint64_t start = clock_ns();
	int rc = device_probe(t->dev->ctx, &t->dev->medium, &info);

	report(t, "superblock", start,
		rc ? rc
			: info.state == SPECKV_MEDIUM_READY ? 0
							    : -EUCLEAN,
		info.found);
}

static void test_checksum(struct selftest *t)
{
	/* RFC 3720 B.4: 0xe3069283 */
	static const char check[] = "123456789";
	uint8_t *from = malloc(1 << 16), *to = malloc(1 << 16);
	uint64_t start = clock_ns();
	char detail[96];
	int rc = from && to ? 0 : -ENOMEM;

	if (!rc && speckv_crc32c(0, check, 9) != 0xe3069283u)
		rc = -EBADMSG;
	for (int i = 0; !rc && i < 1 << 16; i++)
		from[i] = (uint8_t)(i * 2654435761u >> 11);
	if (!rc) {
		uint32_t whole = speckv_crc32c(0, from, 1 << 16),
			 parts = speckv_crc32c(speckv_crc32c(0, from, 12345), from + 12345,
				 (1 << 16) - 12345);

		if (whole != parts || speckv_crc32c_copy(0, to, from, 1 << 16) != whole ||
			memcmp(from, to, 1 << 16) != 0)
			rc = -EBADMSG;
	}
	free(from);
	free(to);
	snprintf(detail, sizeof(detail), "CRC-32C kernels: %s", speckv_isa_name());
	report(t, "checksum", start, rc, detail);
}

static void test_codec(struct selftest *t, unsigned int codec)
{
	struct speckv_geometry geometry = { .layers = 2,
		.kv_heads = 2,
		.head_dim = 128,
		.tokens = 64,
		.dtype = SPECKV_DTYPE_BF16 };
	struct speckv_frame_identity identity = { .generation = 1 };
	uint64_t raw_bytes = speckv_geometry_bytes(&geometry),
		 most = speckv_frame_max_bytes(&geometry, codec), frame_bytes = 0,
		 start = clock_ns();
	uint16_t *raw = aligned_alloc(64, raw_bytes), *back = aligned_alloc(64, raw_bytes);
	uint8_t *frame = aligned_alloc(64, (most + 63) & ~63ull);
	struct speckv_frame parsed;
	char name[48], detail[96] = "out of memory", a[32], b[32];
	int rc = raw && back && frame ? 0 : -ENOMEM;

	for (uint64_t i = 0; !rc && i < raw_bytes / 2; i++) /* bf16 between -2 and 2 */
		raw[i] = (uint16_t)((i * 40503u >> 3 & 0x8000) |
			(0x3f00 + (i * 2654435761u >> 20 & 0xff)));
	if (!rc)
		rc = speckv_frame_encode(&geometry, codec, &identity, raw, raw_bytes, frame, most,
			&frame_bytes);
	if (!rc)
		rc = speckv_frame_parse(frame, frame_bytes, &parsed);
	if (!rc)
		rc = speckv_frame_verify(frame, frame_bytes);
	if (!rc)
		rc = speckv_frame_decode(&parsed, frame, frame_bytes, 0, geometry.layers, back,
			raw_bytes);
	if (!rc && (codec == SPECKV_CODEC_RAW || codec == SPECKV_CODEC_LOSSLESS) &&
		memcmp(raw, back, raw_bytes) != 0)
		rc = -EBADMSG;
	if (!rc) { /* a flipped bit must be detected */
		frame[frame_bytes / 2] ^= 4;
		rc = speckv_frame_verify(frame, frame_bytes) == -EBADMSG ? 0 : -EUCLEAN;
	}
	if (raw && back && frame)
		snprintf(detail, sizeof(detail), "%s to %s and back%s", human(a, raw_bytes),
			human(b, frame_bytes), rc ? ": wrong" : "");
	free(raw);
	free(back);
	free(frame);
	snprintf(name, sizeof(name), "codec %s", speckv_codec_name(codec));
	report(t, name, start, rc, detail);
}

int speckv_device_selftest(struct speckv_device *dev, speckv_selftest_cb cb, void *arg)
{
	struct selftest t = { .dev = dev, .cb = cb, .arg = arg };
	int rc;

	if (!dev)
		return -EINVAL;
	rc = device_usable(dev);
	if (rc)
		return rc;
	test_superblock(&t);
	if (!t.stop)
		test_checksum(&t);
	for (unsigned int codec = 0; codec < 32 && !t.stop; codec++)
		if (speckv_codec_modes() >> codec & 1)
			test_codec(&t, codec);
	if (!t.stop)
		dev->medium.backend->selftest(dev, step_done, &t);
	return t.first_error;
}

// SPDX-License-Identifier: MIT
/* Does this machine compute what the format says, and does the medium hold what it is given? Changes nothing that is stored. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/card/card.h"
#include "admin.h"
#include "transport/extend.h"

#define SCRATCH (32ull << 20)

struct selftest {
	struct speckv_device *dev;
	speckv_selftest_cb cb;
	void *arg;
	int first_error;
	bool stop;
};

static void report(struct selftest *t, const char *name, uint64_t start, int result, const char *detail)
{
	struct speckv_selftest_step step = { .result = result, .elapsed_ns = clock_ns() - start };

	snprintf(step.name, sizeof(step.name), "%s", name);
	snprintf(step.detail, sizeof(step.detail), "%s", detail);
	if (result && !t->first_error)
		t->first_error = fail(t->dev->ctx, result, "self-test of %s: %s: %s", t->dev->medium.name, name, detail);
	if (t->cb && t->cb(&step, t->arg))
		t->stop = true;
}

static void test_superblock(struct selftest *t)
{
	struct speckv_device_info info;
	uint64_t start = clock_ns();
	int rc = medium_probe(t->dev->ctx, &t->dev->medium, &info);

	report(t, "superblock", start, rc ? rc : info.state == SPECKV_MEDIUM_READY ? 0 : -EUCLEAN, info.found);
}

static void test_checksum(struct selftest *t)
{
	static const char check[] = "123456789"; /* RFC 3720 B.4 and every catalogue of CRCs: 0xe3069283 */
	uint8_t *from = malloc(1 << 16), *to = malloc(1 << 16);
	uint64_t start = clock_ns();
	char detail[96];
	int rc = from && to ? 0 : -ENOMEM;

	if (!rc && speckv_crc32c(0, check, 9) != 0xe3069283u)
		rc = -EBADMSG;
	for (int i = 0; !rc && i < 1 << 16; i++)
		from[i] = (uint8_t)(i * 2654435761u >> 11);
	if (!rc) {
		uint32_t whole = speckv_crc32c(0, from, 1 << 16), parts = speckv_crc32c(speckv_crc32c(0, from, 12345), from + 12345, (1 << 16) - 12345);

		if (whole != parts || speckv_crc32c_copy(0, to, from, 1 << 16) != whole || memcmp(from, to, 1 << 16) != 0)
			rc = -EBADMSG;
	}
	free(from);
	free(to);
	snprintf(detail, sizeof(detail), "CRC-32C kernels: %s", speckv_isa_name());
	report(t, "checksum", start, rc, detail);
}

static void test_codec(struct selftest *t, unsigned int codec)
{
	struct speckv_geometry geometry = { .layers = 2, .kv_heads = 2, .head_dim = 128, .tokens = 64, .dtype = SPECKV_DTYPE_BF16 };
	struct speckv_frame_identity identity = { .generation = 1 };
	uint64_t raw_bytes = speckv_geometry_bytes(&geometry), most = speckv_frame_max_bytes(&geometry, codec), frame_bytes = 0, start = clock_ns();
	uint16_t *raw = aligned_alloc(64, raw_bytes), *back = aligned_alloc(64, raw_bytes);
	uint8_t *frame = aligned_alloc(64, (most + 63) & ~63ull);
	struct speckv_frame parsed;
	char name[48], detail[96] = "out of memory", a[32], b[32];
	int rc = raw && back && frame ? 0 : -ENOMEM;

	for (uint64_t i = 0; !rc && i < raw_bytes / 2; i++) /* bf16 between -2 and 2 */
		raw[i] = (uint16_t)((i * 40503u >> 3 & 0x8000) | (0x3f00 + (i * 2654435761u >> 20 & 0xff)));
	if (!rc)
		rc = speckv_frame_encode(&geometry, codec, &identity, raw, raw_bytes, frame, most, &frame_bytes);
	if (!rc)
		rc = speckv_frame_parse(frame, frame_bytes, &parsed);
	if (!rc)
		rc = speckv_frame_verify(frame, frame_bytes);
	if (!rc)
		rc = speckv_frame_decode(&parsed, frame, frame_bytes, 0, geometry.layers, back, raw_bytes);
	if (!rc && (codec == SPECKV_CODEC_RAW || codec == SPECKV_CODEC_LOSSLESS) && memcmp(raw, back, raw_bytes) != 0)
		rc = -EBADMSG;
	if (!rc) { /* a flipped bit must be seen */
		frame[frame_bytes / 2] ^= 4;
		rc = speckv_frame_verify(frame, frame_bytes) == -EBADMSG ? 0 : -EUCLEAN;
	}
	if (raw && back && frame)
		snprintf(detail, sizeof(detail), "%s to %s and back%s", human(a, raw_bytes), human(b, frame_bytes), rc ? ": wrong" : "");
	free(raw);
	free(back);
	free(frame);
	snprintf(name, sizeof(name), "codec %s", speckv_codec_name(codec));
	report(t, name, start, rc, detail);
}

/* The medium's own kind of memory: an unnamed file in its file system, or, for a medium of fixed size, its free part read. */
static void test_memory(struct selftest *t)
{
	uint64_t start = clock_ns(), bytes = SCRATCH, elapsed;
	char name[64], detail[96], a[32], b[32];
	uint32_t crc;
	uint8_t *map;
	int fd, rc = 0;

	if (t->dev->single_inode) {
		report(t, "memory", start, 0, "left alone: this medium has no room that is surely free");
		return;
	}
	if (t->dev->medium.runtime) {
		fd = memfd_create("speckv-selftest", MFD_CLOEXEC);
	} else {
		snprintf(name, sizeof(name), ".speckv.%d.selftest", (int)gettid());
		fd = openat(t->dev->folder.fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0)
			unlinkat(t->dev->folder.fd, name, 0);
	}
	if (fd < 0 || file_extend(fd, bytes) != 0) {
		rc = -errno;
		if (fd >= 0)
			close(fd);
		report(t, "memory", start, rc, "cannot make a scratch file beside the medium");
		return;
	}
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED) {
		report(t, "memory", start, -errno, "cannot map a scratch file");
		return;
	}
	rc = medium_bind(t->dev->medium.numa_node, map, bytes);
	for (uint64_t i = 0; i < bytes / 8; i++)
		((uint64_t *)map)[i] = i * 0x9e3779b97f4a7c15ull;
	crc = speckv_crc32c(0, map, bytes);
	for (uint64_t i = 0; !rc && i < bytes / 8; i++)
		if (((uint64_t *)map)[i] != i * 0x9e3779b97f4a7c15ull)
			rc = -EIO;
	if (!rc && crc != speckv_crc32c(0, map, bytes))
		rc = -EIO;
	munmap(map, bytes);
	elapsed = clock_ns() - start;
	snprintf(detail, sizeof(detail), "%s written and read twice, %s/s overall", human(a, bytes),
		 human(b, (uint64_t)(4e9 * (double)bytes / (double)(elapsed ? elapsed : 1))));
	report(t, "memory", start, rc, detail);
}

static int test_said(const struct speckv_log_header *header, const void *entry, void *arg)
{
	static const char *const names[SPECKV_TESTS] = { "card memory", "card DMA", "card codec", "card translation", "card predictor", "card flash" };
	struct selftest *t = arg;
	struct speckv_selftest_step step;
	struct speckv_log_test test;
	unsigned int number;

	(void)header;
	memcpy(&test, entry, sizeof(test));
	memset(&step, 0, sizeof(step));
	number = test.test ? (unsigned int)__builtin_ctz(test.test) : SPECKV_TESTS;
	snprintf(step.name, sizeof(step.name), "%s", number < SPECKV_TESTS ? names[number] : "card");
	snprintf(step.detail, sizeof(step.detail), "%.*s", (int)sizeof(test.text), test.text);
	step.result = status_errno((uint16_t)test.status);
	step.elapsed_ns = test.elapsed_ns;
	if (step.result && !t->first_error)
		t->first_error = step.result;
	if (t->cb && t->cb(&step, t->arg))
		t->stop = true;
	return t->stop;
}

/* The card's own tests; only who may manage it may ask for them. */
static void test_card(struct selftest *t)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_SELF_TEST, .value = (1u << SPECKV_TESTS) - 1 };
	uint64_t start = clock_ns();
	struct card_admin *admin;
	int rc = card_admin_open(t->dev->ctx, t->dev->medium.name, &admin);

	if (rc) {
		report(t, "card", start, rc, speckv_strerror(t->dev->ctx));
		return;
	}
	rc = card_admin_call(admin, &command, NULL, 0, NULL, 0, 60000000000ull, NULL);
	if (!rc || rc == -EIO) /* a failed test: the log says which */
		card_log(admin, SPECKV_LOG_SELF_TEST, 0, 0, test_said, t);
	else
		report(t, "card", start, rc, speckv_strerror(t->dev->ctx));
	card_admin_close(admin);
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
	if (!t.stop && !dev->medium.card)
		test_memory(&t);
	if (!t.stop && dev->medium.card)
		test_card(&t);
	return t.first_error;
}

// SPDX-License-Identifier: MIT
/*
 * CRC-32C: published vectors, and every kernel of this machine held to a bitwise reference of the
 * test's own.
 */
#include "harness.h"
#include "codec/kernels.h"

static uint32_t bitwise(uint32_t crc, const uint8_t *data, size_t bytes)
{
	crc = ~crc;
	for (size_t i = 0; i < bytes; i++) {
		crc ^= data[i];
		for (int b = 0; b < 8; b++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

/* RFC 3720, B.4. */
static void published_vectors(const char *isa)
{
	uint8_t data[32];
	static const uint8_t read_command[48] = {
		0x01,
		0xc0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0x14,
		0,
		0,
		0,
		0,
		0,
		0x04,
		0,
		0,
		0,
		0,
		0x14,
		0,
		0,
		0,
		0x18,
		0x28,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
		0x02,
		0,
		0,
		0,
		0,
		0,
		0,
		0,
	};

	memset(data, 0, sizeof(data));
	CHECK(speckv_crc32c(0, data, 32) == 0x8a9136aau, "%s: 32 zeros", isa);
	memset(data, 0xff, sizeof(data));
	CHECK(speckv_crc32c(0, data, 32) == 0x62a8ab43u, "%s: 32 ones", isa);
	for (int i = 0; i < 32; i++)
		data[i] = (uint8_t)i;
	CHECK(speckv_crc32c(0, data, 32) == 0x46dd794eu, "%s: ascending", isa);
	for (int i = 0; i < 32; i++)
		data[i] = (uint8_t)(31 - i);
	CHECK(speckv_crc32c(0, data, 32) == 0x113fdb5cu, "%s: descending", isa);
	CHECK(speckv_crc32c(0, read_command, 48) == 0xd9963a56u, "%s: read command", isa);
	CHECK(speckv_crc32c(0, "123456789", 9) == 0xe3069283u, "%s: check value", isa);
	CHECK(speckv_crc32c(0x12345678, NULL, 0) == 0x12345678, "%s: nothing changes nothing", isa);
}

static void any_size_and_alignment(const struct codec_kernels *kernels, uint64_t seed)
{
	enum { MOST = 20000, MARGIN = 128 };
	uint8_t *source = line_alloc(MOST + 2 * MARGIN), *to = line_alloc(MOST + 2 * MARGIN),
		*was = line_alloc(MOST + 2 * MARGIN);

	for (int i = 0; i < MOST + 2 * MARGIN; i++)
		source[i] = (uint8_t)random_next(&seed);
	for (int round = 0; round < 3000; round++) {
		/* All short sizes, then random ones; the streaming kernel also on lines. */
		size_t bytes = round < 1200 ? (size_t)round : random_below(&seed, MOST);
		size_t from = random_below(&seed, 64),
		       at = MARGIN / 2 + (round % 3 ? random_below(&seed, 64) : 0);
		uint32_t start = (uint32_t)random_next(&seed),
			 expected = ~bitwise(start, source + from, bytes);

		CHECK(kernels->crc(~start, source + from, bytes) == expected,
			"%s crc, %zu bytes at %zu", kernels->name, bytes, from);
		for (int streamed = 0; streamed < 2; streamed++) {
			memset(to, 0xa5, MOST + 2 * MARGIN);
			memcpy(was, to, MOST + 2 * MARGIN);
			memcpy(was + at, source + from, bytes);
			CHECK((streamed ? kernels->crc_stream : kernels->crc_copy)(~start, to + at,
				      source + from, bytes) == expected,
				"%s copy, %zu bytes from %zu to %zu", kernels->name, bytes, from,
				at);
			CHECK(!memcmp(to, was, MOST + 2 * MARGIN),
				"%s copy of %zu bytes: exactly those", kernels->name, bytes);
		}
	}
	free(source);
	free(to);
	free(was);
}

/* A page that cannot be touched lies at the one end or the other of both buffers. */
static void nothing_beyond_the_ends(const struct codec_kernels *kernels, uint64_t seed)
{
	for (size_t bytes = 0; bytes < 1500; bytes += 1 + random_below(&seed, 7))
		for (int before = 0; before <= 1; before++) {
			struct fenced source = fenced_alloc(bytes, before),
				      to = fenced_alloc(bytes, before);

			memset(source.at, 7, bytes);
			CHECK(kernels->crc_copy(1, to.at, source.at, bytes) ==
					kernels->crc(1, source.at, bytes),
				"%s %zu", kernels->name, bytes);
			CHECK(kernels->crc_stream(1, to.at, source.at, bytes) ==
					kernels->crc(1, source.at, bytes),
				"%s %zu", kernels->name, bytes);
			CHECK(!memcmp(to.at, source.at, bytes), "%s copies %zu bytes",
				kernels->name, bytes);
			fenced_free(source);
			fenced_free(to);
		}
}

static void pieces_are_the_whole(uint64_t seed)
{
	uint8_t data[5000], to[5000];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)random_next(&seed);
	for (int round = 0; round < 200; round++) {
		uint32_t a = random_below(&seed, sizeof(data)),
			 whole = speckv_crc32c(0, data, sizeof(data));

		CHECK(speckv_crc32c(speckv_crc32c(0, data, a), data + a, sizeof(data) - a) == whole,
			"split at %u", a);
		CHECK(speckv_crc32c(speckv_crc32c_copy(0, to, data, a), data + a,
			      sizeof(data) - a) == whole,
			"split at %u", a);
	}
}

/* A name may have several sets: it can be forced where one of them runs. */
static bool any_usable(const char *name)
{
	const struct codec_kernels *kernels;
	bool found = false;
	int usable;

	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++)
		found |= usable && !strcmp(kernels->name, name);
	return found;
}

int main(void)
{
	const struct codec_kernels *kernels;
	unsigned int tried = 0;
	int usable;

	CHECK(speckv_isa_force("vax") == -EINVAL && speckv_isa_force(NULL) == -EINVAL,
		"unknown names");
	for (unsigned int i = 0; (kernels = codec_kernels_variant(i, &usable)); i++) {
		CHECK(speckv_isa_force(kernels->name) ==
				(any_usable(kernels->name) ? 0 : -EOPNOTSUPP),
			"%s", kernels->name);
		if (!usable)
			continue;
		CHECK(!strcmp(speckv_isa_name(), kernels->name), "%s is in force", kernels->name);
		published_vectors(kernels->name);
		any_size_and_alignment(kernels, i + 1);
		nothing_beyond_the_ends(kernels, i + 11);
		pieces_are_the_whole(i + 21);
		tried++;
	}
	CHECK(tried >= 1 && speckv_isa_force("auto") == 0, "the portable kernels run anywhere");
	printf("%u kernel sets, best here: %s\n", tried, speckv_isa_name());
	return 0;
}

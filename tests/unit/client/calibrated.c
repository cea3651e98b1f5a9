// SPDX-License-Identifier: MIT
/*
 * Pools in a mode with a calibration: the pool keeps the file, everybody who attaches codes with
 * it, by position, layer and head; what does not fit is refused; a file that is lost or was changed
 * is named, and stops nobody from looking at the pool.
 */
#include "client/admin/admin.h"

#include "../../vectors/calibration.h"
#include "harness.h"

#define N 24
#define LAYERS 3
#define HEADS 2

static struct calibration_file file, other;
static struct speckv_calibration *calibration;
static struct speckv_calibration_info said;
static uint8_t *raw, *back, *wanted;

static void text_of(char text[33], const uint8_t digest[16])
{
	for (unsigned int i = 0; i < 16; i++)
		snprintf(text + (size_t)2 * i, 3, "%02x", digest[i]);
}

/* Blocks of the whole model, or of the part of it that begins at a layer and a head. */
static struct speckv_pool_config calibrated_pool(const char *name, unsigned int first_layer,
	unsigned int first_head)
{
	struct speckv_pool_config config = small_pool(name, 8 * MIB);

	config.geometry.layers = (uint16_t)(LAYERS - first_layer);
	config.geometry.kv_heads = (uint16_t)(HEADS - first_head);
	config.codec = SPECKV_CODEC_Q5C;
	config.first_layer = (uint16_t)first_layer;
	config.first_head = (uint16_t)first_head;
	config.calibration = file.bytes;
	config.calibration_bytes = file.length;
	return config;
}

static uint64_t position_of(unsigned int n)
{
	return n * 6400ull + 64;
}

static void make_raw(const struct speckv_geometry *geometry, unsigned int n)
{
	uint64_t seed = n + 1;

	random_values(&seed, geometry, STYLE_SMOOTH, (uint16_t *)(void *)raw,
		speckv_geometry_bytes(geometry) / 2);
}

/* What the codec alone makes of block n. Returns the frame's length. */
static uint64_t reference(const struct speckv_geometry *geometry, unsigned int n,
	unsigned int first_layer, unsigned int first_head)
{
	uint64_t bytes = speckv_geometry_bytes(geometry),
		 most = speckv_frame_max_bytes(geometry, SPECKV_CODEC_Q5C), length;
	struct speckv_frame_identity identity = { .first_position = position_of(n) };
	uint8_t *frame = line_alloc(most);
	struct speckv_frame parsed;

	make_raw(geometry, n);
	EXPECT(0,
		speckv_frame_encode_calibrated(geometry, SPECKV_CODEC_Q5C, calibration, first_layer,
			first_head, &identity, raw, bytes, frame, most, &length));
	EXPECT(0, speckv_frame_parse(frame, length, &parsed));
	EXPECT(0,
		speckv_frame_decode_calibrated(&parsed, calibration, frame, length, 0,
			geometry->layers, wanted, bytes));
	free(frame);
	return length;
}

static void put_all(struct speckv_pool *pool, const struct speckv_geometry *geometry)
{
	for (unsigned int n = 0; n < N; n++) {
		struct speckv_request put = { .key = key_of(n),
			.buffer = raw,
			.buffer_bytes = speckv_geometry_bytes(geometry),
			.first_position = position_of(n) };

		make_raw(geometry, n);
		EXPECT(1, speckv_put(pool, &put, 1));
	}
}

static void get_all(struct speckv_pool *pool, const struct speckv_geometry *geometry,
	unsigned int first_layer, unsigned int first_head)
{
	uint64_t bytes = speckv_geometry_bytes(geometry), layer = bytes / geometry->layers;

	for (unsigned int n = 0; n < N; n++) {
		struct speckv_key key = key_of(n);
		struct speckv_request last = { .key = key,
			.buffer = back,
			.buffer_bytes = layer,
			.layer_first = (uint16_t)(geometry->layers - 1),
			.layer_count = 1 };

		reference(geometry, n, first_layer, first_head);
		EXPECT(0, get_block(pool, &key, back, bytes));
		CHECK(memcmp(back, wanted, bytes) == 0, "block %u", n);
		CHECK(memcmp(back, raw, bytes) != 0, "the mode is a lossy one");
		EXPECT(1, speckv_get(pool, &last, 1));
		CHECK(memcmp(back, wanted + bytes - layer, layer) == 0, "last layer of block %u",
			n);
	}
}

static const char *device_name;
static struct speckv_geometry whole;

/* Another process, which was told the pool's name and nothing else. */
static int another(void *arg)
{
	struct speckv_device *dev = open_device(device_name, 0);
	struct speckv_attach attach = { .flags = arg ? SPECKV_ATTACH_READ_ONLY : 0 };
	struct speckv_pool *pool;

	EXPECT(0, speckv_pool_open(dev, "pool", &attach, &pool));
	get_all(pool, &whole, 0, 0);
	speckv_pool_close(pool);
	speckv_device_close(dev);
	return 0;
}

static void refusals(struct speckv_device *dev)
{
	struct speckv_pool_config config = calibrated_pool("never", 0, 0);
	struct speckv_pool_info info;

	config.calibration = NULL;
	REFUSED(-EINVAL, "codec q5c needs a calibration", speckv_pool_create(dev, &config, NULL));
	config = calibrated_pool("never", 0, 0);
	config.codec = SPECKV_CODEC_Q4X;
	REFUSED(-EINVAL, "codec q4x takes no calibration", speckv_pool_create(dev, &config, NULL));
	config.calibration = NULL;
	config.first_layer = 1;
	REFUSED(-EINVAL, "codec q4x takes no calibration", speckv_pool_create(dev, &config, NULL));
	for (uint64_t bytes = 0; bytes < file.length; bytes += file.length / 7 + 1) {
		config = calibrated_pool("never", 0, 0);
		config.calibration_bytes = bytes;
		REFUSED(-EBADMSG, "not a calibration", speckv_pool_create(dev, &config, NULL));
	}
	config = calibrated_pool("never", 0, 0);
	config.geometry.head_dim = 128;
	REFUSED(-ERANGE, "head size 64, the pool's blocks have 128",
		speckv_pool_create(dev, &config, NULL));
	config = calibrated_pool("never", 1, 0);
	config.geometry.layers = LAYERS;
	REFUSED(-ERANGE, "3 layers, the pool's blocks have 3 from layer 1 on",
		speckv_pool_create(dev, &config, NULL));
	config = calibrated_pool("never", 0, 1);
	config.geometry.kv_heads = HEADS;
	REFUSED(-ERANGE, "2 KV heads, the pool's blocks have 2 from head 1 on",
		speckv_pool_create(dev, &config, NULL));
	config = calibrated_pool("never", LAYERS, 0);
	memset(&config.geometry, 0, sizeof(config.geometry));
	REFUSED(-ERANGE, "none from layer 3", speckv_pool_create(dev, &config, NULL));
	config = calibrated_pool("never", 0, 0);
	config.geometry.dtype = SPECKV_DTYPE_FP8_E4M3;
	REFUSED(-EINVAL, "no such block shape", speckv_pool_create(dev, &config, NULL));
	EXPECT(-ENOENT, speckv_pool_info(dev, "never", &info));
}

static void described(struct speckv_device *dev)
{
	struct speckv_pool_info info;
	uint8_t *copy = malloc(file.length);
	uint64_t bytes;

	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(memcmp(info.calibration, said.digest, 16) == 0 &&
			info.config.calibration_bytes == file.length && !info.config.calibration,
		"digest and size");
	CHECK(info.placement == SPECKV_PLACED_HOST, "no card can be given a calibration");
	EXPECT(-ENOSPC, speckv_pool_calibration(dev, "pool", copy, file.length - 1, &bytes));
	CHECK(bytes == file.length, "%llu", (unsigned long long)bytes);
	EXPECT(0, speckv_pool_calibration(dev, "pool", copy, file.length, &bytes));
	CHECK(bytes == file.length && memcmp(copy, file.bytes, bytes) == 0, "the file's bytes");
	free(copy);
}

static void kept_by_the_pool(struct speckv_device *dev, bool card)
{
	struct speckv_pool_config config = calibrated_pool("pool", 0, 0);
	struct speckv_check_report report;
	struct speckv_pool_info info;
	struct speckv_stats stats;
	struct speckv_pool *pool;
	uint64_t length;
	char name[16];

	memset(&config.geometry, 0, sizeof(config.geometry)); /* the calibration tells */
	EXPECT(0, speckv_pool_create(dev, &config, &info));
	whole = info.config.geometry;
	CHECK(whole.layers == LAYERS && whole.kv_heads == HEADS && whole.head_dim == 64 &&
			whole.tokens == 64,
		"shape");
	pool = attach_pool(dev, "pool", "a");
	put_all(pool, &whole);
	get_all(pool, &whole, 0, 0);
	described(dev);
	length = reference(&whole, 0, 0, 0);
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.stored_bytes == N * length &&
			info.raw_bytes == N * speckv_geometry_bytes(&whole),
		"%llu stored", (unsigned long long)info.stored_bytes);
	EXPECT(0, wait_child(spawn(another, NULL)));
	EXPECT(0, wait_child(spawn(another, dev))); /* read-only */

	struct speckv_key key = key_of(1000), bad = key_of(1001);

	memset(raw, 0xff, speckv_geometry_bytes(&whole)); /* NaN: kept as it is */
	EXPECT(0, put_block(pool, &bad, raw, speckv_geometry_bytes(&whole)));
	EXPECT(0, get_block(pool, &bad, back, speckv_geometry_bytes(&whole)));
	CHECK(all_bytes(back, speckv_geometry_bytes(&whole), 0xff), "not finite");
	EXPECT(1, speckv_drop(pool, &bad, 1));

	EXPECT(0, speckv_param_set(pool, "codec", "lossless"));
	make_raw(&whole, 7);
	EXPECT(0, put_block(pool, &key, raw, speckv_geometry_bytes(&whole)));
	EXPECT(0, get_block(pool, &key, back, speckv_geometry_bytes(&whole)));
	CHECK(memcmp(raw, back, speckv_geometry_bytes(&whole)) == 0, "modes mix");
	EXPECT(1, speckv_drop(pool, &key, 1));
	EXPECT(0, speckv_param_set(pool, "codec", "q5c"));
	EXPECT(0, speckv_param_get(pool, "codec", name, sizeof(name)));

	key = key_of(3);
	reference(&whole, 3, 0, 0);
	EXPECT(1, speckv_prefetch(pool, &key, 1));
	for (unsigned int tries = 0; tries < 2000; tries++) {
		EXPECT(0, speckv_pool_stats(dev, "pool", &stats));
		if (stats.counters[SPECKV_COUNT_PREFETCHED])
			break;
		sleep_us(1000);
	}
	EXPECT(0, get_block(pool, &key, back, speckv_geometry_bytes(&whole)));
	CHECK(memcmp(back, wanted, speckv_geometry_bytes(&whole)) == 0, "staged");
	speckv_pool_close(pool);

	EXPECT(0, speckv_pool_resize(dev, "pool", 12 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_resize(dev, "pool", 2 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_DEEP, &report));
	CHECK(report.blocks == N && report.blocks_verified == N, "%llu blocks",
		(unsigned long long)report.blocks);
	if (!card) { /* another boot */
		struct region region;

		EXPECT(0, region_open(dev, "pool", true, &region));
		region.head->pool.boot_id[0] ^= 1;
		region_close(&region);
	}
	pool = attach_pool(dev, "pool", "b");
	get_all(pool, &whole, 0, 0);
	speckv_pool_close(pool);
}

/* Everything that does not read blocks goes on, and attaching says what is wrong. */
static void stopped(struct speckv_device *dev, int error, const char *text)
{
	struct speckv_check_report report;
	struct speckv_pool *pool = NULL;
	struct speckv_pool_info info;
	struct speckv_stats stats;
	uint8_t *copy = malloc(file.length);
	char digest[33];
	uint64_t bytes;

	text_of(digest, said.digest);
	REFUSED(error, text, speckv_pool_open(dev, "pool", NULL, &pool));
	REFUSED(error, digest,
		speckv_pool_open(dev, "pool",
			&(struct speckv_attach){ .flags = SPECKV_ATTACH_READ_ONLY }, &pool));
	CHECK(strstr(speckv_strerror(test_ctx), "create it anew"), "%s", speckv_strerror(test_ctx));
	CHECK(!pool, "no pool");
	EXPECT(error, speckv_pool_calibration(dev, "pool", copy, file.length, &bytes));
	EXPECT(0, speckv_pool_info(dev, "pool", &info));
	CHECK(info.blocks == N && info.accessible && memcmp(info.calibration, said.digest, 16) == 0,
		"info");
	EXPECT(0, check_pool(dev, "pool", SPECKV_CHECK_DEEP | SPECKV_CHECK_REPAIR, &report));
	CHECK(report.blocks == N && !report.blocks_bad && !report.repaired, "check");
	EXPECT(0, speckv_pool_stats(dev, "pool", &stats));
	EXPECT(0, speckv_pool_resize(dev, "pool", 4 * MIB, 0, NULL, NULL, NULL));
	EXPECT(0, speckv_pool_resize(dev, "pool", 2 * MIB, 0, NULL, NULL, NULL));
	free(copy);
}

static void lost_or_changed(struct speckv_device *dev)
{
	struct lay_calibration place;
	struct region region;
	struct speckv_pool *pool;

	EXPECT(0, region_open(dev, "pool", true, &region));
	place = region.head->pool.calibration;
	region.base[place.offset + place.bytes - 1] ^= 1; /* still a calibration, and another one */
	stopped(dev, -EBADMSG, "is not");
	region.base[place.offset + place.bytes - 1] ^= 1;
	memset(region.base + place.offset, 0, place.bytes);
	stopped(dev, -EBADMSG, "is not");
	memcpy(region.base + place.offset, other.bytes,
		place.bytes < other.length ? place.bytes : other.length);
	stopped(dev, -EBADMSG, "is not");
	memcpy(region.base + place.offset, file.bytes, place.bytes);
	for (unsigned int bit = 0; bit < 8 * sizeof(place); bit += 11) {
		((uint8_t *)&region.head->pool.calibration)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		stopped(dev, -EUCLEAN, "is not on this machine");
		((uint8_t *)&region.head->pool.calibration)[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (uint64_t offset = 0; offset < 3; offset++) {
		/* places outside, with a checksum that is right */
		struct lay_calibration wrong = place;

		wrong.offset = offset == 0 ? 0 : offset == 1 ? region.fixed.data_offset : ~4095ull;
		wrong.crc = speckv_crc32c(0, &wrong, offsetof(struct lay_calibration, crc));
		region.head->pool.calibration = wrong;
		stopped(dev, -EUCLEAN, "is not on this machine");
	}
	region.head->pool.calibration = place;
	region_close(&region);
	pool = attach_pool(dev, "pool", "c");
	get_all(pool, &whole, 0, 0);
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "pool", NULL, NULL));
}

/*
 * A tensor-parallel rank's heads, a pipeline stage's layers; and beside it a pool without a
 * calibration.
 */
static void parts_of_a_model(struct speckv_device *dev)
{
	struct speckv_pool_config config = calibrated_pool("part", 1, 1);
	struct speckv_pool *pool;
	uint64_t bytes;

	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	pool = attach_pool(dev, "part", "a");
	put_all(pool, &config.geometry);
	get_all(pool, &config.geometry, 1, 1);
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "part", NULL, NULL));

	config = small_pool("plain", 8 * MIB);
	EXPECT(0, speckv_pool_create(dev, &config, NULL));
	REFUSED(-ENOENT, "has no calibration",
		speckv_pool_calibration(dev, "plain", NULL, 0, &bytes));
	EXPECT(-ENOENT, speckv_pool_calibration(dev, "none", NULL, 0, &bytes));
	pool = attach_pool(dev, "plain", "a");
	REFUSED(-EOPNOTSUPP, "needs a calibration", speckv_param_set(pool, "codec", "q5c"));
	speckv_pool_close(pool);
	EXPECT(0, speckv_pool_destroy(dev, "plain", NULL, NULL));
}

int main(void)
{
	struct calibration_shape shape = {
		.layers = LAYERS, .kv_heads = HEADS, .head_dim = 64, .rotary = "halves", .unit = -12
	};
	uint64_t seed = 41;

	test_begin(120);
	CHECK(speckv_codec_calibrated_modes() >> SPECKV_CODEC_Q5C & 1 &&
			!(speckv_codec_calibrated_modes() & speckv_codec_modes()),
		"modes are one or the other");
	file = random_calibration(&seed, &shape);
	other = random_calibration(&seed, &shape);
	EXPECT(0, speckv_calibration_load(file.bytes, file.length, &calibration));
	EXPECT(0, speckv_calibration_describe(calibration, &said));
	raw = line_alloc(1 << 18);
	back = line_alloc(1 << 18);
	wanted = line_alloc(1 << 18);
	for (int kind = 0; kind < test_media(); kind++) {
		char name[300];
		struct speckv_device *dev = open_medium((enum media)kind, name);

		device_name = name;
		refusals(dev);
		kept_by_the_pool(dev, test_on_card());
		lost_or_changed(dev);
		parts_of_a_model(dev);
		speckv_device_close(dev);
		remove_device(name);
	}
	speckv_calibration_free(calibration);
	free(file.bytes);
	free(other.bytes);
	free(raw);
	free(back);
	free(wanted);
	test_end();
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Calibrations that lie: numbers and tables out of their limits, files cut short or changed
 * anywhere, of either calibrated mode.
 *
 * Usage: test_codec_calibrations [changed files of each mode, default 3000]
 */
#include "calibrated.h"

static int load(const uint8_t *bytes, uint64_t length)
{
	struct speckv_calibration *calibration = NULL;
	/* exactly as long: the sanitizer watches the end */
	uint8_t *copy = malloc(length ? length : 1);
	int rc;

	CHECK(copy, "memory");
	memcpy(copy, bytes, length);
	rc = speckv_calibration_load(copy, length, &calibration);
	CHECK(!rc == !!calibration, "%d", rc);
	speckv_calibration_free(calibration);
	free(copy);
	return rc;
}

static uint64_t place_of(const struct calibration_file *file, const char *tensor)
{
	char *text = calloc(1, file->table + 1), *place;
	uint64_t begin;

	CHECK(text, "memory");
	memcpy(text, file->bytes + 8, file->table);
	place = strstr(text, tensor);
	CHECK(place, "%s", tensor);
	place = strstr(place, "data_offsets\":[");
	CHECK(place, "%s", tensor);
	begin = strtoull(place + 15, NULL, 10);
	free(text);
	return 8 + file->table + begin;
}

/* The file with one number of one tensor changed. */
static int load_with(const struct calibration_file *file, const char *tensor, unsigned int index,
	unsigned int width, uint64_t value)
{
	uint8_t *copy = malloc(file->length);
	int rc;

	CHECK(copy, "memory");
	memcpy(copy, file->bytes, file->length);
	calibration_put(copy + place_of(file, tensor) + (uint64_t)index * width, value, width);
	rc = load(copy, file->length);
	free(copy);
	return rc;
}

/* The file with `from` in its table written as `to`, of the same length. */
static int load_saying(const struct calibration_file *file, const char *from, const char *to)
{
	uint8_t *copy = malloc(file->length);
	int rc = 1;

	CHECK(copy && strlen(from) == strlen(to), "%s", from);
	memcpy(copy, file->bytes, file->length);
	for (uint64_t i = 8; i + strlen(from) <= 8 + file->table && rc == 1; i++)
		if (!memcmp(copy + i, from, strlen(from))) {
			memcpy(copy + i, to, strlen(to));
			rc = load(copy, file->length);
		}
	free(copy);
	return rc;
}

static void q5c_is_checked(uint64_t *seed)
{
	struct calibration_shape shape = { 2, 2, 64, 3, "halves", -9 };
	struct calibration_file file = random_calibration(seed, &shape);
	struct speckv_calibration *calibration = NULL;
	struct speckv_calibration_info info;

	CHECK(!speckv_calibration_load(file.bytes, file.length, &calibration) &&
			!speckv_calibration_describe(calibration, &info),
		"load");
	CHECK(info.layers == 2 && info.kv_heads == 2 && info.head_dim == 64 &&
			info.codecs == 1u << SPECKV_CODEC_Q5C,
		"describe");
	speckv_calibration_free(calibration);
	speckv_calibration_free(NULL);
	CHECK(speckv_calibration_load(NULL, 9, &calibration) == -EINVAL &&
			speckv_calibration_load(file.bytes, 9, NULL) == -EINVAL,
		"null");
	CHECK(speckv_calibration_describe(NULL, &info) == -EINVAL, "null");
	CHECK(speckv_calibration_load(file.bytes, UINT64_C(1) << 31, &calibration) == -EFBIG,
		"huge");
	CHECK(!load(file.bytes, file.length), "as it is");
	CHECK(load_with(&file, "q5c.bits", 3, 1, 0) == -EBADMSG &&
			load_with(&file, "q5c.bits", 3, 1, 6) == -EBADMSG,
		"bits");
	CHECK(load_with(&file, "q5c.unit", 1, 1, 41) == -EBADMSG &&
			load_with(&file, "q5c.unit", 1, 1, 256 - 61) == -EBADMSG,
		"unit");
	CHECK(load_with(&file, "q5c.mean", 77, 2, 16384) == -EBADMSG &&
			load_with(&file, "q5c.mean", 77, 2, 0x8000) == -EBADMSG,
		"mean");
	CHECK(!load_with(&file, "q5c.mean", 77, 2, 16383) &&
			!load_with(&file, "q5c.mean", 77, 2, 65536 - 16383),
		"mean");
	CHECK(load_with(&file, "q5c.shaping", 2015, 2, 0x8000) == 0,
		"one large weight is not too much");
	CHECK(load_with(&file, "rotary.turns", 5, 8, ~UINT64_C(0)) == 0, "any turn");
	CHECK(load_saying(&file, "\"version\":\"1\"", "\"version\":\"0\"") == -EOPNOTSUPP,
		"version");
	CHECK(load_saying(&file, "\"halves\"", "\"yarned\"") == -EOPNOTSUPP, "rotary");
	CHECK(load_saying(&file, "speckv-cal", "speckv-bal") == -EBADMSG, "format");
	CHECK(load_saying(&file, "q5c.bits", "q5c.bots") == -EBADMSG, "name");
	CHECK(load_saying(&file, "q5c.mean\":{\"dtype\":\"I16\"",
		      "q5c.mean\":{\"dtype\":\"I64\"") == -EBADMSG,
		"dtype");
	CHECK(load_saying(&file, "\"shape\":[2,2,2,64]", "\"shape\":[1,2,4,64]") == -EBADMSG,
		"shape");
	CHECK(load_saying(&file, "\"shape\":[2,2,2,64]", "\"shape\":[64,2,2,2]") == -EBADMSG,
		"shape");
	CHECK(load_saying(&file, "\"shape\":[2,2,2,64]", "\"shape\":[2,2,2,6 ]") == -EBADMSG,
		"shape");
	CHECK(load_saying(&file, "data_offsets\":[0,", "data_offsets\":[1,") == -EBADMSG, "offset");
	for (uint64_t cut = 0; cut < file.length; cut += cut < 9 + file.table ? 1 : 997)
		CHECK(load(file.bytes, cut) == -EBADMSG, "cut to %llu", (unsigned long long)cut);
	free(file.bytes);
	/* A row whose weights are too large together. */
	shape.head_dim = 256;
	shape.layers = shape.kv_heads = 1;
	file = random_calibration(seed, &shape);
	CHECK(!load(file.bytes, file.length), "as it is");
	for (unsigned int i = 0; i < 200; i++)
		calibration_put(file.bytes + file.length - 4 - 2 * (i + 2), 32767, 2);
	CHECK(load(file.bytes, file.length) == -EBADMSG, "heavy row");
	free(file.bytes);
}

static void mutated_q5c_does_no_harm(uint64_t *seed, unsigned long count)
{
	static const char tokens[] = "{}[]\",:0129 \\u-eE.";
	struct calibration_shape shape = { 1, 1, 64, 0, "halves", -9 };

	for (unsigned long i = 0; i < count; i++) {
		struct calibration_file file = random_calibration(seed, &shape);
		uint32_t changes = 1 + random_below(seed, 4);

		for (uint32_t k = 0; k < changes; k++)
			switch (random_below(seed, 4)) {
			case 0:
				file.bytes[random_below(seed, (uint32_t)file.length)] =
					(uint8_t)random_next(seed);
				break;
			case 1:
				file.bytes[random_below(seed, 8)] = (uint8_t)random_next(seed);
				break;
			default:
				file.bytes[8 + random_below(seed, (uint32_t)file.table)] =
					(uint8_t)tokens[random_below(seed, sizeof(tokens) - 1)];
				break;
			}
		load(file.bytes,
			random_below(seed, 4) ? file.length
					      : random_below(seed, (uint32_t)file.length));
		free(file.bytes);
	}
}

static void e7c_is_checked(uint64_t *seed)
{
	struct calibration_shape shape = { 2, 2, 64, 24, "halves", -9 };
	struct calibration_file file = random_e7c_calibration(seed, &shape);
	uint8_t *copy = malloc(file.length), *at;
	static const struct {
		const char *tensor;
		unsigned int index, width;
		uint64_t value;
	} bad[] = {
		{ "e7c.rank", 3, 2, 0 },
		{ "e7c.rank", 3, 2, 25 },
		{ "e7c.rank", 3, 2, 65535 },
		{ "e7c.unit", 1, 1, 41 },
		{ "e7c.unit", 1, 1, 256 - 61 },
		{ "e7c.shift", 0, 1, 0 },
		{ "e7c.shift", 0, 1, 21 },
		{ "e7c.shift", 0, 1, 8 },
		{ "e7c.mean", 77, 2, 16384 },
		{ "e7c.mean", 77, 2, 0x8000 },
		{ "e7c.down", 9, 1, 0 },
		{ "e7c.down", 9, 1, 19 },
		{ "e7c.down", 9, 1, 11 },
		{ "e7c.low", 9, 1, 7 },
		{ "e7c.table", 9, 1, 255 },
		{ "e7c.synthesis", 0, 2, 0x8000 },
		{ "e7c.analysis", 3 * 64, 2, 0x7fff },
		{ "e7c.frequencies", 31, 1, 0 },
	};

	CHECK(!load(file.bytes, file.length), "as it is");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(load_with(&file, bad[i].tensor, bad[i].index, bad[i].width, bad[i].value) ==
				-EBADMSG,
			"%s %llu", bad[i].tensor, (unsigned long long)bad[i].value);
	CHECK(!load_with(&file, "e7c.mean", 77, 2, 16383) &&
			!load_with(&file, "e7c.rounding", 9, 1, 255) &&
			!load_with(&file, "e7c.rank", 3, 2, 1),
		"limits");
	/*
	 * Matrices of which one is not the other's inverse: a coefficient for another, a sign, a
	 * row that is nothing.
	 */
	CHECK(copy, "memory");
	for (unsigned int kind = 0; kind < 3; kind++) {
		memcpy(copy, file.bytes, file.length);
		at = copy + place_of(&file, "e7c.analysis") + 5ull * 24 * 64 * 2;
		for (unsigned int c = 0; kind == 0 && c < 128; c++)
			at[c] = at[c + 128];
		for (unsigned int c = 0; kind == 1 && c < 64; c++)
			calibration_put(at + 2 * (size_t)c,
				(uint64_t)(-(int64_t)(int16_t)(at[2 * c] | at[2 * c + 1] << 8)), 2);
		if (kind == 2)
			memset(at, 0, 128);
		CHECK(load(copy, file.length) == -EBADMSG, "kind %u", kind);
	}
	/*
	 * A share taken from one symbol and given to another is as good; one that is lost is not.
	 */
	memcpy(copy, file.bytes, file.length);
	at = copy + place_of(&file, "e7c.frequencies");
	at[0]--;
	CHECK(load(copy, file.length) == -EBADMSG, "sum");
	at[31]++;
	CHECK(!load(copy, file.length), "moved");
	/* Without one of its tensors the mode is not there. */
	for (uint64_t i = 8; i + 8 < 8 + file.table; i++)
		if (!memcmp(file.bytes + i, "\"e7c.", 5)) {
			memcpy(copy, file.bytes, file.length);
			memcpy(copy + i, "\"e7d.", 5);
			CHECK(load(copy, file.length) == -EBADMSG, "another name");
		}
	for (uint64_t cut = 0; cut < file.length; cut += cut < 9 + file.table ? 3 : 997)
		CHECK(load(file.bytes, cut) == -EBADMSG, "cut to %llu", (unsigned long long)cut);
	free(copy);
	free(file.bytes);
}

static void mutated_e7c_does_no_harm(uint64_t *seed, unsigned long count)
{
	static const char tokens[] = "{}[]\",:0129 \\u-eE.";
	struct calibration_shape shape = { 1, 1, 64, 5, "halves", -9 };

	for (unsigned long i = 0; i < count; i++) {
		struct calibration_file file = random_e7c_calibration(seed, &shape);

		for (uint32_t changes = 1 + random_below(seed, 4); changes; changes--)
			if (random_below(seed, 2))
				file.bytes[8 + random_below(seed, (uint32_t)file.table)] =
					(uint8_t)tokens[random_below(seed, sizeof(tokens) - 1)];
			else
				file.bytes[random_below(seed, (uint32_t)file.length)] =
					(uint8_t)random_next(seed);
		load(file.bytes,
			random_below(seed, 4) ? file.length
					      : random_below(seed, (uint32_t)file.length));
		free(file.bytes);
	}
}

int main(int argc, char **argv)
{
	unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 3000;
	uint64_t seed = 5;

	q5c_is_checked(&seed);
	mutated_q5c_does_no_harm(&seed, count);
	e7c_is_checked(&seed);
	mutated_e7c_does_no_harm(&seed, count);
	printf("%lu changed files\n", 2 * count);
	return 0;
}

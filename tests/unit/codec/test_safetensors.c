// SPDX-License-Identifier: MIT
/*
 * What a safetensors file may be, rule by rule; and, with --verdicts, one line for each file on
 * stdin (its length in 8 bytes before it): what differential.py compares with the reference reader.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/safetensors.h"

static int failures;

static int verdict(const char *header, size_t n, const char *data, size_t data_bytes)
{
	uint8_t *file = malloc(8 + n + data_bytes);
	struct safetensors found;
	int rc;

	for (int i = 0; i < 8; i++)
		file[i] = (uint8_t)((uint64_t)n >> (8 * i));
	memcpy(file + 8, header, n);
	memcpy(file + 8 + n, data, data_bytes);
	rc = safetensors_open(file, 8 + n + data_bytes, &found);
	safetensors_close(&found);
	free(file);
	return rc;
}

#define ONE "\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"
#define TWO "{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}"

static const struct {
	const char *header, *data;
	int rc;
} cases[] = {
	{ "{}", "", 0 },
	{ "{}", "x", -EBADMSG }, /* bytes that are no tensor's */
	{ "", "", -EBADMSG },
	{ "[]", "", -EBADMSG },
	{ "{\"a\":{" ONE "}}", "12", 0 },
	{ " {\"a\":{" ONE "}} \n\t\r", "12", 0 },
	{ "{\"a\":{" ONE "}}x", "12", -EBADMSG },
	{ "{\"a\":{" ONE "},}", "12", -EBADMSG },
	{ "{\"a\":{" ONE "}}", "1", -EBADMSG }, /* cut short */
	{ "{\"a\":{" ONE "}}", "123", -EBADMSG },
	{ "{\"a\":{" ONE "},\"b\":" TWO "}", "1234", 0 },
	{ "{\"b\":" TWO ",\"a\":{" ONE "}}", "1234", 0 }, /* in any order */
	{ "{\"b\":" TWO "}", "1234", -EBADMSG }, /* a hole */
	{ "{\"a\":{" ONE "},\"b\":{" ONE "}}", "12", -EBADMSG }, /* overlap */
	{ "{\"a\":{" ONE "},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", "123",
		-EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,0]}}", "12", -EBADMSG },
	/* its type is longer */
	{ "{\"a\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,3]}}", "123", -EBADMSG },
	{ "{\"a\":[\"U8\",[2],[0,2]]}", "12", 0 }, /* as the reference reads it too */
	{ "{\"a\":[\"X8\",[0],[0,0]]}", "", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"I16\",\"shape\":[1],\"data_offsets\":[0,2]}}", "12", 0 },
	{ "{\"a\":{\"dtype\":\"X8\",\"shape\":[2],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", "12", 0 },
	/* half a byte */
	{ "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2,3],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", "1", 0 },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "", 0 },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551615,18446744073709551615,0],\"data_offsets\":[0,0]}}",
		"", -EBADMSG },
	/* 2^64 is not 0 */
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "",
		-EBADMSG },
	{ "{\"a\":{\"dtype\":\"U64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", "",
		-EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[02],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551618],\"data_offsets\":[0,2]}}",
		"12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2,2]}}", "12", -EBADMSG },
	{ "{\"a\":{\"dtype\":\"U8\",\"shape\":[2]}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"dtype\":\"U8\"}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"shape\":[2]}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"data_offsets\":[0,2]}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"more\":[1,-2.5e3,{\"x\":null,\"y\":[]},true,false,\"\\n\",{}]}}", "12",
		0 },
	{ "{\"a\":{" ONE ",\"more\":1e400}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"more\":[1,]}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"more\":{\"x\"}}}", "12", -EBADMSG },
	{ "{\"a\":{" ONE ",\"more\":tru}}", "12", -EBADMSG },
	/* Of a name that comes twice the last one counts. */
	{ "{\"a\":" TWO ",\"a\":{" ONE "}}", "12", 0 },
	{ "{\"a\":{" ONE "},\"a\":" TWO "}", "1234", -EBADMSG },
	{ "{\"\\u0061\":" TWO ",\"a\":{" ONE "}}", "12", 0 },
	{ "{\"__metadata__\":{\"a\":\"x\",\"a\":\"y\"}}", "", 0 },
	{ "{\"__metadata__\":null}", "", 0 },
	{ "{\"__metadata__\":{\"a\":1}}", "", -EBADMSG },
	{ "{\"__metadata__\":{\"a\":null}}", "", -EBADMSG },
	{ "{\"__metadata__\":[]}", "", -EBADMSG },
	{ "{\"__metadata__\":{},\"__metadata__\":{}}", "", -EBADMSG },
	{ "{\"__metadat\\u0061__\":{\"a\":1}}", "", -EBADMSG },
	/* Text. */
	{ "{\"\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\":{" ONE "}}", "12", 0 },
	{ "{\"\\ud800\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"\\ude00\\ud83d\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"\\ud83d\\u0041\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"\\x\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"\\u00g0\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"a\x1f\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"a\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\":{" ONE "}}", "12", 0 },
	{ "{\"a\xff\":{" ONE "}}", "12", -EBADMSG },
	{ "{\"a\xc0\xaf\":{" ONE "}}", "12", -EBADMSG }, /* longer than it must be */
	{ "{\"a\xed\xa0\x80\":{" ONE "}}", "12", -EBADMSG }, /* a surrogate */
	{ "{\"a\xf4\x90\x80\x80\":{" ONE "}}", "12", -EBADMSG }, /* beyond Unicode */
	{ "\xef\xbb\xbf{\"a\":{" ONE "}}", "12", -EBADMSG },
};

static void expect(bool right, const char *what)
{
	if (!right) {
		fprintf(stderr, "wrong: %s\n", what);
		failures++;
	}
}

static void each_rule(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int rc = verdict(cases[i].header, strlen(cases[i].header), cases[i].data,
			strlen(cases[i].data));

		expect(rc == cases[i].rc, cases[i].header);
	}
}

static void what_is_found(void)
{
	static const char header[] =
		"{\"__metadata__\":{\"k\":\"old\",\"k\":\"n\\u0065w\"},"
		"\"\\u0062\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[1,5]},"
		"\"a\":{\"dtype\":\"I8\",\"shape\":[],\"data_offsets\":[0,1]}}";
	char file[8 + sizeof(header) + 4] = { (char)(sizeof(header) - 1) };
	const struct safetensors_tensor *t;
	struct safetensors found;
	int rc;

	strcpy(file + 8, header);
	memcpy(file + 8 + sizeof(header) - 1, "Abcde", 5);
	rc = safetensors_open((const uint8_t *)file, sizeof(file), &found);
	expect(rc == 0, "a sound file");
	if (rc == 0) {
		expect(found.count == 2 && text_is(found.tensors[0].name, "a"),
			"tensors in the order of their data");
		t = safetensors_find(&found, "b");
		expect(t && !strcmp(t->dtype, "BF16") && t->dimensions == 2 && t->shape[1] == 2 &&
				t->elements == 2,
			"type and shape");
		expect(t && !memcmp(found.data + t->begin, "bcde", 4) && t->end - t->begin == 4,
			"data");
		expect(!safetensors_find(&found, "c"), "no tensor of that name");
		expect(text_is(safetensors_about(&found, "k"), "new") &&
				!safetensors_about(&found, "z").at,
			"metadata");
	}
	safetensors_close(&found);
}

static void depth_and_size_are_bounded(void)
{
	char text[600];
	uint8_t large[16] = { 0 };
	struct safetensors found;
	uint64_t most = SAFETENSORS_HEADER_MOST;
	uint8_t *file = malloc(8 + most + 1);

	for (int deep = 125; deep <= 126; deep++) {
		int n = snprintf(text, sizeof(text), "{\"a\":{" ONE ",\"x\":");

		memset(text + n, '[', (size_t)deep);
		memset(text + n + deep, ']', (size_t)deep);
		strcpy(text + n + 2 * deep, "}}");
		expect(verdict(text, strlen(text), "12", 2) == (deep == 125 ? 0 : -EBADMSG),
			"127 levels and no more");
	}
	for (int i = 0; i < 8; i++)
		large[i] = 0xff;
	expect(safetensors_open(large, sizeof(large), &found) == -EBADMSG,
		"a length beyond any file");
	safetensors_close(&found);
	expect(safetensors_open(large, 7, &found) == -EBADMSG, "less than a length");
	safetensors_close(&found);
	for (int more = 0; more <= 1; more++) {
		for (int i = 0; i < 8; i++)
			file[i] = (uint8_t)((most + (uint64_t)more) >> (8 * i));
		memset(file + 8, ' ', most + 1);
		memcpy(file + 8, "{}", 2);
		expect(safetensors_open(file, 8 + most + (uint64_t)more, &found) ==
				(more ? -EBADMSG : 0),
			"a header of 100 MB");
		safetensors_close(&found);
	}
	free(file);
}

static int verdicts(void)
{
	uint8_t length[8];

	while (fread(length, 1, 8, stdin) == 8) {
		struct safetensors found;
		uint64_t n = 0;
		uint8_t *file;

		for (int i = 7; i >= 0; i--)
			n = n << 8 | length[i];
		file = malloc(n + !n); /* its very size: a sanitizer sees a byte beyond */
		if (!file || fread(file, 1, n, stdin) != n)
			return 2;
		printf("%d\n", safetensors_open(file, n, &found));
		safetensors_close(&found);
		free(file);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--verdicts"))
		return verdicts();
	each_rule();
	what_is_found();
	depth_and_size_are_bounded();
	return failures ? 1 : 0;
}

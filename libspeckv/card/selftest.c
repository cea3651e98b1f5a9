// SPDX-License-Identifier: MIT
/* SELF_TEST: known-answer tests of each part. Stored data is not changed. */
#include <stdio.h>

#include "card/internal.h"

static void set_result(struct card_test *test, bool good, const char *text)
{
	test->status = good ? SPECKV_STATUS_OK : SPECKV_STATUS_TEST_FAILED;
	snprintf(test->text, sizeof(test->text), "%s", text);
}

/* Write patterns to one free page, and check the tables. */
static void test_memory(struct card_context *context, struct card_test *test)
{
	static const uint8_t patterns[] = { 0x00, 0xff, 0x55, 0xaa };
	struct speckv_card *card = context->card;
	uint64_t page = memory_page_take(card, PAGE_OWNER);
	bool good = true;
	uint8_t *at;

	if (page == UINT64_MAX) {
		set_result(test, true, "no free page to write to");
		return;
	}
	at = memory_page(card, page);
	for (size_t i = 0; i < sizeof(patterns) && good; i++) {
		memset(at, patterns[i], SPECKV_CARD_PAGE_BYTES);
		for (uint32_t k = 0; k < SPECKV_CARD_PAGE_BYTES && good; k++)
			good = ((volatile uint8_t *)at)[k] == patterns[i];
	}
	memory_page_give(card, page);
	set_result(test, good,
		good ? "four patterns through a free page" : "a pattern came back changed");
}

/* Read the admin ring again, from which this command was fetched. */
static void test_dma(struct card_context *context, struct card_test *test)
{
	uint8_t entry[SPECKV_SQE_BYTES];
	bool good = !context->card->ops.dma_read(context->card->arg, context->function->index,
		context->queue->sq_base, entry, sizeof(entry));

	set_result(test, good,
		good ? "the admin ring can be read" : "the admin ring cannot be read");
}

struct vector {
	uint32_t codec, frame_crc;
};

/* CRC of the golden frame of the block below, per mode. Other modes get a round-trip test. */
static const struct vector vectors[] = {
	{ SPECKV_CODEC_RAW, 0x81e6af91 },
	{ SPECKV_CODEC_INT8_DELTA_RLE, 0x07e47ccf },
};

#define TEST_RAW (1 * 2 * 1 * 64 * 64 * 2)

static bool test_mode(struct speckv_card *card, uint32_t codec, uint32_t *crc)
{
	static const struct speckv_geometry shape = {
		.layers = 1, .kv_heads = 1, .head_dim = 64, .tokens = 64, .dtype = SPECKV_DTYPE_BF16
	};
	struct speckv_frame_identity identity = { .generation = 1 };
	uint64_t most = speckv_frame_max_bytes(&shape, codec), bytes;
	struct speckv_frame frame;
	uint32_t state = 1;

	if (!most || card_scratch(card, most, 2 * TEST_RAW))
		return false;
	for (uint32_t i = 0; i < TEST_RAW / 2; i++) {
		uint16_t value;

		/* bf16 values around one, a few of them small, of both signs. */
		state = state * 1664525 + 1013904223;
		value = (uint16_t)((state >> 31 << 15) | (0x3c00 + (state >> 16 & 0x3ff)));
		memcpy(card->raw_scratch + 2 * i, &value, sizeof(value));
	}
	if (speckv_frame_encode(&shape, codec, &identity, card->raw_scratch, TEST_RAW,
		    card->frame_scratch, card->frame_scratch_bytes, &bytes) ||
		speckv_frame_verify(card->frame_scratch, bytes) ||
		speckv_frame_parse(card->frame_scratch, bytes, &frame) ||
		speckv_frame_decode(&frame, card->frame_scratch, bytes, 0, 1,
			card->raw_scratch + TEST_RAW, TEST_RAW))
		return false;
	*crc = speckv_crc32c(0, card->frame_scratch, bytes) ^
		speckv_crc32c(0, card->raw_scratch + TEST_RAW, TEST_RAW);
	return true;
}

static void test_codec(struct card_context *context, struct card_test *test)
{
	struct speckv_card *card = context->card;
	char text[sizeof(test->text)];
	unsigned int modes = 0;
	bool good = speckv_crc32c(0, "123456789", 9) == 0xe3069283u;

	for (uint32_t codec = 0; codec < 32 && good; codec++) {
		uint32_t crc;

		if (!(card->config.codec_modes >> codec & 1))
			continue;
		good = test_mode(card, codec, &crc);
		for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]) && good; i++)
			good = vectors[i].codec != codec || vectors[i].frame_crc == crc;
		snprintf(text, sizeof(text), "mode %u does not give the known frame", codec);
		modes++;
	}
	if (good)
		snprintf(text, sizeof(text), "checksum and %u modes", modes);
	set_result(test, good, modes ? text : "the checksum is wrong");
}

static void test_translation(struct card_context *context, struct card_test *test)
{
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		if (context->card->pools[n].present && !memory_pool_check(context->card, n)) {
			set_result(test, false,
				"a pool's page table points at a page that is not its own");
			return;
		}
	set_result(test, true, "every page of every pool is its own");
}

static void test_predictor(struct card_context *context, struct card_test *test)
{
	bool good = !card_predictor_test(context->card);

	set_result(test, good,
		good ? "known scores, and the model that was loaded"
		     : "a known score is wrong, or the model is damaged");
}

static void test_flash(struct card_context *context, struct card_test *test)
{
	struct speckv_card *card = context->card;

	if (!card->config.flash) {
		set_result(test, true, "this card has no flash");
		return;
	}
	for (unsigned int slot = SPECKV_SLOT_A; slot <= SPECKV_SLOT_B; slot++) {
		uint8_t state = card->flash.record.slot[slot - SPECKV_SLOT_A].state;

		if (state >= SPECKV_SLOT_STATE_VERIFIED && state <= SPECKV_SLOT_STATE_GOOD &&
			card_slot_intact(card, slot)) {
			set_result(test, false, "a slot is not the bundle that was committed");
			return;
		}
	}
	set_result(test, true, "committed slots verify");
}

uint16_t card_self_test(struct card_context *context)
{
	static void (*const tests[SPECKV_TESTS])(struct card_context *, struct card_test *) = {
		test_memory,
		test_dma,
		test_codec,
		test_translation,
		test_predictor,
		test_flash,
	};
	const struct speckv_cmd_value *command = &context->entry->value;
	struct speckv_card *card = context->card;
	uint64_t failed = 0;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, value.flags);
	if (CARD_RESERVED(context, value.pool))
		return CARD_INVALID(context, value.pool);
	if (CARD_RESERVED(context, value.feature))
		return CARD_INVALID(context, value.feature);
	if (CARD_RESERVED(context, value.reserved))
		return CARD_INVALID(context, value.reserved);
	if (!command->value || command->value >> SPECKV_TESTS)
		return CARD_INVALID(context, value.value);
	card->tests_run = 0;
	for (unsigned int i = 0; i < SPECKV_TESTS; i++) {
		struct card_test *test = &card->tests[card->tests_run];
		uint64_t start = card_now(card);

		if (!(command->value >> i & 1))
			continue;
		memset(test, 0, sizeof(*test));
		test->test = 1u << i;
		tests[i](context, test);
		test->elapsed_ns = card_now(card) - start;
		if (test->status)
			failed |= test->test;
		card->tests_run++;
	}
	/* Report failures in the result: the command itself succeeded. */
	context->command->result = failed;
	return SPECKV_STATUS_OK;
}

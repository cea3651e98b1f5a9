// SPDX-License-Identifier: MIT
/*
 * LOAD_MODEL: the file of a prefetcher arrives in parts, is checked whole and kept in device memory. A model file is safetensors; its
 * table must be right in every offset before any part of the card computes with it.
 */
#include "card/internal.h"

#define TABLE_MOST (1u << 20)
#define TENSORS_MOST 256

struct scan {
	const char *at, *end;
	uint64_t data_bytes;
	uint64_t covered;
	unsigned int tensors;
	bool bad;
};

static char peek(struct scan *s)
{
	while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : 0;
}

static bool take(struct scan *s, char c)
{
	if (peek(s) != c)
		return false;
	s->at++;
	return true;
}

static void expect(struct scan *s, char c)
{
	if (!take(s, c))
		s->bad = true;
}

/* A string without looking into its escapes. */
static void string(struct scan *s, const char **text, size_t *length)
{
	expect(s, '"');
	*text = s->at;
	while (!s->bad && s->at < s->end && *s->at != '"') {
		if ((unsigned char)*s->at < 0x20)
			s->bad = true;
		s->at += *s->at == '\\' ? 2 : 1;
	}
	if (s->at >= s->end) {
		s->bad = true;
		s->at = s->end;
		*length = 0;
		return;
	}
	*length = (size_t)(s->at - *text);
	s->at++;
}

static uint64_t number(struct scan *s)
{
	uint64_t value = 0;
	bool any = false;

	peek(s);
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && value < UINT64_C(1) << 40) {
		value = value * 10 + (uint64_t)(*s->at++ - '0');
		any = true;
	}
	if (!any || value >= UINT64_C(1) << 40)
		s->bad = true;
	return value;
}

static bool is(const char *text, size_t length, const char *what)
{
	return length == strlen(what) && !memcmp(text, what, length);
}

/* {"dtype": "I8", "shape": [128, 64], "data_offsets": [0, 8192]} */
static void tensor(struct scan *s)
{
	uint64_t elements = 1, size = 0, begin = 0, end = 0;
	bool offsets = false, shape = false;

	expect(s, '{');
	do {
		const char *key, *value;
		size_t length;

		string(s, &key, &length);
		expect(s, ':');
		if (is(key, length, "dtype")) {
			string(s, &value, &length);
			size = is(value, length, "I8") || is(value, length, "U8") || is(value, length, "BOOL") ? 1 :
			       is(value, length, "I16") || is(value, length, "U16") || is(value, length, "F16") || is(value, length, "BF16") ? 2 :
			       is(value, length, "I32") || is(value, length, "U32") || is(value, length, "F32") ? 4 :
			       is(value, length, "I64") || is(value, length, "U64") || is(value, length, "F64") ? 8 : 0;
		} else if (is(key, length, "shape")) {
			shape = true;
			expect(s, '[');
			if (!take(s, ']')) {
				do {
					uint64_t n = number(s);

					/* Products beyond what a file can hold need not be exact. */
					elements = n && elements > (UINT64_C(1) << 40) / n ? UINT64_C(1) << 41 : elements * n;
				} while (!s->bad && take(s, ','));
				expect(s, ']');
			}
		} else if (is(key, length, "data_offsets")) {
			offsets = true;
			expect(s, '[');
			begin = number(s);
			expect(s, ',');
			end = number(s);
			expect(s, ']');
		} else {
			s->bad = true;
		}
	} while (!s->bad && take(s, ','));
	expect(s, '}');
	if (!size || !shape || !offsets || end < begin || end > s->data_bytes || elements > UINT64_C(1) << 40 || end - begin != elements * size)
		s->bad = true;
	s->covered += end - begin;
	if (++s->tensors > TENSORS_MOST)
		s->bad = true;
}

/* {"__metadata__": {"name": "text"}}: all values are strings. */
static void metadata(struct scan *s)
{
	const char *text;
	size_t length;

	expect(s, '{');
	if (take(s, '}'))
		return;
	do {
		string(s, &text, &length);
		expect(s, ':');
		string(s, &text, &length);
	} while (!s->bad && take(s, ','));
	expect(s, '}');
}

/* A table whose tensors fill the data exactly, each as long as its shape says. */
bool card_model_valid(const uint8_t *file, uint64_t bytes)
{
	uint64_t table;
	struct scan s;

	if (bytes < 10)
		return false;
	memcpy(&table, file, sizeof(table));
	if (table > bytes - 8 || table > TABLE_MOST)
		return false;
	s = (struct scan){ .at = (const char *)file + 8, .end = (const char *)file + 8 + table, .data_bytes = bytes - 8 - table };
	expect(&s, '{');
	do {
		const char *name;
		size_t length;

		string(&s, &name, &length);
		expect(&s, ':');
		if (is(name, length, "__metadata__"))
			metadata(&s);
		else
			tensor(&s);
	} while (!s.bad && take(&s, ','));
	expect(&s, '}');
	return !s.bad && !peek(&s) && s.at == s.end && s.tensors && s.covered == s.data_bytes;
}

static uint8_t *place(const struct speckv_card *card, uint32_t which)
{
	return card->memory + card->layout.model + (uint64_t)which * MEMORY_MODEL_BYTES;
}

/* The model in force, or NULL. */
const uint8_t *card_model(const struct speckv_card *card, uint64_t *bytes)
{
	const struct memory_superblock *super = memory_superblock(card);

	*bytes = super->model_bytes;
	return super->model_bytes ? place(card, super->model_place) : NULL;
}

void card_model_unload(struct speckv_card *card)
{
	struct memory_superblock *super = memory_superblock(card);

	super->model_bytes = 0;
	atomic_thread_fence(memory_order_release);
	memset(super->model_digest, 0, sizeof(super->model_digest));
	card->model_received = 0;
}

/* After a start: a model that is not whole is none. */
void card_model_recover(struct speckv_card *card)
{
	struct memory_superblock *super = memory_superblock(card);
	uint8_t digest[32];

	if (!super->model_bytes)
		return;
	if (super->model_place > 1 || super->model_bytes > MEMORY_MODEL_BYTES ||
	    !card_sha256(place(card, super->model_place), super->model_bytes, digest) || memcmp(digest, super->model_digest, 32))
		card_model_unload(card);
}

static uint16_t whole(struct card_context *context)
{
	const struct speckv_cmd_model *command = &context->entry->model;
	struct speckv_card *card = context->card;
	struct memory_superblock *super = memory_superblock(card);
	uint32_t at = !super->model_place;
	uint8_t digest[32];

	card->model_received = 0;
	if (!card_sha256(place(card, at), command->total_bytes, digest) || memcmp(digest, command->digest, 32) ||
	    !card_model_valid(place(card, at), command->total_bytes))
		return SPECKV_STATUS_BAD_MODEL;
	super->model_bytes = 0;
	atomic_thread_fence(memory_order_release);
	memcpy(super->model_digest, digest, 32);
	super->model_place = at;
	atomic_thread_fence(memory_order_release);
	super->model_bytes = command->total_bytes;
	card_event(card, SPECKV_CARD_MODEL_LOADED, SPECKV_INFO, context->function->index, 0, command->total_bytes,
		   "prefetcher of %u bytes loaded", command->total_bytes);
	return SPECKV_STATUS_OK;
}

uint16_t card_load_model(struct card_context *context)
{
	const struct speckv_cmd_model *command = &context->entry->model;
	struct speckv_card *card = context->card;
	uint16_t status;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | SPECKV_MODEL_UNLOAD))
		return CARD_INVALID(context, model.flags);
	if (CARD_RESERVED(context, model.pool))
		return CARD_INVALID(context, model.pool);
	if (CARD_RESERVED(context, model.buffer))
		return CARD_INVALID(context, model.buffer);
	if (CARD_RESERVED(context, model.reserved))
		return CARD_INVALID(context, model.reserved);
	if (!card->engine)
		return SPECKV_STATUS_NO_ENGINE;
	if (command->flags & SPECKV_MODEL_UNLOAD) {
		if (!memory_superblock(card)->model_bytes)
			return SPECKV_STATUS_NO_MODEL;
		card_model_unload(card);
		card_event(card, SPECKV_CARD_MODEL_UNLOADED, SPECKV_INFO, context->function->index, 0, 0, "prefetcher unloaded");
		return SPECKV_STATUS_OK;
	}
	if (command->data_address % 64)
		return CARD_INVALID(context, model.data_address);
	if (!command->total_bytes || command->total_bytes > MEMORY_MODEL_BYTES)
		return CARD_INVALID(context, model.total_bytes);
	if (!command->data_bytes || command->offset > command->total_bytes || command->data_bytes > command->total_bytes - command->offset)
		return CARD_INVALID(context, model.data_bytes);
	if (command->offset && command->offset != card->model_received)
		return CARD_INVALID(context, model.offset);
	status = card_data_read(context, command->data_address, place(card, !memory_superblock(card)->model_place) + command->offset,
				command->data_bytes);
	if (status)
		return status;
	card->model_received = command->offset + command->data_bytes;
	context->command->result = card->model_received;
	return card->model_received == command->total_bytes ? whole(context) : SPECKV_STATUS_OK;
}

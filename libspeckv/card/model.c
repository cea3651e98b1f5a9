// SPDX-License-Identifier: MIT
/*
 * LOAD_MODEL: the file of a prefetcher arrives in parts, is validated as a whole and stored in
 * device memory. The file is written by train-prefetcher; libspeckv/predictor parses it, as in the
 * client, and rejects anything else.
 */
#include "card/internal.h"

/* Parse a model that this card can run, or NULL: features are limited by the submission entry. */
static struct speckv_predictor *parse_model(const uint8_t *file, uint64_t bytes, bool *no_memory)
{
	struct speckv_predictor *model;
	int rc = speckv_predictor_parse(file, bytes, &model);

	*no_memory = rc == -ENOMEM;
	if (rc)
		return NULL;
	if (speckv_predictor_features(model) > SPECKV_FEATURES) {
		speckv_predictor_destroy(model);
		return NULL;
	}
	return model;
}

/* Activate a model. Session state of the previous model is void: sessions restart. */
static void put_in_force(struct speckv_card *card, struct speckv_predictor *model)
{
	speckv_predictor_destroy(card->predictor);
	card->predictor = model;
	card->predictor_number++;
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		memset(&card->pools[n].pace, 0, sizeof(card->pools[n].pace));
}

static uint8_t *model_place(const struct speckv_card *card, uint32_t which)
{
	return card->memory + card->layout.model + (uint64_t)which * MEMORY_MODEL_BYTES;
}

/* The active model, or NULL. */
const uint8_t *card_model(const struct speckv_card *card, uint64_t *bytes)
{
	const struct memory_superblock *super = memory_superblock(card);

	*bytes = super->model_bytes;
	return super->model_bytes ? model_place(card, super->model_place) : NULL;
}

void card_model_unload(struct speckv_card *card)
{
	struct memory_superblock *super = memory_superblock(card);

	super->model_bytes = 0;
	atomic_thread_fence(memory_order_release);
	memset(super->model_digest, 0, sizeof(super->model_digest));
	card->model_received = 0;
	put_in_force(card, NULL);
}

/* Does the model in device memory still match its digest? */
bool card_model_intact(const struct speckv_card *card)
{
	const struct memory_superblock *super = memory_superblock(card);
	uint8_t digest[32];

	return card_sha256(model_place(card, super->model_place), super->model_bytes, digest) &&
		!memcmp(digest, super->model_digest, 32);
}

/* After a start: drop a model that does not verify. */
void card_model_recover(struct speckv_card *card)
{
	struct memory_superblock *super = memory_superblock(card);
	bool no_memory;

	if (!super->model_bytes)
		return;
	if (super->model_place > 1 || super->model_bytes > MEMORY_MODEL_BYTES ||
		!card_model_intact(card)) {
		card_model_unload(card);
		return;
	}
	put_in_force(card,
		parse_model(model_place(card, super->model_place), super->model_bytes, &no_memory));
	if (!card->predictor)
		card_model_unload(card);
}

static uint16_t model_complete(struct card_context *context)
{
	const struct speckv_cmd_model *command = &context->entry->model;
	struct speckv_card *card = context->card;
	struct memory_superblock *super = memory_superblock(card);
	uint32_t at = !super->model_place;
	struct speckv_predictor *model;
	char size[CARD_SIZE_TEXT];
	uint8_t digest[32];
	bool no_memory;

	card->model_received = 0;
	if (!card_sha256(model_place(card, at), command->total_bytes, digest) ||
		memcmp(digest, command->digest, 32))
		return SPECKV_STATUS_BAD_MODEL;
	model = parse_model(model_place(card, at), command->total_bytes, &no_memory);
	if (!model)
		return no_memory ? SPECKV_STATUS_INTERNAL : SPECKV_STATUS_BAD_MODEL;
	super->model_bytes = 0;
	atomic_thread_fence(memory_order_release);
	memcpy(super->model_digest, digest, 32);
	super->model_place = at;
	atomic_thread_fence(memory_order_release);
	super->model_bytes = command->total_bytes;
	put_in_force(card, model);
	card_event(card, SPECKV_CARD_MODEL_LOADED, SPECKV_INFO, context->function->index, 0,
		command->total_bytes, "prefetcher of %s loaded",
		card_size(size, command->total_bytes));
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
		card_event(card, SPECKV_CARD_MODEL_UNLOADED, SPECKV_INFO, context->function->index,
			0, 0, "prefetcher unloaded");
		return SPECKV_STATUS_OK;
	}
	if (command->data_address % 64)
		return CARD_INVALID(context, model.data_address);
	if (!command->total_bytes || command->total_bytes > MEMORY_MODEL_BYTES)
		return CARD_INVALID(context, model.total_bytes);
	if (!command->data_bytes || command->offset > command->total_bytes ||
		command->data_bytes > command->total_bytes - command->offset)
		return CARD_INVALID(context, model.data_bytes);
	if (command->offset && command->offset != card->model_received)
		return CARD_INVALID(context, model.offset);
	if (!command->offset &&
		memory_take(card,
			card->layout.model +
				(memory_superblock(card)->model_place ? 0 : MEMORY_MODEL_BYTES),
			MEMORY_MODEL_BYTES))
		return SPECKV_STATUS_NO_MEMORY;
	status = card_data_read(context, command->data_address,
		model_place(card, !memory_superblock(card)->model_place) + command->offset,
		command->data_bytes);
	if (status)
		return status;
	card->model_received = command->offset + command->data_bytes;
	context->command->result = card->model_received;
	return card->model_received == command->total_bytes ? model_complete(context)
							    : SPECKV_STATUS_OK;
}

// SPDX-License-Identifier: MIT
/* Admin commands: dispatch, IDENTIFY, RESET. */
#include "card/internal.h"

static uint16_t identify(struct card_context *context)
{
	const struct speckv_cmd_data *command = &context->entry->data;
	struct speckv_card *card = context->card;
	const struct speckv_card_config *config = &card->config;
	static const struct speckv_identify zero;
	struct speckv_identify out = zero;

	if (command->pool)
		return CARD_INVALID(context, data.pool);
	if (command->data_bytes != sizeof(out))
		return CARD_INVALID(context, data.data_bytes);
	out.function = context->function->index;
	out.bytes = offsetof(struct speckv_identify, reserved1);
	memcpy(out.uuid, config->uuid, sizeof(out.uuid));
	memcpy(out.model, config->model, sizeof(out.model));
	memcpy(out.serial, config->serial, sizeof(out.serial));
	memcpy(out.part, config->part, sizeof(out.part));
	out.map_version = SPECKV_MAP_MAJOR << 16 | SPECKV_MAP_MINOR;
	out.rtl_revision = card_revision(card);
	out.build_id = card_build_id(card);
	out.caps = card_caps(context->function);
	out.codec_modes = card->engine ? config->codec_modes : 0;
	out.memory_bytes = card->layout.pages * SPECKV_CARD_PAGE_BYTES;
	out.memory_free_bytes = card->free_pages * SPECKV_CARD_PAGE_BYTES;
	out.pools_max = SPECKV_CARD_POOLS;
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		out.pools += card->pools[n].present;
	out.functions_max = (uint16_t)card->functions_max;
	out.queue_pairs_max = config->queue_pairs_max;
	out.sessions = config->sessions;
	out.transfer_bytes = config->transfer_bytes;
	out.page_log2_min = 8;
	out.page_log2_max = 16;
	out.queue_log2_max = CARD_IO_LOG2;
	out.key_slots = SPECKV_CARD_KEYS;
	out.buffers_max = config->buffers_max;
	out.running_slot = card->flash.running;
	out.security_version = card->flash.record.security_version;
	out.commit_timeout_ms = config->flash ? 60000 : 0;
	if (memory_superblock(card)->model_bytes)
		memcpy(out.model_digest, memory_superblock(card)->model_digest,
			sizeof(out.model_digest));
	for (unsigned int i = 0; i < card->flash.key_count; i++)
		if (!card_sha256(card->flash.keys[i].key, sizeof(card->flash.keys[i].key),
			    out.key_digests[i]))
			return SPECKV_STATUS_INTERNAL;
	return card_data_write(context, command->data_address, &out, sizeof(out));
}

/* Checks common to IDENTIFY and CREATE_POOL. */
static uint16_t data_command(struct card_context *context)
{
	const struct speckv_cmd_data *command = &context->entry->data;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, data.flags);
	if (CARD_RESERVED(context, data.buffer))
		return CARD_INVALID(context, data.buffer);
	if (CARD_RESERVED(context, data.reserved))
		return CARD_INVALID(context, data.reserved);
	if (command->data_address % 64)
		return CARD_INVALID(context, data.data_address);
	return command->opcode == SPECKV_ADMIN_IDENTIFY ? identify(context)
							: card_create_pool(context);
}

static void reset_engine(struct card_context *context)
{
	struct speckv_card *card = context->card;

	for (unsigned int f = 0; f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];

		if (!function)
			continue;
		for (unsigned int q = 0; q < function->pairs; q++) {
			card_queue_disable(function, &function->pair[q], true);
			function->pair[q].control = 0;
		}
		function->reset_count++;
	}
	card_event(card, SPECKV_CARD_RESET, SPECKV_WARNING, context->function->index, 0,
		SPECKV_RESET_ENGINE, "engine reset");
}

static uint16_t reset_card(struct card_context *context)
{
	const struct speckv_cmd_value *command = &context->entry->value;
	struct speckv_card *card = context->card;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, value.flags);
	if (CARD_RESERVED(context, value.pool))
		return CARD_INVALID(context, value.pool);
	if (CARD_RESERVED(context, value.feature))
		return CARD_INVALID(context, value.feature);
	if (CARD_RESERVED(context, value.reserved))
		return CARD_INVALID(context, value.reserved);
	if (card->fatal && command->value != SPECKV_RESET_CARD)
		return SPECKV_STATUS_NOT_READY;
	switch (command->value) {
	case SPECKV_RESET_ENGINE:
		reset_engine(context);
		return SPECKV_STATUS_OK;
	case SPECKV_RESET_CARD:
		if (card->temperature >= card->config.trip_millicelsius ||
			(card->ops.memory_lost && card->ops.memory_lost(card->arg)))
			return SPECKV_STATUS_NOT_READY; /* the cause persists */
		card->fatal = 0;
		card->reboot_wanted = true;
		card_event(card, SPECKV_CARD_RESET, SPECKV_WARNING, context->function->index, 0,
			SPECKV_RESET_CARD, "card reset");
		return SPECKV_STATUS_OK;
	case SPECKV_RESET_COUNTERS:
		card_statistics_reset(card);
		return SPECKV_STATUS_OK;
	default:
		return CARD_INVALID(context, value.value);
	}
}

/* A stopped card still reports the cause and accepts a reset. */
static bool in_fatal(uint8_t opcode)
{
	return opcode == SPECKV_ADMIN_IDENTIFY || opcode == SPECKV_ADMIN_GET_LOG ||
		opcode == SPECKV_ADMIN_GET_FEATURE || opcode == SPECKV_ADMIN_RESET;
}

uint16_t card_admin(struct card_context *context)
{
	if (context->card->fatal && !in_fatal(context->entry->sqe.opcode))
		return SPECKV_STATUS_NOT_READY;
	switch (context->entry->sqe.opcode) {
	case SPECKV_ADMIN_IDENTIFY:
	case SPECKV_ADMIN_CREATE_POOL:
		return data_command(context);
	case SPECKV_ADMIN_GET_LOG:
		return card_get_log(context);
	case SPECKV_ADMIN_RESIZE_POOL:
		return card_resize_pool(context);
	case SPECKV_ADMIN_DELETE_POOL:
		return card_delete_pool(context);
	case SPECKV_ADMIN_SANITIZE:
		return card_sanitize(context);
	case SPECKV_ADMIN_LOAD_MODEL:
		return card_load_model(context);
	case SPECKV_ADMIN_FW_DOWNLOAD:
	case SPECKV_ADMIN_FW_COMMIT:
	case SPECKV_ADMIN_FW_ACTIVATE:
		return card_firmware(context);
	case SPECKV_ADMIN_SELF_TEST:
		return card_self_test(context);
	case SPECKV_ADMIN_SET_FEATURE:
		return card_set_feature(context);
	case SPECKV_ADMIN_GET_FEATURE:
		return card_get_feature(context);
	case SPECKV_ADMIN_RESET:
		return reset_card(context);
	case SPECKV_ADMIN_GRANT:
		return card_grant(context);
	default:
		return SPECKV_STATUS_INVALID_OPCODE;
	}
}

void speckv_card_info(const struct speckv_card *card, struct speckv_ioc_info *out)
{
	memset(out, 0, sizeof(*out));
	out->map_version = SPECKV_MAP_MAJOR << 16 | SPECKV_MAP_MINOR;
	out->rtl_revision = card_revision(card);
	out->codec_modes = card->engine ? card->config.codec_modes : 0;
	out->memory_bytes = card->layout.pages * SPECKV_CARD_PAGE_BYTES;
	out->memory_free_bytes = card->free_pages * SPECKV_CARD_PAGE_BYTES;
	memcpy(out->uuid, card->config.uuid, sizeof(out->uuid));
	out->sessions = card->config.sessions;
	out->transfer_bytes = card->config.transfer_bytes;
	out->buffers = card->config.buffers_max;
	out->numa_node = -1;
	out->queue_log2_max = CARD_IO_LOG2;
}

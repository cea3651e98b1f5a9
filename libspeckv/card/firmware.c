// SPDX-License-Identifier: MIT
/* FW commands: download, commit and activation of images. */
#include <stdio.h>

#include "card/boot.h"

static bool committed(const struct flash_slot *entry)
{
	return entry->state >= SPECKV_SLOT_STATE_VERIFIED && entry->state <= SPECKV_SLOT_STATE_GOOD;
}

static uint16_t check_command(struct card_context *context, uint8_t flags, bool data)
{
	const struct speckv_cmd_firmware *command = &context->entry->firmware;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET | flags))
		return CARD_INVALID(context, firmware.flags);
	if (CARD_RESERVED(context, firmware.reserved))
		return CARD_INVALID(context, firmware.reserved);
	if (data)
		return SPECKV_STATUS_OK;
	if (CARD_RESERVED(context, firmware.data_address))
		return CARD_INVALID(context, firmware.data_address);
	if (CARD_RESERVED(context, firmware.data_bytes))
		return CARD_INVALID(context, firmware.data_bytes);
	if (CARD_RESERVED(context, firmware.data_crc32c))
		return CARD_INVALID(context, firmware.data_crc32c);
	if (CARD_RESERVED(context, firmware.offset))
		return CARD_INVALID(context, firmware.offset);
	if (CARD_RESERVED(context, firmware.total_bytes))
		return CARD_INVALID(context, firmware.total_bytes);
	return SPECKV_STATUS_OK;
}

static bool updatable(const struct speckv_card *card, unsigned int slot)
{
	return (slot == SPECKV_SLOT_A || slot == SPECKV_SLOT_B) && slot != card->flash.running;
}

/* The contents failed the digest check: download again from the start. */
static bool rotten(const struct flash_slot *entry)
{
	return entry->state == SPECKV_SLOT_STATE_REJECTED &&
		entry->status == SPECKV_STATUS_FW_DIGEST;
}

static uint16_t download(struct card_context *context)
{
	const struct speckv_cmd_firmware *command = &context->entry->firmware;
	struct speckv_card *card = context->card;
	struct flash_state *flash = &card->flash;
	bool known;
	uint16_t status = check_command(context, SPECKV_FW_RESTART, true);

	if (status)
		return status;
	if (!updatable(card, command->slot))
		return SPECKV_STATUS_FW_SLOT;
	if (command->data_address % 64)
		return CARD_INVALID(context, firmware.data_address);
	if (!command->total_bytes || command->total_bytes > card->config.flash_slot_bytes)
		return CARD_INVALID(context, firmware.total_bytes);
	known = !rotten(card_slot(&flash->record, command->slot)) &&
		flash_resume(card, command->slot) &&
		flash->download.bundle_bytes == command->total_bytes &&
		!memcmp(flash->download.bundle_digest, command->digest, 32) &&
		!(command->flags & SPECKV_FW_RESTART);
	if (!command->data_bytes) {
		context->command->result = known ? flash->received : 0;
		return SPECKV_STATUS_OK;
	}
	if (command->offset != (known ? flash->received : 0))
		return SPECKV_STATUS_FW_OFFSET;
	if (command->data_bytes > command->total_bytes - command->offset ||
		command->data_bytes > card->config.transfer_bytes)
		return CARD_INVALID(context, firmware.data_bytes);
	if (card_scratch(card, 0, command->data_bytes))
		return SPECKV_STATUS_NO_MEMORY;
	status = card_data_read(context, command->data_address, card->raw_scratch,
		command->data_bytes);
	if (status)
		return status;
	if (speckv_crc32c(0, card->raw_scratch, command->data_bytes) != command->data_crc32c)
		return CARD_INVALID(context, firmware.data_crc32c);
	if (!known && flash_begin(card, command->slot, command->total_bytes, command->digest))
		return SPECKV_STATUS_FW_FLASH;
	if (flash_receive(card, card->raw_scratch, command->data_bytes))
		return SPECKV_STATUS_FW_FLASH;
	context->command->result = flash->received;
	return SPECKV_STATUS_OK;
}

static uint16_t refuse(struct card_context *context, unsigned int slot, uint16_t status, bool dry)
{
	struct speckv_card *card = context->card;
	struct flash_record record = card->flash.record;

	if (dry)
		return status;
	card_slot(&record, slot)->state = SPECKV_SLOT_STATE_REJECTED;
	card_slot(&record, slot)->status = status;
	flash_store(card, &record);
	card_event(card, SPECKV_CARD_FW_REJECTED, SPECKV_ERROR, context->function->index, 0, status,
		"bundle in slot %c refused (status 0x%x)", slot == SPECKV_SLOT_A ? 'A' : 'B',
		status);
	return status;
}

static uint16_t commit(struct card_context *context)
{
	const struct speckv_cmd_firmware *command = &context->entry->firmware;
	struct speckv_card *card = context->card;
	bool dry = command->flags & SPECKV_FW_DRY_RUN, lowers, again;
	struct flash_record record = card->flash.record;
	struct speckv_bundle_manifest manifest;
	struct speckv_bundle inspected;
	struct flash_slot *entry;
	uint8_t digest[32];
	uint64_t bytes;
	uint16_t status = check_command(context, SPECKV_FW_DRY_RUN, false);

	if (status)
		return status;
	if (!updatable(card, command->slot) || !flash_resume(card, command->slot))
		return SPECKV_STATUS_FW_SLOT;
	if (memcmp(card->flash.download.bundle_digest, command->digest, 32))
		return SPECKV_STATUS_FW_DIGEST;
	bytes = card->flash.download.bundle_bytes;
	if (card->flash.received != bytes)
		return SPECKV_STATUS_FW_OFFSET;
	entry = card_slot(&record, command->slot);
	again = committed(entry);
	if (again && !card_slot_too_old(&record, entry))
		return SPECKV_STATUS_UNCHANGED;
	if (!card_sha256(flash_bundle(card, command->slot), bytes, digest) ||
		memcmp(digest, command->digest, 32))
		return refuse(context, command->slot, SPECKV_STATUS_FW_DIGEST, dry);
	status = card_slot_verify(card, command->slot, bytes, record.security_version, &lowers,
		&manifest);
	if (!status && speckv_bundle_inspect(flash_bundle(card, command->slot), bytes, &inspected))
		status = SPECKV_STATUS_FW_SIGNATURE;
	/* Became too old after its commit: not a defect of the slot. */
	if (status)
		return refuse(context, command->slot, status,
			dry || (again && status == SPECKV_STATUS_FW_DOWNGRADE));
	if (dry)
		return SPECKV_STATUS_OK;
	entry->state = SPECKV_SLOT_STATE_VERIFIED;
	entry->boots = 0;
	entry->status = 0;
	entry->security_version = manifest.security_version;
	entry->lowers = lowers;
	entry->revision = (manifest.rtl_major & 0xffff) << 16 | (manifest.rtl_minor & 0xff) << 8 |
		(manifest.rtl_patch & 0xff);
	memcpy(&entry->build_id, manifest.build_id, sizeof(entry->build_id));
	entry->bundle_bytes = bytes;
	entry->bitstream_bytes = manifest.bitstream_bytes;
	entry->committed_ns = card_wall(card);
	memcpy(entry->bundle_digest, digest, 32);
	memcpy(entry->digest, manifest.bitstream_sha256, 32);
	memcpy(entry->key_digest, inspected.key_id, 32);
	memset(entry->version, 0, sizeof(entry->version));
	snprintf(entry->version, sizeof(entry->version), "%u.%u.%u", manifest.rtl_major & 0xffff,
		manifest.rtl_minor & 0xff, manifest.rtl_patch & 0xff);
	if (flash_store(card, &record))
		return SPECKV_STATUS_FW_FLASH;
	card_event(card, SPECKV_CARD_FW_COMMITTED, SPECKV_INFO, context->function->index, 0,
		command->slot, "revision %s committed to slot %c",
		record.slot[command->slot - SPECKV_SLOT_A].version,
		command->slot == SPECKV_SLOT_A ? 'A' : 'B');
	return SPECKV_STATUS_OK;
}

static uint16_t activate(struct card_context *context)
{
	const struct speckv_cmd_firmware *command = &context->entry->firmware;
	struct speckv_card *card = context->card;
	struct flash_record record = card->flash.record;
	unsigned int slot = command->slot, how = card->config.activation;
	uint16_t status = check_command(context, SPECKV_FW_DRY_RUN, false);

	if (status)
		return status;
	if (slot > SPECKV_SLOT_PREVIOUS)
		return CARD_INVALID(context, firmware.slot);
	if ((slot == SPECKV_SLOT_GOLDEN || slot == SPECKV_SLOT_PREVIOUS) &&
		CARD_RESERVED(context, firmware.digest))
		return CARD_INVALID(context, firmware.digest);
	if (slot == SPECKV_SLOT_PREVIOUS) {
		slot = record.previous;
		if (slot == card->flash.running)
			return SPECKV_STATUS_FW_SLOT;
	}
	if (slot != SPECKV_SLOT_GOLDEN) {
		struct flash_slot *entry = card_slot(&record, slot);

		if (!committed(entry))
			return SPECKV_STATUS_FW_SLOT;
		if (slot == command->slot && memcmp(entry->bundle_digest, command->digest, 32))
			return SPECKV_STATUS_FW_DIGEST;
		if (card_slot_too_old(&record, entry))
			return SPECKV_STATUS_FW_DOWNGRADE;
		if (entry->state == SPECKV_SLOT_STATE_VERIFIED) {
			entry->state = SPECKV_SLOT_STATE_TRIAL;
			entry->boots = 0;
		}
	}
	if (slot == card->flash.running && slot == record.next)
		return SPECKV_STATUS_UNCHANGED;
	if (how == SPECKV_ACTIVATION_DONE && card_slot_has_engine(card, slot) != card->engine)
		how = SPECKV_ACTIVATION_NEEDS_RESCAN;
	context->command->result = how | slot << SPECKV_ACTIVATION_SLOT_SHIFT |
		(card_slot_has_engine(card, slot) ? SPECKV_ACTIVATION_ENGINE : 0);
	if (command->flags & SPECKV_FW_DRY_RUN)
		return SPECKV_STATUS_OK;
	record.next = (uint8_t)slot;
	record.previous = card->flash.running;
	record.fell_back = 0;
	if (flash_store(card, &record))
		return SPECKV_STATUS_FW_FLASH;
	card->reboot_wanted = how == SPECKV_ACTIVATION_DONE;
	card_event(card, SPECKV_CARD_FW_ACTIVATED, SPECKV_INFO, context->function->index, 0, slot,
		"%s boots next",
		slot == SPECKV_SLOT_GOLDEN	? "the golden image"
			: slot == SPECKV_SLOT_A ? "slot A"
						: "slot B");
	return SPECKV_STATUS_OK;
}

uint16_t card_firmware(struct card_context *context)
{
	uint16_t status;

	if (!context->card->config.flash)
		return SPECKV_STATUS_INVALID_OPCODE;
	switch (context->entry->sqe.opcode) {
	case SPECKV_ADMIN_FW_DOWNLOAD:
		status = download(context);
		break;
	case SPECKV_ADMIN_FW_COMMIT:
		status = commit(context);
		break;
	default:
		status = activate(context);
		break;
	}
	card_notify(context->function, SPECKV_REGS__INT_STATUS__FLASH_bm);
	return status;
}

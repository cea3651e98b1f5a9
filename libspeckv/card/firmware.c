// SPDX-License-Identifier: MIT
/*
 * FW commands and booting. The boot record decides which slots may boot; a slot is verified again
 * before every boot: signature by a key of the key slots, part, bitstream, security version
 * (bitstreams/FORMAT.md, section 5). An RTL configuration without a management controller would
 * compare a digest here and report CAPS.flash_signature = 0; this model always verifies signatures.
 */
#include <stdio.h>

#include "bundle/bundle.h"
#include "card/internal.h"

#define TRIALS 2 /* interrupted first boots before an image is rejected */

static uint16_t from_bundle(int rc)
{
	switch (rc) {
	case 0:
		return SPECKV_STATUS_OK;
	case -EXDEV:
	case -EPROTONOSUPPORT:
		return SPECKV_STATUS_FW_PART;
	case -EILSEQ:
		return SPECKV_STATUS_FW_DIGEST;
	case -ENOKEY:
	case -EKEYREJECTED:
		return SPECKV_STATUS_FW_KEY;
	case -ESTALE:
		return SPECKV_STATUS_FW_DOWNGRADE;
	case -ENOMEM:
		return SPECKV_STATUS_INTERNAL;
	default:
		return SPECKV_STATUS_FW_SIGNATURE;
	}
}

/* Verify with all keys, or only with those that may lower the security version. */
static int verify_with(const struct speckv_card *card, unsigned int slot, uint64_t bytes,
	bool downgrade_keys, uint32_t floor, struct speckv_bundle_manifest *manifest)
{
	uint8_t keys[SPECKV_CARD_KEYS][SPECKV_BUNDLE_KEY_BYTES];
	char part[sizeof(card->config.part) + 1] = { 0 };
	struct speckv_bundle_keys policy = {
		.public_keys = keys[0], .security_version = floor, .part = part
	};

	memcpy(part, card->config.part, sizeof(card->config.part));
	for (unsigned int i = 0; i < card->flash.key_count && i < SPECKV_CARD_KEYS; i++)
		if (!downgrade_keys || card->flash.keys[i].downgrade)
			memcpy(keys[policy.count++], card->flash.keys[i].key, sizeof(keys[0]));
	if (!policy.count)
		return -EKEYREJECTED;
	return speckv_bundle_verify(flash_bundle(card, slot), bytes, &policy, manifest);
}

static uint16_t verify(const struct speckv_card *card, unsigned int slot, uint64_t bytes,
	uint32_t floor, bool *lowers, struct speckv_bundle_manifest *manifest)
{
	int rc = verify_with(card, slot, bytes, false, floor, manifest);

	*lowers = false;
	if (rc == -ESTALE) {
		*lowers = !verify_with(card, slot, bytes, true, 0, manifest);
		rc = *lowers ? 0 : -ESTALE;
	}
	if (!rc && manifest->map_major != SPECKV_MAP_MAJOR)
		return SPECKV_STATUS_FW_PART;
	return from_bundle(rc);
}

/* ---- booting -------------------------------------------------------------------------------- */

static struct flash_slot *slot_of(struct flash_record *record, unsigned int slot)
{
	return &record->slot[slot - SPECKV_SLOT_A];
}

/*
 * Is the slot below the card's security version? A key may lower the version once per commit:
 * `lowers` is cleared when the image reports healthy, and when the version rises.
 */
static bool too_old(const struct flash_record *record, const struct flash_slot *entry)
{
	return entry->security_version < record->security_version && !entry->lowers;
}

static bool committed(const struct flash_slot *entry)
{
	return entry->state >= SPECKV_SLOT_STATE_VERIFIED && entry->state <= SPECKV_SLOT_STATE_GOOD;
}

/*
 * A golden image below the card's security version is for recovery only: identification and FW
 * commands, without an engine.
 */
static bool has_engine(const struct speckv_card *card, unsigned int slot)
{
	return slot != SPECKV_SLOT_GOLDEN ||
		(card->config.golden_engine &&
			card->config.golden_security_version >=
				card->flash.record.security_version);
}

/* Does the slot still hold the bundle that was committed? */
uint16_t card_slot_intact(const struct speckv_card *card, unsigned int slot)
{
	const struct flash_slot *entry = &card->flash.record.slot[slot - SPECKV_SLOT_A];
	struct speckv_bundle_manifest manifest;
	uint8_t digest[32];
	bool lowers;

	if (!entry->bundle_bytes || entry->bundle_bytes > card->config.flash_slot_bytes)
		return SPECKV_STATUS_FW_SLOT;
	if (!card_sha256(flash_bundle(card, slot), entry->bundle_bytes, digest) ||
		memcmp(digest, entry->bundle_digest, 32))
		return SPECKV_STATUS_FW_DIGEST;
	return verify(card, slot, entry->bundle_bytes, 0, &lowers, &manifest);
}

/*
 * The image is healthy: write the resulting state and security version. A failed write is repeated
 * at the next boot.
 */
static void healthy(struct speckv_card *card, unsigned int slot)
{
	struct flash_record record = card->flash.record;
	struct flash_slot *entry = slot_of(&record, slot);

	if (entry->state == SPECKV_SLOT_STATE_GOOD &&
		entry->security_version <= record.security_version)
		return;
	/*
	 * Permission to lower V was given for the current V: a rise of V revokes it in both slots.
	 */
	if (entry->security_version > record.security_version)
		slot_of(&record, slot == SPECKV_SLOT_A ? SPECKV_SLOT_B : SPECKV_SLOT_A)->lowers = 0;
	if (entry->lowers || entry->security_version > record.security_version)
		record.security_version = entry->security_version;
	entry->lowers = 0;
	entry->state = SPECKV_SLOT_STATE_GOOD;
	flash_store(card, &record);
}

/* First boot of an image: record the attempt before it and the health after it. 0: it runs. */
static uint16_t trial(struct speckv_card *card, unsigned int slot)
{
	struct flash_record record = card->flash.record;
	struct flash_slot *entry = slot_of(&record, slot);

	if (entry->boots >= TRIALS)
		return SPECKV_STATUS_TIMEOUT;
	entry->boots++;
	if (flash_store(card, &record))
		return SPECKV_STATUS_FW_FLASH;
	if (card->fault.bad_boots) {
		card->fault.bad_boots--;
		return SPECKV_STATUS_TIMEOUT;
	}
	return SPECKV_STATUS_OK;
}

static uint16_t try_slot(struct speckv_card *card, unsigned int slot)
{
	struct flash_slot *entry;
	uint16_t status;

	if (slot == SPECKV_SLOT_GOLDEN)
		return SPECKV_STATUS_OK;
	entry = slot_of(&card->flash.record, slot);
	if (entry->state != SPECKV_SLOT_STATE_GOOD && entry->state != SPECKV_SLOT_STATE_TRIAL)
		return SPECKV_STATUS_FW_SLOT;
	if (too_old(&card->flash.record, entry))
		return SPECKV_STATUS_FW_DOWNGRADE;
	status = card_slot_intact(card, slot);
	if (!status && entry->state == SPECKV_SLOT_STATE_TRIAL)
		status = trial(card, slot);
	if (!status)
		healthy(card, slot);
	return status;
}

static void reject(struct speckv_card *card, struct flash_record *record, unsigned int slot,
	uint16_t status)
{
	if (status != SPECKV_STATUS_FW_DOWNGRADE) { /* not a defect of the slot */
		slot_of(record, slot)->state = SPECKV_SLOT_STATE_REJECTED;
		slot_of(record, slot)->status = status;
	}
	record->fell_back = (uint8_t)slot;
	card_event(card, SPECKV_CARD_FELL_BACK, SPECKV_ERROR, 0, 0, slot,
		"slot %c did not boot (status 0x%x): falling back",
		slot == SPECKV_SLOT_A ? 'A' : 'B', status);
}

static unsigned int choose(struct speckv_card *card)
{
	unsigned int wanted = card->flash.record.next, tries[3];
	struct flash_record record;
	unsigned int booted = SPECKV_SLOT_GOLDEN;

	tries[0] = wanted;
	tries[1] = card->flash.record.previous;
	tries[2] = wanted == SPECKV_SLOT_A ? SPECKV_SLOT_B : SPECKV_SLOT_A;
	for (unsigned int i = 0; i < 3; i++) {
		uint16_t status;

		/* Fall back only to an image that has been healthy, else to golden. */
		if (i &&
			(tries[i] == wanted || tries[i] == SPECKV_SLOT_GOLDEN ||
				slot_of(&card->flash.record, tries[i])->state !=
					SPECKV_SLOT_STATE_GOOD))
			continue;
		status = try_slot(card, tries[i]);
		if (!status) {
			booted = tries[i];
			break;
		}
		record = card->flash.record;
		reject(card, &record, tries[i], status);
		card->flash.record.slot[tries[i] - SPECKV_SLOT_A] = *slot_of(&record, tries[i]);
		card->flash.record.fell_back = record.fell_back;
	}
	if (booted != wanted) {
		record = card->flash.record;
		record.next = (uint8_t)booted;
		record.previous = SPECKV_SLOT_GOLDEN;
		/* If this write fails, the next boot repeats the fallback. */
		flash_store(card, &record);
		card->flash.record.next = (uint8_t)booted;
	}
	return booted;
}

/* Power-on, or a reset of the card: functions start anew, pools stay. */
void card_boot(struct speckv_card *card)
{
	for (unsigned int f = 0; f < card->functions_max; f++)
		if (card->functions[f])
			card_function_reset(card->functions[f]);
	card_stage_clear(card);
	card->prefetch_free_ns = 0;
	card->fatal = 0;
	card->shut_down = false;
	card->reboot_wanted = false;
	card->model_received = 0;
	card->boot_ns = card_now(card);
	memset(card->counters, 0, sizeof(card->counters));
	card->flash.running = SPECKV_SLOT_GOLDEN;
	if (card->config.flash) {
		flash_open(card);
		card->flash.running = (uint8_t)choose(card);
		card->flash.fell_back = card->flash.record.fell_back != 0;
	}
	card->engine = has_engine(card, card->flash.running);
	card_features_reset(card);
	card_event(card, SPECKV_CARD_BOOTED, SPECKV_INFO, 0, 0, card->flash.running,
		"booted %s, revision %u.%u.%u",
		card->flash.running == SPECKV_SLOT_GOLDEN      ? "the golden image"
			: card->flash.running == SPECKV_SLOT_A ? "slot A"
							       : "slot B",
		card_revision(card) >> 16, card_revision(card) >> 8 & 0xff,
		card_revision(card) & 0xff);
	if (card->flash.fell_back)
		card_notify_admins(card, SPECKV_REGS__INT_STATUS__FLASH_bm);
}

/* ---- commands ------------------------------------------------------------------------------- */

static uint16_t check(struct card_context *context, uint8_t flags, bool data)
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
	uint16_t status = check(context, SPECKV_FW_RESTART, true);

	if (status)
		return status;
	if (!updatable(card, command->slot))
		return SPECKV_STATUS_FW_SLOT;
	if (command->data_address % 64)
		return CARD_INVALID(context, firmware.data_address);
	if (!command->total_bytes || command->total_bytes > card->config.flash_slot_bytes)
		return CARD_INVALID(context, firmware.total_bytes);
	known = !rotten(slot_of(&flash->record, command->slot)) &&
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
	slot_of(&record, slot)->state = SPECKV_SLOT_STATE_REJECTED;
	slot_of(&record, slot)->status = status;
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
	uint16_t status = check(context, SPECKV_FW_DRY_RUN, false);

	if (status)
		return status;
	if (!updatable(card, command->slot) || !flash_resume(card, command->slot))
		return SPECKV_STATUS_FW_SLOT;
	if (memcmp(card->flash.download.bundle_digest, command->digest, 32))
		return SPECKV_STATUS_FW_DIGEST;
	bytes = card->flash.download.bundle_bytes;
	if (card->flash.received != bytes)
		return SPECKV_STATUS_FW_OFFSET;
	entry = slot_of(&record, command->slot);
	again = committed(entry);
	if (again && !too_old(&record, entry))
		return SPECKV_STATUS_UNCHANGED;
	if (!card_sha256(flash_bundle(card, command->slot), bytes, digest) ||
		memcmp(digest, command->digest, 32))
		return refuse(context, command->slot, SPECKV_STATUS_FW_DIGEST, dry);
	status = verify(card, command->slot, bytes, record.security_version, &lowers, &manifest);
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
	uint16_t status = check(context, SPECKV_FW_DRY_RUN, false);

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
		struct flash_slot *entry = slot_of(&record, slot);

		if (!committed(entry))
			return SPECKV_STATUS_FW_SLOT;
		if (slot == command->slot && memcmp(entry->bundle_digest, command->digest, 32))
			return SPECKV_STATUS_FW_DIGEST;
		if (too_old(&record, entry))
			return SPECKV_STATUS_FW_DOWNGRADE;
		if (entry->state == SPECKV_SLOT_STATE_VERIFIED) {
			entry->state = SPECKV_SLOT_STATE_TRIAL;
			entry->boots = 0;
		}
	}
	if (slot == card->flash.running && slot == record.next)
		return SPECKV_STATUS_UNCHANGED;
	if (how == SPECKV_ACTIVATION_DONE && has_engine(card, slot) != card->engine)
		how = SPECKV_ACTIVATION_NEEDS_RESCAN;
	context->command->result = how | slot << SPECKV_ACTIVATION_SLOT_SHIFT |
		(has_engine(card, slot) ? SPECKV_ACTIVATION_ENGINE : 0);
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

// SPDX-License-Identifier: MIT
/*
 * Booting. The boot record decides which slots may boot; a slot is verified again before every
 * boot: signature by a key of the key slots, part, bitstream, security version
 * (bitstreams/FORMAT.md, section 5). An RTL configuration without a management controller would
 * compare a digest here and report CAPS.flash_signature = 0; this model always verifies signatures.
 */
#include "card/boot.h"

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

uint16_t card_slot_verify(const struct speckv_card *card, unsigned int slot, uint64_t bytes,
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

bool card_slot_has_engine(const struct speckv_card *card, unsigned int slot)
{
	return slot != SPECKV_SLOT_GOLDEN ||
		(card->config.golden_engine &&
			card->config.golden_security_version >=
				card->flash.record.security_version);
}

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
	return card_slot_verify(card, slot, entry->bundle_bytes, 0, &lowers, &manifest);
}

/*
 * The image is healthy: write the resulting state and security version. A failed write is repeated
 * at the next boot.
 */
static void healthy(struct speckv_card *card, unsigned int slot)
{
	struct flash_record record = card->flash.record;
	struct flash_slot *entry = card_slot(&record, slot);

	if (entry->state == SPECKV_SLOT_STATE_GOOD &&
		entry->security_version <= record.security_version)
		return;
	/*
	 * Permission to lower V was given for the current V: a rise of V revokes it in both slots.
	 */
	if (entry->security_version > record.security_version)
		card_slot(&record, slot == SPECKV_SLOT_A ? SPECKV_SLOT_B : SPECKV_SLOT_A)->lowers =
			0;
	if (entry->lowers || entry->security_version > record.security_version)
		record.security_version = entry->security_version;
	entry->lowers = 0;
	entry->state = SPECKV_SLOT_STATE_GOOD;
	flash_store(card, &record);
}

/* First boot of an image: record the attempt before it and the health after it. 0: it runs. */
static uint16_t run_trial(struct speckv_card *card, unsigned int slot)
{
	struct flash_record record = card->flash.record;
	struct flash_slot *entry = card_slot(&record, slot);

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
	entry = card_slot(&card->flash.record, slot);
	if (entry->state != SPECKV_SLOT_STATE_GOOD && entry->state != SPECKV_SLOT_STATE_TRIAL)
		return SPECKV_STATUS_FW_SLOT;
	if (card_slot_too_old(&card->flash.record, entry))
		return SPECKV_STATUS_FW_DOWNGRADE;
	status = card_slot_intact(card, slot);
	if (!status && entry->state == SPECKV_SLOT_STATE_TRIAL)
		status = run_trial(card, slot);
	if (!status)
		healthy(card, slot);
	return status;
}

static void reject(struct speckv_card *card, struct flash_record *record, unsigned int slot,
	uint16_t status)
{
	if (status != SPECKV_STATUS_FW_DOWNGRADE) { /* not a defect of the slot */
		card_slot(record, slot)->state = SPECKV_SLOT_STATE_REJECTED;
		card_slot(record, slot)->status = status;
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
				card_slot(&card->flash.record, tries[i])->state !=
					SPECKV_SLOT_STATE_GOOD))
			continue;
		status = try_slot(card, tries[i]);
		if (!status) {
			booted = tries[i];
			break;
		}
		record = card->flash.record;
		reject(card, &record, tries[i], status);
		card->flash.record.slot[tries[i] - SPECKV_SLOT_A] = *card_slot(&record, tries[i]);
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

/* Power-on, or a reset of the card: functions are reset, pools stay. */
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
	card->engine = card_slot_has_engine(card, card->flash.running);
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

/* SPDX-License-Identifier: MIT */
/* Slots of the flash and their images: shared by boot.c and firmware.c. */
#ifndef SPECKV_CARD_BOOT_H
#define SPECKV_CARD_BOOT_H

#include "bundle/bundle.h"
#include "card/internal.h"

static inline struct flash_slot *card_slot(struct flash_record *record, unsigned int slot)
{
	return &record->slot[slot - SPECKV_SLOT_A];
}

/*
 * Is the slot below the card's security version, without permission to lower it? A key may permit
 * that once per commit: flash_slot.lowers.
 */
static inline bool card_slot_too_old(const struct flash_record *record,
	const struct flash_slot *entry)
{
	return entry->security_version < record->security_version && !entry->lowers;
}

/*
 * A golden image below the card's security version is for recovery only: identification and FW
 * commands, without an engine.
 */
bool card_slot_has_engine(const struct speckv_card *card, unsigned int slot);
/*
 * Verify the bundle in a slot, with this security version at least. `lowers`: it is below, and a
 * key that may lower the version signed it.
 */
uint16_t card_slot_verify(const struct speckv_card *card, unsigned int slot, uint64_t bytes,
	uint32_t floor, bool *lowers, struct speckv_bundle_manifest *manifest);

#endif

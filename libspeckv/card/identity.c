// SPDX-License-Identifier: MIT
/* Identification of the card, in registers and in IDENTIFY. */
#include "card/internal.h"

uint32_t card_caps(const struct card_function *function)
{
	const struct speckv_card *card = function->card;
	uint32_t caps = SPECKV_CAP_EMULATED | SPECKV_CAP_INJECT | SPECKV_CAP_THERMAL;

	if (function->admin)
		caps |= SPECKV_CAP_ADMIN;
	if (card->engine)
		caps |= SPECKV_CAP_ENGINE | SPECKV_CAP_PREDICTOR | SPECKV_CAP_DIRECTORY;
	if (card->config.flash)
		caps |= SPECKV_CAP_FLASH | SPECKV_CAP_FLASH_SIGNATURE;
	if (function->doorbells != function->own_doorbells)
		caps |= SPECKV_CAP_SHARED_DOORBELL;
	return caps;
}

static const struct flash_slot *running(const struct speckv_card *card)
{
	unsigned int slot = card->flash.running;

	return slot == SPECKV_SLOT_A || slot == SPECKV_SLOT_B
		? &card->flash.record.slot[slot - SPECKV_SLOT_A]
		: NULL;
}

uint32_t card_revision(const struct speckv_card *card)
{
	return running(card) ? running(card)->revision : card->config.golden_revision;
}

uint64_t card_build_id(const struct speckv_card *card)
{
	return running(card) ? running(card)->build_id : 0;
}

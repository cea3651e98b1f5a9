// SPDX-License-Identifier: MIT
/* Values of the card's features: defaults, or saved in flash. */
#include "card/internal.h"

#define FIRST CARD_FEATURE_FIRST
#define LAST CARD_FEATURE_LAST

_Static_assert(LAST - FIRST < FLASH_FEATURES,
	"every feature of the card has its place in the boot record");

uint64_t card_feature(const struct speckv_card *card, unsigned int feature)
{
	return (uint64_t)card->features[feature - FIRST];
}

/* Defaults, overridden by saved values. */
void card_features_reset(struct speckv_card *card)
{
	static const int64_t defaults[FLASH_FEATURES] = {
		[SPECKV_FEATURE_RECALL_TIMEOUT_MS - FIRST] = 1000,
		[SPECKV_FEATURE_POLL_MICROSECONDS - FIRST] = 50,
	};

	memcpy(card->features, defaults, sizeof(defaults));
	card->features[SPECKV_FEATURE_THROTTLE_MILLICELSIUS - FIRST] =
		card->config.throttle_millicelsius;
	for (unsigned int i = 0; i < FLASH_FEATURES; i++)
		if (card->flash.record.features_saved >> i & 1)
			card->features[i] = card->flash.record.features[i];
}

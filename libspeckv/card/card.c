// SPDX-License-Identifier: MIT
/* Power on and off: configuration, recovery, boot. */
#include "card/internal.h"

static void set_defaults(struct speckv_card_config *config)
{
	if (!config->codec_modes)
		config->codec_modes = speckv_codec_modes();
	config->codec_modes &= speckv_codec_modes();
	if (!config->transfer_bytes)
		config->transfer_bytes = 16u << 20;
	if (!config->functions_max)
		config->functions_max = 16;
	if (!config->queue_pairs_max)
		config->queue_pairs_max = 256;
	if (!config->buffers_max)
		config->buffers_max = 1024;
	if (!config->stage_bytes) {
		config->stage_bytes = config->memory_bytes / 16;
		if (config->stage_bytes > 64u << 20)
			config->stage_bytes = 64u << 20;
	}
	config->stage_bytes = config->stage_bytes / SPECKV_CARD_PAGE_BYTES * SPECKV_CARD_PAGE_BYTES;
	/* Sessions of all functions take at most 1/16 of device memory. */
	for (uint32_t n = 1024; !config->sessions; n /= 2)
		if (n == 1 ||
			(uint64_t)n * config->functions_max * sizeof(struct memory_session) <=
				config->memory_bytes / 16)
			config->sessions = n;
	if (!config->throttle_millicelsius)
		config->throttle_millicelsius = 85000;
	if (!config->trip_millicelsius)
		config->trip_millicelsius = 105000;
}

static bool config_valid(const struct speckv_card_ops *ops, const struct speckv_card_config *config)
{
	if (!ops->now_ns || !ops->dma_read || !ops->dma_write || !ops->dma_publish ||
		!ops->interrupt)
		return false;
	if (!config->memory || (uintptr_t)config->memory % 4096 ||
		config->memory_bytes > UINT64_C(1) << 47)
		return false;
	if (config->functions_max > CARD_FUNCTIONS || config->sessions > 1u << 20 ||
		config->activation > SPECKV_ACTIVATION_NEEDS_POWER_CYCLE ||
		config->transfer_bytes > 1u << 30 || config->stage_bytes > config->memory_bytes ||
		config->throttle_millicelsius >= config->trip_millicelsius)
		return false;
	if (!config->flash)
		return true;
	return ops->flash_erase && ops->flash_program && config->flash_slot_bytes &&
		config->flash_slot_bytes % FLASH_SECTOR == 0 &&
		config->flash_slot_bytes <= (uint64_t)(FLASH_SECTOR - FLASH_MARKS) * FLASH_CHUNK &&
		config->flash_bytes >= speckv_card_flash_bytes(config->flash_slot_bytes);
}

static int recover(struct speckv_card *card)
{
	int rc = memory_open(card);

	if (rc)
		return rc;
	card_logs_recover(card);
	card_model_recover(card);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++) {
		struct card_pool *pool = &card->pools[n];

		pool->number = (uint16_t)n;
		if (!pool->present)
			continue;
		rc = card_pool_prepare(card, pool);
		if (rc)
			return rc == -EINVAL ? -EUCLEAN : rc;
		card_directory_recover(card, pool);
	}
	return 0;
}

int speckv_card_create(const struct speckv_card_ops *ops, void *arg,
	const struct speckv_card_config *config, struct speckv_card **out)
{
	struct speckv_card *card;
	int rc;

	card = calloc(1, sizeof(*card));
	if (!card)
		return -ENOMEM;
	card->ops = *ops;
	card->arg = arg;
	card->config = *config;
	set_defaults(&card->config);
	card->functions_max = card->config.functions_max;
	card->memory = card->config.memory;
	card->temperature = 45000;
	rc = config_valid(ops, &card->config) ? recover(card) : -EINVAL;
	if (rc) {
		speckv_card_destroy(card);
		return rc;
	}
	card_boot(card);
	card_statistics_reset(card);
	*out = card;
	return 0;
}

void speckv_card_destroy(struct speckv_card *card)
{
	if (!card)
		return;
	/* Power is off: leave the tables as they are. The next start drops unfinished fills. */
	for (unsigned int f = 0; f < CARD_FUNCTIONS; f++)
		if (card->functions[f])
			card_function_free(card->functions[f]);
	for (unsigned int n = 1; n <= SPECKV_CARD_POOLS; n++)
		free(card->pools[n].holding);
	speckv_predictor_destroy(card->predictor);
	free(card->backed);
	free(card->frame_scratch);
	free(card->raw_scratch);
	free(card);
}

bool speckv_card_rebooted(struct speckv_card *card)
{
	bool rebooted = card->rebooted;

	card->rebooted = false;
	return rebooted;
}

bool speckv_card_has_engine(const struct speckv_card *card)
{
	return card->engine;
}

unsigned int speckv_card_running_slot(const struct speckv_card *card)
{
	return card->flash.running;
}

uint64_t speckv_card_poll_ns(const struct speckv_card *card)
{
	return card_feature(card, SPECKV_FEATURE_POLL_MICROSECONDS) * 1000;
}

// SPDX-License-Identifier: MIT
/* Access to pools: rights of functions and of queue pairs. */
#include "card/internal.h"

/* Revoke every right to a pool and abort the commands on it. */
void card_grants_drop(struct speckv_card *card, unsigned int number)
{
	for (unsigned int f = 0; f < card->functions_max; f++) {
		struct card_function *function = card->functions[f];
		uint8_t all;

		if (!function)
			continue;
		all = function->grant[number].rights;
		function->grant[number].rights = 0;
		for (unsigned int q = 0; q < function->pairs; q++) {
			struct card_queue *queue = &function->pair[q];
			bool had = all | queue->grant[number].rights;

			queue->grant[number].rights = 0;
			if (had)
				card_revoke(function, queue, number);
		}
	}
}

static void take_back(struct card_function *function, struct card_rights *grant, uint8_t rights,
	struct card_queue *queue, unsigned int pool)
{
	bool less = grant->rights & ~rights;

	grant->rights = rights;
	grant->granted++;
	if (!less)
		return;
	if (queue) {
		card_revoke(function, queue, pool);
		return;
	}
	for (unsigned int q = 0; q < function->pairs; q++)
		card_revoke(function, &function->pair[q], pool);
}

uint16_t card_grant(struct card_context *context)
{
	const struct speckv_cmd_grant *command = &context->entry->grant;
	struct speckv_card *card = context->card;
	struct card_function *function;
	struct card_queue *queue = NULL;
	struct card_pool *pool;
	uint16_t status;

	if (command->flags & ~(SPECKV_CMD_FENCE | SPECKV_CMD_QUIET))
		return CARD_INVALID(context, grant.flags);
	if (CARD_RESERVED(context, grant.reserved0))
		return CARD_INVALID(context, grant.reserved0);
	if (CARD_RESERVED(context, grant.reserved1))
		return CARD_INVALID(context, grant.reserved1);
	if (command->rights & ~(SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE))
		return CARD_INVALID(context, grant.rights);
	function = command->function < card->functions_max ? card->functions[command->function]
							   : NULL;
	if (!function)
		return CARD_INVALID(context, grant.function);
	if (command->queue != SPECKV_ALL_QUEUES) {
		if (command->queue >= function->pairs)
			return CARD_INVALID(context, grant.queue);
		queue = &function->pair[command->queue];
	}
	status = card_pool_by_uuid(context, command->pool, command->uuid, &pool);
	if (status)
		return status;
	take_back(function, queue ? &queue->grant[pool->number] : &function->grant[pool->number],
		(uint8_t)command->rights, queue, pool->number);
	return SPECKV_STATUS_OK;
}

int speckv_card_grant(struct speckv_card *card, unsigned int index, unsigned int pool,
	uint32_t rights)
{
	struct card_function *function = index < card->functions_max ? card->functions[index]
								     : NULL;

	if (!function || !pool || pool > SPECKV_CARD_POOLS || !card->pools[pool].present)
		return -ENOENT;
	take_back(function, &function->grant[pool], (uint8_t)rights, NULL, pool);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Functions: one per connection, each with registers, doorbells, queue pairs, rights and sessions of
 * the predictor.
 */
#include "card/internal.h"

static void pairs_disable(struct card_function *function, bool complete)
{
	for (unsigned int q = 0; q < function->pairs; q++) {
		card_queue_disable(function, &function->pair[q], complete);
		function->pair[q].control = 0;
	}
	if (function->admin)
		card_queue_disable(function, &function->admin_queue, complete);
}

/* CONTROL.enable was cleared: commands in flight end ABORTED. */
void card_function_disable(struct card_function *function)
{
	if (function->ready)
		pairs_disable(function, true);
	function->ready = false;
	function->control &= ~SPECKV_REGS__CONTROL__ENABLE_bm;
}

/* Post no completions: the owner of the memory may have changed. */
void card_function_reset(struct card_function *function)
{
	struct speckv_card *card = function->card;

	function->ready = false;
	pairs_disable(function, false);
	for (unsigned int q = 0; q < function->pairs; q++) {
		struct card_queue *queue = &function->pair[q],
				  fresh = { .index = (uint16_t)q, .agent = CARD_AGENTS };

		fresh.waiting = queue->waiting;
		*queue = fresh;
	}
	memset(function->grant, 0, sizeof(function->grant));
	card_sessions_forget(card, function->index);
	function->control = function->shutdown = function->int_status = function->int_enable = 0;
	function->admin_sq_lo = function->admin_sq_hi = function->admin_cq_lo =
		function->admin_cq_hi = function->admin_size = 0;
	function->admin_tail = function->admin_head = 0;
	function->scratch_lo = function->scratch_hi = 0;
	function->fatal = 0;
	function->reset_count++;
	if (!function->admin)
		return;
	if (card->shut_down) {
		card->shut_down = false;
		memory_superblock(card)->clean = 0;
	}
}

void card_function_free(struct card_function *function)
{
	for (unsigned int q = 0; function->pair && q < function->pairs; q++) {
		free(function->pair[q].buffer);
		free(function->pair[q].waiting);
	}
	free(function->admin_queue.waiting);
	free(function->pair);
	free(function->own_doorbells);
	free(function);
}

int speckv_card_function_add(struct speckv_card *card,
	const struct speckv_card_function_config *config)
{
	unsigned int index = 0, pages = (config->queue_pairs + 15u) / 16u;
	struct card_function *function;

	if (config->queue_pairs > 256)
		return -EINVAL;
	while (index < card->functions_max && card->functions[index])
		index++;
	if (index == card->functions_max ||
		card->pairs_used + config->queue_pairs > card->config.queue_pairs_max)
		return -EUSERS;
	function = calloc(1, sizeof(*function));
	if (!function)
		return -ENOMEM;
	function->card = card;
	function->index = (uint16_t)index;
	function->admin = config->admin;
	function->pairs = config->queue_pairs;
	function->admin_queue.index = SPECKV_ALL_QUEUES;
	function->admin_queue.agent = CARD_AGENTS;
	function->pair = calloc(config->queue_pairs + 1u, sizeof(*function->pair));
	function->own_doorbells = calloc(pages + 1u, sizeof(*function->own_doorbells));
	if (!function->pair || !function->own_doorbells) {
		card_function_free(function);
		return -ENOMEM;
	}
	for (unsigned int q = 0; q < function->pairs; q++) {
		function->pair[q].index = (uint16_t)q;
		function->pair[q].agent = CARD_AGENTS;
	}
	function->doorbells = config->doorbells ? config->doorbells : function->own_doorbells;
	function->answers = 1;
	function->user = card_user(card, config->user);
	card->functions[index] = function;
	card->order[card->order_count++] = (uint8_t)index;
	card->pairs_used += function->pairs;
	card_sessions_forget(card, index);
	return (int)index;
}

void speckv_card_function_remove(struct speckv_card *card, unsigned int index)
{
	struct card_function *function = index < card->functions_max ? card->functions[index]
								     : NULL;

	if (!function)
		return;
	/* The shared pages may be unmapped already. */
	function->doorbells = function->own_doorbells;
	card_function_reset(function);
	card->pairs_used -= function->pairs;
	function->user->gone_ns = card_now(card);
	card->functions[index] = NULL;
	for (unsigned int i = 0, n = card->order_count; i < n; i++)
		if (card->order[i] == index) {
			memmove(&card->order[i], &card->order[i + 1], n - i - 1);
			card->order_count--;
			break;
		}
	card_function_free(function);
}

void speckv_card_function_reset(struct speckv_card *card, unsigned int index)
{
	if (index < card->functions_max && card->functions[index])
		card_function_reset(card->functions[index]);
}

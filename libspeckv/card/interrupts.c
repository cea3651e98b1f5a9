// SPDX-License-Identifier: MIT
/* Interrupts of a function, and the bits of INT_STATUS. */
#include "card/internal.h"

void card_interrupt(struct card_function *function, unsigned int vector)
{
	struct speckv_card *card = function->card;

	if (card->fault.lost) {
		card->fault.lost--;
		return;
	}
	card->ops.interrupt(card->arg, function->index, vector);
	if (card->fault.duplicate) {
		card->fault.duplicate--;
		card->ops.interrupt(card->arg, function->index, vector);
	}
}

/* Set bits of INT_STATUS; a newly set bit that is enabled raises vector 0. */
void card_notify(struct card_function *function, uint32_t bits)
{
	uint32_t fresh = bits & ~function->int_status;

	function->int_status |= bits;
	if (fresh & function->int_enable)
		card_interrupt(function, 0);
}

void card_notify_admins(struct speckv_card *card, uint32_t bits)
{
	for (unsigned int i = 0; i < card->functions_max; i++)
		if (card->functions[i] && card->functions[i]->admin)
			card_notify(card->functions[i], bits);
}

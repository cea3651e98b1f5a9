// SPDX-License-Identifier: MIT
/* Shares of the card: recent time spent per function number, and the order of turns. */
#include "card/internal.h"

#define HALVE_NS 4000000u

/* Insertion sort by time spent, least first: the order is almost sorted. */
void card_shares_order(struct speckv_card *card)
{
	for (unsigned int i = 1; i < card->order_count; i++) {
		uint8_t function = card->order[i];
		unsigned int at = i;

		for (; at &&
			card->places[card->order[at - 1]].spent_ns >
				card->places[function].spent_ns;
			at--)
			card->order[at] = card->order[at - 1];
		card->order[at] = function;
	}
}

void card_shares_halve(struct speckv_card *card, uint64_t now)
{
	uint64_t times = (now - card->halved_ns) / HALVE_NS;

	if (!times)
		return;
	card->halved_ns = now;
	for (unsigned int f = 0; f < card->functions_max; f++)
		card->places[f].spent_ns = times < 64 ? card->places[f].spent_ns >> times : 0;
}

void speckv_card_spend(struct speckv_card *card, unsigned int function, uint64_t ns)
{
	if (function < card->functions_max)
		card->places[function].spent_ns += ns;
}

uint64_t speckv_card_spent(const struct speckv_card *card, unsigned int function)
{
	return function < card->functions_max ? card->places[function].spent_ns : 0;
}

// SPDX-License-Identifier: MIT
/* Fatal errors, temperature, and injected faults (tests, `device inject`). */
#include "card/internal.h"

/* Text of the causes in rtl/regs/speckv.rdl. */
static const char *const causes[] = {
	[SPECKV_FATAL_MEMORY] = "device memory that holds tables failed",
	[SPECKV_FATAL_THERMAL] = "its temperature reached the limit",
	[SPECKV_FATAL_DMA] = "a transfer of its own tables failed",
	[SPECKV_FATAL_INTERNAL] = "a consistency check of the engine failed",
	[SPECKV_FATAL_ADMIN_QUEUE] = "the admin queue cannot be reached",
	[SPECKV_FATAL_ADMIN_DOORBELL] = "a wrong value was written to the admin queue's doorbell",
};

/* `function` NULL: the whole card stops. */
void card_fatal(struct speckv_card *card, struct card_function *function, uint8_t cause)
{
	if (function) {
		if (function->fatal)
			return;
		function->fatal = cause;
		function->ready = false;
		card_notify(function, SPECKV_REGS__INT_STATUS__FATAL_bm);
		return;
	}
	if (card->fatal)
		return;
	card->fatal = cause;
	if (cause == SPECKV_FATAL_THERMAL && card->temperature >= card->config.trip_millicelsius)
		card_event(card, SPECKV_CARD_FATAL, SPECKV_ERROR, 0, 0, cause,
			"the card stopped: too hot, %g C (it stops at %g C)",
			card->temperature / 1000.0, card->config.trip_millicelsius / 1000.0);
	else
		card_event(card, SPECKV_CARD_FATAL, SPECKV_ERROR, 0, 0, cause,
			"the card stopped: %s",
			cause < sizeof(causes) / sizeof(causes[0]) && causes[cause]
				? causes[cause]
				: "fatal error");
	for (unsigned int i = 0; i < card->functions_max; i++)
		if (card->functions[i])
			card_notify(card->functions[i], SPECKV_REGS__INT_STATUS__FATAL_bm);
}

static void throttle(struct speckv_card *card, bool on)
{
	if (on == card->throttled)
		return;
	card->throttled = on;
	if (on)
		card->throttled_since_ns = card_now(card);
	else
		card->throttled_ns += card_now(card) - card->throttled_since_ns;
	card_event(card, on ? SPECKV_CARD_THROTTLED : SPECKV_CARD_COOLED,
		on ? SPECKV_WARNING : SPECKV_INFO, 0, 0, (uint64_t)(int64_t)card->temperature,
		"%g C: %s", card->temperature / 1000.0, on ? "slowed down" : "at full speed again");
	card_notify_admins(card, SPECKV_REGS__INT_STATUS__THERMAL_bm);
}

void speckv_card_set_temperature(struct speckv_card *card, int32_t millicelsius)
{
	card->temperature = millicelsius;
	throttle(card,
		millicelsius >= (int32_t)card_feature(card, SPECKV_FEATURE_THROTTLE_MILLICELSIUS));
	if (millicelsius >= card->config.trip_millicelsius && !card->fatal) {
		card_notify_admins(card, SPECKV_REGS__INT_STATUS__THERMAL_bm);
		card_fatal(card, NULL, SPECKV_FATAL_THERMAL);
	}
}

static int poison(struct speckv_card *card, unsigned int number, uint64_t address, bool heal)
{
	struct card_pool *pool;
	uint64_t device;
	uint32_t *entry;

	if (!number || number > SPECKV_CARD_POOLS || !card->pools[number].present)
		return -ENOENT;
	pool = &card->pools[number];
	if (address >= pool->record.description.capacity_bytes)
		return -ENOENT;
	device = (pool->map[address / SPECKV_CARD_PAGE_BYTES] - card->layout.first_page) /
		SPECKV_CARD_PAGE_BYTES;
	if (device >= card->layout.pages)
		return -ENOENT;
	entry = &card->page_map[device];
	if (heal == !(*entry & PAGE_POISON))
		return 0;
	*entry ^= PAGE_POISON;
	if (heal) {
		card->poisoned_pages--;
		return 0;
	}
	card->poisoned_pages++;
	memory_superblock(card)->uncorrected = ++card->uncorrected;
	/* Staged copies are intact, but must not be served any more. */
	card_stage_drop(card, number, address / SPECKV_CARD_PAGE_BYTES * SPECKV_CARD_PAGE_BYTES,
		SPECKV_CARD_PAGE_BYTES);
	card_event(card, SPECKV_CARD_POISONED, SPECKV_ERROR, 0, number, address,
		"page at %llu is poisoned", (unsigned long long)address);
	return 0;
}

static void unstick(struct speckv_card *card)
{
	for (unsigned int f = 0; f < card->functions_max; f++)
		for (unsigned int q = 0; card->functions[f] && q < card->functions[f]->pairs; q++) {
			struct card_queue *queue = &card->functions[f]->pair[q];

			for (unsigned int i = 0; i < queue->waits; i++)
				if (queue->waiting[i].ready_ns == UINT64_MAX)
					queue->waiting[i].ready_ns = 0;
		}
	card->fault.stuck = 0;
}

int speckv_card_inject(struct speckv_card *card, enum speckv_card_fault fault, unsigned int pool,
	uint64_t value, uint32_t count)
{
	switch (fault) {
	case SPECKV_CARD_FAULT_LOST_INTERRUPT:
		card->fault.lost = count;
		return 0;
	case SPECKV_CARD_FAULT_DUPLICATE_INTERRUPT:
		card->fault.duplicate = count;
		return 0;
	case SPECKV_CARD_FAULT_POISON:
		return poison(card, pool, value, !count);
	case SPECKV_CARD_FAULT_CORRECTED:
		card->corrected += count;
		return 0;
	case SPECKV_CARD_FAULT_TORN_PROGRAM:
		card->fault.torn_program = value;
		card->fault.program_torn = true;
		return 0;
	case SPECKV_CARD_FAULT_TORN_ERASE:
		card->fault.torn_erase = value;
		card->fault.erase_torn = true;
		return 0;
	case SPECKV_CARD_FAULT_SLOW:
		card->fault.slow = count;
		card->fault.slow_ns = value;
		card->fault.slow_pool = (uint16_t)pool;
		return 0;
	case SPECKV_CARD_FAULT_STUCK:
		card->fault.stuck = count;
		return 0;
	case SPECKV_CARD_FAULT_UNSTICK:
		unstick(card);
		return 0;
	case SPECKV_CARD_FAULT_LOST_COMPLETION:
		card->fault.unanswered = count;
		return 0;
	case SPECKV_CARD_FAULT_BAD_BOOT:
		card->fault.bad_boots = count;
		return 0;
	case SPECKV_CARD_FAULT_FATAL:
		if (!value || value > SPECKV_FATAL_ADMIN_DOORBELL)
			return -EINVAL;
		card_fatal(card, NULL, (uint8_t)value);
		return 0;
	default:
		return -EINVAL;
	}
}

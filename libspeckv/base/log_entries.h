/* SPDX-License-Identifier: MIT */
/*
 * Entry sizes of a card's logs: what this build writes, and at least reads. For card/ and
 * client/card.
 */
#ifndef SPECKV_BASE_LOG_ENTRIES_H
#define SPECKV_BASE_LOG_ENTRIES_H

#include <stdint.h>

#include <linux/speckv.h> /* the uapi */

/* 0: no such log. */
static inline uint32_t speckv_log_entry_bytes(unsigned int log)
{
	switch (log) {
	case SPECKV_LOG_HEALTH:
		return sizeof(struct speckv_log_health);
	case SPECKV_LOG_ERRORS:
		return sizeof(struct speckv_log_error);
	case SPECKV_LOG_EVENTS:
		return sizeof(struct speckv_log_event);
	case SPECKV_LOG_POOLS:
		return sizeof(struct speckv_pool_description);
	case SPECKV_LOG_FLASH:
		return sizeof(struct speckv_log_slot);
	case SPECKV_LOG_SELF_TEST:
		return sizeof(struct speckv_log_test);
	case SPECKV_LOG_GRANTS:
		return sizeof(struct speckv_log_grant);
	case SPECKV_LOG_COUNTERS:
		return sizeof(struct speckv_log_counters);
	case SPECKV_LOG_BLOCKS:
		return sizeof(struct speckv_log_block);
	default:
		return 0;
	}
}

#endif

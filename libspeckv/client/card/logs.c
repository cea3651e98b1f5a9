// SPDX-License-Identifier: MIT
/* <speckv/card.h>: a card's logs: health, counters, pools, grants, events, errors, slots. */
#include <speckv/card.h>

#include "card.h"
#include "base/base.h"

_Static_assert((int)SPECKV_CONDITION_MEMORY == SPECKV_HEALTH_MEMORY &&
		(int)SPECKV_CONDITION_FATAL == SPECKV_HEALTH_FATAL,
	"conditions are health bits");
_Static_assert(sizeof(struct speckv_stats) == sizeof(struct speckv_log_counters),
	"one shape of statistics");

static int take_health(const struct speckv_log_header *header, const void *entry, void *arg)
{
	(void)header;
	memcpy(arg, entry, sizeof(struct speckv_log_health));
	return 0;
}

int speckv_admin_health(struct speckv_admin *admin, struct speckv_card_health *health)
{
	struct transport_link link;
	struct speckv_log_health log;
	int rc;

	memset(&log, 0, sizeof(log));
	rc = card_log(admin->card, SPECKV_LOG_HEALTH, 0, 0, take_health, &log);
	if (!rc)
		rc = card_link(admin->card, &link);
	if (rc)
		return rc;
	*health = (struct speckv_card_health){
		.temperature_millicelsius = (int32_t)log.temperature_millicelsius,
		.throttle_millicelsius = (int32_t)log.throttle_millicelsius,
		.trip_millicelsius = (int32_t)log.trip_millicelsius,
		.conditions = log.state,
		.uptime_ns = log.uptime_ns,
		.power_cycles = log.power_cycles,
		.unsafe_power_cycles = log.unsafe_power_cycles,
		.corrected_errors = log.corrected_errors,
		.uncorrected_errors = log.uncorrected_errors,
		.poisoned_pages = log.poisoned_pages,
		.throttled_ns = log.throttled_ns,
		.flash_erases = log.flash_erases,
		.outstanding = log.outstanding,
		.link_megatransfers = link.speed,
		.link_lanes = link.lanes,
		.link_megatransfers_most = link.speed_most,
		.link_lanes_most = link.lanes_most,
	};
	return 0;
}

static int take_stats(const struct speckv_log_header *header, const void *entry, void *arg)
{
	(void)header;
	memcpy(arg, entry, sizeof(struct speckv_stats));
	return 0;
}

int speckv_admin_stats(struct speckv_admin *admin, unsigned int pool, struct speckv_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	return card_log(admin->card, SPECKV_LOG_COUNTERS, pool, 0, take_stats, stats);
}

struct named_pool {
	const char *name;
	uint32_t number;
};

static int compare_name(const struct speckv_log_header *header, const void *entry, void *arg)
{
	struct named_pool *wanted = arg;
	struct speckv_pool_description pool;

	(void)header;
	memcpy(&pool, entry, sizeof(pool));
	if (strncmp(pool.name, wanted->name, sizeof(pool.name)) == 0)
		wanted->number = pool.pool;
	return 0;
}

int speckv_admin_pool(struct speckv_admin *admin, const char *name, uint32_t *number)
{
	struct named_pool wanted = { .name = name };
	int rc = card_log(admin->card, SPECKV_LOG_POOLS, 0, 0, compare_name, &wanted);

	*number = wanted.number;
	if (!rc && !wanted.number)
		rc = fail(admin->ctx, -ENOENT,
			"%s has no pool '%.63s'; 'speckvctl pool list %s' shows what it has",
			card_name(admin->card), name, card_name(admin->card));
	return rc;
}

struct relay {
	speckv_card_event_cb event;
	speckv_card_error_cb error;
	speckv_card_slot_cb slot;
	speckv_card_grant_cb grant;
	void *arg;
	unsigned int running;
};

static int relay_grant(const struct speckv_log_header *header, const void *entry, void *arg)
{
	const struct relay *relay = arg;
	struct speckv_card_grant grant = { 0 };
	struct speckv_log_grant log;

	(void)header;
	memcpy(&log, entry, sizeof(log));
	grant.function = log.function;
	grant.queue = log.queue;
	grant.pool = log.pool;
	grant.can_write = !!(log.rights & SPECKV_RIGHT_WRITE);
	return relay->grant(&grant, relay->arg);
}

int speckv_admin_grants(struct speckv_admin *admin, speckv_card_grant_cb cb, void *arg)
{
	struct relay relay = { .grant = cb, .arg = arg };

	return card_log(admin->card, SPECKV_LOG_GRANTS, 0, 0, relay_grant, &relay);
}

static int relay_event(const struct speckv_log_header *header, const void *entry, void *arg)
{
	const struct relay *relay = arg;
	struct speckv_log_event log;
	struct speckv_card_event event = { 0 };

	(void)header;
	memcpy(&log, entry, sizeof(log));
	event.sequence = log.sequence;
	event.time_ns = log.time_ns;
	event.kind = log.kind;
	event.severity = log.severity;
	event.function = log.function;
	event.pool = log.pool;
	event.value = log.value;
	card_text(event.text, sizeof(event.text), log.text, sizeof(log.text));
	return relay->event(&event, relay->arg);
}

int speckv_admin_events(struct speckv_admin *admin, uint64_t after, speckv_card_event_cb cb,
	void *arg)
{
	struct relay relay = { .event = cb, .arg = arg };

	return card_log(admin->card, SPECKV_LOG_EVENTS, 0, after, relay_event, &relay);
}

const char *speckv_card_event_name(unsigned int kind)
{
	static const char *const names[] = {
		[SPECKV_CARD_BOOTED] = "booted",
		[SPECKV_CARD_FELL_BACK] = "fell_back",
		[SPECKV_CARD_RESET] = "reset",
		[SPECKV_CARD_FATAL] = "fatal",
		[SPECKV_CARD_THROTTLED] = "throttled",
		[SPECKV_CARD_COOLED] = "cooled",
		[SPECKV_CARD_POISONED] = "poisoned",
		[SPECKV_CARD_CORRUPT] = "corrupt",
		[SPECKV_CARD_FENCED] = "fenced",
		[SPECKV_CARD_POOL_CREATED] = "pool_created",
		[SPECKV_CARD_POOL_RESIZED] = "pool_resized",
		[SPECKV_CARD_POOL_DELETED] = "pool_deleted",
		[SPECKV_CARD_SANITIZED] = "sanitized",
		[SPECKV_CARD_MODEL_LOADED] = "model_loaded",
		[SPECKV_CARD_MODEL_UNLOADED] = "model_unloaded",
		[SPECKV_CARD_FW_COMMITTED] = "firmware_committed",
		[SPECKV_CARD_FW_REJECTED] = "firmware_rejected",
		[SPECKV_CARD_FW_ACTIVATED] = "firmware_activated",
		[SPECKV_CARD_GUARD_ENGAGED] = "guard_engaged",
		[SPECKV_CARD_GUARD_RELEASED] = "guard_released",
	};

	return kind < sizeof(names) / sizeof(names[0]) ? names[kind] : NULL;
}

static int relay_error(const struct speckv_log_header *header, const void *entry, void *arg)
{
	const struct relay *relay = arg;
	struct speckv_card_error error = { 0 };
	struct speckv_log_error log;

	(void)header;
	memcpy(&log, entry, sizeof(log));
	error.sequence = log.sequence;
	error.time_ns = log.time_ns;
	error.function = log.function;
	error.queue = log.queue;
	error.command_id = log.command_id;
	error.opcode = log.opcode;
	error.pool = log.pool;
	error.field = log.field;
	error.status = log.status;
	error.address = log.address;
	snprintf(error.text, sizeof(error.text), "%s", status_text(log.status));
	return relay->error(&error, relay->arg);
}

int speckv_admin_errors(struct speckv_admin *admin, uint64_t after, speckv_card_error_cb cb,
	void *arg)
{
	struct relay relay = { .error = cb, .arg = arg };

	return card_log(admin->card, SPECKV_LOG_ERRORS, 0, after, relay_error, &relay);
}

static int relay_slot(const struct speckv_log_header *header, const void *entry, void *arg)
{
	const struct relay *relay = arg;
	struct speckv_card_slot slot = { 0 };
	struct speckv_log_slot log;

	(void)header;
	memcpy(&log, entry, sizeof(log));
	slot.image = log.slot;
	slot.state = log.state;
	slot.rtl_major = log.rtl_revision >> 16;
	slot.rtl_minor = log.rtl_revision >> 8 & 0xff;
	slot.rtl_patch = log.rtl_revision & 0xff;
	slot.security_version = log.security_version;
	slot.boots = log.boots;
	slot.running = log.slot == relay->running;
	slot.build_id = log.build_id;
	slot.bitstream_bytes = log.bytes;
	slot.received_bytes = log.received_bytes;
	slot.committed_ns = log.committed_ns;
	memcpy(slot.bitstream_sha256, log.digest, 32);
	memcpy(slot.key_id, log.key_digest, 32);
	if (log.state == SPECKV_IMAGE_REJECTED)
		snprintf(slot.reason, sizeof(slot.reason), "%s", status_text(log.status));
	return relay->slot(&slot, relay->arg);
}

int speckv_admin_slots(struct speckv_admin *admin, speckv_card_slot_cb cb, void *arg)
{
	struct speckv_identify id;
	int rc = card_identify(admin->card, &id); /* the running slot may have changed */
	struct relay relay = { .slot = cb, .arg = arg };

	if (rc)
		return rc;
	relay.running = id.running_slot;
	return card_log(admin->card, SPECKV_LOG_FLASH, 0, 0, relay_slot, &relay);
}

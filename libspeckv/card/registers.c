// SPDX-License-Identifier: MIT
/* BAR0 of one function: rtl/regs/speckv.rdl. */
#include "card/internal.h"

#define OFFSET(member) ((uint32_t)offsetof(speckv_regs_t, member))
#define PAIR_BYTES 0x40
#define AT(member) ((uint32_t)offsetof(speckv_regs__QUEUES__PAIRx__stride40_t, member))
#define INT_ALL 0x7fu
#define CYCLE_NS 4 /* 250 MHz */

static uint32_t status(const struct card_function *function)
{
	const struct speckv_card *card = function->card;
	uint32_t value = 0;

	if (function->ready && !function->fatal && (!card->fatal || function->admin) &&
		!card->shut_down)
		value |= SPECKV_REGS__STATUS__READY_bm;
	if (function->fatal || card->fatal)
		value |= SPECKV_REGS__STATUS__FATAL_bm;
	if (function->shutdown)
		/* DONE: the model shuts down at once */
		value |= 2u << SPECKV_REGS__STATUS__SHUTDOWN_bp;
	if (card->throttled)
		value |= SPECKV_REGS__STATUS__THROTTLED_bm;
	if (card->config.flash && card->flash.record.next != card->flash.running)
		value |= SPECKV_REGS__STATUS__REBOOT_PENDING_bm;
	return value;
}

static uint32_t flash_status(const struct speckv_card *card)
{
	uint32_t value = card->flash.running << SPECKV_REGS__FLASH_STATUS__RUNNING_bp;

	value |= (uint32_t)card->flash.record.next << SPECKV_REGS__FLASH_STATUS__NEXT_bp;
	if (card->flash.fell_back)
		value |= SPECKV_REGS__FLASH_STATUS__FELL_BACK_bm;
	return value;
}

static uint32_t flash_slot(const struct speckv_card *card, unsigned int i)
{
	const struct flash_slot *slot = &card->flash.record.slot[i];

	return slot->state | (slot->revision & 0xffffff00u);
}

/* ---- reading -------------------------------------------------------------------------------- */

static bool admin_only(uint32_t offset)
{
	return offset >= OFFSET(ADMIN_SQ_BASE) && offset <= OFFSET(ADMIN_CQ_HEAD);
}

static uint32_t read_counters(const struct card_function *function, uint32_t offset)
{
	uint64_t value = function->snapshot[(offset - OFFSET(COUNT_CYCLES)) / 8];

	return (uint32_t)(offset & 4 ? value >> 32 : value);
}

static uint32_t read_limits(const struct card_function *function, uint32_t offset)
{
	const struct speckv_card *card = function->card;
	const struct speckv_card_config *config = &card->config;
	uint64_t bytes = card->layout.pages * SPECKV_CARD_PAGE_BYTES;

	switch (offset) {
	case OFFSET(LIMIT_QUEUES):
		return function->pairs |
			(uint32_t)((function->pairs + 15) / 16)
			<< SPECKV_REGS__LIMIT_QUEUES__PAGES_bp;
	case OFFSET(LIMIT_ENTRIES):
		return CARD_IO_LOG2 | CARD_ADMIN_LOG2 << SPECKV_REGS__LIMIT_ENTRIES__ADMIN_bp;
	case OFFSET(LIMIT_POOLS):
		return SPECKV_CARD_POOLS | 8u << SPECKV_REGS__LIMIT_POOLS__PAGE_LOG2_MIN_bp |
			16u << SPECKV_REGS__LIMIT_POOLS__PAGE_LOG2_MAX_bp;
	case OFFSET(LIMIT_SESSIONS):
		return config->sessions;
	case OFFSET(LIMIT_TRANSFER):
		return config->transfer_bytes;
	case OFFSET(LIMIT_BUFFERS):
		return config->buffers_max;
	case OFFSET(FUNCTION):
		return function->index;
	case OFFSET(MEMORY_BYTES.LO):
		return (uint32_t)bytes;
	default:
		return (uint32_t)(bytes >> 32);
	}
}

static uint32_t read_control(const struct card_function *function, uint32_t offset)
{
	const struct speckv_card *card = function->card;

	switch (offset) {
	case OFFSET(MAGIC):
		return SPECKV_MAGIC;
	case OFFSET(MAP_VERSION):
		return SPECKV_MAP_MAJOR << 16 | SPECKV_MAP_MINOR;
	case OFFSET(RTL_REVISION):
		return card_revision(card);
	case OFFSET(CAPS):
		return card_caps(function);
	case OFFSET(BUILD_ID.LO):
		return (uint32_t)card_build_id(card);
	case OFFSET(BUILD_ID.HI):
		return (uint32_t)(card_build_id(card) >> 32);
	case OFFSET(CODEC_MODES):
		return card->engine ? card->config.codec_modes : 0;
	case OFFSET(CONTROL):
		return function->control;
	case OFFSET(STATUS):
		return status(function);
	case OFFSET(FATAL_CAUSE):
		return function->fatal ? function->fatal : card->fatal;
	case OFFSET(RESET_COUNT):
		return function->reset_count;
	case OFFSET(INT_STATUS):
		return function->int_status;
	case OFFSET(INT_ENABLE):
		return function->int_enable;
	case OFFSET(ADMIN_SQ_BASE.LO):
		return function->admin_sq_lo;
	case OFFSET(ADMIN_SQ_BASE.HI):
		return function->admin_sq_hi;
	case OFFSET(ADMIN_CQ_BASE.LO):
		return function->admin_cq_lo;
	case OFFSET(ADMIN_CQ_BASE.HI):
		return function->admin_cq_hi;
	case OFFSET(ADMIN_SIZE):
		return function->admin_size;
	case OFFSET(ADMIN_SQ_TAIL):
		return function->admin_tail;
	case OFFSET(ADMIN_CQ_HEAD):
		return function->admin_head;
	case OFFSET(HEALTH_TEMPERATURE):
		return (uint32_t)card->temperature;
	case OFFSET(HEALTH_THROTTLE):
		return (uint32_t)card_feature(card, SPECKV_FEATURE_THROTTLE_MILLICELSIUS);
	case OFFSET(HEALTH_TRIP):
		return (uint32_t)card->config.trip_millicelsius;
	case OFFSET(HEALTH_CORRECTED):
		return card->corrected > UINT32_MAX ? UINT32_MAX : (uint32_t)card->corrected;
	case OFFSET(HEALTH_UNCORRECTED):
		return card->uncorrected > UINT32_MAX ? UINT32_MAX : (uint32_t)card->uncorrected;
	case OFFSET(FLASH_STATUS):
		return flash_status(card);
	case OFFSET(FLASH_SLOT[0]):
		return flash_slot(card, 0);
	case OFFSET(FLASH_SLOT[1]):
		return flash_slot(card, 1);
	case OFFSET(FLASH_SECURITY):
		return card->flash.record.security_version;
	case OFFSET(SCRATCH.LO):
		return function->scratch_lo;
	case OFFSET(SCRATCH.HI):
		return function->scratch_hi;
	default:
		return 0;
	}
}

static uint32_t read_pair(struct card_queue *queue, uint32_t offset)
{
	switch (offset) {
	case AT(SQ_BASE.LO):
		return queue->sq_lo;
	case AT(SQ_BASE.HI):
		return queue->sq_hi;
	case AT(CQ_BASE.LO):
		return queue->cq_lo;
	case AT(CQ_BASE.HI):
		return queue->cq_hi;
	case AT(BUFFER_TABLE.LO):
		return queue->table_lo;
	case AT(BUFFER_TABLE.HI):
		return queue->table_hi;
	case AT(BUFFER_COUNT):
		return queue->buffer_count;
	case AT(BUFFER_INVALIDATE):
		if (queue->invalidate >> 31 &&
			!card_buffer_busy(queue, (uint16_t)queue->invalidate))
			queue->invalidate &= 0xffff;
		return queue->invalidate;
	case AT(SIZE):
		return queue->size;
	case AT(CONTROL):
		return queue->control;
	case AT(STATUS):
		return (uint32_t)queue->state | (uint32_t)queue->status << 16;
	default:
		return 0;
	}
}

static __le32 *doorbell_register(struct card_function *function, uint32_t offset)
{
	uint32_t page = (offset - OFFSET(DOORBELLS)) / 4096, in_page = offset % 4096,
		 slot = in_page / 64;
	struct speckv_doorbell *doorbell;

	if (in_page >= 1024 || page * SPECKV_DOORBELL_SLOTS + slot >= function->pairs ||
		in_page % 64 > 4)
		return NULL;
	doorbell = &function->doorbells[page].slot[slot];
	return in_page % 64 ? &doorbell->cq_head : &doorbell->sq_tail;
}

static struct card_function *function_at(const struct speckv_card *card, unsigned int index)
{
	return index < card->functions_max ? card->functions[index] : NULL;
}

uint32_t speckv_card_read32(struct speckv_card *card, unsigned int index, uint32_t offset)
{
	struct card_function *function = function_at(card, index);
	__le32 *doorbell;

	if (!function || offset % 4 || offset >= SPECKV_CARD_BAR0_BYTES)
		return 0;
	if (offset >= OFFSET(DOORBELLS)) {
		doorbell = doorbell_register(function, offset);
		if (doorbell)
			return __atomic_load_n(doorbell, __ATOMIC_RELAXED) & 0xffff;
		if (offset % 4096 == offsetof(struct speckv_doorbell_page, need_wake) &&
			(offset - OFFSET(DOORBELLS)) / 4096 * SPECKV_DOORBELL_SLOTS <
				function->pairs)
			return __atomic_load_n(
				       &function->doorbells[(offset - OFFSET(DOORBELLS)) / 4096]
					       .need_wake,
				       __ATOMIC_RELAXED) &
				1;
		return 0;
	}
	if (offset >= OFFSET(QUEUES)) {
		uint32_t pair = (offset - OFFSET(QUEUES)) / PAIR_BYTES;

		return pair < function->pairs
			? read_pair(&function->pair[pair], offset % PAIR_BYTES)
			: 0;
	}
	if (admin_only(offset) && !function->admin)
		return 0;
	if (offset >= OFFSET(COUNT_CYCLES) && offset < OFFSET(COUNT_RECALLS) + 8)
		return read_counters(function, offset);
	if (offset >= OFFSET(UUID) && offset < OFFSET(UUID) + 16) {
		uint32_t word;

		memcpy(&word, card->config.uuid + (offset - OFFSET(UUID)), sizeof(word));
		return word;
	}
	if (offset >= OFFSET(LIMIT_QUEUES) && offset < OFFSET(UUID))
		return read_limits(function, offset);
	return read_control(function, offset);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void set_enable(struct card_function *function, bool enable)
{
	struct speckv_card *card = function->card;
	struct card_queue *queue = &function->admin_queue;

	if (!enable) {
		card_function_disable(function);
		return;
	}
	/* The admin function can be enabled on a stopped card, to read the cause. */
	if (function->ready || function->fatal || (card->fatal && !function->admin) ||
		card->shut_down)
		return;
	if (function->admin) {
		queue->sq_lo = function->admin_sq_lo;
		queue->sq_hi = function->admin_sq_hi;
		queue->cq_lo = function->admin_cq_lo;
		queue->cq_hi = function->admin_cq_hi;
		queue->size = function->admin_size & 0xfff;
		card_queue_enable(function, queue);
		if (queue->state != QUEUE_ENABLED)
			return;
	}
	function->ready = true;
}

static void shut_down(struct card_function *function)
{
	struct speckv_card *card = function->card;

	for (unsigned int i = 0; i < card->functions_max; i++)
		if (card->functions[i])
			card_function_disable(card->functions[i]);
	if (card->ops.memory_sync && card->ops.memory_sync(card->arg)) {
		card_fatal(card, NULL, SPECKV_FATAL_MEMORY);
		return;
	}
	memory_superblock(card)->clean = 1;
	if (card->ops.memory_sync)
		card->ops.memory_sync(card->arg);
	card->shut_down = true;
	function->shutdown = 1;
}

static void write_control(struct card_function *function, uint32_t value)
{
	uint32_t keep = SPECKV_REGS__CONTROL__ENABLE_bm |
		(function->admin ? SPECKV_REGS__CONTROL__SHUTDOWN_bm : 0);
	uint32_t changed;

	if (value & SPECKV_REGS__CONTROL__RESET_bm) {
		card_function_reset(function);
		return;
	}
	value &= keep;
	changed = function->control ^ value;
	function->control = value;
	if (changed & SPECKV_REGS__CONTROL__ENABLE_bm)
		set_enable(function, value & SPECKV_REGS__CONTROL__ENABLE_bm);
	if (changed & value & SPECKV_REGS__CONTROL__SHUTDOWN_bm)
		shut_down(function);
}

static void write_snapshot(struct card_function *function)
{
	const struct speckv_card *card = function->card;
	/* An unprivileged function reads only its own counters. */
	const uint64_t *counters = function->admin ? card->counters : function->counters;

	function->snapshot[0] = (card_now(card) - card->boot_ns) / CYCLE_NS;
	memcpy(function->snapshot + 1, counters, sizeof(card->counters));
}

static void write_admin(struct card_function *function, uint32_t offset, uint32_t value)
{
	uint32_t entries = offset == OFFSET(ADMIN_SQ_TAIL) ? function->admin_queue.sq_entries
							   : function->admin_queue.cq_entries;

	switch (offset) {
	case OFFSET(ADMIN_SQ_BASE.LO):
		function->admin_sq_lo = value;
		break;
	case OFFSET(ADMIN_SQ_BASE.HI):
		function->admin_sq_hi = value;
		break;
	case OFFSET(ADMIN_CQ_BASE.LO):
		function->admin_cq_lo = value;
		break;
	case OFFSET(ADMIN_CQ_BASE.HI):
		function->admin_cq_hi = value;
		break;
	case OFFSET(ADMIN_SIZE):
		function->admin_size = value & 0xf0f;
		break;
	case OFFSET(ADMIN_SQ_TAIL):
	case OFFSET(ADMIN_CQ_HEAD):
		if (!function->ready)
			break;
		if (value >= entries)
			card_fatal(function->card, function, SPECKV_FATAL_ADMIN_DOORBELL);
		else if (offset == OFFSET(ADMIN_SQ_TAIL))
			function->admin_tail = value;
		else
			function->admin_head = value;
		break;
	default:
		break;
	}
}

static void write_pair(struct card_function *function, struct card_queue *queue, uint32_t offset,
	uint32_t value)
{
	bool enable = value & 1;

	switch (offset) {
	case AT(SQ_BASE.LO):
		queue->sq_lo = value;
		break;
	case AT(SQ_BASE.HI):
		queue->sq_hi = value;
		break;
	case AT(CQ_BASE.LO):
		queue->cq_lo = value;
		break;
	case AT(CQ_BASE.HI):
		queue->cq_hi = value;
		break;
	case AT(BUFFER_TABLE.LO):
		queue->table_lo = value;
		break;
	case AT(BUFFER_TABLE.HI):
		queue->table_hi = value;
		break;
	case AT(BUFFER_COUNT):
		queue->buffer_count = value & 0xffff;
		break;
	case AT(BUFFER_INVALIDATE):
		if (value >> 31)
			card_buffer_forget(queue, (uint16_t)value);
		queue->invalidate = value & 0x8000ffffu;
		break;
	case AT(SIZE):
		queue->size = value & 0x87ff0f0fu;
		break;
	case AT(CONTROL):
		if (enable == (queue->control & 1))
			break;
		queue->control = enable;
		if (enable)
			card_queue_enable(function, queue);
		else
			card_queue_disable(function, queue, true);
		break;
	default:
		break;
	}
}

static void write_interrupts(struct card_function *function, uint32_t offset, uint32_t value)
{
	uint32_t fresh = value & INT_ALL & ~function->int_enable;

	switch (offset) {
	case OFFSET(INT_STATUS):
		function->int_status &= ~value;
		break;
	case OFFSET(INT_ENABLE):
		function->int_enable = value & INT_ALL;
		if (fresh & function->int_status)
			card_interrupt(function, 0);
		break;
	case OFFSET(INT_TEST):
		card_notify(function, value & INT_ALL);
		break;
	default:
		break;
	}
}

void speckv_card_write32(struct speckv_card *card, unsigned int index, uint32_t offset,
	uint32_t value)
{
	struct card_function *function = function_at(card, index);
	__le32 *doorbell;

	if (!function || offset % 4 || offset >= SPECKV_CARD_BAR0_BYTES)
		return;
	if (offset >= OFFSET(DOORBELLS)) {
		doorbell = doorbell_register(function, offset);
		if (doorbell)
			__atomic_store_n(doorbell, value, __ATOMIC_RELEASE);
		return;
	}
	if (offset >= OFFSET(QUEUES)) {
		uint32_t pair = (offset - OFFSET(QUEUES)) / PAIR_BYTES;

		if (pair < function->pairs)
			write_pair(function, &function->pair[pair], offset % PAIR_BYTES, value);
		return;
	}
	if (admin_only(offset)) {
		if (function->admin)
			write_admin(function, offset, value);
		return;
	}
	switch (offset) {
	case OFFSET(CONTROL):
		write_control(function, value);
		break;
	case OFFSET(KICK):
		speckv_card_wake(card);
		break;
	case OFFSET(COUNTER_CONTROL):
		if (value & 1)
			write_snapshot(function);
		break;
	case OFFSET(SCRATCH.LO):
		function->scratch_lo = value;
		break;
	case OFFSET(SCRATCH.HI):
		function->scratch_hi = value;
		break;
	default:
		write_interrupts(function, offset, value);
		break;
	}
}

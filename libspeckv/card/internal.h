/* SPDX-License-Identifier: MIT */
/*
 * Declarations shared by the sources of the card model. MEMORY.md describes the layout of device
 * memory and flash.
 */
#ifndef SPECKV_CARD_INTERNAL_H
#define SPECKV_CARD_INTERNAL_H

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <speckv_regs.h>

#include "card/state.h"

#define CARD_WAIT 0xffff /* not a status: the command is not finished */
#define CARD_NO_FIELD 0xffffffffu

/* Context in which a command runs. */
struct card_context {
	struct speckv_card *card;
	struct card_function *function;
	struct card_queue *queue;
	struct card_command *command;
	union card_entry *entry;
};

static inline uint64_t card_now(const struct speckv_card *card)
{
	return card->ops.now_ns(card->arg);
}

static inline uint64_t card_wall(const struct speckv_card *card)
{
	return card->ops.wall_ns ? card->ops.wall_ns(card->arg) : card_now(card);
}

/* Offset of a field in the entry, for the error log. */
#define CARD_FIELD(context, member) \
	((uint32_t)((const uint8_t *)&(context)->entry->member - (context)->entry->bytes))
#define CARD_INVALID(context, member) card_invalid(context, CARD_FIELD(context, member))

static inline uint16_t card_invalid(struct card_context *context, uint32_t field)
{
	context->command->field = field;
	return SPECKV_STATUS_INVALID;
}

static inline uint16_t card_at(struct card_context *context, uint64_t address, uint16_t status)
{
	context->command->address = address;
	return status;
}

static inline bool card_zero(const void *at, size_t bytes)
{
	const uint8_t *byte = at;
	uint8_t any = 0;

	for (size_t i = 0; i < bytes; i++)
		any |= byte[i];
	return !any;
}
/* Reserved members must be zero. */
#define CARD_RESERVED(context, member) \
	(!card_zero(&(context)->entry->member, sizeof((context)->entry->member)))

/* interrupts.c */
void card_interrupt(struct card_function *function, unsigned int vector);
void card_notify(struct card_function *function, uint32_t bits);
void card_notify_admins(struct speckv_card *card, uint32_t bits);

/* faults.c */
void card_fatal(struct speckv_card *card, struct card_function *function, uint8_t cause);

/* identity.c */
uint32_t card_caps(const struct card_function *function);
uint32_t card_revision(const struct speckv_card *card);
uint64_t card_build_id(const struct speckv_card *card);

/* functions.c */
void card_function_reset(struct card_function *function);
void card_function_disable(struct card_function *function);
void card_function_free(struct card_function *function);

/* queues.c */
void card_queue_enable(struct card_function *function, struct card_queue *queue);
void card_queue_disable(struct card_function *function, struct card_queue *queue, bool complete);
void card_queue_fence(struct speckv_card *card, unsigned int agent);
void card_queue_fail(struct card_function *function, struct card_queue *queue, uint16_t status);
struct speckv_doorbell *card_doorbell(struct card_function *function,
	const struct card_queue *queue);
bool card_buffer_busy(const struct card_queue *queue, uint16_t index);
/* Post a notice. False: no room, try again later. */
bool card_notice(struct card_function *function, struct card_queue *queue, uint16_t notice,
	uint64_t result);
void card_revoke(struct card_function *function, struct card_queue *queue, unsigned int pool);
void card_abort_pool(struct speckv_card *card, unsigned int pool, uint16_t status);
static inline bool card_queue_is_admin(const struct card_queue *queue)
{
	return queue->index == SPECKV_ALL_QUEUES;
}
uint32_t card_queue_tail(struct card_function *function, const struct card_queue *queue);
/* Free completion entries. An invalid head fails the queue pair. */
uint32_t card_queue_room(struct card_function *function, struct card_queue *queue);
void card_queue_signal(struct card_function *function, struct card_queue *queue);
/* Drop a command in flight, by its index. */
void card_queue_remove(struct card_queue *queue, unsigned int place);
/* Post the completion of a command. */
void card_command_end(struct card_context *context, uint16_t status);

/*
 * Identifies the command that owns a transfer from host memory: ids are unique per queue pair.
 * Never 0.
 */
static inline uint64_t card_transfer(const struct card_queue *queue, uint16_t id)
{
	return UINT64_C(1) << 32 | (uint64_t)queue->index << 16 | id;
}

/* run.c */
/* I/O commands submitted but not completed, of all functions. */
uint32_t card_outstanding(struct speckv_card *card);

/* shares.c */
void card_shares_order(struct speckv_card *card);
void card_shares_halve(struct speckv_card *card, uint64_t now);

/*
 * buffers.c: host memory, registered buffers and admin data. Return a status; CARD_WAIT: not
 * available yet.
 */
int card_dma_read(struct card_function *function, struct card_queue *queue, uint16_t id,
	uint64_t address, void *to, uint64_t bytes);
/* The command `id` of a queue pair has ended or, if `all`, any command of it: end its transfer. */
void card_dma_end(struct card_function *function, const struct card_queue *queue, uint16_t id,
	bool all);
uint16_t card_buffer_find(struct card_context *context, uint16_t index, uint64_t offset,
	uint64_t bytes, uint32_t rights, uint64_t *address);
uint16_t card_buffer_read(struct card_context *context, uint16_t index, uint64_t offset, void *to,
	uint64_t bytes);
uint16_t card_buffer_write(struct card_context *context, uint16_t index, uint64_t offset,
	const void *from, uint64_t bytes);
void card_buffer_forget(struct card_queue *queue, uint16_t index);
uint8_t *card_buffer_direct(struct card_context *context, uint16_t index, uint64_t offset,
	uint64_t bytes, bool write, uint16_t *status);
uint16_t card_data_read(struct card_context *context, uint64_t address, void *to, uint64_t bytes);
uint16_t card_data_write(struct card_context *context, uint64_t address, const void *from,
	uint64_t bytes);

/* io.c, admin.c: run one command. CARD_WAIT: run it again later. */
uint16_t card_io(struct card_context *context);
uint16_t card_admin(struct card_context *context);

/* write.c, frames.c */
uint16_t card_write(struct card_context *context);
uint16_t card_copy(struct card_context *context);
uint16_t card_read(struct card_context *context);
uint16_t card_prefetch(struct card_context *context);
/*
 * Look up a sealed frame and check its identity; key_prefix NULL: any key. `frame` is in device
 * memory or in scratch memory.
 */
uint16_t card_frame_find(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, const uint8_t *key_prefix, struct card_block **block,
	const uint8_t **frame, struct speckv_frame *parsed);
/* Apply the pool's bandwidth limit: CARD_WAIT until the command may start. */
uint16_t card_bandwidth(struct card_context *context, struct card_pool *pool, uint64_t bytes);
uint16_t card_frame_damaged(struct card_context *context, struct card_pool *pool, uint64_t address);
/*
 * Decode a frame into the card's staging memory. `staged`: its raw bytes, 0 if it could not be
 * staged now.
 */
uint16_t card_stage_frame(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, const uint8_t *key_prefix, uint16_t layer_first, uint16_t layer_count,
	uint64_t *staged);

/* stage.c: decoded, prefetched blocks in device memory */
const struct card_stage *card_stage_find(struct speckv_card *card, unsigned int pool,
	uint64_t address, uint64_t generation, uint16_t layer_first, uint16_t layer_count);
const uint8_t *card_stage_use(struct card_context *context, const struct card_stage *stage);
uint8_t *card_stage_begin(struct speckv_card *card, uint64_t bytes);
void card_stage_end(struct card_context *context, unsigned int pool, uint64_t address,
	uint64_t generation, uint16_t layer_first, uint16_t layer_count, uint64_t bytes);
void card_stage_drop(struct speckv_card *card, unsigned int pool, uint64_t address, uint64_t bytes);
void card_stage_clear(struct speckv_card *card);
bool card_stage_budget(struct speckv_card *card, uint64_t bytes);

/* memory.c */
void card_tlb_flush(struct speckv_card *card, unsigned int pool);

/* translate.c: pool-virtual addresses. `fault`: the first address that failed. Statuses. */
uint16_t card_map(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t bytes, uint8_t **contiguous);
uint16_t card_memory_read(struct card_context *context, struct card_pool *pool, uint64_t address,
	void *to, uint64_t bytes);
uint16_t card_memory_write(struct card_context *context, struct card_pool *pool, uint64_t address,
	const void *from, uint64_t bytes);
uint16_t card_pool_find(struct card_context *context, unsigned int number, uint32_t right,
	struct card_pool **out);

/* directory.c: blocks and their holders */
struct card_block *card_block_at(struct card_pool *pool, uint64_t address);
uint16_t card_block_find(struct card_context *context, struct card_pool *pool, uint64_t address,
	uint64_t generation, struct card_block **out);
bool card_run_free(const struct card_pool *pool, uint64_t address, uint64_t bytes,
	uint16_t *status);
void card_block_publish(struct speckv_card *card, struct card_pool *pool, uint64_t address,
	uint64_t generation, uint64_t bytes);
void card_block_free(struct speckv_card *card, struct card_pool *pool, struct card_block *block);
void card_agent_drop(struct speckv_card *card, struct card_queue *queue, unsigned int pool);
void card_directory_recover(struct speckv_card *card, struct card_pool *pool);
uint16_t card_acquire(struct card_context *context);
uint16_t card_writeback(struct card_context *context);

/* invalidate.c */
uint16_t card_invalidate(struct card_context *context);
/* Retry the recalls that a queue pair had no room for, in bounded steps. */
void card_recall_again(struct card_function *function, struct card_queue *queue);

/* predictor.c */
uint16_t card_touch(struct card_context *context);
uint16_t card_predict(struct card_context *context);
void card_sessions_forget(struct speckv_card *card, unsigned int function);
uint32_t card_predictor_test(struct speckv_card *card);
/* Maximum number of blocks that one PREDICT may stage. */
uint32_t card_depth(const struct speckv_card *card, const struct card_pool *pool);

/* model.c, digest.c */
uint16_t card_load_model(struct card_context *context);
bool card_model_intact(const struct speckv_card *card);
const uint8_t *card_model(const struct speckv_card *card, uint64_t *bytes);
void card_model_unload(struct speckv_card *card);
void card_model_recover(struct speckv_card *card);
bool card_sha256(const void *bytes, uint64_t n, uint8_t out[32]);

/* pools.c */
uint16_t card_create_pool(struct card_context *context);
uint16_t card_resize_pool(struct card_context *context);
uint16_t card_delete_pool(struct card_context *context);
uint16_t card_sanitize(struct card_context *context);
uint16_t card_pool_by_uuid(struct card_context *context, unsigned int number, const uint8_t *uuid,
	struct card_pool **out);
void card_pool_describe(const struct card_pool *pool, struct speckv_pool_description *out);
int card_pool_prepare(struct speckv_card *card, struct card_pool *pool);
int card_scratch(struct speckv_card *card, uint64_t frame_bytes, uint64_t raw_bytes);

/* grants.c */
uint16_t card_grant(struct card_context *context);
void card_grants_drop(struct speckv_card *card, unsigned int pool);

/* logs.c, get_log.c */
void card_event(struct speckv_card *card, uint16_t kind, uint16_t severity, unsigned int function,
	unsigned int pool, uint64_t value, const char *format, ...)
	__attribute__((format(printf, 7, 8)));
/*
 * Log an event caused by an I/O command, within the quota of the function's user; drop it beyond.
 */
void card_event_by(struct card_function *function, uint16_t kind, uint16_t severity,
	unsigned int pool, uint64_t value, const char *format, ...)
	__attribute__((format(printf, 6, 7)));
struct card_user *card_user(struct speckv_card *card, uint32_t number);
void card_error(struct card_context *context, uint16_t status);
/* "256 MiB", "1.5 GiB", "300 bytes" */
#define CARD_SIZE_TEXT 32
const char *card_size(char text[CARD_SIZE_TEXT], uint64_t bytes);
uint16_t card_get_log(struct card_context *context);
void card_statistics_clear(struct speckv_card *card, struct card_statistics *statistics);
void card_statistics_reset(struct speckv_card *card);
void card_count(struct card_context *context, enum card_counter counter, uint64_t n);
void card_tally(struct speckv_card *card, struct card_pool *pool, unsigned int counter, uint64_t n);
void card_latency(struct speckv_card *card, struct card_pool *pool, unsigned int histogram,
	uint64_t ns);
void card_logs_recover(struct speckv_card *card);
void card_logs_clear(struct speckv_card *card);

/* features.c, settings.c, selftest.c */
/* features of the card, not of a pool */
#define CARD_FEATURE_FIRST SPECKV_FEATURE_THROTTLE_MILLICELSIUS
#define CARD_FEATURE_LAST SPECKV_FEATURE_POLL_MICROSECONDS
uint16_t card_set_feature(struct card_context *context);
uint16_t card_get_feature(struct card_context *context);
void card_features_reset(struct speckv_card *card);
uint64_t card_feature(const struct speckv_card *card, unsigned int feature);
uint16_t card_self_test(struct card_context *context);

/* firmware.c, boot.c */
uint16_t card_firmware(struct card_context *context);
void card_boot(struct speckv_card *card);
/* Does the slot still hold the bundle that was committed? */
uint16_t card_slot_intact(const struct speckv_card *card, unsigned int slot);

#endif

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

#include <speckv/codec.h>
#include <speckv/pool.h>
#include <speckv/predictor.h>
#include <speckv_regs.h>

#include "card/card.h"
#include "card/flash.h"
#include "card/memory.h"

#define CARD_WAIT 0xffff /* not a status: the command is not finished */
#define CARD_AGENTS SPECKV_CARD_AGENTS
#define CARD_IN_FLIGHT 128 /* waiting commands per queue pair */
#define CARD_TLB 64
#define CARD_ADMIN_LOG2 8
#define CARD_IO_LOG2 12
#define CARD_NO_FIELD 0xffffffffu

enum card_queue_state { QUEUE_DISABLED, QUEUE_ENABLED, QUEUE_DRAINING, QUEUE_FENCED, QUEUE_FAILED };

/* In the order of the registers from COUNT_COMMANDS on. */
enum card_counter {
	COUNT_COMMANDS,
	COUNT_FAILED,
	COUNT_IN_RAW,
	COUNT_IN_STORED,
	COUNT_OUT_RAW,
	COUNT_OUT_STORED,
	COUNT_TLB_HITS,
	COUNT_TLB_MISSES,
	COUNT_FAULTS,
	COUNT_PREFETCHES,
	COUNT_PREFETCH_USED,
	COUNT_PREFETCH_LATE,
	COUNT_PREFETCH_UNUSED,
	COUNT_INFERENCES,
	COUNT_RECALLS,
	CARD_COUNTERS,
};

union card_entry {
	uint8_t bytes[SPECKV_SQE_BYTES];
	struct speckv_sqe sqe;
	struct speckv_cmd_bare bare;
	struct speckv_cmd_write write;
	struct speckv_cmd_read read;
	struct speckv_cmd_copy copy;
	struct speckv_cmd_range range;
	struct speckv_cmd_touch touch;
	struct speckv_cmd_predict predict;
	struct speckv_cmd_data data;
	struct speckv_cmd_log log;
	struct speckv_cmd_pool pool;
	struct speckv_cmd_model model;
	struct speckv_cmd_firmware firmware;
	struct speckv_cmd_value value;
	struct speckv_cmd_grant grant;
};

/* One command, from the copy of its entry to its completion. */
struct card_command {
	union card_entry entry;
	uint64_t start_ns;
	/* earliest time to run it, unless `event` differs from `seen`; UINT64_MAX: stuck */
	uint64_t ready_ns;
	const uint32_t *event; /* NULL: wait for time only */
	uint32_t seen;
	/* INVALIDATE: phase, next page of its range, first page still held, and deadline. */
	uint8_t phase;
	bool any;
	uint64_t cursor, held, deadline_ns;
	uint64_t result;
	uint64_t address; /* for the error log */
	uint32_t field;
	/* function->answers when it began to wait for host memory; 0: not waiting */
	uint32_t asked;
	struct memory_reservation reservation;
	bool waits_for_all;
	bool throttled; /* was delayed by its pool's bandwidth limit */
};

struct card_buffer {
	struct speckv_buffer_entry entry;
	bool known;
};

struct card_rights {
	uint8_t rights;
	uint32_t granted;
};

struct card_queue {
	uint16_t index; /* SPECKV_ALL_QUEUES: the admin queue */
	uint16_t agent; /* CARD_AGENTS: holds nothing */
	enum card_queue_state state;
	uint16_t status;
	/* Registers as written. */
	uint32_t sq_lo, sq_hi, cq_lo, cq_hi, table_lo, table_hi, buffer_count, size, control,
		invalidate;
	/* Values latched when the queue pair was enabled. */
	uint64_t sq_base, cq_base, table;
	uint32_t sq_entries, cq_entries, buffers, vector;
	bool interrupt;
	uint32_t sq_head, cq_tail;
	uint32_t asked; /* as in card_command, for fetching the next entry */
	uint16_t phase;
	struct card_buffer *buffer;
	struct card_command *waiting; /* CARD_IN_FLIGHT, in the order of submission */
	unsigned int waits, next_wait;
	uint32_t held; /* blocks held by this queue pair */
	uint32_t unsignalled; /* completions since the last interrupt */
	uint64_t first_unsignalled_ns;
	uint64_t revoked; /* pending revocation notices: bit map of pools */
	uint64_t untold; /* pools with recalls not posted yet: bit map */
	uint64_t untold_at; /* next page to scan in the first of them */
	uint64_t untold_ns; /* latest time to check for room again */
	uint64_t events; /* event sequence to notify; 0: none */
	struct card_rights grant[SPECKV_CARD_POOLS + 1];
};

struct card_function {
	struct speckv_card *card;
	struct card_user *user;
	uint16_t index;
	bool admin;
	bool ready;
	uint16_t pairs, next_pair;
	uint32_t control, shutdown, int_status, int_enable, reset_count, counter_snapshot,
		scratch_lo, scratch_hi;
	uint8_t fatal;
	uint32_t admin_sq_lo, admin_sq_hi, admin_cq_lo, admin_cq_hi, admin_size, admin_tail,
		admin_head;
	struct card_queue admin_queue;
	struct card_queue *pair;
	struct speckv_doorbell_page *doorbells, *own_doorbells;
	struct card_rights grant[SPECKV_CARD_POOLS + 1];
	uint64_t counters[CARD_COUNTERS];
	uint64_t snapshot[CARD_COUNTERS + 1];
	uint32_t answers; /* asynchronous host reads completed; never 0 */
	uint64_t transfer; /* card_transfer() of the command with such a read; 0: none */
	bool held;
};

/* State per function number, kept across connections. */
struct card_place {
	uint64_t spent_ns; /* recent */
	bool sessions; /* its sessions may be non-zero */
};
/* Log quota of a user, shared by its functions and kept across its connections. */
struct card_user {
	bool known;
	uint32_t number;
	uint64_t gone_ns; /* when its last function was removed */
	struct card_allowance {
		uint64_t since_ns;
		uint32_t used, left_out;
	} events, errors;
};
#define CARD_FUNCTIONS 64

struct card_statistics {
	uint64_t since_ns;
	uint64_t counters[SPECKV_COUNTERS];
	uint64_t histograms[SPECKV_HISTOGRAMS][SPECKV_HIST_BUCKETS];
};

/* A pool at run time; the authoritative copy is in device memory. */
struct card_pool {
	bool present;
	uint16_t number; /* 1..SPECKV_CARD_POOLS */
	struct memory_pool record;
	uint64_t *map; /* one entry per translation page */
	struct card_block *blocks; /* one entry per page of the pool: the directory */
	uint64_t *holding; /* agents that may hold a block, per HOLD_STEP pages; NULL: no holders */
	uint64_t pages; /* within the capacity, in pages of the pool */
	uint64_t block_bytes; /* raw */
	uint64_t frame_bytes; /* largest frame of any mode */
	uint64_t used_pages, stored_bytes, count;
	uint64_t free_ns; /* earliest start under the bandwidth limit */
	uint32_t released; /* incremented when a block being invalidated loses a holder */
	struct card_statistics statistics;
	struct speckv_pace pace;
	/* the session scored last */
	struct {
		uint64_t life;
		uint16_t function;
		uint32_t slot;
	} rival;
};

struct card_stage {
	uint16_t pool; /* 0: free */
	uint16_t layer_first, layer_count;
	bool used;
	bool predicted; /* staged by PREDICT: its use or eviction adjusts the pool's depth */
	uint64_t address, generation, at, bytes;
	uint64_t used_ns;
};
#define CARD_STAGES 256

struct card_test {
	uint32_t test, status;
	uint64_t elapsed_ns;
	char text[112];
};

struct speckv_card {
	struct speckv_card_ops ops;
	void *arg;
	struct speckv_card_config config;
	uint8_t *memory;
	struct memory_layout layout;
	uint32_t *page_map; /* one entry per device page */
	uint8_t *backed; /* bit per device page: known to be backed */
	uint64_t stage_backed; /* bytes of staging memory known to be backed */
	uint64_t free_pages;
	uint64_t next_page; /* where the search for free pages resumes */
	uint64_t give_up_at; /* release the backing of free pages from here on */

	struct card_function *functions[CARD_FUNCTIONS];
	unsigned int functions_max, pairs_used;
	unsigned int reserving; /* commands with a reservation in progress */
	struct card_place places[CARD_FUNCTIONS];
	struct card_user users[CARD_FUNCTIONS];
	struct card_allowance all_events, all_errors; /* of all users */
	/* numbers of the functions in use, least time spent first */
	uint8_t order[CARD_FUNCTIONS];
	unsigned int order_count;
	uint64_t halved_ns;
	struct card_pool pools[SPECKV_CARD_POOLS + 1]; /* by number; 0 is none */
	struct {
		uint16_t function, queue;
		bool used;
	} agents[SPECKV_CARD_AGENTS];
	struct {
		uint64_t page, entry;
		uint16_t pool;
	} tlb[CARD_TLB];
	struct card_stage stages[CARD_STAGES];
	uint64_t stage_next;
	uint64_t prefetch_free_ns;
	uint32_t model_received;
	/* the model in force, read from device memory; NULL: none */
	struct speckv_predictor *predictor;
	/* of the model, since power-on; session state of another model is void */
	uint32_t predictor_number;
	uint64_t lives; /* sessions begun since power-on */
	struct card_statistics statistics;
	uint64_t counters[CARD_COUNTERS];
	uint8_t *frame_scratch, *raw_scratch;
	uint64_t frame_scratch_bytes, raw_scratch_bytes;

	uint64_t boot_ns;
	uint64_t event_sequence, error_sequence;
	struct card_test tests[SPECKV_TESTS];
	unsigned int tests_run;
	int64_t features[FLASH_FEATURES];
	uint8_t fatal;
	bool shut_down;
	bool engine;
	bool rebooted;
	bool reboot_wanted; /* after the completion of the requesting command */
	bool give_up_all; /* release all free pages, including those backed by an earlier process */

	int32_t temperature;
	bool throttled;
	uint64_t throttled_since_ns, throttled_ns;
	uint64_t corrected, uncorrected, poisoned_pages;

	struct flash_state flash;

	struct {
		uint32_t lost, duplicate, slow, stuck, unanswered, bad_boots;
		uint16_t slow_pool;
		uint64_t slow_ns, torn_program, torn_erase;
		bool program_torn, erase_torn;
	} fault;
};

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

/* registers.c */
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
void card_buffer_forget(struct card_queue *queue, uint16_t index);
/* Post a notice. False: no room, try again later. */
bool card_notice(struct card_function *function, struct card_queue *queue, uint16_t notice,
	uint64_t result);
void card_revoke(struct card_function *function, struct card_queue *queue, unsigned int pool);
/* I/O commands submitted but not completed, of all functions. */
uint32_t card_outstanding(struct speckv_card *card);
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
/* Retry the recalls that a queue pair had no room for, in bounded steps. */
void card_recall_again(struct card_function *function, struct card_queue *queue);
void card_directory_recover(struct speckv_card *card, struct card_pool *pool);
uint16_t card_acquire(struct card_context *context);
uint16_t card_writeback(struct card_context *context);
uint16_t card_invalidate(struct card_context *context);

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
uint16_t card_grant(struct card_context *context);
uint16_t card_pool_by_uuid(struct card_context *context, unsigned int number, const uint8_t *uuid,
	struct card_pool **out);
void card_pool_describe(const struct card_pool *pool, struct speckv_pool_description *out);
int card_pool_prepare(struct speckv_card *card, struct card_pool *pool);
void card_grants_drop(struct speckv_card *card, unsigned int pool);
int card_scratch(struct speckv_card *card, uint64_t frame_bytes, uint64_t raw_bytes);

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
unsigned int card_bucket(uint64_t ns);
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

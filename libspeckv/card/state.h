/* SPDX-License-Identifier: MIT */
/* State of the card model: the card, its functions, queue pairs, commands and pools. */
#ifndef SPECKV_CARD_STATE_H
#define SPECKV_CARD_STATE_H

#include <speckv/codec.h>
#include <speckv/pool.h>
#include <speckv/predictor.h>

#include "card/card.h"
#include "card/flash.h"
#include "card/memory.h"

#define CARD_AGENTS SPECKV_CARD_AGENTS
#define CARD_IN_FLIGHT 128 /* waiting commands per queue pair */
#define CARD_TLB 64
#define CARD_ADMIN_LOG2 8
#define CARD_IO_LOG2 12

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

#endif

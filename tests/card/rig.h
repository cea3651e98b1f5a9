/* SPDX-License-Identifier: MIT */
/*
 * What the card's tests stand on: a host with memory of its own for every function, flash that
 * power can be cut from at any byte, a clock, and the client's side of a queue pair.
 */
#ifndef TEST_CARD_RIG_H
#define TEST_CARD_RIG_H

#include <errno.h>
#include <string.h>

#include <speckv/codec.h>

#include "../check.h"
#include "card/internal.h"
#include "transport/inproc.h"

#define REG(member) ((uint32_t)offsetof(speckv_regs_t, member))
#define PAIR(n, member)           \
	(REG(QUEUES) + 64 * (n) + \
		(uint32_t)offsetof(speckv_regs__QUEUES__PAIRx__stride40_t, member))
#define BELL(n, member)                                         \
	(REG(DOORBELLS) + 4096 * ((n) / 16) + 64 * ((n) % 16) + \
		(uint32_t)offsetof(speckv_regs__DOORBELLS__PAGEx__SLOTx__stride40_t, member))

#define HOST_BASE UINT64_C(0x7000000000)
#define HOST_STEP UINT64_C(0x0100000000) /* from one function's addresses to the next's */
#define HOST_BYTES (4u << 20)
#define RIG_FUNCTIONS 6
#define RIG_MS UINT64_C(1000000) /* of its clock */
#define RIG_SECOND (1000 * RIG_MS)
#define RIG_SLOT_BYTES (512u << 10)

struct rig {
	struct speckv_card *card;
	struct speckv_card_ops ops;
	struct speckv_card_config config;
	uint8_t *memory, *flash;
	uint64_t now;
	struct inproc_host dma; /* what each function reaches of `host` */
	uint8_t *host[RIG_FUNCTIONS];
	uint64_t host_used[RIG_FUNCTIONS];
	unsigned int interrupts[RIG_FUNCTIONS][32];
	bool direct; /* host memory can be reached directly */
	uint32_t user; /* whose the next function is */
	uint64_t dma_count;
	uint64_t dma_fail_at; /* this access fails, and all after it if dma_dead */
	bool dma_dead;
	bool sync_fails; /* device memory cannot be made durable */
	uint64_t worn; /* a byte of flash that no erase sets to ones; 0: none */
	uint64_t flash_budget; /* bytes until power is cut; UINT64_MAX: never */
	bool dark;
	/*
	 * rig_flash_cache(): the medium, and a byte per unit of it that waits; NULL: there is no
	 * cache
	 */
	uint8_t *durable, *dirty;
	uint64_t flash_ops[1024]; /* bytes of each erase and program, when flash_log is set */
	unsigned int flash_op_count;
	bool flash_log;
	unsigned int syncs;
	uint64_t random;
	/* Called with every access to host memory: what a hostile peer does meanwhile. */
	void (*peer)(struct rig *rig, unsigned int function, uint64_t address, uint64_t bytes,
		bool write);
};

/* One queue pair, or the admin queue, from its client's side. */
struct client {
	struct rig *rig;
	unsigned int function, queue; /* SPECKV_ALL_QUEUES: admin */
	uint64_t sq, cq, table;
	uint32_t sq_entries, cq_entries, sq_tail, cq_head;
	uint16_t phase, next_id;
};

struct rig *rig_new(void);
void rig_free(struct rig *rig);
/*
 * From here on what is written to flash waits in a cache until it is synced: a restart finds any
 * part of it written, in any order.
 */
void rig_flash_cache(struct rig *rig);
/* Power off and on with what memory and flash hold. Connections are gone. */
void rig_restart(struct rig *rig);
void rig_power_on(struct rig *rig);
uint64_t rig_alloc(struct rig *rig, unsigned int function, uint64_t bytes);
void *rig_at(struct rig *rig, unsigned int function, uint64_t address);
uint32_t rig_read(struct rig *rig, unsigned int function, uint32_t offset);
void rig_write(struct rig *rig, unsigned int function, uint32_t offset, uint32_t value);
uint64_t rig_random(struct rig *rig);
uint32_t rig_below(struct rig *rig, uint32_t bound);

/* A function with its admin queue running (admin) or just enabled. */
unsigned int rig_function(struct rig *rig, bool admin, unsigned int pairs);
struct client rig_admin(struct rig *rig, unsigned int function);
struct client rig_queue(struct rig *rig, unsigned int function, unsigned int queue,
	unsigned int sq_log2, unsigned int cq_log2);
uint16_t client_submit(struct client *client, const void *entry);
/* The next completion, if there is one. */
bool client_poll(struct client *client, struct speckv_cqe *out);
/* Submit, run, wait: status. */
uint16_t client_run(struct client *client, const void *entry, uint64_t *result);
/* Status of `good` with this field changed. */
#define CLIENT_WRONG(client, member, value, expected)              \
	do {                                                       \
		union card_entry wrong = good;                     \
		wrong.member = (value);                            \
		EQUAL(client_run(client, &wrong, NULL), expected); \
	} while (0)
void client_buffer(struct client *client, unsigned int index, uint64_t address, uint64_t bytes,
	uint32_t flags);

/* Commands. */
struct speckv_pool_description rig_pool(const char *name, uint64_t capacity, uint32_t codec);
uint16_t rig_create(struct client *admin, const struct speckv_pool_description *description,
	uint64_t *number);
uint16_t rig_grant(struct client *admin, unsigned int function, unsigned int queue,
	unsigned int pool, const uint8_t *uuid, uint32_t rights);
uint16_t rig_log(struct client *admin, uint16_t log, uint16_t pool, uint64_t after, void *entries,
	uint32_t bytes, struct speckv_log_header *header);

/*
 * A card with an admin function (0), one pool (number 1), a client's queue pair (function 1, queue
 * 0) with rights, and buffers.
 */
struct bench {
	struct rig *rig;
	struct client admin, client;
	uint64_t pool, block_bytes;
	uint8_t uuid[16];
	uint64_t raw, identity, out, frames; /* host addresses in function 1 */
};
#define BUFFER_RAW 0 /* card reads */
#define BUFFER_IDENTITY 1 /* card reads */
#define BUFFER_OUT 2 /* card writes */
#define BUFFER_BOTH 3 /* card reads and writes */
#define BENCH_PAGE 4096
#define RUN (10 * BENCH_PAGE) /* pages of a block */
void bench_begin(struct bench *b, uint32_t codec);
void bench_connect(struct bench *b);
void bench_end(struct bench *b);
void bench_fill(struct bench *b, uint64_t seed); /* the raw block */
union card_entry bench_write(struct bench *b, uint64_t address, uint64_t generation, uint8_t key);
union card_entry bench_read(struct bench *b, uint64_t address, uint64_t generation, uint8_t key);
/* A command on a range of the pool that bench_begin() makes. */
union card_entry bench_range(uint8_t opcode, uint64_t address, uint64_t bytes, uint64_t generation,
	uint8_t flags);
uint16_t bench_put(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result);
uint16_t bench_get(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result);

#endif

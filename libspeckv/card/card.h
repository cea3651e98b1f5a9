/* SPDX-License-Identifier: MIT */
/*
 * The functional model of the card: one process's emulated card, and the oracle of the RTL tests.
 *
 * It obeys rtl/regs/speckv.rdl (registers), kmod/include/uapi/linux/speckv.h (what lies in memory)
 * and bitstreams/FORMAT.md. It does no I/O, starts no thread and keeps nothing outside `struct
 * speckv_card`, device memory and flash: clock, host memory, interrupts and flash are callbacks.
 * Execution is deterministic: the same calls and callback results give the same state, bit for bit.
 *
 * Threads: none. The caller serialises calls on a card; callbacks must not call back into it.
 *
 * Trust: entries, buffer-table entries, identities and candidates are copied once and only the copy
 * is used. A peer may write any value to registers and doorbell pages at any time.
 */
#ifndef SPECKV_CARD_H
#define SPECKV_CARD_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/speckv.h>

struct speckv_card;

#define SPECKV_CARD_PAGE_BYTES 65536 /* unit of translation and of allocation in device memory */
#define SPECKV_CARD_POOLS 64
#define SPECKV_CARD_AGENTS 64 /* queue pairs that hold blocks at the same time */
#define SPECKV_CARD_KEYS 4
#define SPECKV_CARD_BAR0_BYTES 0x20000

/*
 * Callbacks to the environment. They return 0 or a negative errno; `function` selects the address
 * space.
 */
struct speckv_card_ops {
	/*
	 * monotonic, and counts while the machine is suspended: for ages, rates, deadlines and
	 * latencies
	 */
	uint64_t (*now_ns)(void *arg);
	/* CLOCK_REALTIME, for timestamps in logs; may be NULL: now_ns() */
	uint64_t (*wall_ns)(void *arg);
	/*
	 * -EAGAIN: the read is asynchronous. The command waits for speckv_card_dma_answered(),
	 * restarts from its beginning, repeats the same reads and finds the data; other commands of
	 * its function that read host memory wait for dma_end().
	 */
	int (*dma_read)(void *arg, unsigned int function, uint64_t address, void *to,
		uint64_t bytes);
	/*
	 * May be NULL if dma_read() never returns -EAGAIN. The reading command has ended: discard
	 * the data read for it.
	 */
	void (*dma_end)(void *arg, unsigned int function);
	/* Posted: a later failure is reported through speckv_card_dma_failed(). */
	int (*dma_write)(void *arg, unsigned int function, uint64_t address, const void *from,
		uint64_t bytes);
	/* A 16-bit store with release order: after all earlier dma_write() calls. */
	int (*dma_publish)(void *arg, unsigned int function, uint64_t address, uint16_t value);
	/*
	 * May be NULL: direct pointer to host memory, valid until this command ends, or NULL. A
	 * peer may change the contents at any time, but the mapping must persist.
	 */
	void *(*dma_direct)(void *arg, unsigned int function, uint64_t address, uint64_t bytes,
		bool write);
	void (*interrupt)(void *arg, unsigned int function, unsigned int vector);
	/* May be NULL: make device memory durable. */
	int (*memory_sync)(void *arg);
	/* May be NULL: zero free device memory and release its backing. */
	int (*memory_zero)(void *arg, uint64_t offset, uint64_t bytes);
	/*
	 * May be NULL: allocate backing for this part of device memory before a pool gets it.
	 * -ENOSPC: no space.
	 */
	int (*memory_take)(void *arg, uint64_t offset, uint64_t bytes);
	/*
	 * May be NULL: the backing of device memory was lost, and no reset of the card restores it.
	 */
	bool (*memory_lost)(void *arg);
	/*
	 * NOR: erase sets whole sectors to 0xff, program only clears bits. Either may fail, or the
	 * process may be killed in it, at any byte.
	 */
	int (*flash_erase)(void *arg, uint64_t offset, uint64_t bytes);
	int (*flash_program)(void *arg, uint64_t offset, const void *data, uint64_t bytes);
	/*
	 * Make earlier erase and program calls durable. May be NULL if they are durable on return.
	 * Without a sync, a loss of power may keep any part of them and lose any other, in units of
	 * 512 bytes.
	 */
	int (*flash_sync)(void *arg);
};

/* Zero means the default in the comment. */
struct speckv_card_config {
	uint8_t uuid[16];
	char model[32];
	char serial[32];
	char part[32]; /* FPGA part: bundles for other parts are refused */
	void *memory; /* aligned to 4096; its contents are the card's state */
	uint64_t memory_bytes;
	const uint8_t *flash; /* NULL: no flash, no FW commands; the card runs the built-in image */
	uint64_t flash_bytes; /* speckv_card_flash_bytes() */
	uint64_t flash_slot_bytes; /* most bytes of one bundle; whole sectors */
	/* modes that the card encodes and decodes; default: all of this build */
	uint32_t codec_modes;
	uint32_t transfer_bytes; /* most raw bytes of one command; default 16 MiB */
	uint16_t functions_max; /* default 16, at most 64 */
	uint16_t queue_pairs_max; /* of the card; default 256 */
	uint16_t buffers_max; /* of a queue pair; default 1024 */
	/* per function; default 1024, halved until all sessions take at most 1/16 of memory */
	uint32_t sessions;
	/* device memory for decoded, prefetched blocks; default: 1/16 of it, at most 64 MiB */
	uint64_t stage_bytes;
	int32_t throttle_millicelsius; /* default 85000 */
	int32_t trip_millicelsius; /* default 105000 */
	uint32_t golden_revision; /* register RTL_REVISION of the golden image */
	/* of the golden image: if below the card's, it runs without an engine */
	uint32_t golden_security_version;
	/*
	 * the golden image has an engine; false: factory personality, only flash and identification
	 */
	bool golden_engine;
	bool format_memory; /* discard the contents of device memory */
	/* SPECKV_ACTIVATION_*: what an activation needs if the personality stays the same */
	uint8_t activation;
};

struct speckv_card_function_config {
	bool admin;
	uint16_t queue_pairs; /* at most 256 */
	/* user of the connection: log quotas are per user */
	uint32_t user;
	/*
	 * Shared memory for the doorbell pages (16 queue pairs each), polled: CAPS.shared_doorbell.
	 * NULL: private to the card, reached by register accesses only. Zeroed by the caller; stays
	 * mapped until the function is removed.
	 */
	struct speckv_doorbell_page *doorbells;
};

/*
 * Power the card on: recover device memory (blank memory is formatted), boot from flash. Errors:
 * -EINVAL (configuration), -ENOMEM, -EUCLEAN (device memory belongs to another card or is damaged:
 * format_memory discards it).
 */
int speckv_card_create(const struct speckv_card_ops *ops, void *arg,
	const struct speckv_card_config *config, struct speckv_card **out);
/*
 * Power off. Nothing is written: the persistent state in memory and flash is always current. NULL
 * is allowed.
 */
void speckv_card_destroy(struct speckv_card *card);

/*
 * Add a connection. Returns the number of the function, or -EUSERS (too many functions or queue
 * pairs), -ENOMEM, -EINVAL (more than 256 queue pairs).
 */
int speckv_card_function_add(struct speckv_card *card,
	const struct speckv_card_function_config *config);
/*
 * Remove a connection: no DMA and no interrupt for this function from here on; its rights, fills
 * and predictor sessions are dropped.
 */
void speckv_card_function_remove(struct speckv_card *card, unsigned int function);
/* FLR, as CONTROL.reset. Queue pairs and rights are dropped, pools stay. */
void speckv_card_function_reset(struct speckv_card *card, unsigned int function);

/*
 * BAR0: aligned 32-bit accesses. A doorbell write only stores the index: commands run in
 * speckv_card_run().
 */
uint32_t speckv_card_read32(struct speckv_card *card, unsigned int function, uint32_t offset);
void speckv_card_write32(struct speckv_card *card, unsigned int function, uint32_t offset,
	uint32_t value);

/* An asynchronous read of a function completed: run the commands that waited for it again. */
void speckv_card_dma_answered(struct speckv_card *card, unsigned int function);
/* A posted write of a function failed: its queue pairs fail with SPECKV_STATUS_DMA_ERROR. */
void speckv_card_dma_failed(struct speckv_card *card, unsigned int function);
/* While held, a function starts and completes no commands: its connection accepts no more data. */
void speckv_card_hold(struct speckv_card *card, unsigned int function, bool held);
/* Charge a function for time spent outside of the card, on its register accesses. */
void speckv_card_spend(struct speckv_card *card, unsigned int function, uint64_t ns);
/* Recent time spent on a function; halved every few milliseconds. */
uint64_t speckv_card_spent(const struct speckv_card *card, unsigned int function);

/*
 * Run at most `commands`, for some tens of microseconds. Functions with the least recent time come
 * first, so that a light load does not wait behind a heavy one. Returns how many commands were
 * started or completed.
 */
unsigned int speckv_card_run(struct speckv_card *card, unsigned int commands);
/*
 * Earliest time at which a waiting command needs service; UINT64_MAX: only a doorbell write gives
 * the card work.
 */
uint64_t speckv_card_next_ns(const struct speckv_card *card);
/*
 * Set need_wake everywhere and re-check the tails. False: there is work, and need_wake is 0 again.
 */
bool speckv_card_sleep(struct speckv_card *card);
void speckv_card_wake(struct speckv_card *card);
/* Commands of this function in flight; 0: idle. For limits and shutdown. */
unsigned int speckv_card_in_flight(const struct speckv_card *card, unsigned int function);
/* Does this function have an enabled queue pair? */
bool speckv_card_in_use(const struct speckv_card *card, unsigned int function);
/*
 * Minimum time to poll doorbell memory before speckv_card_sleep(); 0: never sleep.
 * SPECKV_FEATURE_POLL_MICROSECONDS.
 */
uint64_t speckv_card_poll_ns(const struct speckv_card *card);

/*
 * A command rebooted the card (RESET_CARD, an activation). Cleared by the read: the caller
 * re-enumerates what changed.
 */
bool speckv_card_rebooted(struct speckv_card *card);
/*
 * Does the running image have an engine? Otherwise it is the factory personality:
 * SPECKV_PCI_DEVICE_ID_FACTORY.
 */
bool speckv_card_has_engine(const struct speckv_card *card);
/* SPECKV_SLOT_* of the running image. */
unsigned int speckv_card_running_slot(const struct speckv_card *card);

/* ---- driver-side calls, for an emulated card ------------------------------------------------ */

/* Describe the pool of this uuid as SPECKV_LOG_POOLS does. False: no such pool. */
bool speckv_card_pool(const struct speckv_card *card, const uint8_t uuid[16],
	struct speckv_pool_description *out);
/* SPECKV_ADMIN_GRANT for all queue pairs of a function. -ENOENT: no such function or pool. */
int speckv_card_grant(struct speckv_card *card, unsigned int function, unsigned int pool,
	uint32_t rights);
/* Driver information: fills everything but `size`, `flags`, `queue_pairs` and `doorbell_offset`. */
void speckv_card_info(const struct speckv_card *card, struct speckv_ioc_info *out);

/* ---- flash, as it leaves the factory -------------------------------------------------------- */

/* A key that may sign bundles. */
struct speckv_card_key {
	uint8_t key[32]; /* Ed25519 public key */
	bool downgrade; /* its bundles may lower the security version */
};

/* Flash size for bundles of this size. */
uint64_t speckv_card_flash_bytes(uint64_t slot_bytes);
/* Erase everything and write the key slots, which no command can change afterwards. */
int speckv_card_flash_provision(const struct speckv_card_ops *ops, void *arg, uint64_t flash_bytes,
	const struct speckv_card_key *keys, unsigned int count);

/* ---- environment and faults: CAPS.inject ---------------------------------------------------- */

void speckv_card_set_temperature(struct speckv_card *card, int32_t millicelsius);

enum speckv_card_fault {
	SPECKV_CARD_FAULT_LOST_INTERRUPT = 1, /* count */
	SPECKV_CARD_FAULT_DUPLICATE_INTERRUPT, /* count */
	SPECKV_CARD_FAULT_POISON, /* value: address in `pool`; count 0: clear the poison */
	SPECKV_CARD_FAULT_CORRECTED, /* count corrected memory errors */
	SPECKV_CARD_FAULT_TORN_PROGRAM, /* the next flash program stops after `value` bytes */
	SPECKV_CARD_FAULT_TORN_ERASE, /* the next flash erase stops after `value` bytes */
	/*
	 * the next `count` I/O commands take `value` nanoseconds longer; pool: 0 (all) or only that
	 * one
	 */
	SPECKV_CARD_FAULT_SLOW,
	SPECKV_CARD_FAULT_STUCK, /* the next `count` I/O commands never complete */
	SPECKV_CARD_FAULT_UNSTICK, /* stuck commands resume */
	SPECKV_CARD_FAULT_BAD_BOOT, /* the next `count` first boots do not report healthy */
	SPECKV_CARD_FAULT_FATAL, /* value: cause of register FATAL_CAUSE */
	/* the next `count` I/O commands are executed without a completion */
	SPECKV_CARD_FAULT_LOST_COMPLETION,
	SPECKV_CARD_FAULTS,
};
/* Returns 0, -EINVAL (fault), -ENOENT (no such pool or page). */
int speckv_card_inject(struct speckv_card *card, enum speckv_card_fault fault, unsigned int pool,
	uint64_t value, uint32_t count);

#endif

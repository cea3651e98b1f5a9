/* SPDX-License-Identifier: MIT */
/*
 * The functional model of the card: one process's emulated card, and the oracle of the RTL tests.
 *
 * It obeys rtl/regs/speckv.rdl (registers), kmod/include/uapi/linux/speckv.h (what lies in memory) and
 * bitstreams/FORMAT.md. It does no I/O, starts no thread and keeps nothing outside `struct
 * speckv_card`, device memory and flash: clock, host memory, interrupts and flash are handed in,
 * and the same calls with the same answers give the same card, bit for bit.
 *
 * Threads: none. One thread at a time in a card; callbacks must not call back into it.
 *
 * Trust: entries, buffer-table entries, identities and candidates are copied once and only the copy
 * is looked at. Registers and doorbell pages may be written by a peer at any time with anything.
 */
#ifndef SPECKV_CARD_H
#define SPECKV_CARD_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/speckv.h>

struct speckv_card;

#define SPECKV_CARD_PAGE_BYTES 65536 /* of translation and of allocation in device memory */
#define SPECKV_CARD_POOLS 64
#define SPECKV_CARD_AGENTS 64 /* queue pairs that hold blocks at the same time */
#define SPECKV_CARD_KEYS 4
#define SPECKV_CARD_BAR0_BYTES 0x20000

/*
 * What the card needs from outside. Functions return 0 or a negative errno; `function` says whose
 * addresses are meant.
 */
struct speckv_card_ops {
	/*
	 * never goes back and goes on while the machine sleeps: for ages, rates, deadlines and
	 * latencies
	 */
	uint64_t (*now_ns)(void *arg);
	/* CLOCK_REALTIME, for stamps that people read; may be NULL: now_ns() */
	uint64_t (*wall_ns)(void *arg);
	/*
	 * -EAGAIN: the bytes are on their way. The command waits until speckv_card_dma_answered()
	 * and is run again from its start, asks for the same bytes and finds them; the other
	 * commands of its function that read host memory wait until dma_end().
	 */
	int (*dma_read)(void *arg, unsigned int function, uint64_t address, void *to,
		uint64_t bytes);
	/*
	 * May be NULL where dma_read() never says -EAGAIN: the command that began to read is over;
	 * forget what was read for it.
	 */
	void (*dma_end)(void *arg, unsigned int function);
	/* Posted: what could not be written after all is told by speckv_card_dma_failed(). */
	int (*dma_write)(void *arg, unsigned int function, uint64_t address, const void *from,
		uint64_t bytes);
	/* A 16-bit store with release order: after every dma_write() before it. */
	int (*dma_publish)(void *arg, unsigned int function, uint64_t address, uint16_t value);
	/*
	 * May be NULL: host memory that can be reached directly, valid until this command ends, or
	 * NULL. A peer may change it at any time, but it must not disappear.
	 */
	void *(*dma_direct)(void *arg, unsigned int function, uint64_t address, uint64_t bytes,
		bool write);
	void (*interrupt)(void *arg, unsigned int function, unsigned int vector);
	/* May be NULL: make device memory durable. */
	int (*memory_sync)(void *arg);
	/* May be NULL: zero device memory that is free now, and let what backs it go. */
	int (*memory_zero)(void *arg, uint64_t offset, uint64_t bytes);
	/*
	 * May be NULL: make sure that what backs this part of device memory is there before it is
	 * promised to a pool. -ENOSPC: it is not.
	 */
	int (*memory_take)(void *arg, uint64_t offset, uint64_t bytes);
	/*
	 * May be NULL: what backed device memory is gone, and no reset of the card brings it back.
	 */
	bool (*memory_lost)(void *arg);
	/*
	 * NOR: erase sets whole sectors to 0xff, program can only clear bits. Both may fail, or
	 * never return to us, at any byte.
	 */
	int (*flash_erase)(void *arg, uint64_t offset, uint64_t bytes);
	int (*flash_program)(void *arg, uint64_t offset, const void *data, uint64_t bytes);
	/*
	 * May be NULL, where both are durable when they return: make durable what was erased and
	 * programmed. Without it a loss of power may find any of that done and any not, in units of
	 * 512 bytes.
	 */
	int (*flash_sync)(void *arg);
};

/* Zero means the default in the comment. */
struct speckv_card_config {
	uint8_t uuid[16];
	char model[32];
	char serial[32];
	char part[32]; /* FPGA part: bundles for another are refused */
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
	/* of one function; default 1024, or half as often until all take at most 1/16 of memory */
	uint32_t sessions;
	/* device memory for decoded, prefetched blocks; default: 1/16 of it, at most 64 MiB */
	uint64_t stage_bytes;
	int32_t throttle_millicelsius; /* default 85000 */
	int32_t trip_millicelsius; /* default 105000 */
	uint32_t golden_revision; /* register RTL_REVISION of the golden image */
	/* of the golden image: below that of the card, it runs without an engine */
	uint32_t golden_security_version;
	/*
	 * the golden image has an engine; false: factory personality, only flash and identification
	 */
	bool golden_engine;
	bool format_memory; /* forget what device memory holds */
	/* SPECKV_ACTIVATION_*: what an activation needs where the personality stays the same */
	uint8_t activation;
};

struct speckv_card_function_config {
	bool admin;
	uint16_t queue_pairs; /* at most 256 */
	/* whose connection it is: what its commands may enter in the logs is a share per user */
	uint32_t user;
	/*
	 * Shared memory for the doorbell pages (16 queue pairs each), polled: CAPS.shared_doorbell.
	 * NULL: the card's own, reached by register accesses only. Zeroed by the caller; mapped
	 * until the function is removed.
	 */
	struct speckv_doorbell_page *doorbells;
};

/*
 * Power the card on: recover device memory (blank memory is formatted), boot from flash. Errors:
 * -EINVAL (configuration), -ENOMEM, -EUCLEAN (device memory belongs to another card or is damaged:
 * format_memory forgets it).
 */
int speckv_card_create(const struct speckv_card_ops *ops, void *arg,
	const struct speckv_card_config *config, struct speckv_card **out);
/*
 * Power off. Nothing is written: what a card has to keep is in memory and flash at any time. NULL
 * is allowed.
 */
void speckv_card_destroy(struct speckv_card *card);

/*
 * A new connection. Returns the number of the function, or -EUSERS (too many functions or queue
 * pairs), -ENOMEM, -EINVAL.
 */
int speckv_card_function_add(struct speckv_card *card,
	const struct speckv_card_function_config *config);
/*
 * The connection is gone: no DMA and no interrupt for this function from here on; its rights, fills
 * and sessions are dropped.
 */
void speckv_card_function_remove(struct speckv_card *card, unsigned int function);
/* FLR, as CONTROL.reset. Queue pairs and rights go, pools stay. */
void speckv_card_function_reset(struct speckv_card *card, unsigned int function);

/*
 * BAR0: aligned 32-bit accesses. A doorbell only notes the index: commands run in
 * speckv_card_run().
 */
uint32_t speckv_card_read32(struct speckv_card *card, unsigned int function, uint32_t offset);
void speckv_card_write32(struct speckv_card *card, unsigned int function, uint32_t offset,
	uint32_t value);

/* What a function read arrived: commands that waited for it are run again. */
void speckv_card_dma_answered(struct speckv_card *card, unsigned int function);
/* What was posted to a function was refused: its queue pairs fail with SPECKV_STATUS_DMA_ERROR. */
void speckv_card_dma_failed(struct speckv_card *card, unsigned int function);
/*
 * No command of this function is begun or ended while it is held: its connection takes no more now.
 */
void speckv_card_hold(struct speckv_card *card, unsigned int function, bool held);
/*
 * Time that was spent on a function outside of the card, answering its register accesses: it counts
 * against its share.
 */
void speckv_card_spend(struct speckv_card *card, unsigned int function, uint64_t ns);
/* Time spent on a function lately; halved every few milliseconds. */
uint64_t speckv_card_spent(const struct speckv_card *card, unsigned int function);

/*
 * Run at most `commands`, for some tens of microseconds. Functions on which less time was spent
 * lately come first, so that one with a command now and then does not wait for those that always
 * have many. Returns how many commands were started or completed.
 */
unsigned int speckv_card_run(struct speckv_card *card, unsigned int commands);
/*
 * When a command that waits wants to be looked at again; UINT64_MAX: only a doorbell can give the
 * card work.
 */
uint64_t speckv_card_next_ns(const struct speckv_card *card);
/*
 * Sets need_wake everywhere and looks at the tails again. False: there is work, and need_wake is 0
 * again.
 */
bool speckv_card_sleep(struct speckv_card *card);
void speckv_card_wake(struct speckv_card *card);
/*
 * Completions of this function that a peer has made no room for, or commands in flight: 0 when
 * idle. For limits and shutdown.
 */
unsigned int speckv_card_in_flight(const struct speckv_card *card, unsigned int function);
/* Has this function a queue pair that is enabled? */
bool speckv_card_in_use(const struct speckv_card *card, unsigned int function);
/*
 * How long, at least, doorbell memory is to be polled before speckv_card_sleep(); 0: for ever.
 * SPECKV_FEATURE_POLL_MICROSECONDS.
 */
uint64_t speckv_card_poll_ns(const struct speckv_card *card);

/*
 * The card was rebooted by a command (RESET_CARD, an activation). Read and cleared: the caller
 * re-enumerates what changed.
 */
bool speckv_card_rebooted(struct speckv_card *card);
/*
 * Has the running image an engine? Otherwise the factory personality: SPECKV_PCI_DEVICE_ID_FACTORY.
 */
bool speckv_card_has_engine(const struct speckv_card *card);
/* SPECKV_SLOT_* of the running image. */
unsigned int speckv_card_running_slot(const struct speckv_card *card);

/* ---- what a driver in front of the card does ------------------------------------------------ */

/* The pool of this uuid, as SPECKV_LOG_POOLS tells it. False: there is none. */
bool speckv_card_pool(const struct speckv_card *card, const uint8_t uuid[16],
	struct speckv_pool_description *out);
/* SPECKV_ADMIN_GRANT for all queue pairs of a function. -ENOENT: no such function or pool. */
int speckv_card_grant(struct speckv_card *card, unsigned int function, unsigned int pool,
	uint32_t rights);
/*
 * What the driver would tell: everything but `size`, `flags`, `queue_pairs` and `doorbell_offset`.
 */
void speckv_card_info(const struct speckv_card *card, struct speckv_ioc_info *out);

/* ---- flash, as it leaves the factory -------------------------------------------------------- */

/* A key that may sign bundles. */
struct speckv_card_key {
	uint8_t key[32]; /* Ed25519 public key */
	bool downgrade; /* its bundles may lower the security version */
};

/* Bytes of flash for bundles of this size. */
uint64_t speckv_card_flash_bytes(uint64_t slot_bytes);
/* Erase everything and write the key slots: protected from every command afterwards. */
int speckv_card_flash_provision(const struct speckv_card_ops *ops, void *arg, uint64_t flash_bytes,
	const struct speckv_card_key *keys, unsigned int count);

/* ---- environment and faults: CAPS.inject ---------------------------------------------------- */

void speckv_card_set_temperature(struct speckv_card *card, int32_t millicelsius);

enum speckv_card_fault {
	SPECKV_CARD_FAULT_LOST_INTERRUPT = 1, /* count */
	SPECKV_CARD_FAULT_DUPLICATE_INTERRUPT, /* count */
	SPECKV_CARD_FAULT_POISON, /* value: address in `pool`; count 0: heal it */
	SPECKV_CARD_FAULT_CORRECTED, /* count corrected memory errors */
	SPECKV_CARD_FAULT_TORN_PROGRAM, /* the next flash program stops after `value` bytes */
	SPECKV_CARD_FAULT_TORN_ERASE, /* the next flash erase stops after `value` bytes */
	/*
	 * the next `count` I/O commands take `value` nanoseconds longer; pool: 0, or only that
	 * one's
	 */
	SPECKV_CARD_FAULT_SLOW,
	SPECKV_CARD_FAULT_STUCK, /* the next `count` I/O commands never complete */
	SPECKV_CARD_FAULT_UNSTICK, /* those that hang go on */
	SPECKV_CARD_FAULT_BAD_BOOT, /* the next `count` first boots do not report healthy */
	SPECKV_CARD_FAULT_FATAL, /* value: cause of register FATAL_CAUSE */
	/* the next `count` I/O commands are carried out and not answered */
	SPECKV_CARD_FAULT_LOST_COMPLETION,
	SPECKV_CARD_FAULTS,
};
/* Returns 0, -EINVAL (fault), -ENOENT (no such pool or page). */
int speckv_card_inject(struct speckv_card *card, enum speckv_card_fault fault, unsigned int pool,
	uint64_t value, uint32_t count);

#endif

/* SPDX-License-Identifier: MIT */
/**
 * speckv/card.h - administration of cards: identity, health, logs, firmware, settings, tests,
 * prefetcher; and the process behind an emulated card.
 *
 * Card names: emu:NAME, an emulated card (speckvctl emu start NAME). Pools of a card are those of a
 * device: device.h, pool.h. Administration needs permission to open the card's admin socket;
 * without it speckv_admin_open() returns -EACCES.
 */
#ifndef SPECKV_CARD_PUBLIC_H
#define SPECKV_CARD_PUBLIC_H

#include <speckv/base.h>
#include <speckv/device.h>
#include <speckv/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A connection to a card's privileged queue pair. Threads: any; commands are serialized. */
struct speckv_admin;

/**
 * 1: `device` has the scheme of a card's name, whether or not the card exists; 0: any other name.
 * NULL is allowed.
 */
int speckv_device_is_card(const char *device);

/**
 * Connect to a card. Errors: -ENOENT (no such card), -ENXIO (not running), -EACCES, -EOPNOTSUPP
 * (not a card's name, or the listener is not a card), -EPROTONOSUPPORT (register map of another
 * major version), -ETIMEDOUT (does not answer), -EIO (stopped on a fatal error). Every function
 * here may also return -ECONNRESET and -ETIMEDOUT when the card disconnects or hangs within a
 * command: then only speckv_admin_close() is left.
 */
int speckv_admin_open(struct speckv_ctx *ctx, const char *card, struct speckv_admin **out);
/** Close, and release the firmware lock. NULL is allowed. */
void speckv_admin_close(struct speckv_admin *admin);

/* ---- what it is ----------------------------------------------------------------------------- */

/** Abilities of a card; bits of `abilities`. */
enum speckv_ability {
	SPECKV_ABILITY_ADMIN = 1 << 0,
	/** pools and codec; without it: the factory image only */
	SPECKV_ABILITY_ENGINE = 1 << 1,
	SPECKV_ABILITY_PREDICTOR = 1 << 2,
	SPECKV_ABILITY_DIRECTORY = 1 << 3,
	SPECKV_ABILITY_HDM = 1 << 4, /**< device memory visible as CXL memory */
	SPECKV_ABILITY_FLASH = 1 << 5,
	SPECKV_ABILITY_FLASH_SIGNATURE = 1 << 6, /**< verifies signatures itself */
	SPECKV_ABILITY_SHARED_DOORBELL = 1 << 7,
	SPECKV_ABILITY_PEER_DMA = 1 << 8, /**< reaches GPU memory */
	SPECKV_ABILITY_EMULATED = 1 << 9,
	SPECKV_ABILITY_INJECT = 1 << 10, /**< faults can be injected */
	SPECKV_ABILITY_THERMAL = 1 << 11,
};

/** Image slots. */
enum speckv_image {
	SPECKV_IMAGE_GOLDEN = 0, /**< the factory image: cannot be written */
	SPECKV_IMAGE_A = 1,
	SPECKV_IMAGE_B = 2,
	SPECKV_IMAGE_PREVIOUS = 3, /**< activation only: the image that ran before */
};

#define SPECKV_CARD_KEY_SLOTS 4

struct speckv_card_info {
	char name[SPECKV_NAME_BYTES * 4]; /**< as given: "emu:NAME" */
	char path[SPECKV_PATH_BYTES]; /**< folder or node */
	char model[40];
	char serial[40];
	char part[40]; /**< FPGA part, as a bundle's manifest names it */
	uint8_t uuid[SPECKV_UUID_BYTES];
	uint32_t map_major, map_minor; /**< register map */
	uint32_t rtl_major, rtl_minor, rtl_patch; /**< of the running image */
	uint32_t abilities; /**< bits of enum speckv_ability */
	uint32_t codec_modes; /**< bit map of modes */
	uint32_t running; /**< enum speckv_image */
	uint32_t security_version; /**< lowest accepted for a bundle */
	uint32_t pools, pools_max;
	uint32_t functions_max, queue_pairs_max, sessions;
	uint32_t transfer_bytes; /**< most raw bytes of one command */
	uint32_t has_model; /**< a prefetcher is loaded */
	uint32_t keys; /**< key slots in use */
	uint64_t build_id;
	uint64_t memory_bytes, memory_free_bytes;
	uint8_t model_digest[32]; /**< SHA-256 of the prefetcher's file */
	/** SHA-256 of each trusted bundle key: 32 bytes each */
	uint8_t key_ids[128];
};
int speckv_admin_info(struct speckv_admin *admin, struct speckv_card_info *info);

/** Bits of `conditions`; 0: healthy. */
enum speckv_condition {
	SPECKV_CONDITION_THROTTLED = 1 << 0,
	SPECKV_CONDITION_TRIPPED = 1 << 1,
	SPECKV_CONDITION_MEMORY = 1 << 2, /**< poisoned pages exist */
	SPECKV_CONDITION_FELL_BACK = 1 << 3, /**< runs another image than the one activated */
	SPECKV_CONDITION_FATAL = 1 << 4,
};

struct speckv_card_health {
	int32_t temperature_millicelsius, throttle_millicelsius, trip_millicelsius;
	uint32_t conditions;
	uint64_t uptime_ns;
	uint64_t power_cycles, unsafe_power_cycles;
	uint64_t corrected_errors, uncorrected_errors, poisoned_pages;
	uint64_t throttled_ns;
	uint64_t flash_erases; /**< of the most erased slot */
	/** I/O commands in progress, of all clients */
	uint32_t outstanding;
	/** The link, current and maximum; 0: not reported. */
	uint32_t link_megatransfers, link_lanes, link_megatransfers_most, link_lanes_most;
	uint32_t reserved;
};
int speckv_admin_health(struct speckv_admin *admin, struct speckv_card_health *health);

/**
 * Counters and latencies of the card, or of one pool by its number; named as those of a pool:
 * pool.h.
 */
int speckv_admin_stats(struct speckv_admin *admin, unsigned int pool, struct speckv_stats *stats);

/** Number of the pool of this name, as in logs and statistics of the card. Errors: -ENOENT. */
int speckv_admin_pool(struct speckv_admin *admin, const char *name, uint32_t *number);

/** Rights of one function to one pool. */
struct speckv_card_grant {
	uint32_t function;
	uint32_t queue; /**< 0xffff: every queue pair of the function */
	uint32_t pool; /**< its number */
	uint32_t can_write;
};
typedef int (*speckv_card_grant_cb)(const struct speckv_card_grant *grant, void *arg);
/**
 * List current rights to pools: the work that a reset of the card would interrupt. A non-zero
 * result of the callback stops, and is returned.
 */
int speckv_admin_grants(struct speckv_admin *admin, speckv_card_grant_cb cb, void *arg);

/* ---- logs ----------------------------------------------------------------------------------- */

struct speckv_card_event {
	uint64_t sequence, time_ns; /**< sequence: starts at 1 */
	uint32_t kind, severity; /**< speckv_card_event_name(), enum speckv_severity */
	uint32_t function, pool; /**< pool: its number; 0: none */
	uint64_t value;
	char text[104];
};
typedef int (*speckv_card_event_cb)(const struct speckv_card_event *event, void *arg);
/**
 * Events after a sequence number, oldest first; the card keeps the last 256. A non-zero result of
 * the callback stops, and is returned.
 */
int speckv_admin_events(struct speckv_admin *admin, uint64_t after, speckv_card_event_cb cb,
	void *arg);
/** "booted", "fell_back", ...; NULL when unknown. */
const char *speckv_card_event_name(unsigned int kind);

struct speckv_card_error {
	uint64_t sequence, time_ns;
	uint32_t function, queue; /**< queue 0xffff: the admin queue */
	uint32_t command_id, opcode;
	/** field: offset of the invalid field in the entry */
	uint32_t pool, field;
	uint32_t status, reserved;
	uint64_t address;
	char text[80]; /**< of the status */
};
typedef int (*speckv_card_error_cb)(const struct speckv_card_error *error, void *arg);
/** Failed commands; as speckv_admin_events(). */
int speckv_admin_errors(struct speckv_admin *admin, uint64_t after, speckv_card_error_cb cb,
	void *arg);

/* ---- firmware ------------------------------------------------------------------------------- */

enum speckv_image_state {
	SPECKV_IMAGE_EMPTY = 0,
	SPECKV_IMAGE_WRITING = 1, /**< a download is in progress, or was interrupted */
	SPECKV_IMAGE_WRITTEN = 2, /**< complete, not yet verified */
	SPECKV_IMAGE_VERIFIED = 3, /**< committed: may be activated */
	SPECKV_IMAGE_TRIAL = 4, /**< activated, has not reported healthy yet */
	SPECKV_IMAGE_GOOD = 5, /**< has booted and reported healthy */
	SPECKV_IMAGE_REJECTED = 6, /**< failed verification, or its first boot */
};

struct speckv_card_slot {
	uint32_t image, state; /**< enum speckv_image, enum speckv_image_state */
	uint32_t rtl_major, rtl_minor, rtl_patch;
	uint32_t security_version;
	uint32_t boots; /**< first boots attempted */
	uint32_t running;
	uint64_t build_id;
	uint64_t bitstream_bytes;
	uint64_t received_bytes; /**< of an uncommitted download */
	uint64_t committed_ns;
	uint8_t bitstream_sha256[32];
	uint8_t key_id[32]; /**< of the signer */
	char reason[80]; /**< REJECTED: why */
};
typedef int (*speckv_card_slot_cb)(const struct speckv_card_slot *slot, void *arg);
/** Golden, A, B. None on a card without flash. */
int speckv_admin_slots(struct speckv_admin *admin, speckv_card_slot_cb cb, void *arg);

enum speckv_lock_flags {
	/** report whether another process holds the lock; change nothing */
	SPECKV_LOCK_DRY_RUN = 1 << 0,
};
/** Take the card's firmware lock, until close. Errors: -EBUSY (names the holder), -EACCES. */
int speckv_admin_firmware_lock(struct speckv_admin *admin, unsigned int flags);
/**
 * How many bytes of this bundle a slot holds: the offset at which a download would resume. Errors:
 * -EBUSY (the running slot), -EOPNOTSUPP (no flash).
 */
int speckv_admin_firmware_received(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, uint64_t *received);
/**
 * Write a bundle to a slot, resuming an earlier download of the same bundle. The running image is
 * unaffected. Needs the firmware lock. A non-zero result of the callback stops between two pieces:
 * -ECANCELED. Errors: -EBUSY (the running slot), -EIO (flash), -EINVAL (empty, or larger than a
 * slot).
 */
int speckv_admin_firmware_download(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, speckv_progress_cb progress, void *arg);
enum speckv_commit_flags {
	SPECKV_COMMIT_DRY_RUN = 1 << 0, /**< verify only */
};
/**
 * Have the card verify a download and enter it in its boot record. Needs the firmware lock, except
 * for a dry run. Errors: -EINVAL (another part, or incomplete), -EBADMSG (digest, signature),
 * -EPERM (untrusted signer, or security version too low), -EIO (flash). Already committed: 0.
 */
int speckv_admin_firmware_commit(struct speckv_admin *admin, unsigned int image, const void *bundle,
	uint64_t bytes, unsigned int flags);
enum speckv_activation_need {
	SPECKV_ACTIVATED = 0, /**< the card reboots into it now */
	/** appears as another PCI device: reset the card and rescan */
	SPECKV_ACTIVATED_NEEDS_RESCAN = 1,
	SPECKV_ACTIVATED_NEEDS_POWER_CYCLE = 2,
};
struct speckv_activation {
	uint32_t need; /**< enum speckv_activation_need */
	uint32_t image; /**< enum speckv_image that boots next; never SPECKV_IMAGE_PREVIOUS */
	uint32_t engine; /**< 1: pools are usable once it runs; 0: it boots without an engine */
	uint32_t reserved;
};
enum speckv_activate_flags {
	SPECKV_ACTIVATE_DRY_RUN = 1 << 0, /**< the card's checks and reply; nothing is written */
};
/**
 * Boot an image: a slot with a committed bundle, the golden image, or the previous one; `bundle`
 * may be NULL for the latter two. Needs the firmware lock, except for a dry run. The reboot ends
 * every queue pair of the card. Golden always boots; below the card's security version it boots
 * without an engine. Errors: -EALREADY (already running, or no previous image), -EBUSY (nothing
 * committed in the slot), -EBADMSG (holds another bundle), -EPERM (no lock, or security version
 * below the card's), -EIO (flash). `out` may be NULL.
 */
int speckv_admin_firmware_activate(struct speckv_admin *admin, unsigned int image,
	const void *bundle, uint64_t bytes, unsigned int flags, struct speckv_activation *out);

/* ---- settings, tests, resets ---------------------------------------------------------------- */

enum speckv_setting {
	SPECKV_SETTING_THROTTLE_MILLICELSIUS = 1,
	/** bits 15:0 completions, 31:16 microseconds */
	SPECKV_SETTING_INTERRUPT_COALESCING = 2,
	SPECKV_SETTING_SCRUB_SECONDS = 3, /**< 0: off */
	SPECKV_SETTING_PREFETCH_BYTES_PER_SECOND = 4, /**< 0: no limit */
	SPECKV_SETTING_PREFETCH_DEPTH = 5, /**< 1..16; 0: adaptive */
	SPECKV_SETTING_RECALL_TIMEOUT_MS = 6,
	/** minimum polling of doorbells before the card sleeps; 0: forever */
	SPECKV_SETTING_POLL_MICROSECONDS = 7,
};
int speckv_admin_setting(struct speckv_admin *admin, unsigned int setting, int64_t *value);
enum speckv_set_flags {
	SPECKV_SET_SAVE = 1 << 0, /**< keep it over a power cycle */
};
/** Errors: -EINVAL (invalid value), -EIO (flash). */
int speckv_admin_set(struct speckv_admin *admin, unsigned int setting, int64_t value,
	unsigned int flags);

enum speckv_restart {
	SPECKV_RESTART_ENGINE = 1, /**< all queue pairs; pools stay */
	SPECKV_RESTART_CARD = 2, /**< reboots the card, and ends this connection's queue pair */
	SPECKV_RESTART_COUNTERS = 3, /**< resets the statistics */
};
int speckv_admin_reset(struct speckv_admin *admin, unsigned int what);
/**
 * Run every self-test of the card, a step each, as speckv_device_selftest(). Returns 0, or the
 * first failing step's error.
 */
int speckv_admin_selftest(struct speckv_admin *admin, speckv_selftest_cb cb, void *arg);

/* ---- prefetcher ----------------------------------------------------------------------------- */

/**
 * Load a model file. The previous model stays in use until the new one is complete. Errors:
 * -EALREADY (already loaded), -EILSEQ (not a model), -EINVAL (empty, or too large), -EOPNOTSUPP
 * (factory image).
 */
int speckv_admin_model_load(struct speckv_admin *admin, const void *file, uint64_t bytes,
	speckv_progress_cb progress, void *arg);
/** Errors: -EALREADY (none loaded). */
int speckv_admin_model_unload(struct speckv_admin *admin);

/* ---- the process behind an emulated card ---------------------------------------------------- */

/**
 * Send one command to the emulator process, and receive its reply, a line of JSON: "status",
 * "stop", "temperature MILLICELSIUS", "inject FAULT POOL VALUE COUNT". Errors: as
 * speckv_admin_open(), -EOPNOTSUPP (not an emulated card), -EINVAL (no such command or fault),
 * -ENOENT (the card has no such pool or page), -ENOSPC (`bytes` too small).
 */
int speckv_emu_control(struct speckv_ctx *ctx, const char *card, const char *command, char *answer,
	size_t bytes);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/*
 * speckv.h - the in-memory interface between software and a CXL-SpecKV card, and the driver's
 * ioctls. Version 0: free to change everywhere at once. Registers are in rtl/regs/speckv.rdl.
 * Usable from the kernel and from user space, C11 and C++.
 *
 * Layout: everything a card sees is little endian; every structure has its natural alignment and
 * names its padding, so 32- and 64-bit programs agree; speckv_layout.h asserts every offset. Fields
 * named `reserved`, and flag bits without a name, must be zero: the card answers
 * SPECKV_STATUS_INVALID otherwise, so that they can be defined later.
 *
 * Rings: software owns the slots from its tail up to the last sq_head of a completion, and the card
 * owns the others.
 * - Submission: fill the 64-byte entry, then store SQ_TAIL of the doorbell slot with release order.
 *   A card copies an entry once and checks the copy; later changes have no effect.
 * - Completion: the card writes its data, waits until those writes are acknowledged, writes the
 *   body of the completion, and last, with release order, `phase`. Software loads `phase` with
 *   acquire order; a slot is new when bit 0 differs from the previous round's (the ring starts
 *   zeroed, the first round writes 1). Then it stores CQ_HEAD.
 * - Commands of one queue pair start in order and may complete in any; SPECKV_CMD_FENCE makes one
 *   wait for all before it. Queue pairs have no order between them. A READ that was submitted after
 *   the completion of a WRITE sees it.
 * - Doorbell memory (SPECKV_CAP_SHARED_DOORBELL): the card polls it. Before it sleeps it stores
 *   need_wake = 1, fences and re-reads the tails. Software stores its tail, fences, loads
 *   need_wake, and kicks only if it is 1 (SPECKV_IOC_KICK, or the KICK register). The card stores
 *   0 when it wakes.
 *
 * Ownership: a client allocates page runs in pool-virtual space and trims them when a WRITE returns
 * the true length. The card maps pages, enforces pool bounds and the grant table, and zeroes pages
 * before they change owner. Buffers are addressed by index and offset in the queue pair's buffer
 * table, which only the driver (or the function's owner) can write.
 */
#ifndef _UAPI_SPECKV_H
#define _UAPI_SPECKV_H

#include <linux/ioctl.h>
#include <linux/types.h>

#if !defined(__KERNEL__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libspeckv runs on little-endian machines only"
#endif

/* ---- identification: PROVISIONAL: the vendor is the FPGA maker; the ids are not registered --- */

#define SPECKV_PCI_VENDOR_ID 0x1172
#define SPECKV_PCI_DEVICE_ID_CARD 0x5e4b
#define SPECKV_PCI_DEVICE_ID_FACTORY 0x5e40 /* as delivered: flash and identification only */
#define SPECKV_PCI_CLASS 0x120000 /* processing accelerator */
#define SPECKV_CLASS_NAME "speckv" /* driver, device class; nodes are /dev/speckvN */
#define SPECKV_MAGIC 0x564b5053 /* register MAGIC: "SPKV" */
#define SPECKV_MAP_MAJOR 0 /* register MAP_VERSION: software refuses another major version */
#define SPECKV_MAP_MINOR 0

/* Register CAPS, and `caps` of struct speckv_identify. */
#define SPECKV_CAP_ADMIN (1u << 0)
#define SPECKV_CAP_ENGINE (1u << 1)
#define SPECKV_CAP_PREDICTOR (1u << 2)
#define SPECKV_CAP_DIRECTORY (1u << 3)
#define SPECKV_CAP_HDM (1u << 4)
#define SPECKV_CAP_FLASH (1u << 5)
#define SPECKV_CAP_FLASH_SIGNATURE (1u << 6)
#define SPECKV_CAP_SHARED_DOORBELL (1u << 7)
#define SPECKV_CAP_PEER_DMA (1u << 8)
#define SPECKV_CAP_EMULATED (1u << 9)
#define SPECKV_CAP_INJECT (1u << 10)
#define SPECKV_CAP_THERMAL (1u << 11)

/* ---- rings, doorbells, buffers -------------------------------------------------------------- */

#define SPECKV_SQE_BYTES 64
#define SPECKV_CQE_BYTES 16
#define SPECKV_DOORBELL_SLOTS 16
#define SPECKV_QUEUE_LOG2_MAX 14
#define SPECKV_EVENT_COMMAND_ID 0xffff /* no command has it: the completion is an event */

/* Common head of all submission entries. */
struct speckv_sqe {
	__u8 opcode; /* SPECKV_ADMIN_* on the admin queue, SPECKV_IO_* on the others */
	__u8 flags; /* SPECKV_CMD_*, and the opcode's own from bit 2 on */
	__le16 command_id; /* returned in the completion; unique among the commands in flight */
	__le16 pool; /* pool number; 0: none */
	__le16 buffer; /* I/O: index in the buffer table; admin: reserved */
	__u8 body[56];
};

/* start when all earlier commands of this queue pair have completed */
#define SPECKV_CMD_FENCE (1u << 0)
#define SPECKV_CMD_QUIET (1u << 1) /* no interrupt for this completion */

struct speckv_cqe {
	__aligned_le64 result; /* defined by the opcode; 0 on error */
	__le16 sq_head; /* entries before it have been copied: their slots are free */
	__le16 command_id;
	__le16 status; /* SPECKV_STATUS_*; events: SPECKV_NOTICE_* */
	__le16 phase; /* bit 0: phase; written last */
};

/* Events that arrive in an I/O completion ring (command_id SPECKV_EVENT_COMMAND_ID). */
/* result: bits 47:0 address, 63:48 pool; answer: WRITEBACK_RELEASE */
#define SPECKV_NOTICE_RECALL 1
/* result: pool. A grant was revoked; commands on the pool fail from now on */
#define SPECKV_NOTICE_REVOKED 2
#define SPECKV_NOTICE_EVENTS 3 /* result: sequence. The event log has grown */

/* One queue pair's doorbells, a cache line of its own. */
struct speckv_doorbell {
	__le32 sq_tail; /* index after the last valid entry, modulo the ring */
	__le32 cq_head; /* index after the last consumed completion, modulo the ring */
	__u8 reserved[56];
};

/*
 * One client's doorbells: a page of BAR0, or of shared memory. Queue pair n is slot n % 16 of page
 * n / 16.
 */
struct speckv_doorbell_page {
	struct speckv_doorbell slot[SPECKV_DOORBELL_SLOTS];
	__u8 reserved0[1024];
	__le32 need_wake; /* written by the card: 1, it sleeps and needs a kick */
	__u8 reserved1[2044];
};

/*
 * One entry of a queue pair's buffer table. Written before its index is used, changed only after
 * BUFFER_INVALIDATE.
 */
struct speckv_buffer_entry {
	__aligned_le64 address; /* bus address, aligned to 4096 */
	__aligned_le64 bytes;
	__le32 flags; /* SPECKV_BUFFER_*; 0: not in use */
	__le32 reserved0;
	__aligned_le64 reserved1;
};

#define SPECKV_BUFFER_CARD_READS (1u << 0) /* source of WRITE */
#define SPECKV_BUFFER_CARD_WRITES (1u << 1) /* destination of READ, PREFETCH, scores */
#define SPECKV_BUFFER_PEER (1u << 2) /* memory of a GPU */

/* ---- I/O commands --------------------------------------------------------------------------- */

#define SPECKV_IO_NOP 0x00 /* speckv_cmd_bare; completes: for tests and keep-alive */
#define SPECKV_IO_WRITE 0x01 /* speckv_cmd_write; result: true length of the frame */
#define SPECKV_IO_READ 0x02 /* speckv_cmd_read; result: bytes written to the buffer */
#define SPECKV_IO_COPY 0x03 /* speckv_cmd_copy; result: bytes of the frame */
/* speckv_cmd_read; result: bytes staged, 0 when it was dropped for lack of bandwidth */
#define SPECKV_IO_PREFETCH 0x04
/* speckv_cmd_range; completes when no agent holds a copy and the headers are zeroed */
#define SPECKV_IO_INVALIDATE 0x05
#define SPECKV_IO_ACQUIRE_SHARED 0x06 /* speckv_cmd_range */
/* speckv_cmd_range: an unsealed fill; fails on sealed frames */
#define SPECKV_IO_ACQUIRE_EXCLUSIVE 0x07
#define SPECKV_IO_WRITEBACK 0x08 /* speckv_cmd_range */
/* speckv_cmd_bare; completes when this queue pair's earlier writes are durable */
#define SPECKV_IO_FLUSH 0x09
#define SPECKV_IO_TOUCH 0x0a /* speckv_cmd_touch */
#define SPECKV_IO_PREDICT 0x0b /* speckv_cmd_predict; result: prefetches issued */

struct speckv_cmd_bare {
	__u8 opcode;
	__u8 flags;
	__le16 command_id;
	__le16 pool;
	__le16 buffer;
	__u8 reserved[56];
};

/*
 * Encode one raw block of the pool's shape and store the frame, sealed. The identity is in a
 * registered buffer (struct speckv_block_identity, aligned to 64) and is copied once. On failure
 * nothing is published.
 */
struct speckv_cmd_write {
	__u8 opcode;
	__u8 flags; /* SPECKV_WRITE_* */
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* of the raw block */
	__aligned_le64 address; /* pool-virtual, at the start of a page */
	__aligned_le64 buffer_offset; /* aligned to 64 */
	__le32 bytes; /* in the buffer: the raw block, or the frame */
	__le32 capacity; /* bytes of the page run at `address`; too few: SPECKV_STATUS_NO_ROOM */
	__aligned_le64 identity_offset;
	__le16 identity_buffer;
	__u8 codec; /* values: libspeckv/codec/FORMAT.md */
	__u8 reserved0;
	__u8 reserved1[20];
};

/* the buffer holds a frame encoded by the host: verified, then stored unchanged */
#define SPECKV_WRITE_FRAME (1u << 2)
#define SPECKV_WRITE_FILL (1u << 3) /* raw bytes into a fill held exclusively; no identity */

struct speckv_block_identity {
	__u8 key[32];
	__aligned_le64 generation; /* of the page run */
	__aligned_le64 first_position; /* position of the first token */
	/* tenant charged by the host: stored in the frame, not interpreted by the card */
	__le32 tenant;
	__u8 reserved[12];
};

/*
 * READ: verify and decode layers [layer_first, layer_first + layer_count) into the buffer.
 * PREFETCH: the same ahead of need, with low priority. Pool, address, generation and the key's
 * first 16 bytes must match the frame's, otherwise the status is NOT_FOUND.
 */
struct speckv_cmd_read {
	__u8 opcode;
	__u8 flags; /* SPECKV_READ_* */
	__le16 command_id;
	__le16 pool;
	__le16 buffer;
	__aligned_le64 address;
	__aligned_le64 buffer_offset; /* aligned to 64 */
	__le32 capacity; /* bytes of the buffer from there on */
	__le16 layer_first;
	__le16 layer_count; /* 0: all */
	__aligned_le64 generation;
	__u8 key_prefix[16];
	__le32 deadline_us; /* PREFETCH: dropped after this time; 0: no limit */
	__le32 reserved;
};

#define SPECKV_READ_FRAME (1u << 2) /* the frame as stored: verified, not decoded */
#define SPECKV_READ_STAGE (1u << 3) /* PREFETCH: into the card's own staging memory, no buffer */

/*
 * Copy a sealed frame, within a pool or between two; the copy's header names its new place. Both
 * pools must be granted.
 */
struct speckv_cmd_copy {
	__u8 opcode;
	__u8 flags;
	__le16 command_id;
	__le16 pool; /* source */
	__le16 destination_pool;
	__aligned_le64 address;
	__aligned_le64 destination_address;
	__aligned_le64 generation;
	__aligned_le64 destination_generation;
	__le32 capacity; /* bytes of the destination's page run */
	__le32 reserved;
	__u8 key_prefix[16];
};

struct speckv_cmd_range {
	__u8 opcode;
	__u8 flags; /* SPECKV_WRITEBACK_* */
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 address;
	__aligned_le64 bytes; /* whole pages */
	__aligned_le64 generation; /* INVALIDATE: 0 matches any block in the range */
	__u8 reserved[32];
};

/* the fill holds a complete frame with its identity: publish it, shared */
#define SPECKV_WRITEBACK_SEAL (1u << 2)
/* drop every hold on the range: the answer to a recall */
#define SPECKV_WRITEBACK_RELEASE (1u << 3)

#define SPECKV_FEATURES 32
#define SPECKV_CANDIDATES 64

/*
 * Mark a frame as recently used; with features, advance the session's recurrent state by one step.
 */
struct speckv_cmd_touch {
	__u8 opcode;
	__u8 flags;
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 address;
	__aligned_le64 generation;
	__le32 session; /* slot; SPECKV_NO_SESSION: only mark the frame */
	__u8 feature_count; /* 0: no step; otherwise the count of the loaded model */
	__u8 reserved[3];
	__s8 features[SPECKV_FEATURES];
};

#define SPECKV_NO_SESSION 0xffffffffu

/*
 * Score candidates for a session, in place. With a model, and a session that has taken a step with
 * it: the probability that the session returns within the model's window, in units of 2^-30, the
 * same for all frames present. Otherwise, or while the pool's guard is engaged
 * (SPECKV_FEATURE_POOL_PREFETCH): by recency, the most recently used first, never above 0.
 */
struct speckv_cmd_predict {
	__u8 opcode;
	__u8 flags; /* SPECKV_PREDICT_* */
	__le16 command_id;
	__le16 pool;
	__le16 buffer;
	/* struct speckv_candidate[candidate_count], aligned to 64 */
	__aligned_le64 candidates_offset;
	__le32 session;
	__u8 candidate_count; /* at most SPECKV_CANDIDATES */
	/* 0: score with the current state; otherwise take a step first, as in TOUCH */
	__u8 feature_count;
	__u8 depth; /* 1..16: most blocks staged; the pool's own depth may be less */
	__u8 reserved0;
	__s8 features[SPECKV_FEATURES];
	__le32 budget_bytes; /* SPECKV_PREDICT_STAGE: most raw bytes staged */
	__le32 reserved1;
};

#define SPECKV_PREDICT_STAGE (1u << 2) /* stage the best candidates in the card's memory */
#define SPECKV_PREDICT_RESET (1u << 3) /* reset the session's state first */

struct speckv_candidate {
	__aligned_le64 tag; /* opaque to the card */
	__aligned_le64 address;
	__aligned_le64 generation;
	__le32 bytes; /* of the frame */
	__le32 score; /* out, signed: larger is more likely; -2^31: frame absent */
};

/* ---- admin commands: the privileged queue pair only ----------------------------------------- */

#define SPECKV_ADMIN_IDENTIFY 0x01 /* speckv_cmd_data; data out: struct speckv_identify */
/* speckv_cmd_log; data out: struct speckv_log_header and entries; result: bytes */
#define SPECKV_ADMIN_GET_LOG 0x02
/* speckv_cmd_data; in: speckv_pool_description; result: pool number */
#define SPECKV_ADMIN_CREATE_POOL 0x03
/* speckv_cmd_pool; BUSY while frames lie above; result: capacity */
#define SPECKV_ADMIN_RESIZE_POOL 0x04
#define SPECKV_ADMIN_DELETE_POOL 0x05 /* speckv_cmd_pool; completes when its pages are zeroed */
#define SPECKV_ADMIN_SANITIZE 0x06 /* speckv_cmd_pool; `action` says what; result: bytes zeroed */
#define SPECKV_ADMIN_LOAD_MODEL 0x07 /* speckv_cmd_model; data in: a part of the model file */
/* speckv_cmd_firmware; in: a piece of a bundle; result: bytes received so far */
#define SPECKV_ADMIN_FW_DOWNLOAD 0x08
/* speckv_cmd_firmware; verifies, then writes the boot record last */
#define SPECKV_ADMIN_FW_COMMIT 0x09
/* speckv_cmd_firmware; result: SPECKV_ACTIVATION_*, and which slot */
#define SPECKV_ADMIN_FW_ACTIVATE 0x0a
/* speckv_cmd_value: SPECKV_TEST_* bits; result: those that failed */
#define SPECKV_ADMIN_SELF_TEST 0x0b
#define SPECKV_ADMIN_SET_FEATURE 0x0c /* speckv_cmd_value */
#define SPECKV_ADMIN_GET_FEATURE 0x0d /* speckv_cmd_value; result: the value */
#define SPECKV_ADMIN_RESET 0x0e /* speckv_cmd_value: SPECKV_RESET_* */
#define SPECKV_ADMIN_GRANT 0x0f /* speckv_cmd_grant */

/* Data of admin commands is one contiguous range of bus addresses. */
struct speckv_cmd_data {
	__u8 opcode;
	__u8 flags;
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 data_address; /* aligned to 64 */
	__le32 data_bytes;
	__u8 reserved[44];
};

struct speckv_cmd_log {
	__u8 opcode;
	__u8 flags; /* SPECKV_LOG_CLEAR */
	__le16 command_id;
	/* SPECKV_LOG_COUNTERS: of this pool, 0: of the card; SPECKV_LOG_BLOCKS: of this pool */
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 data_address; /* aligned to 64 */
	__le32 data_bytes; /* only whole entries are written */
	__le16 log; /* SPECKV_LOG_* */
	__le16 reserved0;
	/*
	 * Entries with a larger sequence only; logs without sequences: entries to skip;
	 * SPECKV_LOG_BLOCKS: the first address.
	 */
	__aligned_le64 after;
	__u8 reserved1[32];
};

#define SPECKV_LOG_CLEAR (1u << 2) /* SPECKV_LOG_COUNTERS: reset to zero after the read */

struct speckv_cmd_pool {
	__u8 opcode;
	__u8 flags; /* SPECKV_POOL_DRY_RUN */
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 capacity_bytes; /* RESIZE_POOL */
	__u8 uuid[16]; /* of the pool: a reused number is refused */
	__le32 action; /* SANITIZE: SPECKV_SANITIZE_* */
	__u8 reserved[28];
};

#define SPECKV_POOL_DRY_RUN (1u << 2) /* run all checks, change nothing */

#define SPECKV_SANITIZE_FREE 1 /* device memory of no pool */
#define SPECKV_SANITIZE_POOL 2 /* contents of `pool`; the pool stays */
#define SPECKV_SANITIZE_ALL 3 /* every pool, model, log and statistic; `uuid` is the card's */

struct speckv_cmd_model {
	__u8 opcode;
	__u8 flags; /* SPECKV_MODEL_* */
	__le16 command_id;
	__le16 pool;
	__le16 buffer; /* reserved */
	__aligned_le64 data_address; /* aligned to 64 */
	__le32 data_bytes;
	__le32 offset; /* of this part in the file; parts come in order */
	__le32 total_bytes;
	__le32 reserved;
	/* SHA-256 of the whole file (of train-prefetcher), checked with the last part */
	__u8 digest[32];
};

#define SPECKV_MODEL_UNLOAD (1u << 2) /* unload: no data; sessions fall back to LRU */

struct speckv_cmd_firmware {
	__u8 opcode;
	__u8 flags; /* SPECKV_FW_* */
	__le16 command_id;
	__le16 slot; /* SPECKV_SLOT_* */
	__le16 reserved;
	/* DOWNLOAD; aligned to 64; 0, as the following, in the others */
	__aligned_le64 data_address;
	__le32 data_bytes; /* 0: only report how much of this bundle was received */
	__le32 data_crc32c; /* of this piece */
	/* of this piece; pieces arrive in order, and a download resumes at the result */
	__le32 offset;
	__le32 total_bytes; /* of the bundle */
	/* SHA-256 of the bundle, as it lies in a file; ACTIVATE of PREVIOUS and GOLDEN: zero */
	__u8 digest[32];
};

#define SPECKV_FW_RESTART (1u << 2) /* DOWNLOAD: discard what was received, erase the slot */
/* COMMIT, ACTIVATE: run all checks and return the result, write nothing */
#define SPECKV_FW_DRY_RUN (1u << 3)

#define SPECKV_SLOT_GOLDEN 0 /* ACTIVATE only */
#define SPECKV_SLOT_A 1
#define SPECKV_SLOT_B 2
#define SPECKV_SLOT_PREVIOUS 3 /* ACTIVATE only: the slot that ran before */
/*
 * Result of ACTIVATE: bits 7:0 what it needs, bits 15:8 the slot that boots next (never PREVIOUS),
 * bit 16 set if that slot has an engine.
 */
#define SPECKV_ACTIVATION_DONE 0
#define SPECKV_ACTIVATION_NEEDS_RESCAN 1
#define SPECKV_ACTIVATION_NEEDS_POWER_CYCLE 2
#define SPECKV_ACTIVATION_MASK 0xffu
#define SPECKV_ACTIVATION_SLOT_SHIFT 8
#define SPECKV_ACTIVATION_ENGINE (1u << 16)

struct speckv_cmd_value {
	__u8 opcode;
	__u8 flags; /* SPECKV_FEATURE_SAVE */
	__le16 command_id;
	__le16 pool; /* features of a pool */
	__le16 feature; /* SPECKV_FEATURE_*; other opcodes: reserved */
	__aligned_le64 value; /* SELF_TEST: tests; RESET: what; SET_FEATURE: the value */
	__u8 reserved[48];
};

#define SPECKV_FEATURE_SAVE (1u << 2) /* SET_FEATURE: persist over a power cycle */

#define SPECKV_FEATURE_THROTTLE_MILLICELSIUS 0x01 /* signed; below the trip temperature */
#define SPECKV_FEATURE_INTERRUPT_COALESCING 0x02 /* bits 15:0 completions, 31:16 microseconds */
#define SPECKV_FEATURE_SCRUB_SECONDS 0x03 /* period of a full scrub of the memory; 0: off */
#define SPECKV_FEATURE_PREFETCH_BYTES_PER_SECOND 0x04
#define SPECKV_FEATURE_PREFETCH_DEPTH 0x05 /* 1..16; 0: adaptive, for each pool */
/* an agent that has not answered a recall by then is fenced */
#define SPECKV_FEATURE_RECALL_TIMEOUT_MS 0x06
/* time to poll doorbell memory before need_wake; 0: never sleeps */
#define SPECKV_FEATURE_POLL_MICROSECONDS 0x07
#define SPECKV_FEATURE_POOL_QUOTA_BYTES 0x10 /* of a pool, as the following */
#define SPECKV_FEATURE_POOL_GUARANTEED_BYTES_PER_SECOND 0x11
#define SPECKV_FEATURE_POOL_BURST_BYTES_PER_SECOND 0x12
#define SPECKV_FEATURE_POOL_EVICTION 0x13
#define SPECKV_FEATURE_POOL_OWNER 0x14 /* bits 31:0 uid, 63:32 gid */
#define SPECKV_FEATURE_POOL_MODE 0x15 /* permission bits */
/*
 * Read only. Bits 7:0 current depth, 8 guard engaged: recency instead of the model; of the last
 * prefetches (at most 16) 23:16 settled, 31:24 of these used; of the last contests with recency (at
 * most 64) 39:32 decided, 47:40 won by the model; 63:48 number of times the guard engaged.
 */
#define SPECKV_FEATURE_POOL_PREFETCH 0x16

#define SPECKV_TEST_MEMORY (1u << 0)
#define SPECKV_TEST_DMA (1u << 1)
#define SPECKV_TEST_CODEC (1u << 2) /* every mode against its golden vectors */
#define SPECKV_TEST_TRANSLATION (1u << 3)
#define SPECKV_TEST_PREDICTOR (1u << 4)
#define SPECKV_TEST_FLASH (1u << 5) /* reads and verifies both slots */
#define SPECKV_TESTS 6

#define SPECKV_RESET_ENGINE 1 /* all queue pairs but this one; pools stay */
#define SPECKV_RESET_CARD 2 /* reboots the card; the completion comes first */
#define SPECKV_RESET_COUNTERS 3

/*
 * Grant one queue pair, or all of one function, rights to a pool. Rights 0 revokes the grant, after
 * its DMA has drained. A reset of the function revokes all its grants.
 */
struct speckv_cmd_grant {
	__u8 opcode;
	__u8 flags;
	__le16 command_id;
	__le16 pool;
	__le16 function; /* register FUNCTION */
	__le16 queue; /* SPECKV_ALL_QUEUES: all of the function, including those created later */
	__le16 reserved0;
	__le32 rights; /* SPECKV_RIGHT_* */
	__u8 uuid[16]; /* of the pool */
	__u8 reserved1[32];
};

#define SPECKV_ALL_QUEUES 0xffff
#define SPECKV_RIGHT_READ (1u << 0) /* READ, PREFETCH, ACQUIRE_SHARED, TOUCH, PREDICT, COPY from */
#define SPECKV_RIGHT_WRITE (1u << 1) /* the others, COPY to */

/* ---- status codes: `status` of a completion; the errno that the library returns is beside --- */

#define SPECKV_STATUS_OK 0x000
#define SPECKV_STATUS_INVALID_OPCODE 0x001 /* EOPNOTSUPP */
#define SPECKV_STATUS_INVALID 0x002 /* EINVAL: a field has an invalid value */
#define SPECKV_STATUS_COMMAND_ID_IN_USE 0x003 /* EEXIST */
#define SPECKV_STATUS_ABORTED 0x004 /* ECANCELED: queue pair disabled, or reset */
#define SPECKV_STATUS_INTERNAL 0x005 /* EIO */
#define SPECKV_STATUS_BUSY 0x006 /* EBUSY */
#define SPECKV_STATUS_DENIED 0x007 /* EACCES: no grant, or not the right */
#define SPECKV_STATUS_NOT_READY 0x008 /* EAGAIN */
#define SPECKV_STATUS_TIMEOUT 0x009 /* ETIMEDOUT */
#define SPECKV_STATUS_NO_ENGINE 0x00a /* EOPNOTSUPP: factory personality */
#define SPECKV_STATUS_BAD_BUFFER 0x101 /* EFAULT: index, bounds or direction */
#define SPECKV_STATUS_DMA_ERROR 0x102 /* EFAULT: the bus refused the transfer */
#define SPECKV_STATUS_TRANSLATION_FAULT 0x103 /* ERANGE: beyond the pool, or page not mapped */
#define SPECKV_STATUS_NO_ROOM 0x104 /* ENOSPC: the frame is longer than its page run */
#define SPECKV_STATUS_NOT_FOUND 0x105 /* ENOENT: no frame of this identity there */
#define SPECKV_STATUS_CORRUPT 0x106 /* EBADMSG: a checksum did not verify */
/* ENODATA: the mode cannot represent these values; nothing was published */
#define SPECKV_STATUS_NONFINITE 0x107
#define SPECKV_STATUS_NO_CODEC 0x108 /* EOPNOTSUPP: the card lacks this mode */
#define SPECKV_STATUS_CONFLICT 0x109 /* EBUSY: another agent holds it exclusively */
#define SPECKV_STATUS_SEALED 0x10a /* EROFS */
#define SPECKV_STATUS_POISONED 0x10b /* EIO: device memory has an uncorrectable error there */
#define SPECKV_STATUS_FENCED 0x10c /* EOWNERDEAD: this queue pair did not answer a recall */
#define SPECKV_STATUS_QUOTA 0x10d /* EDQUOT */
#define SPECKV_STATUS_NO_MODEL 0x10e /* ENODATA: no prefetcher loaded */
#define SPECKV_STATUS_NO_POOL 0x201 /* ENOENT: number or uuid */
#define SPECKV_STATUS_POOL_EXISTS 0x202 /* EEXIST */
#define SPECKV_STATUS_NO_MEMORY 0x203 /* ENOSPC: device memory */
#define SPECKV_STATUS_NO_SLOT 0x204 /* EUSERS: pools, grants or queue pairs are used up */
#define SPECKV_STATUS_UNCHANGED 0x205 /* EALREADY */
#define SPECKV_STATUS_NO_LOG 0x206 /* EINVAL */
#define SPECKV_STATUS_NO_FEATURE 0x207 /* EINVAL */
#define SPECKV_STATUS_BAD_MODEL 0x208 /* EILSEQ: shape, digest or format */
#define SPECKV_STATUS_TEST_FAILED 0x209 /* EIO: see SPECKV_LOG_SELF_TEST */
/* EINVAL: piece out of order (a DOWNLOAD of 0 bytes returns the next offset); COMMIT: incomplete */
#define SPECKV_STATUS_FW_OFFSET 0x301
#define SPECKV_STATUS_FW_PART 0x302 /* EINVAL: the bundle is for another card */
#define SPECKV_STATUS_FW_DIGEST 0x303 /* EBADMSG */
#define SPECKV_STATUS_FW_SIGNATURE 0x304 /* EBADMSG */
#define SPECKV_STATUS_FW_KEY 0x305 /* EPERM: signed by a key that the card does not trust */
#define SPECKV_STATUS_FW_DOWNGRADE 0x306 /* EPERM: security version below the card's */
/* EBUSY: the running slot, or one that holds nothing committed */
#define SPECKV_STATUS_FW_SLOT 0x307
#define SPECKV_STATUS_FW_FLASH 0x308 /* EIO: erase or write failed */

/* ---- data structures of admin commands ------------------------------------------------------ */

/* Shape of one block: struct speckv_geometry of libspeckv. */
struct speckv_shape {
	__le16 layers;
	__le16 kv_heads;
	__le16 head_dim;
	__le16 tokens;
	__u8 dtype;
	__u8 reserved[7];
};

struct speckv_identify {
	__le16 version; /* 0 */
	__le16 function; /* number of this function */
	__le32 bytes; /* valid bytes of this structure */
	__u8 uuid[16];
	char model[32]; /* text, zero-padded */
	char serial[32];
	char part[32]; /* FPGA part, as a bundle's manifest names it */
	__le32 map_version; /* the registers' values */
	__le32 rtl_revision;
	__aligned_le64 build_id;
	__le32 caps;
	__le32 codec_modes;
	__aligned_le64 memory_bytes;
	__aligned_le64 memory_free_bytes;
	__le16 pools_max;
	__le16 pools;
	__le16 functions_max;
	__le16 queue_pairs_max; /* of the card */
	__le32 sessions;
	__le32 transfer_bytes; /* most raw bytes of one command */
	__u8 page_log2_min;
	__u8 page_log2_max;
	__u8 queue_log2_max;
	__u8 key_slots; /* keys that may sign bundles */
	__le16 buffers_max; /* of one queue pair */
	__u8 running_slot; /* SPECKV_SLOT_* */
	__u8 reserved0;
	__le32 security_version;
	__le32 commit_timeout_ms; /* upper bound on the time of FW_COMMIT */
	__u8 model_digest[32]; /* of the prefetcher that is loaded; zero: none */
	__u8 key_digests[4][32]; /* SHA-256 of the public keys in the key slots */
	__u8 reserved1[3744];
};

/*
 * Description of a pool: input of CREATE_POOL, entry of SPECKV_LOG_POOLS. Fields marked out are
 * zero in CREATE_POOL.
 */
struct speckv_pool_description {
	char name[64]; /* [A-Za-z0-9._-], no leading dot, zero-padded */
	__u8 uuid[16]; /* chosen by the creator */
	__aligned_le64 capacity_bytes;
	__aligned_le64 max_bytes; /* limit of RESIZE_POOL; 0: no reserve */
	__aligned_le64 quota_bytes; /* stored bytes; 0: capacity */
	__aligned_le64 guaranteed_bytes_per_second;
	__aligned_le64 burst_bytes_per_second; /* 0: no limit */
	struct speckv_shape shape;
	__le32 page_bytes;
	__le32 codec;
	__le32 eviction;
	__le32 uid;
	__le32 gid;
	__le32 mode; /* permission bits; the driver maps them to grants */
	__le32 pool_flags; /* SPECKV_POOL_FLAG_* */
	__le16 pool; /* out: its number */
	__le16 state; /* out: 1 active, 2 creating, 3 resizing, 4 destroying */
	__aligned_le64 generation; /* out: increases with every pool created on this card */
	__aligned_le64 created_ns; /* out */
	__aligned_le64 used_bytes; /* out: pages mapped to frames and fills */
	__aligned_le64 stored_bytes; /* out */
	__aligned_le64 raw_bytes; /* out */
	__aligned_le64 blocks; /* out */
	__u8 reserved[40];
};

#define SPECKV_POOL_FLAG_SINGLE_TENANT (1u << 0)

#define SPECKV_LOG_HEALTH 0x01 /* one struct speckv_log_health */
#define SPECKV_LOG_ERRORS 0x02 /* struct speckv_log_error */
#define SPECKV_LOG_EVENTS 0x03 /* struct speckv_log_event */
#define SPECKV_LOG_POOLS 0x04 /* struct speckv_pool_description */
#define SPECKV_LOG_FLASH 0x05 /* struct speckv_log_slot: golden, A, B */
#define SPECKV_LOG_SELF_TEST 0x06 /* struct speckv_log_test, of the last run */
#define SPECKV_LOG_GRANTS 0x07 /* struct speckv_log_grant */
#define SPECKV_LOG_COUNTERS 0x08 /* one struct speckv_log_counters */
/* struct speckv_log_block: the sealed blocks of `pool`, by address */
#define SPECKV_LOG_BLOCKS 0x09

struct speckv_log_header {
	__le16 log;
	__le16 version; /* 0 */
	__le32 entry_bytes; /* may be larger on a newer card: step by this */
	__le32 entries; /* that follow */
	__le32 lost; /* entries after `after` that the ring has dropped */
	/* sequence of the newest entry; SPECKV_LOG_BLOCKS: address to resume from, 0: complete */
	__aligned_le64 last;
	__aligned_le64 time_ns; /* the card's clock */
};

struct speckv_log_health {
	__le32 temperature_millicelsius; /* signed, as the following two */
	__le32 throttle_millicelsius;
	__le32 trip_millicelsius;
	__le32 state; /* SPECKV_HEALTH_*; 0: healthy */
	__aligned_le64 uptime_ns;
	__aligned_le64 power_cycles;
	__aligned_le64 unsafe_power_cycles; /* without a shutdown */
	__aligned_le64 corrected_errors;
	__aligned_le64 uncorrected_errors;
	__aligned_le64 throttled_ns;
	__aligned_le64 poisoned_pages;
	__aligned_le64 flash_erases; /* of the slot that was erased most often */
	__le32 outstanding; /* I/O commands submitted and not completed, of all functions */
	__u8 reserved[44];
};

#define SPECKV_HEALTH_THROTTLED (1u << 0)
#define SPECKV_HEALTH_TRIPPED (1u << 1)
#define SPECKV_HEALTH_MEMORY (1u << 2) /* uncorrectable errors: poisoned pages exist */
#define SPECKV_HEALTH_FELL_BACK (1u << 3) /* not running the requested image */
#define SPECKV_HEALTH_FATAL (1u << 4)

struct speckv_log_error {
	__aligned_le64 sequence; /* starts at 1 */
	__aligned_le64 time_ns;
	__le16 function;
	__le16 queue; /* SPECKV_ALL_QUEUES: the admin queue */
	__le16 command_id;
	__le16 status;
	__u8 opcode;
	__u8 reserved0;
	__le16 pool;
	__le32 field; /* INVALID: offset of the field in the entry */
	__aligned_le64 address;
	__u8 reserved1[24];
};

struct speckv_log_event {
	__aligned_le64 sequence; /* starts at 1 */
	__aligned_le64 time_ns;
	__le16 kind; /* SPECKV_CARD_* */
	__le16 severity; /* 0 information, 1 warning, 2 error */
	__le16 function;
	__le16 pool;
	__aligned_le64 value;
	char text[96]; /* zero-padded */
};

#define SPECKV_CARD_BOOTED 1 /* value: slot */
#define SPECKV_CARD_FELL_BACK 2 /* value: slot that failed */
#define SPECKV_CARD_RESET 3
#define SPECKV_CARD_FATAL 4 /* value: FATAL_CAUSE */
#define SPECKV_CARD_THROTTLED 5 /* value: millidegrees Celsius */
#define SPECKV_CARD_COOLED 6
#define SPECKV_CARD_POISONED 7 /* value: address in the pool */
#define SPECKV_CARD_CORRUPT 8 /* value: address of the frame */
#define SPECKV_CARD_FENCED 9 /* value: queue pair */
#define SPECKV_CARD_POOL_CREATED 10
#define SPECKV_CARD_POOL_RESIZED 11
#define SPECKV_CARD_POOL_DELETED 12
#define SPECKV_CARD_SANITIZED 13
#define SPECKV_CARD_MODEL_LOADED 14
#define SPECKV_CARD_MODEL_UNLOADED 15
#define SPECKV_CARD_FW_COMMITTED 16 /* value: slot */
#define SPECKV_CARD_FW_REJECTED 17 /* value: status */
#define SPECKV_CARD_FW_ACTIVATED 18 /* value: slot */
/* the prefetcher is worse than recency in a pool. value: contests won of 64 */
#define SPECKV_CARD_GUARD_ENGAGED 19
#define SPECKV_CARD_GUARD_RELEASED 20

struct speckv_log_slot {
	__le16 slot;
	__le16 state; /* speckv_slot_state of the register map */
	__le32 rtl_revision;
	__aligned_le64 build_id;
	__aligned_le64 bytes; /* of the bitstream */
	__aligned_le64 received_bytes; /* of a download in progress */
	__aligned_le64 committed_ns;
	__le32 security_version;
	__le16 status; /* REJECTED: why */
	__le16 boots;
	__u8 digest[32]; /* of the bitstream */
	__u8 key_digest[32]; /* of the key that signed it */
	char version[32]; /* as the manifest says; zero-padded */
	__u8 reserved[48];
};

struct speckv_log_test {
	__le32 test; /* SPECKV_TEST_* */
	__le32 status;
	__aligned_le64 elapsed_ns;
	char text[112]; /* zero-padded */
};

struct speckv_log_grant {
	__le16 function;
	__le16 queue;
	__le16 pool;
	__le16 reserved;
	__le32 rights;
	__le32 granted; /* how many times it was set */
};

/* Entry from which a client rebuilds its index of a pool. */
struct speckv_log_block {
	__aligned_le64 address;
	__aligned_le64 generation;
	__aligned_le64 first_position;
	__aligned_le64 used_ns;
	__le32 bytes; /* of the frame */
	__le32 uses;
	__u8 key[32];
};

/*
 * struct speckv_stats of libspeckv: the same counters and buckets, so that the same code prints
 * both.
 */
struct speckv_log_counters {
	__aligned_le64 taken_ns;
	__aligned_le64 since_ns;
	__aligned_le64 counters[32];
	__aligned_le64 histograms[4][160];
};

/* ---- the driver: ioctls of /dev/speckvN ----------------------------------------------------- */

/*
 * Every argument begins with `size` (sizeof, as the caller was compiled) and `flags` (0, or what
 * the comment says). A driver reads at most the size that it knows, takes missing fields as zero,
 * and answers E2BIG when unknown ones are not. Errors otherwise: EINVAL, EFAULT, EACCES, ENODEV
 * (card gone), EBUSY, ENOSPC, EINTR. Closing the file releases everything.
 */
struct speckv_ioc_info {
	__u32 size;
	__u32 flags;
	__u32 map_version; /* out, as are all following */
	__u32 rtl_revision;
	__u32 caps;
	__u32 codec_modes;
	__aligned_u64 memory_bytes;
	__u8 uuid[16];
	__u32 sessions;
	__u32 transfer_bytes;
	__u32 queue_pairs; /* limit per file */
	__u32 buffers; /* limit per queue pair */
	__s32 numa_node;
	__u32 queue_log2_max;
	__aligned_u64 doorbell_offset; /* for mmap: this file's doorbell page */
	__aligned_u64 memory_free_bytes; /* hint: available for new pools and their tables */
	__u8 reserved[40];
};

/*
 * Request rights to a pool for all queue pairs of this file: the driver checks uid, gid and mode,
 * then grants.
 */
struct speckv_ioc_pool {
	__u32 size;
	__u32 flags; /* SPECKV_RIGHT_*: wanted; CLOSE: 0 */
	__u8 uuid[16];
	__u32 pool; /* out; CLOSE: in */
	__u32 page_bytes; /* out, as the following */
	__aligned_u64 capacity_bytes;
	__aligned_u64 generation;
	__u16 layers;
	__u16 kv_heads;
	__u16 head_dim;
	__u16 tokens;
	__u32 dtype;
	__u32 codec;
};

struct speckv_ioc_queue {
	__u32 size;
	__u32 flags; /* 0 */
	__u32 sq_log2;
	__u32 cq_log2; /* more than sq_log2: events need room */
	__u32 buffers; /* entries of the buffer table */
	__s32 event_fd; /* signalled by completions that are not SPECKV_CMD_QUIET; -1: polled */
	__u32 queue; /* out; DESTROY: in */
	__u32 slot; /* out: in the doorbell page */
	__aligned_u64 sq_offset; /* out, for mmap */
	__aligned_u64 cq_offset; /* out, for mmap */
	__u8 reserved[16];
};

/*
 * Pin memory and add it to a queue pair's buffer table; UNREGISTER waits until no transfer uses it.
 */
struct speckv_ioc_buffer {
	__u32 size;
	__u32 flags; /* SPECKV_BUFFER_* */
	__u32 queue;
	__u32 index; /* out; UNREGISTER: in */
	__s32 dmabuf_fd; /* SPECKV_BUFFER_PEER; otherwise -1 */
	__u32 reserved;
	/* of the process, aligned to its page size; of a dma-buf: offset in it */
	__aligned_u64 address;
	__aligned_u64 bytes;
};

/* Wake a sleeping card that polls doorbell memory. */
struct speckv_ioc_kick {
	__u32 size;
	__u32 flags; /* 0 */
};

/* Signal an eventfd when the event log grows. */
struct speckv_ioc_events {
	__u32 size;
	__u32 flags; /* 0 */
	__s32 event_fd; /* -1: stop */
	__u32 reserved;
};

/*
 * One admin command (CAP_SYS_ADMIN). The driver fills in bus addresses. RESET of the card in use:
 * EBUSY.
 */
struct speckv_ioc_admin {
	__u32 size;
	__u32 flags; /* 0 */
	/* an admin entry; the driver sets command_id and data_address */
	__u8 command[SPECKV_SQE_BYTES];
	__aligned_u64 data; /* address in the process, or 0 */
	__u32 data_bytes;
	__u32 timeout_ms; /* 0: the driver's default */
	__aligned_u64 result; /* out */
	__u32 status; /* out: SPECKV_STATUS_*; the ioctl itself returns 0 when the card answered */
	__u32 reserved;
};

#define SPECKV_IOC_INFO _IOWR('S', 0x00, struct speckv_ioc_info)
#define SPECKV_IOC_POOL_OPEN _IOWR('S', 0x01, struct speckv_ioc_pool)
#define SPECKV_IOC_POOL_CLOSE _IOWR('S', 0x02, struct speckv_ioc_pool)
#define SPECKV_IOC_QUEUE_CREATE _IOWR('S', 0x03, struct speckv_ioc_queue)
#define SPECKV_IOC_QUEUE_DESTROY _IOWR('S', 0x04, struct speckv_ioc_queue)
#define SPECKV_IOC_BUFFER_REGISTER _IOWR('S', 0x05, struct speckv_ioc_buffer)
#define SPECKV_IOC_BUFFER_UNREGISTER _IOWR('S', 0x06, struct speckv_ioc_buffer)
#define SPECKV_IOC_KICK _IOWR('S', 0x07, struct speckv_ioc_kick)
#define SPECKV_IOC_EVENTS _IOWR('S', 0x08, struct speckv_ioc_events)
#define SPECKV_IOC_ADMIN _IOWR('S', 0x09, struct speckv_ioc_admin)

/*
 * Without a driver, the emulator of a card stands in for it: a region of the vfio-user device
 * accepts this structure, followed by the argument of INFO, POOL_OPEN or POOL_CLOSE, as one write
 * at offset 0; a read of the same bytes returns the answer. The caller is identified by the
 * credentials of its socket.
 */
#define SPECKV_DRIVER_REGION 9
#define SPECKV_DRIVER_BYTES 512

struct speckv_driver_call {
	__le32 request; /* SPECKV_IOC_* */
	__le32 error; /* out: a positive errno; 0: done */
};

#include "speckv_layout.h"

#endif

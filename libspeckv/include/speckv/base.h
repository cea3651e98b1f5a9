/* SPDX-License-Identifier: MIT */
/**
 * speckv/base.h - conventions shared by every libspeckv header.
 *
 * Errors:   functions return 0 (or a count) on success and a negative errno on failure;
 *           speckv_strerror() gives the text: which of several causes it was, and what to do next.
 * Units:    every size is in bytes, every time in nanoseconds (CLOCK_REALTIME for stamps), unless
 *           the name says otherwise.
 * Threads:  handles may be shared by threads unless a function says otherwise. Destroy a handle
 *           only when no other thread is in a call on it or on anything created from it. The
 *           caller ensures that (the Python package counts users): a count here would cost every
 *           get a contended cache line. Submitted batches need no care: closing waits for them.
 * Fork:     handles do not survive fork(). In the child every call on them fails with -EOWNERDEAD,
 *           and takes no lock that another thread may have held. Destroying them there, in the
 *           usual order, is allowed and does not affect the parent. Memory of the parent's
 *           allocations reads as zeros in the child, and writes to it are lost.
 */
#ifndef SPECKV_BASE_H
#define SPECKV_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECKV_API_VERSION 0 /**< contract version of this header; frozen at 1 */
/** pool and tenant names: at most 63 bytes and a NUL; [A-Za-z0-9._-], no leading dot */
#define SPECKV_NAME_BYTES 64
#define SPECKV_KEY_BYTES 32 /**< a block key is a SHA-256 */
#define SPECKV_UUID_BYTES 16
#define SPECKV_CALIBRATION_DIGEST_BYTES 16
#define SPECKV_PATH_BYTES 4096

/** Element type of a KV tensor. The values are part of the frame format (codec/FORMAT.md). */
enum speckv_dtype {
	SPECKV_DTYPE_BF16 = 1,
	SPECKV_DTYPE_FP16 = 2,
	SPECKV_DTYPE_FP8_E4M3 = 3,
	SPECKV_DTYPE_FP8_E5M2 = 4,
};

/** Codec mode. The values are part of the frame format (codec/FORMAT.md). */
enum speckv_codec {
	SPECKV_CODEC_RAW = 0, /**< unencoded */
	SPECKV_CODEC_INT8_DELTA_RLE = 1, /**< the reference paper's Algorithm 2 */
	SPECKV_CODEC_Q4X = 2, /**< fixed rate, no calibration */
	SPECKV_CODEC_Q5C = 3, /**< fixed rate, calibrated */
	SPECKV_CODEC_E7C = 4, /**< calibrated transform and entropy coding */
	SPECKV_CODEC_LOSSLESS = 5, /**< bit-exact */
	SPECKV_CODEC_Q3X = 6, /**< fixed rate, no calibration: the smallest */
	SPECKV_CODEC_Q5X = 7, /**< fixed rate, no calibration: the most accurate */
};

/**
 * Shape of one block: tensors K and V of `layers` layers, each [kv_heads][tokens][head_dim] of
 * `dtype`. Raw bytes of a block: layers * 2 * kv_heads * tokens * head_dim * size of dtype, in the
 * order [layer][K,V][kv head][token][channel]. `tokens` is a multiple of 64.
 */
struct speckv_geometry {
	uint16_t layers;
	uint16_t kv_heads;
	uint16_t head_dim;
	uint16_t tokens;
	uint8_t dtype; /**< enum speckv_dtype */
	uint8_t reserved[7];
};

/** Library context: configuration and the error text. Cheap; one per thread is fine. */
struct speckv_ctx;
/** A card or a host engine. */
struct speckv_device;
/** One client's attachment to one pool. */
struct speckv_pool;
/** Completion handle of an asynchronous batch. */
struct speckv_op;
/** An extent of pool memory owned by this client: an unsealed fill. */
struct speckv_mem;

/** Library version, "major.minor.patch". Static storage. */
const char *speckv_version(void);

/**
 * Create a context. Reads SPECKV_RUNTIME_DIR, the folder of the named media of host:DRAM and
 * host:numaN (default: /dev/shm/speckv; for a user without one that root made,
 * /dev/shm/speckv-UID). Errors: -ENOMEM, -EINVAL (SPECKV_RUNTIME_DIR is not absolute or too long).
 */
int speckv_ctx_create(struct speckv_ctx **out);
/** Free a context; its devices must have been closed. NULL is allowed. */
void speckv_ctx_destroy(struct speckv_ctx *ctx);
/** The runtime folder in force. Valid as long as the context. */
const char *speckv_ctx_runtime_dir(const struct speckv_ctx *ctx);
/**
 * Text of the calling thread's last error on any handle of this context: one line with what was
 * tried, why it failed, and what to type next. Empty if there was none. Valid until this thread's
 * next failing call.
 */
const char *speckv_strerror(const struct speckv_ctx *ctx);

/** Raw bytes of one block of this shape; 0 when the shape is not valid (also on overflow). */
uint64_t speckv_geometry_bytes(const struct speckv_geometry *geometry);
/** "raw", "q4x", ...; NULL when unknown. */
const char *speckv_codec_name(unsigned int codec);
/** Codec of that name, or -EINVAL. */
int speckv_codec_from_name(const char *name);
/** "bf16", "fp16", "fp8_e4m3", "fp8_e5m2"; NULL when unknown. */
const char *speckv_dtype_name(unsigned int dtype);
/** dtype of that name, or -EINVAL. */
int speckv_dtype_from_name(const char *name);
/**
 * Bit map (1 << enum speckv_codec) of the modes that this build's host engine can encode and decode
 * without a calibration.
 */
uint32_t speckv_codec_modes(void);
/** The same, for the modes that need a calibration (speckv/codec.h). */
uint32_t speckv_codec_calibrated_modes(void);

#ifdef __cplusplus
}
#endif
#endif

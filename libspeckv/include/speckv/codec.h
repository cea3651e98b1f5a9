/* SPDX-License-Identifier: MIT */
/**
 * speckv/codec.h - frames: encode, parse, verify, decode. Format: libspeckv/codec/FORMAT.md.
 *
 * Stateless and thread-safe. Sizes are in bytes. Frames are untrusted: every offset and length is
 * bounds-checked, and a frame in shared memory may change during a read; the result is then an
 * error or a CRC mismatch, never a fault.
 */
#ifndef SPECKV_CODEC_H
#define SPECKV_CODEC_H

#include <speckv/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPECKV_FRAME_HEADER_BYTES 128
#define SPECKV_SECTION_BYTES 16
#define SPECKV_FRAME_ALIGN 64

/** Identity of a frame: its key and its place. A stale or forged frame does not match. */
struct speckv_frame_identity {
	uint8_t key[SPECKV_KEY_BYTES];
	uint8_t pool_uuid[SPECKV_UUID_BYTES];
	uint64_t generation; /**< of the page run */
	uint64_t pool_address; /**< byte address of the frame in pool-virtual space */
	uint64_t first_position; /**< position of the first token */
	/** the tenant charged for it, by the pool's number plus 1; 0: not given */
	uint32_t tenant;
	uint32_t reserved; /**< 0 */
};

/** A parsed header: a private copy, already validated. */
struct speckv_frame {
	struct speckv_geometry geometry;
	struct speckv_frame_identity identity;
	uint8_t calibration[SPECKV_CALIBRATION_DIGEST_BYTES];
	uint32_t codec; /**< enum speckv_codec */
	uint32_t sections; /**< layers * 2 */
	uint64_t raw_bytes;
	uint64_t frame_bytes; /**< header, section table and payload */
};

/** Most bytes of a frame of this shape in this mode (0: invalid); the encoder never writes more. */
uint64_t speckv_frame_max_bytes(const struct speckv_geometry *geometry, unsigned int codec);
/** Fewest bytes of a frame of this shape in this mode (0: invalid). */
uint64_t speckv_frame_min_bytes(const struct speckv_geometry *geometry, unsigned int codec);

/**
 * Encode one block into `frame` (64-byte aligned, speckv_frame_max_bytes() long), header and
 * section table included. Returns 0 and the frame's length. Errors: -EINVAL, -EOPNOTSUPP (mode),
 * -ENODATA (a value that is not finite, or too large for the mode; q3x, q4x, q5x: or an error that
 * would be a large share of the signal: the caller stores the block bit-exact), -ENOSPC
 * (frame_capacity). Calibrated modes: -EINVAL, see below.
 */
int speckv_frame_encode(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t raw_bytes,
	void *frame, uint64_t frame_capacity, uint64_t *frame_bytes);
/**
 * Parse and validate the header at `frame` (`available` bytes are readable). Errors: -EBADMSG (not
 * a frame, damaged, truncated), -EPROTONOSUPPORT (version), -EOPNOTSUPP (mode).
 */
int speckv_frame_parse(const void *frame, uint64_t available, struct speckv_frame *out);
/**
 * Rewrite identity and header CRC of a frame copied to another place. The payload is not touched.
 */
int speckv_frame_readdress(void *frame, uint64_t available,
	const struct speckv_frame_identity *identity);
/** Verify the CRC of every section without decoding. Errors: as parse, -EBADMSG. */
int speckv_frame_verify(const void *frame, uint64_t available);
/**
 * Decode layers [layer_first, layer_first + layer_count) into `raw`, verifying each section's CRC
 * on the bytes it decodes. `parsed` came from speckv_frame_parse() of the same frame. On error
 * `raw` is zeroed. Errors: -EBADMSG, -EINVAL, -ENOSPC (raw_capacity), -EOPNOTSUPP.
 */
int speckv_frame_decode(const struct speckv_frame *parsed, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity);

/**
 * A calibration of the modes q5c and e7c: a safetensors file made by `speckvctl codec calibrate`.
 * Constant once loaded.
 */
struct speckv_calibration;

/** Scope of a calibration. */
struct speckv_calibration_info {
	/** names it in frames: the first bytes of the file's SHA-256 */
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	uint32_t codecs; /**< bit map (1 << enum speckv_codec) of the modes it has tables for */
	uint32_t layers;
	uint32_t kv_heads; /**< of the whole model */
	uint32_t head_dim;
};

/**
 * Load a calibration from `bytes` bytes of its file, which may be freed afterwards. Every number in
 * it is validated. Errors: -EBADMSG (not a calibration, or damaged), -EOPNOTSUPP (of a later
 * version, or an unknown rotary embedding), -EFBIG (over 1 GiB), -EINVAL, -ENOMEM.
 */
int speckv_calibration_load(const void *file, uint64_t bytes, struct speckv_calibration **out);
/** NULL is allowed. No call may be using it. */
void speckv_calibration_free(struct speckv_calibration *calibration);
/** Errors: -EINVAL. */
int speckv_calibration_describe(const struct speckv_calibration *calibration,
	struct speckv_calibration_info *out);
/**
 * speckv_frame_encode() in a calibrated mode. The block's layers and KV heads are those of the
 * calibration from `layer_first` and `head_first` on; identity->first_position must be the true
 * position where the calibration has a rotary embedding. Errors: as there, -ENODATA also for values
 * far beyond those of the calibration, -ERANGE (shape, layers or heads that the calibration does
 * not have, or a mode without tables in it), -EINVAL (a mode that takes no calibration).
 */
int speckv_frame_encode_calibrated(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_calibration *calibration, unsigned int layer_first,
	unsigned int head_first, const struct speckv_frame_identity *identity, const void *raw,
	uint64_t raw_bytes, void *frame, uint64_t frame_capacity, uint64_t *frame_bytes);
/**
 * speckv_frame_decode() of a frame of a calibrated mode. Errors: as there, -EILSEQ (the frame names
 * another calibration).
 */
int speckv_frame_decode_calibrated(const struct speckv_frame *parsed,
	const struct speckv_calibration *calibration, const void *frame, uint64_t available,
	unsigned int layer_first, unsigned int layer_count, void *raw, uint64_t raw_capacity);

/** Common parameters of the frames of a batch. */
struct speckv_frame_batch {
	struct speckv_geometry geometry;
	const struct speckv_calibration *calibration; /**< NULL: none */
	/** to encode in; a frame to decode has its own */
	uint32_t codec;
	/** first layer and head of the blocks in the calibration, to encode */
	uint32_t layer_first, head_first;
	/** the caller included; 0: one for each CPU that the process may use. At most 64 */
	uint32_t threads;
	uint64_t reserved; /**< 0 */
};

/** One frame of a batch. */
struct speckv_frame_job {
	struct speckv_frame_identity identity; /**< encode: in; decode: out */
	void *raw;
	uint64_t raw_bytes; /**< of the block, and of the buffer */
	void *frame; /**< 64-byte aligned to encode */
	uint64_t frame_capacity; /**< bytes of the frame buffer, to write or to read */
	uint64_t frame_bytes; /**< out: the frame's length */
	/** out: 0 or the error of the single call; -EINVAL also for a frame of another shape */
	int32_t status;
	uint32_t reserved;
};

/**
 * Encode, or parse and decode, `count` blocks on several threads. Each job is like a single call; a
 * failure does not affect the others. Large batches are decoded with non-temporal stores. Returns
 * how many failed. Errors: -EINVAL.
 */
int64_t speckv_frame_encode_batch(const struct speckv_frame_batch *batch,
	struct speckv_frame_job *jobs, uint64_t count);
int64_t speckv_frame_decode_batch(const struct speckv_frame_batch *batch,
	struct speckv_frame_job *jobs, uint64_t count);

/**
 * CRC-32C (Castagnoli, reflected 0x82f63b78, init and final xor 0xffffffff: RFC 3720 B.4). crc: 0,
 * or the CRC so far.
 */
uint32_t speckv_crc32c(uint32_t crc, const void *data, uint64_t bytes);
/**
 * Copy and return speckv_crc32c(crc, source, bytes) of the bytes that were copied, in one pass. No
 * overlap.
 */
uint32_t speckv_crc32c_copy(uint32_t crc, void *destination, const void *source, uint64_t bytes);

/**
 * Select the instruction set of the kernels, for tests. Returns 0, -EINVAL, or -EOPNOTSUPP (not on
 * this CPU). Names: "portable", "sse42", "avx2", "avx512"; "auto" selects the best. Process-wide;
 * also SPECKV_ISA in the environment.
 */
int speckv_isa_force(const char *name);
const char *speckv_isa_name(void);

#ifdef __cplusplus
}
#endif
#endif

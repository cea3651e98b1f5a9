/* SPDX-License-Identifier: MIT */
/**
 * speckv/codec.h - frames: encode, parse, verify, decode. Format: libspeckv/codec/FORMAT.md.
 *
 * Stateless and thread-safe. Sizes are in bytes. No function here trusts a frame: every offset and
 * length in it is bounded, it may change while it is read (a frame in shared memory), and then the
 * result is an error or a CRC mismatch, never a fault.
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

/** What a frame repeats of its place, so that a forged or stale one is nothing. */
struct speckv_frame_identity {
	uint8_t key[SPECKV_KEY_BYTES];
	uint8_t pool_uuid[SPECKV_UUID_BYTES];
	uint64_t generation; /**< of the page run */
	uint64_t pool_address; /**< byte address of the frame in pool-virtual space */
	uint64_t first_position; /**< position of the first token */
	/** the tenant charged for it, by the pool's own number; 0: not said */
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

/**
 * Most bytes a frame of this shape can take in this mode (0: invalid); the encoder never writes
 * more.
 */
uint64_t speckv_frame_max_bytes(const struct speckv_geometry *geometry, unsigned int codec);
/** Fewest bytes a frame of this shape can take in this mode (0: invalid). */
uint64_t speckv_frame_min_bytes(const struct speckv_geometry *geometry, unsigned int codec);

/**
 * Encode one block into `frame` (64-byte aligned, speckv_frame_max_bytes() long), header and
 * section table included. Returns 0 and the frame's length. Errors: -EINVAL, -EOPNOTSUPP (mode),
 * -ENODATA (a non-finite value, in modes that cannot hold one: the caller stores the block raw),
 * -ENOSPC (frame_capacity). Calibrated modes: -EINVAL, see below.
 */
int speckv_frame_encode(const struct speckv_geometry *geometry, unsigned int codec,
	const struct speckv_frame_identity *identity, const void *raw, uint64_t raw_bytes,
	void *frame, uint64_t frame_capacity, uint64_t *frame_bytes);
/**
 * Parse and validate the header found at `frame` (`available` bytes may be read). Errors: -EBADMSG
 * (not a frame, damaged, cut short), -EPROTONOSUPPORT (version), -EOPNOTSUPP (mode).
 */
int speckv_frame_parse(const void *frame, uint64_t available, struct speckv_frame *out);
/**
 * Rewrite identity and header CRC of a frame that was copied to another place. The payload is not
 * touched.
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

/** What a calibration is for. */
struct speckv_calibration_info {
	/** names it in frames: the first bytes of the file's SHA-256 */
	uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES];
	uint32_t codecs; /**< bit map (1 << enum speckv_codec) of the modes it has tables for */
	uint32_t layers;
	uint32_t kv_heads; /**< of the whole model */
	uint32_t head_dim;
};

/**
 * Load a calibration from `bytes` bytes of its file; they may be freed afterwards. Every number in
 * it is checked. Errors: -EBADMSG (not a calibration, or damaged), -EOPNOTSUPP (made for a later
 * version, or an unknown rotary embedding), -EFBIG (over 1 GiB), -EINVAL, -ENOMEM.
 */
int speckv_calibration_load(const void *file, uint64_t bytes, struct speckv_calibration **out);
/** NULL is allowed. No frame may be in work with it. */
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

/** What the frames of a batch have in common. */
struct speckv_frame_batch {
	struct speckv_geometry geometry;
	const struct speckv_calibration *calibration; /**< NULL: none */
	/** to encode in; a frame says itself what it is in */
	uint32_t codec;
	/** of the blocks in the calibration, to encode */
	uint32_t layer_first, head_first;
	/** with the caller's; 0: one for each CPU that the process may use. At most 64 */
	uint32_t threads;
	uint64_t reserved; /**< 0 */
};

/** One of them. */
struct speckv_frame_job {
	struct speckv_frame_identity identity; /**< to encode; found in the frame when decoded */
	void *raw;
	uint64_t raw_bytes; /**< of the block, and of the room for it */
	void *frame; /**< 64-byte aligned to encode */
	uint64_t frame_capacity; /**< bytes there, to write or to read */
	uint64_t frame_bytes; /**< out: the frame's length */
	/** out: 0 or the error of the single call; -EINVAL also for a frame of another shape */
	int32_t status;
	uint32_t reserved;
};

/**
 * Encode, or parse and decode, `count` blocks over several threads. Each job is as a single call;
 * one that fails leaves the others alone. Decoded blocks that are large together are stored round
 * the caches. Returns how many failed. Errors: -EINVAL.
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
 * Instruction sets with own kernels: force one for tests. Returns 0, -EINVAL, or -EOPNOTSUPP (not
 * on this CPU). Names: "portable", "sse42", "avx2", "avx512"; "auto" picks the best. Process-wide;
 * also SPECKV_ISA in the environment.
 */
int speckv_isa_force(const char *name);
const char *speckv_isa_name(void);

#ifdef __cplusplus
}
#endif
#endif

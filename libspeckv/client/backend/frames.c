// SPDX-License-Identifier: MIT
/*
 * Frames of a pool: encoded in its mode, with its calibration where the mode needs one; decoded
 * only if their identity matches the index.
 */
#include <stdlib.h>

#include "backend.h"

int frame_possible(struct region *r, unsigned int codec)
{
	const char *name = speckv_codec_name(codec) ? speckv_codec_name(codec) : "?";
	struct speckv_calibration_info info;

	if (calibration_needed(codec)) {
		if (!r->calibration)
			return fail(r->dev->ctx, -EOPNOTSUPP,
				"codec %s needs a calibration, and pool %s was made without one",
				name, r->fixed.name);
		speckv_calibration_describe(r->calibration, &info);
		if (!(info.codecs >> codec & 1))
			return fail(r->dev->ctx, -EOPNOTSUPP,
				"the calibration of pool %s has no tables for codec %s",
				r->fixed.name, name);
	} else if (codec >= 32 || !(speckv_codec_modes() >> codec & 1)) {
		return fail(r->dev->ctx, -EOPNOTSUPP, "codec %s is not in this build", name);
	}
	if (!speckv_frame_max_bytes(&r->fixed.geometry, codec))
		return fail(r->dev->ctx, -EOPNOTSUPP,
			"codec %s cannot hold blocks of this pool's shape (%s)", name,
			speckv_dtype_name(r->fixed.geometry.dtype));
	return 0;
}

int frame_encode(struct region *r, unsigned int codec, const struct speckv_frame_identity *identity,
	const void *raw, uint64_t bytes, void *frame, uint64_t capacity, uint64_t *frame_bytes)
{
	if (calibration_needed(codec))
		return speckv_frame_encode_calibrated(&r->fixed.geometry, codec, r->calibration,
			r->fixed.calibration.first_layer, r->fixed.calibration.first_head, identity,
			raw, bytes, frame, capacity, frame_bytes);
	return speckv_frame_encode(&r->fixed.geometry, codec, identity, raw, bytes, frame, capacity,
		frame_bytes);
}

int frame_decode(struct region *r, const struct speckv_key *key, const struct block_ref *found,
	const void *at, uint64_t available, struct layers layers, void *raw, uint64_t bytes)
{
	struct speckv_frame frame;
	int rc = speckv_frame_parse(at, available, &frame);

	if (!rc &&
		(memcmp(frame.identity.key, key->bytes, sizeof(key->bytes)) != 0 ||
			memcmp(frame.identity.pool_uuid, r->fixed.uuid, 16) != 0 ||
			frame.identity.generation != found->generation ||
			frame.identity.pool_address != found->page << r->page_shift ||
			memcmp(&frame.geometry, &r->fixed.geometry,
				offsetof(struct speckv_geometry, reserved)) != 0))
		rc = -EBADMSG;
	if (!rc)
		rc = calibration_needed(frame.codec)
			? speckv_frame_decode_calibrated(&frame, r->calibration, at, available,
				  layers.first, layers.count, raw, bytes)
			: speckv_frame_decode(&frame, at, available, layers.first, layers.count,
				  raw, bytes);
	/* encoded with another calibration: not a frame of this pool */
	return rc == -EILSEQ ? -EBADMSG : rc;
}

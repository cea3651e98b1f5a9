// SPDX-License-Identifier: MIT
/*
 * The calibration of a pool: validated at creation, copied and loaded at attach. Its file is stored
 * in the pool's tables, with the lifetime and the permissions of the pool. Each load verifies it
 * against the digest in the pool's record.
 */
#include <stdlib.h>
#include <unistd.h>

#include "store.h"

#define FILE_MOST (UINT64_C(1) << 30) /* FORMAT.md section 7.1 */

bool calibration_needed(unsigned int codec)
{
	return codec < 32 && speckv_codec_calibrated_modes() >> codec & 1;
}

static const char *hexadecimal(char text[2 * SPECKV_CALIBRATION_DIGEST_BYTES + 1],
	const uint8_t digest[SPECKV_CALIBRATION_DIGEST_BYTES])
{
	for (unsigned int i = 0; i < SPECKV_CALIBRATION_DIGEST_BYTES; i++)
		snprintf(text + (size_t)2 * i, 3, "%02x", digest[i]);
	return text;
}

/* Does the calibration have tables for such blocks? */
static int covers(struct speckv_ctx *ctx, const struct speckv_calibration_info *info,
	unsigned int codec, const struct speckv_geometry *geometry, unsigned int first_layer,
	unsigned int first_head)
{
	char digest[2 * SPECKV_CALIBRATION_DIGEST_BYTES + 1];

	hexadecimal(digest, info->digest);
	if (!(info->codecs >> codec & 1))
		return fail(ctx, -ERANGE,
			"calibration %s has no tables for codec %s; make one with 'speckvctl codec calibrate'",
			digest, speckv_codec_name(codec));
	if (geometry->head_dim != info->head_dim)
		return fail(ctx, -ERANGE,
			"calibration %s is of a model with head size %u, the pool's blocks have %u; use the calibration of the model that the pool serves",
			digest, info->head_dim, geometry->head_dim);
	if (first_layer + geometry->layers > info->layers)
		return fail(ctx, -ERANGE,
			"calibration %s is of a model with %u layers, the pool's blocks have %u from layer %u on; use the calibration of the model that the pool serves",
			digest, info->layers, geometry->layers, first_layer);
	if (first_head + geometry->kv_heads > info->kv_heads)
		return fail(ctx, -ERANGE,
			"calibration %s is of a model with %u KV heads, the pool's blocks have %u from head %u on; use the calibration of the model that the pool serves",
			digest, info->kv_heads, geometry->kv_heads, first_head);
	return 0;
}

static int load_file(struct speckv_ctx *ctx, const void *file, uint64_t bytes,
	struct speckv_calibration **out)
{
	int rc = speckv_calibration_load(file, bytes, out);

	switch (rc) {
	case 0:
		return 0;
	case -EOPNOTSUPP:
		return fail(ctx, rc,
			"the calibration was made for a later version, or has a rotary embedding that this build does not support");
	case -EFBIG:
		return fail(ctx, rc, "the calibration has %llu bytes, more than 1 GiB",
			(unsigned long long)bytes);
	case -ENOMEM:
		return fail(ctx, rc, "out of memory");
	default:
		return fail(ctx, rc,
			"these %llu bytes are not a calibration, or a damaged one; 'speckvctl codec calibrate' makes one",
			(unsigned long long)bytes);
	}
}

int calibration_judge(struct speckv_ctx *ctx, const struct speckv_pool_config *config,
	struct speckv_calibration_info *info)
{
	struct speckv_calibration *calibration;
	int rc;

	memset(info, 0, sizeof(*info));
	if (!calibration_needed(config->codec)) {
		if (config->calibration || config->first_layer || config->first_head)
			return fail(ctx, -EINVAL, "codec %s takes no calibration; leave it out",
				speckv_codec_name(config->codec));
		return 0;
	}
	if (!config->calibration)
		return fail(ctx, -EINVAL,
			"codec %s needs a calibration of the model; 'speckvctl codec calibrate' makes one, --calibration names it",
			speckv_codec_name(config->codec));
	rc = load_file(ctx, config->calibration, config->calibration_bytes, &calibration);
	if (rc)
		return rc;
	speckv_calibration_describe(calibration, info);
	speckv_calibration_free(calibration);
	return config->geometry.layers ? covers(ctx, info, config->codec, &config->geometry,
						 config->first_layer, config->first_head)
				       : 0;
}

/* Copied first: other processes may write the shared bytes. */
int calibration_copy(struct region *r, uint8_t **out, uint64_t *bytes)
{
	/* adopted from a card, which does not report the digest */
	static const uint8_t unknown[SPECKV_CALIBRATION_DIGEST_BYTES];
	const struct lay_calibration *place = &r->fixed.calibration;
	char digest[2 * SPECKV_CALIBRATION_DIGEST_BYTES + 1];

	if (place->crc != speckv_crc32c(0, place, offsetof(struct lay_calibration, crc)) ||
		!place->bytes || place->bytes > FILE_MOST || place->offset % 4096 ||
		place->offset <
			r->fixed.entry_offset + r->fixed.max_entries * sizeof(struct lay_entry) ||
		place->offset > r->fixed.data_offset ||
		place->bytes > r->fixed.data_offset - place->offset)
		return fail(r->dev->ctx, -EUCLEAN,
			"pool %s: its calibration %s is not on this machine (any more), and without it no block can be read; destroy the pool and create it anew with the file",
			r->fixed.name,
			memcmp(r->digest, unknown, sizeof(unknown)) ? hexadecimal(digest, r->digest)
								    : "(its digest is not known)");
	*out = malloc(place->bytes);
	if (!*out)
		return fail(r->dev->ctx, -ENOMEM, "out of memory");
	(void)speckv_crc32c_copy(0, *out, r->base + place->offset, place->bytes);
	*bytes = place->bytes;
	return 0;
}

int calibration_load(struct region *r, const uint8_t *file, uint64_t bytes,
	struct speckv_calibration **out)
{
	char wanted[2 * SPECKV_CALIBRATION_DIGEST_BYTES + 1];
	struct speckv_calibration_info info;
	int rc = speckv_calibration_load(file, bytes, out);

	if (rc == -ENOMEM)
		return fail(r->dev->ctx, rc, "out of memory");
	if (!rc) {
		speckv_calibration_describe(*out, &info);
		if (memcmp(info.digest, r->digest, sizeof(info.digest)) == 0)
			return 0;
		speckv_calibration_free(*out);
		*out = NULL;
	}
	return fail(r->dev->ctx, rc == -EOPNOTSUPP ? rc : -EBADMSG,
		"pool %s: its calibration in %s is not %s, which its blocks were made with; destroy the pool and create it anew with that file",
		r->fixed.name, r->path, hexadecimal(wanted, r->digest));
}

int region_calibrate(struct region *r)
{
	struct speckv_calibration_info info;
	uint8_t *file = NULL;
	uint64_t bytes;
	int rc;

	if (!calibration_needed(r->fixed.codec))
		return 0;
	rc = calibration_copy(r, &file, &bytes);
	if (!rc)
		rc = calibration_load(r, file, bytes, &r->calibration);
	free(file);
	if (rc)
		return rc;
	speckv_calibration_describe(r->calibration, &info);
	return covers(r->dev->ctx, &info, r->fixed.codec, &r->fixed.geometry,
		r->fixed.calibration.first_layer, r->fixed.calibration.first_head);
}

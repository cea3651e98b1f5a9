// SPDX-License-Identifier: MIT
/* Parameters of one attachment, by name. */
#include <stdlib.h>

#include "pool.h"

static int set_depth(struct speckv_pool *pool, const char *value)
{
	char *end;
	unsigned long depth = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || depth < 1 || depth > 16)
		return fail(pool->ctx, -EINVAL,
			"prefetch_depth is a number from 1 to 16, not '%.32s'", value);
	store_release(&pool->prefetch_depth, (uint32_t)depth);
	return 0;
}

static int set_codec(struct speckv_pool *pool, const char *value)
{
	int codec = speckv_codec_from_name(value);
	char known[160] = "";
	int rc;

	for (unsigned int i = 0; i < 32; i++)
		if (speckv_codec_name(i) &&
			(speckv_codec_modes() | speckv_codec_calibrated_modes()) >> i & 1)
			snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
				*known ? ", " : "", speckv_codec_name(i));
	if (codec < 0)
		return fail(pool->ctx, -EINVAL, "codec is one of %s, not '%.32s'", known, value);
	rc = frame_possible(&pool->region, (unsigned int)codec);
	if (rc)
		return rc;
	store_release(&pool->codec, (uint32_t)codec);
	return 0;
}

static int set_threads(struct speckv_pool *pool, const char *value)
{
	char *end;
	unsigned long threads = strtoul(value, &end, 10);

	if (*value < '0' || *value > '9' || *end || threads < 1 || threads > 64)
		return fail(pool->ctx, -EINVAL, "threads is a number from 1 to 64, not '%.32s'",
			value);
	store_release(&pool->threads, (uint32_t)threads);
	return 0;
}

static int set_verify(struct speckv_pool *pool, const char *value)
{
	if (strcmp(value, "on") != 0 && strcmp(value, "off") != 0)
		return fail(pool->ctx, -EINVAL, "verify is on or off, not '%.32s'", value);
	store_release(&pool->verify, value[1] == 'n');
	return 0;
}

static void get_depth(struct speckv_pool *pool, char text[32])
{
	snprintf(text, 32, "%u", load_acquire(&pool->prefetch_depth));
}

static void get_threads(struct speckv_pool *pool, char text[32])
{
	snprintf(text, 32, "%u", load_acquire(&pool->threads));
}

static void get_codec(struct speckv_pool *pool, char text[32])
{
	snprintf(text, 32, "%s", speckv_codec_name(load_acquire(&pool->codec)));
}

static void get_verify(struct speckv_pool *pool, char text[32])
{
	snprintf(text, 32, "%s", load_acquire(&pool->verify) ? "on" : "off");
}

static const struct param {
	const char *key;
	int (*set)(struct speckv_pool *pool, const char *value);
	void (*get)(struct speckv_pool *pool, char text[32]);
} params[] = {
	{ "prefetch_depth", set_depth, get_depth },
	{ "codec", set_codec, get_codec },
	{ "verify", set_verify, get_verify },
	{ "threads", set_threads, get_threads },
};

static const struct param *find(struct speckv_pool *pool, const char *key)
{
	for (size_t i = 0; i < sizeof(params) / sizeof(params[0]); i++)
		if (strcmp(params[i].key, key) == 0)
			return &params[i];
	fail(pool->ctx, -EINVAL,
		"no parameter '%.32s'; there are prefetch_depth, codec, verify, threads", key);
	return NULL;
}

int speckv_param_set(struct speckv_pool *pool, const char *key, const char *value)
{
	const struct param *param;
	int rc;

	if (!pool || !key || !value)
		return -EINVAL;
	rc = pool_usable(pool, false);
	if (rc)
		return rc;
	param = find(pool, key);
	return param ? param->set(pool, value) : -EINVAL;
}

int speckv_param_get(struct speckv_pool *pool, const char *key, char *value, size_t value_bytes)
{
	const struct param *param;
	char text[32];
	int rc;

	if (!pool || !key || !value)
		return -EINVAL;
	rc = pool_usable(pool, false);
	if (rc)
		return rc;
	param = find(pool, key);
	if (!param)
		return -EINVAL;
	param->get(pool, text);
	if (strlen(text) >= value_bytes)
		return fail(pool->ctx, -ENOSPC, "the value of %s takes %zu bytes", key,
			strlen(text) + 1);
	memcpy(value, text, strlen(text) + 1);
	return 0;
}

// SPDX-License-Identifier: MIT
/* <speckv/card.h>: a card's identity, settings, tests and prefetcher. */
#include <stdlib.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <speckv/card.h>

#include "card.h"
#include "base/base.h"

#define SELFTEST_PATIENCE_NS 120000000000ull
#define MODEL_PIECE (64u << 10)

_Static_assert((int)SPECKV_ABILITY_ENGINE == SPECKV_CAP_ENGINE &&
		(int)SPECKV_ABILITY_FLASH == SPECKV_CAP_FLASH &&
		(int)SPECKV_ABILITY_EMULATED == SPECKV_CAP_EMULATED &&
		(int)SPECKV_ABILITY_THERMAL == SPECKV_CAP_THERMAL,
	"abilities are capabilities");
_Static_assert((int)SPECKV_SETTING_THROTTLE_MILLICELSIUS == SPECKV_FEATURE_THROTTLE_MILLICELSIUS &&
		(int)SPECKV_SETTING_POLL_MICROSECONDS == SPECKV_FEATURE_POLL_MICROSECONDS,
	"settings are features");
_Static_assert((int)SPECKV_RESTART_ENGINE == SPECKV_RESET_ENGINE &&
		(int)SPECKV_RESTART_COUNTERS == SPECKV_RESET_COUNTERS,
	"restarts are resets");
_Static_assert(sizeof(((struct speckv_card_info *)0)->key_ids) ==
		sizeof(((struct speckv_identify *)0)->key_digests),
	"a name for every key");

int card_digest(struct speckv_ctx *ctx, const void *data, uint64_t bytes, uint8_t digest[32])
{
	unsigned int length = 32;

	return EVP_Digest(data, bytes, digest, &length, EVP_sha256(), NULL) == 1
		? 0
		: fail(ctx, -ENOMEM, "cannot compute a SHA-256");
}

int speckv_admin_open(struct speckv_ctx *ctx, const char *card, struct speckv_admin **out)
{
	struct speckv_admin *admin;
	int rc;

	if (!ctx || !out)
		return -EINVAL;
	*out = NULL;
	admin = calloc(1, sizeof(*admin));
	if (!admin)
		return fail(ctx, -ENOMEM, "out of memory");
	admin->ctx = ctx;
	admin->lock_fd = -1;
	rc = card_admin_open(ctx, card, &admin->card);
	if (rc)
		free(admin);
	else
		*out = admin;
	return rc;
}

void speckv_admin_close(struct speckv_admin *admin)
{
	if (!admin)
		return;
	card_admin_close(admin->card);
	if (admin->lock_fd >= 0)
		fork_guard_release(&admin->lock);
	free(admin);
}

void card_text(char *to, size_t room, const char *from, size_t bytes)
{
	size_t n = 0;

	for (; n < bytes && n + 1 < room && from[n]; n++)
		to[n] = (unsigned char)from[n] < 0x20 || from[n] == 0x7f ? '?' : from[n];
	memset(to + n, 0, room - n);
}

int speckv_admin_info(struct speckv_admin *admin, struct speckv_card_info *info)
{
	struct speckv_identify id;
	struct folder folder;
	int rc = card_identify(admin->card, &id);

	if (rc)
		return rc;
	memset(info, 0, sizeof(*info));
	snprintf(info->name, sizeof(info->name), "%s", card_name(admin->card));
	rc = transport_folder(admin->ctx, info->name, info->path, &folder);
	if (rc)
		return rc;
	folder_close(&folder);
	card_text(info->model, sizeof(info->model), id.model, sizeof(id.model));
	card_text(info->serial, sizeof(info->serial), id.serial, sizeof(id.serial));
	card_text(info->part, sizeof(info->part), id.part, sizeof(id.part));
	memcpy(info->uuid, id.uuid, sizeof(info->uuid));
	info->map_major = id.map_version >> 16;
	info->map_minor = id.map_version & 0xffff;
	info->rtl_major = id.rtl_revision >> 16;
	info->rtl_minor = id.rtl_revision >> 8 & 0xff;
	info->rtl_patch = id.rtl_revision & 0xff;
	info->abilities = id.caps;
	info->codec_modes = id.codec_modes;
	info->running = id.running_slot;
	info->security_version = id.security_version;
	info->pools = id.pools;
	info->pools_max = id.pools_max;
	info->functions_max = id.functions_max;
	info->queue_pairs_max = id.queue_pairs_max;
	info->sessions = id.sessions;
	info->transfer_bytes = id.transfer_bytes;
	info->build_id = id.build_id;
	info->memory_bytes = id.memory_bytes;
	info->memory_free_bytes = id.memory_free_bytes;
	memcpy(info->model_digest, id.model_digest, sizeof(info->model_digest));
	for (size_t i = 0; i < sizeof(id.model_digest); i++)
		info->has_model |= id.model_digest[i] != 0;
	for (unsigned int slot = 0; slot < SPECKV_CARD_KEY_SLOTS; slot++) {
		bool used = false;

		for (size_t i = 0; i < 32; i++)
			used |= id.key_digests[slot][i] != 0;
		if (used)
			memcpy(info->key_ids + 32 * (size_t)info->keys++, id.key_digests[slot], 32);
	}
	return 0;
}

/* ---- settings, resets ----------------------------------------------------------------------- */

int speckv_admin_setting(struct speckv_admin *admin, unsigned int setting, int64_t *value)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_GET_FEATURE,
		.feature = (uint16_t)setting };
	uint64_t result = 0;
	int rc;

	if (!setting || setting > SPECKV_SETTING_POLL_MICROSECONDS)
		return fail(admin->ctx, -EINVAL, "unknown card setting %u", setting);
	rc = card_admin_call(admin->card, &command, NULL, 0, NULL, 0, 0, &result);
	*value = (int64_t)result;
	return rc;
}

int speckv_admin_set(struct speckv_admin *admin, unsigned int setting, int64_t value,
	unsigned int flags)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_SET_FEATURE,
		.feature = (uint16_t)setting,
		.value = (uint64_t)value,
		.flags = flags & SPECKV_SET_SAVE ? SPECKV_FEATURE_SAVE : 0 };

	if (!setting || setting > SPECKV_SETTING_POLL_MICROSECONDS ||
		flags & ~(unsigned int)SPECKV_SET_SAVE)
		return fail(admin->ctx, -EINVAL, "unknown card setting %u, or unknown flags",
			setting);
	return card_admin_call(admin->card, &command, NULL, 0, NULL, 0, 0, NULL);
}

int speckv_admin_reset(struct speckv_admin *admin, unsigned int what)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_RESET, .value = what };

	return card_admin_call(admin->card, &command, NULL, 0, NULL, 0, 0, NULL);
}

/* ---- self-test ------------------------------------------------------------------------------ */

struct test_relay {
	struct speckv_admin *admin;
	speckv_selftest_cb step;
	void *arg;
	int failed;
};

static int relay_test(const struct speckv_log_header *header, const void *entry, void *arg)
{
	static const char *const names[SPECKV_TESTS] = { "memory", "dma", "codec", "translation",
		"predictor", "flash" };
	struct speckv_selftest_step step = { .name = "unknown" };
	struct test_relay *relay = arg;
	struct speckv_log_test log;

	(void)header;
	memcpy(&log, entry, sizeof(log));
	for (unsigned int i = 0; i < SPECKV_TESTS; i++)
		if (log.test == 1u << i)
			snprintf(step.name, sizeof(step.name), "%s", names[i]);
	card_text(step.detail, sizeof(step.detail), log.text, sizeof(log.text));
	step.result = status_errno((uint16_t)log.status);
	step.elapsed_ns = log.elapsed_ns;
	if (step.result && !relay->failed)
		relay->failed = fail(relay->admin->ctx, step.result, "%s: self-test '%s': %s",
			card_name(relay->admin->card), step.name, step.detail);
	return relay->step ? relay->step(&step, relay->arg) : 0;
}

int speckv_admin_selftest(struct speckv_admin *admin, speckv_selftest_cb cb, void *arg)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_SELF_TEST,
		.value = (1u << SPECKV_TESTS) - 1 };
	struct test_relay relay = { .admin = admin, .step = cb, .arg = arg };
	int rc = card_admin_call(admin->card, &command, NULL, 0, NULL, 0, SELFTEST_PATIENCE_NS,
		NULL);

	if (!rc)
		rc = card_log(admin->card, SPECKV_LOG_SELF_TEST, 0, 0, relay_test, &relay);
	return rc ? rc : relay.failed;
}

/* ---- prefetcher ----------------------------------------------------------------------------- */

int speckv_admin_model_load(struct speckv_admin *admin, const void *file, uint64_t bytes,
	speckv_progress_cb progress, void *arg)
{
	struct speckv_cmd_model command = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
		.total_bytes = (uint32_t)bytes };
	const uint8_t *from = file;
	struct speckv_identify id;
	uint16_t status;
	int rc;

	if (!bytes || bytes > UINT32_MAX)
		return fail(admin->ctx, -EINVAL, "a prefetcher's file must be 1 byte to 4 GiB");
	rc = card_digest(admin->ctx, file, bytes, command.digest);
	if (!rc)
		rc = card_identify(admin->card, &id);
	if (!rc && memcmp(id.model_digest, command.digest, sizeof(command.digest)) == 0)
		rc = fail(admin->ctx, -EALREADY, "%s has this prefetcher loaded",
			card_name(admin->card));
	for (uint64_t at = 0; !rc && at < bytes; at += MODEL_PIECE) {
		uint64_t n = bytes - at < MODEL_PIECE ? bytes - at : MODEL_PIECE;

		command.offset = (uint32_t)at;
		rc = card_admin_ask(admin->card, &command, from + at, n, NULL, 0, 0, NULL, &status);
		if (status == SPECKV_STATUS_INVALID)
			rc = fail(admin->ctx, -EINVAL,
				"%s: its prefetcher's memory is smaller than this file, or another administrator is loading one",
				card_name(admin->card));
		if (!rc && progress && progress(at + n, bytes, arg))
			rc = fail(admin->ctx, -ECANCELED,
				"%s: loading was stopped; the previous prefetcher stays in force",
				card_name(admin->card));
	}
	return rc;
}

int speckv_admin_model_unload(struct speckv_admin *admin)
{
	struct speckv_cmd_model command = { .opcode = SPECKV_ADMIN_LOAD_MODEL,
		.flags = SPECKV_MODEL_UNLOAD };
	uint16_t status;
	int rc = card_admin_ask(admin->card, &command, NULL, 0, NULL, 0, 0, NULL, &status);

	return status == SPECKV_STATUS_NO_MODEL
		? fail(admin->ctx, -EALREADY, "%s has no prefetcher loaded", card_name(admin->card))
		: rc;
}

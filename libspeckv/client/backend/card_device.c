// SPDX-License-Identifier: MIT
/*
 * A card as a device: name, probe, self-test, and its table of operations.
 */
#include <fcntl.h>
#include <unistd.h>

#include "client/card/card.h"
#include "cards.h"

#define CARDS "cards"

/* Parse a uuid's text. False: it has not the form of one. */
static bool uuid_parse(const char *text, uint8_t uuid[16])
{
	unsigned int byte;

	if (strspn(text, "0123456789abcdef-") != 36 || text[0] == '-')
		return false;
	for (unsigned int i = 0; i < 16; i++) {
		text += *text == '-';
		if (sscanf(text, "%2x", &byte) != 1)
			return true; /* matches no card: the probe reports it */
		uuid[i] = (uint8_t)byte;
		text += 2;
	}
	return true;
}

/*
 * Parse a card's name. The card's uuid names its tables on this machine, so that another card of
 * the same name does not use them.
 */
int card_parse(struct speckv_ctx *ctx, const char *name, struct medium *medium)
{
	char path[SPECKV_PATH_BYTES], text[64] = "";
	struct folder folder;
	ssize_t got;
	int rc, fd;

	memset(medium, 0, sizeof(*medium));
	medium->numa_node = -1;
	medium->runtime = medium->named = true;
	snprintf(medium->name, sizeof(medium->name), "%s", name);
	rc = transport_folder(ctx, name, path, &folder);
	if (rc && rc != -ENOENT)
		return rc;
	if (rc)
		return 0; /* no path: no medium */
	fd = file_open(ctx, &folder, "uuid", O_RDONLY, 0, &private_file);
	got = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	folder_close(&folder);
	text[got > 0 ? got : 0] = 0;
	if (uuid_parse(text, medium->uuid))
		snprintf(medium->path, sizeof(medium->path), "%.*s/" CARDS "/%.36s",
			SPECKV_PATH_BYTES - 64, ctx->runtime_dir, text);
	return 0;
}

/* Query the card itself. */
static void ask_card(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info)
{
	struct speckv_ioc_info said = { .size = sizeof(said) };
	struct transport *transport;
	bool stopped = false;
	struct folder folder;
	int rc;

	if (transport_folder(ctx, medium->name, info->path, &folder) == 0)
		folder_close(&folder);
	rc = card_dial(ctx, medium->name, TRANSPORT_IO, 1 << 16, &transport);
	if (!rc) {
		rc = transport->ops->driver(transport, SPECKV_IOC_INFO, &said, sizeof(said));
		stopped = !rc && card_stopped(ctx, medium->name, transport);
		transport->ops->close(transport);
		if (rc)
			fail(ctx, rc, "%s: %s", medium->name, strerror(-rc));
	}
	info->capacity_bytes = said.memory_bytes;
	info->free_bytes = said.memory_free_bytes;
	info->allocated_bytes = said.memory_bytes - said.memory_free_bytes;
	info->codec_modes = said.codec_modes;
	info->durability = SPECKV_DURABLE_PROCESS;
	memcpy(info->uuid, medium->uuid, sizeof(info->uuid));
	if (rc) {
		info->state = rc == -EACCES ? SPECKV_MEDIUM_DENIED : SPECKV_MEDIUM_OFFLINE;
		snprintf(info->found, sizeof(info->found), "%s", speckv_strerror(ctx));
	} else if (info->state == SPECKV_MEDIUM_READY) {
		snprintf(info->found, sizeof(info->found), "%s",
			stopped ? speckv_strerror(ctx)
				: said.codec_modes ? "a card"
						   : "a card with its factory image: flash it");
	}
}

static int card_probe(struct speckv_ctx *ctx, const struct medium *medium,
	struct speckv_device_info *info)
{
	char path[SPECKV_PATH_BYTES];
	struct folder folder;
	int rc = medium_probe(ctx, medium, info);

	if (rc)
		return rc;
	if (medium->path[0]) {
		if (info->state != SPECKV_MEDIUM_DENIED)
			ask_card(ctx, medium, info);
	} else if (transport_folder(ctx, medium->name, path, &folder) == 0) {
		folder_close(&folder);
		ask_card(ctx, medium, info); /* a folder in which no card was ever started */
		info->state = info->state == SPECKV_MEDIUM_DENIED ? info->state
								  : SPECKV_MEDIUM_OFFLINE;
	} else {
		snprintf(info->found, sizeof(info->found), "%s", speckv_strerror(ctx));
	}
	return 0;
}

static uint64_t card_room(struct speckv_device *dev)
{
	struct speckv_identify identity;

	return dev->managed && card_identify(dev->managed, &identity) == 0
		? identity.memory_free_bytes
		: UINT64_MAX;
}

struct said {
	speckv_selftest_cb step;
	void *arg;
};

static int test_said(const struct speckv_log_header *header, const void *entry, void *arg)
{
	static const char *const names[SPECKV_TESTS] = { "card memory", "card DMA", "card codec",
		"card translation", "card predictor", "card flash" };
	struct speckv_selftest_step step = { 0 };
	struct speckv_log_test test;
	struct said *said = arg;
	unsigned int number;

	memcpy(&test, entry, sizeof(test));
	number = test.test ? (unsigned int)__builtin_ctz(test.test) : SPECKV_TESTS;
	snprintf(step.name, sizeof(step.name), "%s",
		number < SPECKV_TESTS ? names[number] : "card");
	snprintf(step.detail, sizeof(step.detail), "%.*s", (int)sizeof(test.text), test.text);
	step.result = status_errno((uint16_t)test.status);
	step.elapsed_ns = test.elapsed_ns;
	return said->step(&step, said->arg);
}

/* The card's own tests; they need the right to manage it. */
static void card_selftest(struct speckv_device *dev, speckv_selftest_cb step, void *arg)
{
	struct speckv_cmd_value command = { .opcode = SPECKV_ADMIN_SELF_TEST,
		.value = (1u << SPECKV_TESTS) - 1 };
	struct said said = { step, arg };
	uint64_t start = clock_ns();
	struct card_admin *admin;
	int rc = card_admin_open(dev->ctx, dev->medium.name, &admin);

	if (rc) {
		selftest_step(step, arg, "card", start, rc, speckv_strerror(dev->ctx));
		return;
	}
	rc = card_admin_call(admin, &command, NULL, 0, NULL, 0, 60000000000ull, NULL);
	if (!rc || rc == -EIO) /* a failed test: it is in the log */
		card_log(admin, SPECKV_LOG_SELF_TEST, 0, 0, test_said, &said);
	else
		selftest_step(step, arg, "card", start, rc, speckv_strerror(dev->ctx));
	card_admin_close(admin);
}

const struct device_backend card_device = {
	.folder = CARDS,
	.keeps_blocks = true,
	.pool = &card_pool,
	.probe = card_probe,
	.manage = card_manage,
	.unmanage = card_unmanage,
	.room = card_room,
	.pool_create = card_pool_create,
	.pool_delete = card_pool_delete,
	.pool_resize = card_pool_resize,
	.pool_owner = card_pool_owner,
	.selftest = card_selftest,
};

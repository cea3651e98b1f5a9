// SPDX-License-Identifier: MIT
/*
 * Flashing: download, commit, activate, boot, fall back; every kind of bad bundle; the security
 * version; power cut at any byte. usage: test_card_flash [CUTS]
 */
#include <speckv/bundle.h>

#include "rig.h"

#define STREAM 150000 /* more than two chunks */
#define BUNDLE (SPECKV_BUNDLE_BITSTREAM_OFFSET + STREAM)

static uint8_t secret[32] = { 1 }, lowering[32] = { 2 }, foreign[32] = { 3 };

struct bundle {
	uint8_t bytes[BUNDLE];
	uint8_t digest[32];
	uint32_t revision;
};

static struct bundle *make(uint32_t minor, uint32_t security, const char *part, const uint8_t *key)
{
	struct bundle *b = calloc(1, sizeof(*b));
	struct speckv_bundle_manifest m = { .map_major = SPECKV_MAP_MAJOR,
		.rtl_major = 1,
		.rtl_minor = minor,
		.rtl_patch = 2,
		.security_version = security,
		.clock_hz = 100000000,
		.fmax_hz = 120000000 };
	uint8_t *stream = malloc(STREAM);

	strcpy(m.name, "speckv");
	strcpy(m.configuration, "test");
	strcpy(m.tools, "none");
	strcpy(m.part, part);
	m.build_id[0] = (uint8_t)minor;
	for (uint32_t i = 0; i < STREAM; i++)
		stream[i] = (uint8_t)(i * 7 + minor + (i >> 8));
	EQUAL(speckv_bundle_build(&m, stream, STREAM, b->bytes, BUNDLE), 0);
	if (key)
		EQUAL(speckv_bundle_sign(b->bytes, BUNDLE, key), 0);
	CHECK(card_sha256(b->bytes, BUNDLE, b->digest), "digest");
	b->revision = 1u << 16 | minor << 8 | 2;
	free(stream);
	return b;
}

static struct bundle *old, *new;

/* A card that trusts two keys; what it runs is the golden image. */
static struct rig *fresh(void)
{
	struct rig *rig = rig_new();
	struct speckv_card_key keys[2] = { { .downgrade = false }, { .downgrade = true } };

	EQUAL(speckv_bundle_key_public(secret, keys[0].key), 0);
	EQUAL(speckv_bundle_key_public(lowering, keys[1].key), 0);
	EQUAL(speckv_card_flash_provision(&rig->ops, rig, rig->config.flash_bytes, keys, 2), 0);
	rig->config.golden_engine = false;
	rig_power_on(rig);
	return rig;
}

static struct client administer(struct rig *rig)
{
	if (!rig->card->functions[0])
		rig_function(rig, true, 1);
	else
		/* a new administrator, whether the card rebooted or not */
		speckv_card_function_reset(rig->card, 0);
	rig->host_used[0] = 0;
	return rig_admin(rig, 0);
}

static union card_entry firmware(uint8_t opcode, unsigned int slot, const struct bundle *bundle)
{
	union card_entry e = { .firmware = { .opcode = opcode, .slot = (uint16_t)slot } };

	if (bundle)
		memcpy(e.firmware.digest, bundle->digest, 32);
	return e;
}

/* From wherever the card says, in pieces of this size. */
static uint16_t download(struct client *admin, unsigned int slot, const struct bundle *bundle,
	uint32_t piece, uint8_t flags)
{
	union card_entry e = firmware(SPECKV_ADMIN_FW_DOWNLOAD, slot, bundle);
	uint64_t data = rig_alloc(admin->rig, admin->function, piece), at = 0;
	uint16_t status = 0;

	e.firmware.total_bytes = BUNDLE;
	if (!flags)
		status = client_run(admin, &e, &at);
	while (!status && at < BUNDLE) {
		uint32_t n = BUNDLE - at < piece ? (uint32_t)(BUNDLE - at) : piece;

		e.firmware.flags = at ? 0 : flags;
		e.firmware.data_address = data;
		e.firmware.data_bytes = n;
		e.firmware.offset = (uint32_t)at;
		e.firmware.data_crc32c = speckv_crc32c(0, bundle->bytes + at, n);
		memcpy(rig_at(admin->rig, admin->function, data), bundle->bytes + at, n);
		status = client_run(admin, &e, &at);
	}
	admin->rig->host_used[admin->function] -= (piece + 4095) / 4096 * 4096;
	return status;
}

static uint16_t commit(struct client *admin, unsigned int slot, const struct bundle *bundle)
{
	union card_entry e = firmware(SPECKV_ADMIN_FW_COMMIT, slot, bundle);

	return client_run(admin, &e, NULL);
}

static uint16_t activate(struct client *admin, unsigned int slot, const struct bundle *bundle,
	uint64_t *how)
{
	union card_entry e = firmware(SPECKV_ADMIN_FW_ACTIVATE, slot,
		slot == SPECKV_SLOT_A || slot == SPECKV_SLOT_B ? bundle : NULL);
	uint64_t result = 0;
	uint16_t status = client_run(admin, &e, &result);

	if (how)
		*how = result & SPECKV_ACTIVATION_MASK;
	return status;
}

static void reset_card(struct client *admin)
{
	union card_entry e = { .value = {
				       .opcode = SPECKV_ADMIN_RESET, .value = SPECKV_RESET_CARD } };

	EQUAL(client_run(admin, &e, NULL), 0);
	CHECK(speckv_card_rebooted(admin->rig->card), "rebooted");
}

/* All of it: the status of the first step that failed. */
static uint16_t flash(struct rig *rig, unsigned int slot, const struct bundle *bundle)
{
	struct client admin = administer(rig);
	uint16_t status = download(&admin, slot, bundle, 50000, 0);
	uint64_t how = 0;

	if (!status)
		status = commit(&admin, slot, bundle);
	if (!status || status == SPECKV_STATUS_UNCHANGED)
		status = activate(&admin, slot, bundle, &how);
	if (!status && how == SPECKV_ACTIVATION_NEEDS_RESCAN)
		reset_card(&admin);
	speckv_card_rebooted(rig->card);
	return status;
}

static uint32_t revision(struct rig *rig)
{
	return rig_read(rig, 0, REG(RTL_REVISION));
}

static void the_whole_way_from_the_factory(void)
{
	struct rig *rig = fresh();
	struct client admin = administer(rig);
	struct speckv_log_header header;
	struct speckv_log_slot slots[3];
	uint64_t how;

	EQUAL(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, 0);
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 7777, 0), 0);
	CHECK(!memcmp(flash_bundle(rig->card, SPECKV_SLOT_A), old->bytes, BUNDLE), "byte for byte");
	rig_log(&admin, SPECKV_LOG_FLASH, 0, 0, slots, sizeof(slots), &header);
	EQUAL(header.entries, 3);
	EQUAL(slots[1].state, SPECKV_SLOT_STATE_WRITTEN);
	EQUAL(slots[1].received_bytes, BUNDLE);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), SPECKV_STATUS_FW_SLOT);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), SPECKV_STATUS_UNCHANGED);
	EQUAL(activate(&admin, SPECKV_SLOT_A, new, NULL), SPECKV_STATUS_FW_DIGEST);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN); /* another personality */
	CHECK(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm, "pending");
	EQUAL(revision(rig), 0x100);
	reset_card(&admin);
	EQUAL(revision(rig), old->revision);
	CHECK(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, "an engine");
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_A);
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[0])),
		SPECKV_SLOT_STATE_GOOD | (old->revision & 0xffffff00));
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 5);
	/* The running slot is not written; the other one takes effect by itself. */
	admin = administer(rig);
	EQUAL(download(&admin, SPECKV_SLOT_A, new, 50000, 0), SPECKV_STATUS_FW_SLOT);
	EQUAL(download(&admin, SPECKV_SLOT_GOLDEN, new, 50000, 0), SPECKV_STATUS_FW_SLOT);
	EQUAL(download(&admin, SPECKV_SLOT_B, new, 50000, 0), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_B, new), 0);
	EQUAL(activate(&admin, SPECKV_SLOT_B, new, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_DONE);
	CHECK(speckv_card_rebooted(rig->card), "rebooted");
	EQUAL(revision(rig), new->revision);
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 6);
	/* Not back below the security version; to golden. */
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_B, new, NULL), SPECKV_STATUS_UNCHANGED);
	EQUAL(activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(revision(rig), new->revision);
	EQUAL(activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN);
	reset_card(&admin);
	EQUAL(revision(rig), 0x100);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(revision(rig), 0x100);
	rig_free(rig);
}

static void bad_bundles_are_refused_and_change_nothing(void)
{
	static const struct {
		uint32_t security;
		const char *part;
		const uint8_t *key;
		uint16_t expected;
	} bad[] = {
		{ 6, "XC7A100T", secret, SPECKV_STATUS_FW_PART },
		{ 6, "LFE5U-85F", foreign, SPECKV_STATUS_FW_KEY },
		{ 6, "LFE5U-85F", NULL, SPECKV_STATUS_FW_KEY },
		{ 4, "LFE5U-85F", secret, SPECKV_STATUS_FW_DOWNGRADE },
		{ 4, "LFE5U-85F", lowering, SPECKV_STATUS_OK },
	};
	struct rig *rig = fresh();
	struct client admin;
	struct bundle *b;

	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	admin = administer(rig);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		b = make(9, bad[i].security, bad[i].part, bad[i].key);
		EQUAL(download(&admin, SPECKV_SLOT_B, b, 60000, 0), 0);
		EQUAL(commit(&admin, SPECKV_SLOT_B, b), bad[i].expected);
		EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[1])) & 7,
			bad[i].expected ? SPECKV_SLOT_STATE_REJECTED : SPECKV_SLOT_STATE_VERIFIED);
		if (bad[i].expected)
			EQUAL(activate(&admin, SPECKV_SLOT_B, b, NULL), SPECKV_STATUS_FW_SLOT);
		EQUAL(revision(rig), old->revision);
		free(b);
	}
	/*
	 * Bytes that were changed on the way: the digest of the command, then the signature, then
	 * the bitstream's own digest.
	 */
	for (uint64_t at = 0; at < BUNDLE; at += at < 2048 ? 61 : 9973) {
		uint16_t status;

		b = malloc(sizeof(*b));
		*b = *new;
		b->bytes[at] ^= 0x20;
		EQUAL(download(&admin, SPECKV_SLOT_B, b, 60000, SPECKV_FW_RESTART), 0);
		EQUAL(commit(&admin, SPECKV_SLOT_B, b), SPECKV_STATUS_FW_DIGEST);
		CHECK(card_sha256(b->bytes, BUNDLE, b->digest), "digest");
		EQUAL(download(&admin, SPECKV_SLOT_B, b, 60000, SPECKV_FW_RESTART), 0);
		status = commit(&admin, SPECKV_SLOT_B, b);
		CHECK(status >= SPECKV_STATUS_FW_PART && status <= SPECKV_STATUS_FW_KEY,
			"byte %llu: 0x%x", (unsigned long long)at, status);
		free(b);
	}
	rig_free(rig);
}

static void a_worn_out_cell_fails_the_download_not_the_boot(void)
{
	struct rig *rig = fresh();
	struct client admin = administer(rig);

	rig->worn = flash_slot_offset(rig->card, SPECKV_SLOT_A) + FLASH_SECTOR + 5000;
	CHECK(old->bytes[5000], "a byte that is not 0 anyway");
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, 0), SPECKV_STATUS_FW_FLASH);
	EQUAL(flash(rig, SPECKV_SLOT_B, old), 0);
	EQUAL(revision(rig), old->revision);
	rig_free(rig);
}

/*
 * Power goes at each first boot, after it was begun and before it was healthy: twice, and then the
 * image is given up.
 */
static void a_first_boot_has_two_tries(void)
{
	struct rig *rig = fresh();
	struct client admin = administer(rig);

	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, 0), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), 0);
	for (unsigned int boots = 1; boots <= 2; boots++) {
		rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + 100;
		rig_restart(rig);
		rig_function(rig, true, 1);
		EQUAL(revision(rig), old->revision);
		EQUAL(rig->card->flash.record.slot[0].boots, boots);
		EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_TRIAL);
	}
	rig->flash_budget = UINT64_MAX;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_GOLDEN);
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_REJECTED);
	/*
	 * Committed again, its boot counter starts at 0; a try that is cut off once is not held
	 * against it.
	 */
	admin = administer(rig);
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), 0);
	rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + 100;
	rig_restart(rig);
	rig->flash_budget = UINT64_MAX;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(revision(rig), old->revision);
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	rig_free(rig);
}

/* ---- security version ----------------------------------------------------------------------- */

static uint32_t floor_of(struct rig *rig)
{
	return rig_read(rig, 0, REG(FLASH_SECURITY));
}

/* Commit a bundle to a slot and leave it there. */
static void put(struct rig *rig, unsigned int slot, const struct bundle *bundle)
{
	struct client admin = administer(rig);

	EQUAL(download(&admin, slot, bundle, 60000, 0), 0);
	EQUAL(commit(&admin, slot, bundle), 0);
}

static void an_image_below_the_security_version_is_not_started_by_any_way(void)
{
	union card_entry dry = firmware(SPECKV_ADMIN_FW_ACTIVATE, SPECKV_SLOT_PREVIOUS, NULL);
	struct rig *rig = fresh();
	struct client admin;
	uint8_t state;

	/* Committed early and never started: A waits while B raises the version. */
	put(rig, SPECKV_SLOT_A, old);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	EQUAL(floor_of(rig), 6);
	admin = administer(rig);
	state = rig->card->flash.record.slot[0].state;
	EQUAL(state, SPECKV_SLOT_STATE_VERIFIED);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* it is there already: a resumed download */
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, 0), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(rig->card->flash.record.slot[0].state, state);
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), SPECKV_STATUS_FW_DOWNGRADE);
	/* By way of golden. */
	EQUAL(activate(&admin, SPECKV_SLOT_GOLDEN, NULL, NULL), 0);
	reset_card(&admin);
	EQUAL(revision(rig), 0x100);
	EQUAL(floor_of(rig), 6);
	EQUAL(flash(rig, SPECKV_SLOT_A, old), SPECKV_STATUS_FW_DOWNGRADE);
	/* Rolled back to while another runs: what a dry run says too. */
	rig_free(rig);
	rig = fresh();
	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	admin = administer(rig);
	dry.firmware.flags = SPECKV_FW_DRY_RUN;
	EQUAL(client_run(&admin, &dry, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* A boot record that asks for it, of a card that did not check. */
	rig->card->flash.record.next = SPECKV_SLOT_A;
	EQUAL(flash_store(rig->card, &rig->card->flash.record), 0);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(revision(rig), new->revision);
	CHECK(rig_read(rig, 0, REG(FLASH_STATUS)) & SPECKV_REGS__FLASH_STATUS__FELL_BACK_bm,
		"says so");
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	rig_free(rig);
	/* Fallen back to when the newer one has rotted. */
	rig = fresh();
	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	rig->flash[flash_slot_offset(rig->card, SPECKV_SLOT_B) + FLASH_SECTOR + 9000] ^= 1;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_GOLDEN);
	EQUAL(floor_of(rig), 6);
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0); /* never bricked */
	EQUAL(revision(rig), new->revision);
	rig_free(rig);
}

static void going_back_within_the_security_version_works_and_a_dry_run_says_where_to(void)
{
	union card_entry dry = firmware(SPECKV_ADMIN_FW_ACTIVATE, SPECKV_SLOT_PREVIOUS, NULL);
	struct bundle *same = make(7, 5, "LFE5U-85F", secret);
	struct rig *rig = fresh();
	struct flash_record before;
	struct client admin;
	uint64_t result = 0;

	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	EQUAL(flash(rig, SPECKV_SLOT_B, same), 0);
	admin = administer(rig);
	before = rig->card->flash.record;
	dry.firmware.flags = SPECKV_FW_DRY_RUN;
	EQUAL(client_run(&admin, &dry, &result), 0);
	EQUAL(result,
		SPECKV_ACTIVATION_DONE | SPECKV_SLOT_A << SPECKV_ACTIVATION_SLOT_SHIFT |
			SPECKV_ACTIVATION_ENGINE);
	dry.firmware.slot = SPECKV_SLOT_GOLDEN;
	EQUAL(client_run(&admin, &dry, &result), 0);
	EQUAL(result, SPECKV_ACTIVATION_NEEDS_RESCAN);
	CHECK(!memcmp(&before, &rig->card->flash.record, sizeof(before)) &&
			!speckv_card_rebooted(rig->card),
		"a dry run changes nothing");
	EQUAL(activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), 0);
	EQUAL(revision(rig), old->revision);
	rig_free(rig);
	free(same);
}

static void only_the_key_for_it_lowers_the_security_version_and_once_a_commit(void)
{
	struct bundle *lower = make(8, 4, "LFE5U-85F", lowering);
	struct rig *rig = fresh();
	struct client admin;

	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	put(rig, SPECKV_SLOT_B, lower);
	EQUAL(floor_of(rig), 5); /* not before it runs well */
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_BAD_BOOT, 0, 0, 1);
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_B, lower, NULL), 0);
	speckv_card_rebooted(rig->card);
	EQUAL(revision(rig), old->revision);
	EQUAL(floor_of(rig), 5);
	admin = administer(rig);
	EQUAL(download(&admin, SPECKV_SLOT_B, lower, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(flash(rig, SPECKV_SLOT_B, lower), 0);
	EQUAL(revision(rig), lower->revision);
	EQUAL(floor_of(rig), 4);
	EQUAL(rig->card->flash.record.slot[1].lowers, 0); /* used up */
	/*
	 * The newer image raises it again, by running; then the older one is too old, though its
	 * key could lower it.
	 */
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_A, old, NULL), 0);
	speckv_card_rebooted(rig->card);
	EQUAL(floor_of(rig), 5);
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* Committed again, it is meant. */
	EQUAL(flash(rig, SPECKV_SLOT_B, lower), 0);
	EQUAL(revision(rig), lower->revision);
	EQUAL(floor_of(rig), 4);
	rig_free(rig);
	/*
	 * Committed, not started, and overtaken by a rise in the other slot, by way of golden:
	 * power may go at any of that boot's writes.
	 */
	for (uint64_t cut = 0; cut <= FLASH_SECTOR + sizeof(struct flash_record);
		cut += cut < FLASH_SECTOR ? 1023 : 64) {
		rig = fresh();
		EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
		put(rig, SPECKV_SLOT_B, lower);
		admin = administer(rig);
		EQUAL(activate(&admin, SPECKV_SLOT_GOLDEN, NULL, NULL), 0);
		reset_card(&admin);
		put(rig, SPECKV_SLOT_A, new);
		admin = administer(rig);
		EQUAL(activate(&admin, SPECKV_SLOT_A, new, NULL), 0);
		/* after the trial's record: that of its health */
		rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + cut;
		reset_card(&admin);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		EQUAL(revision((rig_function(rig, true, 1), rig)), new->revision);
		EQUAL(floor_of(rig), 6);
		admin = administer(rig);
		EQUAL(activate(&admin, SPECKV_SLOT_B, lower, NULL), SPECKV_STATUS_FW_DOWNGRADE);
		EQUAL(floor_of(rig), 6);
		EQUAL(flash(rig, SPECKV_SLOT_B, lower), 0); /* committed again */
		EQUAL(floor_of(rig), 4);
		rig_free(rig);
	}
	free(lower);
}

static void golden_always_starts_and_has_an_engine_only_within_the_security_version(void)
{
	struct rig *rig = fresh();
	struct client admin;
	uint64_t how;

	rig->config.golden_engine = true;
	rig->config.golden_security_version = 5;
	rig_restart(rig);
	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_DONE);
	speckv_card_rebooted(rig->card);
	EQUAL(revision(rig), 0x100);
	CHECK(speckv_card_has_engine(rig->card), "version 5 is the card's");
	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	admin = administer(rig);
	EQUAL(activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN);
	reset_card(&admin);
	EQUAL(revision(rig), 0x100);
	CHECK(!speckv_card_has_engine(rig->card), "version 5 is below the card's");
	EQUAL(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, 0);
	rig_restart(rig);
	rig_function(rig, true, 1);
	CHECK(!speckv_card_has_engine(rig->card), "nor after power was off");
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0); /* and it takes what is new enough */
	CHECK(speckv_card_has_engine(rig->card), "an engine");
	rig_free(rig);
}

#define WRONG(member, value, expected)                             \
	do {                                                       \
		union card_entry wrong = good;                     \
		wrong.member = (value);                            \
		EQUAL(client_run(&admin, &wrong, NULL), expected); \
	} while (0)

static void pieces_come_in_order_and_go_on_after_a_break(void)
{
	struct rig *rig = fresh();
	struct client admin = administer(rig);
	uint64_t data = rig_alloc(rig, 0, 70000), at;
	union card_entry good = firmware(SPECKV_ADMIN_FW_DOWNLOAD, SPECKV_SLOT_A, old), ask;

	memcpy(rig_at(rig, 0, data), old->bytes, 70000);
	good.firmware.total_bytes = BUNDLE;
	ask = good;
	good.firmware.data_address = data;
	good.firmware.data_bytes = 70000;
	good.firmware.data_crc32c = speckv_crc32c(0, old->bytes, 70000);
	WRONG(firmware.data_crc32c, 1, SPECKV_STATUS_INVALID);
	WRONG(firmware.total_bytes, 0, SPECKV_STATUS_INVALID);
	WRONG(firmware.total_bytes, RIG_SLOT_BYTES + 1, SPECKV_STATUS_INVALID);
	WRONG(firmware.total_bytes, 60000, SPECKV_STATUS_INVALID);
	WRONG(firmware.offset, 64, SPECKV_STATUS_FW_OFFSET);
	WRONG(firmware.slot, 3, SPECKV_STATUS_FW_SLOT);
	WRONG(firmware.slot, 77, SPECKV_STATUS_FW_SLOT);
	WRONG(firmware.data_address, data + 1, SPECKV_STATUS_INVALID);
	WRONG(firmware.reserved, 1, SPECKV_STATUS_INVALID);
	WRONG(firmware.flags, SPECKV_FW_DRY_RUN, SPECKV_STATUS_INVALID);
	EQUAL(client_run(&admin, &good, &at), 0);
	EQUAL(at, 70000);
	EQUAL(client_run(&admin, &good, NULL), SPECKV_STATUS_FW_OFFSET);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), SPECKV_STATUS_FW_OFFSET);
	EQUAL(client_run(&admin, &ask, &at), 0);
	EQUAL(at, 70000);
	/* What is not a whole chunk is received again after a power cycle. */
	rig_restart(rig);
	admin = administer(rig);
	EQUAL(client_run(&admin, &ask, &at), 0);
	EQUAL(at, FLASH_CHUNK);
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 50000, 0), 0);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	rig_free(rig);
}

static void flash_faults_fail_the_command_and_can_be_repeated(void)
{
	struct rig *rig = fresh();
	struct client admin = administer(rig);

	for (uint64_t k = 0; k < 60000; k += 4999) {
		speckv_card_inject(rig->card,
			k & 1 ? SPECKV_CARD_FAULT_TORN_PROGRAM : SPECKV_CARD_FAULT_TORN_ERASE, 0, k,
			1);
		EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, SPECKV_FW_RESTART),
			SPECKV_STATUS_FW_FLASH);
	}
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, 0), 0);
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_TORN_PROGRAM, 0, 100, 1);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), SPECKV_STATUS_FW_FLASH);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	rig_free(rig);
}

static void a_first_boot_that_is_not_healthy_falls_back(void)
{
	struct rig *rig = fresh();
	struct speckv_log_header header;
	struct speckv_log_health health;
	struct client admin;

	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_BAD_BOOT, 0, 0, 1);
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	EQUAL(revision(rig), old->revision);
	CHECK(rig_read(rig, 0, REG(FLASH_STATUS)) & SPECKV_REGS__FLASH_STATUS__FELL_BACK_bm,
		"says so");
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[1])) & 7, SPECKV_SLOT_STATE_REJECTED);
	/* an image that never ran raises nothing */
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 5);
	admin = administer(rig);
	rig_log(&admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header);
	EQUAL(health.state, SPECKV_HEALTH_FELL_BACK);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(revision(rig), old->revision);
	/* Both slots damaged: golden. */
	rig->flash[flash_slot_offset(rig->card, SPECKV_SLOT_A) + FLASH_SECTOR + 9000] ^= 1;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_GOLDEN);
	EQUAL(revision(rig), 0x100);
	rig_free(rig);
}

static void what_waits_to_boot_can_be_replaced(void)
{
	union card_entry dry = firmware(SPECKV_ADMIN_FW_COMMIT, SPECKV_SLOT_A, new), set;
	struct rig *rig = fresh();
	struct client admin = administer(rig);

	EQUAL(download(&admin, SPECKV_SLOT_A, new, 60000, 0), 0);
	dry.firmware.flags = SPECKV_FW_DRY_RUN;
	EQUAL(client_run(&admin, &dry, NULL), 0);
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[0])) & 7, SPECKV_SLOT_STATE_WRITING);
	EQUAL(commit(&admin, SPECKV_SLOT_A, new), 0);
	EQUAL(activate(&admin, SPECKV_SLOT_A, new, NULL), 0);
	CHECK(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm, "waits");
	/* Another bundle into the slot that would boot next: nothing waits any more. */
	EQUAL(download(&admin, SPECKV_SLOT_A, old, 60000, 0), 0);
	CHECK(!(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm),
		"does not wait");
	rig_restart(rig);
	admin = administer(rig);
	EQUAL(revision(rig), 0x100);
	EQUAL(commit(&admin, SPECKV_SLOT_A, old), 0);
	dry.firmware.data_bytes = 1;
	EQUAL(client_run(&admin, &dry, NULL), SPECKV_STATUS_INVALID);
	/* A setting that cannot be kept is not made. */
	set = (union card_entry){ .value = { .opcode = SPECKV_ADMIN_SET_FEATURE,
					  .flags = SPECKV_FEATURE_SAVE,
					  .value = 9,
					  .feature = SPECKV_FEATURE_PREFETCH_DEPTH } };
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_TORN_ERASE, 0, 0, 1);
	EQUAL(client_run(&admin, &set, NULL), SPECKV_STATUS_FW_FLASH);
	EQUAL(card_feature(rig->card, SPECKV_FEATURE_PREFETCH_DEPTH), 0);
	rig_free(rig);
}

/* ---- power cuts ----------------------------------------------------------------------------- */

/*
 * Somewhere in the sequence: half of the time evenly over its bytes, half evenly over its
 * operations, in one or before it.
 */
static uint64_t choose_cut(struct rig *rig, const uint64_t *ops, unsigned int count, uint64_t total)
{
	unsigned int op = rig_below(rig, count);
	uint64_t at = 0;

	if (rig_below(rig, 2))
		return rig_random(rig) % total;
	for (unsigned int i = 0; i < op; i++)
		at += ops[i];
	return at + (rig_below(rig, 2) ? rig_random(rig) % (ops[op] + 1) : 0);
}

static void cuts(unsigned long wanted, bool from_factory)
{
	struct rig *rig = fresh();
	const struct bundle *before = from_factory ? NULL : old;
	uint32_t old_revision = before ? old->revision : 0x100;
	uint64_t ops[1024], total = 0, bytes = rig->config.flash_bytes;
	uint8_t *base = malloc(bytes);
	unsigned int count, seen[2] = { 0 };

	if (before)
		EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	memcpy(base, rig->flash, bytes);
	rig->flash_log = true;
	EQUAL(flash(rig, SPECKV_SLOT_B, new), 0);
	EQUAL(revision(rig), new->revision);
	rig->flash_log = false;
	count = rig->flash_op_count;
	CHECK(count < 1024, "room for all operations");
	memcpy(ops, rig->flash_ops, sizeof(ops));
	for (unsigned int i = 0; i < count; i++)
		total += ops[i];
	for (unsigned long n = 0; n < wanted; n++) {
		uint64_t cut = choose_cut(rig, ops, count, total);

		speckv_card_destroy(rig->card);
		memcpy(rig->flash, base, bytes);
		rig_power_on(rig);
		rig->flash_budget = cut;
		flash(rig, SPECKV_SLOT_B, new);
		/* Sometimes power goes again while the card starts. */
		rig->flash_budget = rig_below(rig, 3) ? UINT64_MAX : rig_below(rig, 12000);
		rig_restart(rig);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		rig_function(rig, true, 1);
		CHECK(revision(rig) == old_revision || revision(rig) == new->revision,
			"cut at %llu: revision %x", (unsigned long long)cut, revision(rig));
		seen[revision(rig) == new->revision]++;
		/* And the update can be finished. */
		if (revision(rig) != new->revision) {
			uint16_t status = flash(rig, SPECKV_SLOT_B, new);

			if (status == SPECKV_STATUS_FW_DIGEST ||
				status == SPECKV_STATUS_FW_OFFSET ||
				status == SPECKV_STATUS_FW_SLOT) {
				struct client admin = administer(rig);

				EQUAL(download(&admin, SPECKV_SLOT_B, new, 60000,
					      SPECKV_FW_RESTART),
					0);
				status = flash(rig, SPECKV_SLOT_B, new);
			}
			CHECK(!status, "cut at %llu: 0x%x", (unsigned long long)cut, status);
			EQUAL(revision(rig), new->revision);
		}
	}
	printf("%lu cuts %s: %u old, %u new\n", wanted,
		from_factory ? "from the factory" : "of an update", seen[0], seen[1]);
	CHECK(seen[0] && seen[1], "both ends were seen");
	free(base);
	rig_free(rig);
}

/*
 * Step of an update to a version that only adds, a way back, an update that raises the version, and
 * another into the other slot.
 */
static uint16_t step_forward(struct rig *rig, const struct bundle *const bundles[4],
	unsigned int step)
{
	struct client admin;

	if (rig->dark || revision(rig) == bundles[step]->revision) /* cut, or done before it was */
		return SPECKV_STATUS_OK;
	if (step != 1)
		return flash(rig, step == 3 ? SPECKV_SLOT_A : SPECKV_SLOT_B, bundles[step]);
	admin = administer(rig);
	return activate(&admin,
		rig->card->flash.record.previous == SPECKV_SLOT_A ? SPECKV_SLOT_PREVIOUS
								  : SPECKV_SLOT_A,
		bundles[step], NULL);
}

/*
 * Power is lost with a cache in front of the flash: of what was written since the last sync any
 * part has reached the medium, in any order. Each such state boots a whole image and not golden,
 * keeps the security version, and goes on where it was.
 */
static void reorderings(unsigned long wanted)
{
	struct bundle *same = make(7, 5, "LFE5U-85F", secret),
		      *last = make(8, 7, "LFE5U-85F", secret);
	const struct bundle *const bundles[4] = { same, old, new, last };
	struct rig *rig = fresh();
	uint64_t ops[1024], total = 0, bytes = rig->config.flash_bytes;
	uint8_t *base = malloc(bytes);
	unsigned int count, cut_in[5] = { 0 };
	uint32_t done;

	EQUAL(flash(rig, SPECKV_SLOT_A, old), 0);
	memcpy(base, rig->flash, bytes);
	rig->flash_log = true;
	for (unsigned int step = 0; step < 4; step++) {
		EQUAL(step_forward(rig, bundles, step), 0);
		EQUAL(revision(rig), bundles[step]->revision);
	}
	rig->flash_log = false;
	count = rig->flash_op_count;
	CHECK(count < 1024, "room for all operations");
	memcpy(ops, rig->flash_ops, sizeof(ops));
	for (unsigned int i = 0; i < count; i++)
		total += ops[i];
	for (unsigned long n = 0; n < wanted; n++) {
		uint64_t cut = choose_cut(rig, ops, count, total);
		/* power may also go when that one is done */
		unsigned int step = 0, slot, last_step = rig_below(rig, 8);
		uint32_t lowest = 5;

		speckv_card_destroy(rig->card);
		memcpy(rig->flash, base, bytes);
		rig_flash_cache(rig);
		rig_power_on(rig);
		rig_function(rig, true, 1);
		rig->flash_budget = cut;
		for (; step < 4; step++) {
			step_forward(rig, bundles, step);
			if (rig->dark)
				break;
			lowest = floor_of(rig);
			if (step == last_step)
				break;
		}
		cut_in[step] += rig->dark;
		done = rig->dark || step == 4 ? 0 : bundles[step]->revision;
		/* Sometimes power goes again while the card starts. */
		rig->flash_budget = rig_below(rig, 3) ? UINT64_MAX : rig_below(rig, 6000);
		rig_restart(rig);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		rig_function(rig, true, 1);
		slot = speckv_card_running_slot(rig->card);
		CHECK(slot != SPECKV_SLOT_GOLDEN && !card_slot_intact(rig->card, slot),
			"cut at %llu in step %u: slot %u", (unsigned long long)cut, step, slot);
		CHECK(!done || revision(rig) == done, "step %u was done, and %x runs", step,
			revision(rig));
		for (unsigned int i = 0; i < 2; i++) {
			uint8_t state = rig->card->flash.record.slot[i].state;

			CHECK(state < SPECKV_SLOT_STATE_VERIFIED ||
					state > SPECKV_SLOT_STATE_GOOD ||
					!card_slot_intact(rig->card, SPECKV_SLOT_A + i),
				"cut at %llu in step %u: slot %u is said to be whole",
				(unsigned long long)cut, step, SPECKV_SLOT_A + i);
		}
		CHECK(floor_of(rig) >= lowest &&
				rig->card->flash.record.slot[slot - SPECKV_SLOT_A]
						.security_version >= floor_of(rig),
			"cut at %llu in step %u: version %u of %u", (unsigned long long)cut, step,
			floor_of(rig), lowest);
		for (; step < 4; step++) {
			uint16_t status = step_forward(rig, bundles, step);

			CHECK(!status, "cut at %llu, step %u afterwards: 0x%x",
				(unsigned long long)cut, step, status);
		}
		EQUAL(revision(rig), last->revision);
		EQUAL(floor_of(rig), 7);
	}
	printf("%lu losses of power with a cache: %u, %u, %u, %u in the four steps\n", wanted,
		cut_in[0], cut_in[1], cut_in[2], cut_in[3]);
	CHECK(wanted < 200 || (cut_in[0] && cut_in[1] && cut_in[2] && cut_in[3]),
		"cuts in every step");
	free(base);
	rig_free(rig);
	free(same);
	free(last);
}

/*
 * Random steps, each of which power may cut: flash, go back, go to golden, a download that stops
 * and goes on, a commit that waits. What runs is never below the security version, which falls only
 * to an image of the key for it.
 */
static void walks(unsigned long wanted)
{
	struct bundle *choice[] = { old, new, make(5, 6, "LFE5U-85F", secret),
		make(6, 7, "LFE5U-85F", secret), make(7, 4, "LFE5U-85F", lowering) };
	enum { CHOICES = sizeof(choice) / sizeof(choice[0]) };
	unsigned long cut = 0, refused = 0, back = 0, golden = 0;
	struct rig *rig = NULL;
	uint32_t lowest = 0;

	for (unsigned long n = 0; n < wanted; n++) {
		const struct bundle *bundle;
		unsigned int slot, step;
		struct client admin;
		uint16_t status = 0;

		if (n % 40 == 0) {
			if (rig)
				rig_free(rig);
			rig = fresh();
			rig->random = n + 1; /* others than the ones before */
			rig->config.golden_engine = rig_below(rig, 2);
			rig->config.golden_security_version = 5;
			if (rig_below(rig, 2))
				rig_flash_cache(rig);
			rig_restart(rig);
			lowest = 0;
		}
		bundle = choice[rig_below(rig, n % 40 < 30 ? CHOICES - 1 : CHOICES)];
		slot = speckv_card_running_slot(rig->card) == SPECKV_SLOT_A ? SPECKV_SLOT_B
									    : SPECKV_SLOT_A;
		step = (unsigned int)rig_below(rig, 8);
		admin = administer(rig);
		rig->flash_budget = rig_below(rig, 3) ? rig_below(rig, step < 5 ? 400000 : 20000)
						      : UINT64_MAX;
		if (step == 0) { /* stops in the middle; a later step goes on */
			union card_entry e = firmware(SPECKV_ADMIN_FW_DOWNLOAD, slot, bundle);
			uint64_t data = rig_alloc(rig, 0, 70000);

			memcpy(rig_at(rig, 0, data), bundle->bytes, 70000);
			e.firmware.total_bytes = BUNDLE;
			e.firmware.data_address = data;
			e.firmware.data_bytes = 70000;
			e.firmware.data_crc32c = speckv_crc32c(0, bundle->bytes, 70000);
			status = client_run(&admin, &e, NULL);
		} else if (step < 2) {
			status = download(&admin, slot, bundle, 60000, SPECKV_FW_RESTART);
			status = status ? status : commit(&admin, slot, bundle);
		} else if (step < 5) {
			status = flash(rig, slot, bundle);
		} else if (step == 5) {
			status = activate(&admin, slot, bundle, NULL);
		} else {
			status = activate(&admin,
				step == 6 ? SPECKV_SLOT_PREVIOUS : SPECKV_SLOT_GOLDEN, NULL, NULL);
			back += step == 6 && !status;
		}
		refused += status == SPECKV_STATUS_FW_DOWNGRADE;
		cut += rig->dark;
		rig->flash_budget = rig->flash_budget && rig_below(rig, 3) ? UINT64_MAX
									   : rig_below(rig, 12000);
		rig_restart(rig);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		rig_function(rig, true, 1);
		slot = speckv_card_running_slot(rig->card);
		if (slot == SPECKV_SLOT_GOLDEN) {
			golden++;
			EQUAL(speckv_card_has_engine(rig->card),
				rig->config.golden_engine && floor_of(rig) <= 5);
		} else {
			CHECK(rig->card->flash.record.slot[slot - SPECKV_SLOT_A].security_version >=
					floor_of(rig),
				"step %lu: version %u runs, %u at least", n,
				rig->card->flash.record.slot[slot - SPECKV_SLOT_A].security_version,
				floor_of(rig));
		}
		CHECK(floor_of(rig) >= lowest || (floor_of(rig) == 4 && n % 40 >= 30),
			"step %lu: from %u to %u", n, lowest, floor_of(rig));
		lowest = floor_of(rig);
	}
	printf("%lu steps: %lu cut, %lu too old, %lu back, golden ran after %lu\n", wanted, cut,
		refused, back, golden);
	CHECK(wanted < 200 || (cut && refused && back && golden), "every kind was seen");
	if (rig)
		rig_free(rig);
	for (unsigned int i = 2; i < CHOICES; i++)
		free(choice[i]);
}

int main(int argc, char **argv)
{
	unsigned long wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 600;

	old = make(3, 5, "LFE5U-85F", secret);
	new = make(4, 6, "LFE5U-85F", secret);
	the_whole_way_from_the_factory();
	bad_bundles_are_refused_and_change_nothing();
	pieces_come_in_order_and_go_on_after_a_break();
	flash_faults_fail_the_command_and_can_be_repeated();
	a_first_boot_that_is_not_healthy_falls_back();
	a_first_boot_has_two_tries();
	a_worn_out_cell_fails_the_download_not_the_boot();
	what_waits_to_boot_can_be_replaced();
	an_image_below_the_security_version_is_not_started_by_any_way();
	going_back_within_the_security_version_works_and_a_dry_run_says_where_to();
	only_the_key_for_it_lowers_the_security_version_and_once_a_commit();
	golden_always_starts_and_has_an_engine_only_within_the_security_version();
	walks(wanted);
	reorderings(wanted / 2);
	cuts(wanted / 2, false);
	cuts(wanted - wanted / 2, true);
	free(old);
	free(new);
	return 0;
}

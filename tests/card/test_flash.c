// SPDX-License-Identifier: MIT
/* Flashing: download, commit, activate; every kind of bad bundle, and flash that fails. */
#include "fw.h"

#define WRONG(member, value, expected) CLIENT_WRONG(&admin, member, value, expected)

static void the_whole_way_from_the_factory(void)
{
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);
	struct speckv_log_header header;
	struct speckv_log_slot slots[3];
	uint64_t how;

	EQUAL(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, 0);
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 7777, 0), 0);
	CHECK(!memcmp(flash_bundle(rig->card, SPECKV_SLOT_A), fw_old->bytes, FW_BUNDLE),
		"byte for byte");
	rig_log(&admin, SPECKV_LOG_FLASH, 0, 0, slots, sizeof(slots), &header);
	EQUAL(header.entries, 3);
	EQUAL(slots[1].state, SPECKV_SLOT_STATE_WRITTEN);
	EQUAL(slots[1].received_bytes, FW_BUNDLE);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), SPECKV_STATUS_FW_SLOT);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_UNCHANGED);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_new, NULL), SPECKV_STATUS_FW_DIGEST);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN); /* another personality */
	CHECK(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm, "pending");
	EQUAL(fw_revision(rig), 0x100);
	fw_reset(&admin);
	EQUAL(fw_revision(rig), fw_old->revision);
	CHECK(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, "an engine");
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_A);
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[0])),
		SPECKV_SLOT_STATE_GOOD | (fw_old->revision & 0xffffff00));
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 5);
	/* The running slot is refused; the other one is activated without a reset by the host. */
	admin = fw_administer(rig);
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_new, 50000, 0), SPECKV_STATUS_FW_SLOT);
	EQUAL(fw_download(&admin, SPECKV_SLOT_GOLDEN, fw_new, 50000, 0), SPECKV_STATUS_FW_SLOT);
	EQUAL(fw_download(&admin, SPECKV_SLOT_B, fw_new, 50000, 0), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_B, fw_new), 0);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_B, fw_new, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_DONE);
	CHECK(speckv_card_rebooted(rig->card), "rebooted");
	EQUAL(fw_revision(rig), fw_new->revision);
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 6);
	/* Not back below the security version; to golden. */
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_B, fw_new, NULL), SPECKV_STATUS_UNCHANGED);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(fw_revision(rig), fw_new->revision);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN);
	fw_reset(&admin);
	EQUAL(fw_revision(rig), 0x100);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(fw_revision(rig), 0x100);
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
		{ 6, "XC7A100T", fw_secret, SPECKV_STATUS_FW_PART },
		{ 6, "LFE5U-85F", fw_foreign, SPECKV_STATUS_FW_KEY },
		{ 6, "LFE5U-85F", NULL, SPECKV_STATUS_FW_KEY },
		{ 4, "LFE5U-85F", fw_secret, SPECKV_STATUS_FW_DOWNGRADE },
		{ 4, "LFE5U-85F", fw_lowering, SPECKV_STATUS_OK },
	};
	struct rig *rig = fw_fresh();
	struct client admin;
	struct fw_bundle *b;

	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	admin = fw_administer(rig);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		b = fw_make(9, bad[i].security, bad[i].part, bad[i].key);
		EQUAL(fw_download(&admin, SPECKV_SLOT_B, b, 60000, 0), 0);
		EQUAL(fw_commit(&admin, SPECKV_SLOT_B, b), bad[i].expected);
		EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[1])) & 7,
			bad[i].expected ? SPECKV_SLOT_STATE_REJECTED : SPECKV_SLOT_STATE_VERIFIED);
		if (bad[i].expected)
			EQUAL(fw_activate(&admin, SPECKV_SLOT_B, b, NULL), SPECKV_STATUS_FW_SLOT);
		EQUAL(fw_revision(rig), fw_old->revision);
		free(b);
	}
	/*
	 * Bytes that were changed on the way: the digest of the command, then the signature, then
	 * the bitstream's own digest.
	 */
	for (uint64_t at = 0; at < FW_BUNDLE; at += at < 2048 ? 61 : 9973) {
		uint16_t status;

		b = malloc(sizeof(*b));
		*b = *fw_new;
		b->bytes[at] ^= 0x20;
		EQUAL(fw_download(&admin, SPECKV_SLOT_B, b, 60000, SPECKV_FW_RESTART), 0);
		EQUAL(fw_commit(&admin, SPECKV_SLOT_B, b), SPECKV_STATUS_FW_DIGEST);
		CHECK(card_sha256(b->bytes, FW_BUNDLE, b->digest), "digest");
		EQUAL(fw_download(&admin, SPECKV_SLOT_B, b, 60000, SPECKV_FW_RESTART), 0);
		status = fw_commit(&admin, SPECKV_SLOT_B, b);
		CHECK(status >= SPECKV_STATUS_FW_PART && status <= SPECKV_STATUS_FW_KEY,
			"byte %llu: 0x%x", (unsigned long long)at, status);
		free(b);
	}
	rig_free(rig);
}

static void a_worn_out_cell_fails_the_download_not_the_boot(void)
{
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);

	rig->worn = flash_slot_offset(rig->card, SPECKV_SLOT_A) + FLASH_SECTOR + 5000;
	CHECK(fw_old->bytes[5000], "a byte that is not 0 anyway");
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, 0), SPECKV_STATUS_FW_FLASH);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_old), 0);
	EQUAL(fw_revision(rig), fw_old->revision);
	rig_free(rig);
}

static void pieces_come_in_order_and_go_on_after_a_break(void)
{
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);
	uint64_t data = rig_alloc(rig, 0, 70000), at;
	union card_entry good = fw_entry(SPECKV_ADMIN_FW_DOWNLOAD, SPECKV_SLOT_A, fw_old), ask;

	memcpy(rig_at(rig, 0, data), fw_old->bytes, 70000);
	good.firmware.total_bytes = FW_BUNDLE;
	ask = good;
	good.firmware.data_address = data;
	good.firmware.data_bytes = 70000;
	good.firmware.data_crc32c = speckv_crc32c(0, fw_old->bytes, 70000);
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
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_FW_OFFSET);
	EQUAL(client_run(&admin, &ask, &at), 0);
	EQUAL(at, 70000);
	/* What is not a whole chunk is received again after a power cycle. */
	rig_restart(rig);
	admin = fw_administer(rig);
	EQUAL(client_run(&admin, &ask, &at), 0);
	EQUAL(at, FLASH_CHUNK);
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 50000, 0), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
	rig_free(rig);
}

static void flash_faults_fail_the_command_and_can_be_repeated(void)
{
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);

	for (uint64_t k = 0; k < 60000; k += 4999) {
		speckv_card_inject(rig->card,
			k & 1 ? SPECKV_CARD_FAULT_TORN_PROGRAM : SPECKV_CARD_FAULT_TORN_ERASE, 0, k,
			1);
		EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, SPECKV_FW_RESTART),
			SPECKV_STATUS_FW_FLASH);
	}
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, 0), 0);
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_TORN_PROGRAM, 0, 100, 1);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_FW_FLASH);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
	rig_free(rig);
}

static void what_waits_to_boot_can_be_replaced(void)
{
	union card_entry dry = fw_entry(SPECKV_ADMIN_FW_COMMIT, SPECKV_SLOT_A, fw_new), set;
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);

	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_new, 60000, 0), 0);
	dry.firmware.flags = SPECKV_FW_DRY_RUN;
	EQUAL(client_run(&admin, &dry, NULL), 0);
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[0])) & 7, SPECKV_SLOT_STATE_WRITING);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_new), 0);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_new, NULL), 0);
	CHECK(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm, "waits");
	/* Another bundle into the slot that would boot next: nothing waits any more. */
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, 0), 0);
	CHECK(!(rig_read(rig, 0, REG(STATUS)) & SPECKV_REGS__STATUS__REBOOT_PENDING_bm),
		"does not wait");
	rig_restart(rig);
	admin = fw_administer(rig);
	EQUAL(fw_revision(rig), 0x100);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
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

int main(void)
{
	fw_begin();
	the_whole_way_from_the_factory();
	bad_bundles_are_refused_and_change_nothing();
	pieces_come_in_order_and_go_on_after_a_break();
	flash_faults_fail_the_command_and_can_be_repeated();
	a_worn_out_cell_fails_the_download_not_the_boot();
	what_waits_to_boot_can_be_replaced();
	fw_end();
	return 0;
}

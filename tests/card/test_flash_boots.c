// SPDX-License-Identifier: MIT
/* Which image boots: first boots, ways back, golden, and the security version. */
#include "fw.h"

static void a_first_boot_that_is_not_healthy_falls_back(void)
{
	struct rig *rig = fw_fresh();
	struct speckv_log_header header;
	struct speckv_log_health health;
	struct client admin;

	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_BAD_BOOT, 0, 0, 1);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	EQUAL(fw_revision(rig), fw_old->revision);
	CHECK(rig_read(rig, 0, REG(FLASH_STATUS)) & SPECKV_REGS__FLASH_STATUS__FELL_BACK_bm,
		"says so");
	EQUAL(rig_read(rig, 0, REG(FLASH_SLOT[1])) & 7, SPECKV_SLOT_STATE_REJECTED);
	/* an image that never ran raises nothing */
	EQUAL(rig_read(rig, 0, REG(FLASH_SECURITY)), 5);
	admin = fw_administer(rig);
	rig_log(&admin, SPECKV_LOG_HEALTH, 0, 0, &health, sizeof(health), &header);
	EQUAL(health.state, SPECKV_HEALTH_FELL_BACK);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(fw_revision(rig), fw_old->revision);
	/* Both slots damaged: golden. */
	rig->flash[flash_slot_offset(rig->card, SPECKV_SLOT_A) + FLASH_SECTOR + 9000] ^= 1;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_GOLDEN);
	EQUAL(fw_revision(rig), 0x100);
	rig_free(rig);
}

/*
 * Power goes at each first boot, after it was begun and before it was healthy: twice, and then the
 * image is given up.
 */
static void a_first_boot_has_two_tries(void)
{
	struct rig *rig = fw_fresh();
	struct client admin = fw_administer(rig);

	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, 0), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), 0);
	for (unsigned int boots = 1; boots <= 2; boots++) {
		rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + 100;
		rig_restart(rig);
		rig_function(rig, true, 1);
		EQUAL(fw_revision(rig), fw_old->revision);
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
	admin = fw_administer(rig);
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), 0);
	rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + 100;
	rig_restart(rig);
	rig->flash_budget = UINT64_MAX;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(fw_revision(rig), fw_old->revision);
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	rig_free(rig);
}

static void an_image_below_the_security_version_is_not_started_by_any_way(void)
{
	union card_entry dry = fw_entry(SPECKV_ADMIN_FW_ACTIVATE, SPECKV_SLOT_PREVIOUS, NULL);
	struct rig *rig = fw_fresh();
	struct client admin;
	uint8_t state;

	/* Committed early and never started: A waits while B raises the version. */
	fw_put(rig, SPECKV_SLOT_A, fw_old);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	EQUAL(fw_floor(rig), 6);
	admin = fw_administer(rig);
	state = rig->card->flash.record.slot[0].state;
	EQUAL(state, SPECKV_SLOT_STATE_VERIFIED);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* it is there already: a resumed download */
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, 0), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(rig->card->flash.record.slot[0].state, state);
	EQUAL(fw_download(&admin, SPECKV_SLOT_A, fw_old, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(fw_commit(&admin, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_FW_DOWNGRADE);
	/* By way of golden. */
	EQUAL(fw_activate(&admin, SPECKV_SLOT_GOLDEN, NULL, NULL), 0);
	fw_reset(&admin);
	EQUAL(fw_revision(rig), 0x100);
	EQUAL(fw_floor(rig), 6);
	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), SPECKV_STATUS_FW_DOWNGRADE);
	/* Rolled back to while another runs: what a dry run says too. */
	rig_free(rig);
	rig = fw_fresh();
	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	admin = fw_administer(rig);
	dry.firmware.flags = SPECKV_FW_DRY_RUN;
	EQUAL(client_run(&admin, &dry, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* A boot record that asks for it, of a card that did not check. */
	rig->card->flash.record.next = SPECKV_SLOT_A;
	EQUAL(flash_store(rig->card, &rig->card->flash.record), 0);
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(fw_revision(rig), fw_new->revision);
	CHECK(rig_read(rig, 0, REG(FLASH_STATUS)) & SPECKV_REGS__FLASH_STATUS__FELL_BACK_bm,
		"says so");
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	rig_free(rig);
	/* Fallen back to when the newer one has rotted. */
	rig = fw_fresh();
	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	rig->flash[flash_slot_offset(rig->card, SPECKV_SLOT_B) + FLASH_SECTOR + 9000] ^= 1;
	rig_restart(rig);
	rig_function(rig, true, 1);
	EQUAL(speckv_card_running_slot(rig->card), SPECKV_SLOT_GOLDEN);
	EQUAL(fw_floor(rig), 6);
	EQUAL(rig->card->flash.record.slot[0].state, SPECKV_SLOT_STATE_GOOD);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0); /* never bricked */
	EQUAL(fw_revision(rig), fw_new->revision);
	rig_free(rig);
}

static void going_back_within_the_security_version_works_and_a_dry_run_says_where_to(void)
{
	union card_entry dry = fw_entry(SPECKV_ADMIN_FW_ACTIVATE, SPECKV_SLOT_PREVIOUS, NULL);
	struct fw_bundle *same = fw_make(7, 5, "LFE5U-85F", fw_secret);
	struct rig *rig = fw_fresh();
	struct flash_record before;
	struct client admin;
	uint64_t result = 0;

	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, same), 0);
	admin = fw_administer(rig);
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
	EQUAL(fw_activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), 0);
	EQUAL(fw_revision(rig), fw_old->revision);
	rig_free(rig);
	free(same);
}

static void only_the_key_for_it_lowers_the_security_version_and_once_a_commit(void)
{
	struct fw_bundle *lower = fw_make(8, 4, "LFE5U-85F", fw_lowering);
	struct rig *rig = fw_fresh();
	struct client admin;

	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	fw_put(rig, SPECKV_SLOT_B, lower);
	EQUAL(fw_floor(rig), 5); /* not before it runs well */
	speckv_card_inject(rig->card, SPECKV_CARD_FAULT_BAD_BOOT, 0, 0, 1);
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_B, lower, NULL), 0);
	speckv_card_rebooted(rig->card);
	EQUAL(fw_revision(rig), fw_old->revision);
	EQUAL(fw_floor(rig), 5);
	admin = fw_administer(rig);
	EQUAL(fw_download(&admin, SPECKV_SLOT_B, lower, 60000, SPECKV_FW_RESTART), 0);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, lower), 0);
	EQUAL(fw_revision(rig), lower->revision);
	EQUAL(fw_floor(rig), 4);
	EQUAL(rig->card->flash.record.slot[1].lowers, 0); /* used up */
	/*
	 * The newer image raises it again, by running; then the older one is too old, though its
	 * key could lower it.
	 */
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_old, NULL), 0);
	speckv_card_rebooted(rig->card);
	EQUAL(fw_floor(rig), 5);
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_PREVIOUS, NULL, NULL), SPECKV_STATUS_FW_DOWNGRADE);
	/* Committed again, it is meant. */
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, lower), 0);
	EQUAL(fw_revision(rig), lower->revision);
	EQUAL(fw_floor(rig), 4);
	rig_free(rig);
	/*
	 * Committed, not started, and overtaken by a rise in the other slot, by way of golden:
	 * power may go at any of that boot's writes.
	 */
	for (uint64_t cut = 0; cut <= FLASH_SECTOR + sizeof(struct flash_record);
		cut += cut < FLASH_SECTOR ? 1023 : 64) {
		rig = fw_fresh();
		EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
		fw_put(rig, SPECKV_SLOT_B, lower);
		admin = fw_administer(rig);
		EQUAL(fw_activate(&admin, SPECKV_SLOT_GOLDEN, NULL, NULL), 0);
		fw_reset(&admin);
		fw_put(rig, SPECKV_SLOT_A, fw_new);
		admin = fw_administer(rig);
		EQUAL(fw_activate(&admin, SPECKV_SLOT_A, fw_new, NULL), 0);
		/* after the trial's record: that of its health */
		rig->flash_budget = FLASH_SECTOR + sizeof(struct flash_record) + cut;
		fw_reset(&admin);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		EQUAL(fw_revision((rig_function(rig, true, 1), rig)), fw_new->revision);
		EQUAL(fw_floor(rig), 6);
		admin = fw_administer(rig);
		EQUAL(fw_activate(&admin, SPECKV_SLOT_B, lower, NULL), SPECKV_STATUS_FW_DOWNGRADE);
		EQUAL(fw_floor(rig), 6);
		EQUAL(fw_flash(rig, SPECKV_SLOT_B, lower), 0); /* committed again */
		EQUAL(fw_floor(rig), 4);
		rig_free(rig);
	}
	free(lower);
}

static void golden_always_starts_and_has_an_engine_only_within_the_security_version(void)
{
	struct rig *rig = fw_fresh();
	struct client admin;
	uint64_t how;

	rig->config.golden_engine = true;
	rig->config.golden_security_version = 5;
	rig_restart(rig);
	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_DONE);
	speckv_card_rebooted(rig->card);
	EQUAL(fw_revision(rig), 0x100);
	CHECK(speckv_card_has_engine(rig->card), "version 5 is the card's");
	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	admin = fw_administer(rig);
	EQUAL(fw_activate(&admin, SPECKV_SLOT_GOLDEN, NULL, &how), 0);
	EQUAL(how, SPECKV_ACTIVATION_NEEDS_RESCAN);
	fw_reset(&admin);
	EQUAL(fw_revision(rig), 0x100);
	CHECK(!speckv_card_has_engine(rig->card), "version 5 is below the card's");
	EQUAL(rig_read(rig, 0, REG(CAPS)) & SPECKV_CAP_ENGINE, 0);
	rig_restart(rig);
	rig_function(rig, true, 1);
	CHECK(!speckv_card_has_engine(rig->card), "nor after power was off");
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0); /* and it takes what is new enough */
	CHECK(speckv_card_has_engine(rig->card), "an engine");
	rig_free(rig);
}

int main(void)
{
	fw_begin();
	a_first_boot_that_is_not_healthy_falls_back();
	a_first_boot_has_two_tries();
	an_image_below_the_security_version_is_not_started_by_any_way();
	going_back_within_the_security_version_works_and_a_dry_run_says_where_to();
	only_the_key_for_it_lowers_the_security_version_and_once_a_commit();
	golden_always_starts_and_has_an_engine_only_within_the_security_version();
	fw_end();
	return 0;
}

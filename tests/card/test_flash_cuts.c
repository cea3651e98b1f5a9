// SPDX-License-Identifier: MIT
/*
 * Power is cut at any byte of flashing, also with a cache in front of the flash. usage:
 * test_card_flash_cuts [CUTS]
 */
#include "fw.h"

/* What one undisturbed run did to the flash. */
struct sequence {
	uint64_t ops[1024], total; /* bytes */
	unsigned int count;
};

static struct sequence logged(struct rig *rig)
{
	struct sequence s = { .count = rig->flash_op_count };

	rig->flash_log = false;
	CHECK(s.count < 1024, "room for all operations");
	memcpy(s.ops, rig->flash_ops, sizeof(s.ops));
	for (unsigned int i = 0; i < s.count; i++)
		s.total += s.ops[i];
	return s;
}

/*
 * Somewhere in the sequence: half of the time evenly over its bytes, half evenly over its
 * operations, in one or before it.
 */
static uint64_t choose_cut(struct rig *rig, const struct sequence *s)
{
	unsigned int op = rig_below(rig, s->count);
	uint64_t at = 0;

	if (rig_below(rig, 2))
		return rig_random(rig) % s->total;
	for (unsigned int i = 0; i < op; i++)
		at += s->ops[i];
	return at + (rig_below(rig, 2) ? rig_random(rig) % (s->ops[op] + 1) : 0);
}

static void cuts(unsigned long wanted, bool from_factory)
{
	struct rig *rig = fw_fresh();
	const struct fw_bundle *before = from_factory ? NULL : fw_old;
	uint32_t old_revision = before ? fw_old->revision : 0x100;
	uint64_t bytes = rig->config.flash_bytes;
	uint8_t *base = malloc(bytes);
	unsigned int seen[2] = { 0 };
	struct sequence run;

	if (before)
		EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	memcpy(base, rig->flash, bytes);
	rig->flash_log = true;
	EQUAL(fw_flash(rig, SPECKV_SLOT_B, fw_new), 0);
	EQUAL(fw_revision(rig), fw_new->revision);
	run = logged(rig);
	for (unsigned long n = 0; n < wanted; n++) {
		uint64_t cut = choose_cut(rig, &run);

		speckv_card_destroy(rig->card);
		memcpy(rig->flash, base, bytes);
		rig_power_on(rig);
		rig->flash_budget = cut;
		fw_flash(rig, SPECKV_SLOT_B, fw_new);
		/* Sometimes power goes again while the card starts. */
		rig->flash_budget = rig_below(rig, 3) ? UINT64_MAX : rig_below(rig, 12000);
		rig_restart(rig);
		rig->flash_budget = UINT64_MAX;
		rig_restart(rig);
		rig_function(rig, true, 1);
		CHECK(fw_revision(rig) == old_revision || fw_revision(rig) == fw_new->revision,
			"cut at %llu: revision %x", (unsigned long long)cut, fw_revision(rig));
		seen[fw_revision(rig) == fw_new->revision]++;
		/* And the update can be finished. */
		if (fw_revision(rig) != fw_new->revision) {
			uint16_t status = fw_flash(rig, SPECKV_SLOT_B, fw_new);

			if (status == SPECKV_STATUS_FW_DIGEST ||
				status == SPECKV_STATUS_FW_OFFSET ||
				status == SPECKV_STATUS_FW_SLOT) {
				struct client admin = fw_administer(rig);

				EQUAL(fw_download(&admin, SPECKV_SLOT_B, fw_new, 60000,
					      SPECKV_FW_RESTART),
					0);
				status = fw_flash(rig, SPECKV_SLOT_B, fw_new);
			}
			CHECK(!status, "cut at %llu: 0x%x", (unsigned long long)cut, status);
			EQUAL(fw_revision(rig), fw_new->revision);
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
static uint16_t step_forward(struct rig *rig, const struct fw_bundle *const bundles[4],
	unsigned int step)
{
	struct client admin;

	/* cut, or done before it was */
	if (rig->dark || fw_revision(rig) == bundles[step]->revision)
		return SPECKV_STATUS_OK;
	if (step != 1)
		return fw_flash(rig, step == 3 ? SPECKV_SLOT_A : SPECKV_SLOT_B, bundles[step]);
	admin = fw_administer(rig);
	return fw_activate(&admin,
		rig->card->flash.record.previous == SPECKV_SLOT_A ? SPECKV_SLOT_PREVIOUS
								  : SPECKV_SLOT_A,
		bundles[step], NULL);
}

/* It boots a whole image, what step `done` left if it was done, and keeps the security version. */
static void whole_after_a_loss(struct rig *rig, uint64_t cut, unsigned int step, uint32_t done,
	uint32_t lowest)
{
	unsigned int slot = speckv_card_running_slot(rig->card);

	CHECK(slot != SPECKV_SLOT_GOLDEN && !card_slot_intact(rig->card, slot),
		"cut at %llu in step %u: slot %u", (unsigned long long)cut, step, slot);
	CHECK(!done || fw_revision(rig) == done, "step %u was done, and %x runs", step,
		fw_revision(rig));
	for (unsigned int i = 0; i < 2; i++) {
		uint8_t state = rig->card->flash.record.slot[i].state;

		CHECK(state < SPECKV_SLOT_STATE_VERIFIED || state > SPECKV_SLOT_STATE_GOOD ||
				!card_slot_intact(rig->card, SPECKV_SLOT_A + i),
			"cut at %llu in step %u: slot %u is said to be whole",
			(unsigned long long)cut, step, SPECKV_SLOT_A + i);
	}
	CHECK(fw_floor(rig) >= lowest &&
			rig->card->flash.record.slot[slot - SPECKV_SLOT_A].security_version >=
				fw_floor(rig),
		"cut at %llu in step %u: version %u of %u", (unsigned long long)cut, step,
		fw_floor(rig), lowest);
}

/*
 * Power is lost with a cache in front of the flash: of what was written since the last sync any
 * part has reached the medium, in any order. Each such state boots a whole image and not golden,
 * keeps the security version, and resumes.
 */
static void reorderings(unsigned long wanted)
{
	struct fw_bundle *same = fw_make(7, 5, "LFE5U-85F", fw_secret),
			 *last = fw_make(8, 7, "LFE5U-85F", fw_secret);
	const struct fw_bundle *const bundles[4] = { same, fw_old, fw_new, last };
	struct rig *rig = fw_fresh();
	uint64_t bytes = rig->config.flash_bytes;
	uint8_t *base = malloc(bytes);
	unsigned int cut_in[5] = { 0 };
	struct sequence run;
	uint32_t done;

	EQUAL(fw_flash(rig, SPECKV_SLOT_A, fw_old), 0);
	memcpy(base, rig->flash, bytes);
	rig->flash_log = true;
	for (unsigned int step = 0; step < 4; step++) {
		EQUAL(step_forward(rig, bundles, step), 0);
		EQUAL(fw_revision(rig), bundles[step]->revision);
	}
	run = logged(rig);
	for (unsigned long n = 0; n < wanted; n++) {
		uint64_t cut = choose_cut(rig, &run);
		/* power may also go when that one is done */
		unsigned int step = 0, last_step = rig_below(rig, 8);
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
			lowest = fw_floor(rig);
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
		whole_after_a_loss(rig, cut, step, done, lowest);
		for (; step < 4; step++) {
			uint16_t status = step_forward(rig, bundles, step);

			CHECK(!status, "cut at %llu, step %u afterwards: 0x%x",
				(unsigned long long)cut, step, status);
		}
		EQUAL(fw_revision(rig), last->revision);
		EQUAL(fw_floor(rig), 7);
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

static uint16_t walk(struct rig *rig, struct client *admin, unsigned int step, unsigned int slot,
	const struct fw_bundle *bundle)
{
	if (step == 0) { /* stops in the middle; a later step resumes */
		union card_entry e = fw_entry(SPECKV_ADMIN_FW_DOWNLOAD, slot, bundle);
		uint64_t data = rig_alloc(rig, 0, 70000);

		memcpy(rig_at(rig, 0, data), bundle->bytes, 70000);
		e.firmware.total_bytes = FW_BUNDLE;
		e.firmware.data_address = data;
		e.firmware.data_bytes = 70000;
		e.firmware.data_crc32c = speckv_crc32c(0, bundle->bytes, 70000);
		return client_run(admin, &e, NULL);
	}
	if (step < 2) {
		uint16_t status = fw_download(admin, slot, bundle, 60000, SPECKV_FW_RESTART);

		return status ? status : fw_commit(admin, slot, bundle);
	}
	if (step < 5)
		return fw_flash(rig, slot, bundle);
	if (step == 5)
		return fw_activate(admin, slot, bundle, NULL);
	return fw_activate(admin, step == 6 ? SPECKV_SLOT_PREVIOUS : SPECKV_SLOT_GOLDEN, NULL,
		NULL);
}

/*
 * Random steps, each of which power may cut: flash, go back, go to golden, a download that stops
 * and resumes, a commit that waits. What runs is never below the security version, which falls only
 * to an image of the key for it.
 */
static void walks(unsigned long wanted)
{
	struct fw_bundle *choice[] = { fw_old, fw_new, fw_make(5, 6, "LFE5U-85F", fw_secret),
		fw_make(6, 7, "LFE5U-85F", fw_secret), fw_make(7, 4, "LFE5U-85F", fw_lowering) };
	enum { CHOICES = sizeof(choice) / sizeof(choice[0]) };
	unsigned long cut = 0, refused = 0, back = 0, golden = 0;
	struct rig *rig = NULL;
	uint32_t lowest = 0;

	for (unsigned long n = 0; n < wanted; n++) {
		const struct fw_bundle *bundle;
		unsigned int slot, step;
		struct client admin;
		uint16_t status;

		if (n % 40 == 0) {
			if (rig)
				rig_free(rig);
			rig = fw_fresh();
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
		admin = fw_administer(rig);
		rig->flash_budget = rig_below(rig, 3) ? rig_below(rig, step < 5 ? 400000 : 20000)
						      : UINT64_MAX;
		status = walk(rig, &admin, step, slot, bundle);
		back += step == 6 && !status;
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
				rig->config.golden_engine && fw_floor(rig) <= 5);
		} else {
			CHECK(rig->card->flash.record.slot[slot - SPECKV_SLOT_A].security_version >=
					fw_floor(rig),
				"step %lu: version %u runs, %u at least", n,
				rig->card->flash.record.slot[slot - SPECKV_SLOT_A].security_version,
				fw_floor(rig));
		}
		CHECK(fw_floor(rig) >= lowest || (fw_floor(rig) == 4 && n % 40 >= 30),
			"step %lu: from %u to %u", n, lowest, fw_floor(rig));
		lowest = fw_floor(rig);
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

	fw_begin();
	walks(wanted);
	reorderings(wanted / 2);
	cuts(wanted / 2, false);
	cuts(wanted - wanted / 2, true);
	fw_end();
	return 0;
}

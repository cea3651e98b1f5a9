// SPDX-License-Identifier: MIT
/* Flashing, one step after the other. */
#include "fw.h"

const uint8_t fw_secret[32] = { 1 }, fw_lowering[32] = { 2 }, fw_foreign[32] = { 3 };
struct fw_bundle *fw_old, *fw_new;

struct fw_bundle *fw_make(uint32_t minor, uint32_t security, const char *part, const uint8_t *key)
{
	struct fw_bundle *b = calloc(1, sizeof(*b));
	struct speckv_bundle_manifest m = { .map_major = SPECKV_MAP_MAJOR,
		.rtl_major = 1,
		.rtl_minor = minor,
		.rtl_patch = 2,
		.security_version = security,
		.clock_hz = 100000000,
		.fmax_hz = 120000000 };
	uint8_t *stream = malloc(FW_STREAM);

	strcpy(m.name, "speckv");
	strcpy(m.configuration, "test");
	strcpy(m.tools, "none");
	strcpy(m.part, part);
	m.build_id[0] = (uint8_t)minor;
	for (uint32_t i = 0; i < FW_STREAM; i++)
		stream[i] = (uint8_t)(i * 7 + minor + (i >> 8));
	EQUAL(speckv_bundle_build(&m, stream, FW_STREAM, b->bytes, FW_BUNDLE), 0);
	if (key)
		EQUAL(speckv_bundle_sign(b->bytes, FW_BUNDLE, key), 0);
	CHECK(card_sha256(b->bytes, FW_BUNDLE, b->digest), "digest");
	b->revision = 1u << 16 | minor << 8 | 2;
	free(stream);
	return b;
}

struct rig *fw_fresh(void)
{
	struct rig *rig = rig_new();
	struct speckv_card_key keys[2] = { { .downgrade = false }, { .downgrade = true } };

	EQUAL(speckv_bundle_key_public(fw_secret, keys[0].key), 0);
	EQUAL(speckv_bundle_key_public(fw_lowering, keys[1].key), 0);
	EQUAL(speckv_card_flash_provision(&rig->ops, rig, rig->config.flash_bytes, keys, 2), 0);
	rig->config.golden_engine = false;
	rig_power_on(rig);
	return rig;
}

struct client fw_administer(struct rig *rig)
{
	if (!rig->card->functions[0])
		rig_function(rig, true, 1);
	else
		/* a new administrator, whether the card rebooted or not */
		speckv_card_function_reset(rig->card, 0);
	rig->host_used[0] = 0;
	return rig_admin(rig, 0);
}

union card_entry fw_entry(uint8_t opcode, unsigned int slot, const struct fw_bundle *bundle)
{
	union card_entry e = { .firmware = { .opcode = opcode, .slot = (uint16_t)slot } };

	if (bundle)
		memcpy(e.firmware.digest, bundle->digest, 32);
	return e;
}

uint16_t fw_download(struct client *admin, unsigned int slot, const struct fw_bundle *bundle,
	uint32_t piece, uint8_t flags)
{
	union card_entry e = fw_entry(SPECKV_ADMIN_FW_DOWNLOAD, slot, bundle);
	uint64_t data = rig_alloc(admin->rig, admin->function, piece), at = 0;
	uint16_t status = 0;

	e.firmware.total_bytes = FW_BUNDLE;
	if (!flags)
		status = client_run(admin, &e, &at);
	while (!status && at < FW_BUNDLE) {
		uint32_t n = FW_BUNDLE - at < piece ? (uint32_t)(FW_BUNDLE - at) : piece;

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

uint16_t fw_commit(struct client *admin, unsigned int slot, const struct fw_bundle *bundle)
{
	union card_entry e = fw_entry(SPECKV_ADMIN_FW_COMMIT, slot, bundle);

	return client_run(admin, &e, NULL);
}

uint16_t fw_activate(struct client *admin, unsigned int slot, const struct fw_bundle *bundle,
	uint64_t *how)
{
	union card_entry e = fw_entry(SPECKV_ADMIN_FW_ACTIVATE, slot,
		slot == SPECKV_SLOT_A || slot == SPECKV_SLOT_B ? bundle : NULL);
	uint64_t result = 0;
	uint16_t status = client_run(admin, &e, &result);

	if (how)
		*how = result & SPECKV_ACTIVATION_MASK;
	return status;
}

void fw_reset(struct client *admin)
{
	union card_entry e = { .value = {
				       .opcode = SPECKV_ADMIN_RESET, .value = SPECKV_RESET_CARD } };

	EQUAL(client_run(admin, &e, NULL), 0);
	CHECK(speckv_card_rebooted(admin->rig->card), "rebooted");
}

uint16_t fw_flash(struct rig *rig, unsigned int slot, const struct fw_bundle *bundle)
{
	struct client admin = fw_administer(rig);
	uint16_t status = fw_download(&admin, slot, bundle, 50000, 0);
	uint64_t how = 0;

	if (!status)
		status = fw_commit(&admin, slot, bundle);
	if (!status || status == SPECKV_STATUS_UNCHANGED)
		status = fw_activate(&admin, slot, bundle, &how);
	if (!status && how == SPECKV_ACTIVATION_NEEDS_RESCAN)
		fw_reset(&admin);
	speckv_card_rebooted(rig->card);
	return status;
}

uint32_t fw_revision(struct rig *rig)
{
	return rig_read(rig, 0, REG(RTL_REVISION));
}

uint32_t fw_floor(struct rig *rig)
{
	return rig_read(rig, 0, REG(FLASH_SECURITY));
}

void fw_put(struct rig *rig, unsigned int slot, const struct fw_bundle *bundle)
{
	struct client admin = fw_administer(rig);

	EQUAL(fw_download(&admin, slot, bundle, 60000, 0), 0);
	EQUAL(fw_commit(&admin, slot, bundle), 0);
}

void fw_begin(void)
{
	fw_old = fw_make(3, 5, "LFE5U-85F", fw_secret);
	fw_new = fw_make(4, 6, "LFE5U-85F", fw_secret);
}

void fw_end(void)
{
	free(fw_old);
	free(fw_new);
}

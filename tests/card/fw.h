/* SPDX-License-Identifier: MIT */
/* Bundles made here, and each step of one into a card's flash. */
#ifndef TEST_CARD_FW_H
#define TEST_CARD_FW_H

#include <speckv/bundle.h>

#include "rig.h"

#define FW_STREAM 150000 /* more than two chunks */
#define FW_BUNDLE (SPECKV_BUNDLE_BITSTREAM_OFFSET + FW_STREAM)

struct fw_bundle {
	uint8_t bytes[FW_BUNDLE];
	uint8_t digest[32];
	uint32_t revision;
};

/* Keys: two that a card trusts, one of them to lower the security version, and one that none does. */
extern const uint8_t fw_secret[32], fw_lowering[32], fw_foreign[32];
/* Of security versions 5 and 6, from fw_begin() to fw_end(). */
extern struct fw_bundle *fw_old, *fw_new;
void fw_begin(void);
void fw_end(void);

struct fw_bundle *fw_make(uint32_t minor, uint32_t security, const char *part, const uint8_t *key);
/* A card that trusts two keys; what it runs is the golden image. */
struct rig *fw_fresh(void);
struct client fw_administer(struct rig *rig);
union card_entry fw_entry(uint8_t opcode, unsigned int slot, const struct fw_bundle *bundle);
/* From wherever the card says, in pieces of this size. */
uint16_t fw_download(struct client *admin, unsigned int slot, const struct fw_bundle *bundle,
	uint32_t piece, uint8_t flags);
uint16_t fw_commit(struct client *admin, unsigned int slot, const struct fw_bundle *bundle);
uint16_t fw_activate(struct client *admin, unsigned int slot, const struct fw_bundle *bundle,
	uint64_t *how);
void fw_reset(struct client *admin);
/* All of it: the status of the first step that failed. */
uint16_t fw_flash(struct rig *rig, unsigned int slot, const struct fw_bundle *bundle);
/* Commit a bundle to a slot and leave it there. */
void fw_put(struct rig *rig, unsigned int slot, const struct fw_bundle *bundle);
uint32_t fw_revision(struct rig *rig);
uint32_t fw_floor(struct rig *rig); /* its security version */

#endif

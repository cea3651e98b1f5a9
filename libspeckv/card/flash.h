/* SPDX-License-Identifier: MIT */
/* Layout of flash: MEMORY.md. */
#ifndef SPECKV_CARD_FLASH_H
#define SPECKV_CARD_FLASH_H

#include <stdbool.h>
#include <stdint.h>

#include "card/card.h"

#define FLASH_SECTOR 4096u
#define FLASH_FEATURES 8
#define FLASH_CHUNK 65536u /* granularity of download progress */

/* State of a slot in the boot record. */
struct flash_slot {
	uint8_t state; /* enum speckv_slot_state of the register map */
	uint8_t boots; /* first boots started */
	uint16_t status; /* REJECTED: the reason */
	uint32_t security_version;
	uint32_t revision;
	uint32_t erases;
	/*
	 * 1: this image is below flash_record.security_version, signed by a key that may lower it,
	 * and does so once it is healthy; cleared then, or when flash_record.security_version rises
	 */
	uint32_t lowers;
	uint32_t reserved;
	uint64_t build_id;
	uint64_t bundle_bytes, bitstream_bytes;
	uint64_t committed_ns;
	uint8_t bundle_digest[32], digest[32], key_digest[32];
	char version[32];
};

/* Two copies in separate sectors; the one with the higher sequence and a valid CRC counts. */
struct flash_record {
	uint32_t magic;
	uint32_t version;
	uint64_t sequence;
	uint32_t security_version; /* the lowest that is committed, activated or booted */
	uint8_t next; /* SPECKV_SLOT_* to boot */
	uint8_t previous; /* slot that ran before `next` */
	uint8_t fell_back; /* slot that failed its boot, since the last activation */
	uint8_t reserved;
	struct flash_slot slot[2]; /* A, B */
	int64_t features[FLASH_FEATURES];
	uint32_t features_saved; /* bit map */
	uint32_t crc; /* of everything before */
};

/*
 * First sector of a slot: the download in progress. Marks follow, one byte per chunk: 0x00 when the
 * chunk is complete.
 */
struct flash_download {
	uint32_t magic;
	uint32_t crc; /* of what follows */
	uint64_t bundle_bytes;
	uint8_t bundle_digest[32];
};
#define FLASH_MARKS 1024 /* offset in the sector */

struct flash_state {
	struct flash_record record;
	bool fell_back;
	uint8_t running; /* SPECKV_SLOT_* */
	struct speckv_card_key keys[SPECKV_CARD_KEYS];
	unsigned int key_count;
	/* Slot of the download in progress; 0: none. */
	uint8_t receiving;
	uint64_t received;
	struct flash_download download;
};

struct speckv_card;

/* Read the boot record and the keys. False: no valid record (a new card, or a lost one). */
bool flash_open(struct speckv_card *card);
/* Write the record over the older copy. -EIO: the current copy stays valid. */
int flash_store(struct speckv_card *card, struct flash_record *record);
uint64_t flash_slot_offset(const struct speckv_card *card, unsigned int slot);
/* The bundle in a slot. */
const uint8_t *flash_bundle(const struct speckv_card *card, unsigned int slot);
int flash_erase(struct speckv_card *card, uint64_t offset, uint64_t bytes);
int flash_program(struct speckv_card *card, uint64_t offset, const void *data, uint64_t bytes);
/* Begin a download, resume it (sets `received`), receive a piece. 0 or -EIO. */
int flash_begin(struct speckv_card *card, unsigned int slot, uint64_t bundle_bytes,
	const uint8_t *digest);
bool flash_resume(struct speckv_card *card, unsigned int slot);
int flash_receive(struct speckv_card *card, const uint8_t *data, uint64_t bytes);
/* Download progress of a slot, complete or not. False: none. */
bool flash_progress(const struct speckv_card *card, unsigned int slot, struct flash_download *out,
	uint64_t *received);

#endif

// SPDX-License-Identifier: MIT
/*
 * Flash: boot record, key slots, update slots. Every update survives a cut at any byte: the record
 * has two copies of which only the older is written, a chunk counts when its mark has been cleared
 * after it, and marks are whole bytes. Ordered updates are separated by a sync, since a medium with
 * a cache does not preserve write order.
 */
#include "card/internal.h"

#define RECORD_MAGIC 0x544f4f42u /* "BOOT" */
#define KEYS_MAGIC 0x5359454bu /* "KEYS" */
#define DOWNLOAD_MAGIC 0x444e5542u /* "BUND" */
#define KEYS_AT (2 * FLASH_SECTOR)
#define SLOTS_AT (4 * FLASH_SECTOR)

struct flash_keys {
	uint32_t magic;
	uint32_t count;
	struct {
		uint8_t key[32];
		uint32_t downgrade;
	} key[SPECKV_CARD_KEYS];
	uint32_t crc; /* of everything before */
};

_Static_assert(sizeof(struct flash_record) <= FLASH_SECTOR, "a copy in a sector");

uint64_t speckv_card_flash_bytes(uint64_t slot_bytes)
{
	return SLOTS_AT + 2 * (FLASH_SECTOR + slot_bytes);
}

uint64_t flash_slot_offset(const struct speckv_card *card, unsigned int slot)
{
	return SLOTS_AT + (slot - SPECKV_SLOT_A) * (FLASH_SECTOR + card->config.flash_slot_bytes);
}

const uint8_t *flash_bundle(const struct speckv_card *card, unsigned int slot)
{
	return card->config.flash + flash_slot_offset(card, slot) + FLASH_SECTOR;
}

int flash_erase(struct speckv_card *card, uint64_t offset, uint64_t bytes)
{
	if (card->fault.erase_torn) {
		card->fault.erase_torn = false;
		bytes = card->fault.torn_erase < bytes
			? card->fault.torn_erase / FLASH_SECTOR * FLASH_SECTOR
			: bytes;
		if (bytes)
			card->ops.flash_erase(card->arg, offset, bytes);
		return -EIO;
	}
	return card->ops.flash_erase(card->arg, offset, bytes) ? -EIO : 0;
}

int flash_program(struct speckv_card *card, uint64_t offset, const void *data, uint64_t bytes)
{
	if (card->fault.program_torn) {
		card->fault.program_torn = false;
		if (card->fault.torn_program < bytes)
			bytes = card->fault.torn_program;
		if (bytes)
			card->ops.flash_program(card->arg, offset, data, bytes);
		return -EIO;
	}
	if (card->ops.flash_program(card->arg, offset, data, bytes))
		return -EIO;
	/* Verify: a cell that was not erased, or is worn out, keeps other bits. */
	return memcmp(card->config.flash + offset, data, bytes) ? -EIO : 0;
}

static int flash_sync(struct speckv_card *card)
{
	return card->ops.flash_sync && card->ops.flash_sync(card->arg) ? -EIO : 0;
}

static uint32_t record_crc(const struct flash_record *record)
{
	return speckv_crc32c(0, record, offsetof(struct flash_record, crc));
}

static bool record_valid(const struct flash_record *r)
{
	return r->magic == RECORD_MAGIC && r->version == 0 && r->crc == record_crc(r) &&
		r->next <= SPECKV_SLOT_B && r->previous <= SPECKV_SLOT_B;
}

static void load_keys(struct speckv_card *card)
{
	struct flash_keys keys;

	memcpy(&keys, card->config.flash + KEYS_AT, sizeof(keys));
	card->flash.key_count = 0;
	if (keys.magic != KEYS_MAGIC || keys.count > SPECKV_CARD_KEYS ||
		keys.crc != speckv_crc32c(0, &keys, offsetof(struct flash_keys, crc)))
		return;
	for (unsigned int i = 0; i < keys.count; i++) {
		memcpy(card->flash.keys[i].key, keys.key[i].key, 32);
		card->flash.keys[i].downgrade = keys.key[i].downgrade == 1;
	}
	card->flash.key_count = keys.count;
}

bool flash_open(struct speckv_card *card)
{
	struct flash_record best = { .magic = RECORD_MAGIC };
	bool found = false;

	for (unsigned int copy = 0; copy < 2; copy++) {
		struct flash_record record;

		memcpy(&record, card->config.flash + copy * FLASH_SECTOR, sizeof(record));
		if (!record_valid(&record) || (found && record.sequence <= best.sequence))
			continue;
		best = record;
		found = true;
	}
	card->flash.record = best;
	card->flash.receiving = 0;
	load_keys(card);
	return found;
}

int flash_store(struct speckv_card *card, struct flash_record *record)
{
	uint64_t at;

	record->sequence = card->flash.record.sequence + 1;
	record->crc = record_crc(record);
	at = record->sequence % 2 * FLASH_SECTOR;
	/*
	 * Sync the contents before the record that describes them, and one copy before the other is
	 * erased.
	 */
	if (flash_sync(card) || flash_erase(card, at, FLASH_SECTOR) ||
		flash_program(card, at, record, sizeof(*record)) || flash_sync(card))
		return -EIO;
	card->flash.record = *record;
	return 0;
}

/* ---- receiving ------------------------------------------------------------------------------ */

static uint32_t download_crc(const struct flash_download *download)
{
	return speckv_crc32c(0, (const uint8_t *)download + 8, sizeof(*download) - 8);
}

bool flash_progress(const struct speckv_card *card, unsigned int slot, struct flash_download *out,
	uint64_t *received)
{
	const uint8_t *sector = card->config.flash + flash_slot_offset(card, slot);
	uint64_t done = 0;

	memcpy(out, sector, sizeof(*out));
	if (out->magic != DOWNLOAD_MAGIC || out->crc != download_crc(out) ||
		out->bundle_bytes > card->config.flash_slot_bytes)
		return false;
	while (done < out->bundle_bytes && !sector[FLASH_MARKS + done / FLASH_CHUNK])
		done += FLASH_CHUNK;
	*received = done < out->bundle_bytes ? done : out->bundle_bytes;
	return true;
}

bool flash_resume(struct speckv_card *card, unsigned int slot)
{
	struct flash_state *flash = &card->flash;

	if (flash->receiving == slot)
		return true;
	flash->receiving = 0;
	if (!flash_progress(card, slot, &flash->download, &flash->received))
		return false;
	flash->receiving = (uint8_t)slot;
	return true;
}

int flash_begin(struct speckv_card *card, unsigned int slot, uint64_t bundle_bytes,
	const uint8_t *digest)
{
	struct flash_download download = { .magic = DOWNLOAD_MAGIC, .bundle_bytes = bundle_bytes };
	struct flash_record record = card->flash.record;
	struct flash_slot *entry = &record.slot[slot - SPECKV_SLOT_A];
	uint64_t at = flash_slot_offset(card, slot);
	uint32_t erases = entry->erases;

	/* Invalidate the slot in the record before it changes. */
	memset(entry, 0, sizeof(*entry));
	entry->state = SPECKV_SLOT_STATE_WRITING;
	entry->erases = erases + 1;
	if (record.next == slot)
		record.next = card->flash.running;
	if (record.previous == slot)
		record.previous = SPECKV_SLOT_GOLDEN;
	card->flash.receiving = 0;
	memcpy(download.bundle_digest, digest, sizeof(download.bundle_digest));
	download.crc = download_crc(&download);
	/* Erase the marks of an earlier download durably before the new header is written. */
	if (flash_store(card, &record) || flash_erase(card, at, FLASH_SECTOR) || flash_sync(card) ||
		flash_program(card, at, &download, sizeof(download)))
		return -EIO;
	card->flash.receiving = (uint8_t)slot;
	card->flash.received = 0;
	card->flash.download = download;
	return 0;
}

static int receive_in_chunk(struct speckv_card *card, const uint8_t *data, uint64_t bytes)
{
	struct flash_state *flash = &card->flash;
	uint64_t at = flash->received, chunk = at / FLASH_CHUNK,
		 sector = flash_slot_offset(card, flash->receiving);
	uint64_t start = chunk * FLASH_CHUNK, end = start + FLASH_CHUNK;
	static const uint8_t mark;

	if (end > card->config.flash_slot_bytes)
		end = card->config.flash_slot_bytes;
	if (at == start && flash_erase(card, sector + FLASH_SECTOR + start, end - start))
		return -EIO;
	if (flash_program(card, sector + FLASH_SECTOR + at, data, bytes))
		return -EIO;
	at += bytes;
	if ((at == start + FLASH_CHUNK || at == flash->download.bundle_bytes) &&
		(flash_sync(card) || flash_program(card, sector + FLASH_MARKS + chunk, &mark, 1)))
		return -EIO;
	flash->received = at;
	return 0;
}

int flash_receive(struct speckv_card *card, const uint8_t *data, uint64_t bytes)
{
	while (bytes) {
		uint64_t n = FLASH_CHUNK - card->flash.received % FLASH_CHUNK;

		if (n > bytes)
			n = bytes;
		if (receive_in_chunk(card, data, n)) {
			/* The interrupted chunk is erased and received again. */
			card->flash.receiving = 0;
			return -EIO;
		}
		data += n;
		bytes -= n;
	}
	return 0;
}

int speckv_card_flash_provision(const struct speckv_card_ops *ops, void *arg, uint64_t flash_bytes,
	const struct speckv_card_key *keys, unsigned int count)
{
	struct flash_keys out = { .magic = KEYS_MAGIC, .count = count };

	if (count > SPECKV_CARD_KEYS || flash_bytes < SLOTS_AT || flash_bytes % FLASH_SECTOR)
		return -EINVAL;
	for (unsigned int i = 0; i < count; i++) {
		memcpy(out.key[i].key, keys[i].key, 32);
		out.key[i].downgrade = keys[i].downgrade;
	}
	out.crc = speckv_crc32c(0, &out, offsetof(struct flash_keys, crc));
	if (ops->flash_erase(arg, 0, flash_bytes) ||
		ops->flash_program(arg, KEYS_AT, &out, sizeof(out)))
		return -EIO;
	return ops->flash_sync && ops->flash_sync(arg) ? -EIO : 0;
}

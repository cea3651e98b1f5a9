// SPDX-License-Identifier: MIT
/* What the card is handed: host memory, a clock, flash that power can be cut from; and power. */
#include "rig.h"

uint64_t rig_random(struct rig *rig)
{
	uint64_t z = (rig->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint32_t rig_below(struct rig *rig, uint32_t bound)
{
	return (uint32_t)(rig_random(rig) % bound);
}

/* ---- what the card is handed ---------------------------------------------------------------- */

static uint64_t now_ns(void *arg)
{
	struct rig *rig = arg;

	return rig->now += 10;
}

static bool broken(struct rig *rig)
{
	uint64_t n = rig->dma_count++;

	return n == rig->dma_fail_at || (rig->dma_dead && n > rig->dma_fail_at);
}

static int dma_read(void *arg, unsigned int function, uint64_t address, void *to, uint64_t bytes)
{
	struct rig *rig = arg;

	/* the window first: an access outside of it counts where another fault is injected too */
	if (!inproc_reach(&rig->dma, function, address, bytes) || broken(rig))
		return -EFAULT;
	inproc_dma_read(&rig->dma, function, address, to, bytes);
	if (rig->peer)
		rig->peer(rig, function, address, bytes, false);
	return 0;
}

static int dma_write(void *arg, unsigned int function, uint64_t address, const void *from,
	uint64_t bytes)
{
	struct rig *rig = arg;

	if (!inproc_reach(&rig->dma, function, address, bytes) || broken(rig))
		return -EFAULT;
	inproc_dma_write(&rig->dma, function, address, from, bytes);
	if (rig->peer)
		rig->peer(rig, function, address, bytes, true);
	return 0;
}

static int dma_publish(void *arg, unsigned int function, uint64_t address, uint16_t value)
{
	return dma_write(arg, function, address, &value, sizeof(value));
}

static void *dma_direct(void *arg, unsigned int function, uint64_t address, uint64_t bytes,
	bool write)
{
	struct rig *rig = arg;

	return rig->direct ? inproc_reach(&rig->dma, function, address, bytes) : NULL;
}

static void interrupt(void *arg, unsigned int function, unsigned int vector)
{
	struct rig *rig = arg;

	if (function < RIG_FUNCTIONS && vector < 32)
		rig->interrupts[function][vector]++;
}

static int memory_sync(void *arg)
{
	struct rig *rig = arg;

	rig->syncs++;
	return rig->sync_fails ? -EIO : 0;
}

static void note(struct rig *rig, uint64_t bytes)
{
	if (rig->flash_log && rig->flash_op_count < 1024)
		rig->flash_ops[rig->flash_op_count++] = bytes;
}

/* ---- a cache in front of the flash ---------------------------------------------------------- */

#define CACHE_UNIT 512u /* that a medium writes whole */

void rig_flash_cache(struct rig *rig)
{
	if (!rig->durable) {
		rig->durable = malloc(rig->config.flash_bytes);
		rig->dirty = malloc(rig->config.flash_bytes / CACHE_UNIT);
	}
	CHECK(rig->durable && rig->dirty, "memory");
	memcpy(rig->durable, rig->flash, rig->config.flash_bytes);
	memset(rig->dirty, 0, rig->config.flash_bytes / CACHE_UNIT);
}

static void write_back(struct rig *rig, uint64_t unit)
{
	memcpy(rig->durable + unit * CACHE_UNIT, rig->flash + unit * CACHE_UNIT, CACHE_UNIT);
}

/* Before units are changed: now and then one that waits is written as it is. */
static void cache_change(struct rig *rig, uint64_t offset, uint64_t bytes)
{
	for (uint64_t unit = offset / CACHE_UNIT;
		rig->durable && unit <= (offset + bytes - 1) / CACHE_UNIT; unit++) {
		if (rig->dirty[unit] && !rig_below(rig, 3))
			write_back(rig, unit);
		rig->dirty[unit] = 1;
	}
}

/* All that wait are written, or, where power is lost, some of them. */
static void cache_flush(struct rig *rig, bool lost)
{
	for (uint64_t unit = 0; rig->durable && unit < rig->config.flash_bytes / CACHE_UNIT;
		unit++) {
		if (rig->dirty[unit] && !(lost && rig_below(rig, 2)))
			write_back(rig, unit);
		rig->dirty[unit] = 0;
	}
	if (rig->durable && lost)
		memcpy(rig->flash, rig->durable, rig->config.flash_bytes);
}

static int nor_sync(void *arg)
{
	struct rig *rig = arg;

	rig->dark |= !rig->flash_budget;
	if (rig->dark)
		return -EIO;
	cache_flush(rig, false);
	return 0;
}

/* Power is cut after so many bytes; the byte at the cut is left with some of its bits changed. */
static int nor_erase(void *arg, uint64_t offset, uint64_t bytes)
{
	struct rig *rig = arg;

	CHECK(offset % FLASH_SECTOR == 0 && bytes % FLASH_SECTOR == 0 &&
			offset + bytes <= rig->config.flash_bytes,
		"whole sectors");
	if (rig->dark)
		return -EIO;
	note(rig, bytes);
	cache_change(rig, offset, bytes);
	for (uint64_t i = 0; i < bytes; i++) {
		if (!rig->flash_budget) {
			rig->flash[offset + i] |= (uint8_t)rig_random(rig);
			rig->dark = true;
			return -EIO;
		}
		rig->flash[offset + i] = rig->worn && offset + i == rig->worn ? 0 : 0xff;
		if (rig->flash_budget != UINT64_MAX)
			rig->flash_budget--;
	}
	return 0;
}

static int nor_program(void *arg, uint64_t offset, const void *data, uint64_t bytes)
{
	struct rig *rig = arg;
	const uint8_t *from = data;

	CHECK(offset + bytes <= rig->config.flash_bytes, "inside the flash");
	if (rig->dark)
		return -EIO;
	note(rig, bytes);
	cache_change(rig, offset, bytes);
	for (uint64_t i = 0; i < bytes; i++) {
		if (!rig->flash_budget) {
			rig->flash[offset + i] &= (uint8_t)(from[i] | rig_random(rig));
			rig->dark = true;
			return -EIO;
		}
		rig->flash[offset + i] &= from[i];
		if (rig->flash_budget != UINT64_MAX)
			rig->flash_budget--;
	}
	return 0;
}

/* ---- power ---------------------------------------------------------------------------------- */

struct rig *rig_new(void)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	CHECK(rig, "memory");
	rig->now = 1700000000000000000;
	rig->random = 1;
	rig->dma_fail_at = UINT64_MAX;
	rig->flash_budget = UINT64_MAX;
	rig->ops = (struct speckv_card_ops){ .now_ns = now_ns,
		.dma_read = dma_read,
		.dma_write = dma_write,
		.dma_publish = dma_publish,
		.dma_direct = dma_direct,
		.interrupt = interrupt,
		.memory_sync = memory_sync,
		.flash_erase = nor_erase,
		.flash_program = nor_program,
		.flash_sync = nor_sync };
	rig->config.memory_bytes = 16u << 20;
	rig->config.flash_slot_bytes = RIG_SLOT_BYTES;
	rig->config.flash_bytes = speckv_card_flash_bytes(RIG_SLOT_BYTES);
	rig->config.golden_engine = true;
	rig->config.golden_revision = 0x00000100;
	rig->config.functions_max = RIG_FUNCTIONS;
	rig->config.sessions = 16;
	rig->config.transfer_bytes = 1u << 20;
	strcpy(rig->config.model, "card of the tests");
	strcpy(rig->config.serial, "0001");
	strcpy(rig->config.part, "LFE5U-85F");
	memcpy(rig->config.uuid, "card-uuid-000001", 16);
	rig->memory = aligned_alloc(4096, rig->config.memory_bytes);
	rig->flash = malloc(rig->config.flash_bytes);
	CHECK(rig->memory && rig->flash, "memory");
	memset(rig->memory, 0, rig->config.memory_bytes);
	memset(rig->flash, 0xff, rig->config.flash_bytes);
	rig->config.memory = rig->memory;
	rig->config.flash = rig->flash;
	for (int i = 0; i < RIG_FUNCTIONS; i++) {
		/* as pages are: frames want 64 bytes */
		rig->host[i] = aligned_alloc(4096, HOST_BYTES);
		CHECK(rig->host[i], "memory");
		memset(rig->host[i], 0, HOST_BYTES);
		rig->dma.window[i] = (struct inproc_window){ rig->host[i],
			HOST_BASE + (unsigned int)i * HOST_STEP, HOST_BYTES };
	}
	return rig;
}

void rig_power_on(struct rig *rig)
{
	rig->dark = false;
	memset(rig->host_used, 0, sizeof(rig->host_used));
	EQUAL(speckv_card_create(&rig->ops, rig, &rig->config, &rig->card), 0);
}

void rig_restart(struct rig *rig)
{
	speckv_card_destroy(rig->card);
	rig->card = NULL;
	cache_flush(rig, true);
	rig_power_on(rig);
}

void rig_free(struct rig *rig)
{
	speckv_card_destroy(rig->card);
	for (int i = 0; i < RIG_FUNCTIONS; i++)
		free(rig->host[i]);
	free(rig->memory);
	free(rig->flash);
	free(rig->durable);
	free(rig->dirty);
	free(rig);
}

/* ---- host memory and registers -------------------------------------------------------------- */

uint64_t rig_alloc(struct rig *rig, unsigned int function, uint64_t bytes)
{
	uint64_t at = rig->host_used[function];

	rig->host_used[function] += (bytes + 4095) / 4096 * 4096;
	CHECK(rig->host_used[function] <= HOST_BYTES, "host memory of function %u", function);
	memset(rig->host[function] + at, 0, (bytes + 4095) / 4096 * 4096);
	return HOST_BASE + function * HOST_STEP + at;
}

void *rig_at(struct rig *rig, unsigned int function, uint64_t address)
{
	return rig->host[function] + (address - HOST_BASE - function * HOST_STEP);
}

uint32_t rig_read(struct rig *rig, unsigned int function, uint32_t offset)
{
	return speckv_card_read32(rig->card, function, offset);
}

void rig_write(struct rig *rig, unsigned int function, uint32_t offset, uint32_t value)
{
	speckv_card_write32(rig->card, function, offset, value);
}

// SPDX-License-Identifier: MIT
/*
 * One connection is one PCI function of the card: configuration space, BARs, interrupts, and access
 * to the peer's memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emulator.h"
#include "guard.h"
#include "transport/vfio_user_wire.h"

#define VECTORS 16

/* ---- configuration space -------------------------------------------------------------------- */

static void put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, (uint16_t)value);
	put16(at + 2, (uint16_t)(value >> 16));
}

void emu_function_identify(struct emu_function *f)
{
	bool engine = f->engine->ops->has_engine(f->engine);

	put16(f->config, SPECKV_PCI_VENDOR_ID);
	put16(f->config + 2, engine ? SPECKV_PCI_DEVICE_ID_CARD : SPECKV_PCI_DEVICE_ID_FACTORY);
}

static void config_make(struct emu_function *f)
{
	uint8_t *c = f->config, *w = f->config_writable;

	emu_function_identify(f);
	put16(c + 0x06, 0x0010); /* status: capability list */
	put32(c + 0x08, (uint32_t)SPECKV_PCI_CLASS << 8 | 1);
	put32(c + 0x18, f->admin ? 0xc : 0); /* BAR2: 64-bit, prefetchable */
	put32(c + 0x20, 0x4); /* BAR4: 64-bit */
	put16(c + 0x2c, SPECKV_PCI_VENDOR_ID);
	put16(c + 0x2e, f->admin ? 1 : 2);
	c[0x34] = 0x40;
	/* MSI-X (PCI 3.0, 6.8.2): table at BAR4 + 0, pending bits at BAR4 + 0x800 */
	c[0x40] = 0x11;
	c[0x41] = 0x60;
	put16(c + 0x42, VECTORS - 1);
	put32(c + 0x44, EMU_BAR4);
	put32(c + 0x48, 0x800 | EMU_BAR4);
	/*
	 * PCI Express endpoint (PCIe 5.0, 7.5.3): role-based error reporting, function-level reset
	 */
	c[0x60] = 0x10;
	put16(c + 0x62, 0x0002);
	put32(c + 0x64, 0x10008000);
	put32(c + 0x6c, 0x00000041); /* link capabilities: 2.5 GT/s, four lanes */
	put16(c + 0x72, 0x0041); /* link status: trained to both */
	/*
	 * DVSEC "PCIe DVSEC for CXL devices" (CXL 2.0, 8.1.3): vendor 0x1e98, id 0, length 0x3c;
	 * memory-capable, no HDM ranges yet
	 */
	put32(c + 0x100, 0x00010023);
	put32(c + 0x104, 0x03c11e98);
	put32(c + 0x108, 0x00000000);
	put16(c + 0x10a, 0x0004);
	/*
	 * host-writable: command, BARs, cache line, interrupt line, MSI-X control, device control
	 */
	memset(w + 0x04, 0xff, 2);
	w[0x0c] = w[0x3c] = 0xff;
	memset(w + 0x10, 0xff, 24);
	w[0x43] = 0xc0;
	memset(w + 0x68, 0xff, 2);
}

static void config_write(struct emu_function *f, uint64_t offset, const uint8_t *data,
	uint32_t bytes)
{
	for (uint32_t i = 0; i < bytes; i++) {
		uint64_t at = offset + i;
		uint8_t mask = at < sizeof(f->config_writable) ? f->config_writable[at] : 0;

		f->config[at] = (uint8_t)((f->config[at] & ~mask) | (data[i] & mask));
	}
	if (offset <= 0x69 && offset + bytes > 0x69 && f->config[0x69] & 0x80) {
		/* Device Control: initiate function-level reset */
		f->config[0x69] &= 0x7f;
		f->engine->ops->function_reset(f->engine, (unsigned int)f->number);
	}
}

/* ---- regions -------------------------------------------------------------------------------- */

static void region_info(void *device, unsigned int region, struct vu_region *info)
{
	struct emu_function *f = device;

	info->fd = -1;
	info->writable = true;
	if (region == EMU_BAR0) {
		info->bytes = SPECKV_CARD_BAR0_BYTES;
		info->fd = f->doorbell_fd;
		info->mmap_offset = EMU_DOORBELLS;
		info->mmap_bytes = SPECKV_CARD_BAR0_BYTES - EMU_DOORBELLS;
	} else if (region == EMU_BAR2 && f->admin) {
		info->bytes = f->emulator->config.memory_bytes;
		info->fd = f->emulator->memory_fd;
	} else if (region == EMU_BAR4) {
		info->bytes = EMU_BAR4_BYTES;
	} else if (region == VFU_CONFIG_REGION) {
		info->bytes = EMU_CONFIG_BYTES;
	} else if (region == SPECKV_DRIVER_REGION) {
		info->bytes = SPECKV_DRIVER_BYTES;
	}
}

static int region_read(void *device, unsigned int region, uint64_t offset, void *data,
	uint32_t bytes)
{
	struct emu_function *f = device;
	uint8_t *to = data;

	switch (region) {
	case EMU_BAR0:
		for (uint32_t at = 0; at < bytes;) {
			/* the card has aligned 32-bit registers; a host may read any bytes */
			uint32_t value = f->engine->ops->read32(f->engine, (unsigned int)f->number,
				(uint32_t)(offset + at) & ~3u);
			uint32_t skip = (uint32_t)(offset + at) & 3,
				 n = 4 - skip < bytes - at ? 4 - skip : bytes - at;

			memcpy(to + at, (uint8_t *)&value + skip, n);
			at += n;
		}
		return 0;
	case EMU_BAR2:
		memcpy(to, f->emulator->memory + offset, bytes);
		return 0;
	case EMU_BAR4:
		memcpy(to, f->msix + offset, bytes);
		return 0;
	case VFU_CONFIG_REGION:
		memcpy(to, f->config + offset, bytes);
		return 0;
	case SPECKV_DRIVER_REGION:
		memcpy(to, f->driver + offset, bytes);
		return 0;
	default:
		return -EINVAL;
	}
}

static int region_write(void *device, unsigned int region, uint64_t offset, const void *data,
	uint32_t bytes)
{
	struct emu_function *f = device;
	const uint8_t *from = data;

	switch (region) {
	case EMU_BAR0:
		for (uint32_t at = 0; at + 4 <= bytes && !(offset & 3); at += 4) {
			/* partial writes are ignored: no register supports them */
			uint32_t value;

			memcpy(&value, from + at, sizeof(value));
			f->engine->ops->write32(f->engine, (unsigned int)f->number,
				(uint32_t)offset + at, value);
		}
		return 0;
	case EMU_BAR2:
		memcpy(f->emulator->memory + offset, from, bytes);
		return 0;
	case EMU_BAR4:
		memcpy(f->msix + offset, from, bytes);
		return 0;
	case VFU_CONFIG_REGION:
		config_write(f, offset, from, bytes);
		return 0;
	case SPECKV_DRIVER_REGION:
		if (!offset)
			emu_driver_call(f, from, bytes);
		return 0;
	default:
		return -EINVAL;
	}
}

static void dma_unmapped(void *device, uint64_t address, uint64_t bytes)
{
	/* the card keeps no pointers between commands: each calls dma_direct() again */
	(void)device;
	(void)address;
	(void)bytes;
}

static int reset_function(void *device)
{
	struct emu_function *f = device;

	f->engine->ops->function_reset(f->engine, (unsigned int)f->number);
	config_make(f);
	memset(f->msix, 0, sizeof(f->msix));
	return 0;
}

/* The greeting is complete: create the function with its doorbells and queue pairs. */
static int greeted(void *device)
{
	struct emu_function *f = device;
	struct emulator *e = f->emulator;
	struct speckv_card_function_config config = {
		.admin = f->admin, .queue_pairs = EMU_QUEUE_PAIRS, .user = f->uid
	};
	int rc = emu_peers_admit(e, f);

	if (rc)
		return rc;
	f->doorbell_fd = memfd_create("speckv-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (f->doorbell_fd < 0 || ftruncate(f->doorbell_fd, SPECKV_CARD_BAR0_BYTES) != 0 ||
		fcntl(f->doorbell_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return -errno;
	f->doorbells = mmap(NULL, SPECKV_CARD_BAR0_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		f->doorbell_fd, 0);
	if (f->doorbells == MAP_FAILED)
		return -errno;
	/* the peer can punch holes in it */
	if (!guard_add(f->doorbells, SPECKV_CARD_BAR0_BYTES, vu_error_at(f->connection), false))
		return -EUSERS;
	config.doorbells = (struct speckv_doorbell_page *)(f->doorbells + EMU_DOORBELLS);
	f->number = f->engine->ops->function_add(f->engine, &config);
	if (f->number < 0)
		return f->number;
	e->functions[f->number] = f;
	config_make(f);
	return 0;
}

static void dma_answered(void *device)
{
	struct emu_function *f = device;

	f->engine->ops->dma_answered(f->engine, (unsigned int)f->number);
}

static void dma_failed(void *device)
{
	struct emu_function *f = device;

	f->engine->ops->dma_failed(f->engine, (unsigned int)f->number);
}

static const struct vu_ops ops = {
	.region_read = region_read,
	.region_write = region_write,
	.region_info = region_info,
	.dma_unmapped = dma_unmapped,
	.reset = reset_function,
	.greeted = greeted,
	.dma_answered = dma_answered,
	.dma_failed = dma_failed,
};

struct emu_function *emu_function_open(struct emulator *e, int fd, bool admin, struct vu_user *user)
{
	struct emu_function *f = calloc(1, sizeof(*f));

	if (!f) {
		vu_release(fd, user->uid, true);
		return NULL;
	}
	f->emulator = e;
	f->engine = e->engine;
	f->admin = admin;
	f->user = user;
	f->number = f->doorbell_fd = -1;
	f->doorbells = MAP_FAILED;
	emu_driver_peer(f, fd);
	f->connection = vu_open(fd, &ops, f, VECTORS, user);
	if (!f->connection) {
		vu_release(fd, user->uid, true);
		free(f);
		return NULL;
	}
	return f;
}

void emu_function_close(struct emu_function *f)
{
	if (f->number >= 0) {
		f->engine->ops->function_remove(f->engine, (unsigned int)f->number);
		f->emulator->functions[f->number] = NULL;
	}
	vu_close(f->connection);
	if (f->doorbells != MAP_FAILED) {
		guard_remove(f->doorbells);
		munmap(f->doorbells, SPECKV_CARD_BAR0_BYTES);
	}
	if (f->doorbell_fd >= 0)
		close(f->doorbell_fd);
	free(f);
}

/* ---- callbacks of the card ------------------------------------------------------------------ */

static struct emu_function *function_of(struct emulator *e, unsigned int number)
{
	return number < EMU_FUNCTIONS ? e->functions[number] : NULL;
}

static int card_dma_read(void *arg, unsigned int function, uint64_t address, void *to,
	uint64_t bytes)
{
	struct emu_function *f = function_of(arg, function);

	return f ? vu_dma_read(f->connection, address, to, bytes) : -ENODEV;
}

static void card_dma_end(void *arg, unsigned int function)
{
	struct emu_function *f = function_of(arg, function);

	if (f)
		vu_dma_end(f->connection);
}

static int card_dma_write(void *arg, unsigned int function, uint64_t address, const void *from,
	uint64_t bytes)
{
	struct emu_function *f = function_of(arg, function);

	return f ? vu_dma_write(f->connection, address, from, bytes) : -ENODEV;
}

static int card_dma_publish(void *arg, unsigned int function, uint64_t address, uint16_t value)
{
	struct emulator *e = arg;
	struct emu_function *f = function_of(e, function);
	/*
	 * do not publish completions of writes that were lost; once the card has stopped, its admin
	 * function is served again to report the cause
	 */
	bool lost = e->memory_error && !(e->memory_told && f && f->admin);
	_Atomic uint16_t *at = NULL;

	if (f && !lost && !(address & 1))
		at = vu_dma_pointer(f->connection, address, sizeof(value), true);
	if (at) {
		atomic_store_explicit(at, value, memory_order_release);
		return 0;
	}
	return f && !lost ? vu_dma_write(f->connection, address, &value, sizeof(value)) : -ENODEV;
}

static void *card_dma_direct(void *arg, unsigned int function, uint64_t address, uint64_t bytes,
	bool write)
{
	struct emu_function *f = function_of(arg, function);

	return f ? vu_dma_pointer(f->connection, address, bytes, write) : NULL;
}

static void card_interrupt(void *arg, unsigned int function, unsigned int vector)
{
	struct emu_function *f = function_of(arg, function);

	if (f)
		vu_interrupt(f->connection, vector);
}

static int card_memory_zero(void *arg, uint64_t offset, uint64_t bytes)
{
	struct emulator *e = arg;

	return fallocate(e->memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		       (off_t)bytes) == 0
		? 0
		: -errno;
}

/* Holes are filled with zeros. */
static int card_memory_take(void *arg, uint64_t offset, uint64_t bytes)
{
	struct emulator *e = arg;
	int rc;

	do
		rc = posix_fallocate(e->memory_fd, (off_t)offset, (off_t)bytes);
	while (rc == EINTR);
	return -rc;
}

static bool card_memory_lost(void *arg)
{
	return ((struct emulator *)arg)->memory_error;
}

/* Bytes that are written before the power cut. */
static uint64_t before_cut(const struct emulator *e, uint64_t bytes)
{
	return e->cut && e->cut_bytes < bytes ? e->cut_bytes : bytes;
}

static void after_write(struct emulator *e, uint64_t written, uint64_t bytes)
{
	if (written < bytes)
		raise(SIGKILL); /* no handlers, no clean-up */
	if (e->cut)
		e->cut_bytes -= bytes;
}

static int card_flash_erase(void *arg, uint64_t offset, uint64_t bytes)
{
	struct emulator *e = arg;
	uint64_t n = before_cut(e, bytes);

	memset(e->flash + offset, 0xff, n);
	after_write(e, n, bytes);
	return e->flash_error;
}

static int card_flash_program(void *arg, uint64_t offset, const void *data, uint64_t bytes)
{
	struct emulator *e = arg;
	const uint8_t *from = data;
	uint64_t n = before_cut(e, bytes);

	for (uint64_t i = 0; i < n; i++) /* NOR: bits only go from 1 to 0 */
		e->flash[offset + i] &= from[i];
	after_write(e, n, bytes);
	return e->flash_error;
}

/* Without a sync the kernel writes the file's pages back in any order. */
static int card_flash_sync(void *arg)
{
	struct emulator *e = arg;

	return msync(e->flash, e->config.flash_bytes, MS_SYNC) == 0 ? 0 : -errno;
}

const struct speckv_card_ops emu_card_ops = {
	.now_ns = emu_now_ns,
	.wall_ns = emu_wall_ns,
	.dma_read = card_dma_read,
	.dma_end = card_dma_end,
	.dma_write = card_dma_write,
	.dma_publish = card_dma_publish,
	.dma_direct = card_dma_direct,
	.interrupt = card_interrupt,
	.memory_zero = card_memory_zero,
	.memory_take = card_memory_take,
	.memory_lost = card_memory_lost,
	.flash_erase = card_flash_erase,
	.flash_program = card_flash_program,
	.flash_sync = card_flash_sync,
};

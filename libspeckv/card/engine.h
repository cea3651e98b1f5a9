/* SPDX-License-Identifier: MIT */
/*
 * The engine of a card behind a table of operations: what emulator/ and transport/inproc drive. The
 * functional model (card.h) is one, the verilated RTL will be another. Each operation keeps the
 * contract of the function of card.h that has its name; close() is speckv_card_destroy(), not of
 * NULL. Threads: as there, one at a time.
 */
#ifndef SPECKV_CARD_ENGINE_H
#define SPECKV_CARD_ENGINE_H

#include "card/card.h"

struct emu_engine;

struct emu_engine_ops {
	void (*close)(struct emu_engine *engine);

	/* -EUSERS (too many functions or queue pairs), -ENOMEM, -EINVAL (more than 256 pairs) */
	int (*function_add)(struct emu_engine *engine,
		const struct speckv_card_function_config *config);
	void (*function_remove)(struct emu_engine *engine, unsigned int function);
	void (*function_reset)(struct emu_engine *engine, unsigned int function);
	uint32_t (*read32)(struct emu_engine *engine, unsigned int function, uint32_t offset);
	void (*write32)(struct emu_engine *engine, unsigned int function, uint32_t offset,
		uint32_t value);
	void (*dma_answered)(struct emu_engine *engine, unsigned int function);
	void (*dma_failed)(struct emu_engine *engine, unsigned int function);
	bool (*in_use)(struct emu_engine *engine, unsigned int function);

	/* shares of functions in the engine's time */
	void (*hold)(struct emu_engine *engine, unsigned int function, bool held);
	void (*spend)(struct emu_engine *engine, unsigned int function, uint64_t ns);
	uint64_t (*spent)(struct emu_engine *engine, unsigned int function);

	unsigned int (*run)(struct emu_engine *engine, unsigned int commands);
	uint64_t (*next_ns)(struct emu_engine *engine);
	uint64_t (*poll_ns)(struct emu_engine *engine);
	bool (*sleep)(struct emu_engine *engine);
	void (*wake)(struct emu_engine *engine);

	bool (*rebooted)(struct emu_engine *engine);
	bool (*has_engine)(struct emu_engine *engine);
	unsigned int (*running_slot)(struct emu_engine *engine);

	/* for the driver in front of it */
	bool (*pool)(struct emu_engine *engine, const uint8_t uuid[16],
		struct speckv_pool_description *out);
	int (*grant)(struct emu_engine *engine, unsigned int function, unsigned int pool,
		uint32_t rights);
	void (*info)(struct emu_engine *engine, struct speckv_ioc_info *out);

	/* environment and faults */
	void (*set_temperature)(struct emu_engine *engine, int32_t millicelsius);
	int (*inject)(struct emu_engine *engine, enum speckv_card_fault fault, unsigned int pool,
		uint64_t value, uint32_t count);
};

struct emu_engine {
	const struct emu_engine_ops *ops;
};

/* The functional model, powered on. Errors: those of speckv_card_create(). */
int emu_engine_model(const struct speckv_card_ops *ops, void *arg,
	const struct speckv_card_config *config, struct emu_engine **out);

#endif

// SPDX-License-Identifier: MIT
/* The functional model as an engine. */
#include <errno.h>
#include <stdlib.h>

#include "engine.h"

struct model {
	struct emu_engine engine;
	struct speckv_card *card;
};

static struct speckv_card *card_of(struct emu_engine *engine)
{
	return ((struct model *)engine)->card;
}

static void model_close(struct emu_engine *engine)
{
	struct model *model = (struct model *)engine;

	speckv_card_destroy(model->card);
	free(model);
}

static int model_function_add(struct emu_engine *engine,
	const struct speckv_card_function_config *config)
{
	return speckv_card_function_add(card_of(engine), config);
}

static void model_function_remove(struct emu_engine *engine, unsigned int function)
{
	speckv_card_function_remove(card_of(engine), function);
}

static void model_function_reset(struct emu_engine *engine, unsigned int function)
{
	speckv_card_function_reset(card_of(engine), function);
}

static uint32_t model_read32(struct emu_engine *engine, unsigned int function, uint32_t offset)
{
	return speckv_card_read32(card_of(engine), function, offset);
}

static void model_write32(struct emu_engine *engine, unsigned int function, uint32_t offset,
	uint32_t value)
{
	speckv_card_write32(card_of(engine), function, offset, value);
}

static void model_dma_answered(struct emu_engine *engine, unsigned int function)
{
	speckv_card_dma_answered(card_of(engine), function);
}

static void model_dma_failed(struct emu_engine *engine, unsigned int function)
{
	speckv_card_dma_failed(card_of(engine), function);
}

static bool model_in_use(struct emu_engine *engine, unsigned int function)
{
	return speckv_card_in_use(card_of(engine), function);
}

static void model_hold(struct emu_engine *engine, unsigned int function, bool held)
{
	speckv_card_hold(card_of(engine), function, held);
}

static void model_spend(struct emu_engine *engine, unsigned int function, uint64_t ns)
{
	speckv_card_spend(card_of(engine), function, ns);
}

static uint64_t model_spent(struct emu_engine *engine, unsigned int function)
{
	return speckv_card_spent(card_of(engine), function);
}

static unsigned int model_run(struct emu_engine *engine, unsigned int commands)
{
	return speckv_card_run(card_of(engine), commands);
}

static uint64_t model_next_ns(struct emu_engine *engine)
{
	return speckv_card_next_ns(card_of(engine));
}

static uint64_t model_poll_ns(struct emu_engine *engine)
{
	return speckv_card_poll_ns(card_of(engine));
}

static bool model_sleep(struct emu_engine *engine)
{
	return speckv_card_sleep(card_of(engine));
}

static void model_wake(struct emu_engine *engine)
{
	speckv_card_wake(card_of(engine));
}

static bool model_rebooted(struct emu_engine *engine)
{
	return speckv_card_rebooted(card_of(engine));
}

static bool model_has_engine(struct emu_engine *engine)
{
	return speckv_card_has_engine(card_of(engine));
}

static unsigned int model_running_slot(struct emu_engine *engine)
{
	return speckv_card_running_slot(card_of(engine));
}

static bool model_pool(struct emu_engine *engine, const uint8_t uuid[16],
	struct speckv_pool_description *out)
{
	return speckv_card_pool(card_of(engine), uuid, out);
}

static int model_grant(struct emu_engine *engine, unsigned int function, unsigned int pool,
	uint32_t rights)
{
	return speckv_card_grant(card_of(engine), function, pool, rights);
}

static void model_info(struct emu_engine *engine, struct speckv_ioc_info *out)
{
	speckv_card_info(card_of(engine), out);
}

static void model_set_temperature(struct emu_engine *engine, int32_t millicelsius)
{
	speckv_card_set_temperature(card_of(engine), millicelsius);
}

static int model_inject(struct emu_engine *engine, enum speckv_card_fault fault, unsigned int pool,
	uint64_t value, uint32_t count)
{
	return speckv_card_inject(card_of(engine), fault, pool, value, count);
}

static const struct emu_engine_ops model_ops = {
	.close = model_close,
	.function_add = model_function_add,
	.function_remove = model_function_remove,
	.function_reset = model_function_reset,
	.read32 = model_read32,
	.write32 = model_write32,
	.dma_answered = model_dma_answered,
	.dma_failed = model_dma_failed,
	.in_use = model_in_use,
	.hold = model_hold,
	.spend = model_spend,
	.spent = model_spent,
	.run = model_run,
	.next_ns = model_next_ns,
	.poll_ns = model_poll_ns,
	.sleep = model_sleep,
	.wake = model_wake,
	.rebooted = model_rebooted,
	.has_engine = model_has_engine,
	.running_slot = model_running_slot,
	.pool = model_pool,
	.grant = model_grant,
	.info = model_info,
	.set_temperature = model_set_temperature,
	.inject = model_inject,
};

int emu_engine_model(const struct speckv_card_ops *ops, void *arg,
	const struct speckv_card_config *config, struct emu_engine **out)
{
	struct model *model = calloc(1, sizeof(*model));
	int rc = model ? speckv_card_create(ops, arg, config, &model->card) : -ENOMEM;

	if (rc) {
		free(model);
		return rc;
	}
	model->engine.ops = &model_ops;
	*out = &model->engine;
	return 0;
}

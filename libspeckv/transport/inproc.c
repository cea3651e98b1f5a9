// SPDX-License-Identifier: MIT
/* See inproc.h. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "inproc.h"

#define BATCH 64 /* commands of one run of the engine */

struct inproc {
	struct transport transport;
	struct emu_engine *engine;
	struct inproc_host *host;
	unsigned int function, queue_pairs;
};

/* ---- host memory ---------------------------------------------------------------------------- */

void *inproc_reach(struct inproc_host *host, unsigned int function, uint64_t address,
	uint64_t bytes)
{
	const struct inproc_window *w = &host->window[function % INPROC_FUNCTIONS];

	if (function >= INPROC_FUNCTIONS || address < w->address ||
		address - w->address > w->bytes || bytes > w->bytes - (address - w->address)) {
		host->outside++;
		return NULL;
	}
	return w->at + (address - w->address);
}

int inproc_dma_read(void *host, unsigned int function, uint64_t address, void *to, uint64_t bytes)
{
	const void *from = inproc_reach(host, function, address, bytes);

	if (!from)
		return -EFAULT;
	memcpy(to, from, bytes);
	return 0;
}

int inproc_dma_write(void *host, unsigned int function, uint64_t address, const void *from,
	uint64_t bytes)
{
	void *to = inproc_reach(host, function, address, bytes);

	if (!to)
		return -EFAULT;
	memcpy(to, from, bytes);
	return 0;
}

int inproc_dma_publish(void *host, unsigned int function, uint64_t address, uint16_t value)
{
	_Atomic uint16_t *to = address & 1 ? NULL
					   : inproc_reach(host, function, address, sizeof(value));

	if (!to)
		return -EFAULT;
	atomic_store_explicit(to, value, memory_order_release);
	return 0;
}

/* ---- operations of the transport ------------------------------------------------------------ */

static struct inproc *inproc_of(const struct transport *transport)
{
	return (struct inproc *)transport;
}

/* Until it has nothing more to do now. */
static void run_engine(struct inproc *in)
{
	while (in->engine->ops->run(in->engine, BATCH))
		;
}

static int read32(struct transport *transport, uint32_t offset, uint32_t *value)
{
	struct inproc *in = inproc_of(transport);

	run_engine(in);
	*value = in->engine->ops->read32(in->engine, in->function, offset);
	return 0;
}

static int write32(struct transport *transport, uint32_t offset, uint32_t value)
{
	struct inproc *in = inproc_of(transport);

	in->engine->ops->write32(in->engine, in->function, offset, value);
	run_engine(in);
	return 0;
}

static int pool_open(struct inproc *in, struct speckv_ioc_pool *call)
{
	struct speckv_pool_description pool;

	if (call->size != sizeof(*call))
		return -EINVAL;
	if (!in->engine->ops->pool(in->engine, call->uuid, &pool))
		return -ENOENT;
	call->pool = pool.pool;
	call->page_bytes = pool.page_bytes;
	call->capacity_bytes = pool.capacity_bytes;
	call->generation = pool.generation;
	call->layers = pool.shape.layers;
	call->kv_heads = pool.shape.kv_heads;
	call->head_dim = pool.shape.head_dim;
	call->tokens = pool.shape.tokens;
	call->dtype = pool.shape.dtype;
	call->codec = pool.codec;
	return in->engine->ops->grant(in->engine, in->function, pool.pool, call->flags);
}

static int driver(struct transport *transport, uint32_t request, void *argument, size_t bytes)
{
	struct inproc *in = inproc_of(transport);
	struct speckv_ioc_pool *pool = argument;
	struct speckv_ioc_info *info = argument;

	switch (request) {
	case SPECKV_IOC_INFO:
		if (bytes != sizeof(*info) || info->size != sizeof(*info))
			return -EINVAL;
		in->engine->ops->info(in->engine, info);
		info->size = sizeof(*info);
		info->queue_pairs = in->queue_pairs;
		return 0;
	case SPECKV_IOC_POOL_OPEN:
		return bytes == sizeof(*pool) ? pool_open(in, pool) : -EINVAL;
	case SPECKV_IOC_POOL_CLOSE:
		return bytes == sizeof(*pool)
			? in->engine->ops->grant(in->engine, in->function, pool->pool, 0)
			: -EINVAL;
	default:
		return -ENOTTY;
	}
}

/* There is no bus: no capabilities. */
static int read_config(struct transport *transport, uint32_t offset, void *data, uint32_t bytes)
{
	(void)transport;
	(void)offset;
	memset(data, 0, bytes);
	return 0;
}

static int alive(struct transport *transport)
{
	run_engine(inproc_of(transport));
	return 0;
}

static void inproc_close(struct transport *transport)
{
	struct inproc *in = inproc_of(transport);

	in->engine->ops->function_remove(in->engine, in->function);
	in->host->window[in->function] = (struct inproc_window){ 0 };
	free(transport->arena);
	free(in);
}

static const struct transport_ops inproc_ops = {
	.read32 = read32,
	.write32 = write32,
	.driver = driver,
	.post32 = write32,
	.read_config = read_config,
	.alive = alive,
	.close = inproc_close,
};

/* ---- open ----------------------------------------------------------------------------------- */

#define FIRST_ADDRESS UINT64_C(0x7000000000) /* no pointer of this process: a mix-up faults */
#define ADDRESS_STEP UINT64_C(0x0100000000)

int transport_open_inproc(struct emu_engine *engine, struct inproc_host *host, bool admin,
	unsigned int queue_pairs, size_t arena_bytes, struct transport **out)
{
	const struct speckv_card_function_config config = { .admin = admin,
		.queue_pairs = (uint16_t)queue_pairs };
	size_t bytes = (arena_bytes + 4095) & ~(size_t)4095;
	struct inproc *in = calloc(1, sizeof(*in));
	int function = -ENOMEM;

	if (!in)
		return -ENOMEM;
	in->transport.arena = aligned_alloc(4096, bytes);
	if (in->transport.arena)
		function = engine->ops->function_add(engine, &config);
	if (function >= INPROC_FUNCTIONS) {
		engine->ops->function_remove(engine, (unsigned int)function);
		function = -EUSERS;
	}
	if (function < 0) {
		free(in->transport.arena);
		free(in);
		return function;
	}
	memset(in->transport.arena, 0, bytes);
	in->engine = engine;
	in->host = host;
	in->function = (unsigned int)function;
	in->queue_pairs = queue_pairs;
	in->transport.ops = &inproc_ops;
	in->transport.arena_bytes = bytes;
	in->transport.arena_address = FIRST_ADDRESS + in->function * ADDRESS_STEP;
	in->transport.vendor = SPECKV_PCI_VENDOR_ID;
	in->transport.device = engine->ops->has_engine(engine) ? SPECKV_PCI_DEVICE_ID_CARD
							       : SPECKV_PCI_DEVICE_ID_FACTORY;
	host->window[in->function] =
		(struct inproc_window){ in->transport.arena, in->transport.arena_address, bytes };
	*out = &in->transport;
	return 0;
}

unsigned int inproc_function(const struct transport *transport)
{
	return inproc_of(transport)->function;
}

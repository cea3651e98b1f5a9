// SPDX-License-Identifier: MIT
/* Queue pairs over an engine in this process: the client's rings against the model of the card. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <speckv/codec.h>

#include <speckv_regs.h>
#include "../../check.h"
#include "transport/inproc.h"

#define MEMORY_BYTES (16u << 20)
#define BLOCK_BYTES (2u * 64 * 64 * 2)
#define SECOND 1000000000u

struct machine {
	struct inproc_host host; /* first: what the engine's DMA is handed */
	uint64_t now;
	void *memory; /* of the card */
};

static uint64_t now_ns(void *arg)
{
	return ((struct machine *)arg)->now += 10;
}

static void interrupt(void *arg, unsigned int function, unsigned int vector)
{
	(void)arg;
	(void)function;
	(void)vector;
}

static const struct speckv_card_ops host_ops = {
	.now_ns = now_ns,
	.dma_read = inproc_dma_read,
	.dma_write = inproc_dma_write,
	.dma_publish = inproc_dma_publish,
	.interrupt = interrupt,
};

static struct emu_engine *power_on(struct machine *machine)
{
	struct speckv_card_config config = { .memory_bytes = MEMORY_BYTES, .golden_engine = true };
	struct emu_engine *engine;

	config.memory = machine->memory = aligned_alloc(4096, MEMORY_BYTES);
	HOLDS(config.memory);
	memset(config.memory, 0, MEMORY_BYTES);
	memcpy(config.uuid, "card-uuid-000001", 16);
	HOLDS(emu_engine_model(&host_ops, machine, &config, &engine) == 0);
	return engine;
}

/* A pool of 4 KiB pages, through the admin queue. */
static uint64_t make_pool(struct transport *admin, const uint8_t uuid[16])
{
	struct speckv_pool_description *d = transport_take(admin, sizeof(*d), 64);
	struct speckv_cmd_data command = { .opcode = SPECKV_ADMIN_CREATE_POOL,
		.data_bytes = sizeof(*d) };
	struct queue queue;
	uint64_t number = 0;

	HOLDS(d && queue_open_admin(&queue, admin, 3) == 0);
	*d = (struct speckv_pool_description){
		.capacity_bytes = 1u << 20, .page_bytes = 4096, .mode = 0600
	};
	strcpy(d->name, "first");
	memcpy(d->uuid, uuid, 16);
	d->shape.layers = d->shape.kv_heads = 1;
	d->shape.head_dim = d->shape.tokens = 64;
	d->shape.dtype = SPECKV_DTYPE_BF16;
	command.data_address = transport_address(admin, d);
	HOLDS(queue_call(&queue, &command, SECOND, &number, NULL) == 0);
	/* the same once more: the status arrives as an errno */
	HOLDS(queue_call(&queue, &command, SECOND, NULL, NULL) == -EEXIST);
	return number;
}

/* A pool, and a grant to read it. */
static void open_pool(struct transport *admin, struct transport *io, struct speckv_ioc_pool *open)
{
	static const uint8_t uuid[16] = "pool-uuid-00001";
	struct speckv_ioc_info info = { .size = sizeof(info) };

	HOLDS(inproc_function(admin) != inproc_function(io));
	HOLDS(io->ops->driver(io, SPECKV_IOC_INFO, &info, sizeof(info)) == 0);
	HOLDS(info.memory_bytes && info.memory_bytes <= MEMORY_BYTES && info.queue_pairs == 2);
	memcpy(open->uuid, uuid, 16);
	HOLDS(io->ops->driver(io, SPECKV_IOC_POOL_OPEN, open, sizeof(*open)) == -ENOENT);
	HOLDS(make_pool(admin, uuid) == 1);
	HOLDS(io->ops->driver(io, SPECKV_IOC_POOL_OPEN, open, sizeof(*open)) == 0);
	HOLDS(open->pool == 1 && open->page_bytes == 4096 && open->tokens == 64);
}

struct buffers {
	uint8_t *raw, *out;
	struct speckv_block_identity *identity;
};

/* A queue pair, and the buffers of a block and its identity in its table. */
static void open_queue(struct transport *io, struct queue *queue, struct buffers *b)
{
	b->raw = transport_take(io, BLOCK_BYTES, 4096);
	b->out = transport_take(io, BLOCK_BYTES, 4096);
	b->identity = transport_take(io, sizeof(*b->identity), 64);
	HOLDS(b->raw && b->out && b->identity && queue_open_io(queue, io, 0, 4, 4) == 0);
	HOLDS(queue_register(queue, 0, b->raw, BLOCK_BYTES, SPECKV_BUFFER_CARD_READS) == 0);
	HOLDS(queue_register(queue, 1, b->out, BLOCK_BYTES, SPECKV_BUFFER_CARD_WRITES) == 0);
	HOLDS(queue_register(queue, 2, b->identity, sizeof(*b->identity),
		      SPECKV_BUFFER_CARD_READS) == 0);
	HOLDS(queue_register(queue, 4, b->raw, 64, SPECKV_BUFFER_CARD_READS) == -EINVAL);
	for (unsigned int i = 0; i < BLOCK_BYTES; i++)
		b->raw[i] = i & 1 ? 0x3f : (uint8_t)(i * 7);
	b->identity->generation = 5;
	memset(b->identity->key, 9, sizeof(b->identity->key));
}

static void blocks_go_through(struct machine *machine, struct transport *io, struct queue *queue,
	struct buffers *b, struct speckv_ioc_pool *open)
{
	struct speckv_cmd_write write = { .opcode = SPECKV_IO_WRITE,
		.pool = 1,
		.buffer = 0,
		.bytes = BLOCK_BYTES,
		.capacity = 10 * 4096,
		.identity_buffer = 2 };
	struct speckv_cmd_read read = { .opcode = SPECKV_IO_READ,
		.pool = 1,
		.buffer = 1,
		.capacity = BLOCK_BYTES,
		.generation = 5 };
	uint64_t frame = 0;

	memset(read.key_prefix, 9, sizeof(read.key_prefix));
	/* the grant has no right to write */
	HOLDS(queue_call(queue, &write, SECOND, NULL, NULL) == -EACCES);
	open->flags = SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE;
	HOLDS(io->ops->driver(io, SPECKV_IOC_POOL_OPEN, open, sizeof(*open)) == 0);
	HOLDS(queue_call(queue, &write, SECOND, &frame, NULL) == 0 && frame);
	HOLDS(queue_call(queue, &read, SECOND, NULL, NULL) == 0);
	HOLDS(memcmp(b->raw, b->out, BLOCK_BYTES) == 0);
	read.generation = 6;
	HOLDS(queue_call(queue, &read, SECOND, NULL, NULL) == -ENOENT);

	/* a buffer beyond the arena: the bus refuses, and it is counted */
	queue->buffers[0].address += 1u << 20;
	HOLDS(queue_register(queue, 1, b->out, BLOCK_BYTES, SPECKV_BUFFER_CARD_WRITES) == 0);
	HOLDS(io->ops->write32(io,
		      (uint32_t)(offsetof(speckv_regs_t, QUEUES) +
			      offsetof(speckv_regs__QUEUES__PAIRx__stride40_t, BUFFER_INVALIDATE)),
		      1u << 31) == 0);
	HOLDS(machine->host.outside == 0);
	write.address = 16 * 4096;
	HOLDS(queue_call(queue, &write, SECOND, NULL, NULL) == -EFAULT);
	HOLDS(machine->host.outside > 0);
}

int main(void)
{
	struct speckv_ioc_pool open = { .size = sizeof(open), .flags = SPECKV_RIGHT_READ };
	struct machine machine = { .now = 1 };
	struct emu_engine *engine = power_on(&machine);
	struct transport *admin, *io;
	struct buffers buffers;
	struct queue queue;

	HOLDS(transport_open_inproc(engine, &machine.host, true, 1, 1u << 20, &admin) == 0);
	HOLDS(transport_open_inproc(engine, &machine.host, false, 2, 1u << 20, &io) == 0);
	open_pool(admin, io, &open);
	open_queue(io, &queue, &buffers);
	blocks_go_through(&machine, io, &queue, &buffers, &open);

	/* rings longer than their memory, once around, with a completion for each */
	for (unsigned int i = 0; i < 100; i++) {
		const struct speckv_cmd_bare nop = { .opcode = SPECKV_IO_NOP };

		HOLDS(queue_call(&queue, &nop, SECOND, NULL, NULL) == 0);
	}
	HOLDS(queue_check(&queue) == 0);
	engine->ops->function_reset(engine, inproc_function(io));
	HOLDS(queue_check(&queue) == -ECANCELED);
	io->ops->close(io);
	admin->ops->close(admin);
	engine->ops->close(engine);
	free(machine.memory);
	return 0;
}

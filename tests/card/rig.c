// SPDX-License-Identifier: MIT
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
	int rc = broken(rig) ? -EFAULT : inproc_dma_read(&rig->dma, function, address, to, bytes);

	if (!rc && rig->peer)
		rig->peer(rig, function, address, bytes, false);
	return rc;
}

static int dma_write(void *arg, unsigned int function, uint64_t address, const void *from,
	uint64_t bytes)
{
	struct rig *rig = arg;
	int rc = broken(rig) ? -EFAULT
			     : inproc_dma_write(&rig->dma, function, address, from, bytes);

	if (!rc && rig->peer)
		rig->peer(rig, function, address, bytes, true);
	return rc;
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

/* ---- the host's side ------------------------------------------------------------------------ */

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

unsigned int rig_function(struct rig *rig, bool admin, unsigned int pairs)
{
	struct speckv_card_function_config config = {
		.admin = admin, .queue_pairs = (uint16_t)pairs, .user = rig->user
	};
	int function = speckv_card_function_add(rig->card, &config);

	CHECK(function >= 0, "%d", function);
	rig->host_used[function] = 0;
	if (!admin)
		rig_write(rig, (unsigned int)function, REG(CONTROL), 1);
	return (unsigned int)function;
}

struct client rig_admin(struct rig *rig, unsigned int function)
{
	struct client c = { .rig = rig,
		.function = function,
		.queue = SPECKV_ALL_QUEUES,
		.sq_entries = 16,
		.cq_entries = 16,
		.phase = 1 };

	c.sq = rig_alloc(rig, function, c.sq_entries * 64);
	c.cq = rig_alloc(rig, function, c.cq_entries * 16);
	rig_write(rig, function, REG(ADMIN_SQ_BASE.LO), (uint32_t)c.sq);
	rig_write(rig, function, REG(ADMIN_SQ_BASE.HI), (uint32_t)(c.sq >> 32));
	rig_write(rig, function, REG(ADMIN_CQ_BASE.LO), (uint32_t)c.cq);
	rig_write(rig, function, REG(ADMIN_CQ_BASE.HI), (uint32_t)(c.cq >> 32));
	rig_write(rig, function, REG(ADMIN_SIZE), 4 | 4 << 8);
	rig_write(rig, function, REG(CONTROL), 1);
	EQUAL(rig_read(rig, function, REG(STATUS)) & 1, 1);
	return c;
}

#define RIG_BUFFERS 8

struct client rig_queue(struct rig *rig, unsigned int function, unsigned int queue,
	unsigned int sq_log2, unsigned int cq_log2)
{
	struct client c = { .rig = rig,
		.function = function,
		.queue = queue,
		.sq_entries = 1u << sq_log2,
		.cq_entries = 1u << cq_log2,
		.phase = 1 };

	c.sq = rig_alloc(rig, function, c.sq_entries * 64);
	c.cq = rig_alloc(rig, function, c.cq_entries * 16);
	c.table = rig_alloc(rig, function, RIG_BUFFERS * sizeof(struct speckv_buffer_entry));
	rig_write(rig, function, PAIR(queue, SQ_BASE.LO), (uint32_t)c.sq);
	rig_write(rig, function, PAIR(queue, SQ_BASE.HI), (uint32_t)(c.sq >> 32));
	rig_write(rig, function, PAIR(queue, CQ_BASE.LO), (uint32_t)c.cq);
	rig_write(rig, function, PAIR(queue, CQ_BASE.HI), (uint32_t)(c.cq >> 32));
	rig_write(rig, function, PAIR(queue, BUFFER_TABLE.LO), (uint32_t)c.table);
	rig_write(rig, function, PAIR(queue, BUFFER_TABLE.HI), (uint32_t)(c.table >> 32));
	rig_write(rig, function, PAIR(queue, BUFFER_COUNT), RIG_BUFFERS);
	rig_write(rig, function, PAIR(queue, SIZE),
		sq_log2 | cq_log2 << 8 | (queue + 1) << 16 | 1u << 31);
	rig_write(rig, function, PAIR(queue, CONTROL), 1);
	EQUAL(rig_read(rig, function, PAIR(queue, STATUS)), QUEUE_ENABLED);
	return c;
}

void client_buffer(struct client *c, unsigned int index, uint64_t address, uint64_t bytes,
	uint32_t flags)
{
	struct speckv_buffer_entry *table = rig_at(c->rig, c->function, c->table);

	table[index] =
		(struct speckv_buffer_entry){ .address = address, .bytes = bytes, .flags = flags };
	rig_write(c->rig, c->function, PAIR(c->queue, BUFFER_INVALIDATE), index | 1u << 31);
}

uint16_t client_submit(struct client *c, const void *entry)
{
	struct speckv_sqe *sq = rig_at(c->rig, c->function, c->sq), *sqe = &sq[c->sq_tail];

	memcpy(sqe, entry, sizeof(*sqe));
	sqe->command_id = c->next_id;
	c->next_id = (uint16_t)((c->next_id + 1) % 0x8000);
	c->sq_tail = (c->sq_tail + 1) % c->sq_entries;
	rig_write(c->rig, c->function,
		c->queue == SPECKV_ALL_QUEUES ? REG(ADMIN_SQ_TAIL) : BELL(c->queue, SQ_TAIL),
		c->sq_tail);
	return sqe->command_id;
}

bool client_poll(struct client *c, struct speckv_cqe *out)
{
	struct speckv_cqe *cq = rig_at(c->rig, c->function, c->cq);

	if ((cq[c->cq_head].phase & 1) != c->phase)
		return false;
	*out = cq[c->cq_head];
	c->cq_head = (c->cq_head + 1) % c->cq_entries;
	if (!c->cq_head)
		c->phase ^= 1;
	rig_write(c->rig, c->function,
		c->queue == SPECKV_ALL_QUEUES ? REG(ADMIN_CQ_HEAD) : BELL(c->queue, CQ_HEAD),
		c->cq_head);
	return true;
}

uint16_t client_run(struct client *c, const void *entry, uint64_t *result)
{
	uint16_t id = client_submit(c, entry);
	struct speckv_cqe cqe;

	for (int i = 0; i < 64; i++) {
		speckv_card_run(c->rig->card, 1000);
		while (client_poll(c, &cqe)) {
			if (cqe.command_id == SPECKV_EVENT_COMMAND_ID)
				continue;
			EQUAL(cqe.command_id, id);
			if (result)
				*result = cqe.result;
			return cqe.status;
		}
	}
	return CARD_WAIT;
}

struct speckv_pool_description rig_pool(const char *name, uint64_t capacity, uint32_t codec)
{
	struct speckv_pool_description d = {
		.capacity_bytes = capacity, .page_bytes = BENCH_PAGE, .codec = codec, .mode = 0600
	};

	snprintf(d.name, sizeof(d.name), "%s", name);
	snprintf((char *)d.uuid, sizeof(d.uuid), "uuid-%s", name);
	d.shape.layers = 2;
	d.shape.kv_heads = 1;
	d.shape.head_dim = 64;
	d.shape.tokens = 64;
	d.shape.dtype = SPECKV_DTYPE_BF16;
	return d;
}

uint16_t rig_create(struct client *admin, const struct speckv_pool_description *d, uint64_t *number)
{
	uint64_t data = rig_alloc(admin->rig, admin->function, sizeof(*d));
	struct speckv_cmd_data command = {
		.opcode = SPECKV_ADMIN_CREATE_POOL, .data_address = data, .data_bytes = sizeof(*d)
	};

	memcpy(rig_at(admin->rig, admin->function, data), d, sizeof(*d));
	return client_run(admin, &command, number);
}

uint16_t rig_grant(struct client *admin, unsigned int function, unsigned int queue,
	unsigned int pool, const uint8_t *uuid, uint32_t rights)
{
	struct speckv_cmd_grant command = { .opcode = SPECKV_ADMIN_GRANT,
		.pool = (uint16_t)pool,
		.function = (uint16_t)function,
		.queue = (uint16_t)queue,
		.rights = rights };

	memcpy(command.uuid, uuid, 16);
	return client_run(admin, &command, NULL);
}

uint16_t rig_log(struct client *admin, uint16_t log, uint16_t pool, uint64_t after, void *entries,
	uint32_t bytes, struct speckv_log_header *header)
{
	uint32_t all = (uint32_t)sizeof(*header) + bytes;
	uint64_t used = admin->rig->host_used[admin->function],
		 data = rig_alloc(admin->rig, admin->function, all);
	struct speckv_cmd_log command = { .opcode = SPECKV_ADMIN_GET_LOG,
		.data_address = data,
		.data_bytes = all,
		.log = log,
		.pool = pool,
		.after = after };
	uint16_t status = client_run(admin, &command, NULL);
	uint8_t *at = rig_at(admin->rig, admin->function, data);

	memcpy(header, at, sizeof(*header));
	memcpy(entries, at + sizeof(*header), bytes);
	admin->rig->host_used[admin->function] = used;
	return status;
}

/* ---- a card that is ready to store ---------------------------------------------------------- */

void bench_connect(struct bench *b)
{
	struct rig *rig = b->rig;

	b->admin = rig_admin(rig, rig_function(rig, true, 2));
	EQUAL(rig_function(rig, false, 4), 1);
	b->client = rig_queue(rig, 1, 0, 4, 6);
	b->raw = rig_alloc(rig, 1, 1u << 16);
	b->identity = rig_alloc(rig, 1, 4096);
	b->out = rig_alloc(rig, 1, 1u << 17);
	b->frames = rig_alloc(rig, 1, 1u << 17);
	client_buffer(&b->client, BUFFER_RAW, b->raw, 1u << 16, SPECKV_BUFFER_CARD_READS);
	client_buffer(&b->client, BUFFER_IDENTITY, b->identity, 4096, SPECKV_BUFFER_CARD_READS);
	client_buffer(&b->client, BUFFER_OUT, b->out, 1u << 17, SPECKV_BUFFER_CARD_WRITES);
	client_buffer(&b->client, BUFFER_BOTH, b->frames, 1u << 17,
		SPECKV_BUFFER_CARD_READS | SPECKV_BUFFER_CARD_WRITES);
}

void bench_begin(struct bench *b, uint32_t codec)
{
	struct speckv_pool_description d = rig_pool("first", 1u << 20, codec);

	memset(b, 0, sizeof(*b));
	b->rig = rig_new();
	rig_power_on(b->rig);
	bench_connect(b);
	d.max_bytes = 2u << 20;
	EQUAL(rig_create(&b->admin, &d, &b->pool), 0);
	EQUAL(b->pool, 1);
	memcpy(b->uuid, d.uuid, 16);
	b->block_bytes = 2 * 2 * 64 * 64 * 2;
	EQUAL(rig_grant(&b->admin, 1, SPECKV_ALL_QUEUES, 1, b->uuid,
		      SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE),
		0);
	bench_fill(b, 7);
}

void bench_end(struct bench *b)
{
	rig_free(b->rig);
}

void bench_fill(struct bench *b, uint64_t seed)
{
	uint16_t *raw = rig_at(b->rig, 1, b->raw);

	for (uint64_t i = 0; i < b->block_bytes / 2; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
		raw[i] = (uint16_t)((seed >> 63 << 15) | (0x3c00 + (seed >> 40 & 0x3ff)));
	}
}

union card_entry bench_write(struct bench *b, uint64_t address, uint64_t generation, uint8_t key)
{
	struct speckv_block_identity identity = { .generation = generation };
	union card_entry e = {
		.write = { .opcode = SPECKV_IO_WRITE,
			.pool = (uint16_t)b->pool,
			.buffer = BUFFER_RAW,
			.address = address,
			.bytes = (uint32_t)b->block_bytes,
			.capacity = 10 * BENCH_PAGE,
			.identity_buffer = BUFFER_IDENTITY,
			.codec = b->rig->card->pools[b->pool].record.description.codec & 0xff }
	};

	memset(identity.key, key, sizeof(identity.key));
	memcpy(rig_at(b->rig, 1, b->identity), &identity, sizeof(identity));
	return e;
}

union card_entry bench_read(struct bench *b, uint64_t address, uint64_t generation, uint8_t key)
{
	union card_entry e = { .read = { .opcode = SPECKV_IO_READ,
				       .pool = (uint16_t)b->pool,
				       .buffer = BUFFER_OUT,
				       .address = address,
				       .capacity = 1u << 17,
				       .generation = generation } };

	memset(e.read.key_prefix, key, sizeof(e.read.key_prefix));
	return e;
}

uint16_t bench_put(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result)
{
	union card_entry e = bench_write(b, address, generation, key);

	return client_run(&b->client, &e, result);
}

uint16_t bench_get(struct bench *b, uint64_t address, uint64_t generation, uint8_t key,
	uint64_t *result)
{
	union card_entry e = bench_read(b, address, generation, key);

	return client_run(&b->client, &e, result);
}

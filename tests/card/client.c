// SPDX-License-Identifier: MIT
/* The client's side: functions, queues, and what goes through them. */
#include "rig.h"

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

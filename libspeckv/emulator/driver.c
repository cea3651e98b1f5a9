// SPDX-License-Identifier: MIT
/*
 * Stands in for the driver, which an emulated card does not have: answers the ioctls INFO,
 * POOL_OPEN and POOL_CLOSE, maps uid, gid and mode of a pool to grants, and identifies a client by
 * the credentials of its socket.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "emulator.h"

void emu_driver_peer(struct emu_function *f, int fd)
{
	struct ucred peer;
	socklen_t bytes = sizeof(peer);

	f->uid = f->gid = (uint32_t)-1; /* no user, if the kernel reports no credentials */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0) {
		f->uid = peer.uid;
		f->gid = peer.gid;
	}
	bytes = sizeof(f->groups);
	f->group_count = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, f->groups, &bytes) == 0
		? bytes / sizeof(f->groups[0])
		: 0;
}

static bool in_group(const struct emu_function *f, uint32_t gid)
{
	for (unsigned int i = 0; i < f->group_count; i++)
		if (f->groups[i] == gid)
			return true;
	return f->gid == gid;
}

/* The kernel's permission check for a file of this owner and mode. */
static uint32_t rights(const struct emu_function *f, const struct speckv_pool_description *pool)
{
	uint32_t mode = pool->mode;

	if (f->uid == 0)
		return SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE;
	mode = f->uid == pool->uid ? mode >> 6 : in_group(f, pool->gid) ? mode >> 3 : mode;
	return (mode & 4 ? SPECKV_RIGHT_READ : 0) | (mode & 2 ? SPECKV_RIGHT_WRITE : 0);
}

static int pool_open(struct emu_function *f, struct speckv_ioc_pool *call)
{
	const uint32_t all = SPECKV_RIGHT_READ | SPECKV_RIGHT_WRITE;
	struct speckv_pool_description pool;

	if (call->size != sizeof(*call) || !call->flags || call->flags & ~all)
		return -EINVAL;
	if (!f->engine->ops->pool(f->engine, call->uuid, &pool))
		return -ENOENT;
	if (call->flags & ~rights(f, &pool))
		return -EACCES;
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
	return f->engine->ops->grant(f->engine, (unsigned int)f->number, pool.pool, call->flags);
}

static int pool_close(struct emu_function *f, const struct speckv_ioc_pool *call)
{
	struct speckv_pool_description pool;

	if (call->size != sizeof(*call) || call->flags)
		return -EINVAL;
	if (!f->engine->ops->pool(f->engine, call->uuid, &pool) || pool.pool != call->pool)
		return -ENOENT;
	return f->engine->ops->grant(f->engine, (unsigned int)f->number, pool.pool, 0);
}

void emu_driver_call(struct emu_function *f, const void *request, uint32_t bytes)
{
	struct speckv_driver_call head;
	union {
		uint8_t bytes[SPECKV_DRIVER_BYTES - sizeof(head)];
		struct speckv_ioc_info info;
		struct speckv_ioc_pool pool;
	} call;
	int rc = -EINVAL;

	if (bytes < sizeof(head) || bytes > SPECKV_DRIVER_BYTES)
		return;
	memset(&call, 0, sizeof(call));
	memcpy(&head, request, sizeof(head));
	memcpy(&call, (const uint8_t *)request + sizeof(head), bytes - sizeof(head));
	switch (head.request) {
	case SPECKV_IOC_INFO:
		if (call.info.size != sizeof(call.info))
			break;
		f->engine->ops->info(f->engine, &call.info);
		call.info.size = sizeof(call.info);
		call.info.queue_pairs = EMU_QUEUE_PAIRS;
		rc = 0;
		break;
	case SPECKV_IOC_POOL_OPEN:
		rc = pool_open(f, &call.pool);
		break;
	case SPECKV_IOC_POOL_CLOSE:
		rc = pool_close(f, &call.pool);
		break;
	default:
		rc = -ENOTTY;
	}
	head.error = (uint32_t)-rc;
	memcpy(f->driver, &head, sizeof(head));
	memcpy(f->driver + sizeof(head), &call, sizeof(call));
}

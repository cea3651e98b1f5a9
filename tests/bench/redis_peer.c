// SPDX-License-Identifier: MIT
#include "redis_peer.h"

#include <hiredis/hiredis.h>

#include "bench.h"

struct redis_peer *redis_peer_connect(const char *socket)
{
	redisContext *c = redisConnectUnix(socket);

	if (!c || c->err)
		give_up("redis at %s: %s", socket, c ? c->errstr : "no memory");
	return (struct redis_peer *)c;
}

void redis_peer_close(struct redis_peer *peer)
{
	redisFree((redisContext *)peer);
}

static void finish(redisContext *c, const struct speckv_request *requests, size_t n, int type)
{
	for (size_t i = 0; i < n; i++) {
		redisReply *reply;

		if (redisGetReply(c, (void **)&reply) || reply->type != type)
			give_up("redis: %s",
				c->err ? c->errstr
					: reply->str ? reply->str
						     : "not the reply expected");
		if (type == REDIS_REPLY_STRING && reply->len != requests[i].buffer_bytes)
			give_up("redis: a value of %zu bytes", reply->len);
		freeReplyObject(reply);
	}
}

void redis_peer_put(struct redis_peer *peer, const struct speckv_request *requests, size_t n)
{
	redisContext *c = (redisContext *)peer;

	for (size_t i = 0; i < n; i++) {
		const char *words[3] = { "SET", (const char *)requests[i].key.bytes,
			requests[i].buffer };
		const size_t lengths[3] = { 3, SPECKV_KEY_BYTES, requests[i].buffer_bytes };

		redisAppendCommandArgv(c, 3, words, lengths);
	}
	finish(c, requests, n, REDIS_REPLY_STATUS);
}

void redis_peer_get(struct redis_peer *peer, const struct speckv_request *requests, size_t n)
{
	redisContext *c = (redisContext *)peer;

	for (size_t i = 0; i < n; i++) {
		const char *words[2] = { "GET", (const char *)requests[i].key.bytes };
		const size_t lengths[2] = { 3, SPECKV_KEY_BYTES };

		redisAppendCommandArgv(c, 2, words, lengths);
	}
	finish(c, requests, n, REDIS_REPLY_STRING);
}

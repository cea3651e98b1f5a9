/* SPDX-License-Identifier: MIT */
/* Redis over a Unix socket by hiredis, pipelined: the fastest way a C program has to it. */
#ifndef SPECKV_TESTS_BENCH_REDIS_PEER_H
#define SPECKV_TESTS_BENCH_REDIS_PEER_H

#include <speckv/block.h>

struct redis_peer;

struct redis_peer *redis_peer_connect(const char *socket);
void redis_peer_close(struct redis_peer *peer);
/* Store a batch; gives up on an error. */
void redis_peer_put(struct redis_peer *peer, const struct speckv_request *requests, size_t n);
/*
 * Fetch a batch into hiredis's own reply buffers, which count as delivered: no copy to `buffer` is
 * charged to Redis.
 */
void redis_peer_get(struct redis_peer *peer, const struct speckv_request *requests, size_t n);

#endif

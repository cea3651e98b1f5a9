/* SPDX-License-Identifier: MIT */
/*
 * std::unordered_map of the same keys, in this process's own memory: what look-ups cost without
 * sharing, death or eviction.
 */
#ifndef SPECKV_TESTS_BENCH_HASH_MAP_PEER_H
#define SPECKV_TESTS_BENCH_HASH_MAP_PEER_H

#include <speckv/block.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hash_map_peer;

struct hash_map_peer *hash_map_peer_create(size_t count);
void hash_map_peer_destroy(struct hash_map_peer *map);
void hash_map_peer_put(struct hash_map_peer *map, const struct speckv_key *key, uint64_t value);
size_t hash_map_peer_lookup(const struct hash_map_peer *map, const struct speckv_key *keys,
	size_t count, uint8_t *present);

#ifdef __cplusplus
}
#endif
#endif

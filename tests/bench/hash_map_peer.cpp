// SPDX-License-Identifier: MIT
#include "hash_map_peer.h"

#include <cstring>
#include <unordered_map>

namespace {

struct Same {
	bool operator()(const speckv_key &a, const speckv_key &b) const { return std::memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0; }
};

struct Hash { // a key is a SHA-256: its first bytes are as good a hash as any, and free
	std::size_t operator()(const speckv_key &key) const
	{
		std::size_t word;

		std::memcpy(&word, key.bytes, sizeof(word));
		return word;
	}
};

} // namespace

struct hash_map_peer {
	std::unordered_map<speckv_key, uint64_t, Hash, Same> map;
};

hash_map_peer *hash_map_peer_create(size_t count)
{
	auto *peer = new hash_map_peer;

	peer->map.reserve(count);
	return peer;
}

void hash_map_peer_destroy(hash_map_peer *map)
{
	delete map;
}

void hash_map_peer_put(hash_map_peer *map, const speckv_key *key, uint64_t value)
{
	map->map.emplace(*key, value);
}

size_t hash_map_peer_lookup(const hash_map_peer *map, const speckv_key *keys, size_t count, uint8_t *present)
{
	size_t hits = 0;

	for (size_t i = 0; i < count; i++) {
		present[i] = map->map.find(keys[i]) != map->map.end();
		hits += present[i];
	}
	return hits;
}

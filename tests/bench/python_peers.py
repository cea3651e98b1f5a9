# SPDX-License-Identifier: MIT
"""Reads blocks from a pool, from Redis and from LMCache's local CPU backend, in Python.

Usage: python_peers.py [--mib 256] [--rounds 5] [--batch 32] [--redis SOCKET --redis-pid PID] [--lmcache]
Same blocks, same random order, one core, in turns of one batch. Prints one series per line, and for a peer that cannot
run {"skipped": NAME, "reason": TEXT}.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import speckv

BLOCK = 65536
Read = Callable[[list[int]], None]  # these blocks, as one batch


@contextlib.contextmanager
def pool_reader(keys: list[bytes], blocks: Any, ring: Any) -> Iterator[Read]:
    """speckv: batches of keys into a numpy array."""
    capacity = (len(keys) + 64) * (BLOCK + 1024)
    with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
        device.create_pool(speckv.PoolConfig(name="bench", capacity_bytes=capacity))
        with device.attach("bench") as pool:
            assert not pool.put(keys, blocks).any()

            def read(order: list[int]) -> None:
                assert not pool.get([keys[i] for i in order], ring).any()

            yield read
        device.destroy_pool("bench")


@contextlib.contextmanager
def redis_reader(socket: str, parser: str, keys: list[bytes], blocks: Any) -> Iterator[Read]:
    """redis-py, MGET, its fastest command; the bytes objects that it returns count as delivered."""
    import redis
    from redis import _parsers

    connection: Any = redis.UnixDomainSocketConnection
    kind = {"path": socket, "parser_class": getattr(_parsers, parser)}
    client: Any = redis.Redis(connection_pool=redis.ConnectionPool(connection_class=connection, **kind))
    for key, block in zip(keys, blocks, strict=True):
        client.set(key, block.tobytes())

    def read(order: list[int]) -> None:
        values = client.mget([keys[i] for i in order])
        assert all(len(v) == BLOCK for v in values)

    yield read
    client.close()


@contextlib.contextmanager
def lmcache_reader(keys: list[bytes], blocks: Any, ring: Any) -> Iterator[Read]:
    """LMCache's local CPU backend: its memory is this process's own; a get is a reference, copied into the ring."""
    os.environ.setdefault("LMCACHE_LOG_LEVEL", "ERROR")
    os.environ.setdefault("LMCACHE_TRACK_USAGE", "false")
    import torch
    from lmcache.utils import CacheEngineKey
    from lmcache.v1.config import LMCacheEngineConfig
    from lmcache.v1.memory_allocators.mixed_memory_allocator import MixedMemoryAllocator
    from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend

    torch.set_num_threads(1)
    shape, dtype = torch.Size([2, 1, 64, 256]), torch.bfloat16
    size = len(keys) * BLOCK + (16 << 20)
    config: Any = LMCacheEngineConfig.from_defaults(local_cpu=True, max_local_cpu_size=size / 2**30)
    backend: Any = LocalCPUBackend(config, None, "cpu", None, MixedMemoryAllocator(size))
    names = [CacheEngineKey("m", 1, 0, int.from_bytes(key[:8], "little"), dtype) for key in keys]
    for name, block in zip(names, blocks, strict=True):
        memory = backend.allocate(shape, dtype)
        memory.tensor.view(torch.uint8).view(-1).copy_(torch.from_numpy(block))
        backend.submit_put_task(name, memory)
        memory.ref_count_down()
    places = [torch.from_numpy(row).view(dtype).view(shape) for row in ring]

    def read(order: list[int]) -> None:
        for n, i in enumerate(order):
            memory = backend.get_blocking(names[i])
            places[n].copy_(memory.tensor)
            memory.ref_count_down()

    yield read


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--redis")
    parser.add_argument("--redis-pid", type=int, default=0)
    parser.add_argument("--lmcache", action="store_true")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    random = np.random.default_rng(1)
    count = arguments.mib * 2**20 // BLOCK
    blocks = random.integers(0, 256, (count, BLOCK), dtype=np.uint8)
    keys = [hashlib.sha256(str(i).encode()).digest() for i in range(count)]
    ring = np.zeros((arguments.batch, BLOCK), dtype=np.uint8)
    lines: list[dict[str, object]] = []
    printed = sys.stdout
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # peers may log to stdout
        peers: dict[str, Read] = {"python_speckv_get": stack.enter_context(pool_reader(keys, blocks, ring))}
        wanted: dict[str, Callable[[], contextlib.AbstractContextManager[Read]]] = {}
        if arguments.redis:
            os.sched_setaffinity(arguments.redis_pid, os.sched_getaffinity(0))
            wanted["python_redis_get"] = lambda: redis_reader(arguments.redis, "_HiredisParser", keys, blocks)
            wanted["python_redis_plain_get"] = lambda: redis_reader(arguments.redis, "_RESP2Parser", keys, blocks)
        if arguments.lmcache:
            wanted["lmcache_get"] = lambda: lmcache_reader(keys, blocks, ring)
        for name, enter in wanted.items():
            try:
                peers[name] = stack.enter_context(enter())
            except Exception as error:  # third-party code: any exception counts as unavailable
                lines.append({"skipped": name, "reason": f"{type(error).__name__}: {error}".splitlines()[0]})
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for turn in range(arguments.rounds + 1):  # the first one warms up
            order = random.permutation(count).tolist()
            for base in range(0, count, arguments.batch):
                batch = order[base : base + arguments.batch]
                for name, read in peers.items():
                    start = time.perf_counter()
                    read(batch)
                    if turn:
                        seconds[name].append(time.perf_counter() - start)
    lines += [{"series": name, "units": arguments.batch * BLOCK, "seconds": taken} for name, taken in seconds.items()]
    printed.write("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: MIT
"""Compares hit shares of a pool's eviction with exact LRU, over traces.

Usage: eviction.py [--sizes 0.05,0.2,0.5] [--requests 1500] [--blocks 150000] [--batch 64] [--runs 3] [--json]
       [TRACE...]
Each request looks its chain up, gets the stored prefix and puts the rest: in a real pool of small blocks, and in an
LRU list of the same size. The size is a share of the trace's distinct blocks, rounded
to whole units of a pool. Two built-in traces come first: a loop over a chain a little longer than its pool, and
interleaved sessions. Exit status 1 if a pool is more than half a point below LRU, or if its own counters are wrong. The
eviction samples blocks at random: a share is the mean of a few pools.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import statistics
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import speckv
from speckv.codec import frame_max_bytes

from speckvctl.replay.traces import Trace

GEOMETRY = speckv.Geometry(layers=1, kv_heads=1, head_dim=16, tokens=64, dtype=speckv.DType.BF16)
PAGE = 256
SLACK = 0.005  # eviction samples at random

Chain = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Row:
    trace: str
    size: float
    pool_blocks: int
    wanted: int
    lru: float
    pool: float
    told: float
    """What the pool's own counters say."""


def key(scope: str, block: int) -> bytes:
    return hashlib.sha256(f"{scope}\0{block}".encode()).digest()


def loop(blocks: int = 1200, rounds: int = 10) -> list[Chain]:
    return [tuple(key("loop", i) for i in range(blocks))] * rounds


def turns(sessions: int = 60, rounds: int = 20, growth: int = 4) -> list[Chain]:
    return [
        tuple(key(f"session {session}", i) for i in range((turn + 1) * growth))
        for turn in range(rounds)
        for session in range(sessions)
    ]


def chains_of(path: Path, requests: int, blocks: int) -> list[Chain]:
    left = blocks
    chains: list[Chain] = []
    for request in itertools.islice(Trace(path), requests):
        if (left := left - len(request.ids)) < 0 and chains:
            break
        chains.append(tuple(key(request.scope, block) for block in request.ids))
    return chains


def served_by_lru(chains: Iterable[Chain], capacity: int) -> int:
    stored: OrderedDict[bytes, None] = OrderedDict()
    served = 0
    for chain in chains:
        prefix = list(itertools.takewhile(stored.__contains__, chain))
        served += len(prefix)
        for block in prefix:
            stored.move_to_end(block)
        for block in chain[len(prefix) :]:
            stored[block] = None
            stored.move_to_end(block)
            if len(stored) > capacity:
                stored.popitem(last=False)
    return served


def parts(items: Sequence[bytes], size: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    for first in range(0, len(items), size):
        yield first, items[first : first + size]


def served_by_pool(device: speckv.Device, chains: Iterable[Chain], capacity: int, batch: int) -> tuple[int, int, float]:
    """Blocks served, blocks that the pool has room for, and its own hit share."""
    block = GEOMETRY.block_bytes
    pages = -(-frame_max_bytes(GEOMETRY, "raw") // PAGE)
    config = speckv.PoolConfig(
        name="eviction", geometry=GEOMETRY, page_bytes=PAGE, capacity_bytes=capacity * pages * PAGE
    )
    room = device.create_pool(config).config.capacity_bytes // (pages * PAGE)
    buffers = np.zeros((batch, block), np.uint8)
    served = 0
    try:
        with device.attach("eviction") as pool:
            for chain in chains:
                found = pool.lookup_prefix(list(chain))
                for _, some in parts(chain[:found], batch):
                    served += int(np.count_nonzero(pool.get(list(some), buffers[: len(some)]) == 0))
                for first, some in parts(chain[found:], batch):
                    at = found + first
                    parents = [chain[at + i - 1] if at + i else None for i in range(len(some))]
                    pool.put(list(some), buffers[: len(some)], parents=parents)
            stats = device.stats("eviction")
            return served, room, stats.counters["hits"] / stats.counters["wanted"]
    finally:
        device.destroy_pool("eviction")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--sizes", default="0.05,0.2,0.5")
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--blocks", type=int, default=150_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3, help="pools that each row is the mean of")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sizes = [float(size) for size in options.sizes.split(",")]
    work = [("a chain, in a loop", loop(), [0.7]), ("sessions in turns", turns(), sizes)]
    work += [(path.name, chains_of(path, options.requests, options.blocks), sizes) for path in options.traces]
    worse = False
    if not options.json:
        print(f"{'TRACE':36} {'SIZE':>5} {'BLOCKS':>8} {'WANTED':>9} {'LRU':>7} {'POOL':>7}")
    with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
        for name, chains, shares in work:
            wanted, distinct = sum(map(len, chains)), len({block for chain in chains for block in chain})
            for size in shares:
                capacity = max(16, int(distinct * size))
                runs = [served_by_pool(device, chains, capacity, options.batch) for _ in range(options.runs)]
                held, share = runs[0][1], statistics.mean(served for served, _, _ in runs) / wanted
                told = statistics.mean(told for _, _, told in runs)
                row = Row(name, size, held, wanted, served_by_lru(chains, held) / wanted, share, told)
                worse |= row.pool < row.lru - SLACK
                for served, _, counted in runs:  # each wanted block is counted once, as served or not
                    if counted != served / wanted:
                        print(f"eviction: {name}, {size}: served {served / wanted}, counted {counted}", file=sys.stderr)
                        worse = True
                if options.json:
                    print(json.dumps(asdict(row)), flush=True)
                else:
                    text = f"{name[:36]:36} {size:5.2f} {held:8,} {wanted:9,} {row.lru:7.2%} {row.pool:7.2%}"
                    print(text, flush=True)
    return int(worse)


if __name__ == "__main__":
    sys.exit(main())

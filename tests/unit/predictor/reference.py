# SPDX-License-Identifier: MIT
"""Reference implementation of libspeckv/predictor: plain and slow, in Python integers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from speckv import codec

ONE = 1 << 30
NONE = 0xFFFFFFFF
MS = 10**6
HIDDEN = 128

# ---- inference -------------------------------------------------------------------------------------------------------


@dataclass
class Weights:
    """The tensors of a model, layer by layer, as speckv/predictor.h names them."""

    edges_ms: list[int]
    layers: list[dict[str, npt.NDArray[np.int64]]]
    head: npt.NDArray[np.int64]
    head_scale: npt.NDArray[np.int64]
    head_bias: npt.NDArray[np.int64]

    @property
    def features(self) -> int:
        return int(self.layers[0]["input"].shape[1])

    def flat(self) -> bytes:
        body = struct.pack(f"<{len(self.edges_ms)}I", *self.edges_ms)
        for layer in self.layers:
            body += layer["input"].astype(np.int8).tobytes() + layer["recurrent"].astype(np.int8).tobytes()
            for name in ("input_scale", "recurrent_scale", "bias"):
                body += layer[name].astype("<i4").tobytes()
        body += self.head.astype(np.int8).tobytes()
        body += self.head_scale.astype("<i4").tobytes() + self.head_bias.astype("<i4").tobytes()
        bins = len(self.edges_ms) - 1
        header = struct.pack("<8sIIHHHH36x", b"SPECKVP", 0, 64 + len(body), self.features, 2, HIDDEN, bins)
        return header + struct.pack("<I", codec.crc32c(body, codec.crc32c(header))) + body


def random_weights(seed: int, features: int, bins: int, loud: float = 1.0) -> Weights:
    """Weights of trained magnitude; `loud` ones saturate."""
    rng = np.random.default_rng(seed)

    def scale(rows: int, columns: int) -> npt.NDArray[np.int64]:
        return np.minimum(1 << 24, rng.integers(0, int(loud * (1 << 22) / columns) + 2, rows))

    def bias(rows: int) -> npt.NDArray[np.int64]:
        return np.clip(rng.normal(0, 4096 * loud, rows), -(1 << 20), 1 << 20).astype(np.int64)

    layers = [
        {
            "input": rng.integers(-128, 128, (512, inputs)),
            "recurrent": rng.integers(-128, 128, (512, HIDDEN)),
            "input_scale": scale(512, inputs),
            "recurrent_scale": scale(512, HIDDEN),
            "bias": bias(512),
        }
        for inputs in (features, HIDDEN)
    ]
    edges = [0, *np.cumsum(rng.integers(1, 100_000, bins)).tolist()]
    return Weights(edges, layers, rng.integers(-128, 128, (bins, HIDDEN)), scale(bins, HIDDEN), bias(bins) - 8192)


TABLE = [
    int((Decimal(1 << 24) / (1 + (Decimal(256 - i) / 16).exp())).to_integral_value(ROUND_HALF_EVEN)) for i in range(257)
]


def sigmoid24(x: int) -> int:
    at = max(-abs(x), -(16 << 12)) + (16 << 12)
    value = TABLE[at >> 8]
    if at & 255:
        value += ((TABLE[(at >> 8) + 1] - TABLE[at >> 8]) * (at & 255) + 128) >> 8
    return (1 << 24) - value if x > 0 else value


def sigmoid15(x: int) -> int:
    return (sigmoid24(x) + 256) >> 9


def tanh15(x: int) -> int:
    return 2 * sigmoid15(2 * x) - (1 << 15)


State = tuple[list[list[int]], list[list[int]]]  # c, h


def empty() -> State:
    return [[0] * HIDDEN for _ in range(2)], [[0] * HIDDEN for _ in range(2)]


def step(weights: Weights, before: State, features: Sequence[int]) -> tuple[State, list[int]]:
    cells, hiddens = [list(row) for row in before[0]], [list(row) for row in before[1]]
    vector = np.array(features, np.int64)
    for number, layer in enumerate(weights.layers):
        sums = layer["input"] @ vector * layer["input_scale"]
        sums += layer["recurrent"] @ np.array(hiddens[number], np.int64) * layer["recurrent_scale"]
        gates = [int(gate) for gate in ((sums + (1 << 15)) >> 16) + layer["bias"]]
        for unit in range(HIDDEN):
            enter, forget = sigmoid15(gates[unit]), sigmoid15(gates[HIDDEN + unit])
            candidate, leave = tanh15(gates[2 * HIDDEN + unit]), sigmoid15(gates[3 * HIDDEN + unit])
            cell = (forget * cells[number][unit] * 16 + enter * candidate + (1 << 18)) >> 19
            cells[number][unit] = cell = max(-(1 << 15), min((1 << 15) - 1, cell))
            hiddens[number][unit] = (leave * tanh15(2 * cell) * 127 + (1 << 29)) >> 30
        vector = np.array(hiddens[number], np.int64)
    survival = [ONE]
    sums = weights.head @ vector * weights.head_scale
    for logit in ((sums + (1 << 15)) >> 16) + weights.head_bias:
        survival.append((survival[-1] * ((1 << 24) - sigmoid24(int(logit))) + (1 << 23)) >> 24)
    return (cells, hiddens), survival


def state_bytes(state: State) -> bytes:
    return np.array(state[0], "<i2").tobytes() + np.array(state[1], np.int8).tobytes()


# ---- curves ----------------------------------------------------------------------------------------------------------


def _value(survival: bool, edges: Sequence[int], values: Sequence[int], age: int) -> int:
    if age >= edges[-1]:
        return values[-1] * 10**8 // (10**8 + age - edges[-1]) if survival else values[-1]
    k = max(i for i, edge in enumerate(edges) if edge <= age)
    moved = (values[k + 1] - values[k]) * (age - edges[k])
    whole = abs(moved) // (edges[k + 1] - edges[k])  # towards zero, as C divides
    return values[k] + (whole if moved >= 0 else -whole)


def score(survival: bool, edges: Sequence[int], values: Sequence[int], age: int, window: int) -> int:
    age = min(age, 1 << 32)
    now = _value(survival, edges, values, age)
    if not survival:
        return now
    then = min(now, _value(survival, edges, values, age + window))
    return ONE - then * ONE // now if now else 0


def half(x: int) -> int:
    if x >> 16 >= 17:
        return 0
    part = x & 0xFFFF
    return (0x10000 - (part * (44033 - (part * 11265 >> 16)) >> 16)) >> (x >> 16)


# ---- prefetch depth and guard ----------------------------------------------------------------------------------------


@dataclass
class Pace:
    """Depth by the last 16 prefetches, and the guard by the last 64 contests, as lists."""

    depth: int = 4
    guarded: bool = False
    engaged: int = 0
    outcomes: list[bool] = field(default_factory=list)
    since_move: int = 0
    open: list[tuple[int, int] | None] = field(default_factory=lambda: [None] * 64)
    following: int = 0
    contests: list[bool] = field(default_factory=list)

    def settle(self, used: bool) -> None:
        self.outcomes = [*self.outcomes, used][-16:]
        self.since_move += 1
        if len(self.outcomes) < 16 or self.since_move < 8:
            return
        self.since_move = 0
        if sum(self.outcomes) >= 12:
            self.depth = min(16, self.depth + 1)
        elif sum(self.outcomes) < 8:
            self.depth = max(1, self.depth // 2)

    def contest(self, model: int, recency: int) -> None:
        if model != recency and (model, recency) not in self.open:
            self.open[self.following % 64] = (model, recency)
            self.following += 1

    def came(self, name: int) -> None:
        for at, pair in enumerate(self.open):
            if pair is None or name not in pair:
                continue
            self.open[at] = None
            self.contests = [*self.contests, pair[0] == name][-64:]
            if len(self.contests) == 64 and not self.guarded and sum(self.contests) < 24:
                self.guarded = True
                self.engaged += 1
            elif len(self.contests) == 64 and self.guarded and sum(self.contests) >= 32:
                self.guarded = False


# ---- the prefix tree -------------------------------------------------------------------------------------------------


def link(chains: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[int], list[int], int]:
    """Nodes of each request, stored lengths, parents, number of nodes."""
    numbers: dict[tuple[int, ...], int] = {}
    last: dict[int, int] = {}
    successors: dict[int, set[int]] = {}
    out, stored, parents = [], [], []
    for request, chain in enumerate(chains):
        known = len(numbers)
        nodes = [numbers.setdefault(tuple(chain[: k + 1]), len(numbers)) for k in range(len(chain))]
        count = sum(node < known for node in nodes)
        end = nodes[count - 1] if count else -1
        parents.append(last[end] if count and len(successors.get(end, ())) < 3 else NONE)
        for node, following in pairwise(nodes):
            successors.setdefault(node, set()).add(following)
        last |= dict.fromkeys(nodes, request)
        out.append(nodes)
        stored.append(count)
    return out, stored, parents, len(numbers)


# ---- the cache -------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    sequence: int = 0
    score: int = 0
    ready: int = 0
    fetched: bool = False
    counted: bool = False


@dataclass
class Sim:
    """The simulator, request by request; every choice by exhaustive search."""

    times: list[int]
    chains: list[list[int]]
    stored: list[int]
    parents: list[int]
    capacity: int
    scored: bool
    prefetch: str  # "", "score" or "child"
    survival: bool
    edges: list[int]
    values: list[list[int]]
    window: int
    tick: int
    transfer: int
    count_from: int
    cache: dict[int, Block] = field(default_factory=dict)
    owner: dict[int, int] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    recent: dict[int, list[int]] = field(default_factory=dict)
    weight: dict[int, tuple[int, int]] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    sequence: int = 0
    channel: int = 0
    arrived: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    log: list[tuple[int, int, int, int, str]] = field(default_factory=list)

    def run(self) -> dict[str, int]:
        names = "requests requests_whole demanded hits issued useful late unused chain_steps chain_top1 chain_top4"
        self.counts = dict.fromkeys(names.split(), 0)
        following = 0
        for request, now in enumerate(self.times):
            while following <= now:
                self.at_tick(following)
                following += self.tick
            self.arrive(request, now)
        for block in self.cache.values():
            self.counts["unused"] += block.fetched and block.counted
        return {**self.counts, "events": len(self.log)}

    def request_score(self, request: int, now: int) -> int:
        if request in self.done:
            return 0
        age = (now - self.times[request]) // MS
        return score(self.survival, self.edges, self.values[request], age, self.window)

    def decayed(self, node: int, now: int) -> int:
        weight, since = self.weight.get(node, (0, 0))
        return weight * half(((now // MS - since) << 16) // 300_000) >> 16

    def block_score(self, node: int, now: int) -> int:
        shared = 0
        if len(self.recent.get(node, ())) >= 3:
            shared = ONE - (half(self.decayed(node, now) * self.window // 300_000) << 14)
        return max(shared, self.request_score(self.owner[node], now))

    def put(self, node: int, value: int) -> None:
        self.sequence += 1
        block = self.cache.setdefault(node, Block())
        block.sequence, block.score = self.sequence, value

    def first_to_go(self) -> int:
        return min(self.cache, key=lambda node: (self.cache[node].score, self.cache[node].sequence))

    def evict(self, now: int) -> None:
        node = self.first_to_go()
        block = self.cache.pop(node)
        self.log.append((now, now, node, block.score, "evict"))
        self.counts["unused"] += block.fetched and block.counted

    def fetch(self, node: int, value: int, now: int) -> None:
        self.channel = max(self.channel, now) + self.transfer
        self.put(node, value)
        block = self.cache[node]
        block.ready, block.fetched, block.counted = self.channel, True, now >= self.count_from
        self.counts["issued"] += block.counted
        self.log.append((now, self.channel, node, value, "prefetch"))

    def at_tick(self, now: int) -> None:
        if self.scored:
            for node, block in self.cache.items():
                block.score = self.block_score(node, now)
        if self.transfer and self.prefetch == "score":
            self.fetch_by_score(now)
        if self.transfer and self.prefetch == "child":
            for node in self.waiting:
                if node in self.cache:
                    continue
                if self.channel >= now + self.tick:
                    break
                if len(self.cache) >= self.capacity:
                    self.evict(now)
                self.fetch(node, 0, now)
            self.waiting = []

    def fetch_by_score(self, now: int) -> None:
        live = [request for request in range(self.arrived) if request not in self.done]
        ranked = sorted(((self.request_score(request, now), request) for request in live), reverse=True)
        considered = 0
        for value, request in ranked:
            mine = [node for node in self.chains[request] if self.owner[node] == request]
            if value <= ONE // 10000 or (self.scored and all(node in self.cache for node in mine)):
                continue
            considered += len(self.chains[request])
            if not self.scored and considered > self.capacity:
                return
            for node in mine:
                if node in self.cache:
                    continue
                if self.channel >= now + self.tick:
                    return
                if len(self.cache) >= self.capacity:
                    least = self.cache[self.first_to_go()].score
                    if self.scored and least * 11 // 10 + ONE // 10**6 >= value:
                        return
                    self.evict(now)
                self.fetch(node, value if self.scored else 0, now)

    def arrive(self, request: int, now: int) -> None:
        chain, stored, counts = self.chains[request], self.stored[request], now >= self.count_from
        hits = 0
        for node in chain[:stored]:
            block = self.cache.get(node)
            self.log.append((now, now, node, block.score if block else -1, "demand"))
            if block is None:
                continue
            if block.fetched and block.ready > now:
                self.counts["late"] += block.counted
            else:
                hits += 1
                self.counts["useful"] += block.fetched and block.counted
            block.fetched = False
        if counts:
            self.counts["requests"] += 1
            self.counts["demanded"] += stored
            self.counts["hits"] += hits
            self.counts["requests_whole"] += stored > 0 and hits == stored
        if self.parents[request] != NONE:
            self.done.add(self.parents[request])
        self.arrived += 1
        for k in range(1, len(chain)):
            successors = self.recent.setdefault(chain[k - 1], [])
            if k < stored and counts:
                self.counts["chain_steps"] += 1
                self.counts["chain_top1"] += successors[:1] == [chain[k]]
                self.counts["chain_top4"] += chain[k] in successors[:4]
            if chain[k] in successors:
                successors.remove(chain[k])
            successors.insert(0, chain[k])
        self.owner |= dict.fromkeys(reversed(chain), request)
        for node in reversed(chain):
            if self.scored:
                self.weight[node] = self.decayed(node, now) + 0x10000, now // MS
            self.put(node, self.block_score(node, now) if self.scored else 0)
        while len(self.cache) > self.capacity:
            self.evict(now)
        if chain and self.prefetch == "child":
            node = chain[-1]
            for _ in range(16):
                if not self.recent.get(node):
                    break
                node = self.recent[node][0]
                self.waiting.append(node)

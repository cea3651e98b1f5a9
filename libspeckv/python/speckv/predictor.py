# SPDX-License-Identifier: MIT
"""Prediction of session returns: quantised inference, and a cache simulator to evaluate it.

Arrays are numpy's. Shares are 30-bit fixed point as in C (ONE is 1); times are nanoseconds unless a name says ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv._speckv import ffi, lib
from speckv.errors import check

ONE = int(lib.SPECKV_PREDICTOR_ONE)
NO_REQUEST = int(lib.SPECKV_NO_REQUEST)
LAYERS = int(lib.SPECKV_PREDICTOR_LAYERS)
HIDDEN = int(lib.SPECKV_PREDICTOR_HIDDEN)
VERSION = int(lib.SPECKV_PREDICTOR_VERSION)
HEADER_BYTES = int(lib.SPECKV_PREDICTOR_HEADER_BYTES)
STATE_BYTES = int(ffi.sizeof("struct speckv_predictor_state"))

UInt64 = npt.NDArray[np.uint64]
UInt32 = npt.NDArray[np.uint32]
Int8 = npt.NDArray[np.int8]

#: One line of a simulation's log, as C writes it.
EVENT = np.dtype(
    [("time_ns", "u8"), ("ready_ns", "u8"), ("node", "u4"), ("score", "u4"), ("action", "u4"), ("reserved", "u4")]
)


class Curve(IntEnum):
    """Meaning of a request's curve at each edge."""

    SURVIVAL = int(lib.SPECKV_CURVE_SURVIVAL)
    SCORE = int(lib.SPECKV_CURVE_SCORE)


class Policy(IntEnum):
    LRU = int(lib.SPECKV_SIM_LRU)
    SCORE = int(lib.SPECKV_SIM_SCORE)


class Prefetch(IntEnum):
    NONE = int(lib.SPECKV_SIM_FETCH_NONE)
    SCORE = int(lib.SPECKV_SIM_FETCH_SCORE)
    CHILD = int(lib.SPECKV_SIM_FETCH_CHILD)


class Action(IntEnum):
    DEMAND = int(lib.SPECKV_SIM_DEMAND)
    PREFETCH = int(lib.SPECKV_SIM_PREFETCH)
    EVICT = int(lib.SPECKV_SIM_EVICT)


def _at(array: npt.NDArray[Any], kind: str) -> Any:
    return ffi.cast(f"{kind} *", array.ctypes.data)


class Predictor:
    """A loaded model; `flat` is the form that speckv/predictor.h describes."""

    def __init__(self, flat: bytes) -> None:
        out = ffi.new("struct speckv_predictor **")
        check(lib.speckv_predictor_load(ffi.from_buffer(flat), len(flat), out), what="loading a prefetcher model")
        self._model = ffi.gc(out[0], lib.speckv_predictor_destroy)
        self.features = int(lib.speckv_predictor_features(self._model))
        self.bins = int(lib.speckv_predictor_bins(self._model))
        edges = lib.speckv_predictor_edges_ms(self._model)
        self.edges_ms: UInt32 = np.array([edges[i] for i in range(self.bins + 1)], np.uint32)

    def step(self, before: bytes | None, features: Int8) -> tuple[bytes, UInt32]:
        """One turn: the state after it, and the survival curve."""
        (states, curves) = self.run(
            features.reshape(1, -1), None if before is None else np.frombuffer(before, np.uint8)
        )
        return states[0].tobytes(), curves[0]

    def run(
        self,
        features: Int8,
        before: npt.NDArray[np.uint8] | None = None,
        parent: UInt32 | None = None,
    ) -> tuple[npt.NDArray[np.uint8], UInt32]:
        """Turns in order, (n, features) in; states and curves out. Turn i continues parent[i], or `before`."""
        features = np.ascontiguousarray(features, np.int8)
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(f"features of shape {features.shape}; (n, {self.features}) were expected")
        count = len(features)
        if parent is not None and (
            len(parent) != count or bool(np.any((parent >= np.arange(count)) & (parent != NO_REQUEST)))
        ):
            raise ValueError("parent: one for each turn, earlier than the turn")
        states = np.zeros((count, STATE_BYTES), np.uint8)
        curves = np.zeros((count, self.bins + 1), np.uint32)
        state_at = ffi.cast("uint8_t *", states.ctypes.data)
        feature_at, curve_at = _at(features, "int8_t"), _at(curves, "uint32_t")
        start = ffi.NULL if before is None else ffi.cast("struct speckv_predictor_state *", before.ctypes.data)
        if before is not None and before.nbytes != STATE_BYTES:
            raise ValueError(f"a state has {STATE_BYTES} bytes")
        parents = [NO_REQUEST] * count if parent is None else parent.tolist()
        kind = ffi.typeof("struct speckv_predictor_state *")
        for turn, last in enumerate(parents):
            check(
                lib.speckv_predictor_step(
                    self._model,
                    start if last == NO_REQUEST else ffi.cast(kind, state_at + last * STATE_BYTES),
                    feature_at + turn * self.features,
                    ffi.cast(kind, state_at + turn * STATE_BYTES),
                    curve_at + turn * (self.bins + 1),
                ),
                what="a step of a prefetcher model",
            )
        return states, curves


def curve_score(kind: Curve, edges_ms: UInt32, values: UInt32, age_ms: int, window_ms: int) -> int:
    """The score at an age, as a share of ONE."""
    if len(edges_ms) != len(values) or len(edges_ms) < 2:
        raise ValueError("a curve has a value for each of two edges or more")
    edges_ms, values = np.ascontiguousarray(edges_ms, np.uint32), np.ascontiguousarray(values, np.uint32)
    where = _at(edges_ms, "uint32_t"), _at(values, "uint32_t")
    return int(lib.speckv_curve_score(kind, *where, len(edges_ms), age_ms, window_ms))


@dataclass(frozen=True, slots=True)
class LinkedTrace:
    """A trace as nodes of the prefix tree; the arrays are those of struct speckv_trace."""

    time_ns: UInt64
    first: UInt64
    nodes: UInt32
    stored: UInt32
    parent: UInt32
    blocks: int

    @property
    def requests(self) -> int:
        return len(self.time_ns)


def link(time_ns: UInt64, first: UInt64, ids: UInt64) -> LinkedTrace:
    """Map opaque block ids to nodes of the prefix tree, and requests to turns of sessions."""
    time_ns, first, ids = (np.ascontiguousarray(array, np.uint64) for array in (time_ns, first, ids))
    requests = len(time_ns)
    if len(first) != requests + 1 or int(first[-1]) != len(ids):
        raise ValueError("first: one for each request and the end of the ids")
    nodes = np.zeros(max(1, len(ids)), np.uint32)
    stored, parent = np.zeros(max(1, requests), np.uint32), np.zeros(max(1, requests), np.uint32)
    blocks = ffi.new("uint32_t *")
    rc = lib.speckv_trace_link(
        requests,
        _at(first, "uint64_t"),
        _at(ids, "uint64_t"),
        _at(nodes, "uint32_t"),
        _at(stored, "uint32_t"),
        _at(parent, "uint32_t"),
        blocks,
    )
    check(rc, what="building the prefix tree of a trace")
    return LinkedTrace(time_ns, first, nodes[: len(ids)], stored[:requests], parent[:requests], int(blocks[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimConfig:
    """Settings of one simulation; `values` is (requests, edges), or None if no score is needed."""

    capacity_blocks: int
    policy: Policy = Policy.LRU
    prefetch: Prefetch = Prefetch.NONE
    curve: Curve = Curve.SURVIVAL
    edges_ms: UInt32 | None = None
    values: UInt32 | None = None
    window_ms: int = 30_000
    tick_ns: int = 10**9
    transfer_ns: int = 0
    count_from_ns: int = 0


@dataclass(frozen=True, slots=True)
class SimResult:
    """Counts, as struct speckv_sim_result defines them."""

    requests: int
    requests_whole: int
    demanded: int
    hits: int
    issued: int
    useful: int
    late: int
    unused: int
    chain_steps: int
    chain_top1: int
    chain_top4: int
    events: int


def simulate(trace: LinkedTrace, config: SimConfig) -> SimResult:
    """Simulate a trace against a cache."""
    return _simulate(trace, config, np.zeros(0, EVENT))


def simulate_logged(trace: LinkedTrace, config: SimConfig) -> tuple[SimResult, npt.NDArray[np.void]]:
    """simulate(), with a log of every demand, prefetch and eviction in order."""
    log = np.zeros(simulate(trace, config).events, EVENT)
    return _simulate(trace, config, log), log


def _simulate(trace: LinkedTrace, config: SimConfig, log: npt.NDArray[np.void]) -> SimResult:
    keep = [
        np.ascontiguousarray(array) for array in (trace.time_ns, trace.first, trace.nodes, trace.stored, trace.parent)
    ]
    kinds = ("uint64_t", "uint64_t", "uint32_t", "uint32_t", "uint32_t")
    arrays = [_at(array, kind) for array, kind in zip(keep, kinds, strict=True)]
    c_trace = ffi.new("struct speckv_trace *", [trace.requests, trace.blocks, *arrays])
    edges = values = ffi.NULL
    edge_count = 0
    if config.edges_ms is not None and config.values is not None:
        if config.values.shape != (trace.requests, len(config.edges_ms)):
            raise ValueError(f"values of shape {config.values.shape}; a row a request, a column an edge were expected")
        keep += [np.ascontiguousarray(config.edges_ms, np.uint32), np.ascontiguousarray(config.values, np.uint32)]
        edges, values, edge_count = _at(keep[-2], "uint32_t"), _at(keep[-1], "uint32_t"), len(config.edges_ms)
    c_config = ffi.new(
        "struct speckv_sim_config *",
        {
            "capacity_blocks": config.capacity_blocks,
            "policy": config.policy,
            "prefetch": config.prefetch,
            "curve": config.curve,
            "edges": edge_count,
            "window_ms": config.window_ms,
            "tick_ns": config.tick_ns,
            "transfer_ns": config.transfer_ns,
            "count_from_ns": config.count_from_ns,
            "edges_ms": edges,
            "values": values,
        },
    )
    result = ffi.new("struct speckv_sim_result *")
    events = _at(log, "struct speckv_sim_event") if len(log) else ffi.NULL
    check(lib.speckv_sim_run(c_trace, c_config, events, len(log), result), what="simulating a cache")
    return SimResult(*(int(getattr(result, name)) for name in SimResult.__dataclass_fields__))

# SPDX-License-Identifier: MIT
"""Evaluation: simulates a trace with a score, a policy and a prefetch budget, compared with LRU."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from speckv import predictor
from speckv.predictor import Curve, Policy, Prefetch, SimConfig, SimResult

from speckvctl.files import replacing
from speckvctl.prefetcher import features, survival
from speckvctl.prefetcher.dataset import Dataset
from speckvctl.prefetcher.model import Model

Floats = npt.NDArray[np.float64]
Curves = npt.NDArray[np.uint32]

BASELINES = ("lru", "child", "popularity", "age", "mlp")
HALF_LIFE_S = 300.0  # half-life of popularity, seconds
WINDOW_MS = 30_000
TIMED_STEPS = 2000


@dataclass(frozen=True)
class Scorer:
    """A policy: survival curves of every turn, and their use by the cache."""

    name: str
    policy: Policy = Policy.LRU
    prefetch: Prefetch = Prefetch.NONE
    kind: Curve = Curve.SURVIVAL
    curves: Curves | None = None
    window_ms: int = WINDOW_MS


@dataclass(frozen=True)
class Settings:
    cache_share: float
    blocks_per_second: float
    score_from_ms: float

    def capacity(self, data: Dataset) -> int:
        return max(1, int(self.cache_share * data.linked.blocks))

    def config(self, data: Dataset, scorer: Scorer) -> SimConfig:
        budget = self.blocks_per_second
        return SimConfig(
            capacity_blocks=self.capacity(data),
            policy=scorer.policy,
            prefetch=scorer.prefetch if budget else Prefetch.NONE,
            curve=scorer.kind,
            edges_ms=survival.EDGES_MS if scorer.curves is not None else None,
            values=scorer.curves,
            window_ms=scorer.window_ms,
            transfer_ns=max(1, round(1e9 / budget)) if budget else 0,
            count_from_ns=round(self.score_from_ms * 1e6),
        )


@dataclass(frozen=True)
class Measures:
    """Shares are None if their denominator is 0."""

    result: SimResult

    @property
    def gpu_hit_share(self) -> float | None:
        return _share(self.result.hits, self.result.demanded)

    @property
    def useful_share(self) -> float | None:
        return _share(self.result.useful, self.result.issued)

    @property
    def late_share(self) -> float | None:
        return _share(self.result.late, self.result.issued)

    @property
    def coverage(self) -> float | None:
        return _share(self.result.useful, self.result.useful + self.result.demanded - self.result.hits)

    @property
    def chain_top1(self) -> float | None:
        return _share(self.result.chain_top1, self.result.chain_steps)

    @property
    def chain_top4(self) -> float | None:
        return _share(self.result.chain_top4, self.result.chain_steps)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def measure(data: Dataset, scorer: Scorer, settings: Settings) -> Measures:
    return Measures(predictor.simulate(data.linked, settings.config(data, scorer)))


# ---- policies --------------------------------------------------------------------------------------------------------


def lru() -> Scorer:
    return Scorer("lru")


def child() -> Scorer:
    """Prefetch the last successor of a request's last block."""
    return Scorer("child", prefetch=Prefetch.CHILD)


def popularity(data: Dataset) -> Scorer:
    """Prefetch sessions by turn count, decayed with a half-life of 300 s; evict by LRU."""
    turns = np.minimum(features.turns(data.parent) + 1, 8)
    values = turns[:, None] / 8 * np.exp2(-survival.EDGES / HALF_LIFE_S)[None, :]
    curves = np.rint(values * predictor.ONE).astype(np.uint32)
    return Scorer("popularity", prefetch=Prefetch.SCORE, kind=Curve.SCORE, curves=curves)


def age(data: Dataset, learned_until: float) -> Scorer:
    """One survival curve for all sessions, from the trace up to a time (seconds)."""
    event, risk = survival.labels(data, learned_until)
    seen = data.times < learned_until
    hazards = survival.age_hazards(event[seen], risk[seen])
    return returning("age", np.tile(hazards, (len(data), 1)))


def returning(name: str, hazards: Floats) -> Scorer:
    return Scorer(name, Policy.SCORE, Prefetch.SCORE, Curve.SURVIVAL, survival.curves(hazards))


def quantised(data: Dataset, model: Model) -> Scorer:
    """A quantised model, run by the C library."""
    inputs = features.quantise(features.matrix(data), model.mean, model.deviation)
    _, curves = model.predictor().run(inputs, parent=data.linked.parent)
    return Scorer("model", Policy.SCORE, Prefetch.SCORE, Curve.SURVIVAL, curves, model.window_ms)


def step_times_ns(data: Dataset, model: Model) -> tuple[int, int]:
    """Median and 99th percentile of one inference step called from Python, over a trace's first turns."""
    loaded = model.predictor()
    inputs = features.quantise(features.matrix(data)[:TIMED_STEPS], model.mean, model.deviation)
    state = None
    times = []
    for row in np.resize(inputs, (TIMED_STEPS, inputs.shape[1])):
        began = time.perf_counter_ns()
        state, _ = loaded.step(state, row)
        times.append(time.perf_counter_ns() - began)
    p50, p99 = np.percentile(times, [50, 99])
    return round(p50), round(p99)


# ---- the log ---------------------------------------------------------------------------------------------------------

_ACTIONS = ("demand", "prefetch", "evict")


def write_log(data: Dataset, scorer: Scorer, settings: Settings, path: Path) -> int:
    """Every demand, prefetch and eviction from the beginning of the trace on, one JSON object a line."""
    _, log = predictor.simulate_logged(data.linked, settings.config(data, scorer))
    scored = scorer.policy is Policy.SCORE
    blocks = data.block_ids[log["node"]]
    with replacing(path) as stream:
        for block, event in zip(blocks.tolist(), log, strict=True):
            line = {
                "t_ms": int(event["time_ns"]) / 1e6,
                "block": block,
                "action": _ACTIONS[event["action"]],
                "score": int(event["score"]) / predictor.ONE if scored else None,
            }
            if event["action"] == predictor.Action.PREFETCH:
                line["ready_ms"] = int(event["ready_ns"]) / 1e6
            stream.write(f"{json.dumps(line)}\n".encode())
    return len(log)

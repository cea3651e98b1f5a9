# SPDX-License-Identifier: MIT
"""Documents about prefetchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class PrefetcherEval(Document):
    """Counts and shares are of what happened from score_from_ms on; None where there was nothing to count."""

    schema: ClassVar[str] = "speckvctl.prefetcher-eval"
    model: str | None
    baseline: str | None
    trace: str
    trace_digest: str
    cache_share: float
    cache_blocks: int
    prefetch_blocks_per_second: float
    score_from_ms: float
    window_ms: int
    seen_in_training: bool
    requests: int
    demanded_blocks: int
    gpu_hit_share: float | None
    lru_gpu_hit_share: float | None
    issued_blocks: int
    useful_blocks: int
    late_blocks: int
    unused_blocks: int
    useful_share: float | None
    late_share: float | None
    coverage: float | None
    chain_top1: float | None
    chain_top4: float | None
    p50_latency_ns: int | None
    p99_latency_ns: int | None
    scores: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingTrace:
    """A trace and its parts: learned from, chosen by, judged by."""

    trace: str
    digest: str
    requests: int
    train_turns: int
    choose_turns: int
    judge_turns: int
    train_returns: int


@dataclass(frozen=True, kw_only=True)
class PrefetcherRow:
    """One way to decide, on the part of one trace that nothing was learned from."""

    trace: str
    name: str
    loss: float | None
    gpu_hit_share: float | None
    useful_share: float | None
    late_share: float | None
    coverage: float | None


@dataclass(frozen=True, kw_only=True)
class TrainPrefetcher(Document):
    schema: ClassVar[str] = "speckvctl.train-prefetcher"
    output: str
    dry_run: bool
    torch: str | None
    seed: int
    minutes: float
    traces: list[TrainingTrace]
    epochs: int
    stopped: str | None
    window_ms: int | None
    cache_share: float
    prefetch_blocks_per_second: float
    rows: list[PrefetcherRow]


@dataclass(frozen=True, kw_only=True)
class PrefetcherShow(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-show"
    model: str
    digest: str
    file_bytes: int
    architecture: str
    weights: int
    features: list[str]
    window_ms: int
    traces: list[str]
    trace_digests: list[str]
    train_until_s: list[float]
    chosen_until_s: list[float]
    split: str
    seed: int
    train_turns: int
    epochs: int
    validation_loss: float | None
    trained_with: str


@dataclass(frozen=True, kw_only=True)
class PrefetcherLoad(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-load"
    device: str
    dry_run: bool
    model: str
    digest: str
    replaced_digest: str | None


@dataclass(frozen=True, kw_only=True)
class PrefetcherUnload(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-unload"
    device: str
    dry_run: bool
    digest: str

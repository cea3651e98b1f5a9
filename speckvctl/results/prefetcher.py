# SPDX-License-Identifier: MIT
"""Documents about prefetchers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.results.described import Said
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class PrefetcherEval(Document):
    """What `speckvctl prefetcher eval --json` prints.

    Counts and shares are of the time from score_from_ms on; None if their denominator is 0.
    """

    schema: ClassVar[str] = "speckvctl.prefetcher-eval"
    model: Annotated[str | None, Said("Model file; null with a baseline.")]
    baseline: Annotated[str | None, Said("Name of the baseline; null with a model.")]
    trace: Annotated[str, Said("Trace file.")]
    trace_digest: Annotated[str, Said("SHA-256 of the trace file.")]
    cache_share: Annotated[float, Said("GPU's cache, as a share of the trace's distinct blocks.", minimum=0, maximum=1)]
    cache_blocks: Annotated[int, Said("The same in blocks.", minimum=0)]
    prefetch_blocks_per_second: Annotated[float, Said("Budget of prefetching.", minimum=0)]
    score_from_ms: Annotated[float, Said("Time of the trace from which on everything is counted.", minimum=0)]
    window_ms: Annotated[int, Said("How far ahead a score looks.", minimum=0)]
    seen_in_training: Annotated[
        bool, Said("True: the model was made from part of what is counted, and the figures are not honest.")
    ]
    requests: Annotated[int, Said("Requests counted.", minimum=0)]
    demanded_blocks: Annotated[int, Said("Blocks that requests needed and that had been stored before.", minimum=0)]
    gpu_hit_share: Annotated[
        float | None, Said("Of the demanded blocks, those in the GPU's cache in time.", minimum=0, maximum=1)
    ]
    lru_gpu_hit_share: Annotated[
        float | None, Said("The same with least recently used eviction and no prefetching.", minimum=0, maximum=1)
    ]
    issued_blocks: Annotated[int, Said("Blocks prefetched.", minimum=0)]
    useful_blocks: Annotated[int, Said("Of these, needed after they had arrived and before they went.", minimum=0)]
    late_blocks: Annotated[int, Said("Of these, needed before they had arrived: no hits.", minimum=0)]
    unused_blocks: Annotated[int, Said("Of these, evicted or left at the end without having been needed.", minimum=0)]
    useful_share: Annotated[float | None, Said("Useful over issued: the accuracy.", minimum=0, maximum=1)]
    late_share: Annotated[float | None, Said("Late over issued.", minimum=0, maximum=1)]
    coverage: Annotated[
        float | None, Said("Useful over useful and demanded blocks that were no hits.", minimum=0, maximum=1)
    ]
    chain_top1: Annotated[
        float | None,
        Said("Stored blocks that were the successor seen last of the one before them.", minimum=0, maximum=1),
    ]
    chain_top4: Annotated[
        float | None, Said("Stored blocks that were one of the four successors seen last.", minimum=0, maximum=1)
    ]
    p50_latency_ns: Annotated[
        int | None,
        Said("Median time of one step of the model, the call from Python included; null with a baseline.", minimum=0),
    ]
    p99_latency_ns: Annotated[int | None, Said("99th percentile of the same.", minimum=0)]
    scores: Annotated[str | None, Said("Log that was written; null: none.")]


@dataclass(frozen=True, kw_only=True)
class TrainingTrace:
    """A trace and its training, validation and test parts."""

    trace: Annotated[str, Said("Name of the file.")]
    digest: Annotated[str, Said("SHA-256 of the file.")]
    requests: Annotated[int, Said("Requests.", minimum=0)]
    train_turns: Annotated[int, Said("Turns to learn from.", minimum=0)]
    choose_turns: Annotated[int, Said("Turns that say when to stop.", minimum=0)]
    judge_turns: Annotated[int, Said("Turns to be judged by.", minimum=0)]
    train_returns: Annotated[int, Said("Returns among those to learn from.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class PrefetcherRow:
    """One policy on the test part of one trace."""

    trace: Annotated[str, Said("Name of the trace file.")]
    name: Annotated[str, Said("What decides: a baseline or the model.")]
    loss: Annotated[
        float | None,
        Said("Negative log-likelihood of a bin of time to return, nats; null where there is no such curve.", minimum=0),
    ]
    gpu_hit_share: Annotated[
        float | None, Said("Of the demanded blocks, those in the GPU's cache in time.", minimum=0, maximum=1)
    ]
    useful_share: Annotated[float | None, Said("Useful over issued.", minimum=0, maximum=1)]
    late_share: Annotated[float | None, Said("Late over issued.", minimum=0, maximum=1)]
    coverage: Annotated[
        float | None, Said("Useful over useful and demanded blocks that were no hits.", minimum=0, maximum=1)
    ]


@dataclass(frozen=True, kw_only=True)
class TrainPrefetcher(Document):
    """What `speckvctl train-prefetcher --json` prints."""

    schema: ClassVar[str] = "speckvctl.train-prefetcher"
    output: Annotated[str, Said("Model file.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    torch: Annotated[str | None, Said("Version of torch; null: not installed.")]
    seed: Annotated[int, Said("Seed.", minimum=0)]
    minutes: Annotated[float, Said("Longest time of training.", minimum=0)]
    traces: Annotated[list[TrainingTrace], Said("Traces and their parts.")]
    epochs: Annotated[int, Said("Rounds of training.", minimum=0)]
    stopped: Annotated[str | None, Said("Why training ended: converged, limit or time; null in a dry run.")]
    window_ms: Annotated[int | None, Said("How far ahead a score looks.", minimum=0)]
    cache_share: Annotated[
        float,
        Said("GPU's cache of the figures in rows, as a share of a trace's distinct blocks.", minimum=0, maximum=1),
    ]
    prefetch_blocks_per_second: Annotated[float, Said("Budget of prefetching of the figures in rows.", minimum=0)]
    rows: Annotated[list[PrefetcherRow], Said("The model and the baselines.")]


@dataclass(frozen=True, kw_only=True)
class PrefetcherShow(Document):
    """What `speckvctl prefetcher show --json` prints."""

    schema: ClassVar[str] = "speckvctl.prefetcher-show"
    model: Annotated[str, Said("Model file.")]
    digest: Annotated[str, Said("SHA-256 of the file.")]
    file_bytes: Annotated[int, Said("Size of the file.", minimum=0)]
    architecture: Annotated[str, Said("Kind of network.")]
    weights: Annotated[int, Said("Weights of 8 bits.", minimum=0)]
    features: Annotated[list[str], Said("Names of the inputs, in their order.")]
    window_ms: Annotated[int, Said("How far ahead a score looks.", minimum=0)]
    traces: Annotated[list[str], Said("Traces it was made from.")]
    trace_digests: Annotated[list[str], Said("SHA-256 of each.")]
    train_until_s: Annotated[list[float], Said("Of each: no turn after this time was learned from.")]
    chosen_until_s: Annotated[list[float], Said("Of each: no turn after this time was looked at.")]
    split: Annotated[str, Said("How the traces were divided.")]
    seed: Annotated[int, Said("Seed.", minimum=0)]
    train_turns: Annotated[int, Said("Turns learned from.", minimum=0)]
    epochs: Annotated[int, Said("Rounds of training.", minimum=0)]
    validation_loss: Annotated[
        float | None, Said("Loss on the part that said when to stop, nats a bin; null: there was none.", minimum=0)
    ]
    trained_with: Annotated[str, Said("Library.")]


@dataclass(frozen=True, kw_only=True)
class PrefetcherLoad(Document):
    """What `speckvctl prefetcher load --json` prints."""

    schema: ClassVar[str] = "speckvctl.prefetcher-load"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    model: Annotated[str, Said("Model file.")]
    digest: Annotated[str, Said("SHA-256 of the file, 64 hexadecimal digits.")]
    replaced_digest: Annotated[str | None, Said("That of the prefetcher that was loaded before; null: none was.")]


@dataclass(frozen=True, kw_only=True)
class PrefetcherUnload(Document):
    """What `speckvctl prefetcher unload --json` prints."""

    schema: ClassVar[str] = "speckvctl.prefetcher-unload"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    digest: Annotated[str, Said("SHA-256 of the file, 64 hexadecimal digits.")]

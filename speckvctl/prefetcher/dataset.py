# SPDX-License-Identifier: MIT
"""A trace as the predictor's input: one event per turn of a session; sessions are found by the prefix tree."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from speckv import predictor

from speckvctl.replay.traces import Trace

Floats = npt.NDArray[np.float64]

#: Shares of a trace's time: 60% training, 20% validation, 20% test.
TRAIN_SHARE, CHOOSE_SHARE = 0.6, 0.8


class DatasetError(Exception):
    """A trace with too few turns, or without a common clock."""

    errno = errno.EINVAL


@dataclass(frozen=True)
class Dataset:
    """A trace in memory, requests in the order of time. Parent -1: a session's first turn."""

    path: Path
    digest: str
    moved: int  # requests that were out of order in the file
    linked: predictor.LinkedTrace
    block_ids: npt.NDArray[np.uint64]  # of each node, ids as in the file
    times: Floats  # seconds since the first request
    parent: npt.NDArray[np.int64]
    returned: Floats  # time of the session's next turn; inf: not within the trace
    blocks: npt.NDArray[np.int64]
    stored: npt.NDArray[np.int64]
    input_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    stops: list[str | None]
    answers: Floats  # seconds until the response ended; nan: not in the trace

    def __len__(self) -> int:
        return len(self.times)

    @property
    def end(self) -> float:
        return float(self.times[-1])


def read(path: Path, on_request: Callable[[int], None] = lambda count: None) -> Dataset:
    """Read, check and link a whole trace."""
    trace = Trace(path)
    if trace.format == "weka-sessions":
        raise DatasetError(f"{path}: each session has a clock of its own; a trace with one clock is needed")
    requests, moved = trace.load(lambda count: None if count % 1000 else on_request(count))
    first = np.cumsum([0, *(len(request.ids) for request in requests)]).astype(np.uint64)
    ids = np.fromiter((block for request in requests for block in request.ids), np.uint64, int(first[-1]))
    times_ns = np.array([round(request.time_ms * 1e6) for request in requests], np.uint64)
    linked = predictor.link(times_ns, first, ids)
    if not linked.blocks:
        raise DatasetError(f"{path}: holds no block id")
    block_ids = np.zeros(linked.blocks, np.uint64)
    block_ids[linked.nodes] = ids
    times = times_ns.astype(np.float64) / 1e9
    parent = np.where(linked.parent == predictor.NO_REQUEST, -1, linked.parent.astype(np.int64))
    return Dataset(
        path=path,
        digest=trace.digest().hex(),
        moved=moved,
        linked=linked,
        block_ids=block_ids,
        times=times,
        parent=parent,
        returned=_returned(times, parent),
        blocks=np.array([len(request.ids) for request in requests], np.int64),
        stored=linked.stored.astype(np.int64),
        input_tokens=np.array([request.input_tokens for request in requests], np.int64),
        output_tokens=np.array([request.output_tokens for request in requests], np.int64),
        stops=[request.stop for request in requests],
        answers=np.array([np.nan if r.answer_ms is None else r.answer_ms / 1000 for r in requests]),
    )


def _returned(times: Floats, parent: npt.NDArray[np.int64]) -> Floats:
    """The time of the first turn that continues each turn."""
    returned = np.full(len(times), np.inf)
    turns = np.nonzero(parent >= 0)[0][::-1]  # of several, the earliest is stored last and wins
    returned[parent[turns]] = times[turns]
    return returned

# SPDX-License-Identifier: MIT
"""The figures are what the log says, and beside LRU."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from speckvctl.prefetcher import dataset, evaluation
from speckvctl.prefetcher.evaluation import Scorer, Settings
from tests.unit.prefetcher.blank import blank_model
from tests.unit.prefetcher.conftest import Sessions


def deciders(data: dataset.Dataset) -> dict[str, Scorer]:
    return {
        "lru": evaluation.lru(),
        "child": evaluation.child(),
        "popularity": evaluation.popularity(data),
        "age": evaluation.age(data, 0.8 * data.end),
        "model": evaluation.quantised(data, blank_model()),
    }


@pytest.mark.parametrize("name", ["lru", "child", "popularity", "age", "model"])
def test_others_can_compute_every_share_from_the_log(name: str, sessions: Sessions, tmp_path: Path) -> None:
    data = dataset.read(sessions())
    settings = Settings(0.1, 3.0, 1000 * 0.5 * data.end)
    decider = deciders(data)[name]
    measures = evaluation.measure(data, decider, settings)
    evaluation.write_log(data, decider, settings, tmp_path / "log")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text(encoding="ascii").splitlines()]

    chains = [data.linked.nodes[a:b] for a, b in pairwise(data.linked.first.tolist())]
    waiting = list(zip((data.linked.time_ns / 1e6).tolist(), data.stored.tolist(), chains, strict=True))
    there: set[int] = set()
    ahead: dict[int, tuple[float, bool]] = {}  # fetched, not needed yet: when it arrives, whether it was counted
    seen = dict.fromkeys(("demanded", "hits", "issued", "useful", "late"), 0)
    asked = 0  # of the first that waits
    for line in lines:
        time, block, counts = line["t_ms"], line["block"], line["t_ms"] >= settings.score_from_ms
        while waiting and waiting[0][1] == 0 and waiting[0][0] <= time:  # all its blocks are new
            there |= set(data.block_ids[waiting.pop(0)[2]].tolist())
        assert (line["score"] is None) == (name in ("lru", "child", "popularity"))
        if line["action"] == "prefetch":
            there.add(block)
            ahead[block] = line["ready_ms"], counts
            seen["issued"] += counts
        elif line["action"] == "evict":
            there.remove(block)
            ahead.pop(block, None)
        else:
            ready, was_counted = ahead.pop(block, (0.0, False))
            seen["demanded"] += counts
            seen["hits"] += counts and block in there and ready <= time
            seen["useful"] += was_counted and ready <= time
            seen["late"] += was_counted and ready > time
            asked += 1
            if asked == waiting[0][1]:  # what it brought is there once it was all asked for
                there |= set(data.block_ids[waiting.pop(0)[2]].tolist())
                asked = 0
    result = measures.result
    assert seen == {key: getattr(result, key) for key in seen}
    assert result.demanded > 50 and result.hits > 0
    assert result.issued == result.useful + result.late + result.unused


def test_a_cache_for_everything_hits_every_time(sessions: Sessions) -> None:
    data = dataset.read(sessions())
    for decider in deciders(data).values():
        assert evaluation.measure(data, decider, Settings(1.0, 10.0, 0.0)).gpu_hit_share == 1.0


def test_without_a_budget_nothing_is_issued(sessions: Sessions) -> None:
    data = dataset.read(sessions())
    for decider in deciders(data).values():
        measures = evaluation.measure(data, decider, Settings(0.1, 0.0, 0.0))
        assert (measures.result.issued, measures.useful_share, measures.late_share) == (0, None, None)


def test_steps_take_time(sessions: Sessions) -> None:
    p50, p99 = evaluation.step_times_ns(dataset.read(sessions()), blank_model())
    assert 0 < p50 <= p99

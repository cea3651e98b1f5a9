# SPDX-License-Identifier: MIT
"""The cache simulator: traces small enough to follow by hand, and a slow reference on traces made at random."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import speckv
from hypothesis import given, settings
from hypothesis import strategies as st
from speckv import predictor
from speckv.predictor import NO_REQUEST, Action, Curve, Policy, Prefetch, SimConfig

from tests.unit.predictor import reference

S = 10**9
ACTIONS = {"demand": Action.DEMAND, "prefetch": Action.PREFETCH, "evict": Action.EVICT}


def trace(*requests: tuple[float, list[int]]) -> predictor.LinkedTrace:
    """Of (seconds, block ids)."""
    first = np.cumsum([0, *(len(ids) for _, ids in requests)])
    times = np.array([round(seconds * S) for seconds, _ in requests], np.uint64)
    return predictor.link(times, first.astype(np.uint64), np.array([i for _, ids in requests for i in ids], np.uint64))


def curves(*rows: list[float]) -> Any:
    return np.array([[round(value * predictor.ONE) for value in row] for row in rows], np.uint32)


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_ids_are_opaque_and_equal_only_with_their_whole_chain() -> None:
    linked = trace((0, [9, 5]), (1, [5]), (2, [9, 5, 7]), (3, [7]), (4, [9, 6]), (5, [9, 8]), (6, [9, 1]))
    assert linked.nodes.tolist() == [0, 1, 2, 0, 1, 3, 4, 0, 5, 0, 6, 0, 7]
    assert linked.stored.tolist() == [0, 0, 2, 0, 1, 1, 1]
    # By the last one, 9 has three successors: a prompt that sessions share.
    assert linked.parent.tolist() == [NO_REQUEST, NO_REQUEST, 0, NO_REQUEST, 2, 4, NO_REQUEST]
    assert linked.blocks == 8


def test_least_recently_used_is_what_goes() -> None:
    linked = trace((0, [1]), (1, [2]), (2, [1]), (3, [3]), (4, [2]), (5, [1]), (6, [3]))
    result = predictor.simulate(linked, SimConfig(capacity_blocks=2))
    # 1 is still there at 2 s; 2 was driven out by 3, then 1 by 2, then 3 by 1.
    assert (result.requests, result.demanded, result.hits, result.requests_whole) == (7, 4, 1, 1)
    assert (result.issued, result.useful, result.late, result.unused) == (0, 0, 0, 0)
    later = predictor.simulate(linked, SimConfig(capacity_blocks=2, count_from_ns=4 * S))
    assert (later.requests, later.demanded, later.hits) == (3, 3, 0)


def test_of_one_request_the_end_goes_before_the_beginning() -> None:
    linked = trace((0, [1, 2, 3]), (1, [9]), (2, [1, 2, 3]))
    assert predictor.simulate(linked, SimConfig(capacity_blocks=3)).hits == 2


def test_what_is_expected_back_stays() -> None:
    linked = trace((0, [1]), (1, [2]), (2, [3]), (20, [1]))
    soon, never = [1.0, 0.0], [1.0, 1.0]
    scores = SimConfig(
        capacity_blocks=2,
        policy=Policy.SCORE,
        edges_ms=np.array([0, 60_000], np.uint32),
        values=curves(soon, never, never, never),
    )
    assert predictor.simulate(linked, scores).hits == 1
    assert predictor.simulate(linked, dataclasses.replace(scores, policy=Policy.LRU)).hits == 0


def test_a_prefetch_is_useful_late_or_unused() -> None:
    # Two sessions; the first one's curve says: between 10 s and 20 s after its turn.
    first, other = [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    edges = np.array([0, 10_000, 20_000, 30_000], np.uint32)

    def run(back: float, ids: list[int], transfer: float) -> predictor.SimResult:
        linked = trace((0, [1]), (0.5, [2]), (back, ids))
        config = SimConfig(
            capacity_blocks=1,
            policy=Policy.SCORE,
            prefetch=Prefetch.SCORE,
            edges_ms=edges,
            values=curves(first, other, other),
            window_ms=1000,
            transfer_ns=round(transfer * S),
        )
        return predictor.simulate(linked, config)

    # At 10 s its chance within 1 s is 1/10: better than the other's, so its block is fetched.
    useful = run(15.2, [1], transfer=0.1)
    assert (useful.issued, useful.useful, useful.late, useful.unused, useful.hits) == (1, 1, 0, 0, 1)
    late = run(10.05, [1], transfer=0.1)
    assert (late.issued, late.useful, late.late, late.unused, late.hits) == (1, 0, 1, 0, 0)
    unused = run(15.2, [3], transfer=0.1)
    assert (unused.issued, unused.useful, unused.late, unused.unused, unused.hits) == (1, 0, 0, 1, 0)
    early = run(8.5, [1], transfer=0.1)
    assert (early.issued, early.hits) == (0, 0)
    assert run(15.2, [1], transfer=0).issued == 0


def test_the_budget_bounds_what_is_fetched_in_a_second() -> None:
    chain = list(range(1, 41))
    linked = trace((0, chain), (0.5, list(range(100, 140))), (3.05, chain))
    config = SimConfig(
        capacity_blocks=40,
        policy=Policy.SCORE,
        prefetch=Prefetch.SCORE,
        edges_ms=np.array([0, 600, 10_000], np.uint32),
        values=curves([1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]),
        window_ms=100,
        transfer_ns=S // 10,
    )
    _, log = predictor.simulate_logged(linked, config)
    fetched = log[log["action"] == Action.PREFETCH]
    assert np.bincount((fetched["time_ns"] // S).astype(int)).tolist() == [0, 10, 10, 10]
    assert np.diff(fetched["ready_ns"].astype(np.int64)).tolist() == [S // 10] * 29
    # Of the third ten none has arrived at 3.05 s.
    result = predictor.simulate(linked, config)
    assert (result.useful, result.late, result.unused) == (20, 10, 0)


def test_the_chain_predictor_is_judged_by_stored_steps_alone() -> None:
    linked = trace((0, [1, 2, 3]), (1, [1, 2, 3, 4]), (2, [1, 5]), (3, [1, 2]), (4, [1, 2, 3]))
    result = predictor.simulate(linked, SimConfig(capacity_blocks=9))
    # 1-2 and 2-3 right at 1 s; 1-5 is new at 2 s; at 3 s the last seen is 5; at 4 s 2 again, and 3.
    assert (result.chain_steps, result.chain_top1, result.chain_top4) == (5, 4, 5)


def test_most_recent_child_is_fetched_after_the_last_block() -> None:
    linked = trace((0, [1, 2, 3]), (1, [7, 8, 9]), (2.5, [1]), (4.5, [1, 2]))
    config = SimConfig(capacity_blocks=3, prefetch=Prefetch.CHILD, transfer_ns=S // 100)
    result = predictor.simulate(linked, config)
    assert (result.issued, result.useful, result.unused) == (2, 1, 1)


# ---- against the reference -------------------------------------------------------------------------------------------

chains = st.lists(st.integers(0, 3), min_size=0, max_size=6)
requests = st.lists(st.tuples(st.integers(0, 4000), chains), min_size=1, max_size=30)


@given(requests)
def test_the_prefix_tree_is_that_of_the_reference(made: list[tuple[int, list[int]]]) -> None:
    linked = trace(*((0, ids) for _, ids in made))
    nodes, stored, parents, blocks = reference.link([ids for _, ids in made])
    assert linked.nodes.tolist() == [node for row in nodes for node in row]
    assert (linked.stored.tolist(), linked.parent.tolist(), linked.blocks) == (stored, parents, blocks)


@settings(max_examples=300)
@given(
    requests,
    st.integers(1, 12),
    st.sampled_from(list(Policy)),
    st.sampled_from(list(Prefetch)),
    st.sampled_from(list(Curve)),
    st.sampled_from([0, 50, 400, 1700]),
    st.sampled_from([1000, 30_000]),
    st.sampled_from([500, 1000]),
    st.integers(0, 20_000),
    st.randoms(use_true_random=False),
)
def test_every_count_and_every_event_is_that_of_the_reference(
    made: list[tuple[int, list[int]]],
    capacity: int,
    policy: Policy,
    prefetch: Prefetch,
    kind: Curve,
    transfer_ms: int,
    window_ms: int,
    tick_ms: int,
    count_from_ms: int,
    random: Any,
) -> None:
    times = np.cumsum([gap for gap, _ in made])
    linked = trace(*((ms / 1000, ids) for ms, (_, ids) in zip(times.tolist(), made, strict=True)))
    edges = [0, 700, 5000, 9000]
    rows = [[random.choice([0, 1, 1000, random.randint(0, reference.ONE), reference.ONE]) for _ in edges] for _ in made]
    if kind is Curve.SURVIVAL:
        rows = [[reference.ONE, *sorted(row[1:], reverse=True)] for row in rows]
    config = SimConfig(
        capacity_blocks=capacity,
        policy=policy,
        prefetch=prefetch,
        curve=kind,
        edges_ms=np.array(edges, np.uint32),
        values=np.array(rows, np.uint32),
        window_ms=window_ms,
        tick_ns=tick_ms * 10**6,
        transfer_ns=transfer_ms * 10**6,
        count_from_ns=count_from_ms * 10**6,
    )
    nodes, stored, parents, _ = reference.link([ids for _, ids in made])
    slow = reference.Sim(
        [int(ms) * 10**6 for ms in times],
        nodes,
        stored,
        parents,
        capacity,
        policy is Policy.SCORE,
        {Prefetch.NONE: "", Prefetch.SCORE: "score", Prefetch.CHILD: "child"}[prefetch],
        kind is Curve.SURVIVAL,
        edges,
        rows,
        window_ms,
        tick_ms * 10**6,
        transfer_ms * 10**6,
        count_from_ms * 10**6,
    )
    expected = slow.run()
    result, log = predictor.simulate_logged(linked, config)
    assert dataclasses.asdict(result) == expected
    assert result.issued == result.useful + result.late + result.unused
    for event, (now, ready, node, value, action) in zip(log, slow.log, strict=True):
        assert (event["time_ns"], event["ready_ns"], event["node"], event["action"]) == (
            now,
            ready,
            node,
            ACTIONS[action],
        )
        assert value in (-1, event["score"])  # what is not in the cache has no score that means anything


@given(
    st.sampled_from(list(Curve)),
    st.lists(st.integers(0, reference.ONE), min_size=2, max_size=6),
    st.integers(0, 1 << 34),
    st.integers(1, 1 << 31),
)
def test_scores_by_age_are_those_of_the_reference(kind: Curve, values: list[int], age: int, window: int) -> None:
    edges = [0, 3, 500, 7000, 90_000, 1 << 31][: len(values)]
    got = predictor.curve_score(kind, np.array(edges, np.uint32), np.array(values, np.uint32), age, window)
    assert got == reference.score(kind is Curve.SURVIVAL, edges, values, age, window)
    assert 0 <= got <= predictor.ONE


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": [0, 9]},
        {"stored": [2, 0]},
        {"parent": [NO_REQUEST, 1]},
        {"time_ns": [5, 4]},
        {"time_ns": [0, 1 << 63]},
        {"time_ns": [0, 1 << 61]},
        {"first": [0, 2, 1]},
        {"first": [1, 1, 2]},
    ],
)
def test_a_trace_whose_numbers_cannot_be_is_refused(change: dict[str, list[int]]) -> None:
    good = trace((0, [1]), (1, [1]))
    kinds: dict[str, Any] = {"time_ns": np.uint64, "first": np.uint64}
    arrays: dict[str, Any] = {name: np.array(value, kinds.get(name, np.uint32)) for name, value in change.items()}
    bad = dataclasses.replace(good, **arrays)
    predictor.simulate(good, SimConfig(capacity_blocks=1))
    with pytest.raises(speckv.InvalidError):
        predictor.simulate(bad, SimConfig(capacity_blocks=1))


@pytest.mark.parametrize(
    "change",
    [
        {"capacity_blocks": 0},
        {"tick_ns": 0},
        {"policy": 2},
        {"prefetch": 3},
        {"curve": 2},
        {"window_ms": 0},
        {"edges_ms": np.array([1, 2], np.uint32)},
        {"edges_ms": np.array([0, 0], np.uint32)},
        {"values": None},
        {"values": np.full((2, 2), predictor.ONE + 1, np.uint32)},
    ],
)
def test_a_setting_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    good = SimConfig(
        capacity_blocks=1,
        policy=Policy.SCORE,
        edges_ms=np.array([0, 5], np.uint32),
        values=np.zeros((2, 2), np.uint32),
    )
    linked = trace((0, [1]), (1, [1]))
    predictor.simulate(linked, good)
    with pytest.raises(speckv.InvalidError):
        predictor.simulate(linked, dataclasses.replace(good, **change))

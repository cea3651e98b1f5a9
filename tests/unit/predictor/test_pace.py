# SPDX-License-Identifier: MIT
"""Depth follows what became of prefetches, and the guard who was right: to the bit as the reference, event by event."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from speckv._speckv import ffi, lib

from tests.unit.predictor import reference


class Pace:
    """struct speckv_pace."""

    def __init__(self) -> None:
        self.c: Any = ffi.new("struct speckv_pace *")

    def settle(self, used: bool) -> None:
        lib.speckv_pace_settle(self.c, used)

    def contest(self, model: int, recency: int) -> None:
        lib.speckv_pace_contest(self.c, model, recency)

    def came(self, name: int) -> None:
        lib.speckv_pace_came(self.c, name)

    @property
    def depth(self) -> int:
        return int(lib.speckv_pace_depth(self.c))

    @property
    def figures(self) -> tuple[int, ...]:
        out = ffi.new("struct speckv_pace_figures *")
        lib.speckv_pace_figures(self.c, out)
        return (out.depth, out.guarded, out.engaged, out.settled, out.used, out.decided, out.won)

    @property
    def guarded(self) -> bool:
        return bool(self.figures[1])


def expected(pace: reference.Pace) -> tuple[int, ...]:
    counts = len(pace.outcomes), sum(pace.outcomes), len(pace.contests), sum(pace.contests)
    return (pace.depth, int(pace.guarded), pace.engaged, *counts)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 1), st.integers(2, 200))
def test_every_event_leaves_what_the_reference_says(seed: int, used: float, right: float, names: int) -> None:
    rng, pace, plain = random.Random(seed), Pace(), reference.Pace()
    for _ in range(400):
        match rng.randrange(3):
            case 0:
                outcome = rng.random() < used
                pace.settle(outcome)
                plain.settle(outcome)
            case 1:
                pair = rng.randrange(names), rng.randrange(names)
                pace.contest(*pair)
                plain.contest(*pair)
            case _:
                pair = next((entry for entry in plain.open if entry), (0, 0))
                name = pair[rng.random() >= right] if rng.random() < 0.8 else rng.randrange(names)
                pace.came(name)
                plain.came(name)
        assert pace.figures == expected(plain)


def test_depth_rises_by_one_on_hits_to_16_and_halves_on_misses_to_1() -> None:
    pace, seen = Pace(), [4]
    for outcome in [True] * 160 + [False] * 80 + [True] * 8 * 17:
        pace.settle(outcome)
        if pace.depth != seen[-1]:
            seen.append(pace.depth)
    assert seen == [*range(4, 17), 8, 4, 2, 1, *range(2, 17)]


def test_depth_stays_where_between_half_and_three_quarters_are_used() -> None:
    pace = Pace()
    for turn in range(800):
        pace.settle(turn % 8 < 5)
    assert pace.depth == 4


def contests(pace: Pace, rng: random.Random, share: float, count: int) -> int | None:
    """Contests of which the model wins so many; after how many the guard moved."""
    before, moved = pace.guarded, None
    for turn in range(count):
        model, recency = rng.randrange(2**60), rng.randrange(2**60)
        pace.contest(model, recency)
        pace.came(model if rng.random() < share else recency)
        pace.came(recency)  # what is decided is decided
        if moved is None and pace.guarded != before:
            moved = turn + 1
    return moved


def test_the_guard_takes_over_when_the_load_shifts_and_lets_go_when_it_shifts_back() -> None:
    rng, pace = random.Random(1), Pace()
    assert contests(pace, rng, 0.7, 2000) is None, "a good model is not doubted"
    engaged = contests(pace, rng, 0.2, 2000)
    assert engaged is not None and engaged < 100 and pace.guarded
    released = contests(pace, rng, 0.7, 2000)
    assert released is not None and released < 100 and not pace.guarded
    assert pace.figures[2] == 1


def test_the_guard_waits_for_a_whole_window() -> None:
    pace = Pace()
    assert contests(pace, random.Random(2), 0.0, 63) is None
    assert contests(pace, random.Random(2), 0.0, 1) == 1


def test_a_pair_that_waits_counts_once_and_agreement_not_at_all() -> None:
    pace = Pace()
    for _ in range(100):
        pace.contest(7, 8)
        pace.contest(9, 9)
    pace.came(9)
    pace.came(8)
    assert pace.figures[5:] == (1, 0)


def test_contests_beyond_64_push_the_oldest_out() -> None:
    pace = Pace()
    for name in range(65):
        pace.contest(2 * name, 2 * name + 1)
    pace.came(0)
    assert pace.figures[5:] == (0, 0)
    pace.came(128)
    pace.came(2)
    assert pace.figures[5:] == (2, 2)

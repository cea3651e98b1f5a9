# SPDX-License-Identifier: MIT
"""Sequences of TOUCH and PREDICT with the expected answers: tests/card/scores.txt, run on the card by tests/card.

    python -m tests.unit.predictor.card_scores > tests/card/scores.txt

A line is `model SEED FEATURES BINS` (tests/card/models.c makes the same one), or a time in milliseconds with `touch
SESSION FEATURE ...`, `predict SESSION [FEATURE ...] = SCORE` or `reset SESSION = SCORE`, where SCORE is - for recency,
or `figures DEPTH GUARDED ENGAGED DECIDED WON` of the pool.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tests.unit.predictor import reference

MODELS = ((11, 14, 22), (12, 1, 1), (13, 32, 64), (14, 14, 22))
EVENTS = 300
SESSIONS = 6


def numbers(seed: int, start: int, count: int) -> npt.NDArray[np.uint64]:
    """The random numbers of model_random: SplitMix64."""
    z = np.arange(start + 1, start + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def weights(seed: int, features: int, bins: int) -> tuple[reference.Weights, int]:
    """The model of model_random in tests/card/models.c, and its window."""
    at = 1

    def draw(*shape: int) -> npt.NDArray[np.uint64]:
        nonlocal at
        at += int(np.prod(shape))
        return numbers(seed, at - int(np.prod(shape)), int(np.prod(shape))).reshape(shape)

    def small(*shape: int) -> npt.NDArray[np.int64]:
        return draw(*shape).astype(np.uint8).view(np.int8).astype(np.int64)

    def scale(rows: int, inputs: int) -> npt.NDArray[np.int64]:
        return (draw(rows) % np.uint64((1 << 22) // inputs)).astype(np.int64)

    def bias(rows: int, less: int) -> npt.NDArray[np.int64]:
        return (draw(rows) % np.uint64(16384)).astype(np.int64) - less

    gaps = (draw(bins + 1)[1:] % np.uint64(100_000)).astype(np.int64) + 1
    layers = [
        {
            "input": small(512, inputs),
            "recurrent": small(512, 128),
            "input_scale": scale(512, inputs),
            "recurrent_scale": scale(512, 128),
            "bias": bias(512, 8192),
        }
        for inputs in (features, 128)
    ]
    head = small(bins, 128), scale(bins, 128), bias(bins, 16384)
    return reference.Weights([0, *np.cumsum(gaps).tolist()], layers, *head), 1 + int(numbers(seed, 0, 1)[0]) % 60000


class Card:
    """Sessions of one pool, as libspeckv/card/predictor.c keeps them."""

    def __init__(self, model: reference.Weights, window: int) -> None:
        self.model, self.window = model, window
        self.sessions: dict[int, tuple[int, int, reference.State, list[int]]] = {}  # life, last, state, curve
        self.lives = 0
        self.pace = reference.Pace()
        self.rival = (0, 0)  # life, slot

    def step(self, now: int, slot: int, features: list[int]) -> None:
        life, _, state, _ = self.sessions.get(slot, (0, 0, reference.empty(), []))
        if life:
            self.pace.came(life)
        else:
            self.lives += 1
            life = self.lives
        self.sessions[slot] = (life, now, *reference.step(self.model, state, features))

    def chance(self, now: int, slot: int) -> int:
        _, last, _, curve = self.sessions[slot]
        return reference.score(True, self.model.edges_ms, curve, now - last, self.window)

    def predict(self, now: int, slot: int) -> str:
        if slot not in self.sessions:
            return "-"
        life, last, _, _ = self.sessions[slot]
        chance = self.chance(now, slot)
        rival_life, rival = self.rival
        if rival_life != life:
            if rival in self.sessions and self.sessions[rival][0] == rival_life:
                other = self.chance(now, rival)
                recent = life if last >= self.sessions[rival][1] else rival_life
                likely = life if chance > other else rival_life if chance < other else recent
                self.pace.contest(likely, recent)
            self.rival = (life, slot)
        return "-" if self.pace.guarded else str(chance)


def lines() -> Iterator[str]:
    for seed, features, bins in MODELS:
        yield f"model {seed} {features} {bins}"
        card, rng, now = Card(*weights(seed, features, bins)), random.Random(seed), 0
        for _ in range(EVENTS):
            now += int(rng.lognormvariate(8, 2))
            slot, inputs = rng.randrange(SESSIONS), [rng.randrange(-128, 128) for _ in range(features)]
            text = " ".join(map(str, inputs))
            kind = rng.random()
            if kind < 0.4:
                card.step(now, slot, inputs)
                yield f"{now} touch {slot} {text}"
            elif kind < 0.55:
                card.step(now, slot, inputs)
                yield f"{now} predict {slot} {text} = {card.predict(now, slot)}"
            elif kind < 0.9:
                yield f"{now} predict {slot} = {card.predict(now, slot)}"
            else:
                card.sessions.pop(slot, None)
                yield f"{now} reset {slot} = {card.predict(now, slot)}"
        pace = card.pace
        yield f"{now} figures {pace.depth} {int(pace.guarded)} {pace.engaged} {len(pace.contests)} {sum(pace.contests)}"


if __name__ == "__main__":
    print("\n".join(lines()))

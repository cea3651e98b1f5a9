# SPDX-License-Identifier: MIT
"""Training finds what can be known, by time and not by shuffling, the same for the same seed."""

from __future__ import annotations

import importlib.util
import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckvctl.prefetcher import dataset, evaluation, features, survival, training
from speckvctl.prefetcher.dataset import DatasetError
from tests.unit.prefetcher.conftest import Sessions

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=250))
def test_each_turn_is_learned_from_once_with_what_came_before_it(made: list[tuple[int, bool]]) -> None:
    # In a row, most of the time: a session of 250 turns is cut into segments.
    parent = np.array([turn - 1 if back > 10 else max(-1, turn - back - 1) for turn, (back, _) in enumerate(made)])
    wanted = np.array([flag for _, flag in made])
    count = np.zeros(len(made), int)
    for segment in training.segments(parent, wanted, 0):
        assert len(segment.turns) <= training.SEGMENT + training.WARM_UP
        for before, after in pairwise(segment.turns.tolist()):
            assert parent[after] == before
        begin = int(segment.turns[0])
        first = int(np.argmax(segment.counted))
        assert begin == 0 or parent[begin] == -1 or first >= training.WARM_UP
        count[segment.turns[segment.counted]] += 1
    assert count.tolist() == wanted.astype(int).tolist()


def test_the_parts_are_cut_by_time_and_see_nothing_of_what_comes_after(sessions: Sessions) -> None:
    data = dataset.read(sessions())
    split = training.Split.of(data)
    assert (split.train.astype(int) + split.choose + split.judge == 1).all()
    assert data.times[split.train].max() < 0.6 * data.end <= data.times[split.choose].min()
    assert data.times[split.choose].max() < 0.8 * data.end <= data.times[split.judge].min()
    late = data.returned > 0.6 * data.end
    assert not split.train_labels[0][late].any()


def test_a_trace_that_is_too_short_is_refused(sessions: Sessions) -> None:
    with pytest.raises(DatasetError, match="too short to learn from"):
        training.Split.of(dataset.read(sessions(8))).check()


def two_kinds(path: Path) -> Path:
    """Half of the sessions come back after 4 s each time, the others never; their first prompts' lengths tell."""
    rng = random.Random(3)
    requests = []
    for session in range(300):
        begin, returns = rng.uniform(0, 1000), session % 2 == 0
        for turn in range(4 if returns else 1):
            requests.append(
                {
                    "timestamp": 1000 * (begin + 4 * turn),
                    "input_length": 512 if returns else 5120,
                    "output_length": 1,
                    "hash_ids": [1000 * session + block for block in range((1 if returns else 10) + turn)],
                }
            )
    requests.sort(key=lambda request: float(str(request["timestamp"])))
    path.write_text("".join(json.dumps(request) + "\n" for request in requests), encoding="ascii")
    return path


@needs_torch
@pytest.mark.parametrize("kind", ["lstm", "mlp"])
def test_what_can_be_known_is_learned_and_the_same_seed_gives_the_same(kind: str, tmp_path: Path) -> None:
    split = training.Split.of(dataset.read(two_kinds(tmp_path / "t")))
    mean, deviation = training.standardise([split])

    def fit(seed: int) -> training.Trained:
        return training.train(
            kind, [split], mean, deviation, seed=seed, seconds=120, progress=lambda name, epoch, share: None
        )

    training.MAX_EPOCHS, kept = 25, training.MAX_EPOCHS
    try:
        first, second = fit(1), fit(1)
    finally:
        training.MAX_EPOCHS = kept
    assert all(np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)
    event, risk = (part[split.judge] for part in split.judge_labels)
    age = survival.age_hazards(*(part[split.train] for part in split.train_labels))
    loss = survival.mean_loss(first.hazards[0][split.judge], event, risk)
    alone = survival.mean_loss(np.tile(age, (int(split.judge.sum()), 1)), event, risk)
    assert loss is not None and alone is not None
    assert loss < 0.7 * alone


@needs_torch
def test_a_trained_model_and_every_baseline_are_judged(sessions: Sessions) -> None:
    splits = [training.Split.of(dataset.read(sessions(120, seed=seed, name=f"{seed}"))) for seed in (1, 2)]
    shares: list[float] = []
    outcome = training.train_model(
        splits, seed=0, seconds=1.5, progress=lambda kind, epoch, share: shares.append(share)
    )
    names = ["lru", "child", "popularity", "age", "mlp", "lstm in float", "model"]
    assert [(row.trace, row.name) for row in outcome.rows] == [(trace, name) for trace in "12" for name in names]
    assert all(row.measures.gpu_hit_share is not None for row in outcome.rows)
    by_name = {row.name: row for row in outcome.rows}
    exact, rounded = by_name["lstm in float"].loss, by_name["model"].loss
    assert exact is not None and rounded == pytest.approx(exact, rel=0.02)
    assert outcome.model.provenance.trace_digests == [split.data.digest for split in splits]
    assert outcome.model.has_seen(splits[0].data.digest, 0.79 * splits[0].data.end)
    assert shares == sorted(shares)


def test_the_age_only_baseline_learns_from_nothing_that_is_counted(sessions: Sessions, tmp_path: Path) -> None:
    path = sessions()
    data = dataset.read(path)
    until = 0.5 * data.end
    lines = path.read_text(encoding="ascii").splitlines()
    first = min(json.loads(line)["timestamp"] for line in lines)  # a trace's time begins with its first request
    kept = [line for line in lines if json.loads(line)["timestamp"] - first < 1000 * until]
    (tmp_path / "cut").write_text("\n".join(kept) + "\n", encoding="ascii")
    cut = dataset.read(tmp_path / "cut")
    whole_curve, cut_curve = evaluation.age(data, until).curves, evaluation.age(cut, until).curves
    assert whole_curve is not None and cut_curve is not None
    assert whole_curve[0].tolist() == cut_curve[0].tolist()


def test_standardising_leaves_a_constant_feature_alone(sessions: Sessions) -> None:
    split = training.Split.of(dataset.read(sessions()))
    mean, deviation = training.standardise([split])
    constant = features.NAMES.index("last_stop_tool_use")
    assert (mean[constant], deviation[constant]) == (0.0, 1.0)

# SPDX-License-Identifier: MIT
"""Turns, returns and features are what the trace holds, and nothing that was not known at the time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speckvctl.prefetcher import dataset, features, survival
from speckvctl.prefetcher.dataset import DatasetError
from speckvctl.replay.traces import TraceError
from tests.unit.prefetcher.conftest import Sessions


def write(path: Path, *requests: dict[str, object]) -> Path:
    base = {"input_length": 100, "output_length": 9}
    path.write_text("".join(json.dumps({**base, **request}) + "\n" for request in requests), encoding="ascii")
    return path


def test_sessions_are_found_by_their_blocks_and_returns_by_the_first_turn_that_continues(tmp_path: Path) -> None:
    data = dataset.read(
        write(
            tmp_path / "t",
            {"timestamp": 3000, "hash_ids": [7, 8, 9]},  # out of order
            {"timestamp": 0, "hash_ids": [7, 8]},
            {"timestamp": 5000, "hash_ids": [1]},
            {"timestamp": 9000, "hash_ids": [7, 8, 9, 4]},
        )
    )
    assert data.times.tolist() == [0, 3, 5, 9]
    assert data.parent.tolist() == [-1, 0, -1, 1]
    assert data.returned.tolist() == [3, 9, np.inf, np.inf]
    assert data.stored.tolist() == [0, 2, 0, 3]
    assert data.block_ids.tolist() == [7, 8, 9, 1, 4]
    assert features.turns(data.parent).tolist() == [0, 1, 0, 2]


def test_every_session_of_a_trace_is_found_again(sessions: Sessions) -> None:
    path = sessions(fleet=True)
    data = dataset.read(path)
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    last: dict[str, int] = {}
    expected = []
    for number, line in enumerate(lines):
        expected.append(last.get(line["session_id"], -1))
        last[line["session_id"]] = number
    assert data.parent.tolist() == expected


@pytest.mark.parametrize("begin", [3_600_000, 1_733_054_400_000])
def test_where_the_clock_began_changes_nothing(sessions: Sessions, tmp_path: Path, begin: int) -> None:
    path = sessions()
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    first = lines[0]["timestamp"]
    here = dataset.read(write(tmp_path / "zero", *({**line, "timestamp": line["timestamp"] - first} for line in lines)))
    there = dataset.read(
        write(tmp_path / "late", *({**line, "timestamp": line["timestamp"] + begin} for line in lines))
    )
    assert np.array_equal(here.times, there.times) and here.end == there.end
    assert np.array_equal(features.matrix(here), features.matrix(there))


def test_lines_out_of_order_are_counted(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [{"timestamp": time, "hash_ids": [time]} for time in (5, 9, 7, 8, 3)]
    assert dataset.read(write(tmp_path / "t", *lines)).moved == 3
    assert dataset.read(write(tmp_path / "u", *lines[:2])).moved == 0


def test_renaming_every_block_changes_nothing(sessions: Sessions, tmp_path: Path) -> None:
    path = sessions()
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    renamed = [{**line, "hash_ids": [id * 2654435761 % 2**61 for id in line["hash_ids"]]} for line in lines]
    other = write(tmp_path / "renamed.jsonl", *renamed)
    assert np.array_equal(features.matrix(dataset.read(path)), features.matrix(dataset.read(other)))


def test_features_of_a_turn_know_nothing_of_its_own_answer_or_of_later_turns(
    sessions: Sessions, tmp_path: Path
) -> None:
    path = sessions(fleet=True)
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    here = len(lines) // 2
    lines[here] |= {"output_length": 12345, "stop": "end_turn", "api_time": 99.0}
    cut = write(tmp_path / "cut.jsonl", *lines[: here + 1])
    assert np.array_equal(features.matrix(dataset.read(path))[: here + 1], features.matrix(dataset.read(cut)))


def test_features_are_the_named_numbers(tmp_path: Path) -> None:
    answer = {"session_id": "s", "stop": "tool_use", "api_time": 4.0, "output_length": 20}
    data = dataset.read(
        write(
            tmp_path / "t",
            {"timestamp": 0, "hash_ids": [1, 2], **answer},
            {"timestamp": 7000, "hash_ids": [1, 2, 3], **answer},
            {"timestamp": 100_000, "hash_ids": [1, 2, 3, 4, 5], **answer, "input_length": 999},
        )
    )
    row = dict(zip(features.NAMES, features.matrix(data)[2].tolist(), strict=True))
    expected = {
        "continues": 1,
        "log_gap_s": np.log1p(93),
        "log_last_gap_s": np.log1p(7),
        "log_blocks": np.log1p(5),
        "log_new_blocks": np.log1p(2),
        "reused_share": 1.0,
        "log_input_tokens": np.log1p(999),
        "log_turn": np.log1p(2),
        "log_load": 0.0,
        "log_last_output_tokens": np.log1p(20),
        "last_stop_tool_use": 1,
        "last_stop_end_turn": 0,
        "last_stop_other": 0,
        "log_last_answer_s": np.log1p(4),
    }
    assert row == pytest.approx(expected)


def test_what_the_end_cuts_off_counts_for_the_part_of_the_bin_that_was_seen(tmp_path: Path) -> None:
    data = dataset.read(
        write(
            tmp_path / "t",
            {"timestamp": 0, "hash_ids": [1]},
            {"timestamp": 4000, "hash_ids": [1, 2]},  # the first came back in the second bin, 3 to 6 s
            {"timestamp": 12_000, "hash_ids": [9]},
        )
    )
    event, risk = survival.labels(data, 12.0)
    assert event[0].tolist() == [0, 1, *[0] * 20]
    assert risk[0].tolist() == [1, 1, *[0] * 20]
    # 8 s without a return: two whole bins and half of 6 to 10 s.
    assert (event[1].sum(), risk[1].tolist()) == (0, [1, 1, 0.5, *[0] * 19])
    assert risk[2].sum() == 0
    # Until 3.5 s nobody had seen the return.
    event, risk = survival.labels(data, 3.5)
    assert event.sum() == 0
    assert risk[0] == pytest.approx([1, 0.5 / 3, *[0] * 20])


def test_of_a_constant_rate_the_age_only_curve_finds_the_rate(tmp_path: Path) -> None:
    # 2,000 sessions, one return each after an exponential time of 20 s, cut off at 50 s: short of most bins.
    rng = np.random.default_rng(5)
    requests: list[dict[str, object]] = []
    for session, (begin, gap) in enumerate(zip(rng.uniform(0, 50, 2000), rng.exponential(20, 2000), strict=True)):
        for turn, time in enumerate((begin, begin + gap)):
            if time < 50:
                requests.append({"timestamp": 1000 * time, "hash_ids": [session, *([10**6 + session] * turn)]})
    requests.sort(key=lambda request: float(str(request["timestamp"])))
    data = dataset.read(write(tmp_path / "t", *requests))
    event, risk = survival.labels(data, 50.0)
    first = data.parent < 0
    hazards = survival.age_hazards(event[first], risk[first])
    expected = 1 - np.exp(-np.diff(survival.EDGES) / 20)
    assert hazards[:7] == pytest.approx(expected[:7], rel=0.25)


def test_a_trace_without_one_clock_or_without_anything_is_refused(tmp_path: Path) -> None:
    session = {"id": "a", "hash_id_scope": "local", "block_size": 64, "requests": [{"t": 0, "hash_ids": [1]}]}
    path = tmp_path / "sessions.jsonl"
    path.write_text(json.dumps(session) + "\n", encoding="ascii")
    with pytest.raises(DatasetError, match="clock of its own"):
        dataset.read(path)
    with pytest.raises(DatasetError, match="no block id"):
        dataset.read(write(tmp_path / "t", {"timestamp": 0, "hash_ids": []}))
    (tmp_path / "empty").write_text("", encoding="ascii")
    with pytest.raises(TraceError):
        dataset.read(tmp_path / "empty")


def test_shares_of_the_last_turn_are_rounded_and_bounded_as_the_model_takes_them() -> None:
    values = np.array([[0.0, 1.0, 100.0, -100.0, 0.5]])
    assert features.quantise(values, np.zeros(5), np.ones(5)).tolist() == [[0, 32, 127, -127, 16]]

# SPDX-License-Identifier: MIT
"""The frame of acceptance: nothing passes that did not reach its bar."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.accept import run as accept
from tests.accept.frame import (
    FAILED,
    Bar,
    Figure,
    NotMeasuredError,
    Outcome,
    Point,
    Row,
    Runner,
    Verdict,
    at_least,
    below,
    evaluate,
    exactly,
    judge,
)
from tests.accept.suites import foundation, trust
from tests.bench import eviction


def number(outcome: Outcome) -> Figure:
    return Figure(float(outcome.find(r"^figure (\S+)$")[1]))


def point(bar: Bar | None = None, *, command: str = "true", slow: bool = False, optional: bool = False) -> Point:
    return Point("a promise", command, number, bar, slow, optional)


def outcome(stdout: str, status: int = 0) -> Outcome:
    return Outcome(status, stdout, "", 0.1)


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (at_least(0.8), 0.8, Verdict.PASS),
        (at_least(0.8), 0.799, Verdict.MISS),
        (below(150), 149.9, Verdict.PASS),
        (below(150), 150, Verdict.MISS),
        (exactly(0), 0, Verdict.PASS),
        (exactly(0), 1, Verdict.MISS),
        (None, 7, Verdict.SHOWN),
    ],
)
def test_a_figure_passes_only_where_it_reaches_the_bar(bar: Bar | None, value: float, verdict: Verdict) -> None:
    assert judge(point(bar), outcome(f"figure {value}\n")).verdict == verdict


def test_a_figure_that_is_not_there_is_not_a_pass() -> None:
    row = judge(point(exactly(0)), outcome("nothing of the kind\n"))
    assert row.verdict == Verdict.NOT_MEASURED and row.verdict in FAILED and row.figure is None
    assert "no /" in row.note


def test_a_good_figure_of_a_command_that_failed_is_a_miss() -> None:
    row = judge(point(at_least(1)), outcome("".join(f"line {i}\n" for i in range(30)) + "figure 5\n", status=3))
    assert row.verdict == Verdict.MISS and "exit status 3" in row.note
    shown = accept.table([row])
    assert "| figure 5" in shown and "| line 29" in shown and "| line 9" not in shown
    assert not judge(point(at_least(1)), outcome("figure 5\n")).tail


def test_output_of_another_shape_is_not_a_pass_and_not_a_crash() -> None:
    assert judge(point(at_least(1)), outcome("figure five\n")).verdict == Verdict.NOT_MEASURED


def test_an_optional_point_is_left_out_only_by_a_command_that_succeeded() -> None:
    assert judge(point(at_least(1), optional=True), outcome("")).verdict == Verdict.LEFT_OUT
    assert judge(point(at_least(1), optional=True), outcome("", status=1)).verdict == Verdict.NOT_MEASURED


def test_a_missing_tool_is_not_a_pass(tmp_path: Path) -> None:
    rows = evaluate([point(at_least(0), command="no-such-tool-of-speckv")], Runner(logs=tmp_path))
    assert [row.verdict for row in rows] == [Verdict.NOT_MEASURED]
    assert "exit status 127" in rows[0].note


def test_a_command_that_hangs_is_ended_and_not_a_pass(tmp_path: Path) -> None:
    rows = evaluate(
        [Point("a promise", "echo figure 1; sleep 1000", number, at_least(0), minutes=0)], Runner(logs=tmp_path)
    )
    assert rows[0].verdict in FAILED
    assert "exit status 124" in rows[0].note


def test_a_command_runs_once_for_all_points_that_read_it_and_leaves_a_log(tmp_path: Path) -> None:
    command = f"echo once >>{tmp_path}/ran; echo figure 4"
    rows = evaluate([point(exactly(4), command=command), point(at_least(5), command=command)], Runner(logs=tmp_path))
    assert [row.verdict for row in rows] == [Verdict.PASS, Verdict.MISS]
    assert (tmp_path / "ran").read_text() == "once\n"
    assert "figure 4" in (tmp_path / "01.log").read_text()


def test_what_make_was_told_of_suites_is_not_told_to_the_makes_of_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SUITE", "foundation")
    monkeypatch.setenv("MAKEFLAGS", " -- SUITE=foundation")
    rows = evaluate([point(exactly(4), command="echo figure ${SUITE-${MAKEFLAGS-4}}")], Runner(logs=tmp_path))
    assert [row.verdict for row in rows] == [Verdict.PASS]


def test_skipped_slow_points_are_neither_run_nor_passed() -> None:
    def never(command: str, minutes: int) -> Outcome:
        raise AssertionError(command)

    assert [row.verdict for row in evaluate([point(None)], never, lambda point: "slow")] == [Verdict.NOT_RUN]


def test_the_exit_status_is_one_for_a_single_miss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(accept, "Runner", lambda environment, announce: Runner(environment, tmp_path, announce))
    good, bad = point(exactly(4), command="echo figure 4"), point(exactly(4), command="echo figure 5")
    monkeypatch.setattr(foundation, "POINTS", [good])
    assert accept.main(["--suite", "foundation"]) == 0
    monkeypatch.setattr(foundation, "POINTS", [good, bad])
    capsys.readouterr()
    assert accept.main(["--suite", "foundation", "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["pass"] for row in rows] == [True, False]
    assert {key: rows[1][key] for key in ("command", "figure", "bar")} == {
        "command": "echo figure 5",
        "figure": 5,
        "bar": "== 4",
    }


def test_a_row_shows_promise_command_figure_bar_and_verdict() -> None:
    text = accept.table([Row(point(at_least(3e6), command="make bench"), Verdict.MISS, Figure(2.5e6, "keys/s"))])
    for part in ("a promise", "$ make bench", "2.50 M keys/s", ">= 3.00 M", "MISS"):
        assert part in text


def test_every_suite_has_points_and_their_commands_are_one_line() -> None:
    assert "foundation" in accept.suites()
    for suite in accept.suites():
        for each in accept.points(suite):
            assert each.text and each.command and "\n" not in each.command, each


# -- how the foundation reads its figures


@pytest.mark.parametrize(
    ("last", "failed"),
    [("3 passed in 0.1s", 0), ("1 failed, 3 passed, 2 deselected in 0.1s", 1), ("1 passed, 2 errors in 0.1s", 2)],
)
def test_failures_of_pytest_are_counted(last: str, failed: int) -> None:
    assert foundation.pytest_failures(outcome(f"..\n{last}\n")).value == failed


@pytest.mark.parametrize("last", ["4 deselected in 0.1s", "2 skipped in 0.1s", "no tests ran in 0.1s"])
def test_a_pytest_run_without_a_test_is_not_measured(last: str) -> None:
    with pytest.raises(NotMeasuredError):
        foundation.pytest_failures(outcome(f"{last}\n"))


def test_failures_of_meson_are_counted_and_a_skip_is_not_a_pass() -> None:
    assert foundation.meson_failures(outcome("Ok:                1\nFail:              2\n")).value == 2
    with pytest.raises(NotMeasuredError):
        foundation.meson_failures(outcome("Ok:                0\nFail:              0\nSkipped:           1\n"))


def test_the_final_table_of_make_test_is_read() -> None:
    rows = "c   10   0   1   12.5\nunit/build  3  0  0  1.5\n"
    text = f"\nsuite passed\n{rows}skipped: c: no such device\n13 passed, 0 failed, 1 skipped\n"
    assert foundation.table_seconds(outcome(text)).value == 14.0
    assert foundation.skips_without_reason(outcome(text)).value == 0
    assert foundation.skips_without_reason(outcome(text.replace("no such device", ""))).value == 1


def test_a_bare_root_that_was_not_tested_did_not_pass() -> None:
    other = "test-bare: ubuntu noble: not tested: this machine's mirror does not have it\n"
    text = f"test-bare: debian bookworm: passed\n{other}"
    assert foundation.roots_passed(outcome(text)).value == 1
    assert foundation.roots_failed(outcome(text)).value == 0
    with pytest.raises(NotMeasuredError):
        foundation.roots_passed(outcome("test-bare: needs root\n", 1))


def test_a_peer_that_was_skipped_gives_its_reason() -> None:
    document = {"figures": [], "skipped": {"lmcache_get": "ImportError: lmcache"}}
    with pytest.raises(NotMeasuredError, match="lmcache_get: ImportError"):
        foundation.bench("python_get_vs_lmcache", "x")(outcome(json.dumps(document)))


def test_a_comparison_that_printed_no_figure_is_not_measured() -> None:
    with pytest.raises(NotMeasuredError, match="no row"):
        trust.slowest(outcome("against: building\n"))
    with pytest.raises(NotMeasuredError, match="no row"):
        trust.of_lru(outcome(""))


def test_programs_that_are_not_there_or_cannot_be_tried_are_not_measured() -> None:
    for text in ("F*.sh ended 127\n", "F01-a.sh ended 77\nF02-b.sh ended 77\n"):
        with pytest.raises(NotMeasuredError):
            trust.not_handled(outcome(text))
    assert trust.not_handled(outcome("F01-a.sh ended 0\nF02-b.sh ended 77\n")).value == 0
    assert trust.not_handled(outcome("F01-a.sh ended 0\nF02-b.sh ended 124\n")).note == "F02"


@pytest.mark.parametrize(("counted", "code"), [(0.5, 0), (0.4999, 1), (0.5001, 1)])
def test_a_pool_that_counts_other_than_it_serves_fails_the_benchmark(
    counted: float, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = [(b"a", b"b")]
    monkeypatch.setattr("sys.argv", ["eviction.py", "--sizes", "0.5"])
    monkeypatch.setattr(eviction, "loop", lambda: chains)
    monkeypatch.setattr(eviction, "turns", lambda: chains)
    monkeypatch.setattr(eviction, "served_by_pool", lambda *_: (1, 16, counted))
    assert eviction.main() == code

# SPDX-License-Identifier: MIT
"""Acceptance points: a promise, the command that measures it, the figure in its output, the bar.

A row passes only if its command succeeded, its figure was found, and the figure reaches the bar. A row that was not
measured never passes. A suite is a module of tests/accept/suites with a list `POINTS`.
"""

from __future__ import annotations

import operator
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOGS = ROOT / "build" / "accept"


class NotMeasuredError(Exception):
    """The figure is not in the output; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number; `note` qualifies it."""

    value: float
    unit: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.value >= 1e6:
            return f"{self.value / 1e6:.2f} M {self.unit}".rstrip()
        text = f"{self.value:.0f}" if self.value == int(self.value) else f"{self.value:.2f}"
        return f"{text} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar for a figure. `relation` is one of RELATIONS."""

    relation: str
    value: float

    def reached(self, figure: Figure) -> bool:
        return RELATIONS[self.relation](figure.value, self.value)

    def __str__(self) -> str:
        return f"{self.relation} {Figure(self.value)}"


RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
}


def at_least(value: float) -> Bar:
    return Bar(">=", value)


def below(value: float) -> Bar:
    return Bar("<", value)


def exactly(value: float) -> Bar:
    return Bar("==", value)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a command."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def output(self) -> str:
        return f"{self.stdout}\n{self.stderr}"

    def find(self, pattern: str) -> re.Match[str]:
        """The last match of a regular expression in the output."""
        found = list(re.finditer(pattern, self.output, re.MULTILINE))
        if not found:
            raise NotMeasuredError(f"no /{pattern}/ in the output")
        return found[-1]


TAIL_LINES = 12  # of a failed command
#: Variables of the enclosing `make accept SUITE=x`, removed for a `make` that a row runs.
OF_MAKE = frozenset({"SUITE", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"})


@dataclass(frozen=True, slots=True)
class Point:
    """One row. `bar` None: the figure is shown, no bar was promised. `optional`: not measured is not a miss."""

    text: str
    command: str
    measure: Callable[[Outcome], Figure]
    bar: Bar | None
    slow: bool = False
    optional: bool = False
    minutes: int = 20


class Verdict(StrEnum):
    PASS = "pass"
    MISS = "MISS"
    SHOWN = "shown"  # no bar
    NOT_MEASURED = "NOT MEASURED"
    LEFT_OUT = "left out"  # optional, and not measured
    NOT_RUN = "not run"  # left out by the caller


FAILED = frozenset({Verdict.MISS, Verdict.NOT_MEASURED})


@dataclass(frozen=True, slots=True)
class Row:
    point: Point
    verdict: Verdict
    figure: Figure | None = None
    note: str = ""
    seconds: float = 0.0
    #: The end of the output of a command that failed: a log of a machine that is gone cannot be read.
    tail: tuple[str, ...] = ()


def judge(point: Point, outcome: Outcome) -> Row:
    """A row from its command's result."""
    tail = tuple(outcome.output.rstrip().splitlines()[-TAIL_LINES:]) if outcome.status else ()
    try:
        figure = point.measure(outcome)
    except (NotMeasuredError, ValueError, LookupError, TypeError) as error:  # output of a different shape
        why = str(error) if isinstance(error, NotMeasuredError) else f"{type(error).__name__}: {error}"
        if outcome.status:
            why = f"exit status {outcome.status}: {why}"
        verdict = Verdict.LEFT_OUT if point.optional and not outcome.status else Verdict.NOT_MEASURED
        return Row(point, verdict, None, why, outcome.seconds, tail)
    if outcome.status:
        note = f"exit status {outcome.status}" + (f"; {figure.note}" if figure.note else "")
        return Row(point, Verdict.MISS, figure, note, outcome.seconds, tail)
    if point.bar is None:
        return Row(point, Verdict.SHOWN, figure, figure.note, outcome.seconds)
    verdict = Verdict.PASS if point.bar.reached(figure) else Verdict.MISS
    return Row(point, verdict, figure, figure.note, outcome.seconds)


@dataclass(slots=True)
class Runner:
    """Runs each command once, however many points read it, and keeps its output in build/accept."""

    environment: Mapping[str, str] = field(default_factory=dict)
    logs: Path = LOGS
    announce: Callable[[str], None] = lambda text: None
    done: dict[str, Outcome] = field(default_factory=dict)

    def __call__(self, command: str, minutes: int) -> Outcome:
        if command not in self.done:
            self.announce(command)
            self.done[command] = outcome = self._run(command, minutes)
            self.logs.mkdir(parents=True, exist_ok=True)
            log = self.logs / f"{len(self.done):02}.log"
            log.write_text(f"$ {command}\n{outcome.output}\nexit status {outcome.status}\n")
        return self.done[command]

    def _run(self, command: str, minutes: int) -> Outcome:
        start = time.monotonic()
        with (
            tempfile.TemporaryFile("w+", errors="replace") as out,
            tempfile.TemporaryFile("w+", errors="replace") as err,
        ):
            process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=ROOT,
                env={k: v for k, v in os.environ.items() if k not in OF_MAKE} | dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
            late = ""
            try:
                status = process.wait(minutes * 60)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                status, late = 124, f"\nended after {minutes} minutes\n"
            out.seek(0)
            err.seek(0)
            return Outcome(status, out.read(), err.read() + late, time.monotonic() - start)


def evaluate(
    points: Sequence[Point], run: Callable[[str, int], Outcome], leave_out: Callable[[Point], str] = lambda point: ""
) -> list[Row]:
    """A row for every point, in order. `leave_out` says why one is not run, or nothing."""
    return [
        Row(point, Verdict.NOT_RUN, note=why)
        if (why := leave_out(point))
        else judge(point, run(point.command, point.minutes))
        for point in points
    ]

# SPDX-License-Identifier: MIT
"""Warnings, confirmation and progress. All goes to stderr; stdout carries data only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from speckvctl.errors import ConfirmationError
from speckvctl.render.text import one_line, room, wrapped

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ProgressCallback = Callable[[int, int], None]

#: A shorter call shows no bar.
PATIENCE_SECONDS = 0.7


def note(text: str) -> None:
    sys.stderr.write(f"speckvctl: {one_line(text)}\n")
    sys.stderr.flush()


def note_sorted(trace: str, moved: int) -> None:
    """Report that a trace's requests had to be sorted, if so."""
    if moved:
        note(f"{trace}: {moved:,} requests were out of order, and were sorted by time")


def confirm(loss: str, *, yes: bool, as_json: bool, command: str) -> None:
    """Require confirmation of a loss: --yes, as in `command`, or yes typed at the prompt.

    Without a terminal on both ends, and with --json, there is no question: the verb is refused and names --yes.
    """
    if yes:
        return
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfirmationError(f"{loss}; nothing was changed", command)
    said = one_line(loss)
    lines = wrapped(f"{said[:1].upper()}{said[1:]}.", room(sys.stderr))
    sys.stderr.write("\n".join(lines) + "\nGo on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfirmationError("not confirmed; nothing was changed")


class _Bar:
    """A progress bar that appears once the call has taken a while."""

    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._started = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._progress is None:
            if time.monotonic() - self._started < PATIENCE_SECONDS or not sys.stderr.isatty():
                return
            self._progress = self._make()
            self._task = self._progress.add_task(self._title, total=total or None)
            self._progress.start()
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total or None)

    def _make(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(self._unit),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()


@contextmanager
def progress(title: str, unit: str = "") -> Iterator[ProgressCallback]:
    """A callback(done, total) for a long call of the library."""
    bar = _Bar(title, unit)
    try:
        yield bar
    finally:
        bar.stop()

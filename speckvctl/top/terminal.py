# SPDX-License-Identifier: MIT
"""The loop that holds a terminal: keys in, frames out, a tick when its time has come.

The terminal is restored on every exit: key, exception, signal, stop by Ctrl-Z. Signals only wake the loop, by a byte in
a pipe; they are handled between two frames.
"""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from speckvctl import results
from speckvctl.errors import UsageError
from speckvctl.top import views
from speckvctl.top.keys import Decoder
from speckvctl.top.model import Model
from speckvctl.top.state import Action, State

#: Alternate screen, no cursor, no wrapping at the right edge; and the reverse.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l"
#: Time after an escape in which a sequence may continue.
_ESCAPE_SECONDS = 0.05
_FATAL = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HEARD = (*_FATAL, signal.SIGINT, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
#: For terminals without UTF-8.
_ASCII = str.maketrans("▁▂▃▄▅▆▇█…▲▼", "_.,-~=*#~^v")

Record = Callable[[results.Top], None]


def require() -> None:
    instead = "speckvctl top --once, or speckvctl top --json"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal", instead)
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        raise UsageError("top needs a terminal with a cursor; TERM names none", instead)


class Screen:
    """Lines on a terminal; only changed ones are written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoding = sys.stdout.encoding or "utf-8"
        self._shown: list[str] = []
        self._size = (0, 0)
        self._buffer = io.StringIO()
        plain = bool(os.environ.get("NO_COLOR"))
        self._console = Console(
            file=self._buffer,
            force_terminal=True,
            no_color=plain,  # keep bold, underline and reverse: they mark the selection
            color_system="standard" if plain else "auto",
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )

    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 x 24 if the terminal reports no size."""
        try:
            columns, lines = os.get_terminal_size(self._descriptor)
        except OSError:
            columns, lines = 0, 0
        return (columns, lines) if columns > 0 and lines > 0 else (80, 24)

    def show(self, lines: list[Text], size: tuple[int, int]) -> None:
        out = ""
        if size != self._size:
            self._size, self._shown = size, []
            out = "\x1b[0m\x1b[2J"
        drawn = [self._render(line) for line in lines]
        for row, text in enumerate(drawn):
            if row >= len(self._shown) or self._shown[row] != text:
                out += f"\x1b[{row + 1};1H{text}"
        self._shown = drawn
        self.write(out)

    def enter(self) -> None:
        self._size = (0, 0)
        self.write(_ENTER)

    def leave(self) -> None:
        self.write(_LEAVE)

    def write(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        if "utf" not in self._encoding.lower():
            data = text.translate(_ASCII).encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    def _render(self, line: Text) -> str:
        self._buffer.seek(0)
        self._buffer.truncate()
        self._console.print(line, end="", no_wrap=True, overflow="ignore", crop=False)
        return self._buffer.getvalue()


class Signals:
    """Writes signals to a pipe, to wake select()."""

    def __init__(self) -> None:
        self.descriptor, self._in = os.pipe()
        for end in (self.descriptor, self._in):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _nothing) for number in _HEARD}

    def take(self) -> set[int]:
        try:
            return set(os.read(self.descriptor, 512))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.descriptor)
        os.close(self._in)

    @staticmethod
    def pass_on(number: int) -> None:
        """Apply the signal's default action."""
        handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, handler)  # after a stop signal: reached on SIGCONT


def _nothing(number: int, frame: FrameType | None) -> None:
    """No action: the wakeup fd carries the signal."""


def run(model: Model, chosen: State, *, interval: float, count: int | None, record: Record) -> None:
    """Run until a quit key, a signal or `count` ticks. A fatal signal ends the process after clean-up."""
    keyboard, screen = sys.stdin.fileno(), Screen(sys.stdout.fileno())
    signals = Signals()
    fatal: int | None = None
    try:
        before = termios.tcgetattr(keyboard)
        try:
            _take_over(keyboard)
            screen.enter()
            fatal = _Loop(model, chosen, screen, signals, keyboard, before, interval, count, record).run()
        finally:
            try:
                screen.leave()
                termios.tcsetattr(keyboard, termios.TCSANOW, before)
            except (OSError, termios.error):
                pass  # the terminal is gone
    finally:
        signals.close()
    if fatal is not None:
        Signals.pass_on(fatal)


def _take_over(keyboard: int) -> None:
    """Enter raw key input. Reads do not block: Ctrl-C may flush input that select() has reported."""
    tty.setcbreak(keyboard, termios.TCSANOW)
    modes = termios.tcgetattr(keyboard)
    modes[6][termios.VMIN] = 0
    termios.tcsetattr(keyboard, termios.TCSANOW, modes)


def _gone(keyboard: int) -> bool:
    poll = select.poll()
    poll.register(keyboard, select.POLLIN)
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


class _Loop:
    def __init__(
        self,
        model: Model,
        chosen: State,
        screen: Screen,
        signals: Signals,
        keyboard: int,
        before: list[Any],
        interval: float,
        count: int | None,
        record: Record,
    ) -> None:
        self.model, self.chosen, self.screen, self.signals = model, chosen, screen, signals
        self.keyboard, self.before = keyboard, before
        self.interval, self.count, self.record = interval, count, record
        self.decoder = Decoder()
        self.document = self._tick()

    def run(self) -> int | None:
        """Returns the fatal signal that ended it; None: a key did."""
        self._draw()
        due = time.monotonic() + self.interval
        while True:
            timeout = _ESCAPE_SECONDS if self.decoder.waiting else None
            if timeout is None and not self.chosen.paused:
                timeout = max(0.0, due - time.monotonic())
            ready, _, _ = select.select([self.keyboard, self.signals.descriptor], [], [], timeout)
            keys: list[str] = []
            if self.keyboard in ready:
                data = os.read(self.keyboard, 4096)
                if not data and _gone(self.keyboard):
                    return signal.SIGHUP
                keys += self.decoder.feed(data)
            elif not ready and self.decoder.waiting:
                keys += self.decoder.settle()
            if self.signals.descriptor in ready:
                heard = self.signals.take()
                fatal = next((number for number in _FATAL if number in heard), None)
                if fatal is not None:
                    return fatal
                keys += ["ctrl-c"] if signal.SIGINT in heard else []
                self._stop(heard)
            wishes = {self.chosen.press(key, self.document) for key in keys}
            if Action.QUIT in wishes:
                return None
            if Action.TICK in wishes or (not self.chosen.paused and time.monotonic() >= due):
                if self.count is not None and self.document.tick >= self.count:
                    return None
                self.document = self._tick()
                due = time.monotonic() + self.interval
                wishes.add(Action.DRAW)
            if Action.DRAW in wishes or self.signals.descriptor in ready:
                self._draw()

    def _tick(self) -> results.Top:
        document = self.model.tick()
        self.record(document)
        return document

    def _draw(self) -> None:
        size = self.screen.size()
        lines = views.frame(self.document, self.chosen, self.model.trends, list(self.model.events), *size)
        self.screen.show(lines, size)

    def _stop(self, heard: set[int]) -> None:
        """Ctrl-Z: restore the terminal and stop; take it again on SIGCONT."""
        if signal.SIGTSTP in heard:
            self.screen.leave()
            termios.tcsetattr(self.keyboard, termios.TCSANOW, self.before)
            self.signals.pass_on(signal.SIGTSTP)
        if heard & {signal.SIGTSTP, signal.SIGCONT}:
            _take_over(self.keyboard)
            self.screen.enter()

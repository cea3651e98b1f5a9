# SPDX-License-Identifier: MIT
"""A terminal for full-screen programs: a pty, key input, and an emulator of the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyte

#: A hang must end; no test asserts a time.
PATIENCE_SECONDS = 60.0

KEYS = {
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "delete": "\x1b[3~",
    "page-up": "\x1b[5~",
    "page-down": "\x1b[6~",
    "back-tab": "\x1b[Z",
    "tab": "\t",
    "enter": "\r",
    "escape": "\x1b",
    "backspace": "\x7f",
    "ctrl-c": "\x03",
}


class Terminal:
    """Runs a command with the pty as its controlling terminal."""

    def __init__(self, command: Sequence[object], folder: Path, columns: int, lines: int, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = b""
        """Everything that the command wrote."""
        self._set_size(columns, lines)
        self.modes = termios.tcgetattr(theirs)
        """As the terminal was before the command had it."""
        self._theirs = theirs
        plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        env = {**plain, "TERM": "xterm-256color", "LANG": "C.UTF-8", **variables}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for descriptor in (self._ours, self._theirs):
            if descriptor >= 0:
                os.close(descriptor)

    # -- the screen

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def marked(self) -> list[str]:
        """Lines whose first cell is in reverse."""
        return [line for row, line in enumerate(self.lines) if self.screen.buffer[row][0].reverse]

    # -- input

    def press(self, *keys: str) -> None:
        """Keys by name, or text."""
        os.write(self._ours, "".join(KEYS.get(key, key) for key in keys).encode())

    def resize(self, columns: int, lines: int) -> None:
        """Resize the pty; the kernel sends SIGWINCH."""
        self.screen.resize(lines, columns)
        self.screen.reset()
        self._set_size(columns, lines)

    def until(self, seen: Callable[[], Any], why: str = "") -> None:
        """Read until a text is visible, and to the end of that frame."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            if time.monotonic() > deadline or not self._read(0.1):
                raise AssertionError(
                    f"not seen: {why or seen}; exit code {self.process.poll()}; the screen:\n{self.text}"
                )

        while self._read(0.02, still=True):
            pass

    def see(self, *texts: str) -> None:
        self.until(lambda: all(text in self.text for text in texts), ", ".join(texts))

    def hang_up(self) -> None:
        """Close the terminal (SIGHUP)."""
        os.close(self._theirs)
        os.close(self._ours)
        self._ours = self._theirs = -1

    def end(self) -> int:
        """Read until EOF; returns the exit code."""
        while self.process.poll() is None:
            self._read(0.1)
        while self._read(0, still=True):
            pass
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal is restored: modes, cursor, main screen."""
        shown = all(self.sent.rfind(b"\x1b[?%dh" % mode) > self.sent.rfind(b"\x1b[?%dl" % mode) for mode in (25, 7))
        back = self.sent.rfind(b"\x1b[?1049l") > self.sent.rfind(b"\x1b[?1049h")
        return shown and back and termios.tcgetattr(self._theirs) == self.modes

    # -- internals

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self, seconds: float, *, still: bool = False) -> bool:
        """Read once. False: EOF; with `still`: or a timeout."""
        ready, _, _ = select.select([self._ours], [], [], seconds)
        if not ready:
            return not still and self.process.poll() is None
        data = os.read(self._ours, 65536)
        self.sent += data
        self._stream.feed(data)
        return True

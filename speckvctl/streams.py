# SPDX-License-Identifier: MIT
"""Standard input, output and error, made usable whatever state they were inherited in.

A failed write to stdout is one clear error, as with cat; a closed pipe ends the program silently; failed writes to
stderr are ignored. Characters that the terminal's encoding lacks are written as escapes.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import typer

from speckvctl.errors import CliError
from speckvctl.exitcodes import OUTPUT_CLOSED


def prepare() -> None:
    """Make the three streams usable; CliError if stdout is closed. Streams that a caller replaced are left alone."""
    _hold_places()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    elif (given := sys.__stderr__) is sys.stderr and given is not None:
        sys.stderr = _Errors(_buffer(2), given.encoding, "backslashreplace", line_buffering=True)
    if sys.stdout is None:
        bad = os.strerror(errno.EBADF)
        raise CliError(f"standard output: {bad}; nothing was done", "the same with >/dev/null", errno.EBADF)
    if (given := sys.__stdout__) is sys.stdout and given is not None:
        sys.stdout = _Output(_buffer(1), given.encoding, "backslashreplace", line_buffering=given.isatty())


def _hold_places() -> None:
    """Occupy descriptors 0, 1 and 2, so that no file opened later gets one of them."""
    for number, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest number that is free


def _buffer(number: int) -> io.BufferedWriter:
    return io.BufferedWriter(io.FileIO(number, "w", closefd=False))


class _Output(io.TextIOWrapper):
    def write(self, text: str) -> int:
        with self._told():
            return super().write(text)

    def flush(self) -> None:
        with self._told():
            super().flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            _discard(self.fileno())
            if isinstance(exc, BrokenPipeError):
                raise typer.Exit(OUTPUT_CLOSED) from None
            number = exc.errno or errno.EIO
            raise CliError(f"standard output: {os.strerror(number)}", None, number) from exc


class _Errors(io.TextIOWrapper):
    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            _discard(self.fileno())
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            _discard(self.fileno())


def _discard(number: int) -> None:
    """Discard buffered output, so that the interpreter's flush at exit does not fail again."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)

# SPDX-License-Identifier: MIT
"""Readers of block traces. A trace is read line by line and checked strictly; a broken line is named with its number.

Formats, told apart by what the file holds, never by its name (plain, gzip or xz):

mooncake       one request a line: timestamp (ms), input_length, output_length, hash_ids. Ids are the file's.
fleet          the same with session_id.
weka-sessions  one session a line: id, hash_id_scope, requests[{t (s), hash_ids, ...}], sub-agents' requests nested.
               Ids are the session's own where the scope is "local"; every session has a clock of its own.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, NoReturn

MAX_LINE_BYTES = 64 << 20
MAX_IDS = 1 << 20
MAX_ID = (1 << 64) - 1
MAX_TIME_MS = 1e15
MAX_TEXT = 512


class TraceError(Exception):
    """A trace that cannot be used: the file, the line and what is wrong with it."""

    errno = errno.EBADMSG

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if line is None else f"{path}: line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the chain of blocks that its prompt needs, the first one first."""

    line: int
    time_ms: float  # since the trace began, or since the session began
    session: str | None
    session_clock: bool  # time_ms counts from the session's beginning
    scope: str  # ids compare only within one scope; empty: the whole file
    ids: tuple[int, ...]
    input_tokens: int = 0
    output_tokens: int = 0
    stop: str | None = None  # why the answer ended, where the trace says so
    answer_ms: float | None = None  # time until it ended, where the trace says so


@dataclass(frozen=True, slots=True)
class Survey:
    """A whole trace, read and checked."""

    requests: int
    blocks: int


class Trace:
    """A trace file. Iterating reads it from the start; nothing but the current line is held in memory."""

    def __init__(self, path: str | Path, *, until_ms: float | None = None) -> None:
        self.path = Path(path)
        self.until_ms = math.inf if until_ms is None else until_ms
        with _lines(self.path) as lines:
            first = next(lines, None)
            if first is None:
                raise TraceError(self.path, None, "empty: a trace has at least one request")
            self.format, self._parse = self._detect(*first)

    def __iter__(self) -> Iterator[Request]:
        with _lines(self.path) as lines:
            for number, text in lines:
                for request in self._parse(_Line(self.path, number, _loads(self.path, number, text))):
                    if request.time_ms <= self.until_ms:
                        yield request

    def survey(self, limit: int | None = None) -> Survey:
        """Read and check the whole trace, or its first requests; raises what is wrong with it."""
        requests = blocks = 0
        for request in islice(self, limit):
            requests += 1
            blocks += len(request.ids)
        if not requests:
            raise TraceError(self.path, None, "holds no request")
        return Survey(requests, blocks)

    def digest(self) -> bytes:
        """SHA-256 of the file: the scope of its block ids."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()

    def _detect(self, number: int, text: bytes) -> tuple[str, Callable[[_Line], Iterator[Request]]]:
        line = _Line(self.path, number, _loads(self.path, number, text))
        if "requests" in line.value and "hash_id_scope" in line.value:
            return "weka-sessions", _weka_session
        if "hash_ids" in line.value and "timestamp" in line.value:
            return ("fleet", _fleet) if "session_id" in line.value else ("mooncake", _mooncake)
        line.fail(
            "not a trace format that is known: mooncake and fleet lines have timestamp and hash_ids, "
            "weka-sessions lines have hash_id_scope and requests"
        )


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[tuple[int, bytes]]]:
    """The file's lines that are not blank, with their numbers, decompressed."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw, mode="rb") as unzipped:
                yield _bounded_lines(path, unzipped)
        elif magic == b"\xfd7zXZ\x00":
            with lzma.LZMAFile(raw, mode="rb") as unpacked:
                yield _bounded_lines(path, unpacked)
        elif magic[:4] == b"\x28\xb5\x2f\xfd":
            raise TraceError(path, None, "compressed with zstd: unpack it, or use gzip or xz")
        else:
            yield _bounded_lines(path, raw)


def _bounded_lines(path: Path, stream: IO[bytes] | gzip.GzipFile | lzma.LZMAFile) -> Iterator[tuple[int, bytes]]:
    for number in count(1):
        try:
            text = stream.readline(MAX_LINE_BYTES + 1)
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as exc:
            raise TraceError(path, number, f"the compressed data is damaged or cut short: {exc}") from exc
        if not text:
            return
        if len(text) > MAX_LINE_BYTES:
            raise TraceError(path, number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
        if text.strip():
            yield number, text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _loads(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise TraceError(path, number, f"not UTF-8 at byte {exc.start}") from exc
    except json.JSONDecodeError as exc:
        raise TraceError(path, number, f"not JSON: {exc.msg} at column {exc.colno}") from exc
    except (ValueError, RecursionError) as exc:
        raise TraceError(path, number, f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise TraceError(path, number, f"an object was expected, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


class _Line:
    """One line's object with checked access to its members; `where` names a part of it in errors."""

    def __init__(self, path: Path, number: int, value: dict[str, Any], where: str = "") -> None:
        self.path = path
        self.number = number
        self.value = value
        self.where = where

    def fail(self, reason: str) -> NoReturn:
        raise TraceError(self.path, self.number, self.where + reason)

    def member(self, name: str) -> Any:
        if name not in self.value:
            self.fail(f"{name} is missing")
        return self.value[name]

    def time(self, name: str) -> float:
        value = self.member(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{name}: a number was expected, not {_kind(value)}")
        if not (0 <= value <= MAX_TIME_MS and math.isfinite(value)):
            self.fail(f"{name}: {value} is not a time")
        return float(value)

    def count(self, name: str) -> int:
        value = self.member(name)
        if type(value) is not int or not 0 <= value <= MAX_ID:
            self.fail(f"{name}: a whole number from 0 was expected, not {_shown(value)}")
        return value

    def text(self, name: str) -> str:
        value = self.member(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            self.fail(f"{name}: text of 1 to {MAX_TEXT} characters was expected, not {_shown(value)}")
        return value

    def ids(self, name: str) -> tuple[int, ...]:
        value = self.member(name)
        if not isinstance(value, list):
            self.fail(f"{name}: a list of block ids was expected, not {_kind(value)}")
        if len(value) > MAX_IDS:
            self.fail(f"{name}: {len(value)} block ids, more than {MAX_IDS}")
        for index, block in enumerate(value):
            if type(block) is not int or not 0 <= block <= MAX_ID:
                self.fail(f"{name}[{index}]: a block id is a whole number from 0, not {_shown(block)}")
        return tuple(value)

    def parts(self, name: str) -> Iterator[_Line]:
        value = self.member(name)
        if not isinstance(value, list):
            self.fail(f"{name}: a list was expected, not {_kind(value)}")
        for index, part in enumerate(value):
            where = f"{self.where}{name}[{index}]: "
            if not isinstance(part, dict):
                raise TraceError(self.path, self.number, f"{where}an object was expected, not {_kind(part)}")
            yield _Line(self.path, self.number, part, where)


def _shown(value: object) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) and not isinstance(value, bool) else _kind(value)


def _mooncake(line: _Line) -> Iterator[Request]:
    yield Request(
        line=line.number,
        time_ms=line.time("timestamp"),
        session=line.text("session_id") if "session_id" in line.value else None,
        session_clock=False,
        scope="",
        ids=line.ids("hash_ids"),
        input_tokens=line.count("input_length"),
        output_tokens=line.count("output_length"),
        stop=line.text("stop") if line.value.get("stop") else None,
        answer_ms=1000 * line.time("api_time") if line.value.get("api_time") is not None else None,
    )


def _fleet(line: _Line) -> Iterator[Request]:
    line.text("session_id")
    yield from _mooncake(line)


def _weka_session(line: _Line) -> Iterator[Request]:
    session = line.text("id")
    scope = line.text("hash_id_scope")
    if scope not in ("local", "global"):
        line.fail(f"hash_id_scope: local or global was expected, not {_shown(scope)}")
    line.count("block_size")
    requests = [
        Request(line.number, seconds * 1000.0, session, True, session if scope == "local" else "", ids)
        for seconds, ids in _weka_requests(line, 0.0, depth=0)
    ]
    yield from sorted(requests, key=lambda request: request.time_ms)


def _weka_requests(line: _Line, start: float, depth: int) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Time in seconds since the session began, and ids, of a session's requests; a sub-agent's clock starts with it."""
    if depth > 8:
        line.fail("sub-agents nested more than 8 deep")
    for part in line.parts("requests"):
        time = start + part.time("t")
        if "requests" in part.value:
            yield from _weka_requests(part, time, depth + 1)
        else:
            yield time, part.ids("hash_ids")

# SPDX-License-Identifier: MIT
"""Readers of block traces. A trace is read line by line and checked strictly; a broken line is named with its number.

Formats, detected by the file's contents, never by its name (plain, gzip or xz, from a file or a pipe):

mooncake       one request a line: timestamp (ms), input_length, output_length, hash_ids. Ids are the file's.
fleet          the same with session_id.
weka-sessions  one session a line: id, hash_id_scope, requests[{t (s), hash_ids, ...}], sub-agents' requests nested.
               Ids are the session's own where the scope is "local"; every session has a clock of its own.

Times count from the first request, whatever the trace's first timestamp. Out-of-order lines are sorted and counted, so
that commands can report them.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import lzma
import math
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import IO, Any, NoReturn

from speckvctl import jsontext

MAX_LINE_BYTES = 64 << 20
MAX_IDS = 1 << 20
MAX_ID = (1 << 64) - 1
MAX_TIME_MS = 1e15
MAX_SPAN_MS = 1e12  # from the first request to the last: 31 years
MAX_TEXT = 512
MAX_BLANK_LINES = 1 << 16  # in a row
MAX_PIPE_BYTES = 4 << 30
MAX_XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB to unpack

_ACCEPTED = (
    "accepted are JSON lines (plain, gzip or xz): mooncake and fleet lines have timestamp and hash_ids, "
    "weka-sessions lines have hash_id_scope and requests"
)


class TraceError(Exception):
    """An unusable trace: the file, the line and the reason."""

    errno = errno.EBADMSG

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        super().__init__(f"{path}: {reason}" if line is None else f"{path}: line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the chain of its prompt's blocks, in order."""

    line: int
    time_ms: float  # since the start of the trace, or of the session
    session: str | None
    session_clock: bool  # time_ms counts from the session's beginning
    scope: str  # ids compare only within one scope; empty: the whole file
    ids: tuple[int, ...]
    input_tokens: int = 0
    output_tokens: int = 0
    stop: str | None = None  # stop reason of the response, if in the trace
    answer_ms: float | None = None  # time until the response ended, if in the trace


@dataclass(frozen=True, slots=True)
class Survey:
    """A whole trace, read and checked."""

    requests: int
    blocks: int
    moved: int = 0  # requests that were out of order and were sorted


class Trace:
    """A trace, opened once, so that later reads see the bytes that were checked. A pipe is spooled to a temporary file.

    Iterating reads it from the start; nothing but the current line is held in memory, unless lines must be sorted.
    """

    def __init__(self, path: str | Path, *, until_ms: float | None = None) -> None:
        self.path = Path("/dev/stdin" if str(path) == "-" else path)
        self.until_ms = math.inf if until_ms is None else until_ms
        self._file = _File(self.path)
        self._survey: Survey | None = None
        self._loaded: list[Request] | None = None
        self._origin_ms: float | None = None
        first = next(self._lines(), None)
        if first is None:
            raise TraceError(self.path, None, "empty: a trace has at least one request")
        self.format, self._parse = self._detect(*first)

    def __iter__(self) -> Iterator[Request]:
        """The requests up to until_ms, in the order of time, times counted from the first."""
        if self._survey is None:
            self.survey()
        for request in self._rebased() if self._loaded is None else self._loaded:
            if request.time_ms <= self.until_ms:
                yield request

    def survey(self, limit: int | None = None) -> Survey:
        """Read and check the whole trace, or its first requests; raises TraceError."""
        requests = blocks = moved = 0
        latest = -math.inf
        for request in self._rebased():
            if request.time_ms < latest and not request.session_clock:
                loaded, moved = self.load()
                reached = [len(request.ids) for request in loaded if request.time_ms <= self.until_ms][:limit]
                requests, blocks = len(reached), sum(reached)
                break
            latest = request.time_ms
            if request.time_ms <= self.until_ms:
                requests += 1
                blocks += len(request.ids)
                if requests == limit:
                    break
        if not requests:
            reach = "" if math.isinf(self.until_ms) else f" up to {self.until_ms:g} ms"
            raise TraceError(self.path, None, "holds no request" + reach)
        self._survey = Survey(requests, blocks, moved)
        return self._survey

    def load(self, on_request: Callable[[int], None] = lambda count: None) -> tuple[list[Request], int]:
        """All requests in the order of time, equal times as they came; and the number out of order."""
        loaded: list[Request] = []
        moved, latest = 0, -math.inf
        for request in self._rebased():
            loaded.append(request)
            moved += request.time_ms < latest and not request.session_clock
            latest = max(latest, request.time_ms)
            on_request(len(loaded))
        if moved:
            loaded.sort(key=lambda request: request.time_ms)
            first = loaded[0].time_ms
            loaded = [replace(request, time_ms=request.time_ms - first) for request in loaded]
            self._check_span(loaded[-1])
        self._loaded = loaded
        return loaded, moved

    def _rebased(self) -> Iterator[Request]:
        """Requests in file order, with times relative to the first."""
        for number, text in self._lines():
            for request in self._parse(_Line(self.path, number, _loads(self.path, number, text))):
                if request.session_clock:
                    yield request
                    continue
                if self._origin_ms is None:
                    self._origin_ms = request.time_ms
                rebased = replace(request, time_ms=request.time_ms - self._origin_ms)
                self._check_span(rebased)
                yield rebased

    def _check_span(self, request: Request) -> None:
        if request.time_ms > MAX_SPAN_MS:
            years = request.time_ms / 31_557_600_000
            reason = f"timestamp: {years:,.0f} years after the first request; it is in milliseconds"
            raise TraceError(self.path, request.line, reason)

    def digest(self) -> bytes:
        """SHA-256 of the file: the scope of its block ids."""
        return hashlib.file_digest(io.BufferedReader(_At(self._file)), "sha256").digest()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, with their numbers, decompressed."""
        raw = io.BufferedReader(_At(self._file))
        magic = raw.peek(6)[:6]
        if magic[:2] == b"\x1f\x8b":
            return _bounded_lines(self.path, gzip.GzipFile(fileobj=raw, mode="rb"))
        if magic == b"\xfd7zXZ\x00":
            return _bounded_lines(self.path, io.BufferedReader(_Unpacked(raw)))
        for mark, name in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"PK\3\4", "zip")):
            if magic.startswith(mark):
                raise TraceError(self.path, None, f"compressed with {name}: unpack it, or use gzip or xz")
        return _bounded_lines(self.path, raw)

    def _detect(self, number: int, text: bytes) -> tuple[str, Callable[[_Line], Iterator[Request]]]:
        try:
            line = _Line(self.path, number, _loads(self.path, number, text))
        except TraceError as exc:
            raise TraceError(self.path, exc.line, f"{_guessed(text) or exc.reason}; {_ACCEPTED}") from exc
        if "requests" in line.value and "hash_id_scope" in line.value:
            return "weka-sessions", _weka_session
        if "hash_ids" in line.value and "timestamp" in line.value:
            return ("fleet", _fleet) if "session_id" in line.value else ("mooncake", _mooncake)
        line.fail(f"not a trace format that is known; {_ACCEPTED}")


#: Header lines of well-known CSV traces, in lower case without spaces.
_CSV_HEADS = {
    "timestamp,contexttokens,generatedtokens": "a CSV trace of Azure's",
    "timestamp,model,requesttokens,responsetokens,totaltokens,logtype": "a CSV trace of BurstGPT's",
    "timestamp,sessionid,elapsedtime,model,requesttokens,responsetokens,totaltokens,logtype": (
        "a CSV trace of BurstGPT's"
    ),
}


def _guessed(text: bytes) -> str | None:
    """A hint on a first line that is not a JSON object, if recognised."""
    head = text.decode("ascii", "replace").strip().lower().replace(" ", "").replace('"', "")
    if head in _CSV_HEADS:
        return f"{_CSV_HEADS[head]}: it counts tokens and has no block ids, so what requests share is not known"
    if head.startswith("["):
        return "a JSON array, or a part of one: jq -c '.[]' makes lines of it"
    if head == "{":
        return "an object on several lines: jq -c . makes a line of each"
    if "," in head and head.replace(",", "").replace("_", "").isalnum():
        return "looks like CSV, which is not read"
    return None


class _File:
    """A descriptor of a regular file, or of the spooled contents of a pipe."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        mode = os.fstat(self.number).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if stat.S_ISFIFO(mode):
            pipe, self.number = self.number, -1
            try:
                self.number = _spooled(path, pipe)
            finally:
                os.close(pipe)
        elif not stat.S_ISREG(mode):
            raise TraceError(path, None, "neither a file nor a pipe")

    def __del__(self) -> None:
        if getattr(self, "number", -1) >= 0:
            os.close(self.number)


def _spooled(path: Path, pipe: int) -> int:
    """Spool a pipe to an unnamed temporary file."""
    try:
        with tempfile.TemporaryFile() as kept:
            size = 0
            while part := os.read(pipe, 1 << 20):
                size += len(part)
                if size > MAX_PIPE_BYTES:
                    raise TraceError(path, None, f"more than {MAX_PIPE_BYTES >> 30} GiB from a pipe: put it in a file")
                kept.write(part)
            kept.flush()
            return os.dup(kept.fileno())
    except OSError as exc:
        reason = f"{os.strerror(exc.errno or errno.EIO)}: a pipe is kept in TMPDIR until it ends"
        raise OSError(exc.errno or errno.EIO, reason, str(path)) from exc


class _At(io.RawIOBase):
    """A reader of a descriptor with an offset of its own."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._place = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = os.preadv(self._file.number, [buffer], self._place)
        self._place += size
        return size


class _Unpacked(io.RawIOBase):
    """Decompresses one or more xz streams in bounded memory."""

    def __init__(self, packed: io.BufferedReader[_At]) -> None:
        self._packed = packed
        self._rest = b""
        self._stream: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while (stream := self._stream or self._next()) is not None:
            part = b""
            if stream.needs_input:
                part, self._rest = self._rest or self._packed.read1(), b""
                if not part:
                    raise EOFError
            data = stream.decompress(part, len(buffer))
            if stream.eof:
                self._rest, self._stream = stream.unused_data, None
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _next(self) -> lzma.LZMADecompressor | None:
        while not (rest := self._rest.lstrip(b"\0")):  # padding between streams
            self._rest = self._packed.read1()
            if not self._rest:
                return None
        self._rest = rest
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)
        return self._stream


def _bounded_lines(path: Path, stream: IO[bytes] | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    blank = 0
    for number in count(1):
        try:
            text = stream.readline(MAX_LINE_BYTES + 1)
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as exc:
            reason = "the compressed data is damaged or cut short"
            if "Memory usage" in str(exc):
                reason = f"needs more than {MAX_XZ_MEMORY >> 20} MiB to be unpacked: unpack it with xz"
            raise TraceError(path, number, reason) from exc
        except OSError as exc:
            raise OSError(exc.errno or errno.EIO, os.strerror(exc.errno or errno.EIO), str(path)) from exc
        if not text:
            return
        if len(text) > MAX_LINE_BYTES:
            raise TraceError(path, number, f"longer than {MAX_LINE_BYTES >> 20} MiB")
        if number == 1:
            text = text.removeprefix(jsontext.BYTE_ORDER_MARK)
        if text.strip(b" \t\r\n"):
            blank = 0
            yield number, text
        elif (blank := blank + 1) > MAX_BLANK_LINES:
            raise TraceError(path, number, f"more than {MAX_BLANK_LINES:,} blank lines in a row")


def _loads(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        value = jsontext.loads(text)
    except jsontext.JsonError as exc:
        raise TraceError(path, number, str(exc)) from exc
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

    def time(self, name: str, most: float = MAX_TIME_MS) -> float:
        value = self.member(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{name}: a number was expected, not {_kind(value)}")
        if not 0 <= value <= most:
            self.fail(f"{name}: {_shown(value)} is not a time from 0 to {most:g}")
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
        if jsontext.has_surrogate(value):
            self.fail(f"{name}: half a surrogate pair is not text: {_shown(value)}")
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
    if isinstance(value, str):
        return jsontext.shown(value)
    return repr(value)[:40] if isinstance(value, int | float) and not isinstance(value, bool) else _kind(value)


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
        time = start + part.time("t", MAX_SPAN_MS / 1000)
        if "requests" in part.value:
            yield from _weka_requests(part, time, depth + 1)
        else:
            yield time, part.ids("hash_ids")

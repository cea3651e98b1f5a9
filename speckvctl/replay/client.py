# SPDX-License-Identifier: MIT
"""One client process of a replay: attaches to the pool, serves the requests it is handed, and counts.

The parent sends chunks of requests and receives a Tally for each, which also requests the next chunk. A client exits
on the parent's command or when the pipe closes.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import signal
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
import speckv

from speckvctl.replay.payload import Calibrated, Contents

BATCH_BYTES = 1 << 20
MAX_BATCH = 64
#: Reason for ENODEV, which only a card returns.
_CARD_GONE = "the card has stopped, or does not answer; 'speckvctl device list' says which and why"
MAX_DESCRIBED = 8
MAX_WAIT_SECONDS = 3600.0  # longest wait of one poll(), whose timeout is 32 bits of milliseconds
_FULL = (-errno.ENOSPC, -errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Setup:
    """Parameters of a client process."""

    runtime_dir: str
    device: str
    pool: str
    tenant: str
    contents: str
    geometry: speckv.Geometry
    codec: str
    scope: bytes
    model_digest: bytes
    calibrated: Calibrated | None


@dataclass(frozen=True, slots=True)
class Work:
    """A request for a client; `due_ns` is a CLOCK_MONOTONIC time, 0: at once."""

    scope: str
    ids: tuple[int, ...]
    due_ns: int


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A block with wrong bytes; offset None: its checksum did not verify."""

    block: str
    offset: int | None

    def __str__(self) -> str:
        where = "its checksum does not verify" if self.offset is None else f"first wrong byte at offset {self.offset}"
        return f"block {self.block}: {where}"


@dataclass(slots=True)
class Tally:
    """Counters of a client."""

    requests: int = 0
    blocks_asked: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    blocks_refused: int = 0  # no room in the pool or its quota, and nothing to evict
    blocks_vanished: int = 0  # found, and evicted before they were read
    verified_blocks: int = 0
    mismatches: int = 0
    errors: int = 0
    get_ns: int = 0
    put_ns: int = 0
    get_histogram: list[int] = field(default_factory=lambda: [0] * len(speckv.histogram_bounds()))
    put_histogram: list[int] = field(default_factory=lambda: [0] * len(speckv.histogram_bounds()))
    described: list[Mismatch] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that stopped a client."""

    number: int | None
    text: str


class Client:
    """Serves requests on one attachment."""

    def __init__(self, setup: Setup, pool: speckv.Pool) -> None:
        self.tally = Tally()
        self._pool = pool
        self._contents = Contents(setup.contents, setup.geometry, setup.codec, setup.scope, setup.calibrated)
        self._tokens = setup.geometry.tokens
        self._bounds = speckv.histogram_bounds()
        self._batch = max(1, min(MAX_BATCH, BATCH_BYTES // pool.block_bytes))
        self._buffers = np.empty((self._batch, pool.block_bytes), np.uint8)
        spec = speckv.KeySpec(setup.model_digest, setup.geometry, cache_salt=f"replay {setup.codec}")
        scope = setup.scope
        placed = setup.calibrated is not None

        @functools.lru_cache(maxsize=1 << 17)
        def key(name: bytes, index: int = 0) -> bytes:
            # An engine's hash covers all tokens up to the block, and so its position, which these codecs depend on.
            where = b"\0%d" % index if placed else b""
            return speckv.derive_key(spec, hashlib.sha256(scope + name + where).digest())

        self._key = key

    def serve(self, work: Work) -> None:
        """Get the longest stored prefix, verify every byte, and put the rest."""
        names = [_name(work.scope, block) for block in work.ids]
        keys = [self._key(name, index) for index, name in enumerate(names)]
        tally = self.tally
        tally.requests += 1
        tally.blocks_asked += len(keys)
        if not keys:
            return
        present = self._pool.lookup_prefix(keys)
        missing = [] if present == len(keys) else list(range(present, len(keys)))
        vanished: list[int] = []
        for first in range(0, present, self._batch):
            vanished += self._read(names, keys, range(first, min(first + self._batch, present)))
        tally.blocks_vanished += len(vanished)
        missing = vanished + missing
        for first in range(0, len(missing), self._batch):
            if not self._write(names, keys, missing[first : first + self._batch]):
                break  # no space: later blocks would lack their parents

    def _read(self, names: Sequence[bytes], keys: Sequence[bytes], indices: range) -> list[int]:
        """Get and verify a batch; returns the indices of blocks evicted since the look-up."""
        buffers = self._buffers[: len(indices)]
        begin = time.perf_counter_ns()
        statuses = self._pool.get([keys[index] for index in indices], buffers)
        elapsed = time.perf_counter_ns() - begin
        tally = self.tally
        vanished = []
        read = 0
        for index, status, got in zip(indices, statuses.tolist(), buffers, strict=True):
            if status == 0:
                read += 1
                self._verify(names[index], got, index * self._tokens)
            elif status == -errno.ENOENT:
                vanished.append(index)
            elif status == -errno.EBADMSG:
                self._mismatch(names[index], None)
            else:
                self._problem(f"get of block {_shown(names[index])}", status)
        if read:
            tally.blocks_read += read
            tally.get_ns += elapsed
            tally.get_histogram[bisect_left(self._bounds, elapsed // len(indices))] += read
        return vanished

    def _write(self, names: Sequence[bytes], keys: Sequence[bytes], indices: Sequence[int]) -> bool:
        """Put a batch, each block linked to its predecessor; False if there is no space."""
        buffers = self._buffers[: len(indices)]
        for index, buffer in zip(indices, buffers, strict=True):
            self._contents.fill(names[index], buffer)
        parents = [keys[index - 1] if index else None for index in indices]
        positions = [index * self._tokens for index in indices]
        begin = time.perf_counter_ns()
        statuses = self._pool.put([keys[index] for index in indices], buffers, parents=parents, positions=positions)
        elapsed = time.perf_counter_ns() - begin
        tally = self.tally
        written = refused = 0
        for index, status in zip(indices, statuses.tolist(), strict=True):
            if status == 0:
                written += 1
            elif status in _FULL:
                refused += 1
            else:
                self._problem(f"put of block {_shown(names[index])}", status)
        tally.blocks_refused += refused
        if written:
            tally.blocks_written += written
            tally.put_ns += elapsed
            tally.put_histogram[bisect_left(self._bounds, elapsed // len(indices))] += written
        return not refused

    def _verify(self, name: bytes, got: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], position: int) -> None:
        expected = self._contents.expected(name, position)
        self.tally.verified_blocks += 1
        if not np.array_equal(got, expected):
            self._mismatch(name, int(np.flatnonzero(got != expected)[0]))

    def _mismatch(self, name: bytes, offset: int | None) -> None:
        self.tally.mismatches += 1
        if len(self.tally.described) < MAX_DESCRIBED:
            self.tally.described.append(Mismatch(_shown(name), offset))

    def _problem(self, what: str, status: int) -> None:
        self.tally.errors += 1
        if len(self.tally.problems) < MAX_DESCRIBED:
            why = _CARD_GONE if abs(status) == errno.ENODEV else str(speckv.SpeckvError(status))
            self.tally.problems.append(f"{what}: {why}")


def _name(scope: str, block: int) -> bytes:
    """A block's name: its id, within its scope."""
    return f"{scope}\0{block}".encode()


def _shown(name: bytes) -> str:
    scope, _, block = name.decode().partition("\0")
    return f"{block} of {scope}" if scope else block


def client_main(connection: Connection, setup: Setup) -> None:
    """The process: answer every chunk with a Tally until the parent sends None or closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited blocked, see runner.py
    try:
        with (
            speckv.Context(setup.runtime_dir) as context,
            context.open(setup.device) as device,
            device.attach(setup.pool, tenant=setup.tenant) as pool,
        ):
            client = Client(setup, pool)
            connection.send(client.tally)
            while True:
                chunk: list[Work] | None = connection.recv()
                if chunk is None:
                    return
                _serve_chunk(client, chunk, connection)
                connection.send(client.tally)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent exited
    except Exception as exc:
        number = getattr(exc, "errno", None)
        connection.send(Failure(number if isinstance(number, int) else None, str(exc) or type(exc).__name__))


def _serve_chunk(client: Client, chunk: Iterable[Work], connection: Connection) -> None:
    """Serve requests when they are due; a message from the parent, or its exit, ends the chunk early."""
    for work in chunk:
        while (wait := (work.due_ns - time.monotonic_ns()) / 1e9) > MAX_WAIT_SECONDS:
            if connection.poll(MAX_WAIT_SECONDS):
                return
        if connection.poll(max(0.0, wait)):
            return
        client.serve(work)

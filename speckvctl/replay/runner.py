# SPDX-License-Identifier: MIT
"""Replay: drive a pool with a real trace from several processes, and verify every byte that comes back."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import speckv
from speckv.errors import error

from speckvctl.replay.client import MAX_DESCRIBED, Failure, Mismatch, Setup, Tally, client_main
from speckvctl.replay.payload import Calibrated, Contents, file_digest
from speckvctl.replay.sample import KV
from speckvctl.replay.scheduler import Scheduler
from speckvctl.replay.traces import Trace, TraceError

MAX_CLIENTS = 256
MIN_SPEED, MAX_SPEED = 1e-6, 1e9  # of the trace's clock, and requests a second
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """What to replay, and how."""

    trace: str | Path
    device: str
    pool: str
    contents: str | Path | None = None  # a safetensors file of KV; None: the sample that is shipped
    clients: int = 1
    speed: float | None = None  # 1: the trace's own time; None: as fast as possible
    max_rate: float | None = None  # requests a second, all clients together
    limit: int | None = None  # most requests; None: all
    until_ms: float | None = None  # only requests up to this time of the trace (of each session, where it has a clock)
    trace_format: str | None = None  # None: detected from the file
    block_bytes: int | None = None  # required raw block size of the pool; None: any
    tenant: str | None = None  # client n is the tenant NAME-n; None: "replay"
    seed: int = 0  # changes keys and contents
    runtime_dir: str | None = None


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay."""

    requests: int
    requests_total: int
    blocks_read: int
    blocks_written: int
    mismatches: int
    errors: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Results of a replay. Latencies are as clients measured them, per block: a batch's time over its blocks."""

    trace_format: str
    block_bytes: int
    codec: str
    clients: int
    requests: int
    requests_total: int
    blocks_read: int
    blocks_written: int
    blocks_refused: int
    blocks_vanished: int
    hit_share: float | None  # of the blocks that the requests needed
    bytes_raw: int  # of the blocks that were written, and what the pool stored for them
    bytes_stored: int
    ratio: float | None
    get_p50_ns: int | None
    get_p99_ns: int | None
    put_p50_ns: int | None
    put_p99_ns: int | None
    get_bytes_per_second: float | None  # over the time in calls, clients added up
    put_bytes_per_second: float | None
    verified_blocks: int
    mismatches: int
    errors: int
    seconds: float
    interrupted: bool
    described: tuple[Mismatch, ...]
    problems: tuple[str, ...]

    @property
    def verified(self) -> bool:
        """Whether every block read had the expected bytes."""
        return self.mismatches == 0


OnProgress = Callable[[ReplayProgress], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked replay: trace, KV file and pool; nothing was changed yet."""

    config: ReplayConfig
    trace: Trace
    setup: Setup
    requests: int
    blocks: int
    moved: int  # requests of the trace that were out of order


def plan(config: ReplayConfig) -> Plan:
    """Check everything that can be checked before the first block is put: the whole trace, the KV file, the pool."""
    if not 1 <= config.clients <= MAX_CLIENTS:
        raise error(errno.EINVAL, f"{config.clients} clients: 1 to {MAX_CLIENTS} are possible")
    for name, value in (("speed", config.speed), ("max rate", config.max_rate)):
        if value is not None and not MIN_SPEED <= value <= MAX_SPEED:
            raise error(errno.EINVAL, f"{name} {value}: {MIN_SPEED:g} to {MAX_SPEED:g} are possible")
    if config.limit is not None and config.limit < 1:
        raise error(errno.EINVAL, f"limit {config.limit}: it must be above 0")
    trace = Trace(config.trace, until_ms=config.until_ms)
    if config.trace_format not in (None, trace.format):
        raise TraceError(trace.path, None, f"its format is {trace.format}, not {config.trace_format}")
    survey = trace.survey(config.limit)
    with speckv.Context(config.runtime_dir) as context:
        runtime_dir = context.runtime_dir
        with context.open(config.device) as device:
            pool = device.pool(config.pool)
            if not pool.accessible:
                device.tenants(config.pool)  # a lost or damaged pool fails here
                raise error(
                    errno.EACCES,
                    f"pool {config.pool} of {config.device}: no permission to use it; "
                    f"'speckvctl pool show {config.device} {config.pool}' shows its owner",
                )
            calibrated = None
            if pool.calibration is not None:
                calibrated = Calibrated(
                    device.calibration(config.pool), pool.config.first_layer, pool.config.first_head
                )
    if config.block_bytes not in (None, pool.block_bytes):
        raise error(
            errno.EINVAL,
            f"pool {config.pool}: its blocks have {pool.block_bytes} bytes, not {config.block_bytes}: "
            f"leave the block size out, or make a pool of that shape",
        )
    contents = Path(config.contents or KV)
    digest = file_digest(contents)
    scope = hashlib.sha256(b"speckv replay %d\0" % config.seed + trace.digest() + digest).digest()
    setup = Setup(
        runtime_dir=runtime_dir,
        device=config.device,
        pool=config.pool,
        tenant=config.tenant or "replay",
        contents=str(contents),
        geometry=pool.config.geometry,
        codec=str(pool.config.codec),
        scope=scope,
        model_digest=digest,
        calibrated=calibrated,
    )
    Contents(contents, setup.geometry, setup.codec, scope, calibrated)  # fails here rather than in every client
    return Plan(config, trace, setup, survey.requests, survey.blocks, survey.moved)


def run(config: ReplayConfig, on_progress: OnProgress | None = None) -> ReplayResult:
    """Replay. Ctrl-C ends it with a summary of what was done (`interrupted`); so does a client that dies (`errors`)."""
    return execute(plan(config), on_progress)


def execute(plan: Plan, on_progress: OnProgress | None = None) -> ReplayResult:
    """The second half of run()."""
    before = _stored(plan.setup)
    begin = time.monotonic_ns()
    crew = _Crew(plan, on_progress, begin)
    try:
        crew.work()
    except KeyboardInterrupt:
        crew.interrupted = True
    finally:
        crew.dismiss()
    seconds = (time.monotonic_ns() - begin) / 1e9
    if crew.failures and not crew.interrupted and not any(tally.requests for tally in crew.tallies.values()):
        failure = crew.failures[0]
        raise error(failure.number or errno.EIO, failure.text)  # nothing was done: raise the cause
    after = _stored(plan.setup)
    return _summary(plan, crew, seconds, (after[0] - before[0], after[1] - before[1]))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Defer SIGINT while a client starts.

    Ctrl-C reaches the whole process group, but only the parent handles it: clients inherit the blocked mask. Another
    thread may still receive the signal, and Python would interrupt the main one.
    """
    pressed: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


class _Crew:
    """The client processes, in the parent."""

    def __init__(self, plan: Plan, on_progress: OnProgress | None, begin_ns: int) -> None:
        self.tallies: dict[int, Tally] = {}
        self.failures: list[Failure] = []
        self.interrupted = False
        self._plan = plan
        self._on_progress = on_progress
        self._begin_ns = begin_ns
        self._processes: dict[int, SpawnProcess] = {}
        self._connections: dict[int, Connection] = {}
        self._parked: set[int] = set()
        self._scheduler: Scheduler | None = None

    def work(self) -> None:
        """Start the clients and distribute requests until the trace ends or a client fails."""
        self._start()
        config = self._plan.config
        while self._connections and not self.failures:
            for number in self._answers(None):
                if self._scheduler is None and len(self.tallies) == len(self._processes):
                    self._scheduler = Scheduler(  # the clock starts when every client is ready
                        iter(self._plan.trace),
                        config.clients,
                        speed=config.speed,
                        max_rate=config.max_rate,
                        limit=config.limit,
                        start_ns=time.monotonic_ns(),
                    )
                self._parked.add(number)
                self._report()
            if self._scheduler is not None:
                for number in sorted(self._parked):
                    self._deal(number, self._scheduler)

    def dismiss(self) -> None:
        """Stop the clients, collect their last tallies, and reap every one."""
        for number in tuple(self._connections):
            self._send(number, None)
        deadline = time.monotonic() + _GRACE_SECONDS
        while self._connections and (left := deadline - time.monotonic()) > 0:
            self._answers(left)
            self._report()
        for process in self._processes.values():
            process.join(0.0 if self._connections else 1.0)
            if process.is_alive():
                process.terminate()
                process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._report()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a handle does not survive fork
        resource_tracker.ensure_running()  # would otherwise be started, and unblock SIGINT, in the midst of start()
        for number in range(self._plan.config.clients):
            ours, theirs = context.Pipe()
            setup = self._plan.setup
            tenant = f"{setup.tenant}-{number + 1}"
            process = context.Process(
                target=client_main,
                args=(theirs, replace(setup, tenant=tenant)),
                name=f"speckv replay client {number + 1}",
                daemon=True,
            )
            with _uninterrupted():
                process.start()
                self._processes[number] = process
                self._connections[number] = ours
            theirs.close()  # so that a client's death is seen as EOF

    def _answers(self, timeout: float | None) -> list[int]:
        """Wait for clients; returns those that sent a tally. Exited clients are removed from the list."""
        numbers = {id(connection): number for number, connection in self._connections.items()}
        answered = []
        for ready in wait(list(self._connections.values()), timeout):
            assert isinstance(ready, Connection)
            number = numbers[id(ready)]
            try:
                message = ready.recv()
            except (EOFError, OSError):
                self._lost(number)
                continue
            if isinstance(message, Tally):
                self.tallies[number] = message
                answered.append(number)
            else:
                self.failures.append(message)
                self._drop(number)
        return answered

    def _deal(self, number: int, scheduler: Scheduler) -> None:
        chunk = scheduler.chunk(number)
        if chunk == []:
            return  # parked until other clients make progress
        self._parked.discard(number)
        self._send(number, chunk)

    def _send(self, number: int, chunk: object) -> None:
        try:
            self._connections[number].send(chunk)
        except (BrokenPipeError, ConnectionResetError):
            self._lost(number)

    def _lost(self, number: int) -> None:
        """A client closed its end of the pipe: it was stopped, or it died."""
        process = self._processes[number]
        process.join(5.0)
        if process.exitcode != 0:
            how = "does not end" if process.exitcode is None else _how_it_ended(process.exitcode)
            self.failures.append(Failure(None, f"client {number + 1} (pid {process.pid}) {how}"))
        self._drop(number)

    def _drop(self, number: int) -> None:
        self._connections.pop(number).close()
        self._parked.discard(number)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        tallies = self.tallies.values()
        self._on_progress(
            ReplayProgress(
                requests=sum(tally.requests for tally in tallies),
                requests_total=self._plan.requests,
                blocks_read=sum(tally.blocks_read for tally in tallies),
                blocks_written=sum(tally.blocks_written for tally in tallies),
                mismatches=sum(tally.mismatches for tally in tallies),
                errors=sum(tally.errors for tally in tallies) + len(self.failures),
                seconds=(time.monotonic_ns() - self._begin_ns) / 1e9,
            )
        )


def _how_it_ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _stored(setup: Setup) -> tuple[int, int]:
    """Raw and stored bytes put into the pool so far."""
    with speckv.Context(setup.runtime_dir) as context, context.open(setup.device) as device:
        counters = device.stats(setup.pool).counters
    return counters["bytes_in_raw"], counters["bytes_in_stored"]


def _summary(plan: Plan, crew: _Crew, seconds: float, stored: tuple[int, int]) -> ReplayResult:
    tallies = list(crew.tallies.values())
    block_bytes = plan.setup.geometry.block_bytes
    blocks_read = sum(tally.blocks_read for tally in tallies)
    asked = sum(tally.blocks_asked for tally in tallies)
    get_buckets = _added(tally.get_histogram for tally in tallies)
    put_buckets = _added(tally.put_histogram for tally in tallies)
    problems = [failure.text for failure in crew.failures] + [text for tally in tallies for text in tally.problems]
    return ReplayResult(
        trace_format=plan.trace.format,
        block_bytes=block_bytes,
        codec=plan.setup.codec,
        clients=plan.config.clients,
        requests=sum(tally.requests for tally in tallies),
        requests_total=plan.requests,
        blocks_read=blocks_read,
        blocks_written=sum(tally.blocks_written for tally in tallies),
        blocks_refused=sum(tally.blocks_refused for tally in tallies),
        blocks_vanished=sum(tally.blocks_vanished for tally in tallies),
        hit_share=blocks_read / asked if asked else None,
        bytes_raw=stored[0],
        bytes_stored=stored[1],
        ratio=stored[0] / stored[1] if stored[1] else None,
        get_p50_ns=speckv.histogram_quantile(get_buckets, 0.5),
        get_p99_ns=speckv.histogram_quantile(get_buckets, 0.99),
        put_p50_ns=speckv.histogram_quantile(put_buckets, 0.5),
        put_p99_ns=speckv.histogram_quantile(put_buckets, 0.99),
        get_bytes_per_second=_rate((tally.blocks_read * block_bytes, tally.get_ns) for tally in tallies),
        put_bytes_per_second=_rate((tally.blocks_written * block_bytes, tally.put_ns) for tally in tallies),
        verified_blocks=sum(tally.verified_blocks for tally in tallies),
        mismatches=sum(tally.mismatches for tally in tallies),
        errors=sum(tally.errors for tally in tallies) + len(crew.failures),
        seconds=seconds,
        interrupted=crew.interrupted,
        described=tuple(mismatch for tally in tallies for mismatch in tally.described)[:MAX_DESCRIBED],
        problems=tuple(problems[:MAX_DESCRIBED]),
    )


def _added(histograms: Iterable[list[int]]) -> list[int]:
    total = [0] * len(speckv.histogram_bounds())
    for histogram in histograms:
        total = [left + right for left, right in zip(total, histogram, strict=True)]
    return total


def _rate(parts: Iterable[tuple[int, int]]) -> float | None:
    rates = [size / ns * 1e9 for size, ns in parts if ns]
    return sum(rates) if rates else None

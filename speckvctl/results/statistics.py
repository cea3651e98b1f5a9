# SPDX-License-Identifier: MIT
"""Documents about what happens: counters, events, the live view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.results.document import Document
from speckvctl.results.pools import Client, Pool, Tenant


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Quantiles are upper bounds of histogram buckets; None when nothing was measured."""

    count: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    p999_ns: int | None


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    pool: str
    taken_ns: int
    since_ns: int
    hit_share: float | None
    ratio: float | None
    counters: dict[str, int]
    latency: dict[str, Latency]
    tenants: list[Tenant]


@dataclass(frozen=True, kw_only=True)
class StatsDocument(Document):
    schema: ClassVar[str] = "speckvctl.stats"
    device: str
    reset: bool
    dry_run: bool
    pools: list[PoolStats]
    next: str | None = None


@dataclass(frozen=True, kw_only=True)
class EventRow:
    time_ns: int
    device: str
    pool: str | None
    sequence: int | None
    severity: str
    kind: str
    pid: int | None
    text: str


@dataclass(frozen=True, kw_only=True)
class EventsDocument(Document):
    schema: ClassVar[str] = "speckvctl.events"
    events: list[EventRow]


@dataclass(frozen=True, kw_only=True)
class TopDevice:
    """A device at one tick; health, temperature, link and queue depth are a card's, None where not measured."""

    name: str
    kind: str
    state: str
    found: str
    health: str | None
    temperature_millicelsius: int | None
    link: str | None
    queue_depth: int | None
    pools: int | None
    clients: int | None
    capacity_bytes: int | None
    allocated_bytes: int | None
    free_bytes: int | None
    in_bytes_per_second: int | None
    out_bytes_per_second: int | None


@dataclass(frozen=True, kw_only=True)
class Prefetching:
    """What a pool's counters say of prefetches. Shares are None where there is nothing to divide by, or no counter."""

    asked: int
    staged: int
    used: int
    unused: int
    accuracy: float | None
    coverage: float | None
    unused_share: float | None
    late_share: float | None
    depth: int | None


@dataclass(frozen=True, kw_only=True)
class TenantRates:
    name: str
    index: int
    hit_share: float | None
    in_bytes_per_second: int
    out_bytes_per_second: int


@dataclass(frozen=True, kw_only=True)
class PoolInterval:
    """What happened in a pool between two ticks; the differences of what PoolStats has in sum."""

    elapsed_ns: int
    in_bytes_per_second: int
    out_bytes_per_second: int
    gets_per_second: float
    puts_per_second: float
    hit_share: float | None
    counters: dict[str, int]
    latency: dict[str, Latency]
    prefetching: Prefetching
    tenants: list[TenantRates]


@dataclass(frozen=True, kw_only=True)
class HistogramBucket:
    up_to_ns: int
    count: int


@dataclass(frozen=True, kw_only=True)
class TopPool:
    """A pool at one tick; what is inside is None, or empty, when this user may not look."""

    pool: Pool
    stats: PoolStats | None
    prefetching: Prefetching | None
    interval: PoolInterval | None
    clients: list[Client]
    histograms: dict[str, list[HistogramBucket]]


@dataclass(frozen=True, kw_only=True)
class Top(Document):
    schema: ClassVar[str] = "speckvctl.top"
    tick: int
    time_ns: int
    interval_ns: int | None
    devices: list[TopDevice]
    pools: list[TopPool]
    events: list[EventRow]

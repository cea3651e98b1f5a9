# SPDX-License-Identifier: MIT
"""Documents on activity: counters, events, the live view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.results.described import Said
from speckvctl.results.document import Document
from speckvctl.results.pools import Client, Pool, Tenant
from speckvctl.results.words import DEVICE_STATES


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Quantiles are upper bounds of histogram buckets; None without samples."""

    count: Annotated[int, Said("Samples.", minimum=0)]
    p50_ns: Annotated[int | None, Said("Median.", minimum=0)]
    p90_ns: Annotated[int | None, Said("90th percentile.", minimum=0)]
    p99_ns: Annotated[int | None, Said("99th percentile.", minimum=0)]
    p999_ns: Annotated[int | None, Said("99.9th percentile.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    """Counters and latencies of a pool."""

    pool: Annotated[str, Said("Name of the pool.")]
    taken_ns: Annotated[int, Said("When it was read, CLOCK_REALTIME.", minimum=0)]
    since_ns: Annotated[int, Said("Creation, or the last reset, CLOCK_REALTIME.", minimum=0)]
    hit_share: Annotated[
        float | None,
        Said(
            "Blocks served over blocks wanted (gets, and look-ups that found nothing); null when none was wanted.",
            minimum=0,
            maximum=1,
        ),
    ]
    ratio: Annotated[float | None, Said("Raw bytes over stored bytes; null when nothing is stored.")]
    counters: Annotated[dict[str, int], Said("Counters by name.")]
    latency: Annotated[
        dict[str, Latency], Said("Latency by operation: get, put and stage per block, lookup per batch.")
    ]
    tenants: Annotated[list[Tenant], Said("Tenants.")]


@dataclass(frozen=True, kw_only=True)
class StatsDocument(Document):
    """What `speckvctl stats --json` prints."""

    schema: ClassVar[str] = "speckvctl.stats"
    device: Annotated[str, Said("Name of the device, as typed.")]
    reset: Annotated[bool, Said("True: the counters were shown and then set to zero.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    pools: Annotated[list[PoolStats], Said("Pools.")]
    next: Annotated[str | None, Said("What to type next where there is nothing to show yet.")] = None


@dataclass(frozen=True, kw_only=True)
class EventRow:
    """An event of a device."""

    time_ns: Annotated[int, Said("When it happened, CLOCK_REALTIME.", minimum=0)]
    device: Annotated[str, Said("Name of the device, as typed.")]
    pool: Annotated[str | None, Said("Name of the pool.")]
    sequence: Annotated[int | None, Said("Grows by one per event of one log; null for hot plug.", minimum=0)]
    severity: Annotated[str, Said("Severity.", enum=["info", "warning", "error"])]
    kind: Annotated[str, Said("Kind.")]
    pid: Annotated[int | None, Said("Process.", minimum=0)]
    text: Annotated[str, Said("Description, one line.")]


@dataclass(frozen=True, kw_only=True)
class EventsDocument(Document):
    """What `speckvctl events --json` prints."""

    schema: ClassVar[str] = "speckvctl.events"
    events: Annotated[list[EventRow], Said("Events, oldest first.")]


@dataclass(frozen=True, kw_only=True)
class TopDevice:
    """A device at one tick; health, temperature, link and queue depth are a card's, None where not measured."""

    name: Annotated[str, Said("Name of the device.")]
    kind: Annotated[str, Said("What it is.")]
    state: Annotated[
        str,
        Said(
            "State.",
            enum=[*DEVICE_STATES],
        ),
    ]
    found: Annotated[str, Said("Description of what is there, one line.")]
    health: Annotated[
        str | None,
        Said("A card's health: healthy, or its conditions with commas between them; null where there is no card."),
    ]
    temperature_millicelsius: Annotated[int | None, Said("A card's temperature; null where there is none.")]
    link: Annotated[
        str | None,
        Said("A card's link as it is trained, such as 4x2.5GT/s; null where there is none, or the card does not tell."),
    ]
    queue_depth: Annotated[
        int | None,
        Said(
            "Commands under way on a card: submitted by any client, and not completed; null where there is none.",
            minimum=0,
        ),
    ]
    pools: Annotated[int | None, Said("Pools on it.", minimum=0)]
    clients: Annotated[int | None, Said("Clients attached to the pools that this user may access.", minimum=0)]
    capacity_bytes: Annotated[int | None, Said("Capacity.", minimum=0)]
    allocated_bytes: Annotated[
        int | None,
        Said(
            "Bytes taken by pools, full or empty, and by their tables; what pools hold is their used_bytes.", minimum=0
        ),
    ]
    free_bytes: Annotated[int | None, Said("Bytes that new pools could take.", minimum=0)]
    in_bytes_per_second: Annotated[
        int | None, Said("Raw bytes put into its pools since the tick before; null when none can be told.", minimum=0)
    ]
    out_bytes_per_second: Annotated[
        int | None, Said("Raw bytes got from its pools since the tick before; null when none can be told.", minimum=0)
    ]


@dataclass(frozen=True, kw_only=True)
class Prefetching:
    """Prefetching by a pool's counters. Shares are None without a denominator, or without a counter."""

    asked: Annotated[int, Said("Blocks asked to be staged.", minimum=0)]
    staged: Annotated[int, Said("Blocks staged.", minimum=0)]
    used: Annotated[int, Said("Staged blocks that a get was served from.", minimum=0)]
    unused: Annotated[int, Said("Staged blocks thrown out unread.", minimum=0)]
    accuracy: Annotated[float | None, Said("used over asked; null when nothing was asked.", minimum=0, maximum=1)]
    coverage: Annotated[
        float | None, Said("used over gets that found their block; null when there were none.", minimum=0, maximum=1)
    ]
    unused_share: Annotated[
        float | None, Said("unused over staged; null when nothing was staged.", minimum=0, maximum=1)
    ]
    late_share: Annotated[
        float | None,
        Said(
            "Prefetches that arrived after the demand, over asked; null: pools do not count them yet.",
            minimum=0,
            maximum=1,
        ),
    ]
    depth: Annotated[
        int | None,
        Said(
            "Blocks fetched ahead along a chain, as a card is set; null on a host device, where "
            "every client chooses its own.",
            minimum=0,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class TenantRates:
    """A tenant in one interval."""

    name: Annotated[str, Said("Name.")]
    index: Annotated[int, Said("Number of the tenant in its pool.", minimum=0)]
    hit_share: Annotated[float | None, Said("The same since the tick before.", minimum=0, maximum=1)]
    in_bytes_per_second: Annotated[int, Said("Raw bytes put.", minimum=0)]
    out_bytes_per_second: Annotated[int, Said("Raw bytes got.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class PoolInterval:
    """A pool's activity between two ticks: differences of the totals in PoolStats."""

    elapsed_ns: Annotated[int, Said("Time since the tick before, by a clock that does not step.", minimum=0)]
    in_bytes_per_second: Annotated[int, Said("Raw bytes put.", minimum=0)]
    out_bytes_per_second: Annotated[int, Said("Raw bytes got.", minimum=0)]
    gets_per_second: Annotated[float, Said("Blocks asked for.", minimum=0)]
    puts_per_second: Annotated[float, Said("Blocks stored.", minimum=0)]
    hit_share: Annotated[
        float | None,
        Said(
            "Blocks served over blocks wanted (gets, and look-ups that found nothing); null when none was wanted.",
            minimum=0,
            maximum=1,
        ),
    ]
    counters: Annotated[dict[str, int], Said("Growth of each counter.", values={"minimum": 0})]
    latency: Annotated[dict[str, Latency], Said("Latency by operation, of this interval's samples only.")]
    prefetching: Annotated[Prefetching, Said("Prefetches of this interval.")]
    tenants: Annotated[list[TenantRates], Said("Tenants that were there at both ticks.")]


@dataclass(frozen=True, kw_only=True)
class HistogramBucket:
    """Samples of latency up to a bound."""

    up_to_ns: Annotated[int, Said("Upper bound of the bucket, inclusive.", minimum=0)]
    count: Annotated[int, Said("Samples in it; empty buckets are left out.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class TopPool:
    """A pool at one tick; its contents are None or empty without permission."""

    pool: Annotated[Pool, Said("The pool, as pool show has it.")]
    stats: Annotated[PoolStats | None, Said("Its statistics, as stats has them; null when this user may not look.")]
    prefetching: Annotated[
        Prefetching | None, Said("Prefetches since creation or the last reset; null when this user may not look.")
    ]
    interval: Annotated[
        PoolInterval | None,
        Said("What happened since the tick before; null without one, or when the counters were reset in between."),
    ]
    clients: Annotated[list[Client], Said("Clients, as pool show has them.")]
    histograms: Annotated[
        dict[str, list[HistogramBucket]], Said("Samples of latency by operation, since creation or the last reset.")
    ]


@dataclass(frozen=True, kw_only=True)
class Top(Document):
    """What `speckvctl top --json` prints: one document a tick, each on a line of its own, or one with --once."""

    schema: ClassVar[str] = "speckvctl.top"
    tick: Annotated[int, Said("Number of the tick, from 1 on.", minimum=0)]
    time_ns: Annotated[int, Said("When it was taken, CLOCK_REALTIME.", minimum=0)]
    interval_ns: Annotated[
        int | None, Said("Time since the tick before; null on the first one of a screen.", minimum=0)
    ]
    devices: Annotated[list[TopDevice], Said("Devices.")]
    pools: Annotated[list[TopPool], Said("Pools, in the order asked for.")]
    events: Annotated[list[EventRow], Said("Events since the tick before; at the first tick, the last ones there are.")]

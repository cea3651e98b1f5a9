# SPDX-License-Identifier: MIT
"""Turns samples into ticks: the document of each, rates between two, and the history for sparklines."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speckvctl import describe, results
from speckvctl.top.sampling import DeviceSample, PoolSample, Sample, Sampler

if TYPE_CHECKING:
    import speckv

#: Ticks kept for sparklines, and events kept.
HISTORY = 120
EVENTS = 200
#: Events shown at the first tick, which has no predecessor.
FIRST_EVENTS = 20
OPERATIONS = ("get", "put", "lookup", "stage")


@dataclass
class Trend:
    """A pool's last ticks, the newest last; None without a measurement."""

    read: deque[int | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    written: deque[int | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    p99: deque[int | None] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def add(self, interval: results.PoolInterval | None) -> None:
        self.read.append(interval.out_bytes_per_second if interval else None)
        self.written.append(interval.in_bytes_per_second if interval else None)
        self.p99.append(interval.latency["get"].p99_ns if interval else None)


@dataclass
class Model:
    """Ticks of one sampler."""

    sampler: Sampler
    trends: dict[str, Trend] = field(default_factory=dict)
    """By uuid of the pool."""
    events: deque[results.EventRow] = field(default_factory=lambda: deque(maxlen=EVENTS))
    ticks: int = 0
    _last: Sample | None = None

    def baseline(self) -> None:
        """Take a sample without a tick, so that the next tick has rates."""
        self._last = self.sampler.look()
        self.events.extend(self._last.events[-FIRST_EVENTS:])

    def tick(self) -> results.Top:
        last, sample = self._last, self.sampler.look()
        self._last = sample
        self.ticks += 1
        before = {pool.info.uuid: pool for device in last.devices for pool in device.pools} if last else {}
        devices, pools = [], []
        for device in sample.devices:
            own = [top_pool(device, pool, before.get(pool.info.uuid)) for pool in device.pools]
            devices.append(top_device(device, own, told=last is not None))
            pools += own
        new = sample.events if last is not None else sample.events[-FIRST_EVENTS:]
        shown = [*self.events, *new] if self.ticks == 1 else new
        self.events.extend(new)
        self._follow(pools)
        return results.Top(
            tick=self.ticks,
            time_ns=sample.time_ns,
            interval_ns=sample.at_ns - last.at_ns if last else None,
            devices=devices,
            pools=pools,
            events=shown,
        )

    def _follow(self, pools: list[results.TopPool]) -> None:
        there = {top.pool.uuid for top in pools}
        for gone in self.trends.keys() - there:
            del self.trends[gone]
        for top in pools:
            self.trends.setdefault(top.pool.uuid, Trend()).add(top.interval)


# ---- the parts of a tick ---------------------------------------------------------------------------------------------


def top_device(sample: DeviceSample, pools: list[results.TopPool], *, told: bool) -> results.TopDevice:
    device = sample.device
    inside = [top for top in pools if top.stats is not None]
    intervals = [top.interval for top in pools if top.interval is not None]
    known = told and (device.state == "ready" or bool(inside))
    return results.TopDevice(
        name=device.name,
        kind=device.kind,
        state=device.state,
        found=device.found,
        health=sample.health,
        temperature_millicelsius=sample.temperature_millicelsius,
        link=sample.link,
        queue_depth=sample.queue_depth,
        pools=device.pools,
        clients=sum(len(top.clients) for top in inside) if device.state == "ready" or inside else None,
        capacity_bytes=device.capacity_bytes,
        allocated_bytes=device.allocated_bytes,
        free_bytes=device.free_bytes,
        in_bytes_per_second=sum(each.in_bytes_per_second for each in intervals) if known else None,
        out_bytes_per_second=sum(each.out_bytes_per_second for each in intervals) if known else None,
    )


def top_pool(device: DeviceSample, now: PoolSample, before: PoolSample | None) -> results.TopPool:
    stats, depth = now.stats, device.prefetch_depth
    pool = describe.pool(device.device.name, now.info)
    if stats is None:
        return results.TopPool(pool=pool, stats=None, prefetching=None, interval=None, clients=[], histograms={})
    return results.TopPool(
        pool=pool,
        stats=describe.statistics(stats, pool.name, now.tenants),
        prefetching=prefetching(stats.counters, depth),
        interval=interval(before, now, depth),
        clients=describe.clients(now.clients, now.tenants),
        histograms={operation: buckets(stats, operation) for operation in OPERATIONS},
    )


def prefetching(counters: dict[str, int], depth: int | None) -> results.Prefetching:
    """Shares of an interval, capped at 1: blocks requested or staged before it may be used in it."""
    asked, staged = counters["prefetches"], counters["prefetched"]
    used, unused = counters["prefetch_used"], counters["prefetch_unused"]
    return results.Prefetching(
        asked=asked,
        staged=staged,
        used=used,
        unused=unused,
        accuracy=describe.share(min(used, asked), asked),
        coverage=describe.share(min(used, counters["hits"]), counters["hits"]),
        unused_share=describe.share(min(unused, staged), staged),
        late_share=None,
        depth=depth,
    )


def buckets(stats: speckv.Stats, operation: str) -> list[results.HistogramBucket]:
    import speckv

    counted = zip(speckv.histogram_bounds(), stats.histograms[operation], strict=True)
    return [results.HistogramBucket(up_to_ns=bound, count=count) for bound, count in counted if count]


def interval(before: PoolSample | None, now: PoolSample, depth: int | None) -> results.PoolInterval | None:
    """Activity between two samples; None if the counters were reset in between."""
    if before is None or before.stats is None or now.stats is None or now.at_ns <= before.at_ns:
        return None
    grown = growth(before.stats, now.stats)
    if grown is None:
        return None
    elapsed, counters = now.at_ns - before.at_ns, grown.counters
    return results.PoolInterval(
        elapsed_ns=elapsed,
        in_bytes_per_second=per_second(counters["bytes_in_raw"], elapsed),
        out_bytes_per_second=per_second(counters["bytes_out_raw"], elapsed),
        gets_per_second=round(counters["gets"] * 1e9 / elapsed, 3),
        puts_per_second=round(counters["puts"] * 1e9 / elapsed, 3),
        hit_share=describe.share(counters["hits"], counters["wanted"]),
        counters=counters,
        latency={operation: describe.latency(grown, operation) for operation in OPERATIONS},
        prefetching=prefetching(counters, depth),
        tenants=tenant_rates(before.tenants, now.tenants, elapsed),
    )


def growth(before: speckv.Stats, now: speckv.Stats) -> speckv.Stats | None:
    import speckv

    counters = {name: value - before.counters[name] for name, value in now.counters.items()}
    histograms = {
        name: tuple(new - old for new, old in zip(after, before.histograms[name], strict=True))
        for name, after in now.histograms.items()
    }
    lowest = min(min(counters.values()), *(min(each) for each in histograms.values()))
    if before.since_ns != now.since_ns or lowest < 0:
        return None
    return speckv.Stats(now.taken_ns, before.taken_ns, counters, histograms)


def tenant_rates(
    before: list[speckv.TenantInfo], now: list[speckv.TenantInfo], elapsed: int
) -> list[results.TenantRates]:
    """No rates for a slot whose tenant changed or whose counters were reset."""
    known = {(tenant.index, tenant.name): tenant for tenant in before}
    rates = []
    for tenant in now:
        old = known.get((tenant.index, tenant.name))
        if old is None or any(
            getattr(tenant, name) < getattr(old, name) for name in ("wanted", "hits", "bytes_in", "bytes_out")
        ):
            continue
        rates.append(
            results.TenantRates(
                name=tenant.name,
                index=tenant.index,
                hit_share=describe.share(tenant.hits - old.hits, tenant.wanted - old.wanted),
                in_bytes_per_second=per_second(tenant.bytes_in - old.bytes_in, elapsed),
                out_bytes_per_second=per_second(tenant.bytes_out - old.bytes_out, elapsed),
            )
        )
    return rates


def per_second(amount: int, elapsed_ns: int) -> int:
    return round(amount * 10**9 / elapsed_ns)

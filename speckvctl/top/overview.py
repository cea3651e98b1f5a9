# SPDX-License-Identifier: MIT
"""The first view: devices, pools, prefetchers, tenants and events, as much of each as fits."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from speckvctl import results
from speckvctl.quantities import format_count, format_ratio, format_share, suggested_size
from speckvctl.render.text import one_line
from speckvctl.top import figures, state
from speckvctl.top.columns import Column, Row, table
from speckvctl.top.model import Trend
from speckvctl.top.state import State, Window

TREND_CELLS = 8
_GOOD = {"ready", "active", "healthy", "info"}
_BAD = {"unrecognized", "other_version", "incomplete", "truncated", "failed", "error", "fatal", "tripped", "memory"}


def shade(words: str) -> str:
    """The colour of a state, or of conditions with commas between them."""
    each = set(words.split(","))
    return "" if words == "-" else "green" if each <= _GOOD else "red" if each & _BAD else "yellow"


# ---- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TenantRow:
    """A tenant, with its pool and its recent activity."""

    device: str
    pool: str
    tenant: results.Tenant
    rates: results.TenantRates | None

    def hit_share(self, window: Window) -> float | None:
        if window is Window.NOW:
            return self.rates.hit_share if self.rates else None
        return self.tenant.hit_share


def tenant_rows(pools: Sequence[results.TopPool]) -> list[TenantRow]:
    rows = []
    for top in pools:
        rates = {each.index: each for each in top.interval.tenants} if top.interval else {}
        for tenant in top.stats.tenants if top.stats else []:
            rows.append(TenantRow(top.pool.device, top.pool.name, tenant, rates.get(tenant.index)))
    return rows


def device_columns() -> list[Column[results.TopDevice]]:
    return [
        Column("DEVICE", lambda d: d.name, right=False, cut=10),
        Column("STATE", lambda d: d.state, 1, right=False, style=lambda d: shade(d.state)),
        Column("HEALTH", lambda d: d.health or "-", 2, right=False, cut=7, style=lambda d: shade(d.health or "-")),
        Column("TEMP", lambda d: figures.temperature(d.temperature_millicelsius), 3, least=5),
        Column("LINK", lambda d: d.link or "-", 6),
        Column("QUEUE", lambda d: format_count(d.queue_depth), 5),
        Column("POOLS", lambda d: format_count(d.pools), 4),
        Column("CLIENTS", lambda d: format_count(d.clients), 7),
        Column("ALLOC", lambda d: figures.size(d.allocated_bytes), 2, least=5),
        Column("SIZE", lambda d: figures.size(d.capacity_bytes), 2, least=5),
        Column("FREE", lambda d: figures.size(d.free_bytes), 8, least=5),
        Column("IN/s", lambda d: figures.size(d.in_bytes_per_second), 1, least=5),
        Column("OUT/s", lambda d: figures.size(d.out_bytes_per_second), 1, least=5),
        Column("FOUND", lambda d: d.found, 9, right=False, cut=12),
    ]


def wrong_columns() -> list[Column[results.TopDevice]]:
    return [
        Column("NOT READY", lambda d: d.name, right=False, cut=10),
        Column("WHY", lambda d: d.found, right=False, cut=20),
    ]


def pool_columns(
    window: Window, trends: Mapping[str, Trend] | None, *, many_devices: bool
) -> list[Column[results.TopPool]]:
    """Columns with "/s" are always of the last interval; HIT and latencies are of the window."""

    def quantile(operation: str, name: str) -> Callable[[results.TopPool], str]:
        def cell(top: results.TopPool) -> str:
            found = state.latency(top, window, operation)
            return figures.duration(getattr(found, name) if found else None)

        return cell

    def told(name: str, text: Callable[..., str]) -> Callable[[results.TopPool], str]:
        return lambda top: text(getattr(top.interval, name) if top.interval else None)

    def trend(title: str, name: str, rank: int) -> list[Column[results.TopPool]]:
        if trends is None:
            return []
        known = trends

        def cell(top: results.TopPool) -> str:
            mine = known.get(top.pool.uuid)
            return figures.sparkline(getattr(mine, name), TREND_CELLS) if mine else ""

        return [Column(title, cell, rank, least=TREND_CELLS, trend=True, style=lambda top: "cyan")]

    pool: list[Column[results.TopPool]] = [
        Column("POOL", lambda t: t.pool.name, right=False, cut=8),
        Column("DEVICE", lambda t: t.pool.device, 1 if many_devices else 13, right=False, cut=9),
        Column("CODEC", lambda t: t.pool.codec, 10, right=False),
        Column("STATE", lambda t: t.pool.state, 12, right=False, style=lambda t: shade(t.pool.state)),
        Column("CLIENTS", lambda t: format_count(t.pool.clients), 11),
        Column("BLOCKS", lambda t: format_count(t.pool.blocks), 11),
        Column("USED", lambda t: figures.size(t.pool.used_bytes), 2, least=5),
        Column("SIZE", lambda t: figures.size(t.pool.capacity_bytes), 8, least=5),
        Column("RAW", lambda t: figures.size(t.pool.raw_bytes), 4, least=5),
        Column("RATIO", lambda t: format_ratio(t.pool.ratio), 3),
        Column("HIT", lambda t: format_share(state.hit_share(t, window)), 2, least=6),
        Column("GETS/s", told("gets_per_second", figures.rate), 9),
        Column("PUTS/s", told("puts_per_second", figures.rate), 9),
        Column("IN/s", told("in_bytes_per_second", figures.size), 2, least=5),
        *trend("IN TREND", "written", 14),
        Column("OUT/s", told("out_bytes_per_second", figures.size), 2, least=5),
        *trend("OUT TREND", "read", 13),
        Column("GETp50", quantile("get", "p50_ns"), 7, least=6),
        Column("GETp99", quantile("get", "p99_ns"), 5, least=6),
        Column("GETp99.9", quantile("get", "p999_ns"), 12, least=6),
        Column("PUTp50", quantile("put", "p50_ns"), 10, least=6),
        Column("PUTp99", quantile("put", "p99_ns"), 5, least=6),
        *trend("P99 TREND", "p99", 6),
    ]
    return pool


def prefetch_columns(window: Window) -> list[Column[results.TopPool]]:
    def counted(name: str) -> Callable[[results.TopPool], str]:
        return lambda top: format_count(getattr(state.prefetching(top, window), name, None))

    def shared(name: str) -> Callable[[results.TopPool], str]:
        return lambda top: format_share(getattr(state.prefetching(top, window), name, None))

    return [
        Column("PREFETCHER", lambda t: t.pool.name, right=False, cut=8),
        Column("ACCURACY", shared("accuracy"), 1),
        Column("COVERAGE", shared("coverage"), 2),
        Column("LATE", shared("late_share"), 4, least=6),
        Column("UNUSED", shared("unused_share"), 3),
        Column("DEPTH", counted("depth"), 5),
        Column("ASKED", counted("asked"), 6),
        Column("STAGED", counted("staged"), 7),
        Column("USED", counted("used"), 7),
        Column("UNREAD", counted("unused"), 7),
    ]


def tenant_columns(window: Window) -> list[Column[TenantRow]]:
    def told(name: str) -> Callable[[TenantRow], str]:
        return lambda row: figures.size(getattr(row.rates, name, None))

    return [
        Column("TENANT", lambda row: row.tenant.name, right=False, cut=8),
        Column("POOL", lambda row: row.pool, 1, right=False, cut=8),
        Column("CLIENTS", lambda row: format_count(row.tenant.clients), 6),
        Column("USED", lambda row: figures.size(row.tenant.used_bytes), 3, least=5),
        Column("BLOCKS", lambda row: format_count(row.tenant.blocks), 5),
        Column("HIT", lambda row: format_share(row.hit_share(window)), 2, least=6),
        Column("PUTS", lambda row: format_count(row.tenant.puts), 8),
        Column("GETS", lambda row: format_count(row.tenant.gets), 8),
        Column("IN/s", told("in_bytes_per_second"), 2, least=5),
        Column("OUT/s", told("out_bytes_per_second"), 2, least=5),
        Column("EVICTED", lambda row: format_count(row.tenant.evicted_blocks), 7),
    ]


def event_columns() -> list[Column[results.EventRow]]:
    return [
        Column("TIME", lambda e: time.strftime("%H:%M:%S", time.localtime(e.time_ns // 10**9)), right=False),
        Column("LEVEL", lambda e: e.severity, 2, right=False, style=lambda e: shade(e.severity)),
        Column("WHERE", lambda e: f"{e.device}/{e.pool}" if e.pool else e.device, 1, right=False, cut=14),
        Column("EVENT", lambda e: e.text, right=False, cut=8),
    ]


# ---- sections --------------------------------------------------------------------------------------------------------


@dataclass
class Section:
    """A table, or a sentence if it would be empty."""

    rows: int
    draw: Callable[[int, int], list[Text]]
    """Lines for (width, rows)."""
    need: int
    """Sections with a lower one get room first."""
    patient: bool = False
    """Grows only when all others have what they want."""


def sections(
    document: results.Top, chosen: State, trends: Mapping[str, Trend] | None, events: Sequence[results.EventRow]
) -> list[Section]:
    pools = chosen.pools(document)
    if not document.devices:
        return [
            sentence("No device yet. Next: speckvctl pool create host:DRAM NAME --size 64MiB"),
            *log(events),
        ]
    devices = document.devices
    parts = [rows_of(device_columns(), devices, 1)]
    if wrong := [device for device in devices if device.state not in ("ready", "factory")]:
        parts.append(rows_of(wrong_columns(), wrong, 5))
    if pools:
        parts.append(pool_section(document, chosen, trends, pools))
    elif document.pools:
        wanted = chosen.editor.text if chosen.editor else chosen.filter
        parts.append(sentence(f"No pool has '{wanted}' in its name. Escape clears the filter."))
    else:
        ready = [device for device in devices if device.state == "ready"]
        where, size = (ready[0].name, suggested_size(ready[0].free_bytes)) if ready else ("host:DRAM", "64MiB")
        parts.append(sentence(f"No pools to see. Next: speckvctl pool create {where} NAME --size {size}"))
    asked = [top for top in pools if top.prefetching is not None and top.prefetching.asked]
    if asked:
        parts.append(rows_of(prefetch_columns(chosen.window), asked, 3))
    tenants = tenant_rows(pools)
    if tenants:
        parts.append(rows_of(tenant_columns(chosen.window), tenants, 4))
    return [*parts, *log(events)]


#: Orders whose column has a different title.
_TITLES = {"name": "POOL", "in": "IN/s", "out": "OUT/s", "p99": "GETp99"}


def pool_section(
    document: results.Top, chosen: State, trends: Mapping[str, Trend] | None, pools: list[results.TopPool]
) -> Section:
    columns = pool_columns(chosen.window, trends, many_devices=len(document.devices) > 1)
    marked = _TITLES.get(chosen.order, chosen.order.upper())
    at = chosen.cursor(pools) if trends is not None else None

    def draw(width: int, count: int) -> list[Text]:
        chosen.page = max(1, count)
        first = min(max(0, (at or 0) - count + 1), max(0, len(pools) - count))
        note = more(len(pools), count, first)
        return table(columns, pools, width, first=first, count=count, selected=at, marked=marked, note=note)

    return Section(len(pools), draw, 0)


def log(events: Sequence[results.EventRow]) -> list[Section]:
    """The last events, the newest at the bottom."""
    if not events:
        return []
    shown = list(events)
    return [Section(len(shown), lambda w, n: table(event_columns(), shown[len(shown) - n :], w), 2, patient=True)]


def rows_of(columns: Sequence[Column[Row]], rows: Sequence[Row], need: int) -> Section:
    return Section(len(rows), lambda w, n: table(columns, rows, w, count=n, note=more(len(rows), n)), need)


def sentence(text: str) -> Section:
    def draw(width: int, count: int) -> list[Text]:
        return folded(text, width)[: count + 1]

    return Section(3, draw, 0)


def folded(text: str, width: int, style: str = "") -> list[Text]:
    """Wrap a sentence."""
    lines = [Text(line, style, no_wrap=True) for line in textwrap.wrap(one_line(text), max(1, width))]
    for line in lines:
        line.truncate(width)
    return lines


def more(total: int, count: int, first: int = 0) -> str:
    return f"{first + 1} to {first + count} of {total}" if 0 < count < total else ""


def allot(parts: Sequence[Section], height: int) -> list[int | None]:
    """Rows for each section; None: no room for its title and one row."""
    rows: list[int | None] = [None] * len(parts)
    left = height + 1  # the first one needs no blank line before it
    by_need = sorted(range(len(parts)), key=lambda i: parts[i].need)
    for i in by_need:
        if left >= 3:
            rows[i] = 1
            left -= 3
    for i in sorted(by_need, key=lambda i: parts[i].patient):
        mine = rows[i]
        if mine is not None:
            given = min(left, parts[i].rows - mine)
            rows[i] = mine + given
            left -= given
    return rows


def lines(parts: Sequence[Section], width: int, height: int | None) -> list[Text]:
    """The sections, a blank line between two. `height` None: all of them whole."""
    rows = [part.rows for part in parts] if height is None else allot(parts, height)
    shown: list[Text] = []
    for part, count in zip(parts, rows, strict=True):
        if count is not None:
            shown += [*([Text()] if shown else []), *part.draw(width, count)]
    return shown

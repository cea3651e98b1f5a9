# SPDX-License-Identifier: MIT
"""The view of one pool, in tabs, and the help page. Returns all lines; the renderer scrolls."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from speckvctl import results
from speckvctl.quantities import format_count, format_ratio, format_share, format_time
from speckvctl.render.text import one_line
from speckvctl.top import figures
from speckvctl.top.columns import Column, table
from speckvctl.top.model import OPERATIONS, Trend
from speckvctl.top.overview import event_columns, tenant_columns, tenant_rows
from speckvctl.top.state import Tab, Window

HELP = """\
KEYS, OVERVIEW
  up down       choose a pool (k, j, page up, page down, home, end too)
  enter, right  open it
  s             next order: name, used, raw, ratio, hit, in, out, p99
  r             reverse the order
  /             show only pools with this in device/pool: enter keeps it,
                escape gives it up; arrows, ctrl-a, e, u, k, w edit
  escape        clear the filter
KEYS, ONE POOL
  1 to 5        summary, tenants, clients, histograms, events
  left, right   the tab before, the next tab
  up, down      scroll
  escape        back to all pools
KEYS, EVERYWHERE
  p             pause: nothing is read until p or space
  space         a tick now
  t             hit shares, latencies and prefetches: of the last interval
                (now), or since creation or the last reset (total)
  ?             this page
  q, ctrl-c     leave
COLUMNS
  IN/s OUT/s    raw bytes put and got a second, in the last interval
  USED SIZE     stored bytes in whole pages, of the pool's capacity
  RAW RATIO     bytes before compression, and how many of them a stored
                byte holds, with headers and checksums
  HIT           blocks served, over blocks wanted: gets, and
                look-ups that found nothing
  GETp50 ...    latency of a get, or of a put, per block, as clients measured
                it: the upper bound of a histogram's bucket, at most a quarter
                too high
  ALLOC         of a device: what its pools take, full or not
  TREND         the last ticks, the highest full height
  HEALTH TEMP   a card's; LINK and QUEUE too: "-" where unavailable
PREFETCHER
  ACCURACY      staged blocks that a get was served from, over blocks asked
                to be staged
  COVERAGE      the same, over gets that found their block
  LATE          arrived after the demand: "-", pools do not count them yet
  UNUSED        staged blocks thrown out unread, over staged blocks
  DEPTH         blocks ahead along a chain, as the card is set; "-" on a host
                engine: each client chooses
"""


def help_lines(width: int) -> list[Text]:
    lines = []
    for line in HELP.splitlines():
        text = Text(line, style="" if line.startswith(" ") else "bold", no_wrap=True)
        text.truncate(width)
        lines.append(text)
    return lines


def pool_lines(
    top: results.TopPool,
    tab: Tab,
    window: Window,
    trend: Trend | None,
    events: Sequence[results.EventRow],
    width: int,
) -> list[Text]:
    heading = [_tabs(tab), Text()]
    if top.stats is None:
        return [*heading, Text("No permission to look inside. Next: speckvctl doctor")]
    match tab:
        case Tab.SUMMARY:
            body = _summary(top, trend, width)
        case Tab.TENANTS:
            rows, columns = tenant_rows([top]), [each for each in tenant_columns(window) if each.title != "POOL"]
            body = table(columns, rows, width) if rows else _none("tenant")
        case Tab.CLIENTS:
            body = table(client_columns(), top.clients, width) if top.clients else _none("client")
        case Tab.HISTOGRAMS:
            body = _histograms(top, width)
        case Tab.EVENTS:
            own = [event for event in events if (event.device, event.pool) == (top.pool.device, top.pool.name)]
            body = table(event_columns(), own, width) if own else _none("event")
    return [*heading, *body]


def _none(noun: str) -> list[Text]:
    return [Text(f"No {noun}s.")]


def _tabs(tab: Tab) -> Text:
    line = Text(no_wrap=True)
    for number, each in enumerate(Tab, 1):
        line.append(f" {number} {each} ", "reverse" if each is tab else "dim").append(" ")
    return line


# ---- summary ---------------------------------------------------------------------------------------------------------


def _summary(top: results.TopPool, trend: Trend | None, width: int) -> list[Text]:
    pool, stats, now = top.pool, top.stats, top.interval
    assert stats is not None
    shape = pool.geometry
    block = f"{shape.layers}x{shape.kv_heads}x{shape.tokens}x{shape.head_dim}"
    facts: list[tuple[str, str]] = [
        ("Device", f"{pool.device}, {pool.state}"),
        ("Codec", f"{pool.codec}, eviction {pool.eviction}"),
        ("Block", f"{figures.size(pool.block_bytes)}: {block} {shape.dtype}"),
        ("Used", f"{figures.size(pool.used_bytes)} of {figures.size(pool.capacity_bytes)}"),
        ("Quota", figures.size(pool.quota_bytes)),
        ("Blocks", format_count(pool.blocks)),
        ("Raw", f"{figures.size(pool.raw_bytes)} in {figures.size(pool.stored_bytes)}"),
        ("Ratio", format_ratio(pool.ratio)),
        ("Effective", figures.size(pool.effective_capacity_bytes)),
        ("Counts since", format_time(stats.since_ns)),
    ]
    lines = _pairs(facts, width)
    lines += [Text(), *table(_traffic_columns(), _traffic(top), width)]
    if trend is not None:
        lines += [Text(), *_trends(trend, width)]
    lines += [Text(), *table(_latency_columns(), _latencies(top), width)]
    asked: list[_Prefetch] = [("total", top.prefetching), ("now", now.prefetching if now else None)]
    lines += [Text(), *table(_prefetch_columns(), [row for row in asked if row[1] is not None], width)]
    counters = [
        (name, value, now.counters[name] if now else None) for name, value in stats.counters.items() if value or now
    ]
    return [*lines, Text(), *table(_counter_columns(), counters, width)]


def _pairs(facts: Sequence[tuple[str, str]], width: int) -> list[Text]:
    """Labels and values, in two columns where both fit."""
    label = max(len(name) for name, _ in facts) + 2
    value = max(len(text) for _, text in facts) + 2
    across = 2 if width >= 2 * (label + value) else 1
    half = -(-len(facts) // across)
    lines = []
    for row in range(half):
        line = Text(no_wrap=True)
        for name, text in facts[row::half][:across]:
            line.append(name.ljust(label), "dim").append(one_line(text).ljust(value))
        line.rstrip()
        line.truncate(width)
        lines.append(line)
    return lines


_Traffic = tuple[str, float | None, float | None, int | None, int | None, float | None]


def _traffic(top: results.TopPool) -> list[_Traffic]:
    now, stats = top.interval, top.stats
    assert stats is not None
    shares: list[_Traffic] = [("total", None, None, None, None, stats.hit_share)]
    if now is None:
        return shares
    rates = (now.gets_per_second, now.puts_per_second, now.in_bytes_per_second, now.out_bytes_per_second)
    return [*shares, ("now", *rates, now.hit_share)]


def _traffic_columns() -> list[Column[_Traffic]]:
    return [
        Column("TRAFFIC", lambda row: row[0], right=False),
        Column("HIT", lambda row: format_share(row[5]), 1, least=6),
        Column("GETS/s", lambda row: figures.rate(row[1]), 2, least=7),
        Column("PUTS/s", lambda row: figures.rate(row[2]), 2, least=7),
        Column("IN/s", lambda row: figures.size(row[3]), 1, least=7),
        Column("OUT/s", lambda row: figures.size(row[4]), 1, least=7),
    ]


def _trends(trend: Trend, width: int) -> list[Text]:
    label = 10
    rows = (("OUT/s", trend.read), ("IN/s", trend.written), ("P99 of get", trend.p99))
    lines = []
    for name, values in rows:
        line = Text(no_wrap=True)
        line.append(name.ljust(label), "bold").append("  ")
        line.append(figures.sparkline(values, max(0, min(len(values), width - label - 2))), "cyan")
        line.truncate(width)
        lines.append(line)
    return lines


_Latency = tuple[str, str, results.Latency]


def _latencies(top: results.TopPool) -> list[_Latency]:
    now, stats = top.interval, top.stats
    assert stats is not None
    rows: list[_Latency] = []
    for operation in OPERATIONS:
        if stats.latency[operation].count:
            rows.append((operation, "total", stats.latency[operation]))
            if now is not None:
                rows.append((operation, "now", now.latency[operation]))
    return rows


def _latency_columns() -> list[Column[_Latency]]:
    return [
        Column("LATENCY", lambda row: row[0], right=False),
        Column("OF", lambda row: row[1], right=False, least=5),
        Column("COUNT", lambda row: format_count(row[2].count), 3, least=7),
        Column("P50", lambda row: figures.duration(row[2].p50_ns), 1, least=6),
        Column("P90", lambda row: figures.duration(row[2].p90_ns), 4, least=6),
        Column("P99", lambda row: figures.duration(row[2].p99_ns), 1, least=6),
        Column("P99.9", lambda row: figures.duration(row[2].p999_ns), 2, least=6),
    ]


_Prefetch = tuple[str, results.Prefetching | None]


def _prefetch_columns() -> list[Column[_Prefetch]]:
    def counted(name: str) -> Column[_Prefetch]:
        return Column(name.upper(), lambda row: format_count(getattr(row[1], name)), 4)

    def shared(title: str, name: str, rank: int) -> Column[_Prefetch]:
        return Column(title, lambda row: format_share(getattr(row[1], name)), rank, least=6)

    return [
        Column("PREFETCHER", lambda row: row[0], right=False),
        shared("ACCURACY", "accuracy", 1),
        shared("COVERAGE", "coverage", 2),
        shared("LATE", "late_share", 3),
        shared("UNUSED", "unused_share", 2),
        Column("DEPTH", lambda row: format_count(row[1].depth if row[1] else None), 3),
        counted("asked"),
        counted("staged"),
        counted("used"),
    ]


_Counter = tuple[str, int, int | None]


def _counter_columns() -> list[Column[_Counter]]:
    return [
        Column("COUNTER", lambda row: row[0], right=False),
        Column("TOTAL", lambda row: format_count(row[1]), 0, least=13),
        Column("NOW", lambda row: format_count(row[2]), 1, least=13),
    ]


# ---- clients and histograms ------------------------------------------------------------------------------------------


def client_columns() -> list[Column[results.Client]]:
    return [
        Column("PID", lambda c: str(c.pid), least=6),
        Column("TENANT", lambda c: c.tenant or "-", 1, right=False, cut=8),
        Column("ALIVE", lambda c: "yes" if c.alive else "no", 2, right=False),
        Column("UID", lambda c: str(c.uid), 4),
        Column("SINCE", lambda c: format_time(c.attached_ns), 3, right=False),
        Column("HOLDS", lambda c: figures.size(c.allocated_bytes), 3),
        Column("COMMAND", lambda c: c.command, 1, right=False, cut=8),
    ]


def _histograms(top: results.TopPool, width: int) -> list[Text]:
    lines: list[Text] = []
    for operation, buckets in top.histograms.items():
        if not buckets:
            continue
        whole = sum(bucket.count for bucket in buckets)
        peak = max(bucket.count for bucket in buckets)
        room = max(0, min(60, width - 30))
        columns: list[Column[results.HistogramBucket]] = [
            Column(operation.upper(), lambda b: figures.duration(b.up_to_ns), least=8),
            Column("COUNT", lambda b: format_count(b.count), least=9),
            Column("SHARE", lambda b, whole=whole: format_share(b.count / whole), 1, least=6),  # type: ignore[misc]
            Column(
                "",
                lambda b, peak=peak, room=room: figures.bar(b.count, peak, room),  # type: ignore[misc]
                2,
                right=False,
                style=lambda b: "cyan",
            ),
        ]
        lines += [*([Text()] if lines else []), *table(columns, buckets, width)]
    return lines or [Text("No samples.")]

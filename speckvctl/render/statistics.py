# SPDX-License-Identifier: MIT
"""Statistics and events as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_duration, format_ratio, format_share, format_size, format_time
from speckvctl.render.dispatch import STATES, lines_of, next_step
from speckvctl.render.pools import tenant_table
from speckvctl.render.text import columns, hung, one_line, paint, pairs, room


@lines_of.register
def counted(document: results.StatsDocument) -> list[str]:
    if not document.pools:
        return [f"No pools on {document.device}." + next_step(document.next)]
    lines: list[str] = []
    for stats in document.pools:
        lines += [*([""] if lines else []), *_pool_stats(stats)]
    if document.reset:
        lines += ["", "Would set these counters to zero." if document.dry_run else "These counters are zero again."]
    return lines


def _pool_stats(stats: results.PoolStats) -> list[str]:
    c = {name: format_count(value) for name, value in stats.counters.items()}
    read, written = stats.counters["bytes_out_raw"], stats.counters["bytes_in_raw"]
    lines = pairs(
        [
            ("Pool", f"{stats.pool}, since {format_time(stats.since_ns)}"),
            ("Hit share", f"{format_share(stats.hit_share)}: {c['hits']} of {c['wanted']} wanted blocks served"),
            ("Gets", f"{c['gets']}, {c['misses']} not there, {c['bad']} of them bad"),
            (
                "Puts",
                f"{c['puts']} stored, {c['put_bit_exact']} of them bit-exact, {c['put_existed']} were there, "
                f"{c['put_failed']} failed",
            ),
            ("Look-ups", f"{c['lookups']}, {c['lookup_hits']} found"),
            ("Removed", f"{c['evictions']} evicted, {c['drops']} dropped"),
            (
                "Prefetch",
                f"{c['prefetches']} asked, {c['prefetched']} staged, "
                f"{c['prefetch_used']} used, {c['prefetch_unused']} unused",
            ),
            ("Bytes", f"{format_size(written)} in, {format_size(read)} out, ratio {format_ratio(stats.ratio)}"),
        ]
    )
    measured = [(name, latency) for name, latency in stats.latency.items() if latency.count]
    if measured:
        lines += [
            "",
            *columns(
                ["LATENCY", ">COUNT", ">P50", ">P90", ">P99", ">P99.9"],
                [
                    [
                        name,
                        format_count(latency.count),
                        format_duration(latency.p50_ns),
                        format_duration(latency.p90_ns),
                        format_duration(latency.p99_ns),
                        format_duration(latency.p999_ns),
                    ]
                    for name, latency in measured
                ],
            ),
        ]
    if stats.tenants:
        lines += ["", *tenant_table(stats.tenants)]
    return lines


@lines_of.register
def happened(document: results.EventsDocument) -> list[str]:
    if not document.events:
        return ["No events."]
    # No heading, so that successive batches read as one list.
    width = room()
    lines: list[str] = []
    for event in document.events:
        where = f"{one_line(event.device)}{'/' + event.pool if event.pool else ''}"
        head = f"{format_time(event.time_ns)}  {_severity(event.severity)}  {where}  "
        lines += hung(head, one_line(event.text), width)
    return lines


def _severity(severity: str) -> str:
    padded = severity.ljust(7)
    return paint(padded, STATES[severity]) if severity in STATES else padded

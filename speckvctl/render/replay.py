# SPDX-License-Identifier: MIT
"""Results of a replay as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_duration, format_ratio, format_share, format_size
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import one_line, paint, pairs, plural


@lines_of.register
def replayed(document: results.Replay) -> list[str]:
    where = f"{document.pool} on {document.device}"
    what = f"{one_line(document.trace)} ({document.format})"
    if document.dry_run:
        return [
            f"Would replay {plural(document.requests_total, 'request')} of {what} against {where},",
            f"by {plural(document.clients, 'client')}, with blocks of {format_size(document.block_bytes)}.",
        ]
    requests = f"{format_count(document.requests)} of {format_count(document.requests_total)}"
    blocks = f"{plural(document.blocks_read, 'block')} read, {format_count(document.blocks_written)} written"
    refused = f", {format_count(document.blocks_refused)} refused: no space" if document.blocks_refused else ""
    stored = f"{format_size(document.bytes_raw)} raw in {format_size(document.bytes_stored)}"
    lines = pairs(
        [
            ("Trace", document.trace),
            ("Read as", f"{document.format}, by {plural(document.clients, 'client')}"),
            ("Pool", f"{where}: {document.codec}, blocks of {format_size(document.block_bytes)}"),
            ("Requests", f"{requests} in {format_duration(document.elapsed_ns)}"),
            ("Hit share", f"{format_share(document.hit_share)}: {blocks}{refused}"),
            ("Stored", f"{stored}, ratio {format_ratio(document.ratio)}"),
            ("Get", _call(document.get_p50_ns, document.get_p99_ns, document.get_bytes_per_second)),
            ("Put", _call(document.put_p50_ns, document.put_p99_ns, document.put_bytes_per_second)),
            (
                "Verified",
                f"{plural(document.verified_blocks, 'block')}, {format_count(document.mismatches)} wrong, "
                f"{plural(document.errors, 'error')}",
            ),
        ]
    )
    lines += [paint(one_line(problem), "red") for problem in document.problems]
    if document.mismatches:
        again = f"speckvctl pool check {document.device} {document.pool} --deep"
        lines += ["", paint("Wrong bytes were read.", "red") + f" Next: {again}"]
    elif document.interrupted:
        lines += ["", "Interrupted: this is what was done until then."]
    return lines


def _call(p50_ns: int | None, p99_ns: int | None, bytes_per_second: int | None) -> str:
    if p50_ns is None:
        return "-"
    return f"p50 {format_duration(p50_ns)}, p99 {format_duration(p99_ns)} per block, {format_size(bytes_per_second)}/s"

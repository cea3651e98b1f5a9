# SPDX-License-Identifier: MIT
"""A frame: the heading, the view, the keys; exactly as many lines and cells as the screen has."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.text import Text

from speckvctl import results
from speckvctl.render.text import one_line
from speckvctl.top import overview, poolview
from speckvctl.top.model import Trend
from speckvctl.top.state import State, View, Window

#: In order of priority: the last are dropped first.
_KEYS: dict[View, Sequence[tuple[str, str]]] = {
    View.OVERVIEW: (
        ("q", "quit"),
        ("?", "help"),
        ("enter", "open"),
        ("s", "sort"),
        ("r", "reverse"),
        ("/", "filter"),
        ("p", "pause"),
        ("t", "now/total"),
    ),
    View.POOL: (
        ("q", "quit"),
        ("esc", "back"),
        ("1-5", "tabs"),
        ("up/down", "scroll"),
        ("p", "pause"),
        ("t", "now/total"),
        ("?", "help"),
    ),
    View.HELP: (("esc", "back"), ("up/down", "scroll")),
}


def frame(
    document: results.Top,
    chosen: State,
    trends: Mapping[str, Trend],
    events: Sequence[results.EventRow],
    width: int,
    height: int,
) -> list[Text]:
    """Render a tick. Stores the scroll limits in `chosen`."""
    room = max(0, height - 2)
    if chosen.view is View.OVERVIEW:
        parts = overview.sections(document, chosen, trends, _of_interest(document, chosen, events))
        body = overview.lines(parts, width, room)
    else:
        body = _scrolled(_pages(document, chosen, trends, events, width), chosen, room)
    blank = [Text() for _ in range(room - len(body))]
    lines = [_heading(document, chosen, width), *body[:room], *blank, _footing(chosen, width)]
    return [_exactly(line, width) for line in lines[:height]]


def once(document: results.Top, chosen: State, width: int) -> list[Text]:
    """Render a tick in full, without cursor and keys."""
    lines = overview.lines(overview.sections(document, chosen, None, document.events), width, None)
    if document.interval_ns is None or not document.pools:
        return lines
    told = (
        f"Rates are of the last {document.interval_ns / 1e9:.2f} s, between two samples; "
        "shares and latencies are since creation or the last reset."
    )
    return [*lines, Text(), *overview.folded(told, width, "dim")]


def _of_interest(
    document: results.Top, chosen: State, events: Sequence[results.EventRow]
) -> Sequence[results.EventRow]:
    if not (chosen.filter or chosen.editor):
        return events
    shown = {(top.pool.device, top.pool.name) for top in chosen.pools(document)}
    return [event for event in events if event.pool is None or (event.device, event.pool) in shown]


def _pages(
    document: results.Top,
    chosen: State,
    trends: Mapping[str, Trend],
    events: Sequence[results.EventRow],
    width: int,
) -> list[Text]:
    if chosen.view is View.HELP:
        return poolview.help_lines(width)
    top = chosen.inspected(document)
    if top is None:
        return [Text("This pool is gone. Escape returns to the list.")]
    trend = trends.get(top.pool.uuid)
    return poolview.pool_lines(top, chosen.tab, chosen.window, trend, events, width)


def _scrolled(lines: list[Text], chosen: State, room: int) -> list[Text]:
    """Scroll to the offset; the tabs of a pool stay."""
    fixed = 2 if chosen.view is View.POOL and len(lines) > 2 and room > 4 else 0
    rest, room = lines[fixed:], room - fixed
    chosen.page = max(1, room - 1)
    chosen.lines, chosen.last_offset = len(rest), max(0, len(rest) - room)
    chosen.offset = min(chosen.offset, chosen.last_offset)
    return lines[:fixed] + rest[chosen.offset : chosen.offset + room]


def _heading(document: results.Top, chosen: State, width: int) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(document.time_ns // 10**9))
    arrow = "▲" if chosen.backwards == (chosen.order != "name") else "▼"
    parts = [("speckvctl top", "bold")]
    if chosen.paused:
        parts.append(("PAUSED", "bold yellow"))
    if chosen.view is View.POOL:
        top = chosen.inspected(document)
        if top is not None:
            parts.append((one_line(f"{top.pool.name} on {top.pool.device}"), "bold"))
    parts.append((clock, ""))
    if chosen.filter and chosen.editor is None and chosen.view is View.OVERVIEW:
        parts.append((f"filter: {one_line(chosen.filter)}", "bold"))
    parts.append(("total" if chosen.window is Window.TOTAL else "now", ""))
    if chosen.view is View.OVERVIEW:
        parts.append((f"by {chosen.order} {arrow}", ""))
    parts.append((f"tick {document.tick}", ""))
    if document.interval_ns is not None:
        parts.append((f"over {document.interval_ns / 1e9:.2f}s", ""))
    line = Text(no_wrap=True)
    for text, style in parts:
        more = ("  " if line else "") + text
        if not line or line.cell_len + len(more) <= width:
            line.append(more[: len(more) - len(text)]).append(text, style)
    return line


def _footing(chosen: State, width: int) -> Text:
    line = Text(no_wrap=True)
    if chosen.editor is not None:
        before, after = chosen.editor.text[: chosen.editor.at], chosen.editor.text[chosen.editor.at :]
        # Keep the cursor's surroundings visible.
        before = before[-max(1, width - len("filter: ") - 1 - min(len(after), 8)) :]
        line.append("filter: ", "bold").append(before)
        line.append(after[:1] or " ", "reverse").append(after[1:])
        return line
    if chosen.view is not View.OVERVIEW and chosen.last_offset:
        last = chosen.lines - chosen.last_offset + chosen.offset
        line.append(f"{chosen.offset + 1} to {last} of {chosen.lines}")
    for key, what in _KEYS[chosen.view]:
        if line.cell_len + len(f"  {key} {what}") > width:
            break
        line.append("  " if line else "").append(key, "bold").append(f" {what}", "dim")
    return line


def _exactly(line: Text, width: int) -> Text:
    line.truncate(width)
    line.append(" " * (width - line.cell_len))
    return line

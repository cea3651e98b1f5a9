# SPDX-License-Identifier: MIT
"""Plain text building blocks: aligned columns, labelled values, and colour only where a terminal shows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def colour_wanted() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, style: str) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and colour_wanted() else text


def one_line(text: str) -> str:
    """Names, commands and messages come from others: they may neither break lines nor reach the terminal raw."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str] | None = None) -> list[str]:
    """Aligned columns, two spaces apart, never wrapped. A heading that starts with ">" is right-aligned.

    `styles` colours whole cells by their text ("ready": "green"); it is applied after the widths are known.
    """
    titles = [heading.lstrip(">") for heading in headings]
    right = [heading.startswith(">") for heading in headings]
    table = [[one_line(cell) for cell in row] for row in rows]
    widths = [max([len(titles[i]), *(len(row[i]) for row in table)]) for i in range(len(titles))]

    def line(cells: Sequence[str], style: str | None) -> str:
        out = []
        for i, cell in enumerate(cells):
            last = i == len(cells) - 1
            padded = cell.rjust(widths[i]) if right[i] else cell if last else cell.ljust(widths[i])
            cell_style = style or (styles or {}).get(cell)
            out.append(padded.replace(cell, paint(cell, cell_style), 1) if cell_style and cell else padded)
        return "  ".join(out).rstrip()

    return [line(titles, "bold"), *(line(row, None) for row in table)]


def pairs(items: Iterable[tuple[str, str]], indent: str = "") -> list[str]:
    """Labelled values, one a line, the values aligned."""
    kept = [(label, one_line(value)) for label, value in items]
    width = max((len(label) for label, _ in kept), default=0)
    return [f"{indent}{label.ljust(width)}  {value}".rstrip() for label, value in kept]


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

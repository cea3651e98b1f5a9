# SPDX-License-Identifier: MIT
"""Tables that fit the terminal: the least important columns are dropped first, figures are never cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from speckvctl.render.text import one_line

Row = TypeVar("Row")
GAP = 1
WIDE_GAP = 2


@dataclass(frozen=True)
class Column(Generic[Row]):
    title: str
    cell: Callable[[Row], str]
    rank: int = 0
    """The higher, the earlier it gives way."""
    right: bool = True
    least: int = 0
    """Kept free even where the texts are shorter, so that columns do not jump from tick to tick."""
    cut: int | None = None
    """A name may be cut down to this many cells; None: the text is a figure, whole or not at all."""
    style: Callable[[Row], str] | None = None
    trend: bool = False
    """The text is a picture: blanks in it have their meaning."""


def table(
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    width: int,
    *,
    first: int = 0,
    count: int | None = None,
    selected: int | None = None,
    marked: str | None = None,
    note: str = "",
) -> list[Text]:
    """Titles, and `count` rows from `first` on. Widths are those of all rows, so that scrolling moves nothing.

    `marked`: title of the column that orders the rows; `note`: follows the titles.
    """
    texts = [[column.cell(row) if column.trend else one_line(column.cell(row)) for column in columns] for row in rows]
    natural = [
        max(column.least, cell_len(column.title), *(cell_len(row[i]) for row in texts), 0)
        for i, column in enumerate(columns)
    ]
    room = width - WIDE_GAP - cell_len(note) if note else width
    chosen, widths, gap = _fit(columns, natural, room)
    lines = [_titles(columns, chosen, widths, gap, marked, note, width)]
    last = len(rows) if count is None else min(len(rows), first + count)
    for index in range(first, last):
        line = Text(no_wrap=True)
        for place, i in enumerate(chosen):
            column = columns[i]
            style = column.style(rows[index]) if column.style and index != selected else ""
            line.append(" " * gap if place else "")
            line.append(_padded(texts[index][i], widths[i], column.right), style)
        if index == selected:
            line.append(" " * max(0, width - line.cell_len))
            line.stylize("reverse")
        lines.append(line)
    for line in lines:
        line.truncate(width)
    return lines


def _titles(
    columns: Sequence[Column[Row]],
    chosen: list[int],
    widths: dict[int, int],
    gap: int,
    marked: str | None,
    note: str,
    width: int,
) -> Text:
    line = Text(no_wrap=True)
    for place, i in enumerate(chosen):
        line.append(" " * gap if place else "")
        style = "bold underline" if columns[i].title == marked else "bold"
        padded = _padded(columns[i].title, widths[i], columns[i].right)
        blank = len(padded) - len(columns[i].title)
        if columns[i].right:
            line.append(padded[:blank]).append(padded[blank:], style)
        else:
            line.append(padded[: len(columns[i].title)], style).append(padded[len(columns[i].title) :])
    if note and line.cell_len + WIDE_GAP + cell_len(note) <= width:
        line.append(" " * WIDE_GAP).append(note, "dim")
    return line


def _fit(columns: Sequence[Column[Row]], natural: list[int], width: int) -> tuple[list[int], dict[int, int], int]:
    """Which columns, how wide each, and the gap between them."""
    chosen = list(range(len(columns)))

    least = [
        wide if column.cut is None else min(wide, max(column.cut, cell_len(column.title)))
        for column, wide in zip(columns, natural, strict=True)
    ]

    def needed(gap: int) -> int:
        return sum(least[i] for i in chosen) + gap * (len(chosen) - 1)

    while len(chosen) > 1 and needed(GAP) > width:
        weakest = max(columns[i].rank for i in chosen)
        chosen.remove(next(i for i in reversed(chosen) if columns[i].rank == weakest))
    gap = WIDE_GAP if needed(WIDE_GAP) <= width else GAP
    widths = {i: natural[i] for i in chosen}
    excess = sum(widths.values()) + gap * (len(chosen) - 1) - width
    for i in chosen:
        taken = max(0, min(excess, widths[i] - least[i]))
        widths[i] -= taken
        excess -= taken
    return chosen, widths, gap


def _padded(text: str, width: int, right: bool) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else "…"[:width]
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)

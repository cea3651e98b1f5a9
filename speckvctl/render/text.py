# SPDX-License-Identifier: MIT
"""Plain text building blocks: aligned columns, labelled values, and colour only where a terminal shows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def colour_wanted() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, style: str) -> str:
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and colour_wanted() else text


def one_line(text: str) -> str:
    """Escape control characters: names, commands and messages are untrusted, and must not break lines."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_ESCAPE = re.compile("\x1b\\[[0-9;]*m")
#: Least width to which a table's last column is wrapped.
_LEAST_COLUMN = 24


def room(stream: TextIO | None = None) -> int | None:
    """Width of the terminal: COLUMNS, or its own. None in a pipe, where lines are never wrapped.

    COLUMNS alone does not imply a terminal: readline exports it to child processes.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None or not stream.isatty():
        return None
    if re.fullmatch("0*[1-9][0-9]{0,4}", columns := os.environ.get("COLUMNS", "")):
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # the terminal reports no size
        return 80


def cells(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def wrapped(text: str, columns: int | None, indent: str = "") -> list[str]:
    """Wrap a sentence between words; a command after "Next:" gets a line of its own."""
    if columns is None or cells(text) <= columns:
        return [text]
    said, mark, command = _split_command(text)
    lines = _filled(said.split(" "), columns, indent, "") if said else []
    if command:
        lines += _filled([mark, *command.split(" ")], columns, indent + "  ", " \\", first=indent if lines else "")
    return lines


def _split_command(text: str) -> tuple[str, str, str]:
    for mark in ("Next:", "next:"):
        before, found, after = text.partition(f" {mark} ")
        if found and after.startswith("speckvctl"):
            return before, mark, after
    return text, "", ""


def _filled(words: list[str], columns: int, indent: str, end: str, first: str = "") -> list[str]:
    lines, line, blank = [], first, True
    for word in words:
        if not blank and cells(line) + 1 + cells(word) + len(end) > columns:
            lines.append(line + end)
            line, blank = indent, True
        line += word if blank else f" {word}"
        blank = False
    return [*lines, line]


class Row(str):
    """A line of a table: aligned already, not to be wrapped."""

    __slots__ = ()


def hung(head: str, text: str, columns: int | None) -> list[str]:
    """Wrap text with a hanging indent."""
    left = cells(head)
    if columns is None or columns - left < _LEAST_COLUMN:
        return [Row(f"{head}{text}".rstrip())]
    command = text.startswith("speckvctl ")
    lines = _filled(text.split(" "), columns - left, "  ", " \\") if command else wrapped(text, columns - left)
    return [Row(f"{head if not i else ' ' * left}{line}".rstrip()) for i, line in enumerate(lines)]


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str] | None = None) -> list[str]:
    """Aligned columns, two spaces apart; only the last one is wrapped. A heading that starts with ">" is right-aligned.

    `styles` colours whole cells by their text ("ready": "green"); applied after the widths are computed.
    """
    titles = [heading.lstrip(">") for heading in headings]
    right = [heading.startswith(">") for heading in headings]
    table = [[one_line(cell) for cell in row] for row in rows]
    widths = [max([len(titles[i]), *(len(row[i]) for row in table)]) for i in range(len(titles))]
    width = room()

    def line(cells: Sequence[str], style: str | None) -> list[str]:
        out = []
        for i, cell in enumerate(cells):
            last = i == len(cells) - 1
            padded = cell.rjust(widths[i]) if right[i] else cell if last else cell.ljust(widths[i])
            cell_style = style or (styles or {}).get(cell)
            out.append(padded.replace(cell, paint(cell, cell_style), 1) if cell_style and cell else padded)
        if right[-1]:
            return [Row("  ".join(out).rstrip())]
        head = "  ".join(out[:-1]) + ("  " if out[:-1] else "")
        return hung(head, out[-1], width)

    return [part for cells, style in ((titles, "bold"), *((row, None) for row in table)) for part in line(cells, style)]


def pairs(items: Iterable[tuple[str, str]], indent: str = "") -> list[str]:
    """Labelled values, the values aligned."""
    kept = [(label, one_line(value)) for label, value in items]
    width = max((len(label) for label, _ in kept), default=0)
    return [line for label, value in kept for line in hung(f"{indent}{label.ljust(width)}  ", value, room())]


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

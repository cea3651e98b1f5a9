# SPDX-License-Identifier: MIT
"""Figures short enough for columns, without a space in them: "74.2M" (of bytes, binary), "12.3us"; "-" for None."""

from __future__ import annotations

from collections.abc import Sequence

from speckvctl.quantities import format_duration, format_size

BARS = "▁▂▃▄▅▆▇█"


def size(amount: int | None) -> str:
    return format_size(amount).replace(" ", "").removesuffix("iB")


def duration(nanoseconds: int | None) -> str:
    return format_duration(nanoseconds).replace(" ", "")


def rate(a_second: float | None) -> str:
    """Events a second; a slow rate keeps a digit after the point."""
    if a_second is None:
        return "-"
    return f"{a_second:,.0f}" if a_second >= 100 or a_second == 0 else f"{a_second:.1f}"


def temperature(millicelsius: int | None) -> str:
    return "-" if millicelsius is None else f"{millicelsius / 1000:.1f}C"


def sparkline(values: Sequence[int | None], width: int) -> str:
    """The last `width` values from left to right, the largest of them full height; a gap where there is none."""
    shown = list(values)[-width:] if width > 0 else []
    top = max((value for value in shown if value is not None), default=0)
    line = "".join(" " if value is None else BARS[value * len(BARS) // (top + 1)] for value in shown)
    return line.rjust(width)


def bar(part: int, whole: int, width: int) -> str:
    """A bar; any value above 0 shows at least a sliver."""
    return BARS[-1] * (max(1, part * width // whole) if part and whole and width else 0)

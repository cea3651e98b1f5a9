# SPDX-License-Identifier: MIT
"""Rate-distortion plot as SVG: ratio on the x axis, loss on the y axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from speckvctl import results
from speckvctl.files import replacing

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
COLOURS = {"mode": "#1f5fbf", "compressor": "#888888", "quantiser": "#c0562b", "coder": "#7a3fa0"}


def write(path: Path, document: results.CodecCompare) -> None:
    with replacing(path) as stream:
        stream.write(draw(document).encode())


def draw(document: results.CodecCompare) -> str:
    with_model = document.tokens is not None
    points = [(row, _cost(row, with_model)) for row in document.rows]
    shown = [(row, cost) for row, cost in points if cost is not None]
    title = "KL by blocks, milli-nats a token" if with_model else "relative error of K and V, %"
    ratios = [row.ratio for row, _ in shown] or [1.0]
    costs = [cost for _, cost in shown] or [0.0]
    x = _axis(min(1.0, *ratios), max(2.0, *ratios) * 1.05, LEFT, WIDTH - RIGHT)
    y = _axis(min(0.0, *costs), max(*costs, 0.1) * 1.1, HEIGHT - BOTTOM, TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(Path(document.file).name)}: size and loss</text>',
        *_frame(x, y, max(2.0, *ratios) * 1.05, min(0.0, *costs), max(*costs, 0.1) * 1.1),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">ratio</text>',
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{title}</text>",
    ]
    taken: list[float] = []
    for row, cost in sorted(shown, key=lambda point: -point[1]):
        error = row.blocks.kl_standard_error_millinats if with_model and row.blocks else None
        place = x(row.ratio), y(cost)
        if error:
            lines.append(
                f'<line x1="{place[0]:.1f}" x2="{place[0]:.1f}" y1="{y(cost - error):.1f}" y2="{y(cost + error):.1f}" '
                f'stroke="{COLOURS[row.kind]}"/>'
            )
        level = place[1]
        while any(abs(level - other) < 13 for other in taken):
            level += 1
        taken.append(level)
        lines += [
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4" fill="{COLOURS[row.kind]}"/>',
            f'<line x1="{place[0] + 5:.1f}" y1="{place[1]:.1f}" x2="{WIDTH - RIGHT + 8}" y2="{level:.1f}" '
            'stroke="#dddddd"/>',
            f'<text x="{WIDTH - RIGHT + 10}" y="{level + 4:.1f}" fill="{COLOURS[row.kind]}">'
            f"{escape(row.name)} {row.ratio:.2f}x</text>",
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _cost(row: results.CodecRow, with_model: bool) -> float | None:
    if with_model:
        return 0.0 if row.exact else row.blocks.kl_millinats if row.blocks else None
    if row.k_relative_rmse is None or row.v_relative_rmse is None:
        return None
    return 100 * math.sqrt((row.k_relative_rmse**2 + row.v_relative_rmse**2) / 2)


def _axis(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _frame(
    x: Callable[[float], float], y: Callable[[float], float], right: float, least: float, most: float
) -> list[str]:
    lines = [
        f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" fill="none" '
        'stroke="#444444"/>'
    ]
    for tick in range(1, int(right) + 1):
        lines.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick}x</text>')
    step = 10.0 ** math.floor(math.log10(most))
    step = next(part * step for part in (0.1, 0.2, 0.5, 1.0) if most / (part * step) <= 8 or part == 1.0)
    for tick in range(math.ceil(least / step), int(most / step) + 1):
        height = y(tick * step)
        lines += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="#eeeeee"/>',
            f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{tick * step:g}</text>',
        ]
    return lines

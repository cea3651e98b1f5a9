#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draw docs/architecture.svg: the parts, and which way calls go. `--check` only compares."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, ROW, GAP, LEFT = 760, 44, 12, 20

#: Rows from the top: boxes as (title, what it is, share of the width, colour).
ROWS: list[list[tuple[str, str, int, str]]] = [
    [("speckvctl", "the command", 2, "#dbe9ff"), ("your program", "C or Python", 1, "#f3f3f3")],
    [("speckv", "Python binding (cffi)", 2, "#dbe9ff"), ("speckv.h", "public C headers", 1, "#dbe9ff")],
    [("client/admin", "devices and pools: make, resize, check, remove", 1, "#e6f4e1")],
    [
        ("client/pool", "batches, eviction, recovery, staging", 2, "#e6f4e1"),
        ("predictor", "prefetch", 1, "#fff1d6"),
    ],
    [("client/backend", "mapped memory | a card", 2, "#e6f4e1"), ("codec", "frames, kernels, CRC", 1, "#fff1d6")],
    [
        ("client/store", "tables, page map, index", 2, "#e6f4e1"),
        ("client/card", "a card's commands", 1, "#e6f4e1"),
    ],
    [
        ("base", "contexts, folders, locks, fork", 2, "#e6f4e1"),
        ("transport", "schemes, queue pairs", 1, "#e6f4e1"),
    ],
    [
        ("memory", "DRAM, NUMA, files, /dev/dax", 2, "#f3f3f3"),
        ("emulator + card", "a card as a process; kernel driver and FPGA to come", 3, "#fbe3e0"),
    ],
]


def draw() -> str:
    height = len(ROWS) * (ROW + GAP) + GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img">',
        "<title>Layers of CXL-SpecKV: each row calls those below it</title>",
    ]
    for number, row in enumerate(ROWS):
        y, x = GAP + number * (ROW + GAP), float(LEFT)
        shares = sum(share for _, _, share, _ in row)
        free = WIDTH - 2 * LEFT - GAP * (len(row) - 1)
        for title, text, share, colour in row:
            width = free * share / shares
            out.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{ROW}" rx="5" fill="{colour}" stroke="#888"/>'
                f'<text x="{x + 12:.0f}" y="{y + 19}" font-size="14" font-weight="bold">{escape(title)}</text>'
                f'<text x="{x + 12:.0f}" y="{y + 35}" font-size="12" fill="#444">{escape(text)}</text>'
            )
            x += width + GAP
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    path, picture = HERE / "architecture.svg", draw()
    if "--check" in sys.argv[1:]:
        return int(not path.exists() or path.read_text("utf-8") != picture)
    path.write_text(picture, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

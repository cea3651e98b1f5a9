#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Take the pictures that README.md shows (make readme-shots): real commands, run on a terminal of a size, as SVG.

It makes a private runtime folder, replays the trace that is shipped against two pools, types what a person would type,
and leaves nothing behind. Nothing in a picture is changed but the paths of the checkout and of that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import groupby
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent.parent
sys.path.insert(0, str(REPOSITORY))

import pyte  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.style import Style  # noqa: E402
from rich.terminal_theme import TerminalTheme  # noqa: E402
from rich.text import Text  # noqa: E402

from speckvctl.replay import sample  # noqa: E402
from tests.cli.terminal import Terminal  # noqa: E402

SPECKVCTL = Path(sys.executable).parent / "speckvctl"
#: Paths of this run, and what stands for them in a picture.
ELSEWHERE = {str(REPOSITORY): "/opt/speckv"}
MOST_BYTES = 150_000
#: The trace lasts five minutes; this is how much faster it is replayed.
SPEED = "12"
#: A trend without gaps: the replays have worked for a while.
TREND = re.compile("[▁▂▃▄▅▆▇█]{8}")

THEME = TerminalTheme(
    (24, 26, 31),
    (208, 211, 217),
    [
        (24, 26, 31),
        (224, 108, 117),
        (126, 191, 122),
        (222, 184, 104),
        (97, 156, 220),
        (190, 130, 210),
        (86, 182, 194),
        (208, 211, 217),
    ],
)
#: As rich's own, without fonts from elsewhere: a picture in a README may load nothing.
FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<!-- SPDX-License-Identifier: MIT; written by man/pictures/generate.py -->
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    with runtime_folder() as folder:
        for pool, size, codec in (("chat", "48MiB", ["--codec", "q4x"]), ("code", "24MiB", [])):
            run("pool", "create", "host:DRAM", pool, "--size", size, *codec)
        replays = [start_replay(pool, tenant) for pool, tenant in (("chat", "serve"), ("code", "agent"))]
        try:
            with Terminal([SPECKVCTL, "top", "--interval", "1"], folder, 80, 24) as terminal:
                terminal.until(lambda: len(TREND.findall(terminal.text)) == 2, "two pools at work")
                take(terminal, "top", "speckvctl top")
                terminal.resize(160, 30)
                terminal.until(lambda: terminal.lines[-1].startswith("q quit"))
                take(terminal, "top-wide", "speckvctl top")
                terminal.resize(80, 24)
                terminal.press("enter")
                terminal.see("LATENCY", "q quit")
                take(terminal, "top-pool", "speckvctl top")
                terminal.press("q")
                terminal.end()
        finally:
            for replay in replays:
                replay.terminate()
                replay.wait()
        for name, arguments in (
            ("pool-show", ["pool", "show", "host:DRAM", "chat"]),
            ("stats", ["stats", "host:DRAM", "code"]),
        ):
            with Terminal([SPECKVCTL, *arguments], folder, 80, 24) as terminal:
                if terminal.end():
                    raise SystemExit(f"{' '.join(arguments)} failed:\n{terminal.text}")
                take(terminal, name, f"speckvctl {' '.join(arguments)}")
    return 0


@contextmanager
def runtime_folder() -> Iterator[Path]:
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="speckv-pictures-", dir=parent))
    os.environ["SPECKV_RUNTIME_DIR"] = str(folder)
    ELSEWHERE[str(folder)] = "/dev/shm/speckv"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*arguments: str) -> None:
    subprocess.run([SPECKVCTL, *arguments], check=True, stdout=subprocess.DEVNULL)


def start_replay(pool: str, tenant: str) -> subprocess.Popen[bytes]:
    where = ["host:DRAM", pool, "--clients", "2", "--tenant", tenant, "--speed", SPEED]
    command = [str(SPECKVCTL), "replay", str(sample.TRACE), *where]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def take(terminal: Terminal, name: str, title: str) -> None:
    """What is to be seen now, without the empty lines at its end."""
    time.sleep(0.05)
    screen = terminal.screen
    last = max(row for row in range(screen.lines) if screen.display[row].strip())
    console = Console(record=True, width=screen.columns, file=StringIO(), force_terminal=True, color_system="truecolor")
    for row in range(last + 1):
        console.print(line(screen, row), no_wrap=True, overflow="crop", crop=True, highlight=False)
    svg = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=f"speckv-{name}")
    svg = re.sub(r"[ \t]+$", "", re.sub(r"\n\s+", "\n", svg), flags=re.M)
    if len(svg.encode()) > MOST_BYTES:
        raise SystemExit(f"{name}.svg has {len(svg.encode())} bytes, more than {MOST_BYTES}")
    if any(path in svg for path in ELSEWHERE):
        raise SystemExit(f"{name}.svg tells a path of this machine")
    (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"man/pictures/{name}.svg: {screen.columns} columns, {last + 1} lines, {len(svg.encode())} bytes")


def line(screen: pyte.Screen, row: int) -> Text:
    """One line of the emulator with its colours; cells alike are one piece of text."""
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    text = Text(no_wrap=True)
    for style, alike in groupby(cells, key=style_of):
        text.append("".join(cell.data for cell in alike), style)
    return Text(hidden(text.plain), spans=text.spans, no_wrap=True)


def style_of(cell: pyte.screens.Char) -> Style:
    colours = [None if colour == "default" else named(colour) for colour in (cell.fg, cell.bg)]
    return Style(color=colours[0], bgcolor=colours[1], bold=cell.bold, reverse=cell.reverse)


def named(colour: str) -> str:
    return {"brown": "yellow"}.get(colour, colour if not re.fullmatch("[0-9a-f]{6}", colour) else f"#{colour}")


def hidden(text: str) -> str:
    """Paths of this run, whole or cut off, as others; what follows one moves up, what stands in front of it stays."""
    for path, instead in ELSEWHERE.items():
        start = text.find(path)
        if start >= 0:
            after = text[start + len(path) :]
            text = (text[:start] + instead + after).ljust(len(text))
    return text


if __name__ == "__main__":
    sys.exit(main())

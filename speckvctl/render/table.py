# SPDX-License-Identifier: MIT
"""Documents as aligned text: on a terminal in lines that fit it, in a pipe never wrapped."""

from __future__ import annotations

from importlib import import_module

from speckvctl import results
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import Row, room, wrapped

#: Module of results/ -> the modules here that render its documents. Only these are loaded.
RENDERERS = {
    "bitstream": ("bitstream",),
    "codecs": ("codec",),
    "devices": ("devices", "cards"),
    "doctor": ("doctor",),
    "pools": ("pools",),
    "prefetcher": ("prefetcher", "cards"),
    "replay": ("replay",),
    "statistics": ("statistics",),
}


def render(document: results.Document) -> str:
    for name in RENDERERS[type(document).__module__.rpartition(".")[2]]:
        import_module(f"speckvctl.render.{name}")
    width = room()
    lines = [
        part for line in lines_of(document) for part in ([line] if isinstance(line, Row) else wrapped(line, width))
    ]
    return "\n".join(lines) + "\n" if lines else ""

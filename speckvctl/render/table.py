# SPDX-License-Identifier: MIT
"""Documents as text for people: aligned; on a terminal in lines that fit it, in a pipe never wrapped."""

from __future__ import annotations

from speckvctl import results
from speckvctl.render import (  # each registers its documents
    bitstream,
    cards,
    codec,
    devices,
    doctor,
    pools,
    prefetcher,
    replay,
    statistics,
)
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import Row, room, wrapped

__all__ = ["bitstream", "cards", "codec", "devices", "doctor", "pools", "prefetcher", "render", "replay", "statistics"]


def render(document: results.Document) -> str:
    width = room()
    lines = [
        part for line in lines_of(document) for part in ([line] if isinstance(line, Row) else wrapped(line, width))
    ]
    return "\n".join(lines) + "\n" if lines else ""

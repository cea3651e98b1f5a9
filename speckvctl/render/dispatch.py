# SPDX-License-Identifier: MIT
"""From a document to its lines; what several renderers share. Imported by the files of this folder."""

from __future__ import annotations

from functools import singledispatch

from speckvctl import results
from speckvctl.quantities import group_name, user_name

STATES = {
    "ready": "green",
    "active": "green",
    "ok": "green",
    "running": "green",
    "good": "green",
    "verified": "green",
    "unrecognized": "red",
    "other_version": "red",
    "incomplete": "red",
    "truncated": "red",
    "failed": "red",
    "error": "red",
    "hung": "red",
    "lost": "red",
    "rejected": "red",
    "denied": "yellow",
    "warning": "yellow",
    "creating": "yellow",
    "resizing": "yellow",
    "destroying": "yellow",
    "factory": "yellow",
    "offline": "yellow",
    "trial": "yellow",
    "writing": "yellow",
}


@singledispatch
def lines_of(document: results.Document) -> list[str]:
    """The lines of a document, not yet wrapped. Each file of this folder registers those of its nouns."""
    raise NotImplementedError(f"no table for {type(document).__name__}")


def next_step(step: str | None) -> str:
    return f" Next: {step}" if step else ""


def owner(uid: int | None, gid: int | None) -> str:
    return "-" if uid is None or gid is None else f"{user_name(uid)}:{group_name(gid)}"

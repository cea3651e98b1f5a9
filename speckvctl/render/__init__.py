# SPDX-License-Identifier: MIT
"""Renderers: a typed result in, text out. They do not access devices."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from speckvctl.exitcodes import ExitCode

if TYPE_CHECKING:
    from speckvctl.results import Document


def write(text: str) -> None:
    """Write to stdout and flush."""
    sys.stdout.write(text)
    sys.stdout.flush()


def show(document: Document, *, as_json: bool, compact: bool = False) -> None:
    if as_json:
        from speckvctl.render import json

        write(json.render(document, compact=compact))
    else:
        from speckvctl.render import table as text

        write(text.render(document))


def finish(document: Document, *, as_json: bool) -> None:
    """Print the result of a command and exit with its exit code."""
    show(document, as_json=as_json)
    if document.exit_code is not ExitCode.DONE:
        raise typer.Exit(int(document.exit_code))

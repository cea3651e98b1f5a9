# SPDX-License-Identifier: MIT
"""Documents as JSON: the fields of the dataclass, in its order, after "schema" and "version"."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from speckvctl.results import Document


def as_object(document: Document) -> dict[str, Any]:
    return {"schema": document.schema, "version": document.version, **dataclasses.asdict(document)}


def render(document: Document, *, compact: bool = False) -> str:
    """The text of one document. `compact`: on one line, for streams of documents."""
    indent = None if compact else 2
    return json.dumps(as_object(document), indent=indent, allow_nan=False) + "\n"

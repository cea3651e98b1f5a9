# SPDX-License-Identifier: MIT
"""What a document's field says of itself. Imported by the documents of this folder, and by schemas.py."""

from __future__ import annotations

from typing import Any


class Said:
    """What the schema says of a field, beside what follows from its type: `Annotated[int, Said("...", minimum=0)]`.

    `keywords` are those of JSON Schema (enum, minimum, pattern, ...); `items` and `values` hold those of the elements
    of a list and of the values of a dictionary.
    """

    def __init__(self, description: str, **keywords: Any) -> None:
        self.description = description
        self.keywords = keywords

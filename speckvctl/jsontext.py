# SPDX-License-Identifier: MIT
"""Strict JSON (RFC 8259): duplicate keys, NaN and numbers beyond float64 are errors.

Error texts are plain and name the position; those of the json module are not shown.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

#: Byte order marks, and the encodings they indicate.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """Not JSON; str() is the reason and the position."""


def loads(data: bytes | str) -> Any:
    """Parse a JSON text; JsonError if it is not valid."""
    text = data if isinstance(data, str) else decode(data)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_number)
    except json.JSONDecodeError as exc:
        where = f"line {exc.lineno}, column {exc.colno}" if "\n" in text.rstrip() else f"column {exc.colno}"
        ends = exc.pos >= len(text.rstrip())
        raise JsonError(f"not JSON: it ends at {where}" if ends else f"not JSON: unexpected text at {where}") from exc
    except JsonError:
        raise
    except ValueError as exc:  # int() limits the number of digits
        raise JsonError("a number has more digits than any that is read here") from exc
    except RecursionError as exc:
        raise JsonError("nested too deeply") from exc


def read(path: Path, most: int) -> dict[str, Any]:
    """Parse the object in a file of at most `most` bytes; JsonError if there is none."""
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise JsonError(f"larger than {most >> 10} KiB")
    found = loads(data.removeprefix(BYTE_ORDER_MARK))
    if not isinstance(found, dict):
        raise JsonError("not a JSON object")
    return found


def decode(data: bytes) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            raise JsonError(f"{name}, and UTF-8 is needed: iconv -f {name} -t UTF-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise JsonError(f"not UTF-8 at byte {exc.start + 1}") from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise JsonError(f"the key {shown(name)} stands twice in one object")
            seen.add(name)
    return found


def shown(text: str) -> str:
    """A text from a file, quoted and cut, for an error."""
    return json.dumps(text[:40]) + ("..." if len(text) > 40 else "")


def has_surrogate(text: str) -> bool:
    """Whether a text has a lone surrogate, which cannot be encoded."""
    return _SURROGATE.search(text) is not None


def _no_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not a number of JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {text[:40]} is beyond all that are read here")
    return value

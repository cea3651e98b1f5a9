# SPDX-License-Identifier: MIT
"""Safetensors files, read and validated by the `safetensors` package only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

#: safetensors name -> bits of an element
BITS = (
    {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
    | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | {"I16": 16, "U16": 16, "F16": 16, "BF16": 16}
    | {"I32": 32, "U32": 32, "F32": 32}
    | {"I64": 64, "U64": 64, "F64": 64, "C64": 64}
)


class UnsoundError(Exception):
    """Not a safetensors file, or one that is damaged or cut short; the text is the reason, without the path."""


@dataclass(frozen=True)
class Entry:
    """A tensor's place in its file."""

    dtype: str  # name in the format
    shape: list[int]
    offset: int  # of its first byte in the file
    nbytes: int


@contextmanager
def opened(path: Path, framework: str = "np") -> Iterator[Any]:
    """The file, as `safetensors.safe_open` gives it. OSError with the path when it cannot be read at all."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb"):  # its errors name the file
        pass
    if not path.is_file():
        raise UnsoundError("not a safetensors file: it is not a regular file")
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as exc:
        raise UnsoundError(f"not a safetensors file, or damaged or cut short: {_reason(str(exc))}") from exc


#: Error texts of the reader -> texts of this package.
_REASONS = (
    ("header too small", "it ends within its header"),
    ("invalid header length", "it ends within its header"),
    ("header too large", "its header is larger than any"),
    ("invalid UTF-8 in header", "its header is not UTF-8"),
    ("missing field", "its header leaves out a tensor's dtype, shape or place"),
    ("invalid type", "its header does not describe tensors"),
    ("invalid value", "its header does not describe tensors"),
    ("invalid JSON in header", "its header is not JSON"),
    ("invalid offset", "its tensors overlap, or leave a gap"),
    ("incomplete metadata", "its data are shorter or longer than its tensors"),
    ("invalid shape, data type, or offset", "a tensor's dtype and shape are not those of its data"),
    ("overflow", "a tensor is larger than any file"),
    ("The slice is slicing for subbytes", "a tensor ends within a byte"),
)


def _reason(text: str) -> str:
    """Reword an error text of the reader."""
    dtype = re.search(r"unknown variant `([^`]{0,40})", text)
    if dtype:
        return f"a tensor's dtype is {dtype[1]}, which this build does not know"
    return next((ours for theirs, ours in _REASONS if theirs in text), "its header is not sound")


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file, by name, in the order of their data."""
    with opened(path) as file, path.open("rb") as stream:
        at = 8 + int.from_bytes(stream.read(8), "little")
        found = {}
        for name in file.offset_keys():  # the data has no gaps: each tensor begins where the previous one ends
            tensor = file.get_slice(name)
            dtype, shape = str(tensor.get_dtype()), list(tensor.get_shape())
            if dtype not in BITS:
                raise UnsoundError(f"tensor {name} is {dtype}, which this build does not know")
            found[name] = Entry(dtype, shape, at, prod(shape) * BITS[dtype] // 8)
            at += found[name].nbytes
    return found

# SPDX-License-Identifier: MIT
"""Safetensors files, read by the `safetensors` package: no other reader here says what is sound."""

from __future__ import annotations

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
    """Where a tensor lies in its file."""

    dtype: str  # as the format names it
    shape: list[int]
    offset: int  # of its first byte in the file
    nbytes: int


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, as `safetensors.safe_open` gives it. OSError with the path when it cannot be read at all."""
    from safetensors import SafetensorError, safe_open

    with path.open("rb"):  # its errors name the file
        pass
    if not path.is_file():
        raise UnsoundError("not a safetensors file: it is not a regular file")
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except SafetensorError as exc:
        reason = str(exc).removeprefix("Error while deserializing header: ").removeprefix("Error while deserializing: ")
        raise UnsoundError(f"not a safetensors file, or damaged or cut short: {reason}") from exc


def entries(path: Path) -> dict[str, Entry]:
    """The tensors of a file, by name, in the order of their data."""
    with opened(path) as file, path.open("rb") as stream:
        at = 8 + int.from_bytes(stream.read(8), "little")
        found = {}
        for name in file.offset_keys():  # the data has no holes: each begins where the one before ends
            tensor = file.get_slice(name)
            dtype, shape = str(tensor.get_dtype()), list(tensor.get_shape())
            if dtype not in BITS:
                raise UnsoundError(f"tensor {name} is {dtype}, which this build does not know")
            found[name] = Entry(dtype, shape, at, prod(shape) * BITS[dtype] // 8)
            at += found[name].nbytes
    return found

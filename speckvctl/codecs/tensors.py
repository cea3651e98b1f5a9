# SPDX-License-Identifier: MIT
"""Files of K and V tensors (safetensors), read and written byte for byte; no value is interpreted here.

A tensor is K or V by a word of its name (`doc3.layer0.k`, `layers.0.value`) and has the shape [head][token][channel].
Its pair is the tensor whose name differs in that word only.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv

from speckvctl import tensorfiles
from speckvctl.errors import UsageError
from speckvctl.files import replacing

MAX_TENSOR_BYTES = 1 << 31  # of a block, and enough for a million tokens of eight heads

#: safetensors name -> (dtype, bytes of an element)
DTYPES = {
    "BF16": (speckv.DType.BF16, 2),
    "F16": (speckv.DType.FP16, 2),
    "F8_E4M3": (speckv.DType.FP8_E4M3, 1),
    "F8_E5M2": (speckv.DType.FP8_E5M2, 1),
}

Bytes = npt.NDArray[np.uint8]


class TensorsError(Exception):
    """A file without usable tensors."""

    errno = errno.EINVAL


class DamagedTensorsError(TensorsError):
    """Not a safetensors file, or a broken one."""

    errno = errno.EBADMSG


class ForeignTensorsError(TensorsError):
    """K or V in a dtype that no KV cache uses."""

    errno = errno.EOPNOTSUPP


@dataclass(frozen=True)
class Pair:
    """K and V of one layer of one document."""

    k_name: str
    v_name: str
    layer: int | None  # if the name has it
    dtype: speckv.DType
    k: Bytes  # [head][token][byte]
    v: Bytes

    @property
    def heads(self) -> int:
        return int(self.k.shape[0])

    @property
    def tokens(self) -> int:
        return int(self.k.shape[1])

    @property
    def head_dim(self) -> int:
        return int(self.k.shape[2]) // element_bytes(self.dtype)

    @property
    def raw_bytes(self) -> int:
        return self.k.nbytes + self.v.nbytes

    def geometry(self, tokens: int) -> speckv.Geometry:
        return speckv.Geometry(1, self.heads, self.head_dim, tokens, self.dtype)

    def blocks(self, tokens: int) -> Iterator[Bytes]:
        """Yield the raw bytes [K, V][head][token][byte] of successive runs of tokens."""
        for begin in range(0, self.tokens, tokens):
            yield np.stack((self.k[:, begin : begin + tokens], self.v[:, begin : begin + tokens]))

    def with_blocks(self, blocks: list[Bytes]) -> Pair:
        """The same pair with the values of these blocks."""
        shape = (2, self.heads, -1, self.k.shape[2])
        k, v = np.concatenate([block.reshape(shape) for block in blocks], 2)
        return Pair(self.k_name, self.v_name, self.layer, self.dtype, k, v)


def element_bytes(dtype: speckv.DType) -> int:
    return next(size for known, size in DTYPES.values() if known == dtype)


def floats(values: Bytes, dtype: speckv.DType) -> npt.NDArray[np.float32]:
    """Convert [..., byte] to float32 [..., channel]."""
    if dtype == speckv.DType.BF16:
        words = np.ascontiguousarray(values).view("<u2").astype(np.uint32) << np.uint32(16)
        wide: npt.NDArray[np.float32] = words.view(np.float32)
        return wide
    if dtype == speckv.DType.FP16:
        halves: npt.NDArray[np.float32] = np.ascontiguousarray(values).view("<f2").astype(np.float32)
        return halves
    found: npt.NDArray[np.float32] = _fp8_values(dtype)[values]
    return found


def _fp8_values(dtype: speckv.DType) -> npt.NDArray[np.float32]:
    code = np.arange(256)
    mantissa_bits, bias = (3, 7) if dtype == speckv.DType.FP8_E4M3 else (2, 15)
    exponent, mantissa = (code & 127) >> mantissa_bits, code & ((1 << mantissa_bits) - 1)
    plain = np.where(exponent > 0, (1 << mantissa_bits) + mantissa, mantissa)
    value = np.ldexp(plain.astype(np.float64), np.maximum(exponent, 1) - bias - mantissa_bits)
    if dtype == speckv.DType.FP8_E4M3:
        value[code & 127 == 127] = np.nan
    else:
        value[exponent == 31] = np.nan
        value[code & 127 == 0x7C] = np.inf
    signed: npt.NDArray[np.float32] = np.where(code & 128, -value, value).astype(np.float32)
    return signed


# ---- names -----------------------------------------------------------------------------------------------------------


def kind_of(name: str) -> str | None:
    """Whether a name is of K or V; None: neither, or K before its rotary embedding."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if words & {"prerope", "pre"}:
        return None
    is_k, is_v = bool(words & {"k", "key", "keys"}), bool(words & {"v", "value", "values"})
    return None if is_k == is_v else "k" if is_k else "v"


def _place(name: str) -> str:
    """The name without the word that makes it K or V."""
    parts = re.split(r"([^A-Za-z0-9]+)", name)
    return "".join("*" if part.lower() in ("k", "key", "keys", "v", "value", "values") else part for part in parts)


def layer_of(name: str) -> int | None:
    found = re.search(r"(?:^|[^a-z])layers?[._]?(\d{1,5})(?!\d)", name.lower())
    return int(found[1]) if found else None


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_header(path: Path) -> dict[str, tensorfiles.Entry]:
    """Validate a file's header; returns its tensors by name."""
    try:
        return tensorfiles.entries(path)
    except tensorfiles.UnsoundError as exc:
        raise DamagedTensorsError(f"{path}: {exc}") from exc


def dtype_of(entry: tensorfiles.Entry) -> str:
    """The pool's name of a dtype, if it has one."""
    known = DTYPES.get(entry.dtype)
    return str(known[0]) if known else entry.dtype.lower()


def read_pairs(path: Path, multiple: int) -> tuple[list[Pair], list[str]]:
    """All pairs of a file in the order of their names, and the names of the tensors that are neither K nor V.

    Every tensor has a whole number of blocks of `multiple` tokens. Values are mapped, not read.
    """
    header = read_header(path)
    halves: dict[str, dict[str, tuple[str, speckv.DType, Bytes]]] = {}
    others = []
    for name in sorted(header):
        kind = kind_of(name)
        if kind is None:
            others.append(name)
            continue
        dtype, shape = dtype_of(header[name]), header[name].shape
        _check(path, name, dtype, shape, multiple)
        width = shape[2] * element_bytes(speckv.DType(dtype))
        mapped = np.memmap(path, np.uint8, "r", header[name].offset, (shape[0], shape[1], width))
        half = halves.setdefault(_place(name), {})
        if kind in half:
            raise TensorsError(f"{path}: {half[kind][0]} and {name} are both the {kind.upper()} of the same place")
        half[kind] = name, speckv.DType(dtype), np.asarray(mapped)
    pairs = [_pair(path, half) for half in halves.values()]
    if not pairs:
        raise TensorsError(f"{path}: holds no tensors named k and v of shape [head][token][channel]")
    return pairs, others


def _check(path: Path, name: str, dtype: str, shape: list[int], multiple: int) -> None:
    if dtype not in {known for known, _ in DTYPES.values()}:
        raise ForeignTensorsError(f"{path}: tensor {name} is {dtype}; K and V are bf16, fp16 or fp8")
    if len(shape) != 3:
        raise TensorsError(f"{path}: tensor {name} has shape {shape}; K and V are [head][token][channel]")
    if not all(shape):
        raise TensorsError(f"{path}: tensor {name} is empty: shape {shape}")
    if math.prod(shape) * element_bytes(speckv.DType(dtype)) > MAX_TENSOR_BYTES or max(shape[0], shape[2]) > 0xFFFF:
        raise TensorsError(f"{path}: tensor {name} is too large: shape {shape}, more than a block can have")
    if shape[1] % multiple:
        raise TensorsError(
            f"{path}: tensor {name} has {shape[1]} tokens, not a multiple of {multiple}: frames hold whole groups; "
            f"keep the first {shape[1] // multiple * multiple}, or pad to {-(-shape[1] // multiple) * multiple}"
        )


def _pair(path: Path, half: dict[str, tuple[str, speckv.DType, Bytes]]) -> Pair:
    for here, there in ("kv", "vk"):
        if there not in half:
            raise TensorsError(f"{path}: tensor {half[here][0]} has no {there.upper()} beside it")
    (k_name, dtype, k), (v_name, v_dtype, v) = half["k"], half["v"]
    if dtype != v_dtype or k.shape != v.shape:
        raise TensorsError(f"{path}: {k_name} and {v_name} do not have the same shape and dtype")
    return Pair(k_name, v_name, layer_of(k_name), dtype, k, v)


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_tensors(
    path: Path, shapes: Mapping[str, tuple[speckv.DType, tuple[int, int, int]]], fill: Callable[[str], Bytes]
) -> None:
    """A safetensors file of these tensors, in this order; `fill` gives the bytes of each."""
    codes = {dtype: code for code, (dtype, _) in DTYPES.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + math.prod(shape) * element_bytes(dtype)
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            stream.write(np.ascontiguousarray(fill(name)).data)


def check_replaceable(path: Path) -> None:
    """Only a safetensors file may be overwritten."""
    if not os.path.lexists(path):
        return
    try:
        if not path.is_file():
            raise DamagedTensorsError
        read_header(path)
    except DamagedTensorsError:
        raise UsageError(
            f"{path} is not a safetensors file; nothing was changed", "name another with --output"
        ) from None

# SPDX-License-Identifier: MIT
"""What the blocks of a trace hold: real KV, put together from the tensors of a safetensors file.

Every section (layer, K or V, head) of a block is made of windows of consecutive tokens, taken from places that a hash
of the trace, the block's id and the section picks. So a block is the same in every process and every run, different ids
hold different bytes, and a lossy codec meets the statistics of real K and V. K comes from tensors named k, V from those
named v; `k_prerope` is not what an engine stores and is left alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv

WINDOW_TOKENS = 32
MAX_BYTES_OF_A_KIND = 64 << 20  # of K, and of V: more adds nothing
MAX_HEADER_BYTES = 64 << 20
REFERENCE_CACHE_BYTES = 64 << 20

#: safetensors name -> (pool dtype, bytes of an element)
_DTYPES = {
    "BF16": (speckv.DType.BF16, 2),
    "F16": (speckv.DType.FP16, 2),
    "F8_E4M3": (speckv.DType.FP8_E4M3, 1),
    "F8_E5M2": (speckv.DType.FP8_E5M2, 1),
}
_EXACT = (speckv.Codec.RAW, speckv.Codec.LOSSLESS)

Bytes = npt.NDArray[np.uint8]


class ContentsError(Exception):
    """A KV file that cannot fill this pool's blocks."""

    errno = errno.EINVAL


class DamagedContentsError(ContentsError):
    """Not a safetensors file, or a broken one."""

    errno = errno.EBADMSG


class Contents:
    """Blocks of one pool's shape. The same file, scope and id give the same bytes everywhere."""

    def __init__(self, path: str | Path, geometry: speckv.Geometry, codec: speckv.Codec | str, scope: bytes) -> None:
        self.path = Path(path)
        self.geometry = geometry
        self.codec = speckv.Codec(codec)
        self.block_bytes = geometry.block_bytes
        self._scope = scope
        self._row_bytes = geometry.head_dim * _element_bytes(geometry.dtype)
        self._windows = {kind: _Windows(tensors, self._row_bytes) for kind, tensors in self._tensors().items()}
        self._references: OrderedDict[bytes, Bytes] = OrderedDict()

    @property
    def exact(self) -> bool:
        """Whether the codec gives back the very bytes that were put."""
        return self.codec in _EXACT

    def fill(self, block: bytes, out: Bytes) -> None:
        """Write the raw bytes of a block, named by `block`, to `out`."""
        shape = self.geometry
        pieces = shape.kv_heads * shape.tokens // WINDOW_TOKENS
        draws = hashlib.shake_128(self._scope + block).digest(8 * 2 * shape.layers * pieces)
        numbers = np.frombuffer(draws, np.uint64).reshape(shape.layers, 2, pieces)
        target = out.view(f"V{WINDOW_TOKENS * self._row_bytes}").reshape(shape.layers, 2, pieces)
        for index, kind in enumerate("kv"):
            self._windows[kind].take(numbers[:, index], target[:, index])

    def expected(self, block: bytes, position: int) -> Bytes:
        """What a get must give: the raw bytes, or for a lossy codec what its encode and decode make of them."""
        known = self._references.get(block)
        if known is not None:
            self._references.move_to_end(block)
            return known
        raw = np.empty(self.block_bytes, np.uint8)
        self.fill(block, raw)
        if self.exact:
            return raw
        decoded = self._reference(raw, position)
        self._references[block] = decoded
        if len(self._references) * self.block_bytes > REFERENCE_CACHE_BYTES:
            self._references.popitem(last=False)
        return decoded

    def _reference(self, raw: Bytes, position: int) -> Bytes:
        identity = speckv.codec.Identity(first_position=position)
        try:
            frame = speckv.codec.encode_frame(self.geometry, self.codec, raw, identity=identity)
        except speckv.SpeckvError as exc:
            if exc.errno == errno.ENODATA:  # not finite: the library stores such a block raw
                return raw
            raise
        decoded: Bytes = speckv.codec.decode_frame(frame)
        return decoded

    def _tensors(self) -> dict[str, list[Bytes]]:
        """Rows [heads * tokens][bytes] of the file's K and V tensors of the pool's dtype and head size."""
        header, offset = _read_header(self.path)
        found: dict[str, list[Bytes]] = {"k": [], "v": []}
        left = {"k": MAX_BYTES_OF_A_KIND, "v": MAX_BYTES_OF_A_KIND}
        others: set[str] = set()
        for name in sorted(header):
            kind = kind_of(name)
            if kind is None:
                continue
            dtype, shape, begin, end = _tensor(self.path, name, header[name])
            if dtype != self.geometry.dtype or len(shape) != 3 or shape[2] != self.geometry.head_dim:
                others.add(f"{dtype}, head size {shape[-1]}" if len(shape) == 3 else f"{dtype} of shape {shape}")
                continue
            heads, tokens, _ = shape
            tokens = min(tokens, left[kind] // max(1, heads * self._row_bytes))
            if tokens < WINDOW_TOKENS or not heads:
                continue
            if offset + end > self.path.stat().st_size:
                raise DamagedContentsError(f"{self.path}: cut short: tensor {name} lies beyond its end")
            left[kind] -= heads * tokens * self._row_bytes
            rows = np.memmap(self.path, np.uint8, "r", offset + begin, (heads, shape[1], self._row_bytes))
            found[kind] += list(np.asarray(rows)[:, :tokens])
        if not (found["k"] and found["v"]):
            wanted = f"{self.geometry.dtype}, head size {self.geometry.head_dim}"
            holds = "; ".join(sorted(others)) if others else "no [head][token][channel] tensors named k and v"
            raise ContentsError(
                f"{self.path}: the pool holds {wanted}, this file holds {holds}: name another KV file, "
                "or a pool of its dtype and head size"
            )
        return found


class _Windows:
    """All windows of WINDOW_TOKENS consecutive tokens of some [token][bytes] tensors."""

    def __init__(self, tensors: list[Bytes], row_bytes: int) -> None:
        self._rows = np.concatenate(tensors)
        starts = []
        begin = 0
        for tensor in tensors:  # a window does not run from one head into another
            starts.append(np.arange(begin, begin + len(tensor) - WINDOW_TOKENS + 1))
            begin += len(tensor)
        self._starts = np.concatenate(starts)
        self._view: npt.NDArray[Any] = np.ndarray(
            (len(self._rows) - WINDOW_TOKENS + 1,),
            np.dtype(f"V{WINDOW_TOKENS * row_bytes}"),
            self._rows.data,
            strides=(row_bytes,),
        )

    def take(self, numbers: npt.NDArray[np.uint64], out: npt.NDArray[Any]) -> None:
        out[...] = self._view[self._starts[numbers % np.uint64(len(self._starts))]]


def kind_of(name: str) -> str | None:
    """Whether a tensor of that name is K or V; None: neither, or K before its rotation."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    if words & {"prerope", "pre"}:
        return None
    is_k, is_v = bool(words & {"k", "key", "keys"}), bool(words & {"v", "value", "values"})
    return None if is_k == is_v else "k" if is_k else "v"


def file_digest(path: str | Path) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _element_bytes(dtype: speckv.DType) -> int:
    return next(size for known, size in _DTYPES.values() if known == dtype)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors' descriptions and where their data begins."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise DamagedContentsError(f"{path}: not a safetensors file: it gives its header {length} bytes")
        try:
            header = json.loads(stream.read(length))
        except (ValueError, RecursionError) as exc:
            raise DamagedContentsError(f"{path}: not a safetensors file: its header is not JSON ({exc})") from exc
    if not isinstance(header, dict):
        raise DamagedContentsError(f"{path}: not a safetensors file: its header is not an object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensor(path: Path, name: str, entry: Any) -> tuple[str, list[int], int, int]:
    """dtype (the pool's name for it where there is one), shape, first and last byte."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound or not isinstance(dtype, str):
        raise DamagedContentsError(f"{path}: tensor {name}: its description is broken")
    known = _DTYPES.get(dtype)
    if known is not None and math.prod(shape) * known[1] != end - begin:
        raise DamagedContentsError(f"{path}: tensor {name}: {end - begin} bytes for shape {shape} of {dtype}")
    return (str(known[0]) if known else dtype.lower()), shape, begin, end

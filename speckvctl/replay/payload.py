# SPDX-License-Identifier: MIT
"""The contents of a trace's blocks: real KV, assembled from the tensors of a safetensors file.

Every section (layer, K or V, head) of a block consists of windows of consecutive tokens, at positions chosen by a hash
of the trace, the block's id and the section. So a block is the same in every process and every run, different ids have
different bytes, and a lossy codec meets the statistics of real K and V. K comes from tensors named k, V from those
named v; `k_prerope` is not what an engine stores and is left alone.
"""

from __future__ import annotations

import errno
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv

from speckvctl.codecs.tensors import (
    DamagedTensorsError,
    TensorsError,
    dtype_of,
    element_bytes,
    kind_of,
    read_header,
)

WINDOW_TOKENS = 32
MAX_BYTES_OF_A_KIND = 64 << 20  # of K, and of V: more adds nothing
REFERENCE_CACHE_BYTES = 64 << 20

_EXACT = (speckv.Codec.RAW, speckv.Codec.LOSSLESS)

Bytes = npt.NDArray[np.uint8]

ContentsError = TensorsError  # a KV file that cannot fill this pool's blocks
DamagedContentsError = DamagedTensorsError


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A pool's calibration, and where in it the pool's blocks begin."""

    file: bytes
    first_layer: int
    first_head: int


class Contents:
    """Blocks of one pool's shape. The same file, scope and id give the same bytes everywhere."""

    def __init__(
        self,
        path: str | Path,
        geometry: speckv.Geometry,
        codec: speckv.Codec | str,
        scope: bytes,
        calibrated: Calibrated | None = None,
    ) -> None:
        self.path = Path(path)
        self.geometry = geometry
        self.codec = speckv.Codec(codec)
        self.block_bytes = geometry.block_bytes
        self._scope = scope
        self._row_bytes = geometry.head_dim * element_bytes(geometry.dtype)
        self._windows = {kind: _Windows(tensors, self._row_bytes) for kind, tensors in self._tensors().items()}
        self._references: OrderedDict[tuple[bytes, int], Bytes] = OrderedDict()
        self._calibrated = calibrated
        self._calibration = speckv.codec.Calibration(calibrated.file) if calibrated else None

    @property
    def exact(self) -> bool:
        """Whether the codec is lossless."""
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
        """The expected result of a get: the raw bytes, encoded and decoded if the codec is lossy."""
        known = self._references.get((block, position))
        if known is not None:
            self._references.move_to_end((block, position))
            return known
        raw = np.empty(self.block_bytes, np.uint8)
        self.fill(block, raw)
        if self.exact:
            return raw
        decoded = self._reference(raw, position)
        self._references[block, position] = decoded
        if len(self._references) * self.block_bytes > REFERENCE_CACHE_BYTES:
            self._references.popitem(last=False)
        return decoded

    def _reference(self, raw: Bytes, position: int) -> Bytes:
        identity = speckv.codec.Identity(first_position=position)
        try:
            frame = speckv.codec.encode_frame(
                self.geometry,
                self.codec,
                raw,
                identity=identity,
                calibration=self._calibration,
                first_layer=self._calibrated.first_layer if self._calibrated else 0,
                first_head=self._calibrated.first_head if self._calibrated else 0,
            )
        except speckv.SpeckvError as exc:
            if exc.errno == errno.ENODATA:  # the library stores such a block bit-exact
                return raw
            raise
        decoded: Bytes = speckv.codec.decode_frame(frame, calibration=self._calibration)
        return decoded

    def _tensors(self) -> dict[str, list[Bytes]]:
        """Rows [heads * tokens][bytes] of the file's K and V tensors of the pool's dtype and head size."""
        header = read_header(self.path)
        found: dict[str, list[Bytes]] = {"k": [], "v": []}
        left = {"k": MAX_BYTES_OF_A_KIND, "v": MAX_BYTES_OF_A_KIND}
        others: set[str] = set()
        for name in sorted(header):
            kind = kind_of(name)
            if kind is None:
                continue
            dtype, shape = dtype_of(header[name]), header[name].shape
            if dtype != self.geometry.dtype or len(shape) != 3 or shape[2] != self.geometry.head_dim:
                others.add(f"{dtype}, head size {shape[-1]}" if len(shape) == 3 else f"{dtype} of shape {shape}")
                continue
            heads, tokens, _ = shape
            tokens = min(tokens, left[kind] // max(1, heads * self._row_bytes))
            if tokens < WINDOW_TOKENS or not heads:
                continue
            left[kind] -= heads * tokens * self._row_bytes
            rows = np.memmap(self.path, np.uint8, "r", header[name].offset, (heads, shape[1], self._row_bytes))
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


def file_digest(path: str | Path) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()

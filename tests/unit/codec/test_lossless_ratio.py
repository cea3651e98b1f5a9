# SPDX-License-Identifier: MIT
"""Mode lossless on real K and V: every bit comes back, and the ratio holds, with headers and tables counted."""

from __future__ import annotations

import ctypes.util
import json
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import speckv

TOKENS = 256
BARS = {"bf16": 1.40, "fp16": 1.12}

Words = npt.NDArray[np.uint16]


def tensors(path: Path) -> dict[str, Words]:
    """The file's tensors as 16-bit words, `[kv head][token][channel]`."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found: dict[str, Words] = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            found[name] = np.frombuffer(data[start + first : start + last], dtype="<u2").reshape(entry["shape"])
    return found


def blocks(found: dict[str, Words], dtype: str) -> list[Words]:
    """One layer of a document each, K and V, TOKENS at a time."""
    made = []
    for name in found:
        if name.startswith(dtype) and name.endswith(".k"):
            pair = np.stack([found[name], found[name[:-1] + "v"]])
            made += [np.ascontiguousarray(pair[:, :, t : t + TOKENS]) for t in range(0, pair.shape[2], TOKENS)]
    return made


def zstd_1(data: bytes) -> int | None:
    """What zstd -1 makes of it; None where there is no libzstd."""
    path = ctypes.util.find_library("zstd")
    if not path:
        return None
    library = ctypes.CDLL(path)
    library.ZSTD_compress.restype = ctypes.c_size_t
    room = ctypes.create_string_buffer(len(data) + 65536)
    return int(library.ZSTD_compress(room, ctypes.c_size_t(len(room)), data, ctypes.c_size_t(len(data)), 1))


@pytest.mark.parametrize("dtype", sorted(BARS))
def test_real_tensors_shrink_and_come_back(shared_dir: Path, dtype: str) -> None:
    made = blocks(tensors(shared_dir / "model" / "kv_dev.safetensors"), dtype)
    heads, head_dim = made[0].shape[1], made[0].shape[3]
    shape = speckv.Geometry(layers=1, kv_heads=heads, head_dim=head_dim, tokens=TOKENS, dtype=speckv.DType(dtype))
    raw = stored = zstd = deflated = 0
    for block in made:
        frame = speckv.codec.encode_frame(shape, "lossless", block)
        assert bytes(speckv.codec.decode_frame(frame)) == block.tobytes()
        raw += block.nbytes
        stored += len(frame)
        zstd += zstd_1(block.tobytes()) or 0
        deflated += len(zlib.compress(block.tobytes(), 1))
    print(f"{dtype}: {raw / stored:.4f}x; zstd -1 {raw / zstd if zstd else 0:.4f}x, zlib -1 {raw / deflated:.4f}x")
    assert raw / stored >= BARS[dtype]
    assert stored < deflated
    assert not zstd or stored < zstd

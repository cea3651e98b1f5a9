# SPDX-License-Identifier: MIT
"""Block contents: the same for one id everywhere, different for different ids, and rows of real K and V."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speckv

from speckvctl.codecs.tensors import kind_of
from speckvctl.replay.payload import WINDOW_TOKENS, Contents, ContentsError, DamagedContentsError
from speckvctl.replay.sample import KV

SHAPE = speckv.Geometry()
SCOPE = b"scope"

Write = Callable[..., Path]


@pytest.fixture
def write_kv(tmp_path: Path) -> Write:
    """A safetensors file of named arrays; bf16 is written from uint16."""
    names = {"uint16": "BF16", "float16": "F16", "uint8": "F8_E4M3", "int8": "F8_E5M2", "float32": "F32"}

    def write(**tensors: np.ndarray[Any, np.dtype[Any]]) -> Path:
        header: dict[str, Any] = {"__metadata__": {"origin": "test"}}
        data = b""
        for name, tensor in tensors.items():
            end = len(data) + tensor.nbytes
            header[name] = {"dtype": names[tensor.dtype.name], "shape": tensor.shape, "data_offsets": [len(data), end]}
            data += tensor.tobytes()
        text = json.dumps(header).encode()
        path = tmp_path / "kv.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


def numbered(kind: int, heads: int = 2, tokens: int = 100, channels: int = 128) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Every row says what it is: kind, head, token."""
    rows = np.empty((heads, tokens, channels), np.uint16)
    rows[:] = np.arange(heads)[:, None, None] * 1000 + np.arange(tokens)[None, :, None] + kind * 10000
    return rows


def block_of(contents: Contents, name: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    out = np.empty(contents.block_bytes, np.uint8)
    contents.fill(name, out)
    return out


def test_one_id_gives_the_same_bytes_in_every_process(run_python: Callable[[str], str]) -> None:
    here = block_of(Contents(KV, SHAPE, "raw", SCOPE), b"id 7")
    program = f"""
import zlib, numpy, speckv
from speckvctl.replay.payload import Contents
out = numpy.empty({SHAPE.block_bytes}, numpy.uint8)
Contents({str(KV)!r}, speckv.Geometry(), "raw", {SCOPE!r}).fill(b"id 7", out)
print(zlib.crc32(out))
"""
    assert run_python(program) == f"{zlib.crc32(here.tobytes())}\n"


def test_different_ids_scopes_and_seeds_give_different_bytes() -> None:
    contents = Contents(KV, SHAPE, "raw", SCOPE)
    seen = {block_of(contents, f"{number}".encode()).tobytes() for number in range(2000)}
    seen.add(block_of(Contents(KV, SHAPE, "raw", b"other scope"), b"0").tobytes())
    assert len(seen) == 2001


@pytest.mark.parametrize("shape", [SHAPE, speckv.Geometry(3, 5, 128, 192), speckv.Geometry(1, 1, 128, 64)])
def test_sections_are_made_of_whole_windows_of_their_own_kind(write_kv: Write, shape: speckv.Geometry) -> None:
    path = write_kv(a_k=numbered(1), a_v=numbered(2), b_k=numbered(3), b_v=numbered(4), a_k_prerope=numbered(5))
    block = block_of(Contents(path, shape, "raw", SCOPE), b"x").view(np.uint16)
    windows = block.reshape(shape.layers, 2, -1, WINDOW_TOKENS, shape.head_dim)
    assert (windows == windows[..., :1]).all(), "a row is a row of the source"
    tokens = windows[..., 0]
    assert (np.diff(tokens.astype(int), axis=-1) == 1).all(), "a window is consecutive tokens of one head"
    assert set(np.unique(tokens[:, 0] // 10000)) <= {1, 3} and set(np.unique(tokens[:, 1] // 10000)) <= {2, 4}


def test_every_tensor_and_head_is_used(write_kv: Write) -> None:
    path = write_kv(a_k=numbered(1), a_v=numbered(2), b_k=numbered(3))
    contents = Contents(path, SHAPE, "raw", SCOPE)
    rows = np.concatenate(
        [block_of(contents, b"%d" % n).view(np.uint16).reshape(2, -1, 128)[:, :, 0] for n in range(50)]
    )
    assert set(np.unique(rows // 1000)) == {10, 11, 20, 21, 30, 31}


def test_a_lossy_codec_is_compared_with_its_own_decode() -> None:
    raw = block_of(Contents(KV, SHAPE, "raw", SCOPE), b"x")
    assert (Contents(KV, SHAPE, "raw", SCOPE).expected(b"x", 0) == raw).all()
    lossy = Contents(KV, SHAPE, "int8-delta-rle", SCOPE)
    assert not lossy.exact
    decoded = speckv.codec.decode_frame(speckv.codec.encode_frame(SHAPE, "int8-delta-rle", raw))
    assert (lossy.expected(b"x", 0) == decoded).all()
    assert lossy.expected(b"x", 0) is lossy.expected(b"x", 0), "decoded once, then remembered"
    assert (decoded != raw).any()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bf16.doc003.layer0.k", "k"),
        ("layer0.V", "v"),
        ("past_key.3", "k"),
        ("values/7", "v"),
        ("doc.k_prerope", None),
        ("doc.kv", None),
        ("k.v", None),
        ("weight", None),
        ("book", None),
    ],
)
def test_names_say_what_is_k_and_what_is_v(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (speckv.Geometry(dtype=speckv.DType.FP16), "fp16, head size 128"),
        (speckv.Geometry(head_dim=64), "bf16, head size 64"),
    ],
)
def test_another_dtype_or_head_size_is_refused_naming_both(shape: speckv.Geometry, wanted: str) -> None:
    with pytest.raises(ContentsError) as caught:
        Contents(KV, shape, "raw", SCOPE)
    assert f"the pool holds {wanted}, this file holds bf16, head size 128" in str(caught.value)


def test_a_file_without_k_or_without_v_is_refused(write_kv: Write) -> None:
    with pytest.raises(ContentsError, match="tensors named k and v"):
        Contents(write_kv(weight=numbered(0)), SHAPE, "raw", SCOPE)
    with pytest.raises(ContentsError):
        Contents(write_kv(k=numbered(0)), SHAPE, "raw", SCOPE)
    with pytest.raises(ContentsError):
        Contents(write_kv(k=numbered(0, tokens=8), v=numbered(0, tokens=8)), SHAPE, "raw", SCOPE)


def test_fp8_is_taken_as_it_is(write_kv: Write) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (2, 64, 128), np.uint8)
    shape = speckv.Geometry(dtype=speckv.DType.FP8_E4M3)
    assert set(block_of(Contents(write_kv(k=rows, v=rows), shape, "raw", SCOPE), b"x")) <= set(rows.ravel())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"?" + data[9:],
        lambda data: data[:-1],
        lambda data: data.replace(b'"BF16"', b'"F16" ').replace(b"[0, ", b"[1, "),
        lambda data: data.replace(b'"shape"', b'"shade"'),
        lambda data: (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_a_damaged_file_is_refused(write_kv: Write, damage: Callable[[bytes], bytes]) -> None:
    path = write_kv(k=numbered(0), v=numbered(1))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedContentsError):
        Contents(path, SHAPE, "raw", SCOPE)


@pytest.mark.shared
@pytest.mark.parametrize("dtype", [speckv.DType.BF16, speckv.DType.FP16])
def test_the_real_kv_fills_blocks_of_its_dtype(shared_dir: Path, dtype: speckv.DType) -> None:
    contents = Contents(shared_dir / "model" / "kv_dev.safetensors", speckv.Geometry(dtype=dtype), "raw", SCOPE)
    assert len({block_of(contents, b"%d" % number).tobytes() for number in range(100)}) == 100

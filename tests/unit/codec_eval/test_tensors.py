# SPDX-License-Identifier: MIT
"""Files of K and V are read to the byte, or refused by name."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speckv

from speckvctl.codecs import tensors
from speckvctl.codecs.tensors import TensorsError
from tests.unit.codec_eval import kv


def test_pairs_are_found_by_their_names_and_read_to_the_byte(tmp_path: Path) -> None:
    path = kv.pairs(tmp_path / "kv.safetensors")
    found, others = tensors.read_pairs(path, 64)
    assert [(pair.k_name, pair.v_name, pair.layer) for pair in found] == [
        (f"doc.layer{layer}.k", f"doc.layer{layer}.v", layer) for layer in (0, 1)
    ]
    assert others == ["doc.layer0.k_prerope", "steps"]
    pair = found[1]
    assert (pair.heads, pair.tokens, pair.head_dim, pair.dtype) == (2, 128, 64, "bf16")
    assert np.array_equal(pair.v.view(np.uint16), kv.like_kv((2, 128, 64), seed=3))
    blocks = list(pair.blocks(64))
    assert np.array_equal(blocks[1][0], pair.k[:, 64:])
    again = pair.with_blocks(blocks)
    assert np.array_equal(again.k, pair.k) and np.array_equal(again.v, pair.v)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("layers.12.k", 12), ("model.layer_3.key", 3), ("bf16.doc003.layer0.v", 0), ("k", None), ("player7.k", None)],
)
def test_a_layer_is_what_the_name_tells(name: str, layer: int | None) -> None:
    assert tensors.layer_of(name) == layer


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp8_e4m3", "fp8_e5m2"])
def test_every_bit_pattern_is_the_number_that_torch_reads(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    kinds = {
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp8_e4m3": torch.float8_e4m3fn,
        "fp8_e5m2": torch.float8_e5m2,
    }
    wide = dtype in ("bf16", "fp16")
    bits = np.arange(65536, dtype=np.uint16).view(np.uint8) if wide else np.arange(256, dtype=np.uint8)
    known = torch.from_numpy(bits.copy()).view(kinds[dtype]).float().numpy()
    assert np.array_equal(tensors.floats(bits, speckv.DType(dtype)), known, equal_nan=True)


def test_what_is_written_is_read_back_by_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    bits = kv.like_kv((2, 64, 64), dtype="F16")
    shape = {"a.k": (speckv.DType.FP16, bits.shape), "a.v": (speckv.DType.FP16, bits.shape)}
    held = {"a.k": bits, "a.v": np.ascontiguousarray(bits[::-1])}
    tensors.write_tensors(tmp_path / "new", shape, lambda name: held[name].view(np.uint8))
    found = load_file(tmp_path / "new")
    assert np.array_equal(found["a.k"].view(np.uint16), bits)
    assert np.array_equal(found["a.v"].view(np.uint16), bits[::-1])


BITS = kv.like_kv((2, 128, 64))
BROKEN: dict[str, tuple[dict[str, tuple[str, Any]], str, int]] = {
    "integers": ({"k": ("I16", BITS.view(np.int16))}, "k is i16", errno.EOPNOTSUPP),
    "wide floats": ({"k": ("F32", BITS.astype(np.float32))}, "k is f32", errno.EOPNOTSUPP),
    "empty": ({"k": ("BF16", BITS[:, :0]), "v": ("BF16", BITS[:, :0])}, "k is empty", errno.EINVAL),
    "odd tokens": ({"k": ("BF16", BITS[:, :100])}, "has 100 tokens", errno.EINVAL),
    "a matrix": ({"k": ("BF16", BITS[0])}, "has shape", errno.EINVAL),
    "no V": ({"k": ("BF16", BITS)}, "k has no V", errno.EINVAL),
    "another V": ({"k": ("BF16", BITS), "v": ("F16", BITS)}, "do not have the same", errno.EINVAL),
    "two of a kind": ({"a.k": ("BF16", BITS), "a.key": ("BF16", BITS)}, "are both the K", errno.EINVAL),
    "nothing": ({"weights": ("BF16", BITS)}, "no tensors named k and v", errno.EINVAL),
    "a head too wide": ({"k": ("BF16", np.zeros((1, 64, 65600), np.uint16))}, "is too large", errno.EINVAL),
}


@pytest.mark.parametrize("case", BROKEN)
def test_tensors_that_no_frame_can_hold_are_refused_by_name(case: str, tmp_path: Path) -> None:
    held, reason, number = BROKEN[case]
    path = kv.write(tmp_path / "kv.safetensors", held)
    with pytest.raises(TensorsError, match=reason) as caught:
        tensors.read_pairs(path, 64)
    assert caught.value.errno == number


def test_a_tensor_that_claims_more_than_there_is_is_cut_short(tmp_path: Path) -> None:
    path = kv.pairs(tmp_path / "kv.safetensors")
    path.write_bytes(path.read_bytes()[:-40000])
    with pytest.raises(TensorsError, match="cut short") as caught:
        tensors.read_pairs(path, 64)
    assert caught.value.errno == errno.EBADMSG


def test_a_tensor_that_claims_a_terabyte_is_refused_before_any_memory_is_taken(tmp_path: Path) -> None:
    text = b'{"k":{"dtype":"BF16","shape":[8,536870912,128],"data_offsets":[0,1099511627776]}}'
    path = tmp_path / "kv.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(TensorsError, match="cut short"):
        tensors.read_pairs(path, 64)

# SPDX-License-Identifier: MIT
"""Generates files of K and V for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint16]


def like_kv(shape: tuple[int, int, int], *, dtype: str = "BF16", seed: int = 1) -> Words:
    """Numbers with a few strong channels, as K has, in bf16 or fp16."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, shape).astype(np.float32) * np.where(rng.random(shape[2]) < 0.05, 8, 1)
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write(path: Path, tensors: dict[str, tuple[str, npt.NDArray[Any]]]) -> Path:
    """A safetensors file; of each tensor its dtype as the format names it, and its bits."""
    header: dict[str, Any] = {"__metadata__": {"made": "for a test"}}
    end = 0
    for name, (dtype, bits) in tensors.items():
        shape = list(bits.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(bits.tobytes() for _, bits in tensors.values()))
    return path


def pairs(path: Path, *, layers: int = 2, shape: tuple[int, int, int] = (2, 128, 64), dtype: str = "BF16") -> Path:
    """K and V of some layers, and two tensors that are neither."""
    tensors: dict[str, tuple[str, npt.NDArray[Any]]] = {
        f"doc.layer{layer}.{kind}": (dtype, like_kv(shape, dtype=dtype, seed=2 * layer + (kind == "v")))
        for layer in range(layers)
        for kind in "kv"
    }
    tensors |= {"doc.layer0.k_prerope": (dtype, like_kv(shape, dtype=dtype)), "steps": ("I64", np.arange(4))}
    return write(path, tensors)

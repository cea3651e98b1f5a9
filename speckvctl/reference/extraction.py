# SPDX-License-Identifier: MIT
"""Writes the K and V that a model makes of documents to a safetensors file. Imported by commands/codec/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import speckv
import torch

from speckvctl.codecs import tensors
from speckvctl.reference.documents import BLOCK

if TYPE_CHECKING:
    from speckvctl.reference.decoder import Decoder, Shape
    from speckvctl.reference.documents import Ints

Progress = Callable[[int, int], None]


def shapes(shape: Shape, ids: Ints) -> dict[str, tuple[speckv.DType, tuple[int, int, int]]]:
    """The tensors that write() makes, by name: `doc0.layer0.k`, in bf16 [KV head][token][channel].

    Whole blocks of 64 tokens only: the last tokens of a document can be missing.
    """
    size = shape.kv_heads, ids.shape[1] // BLOCK * BLOCK, shape.head_dim
    return {
        f"doc{document}.layer{layer}.{kind}": (speckv.DType.BF16, size)
        for document in range(len(ids))
        for layer in range(shape.layers)
        for kind in "kv"
    }


def write(model: Decoder, ids: Ints, path: Path, progress: Progress) -> None:
    """Run the model on documents [document][token], one at a time; replaces `path` when all of it is there."""
    wanted = shapes(model.shape, ids)
    tokens = ids.shape[1] // BLOCK * BLOCK
    found: dict[str, tensors.Bytes] = {}

    def run(document: int) -> None:
        progress(document, len(ids))

        def keep(layer: int, k: Any, v: Any) -> None:
            for kind, values in (("k", k), ("v", v)):
                rows = values[0, :, :tokens].to("cpu", torch.bfloat16).contiguous()
                found[f"doc{document}.layer{layer}.{kind}"] = rows.view(torch.uint8).numpy()

        found.clear()
        with torch.inference_mode():
            model.hidden(torch.from_numpy(ids[document : document + 1]).to(model.device), keep=keep)

    def fill(name: str) -> tensors.Bytes:
        if name not in found:
            run(int(name.split(".")[0].removeprefix("doc")))
        return np.ascontiguousarray(found[name])

    tensors.write_tensors(path, wanted, fill)
    progress(len(ids), len(ids))

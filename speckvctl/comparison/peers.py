# SPDX-License-Identifier: MIT
"""Peers, measured in the same run: byte compressors, casts and quantisers without a calibration.

Byte compressors see the same blocks as our modes and are timed; the rest is arithmetic on floats, for loss and
size, not speed. Sizes count every scale and offset, but no header, table or checksum: this favours the peers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from speckvctl.codecs.distortion import Tally, compare
from speckvctl.codecs.modes import BLOCK_TOKENS, Rates
from speckvctl.codecs.tensors import Bytes, Pair, element_bytes, floats
from speckvctl.comparison import cachegen
from speckvctl.comparison import quantisers as arithmetic
from speckvctl.errors import UnsupportedError

Tensor = Any  # torch.Tensor, float32 [document][head][token][channel]


@dataclass(frozen=True)
class Compressor:
    """A lossless byte compressor."""

    name: str
    pack: Callable[[bytes], bytes]
    unpack: Callable[[bytes], bytes]
    shuffled: bool = False  # all low bytes, then all high bytes

    def code(self, pair: Pair) -> tuple[Tally, list[float]]:
        """Compressed size, and the seconds each way."""
        stored, times, blocks = 0, [0.0, 0.0], []
        width = element_bytes(pair.dtype) if self.shuffled else 1
        for block in pair.blocks(BLOCK_TOKENS):
            begin = time.perf_counter()
            small = self.pack(_planes(block, width).tobytes())
            middle = time.perf_counter()
            back = _woven(np.frombuffer(self.unpack(small), np.uint8), width).reshape(block.shape)
            times[1] += time.perf_counter() - middle
            times[0] += middle - begin
            stored += len(small)
            blocks.append(back)
        return compare(pair, pair.with_blocks(blocks), stored), times

    def judge(self, pairs: list[Pair]) -> tuple[Tally, Rates]:
        total, median = Tally(), [0.0, 0.0]
        for pair in pairs:
            turns = [self.code(pair) for _ in range(3)]
            total.merge(turns[0][0])
            for way in (0, 1):
                median[way] += sorted(times[way] for _, times in turns)[1]
        return total, Rates(total.raw_bytes / median[0], total.raw_bytes / median[1])


def _planes(block: Bytes, width: int) -> Bytes:
    return block.reshape(-1, width).T if width > 1 else block


def _woven(data: Bytes, width: int) -> Bytes:
    return np.ascontiguousarray(data.reshape(width, -1).T) if width > 1 else data


@dataclass(frozen=True)
class Quantiser:
    """A lossy quantiser of floats."""

    name: str
    k_bits: float  # of a value, scales and offsets included
    v_bits: float
    k: Callable[[Tensor], Tensor]
    v: Callable[[Tensor], Tensor]
    row_bits: int = 0  # of a token of K or V

    def store(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The quantiser as the cache of a model with KV in bf16."""
        return self.k(k).bfloat16().float(), self.v(v).bfloat16().float()

    def judge(self, pairs: list[Pair]) -> tuple[Tally, Rates]:
        total = Tally()
        for pair in pairs:
            if pair.head_dim % 64:
                reason = f"{pair.k_name}: {self.name} takes groups of 64 channels, not a head size of {pair.head_dim}"
                raise UnsupportedError(reason)
            k, v = rounded(pair, self.k(tensor(pair, pair.k))), rounded(pair, self.v(tensor(pair, pair.v)))
            rows = pair.heads * pair.tokens
            stored = round(rows * (pair.head_dim * (self.k_bits + self.v_bits) + 2 * self.row_bits) / 8)
            decoded = Pair(pair.k_name, pair.v_name, pair.layer, pair.dtype, k, v)
            total.merge(compare(pair, decoded, stored))
        return total, Rates(None, None)


@dataclass(frozen=True)
class CacheGen:
    """The coder of speckvctl/comparison/cachegen.py. Ratio and loss are of whole tensors: its unit is a long chunk.

    `layers` of the model that the tensors are from; None: derived from the tensors' names.
    """

    layers: int | None = None
    name: str = "CacheGen-style"

    def store(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        both = (cachegen.quantised(x, cachegen.levels(layer, self.layers or layer + 1))[0] for x in (k, v))
        k, v = (x.bfloat16().float() for x in both)
        return k, v

    def judge(self, pairs: list[Pair]) -> tuple[Tally, Rates]:
        total = Tally()
        layers = self.layers or 1 + max(pair.layer or 0 for pair in pairs)
        for pair in pairs:
            bins = cachegen.levels(pair.layer or 0, layers)
            coded = [cachegen.code(tensor(pair, half), bins) for half in (pair.k, pair.v)]
            k, v = (rounded(pair, back) for back, _ in coded)
            decoded = Pair(pair.k_name, pair.v_name, pair.layer, pair.dtype, k, v)
            total.merge(compare(pair, decoded, sum(size for _, size in coded)))
        return total, Rates(None, None)


Peer = Compressor | Quantiser | CacheGen


def tensor(pair: Pair, half: Bytes) -> Tensor:
    import torch

    return torch.from_numpy(floats(half, pair.dtype))[None]


def rounded(pair: Pair, values: Tensor) -> Bytes:
    """Round to the pair's dtype; returns its bytes."""
    import torch

    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8_e4m3": torch.float8_e4m3fn}
    made = values[0].to(dtypes.get(pair.dtype, torch.float8_e5m2)).contiguous().view(torch.uint8).numpy()
    found: Bytes = made.reshape(pair.k.shape)
    return found


def compressors() -> list[Compressor]:
    try:
        import lz4.frame
        import zstandard
    except ImportError as exc:
        raise UnsupportedError(
            f"the peers need zstandard and lz4: {exc}", "pip install '.[codec]' in the source tree"
        ) from exc
    unpack = zstandard.ZstdDecompressor().decompress
    fast, usual = zstandard.ZstdCompressor(1).compress, zstandard.ZstdCompressor(3).compress
    return [
        Compressor("zstd -1", fast, unpack),
        Compressor("zstd -3", usual, unpack),
        Compressor("lz4", lz4.frame.compress, lz4.frame.decompress),
        Compressor("byte shuffle + zstd -1", fast, unpack, shuffled=True),
    ]


def quantisers() -> list[Quantiser | CacheGen]:
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise UnsupportedError(f"these peers need torch: {exc}", "pip install '.[codec]' in the source tree") from exc
    return [
        Quantiser("fp8 e4m3 cast", 8, 8, arithmetic.fp8, arithmetic.fp8),
        Quantiser("fp8 e4m3 scaled", 8, 8, arithmetic.fp8_scaled, arithmetic.fp8_scaled),
        Quantiser("MXFP4", 4.25, 4.25, arithmetic.mxfp4, arithmetic.mxfp4),
        Quantiser("NVFP4", 4.5, 4.5, arithmetic.nvfp4, arithmetic.nvfp4),
        Quantiser("KIVI 4-bit", 4.5, 4.5, arithmetic.kivi_k, arithmetic.kivi_v),
        Quantiser(
            "TurboQuant-like 4/3",
            4,
            3,
            partial(arithmetic.turboquant, bits=4),
            partial(arithmetic.turboquant, bits=3),
            row_bits=16,
        ),
        CacheGen(),
    ]

# SPDX-License-Identifier: MIT
"""Statistics for calibrations: a model's KV, and the sensitivity of its loss to errors in it.

The text is not used for evaluation. A target sampled from the model's own prediction at every position
makes the squared gradient of the loss an estimate of how much a small error in any stored value costs (Fisher
information).
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv
import torch
import torch.nn.functional as F
from speckv.codec import Calibration

from speckvctl.reference import rotary
from speckvctl.reference.decoder import KV, Decoder, Shape, by_blocks
from speckvctl.reference.documents import BLOCK

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Place = tuple[int, int, int]  # layer, K or V, KV head
Block = tuple[int, Any, Any]  # first position, values, gradients; all layers

FORMAT, VERSION = "speckv-calibration", "1"
HEAD_DIMS = (64, 80, 96, 128, 192, 256)
INPUT_MAX = 16383  # largest integer input; the largest value seen maps to a quarter of it
HEADROOM = 4
SINKS = 4  # leading tokens of a sequence, which frames keep as they are: FORMAT.md 5.1
SEQUENCE = 2048  # tokens of a sequence, of which ratios are
SAMPLE_BYTES = 1 << 30  # blocks kept to evaluate codecs on


class CalibrationError(Exception):
    """A calibration cannot be made with these parameters."""

    def __init__(self, reason: str, number: int = errno.EINVAL) -> None:
        super().__init__(reason)
        self.errno = number


@dataclass
class Head:
    """Sums over the tokens of one head of one tensor of one layer, K without its rotary embedding."""

    total: Any
    products: Any  # of values: the sum of their outer products
    sensitivity: Any  # of gradients, likewise
    count: int = 0
    largest: float = 0.0

    @property
    def mean(self) -> Array:
        found: Array = self.total.cpu().numpy() / self.count
        return found

    @property
    def covariance(self) -> Array:
        mean = self.mean
        found: Array = self.products.cpu().numpy() / self.count - np.outer(mean, mean)
        return found

    @property
    def unit(self) -> int:
        """The exponent of the unit in which values are integers."""
        return min(max(math.ceil(math.log2(max(self.largest, 1e-9) * HEADROOM / INPUT_MAX)), -60), 40)


@dataclass
class Study:
    """Statistics of the model's KV."""

    heads: dict[Place, Head] = field(default_factory=dict)
    tokens: int = 0
    documents: int = 0
    nats: float = 0.0
    blocks: list[Block] = field(default_factory=list)
    # Excludes the last quarter of the documents, which validates what is made from these.
    early: dict[Place, Head] = field(default_factory=dict)
    early_blocks: int = 0

    @property
    def late(self) -> list[Block]:
        """Blocks of the documents that `early` excludes; with one document, all."""
        return self.blocks[self.early_blocks :] or self.blocks


def raw_bytes(shape: Shape) -> int:
    """Of a block of all layers."""
    return shape.layers * 2 * shape.kv_heads * BLOCK * shape.head_dim * 2


def study(model: Decoder, ids: Array, seed: int, progress: Progress | None) -> Study:
    found = Study()
    shape = model.shape
    rng = np.random.default_rng(seed)
    turns = rotary.turns(model)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    block_bytes = 2 * raw_bytes(shape)
    per_document = max(1, min(ids.shape[1] // BLOCK, SAMPLE_BYTES // block_bytes // len(ids)))
    for number, document in enumerate(ids):
        if progress is not None:
            progress(number, len(ids))
        leaves: list[KV] = []

        def capture(_layer: int, k: Any, v: Any) -> KV:
            pair = (k.detach().clone().requires_grad_(), v.detach().clone().requires_grad_())
            leaves.append(pair)  # noqa: B023 - used up within the iteration
            return pair

        tokens = torch.from_numpy(document[None]).to(model.device)
        hidden = model.hidden(tokens, store=capture, rows=by_blocks(tokens.shape[1], BLOCK))
        likelihood = F.log_softmax(model.logits(hidden[0]), -1)
        with torch.no_grad():
            drawn = torch.multinomial(likelihood.exp(), 1, generator=generator)
            found.nats += float(F.nll_loss(likelihood[:-1], tokens[0, 1:], reduction="sum"))
        gradients = torch.autograd.grad(
            likelihood[:-1].gather(1, drawn[:-1]).sum(), [leaf for pair in leaves for leaf in pair]
        )
        found.tokens += len(document) - 1
        found.documents += 1
        with torch.no_grad():
            _add(turns, found, leaves, gradients)
            full = leaves[0][0].shape[2] // BLOCK
            for block in rng.choice(full, min(per_document, full), replace=False):
                part = slice(int(block) * BLOCK, (int(block) + 1) * BLOCK)
                values = torch.stack([torch.stack([x[0, :, part] for x in pair]) for pair in leaves])
                slopes = torch.stack([x[0, :, part] for x in gradients]).view(values.shape)
                found.blocks.append((int(block) * BLOCK, values.to(model.dtype).cpu(), slopes.bfloat16().cpu()))
        if number + 1 == max(1, len(ids) * 3 // 4):
            found.early = {place: replace(head) for place, head in found.heads.items()}
            found.early_blocks = len(found.blocks)
    if progress is not None:
        progress(len(ids), len(ids))
    return found


def _add(turns: Array | None, found: Study, leaves: list[KV], gradients: Any) -> None:
    for layer, pair in enumerate(leaves):
        for tensor, values in enumerate(pair):
            slopes = gradients[2 * layer + tensor]
            largest = values[:, :, SINKS:].abs().amax((0, 2, 3))
            if tensor == 0:
                values, slopes = (rotary.unrotated(turns, x) for x in (values, slopes))
            for head in range(values.shape[1]):
                x, g = values[0, head, SINKS:].double(), slopes[0, head, SINKS:].double()
                sums = found.heads.setdefault((layer, tensor, head), Head(0, 0, 0))
                sums.total, sums.products = sums.total + x.sum(0), sums.products + x.T @ x
                sums.sensitivity = sums.sensitivity + g.T @ g
                sums.count += len(x)
                sums.largest = max(sums.largest, float(largest[head]))


def tables(model: Decoder, found: Study, prefix: str) -> dict[str, Array]:
    """Tables common to all modes: the rotary embedding, and the units and means of heads."""
    shape = model.shape
    unit = np.zeros((shape.layers, 2, shape.kv_heads), np.int8)
    mean = np.zeros((*unit.shape, shape.head_dim), np.int16)
    for place, head in found.heads.items():
        unit[place] = head.unit
        mean[place] = np.clip(np.rint(head.mean * 2.0**-head.unit), -INPUT_MAX, INPUT_MAX)
    radians = rotary.turns(model)
    radians = np.zeros(shape.head_dim // 2) if radians is None else radians
    turns = [round(angle / (2 * math.pi) * 2**64) for angle in radians]
    return {"rotary.turns": np.array(turns, np.uint64), f"{prefix}.unit": unit, f"{prefix}.mean": mean}


def file(tables: dict[str, Array], **about: str) -> bytes:
    from safetensors.numpy import save

    metadata = {"format": FORMAT, "version": VERSION, "rotary": "halves", **about}
    return bytes(save(tables, metadata=metadata))


def ratio(blocks: list[Block], codec: speckv.Codec, tables: dict[str, Array]) -> float:
    """Bytes of blocks over bytes of their frames."""
    calibration = Calibration(file(tables))
    frames = [_frame(position, values, codec, calibration).nbytes for position, values, _ in blocks]
    return float(sum(values.numel() * values.element_size() for _, values, _ in blocks) / sum(frames))


def losses(blocks: list[Block], codec: speckv.Codec, tables: dict[str, Array]) -> Array:
    """Expected loss a token, in nats, [layer][K, V][KV head], by the codec's own errors in these blocks."""
    calibration = Calibration(file(tables))

    def of(block: Block) -> Any:
        position, values, slopes = block
        out = np.empty(values.shape, np.int16)
        speckv.codec.decode_frame(_frame(position, values, codec, calibration), out=out, calibration=calibration)
        decoded = torch.from_numpy(out).view(values.dtype)
        return ((decoded.float() - values.float()) * slopes.float()).sum(-1).double().pow(2).sum(-1) / 2

    tokens = sum(values.shape[-2] for _, values, _ in blocks)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return np.asarray((sum(pool.map(of, blocks)) / tokens).numpy())


def some(blocks: list[Block], count: int) -> list[Block]:
    """That many blocks, evenly spaced; at least one."""
    count = max(1, count)
    return [blocks[i * len(blocks) // count] for i in range(count)] if count < len(blocks) else blocks


def _frame(position: int, values: Any, codec: speckv.Codec, calibration: Calibration) -> Any:
    dtype = "bf16" if values.dtype == torch.bfloat16 else "fp16"
    layers, _, heads, tokens, width = values.shape
    return speckv.codec.encode_frame(
        speckv.Geometry(layers, heads, width, tokens, speckv.DType(dtype)),
        codec,
        values.contiguous().view(torch.int16).numpy(),
        identity=speckv.codec.Identity(first_position=position),
        calibration=calibration,
    )

# SPDX-License-Identifier: MIT
"""Tables of the mode q5c: noise shaping, and the bits of each head.

The sensitivity of the loss gives the noise shaping and, with the codec's own errors at each width, the width of every
head.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv
import torch

from speckvctl.calibration import statistics
from speckvctl.calibration.statistics import Array, Block, CalibrationError, Head, Place, Study
from speckvctl.reference.decoder import Decoder, Shape
from speckvctl.reference.documents import BLOCK

CODEC = speckv.Codec.Q5C
RATIO = 5.0
WIDTHS = range(1, 6)
SHAPING_ONE, SHAPING_MAX = 512, 65535
#: Shares of the mean sensitivity added in every direction, for few documents do not cover all of them; infinity: no
#: shaping. Each head has the one that is best at this width.
DAMPINGS, WIDTH_TRIED = (0.1, 0.3, 1.0, 3.0, math.inf), 3
TRIAL_BYTES = 128 << 20  # raw bytes of the blocks that the codec is tried on


def tables(model: Decoder, found: Study, ratio: float) -> tuple[dict[str, Array], Array, float, float]:
    """The tables, the bits of every head, the frames' ratio and the expected loss of a token in nats."""
    shape = model.shape
    common = statistics.tables(model, found, "q5c")
    common |= _shapings(shape, found.heads, _dampings(shape, found, common))
    blocks = statistics.some(found.blocks, TRIAL_BYTES // statistics.raw_bytes(shape))
    losses = np.stack([_losses(blocks, common, width) for width in WIDTHS])
    raw, least = statistics.raw_bytes(shape), _least_bytes(shape)
    budget = losses[0].size + math.floor((raw / ratio - least) / (BLOCK * shape.head_dim // 8))
    widths = _widths(losses, budget)
    chosen = np.take_along_axis(losses, widths[None].astype(np.int64) - 1, 0)
    return _with_widths(common, widths), widths, raw / _frame_bytes(shape, widths), float(chosen.sum())


def check(shape: Shape, ratio: float) -> None:
    """Refuse a ratio that one bit a value does not reach."""
    raw, least = statistics.raw_bytes(shape), _least_bytes(shape)
    if raw / ratio < least:
        raise CalibrationError(f"a ratio of {ratio:g} is out of reach: {raw / least:.2f} is the most for this model")


def _least_bytes(shape: Shape) -> float:
    return _frame_bytes(shape, np.ones((shape.layers, 2, shape.kv_heads)))


def _frame_bytes(shape: Shape, widths: Array) -> float:
    """Frame of one 64-token block of all layers, on average over a sequence.

    Header, table, and per head 64 scales and the codes; the first block also has the sinks as they are.
    """
    front = -(-(128 + 32 * shape.layers) // 64) * 64
    sinks = 2 * statistics.SINKS * shape.head_dim * widths.size / (statistics.SEQUENCE // BLOCK)
    return float(front + (BLOCK + BLOCK * shape.head_dim // 8 * widths.astype(np.int64)).sum() + sinks)


def _dampings(shape: Shape, found: Study, common: dict[str, Array]) -> Array:
    """The damping of every head with which the codec loses least on documents that its shaping is not made from."""
    blocks = statistics.some(found.late, TRIAL_BYTES // statistics.raw_bytes(shape))
    size = (shape.layers, 2, shape.kv_heads)
    losses = [
        _losses(blocks, common | _shapings(shape, found.early, np.full(size, each)), WIDTH_TRIED) for each in DAMPINGS
    ]
    best: Array = np.asarray(DAMPINGS)[np.stack(losses).argmin(0)]
    return best


def _shapings(shape: Shape, heads: dict[Place, Head], dampings: Array) -> dict[str, Array]:
    shaping = np.zeros((*dampings.shape, shape.head_dim * (shape.head_dim - 1) // 2), np.int16)
    rotation = _rotation(shape.head_dim).double().numpy()
    below = np.tril_indices(shape.head_dim, -1)
    for place, head in heads.items():
        if math.isfinite(dampings[place]):
            sensitivity = rotation.T @ head.sensitivity.cpu().numpy() @ rotation
            shaping[place] = _shaping(sensitivity, dampings[place])[below]
    return {"q5c.shaping": shaping}


def _with_widths(common: dict[str, Array], widths: Array) -> dict[str, Array]:
    return common | {"q5c.bits": widths.astype(np.uint8)}


def _rotation(head_dim: int) -> Any:
    """The orthonormal Hadamard transform, slice by slice."""
    slice_ = min(128, head_dim & -head_dim)
    matrix = torch.ones(1, 1)
    while len(matrix) < slice_:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    slices = torch.eye(head_dim // slice_)
    return torch.kron(slices, matrix / math.sqrt(slice_))


def _shaping(sensitivity: Array, damping: float) -> Array:
    """Noise shaping: the weight of each channel's error in later channels, below the diagonal, in 1/512.

    e' S e = sum of D(i) (e(i) + sum over j < i of U(i, j) e(j))^2: channel i, quantised after those before it, aims at
    its value plus sum U(i, j) e(j).
    """
    scale = float(np.trace(sensitivity)) / len(sensitivity)
    damped = sensitivity / scale + damping * np.eye(len(sensitivity)) if scale > 0 else np.eye(len(sensitivity))
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    unit_lower = (upper / np.diagonal(upper)).T
    shaping = np.tril(np.rint(unit_lower * SHAPING_ONE), -1)
    excess = np.abs(shaping).sum(1, keepdims=True) / SHAPING_MAX
    found: Array = np.trunc(np.clip(shaping / np.maximum(excess, 1), -32767, 32767)).astype(np.int16)
    return found


def _widths(losses: Array, budget: int) -> npt.NDArray[np.uint8]:
    """Greedy allocation of `budget` bits: each goes to the head where it saves most."""
    widths = np.ones(losses.shape[1:], np.uint8)
    best = np.minimum.accumulate(losses, 0)
    for _ in range(budget - widths.size):
        now = np.take_along_axis(best, widths[None].astype(np.int64) - 1, 0)[0]
        more = np.take_along_axis(best, np.minimum(widths, len(losses) - 1)[None].astype(np.int64), 0)[0]
        gain = np.where(widths < len(losses), now - more, -1.0)
        if gain.max() < 0:
            break
        widths[np.unravel_index(int(gain.argmax()), gain.shape)] += 1
    return widths


def _losses(blocks: list[Block], common: dict[str, Array], width: int) -> Array:
    """Expected loss if every head had this width."""
    every = np.full(common["q5c.unit"].shape, width, np.uint8)
    return statistics.losses(blocks, CODEC, _with_widths(common, every))

# SPDX-License-Identifier: MIT
"""Tables of the mode q5c: noise shaping, and the bits of each head.

The sensitivity of the loss gives the noise shaping and, with the codec's own errors at each width, the width of every
head.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv
import torch

from speckvctl.calibration import statistics
from speckvctl.calibration.statistics import Array, CalibrationError, Study
from speckvctl.reference.decoder import Decoder, Shape
from speckvctl.reference.documents import BLOCK

CODEC = speckv.Codec.Q5C
RATIO = 6.0
WIDTHS = range(1, 6)
LEVELS = 32
DEVIATION = 256  # of a level table
SHAPING_ONE, SHAPING_MAX = 512, 65535
DAMPING = 0.1  # share of the mean sensitivity added in every direction: few documents do not cover all of them


def tables(model: Decoder, found: Study, ratio: float) -> tuple[dict[str, Array], Array, float, float]:
    """The tables, the bits of every head, the frames' ratio and the expected loss of a token in nats."""
    common = _tables(model, found)
    losses = np.stack([_losses(model, found, common, width) for width in WIDTHS])
    raw, least = statistics.raw_bytes(model.shape), _least_bytes(model.shape)
    budget = losses[0].size + math.floor((raw / ratio - least) / (BLOCK * model.shape.head_dim // 8))
    widths = _widths(losses, budget)
    chosen = np.take_along_axis(losses, widths[None].astype(np.int64) - 1, 0)
    return _with_widths(common, widths), widths, raw / _frame_bytes(model.shape, widths), float(chosen.sum())


def check(shape: Shape, ratio: float) -> None:
    """Refuse a ratio that one bit a value does not reach."""
    raw, least = statistics.raw_bytes(shape), _least_bytes(shape)
    if raw / ratio < least:
        raise CalibrationError(f"a ratio of {ratio:g} is out of reach: {raw / least:.2f} is the most for this model")


def _least_bytes(shape: Shape) -> int:
    return _frame_bytes(shape, np.ones((shape.layers, 2, shape.kv_heads)))


def _frame_bytes(shape: Shape, widths: Array) -> int:
    """Frame of one 64-token block of all layers: header, table, and per head 64 scales and the codes."""
    front = -(-(128 + 32 * shape.layers) // 64) * 64
    return int(front + (BLOCK + BLOCK * shape.head_dim // 8 * widths.astype(np.int64)).sum())


def _tables(model: Decoder, found: Study) -> dict[str, Array]:
    """All tables except widths and levels, which are derived from these."""
    shape = model.shape
    shaping = np.zeros((shape.layers, 2, shape.kv_heads, shape.head_dim * (shape.head_dim - 1) // 2), np.int16)
    rotation = _rotation(shape.head_dim).double().numpy()
    rows, columns = np.tril_indices(shape.head_dim, -1)
    for place, head in found.heads.items():
        shaping[place] = _shaping(rotation.T @ head.sensitivity.cpu().numpy() @ rotation)[rows, columns]
    return statistics.tables(model, found, "q5c") | {"q5c.shaping": shaping}


def _with_widths(common: dict[str, Array], widths: Array) -> dict[str, Array]:
    by_width = np.zeros((len(WIDTHS) + 1, LEVELS), np.int16)
    for width in WIDTHS:
        by_width[width, : 2**width] = levels(width)
    return common | {"q5c.bits": widths.astype(np.uint8), "q5c.levels": by_width[widths]}


def _rotation(head_dim: int) -> Any:
    """The orthonormal Hadamard transform, slice by slice."""
    slice_ = min(128, head_dim & -head_dim)
    matrix = torch.ones(1, 1)
    while len(matrix) < slice_:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    slices = torch.eye(head_dim // slice_)
    return torch.kron(slices, matrix / math.sqrt(slice_))


def _shaping(sensitivity: Array) -> Array:
    """Noise shaping: the weight of each channel's error in later channels, below the diagonal, in 1/512.

    e' S e = sum of D(i) (e(i) + sum over j < i of U(i, j) e(j))^2: channel i, quantised after those before it, aims at
    its value plus sum U(i, j) e(j).
    """
    scale = float(np.trace(sensitivity)) / len(sensitivity)
    damped = sensitivity / scale + DAMPING * np.eye(len(sensitivity)) if scale > 0 else np.eye(len(sensitivity))
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    unit_lower = (upper / np.diagonal(upper)).T
    shaping = np.tril(np.rint(unit_lower * SHAPING_ONE), -1)
    excess = np.abs(shaping).sum(1, keepdims=True) / SHAPING_MAX
    found: Array = np.trunc(np.clip(shaping / np.maximum(excess, 1), -32767, 32767)).astype(np.int16)
    return found


@cache
def levels(width: int) -> Array:
    """Lloyd-Max levels of a normal distribution with standard deviation 256."""
    x = np.linspace(-6, 6, 24001)
    density = np.exp(-x * x / 2)
    found = np.linspace(-2.2, 2.2, 2**width) if width > 1 else np.array([-0.8, 0.8])
    for _ in range(600):
        nearest = np.searchsorted((found[1:] + found[:-1]) / 2, x)
        found = np.bincount(nearest, density * x, len(found)) / np.bincount(nearest, density, len(found))
    half = np.rint(found[len(found) // 2 :] * DEVIATION)
    return np.concatenate((-half[::-1], half)).astype(np.int16)


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


def _losses(model: Decoder, found: Study, common: dict[str, Array], width: int) -> Array:
    """Expected loss if every head had this width."""
    shape = model.shape
    every = np.full((shape.layers, 2, shape.kv_heads), width, np.uint8)
    return statistics.losses(found, CODEC, _with_widths(common, every))

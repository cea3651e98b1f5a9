# SPDX-License-Identifier: MIT
"""Tables of the mode e7c: a transform of every head, one step for all of them, and how often levels occur.

With the covariance C of a head's values and the sensitivity S of the loss to errors in them, S = L L', the rows of
U' L' are a transform whose coefficients do not depend on each other (U: eigenvectors of L' C L), and in which an error
costs its square, wherever it is. So one step serves all coefficients of all heads; those that mostly stay below it are
left out. The step is the one with which the codec itself meets the ratio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import speckv
import torch

from speckvctl.calibration import statistics
from speckvctl.calibration.statistics import SINKS, Array, CalibrationError, Head, Place, Study
from speckvctl.reference import rotary
from speckvctl.reference.decoder import Decoder, Shape
from speckvctl.reference.documents import BLOCK

CODEC = speckv.Codec.E7C
RATIO = 7.5
DAMPING = 0.3  # share of the mean sensitivity added in every direction: few documents do not cover all of them
ROUNDING = 115  # of 256: rounding offset; a level begins at 1 - 115/256 of a step
LEVEL_MAX = 2047
SYMBOLS, ESCAPE, ESCAPE_BITS = 32, 31, 16
LOW_MAX = 6
TABLES, TABLE_ROUNDS = 64, 12
#: Cost of a bit in squared steps: a coefficient that costs more than it saves is dropped.
BIT_WORTH = 0.1
SAMPLE_BYTES = 256 << 20  # coefficients, as float32
TRIAL_BYTES = 48 << 20  # blocks for the search of the step
STEP_ROUNDS, STEP_CLOSE = 24, 0.003
FRACTION = 256  # fractions of a step in which coefficients are expressed
ROW_MAX, COLUMN_MAX, WORD_MAX = (1 << 18) - 1, (1 << 20) - 1, 32767
DOWN_MAX, SHIFT_MAX = 18, 20
STEP_MAX = 16000  # in units


@dataclass
class _Transform:
    """One head: the transform to coefficients with quadratic error cost, its inverse, and sample coefficients."""

    forward: Array  # [coefficient][channel]
    back: Array  # [coefficient][channel]
    sample: Array  # [token][coefficient]


def tables(model: Decoder, found: Study, ratio: float) -> tuple[dict[str, Array], Array, float, float]:
    """The tables, the bits of a value of every head, the frames' ratio and the expected loss of a token in nats.

    Transforms overfit the text they are made from. So the step is searched with the transforms of some documents
    and the frames of others, and is used with the transforms of all.
    """
    common = statistics.tables(model, found, "e7c")
    early = _transforms(model, found.early, found.blocks[: found.early_blocks])
    trial = statistics.some(found.late, TRIAL_BYTES // statistics.raw_bytes(model.shape))
    step, reached = _step(
        ratio, early, lambda step: statistics.ratio(trial, CODEC, _tables(model, common, early, step)[0])
    )
    made, bits = _tables(model, common, _transforms(model, found.heads, found.blocks), step)
    return made, bits, reached, float(statistics.losses(trial, CODEC, made).sum())


def check(shape: Shape, ratio: float) -> None:
    """No check: the reachable ratio depends on the model's values."""


def _step(ratio: float, transforms: dict[Place, _Transform], reaches: Callable[[float], float]) -> tuple[float, float]:
    """Approximate the least step that reaches the ratio, by false position on logarithms; also the ratio reached."""
    coarse = max(float(np.sqrt((t.sample**2).mean(0).max())) for t in transforms.values())
    high = np.log(coarse * 2), np.log(reaches(coarse * 2) / ratio)
    if high[1] < 0:
        most = ratio * np.exp(high[1])
        raise CalibrationError(f"a ratio of {ratio:g} is out of reach: {most:.2f} is the most for this model")
    low = high
    while low[1] >= 0:
        high, low = low, (low[0] - np.log(4), np.log(reaches(float(np.exp(low[0] - np.log(4)))) / ratio))
    for _ in range(STEP_ROUNDS):
        if high[1] < STEP_CLOSE:
            break
        # Biased towards the end that must be reached, and kept away from both ends so that the bracket shrinks.
        share = min(max((STEP_CLOSE / 2 - low[1]) / (high[1] - low[1]), 0.1), 0.9)
        at = low[0] + share * (high[0] - low[0])
        found = at, np.log(reaches(float(np.exp(at))) / ratio)
        low, high = (found, high) if found[1] < 0 else (low, found)
    return float(np.exp(high[0])), float(ratio * np.exp(high[1]))


# ---- transforms ------------------------------------------------------------------------------------------------------


def _transforms(model: Decoder, heads: dict[Place, Head], blocks: list[Any]) -> dict[Place, _Transform]:
    shape, turns = model.shape, rotary.turns(model)
    of_block = 4 * shape.layers * 2 * shape.kv_heads * BLOCK * shape.head_dim
    blocks = statistics.some(blocks, SAMPLE_BYTES // of_block)
    values = torch.stack([block.float() for _, block, _ in blocks])
    values[:, :, 0] = torch.stack(
        [rotary.unrotated(turns, x, first) for (first, _, _), x in zip(blocks, values[:, :, 0], strict=True)]
    )
    made = {}
    for place, head in heads.items():
        forward, back = _transform(head.covariance, head.sensitivity.cpu().numpy() / head.count)
        own = values[(slice(None), *place)]
        kept = [x[SINKS if first == 0 else 0 :] for x, (first, _, _) in zip(own, blocks, strict=True)]
        tokens = torch.cat(kept).numpy() - head.mean
        made[place] = _Transform(forward, back, (tokens @ forward.T).astype(np.float32))
    return made


def _transform(covariance: Array, sensitivity: Array) -> tuple[Array, Array]:
    """Forward and back, [coefficient][channel], those with the largest variance first."""
    scale = float(np.trace(sensitivity)) / len(sensitivity)
    damped = sensitivity + DAMPING * (scale if scale > 0 else 1.0) * np.eye(len(sensitivity))
    root = np.linalg.cholesky(damped)
    _, vectors = np.linalg.eigh(root.T @ covariance @ root)
    vectors = vectors[:, ::-1]
    return vectors.T @ root.T, np.linalg.solve(root.T, vectors).T


# ---- tables of a step ------------------------------------------------------------------------------------------------


def _tables(
    model: Decoder, common: dict[str, Array], transforms: dict[Place, _Transform], step: float
) -> tuple[dict[str, Array], Array]:
    """All tables for this step, and the bits of a value of every head."""
    size = common["e7c.unit"].shape
    width = model.shape.head_dim
    counted = {place: _counted(transform.sample / step) for place, transform in transforms.items()}
    most = max(len(low) for low, _, _ in counted.values())
    histograms = np.concatenate([symbols for _, symbols, _ in counted.values()])
    frequencies, which = _cluster(histograms)
    costs = np.take_along_axis(histograms @ _symbol_bits(frequencies).T, which[:, None], 1)[:, 0]
    made = common | {
        "e7c.rank": np.zeros(size, np.int16),
        "e7c.shift": np.zeros(size, np.uint8),
        "e7c.synthesis": np.zeros((*size, most, width), np.int16),
        "e7c.analysis": np.zeros((*size, most, width), np.int16),
        "e7c.down": np.zeros((*size, most), np.uint8),
        "e7c.rounding": np.full((*size, most), ROUNDING, np.uint8),
        "e7c.low": np.zeros((*size, most), np.uint8),
        "e7c.table": np.zeros((*size, most), np.uint8),
        "e7c.frequencies": frequencies.astype(np.uint8),
    }
    bits = np.zeros(size)
    at = 0
    for place, (low, symbols, plain) in counted.items():
        rank, unit = len(low), 2.0 ** int(common["e7c.unit"][place])
        transform = transforms[place]
        made["e7c.rank"][place] = rank
        made["e7c.low"][place][:rank] = low
        made["e7c.table"][place][:rank] = which[at : at + rank]
        # Clamp: a step beyond all values is equivalent to one just beyond them, and fits a word.
        back = transform.back[:rank] * step / unit
        reach = np.maximum(np.abs(back).max(1, keepdims=True) / STEP_MAX, 1.0)
        made["e7c.analysis"][place][:rank], made["e7c.down"][place][:rank] = _analysis(
            transform.forward[:rank] * unit / step * reach
        )
        made["e7c.synthesis"][place][:rank], made["e7c.shift"][place] = _synthesis(back / reach)
        bits[place] = round(float((costs[at : at + rank] / symbols.sum(1) + plain).sum()) / width, 3)
        at += rank
    return made, bits


def _counted(sample: Array) -> tuple[Array, Array, Array]:
    """For the coefficients kept: plain low bits, symbol counts, and plain bits per level."""
    magnitudes = np.minimum(np.floor(np.abs(sample) + ROUNDING / FRACTION), LEVEL_MAX)
    saved = (sample**2 - (np.abs(sample) - magnitudes) ** 2).mean(0)
    width = sample.shape[1]
    places = magnitudes.astype(np.int64) + (LEVEL_MAX + 1) * np.arange(width)
    counts = np.bincount(places.ravel(), minlength=width * (LEVEL_MAX + 1)).reshape(width, -1)
    signs = 1 - counts[:, 0] / len(sample)
    best = None
    for low in range(LOW_MAX + 1):
        symbols = _symbols(counts, low)
        shares = symbols / len(sample)
        entropy = -(shares * np.log2(np.maximum(shares, 1e-12))).sum(1)
        bits = entropy + low + shares[:, ESCAPE] * ESCAPE_BITS
        if best is None:
            best = bits, np.zeros(len(bits), np.uint8), symbols
        else:
            better = bits < best[0]
            best = (
                np.where(better, bits, best[0]),
                np.where(better, low, best[1]),
                np.where(better[:, None], symbols, best[2]),
            )
    assert best is not None
    bits, lows, symbols = best
    worth = saved > BIT_WORTH * (bits + signs)
    worth[0] |= not worth.any()  # a head has at least one
    rank = int(np.flatnonzero(worth).max()) + 1
    return lows[:rank].astype(np.uint8), symbols[:rank], (signs + lows)[:rank]


def _symbols(counts: Array, low: int) -> Array:
    """Counts of the 32 symbols from those of levels."""
    bounds = np.minimum(np.arange(SYMBOLS) << low, LEVEL_MAX + 1)
    cumulative = np.concatenate((np.zeros((len(counts), 1), np.int64), counts.cumsum(1)), 1)
    edges = cumulative[:, np.append(bounds, LEVEL_MAX + 1)]
    return np.diff(edges, axis=1).astype(np.float64)


def _analysis(exact: Array) -> tuple[Array, Array]:
    """A matrix in fixed point, and the extra fraction bits of each row: as many as fit."""
    scaled = exact * FRACTION
    room = np.minimum(ROW_MAX / np.abs(scaled).sum(1), WORD_MAX / np.abs(scaled).max(1)) * 0.999
    down = np.minimum(np.floor(np.log2(room)), DOWN_MAX)
    if down.min() < 1:
        raise CalibrationError("a head is so sensitive that its steps are finer than its values")
    return np.rint(scaled * 2.0 ** down[:, None]).astype(np.int16), down.astype(np.uint8)


def _synthesis(exact: Array) -> tuple[Array, int]:
    room = min(COLUMN_MAX / np.abs(exact).sum(0).max(), WORD_MAX / np.abs(exact).max()) * 0.999
    shift = min(int(np.floor(np.log2(room))), SHIFT_MAX)
    if shift < 1:
        raise CalibrationError("a head is so insensitive that its steps are larger than any value")
    return np.rint(exact * 2.0**shift).astype(np.int16), shift


# ---- tables of frequencies -------------------------------------------------------------------------------------------


def _symbol_bits(frequencies: Array) -> Array:
    """Bits of each symbol under each table; a symbol without a frequency is escaped."""
    shares = np.maximum(frequencies, 1e-9) / 256
    escaped = -np.log2(shares[:, ESCAPE:]) + ESCAPE_BITS
    bits = np.where(frequencies > 0, -np.log2(shares), escaped)
    bits[:, ESCAPE] = escaped[:, 0]
    return np.asarray(bits)


def _cluster(histograms: Array) -> tuple[Array, Array]:
    """Cluster the histograms: tables and the table of each histogram, minimising total bits."""
    count = min(TABLES, len(histograms))
    shares = histograms / histograms.sum(1, keepdims=True)
    order = np.argsort(shares @ np.arange(SYMBOLS), kind="stable")
    which = np.empty(len(histograms), np.int64)
    which[order] = np.arange(len(histograms)) * count // len(histograms)
    for _ in range(TABLE_ROUNDS):
        used = np.unique(which)
        frequencies = np.stack([_frequencies(histograms[which == i].sum(0)) for i in used])
        which = np.argmin(histograms @ _symbol_bits(frequencies).T, 1)
    used, which = np.unique(which, return_inverse=True)
    return frequencies[used], which


def _frequencies(counts: Array) -> Array:
    """Frequencies of 256: at least 1 for symbol 0, the escape and every symbol kept; those below 1/2048 are escaped."""
    total = counts.sum()
    kept = np.where(counts * 2048 >= total, counts, 0.0)
    kept[ESCAPE] = total - kept[:ESCAPE].sum()
    shares = np.floor(kept * 256 / total + 0.5)
    shares = np.maximum(shares, kept > 0)
    shares[[0, ESCAPE]] = np.maximum(shares[[0, ESCAPE]], 1)
    while (excess := int(shares.sum()) - 256) != 0:
        if excess > 0:
            loss = np.where(shares > 1, kept / (2 * shares - 1), np.inf)
            shares[int(loss.argmin())] -= 1
        else:
            gain = np.where(shares > 0, kept / (2 * shares + 1), -1.0)
            shares[int(gain.argmax())] += 1
    return np.asarray(shares)

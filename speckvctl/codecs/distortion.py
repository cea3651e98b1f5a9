# SPDX-License-Identifier: MIT
"""Ratio and errors of one mode on a file's tensors. Sizes count all that `codec encode` writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from speckvctl.codecs import frames
from speckvctl.codecs.modes import Mode
from speckvctl.codecs.tensors import Bytes, Pair, floats

Progress = Callable[[int, int], None]
GROUP_TOKENS = 64


@dataclass
class Loss:
    """Sums of squares over K or over V: of values, of their differences from the mean, and of errors.

    The mean is that of each channel over a group of 64 tokens.
    """

    signal: float = 0.0
    centred: float = 0.0
    error: float = 0.0
    bits_kept: bool = True

    def add(self, was: Bytes, now: Bytes, pair: Pair) -> None:
        before = floats(was, pair.dtype)
        self.signal += _energy(before)
        self.centred += _centred_energy(before)
        if np.array_equal(was, now):
            return
        self.bits_kept = False
        self.error += _energy(floats(now, pair.dtype).astype(np.float64) - before)

    def merge(self, other: Loss) -> None:
        self.signal += other.signal
        self.centred += other.centred
        self.error += other.error
        self.bits_kept &= other.bits_kept

    @property
    def relative_rmse(self) -> float | None:
        """RMS error over RMS value; None if all values are zero and one changed."""
        if not self.error:
            return 0.0
        return math.sqrt(self.error / self.signal) if self.signal and math.isfinite(self.signal) else None

    @property
    def error_share(self) -> float | None:
        """Squared error over the squared differences from the mean; None if there are none and a value changed."""
        if not self.error:
            return 0.0
        return self.error / self.centred if self.centred and math.isfinite(self.centred) else None


def _centred_energy(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> float:
    """Of [head][token][channel], a whole number of groups of tokens."""
    groups = values.reshape(values.shape[0], -1, GROUP_TOKENS, values.shape[-1]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return _energy(groups - groups.mean(2, keepdims=True))


def _energy(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.dot(finite, finite))


@dataclass
class Tally:
    """Results of one coder on one pair, or on all."""

    raw_bytes: int = 0
    stored_bytes: int = 0
    blocks: int = 0
    bit_exact_blocks: int = 0  # those that the mode refuses
    k: Loss = field(default_factory=Loss)
    v: Loss = field(default_factory=Loss)

    @property
    def ratio(self) -> float:
        return self.raw_bytes / self.stored_bytes

    @property
    def exact(self) -> bool:
        """Whether the codec is bit-exact on this input."""
        return self.k.bits_kept and self.v.bits_kept

    def merge(self, other: Tally) -> None:
        self.raw_bytes += other.raw_bytes
        self.stored_bytes += other.stored_bytes
        self.blocks += other.blocks
        self.bit_exact_blocks += other.bit_exact_blocks
        self.k.merge(other.k)
        self.v.merge(other.v)


def compare(pair: Pair, decoded: Pair, stored_bytes: int) -> Tally:
    tally = Tally(pair.raw_bytes, stored_bytes)
    tally.k.add(pair.k, decoded.k, pair)
    tally.v.add(pair.v, decoded.v, pair)
    return tally


def judge(mode: Mode, pairs: Sequence[Pair], block_tokens: int, progress: Progress) -> tuple[Tally, list[Tally]]:
    """Tally of all pairs, including the file's header and directory, and of each pair's frames."""
    rows = []
    total = Tally(stored_bytes=frames.overhead(pairs, block_tokens))
    for done, pair in enumerate(pairs):
        progress(done, len(pairs))
        coded = mode.encode(pair, block_tokens)
        decoded = pair.with_blocks(mode.decode(coded))
        rows.append(compare(pair, decoded, sum(frame.nbytes for frame in coded)))
        rows[-1].blocks = len(coded)
        rows[-1].bit_exact_blocks = sum(mode.refused(frame) for frame in coded)
        total.merge(rows[-1])
    return total, rows

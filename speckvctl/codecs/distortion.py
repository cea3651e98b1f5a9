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


@dataclass
class Loss:
    """Sums of squares over K or over V: of values and of errors."""

    signal: float = 0.0
    error: float = 0.0
    bits_kept: bool = True

    def add(self, was: Bytes, now: Bytes, pair: Pair) -> None:
        if np.array_equal(was, now):
            self.signal += _energy(floats(was, pair.dtype))
            return
        self.bits_kept = False
        before, after = floats(was, pair.dtype), floats(now, pair.dtype)
        self.signal += _energy(before)
        self.error += _energy(after.astype(np.float64) - before)

    def merge(self, other: Loss) -> None:
        self.signal += other.signal
        self.error += other.error
        self.bits_kept &= other.bits_kept

    @property
    def relative_rmse(self) -> float | None:
        """RMS error over RMS value; None if all values are zero and one changed."""
        if not self.error:
            return 0.0
        return math.sqrt(self.error / self.signal) if self.signal and math.isfinite(self.signal) else None


def _energy(values: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.dot(finite, finite))


@dataclass
class Tally:
    """Results of one coder on one pair, or on all."""

    raw_bytes: int = 0
    stored_bytes: int = 0
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
        total.merge(rows[-1])
    return total, rows

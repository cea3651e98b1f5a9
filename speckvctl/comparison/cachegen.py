# SPDX-License-Identifier: MIT
"""A CacheGen-style coder, written from the paper (Liu et al., SIGCOMM 2024), not its authors' code.

Tokens are taken in groups of ten. The first of a group, the anchor, is quantised to 8 bits; the others as differences
from the decoded anchor, in fewer levels in deeper layers; a token's scale is its largest value, in
fp16. The integers are coded by an rANS coder with a model for each channel. In the paper the models are tables
profiled for the language model; here they adapt while coding, so that no table needs to be counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

GROUP = 10
ANCHOR_LEVELS = 255
LEVELS = (31, 15, 11)  # of differences: first, middle and last third of the layers

BITS = 14  # of a probability
LOW = 1 << 16  # lower bound of the coder's state; renormalised by 16 bits

Tensor = Any  # torch.Tensor
Ints = npt.NDArray[np.int64]
Parts = tuple[Tensor, Tensor]


def levels(layer: int, layers: int) -> int:
    return LEVELS[min(2, 3 * layer // max(1, layers))]


def quantised(x: Tensor, count: int) -> tuple[Tensor, list[tuple[Tensor, int]]]:
    """[...][token][channel] after quantisation; the integers of anchors and differences, with their levels."""
    import torch

    tokens = x.shape[-2]
    places = torch.arange(tokens, device=x.device)
    anchors, to_anchor = x[..., ::GROUP, :], places // GROUP
    anchor_codes, anchors_back = _uniform(anchors, ANCHOR_LEVELS)
    base = anchors_back[..., to_anchor, :]
    others = places % GROUP != 0
    codes, differences = _uniform((x - base)[..., others, :], count)
    back = base.clone()
    back[..., others, :] += differences
    return back, [(anchor_codes, ANCHOR_LEVELS), (codes, count)]


def _uniform(x: Tensor, count: int) -> Parts:
    half = count // 2
    scale = (x.abs().amax(-1, keepdim=True) / half).clamp_min(6e-8).half().float()
    codes = (x / scale).round().clamp(-half, half)
    return codes, codes * scale


def code(x: Tensor, count: int) -> tuple[Tensor, int]:
    """Code and decode one tensor [1][head][token][channel]: its values, and the coded bytes."""
    back, parts = quantised(x, count)
    size = 2 * x.shape[-2] * x.shape[-3]  # scales
    for codes, of in parts:
        symbols = codes[0].permute(1, 0, 2).flatten(1).numpy().astype(np.int64) + of // 2  # [token][stream]
        words, states = encode(symbols, of)
        if not np.array_equal(decode(words, states, len(symbols), of), symbols):
            raise AssertionError("the coder does not give back what it was given")
        size += 2 * len(words) + 4 * len(states)
    return back, size


# ---- adaptive rANS, one stream per column ----------------------------------------------------------------------------


class _Model:
    """Adaptive symbol frequencies of each stream; they sum to 1 << BITS."""

    def __init__(self, streams: int, count: int) -> None:
        self._seen = np.ones((streams, count), np.int64)
        self._rows = np.arange(streams)

    def bounds(self) -> Ints:
        """[stream][symbol + 1]: cumulative frequencies."""
        total = self._seen.cumsum(1)
        count = self._seen.shape[1]
        spare = (1 << BITS) - count  # each frequency is at least 1
        inner = total * spare // total[:, -1:] + np.arange(1, count + 1)
        return np.concatenate((np.zeros((len(total), 1), np.int64), inner), 1)

    def learn(self, symbols: Ints) -> None:
        self._seen[self._rows, symbols] += 24


def encode(symbols: Ints, count: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """[step][stream] of symbols below `count`, as one run of words and each stream's last state."""
    steps, streams = symbols.shape
    model, rows = _Model(streams, count), np.arange(streams)
    begins, widths = np.empty_like(symbols), np.empty_like(symbols)
    for step in range(steps):
        bounds = model.bounds()
        begins[step] = bounds[rows, symbols[step]]
        widths[step] = bounds[rows, symbols[step] + 1] - begins[step]
        model.learn(symbols[step])
    state = np.full(streams, LOW, np.int64)
    words: list[npt.NDArray[np.uint16]] = []
    for step in range(steps - 1, -1, -1):  # rANS encodes in reverse: the decoder reads the symbols in order
        full = state >= widths[step] << (32 - BITS)
        words.append((state[full] & 0xFFFF).astype(np.uint16))
        state[full] >>= 16
        state = (state // widths[step] << BITS) + state % widths[step] + begins[step]
    return np.concatenate(words[::-1]) if words else np.empty(0, np.uint16), state.astype(np.uint32)


def decode(words: npt.NDArray[np.uint16], states: npt.NDArray[np.uint32], steps: int, count: int) -> Ints:
    streams = len(states)
    model, rows = _Model(streams, count), np.arange(streams)
    state, position = states.astype(np.int64), 0
    symbols = np.empty((steps, streams), np.int64)
    for step in range(steps):
        bounds = model.bounds()
        slot = state & ((1 << BITS) - 1)
        found = (bounds[:, 1:] <= slot[:, None]).sum(1)
        begin = bounds[rows, found]
        state = (bounds[rows, found + 1] - begin) * (state >> BITS) + slot - begin
        short = state < LOW
        taken = int(short.sum())
        state[short] = state[short] << 16 | words[position : position + taken]
        position += taken
        symbols[step] = found
        model.learn(found)
    return symbols

# SPDX-License-Identifier: MIT
"""Calibration files: a mode's tables for a model. libspeckv/codec/FORMAT.md section 7 is their definition."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from speckvctl.calibration import e7c, q5c, statistics
from speckvctl.calibration.statistics import Array, CalibrationError, Progress
from speckvctl.reference.decoder import Decoder, Shape

MODES = {module.CODEC: module for module in (q5c, e7c)}
MAX_BYTES_OUT = 1 << 30


@dataclass(frozen=True)
class Made:
    """A calibration file, and what to expect of it."""

    file: bytes
    bits: Array  # of a value, [layer][K, V][KV head]
    ratio: float
    loss_nats: float  # expected, of a token, on the text it was made from
    reference_nats: float
    documents: int
    tokens: int


def check(shape: Shape, *, ratio: float | None, codec: str) -> None:
    """Refuse what make() would refuse, as far as the model's shape decides it."""
    if shape.head_dim not in statistics.HEAD_DIMS:
        raise CalibrationError(f"head size {shape.head_dim}: {codec} takes {', '.join(map(str, statistics.HEAD_DIMS))}")
    mode = MODES[codec]
    mode.check(shape, mode.RATIO if ratio is None else ratio)


def make(
    model: Decoder,
    ids: Array,
    *,
    ratio: float | None = None,
    codec: str = "q5c",
    seed: int = 0,
    source: str = "",
    progress: Progress | None = None,
) -> Made:
    """A calibration of `model` from documents [document][token], for frames at least `ratio` times smaller.

    Without one the ratio is the mode's usual.
    """
    check(model.shape, ratio=ratio, codec=codec)
    found = statistics.study(model, ids, seed, progress)
    mode = MODES[codec]
    tables, bits, reached, loss = mode.tables(model, found, mode.RATIO if ratio is None else ratio)
    file = statistics.file(tables, source=source, documents=str(found.documents), tokens=str(found.tokens))
    if len(file) > MAX_BYTES_OUT:
        raise CalibrationError(f"{len(file)} bytes: more than a calibration may have", errno.EFBIG)
    return Made(
        file=file,
        bits=bits,
        ratio=reached,
        loss_nats=loss,
        reference_nats=found.nats / found.tokens,
        documents=found.documents,
        tokens=found.tokens,
    )

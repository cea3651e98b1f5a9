# SPDX-License-Identifier: MIT
"""The features of a turn, all known when it begins.

The turn's own response is excluded: its length and stop reason are not known yet. Those of the previous response are
used.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speckvctl.prefetcher.dataset import Dataset

Floats = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]

#: In the order of the columns; part of a model file.
NAMES = (
    "continues",  # a turn of a known session
    "log_gap_s",  # since its last turn
    "log_last_gap_s",  # between the two turns before
    "log_blocks",
    "log_new_blocks",
    "reused_share",  # of the previous turn's blocks
    "log_input_tokens",
    "log_turn",
    "log_load",  # requests of all sessions in the last minute
    "log_last_output_tokens",
    "last_stop_tool_use",
    "last_stop_end_turn",
    "last_stop_other",
    "log_last_answer_s",
)

#: int8 is the standardised feature times this: the range is 4 standard deviations to either side.
PER_DEVIATION = 127 / 4


def turns(parent: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many turns of its session came before each."""
    out = np.zeros(len(parent), np.int64)
    for index, last in enumerate(parent.tolist()):
        if last >= 0:
            out[index] = out[last] + 1
    return out


def matrix(data: Dataset) -> Floats:
    """(turns, features), not yet standardised."""
    has = data.parent >= 0
    last = np.maximum(data.parent, 0)
    gap = np.where(has, data.times - data.times[last], 0.0)
    load = np.arange(len(data)) - np.searchsorted(data.times, data.times - 60.0)
    stops = [data.stops[index] if there else None for index, there in zip(last.tolist(), has.tolist(), strict=True)]
    known = ("tool_use", "end_turn")
    columns = [
        has,
        np.log1p(gap),
        np.where(has, np.log1p(gap[last]), 0.0),
        np.log1p(data.blocks),
        np.log1p(data.blocks - data.stored),
        np.where(has, data.stored / np.maximum(1, data.blocks[last]), 0.0),
        np.log1p(data.input_tokens),
        np.log1p(turns(data.parent)),
        np.log1p(load),
        np.where(has, np.log1p(data.output_tokens[last]), 0.0),
        np.array([stop == known[0] for stop in stops]),
        np.array([stop == known[1] for stop in stops]),
        np.array([stop is not None and stop not in known for stop in stops]),
        np.where(has, np.log1p(np.nan_to_num(data.answers[last])), 0.0),
    ]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def quantise(values: Floats, mean: Floats, deviation: Floats) -> Int8:
    """Quantise for the model: round half to even, saturate."""
    return np.clip(np.rint((values - mean) / deviation * PER_DEVIATION), -127, 127).astype(np.int8)

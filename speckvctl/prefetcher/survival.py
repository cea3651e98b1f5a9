# SPDX-License-Identifier: MIT
"""Time to return as bins with a hazard each; what a trace's end cuts off is censored, never counted as "never"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from speckv import predictor

from speckvctl.prefetcher.dataset import Dataset

Floats = npt.NDArray[np.float64]

#: Seconds; the bins are between them.
EDGES = np.array(
    [0, 3, 6, 10, 15, 20, 30, 45, 60, 80, 100, 120, 150, 180, 240, 300, 420, 600, 900, 1200, 1800, 3600, 7200], float
)
EDGES_MS = (EDGES * 1000).astype(np.uint32)
BINS = len(EDGES) - 1


def labels(data: Dataset, seen_until: float) -> tuple[Floats, Floats]:
    """(came back in the bin, share of the bin in which it could), each (turns, bins), by what was seen until a time.

    A session that is cut off within a bin counts for the share of the bin that was seen. Without it, a bin that only
    returns can end would look as if every session came back in it.
    """
    came = data.returned <= seen_until
    idle = np.maximum(0.0, np.minimum(data.returned, seen_until) - data.times)
    risk = np.clip((idle[:, None] - EDGES[:-1]) / np.diff(EDGES), 0.0, 1.0)
    event = np.zeros((len(data), BINS))
    rows = np.nonzero(came & (idle < EDGES[-1]))[0]
    event[rows, np.searchsorted(EDGES, idle[rows], side="right") - 1] = 1.0
    return event, np.maximum(risk, event)


def age_hazards(event: Floats, risk: Floats) -> Floats:
    """The age-only curve: of those that were there, the share that came back, drawn a little towards 2%."""
    return np.asarray((event.sum(0) + 0.2) / (risk.sum(0) + 10.0))


def mean_loss(hazards: Floats, event: Floats, risk: Floats) -> float | None:
    """Negative log-likelihood of a bin at risk, nats."""
    total = risk.sum()
    if not total:
        return None
    hazards = np.clip(hazards, 1e-7, 1 - 1e-7)
    loss = -(event * np.log(hazards) + (1 - event) * np.log1p(-hazards)) * risk
    return float(loss.sum() / total)


def curves(hazards: Floats) -> npt.NDArray[np.uint32]:
    """Survival at the edges, in the fixed point of the simulator."""
    left = np.cumprod(1 - hazards, axis=1)
    values = np.concatenate([np.ones((len(hazards), 1)), left], axis=1)
    return np.asarray(np.rint(values * predictor.ONE), np.uint32)


def hazards_of(values: npt.NDArray[np.uint32]) -> Floats:
    """Back from curves: what the C inference says, bin by bin."""
    shares = values.astype(np.float64)
    return np.asarray(1 - shares[:, 1:] / np.maximum(shares[:, :-1], 1.0))

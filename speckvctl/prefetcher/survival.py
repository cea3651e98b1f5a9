# SPDX-License-Identifier: MIT
"""Time to return in bins with a hazard each; sessions open at a trace's end are censored, not counted as "never"."""

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
    """(returned in the bin, exposure in the bin), each (turns, bins), censored at a time.

    A session censored within a bin counts with the observed share of the bin. Otherwise a censored bin would count its
    returns only, with a hazard of 1.
    """
    came = data.returned <= seen_until
    idle = np.maximum(0.0, np.minimum(data.returned, seen_until) - data.times)
    risk = np.clip((idle[:, None] - EDGES[:-1]) / np.diff(EDGES), 0.0, 1.0)
    event = np.zeros((len(data), BINS))
    rows = np.nonzero(came & (idle < EDGES[-1]))[0]
    event[rows, np.searchsorted(EDGES, idle[rows], side="right") - 1] = 1.0
    return event, np.maximum(risk, event)


def age_hazards(event: Floats, risk: Floats) -> Floats:
    """The age-only curve: returns over sessions at risk, shrunk a little towards 2%."""
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
    """Hazards per bin from survival curves of the C inference."""
    shares = values.astype(np.float64)
    return np.asarray(1 - shares[:, 1:] / np.maximum(shares[:, :-1], 1.0))

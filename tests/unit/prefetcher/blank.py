# SPDX-License-Identifier: MIT
"""Models without torch: of the right shape, with numbers drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
from speckv import predictor

from speckvctl.prefetcher import features, survival
from speckvctl.prefetcher.model import Model, Provenance, quantise

PROVENANCE = Provenance(
    traces=["none"],
    trace_digests=["0" * 64],
    seed=0,
    split="none",
    train_until_s=[0.0],
    chosen_until_s=[0.0],
    train_turns=0,
    epochs=0,
    validation_loss=None,
    trained_with="nothing",
)


def random_network(seed: int = 0) -> dict[str, Any]:
    """Random parameters in the form of torch."""
    rng = np.random.default_rng(seed)
    rows, hidden = 4 * predictor.HIDDEN, predictor.HIDDEN
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (survival.BINS, hidden), "head.bias": (survival.BINS,)}
    for layer in range(predictor.LAYERS):
        shapes[f"lstm.weight_ih_l{layer}"] = (rows, hidden if layer else len(features.NAMES))
        shapes[f"lstm.weight_hh_l{layer}"] = (rows, hidden)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (rows,)
    return {name: rng.normal(0, 0.08, shape) for name, shape in shapes.items()}


def blank_model(draw: int = 0, **provenance: Any) -> Model:
    count = len(features.NAMES)
    made = Provenance(**{**{name: getattr(PROVENANCE, name) for name in PROVENANCE.__dataclass_fields__}, **provenance})
    return Model(quantise(random_network(draw)), np.zeros(count), np.ones(count), 30_000, made)

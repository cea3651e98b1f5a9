# SPDX-License-Identifier: MIT
"""What a codec costs a model whose attention reads decoded K and V, by two rules.

*blocks*, the study's rule: every full 64-token block of every layer is the decoded one for all later tokens; only a
token's own block is raw. Losses in one layer change what the next one stores.
*prefix*, a serving engine's: the first tokens' KV was made without loss, stored, and comes back decoded; what follows
is computed on it, raw, and only what follows is counted.

Both run the same documents as the reference. The figure to rank codecs by is the divergence of Kullback and Leibler
from the raw cache's prediction to the decoded one's, a token's mean: perplexity can fall under large errors. Standard
errors are over documents. Needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckvctl.reference.decoder import KV, Decoder, Store, Whole, by_blocks, restored
from speckvctl.reference.documents import BLOCK, Ints

PREFIX = 1024  # restored tokens in the prefix rule
BATCH = 2  # documents per run
LOGITS = 1 << 26  # most logits made at once

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


class Rule(StrEnum):
    BLOCKS = "blocks"
    PREFIX = "prefix"


@dataclass(frozen=True)
class Loss:
    """Means over the tokens counted, one per document."""

    reference: Floats  # loss on the raw cache, nats
    decoded: Floats  # loss with the codec, nats
    divergence: Floats  # nats
    agreement: Floats  # share of tokens whose likeliest successor is the same

    @property
    def perplexity_reference(self) -> float:
        return float(np.exp(self.reference.mean()))

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.decoded.mean()))

    @property
    def increase_percent(self) -> float:
        """Of the geometric mean over documents."""
        return 100 * math.expm1(float((self.decoded - self.reference).mean()))

    @property
    def standard_error_percent(self) -> float | None:
        """Standard error of the increase; None for a single document."""
        spread = _standard_error(self.decoded - self.reference)
        return None if spread is None else (100 + self.increase_percent) * spread

    @property
    def kl(self) -> float:
        """Divergence in thousandths of a nat a token."""
        return 1000 * float(self.divergence.mean())

    @property
    def kl_standard_error(self) -> float | None:
        spread = _standard_error(self.divergence)
        return None if spread is None else 1000 * spread

    @property
    def worst(self) -> int:
        """The document with the largest divergence, counted from 0."""
        return int(self.divergence.argmax())


def _standard_error(values: Floats) -> float | None:
    return None if len(values) < 2 else float(values.std(ddof=1)) / math.sqrt(len(values))


def measure(
    model: Decoder,
    ids: Ints,
    stores: Mapping[str, Store | Whole],
    *,
    rules: Sequence[Rule] = tuple(Rule),
    prefix: int = PREFIX,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> dict[tuple[str, Rule], Loss]:
    """Each store's cost by each rule, on documents [document][token] of equal length.

    A store is called with (layer, K, V) of whole blocks that begin at position 0, float32 [document][KV head][token]
    [channel] whose every value the cache's dtype holds, and gives K and V back as they come out of the codec. One that
    codes all layers together is run by the prefix rule alone.
    """
    found: dict[tuple[str, Rule], list[Any]] = {
        (name, rule): []
        for name, store in stores.items()
        for rule in rules
        if rule is Rule.PREFIX or not isinstance(store, Whole)
    }
    total, done = len(ids) * (1 + len(found)), 0
    seen = ids.shape[1] - 1  # tokens that are run: the last one is a target only
    first = {Rule.BLOCKS: 0, Rule.PREFIX: prefix}
    with torch.inference_mode():
        for chunk in _batches(ids, batch):
            tokens = torch.from_numpy(chunk).to(model.device)
            kept: list[KV] = []

            def keep(_layer: int, k: Any, v: Any, kept: list[KV] = kept) -> None:
                kept.append((k[:, :, :prefix], v[:, :, :prefix]))

            raw = model.hidden(tokens[:, :-1], keep=keep)
            done += len(chunk)
            for (name, rule), rows in found.items():
                store, at = stores[name], first[rule]
                if progress is not None:
                    progress(done, total)
                if rule is Rule.PREFIX or isinstance(store, Whole):
                    hidden = model.behind(restored(store, kept), tokens[:, prefix:-1])
                else:
                    hidden = model.hidden(tokens[:, :-1], store=store, rows=by_blocks(seen, BLOCK))
                rows += [_compared(model, *row) for row in zip(raw[:, at:], hidden, tokens[:, at + 1 :], strict=True)]
                done += len(chunk)
            if progress is not None:
                progress(done, total)
    return {key: Loss(*np.array(rows).T) for key, rows in found.items()}


def _compared(model: Decoder, raw: Any, hidden: Any, targets: Any) -> list[float]:
    """The figures of Loss for successive tokens of one document."""
    sums = torch.zeros(4, dtype=torch.float64, device=raw.device)
    step = max(1, LOGITS // model.shape.vocabulary)
    for begin in range(0, len(raw), step):
        part = slice(begin, begin + step)
        a, b = (model.logits(x[part]).log_softmax(-1) for x in (raw, hidden))
        wanted = targets[part, None]
        sums += torch.stack(
            (
                -a.gather(1, wanted).sum(dtype=torch.float64),
                -b.gather(1, wanted).sum(dtype=torch.float64),
                # Each token's divergence is at least 0; its sum in float32 need not be.
                (a.exp() * (a - b)).sum(-1, dtype=torch.float64).clamp_min(0).sum(),
                (a.argmax(-1) == b.argmax(-1)).sum().double(),
            )
        )
    return list((sums / len(raw)).tolist())


def _batches(ids: Ints, size: int) -> Iterator[Ints]:
    for begin in range(0, len(ids), size):
        yield ids[begin : begin + size]

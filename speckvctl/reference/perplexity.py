# SPDX-License-Identifier: MIT
"""The cost of a codec: perplexity with attention run on decoded KV, by two rules.

*blocks*, the study's rule: every full 64-token block of every layer is the decoded one for all later tokens; only a
token's own block is raw. Losses in one layer change what the next one stores.
*prefix*, a serving engine's: the first tokens' KV was made without loss, stored, and comes back decoded; what follows
is computed on it, raw, and only what follows is counted.

Both run the same documents as the reference. The increase is that of the geometric mean over documents; its standard
error is over documents too. Needs torch.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckvctl.reference.llama import KV, Llama, Shape, Store

BLOCK = 64
PREFIX = 1024  # restored tokens in the prefix rule
BATCH = 2  # documents per run
MAX_TOKENS_FILE_BYTES = 1 << 30

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


class Rule(StrEnum):
    BLOCKS = "blocks"
    PREFIX = "prefix"


class TokensError(Exception):
    """A file of token ids that is invalid or does not fit the model."""

    def __init__(self, path: Path, reason: str, number: int = errno.EINVAL) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


@dataclass(frozen=True)
class Cost:
    """Losses in nats per token, one per document, on the raw cache and with the codec."""

    reference: Floats
    decoded: Floats

    @property
    def perplexity_reference(self) -> float:
        return float(np.exp(self.reference.mean()))

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.decoded.mean()))

    @property
    def increase_percent(self) -> float:
        return 100 * math.expm1(float((self.decoded - self.reference).mean()))

    @property
    def standard_error_percent(self) -> float | None:
        """Standard error of the increase; None for a single document."""
        if len(self.reference) < 2:
            return None
        spread = float((self.decoded - self.reference).std(ddof=1)) / math.sqrt(len(self.reference))
        return (100 + self.increase_percent) * spread


@dataclass
class _Losses:
    reference: dict[Rule, list[float]] = field(default_factory=dict)
    decoded: dict[tuple[str, Rule], list[float]] = field(default_factory=dict)


def measure(
    model: Llama,
    ids: Ints,
    stores: Mapping[str, Store],
    *,
    rules: Sequence[Rule] = tuple(Rule),
    prefix: int = PREFIX,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> dict[tuple[str, Rule], Cost]:
    """Each store's cost by each rule, on documents [document][token] of equal length.

    A store is called with (layer, K, V) of whole blocks that begin at position 0, float32 [document][KV head][token]
    [channel] whose every value the cache's dtype holds, and gives K and V back as they come out of the codec.
    """
    losses = _Losses()
    total, done = len(ids) * (1 + len(stores) * len(rules)), 0
    with torch.inference_mode():
        for chunk in _batches(ids, batch):
            tokens = torch.from_numpy(chunk).to(model.device)
            raw = _Raw(model, tokens, prefix if Rule.PREFIX in rules else 0)
            for rule in rules:
                losses.reference.setdefault(rule, []).extend(raw.losses(prefix if rule is Rule.PREFIX else 0))
            done += len(chunk)
            for name, store in stores.items():
                for rule in rules:
                    if progress is not None:
                        progress(done, total)
                    lost = _blocks(model, tokens, store) if rule is Rule.BLOCKS else raw.restored(store)
                    losses.decoded.setdefault((name, rule), []).extend(lost)
                    done += len(chunk)
            if progress is not None:
                progress(done, total)
    return {key: Cost(np.array(losses.reference[key[1]]), np.array(decoded)) for key, decoded in losses.decoded.items()}


class _Raw:
    """A batch run on the raw cache; keeps the prefix's KV as it entered the cache."""

    def __init__(self, model: Llama, tokens: Any, prefix: int) -> None:
        self._model, self._tokens, self._prefix = model, tokens, prefix
        self._kv: list[KV] = []

        def keep(_layer: int, k: Any, v: Any) -> None:
            if prefix:
                self._kv.append((k[:, :, :prefix].contiguous(), v[:, :, :prefix].contiguous()))

        self._hidden = model.hidden(tokens[:, :-1], keep=keep)

    def losses(self, first: int) -> list[float]:
        return self._model.losses(self._hidden[:, first:], self._tokens[:, 1 + first :])

    def restored(self, store: Store) -> list[float]:
        past = [store(layer, k, v) for layer, (k, v) in enumerate(self._kv)]
        hidden = self._model.hidden(self._tokens[:, self._prefix : -1], past=past)
        return self._model.losses(hidden, self._tokens[:, 1 + self._prefix :])


def _blocks(model: Llama, tokens: Any, store: Store) -> list[float]:
    return model.losses(model.hidden(tokens[:, :-1], store=store, block=BLOCK), tokens[:, 1:])


def _batches(ids: Ints, size: int) -> Iterator[Ints]:
    for begin in range(0, len(ids), size):
        yield ids[begin : begin + size]


def read_tokens(path: Path, shape: Shape, documents: int | None = None, *, skip: int = 0) -> Ints:
    """Token ids [document][token] of a .npy file, checked against the model; at most `documents` behind the first."""
    if path.stat().st_size > MAX_TOKENS_FILE_BYTES:
        raise TokensError(path, f"larger than {MAX_TOKENS_FILE_BYTES >> 20} MiB: not token ids")
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as exc:  # numpy's own, tokenize's, those of a Python parser
        raise TokensError(path, "not a .npy file of token ids, or one that is cut short", errno.EBADMSG) from exc
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise TokensError(path, "not integers of shape [document][token]")
    if not 2 * BLOCK < found.shape[1] <= shape.context or not len(found):
        raise TokensError(
            path, f"shape {list(found.shape)}: {2 * BLOCK + 1} to {shape.context} tokens a document are needed"
        )
    ids: Ints = np.asarray(found[skip:][:documents]).astype(np.int64)
    if not len(ids):
        raise TokensError(path, f"holds {len(found)} documents, and {skip} are skipped")
    if ids.min() < 0 or ids.max() >= shape.vocabulary:
        raise TokensError(path, f"holds ids outside the model's {shape.vocabulary} tokens")
    return ids

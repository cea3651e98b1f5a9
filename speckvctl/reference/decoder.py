# SPDX-License-Identifier: MIT
"""Any decoder that `transformers` runs, with its attention replaced by one that reads K and V from a store.

Weights are kept, and everything is computed, in float32; K and V are rounded to the cache's dtype where they enter the
attention, K after its rotary embedding, as a serving engine stores them. Needs torch. One model runs at a time in a
thread; models of several threads do not share state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

NAME = "speckv"  # of the attention, as transformers registers it
SCORES = 1 << 26  # most attention scores made at once

Tensor = Any  # torch.Tensor
KV = tuple[Tensor, Tensor]  # each [document][KV head][token][channel]
#: A cache of one layer's first tokens: (layer, K, V) -> K and V as they come back.
Store = Callable[[int, Tensor, Tensor], KV]
Keep = Callable[[int, Tensor, Tensor], None]
#: Token rows (begin, end, stored): rows from `begin` to before `end` see the first `stored` tokens from the store.
Rows = Sequence[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class Shape:
    layers: int
    heads: int  # of queries
    kv_heads: int
    head_dim: int  # channels of a head of K, and of V
    vocabulary: int
    context: int  # most tokens of a document


def by_blocks(tokens: int, block: int) -> Rows:
    """Every full block before a token's own comes from the store."""
    return [(begin, min(begin + block, tokens), begin) for begin in range(0, tokens, block)]


@runtime_checkable
class Whole(Protocol):
    """A store that codes all layers of a prefix together."""

    def whole(self, kept: Sequence[KV]) -> list[KV]: ...


def restored(store: Store | Whole, kept: Sequence[KV]) -> list[KV]:
    """The KV of a prefix, a pair per layer, as it comes back from a store."""
    if isinstance(store, Whole):
        return store.whole(kept)
    return [store(layer, k.contiguous(), v.contiguous()) for layer, (k, v) in enumerate(kept)]


@dataclass(frozen=True)
class Decoder:
    shape: Shape
    module: Any  # transformers' model, its attention `NAME`
    dtype: Any = torch.bfloat16  # of the cache: torch.bfloat16 or torch.float16
    device: str = "cpu"
    scale: float = 1.0  # of the output layer's values
    cap: float | None = None  # soft cap of the logits

    def hidden(
        self, ids: Tensor, *, store: Store | None = None, rows: Rows | None = None, keep: Keep | None = None
    ) -> Tensor:
        """Final hidden states [document][token][channel] of token ids [document][token].

        `store` is called once a layer with the tokens that any of `rows` sees from it. `keep` is called with each
        layer's K and V as they enter the cache.
        """
        rows = rows if store is not None and rows is not None else [(0, ids.shape[1], 0)]
        mask = None
        if ids.is_meta:  # a mask is made by looking at values
            mask = torch.zeros(len(ids), 1, ids.shape[1], ids.shape[1], device=ids.device)
        with _running(_Tap(self.dtype, rows, store, keep)):
            return self.module.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    def prefix(self, ids: Tensor) -> list[KV]:
        """KV of token ids [document][token] as they enter the cache, float32, a pair per layer."""
        found: dict[int, KV] = {}
        self.hidden(ids, keep=lambda layer, k, v: found.update({layer: (k, v)}))
        return [found[layer] for layer in range(self.shape.layers)]

    def behind(self, kept: Sequence[KV], ids: Tensor) -> Tensor:
        """Final hidden states [document][token][channel] of token ids that follow a prefix whose KV is `kept`."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer, (k, v) in enumerate(kept):
            cache.update(k, v, layer)
        forward = self.module.base_model.forward
        name = "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
        with _running(_Tap(self.dtype, [(0, ids.shape[1], 0)])):
            return self.module.base_model(input_ids=ids, use_cache=True, **{name: cache}).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [...][word] of final hidden states."""
        found = self.module.get_output_embeddings()(hidden) * self.scale
        return found if self.cap is None else self.cap * torch.tanh(found / self.cap)

    def own_logits(self, ids: Tensor) -> Tensor:
        """Logits as transformers makes them, with nothing stored; for checks."""
        with _running(_Tap(self.dtype, [(0, ids.shape[1], 0)])):
            return self.module(input_ids=ids, use_cache=False).logits.float()


# ---- the attention ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tap:
    dtype: Any
    rows: Rows
    store: Store | None = None
    keep: Keep | None = None


_tap: ContextVar[_Tap] = ContextVar("_tap")


@contextmanager
def _running(tap: _Tap) -> Iterator[None]:
    token = _tap.set(tap)
    try:
        yield
    finally:
        _tap.reset(token)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_others: object,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: [document][head][token][channel] in, [document][token][head][channel] out.

    `attention_mask` is added to the scores. `s_aux` are logits of a head's learned sink, which takes a share of the
    softmax and gives nothing.
    """
    tap = _tap.get()
    layer = module.layer_idx
    k, v = key.to(tap.dtype).float(), value.to(tap.dtype).float()
    if tap.keep is not None:
        tap.keep(layer, k, v)
    stored: KV | None = None
    seen = max(row[2] for row in tap.rows)
    if tap.store is not None and seen:
        stored = tap.store(layer, k[:, :, :seen].contiguous(), v[:, :, :seen].contiguous())
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    before = key.shape[2] - query.shape[2]  # tokens of a prefix that was run earlier
    out = []
    for begin, end, first in _pieces(tap.rows, query, key.shape[2]):
        last = before + end
        keys, values = k[:, :, :last], v[:, :, :last]
        if stored is not None and first:
            keys = torch.cat((stored[0][:, :, :first], k[:, :, first:last]), 2)
            values = torch.cat((stored[1][:, :, :first], v[:, :, first:last]), 2)
        mask = None if attention_mask is None else attention_mask[:, :, begin:end, :last].float()
        out.append(_mixed(query[:, :, begin:end].float() * scale, keys, values, mask, softcap, s_aux))
    return torch.cat(out, 2).transpose(1, 2).to(query.dtype).contiguous(), None


def _pieces(rows: Rows, query: Tensor, keys: int) -> Iterator[tuple[int, int, int]]:
    """`rows` in pieces whose scores fit in memory."""
    step = max(64, SCORES // (query.shape[0] * query.shape[1] * keys))
    for begin, end, stored in rows:
        for piece in range(begin, end, step):
            yield piece, min(piece + step, end), stored


def _mixed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, softcap: float | None, sink: Tensor | None) -> Tensor:
    documents, heads, tokens, width = q.shape
    group = heads // k.shape[1]
    # The query heads of one KV head are rows of one matrix.
    scores = (q.reshape(documents, -1, group * tokens, width) @ k.transpose(-1, -2)).view(documents, heads, tokens, -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if sink is not None:
        column = sink.float().view(1, -1, 1, 1).expand(documents, heads, tokens, 1)
        scores = torch.cat((scores, column), -1)
    shares = scores.softmax(-1)[..., : k.shape[2]]
    return (shares.reshape(documents, -1, group * tokens, k.shape[2]) @ v).view(documents, heads, tokens, -1)

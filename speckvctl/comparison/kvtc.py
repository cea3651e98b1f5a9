# SPDX-License-Identifier: MIT
"""A coder after KVTC (Staniszewski and Łańcucki, 2025, arXiv 2511.01815), our own from the paper. Imported by table.py.

K without its rotary embedding, and V, are each one vector a token, over all heads of as many layers as the text that
it is fitted on allows. Its principal components are cut into groups, which get 0, 2, 4 or 8 bits a value by dynamic
programming, so that the error on that text is the least within the budget; a token's group has its least value and its
step in fp16; DEFLATE codes it all. The first 4 and the last 128 tokens stay as they are.

It is fitted on the documents that --skip-documents leaves out, never on those it is judged on: that would flatter it.
Sizes count the coded bits, but neither the components, which a model has once, nor the tokens that stay as they are,
which are few where prompts are long. Eight bits are integers here, and not fp8; groups of more than one component begin
at multiples of 16. As layers are coded together, the rule of blocks, in which a layer sees the losses of those before
it, is not for this coder.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckvctl.codecs.distortion import Tally, compare
from speckvctl.codecs.modes import BLOCK_TOKENS, Rates
from speckvctl.codecs.tensors import Pair
from speckvctl.comparison.peers import rounded, tensor
from speckvctl.errors import UnsupportedError
from speckvctl.reference import rotary
from speckvctl.reference.decoder import KV, Decoder

FIRST, LAST = 4, 128  # tokens that stay as they are
SIZES, WIDTHS = (16, 64, 256, 1024), (2, 4, 8)
SCALE_BITS = 32  # of a token's group
UNIT = 2  # bits that a budget is counted in
BUDGET = 2.0  # bits of a value, before DEFLATE: 8x in bf16
MOST_VALUES = 8192  # of a vector
SAMPLES = 512  # tokens that the bits are chosen on
DOCUMENTS = 64  # to fit on, at most

Tensor = Any  # torch.Tensor
Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Group:
    """Successive components with the same number of bits."""

    first: int
    size: int
    bits: int


@dataclass(frozen=True)
class Transform:
    """Of the vectors [token][value] of K or V of some layers."""

    mean: Tensor  # [value]
    basis: Tensor  # [component][value]
    groups: tuple[Group, ...]

    def code(self, x: Tensor, *, sized: bool) -> tuple[Tensor, int]:
        """The vectors as they come back, and the coded bytes if they are asked for."""
        found = (x - self.mean) @ self.basis.T
        back = torch.zeros_like(found)
        parts = []
        for group in self.groups:
            part = slice(group.first, group.first + group.size)
            codes, least, step = _codes(found[:, part], group.bits)
            back[:, part] = codes * step + least
            if sized:
                parts.append(_packed(codes.to(torch.uint8).cpu().numpy(), group.bits))
                parts.append(torch.cat((least, step), 1).half().cpu().numpy().tobytes())
        return back @ self.basis + self.mean, len(zlib.compress(b"".join(parts), 6))


def _codes(x: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Integers [token][component], and the least value and the step of each token."""
    most = (1 << bits) - 1
    least = x.amin(1, keepdim=True).clamp(-65000, 65000).half().float()
    step = ((x.amax(1, keepdim=True) - least) / most).clamp(6e-8, 65000).half().float()
    return ((x - least) / step).round().clamp(0, most), least, step


def _packed(codes: npt.NDArray[np.uint8], bits: int) -> bytes:
    rows = np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(rows).tobytes()


def plan(samples: Tensor, budget: int) -> tuple[Group, ...]:
    """The groups that lose least of components [token][component] within `budget` bits a token."""
    count = samples.shape[1]
    energy = samples.double().square().sum(0).cpu().numpy()
    whole = max(float(energy.sum()), 1e-30)
    room = budget // UNIT
    best = np.zeros((count + 1, room + 1), np.float32)  # error of the first components within a budget
    chosen = np.zeros((count + 1, room + 1), np.int8)
    kinds = [(1, 0), (1, WIDTHS[0]), *((size, bits) for size in SIZES for bits in WIDTHS)]
    for end in range(1, count + 1):
        best[end] = best[end - 1] + energy[end - 1] / whole
        for kind, (size, bits) in enumerate(kinds[1:], 1):
            begin, cost = end - size, (size * bits + SCALE_BITS) // UNIT
            if begin < 0 or cost > room or (size > 1 and begin % SIZES[0]):
                continue
            part = samples[:, begin:end]
            codes, least, step = _codes(part, bits)
            lost = float((codes * step + least - part).double().square().sum()) / whole
            found = best[begin, : room + 1 - cost] + lost
            better = found < best[end, cost:]
            best[end, cost:][better] = found[better]
            chosen[end, cost:][better] = kind
    groups = []
    end = count
    while end > 0:
        size, bits = kinds[chosen[end, room]]
        if bits:
            groups.append(Group(end - size, size, bits))
            room -= (size * bits + SCALE_BITS) // UNIT
        end -= size
    return tuple(reversed(groups))


@dataclass(frozen=True)
class Kvtc:
    """The coder of a model whose KV it was fitted to."""

    heads: int
    head_dim: int
    turns: Array | None  # of reference.rotary
    spans: tuple[range, ...]  # layers that are coded together
    transforms: tuple[tuple[Transform, Transform], ...]  # of K and V of each span
    name: str = "KVTC-like 8x"

    @property
    def layers(self) -> int:
        return self.spans[-1].stop

    def whole(self, kept: Sequence[KV]) -> list[KV]:
        """A prefix as it comes back, in bf16."""
        return self._coded(kept, sized=False)[0]

    def _coded(self, kept: Sequence[KV], *, sized: bool) -> tuple[list[KV], int]:
        back = [(k.clone(), v.clone()) for k, v in kept]
        size, tokens = 0, kept[0][0].shape[2]
        inner = slice(FIRST, max(FIRST, tokens - LAST))
        for document in range(len(kept[0][0]) if tokens > FIRST + LAST else 0):
            for span, transforms in zip(self.spans, self.transforms, strict=True):
                for half, transform in enumerate(transforms):
                    turns = None if half else self.turns
                    x = _vectors([kept[layer][half][document, :, inner] for layer in span], turns)
                    values, coded = transform.code(x, sized=sized)
                    size += coded
                    parts = values.view(len(x), len(span), self.heads, self.head_dim).permute(1, 2, 0, 3)
                    for layer, part in zip(span, parts, strict=True):
                        part = part if turns is None else rotary.rotated(turns, part, FIRST)
                        back[layer][half][document, :, inner] = part.bfloat16().float()
        return back, size

    def judge(self, pairs: list[Pair]) -> tuple[Tally, Rates]:
        """Of a file with every layer of each of its documents; ratio and errors are of the tokens that are coded."""
        total = Tally()
        for document in _documents(pairs):
            wanted = [(layer, self.heads, self.head_dim) for layer in range(self.layers)]
            found = [(pair.layer, pair.heads, pair.head_dim) for pair in document]
            if found != wanted or document[0].tokens < LAST + 2 * BLOCK_TOKENS:
                reason = f"{document[0].k_name}: {self.name} takes all layers of the model, of 256 tokens or more"
                raise UnsupportedError(reason, "a file that codec extract made of it")
            kept = [(tensor(pair, pair.k), tensor(pair, pair.v)) for pair in document]
            device = self.transforms[0][0].mean.device
            back, size = self._coded([(k.to(device), v.to(device)) for k, v in kept], sized=True)
            for pair, (k, v) in zip(document, back, strict=True):
                inner = slice(BLOCK_TOKENS, pair.tokens - LAST)  # errors are of whole blocks
                names = pair.k_name, pair.v_name, pair.layer, pair.dtype
                was = Pair(*names, pair.k[:, inner], pair.v[:, inner])
                now = Pair(*names, *(rounded(was, x[:, :, inner].cpu()) for x in (k, v)))
                tally = compare(was, now, 0)
                tally.raw_bytes = pair.raw_bytes // pair.tokens * (pair.tokens - FIRST - LAST)
                total.merge(tally)
            total.stored_bytes += size
        return total, Rates(None, None)


def _documents(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """Pairs whose names differ in the number of the layer alone, by that number."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(re.sub(r"(layers?[._]?)\d+", r"\1", pair.k_name.lower()), []).append(pair)
    for document in found.values():
        yield sorted(document, key=lambda pair: -1 if pair.layer is None else pair.layer)


def _vectors(halves: list[Tensor], turns: Array | None) -> Tensor:
    """[token][value] of [head][token][channel] of successive layers, from token FIRST on."""
    straight = [x if turns is None else rotary.unrotated(turns, x, FIRST) for x in halves]
    return torch.stack(straight).permute(2, 0, 1, 3).flatten(1).float()


def fit(model: Decoder, ids: npt.NDArray[np.int64], progress: Progress) -> Kvtc:
    """A coder fitted to the model's KV of documents [document][token]; raises UnsupportedError if they are too few."""
    shape, turns = model.shape, rotary.turns(model)
    ids = ids[:DOCUMENTS]
    tokens = len(ids) * (ids.shape[1] - FIRST)
    values = shape.kv_heads * shape.head_dim
    many = min(MOST_VALUES, tokens // 2) // values
    if not many:
        raise UnsupportedError(
            f"it is fitted on skipped documents, {2 * values} tokens or more", "a larger --skip-documents"
        )
    spans = tuple(range(first, min(first + many, shape.layers)) for first in range(0, shape.layers, many))
    sums = [(_Sums(), _Sums()) for _ in spans]
    step = max(1, tokens // SAMPLES)
    with torch.inference_mode():
        for done, document in enumerate(ids):
            progress(done, len(ids) + len(spans))
            kept = model.prefix(torch.from_numpy(document[None]).to(model.device))
            for span, pair in zip(spans, sums, strict=True):
                for half, sum_ in enumerate(pair):
                    sum_.add(_vectors([kept[x][half][0, :, FIRST:] for x in span], None if half else turns), step)
        transforms = []
        for done, pair in enumerate(sums):
            progress(len(ids) + done, len(ids) + len(spans))
            transforms.append((pair[0].transform(), pair[1].transform()))
    progress(len(ids) + len(spans), len(ids) + len(spans))
    return Kvtc(shape.kv_heads, shape.head_dim, turns, spans, tuple(transforms))


class _Sums:
    """Sums over vectors, less the mean of the first ones."""

    def __init__(self) -> None:
        self._near: Tensor = None
        self._total: Tensor = 0
        self._products: Tensor = 0
        self._count = 0
        self._samples: list[Tensor] = []

    def add(self, x: Tensor, step: int) -> None:
        self._near = x.mean(0) if self._near is None else self._near
        x = x - self._near
        self._total = self._total + x.sum(0)
        self._products = self._products + x.T @ x
        self._count += len(x)
        self._samples.append(x[::step])

    def transform(self) -> Transform:
        mean = self._total / self._count
        products = (self._products / self._count).double() - torch.outer(mean, mean).double()
        basis = torch.linalg.eigh(products).eigenvectors.flip(1).T.float().contiguous()
        samples = (torch.cat(self._samples) - mean) @ basis.T
        groups = plan(samples, int(BUDGET * len(basis)))
        used = max((group.first + group.size for group in groups), default=0)
        return Transform(mean + self._near, basis[:used], groups)

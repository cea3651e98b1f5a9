# SPDX-License-Identifier: MIT
"""A Llama model for codec evaluation: hidden states from token ids, with an accessible KV cache.

Weights are kept, and everything is computed, in float32; K and V are rounded to the cache's dtype, K after RoPE, as a
serving engine stores them. Needs torch; takes whatever device it is given.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from speckvctl import jsontext, tensorfiles

MAX_JSON_BYTES = 16 << 20
DTYPES = ("BF16", "F16", "F32", "F64")  # narrower weights need scales, which are not read
ROWS = 256  # most query rows of one attention call

Tensor = Any  # torch.Tensor
KV = tuple[Tensor, Tensor]  # each [document][KV head][token][channel]
#: A cache of one layer's first tokens: (layer, K, V) -> decoded K and V.
Store = Callable[[int, Tensor, Tensor], KV]


class ModelError(Exception):
    """Not a model folder, or a model that is not supported."""

    def __init__(self, path: Path, reason: str, number: int = errno.EBADMSG) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


@dataclass(frozen=True, kw_only=True)
class Shape:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int
    context: int
    epsilon: float
    rope_theta: float
    tied: bool


@dataclass(frozen=True)
class Llama:
    shape: Shape
    weights: dict[str, Tensor]
    dtype: Any  # of the cache: torch.bfloat16 or torch.float16
    device: str = "cpu"

    def hidden(
        self,
        ids: Tensor,
        *,
        past: list[KV] | None = None,
        store: Store | None = None,
        block: int = 64,
        keep: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Final hidden states [document][token][channel] of token ids [document][token].

        `past`: decoded K and V of the tokens before these, layer by layer. `store`: every full block of these tokens
        goes through it; a token attends to decoded earlier blocks, and to its own block raw. `keep` is called with
        each layer's K and V as they enter the cache.
        """
        before = past[0][0].shape[2] if past else 0
        tokens = ids.shape[1]
        cos, sin = self._rotation(before, tokens)
        full = tokens // block * block
        x = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.shape.layers):
            q, k, v = self._project(layer, x, cos, sin)
            if keep is not None:
                keep(layer, k, v)
            stored = None
            if store is not None and full:
                stored = store(layer, k[:, :, :full].contiguous(), v[:, :, :full].contiguous())
            if past is not None:
                k, v = (torch.cat(pair, 2) for pair in zip(past[layer], (k, v), strict=True))
            x = x + self._linear(layer, "self_attn.o_proj", self._attend(q, k, v, stored, block, before))
            x = x + self._feed(layer, x)
        return self._norm(x, "model.norm.weight")

    def losses(self, hidden: Tensor, targets: Tensor) -> list[float]:
        """Mean negative log-likelihood of the next tokens, one value per document."""
        head = self.weights["model.embed_tokens.weight" if self.shape.tied else "lm_head.weight"]
        rows = zip(hidden, targets, strict=True)
        return [float(F.cross_entropy(F.linear(row, head), target)) for row, target in rows]

    def _rotation(self, first: int, count: int) -> KV:
        half = self.shape.head_dim // 2
        exponents = torch.arange(half, dtype=torch.float64, device=self.device) / half
        angles = torch.outer(
            torch.arange(first, first + count, dtype=torch.float64, device=self.device),
            self.shape.rope_theta**-exponents,
        )
        both = torch.cat((angles, angles), 1)
        return both.cos().float(), both.sin().float()

    def _project(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q in float32; K and V as float32 that the cache's dtype holds. K is rounded before and after RoPE."""
        documents, tokens, _ = x.shape
        h = self._norm(x, f"model.layers.{layer}.input_layernorm.weight")

        def heads(name: str) -> Tensor:
            made = self._linear(layer, f"self_attn.{name}_proj", h)
            return made.view(documents, tokens, -1, self.shape.head_dim).transpose(1, 2)

        q, k, v = heads("q"), self._rounded(heads("k")), self._rounded(heads("v"))
        return q * cos + _turned(q) * sin, self._rounded(k * cos + _turned(k) * sin), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, stored: KV | None, block: int, before: int) -> Tensor:
        """Causal attention [document][token][head * channel]. Blocks before a row's own come from `stored`."""
        documents, heads, tokens, width = q.shape
        group = heads // self.shape.kv_heads
        step = block if stored is not None else ROWS
        out = torch.empty(documents, tokens, heads * width, device=q.device)
        for begin in range(0, tokens, step):
            end = min(begin + step, tokens)
            keys, values = k[:, :, : before + end], v[:, :, : before + end]
            if stored is not None and begin:
                keys = torch.cat((stored[0][:, :, :begin], k[:, :, begin:end]), 2)
                values = torch.cat((stored[1][:, :, :begin], v[:, :, begin:end]), 2)
            count = end - begin
            seen = torch.ones(count, before + end, dtype=torch.bool, device=q.device).tril(before + begin)
            # The query heads of one KV head are rows of one matrix.
            rows = q[:, :, begin:end].reshape(documents, self.shape.kv_heads, group * count, width)
            mixed = F.scaled_dot_product_attention(rows, keys, values, attn_mask=seen.repeat(group, 1))
            mixed = mixed.reshape(documents, heads, count, width).transpose(1, 2)
            out[:, begin:end] = mixed.reshape(documents, count, heads * width)
        return out

    def _feed(self, layer: int, x: Tensor) -> Tensor:
        h = self._norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate = F.silu(self._linear(layer, "mlp.gate_proj", h))
        return self._linear(layer, "mlp.down_proj", gate * self._linear(layer, "mlp.up_proj", h))

    def _linear(self, layer: int, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"model.layers.{layer}.{name}.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.shape.epsilon) * self.weights[name]

    def _rounded(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).float()


def _turned(x: Tensor) -> Tensor:
    """Multiply by i, with channels c and c + half as real and imaginary parts."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), -1)


# ---- files -----------------------------------------------------------------------------------------------------------


def load(folder: Path, dtype: str = "bf16", device: str = "cpu") -> Llama:
    """A model from config.json and safetensors, in one file or several with an index."""
    shape = _shape(folder / "config.json")
    weights: dict[str, Tensor] = {}
    for path, wanted in _files(folder, _wanted(shape)).items():
        weights |= _read(path, wanted, device)
    cache = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    return Llama(shape, weights, cache, device)


def check(folder: Path) -> Shape:
    """The shape of a model that load() would accept, judged by its config.json and the headers of its files."""
    shape = _shape(folder / "config.json")
    for path, wanted in _files(folder, _wanted(shape)).items():
        with _opened(path, wanted):
            pass
    return shape


def _json(path: Path) -> dict[str, Any]:
    try:
        return jsontext.read(path, MAX_JSON_BYTES)
    except jsontext.JsonError as exc:
        raise ModelError(path, f"cannot be read: {exc}") from exc


def _shape(path: Path) -> Shape:
    config = _json(path)
    if config.get("model_type") != "llama":
        raise ModelError(path, f"a model of type {str(config.get('model_type'))[:40]}, not llama", errno.EOPNOTSUPP)
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ModelError(path, "rope_parameters is not an object")
    scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
    if scaling or config.get("attention_bias") or config.get("mlp_bias") or config.get("hidden_act", "silu") != "silu":
        raise ModelError(path, "rope scaling, biases and activations but silu are not run here", errno.EOPNOTSUPP)

    def size(name: str, most: int, default: int | None = None) -> int:
        value = config.get(name)
        value = default if value is None and default is not None else value
        if type(value) is not int or not 1 <= value <= most:
            raise ModelError(path, f"{name}: a whole number from 1 to {most} is needed")
        return value

    def number(name: str, value: object, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < most:
            raise ModelError(path, f"{name}: a number from {least:g} to {most:g} is needed")
        return float(value)

    heads, hidden = size("num_attention_heads", 1 << 16), size("hidden_size", 1 << 20)
    shape = Shape(
        layers=size("num_hidden_layers", 1 << 12),
        heads=heads,
        kv_heads=size("num_key_value_heads", 1 << 16, heads),
        head_dim=size("head_dim", 1 << 16, hidden // heads),
        hidden=hidden,
        intermediate=size("intermediate_size", 1 << 22),
        vocabulary=size("vocab_size", 1 << 26),
        context=size("max_position_embeddings", 1 << 30),
        epsilon=number("rms_norm_eps", config.get("rms_norm_eps"), 0, 1),
        rope_theta=number("rope_theta", config.get("rope_theta") or rope.get("rope_theta"), 1, 1e30),
        tied=config.get("tie_word_embeddings", False) is True,
    )
    if shape.heads % shape.kv_heads or shape.head_dim % 2:
        raise ModelError(path, "its sizes do not make a model: heads of keys and values, or the size of a head")
    return shape


def _wanted(shape: Shape) -> dict[str, list[int]]:
    inner, outer = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = {
        "input_layernorm": [shape.hidden],
        "post_attention_layernorm": [shape.hidden],
        "self_attn.q_proj": [inner, shape.hidden],
        "self_attn.k_proj": [outer, shape.hidden],
        "self_attn.v_proj": [outer, shape.hidden],
        "self_attn.o_proj": [shape.hidden, inner],
        "mlp.gate_proj": [shape.intermediate, shape.hidden],
        "mlp.up_proj": [shape.intermediate, shape.hidden],
        "mlp.down_proj": [shape.hidden, shape.intermediate],
    }
    wanted = {f"model.layers.{i}.{name}.weight": size for i in range(shape.layers) for name, size in layer.items()}
    wanted |= {"model.embed_tokens.weight": [shape.vocabulary, shape.hidden], "model.norm.weight": [shape.hidden]}
    return wanted if shape.tied else wanted | {"lm_head.weight": [shape.vocabulary, shape.hidden]}


def _files(folder: Path, wanted: dict[str, list[int]]) -> dict[Path, dict[str, list[int]]]:
    """Map the tensors, with their sizes, to files."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return {single: wanted}
    table = _json(index).get("weight_map")
    places: dict[Path, dict[str, list[int]]] = {}
    for name, size in wanted.items():
        place = table.get(name) if isinstance(table, dict) else None
        if not isinstance(place, str) or "/" in place or place.startswith("."):
            raise ModelError(index, f"names no file of this folder for {name}")
        places.setdefault(folder / place, {})[name] = size
    return places


@contextmanager
def _opened(path: Path, wanted: dict[str, list[int]]) -> Iterator[Any]:
    """Open a file, and check that it has these tensors of these sizes."""
    if not path.exists():
        raise ModelError(path, "is missing", errno.ENOENT)
    try:
        with tensorfiles.opened(path, "pt") as file:
            names = set(file.keys())
            for name, size in wanted.items():
                if name not in names:
                    raise ModelError(path, f"has no tensor {name}")
                tensor = file.get_slice(name)
                dtype, shape = str(tensor.get_dtype()), list(tensor.get_shape())
                if shape != size or dtype not in DTYPES:
                    known = ", ".join(DTYPES)
                    raise ModelError(path, f"{name} is {dtype} {shape}; {size} in one of {known} was expected")
            yield file
    except tensorfiles.UnsoundError as exc:
        raise ModelError(path, str(exc)) from exc


def _read(path: Path, wanted: dict[str, list[int]], device: str) -> dict[str, Tensor]:
    found = {}
    with _opened(path, wanted) as file:
        for name in wanted:
            tensor = file.get_tensor(name)
            if not tensor.isfinite().all():
                raise ModelError(path, f"{name} holds values that are not numbers")
            found[name] = tensor.float().to(device)
    return found

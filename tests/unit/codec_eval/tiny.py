# SPDX-License-Identifier: MIT
"""A tiny Llama model, written as a model folder, and the same model run token by token in numpy with a KV cache."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, INNER, VOCABULARY, CONTEXT = 2, 4, 2, 64, 32, 48, 50, 512
EPSILON, THETA = 1e-5, 10000.0


def write(folder: Path, *, shards: int = 1, seed: int = 7, **changes: Any) -> dict[str, Floats]:
    """A model of random weights; its tensors."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(seed)
    config = {
        "model_type": "llama",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": True,
    } | changes
    sizes = {"embed_tokens": (VOCABULARY, HIDDEN), "norm": (HIDDEN,)}
    for layer in range(LAYERS):
        sizes |= {
            f"layers.{layer}.input_layernorm": (HIDDEN,),
            f"layers.{layer}.post_attention_layernorm": (HIDDEN,),
            f"layers.{layer}.self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
            f"layers.{layer}.self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"layers.{layer}.self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"layers.{layer}.self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            f"layers.{layer}.mlp.gate_proj": (INNER, HIDDEN),
            f"layers.{layer}.mlp.up_proj": (INNER, HIDDEN),
            f"layers.{layer}.mlp.down_proj": (HIDDEN, INNER),
        }
    weights: dict[str, Floats] = {
        f"model.{name}.weight": (
            rng.normal(1, 0.1, size) if len(size) == 1 else rng.normal(0, 1.5 / math.sqrt(size[1]), size)
        ).astype(np.float32)
        for name, size in sizes.items()
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return weights
    places = {name: f"model-{1 + i % shards}.safetensors" for i, name in enumerate(weights)}
    for place in set(places.values()):
        save_file({name: weights[name] for name in weights if places[name] == place}, folder / place)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8"
    )
    return weights


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single characters, small letters for capital ones, beside a model of VOCABULARY tokens."""
    known = ["?", *'\n 0123456789abcdefghijklmnopqrstuvwxyz.+-*=_()":,']
    assert len(known) <= VOCABULARY
    model = {
        "type": "BPE",
        "vocab": {character: i for i, character in enumerate(known)},
        "merges": [],
        "unk_token": "?",
    }
    text = json.dumps(
        {"version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"}, "model": model},
    )
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"})
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")


def documents(count: int, tokens: int, seed: int = 3) -> npt.NDArray[np.uint16]:
    """Token ids of varying predictability."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(0.1, (count, tokens)), VOCABULARY - 1).astype(np.uint16)


def bf16(x: Floats) -> Floats:
    """Rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


Change = Callable[[int, Floats, Floats], tuple[Floats, Floats]]


class Engine:
    """One document, token by token: a minimal serving engine."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self._w = {name.removeprefix("model.").removesuffix(".weight"): w for name, w in weights.items()}
        self.cache: list[tuple[list[Floats], list[Floats]]] = [([], []) for _ in range(LAYERS)]

    def replace(self, first: int, last: int, change: Change) -> None:
        """Apply `change` to tokens [first, last) of the cache."""
        for layer, (keys, values) in enumerate(self.cache):
            old = (np.stack(kept[first:last], 1) for kept in (keys, values))  # [head][token][channel]
            new = change(layer, *old)
            for kept, changed in zip((keys, values), new, strict=True):
                kept[first:last] = [changed[:, i] for i in range(last - first)]

    def step(self, token: int, target: int) -> float:
        """The loss of `target` after `token`."""
        return -float(self.predict(token)[target])

    def predict(self, token: int) -> Floats:
        """Logarithms of the probabilities of what follows `token`."""
        position = len(self.cache[0][0])
        x = self._w["embed_tokens"][token]
        for layer, (keys, values) in enumerate(self.cache):
            h = self._norm(x, f"layers.{layer}.input_layernorm")
            q, k, v = (
                (self._w[f"layers.{layer}.self_attn.{name}_proj"] @ h).reshape(-1, HEAD_DIM) for name in ("q", "k", "v")
            )
            keys.append(bf16(self._rope(k, position)))
            values.append(bf16(v))
            q = self._rope(q, position)
            mixed = []
            for head in range(HEADS):
                own = head // (HEADS // KV_HEADS)
                scores = np.stack(keys, 1)[own] @ q[head] / math.sqrt(HEAD_DIM)
                shares = np.exp(scores - scores.max())
                mixed.append(shares / shares.sum() @ np.stack(values, 1)[own])
            x = x + self._w[f"layers.{layer}.self_attn.o_proj"] @ np.concatenate(mixed)
            h = self._norm(x, f"layers.{layer}.post_attention_layernorm")
            gate = self._w[f"layers.{layer}.mlp.gate_proj"] @ h
            up = self._w[f"layers.{layer}.mlp.up_proj"] @ h
            x = x + self._w[f"layers.{layer}.mlp.down_proj"] @ (gate / (1 + np.exp(-gate)) * up)
        logits = self._w["embed_tokens"] @ self._norm(x, "norm")
        made: Floats = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        return made

    def _norm(self, x: Floats, name: str) -> Floats:
        normed: Floats = x / np.sqrt((x**2).mean() + EPSILON) * self._w[name]
        return normed

    def _rope(self, x: Floats, position: int) -> Floats:
        half = HEAD_DIM // 2
        angle = position * THETA ** -(np.arange(half) / half)
        low, high = x[:, :half], x[:, half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate((low * cos - high * sin, high * cos + low * sin), 1).astype(np.float32)

# SPDX-License-Identifier: MIT
"""Perplexity is that of a model that really attends to what came out of the codec, by each rule."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

from speckvctl.reference import llama, perplexity  # noqa: E402
from speckvctl.reference.perplexity import Cost, Rule  # noqa: E402
from tests.unit.codec_eval import tiny  # noqa: E402


def coarse(layer: int, k: Any, v: Any) -> tuple[Any, Any]:
    """Whole steps, coarser in deeper layers; numpy and torch alike."""
    step = 1.0 + layer
    return (k / step).round() * step, (v / step).round() * step


def by_blocks(weights: dict[str, tiny.Floats], ids: Any) -> float:
    engine, losses = tiny.Engine(weights), []
    for position, (token, target) in enumerate(itertools.pairwise(ids)):
        losses.append(engine.step(int(token), int(target)))
        if position % 64 == 63:
            engine.replace(position - 63, position + 1, coarse)
    return float(np.mean(losses))


def by_prefix(weights: dict[str, tiny.Floats], ids: Any, prefix: int) -> tuple[float, float]:
    """Reference and decoded."""
    found = []
    for change in (False, True):
        engine, losses = tiny.Engine(weights), []
        for position, (token, target) in enumerate(itertools.pairwise(ids)):
            if change and position == prefix:
                engine.replace(0, prefix, coarse)
            losses.append(engine.step(int(token), int(target)))
        found.append(float(np.mean(losses[prefix:])))
    return found[0], found[1]


def test_both_rules_are_what_an_engine_does_token_by_token(tmp_path: Path) -> None:
    weights = tiny.write(tmp_path / "model", shards=2)
    ids = tiny.documents(3, 201).astype(np.int64)
    model = llama.load(tmp_path / "model")
    found = perplexity.measure(model, ids, {"coarse": coarse}, prefix=128, batch=2)
    blocks, prefix = found["coarse", Rule.BLOCKS], found["coarse", Rule.PREFIX]
    for row, document in enumerate(ids):
        assert blocks.decoded[row] == pytest.approx(by_blocks(weights, document), abs=1e-4)
        reference, decoded = by_prefix(weights, document, 128)
        assert prefix.reference[row] == pytest.approx(reference, abs=1e-4)
        assert prefix.decoded[row] == pytest.approx(decoded, abs=1e-4)
    # The change is far above what the comparison allows, and the rules are not each other.
    assert abs(blocks.decoded - blocks.reference).mean() > 5e-3
    assert abs(blocks.increase_percent - prefix.increase_percent) > 0.1


def test_what_loses_nothing_costs_nothing(tmp_path: Path) -> None:
    tiny.write(tmp_path / "model")
    model = llama.load(tmp_path / "model", "fp16")
    ids = tiny.documents(2, 257).astype(np.int64)
    found = perplexity.measure(model, ids, {"same": lambda _, k, v: (k, v)}, prefix=64)
    for cost in found.values():
        assert cost.increase_percent == pytest.approx(0, abs=1e-3)


def test_a_store_is_given_whole_blocks_that_the_cache_can_hold(tmp_path: Path) -> None:
    tiny.write(tmp_path / "model")
    seen: list[tuple[int, Any]] = []

    def look(layer: int, k: Any, v: Any) -> tuple[Any, Any]:
        assert k.is_contiguous() and v.is_contiguous() and k.shape == v.shape
        assert torch.equal(k, k.bfloat16().float()) and torch.equal(v, v.bfloat16().float())
        seen.append((layer, tuple(k.shape)))
        return k, v

    model, ids = llama.load(tmp_path / "model"), tiny.documents(3, 200).astype(np.int64)
    perplexity.measure(model, ids, {"look": look}, rules=[Rule.BLOCKS], batch=2)
    perplexity.measure(model, ids[:1], {"look": look}, rules=[Rule.PREFIX], prefix=128)
    width = (tiny.KV_HEADS, 192, tiny.HEAD_DIM)
    assert seen[:4] == [(0, (2, *width)), (1, (2, *width)), (0, (1, *width)), (1, (1, *width))]
    assert seen[4:] == [(layer, (1, tiny.KV_HEADS, 128, tiny.HEAD_DIM)) for layer in (0, 1)]


def test_the_increase_is_of_the_mean_and_its_error_is_over_documents() -> None:
    cost = Cost(np.log([2.0, 4.0]), np.log([2.0 * 1.01, 4.0 * 1.03]))
    assert cost.perplexity_reference == pytest.approx(math.sqrt(8))
    assert cost.increase_percent == pytest.approx(100 * (math.sqrt(1.01 * 1.03) - 1))
    assert cost.standard_error_percent == pytest.approx(102 * abs(math.log(1.03 / 1.01)) / 2, rel=1e-3)
    assert Cost(cost.reference[:1], cost.decoded[:1]).standard_error_percent is None


@pytest.mark.shared
def test_the_real_model_makes_the_published_k_and_v(shared_dir: Path) -> None:
    from safetensors import safe_open

    model = llama.load(shared_dir / "model")
    ids = np.load(shared_dir / "model" / "eval_dev.npy").astype(np.int64)
    made: dict[int, Any] = {}
    with torch.inference_mode():
        model.hidden(torch.from_numpy(ids[29:30, :512]), keep=lambda layer, k, v: made.update({layer: (k[0], v[0])}))
    with safe_open(shared_dir / "model" / "kv_dev.safetensors", "pt") as file:
        for kind, own in zip("kv", made[3], strict=True):
            published = file.get_tensor(f"bf16.doc029.layer3.{kind}")[:, :512].float()
            # Made in other arithmetic (TF32): most values agree to the bit, the rest nearly.
            assert ((own - published).pow(2).sum() / published.pow(2).sum()).sqrt() < 2e-3
            assert (own == published).float().mean() > 0.9


BROKEN_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "no model_type": ({"model_type": "gpt2"}, "of type gpt2"),
    "scaled rope": ({"rope_scaling": {"rope_type": "yarn"}}, "rope scaling"),
    "biases": ({"attention_bias": True}, "biases"),
    "heads that do not divide": ({"num_key_value_heads": 3}, "do not make a model"),
    "an odd head": ({"head_dim": 63}, "do not make a model"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers: a whole number from 1"),
    "more layers than any model": ({"num_hidden_layers": 10**12}, "num_hidden_layers: a whole number from 1"),
    "no number": ({"hidden_size": "many"}, "hidden_size: a whole number"),
    "a truth value": ({"hidden_size": True}, "hidden_size: a whole number"),
    "a fraction": ({"vocab_size": 50.5}, "vocab_size: a whole number"),
    "no epsilon": ({"rms_norm_eps": None}, "rms_norm_eps: a number"),
    "an endless theta": ({"rope_theta": 1e31}, "rope_theta: a number"),
    "rope of another kind": ({"rope_parameters": [1]}, "rope_parameters is not an object"),
    "other weights": ({"hidden_size": 64}, "was expected"),
    "more layers than weights": ({"num_hidden_layers": 3}, "has no tensor model.layers.2"),
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_a_model_that_cannot_be_run_is_refused_by_name(case: str, tmp_path: Path) -> None:
    changes, reason = BROKEN_MODELS[case]
    tiny.write(tmp_path, **changes)
    with pytest.raises(llama.ModelError, match=reason):
        llama.load(tmp_path)
    with pytest.raises(llama.ModelError, match=reason):
        llama.check(tmp_path)


def test_weights_that_need_scales_are_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny.write(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    for dtype, name in ((torch.float8_e4m3fn, "F8_E4M3"), (torch.float8_e5m2, "F8_E5M2"), (torch.int8, "I8")):
        save_file(weights | {"model.norm.weight": weights["model.norm.weight"].to(dtype)}, file)
        for take in (llama.check, llama.load):
            with pytest.raises(llama.ModelError, match=f"model.norm.weight is {name} "):
                take(tmp_path)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        save_file({name: weight.to(dtype) for name, weight in weights.items()}, file)
        llama.check(tmp_path)
        llama.load(tmp_path)


def test_damaged_model_files_are_refused_by_name(tmp_path: Path) -> None:
    tiny.write(tmp_path, shards=2)
    shard = tmp_path / "model-1.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(llama.ModelError, match="shorter or longer than its tensors"):
        llama.load(tmp_path)
    shard.write_bytes(whole[:-4] + np.array([np.nan], np.float32).tobytes())
    with pytest.raises(llama.ModelError, match="not numbers"):
        llama.load(tmp_path)
    shard.unlink()
    with pytest.raises(llama.ModelError, match="is missing"):
        llama.load(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text("utf-8"))
    table["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(table), "utf-8")
    with pytest.raises(llama.ModelError, match="names no file of this folder"):
        llama.load(tmp_path)
    for text in (b"[", b"[]", b"\xff", b'{"weight_map": 1, "weight_map": 2}', b"[" * 100_000, b'{"a": NaN}'):
        index.write_bytes(text)
        with pytest.raises(llama.ModelError, match="cannot be read") as caught:
            llama.load(tmp_path)
        assert "Expecting" not in str(caught.value)


BROKEN_TOKENS: dict[str, Any] = {
    "floats": np.zeros((2, 200), np.float32),
    "flat": np.zeros(200, np.uint16),
    "none": np.zeros((0, 200), np.uint16),
    "short": np.zeros((2, 128), np.uint16),
    "long": np.zeros((2, tiny.CONTEXT + 1), np.uint16),
    "unknown ids": np.full((2, 200), tiny.VOCABULARY, np.uint16),
    "negative ids": np.full((2, 200), -1, np.int32),
}


@pytest.mark.parametrize("case", BROKEN_TOKENS)
def test_tokens_that_the_model_cannot_be_run_on_are_refused(case: str, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    np.save(tmp_path / "tokens.npy", BROKEN_TOKENS[case])
    with pytest.raises(perplexity.TokensError, match=r"tokens\.npy"):
        perplexity.read_tokens(tmp_path / "tokens.npy", llama.load(tmp_path).shape)


def test_documents_are_skipped_and_counted_from_there(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    ids = tiny.documents(5, 200)
    np.save(tmp_path / "tokens.npy", ids)
    model = llama.load(tmp_path)
    assert np.array_equal(perplexity.read_tokens(tmp_path / "tokens.npy", model.shape, 2, skip=1), ids[1:3])
    assert np.array_equal(perplexity.read_tokens(tmp_path / "tokens.npy", model.shape, skip=3), ids[3:])
    with pytest.raises(perplexity.TokensError, match="5 are skipped"):
        perplexity.read_tokens(tmp_path / "tokens.npy", model.shape, skip=5)


def test_a_file_that_is_no_npy_is_refused(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    model = llama.load(tmp_path)
    heads = (
        b"",
        b"{",
        b"(" * 5000,
        b"-" * 9000 + b"1",
        b"{'descr': '<u2', 'fortran_order': False, 'shape': (2, 10**9)}",
    )
    files = [b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"", b"\x80\x04."]
    for data in files + [b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head for head in heads]:
        (tmp_path / "tokens.npy").write_bytes(data)
        with pytest.raises(perplexity.TokensError, match=r"not a \.npy file of token ids, or one that is cut short$"):
            perplexity.read_tokens(tmp_path / "tokens.npy", model.shape)

# SPDX-License-Identifier: MIT
"""The loss is that of a model that really attends to what came out of the codec, by each rule."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

pytest.importorskip("transformers", reason="it is not installed: pip install 'speckv[codec]'")

from speckvctl.reference import documents, loading, loss  # noqa: E402
from speckvctl.reference.loss import Loss, Rule  # noqa: E402
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
    model = loading.load(tmp_path / "model")
    found = loss.measure(model, ids, {"coarse": coarse}, prefix=128, batch=2)
    blocks, prefix = found["coarse", Rule.BLOCKS], found["coarse", Rule.PREFIX]
    for row, document in enumerate(ids):
        assert blocks.decoded[row] == pytest.approx(by_blocks(weights, document), abs=1e-3)
        # A last bit of K before it is rounded may move a coarse step.
        reference, decoded = by_prefix(weights, document, 128)
        assert prefix.reference[row] == pytest.approx(reference, abs=1e-4)
        assert prefix.decoded[row] == pytest.approx(decoded, abs=1e-3)
    # The change is far above what the comparison allows, and the rules are not each other.
    assert abs(blocks.decoded - blocks.reference).mean() > 5e-3
    assert abs(blocks.increase_percent - prefix.increase_percent) > 0.1


def test_what_loses_nothing_costs_nothing(tmp_path: Path) -> None:
    tiny.write(tmp_path / "model")
    model = loading.load(tmp_path / "model", "fp16")
    ids = tiny.documents(2, 257).astype(np.int64)
    found = loss.measure(model, ids, {"same": lambda _, k, v: (k, v)}, prefix=64)
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

    model, ids = loading.load(tmp_path / "model"), tiny.documents(3, 200).astype(np.int64)
    loss.measure(model, ids, {"look": look}, rules=[Rule.BLOCKS], batch=2)
    loss.measure(model, ids[:1], {"look": look}, rules=[Rule.PREFIX], prefix=128)
    width = (tiny.KV_HEADS, 192, tiny.HEAD_DIM)
    assert seen[:4] == [(0, (2, *width)), (1, (2, *width)), (0, (1, *width)), (1, (1, *width))]
    assert seen[4:] == [(layer, (1, tiny.KV_HEADS, 128, tiny.HEAD_DIM)) for layer in (0, 1)]


def test_the_increase_is_of_the_mean_and_its_error_is_over_documents() -> None:
    divergence, agreement = np.array([0.001, 0.003]), np.array([1.0, 0.9])
    found = Loss(np.log([2.0, 4.0]), np.log([2.0 * 1.01, 4.0 * 1.03]), divergence, agreement)
    assert found.perplexity_reference == pytest.approx(math.sqrt(8))
    assert found.increase_percent == pytest.approx(100 * (math.sqrt(1.01 * 1.03) - 1))
    assert found.standard_error_percent == pytest.approx(102 * abs(math.log(1.03 / 1.01)) / 2, rel=1e-3)
    assert found.kl == pytest.approx(2) and found.kl_standard_error == pytest.approx(1) and found.worst == 1
    one = Loss(found.reference[:1], found.decoded[:1], divergence[:1], agreement[:1])
    assert one.standard_error_percent is None and one.kl_standard_error is None


def test_divergence_and_agreement_are_those_of_the_two_predictions(tmp_path: Path) -> None:
    weights = tiny.write(tmp_path / "model")
    ids = tiny.documents(1, 201).astype(np.int64)
    found = loss.measure(loading.load(tmp_path / "model"), ids, {"coarse": coarse}, prefix=128)["coarse", Rule.PREFIX]
    logs = []
    for change in (False, True):
        engine = tiny.Engine(weights)
        for position, token in enumerate(ids[0, :-1]):
            if change and position == 128:
                engine.replace(0, 128, coarse)
            logs.append(engine.predict(int(token)))
    raw, decoded = np.array(logs[128:200]), np.array(logs[328:])
    assert found.divergence[0] == pytest.approx((np.exp(raw) * (raw - decoded)).sum(1).mean(), rel=1e-2)
    assert found.agreement[0] == pytest.approx((raw.argmax(1) == decoded.argmax(1)).mean(), abs=0.02)
    assert found.divergence[0] > 1e-3 and found.agreement[0] < 1


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
    with pytest.raises(documents.TokensError, match=r"tokens\.npy"):
        documents.read(tmp_path / "tokens.npy", loading.load(tmp_path).shape)


def test_documents_are_skipped_and_counted_from_there(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    ids = tiny.documents(5, 200)
    np.save(tmp_path / "tokens.npy", ids)
    model = loading.load(tmp_path)
    assert np.array_equal(documents.read(tmp_path / "tokens.npy", model.shape, 2, skip=1), ids[1:3])
    assert np.array_equal(documents.read(tmp_path / "tokens.npy", model.shape, skip=3), ids[3:])
    with pytest.raises(documents.TokensError, match="5 are skipped"):
        documents.read(tmp_path / "tokens.npy", model.shape, skip=5)


def test_a_file_that_is_no_npy_is_refused(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    model = loading.load(tmp_path)
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
        with pytest.raises(documents.TokensError, match=r"not a \.npy file of token ids, or one that is cut short$"):
            documents.read(tmp_path / "tokens.npy", model.shape)


def words(text: str) -> list[int]:
    return [len(word) for word in text.split()]


def test_a_text_is_cut_into_documents_by_the_model_s_tokenizer(tmp_path: Path) -> None:
    tiny.write(tmp_path)
    shape = loading.load(tmp_path).shape
    (tmp_path / "text.md").write_text("ab cde f " * 400, "utf-8")
    found = documents.read(tmp_path / "text.md", shape, tokenizer=lambda: words)
    assert np.array_equal(found, np.resize([2, 3, 1], 2 * tiny.CONTEXT).reshape(2, tiny.CONTEXT))
    assert documents.read(tmp_path / "text.md", shape, 1, skip=1, tokenizer=lambda: words).shape == (1, tiny.CONTEXT)
    for text, reason in ((b"ab " * 60, r"shape \[1, 60\]: 129 to 512"), (b"", r"shape \[1, 0\]"), (b"\xff", "byte 0")):
        (tmp_path / "text.md").write_bytes(text)
        with pytest.raises(documents.TokensError, match=reason):
            documents.read(tmp_path / "text.md", shape, tokenizer=lambda: words)

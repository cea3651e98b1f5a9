# SPDX-License-Identifier: MIT
"""The KVTC-like peer keeps to its budget, spends bits where they save most, and is not judged on its own text."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

pytest.importorskip("transformers", reason="it is not installed: pip install 'speckv[codec]'")

from speckvctl.codecs import tensors  # noqa: E402
from speckvctl.comparison import kvtc, table  # noqa: E402
from speckvctl.errors import UnsupportedError  # noqa: E402
from speckvctl.reference import evaluation, extraction, loading, rotary  # noqa: E402
from speckvctl.reference.loss import Rule, measure  # noqa: E402
from tests.unit.codec_eval import kv, tiny  # noqa: E402

VALUES = tiny.LAYERS * tiny.KV_HEADS * tiny.HEAD_DIM  # of a vector


def quiet(_done: int, _total: int) -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model")
    tiny.write(folder)
    return loading.load(folder)


@pytest.fixture(scope="module")
def fitted(model: Any) -> kvtc.Kvtc:
    return kvtc.fit(model, tiny.documents(4, 300, seed=8).astype(np.int64), quiet)


def spent(groups: tuple[kvtc.Group, ...]) -> int:
    return sum(group.size * group.bits + kvtc.SCALE_BITS for group in groups)


def lost(samples: Any, groups: tuple[kvtc.Group, ...]) -> float:
    back = torch.zeros_like(samples)
    for group in groups:
        part = slice(group.first, group.first + group.size)
        codes, least, step = kvtc._codes(samples[:, part], group.bits)
        back[:, part] = codes * step + least
    return float((back - samples).double().square().sum())


def test_the_plan_is_the_best_of_all_plans_of_a_small_case() -> None:
    rng = np.random.default_rng(3)
    samples = torch.from_numpy(rng.normal(0, 1, (200, 32)) * np.geomspace(30, 0.1, 32)).float()
    kinds = [(16, bits) for bits in (0, *kvtc.WIDTHS)]
    for budget in (100, 200, 330):
        found = kvtc.plan(samples, budget)
        assert spent(found) <= budget
        plans = (
            tuple(kvtc.Group(16 * i, size, bits) for i, (size, bits) in enumerate(pair) if bits)
            for pair in itertools.product(kinds, kinds)
        )
        best = min(lost(samples, plan) for plan in plans if spent(plan) <= budget)
        assert lost(samples, found) <= best * 1.0001
    assert kvtc.plan(samples, 30) == ()


def test_codes_are_packed_in_as_many_bits_as_they_have() -> None:
    rng = np.random.default_rng(4)
    for bits in kvtc.WIDTHS:
        codes = rng.integers(0, 1 << bits, (10, 16)).astype(np.uint8)
        packed = np.unpackbits(np.frombuffer(kvtc._packed(codes, bits), np.uint8)).reshape(-1, bits)
        assert len(packed) == codes.size
        assert np.array_equal(packed @ (1 << np.arange(bits)[::-1]), codes.ravel())


def test_a_prefix_comes_back_near_what_it_was_and_its_ends_as_they_were(model: Any, fitted: kvtc.Kvtc) -> None:
    assert fitted.spans == (range(2),) and fitted.transforms[0][0].basis.shape[1] == VALUES
    for transform in fitted.transforms[0]:
        assert spent(transform.groups) <= kvtc.BUDGET * VALUES
    ids = torch.from_numpy(tiny.documents(2, 256, seed=9).astype(np.int64))
    with torch.inference_mode():
        kept = model.prefix(ids)
        back = fitted.whole(kept)
    for was, now in zip(itertools.chain(*kept), itertools.chain(*back), strict=True):
        inner = slice(kvtc.FIRST, -kvtc.LAST)
        assert torch.equal(now[:, :, : kvtc.FIRST], was[:, :, : kvtc.FIRST])
        assert torch.equal(now[:, :, -kvtc.LAST :], was[:, :, -kvtc.LAST :])
        assert torch.equal(now, now.bfloat16().float()) and not torch.equal(now, was)
        error = (now - was)[:, :, inner].square().sum() / was[:, :, inner].square().sum()
        assert error < 0.3
    short = [(k[:, :, :128], v[:, :, :128]) for k, v in kept]
    for was, now in zip(itertools.chain(*short), itertools.chain(*fitted.whole(short)), strict=True):
        assert torch.equal(was, now)


def test_the_rotary_embedding_is_put_back(model: Any) -> None:
    turns = rotary.turns(model)
    assert turns is not None
    x = torch.from_numpy(np.random.default_rng(2).normal(0, 1, (2, 50, tiny.HEAD_DIM)).astype(np.float32))
    assert torch.allclose(rotary.rotated(turns, rotary.unrotated(turns, x, 9), 9), x, atol=1e-5)


def test_it_is_run_by_the_prefix_rule_alone(model: Any, fitted: kvtc.Kvtc) -> None:
    found = measure(model, tiny.documents(2, 300).astype(np.int64), {"whole": fitted}, prefix=192)
    assert list(found) == [("whole", Rule.PREFIX)] and found["whole", Rule.PREFIX].kl > 0


def test_its_ratio_is_of_a_file_with_every_layer(model: Any, fitted: kvtc.Kvtc, tmp_path: Path) -> None:
    extraction.write(model, tiny.documents(2, 256, seed=11).astype(np.int64), tmp_path / "kv.safetensors", quiet)
    pairs, _ = tensors.read_pairs(tmp_path / "kv.safetensors", 64)
    tally, _ = fitted.judge(pairs)
    assert 7 < tally.ratio < 14 and not tally.exact
    assert 0 < (tally.k.relative_rmse or 0) < 0.5
    other, _ = tensors.read_pairs(kv.pairs(tmp_path / "other.safetensors", layers=1, shape=(2, 256, 64)), 64)
    with pytest.raises(UnsupportedError, match="takes all layers of the model"):
        fitted.judge(other)


def test_it_is_fitted_on_skipped_documents_and_left_out_without_enough_of_them(model: Any) -> None:
    left_out: dict[str, str] = {}
    assert table.fitted(None, left_out, quiet) == [] and "--skip-documents" in left_out["KVTC"]
    few = evaluation.Model(model, None, 0, skipped=lambda: tiny.documents(1, 200).astype(np.int64))
    assert table.fitted(few, left_out, quiet) == [] and "256 tokens or more" in left_out["KVTC"]
    some = evaluation.Model(model, None, 0, skipped=lambda: tiny.documents(2, 200).astype(np.int64))
    (made,) = table.fitted(some, left_out, quiet)
    assert isinstance(made, kvtc.Kvtc) and made.spans == (range(1), range(1, 2))  # too few tokens for both layers

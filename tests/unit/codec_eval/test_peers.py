# SPDX-License-Identifier: MIT
"""Peers do what they are named for, and their sizes are what they would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

from speckvctl.codecs import tensors  # noqa: E402
from speckvctl.comparison import cachegen, peers, plot, quantisers, table  # noqa: E402
from tests.unit.codec_eval import kv  # noqa: E402

FILE_SHAPE = (2, 128, 128)


@pytest.fixture
def pairs(tmp_path: Path) -> list[tensors.Pair]:
    return tensors.read_pairs(kv.pairs(tmp_path / "kv.safetensors", shape=FILE_SHAPE), 64)[0]


def test_compressors_lose_nothing_and_count_what_they_write(pairs: list[tensors.Pair]) -> None:
    import zstandard

    pytest.importorskip("lz4", reason="lz4 is not installed: pip install 'speckv[codec]'")
    found = {peer.name: peer.judge(pairs) for peer in peers.compressors()}
    assert all(tally.exact for tally, _ in found.values())
    assert all(rates.encode and rates.decode for _, rates in found.values())
    blocks = [block for pair in pairs for block in pair.blocks(64)]
    small = sum(len(zstandard.ZstdCompressor(level=1).compress(block.tobytes())) for block in blocks)
    assert found["zstd -1"][0].stored_bytes == small
    shuffled = sum(
        len(zstandard.ZstdCompressor(level=1).compress(block.reshape(-1, 2).T.tobytes())) for block in blocks
    )
    assert found["byte shuffle + zstd -1"][0].stored_bytes == shuffled < small


def test_quantisers_take_the_bits_that_they_are_known_for(pairs: list[tensors.Pair]) -> None:
    found = {peer.name: peer.judge(pairs)[0] for peer in peers.quantisers() if isinstance(peer, peers.Quantiser)}
    assert {name: round(tally.ratio, 3) for name, tally in found.items()} == {
        "fp8 e4m3 cast": 2.0,
        "fp8 e4m3 scaled": 2.0,
        "MXFP4": 3.765,
        "NVFP4": 3.556,
        "KIVI 4-bit": 3.556,
        "TurboQuant-like 4/3": 4.414,
    }
    errors = {name: tally.k.relative_rmse or 0 for name, tally in found.items()}
    assert 0.01 < errors["fp8 e4m3 cast"] < 0.05 < errors["KIVI 4-bit"] < errors["MXFP4"] < 0.2


def test_mxfp4_is_the_nearest_of_its_fifteen_values_times_a_power_of_two() -> None:
    x = torch.from_numpy(np.random.default_rng(5).normal(0, 3, (1, 1, 1, 64)).astype(np.float32))
    found = quantisers.mxfp4(x)[0, 0, 0].numpy()
    grid = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    for group, values in zip(found.reshape(2, 32), x.numpy().reshape(2, 32), strict=True):
        scale = 2.0 ** (np.floor(np.log2(np.abs(values).max())) - 2)
        nearest = np.abs(np.abs(values)[:, None] / scale - grid).min(1)
        assert np.isin(np.abs(group) / scale, grid).all()
        assert np.allclose(np.abs(np.abs(values) - np.abs(group)) / scale, nearest)


def test_nvfp4_holds_what_it_has_codes_for_and_rounds_the_rest_to_a_sixth_of_the_largest() -> None:
    grid = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 0])
    x = torch.stack((448 * grid, 30 * grid, grid / 64, 0 * grid)).flatten()[None, None, None]
    assert torch.equal(quantisers.nvfp4(x), x)
    x = torch.from_numpy(np.random.default_rng(5).normal(0, 3, (1, 2, 64, 64)).astype(np.float32))
    groups, errors = (y.unflatten(-1, (-1, 16)).abs().amax(-1) for y in (x, quantisers.nvfp4(x) - x))
    assert (errors <= groups / 6 * 1.07).all() and errors.mean() > groups.mean() / 20


def test_fp8_with_a_scale_is_not_cut_off_where_the_cast_is() -> None:
    x = torch.from_numpy(np.random.default_rng(5).normal(0, 400, (1, 2, 64, 64)).astype(np.float32))
    scaled, cast = ((y - x).abs().max() for y in (quantisers.fp8_scaled(x), quantisers.fp8(x)))
    assert scaled < x.abs().max() / 16 < cast
    assert torch.allclose(quantisers.fp8_scaled(x * 2.0**-60), quantisers.fp8_scaled(x) * 2.0**-60)


@pytest.mark.parametrize(("bits", "error"), [(3, 0.03454), (4, 0.009497)])
def test_turboquant_like_has_the_error_of_its_quantiser_whatever_the_values(bits: int, error: float) -> None:
    """Distortions of Max, 1960, table I."""
    x = torch.from_numpy(np.random.default_rng(5).standard_t(2, (1, 2, 512, 128)).astype(np.float32))
    found = (quantisers.turboquant(x, bits) - x).square().sum() / x.square().sum()
    assert float(found) == pytest.approx(error, rel=0.03)
    assert not quantisers.turboquant(torch.zeros(1, 1, 4, 64), bits).any()


def test_kivi_keeps_the_ends_of_each_group_and_steps_between_them() -> None:
    x = torch.from_numpy(np.random.default_rng(6).normal(0, 2, (1, 2, 128, 128)).astype(np.float32))
    k, v = quantisers.kivi_k(x), quantisers.kivi_v(x)
    assert max(len(np.unique(k[0, 0, :64, channel])) for channel in range(128)) <= 16
    assert max(len(np.unique(v[0, 0, token, :64])) for token in range(128)) <= 16
    step = (x[0, 0, :64].amax(0) - x[0, 0, :64].amin(0)) / 15
    assert ((k - x)[0, 0, :64].abs().amax(0) <= step * 0.51 + 0.01).all()


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1), st.integers(1, 40), st.integers(1, 9), st.sampled_from([2, 11, 15, 31, 255]))
def test_the_entropy_coder_gives_back_what_it_was_given(seed: int, steps: int, streams: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    symbols = np.minimum(rng.geometric(rng.uniform(0.05, 0.9), (steps, streams)) - 1, count - 1)
    words, states = cachegen.encode(symbols, count)
    assert np.array_equal(cachegen.decode(words, states, steps, count), symbols)


def test_the_entropy_coder_comes_near_the_entropy() -> None:
    rng = np.random.default_rng(9)
    symbols = np.clip(np.rint(rng.normal(7, 1.2, (4000, 3))), 0, 14).astype(np.int64)
    words, states = cachegen.encode(symbols, 15)
    shares = [np.bincount(symbols[:, i], minlength=15) / len(symbols) for i in range(3)]
    bits = sum(-4000 * float((p[p > 0] * np.log2(p[p > 0])).sum()) for p in shares)
    assert bits < 16 * len(words) + 32 * len(states) < 1.04 * bits


def test_cachegen_style_is_finer_in_the_first_layers_and_exact_in_what_it_claims() -> None:
    assert [cachegen.levels(layer, 9) for layer in range(9)] == [31] * 3 + [15] * 3 + [11] * 3
    x = torch.from_numpy(np.random.default_rng(7).normal(0, 1, (1, 2, 64, 32)).astype(np.float32)).cumsum(2)
    sizes, errors = [], []
    for count in cachegen.LEVELS:
        back, size = cachegen.code(x, count)
        sizes.append(size)
        errors.append(float((back - x).pow(2).mean()))
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)


def test_every_peer_and_mode_stands_in_the_table_or_says_why_not(pairs: list[tensors.Pair]) -> None:
    coders, left_out = table.coders(None, None, peers=True)
    rows = table.judge(coders, pairs, left_out, lambda _, __: None)
    names = {row.coder.name for row in rows} | set(left_out)
    assert names == {
        *("raw", "int8-delta-rle", "q3x", "q4x", "q5x", "q5c", "e7c", "lossless"),
        *("zstd -1", "zstd -3", "lz4", "byte shuffle + zstd -1"),
        *("fp8 e4m3 cast", "fp8 e4m3 scaled", "MXFP4", "NVFP4", "KIVI 4-bit"),
        *("TurboQuant-like 4/3", "CacheGen-style"),
    }
    assert {row.kind for row in rows} == {"mode", "compressor", "quantiser", "coder"}


def test_a_coder_that_cannot_hold_the_tensors_is_left_out_and_says_why(tmp_path: Path) -> None:
    odd, _ = tensors.read_pairs(kv.pairs(tmp_path / "kv.safetensors", shape=(1, 64, 96)), 64)
    coders, left_out = table.coders(None, None, peers=True)
    rows = table.judge(coders, odd, left_out, lambda _, __: None)
    assert "q4x" in {row.coder.name for row in rows}
    assert "head size of 96" in left_out["KIVI 4-bit"]


def test_the_plot_shows_every_row_that_has_a_loss(pairs: list[tensors.Pair]) -> None:
    import xml.etree.ElementTree as ET

    from speckvctl import results

    coders, left_out = table.coders(["raw", "q4x"], None, peers=False)
    rows = [row.result() for row in table.judge(coders, pairs, left_out, lambda _, __: None)]
    blank: dict[str, Any] = dict.fromkeys(("model", "tokens", "documents", "prefix_tokens", "task_seed", "plot"))
    document = results.CodecCompare(
        file="a<b.safetensors", isa="portable", raw_bytes=1, block_tokens=64, rows=rows, left_out=[], **blank
    )
    picture = ET.fromstring(plot.draw(document))
    circles = [element for element in picture.iter() if element.tag.endswith("circle")]
    texts = [element.text or "" for element in picture.iter() if element.tag.endswith("text")]
    assert len(circles) == 2
    assert any(text.startswith("q4x ") for text in texts) and "a<b.safetensors: size and loss" in texts
    assert float(circles[0].attrib["cx"]) != float(circles[1].attrib["cx"])

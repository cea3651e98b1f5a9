# SPDX-License-Identifier: MIT
"""A calibration is what a model's KV shows: it loads, keeps its ratio, and puts errors where they do not hurt."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

import speckv  # noqa: E402
from safetensors.numpy import load, save  # noqa: E402
from speckv.codec import Calibration, Identity, decode_frame, encode_frame  # noqa: E402

from speckvctl.calibration import e7c, making, q5c, statistics  # noqa: E402
from speckvctl.reference import decoder, loading  # noqa: E402
from tests.unit.codec_eval import tiny  # noqa: E402

SHAPE = speckv.Geometry(tiny.LAYERS, tiny.KV_HEADS, tiny.HEAD_DIM, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> decoder.Decoder:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.write(folder)
    return loading.load(folder)


def make(model: decoder.Decoder, codec: str) -> making.Made:
    return making.make(model, tiny.documents(4, 200).astype(np.int64), ratio=5.0, codec=codec, source="tests")


@pytest.fixture(scope="module")
def made(model: decoder.Decoder) -> making.Made:
    return make(model, "q5c")


@pytest.fixture(scope="module")
def made_e7c(model: decoder.Decoder) -> making.Made:
    return make(model, "e7c")


def through(file: bytes, words: Any, position: int) -> tuple[Any, int]:
    loaded = Calibration(file)
    (codec,) = loaded.codecs
    frame = encode_frame(SHAPE, codec, words, identity=Identity(first_position=position), calibration=loaded)
    out = np.empty_like(words)
    decode_frame(frame, out=out, calibration=loaded)
    return out, len(frame)


def block(model: decoder.Decoder, first: int, seed: int = 11) -> Any:
    """KV of 64 tokens that were not calibrated on, as bf16 words [layer][K, V][head][token][channel]."""
    kept: list[Any] = []
    ids = torch.from_numpy(tiny.documents(1, first + 64, seed).astype(np.int64))
    with torch.inference_mode():
        model.hidden(ids, keep=lambda _layer, k, v: kept.append(torch.stack((k[0, :, first:], v[0, :, first:]))))
    return torch.stack(kept).bfloat16().view(torch.int16).numpy()


def values(words: Any) -> Any:
    return (words.astype(np.uint16).astype(np.uint32) << 16).view(np.float32)


def test_the_file_loads_and_frames_keep_the_ratio(model: decoder.Decoder, made: making.Made) -> None:
    loaded = Calibration(made.file)
    assert (loaded.layers, loaded.kv_heads, loaded.head_dim) == (tiny.LAYERS, tiny.KV_HEADS, tiny.HEAD_DIM)
    assert loaded.codecs == (speckv.Codec.Q5C,)
    assert made.ratio >= 5.0 and made.documents == 4 and made.tokens == 4 * 199 and made.loss_nats > 0
    words = block(model, 64)
    (_, size), (_, first) = through(made.file, words, 64), through(made.file, block(model, 0), 0)
    assert first - size == pytest.approx(
        2 * 4 * tiny.HEAD_DIM * 2 * tiny.KV_HEADS * tiny.LAYERS, abs=64 * 2 * tiny.LAYERS
    )
    blocks = statistics.SEQUENCE // 64
    assert blocks * words.nbytes / (first + (blocks - 1) * size) == pytest.approx(made.ratio, rel=2e-3)


def test_values_come_back_with_the_true_position_only(model: decoder.Decoder, made: making.Made) -> None:
    words = block(model, 128)
    exact = values(words)

    def loss(position: int) -> float:
        found, _ = through(made.file, words, position)
        return float(((values(found) - exact)[:, 0] ** 2).mean() / (exact[:, 0] ** 2).mean())

    assert loss(128) < 0.2
    # A rotation that comes off wrongly goes on again just so: only the mean is in the wrong place.
    assert loss(128) <= loss(131) * 1.02


def test_shaping_puts_errors_where_they_do_not_hurt() -> None:
    rng = np.random.default_rng(5)
    width = 64
    directions = rng.normal(size=(width, 4))
    sensitivity = directions @ directions.T + 0.01 * np.eye(width)  # in a few directions of rotated values
    rows, columns = np.tril_indices(width, -1)
    tables: dict[str, Any] = {
        "q5c.unit": np.full((1, 2, 1), -9, np.int8),
        "q5c.mean": np.zeros((1, 2, 1, width), np.int16),
        "q5c.bits": np.full((1, 2, 1), 3, np.uint8),
        "q5c.shaping": np.zeros((1, 2, 1, width * (width - 1) // 2), np.int16),
    }
    about = {"format": statistics.FORMAT, "version": statistics.VERSION, "rotary": "none"}
    plain = Calibration(save(tables, about))
    tables["q5c.shaping"][...] = q5c._shaping(sensitivity, 0.1)[rows, columns]
    shaped = Calibration(save(tables, about))
    shape = speckv.Geometry(1, 1, width, 64)
    words = torch.from_numpy(rng.normal(size=(2, 64, width))).bfloat16().view(torch.int16).numpy()
    behind = Identity(first_position=64)
    rotation = q5c._rotation(width).numpy()
    cost, error = [], []
    for loaded in (plain, shaped):
        out = np.empty_like(words)
        decode_frame(
            encode_frame(shape, "q5c", words, identity=behind, calibration=loaded), out=out, calibration=loaded
        )
        lost = (values(out) - values(words)) @ rotation
        cost.append(float(np.einsum("xtc,cd,xtd->", lost, sensitivity, lost)))
        error.append(float((lost**2).sum()))
    assert cost[1] < 0.4 * cost[0]
    assert error[1] < 3 * error[0]


def test_bits_go_where_they_save_most() -> None:
    losses = np.array([4.0**-w for w in q5c.WIDTHS])[:, None, None, None] * np.array([[[1.0, 64.0]] * 2])
    widths = q5c._widths(losses, 14)
    assert widths.sum() == 14 and (widths[..., 1] == widths[..., 0] + 3).all()
    assert (q5c._widths(losses, 99) == 5).all()


@pytest.mark.parametrize(("bits", "scalar"), [(1, 4.40), (2, 9.30), (3, 14.62), (4, 20.22), (5, 26.01)])
def test_trellis_codes_lose_less_than_the_best_scalar_quantiser(bits: int, scalar: float) -> None:
    # Decibels of a normal distribution. Max, "Quantizing for minimum distortion" (1960), table I: the best without one.
    width = 128
    tables: dict[str, Any] = {
        "q5c.unit": np.full((1, 2, 1), -10, np.int8),
        "q5c.mean": np.zeros((1, 2, 1, width), np.int16),
        "q5c.bits": np.full((1, 2, 1), bits, np.uint8),
        "q5c.shaping": np.zeros((1, 2, 1, width * (width - 1) // 2), np.int16),
    }
    about = {"format": statistics.FORMAT, "version": statistics.VERSION, "rotary": "none"}
    numbers = np.random.default_rng(6).normal(size=(2, 640, width))
    words = torch.from_numpy(numbers).half().view(torch.int16).numpy()
    shape = speckv.Geometry(1, 1, width, 640, speckv.DType("fp16"))
    out = np.empty_like(words)
    loaded = Calibration(save(tables, about))
    frame = encode_frame(shape, "q5c", words, identity=Identity(first_position=64), calibration=loaded)
    decode_frame(frame, out=out, calibration=loaded)
    errors = out.view(np.float16).astype(float) - numbers
    assert -10 * np.log10((errors**2).mean()) > scalar + 0.25


@pytest.mark.parametrize("codec", ["q5c", "e7c"])
def test_sinks_come_back_as_they_are_and_are_not_calibrated_on(
    codec: str, model: decoder.Decoder, made: making.Made, made_e7c: making.Made
) -> None:
    file = {"q5c": made, "e7c": made_e7c}[codec].file
    words = block(model, 0)
    words[:, :, :, : statistics.SINKS] = 0x7F80  # infinities
    found, _ = through(file, words, 0)
    assert (found[:, :, :, : statistics.SINKS] == 0x7F80).all()
    assert np.isfinite(values(found[:, :, :, statistics.SINKS :])).all()
    with pytest.raises(speckv.SpeckvError):
        through(file, words, 64)
    ids = tiny.documents(1, 200).astype(np.int64)
    study = statistics.study(model, ids, 0, None)
    assert {head.count for head in study.heads.values()} == {192 - statistics.SINKS}  # of full blocks


def test_shaping_that_does_not_help_on_other_documents_is_left_out(
    model: decoder.Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = statistics.study(model, tiny.documents(4, 200).astype(np.int64), 0, None)
    common = statistics.tables(model, study, "q5c")
    sizes = []

    def losses(blocks: Any, _codec: Any, tables: Any) -> Any:
        assert len(blocks) and all(any(block is late for late in study.late) for block in blocks)
        sizes.append(np.abs(tables["q5c.shaping"].astype(int)).sum(-1))
        return sizes[-1].astype(float)

    monkeypatch.setattr(statistics, "losses", losses)
    assert np.isinf(q5c._dampings(model.shape, study, common)).all()
    assert all((more >= less).all() for more, less in itertools.pairwise(sizes)) and not sizes[-1].any()


def test_the_file_says_what_it_was_made_from(made: making.Made) -> None:
    tensors = load(made.file)
    assert tensors["q5c.bits"].tolist() == made.bits.tolist()
    assert b'"source":"tests"' in made.file and b'"documents":"4"' in made.file


def test_a_ratio_out_of_reach_is_refused(model: decoder.Decoder) -> None:
    with pytest.raises(statistics.CalibrationError, match="out of reach"):
        making.make(model, tiny.documents(1, 140).astype(np.int64), ratio=15.0)
    with pytest.raises(statistics.CalibrationError, match="out of reach"):
        making.check(model.shape, ratio=15.0, codec="q5c")


def test_the_same_seed_makes_the_same_file(model: decoder.Decoder, made: making.Made, tmp_path: Path) -> None:
    assert load(make(model, "q5c").file)["q5c.bits"].tolist() == made.bits.tolist()


# ---- e7c -------------------------------------------------------------------------------------------------------------


def test_e7c_meets_the_ratio_with_its_own_frames(model: decoder.Decoder, made_e7c: making.Made) -> None:
    loaded = Calibration(made_e7c.file)
    assert loaded.codecs == (speckv.Codec.E7C,) and loaded.head_dim == tiny.HEAD_DIM
    assert 5.0 <= made_e7c.ratio < 5.2 and made_e7c.loss_nats > 0
    words = block(model, 64)
    found, size = through(made_e7c.file, words, 64)
    assert 4.0 < words.nbytes / size < 6.5
    exact = values(words)
    assert float(((values(found) - exact) ** 2).mean() / (exact**2).mean()) < 0.5


def test_e7c_costs_less_than_q5c_at_the_same_ratio(made: making.Made, made_e7c: making.Made) -> None:
    assert made_e7c.loss_nats < made.loss_nats


def test_one_file_may_serve_both_modes(model: decoder.Decoder, made: making.Made, made_e7c: making.Made) -> None:
    both = statistics.file(load(made.file) | load(made_e7c.file))
    loaded = Calibration(both)
    assert loaded.codecs == (speckv.Codec.Q5C, speckv.Codec.E7C)
    words = block(model, 64)
    for codec, alone in (("q5c", made), ("e7c", made_e7c)):
        frames = [
            encode_frame(SHAPE, codec, words, identity=Identity(first_position=64), calibration=each)
            for each in (loaded, Calibration(alone.file))
        ]
        # All but the digest, and the header's checksum.
        assert frames[0][128:].tobytes() == frames[1][128:].tobytes()
    smaller = load(made_e7c.file)
    smaller["e7c.mean"] = smaller["e7c.mean"][:1]
    with pytest.raises(speckv.DamagedError):
        Calibration(statistics.file(load(made.file) | smaller))


def test_samples_of_e7c_leave_out_what_frames_keep_as_it_is(model: decoder.Decoder) -> None:
    study = statistics.study(model, tiny.documents(1, 200).astype(np.int64), 0, None)
    for position, words, _ in study.blocks:
        if position == 0:
            words[:, :, :, : statistics.SINKS] = 1e30
    sinks = statistics.SINKS * sum(position == 0 for position, _, _ in study.blocks)
    for transform in e7c._transforms(model, study.heads, study.blocks).values():
        assert len(transform.sample) == 64 * len(study.blocks) - sinks and np.abs(transform.sample).max() < 1e20


def test_transforms_decorrelate_and_make_errors_cost_their_square() -> None:
    rng = np.random.default_rng(3)
    width = 16
    covariance, sensitivity = (x @ x.T + np.eye(width) for x in rng.normal(size=(2, width, width)))
    forward, back = e7c._transform(covariance, sensitivity)
    assert np.allclose(back @ forward.T, np.eye(width))
    of_coefficients = forward @ covariance @ forward.T
    assert np.allclose(of_coefficients, np.diag(np.diag(of_coefficients)), atol=1e-8 * of_coefficients.max())
    assert (np.diff(np.diag(of_coefficients)) <= 0).all()
    damped = sensitivity + e7c.DAMPING * np.trace(sensitivity) / width * np.eye(width)
    assert np.allclose(back @ damped @ back.T, np.eye(width))


def test_tables_of_frequencies_sum_to_256_and_leave_rare_symbols_to_escapes() -> None:
    for counts in ([1000] + [0] * 31, [1] * 32, [100000, 3000, 40, 1] + [0] * 28, [0] * 31 + [5], [3, 2] * 16):
        shares = e7c._frequencies(np.array(counts, float))
        assert shares.sum() == 256 and shares[31] >= 1 and (shares >= 0).all() and shares.max() < 256
    assert e7c._frequencies(np.array([100000.0, 3000, 40, 1] + [0] * 28))[3] == 0


def test_histograms_go_by_the_table_that_is_like_them() -> None:
    rng = np.random.default_rng(4)
    steep, flat = 0.2 ** np.arange(32.0), 0.8 ** np.arange(32.0)
    histograms = np.stack([rng.poisson(1000 * kind) for kind in (steep, flat) * 40]).astype(float)
    frequencies, which = e7c._cluster(histograms)
    assert len(frequencies) <= e7c.TABLES
    assert not set(which[::2]) & set(which[1::2])


def test_symbols_count_levels_by_their_high_part() -> None:
    counts = np.zeros((1, 2048), np.int64)
    counts[0, [0, 1, 2, 3, 62, 63, 2047]] = 1, 2, 3, 4, 5, 6, 7
    assert e7c._symbols(counts, 0)[0, [0, 1, 2, 3, 30, 31]].tolist() == [1, 2, 3, 4, 0, 18]
    assert e7c._symbols(counts, 1)[0, [0, 1, 30, 31]].tolist() == [3, 7, 0, 18]


def test_a_ratio_beyond_e7c_is_refused(model: decoder.Decoder) -> None:
    with pytest.raises(statistics.CalibrationError, match="out of reach"):
        making.make(model, tiny.documents(1, 140).astype(np.int64), ratio=60.0, codec="e7c")
